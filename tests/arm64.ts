/**
 * Runs the tests of what the arm64 library does on an emulated processor (qemu-user), by Deno for arm64 from npm: with --quick
 * those of vectors and of each kernel once, else all vector, differential and unit tests but those below. Exits with 1 when one
 * fails. Says nothing of speed, and nothing of what a real processor or kernel does.
 */
const ROOT = new URL("..", import.meta.url).pathname;
const QEMU = "qemu-aarch64-static";
const KEEP = `${ROOT}dist/.deno`;
/** A test file that does not end within this time has failed. */
const LIMIT_S = 900;

const QUICK = [
  "tests/vectors/primitives_test.ts",
  "tests/vectors/wycheproof_test.ts",
  "tests/vectors/datagram_test.ts",
  "tests/differential/shards_test.ts",
  "tests/differential/kernels_test.ts",
];
/** Published vectors on the native kernels, products of shards, refusals, and whether the library is this tree's. */
const QUICK_NAMES =
  "/^native: (RFC|keyed|low|the AEAD|IKpsk2|the committed|wrong handles)|native(, AWS-LC|$)|products are|fit is/";

/** Files with this in them start another Deno, or a program of this machine, which the emulator does not pass on. */
const STARTS_PROGRAMS = /Deno\.execPath\(\)|new Deno\.Command|_child\.ts/;
/** Tests that cannot, by name. */
const EXCLUDED_NAMES = [
  "without the permission there is a reason", // starts a Deno for arm64, which the machine's own kernel cannot
  "wrong handles, choices and sizes are refused; the first pages lock", // the same as the next
  "keys of one table are not those of another", // wants memory to be locked: qemu-user has no mlock2
];

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

/** Runs files in one emulated process; whether all passed. */
async function passes(deno: string, files: string[], names: string): Promise<boolean> {
  const permissions = ["-P=test", `--allow-run=${deno}`];
  const flags = ["--no-check", "--cached-only", "--no-prompt", ...permissions, "--filter", names];
  const child = new Deno.Command("timeout", {
    args: [String(LIMIT_S), QEMU, deno, "test", ...flags, ...files],
    cwd: ROOT,
    // A processor that lacks what the tests want is a failure only where this library is for.
    env: { CI: "", TMPDIR: "/tmp" },
    stdin: "null",
  }).spawn();
  return (await child.status).code === 0;
}

const deno = await denoForArm64();
let failed: string[] = [];
if (Deno.args.includes("--quick")) {
  if (!await passes(deno, QUICK, QUICK_NAMES)) failed = QUICK;
} else {
  const names = `/^(?!.*(${EXCLUDED_NAMES.join("|")}))/`;
  for (const file of await testFiles()) {
    const text = await Deno.readTextFile(`${ROOT}${file}`);
    // Of kernels_test.ts only one test does, which is excluded by its name.
    if (STARTS_PROGRAMS.test(text) && !file.endsWith("/kernels_test.ts")) {
      console.log(`not run: ${file}: it starts other programs`);
    } else if (!await passes(deno, [file], names)) failed.push(file);
  }
}
console.log(failed.length === 0 ? "arm64: all passed" : `arm64: failed: ${failed.join(", ")}`);
Deno.exit(failed.length === 0 ? 0 : 1);
