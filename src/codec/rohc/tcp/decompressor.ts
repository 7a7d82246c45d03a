/**
 * One decompressor context of the TCP profile (RFC 6846, 0x0006): IR, IR-CR, IR-DYN and compressed packets to IP and
 * TCP headers. Invariant: the context changes only when a packet's checksum holds, by exchange of two states; a
 * replicated context begins as a copy of its base and leaves the base alone.
 */
import type { ByteReader, ByteWriter } from "../bytes.ts";
import { crc3, CRC3_START, crc7, CRC7_START } from "../crc.ts";
import { chainsCrc, IR_DYN } from "../flow_decompressor.ts";
import { ipv4Checksum, PROFILE, swap16 } from "../headers.ts";
import { History } from "../history.ts";
import { decodeLsb } from "../lsb.ts";
import { RESULT } from "../results.ts";
import {
  readDynamicChain,
  readIrregularChain,
  readReplicateChain,
  readStaticChain,
  RSF_OF_INDEX,
} from "./chains.ts";
import { BaseHeader, FIELD, readBaseHeader } from "./formats.ts";
import { ID, TcpState } from "./state.ts";

const IR = 0xfd;
const IR_CR = 0xfc;

export class TcpDecompressor {
  readonly profile = PROFILE.TCP;
  readonly #states: History<TcpState>;
  /** What is known before the first packet. */
  readonly #blank = new TcpState(false);
  #state = this.#blank;
  #next: TcpState;
  #order = 0;
  #hasContext = false;
  readonly #base = new BaseHeader();

  /** `baseOf` gives the context of an id, for replication. */
  constructor(readonly large: boolean, readonly baseOf: (cid: number) => unknown, depth = 1, lists = true) {
    this.#states = new History(() => new TcpState(lists), depth);
    this.#next = this.#states.next;
  }

  /** Whether an IR packet has been taken. */
  get isUsable(): boolean {
    return this.#hasContext;
  }

  /** The greatest order of a packet that was restored. */
  get newest(): number {
    return this.#states.newest;
  }

  get sequence(): number {
    return this.#state.msn;
  }

  /** See `FlowDecompressor.decompress`. */
  decompress(
    first: number,
    reader: ByteReader,
    packetFrom: number,
    writer: ByteWriter,
    order: number,
  ): number {
    this.#order = order;
    const state = this.#states.before(order);
    this.#hasContext = state !== undefined;
    this.#state = state ?? this.#blank;
    this.#next = this.#states.next;
    this.#next.copyFrom(this.#state);
    if (first === IR || first === IR_CR || first === IR_DYN) {
      return this.#readChains(first, reader, packetFrom, writer);
    }
    return this.#hasContext ? this.#readCompressed(first, reader, writer) : RESULT.NO_CONTEXT;
  }

  #readChains(first: number, reader: ByteReader, packetFrom: number, writer: ByteWriter): number {
    const state = this.#next;
    if (reader.u8() !== PROFILE.TCP) return RESULT.MALFORMED;
    const crcAt = reader.position;
    const crc = reader.u8();
    let headersCrc = -1;
    if (first === IR_CR) {
      const octet = reader.u8();
      headersCrc = octet & 0x7f;
      const base = octet < 0x80 ? this : this.baseOf(this.#readBaseCid(reader));
      const replicated = base instanceof TcpDecompressor ? base.#states.before(this.#order) : undefined;
      if (replicated === undefined) return RESULT.NO_CONTEXT;
      state.copyFrom(replicated);
      if (!readReplicateChain(reader, state)) return RESULT.MALFORMED;
    } else {
      if (first === IR_DYN && !this.#hasContext) return RESULT.NO_CONTEXT;
      if (first === IR && !readStaticChain(reader, state)) return RESULT.MALFORMED;
      if (!readDynamicChain(reader, state)) return RESULT.MALFORMED;
    }
    if (chainsCrc(reader.bytes, packetFrom, crcAt, reader.position) !== crc) return RESULT.BAD_CRC;
    scale(state, reader.left);
    return this.#finish(reader, writer, headersCrc, 7);
  }

  #readBaseCid(reader: ByteReader): number {
    const first = reader.u8();
    if (!this.large) return first & 0x0f;
    return first < 0x80 ? first : ((first & 0x3f) << 8) | reader.u8();
  }

  #readCompressed(first: number, reader: ByteReader, writer: ByteWriter): number {
    const state = this.#next;
    const base = this.#base;
    let withTtl = false;
    if ((first & 0xfe) === 0xfa) {
      if (!this.#readCommon(reader)) return RESULT.MALFORMED;
      withTtl = (first & 0x01) !== 0;
    } else {
      const isSequential = state.inner.version === 4 && state.inner.behavior <= ID.SWAPPED;
      if (!readBaseHeader(reader, first, isSequential, base)) return RESULT.MALFORMED;
    }
    const { value } = base;
    state.msn = decodeLsb(state.msn, value[FIELD.MSN], 4, base.shift[FIELD.MSN], 16);
    state.push = base.flag(FIELD.PUSH);
    state.rsf = base.has(FIELD.RSF) ? RSF_OF_INDEX[value[FIELD.RSF]] : 0;
    if (base.has(FIELD.ECN_USED)) state.ecnUsed = base.flag(FIELD.ECN_USED);
    if (!this.#decodeAcknowledgment()) return RESULT.MALFORMED;
    if (base.flag(FIELD.LIST) && !state.options.readList(reader, false, state.acknowledgment)) {
      return RESULT.MALFORMED;
    }
    this.#decodeIp();
    if (!readIrregularChain(reader, state, withTtl)) return RESULT.MALFORMED;
    if (!this.#decodeSequence(reader.left)) return RESULT.MALFORMED;
    if (base.has(FIELD.WINDOW)) {
      const bits = base.bits[FIELD.WINDOW];
      state.window = decodeLsb(state.window, value[FIELD.WINDOW], bits, base.shift[FIELD.WINDOW], 16);
    }
    scale(state, reader.left);
    return this.#finish(reader, writer, value[FIELD.CRC], base.bits[FIELD.CRC]);
  }

  /** co_common behind its first octet (RFC 6846 8.3): flags, then the fields that they announce. */
  #readCommon(reader: ByteReader): boolean {
    const state = this.#next;
    const base = this.#base;
    const flags = reader.u8();
    const indicators = reader.u8();
    const presence = reader.u8();
    const last = reader.u8();
    base.clear();
    state.acknowledges = (flags & 0x80) !== 0;
    base.set(FIELD.PUSH, (flags >> 6) & 1, 1, 0);
    base.set(FIELD.RSF, (flags >> 4) & 3, 2, 0);
    base.set(FIELD.MSN, flags & 0x0f, 4, 4);
    base.set(FIELD.ECN_USED, (presence >> 6) & 1, 1, 0);
    base.set(FIELD.LIST, (presence >> 3) & 1, 1, 0);
    state.urgent = (presence & 0x01) !== 0;
    base.set(FIELD.CRC, last & 0x7f, 7, 0);
    readVariable32(reader, indicators >> 6, FIELD.SEQUENCE, base);
    readVariable32(reader, (indicators >> 4) & 3, FIELD.ACKNOWLEDGMENT, base);
    if (indicators & 0x08) state.acknowledgmentStride = reader.u16();
    if (indicators & 0x04) base.set(FIELD.WINDOW, reader.u16(), 16, 0);
    const behavior = (presence >> 1) & 3;
    if (behavior <= ID.SWAPPED) {
      if (state.inner.version !== 4) return false;
      if (indicators & 0x02) base.set(FIELD.ID, reader.u16(), 16, 0);
      else base.set(FIELD.ID, reader.u8(), 8, 3);
    }
    state.inner.behavior = behavior;
    if (indicators & 0x01) state.urgentPointer = reader.u16();
    if (presence & 0x20) state.inner.dscp = reader.u8() >> 2;
    if (state.inner.version === 4) state.inner.df = last >= 0x80;
    if (presence & 0x10) base.set(FIELD.TTL, reader.u8(), 8, 0);
    return !reader.failed;
  }

  /** Identification and TTL of the innermost header. */
  #decodeIp(): void {
    const ip = this.#next.inner;
    const last = this.#state.ips[this.#state.ipCount - 1];
    const { value, bits, shift } = this.#base;
    if (bits[FIELD.ID] === 16) ip.id = value[FIELD.ID];
    else if (bits[FIELD.ID] > 0) {
      const lastId = last.behavior === ID.SWAPPED ? swap16(last.id) : last.id;
      const reference = (lastId - this.#state.msn) & 0xffff;
      const offset = decodeLsb(reference, value[FIELD.ID], bits[FIELD.ID], shift[FIELD.ID], 16);
      const id = (offset + this.#next.msn) & 0xffff;
      ip.id = ip.behavior === ID.SWAPPED ? swap16(id) : id;
    } else if (ip.behavior === ID.ZERO) ip.id = 0;
    if (bits[FIELD.TTL] > 0) {
      ip.ttl = decodeLsb(last.ttl, value[FIELD.TTL], bits[FIELD.TTL], shift[FIELD.TTL], 8);
    }
  }

  #decodeAcknowledgment(): boolean {
    const state = this.#next;
    const { value, bits, shift } = this.#base;
    if (bits[FIELD.ACKNOWLEDGMENT_SCALED] > 0) {
      if (state.acknowledgmentStride === 0) return false;
      const scaled = decodeLsb(
        state.acknowledgmentScaled,
        value[FIELD.ACKNOWLEDGMENT_SCALED],
        bits[FIELD.ACKNOWLEDGMENT_SCALED],
        shift[FIELD.ACKNOWLEDGMENT_SCALED],
        32,
      );
      state.acknowledgmentScaled = scaled;
      state.acknowledgment = (Math.imul(scaled, state.acknowledgmentStride) + state.acknowledgmentResidue) >>>
        0;
    } else if (bits[FIELD.ACKNOWLEDGMENT] > 0) {
      const count = bits[FIELD.ACKNOWLEDGMENT];
      state.acknowledgment = decodeLsb(
        state.acknowledgment,
        value[FIELD.ACKNOWLEDGMENT],
        count,
        shift[FIELD.ACKNOWLEDGMENT],
        32,
      );
    }
    return true;
  }

  #decodeSequence(payload: number): boolean {
    const state = this.#next;
    const { value, bits, shift } = this.#base;
    if (bits[FIELD.SEQUENCE_SCALED] > 0) {
      if (payload === 0 || !state.hasScaledSequence) return false;
      const scaled = decodeLsb(
        state.sequenceScaled,
        value[FIELD.SEQUENCE_SCALED],
        bits[FIELD.SEQUENCE_SCALED],
        shift[FIELD.SEQUENCE_SCALED],
        32,
      );
      state.sequence = (Math.imul(scaled, payload) + state.sequenceResidue) >>> 0;
    } else if (bits[FIELD.SEQUENCE] > 0) {
      const count = bits[FIELD.SEQUENCE];
      state.sequence = decodeLsb(state.sequence, value[FIELD.SEQUENCE], count, shift[FIELD.SEQUENCE], 32);
    }
    return true;
  }

  /** Builds the packet, checks the checksum over its headers (none if `crc` is -1), and takes the state over. */
  #finish(reader: ByteReader, writer: ByteWriter, crc: number, crcBits: number): number {
    const start = writer.position;
    const end = writePacketHeaders(this.#next, reader.left, writer);
    if (writer.failed) return RESULT.NO_ROOM;
    if (end < 0) return RESULT.MALFORMED;
    if (crc >= 0) {
      const actual = crcBits === 3
        ? crc3(writer.bytes, start, end, CRC3_START)
        : crc7(writer.bytes, start, end, CRC7_START);
      if (actual !== crc) return RESULT.BAD_CRC;
    }
    writer.copy(reader.bytes, reader.position, reader.position + reader.left);
    if (writer.failed) return RESULT.NO_ROOM;
    this.#state = this.#next;
    this.#states.keep(this.#order);
    this.#hasContext = true;
    return RESULT.PACKET;
  }
}

/** variable_length_32_enc (RFC 6846 6.1.3): nothing, 8, 16 or 32 bits. */
function readVariable32(reader: ByteReader, indicator: number, field: number, base: BaseHeader): void {
  if (indicator === 1) base.set(field, reader.u8(), 8, 63);
  else if (indicator === 2) base.set(field, reader.u16(), 16, 16383);
  else if (indicator === 3) base.set(field, reader.u32(), 32, 0);
}

/** Sequence and acknowledgment numbers as multiples: of the payload's length, and of the stride. */
function scale(state: TcpState, payload: number): void {
  if (payload > 0) {
    state.sequenceResidue = state.sequence % payload;
    state.sequenceScaled = (state.sequence - state.sequenceResidue) / payload;
    state.hasScaledSequence = true;
  }
  if (state.acknowledgmentStride === 0) return;
  state.acknowledgmentResidue = state.acknowledgment % state.acknowledgmentStride;
  state.acknowledgmentScaled = (state.acknowledgment - state.acknowledgmentResidue) /
    state.acknowledgmentStride;
}

/** Writes IP headers and TCP's; gives where they end, -1 if options or lengths do not fit their fields. */
function writePacketHeaders(state: TcpState, payload: number, writer: ByteWriter): number {
  const starts: number[] = [];
  for (let i = 0; i < state.ipCount; i++) {
    starts.push(writer.position);
    writeIp(state, i, writer);
  }
  const tcpAt = writer.position;
  writer.u16(state.sourcePort);
  writer.u16(state.destinationPort);
  writer.u32(state.sequence);
  writer.u32(state.acknowledgment);
  const offsetAt = writer.position;
  writer.u16(0);
  writer.u16(state.window);
  writer.u16(state.checksum);
  writer.u16(state.urgentPointer);
  const optionBytes = state.options.write(writer);
  if (optionBytes < 0) return -1;
  const end = writer.position;
  if (writer.failed) return end;
  const { bytes } = writer;
  bytes[offsetAt] = ((5 + optionBytes / 4) << 4) | state.reserved;
  bytes[offsetAt + 1] = (state.ecn << 6) | (state.urgent ? 0x20 : 0) | (state.acknowledges ? 0x10 : 0) |
    (state.push ? 0x08 : 0) | state.rsf;
  for (let i = 0; i < state.ipCount; i++) {
    const at = starts[i];
    const isFour = state.ips[i].version === 4;
    const length = end + payload - at - (isFour ? 0 : 40);
    if (length > 0xffff || tcpAt < at) return -1;
    bytes[at + (isFour ? 2 : 4)] = length >>> 8;
    bytes[at + (isFour ? 3 : 5)] = length & 0xff;
    if (!isFour) continue;
    const checksum = ipv4Checksum(bytes, at);
    bytes[at + 10] = checksum >>> 8;
    bytes[at + 11] = checksum & 0xff;
  }
  return end;
}

function writeIp(state: TcpState, index: number, writer: ByteWriter): void {
  const ip = state.ips[index];
  const ttl = ip.ttlOnce >= 0 ? ip.ttlOnce : ip.ttl;
  const trafficClass = (ip.dscp << 2) | ip.ecn;
  if (ip.version === 4) {
    writer.u16(0x4500 | trafficClass);
    writer.u16(0);
    writer.u16(ip.id);
    writer.u16(ip.df ? 0x4000 : 0);
    writer.u8(ttl);
    writer.u8(ip.next);
    writer.u16(0);
    writer.copy(ip.addresses, 0, 4);
    writer.copy(ip.addresses, 16, 20);
    return;
  }
  writer.u8(0x60 | (trafficClass >> 4));
  writer.u8(((trafficClass & 0x0f) << 4) | (ip.flowLabel >>> 16));
  writer.u16(ip.flowLabel & 0xffff);
  writer.u16(0);
  writer.u8(ip.next);
  writer.u8(ttl);
  writer.copy(ip.addresses, 0, 32);
  for (const extension of ip.extensions) {
    writer.u8(extension.next);
    writer.copy(extension.octets, 1, extension.octets.length);
  }
}
