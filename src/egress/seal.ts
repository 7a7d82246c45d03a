// Hot path.
/**
 * Last node of egress: pads, numbers and addresses each packet, then one kernel call seals the burst. Invariant:
 * every sealed packet takes a counter that its session never used before.
 * Keeps PROTOCOL R17.
 */
import { type Burst, TO_SEAL } from "../vector/burst.ts";
import { DATA_HEADER_BYTES, paddedLength, writeDataHeader } from "../wire/wireguard.ts";
import type { EgressContext } from "./context.ts";

export function seal(burst: Burst, context: EgressContext, nowUs: number): void {
  const { count, bytes, view, offset, length, next, session, peer, counter, address, port, local } = burst;
  const { table, peers, associations, aead, mtu } = context;
  for (let row = 0; row < count; row++) {
    if (next[row] !== TO_SEAL) continue;
    const id = peer[row];
    const epoch = session[row];
    const at = offset[row];
    counter[row] = table.sendCounter[epoch]++;
    writeDataHeader(view, at - DATA_HEADER_BYTES, table.remoteIndex[epoch], counter[row]);
    associations.sent(id, epoch, length[row] > 0, nowUs);
    peers.bytesSent[id] += length[row];
    const padded = paddedLength(length[row], mtu);
    for (let i = at + length[row]; i < at + padded; i++) bytes[i] = 0;
    length[row] = padded;
    for (let i = 0; i < 4; i++) {
      address[4 * row + i] = peers.address[4 * id + i];
      local[4 * row + i] = peers.local[4 * id + i];
    }
    port[row] = peers.port[id];
  }
  aead.seal(burst);
}
