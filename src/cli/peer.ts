/**
 * `peer list|show|remove|export`, and the choice among them, `peer add` (peer_add.ts), changes (peer_set.ts), one-time links
 * (peer_link.ts), `peer forward` (peer_forward.ts) and `peer import` (state/peer_import.ts): who may connect. Invariant: standard
 * output carries only what a program can read (a table, JSON), and explanations go to standard error. Makes no key.
 */
import { type Config, type Environment, nearest } from "../config.ts";
import { CommandError, loadConfig, readCommandLine, readEnvironment, UsageError } from "../process/help.ts";
import { closeStandardOutput } from "../process/secret_output.ts";
import { exportPeers, loadAllPeers, openStore } from "../serve/store.ts";
import type { PeerRecord } from "../session/peer_record.ts";
import { add } from "./peer_add.ts";
import { forward } from "./peer_forward.ts";
import { barOfRecord, describeLimits } from "./peer_limits.ts";
import { link, links, unlink } from "./peer_link.ts";
import { disable, enable, rename, set } from "./peer_set.ts";
import { importPeers } from "./state/peer_import.ts";
import { askKeptOut, askLive, explainUntold, removeByRelay } from "./relay_peers.ts";
import { formatBytes } from "./status.ts";
import { renderTable } from "./table.ts";

const HELP = `Manages who may connect.

  deno task peer add NAME        make keys, store the peer, print its WireGuard config and QR code
  deno task peer list            a table of all peers (--json for programs)
  deno task peer show NAME       one peer
  deno task peer forward NAME udp:27015  lead a port of the relay to the peer
  deno task peer set NAME        change a peer's rates, expiry date, monthly volume, notes
  deno task peer rename NAME NEW  give a peer another name
  deno task peer disable NAME    keep a peer out
  deno task peer enable NAME     let in again a peer that was disabled
  deno task peer remove NAME     delete a peer and end its session
  deno task peer link NAME       a one-time link, with which a friend adds one device
  deno task peer links           the one-time links (--json for programs)
  deno task peer unlink NUMBER   make a link useless
  deno task peer import FILE     take over another WireGuard server with its peers
  deno task -q peer export       one line for the secret OXRELAY_PEERS

Each takes --config FILE (default oxrelay.toml) and --help.
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

/** The states of a peer, as /v1/peers has them. */
const STATE_WORDS: Record<string, string> = {
  connected: "connected",
  offline: "not connected",
  disabled: "kept out: disabled",
  expired: "kept out: its date has come",
  volume: "kept out: the volume of this month is used up",
};

const ACTIONS: Record<string, (args: string[], env: Environment) => Promise<number>> = {
  add,
  list,
  show,
  forward,
  set,
  // What `set` was called while it knew rates alone.
  rate: set,
  rename,
  disable,
  enable,
  remove,
  link,
  links,
  unlink,
  export: exportAll,
  import: importPeers,
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
    // What was used of a volume is the relay's to know.
    const hasVolumes = peers.some(({ monthlyBytes }) => monthlyBytes !== undefined);
    const keptOut = hasVolumes ? await askKeptOut(config) : undefined;
    const rows = peers.map((peer) => [
      peer.name,
      barOfRecord(peer, Date.now()) ?? keptOut?.get(peer.name) ?? "-",
      peer.allowedIps.join(", "),
      peer.publicKey,
      peer.created,
    ]);
    console.log(renderTable([["NAME", "KEPT OUT", "ADDRESSES", "PUBLIC KEY", "ADDED"], ...rows]));
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
      ...describeLimits(record, Date.now()),
      ["forwarded ports", record.forwards?.join(", ") ?? "none"],
      ["added", record.created],
      ...await describeLive(config, name),
    ]));
  }
  return 0;
}

/** What the running relay alone knows; nothing where none can be asked. */
async function describeLive(config: Config, name: string): Promise<[string, string][]> {
  const live = await askLive(config, name);
  if (live === undefined) return [];
  const { received, sent, monthReceived, monthSent } = live.usage;
  return [
    ["state", STATE_WORDS[live.state] ?? live.state],
    ["this month", formatBytes(monthReceived + monthSent)],
    ["in all", `${formatBytes(sent)} down, ${formatBytes(received)} up`],
  ];
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

async function exportAll(args: string[], env: Environment): Promise<number> {
  const { values, flags } = readCommandLine(args, { values: ["config"], flags: [], words: [0, 0] });
  if (flags.help) {
    console.log(EXPORT_HELP);
    return 0;
  }
  const { config } = await loadConfig(values.config, env);
  const peers = await loadAllPeers(config, env);
  const closed = closeStandardOutput();
  if (closed !== undefined) console.error(closed);
  console.log(exportPeers(peers));
  console.error(`${peers.length} peers; the line holds their preshared keys, so keep it secret.`);
  return 0;
}

function withoutSecrets({ presharedKey, ...record }: PeerRecord) {
  return { ...record, hasPresharedKey: presharedKey !== undefined };
}
