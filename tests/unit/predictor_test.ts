/**
 * Predictors of loss: what each says on steps made by hand, hostile ones among them; the LSTM's inference beside a plain
 * twin, its gradient beside finite differences; that training learns, and that the weights are those of the scores
 * that stand beside them.
 */
import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { checkStreams, fingerprint, score } from "../../bench/prediction_scores.ts";
import { precisionRecallArea, receiverOperatingArea } from "../../bench/ranking.ts";
import { RadioPath } from "../../bench/radio_traces.ts";
import { firstParameters, LstmTrainer, type Sequence, trainLstm } from "../../bench/training.ts";
import {
  GATES,
  INPUTS,
  Lstm,
  LstmPredictor,
  OUTPUT_AT,
  PARAMETERS,
  UNITS,
} from "../../src/repair/prediction/lstm.ts";
import { FEATURES, PathFeatures } from "../../src/repair/prediction/path_features.ts";
import type { PathStep } from "../../src/repair/path_quality.ts";
import { makePredictor, type Predictor, PREDICTORS } from "../../src/repair/prediction/predictor.ts";
import { TRAINED } from "../../src/repair/prediction/weights.ts";
import { Random } from "../kit/random.ts";

const QUIET: PathStep = {
  elapsedUs: 50_000,
  judged: 3,
  lost: 0,
  runs: 0,
  longestRun: 0,
  queueUs: 500,
  queueUsMax: 1_000,
  jitterUs: 300,
  reorderDepth: 0,
  ce: 0,
};
const LOSING: PathStep = { ...QUIET, lost: 3, runs: 1, longestRun: 3 };

function observe(predictor: Predictor, ...steps: [step: PathStep, times: number][]): number {
  for (const [step, times] of steps) for (let i = 0; i < times; i++) predictor.observe(step);
  return predictor.lossAhead;
}

Deno.test("predictors: on a path that never lost, little is expected", () => {
  for (const kind of PREDICTORS) {
    const chance = observe(makePredictor(kind), [QUIET, 400]);
    assert(chance >= 0 && chance < 0.02, `${kind}: ${chance}`);
  }
});

Deno.test("predictors: the average follows the rate over datagrams, by hand", () => {
  const predictor = makePredictor("ewma");
  // 16 datagrams are its half-life.
  assertAlmostEquals(observe(predictor, [{ ...QUIET, judged: 16, lost: 16 }, 1]), 1 / 2, 1e-12);
  assertAlmostEquals(
    observe(predictor, [{ ...QUIET, judged: 32, lost: 8 }, 1]),
    1 / 4 + (1 / 2 - 1 / 4) / 4,
    1e-12,
  );
  assertAlmostEquals(
    observe(predictor, [{ ...QUIET, judged: 0 }, 9]),
    5 / 16,
    1e-12,
  );
});

Deno.test("predictors: the chain learns how long bad states last", () => {
  const long: [PathStep, number][] = [], short: [PathStep, number][] = [];
  for (let i = 0; i < 20; i++) {
    long.push([QUIET, 40], [LOSING, 10]);
    short.push([QUIET, 40], [LOSING, 1]);
  }
  const afterLong = makePredictor("hmm"), afterShort = makePredictor("hmm");
  observe(afterLong, ...long, [QUIET, 40]);
  observe(afterShort, ...short, [QUIET, 40]);
  const inLong = observe(afterLong, [LOSING, 1]), inShort = observe(afterShort, [LOSING, 1]);
  assert(inLong > 0.5, `half a second of losses goes on: ${inLong}`);
  assert(inLong > 1.5 * inShort, `one step's do not: ${inShort}`);
  assert(observe(afterLong, [QUIET, 3]) < 0.2, "and it is over when datagrams arrive");
});

Deno.test("predictors: a growing queue warns before it overflows, at the depth where it overflowed before", () => {
  const filling = (fromUs: number, toUs: number): [PathStep, number][] =>
    Array.from({ length: 10 }, (_, i) => {
      const queueUs = fromUs + (toUs - fromUs) * (i + 1) / 10;
      return [{ ...QUIET, queueUs, queueUsMax: queueUs }, 1];
    });
  const full: PathStep = { ...QUIET, queueUs: 80_000, queueUsMax: 80_000, lost: 1, runs: 1, longestRun: 1 };
  for (const kind of ["delay", "logistic", "lstm"] as const) {
    const predictor = makePredictor(kind);
    for (let i = 0; i < 6; i++) {
      observe(predictor, ...filling(0, 80_000), [full, 8], ...filling(80_000, 0), [QUIET, 20]);
    }
    const empty = predictor.lossAhead, before = observe(predictor, ...filling(0, 76_000));
    assert(before > 3 * empty && before > 0.01, `${kind}: ${empty} when empty, ${before} before it is full`);
  }
});

Deno.test("predictors: whatever a step says, what comes out is a chance", () => {
  const number = fc.oneof(
    fc.constantFrom(0, -0, 1, -1, 1e300, -1e300, Infinity, -Infinity, 2 ** 53, 5e-324, 1e6),
    fc.double({ noNaN: true }),
    fc.nat(100_000),
  );
  const step = fc.record({
    elapsedUs: number,
    judged: number,
    lost: number,
    runs: number,
    longestRun: number,
    queueUs: number,
    queueUsMax: number,
    jitterUs: number,
    reorderDepth: number,
    ce: number,
  });
  fc.assert(
    fc.property(fc.array(step, { minLength: 1, maxLength: 60 }), (steps) => {
      for (const kind of PREDICTORS) {
        const predictor = makePredictor(kind);
        for (const step of steps) {
          predictor.observe(step);
          const chance = predictor.lossAhead;
          assert(chance >= 0 && chance <= 1, `${kind}: ${chance}`);
        }
        const later = observe(predictor, [QUIET, 2000]);
        assert(later < 0.1, `${kind} does not come back: ${later}`);
      }
    }),
    { numRuns: 40 },
  );
});

Deno.test("path features: what each means, by hand", () => {
  const features = new PathFeatures(), out = new Float32Array(FEATURES + 1);
  features.write({ ...QUIET, queueUs: 30_000, queueUsMax: 40_000, elapsedUs: 125_000 }, out, 1);
  assertEquals([out[0], out[1], out[2], out[4], out[5], out[8]], [0, 0, 0, 1, 1, 0.5]);
  features.write({ ...LOSING, judged: 4, queueUs: 15_000, queueUsMax: 20_000, elapsedUs: 0 }, out, 1);
  assertEquals([out[1], out[4], out[5], out[7], out[8]], [0.75, -0.5, 0.5, 1, 0]);
  assertAlmostEquals(out[2], Math.log(4) / Math.log(33), 1e-6);
  features.write({ ...QUIET, elapsedUs: 20_000_000 }, out, 1);
  assertEquals(out[7], 0, "the last loss is forgotten");
});

/** The network's equations (Gers et al. 2000, without peepholes), term by term, with nothing shared. */
function plainLstm(parameters: ArrayLike<number>, steps: number[][]): number[] {
  const weight = (unit: number, input: number, gate: number) =>
    parameters[(unit * INPUTS + input) * GATES + gate];
  const logistic = (x: number) => Math.exp(x) / (Math.exp(x) + 1);
  let hidden = new Array(UNITS).fill(0), cells = new Array(UNITS).fill(0);
  return steps.map((features) => {
    const seen = [...features, ...hidden, 1];
    const gate = (unit: number, g: number) => seen.reduce((sum, x, i) => sum + x * weight(unit, i, g), 0);
    cells = cells.map((cell, unit) =>
      logistic(gate(unit, 1)) * cell + logistic(gate(unit, 0)) * Math.tanh(gate(unit, 3))
    );
    hidden = cells.map((cell, unit) => logistic(gate(unit, 2)) * Math.tanh(cell));
    return logistic(
      hidden.reduce((sum, y, unit) => sum + y * parameters[OUTPUT_AT + unit], parameters[PARAMETERS - 1]),
    );
  });
}

function randomSteps(random: Random, count: number): PathStep[] {
  return Array.from({ length: count }, () => {
    const judged = random.u32() % 6, lost = random.u32() % (judged + 1), queueUs = random.real() * 100_000;
    return {
      elapsedUs: random.real() * 100_000,
      judged,
      lost,
      runs: Math.min(lost, 1),
      longestRun: lost,
      queueUs,
      queueUsMax: queueUs * 1.2,
      jitterUs: random.real() * 5_000,
      reorderDepth: 0,
      ce: 0,
    };
  });
}

function featuresOf(steps: PathStep[]): Float32Array {
  const features = new Float32Array(steps.length * FEATURES), reader = new PathFeatures();
  steps.forEach((step, i) => reader.write(step, features, i * FEATURES));
  return features;
}

Deno.test("lstm: inference equals its plain twin, alone and with others, asked at once or late", () => {
  const random = new Random(11), parameters = Float32Array.from(firstParameters(random), (x) => 2 * x);
  // Fewer and more sessions than are computed together.
  for (const count of [100, 300]) {
    const network = new Lstm(parameters);
    const sessions = Array.from({ length: count }, () => ({
      predictor: new LstmPredictor(network),
      steps: randomSteps(random, 12),
      seen: [] as number[],
    }));
    for (let i = 0; i < 12; i++) {
      for (const { predictor, steps } of sessions) predictor.observe(steps[i]);
      // Some are asked, and those who are not are told their next step all the same.
      sessions.forEach(({ predictor, seen }, n) =>
        seen.push(i % 4 === 1 && n % 3 === 0 || i === 11 ? predictor.lossAhead : NaN)
      );
    }
    for (const { steps, seen } of sessions) {
      const features = Array.from(featuresOf(steps));
      const expected = plainLstm(
        parameters,
        steps.map((_, i) => features.slice(i * FEATURES, (i + 1) * FEATURES)),
      );
      seen.forEach((chance, i) => Number.isNaN(chance) || assertAlmostEquals(chance, expected[i], 1e-5));
    }
  }
  assertThrows(() => new Lstm(new Float32Array(PARAMETERS - 1)), RangeError);
});

function randomSequence(random: Random, count: number): Sequence {
  const targets = Float32Array.from({ length: count }, () => random.real() < 0.2 ? NaN : random.real());
  return { features: featuresOf(randomSteps(random, count)), targets };
}

Deno.test("lstm: the gradient is that of finite differences", () => {
  const random = new Random(5), parameters = firstParameters(random), sequence = randomSequence(random, 9);
  const trainer = new LstmTrainer(parameters, 9);
  const lossAt = (index: number, value: number) => {
    const kept = parameters[index];
    parameters[index] = value;
    trainer.reset();
    trainer.accumulate(sequence, 0, 9, new Float64Array(2 * UNITS));
    parameters[index] = kept;
    return trainer.loss;
  };
  lossAt(0, parameters[0]);
  const gradient = trainer.gradient.slice();
  for (let i = 0; i < PARAMETERS; i += i < OUTPUT_AT ? 7 : 1) {
    const step = 1e-5;
    const slope = (lossAt(i, parameters[i] + step) - lossAt(i, parameters[i] - step)) / (2 * step);
    assert(
      Math.abs(gradient[i] - slope) < 1e-6 * Math.max(1, Math.abs(slope)),
      `parameter ${i}: ${gradient[i]}, ${slope}`,
    );
  }
});

Deno.test("lstm: training runs the network that inference runs, whole or in pieces", () => {
  const random = new Random(6), parameters = Float64Array.from(Float32Array.from(firstParameters(random)));
  const sequence = randomSequence(random, 40),
    whole = new LstmTrainer(parameters, 40),
    parts = new LstmTrainer(parameters, 16);
  const state = new Float64Array(2 * UNITS), other = new Float64Array(2 * UNITS);
  whole.accumulate(sequence, 0, 40, state);
  for (let from = 0; from < 40; from += 16) parts.accumulate(sequence, from, Math.min(16, 40 - from), other);
  assertEquals(parts.count, whole.count);
  assertAlmostEquals(parts.loss, whole.loss, 1e-9);
  assertEquals(other, state);
  const features = Array.from(sequence.features);
  const chances = plainLstm(
    parameters,
    Array.from({ length: 40 }, (_, i) => features.slice(i * FEATURES, (i + 1) * FEATURES)),
  );
  const expected = chances.reduce((sum, chance, i) => {
    const target = sequence.targets[i];
    return Number.isNaN(target) ? sum : sum - target * Math.log(chance) - (1 - target) * Math.log(1 - chance);
  }, 0);
  assertAlmostEquals(whole.loss, expected, 1e-9);
});

Deno.test("lstm: a few epochs learn what is there to learn", () => {
  const random = new Random(7);
  // A loss follows the deep queue of three steps before.
  const sequences = Array.from({ length: 24 }, () => {
    const steps = randomSteps(random, 60), targets = new Float32Array(60);
    for (let i = 3; i < 60; i++) targets[i] = steps[i - 3].queueUs > 50_000 ? 1 : 0;
    return { features: featuresOf(steps), targets };
  });
  const losses: number[] = [];
  trainLstm(
    sequences,
    random,
    { epochs: 40, batch: 8, steps: 20, rate: 0.02 },
    (_, loss) => losses.push(loss),
  );
  const first = losses[0], last = losses[losses.length - 1];
  assert(first > 0.6 && last < 0.5 * first, `${first} to ${last}`);
});

Deno.test("predictors: the shipped weights are those of the scores beside them", () => {
  const streams = checkStreams();
  for (const kind of ["logistic", "lstm"] as const) {
    const { prArea, prevalence } = score(streams, () => makePredictor(kind), 0.25),
      said = TRAINED.check[kind];
    assertAlmostEquals(fingerprint(makePredictor(kind)), said.fingerprint, 1e-6);
    assert(Math.abs(prArea - said.prArea) < 0.02, `${kind}: ${prArea}, not ${said.prArea}`);
    assert(prArea > 1.5 * prevalence, `${kind}: ${prArea} where ${prevalence} is no skill`);
  }
});

Deno.test("ranking: areas by hand", () => {
  const happened = [1, 0, 1, 0, 0];
  assertAlmostEquals(precisionRecallArea([5, 4, 3, 2, 1], happened), (1 + 2 / 3) / 2, 1e-12);
  assertAlmostEquals(receiverOperatingArea([5, 4, 3, 2, 1], happened), 5 / 6, 1e-12);
  assertAlmostEquals(precisionRecallArea([1, 1, 1, 1, 1], happened), 2 / 5, 1e-12);
  assertAlmostEquals(receiverOperatingArea([1, 1, 1, 1, 1], happened), 1 / 2, 1e-12);
});

Deno.test("radio traces: a packet leaves when there is room for it, and the queue ends", () => {
  // One opportunity each 10 ms, nothing else on the link, a buffer of three.
  const trace = {
    name: "even",
    opportunitiesUs: Float64Array.from({ length: 10 }, (_, i) => 10_000 * (i + 1)),
  };
  const path = new RadioPath(trace, new Random(1), 1_000, 4_500, 0);
  const delays = [1, 2, 3, 4, 20_001].map((nowUs) => path.arrivalUs(nowUs, 1500) - nowUs);
  assertEquals(delays.map((us) => us === Infinity ? us : Math.round(us / 1000)), [11, 21, 31, Infinity, 21]);
});
