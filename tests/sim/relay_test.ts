/**
 * Whole relays and clients in the deterministic world: lossy handshakes, rekeys, roaming, replays, floods, many
 * clients, clock jumps. Each failure names its seed.
 */
import { assert, assertEquals, assertGreater } from "@std/assert";
import { warmUp } from "../../src/process/warmup.ts";
import { portableSuite } from "../../src/codec/suite.ts";
import { DROP } from "../../src/metrics.ts";
import { CLEAN, CLOSED, dial, type Host, pair, World } from "../kit/world.ts";
import { numbers, payload, udpPacket } from "../kit/packets.ts";

const SECOND = 1_000_000;
const SEED = Number(Deno.env.get("SIM_SEED") ?? 1);

function events(host: Host): [kind: string, peer: string][] {
  const seen: [string, string][] = [];
  for (let event = host.core.pollEvent(); event; event = host.core.pollEvent()) {
    seen.push([event.kind, event.peer]);
  }
  return seen;
}

Deno.test(`sim: a handshake, then data both ways (seed ${SEED})`, () => {
  const world = new World(SEED);
  const { client, server } = pair(world);
  client.send(udpPacket("10.66.0.2", "8.8.8.8", payload(1)));
  world.runFor(SECOND);
  assertEquals(numbers(server), [1]);
  server.send(udpPacket("8.8.8.8", "10.66.0.2", payload(2)));
  world.runFor(SECOND);
  assertEquals(numbers(client), [2]);
  assertEquals(server.metrics.get("handshakes_completed"), 1);
  const [snapshot] = server.core.peerSnapshots(world.nowUs);
  assertEquals([snapshot.endpoint, snapshot.rttMs], [client.endpoint, 40]);
  assertEquals(client.core.peerSnapshots(world.nowUs)[0].rttMs, 40);
});

Deno.test(`sim: a handshake gets through 40 % loss and bursts (seed ${SEED})`, () => {
  for (let seed = SEED; seed < SEED + 20; seed++) {
    const world = new World(seed);
    const { client, server } = pair(world);
    world.channel = { ...CLEAN, loss: 0.4, enterBad: 0.05, leaveBad: 0.3, duplicate: 0.1, jitterUs: 30_000 };
    client.send(udpPacket("10.66.0.2", "8.8.8.8", payload(1)));
    for (let i = 0; i < 60 && client.metrics.get("handshakes_completed") === 0; i++) {
      dial(client, server);
      world.runFor(SECOND);
    }
    assertGreater(client.metrics.get("handshakes_completed"), 0, `seed ${seed}`);
  }
});

Deno.test(`sim: ten minutes of traffic rekey without losing a packet (seed ${SEED})`, () => {
  const world = new World(SEED);
  const { client, server } = pair(world);
  client.send(udpPacket("10.66.0.2", "8.8.8.8", payload(0)));
  world.runFor(SECOND);
  world.channel = { ...CLEAN, jitterUs: 40_000 };
  for (let i = 1; i <= 6000; i++) {
    client.send(udpPacket("10.66.0.2", "8.8.8.8", payload(i)));
    server.send(udpPacket("8.8.8.8", "10.66.0.2", payload(i)));
    world.runFor(SECOND / 10);
  }
  world.runFor(SECOND);
  assertEquals(new Set(numbers(server)).size, 6001);
  assertEquals(new Set(numbers(client)).size, 6000);
  assertGreater(client.metrics.get("handshakes_completed"), 4);
  assert(server.core.sessionSnapshots(world.nowUs).every((s) => s.ageS < 180));
});

Deno.test(`sim: keys older than REJECT_AFTER_TIME are gone, and the connection with them (seed ${SEED})`, () => {
  const world = new World(SEED);
  const { client, server } = pair(world);
  client.send(udpPacket("10.66.0.2", "8.8.8.8", payload(1)));
  world.runFor(2 * SECOND);
  assertEquals(server.core.peerSnapshots(world.nowUs)[0].connected, true);
  world.runFor(181 * SECOND);
  assertEquals(server.core.sessionSnapshots(world.nowUs), []);
  assertEquals(server.core.peerSnapshots(world.nowUs)[0].connected, false);
});

Deno.test(`sim: the endpoint follows authentic packets only (seed ${SEED})`, () => {
  const world = new World(SEED);
  const { client, server } = pair(world);
  client.send(udpPacket("10.66.0.2", "8.8.8.8", payload(1)));
  world.runFor(SECOND);
  client.endpoint = "203.0.113.9:6666";
  client.send(udpPacket("10.66.0.2", "8.8.8.8", payload(2)));
  world.runFor(SECOND);
  assertEquals(server.core.peerSnapshots(world.nowUs)[0].endpoint, "203.0.113.9:6666");
  assertEquals(server.metrics.get("roamed"), 1);
  let kept: Uint8Array | undefined;
  world.tap = (_from, _to, bytes) => (kept ??= bytes.slice(), bytes);
  client.send(udpPacket("10.66.0.2", "8.8.8.8", payload(3)));
  world.runFor(SECOND);
  const forged = kept!.slice();
  forged[20] ^= 1;
  server.receive(forged, "203.0.113.66:1");
  server.receive(kept!, "203.0.113.66:1");
  assertEquals(server.metrics.dropped("forged"), 1);
  assertEquals(server.metrics.dropped("replayed"), 1);
  assertEquals(server.core.peerSnapshots(world.nowUs)[0].endpoint, "203.0.113.9:6666");
});

Deno.test(`sim: replay and reorder storms deliver each packet once (seed ${SEED})`, () => {
  const world = new World(SEED);
  const { client, server } = pair(world);
  client.send(udpPacket("10.66.0.2", "8.8.8.8", payload(0)));
  world.runFor(SECOND);
  world.channel = { ...CLEAN, duplicate: 0.5, jitterUs: 2 * SECOND, corrupt: 0.05 };
  for (let i = 1; i <= 5000; i++) {
    client.send(udpPacket("10.66.0.2", "8.8.8.8", payload(i)));
    world.runFor(1000);
  }
  world.runFor(5 * SECOND);
  const got = numbers(server);
  assertEquals(new Set(got).size, got.length);
  assertGreater(got.length, 4750); // 5 % of the copies are corrupted, half of the packets have two
  assertGreater(server.metrics.dropped("replayed"), 2000);
});

Deno.test(`sim: a thousand clients, each with its own answers (seed ${SEED})`, () => {
  const world = new World(SEED);
  world.limits = { ...world.limits, initiationsPerSecond: 5000 };
  const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1" });
  const clients: Host[] = [];
  for (let i = 0; i < 1000; i++) {
    const ip = `10.66.${1 + (i >> 8)}.${i & 255}`;
    const client = world.client(`198.51.${i >> 8}.${i & 255}:${1024 + i}`, server, {
      ipv4: ip,
      maxConnections: 4,
    });
    client.send(udpPacket(ip, "8.8.8.8", payload(i)));
    clients.push(client);
  }
  world.runFor(2 * SECOND);
  assertEquals(new Set(numbers(server)).size, 1000);
  assertEquals(server.metrics.get("handshakes_completed"), 1000);
  clients.forEach((_, i) => {
    server.send(udpPacket("8.8.8.8", `10.66.${1 + (i >> 8)}.${i & 255}`, payload(100_000 + i)));
  });
  world.runFor(SECOND);
  clients.forEach((client, i) => assertEquals(numbers(client), [100_000 + i]));
});

Deno.test(`sim: a wall clock set back does not make the client a replay (seed ${SEED})`, () => {
  const world = new World(SEED);
  const { client, server } = pair(world);
  client.send(udpPacket("10.66.0.2", "8.8.8.8", payload(1)));
  world.runFor(SECOND);
  client.core.setWallClock(1_600_000_000_000_000);
  for (let i = 0; i < 200; i++) {
    client.send(udpPacket("10.66.0.2", "8.8.8.8", payload(2)));
    world.runFor(SECOND);
  }
  assertGreater(server.metrics.get("handshakes_completed"), 1);
  assertEquals(server.metrics.dropped("handshake_replay"), 0);
});

Deno.test(`sim: max_connections refuses the next client and keeps the known ones (seed ${SEED})`, () => {
  const world = new World(SEED);
  const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1", maxConnections: 2 });
  const clients = [2, 3, 4].map((n) => {
    const client = world.client(`198.51.100.${n}:5000`, server, { ipv4: `10.66.0.${n}` });
    client.send(udpPacket(`10.66.0.${n}`, "8.8.8.8", payload(n)));
    world.runFor(SECOND);
    return client;
  });
  assertEquals(numbers(server), [2, 3]);
  assertGreater(server.metrics.dropped("max_connections"), 0);
  assertEquals(clients[0].metrics.get("handshakes_completed"), 1);
  assertEquals(events(server).find(([kind]) => kind === "refused"), ["refused", "c-198.51.100.4:5000"]);
});

Deno.test(`sim: under a flood a proven client still gets in by its cookie (seed ${SEED})`, () => {
  const world = new World(SEED);
  world.limits = { ...world.limits, initiationsPerSecond: 50 };
  let initiation: Uint8Array | undefined;
  world.tap = (_from, _to, bytes) => void (initiation ??= bytes.slice());
  const { client, server } = pair(world);
  world.tap = undefined;
  client.send(udpPacket("10.66.0.2", "8.8.8.8", payload(1)));
  // The same sound-looking initiation again and again, from anywhere.
  for (let s = 0; s < 30; s++) {
    for (let i = 0; i < 200; i++) server.receive(initiation!, `203.0.113.${i}:${1000 + i}`);
    world.runFor(SECOND);
  }
  assertGreater(server.metrics.get("cookie_replies_sent"), 1000);
  assertEquals(numbers(server), [1]);
});

Deno.test(`sim: a removed peer is cut and nothing of it is left (seed ${SEED})`, () => {
  const world = new World(SEED);
  const { client, server } = pair(world);
  client.send(udpPacket("10.66.0.2", "8.8.8.8", payload(1)));
  world.runFor(SECOND);
  assert(server.core.removePeer(client.publicKey));
  client.send(udpPacket("10.66.0.2", "8.8.8.8", payload(2)));
  world.runFor(SECOND);
  assertEquals(numbers(server), [1]);
  assertEquals(server.metrics.dropped("no_session"), 1);
  assertEquals(server.core.sessionSnapshots(world.nowUs), []);
  assertEquals(server.arena.free, 1024);
});

Deno.test(`sim: what happens to a client can be read as events, and unread ones cost no memory (seed ${SEED})`, () => {
  const world = new World(SEED);
  const { client, server } = pair(world);
  const name = "c-198.51.100.7:5555";
  client.send(udpPacket("10.66.0.2", "8.8.8.8", payload(1)));
  world.runFor(SECOND);
  client.endpoint = "203.0.113.9:6666";
  client.send(udpPacket("10.66.0.2", "8.8.8.8", payload(2)));
  world.runFor(200 * SECOND);
  assertEquals(events(server), [["connected", name], ["roamed", name], ["disconnected", name]]);

  client.send(udpPacket("10.66.0.2", "8.8.8.8", payload(3)));
  for (let i = 0; i < 1000; i++) {
    client.endpoint = `203.0.113.9:${7000 + (i & 1)}`;
    client.send(udpPacket("10.66.0.2", "8.8.8.8", payload(i)));
    world.runFor(100_000);
  }
  assertEquals(events(server).length, 256);
});

Deno.test(`sim: between peers, what is too big for the tunnel comes back as the size that fits (seed ${SEED})`, () => {
  const world = new World(SEED);
  const server = world.relay("192.0.2.1:4433", {
    ipv4: "10.66.0.1",
    mtu: 1280,
    destinations: { ...CLOSED, allowPeers: true },
  });
  const clients = [2, 3].map((n) => world.client(`198.51.100.${n}:5000`, server, { ipv4: `10.66.0.${n}` }));
  for (const [i, client] of clients.entries()) {
    client.send(udpPacket(`10.66.0.${2 + i}`, "8.8.8.8", payload(0)));
  }
  world.runFor(SECOND);
  for (const size of [1252, 1253]) {
    clients[0].send(udpPacket("10.66.0.2", "10.66.0.3", new Uint8Array(size)));
  }
  world.runFor(SECOND);
  assertEquals(clients[1].delivered.map((packet) => packet.length), [1280]);
  const [error] = clients[0].delivered;
  assertEquals([error[9], error[20], error[21], error[26] << 8 | error[27]], [1, 3, 4, 1280]);
  assertEquals(server.metrics.dropped("too_big"), 1);
});

Deno.test("warm-up: every synthetic packet goes the whole way, both ways", () => {
  const { crypto } = portableSuite({ forged: DROP.forged });
  assertEquals(warmUp({ ...crypto, makeDatagramAead: undefined }), 1000 * 17);
  assertEquals(warmUp(crypto), 2 * 1000 * 17);
});

Deno.test(`sim: a handshake older than the last one is told, once a minute, and a repeated one is not (seed ${SEED})`, () => {
  for (const protocol of ["wireguard", "oxtunnel"] as const) {
    const world = new World(SEED);
    world.protocol = protocol;
    const key = (first: number) => Uint8Array.from({ length: 32 }, (_, i) => first + i);
    const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1", privateKey: key(100) });
    // Knows the device a second time, so that the device may begin anew.
    const twin = world.relay("192.0.2.9:4433", { ipv4: "10.66.0.1", privateKey: key(100) });
    const now = 1_700_000_000_000_000;
    const of = (port: number, relay: typeof server, unixOffsetUs: number) => {
      const options = { ipv4: "10.66.0.2", privateKey: key(1), unixOffsetUs };
      const client = world.client(`198.51.100.7:${port}`, relay, options);
      dial(client, server);
      client.send(udpPacket("10.66.0.2", "8.8.8.8", payload(port)));
      return client;
    };
    let initiation: Uint8Array | undefined;
    world.tap = (_from, to, bytes) => {
      if (to.startsWith("192.0.2.1")) initiation ??= bytes.slice();
      return bytes;
    };
    of(5555, server, now);
    world.runFor(SECOND);
    server.receive(initiation!, "203.0.113.66:6666");
    const stale = () => events(server).filter(([kind]) => kind === "stale").length;
    assertEquals([protocol, stale()], [protocol, 0]);
    const late = of(5556, twin, now - 3600 * SECOND);
    world.runFor(30 * SECOND);
    assertEquals([protocol, stale()], [protocol, 1]);
    assertGreater(server.metrics.dropped("handshake_replay"), 3);
    assertEquals(late.core.peerSnapshots(world.nowUs)[0].connected, false);
    world.runFor(50 * SECOND);
    assertEquals([protocol, stale()], [protocol, 1]);
  }
});
