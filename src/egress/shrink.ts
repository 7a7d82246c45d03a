// Hot path.
/**
 * A step of egress, for OxTunnel only: headers that the other end knows are left out (PROTOCOL §13, short packets), or are
 * defined for the packets to come. Invariant: a changed row is a short packet or a whole frame, recognisable by its first
 * byte; any other row stays a bare packet. Where losses are repaired a short packet keeps its frame's head, for a recovered
 * source does not say where its last packet ends. Packets that LZ4 may shrink more are left to compress.ts, unless the
 * flow's last attempts failed and it pauses. In a session of ROHC that has the place of short packets.
 */
import type { RohcSender } from "../codec/headers/rohc_sender.ts";
import { BARE, DEFINITION_BYTES_MAX, SHORT, type Shrinker } from "../codec/headers/shrinker.ts";
import { COUNTER } from "../metrics.ts";
import { OXTUNNEL } from "../session/table.ts";
import { SLOT_BYTES } from "../vector/arena.ts";
import { type Burst, TO_SEAL } from "../vector/burst.ts";
import {
  FRAME_HEAD_BYTES,
  FRAME_HEADER_COMPRESSED,
  FRAME_ROHC,
  isWholePacket,
  writeFrameHead,
} from "../wire/frame.ts";
import { FEATURE_LZ4 } from "../wire/parameters.ts";
import type { EgressContext } from "./context.ts";

/** What a definition adds to its packet; and room in the slot for it, and for a datagram's header and frames before it. */
const ADDED_BYTES_MAX = FRAME_HEAD_BYTES + DEFINITION_BYTES_MAX;
const ROOM_BYTES_MIN = ADDED_BYTES_MAX + 32;

export function shrink(burst: Burst, context: EgressContext, nowUs: number): void {
  const { table, associations } = context;
  const { oxtunnel } = associations;
  if (oxtunnel === undefined) return;
  const { count, next, session, path } = burst;
  const { of } = oxtunnel.sessions;
  for (let row = 0; row < count; row++) {
    if (next[row] !== TO_SEAL || table.protocol[session[row]] !== OXTUNNEL) continue;
    // Contexts are the first path's, which has the session's row: counters of two paths are in no order.
    if (path[row] !== session[row]) continue;
    const { headers, rohc } = of[session[row]]!;
    if (headers !== undefined || rohc !== undefined) shrinkOne(burst, row, context, nowUs);
  }
}

function shrinkOne(burst: Burst, row: number, context: EgressContext, nowUs: number): void {
  const { bytes: arena, view, offset, length, slot, session, flow, trafficClass } = burst;
  const { associations, compression, flows, metrics } = context;
  const { sessions } = associations.oxtunnel!;
  const at = offset[row], bytes = length[row];
  if (!isWholePacket(view, at)) return;
  if (bytes > context.shortenedBytesMax) {
    metrics.column[COUNTER.headers_kept_long]++;
    return;
  }
  const { features, headers, repair, rohc, headerTally } = sessions.of[session[row]]!;
  const mayCompress = compression !== undefined && bytes >= compression.thresholdBytes &&
    (features & FEATURE_LZ4) !== 0;
  if (mayCompress && flows.pause[flow[row]] === 0) {
    metrics.column[COUNTER.headers_kept_lz4]++;
    return;
  }
  const mayDefine = bytes + ADDED_BYTES_MAX <= sessions.innerMtu(session[row]) &&
    at - slot[row] * SLOT_BYTES >= ROOM_BYTES_MIN;
  let result = BARE, shrinker: Shrinker | RohcSender;
  if (rohc !== undefined) {
    shrinker = rohc.sender;
    result = rohc.sender.shrink(arena, view, at, bytes, mayDefine, nowUs);
  } else {
    shrinker = headers!.shrinker;
    const { mismatches } = headers!.shrinker;
    result = headers!.shrinker.shrink(view, at, bytes, mayDefine, nowUs);
    if (headers!.shrinker.mismatches !== mismatches) metrics.column[COUNTER.headers_mismatch]++;
  }
  if (result === BARE) {
    metrics.column[COUNTER.headers_kept_kind + shrinker.kept]++;
    return;
  }
  if (mayCompress) {
    // compress.ts, which counts all other packets of a pause, does not see this one.
    flows.pause[flow[row]]--;
    metrics.column[COUNTER.compressions_skipped]++;
  }
  offset[row] = shrinker.at;
  length[row] = shrinker.bytes;
  const needsHead = repair !== undefined && repair.sends(trafficClass[row]);
  if (result === SHORT) {
    const headBytes = needsHead ? FRAME_HEAD_BYTES : 0;
    const saved = bytes - shrinker.bytes - headBytes, sent = shrinker.fieldBytes + headBytes;
    metrics.column[COUNTER.headers_elided]++;
    metrics.column[COUNTER.header_bytes_saved] += saved;
    metrics.column[COUNTER.header_bytes_sent] += sent;
    headerTally.packets++;
    headerTally.bytesSaved += saved;
    headerTally.bytesSent += sent;
  } else metrics.column[COUNTER.header_definitions]++;
  // A definition of short packets is no bare packet.
  if (!needsHead && (result === SHORT || rohc !== undefined)) return;
  offset[row] -= FRAME_HEAD_BYTES;
  length[row] += FRAME_HEAD_BYTES;
  const kind = rohc === undefined ? FRAME_HEADER_COMPRESSED : FRAME_ROHC;
  writeFrameHead(view, offset[row], kind, shrinker.bytes);
}
