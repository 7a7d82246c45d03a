/**
 * deno.json and what reaches outside of the tree: dependencies are pinned, nothing names a registry, and neither a task nor a
 * permission set allows everything.
 */
import { assert, assertEquals } from "@std/assert";
import { check, files, type Rule } from "./tree.ts";

const namesNoRegistry: Rule = ({ path, text }) => {
  const host =
    /\b(?:registry|npm|static|index|proxy)\.(?:npmjs|npmmirror|yarnpkg|jsr|crates|golang|pkg\.github)\.\w+|(?<![\w-])(?:npm\.)?jsr\.io\b|\.jfrog\.io\b/gi;
  return (text.match(host) ?? []).map((name) => `${path}: names the registry ${name}`);
};

interface Project {
  imports: Record<string, string>;
  tasks: Record<string, string | { command?: string }>;
  permissions: Record<string, Record<string, unknown>>;
}

const project: Project = JSON.parse(files.find(({ path }) => path === "deno.json")!.text);

function unpinned({ imports }: Project): string[] {
  return Object.entries(imports)
    .filter(([, target]) =>
      !target.startsWith("./") && !/^(npm|jsr):\/?(@[\w.-]+\/)?[\w.-]+@\d+\.\d+\.\d+\/?$/.test(target)
    )
    .map(([name, target]) => `deno.json: ${name} is ${target}; pin it as npm:name@1.2.3`);
}

/** A task or permission set that may run any program, or load any library where it names a set, may do anything. */
function unbounded({ tasks, permissions }: Project): string[] {
  const ofTasks = Object.entries(tasks).flatMap(([name, task]) => {
    const command = typeof task === "string" ? task : task.command ?? "";
    const flag = command.match(/(?<!\S)(-A|--allow-all|--allow-run)(?!\S)|(?<!\S)-[a-zA-Z]*A[a-zA-Z]*(?!\S)/)
      ?.[0];
    const sets = [...command.matchAll(/(?<!\S)(?:-P|--permission-set)(?:=(\S+))?/g)].map(([, set]) =>
      set ?? "default"
    );
    return [
      ...(flag === undefined ? [] : [`deno.json: task ${name} uses ${flag}`]),
      ...sets.filter((set) => !(set in permissions)).map((set) =>
        `deno.json: task ${name} uses set ${set}, which is not there`
      ),
    ];
  });
  const isEverything = (granted: unknown) =>
    granted === true || (granted as { allow?: unknown } | null)?.allow === true;
  const ofSets = Object.entries(permissions).flatMap(([name, set]) =>
    ["all", "run", "ffi"].filter((kind) => isEverything(set[kind]))
      .map((kind) => `deno.json: permission set ${name} allows all of ${kind}`)
  );
  return [...ofTasks, ...ofSets];
}

check("no file names a package registry", namesNoRegistry, files, [
  ["README.md", "https://registry" + ".npmjs.org/deno"],
  ["deno.lock", "https://npm.jsr" + ".io/x"],
  ["a.ts", "// see https://jsr" + ".io/@std/assert"],
], [["a.ts", 'import "jsr:@std/assert"; // the registry of flows; static.example.com']]);

Deno.test("tidy: every dependency is pinned", () => {
  const loose = [
    "npm:hono",
    "npm:hono@4",
    "npm:hono@^4.1.2",
    "npm:@noble/hashes@~2.0.0",
    "jsr:@std/cli@1",
    "https://x/mod.ts",
  ];
  for (const target of loose) {
    assertEquals(unpinned({ imports: { x: target }, tasks: {}, permissions: {} }).length, 1, target);
  }
  assert(Object.keys(project.imports).length > 0);
  assertEquals(unpinned(project), []);
});

Deno.test("tidy: no task and no permission set is allowed everything", () => {
  const loose = [
    "deno run -A main.ts",
    "deno run --allow-all main.ts",
    "deno test --allow-run tests",
    "deno test -qA tests",
    "deno run -P=absent main.ts",
    "deno run -P main.ts",
  ];
  for (const command of loose) {
    const permissions = { present: { run: ["ip"] } };
    assertEquals(unbounded({ imports: {}, tasks: { x: command }, permissions }).length, 1, command);
  }
  for (const set of [{ all: true }, { run: true }, { ffi: true }, { run: { allow: true } }]) {
    assertEquals(
      unbounded({ imports: {}, tasks: {}, permissions: { x: set } }).length,
      1,
      JSON.stringify(set),
    );
  }
  assert(Object.keys(project.tasks).length > 0 && Object.keys(project.permissions).length > 0);
  assertEquals(unbounded(project), []);
});
