/**
 * `deno task train [--seed N] [--epochs N] [--streams N] [--seconds N]`: makes streams over the training paths, trains the
 * logistic regression and the LSTM on them, and writes their weights with seed, recipe and scores to
 * src/repair/prediction/weights.ts. Invariant: the same arguments write the same file. Held-out paths are for the scores
 * alone; nothing is chosen by them.
 */
import { parseArgs } from "@std/cli";
import { Lstm, LstmPredictor } from "../src/repair/prediction/lstm.ts";
import { FEATURES, PathFeatures } from "../src/repair/prediction/path_features.ts";
import { LOGISTIC_INPUTS, LogisticPredictor, type Predictor } from "../src/repair/prediction/predictor.ts";
import { Random } from "../tests/kit/random.ts";
import { HELD_OUT, makeStreams, type Stream, TRAINING } from "./predict_data.ts";
import { CHECK_BUDGET, checkStreams, fingerprint, score } from "./prediction_scores.ts";
import { type Sequence, trainLogistic, trainLstm } from "./training.ts";

const options = parseArgs(Deno.args, { string: ["seed", "epochs", "streams", "seconds"] });
const seed = Number(options.seed ?? 1), epochs = Number(options.epochs ?? 8);
const streamCount = Number(options.streams ?? 500), seconds = Number(options.seconds ?? 60);
const BATCH = 12, STEPS = 64, RATE = 0.004, LOGISTIC_EPOCHS = 8;
/** Seeds of streams that are not trained on: these, and what prediction_scores.ts uses. */
const UNSEEN_SEED = 500_000, UNSEEN_STREAMS = 10;

const started = performance.now();
const training = makeStreams(TRAINING, 1_000_000 * seed, streamCount, seconds).flatMap(({ streams }) =>
  streams
);
const steps = training.reduce((sum, stream) => sum + stream.steps.length, 0);
console.error(`${training.length} streams, ${steps} steps, ${sinceS(started)} s`);

const logistic = Float32Array.from(
  trainLogistic(
    training.map(logisticSequence),
    LOGISTIC_INPUTS,
    new Random(seed),
    LOGISTIC_EPOCHS,
    bar("logistic"),
  ),
);
const lstm = Float32Array.from(
  trainLstm(
    training.map(lstmSequence),
    new Random(seed),
    { epochs, batch: BATCH, steps: STEPS, rate: RATE },
    bar("lstm"),
  ),
);

const network = new Lstm(lstm);
const contenders: [string, () => Predictor][] = [
  ["logistic", () => new LogisticPredictor(logistic)],
  ["lstm", () => new LstmPredictor(network)],
];
const scores: Record<string, Record<string, number>> = {};
for (const kinds of [TRAINING, HELD_OUT]) {
  for (const { kind, streams } of makeStreams(kinds, UNSEEN_SEED, UNSEEN_STREAMS, seconds)) {
    const row: Record<string, number> = scores[kinds === TRAINING ? `training: ${kind}` : kind] = {};
    for (const [name, make] of contenders) row[name] = rounded(score(streams, make, CHECK_BUDGET).prArea);
  }
}
const check: Record<string, { prArea: number; fingerprint: number }> = {};
for (const [name, make] of contenders) {
  const { prArea } = score(checkStreams(), make, CHECK_BUDGET);
  check[name] = { prArea: rounded(prArea), fingerprint: fingerprint(make()) };
}
console.table(scores);

const recipe =
  `${streamCount} streams of ${seconds} s on each training path of bench/predict_data.ts, ${steps} reports; ` +
  `logistic: ${LOGISTIC_EPOCHS} epochs; LSTM: ${epochs} epochs, ${BATCH} streams side by side, gradients over ${STEPS} steps`;
const lines = [
  "/**",
  " * Weights of the trained predictors, as base64 of little-endian 32-bit floats, with where they come from and their areas",
  " * under the curve of precision over recall on unseen streams. Written by `deno task train`, not by hand.",
  " */",
  `export const TRAINED = ${JSON.stringify({ seed, recipe, scores, check }, null, 2)};`,
  `export const LOGISTIC_WEIGHTS = ${JSON.stringify(base64(logistic))};`,
  `export const LSTM_WEIGHTS = ${JSON.stringify(base64(lstm))};`,
  "",
];
Deno.writeTextFileSync(new URL("../src/repair/prediction/weights.ts", import.meta.url), lines.join("\n"));
console.error(`written after ${sinceS(started)} s; deno fmt puts its lines in order`);

function lstmSequence({ steps, lostAhead }: Stream): Sequence {
  const features = new Float32Array(steps.length * FEATURES), reader = new PathFeatures();
  steps.forEach((step, i) => reader.write(step, features, i * FEATURES));
  return { features, targets: lostAhead };
}

function logisticSequence({ steps, lostAhead }: Stream): Sequence {
  const features = new Float32Array(steps.length * LOGISTIC_INPUTS);
  const predictor = new LogisticPredictor(new Float32Array(LOGISTIC_INPUTS + 1));
  steps.forEach((step, i) => {
    predictor.observe(step);
    features.set(predictor.inputs, i * LOGISTIC_INPUTS);
  });
  return { features, targets: lostAhead };
}

/** A progress bar on stderr. */
function bar(name: string): (done: number, loss: number) => void {
  const width = 40, encoder = new TextEncoder();
  const from = performance.now();
  let drawn = -Infinity;
  return (done, loss) => {
    if (performance.now() - drawn < 200) return;
    drawn = performance.now();
    const filled = Math.round(done * width);
    const leftS = done > 0 ? Math.round((drawn - from) / 1000 * (1 - done) / done) : NaN;
    const text = `\r${name} [${"#".repeat(filled)}${"-".repeat(width - filled)}] loss ${
      loss.toFixed(4)
    }, ${leftS} s left  `;
    Deno.stderr.writeSync(encoder.encode(text));
  };
}

function base64(values: Float32Array): string {
  const view = new DataView(new ArrayBuffer(4 * values.length));
  values.forEach((value, i) => view.setFloat32(4 * i, value, true));
  return new Uint8Array(view.buffer).toBase64();
}

function rounded(value: number): number {
  return Math.round(value * 1e4) / 1e4;
}

function sinceS(since: number): string {
  return ((performance.now() - since) / 1000).toFixed(1);
}
