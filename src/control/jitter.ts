/**
 * Interarrival jitter as RFC 3550 section 6.4.1 and appendix A.8 have it. Invariant: only differences of transit times
 * count, so that the two clocks need not agree. Knows nothing of where the times come from.
 */

export class Jitter {
  /** The estimate in microseconds; 0 before the second sample. */
  us = 0;
  #lastUs = NaN;

  /**
   * Takes the transit time of one packet: its arrival by one clock less its sending by the other, in microseconds modulo
   * 2^32. Two in a row differ by less than 2^31.
   */
  add(transitUs: number): void {
    if (!Number.isNaN(this.#lastUs)) this.us += (Math.abs((transitUs - this.#lastUs) | 0) - this.us) / 16;
    this.#lastUs = transitUs;
  }

  reset(): void {
    this.us = 0;
    this.#lastUs = NaN;
  }
}
