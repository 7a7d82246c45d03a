/**
 * BLAKE2s (RFC 7693) as Noise and WireGuard use it: plain, keyed, and as key derivation. @noble/hashes computes it,
 * audited and without dependencies, until `useBlake2s` names somebody faster: a handshake spends half its time here.
 * XChaCha20-Poly1305 for cookies comes from @noble/ciphers, since node:crypto has none. Invariant: whoever computes,
 * the results are the same.
 */
import { blake2s } from "@noble/hashes/blake2.js";
import { hmac } from "@noble/hashes/hmac.js";
import { xchacha20poly1305 } from "@noble/ciphers/chacha.js";

/** Who computes BLAKE2s; results are fresh arrays. */
export interface Blake2s {
  /** 32 bytes. */
  hash(input: Uint8Array): Uint8Array;
  /** 16 bytes under a key of 16 or 32. */
  mac(key: Uint8Array, input: Uint8Array): Uint8Array;
  /** KDF_n of the whitepaper §5.4 (HKDF, RFC 5869): `count` keys of 32 bytes from a 32-byte key. */
  deriveKeys(key: Uint8Array, input: Uint8Array, count: 1 | 2 | 3): Uint8Array[];
}

export const nobleBlake2s: Blake2s = {
  hash: (input) => blake2s(input, { dkLen: 32 }),

  mac: (key, input) => blake2s(input, { dkLen: 16, key }),

  deriveKeys(key, input, count) {
    const secret = hmac(blake2s, key, input);
    const keys: Uint8Array[] = [];
    let previous = new Uint8Array(0);
    for (let i = 1; i <= count; i++) {
      const message = new Uint8Array(previous.length + 1);
      message.set(previous);
      message[previous.length] = i;
      previous = hmac(blake2s, secret, message) as Uint8Array<ArrayBuffer>;
      keys.push(previous);
      message.fill(0);
    }
    secret.fill(0);
    return keys;
  },
};

let by = nobleBlake2s;

/** Lets another implementation compute from here on, in this thread. */
export function useBlake2s(implementation: Blake2s): void {
  by = implementation;
}

/** 32-byte BLAKE2s of the parts in order. */
export function hash(...parts: Uint8Array[]): Uint8Array {
  return by.hash(joined(parts));
}

/** 16-byte keyed BLAKE2s: WireGuard's MAC. The key has 16 or 32 bytes. */
export function mac(key: Uint8Array, ...parts: Uint8Array[]): Uint8Array {
  return by.mac(key, joined(parts));
}

/** KDF_n of the whitepaper §5.4 (HKDF, RFC 5869): `count` keys of 32 bytes, 1 to 3. */
export function deriveKeys(key: Uint8Array, input: Uint8Array, count: 1 | 2 | 3): Uint8Array[] {
  return by.deriveKeys(key, input, count);
}

function joined(parts: Uint8Array[]): Uint8Array {
  if (parts.length === 1) return parts[0];
  const all = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
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
