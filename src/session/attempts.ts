/**
 * Handshakes that this end begins: one at a time for each peer, when the next initiation may go, and what the pending one
 * holds (PROTOCOL §3, §10). Invariant: timestamps rise strictly, and a pending handshake's row and secrets are given back
 * before the next one begins. Does not decide when an initiation is wanted: outbox.ts does.
 * Keeps PROTOCOL R8, R28 and R67.
 */
import { type Burst, TO_TRANSMIT } from "../vector/burst.ts";
import { NONE } from "../vector/arena.ts";
import { tai64n } from "../wire/timestamp.ts";
import { wipeHandshake } from "./noise.ts";
import type { Peer } from "./peers.ts";
import type { EarlyData, Protocol, Shared } from "./shared.ts";

/** What came of `emit`: the burst is full; there is nothing to send now; an initiation was made. */
export const EMIT_FULL = 0, EMIT_NOTHING = 1, EMIT_MADE = 2;

export class Attempts {
  readonly #s: Shared;
  #lastTimestampUs = 0;
  readonly #randomWord = new Uint32Array(1);
  readonly #randomBytes = new Uint8Array(this.#randomWord.buffer);

  constructor(shared: Shared) {
    this.#s = shared;
  }

  /**
   * Adds an initiation for the peer to the burst (TO_TRANSMIT). While the last initiation is recent, or the peer's own
   * handshake is about to be confirmed, none is added; if packets wait, the time for the next attempt is set instead.
   * Returns EMIT_*.
   */
  emit(burst: Burst, peer: Peer, nowUs: number): number {
    const { peers, timers } = this.#s;
    const { id } = peer;
    const protocol = this.#protocolOf(id);
    const readyUs = Math.max(
      peer.lastInitiationSentUs + this.#spacingUs(peer, protocol),
      this.#awaitedUntilUs(peers.next[id]),
    );
    if (nowUs < readyUs) {
      if (peer.staged.length > 0 && peer.retryAtUs === Infinity) {
        peer.retryAtUs = readyUs;
        timers.hasten(id, peer.retryAtUs);
      }
      return EMIT_NOTHING;
    }
    const early = protocol.earlyData(peer, burst.bytes, nowUs);
    const row = burst.grow(protocol.initiationBytes(early), TO_TRANSMIT);
    if (row >= 0) this.#write(burst, row, peer, protocol, early, nowUs);
    early?.plaintext.fill(0);
    return row < 0 ? EMIT_FULL : EMIT_MADE;
  }

  #write(
    burst: Burst,
    row: number,
    peer: Peer,
    protocol: Protocol,
    early: EarlyData | undefined,
    nowUs: number,
  ): void {
    const { paths, table } = this.#s;
    const { id } = peer;
    this.drop(peer);
    const session = table.allocate(id);
    const from = burst.offset[row];
    const message = burst.bytes.subarray(from, from + burst.length[row]);
    // Strictly rising even when the wall clock is set back, or the peer would take us for a replay.
    this.#lastTimestampUs = Math.max(this.#lastTimestampUs + 1, nowUs + this.#s.unixOffsetUs);
    const timestamp = tai64n(this.#lastTimestampUs);
    const state = session === NONE
      ? undefined
      : protocol.writeInitiation(message, peer, session, timestamp, nowUs, early);
    peer.refused = undefined;
    peer.lastInitiationSentUs = nowUs;
    peer.attempts++;
    peer.retryAtUs = nowUs + this.#spacingUs(peer, protocol) + this.jitterUs();
    if (peer.attemptsSinceUs === Infinity) peer.attemptsSinceUs = nowUs;
    if (!state) {
      table.erase(session);
      burst.next[row] = 0;
      return;
    }
    paths.direct(burst, row, paths.of(id));
    const { checker } = protocol;
    peer.pending = { state, row: session, sentUs: nowUs, checker, early: early?.packets };
    for (const packet of early?.packets ?? []) packet.wasEarly = true;
  }

  /** Whether the series of attempts has lasted too long; it ends then. A retry was due. */
  isExhausted(peer: Peer, nowUs: number): boolean {
    if (nowUs - peer.attemptsSinceUs < this.#s.limits.rekeyAttemptUs) return false;
    peer.attemptsSinceUs = Infinity;
    peer.attempts = 0;
    return true;
  }

  /** After a handshake with the peer was completed, by either end: the series of attempts ends. */
  succeeded(peer: Peer, nowUs: number): void {
    peer.lastHandshakeUs = nowUs;
    peer.retryAtUs = Infinity;
    peer.attemptsSinceUs = Infinity;
    peer.attempts = 0;
    peer.askedForSuccessor = false;
    this.#s.peers.jitterUs[peer.id] = this.jitterUs();
    this.drop(peer);
  }

  /** Ends the peer's pending handshake, if there is one. */
  drop(peer: Peer): void {
    if (!peer.pending) return;
    wipeHandshake(peer.pending.state);
    for (const protocol of this.#s.protocols) protocol?.forgetPending(peer.pending.row);
    this.#s.table.erase(peer.pending.row);
    peer.pending = undefined;
  }

  /** A random part of a timer, 0 to `limits.jitterUs`. */
  jitterUs(): number {
    this.#s.random(this.#randomBytes);
    return this.#randomWord[0] % this.#s.limits.jitterUs;
  }

  /** The protocol that this end begins a handshake with the peer in. */
  #protocolOf(id: number): Protocol {
    return this.#s.protocols[this.#s.peers.protocol[id]]!;
  }

  /** Until when a session that this end has answered for, and that is soon confirmed, is the one to wait for. */
  #awaitedUntilUs(session: number): number {
    const { table, protocols } = this.#s;
    return session === NONE ? -Infinity : protocols[table.protocol[session]]!.awaitedUntilUs(session);
  }

  /** From one initiation to the next: shorter for OxTunnel's first ones while there is no live path (PROTOCOL §10). */
  #spacingUs(peer: Peer, protocol: Protocol): number {
    const { rekeyTimeoutUs, firstRetriesUs } = this.#s.limits;
    const isUrgent = protocol.isUrgent(this.#s.peers.current[peer.id]);
    return isUrgent ? firstRetriesUs[Math.max(0, peer.attempts - 1)] ?? rekeyTimeoutUs : rekeyTimeoutUs;
  }
}
