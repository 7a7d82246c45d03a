// Hot path.
/**
 * The flows that packets belong to on their way into the tunnel, as columns that a Worker keeps to itself. Invariant:
 * bounded; a flow is found in one bucket of four rows, in which a new one takes the row that was longest without a
 * packet. The hash is keyed, so that nobody outside can aim at a bucket; who makes many flows still makes others'
 * be learned anew, which costs them no more than a few packets' class. Knows no packets and decides nothing.
 */

const WAYS = 4;
/** An IPv6 flow: two addresses, ports, protocol. */
export const FLOW_WORDS_MAX = 10;

export class FlowTable {
  /** Whether the flow that was found last is one that has just begun; its columns are then zero. */
  isNew = false;
  /** Time of the last packet, in microseconds modulo 2^32. */
  readonly seenUs: Uint32Array;
  /** The traffic class or TOS byte that `marks` was made from. */
  readonly tos: Uint8Array;
  /** Of `classOfMarks`. */
  readonly marks: Uint8Array;
  readonly bulk: Uint8Array;
  readonly steady: Uint8Array;
  readonly media: Uint8Array;
  /** CLASS_*, as decided with the last packet. */
  readonly trafficClass: Uint8Array;
  /** A hint's class, or NO_HINT; and for which version of the session's hints that holds. */
  readonly hint: Uint8Array;
  readonly hintVersion: Uint32Array;
  /** Attempts to compress that failed in a row, and packets to let pass before the next one. */
  readonly failures: Uint8Array;
  readonly pause: Uint16Array;
  readonly #tag: Uint32Array;
  readonly #mask: number;
  readonly #key0: number;
  readonly #key1: number;
  readonly #last = new Uint32Array(FLOW_WORDS_MAX);
  #lastCount = 0;
  #lastRow = 0;

  /** @param rows a power of two, 4 to 2^24. @param key0, key1 random words. Secret. */
  constructor(rows: number, key0: number, key1: number) {
    if (rows < WAYS || rows > 1 << 24 || (rows & (rows - 1)) !== 0) {
      throw new RangeError(`flows: ${rows} rows are no power of two from ${WAYS} to 2^24`);
    }
    this.#mask = rows - WAYS;
    this.#key0 = key0 | 0;
    this.#key1 = key1 | 0;
    this.seenUs = new Uint32Array(rows);
    this.tos = new Uint8Array(rows);
    this.marks = new Uint8Array(rows);
    this.bulk = new Uint8Array(rows);
    this.steady = new Uint8Array(rows);
    this.media = new Uint8Array(rows);
    this.trafficClass = new Uint8Array(rows);
    this.hint = new Uint8Array(rows);
    this.hintVersion = new Uint32Array(rows);
    this.failures = new Uint8Array(rows);
    this.pause = new Uint16Array(rows);
    this.#tag = new Uint32Array(rows);
  }

  /** The row of the flow that `count` words (1 to 10) name, which may be a new one; its time is set to `nowUs` by the caller. */
  find(words: Uint32Array, count: number, nowUs: number): number {
    // Packets come in runs.
    const last = this.#last;
    let same = count === this.#lastCount ? 0 : -1;
    while (same >= 0 && same < count && words[same] === last[same]) same++;
    if (same === count) {
      this.isNew = false;
      return this.#lastRow;
    }
    this.#lastCount = count;
    for (let i = 0; i < count; i++) last[i] = words[i];
    return this.#lastRow = this.#look(words, count, nowUs);
  }

  /** HalfSipHash-1-3 (Aumasson, Bernstein) over the words; the state's other half tells the flows of a bucket apart. */
  #look(words: Uint32Array, count: number, nowUs: number): number {
    let v0 = this.#key0, v1 = this.#key1, v2 = 0x6c796765 ^ v0, v3 = 0x74656462 ^ v1;
    for (let i = 0; i < count + 3; i++) {
      const word = i < count ? words[i] | 0 : 0;
      if (i === count) v2 ^= 0xff;
      v3 ^= word;
      v0 = v0 + v1 | 0;
      v1 = (v1 << 5 | v1 >>> 27) ^ v0;
      v0 = v0 << 16 | v0 >>> 16;
      v2 = v2 + v3 | 0;
      v3 = (v3 << 8 | v3 >>> 24) ^ v2;
      v0 = v0 + v3 | 0;
      v3 = (v3 << 7 | v3 >>> 25) ^ v0;
      v2 = v2 + v1 | 0;
      v1 = (v1 << 13 | v1 >>> 19) ^ v2;
      v2 = v2 << 16 | v2 >>> 16;
      v0 ^= word;
    }
    const bucket = (v1 ^ v3) & this.#mask;
    // A row that was never used has tag 0.
    const tag = (v0 ^ v2) >>> 0 || 1;
    let oldest = bucket, oldestUs = -1;
    for (let row = bucket; row < bucket + WAYS; row++) {
      if (this.#tag[row] === tag) {
        this.isNew = false;
        return row;
      }
      const sinceUs = this.#tag[row] === 0 ? Infinity : (nowUs - this.seenUs[row]) >>> 0;
      if (sinceUs > oldestUs) {
        oldest = row;
        oldestUs = sinceUs;
      }
    }
    this.#begin(oldest, tag);
    return oldest;
  }

  #begin(row: number, tag: number): void {
    this.isNew = true;
    this.#tag[row] = tag;
    this.tos[row] = 0;
    this.marks[row] = 0;
    this.bulk[row] = 0;
    this.steady[row] = 0;
    this.media[row] = 0;
    this.trafficClass[row] = 0;
    this.hint[row] = 0;
    this.hintVersion[row] = 0;
    this.failures[row] = 0;
    this.pause[row] = 0;
  }
}
