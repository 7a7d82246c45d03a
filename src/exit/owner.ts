/**
 * Who holds what a packet brings about in an exit, so that shares are counted by peer and not by address. Invariant: all
 * addresses of a peer are one owner. Knows no limits: each table has its own.
 */
import { NONE } from "../vector/arena.ts";

/** The owner of a packet of a peer's row, or where the peer is not known (NONE) of an address. */
export function ownerOf(peer: number, address: string): string {
  return peer === NONE ? address : `peer ${peer}`;
}
