// Hot path.
/**
 * A keyed bijection of 28 bits: a Feistel network of four rounds over halves of 14 bits. The bijection hides from whoever
 * sees ids which rows lie side by side. Invariant: `unscramble(scramble(x))` is x. This is no cipher: an observer of many
 * ids can compute the key, and nothing but unlinkability depends on it.
 */

const HALF_BITS = 14, HALF_MASK = (1 << HALF_BITS) - 1;
const ROUNDS = 4;
const ODD = 0x9e3779b1;

export class Scrambler {
  readonly #added = new Uint32Array(ROUNDS);
  readonly #factor = new Uint32Array(ROUNDS);

  /** @param random a fresh uniform u32 per call. */
  constructor(random: () => number) {
    for (let round = 0; round < ROUNDS; round++) {
      this.#added[round] = random();
      this.#factor[round] = random() | 1;
    }
  }

  /** @param bits 0 to 2^28 - 1. */
  scramble(bits: number): number {
    let left = bits >>> HALF_BITS, right = bits & HALF_MASK;
    for (let round = 0; round < ROUNDS; round++) {
      const mixed = left ^ this.#mix(round, right);
      left = right;
      right = mixed;
    }
    return (left << HALF_BITS) | right;
  }

  unscramble(bits: number): number {
    let left = bits >>> HALF_BITS, right = bits & HALF_MASK;
    for (let round = ROUNDS - 1; round >= 0; round--) {
      const mixed = right ^ this.#mix(round, left);
      right = left;
      left = mixed;
    }
    return (left << HALF_BITS) | right;
  }

  /** 14 bits of 14, by two multiplications with the round's key between them. */
  #mix(round: number, half: number): number {
    const once = Math.imul(half + this.#added[round] | 0, this.#factor[round]);
    return Math.imul(once ^ (once >>> 15), ODD) >>> (32 - HALF_BITS);
  }
}
