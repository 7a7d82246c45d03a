/**
 * What happened to peers, for people to read: a ring of numbers, so that noting an event on the hot path allocates
 * nothing. Invariant: memory is fixed; when nobody reads, the oldest events are lost and counted.
 */

/** Kinds, in the order of their codes. */
export const EVENT_KINDS = ["connected", "disconnected", "roamed", "refused", "narrow", "stale"] as const;

export type EventKind = (typeof EVENT_KINDS)[number];

const CAPACITY = 256;

export class EventRing {
  readonly #entries = new Uint32Array(3 * CAPACITY);
  #written = 0;
  #read = 0;
  /** Events that were overwritten before anyone read them. */
  lost = 0;

  /** Notes an event of the peer with this id in this generation of the id. Hot: no allocation. */
  push(kind: EventKind, id: number, generation: number): void {
    if (this.#written - this.#read === CAPACITY) {
      this.#read++;
      this.lost++;
    }
    const at = 3 * (this.#written++ % CAPACITY);
    this.#entries[at] = EVENT_KINDS.indexOf(kind);
    this.#entries[at + 1] = id;
    this.#entries[at + 2] = generation;
  }

  /** The oldest unread event, or undefined. */
  take(): { kind: EventKind; id: number; generation: number } | undefined {
    if (this.#read === this.#written) return undefined;
    const at = 3 * (this.#read++ % CAPACITY);
    const [kind, id, generation] = [this.#entries[at], this.#entries[at + 1], this.#entries[at + 2]];
    return { kind: EVENT_KINDS[kind], id, generation };
  }
}

/** An event for the log. */
export interface TunnelEvent {
  kind: EventKind;
  /** The peer's name. */
  peer: string;
  /** The source of the peer's last authentic packet. A client's address: redact before logging. */
  endpoint: string;
}
