// Hot path.
/**
 * A step of ingress: what exceeds the rate that a peer's record allows is dropped, or marked (queue/police.ts). Invariant: where
 * no peer has such a rate nothing is read; a packet that the relay made for the peer is no packet of the peer's. The class of each
 * packet is known.
 */
import { CLASS_DEFAULT } from "../control/traffic_class.ts";
import { DROP } from "../metrics.ts";
import { OXTUNNEL_BYTES, WIREGUARD_BYTES } from "../queue/overhead.ts";
import { OXTUNNEL } from "../session/table.ts";
import { type Burst, TO_EXIT, TO_HAIRPIN, TO_TUNNEL } from "../vector/burst.ts";
import type { IngressContext } from "./context.ts";

export function police(burst: Burst, { police, table, peers }: IngressContext, nowUs: number): void {
  if (police === undefined || police.isIdle) return;
  const { count, next, session, peer, length, trafficClass, view, offset } = burst;
  for (let row = 0; row < count; row++) {
    const step = next[row], of = session[row];
    if (step !== TO_EXIT && step !== TO_HAIRPIN && step !== TO_TUNNEL) continue;
    const from = table.peer[of];
    if (step === TO_TUNNEL && peer[row] === from) continue;
    const its = trafficClass[row],
      bytes = length[row] + (table.protocol[of] === OXTUNNEL ? OXTUNNEL_BYTES : WIREGUARD_BYTES);
    // Egress finds the class of what goes to another peer by its own direction.
    if (step !== TO_EXIT) trafficClass[row] = CLASS_DEFAULT;
    if (police.passes(from, bytes, its, view, offset[row], nowUs)) continue;
    next[row] = DROP.over_rate;
    peers.drops[from]++;
  }
}
