// Hot path.
/**
 * A step of egress: finds the peer whose allowed IPs contain the destination, and its session. Invariant: a row leaves with
 * peer and session, staged for a handshake, for the Worker that owns the peer, or dropped. An exit keeps its packets within
 * the MTU (TUN by its device, userspace by fragmenting), so a packet that is too big comes from another peer, which is told
 * the size that fits.
 * Keeps PROTOCOL R19.
 */
import { COUNTER, DROP } from "../metrics.ts";
import { NONE } from "../vector/arena.ts";
import { type Burst, DONE, TO_SEAL, TO_TUNNEL, TO_TUNNEL_HANDED } from "../vector/burst.ts";
import { emitIcmpError, ICMP_PACKET_TOO_BIG } from "../wire/icmp.ts";
import { innerLength, ipVersion, isTo, readDestination } from "../wire/inner.ts";
import type { EgressContext } from "./context.ts";

export function steer(burst: Burst, context: EgressContext, nowUs: number): void {
  const { count, view, offset, length, next, peer, session } = burst;
  const { table, peers, associations, metrics, mtu, words } = context;
  let fromInside = 0;
  // Packets to one peer come in runs that share its session; packets to one destination share the look-up.
  let runPeer = -1, runSession = 0, isLookedUp = false, found = NONE;
  for (let row = 0; row < count; row++) {
    const step = next[row];
    if (step !== TO_TUNNEL && step !== TO_TUNNEL_HANDED) continue;
    fromInside++;
    const at = offset[row];
    let id = peer[row]; // known where ingress sends it, and not yet of what comes from outside
    const whole = innerLength(view, at, length[row]);
    if (whole === 0) {
      next[row] = DROP.malformed_inner;
      continue;
    }
    length[row] = whole;
    if (whole > mtu) {
      if (!turnAround(burst, row, whole, context)) continue;
      id = NONE;
    }
    if (id === NONE) {
      if (!isLookedUp || !isTo(view, at, words)) {
        isLookedUp = true;
        readDestination(view, at, words, 0);
        found = peers.routes.lookup(words, 0);
      }
      id = found;
    }
    peer[row] = id;
    if (id === runPeer) {
      session[row] = runSession;
      next[row] = TO_SEAL;
      continue;
    }
    if (id === NONE) {
      next[row] = DROP.no_route;
      continue;
    }
    if (peers.owner[id] !== table.worker) {
      fromInside--;
      // Two Workers whose peers differ during a reload must not pass the packet to and fro.
      if (step === TO_TUNNEL_HANDED) {
        next[row] = DROP.no_route;
        continue;
      }
      burst.handOver(row, peers.owner[id], TO_TUNNEL_HANDED);
      metrics.column[COUNTER.packets_handed_over]++;
      continue;
    }
    session[row] = associations.epochs.sendable(id, nowUs);
    if (session[row] !== NONE) {
      next[row] = TO_SEAL;
      runPeer = id;
      runSession = session[row];
    } else if (associations.paths.port[associations.paths.of(id)] === 0) {
      next[row] = DROP.no_endpoint;
      peers.drops[id]++;
    } else {
      associations.outbox.stage(burst, row, id);
    }
  }
  metrics.column[COUNTER.packets_to_tunnel] += fromInside;
}

/** Makes of a packet that is too big the ICMP error for its sender; false where there is none to make, and the row is DONE. */
function turnAround(burst: Burst, row: number, whole: number, context: EgressContext): boolean {
  const { bytes, view, offset, length, next } = burst;
  const { metrics, mtu, ownIpv4, ownIpv6 } = context;
  const at = offset[row];
  metrics.drop(DROP.too_big);
  const own = ipVersion(view, at) === 4 ? ownIpv4 : ownIpv6;
  length[row] = own === undefined ? 0 : emitIcmpError(bytes, view, at, whole, own, ICMP_PACKET_TOO_BIG, mtu);
  if (length[row] === 0) {
    next[row] = DONE;
    return false;
  }
  metrics.column[COUNTER.icmp_errors_sent]++;
  return true;
}
