// Hot path.
/**
 * Last node of ingress: judges each inner packet and says where it goes. Invariant: a packet that leaves here
 * for the exit has its whole length on hand, a source among its peer's allowed IPs and a destination that the
 * policy opens. A refused packet is turned around in place into the ICMP error that tells its sender. What goes into
 * the tunnel again names its receiver's peer.
 * Keeps PROTOCOL R18 and R19.
 */
import { COUNTER, DROP } from "../metrics.ts";
import { OXTUNNEL } from "../session/table.ts";
import { NONE } from "../vector/arena.ts";
import { type Burst, DONE, OPENED, TO_EXIT, TO_TUNNEL } from "../vector/burst.ts";
import {
  emitAdminProhibited,
  emitEchoReply,
  emitTimeExceeded,
  innerLength,
  ipVersion,
  readDestination,
  readSource,
  spendHop,
} from "../wire/inner.ts";
import { isForSpeedtest, SPEEDTEST_PULL, speedtestKind } from "../wire/speedtest.ts";
import type { IngressContext } from "./context.ts";

export function deliver(burst: Burst, context: IngressContext, nowUs: number): void {
  const { count, bytes, view, offset, length, next, peer, session } = burst;
  const { table, peers, policy, metrics, words, ownIpv4, ownIpv6, speedtest } = context;
  for (let row = 0; row < count; row++) {
    if (next[row] !== OPENED) continue;
    const at = offset[row];
    const id = peer[row];
    const whole = innerLength(view, at, length[row]);
    if (whole === 0) {
      next[row] = DROP.malformed_inner;
      peers.drops[id]++;
      continue;
    }
    length[row] = whole;
    const version = ipVersion(view, at);
    readSource(view, at, words, 0);
    // In the tables an IPv4 address is its mapped form, which no IPv6 packet may claim to come from.
    const disguised = version === 6 && words[0] === 0 && words[1] === 0 && words[2] === 0xffff;
    // Most peers have one address, which needs no look-up.
    const isLeased = version === 4 && words[3] === peers.ipv4[id] && words[3] !== 0;
    if (disguised || (!isLeased && peers.routes.lookup(words, 0) !== id)) {
      next[row] = DROP.spoofed_inner;
      peers.drops[id]++;
      continue;
    }
    if (policy === undefined) {
      next[row] = TO_EXIT;
      metrics.column[COUNTER.packets_to_exit]++;
      continue;
    }
    readDestination(view, at, words, 0);
    const own = version === 4 ? ownIpv4 : ownIpv6;
    if (
      own !== undefined && words[3] === own[3] && words[2] === own[2] && words[1] === own[1] &&
      words[0] === own[0]
    ) {
      const kind = policy.allowSpeedtest ? speedtestKind(view, at, whole) : 0;
      if (kind !== 0 && isForSpeedtest(view, at)) {
        // What is many times as long as its question goes to addresses that are proven (PROTOCOL §7).
        if (kind === SPEEDTEST_PULL && table.protocol[session[row]] !== OXTUNNEL) next[row] = DROP.denied;
        else speedtest.take(burst, row, id, kind, innerMtu(context, id), nowUs);
        continue;
      }
      length[row] = emitEchoReply(view, at, whole);
      next[row] = length[row] === 0 ? DROP.denied : TO_TUNNEL;
      continue;
    }
    const other = peers.routes.lookup(words, 0);
    if (other === NONE ? policy.allows(words, 0, version) : policy.allowPeers) {
      if (other !== NONE && spendHop(view, at) === 0) {
        metrics.drop(DROP.hop_limit);
        length[row] = emitTimeExceeded(bytes, view, at, whole, version === 4 ? ownIpv4 : ownIpv6 ?? words);
        next[row] = length[row] === 0 ? DONE : TO_TUNNEL;
        continue;
      }
      next[row] = other === NONE ? TO_EXIT : TO_TUNNEL;
      if (other !== NONE) peer[row] = other;
      metrics.column[other === NONE ? COUNTER.packets_to_exit : COUNTER.packets_between_peers]++;
      continue;
    }
    peers.drops[id]++;
    metrics.drop(DROP.denied);
    length[row] = emitAdminProhibited(bytes, view, at, whole, version === 4 ? ownIpv4 : ownIpv6 ?? words);
    next[row] = length[row] === 0 ? DONE : TO_TUNNEL;
    if (length[row] > 0) metrics.column[COUNTER.icmp_errors_sent]++;
  }
}

/** The largest packet that goes to the peer in one piece now, bytes; Infinity where its protocol does not look. */
function innerMtu({ peers, table, associations }: IngressContext, id: number): number {
  const session = peers.current[id];
  const { oxtunnel } = associations;
  return session === NONE || oxtunnel === undefined || table.protocol[session] !== OXTUNNEL
    ? Infinity
    : oxtunnel.sessions.innerMtu(session);
}
