/**
 * Replay windows against a set of all counters ever accepted. Invariant under test: a counter passes if and only
 * if it is new and at most 16 352 behind the highest, for every row by itself, however far counters jump.
 * FUZZ_SEED and FUZZ_RUNS choose the run.
 */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { ReplayWindows, WINDOW_PACKETS } from "../../src/session/replay.ts";

const options = {
  numRuns: Number(Deno.env.get("FUZZ_RUNS") ?? 500),
  seed: Number(Deno.env.get("FUZZ_SEED") ?? 20260101),
};

const WINDOW = 16352;
const GREATEST = Number.MAX_SAFE_INTEGER;
const ROWS = 3;

class SeenCounters {
  highest = -1;
  readonly seen = new Set<number>();

  accept(counter: number): boolean {
    if (this.seen.has(counter) || this.highest - counter > WINDOW) return false;
    this.seen.add(counter);
    this.highest = Math.max(this.highest, counter);
    return true;
  }
}

/** A counter relative to the row's highest: the edges of words, ring and window, near steps, long jumps. */
const step = fc.oneof(
  { weight: 4, arbitrary: fc.integer({ min: -70, max: 70 }) },
  {
    weight: 3,
    arbitrary: fc.constantFrom(-16385, -16384, -16383, -16354, -16353, -16352, -16351, -16321, -16320),
  },
  {
    weight: 2,
    arbitrary: fc.constantFrom(16320, 16321, 16351, 16352, 16353, 16383, 16384, 16385, 32768),
  },
  { weight: 2, arbitrary: fc.integer({ min: -17000, max: 17000 }) },
  { weight: 1, arbitrary: fc.constantFrom(2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 32 + 1, 2 ** 37, 2 ** 48) },
);
/** Where a row starts from: the beginning, where 32-bit arithmetic wraps, and the last counters of all. */
const start = fc.constantFrom(
  0,
  1,
  31,
  2 ** 31 - 1,
  2 ** 32 - 1,
  2 ** 32,
  2 ** 37 - 1,
  2 ** 37,
  GREATEST - 40,
);
const command = fc.record({ row: fc.nat(ROWS - 1), step, isReset: fc.nat(60).map((n) => n === 0) });

Deno.test("replay: each row accepts what the set of seen counters accepts", () => {
  assertEquals(WINDOW_PACKETS, WINDOW);
  let accepted = 0, refused = 0;
  fc.assert(
    fc.property(
      fc.array(start, { minLength: ROWS, maxLength: ROWS }),
      fc.array(command, { maxLength: 200, size: "max" }),
      (starts, commands) => {
        const windows = new ReplayWindows(ROWS);
        const models = starts.map(() => new SeenCounters());
        const agree = (row: number, counter: number) => {
          const expected = models[row].accept(counter);
          assertEquals(windows.accept(row, counter), expected, `row ${row}, counter ${counter}`);
          if (expected) accepted++;
          else refused++;
          assertEquals(windows.highest[row], models[row].highest);
          assertEquals(windows.accepted(row), models[row].seen.size);
        };
        starts.forEach((counter, row) => agree(row, counter));
        for (const { row, step, isReset } of commands) {
          if (isReset) {
            windows.reset(row);
            models[row] = new SeenCounters();
          }
          agree(row, Math.min(GREATEST, Math.max(0, models[row].highest + step)));
        }
        for (const [row, { seen }] of models.entries()) for (const counter of [...seen]) agree(row, counter);
      },
    ),
    options,
  );
  assert(accepted > 1000 && refused > 1000, `too one-sided: ${accepted} accepted, ${refused} refused`);
});

Deno.test("replay: counters that come in order forget the ring's old bits too", () => {
  const windows = new ReplayWindows(1);
  const model = new SeenCounters();
  const offer = (counter: number) => {
    assertEquals(windows.accept(0, counter), model.accept(counter), `counter ${counter}`);
  };
  for (let counter = 0; counter < 20_000; counter++) offer(counter);
  // Gaps, which what the ring held before would fill, and then what was left out.
  for (let counter = 20_000; counter < 40_000; counter++) if (counter % 33 > 0) offer(counter);
  for (let counter = 40_000 - WINDOW; counter < 40_000; counter++) offer(counter);
  assertEquals(windows.accepted(0), model.seen.size);
});

Deno.test("replay: the edges of the window, to the counter", () => {
  for (const highest of [WINDOW, 20_000, 2 ** 32 + 5, 2 ** 37 + 16_000, GREATEST]) {
    const windows = new ReplayWindows(1);
    assertEquals(windows.accept(0, highest), true);
    assertEquals(windows.accept(0, highest), false);
    assertEquals(windows.accept(0, highest - WINDOW - 1), false);
    assertEquals(windows.accept(0, highest - WINDOW), true);
    assertEquals(windows.accept(0, highest - WINDOW), false);
    assertEquals(windows.accept(0, highest - WINDOW + 1), true);
  }
});

Deno.test("replay: a ring that goes round forgets its old bits and no others", () => {
  const windows = new ReplayWindows(2);
  const model = new SeenCounters();
  // Three times round in steps that leave most words to be cleared without a bit of their own.
  for (let counter = 0; counter < 3 * 16384; counter += 97) {
    assertEquals(windows.accept(0, counter), model.accept(counter));
  }
  for (let counter = 0; counter < 3 * 16384; counter++) {
    assertEquals(windows.accept(0, counter), model.accept(counter), `counter ${counter}`);
  }
  assertEquals([windows.highest[1], windows.accepted(1)], [-1, 0]);
  assertEquals(windows.accept(1, 0), true);
});
