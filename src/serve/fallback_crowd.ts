/**
 * Who is connected to the fallback, and who has to leave to make room. Invariant: connections are bounded in all, of one
 * source, and while nothing authentic has come from them; a newcomer is let in at the cost of the oldest unproven
 * connection of whoever has most of these, so that nobody locks others out by opening many. Proven connections have a room
 * of their own, bounded for each holder and in all, and leave for none but proven ones: nothing that is not authentic ends
 * them. Does not know which peer has proven itself: the thread that serves connections holds no keys.
 * Keeps PROTOCOL R88.
 */

/** One connection. */
export interface Visitor {
  /** What is one source: an IPv4 address or an IPv6 /64. */
  readonly source: string;
  /** What one peer may well have all of: an IPv4 address or an IPv6 /56 (RFC 6177). */
  readonly holder: string;
  /** What is one network, which may have many sources: an IPv4 /24 or an IPv6 /48. */
  readonly network: string;
  /** Ends the connection. */
  close(): void;
}

export interface CrowdLimits {
  all: number;
  unproven: number;
  ofOneSource: number;
  /** Proven ones. */
  ofOneHolder: number;
}

/** The bounds where there is room for `all` connections: a quarter of it is for those that have proven nothing yet. */
export function crowdLimits(all: number): CrowdLimits {
  return { all, unproven: Math.max(1, all >> 2), ofOneSource: 16, ofOneHolder: 16 };
}

export class Crowd<V extends Visitor> {
  readonly #limits: CrowdLimits;
  readonly #all = new Set<V>();
  readonly #ofSource = new Map<string, number>();
  /** By network, oldest first. */
  readonly #unproven = new Map<string, Set<V>>();
  #unprovenCount = 0;
  /** By holder, oldest first. */
  readonly #proven = new Map<string, Set<V>>();

  constructor(limits: CrowdLimits) {
    this.#limits = limits;
  }

  get size(): number {
    return this.#all.size;
  }

  /** Lets the visitor in, and closes another one where there is no room; false when there is none to be made. */
  enter(visitor: V): boolean {
    const { all, unproven, ofOneSource } = this.#limits;
    const { source, network } = visitor;
    if ((this.#ofSource.get(source) ?? 0) >= ofOneSource) {
      if (!this.#expel(oldestOf(this.#unproven.get(network), source))) return false;
    } else if (this.#all.size >= all || this.#unprovenCount >= unproven) {
      if (!this.#expel(this.#oldestOfGreediest())) return false;
    }
    this.#all.add(visitor);
    this.#ofSource.set(source, (this.#ofSource.get(source) ?? 0) + 1);
    const neighbours = this.#unproven.get(network) ?? new Set();
    this.#unproven.set(network, neighbours.add(visitor));
    this.#unprovenCount++;
    return true;
  }

  /**
   * Something authentic has come from the visitor. Its holder loses its oldest proven connection when it has too many, and
   * the holder that has most of them when there are too many in all; where nobody has two, the visitor finds no room.
   */
  prove(visitor: V): void {
    if (!this.#stopWaiting(visitor)) return;
    const { all, unproven, ofOneHolder } = this.#limits;
    const own = this.#proven.get(visitor.holder) ?? new Set();
    this.#proven.set(visitor.holder, own.add(visitor));
    if (own.size > ofOneHolder) this.#expel(firstOf(own));
    else if (this.#all.size - this.#unprovenCount > all - unproven) {
      const most = largestOf(this.#proven);
      this.#expel(most !== undefined && most.size > 1 ? firstOf(most) : visitor);
    }
  }

  /** The visitor's connection has ended, or ends now. */
  leave(visitor: V): void {
    if (!this.#all.delete(visitor)) return;
    this.#stopWaiting(visitor);
    removeFrom(this.#proven, visitor.holder, visitor);
    const left = this.#ofSource.get(visitor.source)! - 1;
    if (left > 0) this.#ofSource.set(visitor.source, left);
    else this.#ofSource.delete(visitor.source);
  }

  /** Closes everybody. */
  close(): void {
    for (const visitor of this.#all) this.#expel(visitor);
  }

  /** The oldest unproven visitor of the source that has most of them, in the network that has most of them. */
  #oldestOfGreediest(): V | undefined {
    const greediest = largestOf(this.#unproven);
    const counts = new Map<string, number>();
    let most: string | undefined;
    for (const { source } of greediest ?? []) {
      const count = (counts.get(source) ?? 0) + 1;
      counts.set(source, count);
      if (count > (counts.get(most ?? "") ?? 0)) most = source;
    }
    return most === undefined ? undefined : oldestOf(greediest, most);
  }

  /** Whether the visitor was among the unproven. */
  #stopWaiting(visitor: V): boolean {
    if (!removeFrom(this.#unproven, visitor.network, visitor)) return false;
    this.#unprovenCount--;
    return true;
  }

  #expel(visitor: V | undefined): boolean {
    if (visitor === undefined) return false;
    this.leave(visitor);
    visitor.close();
    return true;
  }
}

/** Takes the visitor out of the set of that name; whether it was there. */
function removeFrom<V>(sets: Map<string, Set<V>>, name: string, visitor: V): boolean {
  const set = sets.get(name);
  if (!set?.delete(visitor)) return false;
  if (set.size === 0) sets.delete(name);
  return true;
}

function largestOf<V>(sets: Map<string, Set<V>>): Set<V> | undefined {
  let largest: Set<V> | undefined;
  for (const set of sets.values()) if (set.size > (largest?.size ?? 0)) largest = set;
  return largest;
}

function firstOf<V>(visitors: Set<V>): V | undefined {
  return visitors.values().next().value;
}

/** The first visitor of the source. */
function oldestOf<V extends Visitor>(visitors: Set<V> | undefined, source: string): V | undefined {
  for (const visitor of visitors ?? []) if (visitor.source === source) return visitor;
  return undefined;
}
