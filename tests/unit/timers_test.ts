/**
 * The indexed heap of deadlines against a plain map that is searched for its least. Invariant under test: nothing
 * is lost, nothing fires early or twice, and what fires is the earliest. FUZZ_SEED and FUZZ_RUNS choose the run.
 */
import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { Timers } from "../../src/session/timers.ts";

const options = {
  numRuns: Number(Deno.env.get("FUZZ_RUNS") ?? 500),
  seed: Number(Deno.env.get("FUZZ_SEED") ?? 20260101),
};

const CAPACITY = 40;

// A narrow range, so that deadlines coincide.
const due = fc.oneof(fc.nat(100), fc.constant(Infinity), fc.double({ min: 0, max: 1e12, noNaN: true }));
const command = fc.oneof(
  fc.record({ verb: fc.constant("set" as const), id: fc.nat(CAPACITY - 1), dueUs: due }),
  fc.record({ verb: fc.constant("hasten" as const), id: fc.nat(CAPACITY - 1), dueUs: due }),
  fc.record({ verb: fc.constant("take" as const), nowUs: due }),
);

Deno.test("timers: the heap does what a searched map does", () => {
  fc.assert(
    fc.property(fc.array(command, { maxLength: 300, size: "max" }), (commands) => {
      const timers = new Timers(CAPACITY);
      const model = new Map<number, number>();
      const earliest = () => Math.min(Infinity, ...model.values());
      const take = (nowUs: number) => {
        const least = earliest();
        const id = timers.takeExpired(nowUs);
        if (least > nowUs || least === Infinity) assertEquals(id, -1);
        else {
          // Of equal deadlines any may come first.
          assertEquals(model.get(id), least);
          model.delete(id);
        }
      };
      for (const command of commands) {
        if (command.verb === "take") take(command.nowUs);
        else {
          const { verb, id, dueUs } = command;
          timers[verb](id, dueUs);
          if (verb === "set" || dueUs < (model.get(id) ?? Infinity)) model.set(id, dueUs);
          if (model.get(id) === Infinity) model.delete(id);
        }
        assertEquals(timers.nextUs, earliest());
      }
      while (model.size > 0) take(Infinity);
      assertEquals([timers.takeExpired(Infinity), timers.nextUs], [-1, Infinity]);
    }),
    options,
  );
});

Deno.test("timers: a full heap of deadlines comes out sorted, each id once", () => {
  const count = 10_000;
  const timers = new Timers(count);
  const dues = Array.from({ length: count }, (_, id) => (id * 7919) % 5003);
  dues.forEach((dueUs, id) => timers.set(id, 1e9 + dueUs));
  dues.forEach((dueUs, id) => timers.hasten(id, dueUs));
  const ids = Array.from({ length: count }, () => timers.takeExpired(5003));
  assertEquals(ids.map((id) => dues[id]), dues.toSorted((a, b) => a - b));
  assertEquals(new Set(ids).size, count);
  assertEquals(timers.takeExpired(Infinity), -1);
});
