/**
 * `backup` and `restore`: everything that a relay keeps, in one file, and back. Invariant: the backup is 0600 and complete or is not
 * there; a restore checks the whole file before it writes anything, overwrites nothing, and leaves nothing half done. Whoever has the
 * file is the relay: it holds the private key. Talks to no relay.
 */
import project from "../../../deno.json" with { type: "json" };
import { createHash } from "node:crypto";
import { dirname, join, resolve } from "node:path";
import type { Config } from "../../config.ts";
import { createFile, makeStateDirectory, removeIfPresent } from "../../process/durable.ts";
import { fileError } from "../../process/file_errors.ts";
import { CommandError, loadConfig, readCommandLine, readEnvironment } from "../../process/help.ts";
import { isZeroKey, keyFromText, keyToText, publicKeyOf } from "../../process/keys_text.ts";
import { parsePeers } from "../../serve/peers_file.ts";

const BACKUP_HELP = `Writes everything that the relay keeps (key, peers, token, configuration) into one file.

  deno task backup oxrelay.backup
  deno task restore oxrelay.backup     on the same machine or another

The file (mode 0600; it must not exist) holds the relay's private key: whoever has it is the relay. The relay may run meanwhile.

  --config FILE   the relay's configuration (default oxrelay.toml)
`;

const RESTORE_HELP =
  `Puts back what \`backup\` wrote. Overwrites nothing: the state directory must not have these files yet.

  deno task restore oxrelay.backup
  deno task restore oxrelay.backup --check    reads and checks the file, and writes nothing

  --config FILE   the configuration whose state_dir is filled (default oxrelay.toml, which is restored if there is none)
`;

const FORMAT = "oxrelay-backup", VERSION = 1;
const NAME = /^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$/;
/** What belongs to a running relay alone. */
const PASSING = /\.(lock|tmp)$|^admin\.address$/;
/** One-time links: an older state of them would let links work again that were used or revoked meanwhile. */
const LINKS_NAME = "links.json";
const CONFIG_NAME = "oxrelay.toml", KEY_NAME = "private.key";
const FILES_MAX = 64, BYTES_MAX = 256 << 20;

/** One file of the state directory, or the configuration. */
interface Kept {
  name: string;
  /** Lower-case hexadecimal. */
  sha256: string;
  base64: string;
}

interface Backup {
  format: typeof FORMAT;
  version: number;
  made: string;
  program: string;
  /** Whose backup it is; absent where the key is in the environment. */
  publicKey?: string;
  config?: Kept;
  files: Kept[];
}

/** A backup that was checked. */
interface Checked {
  made: string;
  publicKey: string | undefined;
  config: Uint8Array | undefined;
  files: Map<string, Uint8Array>;
  peers: number;
}

/** Runs `backup`; the result is the exit code. */
export async function backup(args: string[]): Promise<number> {
  const { words: [out], values, flags } = readCommandLine(args, {
    values: ["config"],
    flags: [],
    words: [1, 1],
  });
  if (flags.help) {
    console.log(BACKUP_HELP);
    return 0;
  }
  const env = readEnvironment();
  const { config, file } = await loadConfig(values.config, env);
  await refuseInside(config, out);
  const files = await stateFiles(config);
  const key = files.find(({ name }) => name === KEY_NAME);
  if (files.length === 0) {
    throw new CommandError(`${config.stateDir}: there is nothing to back up: no relay has run here`);
  }
  const settings = await readIfThere(file);
  const whole: Backup = {
    format: FORMAT,
    version: VERSION,
    made: new Date().toISOString(),
    program: project.version,
    ...(key && { publicKey: publicKeyIn(new TextDecoder().decode(key.bytes)) }),
    ...(settings && { config: kept(CONFIG_NAME, settings) }),
    files: files.map(({ name, bytes }) => kept(name, bytes)),
  };
  const text = `${JSON.stringify(whole, null, 1)}\n`;
  readBackup(text, out); // what could not be restored is no backup
  await createFile(out, new TextEncoder().encode(text));
  console.error(
    `${files.map(({ name }) => name).join(", ")}${
      settings ? ` and ${file}` : ""
    } are in ${out}; keep it secret.`,
  );
  for (const name of ["OXRELAY_PRIVATE_KEY", "OXRELAY_PEERS"] as const) {
    if (env[name]) console.error(`${name} is set in the environment and is not in the backup.`);
  }
  return 0;
}

/** Runs `restore`; the result is the exit code. */
export async function restore(args: string[]): Promise<number> {
  const { words: [path], values, flags } = readCommandLine(args, {
    values: ["config"],
    flags: ["check"],
    words: [1, 1],
  });
  if (flags.help) {
    console.log(RESTORE_HELP);
    return 0;
  }
  const bytes = await readIfThere(path);
  if (bytes === undefined) throw new CommandError(`${path}: there is no such file`);
  const found = readBackup(new TextDecoder().decode(bytes), path);
  const what = `${path}: of ${found.made}, relay ${
    found.publicKey ?? "(its key is not in it)"
  }, ${found.peers} peers`;
  if (flags.check) {
    console.error(`${what}; it can be restored.`);
    return 0;
  }
  const env = readEnvironment();
  const configPath = values.config ?? (env.OXRELAY_CONFIG || CONFIG_NAME);
  const present = await readIfThere(configPath);
  const writesConfig = found.config !== undefined && present === undefined;
  const made: string[] = [];
  try {
    if (writesConfig) {
      await createFile(configPath, found.config!);
      made.push(configPath);
    }
    const { config } = await loadConfig(
      writesConfig || present !== undefined ? configPath : undefined,
      env,
    );
    await refuseOverwriting(config, [...found.files.keys()]);
    await makeStateDirectory(config.stateDir);
    // The key first: a relay that is started after a crash in between makes no other one.
    const ordered = [...found.files].toSorted(([a], [b]) => Number(b === KEY_NAME) - Number(a === KEY_NAME));
    for (const [name, content] of ordered) {
      const target = join(config.stateDir, name);
      await createFile(target, content);
      made.push(target);
    }
    console.error(`${what}; restored to ${config.stateDir}. Start the relay: deno task serve`);
  } catch (error) {
    for (const file of made) await removeIfPresent(file);
    throw error;
  }
  if (found.config !== undefined && !writesConfig && !sameBytes(found.config, present!)) {
    console.error(`${configPath} is another one than in the backup and was left as it is.`);
  }
  return 0;
}

/** Throws CommandError that names what is there already. */
async function refuseOverwriting({ stateDir }: Config, names: readonly string[]): Promise<void> {
  const there: string[] = [];
  for (const name of names) if (await readIfThere(join(stateDir, name)) !== undefined) there.push(name);
  if (there.length > 0) {
    throw new CommandError(
      `${stateDir}: has ${
        there.join(", ")
      } already, and nothing is overwritten; move it away (mv ${stateDir} ${stateDir}.old), ` +
        "or choose another state_dir",
    );
  }
}

/** The files of the state directory that outlive a relay, by name; of a link what it leads to. Throws CommandError. */
async function stateFiles({ stateDir }: Config): Promise<{ name: string; bytes: Uint8Array }[]> {
  const names: string[] = [];
  try {
    for await (const { name, isFile, isSymlink } of Deno.readDir(stateDir)) {
      if ((isFile || isSymlink) && NAME.test(name) && !PASSING.test(name) && name !== LINKS_NAME) {
        names.push(name);
      }
    }
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw fileError(error, stateDir, "read");
  }
  const files = [];
  for (const name of names.sort()) {
    const path = join(stateDir, name);
    if (await isLinkToNothing(path)) {
      throw new CommandError(
        `${path}: is a link to what is no file, so no backup was made; mend or remove it`,
      );
    }
    const bytes = await readIfThere(path);
    if (bytes !== undefined) files.push({ name, bytes });
  }
  return files;
}

/** False of what is no link, and of what is gone meanwhile. */
async function isLinkToNothing(path: string): Promise<boolean> {
  try {
    if (!(await Deno.lstat(path)).isSymlink) return false;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw fileError(error, path, "read");
  }
  try {
    return !(await Deno.stat(path)).isFile;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return true;
    throw fileError(error, path, "read");
  }
}

/** A backup beside the state is lost with it, and would be in the next backup. Throws CommandError. */
async function refuseInside({ stateDir }: Config, out: string): Promise<void> {
  const real = (path: string) => Deno.realPath(path).catch(() => resolve(path));
  const [state, directory] = [await real(stateDir), await real(dirname(resolve(out)))];
  if (directory === state || directory.startsWith(`${state}/`)) {
    throw new CommandError(`${out}: is in the state directory ${stateDir}; choose a place outside of it`);
  }
}

/** Checks a backup as a whole. `source` names it in errors. Throws CommandError that names what is wrong. */
export function readBackup(text: string, source: string): Checked {
  const wrong = (what: string) =>
    new CommandError(`${source}: cannot be restored, and nothing was changed: ${what}`);
  let json: Partial<Backup>;
  try {
    json = JSON.parse(text);
  } catch {
    throw wrong("it is not whole, or no backup (no JSON)");
  }
  if (typeof json !== "object" || json === null || json.format !== FORMAT) throw wrong(`it is no ${FORMAT}`);
  if (json.version !== VERSION) {
    throw wrong(`it is of version ${json.version}, and this program reads ${VERSION}`);
  }
  const { made, files: list, config: settings } = json;
  if (typeof made !== "string" || !Array.isArray(list) || list.length === 0 || list.length > FILES_MAX) {
    throw wrong("its list of files is missing or too long");
  }
  const contentOf = (one: Kept): Uint8Array => {
    if (typeof one?.name !== "string" || !NAME.test(one.name) || PASSING.test(one.name)) {
      throw wrong(`a file's name is none: ${String(one?.name).slice(0, 40)}`);
    }
    const bytes = typeof one.base64 === "string" && one.base64.length < BYTES_MAX
      ? fromBase64(one.base64)
      : undefined;
    if (bytes === undefined || digestOf(bytes) !== one.sha256) {
      throw wrong(`${one.name} is damaged: its SHA-256 is another`);
    }
    return bytes;
  };
  const files = new Map<string, Uint8Array>();
  for (const one of list) {
    const bytes = contentOf(one);
    if (files.has(one.name)) throw wrong(`${one.name} is in it twice`);
    // Backups of older programs have the links.
    if (one.name !== LINKS_NAME) files.set(one.name, bytes);
  }
  const textOf = (name: string) => files.has(name) ? new TextDecoder().decode(files.get(name)) : undefined;
  const keyText = textOf(KEY_NAME), peersText = textOf("peers.json");
  const publicKey = keyText === undefined ? undefined : publicKeyIn(keyText);
  if (keyText !== undefined && (publicKey === undefined || publicKey !== json.publicKey)) {
    throw wrong("private.key is not the key of the relay that the backup names");
  }
  const peers = peersText === undefined ? { peers: [] } : parsePeers(peersText);
  if ("mistake" in peers) throw wrong(`peers.json: ${peers.mistake}`);
  return { made, publicKey, config: settings && contentOf(settings), files, peers: peers.peers.length };
}

function kept(name: string, bytes: Uint8Array): Kept {
  return { name, sha256: digestOf(bytes), base64: bytes.toBase64() };
}

/** The public key of a key file's text; undefined when it holds none. */
function publicKeyIn(text: string): string | undefined {
  const key = keyFromText(text.trimEnd());
  if (key === undefined || isZeroKey(key)) return undefined;
  const publicKey = keyToText(publicKeyOf(key));
  key.fill(0);
  return publicKey;
}

function digestOf(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

function fromBase64(text: string): Uint8Array | undefined {
  try {
    return Uint8Array.fromBase64(text);
  } catch {
    return undefined;
  }
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

async function readIfThere(path: string): Promise<Uint8Array | undefined> {
  try {
    return await Deno.readFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw fileError(error, path, "read");
  }
}
