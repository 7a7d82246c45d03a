// Hot path.
/**
 * The coefficients of the sliding-window random linear code of RFC 8681 over GF(2^8). A repair of this code combines the last
 * few sources and is sent as soon as they are, with no block to fill. Invariant: coefficients follow from the key alone, so
 * both ends draw the same ones. Combines nothing.
 */
import { Tinymt32 } from "./tinymt32.ts";

/** Numbers that are drawn at a time. */
const DRAWN = 64;

export class WindowCode {
  readonly #generator = new Tinymt32();
  readonly #numbers = new Uint32Array(DRAWN);

  /**
   * Writes `count` coefficients of the repair with `key`, 0 to 65535, to `out` from `at` on. None is zero, as with RFC 8681's
   * density threshold 15 (§3.6).
   */
  coefficients(key: number, count: number, out: Uint8Array, at: number): void {
    const numbers = this.#numbers;
    this.#generator.seed(key);
    let done = 0;
    while (done < count) {
      const drawn = Math.min(count - done, DRAWN);
      this.#generator.draw(drawn, numbers);
      for (let i = 0; i < drawn; i++) {
        const coefficient = numbers[i] & 0xff;
        if (coefficient !== 0) out[at + done++] = coefficient;
      }
    }
  }
}
