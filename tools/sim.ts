/**
 * `deno task sim [--seed N] [--runs N]`: runs the simulator's tests under one seed after another and stops at the
 * first that fails, naming it. Without a seed it starts at a random one. Tests nothing itself.
 */
import { parseArgs } from "@std/cli";

const args = parseArgs(Deno.args, { string: ["seed", "runs"] });
const first = args.seed === undefined
  ? crypto.getRandomValues(new Uint32Array(1))[0] >>> 8
  : Number(args.seed);
const runs = Number(args.runs ?? (args.seed === undefined ? 10 : 1));
if (!Number.isInteger(first) || !(runs >= 1)) {
  console.error("usage: deno task sim [--seed N] [--runs N], both whole numbers");
  Deno.exit(2);
}
for (let seed = first; seed < first + runs; seed++) {
  console.log(`seed ${seed} (${seed - first + 1} of ${runs})`);
  const { code } = await new Deno.Command(Deno.execPath(), {
    args: [
      "test",
      "--no-prompt",
      "--quiet",
      "--allow-env=SIM_SEED",
      new URL("../tests/sim/", import.meta.url).pathname,
    ],
    env: { SIM_SEED: String(seed) },
  }).spawn().status;
  if (code !== 0) {
    console.error(`\nseed ${seed} failed; again with: deno task sim --seed ${seed}`);
    Deno.exit(1);
  }
}
