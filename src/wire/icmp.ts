// Hot path.
/**
 * ICMP messages made of an inner packet, in its place: the reply to an echo request, and the error for the packet's sender; and
 * echo requests of this host's own (RFC 792, RFC 4443). Invariant: no error answers an error, a later fragment, a group or an
 * unspecified address, and none is longer than 576 bytes (ICMPv4) or 1280 bytes (ICMPv6). Reads no errors (icmp_error.ts).
 */
import {
  EXTENSIONS_MAX,
  foldSum,
  HOP_LIMIT,
  IPV4_HEADER_BYTES,
  IPV6_HEADER_BYTES,
  isFragment,
  isLaterFragment,
  PROTOCOL_ICMP,
  PROTOCOL_ICMPV6,
  protocolOf,
  sumWords,
  swap,
  transportAt,
  transportChecksum,
  writeIpv4Header,
  writeIpv6Header,
} from "./inner.ts";

// What `emitIcmpError` says: type and code of ICMPv4 in the upper 16 bits, those of ICMPv6 in the lower.
/** Forbidden by a policy: 3/13 (RFC 1812 §5.2.7.1) and 1/1 (RFC 4443 §3.1). */
export const ICMP_ADMIN_PROHIBITED = 0x030d_0101;
/** No program listens on the port: 3/3 (RFC 1122 §4.1.3.1) and 1/4 (RFC 4443 §3.1). */
export const ICMP_PORT_UNREACHABLE = 0x0303_0104;
/** The protocol is not supported here: 3/2 (RFC 1122 §3.2.2.1), and 4/1 with the place of its number (RFC 4443 §3.4). */
export const ICMP_PROTOCOL_UNREACHABLE = 0x0302_0401;
/** Longer than the path takes; the error's `mtu` is the longest packet that fits: 3/4 (RFC 1191 §4) and 2/0 (RFC 4443 §3.2). */
export const ICMP_PACKET_TOO_BIG = 0x0304_0200;
/** The hops have run out: 11/0 (RFC 792) and 3/0 (RFC 4443 §3.3). */
export const ICMP_TIME_EXCEEDED = 0x0b00_0300;
/** The other fragments did not arrive in time; sent for a first fragment: 11/1 (RFC 792) and 3/1 (RFC 4443 §3.3). */
export const ICMP_REASSEMBLY_EXCEEDED = 0x0b01_0301;

/** An ICMPv6 error must fit the minimum MTU (RFC 4443 §2.4 c); an ICMPv4 error 576 bytes (RFC 1812 §4.3.2.3). */
const ICMPV6_ERROR_MAX = 1280;
const ICMPV4_ERROR_MAX = 576;
const ICMPV6_REDIRECT = 137;

/** Turns an echo request into its reply, in place; returns the length, or 0 when it is no whole echo request. */
export function emitEchoReply(view: DataView, at: number, length: number): number {
  const transport = transportAt(view, at, length);
  if (transport === 0 || transport + 8 > at + length || isFragment(view, at, length)) return 0;
  if (view.getUint8(at) >> 4 === 4) {
    if (view.getUint8(at + 9) !== PROTOCOL_ICMP || view.getUint8(transport) !== 8) return 0;
    swap(view, at + 12, at + 16, 4);
    view.setUint8(at + 8, HOP_LIMIT);
    view.setUint16(at + 10, 0);
    view.setUint16(at + 10, foldSum(sumWords(view, at, transport - at, 0)));
    view.setUint8(transport, 0);
    view.setUint16(transport + 2, 0);
    view.setUint16(transport + 2, foldSum(sumWords(view, transport, at + length - transport, 0)));
    return length;
  }
  if (transport !== at + IPV6_HEADER_BYTES || view.getUint8(at + 6) !== PROTOCOL_ICMPV6) return 0;
  if (view.getUint8(transport) !== 128) return 0;
  swap(view, at + 8, at + 24, 16);
  view.setUint8(at + 7, HOP_LIMIT);
  view.setUint8(transport, 129);
  view.setUint16(transport + 2, 0);
  const segment = at + length - transport;
  view.setUint16(transport + 2, transportChecksum(view, at, transport, segment, PROTOCOL_ICMPV6));
  return length;
}

/** Bytes of data in an echo request of ours, as `ping` has it without its time. */
const ECHO_DATA_BYTES = 16;

/** Bytes of an echo request to an address of IPv4 or IPv6. */
export function echoRequestBytes(isIpv6: boolean): number {
  return (isIpv6 ? IPV6_HEADER_BYTES : IPV4_HEADER_BYTES) + 8 + ECHO_DATA_BYTES;
}

/**
 * Writes an echo request of `echoRequestBytes` bytes at `at` (RFC 792, RFC 4443 §4.1). Addresses are four words each, an IPv4
 * address mapped; `word` is identifier and sequence number, u32.
 */
export function writeEchoRequest(
  view: DataView,
  at: number,
  from: Uint32Array,
  to: Uint32Array,
  isIpv6: boolean,
  word: number,
): void {
  const body = 8 + ECHO_DATA_BYTES;
  const icmp = at + (isIpv6 ? IPV6_HEADER_BYTES : IPV4_HEADER_BYTES);
  if (isIpv6) writeIpv6Header(view, at, body, PROTOCOL_ICMPV6, from, 0, to, 0);
  else writeIpv4Header(view, at, IPV4_HEADER_BYTES + body, 0, 0, PROTOCOL_ICMP, from[3], to[3]);
  for (let i = 0; i < body; i++) view.setUint8(icmp + i, 0);
  view.setUint8(icmp, isIpv6 ? 128 : 8);
  view.setUint32(icmp + 4, word);
  const sum = isIpv6
    ? transportChecksum(view, at, icmp, body, PROTOCOL_ICMPV6)
    : foldSum(sumWords(view, icmp, body, 0));
  view.setUint16(icmp + 2, sum);
}

/** Identifier and sequence number of a whole echo reply, u32; -1 for any other packet. */
export function readEchoReply(view: DataView, at: number, length: number): number {
  const transport = transportAt(view, at, length);
  if (transport === 0 || transport + 8 > at + length || isFragment(view, at, length)) return -1;
  const isIpv6 = view.getUint8(at) >> 4 === 6;
  if (protocolOf(view, at, length) !== (isIpv6 ? PROTOCOL_ICMPV6 : PROTOCOL_ICMP)) return -1;
  return view.getUint8(transport) === (isIpv6 ? 129 : 0) ? view.getUint32(transport + 4) : -1;
}

/** Whether an ICMP error may answer the packet (RFC 1812 §4.3.2.7, RFC 4443 §2.4 e). */
function deservesError(view: DataView, at: number, length: number): boolean {
  if (isLaterFragment(view, at, length)) return false;
  const transport = transportAt(view, at, length);
  if (transport === 0) return false;
  if (view.getUint8(at) >> 4 === 4) {
    const source = view.getUint32(at + 12), destination = view.getUint32(at + 16);
    if (source === 0 || source >>> 24 >= 224 || source >>> 24 === 127 || destination >>> 24 >= 224) {
      return false;
    }
    if (view.getUint8(at + 9) !== PROTOCOL_ICMP) return true;
    if (transport + 1 > at + length) return false;
    const type = view.getUint8(transport);
    return type === 0 || type === 8 || type >= 13;
  }
  if (view.getUint8(at + 8) === 0xff || view.getUint8(at + 24) === 0xff) return false;
  let source = 0;
  for (let i = 8; i < 24; i += 4) source |= view.getUint32(at + i);
  if (source === 0) return false;
  if (protocolOf(view, at, length) !== PROTOCOL_ICMPV6) return true;
  if (transport + 1 > at + length) return false;
  const type = view.getUint8(transport);
  return type >= 128 && type !== ICMPV6_REDIRECT;
}

/**
 * Replaces the packet of `length` bytes at `at` by the error that tells its sender `kind`, an ICMP_* of this file, around as much
 * of the packet as may be quoted. `from` is the address of the relay itself, four words. `mtu`, 68 to 65535 bytes, is for
 * ICMP_PACKET_TOO_BIG. Returns the new length, or 0 when no error may be sent.
 */
export function emitIcmpError(
  bytes: Uint8Array,
  view: DataView,
  at: number,
  length: number,
  from: Uint32Array,
  kind: number,
  mtu = 0,
): number {
  if (!deservesError(view, at, length)) return 0;
  if (view.getUint8(at) >> 4 === 4) return emitIcmpv4(bytes, view, at, length, from, kind >>> 16, mtu);
  const word = kind === ICMP_PROTOCOL_UNREACHABLE ? nextHeaderAt(view, at, length) - at : mtu;
  return emitIcmpv6(bytes, view, at, length, from, kind & 0xffff, word);
}

/** `type` is type and code, `word` what follows the checksum. */
function emitIcmpv4(
  bytes: Uint8Array,
  view: DataView,
  at: number,
  length: number,
  from: Uint32Array,
  type: number,
  word: number,
): number {
  const quoted = Math.min(length, ICMPV4_ERROR_MAX - IPV4_HEADER_BYTES - 8);
  const destination = view.getUint32(at + 12);
  const icmp = at + IPV4_HEADER_BYTES;
  bytes.copyWithin(icmp + 8, at, at + quoted);
  writeIpv4Header(view, at, IPV4_HEADER_BYTES + 8 + quoted, 0, 0, PROTOCOL_ICMP, from[3], destination);
  view.setUint16(icmp, type);
  view.setUint16(icmp + 2, 0);
  view.setUint32(icmp + 4, word);
  view.setUint16(icmp + 2, foldSum(sumWords(view, icmp, 8 + quoted, 0)));
  return IPV4_HEADER_BYTES + 8 + quoted;
}

/** As `emitIcmpv4`. */
function emitIcmpv6(
  bytes: Uint8Array,
  view: DataView,
  at: number,
  length: number,
  from: Uint32Array,
  type: number,
  word: number,
): number {
  const quoted = Math.min(length, ICMPV6_ERROR_MAX - IPV6_HEADER_BYTES - 8);
  const icmp = at + IPV6_HEADER_BYTES;
  const a = view.getUint32(at + 8), b = view.getUint32(at + 12);
  const c = view.getUint32(at + 16), d = view.getUint32(at + 20);
  bytes.copyWithin(icmp + 8, at, at + quoted);
  writeIpv6Header(view, at, 8 + quoted, PROTOCOL_ICMPV6, from, 0, from, 0);
  view.setUint32(at + 24, a);
  view.setUint32(at + 28, b);
  view.setUint32(at + 32, c);
  view.setUint32(at + 36, d);
  view.setUint16(icmp, type);
  view.setUint16(icmp + 2, 0);
  view.setUint32(icmp + 4, word);
  view.setUint16(icmp + 2, transportChecksum(view, at, icmp, 8 + quoted, PROTOCOL_ICMPV6));
  return IPV6_HEADER_BYTES + 8 + quoted;
}

/** Arena offset of the field that names an IPv6 packet's transport protocol, or of the last one that could be read. */
function nextHeaderAt(view: DataView, at: number, length: number): number {
  let place = at + 6, here = at + IPV6_HEADER_BYTES;
  for (let i = 0; i <= EXTENSIONS_MAX; i++) {
    const type = view.getUint8(place);
    if ((type !== 0 && type !== 43 && type !== 44 && type !== 60) || here + 8 > at + length) return place;
    place = here;
    here += 8 + (type === 44 ? 0 : 8 * view.getUint8(here + 1));
  }
  return place;
}
