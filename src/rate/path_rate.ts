// Hot path.
/**
 * The rate of one direction of a path, found by what its receiver reports (PROTOCOL §14), so that the queue stands here and not
 * in a modem: BBR (bbr.ts) watches, and its rate becomes the line's once the path has shown a queue. Invariant: until then, and
 * where a queue is not ours to shorten, nothing is held back; what a report tells of was sent. Holds no packets and reads no clock.
 */
import { Bbr, STARTUP, STATE_NAMES, type Tuning } from "./bbr.ts";
import { DeliveryRate, MARKS } from "./delivery_rate.ts";
import { QueueDelay } from "./queue_delay.ts";

/**
 * For a game beside a transfer, against the draft: a probe ends with the first milliseconds of queue instead of with losses, for
 * the queue is what the game feels; a probe of the round trip only slows down, for a game's packets have no window.
 */
const GAMING: Tuning = {
  // A small step costs a game little where there is no more to find (on 2 Mbit/s 12 ms at the 99th percentile, 17 with a first step of
  // 1.1), and where there is, a few rounds double the rate.
  probeUpGains: [1.05, 1.1, 1.25, 1.5, 2],
  // So short a probe may come more often, yet by the clock alone: on a slow line a few rounds take no time.
  probeWaitUs: 1_000_000,
  probeWaitSpreadUs: 500_000,
  probesByRounds: false,
  probeRttLimits: false,
  // The queue is drained all the time, so that the round trip is seen without a probe.
  probeRttSlackUs: 3000,
  startupQueueUs: 8000,
  probeQueueUs: 3000,
};
/** Below the model's rate, so that the path's own queue drains; by as much more as the queue is a share of DRAIN_US, microseconds. */
const SHARE = 0.97, SHARE_MIN = 0.1, DRAIN_US = 100_000;
/** By how much of the rate a loss that is certain lowers it ahead, while the queue grows. */
const AHEAD_SHARE = 0.5;
/** A queue that stands, microseconds. */
const DRAIN_QUEUE_US = 6000;
/**
 * What arrives behind a queue is measured over MEASURED_US at least, and LASTING_US of it replace all earlier samples; microseconds. Less
 * than MEASURED_SEGMENTS full packets tell nothing: a few acknowledgements that some program's turn delays look like a slow line.
 */
const MEASURED_US = 15_000, LASTING_US = 150_000, MEASURED_SEGMENTS = 2;
/**
 * Whether a queue grows or goes is told apart from noise by CHANGE_SHARE of the time. One that does neither is no queue, or exactly what
 * is sent too much, if the sender uses OURS_SHARE of the rate: each STILL_US that is lowered by STILL_SHARE to see which. Microseconds.
 */
const CHANGE_SHARE = 0.04, STILL_US = 100_000, STILL_SHARE = 0.95, OURS_SHARE = 0.5;
/**
 * A queue that lasts OTHERS_US plus twice its own delay, although this end sends less than the link delivers, is the path's new
 * length, or, the second time within AGAIN_US, other senders' traffic. This end does not try to drain such a queue for LEAVE_US.
 * Microseconds.
 */
const OTHERS_US = 1_500_000, AGAIN_US = 5_000_000, LEAVE_US = 10_000_000;
/**
 * What is on its way may exceed the model's window by FULL_GAIN, since reports come in steps of up to 75 ms. Beyond that, packets that
 * wait for the line wait for the next report, too, those of games and calls excepted: also interactive ones, DNS and what has no class.
 * At most for SILENCE_US after the last report, so that lost reports stop nothing. Microseconds.
 */
const FULL_GAIN = 2, SILENCE_US = 500_000;
/** A sender that had no packet waiting for this time starts its estimate anew, microseconds. */
const IDLE_US = 10_000_000;
/** Above this rate, bytes a second, the processors are the bottleneck and no modem: 500 Mbit/s. */
const RATE_MAX = 62_500_000;
/** The lowest rate at which this end paces, bytes a second: 64 kbit/s. */
const RATE_MIN = 8000;
/** Before the rate is known, a queue counts once this number of reports in a row have shown one. */
const START_LOOKS = 3;
/** Datagrams of one mark, and how long one may take to fill, microseconds. */
const MARK_DATAGRAMS = 16, MARK_US = 1000;
/** A round trip that lasts longer has missed reports. */
const ROUND_TRIP_US_MAX = 5_000_000;
const MSS = 1448 + 80;
/**
 * A sample of the rate has as many full packets at least. Against the draft, whose acknowledgements come for every other packet or so: on a slow
 * line a report tells of five, of which one more or less is a fifth, and the greatest such sample counts. On 2 Mbit/s the rate stood
 * half above the line's, and each probe from there cost a game 30 ms.
 */
const SAMPLE_SEGMENTS = 16;

/** The fields of a report that the estimate needs (wire/control.ts has all of them). */
export interface RateReport {
  highest: number;
  delayUs: number;
  received: number;
  hasClock: boolean;
  clock: number;
}

export class PathRate {
  readonly rate = new DeliveryRate();
  readonly bbr: Bbr;
  /** The queue on the path as the last report has it, microseconds. */
  queueUs = 0;
  /** The rate at which to begin, bytes a second, where it is remembered; 0 without, and after the first losses. */
  startBytesPerS = 0;
  /** Losses that are predicted, 0 to 1; the rate falls ahead of them while a queue grows. 0 for no prediction. */
  lossAhead = 0;
  /** When packets last had to wait for the line, microseconds. */
  busyUs: number;
  readonly #delay = new QueueDelay();
  // By mark: its first counter and the one behind its last, and when these were sent.
  readonly #first = new Float64Array(MARKS);
  readonly #end = new Float64Array(MARKS);
  readonly #firstUs = new Float64Array(MARKS);
  readonly #lastUs = new Float64Array(MARKS);
  /** The oldest mark that no report has covered, and the next one. */
  #oldest = 0;
  #next = 0;
  // The mark that is being filled.
  #openFirst = -1;
  #openEnd = -1;
  #openBytes = 0;
  #openUs = 0;
  #openLastUs = 0;
  #openIsWaiting = false;
  /** The first report's highest counter, counters behind that which arrived, and the most that were lost. */
  #since = -1;
  #arrived = 0;
  #lost = 0;
  #received = 0;
  /** The queueing delays by the last reports, microseconds, newest first; a single high one is a radio's delay, not a queue. */
  readonly #queues = new Float64Array(START_LOOKS);
  /** When the newest datagram that a report tells of arrived, by this end's clock, as if the way back had no queue. */
  #arrivedUs = 0;
  /** Since when a queue has stood, by `nowUs`, and the most of it; what had arrived then, and when, by `#arrivedUs`. */
  #queueSinceUs = Infinity;
  #queueMostUs = 0;
  #queueDelivered = 0;
  #queueArrivedUs = 0;
  /** When the last of what had arrived then was sent. */
  #queueSentUs = 0;
  /** When the last report came that told of something new. */
  #reportedUs = -Infinity;
  /** When a queue was last taken for the path's length. */
  #tookUs = -Infinity;
  #leaveUntilUs = -Infinity;

  constructor(random: () => number, nowUs: number) {
    this.bbr = new Bbr(MSS, random, nowUs, Infinity, GAMING);
    this.busyUs = nowUs;
  }

  /** The state's name, for people. */
  get state(): string {
    return STATE_NAMES[this.bbr.state];
  }

  /** The rate that the path has shown, bytes a second; 0 before it has shown one. */
  get foundBytesPerS(): number {
    return this.bbr.isFullBwReached ? this.bbr.bw : 0;
  }

  /** The least round trip of the last ten seconds, microseconds; Infinity before the first report. */
  get leastRttUs(): number {
    return this.bbr.minRttUs;
  }

  /** When the path becomes idle, microseconds, if no packet waits until then. */
  get idleUs(): number {
    return this.busyUs + IDLE_US;
  }

  /** Whether no packet has waited for IDLE_US, so that the estimate may be outdated. */
  isIdle(nowUs: number): boolean {
    return nowUs >= this.idleUs;
  }

  /** Bytes a second that the line is to keep to; 0 while nothing is to be held back. */
  bytesPerS(nowUs: number): number {
    const { bbr } = this;
    if (!bbr.isFullBwReached && this.startBytesPerS > 0) return SHARE * this.startBytesPerS;
    if (!bbr.isFullBwReached || nowUs < this.#leaveUntilUs || bbr.maxBw > RATE_MAX) return 0;
    const share = bbr.pacingGain > 1 ? 1 : Math.max(SHARE_MIN, SHARE - this.queueUs / DRAIN_US);
    const caution = this.queueUs > this.#queues[1] ? 1 - AHEAD_SHARE * this.lossAhead : 1;
    return Math.max(RATE_MIN, caution * share * bbr.pacingRate);
  }

  /** Whether so much is on its way that of what waits only packets of games and calls may follow before the next report. */
  isFull(nowUs: number): boolean {
    if (nowUs - this.#reportedUs > SILENCE_US || this.bytesPerS(nowUs) === 0) return false;
    const open = this.#openFirst < 0 ? 0 : this.#openBytes;
    return this.rate.inflight + open > FULL_GAIN * this.bbr.cwnd;
  }

  /**
   * Notes a datagram of `bytes`, IP and UDP counted. @param isWaiting whether more of the sender's packets wait: without, its
   * rate is its own and says nothing of the path.
   */
  sent(counter: number, bytes: number, isWaiting: boolean, nowUs: number): void {
    const isFull = this.#openEnd - this.#openFirst >= MARK_DATAGRAMS || nowUs - this.#openUs > MARK_US ||
      counter !== this.#openEnd;
    if (this.#openFirst >= 0 && isFull) this.#closeMark();
    if (this.#openFirst < 0) {
      this.#openFirst = counter;
      this.#openBytes = 0;
      this.#openUs = nowUs;
      this.#openIsWaiting = false;
    }
    this.#openEnd = counter + 1;
    this.#openLastUs = nowUs;
    this.#openBytes += bytes;
    if (this.bbr.state === STARTUP) this.busyUs = nowUs; // nothing waits yet
    if (!isWaiting) return;
    this.#openIsWaiting = true;
    this.busyUs = nowUs;
  }

  #closeMark(): void {
    const { rate, bbr } = this;
    if (!this.#openIsWaiting) rate.markAppLimited();
    bbr.onTransmit(rate, this.#openUs);
    const mark = rate.sent(this.#openBytes, this.#openUs), at = mark % MARKS;
    this.#first[at] = this.#openFirst;
    this.#end[at] = this.#openEnd;
    this.#firstUs[at] = this.#openUs;
    this.#lastUs[at] = this.#openLastUs;
    this.#next = mark + 1;
    this.#oldest = Math.max(this.#oldest, this.#next - MARKS);
    this.#openFirst = -1;
  }

  /** Takes a report. One that is older than another, or tells of what was not sent, changes nothing. */
  onReport(report: RateReport, nowUs: number): void {
    const { highest, received } = report;
    const { rate, bbr } = this;
    if (this.#openFirst >= 0 && highest >= this.#openFirst) this.#closeMark();
    if (this.#oldest === this.#next || highest < this.#end[this.#oldest % MARKS] - 1) return;
    if (!(highest < this.#end[(this.#next - 1) % MARKS])) return; // never sent, or nothing was noted of it
    this.#reportedUs = nowUs;
    if (this.#since < 0) this.#since = highest;
    else this.#arrived += Math.min((received - this.#received) >>> 0, highest - this.#since);
    this.#received = received;
    rate.begin();
    const from = this.#oldest;
    let covered = 0;
    for (; this.#oldest < this.#next; this.#oldest++) {
      const at = this.#oldest % MARKS;
      if (this.#end[at] - 1 > highest) break;
      covered += this.#end[at] - this.#first[at];
    }
    const sentUs = this.#sentUs(highest), lastUs = this.#lastUs[(this.#oldest - 1) % MARKS];
    const hasRoundTrip = this.#noteRoundTrip(report, sentUs, nowUs);
    const lost = highest - this.#since - this.#arrived;
    const isLossNew = lost > this.#lost + MARK_DATAGRAMS;
    // Datagrams behind the last whole mark arrived later than the mark, by about as much as they were sent later.
    const arrivedUs = Math.max(
      this.#arrivedUs,
      hasRoundTrip ? nowUs - report.delayUs - this.#delay.backUs - (sentUs - lastUs) : nowUs,
    );
    this.#arrivedUs = arrivedUs;
    this.#settle(from, isLossNew ? Math.min(covered, lost - this.#lost) : 0, arrivedUs, nowUs);
    this.#lost = isLossNew ? lost : this.#lost;
    if (isLossNew) this.startBytesPerS = 0;
    rate.sample.rttUs = rate.sample.hasData && hasRoundTrip ? nowUs - report.delayUs - sentUs : -1;
    rate.finish(bbr.minRttUs, SAMPLE_SEGMENTS * MSS);
    bbr.onAck(rate, false, this.queueUs, nowUs);
    this.#watchQueue(lastUs, nowUs);
  }

  /** When the datagram was sent, which is of the oldest mark that is left or of the one before. */
  #sentUs(counter: number): number {
    const at = this.#oldest % MARKS, first = this.#first[at];
    if (this.#oldest === this.#next || counter < first) return this.#lastUs[(this.#oldest - 1) % MARKS];
    const share = (counter - first) / Math.max(1, this.#end[at] - 1 - first);
    return this.#firstUs[at] + share * (this.#lastUs[at] - this.#firstUs[at]);
  }

  /** The marks from `from` to the oldest one that is left have arrived, but for `lost` datagrams, taken for the first of them. */
  #settle(from: number, lost: number, arrivedUs: number, nowUs: number): void {
    const { rate, bbr } = this;
    let missing = lost;
    for (let mark = from; mark < this.#oldest; mark++) {
      const at = mark % MARKS, datagrams = this.#end[at] - this.#first[at], bytes = rate.bytes[at];
      if (missing >= datagrams) {
        missing -= datagrams;
        rate.noteLost(mark);
        // What a radio loses comes without a queue and says nothing of the rate.
        if (this.queueUs > GAMING.probeQueueUs) bbr.onLost(rate, mark, bytes, nowUs);
      } else {
        rate.acked(mark, arrivedUs);
      }
    }
  }

  /** The round trip of the newest datagram without the time that the report waited, and what of it is queue; false without. */
  #noteRoundTrip({ delayUs, hasClock, clock }: RateReport, sentUs: number, nowUs: number): boolean {
    const tookUs = nowUs - delayUs - sentUs;
    if (tookUs < 0 || tookUs > ROUND_TRIP_US_MAX) return false;
    this.#delay.note(tookUs, hasClock ? clock : -1, sentUs, nowUs);
    const queues = this.#queues;
    queues.copyWithin(1, 0);
    // Of the queue, a packet's own time on the line is none.
    const packetUs = this.bbr.bw > 0 && this.bbr.isFullBwReached ? MSS / this.bbr.bw * 1e6 : 0;
    queues[0] = this.queueUs = Math.max(0, this.#delay.queueUs - packetUs);
    if (this.bbr.isFullBwReached) return true;
    for (let i = 1; i < START_LOOKS; i++) this.queueUs = Math.min(this.queueUs, queues[i]);
    return true;
  }

  /** A queue that stands is drained, and what arrives behind it is the path's rate. */
  #watchQueue(sentUs: number, nowUs: number): void {
    const { bbr, rate } = this;
    if (this.queueUs < DRAIN_QUEUE_US || bbr.state === STARTUP || nowUs < this.#leaveUntilUs) {
      this.#queueSinceUs = Infinity;
      this.#queueMostUs = 0;
      return;
    }
    if (this.#queueSinceUs === Infinity) {
      this.#queueSinceUs = nowUs;
      this.#measureFrom(sentUs);
    }
    this.#queueMostUs = Math.max(this.#queueMostUs, this.queueUs);
    const tookUs = this.#arrivedUs - this.#queueArrivedUs;
    const grownUs = tookUs - (sentUs - this.#queueSentUs), hasStood = nowUs - this.#queueSinceUs;
    const arrived = rate.delivered - this.#queueDelivered;
    if (tookUs >= MEASURED_US && arrived >= MEASURED_SEGMENTS * MSS) {
      const isChanging = Math.abs(grownUs) > CHANGE_SHARE * tookUs;
      const bytesPerS = arrived / tookUs * 1e6;
      if (isChanging) bbr.onQueue(rate, bytesPerS, hasStood >= LASTING_US, nowUs);
      else if (tookUs >= STILL_US && bytesPerS > OURS_SHARE * bbr.bw) {
        bbr.onQueue(rate, STILL_SHARE * bbr.bw, true, nowUs);
      }
      if (tookUs >= (isChanging ? LASTING_US : STILL_US)) this.#measureFrom(sentUs);
    }
    if (hasStood >= OTHERS_US + 2 * this.#queueMostUs) this.#takeForLength(nowUs);
  }

  #measureFrom(sentUs: number): void {
    this.#queueDelivered = this.rate.delivered;
    this.#queueArrivedUs = this.#arrivedUs;
    this.#queueSentUs = sentUs;
  }

  /** What does not go is the path's length; or, the second time, others' queue, and we stop to make room for them. */
  #takeForLength(nowUs: number): void {
    this.#delay.forget();
    this.#queueSinceUs = Infinity;
    this.#queueMostUs = 0;
    if (nowUs - this.#tookUs < AGAIN_US) this.#leaveUntilUs = nowUs + LEAVE_US;
    this.#tookUs = nowUs;
  }
}
