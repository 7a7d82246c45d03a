// Hot path.
/**
 * A step of egress, for OxTunnel only: makes packets fit their session's datagrams (PROTOCOL §17). A packet that does not
 * fit is fragmented where IPv4 allows it or this host is the source, else turned in place into the ICMP error that tells its
 * sender the size. Invariant: every packet after this step fits, except IPv6 packets of other hosts up to 1280 bytes (RFC 8200
 * §5) and, during a search for the size, IPv6 packets and those for whose fragments the burst has no rows.
 * Keeps PROTOCOL R84.
 */
import { CLASS_DEFAULT } from "../control/traffic_class.ts";
import { COUNTER, DROP } from "../metrics.ts";
import { OXTUNNEL } from "../session/table.ts";
import { NONE } from "../vector/arena.ts";
import { type Burst, DONE, TO_EXIT, TO_SEAL, TO_TUNNEL_HANDED } from "../vector/burst.ts";
import { canSourceFragment, fragmentStep, mayFragment, payloadBytes, writeFragment } from "../wire/fit.ts";
import { emitIcmpError, ICMP_PACKET_TOO_BIG } from "../wire/icmp.ts";
import { ipVersion, readDestination } from "../wire/inner.ts";
import type { EgressContext } from "./context.ts";

/** The least MTU of every IPv6 link, bytes (RFC 8200 §5). */
const IPV6_MTU_MIN = 1280;
/** Identifications for packets whose senders set none, because they did not expect fragmentation. */
let identifications = 0;

export function fit(burst: Burst, context: EgressContext, nowUs: number): void {
  const { count, next, session, path, length, offset, isOwn, view } = burst;
  const { table, associations } = context;
  if (associations.oxtunnel === undefined) return;
  const { sessions } = associations.oxtunnel;
  for (let row = 0; row < count; row++) {
    if (next[row] !== TO_SEAL || table.protocol[session[row]] !== OXTUNNEL) continue;
    const mtu = sessions.innerMtu(path[row]);
    if (length[row] <= mtu) continue;
    const isIpv4 = ipVersion(view, offset[row]) === 4;
    // A host keeps to a reported size for ten minutes, so a size that may change at once is not reported.
    const isSearching = !sessions.onPath[path[row]]!.size.isSettled;
    const mayCut = isIpv4
      ? isSearching || mayFragment(view, offset[row])
      : isOwn[row] === 1 && canSourceFragment(view, offset[row]); // only the source may fragment IPv6 (RFC 8200 §4.5)
    if (mayCut) {
      // During a search a packet is sent whole where there is no room for fragments: it may fit.
      if (!cut(burst, row, mtu) && !isSearching) next[row] = DROP.arena_full;
    } else if (isIpv4) refuse(burst, row, mtu, context, nowUs);
    else if (!isSearching && length[row] > IPV6_MTU_MIN) {
      refuse(burst, row, Math.max(mtu, IPV6_MTU_MIN), context, nowUs);
    }
  }
}

/** The packet becomes its first fragment; the others get rows of their own. False, with nothing changed, without room. */
function cut(burst: Burst, row: number, mtu: number): boolean {
  const { bytes, view, offset, length, session, peer, path, flow, trafficClass, count } = burst;
  const at = offset[row];
  const step = fragmentStep(view, at, mtu);
  const payload = payloadBytes(view, at);
  identifications = (identifications + 1) >>> 0;
  const identification = ipVersion(view, at) === 4
    ? view.getUint16(at + 4) || identifications & 0xffff
    : identifications;
  for (let from = step; from < payload; from += step) {
    const added = burst.grow(0, TO_SEAL);
    if (added < 0) {
      burst.shrink(count);
      return false;
    }
    const size = Math.min(step, payload - from);
    length[added] = writeFragment(bytes, view, at, offset[added], from, size, identification);
    session[added] = session[row];
    path[added] = path[row];
    peer[added] = peer[row];
    flow[added] = flow[row];
    trafficClass[added] = trafficClass[row];
  }
  length[row] = writeFragment(bytes, view, at, at, 0, step, identification);
  return true;
}

/** Turns the packet into the ICMP error that tells its sender the size that fits. */
function refuse(burst: Burst, row: number, mtu: number, context: EgressContext, nowUs: number): void {
  const { bytes, view, offset, length, next, peer, session, flow, trafficClass } = burst;
  const { metrics, words, peers, associations, table, isRelay } = context;
  metrics.drop(DROP.too_big);
  flow[row] = NONE;
  trafficClass[row] = CLASS_DEFAULT;
  // From the packet's destination: a host rejects packets from outside that bear its own address.
  readDestination(view, offset[row], words, 0);
  length[row] = emitIcmpError(bytes, view, offset[row], length[row], words, ICMP_PACKET_TOO_BIG, mtu);
  if (length[row] === 0) {
    next[row] = DONE;
    return;
  }
  metrics.column[COUNTER.icmp_errors_sent]++;
  readDestination(view, offset[row], words, 0);
  const sender = isRelay ? peers.routes.lookup(words, 0) : NONE;
  if (sender === NONE) {
    next[row] = TO_EXIT;
  } else if (peers.owner[sender] !== table.worker) {
    burst.handOver(row, peers.owner[sender], TO_TUNNEL_HANDED);
  } else {
    peer[row] = sender;
    session[row] = associations.epochs.sendable(sender, nowUs);
    if (session[row] === NONE) next[row] = DROP.no_session;
  }
}
