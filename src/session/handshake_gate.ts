/**
 * Who may begin a handshake, and whose answer is one: MAC1, cookies and rate under load, the peer and the Worker that owns
 * it, timestamps that were seen, `max_connections` (PROTOCOL §3, §4, §10). Invariant: a message that has not
 * authenticated changes nothing but counters, and one without a sound MAC1 gets no answer. Opens no message and
 * computes no key: the protocols do.
 * Keeps PROTOCOL R4, R5, R10, R11, R14, R28, R29 and R30.
 */
import { DROP } from "../metrics.ts";
import { type Burst, TO_PARSE_ADMITTED, TO_TRANSMIT } from "../vector/burst.ts";
import { NONE } from "../vector/arena.ts";
import { isLater } from "../wire/timestamp.ts";
import { COOKIE_REPLY_BYTES, readReceiver, readSender } from "../wire/wireguard.ts";
import type { Admission } from "./admission.ts";
import type { CookieChecker } from "./cookie.ts";
import type { Epochs } from "./epochs.ts";
import { type OpenedInitiation, wipeHandshake } from "./noise.ts";
import { base64, type Peer } from "./peers.ts";
import type { Protocol, Shared } from "./shared.ts";

export interface HandshakeGateOptions {
  readonly admission: Admission;
  readonly maxConnections: number;
  /** Connections that other Workers have, which count towards `maxConnections` too. */
  readonly connectionsElsewhere: () => number;
}

/** A peer's old timestamps are told no more often, microseconds. */
const STALE_SAID_US = 60_000_000;

export class HandshakeGate {
  maxConnections: number;
  readonly #s: Shared;
  readonly #epochs: Epochs;
  readonly #o: HandshakeGateOptions;

  constructor(shared: Shared, epochs: Epochs, options: HandshakeGateOptions) {
    this.#s = shared;
    this.#epochs = epochs;
    this.#o = options;
    this.maxConnections = options.maxConnections;
  }

  /** Whether `max_connections` keeps the peer out. */
  isFullFor(peer: Peer): boolean {
    const { connections } = this.#epochs;
    return !peer.connected && connections + this.#o.connectionsElsewhere() >= this.maxConnections;
  }

  /**
   * Whether the handshake message in `row` was made for this key and may cost an X25519 now; if not, `next` says why,
   * or the message has become a cookie reply. A response costs as much as an initiation, so both count as load.
   * @param mac1At where MAC1 begins in `message`.
   */
  admits(
    burst: Burst,
    row: number,
    message: Uint8Array,
    mac1At: number,
    checker: CookieChecker,
    isInitiation: boolean,
    nowUs: number,
  ): boolean {
    if (!checker.hasMac1(message, mac1At)) {
      burst.next[row] = DROP.bad_mac1;
      return false;
    }
    if (isInitiation) this.#s.metrics.add("handshake_initiations", 1);
    return !this.#o.admission.isUnderLoad(nowUs) || this.#proven(burst, row, message, mac1At, checker, nowUs);
  }

  /** Under load: whether the message proves its source and the source has a token; otherwise answers or drops it. */
  #proven(
    burst: Burst,
    row: number,
    message: Uint8Array,
    mac1At: number,
    checker: CookieChecker,
    nowUs: number,
  ): boolean {
    const { address, port, next } = burst;
    if (!checker.hasMac2(message, mac1At, address, 4 * row, port[row], nowUs)) {
      const sender = readSender(burst.view, burst.offset[row]);
      checker.reply(message, mac1At, sender, address, 4 * row, port[row], nowUs);
      burst.length[row] = COOKIE_REPLY_BYTES;
      next[row] = TO_TRANSMIT;
      this.#s.metrics.add("cookie_replies_sent", 1);
      return false;
    }
    if (this.#o.admission.take(address, 4 * row, nowUs)) return true;
    next[row] = DROP.rate_limited;
    return false;
  }

  /**
   * The peer that the opened initiation in `row` comes from, if this Worker keeps its sessions; else undefined, with the
   * handshake's state wiped, and the message dropped or on its way to the Worker that does.
   */
  initiatorOf(burst: Burst, row: number, opened: OpenedInitiation): Peer | undefined {
    const { peers, table, metrics } = this.#s;
    const publicKey = base64(opened.peerStatic);
    const peer = peers.find(publicKey);
    if (peer && peers.owner[peer.id] === table.worker) return peer;
    wipeHandshake(opened.state);
    if (!peer) {
      burst.next[row] = peers.barred.has(publicKey) ? DROP.barred_peer : DROP.unknown_peer;
    } else {
      burst.handOver(row, peers.owner[peer.id], TO_PARSE_ADMITTED);
      metrics.add("handshakes_handed_over", 1);
    }
    return undefined;
  }

  /** Why the peer's initiation gets no session, as a drop code, or 0. */
  refusal(peer: Peer, timestamp: Uint8Array | undefined, nowUs: number): number {
    if (!timestamp) return DROP.handshake_failed;
    const isFresh = isLater(timestamp, peer.lastTimestamp) &&
      nowUs - peer.lastInitiationTakenUs >= this.#s.limits.initiationIntervalUs;
    if (!isFresh) {
      // An older time is a clock that went back, or a repetition; the same time again is the network's doing.
      if (isLater(peer.lastTimestamp, timestamp) && nowUs - peer.staleSaidUs >= STALE_SAID_US) {
        peer.staleSaidUs = nowUs;
        this.#epochs.note("stale", peer.id);
      }
      return DROP.handshake_replay;
    }
    if (!this.isFullFor(peer)) return 0;
    this.#epochs.note("refused", peer.id);
    return DROP.max_connections;
  }

  /**
   * A row for the session that the peer asks for, or NONE, with the reason in `next`.
   * @param timestamp the initiation's, undefined when it did not authenticate.
   */
  sessionFor(
    burst: Burst,
    row: number,
    peer: Peer,
    timestamp: Uint8Array | undefined,
    nowUs: number,
  ): number {
    const refusal = this.refusal(peer, timestamp, nowUs);
    const session = refusal === 0 ? this.#s.table.allocate(peer.id) : NONE;
    if (session === NONE) burst.next[row] = refusal || DROP.max_connections;
    return session;
  }

  /** Notes that an authentic initiation of the peer was answered, with or without a session. */
  taken(peer: Peer, timestamp: Uint8Array, nowUs: number): void {
    peer.lastTimestamp = timestamp;
    peer.lastInitiationTakenUs = nowUs;
    this.#s.metrics.add("handshake_responses", 1);
  }

  /**
   * The peer whose answer to this end's initiation is in `row`, once its MACs are sound; else undefined, and `next`
   * says why.
   */
  responderTo(
    burst: Burst,
    row: number,
    message: Uint8Array,
    mac1At: number,
    checker: CookieChecker,
    receiver: number,
    nowUs: number,
  ): Peer | undefined {
    const { peers, table } = this.#s;
    const session = table.find(receiver);
    const peer = session === NONE ? undefined : peers.get(table.peer[session]);
    if (!checker.hasMac1(message, mac1At)) {
      burst.next[row] = DROP.bad_mac1;
    } else if (peer?.pending?.row !== session || peer.pending.checker !== checker) {
      burst.next[row] = DROP.no_session;
    } else if (this.admits(burst, row, message, mac1At, checker, false, nowUs)) {
      return peer;
    }
    return undefined;
  }

  /** Takes the cookie in `row`, of `protocol`, for the handshake that it answers. */
  onCookie(burst: Burst, row: number, protocol: Protocol, nowUs: number): void {
    const { peers, table } = this.#s;
    const at = burst.offset[row];
    const session = table.find(readReceiver(burst.view, at));
    const peer = session === NONE ? undefined : peers.get(table.peer[session]);
    const message = burst.bytes.subarray(at, at + COOKIE_REPLY_BYTES);
    burst.next[row] = peer && protocol.jarOf(peer).accept(message, nowUs) ? 0 : DROP.bad_cookie;
  }
}
