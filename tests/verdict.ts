/**
 * The verdict on a run of the tests, from what each part left: its exit code, its results (JUnit) and what it said. Invariant: it
 * is good only if every test file of the tree has results, none of them bad, and each part ended by itself and well; and
 * whatever is wrong counts as at least one failure. Runs no test and reads no file.
 */

/** One part of the tests, after its end. */
export interface Part {
  name: string;
  /** Exit code; 128 and the signal's number where it was ended by one. */
  code: number;
  /** Whether it was ended for being too slow. */
  isTooSlow: boolean;
  /** What it wrote as JUnit; undefined when it ended before writing any. */
  results: string | undefined;
  /** Test files with at least one test that it began, in order. */
  begun: string[];
  /** Test files with an error outside their tests. */
  broken: string[];
}

export interface Verdict {
  passed: number;
  failed: number;
  skipped: number;
  /** What is wrong beside failed tests, each a sentence. */
  faults: string[];
}

const SIGNALS: Record<number, string> = {
  132: "SIGILL",
  134: "SIGABRT",
  135: "SIGBUS",
  137: "SIGKILL",
  139: "SIGSEGV",
};

/** A test case is one element, and one that failed or was skipped holds one of these; text is escaped in XML. */
function counts(results: string): { passed: number; failed: number; skipped: number } {
  const count = (element: string) => results.split(element).length - 1;
  const failed = count("<failure") + count("<error "), skipped = count("<skipped");
  return { passed: count("<testcase ") - failed - skipped, failed, skipped };
}

/** How a part ended badly, as a sentence that names the file; undefined where it did not. */
function badEnd({ name, code, isTooSlow, results, begun }: Part): string | undefined {
  const last = begun.at(-1) ?? "any file";
  if (isTooSlow) return `${last} hangs: the part "${name}" was ended in it`;
  if (code in SIGNALS) return `${last} crashed, or its end did: the part "${name}" died of ${SIGNALS[code]}`;
  if (results === undefined) return `${last} ended the part "${name}" early, exit code ${code}`;
  return undefined;
}

/** @param files every test file of the tree, as paths from its root. */
export function judge(parts: readonly Part[], files: readonly string[]): Verdict {
  const verdict: Verdict = { passed: 0, failed: 0, skipped: 0, faults: [] };
  const ran = new Set<string>();
  let isCutShort = false;
  for (const part of parts) {
    const { passed, failed, skipped } = counts(part.results ?? "");
    verdict.passed += passed;
    verdict.failed += failed;
    verdict.skipped += skipped;
    // The suites of a JUnit file are named after where `Deno.test` is called, which may be a helper's file.
    if (part.results !== undefined) { for (const file of part.begun) ran.add(file); }
    const faults = part.broken.map((file) => `${file} throws outside its tests, at import or later`);
    const end = badEnd(part);
    if (end !== undefined) faults.push(end);
    if (part.results === undefined) isCutShort = true;
    if (part.code !== 0 && failed === 0 && faults.length === 0) {
      faults.push(`the part "${part.name}" has no failed test, but exit code ${part.code}`);
    }
    verdict.faults.push(...faults);
  }
  const told = verdict.faults.join("\n");
  const missing = files.filter((file) => !ran.has(file) && !told.includes(file));
  if (isCutShort && missing.length > 0) {
    verdict.faults.push(`${missing.length} more test files have no results`);
  } else {verdict.faults.push(...missing.map((file) =>
      `${file} has no results: it has no test, or no part runs it`
    ));}
  verdict.failed += verdict.faults.length;
  return verdict;
}
