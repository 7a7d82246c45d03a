/**
 * OxTunnel's datagrams on a stream (PROTOCOL §9): each preceded by its length, and the address that represents a connection
 * inside the program. Invariant: that address lies in the discard prefix 100::/64 (RFC 6666), which is not routed, so no
 * host has it. Opens no connection.
 * Keeps PROTOCOL R86 and R89.
 */
import { parseAddress } from "./address.ts";
import { isOxtunnel, OX_DATA_MIN_BYTES, OX_DATAGRAM_MAX_BYTES } from "./oxtunnel.ts";

/** The length in front of each datagram. */
export const STREAM_HEAD_BYTES = 2;

/** The port of such an address, without meaning; not 0, because port 0 means no endpoint. */
export const STREAM_PORT_NUMBER = 443;

/** First two words of 100::/64. */
const DISCARD_HIGH = 0x01000000, DISCARD_LOW = 0;

/** Whether the address at `at` represents a connection. */
export function isStreamAddress(words: Uint32Array, at: number): boolean {
  return words[at] === DISCARD_HIGH && words[at + 1] === DISCARD_LOW;
}

/** The connection's number, 1 to 2^32 − 1, of an address for which `isStreamAddress` holds. */
export function streamNumber(words: Uint32Array, at: number): number {
  return words[at + 3];
}

/** Writes the address that represents connection `number` to `at`. */
export function writeStreamAddress(words: Uint32Array, at: number, number: number): void {
  words[at] = DISCARD_HIGH;
  words[at + 1] = DISCARD_LOW;
  words[at + 2] = 0;
  words[at + 3] = number;
}

/** The connection's number from an endpoint's text such as "[100::5]:443"; undefined for any other endpoint. */
export function streamNumberOf(endpoint: string): number | undefined {
  const words = parseAddress(/^\[(100::[0-9a-f:]+)\]:\d+$/.exec(endpoint)?.[1] ?? "");
  return words !== undefined && isStreamAddress(words, 0) ? streamNumber(words, 0) : undefined;
}

/** The length in front of a datagram, little-endian, unchecked. */
export function readStreamLength(bytes: Uint8Array, at: number): number {
  return bytes[at] | bytes[at + 1] << 8;
}

/** Writes the length in front of a datagram. */
export function writeStreamLength(bytes: Uint8Array, at: number, length: number): void {
  bytes[at] = length;
  bytes[at + 1] = length >> 8;
}

/** Whether a datagram of this length that begins with this byte may be on a stream (PROTOCOL R86). */
export function fitsStream(length: number, firstByte: number): boolean {
  return length >= OX_DATA_MIN_BYTES && length <= OX_DATAGRAM_MAX_BYTES && isOxtunnel(firstByte);
}
