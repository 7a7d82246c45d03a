/**
 * One line of the program changed for the worse, and the tests that must notice. Invariant: a row applies to its file exactly
 * once, so that what is tried is what the row says. Runs nothing.
 */

const LINES_MAX = 3;

export interface Mutation {
  /** Path from the tree's root. */
  readonly file: string;
  /** Part of one line, found once in the file; where one line would be found twice, a part of the next ones too. */
  readonly from: string;
  readonly to: string;
  /** Test files of which each must fail. */
  readonly tests: readonly string[];
  /** What is off then, in a few words. */
  readonly note: string;
}

/** The file's text with the mutation in it, or the sentence that says why the row is of no use. */
export function applied({ from, to }: Mutation, text: string): { text: string } | string {
  if (from === "" || from.split("\n").length > LINES_MAX) {
    return `from is a part of one line, or of ${LINES_MAX} at most`;
  }
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
  const line = (text: string) => text.trim().replace(/\s+/g, " ");
  return `${file}: ${note}: ${line(from)} -> ${line(to)} (${tests.join(", ")})`;
}
