// Hot path.
/**
 * Arithmetic of GF(2^8) with the polynomial 0x11d and the generator 2 (RFC 5510 §8.1), and the portable kernel for linear
 * combinations of shards. Invariant: its results are those of the native kernel (native_shards.ts). Knows no codes.
 */
import { MATRIX_AT, type ShardKernel, SHARDS_MAX } from "./kernels.ts";

const POLYNOMIAL = 0x11d;
/** Number of elements other than zero. */
export const GROUP_ORDER = 255;

/** 2^i for i from 0 to 509, so that two logarithms can be added without a remainder. */
export const EXP = new Uint8Array(2 * GROUP_ORDER);
/** The logarithm of each element to the base 2; that of zero means nothing. */
export const LOG = new Uint8Array(256);

for (let i = 0, power = 1; i < GROUP_ORDER; i++) {
  EXP[i] = EXP[i + GROUP_ORDER] = power;
  LOG[power] = i;
  power <<= 1;
  if (power > 255) power ^= POLYNOMIAL;
}

/** The product of two elements. */
export function multiply(a: number, b: number): number {
  return a === 0 || b === 0 ? 0 : EXP[LOG[a] + LOG[b]];
}

/** The multiplicative inverse of an element other than zero. */
export function invert(a: number): number {
  return EXP[GROUP_ORDER - LOG[a]];
}

/** PRODUCTS[256 * a + b] is the product of a and b. */
export const PRODUCTS = new Uint8Array(65536);
for (let a = 0; a < 256; a++) {
  for (let b = 0; b < 256; b++) PRODUCTS[256 * a + b] = multiply(a, b);
}

export class PortableShardKernel implements ShardKernel {
  multiply(
    memory: Uint8Array<ArrayBuffer>,
    taskAt: number,
    inputs: number,
    outputs: number,
    length: number,
  ): void {
    checkShards(memory, taskAt, inputs, outputs, length);
    for (let output = 0; output < outputs; output++) {
      const to = shardAt(memory, taskAt, inputs + output);
      memory.fill(0, to, to + length);
      for (let input = 0; input < inputs; input++) {
        const from = shardAt(memory, taskAt, input);
        const products = 256 * memory[taskAt + MATRIX_AT + output * inputs + input];
        for (let i = 0; i < length; i++) memory[to + i] ^= PRODUCTS[products + memory[from + i]];
      }
    }
  }

  copy(
    from: Uint8Array,
    at: number,
    to: Uint8Array,
    toAt: number,
    length: number,
  ): void {
    checkCopy(from, at, to, toAt, length);
    for (let i = 0; i < length; i++) to[toAt + i] = from[at + i];
  }
}

/** First byte of a shard. */
function shardAt(memory: Uint8Array, taskAt: number, shard: number): number {
  const at = taskAt + 4 * shard;
  return (memory[at] | memory[at + 1] << 8 | memory[at + 2] << 16 | memory[at + 3] << 24) >>> 0;
}

/** Throws a RangeError for what ShardKernel.multiply does not take. */
export function checkShards(
  memory: Uint8Array,
  taskAt: number,
  inputs: number,
  outputs: number,
  length: number,
): void {
  const shards = inputs + outputs;
  const taskEnd = taskAt + MATRIX_AT + inputs * outputs;
  let isWithin = inputs > 0 && inputs <= SHARDS_MAX && outputs > 0 && outputs <= SHARDS_MAX &&
    length >= 0 && length < 65536 && taskAt >= 0 && taskEnd <= memory.length &&
    (memory.byteOffset + taskAt) % 4 === 0;
  for (let i = 0; isWithin && i < shards; i++) {
    const at = shardAt(memory, taskAt, i);
    isWithin = at + length <= memory.length && (i < inputs || at >= taskEnd || at + length <= taskAt);
  }
  if (!isWithin) throw new RangeError(`shards: ${inputs} to ${outputs} of ${length} bytes do not fit`);
}

/** Throws a RangeError for what ShardKernel.copy does not take. */
export function checkCopy(
  from: Uint8Array,
  at: number,
  to: Uint8Array,
  toAt: number,
  length: number,
): void {
  const isWithin = at >= 0 && toAt >= 0 && length >= 0 && at + length <= from.length &&
    toAt + length <= to.length;
  if (!isWithin) throw new RangeError(`shards: ${length} bytes from ${at} to ${toAt} do not fit`);
}
