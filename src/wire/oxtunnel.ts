// Hot path.
/**
 * OxTunnel's datagrams: the data header in front of the ciphertext, its protection and its truncated counter, and
 * where the fields of the handshake messages lie (PROTOCOL §10, §12). Invariant: readers assume that
 * `oxtunnelLengthFits` has checked the length; nothing outside the datagram is read or written. No
 * cryptography: masks are arguments. No state.
 */

/** Set in the first byte of every OxTunnel datagram and of no WireGuard message (PROTOCOL R22). */
export const OXTUNNEL_BIT = 0x40;
/** With OXTUNNEL_BIT: a handshake message. Without this bit: data. */
export const LONG_FORM_BIT = 0x80;

export const OXTUNNEL_VERSION = 1;
export const KIND_INITIATION = 0xc1;
export const KIND_RESPONSE = 0xc2;
export const KIND_COOKIE_REPLY = 0xc3;

export const OX_TAG_BYTES = 16;
const MACS_BYTES = 32;
/** Flags, connection id and the shortest counter. */
export const SHORT_HEADER_MIN_BYTES = 6;
/** Flags, connection id and the longest counter. */
export const SHORT_HEADER_MAX_BYTES = 9;
/** A data datagram with an empty plaintext. */
export const OX_DATA_MIN_BYTES = SHORT_HEADER_MIN_BYTES + OX_TAG_BYTES;
/** The longest datagram that is opened: below 2^11, as the AEADs' limits require (PROTOCOL §15). */
export const OX_DATAGRAM_MAX_BYTES = 1936;
/** The most bytes of a datagram besides its plaintext. */
export const DATAGRAM_OVERHEAD_BYTES = SHORT_HEADER_MAX_BYTES + OX_TAG_BYTES;
/** Initiations are padded to this, so that no answer is longer than the initiation (PROTOCOL R27). */
export const OX_INITIATION_MIN_BYTES = 512;
export const OX_INITIATION_MAX_BYTES = 1200;
export const OX_RESPONSE_MAX_BYTES = OX_INITIATION_MIN_BYTES;
export const OX_COOKIE_REPLY_BYTES = 64;

// Offsets of handshake fields, from the start of the message.
export const OX_EARLY_BYTES_AT = 2;
export const OX_SENDER_AT = 4;
export const OX_INITIATION_EPHEMERAL_AT = 8;
export const OX_INITIATION_STATIC_AT = 40;
export const OX_INITIATION_PAYLOAD_AT = 88;
export const OX_RESPONSE_RECEIVER_AT = 8;
export const OX_RESPONSE_EPHEMERAL_AT = 12;
export const OX_RESPONSE_PAYLOAD_AT = 44;
export const OX_COOKIE_RECEIVER_AT = 4;
export const OX_COOKIE_NONCE_AT = 8;
export const OX_COOKIE_SEALED_AT = 32;
/** TAI64N in front of an initiation's parameters. */
export const OX_TIMESTAMP_BYTES = 12;

/** A response with no parameters. */
export const OX_RESPONSE_MIN_BYTES = OX_RESPONSE_PAYLOAD_AT + OX_TAG_BYTES + MACS_BYTES;

// Flags of the data header: 0 1 r M M K C C, the low six bits under header protection.
const MARK_SHIFT = 3, MARK_FLAGS = 0x18;
/** Flags that must be 0 in a session that marks real-time datagrams, and in any other (PROTOCOL R40). */
export const RESERVED_FLAGS_MARKED = 0x20, RESERVED_FLAGS_PLAIN = RESERVED_FLAGS_MARKED | MARK_FLAGS;
/** Marks of real-time datagrams, 1 to MARKS in turn; 0 marks nothing. */
export const MARKS = 3;
const KEY_PHASE_SHIFT = 2;
const COUNTER_LENGTH_MASK = 3;
const PROTECTED_FLAGS = 0x3f;
const UDP_IPV4_BYTES = 28;
const CONNECTION_ID_AT = 1;
const COUNTER_AT = 5;

/** Counters end here: 2^48 packets at 10 million a second take 325 days, and a session lives one day (PROTOCOL R41). */
export const COUNTER_LIMIT = 2 ** 48;
/** Unacknowledged counters at which a sender stops: beyond it a four-byte counter could be misread (PROTOCOL R42). */
export const DISTANCE_LIMIT = 2 ** 29;

/** Whether the datagram that starts with this byte is OxTunnel's; the only branch between the protocols. */
export function isOxtunnel(firstByte: number): boolean {
  return (firstByte & OXTUNNEL_BIT) !== 0;
}

export function isLongForm(firstByte: number): boolean {
  return (firstByte & LONG_FORM_BIT) !== 0;
}

/** Whether `length` bytes at `at` have a version, kind and size of the protocol (PROTOCOL R23, R24). */
export function oxtunnelLengthFits(view: DataView, at: number, length: number): boolean {
  if (length < OX_DATA_MIN_BYTES || length > OX_DATAGRAM_MAX_BYTES) return false;
  const first = view.getUint8(at);
  if (!isOxtunnel(first)) return false;
  if (!isLongForm(first)) return true;
  if (view.getUint8(at + 1) !== OXTUNNEL_VERSION) return false;
  const early = readEarlyBytes(view, at);
  if (first === KIND_INITIATION) {
    return length >= OX_INITIATION_MIN_BYTES && length <= OX_INITIATION_MAX_BYTES &&
      (early === 0 || early > OX_TAG_BYTES) && initiationPayloadBytes(view, at, length) >= 0;
  }
  // Only an initiation has early data; elsewhere the two bytes are zero.
  if (early !== 0) return false;
  if (first === KIND_RESPONSE) return length >= OX_RESPONSE_MIN_BYTES && length <= OX_RESPONSE_MAX_BYTES;
  return first === KIND_COOKIE_REPLY && length === OX_COOKIE_REPLY_BYTES;
}

/** Writes the first four bytes of a handshake message. `earlyBytes` counts the early data's tag; 0 is none. */
export function writeLongHeader(view: DataView, at: number, kind: number, earlyBytes: number): void {
  view.setUint8(at, kind);
  view.setUint8(at + 1, OXTUNNEL_VERSION);
  view.setUint16(at + OX_EARLY_BYTES_AT, earlyBytes, true);
}

/** Sealed bytes of early data in an initiation, its tag included. */
export function readEarlyBytes(view: DataView, at: number): number {
  return view.getUint16(at + OX_EARLY_BYTES_AT, true);
}

/** Plaintext bytes of an initiation's parameters, without timestamp and tag; negative when the message is too short. */
export function initiationPayloadBytes(view: DataView, at: number, length: number): number {
  return length - OX_INITIATION_PAYLOAD_AT - OX_TIMESTAMP_BYTES - OX_TAG_BYTES - readEarlyBytes(view, at) -
    MACS_BYTES;
}

/** Where MAC1 starts in an initiation or response; MAC2 follows it and ends the message. */
export function oxMac1At(length: number): number {
  return length - MACS_BYTES;
}

/** Connection id of a data datagram: the receiver's, whose top four bits name its Worker. Never protected. */
export function readConnectionId(view: DataView, at: number): number {
  return view.getUint32(at + CONNECTION_ID_AT, true);
}

/** Bytes in front of the ciphertext, 6 to 9, by unprotected flags. */
export function shortHeaderBytes(flags: number): number {
  return SHORT_HEADER_MIN_BYTES + (flags & COUNTER_LENGTH_MASK);
}

/** The key phase, 0 or 1, by unprotected flags. */
export function keyPhase(flags: number): number {
  return (flags >> KEY_PHASE_SHIFT) & 1;
}

/** In the column of key phases the number of a datagram's path lies above the phase (codec/kernels.ts). */
export const PATH_SHIFT = 1;

/** Whether bits of `reserved` (RESERVED_FLAGS_*) are set in unprotected flags; judged after opening (PROTOCOL R40). */
export function hasReservedFlags(flags: number, reserved: number): boolean {
  return (flags & reserved) !== 0;
}

/** The mark in unprotected flags, 0 to MARKS (PROTOCOL §12). */
export function readMark(flags: number): number {
  return (flags & MARK_FLAGS) >> MARK_SHIFT;
}

/** Adds a mark, 1 to MARKS, to the unprotected header at `at`, which has none. */
export function writeMark(view: DataView, at: number, mark: number): void {
  view.setUint8(at, view.getUint8(at) | mark << MARK_SHIFT);
}

/** The mark that follows `mark`, 1 to MARKS. */
export function nextMark(mark: number): number {
  return mark % MARKS + 1;
}

/**
 * Bytes that the truncated counter takes, 1 to 4, or 0 when the sender must stop (PROTOCOL R42): `counter` is
 * about to be sent and `acknowledged` is the highest that the other end has reported, -1 before the first. A
 * quarter of each half window is used, so that datagrams may also come late (RFC 9000 §17.1).
 */
export function counterBytes(counter: number, acknowledged: number): number {
  const distance = counter - acknowledged;
  if (distance < 2 ** 5) return 1;
  if (distance < 2 ** 13) return 2;
  if (distance < 2 ** 21) return 3;
  return distance < DISTANCE_LIMIT ? 4 : 0;
}

/**
 * Writes the unprotected data header, which is also the AEAD's associated data, and returns its length.
 * @param bytes counter bytes, 1 to 4. @param counter an integer below COUNTER_LIMIT.
 */
export function writeShortHeader(
  view: DataView,
  at: number,
  phase: number,
  connectionId: number,
  counter: number,
  bytes: number,
): number {
  view.setUint8(at, OXTUNNEL_BIT | (phase << KEY_PHASE_SHIFT) | (bytes - 1));
  view.setUint32(at + CONNECTION_ID_AT, connectionId, true);
  // ToUint32 keeps the low 32 bits; no more are sent.
  const low = counter >>> 0;
  for (let i = 0; i < bytes; i++) view.setUint8(at + COUNTER_AT + i, low >>> (8 * i));
  return COUNTER_AT + bytes;
}

/** The low bytes of the counter in an unprotected header. */
export function readTruncatedCounter(view: DataView, at: number): number {
  const bytes = (view.getUint8(at) & COUNTER_LENGTH_MASK) + 1;
  let low = 0;
  for (let i = 0; i < bytes; i++) low |= view.getUint8(at + COUNTER_AT + i) << (8 * i);
  return low >>> 0;
}

/**
 * The counter nearest to one above `highest` (-1 before the first) that ends in these low bytes, or -1 when it
 * would be COUNTER_LIMIT or more (RFC 9000 appendix A.3; PROTOCOL R41). Right only if the datagram opens.
 */
export function recoverCounter(truncated: number, bytes: number, highest: number): number {
  const expected = highest + 1;
  // The signed distance to the expected counter, in 32-bit arithmetic: % of doubles takes 20 ns.
  const shift = 32 - 8 * bytes;
  const candidate = expected - ((((expected >>> 0) - truncated) << shift) >> shift);
  if (candidate < 0) return candidate + 2 ** (8 * bytes);
  return candidate < COUNTER_LIMIT ? candidate : -1;
}

/** Bytes of a datagram on an IPv4 path, by its header's bytes and its plaintext's: with tag, UDP and IPv4 headers. */
export function outerBytes(headerBytes: number, bytes: number): number {
  return headerBytes + bytes + OX_TAG_BYTES + UDP_IPV4_BYTES;
}

/** Plaintext bytes of a data datagram by its unprotected flags; negative when header and tag do not fit (PROTOCOL R38). */
export function plaintextBytes(flags: number, length: number): number {
  return length - shortHeaderBytes(flags) - OX_TAG_BYTES;
}

/** Where the sample of header protection starts: the tag, the last 16 bytes of the datagram (PROTOCOL §12). */
export function sampleAt(at: number, length: number): number {
  return at + length - OX_TAG_BYTES;
}

/**
 * Takes header protection off (PROTOCOL §12): uncovers flags and counter of the header at `at` with the five mask bytes at
 * mask[maskAt]. Returns the flags.
 */
export function unprotectHeader(view: DataView, at: number, mask: Uint8Array, maskAt: number): number {
  const flags = view.getUint8(at) ^ (mask[maskAt] & PROTECTED_FLAGS);
  view.setUint8(at, flags);
  for (let i = 0; i <= (flags & COUNTER_LENGTH_MASK); i++) {
    const here = at + COUNTER_AT + i;
    view.setUint8(here, view.getUint8(here) ^ mask[maskAt + 1 + i]);
  }
  return flags;
}
