// Hot path.
/**
 * TinyMT32 (RFC 8682), the generator that makes both ends of a sliding-window code draw the same coefficients. Not for
 * anything that must not be guessed.
 */

const MAT1 = 0x8f7011ee, MAT2 = 0xfc78ff1f, TMAT = 0x3793fdff;
const WARM_UP = 8;
const state = new Uint32Array(4);

/** Starts the one generator that this module has from a seed of 32 bits. */
export function seedTinymt32(seed: number): void {
  state[0] = seed;
  state[1] = MAT1;
  state[2] = MAT2;
  state[3] = TMAT;
  for (let i = 1; i < WARM_UP; i++) {
    const last = state[(i - 1) & 3];
    state[i & 3] ^= i + Math.imul(1812433253, last ^ (last >>> 30));
  }
  for (let i = 0; i < WARM_UP; i++) step();
}

function step(): void {
  let y = state[3];
  let x = (state[0] & 0x7fffffff) ^ state[1] ^ state[2];
  x ^= x << 1;
  y ^= (y >>> 1) ^ x;
  const odd = -(y & 1);
  state[0] = state[1];
  state[1] = state[2] ^ (odd & MAT1);
  state[2] = x ^ (y << 10) ^ (odd & MAT2);
  state[3] = y;
}

/** The next 32 bits. */
export function nextTinymt32(): number {
  step();
  const sum = (state[0] + (state[2] >>> 8)) >>> 0;
  return (state[3] ^ sum ^ (-(sum & 1) & TMAT)) >>> 0;
}
