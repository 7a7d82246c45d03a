/**
 * A transfer over UDP as QUIC makes them: packets of 1200 bytes, acknowledged by ranges, a window by CUBIC (RFC 9438) that losses
 * shrink (RFC 9002 section 6: by packets overtaken and by time), paced over the round trip. It stands for QUIC's behaviour on a
 * path, not for its bytes: nothing is encrypted, and what is lost is not sent again. The end at the client says who sends; the
 * one who receives prints how many bytes a second came after the first seconds.
 * Usage: quic_like.ts far PORT | near HOST PORT up|down SECONDS LEAD_SECONDS
 */
import { loadNative } from "../../ffi/native.ts";
import { monotonicUs } from "../../src/io/driver.ts";
import { MmsgPort } from "../../src/io/mmsg.ts";
import { PollSet } from "../../src/io/poll.ts";
import { Arena } from "../../src/vector/arena.ts";
import { Burst, BURST_CAPACITY, DONE, TO_TRANSMIT } from "../../src/vector/burst.ts";
import { parseAddress } from "../../src/wire/address.ts";

const HELLO = 1, DATA = 2, ACK = 3, DATA_BYTES = 1200;
const ACK_EVERY = 2, ACK_US = 5000, RANGES = 16;
const INITIAL_WINDOW = 10 * DATA_BYTES, WINDOW_MIN = 2 * DATA_BYTES;
// RFC 9438 sections 4.6 and 5.
const CUBIC_BETA = 0.7, CUBIC_C = 0.4;
// RFC 9002 section 6.1 and appendix A.
const OVERTAKEN = 3, TIME_SHARE = 9 / 8, PACING_GAIN = 1.25, KEPT = 1 << 16;
// RFC 9406 section 4.2: the growth of the round trip that ends slow start.
const GROWTH_US_MIN = 4000, GROWTH_US_MAX = 16_000;

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

function send(bytes: number, write: (view: DataView, at: number) => void): void {
  const row = burst.grow(bytes, TO_TRANSMIT);
  burst.address.set(peer, 4 * row);
  burst.port[row] = peerPort;
  write(burst.view, burst.offset[row]);
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
    take(burst.view, burst.offset[row], burst.length[row]);
    burst.next[row] = DONE;
  }
  burst.release();
}

class Sender {
  next = 0;
  readonly #sentUs = new Float64Array(KEPT);
  /** 0 free, 1 on its way. */
  readonly #isFlying = new Uint8Array(KEPT);
  #oldest = 0;
  #flying = 0;
  #window = INITIAL_WINDOW;
  #threshold = Infinity;
  #maxWindow = 0;
  #epochUs = 0;
  #recovery = -1;
  #srttUs = 100_000;
  #leastUs = Infinity;
  #sendAtUs = 0;
  #heardUs = monotonicUs();

  /** Sends what window and pace allow; returns when to come again. */
  pump(nowUs: number): number {
    const gapUs = DATA_BYTES / (PACING_GAIN * this.#window / this.#srttUs);
    while (this.#flying * DATA_BYTES < this.#window && this.#sendAtUs <= nowUs && burst.count < 64) {
      const number = this.next++;
      send(DATA_BYTES, (view, at) => {
        view.setUint8(at, DATA);
        view.setUint32(at + 1, number);
      });
      this.#sentUs[number % KEPT] = nowUs;
      this.#isFlying[number % KEPT] = 1;
      this.#flying++;
      this.#sendAtUs = Math.max(this.#sendAtUs, nowUs - 2000) + gapUs;
    }
    flush();
    if (nowUs - this.#heardUs > Math.max(500_000, 3 * this.#srttUs)) this.#giveUp(nowUs);
    return this.#flying * DATA_BYTES < this.#window ? this.#sendAtUs : nowUs + 100_000;
  }

  /** Nothing was heard for long: all that flies is lost. */
  #giveUp(nowUs: number): void {
    for (; this.#oldest < this.next; this.#oldest++) this.#isFlying[this.#oldest % KEPT] = 0;
    this.#flying = 0;
    this.#threshold = Math.max(WINDOW_MIN, this.#window * CUBIC_BETA);
    this.#window = WINDOW_MIN;
    this.#heardUs = nowUs;
  }

  acked(view: DataView, at: number, nowUs: number): void {
    this.#heardUs = nowUs;
    const ranges = view.getUint8(at + 1);
    let largest = -1, acked = 0;
    for (let i = 0; i < ranges; i++) {
      const from = view.getUint32(at + 2 + 8 * i), to = view.getUint32(at + 6 + 8 * i);
      largest = Math.max(largest, to);
      for (let number = Math.max(from, this.#oldest); number <= to && number < this.next; number++) {
        if (this.#isFlying[number % KEPT] === 0) continue;
        this.#isFlying[number % KEPT] = 0;
        this.#flying--;
        acked++;
        if (number === to && i === 0) this.#roundTrip(nowUs - this.#sentUs[number % KEPT]);
      }
    }
    const lateUs = nowUs - TIME_SHARE * this.#srttUs;
    for (; this.#oldest < this.next; this.#oldest++) {
      if (this.#isFlying[this.#oldest % KEPT] === 0) continue;
      const isLost = this.#oldest <= largest - OVERTAKEN ||
        this.#oldest < largest && this.#sentUs[this.#oldest % KEPT] < lateUs;
      if (!isLost) break;
      this.#isFlying[this.#oldest % KEPT] = 0;
      this.#flying--;
      this.#lost(this.#oldest, nowUs);
    }
    if (largest > this.#recovery) this.#grow(acked * DATA_BYTES, nowUs);
  }

  #roundTrip(us: number): void {
    this.#leastUs = Math.min(this.#leastUs, us);
    this.#srttUs += (us - this.#srttUs) / 8;
    const growthUs = Math.min(GROWTH_US_MAX, Math.max(GROWTH_US_MIN, this.#leastUs / 8));
    if (this.#window < this.#threshold && us > this.#leastUs + growthUs && this.#window > INITIAL_WINDOW) {
      this.#threshold = this.#window;
    }
  }

  #lost(number: number, nowUs: number): void {
    if (number <= this.#recovery) return;
    this.#recovery = this.next - 1;
    // Fast convergence (RFC 9438 section 4.7).
    this.#maxWindow = this.#window < this.#maxWindow ? this.#window * (1 + CUBIC_BETA) / 2 : this.#window;
    this.#window = Math.max(WINDOW_MIN, this.#window * CUBIC_BETA);
    this.#threshold = this.#window;
    this.#epochUs = nowUs;
  }

  #grow(bytes: number, nowUs: number): void {
    if (this.#window < this.#threshold) {
      this.#window += bytes;
      return;
    }
    if (this.#epochUs === 0) [this.#epochUs, this.#maxWindow] = [nowUs, this.#window];
    const most = this.#maxWindow / DATA_BYTES, k = Math.cbrt(most * (1 - CUBIC_BETA) / CUBIC_C);
    const seconds = (nowUs - this.#epochUs + this.#srttUs) / 1e6;
    const target = (CUBIC_C * (seconds - k) ** 3 + most) * DATA_BYTES;
    // As much as Reno would take (section 4.3), or towards the cubic.
    const reno = 3 * (1 - CUBIC_BETA) / (1 + CUBIC_BETA) * DATA_BYTES * bytes / this.#window;
    this.#window += Math.max(reno, Math.min(bytes / 2, (target - this.#window) * bytes / this.#window));
  }
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
    send(2 + 8 * RANGES, (view, at) => {
      view.setUint8(at, ACK);
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
  const sender = new Sender(), receiver = new Receiver();
  let before = 0, dueUs = 0;
  for (let nowUs = startUs; nowUs < endUs; nowUs = monotonicUs()) {
    receive(Math.min(dueUs, endUs), (view, at, length) => {
      if (isSending && view.getUint8(at) === ACK) sender.acked(view, at, monotonicUs());
      else if (!isSending && view.getUint8(at) === DATA) receiver.take(view, at, length, monotonicUs());
    });
    const us = monotonicUs();
    if (us < startUs + leadS * 1e6) before = receiver.bytes;
    dueUs = Math.min(us + 100_000, isSending ? sender.pump(us) : receiver.say(us));
  }
  return (receiver.bytes - before) / (seconds - leadS);
}

if (isNear) {
  const isUp = words[2] === "up", seconds = Number(words[3]), leadS = Number(words[4]);
  for (let i = 0; i < 3; i++) {
    send(4, (view, at) => {
      view.setUint8(at, HELLO);
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
