// Hot path.
/**
 * Anti-replay windows, one per session row: a ring of bits after RFC 6479. Invariant: a counter is accepted at
 * most once, and never when it lies more than WINDOW_PACKETS behind the highest accepted one. Only counters of
 * authentic packets may be shown to it.
 * Keeps PROTOCOL R15.
 */
import { tableWords } from "../vector/memory.ts";

const WORDS = 512;
const WORD_MASK = WORDS - 1;
/** Counters that may arrive late: one word of the ring is always being reused. */
export const WINDOW_PACKETS = (WORDS - 1) * 32;

export class ReplayWindows {
  /** Highest counter accepted, per row; -1 before the first. */
  readonly highest: Float64Array;
  /** Counters up to the highest that were not accepted, per row: rarely another number than before, so rarely touched. */
  readonly #missing: Float64Array;
  readonly #bits: Uint32Array<ArrayBuffer>;
  /** What `touch` read goes here, or the compiler would leave the reading out. */
  readonly #read = new Uint32Array(1);

  /** @param rows session rows; the bitmaps take 2 KB a row, which the system commits only when touched. */
  constructor(rows: number) {
    this.highest = new Float64Array(rows).fill(-1);
    this.#missing = new Float64Array(rows);
    this.#bits = tableWords(rows * WORDS);
  }

  /** Forgets a row's history, for a new key. */
  reset(row: number): void {
    this.highest[row] = -1;
    this.#missing[row] = 0;
    this.#bits.fill(0, row * WORDS, (row + 1) * WORDS);
  }

  /** Packets accepted. */
  accepted(row: number): number {
    return this.highest[row] + 1 - this.#missing[row];
  }

  /**
   * Writes which counters below the highest were seen: bit i of out[0..bytes-1], least significant first, is counter
   * highest − 1 − i, and 0 where there is none.
   */
  bitmap(row: number, out: Uint8Array, bytes: number): void {
    const base = row * WORDS;
    let counter = this.highest[row] - 1;
    for (let i = 0; i < bytes; i++) {
      let byte = 0;
      for (let bit = 0; bit < 8 && counter >= 0; bit++, counter--) {
        const word = this.#bits[base + ((counter >>> 5) & WORD_MASK)];
        byte |= ((word >>> (counter & 31)) & 1) << bit;
      }
      out[i] = byte;
    }
  }

  /** Whether the counter was accepted, or is older than is remembered. */
  hasSeen(row: number, counter: number): boolean {
    const highest = this.highest[row];
    if (counter > highest) return false;
    if (highest - counter > WINDOW_PACKETS) return true;
    return (this.#bits[row * WORDS + ((counter >>> 5) & WORD_MASK)] & 1 << (counter & 31)) !== 0;
  }

  /** Reads, ahead of their use, the words that the rows' next counters are likely to want. */
  touch(rows: Uint32Array, count: number): void {
    let read = 0;
    for (let i = 0; i < count; i++) {
      read ^= this.#bits[rows[i] * WORDS + ((this.highest[rows[i]] >>> 5) & WORD_MASK)];
    }
    this.#read[0] = read;
  }

  /** Marks `counter` (an integer, 0 to 2^53 - 1) as seen; false when it was seen before or is too old. */
  accept(row: number, counter: number): boolean {
    const bits = this.#bits;
    const base = row * WORDS;
    const highest = this.highest[row];
    // ToUint32 keeps the low 32 bits, which is all that a ring of 2^14 places needs.
    const at = base + ((counter >>> 5) & WORD_MASK);
    const bit = 1 << (counter & 31);
    if (counter === highest + 1) { // mostly: nothing is lost and nothing comes late
      this.highest[row] = counter;
      bits[at] = bit === 1 ? 1 : bits[at] | bit; // the first of a word clears what the ring held there
      return true;
    }
    const isLate = counter < highest;
    if (counter > highest) {
      const last = Math.floor(highest / 32);
      const ahead = Math.floor(counter / 32) - last;
      const clear = ahead > WORDS ? WORDS : ahead;
      for (let i = 1; i <= clear; i++) bits[base + ((last + i) & WORD_MASK)] = 0;
      this.highest[row] = counter;
    } else if (highest - counter > WINDOW_PACKETS) {
      return false;
    }
    if ((bits[at] & bit) !== 0) return false;
    bits[at] |= bit;
    if (isLate) this.#missing[row]--;
    else if (counter > highest + 1) this.#missing[row] += counter - highest - 1;
    return true;
  }
}
