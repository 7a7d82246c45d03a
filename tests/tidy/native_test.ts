/**
 * The house rules of the native code: no module is used by one that it uses, functions have at most 70 lines, and a file of
 * more than 500 says in its header why. Each rule is first shown what breaks it. Reads rustfmt's layout, in which a function
 * ends where a brace stands at its own depth.
 */
import { assert, assertEquals } from "@std/assert";

const FUNCTION_LINES_MAX = 70;
const FILE_LINES_MAX = 500;

/** Files with a function above its limit. */
const TO_BE_SPLIT = new Set(["ffi/src/connection.rs"]);

const ROOT = new URL("../..", import.meta.url).pathname;

interface SourceFile {
  /** Relative to the top of the tree. */
  path: string;
  text: string;
}

function collect(directory: string, found: SourceFile[] = []): SourceFile[] {
  for (const { name, isDirectory } of Deno.readDirSync(`${ROOT}/${directory}`)) {
    const path = `${directory}/${name}`;
    if (isDirectory) collect(path, found);
    else if (name.endsWith(".rs")) found.push({ path, text: Deno.readTextFileSync(`${ROOT}/${path}`) });
  }
  return found.sort((a, b) => a.path < b.path ? -1 : 1);
}

/** "ffi/src/port/mod.rs" is the module "port", "ffi/src/port/udp.rs" "port::udp", "ffi/src/lib.rs" "". */
function moduleOf(path: string): string {
  const parts = path.replace(/^ffi\/src\//, "").replace(/\.rs$/, "").split("/");
  if (parts.at(-1) === "mod" || path === "ffi/src/lib.rs") parts.pop();
  return parts.join("::");
}

/** Every path below `crate` or `super` that the code names, braces of `use` taken apart. */
function namedPaths(module: string, text: string): string[] {
  const code = text.replace(/\/\/[^\n]*/g, "").replace(/"(?:\\.|[^"\\])*"/g, '""');
  const parent = module.split("::").slice(0, -1).join("::");
  const named: string[] = [];
  const expand = (prefix: string, rest: string) => {
    const brace = rest.indexOf("{");
    if (brace < 0) return void named.push(prefix + rest);
    const inside = rest.slice(brace + 1, rest.lastIndexOf("}"));
    let depth = 0, item = "";
    for (const char of `${inside},`) {
      if (char === "{") depth++;
      if (char === "}") depth--;
      if (char !== "," || depth > 0) item += char;
      else {
        if (item !== "") expand(prefix + rest.slice(0, brace), item);
        item = "";
      }
    }
  };
  for (const [, root, path] of code.matchAll(/\b(crate|super)::((?:[^;{}]*\{[^;]*\}(?=;))|[\w:]+)/g)) {
    expand(root === "crate" || parent === "" ? "" : `${parent}::`, path.replace(/\s+/g, ""));
  }
  return named;
}

/** Whom each module uses, by name; a module's tests in a file of their own are no module that others use. */
function edgesOf(files: readonly SourceFile[]): Map<string, Set<string>> {
  const modules = new Set(files.map(({ path }) => moduleOf(path)));
  return new Map(files.map(({ path, text }) => {
    const module = moduleOf(path);
    const used = new Set<string>();
    for (const named of namedPaths(module, text)) {
      let parts = named.split("::");
      while (parts.length > 0 && !modules.has(parts.join("::"))) parts = parts.slice(0, -1);
      const target = parts.join("::");
      if (target !== module && target !== "") used.add(target);
    }
    return [module, used];
  }));
}

/** Circles among modules, each as the chain that closes it. */
function circles(files: readonly SourceFile[]): string[] {
  const edges = edgesOf(files);
  const found: string[] = [];
  const done = new Set<string>();
  const chain: string[] = [];
  const visit = (module: string) => {
    const at = chain.indexOf(module);
    if (at >= 0) return void found.push([...chain.slice(at), module].join(" -> "));
    if (done.has(module)) return;
    chain.push(module);
    for (const used of edges.get(module) ?? []) visit(used);
    chain.pop();
    done.add(module);
  };
  for (const module of edges.keys()) visit(module);
  return found;
}

function longFunctions({ path, text }: SourceFile): string[] {
  const lines = text.split("\n");
  return lines.flatMap((line, i) => {
    const head = line.match(/^(\s*)(?:pub(?:\([^)]*\))? )?(?:const )?(?:unsafe )?(?:extern "C" )?fn (\w+)/);
    // One that ends on its first line, or is declared only.
    if (head === null || /[};]$/.test(line)) return [];
    const end = lines.findIndex((other, at) => at > i && other === `${head[1]}}`);
    const length = end - i + 1;
    return length > FUNCTION_LINES_MAX ? [`${path}: ${head[2]} has ${length} lines`] : [];
  });
}

function longFiles({ path, text }: SourceFile): string[] {
  const count = text.trimEnd().split("\n").length;
  const header = text.match(/^(\/\/![^\n]*\n)+/)?.[0].replace(/\n\/\/! ?/g, " ") ?? "";
  if (count <= FILE_LINES_MAX || /\bLong because /.test(header)) return [];
  return [`${path}: has ${count} lines and its header says no "Long because …"`];
}

const sources = collect("ffi/src");
const limited = [...sources, ...collect("ffi/examples")].filter(({ path }) => !TO_BE_SPLIT.has(path));

Deno.test("tidy, native: no module is used by one that it uses", () => {
  const file = (name: string, text: string) => ({ path: `ffi/src/${name}.rs`, text });
  const chain = [
    file("a", "use crate::b::{self, c::D};"),
    file("b/mod", ""),
    file("b/c", "fn f() { crate::e::g() }"),
  ];
  assertEquals(circles([...chain, file("e", "// use crate::a;\nuse crate::missing::Z;")]), []);
  assertEquals(circles([...chain, file("e", "use crate::{x, a::{Y}};")]), ["a -> b::c -> e -> a"]);
  assertEquals(circles([file("p/q", "use super::r::S;"), file("p/r", "use crate::p::q;")]), [
    "p::q -> p::r -> p::q",
  ]);
  assert(edgesOf(sources).get("port::open")?.has("port::uring"), "the real tree is read");
  assertEquals(circles(sources), []);
});

Deno.test("tidy, native: no function is longer than 70 lines", () => {
  const text = (lines: number) => `impl A {\n    pub fn long(\n${"        x;\n".repeat(lines - 2)}    }\n}\n`;
  assertEquals(longFunctions({ path: "a.rs", text: text(71) }), ["a.rs: long has 71 lines"]);
  assertEquals(longFunctions({ path: "a.rs", text: text(70) }), []);
  assertEquals(limited.flatMap(longFunctions), []);
});

Deno.test("tidy, native: a file of more than 500 lines says why", () => {
  const text = (header: string) => `${header}\n${"x;\n".repeat(500)}`;
  assertEquals(longFiles({ path: "a.rs", text: text("//! A header.") }).length, 1);
  assertEquals(
    longFiles({ path: "a.rs", text: text("//! A header.\n\n//! Long because it is elsewhere.") }).length,
    1,
  );
  assertEquals(
    longFiles({ path: "a.rs", text: text("//! A header. Long\n//! because it has one table.") }),
    [],
  );
  assertEquals(limited.flatMap(longFiles), []);
});
