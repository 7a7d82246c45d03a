/**
 * From totals at several moments to what a person reads: rates, shares of loss in each direction, what the tunnel costs.
 * Invariant: a figure whose counts began anew in between, as with a new session, is left out or taken from what follows.
 * Measures nothing.
 */
import { CLASS_LABELS, type ClassCount, type Metrics } from "../../metrics.ts";
import type { PeerSnapshot } from "../../session/peer_record.ts";
import { type ClassMix, classMix } from "../class_mix.ts";

/** Inner packets so far, with their bytes as the host gives and takes them: uncompressed, and without control frames. */
export interface InnerTotals {
  /** Sent ones. */
  packets: number;
  bytesSent: number;
  bytesReceived: number;
}

/** Packets without headers: the bytes that stood for these, and the bytes that were saved. */
export interface ElidedHeaders {
  packets: number;
  bytesSent: number;
  bytesSaved: number;
}

/** Mean bytes of the headers of packets to the relay that went without them, and of what stood for them. */
export interface MeanHeaders {
  before: number;
  after: number;
}

/**
 * The inner totals of a client. OxTunnel's are those of its classes, which are counted before compression and after it: a peer's
 * own totals are of plaintexts. A WireGuard datagram has one packet and no class.
 */
export function innerTotals(metrics: Metrics, relay: PeerSnapshot, isOxtunnel: boolean): InnerTotals {
  const { bytesSent, bytesReceived } = relay;
  if (!isOxtunnel) return { packets: metrics.get("packets_to_tunnel"), bytesSent, bytesReceived };
  const totals: InnerTotals = { packets: 0, bytesSent: 0, bytesReceived: 0 };
  for (const label of CLASS_LABELS) {
    const up = metrics.ofClass("to_tunnel", label);
    totals.packets += up.packets;
    totals.bytesSent += up.bytes;
    totals.bytesReceived += metrics.ofClass("from_tunnel", label).bytes;
  }
  return totals;
}

/** Totals at one moment. */
export interface Counts extends InnerTotals {
  atMs: number;
  /** The session that the next four belong to. */
  session: number;
  /** Datagrams sent up to the last that the relay reported, and of these the ones that it received. */
  reported: number;
  reportedReceived: number;
  /** Datagrams that the relay sent up to the last that came, and of these the ones that came. */
  seen: number;
  received: number;
  /** Datagrams that were sent, and bytes of UDP payload in them. */
  datagrams: number;
  datagramBytes: number;
  /** Packets to the relay and from it, by class in the order of CLASS_LABELS. */
  classesUp: readonly ClassCount[];
  classesDown: readonly ClassCount[];
  /** Processor time of the process. */
  cpuUs: number;
}

export interface Shares {
  /** Shares 0..1 of datagrams that did not arrive; undefined when none were counted. */
  lossUp?: number;
  lossDown?: number;
  /** Bytes a second over the last interval. */
  rateReceived: number;
  rateSent: number;
  /** Bytes on the wire, IP and UDP headers included, above those of the inner packets, for each packet sent. */
  overheadBytes?: number;
  /** What classes the packets of the last moments had; undefined when there were none, or over WireGuard. */
  mixUp?: ClassMix;
  mixDown?: ClassMix;
  /** Bytes on the wire fewer than WireGuard would have sent without its padding, since the first counts. */
  savedBytes: number;
  /** Share of one processor that the process took. */
  cpuShare: number;
}

/** IPv4 and UDP headers; and what WireGuard adds to them for a packet. */
const OUTER_BYTES = 28;
const WIREGUARD_BYTES = 32;

/** From the counts of the last moments, oldest first, at least one. */
export function shares(counts: readonly Counts[]): Shares {
  const now = counts[counts.length - 1];
  const before = counts[counts.length - 2] ?? now;
  const first = counts.find(({ session }) => session === now.session)!;
  const oldest = counts[0];
  const elapsedS = Math.max(1e-3, (now.atMs - before.atMs) / 1000);
  const packets = now.packets - oldest.packets;
  return {
    lossUp: loss(now.reported - first.reported, now.reportedReceived - first.reportedReceived),
    lossDown: loss(now.seen - first.seen, now.received - first.received),
    rateReceived: Math.max(0, now.bytesReceived - before.bytesReceived) / elapsedS,
    rateSent: Math.max(0, now.bytesSent - before.bytesSent) / elapsedS,
    overheadBytes: packets > 0
      ? (now.datagramBytes - oldest.datagramBytes + OUTER_BYTES * (now.datagrams - oldest.datagrams) -
        (now.bytesSent - oldest.bytesSent)) / packets
      : undefined,
    mixUp: classMix(oldest.classesUp, now.classesUp),
    mixDown: classMix(oldest.classesDown, now.classesDown),
    savedBytes: now.bytesSent + (OUTER_BYTES + WIREGUARD_BYTES) * now.packets - now.datagramBytes -
      OUTER_BYTES * now.datagrams,
    cpuShare: Math.max(0, now.cpuUs - before.cpuUs) / 1e6 / elapsedS,
  };
}

/** A datagram that comes late was counted as lost before, so an interval may hold more than it should. */
function loss(sent: number, received: number): number | undefined {
  return sent > 0 ? Math.max(0, 1 - received / sent) : undefined;
}

/** The mean bytes of headers of packets that went without: before, and what stood for them; undefined without any. */
export function meanHeaders({ packets, bytesSent, bytesSaved }: ElidedHeaders): MeanHeaders | undefined {
  if (packets === 0) return undefined;
  return { before: (bytesSent + bytesSaved) / packets, after: bytesSent / packets };
}
