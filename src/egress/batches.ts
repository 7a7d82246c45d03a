// Hot path.
/**
 * What batch.ts remembers: of this burst, the row that each peer's next small packet may join; beyond it, batches that
 * are held for company, a slot each, with their deadlines. Invariant: a held batch owns its slot until `take` or
 * `release`; a peer has one at most, and all peers together `HELD_MAX`. What is held is plaintext without a number, so it
 * goes out under whatever session, epoch and path the peer has then. Decides nothing and writes no frame.
 * Keeps PROTOCOL R82.
 */
import { ArrivalGaps } from "../control/flush.ts";
import { Timers } from "../session/timers.ts";
import { type Arena, NONE } from "../vector/arena.ts";
import { type Burst, BURST_CAPACITY } from "../vector/burst.ts";

/** Held batches of all peers together, each with a slot of the arena. */
export const HELD_MAX = 1024;
/** A small arena keeps most of its slots for packets that move. */
const ARENA_SHARE = 8;
const NO_ROW = 0xffff;

export class Batches {
  readonly gaps: ArrivalGaps;
  // A batch in the making, by burst row.
  /** Packets in it. */
  readonly packets = new Uint8Array(BURST_CAPACITY);
  /** Those of them that came with this burst. */
  readonly fresh = new Uint8Array(BURST_CAPACITY);
  /** 1 when one of its packets may not wait. */
  readonly urgent = new Uint8Array(BURST_CAPACITY);
  /** Where the head of its last packet is, which goes when the batch is done; 0 when there is none. */
  readonly lastHeadAt = new Uint32Array(BURST_CAPACITY);
  /** When its packets arrived, added up, and the first of them. */
  readonly arrivedUs = new Float64Array(BURST_CAPACITY);
  readonly firstUs = new Float64Array(BURST_CAPACITY);
  /** Peers that have such a batch, or had one, in this burst. */
  readonly touched = new Uint32Array(BURST_CAPACITY);
  touchedCount = 0;
  readonly #arena: Arena;
  readonly #burstOf: Uint32Array;
  readonly #rowOf: Uint16Array;
  #burst = 0;
  // Held batches: by peer its place plus one, by place the same columns as above.
  readonly #placeOf: Uint16Array;
  readonly #free: Uint16Array;
  #freeCount: number;
  readonly #due: Timers;
  readonly #peer = new Uint32Array(HELD_MAX);
  readonly #slot = new Uint32Array(HELD_MAX);
  readonly #offset = new Uint32Array(HELD_MAX);
  readonly #length = new Uint32Array(HELD_MAX);
  readonly #packets = new Uint8Array(HELD_MAX);
  readonly #urgent = new Uint8Array(HELD_MAX);
  readonly #lastHeadAt = new Uint32Array(HELD_MAX);
  readonly #arrivedUs = new Float64Array(HELD_MAX);
  readonly #firstUs = new Float64Array(HELD_MAX);

  /**
   * @param peers ids are 0 to peers - 1.
   * @param boundUs the longest that a packet is held; 0 for batches within a burst only.
   */
  constructor(arena: Arena, peers: number, boundUs: number) {
    this.#arena = arena;
    this.gaps = new ArrivalGaps(peers, boundUs);
    this.#burstOf = new Uint32Array(peers);
    this.#rowOf = new Uint16Array(peers);
    this.#placeOf = new Uint16Array(peers);
    this.#freeCount = Math.min(HELD_MAX, Math.ceil(arena.slotCount / ARENA_SHARE));
    this.#free = new Uint16Array(HELD_MAX);
    for (let i = 0; i < HELD_MAX; i++) this.#free[i] = i;
    this.#due = new Timers(HELD_MAX);
  }

  /** When the first held batch is due, in microseconds, or Infinity. */
  get nextUs(): number {
    return this.#due.nextUs;
  }

  /** Begins a burst: no peer has a row. */
  begin(): void {
    this.#burst = (this.#burst + 1) >>> 0;
    this.touchedCount = 0;
  }

  /** Whether the peer has come up in this burst. */
  isTouched(id: number): boolean {
    return this.#burstOf[id] === this.#burst;
  }

  /** Notes that the peer has come up, as yet without a row. */
  touch(id: number): void {
    this.#burstOf[id] = this.#burst;
    this.#rowOf[id] = NO_ROW;
    this.touched[this.touchedCount++] = id;
  }

  /** The row whose batch the peer's next packet may join, or -1; of a peer that has come up. */
  rowOf(id: number): number {
    const row = this.#rowOf[id];
    return row === NO_ROW ? -1 : row;
  }

  /** Makes `row` that one; -1 for none. */
  setRow(id: number, row: number): void {
    this.#rowOf[id] = row < 0 ? NO_ROW : row;
  }

  /** Makes a batch of the packet in `row` alone. */
  start(row: number, isUrgent: boolean, nowUs: number): void {
    this.packets[row] = 1;
    this.fresh[row] = 1;
    this.urgent[row] = isUrgent ? 1 : 0;
    this.lastHeadAt[row] = 0;
    this.arrivedUs[row] = nowUs;
    this.firstUs[row] = nowUs;
  }

  /** Whether something of the peer is held. */
  isHeld(id: number): boolean {
    return this.#placeOf[id] !== 0;
  }

  /** Takes the batch in `row` out of the burst until `dueUs`; false when too many are held. The caller marks the row. */
  hold(burst: Burst, row: number, id: number, dueUs: number): boolean {
    if (this.#freeCount === 0) return false;
    const place = this.#free[--this.#freeCount];
    this.#placeOf[id] = place + 1;
    this.#peer[place] = id;
    this.#slot[place] = burst.slot[row];
    this.#offset[place] = burst.offset[row];
    this.#length[place] = burst.length[row];
    this.#packets[place] = this.packets[row];
    this.#urgent[place] = this.urgent[row];
    this.#lastHeadAt[place] = this.lastHeadAt[row];
    this.#arrivedUs[place] = this.arrivedUs[row];
    this.#firstUs[place] = this.firstUs[row];
    this.#due.set(place, dueUs);
    return true;
  }

  /** Puts the peer's held batch into `row`, whose slot the caller has taken care of. */
  take(burst: Burst, row: number, id: number): void {
    const place = this.#placeOf[id] - 1;
    burst.slot[row] = this.#slot[place];
    burst.offset[row] = this.#offset[place];
    burst.length[row] = this.#length[place];
    this.packets[row] = this.#packets[place];
    this.fresh[row] = 0;
    this.urgent[row] = this.#urgent[place];
    this.lastHeadAt[row] = this.#lastHeadAt[place];
    this.arrivedUs[row] = this.#arrivedUs[place];
    this.firstUs[row] = this.#firstUs[place];
    this.#vacate(id, place);
  }

  /** The peer of a batch that is due, or NONE. It stays until it is taken or released. */
  due(nowUs: number): number {
    if (this.#due.nextUs > nowUs) return NONE;
    const place = this.#due.takeExpired(nowUs);
    this.#due.set(place, nowUs);
    return this.#peer[place];
  }

  /** Gives up what is held of the peer and what is known of it; returns the packets that were. */
  release(id: number): number {
    this.gaps.forget(id);
    const place = this.#placeOf[id] - 1;
    if (place < 0) return 0;
    this.#arena.release(this.#slot[place]);
    this.#vacate(id, place);
    return this.#packets[place];
  }

  #vacate(id: number, place: number): void {
    this.#placeOf[id] = 0;
    this.#due.set(place, Infinity);
    this.#free[this.#freeCount++] = place;
  }
}
