/**
 * What an OxTunnel session has around it: keys, tables, limits, deadlines and counters, and what the session asks of the
 * parts that both protocols share. Invariant: a session knows the shared parts through this class alone, and this class
 * knows no session.
 */
import { CLASS_GAME, CLASS_VOICE } from "../../control/traffic_class.ts";
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
  readonly shared: Shared;
  readonly timers: Timers;
  /** The keys of tickets; undefined for an end that gives none. */
  readonly tickets: TicketKeys | undefined;
  /** Whether sessions go to where the other end's datagrams come from; a client decides for itself. */
  followsPeers = true;
  /** This host's doors to the outside besides its first, by number, and whether what goes there costs (PROTOCOL §17). */
  readonly doors = new Map<number, boolean>();
  /** Classes whose packets go on a second path too, bit c for CLASS_* c, where the other end does not say. */
  copiedClasses = 1 << CLASS_GAME | 1 << CLASS_VOICE;
  /** Further paths that all sessions together may still have. */
  furtherPathsLeft: number;
  readonly #outbox: Outbox;

  constructor(shared: Shared, outbox: Outbox, tickets: TicketKeys | undefined, furtherPaths: number) {
    this.shared = shared;
    this.timers = shared.timers;
    this.tickets = tickets;
    this.furtherPathsLeft = furtherPaths;
    this.#outbox = outbox;
  }

  /** Wall clock in microseconds since 1970 minus the monotonic clock. */
  get unixOffsetUs(): number {
    return this.shared.unixOffsetUs;
  }

  /** Fresh random bytes. */
  bytes(count: number): Uint8Array {
    return freshBytes(this.shared.random, count);
  }

  /** Begins a handshake with the peer. */
  initiate(id: number): void {
    this.#outbox.initiate(id);
  }

  /** Has `pollTransmit` called for the peer's sessions. */
  wantControl(id: number): void {
    this.#outbox.wantControl(id);
  }

  /** Counts and tells that the peer's endpoint moves. */
  noteRoaming(id: number): void {
    this.shared.paths.noteRoaming(id);
  }

  /** Tells that the path to the peer does not take what every path should (PROTOCOL §17). */
  noteNarrow(id: number): void {
    this.shared.events.push("narrow", id, this.shared.peers.generation[id]);
  }

  /** Ends the session at once: nothing is sent or opened; its keys are overwritten on the next timer turn. */
  forget(session: Ending): void {
    session.isEnding = true;
    this.shared.table.endsUs[session.row] = -Infinity;
    this.timers.hasten(session.peer, -Infinity);
  }
}
