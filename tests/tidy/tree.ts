/**
 * The tree that the tidy rules look at, and how a rule is registered: each is a function from a file to the violations that it
 * finds, and each is first shown snippets that break it, so that no rule passes for want of teeth. Judges nothing itself.
 */
import { assert, assertEquals } from "@std/assert";

export interface SourceFile {
  /** Relative to the top of the tree, with slashes. */
  path: string;
  text: string;
}

export type Rule = (file: SourceFile) => string[];

const ROOT = new URL("../..", import.meta.url).pathname;
const SKIPPED_DIRECTORIES = new Set([".git", "node_modules", "state", "tests/results", "ffi/target"]);

/** The doors to the world; everything else gets time, randomness and bytes as arguments. */
export const IMPURE =
  /^(src\/(io|exit|admin|serve|connect|process|cli)\/|ffi\/|bench\/|tests\/|tools\/|main\.ts$)/;

/**
 * Splits TypeScript: `code` has comments and the insides of strings removed, `imports` has
 * comments removed and double-quoted strings kept, `comments` is their text. Line breaks stay where they were.
 */
export function split(text: string): { code: string; imports: string; comments: string } {
  const token =
    /\/\/[^\n]*|\/\*[^]*?\*\/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\[^]|[^`\\])*`|(?<=[(,=:[!&|?{};\n]\s*|\breturn\s+)\/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n[])+\/[a-z]*/g;
  const breaksOf = (match: string) => match.replace(/[^\n]/g, "");
  const isComment = (match: string) => match.startsWith("//") || match.startsWith("/*");
  return {
    code: text.replace(
      token,
      (match) => isComment(match) ? breaksOf(match) : `${match[0]}${breaksOf(match)}${match[0]}`,
    ),
    imports: text.replace(token, (match) => match.startsWith('"') ? match : breaksOf(match)),
    comments: (text.match(token) ?? []).filter(isComment).join("\n"),
  };
}

export function specifiersOf(text: string): string[] {
  const { imports } = split(text);
  const pattern = /(?:\bfrom\s+|\bimport\s*\(?\s*)"([^"]+)"/g;
  return [...imports.matchAll(pattern)].map(([, specifier]) => specifier);
}

function* walk(directory = ""): Generator<SourceFile> {
  for (const { name, isDirectory, isFile } of Deno.readDirSync(ROOT + directory)) {
    const path = directory + name;
    if (SKIPPED_DIRECTORIES.has(path)) continue;
    if (isDirectory) yield* walk(`${path}/`);
    else if (isFile && /\.(ts|md|toml|json|lock|html|rs|c|yml|yaml)$|(^|\/)(Dockerfile|run)$/.test(name)) {
      yield { path, text: Deno.readTextFileSync(ROOT + path) };
    }
  }
}

/** Every file that a rule may look at. */
export const files = [...walk()];
export const typescript = files.filter(({ path }) => path.endsWith(".ts"));
export const sources = typescript.filter(({ path }) => !path.startsWith("tests/"));

/** Registers a rule: it must find something in every bad snippet, nothing in the good ones, nothing in the tree. */
export function check(
  name: string,
  rule: Rule,
  subjects: SourceFile[],
  bad: [path: string, text: string][],
  good: [path: string, text: string][] = [],
): void {
  Deno.test(`tidy: ${name}`, () => {
    for (const [path, text] of bad) {
      assert(rule({ path, text }).length > 0, `the rule misses ${path}: ${text}`);
    }
    for (const [path, text] of good) {
      assertEquals(rule({ path, text }), [], `the rule is too strict: ${text}`);
    }
    assert(subjects.length > 0);
    assertEquals(subjects.flatMap(rule), []);
  });
}
