/**
 * A ROHC channel's compressor (RFC 5795): finds each packet's flow and profile, and gives flows context ids, the least
 * recently used one when all are taken. Invariant: every packet goes out, at worst whole under the uncompressed profile;
 * contexts are bounded by the greatest id. Feedback and acknowledgments are told by the caller.
 */
import { ByteReader, ByteWriter } from "./bytes.ts";
import { crc8, CRC8_START } from "./crc.ts";
import { readFeedback } from "./feedback.ts";
import { FlowCompressor } from "./flow_compressor.ts";
import { IR } from "./flow_decompressor.ts";
import { MAX_LARGE_CID, MAX_SMALL_CID, writeLargeCid, writeSmallCid } from "./framing.ts";
import { Headers, Layout, PROFILE, UDP_BYTES } from "./headers.ts";
import { type IsRtp, parsePacket } from "./parse.ts";
import { TcpCompressor } from "./tcp/compressor.ts";
import { parseTcp } from "./tcp/parse.ts";
import { TcpState } from "./tcp/state.ts";

export interface CompressorOptions {
  largeCids: boolean;
  /** The greatest id that is used; all flows beyond share ids in turn. */
  maxCid?: number;
  /** How many packets carry a change that nobody acknowledges; 4 unless told. */
  repeats?: number;
  /** How many earlier packets may be the other end's last one; 8 unless told. */
  window?: number;
  /** Which UDP payloads are RTP; none unless told. */
  isRtp?: IsRtp;
}

interface Context {
  key: string;
  flow: FlowCompressor | TcpCompressor | undefined;
  /** Packets of the uncompressed profile that still announce its context. */
  announceLeft: number;
}

export class Compressor {
  /** By id; the order of the map is that of their last use. */
  readonly #contexts = new Map<number, Context>();
  readonly #ids = new Map<string, number>();
  readonly #large: boolean;
  readonly #maxCid: number;
  readonly #repeats: number;
  readonly #window: number;
  readonly #isRtp: IsRtp;
  readonly #headers = new Headers();
  readonly #layout = new Layout();
  readonly #tcp = new TcpState();
  readonly #writer = new ByteWriter();
  readonly #reader = new ByteReader();

  constructor(options: CompressorOptions) {
    this.#large = options.largeCids;
    const greatest = this.#large ? MAX_LARGE_CID : MAX_SMALL_CID;
    this.#maxCid = Math.min(options.maxCid ?? greatest, greatest);
    this.#repeats = options.repeats ?? 4;
    this.#window = options.window ?? 8;
    this.#isRtp = options.isRtp ?? (() => false);
  }

  /** The id and the sequence number of the last packet. */
  cid = 0;
  sequence = 0;

  /** Writes `packet` compressed into `output`; gives the octets, or 0 if the output has no room. */
  compress(packet: Uint8Array, output: Uint8Array): number {
    const headers = this.#headers, writer = this.#writer.over(output);
    const payloadAt = parseTcp(packet, this.#tcp);
    if (payloadAt === 0) parsePacket(packet, headers, this.#layout, this.#isRtp);
    const profile = payloadAt > 0 ? PROFILE.TCP : headers.profile;
    const cid = this.#cidOf(payloadAt > 0 ? this.#tcpKey() : this.#keyOf(packet, headers), profile);
    const context = this.#contexts.get(cid)!;
    this.cid = cid;
    if (context.flow instanceof TcpCompressor) {
      context.flow.compress(packet, this.#tcp, payloadAt, cid, this.#large, writer);
      this.sequence = context.flow.sequence;
    } else if (context.flow) {
      context.flow.compress(packet, headers, this.#layout, cid, this.#large, writer);
      this.sequence = context.flow.sequence;
    } else this.#writeUncompressed(packet, context, cid, writer);
    return writer.failed ? 0 : writer.position;
  }

  /** The other end has got the packet `sequence` of a context: what that packet carried need not be repeated. */
  acknowledge(cid: number, sequence: number): void {
    const context = this.#contexts.get(cid);
    if (!context) return;
    context.flow?.acknowledge(sequence);
    context.announceLeft = 0;
  }

  /** Takes a feedback that the other end sent (`DecompressorOptions.onFeedback`'s octets); false if it is malformed. */
  takeFeedback(feedback: Uint8Array): boolean {
    const item = readFeedback(
      this.#reader.over(feedback, 0, feedback.length),
      this.#large,
      (cid) => this.#contexts.get(cid)?.flow instanceof TcpCompressor,
    );
    if (!item) return false;
    const flow = this.#contexts.get(item.cid)?.flow;
    if (item.kind === "ack") {
      this.acknowledge(item.cid, flow ? nearest(item.sequence, item.bits, flow.sequence) : 0);
    } else if (item.kind === "nack") flow?.refreshDynamic();
    else flow?.refreshStatic();
    return true;
  }

  #cidOf(key: string, profile: number): number {
    let cid = this.#ids.get(key);
    if (cid === undefined) {
      cid = this.#contexts.size <= this.#maxCid ? this.#contexts.size : this.#contexts.keys().next().value!;
      const old = this.#contexts.get(cid);
      if (old) this.#ids.delete(old.key);
      const flow = profile === PROFILE.UNCOMPRESSED
        ? undefined
        : profile === PROFILE.TCP
        ? new TcpCompressor(this.#repeats, this.#window)
        : new FlowCompressor(profile, this.#repeats, this.#window);
      this.#contexts.set(cid, { key, flow, announceLeft: this.#repeats });
      this.#ids.set(key, cid);
    }
    const context = this.#contexts.get(cid)!;
    this.#contexts.delete(cid);
    this.#contexts.set(cid, context);
    return cid;
  }

  #tcpKey(): string {
    const tcp = this.#tcp;
    let key = String.fromCharCode(PROFILE.TCP, tcp.sourcePort, tcp.destinationPort);
    for (let i = 0; i < tcp.ipCount; i++) {
      key += String.fromCharCode(tcp.ips[i].version, ...tcp.ips[i].addresses);
    }
    return key;
  }

  /** What tells a flow from all others: the profile and every static field. */
  #keyOf(packet: Uint8Array, headers: Headers): string {
    let key = String.fromCharCode(headers.profile);
    if (headers.profile === PROFILE.UNCOMPRESSED) return key;
    for (let i = 0; i < headers.ipCount; i++) {
      const ip = headers.ips[i];
      const bytes = ip.version === 4 ? 4 : 16;
      key += String.fromCharCode(
        ip.version,
        ip.protocol,
        ...ip.addresses.subarray(0, bytes),
        ...ip.addresses.subarray(16, 16 + bytes),
      );
    }
    const at = this.#layout.upperAt;
    if (headers.hasUdp) key += String.fromCharCode(...packet.subarray(at, at + 4));
    if (headers.profile === PROFILE.RTP) {
      key += String.fromCharCode(...packet.subarray(at + UDP_BYTES + 8, at + UDP_BYTES + 12));
    }
    if (headers.profile === PROFILE.ESP) key += String.fromCharCode(...packet.subarray(at, at + 4));
    return key;
  }

  /** Profile 0x0000 (RFC 3095 5.10): announced a few times, then the packet as it is. */
  #writeUncompressed(packet: Uint8Array, context: Context, cid: number, writer: ByteWriter): void {
    const start = writer.position;
    if (!this.#large) writeSmallCid(writer, cid);
    // An octet that is no version of IP could be taken for another packet's type.
    const announces = context.announceLeft > 0 || packet.length === 0 || packet[0] >= 0xe0;
    writer.u8(announces ? IR : packet[0]);
    if (this.#large) writeLargeCid(writer, cid);
    if (announces) {
      writer.u8(PROFILE.UNCOMPRESSED);
      if (!writer.failed) writer.u8(crc8(writer.bytes, start, writer.position, CRC8_START));
      context.announceLeft = Math.max(0, context.announceLeft - 1);
    }
    writer.copy(packet, announces ? 0 : 1, packet.length);
  }
}

/** The number whose lowest `bits` bits are `value` and that is nearest below `last`. */
function nearest(value: number, bits: number, last: number): number {
  const whole = 2 ** bits;
  return (last - ((last - value) % whole + whole) % whole) >>> 0;
}
