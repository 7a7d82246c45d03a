/**
 * Lists of IPv6 extension headers and of RTP's contributing sources as ROHC v1 sends them (RFC 3095 5.8): a table of
 * items with an index each, and lists told whole or as a difference from an earlier one. Bounds: 15 items a list (the
 * bit masks have room for no more), 128 indexes, 256 bytes of table and list for extension headers; what does not fit fails
 * the packet. The decompressor keeps every identified list; a compressor here sends lists whole (encoding type 0).
 */
import type { ByteReader, ByteWriter } from "./bytes.ts";

/** Items that a list may have, and indexes that the table has. */
export const MAX_ITEMS = 15;
/** Bytes of the longest item: an extension header of 255 units would be 2048; such packets have no profile here. */
export const MAX_ITEM_BYTES = 256;
// deno-lint-ignore no-explicit-any -- one empty array for all kinds of elements; frozen, so nobody can fill it
const NONE: any[] = Object.freeze([]) as any;

/** An empty list (encoding type 0) under the id 0, which no list with items here has. */
const EMPTY_WITH_ID = 0x2000;

/** What the items of a list are. */
export const LIST_OF_EXTENSIONS = 0;
export const LIST_OF_SOURCES = 1;

/** The size of the item that begins at the reader's position; the item is not read. */
function itemSize(reader: ByteReader, kind: number): number {
  return kind === LIST_OF_SOURCES ? 4 : (reader.peek(1) + 1) * 8;
}

/**
 * One list's state at a decompressor: the items of the table, the lists of the past and the list of today. Arrays are
 * never changed once they are another's too: `read` works on copies, so that `copyFrom` costs three references.
 */
export class ListContext {
  #table: (Uint8Array | undefined)[] = NONE;
  #lists: (readonly number[] | undefined)[] = NONE;
  /** The indexes of the current list, in the order of its headers. */
  indexes: readonly number[] = NONE;

  /** @param mayHaveItems whether `read` takes lists with items; else these are malformed. */
  constructor(readonly kind: number, readonly mayHaveItems = true) {}

  /** The current items' bytes, in order; an extension header has its own type in place of the next header's. */
  items(): Uint8Array[] {
    return this.indexes.map((index) => this.#table[index]!);
  }

  clear(): void {
    this.#table = NONE;
    this.#lists = NONE;
    this.indexes = NONE;
  }

  /** Makes `items` the list, under the indexes 0, 1, 2 …; they must not change afterwards. */
  setItems(items: readonly Uint8Array[]): void {
    this.#table = items.slice();
    this.indexes = items.map((_, index) => index);
  }

  /** Whether both lists hold the same octets. */
  equals(other: ListContext): boolean {
    if (this.indexes.length !== other.indexes.length) return false;
    const theirs = other.items();
    return this.items().every((item, i) =>
      item.length === theirs[i].length && item.every((octet, at) => octet === theirs[i][at])
    );
  }

  copyFrom(other: ListContext): void {
    this.#table = other.#table;
    this.#lists = other.#lists;
    this.indexes = other.indexes;
  }

  /** Reads one encoded list and makes it the current one; false if it is malformed or refers to what is unknown. */
  read(reader: ByteReader): boolean {
    const head = reader.u8();
    if (head === 0) {
      // No items and no id: librohc leaves a list of extension headers as it was, and begins anew with IR.
      if (this.kind === LIST_OF_SOURCES) this.indexes = NONE;
      return !reader.failed;
    }
    if (!this.mayHaveItems) return false;
    this.#table = this.#table.slice();
    this.#lists = this.#lists.slice();
    const type = head >> 6;
    const hasGeneration = (head & 0x20) !== 0;
    const longIndexes = (head & 0x10) !== 0;
    const generation = hasGeneration ? reader.u8() : -1;
    let indexes: readonly number[] | undefined;
    if (type === 0) indexes = this.#readWhole(reader, head & 0x0f, longIndexes);
    else {
      const reference = this.#lists[reader.u8()];
      if (reference === undefined || reference.length === 0) return false;
      const kept = type === 1 ? reference : this.#remove(reader, reference);
      indexes = type === 2 ? kept : this.#insert(reader, kept, head & 0x0f, longIndexes);
    }
    if (indexes === undefined || reader.failed) return false;
    if (hasGeneration && this.#lists[generation] === undefined) this.#lists[generation] = indexes;
    this.indexes = indexes;
    return true;
  }

  /** `count` indexes with the items that come along (encoding type 0, RFC 3095 5.8.6.1). */
  #readWhole(reader: ByteReader, count: number, longIndexes: boolean): number[] | undefined {
    const indexes: number[] = [];
    const isNew: boolean[] = [];
    for (let i = 0; i < count; i++) {
      let code;
      if (longIndexes) code = reader.u8();
      else if ((i & 1) === 0) code = spread(reader.peek(0) >> 4);
      else code = spread(reader.u8() & 0x0f);
      indexes.push(code & 0x7f);
      isNew.push((code & 0x80) !== 0);
    }
    if (!longIndexes && (count & 1) === 1) reader.u8();
    return this.#readItems(reader, indexes, isNew) ? indexes : undefined;
  }

  #readItems(reader: ByteReader, indexes: readonly number[], isNew: readonly boolean[]): boolean {
    for (let i = 0; i < indexes.length; i++) {
      if (isNew[i] && !this.#readItem(reader, indexes[i])) return false;
      if (this.#table[indexes[i]] === undefined) return false;
    }
    return true;
  }

  #readItem(reader: ByteReader, index: number): boolean {
    const size = itemSize(reader, this.kind);
    if (reader.failed || size > MAX_ITEM_BYTES || size > reader.left) return false;
    const item = new Uint8Array(size);
    reader.copyTo(item, 0, size);
    this.#table[index] = item;
    return true;
  }

  /** The reference list without the items that a bit mask names (RFC 3095 5.8.6.3). */
  #remove(reader: ByteReader, reference: readonly number[]): readonly number[] {
    const mask = readMask(reader);
    return reference.filter((_, at) => (mask[at] ?? 0) === 0);
  }

  /** The list with new items where a bit mask has ones (RFC 3095 5.8.6.2). */
  #insert(
    reader: ByteReader,
    kept: readonly number[],
    first: number,
    longIndexes: boolean,
  ): number[] | undefined {
    const mask = readMask(reader);
    const count = mask.reduce((sum, bit) => sum + bit, 0);
    const codes: number[] = [];
    if (longIndexes) { for (let i = 0; i < count; i++) codes.push(reader.u8()); }
    else if (count > 0) {
      codes.push(spread(first));
      for (let i = 1; i < count; i += 2) {
        const pair = reader.u8();
        codes.push(spread(pair >> 4));
        if (i + 1 < count) codes.push(spread(pair & 0x0f));
      }
    }
    if (kept.length + count > MAX_ITEMS) return undefined;
    const indexes: number[] = [];
    const isNew: boolean[] = [];
    let fromKept = 0;
    let fromCodes = 0;
    for (const bit of mask) {
      if (bit === 1) {
        isNew.push((codes[fromCodes] & 0x80) !== 0);
        indexes.push(codes[fromCodes++] & 0x7f);
      } else if (fromKept < kept.length) {
        isNew.push(false);
        indexes.push(kept[fromKept++]);
      }
    }
    if (fromKept < kept.length) return undefined;
    return this.#readItems(reader, indexes, isNew) ? indexes : undefined;
  }
}

/** A 4-bit code (X and 3 bits of index) as the 8-bit one (X and 7 bits). */
function spread(code: number): number {
  return ((code & 0x08) << 4) | (code & 0x07);
}

/** A bit mask of 7 or 15 positions, the first one first. */
function readMask(reader: ByteReader): number[] {
  const first = reader.u8();
  const bits: number[] = [];
  for (let bit = 6; bit >= 0; bit--) bits.push((first >> bit) & 1);
  if (first < 0x80) return bits;
  const second = reader.u8();
  for (let bit = 7; bit >= 0; bit--) bits.push((second >> bit) & 1);
  return bits;
}

/**
 * Writes a list whole, each item with its bytes, under the indexes 0, 1, 2 …. An empty one is a zero octet, or one with
 * an id if the other end may have items (`isCleared`): without an id, librohc leaves its list as it was.
 */
export function writeWholeList(writer: ByteWriter, items: readonly Uint8Array[], isCleared: boolean): void {
  if (items.length === 0 && isCleared) {
    writer.u16(EMPTY_WITH_ID);
    return;
  }
  const longIndexes = items.length > 8;
  writer.u8((longIndexes ? 0x10 : 0) | items.length);
  if (longIndexes) { for (let i = 0; i < items.length; i++) writer.u8(0x80 | i); }
  else {
    for (let i = 0; i < items.length; i += 2) {
      writer.u8(((0x08 | i) << 4) | (i + 1 < items.length ? 0x08 | (i + 1) : 0));
    }
  }
  for (const item of items) writer.copy(item, 0, item.length);
}
