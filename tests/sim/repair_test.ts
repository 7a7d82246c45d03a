/**
 * Loss repair between whole clients and relays in the deterministic world: what comes through in time with it and
 * without, what it costs, and that nothing comes twice or changed. Each failure names its seed.
 */
import { assert, assertEquals, assertGreater, assertLess } from "@std/assert";
import type { Client } from "../../src/client.ts";
import { PortableShardKernel } from "../../src/codec/gf256.ts";
import { CLASS_BULK, CLASS_GAME } from "../../src/control/traffic_class.ts";
import type { Relay } from "../../src/relay.ts";
import { repairOptions } from "../../src/repair/options.ts";
import { type Channel, CLEAN, type Host, World } from "../kit/world.ts";
import { udpPacket } from "../kit/packets.ts";

const SECOND = 1_000_000;
const SEED = Number(Deno.env.get("SIM_SEED") ?? 1);
const GAP_US = 15_625;
const DEADLINE_US = 60_000;
const LOSSY: Channel = { ...CLEAN, loss: 0.05 };
const BURSTY: Channel = { ...CLEAN, enterBad: 0.026, leaveBad: 0.5 };

interface Outcome {
  sent: number;
  /** Shares of packets that came, and that came within the deadline after the path's delay. */
  arrived: number;
  inTime: number;
  /** Bytes of datagrams from client to relay. */
  bytes: number;
  client: Host<Client>;
  server: Host<Relay>;
}

/** Plays a game for `seconds`; each packet has `packetBytes` of payload. */
function play(
  isRepairing: boolean,
  channel: Channel,
  { seconds = 60, seed = SEED, trafficClass = CLASS_GAME, packetBytes = 60 } = {},
): Outcome {
  const world = new World(seed);
  world.protocol = "oxtunnel";
  const repair = isRepairing
    ? repairOptions(new PortableShardKernel(), {
      budgetPercent: 25,
      gameDeadlineMs: 60,
      voiceDeadlineMs: 100,
    })
    : undefined;
  const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1", repair });
  const client = world.client("198.51.100.7:5555", server, { ipv4: "10.66.0.2", repair });
  client.send(udpPacket("10.66.0.2", "8.8.8.8", new Uint8Array(4)));
  world.runFor(SECOND);
  server.delivered.length = 0;
  let bytes = 0;
  world.tap = (from, _to, datagram) => {
    if (from === client.endpoint) bytes += datagram.length;
    return datagram;
  };
  world.channel = channel;
  const sentUs: number[] = [], cameUs: number[] = [];
  let seen = 0;
  const look = () => {
    for (; seen < server.delivered.length; seen++) {
      const packet = server.delivered[seen];
      const n = new DataView(packet.buffer).getUint32(28);
      assertEquals(cameUs[n], undefined, `packet ${n} came twice`);
      assertEquals(packet.length, 28 + packetBytes + n % 40);
      assert(packet.subarray(32).every((byte) => byte === (n & 0xff)), `packet ${n} is changed`);
      cameUs[n] = world.nowUs;
    }
  };
  for (let n = 0; n < seconds * 64; n++) {
    const payload = new Uint8Array(packetBytes + n % 40).fill(n);
    new DataView(payload.buffer).setUint32(0, n);
    sentUs.push(world.nowUs);
    client.sendBurst([udpPacket("10.66.0.2", "8.8.8.8", payload)], trafficClass);
    for (let step = 0; step < 5; step++) {
      world.runFor(GAP_US / 5);
      look();
    }
  }
  for (let step = 0; step < 320; step++) {
    world.runFor(GAP_US / 5);
    look();
  }
  const sent = sentUs.length;
  const limitUs = DEADLINE_US + channel.delayUs + GAP_US / 5;
  return {
    sent,
    arrived: cameUs.filter((us) => us !== undefined).length / sent,
    inTime: sentUs.filter((us, n) => cameUs[n] - us <= limitUs).length / sent,
    bytes,
    client,
    server,
  };
}

Deno.test(`repair: random losses of a game are brought back in time, and not when it is off (seed ${SEED})`, () => {
  let inTime = 0;
  for (let seed = SEED; seed < SEED + 3; seed++) {
    const off = play(false, LOSSY, { seed }), on = play(true, LOSSY, { seed });
    assertLess(off.inTime, 0.96);
    assertEquals(off.server.metrics.get("packets_repaired"), 0);
    assertGreater(on.server.metrics.get("packets_repaired"), 100);
    // The budget counts outer headers, which the tap does not see.
    assertLess(on.bytes + 28 * on.sent, 1.25 * (off.bytes + 28 * off.sent));
    inTime += on.inTime / 3;
  }
  assertGreater(inTime, 0.988);
});

Deno.test(`repair: on a clean path it costs less than 2 % (seed ${SEED})`, () => {
  const off = play(false, CLEAN), on = play(true, CLEAN);
  assertEquals([off.inTime, on.inTime], [1, 1]);
  assertLess(on.bytes, 1.02 * off.bytes);
});

Deno.test(`repair: against bursts too it brings more in time than without (seed ${SEED})`, () => {
  const off = play(false, BURSTY), on = play(true, BURSTY);
  assertGreater(on.inTime, off.inTime + 0.2 * (1 - off.inTime));
});

Deno.test(`repair: reordering and duplicates bring nothing twice (seed ${SEED})`, () => {
  for (let seed = SEED; seed < SEED + 5; seed++) {
    const wild = { ...LOSSY, jitterUs: 60_000, duplicate: 0.1, corrupt: 0.02 };
    const { arrived, server } = play(true, wild, { seconds: 20, seed });
    assertGreater(arrived, 0.91, `seed ${seed}`);
    assertGreater(server.metrics.get("packets_repaired"), 10, `seed ${seed}`);
  }
});

Deno.test(`repair: bulk gets little, and none where nothing is lost (seed ${SEED})`, () => {
  const { client, bytes } = play(true, LOSSY, { seconds: 20, trafficClass: CLASS_BULK });
  assertLess(client.metrics.get("repair_bytes_sent"), 0.1 * bytes);
  const clean = play(true, CLEAN, { seconds: 20, trafficClass: CLASS_BULK });
  assertEquals(clean.client.metrics.get("repair_bytes_sent"), 0);
});

Deno.test(`repair: packets too large for it go as they are (seed ${SEED})`, () => {
  const { arrived, client } = play(true, LOSSY, { seconds: 20, packetBytes: 900 });
  assert(arrived > 0.9 && arrived < 0.98, `${arrived}`);
  assertEquals(client.metrics.get("repair_bytes_sent"), 0);
});

Deno.test(`repair: an end that has none and one that has get along (seed ${SEED})`, () => {
  const world = new World(SEED);
  world.protocol = "oxtunnel";
  const repair = repairOptions(new PortableShardKernel(), {
    budgetPercent: 25,
    gameDeadlineMs: 60,
    voiceDeadlineMs: 100,
  });
  const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1" });
  const client = world.client("198.51.100.7:5555", server, { ipv4: "10.66.0.2", repair });
  world.runFor(SECOND);
  for (let n = 0; n < 200; n++) {
    client.sendBurst([udpPacket("10.66.0.2", "8.8.8.8", new Uint8Array(80))], CLASS_GAME);
    world.runFor(GAP_US);
  }
  world.runFor(SECOND);
  assertEquals(server.delivered.length, 200);
  assertEquals(client.metrics.get("repair_bytes_sent"), 0);
});
