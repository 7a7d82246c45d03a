/**
 * Tickets of OxTunnel's resumption (PROTOCOL §16): the relay's keys, under which a fresh secret becomes bytes that only
 * it can read again, and what a client keeps of them. Invariant: a ticket opens for the peer that it was given to, by
 * the process that gave it, until it expires; a key is overwritten when no ticket of it can be good any more. Knows
 * neither messages nor early data.
 * Keeps PROTOCOL R66, R68 and R69.
 */
import type { Primitives } from "../../codec/kernels.ts";

/** How long a ticket is good. */
export const TICKET_LIFE_US = 43_200_000_000;
/** Time for which a key seals tickets, and then opens them: each key outlives the tickets that it has sealed. */
const KEY_US = TICKET_LIFE_US;
const SECRET_BYTES = 32;
const TAG_BYTES = 16;
// The ticket: which key (its number's low bits), the counter that it was sealed with, the sealed secret and expiry.
const COUNTER_AT = 1;
const SEALED_AT = 5;
const TEXT_BYTES = SECRET_BYTES + 8;
export const OWN_TICKET_BYTES = SEALED_AT + TEXT_BYTES + TAG_BYTES;

/** What a client needs to resume; secret. A ticket outlives the client object that it was given to. */
export interface Ticket {
  /** As the relay gave it, 1 to 192 bytes, which only the relay can read. */
  bytes: Uint8Array;
  /** 32 bytes. */
  secret: Uint8Array;
  /** When the ticket ends, wall clock, microseconds since 1970. */
  expiresUnixUs: number;
}

/** A copy in memory of its own; undefined without a ticket. */
export function copyTicket(ticket: Ticket | undefined): Ticket | undefined {
  if (!ticket) return undefined;
  const { bytes, secret, expiresUnixUs } = ticket;
  return { bytes: bytes.slice(), secret: secret.slice(), expiresUnixUs };
}

export function wipeTicket(ticket: Ticket | undefined): void {
  ticket?.secret.fill(0);
  ticket?.bytes.fill(0);
}

/** Whom tickets are given to, by id: the peer table, of which a ticket needs to know this. */
export interface TicketHolders {
  get(id: number): { readonly publicKey: Uint8Array } | undefined;
  /** Changes when an id passes from one peer to another. */
  readonly generation: Uint32Array;
}

/** The ticket keys of one Worker, which issues tickets to the peers that it owns; no other Worker opens their initiations. */
export class TicketKeys {
  /** When `rotate` is due; Infinity before the first ticket. */
  dueUs = Infinity;
  readonly #primitives: Primitives;
  readonly #random: (bytes: Uint8Array) => void;
  /** By its number's lowest bit: the present key and the one before, all zero where there is none. */
  readonly #keys = [new Uint8Array(SECRET_BYTES), new Uint8Array(SECRET_BYTES)];
  #number = 0;
  #hasPrevious = false;
  /** Tickets that the present key has sealed. A peer gets one in an epoch: 2^32 are out of reach in a key's life. */
  #sealed = 0;

  constructor(primitives: Primitives, random: (bytes: Uint8Array) => void) {
    this.#primitives = primitives;
    this.#random = random;
  }

  /** A ticket with this secret, 32 bytes, for the peer with this id. */
  seal(secret: Uint8Array, peers: TicketHolders, id: number, nowUs: number): Uint8Array {
    if (this.dueUs === Infinity) this.#draw(nowUs);
    this.rotate(nowUs);
    const ticket = new Uint8Array(OWN_TICKET_BYTES);
    const view = new DataView(ticket.buffer);
    const counter = this.#sealed++;
    ticket[0] = this.#number;
    view.setUint32(COUNTER_AT, counter, true);
    const text = new Uint8Array(TEXT_BYTES);
    text.set(secret);
    new DataView(text.buffer).setFloat64(SECRET_BYTES, nowUs + TICKET_LIFE_US);
    ticket.set(
      this.#primitives.seal(this.#keys[this.#number & 1], counter, text, holder(peers, id)),
      SEALED_AT,
    );
    text.fill(0);
    return ticket;
  }

  /** The secret, which the caller wipes; undefined for a ticket that is another's, expired, forged or unknown here. */
  open(ticket: Uint8Array, peers: TicketHolders, id: number, nowUs: number): Uint8Array | undefined {
    this.rotate(nowUs);
    if (ticket.length !== OWN_TICKET_BYTES || this.dueUs === Infinity) return undefined;
    const isPrevious = ticket[0] === ((this.#number - 1) & 255);
    if (ticket[0] !== (this.#number & 255) && !(isPrevious && this.#hasPrevious)) return undefined;
    const counter = new DataView(ticket.buffer, ticket.byteOffset).getUint32(COUNTER_AT, true);
    const key = this.#keys[ticket[0] & 1];
    const text = this.#primitives.open(key, counter, ticket.subarray(SEALED_AT), holder(peers, id));
    if (!text) return undefined;
    const expiresUs = new DataView(text.buffer, text.byteOffset).getFloat64(SECRET_BYTES);
    // A copy in any case: node:crypto's slices share their memory.
    const secret = nowUs < expiresUs ? new Uint8Array(text.subarray(0, SECRET_BYTES)) : undefined;
    text.fill(0);
    return secret;
  }

  /** Draws the next key when it is time, over the one before the present. */
  rotate(nowUs: number): void {
    if (nowUs < this.dueUs) return;
    // After two key lives without a rotation, tickets under both keys have expired.
    if (nowUs >= this.dueUs + KEY_US) this.#keys[this.#number & 1].fill(0);
    this.#hasPrevious = nowUs < this.dueUs + KEY_US;
    this.#number++;
    this.#draw(nowUs);
  }

  /** Overwrites the keys; every ticket is worth nothing from here on. */
  wipe(): void {
    for (const key of this.#keys) key.fill(0);
    this.dueUs = Infinity;
    this.#number++;
    this.#hasPrevious = false;
  }

  #draw(nowUs: number): void {
    this.#random(this.#keys[this.#number & 1]);
    this.#sealed = 0;
    this.dueUs = nowUs + KEY_US;
  }
}

/** Whose ticket, as bytes: the static key, and the place in the table, which a peer that was removed never has again. */
function holder(peers: TicketHolders, id: number): Uint8Array {
  const { publicKey } = peers.get(id)!;
  const bytes = new Uint8Array(publicKey.length + 8);
  const view = new DataView(bytes.buffer);
  bytes.set(publicKey);
  view.setUint32(publicKey.length, id, true);
  view.setUint32(publicKey.length + 4, peers.generation[id], true);
  return bytes;
}
