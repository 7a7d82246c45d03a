// Hot path.
/**
 * Holds peers to the rate that their record allows them to send, without a queue: packets pass at once, and a virtual queue that
 * drains at the rate says which ones are lost or marked (CoDel, RFC 8289, as a real queue would), so that TCP slows down to a
 * rate below its own line's and the queue in the peer's modem goes. Invariant: over any long time a peer gets no more through than
 * its rate and REAL_BURST_US; games and calls are charged, and lost only where they alone exceed the rate. Holds no packets, reads no
 * clock.
 */
import { isRealTime } from "../control/traffic_class.ts";
import { markCe } from "../wire/ecn.ts";
import { Codel } from "./codel.ts";

/**
 * The virtual queue's length, microseconds of the rate: what comes in beyond it is lost. Games and calls have the second half to
 * themselves, so that a sender that ignores losses costs them none.
 */
const BURST_US = 50_000, REAL_BURST_US = 2 * BURST_US;
/** Shorter virtual queues lose none (RFC 8289 §5.4), microseconds of the rate: two packets at 10 Mbit/s. */
const SHORT_US = 2500;

export interface PoliceOptions {
  /** Peers are 0 to peers - 1. */
  peers: number;
  targetUs?: number;
  intervalUs?: number;
  /** Whether packets of ECN-capable flows are marked instead of dropped. */
  ecn: boolean;
}

export class Police {
  readonly #ecn: boolean;
  readonly #codel: Codel;
  /** By peer: microseconds a byte, or 0 without a rate; and when the virtual queue will be empty. */
  readonly #usPerByte: Float64Array;
  readonly #clockUs: Float64Array;
  #peers = 0;

  constructor({ peers, targetUs, intervalUs, ecn }: PoliceOptions) {
    this.#ecn = ecn;
    this.#codel = new Codel(peers, targetUs, intervalUs);
    this.#usPerByte = new Float64Array(peers);
    this.#clockUs = new Float64Array(peers);
  }

  /** Whether no peer has a rate: the caller then need not ask. */
  get isIdle(): boolean {
    return this.#peers === 0;
  }

  /** The most bytes a second from the peer, IP and UDP headers included; 0 for no limit. */
  setRate(peer: number, bytesPerS: number): void {
    const usPerByte = bytesPerS > 0 ? 1e6 / bytesPerS : 0;
    if (this.#usPerByte[peer] === usPerByte) return;
    this.#peers += (usPerByte > 0 ? 1 : 0) - (this.#usPerByte[peer] > 0 ? 1 : 0);
    this.#usPerByte[peer] = usPerByte;
    this.#clockUs[peer] = 0;
    this.#codel.reset(peer);
  }

  /**
   * Whether the packet at `at` of `view`, from the peer, passes; it is marked where that is enough. @param bytes its length on the
   * wire.
   */
  passes(
    peer: number,
    bytes: number,
    trafficClass: number,
    view: DataView,
    at: number,
    nowUs: number,
  ): boolean {
    const usPerByte = this.#usPerByte[peer];
    if (usPerByte === 0) return true;
    const clockUs = Math.max(this.#clockUs[peer], nowUs), aheadUs = clockUs - nowUs;
    const isReal = isRealTime(trafficClass);
    if (aheadUs > (isReal ? REAL_BURST_US : BURST_US)) return false;
    if (!isReal && this.#codel.drops(peer, aheadUs, aheadUs < SHORT_US, nowUs)) {
      if (!this.#ecn || !markCe(view, at)) return false;
    }
    this.#clockUs[peer] = clockUs + bytes * usPerByte;
    return true;
  }
}
