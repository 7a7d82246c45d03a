// Hot path.
/**
 * Inner packets: IPv4 (RFC 791), IPv6 (RFC 8200), UDP and TCP headers read and written in place over the arena.
 * Invariant: `innerLength` has vouched for the length before any other function reads, and no function reads or writes
 * beyond the length that it is given. Knows no peers and no policy; ICMP is icmp.ts's.
 * Keeps PROTOCOL R2.
 */

export const PROTOCOL_ICMP = 1;
export const PROTOCOL_TCP = 6;
export const PROTOCOL_UDP = 17;
export const PROTOCOL_ICMPV6 = 58;
export const IPV4_HEADER_BYTES = 20;
export const IPV6_HEADER_BYTES = 40;
export const UDP_HEADER_BYTES = 8;

/** Of packets that are made here. */
export const HOP_LIMIT = 64;
/** Extension headers that are walked over. */
export const EXTENSIONS_MAX = 8;

/**
 * The packet's own total length, or 0 when the `length` bytes at `at` do not begin with a whole IPv4 or IPv6
 * packet. `length` may exceed it: tunnels pad.
 */
export function innerLength(view: DataView, at: number, length: number): number {
  if (length < IPV4_HEADER_BYTES) return 0;
  const first = view.getUint8(at);
  if (first >> 4 === 4) {
    const header = (first & 15) * 4;
    const total = view.getUint16(at + 2);
    return header >= IPV4_HEADER_BYTES && total >= header && total <= length ? total : 0;
  }
  if (first >> 4 !== 6 || length < IPV6_HEADER_BYTES) return 0;
  const total = IPV6_HEADER_BYTES + view.getUint16(at + 4);
  return total <= length ? total : 0;
}

/** 4 or 6. */
export function ipVersion(view: DataView, at: number): number {
  return view.getUint8(at) >> 4;
}

/** The source address as four words at words[to..to+3], IPv4 mapped. */
export function readSource(view: DataView, at: number, words: Uint32Array, to: number): void {
  readAddress(view, at, 12, 8, words, to);
}

/** The destination address as four words at words[to..to+3], IPv4 mapped. */
export function readDestination(view: DataView, at: number, words: Uint32Array, to: number): void {
  readAddress(view, at, 16, 24, words, to);
}

/** Whether the destination, as `readDestination` gives it, is words[0..3]. */
export function isTo(view: DataView, at: number, words: Uint32Array): boolean {
  if (view.getUint8(at) >> 4 === 4) {
    return words[3] === view.getUint32(at + 16) && words[2] === 0xffff && words[1] === 0 && words[0] === 0;
  }
  return words[3] === view.getUint32(at + 36) && words[2] === view.getUint32(at + 32) &&
    words[1] === view.getUint32(at + 28) && words[0] === view.getUint32(at + 24);
}

/** The source address of an IPv4 packet, a u32. */
export function ipv4Source(view: DataView, at: number): number {
  return view.getUint32(at + 12);
}

function readAddress(
  view: DataView,
  at: number,
  v4: number,
  v6: number,
  words: Uint32Array,
  to: number,
): void {
  if (view.getUint8(at) >> 4 === 4) {
    words[to] = 0;
    words[to + 1] = 0;
    words[to + 2] = 0xffff;
    words[to + 3] = view.getUint32(at + v4);
    return;
  }
  for (let i = 0; i < 4; i++) words[to + i] = view.getUint32(at + v6 + 4 * i);
}

/** Whether the packet is a fragment other than the first, so that it has no transport header. */
export function isLaterFragment(view: DataView, at: number, length: number): boolean {
  return fragmentOffset(view, at, length) > 0;
}

/** Whether the packet is any fragment, the first included. */
export function isFragment(view: DataView, at: number, length: number): boolean {
  if (view.getUint8(at) >> 4 === 4) return (view.getUint16(at + 6) & 0x3fff) !== 0;
  const header = fragmentHeader(view, at, length);
  return header > 0 && (view.getUint16(header + 2) & 0xfff9) !== 0;
}

function fragmentOffset(view: DataView, at: number, length: number): number {
  if (view.getUint8(at) >> 4 === 4) return view.getUint16(at + 6) & 0x1fff;
  const header = fragmentHeader(view, at, length);
  return header > 0 ? view.getUint16(header + 2) >> 3 : 0;
}

/** Arena offset of the IPv6 fragment header, or 0. */
export function fragmentHeader(view: DataView, at: number, length: number): number {
  let type = view.getUint8(at + 6);
  let here = at + IPV6_HEADER_BYTES;
  for (let i = 0; i < EXTENSIONS_MAX; i++) {
    if (here + 8 > at + length) return 0;
    if (type === 44) return here;
    if (type !== 0 && type !== 43 && type !== 60) return 0;
    type = view.getUint8(here);
    here += 8 + 8 * view.getUint8(here + 1);
  }
  return 0;
}

/** Arena offset of the transport header, or 0 when the packet ends before it or hides it. */
export function transportAt(view: DataView, at: number, length: number): number {
  if (view.getUint8(at) >> 4 === 4) return at + (view.getUint8(at) & 15) * 4;
  let type = view.getUint8(at + 6);
  let here = at + IPV6_HEADER_BYTES;
  for (let i = 0; i <= EXTENSIONS_MAX; i++) {
    if (type !== 0 && type !== 43 && type !== 44 && type !== 60) return here <= at + length ? here : 0;
    if (here + 8 > at + length) return 0;
    const extra = type === 44 ? 0 : 8 * view.getUint8(here + 1);
    type = view.getUint8(here);
    here += 8 + extra;
  }
  return 0;
}

/** The transport protocol's number behind any extension headers, or 255 when it cannot be found. */
export function protocolOf(view: DataView, at: number, length: number): number {
  if (view.getUint8(at) >> 4 === 4) return view.getUint8(at + 9);
  let type = view.getUint8(at + 6);
  let here = at + IPV6_HEADER_BYTES;
  for (let i = 0; i <= EXTENSIONS_MAX; i++) {
    if (type !== 0 && type !== 43 && type !== 44 && type !== 60) return type;
    if (here + 8 > at + length) return 255;
    const extra = type === 44 ? 0 : 8 * view.getUint8(here + 1);
    type = view.getUint8(here);
    here += 8 + extra;
  }
  return 255;
}

/** Whether an IPv6 packet has a routing header by which it is still to go elsewhere (RFC 8200 §4.4). */
export function hasRouteLeft(view: DataView, at: number, length: number): boolean {
  let type = view.getUint8(at + 6);
  let here = at + IPV6_HEADER_BYTES;
  for (let i = 0; i <= EXTENSIONS_MAX; i++) {
    if ((type !== 0 && type !== 43 && type !== 44 && type !== 60) || here + 8 > at + length) return false;
    if (type === 43 && view.getUint8(here + 3) > 0) return true;
    const extra = type === 44 ? 0 : 8 * view.getUint8(here + 1);
    type = view.getUint8(here);
    here += 8 + extra;
  }
  return false;
}

/** Whether an IPv4 packet asks for a route of its sender's (RFC 791 §3.1): loose (131) or strict (137). */
export function hasSourceRoute(view: DataView, at: number): boolean {
  const end = at + (view.getUint8(at) & 15) * 4;
  for (let here = at + IPV4_HEADER_BYTES; here < end;) {
    const option = view.getUint8(here);
    if (option === 131 || option === 137) return true;
    if (option === 0) return false;
    // No-operation is one byte; any other option says its own length, at least two.
    const bytes = option === 1 ? 1 : here + 1 < end ? view.getUint8(here + 1) : 0;
    if (bytes === 0) return false;
    here += bytes;
  }
  return false;
}

/** Adds the 16-bit words of `length` bytes at `at` to a running sum (RFC 1071). Sums stay exact below 2^53. */
export function sumWords(view: DataView, at: number, length: number, sum: number): number {
  // Four bytes at a time: 65536 is 1 modulo 65535, so that the halves of a word may be added when the sum is folded.
  const whole = length & ~3;
  for (let i = 0; i < whole; i += 4) sum += view.getUint32(at + i);
  if (length & 2) sum += view.getUint16(at + whole);
  return length & 1 ? sum + (view.getUint8(at + length - 1) << 8) : sum;
}

/** Folds a running sum into the checksum to be written. */
export function foldSum(sum: number): number {
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 65536);
  return ~sum & 0xffff;
}

/** Checksum of the transport segment of `length` bytes at `segment`, with the pseudo-header of the packet at `at`. */
export function transportChecksum(
  view: DataView,
  at: number,
  segment: number,
  length: number,
  protocol: number,
): number {
  const v4 = view.getUint8(at) >> 4 === 4;
  let sum = v4 ? sumWords(view, at + 12, 8, 0) : sumWords(view, at + 8, 32, 0);
  sum += protocol + (length & 0xffff) + (length >>> 16);
  return foldSum(sumWords(view, segment, length, sum));
}

/** Writes a 20-byte IPv4 header with its checksum; addresses are u32. `flags` is the 16-bit flags and offset field. */
export function writeIpv4Header(
  view: DataView,
  at: number,
  total: number,
  identification: number,
  flags: number,
  protocol: number,
  source: number,
  destination: number,
): void {
  view.setUint16(at, 0x4500);
  view.setUint16(at + 2, total);
  view.setUint16(at + 4, identification);
  view.setUint16(at + 6, flags);
  view.setUint8(at + 8, HOP_LIMIT);
  view.setUint8(at + 9, protocol);
  view.setUint16(at + 10, 0);
  view.setUint32(at + 12, source);
  view.setUint32(at + 16, destination);
  view.setUint16(at + 10, foldSum(sumWords(view, at, IPV4_HEADER_BYTES, 0)));
}

/** Writes a 40-byte IPv6 header; addresses are four words at from[fromAt..] and to[toAt..]. */
export function writeIpv6Header(
  view: DataView,
  at: number,
  payload: number,
  protocol: number,
  from: Uint32Array,
  fromAt: number,
  to: Uint32Array,
  toAt: number,
): void {
  view.setUint32(at, 0x60000000);
  view.setUint16(at + 4, payload);
  view.setUint8(at + 6, protocol);
  view.setUint8(at + 7, HOP_LIMIT);
  for (let i = 0; i < 4; i++) {
    view.setUint32(at + 8 + 4 * i, from[fromAt + i]);
    view.setUint32(at + 24 + 4 * i, to[toAt + i]);
  }
}

/** Exchanges `bytes`, a multiple of four, at `a` and at `b`. */
export function swap(view: DataView, a: number, b: number, bytes: number): void {
  for (let i = 0; i < bytes; i += 4) {
    const kept = view.getUint32(a + i);
    view.setUint32(a + i, view.getUint32(b + i));
    view.setUint32(b + i, kept);
  }
}

/** Takes one from TTL or hop limit, as a router does, and returns what is left; a packet with 0 or 1 gets 0. */
export function spendHop(view: DataView, at: number): number {
  const v4 = view.getUint8(at) >> 4 === 4;
  const place = at + (v4 ? 8 : 7);
  const hops = view.getUint8(place);
  if (hops <= 1) return 0;
  view.setUint8(place, hops - 1);
  // RFC 1624: the TTL is the high byte of its word, so the sum falls by 0x100 and its complement rises.
  if (v4) {
    const sum = view.getUint16(at + 10) + 0x100;
    view.setUint16(at + 10, (sum + (sum >> 16)) & 0xffff);
  }
  return hops - 1;
}

/**
 * Replaces a TCP segment by the reset that refuses it (RFC 9293 §3.10.7.1). Returns the new length, or 0 when it
 * is not a whole first TCP header or is itself a reset.
 */
export function emitTcpReset(view: DataView, at: number, length: number): number {
  const transport = transportAt(view, at, length);
  if (transport === 0 || transport + 20 > at + length || isFragment(view, at, length)) return 0;
  if (protocolOf(view, at, length) !== PROTOCOL_TCP) return 0;
  const dataOffset = (view.getUint8(transport + 12) >> 4) * 4;
  const flags = view.getUint8(transport + 13);
  if ((flags & 0x04) !== 0 || dataOffset < 20 || transport + dataOffset > at + length) return 0;
  const payload = at + length - transport - dataOffset;
  const sequence = view.getUint32(transport + 4), acknowledged = view.getUint32(transport + 8);
  const ports = view.getUint32(transport);
  const v4 = view.getUint8(at) >> 4 === 4;
  const segment = at + (v4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES);
  if (v4) {
    const source = view.getUint32(at + 12), destination = view.getUint32(at + 16);
    writeIpv4Header(view, at, IPV4_HEADER_BYTES + 20, 0, 0x4000, PROTOCOL_TCP, destination, source);
  } else {
    swap(view, at + 8, at + 24, 16);
    view.setUint16(at + 4, 20);
    view.setUint8(at + 6, PROTOCOL_TCP);
    view.setUint8(at + 7, HOP_LIMIT);
  }
  const hasAck = (flags & 0x10) !== 0;
  view.setUint32(segment, (ports << 16) | (ports >>> 16));
  view.setUint32(segment + 4, hasAck ? acknowledged : 0);
  // SYN and FIN each take one number of the sequence space.
  view.setUint32(segment + 8, hasAck ? 0 : sequence + payload + ((flags >> 1) & 1) + (flags & 1));
  view.setUint16(segment + 12, hasAck ? 0x5004 : 0x5014);
  view.setUint16(segment + 14, 0);
  view.setUint32(segment + 16, 0);
  view.setUint16(segment + 16, transportChecksum(view, at, segment, 20, PROTOCOL_TCP));
  return segment - at + 20;
}
