/**
 * How much the whole relay carried in the last minutes and the last day, for charts: samples of one second and of one minute.
 * Invariant: memory is fixed; a sample is a mean over its time, and a pause (a machine that slept) leaves a gap and no false sample.
 * Reads no clock.
 */
import type { HistorySample } from "../../admin/mod.ts";

/** Totals since the relay began, and a gauge. */
export interface Totals {
  bytesReceived: number;
  bytesSent: number;
  drops: number;
  connections: number;
}

const SECONDS = 600, MINUTES = 1440, MINUTE_MS = 60_000;
/** How much too early a sample may be, as its caller's timer is, milliseconds. */
const EARLY_MS = 100;
/** A sample over more than this many times its length is none. */
const STRETCH_MAX = 3;

/** Samples of one length, the oldest first. */
class Series {
  readonly samples: HistorySample[] = [];
  #before: (Totals & { nowMs: number }) | undefined;

  constructor(readonly stepMs: number, readonly count: number) {}

  take(totals: Totals, nowMs: number, wallMs: number): void {
    const before = this.#before;
    const lastedMs = before === undefined ? 0 : nowMs - before.nowMs;
    if (before !== undefined && lastedMs < this.stepMs - EARLY_MS) return;
    this.#before = { ...totals, nowMs };
    if (before === undefined || lastedMs > STRETCH_MAX * this.stepMs) return;
    const rate = (key: "bytesReceived" | "bytesSent" | "drops") =>
      Math.max(0, 1000 * (totals[key] - before[key]) / lastedMs);
    this.samples.push({
      at: Math.round(wallMs / 1000),
      receivedBps: Math.round(8 * rate("bytesReceived")),
      sentBps: Math.round(8 * rate("bytesSent")),
      dropsPerS: Math.round(10 * rate("drops")) / 10,
      connections: totals.connections,
    });
    if (this.samples.length > this.count) this.samples.shift();
  }
}

export class History {
  readonly #series = { minutes: new Series(1000, SECONDS), day: new Series(MINUTE_MS, MINUTES) };

  /** To be called each second. `nowMs` is the monotonic clock's, `wallMs` the wall clock's since 1970. */
  take(totals: Totals, nowMs: number, wallMs: number): void {
    this.#series.minutes.take(totals, nowMs, wallMs);
    this.#series.day.take(totals, nowMs, wallMs);
  }

  /** "minutes": ten minutes in seconds; "day": a day in minutes. */
  of(span: "minutes" | "day"): { stepS: number; samples: readonly HistorySample[] } {
    const { stepMs, samples } = this.#series[span];
    return { stepS: stepMs / 1000, samples };
  }
}
