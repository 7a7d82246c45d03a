/**
 * What is stored of a peer, and what a running relay tells about one: plain data that crosses threads and
 * disks. Keys travel as base64 text here, as WireGuard's own tools write them.
 */
import { addDelays, type DelayFigures, delayFigures } from "../control/delay_figures.ts";
import type { DelayCounts } from "../control/delays.ts";
import { CLASS_LABELS, type ClassLabel } from "../metrics.ts";
import type { SessionFigures } from "../repair/figures.ts";
import type { AeadName, HeaderMethod } from "../wire/parameters.ts";

/** A peer as the store keeps it. */
export interface PeerRecord {
  /** Unique, 1 to 63 characters of [A-Za-z0-9._-]. */
  name: string;
  /** X25519 public key, 44 characters of base64. */
  publicKey: string;
  /** Optional preshared key, 44 characters of base64. Secret. */
  presharedKey?: string;
  /** Allowed inner prefixes: "10.66.0.2/32", "fd…::2/128". Sorted as leased: IPv4 first. */
  allowedIps: string[];
  /** When it was added, ISO 8601. */
  created: string;
  /** Ports of the relay's host that lead to the peer: "udp:27015", "tcp:8000-8010:9000" (process/forward_text.ts). None when absent. */
  forwards?: string[];
  /**
   * The most bits a second to the peer and from it, whole datagrams with IP and UDP headers: integers from PEER_RATE_MIN_BPS to
   * PEER_RATE_MAX_BPS. Absent for no limit of its own.
   */
  rateDownBps?: number;
  rateUpBps?: number;
  /** Present while the operator keeps the peer out. */
  disabled?: true;
  /** From when on the peer is kept out, as `Date.toISOString` writes it. Absent for never. */
  expires?: string;
  /** The most bytes of datagrams in a calendar month (UTC), both directions together: 1 to MONTHLY_BYTES_MAX. Absent for no limit. */
  monthlyBytes?: number;
  /** The operator's own words, at most NOTES_CHARACTERS_MAX characters. */
  notes?: string;
}

export const NOTES_CHARACTERS_MAX = 500;
/** One petabyte; sums of such counts are exact in a double. */
export const MONTHLY_BYTES_MAX = 1e15;

/** Why a stored peer may not connect: the operator's wish, its date, or the volume of this month. */
export type BarReason = "disabled" | "expired" | "volume";

/** A peer as the Workers are told of it. One that is barred has no session, gets none and has no route. */
export interface AdmittedPeer extends PeerRecord {
  barred?: BarReason;
}

/** Bytes of datagrams since the peer is known, over restarts, from the relay's side. */
export interface PeerUsage {
  received: number;
  sent: number;
  /** Since the month began (UTC). */
  monthReceived: number;
  monthSent: number;
}

/** Bytes of datagrams that peers received and sent since the last such list, from the relay's side: columns of one length. */
export interface PeerTraffic {
  publicKeys: string[];
  received: number[];
  sent: number[];
}

const KEY_BYTES = 32;

export {
  RATE_MAX_BPS as PEER_RATE_MAX_BPS,
  RATE_MIN_BPS as PEER_RATE_MIN_BPS,
} from "../control/told_rates.ts";

/** How a session makes headers small, and what they and their stand-ins take, mean bytes a packet. */
export interface HeaderFigures {
  method: HeaderMethod;
  before: number;
  after: number;
}

/** One peer's live state, for `status` and /v1. No secret in it. */
export interface PeerSnapshot extends SessionFigures {
  name: string;
  publicKey: string;
  allowedIps: string[];
  /** As in the record. */
  forwards?: string[];
  /** "address:port" or "[address]:port" of the last authentic packet. */
  endpoint?: string;
  /** Seconds since the last completed handshake. */
  lastHandshakeAgeS?: number;
  /** Whether a session is up that can carry data. */
  connected: boolean;
  /** What it speaks, and what its packets are protected with, while it has a session. GMAC hides nothing (PROTOCOL §18). */
  protocol?: "wireguard" | "oxtunnel";
  aead?: AeadName;
  bytesReceived: number;
  bytesSent: number;
  /** Packets dropped after this peer was identified. */
  drops: number;
  /** Counters missing from the peer's stream, as a share 0..1 of what it sent in this epoch. */
  lossRatio?: number;
  /** Round trip seen in the last handshake, milliseconds. */
  rttMs?: number;
  /** Mean bytes of headers of packets to the peer that went without them, and of what stood for them; absent without any. */
  headers?: HeaderFigures;
  /** The way to the peer as this end sees it; absent where nothing is known and nothing waited. */
  line?: LineSnapshot;
  /** The paths of its session, by their numbers; absent where there is one. */
  paths?: PathSnapshot[];
}

/** One of several paths of a session (PROTOCOL §17), as this end sends on it. */
export interface PathSnapshot {
  number: number;
  /** "address:port" of the other end; absent while it has not answered there. */
  endpoint?: string;
  /** A client's door to the path, 0 for the system's choice. */
  door: number;
  /** What goes there now, and whether data goes out and nothing comes. */
  uses: PathUse[];
  isSilent: boolean;
  isMetered: boolean;
  rttMs?: number;
  /** Share of what was sent there that was lost of late, and what waits on the way; absent without reports. */
  lossRatio?: number;
  queueMs?: number;
  /** The largest datagram that it is known to take, bytes of UDP payload. */
  datagramBytes: number;
  /** Bytes of datagrams with packets that were sent there while there were several paths, and their share of all paths'. */
  bytesSent: number;
  share: number;
  /** Copies that were sent there; and, of this path's packets, those that came by copies on other paths. */
  copiesSent: number;
  copiesUseful: number;
  /** Times that packets left it because it was silent. */
  failovers: number;
}

export type PathUse = "games" | "copies" | "bulk";

/** A peer's line: how fast it is, and what packets to the peer waited for it. All of it is measured, but for a rate that was told. */
export interface LineSnapshot {
  /** Bits a second that packets to the peer keep to, IP and UDP headers counted; absent while nothing is held back. */
  shapedBps?: number;
  /** Whose rate that is: the one that the peer asked for, that was found, of the peer's record, or of the configuration. */
  rateBy?: "peer" | "found" | "record" | "config";
  /** What BBR has found of the path, while it looks. */
  path?: PathEstimate;
  /** Packets that wait now; packets marked with CE; and packets lost, by the drop reason's label. */
  waiting: number;
  marked: number;
  drops: Record<string, number>;
  /** The waits of the last half minute, milliseconds, by class; a packet that need not wait counts with 0. */
  waits: Partial<Record<ClassLabel, DelayFigures>>;
  /** How long a full packet takes at the line's rate, milliseconds. */
  serializationMs?: number;
}

export interface PathEstimate {
  /** BBR's state. */
  state: string;
  /** Bits a second; absent before the path has shown its rate. */
  bps?: number;
  /** The least round trip of the last ten seconds, and what the last report shows beyond the path's length: a queue on it. */
  leastRttMs?: number;
  queueMs: number;
}

/** How long packets took in this process; absent where none did. */
export interface LatencyFigures {
  /** Waits for lines and for the thread, of all packets in both directions; a packet that need not wait counts with 0. And by class. */
  queue?: DelayFigures;
  queueByClass?: Partial<Record<ClassLabel, DelayFigures>>;
  /** From the turn in which a packet was taken to where the turn's packets were all handed on. */
  processing?: DelayFigures;
}

/** What `LatencyFigures` are made of, in counts that can be added. */
export interface LatencyCounts {
  /** By class. */
  queue: DelayCounts[];
  processing: DelayCounts;
}

/** Of classes that had any. @param counts by class. */
export function figuresByClass(counts: readonly DelayCounts[]): Partial<Record<ClassLabel, DelayFigures>> {
  return Object.fromEntries(
    CLASS_LABELS.map((label, i) => [label, delayFigures(counts[i])]).filter(([, figures]) =>
      figures !== undefined
    ),
  );
}

export function addLatencies(some: readonly LatencyCounts[]): LatencyCounts {
  return {
    queue: CLASS_LABELS.map((_, i) => addDelays(some.map(({ queue }) => queue[i]))),
    processing: addDelays(some.map(({ processing }) => processing)),
  };
}

export function latencyFigures({ queue, processing }: LatencyCounts): LatencyFigures {
  return {
    queue: delayFigures(addDelays(queue)),
    queueByClass: figuresByClass(queue),
    processing: delayFigures(processing),
  };
}

/** One key epoch of a session, for /v1/sessions. No secret in it. */
export interface SessionSnapshot {
  peer: string;
  /** "current", "previous" or "next". */
  epoch: string;
  receiverIndex: number;
  protocol: "wireguard" | "oxtunnel";
  ageS: number;
  initiator: boolean;
  packetsSent: number;
  highestCounterReceived: number;
  /** OxTunnel: the largest datagram that the path to the peer is known to take, bytes of UDP payload. */
  datagramBytes?: number;
}

/** Some of the peers that were ever connected, as their Worker tells them: cheap enough for a page that asks each second. */
export interface SeenPeers {
  peers: PeerSnapshot[];
  /** The peer's number to go on from; absent at the end. */
  next?: number;
  /** As in RelaySnapshot; with the first peers only. */
  applications?: Record<string, number>;
}

/** What a relay, or one of its Workers, tells of itself at one moment. */
export interface RelaySnapshot {
  peers: PeerSnapshot[];
  sessions: SessionSnapshot[];
  /** Flows of the last ten seconds that are recognised, by application. */
  applications: Record<string, number>;
  /** Delays of the last half minute. */
  delays: LatencyCounts;
}

/** What a tunnel needs of a peer; a subset of a stored record. */
export type PeerKeys = Omit<PeerRecord, "created">;

/** The record's preshared key, 32 bytes, all zero when it has none (whitepaper §5.2). Throws as `decodeKey`. */
export function decodePresharedKey({ name, presharedKey }: PeerKeys): Uint8Array {
  return presharedKey === undefined
    ? new Uint8Array(KEY_BYTES)
    : decodeKey(presharedKey, `peer ${name}: preshared key`);
}

/** The 32 bytes that the text holds. Throws, naming `what`, where it holds another number. */
export function decodeKey(text: string, what: string): Uint8Array {
  if (!/^[A-Za-z0-9+/]{43}=$/.test(text)) {
    throw new Error(`${what} is not 32 bytes of base64 (44 characters)`);
  }
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}
