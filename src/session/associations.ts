/**
 * What both protocols' handshakes share (PROTOCOL §3, §5, §10): who may begin one, each peer's sessions from the next
 * to the previous, packets that wait, attempts and deadlines, endpoints and events. session/wireguard/mod.ts and session/oxtunnel/mod.ts read
 * and write the messages. Invariant: nothing changes for a message that has not authenticated, except counters.
 * Sends nothing itself: everything but answers waits for `pollTransmit`.
 * Keeps PROTOCOL R4, R5, R7, R8, R10, R11, R13, R14, R16, R28, R29, R30 and R67.
 */
import type { Primitives } from "../codec/kernels.ts";
import {
  type Burst,
  HELD,
  TO_PARSE_ADMITTED,
  TO_SEAL,
  TO_SEAL_DATAGRAM,
  TO_TRANSMIT,
} from "../vector/burst.ts";
import type { RepairCount } from "../repair/pool.ts";
import { NONE } from "../vector/arena.ts";
import { COOKIE_REPLY_BYTES, readReceiver, readSender } from "../wire/wireguard.ts";
import type { Admission } from "./admission.ts";
import type { CookieChecker } from "./cookie.ts";
import { type EventKind, EventRing } from "./events.ts";
import { isLater, type OpenedInitiation, tai64n, wipeHandshake } from "./wireguard/handshake.ts";
import type { Limits } from "./limits.ts";
import type { OxSession } from "./oxtunnel/session.ts";
import type { OxSessions } from "./oxtunnel/sessions.ts";
import { Oxtunnel, type OxtunnelOptions } from "./oxtunnel/mod.ts";
import type { Peer, PeerTable, StagedPacket } from "./peers.ts";
import { OXTUNNEL, type SessionTable } from "./table.ts";
import { Timers } from "./timers.ts";
import { Wireguard } from "./wireguard/mod.ts";

/** What the associations count and how they name a failure; the numbers are the caller's drop codes. */
export interface HandshakeOutcome {
  readonly bad_mac1: number;
  readonly unanswered: number;
  readonly rate_limited: number;
  readonly handshake_failed: number;
  readonly refused: number;
  readonly unknown_peer: number;
  readonly handshake_replay: number;
  readonly max_connections: number;
  readonly bad_cookie: number;
  readonly no_session: number;
  readonly queue_full: number;
}

export type CountName =
  | "handshake_initiations"
  | "handshake_responses"
  | "handshakes_completed"
  | "cookie_replies_sent"
  | "handshakes_handed_over"
  | "epochs_made"
  | "size_probes_sent"
  | RepairCount
  | "roamed";

export interface AssociationOptions {
  staticPrivate: Uint8Array;
  staticPublic: Uint8Array;
  primitives: Primitives;
  random: (bytes: Uint8Array) => void;
  limits: Limits;
  peers: PeerTable;
  table: SessionTable;
  admission: Admission;
  maxConnections: number;
  /** Connections that other Workers have, which count towards `maxConnections` too. */
  connectionsElsewhere: () => number;
  drop: HandshakeOutcome;
  /** Most packets that may wait for handshakes, over all peers. */
  stagedMax: number;
  /** Counts packets that end outside a burst, by their drop code. */
  lose: (code: number, packets: number) => void;
  /** Adds 1, or `amount`. */
  count: (name: CountName, amount?: number) => void;
  /** Wall clock in microseconds since 1970 minus the monotonic clock: for the timestamps of initiations. */
  unixOffsetUs: number;
  /** Absent where OxTunnel is not spoken. */
  oxtunnel?: OxtunnelOptions;
}

/** A response is confirmed within this, or did not arrive. */
const AWAITED_US = 1_000_000;
const WANTS_INITIATION = 1;
const WANTS_KEEPALIVE = 2;
const WANTS_FLUSH = 4;
const WANTS_CONTROL = 8;
/** A peer's old timestamps are told no more often, microseconds. */
const STALE_SAID_US = 60_000_000;

export class Associations {
  readonly timers: Timers;
  readonly limits: Limits;
  readonly events = new EventRing();
  #staged = 0;
  /** Peers with a session that can carry data, or one about to. */
  connections = 0;
  maxConnections: number;
  unixOffsetUs: number;
  /** Whether OxTunnel sessions go to where the other end's datagrams come from; a client decides for itself. */
  followsPeers = true;
  readonly wireguard: Wireguard;
  /** Undefined where OxTunnel is not spoken. */
  readonly oxtunnel: Oxtunnel | undefined;
  readonly options: AssociationOptions;
  readonly #sessions: OxSessions | undefined;
  readonly #wants: Uint8Array;
  readonly #queue: number[] = [];
  #lastTimestampUs = 0;
  readonly #randomWord = new Uint32Array(1);
  readonly #randomBytes = new Uint8Array(this.#randomWord.buffer);

  constructor(options: AssociationOptions) {
    this.options = options;
    this.timers = new Timers(options.peers.capacity);
    this.limits = options.limits;
    this.#wants = new Uint8Array(options.peers.capacity);
    this.maxConnections = options.maxConnections;
    this.unixOffsetUs = options.unixOffsetUs;
    this.wireguard = new Wireguard(this);
    this.oxtunnel = options.oxtunnel && new Oxtunnel(this, options.oxtunnel);
    this.#sessions = this.oxtunnel?.sessions;
  }

  /** Packets that wait in all queues together. */
  get staged(): number {
    return this.#staged;
  }

  /**
   * Whether the handshake message in `row` was made for this key and may cost an X25519 now; if not, `next` says why,
   * or the message has become a cookie reply. A response costs as much as an initiation, so both count as load.
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
    const { admission, drop, count } = this.options;
    if (!checker.hasMac1(message, mac1At)) {
      burst.next[row] = drop.bad_mac1;
      return false;
    }
    if (isInitiation) count("handshake_initiations");
    return !admission.isUnderLoad(nowUs) || this.#proven(burst, row, message, mac1At, checker, nowUs);
  }

  /** The peer that the opened initiation in `row` comes from; undefined, with the state wiped, when it is not ours. */
  initiatorOf(burst: Burst, row: number, opened: OpenedInitiation): Peer | undefined {
    const { peers, table, drop, count } = this.options;
    const peer = peers.find(base64(opened.peerStatic));
    if (peer && peers.owner[peer.id] === table.worker) return peer;
    wipeHandshake(opened.state);
    if (!peer) {
      burst.next[row] = drop.unknown_peer;
    } else {
      burst.handOver(row, peers.owner[peer.id], TO_PARSE_ADMITTED);
      count("handshakes_handed_over");
    }
    return undefined;
  }

  /** Why the peer's initiation gets no session, as a drop code, or 0. */
  refusal(peer: Peer, timestamp: Uint8Array | undefined, nowUs: number): number {
    const { drop } = this.options;
    if (!timestamp) return drop.handshake_failed;
    const isFresh = isLater(timestamp, peer.lastTimestamp) &&
      nowUs - peer.lastInitiationTakenUs >= this.limits.initiationIntervalUs;
    if (!isFresh) {
      // An older time is a clock that went back, or a repetition; the same time again is the network's doing.
      if (isLater(peer.lastTimestamp, timestamp) && nowUs - peer.staleSaidUs >= STALE_SAID_US) {
        peer.staleSaidUs = nowUs;
        this.#note("stale", peer.id);
      }
      return drop.handshake_replay;
    }
    if (!this.isFullFor(peer)) return 0;
    this.#note("refused", peer.id);
    return drop.max_connections;
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
    const { table, drop } = this.options;
    const refusal = this.refusal(peer, timestamp, nowUs);
    const session = refusal === 0 ? table.allocate(peer.id) : NONE;
    if (session === NONE) burst.next[row] = refusal || drop.max_connections;
    return session;
  }

  /** Notes that an authentic initiation of the peer was answered, with or without a session. */
  taken(peer: Peer, timestamp: Uint8Array, nowUs: number): void {
    peer.lastTimestamp = timestamp;
    peer.lastInitiationTakenUs = nowUs;
    this.options.count("handshake_responses");
  }

  /** After the peer's initiation was answered and `session` got its keys: it waits for its first packet. */
  answered(peer: Peer, session: number, timestamp: Uint8Array, nowUs: number): void {
    const { peers, table } = this.options;
    this.taken(peer, timestamp, nowUs);
    this.#erase(peers.next[peer.id]);
    peers.next[peer.id] = session;
    peers.protocol[peer.id] = table.protocol[session];
    this.#noteConnection(peer);
    this.traversed(peer.id, nowUs);
    this.#reschedule(peer);
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
    const { peers, table, drop } = this.options;
    const session = table.find(receiver);
    const peer = session === NONE ? undefined : peers.get(table.peer[session]);
    if (!checker.hasMac1(message, mac1At)) {
      burst.next[row] = drop.bad_mac1;
    } else if (peer?.pending?.row !== session || peer.pending.checker !== checker) {
      burst.next[row] = drop.no_session;
    } else if (this.admits(burst, row, message, mac1At, checker, false, nowUs)) {
      return peer;
    }
    return undefined;
  }

  /** After the pending handshake's row got its keys: it is the peer's session now. */
  finished(peer: Peer, nowUs: number): void {
    const { peers } = this.options;
    const { id } = peer;
    const { row, sentUs } = peer.pending!;
    peer.pending = undefined;
    peer.handshakeRttUs = nowUs - sentUs;
    // A waiting `next` was made later than `current` and is the better key to fall back on.
    const successor = peers.next[id] === NONE ? peers.current[id] : peers.next[id];
    if (peers.next[id] !== NONE) this.#erase(peers.current[id]);
    peers.next[id] = NONE;
    this.#supersede(id, successor, nowUs);
    peers.current[id] = row;
    this.#completed(peer, nowUs);
    // The first data message confirms the key to the responder: what waits, or else a keepalive.
    this.want(id, WANTS_FLUSH | (peer.staged.length === 0 ? WANTS_KEEPALIVE : 0));
  }

  /** The peer has taken these of its waiting packets; their slots go to `release`. */
  unstage(peer: Peer, packets: readonly StagedPacket[], release: (slot: number) => void): void {
    for (const packet of packets) {
      const at = peer.staged.indexOf(packet);
      if (at < 0) continue; // it made room for others meanwhile
      peer.staged.splice(at, 1);
      this.#staged--;
      release(packet.slot);
    }
  }

  /** The peer has no session any more but the one that it is asking for: what goes there waits for that. */
  forsake(id: number, nowUs: number): void {
    const { peers } = this.options;
    this.#supersede(id, peers.current[id], nowUs);
    peers.current[id] = NONE;
  }

  /** The responder's side of completion: the first packet under `next` proves that the initiator has the key. */
  confirm(id: number, nowUs: number): void {
    const { peers, table } = this.options;
    this.#supersede(id, peers.current[id], nowUs);
    peers.current[id] = peers.next[id];
    peers.next[id] = NONE;
    const peer = peers.get(id)!;
    // The response left when the key was made, and an initiator confirms it at once (whitepaper §5.4.6). If that
    // confirmation was lost, this later one says nothing of the path.
    const epoch = peers.current[id];
    if (table.replay.highest[epoch] === 0) peer.handshakeRttUs = nowUs - table.bornUs[epoch];
    this.#completed(peer, nowUs);
    this.want(id, WANTS_FLUSH);
  }

  /** Makes `session` the peer's previous one; an OxTunnel session then ends soon (PROTOCOL §10). */
  #supersede(id: number, session: number, nowUs: number): void {
    const { peers, table } = this.options;
    this.#erase(peers.previous[id]);
    peers.previous[id] = session;
    if (session === NONE || table.protocol[session] !== OXTUNNEL) return;
    table.endsUs[session] = Math.min(table.endsUs[session], nowUs + this.limits.graceUs);
    const rest = this.oxtunnel?.sessions.of[session];
    if (rest !== undefined) rest.isEnding = true;
  }

  /** Takes the cookie in `row` for the handshake that it answers. */
  onCookie(burst: Burst, row: number, isOxtunnel: boolean, nowUs: number): void {
    const { peers, table, drop } = this.options;
    const at = burst.offset[row];
    const session = table.find(readReceiver(burst.view, at));
    const peer = session === NONE ? undefined : peers.get(table.peer[session]);
    const jar = isOxtunnel ? peer?.oxJar : peer?.jar;
    const message = burst.bytes.subarray(at, at + COOKIE_REPLY_BYTES);
    burst.next[row] = jar?.accept(message, nowUs) ? 0 : drop.bad_cookie;
  }

  /** The session on which a packet to the peer may go now, or NONE. */
  sendable(id: number, nowUs: number): number {
    const { peers, table } = this.options;
    const session = peers.current[id];
    return session !== NONE && nowUs < table.endsUs[session] &&
        table.sendCounter[session] < table.sendLimit[session]
      ? session
      : NONE;
  }

  /**
   * Keeps the packet of `row` until the peer has a session, and starts a handshake. When the peer's queue, or all
   * queues together, are full, the peer loses its own oldest packet, whose slot then leaves with this row.
   */
  stage(burst: Burst, row: number, id: number): void {
    const peer = this.options.peers.get(id)!;
    const { drop, limits, peers, stagedMax } = this.options;
    const { slot, offset, length, next } = burst;
    if (this.isFullFor(peer)) {
      next[row] = drop.max_connections;
      peers.drops[id]++;
      return;
    }
    peer.staged.push({ slot: slot[row], offset: offset[row], length: length[row] });
    this.#staged++;
    next[row] = HELD;
    if (peer.staged.length > limits.stagedPackets || this.#staged > stagedMax) {
      slot[row] = peer.staged.shift()!.slot;
      this.#staged--;
      next[row] = drop.queue_full;
      peers.drops[id]++;
    }
    this.want(id, WANTS_INITIATION);
  }

  /** Whether max_connections keeps the peer out. */
  isFullFor(peer: Peer): boolean {
    return !peer.connected && this.connections + this.options.connectionsElsewhere() >= this.maxConnections;
  }

  /**
   * Whether the peer's present session is of OxTunnel, which follows validated paths only, and `session`, of WireGuard, is
   * not about to take its place.
   */
  isOnOxtunnel(id: number, session: number): boolean {
    const { peers, table } = this.options;
    const current = peers.current[id];
    return current !== NONE && table.protocol[current] === OXTUNNEL && session !== peers.next[id];
  }

  /** Starts a handshake with the peer now, as persistent keepalives and a new client do. */
  initiate(id: number): void {
    this.want(id, WANTS_INITIATION);
  }

  /**
   * Starts a handshake with the peer together with the next packet to it, or with what waits already, and at `untilUs` without
   * one. One that is under way goes on.
   */
  initiateWithPacket(peer: Peer, untilUs: number): void {
    if (peer.staged.length > 0) return this.want(peer.id, WANTS_INITIATION);
    if (peer.pending !== undefined || peer.retryAtUs <= untilUs) return;
    peer.retryAtUs = untilUs;
    this.timers.hasten(peer.id, untilUs);
  }

  /** Lets the peer's OxTunnel sessions send what they have to say by themselves. */
  wantControl(id: number): void {
    this.want(id, WANTS_CONTROL);
  }

  /** Notes the wish for `pollTransmit`. */
  want(id: number, wants: number): void {
    if (this.#wants[id] === 0) this.#queue.push(id);
    this.#wants[id] |= wants;
  }

  /**
   * Adds due datagrams to the burst: initiations ready to send, and keepalives and staged packets as TO_SEAL
   * rows with `peer` and `session` set. Returns the rows added; call again until it returns 0.
   */
  pollTransmit(burst: Burst, nowUs: number): number {
    const { peers, table } = this.options;
    const before = burst.count;
    for (let left = this.#queue.length; left > 0; left--) {
      const id = this.#queue.shift()!;
      const wants = this.#wants[id];
      this.#wants[id] = 0;
      const peer = peers.get(id);
      if (!peer) continue;
      if ((wants & WANTS_INITIATION) !== 0 && !this.#emitInitiation(burst, peer, nowUs)) {
        this.want(id, wants);
        return burst.count - before;
      }
      if ((wants & (WANTS_FLUSH | WANTS_KEEPALIVE)) !== 0) {
        const session = this.sendable(id, nowUs);
        while (session !== NONE && peer.staged.length > 0) {
          if (burst.count === burst.slot.length) {
            this.want(id, wants & ~WANTS_INITIATION);
            return burst.count - before;
          }
          const packet = peer.staged.shift()!;
          this.#staged--;
          const row = burst.push(packet.slot, packet.length, TO_SEAL);
          burst.offset[row] = packet.offset;
          burst.peer[row] = id;
          burst.session[row] = session;
        }
        if ((wants & WANTS_KEEPALIVE) !== 0 && session !== NONE && table.protocol[session] === OXTUNNEL) {
          this.#sessions!.ping(session);
          left++; // it has joined the queue, and is not to wait there for the next event
        } else if ((wants & WANTS_KEEPALIVE) !== 0 && session !== NONE) {
          const row = burst.grow(0, TO_SEAL);
          if (row < 0) {
            this.want(id, WANTS_KEEPALIVE);
            return burst.count - before;
          }
          burst.peer[row] = id;
          burst.session[row] = session;
        }
      }
      if ((wants & WANTS_CONTROL) !== 0 && !this.#sessions!.pollTransmit(burst, id, nowUs)) {
        this.want(id, WANTS_CONTROL);
        return burst.count - before;
      }
    }
    return burst.count - before;
  }

  /** Does what is due. The results come out of `pollTransmit`; the slots of given-up packets are handed to `release`. */
  handleTimeout(nowUs: number, release: (slot: number) => void): void {
    const { peers, table, limits } = this.options;
    for (let id = this.timers.takeExpired(nowUs); id >= 0; id = this.timers.takeExpired(nowUs)) {
      const peer = peers.get(id);
      if (!peer) continue;
      for (const epoch of [peers.next, peers.current, peers.previous]) {
        const session = epoch[id];
        if (session === NONE) continue;
        if (table.protocol[session] === OXTUNNEL) this.#sessions!.handleTimeout(session, nowUs);
        if (table.endsUs[session] <= nowUs) {
          this.#erase(session);
          epoch[id] = NONE;
        }
      }
      this.#noteConnection(peer);
      if (peers.keepaliveAtUs[id] <= nowUs) {
        peers.keepaliveAtUs[id] = Infinity;
        this.want(id, WANTS_KEEPALIVE);
      }
      if (peers.silenceAtUs[id] <= nowUs) {
        peers.silenceAtUs[id] = Infinity;
        this.want(id, WANTS_INITIATION);
      }
      if (peers.persistentAtUs[id] <= nowUs) {
        peers.persistentAtUs[id] = nowUs + peers.persistentKeepaliveUs[id];
        this.want(id, this.sendable(id, nowUs) === NONE ? WANTS_INITIATION : WANTS_KEEPALIVE);
      }
      if (peer.retryAtUs <= nowUs) {
        peer.retryAtUs = Infinity;
        this.#dropPending(peer);
        if (nowUs - peer.attemptsSinceUs >= limits.rekeyAttemptUs) {
          peer.attemptsSinceUs = Infinity;
          peer.attempts = 0;
          this.#giveUp(peer, release);
        } else {
          this.want(id, WANTS_INITIATION);
        }
      }
      this.#reschedule(peer);
    }
  }

  /** Ends all sessions of a peer and gives its waiting packets' slots to `release`. */
  end(peer: Peer, release: (slot: number) => void): void {
    const { peers } = this.options;
    this.#dropPending(peer);
    for (const epoch of [peers.next, peers.current, peers.previous]) {
      this.#erase(epoch[peer.id]);
      epoch[peer.id] = NONE;
    }
    this.#giveUp(peer, release);
    this.timers.set(peer.id, Infinity);
    this.#noteConnection(peer);
  }

  /** Drops what waits for the peer. */
  #giveUp(peer: Peer, release: (slot: number) => void): void {
    for (const packet of peer.staged) release(packet.slot);
    this.options.lose(this.options.drop.unanswered, peer.staged.length);
    this.options.peers.drops[peer.id] += peer.staged.length;
    this.#staged -= peer.staged.length;
    peer.staged.length = 0;
  }

  /** Sets the outer endpoint by hand, as a client does for its relay. */
  setEndpoint(id: number, words: Uint32Array, port: number): void {
    this.options.peers.address.set(words, 4 * id);
    this.options.peers.port[id] = port;
    this.options.peers.local.fill(0, 4 * id, 4 * id + 4);
    const session = this.options.peers.current[id];
    const rest = session === NONE ? undefined : this.#sessions?.of[session];
    // The network may be another one, or the way there.
    if (rest && this.#sessions!.isPlain[session] === 1) this.forget(rest);
  }

  /** Starts the persistent keepalive of a peer that has one. */
  startKeepalive(peer: Peer, nowUs: number): void {
    if (this.options.peers.persistentKeepaliveUs[peer.id] > 0) this.want(peer.id, WANTS_INITIATION);
    this.traversed(peer.id, nowUs);
  }

  /**
   * Moves the peer's endpoint to where an authentic packet came from, `words` and `port`; what goes there leaves from
   * where that came to, `local`. Both addresses begin at `at`. Hot: no allocation.
   */
  roam(id: number, words: Uint32Array, at: number, port: number, local: Uint32Array): void {
    const { address, port: ports, local: locals } = this.options.peers;
    const to = 4 * id;
    for (let i = 0; i < 4; i++) locals[to + i] = local[at + i];
    if (
      ports[id] === port && address[to + 3] === words[at + 3] && address[to + 2] === words[at + 2] &&
      address[to + 1] === words[at + 1] && address[to] === words[at]
    ) return;
    if (ports[id] !== 0) this.noteRoaming(id);
    for (let i = 0; i < 4; i++) address[to + i] = words[at + i];
    ports[id] = port;
  }

  /** Counts and tells that the peer's endpoint moves. */
  noteRoaming(id: number): void {
    this.options.count("roamed");
    this.#note("roamed", id);
  }

  /** Tells that the path to the peer does not take what every path should (PROTOCOL §17). */
  noteNarrow(id: number): void {
    this.#note("narrow", id);
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
    const { admission, drop, count } = this.options;
    const { address, port, next } = burst;
    if (!checker.hasMac2(message, mac1At, address, 4 * row, port[row], nowUs)) {
      const sender = readSender(burst.view, burst.offset[row]);
      checker.reply(message, mac1At, sender, address, 4 * row, port[row], nowUs);
      burst.length[row] = COOKIE_REPLY_BYTES;
      next[row] = TO_TRANSMIT;
      count("cookie_replies_sent");
      return false;
    }
    if (admission.take(address, 4 * row, nowUs)) return true;
    next[row] = drop.rate_limited;
    return false;
  }

  /** False when burst or arena is full, so that the wish must be kept. */
  #emitInitiation(burst: Burst, peer: Peer, nowUs: number): boolean {
    const { peers, table } = this.options;
    const { id } = peer;
    if (peers.port[id] === 0) return true;
    if (!this.#answerEarly(burst, peer)) return false;
    // One initiation at a time; a lost one is retried by its timer, and so is what was wished for too soon.
    const readyUs = Math.max(peer.lastInitiationSentUs + this.#spacingUs(peer), this.#awaitedUntilUs(id));
    if (nowUs < readyUs) {
      if (peer.staged.length > 0 && peer.retryAtUs === Infinity) {
        peer.retryAtUs = readyUs;
        this.timers.hasten(id, peer.retryAtUs);
      }
      return true;
    }
    const protocol = peers.protocol[id] === OXTUNNEL ? this.oxtunnel! : this.wireguard;
    const early = protocol === this.oxtunnel ? this.oxtunnel.earlyData(peer, burst.bytes, nowUs) : undefined;
    const bytes = protocol.initiationBytes(early);
    const row = burst.grow(bytes, TO_TRANSMIT);
    if (row < 0) return false;
    this.#dropPending(peer);
    const session = table.allocate(id);
    const from = burst.offset[row];
    const message = burst.bytes.subarray(from, from + bytes);
    // Strictly rising even when the wall clock is set back, or the peer would take us for a replay.
    this.#lastTimestampUs = Math.max(this.#lastTimestampUs + 1, nowUs + this.unixOffsetUs);
    const state = session === NONE
      ? undefined
      : protocol.writeInitiation(message, peer, session, tai64n(this.#lastTimestampUs), nowUs, early);
    early?.plaintext.fill(0);
    peer.lastInitiationSentUs = nowUs;
    peer.attempts++;
    peer.retryAtUs = nowUs + this.#spacingUs(peer) + this.jitterUs();
    if (peer.attemptsSinceUs === Infinity) peer.attemptsSinceUs = nowUs;
    if (!state) {
      table.erase(session);
      burst.next[row] = 0;
    } else {
      burst.address.set(peers.address.subarray(4 * id, 4 * id + 4), 4 * row);
      burst.port[row] = peers.port[id];
      burst.local.set(peers.local.subarray(4 * id, 4 * id + 4), 4 * row);
      peer.pending = { state, row: session, sentUs: nowUs, checker: protocol.checker, early: early?.packets };
      for (const packet of early?.packets ?? []) packet.wasEarly = true;
    }
    this.traversed(id, nowUs);
    this.#reschedule(peer);
    return true;
  }

  /** Sends what waits as answers to early data, as far as they may go; false when the burst is full. */
  #answerEarly(burst: Burst, peer: Peer): boolean {
    const session = this.options.peers.next[peer.id];
    const paths = session === NONE ? undefined : this.#sessions?.of[session]?.paths;
    while (paths && peer.staged.length > 0 && paths.mayAnswerEarly(peer.staged[0].length)) {
      if (burst.count === burst.slot.length) return false;
      const packet = peer.staged.shift()!;
      this.#staged--;
      const row = burst.push(packet.slot, packet.length, TO_SEAL_DATAGRAM);
      burst.offset[row] = packet.offset;
      paths.answerEarly(burst, row);
    }
    return true;
  }

  /** Until when a session that this end has answered for, and that is soon confirmed, is the one to wait for. */
  #awaitedUntilUs(id: number): number {
    const { peers, table } = this.options;
    const session = peers.next[id];
    return session !== NONE && table.protocol[session] === OXTUNNEL
      ? table.bornUs[session] + AWAITED_US
      : -Infinity;
  }

  /** From one initiation to the next: shorter for OxTunnel's first ones while there is no live path (PROTOCOL §10). */
  #spacingUs(peer: Peer): number {
    const { peers } = this.options;
    const { rekeyTimeoutUs, firstRetriesUs } = this.limits;
    const session = peers.current[peer.id];
    const isHurried = peers.protocol[peer.id] === OXTUNNEL &&
      (session === NONE || this.#sessions!.of[session]?.isSilent === true);
    return isHurried ? firstRetriesUs[Math.max(0, peer.attempts - 1)] ?? rekeyTimeoutUs : rekeyTimeoutUs;
  }

  /** The other end has closed the session. */
  closed(session: OxSession, _reason: number): void {
    this.forget(session);
  }

  /** Has nothing said and nothing opened any more in the session; its keys go with the next turn. */
  forget({ row, peer }: OxSession): void {
    this.oxtunnel!.sessions.of[row]!.isEnding = true;
    this.options.table.endsUs[row] = -Infinity;
    this.timers.hasten(peer, -Infinity);
  }

  /** Closes the peer's OxTunnel session in an orderly way: the other end is told, and the keys go soon after. */
  close(id: number, reason: number, retryAfterS: number, nowUs: number): void {
    const { peers, table } = this.options;
    const session = peers.current[id];
    if (session === NONE || table.protocol[session] !== OXTUNNEL) return;
    this.#erase(peers.previous[id]);
    peers.previous[id] = session;
    peers.current[id] = NONE;
    this.#sessions!.of[session]!.close(reason, retryAfterS, nowUs);
    this.#noteConnection(peers.get(id)!);
  }

  /** This host's own address changed: the peer's OxTunnel session goes on under another id, with a challenge. */
  moved(id: number): void {
    const { peers, table } = this.options;
    const session = peers.current[id];
    if (session === NONE || table.protocol[session] !== OXTUNNEL) return;
    this.#sessions!.of[session]!.paths.moved();
  }

  /**
   * Moves the peer's OxTunnel session to this address once it has answered there. False when there is no session that
   * could, so that only a handshake helps.
   */
  probe(id: number, words: Uint32Array, port: number, nowUs: number): boolean {
    const session = this.sendable(id, nowUs);
    if (session === NONE || this.options.table.protocol[session] !== OXTUNNEL) return false;
    if (this.#sessions!.refuses(session, words, 0)) return false;
    return this.#sessions!.of[session]!.paths.probe(words, port, nowUs);
  }

  /** Ends the pending handshake, whose answer refused. */
  abandon(peer: Peer): void {
    this.#dropPending(peer);
  }

  /** Overwrites a session's keys and gives its rows back. Does nothing for NONE. */
  #erase(session: number): void {
    const { table } = this.options;
    if (session !== NONE && table.protocol[session] === OXTUNNEL) this.#sessions!.end(session);
    table.erase(session);
  }

  #completed(peer: Peer, nowUs: number): void {
    peer.lastHandshakeUs = nowUs;
    peer.retryAtUs = Infinity;
    peer.attemptsSinceUs = Infinity;
    peer.attempts = 0;
    peer.askedForSuccessor = false;
    this.options.peers.jitterUs[peer.id] = this.jitterUs();
    this.#dropPending(peer);
    this.#noteConnection(peer);
    if (!peer.established) {
      peer.established = true;
      this.#note("connected", peer.id);
    }
    this.options.count("handshakes_completed");
    this.#reschedule(peer);
  }

  #dropPending(peer: Peer): void {
    if (!peer.pending) return;
    wipeHandshake(peer.pending.state);
    this.oxtunnel?.forget(peer.pending.row);
    this.options.table.erase(peer.pending.row);
    peer.pending = undefined;
  }

  #note(kind: EventKind, id: number): void {
    this.events.push(kind, id, this.options.peers.generation[id]);
  }

  /** Starts the interval to the next persistent keepalive anew. Hot: no allocation. */
  traversed(id: number, nowUs: number): void {
    const { peers } = this.options;
    if (!peers.isAnyKeptAlive || peers.persistentKeepaliveUs[id] === 0) return;
    peers.persistentAtUs[id] = nowUs + peers.persistentKeepaliveUs[id];
    this.timers.hasten(id, peers.persistentAtUs[id]);
  }

  #noteConnection(peer: Peer): void {
    const { peers } = this.options;
    const connected = peers.current[peer.id] !== NONE || peers.next[peer.id] !== NONE;
    if (connected === peer.connected) return;
    peer.connected = connected;
    this.connections += connected ? 1 : -1;
    if (!connected && peer.established) {
      peer.established = false;
      this.#note("disconnected", peer.id);
    }
  }

  #reschedule(peer: Peer): void {
    const { peers, table } = this.options;
    const { id } = peer;
    let dueUs = Math.min(
      peer.retryAtUs,
      peers.keepaliveAtUs[id],
      peers.silenceAtUs[id],
      peers.persistentAtUs[id],
    );
    for (const epoch of [peers.next, peers.current, peers.previous]) {
      const session = epoch[id];
      if (session === NONE) continue;
      dueUs = Math.min(dueUs, table.endsUs[session]);
      if (table.protocol[session] === OXTUNNEL) dueUs = Math.min(dueUs, this.#sessions!.dueUs(session));
    }
    this.timers.set(id, dueUs);
  }

  jitterUs(): number {
    this.options.random(this.#randomBytes);
    return this.#randomWord[0] % this.options.limits.jitterUs;
  }

  /** Fresh random bytes. */
  bytes(count: number): Uint8Array {
    const bytes = new Uint8Array(count);
    this.options.random(bytes);
    return bytes;
  }
}

/** Standard base64 with padding (RFC 4648 §4), as WireGuard's tools write keys. */
export function base64(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes));
}
