// Hot path.
/**
 * Longest-prefix match from inner addresses to small numbers (a peer, a verdict): one open-addressed hash table
 * for all prefix lengths, probed from the longest length in use to the shortest. Invariant: lookups allocate
 * nothing and cost one probe per distinct length, which is one or two for leased addresses. IPv4 lives in its
 * mapped form; a lookup of an IPv4 address matches no IPv6 prefix shorter than /96.
 */
import { NONE } from "./arena.ts";
import { tableWords } from "./memory.ts";

// An entry, 32 bytes, so that one line of the cache holds all of it: the address, the length plus one, the value.
const ENTRY_WORDS = 8;
const BITS = 4, VALUE = 5;
/** In place of the length plus one: nothing is here. */
const EMPTY = 0;

export class PrefixTable {
  #entries: Uint32Array<ArrayBuffer>;
  #mask: number;
  #count = 0;
  readonly #perLength = new Uint32Array(129);
  readonly #lengths = new Uint8Array(129); // in use, longest first
  #lengthCount = 0;
  readonly #probe = new Uint32Array(4);
  /** What `touch` read goes here, or the compiler would leave the reading out. */
  readonly #read = new Uint32Array(1);

  constructor(sizeLog2 = 6) {
    this.#entries = tableWords(ENTRY_WORDS << sizeLog2);
    this.#mask = (1 << sizeLog2) - 1;
  }

  get size(): number {
    return this.#count;
  }

  /** Sets the value of a prefix; `address` has no bits beyond it. Returns the value it replaced, or NONE. */
  set(address: Uint32Array, bits: number, value: number): number {
    if (2 * (this.#count + 1) > this.#mask + 1) this.#grow();
    const at = this.#seek(address, 0, bits);
    const entries = this.#entries;
    const before = entries[at + BITS] === EMPTY ? NONE : entries[at + VALUE];
    if (entries[at + BITS] === EMPTY) {
      this.#count++;
      entries.set(address, at);
      entries[at + BITS] = bits + 1;
      if (this.#perLength[bits]++ === 0) this.#listLengths();
    }
    entries[at + VALUE] = value;
    return before;
  }

  /** Removes a prefix; returns the value it had, or NONE. */
  delete(address: Uint32Array, bits: number): number {
    const entries = this.#entries;
    let hole = this.#seek(address, 0, bits);
    if (entries[hole + BITS] === EMPTY) return NONE;
    const value = entries[hole + VALUE];
    this.#count--;
    if (--this.#perLength[bits] === 0) this.#listLengths();
    // Backward-shift deletion keeps probe runs whole without tombstones.
    const wrap = entries.length - 1;
    for (let at = this.#after(hole); entries[at + BITS] !== EMPTY; at = this.#after(at)) {
      const home = this.#home(entries, at, entries[at + BITS] - 1);
      if (((at - home) & wrap) >= ((at - hole) & wrap)) {
        entries.copyWithin(hole, at, at + ENTRY_WORDS);
        hole = at;
      }
    }
    entries[hole + BITS] = EMPTY;
    return value;
  }

  /** The value of the longest prefix that holds the address at words[at..at+3], or NONE. */
  lookup(words: Uint32Array, at: number): number {
    const probe = this.#probe;
    const shortest = words[at] === 0 && words[at + 1] === 0 && words[at + 2] === 0xffff ? 96 : 0;
    let i = 0;
    if (this.#lengths[0] === 128 && this.#lengthCount > 0) { // leased addresses, mostly: nothing to mask
      const place = this.#seek(words, at, 128);
      if (this.#entries[place + BITS] !== EMPTY) return this.#entries[place + VALUE];
      i = 1;
    }
    for (; i < this.#lengthCount; i++) {
      const bits = this.#lengths[i];
      if (bits < shortest) break;
      for (let w = 0; w < 4; w++) {
        const keep = bits - 32 * w;
        probe[w] = keep >= 32 ? words[at + w] : keep <= 0 ? 0 : words[at + w] & ~(0xffffffff >>> keep);
      }
      const place = this.#seek(probe, 0, bits);
      if (this.#entries[place + BITS] !== EMPTY) return this.#entries[place + VALUE];
    }
    return NONE;
  }

  /** Where a lookup of the address at words[at..at+3] looks first, for `touch`; good until a prefix is set. */
  placeOf(words: Uint32Array, at: number): number {
    return this.#home(words, at, this.#lengths[0]);
  }

  /** Reads places[0..count-1] ahead of their use. */
  touch(places: Uint32Array, count: number): void {
    let read = 0;
    for (let i = 0; i < count; i++) read ^= this.#entries[places[i]];
    this.#read[0] = read;
  }

  /** First word of the entry of words[from..from+3], or of the empty place where it would go. */
  #seek(words: Uint32Array, from: number, bits: number): number {
    const entries = this.#entries;
    const a = words[from], b = words[from + 1], c = words[from + 2], d = words[from + 3];
    let at = this.#home(words, from, bits);
    while (entries[at + BITS] !== EMPTY) {
      if (
        entries[at + 3] === d && entries[at + BITS] === bits + 1 && entries[at + 2] === c &&
        entries[at + 1] === b && entries[at] === a
      ) return at;
      at = this.#after(at);
    }
    return at;
  }

  /** The entry behind the one at `at`, round the end. */
  #after(at: number): number {
    return (at + ENTRY_WORDS) & (ENTRY_WORDS * this.#mask);
  }

  #home(words: Uint32Array, at: number, bits: number): number {
    let h = Math.imul(words[at] ^ bits, 0x9e3779b1);
    h = Math.imul(h ^ words[at + 1] ^ (h >>> 15), 0x85ebca6b);
    h = Math.imul(h ^ words[at + 2] ^ (h >>> 13), 0xc2b2ae35);
    h = Math.imul(h ^ words[at + 3] ^ (h >>> 16), 0x9e3779b1);
    return ENTRY_WORDS * ((h ^ (h >>> 15)) & this.#mask);
  }

  #listLengths(): void {
    this.#lengthCount = 0;
    for (let bits = 128; bits >= 0; bits--) {
      if (this.#perLength[bits] > 0) this.#lengths[this.#lengthCount++] = bits;
    }
  }

  #grow(): void {
    const old = this.#entries;
    this.#entries = tableWords(2 * old.length);
    this.#mask = 2 * this.#mask + 1;
    for (let from = 0; from < old.length; from += ENTRY_WORDS) {
      if (old[from + BITS] === EMPTY) continue;
      for (let w = 0; w < 4; w++) this.#probe[w] = old[from + w];
      const at = this.#seek(this.#probe, 0, old[from + BITS] - 1);
      for (let w = 0; w < ENTRY_WORDS; w++) this.#entries[at + w] = old[from + w];
    }
  }
}
