/**
 * Runs the parts of the tests in lanes side by side: parts that drive sockets, devices and whole relays mostly wait, and one that computes
 * leaves them room. Invariant: none is ended by another's failure, for a system test that is killed leaves its namespaces; each has a time
 * limit, and what it says goes through. Judges nothing.
 */
import type { Part } from "./verdict.ts";

export interface PartCommand {
  name: string;
  command: string[];
  /** Where it writes its results, from the root. */
  results: string;
}

/** Where the lines go that a part says. */
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

async function runPart(root: string, limitS: number, part: PartCommand, say: Say): Promise<Part> {
  const results = `${root}/${part.results}`;
  await Deno.remove(results).catch(() => {});
  const startMs = performance.now();
  const child = new Deno.Command("timeout", {
    args: ["-k", String(KILL_AFTER_S), String(limitS), ...part.command],
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
    name: part.name,
    code,
    isTooSlow: code === TOO_SLOW || code === KILLED && performance.now() - startMs >= 1000 * limitS,
    results: await Deno.readTextFile(results).catch(() => undefined),
    begun,
    broken,
  };
}

/** Resolves when all have ended. @param limitS seconds for each. @param lanes each part of a lane begins when the one before has ended. */
export async function runParts(
  root: string,
  limitS: number,
  lanes: readonly (readonly PartCommand[])[],
  say: Say = console,
): Promise<Part[]> {
  const inTurn = async (lane: readonly PartCommand[]) => {
    const ended: Part[] = [];
    for (const part of lane) ended.push(await runPart(root, limitS, part, say));
    return ended;
  };
  return (await Promise.all(lanes.map(inTurn))).flat();
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
