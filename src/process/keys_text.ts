/**
 * Keys as text and as pairs: 32 bytes to and from the base64 that WireGuard's own tools write, and X25519
 * through node:crypto. Invariant: a text that is not exactly one 32-byte key is refused, never padded or cut.
 * Stores nothing.
 */
import { Buffer } from "node:buffer";
import { createPrivateKey, createPublicKey, randomFillSync } from "node:crypto";

export const KEY_BYTES = 32;

// PKCS #8 wrapping of an X25519 private key (RFC 8410 section 7): everything before the 32 bytes.
const PKCS8_PREFIX = Buffer.from("302e020100300506032b656e04220420", "hex");

/** The 44 characters of base64 of a 32-byte key. */
export function keyToText(key: Uint8Array): string {
  return Buffer.from(key.buffer, key.byteOffset, key.byteLength).toString("base64");
}

/** The 32 bytes of a key's base64, or undefined when the text is anything else. */
export function keyFromText(text: string): Uint8Array<ArrayBuffer> | undefined {
  return isKeyText(text) ? new Uint8Array(Buffer.from(text, "base64")) : undefined;
}

/** Whether a text is a key's base64. The last character before "=" carries two spare bits, which must be zero. */
export function isKeyText(text: string): boolean {
  return /^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$/.test(text);
}

/**
 * The points of X25519 that have a small order, whose shared secret is zero with any private key (RFC 7748 section 6.1),
 * in hexadecimal; the last two are 0 and 1 once more, plus the prime. The function ignores the top bit.
 */
const SMALL_ORDER = [
  "00".repeat(32),
  `01${"00".repeat(31)}`,
  "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
  "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
  `ec${"ff".repeat(30)}7f`,
  `ed${"ff".repeat(30)}7f`,
  `ee${"ff".repeat(30)}7f`,
].map((hex) => Uint8Array.fromHex(hex));
/** As texts, with the top bit clear and set. */
const UNUSABLE = new Set([0, 128].flatMap((top) =>
  SMALL_ORDER.map((point) => {
    const key = point.slice();
    key[KEY_BYTES - 1] |= top;
    return keyToText(key);
  })
));

/** Why a peer with this public key (text) could never connect; undefined when one could. `own` is the relay's. */
export function unusableKey(publicKey: string, own?: string): string | undefined {
  if (UNUSABLE.has(publicKey)) {
    return "nobody can have this key (zero, or another point of small order); make one with keygen";
  }
  return publicKey === own ? "this is the relay's own key" : undefined;
}

/** Whether a key of 32 bytes is all zero, which programs write for a missing key, and which is no secret. */
export function isZeroKey(key: Uint8Array): boolean {
  return key.every((byte) => byte === 0);
}

/** A fresh X25519 private key, clamped as `wg genkey` does (RFC 7748 section 5). */
export function generatePrivateKey(): Uint8Array<ArrayBuffer> {
  const key = randomFillSync(new Uint8Array(KEY_BYTES));
  key[0] &= 248;
  key[31] = key[31] & 127 | 64;
  return key;
}

/** A fresh preshared key: 32 random bytes. */
export function generatePresharedKey(): Uint8Array<ArrayBuffer> {
  return randomFillSync(new Uint8Array(KEY_BYTES));
}

/** The X25519 public key of a 32-byte private key (RFC 7748 section 6.1). */
export function publicKeyOf(privateKey: Uint8Array): Uint8Array<ArrayBuffer> {
  if (privateKey.length !== KEY_BYTES) {
    throw new RangeError(`private key: expected ${KEY_BYTES} bytes, found ${privateKey.length}`);
  }
  const der = new Uint8Array(PKCS8_PREFIX.length + KEY_BYTES);
  der.set(PKCS8_PREFIX);
  der.set(privateKey, PKCS8_PREFIX.length);
  const key = createPrivateKey({ key: Buffer.from(der.buffer), format: "der", type: "pkcs8" });
  der.fill(0);
  const spki = createPublicKey(key).export({ format: "der", type: "spki" });
  return Uint8Array.from(spki.subarray(-KEY_BYTES));
}
