// Hot path.
/**
 * TinyMT32 (RFC 8682), the generator from which both ends of a sliding-window code draw the same coefficients. Invariant: the
 * numbers follow from the seed alone. Not for anything that must not be guessed.
 */

const MAT1 = 0x8f7011ee | 0, MAT2 = 0xfc78ff1f | 0, TMAT = 0x3793fdff | 0;
const WARM_UP = 8;

/** What a word of the state adds to the next one in step `i` of the seeding. */
function mixed(word: number, i: number): number {
  return (i + Math.imul(1812433253, word ^ (word >>> 30))) | 0;
}

export class Tinymt32 {
  readonly #state = new Int32Array(4);
  readonly #discarded = new Uint32Array(WARM_UP);

  /** Starts anew from a seed of 32 bits. */
  seed(seed: number): void {
    const state = this.#state;
    let a = seed | 0, b = MAT1, c = MAT2, d = TMAT;
    b ^= mixed(a, 1);
    c ^= mixed(b, 2);
    d ^= mixed(c, 3);
    a ^= mixed(d, 4);
    b ^= mixed(a, 5);
    c ^= mixed(b, 6);
    d ^= mixed(c, 7);
    state[0] = a;
    state[1] = b;
    state[2] = c;
    state[3] = d;
    this.draw(WARM_UP, this.#discarded);
  }

  /** Writes the next `count` numbers of 32 bits to the front of `out`. Meanwhile the state is in locals. */
  draw(count: number, out: Uint32Array): void {
    const state = this.#state;
    let a = state[0], b = state[1], c = state[2], d = state[3];
    for (let i = 0; i < count; i++) {
      let x = (a & 0x7fffffff) ^ b ^ c;
      x ^= x << 1;
      d ^= (d >>> 1) ^ x;
      const odd = -(d & 1);
      a = b;
      b = c ^ (odd & MAT1);
      c = x ^ (d << 10) ^ (odd & MAT2);
      const sum = (a + (c >>> 8)) | 0;
      out[i] = d ^ sum ^ (-(sum & 1) & TMAT);
    }
    state[0] = a;
    state[1] = b;
    state[2] = c;
    state[3] = d;
  }
}
