/**
 * ROHC on the live path between whole relays and clients, where both ends agreed to it: what comes out is octet for octet
 * what went in, whatever the network does; what it saves on the wire; when it is not used; and what a relay without
 * memory for contexts, or one that lost them, makes of it.
 */
import { assert, assertEquals, assertGreater, assertLess } from "@std/assert";
import { CLASS_BULK, CLASS_GAME, CLASS_VOICE } from "../../src/control/traffic_class.ts";
import {
  bytesOnTheWire,
  call,
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
  shareOverSatellite,
  tcpPacket,
} from "../kit/header_play.ts";
import { CLEAN } from "../kit/world.ts";
import { Random } from "../kit/random.ts";

const CONTEXTS = 4096;
const BOTH = ["rohc", "elided"] as const;

Deno.test("ROHC: forty flows over a rough path come out octet for octet, or not at all", () => {
  for (const isRepairing of [false, true]) {
    const result = compare({
      contexts: CONTEXTS,
      methods: ["rohc"],
      channel: { loss: 0.2, jitterUs: 40_000, duplicate: 0.05 },
      isRepairing,
      packets: 10_000,
      intervalUs: 2000,
      renewEvery: 100,
      withIds: true,
    });
    assertEquals([result.wrong, result.unknown], [0, 0]);
    assertGreater(result.came, 0.75 * result.packets);
    // Sixteen contexts serve the busiest of forty flows.
    assertGreater(result.elided, 0.4 * result.packets);
  }
});

for (
  const [name, shape, payload, trafficClass, most] of [
    ["a game's 32 bytes", game, 32, CLASS_GAME, 0.72],
    ["a game's 32 bytes in IPv6", game6, 32, CLASS_GAME, 0.62],
    ["a call's 60 bytes in RTP", call, 60, CLASS_VOICE, 0.68],
  ] as const
) {
  Deno.test(`ROHC: ${name} take at most ${most} of WireGuard's bytes`, () => {
    const [rohc, whole] = [CONTEXTS, undefined].map((contexts) => {
      const two = pair(contexts, { methods: ["rohc"] });
      const { perPacket, isWhole } = bytesOnTheWire(two, shape, payload, trafficClass);
      assert(isWhole);
      return perPacket;
    });
    const inner = packetOf(shape(1), new Uint8Array(payload)).length;
    const wireguard = Math.ceil(inner / 16) * 16 + 32 + 28;
    assertLess(rohc, most * wireguard);
    assertLess(rohc, whole - 20);
  });
}

Deno.test("ROHC: the relay's first method that the client offers is the session's", () => {
  const ways = { elided: 1, rohc: 4, none: 28 };
  for (
    const [methods, methodsOfRelay, way] of [
      [["elided"], BOTH, "elided"],
      [BOTH, ["elided"], "elided"],
      [BOTH, BOTH, "rohc"],
      [BOTH, ["elided", "rohc"], "elided"],
      [["rohc"], ["rohc"], "rohc"],
      [["rohc"], ["elided"], "none"],
    ] as const
  ) {
    const two = pair(CONTEXTS, { methods, methodsOfRelay });
    const { perPacket } = bytesOnTheWire(two, game, 32, CLASS_GAME);
    const headers = Math.round(perPacket) - 32 - 22 - 28;
    assert(Math.abs(headers - ways[way]) <= 2, `${methods} and ${methodsOfRelay}: ${headers} octets`);
  }
});

Deno.test("ROHC: a relay without room for contexts says so, and packets go whole", () => {
  const { client, delivered } = playWithoutRoom(CONTEXTS, ["rohc"]);
  assertEquals(delivered, 200);
  assertEquals(client.metrics.get("headers_elided"), 0);
  assertLess(client.metrics.get("header_definitions"), 12);
});

Deno.test("ROHC: a TCP flow, and packets that no profile takes, come out as they went in", () => {
  const { world, client, server } = pair(CONTEXTS, { methods: ["rohc"] });
  const random = new Random(SEED), sent: string[] = [];
  server.delivered.length = 0;
  for (let n = 0; n < 600; n++) {
    const packet = n % 5 === 4
      ? packetOf({ ...game(n), badChecksum: true, port: 9 }, new Uint8Array(20).fill(n))
      : tcpPacket(n, random);
    sent.push(essence(packet, true));
    client.send(packet);
    world.runFor(10_000);
  }
  world.runFor(SECOND);
  assertEquals(server.delivered.map((packet) => essence(packet, true)), sent);
  assertGreater(client.metrics.get("headers_elided"), 400);
});

Deno.test("ROHC: packets that wait for others to share a datagram come back too", () => {
  const { world, client, server } = pair(CONTEXTS, { methods: ["rohc"] });
  const sent: string[] = [];
  server.delivered.length = 0;
  for (let n = 0; n < 400; n++) {
    // Bulk packets of two flows in one turn.
    const packets = [3000, 3001, 3000].map((port, i) =>
      packetOf({ port, id: 2 * n + (i >> 1), tos: DSCP_OF[CLASS_BULK] << 2 }, new Uint8Array(40).fill(n))
    );
    sent.push(...packets.map((packet) => essence(packet, true)));
    client.sendBurst(packets);
    world.runFor(4000);
  }
  world.runFor(SECOND);
  assertEquals(server.delivered.map((packet) => essence(packet, true)).toSorted(), sent.toSorted());
  assertGreater(client.metrics.get("packets_batched"), 600);
  assertGreater(client.metrics.get("headers_elided"), 1000);
});

Deno.test("ROHC: repair brings packets back, out of order as they are then", () => {
  const { world, client, server } = pair(CONTEXTS, { methods: ["rohc"], isRepairing: true });
  world.channel = { ...CLEAN, loss: 0.05 };
  const packets = 2000, before = server.delivered.length, sent = new Set<string>();
  for (let n = 0; n < packets; n++) {
    const packet = packetOf({ ...game(n), id: n, tos: DSCP_OF[CLASS_GAME] << 2 }, new Uint8Array(40).fill(n));
    sent.add(essence(packet, true));
    client.send(packet);
    world.runFor(15_625);
  }
  world.runFor(SECOND);
  const came = server.delivered.slice(before);
  assertGreater(client.metrics.get("headers_elided"), 0.9 * packets);
  assertGreater(came.length, 0.98 * packets);
  assert(came.every((packet) => sent.has(essence(packet, true))));
  assertEquals(server.metrics.dropped("unknown_context"), 0);
});

Deno.test("ROHC: a fast flow over a satellite has its headers made small too", () => {
  // The rest went before the first second was over, or while as many were on the way as may be.
  assertGreater(shareOverSatellite(CONTEXTS, ["rohc"]), 0.5);
});
