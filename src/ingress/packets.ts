// Hot path.
/**
 * Leaves the packets of an opened plaintext in rows: in their datagram's place, in rows of their own, and decompressed into slots of
 * their own; TCP SYNs get an MSS that fits the session. Invariant: a row that is OPENED holds one whole packet of exactly the
 * length that its frame says. Reads no frames and decides nothing about sources and destinations.
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

/** The longest packet that a datagram holds as it is, which one that comes compressed may be too. */
const PACKET_BYTES_MAX = OX_DATAGRAM_MAX_BYTES - DATAGRAM_OVERHEAD_BYTES;

/** Makes the row, whose datagram holds the packet at `at`, that packet's. */
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

/** Puts what the LZ4 frame at `at` holds in the place of its datagram: into a fresh slot, for the two may not overlap. */
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

/** Whether the LZ4 frame came out as one whole packet of `original` bytes at `to` (PROTOCOL R49, R50). */
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
