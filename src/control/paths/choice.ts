// Hot path.
/**
 * Which of several paths a packet takes that must not be late, and whether a copy of it takes another one: least expected
 * lateness, with copies where they may help or always. What did worse is in bench/paths/rivals.ts. Invariant: a choice is a function of the figures,
 * the time and what the scheduler was told before; a silent path is chosen only where no other is left, and a path whose
 * delay nobody knows only where none is known. Sends nothing.
 */
import type { PathFigures } from "./figures.ts";

/** The paths of a session by their numbers; a number without a path is undefined. */
export type PathsOf = readonly (PathFigures | undefined)[];

/** Paths that a session has at most, and what `choose` gives where there is none. */
export const PATHS_MAX = 8, NO_PATH = -1;
const FIRST_BITS = 3;

/** A choice as a number: the path, and the path of the copy, or NO_PATH. */
export function choiceOf(path: number, copy: number): number {
  return path | (copy + 1) << FIRST_BITS;
}

/** The path of a choice. Undefined for NO_PATH. */
export function pathOf(choice: number): number {
  return choice & PATHS_MAX - 1;
}

/** The path of the copy, or NO_PATH. Undefined for NO_PATH. */
export function copyOf(choice: number): number {
  return (choice >> FIRST_BITS) - 1;
}

/** What chooses. Told and asked in the order of time. */
export interface PathScheduler {
  /** Chooses for one packet; NO_PATH where there is none. */
  choose(paths: PathsOf, nowUs: number): number;
  /** `inTime` packets that went by this path as their first came in time, and `missed` did not. */
  judge(path: number, inTime: number, missed: number, nowUs: number): void;
}

/** Deviations of the delay that are expected: the delay stays within four of five packets' mean deviation. */
const DEVIATIONS = 2;
/** A packet that comes so much later than by the fastest path is of use to no game and no call. */
const LATE_US = 100_000;
/** What silence adds to what may be expected of a path, what not to know its delay adds, and what a price does: some 14 ms, or 2 % of losses. */
const SILENT = 2, UNKNOWN = 1, METERED = 0.02;
/** A handicap from which on a path is the last resort and gets no copies. */
const LAST_RESORT = 1;
/** Another path must be expected to be this much better than the present one, so that packets do not change to and fro. */
const BETTER = 0.8, BETTER_BY = 0.0004;
/** A path that lost more than this, or grew by this, or is younger, does not go without a copy. */
const LOSS_MAX = 0.003, QUEUE_US_MAX = 15_000, YOUNG_US = 2_000_000;

/**
 * What is expected to be missed on this path, 0 to 1: what is lost, and of the rest what comes late, by the square of how much
 * later than `leastUs`, the least delay of all paths, delay and twice its deviation are. So 1 % of losses weighs as much as 10 ms
 * and 4 % as 20 ms. More for a path that is silent or unknown.
 */
export function lateness(path: PathFigures, leastUs: number): number {
  const lateUs = path.delayUs + DEVIATIONS * path.deviationUs - leastUs;
  const late = Math.min(1, Math.max(0, lateUs) / LATE_US);
  return path.lossRate + (1 - path.lossRate) * late * late + (path.isSilent ? SILENT : 0) +
    (path.isKnown ? 0 : UNKNOWN) + (path.isMetered ? METERED : 0) + path.handicap;
}

/**
 * The path of least expected lateness but `except`; NO_PATH where there is none. Of equal ones the first, and of near equals
 * `present`, which packets take now.
 */
export function leastLate(paths: PathsOf, except: number, present = NO_PATH): number {
  let leastUs = Infinity;
  for (let number = 0; number < paths.length; number++) {
    const path = paths[number];
    if (path !== undefined && path.isKnown) leastUs = Math.min(leastUs, path.leastUs);
  }
  if (leastUs === Infinity) leastUs = 0;
  let best = NO_PATH, least = Infinity;
  for (let number = 0; number < paths.length; number++) {
    const path = paths[number];
    if (path === undefined || number === except) continue;
    const whole = lateness(path, leastUs), late = number === present ? BETTER * whole - BETTER_BY : whole;
    if (late >= least) continue;
    least = late;
    best = number;
  }
  return best;
}

/** Whether something says that this path alone may not do. */
export function isDoubtful(path: PathFigures, nowUs: number): boolean {
  return path.isSilent || path.isHandoffAhead || path.lossRateMax > LOSS_MAX || path.queueUs > QUEUE_US_MAX ||
    nowUs - path.bornUs < YOUNG_US;
}

/** Whether the delays that are expected of the two overlap, so that nobody knows which is the faster (RAVEN, MobiCom 2018). */
export function overlaps(first: PathFigures, second: PathFigures): boolean {
  const spread = DEVIATIONS * (first.deviationUs + second.deviationUs);
  return Math.abs(first.delayUs - second.delayUs) <= spread;
}

/**
 * When copies go: always; only where they may help, that is where the first path is in doubt, or nobody knows which one is faster
 * and the second costs no money; or always where they cost no money, and else in doubt.
 */
export type Copies = "always" | "in doubt" | "free or in doubt";

/** The path of least expected lateness, and a copy by the next one. */
export class LeastLate implements PathScheduler {
  readonly #percent: number;
  readonly #copies: Copies;
  /** Where the last packet and its copy went. */
  #first = NO_PATH;
  #second = NO_PATH;
  /** Copies that may still be sent, in packets. */
  #credit = 0;

  /** @param percent copies for each hundred packets at most. */
  constructor(percent: number, copies: Copies) {
    this.#percent = percent;
    this.#copies = copies;
  }

  choose(paths: PathsOf, nowUs: number): number {
    const first = this.#first = leastLate(paths, NO_PATH, this.#first);
    if (first === NO_PATH) return NO_PATH;
    this.#credit = Math.min(100, this.#credit + this.#percent / 100);
    if (this.#credit < 1) return choiceOf(first, NO_PATH);
    const second = this.#second = leastLate(paths, first, this.#second);
    if (second === NO_PATH || !this.#isWorth(paths[first]!, paths[second]!, nowUs)) {
      return choiceOf(first, NO_PATH);
    }
    this.#credit--;
    return choiceOf(first, second);
  }

  judge(): void {}

  #isWorth(first: PathFigures, second: PathFigures, nowUs: number): boolean {
    // A silent path is worth it: it may be back before anybody hears so.
    if (second.handicap >= LAST_RESORT || second.leastUs > first.delayUs + LATE_US) return false;
    const isSpared = this.#copies === "in doubt" || this.#copies === "free or in doubt" && second.isMetered;
    if (!isSpared || isDoubtful(first, nowUs)) return true;
    // The faster one comes second for what it loses, and mostly it does not; or for its price.
    const isForPrice = second.isMetered && second.lossRate <= first.lossRate;
    if (second.delayUs < first.delayUs && !isForPrice) return true;
    return !second.isMetered && overlaps(first, second);
  }
}
