/**
 * `peer import`: takes over another WireGuard server, its private key and its peers, so that their devices go on unchanged. Invariant:
 * everything is checked before anything is written, and what was written is taken back when a later step fails; the key and the
 * settings of a relay that has its own are never changed. Stops no other server.
 */
import { type Config, type Environment, formatEndpoint, parseConfig } from "../../config.ts";
import { createFile, makeStateDirectory, removeIfPresent } from "../../process/durable.ts";
import { fileError } from "../../process/file_errors.ts";
import { CommandError, loadConfig, readCommandLine } from "../../process/help.ts";
import { isZeroKey, keyFromText, keyToText, publicKeyOf } from "../../process/keys_text.ts";
import { loadIdentity } from "../../serve/identity.ts";
import { openStore } from "../../serve/store.ts";
import type { PeerRecord } from "../../session/peer_record.ts";
import {
  formatPrefix,
  hostOne,
  isIpv4,
  maskAddress,
  parseAddress,
  parseInterface,
  parsePrefix,
  type Prefix,
  prefixContains,
} from "../../wire/address.ts";
import { join } from "node:path";
import { tellRelay } from "../relay_peers.ts";
import { IMPORT_BYTES_MAX, type ImportedServer, parseServer } from "./wireguard_server.ts";

const HELP = `Takes over another WireGuard server with its peers: their devices go on unchanged.

  deno task peer import /etc/wireguard/wg0.conf     wg-quick's file, also as wg-easy 15 and installers write it
  deno task peer import wg0.json                    wg-easy 14's file (Backup in its page)

The relay gets the server's private key, its port and its tunnel networks; oxrelay.toml is made, if there is none. Then stop the
other server, which has the port, and start the relay.

  --config FILE   the relay's configuration (default oxrelay.toml)
  --dry-run       says what would be done
`;

const KEY_FILE = "private.key", DEFAULT_FILE = "oxrelay.toml";
/** What tunnel_ipv4 may be. */
const BITS_MIN = 8, BITS_MAX = 29, WIDE_BITS = 24;

/** The networks of the tunnel, as the configuration has them. */
interface Networks {
  tunnelIpv4: string;
  tunnelIpv6?: string;
}

/** Runs the subcommand; the result is the exit code. */
export async function importPeers(args: string[], env: Environment): Promise<number> {
  const { words: [source], values, flags } = readCommandLine(args, {
    values: ["config"],
    flags: ["dry-run"],
    words: [1, 1],
  });
  if (flags.help) {
    console.log(HELP);
    return 0;
  }
  const server = parseServer(await readSource(source), source);
  const networks = networksOf(server, source);
  const { peers, notes } = fitting(server, networks, source);
  const lines = settingsOf(server, networks);
  const file = values.config ?? (env.OXRELAY_CONFIG || DEFAULT_FILE);
  const isNew = !await exists(file);
  const config = isNew ? parseConfig(lines.join("\n"), file, env) : (await loadConfig(file, env)).config;
  if (!isNew) refuseOtherSettings(config, networks, server, lines, file);
  const hasKey = await checkKey(config, env, server.privateKey);
  for (const note of [...server.notes, ...notes]) console.error(`${source}: ${note}.`);
  const what = `${peers.length} peers, the private key and the networks ${
    Object.values(networks).join(" and ")
  }`;
  if (flags["dry-run"]) {
    console.error(`${source}: ${what} can be taken over; nothing was changed.`);
    return 0;
  }
  const added = await write(config, env, {
    source: server,
    peers,
    file: isNew ? file : undefined,
    lines,
    hasKey,
  });
  console.error(
    `${source}: ${what} are taken over; ${added} peers are new.${isNew ? ` ${file} is made.` : ""}`,
  );
  if (hasKey) return await tellRelay(config);
  const port = server.listenPort ?? config.listen.port;
  console.error(
    `Next: stop the other server (wg-quick down wg0), then start the relay on UDP ${port}: deno task serve`,
  );
  return 0;
}

/** Writes key, settings and peers; takes back what it made when one of them fails. Returns how many peers are new. */
async function write(
  config: Config,
  env: Environment,
  { source, peers, file, lines, hasKey }: {
    source: ImportedServer;
    peers: PeerRecord[];
    file: string | undefined;
    lines: string[];
    hasKey: boolean;
  },
): Promise<number> {
  const made: string[] = [];
  const make = async (path: string, text: string) => {
    await createFile(path, new TextEncoder().encode(text));
    made.push(path);
  };
  try {
    await makeStateDirectory(config.stateDir);
    if (!hasKey) await make(join(config.stateDir, KEY_FILE), `${source.privateKey}\n`);
    if (file !== undefined) await make(file, `# Taken over by peer import.\n${lines.join("\n")}\n`);
    const key = keyFromText(source.privateKey)!;
    const publicKey = publicKeyOf(key);
    key.fill(0);
    return await openStore(config, env, { publicKey }).addAll(peers);
  } catch (error) {
    for (const path of made) await removeIfPresent(path);
    throw error;
  }
}

/** The tunnel's networks: those of the server's addresses, wide enough for all peers. Throws CommandError. */
function networksOf({ addresses, peers }: ImportedServer, source: string): Networks {
  const own = addresses.map((text) => parseInterface(text)!);
  const own4 = own.find(({ address }) => isIpv4(address));
  if (own4 === undefined) {
    throw new CommandError(`${source}: the server has no IPv4 address, and a relay's tunnel needs one`);
  }
  const hosts = peers.flatMap(({ allowedIps }) => allowedIps.map((text) => parsePrefix(text)!)).filter((
    { bits },
  ) => bits === 128);
  let bits = own4.bits - 96 > BITS_MAX ? 96 + WIDE_BITS : own4.bits;
  const network = (): Prefix => {
    const address = own4.address.slice();
    maskAddress(address, bits);
    return { address, bits };
  };
  const hosts4 = hosts.filter(({ address }) => isIpv4(address));
  while (bits > 96 + BITS_MIN && !hosts4.every(({ address }) => prefixContains(network(), address))) bits--;
  const own6 = own.find(({ address }) => !isIpv4(address) && address[0] >>> 24 === 0xfd);
  const address6 = own6?.address.slice();
  if (address6) maskAddress(address6, 64);
  return {
    tunnelIpv4: formatPrefix(network()),
    ...(address6 && { tunnelIpv6: formatPrefix({ address: address6, bits: 64 }) }),
  };
}

/** The peers with those of their networks that a relay can give them. Throws CommandError for one that would have none. */
function fitting(
  { peers }: ImportedServer,
  { tunnelIpv4, tunnelIpv6 }: Networks,
  source: string,
): { peers: PeerRecord[]; notes: string[] } {
  const tunnels = [tunnelIpv4, tunnelIpv6].filter((text) => text !== undefined);
  const own = tunnels.map((text) => parseAddress(hostOne(text).address)!);
  const notes: string[] = [];
  const records = peers.map(({ created, ...peer }) => {
    const inside = peer.allowedIps.filter((text) => {
      const prefix = parsePrefix(text)!;
      return tunnels.map((one) => parsePrefix(one)!).some((tunnel) =>
        prefix.bits >= tunnel.bits && prefixContains(tunnel, prefix.address)
      );
    });
    for (const text of inside) {
      if (own.some((address) => prefixContains(parsePrefix(text)!, address))) {
        throw new CommandError(
          `${source}: peer "${peer.name}" has ${text}, which is the relay's own address in the tunnel; give it another one first`,
        );
      }
    }
    const left = peer.allowedIps.filter((text) => !inside.includes(text));
    if (inside.length === 0) {
      throw new CommandError(`${source}: peer "${peer.name}" has no address inside ${tunnels.join(" or ")}`);
    }
    if (left.length > 0) {
      notes.push(
        `peer "${peer.name}" loses ${left.join(", ")}: a relay's peers have addresses of the tunnel only`,
      );
    }
    return { ...peer, allowedIps: inside, created: created ?? new Date().toISOString() };
  });
  return { peers: records, notes };
}

/** The lines of the configuration that the peers' devices need. */
function settingsOf({ listenPort }: ImportedServer, { tunnelIpv4, tunnelIpv6 }: Networks): string[] {
  return [
    ...(listenPort === undefined ? [] : [`listen = "[::]:${listenPort}"`]),
    `tunnel_ipv4 = "${tunnelIpv4}"`,
    ...(tunnelIpv6 === undefined ? [] : [`tunnel_ipv6 = "${tunnelIpv6}"`]),
  ];
}

/** Throws CommandError with the lines when the configuration says something else. */
function refuseOtherSettings(
  config: Config,
  { tunnelIpv4, tunnelIpv6 }: Networks,
  { listenPort }: ImportedServer,
  lines: readonly string[],
  file: string,
): void {
  const other = [
    ...(config.tunnelIpv4 === tunnelIpv4 ? [] : [`tunnel_ipv4 is "${config.tunnelIpv4}"`]),
    ...(tunnelIpv6 === undefined || config.tunnelIpv6 === tunnelIpv6
      ? []
      : [`tunnel_ipv6 is "${config.tunnelIpv6}"`]),
    ...(listenPort === undefined || config.listen.port === listenPort
      ? []
      : [`listen is "${formatEndpoint(config.listen)}"`]),
  ];
  if (other.length === 0) return;
  throw new CommandError(
    `${file}: ${
      other.join(", ")
    }, which these devices do not expect. Nothing was changed; set these and run this again:\n` +
      lines.map((line) => `  ${line}`).join("\n"),
  );
}

/** Whether the relay has this private key already. Throws CommandError when it has another one. */
async function checkKey(config: Config, env: Environment, privateKey: string): Promise<boolean> {
  const theirs = keyFromText(privateKey)!;
  if (isZeroKey(theirs)) throw new CommandError("the server's private key is zero, which is no secret");
  if (!env.OXRELAY_PRIVATE_KEY && !await exists(join(config.stateDir, KEY_FILE))) {
    theirs.fill(0);
    return false;
  }
  const own = await loadIdentity(config, env);
  own.privateKey.fill(0);
  const isSame = keyToText(own.publicKey) === keyToText(publicKeyOf(theirs));
  theirs.fill(0);
  if (isSame) return true;
  throw new CommandError(
    `this relay has its own private key (${own.source}), and these devices expect the other server's. Nothing was changed; ` +
      `import into an empty state_dir (mv ${config.stateDir} ${config.stateDir}.old), or add the devices anew: peer add`,
  );
}

async function readSource(path: string): Promise<string> {
  try {
    const { size } = await Deno.stat(path);
    if (size > IMPORT_BYTES_MAX) {
      throw new CommandError(`${path}: longer than ${IMPORT_BYTES_MAX} bytes, so it is no such file`);
    }
    return await Deno.readTextFile(path);
  } catch (error) {
    throw fileError(error, path, "read");
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await Deno.lstat(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw fileError(error, path, "read");
  }
}
