// Hot path.
/**
 * The fate of the last datagrams of one direction, by counter: arrived or lost, the recent rate of losses, and their runs by
 * length (PROTOCOL §14). Invariant: each counter is judged once, in order, and a late arrival takes its loss back; memory is
 * fixed. Does not decide when a counter has had time enough: the caller does, by `Reordering`.
 * Keeps PROTOCOL R93.
 */

/** Counters whose fate is kept, a power of two; a report's bitmap covers half of them. */
export const FATES_KEPT = 512;
/** Runs are counted as of 1, 2, 3 to 4, 5 to 8 and more losses. */
export const RUN_CLASSES = 5;
const CLASS_OF_RUN = [0, 0, 1, 2, 2, 3, 3, 3, 3, 4];
const RUN_MAX = CLASS_OF_RUN.length - 1;
/** Losses that a run of each class stands for where the class alone is known. */
const RUN_OF_CLASS = [1, 2, 3.5, 6.5, 12];
/** Losses and arrivals are forgotten with this half-life, in datagrams. */
export const LOSS_HALF_LIFE = 256;
export const KEEP = 2 ** (-1 / LOSS_HALF_LIFE);
const ARRIVED = 1, LOST = 2;

export class LossRuns {
  /** Runs of each class since the first counter, modulo 2^16. */
  readonly runs = new Uint16Array(RUN_CLASSES);
  /** The highest counter that arrived. */
  highest: number;
  /** Counters that were judged since the first, and how many of them are lost. */
  judged = 0;
  lost = 0;
  readonly #first: number;
  /** Counters up to here have been judged. */
  #judgedTo: number;
  readonly #fate = new Uint8Array(FATES_KEPT);
  /** Losses in a row up to the last that was judged. */
  #run = 0;
  // With forgetting: how much was judged, lost, and how many runs the losses came in.
  #weight = 0;
  #lostWeight = 0;
  #runWeight = 0;

  /** @param first the first counter that is judged; earlier ones mean nothing. */
  constructor(first: number) {
    this.#first = first;
    this.highest = this.#judgedTo = first - 1;
  }

  /** The counter that is to be judged next. */
  get next(): number {
    return this.#judgedTo + 1;
  }

  /** Recent share of datagrams lost, 0 to 1. */
  get lossRate(): number {
    return this.#weight < 1 ? 0 : Math.min(1, this.#lostWeight / this.#weight);
  }

  /** Recent losses in a row, on average; 1 without any. */
  get runLength(): number {
    return this.#runWeight < 1e-3 ? 1 : Math.max(1, this.#lostWeight / this.#runWeight);
  }

  /** Whether the counter's fate is kept: it is neither too old nor higher than what arrived. */
  isKept(counter: number): boolean {
    return counter >= this.#first && counter <= this.highest && counter > this.highest - FATES_KEPT;
  }

  hasArrived(counter: number): boolean {
    return this.isKept(counter) && this.#fate[counter % FATES_KEPT] === ARRIVED;
  }

  isLost(counter: number): boolean {
    return this.isKept(counter) && this.#fate[counter % FATES_KEPT] === LOST;
  }

  /** Notes that the datagram with `counter` arrived; true when it had been judged lost, which it no longer is. */
  arrived(counter: number): boolean {
    if (counter > this.highest) {
      for (let i = Math.max(this.highest + 1, counter - FATES_KEPT + 1); i <= counter; i++) {
        this.#fate[i % FATES_KEPT] = 0;
      }
      this.highest = counter;
      // Counters that fell out of memory unjudged count neither as arrived nor as lost.
      this.#judgedTo = Math.max(this.#judgedTo, counter - FATES_KEPT);
    } else if (!this.isKept(counter)) return false;
    const place = counter % FATES_KEPT, wasLost = this.#fate[place] === LOST;
    this.#fate[place] = ARRIVED;
    if (wasLost) this.#takeBack(counter);
    return wasLost;
  }

  /** Judges the next counter, which is at most the highest; true when it is lost. */
  judgeNext(): boolean {
    const place = ++this.#judgedTo % FATES_KEPT;
    this.judged++;
    this.#forget(KEEP);
    this.#weight++;
    if (this.#fate[place] === ARRIVED) {
      this.#run = 0;
      return false;
    }
    this.#fate[place] = LOST;
    this.lost++;
    this.#lostWeight++;
    if (this.#run === 0) this.#runWeight++;
    else this.#count(this.#run, -1);
    this.#count(++this.#run, 1);
    return true;
  }

  /** Gives up judging the counters below `counter` one by one. */
  skipTo(counter: number): void {
    if (counter <= this.next) return;
    this.#judgedTo = counter - 1;
    this.#run = 0;
  }

  /**
   * Takes in that `runs[class]` runs of losses were among `skipped` datagrams that were not judged one by one. Returns the
   * number of losses, `skipped` at most.
   */
  learn(skipped: number, runs: Int32Array): number {
    let lost = 0, count = 0;
    for (let i = 0; i < RUN_CLASSES; i++) {
      lost += runs[i] * RUN_OF_CLASS[i];
      count += runs[i];
    }
    count = Math.min(Math.max(0, count), skipped);
    lost = Math.min(Math.max(lost, count), skipped);
    for (let i = 0; i < RUN_CLASSES; i++) this.runs[i] += runs[i];
    this.judged += skipped;
    this.lost += lost;
    const kept = KEEP ** skipped, fresh = (1 - kept) / (1 - KEEP);
    this.#forget(kept);
    this.#weight += fresh;
    this.#lostWeight += fresh * lost / skipped;
    this.#runWeight += fresh * count / skipped;
    return lost;
  }

  #forget(kept: number): void {
    this.#weight *= kept;
    this.#lostWeight *= kept;
    this.#runWeight *= kept;
  }

  #count(run: number, change: number): void {
    this.runs[CLASS_OF_RUN[Math.min(run, RUN_MAX)]] += change;
  }

  /** Replaces the run that `counter` was in by what is left on either side. */
  #takeBack(counter: number): void {
    let before = 0, behind = 0;
    while (before < RUN_MAX && this.isLost(counter - 1 - before)) before++;
    while (behind < RUN_MAX && this.isLost(counter + 1 + behind)) behind++;
    this.#count(before + 1 + behind, -1);
    if (before > 0) this.#count(before, 1);
    if (behind > 0) this.#count(behind, 1);
    if (counter + behind === this.#judgedTo) this.#run = behind;
    this.lost--;
    const weight = KEEP ** (this.#judgedTo - counter);
    this.#lostWeight = Math.max(0, this.#lostWeight - weight);
    if (before + behind === 0) this.#runWeight = Math.max(0, this.#runWeight - weight);
    else if (before > 0 && behind > 0) this.#runWeight += weight;
  }
}

/** Counters by which a datagram may be overtaken on any path (RFC 9002 §6.1.1), and on the wildest. */
const DEPTH_MIN = 3;
export const DEPTH_MAX = 64;
const WAIT_US_MIN = 10_000, WAIT_US_MAX = 150_000, WAIT_MARGIN = 1.25;
const FADE = 127 / 128;
/** A shorter maximum has faded away. */
const OVERTAKEN_US_MIN = 100;

/** How far datagrams were overtaken recently, and so how long to wait for one (in the manner of RFC 8985 §6.2). */
export class Reordering {
  /** Recent maxima: counters, and microseconds, by which a datagram was overtaken. */
  depth = 0;
  lateUs = 0;

  /** Notes a datagram that arrived after one with a counter higher by `depth`, `lateUs` late. */
  note(depth: number, lateUs: number): void {
    if (depth > this.depth) this.depth = depth;
    if (lateUs > this.lateUs) this.lateUs = lateUs;
  }

  /** Decays the maxima; called once for some datagrams, or for a report. */
  fade(): void {
    this.depth *= FADE;
    this.lateUs *= FADE;
  }

  /** A missing datagram is lost when one has arrived whose counter is higher by this. */
  get patience(): number {
    return Math.min(DEPTH_MAX, Math.max(DEPTH_MIN, Math.ceil(this.depth) + 1));
  }

  /** How long after a later datagram a missing one came at most, recently, with a margin; 0 without any. */
  get overtakenUs(): number {
    return this.lateUs < OVERTAKEN_US_MIN ? 0 : Math.min(WAIT_US_MAX, WAIT_MARGIN * this.lateUs);
  }

  /** A missing datagram is lost when one with a higher counter arrived this long ago. */
  get waitUs(): number {
    return Math.min(WAIT_US_MAX, Math.max(WAIT_US_MIN, WAIT_MARGIN * this.lateUs));
  }
}
