/**
 * How much repair a class of packets gets, and of which kind: a pure function of what is known of the path, of the class's
 * traffic and deadline, of the budget, and of the choice before. It compares groups of sources by Gilbert's model of
 * losses. Invariant: never more than the budget, and, unless a share is fixed, PROBE_SHARE on a clean path, with losses that
 * come with a growing queue, and without reports. What the other end's requests leave (asking.ts) is all that repair in advance is
 * spent on. Sends nothing (sender.ts).
 * Keeps PROTOCOL R98.
 */
import { type Foreseen, likelyLost } from "./calibration.ts";
import { LOSS_HALF_LIFE } from "./loss_runs.ts";
import { ANSWERABLE, type Asked, type AskingPath, expectAsked, NOTICE_US } from "./asking.ts";
import { CLASS_BULK } from "../control/traffic_class.ts";

/** Names of the schemes; "auto" takes the one that leaves least. */
export const REPAIR_SCHEMES = ["auto", "copy", "spaced", "window", "block"] as const;
export type RepairScheme = (typeof REPAIR_SCHEMES)[number];

/** What is known of a path and of one class's traffic on it. Rates and shares are 0 to 1, times are microseconds. */
export interface RepairSituation {
  nowUs: number;
  /** Recent share of datagrams lost, losses in a row on average, and how long such a run takes. */
  lossRate: number;
  runLength: number;
  runUs: number;
  /** Delay above the recent minimum, and its growth in microseconds a second. */
  queueUs: number;
  queueSlope: number;
  /** Recent maximum of the delay above the fastest datagrams'. */
  delayUs: number;
  /** Below 0 where it is not known. */
  rttUs: number;
  /** Datagrams of which the reports have told so far. */
  judged: number;
  /** Whether data is sent and no reports arrive. */
  isSilent: boolean;
  /** Chance that a datagram sent a little later is lost; 0 where nothing predicts it. */
  lossAhead: number;
  /** What became of datagrams that were sent under a prediction like the present one. */
  readonly foreseen: Foreseen;
  /** CLASS_* that is protected. */
  trafficClass: number;
  /** Time from one source to the next, and from one datagram that a repair can ride in to the next. */
  gapUs: number;
  rideGapUs: number;
  /** Bytes of a source on average, and their recent maximum. */
  packetBytes: number;
  packetBytesMax: number;
  /** Age at which a repaired packet is of no more use. */
  deadlineUs: number;
  /** Bytes of repair for each byte protected, at most. */
  budget: number;
  scheme: RepairScheme;
  /** Spend this share, whatever the path does. */
  share: number | undefined;
  /** Whether the other end asks for what it misses, and the share of its requests that get lost. */
  isAsked: boolean;
  backLoss: number;
  /** Share of packets that may stay lost. */
  target: number;
}

/** A repair rides in the first datagram after its sources, in the last one in time, or is sent alone just in time. */
export const EARLY = 0, LATE = 1, ALONE = 2;

/** What to send, and what the next choice must know of this one. */
export interface RepairChoice {
  isBlock: boolean;
  /** Sources that a repair combines, every `stride`-th one; 1 is a copy. */
  sources: number;
  stride: number;
  timing: number;
  /** Bytes of repair for each byte of protected datagrams; 0 sends none. */
  share: number;
  /** Age of the newest source from which on its repair may ride. */
  spacingUs: number;
  /** Age of the oldest source at which a repair goes alone, if it may cost that much, and behind which it is of no use. */
  lateUs: number;
  /** When losses last came with a queue; the share of recent losses blamed on it, and `judged` when that was computed. */
  congestedUs: number;
  blamedRate: number;
  blamedAt: number;
  /** When the groups were compared. */
  comparedUs: number;
  /** What the group that was measured last costs and leaves: scratch space of one choice. */
  readonly trial: { share: number; spacingUs: number; score: number };
  /** What the other end's requests achieve, and for which path: scratch space likewise. */
  readonly asked: Asked;
  readonly asking: AskingPath;
}

/** The choice before the first one. */
export function firstChoice(): RepairChoice {
  return {
    isBlock: false,
    sources: 1,
    stride: 1,
    timing: EARLY,
    share: 0,
    spacingUs: 0,
    lateUs: 0,
    congestedUs: -Infinity,
    blamedRate: 0,
    blamedAt: 0,
    comparedUs: -Infinity,
    trial: { share: 0, spacingUs: 0, score: Infinity },
    asked: { hopeless: 0, fails: 1, answers: 0 },
    asking: { rttUs: -1, usableUs: 0, loss: 0, backLoss: 0, burstUs: 0, target: 0 },
  };
}

/** Bytes of a datagram beside its packets: header, tag, UDP and IPv4. */
export const DATAGRAM_BYTES = 6 + 16 + 28;
/** Bytes of a repair beside its symbol. */
const HEAD_BYTES = 6;

/** Share of losses that may remain after repair; a path that loses no more is clean. */
const RESIDUAL_GOAL = 0.001;
/** Most bytes of repair for each lost byte: more would bring hardly more back. */
const SHARE_PER_LOSS = 40;
/** What requests leave may be this share of what no repair can bring back. */
const HOPELESS_SHARE = 0.5;
/** Share on a clean path, so that the first losses find the other end ready. */
const PROBE_SHARE = 0.01;
/** A prediction below AHEAD_MIN is noise; one above AHEAD_RATIO times the losses seen means a burst of AHEAD_BURST_US. */
const AHEAD_MIN = 0.05, AHEAD_RATIO = 2, AHEAD_BURST_US = 50_000;
/** With a longer queue a prediction is not believed. */
const AHEAD_QUEUE_US = 30_000;
/** A queue of QUEUE_US is congestion, until it has been half of that for CALM_US. */
const QUEUE_US = 45_000;
export const CALM_US = 1_000_000;
/** Share of the deadline that is used: timers, the other end and jitter take the rest. */
export const USABLE = 0.97;
const DELAY_SHARE_MAX = 0.5;
/** Delays that a request and its answer may meet. */
const DELAYS_ON_THE_WAY = 2;
/** From this share of its time on, a repair that is to be sent alone rides in a datagram. */
const NEARLY = 0.9;
const SOURCES_MAX = 8, STRIDE_MAX = 4;
/** Weight of each further repair of one source, by simulation: repairs of one source do not fail independently. */
const OVERLAP = 0.7;
/** A group that brings a source back with less than this chance is no use in any number. */
const HOPELESS = 1e-6;
/** Packets closer together count as this far apart. */
const GAP_US_MIN = 10;
/** Time between comparisons of groups, by state of the path and of the plan; and how much less another group must leave. */
const COMPARE_US = 200_000,
  COMPARE_CLEAN_US = 2_000_000,
  COMPARE_UNFIT_US = 20_000,
  BETTER = 0.95,
  COMPARED_LOSS_MIN = 0.01;
/** A share that rises or falls by a smaller factor is left as it is. */
const RISE = 1.1, FALL = 0.7;
/** Weights of a share of 1, and of a delay of the whole deadline, beside residual loss. */
const SHARE_WEIGHT = 0.0003, AGE_WEIGHT = 0.0001;
/** Bulk's transport repairs its own losses: bulk gets a little repair where losses are many and no queue is seen. */
const BULK_LOSS = 0.01, BULK_SHARE_MAX = 0.1, BULK_SHARE_PER_LOSS = 2, BULK_QUEUE_US = 10_000;
const BULK_SOURCES = 8, BULK_STRIDE = 4;

/** Writes the choice for the situation to `choice`, which holds the choice before. */
export function chooseRepair(situation: RepairSituation, choice: RepairChoice): void {
  const { nowUs, isSilent, budget, share } = situation, { trial } = choice;
  noteQueue(situation, choice);
  const lossRate = likelyLost(situation.foreseen, Math.max(0, situation.lossRate - choice.blamedRate));
  const isHeldBack = isSilent || nowUs - choice.congestedUs < CALM_US;
  choice.lateUs = usableOf(situation);
  if (share === undefined && situation.trafficClass === CLASS_BULK) {
    chooseForBulk(situation, choice, isHeldBack);
    return;
  }
  const predicted = aheadOf(situation, choice);
  const rate = Math.max(lossRate, predicted);
  const isClean = isHeldBack || rate <= situation.target;
  expect(situation, rate, choice);
  // Where the other end asks, it needs no repair that finds it ready.
  const probe = situation.isAsked ? 0 : PROBE_SHARE;
  if (share === undefined && situation.isAsked && (isClean || isAskingEnough(rate, situation, choice))) {
    choice.share = choice.spacingUs = 0;
    return;
  }
  const wasProbing = choice.share <= PROBE_SHARE;
  // Compared as if something were lost, for what a clean path will lose first is as likely to be anything.
  const loss = Math.max(rate, COMPARED_LOSS_MIN);
  const burstUs = Math.max(burstOf(situation), predicted > AHEAD_RATIO * lossRate ? AHEAD_BURST_US : 0);
  measure(situation, loss, burstUs, choice.sources, choice.stride, choice.timing, choice);
  const compareUs = isClean ? COMPARE_CLEAN_US : COMPARE_US;
  const isUnfit = (wasProbing && !isClean) || !isAllowed(situation, choice);
  if (nowUs - choice.comparedUs >= (isUnfit ? COMPARE_UNFIT_US : compareUs)) {
    compare(situation, loss, burstUs, choice);
  }
  measure(situation, isClean ? loss : rate, burstUs, choice.sources, choice.stride, choice.timing, choice);
  choice.spacingUs = trial.spacingUs;
  settle(choice, share ?? (isClean ? probe : trial.share), budget);
}

/** Computes what is left by the other end's requests, as far as it can ask in time, where `rate` is lost. */
function expect(situation: RepairSituation, rate: number, { asking, asked }: RepairChoice): void {
  asked.hopeless = asked.answers = 0;
  asked.fails = 1;
  if (!situation.isAsked || situation.rttUs < 0) return;
  asking.rttUs = situation.rttUs;
  // Where the path or the ends delay some datagrams, requests and answers are among them.
  asking.usableUs = ANSWERABLE * situation.deadlineUs -
    Math.min(DELAYS_ON_THE_WAY * situation.delayUs, DELAY_SHARE_MAX * situation.deadlineUs);
  asking.loss = rate;
  asking.backLoss = situation.backLoss;
  asking.burstUs = burstOf(situation);
  asking.target = situation.target;
  expectAsked(asking, Math.min(situation.gapUs, NOTICE_US + situation.delayUs), asked);
}

/** Whether what requests leave, and repair in advance could bring back, is within the target. */
function isAskingEnough(rate: number, { target }: RepairSituation, { asked }: RepairChoice): boolean {
  // Where bursts outlast the deadline, nobody meets the target: a little more is not worth the bytes.
  return rate * (1 - asked.hopeless) * asked.fails <=
    Math.max(target, HOPELESS_SHARE * rate * asked.hopeless);
}

/** Takes a share that differs enough from the one before. */
function settle(choice: RepairChoice, share: number, budget: number): void {
  if (share > RISE * choice.share || share < FALL * choice.share) choice.share = share;
  choice.share = Math.min(choice.share, budget);
}

/**
 * Losses with a queue that is long, or will be within a round trip, are congestion, which repair would make worse. All losses
 * up to then are blamed on the queue, and are no reason to repair once the queue is gone.
 */
function noteQueue(
  situation: RepairSituation,
  choice: RepairChoice,
): void {
  const { nowUs, lossRate, queueUs, queueSlope, rttUs, judged } = situation;
  choice.blamedRate *= 2 ** ((choice.blamedAt - judged) / LOSS_HALF_LIFE);
  choice.blamedAt = judged;
  const aheadUs = queueUs + Math.max(0, queueSlope) * Math.max(0, rttUs) / 1e6;
  const wasCongested = nowUs - choice.congestedUs < CALM_US;
  if (lossRate > RESIDUAL_GOAL && (aheadUs > QUEUE_US || (wasCongested && queueUs > QUEUE_US / 2))) {
    choice.congestedUs = nowUs;
  }
  // Some of it is reported a little later.
  if (nowUs - choice.congestedUs < CALM_US) choice.blamedRate = lossRate;
}

/** Predicted losses, as far as predictions came true; 0 where a queue may be their cause: a predictor says when, not why. */
function aheadOf(situation: RepairSituation, { blamedRate }: RepairChoice): number {
  const { lossAhead, foreseen } = situation;
  return lossAhead >= AHEAD_MIN && blamedRate <= RESIDUAL_GOAL &&
      situation.queueUs <= AHEAD_QUEUE_US
    ? likelyLost(foreseen, lossAhead)
    : 0;
}

/** Blocks that are interleaved, so that a short burst takes little of each. */
function chooseForBulk(
  situation: RepairSituation,
  choice: RepairChoice,
  isHeldBack: boolean,
): void {
  const { lossRate, budget } = situation;
  choice.isBlock = true;
  choice.sources = BULK_SOURCES;
  choice.stride = BULK_STRIDE;
  choice.timing = EARLY;
  choice.spacingUs = 0;
  const isReal = !isHeldBack && situation.queueUs < BULK_QUEUE_US &&
    lossRate > (choice.share > 0 ? BULK_LOSS / 2 : BULK_LOSS);
  if (isReal) settle(choice, Math.min(BULK_SHARE_MAX, BULK_SHARE_PER_LOSS * lossRate), budget);
  else choice.share = 0;
}

/**
 * How long losses stay likely after one, microseconds: the time constant of Gilbert's model, in which a datagram d behind a
 * lost one is lost with the chance p + (1 - p) e^(-d / burst). 0 for losses that have nothing to do with each other.
 */
function burstOf({ lossRate, runLength, runUs, gapUs }: RepairSituation): number {
  const again = 1 - 1 / Math.max(1, runLength);
  const correlation = Math.min(0.99, (again - lossRate) / (1 - lossRate));
  if (!(correlation > 0.01)) return 0;
  const spacingUs = runUs > 0 ? runUs / Math.max(1, runLength) : gapUs;
  return -spacingUs / Math.log(correlation);
}

function isAllowed({ scheme }: RepairSituation, { isBlock, sources, timing, trial }: RepairChoice): boolean {
  return trial.score < Infinity && isBlock === (scheme === "block") && fits(scheme, sources, timing);
}

/** Whether a group is of the scheme. */
function fits(scheme: RepairScheme, sources: number, timing: number): boolean {
  switch (scheme) {
    case "auto":
      return true;
    case "copy":
      return sources === 1 && timing === EARLY;
    case "spaced":
      return sources === 1 && timing !== EARLY;
    default:
      return sources > 1 && timing === EARLY;
  }
}

/** Takes the group that leaves least, if that is much less than the present group does; its measure is in `trial`. */
function compare(situation: RepairSituation, loss: number, burstUs: number, choice: RepairChoice): void {
  const { scheme } = situation, { trial } = choice;
  let bestSources = choice.sources, bestStride = choice.stride, bestTiming = choice.timing;
  let bound = isAllowed(situation, choice) ? BETTER * trial.score : Infinity;
  for (let sources = 1; sources <= SOURCES_MAX; sources++) {
    for (let timing = EARLY; timing <= ALONE; timing++) {
      if (!fits(scheme, sources, timing)) continue;
      const strides = sources === 1 || timing === EARLY ? 1 : STRIDE_MAX;
      for (let stride = 1; stride <= strides; stride++) {
        measure(situation, loss, burstUs, sources, stride, timing, choice);
        if (trial.score >= bound) continue;
        bound = trial.score;
        bestSources = sources;
        bestStride = stride;
        bestTiming = timing;
      }
    }
  }
  // Traffic too slow for the scheme: copies that go alone are what is left.
  measure(situation, loss, burstUs, bestSources, bestStride, bestTiming, choice);
  if (trial.score === Infinity) {
    bestSources = bestStride = 1;
    bestTiming = ALONE;
    measure(situation, loss, burstUs, bestSources, bestStride, bestTiming, choice);
  }
  choice.isBlock = scheme === "block" && bestSources > 1;
  choice.sources = bestSources;
  choice.stride = bestStride;
  choice.timing = bestTiming;
  choice.comparedUs = situation.nowUs;
}

/** Age that a packet may have when its repair is sent: less where the path delays some datagrams, but never below half. */
function usableOf({ deadlineUs, delayUs }: RepairSituation): number {
  return USABLE * deadlineUs - Math.min(delayUs, DELAY_SHARE_MAX * deadlineUs);
}

/** Writes to `trial` what a group would cost and leave; `score` is Infinity when the group is not in time. */
function measure(
  situation: RepairSituation,
  loss: number,
  burstUs: number,
  sources: number,
  stride: number,
  timing: number,
  { trial, asked }: RepairChoice,
): void {
  const { packetBytes, packetBytesMax, deadlineUs, share, target } = situation;
  /** Of the losses, what requests leave; and of the budget, what their answers leave. */
  const left = loss * asked.fails, budget = Math.max(0, situation.budget - loss * asked.answers);
  const gapUs = Math.max(GAP_US_MIN, situation.gapUs), rideGapUs = Math.max(GAP_US_MIN, situation.rideGapUs);
  const usableUs = usableOf(situation), strideUs = stride * gapUs, spanUs = (sources - 1) * strideUs;
  const rides = Math.floor((usableUs - spanUs) / rideGapUs);
  if (spanUs >= usableUs || (timing !== ALONE && rides < 1)) {
    trial.score = Infinity;
    return;
  }
  const ageUs = timing === ALONE ? usableUs - spanUs : timing === EARLY ? rideGapUs : rides * rideGapUs;
  // The largest of n evenly distributed lengths.
  const symbolBytes = packetBytes + (packetBytesMax - packetBytes) * (sources - 1) / (sources + 1);
  const bytes = symbolBytes + HEAD_BYTES + (timing === ALONE ? DATAGRAM_BYTES : 0);
  /** Repairs that cover each source, for a share of 1; there is at most one repair for each source. */
  const coverPerShare = sources * (DATAGRAM_BYTES + packetBytes) / bytes;
  const success = successOf(loss, burstUs, sources, strideUs, ageUs);
  const wanted = Math.max(0, 1 - target / left);
  const enough = success < HOPELESS
    ? Infinity
    : wanted <= success
    ? wanted / success
    : 1 + (Math.log(1 - wanted) / Math.log(1 - success) - 1) / OVERLAP;
  const spent = share ?? Math.min(budget, SHARE_PER_LOSS * loss);
  const cover = Math.min(sources, share === undefined ? enough : Infinity, spent * coverPerShare);
  const repaired = cover <= 1 ? cover * success : 1 - (1 - success) ** (1 + (cover - 1) * OVERLAP);
  trial.share = cover / coverPerShare;
  trial.score = left * (1 - repaired) + SHARE_WEIGHT * trial.share + AGE_WEIGHT * ageUs / deadlineUs;
  trial.spacingUs = timing === EARLY
    ? 0
    : timing === LATE
    ? ageUs - rideGapUs / 2
    : Math.max(0, NEARLY * usableUs - spanUs);
}

/**
 * Chance that a lost source comes back by one repair of `sources` sources, `strideUs` apart, the newest of which is `ageUs`
 * old when it goes: all others must have come, and the repair itself. Gilbert's chain has no direction in time, so what is
 * before the lost source and what is behind it are walked alike.
 */
function successOf(loss: number, burstUs: number, sources: number, strideUs: number, ageUs: number): number {
  const kept = burstUs > 0 ? Math.exp(-strideUs / burstUs) : 0,
    keptLast = burstUs > 0 ? Math.exp(-ageUs / burstUs) : 0;
  // From a loss to an arrival, and from one arrival to the next.
  const recovers = (1 - loss) * (1 - kept), stays = 1 - loss * (1 - kept);
  let sum = (1 - loss) * (1 - keptLast) * walk(recovers, stays, sources - 1);
  for (let behind = 1; behind < sources; behind++) {
    sum += walk(recovers, stays, behind) * (1 - loss * (1 - keptLast)) *
      walk(recovers, stays, sources - 1 - behind);
  }
  return sum / sources;
}

/** Chance that `steps` neighbours of a loss, one behind the other, all came. */
function walk(recovers: number, stays: number, steps: number): number {
  return steps === 0 ? 1 : recovers * stays ** (steps - 1);
}
