/**
 * Which rate counts for each peer: the one that the peer asked for, the one that was found, that of its record, the configured one.
 * Invariant: a peer is never sent more than its record, or else the configuration, allows, where packets can wait; what it may send
 * is asked of it and policed. Holds numbers by peer; the queues and the police act on them. Bytes a second, IP and UDP headers
 * included; 0 for no rate.
 * Keeps PROTOCOL R100.
 */
import { RATE_MIN_BPS } from "../control/told_rates.ts";
import type { Police } from "./police.ts";
import type { Queues } from "./queues.ts";

/**
 * A peer that asks for less, by a number on the wire that nothing else bounds, is sent as much all the same, bytes a second: below, a
 * full packet takes longer than a session's timers wait.
 */
const TOLD_MIN = RATE_MIN_BPS / 8;

/** A record's rates, bits a second, as session/peer_record.ts has them. */
export interface RecordRates {
  rateDownBps?: number;
  rateUpBps?: number;
}

export class PeerRates {
  readonly #queues: Queues | undefined;
  readonly #police: Police | undefined;
  readonly #receiveBytesPerS: number;
  /** By peer: the rate that the peer asked this end not to exceed. */
  readonly #told: Float64Array;
  /** By peer: the most that its record allows it to send. */
  readonly #allowed: Float64Array;

  /** @param receiveBytesPerS the rate that this end asks of every peer. */
  constructor(
    peers: number,
    queues: Queues | undefined,
    police: Police | undefined,
    receiveBytesPerS: number,
  ) {
    this.#queues = queues;
    this.#police = police;
    this.#receiveBytesPerS = receiveBytesPerS;
    this.#told = new Float64Array(queues === undefined ? 0 : peers);
    this.#allowed = new Float64Array(peers);
  }

  /** The rate that the peer is to be asked not to exceed. */
  receiveBytesPerS(peer: number): number {
    const own = this.#allowed[peer], all = this.#receiveBytesPerS;
    return own > 0 && all > 0 ? Math.min(own, all) : Math.max(own, all);
  }

  /** Takes the rate that the peer asks this end not to exceed, TOLD_MIN at least; 0 for none. */
  told(peer: number, bytesPerS: number, nowUs: number): void {
    if (this.#queues === undefined) return;
    this.#told[peer] = bytesPerS > 0 ? Math.max(TOLD_MIN, bytesPerS) : 0;
    this.found(peer, 0, nowUs);
  }

  /** Takes the rate that was found, which counts where the peer asked for none, and nothing above its record's. */
  found(peer: number, bytesPerS: number, nowUs: number): void {
    const queues = this.#queues;
    if (queues === undefined) return;
    const own = this.#told[peer] > 0 ? this.#told[peer] : bytesPerS, most = queues.defaultOf(peer);
    if (own > 0) queues.setRate(peer, most > 0 ? Math.min(own, most) : own, nowUs);
    else queues.useDefault(peer, nowUs);
  }

  /** Whether the peer's packets never wait. A peer that gets a line again has the rate that it asked for. */
  setExempt(peer: number, isExempt: boolean, nowUs: number): void {
    this.#queues?.setExempt(peer, isExempt, nowUs);
    if (!isExempt && this.#told[peer] > 0) this.found(peer, 0, nowUs);
  }

  /** Takes the rates of the peer's record, for packets from now on. */
  setRecord(peer: number, { rateDownBps = 0, rateUpBps = 0 }: RecordRates, nowUs: number): void {
    this.#allowed[peer] = rateUpBps / 8;
    this.#police?.setRate(peer, rateUpBps / 8);
    if (this.#queues === undefined) return;
    this.#queues.setOwnDefault(peer, rateDownBps / 8, nowUs);
    if (this.#told[peer] > 0) this.found(peer, 0, nowUs);
  }

  /** The rate that packets to the peer keep to now, whole bits a second, and whose it is; undefined where there is none. */
  shaping(peer: number): { bps: number; by: "peer" | "found" | "record" | "config" } | undefined {
    const queues = this.#queues;
    const bytesPerS = queues === undefined ? 0 : queues.rateOf(peer);
    if (bytesPerS === 0) return undefined;
    const isDefault = bytesPerS === queues!.defaultOf(peer);
    const by = isDefault
      ? queues!.hasOwnDefault(peer) ? "record" : "config"
      : this.#told[peer] > 0
      ? "peer"
      : "found";
    return { bps: Math.round(8 * bytesPerS), by };
  }

  /** The peer goes on in a protocol in which nothing can be asked for. */
  endTold(peer: number, nowUs: number): void {
    if (this.#told[peer] > 0) this.told(peer, 0, nowUs);
  }

  /** The peer's sessions have ended, and with them what it asked for. */
  forgetTold(peer: number): void {
    this.#told[peer] = 0;
  }
}
