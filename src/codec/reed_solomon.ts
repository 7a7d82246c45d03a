// Hot path.
/**
 * Systematic Reed-Solomon over GF(2^8), the code of RFC 5510 §8: shard number x of a block is the value at 2^x of the
 * polynomial of degree k - 1 that goes through the k sources, numbers 0 to k - 1. So any k shards give all others by
 * interpolation, in one product of a matrix with shards, and encoding and decoding are the same step. Invariant: nothing
 * is allocated after the first block of a size. Knows no packets and no deadlines.
 */
import { EXP, GROUP_ORDER, LOG } from "./gf256.ts";
import type { ShardKernel } from "./kernels.ts";

/** Sources of a block. */
export const SOURCES_MAX = 64;
/** Shards of a block, sources and repairs. */
export const BLOCK_MAX = 128;

export class ReedSolomon {
  readonly #kernel: ShardKernel;
  /** By k: the coefficients of repairs number k and on, BLOCK_MAX - k rows of k. */
  readonly #repairs: (Uint8Array<ArrayBuffer> | undefined)[] = [];
  readonly #matrix = new Uint8Array(SOURCES_MAX * SOURCES_MAX);
  readonly #rows = new Uint8Array(BLOCK_MAX * SOURCES_MAX);
  readonly #numbers = new Uint8Array(BLOCK_MAX);

  constructor(kernel: ShardKernel) {
    this.#kernel = kernel;
  }

  /**
   * Writes `count` repair shards, the first of which has the number `first`, k or more. `offsets` names the k
   * sources and then the repairs in `memory`, each of `length` bytes. Throws a RangeError for what the code has not:
   * 1 to 64 sources, numbers up to 127, shards within `memory`.
   */
  encode(
    memory: Uint8Array<ArrayBuffer>,
    offsets: Uint32Array<ArrayBuffer>,
    k: number,
    first: number,
    count: number,
    length: number,
  ): void {
    if (!(k >= 1 && k <= SOURCES_MAX && first >= k && count >= 1 && first + count <= BLOCK_MAX)) {
      throw new RangeError(`Reed-Solomon: no ${count} repairs from number ${first} on for ${k} sources`);
    }
    const all = this.#repairs[k] ??= this.#repairsOf(k);
    const rows = this.#rows;
    const skip = (first - k) * k;
    for (let i = 0; i < count * k; i++) rows[i] = all[skip + i];
    this.#kernel.multiply(memory, offsets, rows, k, count, length);
  }

  /**
   * Restores sources: `numbers` has those of k different shards that are there, then those of `missing` sources; `offsets`
   * names their places in `memory` in that order. Throws as `encode`, and for a number that comes twice.
   */
  decode(
    memory: Uint8Array<ArrayBuffer>,
    offsets: Uint32Array<ArrayBuffer>,
    numbers: Uint8Array,
    k: number,
    missing: number,
    length: number,
  ): void {
    const seen = this.#numbers.fill(0);
    let isSound = k >= 1 && k <= SOURCES_MAX && missing >= 1 && missing <= k && numbers.length >= k + missing;
    for (let i = 0; isSound && i < k + missing; i++) {
      const number = numbers[i];
      isSound = number < (i < k ? BLOCK_MAX : k) && seen[number]++ === 0;
    }
    if (!isSound) throw new RangeError(`Reed-Solomon: these are not ${k} shards and ${missing} missing ones`);
    interpolate(numbers, k, missing, this.#matrix);
    this.#kernel.multiply(memory, offsets, this.#matrix, k, missing, length);
  }

  #repairsOf(k: number): Uint8Array<ArrayBuffer> {
    const numbers = this.#numbers;
    for (let i = 0; i < BLOCK_MAX; i++) numbers[i] = i;
    const matrix = new Uint8Array((BLOCK_MAX - k) * k);
    interpolate(numbers, k, BLOCK_MAX - k, matrix);
    return matrix;
  }
}

/**
 * Lagrange's coefficients: row t of `matrix`, k wide, says how the value at 2^numbers[k + t] is made from those at
 * 2^numbers[0] to 2^numbers[k - 1]. All numbers are different and below 255.
 */
function interpolate(numbers: Uint8Array, k: number, targets: number, matrix: Uint8Array): void {
  for (let i = 0; i < k; i++) {
    const x = EXP[numbers[i]];
    let below = 0;
    for (let j = 0; j < k; j++) if (j !== i) below += LOG[x ^ EXP[numbers[j]]];
    for (let t = 0; t < targets; t++) {
      const y = EXP[numbers[k + t]];
      let above = 0;
      for (let j = 0; j < k; j++) if (j !== i) above += LOG[y ^ EXP[numbers[j]]];
      matrix[t * k + i] = EXP[(above % GROUP_ORDER + GROUP_ORDER - below % GROUP_ORDER) % GROUP_ORDER];
    }
  }
}
