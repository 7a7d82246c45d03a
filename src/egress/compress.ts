// Hot path.
/**
 * A step of egress, for OxTunnel only: packets that shrink become LZ4 frames (PROTOCOL §13). Invariant: a changed row is a
 * whole frame with its head, recognisable by its first byte, and shorter than the packet was; any other row stays a bare
 * packet. A few sampled bytes and the flow's past decide where an attempt is worth its time.
 * Keeps PROTOCOL R49.
 */
import { COUNTER } from "../metrics.ts";
import { OXTUNNEL } from "../session/table.ts";
import { type Burst, TO_SEAL } from "../vector/burst.ts";
import { FRAME_HEAD_BYTES, isWholePacket, LZ4_BLOCK_AT, LZ4_RATIO_MAX, writeLz4Head } from "../wire/frame.ts";
import { FEATURE_LZ4 } from "../wire/parameters.ts";
import type { EgressContext } from "./context.ts";
import { DISTINCT_MIN } from "./entropy.ts";
import type { FlowTable } from "../control/flows.ts";

const OVERHEAD_BYTES = FRAME_HEAD_BYTES + LZ4_BLOCK_AT;
/** The least gain that is worth the decompression: the packet's length shifted right by this. */
const GAIN_SHIFT = 4;
/** The failures in a row after which pauses stop growing: one attempt in 1024 packets. */
const FAILURES_MAX = 10;
/** Bytes of headers, which say nothing about the payload. */
const SAMPLE_FROM = 40;

export function compress(burst: Burst, context: EgressContext): void {
  const { count, next, session, length, offset, view, bytes, flow } = burst;
  const { table, associations, metrics, flows, compression } = context;
  if (compression === undefined || associations.oxtunnel === undefined) return;
  const { lz4, thresholdBytes, entropy } = compression;
  const { of } = associations.oxtunnel.sessions;
  for (let row = 0; row < count; row++) {
    const packetBytes = length[row];
    if (packetBytes < thresholdBytes || next[row] !== TO_SEAL) continue;
    if (table.protocol[session[row]] !== OXTUNNEL || (of[session[row]]!.features & FEATURE_LZ4) === 0) {
      continue;
    }
    const id = flow[row], at = offset[row];
    if (!isWholePacket(view, at)) continue;
    if (flows.pause[id] > 0) {
      flows.pause[id]--;
      metrics.column[COUNTER.compressions_skipped]++;
      continue;
    }
    if (entropy.looksRandom(bytes, at + SAMPLE_FROM, packetBytes - SAMPLE_FROM, DISTINCT_MIN)) {
      fail(flows, id);
      metrics.column[COUNTER.compressions_skipped]++;
      continue;
    }
    const room = packetBytes - OVERHEAD_BYTES - (packetBytes >> GAIN_SHIFT);
    const least = Math.ceil(packetBytes / LZ4_RATIO_MAX) - LZ4_BLOCK_AT;
    const block = lz4.compress(burst, at, packetBytes, at + OVERHEAD_BYTES, least, room);
    if (block === 0) {
      fail(flows, id);
      continue;
    }
    flows.failures[id] >>= 1;
    writeLz4Head(view, at, block, packetBytes);
    length[row] = OVERHEAD_BYTES + block;
    metrics.column[COUNTER.packets_compressed]++;
    metrics.column[COUNTER.bytes_saved] += packetBytes - length[row];
  }
}

/** After each failure in a row a flow is skipped for twice as long. */
function fail(flows: FlowTable, id: number): void {
  flows.failures[id] = Math.min(FAILURES_MAX, flows.failures[id] + 1);
  flows.pause[id] = (1 << flows.failures[id]) - 1;
}
