/**
 * Reads ICMP errors about this program's own packets: reason and flow (RFC 792, RFC 4443, RFC 4884). Invariant: an error is
 * accepted only with a correct checksum and with the packet's ports in its quotation; nothing beyond its own length is read.
 * Knows no flows.
 */
import {
  foldSum,
  IPV4_HEADER_BYTES,
  IPV6_HEADER_BYTES,
  isFragment,
  isLaterFragment,
  PROTOCOL_ICMP,
  PROTOCOL_ICMPV6,
  protocolOf,
  readDestination,
  readSource,
  sumWords,
  transportAt,
  transportChecksum,
} from "./inner.ts";

/** Why a packet did not arrive. */
export type IcmpReason = "unreachable" | "no_host" | "refused" | "forbidden" | "expired" | "too_big";

export interface IcmpError {
  reason: IcmpReason;
  /** The largest packet that gets through, in bytes, where the reason is "too_big"; 0 where the router did not report it. */
  mtu: number;
  /** Of the packet that the error is about: protocol, addresses as four words each, ports. */
  protocol: number;
  source: Uint32Array;
  destination: Uint32Array;
  sourcePort: number;
  destinationPort: number;
}

/** By code of ICMPv4 type 3 (RFC 1122 §3.2.2.1, RFC 1812 §5.2.7.1). */
const REASONS_V4: readonly IcmpReason[] = [
  "unreachable",
  "no_host",
  "refused",
  "refused",
  "too_big",
  "no_host",
  "unreachable",
  "no_host",
  "no_host",
  "forbidden",
  "forbidden",
  "unreachable",
  "no_host",
  "forbidden",
  "forbidden",
  "forbidden",
];
/** By code of ICMPv6 type 1 (RFC 4443 §3.1). */
const REASONS_V6: readonly IcmpReason[] = [
  "unreachable",
  "forbidden",
  "no_host",
  "no_host",
  "refused",
  "forbidden",
  "forbidden",
];

/** The error in the whole, unfragmented inner packet at `at`; undefined when it is no error, or not about TCP or UDP. */
export function readIcmpError(view: DataView, at: number, length: number): IcmpError | undefined {
  const isIpv4 = view.getUint8(at) >> 4 === 4;
  const protocol = protocolOf(view, at, length);
  if (protocol !== (isIpv4 ? PROTOCOL_ICMP : PROTOCOL_ICMPV6) || isFragment(view, at, length)) {
    return undefined;
  }
  const icmp = transportAt(view, at, length);
  const quoted = icmp + 8, bytes = at + length - quoted;
  if (icmp === 0 || bytes < (isIpv4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES) + 8) return undefined;
  const sum = isIpv4
    ? foldSum(sumWords(view, icmp, 8 + bytes, 0))
    : transportChecksum(view, at, icmp, 8 + bytes, PROTOCOL_ICMPV6);
  if (sum !== 0 || view.getUint8(quoted) >> 4 !== (isIpv4 ? 4 : 6)) return undefined;
  const reason = reasonOf(isIpv4, view.getUint8(icmp), view.getUint8(icmp + 1));
  if (reason === undefined || isLaterFragment(view, quoted, bytes)) return undefined;
  const ports = transportAt(view, quoted, bytes);
  if (ports === 0 || ports + 4 > quoted + bytes) return undefined;
  const source = new Uint32Array(4), destination = new Uint32Array(4);
  readSource(view, quoted, source, 0);
  readDestination(view, quoted, destination, 0);
  return {
    reason,
    mtu: reason !== "too_big" ? 0 : isIpv4 ? view.getUint16(icmp + 6) : view.getUint32(icmp + 4),
    protocol: protocolOf(view, quoted, bytes),
    source,
    destination,
    sourcePort: view.getUint16(ports),
    destinationPort: view.getUint16(ports + 2),
  };
}

function reasonOf(isIpv4: boolean, type: number, code: number): IcmpReason | undefined {
  if (isIpv4) {
    if (type === 3) return REASONS_V4[code];
    return type === 11 ? "expired" : type === 12 ? "refused" : undefined;
  }
  if (type === 1) return REASONS_V6[code];
  return type === 2 ? "too_big" : type === 3 ? "expired" : type === 4 ? "refused" : undefined;
}
