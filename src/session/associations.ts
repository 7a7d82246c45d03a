/**
 * Handshakes and timers of all peers (PROTOCOL §3, §5; whitepaper §5.4 and §6): turns handshake messages into
 * key epochs, and the passing of time and packets into initiations, keepalives and erased keys. Invariant:
 * nothing changes for a message that has not authenticated, except counters. Sends nothing itself: answers are
 * written over the message that asked, everything else waits for `pollTransmit`.
 * Keeps PROTOCOL R4, R5, R7, R8, R10, R11, R13, R14 and R16.
 */
import type { Primitives } from "../codec/kernels.ts";
import {
  type Burst,
  HELD,
  TO_INITIATION_ADMITTED,
  TO_PARSE_ADMITTED,
  TO_SEAL,
  TO_TRANSMIT,
} from "../vector/burst.ts";
import { NONE } from "../vector/arena.ts";
import {
  COOKIE_REPLY_BYTES,
  INITIATION_BYTES,
  INITIATION_MAC1_AT,
  readReceiver,
  readResponseReceiver,
  readSender,
  RESPONSE_BYTES,
  RESPONSE_MAC1_AT,
} from "../wire/wireguard.ts";
import type { Admission } from "./admission.ts";
import { CookieChecker } from "./cookie.ts";
import { type EventKind, EventRing } from "./events.ts";
import {
  consumeResponse,
  createInitiation,
  createResponse,
  isLater,
  openInitiation,
  openTimestamp,
  tai64n,
  wipeHandshake,
} from "./handshake.ts";
import type { Limits } from "./limits.ts";
import type { Peer, PeerTable } from "./peers.ts";
import type { SessionTable } from "./table.ts";
import { Timers } from "./timers.ts";

/** What the associations count and how they name a failure; the numbers are the caller's drop codes. */
export interface HandshakeOutcome {
  readonly bad_mac1: number;
  readonly unanswered: number;
  readonly rate_limited: number;
  readonly handshake_failed: number;
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
  count: (name: CountName) => void;
  /** Wall clock in microseconds since 1970 minus the monotonic clock: for the timestamps of initiations. */
  unixOffsetUs: number;
}

const WANTS_INITIATION = 1;
const WANTS_KEEPALIVE = 2;
const WANTS_FLUSH = 4;

export class Associations {
  readonly timers: Timers;
  readonly limits: Limits;
  readonly events = new EventRing();
  #staged = 0;
  /** Peers with a session that can carry data, or one about to. */
  connections = 0;
  maxConnections: number;
  unixOffsetUs: number;
  readonly #o: AssociationOptions;
  readonly #checker: CookieChecker;
  readonly #wants: Uint8Array;
  readonly #queue: number[] = [];
  #lastTimestampUs = 0;
  readonly #randomWord = new Uint32Array(1);
  readonly #randomBytes = new Uint8Array(this.#randomWord.buffer);

  constructor(options: AssociationOptions) {
    this.#o = options;
    this.timers = new Timers(options.peers.capacity);
    this.limits = options.limits;
    this.#checker = new CookieChecker(options.staticPublic, options.random, options.limits.cookieUs);
    this.#wants = new Uint8Array(options.peers.capacity);
    this.maxConnections = options.maxConnections;
    this.unixOffsetUs = options.unixOffsetUs;
  }

  /** Packets that wait in all queues together. */
  get staged(): number {
    return this.#staged;
  }

  /** Answers the initiation in `row` over itself, or says in `next` why not. */
  onInitiation(burst: Burst, row: number, nowUs: number): void {
    const { primitives, peers, table, admission, drop, count, staticPrivate, staticPublic } = this.#o;
    const { offset, next, address, port, local } = burst;
    const message = burst.bytes.subarray(offset[row], offset[row] + INITIATION_BYTES);
    const sender = readSender(burst.view, offset[row]);
    if (next[row] !== TO_INITIATION_ADMITTED) {
      if (!this.#checker.hasMac1(message, INITIATION_MAC1_AT)) {
        next[row] = drop.bad_mac1;
        return;
      }
      count("handshake_initiations");
      if (
        admission.isUnderLoad(nowUs) && !this.#proven(burst, row, message, INITIATION_MAC1_AT, sender, nowUs)
      ) return;
    }

    const opened = openInitiation(primitives, message, staticPrivate, staticPublic);
    if (!opened) {
      next[row] = drop.handshake_failed;
      return;
    }
    const peer = peers.find(base64(opened.peerStatic));
    if (!peer) {
      wipeHandshake(opened.state);
      next[row] = drop.unknown_peer;
      return;
    }
    if (peers.owner[peer.id] !== table.worker) {
      wipeHandshake(opened.state);
      burst.handOver(row, peers.owner[peer.id], TO_PARSE_ADMITTED);
      count("handshakes_handed_over");
      return;
    }
    const timestamp = openTimestamp(primitives, message, opened, peer.staticSecret);
    const refusal = !timestamp ? drop.handshake_failed : !isLater(timestamp, peer.lastTimestamp) ||
        nowUs - peer.lastInitiationTakenUs < this.#o.limits.initiationIntervalUs
      ? drop.handshake_replay
      : this.#isFullFor(peer)
      ? drop.max_connections
      : 0;
    if (refusal === drop.max_connections) this.#note("refused", peer.id);
    const session = refusal === 0 ? table.allocate(peer.id) : NONE;
    if (!timestamp || session === NONE) {
      wipeHandshake(opened.state);
      next[row] = refusal || drop.max_connections;
      return;
    }
    const keys = createResponse(primitives, message, opened, peer.presharedKey, this.#bytes(32));
    if (!keys) {
      wipeHandshake(opened.state);
      table.erase(session);
      next[row] = drop.handshake_failed;
      return;
    }
    peer.lastTimestamp = timestamp;
    peer.lastInitiationTakenUs = nowUs;
    this.roam(peer.id, address, 4 * row, port[row], local);
    peers.silenceAtUs[peer.id] = Infinity; // an initiation is an authentic packet too
    table.erase(peers.next[peer.id]);
    peers.next[peer.id] = session;
    table.key(session, sender, false, nowUs, keys.sendKey, keys.receiveKey);
    keys.sendKey.fill(0);
    keys.receiveKey.fill(0);
    this.#noteConnection(peer);
    burst.view.setUint32(offset[row] + 4, table.receiverIndex[session], true);
    burst.view.setUint32(offset[row] + 8, sender, true);
    peer.jar.sign(message.subarray(0, RESPONSE_BYTES), RESPONSE_MAC1_AT, nowUs);
    burst.length[row] = RESPONSE_BYTES;
    next[row] = TO_TRANSMIT;
    count("handshake_responses");
    this.#traversed(peer.id, nowUs);
    this.#reschedule(peer);
  }

  /** Completes the handshake that the response in `row` answers. */
  onResponse(burst: Burst, row: number, nowUs: number): number {
    const { primitives, peers, table, admission, drop, staticPrivate } = this.#o;
    const { offset, next, address, port, local } = burst;
    const message = burst.bytes.subarray(offset[row], offset[row] + RESPONSE_BYTES);
    if (!this.#checker.hasMac1(message, RESPONSE_MAC1_AT)) {
      next[row] = drop.bad_mac1;
      return NONE;
    }
    const sender = readSender(burst.view, offset[row]);
    const session = table.find(readResponseReceiver(burst.view, offset[row]));
    const peer = session === NONE ? undefined : peers.get(table.peer[session]);
    const pending = peer?.pending;
    if (!peer || !pending || pending.row !== session) {
      next[row] = drop.no_session;
      return NONE;
    }
    // A forged response costs as much as a forged initiation, so it counts towards the load as well.
    if (
      admission.isUnderLoad(nowUs) && !this.#proven(burst, row, message, RESPONSE_MAC1_AT, sender, nowUs)
    ) return NONE;
    const keys = consumeResponse(primitives, message, pending.state, staticPrivate, peer.presharedKey);
    if (!keys) {
      next[row] = drop.handshake_failed;
      return NONE;
    }
    const { id } = peer;
    peer.pending = undefined;
    peer.handshakeRttUs = nowUs - pending.sentUs;
    this.roam(id, address, 4 * row, port[row], local);
    // A waiting `next` was made later than `current` and is the better key to fall back on.
    if (peers.next[id] !== NONE) {
      table.erase(peers.previous[id]);
      table.erase(peers.current[id]);
      peers.previous[id] = peers.next[id];
      peers.next[id] = NONE;
    } else {
      table.erase(peers.previous[id]);
      peers.previous[id] = peers.current[id];
    }
    peers.current[id] = session;
    table.key(session, sender, true, nowUs, keys.sendKey, keys.receiveKey);
    keys.sendKey.fill(0);
    keys.receiveKey.fill(0);
    this.#completed(peer, nowUs);
    // The first data message confirms the key to the responder: what waits, or else a keepalive.
    this.want(id, WANTS_FLUSH | (peer.staged.length === 0 ? WANTS_KEEPALIVE : 0));
    this.received(id, session, false, nowUs);
    return id;
  }

  /** Takes the cookie in `row` for the handshake that it answers. */
  onCookie(burst: Burst, row: number, nowUs: number): void {
    const { peers, table, drop } = this.#o;
    const at = burst.offset[row];
    const session = table.find(readReceiver(burst.view, at));
    const peer = session === NONE ? undefined : peers.get(table.peer[session]);
    const message = burst.bytes.subarray(at, at + COOKIE_REPLY_BYTES);
    burst.next[row] = peer && peer.jar.accept(message, nowUs) ? 0 : drop.bad_cookie;
  }

  /** After an authentic packet on `session`: roaming, confirmation of a new key, timers. Hot: no allocation. */
  received(id: number, session: number, isData: boolean, nowUs: number): void {
    const { peers, table, limits } = this.#o;
    if (session === peers.next[id]) this.#confirm(id, nowUs);
    peers.silenceAtUs[id] = Infinity;
    if (isData) {
      if (peers.keepaliveAtUs[id] === Infinity) {
        peers.keepaliveAtUs[id] = nowUs + limits.keepaliveUs;
        this.timers.hasten(id, peers.keepaliveAtUs[id]);
      }
    }
    this.#traversed(id, nowUs);
    if (
      table.initiator[session] === 1 && session === peers.current[id] &&
      nowUs - table.bornUs[session] > limits.rejectAfterUs - limits.keepaliveUs - limits.rekeyTimeoutUs
    ) this.#askForSuccessor(id);
  }

  /** After an authentic packet was made for the peer on its current session. Hot: no allocation. */
  sent(id: number, session: number, isData: boolean, nowUs: number): void {
    const { peers, table, limits } = this.#o;
    peers.keepaliveAtUs[id] = Infinity;
    if (isData && peers.silenceAtUs[id] === Infinity) {
      peers.silenceAtUs[id] = nowUs + limits.keepaliveUs + limits.rekeyTimeoutUs + peers.jitterUs[id];
      this.timers.hasten(id, peers.silenceAtUs[id]);
    }
    this.#traversed(id, nowUs);
    if (
      table.sendCounter[session] > limits.rekeyAfterMessages ||
      (table.initiator[session] === 1 && nowUs - table.bornUs[session] > limits.rekeyAfterUs)
    ) this.want(id, WANTS_INITIATION);
  }

  /** The session on which a packet to the peer may go now, or NONE. */
  sendable(id: number, nowUs: number): number {
    const { peers, table, limits } = this.#o;
    const session = peers.current[id];
    return session !== NONE && nowUs - table.bornUs[session] < limits.rejectAfterUs &&
        table.sendCounter[session] < limits.rejectAfterMessages
      ? session
      : NONE;
  }

  /**
   * Keeps the packet of `row` until the peer has a session, and starts a handshake. When the peer's queue, or all
   * queues together, are full, the peer loses its own oldest packet, whose slot then leaves with this row.
   */
  stage(burst: Burst, row: number, id: number): void {
    const peer = this.#o.peers.get(id)!;
    const { drop, limits, peers, stagedMax } = this.#o;
    const { slot, offset, length, next } = burst;
    if (this.#isFullFor(peer)) {
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

  #isFullFor(peer: Peer): boolean {
    return !peer.connected && this.connections + this.#o.connectionsElsewhere() >= this.maxConnections;
  }

  /** Starts a handshake with the peer now, as persistent keepalives and a new client do. */
  initiate(id: number): void {
    this.want(id, WANTS_INITIATION);
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
    const { peers } = this.#o;
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
        if ((wants & WANTS_KEEPALIVE) !== 0 && session !== NONE) {
          const row = burst.grow(0, TO_SEAL);
          if (row < 0) {
            this.want(id, WANTS_KEEPALIVE);
            return burst.count - before;
          }
          burst.peer[row] = id;
          burst.session[row] = session;
        }
      }
    }
    return burst.count - before;
  }

  /** Does what is due. The results come out of `pollTransmit`; the slots of given-up packets are handed to `release`. */
  handleTimeout(nowUs: number, release: (slot: number) => void): void {
    const { peers, table, limits } = this.#o;
    for (let id = this.timers.takeExpired(nowUs); id >= 0; id = this.timers.takeExpired(nowUs)) {
      const peer = peers.get(id);
      if (!peer) continue;
      for (const epoch of [peers.next, peers.current, peers.previous]) {
        const session = epoch[id];
        // Earlier than the whitepaper's three times REJECT_AFTER_TIME: a key that may not be used is not kept.
        if (session !== NONE && table.bornUs[session] + limits.rejectAfterUs <= nowUs) {
          table.erase(session);
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
    const { peers, table } = this.#o;
    this.#dropPending(peer);
    for (const epoch of [peers.next, peers.current, peers.previous]) {
      table.erase(epoch[peer.id]);
      epoch[peer.id] = NONE;
    }
    this.#giveUp(peer, release);
    this.timers.set(peer.id, Infinity);
    this.#noteConnection(peer);
  }

  /** Drops what waits for the peer. */
  #giveUp(peer: Peer, release: (slot: number) => void): void {
    for (const packet of peer.staged) release(packet.slot);
    this.#o.lose(this.#o.drop.unanswered, peer.staged.length);
    this.#o.peers.drops[peer.id] += peer.staged.length;
    this.#staged -= peer.staged.length;
    peer.staged.length = 0;
  }

  /** Sets the outer endpoint by hand, as a client does for its relay. */
  setEndpoint(id: number, words: Uint32Array, port: number): void {
    this.#o.peers.address.set(words, 4 * id);
    this.#o.peers.port[id] = port;
    this.#o.peers.local.fill(0, 4 * id, 4 * id + 4);
  }

  /** Starts the persistent keepalive of a peer that has one. */
  startKeepalive(peer: Peer, nowUs: number): void {
    if (this.#o.peers.persistentKeepaliveUs[peer.id] > 0) this.want(peer.id, WANTS_INITIATION);
    this.#traversed(peer.id, nowUs);
  }

  /**
   * Moves the peer's endpoint to where an authentic packet came from, `words` and `port`; what goes there leaves from
   * where that came to, `local`. Both addresses begin at `at`. Hot: no allocation.
   */
  roam(id: number, words: Uint32Array, at: number, port: number, local: Uint32Array): void {
    const { address, port: ports, local: locals } = this.#o.peers;
    const to = 4 * id;
    for (let i = 0; i < 4; i++) locals[to + i] = local[at + i];
    if (
      ports[id] === port && address[to + 3] === words[at + 3] && address[to + 2] === words[at + 2] &&
      address[to + 1] === words[at + 1] && address[to] === words[at]
    ) return;
    if (ports[id] !== 0) {
      this.#o.count("roamed");
      this.#note("roamed", id);
    }
    for (let i = 0; i < 4; i++) address[to + i] = words[at + i];
    ports[id] = port;
  }

  /** Under load: whether the message proves its source and the source has a token; otherwise answers or drops it. */
  #proven(
    burst: Burst,
    row: number,
    message: Uint8Array,
    mac1At: number,
    sender: number,
    nowUs: number,
  ): boolean {
    const { admission, drop, count } = this.#o;
    const { address, port, next } = burst;
    if (!this.#checker.hasMac2(message, mac1At, address, 4 * row, port[row], nowUs)) {
      this.#checker.reply(message, mac1At, sender, address, 4 * row, port[row], nowUs);
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
    const { primitives, peers, table, limits, staticPublic } = this.#o;
    const { id } = peer;
    if (peers.port[id] === 0) return true;
    // One initiation at a time; a lost one is retried by its timer, and so is what was wished for too soon.
    if (nowUs - peer.lastInitiationSentUs < limits.rekeyTimeoutUs) {
      if (peer.staged.length > 0 && peer.retryAtUs === Infinity) {
        peer.retryAtUs = peer.lastInitiationSentUs + limits.rekeyTimeoutUs;
        this.timers.hasten(id, peer.retryAtUs);
      }
      return true;
    }
    const row = burst.grow(INITIATION_BYTES, TO_TRANSMIT);
    if (row < 0) return false;
    this.#dropPending(peer);
    const session = table.allocate(id);
    const message = burst.bytes.subarray(burst.offset[row], burst.offset[row] + INITIATION_BYTES);
    // Strictly rising even when the wall clock is set back, or the peer would take us for a replay.
    this.#lastTimestampUs = Math.max(this.#lastTimestampUs + 1, nowUs + this.unixOffsetUs);
    const state = session === NONE ? undefined : createInitiation(
      primitives,
      message,
      staticPublic,
      peer.publicKey,
      peer.staticSecret,
      this.#bytes(32),
      tai64n(this.#lastTimestampUs),
    );
    peer.lastInitiationSentUs = nowUs;
    peer.retryAtUs = nowUs + limits.rekeyTimeoutUs + this.#jitterUs();
    if (peer.attemptsSinceUs === Infinity) peer.attemptsSinceUs = nowUs;
    if (!state) {
      table.erase(session);
      burst.next[row] = 0;
    } else {
      burst.view.setUint32(burst.offset[row] + 4, table.receiverIndex[session], true);
      peer.jar.sign(message, INITIATION_MAC1_AT, nowUs);
      burst.address.set(peers.address.subarray(4 * id, 4 * id + 4), 4 * row);
      burst.port[row] = peers.port[id];
      burst.local.set(peers.local.subarray(4 * id, 4 * id + 4), 4 * row);
      peer.pending = { state, row: session, sentUs: nowUs };
    }
    this.#traversed(id, nowUs);
    this.#reschedule(peer);
    return true;
  }

  /** The responder's side of completion: the first packet under `next` proves that the initiator has the key. */
  #confirm(id: number, nowUs: number): void {
    const { peers, table } = this.#o;
    table.erase(peers.previous[id]);
    peers.previous[id] = peers.current[id];
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

  #completed(peer: Peer, nowUs: number): void {
    peer.lastHandshakeUs = nowUs;
    peer.retryAtUs = Infinity;
    peer.attemptsSinceUs = Infinity;
    peer.askedForSuccessor = false;
    this.#o.peers.jitterUs[peer.id] = this.#jitterUs();
    this.#dropPending(peer);
    this.#noteConnection(peer);
    if (!peer.established) {
      peer.established = true;
      this.#note("connected", peer.id);
    }
    this.#o.count("handshakes_completed");
    this.#reschedule(peer);
  }

  #askForSuccessor(id: number): void {
    const peer = this.#o.peers.get(id)!;
    if (peer.askedForSuccessor) return;
    peer.askedForSuccessor = true;
    this.want(id, WANTS_INITIATION);
  }

  #dropPending(peer: Peer): void {
    if (!peer.pending) return;
    wipeHandshake(peer.pending.state);
    this.#o.table.erase(peer.pending.row);
    peer.pending = undefined;
  }

  #note(kind: EventKind, id: number): void {
    this.events.push(kind, id, this.#o.peers.generation[id]);
  }

  #traversed(id: number, nowUs: number): void {
    const { peers } = this.#o;
    if (peers.persistentKeepaliveUs[id] === 0) return;
    peers.persistentAtUs[id] = nowUs + peers.persistentKeepaliveUs[id];
    this.timers.hasten(id, peers.persistentAtUs[id]);
  }

  #noteConnection(peer: Peer): void {
    const { peers } = this.#o;
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
    const { peers, table, limits } = this.#o;
    const { id } = peer;
    let dueUs = Math.min(
      peer.retryAtUs,
      peers.keepaliveAtUs[id],
      peers.silenceAtUs[id],
      peers.persistentAtUs[id],
    );
    for (const epoch of [peers.next, peers.current, peers.previous]) {
      if (epoch[id] !== NONE) dueUs = Math.min(dueUs, table.bornUs[epoch[id]] + limits.rejectAfterUs);
    }
    this.timers.set(id, dueUs);
  }

  #jitterUs(): number {
    this.#o.random(this.#randomBytes);
    return this.#randomWord[0] % this.#o.limits.jitterUs;
  }

  #bytes(count: number): Uint8Array {
    const bytes = new Uint8Array(count);
    this.#o.random(bytes);
    return bytes;
  }
}

/** Standard base64 with padding (RFC 4648 §4), as WireGuard's tools write keys. */
export function base64(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes));
}
