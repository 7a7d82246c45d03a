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
  FRAME_ROHC,
  FRAMES_END,
  FRAMES_MALFORMED,
  isFrame,
} from "../wire/frame.ts";
import { clampMss } from "../wire/fit.ts";
import { FEATURE_LZ4 } from "../wire/parameters.ts";
import type { FurtherPath } from "../session/oxtunnel/further_path.ts";
import type { OxSession } from "../session/oxtunnel/session.ts";
import { controlPrice } from "../session/oxtunnel/control_budget.ts";
import type { IngressContext } from "./context.ts";
import {
  addPacket,
  addRohc,
  addShort,
  decompressInPlace,
  expandInPlace,
  leaveInPlace,
  restoreInPlace,
  takeDefinition,
} from "./packets.ts";
import { recover, RECOVERED_ROWS, takeCopies } from "./recover.ts";

/** A path of a session, the first or a further one. */
type Way = OxSession | FurtherPath;

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
    if (kind === FRAME_REPAIR || kind === FRAME_COPY) repairs++;
    else if (
      kind === FRAME_PACKET || kind === FRAME_LZ4 || kind === FRAME_HEADER_COMPRESSED || kind === FRAME_ROHC
    ) packets++;
  }
  return Math.max(1, packets) + RECOVERED_ROWS * repairs;
}

function unframeOne(burst: Burst, row: number, context: IngressContext, nowUs: number): void {
  const { view, offset, length, next, peer, path, counter } = burst;
  const { frames, metrics } = context, { sessions } = context.associations.oxtunnel!;
  const rest = sessionOf(burst, row, context);
  if (rest === undefined) {
    next[row] = DROP.no_session;
    return;
  }
  const way = sessions.wayOf(rest, path[row]);
  const { repair, headers } = way;
  let packetAt = NONE, packetBytes = 0, packetKind = FRAME_PACKET, isHeard = length[row] === 0;
  // Packets that repair, or a copy, brought before are known when their own datagram comes.
  let symbolAt = NONE, isKnown = false, hasCopies = false;
  frames.start(offset[row], length[row]);
  for (;;) {
    let kind = frames.next(view);
    if (kind === FRAMES_END) break;
    if (kind === FRAMES_MALFORMED) {
      metrics.drop(DROP.malformed_inner);
      break;
    }
    if (kind === FRAME_CONTROL) {
      if (obey(burst, row, rest, context, nowUs)) isHeard = true;
    } else if (holdsPacket(kind, way)) {
      isHeard = true;
      if (symbolAt === NONE) {
        symbolAt = frames.headAt;
        isKnown = isOld(burst, row, symbolAt, way);
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
      } else addFurther(burst, row, kind, at, bytes, way, context);
    } else if (kind === FRAME_REPAIR) {
      isHeard = true;
      if (repair?.repairReceived(burst, frames.at, frames.length, counter[row], nowUs) === false) {
        metrics.drop(DROP.malformed_inner);
      }
    } else if (kind === FRAME_COPY && rest.pathSet !== undefined) {
      isHeard = hasCopies = true;
    }
    // Unknown kinds are skipped.
  }
  // One of the frames may have closed the path that they came on.
  if (isHeard && sessions.onPath[path[row]] === way) sessions.elicited(path[row], peer[row], nowUs);
  if (isKnown) metrics.column[COUNTER.packets_late]++;
  if (repair !== undefined) recover(burst, row, repair, way, context, nowUs);
  if (hasCopies) takeCopies(burst, row, rest, context, nowUs);
  if (packetAt === NONE) {
    next[row] = DONE;
    return;
  }
  placeFirst(burst, row, packetKind, packetAt, packetBytes, way, context);
  if (next[row] === OPENED) clampMss(view, offset[row], length[row], sessions.innerMtu(path[row]));
}

/** The row's session; undefined where a handshake ended it while the row waited in the backlog, or a frame ended its path. */
function sessionOf(
  burst: Burst,
  row: number,
  { associations, table }: IngressContext,
): OxSession | undefined {
  const { sessions } = associations.oxtunnel!, owner = burst.session[row], path = burst.path[row];
  if (table.peer[owner] !== burst.peer[row]) return undefined;
  const isPath = path === owner || table.session[path] === owner && sessions.onPath[path] !== undefined;
  return isPath ? sessions.of[owner] : undefined;
}

/** Takes the datagram's packets, which begin at `at`; whether repair or a copy has brought them before. */
function isOld({ bytes, offset, length, counter }: Burst, row: number, at: number, way: Way): boolean {
  const { repair, copies } = way, end = offset[row] + length[row];
  return repair?.packetsReceived(bytes, at, end - at, counter[row]) === false ||
    copies?.isFirst(counter[row]) === false;
}

/** Carries out the control frame that the reader is at; returns whether its datagram is to be reported to the other end. */
function obey(burst: Burst, row: number, rest: OxSession, context: IngressContext, nowUs: number): boolean {
  const { frames: { at, length }, metrics, associations } = context, { view } = burst;
  if (!controlFits(view, at, length)) {
    metrics.drop(DROP.malformed_inner);
    return false;
  }
  const price = controlPrice(controlKind(view, at));
  if (associations.oxtunnel!.sessions.budget.pay(burst.peer[row], price, nowUs)) {
    return rest.onControl(burst, row, at, length, nowUs);
  }
  metrics.drop(DROP.control_flood);
  return false;
}

/** Whether frames of this kind hold a packet, and were agreed on. */
function holdsPacket(kind: number, { features, headers, rohc }: Way): boolean {
  if (kind === FRAME_HEADER_COMPRESSED) return headers !== undefined;
  if (kind === FRAME_ROHC) return rohc !== undefined;
  return kind === FRAME_PACKET || (kind === FRAME_LZ4 && (features & FEATURE_LZ4) !== 0);
}

/** Puts another packet of the datagram than the first into a row of its own, whatever its frame was. */
function addFurther(
  burst: Burst,
  row: number,
  kind: number,
  at: number,
  bytes: number,
  { headers, rohc }: Way,
  context: IngressContext,
): void {
  const counter = burst.counter[row];
  if (kind === FRAME_HEADER_COMPRESSED) {
    addShort(burst, row, at, bytes, counter, headers!.expander, context);
  } else if (kind === FRAME_ROHC) addRohc(burst, row, at, bytes, counter, rohc!.receiver, context);
  else addPacket(burst, row, kind, at, bytes, context);
}

/** Makes the datagram's first packet the row's packet, whatever its frame was. */
function placeFirst(
  burst: Burst,
  row: number,
  kind: number,
  at: number,
  bytes: number,
  { headers, rohc }: Way,
  context: IngressContext,
): void {
  if (kind === FRAME_LZ4) decompressInPlace(burst, row, at, bytes, context);
  else if (kind === FRAME_HEADER_COMPRESSED) {
    expandInPlace(burst, row, at, bytes, burst.counter[row], headers!.expander);
  } else if (kind === FRAME_ROHC) {
    restoreInPlace(burst, row, at, bytes, burst.counter[row], rohc!.receiver);
  } else leaveInPlace(burst, row, at, bytes);
}
