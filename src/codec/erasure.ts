// Hot path.
/**
 * Repair symbols, which are linear combinations of source symbols over GF(2^8): made, and solved for lost sources. The codes
 * differ in their coefficients alone (sliding_window.ts, reed_solomon.ts). Invariant: memory is fixed when an end is made,
 * whatever the other end sends; a recovered symbol is the one that was sent, unless the other end sent wrong repairs. Numbers
 * of sources are any growing integers. Knows no packets and no deadlines.
 * Keeps PROTOCOL R90.
 */
import { invert, multiply, PRODUCTS } from "./gf256.ts";
import { MATRIX_AT, type ShardKernel } from "./kernels.ts";
import { blockCoefficients } from "./reed_solomon.ts";
import { WindowCode } from "./sliding_window.ts";

/** Most sources that one repair combines. */
export const SOURCES_MAX = 32;
/** Most repairs that wait for sources that they lack. */
const REPAIRS_MAX = 32;
/** Most unknown sources of all waiting repairs that are solved for together. */
const UNKNOWN_MAX = 128;
/** Most eliminations in one call: each takes up to 0.15 ms when all repairs wait. */
const PASSES_MAX = 4;
/** Places for sources, a power of two; one is free, the others hold the last sources. */
const PLACES = 64;
/** How far back from the newest it is remembered which numbers are known, a power of two: as far as a repair can name. */
const REACH = 512;
/** The place of a source whose bytes are not kept. */
const NOWHERE = 255;

/** A repair of the sliding-window code: `index` is its key, 0 to 65535. */
export const CODE_WINDOW = 0;
/** A repair of a block of Reed-Solomon: `index` is its number in the block. */
export const CODE_BLOCK = 1;

/**
 * What both ends keep: the bytes of the last sources, each with zeros up to the stride, and, further back, which numbers are
 * known. Numbers may have gaps of any size, so a source takes the place of the oldest, and a table finds it. After the places
 * for sources, the memory has `extra` places for repairs, and the kernel's task.
 */
class Sources {
  readonly kernel: ShardKernel;
  readonly memory: Uint8Array<ArrayBuffer>;
  readonly stride: number;
  readonly taskAt: number;
  readonly offsets: Uint32Array<ArrayBuffer>;
  /** Bytes of the source in each place. */
  readonly length = new Uint16Array(PLACES);
  /** The free place, which the next source takes. */
  free = 0;
  newest = -1;
  readonly #window = new WindowCode();
  /** By number modulo REACH: the number of the entry, and the place of its bytes. */
  readonly #number = new Float64Array(REACH).fill(-1);
  readonly #place = new Uint8Array(REACH);
  readonly #numberIn = new Float64Array(PLACES).fill(-1);

  /** @param extra places for repairs. @param inputsMax most shards that are combined at once. */
  constructor(kernel: ShardKernel, extra: number, stride: number, inputsMax: number) {
    this.kernel = kernel;
    this.stride = stride;
    this.taskAt = ((PLACES + extra) * stride + 3) & ~3;
    this.memory = new Uint8Array(this.taskAt + MATRIX_AT + inputsMax);
    this.offsets = new Uint32Array(this.memory.buffer, this.taskAt, inputsMax + 1);
  }

  /** Whether the source arrived or was brought back, as far as that is remembered. */
  isKnown(number: number): boolean {
    return number >= 0 && this.#number[number & (REACH - 1)] === number;
  }

  /** Whether the source's bytes are kept. */
  has(number: number): boolean {
    return this.isKnown(number) && this.#place[number & (REACH - 1)] !== NOWHERE;
  }

  /** Whether the number is not too old to be remembered. */
  isInReach(number: number): boolean {
    return number >= 0 && number > this.newest - REACH;
  }

  /** The place of a source that is here. */
  place(number: number): number {
    return this.#place[number & (REACH - 1)];
  }

  /** Keeps a source's bytes; false when the source is known, too old or too long. */
  add(number: number, bytes: Uint8Array, at: number, length: number): boolean {
    if (!this.isInReach(number) || this.isKnown(number)) return false;
    if (length > this.stride) {
      this.#note(number, NOWHERE);
      return false;
    }
    this.kernel.copy(bytes, at, this.memory, this.claim(number, length) * this.stride, length);
    return true;
  }

  /** Gives a source in reach the free place; the caller writes the first `length` bytes, the rest are zeros. */
  claim(number: number, length: number): number {
    const place = this.free;
    this.clear(place * this.stride, length, this.length[place]);
    this.length[place] = length;
    this.#numberIn[place] = number;
    this.#note(number, place);
    this.free = (place + 1) & (PLACES - 1);
    const forgotten = this.#numberIn[this.free];
    if (this.has(forgotten)) this.#place[forgotten & (REACH - 1)] = NOWHERE;
    return place;
  }

  #note(number: number, place: number): void {
    this.#number[number & (REACH - 1)] = number;
    this.#place[number & (REACH - 1)] = place;
    if (number > this.newest) this.newest = number;
  }

  /** Writes zeros after the first `length` bytes at `to`, up to `before` bytes. */
  clear(to: number, length: number, before: number): void {
    if (length < before) this.memory.fill(0, to + length, to + before);
  }

  /** Writes the coefficients of a repair's `count` sources to `out` from `at` on; false when the code has no such repair. */
  coefficients(code: number, index: number, count: number, out: Uint8Array, at: number): boolean {
    if (code === CODE_BLOCK) return blockCoefficients(index, count, out, at);
    this.#window.coefficients(index, count, out, at);
    return true;
  }

  /** Writes the output at `to` from the inputs whose offsets and coefficients are in the task. */
  multiply(inputs: number, to: number, length: number): void {
    this.offsets[inputs] = to;
    this.kernel.multiply(this.memory, this.taskAt, inputs, 1, length);
  }
}

/** The sending end: keeps the last sources and combines them. */
export class RepairEncoder {
  readonly #sources: Sources;

  /** @param stride the longest symbol, bytes, 1 to 65535. */
  constructor(kernel: ShardKernel, stride: number) {
    this.#sources = new Sources(kernel, 1, stride, SOURCES_MAX);
  }

  /** Keeps a source symbol; false when it is longer than the stride or its number is no longer new. */
  add(number: number, bytes: Uint8Array, at: number, length: number): boolean {
    return this.#sources.add(number, bytes, at, length);
  }

  /**
   * Makes the repair symbol `index` of the code from the sources `numbers[0]` to `numbers[count - 1]` and keeps it for
   * `take`. Returns its length, the longest source's, or 0 when one of them is not kept, there are none or more than
   * SOURCES_MAX, or the code has no such repair.
   */
  combine(code: number, index: number, numbers: Float64Array, count: number): number {
    const sources = this.#sources;
    const { memory, stride, offsets, taskAt } = sources;
    if (count < 1 || count > SOURCES_MAX) return 0;
    let length = 0;
    for (let i = 0; i < count; i++) {
      if (!sources.has(numbers[i])) return 0;
      const place = sources.place(numbers[i]);
      offsets[i] = place * stride;
      length = Math.max(length, sources.length[place]);
    }
    if (!sources.coefficients(code, index, count, memory, taskAt + MATRIX_AT)) return 0;
    sources.multiply(count, PLACES * stride, length);
    return length;
  }

  /** Copies the first `length` bytes of the symbol that was made last. */
  take(length: number, out: Uint8Array, at: number): void {
    const { kernel, memory, stride } = this.#sources;
    kernel.copy(memory, PLACES * stride, out, at, length);
  }
}

/** The receiving end: keeps what arrived, and solves for lost sources. */
export class RepairDecoder {
  readonly #sources: Sources;
  // Repairs that wait, in places of their own after the sources'; count 0 is a free place.
  readonly #count = new Uint8Array(REPAIRS_MAX);
  readonly #length = new Uint16Array(REPAIRS_MAX);
  readonly #numbers = new Float64Array(REPAIRS_MAX * SOURCES_MAX);
  readonly #coefficients = new Uint8Array(REPAIRS_MAX * SOURCES_MAX);
  #oldest = 0;
  readonly #floor: number;
  // The system: a row a repair, a column an unknown source, and what combination of repairs the row has become. Where each
  // repair's sources were when it was made, and which places that are.
  readonly #rows = new Uint8Array(REPAIRS_MAX);
  readonly #unknown = new Float64Array(UNKNOWN_MAX);
  readonly #column = new Uint8Array(REACH);
  readonly #system = new Uint8Array(REPAIRS_MAX * UNKNOWN_MAX);
  readonly #combined = new Uint8Array(REPAIRS_MAX * REPAIRS_MAX);
  readonly #places = new Uint8Array(REPAIRS_MAX * SOURCES_MAX);
  readonly #isUsed = new Uint8Array(PLACES);
  readonly #weights = new Uint8Array(PLACES);
  #unknowns = 0;
  /** By number modulo REACH: whether a repair lacks it, or one that shares its entry. */
  readonly #isLacked = new Uint8Array(REACH);
  /** Repairs that still lacked something when they were last looked at. */
  waiting = 0;
  /** Whether nothing can be solved for until a repair arrives, or a source that a repair lacks. */
  isDone = true;
  /** Repairs whose sources are all known, less those that were used to solve for them: repairs that were not needed. */
  notNeeded = 0;
  /** Sources that the last `solve` brought back. */
  readonly recovered = new Float64Array(REPAIRS_MAX);

  /**
   * @param stride as the encoder's.
   * @param first the first source that is added when it arrives: of those before it, it is unknown whether they arrived.
   */
  constructor(kernel: ShardKernel, stride: number, first = 0) {
    this.#sources = new Sources(kernel, REPAIRS_MAX, stride, PLACES + REPAIRS_MAX);
    this.#floor = first;
  }

  get memory(): Uint8Array<ArrayBuffer> {
    return this.#sources.memory;
  }

  /** First byte in `memory` of a source that is kept. */
  placeOf(number: number): number {
    return this.#sources.place(number) * this.#sources.stride;
  }

  /** Bytes of a source that is kept; of a recovered one, bytes of the longest repair that it was made of. */
  lengthOf(number: number): number {
    return this.#sources.length[this.#sources.place(number)];
  }

  /** Whether the bytes of a source are here. */
  has(number: number): boolean {
    return this.#sources.has(number);
  }

  /** Takes a source that arrived; false when it is known already, or too old. */
  add(number: number, bytes: Uint8Array, at: number, length: number): boolean {
    if (!this.#sources.add(number, bytes, at, length)) return false;
    if (this.#isLacked[number & (REACH - 1)] !== 0) {
      this.#isLacked[number & (REACH - 1)] = 0;
      this.isDone = false;
    }
    return true;
  }

  /**
   * Takes the repair symbol `index` of the code for the sources `numbers`, in growing order. False when it is of no use: all
   * sources are known, one is out of reach, or sources, index or length are impossible. The oldest waiting repair makes room.
   */
  addRepair(
    code: number,
    index: number,
    numbers: Float64Array,
    count: number,
    bytes: Uint8Array,
    at: number,
    length: number,
  ): boolean {
    const sources = this.#sources, { stride } = sources;
    if (count < 1 || count > SOURCES_MAX || length < 1 || length > stride) return false;
    const newest = Math.max(sources.newest, numbers[count - 1]);
    if (!(numbers[0] >= this.#floor && numbers[0] > newest - REACH)) return false;
    let isNew = false;
    for (let i = 0; i < count; i++) {
      const number = numbers[i];
      if (i > 0 && !(number > numbers[i - 1])) return false;
      if (sources.has(number)) continue;
      if (sources.isKnown(number)) return false; // The source arrived, but its bytes are no longer kept.
      isNew = true;
    }
    if (!isNew) {
      this.notNeeded++;
      return false;
    }
    const place = this.#oldest, first = place * SOURCES_MAX;
    if (!sources.coefficients(code, index, count, this.#coefficients, first)) return false;
    this.#oldest = (place + 1) % REPAIRS_MAX;
    this.#count[place] = count;
    for (let i = 0; i < count; i++) {
      this.#numbers[first + i] = numbers[i];
      if (!sources.has(numbers[i])) this.#isLacked[numbers[i] & (REACH - 1)] = 1;
    }
    this.isDone = false;
    const to = (PLACES + place) * stride;
    sources.kernel.copy(bytes, at, sources.memory, to, length);
    sources.clear(to, length, this.#length[place]);
    this.#length[place] = length;
    return true;
  }

  /**
   * Solves for the sources that the last `rowsMax` waiting repairs determine; returns how many, with their numbers in
   * `recovered`. `isDone` says whether these are all that can be solved for now.
   */
  solve(rowsMax = REPAIRS_MAX): number {
    let found = 0, isSettled = false;
    for (let pass = 0; pass < PASSES_MAX && !isSettled; pass++) {
      const rows = this.waiting = this.#gather(rowsMax);
      const isWhole = this.#fill(rows);
      this.#eliminate(rows);
      const before = found;
      found = this.#recoverAll(rows, found);
      // One elimination finds all that is determined, unless something was left out.
      isSettled = found === before || (isWhole && !this.#isCut);
    }
    this.isDone = isSettled && !this.#isPart;
    return found;
  }

  /** Whether the last pass did not look at all repairs. */
  #isPart = false;

  /** Whether the last pass stopped early, because a place that it needed was to be written over. */
  #isCut = false;

  /** Lists up to `rowsMax` waiting repairs, the newest first, and drops those of no use; returns how many. */
  #gather(rowsMax: number): number {
    const sources = this.#sources;
    this.#isUsed.fill(0);
    this.#isPart = false;
    let rows = 0;
    for (let back = 1; back <= REPAIRS_MAX; back++) {
      const place = (this.#oldest + REPAIRS_MAX - back) % REPAIRS_MAX;
      const count = this.#count[place], first = place * SOURCES_MAX;
      if (count === 0) continue;
      if (rows === rowsMax) {
        this.#isPart = true;
        break;
      }
      let lacks = 0, isLost = false;
      for (let i = 0; i < count; i++) {
        const number = this.#numbers[first + i];
        const at = sources.has(number) ? sources.place(number) : NOWHERE;
        this.#places[first + i] = at;
        if (at !== NOWHERE) this.#isUsed[at] = 1;
        else if (sources.isKnown(number) || !sources.isInReach(number)) isLost = true;
        else lacks++;
      }
      if (lacks === 0 && !isLost) this.notNeeded++;
      // A source whose bytes are not kept, or that is too old, can neither be subtracted nor solved for.
      if (isLost || lacks === 0) this.#count[place] = 0;
      else this.#rows[rows++] = place;
    }
    return rows;
  }

  /** Writes the system of the gathered repairs; false when it had no columns for all, and left repairs out. */
  #fill(rows: number): boolean {
    this.#system.fill(0, 0, rows * UNKNOWN_MAX);
    this.#combined.fill(0, 0, rows * REPAIRS_MAX);
    this.#unknowns = 0;
    let isWhole = true;
    for (let row = 0; row < rows; row++) {
      const place = this.#rows[row], first = place * SOURCES_MAX;
      this.#combined[row * REPAIRS_MAX + row] = 1;
      for (let i = 0; i < this.#count[place]; i++) {
        if (this.#places[first + i] !== NOWHERE) continue;
        const column = this.#columnOf(this.#numbers[first + i]);
        if (column < 0) {
          // This repair waits until others are solved.
          this.#system.fill(0, row * UNKNOWN_MAX, (row + 1) * UNKNOWN_MAX);
          isWhole = false;
          break;
        }
        this.#system[row * UNKNOWN_MAX + column] = this.#coefficients[first + i];
      }
    }
    return isWhole;
  }

  /** The column of an unknown source, a new one if need be; -1 when there is none. */
  #columnOf(number: number): number {
    const entry = number & (REACH - 1), column = this.#column[entry];
    if (column < this.#unknowns) {
      const other = this.#unknown[column];
      if (other === number) return column;
      if ((other & (REACH - 1)) === entry) return -1;
    }
    if (this.#unknowns === UNKNOWN_MAX) return -1;
    this.#unknown[this.#unknowns] = number;
    return this.#column[entry] = this.#unknowns++;
  }

  /** Gauss and Jordan: afterwards each pivot is alone in its column. */
  #eliminate(rows: number): void {
    const system = this.#system;
    let done = 0;
    for (let column = 0; column < this.#unknowns && done < rows; column++) {
      let pivot = done;
      while (pivot < rows && system[pivot * UNKNOWN_MAX + column] === 0) pivot++;
      if (pivot === rows) continue;
      if (pivot !== done) this.#swap(pivot, done, rows);
      this.#scale(done, invert(system[done * UNKNOWN_MAX + column]), rows);
      for (let row = 0; row < rows; row++) {
        const by = system[row * UNKNOWN_MAX + column];
        if (row !== done && by !== 0) this.#addTo(row, done, by, rows);
      }
      done++;
    }
  }

  #swap(a: number, b: number, rows: number): void {
    for (let i = 0; i < this.#unknowns; i++) swap(this.#system, a * UNKNOWN_MAX + i, b * UNKNOWN_MAX + i);
    for (let i = 0; i < rows; i++) swap(this.#combined, a * REPAIRS_MAX + i, b * REPAIRS_MAX + i);
  }

  #scale(row: number, by: number, rows: number): void {
    const system = this.#system, combined = this.#combined, products = 256 * by;
    for (let i = row * UNKNOWN_MAX; i < row * UNKNOWN_MAX + this.#unknowns; i++) {
      system[i] = PRODUCTS[products + system[i]];
    }
    for (let i = row * REPAIRS_MAX; i < row * REPAIRS_MAX + rows; i++) {
      combined[i] = PRODUCTS[products + combined[i]];
    }
  }

  /** row += by * other */
  #addTo(row: number, other: number, by: number, rows: number): void {
    const system = this.#system, combined = this.#combined, products = 256 * by;
    for (let i = 0; i < this.#unknowns; i++) {
      system[row * UNKNOWN_MAX + i] ^= PRODUCTS[products + system[other * UNKNOWN_MAX + i]];
    }
    for (let i = 0; i < rows; i++) {
      combined[row * REPAIRS_MAX + i] ^= PRODUCTS[products + combined[other * REPAIRS_MAX + i]];
    }
  }

  /** Recovers what the system determines, behind the `found` that there are; returns how many there are then. */
  #recoverAll(rows: number, found: number): number {
    this.#isCut = false;
    for (let row = 0; row < rows && found < REPAIRS_MAX; row++) {
      const column = this.#onlyColumn(row);
      if (column < 0) continue;
      const number = this.#unknown[column];
      // A source that this pass brought back may have moved the reach.
      if (!this.#sources.isInReach(number)) continue;
      if (this.#isUsed[this.#sources.free] !== 0) {
        this.#isCut = true;
        break;
      }
      this.#recover(row, rows, number);
      this.recovered[found++] = number;
    }
    return found;
  }

  /** The one unknown that the row still has, or -1; its coefficient is 1. */
  #onlyColumn(row: number): number {
    let only = -1;
    for (let column = 0; column < this.#unknowns; column++) {
      if (this.#system[row * UNKNOWN_MAX + column] === 0) continue;
      if (only >= 0) return -1;
      only = column;
    }
    return only;
  }

  /** The source is the row's combination of repairs less what they hold of sources that were known; unknown ones cancel. */
  #recover(row: number, rows: number, number: number): void {
    const sources = this.#sources, { memory, stride, offsets } = sources;
    const matrixAt = sources.taskAt + MATRIX_AT;
    const weights = this.#weights.fill(0);
    let inputs = 0, length = 0;
    for (let from = 0; from < rows; from++) {
      const by = this.#combined[row * REPAIRS_MAX + from];
      if (by === 0) continue;
      const place = this.#rows[from], first = place * SOURCES_MAX;
      offsets[inputs] = (PLACES + place) * stride;
      memory[matrixAt + inputs++] = by;
      length = Math.max(length, this.#length[place]);
      for (let i = 0; i < this.#count[place]; i++) {
        const at = this.#places[first + i];
        if (at !== NOWHERE) weights[at] ^= multiply(by, this.#coefficients[first + i]);
      }
    }
    for (let place = 0; place < PLACES; place++) {
      if (weights[place] === 0) continue;
      offsets[inputs] = place * stride;
      memory[matrixAt + inputs++] = weights[place];
    }
    sources.multiply(inputs, sources.claim(number, length) * stride, length);
    this.notNeeded--;
  }
}

function swap(array: Uint8Array, a: number, b: number): void {
  const first = array[a];
  array[a] = array[b];
  array[b] = first;
}
