/**
 * A session's next epoch (PROTOCOL §15): when this end asks for one, repeats its request, answers the other end's,
 * sends under the new keys and overwrites the old ones. The exchange itself is session/oxtunnel/keys.ts's. Invariant: one
 * exchange is under way at a time, and none is asked for or answered before the keys of the last epoch are overwritten.
 * Keeps PROTOCOL R58 and R59.
 */
import type { Burst } from "../../../vector/burst.ts";
import {
  CONTROL_KEY_EXCHANGE,
  KEY_ANSWER,
  KEY_PART_AT,
  KEY_PART_BYTES,
  keyPartBytes,
  readKeyRole,
  writeKeyExchange,
} from "../../../wire/control.ts";
import { FRAME_HEAD_BYTES } from "../../../wire/frame.ts";
import { KEY_EXCHANGE_PRICE } from "../control_budget.ts";
import type { KeyExchange } from "../keys.ts";
import type { SessionContext, Subject } from "./subject.ts";

/** The longest frame of a part. */
const PART_BYTES_MAX = FRAME_HEAD_BYTES + KEY_PART_AT + KEY_PART_BYTES;
/** A request is repeated after twice the round trip, and no sooner than after this, microseconds. */
const REPEAT_US_MIN = 250_000;

export class KeyRenewal implements Subject {
  readonly #session: SessionContext;
  readonly #keys: KeyExchange;
  #repeatAtUs = Infinity;
  /** When the last epoch's keys are overwritten, or Infinity. */
  #retireAtUs = Infinity;
  /** When a request of the other end may be computed again. */
  #nextRequestUs = -Infinity;

  constructor(session: SessionContext, keys: KeyExchange) {
    this.#session = session;
    this.#keys = keys;
  }

  /** The number of the newest epoch that both ends have. */
  get epoch(): number {
    return this.#keys.epoch;
  }

  get dueUs(): number {
    return Math.min(this.#repeatAtUs, this.#retireAtUs);
  }

  /** Asks for the next epoch, or, near the end of the session's life, begins a handshake. */
  renew(nowUs: number): void {
    const { row, peer, host } = this.#session;
    const { table, limits } = host.shared;
    if (nowUs >= table.bornUs[row] + limits.sessionUs - limits.rejectAfterUs) host.initiate(peer);
    if (this.#keys.isAsking || this.#keys.isUnconfirmed || this.#retireAtUs !== Infinity) return;
    this.#keys.ask();
    this.#repeatLater(nowUs);
  }

  /** Something has opened under the epoch that was awaited: the last one opens for a grace period more. */
  confirm(nowUs: number): void {
    const { row, sessions, host } = this.#session;
    const { limits, metrics } = host.shared;
    this.#keys.confirm();
    const phase = this.#keys.epoch & 1;
    if (sessions.sendPhase[row] !== phase) sessions.enterEpoch(row, phase, nowUs);
    this.#retireAtUs = nowUs + limits.graceUs;
    this.#session.hasten(this.#retireAtUs);
    metrics.add("epochs_made", 1);
  }

  hasWord(): boolean {
    return this.#keys.partsToSend !== 0;
  }

  write({ view }: Burst, at: number, room: number): number {
    const keys = this.#keys;
    let bytes = 0;
    for (let part = 0; keys.partsToSend !== 0 && bytes + PART_BYTES_MAX <= room; part++) {
      if ((keys.partsToSend & (1 << part)) === 0) continue;
      bytes += this.#writePart(view, at + bytes, part * KEY_PART_BYTES);
      keys.partsToSend &= ~(1 << part);
    }
    return bytes;
  }

  handleTimeout(nowUs: number): void {
    const { row, sessions } = this.#session;
    if (this.#retireAtUs <= nowUs) {
      this.#retireAtUs = Infinity;
      sessions.datagramAead.retire(row, (this.#keys.epoch & 1) ^ 1);
    }
    if (this.#repeatAtUs > nowUs) return;
    if (this.#keys.isAsking) {
      this.#keys.repeat();
      this.#repeatLater(nowUs);
    } else this.#repeatAtUs = Infinity;
  }

  takes(kind: number): boolean {
    return kind === CONTROL_KEY_EXCHANGE;
  }

  onControl({ view }: Burst, _row: number, at: number, _length: number, nowUs: number): void {
    const { row, peer, sessions, host, isEnding } = this.#session;
    const { budget, exchangesLeft } = sessions;
    const isAnswer = readKeyRole(view, at) === KEY_ANSWER;
    // One exchange at a time, one computed per grace period even if the exchange fails, and few in a burst and for one peer.
    const mayCompute = !isEnding && this.#retireAtUs === Infinity && exchangesLeft > 0 &&
      (isAnswer || nowUs >= this.#nextRequestUs) && budget.has(peer, KEY_EXCHANGE_PRICE, nowUs);
    const { computed } = this.#keys;
    const keys = this.#keys.onPart(view, at, mayCompute);
    if (this.#keys.computed !== computed) {
      sessions.exchangesLeft--;
      budget.pay(peer, KEY_EXCHANGE_PRICE, nowUs);
      if (!isAnswer) this.#nextRequestUs = nowUs + host.shared.limits.graceUs;
    }
    if (this.#keys.partsToSend !== 0) this.#session.speak();
    if (!keys) return;
    const phase = (this.#keys.epoch + 1) & 1;
    sessions.datagramAead.install(row, phase, keys.sendKey, keys.receiveKey);
    keys.sendKey.fill(0);
    keys.receiveKey.fill(0);
    sessions.awaitedPhase[row] = phase;
    if (!isAnswer) return;
    this.#repeatAtUs = Infinity;
    sessions.enterEpoch(row, phase, nowUs);
    this.#session.ping();
  }

  wipe(): void {
    this.#keys.wipe();
  }

  #repeatLater(nowUs: number): void {
    this.#repeatAtUs = nowUs + Math.max(REPEAT_US_MIN, 2 * this.#session.rttUs);
    this.#session.hasten(this.#repeatAtUs);
    this.#session.speak();
  }

  #writePart(view: DataView, at: number, offset: number): number {
    const { message, role, epoch } = this.#keys;
    const body = writeKeyExchange(view, at, role, epoch + 1, message.length, offset);
    const bytes = keyPartBytes(message.length, offset);
    for (let i = 0; i < bytes; i++) view.setUint8(body + i, message[offset + i]);
    return body + bytes - at;
  }
}
