// Hot path.
/**
 * Last step of egress: numbers and addresses each packet in its session's protocol; then one kernel call for each protocol
 * seals the burst. WireGuard's packets are padded; an OxTunnel report or repair that is due travels in front of a packet, and a
 * copy of it may go on another path. Invariant: every sealed packet takes a counter that its path never used before.
 * Keeps PROTOCOL R17, R39, R43 and R114.
 */
import { COUNTER } from "../metrics.ts";
import { WIREGUARD_BYTES } from "../queue/overhead.ts";
import type { PathSet } from "../session/oxtunnel/path_set.ts";
import { OXTUNNEL } from "../session/table.ts";
import { NONE, SLOT_BYTES, TAILROOM } from "../vector/arena.ts";
import { type Burst, TO_SEAL, TO_SEAL_DATAGRAM } from "../vector/burst.ts";
import { COPY_HEAD_BYTES, writeCopyHead } from "../wire/repair.ts";
import { FRAME_COPY, FRAME_HEAD_BYTES, writeFrameHead } from "../wire/frame.ts";
import { outerBytes } from "../wire/oxtunnel.ts";
import { DATA_HEADER_BYTES, paddedLength, writeDataHeader } from "../wire/wireguard.ts";
import type { EgressContext } from "./context.ts";

export function seal(burst: Burst, context: EgressContext, nowUs: number): void {
  const { count, next, session, peer } = burst;
  const { table, aead, datagramAead, queues } = context;
  for (let row = 0; row < count;) {
    if (next[row] !== TO_SEAL) {
      row++;
      continue;
    }
    const end = table.isMultipath[session[row]] === 0 ? burst.runEnd(row) : row + 1;
    addressRun(burst, row, end, context);
    let bytes = 0;
    if (table.protocol[session[row]] === OXTUNNEL) {
      for (let i = row; i < end; i++) bytes += numberOxtunnel(burst, i, context, nowUs);
    } else {
      bytes = numberWireguard(burst, row, end, context, nowUs);
    }
    queues?.settle(peer[row], bytes, nowUs);
    row = end;
  }
  if (burst.has(TO_SEAL)) aead.seal(burst);
  if (datagramAead !== undefined && burst.has(TO_SEAL_DATAGRAM)) datagramAead.seal(burst);
}

/** Addresses the rows of a run, `from` to `end`, to their path. */
function addressRun(
  burst: Burst,
  from: number,
  end: number,
  { peers, associations: { paths } }: EgressContext,
): void {
  const { peer, length, address, port, local } = burst;
  const path = burst.path[from], at = 4 * path, pathPort = paths.port[path];
  const { address: addresses, local: locals } = paths;
  const a0 = addresses[at], a1 = addresses[at + 1], a2 = addresses[at + 2], a3 = addresses[at + 3];
  const l0 = locals[at], l1 = locals[at + 1], l2 = locals[at + 2], l3 = locals[at + 3];
  let bytes = 0;
  for (let row = from; row < end; row++) {
    const to = 4 * row;
    address[to] = a0;
    address[to + 1] = a1;
    address[to + 2] = a2;
    address[to + 3] = a3;
    local[to] = l0;
    local[to + 1] = l1;
    local[to + 2] = l2;
    local[to + 3] = l3;
    port[row] = pathPort;
    bytes += length[row];
  }
  peers.bytesSent[peer[from]] += bytes;
}

/** Numbers and pads the rows of a run; returns their bytes on the wire. */
function numberWireguard(
  burst: Burst,
  from: number,
  end: number,
  { table, associations, mtu }: EgressContext,
  nowUs: number,
): number {
  const { bytes, view, offset, length, session, peer, counter } = burst;
  const epoch = session[from], remoteIndex = table.remoteIndex[epoch];
  let number = table.sendCounter[epoch], isData = false, wireBytes = (end - from) * WIREGUARD_BYTES;
  for (let row = from; row < end; row++, number++) {
    const at = offset[row], packetBytes = length[row];
    if (packetBytes > 0) isData = true;
    counter[row] = number;
    writeDataHeader(view, at - DATA_HEADER_BYTES, remoteIndex, number);
    const padded = paddedLength(packetBytes, mtu);
    for (let i = at + packetBytes; i < at + padded; i++) bytes[i] = 0;
    length[row] = padded;
    wireBytes += padded;
  }
  table.sendCounter[epoch] = number;
  associations.wireguard.sent(peer[from], epoch, isData, nowUs);
  return wireBytes;
}

/** Numbers the row, with what rides along; returns its bytes on the wire. */
function numberOxtunnel(burst: Burst, row: number, context: EgressContext, nowUs: number): number {
  const { session, peer, slot, offset, length, counter, headerBytes, trafficClass } = burst;
  const { table, associations } = context;
  const { sessions } = associations.oxtunnel!;
  const epoch = session[row],
    path = burst.path[row],
    rest = sessions.of[epoch]!,
    way = sessions.wayOf(rest, path);
  if (rest.rohc !== undefined && path === epoch) {
    rest.rohc.sender.sealed(burst.view, offset[row], length[row], table.sendCounter[epoch]);
  }
  const packetBytes = length[row], bytesMax = sessions.innerMtu(path);
  const { repair } = way, isRepaired = repair !== undefined && repair.sends(trafficClass[row]);
  if (isRepaired) {
    // A packet from another peer may lie far back in its slot, behind frames that it came with.
    const slotEnd = (slot[row] + 1) * SLOT_BYTES - TAILROOM;
    const room = Math.min(bytesMax, slotEnd - offset[row]);
    repair.ride(burst, row, table.sendCounter[path], room, nowUs);
  }
  sessions.carryReport(burst, row, way, path, bytesMax, nowUs);
  sessions.number(burst, row, path, table.remoteIndex[path]);
  if (isRepaired) repair.packetsSent(burst, row, packetBytes, nowUs);
  const wireBytes = outerBytes(headerBytes[row], length[row]);
  if (rest.pathRate !== undefined && path === rest.bulkPath) {
    const isWaiting = context.queues !== undefined && context.queues.waitingOf(peer[row]) > 0;
    rest.pathRate.sent(counter[row], wireBytes, isWaiting, nowUs);
  }
  sessions.noteSize(path, length[row], nowUs);
  sessions.sent(peer[row], epoch, path, nowUs);
  if (table.isMultipath[epoch] === 1) copy(burst, row, packetBytes, rest.pathSet!, context, nowUs);
  return wireBytes;
}

/** Sends a copy of the last `bytes` of the plaintext in `row`, the packets of a numbered datagram, on another path where one is wanted. */
function copy(
  burst: Burst,
  row: number,
  bytes: number,
  pathSet: PathSet,
  { table, peers, associations, metrics }: EgressContext,
  nowUs: number,
): void {
  const { view, offset, length, session, peer, path, counter, headerBytes, trafficClass } = burst;
  pathSet.count(path[row], outerBytes(headerBytes[row], length[row]), false);
  const second = pathSet.copyPathFor(trafficClass[row], path[row]);
  if (second === NONE || bytes === 0) return;
  const { sessions } = associations.oxtunnel!, { paths } = associations;
  const bytesMax = sessions.innerMtu(second);
  if (FRAME_HEAD_BYTES + COPY_HEAD_BYTES + bytes > bytesMax) return;
  const added = burst.grow(FRAME_HEAD_BYTES + COPY_HEAD_BYTES + bytes, TO_SEAL_DATAGRAM);
  if (added < 0) return;
  const body = writeFrameHead(view, offset[added], FRAME_COPY, COPY_HEAD_BYTES + bytes);
  const to = writeCopyHead(view, body, table.pathNumber[path[row]], counter[row]);
  const from = offset[row] + length[row] - bytes;
  burst.bytes.copyWithin(to, from, from + bytes);
  session[added] = session[row];
  peer[added] = peer[row];
  path[added] = second;
  trafficClass[added] = trafficClass[row];
  paths.direct(burst, added, second);
  const way = sessions.onPath[second]!;
  sessions.carryReport(burst, added, way, second, bytesMax, nowUs);
  sessions.number(burst, added, second, table.remoteIndex[second]);
  way.repair?.copySent(burst, added, nowUs);
  sessions.noteSize(second, length[added], nowUs);
  sessions.sent(peer[row], session[row], second, nowUs);
  peers.bytesSent[peer[row]] += length[added];
  pathSet.count(second, outerBytes(headerBytes[added], length[added]), true);
  metrics.column[COUNTER.copies_sent]++;
  metrics.column[COUNTER.copy_bytes_sent] += outerBytes(headerBytes[added], length[added]);
}
