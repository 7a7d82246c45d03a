/**
 * TCP's options as the TCP profile sends them (RFC 6846 6.3): a table of 16 entries, the first seven for well-known
 * options; a list of indexes with the items that come along; and an irregular part for the items that do not. Bounds:
 * 15 options a packet, 40 octets in all, as TCP's own header has.
 */
import { type ByteReader, type ByteWriter, writeSdvl } from "../bytes.ts";
import { decodeLsb } from "../lsb.ts";

const INDEX = {
  NOP: 0,
  EOL: 1,
  MSS: 2,
  WINDOW_SCALE: 3,
  TIMESTAMP: 4,
  SACK_PERMITTED: 5,
  SACK: 6,
  GENERIC: 7,
} as const;
const ENTRIES = 16;
/** Octets that TCP's header has for options. */
export const MAX_OPTION_BYTES = 40;
const MAX_SACK_BLOCKS = 4;
const EOL_BYTES_MAX = 32;
/** Options of a packet (four bits of the list's head). */
const MAX_OPTIONS = 15;

const KIND = { NOP: 1, EOL: 0, MSS: 2, WINDOW_SCALE: 3, TIMESTAMP: 8, SACK_PERMITTED: 4, SACK: 5 } as const;

class OptionEntry {
  isUsed = false;
  /** MSS, window scale, or the length of the end of the list. */
  value = 0;
  /** A generic option's kind and contents; contents are replaced, never changed. */
  kind = 0;
  contents: Uint8Array = EMPTY;
  /** A generic option that never changes has nothing in the irregular chain. */
  isStatic = false;

  copyFrom(other: OptionEntry): void {
    this.isUsed = other.isUsed;
    this.value = other.value;
    this.kind = other.kind;
    this.contents = other.contents;
    this.isStatic = other.isStatic;
  }
}

const EMPTY = new Uint8Array(0);

export class OptionList {
  readonly #entries = Array.from({ length: ENTRIES }, () => new OptionEntry());
  /** Indexes of the packet's options, in order. */
  #order: readonly number[] = [];
  /** Which of them came with their item in this packet. */
  #isFresh: boolean[] = [];
  timestamp = 0;
  timestampEcho = 0;
  /** Edges of blocks, begin and end in turn; absolute. */
  sack: readonly number[] = [];

  copyFrom(other: OptionList): void {
    for (let i = 0; i < ENTRIES; i++) this.#entries[i].copyFrom(other.#entries[i]);
    this.#order = other.#order;
    this.#isFresh = [];
    this.timestamp = other.timestamp;
    this.timestampEcho = other.timestampEcho;
    this.sack = other.sack;
  }

  clear(): void {
    for (const entry of this.#entries) entry.isUsed = false;
    this.#order = [];
    this.#isFresh = [];
  }

  /**
   * Takes the options as TCP's header has them, for a compressor; false if they are malformed, or one comes twice. A kind
   * that is not well known keeps the index that it has.
   */
  parse(octets: Uint8Array): boolean {
    const order: number[] = [];
    this.sack = [];
    for (let at = 0; at < octets.length;) {
      const kind = octets[at];
      if (kind === KIND.NOP) {
        order.push(INDEX.NOP);
        at++;
      } else if (kind === KIND.EOL) {
        // The item has the padding's bits in one octet.
        if (octets.length - at > EOL_BYTES_MAX) return false;
        for (let i = at; i < octets.length; i++) if (octets[i] !== 0) return false;
        this.#entries[INDEX.EOL].value = octets.length - at;
        order.push(INDEX.EOL);
        at = octets.length;
      } else {
        const length = at + 1 < octets.length ? octets[at + 1] : 0;
        if (length < 2 || at + length > octets.length) return false;
        const index = this.#take(kind, octets.subarray(at + 2, at + length));
        if (index < 0 || order.includes(index)) return false;
        order.push(index);
        at += length;
      }
    }
    if (order.length > MAX_OPTIONS) return false;
    for (const index of order) this.#entries[index].isUsed = true;
    this.#order = order;
    return true;
  }

  /** The index of an option whose contents are now known; -1 if it is malformed or no index is left. */
  #take(kind: number, contents: Uint8Array): number {
    const view = new DataView(contents.buffer, contents.byteOffset, contents.length);
    const { length } = contents;
    switch (kind) {
      case KIND.MSS:
        if (length !== 2) return -1;
        this.#entries[INDEX.MSS].value = view.getUint16(0);
        return INDEX.MSS;
      case KIND.WINDOW_SCALE:
        if (length !== 1) return -1;
        this.#entries[INDEX.WINDOW_SCALE].value = contents[0];
        return INDEX.WINDOW_SCALE;
      case KIND.TIMESTAMP:
        if (length !== 8) return -1;
        this.timestamp = view.getUint32(0);
        this.timestampEcho = view.getUint32(4);
        return INDEX.TIMESTAMP;
      case KIND.SACK_PERMITTED:
        return length === 0 ? INDEX.SACK_PERMITTED : -1;
      case KIND.SACK:
        if (length === 0 || length % 8 !== 0 || length > 8 * MAX_SACK_BLOCKS) return -1;
        this.sack = Array.from({ length: length / 4 }, (_, i) => view.getUint32(4 * i));
        return INDEX.SACK;
      default:
        return this.#takeGeneric(kind, contents);
    }
  }

  #takeGeneric(kind: number, contents: Uint8Array): number {
    for (let index = INDEX.GENERIC; index < ENTRIES; index++) {
      const entry = this.#entries[index];
      if (entry.isUsed && (entry.kind !== kind || entry.contents.length !== contents.length)) continue;
      entry.isUsed = true;
      entry.kind = kind;
      entry.contents = contents.slice();
      return index;
    }
    return -1;
  }

  /** Whether the irregular chain alone turns `other` into this list: same options in order, same values that never change. */
  isLike(other: OptionList): boolean {
    const order = this.#order;
    return order.length === other.#order.length && order.every((index, i) => {
      const entry = this.#entries[index], old = other.#entries[index];
      if (index !== other.#order[i] || entry.value !== old.value) return false;
      return index < INDEX.GENERIC ||
        (entry.kind === old.kind && entry.contents.length === old.contents.length);
    });
  }

  get hasTimestamp(): boolean {
    return this.#order.includes(INDEX.TIMESTAMP);
  }

  /** Writes the list with all its items (RFC 6846 6.3.3), as dynamic chains have it. */
  writeList(writer: ByteWriter, acknowledgment: number): void {
    const order = this.#order;
    writer.u8(0x10 | order.length);
    for (const index of order) writer.u8(0x80 | index);
    for (const index of order) this.#writeItem(writer, index, acknowledgment);
  }

  #writeItem(writer: ByteWriter, index: number, acknowledgment: number): void {
    const entry = this.#entries[index];
    switch (index) {
      case INDEX.NOP:
      case INDEX.SACK_PERMITTED:
        break;
      case INDEX.EOL:
        writer.u8(8 * (entry.value - 1));
        break;
      case INDEX.MSS:
        writer.u16(entry.value);
        break;
      case INDEX.WINDOW_SCALE:
        writer.u8(entry.value);
        break;
      case INDEX.TIMESTAMP:
        writer.u32(this.timestamp);
        writer.u32(this.timestampEcho);
        break;
      case INDEX.SACK:
        writeSack(writer, this.sack, acknowledgment);
        break;
      default:
        writer.u8(entry.kind);
        writer.u8(2 + entry.contents.length);
        writer.copy(entry.contents, 0, entry.contents.length);
    }
  }

  /** Writes what changes from packet to packet; `bits` of 7, 14, 21 or 29 for each time stamp. */
  writeIrregular(writer: ByteWriter, acknowledgment: number, bits: number, echoBits: number): void {
    for (const index of this.#order) {
      const { contents } = this.#entries[index];
      if (index === INDEX.TIMESTAMP) {
        writeSdvl(writer, this.timestamp % 2 ** 29, bits);
        writeSdvl(writer, this.timestampEcho % 2 ** 29, echoBits);
      } else if (index === INDEX.SACK) writeSack(writer, this.sack, acknowledgment);
      else if (index >= INDEX.GENERIC) {
        writer.u8(0);
        writer.copy(contents, 0, contents.length);
      }
    }
  }

  /**
   * Reads a list (RFC 6846 6.3.3); `allItems` where every item has to come along. `acknowledgment` is the packet's, from
   * which SACK blocks count. False if the list is malformed.
   */
  readList(reader: ByteReader, allItems: boolean, acknowledgment: number): boolean {
    const head = reader.u8();
    const count = head & 0x0f;
    const longIndexes = (head & 0x10) !== 0;
    const order: number[] = [];
    const isFresh: boolean[] = [];
    for (let i = 0; i < count; i++) {
      if (longIndexes) {
        const code = reader.u8();
        order.push(code & 0x0f);
        isFresh.push(code >= 0x80);
      } else {
        const code = (i & 1) === 0 ? reader.peek(0) >> 4 : reader.u8() & 0x0f;
        order.push(code & 0x07);
        isFresh.push((code & 0x08) !== 0);
      }
    }
    if (!longIndexes && (count & 1) === 1) reader.u8();
    this.#order = order;
    this.#isFresh = isFresh;
    for (let i = 0; i < count; i++) {
      if (!isFresh[i]) {
        if (
          allItems ||
          !this.#entries[order[i]].isUsed && order[i] >= INDEX.MSS && order[i] !== INDEX.SACK_PERMITTED
        ) {
          return false;
        }
      } else if (!this.#readItem(reader, order[i], acknowledgment)) return false;
      this.#entries[order[i]].isUsed = true;
    }
    return !reader.failed;
  }

  #readItem(reader: ByteReader, index: number, acknowledgment: number): boolean {
    const entry = this.#entries[index];
    switch (index) {
      case INDEX.NOP:
      case INDEX.SACK_PERMITTED:
        return true;
      case INDEX.EOL: {
        const bits = reader.u8();
        entry.value = bits / 8 + 1;
        return bits % 8 === 0;
      }
      case INDEX.MSS:
        entry.value = reader.u16();
        return true;
      case INDEX.WINDOW_SCALE:
        entry.value = reader.u8();
        return true;
      case INDEX.TIMESTAMP:
        this.timestamp = reader.u32();
        this.timestampEcho = reader.u32();
        return true;
      case INDEX.SACK:
        return this.#readSack(reader, acknowledgment) > 0;
      default:
        return readGeneric(reader, entry);
    }
  }

  /** Reads what the irregular chain has for the options without an item; false if it is malformed. */
  readIrregular(reader: ByteReader, acknowledgment: number): boolean {
    for (let i = 0; i < this.#order.length; i++) {
      const index = this.#order[i];
      if (this.#isFresh[i]) continue;
      const entry = this.#entries[index];
      if (index === INDEX.TIMESTAMP) {
        this.timestamp = readTimestamp(reader, this.timestamp);
        this.timestampEcho = readTimestamp(reader, this.timestampEcho);
      } else if (index === INDEX.SACK) {
        if (this.#readSack(reader, acknowledgment) < 0) return false;
      } else if (index >= INDEX.GENERIC && !entry.isStatic) {
        const discriminator = reader.u8();
        if (discriminator === 0) entry.contents = readOctets(reader, entry.contents.length);
        else if (discriminator !== 0xff) return false;
      }
    }
    return !reader.failed;
  }

  /** Reads SACK blocks; none of them means that they stay. Gives their number, -1 if malformed. */
  #readSack(reader: ByteReader, acknowledgment: number): number {
    const count = reader.u8();
    if (count > MAX_SACK_BLOCKS) return -1;
    if (count === 0) return 0;
    const edges: number[] = [];
    let edge = acknowledgment;
    for (let i = 0; i < 2 * count; i++) {
      const distance = readSackDistance(reader);
      if (distance < 0) return -1;
      edge = (edge + distance) >>> 0;
      edges.push(edge);
    }
    this.sack = edges;
    return count;
  }

  /** Writes the options; gives their octets, -1 if TCP's header has no room or they do not fill words of 4. */
  write(writer: ByteWriter): number {
    const start = writer.position;
    for (const index of this.#order) this.#writeOption(writer, index);
    const length = writer.position - start;
    return length > MAX_OPTION_BYTES || length % 4 !== 0 ? -1 : length;
  }

  #writeOption(writer: ByteWriter, index: number): void {
    const entry = this.#entries[index];
    const head = (kind: number, length: number) => writer.u16((kind << 8) | length);
    switch (index) {
      case INDEX.NOP:
        writer.u8(KIND.NOP);
        break;
      case INDEX.EOL:
        for (let i = 0; i < entry.value; i++) writer.u8(KIND.EOL);
        break;
      case INDEX.MSS:
        head(KIND.MSS, 4);
        writer.u16(entry.value);
        break;
      case INDEX.WINDOW_SCALE:
        head(KIND.WINDOW_SCALE, 3);
        writer.u8(entry.value);
        break;
      case INDEX.TIMESTAMP:
        head(KIND.TIMESTAMP, 10);
        writer.u32(this.timestamp);
        writer.u32(this.timestampEcho);
        break;
      case INDEX.SACK_PERMITTED:
        head(KIND.SACK_PERMITTED, 2);
        break;
      case INDEX.SACK:
        head(KIND.SACK, 2 + 4 * this.sack.length);
        for (const edge of this.sack) writer.u32(edge);
        break;
      default:
        head(entry.kind, 2 + entry.contents.length);
        writer.copy(entry.contents, 0, entry.contents.length);
    }
  }
}

/** An option of any other kind, with its length in octets (RFC 6846 6.3.4). */
function readGeneric(reader: ByteReader, entry: OptionEntry): boolean {
  const kind = reader.u8();
  const octet = reader.u8();
  const length = (octet & 0x7f) - 2;
  if (reader.failed || length < 0 || length > MAX_OPTION_BYTES - 2) return false;
  entry.kind = kind;
  entry.isStatic = octet >= 0x80;
  entry.contents = readOctets(reader, length);
  return !reader.failed;
}

function readOctets(reader: ByteReader, length: number): Uint8Array {
  const octets = new Uint8Array(Math.min(length, reader.left));
  reader.copyTo(octets, 0, length);
  return octets;
}

/** A time stamp's lowest 7, 14, 21 or 29 bits (RFC 6846 6.3.4.5). */
function readTimestamp(reader: ByteReader, reference: number): number {
  const first = reader.u8();
  if (first < 0x80) return decodeLsb(reference, first, 7, -1, 32);
  if (first < 0xc0) return decodeLsb(reference, ((first & 0x3f) << 8) | reader.u8(), 14, -1, 32);
  if (first < 0xe0) return decodeLsb(reference, ((first & 0x1f) << 16) | reader.u16(), 21, 0x00040000, 32);
  return decodeLsb(
    reference,
    ((first & 0x1f) << 24) | (reader.u8() << 16) | reader.u16(),
    29,
    0x04000000,
    32,
  );
}

/** The distance from one edge of a SACK block to the next in 15, 22, 29 or 32 bits; -1 if malformed. */
function readSackDistance(reader: ByteReader): number {
  const first = reader.u8();
  if (first < 0x80) return (first << 8) | reader.u8();
  if (first < 0xc0) return ((first & 0x3f) << 16) | reader.u16();
  if (first < 0xe0) return ((first & 0x1f) << 24) | (reader.u8() << 16) | reader.u16();
  return first === 0xff ? reader.u32() : -1;
}

/** Blocks as distances from the acknowledgment on, each in as few octets as carry it. */
function writeSack(writer: ByteWriter, edges: readonly number[], acknowledgment: number): void {
  writer.u8(edges.length / 2);
  let last = acknowledgment;
  for (const edge of edges) {
    const distance = (edge - last) >>> 0;
    last = edge;
    if (distance < 1 << 15) writer.u16(distance);
    else if (distance < 1 << 22) {
      writer.u8(0x80 | (distance >>> 16));
      writer.u16(distance & 0xffff);
    } else if (distance < 1 << 29) writer.u32((0xc0000000 | distance) >>> 0);
    else {
      writer.u8(0xff);
      writer.u32(distance);
    }
  }
}
