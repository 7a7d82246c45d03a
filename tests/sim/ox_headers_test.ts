/**
 * Short packets on the live path between whole relays and clients: what comes out is what went in, whatever the network
 * does; what they save on the wire beside what WireGuard sends; and what a peer that lies about its contexts gets.
 */
import { assert, assertEquals, assertGreater, assertLess } from "@std/assert";
import { PortableLz4 } from "../../src/codec/lz4.ts";
import { CLASS_BULK, CLASS_GAME, CLASS_VOICE } from "../../src/control/traffic_class.ts";
import { HEADERS_KEPT } from "../../src/metrics.ts";
import { transportChecksum } from "../../src/wire/inner.ts";
import {
  bytesOnTheWire,
  call,
  CLIENT,
  compare,
  DSCP_OF,
  essence,
  game,
  game6,
  packetOf,
  pair,
  playWithoutRoom,
  SECOND,
  SEED,
  SERVER,
  shareOverSatellite,
} from "../kit/header_play.ts";
import { CLEAN, World } from "../kit/world.ts";
import { udpPacket } from "../kit/packets.ts";
import { Random } from "../kit/random.ts";

const CONTEXTS = 256;

for (
  const [name, shape, payload, trafficClass, most] of [
    ["a game's 32 bytes", game, 32, CLASS_GAME, 0.70],
    ["a game's 100 bytes", game, 100, CLASS_GAME, 0.81],
    ["a game's 32 bytes in IPv6", game6, 32, CLASS_GAME, 0.62],
    ["a call's 60 bytes in RTP", call, 60, CLASS_VOICE, 0.68],
  ] as const
) {
  Deno.test(`short packets: ${name} take at most ${most} of WireGuard's bytes`, () => {
    const [short, whole] = [CONTEXTS, undefined].map((contexts) => {
      const { perPacket, isWhole } = bytesOnTheWire(pair(contexts), shape, payload, trafficClass);
      assert(isWhole);
      return perPacket;
    });
    const inner = packetOf(shape(1), new Uint8Array(payload)).length;
    // WireGuard: header and tag of 32 bytes, padding to 16, IPv4 and UDP.
    const wireguard = Math.ceil(inner / 16) * 16 + 32 + 28;
    assertLess(short, most * wireguard);
    assertGreater(whole, 0.8 * wireguard);
    assertLess(short, whole - 20);
  });
}

Deno.test("short packets: forty flows over a rough path come out as they went in, or not at all", () => {
  // `deno task sim:headers` sends a million.
  for (const [isRepairing, packets] of [[false, 10_000], [true, 100_000]] as const) {
    const result = compare({
      contexts: CONTEXTS,
      channel: { loss: 0.2, jitterUs: 140_000, duplicate: 0.05 },
      isRepairing,
      packets,
      intervalUs: 2000,
      renewEvery: 100,
    });
    assertEquals([result.wrong, result.unknown, result.mismatches], [0, 0, 0]);
    assertGreater(result.came, 0.75 * result.packets);
    assertGreater(result.elided, 0.6 * result.packets);
    assertGreater(result.reordered, 60);
  }
});

Deno.test("short packets: what stands for a call's headers is two octets, its anchors included", () => {
  const two = pair(CONTEXTS);
  const { perPacket } = bytesOnTheWire(two, call, 60, CLASS_VOICE);
  assertLess(perPacket, 60 + 2 + 22 + 28 + 0.1);
  const { metrics } = two.client;
  assertLess(metrics.get("header_bytes_sent") / metrics.get("headers_elided"), 2.1);
});

Deno.test("short packets: a call that speaks both ways has its anchors acknowledged by the packets of the other way", () => {
  const { world, client, server } = pair(CONTEXTS);
  let alone = 0;
  for (let n = 0; n < 600; n++) {
    if (n === 100) {
      world.tap = (from, _to, datagram) => {
        if (from === server.endpoint && datagram.length < 90) alone++;
        return datagram;
      };
    }
    client.send(packetOf({ ...call(n), tos: DSCP_OF[CLASS_VOICE] << 2 }, new Uint8Array(60).fill(n)));
    world.runFor(10_000);
    server.send(udpPacket(SERVER, CLIENT, new Uint8Array(100).fill(n)));
    world.runFor(10_000);
  }
  const { metrics } = client;
  assertGreater(metrics.get("headers_elided"), 550);
  assertLess(metrics.get("header_bytes_sent") / metrics.get("headers_elided"), 2.2);
  assertLess(alone, 30);
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
  const { client, delivered } = playWithoutRoom(CONTEXTS);
  assertEquals(delivered, 200);
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
  assertEquals(other.delivered.map((packet) => essence(packet)), sent);
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

Deno.test("short packets: those that wait for company while a session takes another's place are sent under the old one", () => {
  const { world, client, server } = pair(CONTEXTS);
  let n = 0;
  const next = () => {
    client.send(packetOf({ port: 9000, tos: DSCP_OF[CLASS_BULK] << 2 }, new Uint8Array(8).fill(n++)));
    world.runFor(200);
  };
  server.delivered.length = 0;
  for (let session = 0; session < 12; session++) {
    for (let i = 0; i < 1000; i++) next();
    client.core.connect("192.0.2.1", 4433, world.nowUs);
    client.tick();
    for (let i = 0; i < 500; i++) next();
    // Handshakes of one key come five seconds apart.
    world.runFor(6 * SECOND);
  }
  assertGreater(client.metrics.get("handshakes_completed"), 10);
  assertGreater(client.metrics.get("packets_held"), 8000);
  assertGreater(client.metrics.get("headers_elided"), 0.8 * n);
  assertEquals(client.metrics.dropped("no_session"), 0);
  assertEquals(server.delivered.length, n);
});

Deno.test("short packets: the relay tells what headers to a peer became, and why other packets kept theirs", () => {
  const { world, client, server } = pair(CONTEXTS);
  const down = (n: number, port: number, bytes: number, wrong = false) => {
    const packet = udpPacket(SERVER, CLIENT, new Uint8Array(bytes).fill(n));
    const view = new DataView(packet.buffer);
    view.setUint16(20, port);
    view.setUint16(26, 0);
    view.setUint16(26, transportChecksum(view, 0, 20, packet.length - 20, 17) ^ (wrong ? 1 : 0));
    server.send(packet);
    world.runFor(10_000);
  };
  assertEquals(server.core.peerSnapshots(world.nowUs)[0].headers, undefined);
  client.delivered.length = 0;
  for (let n = 0; n < 200; n++) down(n, 5000, 40);
  for (let n = 0; n < 10; n++) down(n, 5000, 800);
  for (let n = 0; n < 2; n++) down(n, 5000, 40, true);
  world.runFor(2 * SECOND);
  const { method, before, after } = server.core.peerSnapshots(world.nowUs)[0].headers!;
  // Without DF the identification travels.
  assertEquals([method, before, after], ["elided", 28, 3]);
  const kept = HEADERS_KEPT.map((reason) => server.metrics.get(`headers_kept_${reason}`));
  const total = kept.reduce((sum, one) => sum + one, 0);
  assertEquals(kept.slice(2), [0, 2, 0, 0, 10], "changed, and too long");
  // Three before the flow is a candidate, and those between two definitions.
  assertGreater(kept[1], 2);
  const { metrics } = server;
  assertEquals(total + metrics.get("headers_elided") + metrics.get("header_definitions"), 212);
  assertEquals([
    client.delivered.length,
    metrics.get("header_contexts"),
    client.metrics.get("header_contexts"),
  ], [212, 0, 1]);
});

Deno.test("short packets: a fast flow over a satellite has its headers made small too", () => {
  // The rest went before the first second was over.
  assertGreater(shareOverSatellite(CONTEXTS, ["elided"]), 0.8);
});
