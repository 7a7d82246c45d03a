/**
 * The portable transport kernel: ChaCha20-Poly1305 (RFC 8439) packet by packet through one sealing and one
 * opening function, which node_crypto.ts or noble.ts supply. Portable means correct, not fast: it allocates per
 * packet, which the native kernel does not. Keys live in one table and are overwritten on erase.
 */
import { type Burst, OPENED, TO_OPEN, TO_SEAL, TO_TRANSMIT } from "../vector/burst.ts";
import { DATA_HEADER_BYTES, TAG_BYTES } from "../wire/wireguard.ts";
import type { Aead, Primitives } from "./kernels.ts";

const KEY_BYTES = 32;
const NOTHING = new Uint8Array(0);

export class PortableAead implements Aead {
  readonly #primitives: Primitives;
  readonly #keys: Uint8Array;
  /** 1 for rows that have keys: an erased row's zeros are nobody's key. */
  readonly #keyed: Uint8Array;
  readonly #forged: number;

  /**
   * @param rows session rows, each with a sending and a receiving key.
   * @param forged the drop code for packets that do not authenticate.
   */
  constructor(primitives: Primitives, rows: number, forged: number) {
    this.#primitives = primitives;
    this.#keys = new Uint8Array(2 * KEY_BYTES * rows);
    this.#keyed = new Uint8Array(rows);
    this.#forged = forged;
  }

  install(row: number, sendKey: Uint8Array, receiveKey: Uint8Array): void {
    this.#keys.set(sendKey, 2 * KEY_BYTES * row);
    this.#keys.set(receiveKey, 2 * KEY_BYTES * row + KEY_BYTES);
    this.#keyed[row] = 1;
  }

  erase(row: number): void {
    this.#keys.fill(0, 2 * KEY_BYTES * row, 2 * KEY_BYTES * (row + 1));
    this.#keyed[row] = 0;
  }

  open(burst: Burst): void {
    const { count, bytes, offset, length, session, counter, next } = burst;
    for (let row = 0; row < count; row++) {
      if (next[row] !== TO_OPEN) continue;
      if (this.#keyed[session[row]] !== 1) {
        next[row] = this.#forged;
        continue;
      }
      const start = offset[row] + DATA_HEADER_BYTES;
      const key = this.#keys.subarray(
        2 * KEY_BYTES * session[row] + KEY_BYTES,
        2 * KEY_BYTES * (session[row] + 1),
      );
      const sealed = bytes.subarray(start, offset[row] + length[row]);
      const plaintext = this.#primitives.open(key, counter[row], sealed, NOTHING);
      if (plaintext === undefined) {
        next[row] = this.#forged;
        continue;
      }
      bytes.set(plaintext, start);
      offset[row] = start;
      length[row] = plaintext.length;
      next[row] = OPENED;
    }
  }

  seal(burst: Burst): void {
    const { count, bytes, offset, length, session, counter, next } = burst;
    for (let row = 0; row < count; row++) {
      if (next[row] !== TO_SEAL) continue;
      if (this.#keyed[session[row]] !== 1) {
        next[row] = this.#forged;
        continue;
      }
      const key = this.#keys.subarray(2 * KEY_BYTES * session[row], 2 * KEY_BYTES * session[row] + KEY_BYTES);
      const plaintext = bytes.subarray(offset[row], offset[row] + length[row]);
      bytes.set(this.#primitives.seal(key, counter[row], plaintext, NOTHING), offset[row]);
      offset[row] -= DATA_HEADER_BYTES;
      length[row] += DATA_HEADER_BYTES + TAG_BYTES;
      next[row] = TO_TRANSMIT;
    }
  }
}
