/**
 * The compressed headers of RFC 3095 (5.7, 5.11, 5.12) and RFC 3843: UO-0, UO-1, UOR-2, their variants for RTP, and
 * extensions 0 to 3, read into bits. Flags and fields that extension 3 replaces go straight into the headers that the
 * caller prepared; numbers stay as the bits that were sent, to be decoded against the context. R-mode's own formats
 * are not read.
 */
import { type ByteReader, readSdvl, type SdvlValue } from "./bytes.ts";
import { type Headers, type IpHeader, PROFILE } from "./headers.ts";
import type { ScaledTimestamp } from "./timestamp.ts";

/** Lowest bits of a number, as far as they were sent. */
export class Bits {
  value = 0;
  count = 0;

  clear(): void {
    this.value = 0;
    this.count = 0;
  }

  /** Adds lower bits behind those that are there; beyond `width` the highest are dropped. */
  append(value: number, count: number, width: number): void {
    this.value = (this.value * 2 ** count + value) % 2 ** width;
    this.count = Math.min(this.count + count, width);
  }
}

/** What a compressed header says, beside the fields that it puts into the headers. */
export class Compressed {
  readonly sequence = new Bits();
  readonly timestamp = new Bits();
  isScaled = true;
  /** The distance between identification and sequence number, for each IP header. */
  readonly ids = [new Bits(), new Bits()];
  marker = false;
  /** The mode that the compressor announces; 0 if it says nothing. */
  mode = 0;
  crc = 0;
  crcBits: 3 | 7 = 3;

  clear(): void {
    this.sequence.clear();
    this.timestamp.clear();
    this.isScaled = true;
    this.ids[0].clear();
    this.ids[1].clear();
    this.marker = false;
    this.mode = 0;
  }
}

/** Which numbers an extension 0 to 2 carries, by the base header in front of it. */
type Place = "id" | "ts";
interface Variant {
  /** The field of the bits that follow the sequence number's, and of the last octet. */
  first: Place;
  last: Place;
}
const WITHOUT_ID: Variant = { first: "ts", last: "ts" };
const BY_ID: Variant = { first: "id", last: "ts" };
const BY_TIMESTAMP: Variant = { first: "ts", last: "id" };

/** Largest number of bits of a sequence number that is put together. */
const SEQUENCE_BITS = 32;

/** Reads UO-0, UO-1 and UOR-2 packets of one context; holds scratch space for one call. */
export class FormatReader {
  readonly #sdvl: SdvlValue = { value: 0, bits: 0 };

  /**
   * Reads the header whose first octet is `first`; the reader stands behind it and behind the context's id. Changes
   * `headers` (a copy of the context's) and fills `into`; false if the header is malformed or of no format here.
   */
  read(
    first: number,
    reader: ByteReader,
    headers: Headers,
    timestamp: ScaledTimestamp,
    into: Compressed,
  ): boolean {
    into.clear();
    const isRtp = headers.profile === PROFILE.RTP;
    let ok = true;
    if (first < 0x80) {
      into.sequence.append((first >> 3) & 0x0f, 4, SEQUENCE_BITS);
      into.crc = first & 0x07;
      into.crcBits = 3;
    } else if (first < 0xc0) {
      ok = isRtp
        ? this.#readRtp1(first, reader, headers, timestamp, into)
        : this.#read1(first, reader, headers, into);
    } else if ((first & 0xe0) === 0xc0) {
      ok = isRtp
        ? this.#readRtp2(first, reader, headers, timestamp, into)
        : this.#read2(first, reader, headers, into);
    } else return false;
    return ok && !reader.failed && readRemainder(reader, headers);
  }

  /** UO-1 of the profiles without RTP: 6 bits of identification. */
  #read1(first: number, reader: ByteReader, headers: Headers, into: Compressed): boolean {
    const index = innermostCounting(headers);
    if (index < 0) return false;
    into.ids[index].append(first & 0x3f, 6, 16);
    const second = reader.u8();
    into.sequence.append(second >> 3, 5, SEQUENCE_BITS);
    into.crc = second & 0x07;
    into.crcBits = 3;
    return true;
  }

  #read2(first: number, reader: ByteReader, headers: Headers, into: Compressed): boolean {
    into.sequence.append(first & 0x1f, 5, SEQUENCE_BITS);
    const last = reader.u8();
    into.crc = last & 0x7f;
    into.crcBits = 7;
    if (last < 0x80) return true;
    const kind = reader.peek(0) >> 6;
    if (kind === 3) return this.#readExtension3(reader, headers, into);
    return readShortExtension(reader, kind, headers, into);
  }

  #readRtp1(
    first: number,
    reader: ByteReader,
    headers: Headers,
    timestamp: ScaledTimestamp,
    into: Compressed,
  ): boolean {
    const index = innermostCounting(headers);
    const second = reader.u8();
    into.sequence.append((second >> 3) & 0x0f, 4, SEQUENCE_BITS);
    into.crc = second & 0x07;
    into.crcBits = 3;
    const flag = second >= 0x80;
    if (index < 0) {
      into.timestamp.append(first & 0x3f, 6, 32);
      into.marker = flag;
      return true;
    }
    if (first & 0x20) {
      into.timestamp.append(first & 0x1f, 5, 32);
      into.marker = flag;
      return true;
    }
    into.ids[index].append(first & 0x1f, 5, 16);
    return !flag || this.#readRtpExtension(reader, BY_ID, headers, timestamp, into);
  }

  #readRtp2(
    first: number,
    reader: ByteReader,
    headers: Headers,
    timestamp: ScaledTimestamp,
    into: Compressed,
  ): boolean {
    const second = reader.u8();
    const third = reader.u8();
    into.crc = third & 0x7f;
    into.crcBits = 7;
    into.marker = (second & 0x40) !== 0;
    const hasExtension = third >= 0x80;
    // Whether the base header has a T bit depends on flags that an extension 3 may change (RFC 3095 5.7.5.1).
    if (hasExtension && reader.peek(0) >= 0xc0) applyRandomFlags(reader, headers);
    const index = innermostCounting(headers);
    let variant = WITHOUT_ID;
    if (index < 0) into.timestamp.append(((first & 0x1f) << 1) | (second >> 7), 6, 32);
    else if (second >= 0x80) {
      into.timestamp.append(first & 0x1f, 5, 32);
      variant = BY_TIMESTAMP;
    } else {
      into.ids[index].append(first & 0x1f, 5, 16);
      variant = BY_ID;
    }
    into.sequence.append(second & 0x3f, 6, SEQUENCE_BITS);
    return !hasExtension || this.#readRtpExtension(reader, variant, headers, timestamp, into);
  }

  #readRtpExtension(
    reader: ByteReader,
    variant: Variant,
    headers: Headers,
    timestamp: ScaledTimestamp,
    into: Compressed,
  ): boolean {
    const kind = reader.peek(0) >> 6;
    if (kind === 3) return this.#readRtpExtension3(reader, headers, timestamp, into);
    const head = reader.u8();
    into.sequence.append((head >> 3) & 0x07, 3, SEQUENCE_BITS);
    const index = innermostCounting(headers);
    const put = (place: Place, value: number, count: number) => {
      if (place === "ts") into.timestamp.append(value, count, 32);
      else into.ids[index].append(value, count, 16);
    };
    put(variant.first, head & 0x07, 3);
    if (kind === 2) put(variant.first, reader.u8(), 8);
    if (kind >= 1) put(variant.last, reader.u8(), 8);
    return true;
  }

  /** Extension 3 of the profiles without RTP (RFC 3095 5.11.4). */
  #readExtension3(reader: ByteReader, headers: Headers, into: Compressed): boolean {
    const flags = reader.u8();
    into.mode = (flags >> 3) & 0x03;
    const innerFlags = flags & 0x02 ? reader.u8() : 0;
    const outerFlags = flags & 0x01 ? reader.u8() : 0;
    if ((flags & 0x01) && headers.ipCount < 2) return false;
    if (flags & 0x20) into.sequence.append(reader.u8(), 8, SEQUENCE_BITS);
    return readIpParts(reader, headers, into, {
      inner: (flags & 0x02) !== 0,
      innerFlags,
      outer: (flags & 0x01) !== 0,
      outerFlags,
      hasId: (flags & 0x04) !== 0,
    });
  }

  /** Extension 3 of the RTP profile (RFC 3095 5.7.5). */
  #readRtpExtension3(
    reader: ByteReader,
    headers: Headers,
    timestamp: ScaledTimestamp,
    into: Compressed,
  ): boolean {
    const flags = reader.u8();
    const innerFlags = flags & 0x02 ? reader.u8() : 0;
    const outer = (innerFlags & 0x01) !== 0;
    const outerFlags = outer ? reader.u8() : 0;
    if (outer && headers.ipCount < 2) return false;
    if (flags & 0x20) into.sequence.append(reader.u8(), 8, SEQUENCE_BITS);
    into.isScaled = (flags & 0x08) !== 0;
    if (flags & 0x10) {
      readSdvl(reader, this.#sdvl);
      into.timestamp.append(this.#sdvl.value, this.#sdvl.bits, 32);
    }
    const inner = (flags & 0x02) !== 0;
    const parts = { inner, innerFlags, outer, outerFlags, hasId: (flags & 0x04) !== 0 };
    if (!readIpParts(reader, headers, into, parts)) return false;
    return (flags & 0x01) === 0 || this.#readRtpFields(reader, headers, timestamp, into);
  }

  #readRtpFields(
    reader: ByteReader,
    headers: Headers,
    timestamp: ScaledTimestamp,
    into: Compressed,
  ): boolean {
    const { rtp } = headers;
    const flags = reader.u8();
    into.mode = flags >> 6;
    // Both occurrences of the marker agree (RFC 4815 8.4); UO-1-ID has none in its base header.
    into.marker = (flags & 0x10) !== 0;
    rtp.extension = (flags & 0x08) !== 0;
    if (flags & 0x20) {
      const octet = reader.u8();
      rtp.padding = octet >= 0x80;
      rtp.payloadType = octet & 0x7f;
    }
    if ((flags & 0x04) && !rtp.contributors.read(reader)) return false;
    if (flags & 0x02) {
      readSdvl(reader, this.#sdvl);
      timestamp.stride = this.#sdvl.value;
    }
    if (flags & 0x01) readSdvl(reader, this.#sdvl);
    return !reader.failed;
  }
}

/** Index of the innermost IPv4 header whose identification counts; -1 if there is none. */
export function innermostCounting(headers: Headers): number {
  for (let i = headers.ipCount - 1; i >= 0; i--) if (headers.ips[i].countsId) return i;
  return -1;
}

/** Extensions 0 to 2 of the profiles without RTP. */
function readShortExtension(reader: ByteReader, kind: number, headers: Headers, into: Compressed): boolean {
  const head = reader.u8();
  into.sequence.append((head >> 3) & 0x07, 3, SEQUENCE_BITS);
  if (kind === 2) {
    // Both identifications: the outer one has 11 bits, the inner one 8.
    if (headers.ipCount < 2 || !headers.ips[0].countsId || !headers.ips[1].countsId) return false;
    into.ids[0].append(((head & 0x07) << 8) | reader.u8(), 11, 16);
    into.ids[1].append(reader.u8(), 8, 16);
    return true;
  }
  const index = innermostCounting(headers);
  if (index < 0) return false;
  into.ids[index].append(head & 0x07, 3, 16);
  if (kind === 1) into.ids[index].append(reader.u8(), 8, 16);
  return true;
}

/** Sets the RND flags that the extension 3 at the reader's position announces, without moving. */
function applyRandomFlags(reader: ByteReader, headers: Headers): void {
  const flags = reader.peek(0);
  if ((flags & 0x02) === 0) return;
  const innerFlags = reader.peek(1);
  headers.inner.rnd = (innerFlags & 0x02) !== 0;
  if ((innerFlags & 0x01) && headers.ipCount === 2) headers.ips[0].rnd = (reader.peek(2) & 0x02) !== 0;
}

interface IpParts {
  inner: boolean;
  innerFlags: number;
  outer: boolean;
  outerFlags: number;
  hasId: boolean;
}

/** The IP headers' part of extension 3: inner fields, the identification, outer fields. */
function readIpParts(reader: ByteReader, headers: Headers, into: Compressed, parts: IpParts): boolean {
  if (parts.inner) {
    headers.inner.rnd = (parts.innerFlags & 0x02) !== 0;
    if (!readIpFields(reader, headers.inner, parts.innerFlags)) return false;
  }
  if (parts.outer) headers.ips[0].rnd = (parts.outerFlags & 0x02) !== 0;
  if (parts.hasId) {
    const index = innermostCounting(headers);
    if (index < 0) return false;
    into.ids[index].clear();
    into.ids[index].append(reader.u16(), 16, 16);
  }
  if (parts.outer) {
    if (!readIpFields(reader, headers.ips[0], parts.outerFlags)) return false;
    if (parts.outerFlags & 0x01) {
      const id = reader.u16();
      if (headers.ips[0].rnd) headers.ips[0].id = id;
      else {
        into.ids[0].clear();
        into.ids[0].append(id, 16, 16);
      }
    }
  }
  return !reader.failed;
}

function readIpFields(reader: ByteReader, ip: IpHeader, flags: number): boolean {
  ip.nbo = (flags & 0x04) !== 0;
  ip.df = (flags & 0x20) !== 0;
  if (flags & 0x80) ip.tos = reader.u8();
  if (flags & 0x40) ip.ttl = reader.u8();
  if (flags & 0x10) ip.protocol = reader.u8();
  return (flags & 0x08) === 0 || ip.extensions.read(reader);
}

/** What stands behind every compressed header: random identifications, and UDP's checksum where the flow has one. */
function readRemainder(reader: ByteReader, headers: Headers): boolean {
  for (let i = 0; i < headers.ipCount; i++) {
    const ip = headers.ips[i];
    if (ip.version === 4 && ip.rnd) ip.id = reader.u16();
  }
  if (headers.hasUdp && headers.hasChecksums) headers.udpChecksum = reader.u16();
  return !reader.failed;
}
