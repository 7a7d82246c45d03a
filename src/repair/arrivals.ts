// Hot path.
/**
 * What a receiver knows of one direction of a session that repairs: when each of the last datagrams arrived, which are lost,
 * which repair brought back; and what of this the next report tells (PROTOCOL §14). Invariant: memory is fixed, and reports of
 * arrival times without losses cost at most TELLING_SHARE of the bytes that arrived. Writes no reports.
 * Keeps PROTOCOL R93 and R94.
 */
import { FATES_KEPT, KEEP, LossRuns, Reordering } from "./loss_runs.ts";

/** No repair names a datagram so far back: one that has not arrived or come back by then never will. */
const SETTLED = 256;
const BROUGHT_BACK = 1, UNPROTECTED = 2;
/** Bytes of arrival times that may be reported for each byte that arrives while nothing is lost; and how many may add up. */
const TELLING_SHARE = 1 / 200, CREDIT_BYTES_MAX = 160;
/** Above this rate of losses, arrival times are reported whatever they cost. */
const LOSSY_RATE = 0.002;
/** While gaps between datagrams differ by less, smoothed, arrival times tell nothing. */
const VARIATION_US_MIN = 500;
/** Reports that repeat a change, for a report may be lost. */
const REPEATS = 2;
/** Time between reports of the totals where datagrams are asked for: the bitmaps say what is lost. */
const QUALITY_US = 500_000;

export class Arrivals {
  readonly runs: LossRuns;
  /** Counters by which a datagram was overtaken at most, since the last report that told this. */
  reorderDepth = 0;
  /** Datagrams that repair brought back, and protected ones that it did not, since the first. */
  repaired = 0;
  unrepaired = 0;
  readonly #reordering = new Reordering();
  readonly #us = new Float64Array(FATES_KEPT);
  readonly #marks = new Uint8Array(FATES_KEPT);
  /** Counters of which another path brought a copy, perhaps before they come themselves; undefined before the first. */
  #copied: Float64Array | undefined;
  readonly #first: number;
  readonly #isFrugal: boolean;
  // With forgetting: protected datagrams that are settled, and those of them that never came.
  #weight = 0;
  #goneWeight = 0;
  // For reports: changes so far, changes at the last report that told them, and reports that are to repeat them.
  #changes = 0;
  #changesSaid = 0;
  #repeats = 0;
  #qualityUs = -Infinity;
  #credit = 0;
  #lastUs = NaN;
  #gapUs = NaN;
  #variationUs = 0;

  /**
   * @param first the first counter of which everything that arrives is shown to this. @param isFrugal whether totals are
   * told more rarely, and arrival times for no more than their share where datagrams are lost too: where these are asked for, less
   * hangs on it.
   */
  constructor(first: number, isFrugal = false) {
    this.#first = first;
    this.#isFrugal = isFrugal;
    this.runs = new LossRuns(first);
  }

  /** Notes an arrival of `bytes`, UDP and IP headers included; no counter twice. */
  arrived(counter: number, bytes: number, nowUs: number): void {
    const { runs } = this, { highest } = runs;
    if (counter > highest) this.#advance(highest, counter, nowUs);
    else if (runs.isKept(counter)) this.#late(counter, nowUs);
    if (runs.arrived(counter)) this.#changes++;
    if (runs.isKept(counter)) this.#us[counter % FATES_KEPT] = nowUs; // else the place is another counter's
    this.#credit = Math.min(CREDIT_BYTES_MAX, this.#credit + TELLING_SHARE * bytes);
    const limit = runs.highest - this.#reordering.patience;
    while (runs.next <= limit) this.#judge();
  }

  /** Judges all counters that have had time enough, for a report. */
  judge(nowUs: number): void {
    const { runs } = this, { waitUs } = this.#reordering;
    while (runs.next < runs.highest) {
      if (!runs.hasArrived(runs.next)) {
        let later = runs.next + 1;
        while (!runs.hasArrived(later)) later++;
        if (nowUs - this.#us[later % FATES_KEPT] < waitUs) break;
      }
      this.#judge();
    }
    this.#reordering.fade();
  }

  #judge(): void {
    if (this.runs.judgeNext()) this.#changes++;
  }

  #advance(highest: number, counter: number, nowUs: number): void {
    const settled = counter - SETTLED;
    for (let i = Math.max(this.#first, highest + 1 - SETTLED); i <= Math.min(settled, highest); i++) {
      const mark = this.#marks[i % FATES_KEPT], hasCome = this.runs.hasArrived(i);
      const isCopied = this.#copied !== undefined && this.#copied[i % FATES_KEPT] === i;
      if (isCopied && !hasCome) this.#countRepaired();
      if ((mark & UNPROTECTED) === 0) this.#settle(mark === 0 && !isCopied && !hasCome);
    }
    // Of a jump no more than is remembered: a peer may jump by 2^31.
    for (let left = Math.min(settled - highest, FATES_KEPT); left > 0; left--) this.#settle(true);
    for (let i = Math.max(highest + 1, counter - FATES_KEPT + 1); i <= counter; i++) {
      this.#marks[i % FATES_KEPT] = 0;
    }
    const gapUs = nowUs - this.#lastUs;
    const differenceUs = Math.abs(gapUs - this.#gapUs);
    if (!Number.isNaN(differenceUs)) this.#variationUs += (differenceUs - this.#variationUs) / 16;
    this.#gapUs = gapUs;
    this.#lastUs = nowUs;
  }

  #settle(isGone: boolean): void {
    this.#weight = this.#weight * KEEP + 1;
    this.#goneWeight *= KEEP;
    if (!isGone) return;
    this.#goneWeight++;
    this.unrepaired++;
    this.#changes++;
  }

  /** Recent share of protected datagrams that neither arrived nor were brought back, 0 to 1. */
  get residualRate(): number {
    return this.#weight < 1 ? 0 : this.#goneWeight / this.#weight;
  }

  #late(counter: number, nowUs: number): void {
    const { runs } = this;
    const depth = runs.highest - counter;
    let later = counter + 1;
    while (later < runs.highest && !runs.hasArrived(later)) later++;
    this.#reordering.note(depth, nowUs - this.#us[later % FATES_KEPT]);
    if (depth > this.reorderDepth) this.reorderDepth = depth;
    this.#changes++;
  }

  /** When the datagram with `counter` arrived; NaN when it did not or is too old. */
  usOf(counter: number): number {
    return this.runs.hasArrived(counter) ? this.#us[counter % FATES_KEPT] : NaN;
  }

  /** Notes that repair brought the datagram's packets back. */
  onRepaired(counter: number): void {
    if (this.runs.isKept(counter)) this.#marks[counter % FATES_KEPT] |= BROUGHT_BACK;
    this.#countRepaired();
  }

  #countRepaired(): void {
    this.repaired++;
    this.#changes++;
  }

  /** Notes that a copy of the datagram's packets came on another path: it counts as repaired if the datagram never comes. */
  onCopied(counter: number): void {
    this.#copied ??= new Float64Array(FATES_KEPT).fill(-1);
    this.#copied[counter % FATES_KEPT] = counter;
  }

  /**
   * Notes that a repair combines the datagrams `numbers[0]` to `numbers[count - 1]`, in growing order. Those between that it
   * does not combine are not protected; a lost one that no repair spans counts as protected.
   */
  onSources(numbers: Float64Array, count: number): void {
    let i = 0;
    for (let counter = numbers[0]; counter < numbers[count - 1]; counter++) {
      if (counter === numbers[i]) i++;
      else if (this.runs.isKept(counter)) this.#marks[counter % FATES_KEPT] |= UNPROTECTED;
    }
  }

  /** Notes that the datagram with `counter`, which has not arrived, was not protected. */
  onUnprotected(counter: number): void {
    if (this.runs.isKept(counter)) this.#marks[counter % FATES_KEPT] |= UNPROTECTED;
  }

  /** How long after a later datagram a missing one may still come, microseconds; 0 where none was overtaken recently. */
  get overtakenUs(): number {
    return this.#reordering.overtakenUs;
  }

  /** Whether the totals belong into the report that is being written. */
  isQualityDue(nowUs: number): boolean {
    if (this.#isFrugal && nowUs - this.#qualityUs < QUALITY_US) return false;
    return this.#changes !== this.#changesSaid || this.#repeats > 0;
  }

  /** After the totals were written to a report. */
  saidQuality(nowUs: number): void {
    this.#qualityUs = nowUs;
    this.#repeats = this.#changes === this.#changesSaid ? this.#repeats - 1 : REPEATS - 1;
    this.#changesSaid = this.#changes;
    this.reorderDepth = 0;
  }

  /**
   * Bytes of arrival times that are worth their room in the report that is being written: any number with recent losses,
   * else what the credit allows while delays vary.
   */
  get tellingBytes(): number {
    if (this.runs.lossRate > LOSSY_RATE && !this.#isFrugal) return Infinity;
    return this.#variationUs < VARIATION_US_MIN ? 0 : this.#credit;
  }

  /** Takes from the credit: a report was written with `bytes` of arrival times. */
  saidArrivals(bytes: number): void {
    this.#credit = Math.max(0, this.#credit - bytes);
  }
}
