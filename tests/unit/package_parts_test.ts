/**
 * The parts of packages that follow from deno.json and main.ts: each subcommand is there with its task's permissions, and a task
 * that a package could not start is refused when the package is made.
 */
import { assert, assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import { readTasks, renderLauncher, renderManual, subcommandsOf } from "../kit/package_parts.ts";

const ROOT = new URL("../..", import.meta.url).pathname;

/** A tree of two files. */
async function withTree(
  main: string,
  project: unknown,
  body: (root: string) => Promise<void>,
): Promise<void> {
  const root = await Deno.makeTempDir({ prefix: "oxrelay-parts-" });
  try {
    await Deno.writeTextFile(`${root}/main.ts`, main);
    await Deno.writeTextFile(`${root}/deno.json`, JSON.stringify(project));
    await body(`${root}/`);
  } finally {
    await Deno.remove(root, { recursive: true });
  }
}

const MAIN = `const HELP = \`
  deno task serve              run the relay
\`;
const SUBCOMMANDS: Record<string, (args: string[]) => Promise<number>> = {
  serve: async (args) => 0,
};
`;

Deno.test("packages: every subcommand of main.ts has a task, and a line of help", async () => {
  const tasks = await readTasks(ROOT);
  const names = subcommandsOf(await Deno.readTextFile(`${ROOT}main.ts`));
  assertEquals(tasks.map(({ name }) => name), names);
  assert(names.includes("serve") && names.includes("connect"));
  for (const { name, flags, help } of tasks) {
    if (name !== "restore") assert(help !== "", `${name} has no line in the help of main.ts`);
    assert(!/--quiet|--no-prompt|main\.ts/.test(flags), flags);
  }
  const manual = renderManual("1.2.3", tasks);
  for (const name of names) assertStringIncludes(manual, `\n.B ${name}\n`);
});

Deno.test("packages: the launcher gives a subcommand what its permission set gives, and places only where it may", async () => {
  const permissions = {
    serve: { read: [".", "/data"], write: { allow: ["state", "/data"], deny: ["src"] } },
  };
  const tasks = { serve: "deno run --quiet --no-prompt -P=serve main.ts serve" };
  await withTree(MAIN, { tasks, permissions }, async (root) => {
    const read = await readTasks(root);
    assertEquals(read, [{
      name: "serve",
      flags: "-P=serve",
      reads: ".,/data",
      writes: "/data",
      help: "run the relay",
    }]);
    assertEquals(
      renderLauncher("#TASKS#", read),
      'serve) flags="-P=serve" reads=".,/data" writes="/data" ;;',
    );
  });
  await withTree(MAIN, { tasks, permissions: { serve: { net: true } } }, async (root) => {
    assertMatch(renderLauncher("#TASKS#", await readTasks(root)), /reads="none" writes="none"/);
  });
});

Deno.test("packages: a task that a package could not start is refused", async () => {
  const refused: [task: string | undefined, set: unknown, words: string][] = [
    [undefined, {}, 'no task "serve"'],
    ["deno run main.ts other", {}, 'no task "serve"'],
    ["deno run -P=serve $(rm -r /) main.ts serve", {}, "a shell would read otherwise"],
    ["deno run -P=serve main.ts serve", { read: true }, "read or write everything"],
  ];
  for (const [task, set, words] of refused) {
    await withTree(MAIN, { tasks: { serve: task }, permissions: { serve: set } }, async (root) => {
      await assertRejects(() => readTasks(root), Error, words);
    });
  }
});
