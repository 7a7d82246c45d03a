/**
 * The seeded generator that tests, benches and tools draw from. Invariant: the same seed gives the same numbers on every machine.
 * Not for keys outside tests.
 */

/** Seeded generator (mulberry32): uniform u32, and helpers over it. */
export class Random {
  #state: number;
  constructor(seed: number) {
    this.#state = seed >>> 0;
  }
  u32(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  }
  /** Uniform in [0, 1). */
  real(): number {
    return this.u32() / 4294967296;
  }
  /** Randomness for one part of the whole, so that how often others are asked changes nothing for it. */
  fork(): Random {
    return new Random(this.u32());
  }
  fill(bytes: Uint8Array): void {
    for (let i = 0; i < bytes.length; i++) bytes[i] = this.u32();
  }
}
