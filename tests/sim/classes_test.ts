/**
 * The classes of a flow's two directions, between whole clients and relays: what the client wishes, marks or shows by its
 * own packets holds for the answers too, where the relay knows no better; and both ends count the same. Each failure
 * names its seed.
 */
import { assert, assertEquals, assertGreater } from "@std/assert";
import type { Client } from "../../src/client.ts";
import { PortableShardKernel } from "../../src/codec/gf256.ts";
import { readRules } from "../../src/connect/priorities.ts";
import { DEFAULTS } from "../../src/config.ts";
import { CLASS_DEFAULT, CLASS_GAME, CLASS_VOICE } from "../../src/control/traffic_class.ts";
import { CLASS_LABELS, type ClassLabel } from "../../src/metrics.ts";
import type { Relay } from "../../src/relay.ts";
import { repairOptions } from "../../src/repair/options.ts";
import { CLEAN, type Host, World } from "../kit/world.ts";
import { udpPacket } from "../kit/packets.ts";

const SECOND = 1_000_000;
const SEED = Number(Deno.env.get("SIM_SEED") ?? 1);
const CLIENT = "10.66.0.2", FAR = "8.8.8.8";
/** Known for nothing. */
const PORT = 40_000, FAR_PORT = 41_234;
/** DSCP CS1 and EF (RFC 4594). */
const BULK_MARK = 8, VOICE_MARK = 46;

interface Ends {
  world: World;
  server: Host<Relay>;
  client: Host<Client>;
}

function connected(): Ends {
  const world = new World(SEED);
  world.protocol = "oxtunnel";
  const repair = repairOptions(new PortableShardKernel(), DEFAULTS.repair);
  const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1", repair });
  const client = world.client("198.51.100.7:5555", server, { ipv4: CLIENT, repair });
  client.send(up(4));
  world.runFor(2 * SECOND);
  return { world, server, client };
}

/** A packet of the flow from the client, and one to it. */
function up(bytes: number, dscp = 0): Uint8Array {
  return packet(CLIENT, FAR, PORT, FAR_PORT, bytes, dscp);
}
function down(bytes: number, dscp = 0): Uint8Array {
  return packet(FAR, CLIENT, FAR_PORT, PORT, bytes, dscp);
}

function packet(from: string, to: string, fromPort: number, toPort: number, bytes: number, dscp: number) {
  const whole = udpPacket(from, to, new Uint8Array(bytes));
  const view = new DataView(whole.buffer);
  // The word of the mark changes, and with it the checksum (RFC 1624).
  const sum = (~view.getUint16(10) & 0xffff) + (dscp << 2);
  view.setUint8(1, dscp << 2);
  view.setUint16(10, ~((sum & 0xffff) + (sum >> 16)));
  view.setUint16(20, fromPort);
  view.setUint16(22, toPort);
  return whole;
}

const WISH = {
  protocol: 17,
  clientPort: PORT,
  remotePort: 0,
  client: new Uint32Array(4),
  remote: new Uint32Array(4),
};

/** Packets that the host has counted of a class since it was asked last. */
function counter(host: Host, direction: "to_tunnel" | "from_tunnel"): (label: ClassLabel) => number {
  const before = CLASS_LABELS.map((label) => host.metrics.ofClass(direction, label).packets);
  return (label) => host.metrics.ofClass(direction, label).packets - before[CLASS_LABELS.indexOf(label)];
}

for (const isWished of [true, false]) {
  Deno.test(`classes: the answers of a flow ${isWished ? "wished" : "not wished"} for as a game (seed ${SEED})`, () => {
    const { world, server, client } = connected();
    if (isWished) {
      assert(client.core.hint(WISH, CLASS_GAME));
      client.tick();
      world.runFor(SECOND);
    }
    const sent = counter(server, "to_tunnel"), came = counter(client, "from_tunnel");
    const held = server.metrics.get("packets_held");
    // Marked as bulk by who sends them, and so close together that bulk would wait for company.
    for (let i = 0; i < 200; i++) {
      server.send(down(60, BULK_MARK));
      world.runFor(200);
    }
    world.runFor(SECOND);
    assertEquals(server.metrics.get("packets_held") > held, !isWished, "they leave at once");
    assertEquals(sent(isWished ? "game" : "bulk"), 200);
    assertEquals(came(isWished ? "game" : "bulk"), 200, "the other end counts the same");
    world.channel = { ...CLEAN, loss: 0.05 };
    for (let i = 0; i < 64 * 20; i++) {
      server.send(down(60, BULK_MARK));
      world.runFor(15_625);
    }
    assertEquals(server.metrics.get("repair_bytes_sent") > 0, isWished, "they are protected");
    assertEquals(client.metrics.get("packets_repaired") > 20, isWished);
  });
}

Deno.test(`classes: a mark on what the client sends holds for the answers, which have none (seed ${SEED})`, () => {
  const { world, server, client } = connected();
  const sent = counter(server, "to_tunnel"), came = counter(server, "from_tunnel");
  const exchange = (dscpUp: number, dscpDown: number) => {
    client.send(up(100, dscpUp));
    world.runFor(100_000);
    server.send(down(400, dscpDown));
    world.runFor(100_000);
  };
  exchange(VOICE_MARK, 0);
  assertEquals([came("voice"), sent("voice")], [1, 1]);
  // Its own mark is better to go by.
  exchange(VOICE_MARK, BULK_MARK);
  assertEquals([came("voice"), sent("voice"), sent("bulk")], [2, 1, 1]);
  // Of a mark it does not matter which: that of a transfer holds too.
  exchange(BULK_MARK, 0);
  assertEquals([sent("voice"), sent("bulk")], [1, 2]);
  // Who says nothing for a while is not asked.
  world.runFor(3 * SECOND);
  server.send(down(400));
  world.runFor(SECOND);
  assertEquals([sent("bulk"), sent("default")], [2, 1]);
});

Deno.test(`classes: a relay's rule goes before marks, and a client's wish before the rule (seed ${SEED})`, () => {
  const { world, server, client } = connected();
  const sent = counter(server, "to_tunnel");
  const answer = () => {
    server.send(down(100, VOICE_MARK));
    world.runFor(SECOND);
  };
  answer();
  server.core.setClassRules(readRules([`bulk port=${FAR_PORT}`]));
  answer();
  assertEquals([sent("voice"), sent("bulk")], [1, 1], "for a flow that is there, too");
  assert(client.core.hint(WISH, CLASS_GAME));
  client.tick();
  world.runFor(SECOND);
  answer();
  assertEquals([sent("game"), sent("bulk")], [1, 1]);
  client.core.hint(WISH, undefined);
  client.tick();
  world.runFor(SECOND);
  server.core.setClassRules([]);
  answer();
  assertEquals([sent("voice"), sent("game"), sent("bulk")], [2, 1, 1], "without both the mark holds again");
});

Deno.test(`classes: what flows are recognised as is counted while they go on (seed ${SEED})`, () => {
  const { world, server, client } = connected();
  const call = packet(CLIENT, FAR, PORT, FAR_PORT, 28, 0);
  call.set([0, 1, 0, 8, 0x21, 0x12, 0xa4, 0x42], 28);
  client.send(call);
  world.runFor(SECOND);
  assertEquals([client.core.applications(world.nowUs), server.core.applications(world.nowUs)], [{ stun: 1 }, {
    stun: 1,
  }]);
  world.runFor(20 * SECOND);
  assertEquals(server.core.applications(world.nowUs), {});
});

Deno.test(`classes: by the pace of its commands a game is known, and its snapshots with it (seed ${SEED})`, () => {
  const { world, server, client } = connected();
  const play = (seconds: number, commands: boolean) => {
    for (let i = 0; i < 64 * seconds; i++) {
      if (commands) client.send(up(60));
      // Longer than a game's packets are taken to be, and none of the sizes of a transfer.
      if (i % 3 === 0) server.send(down(900));
      world.runFor(15_625);
    }
  };
  const before = counter(server, "to_tunnel");
  play(4, false);
  assertEquals([before("game"), before("default")], [0, 86], "by themselves they are nothing in particular");
  play(2, true);
  const sent = counter(server, "to_tunnel"), came = counter(server, "from_tunnel");
  const leaving = counter(client, "to_tunnel"), arriving = counter(client, "from_tunnel");
  play(4, true);
  world.runFor(SECOND / 2);
  assertGreater(came("game"), 250);
  assertEquals(sent("game"), 86);
  assertEquals([leaving("game"), arriving("game")], [256, 86], "the client counts the same");
});

Deno.test(`classes: a download does not make what asks for it wait (seed ${SEED})`, () => {
  const { world, server, client } = connected();
  for (let i = 0; i < 500; i++) {
    server.send(down(1300));
    world.runFor(1000);
  }
  const leaving = counter(client, "to_tunnel");
  client.send(up(300));
  world.runFor(SECOND);
  assertGreater(server.metrics.ofClass("to_tunnel", "bulk").packets, 400);
  assertEquals(leaving("default"), 1);
});

Deno.test(`classes: what WireGuard carries is not looked at (seed ${SEED})`, () => {
  const world = new World(SEED);
  const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1" });
  const client = world.client("198.51.100.7:5555", server, { ipv4: CLIENT });
  for (let i = 0; i < 10; i++) {
    client.send(up(100, VOICE_MARK));
    server.send(down(100, VOICE_MARK));
    world.runFor(SECOND);
  }
  assertEquals(server.delivered.length, 10);
  for (const direction of ["to_tunnel", "from_tunnel"] as const) {
    for (const label of CLASS_LABELS) {
      assertEquals(server.metrics.ofClass(direction, label), { packets: 0, bytes: 0 });
    }
  }
});

Deno.test("classes: the labels are in the order of the numbers", () => {
  assertEquals(CLASS_LABELS[CLASS_DEFAULT], "default");
  assertEquals([CLASS_LABELS[CLASS_GAME], CLASS_LABELS[CLASS_VOICE]], ["game", "voice"]);
});
