// Hot path.
/**
 * What people want to know of packets that wait: how long packets of each class did, all together and to each peer, and how many to each
 * peer were marked and lost. Invariant: every packet that comes to a queue's step counts once, with 0 where it need not wait; memory is for
 * PEERS_MAX peers at a time, the first whose packets come to a line or wait for the thread, each until it is gone or nothing is left to
 * tell; what is told of a further one counts among all only. Changes nothing that packets feel; reads no clock.
 */
import { delayFigures } from "../control/delay_figures.ts";
import { type DelayCounts, Delays } from "../control/delays.ts";
import { CLASS_COUNT } from "../control/traffic_class.ts";
import { NONE } from "../vector/arena.ts";
import type { Burst } from "../vector/burst.ts";

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

export interface WaitCounters {
  /** Packets of the class waited so long, microseconds each; 0 where they need not. */
  waited(trafficClass: number, waitedUs: number, packets: number): void;
}

export class LineFigures {
  readonly #counters: WaitCounters;
  /** By peer: its place plus one, or 0. */
  readonly #placeOf: Uint16Array;
  readonly #peer = new Uint32Array(PEERS_MAX);
  readonly #isUsed = new Uint8Array(PEERS_MAX);
  /** By place and class; those of all packets are behind the last place's. */
  readonly #waits = new Delays(CLASS_COUNT * (PEERS_MAX + 1));
  readonly #passedByClass = new Uint32Array(CLASS_COUNT);
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

  /** @param counters told of each packet once. */
  constructor(peers: number, counters: WaitCounters) {
    this.#counters = counters;
    this.#placeOf = new Uint16Array(peers);
    for (let i = 0; i < PEERS_MAX; i++) this.#free[i] = PEERS_MAX - 1 - i;
  }

  /** The next calls tell of this peer's packets; NONE where they are no peer's. */
  look(peer: number): void {
    this.#place = peer === NONE ? -1 : this.#placeOf[peer] - 1;
    if (this.#place < 0 && peer !== NONE && this.#freeCount > 0) this.#begin(peer);
  }

  #begin(peer: number): void {
    const place = this.#place = this.#free[--this.#freeCount];
    this.#placeOf[peer] = place + 1;
    this.#peer[place] = peer;
    this.#isUsed[place] = 1;
  }

  /** A packet of the class waited so long, microseconds. */
  waited(trafficClass: number, waitedUs: number): void {
    this.#add(this.#place, trafficClass, waitedUs, 1);
  }

  /** The burst's rows with bytes whose next is `step` need not wait. @param isToPeers whether they are on their way to their rows' peers. */
  passed({ count, next, length, peer, trafficClass }: Burst, step: number, isToPeers: boolean): void {
    const byClass = this.#passedByClass.fill(0), hasPlaces = isToPeers && this.#freeCount < PEERS_MAX;
    // A peer's packets come in runs.
    let packets = 0, ofPeer = NONE, lastClass = 0, place = -1, at = 0;
    for (let row = 0; row < count; row++) {
      if (next[row] !== step || length[row] === 0) continue;
      const ofClass = trafficClass[row];
      byClass[ofClass]++;
      if (!hasPlaces) continue;
      if (peer[row] !== ofPeer || ofClass !== lastClass) {
        if (packets > 0) this.#waits.add(at, 0, packets);
        ofPeer = peer[row];
        lastClass = ofClass;
        place = this.#placeOf[ofPeer] - 1;
        at = CLASS_COUNT * place + ofClass;
        packets = 0;
      }
      if (place >= 0) packets++;
    }
    if (packets > 0) this.#waits.add(at, 0, packets);
    for (let i = 0; i < CLASS_COUNT; i++) if (byClass[i] > 0) this.#add(-1, i, 0, byClass[i]);
  }

  #add(place: number, trafficClass: number, waitedUs: number, packets: number): void {
    this.#counters.waited(trafficClass, waitedUs, packets);
    this.#waits.add(CLASS_COUNT * PEERS_MAX + trafficClass, waitedUs, packets);
    if (place >= 0) this.#waits.add(CLASS_COUNT * place + trafficClass, waitedUs, packets);
  }

  marked(): void {
    if (this.#place >= 0) this.#marked[this.#place]++;
  }

  lost(reason: QueueLoss): void {
    if (this.#place >= 0) this.#lost[reason][this.#place]++;
  }

  /** Lets what is past fade, and forgets the peers that `isGone` says are gone, and those of which nothing is left to tell. */
  fade(isGone: (peer: number) => boolean): void {
    for (let place = 0; place <= PEERS_MAX; place++) {
      if (place < PEERS_MAX && this.#isUsed[place] === 0) continue;
      for (let i = 0; i < CLASS_COUNT; i++) this.#waits.fade(CLASS_COUNT * place + i);
      if (place === PEERS_MAX) break;
      if (isGone(this.#peer[place]) || this.#isBlank(place)) this.forget(this.#peer[place]);
    }
  }

  #isBlank(place: number): boolean {
    const { queue_delay, queue_stale, queue_overflow } = this.#lost;
    if (this.#marked[place] + queue_delay[place] + queue_stale[place] + queue_overflow[place] > 0) {
      return false;
    }
    for (let i = 0; i < CLASS_COUNT; i++) {
      if (delayFigures(this.#waits.counts(CLASS_COUNT * place + i)) !== undefined) return false;
    }
    return true;
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

  /** What is known of the peer; undefined where it has no place. */
  of(peer: number): LineCounts | undefined {
    const place = this.#placeOf[peer] - 1;
    if (place < 0) return undefined;
    const { queue_delay, queue_stale, queue_overflow } = this.#lost;
    return {
      marked: this.#marked[place],
      drops: {
        queue_delay: queue_delay[place],
        queue_stale: queue_stale[place],
        queue_overflow: queue_overflow[place],
      },
      waits: this.#classes(place),
    };
  }

  /** By class, the waits of all packets in the last half minute. */
  ofAll(): DelayCounts[] {
    return this.#classes(PEERS_MAX);
  }

  #classes(place: number): DelayCounts[] {
    const classes: DelayCounts[] = [];
    for (let i = 0; i < CLASS_COUNT; i++) classes.push(this.#waits.counts(CLASS_COUNT * place + i));
    return classes;
  }
}
