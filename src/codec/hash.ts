/**
 * BLAKE2s (RFC 7693) as WireGuard uses it: plain, keyed, HMAC and the key derivation of Noise. The hash is
 * @noble/hashes: audited, no dependencies, and half of OpenSSL's speed through node:crypto is enough off the
 * packet path. XChaCha20-Poly1305 for cookies comes from @noble/ciphers, since node:crypto has none.
 */
import { blake2s } from "@noble/hashes/blake2.js";
import { hmac } from "@noble/hashes/hmac.js";
import { xchacha20poly1305 } from "@noble/ciphers/chacha.js";

/** 32-byte BLAKE2s of the parts in order. */
export function hash(...parts: Uint8Array[]): Uint8Array {
  const state = blake2s.create({ dkLen: 32 });
  for (const part of parts) state.update(part);
  return state.digest();
}

/** 16-byte keyed BLAKE2s: WireGuard's MAC. The key has 16 or 32 bytes. */
export function mac(key: Uint8Array, ...parts: Uint8Array[]): Uint8Array {
  const state = blake2s.create({ dkLen: 16, key });
  for (const part of parts) state.update(part);
  return state.digest();
}

/** HMAC-BLAKE2s, 32 bytes (RFC 2104). */
export function keyedHash(key: Uint8Array, input: Uint8Array): Uint8Array {
  return hmac(blake2s, key, input);
}

/** KDF_n of the whitepaper §5.4 (HKDF, RFC 5869): `count` keys of 32 bytes, 1 to 3. */
export function deriveKeys(key: Uint8Array, input: Uint8Array, count: 1 | 2 | 3): Uint8Array[] {
  const secret = keyedHash(key, input);
  const keys: Uint8Array[] = [];
  let previous = new Uint8Array(0);
  for (let i = 1; i <= count; i++) {
    const message = new Uint8Array(previous.length + 1);
    message.set(previous);
    message[previous.length] = i;
    previous = keyedHash(secret, message) as Uint8Array<ArrayBuffer>;
    keys.push(previous);
    message.fill(0);
  }
  secret.fill(0);
  return keys;
}

/** XChaCha20-Poly1305 with a 24-byte nonce: ciphertext and tag. */
export function sealCookie(
  key: Uint8Array,
  nonce: Uint8Array,
  cookie: Uint8Array,
  mac1: Uint8Array,
): Uint8Array {
  return xchacha20poly1305(key, nonce, mac1).encrypt(cookie);
}

/** The cookie, or undefined when it does not authenticate. */
export function openCookie(
  key: Uint8Array,
  nonce: Uint8Array,
  sealed: Uint8Array,
  mac1: Uint8Array,
): Uint8Array | undefined {
  try {
    return xchacha20poly1305(key, nonce, mac1).decrypt(sealed);
  } catch {
    return undefined;
  }
}

/** Compares two secrets of equal length in time that does not depend on where they differ. */
export function equalSecrets(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  let difference = 0;
  for (let i = 0; i < a.length; i++) difference |= a[i] ^ b[i];
  return difference === 0;
}

/** Whether every byte is zero, in constant time. */
export function isAllZero(bytes: Uint8Array): boolean {
  let any = 0;
  for (let i = 0; i < bytes.length; i++) any |= bytes[i];
  return any === 0;
}
