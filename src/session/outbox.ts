/**
 * What waits to be sent to each peer, and when (PROTOCOL §5, §10): a queue of peers with something to send, the order in
 * which `pollTransmit` sends it, and the one deadline of each peer. Invariant: nothing is sent but by `pollTransmit`, and
 * what finds the burst full stays in the queue. Answers to handshake messages do not pass here: the protocols write them
 * over the message that asked.
 */
import { DROP } from "../metrics.ts";
import { type Burst, TO_SEAL, TO_SEAL_DATAGRAM } from "../vector/burst.ts";
import { NONE } from "../vector/arena.ts";
import { type Attempts, EMIT_FULL, EMIT_MADE } from "./attempts.ts";
import type { Epochs } from "./epochs.ts";
import type { HandshakeGate } from "./handshake_gate.ts";
import type { Peer } from "./peers.ts";
import type { Shared } from "./shared.ts";
import type { Staging } from "./staging.ts";

// What a peer may be in the queue for, in the order in which it is sent.
const WANTS_INITIATION = 1;
const WANTS_KEEPALIVE = 2;
const WANTS_FLUSH = 4;
const WANTS_CONTROL = 8;

export class Outbox {
  readonly #s: Shared;
  readonly #epochs: Epochs;
  readonly #gate: HandshakeGate;
  readonly #staging: Staging;
  readonly #attempts: Attempts;
  /** WANTS_* by peer: what is to be sent to the peer; and the peers with any, each once. */
  readonly #wants: Uint8Array;
  readonly #queue: number[] = [];

  constructor(shared: Shared, epochs: Epochs, gate: HandshakeGate, staging: Staging, attempts: Attempts) {
    this.#s = shared;
    this.#epochs = epochs;
    this.#gate = gate;
    this.#staging = staging;
    this.#attempts = attempts;
    this.#wants = new Uint8Array(shared.peers.capacity);
  }

  /** Begins a handshake with the peer now, unless one is under way. */
  initiate(id: number): void {
    this.want(id, WANTS_INITIATION);
  }

  /**
   * Begins a handshake with the peer together with the next packet to it, or with what waits already, and at `untilUs`
   * without one. A handshake that is under way continues.
   */
  initiateWithPacket(peer: Peer, untilUs: number): void {
    if (peer.staged.length > 0) return this.want(peer.id, WANTS_INITIATION);
    if (peer.pending !== undefined || peer.retryAtUs <= untilUs) return;
    peer.retryAtUs = untilUs;
    this.#s.timers.hasten(peer.id, untilUs);
  }

  /** Begins the persistent keepalive of a peer that has one. */
  startKeepalive(peer: Peer, nowUs: number): void {
    if (this.#s.peers.persistentKeepaliveUs[peer.id] > 0) this.want(peer.id, WANTS_INITIATION);
    this.traversed(peer.id, nowUs);
  }

  /** Lets the peer's sessions send what they have to say by themselves. */
  wantControl(id: number): void {
    this.want(id, WANTS_CONTROL);
  }

  /** Notes for `pollTransmit` what the peer is to be sent, WANTS_*. */
  want(id: number, wants: number): void {
    if (this.#wants[id] === 0) this.#queue.push(id);
    this.#wants[id] |= wants;
  }

  /** Keeps the packet of `row` until the peer has a session, and begins a handshake; drops it when the relay is full. */
  stage(burst: Burst, row: number, id: number): void {
    const { peers } = this.#s;
    const peer = peers.get(id)!;
    if (this.#gate.isFullFor(peer)) {
      burst.next[row] = DROP.max_connections;
      peers.drops[id]++;
      return;
    }
    this.#staging.add(burst, row, peer);
    this.want(id, WANTS_INITIATION);
  }

  /** After the peer's initiation was answered and `session` got its keys: it waits for its first packet. */
  answered(peer: Peer, session: number, timestamp: Uint8Array, nowUs: number): void {
    this.#gate.taken(peer, timestamp, nowUs);
    this.#epochs.addNext(peer, session);
    this.traversed(peer.id, nowUs);
    this.#reschedule(peer);
  }

  /** After the pending handshake's row got its keys: it is the peer's session now. */
  finished(peer: Peer, nowUs: number): void {
    const { row, sentUs } = peer.pending!;
    peer.pending = undefined;
    peer.handshakeRttUs = nowUs - sentUs;
    this.#epochs.begin(peer.id, row, nowUs);
    this.#completed(peer, nowUs);
    // The first data message confirms the key to the responder: what waits, or else a keepalive.
    this.want(peer.id, WANTS_FLUSH | (peer.staged.length === 0 ? WANTS_KEEPALIVE : 0));
  }

  /** The responder's side of completion: the first packet under the next session proves that the initiator has the key. */
  confirm(id: number, nowUs: number): void {
    const { peers, table } = this.#s;
    this.#epochs.confirm(id, nowUs);
    const peer = peers.get(id)!;
    // The response left when the key was made, and an initiator confirms it at once (whitepaper §5.4.6). If that
    // confirmation was lost, this later one says nothing of the path.
    const epoch = peers.current[id];
    if (table.replay.highest[epoch] === 0) peer.handshakeRttUs = nowUs - table.bornUs[epoch];
    this.#completed(peer, nowUs);
    this.want(id, WANTS_FLUSH);
  }

  #completed(peer: Peer, nowUs: number): void {
    this.#attempts.succeeded(peer, nowUs);
    this.#epochs.noteConnection(peer);
    if (!peer.established) {
      peer.established = true;
      this.#epochs.note("connected", peer.id);
    }
    this.#s.metrics.add("handshakes_completed", 1);
    this.#reschedule(peer);
  }

  /**
   * Adds due datagrams to the burst: initiations ready to send, keepalives and staged packets as TO_SEAL rows with `peer`
   * and `session` set, and what sessions have to say by themselves. Returns the rows added; call again until it returns 0.
   */
  pollTransmit(burst: Burst, nowUs: number): number {
    const { peers } = this.#s;
    const before = burst.count;
    for (let left = this.#queue.length; left > 0; left--) {
      const id = this.#queue.shift()!;
      const wants = this.#wants[id];
      this.#wants[id] = 0;
      const peer = peers.get(id);
      if (!peer) continue;
      const waiting = this.#queue.length;
      const kept = this.#send(burst, peer, wants, nowUs);
      if (kept !== 0) {
        this.want(id, kept);
        return burst.count - before;
      }
      // A keepalive that has become a ping is in the queue now, and is not to wait there for the next event.
      if ((wants & WANTS_KEEPALIVE) !== 0) left += this.#queue.length - waiting;
    }
    return burst.count - before;
  }

  /** Adds the peer's datagrams of the kinds in `wants` to the burst; returns the WANTS_* for which there is no room, 0 for none. */
  #send(burst: Burst, peer: Peer, wants: number, nowUs: number): number {
    if ((wants & WANTS_INITIATION) !== 0 && !this.#initiation(burst, peer, nowUs)) return wants;
    if ((wants & (WANTS_FLUSH | WANTS_KEEPALIVE)) !== 0) {
      const { table, protocols } = this.#s;
      const session = this.#epochs.sendable(peer.id, nowUs);
      if (session !== NONE) {
        if (!this.#flush(burst, peer, session)) return wants & ~WANTS_INITIATION;
        const protocol = protocols[table.protocol[session]]!;
        if ((wants & WANTS_KEEPALIVE) !== 0 && !protocol.keepalive(burst, peer.id, session)) {
          return wants & (WANTS_KEEPALIVE | WANTS_CONTROL);
        }
      }
    }
    return (wants & WANTS_CONTROL) === 0 || this.#control(burst, peer.id, nowUs) ? 0 : WANTS_CONTROL;
  }

  #control(burst: Burst, id: number, nowUs: number): boolean {
    for (const protocol of this.#s.protocols) {
      if (protocol !== undefined && !protocol.pollTransmit(burst, id, nowUs)) return false;
    }
    return true;
  }

  /** Sends the packets that wait; false when the burst is full before the last of them. */
  #flush(burst: Burst, peer: Peer, session: number): boolean {
    while (peer.staged.length > 0) {
      if (burst.count === burst.slot.length) return false;
      const row = this.#push(burst, peer, TO_SEAL);
      burst.peer[row] = peer.id;
      burst.session[row] = session;
    }
    return true;
  }

  /** Moves the peer's oldest waiting packet to a row of the burst, which has room. */
  #push(burst: Burst, peer: Peer, step: number): number {
    const packet = this.#staging.take(peer);
    const row = burst.push(packet.slot, packet.length, step);
    burst.offset[row] = packet.offset;
    return row;
  }

  /** Begins a handshake, if its time has come; false when burst or arena is full, so that the wish is kept. */
  #initiation(burst: Burst, peer: Peer, nowUs: number): boolean {
    const { peers, paths } = this.#s;
    if (paths.port[paths.of(peer.id)] === 0) return true;
    if (!this.#answerEarly(burst, peer, peers.next[peer.id])) return false;
    const outcome = this.#attempts.emit(burst, peer, nowUs);
    if (outcome === EMIT_MADE) {
      this.traversed(peer.id, nowUs);
      this.#reschedule(peer);
    }
    return outcome !== EMIT_FULL;
  }

  /** Sends what waits as answers to early data, as far as they may go; false when the burst is full. */
  #answerEarly(burst: Burst, peer: Peer, session: number): boolean {
    if (session === NONE) return true;
    const protocol = this.#s.protocols[this.#s.table.protocol[session]]!;
    while (peer.staged.length > 0 && protocol.mayAnswerEarly(session, peer.staged[0].length)) {
      if (burst.count === burst.slot.length) return false;
      protocol.answerEarly(burst, this.#push(burst, peer, TO_SEAL_DATAGRAM), session);
    }
    return true;
  }

  /** Does what is due. The results come out of `pollTransmit`; the slots of given-up packets are handed to `release`. */
  handleTimeout(nowUs: number, release: (slot: number) => void): void {
    const { peers, timers } = this.#s;
    for (let id = timers.takeExpired(nowUs); id >= 0; id = timers.takeExpired(nowUs)) {
      const peer = peers.get(id);
      if (!peer) continue;
      this.#epochs.handleTimeout(peer, nowUs);
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
        this.want(id, this.#epochs.sendable(id, nowUs) === NONE ? WANTS_INITIATION : WANTS_KEEPALIVE);
      }
      if (peer.retryAtUs <= nowUs) {
        peer.retryAtUs = Infinity;
        this.#attempts.drop(peer);
        if (this.#attempts.isExhausted(peer, nowUs)) this.#staging.giveUp(peer, release);
        else this.want(id, WANTS_INITIATION);
      }
      this.#reschedule(peer);
    }
  }

  /** Ends all sessions of a peer and gives its waiting packets' slots to `release`. */
  end(peer: Peer, release: (slot: number) => void): void {
    this.#attempts.drop(peer);
    this.#epochs.end(peer);
    this.#staging.giveUp(peer, release);
    this.#s.timers.set(peer.id, Infinity);
  }

  /** Begins the interval to the next persistent keepalive anew: a packet went to the peer or came from it. Hot: no allocation. */
  traversed(id: number, nowUs: number): void {
    const { peers, timers } = this.#s;
    if (!peers.isAnyKeptAlive || peers.persistentKeepaliveUs[id] === 0) return;
    peers.persistentAtUs[id] = nowUs + peers.persistentKeepaliveUs[id];
    timers.hasten(id, peers.persistentAtUs[id]);
  }

  #reschedule(peer: Peer): void {
    const { peers, timers } = this.#s;
    const { id, retryAtUs } = peer;
    const { keepaliveAtUs, silenceAtUs, persistentAtUs } = peers;
    timers.set(
      id,
      Math.min(retryAtUs, keepaliveAtUs[id], silenceAtUs[id], persistentAtUs[id], this.#epochs.dueUs(id)),
    );
  }
}
