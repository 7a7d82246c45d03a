// Hot path.
/**
 * The messages of a speedtest (PROTOCOL §7): payloads of inner UDP between a client and the relay's own inner IPv4
 * address. Invariant: readers assume that `speedtestKind` has checked the packet, and read nothing outside it.
 * Answers nothing: that is done by ingress/speedtest.ts and by the client.
 */
import { IPV4_HEADER_BYTES, isFragment, PROTOCOL_UDP, UDP_HEADER_BYTES, writeIpv4Header } from "./inner.ts";

export const SPEEDTEST_PORT = 4433;
/** Asks for round trip and counts; the report is written over it. */
export const SPEEDTEST_ASK = 1;
/** A packet that is counted and not answered: the client's, or the relay's answer to a pull. */
export const SPEEDTEST_DATA = 2;
/** Asks for a number of packets of a size. */
export const SPEEDTEST_PULL = 3;
export const SPEEDTEST_REPORT = 4;
/** In place of a report: too many peers measure now, or this peer's 30 s are used up. */
export const SPEEDTEST_BUSY = 5;

/** Bytes of UDP payload of every message but data, and the least for data. */
export const SPEEDTEST_BYTES = 48;
export const SPEEDTEST_PACKET_BYTES = IPV4_HEADER_BYTES + UDP_HEADER_BYTES + SPEEDTEST_BYTES;
/** Packets that one pull may ask for. */
export const PULL_MAX = 32;
/** The longest packet of data. */
export const SPEEDTEST_PACKET_BYTES_MAX = 1900;
/** The filling of data, the same in each packet: incompressible, and it overwrites what the buffer held before. */
export const SPEEDTEST_FILLING = new Uint8Array(SPEEDTEST_PACKET_BYTES_MAX);
for (let i = 0, state = 1; i < SPEEDTEST_FILLING.length; i++) {
  state ^= state << 13; // xorshift32
  state ^= state >>> 17;
  state ^= state << 5;
  SPEEDTEST_FILLING[i] = state >>> 24;
}
const MAGIC = 0x4f585354;
const BODY_AT = IPV4_HEADER_BYTES + UDP_HEADER_BYTES;
const KIND_AT = BODY_AT + 4, COUNT_AT = BODY_AT + 5, SIZE_AT = BODY_AT + 6, RUN_AT = BODY_AT + 8;
const SEQUENCE_AT = BODY_AT + 12,
  TIME_AT = BODY_AT + 16,
  RECEIVED_AT = BODY_AT + 20,
  BYTES_LOW_AT = BODY_AT + 24;
const BYTES_HIGH_AT = BODY_AT + 28,
  HIGHEST_AT = BODY_AT + 32,
  CLOCK_AT = BODY_AT + 36,
  JITTER_AT = BODY_AT + 40;

/** The kind of speedtest message in a whole inner packet, found by its destination or source; 0 when it is none. */
export function speedtestKind(view: DataView, at: number, length: number): number {
  if (length < SPEEDTEST_PACKET_BYTES || view.getUint8(at) !== 0x45 || isFragment(view, at, length)) return 0;
  if (view.getUint8(at + 9) !== PROTOCOL_UDP || view.getUint32(at + BODY_AT) !== MAGIC) return 0;
  const port = at + IPV4_HEADER_BYTES;
  if (view.getUint16(port) !== SPEEDTEST_PORT && view.getUint16(port + 2) !== SPEEDTEST_PORT) return 0;
  return view.getUint8(at + KIND_AT);
}

/** Whether the packet goes to the speedtest's port, and not from it. */
export function isForSpeedtest(view: DataView, at: number): boolean {
  return view.getUint16(at + IPV4_HEADER_BYTES + 2) === SPEEDTEST_PORT;
}

export function readCount(view: DataView, at: number): number {
  return view.getUint8(at + COUNT_AT);
}

/** Bytes of the inner packets that a pull asks for. */
export function readSize(view: DataView, at: number): number {
  return view.getUint16(at + SIZE_AT);
}

/** The client's number for one measurement; a new number resets the counts. */
export function readRun(view: DataView, at: number): number {
  return view.getUint32(at + RUN_AT);
}

/** The sequence number: of data, counted in each direction; of asks and pulls, repeated by their answers. */
export function readSequenceOf(view: DataView, at: number): number {
  return view.getUint32(at + SEQUENCE_AT);
}

/** The sender's clock in microseconds, modulo 2^32; in a report, that of the ask. */
export function readTime(view: DataView, at: number): number {
  return view.getUint32(at + TIME_AT);
}

/** Of a report: packets and bytes of received data, highest sequence number, arrival time of the last, jitter. */
export function readReceived(view: DataView, at: number): number {
  return view.getUint32(at + RECEIVED_AT);
}

export function readReceivedBytes(view: DataView, at: number): number {
  return view.getUint32(at + BYTES_HIGH_AT) * 4294967296 + view.getUint32(at + BYTES_LOW_AT);
}

export function readHighest(view: DataView, at: number): number {
  return view.getUint32(at + HIGHEST_AT);
}

export function readClock(view: DataView, at: number): number {
  return view.getUint32(at + CLOCK_AT);
}

export function readJitter(view: DataView, at: number): number {
  return view.getUint32(at + JITTER_AT);
}

/**
 * Writes a packet of `length` bytes from and to IPv4 addresses as u32, without UDP checksum (RFC 768). For data,
 * `answered` is the sequence number of the pull that the data answers.
 */
export function writeSpeedtest(
  view: DataView,
  at: number,
  length: number,
  from: number,
  fromPort: number,
  to: number,
  toPort: number,
  kind: number,
  run: number,
  sequence: number,
  timeUs: number,
  answered: number,
): void {
  writeIpv4Header(view, at, length, 0, 0x4000, PROTOCOL_UDP, from, to);
  const udp = at + IPV4_HEADER_BYTES;
  view.setUint16(udp, fromPort);
  view.setUint16(udp + 2, toPort);
  view.setUint16(udp + 4, length - IPV4_HEADER_BYTES);
  view.setUint16(udp + 6, 0);
  view.setUint32(at + BODY_AT, MAGIC);
  view.setUint8(at + KIND_AT, kind);
  view.setUint8(at + COUNT_AT, 0);
  view.setUint16(at + SIZE_AT, 0);
  view.setUint32(at + RUN_AT, run);
  view.setUint32(at + SEQUENCE_AT, sequence);
  view.setUint32(at + TIME_AT, timeUs);
  view.setUint32(at + HIGHEST_AT, answered);
}

/** Turns a packet that `writeSpeedtest` wrote into a pull. */
export function writePull(view: DataView, at: number, count: number, size: number): void {
  view.setUint8(at + COUNT_AT, count);
  view.setUint16(at + SIZE_AT, size);
}

/** Turns an ask in place into its report, or into "busy"; the clock of the ask stays in it. */
export function turnAround(view: DataView, at: number, kind: number): void {
  const source = view.getUint32(at + 12), port = view.getUint16(at + IPV4_HEADER_BYTES);
  const length = view.getUint16(at + 2);
  const run = readRun(view, at), sequence = readSequenceOf(view, at), timeUs = readTime(view, at);
  const own = view.getUint32(at + 16);
  writeSpeedtest(view, at, length, own, SPEEDTEST_PORT, source, port, kind, run, sequence, timeUs, 0);
}

/** Writes the received counts into a report. */
export function writeReceived(
  view: DataView,
  at: number,
  received: number,
  bytes: number,
  highest: number,
  clockUs: number,
  jitterUs: number,
): void {
  view.setUint32(at + RECEIVED_AT, received);
  view.setUint32(at + BYTES_LOW_AT, bytes);
  view.setUint32(at + BYTES_HIGH_AT, Math.floor(bytes / 4294967296));
  view.setUint32(at + HIGHEST_AT, highest);
  view.setUint32(at + CLOCK_AT, clockUs);
  view.setUint32(at + JITTER_AT, jitterUs);
}
