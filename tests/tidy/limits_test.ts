/**
 * Limits that keep the tree readable: functions of at most 70 lines, files of at most 500 or with a reason in their header, folders
 * of at most 20 files, and no import circle. Files that are still above a limit are listed by name; the lists only shrink.
 */
import { assert, assertEquals } from "@std/assert";
import { check, type Rule, type SourceFile, sources, specifiersOf, split, typescript } from "./tree.ts";

const FUNCTION_LINES_MAX = 70;
const FILE_LINES_MAX = 500;
const FOLDER_FILES_MAX = 20;

interface FunctionSpan {
  /** Line of its name or parameters, from 1, and its lines up to the closing brace. */
  line: number;
  lines: number;
}

/** Every function, method and arrow with a body in braces, those inside of others included. */
function functionsOf(text: string): FunctionSpan[] {
  const { code } = split(text);
  const lineAt = (at: number) => code.slice(0, at).split("\n").length;
  const spans: FunctionSpan[] = [];
  const open: (number | undefined)[] = [];
  for (let at = 0; at < code.length; at++) {
    if (code[at] === "{") open.push(headOf(code, at));
    else if (code[at] === "}") {
      const head = open.pop();
      if (head === undefined) continue;
      const line = lineAt(head);
      spans.push({ line, lines: lineAt(at) - line + 1 });
    }
  }
  return spans;
}

/** Where the function begins whose body opens here; undefined where the brace opens something else. */
function headOf(code: string, brace: number): number | undefined {
  const before = code.slice(Math.max(0, brace - 2000), brace);
  // Parameters, and perhaps the type of what is returned, of which a part may be in braces.
  const tail = /^ *(?::(?:[^;{}()=\n]|=>|\{[^{}]*\}|\([^()]*\))*)?(?:=> *)?$/;
  let end = before.lastIndexOf(")");
  while (end >= 0 && !tail.test(before.slice(end + 1))) {
    end = end === 0 ? -1 : before.lastIndexOf(")", end - 1);
  }
  if (end < 0) return /=>\s*$/.test(before) ? brace : undefined;
  let depth = 0, at = brace - before.length + end;
  for (; at >= 0; at--) {
    if (code[at] === ")") depth++;
    else if (code[at] === "(" && --depth === 0) break;
  }
  const word = code.slice(Math.max(0, at - 60), at).match(/(\w+)\s*(?:<[^<>]*>)?$/)?.[1];
  return /^(if|for|while|switch|catch|with|await)$/.test(word ?? "") ? undefined : at;
}

const functionsAreShort: Rule = ({ path, text }) =>
  functionsOf(text).filter(({ lines }) => lines > FUNCTION_LINES_MAX)
    .map(({ line, lines }) => `${path}:${line}: a function of ${lines} lines`);

const filesAreShort: Rule = ({ path, text }) => {
  const lines = text.split("\n").length - 1;
  const header = text.match(/\/\*\*[^]*?\*\//)?.[0] ?? "";
  return lines <= FILE_LINES_MAX || /\bLong because \w/.test(header)
    ? []
    : [`${path}: ${lines} lines, and its header does not say "Long because …"`];
};

/** Folders of src/ with more files than the limit. */
function fullFolders(files: readonly SourceFile[]): string[] {
  const counts = new Map<string, number>();
  for (const { path } of files) {
    const folder = path.replace(/\/[^/]+$/, "");
    if (path.startsWith("src/")) counts.set(folder, (counts.get(folder) ?? 0) + 1);
  }
  return [...counts].filter(([, count]) => count > FOLDER_FILES_MAX).map(([folder]) => folder).sort();
}

/** Sets of files of src/ that import each other, by types alone too: the strongly connected components, each sorted. */
function circles(files: readonly SourceFile[]): string[][] {
  const imports = new Map(
    files.filter(({ path }) => path.startsWith("src/")).map(({ path, text }) => [
      path,
      specifiersOf(text).filter((specifier) => specifier.startsWith("."))
        .map((specifier) => new URL(specifier, `file:///${path}`).pathname.slice(1)),
    ]),
  );
  // Tarjan's algorithm: a file's component is complete when nothing that it reaches was met before it.
  const met = new Map<string, number>(), earliest = new Map<string, number>();
  const path: string[] = [], found: string[][] = [];
  const visit = (file: string) => {
    met.set(file, met.size);
    earliest.set(file, met.get(file)!);
    path.push(file);
    for (const target of imports.get(file) ?? []) {
      if (!imports.has(target)) continue;
      if (!met.has(target)) visit(target);
      if (path.includes(target)) earliest.set(file, Math.min(earliest.get(file)!, earliest.get(target)!));
    }
    if (earliest.get(file) !== met.get(file)) return;
    const component = path.splice(path.indexOf(file));
    if (component.length > 1 || imports.get(file)!.includes(file)) found.push(component.sort());
  };
  for (const file of imports.keys()) if (!met.has(file)) visit(file);
  return found.sort((a, b) => a[0] < b[0] ? -1 : 1);
}

const long = (lines: number) => "  f();\n".repeat(lines);

Deno.test("tidy: no function is longer than 70 lines", () => {
  const bad = [
    `function a(x: number): void {\n${long(69)}}\n`,
    `class A {\n  b(\n    x: number,\n  ): { y: number } {\n${long(67)}  }\n}\n`,
    `const c = async (x: number) => {\n${long(69)}};\n`,
    `const c = (x: number): Promise<void> => {\n${long(69)}};\n`,
    `list.forEach((x) => {\n${long(69)}});\n`,
    `Deno.test({ name: "d", async fn() {\n${long(69)}} });\n`,
    `function a() {\n  for (const x of y) {\n${long(69)}  }\n}\n`,
  ];
  for (const text of bad) assert(functionsAreShort({ path: "a.ts", text }).length > 0, text.slice(0, 60));
  const good = [
    `function a(x: number): void {\n${long(68)}}\n`,
    `for (const x of y) {\n${long(80)}}\nif (z) {\n${long(80)}} else if (z) {\n${long(80)}}\n`,
    `class A {\n  readonly x = 1;\n${"  y() {}\n".repeat(80)}}\n`,
    `const table = {\n${"  a: 1,\n".repeat(80)}};\n`,
  ];
  for (const text of good) assertEquals(functionsAreShort({ path: "a.ts", text }), [], text.slice(0, 60));
  const above = typescript.filter(({ path }) => !path.startsWith("ffi/")).flatMap(functionsAreShort);
  assertEquals(above, []);
});

check(
  "a file of more than 500 lines says why",
  filesAreShort,
  typescript,
  [
    ["src/a.ts", `/** A header. */\n${long(500)}`],
    ["src/a.ts", `/** A header. */\n/** Long because it is elsewhere. */\n${long(500)}`],
  ],
  [
    ["src/a.ts", `/** A header. */\n${long(499)}`],
    ["src/a.ts", `// Hot path.\n/**\n * A header.\n * Long because it has one table.\n */\n${long(500)}`],
  ],
);

Deno.test("tidy: a folder of src/ has at most 20 files", () => {
  const files = (folder: string, count: number) =>
    Array.from({ length: count }, (_, i) => ({ path: `${folder}/f${i}.ts`, text: "" }));
  assertEquals(fullFolders([...files("src/a", 21), ...files("src/b", 20), ...files("src/b/c", 20)]), [
    "src/a",
  ]);
  assertEquals(fullFolders(sources), []);
});

Deno.test("tidy: no import circle in src/", () => {
  const file = (path: string, ...targets: string[]) => ({
    path: `src/${path}.ts`,
    text: targets.map((target) => `import type { X } from "./${target}.ts";\n`).join(""),
  });
  assertEquals(circles([file("a", "b"), file("b", "c"), file("c"), file("d", "a", "c")]), []);
  assertEquals(circles([file("a", "b"), file("b", "c"), file("c", "b"), file("d", "d")]), [
    ["src/b.ts", "src/c.ts"],
    ["src/d.ts"],
  ]);
  assertEquals(circles(sources), []);
});
