/**
 * `peer list|show|rate|remove|export`, and the choice among them, `peer add` (peer_add.ts), `peer forward` (peer_forward.ts) and
 * `peer import` (state/peer_import.ts): who may connect. Invariant: standard
 * output carries only what a program can read (a table, JSON), and explanations go to standard error. Makes no key.
 */
import { type Environment, nearest } from "../config.ts";
import { readRate } from "../connect/options.ts";
import { CommandError, loadConfig, readCommandLine, readEnvironment, UsageError } from "../process/help.ts";
import { closeStandardOutput } from "../process/secret_output.ts";
import { changed } from "../serve/access/peer_change.ts";
import { exportPeers, loadAllPeers, openStore } from "../serve/store.ts";
import type { PeerRecord } from "../session/peer_record.ts";
import { add } from "./peer_add.ts";
import { forward } from "./peer_forward.ts";
import { importPeers } from "./state/peer_import.ts";
import { explainUntold, removeByRelay, tellRelay } from "./relay_peers.ts";
import { formatRate } from "./status.ts";

const HELP = `Manages who may connect.

  deno task peer add NAME        make keys, store the peer, print its WireGuard config and QR code
  deno task peer list            a table of all peers (--json for programs)
  deno task peer show NAME       one peer
  deno task peer forward NAME udp:27015   lead a port of the relay to the peer
  deno task peer rate NAME       set the most that a peer is sent, and may send
  deno task peer remove NAME     delete a peer and end its session
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

const RATE_HELP = `Sets the most that a peer is sent, and may send; its sessions continue.

  deno task peer rate phone --down 45M --up 9M
  deno task peer rate phone --up none

  --down RATE, --up RATE   50M, 900k or bits a second, 64k to 100G; "none" for no limit; what is not named stays
  --config FILE            the relay's configuration (default oxrelay.toml)
`;

const EXPORT_HELP =
  `Prints all peers as one line for the environment variable OXRELAY_PEERS. The line holds the preshared keys.

  printf 'OXRELAY_PEERS=%s\\n' "$(deno task -q peer export)" | fly secrets import
`;

const ACTIONS: Record<string, (args: string[], env: Environment) => Promise<number>> = {
  add,
  list,
  show,
  forward,
  rate,
  remove,
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
      ["kept out", record.disabled ? "disabled" : expiryOf(record)],
      ["volume a month", record.monthlyBytes === undefined ? "no limit" : `${record.monthlyBytes} bytes`],
      ["notes", record.notes ?? "none"],
      ["forwarded ports", record.forwards?.join(", ") ?? "none"],
      ["rates", describeRates(record)],
      ["added", record.created],
    ]));
  }
  return 0;
}

async function rate(args: string[], env: Environment): Promise<number> {
  const { words: [name], values, flags } = readCommandLine(args, {
    values: ["config", "down", "up"],
    flags: [],
    words: [1, 1],
  });
  if (flags.help) {
    console.log(RATE_HELP);
    return 0;
  }
  if (values.down === undefined && values.up === undefined) {
    throw new UsageError("peer rate: give --down, --up, or both");
  }
  const read = (flag: "down" | "up") => {
    if (values[flag] === "none") return null;
    const bytesPerS = readRate(flag, values[flag]);
    return bytesPerS === undefined ? undefined : Math.round(8 * bytesPerS);
  };
  const rates = { rateDownBps: read("down"), rateUpBps: read("up") };
  const { config } = await loadConfig(values.config, env);
  const record = await openStore(config, env).edit(name, (record) => changed(record, rates));
  console.error(`Peer "${name}": ${describeRates(record)}.`);
  return await tellRelay(config);
}

function expiryOf({ expires }: PeerRecord): string {
  if (expires === undefined) return "never";
  return Date.parse(expires) <= Date.now() ? `expired at ${expires}` : `from ${expires} on`;
}

function describeRates({ rateDownBps, rateUpBps }: PeerRecord): string {
  const words = (bps: number | undefined) => bps === undefined ? "no limit" : formatRate(bps / 8);
  return `${words(rateDownBps)} down, ${words(rateUpBps)} up`;
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

/** Rows of cells as left-aligned columns with two spaces between. */
function renderTable(rows: string[][]): string {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  return rows.map((row) => row.map((cell, column) => cell.padEnd(widths[column])).join("  ").trimEnd()).join(
    "\n",
  );
}
