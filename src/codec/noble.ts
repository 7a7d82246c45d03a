/**
 * The same primitives from @noble/curves and @noble/ciphers: pure TypeScript, readable, slow. It is the naive
 * twin of node_crypto.ts, against which both run the same vectors, and the fallback where node:crypto lacks
 * X25519.
 * Keeps PROTOCOL R6.
 */
import { chacha20poly1305 } from "@noble/ciphers/chacha.js";
import { x25519 } from "@noble/curves/ed25519.js";
import { isAllZero } from "./hash.ts";
import type { Primitives } from "./kernels.ts";

function nonceOf(counter: number): Uint8Array {
  const nonce = new Uint8Array(12);
  const view = new DataView(nonce.buffer);
  view.setUint32(4, counter >>> 0, true);
  view.setUint32(8, Math.floor(counter / 4294967296), true);
  return nonce;
}

export const noble: Primitives = {
  name: "noble",

  publicKey: (privateKey) => x25519.getPublicKey(privateKey),

  sharedSecret(privateKey, publicKey) {
    try {
      const secret = x25519.getSharedSecret(privateKey, publicKey);
      return isAllZero(secret) ? undefined : secret;
    } catch {
      return undefined; // noble throws on a zero secret.
    }
  },

  seal: (key, counter, plaintext, associated) =>
    chacha20poly1305(key, nonceOf(counter), associated).encrypt(plaintext),

  open(key, counter, sealed, associated) {
    try {
      return chacha20poly1305(key, nonceOf(counter), associated).decrypt(sealed);
    } catch {
      return undefined;
    }
  },
};
