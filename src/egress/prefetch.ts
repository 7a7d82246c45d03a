// Hot path.
/**
 * First step of egress: finds the peers of packets from outside, and reads the table lines that all packets will need, for all
 * rows before the first is used, so that cache misses overlap (vector/columns.ts). Invariant: a packet's peer is the one that
 * steer would find, or is left for steer to find; changes and decides nothing else. Does nothing while caches hold every
 * session.
 */
import { SESSIONS_CACHED } from "../session/table.ts";
import { NONE } from "../vector/arena.ts";
import { type Burst, BURST_CAPACITY, TO_TUNNEL } from "../vector/burst.ts";
import { innerLength, readDestination } from "../wire/inner.ts";
import type { EgressContext } from "./context.ts";

/** Rows of the burst, a run to one destination as one. */
const wanted = new Uint32Array(BURST_CAPACITY);
/** Their peers; the rows of these in the session table; of these, OxTunnel's. */
const ids = new Uint32Array(BURST_CAPACITY);
const rows = new Uint32Array(BURST_CAPACITY);
const oxRows = new Uint32Array(BURST_CAPACITY);
/** Rows of the table of paths. */
const paths = new Uint32Array(BURST_CAPACITY);
/** Where the table of prefixes has the destinations of those that come from outside. */
const places = new Uint32Array(BURST_CAPACITY);

export function prefetch(burst: Burst, context: EgressContext): void {
  const { table, peers, associations } = context;
  if (table.count <= SESSIONS_CACHED) return;
  const packets = findPackets(burst, context);
  if (packets === 1) return;
  peers.routes.touch(places, packets);
  const known = findPeers(burst, packets, context);
  peers.sent.touch(ids, known);
  associations.timers.touch(ids, known);
  const live = findSessions(known, context);
  table.sent.touch(rows, live);
  table.pathsOf(rows, live, paths);
  associations.paths.endpoints.touch(paths, live);
  const { oxtunnel } = associations;
  if (oxtunnel === undefined) return;
  const spoken = table.oxtunnelOf(rows, live, oxRows);
  oxtunnel.sessions.columns.touch(oxRows, spoken);
  table.pathsOf(oxRows, spoken, paths);
  associations.paths.measures.touch(paths, spoken);
}

/** Collects the packets to steer and their places in the table of prefixes; returns the number. */
function findPackets(burst: Burst, { peers, words }: EgressContext): number {
  const { count, view, offset, length, next, peer } = burst;
  let packets = 0, lastWord = 0, lastPeer = NONE;
  for (let row = 0; row < count; row++) {
    if (next[row] !== TO_TUNNEL) continue;
    if (peer[row] !== NONE) {
      if (peer[row] === lastPeer) continue;
      lastPeer = peer[row];
      places[packets] = 0;
    } else {
      if (innerLength(view, offset[row], length[row]) === 0) continue;
      readDestination(view, offset[row], words, 0);
      if (packets > 0 && words[3] === lastWord) continue;
      lastWord = words[3];
      places[packets] = peers.routes.placeOf(words, 0);
    }
    wanted[packets++] = row;
  }
  return packets;
}

/** Collects their peers; returns the number. */
function findPeers({ view, offset, peer }: Burst, packets: number, { peers, words }: EgressContext): number {
  let known = 0;
  for (let i = 0; i < packets; i++) {
    const row = wanted[i];
    if (peer[row] === NONE) {
      readDestination(view, offset[row], words, 0);
      peer[row] = peers.routes.lookup(words, 0);
    }
    if (peer[row] !== NONE) ids[known++] = peer[row];
  }
  return known;
}

/** Collects the rows of their sessions; returns the number. */
function findSessions(known: number, { peers }: EgressContext): number {
  let live = 0;
  for (let i = 0; i < known; i++) {
    const row = peers.current[ids[i]];
    if (row !== NONE) rows[live++] = row;
  }
  return live;
}
