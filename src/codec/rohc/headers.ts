/**
 * Headers as fields, for the profiles of RFC 3095 and RFC 3843: one or two IP headers and what they carry. Reads the
 * fields of a packet, writes them back byte for byte, and computes the checksum that ROHC has over them (static octets
 * first, RFC 3095 5.9.2). Nothing is decided here about how fields travel.
 */
import type { ByteReader, ByteWriter } from "./bytes.ts";
import { crc3, CRC3_START, crc7, CRC7_START } from "./crc.ts";
import { LIST_OF_EXTENSIONS, LIST_OF_SOURCES, ListContext } from "./list.ts";

/** Profile numbers (RFC 5795 8, the registry of ROHC profiles). */
export const PROFILE = { UNCOMPRESSED: 0, RTP: 1, UDP: 2, ESP: 3, IP: 4, TCP: 6 } as const;

export const PROTOCOL = {
  HOP_OPTIONS: 0,
  IPV4: 4,
  TCP: 6,
  UDP: 17,
  IPV6: 41,
  ROUTING: 43,
  FRAGMENT: 44,
  ESP: 50,
  AUTHENTICATION: 51,
  DESTINATION: 60,
} as const;

export const IPV4_BYTES = 20;
export const IPV6_BYTES = 40;
export const UDP_BYTES = 8;
export const RTP_BYTES = 12;
export const ESP_BYTES = 8;

/** One IP header of a flow. Of IPv4's, `id` is the value on the wire. */
export class IpHeader {
  version = 4;
  /** Type of service, or traffic class. */
  tos = 0;
  /** Time to live, or hop limit. */
  ttl = 0;
  /** What follows this header and its extension headers. */
  protocol = 0;
  readonly addresses = new Uint8Array(32);
  flowLabel = 0;
  df = false;
  /** The identification follows no rule and is sent as it is. */
  rnd = false;
  /** The identification counts in network byte order. */
  nbo = true;
  /** The identification never changes (RFC 3843 3.3). */
  sid = false;
  id = 0;
  readonly extensions: ListContext;

  constructor(mayHaveLists = true) {
    this.extensions = new ListContext(LIST_OF_EXTENSIONS, mayHaveLists);
  }

  copyFrom(other: IpHeader): void {
    this.version = other.version;
    this.tos = other.tos;
    this.ttl = other.ttl;
    this.protocol = other.protocol;
    this.addresses.set(other.addresses);
    this.flowLabel = other.flowLabel;
    this.df = other.df;
    this.rnd = other.rnd;
    this.nbo = other.nbo;
    this.sid = other.sid;
    this.id = other.id;
    this.extensions.copyFrom(other.extensions);
  }

  /** Whether the identification is sent as a distance from the sequence number. */
  get countsId(): boolean {
    return this.version === 4 && !this.rnd;
  }

  /** The identification in the byte order in which it counts. */
  get orderedId(): number {
    return this.nbo ? this.id : swap16(this.id);
  }

  set orderedId(value: number) {
    this.id = this.nbo ? value : swap16(value);
  }
}

export function swap16(value: number): number {
  return ((value & 0xff) << 8) | (value >>> 8);
}

/** RTP's fields; the sequence number is the packet's (`Headers.sequence`). */
export class RtpHeader {
  version = 2;
  padding = false;
  extension = false;
  marker = false;
  payloadType = 0;
  timestamp = 0;
  source = 0;
  readonly contributors: ListContext;

  constructor(mayHaveLists = true) {
    this.contributors = new ListContext(LIST_OF_SOURCES, mayHaveLists);
  }

  copyFrom(other: RtpHeader): void {
    this.version = other.version;
    this.padding = other.padding;
    this.extension = other.extension;
    this.marker = other.marker;
    this.payloadType = other.payloadType;
    this.timestamp = other.timestamp;
    this.source = other.source;
    this.contributors.copyFrom(other.contributors);
  }
}

/** All fields of a packet's headers under one profile. */
export class Headers {
  profile: number = PROFILE.UNCOMPRESSED;
  /** One or two, the outer first. */
  ipCount = 1;
  readonly ips: readonly IpHeader[];
  sourcePort = 0;
  destinationPort = 0;
  udpChecksum = 0;
  /** Whether the flow's packets carry UDP checksums. */
  hasChecksums = false;
  /** ESP's security parameters index. */
  spi = 0;
  readonly rtp: RtpHeader;
  /** RTP's or ESP's sequence number, else one that the compressor counts: 16 bits, ESP's 32. */
  sequence = 0;

  /** @param mayHaveLists whether lists of extension headers and contributing sources are read; they are unless told. */
  constructor(mayHaveLists = true) {
    this.ips = [new IpHeader(mayHaveLists), new IpHeader(mayHaveLists)];
    this.rtp = new RtpHeader(mayHaveLists);
  }

  copyFrom(other: Headers): void {
    this.profile = other.profile;
    this.ipCount = other.ipCount;
    for (let i = 0; i < this.ipCount; i++) this.ips[i].copyFrom(other.ips[i]);
    this.sourcePort = other.sourcePort;
    this.destinationPort = other.destinationPort;
    this.udpChecksum = other.udpChecksum;
    this.hasChecksums = other.hasChecksums;
    this.spi = other.spi;
    if (this.profile === PROFILE.RTP) this.rtp.copyFrom(other.rtp);
    this.sequence = other.sequence;
  }

  /** The innermost header. */
  get inner(): IpHeader {
    return this.ips[this.ipCount - 1];
  }

  get hasUdp(): boolean {
    return this.profile === PROFILE.RTP || this.profile === PROFILE.UDP;
  }
}

/** Width of the profile's sequence number in bits. */
export function sequenceWidth(profile: number): number {
  return profile === PROFILE.ESP ? 32 : 16;
}

/** Where a packet's headers lie in its bytes, as `writeHeaders` has put them. */
export class Layout {
  /** Where each IP header begins, and where its extension headers end. */
  readonly ipAt = [0, 0];
  readonly ipEnd = [0, 0];
  upperAt = 0;
  end = 0;
}

/**
 * Writes the headers, with lengths and IPv4's checksum, for a payload of `payloadBytes` that follows; `writer.failed`
 * when there is no room, or when a length does not fit its field.
 */
export function writeHeaders(
  headers: Headers,
  payloadBytes: number,
  writer: ByteWriter,
  layout: Layout,
): void {
  for (let i = 0; i < headers.ipCount; i++) writeIp(headers, i, writer, layout);
  layout.upperAt = writer.position;
  if (headers.hasUdp) {
    writer.u16(headers.sourcePort);
    writer.u16(headers.destinationPort);
    writer.u16(0);
    writer.u16(headers.udpChecksum);
  }
  if (headers.profile === PROFILE.RTP) writeRtp(headers, writer);
  if (headers.profile === PROFILE.ESP) {
    writer.u32(headers.spi);
    writer.u32(headers.sequence);
  }
  layout.end = writer.position;
  if (!writer.failed) writeLengths(headers, payloadBytes, writer, layout);
}

function writeIp(headers: Headers, index: number, writer: ByteWriter, layout: Layout): void {
  const ip = headers.ips[index];
  layout.ipAt[index] = writer.position;
  if (ip.version === 4) {
    writer.u8(0x45);
    writer.u8(ip.tos);
    writer.u16(0);
    writer.u16(ip.id);
    writer.u16(ip.df ? 0x4000 : 0);
    writer.u8(ip.ttl);
    writer.u8(ip.protocol);
    writer.u16(0);
    writer.copy(ip.addresses, 0, 4);
    writer.copy(ip.addresses, 16, 20);
  } else {
    const items = ip.extensions.items();
    writer.u8(0x60 | (ip.tos >> 4));
    writer.u8(((ip.tos & 0x0f) << 4) | (ip.flowLabel >>> 16));
    writer.u16(ip.flowLabel & 0xffff);
    writer.u16(0);
    writer.u8(items.length > 0 ? items[0][0] : ip.protocol);
    writer.u8(ip.ttl);
    writer.copy(ip.addresses, 0, 32);
    for (let i = 0; i < items.length; i++) {
      writer.u8(i + 1 < items.length ? items[i + 1][0] : ip.protocol);
      writer.copy(items[i], 1, items[i].length);
    }
  }
  layout.ipEnd[index] = writer.position;
}

function writeRtp(headers: Headers, writer: ByteWriter): void {
  const { rtp } = headers;
  const contributors = rtp.contributors.items();
  writer.u8((rtp.version << 6) | (rtp.padding ? 0x20 : 0) | (rtp.extension ? 0x10 : 0) | contributors.length);
  writer.u8((rtp.marker ? 0x80 : 0) | rtp.payloadType);
  writer.u16(headers.sequence);
  writer.u32(rtp.timestamp);
  writer.u32(rtp.source);
  for (const item of contributors) writer.copy(item, 0, 4);
}

/** Lengths, and IPv4's checksums, once all headers stand. */
function writeLengths(headers: Headers, payloadBytes: number, writer: ByteWriter, layout: Layout): void {
  const { bytes } = writer;
  const end = layout.end + payloadBytes;
  for (let i = 0; i < headers.ipCount; i++) {
    const at = layout.ipAt[i];
    const length = headers.ips[i].version === 4 ? end - at : end - at - IPV6_BYTES;
    if (length > 0xffff) {
      writer.failed = true;
      return;
    }
    if (headers.ips[i].version === 4) {
      put16(bytes, at + 2, length);
      put16(bytes, at + 10, ipv4Checksum(bytes, at));
    } else put16(bytes, at + 4, length);
  }
  if (headers.hasUdp) put16(bytes, layout.upperAt + 4, end - layout.upperAt);
}

function put16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 8;
  bytes[at + 1] = value & 0xff;
}

/** The checksum of an IPv4 header of 20 octets whose checksum field is 0 (RFC 1071). */
export function ipv4Checksum(bytes: Uint8Array, at: number): number {
  let sum = 0;
  for (let i = at; i < at + IPV4_BYTES; i += 2) sum += (bytes[i] << 8) | bytes[i + 1];
  sum = (sum & 0xffff) + (sum >>> 16);
  sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

/** The checksum that an IPv4 header of 20 octets should have, whatever its field holds. */
export function ipv4ChecksumOf(bytes: Uint8Array, at: number): number {
  const field = (bytes[at + 10] << 8) | bytes[at + 11];
  const sum = (~ipv4Checksum(bytes, at) & 0xffff) + (~field & 0xffff);
  return ~((sum & 0xffff) + (sum >>> 16)) & 0xffff;
}

/** The 3- or 7-bit checksum of the headers that `writeHeaders` has laid out (RFC 3095 5.9.2). */
export function headersCrc(headers: Headers, bytes: Uint8Array, layout: Layout, bits: 3 | 7): number {
  const step = bits === 3 ? crc3 : crc7;
  let crc = bits === 3 ? CRC3_START : CRC7_START;
  for (const isDynamic of [false, true]) {
    for (let i = 0; i < headers.ipCount; i++) {
      const ranges = headers.ips[i].version === 4
        ? (isDynamic ? IPV4_DYNAMIC : IPV4_STATIC)
        : (isDynamic ? IPV6_DYNAMIC : IPV6_STATIC);
      crc = over(bytes, layout.ipAt[i], ranges, step, crc);
      if (!isDynamic && headers.ips[i].version === 6) {
        crc = step(bytes, layout.ipAt[i] + IPV6_BYTES, layout.ipEnd[i], crc);
      }
    }
    let at = layout.upperAt;
    if (headers.hasUdp) {
      crc = over(bytes, at, isDynamic ? UDP_DYNAMIC : UDP_STATIC, step, crc);
      at += UDP_BYTES;
    }
    if (headers.profile === PROFILE.RTP) {
      crc = over(bytes, at, isDynamic ? RTP_DYNAMIC : RTP_STATIC, step, crc);
      if (!isDynamic) crc = step(bytes, at + RTP_BYTES, layout.end, crc);
    }
    if (headers.profile === PROFILE.ESP) crc = over(bytes, at, isDynamic ? [4, 8] : [0, 4], step, crc);
  }
  return crc;
}

/** Octets of each header that change often come last under the checksum; all others come first. */
const IPV4_STATIC = [0, 2, 6, 10, 12, 20];
const IPV4_DYNAMIC = [2, 6, 10, 12];
const IPV6_STATIC = [0, 4, 6, 40];
const IPV6_DYNAMIC = [4, 6];
const UDP_STATIC = [0, 4];
const UDP_DYNAMIC = [4, 8];
const RTP_STATIC = [0, 1, 8, 12];
const RTP_DYNAMIC = [1, 8];

function over(
  bytes: Uint8Array,
  at: number,
  ranges: readonly number[],
  step: (bytes: Uint8Array, from: number, to: number, register: number) => number,
  register: number,
): number {
  for (let i = 0; i < ranges.length; i += 2) {
    register = step(bytes, at + ranges[i], at + ranges[i + 1], register);
  }
  return register;
}

/** Reads the addresses of a static chain's part: `bytes` each, the source first. */
export function readAddresses(reader: ByteReader, ip: IpHeader, bytes: 4 | 16): void {
  ip.addresses.fill(0);
  reader.copyTo(ip.addresses, 0, bytes);
  reader.copyTo(ip.addresses, 16, bytes);
}
