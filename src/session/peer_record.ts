/**
 * What is stored of a peer, and what a running relay tells about one: plain data that crosses threads and
 * disks. Keys travel as base64 text here, as WireGuard's own tools write them.
 */
import type { SessionFigures } from "../repair/figures.ts";
import type { AeadName } from "../wire/parameters.ts";

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

/** 64 kbit/s and 100 Gbit/s. */
export const PEER_RATE_MIN_BPS = 64_000, PEER_RATE_MAX_BPS = 100e9;

/** One peer's live state, for `status` and /v1. No secret in it. */
export interface PeerSnapshot extends SessionFigures {
  name: string;
  publicKey: string;
  allowedIps: string[];
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

/** What a relay, or one of its Workers, tells of itself at one moment. */
export interface RelaySnapshot {
  peers: PeerSnapshot[];
  sessions: SessionSnapshot[];
  /** Flows of the last ten seconds that are recognised, by application. */
  applications: Record<string, number>;
}
