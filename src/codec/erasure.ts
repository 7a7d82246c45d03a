// Hot path.
/**
 * Repair symbols, linear combinations of source symbols over GF(2^8), made and solved. The codes differ in the
 * coefficients alone: sliding_window.ts draws them, reed_solomon.ts computes them. Invariant: memory is fixed when an end
 * is made, whatever the other one sends; a symbol that comes out is the one that went in, or the other end lied in a datagram
 * that it authenticated. Numbers are any integers that grow, one a source; knows no packets and no deadlines.
 * Keeps PROTOCOL R90.
 */
import { EXP, GROUP_ORDER, LOG, multiply } from "./gf256.ts";
import type { ShardKernel } from "./kernels.ts";
import { blockCoefficients } from "./reed_solomon.ts";
import { windowCoefficients } from "./sliding_window.ts";

/** Sources that one repair combines, at most. */
export const SOURCES_MAX = 32;
/** Repairs that wait for what they lack. */
const REPAIRS_MAX = 32;
/** Eliminations in one call: each may take a tenth of a millisecond when all repairs wait. */
const PASSES_MAX = 4;
/** Sources that are kept, a power of two. */
const KEPT = 64;

/** A repair of the sliding-window code: `index` is its key, 0 to 65535. */
export const CODE_WINDOW = 0;
/** A repair of a block of Reed-Solomon: `index` is its number in the block. */
export const CODE_BLOCK = 1;

/** Writes what multiplies each of the `count` sources of a repair at `at` in `out`; false when the code has no such repair. */
function coefficients(code: number, index: number, count: number, out: Uint8Array, at: number): boolean {
  if (code === CODE_BLOCK) return blockCoefficients(index, count, out, at);
  windowCoefficients(index, count, out, at);
  return true;
}

/** What both ends keep: the last sources by number, zeros behind each up to the stride. */
class Sources {
  readonly memory: Uint8Array<ArrayBuffer>;
  readonly stride: number;
  /** Bytes of the source in each place. */
  readonly length = new Uint32Array(KEPT);
  readonly #number = new Float64Array(KEPT).fill(-1);
  newest = -1;

  constructor(extra: number, stride: number) {
    this.stride = stride;
    this.memory = new Uint8Array((KEPT + extra) * stride);
  }

  has(number: number): boolean {
    return number >= 0 && this.#number[number % KEPT] === number;
  }

  /** Whether there is still a place for it: it is not older than what is kept. */
  isInReach(number: number): boolean {
    return number >= 0 && number > this.newest - KEPT;
  }

  /** First byte of the place of a source. */
  place(number: number): number {
    return (number % KEPT) * this.stride;
  }

  /** Takes the bytes in; false when it is known, too old or too long. */
  add(number: number, bytes: Uint8Array, at: number, length: number): boolean {
    if (length > this.stride || !this.isInReach(number) || this.has(number)) return false;
    const { memory } = this, to = this.place(number);
    for (let i = 0; i < length; i++) memory[to + i] = bytes[at + i];
    memory.fill(0, to + length, to + this.stride);
    this.note(number, length);
    return true;
  }

  /** Its bytes are in their place now. */
  note(number: number, length: number): void {
    this.#number[number % KEPT] = number;
    this.length[number % KEPT] = length;
    if (number > this.newest) this.newest = number;
  }
}

/** The sending end: keeps the last sources and combines them. */
export class RepairEncoder {
  readonly #kernel: ShardKernel;
  readonly #sources: Sources;
  readonly #offsets = new Uint32Array(SOURCES_MAX + 1);
  readonly #coefficients = new Uint8Array(SOURCES_MAX);

  /** @param stride the longest symbol, bytes, 1 to 65535. */
  constructor(kernel: ShardKernel, stride: number) {
    this.#kernel = kernel;
    this.#sources = new Sources(1, stride);
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
    const { memory, stride } = this.#sources, offsets = this.#offsets;
    if (count < 1 || count > SOURCES_MAX) return 0;
    let length = 0;
    for (let i = 0; i < count; i++) {
      if (!this.#sources.has(numbers[i])) return 0;
      offsets[i] = this.#sources.place(numbers[i]);
      length = Math.max(length, this.#sources.length[numbers[i] % KEPT]);
    }
    if (!coefficients(code, index, count, this.#coefficients, 0)) return 0;
    offsets[count] = KEPT * stride;
    this.#kernel.multiply(memory, offsets, this.#coefficients, count, 1, length);
    return length;
  }

  /** Copies the first `length` bytes of the symbol that was made last. */
  take(length: number, out: Uint8Array, at: number): void {
    const { memory, stride } = this.#sources;
    for (let i = 0; i < length; i++) out[at + i] = memory[KEPT * stride + i];
  }
}

/** The receiving end: keeps what came, and solves for what did not. */
export class RepairDecoder {
  readonly #kernel: ShardKernel;
  readonly #sources: Sources;
  // Repairs that wait, in places of their own behind the sources'; count 0 is a free place.
  readonly #count = new Uint8Array(REPAIRS_MAX);
  readonly #length = new Uint32Array(REPAIRS_MAX);
  readonly #numbers = new Float64Array(REPAIRS_MAX * SOURCES_MAX);
  readonly #coefficients = new Uint8Array(REPAIRS_MAX * SOURCES_MAX);
  #oldest = 0;
  readonly #floor: number;
  // The system: a row a repair, a column an unknown source, and what combination of repairs the row has become.
  readonly #unknown = new Float64Array(REPAIRS_MAX);
  readonly #system = new Uint8Array(REPAIRS_MAX * REPAIRS_MAX);
  readonly #combined = new Uint8Array(REPAIRS_MAX * REPAIRS_MAX);
  readonly #rows = new Uint8Array(REPAIRS_MAX);
  readonly #weights = new Uint8Array(KEPT);
  readonly #offsets = new Uint32Array(KEPT + REPAIRS_MAX + 1);
  readonly #matrix = new Uint8Array(KEPT + REPAIRS_MAX);
  /** Repairs that still lacked something when they were last looked at. */
  waiting = 0;
  isDone = true;
  /** Repairs whose sources are all known, less those that it took to know them: what came and was not needed. */
  notNeeded = 0;
  /** Sources that the last `solve` brought back. */
  readonly recovered = new Float64Array(REPAIRS_MAX);

  /**
   * @param stride as the encoder's.
   * @param first the first source that is added if it comes: of those before it nobody here knows whether they came.
   */
  constructor(kernel: ShardKernel, stride: number, first = 0) {
    this.#kernel = kernel;
    this.#sources = new Sources(REPAIRS_MAX, stride);
    this.#floor = first;
  }

  get memory(): Uint8Array<ArrayBuffer> {
    return this.#sources.memory;
  }

  /** First byte in `memory` of a source that is known. */
  placeOf(number: number): number {
    return this.#sources.place(number);
  }

  /** Bytes of a known source; of a recovered one those of the longest that it was combined with. */
  lengthOf(number: number): number {
    return this.#sources.length[number % KEPT];
  }

  has(number: number): boolean {
    return this.#sources.has(number);
  }

  /** Takes a source that came; false when it is known already, or no longer of use. */
  add(number: number, bytes: Uint8Array, at: number, length: number): boolean {
    return this.#sources.add(number, bytes, at, length);
  }

  /**
   * Takes the repair symbol `index` of the code for the sources `numbers`, in growing order. False when it says nothing
   * new: all are known, one is out of reach, its sources, index or length are impossible. The oldest that waits makes room.
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
    const { memory, stride } = this.#sources;
    if (count < 1 || count > SOURCES_MAX || length < 1 || length > stride) return false;
    if (!(numbers[0] >= this.#floor)) return false;
    let isNew = false;
    for (let i = 0; i < count; i++) {
      if (i > 0 && numbers[i] <= numbers[i - 1]) return false;
      // From here on it counts as sent, and places of older ones may be taken.
      if (!this.#sources.isInReach(numbers[i]) || numbers[i] > this.#sources.newest + KEPT / 2) return false;
      if (!this.#sources.has(numbers[i])) isNew = true;
    }
    if (!isNew) this.notNeeded++;
    if (!isNew || numbers[count - 1] - numbers[0] >= KEPT) return false;
    const place = this.#oldest, first = place * SOURCES_MAX;
    if (!coefficients(code, index, count, this.#coefficients, first)) {
      this.#count[place] = 0;
      return false;
    }
    this.#oldest = (place + 1) % REPAIRS_MAX;
    this.#count[place] = count;
    this.#length[place] = length;
    for (let i = 0; i < count; i++) this.#numbers[first + i] = numbers[i];
    const to = (KEPT + place) * stride;
    for (let i = 0; i < length; i++) memory[to + i] = bytes[at + i];
    memory.fill(0, to + length, to + stride);
    return true;
  }

  /**
   * Solves for sources that the repairs determine; returns how many, with their numbers in `recovered`. With more than
   * `rowsMax` repairs that still lack something it does nothing but count them. `isDone` says whether nothing was left.
   */
  solve(rowsMax = REPAIRS_MAX): number {
    let found = 0, more = 1;
    for (let pass = 0; pass < PASSES_MAX && more > 0 && found < REPAIRS_MAX; pass++) {
      more = this.#solveOnce(found, rowsMax);
      found += more;
    }
    this.isDone = more === 0 && this.waiting <= rowsMax;
    return found;
  }

  #solveOnce(found: number, rowsMax: number): number {
    const rows = this.waiting = this.#gather();
    if (rows === 0 || rows > rowsMax) return 0;
    const unknowns = this.#fill(rows);
    this.#eliminate(rows, unknowns);
    const start = found, { newest } = this.#sources;
    for (let row = 0; row < rows && found < REPAIRS_MAX; row++) {
      const column = this.#onlyColumn(row, unknowns);
      if (column < 0) continue;
      const number = this.#unknown[column];
      this.#recover(row, rows, number);
      this.recovered[found++] = number;
      // It took the place of an old one, which the other rows may be made of.
      if (number > newest) break;
    }
    return found - start;
  }

  /** Lists the repairs that still lack something and drops the others; returns how many. */
  #gather(): number {
    let rows = 0;
    for (let place = 0; place < REPAIRS_MAX; place++) {
      const count = this.#count[place], first = place * SOURCES_MAX;
      let lacks = 0;
      for (let i = 0; i < count; i++) {
        const number = this.#numbers[first + i];
        if (this.#sources.has(number)) continue;
        lacks++;
        if (!this.#sources.isInReach(number)) lacks = -KEPT; // gone for good, and the repair with it
      }
      if (count > 0 && lacks === 0) this.notNeeded++;
      // A known source whose place was taken again cannot be subtracted either.
      if (lacks <= 0) this.#count[place] = 0;
      else this.#rows[rows++] = place;
    }
    return rows;
  }

  /** Writes the system of the gathered repairs; returns its columns. Repairs beyond the last column are left empty. */
  #fill(rows: number): number {
    this.#system.fill(0);
    this.#combined.fill(0);
    this.#unknown.fill(-1);
    let unknowns = 0;
    for (let row = 0; row < rows; row++) {
      const place = this.#rows[row], first = place * SOURCES_MAX;
      this.#combined[row * REPAIRS_MAX + row] = 1;
      for (let i = 0; i < this.#count[place]; i++) {
        const number = this.#numbers[first + i];
        if (this.#sources.has(number)) continue;
        let column = 0;
        while (column < unknowns && this.#unknown[column] !== number) column++;
        if (column === REPAIRS_MAX) {
          // More unknowns than equations can be: this one waits until others are known.
          this.#system.fill(0, row * REPAIRS_MAX, (row + 1) * REPAIRS_MAX);
          break;
        }
        if (column === unknowns) this.#unknown[unknowns++] = number;
        this.#system[row * REPAIRS_MAX + column] = this.#coefficients[first + i];
      }
    }
    return unknowns;
  }

  /** Gauss and Jordan: afterwards each pivot is alone in its column. */
  #eliminate(rows: number, unknowns: number): void {
    const system = this.#system;
    let done = 0;
    for (let column = 0; column < unknowns && done < rows; column++) {
      let pivot = done;
      while (pivot < rows && system[pivot * REPAIRS_MAX + column] === 0) pivot++;
      if (pivot === rows) continue;
      if (pivot !== done) this.#swap(pivot, done);
      this.#scale(done, GROUP_ORDER - LOG[system[done * REPAIRS_MAX + column]]);
      for (let row = 0; row < rows; row++) {
        const by = system[row * REPAIRS_MAX + column];
        if (row !== done && by !== 0) this.#addTo(row, done, by);
      }
      done++;
    }
  }

  #swap(a: number, b: number): void {
    for (let i = 0; i < REPAIRS_MAX; i++) {
      const at = a * REPAIRS_MAX + i, other = b * REPAIRS_MAX + i;
      const left = this.#system[at], right = this.#combined[at];
      this.#system[at] = this.#system[other];
      this.#combined[at] = this.#combined[other];
      this.#system[other] = left;
      this.#combined[other] = right;
    }
  }

  /** Multiplies a row by 2^exponent. */
  #scale(row: number, exponent: number): void {
    const by = EXP[exponent % GROUP_ORDER];
    for (let i = row * REPAIRS_MAX; i < (row + 1) * REPAIRS_MAX; i++) {
      this.#system[i] = multiply(this.#system[i], by);
      this.#combined[i] = multiply(this.#combined[i], by);
    }
  }

  /** row += by * other */
  #addTo(row: number, other: number, by: number): void {
    for (let i = 0; i < REPAIRS_MAX; i++) {
      this.#system[row * REPAIRS_MAX + i] ^= multiply(this.#system[other * REPAIRS_MAX + i], by);
      this.#combined[row * REPAIRS_MAX + i] ^= multiply(this.#combined[other * REPAIRS_MAX + i], by);
    }
  }

  /** The one unknown that the row still has, or -1; its coefficient is 1. */
  #onlyColumn(row: number, unknowns: number): number {
    let only = -1;
    for (let column = 0; column < unknowns; column++) {
      if (this.#system[row * REPAIRS_MAX + column] === 0) continue;
      if (only >= 0) return -1;
      only = column;
    }
    return only;
  }

  /** The source is the row's combination of repairs less what they hold of known sources. */
  #recover(row: number, rows: number, number: number): void {
    const { memory, stride } = this.#sources;
    const weights = this.#weights.fill(0);
    let inputs = 0, length = 0;
    for (let from = 0; from < rows; from++) {
      const by = this.#combined[row * REPAIRS_MAX + from];
      if (by === 0) continue;
      const place = this.#rows[from], first = place * SOURCES_MAX;
      this.#offsets[inputs] = (KEPT + place) * stride;
      this.#matrix[inputs++] = by;
      length = Math.max(length, this.#length[place]);
      for (let i = 0; i < this.#count[place]; i++) {
        const source = this.#numbers[first + i];
        // Unknown ones cancel out, and those that this call brought back were unknown when the system was made.
        if (this.#sources.has(source) && !this.#isUnknown(source)) {
          weights[source % KEPT] ^= multiply(by, this.#coefficients[first + i]);
        }
      }
    }
    for (let place = 0; place < KEPT; place++) {
      if (weights[place] === 0) continue;
      this.#offsets[inputs] = place * stride;
      this.#matrix[inputs++] = weights[place];
    }
    const to = this.#sources.place(number);
    this.#offsets[inputs] = to;
    this.#kernel.multiply(memory, this.#offsets, this.#matrix, inputs, 1, length);
    memory.fill(0, to + length, to + stride);
    this.#sources.note(number, length);
    this.notNeeded--;
  }

  #isUnknown(number: number): boolean {
    for (let column = 0; column < REPAIRS_MAX; column++) if (this.#unknown[column] === number) return true;
    return false;
  }
}
