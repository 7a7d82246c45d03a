/**
 * A relay of two Workers in the deterministic world: whichever of them receives a handshake or a packet from the exit, the
 * one that owns the peer answers it. Held: every packet arrives once, sessions stay where they belong, max_connections and
 * the limit on handshakes count all Workers, a datagram whose receiver index belongs to the other one is dropped, and no
 * packet is handed over twice.
 */
import { assert, assertEquals, assertGreater } from "@std/assert";
import type { Upstream } from "../../src/client.ts";
import { DROP_REASONS } from "../../src/metrics.ts";
import type { Relay } from "../../src/relay.ts";
import { base64 } from "../../src/session/peers.ts";
import { ownerOf } from "../../src/session/peers.ts";
import { WIREGUARD_LIMITS } from "../../src/session/limits.ts";
import { type Host, World } from "../kit/world.ts";
import { Random } from "../kit/random.ts";
import { udpPacket } from "../kit/packets.ts";

const SEED = Number(Deno.env.get("SIM_SEED") ?? 20260101);
const RELAY = "192.0.2.1:4433";
const SERVER = "203.0.113.9";
const WORKERS = 2;
const CLIENTS = 12;
const SECOND = 1_000_000;

/** What the kernel's program does: receiver indices name their Worker, the rest goes by chance. */
function steerByIndex(chance: Random) {
  return (bytes: Uint8Array, workers: number) =>
    (bytes[0] & 0xc0) === 0x40
      ? bytes[4] >>> 4
      : bytes[0] === 4 || bytes[0] === 0xc3 || bytes[0] === 3
      ? bytes[7] >>> 4
      : bytes[0] === 2 || bytes[0] === 0xc2
      ? bytes[11] >>> 4
      : chance.u32() % workers;
}

function drops({ metrics }: Host): string[] {
  return DROP_REASONS.map(([label]) => label).filter((label) => metrics.dropped(label) > 0);
}

function start(maxConnections = 100, protocol: Upstream["protocol"] = "wireguard") {
  const world = new World(SEED);
  world.protocol = protocol;
  world.limits = { ...WIREGUARD_LIMITS, initiationsPerSecond: 1000 };
  const chance = new Random(SEED + 1);
  world.steer = steerByIndex(chance);
  const relays: Host<Relay>[] = world.relayOf(WORKERS, RELAY, {
    ipv4: "10.66.0.1",
    maxConnections,
    rateLimitPerIp: 1000,
  });
  const clients = Array.from(
    { length: CLIENTS },
    (_, i) => world.client(`198.51.100.${i + 1}:5000`, relays[0], { ipv4: `10.66.0.${i + 2}` }),
  );
  return { world, chance, relays, clients };
}

const CASES = [[true, "wireguard"], [false, "wireguard"], [true, "oxtunnel"], [false, "oxtunnel"]] as const;
for (const [steered, protocol] of CASES) {
  const how = `${steered ? "steered" : "by chance"}, ${protocol}`;
  Deno.test(`workers: packets that come ${how} reach their peers through the owner`, () => {
    const { world, chance, relays, clients } = start(100, protocol);
    const sent = new Array(CLIENTS).fill(0);
    for (let round = 0; round < 300; round++) {
      clients.forEach((client, i) =>
        client.send(udpPacket(`10.66.0.${i + 2}`, SERVER, Uint8Array.of(i, round & 255, round >> 8)))
      );
      world.runFor(SECOND);
      // Long enough for keys to be renewed twice. What came back leaves by the exit of either Worker.
      clients.forEach((client, i) => {
        const packet = udpPacket(SERVER, `10.66.0.${i + 2}`, Uint8Array.of(i, round & 255, round >> 8));
        const owner = ownerOf(client.core.publicKey, WORKERS);
        relays[steered ? owner : chance.u32() % WORKERS].send(packet);
        sent[i]++;
      });
      world.runFor(SECOND);
      // Someone moves now and then; his next packet tells the owner from where.
      if (round % 50 === 49) clients[round % CLIENTS].endpoint = `198.51.100.${100 + (round + 1) / 50}:6000`;
    }
    const out = relays.flatMap(({ delivered }) => delivered.map((packet) => packet.slice(28).join()));
    assertEquals(out.length, 300 * CLIENTS);
    assertEquals(new Set(out).size, out.length);
    clients.forEach(({ delivered }, i) => assertEquals(delivered.length, sent[i], `client ${i}`));

    for (const [worker, host] of relays.entries()) {
      assert(host.core.sessionSnapshots(world.nowUs).length > 0, `Worker ${worker} has sessions`);
      for (const { receiverIndex } of host.core.sessionSnapshots(world.nowUs)) {
        assertEquals(receiverIndex >>> 28, worker);
      }
      for (const { publicKey, connected } of host.core.peerSnapshots(world.nowUs)) {
        const key = Uint8Array.from(atob(publicKey), (c) => c.charCodeAt(0));
        assertEquals(connected, ownerOf(key, WORKERS) === worker);
      }
      assertEquals(drops(host), []);
      assertGreater(host.metrics.get("handshakes_handed_over"), 0);
      if (steered) assertEquals(host.metrics.get("packets_handed_over"), 0);
      else assertGreater(host.metrics.get("packets_handed_over"), 300);
    }
    const initiations = relays.reduce((sum, { metrics }) => sum + metrics.get("handshake_initiations"), 0);
    const completed = clients.reduce((sum, { metrics }) => sum + metrics.get("handshakes_completed"), 0);
    assertEquals(initiations, completed, "each is counted once");
  });
}

Deno.test("workers: a peer that is kept out is told so by its owner alone, once for each handshake", () => {
  const { world, relays, clients } = start(100, "oxtunnel");
  world.runFor(SECOND);
  const [client] = clients;
  const name = "kept-out", publicKey = base64(client.core.publicKey);
  for (const { core } of relays) {
    core.changePeers(
      [{ name, publicKey, allowedIps: ["10.66.0.2/32"], created: "", barred: "disabled" }],
      [],
    );
  }
  const sent: Uint8Array[] = [];
  let answers = 0;
  world.tap = (from, to, bytes) => {
    if (from === client.endpoint && bytes[0] === 0xc1) sent.push(bytes.slice());
    if (to === client.endpoint) answers++;
    return bytes;
  };
  client.send(udpPacket("10.66.0.2", SERVER, Uint8Array.of(1)));
  world.runFor(60 * SECOND);
  assertGreater(sent.length, 8);
  assertEquals(answers, sent.length);
  const dropped = relays.map(({ metrics }) => metrics.dropped("barred_peer"));
  assertEquals(dropped[ownerOf(client.core.publicKey, WORKERS)], sent.length);
  assertEquals(dropped[0] + dropped[1], sent.length);
  assertGreater(
    relays[0].metrics.get("handshakes_handed_over") + relays[1].metrics.get("handshakes_handed_over"),
    0,
  );
  for (const { core } of relays) {
    assert(core.sessionSnapshots(world.nowUs).every(({ peer }) => !peer.endsWith(client.endpoint)));
  }
  // A repetition that comes to the other Worker is one, too.
  for (const relay of relays) relay.receive(sent[0], client.endpoint);
  assertEquals(relays.map(({ metrics }) => metrics.dropped("handshake_replay")).reduce((a, b) => a + b), 2);
  assertEquals(answers, sent.length);
});

Deno.test("workers: a receiver index of another Worker, or of none, is dropped where it came in", () => {
  const { world, relays, clients } = start();
  world.runFor(SECOND);
  for (const type of [4, 2, 3]) {
    for (let worker = 1; worker < 16; worker++) {
      const bytes = new Uint8Array(type === 2 ? 92 : 64);
      bytes[0] = type;
      bytes[type === 2 ? 11 : 7] = worker << 4;
      relays[0].receive(bytes, clients[0].endpoint);
    }
  }
  assertEquals(relays[0].metrics.dropped("no_session"), 15);
  assertEquals(relays[0].metrics.dropped("bad_mac1"), 15);
  assertEquals(relays[0].metrics.dropped("bad_cookie"), 15);
  assertEquals(relays.map(({ metrics }) => metrics.get("packets_handed_over")), [0, 0]);
});

Deno.test("workers: Workers whose peers differ do not pass a packet to and fro", () => {
  const { world, relays, clients } = start();
  world.runFor(SECOND);
  // The same inner address belongs to another peer in each Worker, whom it takes for the other one's.
  const [first, second] = [0, 1].map((worker) =>
    clients.find(({ core }) => ownerOf(core.publicKey, WORKERS) !== worker)!
  );
  const allowedIps = ["10.66.9.9/32"];
  for (const [worker, { core }] of [first, second].entries()) {
    relays[worker].core.removePeer(base64(core.publicKey));
    relays[worker].core.addPeer({ name: "moved", publicKey: base64(core.publicKey), allowedIps });
  }
  relays[0].send(udpPacket(SERVER, "10.66.9.9", Uint8Array.of(1)));
  assertEquals(relays.map(({ metrics }) => metrics.get("packets_handed_over")), [1, 0]);
  assertEquals(relays.map(({ metrics }) => metrics.dropped("no_route")), [0, 1]);
});

Deno.test("workers: a flood spread over all of them costs the owner no more than one Worker's", () => {
  const world = new World(SEED);
  const relays = world.relayOf(16, RELAY, { ipv4: "10.66.0.1", maxConnections: 100, rateLimitPerIp: 1000 });
  let initiation: Uint8Array | undefined;
  world.tap = (_, to, bytes) => to === RELAY ? initiation = bytes.slice() : bytes;
  const client = world.client("198.51.100.1:5000", relays[0], { ipv4: "10.66.0.2" });
  assert(initiation !== undefined);
  const owner = ownerOf(client.core.publicKey, relays.length);
  // Sound to all but the owner, who knows the timestamp: each costs an X25519 wherever it is looked at.
  for (let i = 0; i < 100; i++) {
    for (const [worker, host] of relays.entries()) {
      if (worker !== owner) host.receive(initiation, `192.0.2.${i}:${1000 + worker}`);
    }
  }
  const handed = relays.reduce((sum, { metrics }) => sum + metrics.get("handshakes_handed_over"), 0);
  assert(handed <= WIREGUARD_LIMITS.initiationsPerSecond, `${handed} handed over`);
  assertGreater(handed, 0);
});

Deno.test("workers: max_connections counts the connections of all of them", () => {
  const { world, relays, clients } = start(5);
  for (let round = 0; round < 20; round++) {
    clients.forEach((client, i) => client.send(udpPacket(`10.66.0.${i + 2}`, SERVER, Uint8Array.of(i))));
    world.runFor(SECOND);
  }
  const connections = relays.map(({ metrics }) => metrics.get("connections"));
  assertEquals(connections[0] + connections[1], 5);
  assert(connections.every((count) => count > 0), "both have some");
  assertEquals(new Set(relays.flatMap(({ delivered }) => delivered.map((packet) => packet[28]))).size, 5);
});
