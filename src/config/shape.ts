/**
 * The types of a configuration, and the error that reports its mistakes. Invariant: every field of a Config that parseConfig
 * returns has been checked. Reads and checks nothing itself.
 */

import type { RolloutPercent } from "../control/rollout.ts";
import type { HeaderMethod } from "../wire/parameters.ts";

/** Where to bind: a host name or address without brackets, and a port of 1 to 65535. */
export interface Endpoint {
  readonly host: string;
  readonly port: number;
}

/** Which inner destinations are open besides the public internet. */
export interface Destinations {
  readonly allowLoopback: boolean;
  readonly allowLinkLocal: boolean;
  readonly allowPrivate: boolean;
  readonly allowPeers: boolean;
  /** Whether the relay's own inner address answers speedtests. */
  readonly allowSpeedtest: boolean;
  /** Ports of the host that a client may open to itself by PCP or NAT-PMP, 0 to 256; 0 when it may not. */
  readonly portMappings: number;
  /** Prefixes opened one by one, "192.168.1.0/24", host bits zero. */
  readonly allow: readonly string[];
  /** Prefixes closed to every client, whatever else opens them. */
  readonly deny: readonly string[];
}

/** OxTunnel over TLS, where UDP is blocked. */
export interface FallbackConfig {
  readonly listen: Endpoint;
  /** Files in PEM: the certificate with its chain, and its private key. */
  readonly certificate: string;
  readonly privateKey: string;
  /** "host:port" as clients reach it, the host as the certificate names it. */
  readonly publicEndpoint?: string;
}

/** The ways to move outer datagrams, as the key `io` names them. */
export const IO_WAYS = ["portable", "io_uring", "mmsg"] as const;

/** What `repair.scheme` and `repair.predictor` may name (repair/redundancy.ts, repair/prediction/predictor.ts). */
export const REPAIR_SCHEME_NAMES = ["auto", "copy", "spaced", "window", "block"] as const;
export const REPAIR_PREDICTOR_NAMES = ["default", "ewma", "hmm", "delay", "logistic", "lstm"] as const;

/** Loss repair for OxTunnel's games and calls. */
export interface RepairConfig {
  readonly enabled: boolean;
  /** The most bytes of repair for a hundred protected bytes. */
  readonly budgetPercent: number;
  /** A fixed share, whatever the losses are: bytes of repair for a hundred protected bytes. */
  readonly sharePercent?: number;
  readonly scheme: (typeof REPAIR_SCHEME_NAMES)[number];
  /** Whether each class is protected by its own deadline; false protects all like a game. */
  readonly trafficAware: boolean;
  /** Whether repair rises with predicted losses, and the predictor. */
  readonly proactive: boolean;
  readonly predictor: (typeof REPAIR_PREDICTOR_NAMES)[number];
  /** Whether lost packets are asked for and sent again. */
  readonly requests: boolean;
  /** Packets out of a hundred that may stay lost: repair aims at no less. */
  readonly targetPercent: number;
  /** The delay after which a packet is of no use. */
  readonly gameDeadlineMs: number;
  readonly voiceDeadlineMs: number;
}

/** What `congestion_algorithm` may name. */
export const CONGESTION_ALGORITHMS = ["bbr_v3", "none"] as const;

/** Headers of inner packets that both ends know, and that need not travel. */
export interface HeadersConfig {
  /** Whether they are left out, both ways, for OxTunnel clients that want it too. */
  readonly enabled: boolean;
  /** Whether packets of more than 700 bytes go without them too. */
  readonly bulk: boolean;
  /** How, the one that is taken where a client offers several first. */
  readonly methods: readonly HeaderMethod[];
  /** Flows that the clients of a worker may have defined together, 64 to 65536. */
  readonly contexts: number;
}

/** The queues for packets to a peer whose line is slower than their arrival. */
export interface QueuesConfig {
  /** The most Mbit/s that each peer is sent, IP and UDP headers included; absent for no limit. */
  readonly ratePerPeerMbit?: number;
  /** CoDel's target and interval (RFC 8289). */
  readonly targetMs: number;
  readonly intervalMs: number;
  /** Whether packets of ECN-capable flows are marked instead of dropped. */
  readonly ecn: boolean;
  /** Packets that may wait for all peers of a Worker together. */
  readonly packets: number;
}

/** Classes of flows that the relay's operator sets. */
export interface ClassesConfig {
  /** As control/class_rules.ts reads them, without programs; the first that fits counts. */
  readonly rules: readonly string[];
  /** Whether /metrics names recognised applications. */
  readonly applicationsInMetrics: boolean;
}

export interface Config {
  readonly listen: Endpoint;
  /** "host:port" as clients reach the relay; printed into their configs. */
  readonly publicEndpoint?: string;
  /** Open sessions, 1 to 250000. */
  readonly maxConnections: number;
  /** Handshakes a second that one source address may start, 1 to 1000. */
  readonly rateLimitPerIp: number;
  readonly exit: "auto" | "tun" | "userspace";
  /** The code that seals and opens packets: the native library, TypeScript, or the library where it runs. */
  readonly kernels: "auto" | "portable" | "native";
  /** How outer datagrams move: through the library by io_uring or recvmmsg, by Deno's sockets, or by the best that runs. */
  readonly io: "auto" | (typeof IO_WAYS)[number];
  /** Device name, 1 to 15 of [a-z0-9_-], the first a letter; none that Linux has a use for. */
  readonly tunName: string;
  /** Private IPv4 prefix of /8 to /29; host 1 is the relay. */
  readonly tunnelIpv4: string;
  /** A ULA /64, "auto" (from the relay's public key, RFC 4193) or "off". */
  readonly tunnelIpv6: string;
  /** Whether OxTunnel's packets that shrink are compressed (LZ4), both ways, where the client wants it too. */
  readonly enableCompression: boolean;
  /** Whether ROHC comes before the methods of `headers`. */
  readonly enableRohc: boolean;
  /** Packets of fewer bytes are not compressed, 64 to 1500. */
  readonly compressionThreshold: number;
  /** Bytes of an inner packet, 576 to 1500; at least 1280 unless tunnelIpv6 is "off". */
  readonly mtu: number;
  /** Whether packets to one OxTunnel client share datagrams. */
  readonly enableBatching: boolean;
  /** Whether an OxTunnel client may use several networks at once. */
  readonly enableMultipath: boolean;
  /** Whether workers go before ordinary programs on their processor while they are light, where the system allows it. */
  readonly goFirst: boolean;
  /** How long a bulk packet may wait for others, in microseconds, 0 to 1000; 0 batches only packets that come together. */
  readonly batchWaitUs: number;
  readonly repair: RepairConfig;
  /** Whether packets are sorted by class where they wait for their peer's line; false: no packet waits. */
  readonly enablePriorityScheduler: boolean;
  /** The algorithm that finds the rate of an OxTunnel client's line from its reports. */
  readonly congestionAlgorithm: (typeof CONGESTION_ALGORITHMS)[number];
  readonly queues: QueuesConfig;
  /** By part of the relay: the share of peers that have it, in percent, 0 to 100. */
  readonly rolloutPercent: RolloutPercent;
  readonly headers: HeadersConfig;
  /** Resolver addresses for client configs, at most 8. */
  readonly dns: readonly string[];
  readonly destinations: Destinations;
  readonly classes: ClassesConfig;
  /** Outer networks in which OxTunnel may go authenticated but readable, where the client's side lists them too. */
  readonly trusted: readonly string[];
  /** Absent where it is off. */
  readonly fallback?: FallbackConfig;
  /** Where metrics and admin are served. */
  readonly metricsListen: Endpoint;
  /** How many devices /metrics may name, 0 to 1000; all others are added up. */
  readonly devicesInMetrics: number;
  /** Bearer token of the admin interface, at least 16 characters. Secret. */
  readonly adminToken?: string;
  /** Relay workers (threads), 1 to 16, among which peers are divided. */
  readonly workers: number;
  /** The processor of each Worker, 0 to 1023, in their order; empty: the system chooses. */
  readonly cpus: readonly number[];
  readonly logLevel: "debug" | "info" | "warning" | "error";
  readonly logFormat: "text" | "json";
  /** Directory of the private key and the peers. */
  readonly stateDir: string;
}

/** Environment variables by name; absent ones may be undefined. An empty value counts as absent. */
export type Environment = Record<string, string | undefined>;

/** What the program reads from its environment; the permissions of the tasks list the same names. */
export const ENVIRONMENT_NAMES = [
  "OXRELAY_CONFIG",
  "OXRELAY_STATE_DIR",
  "OXRELAY_PRIVATE_KEY",
  "OXRELAY_PEERS",
  "OXRELAY_ADMIN_TOKEN",
  "FLY_APP_NAME",
] as const;

/** A configuration that is refused. The message has one line per mistake: file, key, expected, found. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
}
