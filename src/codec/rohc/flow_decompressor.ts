/**
 * One decompressor context of the profiles of RFC 3095 and RFC 3843 (RTP, UDP, ESP, IP): IR, IR-DYN and compressed
 * packets to headers. Invariant: the context changes only when a packet's checksum proves the headers that were built
 * (RFC 3095 5.3.2.2.1); everything is decoded in a copy, which becomes the context by exchange. Feedback is the
 * caller's, and R-mode is not spoken.
 */
import type { ByteReader, ByteWriter } from "./bytes.ts";
import { readDynamicChain, readStaticChain } from "./chains.ts";
import { crc8, CRC8_START } from "./crc.ts";
import { Compressed, FormatReader } from "./formats.ts";
import { History } from "./history.ts";
import { Headers, headersCrc, Layout, PROFILE, sequenceWidth, writeHeaders } from "./headers.ts";
import { decodeLsb, shiftOfRtpSequence, shiftOfRtpTimestamp } from "./lsb.ts";
import { RESULT } from "./results.ts";
import { ScaledTimestamp } from "./timestamp.ts";

/** How many of the last 8 packets may fail before only long checksums are trusted (k_1 out of n_1, RFC 3095 5.3.2.2.3). */
const FAILURES = 3;
const FAILURE_WINDOW = 8;

/** First octets of packets that carry chains. */
export const IR = 0xfc;
export const IR_DYN = 0xf8;

/** What one context knows after a packet. */
class State {
  readonly headers: Headers;
  readonly timestamp = new ScaledTimestamp();
  /** A static chain, and a dynamic one, have come at some time. */
  hasStatic = false;
  hasDynamic = false;

  constructor(profile: number, mayHaveLists: boolean) {
    this.headers = new Headers(mayHaveLists);
    this.headers.profile = profile;
  }

  copyFrom(other: State): void {
    this.hasStatic = other.hasStatic;
    this.hasDynamic = other.hasDynamic;
    this.headers.copyFrom(other.headers);
    this.timestamp.copyFrom(other.timestamp);
  }
}

export class FlowDecompressor {
  readonly #states: History<State>;
  /** What is known before the first packet. */
  readonly #blank: State;
  #state: State;
  #next: State;
  #order = 0;
  /** Only a static chain has come, or too many packets failed: packets with a 3-bit checksum are not believed. */
  #isStatic = true;
  /** One bit for each of the last packets, 1 for a failure. */
  #history = 0;
  readonly #formats = new FormatReader();
  readonly #compressed = new Compressed();
  readonly #layout = new Layout();

  /** @param depth states that are kept for packets that come late. @param mayHaveLists whether lists of headers are read. */
  constructor(readonly profile: number, depth = 1, mayHaveLists = true) {
    this.#states = new History(() => new State(profile, mayHaveLists), depth);
    this.#state = this.#blank = new State(profile, mayHaveLists);
    this.#next = this.#states.next;
  }

  /** The greatest order of a packet that was restored. */
  get newest(): number {
    return this.#states.newest;
  }

  /** The sequence number of the last packet, for feedback. */
  get sequence(): number {
    return this.#state.headers.sequence;
  }

  /** The mode that the compressor announced last (1 U, 2 O, 3 R; 0 nothing). */
  mode = 0;

  /**
   * Restores the packet whose octet after the id is `first`. `packetFrom` is where the packet begins (with its Add-CID
   * octet), for the checksum of IR packets; `order` is its place among all that were sent. Headers and payload are written;
   * gives a RESULT.
   */
  decompress(
    first: number,
    reader: ByteReader,
    packetFrom: number,
    writer: ByteWriter,
    order: number,
  ): number {
    this.#order = order;
    this.#state = this.#states.before(order) ?? this.#blank;
    this.#next = this.#states.next;
    const result = this.#decompress(first, reader, packetFrom, writer);
    this.#history = ((this.#history << 1) & (2 ** FAILURE_WINDOW - 1)) | (result === RESULT.BAD_CRC ? 1 : 0);
    if (result === RESULT.PACKET) {
      if (this.#compressed.crcBits !== 3) this.#history = 0;
      return result;
    }
    if (ones(this.#history) >= FAILURES) this.#isStatic = true;
    return result;
  }

  #decompress(first: number, reader: ByteReader, packetFrom: number, writer: ByteWriter): number {
    this.#next.copyFrom(this.#state);
    if ((first & 0xfe) === IR || first === IR_DYN) return this.#readChains(first, reader, packetFrom, writer);
    if (!this.#state.hasDynamic) return RESULT.NO_CONTEXT;
    const { headers, timestamp } = this.#next;
    const compressed = this.#compressed;
    if (!this.#formats.read(first, reader, headers, timestamp, compressed)) return RESULT.MALFORMED;
    if (this.#isStatic && compressed.crcBits === 3) return RESULT.STATIC_CONTEXT;
    if (!this.#decode()) return RESULT.MALFORMED;
    const start = writer.position;
    writeHeaders(headers, reader.left, writer, this.#layout);
    if (writer.failed) return RESULT.NO_ROOM;
    if (headersCrc(headers, writer.bytes, this.#layout, compressed.crcBits) !== compressed.crc) {
      writer.position = start;
      return RESULT.BAD_CRC;
    }
    if (compressed.mode !== 0) this.mode = compressed.mode;
    return this.#finish(reader, writer);
  }

  /**
   * An IR or IR-DYN packet: profile, checksum, chains. An IR packet whose D bit is 0 has no dynamic chain; librohc's
   * with large ids and extension headers have one all the same, which their checksum proves.
   */
  #readChains(first: number, reader: ByteReader, packetFrom: number, writer: ByteWriter): number {
    const { headers } = this.#next;
    if (reader.u8() !== this.profile) return RESULT.MALFORMED;
    headers.profile = this.profile;
    const crcAt = reader.position;
    const crc = reader.u8();
    const isIr = first !== IR_DYN;
    if (!isIr && !this.#state.hasStatic) return RESULT.NO_CONTEXT;
    if (isIr && !readStaticChain(reader, headers)) return RESULT.MALFORMED;
    const isConfirmed = () => chainsCrc(reader.bytes, packetFrom, crcAt, reader.position) === crc;
    if (first === IR && isConfirmed()) return this.#takeStatic(reader, writer);
    if (!readDynamicChain(reader, headers, this.#next.timestamp)) return RESULT.MALFORMED;
    if (!isConfirmed()) return RESULT.BAD_CRC;
    this.#compressed.crcBits = 7;
    this.#next.hasStatic = true;
    this.#next.hasDynamic = true;
    writeHeaders(headers, reader.left, writer, this.#layout);
    return writer.failed ? RESULT.NO_ROOM : this.#finish(reader, writer);
  }

  /** An IR packet without a dynamic chain: the packet can be restored if one was there before. */
  #takeStatic(reader: ByteReader, writer: ByteWriter): number {
    this.#compressed.crcBits = 7;
    this.#next.hasStatic = true;
    if (!this.#next.hasDynamic) {
      this.#states.keep(this.#order);
      return RESULT.STATIC_CONTEXT;
    }
    writeHeaders(this.#next.headers, reader.left, writer, this.#layout);
    return writer.failed ? RESULT.NO_ROOM : this.#finish(reader, writer);
  }

  /** Numbers against the context: sequence number, identifications, time stamp. */
  #decode(): boolean {
    const { headers, timestamp } = this.#next;
    const { sequence, ids } = this.#compressed;
    const reference = this.#state.headers;
    const width = sequenceWidth(this.profile);
    const shift = this.profile === PROFILE.UDP || this.profile === PROFILE.IP
      ? -1
      : shiftOfRtpSequence(sequence.count);
    headers.sequence = decodeLsb(
      reference.sequence,
      sequence.value % 2 ** sequence.count,
      sequence.count,
      shift,
      width,
    );
    for (let i = 0; i < headers.ipCount; i++) {
      const ip = headers.ips[i];
      if (ip.version !== 4 || ip.rnd) continue;
      if (ip.sid) continue;
      // In the byte order of the packet, which may have changed with it.
      const last = ip.nbo ? reference.ips[i].id : swapped(reference.ips[i].id);
      const offset = (last - reference.sequence) & 0xffff;
      const { value, count } = ids[i];
      ip.orderedId = (decodeLsb(offset, value, count, 0, 16) + headers.sequence) & 0xffff;
    }
    return this.profile !== PROFILE.RTP || this.#decodeTimestamp(timestamp);
  }

  #decodeTimestamp(timestamp: ScaledTimestamp): boolean {
    const { headers } = this.#next;
    const bits = this.#compressed.timestamp;
    const { rtp } = headers;
    rtp.marker = this.#compressed.marker;
    const shift = shiftOfRtpTimestamp(bits.count);
    if (!this.#compressed.isScaled) {
      // RFC 4815 4.2: an unscaled time stamp without bits has no meaning.
      if (bits.count === 0) return false;
      rtp.timestamp = decodeLsb(this.#state.headers.rtp.timestamp, bits.value, bits.count, shift, 32);
      timestamp.follow(rtp.timestamp);
      return true;
    }
    if (bits.count === 0) {
      const steps = ((headers.sequence - this.#state.headers.sequence) << 16) >> 16;
      rtp.timestamp = timestamp.take(timestamp.scaled + steps);
      return true;
    }
    if (timestamp.stride === 0) return false;
    rtp.timestamp = timestamp.take(decodeLsb(timestamp.scaled, bits.value, bits.count, shift, 32));
    return true;
  }

  /** Appends the payload and takes the new state over. */
  #finish(reader: ByteReader, writer: ByteWriter): number {
    writer.copy(reader.bytes, reader.position, reader.position + reader.left);
    if (writer.failed) return RESULT.NO_ROOM;
    this.#isStatic = false;
    this.#states.keep(this.#order);
    return RESULT.PACKET;
  }
}

/** The checksum of a packet with chains, its own octet counted as 0 (RFC 3095 5.9.1). */
export function chainsCrc(bytes: Uint8Array, from: number, crcAt: number, to: number): number {
  return crc8(bytes, crcAt + 1, to, crc8(ZERO, 0, 1, crc8(bytes, from, crcAt, CRC8_START)));
}

const ZERO = new Uint8Array(1);

function swapped(value: number): number {
  return ((value & 0xff) << 8) | (value >>> 8);
}

function ones(value: number): number {
  let count = 0;
  for (; value !== 0; value &= value - 1) count++;
  return count;
}
