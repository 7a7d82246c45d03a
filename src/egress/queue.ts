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
import { OXTUNNEL_BYTES, WIREGUARD_BYTES } from "../queue/overhead.ts";
import { IS_LOST, type Queues, WAITS } from "../queue/queues.ts";
import { OXTUNNEL, WIREGUARD } from "../session/table.ts";
import type { InnerAcks } from "../session/wireguard/inner_acks.ts";
import { NONE } from "../vector/arena.ts";
import { type Burst, BURST_CAPACITY, HELD, TO_SEAL } from "../vector/burst.ts";
import { ipVersion } from "../wire/inner.ts";
import type { EgressContext } from "./context.ts";
import { IPV6_MTU_MIN } from "./fit.ts";

export function queue(burst: Burst, context: EgressContext, nowUs: number): void {
  const { queues, innerAcks } = context;
  if (queues === undefined) return;
  if (queues.findsRates) findRates(burst, context, nowUs);
  if (!queues.isIdle) sort(burst, context, queues, nowUs);
  if (innerAcks !== undefined) showInner(burst, context, innerAcks, queues, nowUs);
}

/** Has packets wait whose line is busy, and adds those that may go now. */
function sort(burst: Burst, context: EgressContext, queues: Queues, nowUs: number): void {
  const { metrics } = context;
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

/** Shows WireGuard's packets in the order in which they go to what finds rates by the TCP inside. */
function showInner(
  { count, next, session, peer, length, view, offset }: Burst,
  { table }: EgressContext,
  innerAcks: InnerAcks,
  queues: Queues,
  nowUs: number,
): void {
  for (let row = 0; row < count; row++) {
    if (next[row] !== TO_SEAL || length[row] === 0 || table.protocol[session[row]] !== WIREGUARD) continue;
    const bytes = length[row] + WIREGUARD_BYTES, isWaiting = queues.waitingOf(peer[row]) > 0;
    innerAcks.sent(peer[row], view, offset[row], length[row], bytes, isWaiting, nowUs);
  }
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
  const { associations, metrics } = context, { paths } = associations;
  while (burst.count < BURST_CAPACITY) {
    const peer = queues.ready(nowUs);
    if (peer === NONE) return;
    const session = associations.epochs.sendable(peer, nowUs);
    if (session === NONE && paths.port[paths.of(peer)] === 0) {
      metrics.drop(DROP.no_session, queues.clear(peer));
      continue;
    }
    const overhead = session === NONE ? 0 : overheadBytes(context, session);
    while (burst.count < BURST_CAPACITY) {
      const row = queues.take(burst, peer, TO_SEAL, overhead, nowUs);
      if (row < 0) break;
      if (session === NONE) {
        associations.outbox.stage(burst, row, peer); // for the next session, as a packet that has just come
        continue;
      }
      burst.session[row] = session;
      if (!fitsStill(burst, row, context)) burst.next[row] = DROP.too_big;
    }
  }
}

/** Whether the packet of `row` passes as fit.ts would let it: its path may have become narrower while it waited. */
function fitsStill(
  { length, session, view, offset }: Burst,
  row: number,
  { table, associations, mtu }: EgressContext,
): boolean {
  const bytes = length[row], of = session[row];
  if (table.protocol[of] !== OXTUNNEL) return bytes <= mtu;
  const { sessions } = associations.oxtunnel!;
  if (bytes <= sessions.innerMtu(of) || !sessions.of[of]!.size.isSettled) return true;
  return bytes <= IPV6_MTU_MIN && ipVersion(view, offset[row]) === 6;
}
