// Hot path.
/**
 * Recovers lost packets (PROTOCOL §13): after each datagram of a session with repair, solvable sources are solved, and their
 * packets are added to the burst; so are those of copies of another path's datagrams. Invariant: a recovered packet is checked like any other, and is delivered once even when
 * its own datagram arrives late; of a recovered source only packets are read.
 * Keeps PROTOCOL R48, R92 and R112.
 */
import type { Expander } from "../codec/headers/expander.ts";
import { COUNTER, DROP } from "../metrics.ts";
import type { SessionRepair } from "../repair/session_repair.ts";
import { CopyWindow } from "../session/oxtunnel/copy_window.ts";
import type { FurtherPath } from "../session/oxtunnel/further_path.ts";
import type { PathSet } from "../session/oxtunnel/path_set.ts";
import type { OxSession } from "../session/oxtunnel/session.ts";
import { type Burst, DONE } from "../vector/burst.ts";
import { COPY_HEAD_BYTES, copyFits, readCopyCounter, readCopyPath } from "../wire/repair.ts";
import {
  FRAME_COPY,
  FRAME_HEADER_COMPRESSED,
  FRAME_LZ4,
  FRAME_PACKET,
  FRAME_ROHC,
  isFrame,
} from "../wire/frame.ts";
import { innerLength } from "../wire/inner.ts";
import { FEATURE_LZ4 } from "../wire/parameters.ts";
import type { IngressContext } from "./context.ts";
import { addPacket, addRohc, addShort, takeDefinition } from "./packets.ts";

/** A path of a session, the first or a further one. */
type Way = OxSession | FurtherPath;

/** Rows for a recovered packet: the solved source, and the packet in it. */
export const RECOVERED_ROWS = 2;
/** Copies in one datagram that are read (PROTOCOL R112), and where those of the datagram that is read are. */
const COPIES_MAX = 8;
const copyAt = new Uint32Array(COPIES_MAX), copyBytes = new Uint32Array(COPIES_MAX);

/** Adds the packets that `repair` can recover now, for the session and peer of `row`. */
export function recover(
  burst: Burst,
  row: number,
  repair: SessionRepair,
  way: Way,
  context: IngressContext,
  nowUs: number,
): void {
  const found = repair.solve(nowUs);
  for (let i = 0; i < found; i++) {
    const counter = repair.recoveredCounter(i);
    if (way.copies?.isFirst(counter) === false) continue;
    const length = repair.recoveredBytes(i), copy = burst.grow(length, DONE);
    if (copy < 0) {
      context.metrics.drop(DROP.arena_full);
      continue;
    }
    repair.copyRecovered(i, burst.bytes, burst.offset[copy]);
    readSource(burst, row, copy, length, counter, way, context, COUNTER.packets_repaired);
  }
}

/** Takes the copies in the datagram of `row`, the first COPIES_MAX. */
export function takeCopies(
  burst: Burst,
  row: number,
  rest: OxSession,
  context: IngressContext,
  nowUs: number,
): void {
  const { frames } = context, { view } = burst;
  let count = 0;
  frames.start(burst.offset[row], burst.length[row]);
  for (let kind = frames.next(view); kind >= 0 && count < COPIES_MAX; kind = frames.next(view)) {
    if (kind !== FRAME_COPY) continue;
    copyAt[count] = frames.at;
    copyBytes[count++] = frames.length;
  }
  // The reader is needed for what is in them.
  for (let i = 0; i < count; i++) {
    takeCopy(burst, row, copyAt[i], copyBytes[i], rest.pathSet!, context, nowUs);
  }
}

/**
 * Takes the body of a copy frame of `length` bytes at `at` in the datagram of `row`: adds its packets to the burst unless they
 * have come before.
 */
function takeCopy(
  burst: Burst,
  row: number,
  at: number,
  length: number,
  pathSet: PathSet,
  context: IngressContext,
  nowUs: number,
): void {
  const { metrics, table, associations } = context, { bytes, view, offset } = burst;
  if (!copyFits(view, at, length)) {
    metrics.drop(DROP.malformed_inner);
    return;
  }
  metrics.column[COUNTER.copies_received]++;
  const path = pathSet.rowOf(readCopyPath(view, at));
  // A copy on its source's own path would be a repair.
  if (path === undefined || path === burst.path[row]) return;
  const way = associations.oxtunnel!.sessions.onPath[path]!;
  const counter = readCopyCounter(view, at, table.replay.highest[path]);
  if (counter < 0 || table.replay.hasSeen(path, counter)) return;
  way.copies ??= new CopyWindow();
  if (!way.copies.isFirst(counter)) return;
  const from = at + COPY_HEAD_BYTES, sourceBytes = length - COPY_HEAD_BYTES;
  // What repair brought back before the first copy, the window does not know.
  if (way.repair?.copyReceived(bytes, from, sourceBytes, counter, nowUs) === false) return;
  way.copies.useful++;
  metrics.column[COUNTER.copies_useful]++;
  const copy = burst.grow(sourceBytes, DONE);
  if (copy < 0) {
    metrics.drop(DROP.arena_full);
    return;
  }
  bytes.copyWithin(offset[copy], from, from + sourceBytes);
  readSource(burst, row, copy, sourceBytes, counter, way, context, COUNTER.packets_copied);
}

/** Adds the packets of a source, `length` bytes in the row `copy`, to the burst, and counts each. */
function readSource(
  burst: Burst,
  row: number,
  copy: number,
  length: number,
  sourceCounter: number,
  { features, headers, rohc }: Way,
  context: IngressContext,
  counted: number,
): void {
  const { metrics, frames } = context;
  const { view, offset, session, peer, path, headerBytes } = burst;
  const at = offset[copy];
  session[copy] = session[row];
  peer[copy] = peer[row];
  path[copy] = path[row];
  headerBytes[copy] = 0;
  frames.start(at, length);
  for (let kind = frames.next(view); kind >= 0; kind = frames.next(view)) {
    if (kind === FRAME_HEADER_COMPRESSED || kind === FRAME_ROHC) {
      // A bare one would be as long as the symbol; a copy is as long as its source.
      if (counted === COUNTER.packets_repaired && !isFrame(view, frames.headAt)) continue;
      if (kind === FRAME_ROHC) {
        if (rohc === undefined) continue;
        addRohc(burst, copy, frames.at, frames.length, sourceCounter, rohc.receiver, context);
        metrics.column[counted]++;
      } else if (headers !== undefined) {
        recoverShort(burst, copy, sourceCounter, headers.expander, context, counted);
      }
      continue;
    }
    if (kind !== FRAME_PACKET && !(kind === FRAME_LZ4 && (features & FEATURE_LZ4) !== 0)) continue;
    // The symbol is as long as the longest that it was combined with, and a bare packet ends before that.
    const packetBytes = isFrame(view, frames.headAt)
      ? frames.length
      : innerLength(view, frames.at, frames.length);
    addPacket(burst, copy, kind, frames.at, packetBytes, context);
    metrics.column[counted]++;
  }
}

/** The header-compressed frame that the reader is at, of the source with `counter`: a short packet, or a definition. */
function recoverShort(
  burst: Burst,
  row: number,
  counter: number,
  expander: Expander,
  context: IngressContext,
  counted: number,
): void {
  const { frames: { at, length }, metrics } = context;
  const front = takeDefinition(burst.view, at, length, counter, expander);
  if (front < 0) {
    metrics.drop(DROP.malformed_inner);
    return;
  }
  if (front > 0) addPacket(burst, row, FRAME_PACKET, at + front, length - front, context);
  else addShort(burst, row, at, length, counter, expander, context);
  metrics.column[counted]++;
}
