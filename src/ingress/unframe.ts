// Hot path.
/**
 * Fourth node of ingress, OxTunnel's alone: reads the frames of each plaintext (PROTOCOL §13). Control frames are obeyed
 * here; each packet becomes a row of its own, the last one in its datagram's place, and SYNs get an MSS that fits. Invariant: a packet that leaves
 * has exactly the length that its frame says; what came before a malformed frame stands.
 * Keeps PROTOCOL R46, R47, R48, R51, R52 and R91.
 */
import { DROP } from "../metrics.ts";
import { NONE } from "../vector/arena.ts";
import { type Burst, DONE, OPENED, TO_UNFRAME } from "../vector/burst.ts";
import { controlFits } from "../wire/control.ts";
import { FRAME_CONTROL, FRAME_PACKET, FRAMES_END, FRAMES_MALFORMED } from "../wire/frame.ts";
import { clampMss } from "../wire/fit.ts";
import { innerLength } from "../wire/inner.ts";
import type { IngressContext } from "./context.ts";

export function unframe(burst: Burst, context: IngressContext, nowUs: number): void {
  // Rows that are added here are packets already.
  const { count, next } = burst;
  context.associations.oxtunnel?.sessions.beginBurst();
  for (let row = 0; row < count; row++) {
    if (next[row] === TO_UNFRAME) unframeOne(burst, row, context, nowUs);
  }
}

function unframeOne(burst: Burst, row: number, context: IngressContext, nowUs: number): void {
  const { view, offset, length, next, session, peer } = burst;
  const { associations, frames, metrics } = context;
  const { sessions } = associations.oxtunnel!;
  const owner = session[row], id = peer[row];
  const rest = sessions.of[owner];
  if (rest === undefined) {
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
      if (packetAt !== NONE) addPacket(burst, row, packetAt, packetBytes, context);
      packetAt = frames.at;
      packetBytes = frames.length;
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
  if (next[row] === OPENED) clampMss(view, packetAt, packetBytes, sessions.innerMtu(owner));
}

/** Copies a packet that shares its datagram with a later one into a row of its own. */
function addPacket(burst: Burst, row: number, at: number, bytes: number, context: IngressContext): void {
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
  clampMss(view, offset[added], bytes, context.associations.oxtunnel!.sessions.innerMtu(session[row]));
}

function isWhole(view: DataView, at: number, bytes: number): boolean {
  return innerLength(view, at, bytes) === bytes;
}
