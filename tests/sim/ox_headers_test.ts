/**
 * Short packets on the live path between whole relays and clients: what comes out is what went in, whatever the network
 * does; what they save on the wire beside what WireGuard sends; and what a peer that lies about its contexts gets.
 */
import { assert, assertEquals, assertGreater, assertLess } from "@std/assert";
import { PortableLz4 } from "../../src/codec/lz4.ts";
import type { Client } from "../../src/client.ts";
import { PortableShardKernel } from "../../src/codec/gf256.ts";
import { CLASS_BULK, CLASS_GAME, CLASS_VOICE } from "../../src/control/traffic_class.ts";
import type { Relay } from "../../src/relay.ts";
import { repairOptions } from "../../src/repair/options.ts";
import { foldSum, sumWords, transportChecksum } from "../../src/wire/inner.ts";
import { type Channel, CLEAN, type Host, World } from "../kit/world.ts";
import { udpPacket } from "../kit/packets.ts";
import { Random } from "../kit/random.ts";

const SECOND = 1_000_000;
const SEED = Number(Deno.env.get("SIM_SEED") ?? 1);
const CLIENT = "10.66.0.2", SERVER = "8.8.8.8";
const CONTEXTS = 256;
/** By class: a DSCP that means it (RFC 4594). */
const DSCP_OF = [0, 32, 46, 16, 8];

interface Pair {
  world: World;
  client: Host<Client>;
  server: Host<Relay>;
}

function pair(contexts: number | undefined, options: { isRepairing?: boolean; ofRelay?: number } = {}): Pair {
  const { isRepairing = false } = options;
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
    repair,
  });
  const client = world.client("198.51.100.7:5555", server, {
    ipv4: CLIENT,
    ipv6: "fd00::2",
    headerContexts: contexts,
    repair,
  });
  const allowedIps = [`${CLIENT}/32`, "fd00::2/128"];
  server.core.replacePeers([{ name: "one", publicKey: client.publicKey, allowedIps, created: "" }]);
  client.send(udpPacket(CLIENT, SERVER, new Uint8Array(10)));
  world.runFor(SECOND);
  return { world, client, server };
}

/** An IPv4 or IPv6 UDP packet with ports, identification and, for RTP, its header. */
interface Shape {
  version?: 4 | 6;
  port: number;
  id?: number;
  df?: boolean;
  checksum?: boolean;
  tos?: number;
  ttl?: number;
  rtp?: { number: number; timestamp: number; marker: boolean };
}

function packetOf(shape: Shape, payload: Uint8Array): Uint8Array {
  const { version = 4, port, id = 0, df = true, checksum = true, tos = 0, ttl = 64, rtp } = shape;
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
    view.setUint16(10, foldSum(sumWords(view, 0, 20, 0)));
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

/** The packet without what an atomic one's identification may be, and without its TTL, which the relay lowers. */
function essence(packet: Uint8Array): string {
  const copy = packet.slice();
  if (copy[0] >> 4 === 4) {
    if (copy[6] & 0x40) copy[4] = copy[5] = 0;
    copy[8] = copy[10] = copy[11] = 0;
  } else copy[7] = 0;
  return copy.join();
}

/** Bytes of the datagrams from the client for `packets` of a game, with UDP and IPv4. */
function bytesOnTheWire(
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
  assertEquals(server.delivered.length - before, packets);
  assert(datagrams >= packets);
  return bytes / packets;
}

const game = (_n: number): Shape => ({ port: 27_015 });
const game6 = (_n: number): Shape => ({ port: 27_015, version: 6 });
const call = (n: number): Shape => ({
  port: 40_000,
  rtp: { number: n & 0xffff, timestamp: 960 * n, marker: false },
});

for (
  const [name, shape, payload, trafficClass, most] of [
    ["a game's 32 bytes", game, 32, CLASS_GAME, 0.70],
    ["a game's 100 bytes", game, 100, CLASS_GAME, 0.81],
    ["a game's 32 bytes in IPv6", game6, 32, CLASS_GAME, 0.62],
    ["a call's 60 bytes in RTP", call, 60, CLASS_VOICE, 0.68],
  ] as const
) {
  Deno.test(`short packets: ${name} take at most ${most} of WireGuard's bytes`, () => {
    const short = bytesOnTheWire(pair(CONTEXTS), shape, payload, trafficClass);
    const whole = bytesOnTheWire(pair(undefined), shape, payload, trafficClass);
    const inner = packetOf(shape(1), new Uint8Array(payload)).length;
    // WireGuard: header and tag of 32 bytes, padding to 16, IPv4 and UDP.
    const wireguard = Math.ceil(inner / 16) * 16 + 32 + 28;
    assertLess(short, most * wireguard);
    assertGreater(whole, 0.8 * wireguard);
    assertLess(short, whole - 20);
  });
}

/** Sends packets of many flows both ways through the channel, and compares what comes out with what went in. */
function compare(channel: Partial<Channel>, isRepairing: boolean, seconds: number) {
  const { world, client, server } = pair(CONTEXTS, { isRepairing });
  const random = new Random(SEED);
  world.channel = { ...CLEAN, ...channel };
  const flows = Array.from({ length: 40 }, (_, i) => ({
    port: 20_000 + i,
    df: i % 3 !== 0,
    checksum: i % 5 !== 0,
    hasRtp: i % 4 === 1,
    id: random.u32() & 0xffff,
    number: random.u32() & 0xffff,
    timestamp: random.u32(),
    ttl: 64,
    tos: 0,
  }));
  const sent = new Set<string>();
  let packets = 0, wrong = 0, came = 0;
  server.delivered.length = 0;
  for (let n = 0; n < seconds * 500; n++) {
    const flow = flows[Math.floor(random.real() ** 2 * flows.length)];
    flow.id = (flow.id + 1) & 0xffff;
    flow.number = (flow.number + 1) & 0xffff;
    flow.timestamp = (flow.timestamp + (random.real() < 0.02 ? 4800 : 960)) >>> 0;
    if (random.real() < 0.005) flow.ttl = 50 + random.u32() % 10;
    if (random.real() < 0.005) flow.tos = random.u32() & 3;
    const rtp = flow.hasRtp
      ? { number: flow.number, timestamp: flow.timestamp, marker: random.real() < 0.1 }
      : undefined;
    const payload = new Uint8Array(8 + random.u32() % 60);
    new DataView(payload.buffer).setUint32(0, n);
    const tos = flow.tos | DSCP_OF[flow.port % 2 ? CLASS_GAME : CLASS_BULK] << 2;
    const packet = packetOf({ ...flow, tos, rtp }, payload);
    sent.add(essence(packet));
    packets++;
    client.send(packet);
    world.runFor(2000);
    for (const out of server.delivered.splice(0)) {
      came++;
      if (!sent.has(essence(out))) wrong++;
    }
  }
  world.runFor(SECOND);
  for (const out of server.delivered.splice(0)) {
    came++;
    if (!sent.has(essence(out))) wrong++;
  }
  const unknown = server.metrics.dropped("unknown_context");
  return { packets, came, wrong, unknown, elided: client.metrics.get("headers_elided"), client };
}

Deno.test("short packets: forty flows over a rough path come out as they went in, or not at all", () => {
  for (const isRepairing of [false, true]) {
    const result = compare({ loss: 0.2, jitterUs: 40_000, duplicate: 0.05 }, isRepairing, 20);
    assertEquals(result.wrong, 0);
    assertEquals(result.unknown, 0);
    assertGreater(result.came, 0.75 * result.packets);
    assertGreater(result.elided, 0.6 * result.packets);
    assertEquals(result.client.metrics.get("headers_mismatch"), 0);
  }
});

Deno.test("short packets: an end that offers none gets none", () => {
  for (const [ofClient, ofRelay] of [[CONTEXTS, undefined], [undefined, CONTEXTS]] as const) {
    const { world, client, server } = pair(ofClient, { ofRelay });
    for (let n = 0; n < 50; n++) {
      client.send(packetOf(game(n), new Uint8Array(20)));
      world.runFor(10_000);
    }
    world.runFor(SECOND);
    world.runFor(SECOND);
    assertEquals(client.metrics.get("headers_elided") + client.metrics.get("header_definitions"), 0);
    assertEquals(server.delivered.length, 51);
  }
});

Deno.test("short packets: a relay without room for contexts acknowledges none, and loses nothing", () => {
  const { world, client, server } = pair(CONTEXTS, { ofRelay: 0 });
  const before = server.delivered.length;
  for (let n = 0; n < 200; n++) {
    client.send(packetOf(game(n), new Uint8Array(20).fill(n)));
    world.runFor(10_000);
  }
  world.runFor(SECOND);
  assertEquals(server.delivered.length - before, 200);
  assertEquals(client.metrics.get("headers_elided"), 0);
  assertLess(client.metrics.get("header_definitions"), 40);
});

Deno.test("short packets: repair brings them back", () => {
  const { world, client, server } = pair(CONTEXTS, { isRepairing: true });
  world.channel = { ...CLEAN, loss: 0.05 };
  const packets = 2000, before = server.delivered.length;
  for (let n = 0; n < packets; n++) {
    const payload = new Uint8Array(40).fill(n);
    client.send(packetOf({ port: 27_015, tos: DSCP_OF[CLASS_GAME] << 2 }, payload));
    world.runFor(15_625);
  }
  world.runFor(SECOND);
  const came = server.delivered.slice(before);
  assertGreater(client.metrics.get("headers_elided"), 0.9 * packets);
  // One octet, and a frame's head where repair needs one.
  const perShort = (name: "header_bytes_saved" | "header_bytes_sent") =>
    client.metrics.get(name) / client.metrics.get("headers_elided");
  assertEquals([perShort("header_bytes_saved"), perShort("header_bytes_sent")], [25, 3]);
  assertGreater(came.length, 0.98 * packets);
  assert(
    came.every((packet) =>
      packet.length === 68 && packet.subarray(28).every((octet) => octet === packet[28])
    ),
  );
});

Deno.test("short packets: IPv6 RTP goes on to a WireGuard client, whose header needs the room in front", () => {
  const world = new World(SEED);
  const destinations = {
    allowLoopback: false,
    allowLinkLocal: false,
    allowPrivate: false,
    allowPeers: true,
    allow: [],
    deny: [],
  };
  const server = world.relay("192.0.2.1:4433", {
    ipv4: "10.66.0.1",
    ipv6: "fd00::1",
    headerContexts: CONTEXTS,
    destinations,
  });
  const [client, other] = (["oxtunnel", "wireguard"] as const).map((protocol, i) => {
    world.protocol = protocol;
    const ipv4 = `10.66.0.${i + 2}`;
    return world.client(`198.51.100.${i + 7}:5555`, server, { ipv4, headerContexts: CONTEXTS });
  });
  server.core.replacePeers(
    [client, other].map(({ publicKey }, i) => ({
      name: `${i}`,
      publicKey,
      allowedIps: [`10.66.0.${i + 2}/32`, `fd00::${i + 2}/128`],
      created: "",
    })),
  );
  const between = (n: number, from: number, to: number) => {
    const rtp = { number: n, timestamp: 960 * n, marker: false };
    const packet = packetOf({ version: 6, port: 40_000, rtp }, new Uint8Array(20).fill(n));
    packet.fill(0, 8, 40);
    packet[8] = packet[24] = 0xfd;
    packet[23] = from;
    packet[39] = to;
    packet.fill(0, 46, 48);
    const checksum = transportChecksum(new DataView(packet.buffer), 0, 40, packet.length - 40, 17);
    new DataView(packet.buffer).setUint16(46, checksum || 0xffff);
    return packet;
  };
  other.send(between(0, 3, 2));
  world.runFor(SECOND);
  const sent: string[] = [];
  for (let n = 0; n < 300; n++) {
    const packet = between(n, 2, 3);
    sent.push(essence(packet));
    client.send(packet);
    world.runFor(20_000);
  }
  world.runFor(SECOND);
  assertGreater(client.metrics.get("headers_elided"), 250);
  assertEquals(other.delivered.map(essence), sent);
});

/** A session of ends with short packets, of which those named have LZ4. */
function withLz4(ofClient: boolean, ofRelay: boolean) {
  const world = new World(SEED);
  world.protocol = "oxtunnel";
  const lz4 = (has: boolean) => has ? new PortableLz4() : undefined;
  const server = world.relay("192.0.2.1:4433", {
    ipv4: "10.66.0.1",
    headerContexts: CONTEXTS,
    lz4: lz4(ofRelay),
  });
  const client = world.client("198.51.100.7:5555", server, {
    ipv4: CLIENT,
    headerContexts: CONTEXTS,
    lz4: lz4(ofClient),
  });
  client.send(udpPacket(CLIENT, SERVER, new Uint8Array(10)));
  world.runFor(SECOND);
  const send = (packets: number, payload: () => Uint8Array) => {
    for (let n = 0; n < packets; n++) {
      client.send(packetOf({ port: 27_015 }, payload()));
      world.runFor(10_000);
    }
    world.runFor(SECOND);
  };
  return { client, server, send };
}

const noise = (bytes: number, random: Random) => {
  const out = new Uint8Array(bytes);
  random.fill(out);
  return out;
};

Deno.test("short packets: a flow that LZ4 did not shrink once is tried again, and its packets are short meanwhile", () => {
  const { client, server, send } = withLz4(true, true);
  const random = new Random(SEED);
  send(400, () => noise(400, random));
  const elided = client.metrics.get("headers_elided");
  assertGreater(elided, 350);
  assertEquals(client.metrics.get("packets_compressed"), 0);
  send(2000, () => new TextEncoder().encode("the relay keeps queues short and hides loss ".repeat(9)));
  assertGreater(client.metrics.get("packets_compressed"), 1000);
  assertEquals(server.delivered.length, 2401);
});

Deno.test("short packets: LZ4 that only one end has keeps no packet's headers", () => {
  for (const [ofClient, ofRelay] of [[false, false], [true, false]] as const) {
    const { client, send } = withLz4(ofClient, ofRelay);
    const random = new Random(SEED);
    send(100, () => noise(400, random));
    assertGreater(client.metrics.get("headers_elided"), 90);
  }
});
