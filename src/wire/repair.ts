// Hot path.
/**
 * The body of a repair frame (PROTOCOL §13): the datagrams whose packets the symbol combines, by their counters relative to
 * that of the datagram that carries the frame, and the symbol. And that of a copy frame: path and counter of the datagram whose
 * packets it repeats, and the packets. Invariant: what the readers hand out lies within the body. Knows no codes and no sessions.
 */
import { COUNTER_LIMIT } from "./oxtunnel.ts";

/** Most sources that a frame can name. */
export const REPAIR_SOURCES_MAX = 32;
const FIXED_BYTES = 3;
const BITMAP_BYTES_MAX = 8;
const DISTANCE_MAX = 255;
const BLOCK_BIT = 0x80, ANSWER_BIT = 0x10, BITMAP_MASK = 0x0f, RESERVED_MASK = 0x60;
/** An answer's place lies above its index in one byte. */
const PLACE_SHIFT = 3, ANSWER_INDEX_MASK = 7;
export const PLACES = 32;

/** Bytes of a body before its symbol when the oldest source is `span` counters before the newest; 0 when no frame can name it. */
export function repairHeadBytes(span: number): number {
  const bitmapBytes = (span + 7) >> 3;
  return bitmapBytes <= BITMAP_BYTES_MAX ? FIXED_BYTES + bitmapBytes : 0;
}

/** Whether a datagram with `counter` can carry a repair whose newest source is `newest`. */
export function canCarryRepair(counter: number, newest: number): boolean {
  return newest < counter && counter - newest <= DISTANCE_MAX;
}

/**
 * Writes a body up to its symbol: code, index (the repair's number in a block of Reed-Solomon, else its index among the
 * datagram's repairs, 0 to 255) and the sources `numbers[0]` to `numbers[count - 1]`, in growing order, for a datagram with
 * `counter` that can carry them (`canCarryRepair`, `repairHeadBytes`). Returns where the symbol begins.
 */
export function writeRepairHead(
  view: DataView,
  at: number,
  isBlock: boolean,
  index: number,
  counter: number,
  numbers: Float64Array,
  count: number,
): number {
  const newest = numbers[count - 1];
  const bitmapBytes = (newest - numbers[0] + 7) >> 3;
  view.setUint8(at, (isBlock ? BLOCK_BIT : 0) | bitmapBytes);
  view.setUint8(at + 1, counter - newest);
  view.setUint8(at + 2, index);
  const bitmapAt = at + FIXED_BYTES;
  for (let i = 0; i < bitmapBytes; i++) view.setUint8(bitmapAt + i, 0);
  for (let i = 0; i < count - 1; i++) {
    const bit = newest - 1 - numbers[i], place = bitmapAt + (bit >> 3);
    view.setUint8(place, view.getUint8(place) | 1 << (bit & 7));
  }
  return bitmapAt + bitmapBytes;
}

/**
 * Says that the repair whose body begins at `at`, a window's with an index of 0 to 7, was sent on request, for the datagram that
 * was named by `place`, of which PLACES are told apart.
 */
export function writeAnswer(view: DataView, at: number, place: number): void {
  view.setUint8(at, view.getUint8(at) | ANSWER_BIT);
  view.setUint8(at + 2, view.getUint8(at + 2) | (place % PLACES) << PLACE_SHIFT);
}

/** A repair frame's fields; one reader serves any number of frames, one after the other. */
export class RepairReader {
  isBlock = false;
  /** Whether it was sent on request. */
  isAnswer = false;
  /** By which place an answer's source was asked for, modulo PLACES. */
  place = 0;
  index = 0;
  /** Counters of the sources, in growing order. */
  readonly numbers = new Float64Array(REPAIR_SOURCES_MAX);
  count = 0;
  symbolAt = 0;
  symbolBytes = 0;

  /** Reads the body of `length` bytes at `at`, in a datagram with `counter`; false when the body is malformed. */
  read(view: DataView, at: number, length: number, counter: number): boolean {
    if (length <= FIXED_BYTES) return false;
    const flags = view.getUint8(at), bitmapBytes = flags & BITMAP_MASK;
    const newest = counter - view.getUint8(at + 1);
    const head = FIXED_BYTES + bitmapBytes;
    if (
      (flags & RESERVED_MASK) !== 0 || bitmapBytes > BITMAP_BYTES_MAX ||
      length <= head
    ) return false;
    if (newest === counter || newest < 0) return false;
    this.count = 0;
    for (let bit = 8 * bitmapBytes - 1; bit >= 0; bit--) {
      if ((view.getUint8(at + FIXED_BYTES + (bit >> 3)) >> (bit & 7) & 1) === 0) continue;
      // One place is taken by the newest source.
      if (newest - 1 - bit < 0 || this.count === REPAIR_SOURCES_MAX - 1) return false;
      this.numbers[this.count++] = newest - 1 - bit;
    }
    this.numbers[this.count++] = newest;
    this.isBlock = (flags & BLOCK_BIT) !== 0;
    this.isAnswer = (flags & ANSWER_BIT) !== 0;
    const index = view.getUint8(at + 2);
    this.index = this.isAnswer ? index & ANSWER_INDEX_MASK : index;
    this.place = index >> PLACE_SHIFT;
    this.symbolAt = at + head;
    this.symbolBytes = length - head;
    return true;
  }
}

/** Path and counter in front of the packets. */
export const COPY_HEAD_BYTES = 3;
const PATH_MASK = 7;
const COUNTER_BITS = 16;

/** Writes the head of a copy of the datagram with `counter` of the path `path`, 0 to 7; returns where the packets go. */
export function writeCopyHead(view: DataView, at: number, path: number, counter: number): number {
  view.setUint8(at, path);
  view.setUint16(at + 1, counter % 2 ** COUNTER_BITS, true);
  return at + COPY_HEAD_BYTES;
}

/** Whether a body of `length` bytes is a copy: with packets, and no reserved bit. */
export function copyFits(view: DataView, at: number, length: number): boolean {
  return length > COPY_HEAD_BYTES && (view.getUint8(at) & ~PATH_MASK) === 0;
}

export function readCopyPath(view: DataView, at: number): number {
  return view.getUint8(at);
}

/** The counter nearest to one above `highest`, -1 before the first, that a copy may mean; -1 where it would be COUNTER_LIMIT or more. */
export function readCopyCounter(view: DataView, at: number, highest: number): number {
  const expected = highest + 1;
  const candidate = expected - (((expected % 2 ** COUNTER_BITS - view.getUint16(at + 1, true)) << 16) >> 16);
  if (candidate < 0) return candidate + 2 ** COUNTER_BITS;
  return candidate < COUNTER_LIMIT ? candidate : -1;
}
