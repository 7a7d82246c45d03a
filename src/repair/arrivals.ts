// Hot path.
/**
 * What a receiver knows of one direction of a session that repairs: when each of the last datagrams came, which are lost,
 * which repair brought back; and which of it the other end is to be told (PROTOCOL §14). Invariant: memory is fixed, and
 * what is told beside losses costs no more than a small share of the bytes that it is about. Writes no reports.
 * Keeps PROTOCOL R93 and R94.
 */
import { FATES_KEPT, KEEP, LossRuns, Reordering } from "./loss_runs.ts";

/** No repair names what lies so far back: what did not come until then never will. */
const SETTLED = 256;
const BROUGHT_BACK = 1, UNPROTECTED = 2;
/** Of the bytes that come, so many may be spent on telling when, while nothing is lost; and be saved up. */
const TELLING_SHARE = 1 / 200, CREDIT_BYTES_MAX = 160;
/** From this rate of losses on it is worth more. */
const LOSSY_RATE = 0.002;
/** Gaps between datagrams that differ by less, smoothed, tell nothing. */
const VARIATION_US_MIN = 500;
/** What changed is said so often, for a report may be lost. */
const REPEATS = 2;

export class Arrivals {
  readonly runs: LossRuns;
  /** Counters by which one was overtaken at most since the last report that said so. */
  reorderDepth = 0;
  /** Datagrams that repair brought back, and protected ones that it did not, since the first. */
  repaired = 0;
  unrepaired = 0;
  readonly #reordering = new Reordering();
  readonly #us = new Float64Array(FATES_KEPT);
  readonly #marks = new Uint8Array(FATES_KEPT);
  readonly #first: number;
  // With forgetting: protected datagrams that are settled, and those of them that never came.
  #weight = 0;
  #goneWeight = 0;
  // What a report would say: how much has changed, what was said of it, how often it is still said.
  #changes = 0;
  #changesSaid = 0;
  #repeats = 0;
  #credit = 0;
  #lastUs = NaN;
  #gapUs = NaN;
  #variationUs = 0;

  /** @param first the first counter of which everything that comes is shown to this. */
  constructor(first: number) {
    this.#first = first;
    this.runs = new LossRuns(first);
  }

  /** A datagram of `bytes`, UDP and IP counted, arrived; each counter comes once. */
  arrived(counter: number, bytes: number, nowUs: number): void {
    const { runs } = this, { highest } = runs;
    if (counter > highest) this.#advance(highest, counter, nowUs);
    else if (runs.isKept(counter)) this.#late(counter, nowUs);
    if (runs.arrived(counter)) this.#changes++;
    if (runs.isKept(counter)) this.#us[counter % FATES_KEPT] = nowUs; // else another's place
    this.#credit = Math.min(CREDIT_BYTES_MAX, this.#credit + TELLING_SHARE * bytes);
    const limit = runs.highest - this.#reordering.patience;
    while (runs.next <= limit) this.#judge();
  }

  /** Judges what has had time enough, at the moment of a report. */
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
      const mark = this.#marks[i % FATES_KEPT];
      if ((mark & UNPROTECTED) === 0) this.#settle(mark === 0 && !this.runs.hasArrived(i));
    }
    // Of a jump what memory there is of it: a peer may jump by 2^31.
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

  /** Share of protected datagrams of late that neither came nor were brought back, 0 to 1. */
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

  /** When the datagram with `counter` arrived, or NaN when it did not, or that is forgotten. */
  usOf(counter: number): number {
    return this.runs.hasArrived(counter) ? this.#us[counter % FATES_KEPT] : NaN;
  }

  /** Repair has brought the datagram's packets back. */
  onRepaired(counter: number): void {
    if (this.runs.isKept(counter)) this.#marks[counter % FATES_KEPT] |= BROUGHT_BACK;
    this.repaired++;
    this.#changes++;
  }

  /**
   * A repair combines the datagrams `numbers[0]` to `numbers[count - 1]`, in growing order. Those between that it does not
   * combine are not protected; a lost one of which nothing is said counts as if it were.
   */
  onSources(numbers: Float64Array, count: number): void {
    let i = 0;
    for (let counter = numbers[0]; counter < numbers[count - 1]; counter++) {
      if (counter === numbers[i]) i++;
      else if (this.runs.isKept(counter)) this.#marks[counter % FATES_KEPT] |= UNPROTECTED;
    }
  }

  /** Whether the totals are to be said in the report that is being written. */
  get isQualityDue(): boolean {
    return this.#changes !== this.#changesSaid || this.#repeats > 0;
  }

  /** After the totals were written to a report. */
  saidQuality(): void {
    this.#repeats = this.#changes === this.#changesSaid ? this.#repeats - 1 : REPEATS - 1;
    this.#changesSaid = this.#changes;
    this.reorderDepth = 0;
  }

  /**
   * How many bytes of arrival times are worth their room in the report that is being written: all that there is where
   * something was lost of late, else what the credit allows while delays vary.
   */
  get tellingBytes(): number {
    if (this.runs.lossRate > LOSSY_RATE) return Infinity;
    return this.#variationUs < VARIATION_US_MIN ? 0 : this.#credit;
  }

  /** After a report was written with so many bytes of arrival times. */
  saidArrivals(bytes: number): void {
    this.#credit = Math.max(0, this.#credit - bytes);
  }
}
