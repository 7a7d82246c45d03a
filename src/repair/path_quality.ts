// Hot path.
/**
 * What a sender knows of one direction of its path from the receiver's reports (PROTOCOL §14): losses and their runs, apart
 * from reordering, the queue on the way, losses left after repair, and whether reports arrive at all. Invariant: a report
 * changes these figures alone, and one about datagrams that were never sent changes nothing; memory is fixed. The clocks of
 * the ends need not agree: only differences of transit times count. Keeps PROTOCOL R93 and R95.
 */
import { DEPTH_MAX, FATES_KEPT, KEEP, LossRuns, Reordering, RUN_CLASSES } from "./loss_runs.ts";

/** What is known of one direction. */
export interface PathQuality {
  /** Recent share of datagrams lost, 0 to 1, reordering excluded. */
  readonly lossRate: number;
  /** Losses in a row, on average, 1 or more; and how long a run of losses lasts, microseconds. */
  readonly runLength: number;
  readonly runUs: number;
  /** Recent maximum of counters by which a datagram was overtaken. */
  readonly reorderDepth: number;
  /** One-way delay above the recent minimum, smoothed, microseconds; and its growth, microseconds a second. */
  readonly queueUs: number;
  readonly queueSlope: number;
  /** Recent share of protected datagrams that were lost and not brought back, 0 to 1. */
  readonly residualRate: number;
  /** Datagrams judged so far, lost or not. */
  readonly judged: number;
  /** Whether data is sent and reports have stopped. */
  readonly isSilent: boolean;
  /** Round trip by the reports, smoothed, and its recent minimum, microseconds; -1 and Infinity before the first report. */
  readonly rttUs: number;
  readonly rttUsMin: number;
}

/** What one report added. */
export interface PathStep {
  /** Microseconds since the last step. */
  elapsedUs: number;
  /** Datagrams judged, and of these lost. */
  judged: number;
  lost: number;
  /** Runs of losses that began, and the longest, in datagrams. */
  runs: number;
  longestRun: number;
  /** Mean and largest one-way delay of arrivals above the recent minimum, microseconds; unchanged where nothing arrived. */
  queueUs: number;
  queueUsMax: number;
  /** Mean difference of the transit times of neighbours, microseconds. */
  jitterUs: number;
  /** Most counters by which a datagram was overtaken. */
  reorderDepth: number;
  /** Datagrams marked CE (RFC 3168). */
  ce: number;
}

/** What this needs of a receiver's report (wire/report.ts). */
export interface PathReport {
  highest: number;
  delayUs: number;
  bitmap: Uint8Array;
  bitmapBytes: number;
  hasEcn: boolean;
  congestionExperienced: number;
  hasQuality: boolean;
  lossRuns: Uint16Array;
  reorderDepth: number;
  repaired: number;
  unrepaired: number;
  arrivals: Int16Array;
  arrivalCount: number;
  hasClock: boolean;
  clock: number;
}

/** Datagrams whose sending is remembered, a power of two. */
const SENT_KEPT = 1024;
/** Time without a report that is silence, or round trips where these take longer. */
const SILENT_US = 300_000, SILENT_ROUND_TRIPS = 4;
/** The same before the round trip is known. */
const SILENT_US_FIRST = 2_000_000;
/** Steps of `clock` and of `arrivals`, microseconds; the ends of `arrivals`, and of `delayUs`, mean "this or more". */
const CLOCK_US = 64, ARRIVAL_US = 8, ARRIVAL_MIN = -32768, ARRIVAL_MAX = 32767, DELAY_US_MAX = 0xffff * 16;
/** A recent minimum is that of the present window and of the one before. */
const WINDOW_US = 10_000_000;
const ROUND_TRIP_US_MAX = 60_000_000;
/** A larger change of the transit time, without one of the round trip, is a clock that was set. */
const JUMP_US = 500_000;

/** The minimum over the last ten to twenty seconds. */
class RecentLeast {
  #before = Infinity;
  #now = Infinity;
  #sinceUs = -Infinity;

  add(value: number, nowUs: number): void {
    if (nowUs - this.#sinceUs >= WINDOW_US) {
      this.#before = nowUs - this.#sinceUs < 2 * WINDOW_US ? this.#now : Infinity;
      this.#now = Infinity;
      this.#sinceUs = nowUs;
    }
    this.#now = Math.min(this.#now, value);
  }

  get value(): number {
    return Math.min(this.#before, this.#now);
  }

  forget(): void {
    this.#before = this.#now = Infinity;
  }
}

/** The time nearest to `aboutUs` that the 16 bits of the receiver's clock may mean. */
function fullClockUs(clock: number, aboutUs: number): number {
  const aboutSteps = Math.floor(aboutUs / CLOCK_US);
  return CLOCK_US * (aboutSteps + ((clock - aboutSteps) << 16 >> 16));
}

export class PathMeter implements PathQuality {
  readonly step: PathStep = {
    elapsedUs: 0,
    judged: 0,
    lost: 0,
    runs: 0,
    longestRun: 0,
    queueUs: 0,
    queueUsMax: 0,
    jitterUs: 0,
    reorderDepth: 0,
    ce: 0,
  };
  runUs = 0;
  queueUs = 0;
  queueSlope = 0;
  rttUs = -1;
  isSilent = false;
  /** Datagrams that the other end reports as brought back, and protected ones that it could not bring back. */
  repaired = 0;
  unrepaired = 0;
  readonly #runs = new LossRuns(0);
  readonly #reordering = new Reordering();
  readonly #rttLeast = new RecentLeast();
  // By counter: when the datagram was sent, by this end's clock, NaN where unknown; and whether it was protected.
  readonly #sentUs = new Float64Array(SENT_KEPT).fill(NaN);
  readonly #isProtected = new Uint8Array(SENT_KEPT);
  #newest = -1;
  /** The highest counter of a datagram that a receiver reports, and since when such a datagram waits for a report. */
  #elicited = -1;
  #waitingUs = Infinity;
  /** By counter: when the datagram arrived, by the receiver's clock plus a constant; NaN where unknown. */
  readonly #arrivedUs = new Float64Array(FATES_KEPT).fill(NaN);
  /** Whether reports have the other end's clock; without it the way back counts as constant. */
  #hasClock = false;
  readonly #least = new RecentLeast();
  #transitUs = NaN;
  /** Transit time less round trip: the difference of the clocks less the way back. */
  #offsetUs = 0;
  #stepUs = -1;
  #run = 0;
  #runSinceUs = NaN;
  // With forgetting: protected datagrams judged, lost and brought back.
  #weight = 0;
  #lostWeight = 0;
  #repairedWeight = 0;
  #repairedTold = 0;
  #unrepairedTold = 0;
  #ceTold = 0;
  /** The other end's runs as last reported, and this end's at that time. */
  readonly #runsTold = new Uint16Array(RUN_CLASSES);
  readonly #runsThen = new Uint16Array(RUN_CLASSES);
  readonly #unseen = new Int32Array(RUN_CLASSES);
  #hasTold = false;

  get lossRate(): number {
    return this.#runs.lossRate;
  }

  get runLength(): number {
    return this.#runs.runLength;
  }

  get reorderDepth(): number {
    return this.#reordering.depth;
  }

  get judged(): number {
    return this.#runs.judged;
  }

  get lost(): number {
    return this.#runs.lost;
  }

  /** The counter that the next report judges first. */
  get next(): number {
    return this.#runs.next;
  }

  get rttUsMin(): number {
    return this.#rttLeast.value;
  }

  get residualRate(): number {
    if (this.#weight < 1) return 0;
    return Math.min(1, Math.max(0, this.#lostWeight - this.#repairedWeight) / this.#weight);
  }

  /**
   * Notes that the datagram with `counter` was sent. @param isReported whether the other end reports such datagrams.
   */
  sent(counter: number, isReported: boolean, isProtected: boolean, nowUs: number): void {
    for (let i = Math.max(this.#newest + 1, counter - SENT_KEPT); i < counter; i++) {
      this.#sentUs[i % SENT_KEPT] = NaN;
      this.#isProtected[i % SENT_KEPT] = 0;
    }
    this.#newest = counter;
    this.#sentUs[counter % SENT_KEPT] = nowUs;
    this.#isProtected[counter % SENT_KEPT] = isProtected ? 1 : 0;
    if (!isReported) return;
    this.#elicited = counter;
    if (this.#waitingUs === Infinity) this.#waitingUs = nowUs;
    else if (nowUs - this.#waitingUs > this.#silentUs) this.isSilent = true;
  }

  get #silentUs(): number {
    return this.rttUs < 0 ? SILENT_US_FIRST : Math.max(SILENT_US, SILENT_ROUND_TRIPS * this.rttUs);
  }

  /** When the datagram was sent; NaN when that is not remembered. */
  sentUs(counter: number): number {
    return counter > this.#newest - SENT_KEPT && counter <= this.#newest
      ? this.#sentUs[counter % SENT_KEPT]
      : NaN;
  }

  #wasProtected(counter: number): boolean {
    return counter > this.#newest - SENT_KEPT && this.#isProtected[counter % SENT_KEPT] === 1;
  }

  /** Takes a report that arrived at `nowUs`; true when it added to what is known, which is in `step`. */
  observe(report: PathReport, nowUs: number): boolean {
    const { highest, bitmap, bitmapBytes } = report;
    if (!(highest >= 0 && highest <= this.#newest)) return false;
    this.isSilent = false;
    this.#waitingUs = highest >= this.#elicited ? Infinity : nowUs;
    const runs = this.#runs, { next } = runs, last = runs.highest;
    if (highest < last) {
      this.#mark(highest, bitmap, bitmapBytes);
      return false;
    }
    this.#begin(nowUs);
    this.#mark(highest, bitmap, bitmapBytes);
    this.#time(report, last, nowUs);
    this.#count(report);
    const start = highest - 8 * bitmapBytes, skipped = Math.max(0, start - next);
    runs.skipTo(start);
    if (skipped > 0) this.#run = 0;
    this.#judge(report);
    if (report.hasQuality) this.#learn(report, skipped);
    this.#reordering.fade();
    return true;
  }

  #begin(nowUs: number): void {
    const { step } = this;
    step.elapsedUs = this.#stepUs < 0 ? 0 : nowUs - this.#stepUs;
    step.judged = step.lost = step.ce = 0;
    step.runs = step.longestRun = step.reorderDepth = 0;
    this.#stepUs = nowUs;
  }

  /** Notes what has arrived. A datagram that had been judged lost was overtaken. */
  #mark(highest: number, bitmap: Uint8Array, bitmapBytes: number): void {
    const runs = this.#runs, last = runs.highest;
    for (let i = Math.max(last + 1, highest - FATES_KEPT + 1); i <= highest; i++) {
      this.#arrivedUs[i % FATES_KEPT] = NaN;
    }
    runs.arrived(highest);
    for (let bit = 0; bit < 8 * bitmapBytes; bit++) {
      if ((bitmap[bit >> 3] >> (bit & 7) & 1) === 0) continue;
      const counter = highest - 1 - bit, depth = last - counter;
      if (depth > 0 && depth <= DEPTH_MAX && runs.isKept(counter) && !runs.hasArrived(counter)) {
        this.#reordering.note(depth, this.sentUs(last) - this.sentUs(counter));
        this.step.reorderDepth = Math.max(this.step.reorderDepth, depth);
      }
      const wasLost = runs.arrived(counter);
      if (wasLost && this.#wasProtected(counter)) this.#lostWeight = Math.max(0, this.#lostWeight - 1);
    }
  }

  /** Finds when the datagrams that are new in the report arrived, and the queue that they met. */
  #time(report: PathReport, last: number, nowUs: number): void {
    const { highest, delayUs, bitmap, bitmapBytes, arrivals, arrivalCount } = report;
    const sentUs = this.sentUs(highest);
    const isDelayKnown = delayUs < DELAY_US_MAX, tookUs = nowUs - delayUs - sentUs;
    if (isDelayKnown && tookUs >= 0 && tookUs < ROUND_TRIP_US_MAX) {
      // RFC 6298's gain.
      this.rttUs = this.rttUs < 0 ? tookUs : this.rttUs + (tookUs - this.rttUs) / 8;
      this.#rttLeast.add(tookUs, nowUs);
    }
    const lastUs = this.#arrivedUs[last % FATES_KEPT];
    if (highest === last && !Number.isNaN(lastUs)) return;
    if (Number.isNaN(sentUs) || !isDelayKnown && !report.hasClock) return;
    const isOther = report.hasClock !== this.#hasClock;
    this.#hasClock = report.hasClock;
    const aboutUs = isOther || Number.isNaN(this.#transitUs) ? nowUs : sentUs + this.#transitUs;
    const highestUs = report.hasClock ? fullClockUs(report.clock, aboutUs) : nowUs - delayUs;
    const offsetUs = highestUs - sentUs - tookUs;
    const hasJumped = isDelayKnown && Math.abs(offsetUs - this.#offsetUs) > JUMP_US;
    if (isOther || hasJumped) {
      this.#least.forget();
      this.#transitUs = NaN;
    }
    if (isDelayKnown) this.#offsetUs = offsetUs;
    this.#arrivedUs[highest % FATES_KEPT] = highestUs;
    for (let bit = 0, i = 0; bit < 8 * bitmapBytes && i < arrivalCount; bit++) {
      if ((bitmap[bit >> 3] >> (bit & 7) & 1) === 0) continue;
      const steps = arrivals[i++], counter = highest - 1 - bit;
      if (this.#runs.isKept(counter) && steps > ARRIVAL_MIN && steps < ARRIVAL_MAX) {
        this.#arrivedUs[counter % FATES_KEPT] = highestUs - ARRIVAL_US * steps;
      }
    }
    this.#measure(last, highest, nowUs);
  }

  /** Measures the queue that the datagrams after `last` up to `highest` met, as far as their times are known. */
  #measure(last: number, highest: number, nowUs: number): void {
    const { step } = this, before = step.queueUs;
    let count = 0, sumUs = 0, mostUs = -Infinity, differencesUs = 0, differences = 0;
    for (let counter = Math.max(last + 1, highest - FATES_KEPT + 1); counter <= highest; counter++) {
      const transitUs = this.#arrivedUs[counter % FATES_KEPT] - this.sentUs(counter);
      if (Number.isNaN(transitUs)) continue;
      const differenceUs = Math.abs(transitUs - this.#transitUs);
      if (!Number.isNaN(differenceUs)) {
        differencesUs += differenceUs;
        differences++;
      }
      this.#transitUs = transitUs;
      this.#least.add(transitUs, nowUs);
      sumUs += transitUs;
      mostUs = Math.max(mostUs, transitUs);
      count++;
    }
    if (count === 0) return;
    const least = this.#least.value;
    step.queueUs = Math.max(0, sumUs / count - least);
    step.queueUsMax = Math.max(0, mostUs - least);
    if (differences > 0) step.jitterUs = differencesUs / differences;
    this.queueUs += (step.queueUs - this.queueUs) / 4;
    const slope = 1e6 * (step.queueUs - before) / step.elapsedUs;
    if (step.elapsedUs > 0) this.queueSlope += (slope - this.queueSlope) / 4;
  }

  /** Takes in the totals of the report. */
  #count(report: PathReport): void {
    const { step } = this;
    if (report.hasEcn) {
      const marks = report.congestionExperienced - this.#ceTold >>> 0;
      this.#ceTold = report.congestionExperienced;
      step.ce = marks <= SENT_KEPT ? marks : 0;
    }
    if (!report.hasQuality) return;
    step.reorderDepth = Math.max(step.reorderDepth, Math.min(report.reorderDepth, FATES_KEPT));
    this.#reordering.note(step.reorderDepth, 0);
    const repaired = report.repaired - this.#repairedTold >>> 0;
    const unrepaired = report.unrepaired - this.#unrepairedTold >>> 0;
    this.#repairedTold = report.repaired;
    this.#unrepairedTold = report.unrepaired;
    // There cannot be more than was sent.
    if (repaired + unrepaired > SENT_KEPT) return;
    this.repaired += repaired;
    this.unrepaired += unrepaired;
    this.#repairedWeight += repaired;
  }

  /** Learns of datagrams before the bitmap, which cannot be judged one by one: from the other end's runs less this end's. */
  #learn({ lossRuns }: PathReport, skipped: number): void {
    const runs = this.#runs, { step } = this;
    for (let i = 0; i < RUN_CLASSES; i++) {
      // Totals are modulo 2^16, and either end may have judged what the other has not.
      const theirs = (lossRuns[i] - this.#runsTold[i]) << 16 >> 16;
      const own = (runs.runs[i] - this.#runsThen[i]) << 16 >> 16;
      this.#unseen[i] = theirs - own;
    }
    if (this.#hasTold && skipped > 0) {
      step.judged += skipped;
      step.lost += runs.learn(skipped, this.#unseen);
    }
    for (let i = 0; i < RUN_CLASSES; i++) {
      this.#runsTold[i] = lossRuns[i];
      this.#runsThen[i] = runs.runs[i];
    }
    this.#hasTold = true;
  }

  #judge({ highest, delayUs }: PathReport): void {
    const runs = this.#runs, { patience, waitUs } = this.#reordering;
    const highestUs = this.sentUs(highest);
    while (runs.next < highest) {
      const counter = runs.next;
      const hasWaited = highestUs - this.sentUs(counter) + delayUs >= waitUs;
      const isPatient = highest - counter < patience && !hasWaited;
      if (isPatient && !runs.hasArrived(counter)) return;
      this.#judged(counter, runs.judgeNext());
    }
  }

  #judged(counter: number, isLost: boolean): void {
    const { step } = this;
    step.judged++;
    if (this.#wasProtected(counter)) {
      this.#weight = this.#weight * KEEP + 1;
      this.#lostWeight = this.#lostWeight * KEEP + (isLost ? 1 : 0);
      this.#repairedWeight *= KEEP;
    }
    if (isLost) {
      step.lost++;
      if (this.#run++ === 0) {
        step.runs++;
        this.#runSinceUs = this.sentUs(counter);
      }
      step.longestRun = Math.max(step.longestRun, this.#run);
    } else if (this.#run > 0) {
      this.#run = 0;
      const lastedUs = this.sentUs(counter) - this.#runSinceUs;
      if (!Number.isNaN(lastedUs)) this.runUs += (lastedUs - this.runUs) / (this.runUs === 0 ? 1 : 8);
    }
  }
}
