/**
 * The test command after its checks: all parts, then the verdict. The last line, which is left in tests/results/verdict
 * too, counts: a file that crashed, hung, threw at import or was not run is a failure and named. Exits with 1 when
 * anything failed, and with CI=true also when anything was skipped.
 */
import { runParts, testFiles } from "./parts.ts";
import { judge } from "./verdict.ts";

/** Some twice what the longest part takes on two busy cores. */
const LIMIT_S = 2100;
const FOLDER = "tests/results";

const root = Deno.cwd();
const lanes = [["outside"], ["inside", "outside-rest"]].map((names) =>
  names.map((name) => ({
    name,
    command: [Deno.execPath(), "task", `test:${name}`],
    results: `${FOLDER}/${name}.xml`,
  }))
);
const ended = await runParts(root, LIMIT_S, lanes);
const { passed, failed, skipped, faults } = judge(ended, await testFiles(root, "tests", "tests/tensorflow"));
for (const fault of faults) console.error(fault);
const isStrict = Deno.env.get("CI") === "true";
if (skipped > 0) console.error(`${skipped} skipped${isStrict ? "; with CI=true that is a failure" : ""}`);
const line = `${passed} passed, ${failed} failed`;
await Deno.mkdir(FOLDER, { recursive: true });
await Deno.writeTextFile(`${FOLDER}/verdict`, `${line}\n`);
console.log(line);
Deno.exit(failed === 0 && passed > 0 && !(isStrict && skipped > 0) ? 0 : 1);
