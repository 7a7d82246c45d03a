/**
 * A transfer over UDP as QUIC makes them: packets of 1200 bytes, acknowledged by ranges; window, losses and pace are
 * tests/kit/cubic.ts's. It stands for QUIC's behaviour on a path: of its bytes there are the first ones of RFC 9000's headers, for
 * classifiers, and noise, and what is lost is not sent again. The end at the client says who sends; the one who receives prints
 * how many bytes a second came after the first seconds.
 * Usage: quic_like.ts far PORT | near HOST PORT up|down SECONDS LEAD_SECONDS
 */
import { loadNative } from "../../ffi/native.ts";
import { monotonicUs } from "../../src/io/driver.ts";
import { MmsgPort } from "../../src/io/mmsg.ts";
import { PollSet } from "../../src/io/poll.ts";
import { Arena } from "../../src/vector/arena.ts";
import { Burst, BURST_CAPACITY, DONE, TO_TRANSMIT } from "../../src/vector/burst.ts";
import { parseAddress } from "../../src/wire/address.ts";
import { CubicSender } from "../../tests/kit/cubic.ts";

const HELLO = 1, DATA = 2, ACK = 3, DATA_BYTES = 1200;
const ACK_EVERY = 2, ACK_US = 5000, RANGES = 5;
/** RFC 9000 sections 17.2.2 and 17.3: an Initial of version 1, a short header, and the length of both, connection id included. */
const INITIAL = [0xc3, 0, 0, 0, 1, 8], SHORT = 0x41, HEAD_BYTES = 14;
const native = loadNative();
if (typeof native === "string") throw new Error(native);
const burst = new Burst(new Arena(2 * BURST_CAPACITY + 512));
const [role, ...words] = Deno.args;
const isNear = role === "near";
const port = new MmsgPort({
  native,
  host: "0.0.0.0",
  port: isNear ? 0 : Number(words[0]),
  offload: false,
  onRefused: () => {},
});
const waits = new PollSet([port.descriptor]);
const peer = isNear ? parseAddress(words[0])!.slice() : new Uint32Array(4);
let peerPort = isNear ? Number(words[1]) : 0;

const noise = crypto.getRandomValues(new Uint8Array(2 * DATA_BYTES));

function send(bytes: number, kind: number, write: (view: DataView, at: number) => void): void {
  const row = burst.grow(bytes, TO_TRANSMIT), at = burst.offset[row];
  burst.address.set(peer, 4 * row);
  burst.port[row] = peerPort;
  burst.bytes.set(noise.subarray(row, row + bytes), at);
  if (kind === HELLO) burst.bytes.set(INITIAL, at);
  else burst.bytes[at] = SHORT;
  burst.bytes[at + HEAD_BYTES] = kind;
  write(burst.view, at + HEAD_BYTES);
}

function flush(): void {
  port.transmit(burst);
  burst.release();
}

/** Gives each datagram that has come to `take`, and waits until `untilUs` at most for the first. */
function receive(untilUs: number, take: (view: DataView, at: number, length: number) => void): void {
  waits.wait(Math.max(0, untilUs - monotonicUs()) / 1000);
  const count = port.receive(burst);
  for (let row = 0; row < count; row++) {
    if (!isNear) {
      peer.set(burst.address.subarray(4 * row, 4 * row + 4));
      peerPort = burst.port[row];
    }
    take(burst.view, burst.offset[row] + HEAD_BYTES, burst.length[row]);
    burst.next[row] = DONE;
  }
  burst.release();
}

/** Sends what window and pace allow; returns when to come again. */
function pump(sender: CubicSender, nowUs: number): number {
  while (burst.count < 64) {
    const number = sender.next;
    if (!sender.take(nowUs)) break;
    send(DATA_BYTES, DATA, (view, at) => view.setUint32(at + 1, number));
  }
  flush();
  return sender.dueUs(nowUs);
}

function acknowledge(sender: CubicSender, view: DataView, at: number, nowUs: number): void {
  let largest = -1;
  for (let i = view.getUint8(at + 1) - 1; i >= 0; i--) {
    const to = view.getUint32(at + 6 + 8 * i);
    sender.acked(view.getUint32(at + 2 + 8 * i), to, nowUs);
    largest = Math.max(largest, to);
  }
  sender.settle(largest, nowUs);
}

class Receiver {
  bytes = 0;
  /** Ranges that came, the newest last. */
  readonly #ranges: [from: number, to: number][] = [];
  #unsaid = 0;
  #sayUs = Infinity;

  take(view: DataView, at: number, length: number, nowUs: number): void {
    const number = view.getUint32(at + 1), ranges = this.#ranges, last = ranges.at(-1);
    this.bytes += length;
    if (last !== undefined && number === last[1] + 1) last[1] = number;
    else if (last === undefined || number > last[1]) ranges.push([number, number]);
    if (ranges.length > RANGES) ranges.shift();
    if (this.#unsaid++ === 0) this.#sayUs = nowUs + ACK_US;
  }

  /** Acknowledges when it is time; returns when it is. */
  say(nowUs: number): number {
    if (this.#unsaid < ACK_EVERY && nowUs < this.#sayUs) return this.#sayUs;
    const ranges = this.#ranges;
    send(HEAD_BYTES + 2 + 8 * RANGES, ACK, (view, at) => {
      view.setUint8(at + 1, ranges.length);
      ranges.toReversed().forEach(([from, to], i) => {
        view.setUint32(at + 2 + 8 * i, from);
        view.setUint32(at + 6 + 8 * i, to);
      });
    });
    flush();
    this.#unsaid = 0;
    return this.#sayUs = Infinity;
  }
}

/** One transfer: what came a second after the lead, where this end receives. */
function transfer(isSending: boolean, seconds: number, leadS: number): number {
  const startUs = monotonicUs(), endUs = startUs + seconds * 1e6;
  const sender = new CubicSender(startUs), receiver = new Receiver();
  let before = 0, dueUs = 0;
  for (let nowUs = startUs; nowUs < endUs; nowUs = monotonicUs()) {
    receive(Math.min(dueUs, endUs), (view, at, length) => {
      if (isSending && view.getUint8(at) === ACK) acknowledge(sender, view, at, monotonicUs());
      else if (!isSending && view.getUint8(at) === DATA) receiver.take(view, at, length, monotonicUs());
    });
    const us = monotonicUs();
    if (us < startUs + leadS * 1e6) before = receiver.bytes;
    dueUs = Math.min(us + 100_000, isSending ? pump(sender, us) : receiver.say(us));
  }
  return (receiver.bytes - before) / (seconds - leadS);
}

if (isNear) {
  const isUp = words[2] === "up", seconds = Number(words[3]), leadS = Number(words[4]);
  for (let i = 0; i < 3; i++) {
    send(DATA_BYTES, HELLO, (view, at) => {
      view.setUint8(at + 1, isUp ? 0 : 1);
      view.setUint8(at + 2, seconds);
      view.setUint8(at + 3, leadS);
    });
    flush();
  }
  const bytesPerS = transfer(isUp, seconds, leadS);
  if (!isUp) console.log(JSON.stringify({ bytesPerS }));
} else {
  console.log("ready");
  let hello: [isSending: boolean, seconds: number, leadS: number] | undefined;
  while (hello === undefined) {
    receive(monotonicUs() + 100_000, (view, at) => {
      if (view.getUint8(at) === HELLO) {
        hello = [view.getUint8(at + 1) === 1, view.getUint8(at + 2), view.getUint8(at + 3)];
      }
    });
  }
  const bytesPerS = transfer(...hello);
  if (!hello[0]) console.log(JSON.stringify({ bytesPerS }));
}
Deno.exit(0);
