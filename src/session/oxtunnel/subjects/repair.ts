/**
 * Loss repair as a subject of a session (PROTOCOL §13): repairs that no datagram has carried by their time are sent alone, the
 * other end's reports go to repair's planner, and reports of this end get repair's sections. Invariant: repair gives its
 * memory back when the session's secrets are overwritten. All of repair is in src/repair, behind `SessionRepair`.
 */
import { SessionRepair } from "../../../repair/session_repair.ts";
import type { Repairs } from "../../../repair/pool.ts";
import type { Burst } from "../../../vector/burst.ts";
import { FEATURE_REQUESTS, FEATURE_SLIDING_WINDOW } from "../../../wire/parameters.ts";
import type { Report } from "../../../wire/report.ts";
import type { SessionContext, Subject } from "./subject.ts";

export class LossRepair implements Subject {
  readonly isAlone = true;
  readonly isReported = true;
  /** Undefined where the ends have not agreed to repair. */
  readonly repair: SessionRepair | undefined;
  readonly #session: SessionContext;

  /** @param pool undefined where losses are not repaired. */
  constructor(session: SessionContext, pool: Repairs | undefined) {
    this.#session = session;
    const isAgreed = (session.features & FEATURE_SLIDING_WINDOW) !== 0;
    const isAsking = pool?.options.isAsking === true && (session.features & FEATURE_REQUESTS) !== 0;
    this.repair = pool !== undefined && isAgreed
      ? new SessionRepair(pool, this, isAsking, session.pathNumber)
      : undefined;
  }

  /** The highest counter that was accepted from the other end, -1 before the first. */
  highestReceived(): number {
    return this.#session.host.shared.table.replay.highest[this.#session.path];
  }

  roundTripUs(): number {
    return this.#session.roundTripUs;
  }

  speak(): void {
    this.#session.speak();
  }

  hasten(dueUs: number): void {
    this.#session.hasten(dueUs);
  }

  get dueUs(): number {
    return this.repair?.dueUs ?? Infinity;
  }

  hasWord(): boolean {
    return this.repair?.hasWord ?? false;
  }

  write(burst: Burst, _at: number, room: number, nowUs: number): number {
    const row = burst.count - 1, { table } = this.#session.host.shared;
    this.repair!.writeAlone(burst, row, table.sendCounter[this.#session.path], room, nowUs);
    return burst.length[row];
  }

  handleTimeout(nowUs: number): void {
    if (this.repair?.handleTimeout(nowUs)) this.#session.speak();
  }

  onReport(report: Report, nowUs: number): void {
    this.repair?.onReport(report, nowUs);
  }

  wipe(): void {
    this.repair?.end();
  }
}
