/**
 * Reliable frames of a session (PROTOCOL §14): in each direction one at a time is under way, repeated unchanged until the
 * other end acknowledges it (stop and wait). Invariant: a frame is obeyed once and in order, and every one that comes is
 * acknowledged, known or not. Does not know what the frames say: that is the matter of each `ReliableSubject`.
 * Keeps PROTOCOL R53 and R54.
 */
import type { Burst } from "../../../vector/burst.ts";
import { CONTROL_ACK, readSequence, writeShort } from "../../../wire/control.ts";
import { FRAME_HEAD_BYTES } from "../../../wire/frame.ts";
import type { SessionContext, Subject } from "./subject.ts";

/** A frame is repeated after twice the round trip, and no sooner than after this, microseconds. */
const REPEAT_US_MIN = 100_000;
const ACK_BYTES = FRAME_HEAD_BYTES + 3;
const SEQUENCES = 65536;

/** Writes the acknowledgements, and decides whose frame is under way. */
export class Reliable implements Subject {
  /** When the frame under way is repeated, or Infinity. */
  dueUs = Infinity;
  /** Sequence number of the frame under way. */
  sequence = 0;
  readonly #session: SessionContext;
  /** Whose frames they are, the first that waits first. */
  #subjects: readonly ReliableSubject[] = [];
  #underWay: ReliableSubject | undefined;
  #isDue = false;
  /** The sequence number to be acknowledged, -1 for none. */
  #ackDue = -1;
  /** Sequence number of the next frame that is obeyed. */
  #expected = 0;

  constructor(session: SessionContext) {
    this.#session = session;
  }

  /** Takes the session's list: of the reliable subjects in the list the first that waits goes first. */
  setOrder(subjects: readonly Subject[]): void {
    this.#subjects = subjects.filter((subject) => subject instanceof ReliableSubject);
  }

  /** Puts the next frame under way, if none is and one waits. */
  start(): void {
    if (this.#underWay !== undefined) return;
    this.#underWay = this.#subjects.find((subject) => subject.isWaiting);
    if (this.#underWay === undefined) return;
    this.#underWay.begin();
    this.#isDue = true;
    this.#session.speak();
  }

  /** Whether a frame of this subject is to be written now. */
  isDueOf(subject: ReliableSubject): boolean {
    return this.#isDue && this.#underWay === subject;
  }

  /** The frame under way has been written. */
  onWritten(nowUs: number): void {
    this.#isDue = false;
    this.dueUs = nowUs + Math.max(REPEAT_US_MIN, 2 * this.#session.rttUs);
    this.#session.hasten(this.dueUs);
  }

  /** Has a frame of the other end acknowledged, and returns whether the frame is to be obeyed. */
  accepts(sequence: number): boolean {
    const ahead = (sequence - this.#expected + SEQUENCES) % SEQUENCES;
    if (ahead !== 0 && ahead < SEQUENCES / 2) return false;
    this.#ackDue = (this.#expected + (ahead === 0 ? 0 : SEQUENCES - 1)) % SEQUENCES;
    this.#session.speak();
    if (ahead !== 0) return false;
    this.#expected = (this.#expected + 1) % SEQUENCES;
    return true;
  }

  hasWord(): boolean {
    return this.#ackDue >= 0;
  }

  write({ view }: Burst, at: number, room: number): number {
    if (room < ACK_BYTES) return 0;
    const sequence = this.#ackDue;
    this.#ackDue = -1;
    return writeShort(view, at, CONTROL_ACK, sequence);
  }

  handleTimeout(): void {
    this.dueUs = Infinity;
    this.#isDue = true;
    this.#session.speak();
  }

  takes(kind: number): boolean {
    return kind === CONTROL_ACK;
  }

  onControl({ view }: Burst, _row: number, at: number): void {
    if (this.#underWay === undefined || readSequence(view, at) !== this.sequence) return;
    this.sequence = (this.sequence + 1) % SEQUENCES;
    this.#underWay.onAcknowledged();
    this.#underWay = undefined;
    this.#isDue = false;
    this.dueUs = Infinity;
    this.start();
  }
}

/** A subject whose frames are reliable and of one kind. Its place among the others is its place in the session's list. */
export abstract class ReliableSubject implements Subject {
  readonly dueUs = Infinity;
  protected readonly session: SessionContext;
  protected readonly reliable: Reliable;
  readonly #kind: number;
  readonly #bytesMax: number;

  /** @param kind CONTROL_*, with a sequence number. @param bytesMax of the longest frame that this end writes. */
  constructor(session: SessionContext, reliable: Reliable, kind: number, bytesMax: number) {
    this.session = session;
    this.reliable = reliable;
    this.#kind = kind;
    this.#bytesMax = bytesMax;
  }

  /** Whether the other end is to be told something. */
  abstract get isWaiting(): boolean;

  /** A frame is under way from now on: what it says stays until `onAcknowledged`. */
  begin(): void {}

  /** Writes the frame that is under way, the same each time, and returns its bytes. */
  protected abstract writeFrame(view: DataView, at: number, sequence: number): number;

  /** The other end has obeyed the frame that was under way. */
  abstract onAcknowledged(): void;

  abstract onControl(burst: Burst, row: number, at: number, length: number, nowUs: number): void;

  hasWord(): boolean {
    return this.reliable.isDueOf(this);
  }

  write({ view }: Burst, at: number, room: number, nowUs: number): number {
    if (room < this.#bytesMax) return 0;
    this.reliable.onWritten(nowUs);
    return this.writeFrame(view, at, this.reliable.sequence);
  }

  handleTimeout(): void {}

  takes(kind: number): boolean {
    return kind === this.#kind;
  }
}
