/**
 * Pings and pongs of a session (PROTOCOL §14): the round trip and its jitter, and whether the path is dead. Invariant: a ping
 * carries this end's clock and the pong repeats it, so that no table of pings is kept; a pong is never answered. Does not
 * decide what silence means for the session beyond a handshake.
 */
import { Jitter } from "../../../control/jitter.ts";
import type { Burst } from "../../../vector/burst.ts";
import {
  CONTROL_PING,
  CONTROL_PONG,
  controlKind,
  readHeldUs,
  readToken,
  writePing,
  writePong,
} from "../../../wire/control.ts";
import { FRAME_HEAD_BYTES } from "../../../wire/frame.ts";
import type { SessionContext, Subject } from "./subject.ts";

/** Pings without an answer after which the path counts as dead. */
const PINGS_MAX = 8;
/** Least time from ping to ping, microseconds; and the share of the round trip, where that is longer (PROTOCOL §14). */
const PING_US_MIN = 75_000;
/** How often a path that is dead is asked while another one of the session lives, microseconds. */
export const ASK_DEAD_US = 1_000_000;
/** The same where a session has several paths, so that packets leave a silent one within a quarter of a second. */
const PING_US_MIN_OF_SEVERAL = 60_000;
const PING_ROUND_TRIPS = 1 / 4;
/** A pong that claims a longer round trip is not believed, microseconds. */
const ROUND_TRIP_US_MAX = 60e6;
/** RFC 6298's gain. */
const GAIN = 1 / 8;
const PING_BYTES = FRAME_HEAD_BYTES + 5, PONG_BYTES = FRAME_HEAD_BYTES + 9;

/**
 * How long nothing may come after data went out before a ping does; `roundTripUs` as `SessionContext` has it. @param areSeveral
 * whether the session has other paths.
 */
export function pingIntervalUs(roundTripUs: number, areSeveral = false): number {
  return Math.max(areSeveral ? PING_US_MIN_OF_SEVERAL : PING_US_MIN, PING_ROUND_TRIPS * roundTripUs);
}

export class RoundTrip implements Subject {
  readonly dueUs = Infinity;
  /** How much one round trip differs from the next. */
  readonly jitter = new Jitter();
  readonly #session: SessionContext;
  #isPingDue = false;
  #isPongDue = false;
  #pongToken = 0;
  #pongSinceUs = 0;

  constructor(session: SessionContext) {
    this.#session = session;
  }

  /** Whether the path is dead: data went out, and nothing answered the data nor the pings that followed. */
  get isSilent(): boolean {
    const { sessions, path } = this.#session;
    return sessions.unanswered[path] > PINGS_MAX;
  }

  /** Has a ping sent. */
  ping(): void {
    this.#isPingDue = true;
    this.#session.speak();
  }

  /** Nothing came since data went out, for the `times`-th time. */
  onSilence(times: number): void {
    const { sessions, path } = this.#session;
    if (times <= PINGS_MAX || this.#session.onDead()) this.ping();
    else sessions.pingAtUs[path] = Infinity;
  }

  hasWord(): boolean {
    return this.#isPingDue || this.#isPongDue;
  }

  write({ view }: Burst, at: number, room: number, nowUs: number): number {
    let bytes = 0;
    if (this.#isPongDue && room >= PONG_BYTES) {
      this.#isPongDue = false;
      bytes += writePong(view, at, this.#pongToken, nowUs - this.#pongSinceUs);
    }
    if (this.#isPingDue && room - bytes >= PING_BYTES) {
      this.#isPingDue = false;
      bytes += writePing(view, at + bytes, nowUs >>> 0);
    }
    return bytes;
  }

  handleTimeout(): void {}

  takes(kind: number): boolean {
    return kind === CONTROL_PING || kind === CONTROL_PONG;
  }

  onControl({ view }: Burst, _row: number, at: number, _length: number, nowUs: number): void {
    if (controlKind(view, at) === CONTROL_PONG) {
      return this.#onPong(readToken(view, at), readHeldUs(view, at), nowUs);
    }
    this.#isPongDue = true;
    this.#pongToken = readToken(view, at);
    this.#pongSinceUs = nowUs;
    this.#session.speak();
  }

  #onPong(token: number, heldUs: number, nowUs: number): void {
    const sampleUs = ((nowUs >>> 0) - token >>> 0) - heldUs;
    if (sampleUs < 0 || sampleUs > ROUND_TRIP_US_MAX) return;
    this.#session.answered(Math.floor(nowUs) - sampleUs - heldUs);
    this.jitter.add(sampleUs);
    const { rttUs } = this.#session;
    this.#session.rttUs = rttUs < 0 ? sampleUs : rttUs + GAIN * (sampleUs - rttUs);
  }
}
