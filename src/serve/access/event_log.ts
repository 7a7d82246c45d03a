/**
 * The last events for people: what happened to peers and links, and who did it. Invariant: memory is bounded, a client's address is
 * shown as its network only, and no secret is in an event. Kept in memory; the log has the same for longer.
 */
import type { RelayEvent } from "../../admin/mod.ts";
import { redactAddress } from "../../process/logging.ts";
import type { TunnelEvent } from "../../tunnel.ts";
import { streamNumberOf } from "../../wire/stream.ts";

/** How many events are kept. */
export const EVENTS_MAX = 500;
/** Two events of one kind and peer in this time are one, milliseconds: a peer may roam with every packet. */
const REPEAT_MS = 10_000;

export class EventLog {
  readonly #events: RelayEvent[] = [];
  readonly #wallMs: () => number;
  #lastId = 0;

  /** @param wallMs the wall clock, milliseconds since 1970. */
  constructor(wallMs: () => number) {
    this.#wallMs = wallMs;
  }

  /** Notes what happened; `detail` is a short text, such as a new name or a client's network. */
  note(kind: RelayEvent["kind"], peer: string, detail?: string): void {
    const atMs = this.#wallMs();
    const last = this.#events.findLast((event) => event.kind === kind && event.peer === peer);
    if (last && atMs - Date.parse(last.at) < REPEAT_MS && last.detail === detail) return;
    const event = { id: ++this.#lastId, at: new Date(atMs).toISOString(), kind, peer };
    this.#events.push(detail === undefined ? event : { ...event, detail });
    if (this.#events.length > EVENTS_MAX) this.#events.shift();
  }

  /** Notes what a Worker told of a peer. */
  noteTunnel({ kind, peer, endpoint }: TunnelEvent): void {
    this.note(kind, peer, streamNumberOf(endpoint) === undefined ? redactAddress(endpoint) : "TLS");
  }

  /** Events after that number, the oldest first. */
  after(id: number): RelayEvent[] {
    return this.#events.filter((event) => event.id > id);
  }
}
