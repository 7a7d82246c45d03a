/**
 * The portable kernel of OxTunnel's data: ChaCha20-Poly1305, AES-256-GCM and AES-256-GMAC datagram by datagram, and the
 * masks of header protection, through node:crypto (PROTOCOL §12, §18). Invariant: it refuses what the native kernel refuses and
 * computes what that computes; a row without keys is nobody's. Portable means correct, not fast: it allocates per
 * datagram. Keys live in one table and are overwritten on retire and erase.
 */
import { createCipheriv, createDecipheriv } from "node:crypto";
import {
  type Burst,
  BURST_CAPACITY,
  OPENED,
  TO_OPEN_DATAGRAM,
  TO_SEAL_DATAGRAM,
  TO_TRANSMIT,
  TO_UNPROTECT,
} from "../vector/burst.ts";
import { OX_TAG_BYTES, SHORT_HEADER_MAX_BYTES, SHORT_HEADER_MIN_BYTES } from "../wire/oxtunnel.ts";
import { AEAD_AES_256_GMAC, AEAD_CHACHA20_POLY1305 } from "../wire/parameters.ts";
import { type DatagramAead, MASK_STRIDE } from "./kernels.ts";

const KEY_BYTES = 32;
// A row's keys: protection, epoch of phase 0, epoch of phase 1; each the sending one, then the receiving one.
const PAIR_BYTES = 2 * KEY_BYTES;
const ROW_BYTES = 3 * PAIR_BYTES;
const MASK_BYTES = 5;
const PROTECTED_FLAGS = 0x3f;
/** The highest path number, 7, above the higher key phase. */
const PHASE_AND_PATH_MAX = 15;
const BLANK = new Uint8Array(MASK_BYTES), NOTHING = new Uint8Array(0);
const OPTIONS = { authTagLength: OX_TAG_BYTES };

/** Which key of a pair, as its offset. */
const SEND = 0, RECEIVE = KEY_BYTES;

export class PortableDatagramAead implements DatagramAead {
  readonly #rows: number;
  readonly #keys: Uint8Array;
  /** The row's AEAD, 0 before it has begun. */
  readonly #aead: Uint8Array;
  /** 1 for each row and phase that has keys. */
  readonly #keyed: Uint8Array;
  readonly #forged: number;
  readonly #nonce = new Uint8Array(12);
  readonly #nonceView = new DataView(this.#nonce.buffer);

  /**
   * @param rows session rows, 1 to 2^20.
   * @param forged the drop code for datagrams that do not authenticate.
   */
  constructor(rows: number, forged: number) {
    this.#rows = rows;
    this.#keys = new Uint8Array(ROW_BYTES * rows);
    this.#aead = new Uint8Array(rows);
    this.#keyed = new Uint8Array(2 * rows);
    this.#forged = forged;
  }

  begin(row: number, aead: number, sendProtect: Uint8Array, receiveProtect: Uint8Array): void {
    if (aead < AEAD_CHACHA20_POLY1305 || aead > AEAD_AES_256_GMAC) {
      throw new RangeError(`datagram: no AEAD ${aead}`);
    }
    this.erase(row);
    this.#set(ROW_BYTES * row, sendProtect, receiveProtect);
    this.#aead[row] = aead;
  }

  install(row: number, phase: number, sendKey: Uint8Array, receiveKey: Uint8Array): void {
    const place = this.#placeOf(row, phase);
    if (this.#aead[row] === 0) throw new RangeError(`datagram: row ${row} has not begun`);
    this.#set(place, sendKey, receiveKey);
    this.#keyed[2 * row + phase] = 1;
  }

  retire(row: number, phase: number): void {
    const place = this.#placeOf(row, phase);
    this.#keys.fill(0, place, place + PAIR_BYTES);
    this.#keyed[2 * row + phase] = 0;
  }

  erase(row: number): void {
    this.retire(row, 0);
    this.retire(row, 1);
    this.#keys.fill(0, ROW_BYTES * row, ROW_BYTES * row + PAIR_BYTES);
    this.#aead[row] = 0;
  }

  masks(burst: Burst, masks: Uint8Array<ArrayBuffer>): void {
    if (masks.length < MASK_STRIDE * BURST_CAPACITY) {
      throw new RangeError(`datagram: ${masks.length} bytes for masks`);
    }
    const { count, bytes, offset, length, session, next } = burst;
    for (let row = 0; row < count; row++) {
      if (next[row] !== TO_UNPROTECT) continue;
      const at = MASK_STRIDE * row, end = offset[row] + length[row];
      masks.fill(0, at, at + MASK_STRIDE);
      if (!this.#hasBegun(session[row]) || length[row] < OX_TAG_BYTES || end > bytes.length) continue;
      masks.set(this.#maskOf(session[row], RECEIVE, bytes.subarray(end - OX_TAG_BYTES, end)), at);
    }
  }

  open(burst: Burst): void {
    const { count, bytes, offset, length, session, counter, headerBytes, next } = burst;
    for (let row = 0; row < count; row++) {
      if (next[row] !== TO_OPEN_DATAGRAM) continue;
      next[row] = this.#forged;
      const start = offset[row] + headerBytes[row], end = offset[row] + length[row];
      const tagAt = end - OX_TAG_BYTES;
      if (!this.#isSound(burst, row) || tagAt < start || end > bytes.length) continue;
      this.#setNonce(burst.phase[row] >> 1, counter[row]);
      // node:crypto's types join the two algorithms under no one overload, here and in `seal`.
      const name = this.#nameOf(session[row]);
      const key = this.#keyOf(burst, row, RECEIVE);
      const decipher = createDecipheriv(name, key, this.#nonce, OPTIONS);
      const textAt = this.#isPlain(session[row]) ? tagAt : start;
      decipher.setAAD(bytes.subarray(offset[row], textAt), { plaintextLength: tagAt - textAt });
      decipher.setAuthTag(bytes.subarray(tagAt, end));
      try {
        const plaintext = tagAt > textAt ? decipher.update(bytes.subarray(textAt, tagAt)) : NOTHING;
        decipher.final();
        bytes.set(plaintext, textAt);
      } catch {
        continue;
      }
      offset[row] = start;
      length[row] = tagAt - start;
      next[row] = OPENED;
    }
  }

  seal(burst: Burst): void {
    const { count, bytes, offset, length, session, counter, headerBytes, next } = burst;
    for (let row = 0; row < count; row++) {
      if (next[row] !== TO_SEAL_DATAGRAM) continue;
      next[row] = this.#forged;
      const header = headerBytes[row], start = offset[row], end = start + length[row];
      if (!this.#isSound(burst, row) || start < header || end + OX_TAG_BYTES > bytes.length) continue;
      const headerAt = start - header;
      this.#setNonce(burst.phase[row] >> 1, counter[row]);
      const name = this.#nameOf(session[row]);
      const key = this.#keyOf(burst, row, SEND);
      const cipher = createCipheriv(name, key, this.#nonce, OPTIONS);
      const textAt = this.#isPlain(session[row]) ? end : start;
      cipher.setAAD(bytes.subarray(headerAt, textAt), { plaintextLength: end - textAt });
      if (end > textAt) bytes.set(cipher.update(bytes.subarray(textAt, end)), textAt);
      cipher.final();
      const tag = cipher.getAuthTag();
      bytes.set(tag, end);
      const mask = this.#maskOf(session[row], SEND, tag);
      bytes[headerAt] ^= mask[0] & PROTECTED_FLAGS;
      const counterAt = headerAt + SHORT_HEADER_MIN_BYTES - 1;
      for (let i = 0; counterAt + i < start; i++) bytes[counterAt + i] ^= mask[1 + i];
      offset[row] = headerAt;
      length[row] += header + OX_TAG_BYTES;
      next[row] = TO_TRANSMIT;
    }
  }

  #hasBegun(session: number): boolean {
    return session < this.#rows && this.#aead[session] !== 0;
  }

  /** Whether the row has keys, and a counter and header that a datagram can have. */
  #isSound(burst: Burst, row: number): boolean {
    const session = burst.session[row], both = burst.phase[row], header = burst.headerBytes[row];
    const counter = burst.counter[row];
    return session < this.#rows && both <= PHASE_AND_PATH_MAX &&
      this.#keyed[2 * session + (both & 1)] === 1 &&
      header >= SHORT_HEADER_MIN_BYTES && header <= SHORT_HEADER_MAX_BYTES &&
      Number.isSafeInteger(counter) && counter >= 0;
  }

  /** Where the pair of a row's phase lies in `#keys`. */
  #placeOf(row: number, phase: number): number {
    if (!(row < this.#rows) || (phase !== 0 && phase !== 1)) {
      throw new RangeError(`datagram: no row ${row} with phase ${phase}`);
    }
    return ROW_BYTES * row + PAIR_BYTES * (1 + phase);
  }

  #set(place: number, sendKey: Uint8Array, receiveKey: Uint8Array): void {
    if (sendKey.length !== KEY_BYTES || receiveKey.length !== KEY_BYTES) {
      throw new RangeError(`datagram: keys of ${sendKey.length} and ${receiveKey.length} bytes`);
    }
    this.#keys.set(sendKey, place + SEND);
    this.#keys.set(receiveKey, place + RECEIVE);
  }

  #keyOf({ session, phase }: Burst, row: number, direction: number): Uint8Array {
    const place = this.#placeOf(session[row], phase[row] & 1) + direction;
    return this.#keys.subarray(place, place + KEY_BYTES);
  }

  /** Whether plaintexts are authenticated only. */
  #isPlain(session: number): boolean {
    return this.#aead[session] === AEAD_AES_256_GMAC;
  }

  /** Named as one of the two, since node:crypto's types know only calls with one name and the options that go with it. */
  #nameOf(session: number): "chacha20-poly1305" {
    const isChaCha = this.#aead[session] === AEAD_CHACHA20_POLY1305;
    return (isChaCha ? "chacha20-poly1305" : "aes-256-gcm") as "chacha20-poly1305";
  }

  #setNonce(path: number, counter: number): void {
    this.#nonceView.setUint32(0, path, true);
    this.#nonceView.setUint32(4, counter >>> 0, true);
    this.#nonceView.setUint32(8, Math.floor(counter / 2 ** 32), true);
  }

  /** The first bytes of what PROTOCOL §12 makes of a 16-byte sample; both forms are RFC 9001 §5.4.3 and §5.4.4. */
  #maskOf(session: number, direction: number, sample: Uint8Array): Uint8Array {
    const place = ROW_BYTES * session + direction;
    const key = this.#keys.subarray(place, place + KEY_BYTES);
    const mask = this.#aead[session] === AEAD_CHACHA20_POLY1305
      ? createCipheriv("chacha20", key, sample).update(BLANK)
      : createCipheriv("aes-256-ecb", key, null).update(sample);
    return mask.subarray(0, MASK_BYTES);
  }
}
