/**
 * `deno task bench:turn`: what the queue for a thread's turn costs a packet. A relay's whole way out with the native kernels, with the
 * scheduler and without, burst about: bursts of few rows, which pass untouched, and full ones, which are sorted and served. No socket
 * and no exit. Prints a table; asserts no time.
 */
import { loadNative } from "../ffi/native.ts";
import { suiteOf } from "../src/codec/suite.ts";
import { BACKLOG_ROWS } from "../src/queue/turn_queue.ts";
import { DROP } from "../src/metrics.ts";
import { Arena } from "../src/vector/arena.ts";
import { Burst, BURST_CAPACITY, TO_TUNNEL } from "../src/vector/burst.ts";
import { udpPacket } from "../tests/kit/packets.ts";
import { queueOptions } from "../tests/kit/queue_options.ts";
import { World } from "../tests/kit/world.ts";

const ROUNDS = 15, BURSTS = 400, BYTES = 1200;
const CLIENT = "10.66.0.2", FAR = "8.8.8.8";
const QUEUES = queueOptions({ packets: 4096 });

class Way {
  readonly #world = new World(1);
  readonly #server;
  readonly #burst: Burst;
  readonly #packet = udpPacket(FAR, CLIENT, new Uint8Array(BYTES - 28));

  constructor(isOn: boolean, protocol: "oxtunnel" | "wireguard") {
    const world = this.#world, { crypto } = suiteOf(loadNative(), { forged: DROP.forged });
    world.protocol = protocol;
    const arena = new Arena(16_384);
    this.#server = world.relay("192.0.2.1:4433", {
      ...crypto,
      ipv4: "10.66.0.1",
      arena,
      queues: isOn ? QUEUES : undefined,
    });
    const client = world.client("198.51.100.7:5555", this.#server, { ...crypto, ipv4: CLIENT });
    client.send(udpPacket(CLIENT, FAR, new Uint8Array(20)));
    world.runFor(1_000_000);
    this.#burst = new Burst(arena);
  }

  /** Nanoseconds a packet in the median of bursts of this many rows. */
  measure(rows: number): number {
    const burst = this.#burst, { core } = this.#server;
    const times: number[] = [];
    for (let i = 0; i < BURSTS; i++) {
      for (let row = 0; row < rows; row++) {
        burst.bytes.set(this.#packet, burst.offset[burst.grow(this.#packet.length, TO_TUNNEL)]);
      }
      const nowUs = this.#world.nowUs += 1000;
      const start = performance.now();
      core.ingestInner(burst, nowUs);
      while (core.isBehind) {
        burst.release();
        core.serveTunnel(burst, nowUs);
      }
      times.push(performance.now() - start);
      burst.release();
    }
    return median(times) * 1e6 / rows; // what other programs interrupted is not counted
  }
}

const median = (values: number[]) => values.toSorted((a, b) => a - b)[values.length >> 1];

console.log(
  "| protocol | rows of a burst | off, ns a packet | on | the queue's part |\n|---|---|---|---|---|",
);
for (const protocol of ["oxtunnel", "wireguard"] as const) {
  for (const rows of [16, BACKLOG_ROWS, BURST_CAPACITY]) {
    const off = new Way(false, protocol), on = new Way(true, protocol);
    const offNs: number[] = [], onNs: number[] = [], parts: number[] = [];
    for (let round = 0; round <= ROUNDS; round++) {
      // Each goes first every other time.
      const [first, second] = round % 2 === 0 ? [off, on] : [on, off];
      const a = first.measure(rows), b = second.measure(rows);
      if (round === 0) continue; // the compiler learns
      offNs.push(first === off ? a : b);
      onNs.push(first === off ? b : a);
      parts.push(onNs.at(-1)! - offNs.at(-1)!);
    }
    const cells = [median(offNs), median(onNs), median(parts)].map((ns) => ns.toFixed(1));
    console.log(`| ${protocol} | ${rows} | ${cells.join(" | ")} |`);
  }
}
