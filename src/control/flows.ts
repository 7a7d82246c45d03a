// Hot path.
/**
 * The flows through a tunnel, as columns of one Worker; both directions of a flow share a row. Invariant: memory is bounded; a
 * flow is found in one bucket of four rows, in which a new flow takes the row that was longest without a packet. The hash is
 * keyed, so that nobody outside can aim at a bucket; a flood of flows makes other flows be learned anew, which costs these the
 * class of a few packets. Knows no packets and decides nothing.
 */

import type { ClassRules } from "./class_rules.ts";
import type { Signatures } from "./signatures.ts";

const WAYS = 4;
/** An IPv6 flow: two addresses, ports, protocol. */
export const FLOW_WORDS_MAX = 10;
const ADDRESS_WORDS = 8;
export const FLOW_KEYS = 4 * FLOW_WORDS_MAX;

// The directions of a flow: a row has a place for each, 2 * row + one of these.
/** Into the tunnel, and out of it. */
export const INWARD = 0, OUTWARD = 1;

/** Bytes of a place in `state`, and which is what; control/direction.ts keeps them. */
export const STATE_BYTES = 16;
/** The traffic class or TOS byte that the marks were made from. */
export const STATE_TOS = 0;
/** Of `classOfMarks`, with BEGUN; 0 before the direction's first packet. */
export const STATE_MARKS = 1;
export const STATE_BULK = 2, STATE_STEADY = 3, STATE_MEDIA = 4;
/** CLASS_*, as this direction alone has it since its last packet. */
export const STATE_CLASS = 5;
/** Scores of full packets, and of packets ahead of a game's pace. */
export const STATE_HEAVY = 6, STATE_CROWD = 7;
/** Payloads that were looked at for patterns. */
export const STATE_LOOKS = 8;
/** How often a class by behaviour was taken back, at most FLIPS_MAX. */
export const STATE_FLIPS = 9;
/** Bytes of the last UDP payload by eight, and the score of acknowledging the other direction's data. */
export const STATE_SIZE = 10, STATE_ACKS = 11;
/** CLASS_* that its packets have, as of the last one that was looked at. */
export const STATE_DECIDED = 12;

/** Words of a place in `sources`: two RTP sources, each with its last sequence number and timestamp, the older one second. */
export const SOURCE_WORDS = 6;

/** Of the state of a flow's two directions, eight bytes in each. */
const WORDS = 2 * STATE_BYTES / 8;

export class FlowTable {
  /** Whether the flow that was found last is one that has just begun; its columns are then zero. */
  isNew = false;
  /** By place: time of the direction's last packet, in microseconds modulo 2^32. */
  readonly seenUs: Uint32Array;
  /** By place: STATE_BYTES of what its packets have shown, side by side for the cache's sake. */
  readonly state: Uint8Array;
  /** By place: SOURCE_WORDS of the RTP that its packets may be. */
  readonly sources: Uint32Array;
  /** Number in applications.ts of what the flow's bytes say that it is, and how sure that is, 0 to 4. */
  readonly application: Uint8Array;
  readonly points: Uint8Array;
  /** 1 and the class that a rule gives, or 0. */
  readonly ruled: Uint8Array;
  /** A person's own; `setRules` changes them. */
  rules: ClassRules | undefined;
  /** Patterns in place of all of the project's own (recognise.ts), where some are to be left out. */
  patterns: Signatures | undefined;
  /** A hint's class, or NO_HINT; and for which version of the session's hints that holds. */
  readonly hint: Uint8Array;
  readonly hintVersion: Uint32Array;
  /** Attempts to compress that failed in a row, and packets to let pass before the next one. */
  readonly failures: Uint8Array;
  readonly pause: Uint16Array;
  /** The state, eight bytes in each: zeros in few stores. */
  readonly #places: Float64Array;
  readonly #tag: Uint32Array;
  readonly #keys: Uint32Array;
  readonly #shift: number;
  /** Both addresses of the IPv6 flow that was looked for last, and what they add to the sums. */
  readonly #addresses = new Uint32Array(ADDRESS_WORDS);
  #choice = 0;
  #mark = 0;

  /** @param rows a power of two, 8 to 2^18. @param keys FLOW_KEYS random words, which become the table's. Secret. */
  constructor(rows: number, keys: Uint32Array) {
    if (rows < 2 * WAYS || rows > 1 << 18 || (rows & (rows - 1)) !== 0) {
      throw new RangeError(`flows: ${rows} rows are no power of two from ${2 * WAYS} to 2^18`);
    }
    if (keys.length !== FLOW_KEYS) throw new RangeError(`flows: ${keys.length} keys`);
    this.#keys = keys;
    this.#shift = 32 - Math.log2(rows / WAYS);
    this.seenUs = new Uint32Array(2 * rows);
    this.state = new Uint8Array(2 * STATE_BYTES * rows);
    this.#places = new Float64Array(this.state.buffer);
    this.sources = new Uint32Array(2 * SOURCE_WORDS * rows);
    this.application = new Uint8Array(rows);
    this.points = new Uint8Array(rows);
    this.ruled = new Uint8Array(rows);
    this.hint = new Uint8Array(rows);
    this.hintVersion = new Uint32Array(rows);
    this.failures = new Uint8Array(rows);
    this.pause = new Uint16Array(rows);
    this.#tag = new Uint32Array(rows);
    this.#keepAddresses(this.#addresses);
  }

  /** Takes rules in place of those before, for flows that are there, too: their next payloads are looked at again. */
  setRules(rules: ClassRules | undefined): void {
    this.rules = rules;
    this.ruled.fill(0);
    for (let at = STATE_LOOKS; at < this.state.length; at += STATE_BYTES) this.state[at] = 0;
  }

  /**
   * The row of the flow that `count` words (1 to 10) name, which may be a new one; the caller sets its place's time. Two
   * keyed sums over the words' halves, of which the high bits are pairwise independent (pair-multiply-shift, Thorup 2015
   * §3.4): one chooses the bucket, both together tell its flows apart.
   */
  find(words: Uint32Array, count: number, nowUs: number): number {
    const keys = this.#keys;
    let choice = 0, mark = 0, i = 0;
    if (count === FLOW_WORDS_MAX) {
      if (!this.#hasAddresses(words)) this.#keepAddresses(words);
      choice = this.#choice;
      mark = this.#mark;
      i = ADDRESS_WORDS;
    }
    for (; i < count; i++) {
      const low = words[i] & 0xffff, high = words[i] >>> 16;
      choice = choice + Math.imul(low + keys[4 * i] | 0, high + keys[4 * i + 1] | 0) | 0;
      mark = mark + Math.imul(low + keys[4 * i + 2] | 0, high + keys[4 * i + 3] | 0) | 0;
    }
    const bucket = choice >>> this.#shift << 2;
    // A row that was never used has tag 0.
    const tag = (mark & 0xffff0000 | choice >>> 16) >>> 0 || 1;
    let oldest = bucket, oldestUs = -1;
    for (let row = bucket; row < bucket + WAYS; row++) {
      if (this.#tag[row] === tag) {
        this.isNew = false;
        return row;
      }
      const sinceUs = this.#tag[row] === 0 ? Infinity : this.#sinceUs(row, nowUs);
      if (sinceUs > oldestUs) {
        oldest = row;
        oldestUs = sinceUs;
      }
    }
    this.#begin(oldest, tag);
    return oldest;
  }

  /** Whether the addresses are those of the IPv6 flow that was looked for last. */
  #hasAddresses(words: Uint32Array): boolean {
    const kept = this.#addresses;
    for (let i = 0; i < ADDRESS_WORDS; i++) if (words[i] !== kept[i]) return false;
    return true;
  }

  /** Keeps them and their part of the sums: the next packet's are mostly the same. */
  #keepAddresses(words: Uint32Array): void {
    const keys = this.#keys, kept = this.#addresses;
    let choice = 0, mark = 0;
    for (let i = 0; i < ADDRESS_WORDS; i++) {
      const word = kept[i] = words[i], low = word & 0xffff, high = word >>> 16;
      choice = choice + Math.imul(low + keys[4 * i] | 0, high + keys[4 * i + 1] | 0) | 0;
      mark = mark + Math.imul(low + keys[4 * i + 2] | 0, high + keys[4 * i + 3] | 0) | 0;
    }
    this.#choice = choice;
    this.#mark = mark;
  }

  /** How long neither direction has had a packet, in microseconds. */
  #sinceUs(row: number, nowUs: number): number {
    const { seenUs, state } = this;
    let sinceUs = Infinity;
    for (let place = 2 * row; place < 2 * row + 2; place++) {
      if (state[STATE_BYTES * place + STATE_MARKS] === 0) continue;
      sinceUs = Math.min(sinceUs, (nowUs - seenUs[place]) >>> 0);
    }
    return sinceUs;
  }

  #begin(row: number, tag: number): void {
    this.isNew = true;
    this.#tag[row] = tag;
    for (let i = 0; i < WORDS; i++) this.#places[WORDS * row + i] = 0;
    for (let i = 2 * SOURCE_WORDS * row; i < 2 * SOURCE_WORDS * (row + 1); i++) this.sources[i] = 0;
    this.application[row] = 0;
    this.points[row] = 0;
    this.ruled[row] = 0;
    this.hint[row] = 0;
    this.hintVersion[row] = 0;
    this.failures[row] = 0;
    this.pause[row] = 0;
  }
}
