// Hot path.
/**
 * Makes inner packets fit a tunnel's MTU, in place over the arena: the MSS that TCP's SYNs announce (RFC 9293 §3.7.1)
 * and fragments (RFC 791 §3.2, RFC 8200 §4.5). Invariant: `innerLength` has checked the packet; nothing beyond its length is
 * read, and a checksum that was right stays right, one that was wrong stays wrong. Knows no sessions.
 */
import {
  foldSum,
  IPV4_HEADER_BYTES,
  IPV6_HEADER_BYTES,
  PROTOCOL_ICMPV6,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  sumWords,
} from "./inner.ts";

const TCP_HEADER_BYTES = 20;
const SYN = 0x02;
const OPTION_END = 0, OPTION_NOP = 1, OPTION_MSS = 2, OPTION_MSS_BYTES = 4;
const DONT_FRAGMENT = 0x4000, MORE_FRAGMENTS = 0x2000;
const IPV6_FRAGMENT = 44, FRAGMENT_HEADER_BYTES = 8;
/** In IPv6's fragment header: the flag, and the offset in bytes. */
const IPV6_MORE_FRAGMENTS = 1, IPV6_OFFSET = 0xfff8;

/**
 * Lowers the MSS of a SYN that has one, so that segments towards its sender fit inner packets of `mtu` bytes. Does
 * nothing to other packets, to IPv6 ones with extension headers, and to a SYN without the option, which means 536.
 */
export function clampMss(view: DataView, at: number, length: number, mtu: number): void {
  if (length < IPV4_HEADER_BYTES + TCP_HEADER_BYTES) return;
  const first = view.getUint8(at);
  const isIpv4 = first >> 4 === 4;
  if (view.getUint8(at + (isIpv4 ? 9 : 6)) !== PROTOCOL_TCP) return;
  if (isIpv4 && (view.getUint16(at + 6) & 0x1fff) !== 0) return;
  const segment = at + (isIpv4 ? 4 * (first & 15) : IPV6_HEADER_BYTES);
  const end = at + length;
  if (segment + TCP_HEADER_BYTES > end || (view.getUint8(segment + 13) & SYN) === 0) return;
  const optionsEnd = Math.min(end, segment + 4 * (view.getUint8(segment + 12) >> 4));
  const mss = mtu - (isIpv4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES) - TCP_HEADER_BYTES;
  let here = segment + TCP_HEADER_BYTES;
  while (here + 1 < optionsEnd) {
    const kind = view.getUint8(here);
    if (kind === OPTION_END) return;
    const bytes = kind === OPTION_NOP ? 1 : view.getUint8(here + 1);
    if (bytes === 0 || (kind !== OPTION_NOP && bytes < 2)) return;
    if (kind === OPTION_MSS && bytes === OPTION_MSS_BYTES && here + bytes <= optionsEnd) {
      lower(view, segment, here + 2, mss);
      return;
    }
    here += bytes;
  }
}

/** Writes `mss` at `at` if it is less than the value there, and corrects the checksum by the difference (RFC 1624). */
function lower(view: DataView, segment: number, at: number, mss: number): void {
  const before = view.getUint16(at);
  if (before <= mss) return;
  view.setUint16(at, mss);
  // In a sum of words, a value across two words counts with its bytes swapped.
  const isOdd = ((at - segment) & 1) === 1;
  const old = isOdd ? (before >> 8) | ((before & 255) << 8) : before;
  const now = isOdd ? (mss >> 8) | ((mss & 255) << 8) : mss;
  let sum = (~view.getUint16(segment + 16) & 0xffff) + (~old & 0xffff) + now;
  sum = (sum & 0xffff) + (sum >> 16);
  view.setUint16(segment + 16, ~((sum & 0xffff) + (sum >> 16)) & 0xffff);
}

/** Whether a router may fragment the packet: IPv4 without DF. */
export function mayFragment(view: DataView, at: number): boolean {
  return view.getUint8(at) >> 4 === 4 && (view.getUint16(at + 6) & DONT_FRAGMENT) === 0;
}

/** Whether an IPv6 packet can be fragmented at its source here: it is a fragment already, or has no extension headers. */
export function canSourceFragment(view: DataView, at: number): boolean {
  const next = view.getUint8(at + 6);
  return next === PROTOCOL_TCP || next === PROTOCOL_UDP || next === PROTOCOL_ICMPV6 || next === IPV6_FRAGMENT;
}

/** Bytes of a packet's payload that fragments divide: those after the header; an IPv6 fragment header counts as header. */
export function payloadBytes(view: DataView, at: number): number {
  if (view.getUint8(at) >> 4 === 4) return view.getUint16(at + 2) - 4 * (view.getUint8(at) & 15);
  return IPV6_HEADER_BYTES + view.getUint16(at + 4) - headerBytes(view, at);
}

/** Bytes of payload in each fragment but the last, where packets have at most `mtu` bytes, 68 or more. */
export function fragmentStep(view: DataView, at: number, mtu: number): number {
  const header = view.getUint8(at) >> 4 === 4
    ? 4 * (view.getUint8(at) & 15)
    : IPV6_HEADER_BYTES + FRAGMENT_HEADER_BYTES;
  return (mtu - header) & ~7;
}

/**
 * Writes at `to` a fragment of the packet at `at`: `bytes` of its payload from byte `from` on, a multiple of 8. Returns the
 * fragment's length. The header is repeated, IPv4's with its options. `to` may be `at` for the first fragment, if that is
 * written last. The packet may be a fragment itself; its identification is kept.
 */
export function writeFragment(
  arena: Uint8Array,
  view: DataView,
  at: number,
  to: number,
  from: number,
  bytes: number,
  identification: number,
): number {
  return view.getUint8(at) >> 4 === 4
    ? writeIpv4Fragment(arena, view, at, to, from, bytes, identification)
    : writeIpv6Fragment(arena, view, at, to, from, bytes, identification);
}

function headerBytes(view: DataView, at: number): number {
  return IPV6_HEADER_BYTES + (view.getUint8(at + 6) === IPV6_FRAGMENT ? FRAGMENT_HEADER_BYTES : 0);
}

function writeIpv6Fragment(
  arena: Uint8Array,
  view: DataView,
  at: number,
  to: number,
  from: number,
  bytes: number,
  identification: number,
): number {
  const header = headerBytes(view, at), fragment = at + IPV6_HEADER_BYTES;
  const wasFragment = header > IPV6_HEADER_BYTES;
  const next = view.getUint8(wasFragment ? fragment : at + 6);
  const field = wasFragment ? view.getUint16(fragment + 2) : 0;
  const kept = wasFragment ? view.getUint32(fragment + 4) : identification;
  const isLast = from + bytes === payloadBytes(view, at);
  const start = to + IPV6_HEADER_BYTES;
  arena.copyWithin(start + FRAGMENT_HEADER_BYTES, at + header + from, at + header + from + bytes);
  if (to !== at) arena.copyWithin(to, at, fragment);
  view.setUint16(to + 4, FRAGMENT_HEADER_BYTES + bytes);
  view.setUint8(to + 6, IPV6_FRAGMENT);
  view.setUint16(start, next << 8);
  view.setUint16(
    start + 2,
    (field & IPV6_OFFSET) + from | (isLast ? field & IPV6_MORE_FRAGMENTS : IPV6_MORE_FRAGMENTS),
  );
  view.setUint32(start + 4, kept);
  return IPV6_HEADER_BYTES + FRAGMENT_HEADER_BYTES + bytes;
}

function writeIpv4Fragment(
  arena: Uint8Array,
  view: DataView,
  at: number,
  to: number,
  from: number,
  bytes: number,
  identification: number,
): number {
  const header = 4 * (view.getUint8(at) & 15);
  const isLast = header + from + bytes === view.getUint16(at + 2);
  const field = view.getUint16(at + 6) & ~DONT_FRAGMENT;
  if (to !== at) {
    arena.copyWithin(to, at, at + header);
    arena.copyWithin(to + header, at + header + from, at + header + from + bytes);
  }
  view.setUint16(to + 2, header + bytes);
  view.setUint16(to + 4, identification);
  view.setUint16(to + 6, (field + (from >> 3)) | (isLast ? 0 : MORE_FRAGMENTS));
  view.setUint16(to + 10, 0);
  view.setUint16(to + 10, foldSum(sumWords(view, to, header, 0)));
  return header + bytes;
}
