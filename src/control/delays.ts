// Hot path.
/**
 * Delays of the last half minute, for people: how many were about how long, for many subjects at once, in counts that are halved from
 * time to time so that what is past fades. Invariant: memory is fixed; a percentile is off by no more than a quarter of its value, for
 * two bounds lie in each octave. Reads no clock. Microseconds.
 */

/** Bounds from 1 us to 16 s: two in each octave. */
export const BUCKETS = 48;
const LONGEST_US = 2 ** (BUCKETS / 2) - 1;

/** Counts by bucket, as one subject's are, which can be added to those of another thread. */
export type DelayCounts = number[];

export class Delays {
  readonly #counts: Float32Array;

  /** @param subjects they are 0 to subjects - 1. */
  constructor(subjects: number) {
    this.#counts = new Float32Array(BUCKETS * subjects);
  }

  /** Counts `times` delays of so many microseconds. */
  add(subject: number, us: number, times = 1): void {
    const whole = Math.min(Math.max(1, us), LONGEST_US) | 0;
    const octave = 31 - Math.clz32(whole);
    // The bit below the highest one says which half of the octave.
    const half = octave === 0 ? 0 : whole >> octave - 1 & 1;
    this.#counts[BUCKETS * subject + 2 * octave + half] += times;
  }

  clear(subject: number): void {
    this.#counts.fill(0, BUCKETS * subject, BUCKETS * (subject + 1));
  }

  /** Halves the counts of the subject. */
  fade(subject: number): void {
    for (let at = BUCKETS * subject; at < BUCKETS * (subject + 1); at++) this.#counts[at] /= 2;
  }

  /** A copy of the subject's counts. */
  counts(subject: number): DelayCounts {
    const counts: number[] = [];
    for (let at = BUCKETS * subject; at < BUCKETS * (subject + 1); at++) counts.push(this.#counts[at]);
    return counts;
  }
}
