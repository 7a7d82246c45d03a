/**
 * A proxy that makes a bad path of a good one: datagrams to LISTEN are forwarded to UPSTREAM, and the answers back, each
 * direction by a path model of its own, which all clients share. Each client endpoint has a socket of its own towards
 * upstream. It waits in ppoll(2) to the microsecond and prints its counts as a line of JSON whenever they have
 * changed, four times a second.
 */
import { loadNative } from "../ffi/native.ts";
import { parseEndpoint } from "../src/config.ts";
import { monotonicUs, wallClockOffsetUs } from "../src/io/driver.ts";
import { MmsgPort } from "../src/io/mmsg.ts";
import { PollSet } from "../src/io/poll.ts";
import { Arena } from "../src/vector/arena.ts";
import { Burst, DONE, HELD, TO_TRANSMIT } from "../src/vector/burst.ts";
import { formatEndpoint, parseAddress } from "../src/wire/address.ts";
import { CHANNELS, NEAR_PATHS, type PathModel, TRANSFER_PATHS } from "../tests/kit/channels.ts";
import { Random } from "../tests/kit/random.ts";
import { ImpairedPath, QUEUE_MAX } from "../tests/kit/impaired_path.ts";

const CLIENTS_MAX = 64;
const TELL_US = 250_000;

/** A datagram on its way: its slot of the arena, and who is to send it to whom. */
interface Held {
  slot: number;
  length: number;
  port: MmsgPort;
  address: Uint32Array;
  to: number;
}

const PATHS: Record<string, (random: Random) => PathModel> = {
  ...CHANNELS,
  ...TRANSFER_PATHS,
  ...NEAR_PATHS,
};

const USAGE = `Usage: deno task impair LISTEN UPSTREAM PATH SEED [ORIGIN]

Forwards datagrams from LISTEN to UPSTREAM, both "address:port", and the answers back. PATH is the model of losses and delays
in each direction: ${Object.keys({ ...CHANNELS, ...TRANSFER_PATHS }).join(", ")}, and the first of these with
another length, as in "random-2.5ms" (2.5, 5, 10 or 40 ms one way). SEED is a whole number: the same seed gives the same losses. ORIGIN is the
start of the path in milliseconds since 1970; the default is now. Prints its counts as JSON; Ctrl-C ends it.`;

const [listen, upstream, channel, seed, origin = String(Date.now())] = Deno.args;
const isUsable = [listen, upstream].every((text) => parseAddress(parseEndpoint(text ?? "")?.host ?? "")) &&
  Object.hasOwn(PATHS, channel ?? "") && /^\d{1,9}$/.test(seed ?? "") && /^\d{1,15}$/.test(origin);
if (!isUsable) {
  console.error(USAGE);
  Deno.exit(2);
}
const native = loadNative();
if (typeof native === "string") throw new Error(native);
const endpoint = (text: string) => {
  const { host, port } = parseEndpoint(text)!;
  return { host, port, address: parseAddress(host)! };
};
const here = endpoint(listen), there = endpoint(upstream);
const arena = new Arena(2 * QUEUE_MAX + 1024);
const burst = new Burst(arena);
// Datagrams are to be lost one by one, so none may come or go in one piece with others.
const open = (host: string, port: number) =>
  new MmsgPort({ native, host, port, offload: false, onRefused: () => {} });
const front = open(here.host, here.port);
const clients: { back: MmsgPort; address: Uint32Array; port: number }[] = [];
const known = new Map<string, number>();
const originUs = 1000 * Number(origin) - wallClockOffsetUs();
/** The models' time. */
const clockUs = () => monotonicUs() - originUs;
const path = (number: number) => {
  const model = PATHS[channel](new Random(Number(seed) + number));
  // Models begin with what they are asked first.
  model.arrivalUs(0, 0);
  return new ImpairedPath<Held>(model);
};
const up = path(0), down = path(1);
let waits = new PollSet([front.descriptor]);

/** The socket towards upstream for the client in this row, made when it is new; undefined when there are too many. */
function backFor(row: number): MmsgPort | undefined {
  const key = formatEndpoint(burst.address, 4 * row, burst.port[row]);
  let number = known.get(key);
  if (number === undefined) {
    if (clients.length === CLIENTS_MAX) return undefined;
    number = clients.length;
    known.set(key, number);
    const address = burst.address.slice(4 * row, 4 * row + 4);
    clients.push({
      back: open(there.host.includes(":") ? "::" : "0.0.0.0", 0),
      address,
      port: burst.port[row],
    });
    waits = new PollSet([front.descriptor, ...clients.map(({ back }) => back.descriptor)]);
  }
  return clients[number].back;
}

/** Takes what `from` has and puts it on the path, for whom `way` says of a row. */
function take(
  from: MmsgPort,
  on: ImpairedPath<Held>,
  way: (row: number) => Omit<Held, "slot" | "length"> | undefined,
): void {
  const count = from.receive(burst);
  const nowUs = clockUs();
  for (let row = 0; row < count; row++) {
    const slot = burst.slot[row], length = burst.length[row];
    const to = way(row);
    burst.next[row] = to && on.offer({ slot, length, ...to }, length, nowUs) ? HELD : DONE;
  }
  burst.release();
}

/** Sends the datagrams whose delay on the path is over. */
function letGo(from: ImpairedPath<Held>): void {
  for (let held = from.take(clockUs()); held; held = from.take(clockUs())) {
    const row = burst.push(held.slot, held.length, TO_TRANSMIT);
    burst.address.set(held.address, 4 * row);
    burst.port[row] = held.to;
    held.port.transmit(burst);
    burst.release();
  }
}

console.log("ready");
let told = "", tellUs = 0;
while (true) {
  const nowUs = clockUs();
  if (nowUs >= tellUs) {
    const counts = JSON.stringify({ up: up.counts(), down: down.counts() });
    if (counts !== told) console.log(told = counts);
    tellUs = nowUs + TELL_US;
  }
  waits.wait(Math.max(0, Math.min(up.nextUs, down.nextUs, tellUs) - clockUs()) / 1000);
  letGo(up);
  letGo(down);
  take(front, up, (row) => {
    const port = backFor(row);
    return port && { port, address: there.address, to: there.port };
  });
  for (const client of clients) {
    take(client.back, down, () => ({ port: front, address: client.address, to: client.port }));
  }
}
