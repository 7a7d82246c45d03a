/**
 * X25519 and ChaCha20-Poly1305 through node:crypto, which is OpenSSL-speed in Deno: 60 µs against noble's 200
 * or more for a shared secret, 5 µs against 14 for a 1200-byte packet. The portable relay runs on these; noble.ts
 * is the twin that the same vectors run against.
 * Keeps PROTOCOL R6.
 */
import {
  createCipheriv,
  createDecipheriv,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
} from "node:crypto";
import { Buffer } from "node:buffer";
import { TAG_BYTES } from "../wire/wireguard.ts";
import { isAllZero } from "./hash.ts";
import type { Primitives } from "./kernels.ts";

const ALGORITHM = "chacha20-poly1305";
// DER wrappers of raw X25519 keys (RFC 8410 §7, §4).
const PRIVATE_DER = Uint8Array.of(0x30, 46, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x6e, 4, 34, 4, 32);
const PUBLIC_DER = Uint8Array.of(0x30, 42, 0x30, 5, 6, 3, 0x2b, 0x65, 0x6e, 3, 33, 0);

function privateKeyObject(key: Uint8Array) {
  const der = Buffer.concat([PRIVATE_DER, key]);
  const object = createPrivateKey({ key: der, format: "der", type: "pkcs8" });
  der.fill(0);
  return object;
}

/** The counter as a nonce: four zeros, then 64 bits, little-endian (WireGuard's whitepaper §5.4.6). */
function nonceOf(counter: number): Uint8Array {
  const nonce = new Uint8Array(12);
  for (let i = 4, rest = counter; rest > 0; i++, rest = Math.floor(rest / 256)) nonce[i] = rest & 255;
  return nonce;
}

export const nodeCrypto: Primitives = {
  name: "node:crypto",

  publicKey(privateKey) {
    const der = createPublicKey(privateKeyObject(privateKey)).export({ format: "der", type: "spki" });
    return new Uint8Array(der.subarray(PUBLIC_DER.length));
  },

  sharedSecret(privateKey, publicKey) {
    try {
      const secret = diffieHellman({
        privateKey: privateKeyObject(privateKey),
        publicKey: createPublicKey({
          key: Buffer.concat([PUBLIC_DER, publicKey]),
          format: "der",
          type: "spki",
        }),
      });
      if (isAllZero(secret)) return undefined;
      const copy = new Uint8Array(secret);
      secret.fill(0);
      return copy;
    } catch {
      return undefined; // OpenSSL itself refuses low-order points.
    }
  },

  seal(key, counter, plaintext, associated) {
    const cipher = createCipheriv(ALGORITHM, key, nonceOf(counter), { authTagLength: TAG_BYTES });
    if (associated.length > 0) cipher.setAAD(associated, { plaintextLength: plaintext.length });
    const sealed = new Uint8Array(plaintext.length + TAG_BYTES);
    if (plaintext.length > 0) sealed.set(cipher.update(plaintext));
    cipher.final();
    sealed.set(cipher.getAuthTag(), plaintext.length);
    return sealed;
  },

  open(key, counter, sealed, associated) {
    const length = sealed.length - TAG_BYTES;
    if (length < 0) return undefined;
    const cipher = createDecipheriv(ALGORITHM, key, nonceOf(counter), { authTagLength: TAG_BYTES });
    if (associated.length > 0) cipher.setAAD(associated, { plaintextLength: length });
    cipher.setAuthTag(sealed.subarray(length));
    try {
      const plaintext = length > 0 ? cipher.update(sealed.subarray(0, length)) : new Uint8Array(0);
      cipher.final();
      return plaintext;
    } catch {
      return undefined;
    }
  },
};
