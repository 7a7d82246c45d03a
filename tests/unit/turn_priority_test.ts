/**
 * Who goes first on a processor: a light thread does, one that uses nearly all of it does not, and without the privilege nothing
 * changes. The policy by itself, on a clock of the test's.
 */
import { assert, assertEquals, assertGreater } from "@std/assert";
import { allowsFirst, threadUs, TurnPriority } from "../../src/io/turn_priority.ts";

const WINDOW_US = 100_000;

class Bench {
  nowUs = 0;
  usedUs = 0;
  isAllowed = true;
  readonly changes: boolean[] = [];
  readonly priority = new TurnPriority(
    0,
    (isFirst) => {
      this.changes.push(isFirst);
      return this.isAllowed;
    },
    () => this.usedUs,
  );

  /** Windows in which the thread uses this share of a processor. */
  run(share: number, windows = 1, rows = 0) {
    for (let i = 0; i < windows; i++) {
      this.nowUs += WINDOW_US;
      this.usedUs += share * WINDOW_US;
      this.priority.look(rows, this.nowUs);
    }
  }
}

Deno.test("turn priority: first while light, ordinary after a window of nearly a whole processor, and first again", () => {
  const bench = new Bench();
  assert(bench.priority.isFirst);
  bench.run(0.85, 10);
  assertEquals(bench.changes, [true]);
  bench.run(0.95);
  assert(!bench.priority.isFirst);
  bench.run(0.8, 10);
  assert(!bench.priority.isFirst);
  bench.run(0.5);
  assert(bench.priority.isFirst);
  assertEquals(bench.changes, [true, false, true]);
});

Deno.test("turn priority: packets are gathered while transfers run, and never where little is to be done or others go first", () => {
  const bench = new Bench();
  assertEquals(bench.priority.restUs(200, 0, 10), 0, "nothing is known of the load yet");
  bench.run(0.1, 1, 5000);
  assertEquals(bench.priority.restUs(200, 1000, 1010), 0, "there is time for each packet");
  bench.run(0.5, 1, 5000);
  assertEquals(bench.priority.restUs(200, 1000, 1010), 240);
  assertEquals(bench.priority.restUs(200, 1000, 2000), 0, "the turn took longer");
  assertEquals(bench.priority.restUs(0, 1000, 1010), 0, "nothing came");
  bench.run(0.5, 1, 100);
  assertEquals(bench.priority.restUs(200, 1000, 1010), 0, "few packets came");
  bench.run(0.99, 1, 5000);
  assertEquals(bench.priority.restUs(200, 1000, 1010), 0);
});

Deno.test("turn priority: where the system refuses, it is asked once", () => {
  const changes: boolean[] = [];
  let usedUs = 0;
  const priority = new TurnPriority(0, (isFirst) => changes.push(isFirst) < 0, () => usedUs);
  for (let i = 1; i < 10; i++) {
    usedUs += WINDOW_US;
    priority.look(0, i * WINDOW_US);
  }
  assertEquals(changes, [true]);
  assert(!priority.isFirst);
});

Deno.test("turn priority: a thread's processor time grows by what it does", () => {
  const before = threadUs();
  for (let i = 0; i < 1e6; i++);
  assertGreater(threadUs(), before);
});

Deno.test("turn priority: more threads than processors do not go first", () => {
  assert(allowsFirst(2, 2));
  assert(!allowsFirst(3, 2));
  assert(allowsFirst(1));
});
