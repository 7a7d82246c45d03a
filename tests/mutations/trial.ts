/**
 * Tries mutations: each in a copy of the tree, a copy for each job, against the test files that must fail. Invariant: the tree itself
 * is read once, at the start, and a row is judged only by test files that pass without any mutation. Chooses no rows.
 */
import { applied, describe, isNative, type Mutation } from "./mutation.ts";

export interface TrialOptions {
  /** The tree: a git work tree whose deno.json has the task test:files. */
  root: string;
  /** Where copies are made and removed again. */
  scratch: string;
  jobs: number;
  /** How long one test file may run. */
  limitS: number;
  /** Whether to build the native library for the rows that change it. */
  native: boolean;
  say: (line: string) => void;
}

export interface Verdicts {
  killed: number;
  /** Rows that no longer apply or do not compile, test files that fail without a mutation: each as a sentence. */
  invalid: string[];
  survivors: string[];
  /** Rows of native code, which were not tried. */
  skipped: number;
}

interface Outcome {
  passed: boolean;
  isBroken: boolean;
  seconds: number;
}

const LIBRARY = "ffi/prebuilt/x86_64-unknown-linux-gnu/liboxrelay.so";
const KILL_AFTER_S = 20, BUILD_S = 1200;
/** What Deno says of a file that is no program; such a row tests nothing. */
const NO_PROGRAM =
  /could not be parsed|SyntaxError: |\(uncaught error\)\s+error: [^\n]*(ReferenceError|does not provide an export)/;

async function run(folder: string, limitS: number, command: string[], env: Record<string, string> = {}) {
  const { success, stdout, stderr } = await new Deno.Command("timeout", {
    args: ["-k", String(KILL_AFTER_S), String(limitS), ...command],
    cwd: folder,
    env,
    stdin: "null",
  }).output();
  const text = new TextDecoder();
  return { success, text: text.decode(stdout) + text.decode(stderr) };
}

async function copyTree(root: string, copy: string): Promise<void> {
  const { stdout } = await new Deno.Command("git", {
    args: ["ls-files", "-z", "--cached", "--others", "--exclude-standard"],
    cwd: root,
  }).output();
  for (const path of new TextDecoder().decode(stdout).split("\0").filter((path) => path !== "")) {
    await Deno.mkdir(`${copy}/${path}`.replace(/\/[^/]*$/, ""), { recursive: true });
    await Deno.copyFile(`${root}/${path}`, `${copy}/${path}`).catch((error) => {
      if (!(error instanceof Deno.errors.NotFound)) throw error; // deleted, but not yet from the index
    });
  }
}

async function runTest(copy: string, file: string, limitS: number): Promise<Outcome> {
  const start = performance.now();
  const command = [Deno.execPath(), "task", "test:files", "--no-check", file];
  const { success, text } = await run(copy, limitS, command, { NO_COLOR: "1" });
  const seconds = Math.round((performance.now() - start) / 1000);
  return { passed: success, isBroken: NO_PROGRAM.test(text), seconds };
}

class Trial {
  readonly verdicts: Verdicts = { killed: 0, invalid: [], survivors: [], skipped: 0 };
  readonly #failing = new Set<string>();

  constructor(readonly options: TrialOptions) {}

  /** Hands the items to as many copies as there are jobs. */
  async each<Item>(
    items: readonly Item[],
    act: (copy: string, item: Item) => Promise<string>,
  ): Promise<void> {
    const { jobs, scratch, say } = this.options;
    let next = 0;
    await Promise.all(Array.from({ length: Math.min(jobs, items.length) }, async (_, job) => {
      while (next < items.length) {
        const item = next++;
        const said = await act(`${scratch}/${job}`, items[item]);
        say(`[${item + 1}/${items.length}] ${said}`);
      }
    }));
  }

  async baseline(copy: string, file: string): Promise<string> {
    const { passed, seconds } = await runTest(copy, file, this.options.limitS);
    if (!passed) {
      this.#failing.add(file);
      this.verdicts.invalid.push(`${file} fails without any mutation`);
    }
    return `${passed ? "passes" : "FAILS"} without a mutation (${seconds} s): ${file}`;
  }

  async row(copy: string, row: Mutation): Promise<string> {
    const { limitS, scratch } = this.options;
    const { verdicts } = this;
    if (row.tests.some((file) => this.#failing.has(file))) return `not judged: ${describe(row)}`;
    const original = await Deno.readTextFile(`${copy}/${row.file}`);
    const mutated = applied(row, original);
    if (typeof mutated === "string") return this.#invalid(row, mutated);
    await Deno.writeTextFile(`${copy}/${row.file}`, mutated.text);
    try {
      if (isNative(row) && !(await run(copy, BUILD_S, ["sh", "ffi/build.sh"])).success) {
        return this.#invalid(row, "the library does not build");
      }
      let seconds = 0;
      for (const file of row.tests) {
        const outcome = await runTest(copy, file, limitS);
        seconds += outcome.seconds;
        if (outcome.isBroken) return this.#invalid(row, "the file is no program any more");
        // A file that hangs is ended by the test command and fails the run by name.
        if (!outcome.passed) continue;
        verdicts.survivors.push(`${describe(row)}; ${file} passes`);
        return `SURVIVED (${seconds} s): ${describe(row)}`;
      }
      verdicts.killed++;
      return `killed (${seconds} s): ${describe(row)}`;
    } finally {
      await Deno.writeTextFile(`${copy}/${row.file}`, original);
      if (isNative(row)) await Deno.copyFile(`${scratch}/library`, `${copy}/${LIBRARY}`);
    }
  }

  #invalid(row: Mutation, reason: string): string {
    this.verdicts.invalid.push(`${describe(row)}: ${reason}`);
    return `INVALID: ${describe(row)}: ${reason}`;
  }
}

/** Tries the rows, says how each went, and returns the sum; the copies are gone then. */
export async function tryMutations(rows: readonly Mutation[], options: TrialOptions): Promise<Verdicts> {
  const { root, scratch, jobs, native, say } = options;
  const trial = new Trial(options);
  const tried = rows.filter((row) => native || !isNative(row));
  trial.verdicts.skipped = rows.length - tried.length;
  const files = [...new Set(tried.flatMap(({ tests }) => tests))];
  try {
    for (let job = 0; job < jobs; job++) await copyTree(root, `${scratch}/${job}`);
    if (native) await Deno.copyFile(`${scratch}/0/${LIBRARY}`, `${scratch}/library`);
    say(`${tried.length} mutations, ${files.length} test files, ${jobs} at a time`);
    await trial.each(files, (copy, file) => trial.baseline(copy, file));
    await trial.each(tried, (copy, row) => trial.row(copy, row));
  } finally {
    await Deno.remove(scratch, { recursive: true });
  }
  return trial.verdicts;
}
