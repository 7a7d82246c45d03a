// Hot path.
/**
 * The sending side of one session's repair (PROTOCOL §13): what reports say of the path becomes a plan for each class, and
 * the sender follows the plans. Invariant: a plan changes only with a report or after a while without one. A rule that
 * decides between repair in advance and repair on request is redundancy.ts's, as what a plan costs and leaves. Writes no frames.
 */
import { CLASS_BULK, CLASS_COUNT, CLASS_GAME, CLASS_VOICE } from "../control/traffic_class.ts";
import type { Burst } from "../vector/burst.ts";
import { outerBytes } from "../wire/oxtunnel.ts";
import { Calibration, nothingForeseen } from "./calibration.ts";
import type { RepairFigures } from "./figures.ts";
import type { RepairOptions } from "./options.ts";
import { PathMeter, type PathReport } from "./path_quality.ts";
import type { Predictor } from "./prediction/predictor.ts";
import { ANSWERABLE, LATE_TOLERANCE } from "./asking.ts";
import { CALM_US, chooseRepair, type RepairSituation } from "./redundancy.ts";
import { SYMBOL_MAX_BYTES } from "./receiver.ts";
import { LANE_BULK, LANE_GAME, LANE_VOICE, LANES, RepairSender } from "./sender.ts";
import { RepairTally } from "./tally.ts";

/** Time after which plans are chosen anew without a report, while packets are sent. */
const LOOK_US = 100_000;
/** Half-life of the recent loss rate, in datagrams. */
const SOON = 64;
/** Decay of the recent maximum delay, per report. */
const DELAY_KEPT = 255 / 256;
/** Age at which a bulk packet is of no more use: its transport has asked for it again by then. */
const BULK_DEADLINE_US = 250_000;

/** Reports of one moment that are judged: each costs as much as some datagrams, and one datagram holds many reports. */
const JUDGED_AT_ONCE = 4;

/** The lane that protects each class, -1 for none: where classes differ, and where all are protected like a game. */
const LANE_BY_CLASS = new Int8Array(CLASS_COUNT).fill(-1),
  LANE_FOR_ALL = new Int8Array(CLASS_COUNT).fill(LANE_GAME);
LANE_BY_CLASS[CLASS_GAME] = LANE_GAME;
LANE_BY_CLASS[CLASS_VOICE] = LANE_VOICE;
LANE_BY_CLASS[CLASS_BULK] = LANE_BULK;

export class RepairPlanner {
  readonly sender: RepairSender;
  readonly quality = new PathMeter();
  readonly tally = new RepairTally();
  /** Says how likely losses are a little later; undefined where repair does not follow predictions. */
  predictor: Predictor | undefined;
  /** What its words have been worth. */
  readonly #calibration = new Calibration();
  readonly #options: RepairOptions;
  readonly #isAsking: boolean;
  readonly #situations: readonly RepairSituation[];
  readonly #laneOf: Int8Array;
  #lookUs = 0;
  #reportedUs = -Infinity;
  #reportsAtOnce = 0;
  /** Recent share of the other end's datagrams that got lost, as this end receives them. */
  backLoss = 0;
  /** Share of datagrams lost, with a shorter memory than the path's: the first losses are answered at once. */
  #lossRateNow = 0;
  /** Recent maximum delay above the least. */
  #delayUs = 0;
  /** The longest deadline of what was marked so far. */
  #deadlineUs = 0;

  /** @param isAsking whether the ends have agreed that lost packets are asked for. */
  constructor(options: RepairOptions, predictor: Predictor | undefined, isAsking = false) {
    this.#options = options;
    this.#isAsking = isAsking;
    this.sender = new RepairSender(options.kernel, options.budget);
    this.predictor = predictor;
    this.#laneOf = options.isTrafficAware ? LANE_BY_CLASS : LANE_FOR_ALL;
    this.#situations = [
      situationOf(CLASS_GAME, options.gameDeadlineUs, options),
      situationOf(CLASS_VOICE, options.voiceDeadlineUs, options),
      situationOf(CLASS_BULK, BULK_DEADLINE_US, options),
    ];
    for (let i = 0; i < LANES; i++) {
      const lane = this.sender.lanes[i];
      lane.isMarked = isAsking && i !== LANE_BULK;
      lane.answerableUs = ANSWERABLE * this.#situations[i].deadlineUs * (1 + LATE_TOLERANCE);
    }
    this.#choose(0);
  }

  /** As `RepairSender.ride`, and counts what was written; returns the number of repairs. */
  ride(burst: Burst, row: number, counter: number, bytesMax: number, nowUs: number): number {
    const { sender, tally } = this, { written } = sender;
    sender.ride(burst, row, counter, bytesMax, nowUs);
    // Each was put in front of those before it, and the other end counts them in the order in which they stand.
    for (let i = written.count - 1; i >= 0; i--) {
      const distance = counter - written.newest[i];
      if (written.isAnswer[i] !== 0) {
        tally.answer(written.bytes[i], nowUs);
        continue;
      }
      tally.repair(
        written.isBlock[i] !== 0,
        written.sources[i],
        distance,
        written.bytes[i],
        written.sourceUs[i],
        nowUs,
      );
    }
    return written.count;
  }

  /**
   * Notes that the datagram in `row` was numbered. @param isReported whether it holds anything that the other end reports.
   * @param isProtected whether its packets are a source of a lane.
   */
  datagramSent(burst: Burst, row: number, isReported: boolean, isProtected: boolean, nowUs: number): void {
    this.quality.sent(burst.counter[row], isReported, isProtected, nowUs);
    this.#calibration.sent(burst.counter[row]);
    this.tally.datagram(outerBytes(burst.headerBytes[row], burst.length[row]), nowUs);
  }

  /** Takes the packets of the class that the datagram with `counter` carries; false when they are not protected. */
  sent(
    bytes: Uint8Array,
    at: number,
    length: number,
    counter: number,
    trafficClass: number,
    nowUs: number,
  ): boolean {
    const lane = this.#laneOf[trafficClass];
    if (lane < 0) return false;
    if (nowUs >= this.#lookUs) this.#choose(nowUs);
    return this.sender.sent(this.sender.lanes[lane], bytes, at, length, counter, nowUs);
  }

  /**
   * The longest deadline of the marked packets that this end has sent, with the packets of the class that are sent now, `length`
   * bytes, milliseconds; 0 where these are not marked.
   */
  deadlineMs(trafficClass: number, length: number): number {
    const lane = this.#laneOf[trafficClass];
    if (lane < 0 || length > SYMBOL_MAX_BYTES || !this.sender.lanes[lane].isMarked) return 0;
    this.#deadlineUs = Math.max(this.#deadlineUs, this.#situations[lane].deadlineUs);
    return Math.round(this.#deadlineUs / 1000);
  }

  /** Datagrams that the other end asked for, each as often as it did. */
  requested = 0;

  /** Takes an entry of the other end's request: arguments as `Kept.want`. */
  onRequest(low: number, first: number, count: number, nowUs: number): void {
    this.requested += count;
    this.sender.onRequest(low, first, count, nowUs);
  }

  /** Takes a report of the other end. */
  onReport(report: PathReport, nowUs: number): void {
    const { quality } = this;
    this.#reportsAtOnce = nowUs === this.#reportedUs ? this.#reportsAtOnce + 1 : 1;
    this.#reportedUs = nowUs;
    const isJudged = this.#reportsAtOnce <= JUDGED_AT_ONCE, { next } = quality;
    if (quality.observe(report, nowUs)) {
      const { judged, lost, queueUsMax } = quality.step;
      this.#calibration.judged(next, judged, lost);
      this.#delayUs = Math.max(queueUsMax, this.#delayUs * DELAY_KEPT);
      if (judged > 0) {
        this.#lossRateNow += (lost / judged - this.#lossRateNow) * (1 - 2 ** (-judged / SOON));
      }
      if (isJudged) this.predictor?.observe(quality.step);
    }
    // Plans change with the next packet, so that the predictors of all sessions with a report in this burst run together.
    if (isJudged) this.#lookUs = nowUs;
  }

  /** What this direction's repair amounts to. */
  get figures(): RepairFigures {
    const { quality, tally } = this;
    return {
      lossRatio: quality.lossRate,
      residualRatio: quality.residualRate,
      repaired: quality.repaired,
      unrecovered: quality.unrepaired,
      // Each repair that was of use brought one datagram back.
      wasted: Math.max(0, tally.repairs - quality.repaired),
      isSilent: quality.isSilent,
      repairs: tally.repairs,
      extraRatio: tally.extraRatio,
      scheme: tally.description,
      requests: this.requested,
      answered: tally.answers,
      late: this.sender.kept.refused,
      useless: 0,
    };
  }

  /** Chooses each lane's plan by what is known now. */
  #choose(nowUs: number): void {
    const backLoss = this.backLoss;
    this.sender.roundTripUs = this.quality.rttUs < 0 ? Infinity : this.quality.rttUs;
    this.#lookUs = nowUs + LOOK_US;
    const { quality } = this;
    const isProactive = this.#options.isProactive && this.predictor !== undefined;
    const lossAhead = isProactive ? this.predictor!.lossAhead : 0;
    if (isProactive) this.#calibration.predict(lossAhead);
    let isCongested = false;
    for (let i = 0; i < LANES; i++) {
      const lane = this.sender.lanes[i], situation = this.#situations[i];
      // A lane that has sent nothing keeps its first plan.
      if (lane.bytesMax === 0 && lane.plan.lateUs > 0) continue;
      situation.nowUs = nowUs;
      situation.lossRate = Math.max(quality.lossRate, this.#lossRateNow);
      situation.runLength = quality.runLength;
      situation.runUs = quality.runUs;
      situation.queueUs = quality.queueUs;
      situation.queueSlope = quality.queueSlope;
      situation.delayUs = this.#delayUs;
      situation.rttUs = quality.rttUs;
      situation.judged = quality.judged;
      situation.isSilent = quality.isSilent;
      situation.gapUs = lane.gapUs;
      situation.rideGapUs = this.sender.rideGapUs;
      situation.packetBytes = lane.bytes;
      situation.packetBytesMax = lane.bytesMax;
      situation.lossAhead = lossAhead;
      if (isProactive) this.#calibration.read(situation.foreseen);
      situation.isAsked = lane.isMarked;
      situation.backLoss = backLoss;
      chooseRepair(situation, lane.plan);
      lane.isCautious = nowUs - lane.plan.congestedUs < CALM_US;
      isCongested ||= lane.isCautious;
    }
    if (isCongested) this.#calibration.forgive(); // as all of them are blamed on the queue
  }
}

/** The situation before anything is known of the path. */
function situationOf(trafficClass: number, deadlineUs: number, options: RepairOptions): RepairSituation {
  const { budget, scheme, share } = options;
  return {
    nowUs: 0,
    lossRate: 0,
    runLength: 1,
    runUs: 0,
    queueUs: 0,
    queueSlope: 0,
    delayUs: 0,
    rttUs: -1,
    judged: 0,
    isSilent: false,
    lossAhead: 0,
    foreseen: nothingForeseen(),
    trafficClass,
    gapUs: 0,
    rideGapUs: 0,
    packetBytes: 0,
    packetBytesMax: 0,
    deadlineUs,
    budget,
    scheme,
    share,
    isAsked: false,
    backLoss: 0,
    target: options.target,
  };
}
