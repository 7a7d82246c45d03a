// Hot path.
/**
 * Tells from a few bytes whether a payload looks encrypted or compressed, so that no time is spent on compressing it. Wrong now and
 * then in both directions, which costs an attempt or a gain and never a packet.
 */

const SAMPLES = 32;
/** Different bytes among 32 from which on a payload passes for encrypted or compressed. */
export const DISTINCT_MIN = 26;

/** Remembers bytes that were seen in a sample; one serves any number of samples. */
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
