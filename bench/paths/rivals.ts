/**
 * Schedulers that the program's own is measured against: turns, and UCB1. Invariant: a choice is a function of the figures, the time and
 * what the scheduler was told before. No program uses them.
 */
import {
  choiceOf,
  leastLate,
  NO_PATH,
  PATHS_MAX,
  type PathScheduler,
  type PathsOf,
} from "../../src/control/paths/choice.ts";

/** One path after the other, for comparison. */
export class RoundRobin implements PathScheduler {
  #last = NO_PATH;

  choose(paths: PathsOf): number {
    for (let i = 1; i <= paths.length; i++) {
      const number = (this.#last + i + paths.length) % paths.length, path = paths[number];
      if (path === undefined || path.isSilent) continue;
      this.#last = number;
      return choiceOf(number, NO_PATH);
    }
    const left = leastLate(paths, NO_PATH);
    return left === NO_PATH ? NO_PATH : choiceOf(left, NO_PATH);
  }

  judge(): void {}
}

/** What is known of a path halves in this time, so that a path that was bad is tried again. */
const FORGET_US = 2_000_000;

/**
 * UCB1 (Auer, Cesa-Bianchi and Fischer 2002) with discounted counts (Garivier and Moulines 2011): the path whose share in time,
 * with what chance may have hidden, is the highest. Its outcomes are 1 for in time and 0 for not.
 */
export class Ucb1 implements PathScheduler {
  readonly #tried = new Float64Array(PATHS_MAX);
  readonly #inTime = new Float64Array(PATHS_MAX);
  #fadedUs = -1;

  choose(paths: PathsOf, nowUs: number): number {
    this.#fade(nowUs);
    let all = 0;
    for (let number = 0; number < paths.length; number++) all += this.#tried[number];
    let best = NO_PATH, most = -Infinity;
    for (let number = 0; number < paths.length; number++) {
      const path = paths[number];
      if (path === undefined) continue;
      const tried = this.#tried[number];
      // Before anything is known the faster one goes first.
      const bound = tried < 1
        ? 2 - path.delayUs / 1e9
        : this.#inTime[number] / tried + Math.sqrt(2 * Math.log(Math.max(1, all)) / tried);
      const value = path.isSilent ? bound - 1e3 : bound;
      if (value <= most) continue;
      most = value;
      best = number;
    }
    return best === NO_PATH ? NO_PATH : choiceOf(best, NO_PATH);
  }

  judge(path: number, inTime: number, missed: number, nowUs: number): void {
    this.#fade(nowUs);
    this.#tried[path] += inTime + missed;
    this.#inTime[path] += inTime;
  }

  #fade(nowUs: number): void {
    if (this.#fadedUs < 0) this.#fadedUs = nowUs;
    const keep = 2 ** ((this.#fadedUs - nowUs) / FORGET_US);
    this.#fadedUs = nowUs;
    if (keep === 1) return;
    for (let number = 0; number < PATHS_MAX; number++) {
      this.#tried[number] *= keep;
      this.#inTime[number] *= keep;
    }
  }
}
