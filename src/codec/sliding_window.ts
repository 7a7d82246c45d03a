// Hot path.
/**
 * The sliding-window random linear code of RFC 8681 over GF(2^8): a repair combines the last few sources, so it goes out
 * as soon as they have, and there is no block to fill. Both ends draw its coefficients from the same seed.
 */
import { drawTinymt32, seedTinymt32 } from "./tinymt32.ts";

/** Coefficients that are drawn at a time. */
const DRAWN = 64;
const numbers = new Uint32Array(DRAWN);

/**
 * Coefficients of the repair with `key`, 0 to 65535 (RFC 8681 §3.6 with the density threshold 15, so none is zero): `count`
 * of them at `at` in `out`.
 */
export function windowCoefficients(key: number, count: number, out: Uint8Array, at: number): void {
  seedTinymt32(key);
  let done = 0;
  while (done < count) {
    const drawn = Math.min(count - done, DRAWN);
    drawTinymt32(drawn, numbers);
    for (let i = 0; i < drawn; i++) {
      const coefficient = numbers[i] & 0xff;
      if (coefficient !== 0) out[at + done++] = coefficient;
    }
  }
}
