/**
 * Repairs of lost packets that no datagram took along in time (PROTOCOL §13): they go alone. What a repair is, and when one is
 * due, is repair/session_repair.ts's. Invariant: a datagram of repairs has nothing else in it. Repairs that ride in front
 * of packets are written where packets are (egress/seal.ts).
 */
import type { SessionRepair } from "../../../repair/session_repair.ts";
import type { Burst } from "../../../vector/burst.ts";
import type { Report } from "../../../wire/report.ts";
import type { SessionContext, Subject } from "./subject.ts";

export class LoneRepairs implements Subject {
  readonly isAlone = true;
  readonly isReported = true;
  readonly #session: SessionContext;
  readonly #repair: SessionRepair;

  constructor(session: SessionContext, repair: SessionRepair) {
    this.#session = session;
    this.#repair = repair;
  }

  get dueUs(): number {
    return this.#repair.dueUs;
  }

  hasWord(): boolean {
    return this.#repair.isDue;
  }

  write(burst: Burst, _at: number, room: number, nowUs: number): number {
    const { row: session, host } = this.#session;
    const row = burst.count - 1;
    this.#repair.writeAlone(burst, row, host.shared.table.sendCounter[session], room, nowUs);
    return burst.length[row];
  }

  handleTimeout(nowUs: number): void {
    if (this.#repair.handleTimeout(nowUs)) this.#session.speak();
  }

  onReport(report: Report, nowUs: number): void {
    this.#repair.onReport(report, nowUs);
  }

  wipe(): void {
    this.#repair.end();
  }
}
