// Hot path.
/**
 * A step of ingress: shows the packets of WireGuard's peers to what finds the rates of their lines by the TCP inside
 * (session/wireguard/inner_acks.ts). Invariant: only packets that passed every check and are forwarded are shown, and none is changed.
 */
import { WIREGUARD } from "../session/table.ts";
import { type Burst, TO_EXIT, TO_TUNNEL } from "../vector/burst.ts";
import type { IngressContext } from "./context.ts";

export function acks(burst: Burst, { innerAcks, table }: IngressContext, nowUs: number): void {
  if (innerAcks === undefined || innerAcks.isIdle) return;
  const { count, next, session, length, view, offset } = burst;
  for (let row = 0; row < count; row++) {
    const step = next[row], of = session[row];
    if (step !== TO_EXIT && step !== TO_TUNNEL || table.protocol[of] !== WIREGUARD) continue;
    innerAcks.received(table.peer[of], view, offset[row], length[row], nowUs);
  }
}
