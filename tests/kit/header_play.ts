/**
 * A client and a relay that make headers small, over a simulated network: packets of games and calls, many flows through
 * a rough path, and what of them came out wrong. Judges nothing: the tests of short packets and of ROHC do.
 */
import type { Client } from "../../src/client.ts";
import { PortableShardKernel } from "../../src/codec/gf256.ts";
import { CLASS_BULK, CLASS_GAME } from "../../src/control/traffic_class.ts";
import type { Relay } from "../../src/relay.ts";
import { repairOptions } from "../../src/repair/options.ts";
import { foldSum, sumWords, transportChecksum } from "../../src/wire/inner.ts";
import type { HeaderMethod } from "../../src/wire/parameters.ts";
import { udpPacket } from "./packets.ts";
import { Random } from "./random.ts";
import { type Channel, CLEAN, type Host, World } from "./world.ts";

export const SECOND = 1_000_000;
export const SEED = Number(Deno.env.get("SIM_SEED") ?? 1);
export const CLIENT = "10.66.0.2", SERVER = "8.8.8.8";
/** By class: a DSCP that means it (RFC 4594). */
export const DSCP_OF = [0, 32, 46, 16, 8];

export interface Pair {
  world: World;
  client: Host<Client>;
  server: Host<Relay>;
}

interface PairOptions {
  isRepairing?: boolean;
  /** The relay's contexts, where they are not the client's. */
  ofRelay?: number;
  /** The methods of both, or of one. */
  methods?: readonly HeaderMethod[];
  methodsOfRelay?: readonly HeaderMethod[];
}

/** Both with a session, and `contexts` contexts for headers; undefined for none. */
export function pair(contexts: number | undefined, options: PairOptions = {}): Pair {
  const { isRepairing = false, methods, methodsOfRelay = methods } = options;
  const ofRelay = "ofRelay" in options ? options.ofRelay : contexts;
  const world = new World(SEED);
  world.protocol = "oxtunnel";
  const repair = isRepairing
    ? repairOptions(new PortableShardKernel(), {
      budgetPercent: 25,
      gameDeadlineMs: 60,
      voiceDeadlineMs: 100,
    })
    : undefined;
  const server = world.relay("192.0.2.1:4433", {
    ipv4: "10.66.0.1",
    ipv6: "fd00::1",
    headerContexts: ofRelay,
    headerMethods: methodsOfRelay,
    repair,
  });
  const client = world.client("198.51.100.7:5555", server, {
    ipv4: CLIENT,
    ipv6: "fd00::2",
    headerContexts: contexts,
    headerMethods: methods,
    repair,
  });
  const allowedIps = [`${CLIENT}/32`, "fd00::2/128"];
  server.core.replacePeers([{ name: "one", publicKey: client.publicKey, allowedIps, created: "" }]);
  client.send(udpPacket(CLIENT, SERVER, new Uint8Array(10)));
  world.runFor(SECOND);
  return { world, client, server };
}

/** An IPv4 or IPv6 UDP packet with ports, identification and, for RTP, its header. */
export interface Shape {
  version?: 4 | 6;
  port: number;
  id?: number;
  df?: boolean;
  checksum?: boolean;
  tos?: number;
  ttl?: number;
  rtp?: { number: number; timestamp: number; marker: boolean };
  badChecksum?: boolean;
}

export function packetOf(shape: Shape, payload: Uint8Array): Uint8Array {
  const {
    version = 4,
    port,
    id = 0,
    df = true,
    checksum = true,
    tos = 0,
    ttl = 64,
    rtp,
    badChecksum = false,
  } = shape;
  const ip = version === 4 ? 20 : 40, rtpBytes = rtp ? 12 : 0;
  const packet = new Uint8Array(ip + 8 + rtpBytes + payload.length);
  const view = new DataView(packet.buffer);
  if (version === 4) {
    view.setUint16(0, 0x4500 | tos);
    view.setUint16(2, packet.length);
    view.setUint16(4, id);
    view.setUint16(6, df ? 0x4000 : 0);
    view.setUint16(8, (ttl << 8) | 17);
    packet.set([10, 66, 0, 2, 8, 8, 8, 8], 12);
    view.setUint16(10, foldSum(sumWords(view, 0, 20, 0)) ^ (badChecksum ? 1 : 0));
  } else {
    view.setUint32(0, 0x60000000 | (tos << 20) | 0x54321);
    view.setUint16(4, packet.length - 40);
    view.setUint16(6, (17 << 8) | ttl);
    packet[8] = 0xfd;
    packet[23] = 2;
    packet.set([0x20, 0x01, 0x48, 0x60], 24);
    packet[39] = 8;
  }
  view.setUint16(ip, port);
  view.setUint16(ip + 2, 5004);
  view.setUint16(ip + 4, packet.length - ip);
  if (rtp) {
    packet.set([0x80, 111 | (rtp.marker ? 0x80 : 0)], ip + 8);
    view.setUint16(ip + 10, rtp.number);
    view.setUint32(ip + 12, rtp.timestamp);
    view.setUint32(ip + 16, 0xfeed0000 + port);
  }
  packet.set(payload, ip + 8 + rtpBytes);
  if (checksum || version === 6) {
    view.setUint16(ip + 6, transportChecksum(view, 0, ip, packet.length - ip, 17) || 0xffff);
  }
  return packet;
}

/** The `n`-th segment of a TCP connection with time stamps, of up to 90 octets, whose numbers advance as a sender's do. */
export function tcpPacket(n: number, random: Random): Uint8Array {
  const packet = new Uint8Array(52 + (n & 1) * (random.u32() % 90));
  const view = new DataView(packet.buffer);
  view.setUint32(0, 0x45000000 | packet.length);
  view.setUint32(4, (n << 16 | 0x4000) >>> 0);
  view.setUint16(8, 64 << 8 | 6);
  packet.set([10, 66, 0, 2, 8, 8, 8, 8], 12);
  view.setUint16(10, foldSum(sumWords(view, 0, 20, 0)));
  view.setUint32(20, 5000 << 16 | 443);
  view.setUint32(24, 1000 + 45 * n);
  view.setUint32(28, 77 + 1400 * (n >> 1));
  view.setUint16(32, 0x8010);
  view.setUint16(34, 500 + (n >> 4));
  view.setUint32(40, 0x0101080a);
  view.setUint32(44, 9000 + 3 * n);
  view.setUint32(48, 100 + 2 * n);
  view.setUint16(36, random.u32() & 0xffff);
  return packet;
}

/** The packet without its TTL, which the relay lowers, and, unless `withId`, without what an atomic one's identification may be. */
export function essence(packet: Uint8Array, withId = false): string {
  const copy = packet.slice();
  if (copy[0] >> 4 === 4) {
    if (!withId && (copy[6] & 0x40) !== 0) copy[4] = copy[5] = 0;
    copy[8] = copy[10] = copy[11] = 0;
  } else copy[7] = 0;
  return copy.join();
}

/** Bytes of the client's datagrams for each packet of a flow, with UDP and IPv4, and whether all of them came. */
export function bytesOnTheWire(
  { world, client, server }: Pair,
  shape: (n: number) => Shape,
  payload: number,
  trafficClass: number,
) {
  let bytes = 0, datagrams = 0;
  const packets = 640;
  const send = (n: number) => {
    client.send(packetOf({ ...shape(n), tos: DSCP_OF[trafficClass] << 2 }, new Uint8Array(payload).fill(n)));
    world.runFor(15_625);
  };
  for (let n = 0; n < 64; n++) send(n);
  world.runFor(SECOND);
  world.tap = (from, _to, datagram) => {
    if (from === client.endpoint && datagram.length > 32) {
      bytes += 28 + datagram.length;
      datagrams++;
    }
    return datagram;
  };
  const before = server.delivered.length;
  for (let n = 64; n < 64 + packets; n++) send(n);
  world.runFor(SECOND / 2);
  const came = server.delivered.length - before;
  return { perPacket: bytes / packets, isWhole: came === packets && datagrams >= packets };
}

/** A game's packets in IPv4 and IPv6, and a call's. */
export const game = (_n: number): Shape => ({ port: 27_015 });
export const game6 = (_n: number): Shape => ({ port: 27_015, version: 6 });
export const call = (n: number): Shape => ({
  port: 40_000,
  rtp: { number: n & 0xffff, timestamp: 960 * n, marker: false },
});

export interface Comparison {
  contexts: number;
  methods?: readonly HeaderMethod[];
  channel: Partial<Channel>;
  isRepairing: boolean;
  packets: number;
  /** From one packet to the next, microseconds. */
  intervalUs: number;
  /** Packets after which one of the flows ends and another begins in its place, so that numbers are defined anew. */
  renewEvery: number;
  /** Whether identifications of atomic packets are to come back too. */
  withIds?: boolean;
  /** Called now and then with the packets so far. */
  progress?: (packets: number) => void;
}

export interface Compared {
  packets: number;
  came: number;
  /** Packets that came out other than they went in, or twice. */
  wrong: number;
  /** Packets that came and could not be read. */
  unknown: number;
  elided: number;
  definitions: number;
  mismatches: number;
  repaired: number;
  flows: number;
  /** The deepest reordering: how many later datagrams had come before one, at most. */
  reordered: number;
}

const FLOWS = 40;
/** Packets that may still be on the way, and so be compared. */
const UNDERWAY = 4096;

interface Flow {
  port: number;
  df: boolean;
  checksum: boolean;
  hasRtp: boolean;
  version: 4 | 6;
  id: number;
  number: number;
  timestamp: number;
  ttl: number;
  tos: number;
}

/** A flow's next packet, whose payload begins with `n`. */
function nextOf(flow: Flow, n: number, random: Random): Uint8Array {
  flow.id = (flow.id + 1) & 0xffff;
  flow.number = (flow.number + 1) & 0xffff;
  flow.timestamp = (flow.timestamp + (random.real() < 0.02 ? 4800 : 960)) >>> 0;
  if (random.real() < 0.005) flow.ttl = 50 + random.u32() % 10;
  if (random.real() < 0.005) flow.tos = random.u32() & 3;
  const { number, timestamp, hasRtp } = flow;
  const rtp = hasRtp ? { number, timestamp, marker: random.real() < 0.1 } : undefined;
  const payload = new Uint8Array(8 + random.u32() % 60);
  new DataView(payload.buffer).setUint32(0, n);
  const tos = flow.tos | DSCP_OF[flow.port % 2 ? CLASS_GAME : CLASS_BULK] << 2;
  return packetOf({ ...flow, tos, rtp }, payload);
}

/** The number with which the packet's payload begins; a wrong one where its headers are wrong. */
function numberIn(packet: Uint8Array): number {
  const view = new DataView(packet.buffer, packet.byteOffset, packet.length);
  const ip = packet[0] >> 4 === 4 ? 20 : 40;
  const at = ip + 8 + (packet.length > ip + 8 && view.getUint16(ip) % 4 === 1 ? 12 : 0);
  return packet.length < at + 4 ? 0 : view.getUint32(at);
}

/** Sends packets of forty flows through the channel, and compares what comes out with what went in. */
export function compare(options: Comparison): Compared {
  const { contexts, methods, isRepairing, withIds = false } = options;
  const { world, client, server } = pair(contexts, { isRepairing, methods });
  const random = new Random(SEED);
  world.channel = { ...CLEAN, ...options.channel };
  let begun = 0;
  const flow = (): Flow => ({
    port: 20_000 + begun % 40_000,
    df: begun % 3 !== 0,
    checksum: begun % 5 !== 0,
    hasRtp: begun % 4 === 1,
    version: begun++ % 7 === 3 ? 6 : 4,
    id: random.u32() & 0xffff,
    number: random.u32() & 0xffff,
    timestamp: random.u32(),
    ttl: 64,
    tos: 0,
  });
  const flows = Array.from({ length: FLOWS }, flow);
  /** By a packet's number modulo UNDERWAY: what went in; empty once it came. */
  const sent = new Array<string>(UNDERWAY).fill("");
  let came = 0, wrong = 0, newest = 0, reordered = 0;
  const take = () => {
    for (const out of server.delivered.splice(0)) {
      came++;
      const n = numberIn(out);
      if (sent[n % UNDERWAY] !== essence(out, withIds)) wrong++;
      else sent[n % UNDERWAY] = "";
      newest = Math.max(newest, n);
      reordered = Math.max(reordered, newest - n);
    }
  };
  server.delivered.length = 0;
  for (let n = 0; n < options.packets; n++) {
    if (n % options.renewEvery === options.renewEvery - 1) flows[random.u32() % FLOWS] = flow();
    const packet = nextOf(flows[Math.floor(random.real() ** 2 * FLOWS)], n, random);
    sent[n % UNDERWAY] = essence(packet, withIds);
    client.send(packet);
    world.runFor(options.intervalUs);
    take();
    if (n % 10_000 === 0) options.progress?.(n);
  }
  world.runFor(SECOND);
  take();
  return { packets: options.packets, came, wrong, reordered, flows: begun, ...countsOf(client, server) };
}

function countsOf({ metrics }: Host<Client>, server: Host<Relay>) {
  return {
    unknown: server.metrics.dropped("unknown_context"),
    elided: metrics.get("headers_elided"),
    definitions: metrics.get("header_definitions"),
    mismatches: metrics.get("headers_mismatch"),
    repaired: server.metrics.get("packets_repaired"),
  };
}

/** Plays 200 packets of a game to a relay that has no room for contexts. */
export function playWithoutRoom(
  contexts: number,
  methods?: PairOptions["methods"],
): Pair & { delivered: number } {
  const both = pair(contexts, { ofRelay: 0, methods }), { world, client, server } = both;
  const before = server.delivered.length;
  for (let n = 0; n < 200; n++) {
    client.send(packetOf(game(n), new Uint8Array(20).fill(n)));
    world.runFor(10_000);
  }
  world.runFor(SECOND);
  return { ...both, delivered: server.delivered.length - before };
}

/** The share of 1500 packets, 5 ms apart, whose headers a client makes small over a satellite. */
export function shareOverSatellite(contexts: number, methods: PairOptions["methods"]): number {
  const { world, client } = pair(contexts, { methods });
  world.channel = { ...CLEAN, delayUs: 300_000 };
  const packets = 1500;
  for (let n = 0; n < packets; n++) {
    client.send(packetOf(game(n), new Uint8Array(20).fill(n)));
    world.runFor(5000);
  }
  return client.metrics.get("headers_elided") / packets;
}
