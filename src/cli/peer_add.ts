/**
 * `peer add`: keys for a new device, its peer, and the text that the device loads. Invariant: the private key is shown once and
 * stored nowhere, and a peer is kept only if its configuration was written; standard output carries that text alone. The running
 * relay adds the peer; without one this process stores it.
 */
import { type Config, type Environment, parseEndpoint } from "../config.ts";
import { ENDPOINTS_MAX, formatInvitation, parseInvitation } from "../connect/invitation.ts";
import { fileError } from "../process/file_errors.ts";
import { CommandError, loadConfig, readCommandLine, UsageError } from "../process/help.ts";
import {
  generatePresharedKey,
  generatePrivateKey,
  isKeyText,
  keyToText,
  publicKeyOf,
  unusableKey,
} from "../process/keys_text.ts";
import { closeStandardOutput } from "../process/secret_output.ts";
import { loadIdentity, networkOf } from "../serve/identity.ts";
import { openStore, type PeerStore } from "../serve/store.ts";
import type { PeerRecord } from "../session/peer_record.ts";
import { NoRelayError, RefusedError } from "./admin_client.ts";
import { chooseEndpoint, renderClientConfig } from "./client_config.ts";
import { invitedFallback } from "./fallback_invited.ts";
import { LIMIT_OPTIONS, LIMITS_HELP, readLimits, withoutNone } from "./peer_limits.ts";
import { fitQr } from "./qr.ts";
import { addByRelay, explainUntold, removeByRelay, tellRelay } from "./relay_peers.ts";

const ADD_HELP = `Adds a peer and prints the WireGuard config that its device loads unchanged.

  deno task peer add phone                          scan the QR code with the WireGuard app
  deno task peer add laptop --out laptop.conf       a file that only you may read; then: wg-quick up ./laptop.conf
  deno task peer add router --public-key KEY        the device keeps its own private key
  deno task peer add --oxtunnel desk                one line, to paste into "deno task connect" on the device

  --public-key KEY      the device's public key (44 characters of base64); without it a key pair is made
  --psk                 add a preshared key
  --rate-down RATE, --rate-up RATE   the most that the device is sent, and may send: 50M, 900k or bits a second; give a little less
                        than its line takes, and transfers delay its games and calls no more (default: no limit)
${LIMITS_HELP}
  --endpoint HOST:PORT  how the device reaches this relay (default: public_endpoint of the config); with --oxtunnel
                        several, or a list with commas: relays with this key and these peers; the device uses the nearest
  --out FILE            write the config to FILE (mode 0600; it must not exist) instead of printing it
  --no-dns              leave the resolvers out of the config: wg-quick without resolvconf (Debian) refuses such a line
  --oxtunnel            print one line for "deno task connect", this program's client, in place of the WireGuard config; the
                        line includes the address over TLS when the relay's configuration has a [fallback]
  --qr, --no-qr         print a QR code: always, never (default: when standard output is a terminal)
  --config FILE         the relay's configuration (default oxrelay.toml)
`;

interface Wishes {
  name: string;
  publicKey: string | undefined;
  /** "host:port" of each; the first is the configuration's. */
  endpoints: string[];
  out: string | undefined;
  config: string | undefined;
  hasPsk: boolean;
  limits: ReturnType<typeof withoutNone>;
  isOxtunnel: boolean;
  wantsQr: boolean;
  /** Whether the config names no resolvers. */
  isWithoutDns: boolean;
}

/** What the command line asks for; undefined for --help. Throws UsageError. */
function readWishes(args: string[]): Wishes | undefined {
  const { words: [name], values, lists, flags } = readCommandLine(args, {
    values: ["public-key", "config", "out", "rate-down", "rate-up", ...LIMIT_OPTIONS],
    lists: ["endpoint"],
    flags: ["psk", "qr", "no-qr", "no-dns", "oxtunnel"],
    words: [1, 1],
  });
  if (flags.help) return undefined;
  if (flags.qr && flags["no-qr"]) throw new UsageError("--qr and --no-qr exclude each other");
  const publicKey = values["public-key"];
  if (publicKey !== undefined && !isKeyText(publicKey)) {
    throw new UsageError("--public-key: expected 44 characters of base64, as `wg pubkey` prints them");
  }
  if (flags.oxtunnel && publicKey !== undefined) {
    throw new UsageError(
      "--oxtunnel's line holds the private key, which --public-key leaves with the device",
    );
  }
  const endpoints = readEndpoints(lists.endpoint);
  if (endpoints.length > 1 && !flags.oxtunnel) {
    throw new UsageError("several --endpoint need --oxtunnel: a WireGuard config names one relay");
  }
  return {
    name,
    publicKey,
    endpoints,
    out: values.out,
    config: values.config,
    hasPsk: flags.psk,
    limits: withoutNone(readLimits(values, { down: "rate-down", up: "rate-up" }, Date.now())),
    isOxtunnel: flags.oxtunnel,
    isWithoutDns: flags["no-dns"],
    // Without its private key a config is of no use to a phone.
    wantsQr: publicKey === undefined &&
      (flags.qr || (Deno.stdout.isTerminal() && values.out === undefined && !flags["no-qr"])),
  };
}

/** `peer add`; the result is the exit code. Throws UsageError, ConfigError or CommandError. */
export async function add(args: string[], env: Environment): Promise<number> {
  const wishes = readWishes(args);
  if (wishes === undefined) {
    console.log(ADD_HELP);
    return 0;
  }
  const { config } = await loadConfig(wishes.config, env);
  const endpoint = chooseEndpoint(wishes.endpoints.at(0), config, env, Deno.networkInterfaces);
  const identity = await loadIdentity(config, env);
  identity.privateKey.fill(0);
  const relayPublicKey = keyToText(identity.publicKey);
  const mistake = wishes.publicKey && unusableKey(wishes.publicKey, relayPublicKey);
  if (mistake !== undefined) throw new UsageError(`--public-key: ${mistake}`);

  // Before anything is stored: a private key that cannot be written anywhere would be lost.
  const out = wishes.out === undefined ? undefined : await createSecretFile(wishes.out);
  const store = openStore(config, env, identity);
  let added: Added | undefined;
  let texts: Texts;
  try {
    const privateKey = wishes.publicKey === undefined ? generatePrivateKey() : undefined;
    const presharedKey = wishes.hasPsk ? generatePresharedKey() : undefined;
    added = await addPeer(config, store, networkOf(config, identity.publicKey), {
      name: wishes.name,
      publicKey: wishes.publicKey ?? keyToText(publicKeyOf(privateKey!)),
      ...(presharedKey === undefined ? {} : { presharedKey: keyToText(presharedKey) }),
      ...wishes.limits,
    }, privateKey !== undefined);
    const { record } = added;
    const clientConfig = renderClientConfig({
      record,
      privateKey: privateKey && keyToText(privateKey),
      relayPublicKey,
      endpoint: endpoint.text,
      config: wishes.isWithoutDns ? { ...config, dns: [] } : config,
    });
    privateKey?.fill(0);
    presharedKey?.fill(0);
    texts = { clientConfig, invitation: await inviting(wishes, config, endpoint.text, clientConfig) };
    const closed = out === undefined && privateKey !== undefined ? closeStandardOutput() : undefined;
    if (closed !== undefined) console.error(closed);
    // This is the only copy of the private key.
    await writeAll(out ?? Deno.stdout, wishes.isOxtunnel ? `${texts.invitation}\n` : clientConfig);
  } catch (error) {
    if (wishes.out !== undefined) await Deno.remove(wishes.out);
    if (added === undefined) throw error;
    await takeBack(config, store, wishes.name, added);
    throw new CommandError(
      `the config could not be written, so peer "${wishes.name}" is not stored: ${(error as Error).message}`,
    );
  } finally {
    out?.close();
  }
  explain(wishes, texts, added.record, endpoint.note);
  return await sayWhoKnows(config, added.untold);
}

/** Where a new peer is: with the running relay, or in the store with the reason why the relay does not know of it. */
interface Added {
  record: PeerRecord;
  untold: Error | undefined;
}

/** Adds a peer by the running relay, or else in the store. Throws CommandError when either refuses. */
async function addPeer(
  config: Config,
  store: PeerStore,
  network: string,
  peer: Omit<PeerRecord, "allowedIps" | "created">,
  isKeyFresh: boolean,
): Promise<Added> {
  const isIt = ({ name, publicKey }: PeerRecord) => name === peer.name && publicKey === peer.publicKey;
  const isOld = !isKeyFresh && (await store.load()).some(isIt);
  const told = await addByRelay(config, { ...peer, network });
  if (!(told instanceof Error)) {
    const { presharedKey } = peer;
    return { record: presharedKey === undefined ? told : { ...told, presharedKey }, untold: undefined };
  }
  try {
    const record = await store.add({ ...peer, created: new Date().toISOString() });
    return { record, untold: told };
  } catch (error) {
    // A relay whose answer was lost may have stored the peer; one that was there before is not this call's.
    const stored = isOld ? undefined : (await store.load()).find(isIt);
    if (stored === undefined) throw error;
    return { record: stored, untold: told };
  }
}

/** Removes a peer whose configuration could not be written, where it was added. */
async function takeBack(config: Config, store: PeerStore, name: string, { untold }: Added): Promise<void> {
  if (untold === undefined && await removeByRelay(config, name) === "removed") return;
  await store.remove(name);
}

interface Texts {
  clientConfig: string;
  /** One line for `connect`; undefined where nothing shows it. */
  invitation: string | undefined;
}

/** The invitation that holds the same as the configuration, where the line or the QR code needs it. */
async function inviting(
  { isOxtunnel, wantsQr, endpoints }: Wishes,
  config: Config,
  endpoint: string,
  clientConfig: string,
): Promise<string | undefined> {
  if (!isOxtunnel && !wantsQr) return undefined;
  const fallback = config.fallback && await invitedFallback(config.fallback, endpoint);
  return formatInvitation({
    ...parseInvitation(clientConfig, "the new config"),
    fallback,
    otherEndpoints: endpoints.slice(1).map((text) => parseEndpoint(text)!),
  });
}

/** Prints the QR codes, and on standard error what was done and what to do next. */
function explain(wishes: Wishes, texts: Texts, record: PeerRecord, note: string | undefined): void {
  const { name, out, isOxtunnel } = wishes;
  if (wishes.wantsQr && isOxtunnel) {
    const isShown = showQr(texts.invitation!);
    console.error(
      `Paste the line${
        isShown ? ", or what a camera makes of the code," : ""
      } when "deno task connect" asks for it.`,
    );
  } else if (wishes.wantsQr) {
    if (showQr(texts.clientConfig)) console.error('In the WireGuard app: "+", "Create from QR code".');
    console.error('For "deno task connect" paste this instead:');
    console.log(`\n${texts.invitation}\n`);
  }
  console.error(`Peer "${name}" is stored with ${record.allowedIps.join(" and ")}.`);
  if (out !== undefined) console.error(`Its ${isOxtunnel ? "invitation" : "config"} is in ${out}.`);
  if (note !== undefined) console.error(note);
  if (wishes.publicKey !== undefined) {
    console.error("Replace the line about PrivateKey by the device's own private key.");
  }
}

/** Prints the QR code where it fits the terminal, and what to know about it; false where it does not fit. */
function showQr(text: string): boolean {
  const size = Deno.stdout.isTerminal() ? Deno.consoleSize() : { columns: 0, rows: 0 };
  const { code, note } = fitQr(text, size);
  if (code !== undefined) console.log(`\n${code}`);
  if (note !== undefined) console.error(note);
  return code !== undefined;
}

/** Says whether a running relay serves the peer; the result is the exit code. */
async function sayWhoKnows(config: Config, untold: Error | undefined): Promise<number> {
  if (untold === undefined) {
    console.error("The running relay serves it.");
    return 0;
  }
  // It may have started meanwhile, or be of a version that cannot add this peer by itself.
  if (untold instanceof NoRelayError || untold instanceof RefusedError) return await tellRelay(config);
  return explainUntold(config, untold);
}

/** The endpoints of a list, each "host:port". Throws UsageError. */
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
