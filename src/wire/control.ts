// Hot path.
/**
 * The bodies of OxTunnel's control frames, in place (PROTOCOL §14): which are well-formed, and the fields of all but reports,
 * which are report.ts's. Invariant: readers assume that `controlFits`
 * has vouched for the body, and read nothing outside it; writers return the bytes that they wrote, the frame's head included.
 * Long because it has every other frame's fields. Decides nothing: the session answers frames.
 */
import { areContexts } from "./contexts.ts";
import { isIpv4 } from "./address.ts";
import { FRAME_CONTROL, FRAME_HEAD_BYTES, writeFrameHead } from "./frame.ts";

export const CONTROL_PING = 0x01;
export const CONTROL_PONG = 0x02;
export const CONTROL_REPORT = 0x03;
export const CONTROL_PATH_CHALLENGE = 0x04;
export const CONTROL_PATH_RESPONSE = 0x05;
export const CONTROL_PROBE = 0x06;
export const CONTROL_PROBE_REPLY = 0x07;
export const CONTROL_KEY_EXCHANGE = 0x08;
export const CONTROL_CLOSE = 0x09;
export const CONTROL_ACK = 0x0a;
export const CONTROL_REQUEST = 0x0b;
export const CONTROL_DEADLINE = 0x0c;
/** Definitions of header contexts that have come. */
export const CONTROL_CONTEXTS = 0x0d;
/** ROHC feedback on packets that could not be decompressed. */
export const CONTROL_ROHC = 0x0e;
/** Kinds from here to 0x3f carry a sequence number and are repeated until they are acknowledged. */
export const FIRST_RELIABLE = 0x20;
export const CONTROL_HINT = 0x20;
export const CONTROL_CONNECTION_IDS = 0x21;
export const CONTROL_CONFIG = 0x22;
export const CONTROL_TICKET = 0x23;
export const CONTROL_PATH_IDS = 0x24;
export const CONTROL_PATH_STATUS = 0x25;
const LAST_RELIABLE = 0x3f;

export const KEY_REQUEST = 0;
export const KEY_ANSWER = 1;
/** A key exchange without ML-KEM-768: an X25519 public key. */
export const KEY_CLASSIC_BYTES = 32;
/** X25519 public key and ML-KEM-768 encapsulation key (FIPS 203). */
export const KEY_REQUEST_HYBRID_BYTES = 32 + 1184;
/** X25519 public key and ML-KEM-768 ciphertext. */
export const KEY_ANSWER_HYBRID_BYTES = 32 + 1088;
/** Parts of a key exchange lie on this grid, so that each has its place whatever order they come in. */
export const KEY_PART_BYTES = 512;
export const KEY_PART_AT = 10;

export const CLOSE_SHUTDOWN = 1;
export const CLOSE_DRAINING = 2;
export const CLOSE_REMOVED = 3;
export const CLOSE_REPLACED = 4;
export const CLOSE_PROTOCOL = 5;
export const CLOSE_LIMIT = 6;

/** Path numbers of a session, 0 to PATHS_MAX - 1; 0 is the path of the handshake. */
export const PATHS_MAX = 8;
export const PATH_STANDBY = 0;
export const PATH_AVAILABLE = 1;
export const PATH_PREFERRED = 2;
export const PATH_CLOSED = 3;
export const COST_METERED = 1;

export const CLASS_DEFAULT = 0;
export const CLASS_GAME = 1;
export const CLASS_VOICE = 2;
export const CLASS_INTERACTIVE = 3;
export const CLASS_BULK = 4;

/** Connection ids in one frame. */
export const CONNECTION_IDS_MAX = 4;
export const CONFIG_PARAMETERS_AT = 3;
/** The longest parameters of a config frame; it fits the smallest datagram. */
export const CONFIG_PARAMETERS_MAX_BYTES = 512;
export const TICKET_SECRET_AT = 7;
export const TICKET_SECRET_BYTES = 32;
export const TICKET_AT = 39;
export const TICKET_MAX_BYTES = 192;

// A report's body: fixed fields, bitmap, then the sections that its second byte announces (PROTOCOL §14).
export const REPORT_BITMAP_MAX_BYTES = 32;
export const REPORT_ARRIVALS_MAX = 64;
export const LOSS_RUN_CLASSES = 5;
export const REPORT_FIXED_BYTES = 15;
export const SECTION_ECN = 1;
export const SECTION_QUALITY = 2;
export const SECTION_ARRIVALS = 4;
export const SECTION_CLOCK = 8;
export const ECN_BYTES = 12;
export const REPORT_CLOCK_BYTES = 2;
export const REPORT_QUALITY_BYTES = 20;
/** The longest report's body. */
export const REPORT_MAX_BYTES = REPORT_FIXED_BYTES + REPORT_BITMAP_MAX_BYTES + ECN_BYTES +
  REPORT_QUALITY_BYTES + 1 + 2 * REPORT_ARRIVALS_MAX + REPORT_CLOCK_BYTES;
const PONG_HELD_MAX_US = 0xffffffff;
// A request's body: kind, path, then entries (PROTOCOL §14).
export const REQUEST_FIXED_BYTES = 2;
export const REQUEST_ENTRY_BYTES = 4;
export const REQUEST_ENTRIES_MAX = 8;
/** Datagrams of one entry: a run of a game's packets that is longer than this is older than they are of use. */
export const REQUEST_RUN_MAX = 32;
export const REQUEST_MAX_BYTES = REQUEST_FIXED_BYTES + REQUEST_ENTRIES_MAX * REQUEST_ENTRY_BYTES;
/** Kind, and 16 contexts with a number and a generation each. */
export const CONTEXTS_FRAME_BYTES_MAX = 33;
/** Kind, and feedback. */
export const ROHC_FRAME_BYTES_MAX = 100;

const HINT_ADDRESSES_AT = 11;
const HINT_IPV4_BYTES = HINT_ADDRESSES_AT + 8;
const HINT_IPV6_BYTES = HINT_ADDRESSES_AT + 32;

/** The kind of a control frame whose body starts at `at`. */
export function controlKind(view: DataView, at: number): number {
  return view.getUint8(at);
}

/** Whether the kind carries a sequence number: it is answered by an ack even when it is not known. */
export function isReliable(kind: number): boolean {
  return kind >= FIRST_RELIABLE && kind <= LAST_RELIABLE;
}

/** Whether a control frame's body of `length` bytes has the length its kind demands (PROTOCOL R52). */
export function controlFits(view: DataView, at: number, length: number): boolean {
  if (length < 1) return false;
  const kind = view.getUint8(at);
  switch (kind) {
    case CONTROL_PING:
      return length === 5;
    case CONTROL_PONG:
    case CONTROL_PATH_CHALLENGE:
    case CONTROL_PATH_RESPONSE:
      return length === 9;
    case CONTROL_REPORT:
      return reportFits(view, at, length);
    case CONTROL_PROBE:
    case CONTROL_PROBE_REPLY:
    case CONTROL_ACK:
      return length === 3;
    case CONTROL_DEADLINE:
      return length === 3 && view.getUint16(at + 1, true) > 0;
    case CONTROL_REQUEST:
      return requestFits(view, at, length);
    case CONTROL_KEY_EXCHANGE:
      return keyExchangeFits(view, at, length);
    case CONTROL_CLOSE:
      return length === 4;
    case CONTROL_CONTEXTS:
      return length >= 3 && length <= CONTEXTS_FRAME_BYTES_MAX && areContexts(view, at + 1, at + length);
    case CONTROL_ROHC:
      return length >= 3 && length <= ROHC_FRAME_BYTES_MAX;
    case CONTROL_HINT:
      return length === HINT_IPV4_BYTES || length === HINT_IPV6_BYTES;
    case CONTROL_CONNECTION_IDS:
      return length >= 11 && length <= 7 + 4 * CONNECTION_IDS_MAX && (length - 7) % 4 === 0;
    case CONTROL_PATH_IDS:
      return length >= 12 && length <= 8 + 4 * CONNECTION_IDS_MAX && (length - 8) % 4 === 0 &&
        isFurtherPath(readPathNumber(view, at));
    case CONTROL_PATH_STATUS:
      return length === 7 && readPathNumber(view, at) < PATHS_MAX && readPathStatus(view, at) <= PATH_CLOSED;
    case CONTROL_CONFIG:
      return length >= CONFIG_PARAMETERS_AT && length <= CONFIG_PARAMETERS_AT + CONFIG_PARAMETERS_MAX_BYTES;
    case CONTROL_TICKET:
      return length > TICKET_AT && length <= TICKET_AT + TICKET_MAX_BYTES;
    default:
      return !isReliable(kind) || length >= 3;
  }
}

/** Writes head and kind of a control frame with a body of `length` bytes, kind included; returns where the body starts. */
export function writeControl(view: DataView, at: number, kind: number, length: number): number {
  const body = writeFrameHead(view, at, FRAME_CONTROL, length);
  view.setUint8(body, kind);
  return body;
}

/** `token` is a u32 that the other end repeats: the sender's clock in microseconds, so that it keeps no table. */
export function writePing(view: DataView, at: number, token: number): number {
  const body = writeControl(view, at, CONTROL_PING, 5);
  view.setUint32(body + 1, token, true);
  return FRAME_HEAD_BYTES + 5;
}

/** `heldUs`: microseconds between the ping's arrival and this answer. */
export function writePong(view: DataView, at: number, token: number, heldUs: number): number {
  const body = writeControl(view, at, CONTROL_PONG, 9);
  view.setUint32(body + 1, token, true);
  view.setUint32(body + 5, Math.min(heldUs, PONG_HELD_MAX_US), true);
  return FRAME_HEAD_BYTES + 9;
}

/** Token of a ping or pong. */
export function readToken(view: DataView, at: number): number {
  return view.getUint32(at + 1, true);
}

export function readHeldUs(view: DataView, at: number): number {
  return view.getUint32(at + 5, true);
}

/** A path challenge or response; its eight random bytes are two words. */
export function writePath(view: DataView, at: number, kind: number, low: number, high: number): number {
  const body = writeControl(view, at, kind, 9);
  view.setUint32(body + 1, low, true);
  view.setUint32(body + 5, high, true);
  return FRAME_HEAD_BYTES + 9;
}

export function readPathLow(view: DataView, at: number): number {
  return view.getUint32(at + 1, true);
}

export function readPathHigh(view: DataView, at: number): number {
  return view.getUint32(at + 5, true);
}

/** A probe, its reply, an ack or a deadline: one u16, the datagram's size in bytes, the sequence number or milliseconds. */
export function writeShort(view: DataView, at: number, kind: number, value: number): number {
  const body = writeControl(view, at, kind, 3);
  view.setUint16(body + 1, value, true);
  return FRAME_HEAD_BYTES + 3;
}

/** Size of a probe or its reply. */
export function readSize(view: DataView, at: number): number {
  return view.getUint16(at + 1, true);
}

/** Milliseconds after which a marked packet is of no more use, 1 to 65535. */
export function readDeadlineMs(view: DataView, at: number): number {
  return view.getUint16(at + 1, true);
}

/** Writes a request's head, kind and path number for `entries` entries, 1 to REQUEST_ENTRIES_MAX; returns where these go. */
export function writeRequest(view: DataView, at: number, path: number, entries: number): number {
  const length = REQUEST_FIXED_BYTES + REQUEST_ENTRY_BYTES * entries;
  const body = writeControl(view, at, CONTROL_REQUEST, length);
  view.setUint8(body + 1, path);
  return body + REQUEST_FIXED_BYTES;
}

/** Writes one entry: the `first`-th to (first + count - 1)-th marked datagrams behind the marked one with `counter`. */
export function writeRequestEntry(
  view: DataView,
  at: number,
  counter: number,
  first: number,
  count: number,
): number {
  view.setUint16(at, counter % 65536, true);
  view.setUint8(at + 2, first);
  view.setUint8(at + 3, count);
  return at + REQUEST_ENTRY_BYTES;
}

/** Number of the path whose counters a request names. */
export function readRequestPath(view: DataView, at: number): number {
  return view.getUint8(at + 1);
}

/** Entries of a request whose body has `length` bytes. */
export function requestEntries(length: number): number {
  return (length - REQUEST_FIXED_BYTES) / REQUEST_ENTRY_BYTES;
}

/** Low 16 bits of the i-th entry's counter. */
export function readRequestCounter(view: DataView, at: number, i: number): number {
  return view.getUint16(at + REQUEST_FIXED_BYTES + REQUEST_ENTRY_BYTES * i, true);
}

export function readRequestFirst(view: DataView, at: number, i: number): number {
  return view.getUint8(at + REQUEST_FIXED_BYTES + REQUEST_ENTRY_BYTES * i + 2);
}

export function readRequestCount(view: DataView, at: number, i: number): number {
  return view.getUint8(at + REQUEST_FIXED_BYTES + REQUEST_ENTRY_BYTES * i + 3);
}

function requestFits(view: DataView, at: number, length: number): boolean {
  const entries = requestEntries(length);
  if (!Number.isInteger(entries) || entries < 1 || entries > REQUEST_ENTRIES_MAX) return false;
  for (let i = 0; i < entries; i++) {
    const count = readRequestCount(view, at, i);
    if (readRequestFirst(view, at, i) === 0 || count === 0 || count > REQUEST_RUN_MAX) return false;
  }
  return true;
}

/** Sequence number of an ack or of a reliable frame. */
export function readSequence(view: DataView, at: number): number {
  return view.getUint16(at + 1, true);
}

/** @param reason CLOSE_*. @param retryAfterS seconds, 0 to 65535; 0 is never. */
export function writeClose(view: DataView, at: number, reason: number, retryAfterS: number): number {
  const body = writeControl(view, at, CONTROL_CLOSE, 4);
  view.setUint8(body + 1, reason);
  view.setUint16(body + 2, retryAfterS, true);
  return FRAME_HEAD_BYTES + 4;
}

export function readCloseReason(view: DataView, at: number): number {
  return view.getUint8(at + 1);
}

export function readRetryAfterS(view: DataView, at: number): number {
  return view.getUint16(at + 2, true);
}

/** Writes everything of a key exchange's part but its bytes, and returns where these go; see `keyPartBytes`. */
export function writeKeyExchange(
  view: DataView,
  at: number,
  role: number,
  epoch: number,
  totalBytes: number,
  offset: number,
): number {
  const body = writeControl(view, at, CONTROL_KEY_EXCHANGE, KEY_PART_AT + keyPartBytes(totalBytes, offset));
  view.setUint8(body + 1, role);
  view.setUint32(body + 2, epoch, true);
  view.setUint16(body + 6, totalBytes, true);
  view.setUint16(body + 8, offset, true);
  return body + KEY_PART_AT;
}

/** Bytes of the part at `offset`, a multiple of KEY_PART_BYTES below `totalBytes`. */
export function keyPartBytes(totalBytes: number, offset: number): number {
  return Math.min(KEY_PART_BYTES, totalBytes - offset);
}

/** KEY_REQUEST or KEY_ANSWER. */
export function readKeyRole(view: DataView, at: number): number {
  return view.getUint8(at + 1);
}

/** The epoch that the exchange makes. */
export function readKeyEpoch(view: DataView, at: number): number {
  return view.getUint32(at + 2, true);
}

export function readKeyTotalBytes(view: DataView, at: number): number {
  return view.getUint16(at + 6, true);
}

export function readKeyOffset(view: DataView, at: number): number {
  return view.getUint16(at + 8, true);
}

function keyExchangeFits(view: DataView, at: number, length: number): boolean {
  if (length <= KEY_PART_AT) return false;
  const role = readKeyRole(view, at);
  const total = readKeyTotalBytes(view, at);
  const offset = readKeyOffset(view, at);
  if (role !== KEY_REQUEST && role !== KEY_ANSWER) return false;
  const hybrid = role === KEY_REQUEST ? KEY_REQUEST_HYBRID_BYTES : KEY_ANSWER_HYBRID_BYTES;
  return (total === KEY_CLASSIC_BYTES || total === hybrid) && offset < total &&
    offset % KEY_PART_BYTES === 0 &&
    length === KEY_PART_AT + keyPartBytes(total, offset);
}

/** Writes head, kind and sequence of a reliable frame with `length` more bytes; returns where these go. */
export function writeReliable(
  view: DataView,
  at: number,
  kind: number,
  sequence: number,
  length: number,
): number {
  const body = writeControl(view, at, kind, 3 + length);
  view.setUint16(body + 1, sequence, true);
  return body + 3;
}

/**
 * Ids first[0..count-1], 1 to 4, whose numbers start at `firstNumber`; ids with lower numbers than `retireBefore`
 * are no longer to be used. Numbers are 0 to 65535 and do not wrap in a session's life.
 */
export function writeConnectionIds(
  view: DataView,
  at: number,
  sequence: number,
  firstNumber: number,
  retireBefore: number,
  ids: Uint32Array,
  count: number,
): number {
  const body = writeReliable(view, at, CONTROL_CONNECTION_IDS, sequence, 4 + 4 * count);
  view.setUint16(body, firstNumber, true);
  view.setUint16(body + 2, retireBefore, true);
  for (let i = 0; i < count; i++) view.setUint32(body + 4 + 4 * i, ids[i], true);
  return FRAME_HEAD_BYTES + 7 + 4 * count;
}

function isFurtherPath(number: number): boolean {
  return number > 0 && number < PATHS_MAX;
}

/** The path that path ids or a path status are about. */
export function readPathNumber(view: DataView, at: number): number {
  return view.getUint8(at + 3);
}

/** PATH_*. */
export function readPathStatus(view: DataView, at: number): number {
  return view.getUint8(at + 4);
}

/** Ids ids[0..count-1], 1 to 4, of the path `path`, 1 to 7, whose numbers start at `firstNumber`; as `writeConnectionIds`. */
export function writePathIds(
  view: DataView,
  at: number,
  sequence: number,
  path: number,
  firstNumber: number,
  retireBefore: number,
  ids: Uint32Array,
  count: number,
): number {
  const body = writeReliable(view, at, CONTROL_PATH_IDS, sequence, 5 + 4 * count);
  view.setUint8(body, path);
  view.setUint16(body + 1, firstNumber, true);
  view.setUint16(body + 3, retireBefore, true);
  for (let i = 0; i < count; i++) view.setUint32(body + 5 + 4 * i, ids[i], true);
  return FRAME_HEAD_BYTES + 8 + 4 * count;
}

/** Ids in a frame of path ids, 1 to 4. */
export function pathIdCount(length: number): number {
  return (length - 8) / 4;
}

export function readFirstPathIdNumber(view: DataView, at: number): number {
  return view.getUint16(at + 4, true);
}

export function readRetirePathIdsBefore(view: DataView, at: number): number {
  return view.getUint16(at + 6, true);
}

/** @param i 0 to pathIdCount - 1. */
export function readNewPathId(view: DataView, at: number, i: number): number {
  return view.getUint32(at + 8 + 4 * i, true);
}

/** @param path 0 to 7. @param status PATH_*. @param cost 0 or COST_METERED. @param classes bit c for CLASS_* c. */
export function writePathStatus(
  view: DataView,
  at: number,
  sequence: number,
  path: number,
  status: number,
  cost: number,
  classes: number,
): number {
  const body = writeReliable(view, at, CONTROL_PATH_STATUS, sequence, 4);
  view.setUint8(body, path);
  view.setUint8(body + 1, status);
  view.setUint8(body + 2, cost);
  view.setUint8(body + 3, classes);
  return FRAME_HEAD_BYTES + 7;
}

export function readPathCost(view: DataView, at: number): number {
  return view.getUint8(at + 5);
}

/** Classes whose packets are wanted on a second path too: bit c for CLASS_* c. */
export function readPathClasses(view: DataView, at: number): number {
  return view.getUint8(at + 6);
}

/** Ids in the frame, 1 to 4. */
export function connectionIdCount(length: number): number {
  return (length - 7) / 4;
}

export function readFirstIdNumber(view: DataView, at: number): number {
  return view.getUint16(at + 3, true);
}

export function readRetireBefore(view: DataView, at: number): number {
  return view.getUint16(at + 5, true);
}

/** @param i 0 to connectionIdCount - 1. */
export function readNewConnectionId(view: DataView, at: number, i: number): number {
  return view.getUint32(at + 7 + 4 * i, true);
}

/** Writes a ticket frame's life and secret; returns where the ticket of `ticketBytes`, 1 to 192, goes. */
export function writeTicket(
  view: DataView,
  at: number,
  sequence: number,
  lifeS: number,
  secret: Uint8Array,
  ticketBytes: number,
): number {
  const body = writeReliable(view, at, CONTROL_TICKET, sequence, TICKET_AT - 3 + ticketBytes);
  view.setUint32(body, lifeS, true);
  for (let i = 0; i < TICKET_SECRET_BYTES; i++) view.setUint8(body + 4 + i, secret[i]);
  return body + 4 + TICKET_SECRET_BYTES;
}

export function readTicketLifeS(view: DataView, at: number): number {
  return view.getUint32(at + 3, true);
}

/** Which class a flow shall have, by the client's wish. Addresses are as in address.ts, both of one version. */
export class Hint {
  sequence = 0;
  /** CLASS_*, or a number that the receiver takes as CLASS_DEFAULT. */
  trafficClass = 0;
  /** IP protocol number; 0 is any. */
  protocol = 0;
  /** 1 to 65535 seconds. 0 takes the hint back. */
  lifetimeS = 0;
  /** 0 is any, for both ports. */
  clientPort = 0;
  remotePort = 0;
  readonly client = new Uint32Array(4);
  readonly remote = new Uint32Array(4);

  read(view: DataView, at: number, length: number): void {
    this.sequence = readSequence(view, at);
    this.trafficClass = view.getUint8(at + 3);
    this.protocol = view.getUint8(at + 4);
    this.lifetimeS = view.getUint16(at + 5, true);
    this.clientPort = view.getUint16(at + 7, true);
    this.remotePort = view.getUint16(at + 9, true);
    const words = length === HINT_IPV4_BYTES ? 1 : 4;
    readWords(view, at + HINT_ADDRESSES_AT, words, this.client);
    readWords(view, at + HINT_ADDRESSES_AT + 4 * words, words, this.remote);
  }

  write(view: DataView, at: number): number {
    const words = isIpv4(this.client) && isIpv4(this.remote) ? 1 : 4;
    const length = HINT_ADDRESSES_AT + 8 * words;
    const body = writeReliable(view, at, CONTROL_HINT, this.sequence, length - 3);
    view.setUint8(body, this.trafficClass);
    view.setUint8(body + 1, this.protocol);
    view.setUint16(body + 2, this.lifetimeS, true);
    view.setUint16(body + 4, this.clientPort, true);
    view.setUint16(body + 6, this.remotePort, true);
    writeWords(view, body + 8, words, this.client);
    writeWords(view, body + 8 + 4 * words, words, this.remote);
    return FRAME_HEAD_BYTES + length;
  }
}

/** Addresses are in network order, as in the packets that they are compared with. */
function readWords(view: DataView, at: number, count: number, words: Uint32Array): void {
  words[0] = 0;
  words[1] = 0;
  words[2] = 0xffff;
  for (let i = 0; i < count; i++) words[4 - count + i] = view.getUint32(at + 4 * i);
}

function writeWords(view: DataView, at: number, count: number, words: Uint32Array): void {
  for (let i = 0; i < count; i++) view.setUint32(at + 4 * i, words[4 - count + i]);
}

/** Whether the bitmap and the sections that a report announces fit it; bytes behind them are a later version's. */
function reportFits(view: DataView, at: number, length: number): boolean {
  if (length < REPORT_FIXED_BYTES) return false;
  const sections = view.getUint8(at + 1);
  const bitmapBytes = view.getUint8(at + 14);
  let needed = REPORT_FIXED_BYTES + bitmapBytes;
  if (bitmapBytes > REPORT_BITMAP_MAX_BYTES || needed > length) return false;
  if ((sections & SECTION_ECN) !== 0) needed += ECN_BYTES;
  if ((sections & SECTION_QUALITY) !== 0) needed += REPORT_QUALITY_BYTES;
  if ((sections & SECTION_CLOCK) !== 0) length -= REPORT_CLOCK_BYTES; // behind the arrivals
  if ((sections & SECTION_ARRIVALS) === 0) return needed <= length;
  if (needed >= length) return false;
  const arrivals = view.getUint8(at + needed);
  return arrivals > 0 && arrivals <= REPORT_ARRIVALS_MAX && needed + 1 + 2 * arrivals <= length &&
    arrivals <= bitsSet(view, at + REPORT_FIXED_BYTES, bitmapBytes);
}

function bitsSet(view: DataView, at: number, bytes: number): number {
  let count = 0;
  for (let i = 0; i < bytes; i++) {
    for (let rest = view.getUint8(at + i); rest !== 0; rest &= rest - 1) count++;
  }
  return count;
}

/** Writes that definitions and anchors have come: `bytes` octets of their entries, at most 32. */
export function writeContexts(view: DataView, at: number, entries: Uint8Array, bytes: number): number {
  const body = writeControl(view, at, CONTROL_CONTEXTS, 1 + bytes);
  for (let i = 0; i < bytes; i++) view.setUint8(body + 1 + i, entries[i]);
  return FRAME_HEAD_BYTES + 1 + bytes;
}
