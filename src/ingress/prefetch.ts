// Hot path.
/**
 * First step of ingress: reads the table lines that the burst's datagrams will need, for all rows before the first is used,
 * so that cache misses overlap (vector/columns.ts). Invariant: changes nothing and decides nothing; a datagram without a
 * session costs useless reads, never a wrong one. Does nothing while caches hold every session.
 */
import { OXTUNNEL, SESSIONS_CACHED } from "../session/table.ts";
import { type Burst, BURST_CAPACITY, TO_PARSE } from "../vector/burst.ts";
import { isOxtunnel, readConnectionId } from "../wire/oxtunnel.ts";
import { KEEPALIVE_BYTES, readReceiver } from "../wire/wireguard.ts";
import type { IngressContext } from "./context.ts";

/** Rows of the session table that datagrams lead to, a run of one as one; of these, OxTunnel's; the peers of all. */
const rows = new Uint32Array(BURST_CAPACITY);
const oxRows = new Uint32Array(BURST_CAPACITY);
const ids = new Uint32Array(BURST_CAPACITY);
/** Rows of the table of paths. */
const paths = new Uint32Array(BURST_CAPACITY);

export function prefetch(burst: Burst, context: IngressContext): void {
  const { table, peers, associations } = context;
  if (table.count <= SESSIONS_CACHED) return;
  const named = findRows(burst, context);
  if (named === 1) return;
  table.received.touch(rows, named);
  const owned = findOwners(named, context);
  table.replay.touch(rows, owned);
  peers.received.touch(ids, owned);
  associations.paths.presence.touch(ids, owned);
  table.pathsOf(rows, owned, paths);
  associations.paths.endpoints.touch(paths, owned);
  associations.timers.touch(ids, owned);
  const { oxtunnel } = associations;
  if (oxtunnel === undefined) return;
  const spoken = table.oxtunnelOf(rows, owned, oxRows);
  oxtunnel.sessions.columns.touch(oxRows, spoken);
  table.pathsOf(oxRows, spoken, paths);
  associations.paths.measures.touch(paths, spoken);
}

/** Collects the rows that receiver indices and connection ids name; returns their number. */
function findRows({ count, view, offset, length, next }: Burst, { table }: IngressContext): number {
  let named = 0, last = -1;
  for (let row = 0; row < count; row++) {
    if (next[row] !== TO_PARSE || length[row] < KEEPALIVE_BYTES) continue;
    const at = offset[row];
    const index = isOxtunnel(view.getUint8(at)) ? readConnectionId(view, at) : readReceiver(view, at);
    if (index === last) continue;
    last = index;
    const found = table.rowOf(index);
    if (found < table.capacity) rows[named++] = found;
  }
  return named;
}

/** Replaces the rows of spare ids by their sessions' rows, and skips rows without a peer; returns the number. */
function findOwners(named: number, { table, peers }: IngressContext): number {
  const { session, protocol, peer } = table;
  let owned = 0;
  for (let i = 0; i < named; i++) {
    const owner = protocol[rows[i]] === OXTUNNEL ? session[rows[i]] : rows[i];
    const id = peer[owner];
    if (id >= peers.capacity) continue;
    rows[owned] = owner;
    ids[owned++] = id;
  }
  return owned;
}
