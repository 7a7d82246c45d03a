// Hot path.
/**
 * Fourth node of egress, OxTunnel's alone: packets that shrink become LZ4 frames (PROTOCOL §13). Invariant: a row that it
 * touches is a whole frame with its head, which its first byte shows, and shorter than the packet was; any other is a bare
 * packet still. A few sampled bytes and the flow's past say where an attempt is worth its time.
 * Keeps PROTOCOL R49.
 */
import { COUNTER } from "../metrics.ts";
import { OXTUNNEL } from "../session/table.ts";
import { type Burst, TO_SEAL } from "../vector/burst.ts";
import { FRAME_HEAD_BYTES, LZ4_BLOCK_AT, LZ4_RATIO_MAX, writeLz4Head } from "../wire/frame.ts";
import { FEATURE_LZ4 } from "../wire/parameters.ts";
import type { EgressContext } from "./context.ts";
import { DISTINCT_MIN } from "./entropy.ts";
import type { FlowTable } from "../control/flows.ts";

const OVERHEAD_BYTES = FRAME_HEAD_BYTES + LZ4_BLOCK_AT;
/** What a packet must lose to be worth its decompression: one part in so many, as a power of two. */
const GAIN_SHIFT = 4;
/** After so many failures in a row the pauses grow no more: one attempt in 1024 packets. */
const FAILURES_MAX = 10;
/** Headers are not what tells payloads apart. */
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

/** What did not shrink is left alone for twice as long each time. */
function fail(flows: FlowTable, id: number): void {
  flows.failures[id] = Math.min(FAILURES_MAX, flows.failures[id] + 1);
  flows.pause[id] = (1 << flows.failures[id]) - 1;
}
