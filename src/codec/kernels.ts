/**
 * The interfaces of the kernels: the steps that touch every byte of a burst, and the primitives of a handshake.
 * Each has more than one implementation, and all of them run against the same vectors. Nothing here allocates
 * by what the wire says; keys are addressed by session row so that a native table can hold them.
 */
import type { Burst } from "../vector/burst.ts";

/** Transport encryption of one AEAD over a burst, in place, with a key pair per session row. */
export interface Aead {
  /** Copies both 32-byte keys into the row. The caller wipes its own copies. */
  install(row: number, sendKey: Uint8Array, receiveKey: Uint8Array): void;
  /** Overwrites both keys of the row. */
  erase(row: number): void;
  /**
   * Opens rows whose next is TO_OPEN: nonce from `counter`, ciphertext and tag at offset + 16. On success offset
   * and length describe the plaintext and next = OPENED, otherwise, and for rows without keys, next = DROP.forged.
   */
  open(burst: Burst): void;
  /**
   * Seals rows whose next is TO_SEAL: offset and length describe the padded plaintext, with 16 bytes of data
   * header already written in front of it. Afterwards they describe the datagram and next = TO_TRANSMIT.
   */
  seal(burst: Burst): void;
}

/** The primitives of Noise IKpsk2 and of cookies. Byte arrays are fresh; inputs are never kept. */
export interface Primitives {
  readonly name: string;
  /** RFC 7748: 32-byte public key of a 32-byte private key. */
  publicKey(privateKey: Uint8Array): Uint8Array;
  /** RFC 7748: 32-byte shared secret, or undefined when it is all zero (a low-order point). */
  sharedSecret(privateKey: Uint8Array, publicKey: Uint8Array): Uint8Array | undefined;
  /** RFC 8439 with a nonce of four zero bytes and a little-endian counter. Returns ciphertext and tag. */
  seal(key: Uint8Array, counter: number, plaintext: Uint8Array, associated: Uint8Array): Uint8Array;
  /** The plaintext, or undefined when it does not authenticate. */
  open(key: Uint8Array, counter: number, sealed: Uint8Array, associated: Uint8Array): Uint8Array | undefined;
}
