// Hot path.
/**
 * Recovers lost packets (PROTOCOL §13): after each datagram of a session with repair, solvable sources are solved, and their
 * packets are added to the burst. Invariant: a recovered packet is checked like any other, and is delivered once even when
 * its own datagram arrives late; of a recovered source only packets are read.
 * Keeps PROTOCOL R48 and R92.
 */
import type { Expander } from "../codec/headers/expander.ts";
import { COUNTER, DROP } from "../metrics.ts";
import type { SessionRepair } from "../repair/session_repair.ts";
import { type Burst, DONE } from "../vector/burst.ts";
import type { OxSession } from "../session/oxtunnel/session.ts";
import { FRAME_HEADER_COMPRESSED, FRAME_LZ4, FRAME_PACKET, FRAME_ROHC, isFrame } from "../wire/frame.ts";
import { innerLength } from "../wire/inner.ts";
import { FEATURE_LZ4 } from "../wire/parameters.ts";
import type { IngressContext } from "./context.ts";
import { addPacket, addRohc, addShort, takeDefinition } from "./packets.ts";

/** Rows for a recovered packet: the solved source, and the packet in it. */
export const RECOVERED_ROWS = 2;

/** Adds the packets that `repair` can recover now, for the session and peer of `row`. */
export function recover(
  burst: Burst,
  row: number,
  repair: SessionRepair,
  rest: OxSession,
  context: IngressContext,
  nowUs: number,
): void {
  const found = repair.solve(nowUs);
  for (let i = 0; i < found; i++) recoverOne(burst, row, repair, i, rest, context);
}

function recoverOne(
  burst: Burst,
  row: number,
  repair: SessionRepair,
  i: number,
  { features, headers, rohc }: OxSession,
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
    if (kind === FRAME_HEADER_COMPRESSED || kind === FRAME_ROHC) {
      // A bare one would be as long as the symbol.
      if (!isFrame(view, frames.headAt)) continue;
      const counter = repair.recoveredCounter(i);
      if (kind === FRAME_ROHC) {
        if (rohc === undefined) continue;
        addRohc(burst, copy, frames.at, frames.length, counter, rohc.receiver, context);
        metrics.column[COUNTER.packets_repaired]++;
      } else if (headers !== undefined) recoverShort(burst, copy, counter, headers.expander, context);
      continue;
    }
    if (kind !== FRAME_PACKET && !(kind === FRAME_LZ4 && (features & FEATURE_LZ4) !== 0)) continue;
    // The symbol is as long as the longest that it was combined with, and a bare packet ends before that.
    const packetBytes = isFrame(view, frames.headAt)
      ? frames.length
      : innerLength(view, frames.at, frames.length);
    addPacket(burst, copy, kind, frames.at, packetBytes, context);
    metrics.column[COUNTER.packets_repaired]++;
  }
}

/** The header-compressed frame that the reader is at, of the source with `counter`: a short packet, or a definition. */
function recoverShort(
  burst: Burst,
  row: number,
  counter: number,
  expander: Expander,
  context: IngressContext,
): void {
  const { frames: { at, length }, metrics } = context;
  const front = takeDefinition(burst.view, at, length, counter, expander);
  if (front < 0) {
    metrics.drop(DROP.malformed_inner);
    return;
  }
  if (front > 0) addPacket(burst, row, FRAME_PACKET, at + front, length - front, context);
  else addShort(burst, row, at, length, counter, expander, context);
  metrics.column[COUNTER.packets_repaired]++;
}
