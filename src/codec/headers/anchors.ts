// Hot path.
/**
 * Anchors of an RTP context (PROTOCOL §13): sequence numbers near the present one, by which a short packet's seven bits are
 * read. Invariant: the sender takes seven bits only where they mean the same number by the newest anchor that the other end
 * acknowledged and by each that it has sent since, so it does not matter which of them arrived; the receiver reads by the
 * newest anchor that came in a lower counter, or not at all. Both keep a fixed number.
 * Keeps PROTOCOL R118.
 */

/** Sequence numbers that seven bits tell apart: these many before the anchor, the rest behind. */
export const ANCHOR_BEFORE = 32, ANCHOR_WINDOW = 128;
/** How an RTP packet's sequence number goes: in seven bits, in twelve, or in twelve that become an anchor. */
export const SEVEN = 0, TWELVE = 1, ANCHOR = 2;

/** Anchors since the acknowledged one, this included; and that a receiver keeps. */
const SENT_MAX = 8, KEPT = 8;
/** Numbers from the acknowledged anchor to the next, and from one that is not acknowledged yet. */
const RENEW = 40, AGAIN = 8;

export class SentAnchors {
  readonly #numbers = new Uint16Array(SENT_MAX);
  #count = 0;

  /** Begins with the number of a definition's line. */
  reset(number: number): void {
    this.#numbers[0] = number;
    this.#count = 1;
  }

  /** How a packet with the number goes: SEVEN, TWELVE or ANCHOR; `add` it if it goes as an anchor. */
  formOf(number: number): number {
    const numbers = this.#numbers, count = this.#count;
    const ahead = (number - numbers[0]) << 16 >> 16;
    if (count < SENT_MAX && ahead > RENEW && (number - numbers[count - 1]) << 16 >> 16 >= AGAIN) {
      return ANCHOR;
    }
    for (let i = 0; i < count; i++) {
      if (((number - numbers[i] + ANCHOR_BEFORE) & 0xffff) >= ANCHOR_WINDOW) return TWELVE;
    }
    return SEVEN;
  }

  add(number: number): void {
    this.#numbers[this.#count++] = number;
  }

  /** The other end has the anchor whose number ends in the octet. */
  acknowledged(low: number): void {
    for (let i = 1; i < this.#count; i++) {
      if ((this.#numbers[i] & 0xff) !== low) continue;
      this.#numbers.copyWithin(0, i, this.#count);
      this.#count -= i;
      return;
    }
  }

  /** The newest that the other end is known to have. */
  get known(): number {
    return this.#numbers[0];
  }
}

export class KeptAnchors {
  readonly #numbers = new Uint16Array(KEPT);
  readonly #counters = new Float64Array(KEPT);
  #count = 0;

  /** Begins with the number of a definition's line, which came in the datagram with `counter`. */
  reset(number: number, counter: number): void {
    this.#numbers[0] = number;
    this.#counters[0] = counter;
    this.#count = 1;
  }

  /** Keeps an anchor, in place of the one with the lowest counter where there is no room. */
  add(number: number, counter: number): void {
    let at = this.#count;
    if (at === KEPT) {
      at = 0;
      for (let i = 1; i < KEPT; i++) if (this.#counters[i] < this.#counters[at]) at = i;
      if (this.#counters[at] > counter) return;
    } else this.#count++;
    this.#numbers[at] = number;
    this.#counters[at] = counter;
  }

  /** The number of the newest anchor from a lower counter; -1 without one. */
  before(counter: number): number {
    let best = -1;
    for (let i = 0; i < this.#count; i++) {
      if (this.#counters[i] < counter && (best < 0 || this.#counters[i] > this.#counters[best])) best = i;
    }
    return best < 0 ? -1 : this.#numbers[best];
  }
}
