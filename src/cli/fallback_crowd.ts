/**
 * Who is connected to the fallback, and who has to leave to make room. Invariant: connections are bounded in all, of one
 * source, and while nothing authentic has come from them; a newcomer is let in at the cost of the oldest unproven
 * connection of whoever has most of these, so that nobody locks others out by opening many. Closes nothing that is proven.
 * Keeps PROTOCOL R88.
 */

/** One connection. */
export interface Visitor {
  /** What is one source: an IPv4 address or an IPv6 /64. */
  readonly source: string;
  /** What is one network, which may have many sources: an IPv4 /24 or an IPv6 /48. */
  readonly network: string;
  /** Ends the connection. */
  close(): void;
}

export interface CrowdLimits {
  all: number;
  unproven: number;
  ofOneSource: number;
}

export class Crowd<V extends Visitor> {
  readonly #limits: CrowdLimits;
  readonly #all = new Set<V>();
  readonly #ofSource = new Map<string, number>();
  /** By network, oldest first. */
  readonly #unproven = new Map<string, Set<V>>();
  #unprovenCount = 0;

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

  /** Something authentic has come from the visitor. */
  prove(visitor: V): void {
    const neighbours = this.#unproven.get(visitor.network);
    if (!neighbours?.delete(visitor)) return;
    this.#unprovenCount--;
    if (neighbours.size === 0) this.#unproven.delete(visitor.network);
  }

  /** The visitor's connection has ended, or ends now. */
  leave(visitor: V): void {
    if (!this.#all.delete(visitor)) return;
    this.prove(visitor); // it waits no more
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
    let greediest: Set<V> | undefined;
    for (const visitors of this.#unproven.values()) {
      if (visitors.size > (greediest?.size ?? 0)) greediest = visitors;
    }
    const counts = new Map<string, number>();
    let most: string | undefined;
    for (const { source } of greediest ?? []) {
      const count = (counts.get(source) ?? 0) + 1;
      counts.set(source, count);
      if (count > (counts.get(most ?? "") ?? 0)) most = source;
    }
    return most === undefined ? undefined : oldestOf(greediest, most);
  }

  #expel(visitor: V | undefined): boolean {
    if (visitor === undefined) return false;
    this.leave(visitor);
    visitor.close();
    return true;
  }
}

/** The first visitor of the source. */
function oldestOf<V extends Visitor>(visitors: Set<V> | undefined, source: string): V | undefined {
  for (const visitor of visitors ?? []) if (visitor.source === source) return visitor;
  return undefined;
}
