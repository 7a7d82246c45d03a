/**
 * OxTunnel beside WireGuard: its handshakes (negotiation.ts), its sessions (sessions.ts) and its tickets (tickets.ts), put
 * together as the protocol that the shared parts call; and what a client asks of its session. Invariant: a call about a
 * session of WireGuard does nothing. Has no rules of its own about messages.
 */
import { ContextBudget } from "../../codec/headers/expander.ts";
import { Repairs } from "../../repair/pool.ts";
import { NONE } from "../../vector/arena.ts";
import type { Burst } from "../../vector/burst.ts";
import type { CookieChecker, CookieJar } from "../cookie.ts";
import type { HandshakeState } from "../noise.ts";
import type { Peer } from "../peers.ts";
import type { EarlyData, Protocol, Shared } from "../shared.ts";
import { OXTUNNEL } from "../table.ts";
import { OxHost } from "./host.ts";
import { Negotiation, type NegotiationParts, type OxtunnelOptions } from "./negotiation.ts";
import type { FurtherPath } from "./further_path.ts";
import type { OxSession } from "./session.ts";
import { OxSessions } from "./sessions.ts";
import { TicketKeys } from "./tickets.ts";
import { TrustedLinks } from "./trusted_links.ts";

export type { OxtunnelOptions } from "./negotiation.ts";

/** How long a responder waits for the first packet under the new keys before it takes its response for lost, microseconds. */
const AWAITED_US = 1_000_000;

export class Oxtunnel implements Protocol {
  readonly sessions: OxSessions<OxSession, FurtherPath>;
  /** Undefined for an end that gives no tickets. */
  readonly tickets: TicketKeys | undefined;
  readonly #host: OxHost;
  readonly #negotiation: Negotiation;
  readonly #s: Shared;
  readonly #p: NegotiationParts;

  constructor(parts: NegotiationParts, options: OxtunnelOptions) {
    const { shared, outbox } = parts;
    const { primitives, random } = shared;
    this.#p = parts;
    this.#s = shared;
    const trusted = new TrustedLinks(options.trusted);
    this.tickets = options.givesTickets ? new TicketKeys(primitives, random) : undefined;
    this.#host = new OxHost(shared, outbox, this.tickets, options.furtherPaths);
    const repairs = options.repair && new Repairs(options.repair, shared.metrics);
    const { datagramAead, rates, headerContexts } = options;
    const budget = headerContexts === undefined ? undefined : new ContextBudget(headerContexts);
    this.sessions = new OxSessions(shared, outbox, datagramAead, trusted, repairs, rates, budget);
    this.#negotiation = new Negotiation(parts, options, trusted, this.#host, this.sessions);
  }

  get checker(): CookieChecker {
    return this.#negotiation.checker;
  }

  jarOf(peer: Peer): CookieJar {
    return peer.oxJar;
  }

  /** Offers and accepts a feature (FEATURE_*) in handshakes from now on, or does so no more. */
  offer(feature: number, isOffered: boolean): void {
    this.#negotiation.offer(feature, isOffered);
  }

  /** Leaves the choice of address to this end: sessions do not follow the other end's datagrams. A client's way. */
  stayPut(): void {
    this.#host.followsPeers = false;
  }

  /** Answers the initiation in `row` over itself, or says in `next` why not. */
  onInitiation(burst: Burst, row: number, nowUs: number): void {
    this.#negotiation.onInitiation(burst, row, nowUs);
  }

  /** Completes the handshake that the response in `row` answers. */
  onResponse(burst: Burst, row: number, nowUs: number): void {
    this.#negotiation.onResponse(burst, row, nowUs);
  }

  earlyData(peer: Peer, arena: Uint8Array, nowUs: number): EarlyData | undefined {
    return this.#negotiation.earlyData(peer, arena, nowUs);
  }

  initiationBytes(early: EarlyData | undefined): number {
    return this.#negotiation.initiationBytes(early);
  }

  writeInitiation(
    message: Uint8Array,
    peer: Peer,
    session: number,
    timestamp: Uint8Array,
    nowUs: number,
    early: EarlyData | undefined,
  ): HandshakeState | undefined {
    return this.#negotiation.writeInitiation(message, peer, session, timestamp, nowUs, early);
  }

  forgetPending(row: number): void {
    this.#negotiation.forgetPending(row);
  }

  isUrgent(session: number): boolean {
    return session === NONE || this.sessions.of[session]?.isSilent === true;
  }

  awaitedUntilUs(session: number): number {
    return this.#s.table.bornUs[session] + AWAITED_US;
  }

  mayAnswerEarly(session: number, bytes: number): boolean {
    return this.sessions.of[session]!.paths.mayAnswerEarly(bytes);
  }

  answerEarly(burst: Burst, row: number, session: number): void {
    this.sessions.of[session]!.paths.answerEarly(burst, row);
  }

  /** Has a ping sent, which the other end answers. */
  keepalive(_burst: Burst, _id: number, session: number): boolean {
    this.sessions.ping(session);
    return true;
  }

  pollTransmit(burst: Burst, id: number, nowUs: number): boolean {
    return this.sessions.pollTransmit(burst, id, nowUs);
  }

  dueUs(session: number): number {
    return this.sessions.dueUs(session);
  }

  handleTimeout(session: number, nowUs: number): void {
    this.sessions.handleTimeout(session, nowUs);
  }

  superseded(session: number, nowUs: number): void {
    this.sessions.superseded(session, nowUs);
  }

  end(session: number): void {
    this.sessions.end(session);
  }

  /** Closes the peer's session in an orderly way: the other end is told, and the keys are overwritten soon after. */
  close(id: number, reason: number, retryAfterS: number, nowUs: number): void {
    if (!this.sessions.currentOf(id)) return;
    const session = this.#p.epochs.retire(id);
    this.sessions.of[session]!.close(reason, retryAfterS, nowUs);
  }

  /** This host's own address changed: the peer's session goes on under another id, with a challenge. */
  moved(id: number): void {
    this.sessions.currentOf(id)?.paths.moved();
  }

  /** This host has one more door: the peer's session, and later ones, have a path through it. */
  addDoor(id: number, door: number, isMetered: boolean, nowUs: number): void {
    this.#host.doors.set(door, isMetered);
    this.sessions.currentOf(id)?.pathSet?.openThrough(door, isMetered, nowUs);
  }

  /** Whether what goes through the door costs, from now on, without asking the way there anew; door 0 is the first path's. */
  price(id: number, door: number, isMetered: boolean): void {
    if (this.#host.doors.has(door)) this.#host.doors.set(door, isMetered);
    this.sessions.currentOf(id)?.pathSet?.price(door, isMetered);
  }

  /** This host no longer has the door. */
  dropDoor(id: number, door: number): void {
    this.#host.doors.delete(door);
    this.sessions.currentOf(id)?.pathSet?.closeThrough(door);
  }

  /** Which classes go on a second path too, bit c for CLASS_* c, here and as this end asks the other. */
  copy(classes: number): void {
    this.#host.copiedClasses = classes;
  }

  /** The peer's address was set by hand: a session whose packets can be read on the way ends. */
  onEndpointSet(id: number): void {
    const rest = this.sessions.currentOf(id);
    // The network may be another one, or the way there.
    if (rest && this.sessions.isPlain[rest.row] === 1) this.#host.forget(rest);
  }

  /**
   * Moves the peer's session to this address once it has answered there. False when there is no session that could, so
   * that only a handshake helps.
   */
  probe(id: number, words: Uint32Array, port: number, nowUs: number): boolean {
    const session = this.#p.epochs.sendable(id, nowUs);
    if (session === NONE || this.#s.table.protocol[session] !== OXTUNNEL) return false;
    if (this.sessions.refuses(session, words, 0)) return false;
    return this.sessions.of[session]!.paths.probe(words, port, nowUs);
  }
}
