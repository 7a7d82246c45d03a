/**
 * What a sender knows of its path's losses from the receiver's reports (PROTOCOL §14): rate, and how many in a row.
 * Invariant: each counter is judged once, after later ones have had time to be overtaken, so that reordering is not
 * taken for loss. A lie in a report changes nothing but these figures.
 */

/** A counter that is missing when so many later ones have come is lost. */
const REORDER_COUNTERS = 8;
/** Losses and arrivals are forgotten with this half-life, in datagrams. */
const HALF_LIFE = 256;
const KEEP = 2 ** (-1 / HALF_LIFE);

export class LossMeter {
  /** Counters up to here have been judged. */
  #judgedTo = -1;
  #run = 0;
  // With forgetting: how much was judged, lost, and how many runs the losses came in.
  #weight = 0;
  #lostWeight = 0;
  #runWeight = 0;

  /** Share of datagrams lost of late, 0 to 1. */
  get lossRate(): number {
    return this.#weight < 1 ? 0 : this.#lostWeight / this.#weight;
  }

  /** Losses in a row, on average; 1 without any. */
  get runLength(): number {
    return this.#runWeight < 1e-3 ? 1 : Math.max(1, this.#lostWeight / this.#runWeight);
  }

  /**
   * Takes a report: the highest counter that arrived, and for the `8 * bytes` before it whether they did, least significant
   * bit first. What no report covers counts as nothing.
   */
  observe(highest: number, bitmap: Uint8Array, bytes: number): void {
    const end = highest - REORDER_COUNTERS, start = Math.max(this.#judgedTo + 1, highest - 8 * bytes);
    for (let counter = start; counter <= end; counter++) {
      const bit = highest - 1 - counter;
      this.#judge((bitmap[bit >> 3] >> (bit & 7) & 1) === 1);
    }
    this.#judgedTo = Math.max(this.#judgedTo, end);
  }

  #judge(arrived: boolean): void {
    this.#weight = this.#weight * KEEP + 1;
    this.#lostWeight *= KEEP;
    this.#runWeight *= KEEP;
    if (arrived) {
      this.#run = 0;
      return;
    }
    this.#lostWeight++;
    if (this.#run++ === 0) this.#runWeight++;
  }
}
