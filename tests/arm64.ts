/**
 * Runs the tests of what the arm64 library does on an emulated processor (qemu-user), by Deno for arm64 from npm: with --quick
 * those of vectors and those that compare each cipher with its twin, else all vector, differential and unit tests but those that start programs. Exits with 1 when one
 * fails. Says nothing of speed, and nothing of what a real processor or kernel does.
 */
const ROOT = new URL("..", import.meta.url).pathname;
const QEMU = "qemu-aarch64-static";
const KEEP = `${ROOT}dist/.deno`;
/** Test files of one process, which has failed when it does not end within this time. */
const GROUP = 8, LIMIT_S = 1800;

const QUICK = [
  "tests/vectors/primitives_test.ts",
  "tests/vectors/wycheproof_test.ts",
  "tests/vectors/datagram_test.ts",
  "tests/vectors/ox_handshake_test.ts",
  "tests/differential/datagram_test.ts",
  "tests/differential/shards_test.ts",
  "tests/differential/kernels_test.ts",
];
/**
 * All that the library computes for a tunnel, beside published vectors and beside its portable twin: handshakes, packets of both protocols
 * and what is refused of them; products of shards; and whether the library is this tree's. LZ4, whole sessions, and the shards' other
 * tests take minutes.
 */
const QUICK_NAMES =
  "/^native: (?:RFC|keyed|low|hash|the AEAD|the primitives|IKpsk2|OxTunnel|the committed|wrong handles)|by AWS-LC:|" +
  "native(?:, AWS-LC|$)|products are|fit is/";

/** Files with this in them start another Deno, or a program of this machine, which the emulator does not pass on. */
const STARTS_PROGRAMS = /Deno\.execPath\(\)|new Deno\.Command|_child\.ts/;
async function run(program: string, args: string[]): Promise<string> {
  const { code, stdout } = await new Deno.Command(program, { args, stderr: "inherit" }).output();
  if (code !== 0) throw new Error(`${program} ${args.join(" ")} failed with ${code}`);
  return new TextDecoder().decode(stdout).trim();
}

/** Deno for arm64, of this Deno's version. */
async function denoForArm64(): Promise<string> {
  const folder = `${KEEP}/deno-${Deno.version.deno}-arm64`;
  const path = `${folder}/package/deno`;
  if (await Deno.stat(path).catch(() => undefined)) return path;
  await Deno.mkdir(folder, { recursive: true });
  const name = `@deno/linux-arm64-glibc@${Deno.version.deno}`;
  const packed = await run("npm", ["pack", "--silent", "--pack-destination", folder, name]);
  await run("tar", ["-xzf", `${folder}/${packed}`, "-C", folder]);
  return path;
}

async function testFiles(): Promise<string[]> {
  const found: string[] = [];
  for (const folder of ["tests/vectors", "tests/differential", "tests/unit"]) {
    for await (const { name } of Deno.readDir(`${ROOT}${folder}`)) {
      if (name.endsWith("_test.ts")) found.push(`${folder}/${name}`);
    }
  }
  return found.sort();
}

/** Runs files in one emulated process; whether all passed, and any did. */
async function passes(deno: string, files: string[], flags: string[] = []): Promise<boolean> {
  const all = ["--no-check", "--cached-only", "--no-prompt", "-P=test", `--allow-run=${deno}`, ...flags];
  const child = new Deno.Command("timeout", {
    args: [String(LIMIT_S), QEMU, deno, "test", ...all, ...files],
    cwd: ROOT,
    // A processor that lacks what the tests want is a failure only where this library is for.
    env: { CI: "", TMPDIR: "/tmp", EMULATED: "1", NO_COLOR: "1" },
    stdin: "null",
    stdout: "piped",
  }).spawn();
  let passed = 0;
  for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
    await Deno.stdout.write(new TextEncoder().encode(text));
    passed += Number(/(\d+) passed/.exec(text)?.[1] ?? 0);
  }
  return (await child.status).code === 0 && passed > 0;
}

const deno = await denoForArm64();
const failed: string[] = [];
if (Deno.args.includes("--quick")) {
  if (!await passes(deno, QUICK, ["--filter", QUICK_NAMES])) failed.push(...QUICK);
} else {
  const files: string[] = [];
  for (const file of await testFiles()) {
    const text = await Deno.readTextFile(`${ROOT}${file}`);
    // Of kernels_test.ts only one test does, which knows of emulators.
    if (STARTS_PROGRAMS.test(text) && !file.endsWith("/kernels_test.ts")) {
      console.log(`not run: ${file}: it starts other programs`);
    } else files.push(file);
  }
  // A process begins with seven seconds of starting; one that dies takes a group's results with it.
  for (let first = 0; first < files.length; first += GROUP) {
    const group = files.slice(first, first + GROUP);
    if (!await passes(deno, group)) failed.push(...group);
  }
}
console.log(failed.length === 0 ? "arm64: all passed" : `arm64: failed, one of: ${failed.join(", ")}`);
Deno.exit(failed.length === 0 ? 0 : 1);
