/**
 * The parts of packages that follow from deno.json and main.ts: each subcommand is there with its task's permissions, and a task
 * that a package could not start is refused when the package is made.
 */
import { assert, assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import {
  readPeerActions,
  readTasks,
  renderLauncher,
  renderManual,
  subcommandsOf,
} from "../kit/package_parts.ts";

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
  const actions = await readPeerActions(ROOT);
  const manual = renderManual("1.2.3", tasks, actions);
  for (const action of ["add NAME", "set NAME", "disable NAME", "link NAME", "rename NAME NEW"]) {
    assertStringIncludes(manual, `\n.B peer ${action}\n`);
  }
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

/** The places that the launcher lets a subcommand read and write; the command runs in `folder`/here, by a user with `folder` as home. */
async function placesOf(folder: string, command: string[]): Promise<{ read: string[]; write: string[] }> {
  const { code, stdout, stderr } = await new Deno.Command("sh", {
    args: [`${folder}/installed/bin/oxrelay`, ...command],
    cwd: `${folder}/here`,
    clearEnv: true,
    env: { PATH: `${folder}/programs:/usr/bin:/bin`, HOME: folder },
  }).output();
  const text = new TextDecoder();
  assertEquals([code, text.decode(stderr)], [0, ""]);
  const flags = text.decode(stdout).split("\n");
  const listed = (name: string) =>
    flags.find((flag) => flag.startsWith(name))?.slice(name.length).split(",").sort() ?? [];
  return { read: listed("--allow-read="), write: listed("--allow-write=") };
}

Deno.test("packages: the launcher lets backup write its file and no other, and restore read its own, wherever --config stands", async () => {
  const folder = await Deno.makeTempDir({ prefix: "oxrelay-launcher-" });
  try {
    for (const name of ["installed/bin", "programs", "here", "settings", "kept"]) {
      await Deno.mkdir(`${folder}/${name}`, { recursive: true });
    }
    const launcher = await Deno.readTextFile(`${ROOT}packaging/launcher.sh`);
    await Deno.writeTextFile(
      `${folder}/installed/bin/oxrelay`,
      renderLauncher(launcher, await readTasks(ROOT)),
    );
    const program = (path: string, body: string) =>
      Deno.writeTextFile(`${folder}/${path}`, `#!/bin/sh\n${body}\n`, { mode: 0o755 });
    await program("programs/id", "echo 1000");
    await program("installed/bin/deno", `printf '%s\\n' "$@"`);
    const own = `${folder}/.local/state/oxrelay`;
    const file = `${folder}/kept/relay.backup`,
      made = `${file}.new.tmp`,
      config = `${folder}/settings/own.toml`;
    for (
      const words of [
        [file],
        [file, "--config", config],
        ["--config", config, file],
        [`--config=${config}`, file],
      ]
    ) {
      const { read, write } = await placesOf(folder, ["backup", ...words]);
      const places = [own, "/data", "/var/lib/oxrelay", `${folder}/here`];
      assertEquals([...new Set(write)], [...places, file, made].sort(), "the file alone, and not its folder");
      assert(!read.includes(`${folder}/settings`), read.join());
      const restored = await placesOf(folder, ["restore", ...words]);
      assert(restored.read.includes(file), restored.read.join());
      assert(!restored.write.includes(`${folder}/kept`), restored.write.join());
    }
    assertEquals((await placesOf(folder, ["status"])).write, []);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
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
