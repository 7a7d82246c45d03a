// Hot path.
/**
 * A node of egress: packets whose peer's line is busy wait in a queue that is ours to sort, instead of a modem's that is
 * not. Invariant: where no peer has a rate nothing changes, and a line that is free passes its packets on untouched. Before
 * compression, repair and numbers, so that what is dropped has cost none of them. What waits, and what is dropped, is
 * queue/queues.ts's to say.
 * Keeps PROTOCOL R79 and R82.
 */
import { CLASS_BULK } from "../control/traffic_class.ts";
import { COUNTER, DROP } from "../metrics.ts";
import { IS_LOST, type Queues, WAITS } from "../queue/queues.ts";
import { OXTUNNEL } from "../session/table.ts";
import { NONE } from "../vector/arena.ts";
import { type Burst, BURST_CAPACITY, HELD, TO_SEAL } from "../vector/burst.ts";
import type { EgressContext } from "./context.ts";

/** What each protocol adds to a packet on the wire: IPv4 and UDP, header and tag (PROTOCOL §12; WireGuard whitepaper §5.4.6). */
const OXTUNNEL_BYTES = 28 + 9 + 16, WIREGUARD_BYTES = 28 + 16 + 16;

export function queue(burst: Burst, context: EgressContext, nowUs: number): void {
  const { queues, metrics } = context;
  if (queues === undefined) return;
  if (queues.findsRates) findRates(burst, context, nowUs);
  if (queues.isIdle) return;
  const { count, next, length, session } = burst;
  for (let row = 0; row < count; row++) {
    if (next[row] !== TO_SEAL || length[row] === 0) continue;
    const outcome = queues.offer(burst, row, overheadBytes(context, session[row]), nowUs);
    if (outcome === WAITS) {
      next[row] = HELD;
      metrics.column[COUNTER.packets_queued]++;
    } else if (outcome === IS_LOST) {
      next[row] = DROP.queue_overflow;
    }
  }
  emitDue(burst, context, queues, nowUs);
  metrics.column[COUNTER.queue_packets] = queues.packets;
}

/** Has the rates found of paths that transfers go to. */
function findRates(burst: Burst, { table, associations }: EgressContext, nowUs: number): void {
  const { count, next, session, trafficClass } = burst;
  for (let row = 0; row < count; row++) {
    if (trafficClass[row] !== CLASS_BULK || next[row] !== TO_SEAL) continue;
    if (table.protocol[session[row]] !== OXTUNNEL) continue;
    const rest = associations.oxtunnel!.sessions.of[session[row]]!;
    if (rest.pathRate === undefined) rest.rate.find(nowUs);
  }
}

function overheadBytes({ table }: EgressContext, session: number): number {
  return table.protocol[session] === OXTUNNEL ? OXTUNNEL_BYTES : WIREGUARD_BYTES;
}

/** Adds what may go now, under the session that each peer has now. What finds no room comes with the next burst. */
function emitDue(burst: Burst, context: EgressContext, queues: Queues, nowUs: number): void {
  const { associations, metrics, table } = context;
  while (burst.count < BURST_CAPACITY) {
    const peer = queues.ready(nowUs);
    if (peer === NONE) return;
    const session = associations.epochs.sendable(peer, nowUs);
    if (session === NONE) {
      metrics.drop(DROP.no_session, queues.clear(peer));
      continue;
    }
    const overhead = overheadBytes(context, session);
    // The path may have become narrower since the packet was fitted.
    const bytesMax = table.protocol[session] === OXTUNNEL
      ? associations.oxtunnel!.sessions.innerMtu(session)
      : context.mtu;
    while (burst.count < BURST_CAPACITY) {
      const row = queues.take(burst, peer, TO_SEAL, overhead, nowUs);
      if (row < 0) break;
      burst.session[row] = session;
      if (burst.length[row] > bytesMax) burst.next[row] = DROP.too_big;
    }
  }
}
