/**
 * What may tell of a handover ahead: the signal's level and slope, the queue's and the jitter's trends, losses, and reports
 * that are overdue, as eight numbers between -1 and 1, each 50 ms. Invariant: the numbers depend on what one end can know at the
 * time. Predicts nothing.
 */
import type { PathFigures } from "../../src/control/paths/figures.ts";

export const SIGNS = 8;
export const SIGNS_US = 50_000;
/** Steps of half a second and of two. */
const SHORT = 10, LONG = 40;

const bounded = (value: number) => Math.max(-1, Math.min(1, value));

export class Signs {
  readonly values = new Float32Array(SIGNS);
  readonly #levels: number[] = [];
  readonly #queues: number[] = [];

  /** The next step's values. */
  write(levelDbm: number, figures: PathFigures): Float32Array {
    const levels = this.#levels, queues = this.#queues;
    levels.push(levelDbm);
    queues.push(figures.queueUs);
    if (levels.length > LONG + 1) levels.shift();
    if (queues.length > LONG + 1) queues.shift();
    const ago = (list: number[], steps: number) => list[Math.max(0, list.length - 1 - steps)];
    const { values } = this;
    values[0] = bounded((levelDbm + 70) / 20);
    values[1] = bounded((levelDbm - ago(levels, SHORT)) / 10);
    values[2] = bounded((levelDbm - ago(levels, LONG)) / 15);
    values[3] = bounded(figures.queueUs / 20_000);
    values[4] = bounded((figures.queueUs - ago(queues, SHORT)) / 10_000);
    values[5] = bounded(figures.deviationUs / 5_000);
    values[6] = bounded(figures.lossRate * 10);
    values[7] = figures.isSilent ? 1 : 0;
    return values;
  }
}
