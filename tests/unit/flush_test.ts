/**
 * When bulk packets are held (control/flush.ts): the bound for any history of arrivals, the batch that theory gives for
 * a Poisson process, and the end of hope for company after a train of packets.
 */
import { assert, assertEquals, assertGreater, assertLess } from "@std/assert";
import fc from "fast-check";
import { ArrivalGaps } from "../../src/control/flush.ts";
import { Random } from "../kit/random.ts";

const BOUND_US = 1000;
const options = { numRuns: 2000 };

Deno.test("flush: no batch waits past what a header is worth, whatever came before", () => {
  fc.assert(
    fc.property(
      fc.array(fc.oneof(fc.integer({ min: 1, max: 60 }), fc.integer({ min: 1, max: 3000 })), {
        minLength: 8,
        maxLength: 200,
      }),
      fc.integer({ min: 1, max: 32 }),
      fc.double({ min: 0, max: 1.2, noNaN: true }),
      fc.integer({ min: 0, max: BOUND_US }),
      (gapsUs, packets, spent, boundUs) => {
        const gaps = new ArrivalGaps(2, boundUs);
        let nowUs = 1e6;
        for (const gapUs of gapsUs) gaps.note(1, nowUs += gapUs);
        const waitedUs = spent * boundUs;
        const waitUs = gaps.waitUs(1, packets, waitedUs);
        assert(waitUs >= 0);
        assert(waitUs === 0 || waitedUs + packets * waitUs <= boundUs, `${packets}: ${waitUs}`);
        if (gapsUs.at(-1)! > boundUs) assertEquals(waitUs, 0, "after a silence");
        assertEquals(gaps.waitUs(0, 1, 0), 0, "another's history");
        gaps.forget(1);
        assertEquals(gaps.waitUs(1, 1, 0), 0);
      },
    ),
    options,
  );
});

Deno.test("flush: a Poisson process is held while n (n + 1) / 2 gaps are worth less than a header", () => {
  for (const gapUs of [10, 30, 100, 300]) {
    const random = new Random(gapUs);
    const gaps = new ArrivalGaps(1, BOUND_US);
    let sum = 0, nowUs = 1e6;
    const rounds = 2000;
    for (let round = 0; round < rounds; round++) {
      let packets = 1;
      gaps.note(0, nowUs += Math.ceil(-gapUs * Math.log(1 - random.real())));
      // The wait that the packets have on the average.
      while (packets < 32 && gaps.waitUs(0, packets, gapUs * packets * (packets - 1) / 2) > 0) packets++;
      sum += packets;
    }
    const best = Math.sqrt(2 * BOUND_US / gapUs);
    assertLess(sum / rounds, 1.3 * best + 0.5, `${gapUs}`);
    assertGreater(sum / rounds, 0.6 * best, `${gapUs}`);
  }
});

Deno.test("flush: behind a train hope ends soon, and gaps near the bound raise none", () => {
  const trains = new ArrivalGaps(1, BOUND_US);
  let nowUs = 1e6;
  for (let i = 0; i < 60; i++) trains.note(0, nowUs += i % 10 === 9 ? 20_000 : 20);
  trains.note(0, nowUs += 20);
  const waitUs = trains.waitUs(0, 1, 0);
  assert(waitUs >= 20 && waitUs <= 63, `${waitUs}`);
  const slow = new ArrivalGaps(1, BOUND_US);
  for (let i = 0; i < 60; i++) slow.note(0, nowUs += i % 2 ? 990 : 1500);
  slow.note(0, nowUs += 990);
  assertEquals(slow.waitUs(0, 1, 0), 0);
});
