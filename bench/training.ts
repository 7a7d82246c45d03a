/**
 * Learning by gradient descent for the two trained predictors: Adam (Kingma and Ba 2015), and backpropagation through time
 * for the network of src/repair/prediction/lstm.ts, in its order of parameters. Invariant: the same seed and data give the same
 * weights. Reads no data and writes no files; the relay never runs it.
 */
import { FEATURES } from "../src/repair/prediction/path_features.ts";
import { GATES, INPUTS, OUTPUT_AT, PARAMETERS, UNITS } from "../src/repair/prediction/lstm.ts";
import { normal } from "../tests/kit/channels.ts";
import type { Random } from "../tests/kit/random.ts";

const MEAN_KEEP = 0.9, SQUARE_KEEP = 0.999, EPSILON = 1e-8;
/** A gradient longer than this is shortened: one odd minibatch must not undo the rest. */
const GRADIENT_MAX = 1;

export class Adam {
  readonly #mean: Float64Array;
  readonly #square: Float64Array;
  #steps = 0;

  constructor(parameters: number) {
    this.#mean = new Float64Array(parameters);
    this.#square = new Float64Array(parameters);
  }

  /** Moves the parameters against `gradient / count` at the given rate, and zeroes the gradient. */
  step(parameters: Float64Array, gradient: Float64Array, count: number, rate: number): void {
    this.#steps++;
    let square = 0;
    for (let i = 0; i < gradient.length; i++) square += (gradient[i] / count) ** 2;
    const scale = Math.min(1, GRADIENT_MAX / Math.sqrt(square + EPSILON)) / count;
    const meanBias = 1 - MEAN_KEEP ** this.#steps, squareBias = 1 - SQUARE_KEEP ** this.#steps;
    for (let i = 0; i < gradient.length; i++) {
      const slope = gradient[i] * scale;
      this.#mean[i] += (1 - MEAN_KEEP) * (slope - this.#mean[i]);
      this.#square[i] += (1 - SQUARE_KEEP) * (slope * slope - this.#square[i]);
      parameters[i] -= rate * (this.#mean[i] / meanBias) /
        (Math.sqrt(this.#square[i] / squareBias) + EPSILON);
      gradient[i] = 0;
    }
  }
}

/** Small random weights; cells that at first forget little (Jozefowicz et al. 2015); a first guess of few losses. */
export function firstParameters(random: Random): Float64Array {
  const parameters = new Float64Array(PARAMETERS), scale = 1 / Math.sqrt(INPUTS);
  for (let i = 0; i < PARAMETERS; i++) parameters[i] = scale * normal(random);
  for (let unit = 0; unit < UNITS; unit++) {
    const bias = (unit * INPUTS + INPUTS - 1) * GATES;
    parameters.fill(0, bias, bias + GATES);
    parameters[bias + 1] = 1 + 2 * random.real();
  }
  parameters[PARAMETERS - 1] = -3;
  return parameters;
}

/** Features of one sequence, FEATURES for each step, and the share lost ahead of each, NaN where nothing was sent. */
export interface Sequence {
  features: Float32Array;
  targets: Float32Array;
}

/** Cross entropy of a chance, given as the logarithm of its odds, to the share that came true. */
export function crossEntropy(logOdds: number, target: number): number {
  return Math.max(logOdds, 0) - logOdds * target + Math.log1p(Math.exp(-Math.abs(logOdds)));
}

/** Forward and backward over pieces of sequences. */
export class LstmTrainer {
  readonly gradient = new Float64Array(PARAMETERS);
  /** Summed over the targets since `reset`. */
  loss = 0;
  count = 0;
  // For each step of a piece: inputs, gates, cells before and after (one row more), tanh of the cell, slope of the result.
  readonly #inputs: Float64Array;
  readonly #gates: Float64Array;
  readonly #cells: Float64Array;
  readonly #squashed: Float64Array;
  readonly #slopes: Float64Array;
  readonly #outputSlope = new Float64Array(UNITS);
  readonly #inputSlope = new Float64Array(INPUTS);
  readonly #cellSlope = new Float64Array(UNITS);

  constructor(readonly parameters: Float64Array, steps: number) {
    this.#inputs = new Float64Array((steps + 1) * INPUTS);
    this.#gates = new Float64Array(steps * UNITS * GATES);
    this.#cells = new Float64Array((steps + 1) * UNITS);
    this.#squashed = new Float64Array(steps * UNITS);
    this.#slopes = new Float64Array(steps);
  }

  /** Forgets loss and count, for the next minibatch. */
  reset(): void {
    this.loss = 0;
    this.count = 0;
  }

  /**
   * Takes `steps` steps of the sequence from step `from` on, beginning and ending in `state` (outputs, then cells), and
   * adds loss, count and gradient. The gradient ends where the piece begins.
   */
  accumulate({ features, targets }: Sequence, from: number, steps: number, state: Float64Array): void {
    this.#forward(features, targets, from, steps, state);
    this.#backward(steps);
  }

  #forward(
    features: Float32Array,
    targets: Float32Array,
    from: number,
    steps: number,
    state: Float64Array,
  ): void {
    const { parameters } = this, inputs = this.#inputs, gates = this.#gates, cells = this.#cells;
    for (let unit = 0; unit < UNITS; unit++) {
      inputs[FEATURES + unit] = state[unit];
      cells[unit] = state[UNITS + unit];
    }
    for (let step = 0; step < steps; step++) {
      const x = step * INPUTS, next = x + INPUTS, c = step * UNITS;
      for (let i = 0; i < FEATURES; i++) inputs[x + i] = features[(from + step) * FEATURES + i];
      inputs[next - 1] = 1;
      let logOdds = parameters[PARAMETERS - 1];
      for (let unit = 0, w = 0; unit < UNITS; unit++) {
        let input = 0, forget = 0, output = 0, candidate = 0;
        for (let i = 0; i < INPUTS; i++, w += GATES) {
          const value = inputs[x + i];
          input += value * parameters[w];
          forget += value * parameters[w + 1];
          output += value * parameters[w + 2];
          candidate += value * parameters[w + 3];
        }
        const g = (c + unit) * GATES;
        gates[g] = sigmoid(input);
        gates[g + 1] = sigmoid(forget);
        gates[g + 2] = sigmoid(output);
        gates[g + 3] = Math.tanh(candidate);
        const cell = gates[g + 1] * cells[c + unit] + gates[g] * gates[g + 3];
        cells[c + UNITS + unit] = cell;
        this.#squashed[c + unit] = Math.tanh(cell);
        const y = gates[g + 2] * this.#squashed[c + unit];
        inputs[next + FEATURES + unit] = y;
        logOdds += y * parameters[OUTPUT_AT + unit];
      }
      const target = targets[from + step];
      this.#slopes[step] = Number.isNaN(target) ? 0 : sigmoid(logOdds) - target;
      if (Number.isNaN(target)) continue;
      this.loss += crossEntropy(logOdds, target);
      this.count++;
    }
    for (let unit = 0; unit < UNITS; unit++) {
      state[unit] = inputs[steps * INPUTS + FEATURES + unit];
      state[UNITS + unit] = cells[steps * UNITS + unit];
    }
  }

  #backward(steps: number): void {
    const { parameters, gradient } = this, inputs = this.#inputs, gates = this.#gates, cells = this.#cells;
    const outputSlope = this.#outputSlope.fill(0), cellSlope = this.#cellSlope.fill(0);
    const inputSlope = this.#inputSlope;
    for (let step = steps - 1; step >= 0; step--) {
      const x = step * INPUTS, c = step * UNITS, slope = this.#slopes[step];
      gradient[PARAMETERS - 1] += slope;
      inputSlope.fill(0);
      for (let unit = 0, w = 0; unit < UNITS; unit++) {
        const g = (c + unit) * GATES, squashed = this.#squashed[c + unit];
        const input = gates[g], forget = gates[g + 1], output = gates[g + 2], candidate = gates[g + 3];
        gradient[OUTPUT_AT + unit] += slope * inputs[x + INPUTS + FEATURES + unit];
        const ofOutput = outputSlope[unit] + slope * parameters[OUTPUT_AT + unit];
        const ofCell = cellSlope[unit] + ofOutput * output * (1 - squashed * squashed);
        cellSlope[unit] = ofCell * forget;
        // Before the gates' own functions.
        const toInput = ofCell * candidate * input * (1 - input);
        const toForget = ofCell * cells[c + unit] * forget * (1 - forget);
        const toOutput = ofOutput * squashed * output * (1 - output);
        const toCandidate = ofCell * input * (1 - candidate * candidate);
        for (let i = 0; i < INPUTS; i++, w += GATES) {
          const value = inputs[x + i];
          gradient[w] += toInput * value;
          gradient[w + 1] += toForget * value;
          gradient[w + 2] += toOutput * value;
          gradient[w + 3] += toCandidate * value;
          inputSlope[i] += toInput * parameters[w] + toForget * parameters[w + 1] +
            toOutput * parameters[w + 2] + toCandidate * parameters[w + 3];
        }
      }
      for (let unit = 0; unit < UNITS; unit++) outputSlope[unit] = inputSlope[FEATURES + unit];
    }
  }
}

export interface Schedule {
  epochs: number;
  /** Sequences side by side, and steps between updates: how far back a gradient reaches. */
  batch: number;
  steps: number;
  /** Adam's rate at first; it falls to a twentieth along half a cosine. */
  rate: number;
}

/**
 * Trains the network on all sequences; `tell` is called after each group of sequences with the share done and the running mean of
 * the loss.
 */
export function trainLstm(
  sequences: readonly Sequence[],
  random: Random,
  schedule: Schedule,
  tell: (done: number, loss: number) => void,
): Float64Array {
  const { epochs, batch, steps, rate } = schedule;
  const parameters = firstParameters(random), trainer = new LstmTrainer(parameters, steps);
  const adam = new Adam(PARAMETERS), order = sequences.map((_, i) => i);
  const states = Array.from({ length: batch }, () => new Float64Array(2 * UNITS));
  let smoothed = NaN;
  for (let epoch = 0; epoch < epochs; epoch++) {
    shuffle(order, random);
    for (let first = 0; first < order.length; first += batch) {
      const group = order.slice(first, first + batch).map((i) => sequences[i]);
      const done = (epoch + first / order.length) / epochs;
      const rateNow = rate * (0.05 + 0.95 * (1 + Math.cos(Math.PI * done)) / 2);
      const longest = Math.max(...group.map(({ targets }) => targets.length));
      for (const state of states) state.fill(0);
      for (let from = 0; from < longest; from += steps) {
        trainer.reset();
        group.forEach((sequence, i) => {
          const count = Math.min(steps, sequence.targets.length - from);
          if (count > 0) trainer.accumulate(sequence, from, count, states[i]);
        });
        if (trainer.count === 0) continue;
        adam.step(parameters, trainer.gradient, trainer.count, rateNow);
        const loss = trainer.loss / trainer.count;
        smoothed = Number.isNaN(smoothed) ? loss : smoothed + (loss - smoothed) / 200;
      }
      tell(done, smoothed);
    }
  }
  return parameters;
}

/** Trains a logistic regression: `inputs` numbers for each target of a sequence; returns a weight for each, then the bias. */
export function trainLogistic(
  sequences: readonly Sequence[],
  inputs: number,
  random: Random,
  epochs: number,
  tell: (done: number, loss: number) => void,
): Float64Array {
  const weights = new Float64Array(inputs + 1), gradient = new Float64Array(inputs + 1);
  const adam = new Adam(inputs + 1), order = sequences.map((_, i) => i);
  weights[inputs] = -3;
  let loss = 0, count = 0, smoothed = NaN;
  for (let epoch = 0; epoch < epochs; epoch++) {
    shuffle(order, random);
    for (let place = 0; place < order.length; place++) {
      const { features, targets } = sequences[order[place]];
      const done = (epoch + place / order.length) / epochs;
      for (let step = 0; step < targets.length; step++) {
        if (Number.isNaN(targets[step])) continue;
        let logOdds = weights[inputs];
        for (let i = 0; i < inputs; i++) logOdds += weights[i] * features[step * inputs + i];
        const slope = sigmoid(logOdds) - targets[step];
        for (let i = 0; i < inputs; i++) gradient[i] += slope * features[step * inputs + i];
        gradient[inputs] += slope;
        loss += crossEntropy(logOdds, targets[step]);
        if (++count < 512) continue;
        smoothed = Number.isNaN(smoothed) ? loss / count : smoothed + (loss / count - smoothed) / 200;
        adam.step(weights, gradient, count, 0.02 * (1 - done) + 1e-4);
        loss = count = 0;
      }
      tell(done, smoothed);
    }
  }
  return weights;
}

/** Fisher and Yates. */
function shuffle(order: number[], random: Random): void {
  for (let i = order.length - 1; i > 0; i--) {
    const j = random.u32() % (i + 1);
    [order[i], order[j]] = [order[j], order[i]];
  }
}

function sigmoid(x: number): number {
  return 1 / (1 + Math.exp(-x));
}
