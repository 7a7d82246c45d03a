// Hot path.
/**
 * Packets that wait for their line, the way to one peer whose rate is known: which packet is next (tins.ts), when the line is free
 * again, and which packets are dropped instead (codel.ts, deadlines, bounds). Invariant: a waiting packet owns its slot until
 * the packet is taken or dropped; waiting packets are bounded over all lines, by line and by flow; a free line passes packets
 * on untouched. Knows peers by their number, no sessions; reads no clock.
 * Keeps PROTOCOL R100.
 * Long because places, lines and tins are columns that every operation on a packet touches together.
 */
import { isRealTime } from "../control/traffic_class.ts";
import { Timers } from "../session/timers.ts";
import { type Arena, NONE } from "../vector/arena.ts";
import type { Burst } from "../vector/burst.ts";
import type { LineFigures, QueueLoss } from "./line_figures.ts";
import { type FlowOwner, QUANTUM_BYTES, TIN_REAL, TIN_SHARES, tinOf, TINS, Tins } from "./tins.ts";
import { Waiting, type WaitingOptions } from "./waiting.ts";

/** Lines at a time: peers with a rate. */
export const LINES_MAX = 512;
/** Packets of one flow that may wait. */
const FLOW_PACKETS_MAX = 512;
/** One line may hold 1 / LINE_SHARE of all packets that may wait. */
const LINE_SHARE = 4;
/** The least time between two drops of a line's largest flow; a packet that finds the queue full before then is dropped. */
const THIN_US = 1000;
/**
 * Sending time that a line may make up for, microseconds: LATE_US while packets wait, since the timer may fire late; SILENCE_US
 * while none wait. SLEEP_US is the least time from one turn of a line to its next.
 */
const LATE_US = 10_000, SILENCE_US = 1000, SLEEP_US = 500;
/** How far packets of games and calls may run ahead of their line's rate before they wait too, microseconds. */
const REAL_AHEAD_US = 5000;
/** A line that sent nothing for IDLE_US (microseconds) may be given to another peer; each search looks at RECLAIM_LOOKS lines. */
const IDLE_US = 1_000_000, RECLAIM_LOOKS = 8;

export interface QueueOptions extends WaitingOptions {
  /** Rows of the table of flows. */
  flows: number;
  /** Peers are 0 to peers - 1. */
  peers: number;
  /** The rate of peers for which neither `setRate` nor `setOwnDefault` was called, bytes a second as there; 0 for no limit. */
  bytesPerS: number;
  findsRates: boolean;
  /** Told whose packets `waited`, `lost` and `marked` are of, and whose come to a line. */
  figures?: LineFigures;
}

// What `offer` did with a packet, here and in turn_queue.ts.
/** The line is free: the packet is sent now and charged to the line. */
export const PASSES = 0;
/** The packet waits; the queue owns its slot. */
export const WAITS = 1;
/** There is no room: the caller drops the packet. */
export const IS_LOST = 2;

export type { QueueLoss };

export class Queues implements FlowOwner {
  readonly #o: QueueOptions;
  readonly #tins: Tins;
  readonly #due: Timers;
  /** By peer: its line plus one, or 0. */
  readonly #lineOf: Uint16Array;
  /** By peer: its own default rate, bytes a second; 0 without one. And how many have one. */
  readonly #ownDefault: Float64Array;
  #ownDefaults = 0;
  /** By peer: 1 for a peer that gets no line. */
  readonly #isExempt: Uint8Array;
  /** By row of the table of flows: the flow among `#tins` plus one, or 0. */
  readonly #queueOf: Uint32Array;
  // By line.
  readonly #peer = new Uint32Array(LINES_MAX);
  /** The rate as it was given, bytes a second; 0 where it was taken back. */
  readonly #bytesPerS = new Float64Array(LINES_MAX);
  /** Microseconds a byte. */
  readonly #usPerByte = new Float64Array(LINES_MAX);
  /** When the bytes that were sent will have left the line, microseconds. */
  readonly #clockUs = new Float64Array(LINES_MAX);
  /** Bytes charged since `settle` was last told what went. */
  readonly #charged = new Float64Array(LINES_MAX);
  readonly #waiting = new Uint32Array(LINES_MAX);
  /** Flows that have packets, or had some in the last turn. */
  readonly #flows = new Uint32Array(LINES_MAX);
  /** When the line may drop packets of its largest flow again, microseconds. */
  readonly #thinAgainUs = new Float64Array(LINES_MAX);
  /** 1 where the line's rate is its peer's default. */
  readonly #isDefault = new Uint8Array(LINES_MAX);
  /** The line that `#reclaim` looked at last. */
  #hand = 0;
  readonly #freeLines = new Uint16Array(LINES_MAX);
  #freeLineCount = LINES_MAX;
  /** By tin: when its share of the rate will have sent the bytes taken from the tin, microseconds. */
  readonly #tinClockUs = new Float64Array(TINS * LINES_MAX);
  readonly #packets: Waiting;
  /** Packets, and flows, that one line may hold. */
  readonly #linePacketsMax: number;
  /** By flow among `#tins`: its row in the table of flows. */
  readonly #rowOf: Uint32Array;

  constructor(arena: Arena, options: QueueOptions) {
    const { flows, peers, packets } = options;
    this.#o = options;
    this.#tins = new Tins(LINES_MAX, packets);
    this.#packets = new Waiting(arena, this.#tins, options);
    this.#due = new Timers(LINES_MAX);
    this.#lineOf = new Uint16Array(peers);
    this.#ownDefault = new Float64Array(peers);
    this.#isExempt = new Uint8Array(peers);
    this.#queueOf = new Uint32Array(flows);
    for (let i = 0; i < LINES_MAX; i++) this.#freeLines[i] = LINES_MAX - 1 - i;
    this.#linePacketsMax = packets / LINE_SHARE;
    this.#rowOf = new Uint32Array(packets);
  }

  /** Whether the rates of lines are estimated from the reports of paths. */
  get findsRates(): boolean {
    return this.#o.findsRates;
  }

  /** Whether no peer has a line or gets one: the caller then need not offer packets. */
  get isIdle(): boolean {
    return this.#freeLineCount === LINES_MAX && this.#o.bytesPerS === 0 && this.#ownDefaults === 0;
  }

  /** Peers that have a line. */
  get lines(): number {
    return LINES_MAX - this.#freeLineCount;
  }

  /** Packets that wait. */
  get packets(): number {
    return this.#packets.count;
  }

  /** When a line with packets that wait is free again, in microseconds, or Infinity. */
  get nextUs(): number {
    return this.#due.nextUs;
  }

  /**
   * Sets the rate of the peer's line, which is made when the peer has none: bytes a second of whole datagrams, IP and UDP headers
   * counted. 0 removes the line, and its waiting packets are sent at once. False when all lines are taken: the peer's packets
   * are then sent without waiting.
   */
  setRate(peer: number, bytesPerS: number, nowUs: number): boolean {
    let line = this.#lineOf[peer] - 1;
    if (bytesPerS <= 0 || this.#isExempt[peer] === 1) {
      if (line >= 0) this.#open(line, nowUs);
      return true;
    }
    if (line < 0) line = this.#begin(peer, nowUs);
    if (line < 0) return false;
    this.#isDefault[line] = 0;
    this.#rescale(line, bytesPerS, nowUs);
    return true;
  }

  /** Changes the rate, and scales the time charged for bytes that are still to leave, which was charged at the former rate. */
  #rescale(line: number, bytesPerS: number, nowUs: number): void {
    const before = this.#usPerByte[line], usPerByte = 1e6 / bytesPerS;
    this.#bytesPerS[line] = bytesPerS;
    this.#usPerByte[line] = usPerByte;
    if (before === usPerByte) return;
    const share = before > 0 ? usPerByte / before : 0;
    this.#clockUs[line] = nowUs + share * Math.max(0, this.#clockUs[line] - nowUs);
    for (let tin = TINS * line; tin < TINS * (line + 1); tin++) {
      this.#tinClockUs[tin] = nowUs + share * Math.max(0, this.#tinClockUs[tin] - nowUs);
    }
    if (this.#waiting[line] > 0) this.#due.set(line, this.#clockUs[line]);
  }

  /** The peer's default rate, bytes a second as for `setRate`; 0 without one. */
  defaultOf(peer: number): number {
    if (this.#isExempt[peer] === 1) return 0;
    return this.#ownDefault[peer] > 0 ? this.#ownDefault[peer] : this.#o.bytesPerS;
  }

  hasOwnDefault(peer: number): boolean {
    return this.#ownDefault[peer] > 0;
  }

  /** Whether the peer's packets never wait, whatever rates are set for it. */
  setExempt(peer: number, isExempt: boolean, nowUs: number): void {
    this.#isExempt[peer] = isExempt ? 1 : 0;
    if (isExempt) this.setRate(peer, 0, nowUs);
  }

  /** The rate of the peer's line, bytes a second as for `setRate`: the default one before its first packet; 0 for none. */
  rateOf(peer: number): number {
    const line = this.#lineOf[peer] - 1;
    return line < 0 ? this.defaultOf(peer) : this.#bytesPerS[line];
  }

  /** Gives the peer a default rate of its own in place of the options', or takes it back (0). */
  setOwnDefault(peer: number, bytesPerS: number, nowUs: number): void {
    const before = this.#ownDefault[peer];
    this.#ownDefault[peer] = bytesPerS;
    this.#ownDefaults += (bytesPerS > 0 ? 1 : 0) - (before > 0 ? 1 : 0);
    const line = this.#lineOf[peer] - 1;
    if (line >= 0 && this.#isDefault[line] === 1) this.useDefault(peer, nowUs);
  }

  /** Drops the rate that was set for the peer: the line has the default rate from now on, or is removed where that is 0. */
  useDefault(peer: number, nowUs: number): void {
    const line = this.#lineOf[peer] - 1, bytesPerS = this.defaultOf(peer);
    if (line < 0) return;
    if (bytesPerS === 0) {
      this.#open(line, nowUs);
      return;
    }
    this.#isDefault[line] = 1;
    this.#rescale(line, bytesPerS, nowUs);
  }

  /** Whether the peer's packets are bounded by a rate, from the next one on if none came yet, or wait for one that is gone. */
  bounds(peer: number): boolean {
    return this.#lineOf[peer] > 0 || this.defaultOf(peer) > 0;
  }

  /** Makes a line for a peer without one, if need be in place of an idle line of another peer; -1 when no line is idle. */
  #begin(peer: number, nowUs: number): number {
    if (this.#freeLineCount === 0) this.#reclaim(nowUs);
    if (this.#freeLineCount === 0) return -1;
    const line = this.#freeLines[--this.#freeLineCount];
    this.#lineOf[peer] = line + 1;
    this.#peer[line] = peer;
    this.#clockUs[line] = nowUs;
    this.#charged[line] = 0;
    this.#tinClockUs.fill(nowUs, TINS * line, TINS * (line + 1));
    return line;
  }

  /** Frees a line of default rate whose peer sent nothing for IDLE_US; looks at RECLAIM_LOOKS lines. */
  #reclaim(nowUs: number): void {
    for (let i = 0; i < RECLAIM_LOOKS; i++) {
      const line = this.#hand = (this.#hand + 1) % LINES_MAX;
      if (this.#isDefault[line] === 0 || this.#waiting[line] > 0 || this.#clockUs[line] > nowUs - IDLE_US) {
        continue;
      }
      this.#close(line);
      return;
    }
  }

  /** Removes the rate: all waiting packets may be sent. */
  #open(line: number, nowUs: number): void {
    this.#usPerByte[line] = this.#bytesPerS[line] = 0;
    if (this.#waiting[line] === 0) this.#close(line);
    else this.#due.set(line, nowUs);
  }

  #close(line: number): void {
    this.#sweep(line);
    this.#due.set(line, Infinity);
    this.#lineOf[this.#peer[line]] = 0;
    this.#freeLines[this.#freeLineCount++] = line;
  }

  /**
   * PASSES, WAITS or IS_LOST, for the packet in `row`, whose peer, flow and class are known. The caller marks a row that waits
   * as HELD. @param overheadBytes what the tunnel adds to it on the wire.
   */
  offer(burst: Burst, row: number, overheadBytes: number, nowUs: number): number {
    let line = this.#lineOf[burst.peer[row]] - 1;
    if (line < 0) {
      const bytesPerS = this.defaultOf(burst.peer[row]);
      if (bytesPerS === 0 || !this.setRate(burst.peer[row], bytesPerS, nowUs)) return PASSES;
      line = this.#lineOf[burst.peer[row]] - 1;
      this.#isDefault[line] = 1;
    }
    const trafficClass = burst.trafficClass[row], flowRow = burst.flow[row];
    const tin = TINS * line + tinOf(trafficClass);
    const isReal = isRealTime(trafficClass);
    const isBusy = this.#clockUs[line] > nowUs + (isReal ? REAL_AHEAD_US : 0);
    const waiting = isReal ? this.#tins.waiting[tin] : this.#waiting[line];
    const flow = this.#flowOf(flowRow, line);
    // A packet without a flow is one of the tunnel's own, or malformed.
    const hasFlow = flowRow !== NONE;
    if (hasFlow && (isBusy || waiting > 0 || flow !== NONE && this.#tins.packets[flow] > 0)) {
      return this.#enqueue(burst, row, line, flow, nowUs);
    }
    this.#charge(line, tin, burst.length[row] + overheadBytes, nowUs - SILENCE_US);
    this.#o.figures?.look(burst.peer[row]); // it is told of from now on
    return PASSES;
  }

  /** The flow's queue on the line, or NONE. A row of the table of flows may have become another peer's flow meanwhile. */
  #flowOf(flowRow: number, line: number): number {
    if (flowRow === NONE) return NONE;
    const flow = this.#queueOf[flowRow] - 1;
    return flow >= 0 && Math.floor(this.#tins.tin[flow] / TINS) === line ? flow : NONE;
  }

  #charge(line: number, tin: number, bytes: number, leastUs: number): void {
    const us = bytes * this.#usPerByte[line];
    this.#charged[line] += bytes;
    this.#clockUs[line] = Math.max(this.#clockUs[line], leastUs) + us;
    this.#tinClockUs[tin] = Math.max(this.#tinClockUs[tin], leastUs) + us / TIN_SHARES[tin % TINS];
  }

  /**
   * Corrects what the peer's line was charged: `bytes` have gone in datagrams with packets, IP and UDP headers counted. What was
   * left out, compressed or sent together costs the line nothing, and padding, repairs and reports on board cost what they are; else
   * a found rate, which counts the same datagrams, would fall from probe to probe. Packets that were charged and are still held count when they go.
   */
  settle(peer: number, bytes: number, nowUs: number): void {
    const line = this.#lineOf[peer] - 1;
    if (line < 0) return;
    const excess = bytes - this.#charged[line];
    this.#charged[line] = 0;
    if (excess === 0) return;
    this.#clockUs[line] = Math.max(this.#clockUs[line] + excess * this.#usPerByte[line], nowUs - LATE_US);
    if (excess < 0 && this.#waiting[line] > 0) {
      this.#due.set(line, Math.max(this.#clockUs[line], nowUs + SLEEP_US));
    }
  }

  #enqueue(burst: Burst, row: number, line: number, known: number, nowUs: number): number {
    const tins = this.#tins, flowRow = burst.flow[row];
    if (!this.#hasRoom(line, nowUs)) return IS_LOST;
    let flow = known;
    if (flow === NONE) {
      // Flows without packets stay for a turn, and leave as much to other lines as packets do.
      if (this.#flows[line] >= Math.min(this.#most, tins.room)) this.#sweep(line);
      if (this.#flows[line] >= Math.min(this.#most, tins.room)) return IS_LOST;
      flow = tins.begin(TINS * line + tinOf(burst.trafficClass[row]));
      if (flow === NONE) return IS_LOST;
      this.#flows[line]++;
      this.#queueOf[flowRow] = flow + 1;
      this.#rowOf[flow] = flowRow;
      this.#packets.begin(flow);
    }
    this.#packets.add(burst, row, flow, TINS * line + tinOf(burst.trafficClass[row]), nowUs);
    if (this.#waiting[line]++ === 0) this.#due.set(line, Math.max(this.#clockUs[line], nowUs));
    if (tins.packets[flow] > FLOW_PACKETS_MAX) this.#loseFirst(line, flow, "queue_overflow");
    return WAITS;
  }

  /**
   * Packets, and flows, that the line may hold: a share of all, and no more than there is room left for. So lines that fill up,
   * however many, leave as much to one more (Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet
   * switches", IEEE/ACM Transactions on Networking 6(2), 1998).
   */
  get #most(): number {
    return Math.min(this.#linePacketsMax, this.#packets.room);
  }

  /** Whether one more may wait for the line: made, if need be, at the cost of its own largest flow. */
  #hasRoom(line: number, nowUs: number): boolean {
    if (this.#waiting[line] < this.#most) return true;
    // To look through all flows for each packet would cost more than they do.
    if (nowUs < this.#thinAgainUs[line]) return false;
    this.#thinAgainUs[line] = nowUs + THIN_US;
    this.#thin(line);
    return this.#waiting[line] < this.#most;
  }

  /** Drops packets of the line's fattest flow, from its head. */
  #thin(line: number): void {
    const flow = this.#tins.fattest(line);
    if (flow === NONE) return;
    for (let left = this.#packets.thinning(flow); left > 0; left--) {
      this.#loseFirst(line, flow, "queue_overflow");
    }
  }

  #loseFirst(line: number, flow: number, reason: QueueLoss): void {
    this.#o.figures?.look(this.#peer[line]);
    this.#packets.lose(this.#takeFirst(line, flow), reason);
  }

  /** The place of the flow's first packet, which waits no longer (`Waiting.takeFirst`). */
  #takeFirst(line: number, flow: number): number {
    this.#waiting[line]--;
    return this.#packets.takeFirst(flow);
  }

  /** The peer of a line that is free and has packets, or NONE. `take` until it says no. */
  ready(nowUs: number): number {
    if (this.#due.nextUs > nowUs) return NONE;
    const line = this.#due.takeExpired(nowUs);
    this.#due.set(line, nowUs);
    return this.#peer[line];
  }

  /**
   * Adds the peer's next packet to the burst, with `overheadBytes` charged beside its own, and returns its row; -1 when the
   * line is busy again or has no more. The caller has checked that the burst is not full, and sets the row's session.
   * @param isFull whether so much is on its way that only packets of games and calls may follow. @param rttUs the path's round trip; 0
   * where it is not known.
   */
  take(
    burst: Burst,
    peer: number,
    next: number,
    overheadBytes: number,
    nowUs: number,
    isFull = false,
    rttUs = 0,
  ): number {
    const line = this.#lineOf[peer] - 1;
    this.#o.figures?.look(peer);
    while (this.#waiting[line] > 0 && (this.#usPerByte[line] === 0 || this.#clockUs[line] <= nowUs)) {
      const tin = isFull ? TINS * line + TIN_REAL : this.#tinOfTurn(line, nowUs);
      if (this.#tins.waiting[tin] === 0) break;
      const flow = this.#tins.nextFlow(tin, this);
      if (flow === NONE) continue; // its flows have gone to other tins
      const place = this.#takeFirst(line, flow);
      if (this.#packets.isLost(flow, place, nowUs, rttUs)) continue;
      const bytes = this.#packets.length[place] + overheadBytes;
      this.#tins.spend(flow, bytes);
      this.#charge(line, tin, bytes, nowUs - LATE_US);
      return this.#packets.push(burst, place, peer, next, nowUs);
    }
    this.#rest(line, nowUs);
    return -1;
  }

  /** Ends the line's turn: sets when the next one is due, or closes a line without packets and rate. */
  #rest(line: number, nowUs: number): void {
    if (this.#waiting[line] > 0) {
      this.#due.set(line, Math.max(this.#clockUs[line], nowUs + SLEEP_US));
    } else if (this.#usPerByte[line] === 0) {
      this.#close(line);
    } else {
      this.#sweep(line);
      this.#due.set(line, Infinity);
    }
  }

  /** Ends flows without packets that are next in the line's tins; all of them where none has any. */
  #sweep(line: number): void {
    for (let tin = TINS * line; tin < TINS * (line + 1); tin++) this.#tins.nextFlow(tin, this);
  }

  /** The first tin with packets that is below its share of the rate, else the one that is the least above its share. */
  #tinOfTurn(line: number, nowUs: number): number {
    let best = NONE, bestUs = Infinity;
    for (let tin = TINS * line; tin < TINS * (line + 1); tin++) {
      if (this.#tins.waiting[tin] === 0) continue;
      const clockUs = this.#tinClockUs[tin];
      if (clockUs <= nowUs) return tin;
      if (clockUs < bestUs) {
        best = tin;
        bestUs = clockUs;
      }
    }
    return best;
  }

  /** Gives back the lines of peers that `isGone` says are gone, where nothing waits. */
  forget(isGone: (peer: number) => boolean): void {
    for (let line = 0; line < LINES_MAX; line++) {
      const peer = this.#peer[line];
      if (this.#lineOf[peer] === line + 1 && this.#waiting[line] === 0 && isGone(peer)) this.#close(line);
    }
  }

  /** Drops the peer's waiting packets and removes its line; returns the number of packets. */
  release(peer: number): number {
    const packets = this.clear(peer);
    const line = this.#lineOf[peer] - 1;
    if (line >= 0) this.#close(line);
    return packets;
  }

  /** Drops the peer's waiting packets; returns their number. */
  clear(peer: number): number {
    const line = this.#lineOf[peer] - 1;
    if (line < 0) return 0;
    const packets = this.#waiting[line];
    for (let tin = TINS * line; tin < TINS * (line + 1); tin++) {
      for (;;) {
        const flow = this.#tins.nextFlow(tin, this);
        if (flow === NONE) break;
        this.#packets.release(this.#takeFirst(line, flow));
      }
    }
    this.#due.set(line, Infinity);
    return packets;
  }

  /** Bytes of a flow's turn: a full packet. */
  quantum(): number {
    return QUANTUM_BYTES;
  }

  /** Forgets where the flow's packets wait. Its row may lead to another peer's flow by now. */
  flowEnded(flow: number): void {
    this.#flows[Math.floor(this.#tins.tin[flow] / TINS)]--;
    const row = this.#rowOf[flow];
    if (this.#queueOf[row] === flow + 1) this.#queueOf[row] = 0;
  }

  /** Packets of the peer that wait now. */
  waitingOf(peer: number): number {
    const line = this.#lineOf[peer] - 1;
    return line < 0 ? 0 : this.#waiting[line];
  }
}
