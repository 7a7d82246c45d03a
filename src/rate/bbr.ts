// Hot path.
/**
 * How fast a path may be sent to, and how much may be on its way: BBRv3 as draft-ietf-ccwg-bbr-06 has it, whose
 * names are kept. The model is the greatest delivery rate of the last two probes and the least round trip of ten seconds; a state asks by
 * its gains for more, less or as much. Invariant: samples of a sender without data never lower the model; loss below
 * LOSS_THRESH while probing changes nothing. Reads no clock, knows no packets: delivery_rate.ts gives it samples. Bytes, bytes
 * a second and microseconds. What a game needs instead is said by `Tuning`, each with its reason.
 * Long because the states share one model, as the draft has them: apart, each part would reach into the others' figures.
 */
import type { DeliveryRate, RateSample } from "./delivery_rate.ts";

// Draft section 2.4 to 2.13.
const STARTUP_PACING_GAIN = 2.77;
const DRAIN_PACING_GAIN = 0.5;
const PROBE_DOWN_PACING_GAIN = 0.9;
const DEFAULT_CWND_GAIN = 2;
const PROBE_UP_CWND_GAIN = 2.25;
const PROBE_RTT_CWND_GAIN = 0.5;
const PACING_MARGIN = 0.99;
const LOSS_THRESH = 0.02;
const STARTUP_FULL_LOSS_COUNT = 6;
const BETA = 0.7;
const HEADROOM = 0.15;
const MIN_PIPE_SEGMENTS = 4;
const INITIAL_SEGMENTS = 10;
const FULL_BW_GROWTH = 1.25, FULL_BW_ROUNDS = 3;
const DRAIN_ROUNDS = 3;
const EXTRA_ACKED_ROUNDS = 10;
const MIN_RTT_FILTER_US = 10_000_000;
const PROBE_RTT_INTERVAL_US = 5_000_000, PROBE_RTT_DURATION_US = 200_000;
const PROBE_WAIT_ROUNDS = 62;
const QUANTUM_US = 1000, QUANTUM_BYTES_MAX = 65_536;
/** The share of a probe's step that has to arrive before the next one. */
const STEP_ARRIVED = 0.6;
/** A queue lowers the short-term bandwidth to this share of the greatest at the least; probes find the rate of a slower path. */
const QUEUE_BW_LEAST = 1 / 64;
/** Before any round trip is known. */
const RTT_US_UNKNOWN = 1000;

export const STARTUP = 0,
  DRAIN = 1,
  PROBE_DOWN = 2,
  PROBE_CRUISE = 3,
  PROBE_REFILL = 4,
  PROBE_UP = 5,
  PROBE_RTT = 6;
export const STATE_NAMES = ["startup", "drain", "down", "cruise", "refill", "up", "probe_rtt"] as const;
export type BbrState = 0 | 1 | 2 | 3 | 4 | 5 | 6;

// What acknowledgements mean for the probe (draft section 2.11).
const ACKS_INIT = 0,
  ACKS_REFILLING = 1,
  ACKS_PROBE_STARTING = 2,
  ACKS_PROBE_FEEDBACK = 3,
  ACKS_PROBE_STOPPING = 4;

/** Parameters in which a sender differs from the draft. */
export interface Tuning {
  /** Pacing gains while probing for more: the next one once all that this one asked for has arrived; the last for all further rounds. */
  readonly probeUpGains: readonly number[];
  /** The least time between two probes, and by how much more it may be at random, microseconds. */
  readonly probeWaitUs: number;
  readonly probeWaitSpreadUs: number;
  /** Whether a probe begins after as many rounds as Reno takes between two losses, too. */
  readonly probesByRounds: boolean;
  /** Whether a probe of the round trip lowers what may be on its way; else it asks for half the pace, for its time alone. */
  readonly probeRttLimits: boolean;
  /** A round trip that is longer than the least by no more than this makes a probe of the round trip needless, microseconds. */
  readonly probeRttSlackUs: number;
  /** The queueing delay that ends start-up, and the one that ends a bandwidth probe, microseconds; Infinity for no such end. */
  readonly startupQueueUs: number;
  readonly probeQueueUs: number;
}

/** The draft's own. */
export const CONFORMANCE: Tuning = {
  probeUpGains: [1.25],
  probeWaitUs: 2_000_000,
  probeWaitSpreadUs: 1_000_000,
  probesByRounds: true,
  probeRttLimits: true,
  probeRttSlackUs: 0,
  startupQueueUs: Infinity,
  probeQueueUs: Infinity,
};

export class Bbr {
  state: BbrState = STARTUP;
  /** Bytes a second. */
  pacingRate: number;
  pacingGain = STARTUP_PACING_GAIN;
  cwndGain = DEFAULT_CWND_GAIN;
  /** Bytes that may be on their way. */
  cwnd: number;
  sendQuantum: number;
  maxBw = 0;
  bw = 0;
  bwShortterm = Infinity;
  inflightShortterm = Infinity;
  inflightLongterm = Infinity;
  minRttUs = Infinity;
  extraAcked = 0;
  roundCount = 0;
  isRoundStart = false;
  isFullBwReached = false;
  isFullBwNow = false;
  fullBwCount = 0;
  fullBw = 0;
  isIdleRestart = false;
  maxInflight = 0;
  bwProbeWaitUs = 0;
  drainStartRound = 0;
  readonly minPipeCwnd: number;
  readonly #mss: number;
  readonly #tuning: Tuning;
  readonly #random: () => number;
  readonly #maxBwFilter = [0, 0];
  readonly #extraAckedFilter = new Float64Array(EXTRA_ACKED_ROUNDS);
  #extraAckedRound = 0;
  #extraAckedIntervalStartUs = 0;
  #extraAckedDelivered = 0;
  #minRttStampUs: number;
  #probeRttMinDelayUs = Infinity;
  #probeRttMinStampUs: number;
  #isProbeRttExpired = false;
  #probeRttDoneStampUs = 0;
  #isProbeRttRoundDone = false;
  #priorCwnd = 0;
  #nextRoundDelivered = 0;
  #lossRoundDelivered = 0;
  #isLossRoundStart = false;
  #isLossInRound = false;
  #lossEventsInRound = 0;
  #lossBytesInRound = 0;
  #bwLatest = 0;
  #inflightLatest = 0;
  #ackPhase = ACKS_INIT;
  #isBwProbeSample = false;
  #isPrevProbeTooHigh = false;
  #isPrevProbePrecautionary = false;
  #cycleStampUs = 0;
  #roundsSinceProbeUp = 0;
  #probeWaitRounds = 0;
  #bwProbeUpRounds = 0;
  #bwProbeUpAcked = 0;
  #probeUpAckedPerInc = Infinity;
  /** Steps that this bandwidth probe has taken, and the bandwidth before the present one. */
  #probeSteps = 0;
  #stepBw = 0;
  /** All that had been delivered when the first packet of this step arrived. */
  #stepFrom = 0;
  #undoState: BbrState | -1 = -1;
  #savedRound = -1;
  #undoBwShortterm = 0;
  #undoInflightShortterm = 0;
  #undoInflightLongterm = 0;

  /**
   * @param mss bytes of a full packet on the wire. @param random uniform in [0, 1).
   * @param rttUs a round trip that is known already; Infinity without.
   */
  constructor(
    mss: number,
    random: () => number,
    nowUs: number,
    rttUs = Infinity,
    tuning: Tuning = CONFORMANCE,
  ) {
    this.#mss = mss;
    this.#random = random;
    this.#tuning = tuning;
    this.minPipeCwnd = MIN_PIPE_SEGMENTS * mss;
    this.cwnd = INITIAL_SEGMENTS * mss;
    this.sendQuantum = 2 * mss;
    this.minRttUs = rttUs;
    this.#minRttStampUs = this.#probeRttMinStampUs = this.#extraAckedIntervalStartUs = nowUs;
    this.pacingRate = STARTUP_PACING_GAIN * this.cwnd / (rttUs === Infinity ? RTT_US_UNKNOWN : rttUs) * 1e6;
  }

  get isProbingBw(): boolean {
    return this.state === STARTUP || this.state === PROBE_REFILL || this.state === PROBE_UP;
  }

  get isInProbeBw(): boolean {
    return this.state >= PROBE_DOWN && this.state <= PROBE_UP;
  }

  /** Before something is sent (section 5.2.2 and 5.4.1). */
  onTransmit(rate: DeliveryRate, nowUs: number): void {
    if (rate.inflight > 0 || !rate.isAppLimited) return;
    this.isIdleRestart = true;
    this.#extraAckedIntervalStartUs = nowUs;
    if (this.isInProbeBw) this.#setPacingRate(1);
    else if (this.state === PROBE_RTT) this.#checkProbeRttDone(rate, nowUs);
  }

  /**
   * After an acknowledgement, whose sample is whole. @param isCwndLimited whether `cwnd` alone has kept something back since
   * the last one. @param queueUs the queue on the way as it is known otherwise, microseconds; 0 without.
   */
  onAck(rate: DeliveryRate, isCwndLimited: boolean, queueUs: number, nowUs: number): void {
    const { sample } = rate;
    this.#updateLatestDeliverySignals(rate);
    this.#updateRound(rate);
    this.#updateMaxBw(sample.rate, sample.isAppLimited);
    this.#updateCongestionSignals();
    this.#updateAckAggregation(sample.newlyAcked, nowUs);
    this.#checkFullBwReached(sample);
    this.#checkStartupDone(rate, queueUs);
    this.#checkDrainDone(rate, nowUs);
    this.#updateProbeBwCyclePhase(rate, isCwndLimited, queueUs, nowUs);
    this.#updateMinRtt(sample.rttUs, nowUs);
    this.#checkProbeRtt(rate, nowUs);
    if (this.#isLossRoundStart) {
      this.#bwLatest = sample.rate;
      this.#inflightLatest = sample.delivered;
    }
    this.bw = Math.min(this.maxBw, this.bwShortterm);
    this.#setPacingRate(this.pacingGain);
    this.#setSendQuantum();
    this.#setCwnd(rate);
  }

  /** After `rate.noteLost(mark)` (section 5.5.10.2). */
  onLost(rate: DeliveryRate, mark: number, bytes: number, nowUs: number): void {
    if (!this.#isLossInRound) {
      this.#lossRoundDelivered = rate.delivered;
      // To the letter, further losses of the round that ended a probe would forget what there is to undo.
      if (this.#undoState === -1 || this.roundCount !== this.#savedRound) this.#saveStateUponLoss();
    }
    this.#isLossInRound = true;
    this.#lossEventsInRound++;
    this.#lossBytesInRound += bytes;
    if (!this.#isBwProbeSample) return;
    const txInFlight = rate.inFlightAt(mark), lost = rate.lostSince(mark);
    if (lost <= txInFlight * LOSS_THRESH) return;
    const before = txInFlight - bytes, lostBefore = lost - bytes;
    const prefix = Math.max(0, (LOSS_THRESH * before - lostBefore) / (1 - LOSS_THRESH));
    this.#handleInflightTooHigh(before + prefix, rate.wasAppLimited(mark), rate, nowUs);
  }

  /**
   * A queue stands on the path, and `bytesPerS` arrive behind it: this is what the path gives now, whatever earlier samples said.
   * @param isLasting whether it has stood for long enough to forget these. Against the draft, which waits for losses and
   * remembers the greatest sample of two probes: with deep buffers losses come after seconds of lag, and each probe from a rate
   * that the path no longer has fills the buffer again.
   */
  onQueue(rate: DeliveryRate, bytesPerS: number, isLasting: boolean, nowUs: number): void {
    if (this.state === STARTUP || bytesPerS <= 0) return;
    if (this.state === PROBE_REFILL || this.state === PROBE_UP) this.#startDown(rate, nowUs);
    const found = Math.max(bytesPerS, this.maxBw * QUEUE_BW_LEAST);
    if (isLasting) {
      this.#maxBwFilter[0] = 0;
      this.#maxBwFilter[1] = this.maxBw = found;
    }
    this.bwShortterm = found;
    this.bw = Math.min(this.maxBw, this.bwShortterm);
    this.#setPacingRate(this.pacingGain);
  }

  /** What was taken for losses since the last ones was none (section 5.5.11.2). */
  onSpuriousLoss(rate: DeliveryRate): void {
    this.#restoreCwnd();
    this.#isLossInRound = false;
    this.#resetFullBw();
    this.bwShortterm = Math.max(this.bwShortterm, this.#undoBwShortterm);
    this.inflightShortterm = Math.max(this.inflightShortterm, this.#undoInflightShortterm);
    this.inflightLongterm = Math.max(this.inflightLongterm, this.#undoInflightLongterm);
    const { state } = this;
    if (this.#undoState === STARTUP && state !== STARTUP) {
      this.isFullBwReached = false;
      if (state !== PROBE_RTT) this.#enterStartup();
    } else if (this.#undoState === PROBE_UP && state !== PROBE_UP && state !== PROBE_RTT) {
      this.#startRefill(rate);
    }
    this.#undoState = -1;
  }

  /** Nothing was acknowledged for long (section 5.6.4.4). */
  onTimeout(rate: DeliveryRate): void {
    this.#saveStateUponLoss();
    this.cwnd = rate.inflight + this.#mss;
  }

  /** What may be on its way at this gain of the model, quanta and pipelining considered (section 5.6.4.2). */
  inflight(gain: number): number {
    return this.#quantization(this.#bdpMultiple(this.bw, gain));
  }

  inflightWithHeadroom(): number {
    if (this.inflightLongterm === Infinity) return Infinity;
    const headroom = Math.max(this.#mss, HEADROOM * this.inflightLongterm);
    return Math.max(this.inflightLongterm - headroom, this.minPipeCwnd);
  }

  #bdpMultiple(bw: number, gain: number): number {
    if (this.minRttUs === Infinity) return INITIAL_SEGMENTS * this.#mss;
    return gain * bw * this.minRttUs / 1e6;
  }

  #quantization(inflight: number): number {
    const least = Math.max(inflight, this.sendQuantum, this.minPipeCwnd);
    return this.state === PROBE_UP ? least + 2 * this.#mss : least;
  }

  #updateLatestDeliverySignals({ sample, delivered }: DeliveryRate): void {
    this.#isLossRoundStart = false;
    this.#bwLatest = Math.max(this.#bwLatest, sample.rate);
    this.#inflightLatest = Math.max(this.#inflightLatest, sample.delivered);
    if (sample.hasData && sample.priorDelivered >= this.#lossRoundDelivered) {
      this.#lossRoundDelivered = delivered;
      this.#isLossRoundStart = true;
    }
  }

  #updateRound({ sample, delivered }: DeliveryRate): void {
    this.isRoundStart = sample.hasData && sample.priorDelivered >= this.#nextRoundDelivered;
    if (!this.isRoundStart) return;
    this.#nextRoundDelivered = delivered;
    this.roundCount++;
    this.#roundsSinceProbeUp++;
  }

  #startRound({ delivered }: DeliveryRate): void {
    this.#nextRoundDelivered = delivered;
  }

  #updateMaxBw(rate: number, isAppLimited: boolean): void {
    if (rate <= 0 || rate < this.maxBw && isAppLimited) return;
    const filter = this.#maxBwFilter;
    filter[1] = Math.max(filter[1], rate);
    this.maxBw = Math.max(filter[0], filter[1]);
  }

  #advanceMaxBwFilter(): void {
    const filter = this.#maxBwFilter;
    filter[0] = filter[1];
    filter[1] = 0;
    // A cycle without a sample keeps what is known.
    if (filter[0] > 0) this.maxBw = filter[0];
    else filter[0] = this.maxBw;
  }

  #updateCongestionSignals(): void {
    if (!this.#isLossRoundStart) return;
    if (this.#isLossInRound && !this.isProbingBw) this.#adaptLowerBounds();
    this.#isLossInRound = false;
  }

  #adaptLowerBounds(): void {
    if (this.bwShortterm === Infinity) this.bwShortterm = this.maxBw;
    if (this.inflightShortterm === Infinity) this.inflightShortterm = this.cwnd;
    this.bwShortterm = Math.max(this.#bwLatest, BETA * this.bwShortterm);
    this.inflightShortterm = Math.max(this.#inflightLatest, BETA * this.inflightShortterm);
  }

  #resetCongestionSignals(): void {
    this.#isLossInRound = false;
    this.#bwLatest = this.#inflightLatest = 0;
  }

  #resetShortTermModel(): void {
    this.bwShortterm = this.inflightShortterm = Infinity;
  }

  #updateAckAggregation(newlyAcked: number, nowUs: number): void {
    let expected = this.bw * (nowUs - this.#extraAckedIntervalStartUs) / 1e6;
    if (this.#extraAckedDelivered <= expected) {
      this.#extraAckedDelivered = 0;
      this.#extraAckedIntervalStartUs = nowUs;
      expected = 0;
    }
    this.#extraAckedDelivered += newlyAcked;
    const extra = Math.min(this.#extraAckedDelivered - expected, this.cwnd);
    const filter = this.#extraAckedFilter, rounds = this.isFullBwReached ? EXTRA_ACKED_ROUNDS : 1;
    for (; this.#extraAckedRound < this.roundCount; this.#extraAckedRound++) {
      filter[(this.#extraAckedRound + 1) % EXTRA_ACKED_ROUNDS] = 0;
    }
    const at = this.roundCount % EXTRA_ACKED_ROUNDS;
    filter[at] = Math.max(filter[at], extra);
    let most = 0;
    for (let i = 0; i < rounds; i++) {
      most = Math.max(most, filter[(at + EXTRA_ACKED_ROUNDS - i) % EXTRA_ACKED_ROUNDS]);
    }
    this.extraAcked = most;
  }

  #resetFullBw(): void {
    this.fullBw = this.fullBwCount = 0;
    this.isFullBwNow = false;
  }

  #checkFullBwReached(sample: RateSample): void {
    const { rate, isAppLimited } = sample;
    if (this.isFullBwNow || !this.isRoundStart || isAppLimited || rate === 0) return;
    if (this.state === PROBE_UP && !this.#isOfStep(sample)) return;
    if (rate >= this.fullBw * FULL_BW_GROWTH) {
      this.#resetFullBw();
      this.fullBw = rate;
      return;
    }
    this.fullBwCount++;
    this.isFullBwNow = this.fullBwCount >= FULL_BW_ROUNDS;
    if (this.isFullBwNow) this.isFullBwReached = true;
  }

  #enterStartup(): void {
    this.state = STARTUP;
    this.pacingGain = STARTUP_PACING_GAIN;
    this.cwndGain = DEFAULT_CWND_GAIN;
  }

  #checkStartupDone(rate: DeliveryRate, queueUs: number): void {
    if (this.state === STARTUP) this.#checkStartupHighLoss(rate);
    if (this.state === STARTUP && queueUs > this.#tuning.startupQueueUs && rate.sample.rate > 0) {
      this.isFullBwReached = this.isFullBwNow = true;
      // What arrives behind a queue is the path's rate; what the greatest sample before it says may have been a burst.
      this.#maxBwFilter[0] = 0;
      this.#maxBwFilter[1] = this.maxBw = rate.sample.rate;
    }
    if (this.#isLossRoundStart) this.#lossEventsInRound = this.#lossBytesInRound = 0;
    if (this.state !== STARTUP || !this.isFullBwReached) return;
    this.state = DRAIN;
    this.pacingGain = DRAIN_PACING_GAIN;
    this.cwndGain = DEFAULT_CWND_GAIN;
    this.drainStartRound = this.roundCount;
  }

  /** Over a round that has seen losses (section 5.3.1.3). */
  #checkStartupHighLoss({ sample }: DeliveryRate): void {
    if (!this.#isLossRoundStart || this.#lossEventsInRound < STARTUP_FULL_LOSS_COUNT) return;
    const all = this.#lossBytesInRound + sample.delivered;
    if (this.#lossBytesInRound <= LOSS_THRESH * all) return;
    this.#undoState = STARTUP;
    this.isFullBwReached = this.isFullBwNow = true;
    this.inflightLongterm = Math.max(this.#bdpMultiple(this.maxBw, 1), this.#inflightLatest);
  }

  #checkDrainDone(rate: DeliveryRate, nowUs: number): void {
    if (this.state !== DRAIN) return;
    if (rate.inflight > this.inflight(1) && this.roundCount <= this.drainStartRound + DRAIN_ROUNDS) return;
    this.cwndGain = DEFAULT_CWND_GAIN;
    this.#startDown(rate, nowUs);
  }

  #startDown(rate: DeliveryRate, nowUs: number): void {
    this.#resetCongestionSignals();
    this.#probeUpAckedPerInc = Infinity;
    // Less than a round is taken off or added, so that flows do not probe together.
    this.#roundsSinceProbeUp = Math.floor(2 * this.#random());
    this.bwProbeWaitUs = this.#tuning.probeWaitUs + this.#tuning.probeWaitSpreadUs * this.#random();
    this.#probeWaitRounds = PROBE_WAIT_ROUNDS + Math.floor(2 * this.#random());
    this.#cycleStampUs = nowUs;
    this.#ackPhase = ACKS_PROBE_STOPPING;
    this.#startRound(rate);
    this.state = PROBE_DOWN;
    this.pacingGain = PROBE_DOWN_PACING_GAIN;
    this.cwndGain = DEFAULT_CWND_GAIN;
  }

  #startCruise(): void {
    this.state = PROBE_CRUISE;
    this.pacingGain = 1;
    this.cwndGain = DEFAULT_CWND_GAIN;
  }

  #startRefill(rate: DeliveryRate): void {
    this.#resetShortTermModel();
    this.#bwProbeUpRounds = this.#bwProbeUpAcked = 0;
    this.#isPrevProbePrecautionary = false;
    this.#ackPhase = ACKS_REFILLING;
    this.#startRound(rate);
    this.state = PROBE_REFILL;
    this.pacingGain = 1;
    this.cwndGain = DEFAULT_CWND_GAIN;
  }

  #startUp(rate: DeliveryRate): void {
    this.#ackPhase = ACKS_PROBE_STARTING;
    this.#startRound(rate);
    this.#resetFullBw();
    this.fullBw = rate.sample.rate;
    this.state = PROBE_UP;
    this.#probeSteps = 0;
    this.#stepBw = this.maxBw;
    this.#stepFrom = rate.delivered + rate.inflight;
    this.pacingGain = this.#tuning.probeUpGains[0];
    this.cwndGain = PROBE_UP_CWND_GAIN;
    this.#raiseInflightLongtermSlope();
  }

  #updateProbeBwCyclePhase(rate: DeliveryRate, isCwndLimited: boolean, queueUs: number, nowUs: number): void {
    if (!this.isFullBwReached || this.#adaptLongTermModel(rate, isCwndLimited, nowUs)) return;
    switch (this.state) {
      case PROBE_DOWN:
        if (!this.#checkTimeToProbe(rate, nowUs) && this.#isTimeToCruise(rate)) this.#startCruise();
        break;
      case PROBE_CRUISE:
        this.#checkTimeToProbe(rate, nowUs);
        break;
      case PROBE_REFILL:
        if (!this.isRoundStart) break;
        this.#isBwProbeSample = true;
        this.#startUp(rate);
        break;
      case PROBE_UP:
        if (!this.#isTimeToGoDown(rate, isCwndLimited, queueUs)) {
          this.#probeHarder(rate);
          break;
        }
        this.#isPrevProbeTooHigh = false;
        this.#startDown(rate, nowUs);
        break;
    }
  }

  /** Whether a probe begins now: by the clock, or by as many rounds as Reno takes between two losses (section 5.3.3.5). */
  #checkTimeToProbe(rate: DeliveryRate, nowUs: number): boolean {
    const bdp = Math.min(this.#bdpMultiple(this.bw, 1), this.cwnd);
    const renoRounds = Math.min(bdp / this.#mss, this.#probeWaitRounds);
    const hasRounds = this.#tuning.probesByRounds && this.#roundsSinceProbeUp >= renoRounds;
    if (nowUs <= this.#cycleStampUs + this.bwProbeWaitUs && !hasRounds) return false;
    this.#startRefill(rate);
    return true;
  }

  #isTimeToCruise({ inflight }: DeliveryRate): boolean {
    if (inflight > this.inflightWithHeadroom()) return false;
    return inflight <= this.#quantization(this.#bdpMultiple(this.maxBw, 1));
  }

  #isTimeToGoDown({ inflight, sample }: DeliveryRate, isCwndLimited: boolean, queueUs: number): boolean {
    if (this.#isPrevProbeTooHigh && inflight >= this.inflightLongterm) {
      this.#isPrevProbePrecautionary = true;
      return true;
    }
    if (queueUs > this.#tuning.probeQueueUs) return true;
    if (isCwndLimited && this.cwnd >= this.inflightLongterm) {
      this.#resetFullBw();
      this.fullBw = sample.rate;
      return false;
    }
    return this.isFullBwNow;
  }

  /** Whether the sample tells of nothing that was sent before the present step. */
  #isOfStep({ since }: RateSample): boolean {
    return since >= this.#stepFrom;
  }

  /** Where most of what the present step asked for has arrived, the next step asks for more. */
  #probeHarder(rate: DeliveryRate): void {
    const { sample } = rate, { probeUpGains } = this.#tuning;
    const wanted = this.#stepBw * (1 + (this.pacingGain - 1) * STEP_ARRIVED);
    if (probeUpGains.length === 1 || !this.isRoundStart || !this.#isOfStep(sample) || this.maxBw < wanted) {
      return;
    }
    this.#stepBw = this.maxBw;
    this.#stepFrom = rate.delivered + rate.inflight;
    this.#probeSteps++;
    this.pacingGain = probeUpGains[Math.min(this.#probeSteps, probeUpGains.length - 1)];
    // The plateau of this step is another one.
    this.#resetFullBw();
    this.fullBw = sample.rate;
  }

  #raiseInflightLongtermSlope(): void {
    const growth = 2 ** this.#bwProbeUpRounds;
    this.#bwProbeUpRounds = Math.min(this.#bwProbeUpRounds + 1, 30);
    this.#probeUpAckedPerInc = Math.max(this.cwnd / growth, this.#mss);
  }

  #probeInflightLongtermUpward(newlyAcked: number, isCwndLimited: boolean): void {
    if (!isCwndLimited || this.cwnd < this.inflightLongterm) return;
    this.#bwProbeUpAcked += newlyAcked;
    if (this.#bwProbeUpAcked >= this.#probeUpAckedPerInc) {
      const steps = Math.floor(this.#bwProbeUpAcked / this.#probeUpAckedPerInc);
      this.#bwProbeUpAcked -= steps * this.#probeUpAckedPerInc;
      this.inflightLongterm += steps * this.#mss;
    }
    if (this.isRoundStart) this.#raiseInflightLongtermSlope();
  }

  /** True when it has decided on the next state. */
  #adaptLongTermModel(rate: DeliveryRate, isCwndLimited: boolean, nowUs: number): boolean {
    const { sample } = rate;
    if (this.#ackPhase === ACKS_PROBE_STARTING && this.isRoundStart) this.#ackPhase = ACKS_PROBE_FEEDBACK;
    if (this.#ackPhase === ACKS_PROBE_STOPPING && this.isRoundStart) {
      this.#isBwProbeSample = false;
      this.#ackPhase = ACKS_INIT;
      if (this.isInProbeBw && !sample.isAppLimited) this.#advanceMaxBwFilter();
      if (this.isInProbeBw && this.#isPrevProbePrecautionary && !this.#isPrevProbeTooHigh) {
        this.#startRefill(rate);
        return true;
      }
    }
    if (sample.lost > sample.txInFlight * LOSS_THRESH) {
      if (!this.#isBwProbeSample) return false;
      this.#handleInflightTooHigh(sample.txInFlight, sample.isAppLimited, rate, nowUs);
      return false;
    }
    if (this.inflightLongterm === Infinity) return false;
    this.inflightLongterm = Math.max(this.inflightLongterm, sample.txInFlight);
    if (this.state === PROBE_UP) this.#probeInflightLongtermUpward(sample.newlyAcked, isCwndLimited);
    return false;
  }

  #handleInflightTooHigh(txInFlight: number, isAppLimited: boolean, rate: DeliveryRate, nowUs: number): void {
    this.#isPrevProbeTooHigh = true;
    this.#isBwProbeSample = false;
    if (!isAppLimited) {
      const target = Math.min(this.#bdpMultiple(this.bw, 1), this.cwnd);
      this.inflightLongterm = Math.max(txInFlight, BETA * target);
    }
    if (this.state !== PROBE_UP) return;
    this.#undoState = PROBE_UP;
    this.#startDown(rate, nowUs);
  }

  #updateMinRtt(rttUs: number, nowUs: number): void {
    this.#isProbeRttExpired = nowUs > this.#probeRttMinStampUs + PROBE_RTT_INTERVAL_US;
    if (rttUs >= 0 && (rttUs < this.#probeRttMinDelayUs || this.#isProbeRttExpired)) {
      this.#probeRttMinDelayUs = rttUs;
      this.#probeRttMinStampUs = nowUs;
    } else if (rttUs >= 0 && rttUs < this.#probeRttMinDelayUs + this.#tuning.probeRttSlackUs) {
      this.#probeRttMinStampUs = nowUs;
    }
    const isExpired = nowUs > this.#minRttStampUs + MIN_RTT_FILTER_US;
    if (this.#probeRttMinDelayUs < this.minRttUs || isExpired) {
      this.minRttUs = this.#probeRttMinDelayUs;
      this.#minRttStampUs = this.#probeRttMinStampUs;
    }
  }

  #checkProbeRtt(rate: DeliveryRate, nowUs: number): void {
    if (this.state !== PROBE_RTT && this.#isProbeRttExpired && !this.isIdleRestart) {
      this.#saveCwnd();
      this.state = PROBE_RTT;
      this.pacingGain = this.#tuning.probeRttLimits ? 1 : PROBE_RTT_CWND_GAIN;
      this.cwndGain = PROBE_RTT_CWND_GAIN;
      this.#probeRttDoneStampUs = 0;
      this.#ackPhase = ACKS_PROBE_STOPPING;
      this.#startRound(rate);
    }
    if (this.state === PROBE_RTT) this.#handleProbeRtt(rate, nowUs);
    if (rate.sample.delivered > 0) this.isIdleRestart = false;
  }

  #handleProbeRtt(rate: DeliveryRate, nowUs: number): void {
    rate.markAppLimited();
    const isDrained = !this.#tuning.probeRttLimits || rate.inflight <= this.#probeRttCwnd();
    if (this.#probeRttDoneStampUs === 0 && isDrained) {
      this.#probeRttDoneStampUs = nowUs + PROBE_RTT_DURATION_US;
      this.#isProbeRttRoundDone = false;
      this.#startRound(rate);
    } else if (this.#probeRttDoneStampUs !== 0) {
      if (this.isRoundStart) this.#isProbeRttRoundDone = true;
      if (this.#isProbeRttRoundDone) this.#checkProbeRttDone(rate, nowUs);
    }
  }

  #checkProbeRttDone(rate: DeliveryRate, nowUs: number): void {
    if (this.#probeRttDoneStampUs === 0 || nowUs <= this.#probeRttDoneStampUs) return;
    this.#probeRttMinStampUs = nowUs;
    this.#restoreCwnd();
    this.#resetShortTermModel();
    if (this.isFullBwReached) {
      this.#startDown(rate, nowUs);
      this.#startCruise();
    } else {
      this.#enterStartup();
    }
  }

  #probeRttCwnd(): number {
    return Math.max(this.#bdpMultiple(this.bw, PROBE_RTT_CWND_GAIN), this.minPipeCwnd);
  }

  #saveStateUponLoss(): void {
    this.#saveCwnd();
    this.#undoState = -1;
    this.#savedRound = this.roundCount;
    this.#undoBwShortterm = this.bwShortterm;
    this.#undoInflightShortterm = this.inflightShortterm;
    this.#undoInflightLongterm = this.inflightLongterm;
  }

  #saveCwnd(): void {
    const isLimited = this.#isLossInRound || this.state === PROBE_RTT;
    this.#priorCwnd = isLimited ? Math.max(this.#priorCwnd, this.cwnd) : this.cwnd;
  }

  #restoreCwnd(): void {
    this.cwnd = Math.max(this.cwnd, this.#priorCwnd);
  }

  #setPacingRate(gain: number): void {
    const rate = gain * this.bw * PACING_MARGIN;
    if (rate > 0 && (this.isFullBwReached || rate > this.pacingRate)) this.pacingRate = rate;
  }

  #setSendQuantum(): void {
    const quantum = Math.min(this.pacingRate * QUANTUM_US / 1e6, QUANTUM_BYTES_MAX);
    this.sendQuantum = Math.max(quantum, 2 * this.#mss);
  }

  #setCwnd({ sample, delivered }: DeliveryRate): void {
    this.maxInflight = this.#quantization(this.#bdpMultiple(this.bw, this.cwndGain) + this.extraAcked);
    if (this.isFullBwReached) this.cwnd = Math.min(this.cwnd + sample.newlyAcked, this.maxInflight);
    else if (this.cwnd < this.maxInflight || delivered < INITIAL_SEGMENTS * this.#mss) {
      this.cwnd += sample.newlyAcked;
    }
    this.cwnd = Math.max(this.cwnd, this.minPipeCwnd);
    if (this.state === PROBE_RTT && this.#tuning.probeRttLimits) {
      this.cwnd = Math.min(this.cwnd, this.#probeRttCwnd());
    }
    let cap = Infinity;
    if (this.isInProbeBw && this.state !== PROBE_CRUISE) cap = this.inflightLongterm;
    else if (this.state === PROBE_RTT || this.state === PROBE_CRUISE) cap = this.inflightWithHeadroom();
    cap = Math.max(Math.min(cap, this.inflightShortterm), this.minPipeCwnd);
    this.cwnd = Math.min(this.cwnd, cap);
  }
}
