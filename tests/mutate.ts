/**
 * `deno task mutate`: puts one fault after another into copies of the tree and runs the tests that must notice. For the time
 * before a release: it takes as long as those tests, twice. Exits with 1 when a fault stays unnoticed, or a row of the table
 * is of no use. Options: --help.
 */
import { parseArgs } from "@std/cli";
import { describe } from "./mutations/mutation.ts";
import { ROWS } from "./mutations/rows.ts";
import { tryMutations } from "./mutations/trial.ts";

const HELP = `Tries the mutations of tests/mutations and prints those that no test notices.

  deno task mutate              all rows but those of native code
  deno task mutate src/wire     those whose line (file, note, text, tests) has these words

  --jobs N      copies of the tree, and so tests at a time; 2
  --limit S     seconds that a test file may run; 600
  --native      also rows of ffi/src: the library is built for each, the first time for minutes
  --list        prints the rows and tries none
`;

const args = parseArgs(Deno.args, { boolean: ["native", "list", "help"], string: ["jobs", "limit"] });
if (args.help) {
  console.log(HELP);
  Deno.exit(0);
}
const words = args._.map(String);
const rows = ROWS.filter((row) => words.every((word) => describe(row).includes(word)));
if (args.list) {
  for (const row of rows) console.log(describe(row));
  Deno.exit(0);
}
const scratch = await Deno.makeTempDir({ prefix: "oxrelay-mutate-" });
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  Deno.addSignalListener(signal, () => {
    Deno.removeSync(scratch, { recursive: true });
    Deno.exit(130);
  });
}
const { killed, survivors, invalid, skipped } = await tryMutations(rows, {
  root: Deno.cwd(),
  scratch,
  jobs: Number(args.jobs ?? 2),
  limitS: Number(args.limit ?? 600),
  native: args.native === true,
  say: (line) => console.log(line),
});
for (const survivor of survivors) console.log(`survived: ${survivor}`);
for (const sentence of invalid) console.log(`invalid: ${sentence}`);
if (skipped > 0) console.log(`${skipped} rows of native code were not tried: --native`);
console.log(`${killed} killed, ${survivors.length} survived, ${invalid.length} invalid`);
Deno.exit(rows.length > 0 && survivors.length === 0 && invalid.length === 0 ? 0 : 1);
