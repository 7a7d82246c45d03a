// Hot path.
/**
 * A step of ingress: one kernel call for each protocol opens the burst; then each authentic packet is checked for replay,
 * and fresh packets update their peer's endpoint, timers and counts, WireGuard's by runs of one session. Invariant: a forged
 * or replayed packet changes nothing about its peer.
 * Keeps PROTOCOL R16, R25, R40, R44 and R110.
 */
import { COUNTER, DROP } from "../metrics.ts";
import { OXTUNNEL } from "../session/table.ts";
import { NONE } from "../vector/arena.ts";
import { type Burst, DONE, OPENED, TO_OPEN, TO_OPEN_DATAGRAM, TO_UNFRAME } from "../vector/burst.ts";
import { hasReservedFlags } from "../wire/oxtunnel.ts";
import type { IngressContext } from "./context.ts";

export function open(burst: Burst, context: IngressContext, nowUs: number): void {
  const { count, next, session, peer } = burst;
  const { table, peers, associations, aead, datagramAead } = context;
  if (burst.has(TO_OPEN)) aead.open(burst);
  if (datagramAead !== undefined && burst.has(TO_OPEN_DATAGRAM)) datagramAead.open(burst);
  for (let row = 0; row < count;) {
    const step = next[row], epoch = session[row];
    // A row without a session was judged before the handshake that this burst waited for.
    if (step !== OPENED && step !== DROP.forged || epoch === NONE) {
      row++;
      continue;
    }
    // The first packet under a new key is handled alone: it measures how long its handshake took.
    const end = epoch === peers.next[peer[row]] ? row + 1 : burst.runEnd(row);
    const isOx = table.protocol[epoch] === OXTUNNEL;
    // An earlier row of this burst may have confirmed a successor, and so have ended the session.
    if (table.keyed[epoch] === 0) {
      for (; row < end; row++) next[row] = DROP.no_session;
    } else if (step === DROP.forged) {
      for (; row < end; row++) {
        if (isOx) associations.oxtunnel!.sessions.failed(epoch);
        session[row] = NONE;
      }
    } else if (isOx) {
      for (; row < end; row++) acceptOxtunnel(burst, row, context, nowUs);
    } else {
      acceptWireguard(burst, row, end, context, nowUs);
      row = end;
    }
  }
}

function acceptOxtunnel(burst: Burst, row: number, context: IngressContext, nowUs: number): void {
  const { view, next, session, path, peer, counter, offset, length, headerBytes } = burst;
  const { table, peers, associations } = context;
  const { sessions } = associations.oxtunnel!;
  const epoch = session[row];
  if (table.keyed[epoch] === 0) {
    next[row] = DROP.no_session;
  } else if (hasReservedFlags(view.getUint8(offset[row] - headerBytes[row]), sessions.reservedFlags[epoch])) {
    next[row] = DROP.bad_type;
  } else if (!table.replay.accept(path[row], counter[row])) {
    next[row] = DROP.replayed;
  } else {
    peers.bytesReceived[peer[row]] += length[row];
    sessions.received(burst, row, nowUs);
    next[row] = TO_UNFRAME;
  }
}

/**
 * A run of one session, rows `from` to `end`. The peer's endpoint becomes the source of the last fresh row; the sources of the
 * others are not recorded.
 */
function acceptWireguard(
  burst: Burst,
  from: number,
  end: number,
  { table, peers, associations, metrics }: IngressContext,
  nowUs: number,
): void {
  const { next, session, peer, counter, length, address, port, local } = burst;
  const { replay } = table;
  const { epochs, paths, wireguard } = associations;
  const epoch = session[from], id = peer[from];
  let last = -1, bytes = 0, keepalives = 0;
  for (let row = from; row < end; row++) {
    if (!replay.accept(epoch, counter[row])) {
      next[row] = DROP.replayed;
      continue;
    }
    last = row;
    if (length[row] === 0) {
      next[row] = DONE;
      keepalives++;
    }
    bytes += length[row];
  }
  if (last < 0) return;
  peers.bytesReceived[id] += bytes;
  metrics.column[COUNTER.keepalives_received] += keepalives;
  if (!epochs.isOnOxtunnel(id, epoch)) paths.roam(id, address, 4 * last, port[last], local);
  wireguard.received(id, epoch, bytes > 0, nowUs);
}
