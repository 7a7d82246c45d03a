/**
 * The states of a decompressor's context after its last packets, in the order in which these were sent. Where the caller
 * knows that order (a tunnel's authenticated counters), a packet that comes late is decoded against the state that it was
 * compressed after, and takes nothing from newer ones; where nobody does, the order is that of arrival. Invariant: memory
 * is `depth` states and one in the making; the oldest goes. Knows nothing of what a state holds.
 */
export class History<S> {
  /** The state in the making, which `keep` adds. */
  next: S;
  readonly #make: () => S;
  readonly #depth: number;
  readonly #states: S[] = [];
  readonly #orders: number[] = [];

  /** @param depth at least 1. */
  constructor(make: () => S, depth: number) {
    this.#make = make;
    this.#depth = depth;
    this.next = make();
  }

  /** The newest state of a packet sent before `order`; undefined if there is none. */
  before(order: number): S | undefined {
    let best = -1;
    for (let i = 0; i < this.#orders.length; i++) {
      if (this.#orders[i] < order && (best < 0 || this.#orders[i] > this.#orders[best])) best = i;
    }
    return best < 0 ? undefined : this.#states[best];
  }

  /** The greatest order that was kept; -1 before the first. */
  get newest(): number {
    let newest = -1;
    for (const order of this.#orders) newest = Math.max(newest, order);
    return newest;
  }

  /** Adds `next` as the state after the packet `order`, in place of the oldest when all are taken, unless that is newer. */
  keep(order: number): void {
    const { length } = this.#orders;
    if (length < this.#depth) {
      this.#states.push(this.next);
      this.#orders.push(order);
      this.next = this.#make();
      return;
    }
    let oldest = 0;
    for (let i = 1; i < length; i++) if (this.#orders[i] < this.#orders[oldest]) oldest = i;
    if (this.#orders[oldest] > order) return;
    const state = this.#states[oldest];
    this.#states[oldest] = this.next;
    this.#orders[oldest] = order;
    this.next = state;
  }
}
