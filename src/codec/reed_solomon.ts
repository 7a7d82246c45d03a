// Hot path.
/**
 * The coefficients of systematic Reed-Solomon over GF(2^8), the code of RFC 5510 §8: shard number x of a block is the value at
 * 2^x of the polynomial of degree k - 1 through the k sources, which are numbers 0 to k - 1. So any k shards determine all
 * others, and a repair's coefficients are Lagrange's. Invariant: the tables are made once and never change. Combines nothing.
 */
import { EXP, GROUP_ORDER, LOG } from "./gf256.ts";

/** Most sources of a block. */
export const BLOCK_SOURCES_MAX = 32;
/** Most shards of a block, sources and repairs. */
export const BLOCK_MAX = 64;

/** By k: the coefficients of the repairs with numbers k to BLOCK_MAX - 1, rows of k; 19 KB in all. */
const REPAIRS = Array.from({ length: BLOCK_SOURCES_MAX + 1 }, repairsOf);

/**
 * Writes the k coefficients of the repair with `number`, k to BLOCK_MAX - 1, of a block of k sources, 1 to BLOCK_SOURCES_MAX, to
 * `out` from `at` on. False when there is no such repair.
 */
export function blockCoefficients(number: number, k: number, out: Uint8Array, at: number): boolean {
  if (!(k >= 1 && k <= BLOCK_SOURCES_MAX && number >= k && number < BLOCK_MAX)) return false;
  const all = REPAIRS[k];
  const row = (number - k) * k;
  for (let i = 0; i < k; i++) out[at + i] = all[row + i];
  return true;
}

/** Row t says how the value at 2^(k + t) is made from those at 2^0 to 2^(k - 1). */
function repairsOf(_: undefined, k: number): Uint8Array {
  const matrix = new Uint8Array((BLOCK_MAX - k) * k);
  const below = new Uint16Array(k);
  for (let i = 0; i < k; i++) below[i] = logProduct(i, k);
  for (let number = k; number < BLOCK_MAX; number++) {
    const above = logProduct(number, k);
    for (let i = 0; i < k; i++) {
      const logarithm = above - LOG[EXP[number] ^ EXP[i]] + GROUP_ORDER * k - below[i];
      matrix[(number - k) * k + i] = EXP[logarithm % GROUP_ORDER];
    }
  }
  return matrix;
}

/** The logarithm, not reduced, of the product of all differences of 2^number and 2^0 to 2^(k - 1) but itself. */
function logProduct(number: number, k: number): number {
  let sum = 0;
  for (let j = 0; j < k; j++) if (j !== number) sum += LOG[EXP[number] ^ EXP[j]];
  return sum;
}
