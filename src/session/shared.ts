/**
 * What the parts of this folder and both protocols are given, as one value that associations.ts makes: keys, tables,
 * limits, counters and deadlines; and the interface through which the shared parts call a protocol. Invariant: no shared
 * part imports a protocol, and no protocol imports the other. It holds no behaviour.
 */
import type { Primitives } from "../codec/kernels.ts";
import type { Metrics } from "../metrics.ts";
import type { Burst } from "../vector/burst.ts";
import type { CookieChecker, CookieJar } from "./cookie.ts";
import type { EventRing } from "./events.ts";
import type { Limits } from "./limits.ts";
import type { HandshakeState } from "./noise.ts";
import type { Paths } from "./paths.ts";
import type { Peer, PeerTable, StagedPacket } from "./peers.ts";
import type { SessionTable } from "./table.ts";
import type { Timers } from "./timers.ts";

export interface Shared {
  /** This end's X25519 keys, 32 bytes each; the first is secret. */
  readonly staticPrivate: Uint8Array;
  readonly staticPublic: Uint8Array;
  readonly primitives: Primitives;
  /** Fills the array with random bytes. */
  readonly random: (bytes: Uint8Array) => void;
  readonly limits: Limits;
  readonly metrics: Metrics;
  readonly peers: PeerTable;
  readonly table: SessionTable;
  readonly paths: Paths;
  /** One deadline a peer: the earliest of what its sessions and attempts wait for. */
  readonly timers: Timers;
  readonly events: EventRing;
  /** The protocols by their numbers (WIREGUARD, OXTUNNEL); undefined where one is not spoken, and at 0. */
  readonly protocols: readonly (Protocol | undefined)[];
  /** Wall clock in microseconds since 1970 minus the monotonic clock: for the timestamps of initiations. */
  unixOffsetUs: number;
}

/** Packets that an initiation carries. */
export interface EarlyData {
  /** Frames, as PROTOCOL §13 has them; the caller overwrites it. */
  readonly plaintext: Uint8Array;
  /** The waiting packets that are in it. */
  readonly packets: readonly StagedPacket[];
}

/** What a protocol does for the shared parts. Sessions are rows of the session table that the protocol has keyed. */
export interface Protocol {
  /** Checks the MACs of the protocol's handshake messages. */
  readonly checker: CookieChecker;
  /** The peer's jar, which signs the protocol's handshake messages. */
  jarOf(peer: Peer): CookieJar;

  /** What the next initiation to the peer carries of its waiting packets, `arena` bytes; undefined for nothing. */
  earlyData(peer: Peer, arena: Uint8Array, nowUs: number): EarlyData | undefined;
  /** Bytes of an initiation with this. */
  initiationBytes(early: EarlyData | undefined): number;
  /**
   * Writes an initiation of `initiationBytes` and signs it; undefined when the peer's key is a low-order point.
   * @param session the row that is to be the session. @param timestamp 12 bytes, TAI64N.
   */
  writeInitiation(
    message: Uint8Array,
    peer: Peer,
    session: number,
    timestamp: Uint8Array,
    nowUs: number,
    early: EarlyData | undefined,
  ): HandshakeState | undefined;
  /** Frees what a pending handshake in the row holds beside the row itself; nothing for a handshake of another protocol. */
  forgetPending(row: number): void;
  /** Whether the first initiations are repeated soon: the peer's present session, or NONE, leads nowhere. */
  isUrgent(session: number): boolean;
  /** Until when this end, as responder, waits for the session's first packet before it begins a handshake itself, microseconds. */
  awaitedUntilUs(session: number): number;

  /** Whether a packet of `bytes` may go to the initiator before a packet of the initiator has opened under the session. */
  mayAnswerEarly(session: number, bytes: number): boolean;
  /** Numbers and addresses such a packet, in `row`. */
  answerEarly(burst: Burst, row: number, session: number): void;

  /**
   * Adds a keepalive to the burst as a TO_SEAL row, or has one sent by `pollTransmit`; false when the burst is full.
   */
  keepalive(burst: Burst, id: number, session: number): boolean;
  /** Adds the control datagrams that are due in the peer's sessions to the burst; false when the burst was full before the last. */
  pollTransmit(burst: Burst, id: number, nowUs: number): boolean;
  /** The session's next deadline, microseconds, or Infinity. */
  dueUs(session: number): number;
  /** Runs the timers of the session that are due at `nowUs`. */
  handleTimeout(session: number, nowUs: number): void;
  /** The session is the peer's previous one from now on. */
  superseded(session: number, nowUs: number): void;
  /** Wipes the session's secrets and memory outside of its row. */
  end(session: number): void;
}
