/**
 * The chains of the TCP profile (RFC 6846 6.2): static and dynamic in IR, dynamic in IR-DYN, replicate in IR-CR, and
 * the irregular chain behind every compressed header. Reads them into a `TcpState` and writes them; checksums and headers' first octets
 * belong to the callers.
 */
import type { ByteReader, ByteWriter } from "../bytes.ts";
import { PROTOCOL } from "../headers.ts";
import { type Extension, ID, MAX_EXTENSIONS, MAX_IPS, type TcpIp, type TcpState } from "./state.ts";

/** RST, SYN or FIN as the 2-bit index of compressed headers (RFC 6846 6.1.9). */
export const RSF_OF_INDEX = [0, 0x4, 0x2, 0x1] as const;

export function readStaticChain(reader: ByteReader, state: TcpState): boolean {
  let count = 0;
  do {
    if (count === MAX_IPS) return false;
    if (!readStaticIp(reader, state.ip(count++))) return false;
  } while (isIp(state.ips[count - 1].protocol));
  state.ipCount = count;
  state.sourcePort = reader.u16();
  state.destinationPort = reader.u16();
  return state.inner.protocol === PROTOCOL.TCP && !reader.failed;
}

function isIp(protocol: number): boolean {
  return protocol === PROTOCOL.IPV4 || protocol === PROTOCOL.IPV6;
}

function readStaticIp(reader: ByteReader, ip: TcpIp): boolean {
  const first = reader.u8();
  ip.extensions = [];
  ip.addresses.fill(0);
  if (first < 0x80) {
    ip.version = 4;
    ip.next = reader.u8();
    reader.copyTo(ip.addresses, 0, 4);
    reader.copyTo(ip.addresses, 16, 4);
    return !reader.failed;
  }
  ip.version = 6;
  ip.flowLabel = first & 0x10 ? ((first & 0x0f) << 16) | reader.u16() : 0;
  ip.next = reader.u8();
  reader.copyTo(ip.addresses, 0, 32);
  const extensions: Extension[] = [];
  for (let type = ip.next; isExtension(type) && !reader.failed;) {
    if (!ip.mayHaveLists || extensions.length === MAX_EXTENSIONS) return false;
    const next = reader.u8();
    const length = reader.u8();
    const octets = new Uint8Array((length + 1) * 8);
    octets[1] = length;
    if (type === PROTOCOL.ROUTING) reader.copyTo(octets, 2, octets.length - 2);
    extensions.push({ type, next, octets });
    type = next;
  }
  ip.extensions = extensions;
  return !reader.failed;
}

function isExtension(protocol: number): boolean {
  return protocol === PROTOCOL.HOP_OPTIONS || protocol === PROTOCOL.ROUTING ||
    protocol === PROTOCOL.DESTINATION;
}

export function readDynamicChain(reader: ByteReader, state: TcpState): boolean {
  for (let i = 0; i < state.ipCount; i++) readDynamicIp(reader, state.ips[i]);
  const first = reader.u8();
  const second = reader.u8();
  state.ecnUsed = (first & 0x80) !== 0;
  state.reserved = first & 0x0f;
  state.ecn = second >> 6;
  state.urgent = (second & 0x20) !== 0;
  state.acknowledges = (second & 0x10) !== 0;
  state.push = (second & 0x08) !== 0;
  state.rsf = second & 0x07;
  state.msn = reader.u16();
  state.sequence = reader.u32();
  state.acknowledgment = first & 0x20 ? 0 : reader.u32();
  state.window = reader.u16();
  state.checksum = reader.u16();
  state.urgentPointer = first & 0x10 ? 0 : reader.u16();
  if (first & 0x40) state.acknowledgmentStride = reader.u16();
  state.options.clear();
  return state.options.readList(reader, true, state.acknowledgment) && !reader.failed;
}

function readDynamicIp(reader: ByteReader, ip: TcpIp): void {
  if (ip.version === 4) {
    const first = reader.u8();
    ip.df = (first & 0x04) !== 0;
    ip.behavior = first & 0x03;
    readTrafficClass(reader, ip);
    ip.ttl = reader.u8();
    ip.id = ip.behavior === ID.ZERO ? 0 : reader.u16();
    return;
  }
  readTrafficClass(reader, ip);
  ip.ttl = reader.u8();
  ip.behavior = ID.RANDOM;
  ip.extensions = ip.extensions.map((extension) => {
    if (extension.type === PROTOCOL.ROUTING) return extension;
    return withContents(reader, extension, extension.octets.length);
  });
}

function readTrafficClass(reader: ByteReader, ip: TcpIp): void {
  const octet = reader.u8();
  ip.dscp = octet >> 2;
  ip.ecn = octet & 0x03;
}

/** A copy of the extension header whose `length` octets, but for the first two, come from the reader. */
function withContents(reader: ByteReader, extension: Extension, length: number): Extension {
  const octets = new Uint8Array(length);
  octets[1] = length / 8 - 1;
  reader.copyTo(octets, 2, length - 2);
  return { ...extension, octets };
}

/** Replication (RFC 5912 3, RFC 6846 6.2): what differs from the context that `state` was copied from. */
export function readReplicateChain(reader: ByteReader, state: TcpState): boolean {
  for (let i = 0; i < state.ipCount; i++) if (!readReplicateIp(reader, state.ips[i])) return false;
  const head = (reader.u8() << 8) | reader.u8();
  state.urgent = (head & 0x20) !== 0;
  state.acknowledges = (head & 0x10) !== 0;
  state.push = (head & 0x08) !== 0;
  state.rsf = RSF_OF_INDEX[(head >> 1) & 0x03];
  state.ecnUsed = (head & 0x01) !== 0;
  state.msn = reader.u16();
  state.sequence = reader.u32();
  state.sourcePort = readPort(reader, (head >> 11) & 0x03, state.sourcePort);
  state.destinationPort = readPort(reader, (head >> 9) & 0x03, state.destinationPort);
  if (head & 0x4000) state.window = reader.u16();
  if (head & 0x40) state.urgentPointer = reader.u16();
  if (head & 0x80) state.acknowledgment = reader.u32();
  if (state.ecnUsed) {
    const octet = reader.u8();
    state.reserved = (octet >> 2) & 0x0f;
    state.ecn = octet & 0x03;
  }
  state.checksum = reader.u16();
  if (head & 0x0100) state.acknowledgmentStride = reader.u16();
  if (head & 0x2000 && !state.options.readList(reader, false, state.acknowledgment)) return false;
  return !reader.failed;
}

function readPort(reader: ByteReader, presence: number, reference: number): number {
  if (presence === 1) return (reference & 0xff00) | reader.u8();
  return presence === 2 ? reader.u16() : reference;
}

function readReplicateIp(reader: ByteReader, ip: TcpIp): boolean {
  if (ip.version === 4) {
    const first = reader.u8();
    ip.behavior = (first >> 2) & 0x03;
    ip.df = (first & 0x01) !== 0;
    readTrafficClass(reader, ip);
    ip.id = ip.behavior === ID.ZERO ? 0 : reader.u16();
    if (first & 0x02) ip.ttl = reader.u8();
    return !reader.failed;
  }
  readTrafficClass(reader, ip);
  const first = reader.u8();
  if (first & 0x10) ip.flowLabel = ((first & 0x0f) << 16) | reader.u16();
  ip.extensions = ip.extensions.map((extension) => {
    if (reader.u8() !== 0x80) return extension;
    return withContents(reader, extension, (reader.u8() + 1) * 8);
  });
  return !reader.failed;
}

/** The irregular chain; `withTtl` when it holds the outer headers' TTLs. */
export function readIrregularChain(reader: ByteReader, state: TcpState, withTtl: boolean): boolean {
  for (let i = 0; i < state.ipCount; i++) {
    const ip = state.ips[i];
    if (ip.version === 4 && ip.behavior === ID.RANDOM) ip.id = reader.u16();
    if (i === state.ipCount - 1) break;
    if (state.ecnUsed) readTrafficClass(reader, ip);
    if (withTtl) ip.ttlOnce = reader.u8();
  }
  if (state.ecnUsed) {
    const octet = reader.u8();
    state.inner.ecn = octet >> 6;
    state.reserved = (octet >> 2) & 0x0f;
    state.ecn = octet & 0x03;
  }
  state.checksum = reader.u16();
  return state.options.readIrregular(reader, state.acknowledgment) && !reader.failed;
}

/** Writes the static chain; the headers have no extension headers. */
export function writeStaticChain(writer: ByteWriter, state: TcpState): void {
  for (let i = 0; i < state.ipCount; i++) {
    const ip = state.ips[i];
    if (ip.version === 4) {
      writer.u8(0);
      writer.u8(ip.next);
      writer.copy(ip.addresses, 0, 4);
      writer.copy(ip.addresses, 16, 20);
    } else {
      writer.u8(0x90 | (ip.flowLabel >>> 16));
      writer.u16(ip.flowLabel & 0xffff);
      writer.u8(ip.next);
      writer.copy(ip.addresses, 0, 32);
    }
  }
  writer.u16(state.sourcePort);
  writer.u16(state.destinationPort);
}

/** Writes the dynamic chain, with all options. */
export function writeDynamicChain(writer: ByteWriter, state: TcpState): void {
  for (let i = 0; i < state.ipCount; i++) {
    const ip = state.ips[i];
    if (ip.version === 4) writer.u8((ip.df ? 0x04 : 0) | ip.behavior);
    writer.u8((ip.dscp << 2) | ip.ecn);
    writer.u8(ip.ttl);
    if (ip.version === 4 && ip.behavior !== ID.ZERO) writer.u16(ip.id);
  }
  const hasAcknowledgment = state.acknowledgment !== 0, hasPointer = state.urgentPointer !== 0;
  writer.u8(
    (state.ecnUsed ? 0x80 : 0) | (hasAcknowledgment ? 0 : 0x20) | (hasPointer ? 0 : 0x10) | state.reserved,
  );
  writer.u8(
    (state.ecn << 6) | (state.urgent ? 0x20 : 0) | (state.acknowledges ? 0x10 : 0) | (state.push ? 0x08 : 0) |
      state.rsf,
  );
  writer.u16(state.msn);
  writer.u32(state.sequence);
  if (hasAcknowledgment) writer.u32(state.acknowledgment);
  writer.u16(state.window);
  writer.u16(state.checksum);
  if (hasPointer) writer.u16(state.urgentPointer);
  state.options.writeList(writer, state.acknowledgment);
}

/** Writes the irregular chain but for the options, which end it. The outer headers' TTLs are the context's. */
export function writeIrregularHeaders(writer: ByteWriter, state: TcpState): void {
  for (let i = 0; i < state.ipCount; i++) {
    const ip = state.ips[i];
    if (ip.version === 4 && ip.behavior === ID.RANDOM) writer.u16(ip.id);
    if (i < state.ipCount - 1 && state.ecnUsed) writer.u8((ip.dscp << 2) | ip.ecn);
  }
  if (state.ecnUsed) writer.u8((state.inner.ecn << 6) | (state.reserved << 2) | state.ecn);
  writer.u16(state.checksum);
}
