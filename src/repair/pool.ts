/**
 * Loss repair of the sessions that have it: who repairs, by which plan, within what memory (PROTOCOL §13). Invariant: a
 * session repairs only what both ends accepted, and no more sessions do at a time than there is memory for; the rest go
 * without, which costs them nothing else. What a repair is, is repair/receiver.ts's; how much there is of it, control's.
 */
import type { ShardKernel } from "../codec/kernels.ts";
import { PathMeter } from "./path_quality.ts";
import { makePredictor, type Predictor, type PredictorKind } from "./predictor.ts";
import { chooseRepair, type RepairScheme, type RepairSituation } from "./redundancy.ts";
import { CLASS_BULK, CLASS_COUNT, CLASS_GAME, CLASS_VOICE, isRealTime } from "../control/traffic_class.ts";
import type { Report } from "../wire/control.ts";
import { RepairReceiver } from "./receiver.ts";
import { LANE_BULK, LANE_GAME, LANE_VOICE, LANES, RepairSender } from "./sender.ts";
import { RepairTally } from "./tally.ts";

export interface RepairOptions {
  kernel: ShardKernel;
  /** How late a game's or a call's packet is still of use, microseconds. */
  gameDeadlineUs: number;
  voiceDeadlineUs: number;
  /** Bytes of repair for each byte protected, 0 to 1. */
  budget: number;
  scheme: RepairScheme;
  /** Spend this share of the bytes protected, 0 to the budget, whatever the path does. */
  share: number | undefined;
  /** Whether games and calls are protected as their deadlines ask and bulk hardly at all, or every class like a game. */
  isTrafficAware: boolean;
  /** Whether repair rises with losses that are predicted, and by which predictor. */
  isProactive: boolean;
  predictor: PredictorKind | "default";
}

/** The options for a config's words; `kernel` combines the shards. */
export function repairOptions(
  kernel: ShardKernel,
  config: {
    budgetPercent: number;
    gameDeadlineMs: number;
    voiceDeadlineMs: number;
    scheme?: RepairScheme;
    sharePercent?: number;
    trafficAware?: boolean;
    proactive?: boolean;
    predictor?: PredictorKind | "default";
  },
): RepairOptions {
  return {
    kernel,
    budget: config.budgetPercent / 100,
    gameDeadlineUs: 1000 * config.gameDeadlineMs,
    voiceDeadlineUs: 1000 * config.voiceDeadlineMs,
    scheme: config.scheme ?? "auto",
    share: config.sharePercent === undefined ? undefined : config.sharePercent / 100,
    isTrafficAware: config.trafficAware ?? true,
    isProactive: config.proactive ?? true,
    predictor: config.predictor ?? "default",
  };
}

/** Sessions that send repairs, and as many that take them: about 100 KB each both ways. */
const SESSIONS_MAX = 512;

/** The pool of one tunnel. */
export class Repairs {
  readonly options: RepairOptions;
  #senders = 0;
  #receivers = 0;

  constructor(options: RepairOptions) {
    this.options = options;
  }

  /** Whether packets of the class are reason enough to repair a session. Bulk alone is not: its transport does. */
  isProtected(trafficClass: number): boolean {
    return !this.options.isTrafficAware || isRealTime(trafficClass);
  }

  takeSender(): SessionRepair | undefined {
    if (this.#senders === SESSIONS_MAX) return undefined;
    this.#senders++;
    return new SessionRepair(this.options);
  }

  /** @param first the first counter of which it is shown everything that comes. */
  takeReceiver(first: number): RepairReceiver | undefined {
    if (this.#receivers === SESSIONS_MAX) return undefined;
    this.#receivers++;
    return new RepairReceiver(this.options.kernel, first);
  }

  /** A session has ended that had these. */
  give(sender: SessionRepair | undefined, receiver: RepairReceiver | undefined): void {
    if (sender) this.#senders--;
    if (receiver) this.#receivers--;
  }
}

/** Without reports, plans are looked at again so often while packets go out. */
const LOOK_US = 100_000;
/** Datagrams in which half of the loss now is forgotten. */
const SOON = 64;
/** The longest delay of late is forgotten so much with each report. */
const DELAY_KEPT = 255 / 256;
/** How long a transfer's packet is worth waiting for: its transport asks for it again then. */
const BULK_DEADLINE_US = 250_000;

/** Reports that come together are judged so often: each costs as much as some datagrams, and one of those holds many. */
const JUDGED_AT_ONCE = 4;

/** By class, which lane protects it, -1 for none: by what it is, and all alike. */
const LANE_BY_CLASS = new Int8Array(CLASS_COUNT).fill(-1),
  LANE_FOR_ALL = new Int8Array(CLASS_COUNT).fill(LANE_GAME);
LANE_BY_CLASS[CLASS_GAME] = LANE_GAME;
LANE_BY_CLASS[CLASS_VOICE] = LANE_VOICE;
LANE_BY_CLASS[CLASS_BULK] = LANE_BULK;

/** The sending side of one session. */
export class SessionRepair {
  readonly sender: RepairSender;
  readonly quality = new PathMeter();
  readonly tally = new RepairTally();
  /** What tells how likely the losses ahead are, where repair shall rise with them. */
  predictor: Predictor | undefined;
  readonly #options: RepairOptions;
  readonly #situations: readonly RepairSituation[];
  readonly #laneOf: Int8Array;
  #lookUs = 0;
  #reportedUs = -Infinity;
  #reportsAtOnce = 0;
  /** Share of datagrams lost, sooner forgotten than the path's: losses that begin are answered at once. */
  #lossRateNow = 0;
  /** The longest delay of late, above the least. */
  #delayUs = 0;

  constructor(options: RepairOptions) {
    this.#options = options;
    this.sender = new RepairSender(options.kernel);
    this.predictor = options.isProactive ? makePredictor(options.predictor) : undefined;
    this.#laneOf = options.isTrafficAware ? LANE_BY_CLASS : LANE_FOR_ALL;
    const classes = [CLASS_GAME, CLASS_VOICE, CLASS_BULK];
    const deadlinesUs = [options.gameDeadlineUs, options.voiceDeadlineUs, BULK_DEADLINE_US];
    this.#situations = classes.map((trafficClass, lane) =>
      situationOf(trafficClass, deadlinesUs[lane], options)
    );
    this.#choose(0);
  }

  /** Packets of the class went out in the datagram with `counter`; false when they are not protected. */
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

  /** The other end reports. */
  onReport(report: Report, nowUs: number): void {
    const { quality } = this;
    this.#reportsAtOnce = nowUs === this.#reportedUs ? this.#reportsAtOnce + 1 : 1;
    this.#reportedUs = nowUs;
    const isJudged = this.#reportsAtOnce <= JUDGED_AT_ONCE;
    if (quality.observe(report, nowUs)) {
      const { judged, lost, queueUsMax } = quality.step;
      this.#delayUs = Math.max(queueUsMax, this.#delayUs * DELAY_KEPT);
      if (judged > 0) {
        this.#lossRateNow += (lost / judged - this.#lossRateNow) * (1 - 2 ** (-judged / SOON));
      }
      if (isJudged) this.predictor?.observe(quality.step);
    }
    // With the next packet, so that the predictors of all sessions that a burst brought reports for are computed together.
    if (isJudged) this.#lookUs = nowUs;
  }

  #choose(nowUs: number): void {
    this.#lookUs = nowUs + LOOK_US;
    const { quality } = this;
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
      situation.lossAhead = this.#options.isProactive ? this.predictor?.lossAhead ?? 0 : 0;
      chooseRepair(situation, lane.plan);
    }
  }
}

/** A path of which nothing is known yet. */
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
    trafficClass,
    gapUs: 0,
    rideGapUs: 0,
    packetBytes: 0,
    packetBytesMax: 0,
    deadlineUs,
    budget,
    scheme,
    share,
  };
}
