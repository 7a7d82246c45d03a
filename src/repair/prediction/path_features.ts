// Hot path.
/**
 * The input of a trained predictor for one report: eight numbers. Invariant: each is finite and between -1 and 1, whatever the
 * step says, so that no peer can drive a predictor's state out of its bounds. Decides nothing.
 */
import type { PathStep } from "../path_quality.ts";

export const FEATURES = 8;

/** For each scale, the unit at which it bends and the value at which it saturates. */
const RUN_MAX = 32;
const QUEUE_UNIT_US = 2_000, QUEUE_US_MAX = 500_000, QUEUE_CHANGE_US_MAX = 30_000;
const JITTER_UNIT_US = 500, JITTER_US_MAX = 50_000;
const LOSS_UNIT_US = 50_000, LOSS_US_MAX = 20_000_000;
const ELAPSED_US_MAX = 250_000;
/** Half-life of the recent maximum of the queue, and its least value, above noise. */
const PEAK_HALF_LIFE_US = 10_000_000, PEAK_US_MIN = 10_000;

/** 0 to 1, by the logarithm: steep up to `unit`, flat towards `most`. What is not above 0, or no number, is 0. */
function logarithmic(value: number, unit: number, most: number): number {
  return value > 0 ? Math.log1p(Math.min(value, most) / unit) / Math.log1p(most / unit) : 0;
}

/** `value` where it lies in 0 to `most`, else the nearer end; what is no number is 0. */
export function bounded(value: number, most: number): number {
  return value > 0 ? Math.min(value, most) : 0;
}

export class PathFeatures {
  #sinceLossUs = LOSS_US_MAX;
  #queueUs = 0;
  #peakUs = PEAK_US_MIN;

  /**
   * Writes the features of the next step to `out` from `at` on: share lost; longest run of losses; queue; its change; queue as
   * a share of its recent maximum; jitter; time since the last loss; time since the last step.
   */
  write(step: PathStep, out: Float32Array, at: number): void {
    const elapsedUs = bounded(step.elapsedUs, LOSS_US_MAX);
    const judged = bounded(step.judged, 1e6), lost = bounded(step.lost, judged);
    const queueUs = bounded(step.queueUs, QUEUE_US_MAX);
    const queueUsMax = Math.max(queueUs, bounded(step.queueUsMax, QUEUE_US_MAX));
    const change = (queueUs - this.#queueUs) / QUEUE_CHANGE_US_MAX;
    this.#queueUs = queueUs;
    this.#peakUs = Math.max(queueUsMax, PEAK_US_MIN, this.#peakUs * 2 ** (-elapsedUs / PEAK_HALF_LIFE_US));
    this.#sinceLossUs = lost > 0 ? 0 : Math.min(LOSS_US_MAX, this.#sinceLossUs + elapsedUs);
    out[at] = judged > 0 ? lost / judged : 0;
    out[at + 1] = logarithmic(step.longestRun, 1, RUN_MAX);
    out[at + 2] = logarithmic(queueUs, QUEUE_UNIT_US, QUEUE_US_MAX);
    out[at + 3] = Math.max(-1, Math.min(1, change));
    out[at + 4] = queueUsMax / this.#peakUs;
    out[at + 5] = logarithmic(step.jitterUs, JITTER_UNIT_US, JITTER_US_MAX);
    out[at + 6] = 1 - logarithmic(this.#sinceLossUs, LOSS_UNIT_US, LOSS_US_MAX);
    out[at + 7] = Math.min(1, elapsedUs / ELAPSED_US_MAX);
  }
}
