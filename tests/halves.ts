/**
 * Runs the halves of the tests side by side: one drives sockets, devices and whole relays and mostly waits, the other computes.
 * Invariant: neither is ended by the other's failure, for a system test that is killed leaves its namespaces; each has a time limit, and
 * what it says goes through. Judges nothing.
 */
import type { Half } from "./verdict.ts";

export interface HalfCommand {
  name: string;
  command: string[];
  /** Where it writes its results, from the root. */
  results: string;
}

/** Where the lines go that a half says. */
type Say = Pick<Console, "log" | "error">;

const KILL_AFTER_S = 30;
/** Exit codes of timeout(1) when the time was over: by SIGTERM, and by SIGKILL. */
const TOO_SLOW = 124, KILLED = 137;
// deno-lint-ignore no-control-regex
const COLOURS = /\x1b\[[\d;]*m/g;

async function follow(
  stream: ReadableStream<Uint8Array>,
  to: (line: string) => void,
  hear: (line: string) => void,
) {
  let rest = "";
  const take = (line: string) => {
    to(line);
    hear(line.replace(COLOURS, ""));
  };
  for await (const text of stream.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    lines.forEach(take);
  }
  if (rest !== "") take(rest);
}

async function runHalf(root: string, limitS: number, half: HalfCommand, say: Say): Promise<Half> {
  const results = `${root}/${half.results}`;
  await Deno.remove(results).catch(() => {});
  const startMs = performance.now();
  const child = new Deno.Command("timeout", {
    args: ["-k", String(KILL_AFTER_S), String(limitS), ...half.command],
    cwd: root,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const begun: string[] = [], broken: string[] = [];
  const hear = (line: string) => {
    const file = /^running [1-9]\d* tests? from (?:\.\/)?(\S+)$/.exec(line)?.[1];
    if (file !== undefined) begun.push(file);
    const bad = /^Uncaught error from (?:\.\/)?(\S+)/.exec(line)?.[1];
    if (bad !== undefined) broken.push(bad);
  };
  const [{ code }] = await Promise.all([
    child.status,
    follow(child.stdout, say.log, hear),
    follow(child.stderr, say.error, hear),
  ]);
  return {
    name: half.name,
    code,
    isTooSlow: code === TOO_SLOW || code === KILLED && performance.now() - startMs >= 1000 * limitS,
    results: await Deno.readTextFile(results).catch(() => undefined),
    begun,
    broken,
  };
}

/** Resolves when all have ended; `limitS` is seconds for each. */
export function runHalves(
  root: string,
  limitS: number,
  halves: readonly HalfCommand[],
  say: Say = console,
): Promise<Half[]> {
  return Promise.all(halves.map((half) => runHalf(root, limitS, half, say)));
}

/** The test files below a folder, as paths from the root; `except` is a folder that is no part of the tests. */
export async function testFiles(root: string, folder: string, except?: string): Promise<string[]> {
  const found: string[] = [];
  for await (const { name, isDirectory } of Deno.readDir(`${root}/${folder}`)) {
    const path = `${folder}/${name}`;
    if (path === except) continue;
    if (isDirectory) found.push(...await testFiles(root, path, except));
    else if (name.endsWith("_test.ts")) found.push(path);
  }
  return found.sort();
}
