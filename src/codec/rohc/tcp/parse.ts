/**
 * A packet to the fields of the TCP profile, for its compressor. Invariant: what is accepted, the decompressor's headers
 * restore octet for octet; anything else (IP options, extension headers, fragments, an option twice) is for another profile.
 * Every length is bounded by the packet.
 */
import { ipv4ChecksumOf, PROTOCOL } from "../headers.ts";
import { ID, type TcpIp, type TcpState } from "./state.ts";

/** IP headers of a packet that is compressed by this profile. */
const IPS_MAX = 2;

/** Fills `state` from `packet`, but for what is not in the packet; gives where the payload begins, 0 if it is not for this profile. */
export function parseTcp(packet: Uint8Array, state: TcpState): number {
  const view = new DataView(packet.buffer, packet.byteOffset, packet.length);
  let at = 0, protocol: number = PROTOCOL.IPV4;
  for (state.ipCount = 0; protocol === PROTOCOL.IPV4 || protocol === PROTOCOL.IPV6;) {
    if (state.ipCount === IPS_MAX) return 0;
    const ip = state.ip(state.ipCount++);
    const end = parseIp(packet, view, at, ip);
    if (end === 0) return 0;
    at = end;
    protocol = ip.next;
  }
  if (protocol !== PROTOCOL.TCP || packet.length - at < 20) return 0;
  const bytes = (packet[at + 12] >> 4) * 4;
  if (bytes < 20 || at + bytes > packet.length) return 0;
  state.sourcePort = view.getUint16(at);
  state.destinationPort = view.getUint16(at + 2);
  state.sequence = view.getUint32(at + 4);
  state.acknowledgment = view.getUint32(at + 8);
  state.reserved = packet[at + 12] & 0x0f;
  const flags = packet[at + 13];
  state.ecn = flags >> 6;
  state.urgent = (flags & 0x20) !== 0;
  state.acknowledges = (flags & 0x10) !== 0;
  state.push = (flags & 0x08) !== 0;
  state.rsf = flags & 0x07;
  state.window = view.getUint16(at + 14);
  state.checksum = view.getUint16(at + 16);
  state.urgentPointer = view.getUint16(at + 18);
  return state.options.parse(packet.subarray(at + 20, at + bytes)) ? at + bytes : 0;
}

/** Gives where the header ends, 0 if it is not for this profile. */
function parseIp(packet: Uint8Array, view: DataView, at: number, ip: TcpIp): number {
  const left = packet.length - at;
  if (left < 20) return 0;
  ip.version = packet[at] >> 4;
  ip.extensions = [];
  ip.ttlOnce = -1;
  ip.addresses.fill(0);
  if (ip.version === 4) {
    if (packet[at] !== 0x45 || view.getUint16(at + 2) !== left || (view.getUint16(at + 6) & 0xbfff) !== 0) {
      return 0;
    }
    if (ipv4ChecksumOf(packet, at) !== view.getUint16(at + 10)) return 0;
    ip.dscp = packet[at + 1] >> 2;
    ip.ecn = packet[at + 1] & 0x03;
    ip.id = view.getUint16(at + 4);
    ip.df = (packet[at + 6] & 0x40) !== 0;
    ip.ttl = packet[at + 8];
    ip.next = packet[at + 9];
    ip.addresses.set(packet.subarray(at + 12, at + 16), 0);
    ip.addresses.set(packet.subarray(at + 16, at + 20), 16);
    return at + 20;
  }
  if (ip.version !== 6 || left < 40 || view.getUint16(at + 4) !== left - 40) return 0;
  const trafficClass = ((packet[at] & 0x0f) << 4) | (packet[at + 1] >> 4);
  ip.dscp = trafficClass >> 2;
  ip.ecn = trafficClass & 0x03;
  ip.flowLabel = ((packet[at + 1] & 0x0f) << 16) | view.getUint16(at + 2);
  ip.next = packet[at + 6];
  ip.ttl = packet[at + 7];
  ip.behavior = ID.RANDOM;
  ip.addresses.set(packet.subarray(at + 8, at + 40));
  return at + 40;
}
