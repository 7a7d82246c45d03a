/**
 * Bounded reading and writing of bytes for the ROHC codec. A reader never goes past its end and a writer never past
 * its room: both then say `failed` and give zeros, so that a parser may read on and ask once at the end.
 */

export class ByteReader {
  #bytes: Uint8Array = EMPTY;
  #end = 0;
  position = 0;
  failed = false;

  /** Reads `bytes[from, to)` from now on. */
  over(bytes: Uint8Array, from: number, to: number): this {
    this.#bytes = bytes;
    this.position = from;
    this.#end = to;
    this.failed = false;
    return this;
  }

  get bytes(): Uint8Array {
    return this.#bytes;
  }

  get left(): number {
    return this.#end - this.position;
  }

  u8(): number {
    if (this.position >= this.#end) return this.#fail();
    return this.#bytes[this.position++];
  }

  /** The byte `ahead` of the position, which does not move. */
  peek(ahead: number): number {
    const at = this.position + ahead;
    if (at >= this.#end) return this.#fail();
    return this.#bytes[at];
  }

  u16(): number {
    return (this.u8() << 8) | this.u8();
  }

  u32(): number {
    return (this.u16() * 65536) + this.u16();
  }

  skip(length: number): void {
    if (length > this.left) this.#fail();
    else this.position += length;
  }

  copyTo(target: Uint8Array, at: number, length: number): void {
    if (length > this.left || at + length > target.length) return void this.#fail();
    target.set(this.#bytes.subarray(this.position, this.position + length), at);
    this.position += length;
  }

  #fail(): number {
    this.failed = true;
    this.position = this.#end;
    return 0;
  }
}

const EMPTY = new Uint8Array(0);

export class ByteWriter {
  #bytes: Uint8Array = EMPTY;
  position = 0;
  failed = false;

  /** Writes into `bytes` from `at` to its end. */
  over(bytes: Uint8Array, at = 0): this {
    this.#bytes = bytes;
    this.position = at;
    this.failed = false;
    return this;
  }

  get bytes(): Uint8Array {
    return this.#bytes;
  }

  u8(value: number): void {
    if (this.position >= this.#bytes.length) this.failed = true;
    else this.#bytes[this.position++] = value;
  }

  u16(value: number): void {
    this.u8(value >>> 8);
    this.u8(value & 0xff);
  }

  u32(value: number): void {
    this.u16(value >>> 16);
    this.u16(value & 0xffff);
  }

  copy(source: Uint8Array, from: number, to: number): void {
    if (this.position + to - from > this.#bytes.length) {
      this.failed = true;
      return;
    }
    this.#bytes.set(source.subarray(from, to), this.position);
    this.position += to - from;
  }
}

/** What `readSdvl` has read: a value of up to 29 bits, and how many of its bits were sent. */
export interface SdvlValue {
  value: number;
  bits: number;
}

/** Reads a self-describing variable-length value (RFC 3095 4.5.6): 7, 14, 21 or 29 bits in 1 to 4 octets. */
export function readSdvl(reader: ByteReader, into: SdvlValue): void {
  const first = reader.u8();
  if (first < 0x80) {
    into.value = first;
    into.bits = 7;
  } else if (first < 0xc0) {
    into.value = ((first & 0x3f) << 8) | reader.u8();
    into.bits = 14;
  } else if (first < 0xe0) {
    into.value = ((first & 0x1f) << 16) | reader.u16();
    into.bits = 21;
  } else {
    into.value = ((first & 0x1f) << 24) | (reader.u8() << 16) | reader.u16();
    into.bits = 29;
  }
}

/** Writes `value` (below 2^29) in as few octets as carry at least `bits` bits (7, 14, 21 or 29). */
export function writeSdvl(writer: ByteWriter, value: number, bits: number): void {
  if (bits <= 7) writer.u8(value & 0x7f);
  else if (bits <= 14) writer.u16(0x8000 | (value & 0x3fff));
  else if (bits <= 21) {
    writer.u8(0xc0 | ((value >>> 16) & 0x1f));
    writer.u16(value & 0xffff);
  } else writer.u32((0xe0000000 | (value & 0x1fffffff)) >>> 0);
}

/** How many bits a whole value needs in this form: 7, 14, 21 or 29; 0 if it has no form. */
export function sdvlBits(value: number): number {
  if (value < 1 << 7) return 7;
  if (value < 1 << 14) return 14;
  if (value < 1 << 21) return 21;
  return value < 2 ** 29 ? 29 : 0;
}
