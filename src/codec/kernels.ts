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

/** Bytes that `DatagramAead.masks` writes for a row: five of mask and three zeros. */
export const MASK_STRIDE = 8;

/**
 * Protection of OxTunnel's data datagrams over a burst, in place: an AEAD with the header as associated data, or GMAC
 * over header and plaintext, and the header protection made from the tag (PROTOCOL §12, §18). A session's row has one AEAD, and keys for two epochs that
 * its key phase tells apart. All keys have 32 bytes; callers wipe their own copies.
 */
export interface DatagramAead {
  /**
   * Gives a row its AEAD, one of AEAD_* in wire/parameters.ts, and its header-protection keys, which stay the same through all
   * epochs. What the row had before is overwritten. Throws a RangeError for any other AEAD.
   */
  begin(row: number, aead: number, sendProtect: Uint8Array, receiveProtect: Uint8Array): void;
  /** Copies the keys of one epoch, by phase 0 or 1, into a row that has begun; throws for one that has not. */
  install(row: number, phase: number, sendKey: Uint8Array, receiveKey: Uint8Array): void;
  /** Overwrites one epoch's keys. */
  retire(row: number, phase: number): void;
  /** Overwrites everything of the row. */
  erase(row: number): void;
  /**
   * For every TO_UNPROTECT row: makes the mask from the datagram's last 16 bytes under the session's receiving
   * protection key and writes it to masks[MASK_STRIDE * row], zeros for a session that has not begun or a datagram
   * shorter than that. Leaves next. `masks` has MASK_STRIDE * BURST_CAPACITY bytes.
   */
  masks(burst: Burst, masks: Uint8Array<ArrayBuffer>): void;
  /**
   * Opens rows whose next is TO_OPEN_DATAGRAM: offset and length describe the datagram, its header of `headerBytes`
   * unprotected; `phase` has the key phase in bit 0 and the path's number, 0 to 7, above it; the nonce is path and `counter`. Afterwards offset and length describe the
   * plaintext and next = OPENED; what does not authenticate, has no keys for that phase, no such path or no header of 6 to 9 bytes
   * becomes DROP.forged, with offset and length as they were.
   */
  open(burst: Burst): void;
  /**
   * Seals rows whose next is TO_SEAL_DATAGRAM: offset and length describe the plaintext, with the header of
   * `headerBytes` already written in front of it. Then protects the header: byte 0 by mask[0] & 0x3f, its last bytes,
   * the counter's, by mask[1] and on. Afterwards offset and length describe the datagram and next = TO_TRANSMIT;
   * refusals are those of `open`.
   */
  seal(burst: Burst): void;
}

/** Shards on either side of a combination. */
export const SHARDS_MAX = 255;
/** Where a combination's matrix stands, behind room for the offsets of as many shards as there can be. */
export const MATRIX_AT = 4 * 2 * SHARDS_MAX;

/** Linear combinations of shards over GF(2^8) (RFC 5510 §8.1): all that erasure codes do to bytes. */
export interface ShardKernel {
  /**
   * Writes outputs = matrix x inputs, all of it in `memory`, since each array that crosses into native code costs as much as
   * a small shard. At `taskAt`, a multiple of 4 in its buffer, stand the places of the first bytes of the inputs and then of
   * the outputs, little-endian u32s; MATRIX_AT behind that, a row of coefficients, a byte each, for each output. Shards have
   * `length` bytes, 0 to 65535; 1 to 255 of each. An output that overlaps another shard means nothing. Throws a RangeError
   * for what does not fit, or an output over the task.
   */
  multiply(
    memory: Uint8Array<ArrayBuffer>,
    taskAt: number,
    inputs: number,
    outputs: number,
    length: number,
  ): void;
  /** Copies `length` bytes at `at` in one memory to `toAt` in another. Throws a RangeError for what does not fit. */
  copy(
    from: Uint8Array,
    at: number,
    to: Uint8Array,
    toAt: number,
    length: number,
  ): void;
}

/**
 * LZ4 blocks within the arena of a burst, a packet at a time: a block takes a hundred times as long as a call. Places are
 * arena offsets. Lengths are at most SLOT_BYTES, and what is written may overlap what is read.
 */
export interface Lz4 {
  /**
   * Compresses the `length` bytes at `at` into a block at `to`, and returns its bytes; 0, with the arena as it was, when
   * they would be fewer than `least` or more than `room`.
   */
  compress(burst: Burst, at: number, length: number, to: number, least: number, room: number): number;
  /**
   * Decompresses the block of `length` bytes at `at` to exactly `original` bytes at `to`; false, with the arena as it
   * was, when the block is malformed or comes out at any other length.
   */
  decompress(burst: Burst, at: number, length: number, to: number, original: number): boolean;
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
