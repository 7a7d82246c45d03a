/**
 * The rate of a session's path, found while transfers go there: each report goes to the `PathRate` (rate/path_rate.ts) that
 * the session has from its first transfer on, and the pool gets the rate that was found. Invariant: the session gives its
 * `PathRate` back when the path is idle, and at the end. Writes nothing, and holds no packet back: queues do.
 */
import type { Report } from "../../../wire/report.ts";
import type { SessionContext, Subject } from "./subject.ts";

export class RateFinder implements Subject {
  readonly dueUs = Infinity;
  readonly #session: SessionContext;

  constructor(session: SessionContext) {
    this.#session = session;
  }

  /** Has the rate found from now on, if the pool has room for one more. */
  find(nowUs: number): void {
    this.#session.pathRate ??= this.#session.sessions.rates?.take(nowUs);
  }

  hasWord(): boolean {
    return false;
  }

  write(): number {
    return 0;
  }

  handleTimeout(): void {}

  onReport(report: Report, nowUs: number): void {
    const { peer, pathRate, sessions: { rates } } = this.#session;
    if (pathRate === undefined || rates === undefined) return;
    pathRate.onReport(report, nowUs);
    const isIdle = pathRate.isIdle(nowUs);
    rates.found(peer, isIdle ? 0 : pathRate.bytesPerS(nowUs), nowUs);
    if (isIdle) this.wipe();
  }

  wipe(): void {
    if (this.#session.pathRate === undefined) return;
    this.#session.sessions.rates!.give();
    this.#session.pathRate = undefined;
  }
}
