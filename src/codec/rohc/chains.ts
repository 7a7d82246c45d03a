/**
 * Static and dynamic chains: what IR and IR-DYN packets carry for each header of a flow (RFC 3095 5.7.7, 5.11.1,
 * 5.12.1; RFC 3843 3.2). Reads them into `Headers` and writes them; the checksum and the octets around the chains
 * belong to the callers. At most two IP headers: what lies deeper is payload of the IP profile.
 */
import { type ByteReader, type ByteWriter, readSdvl, sdvlBits, type SdvlValue, writeSdvl } from "./bytes.ts";
import { type Headers, type IpHeader, PROFILE, PROTOCOL, readAddresses } from "./headers.ts";
import { writeWholeList } from "./list.ts";
import type { ScaledTimestamp } from "./timestamp.ts";

/** The highest bit of a version says that a further IP header is payload (RFC 3843 3.1). */
const CHAIN_ENDS = 0x80;

/** Reads a static chain; false if it is malformed or not of the profile. */
export function readStaticChain(reader: ByteReader, headers: Headers): boolean {
  headers.ipCount = 1;
  const at = reader.position;
  if (!readStaticIp(reader, headers.ips[0])) return false;
  const endsHere = reader.bytes[at] >= CHAIN_ENDS;
  const next = headers.ips[0].protocol;
  if (!endsHere && (next === PROTOCOL.IPV4 || next === PROTOCOL.IPV6)) {
    headers.ipCount = 2;
    if (!readStaticIp(reader, headers.ips[1])) return false;
  }
  const { protocol } = headers.inner;
  if (headers.hasUdp) {
    if (protocol !== PROTOCOL.UDP) return false;
    headers.sourcePort = reader.u16();
    headers.destinationPort = reader.u16();
  }
  if (headers.profile === PROFILE.RTP) headers.rtp.source = reader.u32();
  if (headers.profile === PROFILE.ESP) {
    if (protocol !== PROTOCOL.ESP) return false;
    headers.spi = reader.u32();
  }
  return !reader.failed;
}

function readStaticIp(reader: ByteReader, ip: IpHeader): boolean {
  const first = reader.u8();
  ip.version = (first >> 4) & 0x07;
  ip.extensions.clear();
  if (ip.version === 4) {
    ip.protocol = reader.u8();
    readAddresses(reader, ip, 4);
  } else if (ip.version === 6) {
    ip.flowLabel = ((first & 0x0f) << 16) | reader.u16();
    ip.protocol = reader.u8();
    readAddresses(reader, ip, 16);
  } else return false;
  return !reader.failed;
}

/** Reads a dynamic chain with the sequence number that ends it; false if it is malformed. */
export function readDynamicChain(reader: ByteReader, headers: Headers, timestamp: ScaledTimestamp): boolean {
  for (let i = 0; i < headers.ipCount; i++) if (!readDynamicIp(reader, headers.ips[i])) return false;
  if (headers.hasUdp) {
    headers.udpChecksum = reader.u16();
    headers.hasChecksums = headers.udpChecksum !== 0;
  }
  if (headers.profile === PROFILE.RTP) {
    if (!readDynamicRtp(reader, headers, timestamp)) return false;
  } else if (headers.profile === PROFILE.ESP) headers.sequence = reader.u32();
  else headers.sequence = reader.u16();
  return !reader.failed;
}

function readDynamicIp(reader: ByteReader, ip: IpHeader): boolean {
  ip.tos = reader.u8();
  ip.ttl = reader.u8();
  if (ip.version === 4) {
    ip.id = reader.u16();
    const flags = reader.u8();
    ip.df = (flags & 0x80) !== 0;
    ip.rnd = (flags & 0x40) !== 0;
    ip.nbo = (flags & 0x20) !== 0;
    ip.sid = (flags & 0x10) !== 0;
  }
  return ip.extensions.read(reader);
}

function readDynamicRtp(reader: ByteReader, headers: Headers, timestamp: ScaledTimestamp): boolean {
  const { rtp } = headers;
  const first = reader.u8();
  const second = reader.u8();
  rtp.version = first >> 6;
  rtp.padding = (first & 0x20) !== 0;
  rtp.marker = (second & 0x80) !== 0;
  rtp.payloadType = second & 0x7f;
  headers.sequence = reader.u16();
  rtp.timestamp = reader.u32();
  if (!rtp.contributors.read(reader)) return false;
  if (rtp.contributors.indexes.length !== (first & 0x0f)) return false;
  rtp.extension = false;
  if ((first & 0x10) !== 0) {
    const flags = reader.u8();
    rtp.extension = (flags & 0x10) !== 0;
    const value: SdvlValue = { value: 0, bits: 0 };
    if (flags & 0x01) {
      readSdvl(reader, value);
      timestamp.stride = value.value;
    }
    // TIME_STRIDE belongs to timer-based compression, which this decompressor does not offer.
    if (flags & 0x02) readSdvl(reader, value);
  }
  timestamp.follow(rtp.timestamp);
  return !reader.failed;
}

/** Writes the static chain of `headers`. */
export function writeStaticChain(writer: ByteWriter, headers: Headers): void {
  for (let i = 0; i < headers.ipCount; i++) {
    const ip = headers.ips[i];
    const isIp = ip.protocol === PROTOCOL.IPV4 || ip.protocol === PROTOCOL.IPV6;
    const end = i === headers.ipCount - 1 && isIp ? CHAIN_ENDS : 0;
    if (ip.version === 4) {
      writer.u8(0x40 | end);
      writer.u8(ip.protocol);
      writer.copy(ip.addresses, 0, 4);
      writer.copy(ip.addresses, 16, 20);
    } else {
      writer.u8(0x60 | end | (ip.flowLabel >>> 16));
      writer.u16(ip.flowLabel & 0xffff);
      writer.u8(ip.protocol);
      writer.copy(ip.addresses, 0, 32);
    }
  }
  if (headers.hasUdp) {
    writer.u16(headers.sourcePort);
    writer.u16(headers.destinationPort);
  }
  if (headers.profile === PROFILE.RTP) writer.u32(headers.rtp.source);
  if (headers.profile === PROFILE.ESP) writer.u32(headers.spi);
}

/**
 * Writes the dynamic chain of `headers`, with the stride of RTP's time stamps if it is known (not 0). `hadExtensions`
 * says of which IP headers the other end may have extension headers.
 */
export function writeDynamicChain(
  writer: ByteWriter,
  headers: Headers,
  stride: number,
  mode: number,
  hadExtensions: readonly boolean[],
): void {
  for (let i = 0; i < headers.ipCount; i++) {
    const ip = headers.ips[i];
    writer.u8(ip.tos);
    writer.u8(ip.ttl);
    if (ip.version === 4) {
      writer.u16(ip.id);
      writer.u8((ip.df ? 0x80 : 0) | (ip.rnd ? 0x40 : 0) | (ip.nbo ? 0x20 : 0) | (ip.sid ? 0x10 : 0));
    }
    writeWholeList(writer, ip.extensions.items(), hadExtensions[i]);
  }
  if (headers.hasUdp) writer.u16(headers.udpChecksum);
  if (headers.profile === PROFILE.RTP) writeDynamicRtp(writer, headers, stride, mode);
  else if (headers.profile === PROFILE.ESP) writer.u32(headers.sequence);
  else writer.u16(headers.sequence);
}

/** RTP's dynamic part, without contributing sources; the octet of flags always comes, so that each of them is told. */
function writeDynamicRtp(writer: ByteWriter, headers: Headers, stride: number, mode: number): void {
  const { rtp } = headers;
  writer.u8((rtp.version << 6) | (rtp.padding ? 0x20 : 0) | 0x10);
  writer.u8((rtp.marker ? 0x80 : 0) | rtp.payloadType);
  writer.u16(headers.sequence);
  writer.u32(rtp.timestamp);
  writer.u8(0);
  writer.u8((rtp.extension ? 0x10 : 0) | (mode << 2) | (stride !== 0 ? 0x01 : 0));
  if (stride !== 0) writeSdvl(writer, stride, sdvlBits(stride));
}
