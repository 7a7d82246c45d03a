// Hot path.
/**
 * A small recurrent network (LSTM, Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000) that says
 * from a path's reports how likely losses are a little later. Invariant: a step allocates nothing, and no state leaves fixed
 * bounds. The steps of all sessions that wait are computed together when one result is asked for. Learns nothing
 * (bench/train.ts does).
 */
import { FEATURES, PathFeatures } from "./path_features.ts";
import type { PathStep } from "../path_quality.ts";

export const UNITS = 16;
/** What each gate of a unit sees: the features, all units' outputs, and 1. */
export const INPUTS = FEATURES + UNITS + 1;
/** Input, forget, output gate, and the candidate. */
export const GATES = 4;
/** Of [unit][input][gate], then of the result [unit], then its bias. */
export const OUTPUT_AT = UNITS * INPUTS * GATES;
export const PARAMETERS = OUTPUT_AT + UNITS + 1;

/** Of a session's memory: features, then each unit's output, then its cell. */
const HIDDEN_AT = FEATURES, CELL_AT = FEATURES + UNITS;
const MEMORY = FEATURES + 2 * UNITS;
/** Bound of a cell's state: tanh is 1 long before. */
const CELL_MAX = 30;
/** Most sessions that wait for one computation. */
const BATCH_MAX = 256;

/** The weights, and the sessions that wait for a step, of one tunnel. */
export class Lstm {
  readonly #parameters: Float32Array;
  readonly #waiting: (LstmPredictor | undefined)[] = new Array(BATCH_MAX).fill(undefined);
  #count = 0;
  readonly #outputs = new Float32Array(UNITS);

  /** @param parameters PARAMETERS numbers in the order above; throws a RangeError for another number. */
  constructor(parameters: Float32Array) {
    if (parameters.length !== PARAMETERS) throw new RangeError(`an LSTM of ${PARAMETERS} parameters`);
    this.#parameters = parameters;
  }

  /** Takes a predictor whose memory has the features of its next step. */
  enqueue(predictor: LstmPredictor): void {
    if (this.#count === BATCH_MAX) this.run();
    this.#waiting[this.#count++] = predictor;
  }

  /** Computes one step of every session that waits. */
  run(): void {
    for (let i = 0; i < this.#count; i++) {
      const predictor = this.#waiting[i]!;
      this.#waiting[i] = undefined;
      predictor.advanced(this.#step(predictor.memory));
    }
    this.#count = 0;
  }

  /** Advances one session's memory by its features; returns the chance of a loss. */
  #step(memory: Float32Array): number {
    const parameters = this.#parameters, outputs = this.#outputs;
    let at = 0, sum = parameters[PARAMETERS - 1];
    for (let unit = 0; unit < UNITS; unit++) {
      let input = 0, forget = 0, output = 0, candidate = 0;
      for (let i = 0; i < INPUTS - 1; i++) {
        const x = memory[i];
        input += x * parameters[at];
        forget += x * parameters[at + 1];
        output += x * parameters[at + 2];
        candidate += x * parameters[at + 3];
        at += GATES;
      }
      input += parameters[at];
      forget += parameters[at + 1];
      output += parameters[at + 2];
      candidate += parameters[at + 3];
      at += GATES;
      const cell = sigmoid(forget) * memory[CELL_AT + unit] + sigmoid(input) * tanh(candidate);
      memory[CELL_AT + unit] = Math.max(-CELL_MAX, Math.min(CELL_MAX, cell));
      const y = sigmoid(output) * tanh(cell);
      outputs[unit] = y;
      sum += y * parameters[OUTPUT_AT + unit];
    }
    for (let unit = 0; unit < UNITS; unit++) memory[HIDDEN_AT + unit] = outputs[unit];
    return sigmoid(sum);
  }
}

/** One session's memory of the network: a Predictor. */
export class LstmPredictor {
  readonly memory = new Float32Array(MEMORY);
  readonly #features = new PathFeatures();
  readonly #network: Lstm;
  #isWaiting = false;
  #lossAhead = 0;

  constructor(network: Lstm) {
    this.#network = network;
  }

  observe(step: PathStep): void {
    // Steps are taken one by one: the last one's result first.
    if (this.#isWaiting) this.#network.run();
    this.#features.write(step, this.memory, 0);
    this.#isWaiting = true;
    this.#network.enqueue(this);
  }

  get lossAhead(): number {
    if (this.#isWaiting) this.#network.run();
    return this.#lossAhead;
  }

  /** Takes the result of the step. */
  advanced(lossAhead: number): void {
    this.#isWaiting = false;
    this.#lossAhead = lossAhead;
  }
}

function sigmoid(x: number): number {
  return 1 / (1 + Math.exp(-x));
}

/** By one exponential, which is what Math.tanh takes twice as long for. */
function tanh(x: number): number {
  return 2 / (1 + Math.exp(-2 * x)) - 1;
}
