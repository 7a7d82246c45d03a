// Hot path.
/**
 * Recovers lost packets (PROTOCOL §13): after each datagram of a session with repair, solvable sources are solved, and their
 * packets are added to the burst. Invariant: a recovered packet is checked like any other, and is delivered once even when
 * its own datagram arrives late; of a recovered source only packets are read.
 * Keeps PROTOCOL R48 and R92.
 */
import { COUNTER, DROP } from "../metrics.ts";
import type { SessionRepair } from "../repair/session_repair.ts";
import { type Burst, DONE } from "../vector/burst.ts";
import { FRAME_LZ4, FRAME_PACKET, isFrame } from "../wire/frame.ts";
import { innerLength } from "../wire/inner.ts";
import type { IngressContext } from "./context.ts";
import { addPacket } from "./packets.ts";

/** Rows for a recovered packet: the solved source, and the packet in it. */
export const RECOVERED_ROWS = 2;

/** Adds the packets that `repair` can recover now, for the session and peer of `row`. */
export function recover(
  burst: Burst,
  row: number,
  repair: SessionRepair,
  takesLz4: boolean,
  context: IngressContext,
  nowUs: number,
): void {
  const found = repair.solve(nowUs);
  for (let i = 0; i < found; i++) recoverOne(burst, row, repair, i, takesLz4, context);
}

function recoverOne(
  burst: Burst,
  row: number,
  repair: SessionRepair,
  i: number,
  takesLz4: boolean,
  context: IngressContext,
): void {
  const { metrics, frames } = context;
  const length = repair.recoveredBytes(i);
  const copy = burst.grow(length, DONE);
  if (copy < 0) {
    metrics.drop(DROP.arena_full);
    return;
  }
  const { bytes, view, offset, session, peer, headerBytes } = burst;
  const at = offset[copy];
  repair.copyRecovered(i, bytes, at);
  session[copy] = session[row];
  peer[copy] = peer[row];
  headerBytes[copy] = 0;
  frames.start(at, length);
  for (let kind = frames.next(view); kind >= 0; kind = frames.next(view)) {
    if (kind !== FRAME_PACKET && !(kind === FRAME_LZ4 && takesLz4)) continue;
    // The symbol is as long as the longest that it was combined with, and a bare packet ends before that.
    const packetBytes = isFrame(view, frames.headAt)
      ? frames.length
      : innerLength(view, frames.at, frames.length);
    addPacket(burst, copy, kind, frames.at, packetBytes, context);
    metrics.column[COUNTER.packets_repaired]++;
  }
}
