// Hot path.
/**
 * The flows through a tunnel, as columns that a Worker keeps to itself; both directions of one are in one row. Invariant:
 * bounded; a flow is found in one bucket of four rows, in which a new one takes the row that was longest without a
 * packet. The hash is keyed, so that nobody outside can aim at a bucket; who makes many flows still makes others'
 * be learned anew, which costs them no more than a few packets' class. Knows no packets and decides nothing.
 */

const WAYS = 4;
/** An IPv6 flow: two addresses, ports, protocol. */
export const FLOW_WORDS_MAX = 10;
export const FLOW_KEYS = 4 * FLOW_WORDS_MAX;

/** What one direction's packets have shown; control/direction.ts keeps it. */
export class FlowDirection {
  /** Time of the last packet, in microseconds modulo 2^32. */
  readonly seenUs: Uint32Array;
  /** The traffic class or TOS byte that `marks` was made from. */
  readonly tos: Uint8Array;
  /** Of `classOfMarks`, with BEGUN; 0 before the direction's first packet. */
  readonly marks: Uint8Array;
  readonly bulk: Uint8Array;
  readonly steady: Uint8Array;
  readonly media: Uint8Array;
  /** CLASS_*, as this direction alone has it since its last packet. */
  readonly trafficClass: Uint8Array;

  constructor(rows: number) {
    this.seenUs = new Uint32Array(rows);
    this.tos = new Uint8Array(rows);
    this.marks = new Uint8Array(rows);
    this.bulk = new Uint8Array(rows);
    this.steady = new Uint8Array(rows);
    this.media = new Uint8Array(rows);
    this.trafficClass = new Uint8Array(rows);
  }

  /** Forgets what is in the row. */
  clear(row: number): void {
    this.seenUs[row] = 0;
    this.tos[row] = 0;
    this.marks[row] = 0;
    this.bulk[row] = 0;
    this.steady[row] = 0;
    this.media[row] = 0;
    this.trafficClass[row] = 0;
  }
}

export class FlowTable {
  /** Whether the flow that was found last is one that has just begun; its columns are then zero. */
  isNew = false;
  /** Of packets that go into the tunnel, and of those that come out of it. */
  readonly inward: FlowDirection;
  readonly outward: FlowDirection;
  /** A hint's class, or NO_HINT; and for which version of the session's hints that holds. */
  readonly hint: Uint8Array;
  readonly hintVersion: Uint32Array;
  /** Attempts to compress that failed in a row, and packets to let pass before the next one. */
  readonly failures: Uint8Array;
  readonly pause: Uint16Array;
  readonly #tag: Uint32Array;
  readonly #keys: Uint32Array;
  readonly #shift: number;
  /** The IPv4 flow that was found last, and its row: packets come in runs. */
  readonly #last = new Uint32Array(4);
  #lastRow = -1;

  /** @param rows a power of two, 8 to 2^18. @param keys FLOW_KEYS random words, which become the table's. Secret. */
  constructor(rows: number, keys: Uint32Array) {
    if (rows < 2 * WAYS || rows > 1 << 18 || (rows & (rows - 1)) !== 0) {
      throw new RangeError(`flows: ${rows} rows are no power of two from ${2 * WAYS} to 2^18`);
    }
    if (keys.length !== FLOW_KEYS) throw new RangeError(`flows: ${keys.length} keys`);
    this.#keys = keys;
    this.#shift = 32 - Math.log2(rows / WAYS);
    this.inward = new FlowDirection(rows);
    this.outward = new FlowDirection(rows);
    this.hint = new Uint8Array(rows);
    this.hintVersion = new Uint32Array(rows);
    this.failures = new Uint8Array(rows);
    this.pause = new Uint16Array(rows);
    this.#tag = new Uint32Array(rows);
  }

  /**
   * The row of the flow that `count` words (1 to 10) name, which may be a new one; the caller sets its direction's time. Two
   * keyed sums over the words' halves, of which the high bits are pairwise independent (Dietzfelbinger 1996,
   * multiply-shift): one chooses the bucket, both together tell its flows apart.
   */
  find(words: Uint32Array, count: number, nowUs: number): number {
    const last = this.#last;
    const isIpv4 = count === 4;
    if (
      isIpv4 && this.#lastRow >= 0 && words[0] === last[0] && words[1] === last[1] && words[2] === last[2] &&
      words[3] === last[3]
    ) {
      this.isNew = false;
      return this.#lastRow;
    }
    const row = this.#look(words, count, nowUs);
    // Nobody but the flow that is found next can take its row.
    this.#lastRow = isIpv4 ? row : -1;
    for (let i = 0; isIpv4 && i < 4; i++) last[i] = words[i];
    return row;
  }

  #look(words: Uint32Array, count: number, nowUs: number): number {
    const keys = this.#keys;
    let choice = 0, mark = 0;
    for (let i = 0; i < count; i++) {
      const low = words[i] & 0xffff, high = words[i] >>> 16;
      choice = choice + Math.imul(low, keys[4 * i]) + Math.imul(high, keys[4 * i + 1]) | 0;
      mark = mark + Math.imul(low, keys[4 * i + 2]) + Math.imul(high, keys[4 * i + 3]) | 0;
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

  /** How long neither direction has had a packet, in microseconds. */
  #sinceUs(row: number, nowUs: number): number {
    const { inward, outward } = this;
    const inwardUs = inward.marks[row] === 0 ? Infinity : (nowUs - inward.seenUs[row]) >>> 0;
    const outwardUs = outward.marks[row] === 0 ? Infinity : (nowUs - outward.seenUs[row]) >>> 0;
    return inwardUs < outwardUs ? inwardUs : outwardUs;
  }

  #begin(row: number, tag: number): void {
    this.isNew = true;
    this.#tag[row] = tag;
    this.inward.clear(row);
    this.outward.clear(row);
    this.hint[row] = 0;
    this.hintVersion[row] = 0;
    this.failures[row] = 0;
    this.pause[row] = 0;
  }
}
