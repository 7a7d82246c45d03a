/**
 * Peers that are kept out and let in again, in both protocols: the data plane ends their sessions, makes no new one and routes
 * nothing, and what they did before stays a replay; OxTunnel tells the peer why, and nobody else anything; a new name disturbs nobody.
 */
import { assert, assertEquals } from "@std/assert";
import type { Client } from "../../src/client.ts";
import { nodeCrypto } from "../../src/codec/node_crypto.ts";
import { CookieJar, OXTUNNEL_COOKIES } from "../../src/session/cookie.ts";
import { createOxInitiation } from "../../src/session/oxtunnel/handshake.ts";
import { OX_INITIATION_MIN_BYTES, oxMac1At } from "../../src/wire/oxtunnel.ts";
import { tai64n } from "../../src/wire/timestamp.ts";
import type { Relay } from "../../src/relay.ts";
import { generatePrivateKey, keyToText, publicKeyOf } from "../../src/process/keys_text.ts";
import { dial, type Host, pair, World } from "../kit/world.ts";
import { numbers, payload, udpPacket } from "../kit/packets.ts";

const SECOND = 1_000_000;
const SEED = Number(Deno.env.get("SIM_SEED") ?? 1);

const up = (number: number) => udpPacket("10.66.0.2", "8.8.8.8", payload(number));
const down = (number: number) => udpPacket("8.8.8.8", "10.66.0.2", payload(number));

for (const protocol of ["wireguard", "oxtunnel"] as const) {
  const start = () => {
    const world = new World(SEED);
    world.protocol = protocol;
    let initiation: Uint8Array | undefined;
    world.tap = (_from, _to, bytes) => (initiation ??= bytes.slice(), bytes);
    const { client, server } = pair(world);
    client.send(up(1));
    world.runFor(SECOND);
    assertEquals(numbers(server), [1]);
    assertEquals(server.core.peerSnapshots(world.nowUs)[0].protocol, protocol);
    const [{ name, publicKey, allowedIps }] = server.core.peerSnapshots(world.nowUs);
    const record = { name, publicKey, allowedIps, created: "2026" };
    return { world, client, server, record, initiation: initiation! };
  };
  const tellAll = (server: Host<Relay>, world: World, record: Parameters<Relay["changePeers"]>[0][number]) =>
    server.core.changePeers([record], [], world.nowUs);
  const retry = (world: World, client: Host<Client>, server: Host<Relay>) => {
    for (let i = 0; i < 3; i++) {
      dial(client, server);
      world.runFor(6 * SECOND);
    }
  };

  Deno.test(`barred: ${protocol}: the sessions end, no handshake gives one, nothing is routed (seed ${SEED})`, () => {
    const { world, client, server, record, initiation } = start();
    tellAll(server, world, { ...record, barred: "disabled" });
    assertEquals(server.core.sessionSnapshots(world.nowUs), []);
    assertEquals(server.core.peerSnapshots(world.nowUs), []);
    assertEquals(server.core.takeReleased(), record.allowedIps, "the exit is to end its flows");
    numbers(server);
    client.send(up(2));
    server.send(down(3));
    world.runFor(SECOND);
    retry(world, client, server);
    assertEquals(server.metrics.dropped("no_route"), 1);
    assert(server.metrics.dropped("barred_peer") > 0);
    assertEquals(server.metrics.dropped("unknown_peer"), 0);
    assertEquals(server.core.sessionSnapshots(world.nowUs), []);

    tellAll(server, world, record);
    server.receive(initiation, client.endpoint);
    assertEquals(server.metrics.dropped("handshake_replay"), 1, "what it sent before is no handshake now");
    retry(world, client, server);
    client.send(up(4));
    world.runFor(SECOND);
    assert(numbers(server).includes(4), "it is let in again");
  });

  Deno.test(`barred: ${protocol}: a new name and new limits leave the session, a removal forgets the bar (seed ${SEED})`, () => {
    const { world, client, server, record } = start();
    const [before] = server.core.sessionSnapshots(world.nowUs);
    tellAll(server, world, { ...record, name: "renamed", notes: "a note", monthlyBytes: 7 });
    const [after] = server.core.sessionSnapshots(world.nowUs);
    assertEquals([after.peer, after.receiverIndex], ["renamed", before.receiverIndex]);
    client.send(up(2));
    world.runFor(SECOND);
    assert(numbers(server).includes(2));
    tellAll(server, world, { ...record, barred: "volume" });
    server.core.changePeers([], [record.publicKey], world.nowUs);
    retry(world, client, server);
    assert(server.metrics.dropped("unknown_peer") > 0);
    assertEquals(server.metrics.dropped("barred_peer"), 0);
  });

  Deno.test(`barred: ${protocol}: every byte of a peer is told once, also of one that is cut off (seed ${SEED})`, () => {
    const { world, client, server, record } = start();
    const total = { received: 0, sent: 0 };
    const take = () => {
      const { publicKeys, received, sent } = server.core.takeTraffic();
      assert(publicKeys.every((publicKey) => publicKey === record.publicKey));
      for (const bytes of received) total.received += bytes;
      for (const bytes of sent) total.sent += bytes;
      return publicKeys.length;
    };
    assertEquals([take(), take()], [1, 0]);
    for (let i = 0; i < 10; i++) {
      client.send(up(i));
      server.send(down(i));
    }
    world.runFor(SECOND);
    const [{ bytesReceived, bytesSent }] = server.core.peerSnapshots(world.nowUs);
    tellAll(server, world, { ...record, barred: "expired" });
    assertEquals([take(), take()], [1, 0]);
    assertEquals(total, { received: bytesReceived, sent: bytesSent });
  });
}

const REASONS = [["disabled", 6], ["expired", 7], ["volume", 8]] as const;

for (const [barred, reason] of REASONS) {
  Deno.test(`barred: oxtunnel: the peer is told that it is barred: ${barred} (seed ${SEED})`, () => {
    const world = new World(SEED);
    world.protocol = "oxtunnel";
    const { client, server } = pair(world);
    client.send(up(1));
    world.runFor(SECOND);
    const [{ name, publicKey, allowedIps }] = server.core.peerSnapshots(world.nowUs);
    const record = { name, publicKey, allowedIps, created: "2026" };
    server.core.changePeers([{ ...record, barred }], [], world.nowUs);
    let answers = 0;
    world.tap = (_from, to, bytes) => {
      if (to === client.endpoint) answers++;
      return bytes;
    };
    world.runFor(5 * SECOND); // from one initiation to the next
    dial(client, server);
    world.runFor(SECOND / 5);
    assertEquals(client.core.refusal, { reason, retryAfterS: barred === "volume" ? 3600 : 0 });
    assertEquals(answers, 1);
    assertEquals(server.metrics.dropped("barred_peer"), 1, "a refusal is counted where the reasons are");
    assertEquals(server.core.sessionSnapshots(world.nowUs), []);

    server.core.changePeers([record], [], world.nowUs);
    world.runFor(6 * SECOND);
    dial(client, server);
    world.runFor(SECOND);
    client.send(up(2));
    world.runFor(SECOND);
    assertEquals(numbers(server).at(-1), 2, "it is let in again");
    assertEquals(client.core.refusal, undefined);
  });
}

Deno.test(`barred: a WireGuard peer, a repetition, and who only knows the keys get no answer (seed ${SEED})`, () => {
  for (const protocol of ["wireguard", "oxtunnel"] as const) {
    const world = new World(SEED);
    world.protocol = protocol;
    const { client, server } = pair(world);
    client.send(up(1));
    world.runFor(SECOND);
    const [{ name, publicKey, allowedIps }] = server.core.peerSnapshots(world.nowUs);
    server.core.changePeers(
      [{ name, publicKey, allowedIps, created: "2026", barred: "disabled" }],
      [],
      world.nowUs,
    );
    const sent: Uint8Array[] = [];
    let answers = 0;
    world.tap = (from, to, bytes) => {
      if (from === client.endpoint && (bytes[0] & 0x3f) === 1) sent.push(bytes.slice());
      if (to === client.endpoint) answers++;
      return bytes;
    };
    world.runFor(5 * SECOND); // from one initiation to the next
    dial(client, server);
    world.runFor(SECOND / 5);
    assertEquals(sent.length, 1);
    assertEquals(answers, protocol === "oxtunnel" ? 1 : 0);
    world.runFor(SECOND / 5);
    server.receive(sent[0], client.endpoint);
    if (protocol === "wireguard") continue;
    assertEquals(server.metrics.dropped("handshake_replay"), 1);
    server.receive(forgedInitiation(world, server, publicKey), client.endpoint);
    assertEquals(server.metrics.dropped("handshake_failed"), 1);
    assertEquals(answers, 1);
  }
});

/** An initiation by one who knows both public keys and no private one. */
function forgedInitiation(world: World, server: Host<Relay>, peer: string): Uint8Array {
  const message = new Uint8Array(OX_INITIATION_MIN_BYTES);
  const random = (bytes: number) => crypto.getRandomValues(new Uint8Array(bytes));
  createOxInitiation(
    nodeCrypto,
    message,
    7,
    Uint8Array.fromBase64(peer),
    server.core.publicKey,
    random(32), // of both static keys, which it cannot compute
    random(32),
    tai64n(world.nowUs + 1e15),
    new Uint8Array(),
  );
  new CookieJar(server.core.publicKey, 1, undefined, 0, OXTUNNEL_COOKIES).sign(
    message,
    oxMac1At(message.length),
    world.nowUs,
  );
  return message;
}

Deno.test(`seen: only peers that were ever connected are told, in parts that together have each once (seed ${SEED})`, () => {
  const world = new World(SEED);
  world.limits = { ...world.limits, initiationsPerSecond: 5000 };
  const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1", maxConnections: 300 });
  for (let i = 0; i < 100; i++) {
    const ipv4 = `10.66.1.${i + 1}`;
    const client = world.client(`198.51.100.${i + 1}:${1024 + i}`, server, { ipv4, maxConnections: 4 });
    client.send(udpPacket(ipv4, "8.8.8.8", payload(i)));
    const publicKey = keyToText(publicKeyOf(generatePrivateKey()));
    server.core.addPeer({ name: `away-${i}`, publicKey, allowedIps: [`10.66.2.${i + 1}/32`] });
  }
  world.runFor(2 * SECOND);
  const keys: string[] = [];
  let parts = 0;
  for (let from: number | undefined = 0; from !== undefined; parts++) {
    const part: ReturnType<Relay["seenPeers"]> = server.core.seenPeers(from, world.nowUs);
    assertEquals(part.applications !== undefined, from === 0);
    assert(part.peers.every(({ connected }) => connected) && part.peers.length <= 64);
    keys.push(...part.peers.map(({ publicKey }) => publicKey));
    from = part.next;
  }
  const connected = server.core.peerSnapshots(world.nowUs).filter((peer) => peer.connected);
  assertEquals(keys.toSorted(), connected.map(({ publicKey }) => publicKey).toSorted());
  assert(keys.length === 100 && parts > 1);
});
