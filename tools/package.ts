/**
 * Makes Oxrelay's packages into a folder: one for npm, and for x86-64 and arm64 a Debian package and a single file that
 * unpacks itself; with their hashes and an install.sh that knows them. Invariant: all of them hold the same tree, whose
 * dependencies are those of deno.lock, and start without a network; the same inputs give the same bytes. Installs nothing.
 */
import { parseArgs } from "@std/cli";
import { dirname, resolve } from "node:path";
import { createHash } from "node:crypto";
import { readPeerActions, readTasks, renderLauncher, renderManual } from "../tests/kit/package_parts.ts";

const ROOT = new URL("..", import.meta.url).pathname;
async function readJson(path: string): Promise<unknown> {
  return JSON.parse(await Deno.readTextFile(`${ROOT}${path}`));
}

const TEMPLATES = `${ROOT}packaging`;
const { version } = await readJson("deno.json") as { version: string };
const npmPackage = await readJson("packaging/npm.json") as { author: string; dependencies: { deno: string } };
/** The version of Deno that every package brings. */
const DENO = npmPackage.dependencies.deno;

/** What differs between processors: Debian's name, Node's, and Deno's and our library's target. */
const MACHINES = [
  { debian: "amd64", node: "x64", target: "x86_64-unknown-linux-gnu" },
  { debian: "arm64", node: "arm64", target: "aarch64-unknown-linux-gnu" },
] as const;
type Machine = typeof MACHINES[number];

const HELP = `Makes the packages of Oxrelay ${version}.

  deno task package                      all of them, into dist/
  deno task package --only deb,binary --machine amd64 --fast

  --only LIST      of npm, deb, binary, tree (default: the first three)
  --machine LIST   of amd64, arm64 (default: both)
  --out FOLDER     where to (default: dist)
  --fast           little compression, for tests
`;

async function run(
  program: string,
  args: string[],
  options: Deno.CommandOptions = {},
): Promise<string> {
  const { code, stdout, stderr } = await new Deno.Command(program, { args, ...options }).output();
  if (code !== 0) {
    throw new Error(
      `${program} ${args.join(" ")}: ${new TextDecoder().decode(stderr)}`,
    );
  }
  return new TextDecoder().decode(stdout);
}

async function template(
  name: string,
  values: Record<string, string> = {},
): Promise<string> {
  let text = await Deno.readTextFile(`${TEMPLATES}/${name}`);
  for (const [key, value] of Object.entries(values)) {
    text = text.replaceAll(`#${key}#`, () => value);
  }
  return text;
}

async function write(path: string, text: string, mode = 0o644): Promise<void> {
  await Deno.mkdir(dirname(path), { recursive: true });
  await Deno.writeTextFile(path, text);
  await Deno.chmod(path, mode);
}

/** The tree that all packages hold, without Deno: sources, libraries, the npm packages of deno.lock, the launcher. */
async function stage(folder: string): Promise<void> {
  await Deno.mkdir(folder, { recursive: true });
  await run("cp", [
    "-r",
    "main.ts",
    "src",
    "deno.json",
    "deno.lock",
    "LICENSE",
    "oxrelay.example.toml",
    folder,
  ], {
    cwd: ROOT,
  });
  await Deno.mkdir(`${folder}/ffi`);
  await run("sh", ["-c", 'cp ffi/*.ts "$0/ffi" && cp -r ffi/prebuilt "$0/ffi"', folder], { cwd: ROOT });
  for (const { target } of MACHINES) {
    await Deno.chmod(`${folder}/ffi/prebuilt/${target}/liboxrelay.so`, 0o644);
  }
  const tasks = await readTasks(ROOT);
  // What the program says to type is the command that this package installs.
  const names = [...tasks.map(({ name }) => name), "SUBCOMMAND"].join("|");
  await run("find", [
    ...[`${folder}/main.ts`, `${folder}/src`, `${folder}/oxrelay.example.toml`, "-type", "f"],
    ...["-exec", "sed", "-i", "-E", `s/deno task (-q )?(${names})\\b/oxrelay \\2/g`, "{}", "+"],
  ]);
  await write(`${folder}/bin/oxrelay`, renderLauncher(await template("launcher.sh"), tasks), 0o755);
  await fillCache(folder);
}

/** Puts the npm packages of deno.lock into the tree, less what only editors and debuggers read. */
async function fillCache(folder: string): Promise<void> {
  const cache = `${folder}/cache`;
  await run(Deno.execPath(), ["install", "--quiet", "--frozen", "--config", `${folder}/deno.json`], {
    env: { DENO_DIR: cache, DENO_NO_UPDATE_CHECK: "1" },
    cwd: folder,
  });
  for await (const { name } of Deno.readDir(cache)) {
    if (name !== "npm") await Deno.remove(`${cache}/${name}`, { recursive: true });
  }
  for (const name of ["*.d.ts", "*.d.mts", "*.d.cts", "*.map", ".npmignore", ".eslintrc*"]) {
    await run("find", [cache, "-name", name, "-delete"]);
  }
}

/** Deno for a machine: this process's own where it fits, else from npm's package, kept in `keep`. */
async function denoFor(machine: Machine, keep: string): Promise<string> {
  if (machine.target === Deno.build.target && Deno.version.deno === DENO) {
    return Deno.execPath();
  }
  const folder = `${keep}/deno-${DENO}-${machine.node}`;
  const path = `${folder}/package/deno`;
  if (!await Deno.stat(path).catch(() => undefined)) {
    await Deno.mkdir(folder, { recursive: true });
    const name = `@deno/linux-${machine.node}-glibc@${DENO}`;
    const packed = await run("npm", [
      "pack",
      "--silent",
      "--pack-destination",
      folder,
      name,
    ]);
    await run("tar", ["-xzf", `${folder}/${packed.trim()}`, "-C", folder]);
  }
  return path;
}

/** The time that all files in packages have, seconds since 1970: the same in every build. */
const BUILT_AT = 1_767_225_600;
/** tar's flags for the same bytes from the same files. */
const SAME = [
  "--sort=name",
  "--owner=0",
  "--group=0",
  "--numeric-owner",
  `--mtime=@${BUILT_AT}`,
  "--format=gnu",
];

/** The npm package: Deno comes as its dependency, of the version that it pins. */
async function makeNpm(tree: string, out: string): Promise<string> {
  const manifest = { ...npmPackage, version };
  await write(
    `${tree}/package.json`,
    `${JSON.stringify(manifest, undefined, 2)}\n`,
  );
  await Deno.copyFile(`${ROOT}README.md`, `${tree}/README.md`);
  const name = (await run("npm", ["pack", "--silent", "--pack-destination", out], {
    cwd: tree,
  })).trim();
  for (const file of ["package.json", "README.md"]) {
    await Deno.remove(`${tree}/${file}`);
  }
  return name;
}

/** The single file: a shell script with the tree behind it. */
async function makeBinary(
  tree: string,
  out: string,
  machine: Machine,
  isFast: boolean,
): Promise<string> {
  const name = `oxrelay-linux-${machine.node}`;
  const tar = `${out}/.${name}.tar.gz`;
  const gzip = isFast ? "gzip -n1" : "gzip -n9";
  await run("tar", [...SAME, `--use-compress-program=${gzip}`, "-cf", tar, "-C", tree, "."]);
  const payload = await Deno.readFile(tar);
  const digest = createHash("sha256").update(payload).digest("hex").slice(0, 32);
  const head = await template("unpack.sh", { DIGEST: digest, PLATFORM: `Linux on ${machine.node}` });
  const lines = String(head.split("\n").length);
  using file = await Deno.create(`${out}/${name}`);
  for (
    const part of [
      new TextEncoder().encode(head.replaceAll("#LINES#", lines)),
      payload,
    ]
  ) {
    for (let written = 0; written < part.length;) {
      written += await file.write(part.subarray(written));
    }
  }
  await Deno.chmod(`${out}/${name}`, 0o755);
  await Deno.remove(tar);
  return name;
}

/** The Debian package: the tree in /usr/lib/oxrelay, the service, the manual page, bash's completion. */
async function makeDeb(
  tree: string,
  work: string,
  machine: Machine,
  { out, isFast }: Places,
): Promise<string> {
  const folder = `${work}/deb-${machine.debian}`;
  await Deno.mkdir(`${folder}/usr/lib`, { recursive: true });
  await run("cp", ["-r", "--link", tree, `${folder}/usr/lib/oxrelay`]);
  await Deno.remove(`${folder}/usr/lib/oxrelay/LICENSE`);
  await Deno.mkdir(`${folder}/usr/bin`);
  await run("ln", ["-s", "../lib/oxrelay/bin/oxrelay", `${folder}/usr/bin/oxrelay`]);
  await writeShared(folder);
  for (const script of ["postinst", "prerm", "postrm"]) {
    await write(`${folder}/DEBIAN/${script}`, await template(`debian/${script}`), 0o755);
  }
  const kilobytes = (await run("du", ["-sk", `${folder}/usr`])).split("\t")[0];
  const control = { VERSION: version, ARCHITECTURE: machine.debian, KILOBYTES: kilobytes };
  await write(`${folder}/DEBIAN/control`, await template("debian/control", control));
  await write(`${folder}/DEBIAN/conffiles`, "/etc/oxrelay/oxrelay.toml\n");
  const sums = "find usr -type f | LC_ALL=C sort | xargs -d '\\n' md5sum";
  await write(`${folder}/DEBIAN/md5sums`, await run("sh", ["-c", sums], { cwd: folder }));
  const name = `oxrelay_${version}_${machine.debian}.deb`;
  const flags = isFast ? ["-Zgzip", "-z1"] : ["-Zxz"];
  await run("dpkg-deb", ["--root-owner-group", ...flags, "--build", folder, `${out}/${name}`], {
    env: { SOURCE_DATE_EPOCH: String(BUILT_AT) },
  });
  return name;
}

/** What a Debian package has outside of the tree. */
async function writeShared(folder: string): Promise<void> {
  const tasks = await readTasks(ROOT);
  const subcommands = { SUBCOMMANDS: tasks.map(({ name }) => name).join(" ") };
  const changes = `oxrelay (${version}) stable; urgency=medium\n\n  * Release ${version}.\n\n` +
    ` -- ${npmPackage.author}  Thu, 01 Jan 2026 00:00:00 +0000\n`;
  const files: [path: string, text: string][] = [
    ["../etc/oxrelay/oxrelay.toml", await Deno.readTextFile(`${ROOT}oxrelay.example.toml`)],
    ["lib/systemd/system/oxrelay.service", await template("oxrelay.service")],
    ["share/bash-completion/completions/oxrelay", await template("oxrelay.bash", subcommands)],
    ["share/doc/oxrelay/copyright", await template("debian/copyright")],
    ["share/lintian/overrides/oxrelay", await template("debian/overrides")],
    ["share/man/man1/oxrelay.1", renderManual(version, tasks, await readPeerActions(ROOT))],
    ["share/doc/oxrelay/changelog", changes],
  ];
  for (const [path, text] of files) {
    await write(`${folder}/usr/${path}`, text);
    if (/\.1$|changelog$/.test(path)) await run("gzip", ["-n9", `${folder}/usr/${path}`]);
  }
}

async function main(): Promise<number> {
  const options = parseArgs(Deno.args, {
    string: ["only", "machine", "out"],
    boolean: ["fast", "help"],
  });
  if (options.help) {
    console.log(HELP);
    return 0;
  }
  const only = String(options.only ?? "npm,deb,binary").split(",");
  const wanted = String(options.machine ?? "amd64,arm64").split(",");
  const machines = MACHINES.filter(({ debian }) => wanted.includes(debian));
  if (
    only.some((kind) => !["npm", "deb", "binary", "tree"].includes(kind)) ||
    machines.length !== wanted.length
  ) {
    console.error(`package: unknown word in --only or --machine\n\n${HELP}`);
    return 2;
  }
  const out = resolve(String(options.out ?? `${ROOT}dist`));
  await Deno.mkdir(out, { recursive: true });
  const work = await Deno.makeTempDir({ dir: out, prefix: ".work" });
  try {
    const names = await makeAll(new Set(only), machines, {
      out,
      work,
      isFast: options.fast === true,
    });
    console.log(names.map((name) => `${out}/${name}`).join("\n"));
  } finally {
    await Deno.remove(work, { recursive: true });
  }
  return 0;
}

interface Places {
  out: string;
  work: string;
  isFast: boolean;
}

/** Returns the names of the files made, below `out`. */
async function makeAll(
  only: Set<string>,
  machines: readonly Machine[],
  places: Places,
): Promise<string[]> {
  const { out, work, isFast } = places;
  const names: string[] = [];
  const common = `${work}/tree`;
  await stage(common);
  await run("chmod", ["-R", "u=rwX,go=rX", common]);
  if (only.has("npm")) names.push(await makeNpm(common, out));
  for (const machine of machines) {
    if (!["deb", "binary", "tree"].some((kind) => only.has(kind))) break;
    const tree = `${work}/${machine.debian}`;
    await run("cp", ["-r", "--link", common, tree]);
    for (const { target } of MACHINES) {
      if (target !== machine.target) {
        await Deno.remove(`${tree}/ffi/prebuilt/${target}`, {
          recursive: true,
        });
      }
    }
    await run("install", [
      "-m755",
      await denoFor(machine, `${out}/.deno`),
      `${tree}/bin/deno`,
    ]);
    if (only.has("deb")) {
      names.push(await makeDeb(tree, work, machine, places));
    }
    if (only.has("binary")) {
      names.push(await makeBinary(tree, out, machine, isFast));
    }
    if (only.has("tree")) {
      await Deno.rename(tree, `${out}/oxrelay-${machine.debian}`);
      names.push(`oxrelay-${machine.debian}`);
    }
  }
  const files = names.filter((name) => /\.(tgz|deb)$|^oxrelay-linux-/.test(name));
  if (files.length > 0) {
    const sums = await run("sha256sum", files, { cwd: out });
    await write(`${out}/SHA256SUMS`, sums);
    await write(
      `${out}/install.sh`,
      await template("install.sh", { SUMS: sums.trim() }),
      0o755,
    );
  }
  return names;
}

Deno.exit(await main());
