/**
 * The paths of a Worker whose rate is being found: how many at a time, whose rate counts for a peer, and who is told. Invariant: their
 * memory is bounded, some 90 KB each, and a rate goes with the path that it was found for. Finds nothing itself: path_rate.ts does.
 */
import { PathRate } from "./path_rate.ts";

const RATES_MAX = 512;

/** Told what a peer may be sent, bytes a second with IP and UDP headers; 0 for as much as comes. */
export type RateFound = (peer: number, bytesPerS: number, nowUs: number) => void;

export class Rates {
  /** By peer: the path whose rate counts, the last that was taken. */
  readonly #counts = new Map<number, PathRate>();
  #taken = 0;
  readonly #random: () => number;
  readonly #found: RateFound;
  readonly #isWanted: (peer: number) => boolean;

  /** @param random uniform in [0, 1). @param isWanted whether a peer's rates are to be looked for. */
  constructor(random: () => number, found: RateFound, isWanted: (peer: number) => boolean = () => true) {
    this.#random = random;
    this.#found = found;
    this.#isWanted = isWanted;
  }

  /** A path's rate for the peer from now on; undefined when there are too many, or it is not wanted. */
  take(peer: number, nowUs: number): PathRate | undefined {
    if (this.#taken === RATES_MAX || !this.#isWanted(peer)) return undefined;
    this.#taken++;
    const rate = new PathRate(this.#random, nowUs);
    this.#counts.set(peer, rate);
    return rate;
  }

  /** Paths whose rate is looked for. */
  get size(): number {
    return this.#taken;
  }

  /** The path whose rate counts for the peer; undefined while none is looked for. */
  of(peer: number): PathRate | undefined {
    return this.#counts.get(peer);
  }

  /** A report has come for the path. */
  reported(peer: number, rate: PathRate, nowUs: number): void {
    if (this.#counts.get(peer) !== rate) return;
    this.#found(peer, this.#isWanted(peer) ? rate.bytesPerS(nowUs) : 0, nowUs);
  }

  /** The path's rate is no longer looked for, and what it was counts no more. */
  give(peer: number, rate: PathRate, nowUs: number): void {
    this.#taken--;
    if (this.#counts.get(peer) !== rate) return;
    this.#counts.delete(peer);
    this.#found(peer, 0, nowUs);
  }
}
