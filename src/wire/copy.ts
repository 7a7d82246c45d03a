// Hot path.
/**
 * The body of a copy frame (PROTOCOL §13): path and counter of the datagram whose packets it repeats, and the packets. Invariant:
 * what the reader hands out lies within the body. Knows no sessions.
 */
import { COUNTER_LIMIT } from "./oxtunnel.ts";

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
