/**
 * `peer add|list|show|remove|export`: who may connect. Invariant: standard output carries only what a program
 * could read (a WireGuard config, a table, JSON), explanations go to standard error, and a client's private
 * key is shown once and never stored.
 */
import { type Config, type Environment, formatEndpoint, nearest, parseEndpoint } from "../config.ts";
import { type Address, isIpv4, parseAddress, prefixContains } from "../wire/address.ts";
import { isGlobal, rangesOf } from "../wire/special_ranges.ts";
import type { PeerRecord } from "../session/peer_record.ts";
import { adminUrl, askRelay, NoRelayError, RefusedError } from "./admin_client.ts";
import { fileError } from "../process/file_errors.ts";
import { invitedFallback } from "./fallback_invited.ts";
import { CommandError, loadConfig, readCommandLine, readEnvironment, UsageError } from "../process/help.ts";
import { ENDPOINTS_MAX, formatInvitation, parseInvitation } from "../connect/invitation.ts";
import { type Identity, loadIdentity, resolveTunnelIpv6 } from "../serve/identity.ts";
import {
  generatePresharedKey,
  generatePrivateKey,
  isKeyText,
  keyToText,
  publicKeyOf,
  unusableKey,
} from "../process/keys_text.ts";
import { renderQr } from "./qr.ts";
import { exportPeers, loadAllPeers, peersFromEnvironment, PeerStore } from "../serve/store.ts";

const HELP = `Manages who may connect.

  deno task peer add NAME        make keys, store the peer, print its WireGuard config and QR code
  deno task peer list            a table of all peers (--json for programs)
  deno task peer show NAME       one peer
  deno task peer remove NAME     delete a peer and end its session
  deno task -q peer export       one line for the secret OXRELAY_PEERS

Each takes --config FILE (default oxrelay.toml) and --help.
`;

const ADD_HELP = `Adds a peer and prints the WireGuard config that its device loads unchanged.

  deno task peer add phone                          scan the QR code with the WireGuard app
  deno task -q peer add laptop --no-qr > laptop.conf     then: wg-quick up ./laptop.conf
  deno task peer add router --public-key KEY        the device keeps its own private key
  deno task peer add --oxtunnel desk                one line, to paste into "deno task connect" on the device

  --public-key KEY      the device's public key (44 characters of base64); without it a key pair is made
  --psk                 add a preshared key
  --endpoint HOST:PORT  how the device reaches this relay (default: public_endpoint of the config); with --oxtunnel
                        several, or a list with commas: relays with this key and these peers; the device uses the nearest
  --out FILE            write the config to FILE (mode 0600; it must not exist) instead of printing it
  --oxtunnel            print one line for "deno task connect", this program's client, in place of the WireGuard config; the
                        line includes the address over TLS when the relay's configuration has a [fallback]
  --qr, --no-qr         print a QR code: always, never (default: when standard output is a terminal)
  --config FILE         the relay's configuration (default oxrelay.toml)
`;

const LIST_HELP = `Prints all peers: name, addresses, public key, when added.

  deno task peer list
  deno task -q peer list --json
`;

const SHOW_HELP = `Prints one peer. Private and preshared keys are never shown.

  deno task peer show phone
`;

const REMOVE_HELP = `Deletes a peer. A running relay ends the peer's session at once.

  deno task peer remove phone
`;

const EXPORT_HELP =
  `Prints all peers as one line for the environment variable OXRELAY_PEERS. The line holds the preshared keys.

  printf 'OXRELAY_PEERS=%s\\n' "$(deno task -q peer export)" | fly secrets import
`;

const ACTIONS: Record<string, (args: string[], env: Environment) => Promise<number>> = {
  add,
  list,
  show,
  remove,
  export: exportAll,
};

/** Runs the subcommand; the result is the exit code. */
export async function peer(args: string[]): Promise<number> {
  const [action, ...rest] = args;
  if (action === undefined || action === "--help" || action === "-h") {
    (action === undefined ? console.error : console.log)(HELP);
    return action === undefined ? 2 : 0;
  }
  if (!Object.hasOwn(ACTIONS, action)) {
    const near = nearest(action, Object.keys(ACTIONS));
    throw new UsageError(
      `peer ${action}: there is no such action; ` +
        (near === undefined
          ? `choose from ${Object.keys(ACTIONS).join(", ")}`
          : `did you mean "peer ${near}"?`),
    );
  }
  return await ACTIONS[action](rest, readEnvironment());
}

async function add(args: string[], env: Environment): Promise<number> {
  const { words: [name], values, lists, flags } = readCommandLine(args, {
    values: ["public-key", "config", "out"],
    lists: ["endpoint"],
    flags: ["psk", "qr", "no-qr", "oxtunnel"],
    words: [1, 1],
  });
  if (flags.help) {
    console.log(ADD_HELP);
    return 0;
  }
  if (flags.qr && flags["no-qr"]) throw new UsageError("--qr and --no-qr exclude each other");
  const given = values["public-key"];
  if (given !== undefined && !isKeyText(given)) {
    throw new UsageError("--public-key: expected 44 characters of base64, as `wg pubkey` prints them");
  }
  if (flags.oxtunnel && given !== undefined) {
    throw new UsageError(
      "--oxtunnel's line holds the private key, which --public-key leaves with the device",
    );
  }
  const [endpointGiven, ...otherEndpoints] = readEndpoints(lists.endpoint);
  if (otherEndpoints.length > 0 && !flags.oxtunnel) {
    throw new UsageError("several --endpoint need --oxtunnel: a WireGuard config names one relay");
  }
  const { config } = await loadConfig(values.config, env);
  const endpoint = chooseEndpoint(endpointGiven, config, env, Deno.networkInterfaces);
  const identity = await loadIdentity(config, env);
  identity.privateKey.fill(0);
  const mistake = given && unusableKey(given, keyToText(identity.publicKey));
  if (mistake !== undefined) throw new UsageError(`--public-key: ${mistake}`);

  // Before anything is stored: a private key that cannot be written anywhere would be lost.
  const out = values.out === undefined ? undefined : await createSecretFile(values.out);
  const store = openStore(config, env, identity);
  // Without its private key a config is of no use to a phone.
  const wantsQr = given === undefined && (flags.qr || (Deno.stdout.isTerminal() && !flags["no-qr"]));
  let record: PeerRecord | undefined;
  let clientConfig: string;
  let invitation: string | undefined;
  try {
    const privateKey = given === undefined ? generatePrivateKey() : undefined;
    const presharedKey = flags.psk ? generatePresharedKey() : undefined;
    record = await store.add({
      name,
      publicKey: given ?? keyToText(publicKeyOf(privateKey!)),
      ...(presharedKey === undefined ? {} : { presharedKey: keyToText(presharedKey) }),
      created: new Date().toISOString(),
    });
    clientConfig = renderClientConfig({
      record,
      privateKey: privateKey && keyToText(privateKey),
      relayPublicKey: keyToText(identity.publicKey),
      endpoint: endpoint.text,
      config,
    });
    privateKey?.fill(0);
    presharedKey?.fill(0);
    if (flags.oxtunnel || wantsQr) {
      const fallback = config.fallback && await invitedFallback(config.fallback, endpoint.text);
      const whole = { ...parseInvitation(clientConfig, "the new config"), fallback };
      invitation = formatInvitation({
        ...whole,
        otherEndpoints: otherEndpoints.map((text) => parseEndpoint(text)!),
      });
    }
    // Before the relay is told: this is the only copy of the private key.
    await writeAll(out ?? Deno.stdout, flags.oxtunnel ? `${invitation}\n` : clientConfig);
  } catch (error) {
    if (values.out !== undefined) await Deno.remove(values.out);
    if (record === undefined) throw error;
    await store.remove(name);
    throw new CommandError(
      `the config could not be written, so peer "${name}" is not stored: ${(error as Error).message}`,
    );
  } finally {
    out?.close();
  }
  if (wantsQr && flags.oxtunnel) {
    console.log(`\n${renderQr(invitation!)}`);
    console.error(
      'Paste the line, or what a camera makes of the code, when "deno task connect" asks for it.',
    );
  } else if (wantsQr) {
    console.log(`\n${renderQr(clientConfig)}`);
    console.error(
      'In the WireGuard app: "+", "Create from QR code". For "deno task connect" paste this instead:',
    );
    console.log(`\n${invitation}\n`);
  }
  console.error(`Peer "${name}" is stored with ${record.allowedIps.join(" and ")}.`);
  if (values.out !== undefined) {
    console.error(`Its ${flags.oxtunnel ? "invitation" : "config"} is in ${values.out}.`);
  }
  if (endpoint.note !== undefined) console.error(endpoint.note);
  if (given !== undefined) {
    console.error("Replace the line about PrivateKey by the device's own private key.");
  }
  return await tellRelay(config);
}

async function list(args: string[], env: Environment): Promise<number> {
  const { values, flags } = readCommandLine(args, { values: ["config"], flags: ["json"], words: [0, 0] });
  if (flags.help) {
    console.log(LIST_HELP);
    return 0;
  }
  const { config } = await loadConfig(values.config, env);
  const peers = await loadAllPeers(config, env);
  if (flags.json) {
    console.log(JSON.stringify(peers.map(withoutSecrets), null, 2));
  } else if (peers.length === 0) {
    console.error("There are no peers yet; add one with: deno task peer add phone");
  } else {
    const rows = peers.map(({ name, allowedIps, publicKey, created }) => [
      name,
      allowedIps.join(", "),
      publicKey,
      created,
    ]);
    console.log(renderTable([["NAME", "ADDRESSES", "PUBLIC KEY", "ADDED"], ...rows]));
  }
  return 0;
}

async function show(args: string[], env: Environment): Promise<number> {
  const { words: [name], values, flags } = readCommandLine(args, {
    values: ["config"],
    flags: ["json"],
    words: [1, 1],
  });
  if (flags.help) {
    console.log(SHOW_HELP);
    return 0;
  }
  const { config } = await loadConfig(values.config, env);
  const record = (await loadAllPeers(config, env)).find((record) => record.name === name);
  if (record === undefined) throw new CommandError(`there is no peer "${name}"; see: peer list`);
  if (flags.json) {
    console.log(JSON.stringify(withoutSecrets(record), null, 2));
  } else {
    const preshared = record.presharedKey === undefined ? "no" : "yes";
    console.log(renderTable([
      ["name", record.name],
      ["public key", record.publicKey],
      ["preshared key", preshared],
      ["addresses", record.allowedIps.join(", ")],
      ["added", record.created],
    ]));
  }
  return 0;
}

async function remove(args: string[], env: Environment): Promise<number> {
  const { words: [name], values, flags } = readCommandLine(args, {
    values: ["config"],
    flags: [],
    words: [1, 1],
  });
  if (flags.help) {
    console.log(REMOVE_HELP);
    return 0;
  }
  const { config } = await loadConfig(values.config, env);
  // By the running relay, which cuts the device off even when the disk refuses.
  const told = await removeByRelay(config, name);
  if (told === "removed") {
    console.error(`Peer "${name}" is removed, and its session cut.`);
    return 0;
  }
  await openStore(config, env).remove(name);
  console.error(`Peer "${name}" is removed.`);
  return typeof told === "object" ? explainUntold(config, told) : 0;
}

/** "removed" by the running relay, "unknown" to it, or why it was not told. Throws what it refused with. */
async function removeByRelay(config: Config, name: string): Promise<"removed" | "unknown" | Error> {
  try {
    await askRelay(config, "DELETE", `/v1/peers/${encodeURIComponent(name)}`);
    return "removed";
  } catch (error) {
    if (error instanceof RefusedError) {
      if (error.status === 404 || error.status === 400) return "unknown";
      throw error;
    }
    return error as Error;
  }
}

async function exportAll(args: string[], env: Environment): Promise<number> {
  const { values, flags } = readCommandLine(args, { values: ["config"], flags: [], words: [0, 0] });
  if (flags.help) {
    console.log(EXPORT_HELP);
    return 0;
  }
  const { config } = await loadConfig(values.config, env);
  const peers = await loadAllPeers(config, env);
  console.log(exportPeers(peers));
  console.error(`${peers.length} peers; the line holds their preshared keys, so keep it secret.`);
  return 0;
}

function openStore(config: Config, env: Environment, identity?: Identity): PeerStore {
  return new PeerStore({
    stateDir: config.stateDir,
    tunnelIpv4: config.tunnelIpv4,
    tunnelIpv6: identity && resolveTunnelIpv6(config, identity.publicKey),
    relayKey: identity && keyToText(identity.publicKey),
    others: peersFromEnvironment(env),
  });
}

/** Throws UsageError. */
function readEndpoints(given: readonly string[]): string[] {
  const endpoints = given.flatMap((text) => text.split(","));
  if (endpoints.length > ENDPOINTS_MAX) throw new UsageError(`--endpoint: ${ENDPOINTS_MAX} are the limit`);
  for (const text of endpoints) {
    if (parseEndpoint(text) === undefined) {
      throw new UsageError('--endpoint: expected "host:port" such as "relay.example.com:4433"');
    }
  }
  return endpoints;
}

async function createSecretFile(path: string): Promise<Deno.FsFile> {
  try {
    return await Deno.open(path, { write: true, createNew: true, mode: 0o600 });
  } catch (error) {
    if (error instanceof Deno.errors.AlreadyExists) {
      throw new CommandError(`${path}: exists already and is left as it is; choose another --out`);
    }
    throw fileError(error, path, "made");
  }
}

/** Writes the whole text: one call may take a part of it. */
async function writeAll(sink: { write(bytes: Uint8Array): Promise<number> }, text: string): Promise<void> {
  const bytes = new TextEncoder().encode(text);
  for (let written = 0; written < bytes.length;) written += await sink.write(bytes.subarray(written));
  bytes.fill(0);
}

/** Makes a running relay read the peers again. No relay is no failure: it reads them when it starts. */
async function tellRelay(config: Config): Promise<number> {
  try {
    const reply = await askRelay(config, "POST", "/v1/reload") as { peers?: { total?: unknown } } | null;
    console.error(`The running relay knows: it serves ${Number(reply?.peers?.total)} peers now.`);
    return 0;
  } catch (error) {
    return explainUntold(config, error);
  }
}

/** Says why a relay does not know of a change that is stored; the result is the exit code. */
function explainUntold(config: Config, error: unknown): number {
  if (error instanceof NoRelayError) {
    console.error("The relay is not running; it will read this when it starts (deno task serve).");
    return 0;
  }
  if (error instanceof Deno.errors.NotCapable) {
    console.error(
      `A running relay was not told, because this task may not reach ${adminUrl(config)}; send it SIGHUP.`,
    );
    return 0;
  }
  if (error instanceof CommandError) {
    console.error(`Done, but the running relay was not told: ${error.message}; or send it SIGHUP.`);
    return 1;
  }
  throw error;
}

const UNUSABLE = rangesOf("loopback", "link_local");

/**
 * How clients reach the relay, "host:port", and what the person should know about the choice: the flag, else
 * public_endpoint, else Fly's name, else the address listened on, else this machine's best address (global before
 * private, IPv4 before IPv6). Throws UsageError when there is none.
 */
export function chooseEndpoint(
  given: string | undefined,
  config: Config,
  env: Environment,
  interfaces: () => { name: string; address: string }[],
): { text: string; note?: string } {
  if (given !== undefined) {
    if (parseEndpoint(given) === undefined) {
      throw new UsageError('--endpoint: expected "host:port" such as "relay.example.com:4433"');
    }
    return { text: given };
  }
  if (config.publicEndpoint !== undefined) return { text: config.publicEndpoint };
  const { host, port } = config.listen;
  if (env.FLY_APP_NAME) return { text: `${env.FLY_APP_NAME}.fly.dev:${port}` };
  const bound = parseAddress(host);
  const candidates = bound !== undefined && bound[3] !== 0 ? [{ host, address: bound }] : interfaces()
    // The relay's own device leads nowhere from outside.
    .filter(({ name }) => name !== config.tunName)
    .map(({ address }) => ({ host: address, address: parseAddress(address) }))
    .filter((one): one is { host: string; address: Address } => one.address !== undefined)
    .filter(({ address }) => !UNUSABLE.some((prefix) => prefixContains(prefix, address)));
  const rank = (address: Address) => (isGlobal(address) ? 0 : 2) + (isIpv4(address) ? 0 : 1);
  const [best] = candidates.toSorted((a, b) => rank(a.address) - rank(b.address));
  if (best === undefined) {
    throw new UsageError(
      "this machine has no address that a client could reach; name one with --endpoint HOST:PORT",
    );
  }
  const text = formatEndpoint({ host: best.host, port });
  const note = isGlobal(best.address)
    ? `Endpoint ${text} is this machine's own address; for another, use --endpoint or public_endpoint.`
    : `Endpoint ${text} is private: only devices in the same network reach it. For others use ` +
      `--endpoint PUBLIC_ADDRESS:${port}, or public_endpoint in oxrelay.toml, and forward UDP ${port} here.`;
  return { text, note };
}

/**
 * The client's configuration in the format of wg-quick(8) and the WireGuard apps. Without a private key (the
 * device has its own) a comment stands in its place.
 */
export function renderClientConfig({ record, privateKey, relayPublicKey, endpoint, config }: {
  record: PeerRecord;
  privateKey?: string;
  relayPublicKey: string;
  endpoint: string;
  config: Config;
}): string {
  const hasIpv6 = record.allowedIps.some((prefix) => prefix.includes(":"));
  const dns = config.dns.filter((address) => hasIpv6 || !address.includes(":"));
  return [
    "[Interface]",
    privateKey === undefined ? "# PrivateKey = (this device's own)" : `PrivateKey = ${privateKey}`,
    `Address = ${record.allowedIps.join(", ")}`,
    ...(dns.length === 0 ? [] : [`DNS = ${dns.join(", ")}`]),
    `MTU = ${config.mtu}`,
    "",
    "[Peer]",
    `PublicKey = ${relayPublicKey}`,
    ...(record.presharedKey === undefined ? [] : [`PresharedKey = ${record.presharedKey}`]),
    `Endpoint = ${endpoint}`,
    // A device whose MTU is below IPv6's 1280 cannot take an IPv6 route, and wg-quick would give up.
    `AllowedIPs = 0.0.0.0/0${hasIpv6 ? ", ::/0" : ""}`,
    "PersistentKeepalive = 25",
    "",
  ].join("\n");
}

function withoutSecrets({ name, publicKey, presharedKey, allowedIps, created }: PeerRecord) {
  return { name, publicKey, hasPresharedKey: presharedKey !== undefined, allowedIps, created };
}

/** Rows of cells as left-aligned columns with two spaces between. */
function renderTable(rows: string[][]): string {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  return rows.map((row) => row.map((cell, column) => cell.padEnd(widths[column])).join("  ").trimEnd()).join(
    "\n",
  );
}
