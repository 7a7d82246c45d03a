/**
 * OxTunnel's handshake messages between peers (PROTOCOL §10, §11), negotiation above all, beside what both protocols
 * share (session/associations.ts). Invariant: nothing changes for a message that has not authenticated, except counters; a
 * response is never longer than the initiation that it is written over. Sessions that came of it are sessions.ts's.
 * Keeps PROTOCOL R28, R29, R31, R35, R37, R66, R67 and R77.
 */
import type { DatagramAead } from "../../codec/kernels.ts";
import { NONE } from "../../vector/arena.ts";
import { type Burst, DONE, TO_INITIATION_ADMITTED, TO_TRANSMIT, TO_UNFRAME } from "../../vector/burst.ts";
import { FRAME_HEAD_BYTES, FRAME_PACKET, FRAMES_MAX, writeFrameHead } from "../../wire/frame.ts";
import {
  DATAGRAM_OVERHEAD_BYTES,
  OX_DATAGRAM_MAX_BYTES,
  OX_INITIATION_MAX_BYTES,
  OX_INITIATION_MIN_BYTES,
  OX_INITIATION_PAYLOAD_AT,
  OX_TAG_BYTES,
  OX_TIMESTAMP_BYTES,
  oxMac1At,
} from "../../wire/oxtunnel.ts";
import {
  AEAD_AES_256_GMAC,
  FEATURE_EARLY_DATA_TAKEN,
  FEATURE_HYBRID_KEYS,
  FEATURE_RESUMPTION,
  type HeaderMethod,
  type Parameters,
  readParameters,
  REFUSED_AEAD,
  REFUSED_CRITICAL,
  REFUSED_FULL,
  REFUSED_PROBE,
  withOneMethod,
  writeParameters,
} from "../../wire/parameters.ts";
import { mappedBytes } from "../../wire/address.ts";
import { MAC_BYTES, readResponseReceiver, readSender } from "../../wire/wireguard.ts";
import { DROP } from "../../metrics.ts";
import { CookieChecker, OXTUNNEL_COOKIES } from "../cookie.ts";
import type { Epochs } from "../epochs.ts";
import type { HandshakeGate } from "../handshake_gate.ts";
import type { HandshakeState, OpenedInitiation } from "../noise.ts";
import { freshBytes, wipeHandshake } from "../noise.ts";
import { answerBarred } from "./barred.ts";
import {
  consumeOxResponse,
  createOxInitiation,
  createOxResponse,
  openOxInitiation,
  openOxPayload,
  oxResponseBytes,
  type SessionSecrets,
  takeOxEarlyData,
  wipeSecrets,
} from "./handshake.ts";
import type { OxHost } from "./host.ts";
import { KeyExchange } from "./keys.ts";
import { OxSession, type Sessions } from "./session.ts";
import type { Rates } from "../../rate/pool.ts";
import type { RepairOptions } from "../../repair/options.ts";
import { SPARE_IDS } from "./subjects/connection_ids.ts";
import { type Ticket, type TicketKeys, wipeTicket } from "./tickets.ts";
import type { Attempts } from "../attempts.ts";
import type { Outbox } from "../outbox.ts";
import type { Peer, StagedPacket } from "../peers.ts";
import type { EarlyData, Shared } from "../shared.ts";
import type { Staging } from "../staging.ts";
import type { TrustedLinks } from "./trusted_links.ts";

export interface OxtunnelOptions {
  datagramAead: DatagramAead;
  /** AEAD_* that this end has, best first; ChaCha20-Poly1305 is always among them. */
  aeads: readonly number[];
  /** Outer networks in which AEAD_AES_256_GMAC comes before these; none by default. */
  trusted: readonly string[];
  /** FEATURE_* bits that this end has, and those that it does not have for the peer. */
  features: number;
  withheld: (peer: number) => number;
  /** Paths that all sessions together may have beside their first. */
  furtherPaths: number;
  /** This end's parameters for the peer in every handshake, beside features, AEADs and ids. */
  say: (peer: Peer) => Parameters;
  /** Largest inner packet of this end, bytes. */
  mtu: number;
  /** Loss repair; undefined where it is neither offered nor accepted. */
  repair: RepairOptions | undefined;
  /** Estimates the rates of paths; undefined where no rate is estimated. */
  rates: Rates | undefined;
  /** Contexts of short packets (PROTOCOL §13) that all sessions may have; absent to offer none. */
  headerContexts: number | undefined;
  /** How headers are made small, best first: the responder takes the first that the initiator offers. */
  headerMethods: readonly HeaderMethod[];
  /** The rate that this end asks the peer not to exceed, kbit/s with IP and UDP headers; 0 for no limit. */
  receiveKbitS: (peer: Peer) => number;
  /** Called with each new session: the rate that the other end asks this one not to exceed, kbit/s; 0 for no limit. */
  limited: (peer: number, kbitS: number, nowUs: number) => void;
  /** Whether this end gives tickets and takes early data, as relays do; others keep and send them. */
  givesTickets: boolean;
}

/** The shared parts that handshakes work with. */
export interface NegotiationParts {
  readonly shared: Shared;
  readonly epochs: Epochs;
  readonly gate: HandshakeGate;
  readonly staging: Staging;
  readonly attempts: Attempts;
  readonly outbox: Outbox;
}

/** A relay that is full may be asked again after this long. */
const RETRY_WHEN_FULL_S = 30;
const REPORT_INTERVAL_MS = 25;
/** An initiation without parameters. */
const INITIATION_FIXED_BYTES = OX_INITIATION_PAYLOAD_AT + OX_TIMESTAMP_BYTES + OX_TAG_BYTES + 2 * MAC_BYTES;
const PARAMETERS_MAX_BYTES = OX_INITIATION_MIN_BYTES - INITIATION_FIXED_BYTES;
/** Bytes reserved for an initiation's parameters other than the ticket, with early data; unused ones are padding. */
const OTHER_PARAMETERS_BYTES = 64;
const PARAMETER_HEAD_BYTES = 2;

export class Negotiation {
  readonly checker: CookieChecker;
  readonly #s: Shared;
  readonly #p: NegotiationParts;
  readonly #o: OxtunnelOptions;
  readonly #trusted: TrustedLinks;
  readonly #tickets: TicketKeys | undefined;
  readonly #host: OxHost;
  readonly #sessions: Sessions;
  /** Rows of the spare ids that a pending handshake's initiation gave out, by its row. */
  readonly #pendingSpares = new Map<number, number[]>();
  /** As long as what fits an initiation, and so a response. */
  readonly #parameters = new Uint8Array(PARAMETERS_MAX_BYTES);

  constructor(
    parts: NegotiationParts,
    options: OxtunnelOptions,
    trusted: TrustedLinks,
    host: OxHost,
    sessions: Sessions,
  ) {
    this.#p = parts;
    this.#s = parts.shared;
    this.#o = options;
    this.#trusted = trusted;
    this.#tickets = host.tickets;
    this.#host = host;
    this.#sessions = sessions;
    const { staticPublic, random, limits } = parts.shared;
    this.checker = new CookieChecker(staticPublic, random, limits.cookieUs, OXTUNNEL_COOKIES);
  }

  /** Offers and accepts a feature (FEATURE_*) in handshakes from now on, or does so no more. */
  offer(feature: number, isOffered: boolean): void {
    const { features } = this.#o;
    this.#o.features = isOffered ? features | feature : features & ~feature;
  }

  /** Answers the initiation in `row` over itself, or says in `next` why not. */
  onInitiation(burst: Burst, row: number, nowUs: number): void {
    const { gate } = this.#p;
    const { primitives, staticPrivate, staticPublic } = this.#s;
    const { offset, length, next } = burst;
    const message = burst.bytes.subarray(offset[row], offset[row] + length[row]);
    if (
      next[row] !== TO_INITIATION_ADMITTED &&
      !gate.admits(burst, row, message, oxMac1At(length[row]), this.checker, true, nowUs)
    ) return;
    const opened = openOxInitiation(primitives, message, staticPrivate, staticPublic);
    if (!opened) {
      next[row] = DROP.handshake_failed;
      return;
    }
    if (answerBarred(this.#s, burst, row, message, opened, seenIn(burst, row), nowUs)) return;
    const peer = gate.initiatorOf(burst, row, opened);
    if (!peer) return;
    const payload = openOxPayload(primitives, message, opened, peer.staticSecret);
    const said = payload && readParameters(payload, OX_TIMESTAMP_BYTES, payload.length - OX_TIMESTAMP_BYTES);
    const timestamp = said && payload.slice(0, OX_TIMESTAMP_BYTES);
    const refusal = gate.refusal(peer, timestamp, nowUs);
    if (!said || !timestamp || (refusal !== 0 && refusal !== DROP.max_connections)) {
      wipeHandshake(opened.state);
      next[row] = refusal;
      return;
    }
    if (!this.#answer(burst, row, message, peer, opened, said, timestamp, refusal !== 0, nowUs)) {
      wipeHandshake(opened.state);
      next[row] = DROP.handshake_failed;
    }
  }

  /** Writes the response, with a session or a refusal; false for a low-order point. */
  #answer(
    burst: Burst,
    row: number,
    message: Uint8Array,
    peer: Peer,
    opened: OpenedInitiation,
    said: Parameters,
    timestamp: Uint8Array,
    isFull: boolean,
    nowUs: number,
  ): boolean {
    const { primitives, table, random } = this.#s;
    const aead = this.#aeadsFor(burst.address, 4 * row).find((mine) => said.aeads?.includes(mine)) ?? 0;
    let reason = said.unknownCritical !== undefined ? REFUSED_CRITICAL : aead === 0 ? REFUSED_AEAD : 0;
    if (said.probe) reason = REFUSED_PROBE;
    if (isFull) reason = REFUSED_FULL;
    const session = reason === 0 ? table.allocate(peer.id) : NONE;
    if (session === NONE && reason === 0) reason = REFUSED_FULL;
    const features = withOneMethod((said.features ?? 0) & this.#featuresFor(peer.id), this.#o.headerMethods);
    const earlyRow = this.#takeEarlyData(burst, message, peer, opened, session, said, features, nowUs);
    const taken = earlyRow === NONE ? 0 : FEATURE_EARLY_DATA_TAKEN;
    const spareRows = session === NONE ? [] : this.#allocateSpares(session);
    const parameters = this.#write(
      session === NONE
        ? {
          refused: { reason, retryAfterS: reason === REFUSED_FULL ? RETRY_WHEN_FULL_S : 0 },
          ...(said.probe ? { seen: seenIn(burst, row) } : {}),
        }
        : {
          ...this.#saying(peer),
          features: features | taken,
          aeads: [aead],
          connectionIds: this.#idsOf(spareRows),
        },
    );
    const sender = readSender(burst.view, burst.offset[row]);
    const response = message.subarray(0, oxResponseBytes(parameters.length));
    const own = session === NONE ? 0 : table.receiverIndex[session];
    const secrets = createOxResponse(
      primitives,
      response,
      own,
      sender,
      opened,
      peer.presharedKey,
      freshBytes(random, 32),
      parameters,
    );
    if (!secrets) {
      for (const spare of spareRows) table.erase(spare);
      table.erase(session);
      if (earlyRow !== NONE) burst.next[earlyRow] = DONE;
      return false;
    }
    peer.oxJar.sign(response, oxMac1At(response.length), nowUs);
    burst.length[row] = response.length;
    burst.next[row] = TO_TRANSMIT;
    if (session === NONE) {
      wipeSecrets(secrets);
      this.#p.gate.taken(peer, timestamp, nowUs);
      return true;
    }
    const rest = this.#begin(session, peer, false, sender, aead, features, said, spareRows, secrets, nowUs);
    rest.paths.onInitiation(burst, row, earlyRow === NONE ? 0 : message.length - response.length);
    this.#p.outbox.answered(peer, session, timestamp, nowUs);
    if (earlyRow !== NONE) this.#p.epochs.forsake(peer.id, nowUs);
    return true;
  }

  /**
   * Takes the early data of an initiation whose timestamp was accepted into the transcript and, where its ticket is
   * good, into a row of the burst, which is returned (TO_UNFRAME). NONE when nothing was taken: it will come again.
   */
  #takeEarlyData(
    burst: Burst,
    message: Uint8Array,
    peer: Peer,
    opened: OpenedInitiation,
    session: number,
    { ticket }: Parameters,
    features: number,
    nowUs: number,
  ): number {
    const { primitives, peers } = this.#s;
    const isResuming = session !== NONE && ticket !== undefined && (features & FEATURE_RESUMPTION) !== 0;
    const secret = isResuming ? this.#tickets?.open(ticket, peers, peer.id, nowUs) : undefined;
    const plaintext = takeOxEarlyData(primitives, message, opened, secret);
    secret?.fill(0);
    const row = plaintext ? burst.grow(plaintext.length, TO_UNFRAME) : -1;
    if (row < 0) return NONE;
    burst.bytes.set(plaintext!, burst.offset[row]);
    burst.session[row] = burst.path[row] = session;
    burst.peer[row] = peer.id;
    return row;
  }

  /** Completes the handshake that the response in `row` answers. */
  onResponse(burst: Burst, row: number, nowUs: number): void {
    const { gate, staging, attempts, outbox } = this.#p;
    const { primitives, staticPrivate } = this.#s;
    const { offset, length, next, view } = burst;
    const message = burst.bytes.subarray(offset[row], offset[row] + length[row]);
    const receiver = readResponseReceiver(view, offset[row]);
    const mac1At = oxMac1At(length[row]);
    const peer = gate.responderTo(burst, row, message, mac1At, this.checker, receiver, nowUs);
    if (!peer?.pending) return;
    const { state, row: session, early } = peer.pending;
    const result = consumeOxResponse(primitives, message, state, staticPrivate, peer.presharedKey);
    const said = result && readParameters(result.parameters, 0, result.parameters.length);
    if (!result || !said || !this.#isAcceptable(peer, said, early !== undefined)) {
      next[row] = said?.refused ? DROP.refused : DROP.handshake_failed;
      if (!result) return;
      // The response was authentic but gives no session; the timer starts the next attempt.
      peer.refused = said?.refused;
      peer.seen = said?.seen;
      peer.handshakeRttUs = nowUs - peer.pending.sentUs;
      wipeSecrets(result.secrets);
      attempts.drop(peer);
      return;
    }
    peer.told = said;
    peer.refused = undefined;
    const spares = this.#pendingSpares.get(session) ?? [];
    this.#pendingSpares.delete(session);
    const [aead] = said.aeads!;
    const remoteId = readSender(view, offset[row]);
    const features = (said.features ?? 0) & this.#featuresFor(peer.id);
    if (early && (said.features! & FEATURE_EARLY_DATA_TAKEN) !== 0) {
      staging.remove(peer, early, (slot) => burst.arena.release(slot));
    }
    this.#begin(session, peer, true, remoteId, aead, features, said, spares, result.secrets, nowUs);
    outbox.finished(peer, nowUs);
  }

  /** Whether a response keeps to what this end offered (PROTOCOL R35). */
  #isAcceptable({ id }: Peer, said: Parameters, hadEarly: boolean): boolean {
    const { paths } = this.#s;
    const { refused, unknownCritical, aeads, features = 0 } = said;
    const offered = this.#featuresFor(id) | (hadEarly ? FEATURE_EARLY_DATA_TAKEN : 0);
    return !refused && unknownCritical === undefined && aeads?.length === 1 &&
      this.#aeadsFor(paths.address, 4 * paths.of(id)).includes(aeads[0]) && (features & ~offered) === 0;
  }

  /** The first of the peer's waiting packets, as much as an initiation takes, if there is a ticket to seal them with. */
  earlyData(peer: Peer, arena: Uint8Array, nowUs: number): EarlyData | undefined {
    const { staged, ticket } = peer;
    if (!ticket || (this.#o.features & FEATURE_RESUMPTION) === 0) return undefined;
    if (nowUs + this.#s.unixOffsetUs >= ticket.expiresUnixUs) {
      wipeTicket(ticket);
      peer.ticket = undefined;
      return undefined;
    }
    const plaintext = new Uint8Array(
      OX_INITIATION_MAX_BYTES - this.#bytesBeside(ticket) - OX_TAG_BYTES,
    );
    const view = new DataView(plaintext.buffer);
    const packets: StagedPacket[] = [];
    let at = 0;
    for (const packet of staged) {
      if (packet.wasEarly) continue;
      const { offset, length } = packet;
      // Packets keep their order: one that does not fit waits, and all packets behind it too.
      if (at + FRAME_HEAD_BYTES + length > plaintext.length || packets.length === FRAMES_MAX) break;
      const body = writeFrameHead(view, at, FRAME_PACKET, length);
      plaintext.set(arena.subarray(offset, offset + length), body);
      at = body + length;
      packets.push(packet);
    }
    return at === 0 ? undefined : { plaintext: plaintext.subarray(0, at), packets };
  }

  /** Bytes of an initiation with this ticket, without early data. */
  #bytesBeside({ bytes }: Ticket): number {
    return INITIATION_FIXED_BYTES + OTHER_PARAMETERS_BYTES + PARAMETER_HEAD_BYTES + bytes.length;
  }

  /** Length of the initiation that carries this. */
  initiationBytes(early: EarlyData | undefined): number {
    // Padded to the largest size: the relay may answer early data with at most as many bytes as the initiation has.
    return early ? OX_INITIATION_MAX_BYTES : OX_INITIATION_MIN_BYTES;
  }

  /** Writes an initiation of `initiationBytes` and signs it; undefined when the peer's key is a low-order point. */
  writeInitiation(
    message: Uint8Array,
    peer: Peer,
    session: number,
    timestamp: Uint8Array,
    nowUs: number,
    early: EarlyData | undefined,
  ): HandshakeState | undefined {
    const { primitives, staticPublic, table, paths, random } = this.#s;
    const ticket = early && peer.ticket; // `earlyData` found it there
    const spares = this.#allocateSpares(session);
    this.#pendingSpares.set(session, spares);
    const parameters = this.#write({
      ...this.#saying(peer),
      features: this.#featuresFor(peer.id),
      aeads: this.#aeadsFor(paths.address, 4 * paths.of(peer.id)),
      connectionIds: this.#idsOf(spares),
      ...(ticket ? { ticket: ticket.bytes } : {}),
    });
    const state = createOxInitiation(
      primitives,
      message,
      table.receiverIndex[session],
      staticPublic,
      peer.publicKey,
      peer.staticSecret,
      freshBytes(random, 32),
      timestamp,
      parameters,
      ticket && { plaintext: early.plaintext, ticketSecret: ticket.secret },
    );
    if (state) peer.oxJar.sign(message, oxMac1At(message.length), nowUs);
    else this.forgetPending(session);
    return state;
  }

  /** Frees the spare ids of a handshake that failed. */
  forgetPending(session: number): void {
    for (const row of this.#pendingSpares.get(session) ?? []) this.#s.table.erase(row);
    this.#pendingSpares.delete(session);
  }

  #begin(
    session: number,
    peer: Peer,
    isInitiator: boolean,
    remoteId: number,
    aead: number,
    features: number,
    said: Parameters,
    spareRows: number[],
    secrets: SessionSecrets,
    nowUs: number,
  ): OxSession {
    const { table, primitives, random } = this.#s;
    table.begin(session, remoteId, isInitiator, nowUs, aead, secrets);
    const keys = new KeyExchange({
      primitives,
      random,
      isInitiator,
      isHybrid: (features & FEATURE_HYBRID_KEYS) !== 0,
      chain: secrets.chain.slice(),
    });
    wipeSecrets(secrets);
    const mtu = Math.min(this.#o.mtu, said.mtu ?? Infinity);
    const rest = new OxSession(this.#host, this.#sessions, {
      row: session,
      peer: peer.id,
      isInitiator,
      aead,
      features,
      reportIntervalUs: 1000 * (said.limits?.reportIntervalMs ?? REPORT_INTERVAL_MS),
      datagramMaxBytes: Math.min(
        said.limits?.datagramMaxBytes ?? OX_DATAGRAM_MAX_BYTES,
        mtu + DATAGRAM_OVERHEAD_BYTES,
      ),
      keys,
      spareRows,
      remoteIds: [...said.connectionIds ?? []],
    });
    this.#sessions.begin(session, rest, nowUs);
    this.#o.limited(peer.id, said.limits?.rateKbitS ?? 0, nowUs);
    return rest;
  }

  /** The AEADs for datagrams to and from the address at `at`, best first. */
  #aeadsFor(words: Uint32Array, at: number): number[] {
    return this.#trusted.has(words, at) ? [AEAD_AES_256_GMAC, ...this.#o.aeads] : [...this.#o.aeads];
  }

  #featuresFor(peer: number): number {
    return this.#o.features & ~this.#o.withheld(peer);
  }

  #saying(peer: Peer): Parameters {
    const limits = {
      datagramMaxBytes: OX_DATAGRAM_MAX_BYTES,
      reportIntervalMs: REPORT_INTERVAL_MS,
      rateKbitS: this.#o.receiveKbitS(peer),
    };
    return { limits, ...this.#o.say(peer) };
  }

  #allocateSpares(session: number): number[] {
    const { table } = this.#s;
    const rows = Array.from({ length: SPARE_IDS }, () => table.allocateSpare(session));
    return rows.filter((row) => row !== NONE);
  }

  #idsOf(rows: number[]): number[] | undefined {
    const { receiverIndex } = this.#s.table;
    return rows.length === 0 ? undefined : rows.map((row) => receiverIndex[row]);
  }

  /** The parameters as bytes. */
  #write(parameters: Parameters): Uint8Array {
    return this.#parameters.slice(0, writeParameters(this.#parameters, 0, parameters));
  }
}

/** Where the datagram in `row` came from, as the parameter says it. */
function seenIn({ address, port }: Burst, row: number): Parameters["seen"] {
  return { address: mappedBytes(address, 4 * row), port: port[row] };
}
