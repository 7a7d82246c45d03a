/**
 * One compressor context of the TCP profile (RFC 6846), in U- and O-mode: IR and IR-DYN while something has to be told that
 * no small header tells, else the smallest header of the tables whose fields say the packet whichever of the last packets
 * the other end has, or co_common. Scaled numbers and replication are not used. Invariant as in `FlowCompressor`.
 */
import type { ByteWriter } from "../bytes.ts";
import { crc3, CRC3_START, crc7, CRC7_START } from "../crc.ts";
import { chainsCrc, IR_DYN } from "../flow_decompressor.ts";
import { writeLargeCid, writeSmallCid } from "../framing.ts";
import { PROFILE, swap16 } from "../headers.ts";
import { IdentificationTracker } from "../identification.ts";
import { LsbWindow } from "../lsb.ts";
import { RSF_OF_INDEX, writeDynamicChain, writeIrregularHeaders, writeStaticChain } from "./chains.ts";
import { FIELD, type Format, type Part, RND, SEQ } from "./formats.ts";
import { ID, type TcpIp, TcpState } from "./state.ts";

const IR = 0xfd;
/** Packets after which U-mode sends IR-DYN, and IR. */
const DYNAMIC_REFRESH = 700, STATIC_REFRESH = 1700;
/** Packets for which ECN's bits go on being sent after the last one that had any. */
const ECN_LINGER = 50;
/** Formats by size; those with scaled numbers are left out. */
const FORMATS = [RND, SEQ].map((formats) =>
  formats.filter(({ parts }) =>
    !parts.some(([field]) => field === FIELD.SEQUENCE_SCALED || field === FIELD.ACKNOWLEDGMENT_SCALED)
  ).toSorted((a, b) => bitsOf(a) - bitsOf(b))
);

function bitsOf({ prefixBits, parts }: Format): number {
  return parts.reduce((sum, [, bits]) => sum + bits, prefixBits);
}

export class TcpCompressor {
  readonly profile = PROFILE.TCP;
  readonly #reference = new TcpState();
  readonly #repeats: number;
  readonly #sequences: LsbWindow;
  readonly #acknowledgments: LsbWindow;
  readonly #windows: LsbWindow;
  readonly #ids: LsbWindow;
  readonly #timestamps: LsbWindow;
  readonly #echoes: LsbWindow;
  readonly #trackers = [new IdentificationTracker(), new IdentificationTracker()];
  #irLeft: number;
  #dynamicLeft = 0;
  #changedAt = 0;
  #sinceStatic = 0;
  #sinceDynamic = 0;
  #ecnLeft = 0;
  #isFirst = true;
  #isConfirmed = false;
  #msn = 0;
  #packet = 0;

  constructor(repeats: number, windowLength: number) {
    this.#repeats = repeats;
    this.#irLeft = repeats;
    const window = () => new LsbWindow(windowLength);
    this.#sequences = window();
    this.#acknowledgments = window();
    this.#windows = window();
    this.#ids = window();
    this.#timestamps = window();
    this.#echoes = window();
  }

  /** The master sequence number of the last packet. */
  get sequence(): number {
    return this.#msn;
  }

  /** The number of the last packet, for `acknowledgePacket`. */
  get packet(): number {
    return this.#packet;
  }

  /** Packets since the newest acknowledged one, as far as the window reaches. */
  get unacknowledged(): number {
    return this.#sequences.length;
  }

  /** Writes the packet with its id: what `compressHeaders` writes, and the payload. */
  compress(
    packet: Uint8Array,
    state: TcpState,
    payloadAt: number,
    cid: number,
    isLarge: boolean,
    writer: ByteWriter,
  ): void {
    this.compressHeaders(packet, state, payloadAt, cid, isLarge, writer);
    writer.copy(packet, payloadAt, packet.length);
  }

  /** Writes what stands for the headers, with the id. `state` is what `parseTcp` read, whose payload begins at `payloadAt`. */
  compressHeaders(
    packet: Uint8Array,
    state: TcpState,
    payloadAt: number,
    cid: number,
    isLarge: boolean,
    writer: ByteWriter,
  ): void {
    this.#packet++;
    state.msn = this.#msn = (this.#msn + 1) & 0xffff;
    for (let i = 0; i < state.ipCount; i++) this.#behave(state.ips[i], i, i === state.ipCount - 1);
    const marks = state.ecn | state.reserved |
      state.ips.slice(0, state.ipCount).reduce((all, ip) => all | ip.ecn, 0);
    this.#ecnLeft = marks === 0 ? Math.max(0, this.#ecnLeft - 1) : ECN_LINGER;
    state.ecnUsed = this.#ecnLeft > 0;
    this.#notice(state);
    const start = writer.position;
    if (!isLarge) writeSmallCid(writer, cid);
    const bits = this.#timestampBits(this.#timestamps, state.options.timestamp);
    const echoBits = this.#timestampBits(this.#echoes, state.options.timestampEcho);
    const isSayable = !state.options.hasTimestamp || (bits > 0 && echoBits > 0);
    if (
      this.#wantsChains() || !isSayable || !this.#writeHeader(packet, state, payloadAt, cid, isLarge, writer)
    ) {
      this.#writeChains(state, start, cid, isLarge, writer);
    } else {
      writeIrregularHeaders(writer, state);
      state.options.writeIrregular(writer, state.acknowledgment, bits, echoBits);
    }
    this.#remember(state);
  }

  /** The other end has got the newest packet with the master sequence number. */
  acknowledge(msn: number): void {
    this.acknowledgePacket(this.#packet - ((this.#msn - msn) & 0xffff));
  }

  /** The other end has got the packet with this number. */
  acknowledgePacket(packet: number): void {
    this.#isConfirmed = true;
    if (!this.#sequences.acknowledge(packet)) return;
    for (const window of [this.#acknowledgments, this.#windows, this.#ids, this.#timestamps, this.#echoes]) {
      window.acknowledge(packet);
    }
    if (packet < this.#changedAt) return;
    this.#irLeft = 0;
    this.#dynamicLeft = 0;
  }

  refreshDynamic(): void {
    this.#dynamicLeft = this.#repeats;
    this.#changedAt = this.#packet + 1;
  }

  refreshStatic(): void {
    this.#irLeft = this.#repeats;
    this.#changedAt = this.#packet + 1;
  }

  /** The behaviour of an IPv4 identification; an outer header's is never sent as a distance. */
  #behave(ip: TcpIp, index: number, isInner: boolean): void {
    if (ip.version !== 4) return;
    const fields = { version: 4, id: ip.id, rnd: false, nbo: true, sid: false };
    this.#trackers[index].track(fields);
    if (fields.sid && ip.id === 0) ip.behavior = ID.ZERO;
    else if (!isInner || fields.rnd || fields.sid) ip.behavior = ID.RANDOM;
    else ip.behavior = fields.nbo ? ID.SEQUENTIAL : ID.SWAPPED;
  }

  /** What only chains tell: everything that the small headers and the irregular chain leave alone. */
  #notice(state: TcpState): void {
    if (this.#isFirst) return;
    const last = this.#reference;
    // What co_common would tell once is told until the other end has surely got it.
    let dynamic = state.acknowledges !== last.acknowledges || state.urgent !== last.urgent ||
      state.urgentPointer !== last.urgentPointer || state.ecnUsed !== last.ecnUsed ||
      !state.options.isLike(last.options) ||
      (!state.ecnUsed && (state.ecn !== last.ecn || state.reserved !== last.reserved));
    let isStatic = false;
    for (let i = 0; i < state.ipCount; i++) {
      const ip = state.ips[i], old = last.ips[i];
      dynamic ||= ip.dscp !== old.dscp || ip.ttl !== old.ttl || ip.df !== old.df ||
        ip.behavior !== old.behavior ||
        (!state.ecnUsed && ip.ecn !== old.ecn);
      isStatic ||= ip.flowLabel !== old.flowLabel;
    }
    // RST, SYN and FIN have an index only alone.
    if (!(RSF_OF_INDEX as readonly number[]).includes(state.rsf)) {
      this.#dynamicLeft = Math.max(this.#dynamicLeft, 1);
    }
    if (!dynamic && !isStatic) return;
    this.#changedAt = this.#packet;
    if (dynamic) this.#dynamicLeft = this.#repeats;
    if (isStatic) this.#irLeft = this.#repeats;
    if (state.inner.behavior !== last.inner.behavior) this.#ids.clear();
  }

  #wantsChains(): boolean {
    if (!this.#isConfirmed) {
      if (this.#sinceStatic >= STATIC_REFRESH) this.#irLeft = Math.max(this.#irLeft, 1);
      if (this.#sinceDynamic >= DYNAMIC_REFRESH) this.#dynamicLeft = Math.max(this.#dynamicLeft, 1);
    }
    return this.#irLeft > 0 || this.#dynamicLeft > 0;
  }

  #writeChains(state: TcpState, start: number, cid: number, isLarge: boolean, writer: ByteWriter): void {
    const isIr = this.#irLeft > 0;
    writer.position = start;
    if (!isLarge) writeSmallCid(writer, cid);
    writer.u8(isIr ? IR : IR_DYN);
    if (isLarge) writeLargeCid(writer, cid);
    writer.u8(PROFILE.TCP);
    const crcAt = writer.position;
    writer.u8(0);
    if (isIr) writeStaticChain(writer, state);
    writeDynamicChain(writer, state);
    if (writer.failed) return;
    writer.bytes[crcAt] = chainsCrc(writer.bytes, start, crcAt, writer.position);
    if (isIr) {
      this.#irLeft--;
      this.#sinceStatic = 0;
    }
    if (this.#dynamicLeft > 0) this.#dynamicLeft--;
    this.#sinceDynamic = 0;
  }

  /** Writes the smallest header that says the packet; false if none does. */
  #writeHeader(
    packet: Uint8Array,
    state: TcpState,
    payloadAt: number,
    cid: number,
    isLarge: boolean,
    writer: ByteWriter,
  ): boolean {
    const last = this.#reference;
    const isPlain = state.acknowledges === last.acknowledges && state.urgent === last.urgent &&
      state.urgentPointer === last.urgentPointer;
    const isSequential = state.inner.version === 4 && state.inner.behavior <= ID.SWAPPED;
    const format = isPlain
      ? FORMATS[isSequential ? 1 : 0].find((format) => this.#says(format, state))
      : undefined;
    const small = crc3(packet, 0, payloadAt, CRC3_START), long = crc7(packet, 0, payloadAt, CRC7_START);
    if (format === undefined) return this.#writeCommon(state, long, cid, isLarge, writer);
    const crcBits = format.parts.find(([field]) => field === FIELD.CRC)![1];
    this.#writeBits(format, state, crcBits === 3 ? small : long, cid, isLarge, writer);
    return true;
  }

  /** Whether the format's bits tell each number, and nothing else has changed. */
  #says({ parts }: Format, state: TcpState): boolean {
    const fits = (field: number, window: LsbWindow, value: number, width: number) => {
      const part = parts.find(([one]) => one === field);
      return part === undefined
        ? window.fits(value, 0, 0, width)
        : window.fits(value, part[1], part[2], width);
    };
    if (state.rsf !== 0 && !parts.some(([field]) => field === FIELD.RSF)) return false;
    return fits(FIELD.SEQUENCE, this.#sequences, state.sequence, 32) &&
      fits(FIELD.ACKNOWLEDGMENT, this.#acknowledgments, state.acknowledgment, 32) &&
      fits(FIELD.WINDOW, this.#windows, state.window, 16) &&
      (!parts.some(([field]) => field === FIELD.ID) || fits(FIELD.ID, this.#ids, offsetOf(state), 16));
  }

  #writeBits(
    format: Format,
    state: TcpState,
    crc: number,
    cid: number,
    isLarge: boolean,
    writer: ByteWriter,
  ): void {
    let octet = format.prefix, bits = format.prefixBits, isFirst = true;
    const put = (value: number, count: number) => {
      for (let i = count - 1; i >= 0; i--) {
        octet = (octet << 1) | (Math.floor(value / 2 ** i) & 1);
        if (++bits < 8) continue;
        writer.u8(octet);
        if (isFirst && isLarge) writeLargeCid(writer, cid);
        isFirst = false;
        octet = bits = 0;
      }
    };
    for (const [field, count] of format.parts) put(valueOf(field, state, crc) % 2 ** count, count);
  }

  /** co_common (RFC 6846 8.3), with what changed in 8, 16 or 32 bits. */
  #writeCommon(state: TcpState, crc: number, cid: number, isLarge: boolean, writer: ByteWriter): boolean {
    const ip = state.inner, last = this.#reference;
    const sequence = indicatorOf(this.#sequences, state.sequence);
    const acknowledgment = indicatorOf(this.#acknowledgments, state.acknowledgment);
    const hasWindow = !this.#windows.fits(state.window, 0, 0, 16);
    const isCounting = ip.version === 4 && ip.behavior <= ID.SWAPPED;
    const hasLongId = isCounting && !this.#ids.fits(offsetOf(state), 8, 3, 16);
    const hasPointer = state.urgentPointer !== last.urgentPointer;
    writer.u8(0xfa);
    if (isLarge) writeLargeCid(writer, cid);
    writer.u8(
      (state.acknowledges ? 0x80 : 0) | (state.push ? 0x40 : 0) | (rsfIndex(state.rsf) << 4) |
        (state.msn & 0x0f),
    );
    writer.u8(
      (sequence << 6) | (acknowledgment << 4) | (hasWindow ? 0x04 : 0) | (hasLongId ? 0x02 : 0) |
        (hasPointer ? 0x01 : 0),
    );
    writer.u8((state.ecnUsed ? 0x40 : 0) | (ip.behavior << 1) | (state.urgent ? 0x01 : 0));
    writer.u8((ip.version === 4 && ip.df ? 0x80 : 0) | crc);
    writeVariable(writer, state.sequence, sequence);
    writeVariable(writer, state.acknowledgment, acknowledgment);
    if (hasWindow) writer.u16(state.window);
    if (hasLongId) writer.u16(ip.id);
    else if (isCounting) writer.u8(offsetOf(state) & 0xff);
    if (hasPointer) writer.u16(state.urgentPointer);
    return true;
  }

  /** 7, 14, 21 or 29 bits that tell the time stamp; 0 if none do. */
  #timestampBits(window: LsbWindow, value: number): number {
    for (const [bits, shift] of [[7, -1], [14, -1], [21, 0x00040000], [29, 0x04000000]]) {
      if (window.fits(value, bits, shift, 32)) return bits;
    }
    return 0;
  }

  #remember(state: TcpState): void {
    const packet = this.#packet;
    this.#sequences.add(state.sequence, packet);
    this.#acknowledgments.add(state.acknowledgment, packet);
    this.#windows.add(state.window, packet);
    this.#ids.add(offsetOf(state), packet);
    if (state.options.hasTimestamp) {
      this.#timestamps.add(state.options.timestamp, packet);
      this.#echoes.add(state.options.timestampEcho, packet);
    }
    this.#reference.copyFrom(state);
    this.#isFirst = false;
    this.#sinceStatic++;
    this.#sinceDynamic++;
  }
}

function offsetOf(state: TcpState): number {
  const { inner } = state;
  return ((inner.behavior === ID.SWAPPED ? swap16(inner.id) : inner.id) - state.msn) & 0xffff;
}

function rsfIndex(rsf: number): number {
  return Math.max(0, (RSF_OF_INDEX as readonly number[]).indexOf(rsf));
}

function valueOf(field: Part[0], state: TcpState, crc: number): number {
  switch (field) {
    case FIELD.SEQUENCE:
      return state.sequence;
    case FIELD.ACKNOWLEDGMENT:
      return state.acknowledgment;
    case FIELD.MSN:
      return state.msn;
    case FIELD.PUSH:
      return state.push ? 1 : 0;
    case FIELD.CRC:
      return crc;
    case FIELD.ID:
      return offsetOf(state);
    case FIELD.WINDOW:
      return state.window;
    case FIELD.RSF:
      return rsfIndex(state.rsf);
    case FIELD.TTL:
      return state.inner.ttl;
    case FIELD.ECN_USED:
      return state.ecnUsed ? 1 : 0;
    default:
      return 0;
  }
}

/** Which of 0, 8, 16 or 32 bits tell the number (RFC 6846 6.1.3). */
function indicatorOf(window: LsbWindow, value: number): number {
  if (window.fits(value, 0, 0, 32)) return 0;
  if (window.fits(value, 8, 63, 32)) return 1;
  return window.fits(value, 16, 16383, 32) ? 2 : 3;
}

function writeVariable(writer: ByteWriter, value: number, indicator: number): void {
  if (indicator === 1) writer.u8(value & 0xff);
  else if (indicator === 2) writer.u16(value & 0xffff);
  else if (indicator === 3) writer.u32(value);
}
