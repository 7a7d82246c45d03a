/**
 * LZ4 blocks (lz4_Block_format) of packets, portable: compression by lz4js, decompression here, where every length and
 * distance is checked, which lz4js does not do. Invariant: nothing is written outside the room that a caller names.
 * Correct, not fast: lz4js needs its table of 256 KB cleared before every block. Frames are wire/frame.ts's.
 */
import lz4js from "lz4js";
import type { Burst } from "../vector/burst.ts";
import { SLOT_BYTES } from "../vector/arena.ts";
import type { Lz4 } from "./kernels.ts";

const HASH_ROWS = 1 << 16;
/** The longest block: one more byte of length for each 255 literals, and 16 (lz4_Block_format). */
const SCRATCH_BYTES = SLOT_BYTES + SLOT_BYTES / 255 + 16 | 0;
const MATCH_MIN = 4;
/** The nibble that announces more bytes of length. */
const MORE = 15;

export class PortableLz4 implements Lz4 {
  readonly #table = new Uint32Array(HASH_ROWS);
  readonly #scratch = new Uint8Array(SCRATCH_BYTES);

  compress({ bytes }: Burst, at: number, length: number, to: number, least: number, room: number): number {
    const scratch = this.#scratch;
    this.#table.fill(0);
    const written = lz4js.compressBlock(bytes, scratch, at, length, this.#table);
    if (written === 0 || written < least || written > room) return 0;
    for (let i = 0; i < written; i++) bytes[to + i] = scratch[i];
    return written;
  }

  decompress({ bytes }: Burst, at: number, length: number, to: number, original: number): boolean {
    const scratch = this.#scratch;
    if (decompressBlock(bytes, at, length, scratch, Math.min(original, SLOT_BYTES)) !== original) {
      return false;
    }
    for (let i = 0; i < original; i++) bytes[to + i] = scratch[i];
    return true;
  }
}

/**
 * Decompresses the block of `length` bytes at `at` to the front of `out`, `room` bytes at most. Returns the bytes
 * written, or -1 when the block is malformed, refers to before its start, or wants more room.
 */
export function decompressBlock(
  bytes: Uint8Array,
  at: number,
  length: number,
  out: Uint8Array,
  room: number,
): number {
  const end = at + length;
  let here = at, written = 0;
  while (here < end) {
    const token = bytes[here++];
    let literals = token >> 4;
    if (literals === MORE) {
      let more = 255;
      while (more === 255) {
        if (here === end) return -1;
        literals += more = bytes[here++];
      }
    }
    if (literals > end - here || literals > room - written) return -1;
    for (let i = 0; i < literals; i++) out[written++] = bytes[here++];
    // A block ends with literals.
    if (here === end) return written;
    if (end - here < 2) return -1;
    const distance = bytes[here] | bytes[here + 1] << 8;
    here += 2;
    if (distance === 0 || distance > written) return -1;
    let match = token & MORE;
    if (match === MORE) {
      let more = 255;
      while (more === 255) {
        if (here === end) return -1;
        match += more = bytes[here++];
      }
    }
    match += MATCH_MIN;
    if (match > room - written) return -1;
    // Byte by byte, for a match may overlap what it makes.
    for (let i = 0; i < match; i++, written++) out[written] = out[written - distance];
  }
  return -1;
}
