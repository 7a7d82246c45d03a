/**
 * What a tunnel is made with: kernels, limits, addresses, and how its packets are queued, batched and repaired. Invariant: lengths
 * are bytes, times microseconds, rates bytes a second, whatever units the config has. Holds no state and checks no bounds:
 * config.ts does that.
 */
import type { Aead, DatagramAead, Lz4, Primitives } from "./codec/kernels.ts";
import type { RolloutPercent } from "./control/rollout.ts";
import type { Metrics } from "./metrics.ts";
import type { RepairOptions } from "./repair/options.ts";
import type { Limits } from "./session/limits.ts";
import type { Arena } from "./vector/arena.ts";
import {
  FEATURE_COPIES,
  FEATURE_HYBRID_KEYS,
  FEATURE_LZ4,
  FEATURE_MULTIPATH,
  FEATURE_OF_METHOD,
  FEATURE_REED_SOLOMON,
  FEATURE_REQUESTS,
  FEATURE_RESUMPTION,
  FEATURE_SLIDING_WINDOW,
  type HeaderMethod,
} from "./wire/parameters.ts";
import { LIVE_MAX } from "./session/oxtunnel/path_set.ts";
import { GOOD_MAX } from "./session/oxtunnel/subjects/path_ids.ts";
import { SESSION_ROWS_MAX } from "./session/table.ts";

/** The longest wait of a bulk packet to share a datagram, microseconds (PROTOCOL R80). */
export const BATCH_WAIT_US = 1000;
/** Bytes in a kilobit: OxTunnel's parameters give rates in kbit/s. */
export const BYTES_PER_KBIT = 125;

const FURTHER_PATHS_MAX = 1024;
const FLOWS_PER_CONNECTION = 16, FLOWS_MIN = 4096, FLOWS_MAX = 1 << 18;

/** Flows that are kept: a power of two. */
export function flowRows(maxConnections: number): number {
  const wanted = Math.min(FLOWS_MAX, Math.max(FLOWS_MIN, FLOWS_PER_CONNECTION * maxConnections));
  return 1 << Math.ceil(Math.log2(wanted));
}

/** Paths that all sessions together may have beside their first: each has some kilobytes, and a session those of two while it is replaced. */
export function furtherPaths(maxConnections: number): number {
  return Math.min(FURTHER_PATHS_MAX, 2 * (LIVE_MAX - 1) * maxConnections);
}

/**
 * Rows of the table of sessions: three epochs and a pending handshake for each connection, each with spare ids where OxTunnel is spoken,
 * the ids of further paths, and room for refusals in flight.
 */
export function sessionRows(maxConnections: number, hasOxtunnel: boolean): number {
  const rows = hasOxtunnel
    ? 12 * maxConnections + GOOD_MAX * furtherPaths(maxConnections)
    : 4 * maxConnections;
  return Math.min(SESSION_ROWS_MAX, rows + 256);
}

/** Random 32-bit words, from a export function that fills bytes. */
export function wordsFrom(random: (bytes: Uint8Array) => void): () => number {
  const word = new Uint32Array(1);
  const bytes = new Uint8Array(word.buffer);
  return () => {
    random(bytes);
    return word[0];
  };
}

export interface QueuesOptions {
  /** The most bytes a second, IP and UDP headers included, that this end sends to each peer; 0 for no limit. */
  bytesPerS: number;
  /** Whether BBRv3 estimates the rate of each OxTunnel path from the other end's reports. */
  findsRates: boolean;
  /** The most packets that wait, over all peers; the tunnel takes half of the arena's slots where that is less. */
  packets: number;
  /** CoDel's target and interval, microseconds (RFC 8289). */
  targetUs: number;
  intervalUs: number;
  /** Whether CoDel marks packets of ECN-capable flows with CE instead of dropping them. */
  ecn: boolean;
  /** How long packets of class game and of class voice may wait before they are dropped, microseconds. */
  gameDeadlineUs: number;
  voiceDeadlineUs: number;
}

/**
 * The queues that a config asks for, from its [queues] and the deadlines in its [repair] (milliseconds, Mbit/s); undefined where
 * `enablePriorityScheduler` is off and no packet waits.
 */
export function queuesOptions(
  { enablePriorityScheduler, congestionAlgorithm, queues, repair }: {
    enablePriorityScheduler: boolean;
    congestionAlgorithm: "bbr_v3" | "none";
    queues: { ratePerPeerMbit?: number; targetMs: number; intervalMs: number; ecn: boolean; packets: number };
    repair: { gameDeadlineMs: number; voiceDeadlineMs: number };
  },
): QueuesOptions | undefined {
  if (!enablePriorityScheduler) return undefined;
  return {
    bytesPerS: 1000 * BYTES_PER_KBIT * (queues.ratePerPeerMbit ?? 0),
    findsRates: congestionAlgorithm === "bbr_v3",
    packets: queues.packets,
    targetUs: 1000 * queues.targetMs,
    intervalUs: 1000 * queues.intervalMs,
    ecn: queues.ecn,
    gameDeadlineUs: 1000 * repair.gameDeadlineMs,
    voiceDeadlineUs: 1000 * repair.voiceDeadlineMs,
  };
}

export interface TunnelOptions {
  arena: Arena;
  metrics: Metrics;
  primitives: Primitives;
  /** Makes the transport kernel for a number of session rows. */
  makeAead: (rows: number) => Aead;
  /** Makes the kernel for OxTunnel's data datagrams, for a number of session rows; absent for a tunnel without OxTunnel. */
  makeDatagramAead?: (rows: number) => DatagramAead;
  /** AEAD_* of OxTunnel for which this processor has instructions, best first; ChaCha20-Poly1305 when absent. */
  aeads?: readonly number[];
  /** Outer networks, as prefixes, in which OxTunnel goes without encryption where the other end agrees; none when absent. */
  trusted?: readonly string[];
  /** FEATURE_* of OxTunnel that this end offers and accepts; all implemented ones when absent. */
  features?: number;
  /** Whether sessions of OxTunnel may have several paths; true when absent. */
  hasSeveralPaths?: boolean;
  /** Contexts of short packets (PROTOCOL §13) that all sessions may have together; absent to offer and accept none. */
  headerContexts?: number;
  /** How headers are made small, the one that this end likes best first; only "elided" when absent. */
  headerMethods?: readonly HeaderMethod[];
  /** Whether packets of more than 700 bytes go without their headers too. */
  headersOfBulk?: boolean;
  /** Compression in OxTunnel; absent to neither offer nor accept compression. */
  lz4?: Lz4;
  /** Packets of fewer bytes are not compressed; 64 or more, and 64 when absent. */
  compressionThreshold?: number;
  random: (bytes: Uint8Array) => void;
  limits: Limits;
  /** 32 bytes; copied. Secret. */
  privateKey: Uint8Array;
  /** This end's own inner addresses, as text. */
  ipv4: string;
  ipv6: string | undefined;
  /** Largest inner packet, bytes. */
  mtu: number;
  /** Whether the exit makes its packets from its own sockets instead of forwarding another host's; false when absent. */
  exitIsSource?: boolean;
  /** Whether the exit forwards packets for the host's own address to other clients' mappings there (hairpinning). */
  exitHairpins?: boolean;
  /**
   * How long OxTunnel's bulk packets may wait to share a datagram, in microseconds: 0 batches only packets of one turn,
   * -1 none; BATCH_WAIT_US when absent.
   */
  batchWaitUs?: number;
  /** Loss repair in OxTunnel; absent to neither offer nor accept repair. */
  repair?: RepairOptions;
  /** The rate that this end asks the others not to exceed, in bytes a second with IP and UDP headers; no limit when absent. */
  receiveBytesPerS?: number;
  /** Queues for peers whose rate is configured, announced by the peer, or estimated; when absent no packet waits. */
  queues?: QueuesOptions;
  /** By part: the share of peers that have it, in percent; the defaults when absent. */
  rolloutPercent?: RolloutPercent;
  maxConnections: number;
  /** Handshakes a second that one proven source may start. */
  rateLimitPerIp: number;
  /** 0 to 15, below `workers`: the top bits of receiver indices. */
  worker: number;
  /** Workers that share the port, each with such a core; peers are divided among them. 1 to 16; 1 when absent. */
  workers?: number;
  /** Connections that the other Workers have now; none when absent. */
  connectionsElsewhere?: () => number;
  /** Wall clock minus monotonic clock, microseconds. */
  unixOffsetUs: number;
}

/** FEATURE_* of OxTunnel that loss repair has. */
export const REPAIR_FEATURES = FEATURE_REED_SOLOMON | FEATURE_SLIDING_WINDOW | FEATURE_COPIES |
  FEATURE_REQUESTS;

/** FEATURE_* of OxTunnel that a tunnel with these options offers and accepts. */
export function featuresOf(
  { features, lz4, headerContexts, headerMethods, repair, hasSeveralPaths }: TunnelOptions,
): number {
  return (features ?? (FEATURE_HYBRID_KEYS | FEATURE_RESUMPTION)) | (lz4 === undefined ? 0 : FEATURE_LZ4) |
    (headerContexts === undefined ? 0 : featuresOfMethods(headerMethods)) |
    (hasSeveralPaths === false ? 0 : FEATURE_MULTIPATH) |
    (repair === undefined ? 0 : REPAIR_FEATURES & ~FEATURE_REQUESTS) |
    (repair?.isAsking ? FEATURE_REQUESTS : 0);
}

/** What a tunnel does that names none. */
export const HEADER_METHODS_DEFAULT: readonly HeaderMethod[] = ["elided"];

function featuresOfMethods(methods = HEADER_METHODS_DEFAULT): number {
  return methods.reduce((features, method) => features | FEATURE_OF_METHOD[method], 0);
}
