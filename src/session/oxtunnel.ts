/**
 * OxTunnel's handshake messages between peers (PROTOCOL §10, §11): what is its own beside what associations.ts does
 * for both protocols, negotiation above all. Invariant: nothing changes for a message that has not authenticated,
 * except counters; a response is never longer than the initiation that it is written over. Sessions that came of it
 * are ox_sessions.ts's.
 * Keeps PROTOCOL R28, R29, R31, R35 and R37.
 */
import type { DatagramAead } from "../codec/kernels.ts";
import { NONE } from "../vector/arena.ts";
import { type Burst, TO_INITIATION_ADMITTED, TO_TRANSMIT } from "../vector/burst.ts";
import {
  DATAGRAM_OVERHEAD_BYTES,
  OX_DATAGRAM_MAX_BYTES,
  OX_INITIATION_MIN_BYTES,
  OX_INITIATION_PAYLOAD_AT,
  OX_TAG_BYTES,
  OX_TIMESTAMP_BYTES,
  oxMac1At,
} from "../wire/oxtunnel.ts";
import {
  FEATURE_HYBRID_KEYS,
  type Parameters,
  readParameters,
  REFUSED_AEAD,
  REFUSED_CRITICAL,
  REFUSED_FULL,
  writeParameters,
} from "../wire/parameters.ts";
import { MAC_BYTES, readResponseReceiver, readSender } from "../wire/wireguard.ts";
import type { Associations } from "./associations.ts";
import { CookieChecker, OXTUNNEL_COOKIES } from "./cookie.ts";
import type { HandshakeState, OpenedInitiation } from "./noise.ts";
import { wipeHandshake } from "./noise.ts";
import {
  consumeOxResponse,
  createOxInitiation,
  createOxResponse,
  openOxInitiation,
  openOxPayload,
  oxResponseBytes,
  type SessionSecrets,
  wipeSecrets,
} from "./ox_handshake.ts";
import { KeyExchange } from "./ox_keys.ts";
import { OxSession, SPARE_IDS } from "./ox_session.ts";
import { OxSessions } from "./ox_sessions.ts";
import type { Peer } from "./peers.ts";

export interface OxtunnelOptions {
  datagramAead: DatagramAead;
  /** AEAD_* that this end has, best first; ChaCha20-Poly1305 is always among them. */
  aeads: readonly number[];
  /** FEATURE_* bits that this end has. */
  features: number;
  /** What this end says of itself to the peer in every handshake, besides features, AEADs and ids. */
  say: (peer: Peer) => Parameters;
  /** Largest inner packet of this end, bytes. */
  mtu: number;
}

/** A relay that is full may be asked again after this long. */
const RETRY_WHEN_FULL_S = 30;
const REPORT_INTERVAL_MS = 25;
const PARAMETERS_MAX_BYTES = OX_INITIATION_MIN_BYTES - OX_INITIATION_PAYLOAD_AT - OX_TIMESTAMP_BYTES -
  OX_TAG_BYTES - 2 * MAC_BYTES;

export class Oxtunnel {
  /** Without early data and tickets all parameters fit. */
  readonly initiationBytes = OX_INITIATION_MIN_BYTES;
  readonly sessions: OxSessions;
  readonly checker: CookieChecker;
  readonly #a: Associations;
  readonly #o: OxtunnelOptions;
  /** Rows of the spare ids that a pending handshake's initiation gave out, by its row. */
  readonly #pendingSpares = new Map<number, number[]>();
  /** As long as what fits an initiation, and so a response. */
  readonly #parameters = new Uint8Array(PARAMETERS_MAX_BYTES);

  constructor(associations: Associations, options: OxtunnelOptions) {
    this.#a = associations;
    this.#o = options;
    this.sessions = new OxSessions(associations, options.datagramAead);
    const { staticPublic, random, limits } = associations.options;
    this.checker = new CookieChecker(staticPublic, random, limits.cookieUs, OXTUNNEL_COOKIES);
  }

  /** Answers the initiation in `row` over itself, or says in `next` why not. */
  onInitiation(burst: Burst, row: number, nowUs: number): void {
    const associations = this.#a;
    const { primitives, drop, staticPrivate, staticPublic } = associations.options;
    const { offset, length, next } = burst;
    const message = burst.bytes.subarray(offset[row], offset[row] + length[row]);
    if (
      next[row] !== TO_INITIATION_ADMITTED &&
      !associations.admits(burst, row, message, oxMac1At(length[row]), this.checker, true, nowUs)
    ) return;
    const opened = openOxInitiation(primitives, message, staticPrivate, staticPublic);
    if (!opened) {
      next[row] = drop.handshake_failed;
      return;
    }
    const peer = associations.initiatorOf(burst, row, opened);
    if (!peer) return;
    const payload = openOxPayload(primitives, message, opened, peer.staticSecret);
    const said = payload && readParameters(payload, OX_TIMESTAMP_BYTES, payload.length - OX_TIMESTAMP_BYTES);
    const timestamp = said && payload.slice(0, OX_TIMESTAMP_BYTES);
    const refusal = associations.refusal(peer, timestamp, nowUs);
    if (!said || !timestamp || (refusal !== 0 && refusal !== drop.max_connections)) {
      wipeHandshake(opened.state);
      next[row] = refusal;
      return;
    }
    if (!this.#answer(burst, row, message, peer, opened, said, timestamp, refusal !== 0, nowUs)) {
      wipeHandshake(opened.state);
      next[row] = drop.handshake_failed;
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
    const { primitives, table } = this.#a.options;
    const aead = this.#o.aeads.find((mine) => said.aeads?.includes(mine)) ?? 0;
    let reason = said.unknownCritical !== undefined ? REFUSED_CRITICAL : aead === 0 ? REFUSED_AEAD : 0;
    if (isFull) reason = REFUSED_FULL;
    const session = reason === 0 ? table.allocate(peer.id) : NONE;
    if (session === NONE && reason === 0) reason = REFUSED_FULL;
    const features = (said.features ?? 0) & this.#o.features;
    const spareRows = session === NONE ? [] : this.#allocateSpares(session);
    const parameters = this.#write(
      session === NONE
        ? { refused: { reason, retryAfterS: reason === REFUSED_FULL ? RETRY_WHEN_FULL_S : 0 } }
        : { ...this.#saying(peer), features, aeads: [aead], connectionIds: this.#idsOf(spareRows) },
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
      this.#a.bytes(32),
      parameters,
    );
    if (!secrets) {
      for (const spare of spareRows) table.erase(spare);
      table.erase(session);
      return false;
    }
    peer.oxJar.sign(response, oxMac1At(response.length), nowUs);
    burst.length[row] = response.length;
    burst.next[row] = TO_TRANSMIT;
    if (session === NONE) {
      wipeSecrets(secrets);
      this.#a.taken(peer, timestamp, nowUs);
      return true;
    }
    const rest = this.#begin(session, peer, false, sender, aead, features, said, spareRows, secrets, nowUs);
    rest.paths.onInitiation(burst, row);
    this.#a.answered(peer, session, timestamp, nowUs);
    return true;
  }

  /** Completes the handshake that the response in `row` answers. */
  onResponse(burst: Burst, row: number, nowUs: number): void {
    const associations = this.#a;
    const { primitives, drop, staticPrivate } = associations.options;
    const { offset, length, next, view } = burst;
    const message = burst.bytes.subarray(offset[row], offset[row] + length[row]);
    const receiver = readResponseReceiver(view, offset[row]);
    const mac1At = oxMac1At(length[row]);
    const peer = associations.responderTo(burst, row, message, mac1At, this.checker, receiver, nowUs);
    if (!peer?.pending) return;
    const { state, row: session } = peer.pending;
    const result = consumeOxResponse(primitives, message, state, staticPrivate, peer.presharedKey);
    const said = result && readParameters(result.parameters, 0, result.parameters.length);
    if (!result || !said || !this.#isAcceptable(said)) {
      next[row] = said?.refused ? drop.refused : drop.handshake_failed;
      if (!result) return;
      // The answer was authentic and no session comes of it; the next attempt is the timer's.
      peer.refused = said?.refused;
      wipeSecrets(result.secrets);
      associations.abandon(peer);
      return;
    }
    peer.told = said;
    peer.refused = undefined;
    const spares = this.#pendingSpares.get(session) ?? [];
    this.#pendingSpares.delete(session);
    const [aead] = said.aeads!;
    const remoteId = readSender(view, offset[row]);
    const features = said.features ?? 0;
    this.#begin(session, peer, true, remoteId, aead, features, said, spares, result.secrets, nowUs);
    associations.finished(peer, nowUs);
  }

  /** Whether a response keeps to what this end offered (PROTOCOL R35). */
  #isAcceptable({ refused, unknownCritical, aeads, features = 0 }: Parameters): boolean {
    return !refused && unknownCritical === undefined && aeads?.length === 1 &&
      this.#o.aeads.includes(aeads[0]) && (features & ~this.#o.features) === 0;
  }

  /** Writes an initiation of `initiationBytes` and signs it; undefined when the peer's key is a low-order point. */
  writeInitiation(
    message: Uint8Array,
    peer: Peer,
    session: number,
    timestamp: Uint8Array,
    nowUs: number,
  ): HandshakeState | undefined {
    const { primitives, staticPublic, table } = this.#a.options;
    const spares = this.#allocateSpares(session);
    this.#pendingSpares.set(session, spares);
    const parameters = this.#write({
      ...this.#saying(peer),
      features: this.#o.features,
      aeads: [...this.#o.aeads],
      connectionIds: this.#idsOf(spares),
    });
    const state = createOxInitiation(
      primitives,
      message,
      table.receiverIndex[session],
      staticPublic,
      peer.publicKey,
      peer.staticSecret,
      this.#a.bytes(32),
      timestamp,
      parameters,
    );
    if (state) peer.oxJar.sign(message, oxMac1At(message.length), nowUs);
    else this.forget(session);
    return state;
  }

  /** Gives the spare ids of a handshake that came to nothing back. */
  forget(session: number): void {
    for (const row of this.#pendingSpares.get(session) ?? []) this.#a.options.table.erase(row);
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
    const { table, primitives, random } = this.#a.options;
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
    const rest = new OxSession(this.#a, this.sessions, {
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
    this.sessions.begin(session, rest, nowUs);
    return rest;
  }

  #saying(peer: Peer): Parameters {
    const limits = {
      datagramMaxBytes: OX_DATAGRAM_MAX_BYTES,
      reportIntervalMs: REPORT_INTERVAL_MS,
      rateKbitS: 0,
    };
    return { limits, ...this.#o.say(peer) };
  }

  #allocateSpares(session: number): number[] {
    const { table } = this.#a.options;
    const rows = Array.from({ length: SPARE_IDS }, () => table.allocateSpare(session));
    return rows.filter((row) => row !== NONE);
  }

  #idsOf(rows: number[]): number[] | undefined {
    const { receiverIndex } = this.#a.options.table;
    return rows.length === 0 ? undefined : rows.map((row) => receiverIndex[row]);
  }

  /** The parameters as bytes. */
  #write(parameters: Parameters): Uint8Array {
    return this.#parameters.slice(0, writeParameters(this.#parameters, 0, parameters));
  }
}
