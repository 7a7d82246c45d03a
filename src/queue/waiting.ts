// Hot path.
/**
 * Packets that wait, as columns by place: what a burst's row says of each, the chain of each flow, and which of them are dropped
 * instead of sent (codel.ts, deadlines). Invariant: a place in use owns its packet's slot; a flow's packets leave in the order
 * in which they came. Which flow is next is tins.ts's to say, and how many may wait the owner's.
 */
import { CLASS_BULK, CLASS_GAME, isRealTime } from "../control/traffic_class.ts";
import { type Arena, NONE } from "../vector/arena.ts";
import type { Burst } from "../vector/burst.ts";
import { markCe } from "../wire/ecn.ts";
import { CODEL, Codel } from "./codel.ts";
import type { QueueLoss } from "./line_figures.ts";
import type { Tins } from "./tins.ts";

/**
 * By how much longer than others a transfer may wait: only other transfers wait behind it, and with no more queue than CoDel's 5 ms one flow
 * of CUBIC over 60 ms of round trip leaves an eighth of the line idle (bench/docs/queue.md).
 */
const BULK_PATIENCE = 4;
/**
 * Where the round trip is long, a transfer may wait for BULK_SHARE of it: CUBIC gives up three tenths of its window at a loss (RFC 9438 §4.6),
 * and what is left keeps the line busy if the queue held as much. It may do so for BULK_ROUND_TRIPS: a sender answers to a loss
 * after one, and what CoDel drops meanwhile costs another three tenths. Longer round trips than RTT_US_MAX are taken for it.
 */
const BULK_SHARE = 3 / 7, BULK_ROUND_TRIPS = 2, RTT_US_MAX = 250_000;
/** A full packet's bytes: with less left in its queue, a flow loses none (RFC 8289 §5.4). */
const FULL_PACKET_BYTES = 1514;
/** The most packets that the flow with the most bytes loses at once when the queue is full (RFC 8290 §4.1.3). */
const DROP_BATCH = 64;

export interface WaitingOptions {
  /** Most packets that wait. */
  packets: number;
  /** CoDel's target and interval, microseconds; those of RFC 8289 when absent. */
  targetUs?: number;
  intervalUs?: number;
  /** Whether packets of flows that understand ECN are marked instead of dropped. */
  ecn: boolean;
  /** How old a game's and a call's packet may be when its turn comes, microseconds. */
  gameDeadlineUs: number;
  voiceDeadlineUs: number;
  /** Told of each packet that waited: its class, and for how long in microseconds. */
  waited: (trafficClass: number, waitedUs: number) => void;
  /** Told of each packet that was lost, and why. */
  lost: (reason: QueueLoss) => void;
  /** Told of each packet that was marked with CE. */
  marked: () => void;
}

export class Waiting {
  /** By place: the packet's bytes. Valid until the next `add`. */
  readonly length: Uint32Array;
  readonly #o: WaitingOptions;
  readonly #arena: Arena;
  readonly #tins: Tins;
  readonly #codel: Codel;
  readonly #slot: Uint32Array;
  readonly #offset: Uint32Array;
  readonly #flowRow: Uint32Array;
  readonly #class: Uint8Array;
  readonly #isOwn: Uint8Array;
  readonly #arrivedUs: Float64Array;
  readonly #next: Uint32Array;
  readonly #free: Uint32Array;
  #freeCount: number;

  /** @param tins at most as many flows as `options.packets`. */
  constructor(arena: Arena, tins: Tins, options: WaitingOptions) {
    const { packets } = options;
    this.#o = options;
    this.#arena = arena;
    this.#tins = tins;
    this.#codel = new Codel(packets);
    this.length = new Uint32Array(packets);
    this.#slot = new Uint32Array(packets);
    this.#offset = new Uint32Array(packets);
    this.#flowRow = new Uint32Array(packets);
    this.#class = new Uint8Array(packets);
    this.#isOwn = new Uint8Array(packets);
    this.#arrivedUs = new Float64Array(packets);
    this.#next = new Uint32Array(packets);
    this.#free = new Uint32Array(packets);
    for (let i = 0; i < packets; i++) this.#free[i] = packets - 1 - i;
    this.#freeCount = packets;
  }

  get count(): number {
    return this.#free.length - this.#freeCount;
  }

  /** Packets that may still be added. */
  get room(): number {
    return this.#freeCount;
  }

  /** To be called for a flow that had no packet here. */
  begin(flow: number): void {
    this.#codel.reset(flow);
  }

  /** Adds the row's packet behind its flow's others; there must be room. `tin` is where the flow belongs by its class. Returns the place. */
  add(burst: Burst, row: number, flow: number, tin: number, nowUs: number): number {
    const tins = this.#tins;
    const place = this.#free[--this.#freeCount];
    this.#slot[place] = burst.slot[row];
    this.#offset[place] = burst.offset[row];
    this.length[place] = burst.length[row];
    this.#flowRow[place] = burst.flow[row];
    this.#class[place] = burst.trafficClass[row];
    this.#isOwn[place] = burst.isOwn[row];
    this.#arrivedUs[place] = nowUs;
    this.#next[place] = NONE;
    if (tins.packets[flow] === 0) tins.first[flow] = place;
    else this.#next[tins.last[flow]] = place;
    tins.last[flow] = place;
    tins.wanted[flow] = tin;
    tins.added(flow, this.length[place]);
    return place;
  }

  /** The flow's first packet, whose place is free again; its columns stay until the next packet comes. */
  takeFirst(flow: number): number {
    const place = this.#tins.first[flow];
    this.#tins.first[flow] = this.#next[place];
    this.#tins.removed(flow, this.length[place]);
    this.#free[this.#freeCount++] = place;
    return place;
  }

  /**
   * Whether the packet that was taken is dropped: past the deadline of its class, or by CoDel. Releases its slot then. @param rttUs the
   * path's round trip; 0 where it is not known, or its senders are near.
   */
  isLost(flow: number, place: number, nowUs: number, rttUs = 0): boolean {
    const waitedUs = nowUs - this.#arrivedUs[place];
    const trafficClass = this.#class[place];
    if (isRealTime(trafficClass)) {
      const { gameDeadlineUs, voiceDeadlineUs } = this.#o;
      if (waitedUs <= (trafficClass === CLASS_GAME ? gameDeadlineUs : voiceDeadlineUs)) return false;
      return this.lose(place, "queue_stale");
    }
    const isShort = this.#tins.bytes[flow] < FULL_PACKET_BYTES;
    const { targetUs = CODEL.targetUs, intervalUs = CODEL.intervalUs } = this.#o;
    let mayWaitUs = targetUs, forUs = intervalUs;
    if (trafficClass === CLASS_BULK) {
      const longUs = Math.min(rttUs, RTT_US_MAX);
      mayWaitUs = Math.max(BULK_PATIENCE * targetUs, BULK_SHARE * longUs);
      forUs = Math.max(intervalUs, BULK_ROUND_TRIPS * longUs);
    }
    if (!this.#codel.drops(flow, waitedUs, isShort, nowUs, mayWaitUs, forUs)) return false;
    if (this.#o.ecn && markCe(this.#arena.view, this.#offset[place])) {
      this.#o.marked();
      return false;
    }
    return this.lose(place, "queue_delay");
  }

  /** How many packets the flow loses for being the largest in a full queue. */
  thinning(flow: number): number {
    return Math.min(DROP_BATCH, this.#tins.packets[flow] + 1 >> 1);
  }

  /** Drops the packet that was taken. */
  lose(place: number, reason: QueueLoss): true {
    this.release(place);
    this.#o.lost(reason);
    return true;
  }

  /** Releases the slot of the packet that was taken. */
  release(place: number): void {
    this.#arena.release(this.#slot[place]);
  }

  /** Adds the packet that was taken to the burst, which must have room; returns its row. */
  push(burst: Burst, place: number, peer: number, next: number, nowUs: number): number {
    const row = burst.push(this.#slot[place], this.length[place], next);
    burst.offset[row] = this.#offset[place];
    burst.peer[row] = peer;
    burst.flow[row] = this.#flowRow[place];
    burst.trafficClass[row] = this.#class[place];
    burst.isOwn[row] = this.#isOwn[place];
    this.#o.waited(this.#class[place], nowUs - this.#arrivedUs[place]);
    return row;
  }
}
