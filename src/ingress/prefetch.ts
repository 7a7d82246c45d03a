// Hot path.
/**
 * In front of ingress's first node: reads what the burst's datagrams will need of the tables, all rows before any is
 * needed. A core waits for many reads at once, but a node's loop is too long for it to see the next row's while it waits
 * for this one's. Invariant: nothing changes and nothing is judged; a datagram that names no session costs reads in
 * vain, never a wrong one. Does nothing while caches hold every session.
 */
import { OXTUNNEL, SESSIONS_CACHED } from "../session/table.ts";
import { type Burst, BURST_CAPACITY, TO_PARSE } from "../vector/burst.ts";
import { isOxtunnel, readConnectionId } from "../wire/oxtunnel.ts";
import { KEEPALIVE_BYTES, readReceiver } from "../wire/wireguard.ts";
import type { IngressContext } from "./context.ts";

/** The rows that the burst's datagrams lead to, runs of one as one. */
const rows = new Uint32Array(BURST_CAPACITY);
/** What was read goes here, or the compiler would leave the reading out. */
const read = new Float64Array(1);

export function prefetch(burst: Burst, context: IngressContext): void {
  if (context.table.count <= SESSIONS_CACHED) return;
  const found = prefetchSessions(burst, context);
  prefetchPeers(found, context);
}

/** What parse and open read by the session's row; returns how many rows there are. */
function prefetchSessions(burst: Burst, { table }: IngressContext): number {
  const { count, view, offset, length, next } = burst;
  const { capacity, receiverIndex, keyed, protocol, session, peer, endsUs, initiator } = table;
  const { highest, accepted } = table.replay;
  let found = 0, last = -1, words = 0, times = 0;
  for (let row = 0; row < count; row++) {
    if (next[row] !== TO_PARSE || length[row] < KEEPALIVE_BYTES) continue;
    const at = offset[row];
    const index = isOxtunnel(view.getUint8(at)) ? readConnectionId(view, at) : readReceiver(view, at);
    if (index === last) continue;
    last = index;
    const place = table.rowOf(index);
    if (place >= capacity) continue;
    words ^= receiverIndex[place] ^ keyed[place] ^ protocol[place] ^ session[place] ^ peer[place] ^
      initiator[place];
    times += endsUs[place] + highest[place] + accepted[place];
    rows[found++] = place;
  }
  read[0] = words + times;
  return found;
}

/** What open and deliver read by the peer's row, or by a counter. */
function prefetchPeers(found: number, { table, peers, associations }: IngressContext): void {
  const { session, peer, protocol, replay } = table;
  const { capacity, current, next, address, local, port, ipv4 } = peers;
  const { bytesReceived, keepaliveAtUs, silenceAtUs, persistentKeepaliveUs } = peers;
  const { timers, oxtunnel } = associations;
  let words = 0, times = 0;
  for (let i = 0; i < found; i++) {
    // A spare connection id leads to its session.
    const owner = session[rows[i]], id = peer[owner];
    if (id >= capacity) continue;
    words ^= current[id] ^ next[id] ^ address[4 * id] ^ local[4 * id] ^ port[id] ^ ipv4[id] ^
      replay.touch(owner);
    times += bytesReceived[id] + keepaliveAtUs[id] + silenceAtUs[id] + persistentKeepaliveUs[id] +
      timers.touch(id);
    if (protocol[owner] === OXTUNNEL) times += oxtunnel!.sessions.touch(owner);
  }
  read[0] = words + times;
}
