// Hot path.
/**
 * Packets that wait for this thread, where more came in one turn than it carries at once: sorted by class and flow, sparse flows
 * first, so that a game never waits behind a transfer's burst. No rate is known or needed. Invariant: a waiting packet owns its
 * slot; waiting packets are bounded, and each peer's too; a flow's packets leave in the order in which they came; no tin starves.
 * Decides no route and reads no clock.
 */
import { type Arena, NONE } from "../vector/arena.ts";
import type { Burst } from "../vector/burst.ts";
import { IS_LOST, PASSES, WAITS } from "./queues.ts";
import { type FlowOwner, TIN_SHARES, tinOf, TINS, Tins } from "./tins.ts";
import { Waiting, type WaitingOptions } from "./waiting.ts";

/** Rows of one burst above which packets are sorted: nearly three super-packets of 64 KB, each cut into 45. */
export const BACKLOG_ROWS = 128;
/** CoDel's target and interval, microseconds: what waits here waits for a processor, whose round trips are short. */
export const TURN_CODEL = { targetUs: 1000, intervalUs: 20_000 };
/**
 * Bytes of a further turn of a flow, where its peer has no other: 16 full packets, so that datagrams leave and super-packets are
 * joined in runs. A peer's flows share it, as CAKE's hosts do, down to TURN_BYTES_MIN each.
 */
const TURN_BYTES = 24_224, TURN_BYTES_MIN = 1514;
/** Bytes by which a tin that had nothing to send may be behind the others. */
const BEHIND_BYTES = 65_536;
/**
 * To look for the flow to drop from costs more than a few packets: after a drop of fewer than THIN_PACKETS the peer has none looked
 * for before the next THIN_US, and with LOOKS_MAX such drops in that time nobody has. Microseconds.
 */
const THIN_PACKETS = 4, THIN_US = 1000, LOOKS_MAX = 8;

export interface TurnQueueOptions extends WaitingOptions {
  /** Rows of the table of flows. */
  flows: number;
  /** Peers are 0 to peers - 1. */
  peers: number;
  /**
   * How many times the room that is left one peer may have waiting, in packets and in flows. So peers that fill up, however many, leave
   * some for one more (as queues.ts, `#most`): with 3, one takes three quarters, two take three sevenths each. Infinity for one peer alone.
   */
  peerRoom: number;
  /** Told whose packets `waited`, `lost` and `marked` are of. */
  look: (peer: number) => void;
}

export class TurnQueue implements FlowOwner {
  readonly #packets: Waiting;
  readonly #tins: Tins;
  readonly #peerRoom: number;
  readonly #look: (peer: number) => void;
  /** By row of the table of flows: the flow among `#tins` plus one, or 0. */
  readonly #queueOf: Uint32Array;
  // By flow among `#tins`: its row in the table of flows, and its peer.
  readonly #rowOf: Uint32Array;
  readonly #peerOf: Uint32Array;
  /** By place: the packet's peer; NONE once the peer has been removed. */
  readonly #peer: Uint32Array;
  // By peer: packets that wait, and flows.
  readonly #packetsOf: Uint32Array;
  readonly #flowsOf: Uint32Array;
  /** Bytes sent, and by tin the bytes after which its share of them allows the next packet. */
  #sent = 0;
  readonly #tinDue = new Float64Array(TINS);
  /** By peer: the span of THIN_US in which no flow of its own is looked for; and drops of few packets in the present one. */
  readonly #thinnedIn: Uint32Array;
  #looks = 0;
  #span = 0;

  constructor(arena: Arena, options: TurnQueueOptions) {
    const { flows, peers, packets, peerRoom } = options;
    this.#tins = new Tins(1, packets);
    this.#packets = new Waiting(arena, this.#tins, options);
    this.#peerRoom = peerRoom;
    this.#look = options.look;
    this.#thinnedIn = new Uint32Array(peers).fill(NONE);
    this.#queueOf = new Uint32Array(flows);
    this.#rowOf = new Uint32Array(packets);
    this.#peerOf = new Uint32Array(packets);
    this.#peer = new Uint32Array(packets);
    this.#packetsOf = new Uint32Array(peers);
    this.#flowsOf = new Uint32Array(peers);
  }

  /** Packets that wait. */
  get packets(): number {
    return this.#packets.count;
  }

  /** Whether packets of a burst of `rows` rows are to be offered. */
  sorts(rows: number): boolean {
    return rows > BACKLOG_ROWS || this.#packets.count > 0;
  }

  /** Whether packets of the flow in this row of the table of flows wait. */
  holds(flowRow: number): boolean {
    return flowRow !== NONE && this.#queueOf[flowRow] > 0 &&
      this.#tins.packets[this.#queueOf[flowRow] - 1] > 0;
  }

  /** WAITS or IS_LOST, for the packet in `row`, whose peer, flow and class are known; PASSES for one without a flow. */
  offer(burst: Burst, row: number, nowUs: number): number {
    const flowRow = burst.flow[row], peer = burst.peer[row], tins = this.#tins;
    if (flowRow === NONE) return PASSES;
    if (!this.#hasRoom(peer, nowUs)) return IS_LOST;
    const tin = tinOf(burst.trafficClass[row]);
    let flow = this.#queueOf[flowRow] - 1;
    if (flow < 0) {
      // Flows without packets stay for a turn; a peer that has too many of them waits for its own to end.
      if (this.#flowsOf[peer] >= this.#peerRoom * tins.room) return IS_LOST;
      flow = tins.begin(tin);
      if (flow === NONE) return IS_LOST;
      this.#queueOf[flowRow] = flow + 1;
      this.#rowOf[flow] = flowRow;
      this.#peerOf[flow] = peer;
      this.#flowsOf[peer]++;
      this.#packets.begin(flow);
    }
    this.#peer[this.#packets.add(burst, row, flow, tin, nowUs)] = peer;
    this.#packetsOf[peer]++;
    return WAITS;
  }

  /** Whether one more of the peer's may wait: room is made at the cost of the largest flow, of the peer where the peer has too many. */
  #hasRoom(peer: number, nowUs: number): boolean {
    const { room } = this.#packets;
    const isPeerFull = this.#packetsOf[peer] >= this.#peerRoom * room;
    if (!isPeerFull && room > 0) return true;
    if (!this.#mayLook(peer, nowUs)) return false;
    const flow = this.#tins.fattest(0, isPeerFull ? this.#peerOf : undefined, peer);
    const packets = flow === NONE ? 0 : this.#packets.thinning(flow);
    if (packets < THIN_PACKETS) {
      this.#thinnedIn[peer] = this.#span;
      this.#looks++;
    }
    if (packets === 0) return false;
    this.#look(this.#peerOf[flow]);
    for (let left = packets; left > 0; left--) this.#packets.lose(this.#takeFirst(flow), "queue_overflow");
    return true;
  }

  #mayLook(peer: number, nowUs: number): boolean {
    const span = Math.floor(nowUs / THIN_US) >>> 0;
    if (this.#span !== span) {
      this.#span = span;
      this.#looks = 0;
    }
    return this.#thinnedIn[peer] !== span && this.#looks < LOOKS_MAX;
  }

  #takeFirst(flow: number): number {
    const place = this.#packets.takeFirst(flow);
    const peer = this.#peer[place];
    if (peer !== NONE) this.#packetsOf[peer]--;
    return place;
  }

  /**
   * Adds the next packet to the burst as a row whose next is `next`, and returns the row; -1 when none waits. The caller has
   * checked that the burst is not full, and sets the row's session.
   */
  take(burst: Burst, next: number, nowUs: number): number {
    const packets = this.#packets, tins = this.#tins;
    while (packets.count > 0) {
      const tin = this.#tinOfTurn();
      const flow = tins.nextFlow(tin, this);
      if (flow === NONE) continue; // its flows have gone to other tins
      const place = this.#takeFirst(flow), peer = this.#peer[place];
      if (peer === NONE) {
        packets.release(place);
        continue;
      }
      this.#look(peer);
      if (packets.isLost(flow, place, nowUs)) continue;
      const bytes = packets.length[place];
      tins.spend(flow, bytes);
      this.#tinDue[tin] = Math.max(this.#tinDue[tin], this.#sent - BEHIND_BYTES) + bytes / TIN_SHARES[tin];
      this.#sent += bytes;
      const row = packets.push(burst, place, peer, next, nowUs);
      if (packets.count === 0) this.#sweep();
      return row;
    }
    this.#sweep();
    return -1;
  }

  /** The first tin with packets that has had no more than its share of what was sent, else the one that is the least above. */
  #tinOfTurn(): number {
    let best = NONE, bestDue = Infinity;
    for (let tin = 0; tin < TINS; tin++) {
      if (this.#tins.waiting[tin] === 0) continue;
      const due = this.#tinDue[tin];
      if (due <= this.#sent) return tin;
      if (due < bestDue) {
        best = tin;
        bestDue = due;
      }
    }
    return best;
  }

  /** Ends flows without packets that are next in their tins; all of them where none has any. */
  #sweep(): void {
    for (let tin = 0; tin < TINS; tin++) this.#tins.nextFlow(tin, this);
  }

  quantum(flow: number): number {
    return Math.max(TURN_BYTES_MIN, TURN_BYTES / this.#flowsOf[this.#peerOf[flow]]);
  }

  flowEnded(flow: number): void {
    this.#flowsOf[this.#peerOf[flow]]--;
    const row = this.#rowOf[flow];
    if (this.#queueOf[row] === flow + 1) this.#queueOf[row] = 0;
  }

  /** Takes the peer's packets out of service: `take` drops them. To be called when the peer is removed. */
  release(peer: number): void {
    if (this.#packetsOf[peer] === 0) return;
    this.#packetsOf[peer] = 0;
    for (let place = 0; place < this.#peer.length; place++) {
      if (this.#peer[place] === peer) this.#peer[place] = NONE;
    }
  }
}
