/**
 * Runs a program of the system and returns its output. Invariant: a child gets nothing of this process's environment, which
 * may hold keys; when a child fails, the error has its output; no child runs longer than its limit, nor after the call.
 */

/** Where programs of the system are, whatever the caller's PATH is; the last is NixOS's. */
const FOLDERS = [
  "/usr/local/sbin",
  "/usr/local/bin",
  "/usr/sbin",
  "/usr/bin",
  "/sbin",
  "/bin",
  "/run/current-system/sw/bin",
];
const PATH = FOLDERS.join(":");
const SAID_MAX = 600;
/** The limit for a program; each that is run here takes less than a second on an idle machine. */
const LIMIT_MS = 10_000;

/**
 * Runs the program with `input` on its standard input and resolves with its standard output. Throws an Error with the
 * command and the program's error output, on one line of at most SAID_MAX characters. Kills the program after `limitMs`.
 */
export async function run(
  program: string,
  args: readonly string[],
  input?: string,
  limitMs = LIMIT_MS,
): Promise<string> {
  const called = `${program} ${args.join(" ")}`;
  let child: Deno.ChildProcess;
  try {
    child = start(program, args, input !== undefined);
  } catch (error) {
    throw new Error(`${called}: does not start: ${(error as Error).message}`);
  }
  let isLate = false;
  const timer = setTimeout(() => {
    isLate = true;
    child.kill("SIGKILL");
  }, limitMs);
  const wrote = input === undefined ? undefined : write(child.stdin, input);
  const { success, code, signal, stdout, stderr } = await child.output().finally(() => clearTimeout(timer));
  await wrote;
  if (isLate) {
    throw new Error(`${called}: did not end within ${limitMs / 1000} s and was killed`);
  }
  const text = new TextDecoder();
  if (success) return text.decode(stdout);
  const said = text.decode(stderr).trim() || text.decode(stdout).trim() ||
    (signal === null ? `it ended with code ${code} and said nothing` : `it was ended by ${signal}`);
  const line = said.split("\n").map((part) => part.trim()).join(" | ");
  throw new Error(`${called}: ${line.length > SAID_MAX ? `${line.slice(0, SAID_MAX)} …` : line}`);
}

/**
 * Starts the program from the folder where it may be run: a permission by name is for the first file of that name on the caller's PATH,
 * which this process may not know, and the same program often lies in several of the folders.
 */
function start(program: string, args: readonly string[], hasInput: boolean): Deno.ChildProcess {
  let refused: unknown;
  for (const path of [PATH, ...FOLDERS.map((folder) => `${folder}:${PATH}`)]) {
    try {
      return new Deno.Command(program, {
        args: [...args],
        clearEnv: true,
        env: { PATH: path, LC_ALL: "C" },
        stdin: hasInput ? "piped" : "null",
        stdout: "piped",
        stderr: "piped",
      }).spawn();
    } catch (error) {
      if (!(error instanceof Deno.errors.NotCapable)) throw error;
      refused ??= error;
    }
  }
  throw refused;
}

/** Writes the child's input. A child that ends before it has read everything reports the reason itself. */
async function write(stdin: WritableStream<Uint8Array>, input: string): Promise<void> {
  const writer = stdin.getWriter();
  try {
    await writer.write(new TextEncoder().encode(input));
    await writer.close();
  } catch {
    await writer.abort().catch(() => {});
  }
}
