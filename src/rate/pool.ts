/**
 * The paths of a Worker whose rate is being found: how many at a time, and who is told. Invariant: their memory is bounded, some
 * 80 KB each. Finds nothing itself: path_rate.ts does.
 */
import { PathRate } from "./path_rate.ts";

const RATES_MAX = 512;

export class Rates {
  #taken = 0;
  readonly #random: () => number;
  /** Told what a peer may be sent, bytes a second with IP and UDP headers; 0 for as much as comes. */
  readonly found: (peer: number, bytesPerS: number, nowUs: number) => void;

  /** @param random uniform in [0, 1). */
  constructor(random: () => number, found: (peer: number, bytesPerS: number, nowUs: number) => void) {
    this.#random = random;
    this.found = found;
  }

  /** Undefined when there are too many. */
  take(nowUs: number): PathRate | undefined {
    if (this.#taken === RATES_MAX) return undefined;
    this.#taken++;
    return new PathRate(this.#random, nowUs);
  }

  /** One of those that were taken is no longer used. */
  give(): void {
    this.#taken--;
  }
}
