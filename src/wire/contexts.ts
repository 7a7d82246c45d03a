// Hot path.
/**
 * Entries of a contexts frame (PROTOCOL §14): definitions and anchors of headers that have come, by the octets that name them.
 * Invariant: an entry's first octet tells its length. Says nothing of what they define.
 */

/** In an entry's first octet, beside the context's number: the entry is of an anchor. */
export const ANCHOR_ENTRY = 0x80;

/** Whether whole entries lie from `at` to `end`: of definitions two octets each, of anchors three. */
export function areContexts(view: DataView, at: number, end: number): boolean {
  while (at < end) at += view.getUint8(at) < ANCHOR_ENTRY ? 2 : 3;
  return at === end;
}
