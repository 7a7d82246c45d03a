/**
 * A packet to the fields of its headers, for a compressor: which profile of RFC 3095 and RFC 3843 suits it, and what its
 * headers hold. Invariant: what is accepted, `writeHeaders` writes again octet for octet; every other packet (options,
 * fragments, wrong lengths or checksums) is given less of a profile, down to none. Every length is bounded by the packet.
 */
import {
  ESP_BYTES,
  type Headers,
  type IpHeader,
  IPV4_BYTES,
  ipv4ChecksumOf,
  IPV6_BYTES,
  type Layout,
  PROFILE,
  PROTOCOL,
  RTP_BYTES,
  UDP_BYTES,
} from "./headers.ts";
import { MAX_ITEM_BYTES, MAX_ITEMS } from "./list.ts";

/** Says whether the UDP payload at `packet[at, …)` is RTP; ports and lengths are the caller's to look at. */
export type IsRtp = (packet: Uint8Array, udpAt: number) => boolean;

/**
 * Fills `headers` from `packet`, and `layout` with where they lie. The profile is `headers.profile`, and the payload
 * begins at `layout.end`: at 0, of profile 0, when nothing can be compressed.
 */
export function parsePacket(packet: Uint8Array, headers: Headers, layout: Layout, isRtp: IsRtp): void {
  headers.profile = PROFILE.UNCOMPRESSED;
  layout.end = 0;
  layout.ipAt[0] = 0;
  const end = parseIp(packet, 0, headers.ips[0]);
  if (end < 0) return;
  headers.profile = PROFILE.IP;
  headers.ipCount = 1;
  layout.ipEnd[0] = end;
  layout.upperAt = end;
  const { protocol } = headers.ips[0];
  if (protocol === PROTOCOL.IPV4 || protocol === PROTOCOL.IPV6) {
    const innerEnd = parseIp(packet, end, headers.ips[1]);
    // One that cannot be written again is payload (RFC 3843 3.1).
    if (innerEnd >= 0) {
      headers.ipCount = 2;
      layout.ipAt[1] = end;
      layout.ipEnd[1] = innerEnd;
      layout.upperAt = innerEnd;
    }
  }
  layout.end = parseUpper(packet, layout.upperAt, headers, isRtp);
}

/** Reads an IP header with its extension headers; gives where they end, -1 if they cannot be written again. */
function parseIp(packet: Uint8Array, at: number, ip: IpHeader): number {
  if (at >= packet.length) return -1;
  ip.version = packet[at] >> 4;
  ip.extensions.clear();
  if (ip.version === 4) return parseIpv4(packet, at, ip);
  return ip.version === 6 ? parseIpv6(packet, at, ip) : -1;
}

function parseIpv4(packet: Uint8Array, at: number, ip: IpHeader): number {
  if (packet.length - at < IPV4_BYTES || packet[at] !== 0x45) return -1;
  if (get16(packet, at + 2) !== packet.length - at) return -1;
  // Neither a fragment nor the reserved flag.
  if ((get16(packet, at + 6) & 0xbfff) !== 0) return -1;
  if (ipv4ChecksumOf(packet, at) !== get16(packet, at + 10)) return -1;
  ip.tos = packet[at + 1];
  ip.id = get16(packet, at + 4);
  ip.df = (packet[at + 6] & 0x40) !== 0;
  ip.ttl = packet[at + 8];
  ip.protocol = packet[at + 9];
  ip.addresses.fill(0);
  ip.addresses.set(packet.subarray(at + 12, at + 16), 0);
  ip.addresses.set(packet.subarray(at + 16, at + 20), 16);
  return at + IPV4_BYTES;
}

function parseIpv6(packet: Uint8Array, at: number, ip: IpHeader): number {
  if (packet.length - at < IPV6_BYTES || get16(packet, at + 4) !== packet.length - at - IPV6_BYTES) return -1;
  ip.tos = ((packet[at] & 0x0f) << 4) | (packet[at + 1] >> 4);
  ip.flowLabel = ((packet[at + 1] & 0x0f) << 16) | get16(packet, at + 2);
  ip.ttl = packet[at + 7];
  ip.addresses.set(packet.subarray(at + 8, at + 40));
  let next = packet[at + 6];
  at += IPV6_BYTES;
  const items: Uint8Array[] = [];
  while (next === PROTOCOL.HOP_OPTIONS || next === PROTOCOL.ROUTING || next === PROTOCOL.DESTINATION) {
    const bytes = at + 2 <= packet.length ? (packet[at + 1] + 1) * 8 : MAX_ITEM_BYTES + 1;
    if (bytes > MAX_ITEM_BYTES || at + bytes > packet.length || items.length === MAX_ITEMS) return -1;
    const item = packet.slice(at, at + bytes);
    item[0] = next;
    items.push(item);
    next = packet[at];
    at += bytes;
  }
  if (items.length > 0) ip.extensions.setItems(items);
  ip.protocol = next;
  return at;
}

/** Gives where the payload begins. */
function parseUpper(packet: Uint8Array, at: number, headers: Headers, isRtp: IsRtp): number {
  const left = packet.length - at;
  const { protocol } = headers.inner;
  if (protocol === PROTOCOL.ESP && left >= ESP_BYTES) {
    headers.profile = PROFILE.ESP;
    headers.spi = get32(packet, at);
    headers.sequence = get32(packet, at + 4);
    return at + ESP_BYTES;
  }
  if (protocol !== PROTOCOL.UDP || left < UDP_BYTES || get16(packet, at + 4) !== left) return at;
  headers.profile = PROFILE.UDP;
  headers.sourcePort = get16(packet, at);
  headers.destinationPort = get16(packet, at + 2);
  headers.udpChecksum = get16(packet, at + 6);
  headers.hasChecksums = headers.udpChecksum !== 0;
  if (left < UDP_BYTES + RTP_BYTES || !isRtp(packet, at)) return at + UDP_BYTES;
  return parseRtp(packet, at + UDP_BYTES, headers);
}

/** Gives where RTP's payload begins, or `at` if it has contributing sources, which librohc cannot restore: then UDP. */
function parseRtp(packet: Uint8Array, at: number, headers: Headers): number {
  const { rtp } = headers;
  if ((packet[at] & 0x0f) !== 0) return at;
  headers.profile = PROFILE.RTP;
  rtp.version = packet[at] >> 6;
  rtp.padding = (packet[at] & 0x20) !== 0;
  rtp.extension = (packet[at] & 0x10) !== 0;
  rtp.marker = packet[at + 1] >= 0x80;
  rtp.payloadType = packet[at + 1] & 0x7f;
  headers.sequence = get16(packet, at + 2);
  rtp.timestamp = get32(packet, at + 4);
  rtp.source = get32(packet, at + 8);
  return at + RTP_BYTES;
}

function get16(packet: Uint8Array, at: number): number {
  return (packet[at] << 8) | packet[at + 1];
}

function get32(packet: Uint8Array, at: number): number {
  return ((get16(packet, at) << 16) | get16(packet, at + 2)) >>> 0;
}
