/**
 * The arithmetic of a speedtest: RFC 3550's jitter by vectors worked out by hand, and percentiles.
 */
import { assertAlmostEquals, assertEquals } from "@std/assert";
import fc from "fast-check";
import { Jitter } from "../../src/control/jitter.ts";
import { percentile } from "../../src/control/percentile.ts";

Deno.test("jitter: RFC 3550 appendix A.8, by hand", () => {
  // Sent every 20 ms, arrivals in milliseconds: transits 5, 7, 4, 4, 10.
  const sentMs = [0, 20, 40, 60, 80], arrivedMs = [5, 27, 44, 64, 90];
  const jitter = new Jitter();
  const seen = sentMs.map((sent, i) => {
    jitter.add(1000 * (arrivedMs[i] - sent));
    return jitter.us;
  });
  // |D| = 2, 3, 0, 6 ms: J = 2/16 = 0.125; + (3 - 0.125)/16; - J/16; + (6 - J)/16.
  const expected = [0, 125, 304.6875, 285.64453125, 642.791748046875];
  seen.forEach((us, i) => assertAlmostEquals(us, expected[i], 1e-9));
  jitter.reset();
  jitter.add(1e6);
  assertEquals(jitter.us, 0, "the first after a reset differs from nothing");
});

Deno.test("jitter: clocks that do not agree, and wrap, change nothing", () => {
  fc.assert(fc.property(
    fc.array(fc.nat(1_000_000), { minLength: 2 }),
    fc.integer({ min: 0, max: 0xffffffff }),
    (transits, offset) => {
      const plain = new Jitter(), shifted = new Jitter();
      for (const us of transits) {
        plain.add(us);
        shifted.add((us + offset) >>> 0);
      }
      assertAlmostEquals(plain.us, shifted.us, 1e-6);
    },
  ));
});

Deno.test("percentile: the nearest rank", () => {
  const values = [15, 20, 35, 40, 50];
  assertEquals([0.05, 0.3, 0.4, 0.5, 1].map((rank) => percentile(values, rank)), [15, 20, 20, 35, 50]);
  assertEquals(percentile([7], 0.99), 7);
  assertEquals(percentile([], 0.5), NaN);
  const hundred = Array.from({ length: 100 }, (_, i) => 100 - i);
  assertEquals([percentile(hundred, 0.5), percentile(hundred, 0.99)], [50, 99]);
});
