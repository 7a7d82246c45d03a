/**
 * One deadline per peer in an indexed binary heap over typed arrays. Invariant: the heap's top is the earliest
 * deadline, so that the next deadline is one read and expiry is exact, unlike in a timer wheel. Allocates nothing after
 * construction; does not know what a deadline is for.
 */

import { Columns } from "../vector/columns.ts";

export class Timers {
  /** By id; Infinity where there is none. */
  readonly #due: Float64Array;
  readonly #heap: Int32Array;
  readonly #place: Int32Array;
  readonly #columns: Columns;
  #count = 0;

  /** @param capacity ids are 0 to capacity - 1. */
  constructor(capacity: number) {
    this.#due = new Float64Array(capacity).fill(Infinity);
    this.#heap = new Int32Array(capacity);
    this.#place = new Int32Array(capacity);
    this.#columns = new Columns().add(this.#due);
  }

  /** Ids that have a deadline. */
  get size(): number {
    return this.#count;
  }

  /** The earliest deadline in microseconds, or Infinity. */
  get nextUs(): number {
    return this.#count === 0 ? Infinity : this.#due[this.#heap[0]];
  }

  /** Sets the id's deadline; Infinity removes it. */
  set(id: number, dueUs: number): void {
    const isAbsent = this.#due[id] === Infinity;
    if (dueUs === Infinity) {
      if (!isAbsent) this.#removeAt(this.#place[id]);
      return;
    }
    this.#due[id] = dueUs;
    if (isAbsent) {
      this.#put(this.#count++, id);
      this.#rise(this.#count - 1);
    } else {
      this.#rise(this.#place[id]);
      this.#sink(this.#place[id]);
    }
  }

  /** Moves the id's deadline to `dueUs` if that is earlier than what it has. */
  hasten(id: number, dueUs: number): void {
    if (dueUs < this.#due[id]) this.set(id, dueUs);
  }

  /** Reads, ahead of its use, what `hasten` reads of ids[0..count-1]. */
  touch(ids: Uint32Array, count: number): void {
    this.#columns.touch(ids, count);
  }

  /** Takes one id whose deadline is `nowUs` or earlier, or -1. */
  takeExpired(nowUs: number): number {
    if (this.#count === 0 || this.#due[this.#heap[0]] > nowUs) return -1;
    const id = this.#heap[0];
    this.#removeAt(0);
    return id;
  }

  #put(place: number, id: number): void {
    this.#heap[place] = id;
    this.#place[id] = place;
  }

  #removeAt(place: number): void {
    this.#due[this.#heap[place]] = Infinity;
    const moved = this.#heap[--this.#count];
    if (place === this.#count) return;
    this.#put(place, moved);
    this.#rise(place);
    this.#sink(this.#place[moved]);
  }

  #rise(place: number): void {
    const id = this.#heap[place];
    while (place > 0) {
      const parent = (place - 1) >> 1;
      if (this.#due[this.#heap[parent]] <= this.#due[id]) break;
      this.#put(place, this.#heap[parent]);
      place = parent;
    }
    this.#put(place, id);
  }

  #sink(place: number): void {
    const id = this.#heap[place];
    for (;;) {
      let child = 2 * place + 1;
      if (child >= this.#count) break;
      if (child + 1 < this.#count && this.#due[this.#heap[child + 1]] < this.#due[this.#heap[child]]) child++;
      if (this.#due[this.#heap[child]] >= this.#due[id]) break;
      this.#put(place, this.#heap[child]);
      place = child;
    }
    this.#put(place, id);
  }
}
