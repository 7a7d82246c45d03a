/**
 * The native kernels behind the interfaces of kernels.ts: transport encryption of a burst in one call, with expanded
 * keys in a locked native table, and the primitives of a handshake. Invariant: what they compute is what the
 * portable twins compute; only rows that the twins would not survive (no key, no such row) are refused instead.
 */
import { burstHandle, checked, keepFromReleasing, type Native, releaseWithOwner } from "../../ffi/native.ts";
import { type Burst, BURST_CAPACITY } from "../vector/burst.ts";
import { AEAD_AES_256_GCM, AEAD_CHACHA20_POLY1305 } from "../wire/parameters.ts";
import { TAG_BYTES } from "../wire/wireguard.ts";
import type { Blake2s } from "./hash.ts";
import { type Aead, type DatagramAead, type Lz4, MASK_STRIDE, type Primitives } from "./kernels.ts";

export type { Native };

/** The AEADs that the library has: ChaCha20-Poly1305 (RFC 8439) and AES-256-GCM (NIST SP 800-38D). */
export const ALGORITHM = { chacha20Poly1305: 1, aes256Gcm: 2 } as const;
/** Who computes them: the fastest for this processor, or one of the two (libipsec-mb needs AVX-512). */
export const IMPLEMENTATION = { fastest: 0, awsLc: 1, ipsecMb: 2 } as const;

type Algorithm = (typeof ALGORITHM)[keyof typeof ALGORITHM];
type Implementation = (typeof IMPLEMENTATION)[keyof typeof IMPLEMENTATION];

/** Which implementation runs an algorithm here, or undefined when the one asked for cannot. */
export function implementationOf(
  native: Native,
  algorithm: Algorithm,
  implementation: Implementation = IMPLEMENTATION.fastest,
): "AWS-LC" | "libipsec-mb" | undefined {
  const found = native.ox_aead_implementation(algorithm, implementation);
  return found < 0 ? undefined : found === IMPLEMENTATION.awsLc ? "AWS-LC" : "libipsec-mb";
}

/** Handles of bursts; the last one is known without a look-up. */
class BurstHandles {
  readonly #native: Native;
  #burst: Burst | undefined;
  #handle = 0;

  constructor(native: Native) {
    this.#native = native;
  }

  of(burst: Burst): number {
    if (burst !== this.#burst) {
      this.#handle = burstHandle(this.#native, burst);
      this.#burst = burst;
    }
    return this.#handle;
  }
}

/** The AEADs to offer for OxTunnel here, best first: AES only where the processor has it. Keeps PROTOCOL R36. */
export function preferredAeads(native: Native): number[] {
  return native.ox_has_fast_aes() === 1
    ? [AEAD_AES_256_GCM, AEAD_CHACHA20_POLY1305]
    : [AEAD_CHACHA20_POLY1305];
}

export class NativeAead implements Aead {
  readonly #native: Native;
  readonly #forged: number;
  readonly #keys: number;
  readonly #handles: BurstHandles;

  /**
   * @param rows session rows, 1 to 2^20, each with a sending and a receiving key.
   * @param forged the drop code for packets that do not authenticate.
   * Throws when the memory cannot be reserved or the implementation does not run here.
   */
  constructor(
    native: Native,
    rows: number,
    forged: number,
    algorithm: Algorithm = ALGORITHM.chacha20Poly1305,
    implementation: Implementation = IMPLEMENTATION.fastest,
  ) {
    this.#native = native;
    this.#handles = new BurstHandles(native);
    this.#forged = forged;
    const keys = checked(native.ox_keys_new(algorithm, implementation, rows), "ox_keys_new");
    releaseWithOwner(this, () => native.ox_keys_release(keys));
    this.#keys = keys;
  }

  /** Whether the keys' memory is out of swap's reach; RLIMIT_MEMLOCK may forbid it. */
  get isLocked(): boolean {
    return this.#native.ox_keys_locked(this.#keys) === 1;
  }

  install(row: number, sendKey: Uint8Array, receiveKey: Uint8Array): void {
    checked(
      this.#native.ox_keys_install(this.#keys, row, owned(sendKey, 32), owned(receiveKey, 32)),
      "ox_keys_install",
    );
  }

  erase(row: number): void {
    checked(this.#native.ox_keys_erase(this.#keys, row), "ox_keys_erase");
  }

  open(burst: Burst): void {
    checked(
      this.#native.ox_open(this.#keys, this.#handles.of(burst), burst.count, this.#forged),
      "ox_open",
    );
  }

  seal(burst: Burst): void {
    checked(
      this.#native.ox_seal(this.#keys, this.#handles.of(burst), burst.count, this.#forged),
      "ox_seal",
    );
  }

  /**
   * Wipes all keys and frees their memory; the object is of no use afterwards. So do its collection and the end of
   * its Worker.
   */
  close(): void {
    keepFromReleasing(this);
    checked(this.#native.ox_keys_release(this.#keys), "ox_keys_release");
  }
}

/** Protection of OxTunnel's data; all AEADs in one table. */
export class NativeDatagramAead implements DatagramAead {
  readonly #native: Native;
  readonly #forged: number;
  readonly #table: number;
  readonly #handles: BurstHandles;

  /**
   * @param rows session rows, 1 to 2^20. Address space is reserved for all of them; a session in use takes what the
   * table in bench/README.md says.
   * @param forged the drop code for datagrams that do not authenticate.
   * Throws when the memory cannot be reserved or the implementation does not run here for all AEADs.
   */
  constructor(
    native: Native,
    rows: number,
    forged: number,
    implementation: Implementation = IMPLEMENTATION.fastest,
  ) {
    this.#native = native;
    this.#handles = new BurstHandles(native);
    this.#forged = forged;
    const table = checked(native.ox_datagram_new(implementation, rows), "ox_datagram_new");
    releaseWithOwner(this, () => native.ox_datagram_release(table));
    this.#table = table;
  }

  /** Whether the keys' memory is out of swap's reach; RLIMIT_MEMLOCK may forbid it. */
  get isLocked(): boolean {
    return this.#native.ox_datagram_locked(this.#table) === 1;
  }

  begin(row: number, aead: number, sendProtect: Uint8Array, receiveProtect: Uint8Array): void {
    const send = owned(sendProtect, 32), receive = owned(receiveProtect, 32);
    refused(this.#native.ox_datagram_begin(this.#table, row, aead, send, receive), "ox_datagram_begin");
  }

  install(row: number, phase: number, sendKey: Uint8Array, receiveKey: Uint8Array): void {
    const send = owned(sendKey, 32), receive = owned(receiveKey, 32);
    refused(this.#native.ox_datagram_install(this.#table, row, phase, send, receive), "ox_datagram_install");
  }

  retire(row: number, phase: number): void {
    refused(this.#native.ox_datagram_retire(this.#table, row, phase), "ox_datagram_retire");
  }

  erase(row: number): void {
    refused(this.#native.ox_datagram_erase(this.#table, row), "ox_datagram_erase");
  }

  masks(burst: Burst, masks: Uint8Array<ArrayBuffer>): void {
    if (masks.length < MASK_STRIDE * BURST_CAPACITY) {
      throw new RangeError(`native: ${masks.length} bytes for masks`);
    }
    checked(
      this.#native.ox_datagram_masks(this.#table, this.#handles.of(burst), burst.count, masks),
      "ox_datagram_masks",
    );
  }

  open(burst: Burst): void {
    checked(
      this.#native.ox_datagram_open(this.#table, this.#handles.of(burst), burst.count, this.#forged),
      "ox_datagram_open",
    );
  }

  seal(burst: Burst): void {
    checked(
      this.#native.ox_datagram_seal(this.#table, this.#handles.of(burst), burst.count, this.#forged),
      "ox_datagram_seal",
    );
  }

  /** As that of NativeAead. */
  close(): void {
    keepFromReleasing(this);
    checked(this.#native.ox_datagram_release(this.#table), "ox_datagram_release");
  }
}

/** Throws the RangeError that the portable twin throws for the same row, phase or AEAD. */
function refused(result: number, call: string): void {
  if (result < 0) throw new RangeError(`${call} refuses this row, phase or AEAD: errno ${-result}`);
}

/** The bytes as memory that can cross to native code; throws a RangeError when they are not `length` long. */
function owned(bytes: Uint8Array, length: number): Uint8Array<ArrayBuffer> {
  if (bytes.length !== length) throw new RangeError(`native: ${length} bytes needed, got ${bytes.length}`);
  return bytes as Uint8Array<ArrayBuffer>;
}

/** One message under one key: ciphertext and tag. `nonce` has 12 bytes, `key` 32. */
export function sealOnce(
  native: Native,
  algorithm: Algorithm,
  implementation: Implementation,
  key: Uint8Array,
  nonce: Uint8Array,
  plaintext: Uint8Array,
  associated: Uint8Array,
): Uint8Array<ArrayBuffer> {
  const sealed = new Uint8Array(plaintext.length + TAG_BYTES);
  sealed.set(plaintext);
  const result = native.ox_aead_once(
    algorithm,
    implementation,
    1,
    owned(key, 32),
    owned(nonce, 12),
    owned(associated, associated.length),
    associated.length,
    sealed,
    plaintext.length,
  );
  checked(result, "ox_aead_once");
  return sealed;
}

/** The plaintext of one message, or undefined when it does not authenticate. */
export function openOnce(
  native: Native,
  algorithm: Algorithm,
  implementation: Implementation,
  key: Uint8Array,
  nonce: Uint8Array,
  sealed: Uint8Array,
  associated: Uint8Array,
): Uint8Array<ArrayBuffer> | undefined {
  const length = sealed.length - TAG_BYTES;
  if (length < 0) return undefined;
  const text = new Uint8Array(sealed);
  const result = native.ox_aead_once(
    algorithm,
    implementation,
    0,
    owned(key, 32),
    owned(nonce, 12),
    owned(associated, associated.length),
    associated.length,
    text,
    length,
  );
  return result < 0 ? undefined : new Uint8Array(text.buffer, 0, length);
}

function nonceOf(counter: number): Uint8Array<ArrayBuffer> {
  const nonce = new Uint8Array(12);
  const view = new DataView(nonce.buffer);
  view.setUint32(4, counter >>> 0, true);
  view.setUint32(8, Math.floor(counter / 4294967296), true);
  return nonce;
}

/** The primitives of a handshake; two to six times as fast as node:crypto's. */
export function nativePrimitives(native: Native): Primitives {
  const { chacha20Poly1305 } = ALGORITHM;
  const { fastest } = IMPLEMENTATION;
  return {
    name: "native",

    publicKey(privateKey) {
      const out = new Uint8Array(32);
      checked(native.ox_x25519_public(owned(privateKey, 32), out), "ox_x25519_public");
      return out;
    },

    sharedSecret(privateKey, publicKey) {
      const out = new Uint8Array(32);
      const result = native.ox_x25519_shared(owned(privateKey, 32), owned(publicKey, 32), out);
      return result < 0 ? undefined : out;
    },

    seal: (key, counter, plaintext, associated) =>
      sealOnce(native, chacha20Poly1305, fastest, key, nonceOf(counter), plaintext, associated),

    open: (key, counter, sealed, associated) =>
      openOnce(native, chacha20Poly1305, fastest, key, nonceOf(counter), sealed, associated),
  };
}

/** BLAKE2s for handshakes, a tenth of what it takes in TypeScript. Inputs have at most 65536 bytes. */
export function nativeBlake2s(native: Native): Blake2s {
  return {
    hash(input) {
      const out = new Uint8Array(32);
      checked(native.ox_blake2s(owned(input, input.length), input.length, out), "ox_blake2s");
      return out;
    },

    mac(key, input) {
      const out = new Uint8Array(16);
      const message = owned(input, input.length);
      checked(
        native.ox_blake2s_mac(owned(key, key.length), key.length, message, message.length, out),
        "ox_blake2s_mac",
      );
      return out;
    },

    deriveKeys(key, input, count) {
      const out = new Uint8Array(32 * count);
      const message = owned(input, input.length);
      checked(native.ox_derive_keys(owned(key, 32), message, message.length, count, out), "ox_derive_keys");
      return Array.from({ length: count }, (_, i) => out.subarray(32 * i, 32 * i + 32));
    },
  };
}

/**
 * Compresses up to 65535 bytes into `out` as an LZ4 block; returns its length. Throws when `out` is shorter than the
 * worst case, floor(1.1 * length) + 20 bytes, or overlaps the input.
 */
export function compressLz4(native: Native, input: Uint8Array, out: Uint8Array<ArrayBuffer>): number {
  return checked(
    native.ox_lz4_compress(owned(input, input.length), input.length, out, out.length),
    "ox_lz4_compress",
  );
}

/** Decompresses an LZ4 block into `out`; its length, or undefined when it is malformed or does not fit. */
export function decompressLz4(
  native: Native,
  input: Uint8Array,
  out: Uint8Array<ArrayBuffer>,
): number | undefined {
  const result = native.ox_lz4_decompress(owned(input, input.length), input.length, out, out.length);
  return result < 0 ? undefined : result;
}

/** Asks the system for large pages for a table's memory, which nobody has written yet (vector/memory.ts). */
export function nativeAdviser(native: Native): (memory: Uint32Array<ArrayBuffer>) => void {
  return (memory) => void checked(native.ox_large_pages(memory, memory.byteLength), "ox_large_pages");
}

/** LZ4 within a burst's arena; it allocates nothing and keeps its table from one call to the next. */
export class NativeLz4 implements Lz4 {
  readonly #native: Native;
  readonly #handles: BurstHandles;

  constructor(native: Native) {
    this.#native = native;
    this.#handles = new BurstHandles(native);
  }

  compress(burst: Burst, at: number, length: number, to: number, least: number, room: number): number {
    const handle = this.#handles.of(burst);
    return checked(this.#native.ox_lz4_pack(handle, at, length, to, least, room), "ox_lz4_pack");
  }

  decompress(burst: Burst, at: number, length: number, to: number, original: number): boolean {
    const result = this.#native.ox_lz4_unpack(this.#handles.of(burst), at, length, to, original);
    return checked(result, "ox_lz4_unpack") === 1;
  }
}
