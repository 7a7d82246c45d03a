// Hot path.
/**
 * Columns of one table that are read ahead together. A core waits for a score of lines of memory at once, but the loops
 * that use them are too long for it to see the next row's while it waits for this one's; `touch` has one short loop for
 * each column. Invariant: it changes nothing; rows lie within the columns. What it saves is measured in
 * bench/sessions_bench.ts. (Instructions that prefetch, from native code, were no faster, and some were dropped.)
 */

type Column = Uint8Array | Uint16Array | Uint32Array | Int32Array | Float64Array;

export class Columns {
  /** All as words, whatever they are, so that the loop is compiled for one kind. */
  readonly #words: Uint32Array[] = [];
  /** From a row to its first word: so many bits to the left, then so many to the right. */
  readonly #left: number[] = [];
  readonly #right: number[] = [];
  /** What was read goes here, or the compiler would leave the reading out. */
  readonly #read = new Uint32Array(1);

  /**
   * Adds a column, whose first byte is its buffer's.
   * @param perRow elements that a row has, a power of two.
   */
  add(column: Column, perRow = 1): this {
    this.#words.push(new Uint32Array(column.buffer, 0, column.byteLength >> 2));
    const log2 = Math.log2(column.BYTES_PER_ELEMENT * perRow);
    this.#left.push(Math.max(0, log2 - 2));
    this.#right.push(Math.max(0, 2 - log2));
    return this;
  }

  /** Reads what rows[0..count-1] have in each column. */
  touch(rows: Uint32Array, count: number): void {
    let read = 0;
    for (let i = 0; i < this.#words.length; i++) {
      read ^= touchWords(this.#words[i], rows, count, this.#left[i], this.#right[i]);
    }
    this.#read[0] = read;
  }
}

function touchWords(
  words: Uint32Array,
  rows: Uint32Array,
  count: number,
  left: number,
  right: number,
): number {
  let read = 0;
  for (let i = 0; i < count; i++) read ^= words[(rows[i] << left) >>> right];
  return read;
}
