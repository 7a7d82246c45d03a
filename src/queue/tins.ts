// Hot path.
/**
 * Which of a line's waiting packets is next: tins by class, as CAKE's, and in each the flows by deficit round robin with
 * sparse ones first (RFC 8290 §4). Invariant: a flow's packets leave in the order in which they came; each tin gets its share
 * of the rate, and what others leave of theirs. Holds links between numbers, no bytes; CoDel and clocks are queues.ts's.
 */
import { CLASS_BULK, isRealTime } from "../control/traffic_class.ts";
import { NONE } from "../vector/arena.ts";

/** Games and calls; interactive and unknown traffic; transfers. */
export const TIN_REAL = 0, TIN_LIVE = 1, TIN_BULK = 2, TINS = 3;
/**
 * The share of the line's rate up to which a tin goes before the ones behind: CAKE's thresholds of diffserv4 for voice and
 * video. What is above waits until no tin is below its own.
 */
export const TIN_SHARES: readonly number[] = [1 / 4, 1 / 2, 1];
/** Bytes that a flow sends first, and where lines are slow at each turn, before the next one's: a full packet (RFC 8290 §4.1.1). */
export const QUANTUM_BYTES = 1514;

export function tinOf(trafficClass: number): number {
  if (isRealTime(trafficClass)) return TIN_REAL;
  return trafficClass === CLASS_BULK ? TIN_BULK : TIN_LIVE;
}

/** A list of flows for each tin; links are the caller's column. */
class FlowLists {
  readonly head: Uint32Array;
  readonly #tail: Uint32Array;
  readonly #next: Uint32Array;

  constructor(tins: number, next: Uint32Array) {
    this.head = new Uint32Array(tins).fill(NONE);
    this.#tail = new Uint32Array(tins).fill(NONE);
    this.#next = next;
  }

  append(tin: number, flow: number): void {
    this.#next[flow] = NONE;
    if (this.head[tin] === NONE) this.head[tin] = flow;
    else this.#next[this.#tail[tin]] = flow;
    this.#tail[tin] = flow;
  }

  takeFirst(tin: number): void {
    this.head[tin] = this.#next[this.head[tin]];
  }

  after(flow: number): number {
    return this.#next[flow];
  }
}

/** The owner of what belongs to a flow beyond its number. */
export interface FlowOwner {
  flowEnded(flow: number): void;
  /** Bytes that the flow may send in each further turn; above 0. */
  quantum(flow: number): number;
}

/** Flows that have packets, or had some a moment ago, in the tins of many lines. */
export class Tins {
  /** By flow: its first and last packet, as the caller's places, and how many and how many bytes. */
  readonly first: Uint32Array;
  readonly last: Uint32Array;
  readonly packets: Uint32Array;
  readonly bytes: Uint32Array;
  /** By flow: the tin, TINS * line + TIN_*. */
  readonly tin: Uint32Array;
  /** By flow: the tin of its newest packet, where it goes when its turn comes. */
  readonly wanted: Uint32Array;
  /** By tin: packets in it. */
  readonly waiting: Uint32Array;
  readonly #deficit: Int32Array;
  readonly #new: FlowLists;
  readonly #old: FlowLists;
  readonly #free: Uint32Array;
  #freeCount: number;

  /** @param flows most flows at a time. */
  constructor(lines: number, flows: number) {
    this.first = new Uint32Array(flows).fill(NONE);
    this.last = new Uint32Array(flows).fill(NONE);
    this.packets = new Uint32Array(flows);
    this.bytes = new Uint32Array(flows);
    this.tin = new Uint32Array(flows);
    this.wanted = new Uint32Array(flows);
    this.waiting = new Uint32Array(TINS * lines);
    this.#deficit = new Int32Array(flows);
    const next = new Uint32Array(flows);
    this.#new = new FlowLists(TINS * lines, next);
    this.#old = new FlowLists(TINS * lines, next);
    this.#free = new Uint32Array(flows);
    for (let i = 0; i < flows; i++) this.#free[i] = flows - 1 - i;
    this.#freeCount = flows;
  }

  /** Flows that may still begin. */
  get room(): number {
    return this.#freeCount;
  }

  /** A flow without packets in the tin, or NONE when there are too many. The caller adds a packet before anything else. */
  begin(tin: number): number {
    if (this.#freeCount === 0) return NONE;
    const flow = this.#free[--this.#freeCount];
    this.tin[flow] = this.wanted[flow] = tin;
    this.#deficit[flow] = QUANTUM_BYTES;
    this.#new.append(tin, flow);
    return flow;
  }

  /** Counts a packet of `bytes` that was added to the flow. */
  added(flow: number, bytes: number): void {
    this.packets[flow]++;
    this.bytes[flow] += bytes;
    this.waiting[this.tin[flow]]++;
  }

  /** Counts the flow's first packet, of `bytes`, as removed, to be sent or dropped. */
  removed(flow: number, bytes: number): void {
    this.packets[flow]--;
    this.bytes[flow] -= bytes;
    this.waiting[this.tin[flow]]--;
  }

  /** Notes that the flow has used bytes of its turn. */
  spend(flow: number, bytes: number): void {
    this.#deficit[flow] -= bytes;
  }

  /**
   * The tin's next flow with a packet, or NONE. The owner is told of each flow that had no packet for a whole turn of the other
   * flows; its number may be given to another flow from then on.
   */
  nextFlow(tin: number, owner: FlowOwner): number {
    for (;;) {
      const isNew = this.#new.head[tin] !== NONE;
      const list = isNew ? this.#new : this.#old;
      const flow = list.head[tin];
      if (flow === NONE) return NONE;
      if (this.#deficit[flow] <= 0) {
        this.#deficit[flow] += owner.quantum(flow);
        this.#toOld(list, tin, flow);
        continue;
      }
      if (this.packets[flow] > 0) {
        if (this.wanted[flow] === tin) return flow;
        this.#move(list, tin, flow);
        continue;
      }
      // A new flow that was served goes behind the old ones before it ends, or it would come back as a new one at once.
      if (isNew && this.#old.head[tin] !== NONE) {
        this.#toOld(list, tin, flow);
        continue;
      }
      list.takeFirst(tin);
      this.#free[this.#freeCount++] = flow;
      owner.flowEnded(flow);
    }
  }

  /** Its class has changed: all of its packets go along, or they would overtake each other. */
  #move(list: FlowLists, tin: number, flow: number): void {
    const to = this.wanted[flow];
    list.takeFirst(tin);
    this.#old.append(to, flow);
    this.tin[flow] = to;
    this.waiting[tin] -= this.packets[flow];
    this.waiting[to] += this.packets[flow];
  }

  #toOld(list: FlowLists, tin: number, flow: number): void {
    list.takeFirst(tin);
    this.#old.append(tin, flow);
  }

  /**
   * The flow of the line that has the most bytes, or NONE: the one to lose packets when there are too many. Where
   * `owners` says by flow whose it is, only among those of `owner`.
   */
  fattest(line: number, owners?: Uint32Array, owner = 0): number {
    let fattest = NONE;
    for (let tin = TINS * line; tin < TINS * (line + 1); tin++) {
      fattest = this.#fattestIn(this.#new, tin, fattest, owners, owner);
      fattest = this.#fattestIn(this.#old, tin, fattest, owners, owner);
    }
    return fattest;
  }

  #fattestIn(list: FlowLists, tin: number, than: number, owners?: Uint32Array, owner = 0): number {
    let fattest = than;
    for (let flow = list.head[tin]; flow !== NONE; flow = list.after(flow)) {
      if (owners !== undefined && owners[flow] !== owner) continue;
      if (this.bytes[flow] > (fattest === NONE ? 0 : this.bytes[fattest])) fattest = flow;
    }
    return fattest;
  }
}
