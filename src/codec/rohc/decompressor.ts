/**
 * A ROHC channel's decompressor (RFC 5795): padding, feedback, context ids, profiles. There is at most one
 * context an id, up to `maxCid`: 16 with small ids and, unless `maxCid` is less, 16384 with large ones. Only an IR packet
 * whose checksum holds makes or replaces one. Feedback that arrives is handed on, not understood.
 */
import { ByteReader, ByteWriter } from "./bytes.ts";
import { crc8, CRC8_START } from "./crc.ts";
import { FlowDecompressor, IR, IR_DYN } from "./flow_decompressor.ts";
import { MAX_LARGE_CID, MAX_SMALL_CID, type PacketHead, readCid, skipFeedback } from "./framing.ts";
import { PROFILE } from "./headers.ts";
import { RESULT } from "./results.ts";
import { TcpDecompressor } from "./tcp/decompressor.ts";

/** A context of any profile. */
interface Context {
  readonly profile: number;
  /** The greatest order of a packet that was restored. */
  readonly newest: number;
  /** Restores a packet behind `reader`; see `FlowDecompressor.decompress`. */
  decompress(
    first: number,
    reader: ByteReader,
    packetFrom: number,
    writer: ByteWriter,
    order: number,
  ): number;
}

export interface DecompressorOptions {
  /** Whether ids stand after the first octet and reach 16383. */
  largeCids: boolean;
  /** The greatest id that is accepted. */
  maxCid?: number;
  /** Called with each feedback in front of a packet. */
  onFeedback?: (feedback: Uint8Array) => void;
  /** States that each context keeps for packets that come late (see History); 1 unless told. */
  depth?: number;
  /** Whether packets with lists of extension headers or contributing sources are read; they are unless told. */
  lists?: boolean;
  /** Asked before a context is kept under an id that had none; its packet is restored in either case. Always true unless told. */
  mayKeep?: () => boolean;
}

export class Decompressor {
  readonly #contexts = new Map<number, Context>();
  readonly #large: boolean;
  readonly #maxCid: number;
  readonly #depth: number;
  readonly #lists: boolean;
  readonly #mayKeep: () => boolean;
  #arrivals = 0;
  readonly #onFeedback: ((from: number, to: number) => void) | undefined;
  readonly #reader = new ByteReader();
  readonly #writer = new ByteWriter();
  readonly #head: PacketHead = { cid: 0, first: 0 };

  constructor(options: DecompressorOptions) {
    this.#large = options.largeCids;
    const greatest = this.#large ? MAX_LARGE_CID : MAX_SMALL_CID;
    this.#maxCid = Math.min(options.maxCid ?? greatest, greatest);
    const { onFeedback, depth = 1, lists = true, mayKeep = () => true } = options;
    this.#depth = depth;
    this.#lists = lists;
    this.#mayKeep = mayKeep;
    if (onFeedback) this.#onFeedback = (from, to) => onFeedback(this.#reader.bytes.subarray(from, to));
  }

  /** The length of the last packet that was restored. */
  length = 0;
  /** The context id of the last packet. */
  cid = 0;

  /** Restores the packet that `input` holds into `output`, whose `length` octets are then valid; gives a RESULT. */
  decompress(input: Uint8Array, output: Uint8Array): number {
    return this.decompressAt(input, 0, input.length, output, this.#arrivals++);
  }

  /** The same for the packet in `bytes[start, end)`, whose place among all that were sent is `order`. */
  decompressAt(bytes: Uint8Array, start: number, end: number, output: Uint8Array, order: number): number {
    const reader = this.#reader.over(bytes, start, end);
    const writer = this.#writer.over(output);
    this.length = 0;
    skipFeedback(reader, this.#onFeedback);
    if (reader.failed) return RESULT.MALFORMED;
    if (reader.left === 0) return RESULT.NOTHING;
    const from = reader.position;
    readCid(reader, this.#large, this.#head);
    const { cid, first } = this.#head;
    this.cid = cid;
    if (reader.failed || cid > this.#maxCid) return RESULT.MALFORMED;
    const result = this.#contextOf(cid, first, reader);
    if (typeof result === "number") return result;
    const outcome = result.decompress(first, reader, from, writer, order);
    if (outcome === RESULT.PACKET) this.length = writer.position;
    const isKept = outcome === RESULT.PACKET || (outcome === RESULT.STATIC_CONTEXT && (first & 0xfe) === IR);
    if (isKept) this.#keep(cid, result);
    return outcome;
  }

  /** The profile of the context; undefined if there is none. */
  profileOf(cid: number): number | undefined {
    return this.#contexts.get(cid)?.profile;
  }

  /** The greatest order of a packet that the context restored; -1 without one. */
  newestOf(cid: number): number {
    return this.#contexts.get(cid)?.newest ?? -1;
  }

  /** Whether the last packet's context was not kept, because `mayKeep` said so. */
  wasRefused = false;

  #keep(cid: number, context: Context): void {
    const known = this.#contexts.get(cid);
    this.wasRefused = known === undefined && !this.#mayKeep();
    // An IR may come late, and be of a profile that the id had before.
    const isLate = known !== undefined && known.newest > context.newest;
    if (known !== context && !isLate && !this.wasRefused) this.#contexts.set(cid, context);
  }

  /** The context that reads the packet; a new one for an IR of another profile, which is kept if the IR holds. */
  #contextOf(cid: number, first: number, reader: ByteReader): Context | number {
    const known = this.#contexts.get(cid);
    if ((first & 0xfe) !== IR) {
      if (first !== IR_DYN || known === undefined) return known ?? RESULT.NO_CONTEXT;
      return known;
    }
    const profile = reader.peek(0);
    if (reader.failed) return RESULT.MALFORMED;
    if (known !== undefined && known.profile === profile) return known;
    switch (profile) {
      case PROFILE.UNCOMPRESSED:
        return new UncompressedContext();
      case PROFILE.RTP:
      case PROFILE.UDP:
      case PROFILE.ESP:
      case PROFILE.IP:
        return new FlowDecompressor(profile, this.#depth, this.#lists);
      case PROFILE.TCP:
        return new TcpDecompressor(this.#large, (base) => this.#contexts.get(base), this.#depth, this.#lists);
      default:
        return RESULT.MALFORMED;
    }
  }
}

/** Profile 0x0000 (RFC 3095 5.10): whole packets under a context id. */
class UncompressedContext implements Context {
  readonly profile = PROFILE.UNCOMPRESSED;
  newest = -1;

  decompress(
    first: number,
    reader: ByteReader,
    packetFrom: number,
    writer: ByteWriter,
    order: number,
  ): number {
    if ((first & 0xfe) === IR) {
      reader.u8();
      const crcAt = reader.position;
      const crc = reader.u8();
      if (reader.failed) return RESULT.MALFORMED;
      // Unlike the other profiles', this checksum ends in front of its own octet.
      if (crc8(reader.bytes, packetFrom, crcAt, CRC8_START) !== crc) return RESULT.BAD_CRC;
      if (reader.left === 0) return RESULT.STATIC_CONTEXT;
    } else writer.u8(first);
    writer.copy(reader.bytes, reader.position, reader.position + reader.left);
    if (writer.failed) return RESULT.NO_ROOM;
    this.newest = Math.max(this.newest, order);
    return RESULT.PACKET;
  }
}
