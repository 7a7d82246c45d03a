/**
 * fast-check for the tests, with one choice of seeds: the same in every run, so that what passes here passes everywhere, unless
 * FUZZ_SEED says another. `deno task fuzz` draws one, says it with what fails, and FUZZ_RUNS says how many runs a property
 * has that does not say so itself.
 */
import fc from "fast-check-itself";

const SEED = 20260101;

const runs = Deno.env.get("FUZZ_RUNS");
fc.configureGlobal({
  seed: Number(Deno.env.get("FUZZ_SEED") ?? SEED),
  ...(runs === undefined ? {} : { numRuns: Number(runs) }),
});

export default fc;
export * from "fast-check-itself";
