/**
 * The last events for people: what happened to peers and links, and who did it. Invariant: memory is bounded, what people do is noted each
 * time, one device cannot fill the list, a client's address is shown as its network only, and no secret is in an event. Kept in memory
 * only, and lost with the process.
 */
import type { RelayEvent } from "../../admin/mod.ts";
import { redactAddress } from "../../process/logging.ts";
import { EVENT_KINDS } from "../../session/events.ts";
import type { TunnelEvent } from "../../tunnel.ts";
import { streamNumberOf } from "../../wire/stream.ts";

/** How many events are kept. */
export const EVENTS_MAX = 500;
/** Within this time an event that repeats its peer's last one is the same one, milliseconds. */
const REPEAT_MS = 10_000;
/** The most events in this time that a device brings about by itself: it may roam with every packet. */
const DEVICE_EVENTS_MAX = 6;

type Kind = RelayEvent["kind"];

const isDevices = (kind: Kind) => (EVENT_KINDS as readonly Kind[]).includes(kind);

export class EventLog {
  readonly #kept: { readonly event: RelayEvent; readonly atMs: number }[] = [];
  readonly #wallMs: () => number;
  readonly #nowMs: () => number;
  #lastId = 0;

  /**
   * @param wallMs the wall clock, milliseconds since 1970, which events are dated by.
   * @param nowMs a monotonic clock, milliseconds, which repeats are known by.
   */
  constructor(wallMs: () => number, nowMs: () => number = () => performance.now()) {
    this.#wallMs = wallMs;
    this.#nowMs = nowMs;
  }

  /** Notes what happened; `detail` is a short text, such as a new name or a client's network. */
  note(kind: Kind, peer: string, detail?: string): void {
    const atMs = this.#nowMs();
    const recent = this.#kept.filter((kept) => kept.event.peer === peer && atMs - kept.atMs < REPEAT_MS)
      .map(({ event }) => event);
    const last = recent.at(-1);
    if (last?.kind === kind && (kind === "roamed" || last.detail === detail)) return;
    if (isDevices(kind) && recent.filter((event) => isDevices(event.kind)).length >= DEVICE_EVENTS_MAX) {
      return;
    }
    const event = { id: ++this.#lastId, at: new Date(this.#wallMs()).toISOString(), kind, peer };
    this.#kept.push({ event: detail === undefined ? event : { ...event, detail }, atMs });
    if (this.#kept.length > EVENTS_MAX) this.#kept.shift();
  }

  /** Notes what a Worker told of a peer. */
  noteTunnel({ kind, peer, endpoint }: TunnelEvent): void {
    this.note(kind, peer, streamNumberOf(endpoint) === undefined ? redactAddress(endpoint) : "TLS");
  }

  /** Events after that number, the oldest first. */
  after(id: number): RelayEvent[] {
    return this.#kept.map(({ event }) => event).filter((event) => event.id > id);
  }
}
