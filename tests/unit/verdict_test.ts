/**
 * The test command's verdict over real runs of Deno's test runner: a file that crashes, hangs, throws at import, has no test or
 * is run by no part fails the run by name, and one part's end is not the other's. Small trees of their own.
 */
import { assertEquals, assertMatch } from "@std/assert";
import { requires } from "../kit/requires.ts";
import { runParts, testFiles } from "../parts.ts";
import { judge, type Verdict } from "../verdict.ts";

/** Rust's own handler takes the first and puts back the default, by which the next one kills. */
const CRASH = `Deno.kill(Deno.pid, "SIGSEGV");`;
const GREEN = `Deno.test("green", () => {});`;
/** For files that must be ended. */
const LIMIT_S = 30;
/** What these runs say would be taken for what the run around this test says. */
const SILENT = { log() {}, error() {} };
const ENOUGH_S = 120;

interface Case {
  name: string;
  /** By folder, which is the part that runs it, and name; a name that ends with .js is no test file. */
  files: Record<string, string>;
  limitS?: number;
  expected: Pick<Verdict, "passed" | "failed">;
  faults: RegExp[];
}

const CASES: Case[] = [
  {
    name: "all green is green, and a skipped test is no passed one",
    files: { "a/x": GREEN, "b/y": `${GREEN}Deno.test.ignore("not now", () => {});` },
    expected: { passed: 2, failed: 0 },
    faults: [],
  },
  {
    name: "a file whose tests are all made by another file's function has results",
    files: {
      "a/x": `import { make } from "./maker.js"; make();`,
      "a/maker.js": `export function make() { ${GREEN} }`,
      "b/y": GREEN,
    },
    expected: { passed: 2, failed: 0 },
    faults: [],
  },
  {
    name: "a test that fails counts once",
    files: { "a/x": `${GREEN}Deno.test("red", () => { throw new Error("<failure"); });`, "b/y": GREEN },
    expected: { passed: 2, failed: 1 },
    faults: [],
  },
  {
    name: "a file that throws at import fails the run by name, and the files beside it count",
    files: { "a/x": `${GREEN}throw new Error("at import");`, "a/z": GREEN, "b/y": GREEN },
    expected: { passed: 2, failed: 1 },
    faults: [/^tests\/a\/x_test\.ts throws outside its tests/],
  },
  {
    name: "a file that crashes fails the run by name, and the other part ends by itself",
    files: {
      "a/x": `Deno.test("crash", () => new Promise(() => setInterval(() => { ${CRASH} }, 100)));`,
      "a/z": GREEN,
      "b/y": `Deno.test("slow", () => new Promise((resolve) => setTimeout(resolve, 3000)));`,
    },
    expected: { passed: 1, failed: 2 },
    faults: [/^tests\/a\/x_test\.ts crashed.* SIGSEGV/, /^1 more test files have no results$/],
  },
  {
    name: "a crash after the last test, with every test green, fails the run by name",
    files: {
      "a/x": `${GREEN}addEventListener("unload", () => {
        for (let i = 0; i < 1000; i++) { ${CRASH} }
      });`,
      "b/y": GREEN,
    },
    expected: { passed: 1, failed: 1 },
    faults: [/^tests\/a\/x_test\.ts crashed, or its end did/],
  },
  {
    name: "a file that hangs is ended and named, and its part's other results are not taken for green",
    files: { "a/w": GREEN, "a/x": `Deno.test("hang", () => { for (;;); });`, "a/z": GREEN, "b/y": GREEN },
    limitS: LIMIT_S,
    expected: { passed: 1, failed: 2 },
    faults: [/^tests\/a\/x_test\.ts hangs/, /^2 more test files have no results$/],
  },
  {
    name: "a file without tests, and one that no part runs, are named",
    files: { "a/x": "export {};", "a/z": GREEN, "b/y": GREEN, "c/q": GREEN },
    expected: { passed: 2, failed: 2 },
    faults: [/^tests\/a\/x_test\.ts has no results/, /^tests\/c\/q_test\.ts has no results/],
  },
];

/** @param isInTurn whether one part begins when the other has ended, instead of beside it. */
async function run({ files, limitS = ENOUGH_S }: Case, isInTurn: boolean): Promise<Verdict> {
  const root = await Deno.makeTempDir();
  try {
    for (const [path, text] of Object.entries(files)) {
      await Deno.mkdir(`${root}/tests/${path}`.replace(/\/[^/]*$/, ""), { recursive: true });
      const name = path.endsWith(".js") ? path : `${path}_test.ts`;
      await Deno.writeTextFile(`${root}/tests/${name}`, text);
    }
    const parts = ["a", "b"].map((name) => ({
      name,
      command: [
        Deno.execPath(),
        "test",
        "--no-config",
        "--no-check",
        "--allow-run",
        `--junit-path=${name}.xml`,
        `tests/${name}`,
      ],
      results: `${name}.xml`,
    }));
    const lanes = isInTurn ? [parts] : parts.map((part) => [part]);
    return judge(await runParts(root, limitS, lanes, SILENT), await testFiles(root, "tests"));
  } finally {
    await Deno.remove(root, { recursive: true });
  }
}

for (const [i, each] of CASES.entries()) {
  const isInTurn = i % 2 === 1;
  Deno.test({
    name: `verdict: ${each.name} (${isInTurn ? "in turn" : "side by side"})`,
    ...requires({ programs: ["timeout"] }),
    async fn() {
      const { passed, failed, faults } = await run(each, isInTurn);
      assertEquals(faults.length, each.faults.length, faults.join("\n"));
      for (const [at, fault] of each.faults.entries()) assertMatch(faults[at], fault);
      assertEquals({ passed, failed }, each.expected);
    },
  });
}
