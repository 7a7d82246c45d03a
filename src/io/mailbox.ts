/**
 * Mailboxes between Workers: what one received and another owns passes through a ring in shared memory, one for each
 * ordered pair, so that each ring has one writer and one reader. Invariant: a record is whole before its reader can see
 * it, and a full ring costs the packet, never the writer's time. Knows rows and bytes, never sessions.
 */
import { Readable } from "../../ffi/readable.ts";
import { DROP } from "../metrics.ts";
import { MAX_PACKET_BYTES } from "../vector/arena.ts";
import { type Burst, BURST_CAPACITY, DONE, TO_WORKER } from "../vector/burst.ts";
import { clearBell, closeBells, openBells, ringBell } from "./bell.ts";

/** Records in a ring, a power of two: a burst's worth. Places count up and wrap as 32-bit integers. */
const RECORDS = 256;
const RECORD_BYTES = 2048;
/** In 32-bit words: length, step, port, ECN, address, local address. */
const HEADER_WORDS = 12;
const HEADER_BYTES = 4 * HEADER_WORDS;
/** Places read and written, each on a cache line of its own in front of the records. */
const READ_AT = 0, WRITTEN_AT = 16;
const RECORDS_AT = 128;

/** What the Workers of a relay share in order to reach each other. Plain data. */
export interface Mailboxes {
  /** From, to. */
  rings: SharedArrayBuffer[][];
  /** The bells by which a Worker is woken, by Worker. */
  wakes: number[];
}

/** Rings and descriptors for `workers` Workers; `closeMailboxes` gives the descriptors back. Throws when there are none. */
export function openMailboxes(workers: number): Mailboxes {
  const all = Array.from({ length: workers }, (_, i) => i);
  return {
    rings: all.map((from) =>
      all.map((to) => new SharedArrayBuffer(RECORDS_AT + (from === to ? 0 : RECORDS * RECORD_BYTES)))
    ),
    wakes: openBells(workers),
  };
}

export function closeMailboxes({ wakes }: Mailboxes): void {
  closeBells(wakes.splice(0));
}

class Ring {
  readonly places: Int32Array;
  readonly words: Uint32Array;
  readonly bytes: Uint8Array;

  constructor(memory: SharedArrayBuffer) {
    this.places = new Int32Array(memory, 0, RECORDS_AT / 4);
    this.words = new Uint32Array(memory);
    this.bytes = new Uint8Array(memory);
  }
}

/** One Worker's side of all its rings. */
export class Mailbox {
  /** Polls readable when somebody has written. */
  readonly descriptor: number;
  readonly #worker: number;
  readonly #wakes: readonly number[];
  readonly #outgoing: Ring[];
  readonly #incoming: Ring[];
  readonly #drop: (code: number) => void;
  #first = 0;
  readonly #woken: boolean[];
  #readable: Readable | undefined;

  /** @param drop counts what does not fit. */
  constructor(worker: number, { rings, wakes }: Mailboxes, drop: (code: number) => void) {
    this.#worker = worker;
    this.#wakes = wakes;
    this.#outgoing = rings[worker].map((memory) => new Ring(memory));
    this.#incoming = rings.map((row) => new Ring(row[worker]));
    this.#drop = drop;
    this.#woken = wakes.map(() => false);
    this.descriptor = wakes[worker];
  }

  /** Copies the TO_WORKER rows to their Workers and marks them DONE. */
  send(burst: Burst): void {
    const { count, next } = burst;
    let some = false;
    for (let row = 0; row < count; row++) {
      if (next[row] !== TO_WORKER) continue;
      if (this.#put(burst, row)) some = true;
      next[row] = DONE;
    }
    if (!some) return;
    for (let worker = 0; worker < this.#woken.length; worker++) {
      if (!this.#woken[worker]) continue;
      this.#woken[worker] = false;
      ringBell(this.#wakes[worker]);
    }
  }

  /** Adds what others have handed over, each row at the step that its sender named. Returns the rows added. */
  receive(burst: Burst): number {
    const before = burst.count;
    const rings = this.#incoming.length;
    this.#first = (this.#first + 1) % rings; // so that a ring that is always full starves no other
    for (let i = 0; i < rings; i++) {
      const from = (this.#first + i) % rings;
      if (from !== this.#worker) this.#take(this.#incoming[from], burst);
    }
    return burst.count - before;
  }

  /** Rows that `worker` can be sent now. */
  room(worker: number): number {
    const { places } = this.#outgoing[worker];
    return RECORDS - ((places[WRITTEN_AT] - Atomics.load(places, READ_AT)) | 0);
  }

  /** Whether something is left that `receive` had no room for. */
  get isWaiting(): boolean {
    for (let from = 0; from < this.#incoming.length; from++) {
      const { places } = this.#incoming[from];
      if (from !== this.#worker && places[READ_AT] !== Atomics.load(places, WRITTEN_AT)) return true;
    }
    return false;
  }

  /** To be called by who was woken, before `receive`: what is written from here on wakes again. */
  clear(): void {
    clearBell(this.descriptor);
  }

  onReadable(wake: () => void): void {
    this.#readable ??= new Readable(this.descriptor, () => {
      this.clear();
      this.#readable?.taken();
      wake();
    });
  }

  async close(): Promise<void> {
    await this.#readable?.close();
  }

  #put(burst: Burst, row: number): boolean {
    const worker = burst.session[row];
    const { places, words, bytes } = this.#outgoing[worker];
    const written = places[WRITTEN_AT];
    const length = burst.length[row];
    if (((written - Atomics.load(places, READ_AT)) | 0) === RECORDS || length > MAX_PACKET_BYTES) {
      this.#drop(DROP.worker_full);
      return false;
    }
    const at = RECORDS_AT + (written & (RECORDS - 1)) * RECORD_BYTES;
    const word = at / 4;
    words[word] = length;
    words[word + 1] = burst.peer[row];
    words[word + 2] = burst.port[row];
    words[word + 3] = burst.ecn[row];
    for (let i = 0; i < 4; i++) {
      words[word + 4 + i] = burst.address[4 * row + i];
      words[word + 8 + i] = burst.local[4 * row + i];
    }
    const from = burst.offset[row];
    bytes.set(burst.bytes.subarray(from, from + length), at + HEADER_BYTES);
    Atomics.store(places, WRITTEN_AT, (written + 1) | 0);
    return this.#woken[worker] = true;
  }

  #take({ places, words, bytes }: Ring, burst: Burst): void {
    let read = places[READ_AT];
    const written = Atomics.load(places, WRITTEN_AT);
    while (read !== written && burst.count < BURST_CAPACITY) {
      const at = RECORDS_AT + (read & (RECORDS - 1)) * RECORD_BYTES;
      const word = at / 4;
      const length = words[word];
      const row = burst.grow(length, words[word + 1]);
      if (row < 0) break;
      burst.port[row] = words[word + 2];
      burst.ecn[row] = words[word + 3];
      for (let i = 0; i < 4; i++) {
        burst.address[4 * row + i] = words[word + 4 + i];
        burst.local[4 * row + i] = words[word + 8 + i];
      }
      burst.bytes.set(bytes.subarray(at + HEADER_BYTES, at + HEADER_BYTES + length), burst.offset[row]);
      read = (read + 1) | 0;
    }
    Atomics.store(places, READ_AT, read);
  }
}
