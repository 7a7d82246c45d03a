// Hot path.
/**
 * WireGuard's four messages: where their fields lie and how to read and write them in place (PROTOCOL §2).
 * Invariant: readers assume that the caller has checked the length with the *_BYTES constants. No cryptography,
 * no state.
 * Keeps PROTOCOL R3.
 */

export const TYPE_INITIATION = 1;
export const TYPE_RESPONSE = 2;
export const TYPE_COOKIE_REPLY = 3;
export const TYPE_DATA = 4;

export const INITIATION_BYTES = 148;
export const RESPONSE_BYTES = 92;
export const COOKIE_REPLY_BYTES = 64;
/** Type, receiver index and counter in front of the ciphertext. */
export const DATA_HEADER_BYTES = 16;
export const TAG_BYTES = 16;
/** The shortest data message: a keepalive, an empty plaintext with its tag. */
export const KEEPALIVE_BYTES = DATA_HEADER_BYTES + TAG_BYTES;
/** Plaintexts are padded with zeros to a multiple of this (whitepaper §5.4.6). */
export const PADDING_BYTES = 16;

// Offsets of fields, from the start of the message.
export const SENDER_AT = 4;
export const INITIATION_EPHEMERAL_AT = 8;
export const INITIATION_STATIC_AT = 40;
export const INITIATION_TIMESTAMP_AT = 88;
export const INITIATION_MAC1_AT = 116;
export const RESPONSE_RECEIVER_AT = 8;
export const RESPONSE_EPHEMERAL_AT = 12;
export const RESPONSE_EMPTY_AT = 44;
export const RESPONSE_MAC1_AT = 60;
export const COOKIE_RECEIVER_AT = 4;
export const COOKIE_NONCE_AT = 8;
export const COOKIE_SEALED_AT = 32;
export const MAC_BYTES = 16;

/** The message type, or 0 when the three reserved bytes are not zero. */
export function readType(view: DataView, at: number): number {
  const word = view.getUint32(at, true);
  return word <= TYPE_DATA ? word : 0;
}

export function writeType(view: DataView, at: number, type: number): void {
  view.setUint32(at, type, true);
}

/** Sender index of an initiation or response. */
export function readSender(view: DataView, at: number): number {
  return view.getUint32(at + SENDER_AT, true);
}

/** Receiver index of a data message or a cookie reply. */
export function readReceiver(view: DataView, at: number): number {
  return view.getUint32(at + 4, true);
}

export function readResponseReceiver(view: DataView, at: number): number {
  return view.getUint32(at + RESPONSE_RECEIVER_AT, true);
}

/** The counter of a data message as a Number, or -1 when it is 2^53 or more, which no session reaches (PROTOCOL R3). */
export function readCounter(view: DataView, at: number): number {
  const high = view.getUint32(at + 12, true);
  return high >= 0x200000 ? -1 : high * 4294967296 + view.getUint32(at + 8, true);
}

/** Writes the 16 bytes in front of a data message's ciphertext. `counter` is an integer below 2^53. */
export function writeDataHeader(view: DataView, at: number, receiver: number, counter: number): void {
  view.setUint32(at, TYPE_DATA, true);
  view.setUint32(at + 4, receiver, true);
  view.setUint32(at + 8, counter >>> 0, true);
  view.setUint32(at + 12, Math.floor(counter / 4294967296), true);
}

/** The length that a plaintext has after padding, which never exceeds `mtu` (whitepaper §5.4.6). */
export function paddedLength(length: number, mtu: number): number {
  const padded = (length + PADDING_BYTES - 1) & -PADDING_BYTES;
  return padded > mtu && length <= mtu ? mtu : padded;
}
