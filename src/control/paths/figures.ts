// Hot path.
/**
 * What one end knows of one of several paths towards the other, for the choice among them: smoothed figures (gain 1/8, RFC 6298)
 * and those of a window, so that what happens every few seconds is not forgotten in between. Invariant: every figure is finite
 * from the first sample on, whatever the samples say; memory is fixed. Microseconds and bytes of the caller's clock. Chooses
 * nothing.
 */

const GAIN = 1 / 8;
/** A windowed figure is that of the present window and of the one before. */
const WINDOW_US = 10_000_000;
/** Packets over which losses are smoothed. */
const LOSS_PACKETS = 64;
/** Longer is no path. */
const DELAY_US_MAX = 10_000_000;
/** Fewer packets say nothing of a share of losses. */
const JUDGED_MIN = 20;

export class PathFigures {
  /** One-way delay, smoothed; by half the round trip where the clocks say no more. -1 before the first sample. */
  delayUs = -1;
  /** Mean deviation of the delay, smoothed. */
  deviationUs = 0;
  /** Share lost, smoothed over some 64 packets. */
  lossRate = 0;
  /** The path is given packets and does not answer. */
  isSilent = false;
  /** A gap is expected soon (handoff.ts). */
  isHandoffAhead = false;
  /** Each byte costs its user money. */
  isMetered = false;
  /** What its user says of it, as a share of packets missed that it weighs as much as: 1 for the last resort, below 0 for a favourite. */
  handicap = 0;
  /** What the path carries, bytes a second; 0 while nobody knows. */
  bytesPerS = 0;
  /** From when on the path was there. */
  readonly bornUs: number;
  /** When what was given to it will have left, by its rate. */
  #freeUs = 0;
  #leastUs = Infinity;
  #leastBeforeUs = Infinity;
  #judged = 0;
  #lost = 0;
  #judgedBefore = 0;
  #lostBefore = 0;
  #windowUs: number;

  constructor(nowUs: number) {
    this.bornUs = nowUs;
    this.#windowUs = nowUs;
  }

  /** Whether its delay is known, without which it is not chosen. */
  get isKnown(): boolean {
    return this.delayUs >= 0;
  }

  /** Takes the delay of one packet one way. What is negative or no number counts as none. */
  delay(us: number, nowUs: number): void {
    this.#turn(nowUs);
    const sample = us > 0 ? Math.min(us, DELAY_US_MAX) : 0;
    this.#leastUs = Math.min(this.#leastUs, sample);
    if (this.delayUs < 0) {
      this.delayUs = sample;
      this.deviationUs = sample / 4;
      return;
    }
    const off = sample - this.delayUs;
    this.delayUs += GAIN * off;
    this.deviationUs += GAIN * (Math.abs(off) - this.deviationUs);
  }

  /** Takes what became of `judged` packets, of which `lost` were lost. */
  outcome(judged: number, lost: number, nowUs: number): void {
    if (!(judged > 0)) return;
    this.#turn(nowUs);
    const missing = lost > 0 ? Math.min(lost, judged) : 0;
    this.#judged += judged;
    this.#lost += missing;
    const gain = 1 - (1 - 1 / LOSS_PACKETS) ** Math.min(judged, 1000);
    this.lossRate += gain * (missing / judged - this.lossRate);
  }

  /** Counts bytes that were given to the path, so that its queue is known before a report tells of it. */
  sent(bytes: number, nowUs: number): void {
    if (this.bytesPerS > 0) this.#freeUs = Math.max(this.#freeUs, nowUs) + 1e6 * bytes / this.bytesPerS;
  }

  /** When `bytes` that are given to it now will have arrived, by delay, rate and what it was given before. */
  arrivalUs(bytes: number, nowUs: number): number {
    const queuedUs = Math.max(0, this.#freeUs - nowUs);
    const ownUs = this.bytesPerS > 0 ? 1e6 * bytes / this.bytesPerS : 0;
    return nowUs + queuedUs + ownUs + this.leastUs;
  }

  /** The least delay of the last ten to twenty seconds. */
  get leastUs(): number {
    const leastUs = Math.min(this.#leastUs, this.#leastBeforeUs);
    return leastUs === Infinity ? Math.max(0, this.delayUs) : leastUs;
  }

  /** How much longer than at the least packets take now. */
  get queueUs(): number {
    return Math.max(0, this.delayUs - this.leastUs);
  }

  /** Share lost within the last ten to twenty seconds, or of late where that is more; 0 before 20 packets are judged. */
  get lossRateMax(): number {
    const judged = this.#judged + this.#judgedBefore;
    return judged < JUDGED_MIN ? 0 : Math.max(this.lossRate, (this.#lost + this.#lostBefore) / judged);
  }

  #turn(nowUs: number): void {
    const sinceUs = nowUs - this.#windowUs;
    if (sinceUs < WINDOW_US) return;
    const isNext = sinceUs < 2 * WINDOW_US;
    this.#leastBeforeUs = isNext ? this.#leastUs : Infinity;
    this.#judgedBefore = isNext ? this.#judged : 0;
    this.#lostBefore = isNext ? this.#lost : 0;
    this.#leastUs = Infinity;
    this.#judged = this.#lost = 0;
    this.#windowUs = nowUs;
  }
}
