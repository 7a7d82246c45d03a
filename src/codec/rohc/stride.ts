/**
 * The stride of RTP's time stamps, as a compressor finds and announces it (RFC 3095 4.5.3, 5.5.1.2; RFC 4815 4): the
 * time stamp goes unscaled until three packets agree on a stride, then with the stride until the other end has surely
 * got it, then scaled. A time stamp off the line begins anew.
 */
import { ScaledTimestamp } from "./timestamp.ts";

/** Packets that have to agree on a stride. */
const AGREEING = 3;
/** Largest stride that can be sent (RFC 3095 4.5.6). */
const STRIDE_MAX = 2 ** 29;

export class StrideFinder {
  readonly scaled = new ScaledTimestamp();
  #sequence = -1;
  #timestamp = 0;
  #candidate = 0;
  #agreeing = 0;
  /** Packets that still have to carry the stride. */
  announceLeft = 0;

  /** Whether the other end is taken to know the stride, so that scaled time stamps may go. */
  get isScaled(): boolean {
    return this.scaled.stride !== 0 && this.announceLeft === 0;
  }

  /** Takes a packet's numbers; true if the scaled line began anew. `repeats` packets are to announce a new stride. */
  track(sequence: number, timestamp: number, repeats: number): boolean {
    const { scaled } = this;
    const steps = this.#sequence < 0 ? 0 : ((sequence - this.#sequence) << 16) >> 16;
    const distance = (timestamp - this.#timestamp) >>> 0;
    this.#sequence = sequence;
    this.#timestamp = timestamp;
    if (steps > 0 && distance > 0 && distance % steps === 0 && distance / steps < STRIDE_MAX) {
      const stride = distance / steps;
      this.#agreeing = stride === this.#candidate ? this.#agreeing + 1 : 1;
      this.#candidate = stride;
    }
    if (scaled.stride !== 0 && timestamp % scaled.stride === scaled.offset && !this.#isBetter()) {
      scaled.follow(timestamp);
      return false;
    }
    const hadStride = scaled.stride !== 0;
    scaled.stride = this.#agreeing >= AGREEING ? this.#candidate : hadStride ? scaled.stride : 0;
    if (scaled.stride === 0) return false;
    scaled.follow(timestamp);
    this.announceLeft = repeats;
    return true;
  }

  /** Whether another stride has shown itself for long. */
  #isBetter(): boolean {
    return this.#agreeing >= 4 * AGREEING && this.#candidate !== this.scaled.stride;
  }
}
