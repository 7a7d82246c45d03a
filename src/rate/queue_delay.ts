// Hot path.
/**
 * The queue on one direction of a path. The round trip's growth tells of both directions; where reports have the receiver's clock
 * (PROTOCOL §14), the growth of the transit time tells of this one alone. Invariant: this queue is never taken for longer
 * than the round trip's growth, so that a receiver's clock that drifts or is set shows no queue where there is none. The clocks of
 * the ends need not agree. A single report that looks early counts for nothing: its time was taken by a turn that began before the
 * datagram came. Microseconds. Reads no clock.
 */

/** The least round trip is that of this window or the one before, microseconds. */
const WINDOW_US = 10_000_000;
/** Steps of the receiver's clock in a report, and how many there are, a power of two. */
const CLOCK_US = 64, CLOCK_SPAN_US = CLOCK_US * 65_536;

export class QueueDelay {
  /** The queue on the way there, and on the way back, as the last report has them. */
  queueUs = 0;
  backUs = 0;
  #leastUs = Infinity;
  #leastBeforeUs = Infinity;
  #sinceUs = -Infinity;
  /** The transit time by two clocks, less the one of the first report; and what of it is no queue. NaN before the first. */
  #transitUs = NaN;
  #emptyUs = NaN;
  /** The transit time modulo CLOCK_SPAN_US. */
  #rawUs = 0;
  /** The former report's round trip. */
  #rttUs = Infinity;

  /**
   * Takes what a report says of a datagram: its round trip, and when it arrived by the receiver's clock, in steps of 64 us modulo
   * 2^16; -1 where the report does not say. @param sentUs when it was sent, by this end's clock.
   */
  note(rttUs: number, clock: number, sentUs: number, nowUs: number): void {
    if (nowUs - this.#sinceUs > WINDOW_US) {
      this.#leastBeforeUs = nowUs - this.#sinceUs > 2 * WINDOW_US ? Infinity : this.#leastUs;
      this.#leastUs = Infinity;
      this.#sinceUs = nowUs;
    }
    this.#leastUs = Math.min(this.#leastUs, Math.max(rttUs, this.#rttUs));
    this.#rttUs = rttUs;
    const leastUs = Math.min(this.#leastUs, this.#leastBeforeUs);
    const grownUs = leastUs === Infinity ? 0 : Math.max(0, rttUs - leastUs);
    this.queueUs = clock < 0 ? grownUs : this.#oneWay(grownUs, clock, sentUs);
    this.backUs = grownUs - this.queueUs;
  }

  #oneWay(grownUs: number, clock: number, sentUs: number): number {
    const rawUs = clock * CLOCK_US - sentUs % CLOCK_SPAN_US;
    const stepUs = rawUs - this.#rawUs;
    // Of the times that the clock may mean, the one that changes the transit time the least.
    const changeUs = stepUs - CLOCK_SPAN_US * Math.round(stepUs / CLOCK_SPAN_US);
    const isFirst = Number.isNaN(this.#transitUs), beforeUs = isFirst ? Infinity : this.#transitUs;
    const transitUs = this.#transitUs = isFirst ? 0 : beforeUs + changeUs;
    this.#rawUs = rawUs;
    if (Number.isNaN(this.#emptyUs)) this.#emptyUs = transitUs - grownUs;
    this.#emptyUs = Math.max(Math.min(this.#emptyUs, Math.max(transitUs, beforeUs)), transitUs - grownUs);
    return Math.max(0, transitUs - this.#emptyUs);
  }

  /** What was taken for a queue is the path's length. */
  forget(): void {
    this.#leastUs = this.#leastBeforeUs = Infinity;
    this.#emptyUs = NaN;
  }
}
