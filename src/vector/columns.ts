// Hot path.
/**
 * Columns of one table that are read ahead together. A core can wait for about twenty cache lines at once, but loops that use
 * a row are too long for it to reach the next row's lines while it waits for this row's; `touch` has one short loop for each
 * column. Invariant: `touch` changes no column; rows lie within the columns. bench/sessions_bench.ts measures the gain.
 * (Prefetch instructions from native code were no faster, and some were dropped.)
 */

type Column = Uint8Array | Uint16Array | Uint32Array | Int32Array | Float64Array;

export class Columns {
  /** Views of 32-bit words for columns of any type, so that the loop is compiled for one kind of array. */
  readonly #words: Uint32Array[] = [];
  /** Shifts from a row to its first word: bits to the left, then bits to the right. */
  readonly #left: number[] = [];
  readonly #right: number[] = [];
  /** Sink of the reads, without which the compiler would remove them. */
  readonly #read = new Uint32Array(1);

  /**
   * Adds a column that begins at the first byte of its buffer.
   * @param perRow elements that a row has, a power of two.
   */
  add(column: Column, perRow = 1): this {
    this.#words.push(new Uint32Array(column.buffer, 0, column.byteLength >> 2));
    const log2 = Math.log2(column.BYTES_PER_ELEMENT * perRow);
    this.#left.push(Math.max(0, log2 - 2));
    this.#right.push(Math.max(0, 2 - log2));
    return this;
  }

  /** Reads the words of rows[0..count-1] in each column. */
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
