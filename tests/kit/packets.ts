/**
 * Inner packets for tests and benches, with the fields that the cores look at, and the endpoints that hosts are named by.
 * Invariant: header checksums are right. Sends nothing.
 */
import { CLASS_DEFAULT } from "../../src/control/traffic_class.ts";
import { parseAddress } from "../../src/wire/address.ts";
import {
  foldSum,
  IPV6_HEADER_BYTES,
  PROTOCOL_UDP,
  sumWords,
  writeIpv4Header,
  writeIpv6Header,
} from "../../src/wire/inner.ts";

/** A hundred bytes that `numbers` knows again. */
export function payload(n: number): Uint8Array {
  const bytes = new Uint8Array(100);
  new DataView(bytes.buffer).setUint32(0, n);
  return bytes;
}

/** The numbers of the payloads that reached the host's exit, in order. */
export function numbers(host: { readonly delivered: readonly Uint8Array[] }): number[] {
  return host.delivered.map((packet) => new DataView(packet.buffer).getUint32(28));
}

/** An IPv4 UDP packet with the payload, checksums in order except UDP's, which IPv4 leaves optional. */
export function udpPacket(source: string, destination: string, payload: Uint8Array): Uint8Array {
  const packet = new Uint8Array(28 + payload.length);
  const view = new DataView(packet.buffer);
  writeIpv4Header(
    view,
    0,
    packet.length,
    1,
    0,
    PROTOCOL_UDP,
    parseAddress(source)![3],
    parseAddress(destination)![3],
  );
  view.setUint16(20, 40000);
  view.setUint16(22, 7777);
  view.setUint16(24, 8 + payload.length);
  packet.set(payload, 28);
  if (sumWords(view, 0, 20, 0) % 0xffff !== 0) throw new Error("bad header checksum");
  return packet;
}

/** An IPv6 packet whose payload, behind no extension, is `segment`, called UDP. */
export function ipv6Packet(source: string, destination: string, segment: Uint8Array): Uint8Array {
  const packet = new Uint8Array(IPV6_HEADER_BYTES + segment.length);
  const from = parseAddress(source)!, to = parseAddress(destination)!;
  writeIpv6Header(new DataView(packet.buffer), 0, segment.length, PROTOCOL_UDP, from, 0, to, 0);
  packet.set(segment, IPV6_HEADER_BYTES);
  return packet;
}

/** By class: a DSCP that means it (RFC 4594). */
const DSCP_OF = [0, 32, 46, 16, 8];

/** The same IPv4 packet, marked in place with a DSCP and from a port of the class, unless it is the default one. */
export function marked(packet: Uint8Array, trafficClass: number): Uint8Array {
  if (trafficClass === CLASS_DEFAULT) return packet;
  const view = new DataView(packet.buffer, packet.byteOffset);
  view.setUint8(1, DSCP_OF[trafficClass] << 2);
  view.setUint16(10, 0);
  view.setUint16(10, foldSum(sumWords(view, 0, 20, 0)));
  view.setUint16(20, 41000 + trafficClass);
  return packet;
}

export function splitEndpoint(endpoint: string): { text: string; address: Uint32Array; port: number } {
  const at = endpoint.lastIndexOf(":");
  const text = endpoint.slice(0, at).replace(/[[\]]/g, "");
  return { text, address: parseAddress(text)!, port: Number(endpoint.slice(at + 1)) };
}

/** An IPv4 packet with a TCP segment (RFC 9293 §3.1) of `bytes` zeros; `sack` is a block of a selective acknowledgement (RFC 2018). */
export function tcpSegment(
  { from, to, ports: [source, destination], sequence = 0, bytes = 0, ack = 0, sack }: {
    from: string;
    to: string;
    ports: [source: number, destination: number];
    sequence?: number;
    bytes?: number;
    ack?: number;
    sack?: [left: number, right: number];
  },
): Uint8Array<ArrayBuffer> {
  const options = sack === undefined ? 0 : 12;
  const packet = new Uint8Array(udpPacket(from, to, new Uint8Array(12 + options + bytes)));
  const view = new DataView(packet.buffer);
  packet[9] = 6;
  view.setUint16(10, 0);
  let sum = 0;
  for (let at = 0; at < 20; at += 2) sum += view.getUint16(at);
  view.setUint16(10, ~((sum & 0xffff) + (sum >>> 16)));
  view.setUint16(20, source);
  view.setUint16(22, destination);
  view.setUint32(24, sequence);
  view.setUint32(28, ack);
  view.setUint16(32, 5 + options / 4 << 12 | 0x10);
  if (sack !== undefined) {
    view.setUint32(40, 0x0101050a);
    view.setUint32(44, sack[0]);
    view.setUint32(48, sack[1]);
  }
  return packet;
}
