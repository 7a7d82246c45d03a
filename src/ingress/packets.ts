// Hot path.
/**
 * Puts the packets of an opened plaintext into rows: the first into its datagram's row, others into rows of their own,
 * decompressed ones into slots of their own; short packets get their headers back; TCP SYNs get an MSS that fits the session. Invariant: an OPENED row holds one
 * whole packet of exactly the length of its frame. Reads no frames and decides nothing about sources and destinations.
 * Keeps PROTOCOL R46, R49 and R50.
 */
import { DROP } from "../metrics.ts";
import { Expander } from "../codec/headers/expander.ts";
import type { RohcReceiver } from "../codec/headers/rohc_receiver.ts";
import { DEFINITION } from "../codec/headers/shrinker.ts";
import { NONE, packetStart } from "../vector/arena.ts";
import { type Burst, OPENED } from "../vector/burst.ts";
import { FRAME_LZ4, LZ4_BLOCK_AT, lz4OriginalBytes } from "../wire/frame.ts";
import { clampMss } from "../wire/fit.ts";
import { innerLength } from "../wire/inner.ts";
import { DATAGRAM_OVERHEAD_BYTES, OX_DATAGRAM_MAX_BYTES } from "../wire/oxtunnel.ts";
import type { IngressContext } from "./context.ts";

/** The longest packet that a datagram holds bare; the bound for decompressed packets too. */
const PACKET_BYTES_MAX = OX_DATAGRAM_MAX_BYTES - DATAGRAM_OVERHEAD_BYTES;

/** Payloads up to this length a loop moves faster than a call: 11 ns for 22 of a game's 32 octets. */
const LOOP_BYTES_MAX = 80;

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

/**
 * Octets in front of the packet in the header-compressed frame of `bytes` octets at `at`: those of a definition, which is
 * taken here; 0 for a short packet, and -1 for what is neither. `counter` is the datagram's.
 */
export function takeDefinition(
  view: DataView,
  at: number,
  bytes: number,
  counter: number,
  expander: Expander,
): number {
  if (view.getUint8(at) < DEFINITION) return view.getUint8(at) >> 4 === 5 ? 0 : -1;
  const front = Expander.definitionBytes(view, at, bytes);
  if (front === 0 || !isWhole(view, at + front, bytes - front)) return -1;
  expander.define(view, at, at + front, bytes - front, counter);
  return front;
}

/** Gives the short packet at `at` its headers back, in a row of its own. */
export function addShort(
  burst: Burst,
  row: number,
  at: number,
  bytes: number,
  counter: number,
  expander: Expander,
  context: IngressContext,
): void {
  const { bytes: arena, view, offset, session, peer } = burst;
  const payloadBytes = payloadOf(view, at, bytes, counter, expander);
  const added = payloadBytes < 0 ? -1 : burst.grow(expander.template.headerBytes + payloadBytes, OPENED);
  if (added < 0) {
    context.metrics.drop(payloadBytes < 0 ? DROP.unknown_context : DROP.arena_full);
    return;
  }
  const to = offset[added], { template, payloadAt, fieldsAt } = expander;
  arena.copyWithin(to + template.headerBytes, payloadAt, payloadAt + payloadBytes);
  template.rebuild(view, fieldsAt, view, to, payloadBytes);
  session[added] = session[row];
  peer[added] = peer[row];
}

/**
 * Gives the short packet at `at` its headers back in its slot, with the whole headroom in front of it; the row had its
 * datagram.
 */
export function expandInPlace(
  burst: Burst,
  row: number,
  at: number,
  bytes: number,
  counter: number,
  expander: Expander,
): void {
  const { bytes: arena, view, slot, offset, length, next } = burst;
  const payloadBytes = payloadOf(view, at, bytes, counter, expander);
  if (payloadBytes < 0) {
    next[row] = DROP.unknown_context;
    return;
  }
  const { template, payloadAt, fieldsAt } = expander;
  const start = packetStart(slot[row]), inPlace = payloadAt - template.headerBytes;
  // Whoever sends the packet on puts a header of its own in front, for which every packet has the whole headroom.
  const to = inPlace < start ? start : inPlace;
  // The fields lie in front of the payload, which moves back only, so they survive.
  if (to !== inPlace) {
    const payloadTo = to + template.headerBytes;
    // What the loop changes in front must not be the fields.
    const isShort = payloadBytes <= LOOP_BYTES_MAX && to - inPlace > 3;
    if (!isShort) arena.copyWithin(payloadTo, payloadAt, payloadAt + payloadBytes);
    else moveBack(view, payloadAt, payloadTo, payloadBytes);
  }
  template.rebuild(view, fieldsAt, view, to, payloadBytes);
  offset[row] = to;
  length[row] = template.headerBytes + payloadBytes;
  next[row] = OPENED;
}

/** Copies `bytes` from `from` to `to`, further back; up to three octets in front of `to` change, which are headers' here. */
function moveBack(view: DataView, from: number, to: number, bytes: number): void {
  for (let i = bytes - 4; i > -4; i -= 4) view.setInt32(to + i, view.getInt32(from + i, true), true);
}

/** Octets of payload of the short packet at `at`, whose template `expander` then has; -1 if it cannot be rebuilt. */
function payloadOf(view: DataView, at: number, bytes: number, counter: number, expander: Expander): number {
  if (!expander.find(view, at, bytes, counter)) return -1;
  const payloadBytes = at + bytes - expander.payloadAt;
  return expander.template.headerBytes + payloadBytes <= PACKET_BYTES_MAX ? payloadBytes : -1;
}

/** Restores ROHC's packet at `at` into a row of its own. */
export function addRohc(
  burst: Burst,
  row: number,
  at: number,
  bytes: number,
  counter: number,
  receiver: RohcReceiver,
  context: IngressContext,
): void {
  const { bytes: arena, view, offset, session, peer } = burst;
  const isRead = restore(arena, at, bytes, counter, receiver);
  const added = isRead ? burst.grow(receiver.length, OPENED) : -1;
  if (added < 0) {
    context.metrics.drop(isRead ? DROP.arena_full : DROP.unknown_context);
    return;
  }
  put(arena, offset[added], receiver);
  session[added] = session[row];
  peer[added] = peer[row];
  clampMss(
    view,
    offset[added],
    receiver.length,
    context.associations.oxtunnel!.sessions.innerMtu(burst.path[row]),
  );
}

/** Restores ROHC's packet at `at` in its slot, with the whole headroom in front of it; the row had its datagram. */
export function restoreInPlace(
  { bytes: arena, slot, offset, length, next }: Burst,
  row: number,
  at: number,
  bytes: number,
  counter: number,
  receiver: RohcReceiver,
): void {
  if (!restore(arena, at, bytes, counter, receiver)) {
    next[row] = DROP.unknown_context;
    return;
  }
  offset[row] = packetStart(slot[row]);
  put(arena, offset[row], receiver);
  length[row] = receiver.length;
  next[row] = OPENED;
}

/** Whether ROHC's packet could be read, and is as long as a datagram may bring. */
function restore(
  arena: Uint8Array,
  at: number,
  bytes: number,
  counter: number,
  receiver: RohcReceiver,
): boolean {
  return receiver.decompress(arena, at, bytes, counter) && receiver.length <= PACKET_BYTES_MAX &&
    innerLength(receiver.view, 0, receiver.length) === receiver.length;
}

function put(arena: Uint8Array, at: number, { output, length }: RohcReceiver): void {
  for (let i = 0; i < length; i++) arena[at + i] = output[i];
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
  const { bytes: arena, view, offset, session, peer, path } = burst;
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
  clampMss(view, offset[added], whole, context.associations.oxtunnel!.sessions.innerMtu(path[row]));
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
