// Hot path.
/**
 * Estimates from a few bytes whether a payload is encrypted or compressed, so that no attempt is made to compress it. A wrong
 * answer costs a useless attempt or a missed gain, and never a packet. Compresses nothing.
 */

const SAMPLES = 32;
/** The distinct bytes among 32 from which a payload counts as encrypted or compressed. */
export const DISTINCT_MIN = 26;

/** Counts the distinct bytes of a sample; reusable for any number of samples. */
export class EntropyTest {
  readonly #seen = new Uint32Array(256);
  #sample = 0;

  /**
   * Whether the `length` bytes at `at` look random: of 32 bytes taken at even distances, at least `distinctMin` differ.
   * Random ones have 30 on average and hardly ever less than 26; text has 17 and hardly ever more than 24.
   */
  looksRandom(bytes: Uint8Array, at: number, length: number, distinctMin: number): boolean {
    const seen = this.#seen, sample = ++this.#sample >>> 0;
    const stride = Math.max(1, Math.floor(length / SAMPLES));
    const end = Math.min(length, stride * SAMPLES);
    let distinct = 0;
    for (let i = 0; i < end; i += stride) {
      const byte = bytes[at + i];
      if (seen[byte] !== sample) {
        seen[byte] = sample;
        distinct++;
      }
    }
    return distinct >= distinctMin;
  }
}
