/**
 * What an OxTunnel session has around it: tables, limits and deadlines, and what it asks of the parts that both protocols
 * share. Invariant: a session knows the shared parts through this class alone, and this class knows no session.
 */
import type { CounterName } from "../../metrics.ts";
import type { Limits } from "../limits.ts";
import { freshBytes } from "../noise.ts";
import type { Outbox } from "../outbox.ts";
import type { Shared } from "../shared.ts";
import type { Timers } from "../timers.ts";
import type { TicketKeys } from "./tickets.ts";

/** The session that `forget` ends. */
interface Ending {
  readonly row: number;
  readonly peer: number;
  isEnding: boolean;
}

export class OxHost {
  readonly options: Pick<Shared, "table" | "paths" | "peers" | "limits" | "primitives" | "random"> & {
    /** Adds 1, or `amount`. */
    readonly count: (name: CounterName, amount?: number) => void;
  };
  readonly limits: Limits;
  readonly timers: Timers;
  /** The keys of tickets; undefined for an end that gives none. */
  readonly tickets: TicketKeys | undefined;
  /** Whether sessions go to where the other end's datagrams come from; a client decides for itself. */
  followsPeers = true;
  readonly #s: Shared;
  readonly #outbox: Outbox;

  constructor(shared: Shared, outbox: Outbox, tickets: TicketKeys | undefined) {
    this.#s = shared;
    const { table, paths, peers, limits, primitives, random, metrics } = shared;
    const count = (name: CounterName, amount = 1) => metrics.add(name, amount);
    this.options = { table, paths, peers, limits, primitives, random, count };
    this.limits = shared.limits;
    this.timers = shared.timers;
    this.tickets = tickets;
    this.#outbox = outbox;
  }

  get unixOffsetUs(): number {
    return this.#s.unixOffsetUs;
  }

  /** Fresh random bytes. */
  bytes(count: number): Uint8Array {
    return freshBytes(this.#s.random, count);
  }

  /** Begins a handshake with the peer. */
  initiate(id: number): void {
    this.#outbox.initiate(id);
  }

  /** Has `pollTransmit` called for the peer's sessions. */
  wantControl(id: number): void {
    this.#outbox.wantControl(id);
  }

  /** The first packet under the peer's next session has opened. */
  confirm(id: number, nowUs: number): void {
    this.#outbox.confirm(id, nowUs);
  }

  /** A packet went to the peer or came from it. Hot: no allocation. */
  traversed(id: number, nowUs: number): void {
    this.#outbox.traversed(id, nowUs);
  }

  /** Counts and tells that the peer's endpoint moves. */
  noteRoaming(id: number): void {
    this.#s.paths.noteRoaming(id);
  }

  /** Tells that the path to the peer does not take what every path should (PROTOCOL §17). */
  noteNarrow(id: number): void {
    this.#s.events.push("narrow", id, this.#s.peers.generation[id]);
  }

  /** Ends the session at once: nothing is sent or opened; its keys are overwritten on the next timer turn. */
  forget(session: Ending): void {
    session.isEnding = true;
    this.#s.table.endsUs[session.row] = -Infinity;
    this.#s.timers.hasten(session.peer, -Infinity);
  }
}
