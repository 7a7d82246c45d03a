/**
 * What stands around every ROHC packet (RFC 5795 5.2): padding, feedback, and the context's id, small (an Add-CID
 * octet for 1 to 15) or large (1 or 2 octets after the packet's first). Lengths are bounded by the packet; nothing is
 * kept between packets.
 */
import type { ByteReader, ByteWriter } from "./bytes.ts";

/** The greatest id of each kind (RFC 5795 5.1.3). */
export const MAX_SMALL_CID = 15;
export const MAX_LARGE_CID = 16383;

const PADDING = 0xe0;
const ADD_CID = 0xe0;
const FEEDBACK = 0xf0;

/** Moves `reader` past padding and feedback; `onFeedback` gets the range of each feedback's octets, CID included. */
export function skipFeedback(reader: ByteReader, onFeedback?: (from: number, to: number) => void): void {
  while (reader.left > 0 && reader.peek(0) === PADDING) reader.u8();
  while (reader.left > 0 && (reader.peek(0) & 0xf8) === FEEDBACK) {
    const code = reader.u8() & 0x07;
    const length = code === 0 ? reader.u8() : code;
    const from = reader.position;
    reader.skip(length);
    if (!reader.failed && length > 0) onFeedback?.(from, reader.position);
  }
}

/** Writes the header of a feedback of `length` octets (1 to 255) that travels in front of a packet. */
export function writeFeedbackHeader(writer: ByteWriter, length: number): void {
  if (length < 8) writer.u8(FEEDBACK | length);
  else {
    writer.u8(FEEDBACK);
    writer.u8(length);
  }
}

/** A packet's context id and first octet, as `readCid` found them. */
export interface PacketHead {
  cid: number;
  first: number;
}

/** Reads the id and the first octet of a packet; the reader then stands behind both. */
export function readCid(reader: ByteReader, large: boolean, into: PacketHead): void {
  into.cid = 0;
  into.first = reader.u8();
  if (large) {
    into.cid = readLargeCid(reader);
    return;
  }
  if ((into.first & 0xf0) !== ADD_CID) return;
  into.cid = into.first & 0x0f;
  into.first = reader.u8();
}

/** A large id: 7 bits in one octet, or 14 in two (RFC 3095 4.5.6). */
export function readLargeCid(reader: ByteReader): number {
  const first = reader.u8();
  if (first < 0x80) return first;
  if (first < 0xc0) return ((first & 0x3f) << 8) | reader.u8();
  reader.skip(reader.left + 1);
  return 0;
}

/** Writes the Add-CID octet that a small id other than 0 needs in front of the packet. */
export function writeSmallCid(writer: ByteWriter, cid: number): void {
  if (cid !== 0) writer.u8(ADD_CID | cid);
}

/** Writes a large id, after the packet's first octet. */
export function writeLargeCid(writer: ByteWriter, cid: number): void {
  if (cid < 0x80) writer.u8(cid);
  else writer.u16(0x8000 | cid);
}
