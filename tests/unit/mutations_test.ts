/**
 * The mutation table and the task that tries it: every row still applies to this tree, and a small tree of its own shows which
 * faults count as noticed. The table itself is tried before a release, by `deno task mutate`.
 */
import { assert, assertEquals } from "@std/assert";
import { applied, describe, type Mutation } from "../mutations/mutation.ts";
import { ROWS } from "../mutations/rows.ts";
import { tryMutations } from "../mutations/trial.ts";
import { requires } from "../kit/requires.ts";

const ROOT = new URL("../..", import.meta.url).pathname;

Deno.test("mutations: every row changes one place of its file, and names test files that exist", async () => {
  const useless: string[] = [];
  for (const row of ROWS) {
    const text = await Deno.readTextFile(`${ROOT}${row.file}`).catch(() => "");
    const mutated = applied(row, text);
    if (typeof mutated === "string") useless.push(`${describe(row)}: ${mutated}`);
    if (row.tests.length === 0) useless.push(`${describe(row)}: no test`);
    for (const file of row.tests) {
      const isTest = /^tests\/.*_test\.ts$/.test(file) &&
        await Deno.stat(ROOT + file).then(() => true, () => false);
      if (!isTest) useless.push(`${describe(row)}: ${file} is no test file`);
    }
  }
  assertEquals(useless, []);
  const places = ROWS.map(({ file, from, to }) => `${file}\n${from}\n${to}`);
  assertEquals(places.filter((place, i) => places.indexOf(place) !== i), [], "a row stands twice");
});

Deno.test("mutations: a row that no longer applies exactly once is of no use", () => {
  const row: Mutation = { file: "a.ts", from: "x", to: "y", tests: [], note: "" };
  assertEquals(applied(row, "a x b"), { text: "a y b" });
  assertEquals(applied(row, "a b"), "from is not in the file");
  assertEquals(applied(row, "x x"), "from is in the file more than once");
  assertEquals(applied({ ...row, to: "x" }, "x"), "from and to are the same");
  assertEquals(applied({ ...row, from: "x\nz" }, "x\nz x"), { text: "y x" });
  assertEquals(applied({ ...row, from: "" }, "x"), "from is a part of one line, or of 3 at most");
});

Deno.test({
  name: "mutations: what is noticed is killed; survivors, rows of no use and tests that fail anyway are told",
  ...requires({ programs: ["git", "timeout"] }),
  fn: tellsKilledFromSurvivors,
});

async function tellsKilledFromSurvivors(): Promise<void> {
  const root = await Deno.makeTempDir(), scratch = await Deno.makeTempDir();
  const write = (path: string, text: string) => Deno.writeTextFile(`${root}/${path}`, text);
  await write("deno.json", JSON.stringify({ tasks: { "test:files": "deno test --no-lock" } }));
  await write("sum.ts", "export const sum = (a: number, b: number) => a + b;\nexport const unused = 7;\n");
  const test = (body: string) => `import { sum } from "./sum.ts";\nDeno.test("t", () => {\n${body}\n});\n`;
  await write("sum_test.ts", test('if (sum(2, 3) !== 5) throw new Error("wrong");'));
  await write("red_test.ts", test("throw new Error(`always ${sum(1, 1)}`);"));
  const git = await new Deno.Command("git", { args: ["init", "-q"], cwd: root }).output();
  assert(git.success);
  const row = (from: string, to: string, file = "sum_test.ts"): Mutation => ({
    file: "sum.ts",
    from,
    to,
    tests: [file],
    note: "",
  });
  const said: string[] = [];
  const verdicts = await tryMutations([
    row("a + b", "a - b"),
    row("7", "8"),
    row("a * b", "a"),
    row("=> a + b", "=> ("),
    row("a + b", "a", "red_test.ts"),
    row("7;", "nobody;"),
    row("=> a + b", "=> { for (;;); return a + b; }"),
    { ...row("a", "b"), file: "ffi/src/lib.rs" },
  ], { root, scratch, jobs: 2, limitS: 30, native: false, say: (line) => said.push(line) });
  assertEquals({ ...verdicts, survivors: verdicts.survivors.length, invalid: verdicts.invalid.length }, {
    killed: 2, // one by a test that does not end any more
    survivors: 1,
    invalid: 4,
    skipped: 1,
  }, said.join("\n"));
  assert(verdicts.survivors[0].includes("7 -> 8"));
  const invalid = verdicts.invalid.join("\n");
  for (const part of ["red_test.ts fails without", "from is not in the file", "no program any more"]) {
    assert(invalid.includes(part), invalid);
  }
  assertEquals(await Deno.readTextFile(`${root}/sum.ts`).then((text) => text.includes("a + b")), true);
  assertEquals(await Deno.stat(scratch).catch(() => "gone"), "gone");
  await Deno.remove(root, { recursive: true });
}
