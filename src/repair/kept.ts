// Hot path.
/**
 * The marked datagrams that one end sent last, and which of them the other end has asked for again (PROTOCOL §14). Invariant:
 * memory is fixed; only what was sent to this peer, and was sent again fewer than ANSWERS_MAX times, is wanted. The packets
 * themselves are the encoder's (codec/erasure.ts); sender.ts writes the answers.
 * Keeps PROTOCOL R101 and R102.
 */
import { nextMark } from "../wire/oxtunnel.ts";

/** Datagrams that are remembered, marked ones and those of each lane: as many as the encoder has places. */
export const KEPT = 64;
/** Times that one datagram's packets are sent again on request. */
export const ANSWERS_MAX = 5;
/** A request for what was sent again so recently is a request's copy. */
const SAME_REQUEST_US = 4_000;

export class Kept {
  /** Marked datagrams so far; the n-th lies at n modulo KEPT in each column. */
  count = 0;
  readonly counters = new Float64Array(KEPT);
  readonly lengths = new Uint16Array(KEPT);
  readonly lanes = new Uint8Array(KEPT);
  readonly sentUs = new Float64Array(KEPT);
  /** Times that it was sent again, and when last. */
  readonly answers = new Uint8Array(KEPT);
  readonly answeredUs = new Float64Array(KEPT);
  /** By which place behind the named one it was asked for last. */
  readonly places = new Uint8Array(KEPT);
  /** Copies that wait to be sent. */
  readonly wanted = new Uint8Array(KEPT);
  /** Datagrams with `wanted` above 0. */
  waiting = 0;
  /** Requested datagrams that were too old, or not kept, or sent again too often. */
  refused = 0;
  #mark = 0;

  /** The mark of the datagram that was added last, 1 to MARKS; 0 before the first. */
  get mark(): number {
    return this.#mark;
  }

  /** Keeps the datagram with `counter`, whose packets the encoder has. */
  add(counter: number, length: number, lane: number, nowUs: number): void {
    const place = this.count++ % KEPT;
    this.#mark = nextMark(this.#mark);
    if (this.wanted[place] > 0) this.waiting--;
    this.counters[place] = counter;
    this.lengths[place] = length;
    this.lanes[place] = lane;
    this.sentUs[place] = nowUs;
    this.answers[place] = this.wanted[place] = 0;
    this.answeredUs[place] = -Infinity;
  }

  /** The first datagram that is still kept. */
  get oldest(): number {
    return Math.max(0, this.count - KEPT);
  }

  /** The place of the n-th datagram, which is kept. */
  placeOf(n: number): number {
    return n % KEPT;
  }

  /**
   * Takes one entry of a request: the `first`-th to (first + count - 1)-th marked datagrams behind the one whose counter ends in
   * the 16 bits `low`. Whether they are still in time is seen when they are sent.
   */
  want(low: number, first: number, count: number, nowUs: number): void {
    if (this.count === 0) return;
    const newest = this.counters[(this.count - 1) % KEPT];
    const behind = newest - (((newest % 65536) - low + 65536) % 65536);
    let n = this.count;
    while (n > this.oldest && this.counters[(n - 1) % KEPT] > behind) n--;
    // Where the one that is named is forgotten, what follows it cannot be counted.
    if (n === this.oldest && this.count > KEPT) {
      this.refused += count;
      return;
    }
    const end = Math.min(this.count, n + first - 1 + count);
    const named = n - 1;
    for (n += first - 1; n < end; n++) this.#wantOne(n % KEPT, n - named, nowUs);
  }

  #wantOne(place: number, askedAs: number, nowUs: number): void {
    if (nowUs - this.answeredUs[place] < SAME_REQUEST_US) return;
    if (this.answers[place] >= ANSWERS_MAX) {
      this.refused++;
      return;
    }
    this.places[place] = askedAs;
    if (this.wanted[place] === 0) this.waiting++;
    this.wanted[place] = Math.max(1, this.wanted[place]);
  }

  /** Notes that one copy of the datagram at `place` was sent. */
  answered(place: number, nowUs: number): void {
    this.answers[place]++;
    this.answeredUs[place] = nowUs;
    if (--this.wanted[place] === 0) this.waiting--;
  }

  /** Gives up the copies that wait at `place`. */
  refuse(place: number): void {
    if (this.wanted[place] === 0) return;
    this.wanted[place] = 0;
    this.waiting--;
    this.refused++;
  }
}

const SLOTS = 20, SLOT_US = 50_000;

/** Bytes of the last second: of protected datagrams, and of all that repairs them (PROTOCOL R102). */
export class LastSecond {
  readonly #protected = new Float64Array(SLOTS);
  readonly #spent = new Float64Array(SLOTS);
  #protectedBytes = 0;
  #spentBytes = 0;
  #slot = 0;

  protect(bytes: number, nowUs: number): void {
    this.#advance(nowUs);
    this.#protected[this.#slot % SLOTS] += bytes;
    this.#protectedBytes += bytes;
  }

  spend(bytes: number, nowUs: number): void {
    this.#advance(nowUs);
    this.#spent[this.#slot % SLOTS] += bytes;
    this.#spentBytes += bytes;
  }

  /** Whether `bytes` more stay within `share` of what was protected. */
  allows(bytes: number, share: number, nowUs: number): boolean {
    this.#advance(nowUs);
    return this.#spentBytes + bytes <= share * this.#protectedBytes;
  }

  #advance(nowUs: number): void {
    const slot = Math.floor(nowUs / SLOT_US);
    if (slot <= this.#slot) return;
    for (let i = Math.max(this.#slot + 1, slot - SLOTS + 1); i <= slot; i++) {
      const place = i % SLOTS;
      this.#protectedBytes -= this.#protected[place];
      this.#spentBytes -= this.#spent[place];
      this.#protected[place] = this.#spent[place] = 0;
    }
    this.#slot = slot;
  }
}
