// Hot path.
/**
 * Puts the packets of an opened plaintext into rows: the first into its datagram's row, others into rows of their own,
 * decompressed ones into slots of their own; TCP SYNs get an MSS that fits the session. Invariant: an OPENED row holds one
 * whole packet of exactly the length of its frame. Reads no frames and decides nothing about sources and destinations.
 * Keeps PROTOCOL R46, R49 and R50.
 */
import { DROP } from "../metrics.ts";
import { NONE, packetStart } from "../vector/arena.ts";
import { type Burst, OPENED } from "../vector/burst.ts";
import { FRAME_LZ4, LZ4_BLOCK_AT, lz4OriginalBytes } from "../wire/frame.ts";
import { clampMss } from "../wire/fit.ts";
import { innerLength } from "../wire/inner.ts";
import { DATAGRAM_OVERHEAD_BYTES, OX_DATAGRAM_MAX_BYTES } from "../wire/oxtunnel.ts";
import type { IngressContext } from "./context.ts";

/** The longest packet that a datagram holds bare; the bound for decompressed packets too. */
const PACKET_BYTES_MAX = OX_DATAGRAM_MAX_BYTES - DATAGRAM_OVERHEAD_BYTES;

/** Makes the packet at `at` the row's packet; the row had its datagram. */
export function leaveInPlace(
  { view, offset, length, next }: Burst,
  row: number,
  at: number,
  bytes: number,
): void {
  offset[row] = at;
  length[row] = bytes;
  next[row] = isWhole(view, at, bytes) ? OPENED : DROP.malformed_inner;
}

/** Copies a packet that shares its datagram with an earlier one into a row of its own. */
export function addPacket(
  burst: Burst,
  row: number,
  kind: number,
  at: number,
  bytes: number,
  context: IngressContext,
): void {
  const { bytes: arena, view, offset, session, peer } = burst;
  const whole = kind === FRAME_LZ4
    ? lz4OriginalBytes(view, at, bytes, PACKET_BYTES_MAX)
    : isWhole(view, at, bytes)
    ? bytes
    : 0;
  const added = whole === 0 ? -1 : burst.grow(whole, OPENED);
  if (added < 0) {
    context.metrics.drop(whole === 0 ? DROP.malformed_inner : DROP.arena_full);
    return;
  }
  if (kind !== FRAME_LZ4) arena.copyWithin(offset[added], at, at + bytes);
  else if (!decompress(burst, at, bytes, offset[added], whole, context)) {
    burst.shrink(added);
    context.metrics.drop(DROP.malformed_inner);
    return;
  }
  session[added] = session[row];
  peer[added] = peer[row];
  clampMss(view, offset[added], whole, context.associations.oxtunnel!.sessions.innerMtu(session[row]));
}

/** Replaces the row's datagram by the packet of the LZ4 frame at `at`, in a fresh slot, because the two must not overlap. */
export function decompressInPlace(
  burst: Burst,
  row: number,
  at: number,
  bytes: number,
  context: IngressContext,
): void {
  const { arena, view, slot, offset, length, next } = burst;
  const original = lz4OriginalBytes(view, at, bytes, PACKET_BYTES_MAX);
  next[row] = DROP.malformed_inner;
  if (original === 0) return;
  const fresh = arena.take();
  if (fresh === NONE) {
    next[row] = DROP.arena_full;
    return;
  }
  if (!decompress(burst, at, bytes, packetStart(fresh), original, context)) {
    arena.release(fresh);
    return;
  }
  arena.release(slot[row]);
  slot[row] = fresh;
  offset[row] = packetStart(fresh);
  length[row] = original;
  next[row] = OPENED;
}

/** Whether the LZ4 frame decompressed to one whole packet of `original` bytes at `to` (PROTOCOL R49, R50). */
function decompress(
  burst: Burst,
  at: number,
  bytes: number,
  to: number,
  original: number,
  { lz4 }: IngressContext,
): boolean {
  return lz4 !== undefined &&
    lz4.decompress(burst, at + LZ4_BLOCK_AT, bytes - LZ4_BLOCK_AT, to, original) &&
    isWhole(burst.view, to, original);
}

function isWhole(view: DataView, at: number, bytes: number): boolean {
  return innerLength(view, at, bytes) === bytes;
}
