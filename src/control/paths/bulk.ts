// Hot path.
/**
 * Which path a bulk packet takes: each flow keeps one, and may change it only in a pause that is longer than the paths differ
 * (flowlets, Sinha, Kandula and Katabi 2004), so that TCP sees no reordering; or, for one flow over all paths, the path on which the
 * packet will have arrived first. Invariant: a path that loses much or queues long gets no bulk as long as another is fit, so
 * it cannot make the whole worse than the others alone; memory is fixed. Sends nothing. All bulk takes
 * one path (`bulkPath`) until each path has a rate of its own; nothing calls the rest yet.
 */
import { leastLate, NO_PATH, PATHS_MAX, type PathsOf } from "./choice.ts";
import type { PathFigures } from "./figures.ts";

/** A path that loses more, or holds packets up for longer, carries no bulk. */
const LOSS_MAX = 0.05, QUEUE_US_MAX = 100_000;
/** A path that is this much slower is of no use to one flow: the receiver would wait for it longer than it holds packets. */
export const AGGREGATE_DIFFERENCE_US = 32_000;
/** No delay is as long: it decides among paths that are as good otherwise. */
const WHOLE_US = 100_000_000;
/** A pause that is a flowlet's end on any path. */
const PAUSE_US_MIN = 1_000;

/** Whether a path takes bulk while others do too. */
export function isFit(path: PathFigures): boolean {
  return path.isKnown && !path.isSilent && path.lossRate <= LOSS_MAX && path.queueUs <= QUEUE_US_MAX;
}

/** Another path must be this much nearer, without the queues that bulk itself makes, so that all bulk moves there. */
const NEARER_US = 10_000;

/**
 * The path that all bulk takes where it takes one: `present`, unless that is unfit, costs money, is the last resort or much farther
 * while another is not. NO_PATH where there is none.
 */
export function bulkPath(paths: PathsOf, present: number): number {
  let best = NO_PATH, least = Infinity;
  for (let number = 0; number < paths.length; number++) {
    const path = paths[number];
    if (path === undefined) continue;
    const us = path.leastUs - (number === present ? NEARER_US : 0);
    const worse = (path.isSilent ? 8 : 0) + 4 * path.handicap + (path.isMetered ? 2 : 0) +
      (isFit(path) ? 0 : 1);
    const value = worse + us / WHOLE_US;
    if (value >= least) continue;
    least = value;
    best = number;
  }
  return best;
}

/** Which path each flow has, by the rows of the flow table. */
export class FlowPins {
  /** One more than the path's number; 0 for none. */
  readonly #path: Uint8Array;
  readonly #lastUs: Float64Array;
  /** Flows that were given to each path and were not taken away, to spread them by the paths' rates. */
  readonly #flows = new Float64Array(PATHS_MAX);

  /** @param flows rows of the flow table. */
  constructor(flows: number) {
    this.#path = new Uint8Array(flows);
    this.#lastUs = new Float64Array(flows);
  }

  /** The path of a flow's packet; NO_PATH where there is none. */
  choose(flow: number, paths: PathsOf, nowUs: number): number {
    const pausedUs = nowUs - this.#lastUs[flow];
    this.#lastUs[flow] = nowUs;
    const kept = this.#path[flow] - 1, path = kept < 0 ? undefined : paths[kept];
    if (path !== undefined && isFit(path)) {
      if (pausedUs < PAUSE_US_MIN) return kept;
      // The last packet is there before the first one of any other path.
      const other = this.#emptiest(paths, flow);
      if (other === kept || other === NO_PATH) return kept;
      if (pausedUs <= path.delayUs + path.deviationUs - paths[other]!.leastUs) return kept;
      if (!this.#isBetter(paths, kept, other)) return kept;
      return this.#pin(flow, other);
    }
    const next = this.#emptiest(paths, flow);
    if (next !== NO_PATH) return this.#pin(flow, next);
    const left = leastLate(paths, NO_PATH);
    return left === NO_PATH ? NO_PATH : this.#pin(flow, left);
  }

  /** The flow is over: its row is another's next. */
  forget(flow: number): void {
    const was = this.#path[flow] - 1;
    if (was >= 0) this.#flows[was] = Math.max(0, this.#flows[was] - 1);
    this.#path[flow] = 0;
    this.#lastUs[flow] = 0;
  }

  #pin(flow: number, path: number): number {
    const was = this.#path[flow] - 1;
    if (was === path) return path;
    if (was >= 0) this.#flows[was] = Math.max(0, this.#flows[was] - 1);
    this.#flows[path]++;
    this.#path[flow] = path + 1;
    return path;
  }

  /** A flow moves only where it would have more than a quarter more room. */
  #isBetter(paths: PathsOf, kept: number, other: number): boolean {
    return 0.8 * this.#share(paths[kept]!, this.#flows[kept] - 1) >
      this.#share(paths[other]!, this.#flows[other]);
  }

  /** The fit path on which one flow more would have the most room; of equal ones the earlier. */
  #emptiest(paths: PathsOf, flow: number): number {
    const own = this.#path[flow] - 1;
    let best = NO_PATH, least = Infinity;
    for (let number = 0; number < paths.length; number++) {
      const path = paths[number];
      if (path === undefined || !isFit(path)) continue;
      const share = this.#share(path, this.#flows[number] - (own === number ? 1 : 0));
      // What costs money is taken where nothing else is fit.
      const value = share + (path.isMetered ? 1e9 : 0);
      if (value > least || value === least && !(best >= 0 && path.delayUs < paths[best]!.delayUs)) {
        continue;
      }
      least = value;
      best = number;
    }
    return best;
  }

  /** Seconds that one more flow's megabyte takes beside `flows` others. Without a known rate all paths count as one. */
  #share(path: PathFigures, flows: number): number {
    return (flows + 1) * 1e6 / (path.bytesPerS > 0 ? path.bytesPerS : 1e6);
  }
}

/**
 * The path on which `bytes` of a flow that goes over all of them will have arrived first; NO_PATH where there is none. Whoever sends
 * the packet tells the path (`PathFigures.sent`).
 */
export function earliestArrival(paths: PathsOf, bytes: number, nowUs: number): number {
  let fastestUs = Infinity;
  for (let number = 0; number < paths.length; number++) {
    const path = paths[number];
    if (path !== undefined && isFit(path)) fastestUs = Math.min(fastestUs, path.leastUs);
  }
  let best = NO_PATH, earliest = Infinity;
  for (let number = 0; number < paths.length; number++) {
    const path = paths[number];
    if (path === undefined || !isFit(path) || path.leastUs - fastestUs > AGGREGATE_DIFFERENCE_US) continue;
    const arrivalUs = path.arrivalUs(bytes, nowUs);
    if (arrivalUs >= earliest) continue;
    earliest = arrivalUs;
    best = number;
  }
  return best === NO_PATH ? leastLate(paths, NO_PATH) : best;
}

/** How far the fit paths' delays are apart, which is how long a receiver holds what overtook, microseconds. */
export function spreadUs(paths: PathsOf): number {
  let leastUs = Infinity, mostUs = 0;
  for (let number = 0; number < paths.length; number++) {
    const path = paths[number];
    if (path === undefined || !isFit(path)) continue;
    leastUs = Math.min(leastUs, path.leastUs);
    mostUs = Math.max(mostUs, path.leastUs);
  }
  return leastUs === Infinity ? 0 : mostUs - leastUs;
}
