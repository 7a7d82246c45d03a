// Hot path.
/**
 * Systematic Reed-Solomon over GF(2^8), the code of RFC 5510 §8: shard number x of a block is the value at 2^x of the
 * polynomial of degree k - 1 that goes through the k sources, numbers 0 to k - 1. So any k shards determine all others, and
 * coefficients are Lagrange's. Invariant: nothing is computed twice for a block size.
 */
import { EXP, GROUP_ORDER, LOG } from "./gf256.ts";

/** Sources of a block. */
export const BLOCK_SOURCES_MAX = 32;
/** Shards of a block, sources and repairs. */
export const BLOCK_MAX = 64;

/** By k: the coefficients of repairs number k and on, BLOCK_MAX - k rows of k. */
const repairs: (Uint8Array | undefined)[] = [];

/**
 * Coefficients of the repair with `number`, k to BLOCK_MAX - 1, of a block of k sources, 1 to BLOCK_SOURCES_MAX: k of them
 * at `at` in `out`. False when there is no such repair.
 */
export function blockCoefficients(number: number, k: number, out: Uint8Array, at: number): boolean {
  if (!(k >= 1 && k <= BLOCK_SOURCES_MAX && number >= k && number < BLOCK_MAX)) return false;
  const all = repairs[k] ??= repairsOf(k);
  const row = (number - k) * k;
  for (let i = 0; i < k; i++) out[at + i] = all[row + i];
  return true;
}

/** Row t says how the value at 2^(k + t) is made from those at 2^0 to 2^(k - 1). */
function repairsOf(k: number): Uint8Array {
  const matrix = new Uint8Array((BLOCK_MAX - k) * k);
  for (let i = 0; i < k; i++) {
    let below = 0;
    for (let j = 0; j < k; j++) if (j !== i) below += LOG[EXP[i] ^ EXP[j]];
    for (let number = k; number < BLOCK_MAX; number++) {
      let above = 0;
      for (let j = 0; j < k; j++) if (j !== i) above += LOG[EXP[number] ^ EXP[j]];
      const logarithm = (above + GROUP_ORDER * k - below) % GROUP_ORDER;
      matrix[(number - k) * k + i] = EXP[logarithm];
    }
  }
  return matrix;
}
