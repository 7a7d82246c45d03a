// Hot path.
/**
 * A step of ingress, for OxTunnel only: reads the frames of each plaintext (PROTOCOL §13). Control frames are carried out
 * here; each packet becomes a row of its own, the first one in its datagram's row (packets.ts). Invariant: packets leave in the
 * order of their arrival, each with exactly the length of its frame; frames before a malformed one stay valid. A plaintext that
 * needs more rows than the burst has left goes to the backlog, and from there into the next burst.
 * Keeps PROTOCOL R47, R48, R51, R52, R79, R85 and R112.
 */
import { COUNTER, DROP } from "../metrics.ts";
import { NONE } from "../vector/arena.ts";
import { type Burst, BURST_CAPACITY, DONE, OPENED, TO_UNFRAME } from "../vector/burst.ts";
import { controlFits, controlKind } from "../wire/control.ts";
import {
  FRAME_CONTROL,
  FRAME_COPY,
  FRAME_HEADER_COMPRESSED,
  FRAME_LZ4,
  FRAME_PACKET,
  FRAME_REPAIR,
  FRAMES_END,
  FRAMES_MALFORMED,
  isFrame,
} from "../wire/frame.ts";
import { clampMss } from "../wire/fit.ts";
import { FEATURE_LZ4 } from "../wire/parameters.ts";
import type { Headers } from "../session/oxtunnel/subjects/headers.ts";
import { controlPrice } from "../session/oxtunnel/control_budget.ts";
import type { IngressContext } from "./context.ts";
import {
  addPacket,
  addShort,
  decompressInPlace,
  expandInPlace,
  leaveInPlace,
  takeDefinition,
} from "./packets.ts";
import { recover, RECOVERED_ROWS, takeCopy } from "./recover.ts";

/** Copies in one datagram that are read (PROTOCOL R112), and where those of the datagram that is read are. */
const COPIES_MAX = 8;
const copyAt = new Uint32Array(COPIES_MAX), copyBytes = new Uint32Array(COPIES_MAX);

export function unframe(burst: Burst, context: IngressContext, nowUs: number): void {
  // Rows that are added here are packets already.
  const { count, next, offset, length } = burst;
  const { backlog } = context;
  context.associations.oxtunnel?.sessions.beginBurst();
  let isSpread = false;
  for (let row = 0; row < count; row++) {
    if (next[row] !== TO_UNFRAME) continue;
    const before = burst.count;
    // Behind rows that were added, what follows must be added too, or it would overtake them.
    const added = rowsIn(burst, offset[row], length[row], context) - (isSpread ? 0 : 1);
    const isRoom = backlog.isEmpty && before + added <= BURST_CAPACITY;
    if (isRoom && !isSpread) unframeOne(burst, row, context, nowUs);
    else if (!backlog.put(burst, row)) next[row] = DROP.arena_full;
    else if (isRoom) unframeOne(burst, backlog.take(burst), context, nowUs);
    if (burst.count > before) isSpread = true;
  }
}

/** Adds packets of the backlog, and carries out their datagrams' control frames, as far as there are rows. */
export function unframeRest(burst: Burst, context: IngressContext, nowUs: number): void {
  const { backlog } = context;
  while (!backlog.isEmpty) {
    const rows = rowsIn(burst, backlog.nextOffset, backlog.nextLength, context);
    if (burst.count + rows > BURST_CAPACITY) return;
    unframeOne(burst, backlog.take(burst), context, nowUs);
  }
}

/** The rows that the plaintext needs, estimated from the frames' heads: one for a packet, for a repair those it may recover. */
function rowsIn({ view }: Burst, at: number, length: number, { frames }: IngressContext): number {
  if (length === 0 || !isFrame(view, at)) return 1;
  let packets = 0, repairs = 0;
  frames.start(at, length);
  for (let kind = frames.next(view); kind >= 0; kind = frames.next(view)) {
    if (kind === FRAME_PACKET || kind === FRAME_LZ4 || kind === FRAME_HEADER_COMPRESSED) packets++;
    else if (kind === FRAME_REPAIR || kind === FRAME_COPY) repairs++;
  }
  return Math.max(1, packets) + RECOVERED_ROWS * repairs;
}

function unframeOne(burst: Burst, row: number, context: IngressContext, nowUs: number): void {
  const { bytes: arena, view, offset, length, next, session, peer, path, counter } = burst;
  const { associations, frames, metrics, table } = context;
  const { sessions } = associations.oxtunnel!;
  const owner = session[row], id = peer[row];
  const rest = sessions.of[owner], way = sessions.onPath[path[row]];
  // A handshake may have ended the session while this waited in the backlog, or a frame the path.
  if (
    rest === undefined || way === undefined || table.peer[owner] !== id || table.session[path[row]] !== owner
  ) {
    next[row] = DROP.no_session;
    return;
  }
  const { repair, copies } = way, takesLz4 = (rest.features & FEATURE_LZ4) !== 0;
  let packetAt = NONE, packetBytes = 0, packetKind = FRAME_PACKET, isHeard = length[row] === 0;
  // Contexts are the first path's.
  const headers = path[row] === owner ? rest.headers : undefined;
  // Packets that repair, or a copy, brought before are known when their own datagram comes.
  let symbolAt = NONE, isKnown = false, copyCount = 0;
  const end = offset[row] + length[row];
  frames.start(offset[row], length[row]);
  for (;;) {
    let kind = frames.next(view);
    if (kind === FRAMES_END) break;
    if (kind === FRAMES_MALFORMED) {
      metrics.drop(DROP.malformed_inner);
      break;
    }
    if (kind === FRAME_CONTROL) {
      if (!controlFits(view, frames.at, frames.length)) metrics.drop(DROP.malformed_inner);
      else if (!sessions.budget.pay(id, controlPrice(controlKind(view, frames.at)), nowUs)) {
        metrics.drop(DROP.control_flood);
      } else if (rest.onControl(burst, row, frames.at, frames.length, nowUs)) isHeard = true;
    } else if (holdsPacket(kind, takesLz4, headers)) {
      isHeard = true;
      if (symbolAt === NONE) {
        symbolAt = frames.headAt;
        isKnown = repair?.packetsReceived(arena, symbolAt, end - symbolAt, counter[row]) === false;
        if (copies !== undefined && !copies.isFirst(counter[row])) isKnown = true;
      }
      if (isKnown) continue;
      const front = kind === FRAME_HEADER_COMPRESSED
        ? takeDefinition(view, frames.at, frames.length, counter[row], headers!.expander)
        : 0;
      if (front < 0) {
        metrics.drop(DROP.malformed_inner);
        continue;
      }
      if (front > 0) kind = FRAME_PACKET;
      const at = frames.at + front, bytes = frames.length - front;
      if (packetAt === NONE) {
        packetKind = kind;
        packetAt = at;
        packetBytes = bytes;
      } else if (kind === FRAME_HEADER_COMPRESSED) {
        addShort(burst, row, at, bytes, counter[row], headers!.expander, context);
      } else addPacket(burst, row, kind, at, bytes, context);
    } else if (kind === FRAME_REPAIR) {
      isHeard = true;
      if (repair?.repairReceived(burst, frames.at, frames.length, counter[row], nowUs) === false) {
        metrics.drop(DROP.malformed_inner);
      }
    } else if (kind === FRAME_COPY && rest.pathSet !== undefined) {
      isHeard = true;
      if (copyCount < COPIES_MAX) {
        copyAt[copyCount] = frames.at;
        copyBytes[copyCount++] = frames.length;
      }
    }
    // Unknown kinds are skipped.
  }
  if (isHeard) sessions.elicited(path[row], id, nowUs);
  if (isKnown) metrics.column[COUNTER.packets_late]++;
  if (repair !== undefined) recover(burst, row, repair, copies, takesLz4, headers?.expander, context, nowUs);
  for (let i = 0; i < copyCount; i++) {
    takeCopy(burst, row, copyAt[i], copyBytes[i], rest, takesLz4, context, nowUs);
  }
  if (packetAt === NONE) {
    next[row] = DONE;
    return;
  }
  placeFirst(burst, row, packetKind, packetAt, packetBytes, headers, context);
  if (next[row] === OPENED) clampMss(view, offset[row], length[row], sessions.innerMtu(path[row]));
}

/** Whether frames of this kind hold a packet, and were agreed on. */
function holdsPacket(kind: number, takesLz4: boolean, headers: Headers | undefined): boolean {
  if (kind === FRAME_HEADER_COMPRESSED) return headers !== undefined;
  return kind === FRAME_PACKET || (kind === FRAME_LZ4 && takesLz4);
}

/** Makes the datagram's first packet the row's packet, whatever its frame was. */
function placeFirst(
  burst: Burst,
  row: number,
  kind: number,
  at: number,
  bytes: number,
  headers: Headers | undefined,
  context: IngressContext,
): void {
  if (kind === FRAME_LZ4) decompressInPlace(burst, row, at, bytes, context);
  else if (kind === FRAME_HEADER_COMPRESSED) {
    expandInPlace(burst, row, at, bytes, burst.counter[row], headers!.expander);
  } else leaveInPlace(burst, row, at, bytes);
}
