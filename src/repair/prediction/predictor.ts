// Hot path.
/**
 * Predicts losses on a path from its reports, so that repair can rise before they happen: plain predictors and trained ones
 * behind one interface, compared in bench/README.md. Invariant: every prediction is a chance between 0 and 1 whatever reports
 * say, and no step allocates. A new predictor is one more case of `Predictors`. Decides nothing about repair.
 */
import { Lstm, LstmPredictor } from "./lstm.ts";
import { bounded, FEATURES, PathFeatures } from "./path_features.ts";
import type { PathStep } from "../path_quality.ts";
import { LOGISTIC_WEIGHTS, LSTM_WEIGHTS } from "./weights.ts";

export interface Predictor {
  /** Takes what one report added. */
  observe(step: PathStep): void;
  /** Chance, 0 to 1, that a datagram sent 50 to 100 ms from now is lost. */
  readonly lossAhead: number;
}

export type PredictorKind = "ewma" | "hmm" | "delay" | "logistic" | "lstm";
export const PREDICTORS: readonly PredictorKind[] = ["ewma", "hmm", "delay", "logistic", "lstm"];
export const DEFAULT_PREDICTOR: PredictorKind = "lstm";

/** Makes the predictors of one tunnel's sessions, which share the network that computes their steps together. */
export class Predictors {
  readonly #kind: PredictorKind;
  readonly #network = new Lstm(lstmWeights);

  /** @param kind "default" is the one that measured best. */
  constructor(kind: PredictorKind | "default") {
    this.#kind = kind === "default" ? DEFAULT_PREDICTOR : kind;
  }

  /** A predictor for one direction of one session. */
  make(): Predictor {
    switch (this.#kind) {
      case "ewma":
        return new AveragePredictor();
      case "hmm":
        return new MarkovPredictor();
      case "delay":
        return new DelayPredictor();
      case "logistic":
        return new LogisticPredictor(logisticWeights);
      case "lstm":
        return new LstmPredictor(this.#network);
    }
  }
}

/** A predictor that shares nothing. */
export function makePredictor(kind: PredictorKind | "default"): Predictor {
  return new Predictors(kind).make();
}

/** From the sending of a report's newest datagrams to the middle of the predicted span, microseconds. */
const AHEAD_US = 135_000;
/** Most datagrams of one step that count. */
const JUDGED_MAX = 64;
const ELAPSED_US_MAX = 10_000_000;

/** Half-life of the average, in datagrams. */
const AVERAGE_HALF_LIFE = 16;

const MARKOV_HALF_LIFE_US = 20_000_000;
const GOOD_LOSS_MIN = 1e-4, GOOD_LOSS_MAX = 0.15, BAD_LOSS_MIN = 0.3, BAD_LOSS_MAX = 0.98;
/** Bounds of one step's evidence and of the belief, so that the filter never becomes certain. */
const EVIDENCE_MAX = 30, BELIEF_MIN = 1e-6;

/** Queues below LEVEL_US_MIN are noise; the threshold is below the level, since losses happen before the queue is seen. */
const LEVEL_US_FIRST = 60_000, LEVEL_US_MIN = 5_000, ELAPSED_US_MIN = 5_000;
const LOSS_ABOVE_FIRST = 0.15, THRESHOLD = 0.8, SOFTNESS = 0.1;

export const LOGISTIC_INPUTS = 3 * FEATURES;
const SHORT_HALF_LIFE_US = 200_000, LONG_HALF_LIFE_US = 2_000_000;

/** Predicts the recent rate: an exponentially weighted average over datagrams. */
export class AveragePredictor implements Predictor {
  lossAhead = 0;

  observe(step: PathStep): void {
    const judged = bounded(step.judged, JUDGED_MAX), lost = bounded(step.lost, judged);
    if (judged === 0) return;
    this.lossAhead += (lost / judged - this.lossAhead) * (1 - 2 ** (-judged / AVERAGE_HALF_LIFE));
  }
}

/**
 * Gilbert's and Elliott's two states as a hidden Markov chain in continuous time: the forward filter. Its parameters are
 * estimated online from the filter's own beliefs, with forgetting, and from usual values where little was seen.
 */
export class MarkovPredictor implements Predictor {
  lossAhead = 0;
  /** Belief that the path is in its bad state. */
  #bad = 0.01;
  // Recent expected counts: datagrams and losses in either state, time spent there, how often the chain left it.
  #goodJudged = 0;
  #goodLost = 0;
  #goodUs = 0;
  #entered = 0;
  #badJudged = 0;
  #badLost = 0;
  #badUs = 0;
  #left = 0;

  observe(step: PathStep): void {
    const elapsedUs = bounded(step.elapsedUs, ELAPSED_US_MAX);
    const judged = bounded(step.judged, JUDGED_MAX), lost = bounded(step.lost, judged);
    const arrived = judged - lost;
    const goodLoss = between(GOOD_LOSS_MIN, (2 + this.#goodLost) / (500 + this.#goodJudged), GOOD_LOSS_MAX);
    const badLoss = between(BAD_LOSS_MIN, (4 + this.#badLost) / (6 + this.#badJudged), BAD_LOSS_MAX);
    const enterRate = (1 + this.#entered) / (2e6 + this.#goodUs);
    const leaveRate = (1 + this.#left) / (5e4 + this.#badUs);
    const rate = enterRate + leaveRate;

    const mixed = 1 - Math.exp(-rate * elapsedUs);
    const enters = enterRate / rate * mixed, leaves = leaveRate / rate * mixed;
    const evidence = lost * Math.log(badLoss / goodLoss) + arrived * Math.log((1 - badLoss) / (1 - goodLoss));
    const odds = Math.exp(between(-EVIDENCE_MAX, evidence, EVIDENCE_MAX));
    const stayedGood = (1 - this.#bad) * (1 - enters), left = this.#bad * leaves;
    const entered = (1 - this.#bad) * enters * odds, stayedBad = this.#bad * (1 - leaves) * odds;
    const all = stayedGood + left + entered + stayedBad;
    const bad = (entered + stayedBad) / all;
    this.#bad = between(BELIEF_MIN, bad, 1 - BELIEF_MIN);

    const keep = 2 ** (-elapsedUs / MARKOV_HALF_LIFE_US);
    this.#goodJudged = this.#goodJudged * keep + (1 - bad) * judged;
    this.#goodLost = this.#goodLost * keep + (1 - bad) * lost;
    this.#goodUs = this.#goodUs * keep + (1 - bad) * elapsedUs;
    this.#entered = this.#entered * keep + entered / all;
    this.#badJudged = this.#badJudged * keep + bad * judged;
    this.#badLost = this.#badLost * keep + bad * lost;
    this.#badUs = this.#badUs * keep + bad * elapsedUs;
    this.#left = this.#left * keep + left / all;

    const usual = enterRate / rate;
    const ahead = usual + (this.#bad - usual) * Math.exp(-rate * AHEAD_US);
    this.lossAhead = ahead * badLoss + (1 - ahead) * goodLoss;
  }
}

/** Predicts losses when the queue will be about as deep as at earlier losses: a soft threshold on the queue ahead. */
export class DelayPredictor implements Predictor {
  lossAhead = 0;
  /** The queue at which datagrams were lost, microseconds, and the share lost above the threshold. */
  #levelUs = LEVEL_US_FIRST;
  #lossAbove = LOSS_ABOVE_FIRST;
  #queueUs = 0;

  observe(step: PathStep): void {
    const judged = bounded(step.judged, JUDGED_MAX), lost = bounded(step.lost, judged);
    const elapsedUs = Math.max(ELAPSED_US_MIN, bounded(step.elapsedUs, ELAPSED_US_MAX));
    const queueUs = bounded(step.queueUs, ELAPSED_US_MAX);
    const deepestUs = Math.max(queueUs, bounded(step.queueUsMax, ELAPSED_US_MAX));
    const growth = (queueUs - this.#queueUs) / elapsedUs;
    this.#queueUs = queueUs;
    if (lost > 0 && deepestUs > LEVEL_US_MIN) this.#levelUs += (deepestUs - this.#levelUs) / 8;
    if (judged > 0 && deepestUs > THRESHOLD * this.#levelUs) {
      this.#lossAbove += (lost / judged - this.#lossAbove) / 16;
    }
    const aheadUs = bounded(queueUs + growth * AHEAD_US, 2 * this.#levelUs);
    const isAbove = 1 / (1 + Math.exp((THRESHOLD - aheadUs / this.#levelUs) / SOFTNESS));
    this.lossAhead = this.#lossAbove * isAbove;
  }
}

/** Logistic regression on a step's features and their averages over a short and a long window; trained by bench/train.ts. */
export class LogisticPredictor implements Predictor {
  lossAhead = 0;
  /** What the weights multiply: the features now, averaged over the short window, and over the long one. */
  readonly inputs = new Float32Array(LOGISTIC_INPUTS);
  readonly #features = new PathFeatures();
  readonly #weights: Float32Array;

  /** @param weights one for each input, then the bias; throws a RangeError for another number. */
  constructor(weights: Float32Array) {
    if (weights.length !== LOGISTIC_INPUTS + 1) throw new RangeError(`${LOGISTIC_INPUTS + 1} weights`);
    this.#weights = weights;
  }

  observe(step: PathStep): void {
    const inputs = this.inputs, weights = this.#weights;
    const elapsedUs = bounded(step.elapsedUs, ELAPSED_US_MAX);
    this.#features.write(step, inputs, 0);
    const short = 1 - 2 ** (-elapsedUs / SHORT_HALF_LIFE_US),
      long = 1 - 2 ** (-elapsedUs / LONG_HALF_LIFE_US);
    let sum = weights[LOGISTIC_INPUTS];
    for (let i = 0; i < FEATURES; i++) {
      const now = inputs[i];
      const ofShort = inputs[FEATURES + i] += short * (now - inputs[FEATURES + i]);
      const ofLong = inputs[2 * FEATURES + i] += long * (now - inputs[2 * FEATURES + i]);
      sum += now * weights[i] + ofShort * weights[FEATURES + i] + ofLong * weights[2 * FEATURES + i];
    }
    this.lossAhead = 1 / (1 + Math.exp(-sum));
  }
}

function between(least: number, value: number, most: number): number {
  return Math.max(least, Math.min(most, value));
}

/** Little-endian floats of 32 bits from base64. */
function floats(base64: string): Float32Array {
  const bytes = Uint8Array.fromBase64(base64), view = new DataView(bytes.buffer);
  const values = new Float32Array(bytes.length >> 2);
  for (let i = 0; i < values.length; i++) values[i] = view.getFloat32(4 * i, true);
  return values;
}

// Constants, however they are written.
const logisticWeights = floats(LOGISTIC_WEIGHTS), lstmWeights = floats(LSTM_WEIGHTS);
