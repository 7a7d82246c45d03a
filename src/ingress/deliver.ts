// Hot path.
/**
 * A step of ingress: checks each inner packet and decides its destination. Invariant: a packet that leaves this step for
 * the exit is complete, has a source among its peer's allowed IPs and, where there is a policy, as on a relay, a destination
 * that the policy opens; for a hairpin the exit decides last. A refused packet is turned in place into the ICMP error for its
 * sender. A packet that goes into the tunnel again names its receiver's peer.
 * Keeps PROTOCOL R18 and R19.
 */
import { COUNTER, DROP, type Metrics } from "../metrics.ts";
import { OXTUNNEL } from "../session/table.ts";
import { NONE } from "../vector/arena.ts";
import { type Burst, DONE, OPENED, TO_EXIT, TO_HAIRPIN, TO_TUNNEL } from "../vector/burst.ts";
import {
  emitEchoReply,
  emitIcmpError,
  ICMP_ADMIN_PROHIBITED,
  ICMP_PORT_UNREACHABLE,
  ICMP_PROTOCOL_UNREACHABLE,
  ICMP_TIME_EXCEEDED,
} from "../wire/icmp.ts";
import {
  emitTcpReset,
  hasSourceRoute,
  innerLength,
  ipv4Source,
  ipVersion,
  isFragment,
  isTo,
  PROTOCOL_ICMP,
  PROTOCOL_ICMPV6,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  protocolOf,
  readDestination,
  readSource,
  spendHop,
} from "../wire/inner.ts";
import { isToPort, PORT_CONTROL_PORT } from "../wire/port_control.ts";
import { isForSpeedtest, SPEEDTEST_PULL, speedtestKind } from "../wire/speedtest.ts";
import type { IngressContext } from "./context.ts";

/** The destination of the last packets. */
const target = new Uint32Array(4);

export function deliver(burst: Burst, context: IngressContext, nowUs: number): void {
  const { count, view, offset, length, next, peer } = burst;
  const { peers, policy, metrics, ownIpv4, ownIpv6 } = context;
  let toExit = 0, toPeers = 0;
  // Packets to one destination come in runs, which are judged once. A mapped IPv4 address is not that of IPv4.
  let runVersion = 0, isOwn = false, other = NONE, isOpen = false;
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
    // Most peers have one address, which needs no look-up.
    const source = version === 4 ? ipv4Source(view, at) : 0;
    if ((source === 0 || source !== peers.ipv4[id]) && !isSourceOf(id, view, at, version, context)) {
      next[row] = DROP.spoofed_inner;
      peers.drops[id]++;
      continue;
    }
    if (policy === undefined) {
      next[row] = TO_EXIT;
      toExit++;
      continue;
    }
    const own = version === 4 ? ownIpv4 : ownIpv6;
    if (version !== runVersion || !isTo(view, at, target)) {
      runVersion = version;
      readDestination(view, at, target, 0);
      isOwn = own !== undefined && isTo(view, at, own);
      other = isOwn ? NONE : peers.routes.lookup(target, 0);
      isOpen = other === NONE
        ? isOwn || policy.allows(target, 0, version)
        : policy.allowPeers && !policy.denies(target, 0);
    }
    if (isOwn && own !== undefined) {
      toHost(burst, row, whole, own, context, nowUs);
      continue;
    }
    // The policy has not judged where a source route leads (RFC 7126 §4.3).
    if (isOpen && !(version === 4 && view.getUint8(at) > 0x45 && hasSourceRoute(view, at))) {
      if (other === NONE) {
        next[row] = TO_EXIT;
        toExit++;
        continue;
      }
      if (toPeer(burst, row, whole, other, own ?? target, metrics)) toPeers++;
      continue;
    }
    // To this host's outer address: perhaps another client's port, if clients may reach each other.
    if (
      context.exitHairpins && policy.allowPeers && !policy.denies(target, 0) &&
      protocolOf(view, at, whole) === PROTOCOL_UDP &&
      policy.isHost(target, 0)
    ) {
      next[row] = TO_HAIRPIN; // the exit has the last word, so nothing is counted yet
      continue;
    }
    peers.drops[id]++;
    deny(burst, row, whole, own ?? target, metrics);
  }
  metrics.column[COUNTER.packets_to_exit] += toExit;
  metrics.column[COUNTER.packets_between_peers] += toPeers;
}

/** Answers a packet to the relay's own inner address `own`: speed tests where they are allowed, else as a host does. */
function toHost(
  burst: Burst,
  row: number,
  whole: number,
  own: Uint32Array,
  context: IngressContext,
  nowUs: number,
): void {
  const { view, offset, next, peer, session } = burst;
  const { table, policy, metrics, speedtest, pings } = context;
  const at = offset[row], id = peer[row];
  if (pings.take(view, at, whole, id, nowUs)) {
    next[row] = DONE;
    return;
  }
  if (
    policy!.allowPortControl && protocolOf(view, at, whole) === PROTOCOL_UDP &&
    !isFragment(view, at, whole) &&
    isToPort(view, at, whole, PORT_CONTROL_PORT)
  ) {
    next[row] = TO_EXIT; // which knows by whom the answer is made
    metrics.column[COUNTER.packets_to_exit]++;
    return;
  }
  const kind = policy!.allowSpeedtest ? speedtestKind(view, at, whole) : 0;
  if (kind === 0 || !isForSpeedtest(view, at)) answerAsHost(burst, row, whole, own, metrics);
  // What is many times as long as its question goes to addresses that are proven (PROTOCOL §7).
  else if (kind === SPEEDTEST_PULL && table.protocol[session[row]] !== OXTUNNEL) next[row] = DROP.denied;
  else speedtest.take(burst, row, id, kind, innerMtu(context, id), nowUs);
}

/**
 * Sends a packet on to the peer `other`, one hop further; false where its hops are spent, which its sender is told from `source`.
 */
function toPeer(
  burst: Burst,
  row: number,
  whole: number,
  other: number,
  source: Uint32Array,
  metrics: Metrics,
): boolean {
  const { bytes, view, offset, length, next, peer } = burst;
  const at = offset[row];
  if (spendHop(view, at) === 0) {
    metrics.drop(DROP.hop_limit);
    length[row] = emitIcmpError(bytes, view, at, whole, source, ICMP_TIME_EXCEEDED);
    next[row] = length[row] === 0 ? DONE : TO_TUNNEL;
    return false;
  }
  next[row] = TO_TUNNEL;
  peer[row] = other;
  return true;
}

/** Drops a packet that the policy refuses, and makes of it the ICMP error for its sender, from `source`, where there may be one. */
function deny(burst: Burst, row: number, whole: number, source: Uint32Array, metrics: Metrics): void {
  const { bytes, view, offset, length, next } = burst;
  metrics.drop(DROP.denied);
  length[row] = emitIcmpError(bytes, view, offset[row], whole, source, ICMP_ADMIN_PROHIBITED);
  next[row] = length[row] === 0 ? DONE : TO_TUNNEL;
  if (length[row] > 0) metrics.column[COUNTER.icmp_errors_sent]++;
}

/**
 * Answers packets to the relay's own inner address like a host without services: pings (RFC 1122 §3.2.2.6), a reset for TCP
 * (RFC 9293 §3.10.7.1), and for the rest port or protocol unreachable. Fragments are dropped.
 */
function answerAsHost(burst: Burst, row: number, whole: number, own: Uint32Array, metrics: Metrics): void {
  const { bytes, view, offset, length, next } = burst;
  const at = offset[row];
  length[row] = emitEchoReply(view, at, whole);
  if (length[row] === 0) {
    const protocol = protocolOf(view, at, whole);
    if (protocol === PROTOCOL_TCP) length[row] = emitTcpReset(view, at, whole);
    else if (protocol !== PROTOCOL_ICMP && protocol !== PROTOCOL_ICMPV6 && !isFragment(view, at, whole)) {
      const error = protocol === PROTOCOL_UDP ? ICMP_PORT_UNREACHABLE : ICMP_PROTOCOL_UNREACHABLE;
      length[row] = emitIcmpError(bytes, view, at, whole, own, error);
      if (length[row] > 0) metrics.column[COUNTER.icmp_errors_sent]++;
    }
  }
  next[row] = length[row] === 0 ? DROP.denied : TO_TUNNEL;
}

/** Whether the packet's source is among the peer's allowed IPs. */
function isSourceOf(
  id: number,
  view: DataView,
  at: number,
  version: number,
  { peers, words }: IngressContext,
): boolean {
  readSource(view, at, words, 0);
  // In the tables an IPv4 address is its mapped form, which no IPv6 packet may claim to come from.
  const isDisguised = version === 6 && words[0] === 0 && words[1] === 0 && words[2] === 0xffff;
  return !isDisguised && peers.routes.lookup(words, 0) === id;
}

/** The largest packet, in bytes, that now goes to the peer unfragmented; Infinity where the peer's protocol has no limit. */
function innerMtu({ peers, table, associations }: IngressContext, id: number): number {
  const session = peers.current[id];
  const { oxtunnel } = associations;
  return session === NONE || oxtunnel === undefined || table.protocol[session] !== OXTUNNEL
    ? Infinity
    : oxtunnel.sessions.innerMtu(session);
}
