/**
 * Admission against one exact token bucket per source. Invariant under test: a source gets what its bucket holds
 * and no more, nobody else's packets take from it, and memory does not grow with sources. Times are multiples of
 * 1/64 s, which floating point holds exactly. FUZZ_SEED and FUZZ_RUNS choose the run.
 */
import { assert, assertEquals, assertLess } from "@std/assert";
import fc from "fast-check";
import { Admission } from "../../src/session/admission.ts";
import { WIREGUARD_LIMITS } from "../../src/session/limits.ts";
import { parseAddress } from "../../src/wire/address.ts";
import { INITIATION_BYTES } from "../../src/wire/wireguard.ts";
import { World } from "../kit/world.ts";

const options = {
  numRuns: Number(Deno.env.get("FUZZ_RUNS") ?? 300),
  seed: Number(Deno.env.get("FUZZ_SEED") ?? 20260101),
};

const SECOND = 1_000_000;
const TICK_US = SECOND / 64;

/** The bucket that a source should have, in whole 64ths of a token. */
class Bucket {
  #level: number;
  #ticks: number;

  constructor(readonly rate: number, nowTicks: number) {
    this.#level = 64 * rate;
    this.#ticks = nowTicks;
  }

  take(nowTicks: number): boolean {
    this.#level = Math.min(64 * this.rate, this.#level + (nowTicks - this.#ticks) * this.rate);
    this.#ticks = nowTicks;
    if (this.#level < 64) return false;
    this.#level -= 64;
    return true;
  }
}

/** Sources as senders see them, and the source that each counts as: an IPv6 /64 is one, and so is each connection. */
const SOURCES: readonly [address: string, bucket: string][] = [
  ["198.51.100.1", "a"],
  ["198.51.100.2", "b"],
  ["255.255.255.254", "c"],
  ["2001:db8::1", "d"],
  ["2001:db8::ffff:ffff:ffff:ffff", "d"],
  ["2001:db8:0:1::1", "e"],
  ["::1", "f"],
  ["::", "f"],
  // Connections over TLS, whose addresses are the program's own.
  ["100::1", "g"],
  ["100::2", "h"],
];

Deno.test("admission: every source has the bucket of the model", () => {
  const command = fc.record({
    source: fc.constantFrom(...SOURCES),
    // Often the clock stands still; at times long enough to fill any bucket.
    ticks: fc.oneof(fc.constant(0), fc.nat(20), fc.nat(2000)),
    takes: fc.integer({ min: 1, max: 30 }),
  });
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 40 }),
      fc.nat(0xffffffff),
      fc.array(command, { maxLength: 60, size: "max" }),
      (rate, seed, commands) => {
        const admission = new Admission(200, rate, seed);
        const model = new Map<string, Bucket>();
        let nowTicks = 0;
        for (const { source: [text, name], ticks, takes } of commands) {
          nowTicks += ticks;
          const bucket = model.get(name) ?? new Bucket(rate, nowTicks);
          model.set(name, bucket);
          const words = Uint32Array.of(7, ...parseAddress(text)!);
          for (let i = 0; i < takes; i++) {
            assertEquals(
              admission.take(words, 1, nowTicks * TICK_US),
              bucket.take(nowTicks),
              `${text}, take ${i}`,
            );
          }
        }
      },
    ),
    options,
  );
});

Deno.test("admission: a hundred thousand sources take no memory, and none is refused for the others", () => {
  const RATE = 5;
  const admission = new Admission(200, RATE, 0x5eed);
  const words = parseAddress("198.51.100.1")!;
  const victim = parseAddress("203.0.113.1")!;
  // The loop itself allocates nothing, so that what is measured is admission's.
  let refused = 0, lockedOut = 0;
  const run = (from: number, count: number) => {
    for (let i = from; i < from + count; i++) {
      words[3] = i;
      if (!admission.take(words, 0, i * 10)) refused++;
      // What the flood throws out starts anew with a full bucket: never with less than it had.
      if (i % 20_000 === 0 && !admission.take(victim, 0, i * 10)) lockedOut++;
    }
  };
  run(0, 20_000); // compiled and settled
  const used = () => {
    const { heapUsed, external } = Deno.memoryUsage();
    return heapUsed + external;
  };
  const before = used();
  run(20_000, 100_000);
  // A map with all of these addresses would take 10 MB.
  assertLess(used() - before, 3_000_000);
  assertEquals([refused, lockedOut], [0, 0]);
});

Deno.test("admission: load begins above the rate, in one instant or one second, and ends a second later", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 300 }), fc.nat(10 * SECOND), (perSecond, startUs) => {
      const admission = new Admission(perSecond, 20, 1);
      for (let i = 0; i < perSecond; i++) assertEquals(admission.isUnderLoad(startUs), false);
      assertEquals(admission.loaded(startUs), false);
      assertEquals(admission.isUnderLoad(startUs), true);
      assertEquals(admission.loaded(startUs + SECOND - 1), true);
      assertEquals(admission.loaded(startUs + SECOND), false);
      assertEquals(admission.isUnderLoad(startUs + SECOND), false);
      // The window is new: as many again before the next load.
      for (let i = 1; i < perSecond; i++) assertEquals(admission.isUnderLoad(startUs + SECOND), false);
      assertEquals(admission.isUnderLoad(startUs + SECOND), true);
    }),
    options,
  );
});

Deno.test("admission: initiations forged in a client's name do not spend its tokens", () => {
  const world = new World(options.seed);
  const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1", rateLimitPerIp: 1 });
  let forged: Uint8Array | undefined;
  // The first initiation never arrives: a sound MAC1, no cookie, and known to the forger.
  world.tap = (_from, to, bytes) => {
    if (forged || to !== server.endpoint) return bytes;
    forged = bytes.slice();
    return undefined;
  };
  const client = world.client("198.51.100.7:5555", server, { ipv4: "10.66.0.2" });
  assertEquals(forged?.length, INITIATION_BYTES);
  let atUs = world.nowUs;
  const connected = () => client.metrics.get("handshakes_completed") === 1;
  for (let i = 0; i < 300 && !connected(); i++, atUs += SECOND / 10) {
    world.run(atUs);
    // Enough for the relay to ask for cookies.
    const each = WIREGUARD_LIMITS.initiationsPerSecond + 10;
    if (i % 10 === 0) { for (let j = 0; j < each; j++) server.receive(forged!, client.endpoint); }
  }
  assertEquals(connected(), true);
  assert(server.metrics.get("cookie_replies_sent") > 0);
  assertEquals(server.metrics.dropped("rate_limited"), 0);
});
