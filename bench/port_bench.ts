/**
 * Packets a second through each port: bursts of 256 datagrams leave one socket and are received again, in one thread,
 * over loopback, for one destination and for 16 in turn. The kernel's own path is in the figure; nothing else is. Prints
 * a table of medians; asserts no time. Run: `deno task bench:ports`
 */
import { setImmediate } from "node:timers";
import { loadNative } from "../ffi/native.ts";
import { MmsgPort } from "../src/io/mmsg.ts";
import type { Port } from "../src/io/port.ts";
import { UdpPort } from "../src/io/udp.ts";
import { uringObstacle, UringPort } from "../src/io/uring.ts";
import { Arena } from "../src/vector/arena.ts";
import { Burst, BURST_CAPACITY, TO_TRANSMIT } from "../src/vector/burst.ts";
import { parseAddress } from "../src/wire/address.ts";

const HOST = "127.0.0.1";
const ADDRESS = parseAddress(HOST)!;
const SIZES = [64, 1200];
const DESTINATIONS = [1, 16];
const ROUNDS = 7;
const ROUND_MS = 150;
/** A default receive buffer holds this many datagrams of 1200 bytes; the rest of a burst waits for the next round trip. */
const PORTABLE_ROWS = 64;

const median = (values: number[]) => values.sort((a, b) => a - b)[values.length >> 1];
const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

interface Kind {
  name: string;
  rows: number;
  open(arena: Arena): Port;
}

const refuse = () => {
  throw new Error("the bench loses packets");
};
const kinds: Kind[] = [{
  name: "portable",
  rows: PORTABLE_ROWS,
  open: (arena) => new UdpPort({ host: HOST, port: 0, arena, onDrop: refuse }),
}];
const native = loadNative();
if (typeof native === "string") throw new Error(native);
for (const offload of [false, true]) {
  kinds.push({
    name: offload ? "mmsg with GSO and GRO" : "mmsg",
    rows: BURST_CAPACITY,
    open: () => new MmsgPort({ native, host: HOST, port: 0, offload, onRefused: refuse }),
  });
}
const obstacle = uringObstacle(native);
if (obstacle) console.log(`io_uring is left out: ${obstacle}`);
else {
  for (const offload of [false, true]) {
    kinds.push({
      name: offload ? "io_uring with GSO and GRO" : "io_uring",
      rows: BURST_CAPACITY,
      open: () => new UringPort({ native, host: HOST, port: 0, offload, onRefused: refuse }),
    });
  }
}

/** Thousands of packets a second, sent and received. */
async function measure({ rows, open }: Kind, bytes: number, destinations: number): Promise<number> {
  const arena = new Arena(4 * BURST_CAPACITY), burst = new Burst(arena);
  const sender = open(arena);
  const receivers = Array.from({ length: destinations }, () => open(arena));

  /** One burst out and in again. Where only the event loop knows what has arrived, it gets its turns. */
  const roundTrip = async () => {
    for (let i = 0; i < rows; i++) {
      const row = burst.grow(bytes, TO_TRANSMIT);
      burst.address.set(ADDRESS, 4 * row);
      burst.port[row] = receivers[row % destinations].localPort;
    }
    sender.transmit(burst);
    burst.release();
    for (let received = 0;;) {
      for (const receiver of receivers) {
        received += receiver.receive(burst);
        burst.release();
      }
      if (received === rows) break;
      await turn();
    }
  };

  const rates: number[] = [];
  for (let round = 0; round <= ROUNDS; round++) {
    let packets = 0;
    const startMs = performance.now();
    while (performance.now() < startMs + ROUND_MS) {
      await roundTrip();
      packets += rows;
    }
    // The first warms the JIT.
    if (round > 0) rates.push(packets / (performance.now() - startMs));
  }
  for (const port of [sender, ...receivers]) await port.close();
  return median(rates);
}

const columns = SIZES.flatMap((bytes) => DESTINATIONS.map((count) => ({ bytes, count })));
console.log(`| port | ${columns.map(({ bytes, count }) => `${bytes} B to ${count}`).join(" | ")} |`);
console.log(`|---${"|---".repeat(columns.length)}|`);
for (const kind of kinds) {
  const cells: string[] = [];
  for (const { bytes, count } of columns) cells.push((await measure(kind, bytes, count)).toFixed(0));
  console.log(`| ${kind.name} | ${cells.join(" | ")} k/s |`);
}
