/**
 * The compressed headers of RFC 3095 (5.7, 5.11) as a compressor writes them: one call for each format, with the bits
 * that it carries; `formats.ts` reads them again. Which of them suffice is the caller's to know. The context's id goes
 * behind the first octet where it is a large one.
 */
import { ByteWriter, writeSdvl } from "./bytes.ts";
import { writeLargeCid } from "./framing.ts";
import type { Headers, IpHeader } from "./headers.ts";

/** Longest header without what follows extension 3's fields. */
const HEADER_BYTES = 48;

/** What the last changes want extension 3 to carry. */
export interface Pending {
  /** For each IP header: type of service, TTL, and the flags DF, NBO and RND. */
  tos: boolean[];
  ttl: boolean[];
  flags: boolean[];
  rtp: boolean;
}

/** What extension 3 carries; an identification of -1 is not sent. */
export interface Extension3 {
  pending: Pending;
  innerId: number;
  outerId: number;
}

export interface RtpExtension3 extends Extension3 {
  /** Whether an identification counts, so that the base header has its bits. */
  hasInner: boolean;
  baseId: number;
  timestamp: number;
  /** 0, 7, 14, 21 or 29. */
  timestampBits: number;
  isScaled: boolean;
  /** 0 if it is not announced. */
  stride: number;
}

export class Header {
  readonly #scratch = new ByteWriter();
  readonly #bytes = new Uint8Array(HEADER_BYTES);
  #headers!: Headers;
  #crc3 = 0;
  #crc7 = 0;
  #mode = 0;

  begin(headers: Headers, crc3: number, crc7: number, mode: number): void {
    this.#scratch.over(this.#bytes);
    this.#headers = headers;
    this.#crc3 = crc3;
    this.#crc7 = crc7;
    this.#mode = mode;
  }

  /** Writes the header that was chosen, with a large id behind its first octet. */
  write(writer: ByteWriter, cid: number, isLarge: boolean): void {
    writer.u8(this.#bytes[0]);
    if (isLarge) writeLargeCid(writer, cid);
    writer.copy(this.#bytes, 1, this.#scratch.position);
  }

  get #sequence(): number {
    return this.#headers.sequence;
  }

  uo0(): true {
    this.#scratch.u8(((this.#sequence & 0x0f) << 3) | this.#crc3);
    return true;
  }

  uo1(id: number): true {
    this.#scratch.u8(0x80 | (id & 0x3f));
    this.#scratch.u8(((this.#sequence & 0x1f) << 3) | this.#crc3);
    return true;
  }

  uor2(): true {
    this.#base2(this.#sequence, false);
    return true;
  }

  uor2Extension0(id: number): true {
    this.#base2(this.#sequence >>> 3, true);
    this.#scratch.u8(this.#lowSequence() | (id & 0x07));
    return true;
  }

  uor2Extension1(id: number): true {
    this.#base2(this.#sequence >>> 3, true);
    this.#scratch.u8(0x40 | this.#lowSequence() | ((id >>> 8) & 0x07));
    this.#scratch.u8(id & 0xff);
    return true;
  }

  uor2Extension2(outerId: number, innerId: number): true {
    this.#base2(this.#sequence >>> 3, true);
    this.#scratch.u8(0x80 | this.#lowSequence() | ((outerId >>> 8) & 0x07));
    this.#scratch.u8(outerId & 0xff);
    this.#scratch.u8(innerId & 0xff);
    return true;
  }

  uor2Extension3(withSequence: boolean, extension: Extension3): true {
    const { outer, inner } = this.#ipFlags(extension);
    this.#base2(withSequence ? this.#sequence >>> 8 : this.#sequence, true);
    this.#scratch.u8(
      0xc0 | (withSequence ? 0x20 : 0) | (this.#mode << 3) | (extension.innerId >= 0 ? 0x04 : 0) |
        (inner >= 0 ? 0x02 : 0) | (outer >= 0 ? 0x01 : 0),
    );
    if (inner >= 0) this.#scratch.u8(inner);
    if (outer >= 0) this.#scratch.u8(outer);
    if (withSequence) this.#scratch.u8(this.#sequence & 0xff);
    this.#ipParts(extension, inner, outer);
    return true;
  }

  #base2(sequence: number, hasExtension: boolean): void {
    this.#scratch.u8(0xc0 | (sequence & 0x1f));
    this.#scratch.u8((hasExtension ? 0x80 : 0) | this.#crc7);
  }

  #lowSequence(): number {
    return (this.#sequence & 0x07) << 3;
  }

  /** UO-1 or UO-1-TS: `isTyped` where a T bit tells them from UO-1-ID. */
  uo1Timestamp(isTyped: boolean, scaled: number): true {
    this.#scratch.u8(isTyped ? 0xa0 | (scaled & 0x1f) : 0x80 | (scaled & 0x3f));
    this.#scratch.u8((this.#headers.rtp.marker ? 0x80 : 0) | ((this.#sequence & 0x0f) << 3) | this.#crc3);
    return true;
  }

  uo1Id(id: number): true {
    this.#scratch.u8(0x80 | (id & 0x1f));
    this.#scratch.u8(((this.#sequence & 0x0f) << 3) | this.#crc3);
    return true;
  }

  /** UOR-2 or UOR-2-TS. */
  uor2Timestamp(isTyped: boolean, scaled: number): true {
    if (isTyped) this.#baseRtp2(scaled & 0x1f, true, this.#sequence, false);
    else this.#baseRtp2((scaled >>> 1) & 0x1f, (scaled & 1) === 1, this.#sequence, false);
    return true;
  }

  uor2Id(id: number): true {
    this.#baseRtp2(id & 0x1f, false, this.#sequence, false);
    return true;
  }

  rtpExtension3(withSequence: boolean, extension: RtpExtension3): void {
    const { outer, inner } = this.#ipFlags(extension);
    const hasRtp = extension.pending.rtp || extension.stride !== 0;
    const sequence = withSequence ? this.#sequence >>> 8 : this.#sequence;
    const { timestamp, timestampBits } = extension;
    if (extension.hasInner) this.#baseRtp2(extension.baseId & 0x1f, false, sequence, true);
    else {
      const high = Math.floor(timestamp / 2 ** timestampBits);
      this.#baseRtp2((high >>> 1) & 0x1f, (high & 1) === 1, sequence, true);
    }
    this.#scratch.u8(
      0xc0 | (withSequence ? 0x20 : 0) | (timestampBits > 0 ? 0x10 : 0) | (extension.isScaled ? 0x08 : 0) |
        (extension.innerId >= 0 ? 0x04 : 0) | (inner >= 0 || outer >= 0 ? 0x02 : 0) | (hasRtp ? 0x01 : 0),
    );
    if (inner >= 0 || outer >= 0) {
      this.#scratch.u8((inner >= 0 ? inner : this.#flagsOf(this.#headers.inner)) | (outer >= 0 ? 0x01 : 0));
    }
    if (outer >= 0) this.#scratch.u8(outer);
    if (withSequence) this.#scratch.u8(this.#sequence & 0xff);
    if (timestampBits > 0) writeSdvl(this.#scratch, timestamp % 2 ** timestampBits, timestampBits);
    this.#ipParts(extension, inner, outer);
    if (hasRtp) this.#rtpFields(extension.stride);
  }

  #baseRtp2(low: number, second: boolean, sequence: number, hasExtension: boolean): void {
    this.#scratch.u8(0xc0 | low);
    this.#scratch.u8((second ? 0x80 : 0) | (this.#headers.rtp.marker ? 0x40 : 0) | (sequence & 0x3f));
    this.#scratch.u8((hasExtension ? 0x80 : 0) | this.#crc7);
  }

  #rtpFields(stride: number): void {
    const { rtp } = this.#headers;
    this.#scratch.u8(
      (this.#mode << 6) | 0x20 | (rtp.marker ? 0x10 : 0) | (rtp.extension ? 0x08 : 0) |
        (stride !== 0 ? 0x02 : 0),
    );
    this.#scratch.u8((rtp.padding ? 0x80 : 0) | rtp.payloadType);
    if (stride !== 0) {
      writeSdvl(
        this.#scratch,
        stride,
        stride < 2 ** 7 ? 7 : stride < 2 ** 14 ? 14 : stride < 2 ** 21 ? 21 : 29,
      );
    }
  }

  /** The flag octets of the headers that have something to say; -1 for none. */
  #ipFlags({ pending, outerId }: Extension3): { inner: number; outer: number } {
    const last = this.#headers.ipCount - 1;
    const isPending = (i: number) => pending.tos[i] || pending.ttl[i] || pending.flags[i];
    const octet = (i: number) =>
      this.#flagsOf(this.#headers.ips[i]) | (pending.tos[i] ? 0x80 : 0) | (pending.ttl[i] ? 0x40 : 0);
    const inner = isPending(last) ? octet(last) : -1;
    const outer = last === 1 && (isPending(0) || outerId >= 0) ? octet(0) | (outerId >= 0 ? 0x01 : 0) : -1;
    return { inner, outer };
  }

  #flagsOf(ip: IpHeader): number {
    if (ip.version !== 4) return 0;
    return (ip.df ? 0x20 : 0) | (ip.nbo ? 0x04 : 0) | (ip.rnd ? 0x02 : 0);
  }

  #ipParts({ innerId, outerId }: Extension3, inner: number, outer: number): void {
    if (inner >= 0) this.#ipFields(this.#headers.inner, inner);
    if (innerId >= 0) this.#scratch.u16(innerId);
    if (outer >= 0) this.#ipFields(this.#headers.ips[0], outer);
    if (outerId >= 0) this.#scratch.u16(outerId);
  }

  #ipFields(ip: IpHeader, flags: number): void {
    if (flags & 0x80) this.#scratch.u8(ip.tos);
    if (flags & 0x40) this.#scratch.u8(ip.ttl);
  }
}
