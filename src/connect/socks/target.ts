/**
 * Address type, address and port as SOCKS5 writes them (RFC 1928 §5). Invariant: nothing is read beyond the bytes that are
 * there.
 */
import { addressBytes, parseAddress } from "../../wire/address.ts";

export const IPV4 = 1, NAME = 3, IPV6 = 4;

export interface Target {
  host: string;
  port: number;
}

/** Bytes of a target from its type on, where `type` and the byte behind it are known; undefined for an unknown type. */
export function targetBytes(type: number, second: number): number | undefined {
  if (type === IPV4) return 1 + 4 + 2;
  if (type === IPV6) return 1 + 16 + 2;
  return type === NAME ? 2 + second + 2 : undefined;
}

/** The target at `at` and where it ends; undefined when its type is unknown or it is cut off. */
export function readTarget(data: Uint8Array, at: number): { target: Target; end: number } | undefined {
  const bytes = targetBytes(data[at], data[at + 1]);
  if (bytes === undefined || at + bytes > data.length) return undefined;
  const end = at + bytes;
  const address = data.subarray(data[at] === NAME ? at + 2 : at + 1, end - 2);
  const port = data[end - 2] << 8 | data[end - 1];
  return { target: { host: textOf(data[at], address), port }, end };
}

function textOf(type: number, bytes: Uint8Array): string {
  if (type === IPV4) return bytes.join(".");
  if (type === NAME) return String.fromCharCode(...bytes);
  return Array.from({ length: 8 }, (_, i) => (bytes[2 * i] << 8 | bytes[2 * i + 1]).toString(16)).join(":");
}

/** The inverse of `readTarget`, for addresses. */
export function encodeTarget(address: string, port: number): number[] {
  const bytes = addressBytes(parseAddress(address)!);
  return [bytes.length === 4 ? IPV4 : IPV6, ...bytes, port >> 8, port & 255];
}
