// Hot path.
/**
 * A step of egress, for OxTunnel only: packets of one session in one burst share datagrams, and bulk packets may wait for
 * more (PROTOCOL §13). Invariant: a session's packets leave in the order of their arrival, a batch fits a datagram of its
 * path, and only a batch of bulk packets is held. A packet that no other can join passes unchanged. control/flush.ts
 * decides when to wait.
 * Keeps PROTOCOL R79, R80, R81 and R82.
 */
import { CLASS_BULK, isRealTime } from "../control/traffic_class.ts";
import { COUNTER, DROP } from "../metrics.ts";
import { OXTUNNEL } from "../session/table.ts";
import { NONE, SLOT_BYTES, TAILROOM } from "../vector/arena.ts";
import { type Burst, BURST_CAPACITY, DONE, HELD, TO_SEAL } from "../vector/burst.ts";
import {
  bareKind,
  FRAME_HEAD_BYTES,
  FRAME_PACKET,
  isFrame,
  needsContexts,
  writeFrameHead,
} from "../wire/frame.ts";
import { type Batches, NOTHING_OPEN, OPEN_WITHOUT_ROW } from "./batches.ts";
import type { EgressContext } from "./context.ts";

/** The most packets in a datagram: half of the frames that a receiver reads; the rest is for control frames. */
const PACKETS_MAX = 32;
/** The shortest packet with its head: the least room of a batch that others can join. */
const JOINER_BYTES_MIN = FRAME_HEAD_BYTES + 20;
/** The bytes up to which a loop is faster than a call. */
const LOOP_BYTES_MAX = 128;

/** The longest plaintext of a datagram on the path, bytes. */
function plaintextBytesMax({ associations }: EgressContext, path: number): number {
  return associations.oxtunnel!.sessions.innerMtu(path);
}

export function batch(burst: Burst, context: EgressContext, nowUs: number): void {
  const { batches } = context;
  if (batches === undefined) return;
  const { count, next, session } = burst;
  const { protocol } = context.table;
  batches.begin();
  for (let row = 0; row < count; row++) {
    if (next[row] === TO_SEAL && protocol[session[row]] === OXTUNNEL) {
      join(burst, row, context, batches, nowUs);
    }
  }
  for (let i = 0; i < batches.unsettledCount; i++) {
    settle(burst, batches.unsettled[i], context, batches, nowUs);
  }
  emitDue(burst, context, batches, nowUs);
}

/** Adds the packet of `row` to its session's batch, or begins a batch with it. */
function join(burst: Burst, row: number, context: EgressContext, batches: Batches, nowUs: number): void {
  const { length, next, peer, path, trafficClass } = burst;
  const id = peer[row];
  const bytesMax = plaintextBytesMax(context, path[row]);
  const isSmall = length[row] + JOINER_BYTES_MIN <= bytesMax;
  const isUrgent = trafficClass[row] !== CLASS_BULK;
  if (!isUrgent && isSmall) batches.gaps.note(id, nowUs);
  if (batches.isHeld(id) && batches.isForeign(id, path[row])) {
    emitForeign(burst, id, context, batches, nowUs);
  }
  if (batches.isHeld(id)) {
    followHeld(burst, row, id, isUrgent, bytesMax, context, batches, nowUs);
    return;
  }
  const open = batches.rowOf(id);
  if (open >= 0) {
    if (path[open] === path[row] && fits(burst, open, length[row], bytesMax, batches)) {
      // One urgent packet alone needs no settling.
      if (batches.packets[open] === 1 && batches.urgent[open] === 1) batches.toSettle(id);
      append(burst, open, burst.offset[row], length[row], isUrgent, batches);
      addClass(burst, open, trafficClass[row]);
      next[row] = DONE;
      return;
    }
    finish(burst, open, context, batches);
    batches.clearRow(id);
  }
  if (!isSmall) return;
  batches.setRow(id, row);
  batches.start(row, isUrgent, needsContexts(burst.view, burst.offset[row]));
  if (!isUrgent) batches.toSettle(id);
}

/** Notes a packet of the class in the batch of `row`; one protected packet makes the whole batch protected. */
function addClass({ trafficClass }: Burst, row: number, added: number): void {
  if (!isRealTime(trafficClass[row])) trafficClass[row] = added;
}

/** Puts the held batch in front of the row's packet; a packet that does not fit is held instead, for the next row. */
function followHeld(
  burst: Burst,
  row: number,
  id: number,
  isUrgent: boolean,
  bytesMax: number,
  context: EgressContext,
  batches: Batches,
  nowUs: number,
): void {
  const { slot, offset, length, trafficClass } = burst;
  const ownSlot = slot[row], ownAt = offset[row], ownBytes = length[row], ownClass = trafficClass[row];
  batches.take(burst, row, id, nowUs);
  batches.toSettle(id);
  if (fits(burst, row, ownBytes, bytesMax, batches)) {
    append(burst, row, ownAt, ownBytes, isUrgent, batches);
    addClass(burst, row, ownClass);
    burst.arena.release(ownSlot);
    batches.setRow(id, row);
    return;
  }
  finish(burst, row, context, batches);
  batches.setRow(id, OPEN_WITHOUT_ROW);
  const heldSlot = slot[row], heldAt = offset[row], heldBytes = length[row], heldClass = trafficClass[row];
  slot[row] = ownSlot;
  offset[row] = ownAt;
  length[row] = ownBytes;
  trafficClass[row] = ownClass;
  batches.start(row, isUrgent, needsContexts(burst.view, ownAt));
  batches.hold(burst, row, id, nowUs, nowUs); // the place that was just left is free
  slot[row] = heldSlot;
  offset[row] = heldAt;
  length[row] = heldBytes;
  trafficClass[row] = heldClass;
}

/** At the end of the burst: the peer's last batch leaves with it, or is held. */
function settle(burst: Burst, id: number, context: EgressContext, batches: Batches, nowUs: number): void {
  let row = batches.rowOf(id);
  batches.clearRow(id);
  if (row === NOTHING_OPEN) return;
  if (row === OPEN_WITHOUT_ROW) {
    if (burst.count === BURST_CAPACITY) return; // it is due, and comes in the next one
    row = pushHeld(burst, id, context.associations.epochs.sendable(id, nowUs), batches, nowUs);
  }
  const packets = batches.packets[row];
  if (batches.urgent[row] === 0 && packets < PACKETS_MAX) {
    const bytesMax = plaintextBytesMax(context, burst.path[row]);
    const isWaiting = batches.longestUs[row] > 0;
    // Where there are several paths, what waits might find another one.
    const mayWait = context.table.isMultipath[burst.session[row]] === 0;
    const waitUs = mayWait && burst.length[row] + JOINER_BYTES_MIN <= bytesMax
      ? batches.gaps.waitUs(id, packets, isWaiting ? batches.waitedUs[row] : 0)
      : 0;
    if (waitUs > 0 && batches.hold(burst, row, id, nowUs, nowUs + waitUs)) {
      context.metrics.column[COUNTER.packets_held] += isWaiting ? packets - batches.waited[row] : packets;
      burst.next[row] = HELD;
      return;
    }
  }
  finish(burst, row, context, batches);
}

/** Adds a row for the peer's held batch. The caller has checked that there is room. */
function pushHeld(burst: Burst, id: number, session: number, batches: Batches, nowUs: number): number {
  const row = burst.push(0, 0, TO_SEAL);
  batches.take(burst, row, id, nowUs);
  burst.peer[row] = id;
  burst.session[row] = burst.path[row] = session;
  return row;
}

/** Adds the batches that are due, as far as there are rows; the rest stays due. */
function emitDue(burst: Burst, context: EgressContext, batches: Batches, nowUs: number): void {
  const { associations, metrics, table } = context;
  while (burst.count < BURST_CAPACITY) {
    const id = batches.due(nowUs);
    if (id === NONE) return;
    const session = associations.epochs.sendable(id, nowUs);
    if (session === NONE || table.protocol[session] !== OXTUNNEL) {
      metrics.drop(DROP.no_session, batches.release(id));
      continue;
    }
    if (batches.isForeign(id, session)) {
      emitForeign(burst, id, context, batches, nowUs);
      continue;
    }
    finish(burst, pushHeld(burst, id, session, batches, nowUs), context, batches);
  }
}

/** Sends the peer's held batch on the first path of the session whose contexts it needs, behind the burst; drops it where that has ended. */
function emitForeign(
  burst: Burst,
  id: number,
  context: EgressContext,
  batches: Batches,
  nowUs: number,
): void {
  const session = batches.sessionOf(id), { epochs } = context.associations;
  // The peer's present session, whose packets have found another path, or the one before.
  const isOpen = epochs.sendable(id, nowUs) === session || epochs.isStillOpen(id, session, nowUs);
  if (burst.count < BURST_CAPACITY && isOpen) {
    finish(burst, pushHeld(burst, id, session, batches, nowUs), context, batches);
  } else context.metrics.drop(DROP.no_session, batches.release(id));
}

/** Whether the batch in `row` has room for a packet of `bytes` bytes, in its datagram and in its slot. */
function fits(burst: Burst, row: number, bytes: number, bytesMax: number, batches: Batches): boolean {
  const length = burst.length[row];
  const firstHead = batches.packets[row] === 1 ? FRAME_HEAD_BYTES : 0;
  const slotEnd = (burst.slot[row] + 1) * SLOT_BYTES - TAILROOM;
  return batches.packets[row] < PACKETS_MAX && length + firstHead + bytes <= bytesMax &&
    burst.offset[row] + length + FRAME_HEAD_BYTES + bytes <= slotEnd;
}

/** Appends the packet of `bytes` at `from`, or the frame made of it, to the batch in `row`, where it fits. */
function append(
  burst: Burst,
  row: number,
  from: number,
  bytes: number,
  isUrgent: boolean,
  batches: Batches,
): void {
  const { view, offset, length } = burst;
  if (batches.packets[row] === 1 && !isFrame(view, offset[row])) {
    const packetBytes = length[row], kind = bareKind(view, offset[row]);
    offset[row] -= FRAME_HEAD_BYTES;
    length[row] += FRAME_HEAD_BYTES;
    writeFrameHead(view, offset[row], kind, packetBytes);
  }
  let to = offset[row] + length[row];
  batches.lastHeadAt[row] = 0;
  if (!isFrame(view, from)) {
    const kind = bareKind(view, from);
    // A short packet keeps its head: of a recovered source, padded as it is, nothing else would say where it ends.
    if (kind === FRAME_PACKET) batches.lastHeadAt[row] = to;
    to = writeFrameHead(view, to, kind, bytes);
  }
  copy(burst, from, to, bytes);
  length[row] = to + bytes - offset[row];
  batches.packets[row]++;
  if (isUrgent) batches.urgent[row] = 1;
  if (needsContexts(view, from)) batches.contexts[row] = 1;
}

/** Finishes the batch in `row`: its last packet needs no head. */
function finish(burst: Burst, row: number, context: EgressContext, batches: Batches): void {
  const { column } = context.metrics;
  const packets = batches.packets[row];
  if (packets > 1) {
    column[COUNTER.packets_batched] += packets;
    column[COUNTER.datagrams_saved] += packets - 1;
    const headAt = batches.lastHeadAt[row];
    if (headAt !== 0) {
      const end = burst.offset[row] + burst.length[row];
      burst.bytes.copyWithin(headAt, headAt + FRAME_HEAD_BYTES, end);
      burst.length[row] -= FRAME_HEAD_BYTES;
    }
  }
  const longestUs = batches.longestUs[row];
  if (longestUs === 0) return;
  column[COUNTER.held_us] += batches.waitedUs[row];
  if (longestUs > column[COUNTER.held_us_max]) column[COUNTER.held_us_max] = longestUs;
}

function copy({ bytes, view }: Burst, from: number, to: number, count: number): void {
  if (count > LOOP_BYTES_MAX) {
    bytes.copyWithin(to, from, from + count);
    return;
  }
  // Copies up to three bytes more than asked, which lie in the tail room of every packet.
  for (let i = 0; i < count; i += 4) view.setUint32(to + i, view.getUint32(from + i));
}
