// Hot path.
/**
 * What people want to know of the lines to peers: how long packets of each class waited, how many were marked and lost. Invariant:
 * memory is for PEERS_MAX peers at a time, the first that have packets at a line, each until it is gone; what is told of a further one is
 * not kept. Changes nothing that packets feel; reads no clock.
 */
import { type DelayCounts, Delays } from "../control/delays.ts";
import { CLASS_COUNT } from "../control/traffic_class.ts";

/** As many as there are lines (queues.ts). */
const PEERS_MAX = 512;

export type QueueLoss = "queue_delay" | "queue_stale" | "queue_overflow";

/** Of one peer's packets; counts since the peer's sessions began. */
export interface LineCounts {
  marked: number;
  drops: Record<QueueLoss, number>;
  /** By class, its waits of the last half minute; a packet that need not wait counts with 0. */
  waits: DelayCounts[];
}

export class LineFigures {
  /** By peer: its place plus one, or 0. */
  readonly #placeOf: Uint16Array;
  readonly #peer = new Uint32Array(PEERS_MAX);
  readonly #isUsed = new Uint8Array(PEERS_MAX);
  readonly #waits = new Delays(CLASS_COUNT * PEERS_MAX);
  readonly #marked = new Float64Array(PEERS_MAX);
  readonly #lost: Record<QueueLoss, Float64Array> = {
    queue_delay: new Float64Array(PEERS_MAX),
    queue_stale: new Float64Array(PEERS_MAX),
    queue_overflow: new Float64Array(PEERS_MAX),
  };
  readonly #free = new Uint16Array(PEERS_MAX);
  #freeCount = PEERS_MAX;
  /** The place of the peer that is being told of, or -1. */
  #place = -1;

  constructor(peers: number) {
    this.#placeOf = new Uint16Array(peers);
    for (let i = 0; i < PEERS_MAX; i++) this.#free[i] = PEERS_MAX - 1 - i;
  }

  /** The next calls tell of this peer's packets. */
  look(peer: number): void {
    this.#place = this.#placeOf[peer] - 1;
    if (this.#place < 0 && this.#freeCount > 0) this.#begin(peer);
  }

  #begin(peer: number): void {
    const place = this.#place = this.#free[--this.#freeCount];
    this.#placeOf[peer] = place + 1;
    this.#peer[place] = peer;
    this.#isUsed[place] = 1;
  }

  /** A packet of the class waited so long, microseconds; 0 for one that passed at once. */
  waited(trafficClass: number, waitedUs: number): void {
    if (this.#place >= 0) this.#waits.add(CLASS_COUNT * this.#place + trafficClass, waitedUs);
  }

  marked(): void {
    if (this.#place >= 0) this.#marked[this.#place]++;
  }

  lost(reason: QueueLoss): void {
    if (this.#place >= 0) this.#lost[reason][this.#place]++;
  }

  /** Lets what is past fade, and forgets the peers that `isGone` says are gone. */
  fade(isGone: (peer: number) => boolean): void {
    for (let place = 0; place < PEERS_MAX; place++) {
      if (this.#isUsed[place] === 0) continue;
      if (isGone(this.#peer[place])) this.forget(this.#peer[place]);
      else for (let i = 0; i < CLASS_COUNT; i++) this.#waits.fade(CLASS_COUNT * place + i);
    }
  }

  forget(peer: number): void {
    const place = this.#placeOf[peer] - 1;
    if (place < 0) return;
    this.#placeOf[peer] = this.#isUsed[place] = this.#marked[place] = 0;
    this.#lost.queue_delay[place] = this.#lost.queue_stale[place] = this.#lost.queue_overflow[place] = 0;
    for (let i = 0; i < CLASS_COUNT; i++) this.#waits.clear(CLASS_COUNT * place + i);
    this.#free[this.#freeCount++] = place;
    this.#place = -1;
  }

  /** What is known of the peer; undefined where it had no line. */
  of(peer: number): LineCounts | undefined {
    const place = this.#placeOf[peer] - 1;
    if (place < 0) return undefined;
    const waits: DelayCounts[] = [];
    for (let i = 0; i < CLASS_COUNT; i++) waits.push(this.#waits.counts(CLASS_COUNT * place + i));
    const { queue_delay, queue_stale, queue_overflow } = this.#lost;
    return {
      marked: this.#marked[place],
      drops: {
        queue_delay: queue_delay[place],
        queue_stale: queue_stale[place],
        queue_overflow: queue_overflow[place],
      },
      waits,
    };
  }
}
