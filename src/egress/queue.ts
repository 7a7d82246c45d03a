// Hot path.
/**
 * A step of egress: packets whose peer's line is busy, and those that are more than one turn carries, wait in queues that are
 * ours to sort, instead of a modem's or the kernel's that are not. Invariant: where no peer has a rate and few packets come at
 * once nothing changes, and a line that is free passes its packets on untouched; each packet's wait is counted, 0 too. Before compression, repair and numbers, so that
 * what is dropped has cost none of them. What waits, and what is dropped, is for queue/queues.ts and queue/turn_queue.ts to say.
 * Keeps PROTOCOL R79 and R82.
 */
import { CLASS_BULK } from "../control/traffic_class.ts";
import { COUNTER, DROP } from "../metrics.ts";
import { OXTUNNEL_BYTES, WIREGUARD_BYTES } from "../queue/overhead.ts";
import { IS_LOST, type Queues, WAITS } from "../queue/queues.ts";
import type { TurnQueue } from "../queue/turn_queue.ts";
import { OXTUNNEL, WIREGUARD } from "../session/table.ts";
import type { InnerAcks } from "../session/wireguard/inner_acks.ts";
import { NONE } from "../vector/arena.ts";
import { type Burst, BURST_CAPACITY, HELD, TO_SEAL } from "../vector/burst.ts";
import { paddedLength } from "../wire/wireguard.ts";
import type { EgressContext } from "./context.ts";

/** Rows up to which a burst is filled with packets that waited. */
const EMIT_ROWS = BURST_CAPACITY / 2;

/** @param served how many of the packets that wait for this thread are added to the burst. */
export function queue(burst: Burst, context: EgressContext, nowUs: number, served: number): void {
  const { queues, toTunnel, innerAcks, metrics } = context, { count } = burst;
  const hasLines = queues !== undefined && !queues.isIdle;
  if (queues !== undefined && queues.findsRates) findRates(burst, context, nowUs);
  if (toTunnel !== undefined && toTunnel.sorts(count)) waitForTurn(burst, context, toTunnel, nowUs);
  if (hasLines) waitForLines(burst, context, queues, nowUs);
  if (toTunnel !== undefined) context.figures.passed(burst, TO_SEAL, true);
  // Before those of lines, which come with any burst, and could fill each of them.
  if (served > 0) emitServed(burst, context, served, nowUs);
  if (hasLines) {
    emitDue(burst, context, queues, nowUs);
    metrics.column[COUNTER.queue_packets] = queues.packets;
  }
  if (innerAcks !== undefined) showInner(burst, context, innerAcks, nowUs);
}

/** Where more packets came at once than one turn carries: they wait to be sorted, but for those whose own line bounds them, or will. */
function waitForTurn(
  burst: Burst,
  { queues, metrics }: EgressContext,
  toTunnel: TurnQueue,
  nowUs: number,
): void {
  const { count, next, length, peer, flow } = burst;
  for (let row = 0; row < count; row++) {
    if (next[row] !== TO_SEAL || length[row] === 0) continue;
    if (queues !== undefined && queues.bounds(peer[row]) && !toTunnel.holds(flow[row])) continue;
    const outcome = toTunnel.offer(burst, row, nowUs);
    if (outcome === WAITS) {
      next[row] = HELD;
      metrics.column[COUNTER.packets_queued]++;
    } else if (outcome === IS_LOST) {
      next[row] = DROP.queue_overflow;
    }
  }
}

function waitForLines(burst: Burst, context: EgressContext, queues: Queues, nowUs: number): void {
  const { count, next, length, session } = burst;
  for (let row = 0; row < count; row++) {
    if (next[row] !== TO_SEAL || length[row] === 0) continue;
    const outcome = queues.offer(burst, row, overheadBytes(context, session[row]), nowUs);
    if (outcome === WAITS) {
      next[row] = HELD;
      context.metrics.column[COUNTER.packets_queued]++;
    } else if (outcome === IS_LOST) {
      next[row] = DROP.queue_overflow;
    }
  }
}

/** Shows WireGuard's packets in the order in which they go to what finds rates by the TCP inside. */
function showInner(
  { count, next, session, peer, length, view, offset }: Burst,
  { table, queues, mtu }: EgressContext,
  innerAcks: InnerAcks,
  nowUs: number,
): void {
  for (let row = 0; row < count; row++) {
    if (next[row] !== TO_SEAL || length[row] === 0 || table.protocol[session[row]] !== WIREGUARD) continue;
    const bytes = paddedLength(length[row], mtu) + WIREGUARD_BYTES,
      isWaiting = queues!.waitingOf(peer[row]) > 0;
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

/**
 * Adds what may go now, under the session that each peer has now. What finds no room comes with the next burst; half of the rows
 * are left for fragments.
 */
function emitDue(burst: Burst, context: EgressContext, queues: Queues, nowUs: number): void {
  const { associations, metrics } = context, { paths } = associations;
  while (burst.count < EMIT_ROWS) {
    const peer = queues.ready(nowUs);
    if (peer === NONE) return;
    const session = associations.epochs.sendable(peer, nowUs);
    if (session === NONE && paths.port[paths.of(peer)] === 0) {
      metrics.drop(DROP.no_session, queues.clear(peer));
      continue;
    }
    const overhead = session === NONE ? 0 : overheadBytes(context, session);
    const isFull = session !== NONE && isPathFull(context, session, nowUs);
    const rttUs = roundTripUs(context, peer, session);
    while (burst.count < EMIT_ROWS) {
      const row = queues.take(burst, peer, TO_SEAL, overhead, nowUs, isFull, rttUs);
      if (row < 0) break;
      if (session === NONE) associations.outbox.stage(burst, row, peer); // for the next session, as a packet that has just come
      else burst.session[row] = session;
    }
  }
}

/** Whether as much is on the session's path as it may hold, by the rate that is found for it. */
function isPathFull({ table, associations }: EgressContext, session: number, nowUs: number): boolean {
  if (table.protocol[session] !== OXTUNNEL) return false;
  return associations.oxtunnel!.sessions.of[session]?.pathRate?.isFull(nowUs) === true;
}

/** The round trip to the peer, without a queue where that is known, microseconds; 0 where none is. */
function roundTripUs({ table, peers, associations }: EgressContext, peer: number, session: number): number {
  const its = session === NONE || table.protocol[session] !== OXTUNNEL
    ? undefined
    : associations.oxtunnel!.sessions.of[session];
  const leastUs = its?.pathRate?.leastRttUs ?? Infinity;
  return leastUs < Infinity ? leastUs : Math.max(0, its?.roundTripUs ?? peers.get(peer)?.handshakeRttUs ?? 0);
}

/** Adds up to `rows` of the packets that waited for this thread, as `emitDue` does. */
function emitServed(
  burst: Burst,
  { associations, toTunnel }: EgressContext,
  rows: number,
  nowUs: number,
): void {
  const { paths } = associations;
  const end = Math.min(burst.count + rows, EMIT_ROWS);
  let peer = NONE, session = NONE;
  while (burst.count < end) {
    const row = toTunnel!.take(burst, TO_SEAL, nowUs);
    if (row < 0) break;
    if (burst.peer[row] !== peer) {
      peer = burst.peer[row];
      session = associations.epochs.sendable(peer, nowUs);
    }
    if (session !== NONE) burst.session[row] = session;
    else if (paths.port[paths.of(peer)] === 0) burst.next[row] = DROP.no_session;
    else associations.outbox.stage(burst, row, peer);
  }
}
