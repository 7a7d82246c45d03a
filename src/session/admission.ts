/**
 * Who may start a handshake now: the measure of load that switches cookies on, and a token bucket per source
 * address for senders that a cookie has proven. Invariant: memory is fixed, and only proven addresses touch a
 * bucket, so a spoofed source can lock nobody out.
 * Keeps PROTOCOL R12 and R88.
 */
import { isStreamAddress } from "../wire/stream.ts";

const BUCKETS = 8192;
const PROBES = 8;
const WINDOW_US = 1_000_000;

export class Admission {
  /** Tokens a second and the largest burst, per source. */
  ratePerSecond: number;
  readonly #perSecond: number;
  readonly #key = new Uint32Array(3 * BUCKETS);
  readonly #tokens = new Float64Array(BUCKETS);
  readonly #usedUs = new Float64Array(BUCKETS).fill(-Infinity);
  readonly #seed: number;
  #windowUs = -Infinity;
  #inWindow = 0;
  #loadedUntilUs = -Infinity;

  /**
   * @param perSecond initiations a second over all sources above which cookies are asked for.
   * @param ratePerSecond handshakes a second that one proven source may start.
   * @param seed random, so that nobody can choose colliding sources.
   */
  constructor(perSecond: number, ratePerSecond: number, seed: number) {
    this.#perSecond = perSecond;
    this.ratePerSecond = ratePerSecond;
    this.#seed = seed;
  }

  /** Counts one initiation with a sound MAC1 and tells whether the relay is under load. */
  isUnderLoad(nowUs: number): boolean {
    if (nowUs - this.#windowUs >= WINDOW_US || nowUs < this.#windowUs) {
      this.#windowUs = nowUs;
      this.#inWindow = 0;
    }
    if (++this.#inWindow > this.#perSecond) this.#loadedUntilUs = nowUs + WINDOW_US;
    return this.loaded(nowUs);
  }

  loaded(nowUs: number): boolean {
    return nowUs < this.#loadedUntilUs;
  }

  /** Takes a token of the source (an IPv4 address, an IPv6 /64, or a connection); false when it has none. */
  take(words: Uint32Array, at: number, nowUs: number): boolean {
    const mapped = words[at] === 0 && words[at + 1] === 0 && words[at + 2] === 0xffff;
    const a = words[at], b = words[at + 1], c = mapped || isStreamAddress(words, at) ? words[at + 3] : 0;
    let h = Math.imul(this.#seed ^ a, 0x9e3779b1);
    h = Math.imul(h ^ b ^ (h >>> 15), 0x85ebca6b);
    h = Math.imul(h ^ c ^ (h >>> 13), 0xc2b2ae35);
    h ^= h >>> 16;
    let oldest = -1;
    for (let i = 0; i < PROBES; i++) {
      const place = (h + i) & (BUCKETS - 1);
      const k = 3 * place;
      if (
        this.#usedUs[place] > -Infinity && this.#key[k] === a && this.#key[k + 1] === b &&
        this.#key[k + 2] === c
      ) {
        return this.#spend(place, nowUs);
      }
      if (oldest < 0 || this.#usedUs[place] < this.#usedUs[oldest]) oldest = place;
    }
    this.#key[3 * oldest] = a;
    this.#key[3 * oldest + 1] = b;
    this.#key[3 * oldest + 2] = c;
    this.#tokens[oldest] = this.ratePerSecond;
    this.#usedUs[oldest] = nowUs;
    return this.#spend(oldest, nowUs);
  }

  #spend(place: number, nowUs: number): boolean {
    const elapsedUs = Math.max(0, nowUs - this.#usedUs[place]);
    const tokens = Math.min(this.ratePerSecond, this.#tokens[place] + elapsedUs * this.ratePerSecond / 1e6);
    this.#usedUs[place] = nowUs;
    this.#tokens[place] = tokens >= 1 ? tokens - 1 : tokens;
    return tokens >= 1;
  }
}
