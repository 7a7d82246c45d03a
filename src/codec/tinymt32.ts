// Hot path.
/**
 * TinyMT32 (RFC 8682), the generator that makes both ends of a sliding-window code draw the same coefficients. Not for
 * anything that must not be guessed.
 */

const MAT1 = 0x8f7011ee | 0, MAT2 = 0xfc78ff1f | 0, TMAT = 0x3793fdff;
const WARM_UP = 8;
const state = new Int32Array(4);

/** The step of the start: what a word of the state adds to the next one, number i of all. */
function mixed(word: number, i: number): number {
  return (i + Math.imul(1812433253, word ^ (word >>> 30))) | 0;
}

/** Starts the one generator that this module has from a seed of 32 bits. In locals, since each repair has a seed of its own. */
export function seedTinymt32(seed: number): void {
  let a = seed | 0, b = MAT1, c = MAT2, d = TMAT;
  b ^= mixed(a, 1);
  c ^= mixed(b, 2);
  d ^= mixed(c, 3);
  a ^= mixed(d, 4);
  b ^= mixed(a, 5);
  c ^= mixed(b, 6);
  d ^= mixed(c, 7);
  for (let i = 0; i < WARM_UP; i++) {
    let x = (a & 0x7fffffff) ^ b ^ c;
    x ^= x << 1;
    d ^= (d >>> 1) ^ x;
    const odd = -(d & 1);
    a = b;
    b = c ^ (odd & MAT1);
    c = x ^ (d << 10) ^ (odd & MAT2);
  }
  state[0] = a;
  state[1] = b;
  state[2] = c;
  state[3] = d;
}

/** The next 32 bits. */
export function nextTinymt32(): number {
  const b = state[1], c = state[2];
  let x = (state[0] & 0x7fffffff) ^ b ^ c, d = state[3];
  x ^= x << 1;
  d ^= (d >>> 1) ^ x;
  const odd = -(d & 1);
  const last = x ^ (d << 10) ^ (odd & MAT2);
  state[0] = b;
  state[1] = c ^ (odd & MAT1);
  state[2] = last;
  state[3] = d;
  const sum = (b + (last >>> 8)) | 0;
  return (d ^ sum ^ (-(sum & 1) & TMAT)) >>> 0;
}
