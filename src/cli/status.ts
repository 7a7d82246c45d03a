/**
 * `status`: a running relay at a glance, redrawn each second. Invariant: everything shown comes from the
 * relay's own counters, and rates are differences of two of its answers. Changes nothing.
 */
import { CLASS_LABELS } from "../metrics.ts";
import type { Config } from "../config.ts";
import type { DelayFigures } from "../control/delay_figures.ts";
import type { BarReason, LatencyFigures, LineSnapshot, PeerSnapshot } from "../session/peer_record.ts";
import { askRelay } from "./admin_client.ts";
import { CommandError, loadConfig, readCommandLine, readEnvironment } from "../process/help.ts";

const HELP =
  `Shows a running relay: peers, traffic, round trips, loss, repair, drops. Goes on when the relay restarts; ends with Ctrl-C.

  deno task status              redrawn each second
  deno task status --once       one table
  deno task -q status --json    the relay's answer as JSON, for programs
  --config FILE                 the relay's configuration (default oxrelay.toml)
`;

/** The answer of GET /v1/status. */
export interface Status {
  name: string;
  version: string;
  uptimeS: number;
  exit: string;
  listen: string;
  counters: Record<string, number>;
  drops: Record<string, number>;
  /** Without those that are kept out. */
  peers: PeerSnapshot[];
  keptOut?: { name: string; reason: BarReason }[];
  /** Flows of the last ten seconds that are recognised, by what they are. */
  applications: Record<string, number>;
  /** How long packets took in the relay in the last half minute. */
  latency?: LatencyFigures;
}

/** What a packet may take in this program at the 99th percentile, milliseconds. */
const QUEUE_TARGET_MS = 0.5, PROCESSING_TARGET_MS = 0.1;

const INTERVAL_MS = 1000;
const APPLICATIONS_SHOWN = 8;
const KEPT_OUT_SHOWN = 8;
/** Seconds of history in the sparkline. */
const HISTORY_LENGTH = 60;

/** Runs the subcommand; the result is the exit code. */
export async function status(args: string[]): Promise<number> {
  const { values, flags } = readCommandLine(args, {
    values: ["config"],
    flags: ["once", "json"],
    words: [0, 0],
  });
  if (flags.help) {
    console.log(HELP);
    return 0;
  }
  const { config } = await loadConfig(values.config, readEnvironment());
  const first = await readStatus(config);
  if (flags.json) console.log(JSON.stringify(first, null, 2));
  else if (flags.once || !Deno.stdout.isTerminal()) console.log(renderStatus(first, undefined, 0, []));
  else await watch(config, first);
  return 0;
}

async function readStatus(config: Config): Promise<Status> {
  return await askRelay(config, "GET", "/v1/status") as Status;
}

async function watch(config: Config, first: Status): Promise<void> {
  const history: number[] = [];
  let previous = first;
  let previousMs = performance.now();
  let wake = () => {};
  let ended = false;
  const end = () => {
    ended = true;
    wake();
  };
  Deno.addSignalListener("SIGINT", end);
  Deno.addSignalListener("SIGTERM", end);
  // The alternate screen keeps what was on the terminal; the cursor would flicker.
  write("\x1b[?1049h\x1b[?25l");
  try {
    draw(renderStatus(first, undefined, 0, history));
    while (true) {
      const { promise, resolve } = Promise.withResolvers<void>();
      wake = resolve;
      const timer = setTimeout(resolve, INTERVAL_MS);
      await promise;
      clearTimeout(timer);
      if (ended) return;
      let current: Status;
      try {
        current = await readStatus(config);
      } catch (error) {
        if (!(error instanceof CommandError)) throw error;
        // It may be restarting: what was last seen stays, under the reason.
        draw(`${error.message}; asked again each second\n${renderStatus(previous, undefined, 0, history)}`);
        continue;
      }
      const nowMs = performance.now();
      // A relay that was restarted counts from zero.
      const isSame = current.uptimeS >= previous.uptimeS;
      const elapsedS = (nowMs - previousMs) / 1000;
      history.push(totalRate(current, previous, elapsedS));
      if (history.length > HISTORY_LENGTH) history.shift();
      draw(renderStatus(current, isSame ? previous : undefined, elapsedS, history));
      previous = current;
      previousMs = nowMs;
    }
  } finally {
    write("\x1b[?25h\x1b[?1049l");
    Deno.removeSignalListener("SIGINT", end);
    Deno.removeSignalListener("SIGTERM", end);
  }
}

function write(text: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(text));
}

/** Cuts at the terminal's edges, so that a line never wraps and the table never scrolls. */
function draw(text: string): void {
  const size = Deno.consoleSize();
  const columns = size.columns || 80, rows = size.rows || 24; // a terminal may not know
  const lines = text.split("\n").slice(0, rows - 1).map((line) => [...line].slice(0, columns).join(""));
  write(`\x1b[H${lines.map((line) => `${line}\x1b[K\n`).join("")}\x1b[J`);
}

/**
 * The whole picture as lines of text. `previous` is the answer `elapsedS` seconds before, for the rates;
 * `history` holds the total rates of the last minute in bytes a second.
 */
export function renderStatus(
  current: Status,
  previous: Status | undefined,
  elapsedS: number,
  history: readonly number[],
): string {
  const { name, version, uptimeS, exit, listen, counters, keptOut = [] } = current;
  const before = new Map(previous?.peers.map((peer) => [peer.publicKey, peer]));
  const rows = current.peers.map((peer) => {
    const then = before.get(peer.publicKey);
    return [
      `${peer.connected ? "●" : "○"} ${peer.name}`,
      peer.endpoint ?? "-",
      describeSpeech(peer),
      peer.lastHandshakeAgeS === undefined ? "never" : `${formatDuration(peer.lastHandshakeAgeS)} ago`,
      formatBytes(peer.bytesReceived),
      formatBytes(peer.bytesSent),
      then === undefined ? "-" : formatRate((peer.bytesReceived - then.bytesReceived) / elapsedS),
      then === undefined ? "-" : formatRate((peer.bytesSent - then.bytesSent) / elapsedS),
      peer.rttMs === undefined ? "-" : `${peer.rttMs.toFixed(1)} ms`,
      formatShare(peer.lossRatio),
      String(peer.drops),
    ];
  });
  const header = [
    "  PEER",
    "ENDPOINT",
    "SPEAKS",
    "HANDSHAKE",
    "RECEIVED",
    "SENT",
    "RATE IN",
    "RATE OUT",
    "RTT",
    "LOSS",
    "DROPS",
  ];
  const drops = Object.entries(current.drops).filter(([, count]) => count > 0).toSorted((a, b) =>
    b[1] - a[1]
  );
  const lines = [
    `${name} ${version}  up ${formatDuration(uptimeS)}  listens on ${listen}  exit ${exit}`,
    `${current.peers.length} peers, ${counters.sessions ?? 0} sessions, ` +
    `${formatBytes(counters.bytes_received ?? 0)} received, ${formatBytes(counters.bytes_sent ?? 0)} sent`,
    ...(history.length === 0 ? [] : [`${sparkline(history)} ${formatRate(history[history.length - 1])}`]),
    ...(drops.length === 0
      ? []
      : [`drops: ${drops.map(([label, count]) => `${label} ${count}`).join(", ")}`]),
    ...renderApplications("flows: ", current.applications),
    ...renderLatency("latency: ", current.latency),
    "",
    rows.length === 0
      ? keptOut.length === 0 ? "No peers yet; add one with: deno task peer add phone" : "No peer may connect."
      : alignColumns([header, ...rows], 4),
    ...renderKeptOut(keptOut),
    ...renderHeaders(current.peers),
    ...renderLines(current.peers),
    ...renderPaths(current.peers),
    ...renderRepair(current.peers),
  ];
  // Names and addresses come over HTTP: whatever answers there must not steer the terminal.
  // deno-lint-ignore no-control-regex
  return lines.join("\n").replace(/[\x00-\x09\x0b-\x1f\x7f-\x9f]/g, "?");
}

const BAR_WORDS: Record<BarReason, string> = {
  disabled: "disabled",
  expired: "its date has come",
  volume: "the volume of this month is used up",
};

/** Who may not connect, and why, in a line; a device that speaks WireGuard has no other way to know. */
function renderKeptOut(keptOut: readonly { name: string; reason: BarReason }[]): string[] {
  if (keptOut.length === 0) return [];
  const shown = keptOut.slice(0, KEPT_OUT_SHOWN).map(({ name, reason }) =>
    `${name} (${BAR_WORDS[reason] ?? reason})`
  );
  const more = keptOut.length - shown.length;
  return ["", `kept out: ${shown.join(", ")}${more === 0 ? "" : ` and ${more} more (peer list)`}`];
}

/** How many flows are what, in a line behind `name`; nothing when there are none. */
export function renderApplications(name: string, flows: Record<string, number> = {}): string[] {
  const counted = Object.entries(flows).slice(0, APPLICATIONS_SHOWN).map(([one, count]) => `${one} ${count}`);
  return counted.length === 0 ? [] : [`${name}${counted.join(", ")}`];
}

/** "wireguard", "oxtunnel AES-256-GCM", or loudly that everybody on the way can read it. */
function describeSpeech({ protocol, aead }: PeerSnapshot): string {
  if (protocol === undefined) return "-";
  if (protocol === "wireguard") return protocol;
  return aead === "AES-256-GMAC" ? "oxtunnel TRUSTED, NOT ENCRYPTED" : `${protocol} ${aead}`;
}

/** A table of the paths of peers that have several; nothing when there are none. */
function renderPaths(peers: readonly PeerSnapshot[]): string[] {
  const rows = peers.flatMap(({ name, paths = [] }) =>
    paths.map((path) => [
      `  ${path.number} to ${name}`,
      path.endpoint ?? "not answered",
      path.isSilent ? "silent" : path.uses.length > 0 ? path.uses.join("+") : "waits",
      path.rttMs === undefined ? "-" : `${path.rttMs.toFixed(1)} ms`,
      formatShare(path.lossRatio),
      path.queueMs === undefined ? "-" : `${path.queueMs.toFixed(1)} ms`,
      formatShare(path.share),
      String(path.copiesSent),
      String(path.copiesUseful),
      String(path.failovers),
      path.isMetered ? "metered" : "",
    ])
  );
  if (rows.length === 0) return [];
  const header = [
    "  PATH",
    "ENDPOINT",
    "CARRIES",
    "RTT",
    "LOSS",
    "QUEUE",
    "SHARE",
    "COPIES",
    "COPIED",
    "FAILOVERS",
    "",
  ];
  return ["", alignColumns([header, ...rows], 3)];
}

/** What headers of packets to each peer became; nothing where none went without. */
function renderHeaders(peers: readonly PeerSnapshot[]): string[] {
  const figures = peers.flatMap(({ name, headers }) =>
    headers === undefined
      ? []
      : `  headers ${headers.before.toFixed(0)} → ${headers.after.toFixed(1)} B to ${name}` +
        (headers.method === "rohc" ? ", by ROHC" : "")
  );
  return figures.length === 0 ? [] : ["", ...figures];
}

/** A table of the peers whose losses are repaired, each way; nothing when there are none. */
function renderRepair(peers: readonly PeerSnapshot[]): string[] {
  const rows = peers.flatMap(({ name, receiving, sending }) =>
    [["from", receiving] as const, ["to", sending] as const].flatMap(([way, figures]) =>
      figures === undefined ? [] : [[
        `  ${way} ${name}`,
        figures.isSilent ? "no reports" : figures.scheme,
        formatShare(figures.lossRatio),
        formatShare(figures.residualRatio),
        ...[figures.repaired, figures.unrecovered, figures.repairs, figures.wasted].map(String),
        ...[figures.requests, figures.answered, figures.late, figures.useless].map(String),
        formatShare(figures.extraRatio),
      ]]
    )
  );
  if (rows.length === 0) return [];
  const header = [
    "  REPAIR",
    "SCHEME",
    "LOSS",
    "RESIDUAL",
    "REPAIRED",
    "UNRECOVERED",
    "REPAIRS",
    "WASTED",
    "ASKED",
    "ANSWERED",
    "LATE",
    "USELESS",
    "EXTRA",
  ];
  return ["", alignColumns([header, ...rows], 2)];
}

/** What packets take in this program, median and 99th percentile, and whether that is within its target; nothing before any. */
export function renderLatency(
  name: string,
  { queue, queueByClass = {}, processing }: LatencyFigures = {},
): string[] {
  if (queue === undefined && processing === undefined) return [];
  const part = (what: string, figures: DelayFigures | undefined, targetMs: number) =>
    figures === undefined
      ? `${what} -`
      : `${what} ${formatDelays(figures)} (${figures.p99Ms < targetMs ? "under" : "over"} ${targetMs})`;
  const classes = CLASS_LABELS.filter((label) => queueByClass[label] !== undefined)
    .map((label) => `${label} ${formatDelays(queueByClass[label])}`);
  return [
    `${name}${part("queue", queue, QUEUE_TARGET_MS)}, ${
      part("processing", processing, PROCESSING_TARGET_MS)
    }`,
    ...(classes.length > 1 ? [`${" ".repeat(name.length)}queue by class: ${classes.join(", ")}`] : []),
  ];
}

/** "0.12/3.4 ms": median and the 99th percentile; "-" where there are none. */
export function formatDelays(figures: DelayFigures | undefined): string {
  const digits = (ms: number) => ms < 1 ? ms.toFixed(2) : ms.toFixed(1);
  return figures === undefined ? "-" : `${digits(figures.p50Ms)}/${digits(figures.p99Ms)} ms`;
}

/**
 * A line's cells: whether it is held to a rate and whose, BBR's state and estimate, the network's share of a packet's delay (least
 * round trip, queue on the path, time on the wire), waits by class, marks and drops.
 */
function lineCells(
  { shapedBps, rateBy, path, waits, marked, drops, serializationMs }: LineSnapshot,
): string[] {
  const ms = (value: number | undefined) => value === undefined ? "-" : `${value.toFixed(1)} ms`;
  return [
    shapedBps === undefined ? "-" : `${formatRate(shapedBps / 8)} (${rateBy})`,
    path === undefined ? "-" : path.state,
    path?.bps === undefined ? "-" : formatRate(path.bps / 8),
    ms(path?.leastRttMs),
    ms(path?.queueMs),
    ms(serializationMs),
    formatDelays(waits.game),
    formatDelays(waits.voice),
    formatDelays(waits.interactive ?? waits.default),
    formatDelays(waits.bulk),
    String(marked),
    String(Object.values(drops).reduce((sum, count) => sum + count, 0)),
  ];
}

const LINE_HEADER = [
  "SHAPED TO",
  "STATE",
  "FOUND",
  "NETWORK",
  "ITS QUEUE",
  "ON THE WIRE",
  "GAME p50/p99",
  "VOICE",
  "INTERACTIVE",
  "BULK",
  "MARKED",
  "DROPPED",
];

/** A table of the lines to peers; nothing where there are none. */
function renderLines(peers: readonly PeerSnapshot[]): string[] {
  const rows = peers.flatMap(({ name, line }) =>
    line === undefined ? [] : [[`  ${name}`, ...lineCells(line)]]
  );
  return rows.length === 0 ? [] : ["", alignColumns([["  LINE TO", ...LINE_HEADER], ...rows], 3)];
}

/** The first `words` columns are words, the others numbers, which align right. */
function alignColumns(rows: string[][], words: number): string {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  const align = (cell: string, column: number) =>
    column < words ? cell.padEnd(widths[column]) : cell.padStart(widths[column]);
  return rows.map((row) => row.map(align).join("  ").trimEnd()).join("\n");
}

function totalRate(current: Status, previous: Status, elapsedS: number): number {
  const total = ({ counters }: Status) => (counters.bytes_received ?? 0) + (counters.bytes_sent ?? 0);
  // A relay that was restarted counts from zero again.
  return Math.max(0, (total(current) - total(previous)) / elapsedS);
}

const BARS = "▁▂▃▄▅▆▇█";

/** One character a value, scaled to the largest; a zero is the lowest bar. */
export function sparkline(values: readonly number[]): string {
  const max = Math.max(...values, 1);
  return values.map((value) => BARS[Math.min(BARS.length - 1, Math.floor(value / max * BARS.length))]).join(
    "",
  );
}

/** Bytes in binary units: "0 B", "1023 B", "1.0 KiB". */
export function formatBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

/** A rate of bytes a second in the network's unit: "8.0 kbit/s". Below zero (a restart) counts as zero. */
export function formatRate(bytesPerS: number): string {
  const units = ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"];
  let value = Math.max(0, bytesPerS) * 8;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${unit === 0 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

/** A share 0..1 in percent: "1.23 %"; "-" where there is none. */
export function formatShare(share: number | undefined): string {
  return share === undefined ? "-" : `${(100 * share).toFixed(2)} %`;
}

/** Seconds for people, two units at most: "59s", "2m 5s", "3h 10m", "2d 4h". */
export function formatDuration(seconds: number): string {
  const s = Math.floor(seconds);
  if (s < 60) return `${s}s`;
  if (s < 3600) return `${Math.floor(s / 60)}m ${s % 60}s`;
  if (s < 86400) return `${Math.floor(s / 3600)}h ${Math.floor(s % 3600 / 60)}m`;
  return `${Math.floor(s / 86400)}d ${Math.floor(s % 86400 / 3600)}h`;
}
