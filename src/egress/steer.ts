// Hot path.
/**
 * First node of egress: finds the peer whose allowed IPs hold the destination, and the session to it. Invariant:
 * a row leaves with peer and session, staged for a handshake, or dropped. The
 * exit keeps its packets within the MTU (TUN by its device, userspace by fragmenting); larger ones are dropped.
 */
import { COUNTER, DROP } from "../metrics.ts";
import { NONE } from "../vector/arena.ts";
import { type Burst, TO_SEAL, TO_TUNNEL } from "../vector/burst.ts";
import { innerLength, readDestination } from "../wire/inner.ts";
import type { EgressContext } from "./context.ts";

export function steer(burst: Burst, context: EgressContext, nowUs: number): void {
  const { count, view, offset, length, next, peer, session } = burst;
  const { peers, associations, metrics, mtu, words } = context;
  let fromInside = 0;
  for (let row = 0; row < count; row++) {
    if (next[row] !== TO_TUNNEL) continue;
    fromInside++;
    const whole = innerLength(view, offset[row], length[row]);
    if (whole === 0) {
      next[row] = DROP.malformed_inner;
      continue;
    }
    length[row] = whole;
    readDestination(view, offset[row], words, 0);
    const id = peers.routes.lookup(words, 0);
    if (id === NONE) {
      next[row] = DROP.no_route;
      continue;
    }
    if (whole > mtu) {
      next[row] = DROP.too_big;
      peers.drops[id]++;
      continue;
    }
    peer[row] = id;
    session[row] = associations.sendable(id, nowUs);
    if (session[row] !== NONE) {
      next[row] = TO_SEAL;
    } else if (peers.port[id] === 0) {
      next[row] = DROP.no_endpoint;
      peers.drops[id]++;
    } else {
      associations.stage(burst, row, id);
    }
  }
  metrics.column[COUNTER.packets_to_tunnel] += fromInside;
}
