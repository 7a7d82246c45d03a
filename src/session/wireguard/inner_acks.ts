// Hot path.
/**
 * Finds the rate of a WireGuard peer's line, which sends no reports, by the TCP inside: a segment to the peer and its acknowledgement
 * back tell of exactly that path, as a report would (rate/path_rate.ts). Invariant: memory is for PEERS_MAX peers, and of each one
 * flow is watched; an acknowledgement of what was not sent says nothing, so that a peer can only mislead about its own line; a peer
 * whose flow no longer acknowledges is held to no rate. Only reads packets; knows no clock.
 */
import type { PathRate } from "../../rate/path_rate.ts";
import type { Rates } from "../../rate/pool.ts";
import { PROTOCOL_TCP, protocolOf, readDestination, readSource, transportAt } from "../../wire/inner.ts";

/** Peers that are watched at a time, beside paths of OxTunnel in one pool of rates. */
const PEERS_MAX = 256;
/** A transfer: full segments to a peer in a second, from which on it is watched; and what a full segment has at least, bytes. */
const TRANSFER_SEGMENTS = 48, SEGMENT_BYTES_MIN = 1000;
/** Segments of the flow that are remembered, a power of two, and how far apart they are at least, microseconds. */
const SAMPLES = 512, SAMPLE_US = 500;
/**
 * Of the acknowledgements of this time, microseconds, the one that came back soonest after its segment counts: others were delayed by
 * their sender, or by a processor, and not by the line.
 */
const REPORT_US = 20_000;
/** A flow without a segment for this time leaves its place to another one; without an acknowledgement, the rate is given up. */
const FLOW_IDLE_US = 500_000, SILENT_US = 3_000_000;
// TCP (RFC 9293 §3.1, RFC 2018 §3).
const SEQUENCE_AT = 4, ACKNOWLEDGED_AT = 8, OFFSET_AT = 12, FLAGS_AT = 13, HEADER_BYTES = 20;
const FLAG_ACK = 0x10, FLAGS_OTHER = 0x07;
const OPTION_END = 0, OPTION_PAD = 1, OPTION_SACK = 5;

/** One peer's watched flow. */
class Watch {
  readonly rate: PathRate;
  /** The flow's name: a hash of both ends, and its ports. */
  ends = 0;
  ports = 0;
  /** Datagrams to the peer so far. */
  datagrams = 0;
  /** The end of the newest data that was sent, and the farthest that arrived; sequence numbers. */
  sentTo = 0;
  reached = 0;
  segmentUs: number;
  ackUs: number;
  // By sample: where its segment ends, and the number of its datagram.
  readonly end = new Uint32Array(SAMPLES);
  readonly datagram = new Float64Array(SAMPLES);
  readonly datagramUs = new Float64Array(SAMPLES);
  // Since `beganUs`, the acknowledgement that took the least time: of which datagram, how long, and when it came.
  beganUs: number;
  bestDatagram = -1;
  bestTookUs = Infinity;
  bestUs = 0;
  oldest = 0;
  next = 0;
  sampledUs = -Infinity;

  constructor(rate: PathRate, nowUs: number) {
    this.rate = rate;
    this.segmentUs = this.ackUs = this.beganUs = nowUs;
  }
}

export class InnerAcks {
  readonly #rates: Rates;
  readonly #isWanted: (peer: number) => boolean;
  /** By peer: full segments in its present second, and which second that is. */
  readonly #segments: Uint16Array;
  readonly #second: Uint32Array;
  readonly #watches = new Map<number, Watch>();
  /** The peers that are watched. */
  readonly #watched: number[] = [];
  /** By peer: 1 for one that is watched. */
  readonly #isWatched: Uint8Array;
  readonly #words = new Uint32Array(8);

  /** @param isWanted whether a peer's flows are to be watched. */
  constructor(peers: number, rates: Rates, isWanted: (peer: number) => boolean) {
    this.#rates = rates;
    this.#isWanted = isWanted;
    this.#segments = new Uint16Array(peers);
    this.#second = new Uint32Array(peers);
    this.#isWatched = new Uint8Array(peers);
  }

  /** Whether nobody is watched: acknowledgements then need not be shown. */
  get isIdle(): boolean {
    return this.#watches.size === 0;
  }

  /**
   * Takes a packet that is sent to the peer now, `length` bytes at `at`, whatever it is. @param wireBytes its length on the wire.
   * @param isWaiting whether more of the peer's packets wait.
   */
  sent(
    peer: number,
    view: DataView,
    at: number,
    length: number,
    wireBytes: number,
    isWaiting: boolean,
    nowUs: number,
  ): void {
    if (length < SEGMENT_BYTES_MIN && this.#isWatched[peer] === 0) return;
    const watch = this.#isWatched[peer] === 1 ? this.#watches.get(peer) : this.#begin(peer, nowUs);
    if (watch === undefined) return;
    watch.rate.sent(watch.datagrams++, wireBytes, isWaiting, nowUs);
    if (length < SEGMENT_BYTES_MIN || protocolOf(view, at, length) !== PROTOCOL_TCP) return;
    const tcp = transportAt(view, at, length);
    if (tcp === 0 || tcp + HEADER_BYTES > at + length) return;
    readSource(view, at, this.#words, 0);
    const ends = this.#hash(), ports = view.getUint32(tcp);
    if (ends !== watch.ends || ports !== watch.ports) {
      if (nowUs - watch.segmentUs < FLOW_IDLE_US && watch.ports !== 0) return;
      watch.ends = ends;
      watch.ports = ports;
      watch.oldest = watch.next;
      watch.sentTo = watch.reached = view.getUint32(tcp + SEQUENCE_AT);
    }
    const end =
      view.getUint32(tcp + SEQUENCE_AT) + at + length - tcp - 4 * (view.getUint8(tcp + OFFSET_AT) >> 4) >>> 0;
    watch.segmentUs = nowUs;
    // What is sent again says nothing (Karn): its acknowledgement may be of either.
    if (!isAfter(end, watch.sentTo)) return;
    watch.sentTo = end;
    if (nowUs - watch.sampledUs < SAMPLE_US) return;
    watch.sampledUs = nowUs;
    watch.end[watch.next % SAMPLES] = end;
    watch.datagram[watch.next % SAMPLES] = watch.datagrams - 1;
    watch.datagramUs[watch.next % SAMPLES] = nowUs;
    watch.next++;
    watch.oldest = Math.max(watch.oldest, watch.next - SAMPLES);
  }

  /** Watches the peer from its next packet on, if it has a transfer. */
  #begin(peer: number, nowUs: number): Watch | undefined {
    const second = nowUs / 1e6 >>> 0;
    if (this.#second[peer] !== second) {
      this.#second[peer] = second;
      this.#segments[peer] = 0;
    }
    if (++this.#segments[peer] < TRANSFER_SEGMENTS || this.#watches.size === PEERS_MAX) return undefined;
    if (!this.#isWanted(peer)) return undefined;
    const rate = this.#rates.take(peer, nowUs);
    if (rate === undefined) return undefined;
    const watch = new Watch(rate, nowUs);
    this.#watches.set(peer, watch);
    this.#watched.push(peer);
    this.#isWatched[peer] = 1;
    return watch;
  }

  /** Takes a packet from the peer: an acknowledgement of the watched flow is its path's report. */
  received(peer: number, view: DataView, at: number, length: number, nowUs: number): void {
    if (this.#isWatched[peer] === 0) return;
    const watch = this.#watches.get(peer);
    if (watch === undefined || protocolOf(view, at, length) !== PROTOCOL_TCP) return;
    const tcp = transportAt(view, at, length);
    if (tcp === 0 || tcp + HEADER_BYTES > at + length) return;
    const ports = view.getUint32(tcp);
    if (((ports << 16 | ports >>> 16) >>> 0) !== watch.ports) return;
    const flags = view.getUint8(tcp + FLAGS_AT);
    if ((flags & FLAG_ACK) === 0 || (flags & FLAGS_OTHER) !== 0) return;
    readDestination(view, at, this.#words, 0);
    if (this.#hash() !== watch.ends) return;
    const reached = this.#farthest(view, tcp, at + length, watch);
    if (!isAfter(reached, watch.reached) || isAfter(reached, watch.sentTo)) return;
    watch.reached = reached;
    let datagram = -1, tookUs = Infinity;
    for (; watch.oldest < watch.next; watch.oldest++) {
      const sample = watch.oldest % SAMPLES;
      if (isAfter(watch.end[sample], reached)) break;
      datagram = watch.datagram[sample];
      tookUs = nowUs - watch.datagramUs[sample];
    }
    if (datagram < 0) return;
    watch.ackUs = nowUs;
    if (tookUs <= watch.bestTookUs) {
      watch.bestDatagram = datagram;
      watch.bestTookUs = tookUs;
      watch.bestUs = nowUs;
    }
    if (nowUs - watch.beganUs >= REPORT_US) this.#report(peer, watch, nowUs);
  }

  /** Whether others than the flow's segments arrived is not known, so none counts as lost. */
  #report(peer: number, watch: Watch, nowUs: number): void {
    const { bestDatagram: highest, bestUs } = watch, delayUs = nowUs - bestUs;
    watch.beganUs = nowUs;
    watch.bestTookUs = Infinity;
    watch.rate.onReport({ highest, delayUs, received: highest, hasClock: false, clock: 0 }, nowUs);
    this.#rates.reported(peer, watch.rate, nowUs);
  }

  /** The farthest data that the segment says has arrived: what it acknowledges, or a selective acknowledgement of what was sent. */
  #farthest(view: DataView, tcp: number, end: number, { sentTo }: Watch): number {
    let farthest = view.getUint32(tcp + ACKNOWLEDGED_AT);
    const optionsEnd = Math.min(end, tcp + 4 * (view.getUint8(tcp + OFFSET_AT) >> 4));
    for (let at = tcp + HEADER_BYTES; at + 1 < optionsEnd;) {
      const kind = view.getUint8(at);
      if (kind === OPTION_END) break;
      if (kind === OPTION_PAD) {
        at++;
        continue;
      }
      const bytes = view.getUint8(at + 1);
      if (bytes < 2 || at + bytes > optionsEnd) break;
      if (kind === OPTION_SACK) {
        for (let edge = at + 6; edge + 4 <= at + bytes; edge += 8) {
          const right = view.getUint32(edge);
          if (isAfter(right, farthest) && !isAfter(right, sentTo)) farthest = right;
        }
      }
      at += bytes;
    }
    return farthest;
  }

  /** Gives up the rates of peers that are gone, that have no transfer any more, or whose flow is silent; to be called each second. */
  tend(isGone: (peer: number) => boolean, nowUs: number): void {
    // From behind: one that is forgotten leaves its place to the last.
    for (let i = this.#watched.length - 1; i >= 0; i--) {
      const peer = this.#watched[i], watch = this.#watches.get(peer)!;
      const isSilent = nowUs - watch.ackUs > SILENT_US;
      if (isSilent || watch.rate.isIdle(nowUs) || isGone(peer) || !this.#isWanted(peer)) {
        this.forget(peer, nowUs);
      }
    }
  }

  forget(peer: number, nowUs: number): void {
    const watch = this.#watches.get(peer);
    if (watch === undefined) return;
    this.#watches.delete(peer);
    const last = this.#watched.pop()!;
    if (last !== peer) this.#watched[this.#watched.indexOf(peer)] = last;
    this.#isWatched[peer] = 0;
    this.#rates.give(peer, watch.rate, nowUs);
  }

  /** Of the address in `#words`. */
  #hash(): number {
    const words = this.#words;
    let hash = 0;
    for (let i = 0; i < 4; i++) hash = Math.imul(hash ^ words[i], 0x9e3779b1) | 0;
    return hash;
  }
}

/** Whether the sequence number is behind the other (RFC 9293 §3.4). */
function isAfter(one: number, other: number): boolean {
  return (one - other | 0) > 0;
}
