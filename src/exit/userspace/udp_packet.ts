/**
 * Whole packets of UDP for the inside of a tunnel, from datagrams that a socket, or a program of this host, has. Invariant: lengths and
 * checksums hold. Cuts nothing to a path's MTU: fragmentation.ts does.
 */
import { isIpv4 } from "../../wire/address.ts";
import {
  IPV4_HEADER_BYTES,
  IPV6_HEADER_BYTES,
  PROTOCOL_UDP,
  transportChecksum,
  UDP_HEADER_BYTES,
  writeIpv4Header,
  writeIpv6Header,
} from "../../wire/inner.ts";

/** A whole inner packet of UDP between two addresses of one family, four words each. */
export function buildUdp(
  from: Uint32Array,
  fromPort: number,
  to: Uint32Array,
  toPort: number,
  payload: Uint8Array,
): Uint8Array {
  const v4 = isIpv4(to);
  const header = v4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES;
  const size = UDP_HEADER_BYTES + payload.length;
  const whole = new Uint8Array(header + size);
  const view = new DataView(whole.buffer);
  if (v4) writeIpv4Header(view, 0, header + size, 0, 0, PROTOCOL_UDP, from[3], to[3]);
  else writeIpv6Header(view, 0, size, PROTOCOL_UDP, from, 0, to, 0);
  view.setUint16(header, fromPort);
  view.setUint16(header + 2, toPort);
  view.setUint16(header + 4, size);
  whole.set(payload, header + UDP_HEADER_BYTES);
  // A checksum of zero means "none" in UDP, so zero is sent as all ones (RFC 768).
  view.setUint16(header + 6, transportChecksum(view, 0, header, size, PROTOCOL_UDP) || 0xffff);
  return whole;
}
