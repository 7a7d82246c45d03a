/**
 * Repair on request as a subject of a session (PROTOCOL §14): this end's requests, which ride in front of other frames or go
 * alone at once, and the other end's, which repair answers. Invariant: a request changes only what is sent to the end that
 * asks. When to ask, and what is sent again, src/repair decides.
 */
import type { SessionRepair } from "../../../repair/session_repair.ts";
import type { Burst } from "../../../vector/burst.ts";
import { CONTROL_DEADLINE, CONTROL_REQUEST, controlKind, readDeadlineMs } from "../../../wire/control.ts";
import type { SessionContext, Subject } from "./subject.ts";

export class RepairRequests implements Subject {
  readonly #session: SessionContext;
  /** Undefined where the ends have not agreed to repair on request. */
  readonly #repair: SessionRepair | undefined;

  /** The time for which `pollTransmit` has been wanted already. */
  #spokenUs = NaN;

  constructor(session: SessionContext, repair: SessionRepair | undefined) {
    this.#session = session;
    this.#repair = repair?.isAsking ? repair : undefined;
  }

  get dueUs(): number {
    const dueUs = this.#repair?.requestDueUs ?? Infinity;
    return dueUs === this.#spokenUs ? Infinity : dueUs;
  }

  hasWord(nowUs: number): boolean {
    return this.#repair?.hasRequest(nowUs) ?? false;
  }

  write({ view }: Burst, at: number, room: number, nowUs: number): number {
    return this.#repair!.writeRequest(view, at, room, nowUs);
  }

  handleTimeout(nowUs: number): void {
    if (!this.hasWord(nowUs)) return;
    this.#spokenUs = this.#repair!.requestDueUs;
    this.#session.speak();
  }

  takes(kind: number): boolean {
    return kind === CONTROL_REQUEST || kind === CONTROL_DEADLINE;
  }

  onControl({ view }: Burst, _row: number, at: number, length: number, nowUs: number): void {
    if (controlKind(view, at) === CONTROL_REQUEST) this.#repair?.onRequest(view, at, length, nowUs);
    else this.#repair?.onDeadline(readDeadlineMs(view, at));
  }
}
