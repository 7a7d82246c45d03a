// Hot path.
/**
 * The state of batch.ts: within a burst, the row that each peer's next small packet may join; beyond a burst, batches that
 * wait for further packets, a slot each, with their deadlines. Invariant: a held batch owns its slot until `take` or
 * `release`; a peer has at most one, and all peers together at most `HELD_MAX`. A held batch is plaintext without a counter,
 * so it is sent under the session, epoch and path that the peer has at that time, unless only contexts of the session
 * before can read it. Decides nothing and writes no frame.
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
const ROWS = 2 * BURST_CAPACITY;
export const NOTHING_OPEN = -2, OPEN_WITHOUT_ROW = -1;

export class Batches {
  readonly gaps: ArrivalGaps;
  // A batch in the making, by burst row.
  /** Packets in it. */
  readonly packets = new Uint8Array(BURST_CAPACITY);
  /** 1 when one of its packets may not wait. */
  readonly urgent = new Uint8Array(BURST_CAPACITY);
  /** 1 when one of its packets is short or a definition, so that only its session's contexts can read it. */
  readonly contexts = new Uint8Array(BURST_CAPACITY);
  /** With more than one: where the head of the last is, which goes when the batch is done, or 0 when it has none. */
  readonly lastHeadAt = new Uint32Array(BURST_CAPACITY);
  /** How long the first of them has waited; 0 when all came with this burst. */
  readonly longestUs = new Float64Array(BURST_CAPACITY);
  /** When some have waited: how many, and how long, added up. */
  readonly waited = new Uint8Array(BURST_CAPACITY);
  readonly waitedUs = new Float64Array(BURST_CAPACITY);
  /** Peers whose last batch is not finished, some of them more than once. */
  readonly unsettled = new Uint32Array(BURST_CAPACITY);
  unsettledCount = 0;
  readonly #arena: Arena;
  /** By peer: the burst in which it had something open last, times ROWS, plus one more than its row there. */
  readonly #mark: Float64Array;
  #burst = 0;
  // Held batches: by peer its place plus one; by place the same columns as above, and when the packets came, added up, and
  // the first of them.
  readonly #placeOf: Uint16Array;
  readonly #free: Uint16Array;
  #freeCount: number;
  readonly #due: Timers;
  readonly #peer = new Uint32Array(HELD_MAX);
  readonly #session = new Uint32Array(HELD_MAX);
  readonly #slot = new Uint32Array(HELD_MAX);
  readonly #offset = new Uint32Array(HELD_MAX);
  readonly #length = new Uint32Array(HELD_MAX);
  readonly #packets = new Uint8Array(HELD_MAX);
  readonly #urgent = new Uint8Array(HELD_MAX);
  readonly #contexts = new Uint8Array(HELD_MAX);
  readonly #trafficClass = new Uint8Array(HELD_MAX);
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
    this.#mark = new Float64Array(peers);
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

  /** Begins a burst: nothing is open. */
  begin(): void {
    this.#burst += ROWS;
    this.unsettledCount = 0;
  }

  /** The row whose batch the peer's next packet may join, NOTHING_OPEN or OPEN_WITHOUT_ROW. */
  rowOf(id: number): number {
    return Math.max(NOTHING_OPEN, this.#mark[id] - this.#burst - 1);
  }

  /** Makes `row` that one; OPEN_WITHOUT_ROW for a packet of this burst that is held until the next row comes. */
  setRow(id: number, row: number): void {
    this.#mark[id] = this.#burst + row + 1;
  }

  /** Leaves the peer nothing to join. */
  clearRow(id: number): void {
    this.#mark[id] = 0;
  }

  /** Notes that the peer's last batch is to be settled at the end of the burst; at most once for each row. */
  toSettle(id: number): void {
    this.unsettled[this.unsettledCount++] = id;
  }

  /** Makes a batch of the packet in `row` alone; `hasContext` says whether the packet is short or a definition. */
  start(row: number, isUrgent: boolean, hasContext: boolean): void {
    this.contexts[row] = hasContext ? 1 : 0;
    this.packets[row] = 1;
    this.urgent[row] = isUrgent ? 1 : 0;
    this.longestUs[row] = 0;
  }

  /** Whether something of the peer is held. */
  isHeld(id: number): boolean {
    return this.#placeOf[id] !== 0;
  }

  /** Whether what is held of the peer needs contexts of another session than `session` (PROTOCOL R82). */
  isForeign(id: number, session: number): boolean {
    const place = this.#placeOf[id] - 1;
    return this.#contexts[place] === 1 && this.#session[place] !== session;
  }

  /** The session under which the peer's held batch was put together. */
  sessionOf(id: number): number {
    return this.#session[this.#placeOf[id] - 1];
  }

  /** Takes the batch in `row` out of the burst until `dueUs`; false when too many are held. The caller marks the row. */
  hold(burst: Burst, row: number, id: number, nowUs: number, dueUs: number): boolean {
    if (this.#freeCount === 0) return false;
    const place = this.#free[--this.#freeCount];
    this.#placeOf[id] = place + 1;
    this.#peer[place] = id;
    this.#session[place] = burst.session[row];
    this.#contexts[place] = this.contexts[row];
    this.#slot[place] = burst.slot[row];
    this.#offset[place] = burst.offset[row];
    this.#length[place] = burst.length[row];
    this.#packets[place] = this.packets[row];
    this.#urgent[place] = this.urgent[row];
    this.#trafficClass[place] = burst.trafficClass[row];
    this.#lastHeadAt[place] = this.lastHeadAt[row];
    const longestUs = this.longestUs[row], waitedUs = longestUs > 0 ? this.waitedUs[row] : 0;
    this.#arrivedUs[place] = this.packets[row] * nowUs - waitedUs;
    this.#firstUs[place] = nowUs - longestUs;
    this.#due.set(place, dueUs);
    return true;
  }

  /** Puts the peer's held batch into `row`, whose slot the caller has taken care of. */
  take(burst: Burst, row: number, id: number, nowUs: number): void {
    const place = this.#placeOf[id] - 1;
    burst.slot[row] = this.#slot[place];
    burst.offset[row] = this.#offset[place];
    burst.length[row] = this.#length[place];
    burst.trafficClass[row] = this.#trafficClass[place];
    this.packets[row] = this.#packets[place];
    this.urgent[row] = this.#urgent[place];
    this.contexts[row] = this.#contexts[place];
    this.lastHeadAt[row] = this.#lastHeadAt[place];
    this.waited[row] = this.#packets[place];
    this.waitedUs[row] = this.#packets[place] * nowUs - this.#arrivedUs[place];
    this.longestUs[row] = nowUs - this.#firstUs[place];
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
