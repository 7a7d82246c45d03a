// Hot path.
/**
 * The rate of one direction of a path, found by what its receiver reports (PROTOCOL §14), so that the queue stands here and not
 * in a modem: BBR (bbr.ts) watches, and its rate becomes the line's once the path has shown a queue. Invariant: until then, and
 * where a queue is not ours to shorten, nothing is held back; what a report tells of was sent. Holds no packets and reads no clock.
 */
import { Bbr, STARTUP, STATE_NAMES, type Tuning } from "./bbr.ts";
import { DeliveryRate, MARKS } from "./delivery_rate.ts";

/**
 * For a game beside a transfer, against the draft: a probe ends with the first milliseconds of queue instead of with losses, for
 * the queue is what the game feels; a probe of the round trip only slows down, for a game's packets have no window.
 */
const GAMING: Tuning = { probeUpGain: 1.25, probeRttLimits: false, startupQueueUs: 8000, probeQueueUs: 3000 };
/** Below the model's rate, so that the path's own queue drains. */
const SHARE = 0.95;
/** A queue above DRAIN_QUEUE_US that stands in spite of SHARE is drained at DRAIN_SHARE, and then counts like a loss. */
const DRAIN_QUEUE_US = 6000, DRAIN_SHARE = 0.9, DRAIN_SHARE_MIN = 0.1;
/** The sending rate falls with the queueing delay, by the whole rate for each DRAIN_US of delay, microseconds. */
const DRAIN_US = 500_000;
/**
 * A queue that lasts OTHERS_US plus twice its own delay, although this end sends less than the link delivers, is other senders'
 * traffic. This end does not try to drain such a queue for LEAVE_US. Microseconds.
 */
const OTHERS_US = 1_500_000, LEAVE_US = 10_000_000;
/** A sender that had no packet waiting for this time starts its estimate anew, microseconds. */
const IDLE_US = 10_000_000;
/** Above this rate, bytes a second, the processors are the bottleneck and no modem: 500 Mbit/s. */
const RATE_MAX = 62_500_000;
/** The lowest rate at which this end paces, bytes a second: 64 kbit/s. */
const RATE_MIN = 8000;
/** Before the rate is known, a queue counts once this number of reports in a row have shown one. */
const START_LOOKS = 4;
/** Where less than this share of the requested rate arrives, the path delivers no more. */
const SHORT_SHARE = 0.9;
/** Datagrams of one mark, and how long one may take to fill, microseconds. */
const MARK_DATAGRAMS = 16, MARK_US = 1000;
/** A round trip that lasts longer has missed reports. */
const ROUND_TRIP_US_MAX = 5_000_000;
const MSS = 1448 + 80;
/** The least of the round trip is that of this window or the one before, microseconds. */
const LEAST_US = 10_000_000;

/** The fields of a report that the estimate needs (wire/control.ts has all of them). */
export interface RateReport {
  highest: number;
  delayUs: number;
  received: number;
}

export class PathRate {
  readonly rate = new DeliveryRate();
  readonly bbr: Bbr;
  /** The queue on the path as the last report has it, microseconds. */
  queueUs = 0;
  /** When packets last had to wait for the line, microseconds. */
  busyUs: number;
  // By mark: its first counter and the one behind its last.
  readonly #first = new Float64Array(MARKS);
  readonly #end = new Float64Array(MARKS);
  /** The oldest mark that no report has covered, and the next one. */
  #oldest = 0;
  #next = 0;
  // The mark that is being filled.
  #openFirst = -1;
  #openEnd = -1;
  #openBytes = 0;
  #openUs = 0;
  #openIsWaiting = false;
  /** The first report's highest counter, counters behind that which arrived, and the most that were lost. */
  #since = -1;
  #arrived = 0;
  #lost = 0;
  #received = 0;
  /** The queueing delays by the last reports, microseconds, newest first; a single high one is a radio's delay, not a queue. */
  readonly #queues = new Float64Array(START_LOOKS);
  /** The pacing rate that was returned last, bytes a second. */
  #paced = 0;
  #leastUs = Infinity;
  #leastBeforeUs = Infinity;
  #leastSinceUs = -Infinity;
  /** Since when a queue has stood, and the most of it. */
  #queueSinceUs = Infinity;
  #queueMostUs = 0;
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

  /** The least round trip of the last ten to twenty seconds, microseconds; Infinity before the first report. */
  get leastRttUs(): number {
    return Math.min(this.#leastUs, this.#leastBeforeUs);
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
    if (!bbr.isFullBwReached || nowUs < this.#leaveUntilUs || bbr.maxBw > RATE_MAX) return 0;
    const share = this.queueUs > DRAIN_QUEUE_US
      ? Math.max(DRAIN_SHARE_MIN, DRAIN_SHARE - this.queueUs / DRAIN_US)
      : bbr.pacingGain > 1
      ? 1
      : SHARE;
    return this.#paced = Math.max(RATE_MIN, share * bbr.pacingRate);
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
    this.#next = mark + 1;
    this.#oldest = Math.max(this.#oldest, this.#next - MARKS);
    this.#openFirst = -1;
  }

  /** Takes a report. One that is older than another, or tells of what was not sent, changes nothing. */
  onReport({ highest, delayUs, received }: RateReport, nowUs: number): void {
    const { rate, bbr } = this;
    if (this.#openFirst >= 0 && highest >= this.#openFirst) this.#closeMark();
    if (this.#oldest === this.#next || highest < this.#end[this.#oldest % MARKS] - 1) return;
    if (!(highest < this.#end[(this.#next - 1) % MARKS])) return; // never sent, or nothing was noted of it
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
    const lost = highest - this.#since - this.#arrived;
    const isLossNew = lost > this.#lost + MARK_DATAGRAMS;
    this.#settle(from, isLossNew ? Math.min(covered, lost - this.#lost) : 0, nowUs);
    this.#lost = isLossNew ? lost : this.#lost;
    this.#noteRoundTrip(rate.sample.rttUs, delayUs, nowUs);
    rate.finish(bbr.minRttUs);
    bbr.onAck(rate, false, this.queueUs, nowUs);
    this.#watchQueue(nowUs);
  }

  /** The marks from `from` to the oldest one that is left have arrived, but for `lost` datagrams, taken for the first of them. */
  #settle(from: number, lost: number, nowUs: number): void {
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
        rate.acked(mark, nowUs);
      }
    }
  }

  /** The round trip of the newest mark without the time that the report waited, and what of it is queue. */
  #noteRoundTrip(sinceUs: number, delayUs: number, nowUs: number): void {
    const { sample } = this.rate;
    if (sinceUs < 0) return;
    const tookUs = sinceUs - delayUs;
    if (tookUs < 0 || tookUs > ROUND_TRIP_US_MAX) {
      sample.rttUs = -1;
      return;
    }
    sample.rttUs = tookUs;
    if (nowUs - this.#leastSinceUs > LEAST_US) {
      this.#leastBeforeUs = this.#leastUs;
      this.#leastUs = Infinity;
      this.#leastSinceUs = nowUs;
    }
    this.#leastUs = Math.min(this.#leastUs, tookUs);
    const queues = this.#queues;
    queues.copyWithin(1, 0);
    queues[0] = tookUs - Math.min(this.#leastUs, this.#leastBeforeUs);
    this.queueUs = queues[0];
    if (this.bbr.isFullBwReached) return;
    for (let i = 1; i < START_LOOKS; i++) this.queueUs = Math.min(this.queueUs, queues[i]);
  }

  /** A queue that stands is drained; one that does not go is others', and we stop to make room for them. */
  #watchQueue(nowUs: number): void {
    const { bbr } = this;
    if (this.queueUs < DRAIN_QUEUE_US || bbr.state === STARTUP || nowUs < this.#leaveUntilUs) {
      this.#queueSinceUs = Infinity;
      this.#queueMostUs = 0;
      return;
    }
    // Where all that is sent arrives, the queue is going, or is not ours.
    const { sample } = this.rate;
    if (!sample.isAppLimited && sample.rate < SHORT_SHARE * this.#paced) bbr.onQueue(this.rate, nowUs);
    this.#queueSinceUs = Math.min(this.#queueSinceUs, nowUs);
    this.#queueMostUs = Math.max(this.#queueMostUs, this.queueUs);
    if (nowUs - this.#queueSinceUs < OTHERS_US + 2 * this.#queueMostUs) return;
    // Or the path has become longer, and what is taken for queue is its round trip.
    this.#leastUs = this.#leastBeforeUs = Infinity;
    this.#leaveUntilUs = nowUs + LEAVE_US;
  }
}
