// Hot path.
/**
 * Longest-prefix match from inner addresses to small numbers (a peer, a verdict): one open-addressed hash table
 * for all prefix lengths, probed from the longest length in use to the shortest. Invariant: lookups allocate
 * nothing and cost one probe per distinct length, which is one or two for leased addresses. IPv4 lives in its
 * mapped form; a lookup of an IPv4 address matches no IPv6 prefix shorter than /96.
 */
import { NONE } from "../vector/arena.ts";

const EMPTY = 255;

export class PrefixTable {
  #keys: Uint32Array; // four words an entry
  #bits: Uint8Array; // prefix length, or EMPTY
  #values: Uint32Array;
  #mask: number;
  #count = 0;
  readonly #perLength = new Uint32Array(129);
  readonly #lengths = new Uint8Array(129); // in use, longest first
  #lengthCount = 0;
  readonly #probe = new Uint32Array(4);

  constructor(sizeLog2 = 6) {
    const size = 1 << sizeLog2;
    this.#keys = new Uint32Array(4 * size);
    this.#bits = new Uint8Array(size).fill(EMPTY);
    this.#values = new Uint32Array(size);
    this.#mask = size - 1;
  }

  get size(): number {
    return this.#count;
  }

  /** Sets the value of a prefix; `address` has no bits beyond it. Returns the value it replaced, or NONE. */
  set(address: Uint32Array, bits: number, value: number): number {
    if (2 * (this.#count + 1) > this.#mask + 1) this.#grow();
    const at = this.#seek(address, bits);
    const before = this.#bits[at] === EMPTY ? NONE : this.#values[at];
    if (this.#bits[at] === EMPTY) {
      this.#count++;
      this.#keys.set(address, 4 * at);
      this.#bits[at] = bits;
      if (this.#perLength[bits]++ === 0) this.#listLengths();
    }
    this.#values[at] = value;
    return before;
  }

  /** Removes a prefix; returns the value it had, or NONE. */
  delete(address: Uint32Array, bits: number): number {
    let hole = this.#seek(address, bits);
    if (this.#bits[hole] === EMPTY) return NONE;
    const value = this.#values[hole];
    this.#count--;
    if (--this.#perLength[bits] === 0) this.#listLengths();
    // Backward-shift deletion keeps probe runs whole without tombstones.
    for (let at = (hole + 1) & this.#mask; this.#bits[at] !== EMPTY; at = (at + 1) & this.#mask) {
      const home = this.#home(this.#keys, 4 * at, this.#bits[at]);
      if (((at - home) & this.#mask) >= ((at - hole) & this.#mask)) {
        this.#keys.copyWithin(4 * hole, 4 * at, 4 * at + 4);
        this.#bits[hole] = this.#bits[at];
        this.#values[hole] = this.#values[at];
        hole = at;
      }
    }
    this.#bits[hole] = EMPTY;
    return value;
  }

  /** The value of the longest prefix that holds the address at words[at..at+3], or NONE. */
  lookup(words: Uint32Array, at: number): number {
    const probe = this.#probe;
    const shortest = words[at] === 0 && words[at + 1] === 0 && words[at + 2] === 0xffff ? 96 : 0;
    for (let i = 0; i < this.#lengthCount; i++) {
      const bits = this.#lengths[i];
      if (bits < shortest) break;
      for (let w = 0; w < 4; w++) {
        const keep = bits - 32 * w;
        probe[w] = keep >= 32 ? words[at + w] : keep <= 0 ? 0 : words[at + w] & ~(0xffffffff >>> keep);
      }
      const place = this.#seek(probe, bits);
      if (this.#bits[place] !== EMPTY) return this.#values[place];
    }
    return NONE;
  }

  /** Place of the entry, or of the empty place where it would go. */
  #seek(address: Uint32Array, bits: number): number {
    const keys = this.#keys;
    let at = this.#home(address, 0, bits);
    while (this.#bits[at] !== EMPTY) {
      const k = 4 * at;
      if (
        this.#bits[at] === bits && keys[k + 3] === address[3] && keys[k + 2] === address[2] &&
        keys[k + 1] === address[1] && keys[k] === address[0]
      ) return at;
      at = (at + 1) & this.#mask;
    }
    return at;
  }

  #home(words: Uint32Array, at: number, bits: number): number {
    let h = Math.imul(words[at] ^ bits, 0x9e3779b1);
    h = Math.imul(h ^ words[at + 1] ^ (h >>> 15), 0x85ebca6b);
    h = Math.imul(h ^ words[at + 2] ^ (h >>> 13), 0xc2b2ae35);
    h = Math.imul(h ^ words[at + 3] ^ (h >>> 16), 0x9e3779b1);
    return (h ^ (h >>> 15)) & this.#mask;
  }

  #listLengths(): void {
    this.#lengthCount = 0;
    for (let bits = 128; bits >= 0; bits--) {
      if (this.#perLength[bits] > 0) this.#lengths[this.#lengthCount++] = bits;
    }
  }

  #grow(): void {
    const keys = this.#keys, bits = this.#bits, values = this.#values;
    const size = 2 * (this.#mask + 1);
    this.#keys = new Uint32Array(4 * size);
    this.#bits = new Uint8Array(size).fill(EMPTY);
    this.#values = new Uint32Array(size);
    this.#mask = size - 1;
    for (let i = 0; i < bits.length; i++) {
      if (bits[i] === EMPTY) continue;
      for (let w = 0; w < 4; w++) this.#probe[w] = keys[4 * i + w];
      const at = this.#seek(this.#probe, bits[i]);
      this.#keys.set(this.#probe, 4 * at);
      this.#bits[at] = bits[i];
      this.#values[at] = values[i];
    }
  }
}
