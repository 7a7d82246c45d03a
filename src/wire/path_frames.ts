/**
 * The bodies of the control frames about a session's further paths, path ids and path status (PROTOCOL §14), as control.ts has
 * the others. Invariant: as there, whose `controlFits` vouches for these too. Decides nothing.
 */
import { CONTROL_PATH_IDS, CONTROL_PATH_STATUS, writeReliable } from "./control.ts";
import { FRAME_HEAD_BYTES } from "./frame.ts";

/** Ids ids[0..count-1], 1 to 4, of the path `path`, 1 to 7, whose numbers start at `firstNumber`; as `writeConnectionIds`. */
export function writePathIds(
  view: DataView,
  at: number,
  sequence: number,
  path: number,
  firstNumber: number,
  retireBefore: number,
  ids: Uint32Array,
  count: number,
): number {
  const body = writeReliable(view, at, CONTROL_PATH_IDS, sequence, 5 + 4 * count);
  view.setUint8(body, path);
  view.setUint16(body + 1, firstNumber, true);
  view.setUint16(body + 3, retireBefore, true);
  for (let i = 0; i < count; i++) view.setUint32(body + 5 + 4 * i, ids[i], true);
  return FRAME_HEAD_BYTES + 8 + 4 * count;
}

/** Ids in a frame of path ids, 1 to 4. */
export function pathIdCount(length: number): number {
  return (length - 8) / 4;
}

export function readFirstPathIdNumber(view: DataView, at: number): number {
  return view.getUint16(at + 4, true);
}

export function readRetirePathIdsBefore(view: DataView, at: number): number {
  return view.getUint16(at + 6, true);
}

/** @param i 0 to pathIdCount - 1. */
export function readNewPathId(view: DataView, at: number, i: number): number {
  return view.getUint32(at + 8 + 4 * i, true);
}

/** @param path 0 to 7. @param status PATH_*. @param cost 0 or COST_METERED. @param classes bit c for CLASS_* c. */
export function writePathStatus(
  view: DataView,
  at: number,
  sequence: number,
  path: number,
  status: number,
  cost: number,
  classes: number,
): number {
  const body = writeReliable(view, at, CONTROL_PATH_STATUS, sequence, 4);
  view.setUint8(body, path);
  view.setUint8(body + 1, status);
  view.setUint8(body + 2, cost);
  view.setUint8(body + 3, classes);
  return FRAME_HEAD_BYTES + 7;
}

export function readPathCost(view: DataView, at: number): number {
  return view.getUint8(at + 5);
}

/** Classes whose packets are wanted on a second path too: bit c for CLASS_* c. */
export function readPathClasses(view: DataView, at: number): number {
  return view.getUint8(at + 6);
}
