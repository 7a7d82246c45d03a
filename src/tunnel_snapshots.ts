/**
 * What a running tunnel tells about its peers and their key epochs, for `status` and /v1. Invariant: reads the tables and changes
 * nothing; no key is in a snapshot but public ones. Reads no clock and redacts no address: who logs or shows a snapshot does that.
 */
import type { LineFigures } from "./queue/line_figures.ts";
import type { PeerRates } from "./queue/peer_rates.ts";
import type { Queues } from "./queue/queues.ts";
import type { PathRate } from "./rate/path_rate.ts";
import type { Rates } from "./rate/pool.ts";
import type { SessionFigures } from "./repair/figures.ts";
import type { Associations } from "./session/associations.ts";
import type { Paths } from "./session/paths.ts";
import {
  figuresByClass,
  type HeaderFigures,
  type LineSnapshot,
  type PathEstimate,
  type PathSnapshot,
  type PeerSnapshot,
  type SessionSnapshot,
} from "./session/peer_record.ts";
import type { Peer, PeerTable } from "./session/peers.ts";
import { OXTUNNEL, type SessionTable } from "./session/table.ts";
import { NONE } from "./vector/arena.ts";
import { formatEndpoint } from "./wire/address.ts";
import { AEAD_CHACHA20_POLY1305, AEAD_NAMES } from "./wire/parameters.ts";

/** One row for each peer of `some`. `nowUs`: the monotonic clock, microseconds, as in the tables. */
export function peerSnapshots(
  some: readonly Peer[],
  peers: PeerTable,
  table: SessionTable,
  associations: Associations,
  lines: Lines,
  nowUs: number,
): PeerSnapshot[] {
  const { bytesReceived, bytesSent, drops, current } = peers;
  const { paths } = associations;
  const { replay } = table;
  return some.map((peer) => {
    const { id } = peer;
    const epoch = current[id];
    const seen = epoch === NONE ? 0 : replay.highest[epoch] + 1;
    return {
      name: peer.name,
      publicKey: peer.publicKeyText,
      allowedIps: [...peer.allowedIps],
      endpoint: paths.port[paths.of(id)] === 0 ? undefined : endpointOf(paths, id),
      lastHandshakeAgeS: peer.lastHandshakeUs === -Infinity
        ? undefined
        : (nowUs - peer.lastHandshakeUs) / 1e6,
      connected: peer.connected,
      ...protocolAndAead(table, associations, epoch),
      bytesReceived: bytesReceived[id],
      bytesSent: bytesSent[id],
      drops: drops[id],
      lossRatio: seen > 0 ? 1 - replay.accepted(epoch) / seen : undefined,
      rttMs: rttMs(associations, peer.handshakeRttUs, epoch),
      ...repairFigures(associations, epoch),
      ...headerFigures(associations, epoch),
      ...lineSnapshot(id, lines),
      ...pathSnapshots(associations, epoch),
    };
  });
}

/** The paths of the session whose row this is, as `PeerSnapshot` has them. */
export function pathSnapshots(
  { oxtunnel, paths }: Associations,
  session: number,
): { paths?: PathSnapshot[] } {
  const rest = session === NONE ? undefined : oxtunnel?.sessions.of[session], pathSet = rest?.pathSet;
  if (rest === undefined || pathSet === undefined || pathSet.rows.length === 0) return {};
  const all = [rest, ...[...pathSet.ways()].toSorted((a, b) => a.pathNumber - b.pathNumber)];
  const bytes = all.reduce((sum, { pathNumber }) => sum + pathSet.stateOf(pathNumber).bytesSent, 0);
  const uses = [["games", pathSet.real], ["copies", pathSet.second], ["bulk", pathSet.bulk]] as const;
  return {
    paths: all.map((way) => {
      const { path, pathNumber, repair, rttUs, copies } = way, state = pathSet.stateOf(pathNumber);
      const quality = repair?.sending?.quality;
      return {
        number: pathNumber,
        ...(paths.port[path] === 0
          ? {}
          : { endpoint: formatEndpoint(paths.address, 4 * path, paths.port[path]) }),
        door: way === rest ? 0 : pathSet.on(path)!.door,
        uses: uses.flatMap(([use, row]) => row === path ? [use] : []),
        isSilent: pathSet.isSilent(path),
        isMetered: state.isMetered,
        ...(rttUs < 0 ? {} : { rttMs: rttUs / 1000 }),
        ...(quality === undefined ? {} : { lossRatio: quality.lossRate, queueMs: quality.queueUs / 1000 }),
        datagramBytes: paths.datagramBytes[path],
        bytesSent: state.bytesSent,
        share: bytes === 0 ? 0 : state.bytesSent / bytes,
        copiesSent: state.copiesSent,
        copiesUseful: copies?.useful ?? 0,
        failovers: state.failovers,
      };
    }),
  };
}

function headerFigures({ oxtunnel }: Associations, epoch: number): { headers?: HeaderFigures } {
  const session = epoch === NONE ? undefined : oxtunnel?.sessions.of[epoch];
  if (session === undefined || session.headerTally.packets === 0) return {};
  const { packets, bytesSent, bytesSaved } = session.headerTally;
  const method = session.rohc === undefined ? "elided" : "rohc";
  return { headers: { method, before: (bytesSent + bytesSaved) / packets, after: bytesSent / packets } };
}

/** What lines are made of. */
export interface Lines {
  queues: Queues | undefined;
  figures: LineFigures;
  peerRates: PeerRates;
  rates: Rates | undefined;
}

/** A full packet with what a tunnel adds, bits. */
const FULL_PACKET_BITS = 8 * 1514;

function lineSnapshot(id: number, { queues, figures, peerRates, rates }: Lines): { line?: LineSnapshot } {
  const counts = figures.of(id), shaping = peerRates.shaping(id), found = rates?.of(id);
  if (counts === undefined && shaping === undefined && found === undefined) return {};
  const foundBps = found === undefined ? 0 : 8 * found.foundBytesPerS;
  const bps = shaping?.bps ?? foundBps;
  return {
    line: {
      ...(shaping === undefined ? {} : { shapedBps: shaping.bps, rateBy: shaping.by }),
      ...(found === undefined ? {} : { path: pathEstimate(found, foundBps) }),
      waiting: queues?.waitingOf(id) ?? 0,
      marked: counts?.marked ?? 0,
      drops: counts?.drops ?? {},
      waits: counts === undefined ? {} : figuresByClass(counts.waits),
      ...(bps > 0 ? { serializationMs: 1000 * FULL_PACKET_BITS / bps } : {}),
    },
  };
}

function pathEstimate({ state, leastRttUs, queueUs }: PathRate, foundBps: number): PathEstimate {
  return {
    state,
    ...(foundBps > 0 ? { bps: foundBps } : {}),
    ...(leastRttUs === Infinity ? {} : { leastRttMs: leastRttUs / 1000 }),
    queueMs: queueUs / 1000,
  };
}

/** One row for each key epoch of each peer. `nowUs`: the monotonic clock, microseconds, as in the tables. */
export function sessionSnapshots(
  peers: PeerTable,
  table: SessionTable,
  paths: Paths,
  nowUs: number,
): SessionSnapshot[] {
  const rows: SessionSnapshot[] = [];
  for (const peer of peers.all()) {
    for (const epoch of ["next", "current", "previous"] as const) {
      const row = peers[epoch][peer.id];
      if (row === NONE) continue;
      rows.push({
        peer: peer.name,
        epoch,
        receiverIndex: table.receiverIndex[row],
        protocol: table.protocol[row] === OXTUNNEL ? "oxtunnel" : "wireguard",
        ageS: (nowUs - table.bornUs[row]) / 1e6,
        initiator: table.initiator[row] === 1,
        packetsSent: table.sendCounter[row],
        ...(table.protocol[row] === OXTUNNEL ? { datagramBytes: paths.datagramBytes[table.path[row]] } : {}),
        highestCounterReceived: table.replay.highest[row],
      });
    }
  }
  return rows;
}

/** The outer address and port that packets to the peer are sent to, as text: "address:port" or "[address]:port". */
export function endpointOf(paths: Paths, peer: number): string {
  const path = paths.of(peer);
  return formatEndpoint(paths.address, 4 * path, paths.port[path]);
}

/** The round trip from an OxTunnel session's pings, else from the last handshake, milliseconds; undefined without either. */
function rttMs({ oxtunnel }: Associations, handshakeUs: number, session: number): number | undefined {
  const pingUs = session === NONE ? undefined : oxtunnel?.sessions.of[session]?.rttUs;
  const rttUs = pingUs !== undefined && pingUs >= 0 ? pingUs : handshakeUs;
  return rttUs < 0 ? undefined : rttUs / 1000;
}

function repairFigures({ oxtunnel }: Associations, session: number): SessionFigures | undefined {
  return session === NONE ? undefined : oxtunnel?.sessions.of[session]?.repair?.figures;
}

function protocolAndAead(
  table: SessionTable,
  { oxtunnel }: Associations,
  session: number,
): Pick<PeerSnapshot, "protocol" | "aead"> {
  if (session === NONE) return {};
  const isOxtunnel = table.protocol[session] === OXTUNNEL;
  const aead = isOxtunnel ? oxtunnel!.sessions.of[session]!.aead : AEAD_CHACHA20_POLY1305;
  return { protocol: isOxtunnel ? "oxtunnel" : "wireguard", aead: AEAD_NAMES[aead] };
}
