/**
 * One compressor context of the profiles of RFC 3095 and RFC 3843, in U- and O-mode: chooses for each packet the smallest
 * header that its decompressor can read whichever of the last packets it got. Invariant: a reference counts as known only
 * when it is in every value of its window, and a change is repeated until enough packets, or an acknowledged one, carried
 * it (the optimistic approach, RFC 3095 4.6; U-mode's refreshes, 5.3.1.1.2).
 */
import type { ByteWriter } from "./bytes.ts";
import { writeDynamicChain, writeStaticChain } from "./chains.ts";
import { Header, type Pending } from "./compressed_header.ts";
import { chainsCrc, IR, IR_DYN } from "./flow_decompressor.ts";
import { innermostCounting } from "./formats.ts";
import { writeLargeCid, writeSmallCid } from "./framing.ts";
import { Headers, headersCrc, type Layout, PROFILE, sequenceWidth } from "./headers.ts";
import { IdentificationTracker } from "./identification.ts";
import { LsbWindow, shiftOfRtpSequence, shiftOfRtpTimestamp } from "./lsb.ts";
import { StrideFinder } from "./stride.ts";

/** Packets after which U-mode sends IR-DYN, and IR, for a decompressor that lost its context. */
const DYNAMIC_REFRESH = 700;
const STATIC_REFRESH = 1700;

export const MODE = { UNIDIRECTIONAL: 1, OPTIMISTIC: 2 } as const;

export class FlowCompressor {
  readonly #reference = new Headers();
  readonly #sequences: LsbWindow;
  readonly #ids: LsbWindow[];
  readonly #scaled: LsbWindow;
  /** Scaled time stamp less sequence number: one value in the window means that one tells the other. */
  readonly #scaledOffsets: LsbWindow;
  readonly #timestamps: LsbWindow;
  readonly #trackers = [new IdentificationTracker(), new IdentificationTracker()];
  readonly #stride = new StrideFinder();
  readonly #pending: Pending = {
    tos: [false, false],
    ttl: [false, false],
    flags: [false, false],
    rtp: false,
  };
  readonly #header = new Header();
  /** For each IP header, whether one of its packets had extension headers. */
  readonly #hadExtensions = [false, false];
  /** Packets that still have to go as IR, as IR-DYN, and with extension 3. */
  #irLeft: number;
  #dynamicLeft = 0;
  #extensionLeft = 0;
  #sinceDynamic = 0;
  #sinceStatic = 0;
  /** The packets' own numbers, which never repeat: of the last one, and of the first that carried the last change. */
  #packet = 0;
  #changedAt = 0;
  #isFirst = true;
  #counter = 0;
  #mode: number = MODE.UNIDIRECTIONAL;

  constructor(readonly profile: number, readonly repeats: number, windowLength: number) {
    this.#irLeft = repeats;
    this.#sequences = new LsbWindow(windowLength);
    this.#ids = [new LsbWindow(windowLength), new LsbWindow(windowLength)];
    this.#scaled = new LsbWindow(windowLength);
    this.#scaledOffsets = new LsbWindow(windowLength);
    this.#timestamps = new LsbWindow(windowLength);
  }

  /** The sequence number of the last packet, by which the other end acknowledges it. */
  get sequence(): number {
    return this.#reference.sequence;
  }

  /** The number of the last packet for `acknowledgePacket`: unlike a sequence number that comes with the packet, never twice. */
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
    headers: Headers,
    layout: Layout,
    cid: number,
    isLarge: boolean,
    writer: ByteWriter,
  ): void {
    this.compressHeaders(packet, headers, layout, cid, isLarge, writer);
    writer.copy(packet, layout.end, packet.length);
  }

  /**
   * Writes what stands for the packet's headers, with the id. `headers` are those that `parsePacket` read and `layout` where; changes what they say of
   * identifications, and their sequence number where the profile's is counted here.
   */
  compressHeaders(
    packet: Uint8Array,
    headers: Headers,
    layout: Layout,
    cid: number,
    isLarge: boolean,
    writer: ByteWriter,
  ): void {
    this.#packet++;
    if (this.profile === PROFILE.UDP || this.profile === PROFILE.IP) {
      headers.sequence = this.#counter = (this.#counter + 1) & 0xffff;
    }
    for (let i = 0; i < headers.ipCount; i++) this.#trackers[i].track(headers.ips[i]);
    if (this.profile === PROFILE.RTP) this.#trackTimestamp(headers);
    this.#notice(headers);
    const start = writer.position;
    if (!isLarge) writeSmallCid(writer, cid);
    if (this.#wantsChains()) this.#writeChains(headers, start, cid, isLarge, writer);
    else {
      const crc7 = headersCrc(headers, packet, layout, 7);
      const crc3 = headersCrc(headers, packet, layout, 3);
      if (!this.#writeCompressed(headers, crc3, crc7, cid, isLarge, writer)) {
        this.#dynamicLeft = 1;
        this.#writeChains(headers, start, cid, isLarge, writer);
      }
    }
    this.#remember(headers);
  }

  /** The other end has got the newest packet with the sequence number, and is at least in O-mode. */
  acknowledge(sequence: number): void {
    this.#mode = MODE.OPTIMISTIC;
    const packet = this.#sequences.packetOf(sequence);
    if (packet >= 0) this.acknowledgePacket(packet);
  }

  /** The other end has got the packet with this number, and is at least in O-mode. */
  acknowledgePacket(packet: number): void {
    this.#mode = MODE.OPTIMISTIC;
    if (!this.#sequences.acknowledge(packet)) return;
    for (const window of [this.#ids[0], this.#ids[1], this.#scaled, this.#scaledOffsets, this.#timestamps]) {
      window.acknowledge(packet);
    }
    if (packet < this.#changedAt) return;
    this.#irLeft = 0;
    this.#dynamicLeft = 0;
    this.#clearExtension();
    this.#stride.announceLeft = 0;
  }

  /** The other end's dynamic part is lost. */
  refreshDynamic(): void {
    this.#dynamicLeft = this.repeats;
    this.#changedAt = this.#packet + 1;
  }

  /** The other end has no context. */
  refreshStatic(): void {
    this.#irLeft = this.repeats;
    this.#changedAt = this.#packet + 1;
  }

  #trackTimestamp(headers: Headers): void {
    const isNew = this.#stride.track(headers.sequence, headers.rtp.timestamp, this.repeats);
    if (!isNew) return;
    this.#scaled.clear();
    this.#scaledOffsets.clear();
    this.#changedAt = this.#packet;
  }

  /** Compares with the last packet, and notes what has to be told. */
  #notice(headers: Headers): void {
    if (this.#isFirst) return;
    const reference = this.#reference;
    const pending = this.#pending;
    let extension = false, dynamic = false, isStatic = false;
    for (let i = 0; i < headers.ipCount; i++) {
      const ip = headers.ips[i], last = reference.ips[i];
      isStatic ||= ip.flowLabel !== last.flowLabel && ip.version === 6;
      dynamic ||= ip.sid !== last.sid;
      dynamic ||= !ip.extensions.equals(last.extensions);
      this.#hadExtensions[i] ||= last.extensions.indexes.length > 0;
      if (ip.tos !== last.tos) extension = pending.tos[i] = true;
      if (ip.ttl !== last.ttl) extension = pending.ttl[i] = true;
      if (ip.version !== 4) continue;
      if (ip.rnd !== last.rnd || ip.nbo !== last.nbo) this.#ids[i].clear();
      if (ip.df !== last.df || ip.rnd !== last.rnd || ip.nbo !== last.nbo) {
        extension = pending.flags[i] = true;
      }
    }
    dynamic ||= headers.hasUdp && headers.hasChecksums !== reference.hasChecksums;
    if (headers.profile === PROFILE.RTP) {
      const { rtp } = headers, last = reference.rtp;
      dynamic ||= rtp.version !== last.version;
      if (
        rtp.padding !== last.padding || rtp.extension !== last.extension ||
        rtp.payloadType !== last.payloadType
      ) extension = pending.rtp = true;
    }
    if (!extension && !dynamic && !isStatic) return;
    this.#changedAt = this.#packet;
    if (extension) this.#extensionLeft = this.repeats;
    if (dynamic) this.#dynamicLeft = this.repeats;
    if (isStatic) this.#irLeft = this.repeats;
  }

  #wantsChains(): boolean {
    if (this.#mode === MODE.UNIDIRECTIONAL) {
      if (this.#sinceStatic >= STATIC_REFRESH) this.#irLeft = Math.max(this.#irLeft, 1);
      if (this.#sinceDynamic >= DYNAMIC_REFRESH) this.#dynamicLeft = Math.max(this.#dynamicLeft, 1);
    }
    return this.#irLeft > 0 || this.#dynamicLeft > 0;
  }

  #writeChains(headers: Headers, start: number, cid: number, isLarge: boolean, writer: ByteWriter): void {
    const isIr = this.#irLeft > 0;
    writer.u8(isIr ? IR | 0x01 : IR_DYN);
    if (isLarge) writeLargeCid(writer, cid);
    writer.u8(this.profile);
    const crcAt = writer.position;
    writer.u8(0);
    if (isIr) writeStaticChain(writer, headers);
    writeDynamicChain(writer, headers, this.#stride.scaled.stride, this.#mode, this.#hadExtensions);
    if (writer.failed) return;
    writer.bytes[crcAt] = chainsCrc(writer.bytes, start, crcAt, writer.position);
    if (isIr) {
      this.#irLeft--;
      this.#sinceStatic = 0;
    }
    if (this.#dynamicLeft > 0) this.#dynamicLeft--;
    this.#sinceDynamic = 0;
    if (this.#stride.announceLeft > 0) this.#stride.announceLeft--;
    if (this.#extensionLeft > 0 && --this.#extensionLeft === 0) this.#clearExtension();
  }

  #writeCompressed(
    headers: Headers,
    crc3: number,
    crc7: number,
    cid: number,
    isLarge: boolean,
    writer: ByteWriter,
  ): boolean {
    const header = this.#header;
    header.begin(headers, crc3, crc7, this.#mode);
    const needs = this.profile === PROFILE.RTP ? this.#chooseRtp(headers) : this.#choosePlain(headers);
    if (!needs) return false;
    if (this.#extensionLeft > 0 && --this.#extensionLeft === 0) this.#clearExtension();
    header.write(writer, cid, isLarge);
    for (let i = 0; i < headers.ipCount; i++) {
      if (headers.ips[i].version === 4 && headers.ips[i].rnd) writer.u16(headers.ips[i].id);
    }
    if (headers.hasUdp && headers.hasChecksums) writer.u16(headers.udpChecksum);
    return true;
  }

  /** The smallest format of the profiles without RTP (RFC 3095 5.11.3); false if none can say it. */
  #choosePlain(headers: Headers): boolean {
    const header = this.#header;
    const inner = innermostCounting(headers);
    const outer = inner === 1 && headers.ips[0].countsId ? 0 : -1;
    const innerSteady = this.#idFits(headers, inner, 0), outerSteady = this.#idFits(headers, outer, 0);
    if (this.#extensionLeft === 0) {
      if (innerSteady && outerSteady) {
        if (this.#sequenceFits(headers, 4)) return header.uo0();
        if (this.#sequenceFits(headers, 5)) return header.uor2();
      } else if (outerSteady && this.#sequenceFits(headers, 5) && this.#idFits(headers, inner, 6)) {
        return header.uo1(this.#offsetOf(headers, inner));
      }
      if (this.#sequenceFits(headers, 8) && inner >= 0) {
        const id = this.#offsetOf(headers, inner);
        if (outerSteady && this.#idFits(headers, inner, 3)) return header.uor2Extension0(id);
        if (outerSteady && this.#idFits(headers, inner, 11)) return header.uor2Extension1(id);
        if (outer >= 0 && this.#idFits(headers, outer, 11) && this.#idFits(headers, inner, 8)) {
          return header.uor2Extension2(this.#offsetOf(headers, outer), id);
        }
      }
    }
    const withSequence = !this.#sequenceFits(headers, 5);
    if (withSequence && !this.#sequenceFits(headers, 13)) return false;
    return header.uor2Extension3(withSequence, {
      pending: this.#pending,
      innerId: innerSteady ? -1 : this.#offsetOf(headers, inner),
      outerId: outerSteady ? -1 : this.#offsetOf(headers, outer),
    });
  }

  /** The smallest format of the RTP profile (RFC 3095 5.7). */
  #chooseRtp(headers: Headers): boolean {
    const header = this.#header;
    const inner = innermostCounting(headers);
    const outer = inner === 1 && headers.ips[0].countsId ? 0 : -1;
    const innerSteady = this.#idFits(headers, inner, 0), outerSteady = this.#idFits(headers, outer, 0);
    const steady = innerSteady && outerSteady;
    const id = inner < 0 ? 0 : this.#offsetOf(headers, inner);
    const { isScaled, scaled } = this.#stride;
    const isDeducible = isScaled &&
      this.#scaledOffsets.fits(scaledOffset(scaled.scaled, headers.sequence), 0, 0, 32);
    const { marker } = headers.rtp;
    if (this.#extensionLeft === 0 && isScaled) {
      if (steady && isDeducible && !marker && this.#sequenceFits(headers, 4)) return header.uo0();
      if (steady && this.#sequenceFits(headers, 4) && this.#scaledFits(inner < 0 ? 6 : 5)) {
        return header.uo1Timestamp(inner >= 0, scaled.scaled);
      }
      if (inner >= 0 && outerSteady && isDeducible && !marker && this.#sequenceFits(headers, 4)) {
        if (this.#idFits(headers, inner, 5)) return header.uo1Id(id);
      }
      if (steady && this.#sequenceFits(headers, 6) && this.#scaledFits(inner < 0 ? 6 : 5)) {
        return header.uor2Timestamp(inner >= 0, scaled.scaled);
      }
      if (inner >= 0 && outerSteady && isDeducible && this.#sequenceFits(headers, 6)) {
        if (this.#idFits(headers, inner, 5)) return header.uor2Id(id);
      }
    }
    return this.#rtpExtension3(
      headers,
      inner,
      id,
      innerSteady,
      outerSteady ? -1 : this.#offsetOf(headers, outer),
    );
  }

  #rtpExtension3(
    headers: Headers,
    inner: number,
    id: number,
    innerSteady: boolean,
    outerId: number,
  ): boolean {
    const { isScaled, scaled, announceLeft } = this.#stride;
    const withSequence = !this.#sequenceFits(headers, 6);
    if (withSequence && !this.#sequenceFits(headers, 14)) return false;
    // Where no identification counts, the base header has 6 bits of time stamp in front of the extension's.
    const base = inner < 0 ? 6 : 0;
    const bits = this.#timestampBits(headers.rtp.timestamp, base, isScaled);
    if (bits < 0) return false;
    this.#header.rtpExtension3(withSequence, {
      pending: this.#pending,
      hasInner: inner >= 0,
      baseId: id,
      innerId: innerSteady ? -1 : id,
      outerId,
      timestamp: isScaled ? scaled.scaled : headers.rtp.timestamp,
      timestampBits: bits,
      isScaled,
      stride: announceLeft > 0 ? scaled.stride : 0,
    });
    if (announceLeft > 0) this.#stride.announceLeft--;
    return true;
  }

  /** Bits of time stamp that extension 3 has to add (7, 14, 21, 29; 0 none); -1 if they do not suffice. */
  #timestampBits(timestamp: number, base: number, isScaled: boolean): number {
    if (isScaled) {
      if (base > 0 && this.#scaledFits(base)) return 0;
      for (const bits of [7, 14, 21, 29]) if (this.#scaledFits(Math.min(base + bits, 32))) return bits;
      return -1;
    }
    for (const bits of [7, 14, 21, 29]) {
      const sent = Math.min(base + bits, 32);
      if (this.#timestamps.fits(timestamp, sent, shiftOfRtpTimestamp(sent), 32)) return bits;
    }
    return -1;
  }

  #scaledFits(bits: number): boolean {
    return this.#scaled.fits(this.#stride.scaled.scaled, bits, shiftOfRtpTimestamp(bits), 32);
  }

  #sequenceFits(headers: Headers, bits: number): boolean {
    const isCounted = this.profile === PROFILE.UDP || this.profile === PROFILE.IP;
    const shift = isCounted ? -1 : shiftOfRtpSequence(bits);
    return this.#sequences.fits(headers.sequence, bits, shift, sequenceWidth(this.profile));
  }

  /** Whether `bits` bits say the identification; always where there is none, or where it is constant. */
  #idFits(headers: Headers, index: number, bits: number): boolean {
    if (index < 0 || headers.ips[index].sid) return true;
    return this.#ids[index].fits(this.#offsetOf(headers, index), bits, 0, 16);
  }

  #offsetOf(headers: Headers, index: number): number {
    return (headers.ips[index].orderedId - headers.sequence) & 0xffff;
  }

  #remember(headers: Headers): void {
    const { sequence } = headers, packet = this.#packet;
    this.#sequences.add(sequence, packet);
    for (let i = 0; i < headers.ipCount; i++) {
      if (headers.ips[i].version === 4) this.#ids[i].add(this.#offsetOf(headers, i), packet);
    }
    if (this.profile === PROFILE.RTP) {
      const { scaled } = this.#stride.scaled;
      this.#timestamps.add(headers.rtp.timestamp, packet);
      this.#scaled.add(scaled, packet);
      this.#scaledOffsets.add(scaledOffset(scaled, sequence), packet);
    }
    this.#reference.copyFrom(headers);
    this.#isFirst = false;
    this.#sinceDynamic++;
    this.#sinceStatic++;
  }

  #clearExtension(): void {
    const pending = this.#pending;
    this.#extensionLeft = 0;
    for (let i = 0; i < 2; i++) pending.tos[i] = pending.ttl[i] = pending.flags[i] = false;
    pending.rtp = false;
  }
}

/** How far the scaled time stamp is ahead of the sequence number, both modulo 2^16. */
function scaledOffset(scaled: number, sequence: number): number {
  return (scaled - sequence) & 0xffff;
}
