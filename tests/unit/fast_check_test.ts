/** The seeds of properties: every test draws the same cases in every run, unless FUZZ_SEED says others. */
import { assertEquals } from "@std/assert";
import fc from "fast-check";

Deno.test("properties: a run without FUZZ_SEED has one seed, and a run with it has that", () => {
  const { seed, numRuns } = fc.readConfigureGlobal();
  assertEquals(seed, Number(Deno.env.get("FUZZ_SEED") ?? 20260101));
  const runs = Deno.env.get("FUZZ_RUNS");
  assertEquals(numRuns, runs === undefined ? undefined : Number(runs));
  const drawn: number[][] = [[], []];
  for (const list of drawn) fc.assert(fc.property(fc.integer(), (n) => void list.push(n)), { numRuns: 20 });
  assertEquals(drawn[0], drawn[1]);
});
