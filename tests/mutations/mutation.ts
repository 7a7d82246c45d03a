/**
 * One line of the program changed for the worse, and the tests that must notice. Invariant: a row applies to its file exactly
 * once, so that what is tried is what the row says. Runs nothing.
 */

export interface Mutation {
  /** Path from the tree's root. */
  readonly file: string;
  /** Part of one line, found once in the file. */
  readonly from: string;
  readonly to: string;
  /** Test files of which each must fail. */
  readonly tests: readonly string[];
  /** What is off then, in a few words. */
  readonly note: string;
}

/** The file's text with the mutation in it, or the sentence that says why the row is of no use. */
export function applied({ from, to }: Mutation, text: string): { text: string } | string {
  if (from === "" || from.includes("\n") || to.includes("\n")) return "from and to are parts of one line";
  if (from === to) return "from and to are the same";
  const at = text.indexOf(from);
  if (at < 0) return "from is not in the file";
  if (text.indexOf(from, at + 1) >= 0) return "from is in the file more than once";
  return { text: text.slice(0, at) + to + text.slice(at + from.length) };
}

/** Whether the native library must be built again for it. */
export function isNative({ file }: Mutation): boolean {
  return /^ffi\/(src\/|build\.rs|Cargo)/.test(file);
}

/** A row in one line, for people; a filter looks for its text here. */
export function describe({ file, from, to, tests, note }: Mutation): string {
  return `${file}: ${note}: ${from.trim()} -> ${to.trim()} (${tests.join(", ")})`;
}
