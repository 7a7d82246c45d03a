// Hot path.
/**
 * Recovers lost packets (PROTOCOL §13): after each datagram of a session with repair, solvable sources are solved, and their
 * packets are added to the burst. Invariant: a recovered packet is checked like any other, and is delivered once even when
 * its own datagram arrives late; of a recovered source only packets are read.
 * Keeps PROTOCOL R48 and R92.
 */
import { COUNTER, DROP } from "../metrics.ts";
import type { RepairReceiver } from "../repair/receiver.ts";
import { type Burst, DONE } from "../vector/burst.ts";
import { FRAME_LZ4, FRAME_PACKET, isFrame } from "../wire/frame.ts";
import { innerLength } from "../wire/inner.ts";
import { FEATURE_LZ4 } from "../wire/parameters.ts";
import type { IngressContext } from "./context.ts";
import { addPacket } from "./unframe.ts";

/** Rows for a recovered packet: the solved source, and the packet in it. */
export const RECOVERED_ROWS = 2;

/** Adds the packets that `receiver` can recover, for the session and peer of `row`. */
export function recover(
  burst: Burst,
  row: number,
  receiver: RepairReceiver,
  context: IngressContext,
  nowUs: number,
): void {
  const found = receiver.solve(nowUs);
  for (let i = 0; i < found; i++) recoverOne(burst, row, receiver, receiver.decoder.recovered[i], context);
}

function recoverOne(
  burst: Burst,
  row: number,
  { decoder }: RepairReceiver,
  number: number,
  context: IngressContext,
): void {
  const { metrics, frames, associations } = context;
  const takesLz4 = (associations.oxtunnel!.sessions.of[burst.session[row]]!.features & FEATURE_LZ4) !== 0;
  const length = decoder.lengthOf(number), from = decoder.placeOf(number);
  const copy = burst.grow(length, DONE);
  if (copy < 0) {
    metrics.drop(DROP.arena_full);
    return;
  }
  const { bytes, view, offset, session, peer, headerBytes } = burst;
  const at = offset[copy];
  for (let i = 0; i < length; i++) bytes[at + i] = decoder.memory[from + i];
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
