/**
 * The close of a session (PROTOCOL §14): the end that closes sends three closes, 100 ms apart, and then erases the keys; the
 * end that receives one ends the session at once. Invariant: a session is closed once, for one reason, which the caller
 * gives. Does not stop data: the caller has taken the session out of use.
 * Keeps PROTOCOL R57.
 */
import type { Burst } from "../../../vector/burst.ts";
import { CONTROL_CLOSE, writeClose } from "../../../wire/control.ts";
import { FRAME_HEAD_BYTES } from "../../../wire/frame.ts";
import type { SessionContext, Subject } from "./subject.ts";

/** How often the close is sent, and the time from one to the next, microseconds. */
const CLOSES = 3;
const CLOSE_US = 100_000;
const CLOSE_BYTES = FRAME_HEAD_BYTES + 4;

export class Closing implements Subject {
  dueUs = Infinity;
  readonly #session: SessionContext;
  #closesLeft = 0;
  #isDue = false;
  #reason = 0;
  #retryAfterS = 0;

  constructor(session: SessionContext) {
    this.#session = session;
  }

  /** Whether a close has still to be sent. */
  get isClosing(): boolean {
    return this.#closesLeft > 0;
  }

  /**
   * Closes the session at both ends. False when it is being closed already.
   * @param reason CLOSE_*. @param retryAfterS seconds, 0 to 65535; 0 is never.
   */
  close(reason: number, retryAfterS: number, nowUs: number): boolean {
    if (this.#reason !== 0) return false;
    this.#reason = reason;
    this.#retryAfterS = retryAfterS;
    this.#closesLeft = CLOSES;
    this.dueUs = nowUs;
    this.#session.hasten(nowUs);
    return true;
  }

  hasWord(): boolean {
    return this.#isDue;
  }

  write({ view }: Burst, at: number, room: number, nowUs: number): number {
    if (room < CLOSE_BYTES) return 0;
    this.#isDue = false;
    this.#closesLeft--;
    this.dueUs = nowUs + CLOSE_US;
    this.#session.hasten(this.dueUs);
    return writeClose(view, at, this.#reason, this.#retryAfterS);
  }

  handleTimeout(nowUs: number): void {
    const { row, host } = this.#session;
    this.dueUs = Infinity;
    this.#isDue = this.isClosing;
    if (!this.#isDue) host.shared.table.endsUs[row] = nowUs;
    this.#session.speak();
  }

  takes(kind: number): boolean {
    return kind === CONTROL_CLOSE;
  }

  onControl(): void {
    this.#session.host.forget(this.#session);
  }
}
