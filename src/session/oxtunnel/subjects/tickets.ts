/**
 * Tickets of a session (PROTOCOL §16): a relay gives the other end one, and another when half its life is over; a client
 * keeps the last. The relay's keys are session/oxtunnel/tickets.ts's. Invariant: a ticket's secret is sent only where nobody
 * on the way can read the datagram, not even later by a quantum computer where ML-KEM was accepted, and is overwritten once
 * the other end has the ticket.
 * Keeps PROTOCOL R78.
 */
import type { Burst } from "../../../vector/burst.ts";
import {
  CONTROL_TICKET,
  readTicketLifeS,
  TICKET_AT,
  TICKET_MAX_BYTES,
  TICKET_SECRET_AT,
  TICKET_SECRET_BYTES,
  writeTicket,
} from "../../../wire/control.ts";
import { FRAME_HEAD_BYTES } from "../../../wire/frame.ts";
import { AEAD_AES_256_GMAC, FEATURE_HYBRID_KEYS, FEATURE_RESUMPTION } from "../../../wire/parameters.ts";
import { TICKET_LIFE_US, wipeTicket } from "../tickets.ts";
import { type Reliable, ReliableSubject } from "./reliable.ts";
import type { SessionContext } from "./subject.ts";

/** The longest time for which a ticket is kept, microseconds, even where the other end names a longer one. */
const LIFE_MAX_US = 7 * 86_400_000_000;
const FRAME_BYTES_MAX = FRAME_HEAD_BYTES + TICKET_AT + TICKET_MAX_BYTES;

export class TicketExchange extends ReliableSubject {
  /** The ticket that the other end does not have yet, and its secret. */
  #ticket: { bytes: Uint8Array; secret: Uint8Array } | undefined;
  /** When the other end is given another. */
  #nextUs = -Infinity;

  constructor(session: SessionContext, reliable: Reliable) {
    super(session, reliable, CONTROL_TICKET, FRAME_BYTES_MAX);
  }

  onOpened(nowUs: number): void {
    this.#give(nowUs);
  }

  onEpoch(nowUs: number): void {
    this.#give(nowUs);
  }

  get isWaiting(): boolean {
    return this.#ticket !== undefined;
  }

  protected writeFrame(view: DataView, at: number, sequence: number): number {
    const { bytes, secret } = this.#ticket!;
    const to = writeTicket(view, at, sequence, TICKET_LIFE_US / 1e6, secret, bytes.length);
    for (let i = 0; i < bytes.length; i++) view.setUint8(to + i, bytes[i]);
    return to + bytes.length - at;
  }

  onAcknowledged(): void {
    this.wipe();
  }

  /** Keeps the relay's ticket in place of the last one. */
  onControl({ bytes, view }: Burst, _row: number, at: number, length: number, nowUs: number): void {
    const { peer: id, host } = this.session;
    if (host.tickets || !this.#mayTell) return;
    const peer = host.shared.peers.get(id)!;
    const lifeUs = Math.min(LIFE_MAX_US, 1e6 * readTicketLifeS(view, at));
    wipeTicket(peer.ticket);
    peer.ticket = {
      bytes: bytes.slice(at + TICKET_AT, at + length),
      secret: bytes.slice(at + TICKET_SECRET_AT, at + TICKET_AT),
      expiresUnixUs: nowUs + host.unixOffsetUs + lifeUs,
    };
  }

  wipe(): void {
    this.#ticket?.secret.fill(0);
    this.#ticket = undefined;
  }

  /** Gives the other end a ticket, if this end gives tickets, unless the other end has one that is good for long. */
  #give(nowUs: number): void {
    const { peer, host } = this.session;
    const { tickets } = host;
    if (!tickets || !this.#mayTell || nowUs < this.#nextUs || this.#ticket) return;
    this.#nextUs = nowUs + TICKET_LIFE_US / 2;
    const secret = host.bytes(TICKET_SECRET_BYTES);
    this.#ticket = { bytes: tickets.seal(secret, host.shared.peers, peer, nowUs), secret };
    this.reliable.start();
  }

  /** Whether a ticket's secret may be told here: not readably, and under ML-KEM's keys where both ends accepted it. */
  get #mayTell(): boolean {
    const { features, aead, epoch } = this.session;
    return (features & FEATURE_RESUMPTION) !== 0 && aead !== AEAD_AES_256_GMAC &&
      (epoch > 0 || (features & FEATURE_HYBRID_KEYS) === 0);
  }
}
