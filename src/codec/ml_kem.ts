/**
 * ML-KEM-768 (FIPS 203) from @noble/post-quantum: the key encapsulation that OxTunnel mixes into a session's keys
 * against an attacker who records now and computes later. Invariant: all randomness is the caller's. About 2 ms a
 * step: for the key exchange beside the data, not for handshakes.
 */
import { ml_kem768 } from "@noble/post-quantum/ml-kem.js";

/** Random bytes that `mlKemGenerate` takes. */
export const ML_KEM_SEED_BYTES = 64;
/** Random bytes that `mlKemEncapsulate` takes. */
export const ML_KEM_MESSAGE_BYTES = 32;

/** A fresh key pair: 1184 bytes to publish and a secret of 2400. */
export function mlKemGenerate(seed: Uint8Array): { publicKey: Uint8Array; secretKey: Uint8Array } {
  return ml_kem768.keygen(seed);
}

/** A ciphertext of 1088 bytes and the secret of 32 in it; undefined for what is no public key (FIPS 203 §7.2). */
export function mlKemEncapsulate(
  publicKey: Uint8Array,
  message: Uint8Array,
): { ciphertext: Uint8Array; secret: Uint8Array } | undefined {
  try {
    const { cipherText, sharedSecret } = ml_kem768.encapsulate(publicKey, message);
    return { ciphertext: cipherText, secret: sharedSecret };
  } catch {
    return undefined;
  }
}

/** The secret of 32 bytes; of a ciphertext that was changed, another one (FIPS 203 §6.3). */
export function mlKemDecapsulate(ciphertext: Uint8Array, secretKey: Uint8Array): Uint8Array {
  return ml_kem768.decapsulate(ciphertext, secretKey);
}
