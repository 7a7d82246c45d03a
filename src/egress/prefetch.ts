// Hot path.
/**
 * In front of egress's first node: finds the peers of packets from outside, and reads what all packets will need of the
 * tables, all rows before any is needed, for the reason that ingress/prefetch.ts gives. Invariant: a packet's peer is the one
 * that steer would find, or is left for it to find; nothing else changes and nothing is judged. Does nothing while
 * caches hold every session.
 */
import { OXTUNNEL, SESSIONS_CACHED } from "../session/table.ts";
import { NONE } from "../vector/arena.ts";
import { type Burst, BURST_CAPACITY, TO_TUNNEL } from "../vector/burst.ts";
import { innerLength, readDestination } from "../wire/inner.ts";
import type { EgressContext } from "./context.ts";

/** Rows of the burst, runs to one destination as one; then their peers. */
const rows = new Uint32Array(BURST_CAPACITY), ids = new Uint32Array(BURST_CAPACITY);
/** What was read goes here, or the compiler would leave the reading out. */
const read = new Float64Array(1);

export function prefetch(burst: Burst, context: EgressContext): void {
  if (context.table.count <= SESSIONS_CACHED) return;
  const wanted = prefetchRoutes(burst, context);
  const found = prefetchPeers(burst, wanted, context);
  prefetchSessions(found, context);
}

/** Where the table of prefixes has the destinations of packets from outside; returns how many rows were noted. */
function prefetchRoutes(burst: Burst, { peers, words }: EgressContext): number {
  const { count, view, offset, length, next, peer } = burst;
  let wanted = 0, lastWord = 0, lastPeer = NONE, sum = 0;
  for (let row = 0; row < count; row++) {
    if (next[row] !== TO_TUNNEL) continue;
    if (peer[row] !== NONE) {
      if (peer[row] === lastPeer) continue;
      lastPeer = peer[row];
    } else {
      if (innerLength(view, offset[row], length[row]) === 0) continue;
      readDestination(view, offset[row], words, 0);
      if (wanted > 0 && words[3] === lastWord) continue;
      lastWord = words[3];
      sum ^= peers.routes.touch(words, 0);
    }
    rows[wanted++] = row;
  }
  read[0] = sum;
  return wanted;
}

/** What steer and seal read by the peer's row; returns how many peers were noted. */
function prefetchPeers(
  burst: Burst,
  wanted: number,
  { peers, associations, words: destination }: EgressContext,
): number {
  const { view, offset, peer } = burst;
  const { owner, current, address, local, port } = peers;
  const { bytesSent, keepaliveAtUs, silenceAtUs, persistentKeepaliveUs, jitterUs } = peers;
  const { timers } = associations;
  let found = 0, words = 0, times = 0;
  for (let i = 0; i < wanted; i++) {
    const row = rows[i];
    if (peer[row] === NONE) {
      readDestination(view, offset[row], destination, 0);
      peer[row] = peers.routes.lookup(destination, 0);
    }
    const id = peer[row];
    if (id === NONE) continue;
    words ^= owner[id] ^ current[id] ^ address[4 * id] ^ local[4 * id] ^ port[id];
    times += bytesSent[id] + keepaliveAtUs[id] + silenceAtUs[id] + persistentKeepaliveUs[id] + jitterUs[id] +
      timers.touch(id);
    ids[found++] = id;
  }
  read[0] = words + times;
  return found;
}

/** What steer, seal and the nodes between them read by the session's row. */
function prefetchSessions(found: number, { table, peers, associations }: EgressContext): void {
  const { protocol, remoteIndex, initiator, endsUs, sendCounter, sendLimit } = table;
  const { oxtunnel } = associations;
  let words = 0, times = 0;
  for (let i = 0; i < found; i++) {
    const session = peers.current[ids[i]];
    if (session === NONE) continue;
    words ^= protocol[session] ^ remoteIndex[session] ^ initiator[session];
    times += endsUs[session] + sendCounter[session] + sendLimit[session];
    if (protocol[session] === OXTUNNEL) times += oxtunnel!.sessions.touch(session);
  }
  read[0] = words + times;
}
