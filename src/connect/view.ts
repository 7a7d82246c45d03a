/**
 * What `connect` shows: a few live lines on a terminal, else a line when something changes. Invariant: the same picture
 * from the same numbers, never wider than the terminal, and messages stand above it. Measures nothing.
 */
import type { AeadName } from "../wire/parameters.ts";
import type { LatencyFigures, LineSnapshot, PathSnapshot } from "../session/peer_record.ts";
import type { RepairFigures } from "../repair/figures.ts";
import { type ClassMix, renderMix } from "./class_mix.ts";
import type { MeanHeaders } from "./link/counts.ts";
import type { ServerStatus } from "./servers.ts";
import {
  formatBytes,
  formatDelays,
  formatDuration,
  formatRate,
  formatShare,
  renderApplications,
  renderLatency,
  sparkline,
} from "../cli/status.ts";

/** One of several paths, and the interface that it leads through where that is known. */
export type LinkPath = PathSnapshot & { device?: string };

/** The tunnel at one moment. */
export interface LinkStatus {
  /** "relay.example.com:4433". */
  server: string;
  /** The relay's address as it was resolved. */
  address: string;
  state: "connecting" | "connected" | "silent";
  /** What carries the tunnel. */
  path?: "udp" | "tls";
  /** Seconds since the last completed handshake; undefined before the first. */
  handshakeAgeS?: number;
  /** What protects the packets, while there is a session. AES-256-GMAC hides nothing: a trusted link. */
  aead?: AeadName;
  /** Round trip in milliseconds: smoothed over OxTunnel's pings, or at WireGuard's last handshake. */
  rttMs?: number;
  /** How much one round trip differs from the next, smoothed (RFC 3550 section 6.4.1), in milliseconds. */
  jitterMs?: number;
  /** Shares 0..1 of the datagrams of the last ten seconds that did not arrive, as the relay reports, and as seen here. */
  lossUp?: number;
  lossDown?: number;
  /** Packets from the relay that were lost and brought back by repair, all told. */
  repaired: number;
  /** How repair fares in each direction that has it. */
  repairUp?: RepairFigures;
  repairDown?: RepairFigures;
  /** The largest inner packet that the path takes, bytes; undefined before it is found, and over WireGuard. */
  mtu?: number;
  bytesReceived: number;
  bytesSent: number;
  /** Bytes a second over the last interval. */
  rateReceived: number;
  rateSent: number;
  /** What the tunnel costs: bytes on the wire, IP and UDP headers included, above the packet's own, for each sent. */
  overheadBytes?: number;
  /** Bytes on the wire fewer than WireGuard would have sent for the same packets, its padding not counted. */
  savedBytes: number;
  /** Headers of packets up, and what stands for them where the relay knows them; undefined without such packets. */
  headers?: MeanHeaders;
  /** What the packets of the last ten seconds were, in OxTunnel; undefined when there were none. */
  mixUp?: ClassMix;
  mixDown?: ClassMix;
  /** Flows of the last ten seconds that are recognised, by what they are; in OxTunnel. */
  applications?: Record<string, number>;
  /** The line to the relay: its rate, and what packets up waited for it. */
  line?: LineSnapshot;
  /** How long packets took in this process in the last half minute. */
  latency?: LatencyFigures;
  /** Share of one processor that this process takes; 1 is all of it. */
  cpuShare: number;
  /** Where the session has several paths: each with its interface. */
  paths?: LinkPath[];
  /** Where there are several relays: each with its round trip at the last probe. */
  servers: ServerStatus[];
  /** Seconds that `connect` has run. */
  uptimeS: number;
}

const HISTORY = 30;
const LIGHT = { connecting: "◌", connected: "●", silent: "○" };

/** The lines of the picture. `past` holds the rates of the last seconds; `about` says what the tunnel is for. */
export function renderLink(status: LinkStatus, past: readonly LinkStatus[], about: string): string[] {
  const { state, server, address, uptimeS, handshakeAgeS, rttMs, jitterMs, lossUp, lossDown } = status;
  const where = server.startsWith(address) || server.startsWith(`[${address}]`)
    ? server
    : `${server} (${address})`;
  const words = {
    connecting: `connecting to ${where}`,
    connected: `connected to ${where}${status.path === "tls" ? " over TLS" : ""}${
      status.aead === "AES-256-GMAC" ? ", NOT ENCRYPTED (--trusted)," : ""
    }`,
    silent: `no answer from ${where}, trying on`,
  };
  const row = (name: string, now: string, values: number[], rest: string) =>
    `  ${name.padEnd(10)} ${now.padStart(12)}  ${sparkline(values).padStart(HISTORY)}  ${rest}`;
  const flow = (name: string, rates: number[], total: number) =>
    row(name, formatRate(rates.at(-1) ?? 0), rates, formatBytes(total));
  const { overheadBytes, savedBytes, cpuShare, servers } = status;
  const others = servers.map((one) => `${one.server === server ? "*" : " "}${one.server} ${ms(one.rttMs)}`);
  return [
    `${LIGHT[state]} ${words[state]}  up ${formatDuration(uptimeS)}`,
    row("round trip", ms(rttMs), past.map((one) => one.rttMs ?? 0), `jitter ${ms(jitterMs)}`),
    flow("down", past.map(({ rateReceived }) => rateReceived), status.bytesReceived),
    flow("up", past.map(({ rateSent }) => rateSent), status.bytesSent),
    `  loss       ${formatShare(lossDown)} down, ${formatShare(lossUp)} up  handshake ${
      handshakeAgeS === undefined ? "-" : `${formatDuration(handshakeAgeS)} ago`
    }`,
    ...renderLine(status),
    ...renderPaths(status),
    ...renderRepair(status),
    `  costs      ${overheadBytes === undefined ? "-" : `${overheadBytes.toFixed(1)} B`} a packet, CPU ${
      formatShare(cpuShare)
    }${renderHeaders(status)}, ${formatBytes(Math.max(0, savedBytes))} less than WireGuard`,
    `  mix down   ${renderMix(status.mixDown)}`,
    `  mix up     ${renderMix(status.mixUp)}`,
    ...renderApplications("  flows      ", status.applications),
    ...(others.length > 0 ? [`  relays     ${others.join("  ")}`] : []),
    `  ${about}`,
  ];
}

function renderHeaders({ headers }: LinkStatus): string {
  return headers === undefined
    ? ""
    : `, headers ${headers.before.toFixed(0)} → ${headers.after.toFixed(1)} B`;
}

function ms(value: number | undefined): string {
  return value === undefined ? "-" : `${value.toFixed(1)} ms`;
}

/** The line up, where anything is known of it, and what packets take in this program. */
function renderLine({ line, latency }: LinkStatus): string[] {
  const latencies = renderLatency("  latency    ", latency);
  if (line === undefined) return latencies;
  const { shapedBps, rateBy, path, waits, marked, drops, serializationMs } = line;
  const found = path === undefined ? [] : [
    `${path.state} ${path.bps === undefined ? "" : `${formatRate(path.bps / 8)} `}+${
      path.queueMs.toFixed(1)
    } ms`,
  ];
  const rate = shapedBps === undefined ? "not held back" : `${formatRate(shapedBps / 8)} (${rateBy})`;
  const wire = serializationMs === undefined ? [] : [`${serializationMs.toFixed(1)} ms a packet`];
  const lost = Object.values(drops).reduce((sum, count) => sum + count, 0);
  const real = waits.game ?? waits.voice, other = waits.bulk ?? waits.interactive ?? waits.default;
  return [
    `  line up    ${[rate, ...wire, ...found].join(", ")}`,
    `  waits      real-time ${formatDelays(real)}, other ${
      formatDelays(other)
    }, marked ${marked}, lost ${lost}`,
    ...latencies,
  ];
}

/** A line for each of several paths. */
function renderPaths({ paths = [] }: LinkStatus): string[] {
  return paths.map(({ device, number, endpoint, uses, isSilent, isMetered, ...path }) => {
    const doing = endpoint === undefined
      ? ["not there yet"]
      : isSilent
      ? ["SILENT"]
      : uses.length > 0
      ? uses
      : ["idle"];
    const what = [...doing, ...(isMetered ? ["metered"] : [])].join(", ");
    const share = `${Math.round(100 * path.share)} %`;
    const failovers = path.failovers > 0 ? `, left ${path.failovers} times` : "";
    return `  ${(device ?? `path ${number}`).padEnd(10)} ${what}: ${share} of bytes, ${ms(path.rttMs)}, ${
      formatShare(path.lossRatio)
    } lost${failovers}`;
  });
}

/** A small table of what repair does, where it does anything. */
function renderRepair({ repairDown, repairUp }: LinkStatus): string[] {
  const widths = [9, 9, 9, 6, 7, 9];
  const row = (name: string, cells: string[], scheme: string) =>
    `  ${name.padEnd(6)}${cells.map((cell, i) => cell.padStart(widths[i])).join("")}  ${scheme}`;
  const figures = (name: string, repair: RepairFigures | undefined) =>
    repair === undefined ? [] : [row(
      name,
      [
        formatShare(repair.lossRatio),
        formatShare(repair.residualRatio),
        ...[repair.repaired, repair.unrecovered, repair.wasted].map(String),
        formatShare(repair.extraRatio),
      ],
      repair.isSilent ? "no reports" : repair.scheme,
    )];
  const rows = [...figures("  down", repairDown), ...figures("  up", repairUp)];
  if (rows.length === 0) return [];
  const asked = repairDown && repairDown.requests > 0
    ? [
      `  asked  ${repairDown.requests} times: ${repairDown.answered} in time, ${repairDown.late} late, ${repairDown.useless} useless`,
    ]
    : [];
  return [
    row("repair", ["lost", "residual", "repaired", "not", "wasted", "extra"], "scheme"),
    ...rows,
    ...asked,
  ];
}

/** Shows the picture where `connect` was started: live on a terminal, as JSON lines, or as words when the state changes. */
export class LinkView {
  readonly #isLive: boolean;
  readonly #isJson: boolean;
  readonly #past: LinkStatus[] = [];
  #drawn = 0;
  #state = "";
  about = "";

  /** Whether somebody looks at the figures, so that they are to be fresh. */
  get isWatched(): boolean {
    return this.#isJson || this.#isLive;
  }

  constructor(isJson: boolean) {
    this.#isJson = isJson;
    this.#isLive = !isJson && Deno.stdout.isTerminal();
  }

  /** A message for people, on standard error. */
  say(message: string): void {
    this.#erase();
    console.error(message);
  }

  /** Whether this state is another than the one shown. */
  isChange(state: LinkStatus["state"]): boolean {
    return state !== this.#state;
  }

  show(status: LinkStatus): void {
    this.#past.push(status);
    if (this.#past.length > HISTORY) this.#past.shift();
    const before = this.#state;
    this.#state = status.state;
    if (this.#isJson) {
      console.log(JSON.stringify(status));
      return;
    }
    const lines = renderLink(status, this.#past, this.about);
    if (this.#isLive) {
      this.#erase();
      const columns = Deno.consoleSize().columns || 80; // a terminal that does not know its size
      write(lines.map((line) => `${[...line].slice(0, columns).join("")}\n`).join(""));
      this.#drawn = lines.length;
    } else if (status.state !== before) {
      console.error(lines[0]);
    }
  }

  #erase(): void {
    if (this.#drawn > 0) write(`\x1b[${this.#drawn}A\x1b[J`);
    this.#drawn = 0;
  }
}

function write(text: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(text));
}
