/**
 * A step of ingress, after the handshakes: reads accepted early data (PROTOCOL §16), rows that were added to the burst with
 * step TO_UNFRAME. Invariant: only packets are read, because a control frame needs a session whose keys both ends have
 * confirmed. The packets are checked like any others.
 * Keeps PROTOCOL R69 and R85.
 */
import { DROP } from "../metrics.ts";
import { NONE } from "../vector/arena.ts";
import { type Burst, DONE, OPENED, TO_UNFRAME } from "../vector/burst.ts";
import { FRAME_PACKET, FRAMES_END, FRAMES_MALFORMED } from "../wire/frame.ts";
import { clampMss } from "../wire/fit.ts";
import type { IngressContext } from "./context.ts";
import { addPacket, leaveInPlace } from "./packets.ts";

/** @param first the first row that the handshakes may have added. */
export function early(burst: Burst, context: IngressContext, first: number): void {
  const { count, next } = burst;
  for (let row = first; row < count; row++) {
    if (next[row] === TO_UNFRAME) readOne(burst, row, context);
  }
}

function readOne(burst: Burst, row: number, context: IngressContext): void {
  const { view, offset, length, next, peer, session } = burst;
  const { frames, metrics, peers, associations } = context;
  peers.bytesReceived[peer[row]] += length[row];
  let packetAt = NONE, packetBytes = 0;
  frames.start(offset[row], length[row]);
  for (let kind = frames.next(view); kind !== FRAMES_END; kind = frames.next(view)) {
    if (kind === FRAMES_MALFORMED) {
      metrics.drop(DROP.malformed_inner);
      break;
    }
    if (kind !== FRAME_PACKET) continue;
    if (packetAt !== NONE) addPacket(burst, row, FRAME_PACKET, frames.at, frames.length, context);
    else {
      packetAt = frames.at;
      packetBytes = frames.length;
    }
  }
  next[row] = DONE;
  if (packetAt === NONE) return;
  leaveInPlace(burst, row, packetAt, packetBytes);
  if (next[row] !== OPENED) return;
  clampMss(view, packetAt, packetBytes, associations.oxtunnel!.sessions.innerMtu(session[row]));
}
