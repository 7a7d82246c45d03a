/**
 * The LSTM beside TensorFlow.js: the same parameters and features give the same chances there, where others wrote the cell,
 * and the same loss as in training. That the gradient is the loss's is for finite differences to say
 * (tests/unit/predictor_test.ts). By itself, with its own lock file: a relay shall not have to fetch TensorFlow.
 */
import { assertAlmostEquals } from "@std/assert";
import * as tf from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-backend-cpu";
import { crossEntropy, firstParameters, LstmTrainer } from "../../bench/training.ts";
import { GATES, INPUTS, Lstm, LstmPredictor, OUTPUT_AT, PARAMETERS, UNITS } from "../../src/repair/prediction/lstm.ts";
import { FEATURES, PathFeatures } from "../../src/repair/prediction/path_features.ts";
import { Random } from "../kit/random.ts";

const STEPS = 40;
/** Their order of gates, input, candidate, forget and output, in ours. */
const THEIR_GATES = [0, 3, 1, 2];

Deno.test("lstm: inference and training agree with TensorFlow.js", async () => {
  await tf.setBackend("cpu");
  const random = new Random(21), parameters = Float32Array.from(firstParameters(random), (x) => 2 * x);
  const predictor = new LstmPredictor(new Lstm(parameters)), reader = new PathFeatures();
  const features = new Float32Array(STEPS * FEATURES);
  const targets = Float32Array.from({ length: STEPS }, () => random.real());

  const places = Array.from(
    { length: INPUTS },
    (_, input) =>
      THEIR_GATES.flatMap((gate) =>
        Array.from({ length: UNITS }, (_, unit) => (unit * INPUTS + input) * GATES + gate)
      ),
  );
  const pick = (row: number[]) => row.map((place) => parameters[place]);
  const kernel = tf.tensor2d(places.slice(0, -1).map(pick)), bias = tf.tensor1d(pick(places[INPUTS - 1]));
  const weights = tf.tensor2d(Array.from(parameters.slice(OUTPUT_AT, -1), (weight) => [weight]));
  const noForgetBias = tf.scalar(0);
  let cell = tf.zeros([1, UNITS]) as tf.Tensor2D, hidden = tf.zeros([1, UNITS]) as tf.Tensor2D, loss = 0;
  for (let i = 0; i < STEPS; i++) {
    const judged = 1 + random.u32() % 6,
      lost = random.u32() % (judged + 1),
      queueUs = random.real() * 100_000;
    const step = {
      elapsedUs: random.real() * 100_000,
      judged,
      lost,
      runs: Math.min(1, lost),
      longestRun: lost,
      queueUs,
      queueUsMax: 1.2 * queueUs,
      jitterUs: random.real() * 5_000,
      reorderDepth: 0,
      ce: 0,
    };
    predictor.observe(step);
    reader.write(step, features, i * FEATURES);
    const seen = tf.tensor2d([Array.from(features.slice(i * FEATURES, (i + 1) * FEATURES))]);
    [cell, hidden] = tf.basicLSTMCell(noForgetBias, kernel, bias, seen, cell, hidden);
    const logOdds = tf.matMul(hidden, weights).dataSync()[0] + parameters[PARAMETERS - 1];
    assertAlmostEquals(predictor.lossAhead, tf.sigmoid(logOdds).dataSync()[0], 1e-5);
    loss += crossEntropy(logOdds, targets[i]);
  }
  const trainer = new LstmTrainer(Float64Array.from(parameters), STEPS);
  trainer.accumulate({ features, targets }, 0, STEPS, new Float64Array(2 * UNITS));
  assertAlmostEquals(trainer.loss, loss, 1e-3);
});
