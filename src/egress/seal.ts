// Hot path.
/**
 * Last node of egress: numbers and addresses each packet in its session's protocol, then one kernel call for each of
 * them seals the burst. WireGuard's packets are padded; an OxTunnel report or repair that is due rides in front of a
 * packet.
 * Invariant: every sealed packet takes a counter that its session never used before.
 * Keeps PROTOCOL R17, R39 and R43.
 */
import { OXTUNNEL } from "../session/table.ts";
import { SLOT_BYTES, TAILROOM } from "../vector/arena.ts";
import { type Burst, TO_SEAL, TO_SEAL_DATAGRAM } from "../vector/burst.ts";
import { DATA_HEADER_BYTES, paddedLength, writeDataHeader } from "../wire/wireguard.ts";
import type { EgressContext } from "./context.ts";

export function seal(burst: Burst, context: EgressContext, nowUs: number): void {
  const { count, next, session, peer, length, address, port, local } = burst;
  const { table, peers, aead, datagramAead } = context;
  for (let row = 0; row < count; row++) {
    if (next[row] !== TO_SEAL) continue;
    const id = peer[row];
    peers.bytesSent[id] += length[row];
    for (let i = 0; i < 4; i++) {
      address[4 * row + i] = peers.address[4 * id + i];
      local[4 * row + i] = peers.local[4 * id + i];
    }
    port[row] = peers.port[id];
    if (table.protocol[session[row]] === OXTUNNEL) numberOxtunnel(burst, row, context, nowUs);
    else numberWireguard(burst, row, context, nowUs);
  }
  if (burst.has(TO_SEAL)) aead.seal(burst);
  if (datagramAead !== undefined && burst.has(TO_SEAL_DATAGRAM)) datagramAead.seal(burst);
}

function numberWireguard(burst: Burst, row: number, context: EgressContext, nowUs: number): void {
  const { bytes, view, offset, length, session, peer, counter } = burst;
  const { table, associations, mtu } = context;
  const epoch = session[row], at = offset[row];
  counter[row] = table.sendCounter[epoch]++;
  writeDataHeader(view, at - DATA_HEADER_BYTES, table.remoteIndex[epoch], counter[row]);
  associations.wireguard.sent(peer[row], epoch, length[row] > 0, nowUs);
  const padded = paddedLength(length[row], mtu);
  for (let i = at + length[row]; i < at + padded; i++) bytes[i] = 0;
  length[row] = padded;
}

function numberOxtunnel(burst: Burst, row: number, context: EgressContext, nowUs: number): void {
  const { bytes, session, peer, slot, offset, length, counter, trafficClass } = burst;
  const { table, associations } = context;
  const { sessions } = associations.oxtunnel!;
  const epoch = session[row], rest = sessions.of[epoch]!;
  const packetBytes = length[row], bytesMax = sessions.innerMtu(epoch);
  const repair = rest.repairOf(trafficClass[row]);
  if (repair !== undefined) {
    // A packet from another peer may lie far back in its slot, behind frames that it came with.
    const slotEnd = (slot[row] + 1) * SLOT_BYTES - TAILROOM;
    const room = Math.min(bytesMax, slotEnd - offset[row]);
    repair.sender.ride(burst, row, table.sendCounter[epoch], room, nowUs);
    const repairBytes = length[row] - packetBytes;
    if (repairBytes > 0) rest.noteRepairs(burst, offset[row], repairBytes, table.sendCounter[epoch], nowUs);
  }
  sessions.carryReport(burst, row, bytesMax, nowUs);
  sessions.number(burst, row, table.remoteIndex[epoch]);
  if (repair !== undefined) {
    const packetAt = offset[row] + length[row] - packetBytes;
    const isGuarded = repair.sent(bytes, packetAt, packetBytes, counter[row], trafficClass[row], nowUs);
    rest.noteSent(burst, row, true, isGuarded, nowUs);
    if (isGuarded) rest.hastenRepair();
  }
  sessions.noteSize(epoch, length[row], nowUs);
  sessions.sent(peer[row], epoch, nowUs);
}
