// Hot path.
/**
 * Puts the packets of one flow back in order that came over several paths: what overtook waits for what is missing, a short time and
 * in a bounded number. Invariant: nothing is lost here and no packet is given out twice; packets leave in order except those
 * that come after they were given up; whoever holds the buffer owns the slots in it. Owns no slots and knows no path.
 * Nothing calls it yet: bulk takes one path until each path has a rate of its own.
 */

/** Packets that wait at most; a power of two that divides 2^16. */
export const REORDER_SLOTS = 64;
/** The longest that one waits, and its share of the paths' difference. */
const HOLD_US_MAX = 40_000, HOLD_SHARE = 1.25;
const NONE = 0xffff_ffff;
/** Sequence numbers are 16 bits; the nearer half is ahead. */
const SEQUENCES = 0x1_0000, HALF = 0x8000;

/** What `push` did. */
export const TO_GO = 0, WAITS = 1;

export class Reorder {
  /** Arena slots by sequence number modulo their count. */
  readonly #slot = new Uint32Array(REORDER_SLOTS).fill(NONE);
  readonly #length = new Uint16Array(REORDER_SLOTS);
  readonly #dueUs = new Float64Array(REORDER_SLOTS);
  #next = -1;
  #waiting = 0;
  #holdUs = HOLD_US_MAX;
  /** Bytes of the packet that `pop` gave out last. */
  length = 0;

  /** Sets how long a packet waits for what is missing before it, by how far the paths are apart. */
  setSpread(us: number): void {
    this.#holdUs = Math.max(0, Math.min(HOLD_US_MAX, HOLD_SHARE * us));
  }

  /** Packets that wait. */
  get waiting(): number {
    return this.#waiting;
  }

  /** When the first of them is given up waiting for; Infinity when none waits. */
  get dueUs(): number {
    if (this.#waiting === 0) return Infinity;
    let dueUs = Infinity;
    for (let i = 0; i < REORDER_SLOTS; i++) {
      if (this.#slot[i] !== NONE) dueUs = Math.min(dueUs, this.#dueUs[i]);
    }
    return dueUs;
  }

  /**
   * Takes a packet by its sequence number, 16 bits. TO_GO: it goes on now, before what `pop` gives out then. WAITS: its slot is
   * here. To be followed by `pop` until that is NONE. Before a sequence that is further ahead than there is room for, call `flush`
   * as long as `isFar` says so.
   */
  push(sequence: number, slot: number, length: number, nowUs: number): number {
    if (this.#next < 0) this.#next = sequence;
    const ahead = this.#ahead(sequence);
    // What was given up, or comes again: it is late and not lost.
    if (ahead >= HALF) return TO_GO;
    if (ahead === 0) {
      this.#next = (sequence + 1) % SEQUENCES;
      return TO_GO;
    }
    const at = sequence % REORDER_SLOTS;
    if (this.#slot[at] !== NONE) return TO_GO; // the same number twice
    this.#slot[at] = slot;
    this.#length[at] = length;
    this.#dueUs[at] = nowUs + this.#holdUs;
    this.#waiting++;
    return WAITS;
  }

  /** Whether this sequence number is further ahead than there is room for. */
  isFar(sequence: number): boolean {
    const ahead = this.#next < 0 ? 0 : this.#ahead(sequence);
    return ahead >= REORDER_SLOTS && ahead < HALF;
  }

  /** The slot of the next packet in order, or of the first behind what is given up by now; NONE (2^32 - 1) when all wait. */
  pop(nowUs: number): number {
    if (this.#waiting === 0) return NONE;
    if (this.#slot[this.#next % REORDER_SLOTS] === NONE && this.dueUs > nowUs) return NONE;
    return this.flush();
  }

  /** The slot of the first packet that waits, whatever is missing before it; NONE when none waits, and then the order begins anew. */
  flush(): number {
    if (this.#waiting === 0) {
      this.#next = -1;
      return NONE;
    }
    while (this.#slot[this.#next % REORDER_SLOTS] === NONE) this.#next = (this.#next + 1) % SEQUENCES;
    const at = this.#next % REORDER_SLOTS, slot = this.#slot[at];
    this.#slot[at] = NONE;
    this.length = this.#length[at];
    this.#waiting--;
    this.#next = (this.#next + 1) % SEQUENCES;
    return slot;
  }

  #ahead(sequence: number): number {
    return (sequence - this.#next + SEQUENCES) % SEQUENCES;
  }
}
