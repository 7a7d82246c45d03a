/**
 * What is said of repair in one direction: shares that mean something from the first datagram on, and the scheme by what came.
 */
import { assertAlmostEquals, assertEquals } from "@std/assert";
import { RepairTally } from "../../src/repair/tally.ts";
import { RepairReader } from "../../src/wire/repair.ts";

const SECOND = 1_000_000;

/** A copy of the datagram so many counters before. */
function copyOf(counter: number): RepairReader {
  const frame = new RepairReader();
  frame.count = 1;
  frame.numbers[0] = counter;
  return frame;
}

Deno.test("repair tally: the share is that of the last second, and none before there was one", () => {
  const tally = new RepairTally();
  tally.repair(copyOf(0), 1, 150, SECOND, 10 * SECOND);
  tally.datagram(400, 10 * SECOND);
  assertEquals(tally.share, 0);
  for (let i = 1; i <= 64; i++) {
    tally.repair(copyOf(i), i + 1, 50, NaN, 10 * SECOND + i * 15_625);
    tally.datagram(250, 10 * SECOND + i * 15_625);
  }
  assertAlmostEquals(tally.share, 0.25, 0.05);
});

Deno.test("repair tally: a copy that comes at once is no spaced one, and five seconds without any are no scheme", () => {
  const tally = new RepairTally();
  tally.repair(copyOf(6), 7, 50, NaN, 10 * SECOND);
  assertEquals(tally.scheme, "copy");
  for (let i = 0; i < 40; i++) tally.repair(copyOf(6 + i), 9 + i, 50, NaN, 10 * SECOND);
  assertEquals(tally.scheme, "spaced");
  tally.datagram(250, 16 * SECOND);
  assertEquals(tally.scheme, "none");
});
