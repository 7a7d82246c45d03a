/**
 * Feedback of RFC 3095 (5.7.6, 5.2.2) and, for the TCP profile, of RFC 6846 (8.3): FEEDBACK-1 and FEEDBACK-2 with their
 * options, read for a compressor and written by a decompressor. Feedback without a checksum may acknowledge but not complain; lengths are bounded by the feedback.
 */
import { type ByteReader, ByteWriter } from "./bytes.ts";
import { crc8, CRC8_START } from "./crc.ts";
import { readLargeCid, writeLargeCid, writeSmallCid } from "./framing.ts";

export type FeedbackKind = "ack" | "nack" | "static-nack";

export interface Feedback {
  cid: number;
  kind: FeedbackKind;
  /** The lowest `bits` bits of the sequence number of the packet that was got, or failed. */
  sequence: number;
  bits: number;
  /** The decompressor has no memory for the context: its packets are to go without one. */
  isRejected: boolean;
}

const OPTION_CRC = 1, OPTION_REJECT = 2, OPTION_SN_NOT_VALID = 3, OPTION_SN = 4;
const KINDS: readonly FeedbackKind[] = ["ack", "nack", "static-nack"];

/**
 * Reads one feedback, the id included; undefined if it is malformed or its checksum fails. `isTcp` says which contexts have
 * the TCP profile, whose FEEDBACK-2 has no mode, 14 bits of number, and the checksum always. A decompressor without the context
 * cannot know that, so a complaint may have the other profiles' form.
 */
export function readFeedback(
  reader: ByteReader,
  large: boolean,
  isTcp: (cid: number) => boolean = () => false,
): Feedback | undefined {
  const { bytes, position, left } = reader, item = readForm(reader, large, isTcp);
  if (item !== undefined) return item;
  reader.over(bytes, position, position + left);
  const other = readForm(reader, large, () => false);
  return other?.kind === "ack" ? undefined : other;
}

function readForm(
  reader: ByteReader,
  large: boolean,
  isTcp: (cid: number) => boolean,
): Feedback | undefined {
  const from = reader.position;
  const end = from + reader.left;
  let cid = 0;
  if (large) cid = readLargeCid(reader);
  else if (reader.left > 1 && (reader.peek(0) & 0xf0) === 0xe0) cid = reader.u8() & 0x0f;
  if (reader.left === 1) return { cid, kind: "ack", sequence: reader.u8(), bits: 8, isRejected: false };
  const first = reader.u8();
  const kind = KINDS[first >> 6];
  const hasFixedCrc = isTcp(cid), mask = hasFixedCrc ? 0x3f : 0x0f;
  const sequence = ((first & mask) << 8) | reader.u8();
  const item: Feedback = { cid, kind, sequence, bits: hasFixedCrc ? 14 : 12, isRejected: false };
  let hasCrc = false;
  const isConfirmed = () => {
    const crcAt = reader.position, crc = reader.u8(), { bytes } = reader;
    const front = crc8(bytes, from, crcAt, CRC8_START);
    return !reader.failed && crc === crc8(bytes, crcAt + 1, end, crc8(ZERO, 0, 1, front));
  };
  if (hasFixedCrc && !(hasCrc = isConfirmed())) return undefined;
  while (reader.left > 0) {
    const option = reader.u8();
    const length = option & 0x0f;
    if ((option >> 4) === OPTION_CRC && length === 1) {
      if (!isConfirmed()) return undefined;
      hasCrc = true;
    } else if ((option >> 4) === OPTION_SN && length === 1) {
      item.sequence = ((item.sequence << 8) | reader.u8()) >>> 0;
      item.bits += 8;
    } else {
      if ((option >> 4) === OPTION_SN_NOT_VALID) item.bits = 0;
      item.isRejected ||= (option >> 4) === OPTION_REJECT;
      reader.skip(length);
    }
  }
  if (reader.failed || kind === undefined) return undefined;
  return kind === "ack" || hasCrc ? item : undefined;
}

/** What a FEEDBACK-2 says, and in which form. */
export interface FeedbackWish {
  cid: number;
  kind: FeedbackKind;
  /** Sequence number of the packet that was got, or failed: its lowest 12 bits go, of the TCP profile 14. */
  sequence: number;
  /** Whether the context has the TCP profile; no unless told. */
  isTcp?: boolean;
  /** Whether the other end is to do without the context; no unless told. */
  isRejected?: boolean;
}

/** A FEEDBACK-2 in `mode` (1 U, 2 O) with a checksum, 4 to 7 octets. */
export function writeFeedback(wish: FeedbackWish, mode: number, large: boolean): Uint8Array {
  const { cid, kind, sequence, isTcp = false, isRejected = false } = wish;
  const writer = new ByteWriter().over(new Uint8Array(8));
  if (large) writeLargeCid(writer, cid);
  else writeSmallCid(writer, cid);
  const low = isTcp ? (sequence >> 8) & 0x3f : (mode << 4) | ((sequence >> 8) & 0x0f);
  writer.u8((KINDS.indexOf(kind) << 6) | low);
  writer.u8(sequence & 0xff);
  if (!isTcp) writer.u8((OPTION_CRC << 4) | 1);
  const crcAt = writer.position;
  writer.u8(0);
  if (isRejected) writer.u8(OPTION_REJECT << 4);
  writer.bytes[crcAt] = crc8(writer.bytes, 0, writer.position, CRC8_START);
  return writer.bytes.slice(0, writer.position);
}

const ZERO = new Uint8Array(1);
