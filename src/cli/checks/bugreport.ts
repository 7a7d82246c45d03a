/**
 * `bugreport`: one file with what a maintainer needs to know of a relay, without secrets. Invariant: the file is not written when a
 * known secret is found in it in any form; devices appear by numbers and public addresses without their hosts. Sends nothing.
 */
import project from "../../../deno.json" with { type: "json" };
import { join } from "node:path";
import { type Config, type Environment, ENVIRONMENT_NAMES, redactConfig } from "../../config.ts";
import { createFile } from "../../process/durable.ts";
import { fileError } from "../../process/file_errors.ts";
import { CommandError, loadConfig, readCommandLine, readEnvironment } from "../../process/help.ts";
import { keyFromText } from "../../process/keys_text.ts";
import { parsePeers } from "../../serve/peers_file.ts";
import { peersFromEnvironment } from "../../serve/store.ts";
import type { PeerRecord } from "../../session/peer_record.ts";
import { askRelay } from "../admin_client.ts";
import { findingsOf, renderFindings } from "./findings.ts";
import { gatherFacts } from "./host_facts.ts";
import { isLeaking, scrub } from "./scrub.ts";

const HELP =
  `Writes one file for a bug report: versions, settings, health, counters, what doctor finds. Sends nothing.

  deno task bugreport                      writes oxrelay-bugreport.txt
  journalctl -u oxrelay -n 1000 > relay.log
  deno task bugreport --log relay.log      with the relay's log

  --out FILE      the file (mode 0600; it must not exist)
  --log FILE      a log to include, its last 256 KiB
  --config FILE   the relay's configuration (default oxrelay.toml)

Keys, tokens and invitations are removed, devices are numbered, public addresses lose their last part. Read it before you send it.
`;

const OUT = "oxrelay-bugreport.txt";
const LOG_BYTES_MAX = 256 << 10;

/** Runs the subcommand; the result is the exit code. */
export async function bugreport(args: string[]): Promise<number> {
  const { values, flags } = readCommandLine(args, {
    values: ["config", "out", "log"],
    flags: [],
    words: [0, 0],
  });
  if (flags.help) {
    console.log(HELP);
    return 0;
  }
  const env = readEnvironment();
  const { config } = await loadConfig(values.config, env);
  const peers = await peersOf(config, env);
  const secrets = await secretsOf(config, env, peers);
  const names = numbered(peers, await namesOfLinks(config));
  const sections: [string, string][] = [
    ["program", about()],
    [
      "environment",
      ENVIRONMENT_NAMES.filter((name) => env[name]).join(" ") || "none of the project's variables is set",
    ],
    ["configuration", JSON.stringify(redactConfig(config), null, 2)],
    ["state directory", await listing(config.stateDir)],
    ["doctor", renderFindings(findingsOf(await gatherFacts(config), config, Date.now()), config.listen)],
    ...await answers(config),
    ...(values.log === undefined ? [] : [["log", await tailOf(values.log)] as [string, string]]),
  ];
  const text = sections.map(([title, body]) => `== ${title}\n${scrub(body, secrets, names)}\n`).join("\n");
  if (isLeaking(text, secrets)) {
    throw new CommandError(
      "a secret would be in the report in a form that is not known, so no report was written; say so without one",
    );
  }
  const out = values.out ?? OUT;
  await createFile(out, new TextEncoder().encode(text));
  console.error(`${out} is written. Read it before you send it: it says how this relay is set up.`);
  return 0;
}

function about(): string {
  const { deno, v8 } = Deno.version;
  return `oxrelay ${project.version}, Deno ${deno}, V8 ${v8}, ${Deno.build.target}, kernel ${Deno.osRelease()}, ` +
    `${navigator.hardwareConcurrency} processors, ${new Date().toISOString()}`;
}

/** The peers that are known here, also where a part of them cannot be read. */
async function peersOf({ stateDir }: Config, env: Environment): Promise<PeerRecord[]> {
  const text = await Deno.readTextFile(join(stateDir, "peers.json")).catch(() => "{}");
  const stored = parsePeers(text);
  let others: PeerRecord[] = [];
  try {
    others = peersFromEnvironment(env);
  } catch {
    // What it holds is a secret as a whole, below.
  }
  return ["peers" in stored ? stored.peers : [], others].flat();
}

/** What stands in a report for names and public keys; `expected` are names of devices that are not there yet. */
export function numbered(
  peers: readonly Pick<PeerRecord, "name" | "publicKey">[],
  expected: readonly string[],
): Map<string, string> {
  const names = [...new Set([...peers.map(({ name }) => name), ...expected])];
  return new Map([
    ...names.map((name, i): [string, string] => [name, `device-${i + 1}`]),
    ...peers.map(({ name, publicKey }): [string, string] => [
      publicKey,
      `key-of-device-${names.indexOf(name) + 1}`,
    ]),
  ]);
}

/** The names that one-time links will give, or gave: the log has them. None where the file cannot be read. */
export async function namesOfLinks({ stateDir }: Pick<Config, "stateDir">): Promise<string[]> {
  try {
    const { links } = JSON.parse(await Deno.readTextFile(join(stateDir, "links.json")));
    return links.map((link: { peer?: { name?: unknown } }) => link.peer?.name).filter((name: unknown) =>
      typeof name === "string" && name !== ""
    );
  } catch {
    return [];
  }
}

/** Every secret that this relay has: texts, and keys as bytes too. */
async function secretsOf(
  config: Config,
  env: Environment,
  peers: readonly PeerRecord[],
): Promise<(string | Uint8Array)[]> {
  const read = async (path: string) => (await Deno.readTextFile(path).catch(() => "")).trim();
  const fallbackKey = config.fallback && await read(config.fallback.privateKey);
  const texts = [
    await read(join(config.stateDir, "private.key")),
    await read(join(config.stateDir, "admin.token")),
    env.OXRELAY_PRIVATE_KEY?.trim(),
    env.OXRELAY_ADMIN_TOKEN,
    env.OXRELAY_PEERS,
    config.adminToken,
    ...peers.map(({ presharedKey }) => presharedKey),
    fallbackKey,
    // A line of a key's file alone is a part of the key.
    ...(fallbackKey ?? "").split("\n").filter((line) => !line.startsWith("-----")),
  ].filter((text) => text !== undefined && text !== "");
  return texts.flatMap((text) => [text!, keyFromText(text!) ?? []].flat());
}

async function listing(directory: string): Promise<string> {
  const lines: string[] = [];
  try {
    for await (const { name } of Deno.readDir(directory)) {
      const { size, mode, mtime } = await Deno.lstat(join(directory, name));
      lines.push(`${((mode ?? 0) & 0o777).toString(8)} ${size} ${mtime?.toISOString()} ${name}`);
    }
  } catch (error) {
    return (error as Error).message;
  }
  return lines.sort().join("\n") || "empty";
}

/** What a running relay says of itself. */
async function answers(config: Config): Promise<[string, string][]> {
  const sections: [string, string][] = [];
  for (const path of ["/v1/status", "/v1/sessions", "/healthz"]) {
    const said = await askRelay(config, "GET", path).then(
      (answer) => JSON.stringify(answer, null, 1),
      ({ message }: Error) => message,
    );
    sections.push([path, said]);
  }
  return sections;
}

/** The end of a file, from a whole line on. */
async function tailOf(path: string): Promise<string> {
  try {
    using file = await Deno.open(path);
    const { size } = await file.stat();
    const from = Math.max(0, size - LOG_BYTES_MAX);
    await file.seek(from, Deno.SeekMode.Start);
    const bytes = new Uint8Array(Math.min(size, LOG_BYTES_MAX));
    let length = 0;
    for (let count; length < bytes.length && (count = await file.read(bytes.subarray(length))) !== null;) {
      length += count;
    }
    const text = new TextDecoder().decode(bytes.subarray(0, length));
    // The first line may be the end of a secret.
    return from === 0 ? text : text.slice(text.indexOf("\n") + 1);
  } catch (error) {
    throw fileError(error, path, "read");
  }
}
