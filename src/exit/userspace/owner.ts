/**
 * The owner of a flow in an exit, by which shares are counted for each peer and not for each address. Invariant: all
 * addresses of a peer are one owner. Knows no limits: each table has its own.
 */
import { NONE } from "../../vector/arena.ts";

/** The owner of a packet: by its peer's row, or by its address where the peer is unknown (NONE). */
export function ownerOf(peer: number, address: string): string {
  return peer === NONE ? address : `peer ${peer}`;
}
