// Hot path.
/**
 * Third node of ingress: one kernel call for each protocol opens the burst, then each authentic packet is checked for
 * replay and moves its peer's endpoint, timers and counts. Invariant: nothing about a peer changes for a packet that
 * is forged or replayed.
 * Keeps PROTOCOL R16, R25, R40 and R44.
 */
import { COUNTER, DROP } from "../metrics.ts";
import { OXTUNNEL } from "../session/table.ts";
import { NONE } from "../vector/arena.ts";
import { type Burst, DONE, OPENED, TO_OPEN, TO_OPEN_DATAGRAM, TO_UNFRAME } from "../vector/burst.ts";
import { hasReservedFlags } from "../wire/oxtunnel.ts";
import type { IngressContext } from "./context.ts";

export function open(burst: Burst, context: IngressContext, nowUs: number): void {
  const { count, view, next, session, peer, counter, offset, length, headerBytes } = burst;
  const { address, port, local } = burst;
  const { table, peers, associations, aead, datagramAead, metrics } = context;
  if (burst.has(TO_OPEN)) aead.open(burst);
  if (datagramAead !== undefined && burst.has(TO_OPEN_DATAGRAM)) datagramAead.open(burst);
  for (let row = 0; row < count; row++) {
    if (next[row] !== OPENED && next[row] !== DROP.forged) continue;
    const epoch = session[row];
    if (epoch === NONE) continue; // judged already, before a handshake that this burst waited for
    const isOx = table.protocol[epoch] === OXTUNNEL;
    // An earlier row of this burst may have confirmed a successor, and so have ended the session.
    if (table.keyed[epoch] === 0) {
      next[row] = DROP.no_session;
      continue;
    }
    if (next[row] === DROP.forged) {
      if (isOx) associations.oxtunnel!.sessions.failed(epoch);
      session[row] = NONE;
      continue;
    }
    if (isOx && hasReservedFlags(view.getUint8(offset[row] - headerBytes[row]))) {
      next[row] = DROP.bad_type;
      continue;
    }
    if (!table.replay.accept(epoch, counter[row])) {
      next[row] = DROP.replayed;
      continue;
    }
    const id = peer[row];
    peers.bytesReceived[id] += length[row];
    if (isOx) {
      associations.oxtunnel!.sessions.received(burst, row, nowUs);
      next[row] = TO_UNFRAME;
      continue;
    }
    if (!associations.isOnOxtunnel(id, epoch)) associations.roam(id, address, 4 * row, port[row], local);
    associations.wireguard.received(id, epoch, length[row] > 0, nowUs);
    if (length[row] === 0) {
      next[row] = DONE;
      metrics.column[COUNTER.keepalives_received]++;
    }
  }
}
