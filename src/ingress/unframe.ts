// Hot path.
/**
 * Fourth node of ingress, OxTunnel's alone: reads the frames of each plaintext (PROTOCOL §13). Control frames are obeyed
 * here; each packet becomes a row of its own, the first one in its datagram's place. Invariant: packets leave in the
 * order in which they came, each with exactly the length that its frame says; what came before a malformed frame
 * stands. What needs more rows than the burst has left goes to the backlog, and from there into the next.
 * Keeps PROTOCOL R46, R47, R48, R51, R52 and R79.
 */
import { DROP } from "../metrics.ts";
import { NONE } from "../vector/arena.ts";
import { type Burst, BURST_CAPACITY, DONE, OPENED, TO_UNFRAME } from "../vector/burst.ts";
import { controlFits } from "../wire/control.ts";
import { FRAME_CONTROL, FRAME_PACKET, FRAMES_END, FRAMES_MALFORMED, isFrame } from "../wire/frame.ts";
import { innerLength } from "../wire/inner.ts";
import type { IngressContext } from "./context.ts";

export function unframe(burst: Burst, context: IngressContext, nowUs: number): void {
  // Rows that are added here are packets already.
  const { count, next, offset, length } = burst;
  const { backlog } = context;
  context.associations.oxtunnel?.sessions.beginBurst();
  let isSpread = false;
  for (let row = 0; row < count; row++) {
    if (next[row] !== TO_UNFRAME) continue;
    const packets = packetsIn(burst, offset[row], length[row], context);
    // Behind rows that were added, what follows must be added too, or it would overtake them.
    const rows = Math.max(0, packets - 1) + (isSpread ? 1 : 0);
    const isRoom = backlog.isEmpty && burst.count + rows <= BURST_CAPACITY;
    if (isRoom && !isSpread) unframeOne(burst, row, context, nowUs);
    else if (!backlog.put(burst, row)) next[row] = DROP.arena_full;
    else if (isRoom) unframeOne(burst, backlog.take(burst), context, nowUs);
    if (packets > 1) isSpread = true;
  }
}

/** Adds packets of the backlog, and obeys their datagrams' control frames, as far as there are rows. */
export function unframeRest(burst: Burst, context: IngressContext, nowUs: number): void {
  const { backlog } = context;
  while (!backlog.isEmpty) {
    const packets = packetsIn(burst, backlog.nextOffset, backlog.nextLength, context);
    if (burst.count + Math.max(1, packets) > BURST_CAPACITY) return;
    unframeOne(burst, backlog.take(burst), context, nowUs);
  }
}

/** Packets in the plaintext, as many as can be told from the frames' heads. */
function packetsIn({ view }: Burst, at: number, length: number, { frames }: IngressContext): number {
  if (length === 0 || !isFrame(view, at)) return 1;
  let packets = 0;
  frames.start(at, length);
  for (let kind = frames.next(view); kind >= 0; kind = frames.next(view)) {
    if (kind === FRAME_PACKET) packets++;
  }
  return packets;
}

function unframeOne(burst: Burst, row: number, context: IngressContext, nowUs: number): void {
  const { view, offset, length, next, session, peer } = burst;
  const { associations, frames, metrics, table } = context;
  const { sessions } = associations.oxtunnel!;
  const owner = session[row], id = peer[row];
  const rest = sessions.of[owner];
  // A handshake may have ended the session while this waited in the backlog.
  if (rest === undefined || table.peer[owner] !== id) {
    next[row] = DROP.no_session;
    return;
  }
  let packetAt = NONE, packetBytes = 0, isHeard = length[row] === 0;
  frames.start(offset[row], length[row]);
  for (;;) {
    const kind = frames.next(view);
    if (kind === FRAMES_END) break;
    if (kind === FRAMES_MALFORMED) {
      metrics.drop(DROP.malformed_inner);
      break;
    }
    if (kind === FRAME_CONTROL) {
      if (!controlFits(view, frames.at, frames.length)) metrics.drop(DROP.malformed_inner);
      else if (rest.onControl(burst, row, frames.at, frames.length, nowUs)) isHeard = true;
    } else if (kind === FRAME_PACKET) {
      isHeard = true;
      if (packetAt !== NONE) addPacket(burst, row, frames.at, frames.length, context);
      else {
        packetAt = frames.at;
        packetBytes = frames.length;
      }
    }
    // LZ4, compressed headers and repair come with their features; unknown kinds mean nothing.
  }
  if (isHeard) sessions.elicited(owner, id, nowUs);
  if (packetAt === NONE) {
    next[row] = DONE;
    return;
  }
  offset[row] = packetAt;
  length[row] = packetBytes;
  next[row] = isWhole(view, packetAt, packetBytes) ? OPENED : DROP.malformed_inner;
}

/** Copies a packet that shares its datagram with an earlier one into a row of its own. */
export function addPacket(
  burst: Burst,
  row: number,
  at: number,
  bytes: number,
  context: IngressContext,
): void {
  const { bytes: arena, view, offset, session, peer, next } = burst;
  const added = isWhole(view, at, bytes) ? burst.grow(bytes, OPENED) : -1;
  if (added < 0) {
    context.metrics.drop(isWhole(view, at, bytes) ? DROP.arena_full : DROP.malformed_inner);
    return;
  }
  arena.copyWithin(offset[added], at, at + bytes);
  session[added] = session[row];
  peer[added] = peer[row];
  next[added] = OPENED;
}

export function isWhole(view: DataView, at: number, bytes: number): boolean {
  return innerLength(view, at, bytes) === bytes;
}
