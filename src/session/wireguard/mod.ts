/**
 * WireGuard's handshake messages and timers between peers (PROTOCOL §3, §5; whitepaper §5.4 and §6), beside what both
 * protocols share (session/associations.ts). Invariant: nothing changes for a message that has not authenticated, except
 * counters. Answers are written over the message that asked.
 * Keeps PROTOCOL R7, R10 and R16.
 */
import { DROP } from "../../metrics.ts";
import { type Burst, TO_INITIATION_ADMITTED, TO_SEAL, TO_TRANSMIT } from "../../vector/burst.ts";
import { NONE } from "../../vector/arena.ts";
import {
  INITIATION_BYTES,
  INITIATION_MAC1_AT,
  readResponseReceiver,
  readSender,
  RESPONSE_BYTES,
  RESPONSE_MAC1_AT,
} from "../../wire/wireguard.ts";
import { CookieChecker, type CookieJar } from "../cookie.ts";
import type { Epochs } from "../epochs.ts";
import type { HandshakeGate } from "../handshake_gate.ts";
import { freshBytes } from "../noise.ts";
import type { Outbox } from "../outbox.ts";
import {
  consumeResponse,
  createInitiation,
  createResponse,
  type HandshakeState,
  openInitiation,
  openTimestamp,
  wipeHandshake,
} from "./handshake.ts";
import type { Peer } from "../peers.ts";
import type { Protocol, Shared } from "../shared.ts";

/** The shared parts that WireGuard works with. */
export interface WireguardParts {
  readonly shared: Shared;
  readonly epochs: Epochs;
  readonly gate: HandshakeGate;
  readonly outbox: Outbox;
}

/** Told when a WireGuard session becomes the peer's present one: its handshake is complete. */
export type WireguardBegun = (peer: number, nowUs: number) => void;

export class Wireguard implements Protocol {
  readonly checker: CookieChecker;
  readonly #s: Shared;
  readonly #p: WireguardParts;
  readonly #begun: WireguardBegun;

  constructor(parts: WireguardParts, begun: WireguardBegun = () => {}) {
    this.#p = parts;
    this.#begun = begun;
    this.#s = parts.shared;
    const { staticPublic, random, limits } = parts.shared;
    this.checker = new CookieChecker(staticPublic, random, limits.cookieUs);
  }

  /** Answers the initiation in `row` over itself, or says in `next` why not. */
  onInitiation(burst: Burst, row: number, nowUs: number): void {
    const { epochs, gate, outbox } = this.#p;
    const { primitives, paths, peers, table, staticPrivate, staticPublic, random } = this.#s;
    const { offset, next, address, port, local } = burst;
    const message = burst.bytes.subarray(offset[row], offset[row] + INITIATION_BYTES);
    if (
      next[row] !== TO_INITIATION_ADMITTED &&
      !gate.admits(burst, row, message, INITIATION_MAC1_AT, this.checker, true, nowUs)
    ) return;
    const opened = openInitiation(primitives, message, staticPrivate, staticPublic);
    if (!opened) {
      next[row] = DROP.handshake_failed;
      return;
    }
    const peer = gate.initiatorOf(burst, row, opened);
    if (!peer) return;
    const timestamp = openTimestamp(primitives, message, opened, peer.staticSecret);
    const session = gate.sessionFor(burst, row, peer, timestamp, nowUs);
    if (!timestamp || session === NONE) {
      wipeHandshake(opened.state);
      return;
    }
    const keys = createResponse(primitives, message, opened, peer.presharedKey, freshBytes(random, 32));
    if (!keys) {
      wipeHandshake(opened.state);
      table.erase(session);
      next[row] = DROP.handshake_failed;
      return;
    }
    const sender = readSender(burst.view, offset[row]);
    this.#key(session, sender, false, nowUs, keys.sendKey, keys.receiveKey);
    if (!epochs.isOnOxtunnel(peer.id, session)) {
      paths.roam(peer.id, address, 4 * row, port[row], local);
    }
    peers.silenceAtUs[peer.id] = Infinity; // an initiation is an authentic packet too
    burst.view.setUint32(offset[row] + 4, table.receiverIndex[session], true);
    burst.view.setUint32(offset[row] + 8, sender, true);
    peer.jar.sign(message.subarray(0, RESPONSE_BYTES), RESPONSE_MAC1_AT, nowUs);
    burst.length[row] = RESPONSE_BYTES;
    next[row] = TO_TRANSMIT;
    outbox.answered(peer, session, timestamp, nowUs);
  }

  /** Completes the handshake that the response in `row` answers. */
  onResponse(burst: Burst, row: number, nowUs: number): void {
    const { gate, outbox } = this.#p;
    const { primitives, paths, staticPrivate } = this.#s;
    const { offset, next, address, port, local } = burst;
    const message = burst.bytes.subarray(offset[row], offset[row] + RESPONSE_BYTES);
    const session = readResponseReceiver(burst.view, offset[row]);
    const peer = gate.responderTo(
      burst,
      row,
      message,
      RESPONSE_MAC1_AT,
      this.checker,
      session,
      nowUs,
    );
    if (!peer?.pending) return;
    const { state, row: epoch } = peer.pending;
    const keys = consumeResponse(primitives, message, state, staticPrivate, peer.presharedKey);
    if (!keys) {
      next[row] = DROP.handshake_failed;
      return;
    }
    paths.roam(peer.id, address, 4 * row, port[row], local);
    this.#key(epoch, readSender(burst.view, offset[row]), true, nowUs, keys.sendKey, keys.receiveKey);
    outbox.finished(peer, nowUs);
    this.#begun(peer.id, nowUs);
    this.received(peer.id, epoch, false, nowUs);
  }

  jarOf(peer: Peer): CookieJar {
    return peer.jar;
  }

  /** WireGuard's initiations carry no packets. */
  earlyData(): undefined {}

  initiationBytes(): number {
    return INITIATION_BYTES;
  }

  /** Writes an initiation of `initiationBytes` and signs it; undefined when the peer's key is a low-order point. */
  writeInitiation(
    message: Uint8Array,
    peer: Peer,
    session: number,
    timestamp: Uint8Array,
    nowUs: number,
  ): HandshakeState | undefined {
    const { primitives, staticPublic, table, random } = this.#s;
    const state = createInitiation(
      primitives,
      message,
      staticPublic,
      peer.publicKey,
      peer.staticSecret,
      freshBytes(random, 32),
      timestamp,
    );
    if (!state) return undefined;
    const index = table.receiverIndex[session];
    for (let i = 0; i < 4; i++) message[4 + i] = index >>> (8 * i);
    peer.jar.sign(message, INITIATION_MAC1_AT, nowUs);
    return state;
  }

  forgetPending(): void {}

  isUrgent(): boolean {
    return false;
  }

  awaitedUntilUs(): number {
    return -Infinity;
  }

  mayAnswerEarly(): boolean {
    return false;
  }

  answerEarly(): void {}

  /** Adds a packet without data (whitepaper §6.5). */
  keepalive(burst: Burst, id: number, session: number): boolean {
    const row = burst.grow(0, TO_SEAL);
    if (row < 0) return false;
    burst.peer[row] = id;
    burst.session[row] = session;
    return true;
  }

  // A WireGuard session has no word, deadline or secret besides its row's.

  pollTransmit(): boolean {
    return true;
  }

  dueUs(): number {
    return Infinity;
  }

  handleTimeout(): void {}

  superseded(): void {}

  end(): void {}

  /** After authentic packets on `session`, any of them with data or none: confirmation of a new key, timers. Hot: no allocation. */
  received(id: number, session: number, isData: boolean, nowUs: number): void {
    const { outbox } = this.#p;
    const { peers, table, limits, timers } = this.#s;
    if (session === peers.next[id]) {
      outbox.confirm(id, nowUs);
      this.#begun(id, nowUs);
    }
    peers.silenceAtUs[id] = Infinity;
    if (isData) {
      if (peers.keepaliveAtUs[id] === Infinity) {
        peers.keepaliveAtUs[id] = nowUs + limits.keepaliveUs;
        timers.hasten(id, peers.keepaliveAtUs[id]);
      }
    }
    outbox.traversed(id, nowUs);
    if (
      table.initiator[session] === 1 && session === peers.current[id] &&
      nowUs - table.bornUs[session] > limits.rejectAfterUs - limits.keepaliveUs - limits.rekeyTimeoutUs
    ) this.#askForSuccessor(id);
  }

  /** After packets were made for the peer on its current session, any of them with data or none. Hot: no allocation. */
  sent(id: number, session: number, isData: boolean, nowUs: number): void {
    const { outbox } = this.#p;
    const { peers, table, limits, timers } = this.#s;
    peers.keepaliveAtUs[id] = Infinity;
    if (isData && peers.silenceAtUs[id] === Infinity) {
      peers.silenceAtUs[id] = nowUs + limits.keepaliveUs + limits.rekeyTimeoutUs + peers.jitterUs[id];
      timers.hasten(id, peers.silenceAtUs[id]);
    }
    outbox.traversed(id, nowUs);
    if (
      table.sendCounter[session] > limits.rekeyAfterMessages ||
      (table.initiator[session] === 1 && nowUs - table.bornUs[session] > limits.rekeyAfterUs)
    ) outbox.initiate(id);
  }

  /** Gives the row its keys, whose copies are wiped, and its limits. */
  #key(
    session: number,
    remoteIndex: number,
    initiator: boolean,
    nowUs: number,
    sendKey: Uint8Array,
    receiveKey: Uint8Array,
  ): void {
    const { table, limits } = this.#s;
    table.key(session, remoteIndex, initiator, nowUs, sendKey, receiveKey);
    sendKey.fill(0);
    receiveKey.fill(0);
    // Earlier than the whitepaper's three times REJECT_AFTER_TIME: a key that may not be used is not kept.
    table.endsUs[session] = nowUs + limits.rejectAfterUs;
    table.sendLimit[session] = limits.rejectAfterMessages;
  }

  #askForSuccessor(id: number): void {
    const peer = this.#s.peers.get(id)!;
    if (peer.askedForSuccessor) return;
    peer.askedForSuccessor = true;
    this.#p.outbox.initiate(id);
  }
}
