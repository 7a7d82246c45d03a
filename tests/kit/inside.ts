/**
 * What tests reach into behind a core's back: its tables, and datagrams with plaintexts of the test's own making, sealed
 * with a session's own keys. Breaks what rules the test wants broken, and judges nothing.
 */
import { Burst, TO_SEAL } from "../../src/vector/burst.ts";
import type { Host } from "./world.ts";

/** A core's own tables. */
// deno-lint-ignore no-explicit-any
export const inside = (host: Host): any => host.core;

/** The present session of a host's first peer. */
// deno-lint-ignore no-explicit-any
export function sessionOf(host: Host): any {
  const { peers, associations } = inside(host);
  return associations.oxtunnel.sessions.of[peers.current[0]];
}

/** A datagram of that session whose plaintext is written by `write`, which returns its length. */
export function sealed(from: Host, write: (view: DataView, at: number) => number): Uint8Array {
  const { peers, table, associations: { oxtunnel: { sessions } } } = inside(from);
  const session = peers.current[0];
  const burst = new Burst(from.arena), row = burst.grow(0, TO_SEAL);
  burst.length[row] = write(burst.view, burst.offset[row]);
  burst.session[row] = session;
  burst.peer[row] = 0;
  burst.path[row] = session;
  sessions.number(burst, row, session, table.remoteIndex[session]);
  sessions.datagramAead.seal(burst);
  const datagram = burst.bytes.slice(burst.offset[row], burst.offset[row] + burst.length[row]);
  burst.release();
  return datagram;
}
