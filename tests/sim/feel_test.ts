/**
 * The measure of repair end to end, as `deno task bench:feel --quick` runs it but shorter: the same seed gives the same
 * tables to the byte, paths lose what they are said to, and repair loses less for bytes that it pays.
 */
import { assert, assertEquals, assertGreater, assertLess, assertNotEquals } from "@std/assert";
import { measure, quickPlan, type Row } from "../../bench/feel/measure.ts";
import { report } from "../../bench/feel/report.ts";

const SEED = Number(Deno.env.get("SIM_SEED") ?? 1);
const SECONDS = 3;

Deno.test(`feel: the same seed gives the same tables (seed ${SEED})`, () => {
  const shares: number[] = [];
  const first = measure(quickPlan(SECONDS), SEED, (share) => shares.push(share));
  assertEquals(shares.at(-1), 1);
  const text = report(first);
  assertEquals(report(measure(quickPlan(SECONDS), SEED, () => {})), text);
  const rowsOf = (place: string, code: string) =>
    first.rows.filter((row) => row.place === place && row.scheme.code === code);
  const none = (place: string): Row => rowsOf(place, "none")[0];
  assertEquals(none("clean").score.lost, 0);
  assertEquals([none("clean").extra, none("random").extra, none("random").extraWorstSecond], [0, 0, 0]);
  for (const place of ["random", "bursts"]) {
    assert(none(place).score.residual > 0.005 && none(place).score.residual < 0.12, text);
  }
  for (const row of rowsOf("random", "auto").filter(({ workload }) => workload === "game64")) {
    assertLess(row.score.residual, none("random").score.residual, text);
    assertGreater(row.extra, 0, text);
  }
  for (const { place, bound } of first.bounds) {
    assert(bound.alone <= bound.riding && bound.riding <= none(place).score.residual + 0.05, text);
  }
  const [beside] = first.rows.filter(({ hasBulk }) => hasBulk);
  assertGreater(beside.bulkMbitPerS!, 0.1, text);
});

Deno.test("feel: another seed is another run", () => {
  const plan = { entries: quickPlan(SECONDS).entries.slice(5, 7), bounds: [] };
  const [a, b] = [SEED, SEED + 1].map((seed) => measure(plan, seed, () => {}).rows[0].score);
  assertNotEquals(a, b);
});
