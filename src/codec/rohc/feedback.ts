/**
 * Feedback of RFC 3095 (5.7.6, 5.2.2): FEEDBACK-1 and FEEDBACK-2 with their options, read for a compressor and written by
 * a decompressor. Feedback without a checksum may acknowledge but not complain; lengths are bounded by the feedback.
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
}

const OPTION_CRC = 1, OPTION_SN_NOT_VALID = 3, OPTION_SN = 4;
const KINDS: readonly FeedbackKind[] = ["ack", "nack", "static-nack"];

/** Reads one feedback, the id included; undefined if it is malformed or its checksum fails. */
export function readFeedback(reader: ByteReader, large: boolean): Feedback | undefined {
  const from = reader.position;
  const end = from + reader.left;
  let cid = 0;
  if (large) cid = readLargeCid(reader);
  else if (reader.left > 1 && (reader.peek(0) & 0xf0) === 0xe0) cid = reader.u8() & 0x0f;
  if (reader.left === 1) return { cid, kind: "ack", sequence: reader.u8(), bits: 8 };
  const first = reader.u8();
  const kind = KINDS[first >> 6];
  const item: Feedback = { cid, kind, sequence: ((first & 0x0f) << 8) | reader.u8(), bits: 12 };
  let hasCrc = false;
  while (reader.left > 0) {
    const option = reader.u8();
    const length = option & 0x0f;
    if ((option >> 4) === OPTION_CRC && length === 1) {
      const crcAt = reader.position;
      const crc = reader.u8();
      const { bytes } = reader;
      const expected = crc8(bytes, crcAt + 1, end, crc8(ZERO, 0, 1, crc8(bytes, from, crcAt, CRC8_START)));
      if (crc !== expected) return undefined;
      hasCrc = true;
    } else if ((option >> 4) === OPTION_SN && length === 1) {
      item.sequence = ((item.sequence << 8) | reader.u8()) >>> 0;
      item.bits += 8;
    } else {
      if ((option >> 4) === OPTION_SN_NOT_VALID) item.bits = 0;
      reader.skip(length);
    }
  }
  if (reader.failed || kind === undefined) return undefined;
  return kind === "ack" || hasCrc ? item : undefined;
}

/** A FEEDBACK-2 in `mode` (1 U, 2 O) with 12 bits of sequence number and a checksum. */
export function writeFeedback(item: Omit<Feedback, "bits">, mode: number, large: boolean): Uint8Array {
  const writer = new ByteWriter().over(new Uint8Array(8));
  if (large) writeLargeCid(writer, item.cid);
  else writeSmallCid(writer, item.cid);
  writer.u8((KINDS.indexOf(item.kind) << 6) | (mode << 4) | ((item.sequence >> 8) & 0x0f));
  writer.u8(item.sequence & 0xff);
  writer.u8((OPTION_CRC << 4) | 1);
  writer.u8(crc8(ZERO, 0, 1, crc8(writer.bytes, 0, writer.position, CRC8_START)));
  return writer.bytes.slice(0, writer.position);
}

const ZERO = new Uint8Array(1);
