// Hot path.
/**
 * Second node of ingress: one kernel call opens the burst, then each authentic packet is checked for replay and
 * moves its peer's endpoint, timers and counts. Invariant: nothing about a peer changes for a packet that is
 * forged or replayed.
 * Keeps PROTOCOL R16.
 */
import { COUNTER, DROP } from "../metrics.ts";
import { type Burst, DONE, OPENED } from "../vector/burst.ts";
import type { IngressContext } from "./context.ts";

export function open(burst: Burst, context: IngressContext, nowUs: number): void {
  const { count, next, session, peer, counter, length, address, port, local } = burst;
  const { table, peers, associations, aead, metrics } = context;
  aead.open(burst);
  for (let row = 0; row < count; row++) {
    if (next[row] !== OPENED) continue;
    if (!table.replay.accept(session[row], counter[row])) {
      next[row] = DROP.replayed;
      continue;
    }
    const id = peer[row];
    associations.roam(id, address, 4 * row, port[row], local);
    associations.received(id, session[row], length[row] > 0, nowUs);
    peers.bytesReceived[id] += length[row];
    if (length[row] === 0) {
      next[row] = DONE;
      metrics.column[COUNTER.keepalives_received]++;
    }
  }
}
