// Hot path.
/**
 * Datagrams whose packets need more rows than the burst has left: a queue of opened plaintexts, each with its slot,
 * source and header length, until the caller asks for the next burst. Invariant: first in, first out; the queue alone owns
 * the slots in it. Reads no frame.
 */
import { type Burst, BURST_CAPACITY, HELD, TO_UNFRAME } from "../vector/burst.ts";

export class Backlog {
  readonly #slot = new Uint32Array(BURST_CAPACITY);
  readonly #offset = new Uint32Array(BURST_CAPACITY);
  readonly #length = new Uint32Array(BURST_CAPACITY);
  readonly #session = new Uint32Array(BURST_CAPACITY);
  readonly #peer = new Uint32Array(BURST_CAPACITY);
  readonly #path = new Uint32Array(BURST_CAPACITY);
  readonly #address = new Uint32Array(4 * BURST_CAPACITY);
  readonly #local = new Uint32Array(4 * BURST_CAPACITY);
  readonly #port = new Uint16Array(BURST_CAPACITY);
  readonly #counter = new Float64Array(BURST_CAPACITY);
  readonly #headerBytes = new Uint8Array(BURST_CAPACITY);
  #first = 0;
  #count = 0;

  get isEmpty(): boolean {
    return this.#count === 0;
  }

  /** First byte and length of the oldest plaintext. */
  get nextOffset(): number {
    return this.#offset[this.#first];
  }
  get nextLength(): number {
    return this.#length[this.#first];
  }

  /** Takes the plaintext of `row` out of the burst; false when the queue is full, which one burst alone cannot cause. */
  put(burst: Burst, row: number): boolean {
    if (this.#count === BURST_CAPACITY) return false;
    const place = (this.#first + this.#count++) % BURST_CAPACITY;
    this.#slot[place] = burst.slot[row];
    this.#offset[place] = burst.offset[row];
    this.#length[place] = burst.length[row];
    this.#session[place] = burst.session[row];
    this.#peer[place] = burst.peer[row];
    this.#path[place] = burst.path[row];
    this.#port[place] = burst.port[row];
    this.#counter[place] = burst.counter[row];
    this.#headerBytes[place] = burst.headerBytes[row];
    for (let i = 0; i < 4; i++) {
      this.#address[4 * place + i] = burst.address[4 * row + i];
      this.#local[4 * place + i] = burst.local[4 * row + i];
    }
    burst.next[row] = HELD;
    return true;
  }

  /** Adds a TO_UNFRAME row with the oldest plaintext and returns it. The caller has checked that there is one, and room. */
  take(burst: Burst): number {
    const place = this.#first;
    this.#first = (place + 1) % BURST_CAPACITY;
    this.#count--;
    const row = burst.push(this.#slot[place], this.#length[place], TO_UNFRAME);
    burst.offset[row] = this.#offset[place];
    burst.session[row] = this.#session[place];
    burst.peer[row] = this.#peer[place];
    burst.path[row] = this.#path[place];
    burst.port[row] = this.#port[place];
    burst.counter[row] = this.#counter[place];
    burst.headerBytes[row] = this.#headerBytes[place];
    for (let i = 0; i < 4; i++) {
      burst.address[4 * row + i] = this.#address[4 * place + i];
      burst.local[4 * row + i] = this.#local[4 * place + i];
    }
    return row;
  }
}
