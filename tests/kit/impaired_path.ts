/**
 * A bad path for real datagrams: a path model (channels.ts) applied to what two sockets exchange, since not every kernel has
 * netem. Invariant: what is lost and in which order the rest leaves follows from the model and from when datagrams came, never
 * from how late they are taken out; at most QUEUE_MAX wait. Owns no socket and reads no clock: tools/impair.ts does.
 */
import type { PathModel } from "./channels.ts";

export const QUEUE_MAX = 4096;
/** IPv4 and UDP headers, which path models count. */
const OUTER_BYTES = 28;
/** A datagram counts as delayed when it is held for this much longer than the quickest one, microseconds. */
const DELAYED_US = 1000;
/** The number of last datagrams whose lateness, release time minus due time, is kept. */
const REMEMBERED = 4096;

/** What became of the datagrams of one direction. */
export interface PathCounts {
  /** Datagrams that came, and their bytes, IPv4 and UDP headers included. */
  offered: number;
  bytes: number;
  /** Lost as the model says, and lost since QUEUE_MAX waited. */
  dropped: number;
  overflowed: number;
  passed: number;
  /** Of the offered ones, held for a millisecond more than the quickest. */
  delayed: number;
  /** Microseconds after the model's time that the last few thousand were let go. */
  lateUsP50: number;
  lateUsP99: number;
  lateUsMax: number;
}

/** One direction of a bad path. */
export class ImpairedPath<Item> {
  readonly #model: PathModel;
  /** In the order of departure. */
  readonly #waiting: { atUs: number; item: Item }[] = [];
  readonly #lateUs: number[] = [];
  #quickestUs = Infinity;
  #offered = 0;
  #bytes = 0;
  #dropped = 0;
  #overflowed = 0;
  #passed = 0;
  #delayed = 0;

  constructor(model: PathModel) {
    this.#model = model;
  }

  /** When the next datagram is to be let go; Infinity when none waits. */
  get nextUs(): number {
    return this.#waiting.length === 0 ? Infinity : this.#waiting[0].atUs;
  }

  /** Takes a datagram with `payloadBytes` of UDP payload; returns whether the path will deliver it. `nowUs` never decreases. */
  offer(item: Item, payloadBytes: number, nowUs: number): boolean {
    const bytes = payloadBytes + OUTER_BYTES;
    this.#offered++;
    this.#bytes += bytes;
    const atUs = this.#model.arrivalUs(nowUs, bytes);
    if (atUs === Infinity) {
      this.#dropped++;
      return false;
    }
    const waiting = this.#waiting;
    if (waiting.length === QUEUE_MAX) {
      this.#overflowed++;
      return false;
    }
    this.#quickestUs = Math.min(this.#quickestUs, atUs - nowUs);
    if (atUs - nowUs > this.#quickestUs + DELAYED_US) this.#delayed++;
    // Nearly all come in order, so the place is near the end.
    let place = waiting.length;
    while (place > 0 && waiting[place - 1].atUs > atUs) place--;
    waiting.splice(place, 0, { atUs, item });
    return true;
  }

  /** The next datagram whose time has come, if there is one. */
  take(nowUs: number): Item | undefined {
    if (this.nextUs > nowUs) return undefined;
    const { atUs, item } = this.#waiting.shift()!;
    this.#lateUs[this.#passed++ % REMEMBERED] = nowUs - atUs;
    return item;
  }

  counts(): PathCounts {
    const late = this.#lateUs.toSorted((a, b) => a - b);
    const at = (rank: number) => Math.round(late[Math.ceil(rank * late.length) - 1] ?? 0);
    return {
      offered: this.#offered,
      bytes: this.#bytes,
      dropped: this.#dropped,
      overflowed: this.#overflowed,
      passed: this.#passed,
      delayed: this.#delayed,
      lateUsP50: at(0.5),
      lateUsP99: at(0.99),
      lateUsMax: at(1),
    };
  }
}
