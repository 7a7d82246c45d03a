/**
 * What a prediction of handovers is worth: a game over a radio that changes cells (radio.ts) and a metered path beside it, with no
 * copies, with copies once something went wrong, with copies ahead by a threshold, a logistic regression or an LSTM, and with copies
 * always. The models are trained on a walk and judged on radios that they have not seen. Invariant: the same seed gives the same
 * table; thresholds are set on the training radios alone.
 */
import { LeastLate, type PathScheduler } from "../../src/control/paths/choice.ts";
import { FALL_DB, HandoffWatch } from "../../src/control/paths/handoff.ts";
import type { PathFigures } from "../../src/control/paths/figures.ts";
import { Lstm, LstmPredictor } from "../../src/repair/prediction/lstm.ts";
import { FEATURES } from "../../src/repair/prediction/path_features.ts";
import { Path } from "../../tests/kit/channels.ts";
import { play } from "../../tests/kit/paths_play.ts";
import { Random } from "../../tests/kit/random.ts";
import { type Sequence, trainLogistic, trainLstm } from "../training.ts";
import { HELD_OUT, Radio, type RadioSettings, WALK } from "./radio.ts";
import { SIGNS, Signs, SIGNS_US } from "./signs.ts";

/** A gap that begins within this time is ahead; a warning holds for as long. */
const AHEAD_US = 2_000_000;
const USEFUL_US = 80_000, CELLULAR_US = 40_000;
/** Shares of the training radios' gaps that a model must have warned of: its points of operation; the table has the middle one. */
export const RECALLS = [0.6, 0.75, 0.9, 0.95];
const RECALL = 0.9;
/** Falls of the signal from which on the threshold warns, dB, likewise. */
export const FALLS = [12, 10, 8, 6, 5];
/** A packet belongs to a handover if it was sent within this time around its gap. */
const AROUND_US = 1_000_000;

/** Says how likely a gap is ahead, from the signs of one path, step by step. */
export interface Oracle {
  step(signs: Float32Array): number;
}

/** One way of deciding when to send copies. */
export interface Strategy {
  name: string;
  scheduler: () => PathScheduler;
  /** The predictor that it is a point of, where it is not the one in the table. */
  pointOf?: string;
  /** What warns; none for those that look at nothing. */
  warning?: () => { isAhead(levelDbm: number, figures: PathFigures, nowUs: number): boolean };
}

function radios(settings: RadioSettings, seeds: readonly number[]): { radio: Radio; seed: number }[] {
  return seeds.map((seed) => ({ radio: new Radio(new Random(seed), settings), seed }));
}

/** Signs of a radio while a game goes over it, and whether a gap is ahead, or there, at each step. */
function observe(radio: Radio, seconds: number): Sequence {
  const signs = new Signs(), steps: number[] = [], times: number[] = [];
  let dueUs = 0;
  play(new LeastLate(0, "in doubt"), {
    paths: [{ model: radio, backUs: 20_000 }],
    seconds,
    usefulUs: USEFUL_US,
    onTick: ([figures], nowUs) => {
      if (nowUs < dueUs) return;
      dueUs = nowUs + SIGNS_US;
      steps.push(...signs.write(radio.levelDbm, figures));
      times.push(nowUs);
    },
  });
  const isAhead = (us: number) => radio.gaps.some(({ fromUs, toUs }) => us >= fromUs - AHEAD_US && us < toUs);
  return {
    features: Float32Array.from(steps),
    targets: Float32Array.from(times, (us) => isAhead(us) ? 1 : 0),
  };
}

function logisticOracle(weights: Float64Array): Oracle {
  return {
    step: (signs) => {
      let sum = weights[SIGNS];
      for (let i = 0; i < SIGNS; i++) sum += weights[i] * signs[i];
      return 1 / (1 + Math.exp(-sum));
    },
  };
}

function lstmOracle(network: Lstm): Oracle {
  const memory = new LstmPredictor(network);
  return {
    step: (signs) => {
      memory.memory.set(signs, 0);
      network.enqueue(memory);
      network.run();
      return memory.lossAhead;
    },
  };
}

/** The highest threshold at which the share `recall` of the gaps of these sequences are warned of, in any step of the two seconds before. */
function thresholdOf(make: () => Oracle, sequences: readonly Sequence[], recall: number): number {
  const peaks: number[] = [];
  for (const { features, targets } of sequences) {
    const oracle = make();
    let peak = -1;
    for (let i = 0; i < targets.length; i++) {
      const chance = oracle.step(features.subarray(i * SIGNS, (i + 1) * SIGNS));
      if (targets[i] === 1) peak = Math.max(peak, chance);
      else if (peak >= 0) {
        peaks.push(peak);
        peak = -1;
      }
    }
  }
  peaks.sort((a, b) => a - b);
  return peaks[Math.floor((1 - recall) * peaks.length)];
}

function warner(make: () => Oracle, threshold: number): Strategy["warning"] {
  return () => {
    const oracle = make(), signs = new Signs();
    let dueUs = 0, untilUs = 0;
    return {
      isAhead(levelDbm, figures, nowUs) {
        if (nowUs >= dueUs) {
          dueUs = nowUs + SIGNS_US;
          if (oracle.step(signs.write(levelDbm, figures)) >= threshold) untilUs = nowUs + AHEAD_US;
        }
        return nowUs < untilUs;
      },
    };
  };
}

export interface Trained {
  strategies: Strategy[];
  /** Area under the curve of true over false positives, by predictor and radio. */
  areas: Record<string, Record<string, number>>;
  /** The logistic regression: a weight for each sign, the bias, and the chance from which on it warns. */
  logistic: number[];
}

/** Trains the models; `count` radios of `seconds` each. */
export function train(seed: number, count: number, seconds: number, epochs: number): Trained {
  if (SIGNS !== FEATURES) throw new Error("the network has as many inputs as there are signs");
  const from = 10_000 * seed;
  const seeds = Array.from({ length: count }, (_, i) => from + i);
  const sequences = radios(WALK, seeds).map(({ radio }) => observe(radio, seconds));
  const weights = trainLogistic(sequences, SIGNS, new Random(seed), epochs, () => {});
  const network = new Lstm(Float32Array.from(
    trainLstm(sequences, new Random(seed), { epochs, batch: 12, steps: 64, rate: 0.004 }, () => {}),
  ));
  const oracles: Record<string, () => Oracle> = {
    logistic: () => logisticOracle(weights),
    LSTM: () => lstmOracle(network),
  };
  const areas: Trained["areas"] = {};
  for (const [name, make] of Object.entries(oracles)) {
    areas[name] = {};
    for (const [radio, settings] of Object.entries(HELD_OUT)) {
      const unseen = radios(settings, [901, 902, 903, 904, 905, 906]).map((one) =>
        observe(one.radio, seconds)
      );
      areas[name][radio] = area(make, unseen);
    }
  }
  const scheduler = () => new LeastLate(100, "in doubt");
  const modelled = Object.entries(oracles).flatMap(([name, make]) =>
    RECALLS.map((recall): Strategy => ({
      name,
      scheduler,
      ...(recall === RECALL ? {} : { pointOf: name }),
      warning: warner(make, thresholdOf(make, sequences, recall)),
    }))
  );
  const thresholds = FALLS.map((fall): Strategy => ({
    name: "threshold",
    scheduler,
    ...(fall === FALL_DB ? {} : { pointOf: "threshold" }),
    warning: () => {
      const watch = new HandoffWatch(fall);
      return {
        isAhead: (levelDbm, _, nowUs) => {
          watch.level(levelDbm, nowUs);
          return watch.isAhead(nowUs);
        },
      };
    },
  }));
  const strategies: Strategy[] = [
    { name: "no copies", scheduler: () => new LeastLate(0, "in doubt") },
    { name: "reactive", scheduler },
    ...thresholds,
    ...modelled,
    { name: "always", scheduler: () => new LeastLate(100, "always") },
  ];
  return { strategies, areas, logistic: [...weights] };
}

/** The chance that a step with a gap ahead has a higher value than one without, of all such pairs. */
function area(make: () => Oracle, sequences: readonly Sequence[]): number {
  const scored = sequences.flatMap(({ features, targets }) => {
    const oracle = make();
    return [...targets].map((target, i) => ({
      chance: oracle.step(features.subarray(i * SIGNS, (i + 1) * SIGNS)),
      target,
    }));
  }).sort((a, b) => a.chance - b.chance);
  let ranks = 0, positives = 0;
  scored.forEach(({ target }, i) => {
    if (target !== 1) return;
    ranks += i + 1;
    positives++;
  });
  return (ranks - positives * (positives + 1) / 2) / (positives * (scored.length - positives));
}

export interface HandoffRow {
  strategy: string;
  isInTable: boolean;
  handovers: number;
  /** Packets lost or late for each handover, within a second of it. */
  missed: number;
  /** The same of all packets, of a thousand. */
  missedOfThousand: number;
  /** Mean rate on the metered path, kbit/s, pings included. */
  meteredKbit: number;
}

/** Plays every strategy over the same radios beside a clean cellular path. */
export function compareHandoffs(
  strategies: readonly Strategy[],
  settings: RadioSettings,
  seeds: readonly number[],
  seconds: number,
): HandoffRow[] {
  return strategies.map(({ name, pointOf, scheduler, warning }) => {
    let handovers = 0, near = 0, missed = 0, packets = 0, bytes = 0;
    for (const { radio } of radios(settings, seeds)) {
      const watch = warning?.();
      const { fates, bytes: sent, ...played } = play(scheduler(), {
        paths: [{ model: radio, backUs: 20_000 }, {
          model: new Path(CELLULAR_US),
          backUs: CELLULAR_US,
          isMetered: true,
        }],
        seconds,
        usefulUs: USEFUL_US,
        onTick: ([figures], nowUs) => {
          radio.look(nowUs);
          if (watch !== undefined) figures.isHandoffAhead = watch.isAhead(radio.levelDbm, figures, nowUs);
        },
      });
      const gaps = radio.gaps.filter(({ fromUs }) => fromUs < seconds * 1e6 - AROUND_US);
      handovers += gaps.length;
      missed += played.missed;
      packets += played.packets;
      bytes += sent[1];
      for (const { atUs, isMissed } of fates) {
        if (!isMissed) continue;
        if (gaps.some(({ fromUs, toUs }) => atUs >= fromUs - AROUND_US && atUs < toUs + AROUND_US)) near++;
      }
    }
    return {
      strategy: name,
      isInTable: pointOf === undefined,
      handovers,
      missed: near / handovers,
      missedOfThousand: 1000 * missed / packets,
      meteredKbit: 8 * bytes / (seconds * seeds.length) / 1000,
    };
  });
}
