// Hot path.
/**
 * The byte arena that packets live in: one allocation cut into equal slots with a free stack. Invariant: a
 * slot is either on the free stack or owned by exactly one burst row (or one staged queue entry). Knows
 * nothing of what the bytes mean.
 */

/** Bytes per slot: headroom, a packet of up to 1900 bytes, and a tail for padding and tag. */
export const SLOT_BYTES = 2048;
/** Bytes kept free in front of a packet, so that a tunnel header can be put there without moving it. */
export const HEADROOM = 64;
/** Bytes kept free behind a packet: up to 15 of padding and 16 of tag, rounded up. */
export const TAILROOM = 48;
/** The longest packet or datagram that a slot takes, in bytes. */
export const MAX_PACKET_BYTES = SLOT_BYTES - HEADROOM - TAILROOM;
/** "No slot", "no session", "no peer": the one sentinel of every u32 column. */
export const NONE = 0xffffffff;

export class Arena {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly view: DataView<ArrayBuffer>;
  readonly slotCount: number;
  readonly #free: Uint32Array;
  #freeCount: number;

  /** @param slotCount number of slots, 1 to 2^20. */
  constructor(slotCount: number) {
    if (!Number.isInteger(slotCount) || slotCount < 1 || slotCount > 1 << 20) {
      throw new RangeError(`arena: slotCount must be 1 to ${1 << 20}, got ${slotCount}`);
    }
    const buffer = new ArrayBuffer(slotCount * SLOT_BYTES);
    this.bytes = new Uint8Array(buffer);
    this.view = new DataView(buffer);
    this.slotCount = slotCount;
    this.#free = new Uint32Array(slotCount);
    for (let i = 0; i < slotCount; i++) this.#free[i] = slotCount - 1 - i;
    this.#freeCount = slotCount;
  }

  /** Slots that can still be taken. */
  get free(): number {
    return this.#freeCount;
  }

  /** Takes a slot's index, or NONE when the arena is exhausted. */
  take(): number {
    return this.#freeCount === 0 ? NONE : this.#free[--this.#freeCount];
  }

  /** Takes up to `count` slots into out[at..]; returns the number taken. */
  takeInto(out: Uint32Array, at: number, count: number): number {
    const free = this.#free;
    const taken = count < this.#freeCount ? count : this.#freeCount;
    let top = this.#freeCount;
    for (let i = at; i < at + taken; i++) out[i] = free[--top];
    this.#freeCount = top;
    return taken;
  }

  /** Gives the slots in from[at..end-1] back, the last one first. The caller must own them. */
  releaseFrom(from: Uint32Array, at: number, end: number): void {
    const free = this.#free;
    let top = this.#freeCount;
    for (let i = end - 1; i >= at; i--) free[top++] = from[i];
    this.#freeCount = top;
  }

  /** Gives a slot back. The caller must own it. */
  release(slot: number): void {
    this.#free[this.#freeCount++] = slot;
  }
}

/** Where a packet put into a fresh slot begins, as an offset into the arena. */
export function packetStart(slot: number): number {
  return slot * SLOT_BYTES + HEADROOM;
}
