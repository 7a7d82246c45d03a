// Hot path.
/**
 * How long small packets may be held so that others join their datagram. The headers that are saved are worth `boundUs` of
 * waiting by one packet; a batch is sent when the waits of its packets add up to that, which costs at most twice the optimum in
 * hindsight (Dooly, Goldman and Scott 2001, "On-line analysis of the TCP acknowledgment delay problem"). A histogram of the
 * gaps between arrivals says how likely another packet is in time, and when waiting ends. Invariant:
 * a packet waits `boundUs` at most, and one that follows a longer silence not at all. Pure: holds no packet, reads no
 * clock.
 * Keeps PROTOCOL R80.
 */

/** Gaps of up to bound/64, bound/32, … bound, and longer ones. */
const BINS = 8;
const LONGER = BINS - 1;
const FINEST = 64;
/** Half-life of the histogram, in gaps. */
const REMEMBERED = 64;
/** With fewer gaps in the histogram, no packet waits. */
const KNOWN_MIN = 8;
/** A gain below this share of what is left to spend is noise, from so few gaps. */
const HESITATION = 8;

export class ArrivalGaps {
  readonly boundUs: number;
  readonly #lastUs: Float64Array;
  readonly #lastBin: Uint8Array;
  readonly #total: Uint8Array;
  readonly #counts: Uint8Array;

  /**
   * @param capacity ids are 0 to capacity - 1.
   * @param boundUs the longest wait of a packet; 0 to hold none.
   */
  constructor(capacity: number, boundUs: number) {
    this.boundUs = boundUs;
    this.#lastUs = new Float64Array(capacity);
    this.#lastBin = new Uint8Array(capacity);
    this.#total = new Uint8Array(capacity);
    this.#counts = new Uint8Array(BINS * capacity);
  }

  /** Notes that a bulk packet of `id` arrived; those that came at one time count as one. */
  note(id: number, nowUs: number): void {
    if (this.boundUs === 0 || this.#lastUs[id] === nowUs) return;
    const sixtyFourths = Math.ceil((nowUs - this.#lastUs[id]) * FINEST / this.boundUs);
    const bin = sixtyFourths > FINEST ? LONGER : sixtyFourths <= 1 ? 0 : 32 - Math.clz32(sixtyFourths - 1);
    this.#lastUs[id] = nowUs;
    this.#lastBin[id] = bin;
    this.#counts[BINS * id + bin]++;
    if (++this.#total[id] === REMEMBERED) this.#forgetHalf(id);
  }

  /**
   * Microseconds for which to hold `packets` of `id` from now on, 0 to send them: the wait whose gain, a header's worth
   * less what the batch has spent, times the chance of company in it, exceeds what the wait is expected to cost by most.
   * @param waitedUs what the packets have waited already, together.
   */
  waitUs(id: number, packets: number, waitedUs: number): number {
    const total = this.#total[id];
    const leftUs = this.boundUs - waitedUs;
    if (total < KNOWN_MIN || this.#lastBin[id] === LONGER || leftUs <= 0) return 0;
    const counts = this.#counts;
    let edgeUs = this.boundUs / FINEST, arrived = 0, arrivedUs = 0, bestUs = 0;
    let best = leftUs * total / HESITATION;
    for (let bin = 0; bin < LONGER && packets * edgeUs <= leftUs; bin++) {
      const count = counts[BINS * id + bin];
      // On average a gap is in the middle of its bin.
      const middleUs = bin === 0 ? edgeUs / 2 : edgeUs * 0.75;
      arrived += count;
      arrivedUs += count * middleUs;
      const gain = leftUs * arrived - packets * (arrivedUs + (total - arrived) * edgeUs);
      if (gain > best) {
        best = gain;
        bestUs = edgeUs;
      }
      edgeUs *= 2;
    }
    return bestUs;
  }

  /** Forgets what was known of `id`, which another peer has now. */
  forget(id: number): void {
    this.#lastUs[id] = 0;
    this.#total[id] = 0;
    for (let bin = 0; bin < BINS; bin++) this.#counts[BINS * id + bin] = 0;
  }

  #forgetHalf(id: number): void {
    let total = 0;
    for (let bin = 0; bin < BINS; bin++) total += this.#counts[BINS * id + bin] >>= 1;
    this.#total[id] = total;
  }
}
