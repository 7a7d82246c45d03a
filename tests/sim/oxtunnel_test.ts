/**
 * OxTunnel between whole relays and clients in the deterministic world: what relay_test.ts holds of WireGuard, and
 * what only OxTunnel has: epochs inside the session, reports, pings, paths. Each failure names its seed.
 */
import { assert, assertEquals, assertGreater } from "@std/assert";
import { CLEAN, type Host, pair, World } from "../kit/world.ts";
import { numbers, payload, udpPacket } from "../kit/packets.ts";

const SECOND = 1_000_000;
const SEED = Number(Deno.env.get("SIM_SEED") ?? 1);

function oxWorld(seed = SEED): World {
  const world = new World(seed);
  world.protocol = "oxtunnel";
  return world;
}

const up = (n: number) => udpPacket("10.66.0.2", "8.8.8.8", payload(n));
const down = (n: number) => udpPacket("8.8.8.8", "10.66.0.2", payload(n));

Deno.test(`oxtunnel: a handshake, then data both ways (seed ${SEED})`, () => {
  const world = oxWorld();
  const kinds = new Set<number>();
  world.tap = (_from, _to, bytes) => (kinds.add(bytes[0]), bytes);
  const { client, server } = pair(world);
  client.send(up(1));
  world.runFor(SECOND);
  assertEquals(numbers(server), [1]);
  server.send(down(2));
  world.runFor(SECOND);
  assertEquals(numbers(client), [2]);
  assertEquals(server.metrics.get("handshakes_completed"), 1);
  const [snapshot] = server.core.peerSnapshots(world.nowUs);
  assertEquals([snapshot.endpoint, snapshot.rttMs], [client.endpoint, 40]);
  assertEquals(client.core.peerSnapshots(world.nowUs)[0].rttMs, 40);
  assert([...kinds].every((kind) => (kind & 0x40) !== 0), "every datagram is OxTunnel's");
  // The exchange that brings in ML-KEM.
  assertEquals([server.metrics.get("epochs_made"), client.metrics.get("epochs_made")], [1, 1]);
});

Deno.test(`oxtunnel: a client with nothing to send confirms its session at once (seed ${SEED})`, () => {
  const world = oxWorld();
  const { client, server } = pair(world);
  world.runFor(60_000);
  server.send(down(1));
  world.runFor(20_000);
  assertEquals(numbers(client), [1]);
});

Deno.test(`oxtunnel: a handshake gets through 40 % loss and bursts (seed ${SEED})`, () => {
  for (let seed = SEED; seed < SEED + 20; seed++) {
    const world = oxWorld(seed);
    world.channel = { ...CLEAN, loss: 0.4, enterBad: 0.05, leaveBad: 0.3, duplicate: 0.1, jitterUs: 30_000 };
    const { client, server } = pair(world);
    client.send(up(1));
    // Its own repeats are enough, as long as there is something to send: nobody dials again.
    for (let i = 0; i < 10; i++) {
      client.send(up(1));
      world.runFor(20 * SECOND);
    }
    assertGreater(client.metrics.get("handshakes_completed"), 0, `seed ${seed}`);
    world.channel = CLEAN;
    client.send(up(2));
    world.runFor(2 * SECOND);
    assert(numbers(server).includes(2), `seed ${seed}`);
  }
});

Deno.test(`oxtunnel: the first repeats of a client without a session come after 250 ms, 1 s and three times 2 s (seed ${SEED})`, () => {
  const world = oxWorld();
  const sentUs: number[] = [];
  world.tap = (_from, _to, bytes) => {
    if (bytes[0] === 0xc1) sentUs.push(world.nowUs);
    return undefined;
  };
  pair(world);
  world.runFor(20 * SECOND);
  const gaps = sentUs.slice(1).map((us, i) => us - sentUs[i]);
  assert(gaps[0] >= 250_000 && gaps[0] < 600_000, `${gaps[0]}`);
  assert(gaps[1] >= SECOND && gaps[1] < 1.4 * SECOND, `${gaps[1]}`);
  assert(gaps.slice(2, 5).every((gap) => gap >= 2 * SECOND && gap < 2.4 * SECOND), gaps.join());
  assert(gaps.slice(5).every((gap) => gap >= 5 * SECOND && gap < 5.4 * SECOND), gaps.join());
  assertGreater(gaps.length, 5);
});

Deno.test(`oxtunnel: a thousand rotations under 5 % reordering lose no packet (seed ${SEED})`, () => {
  const world = oxWorld();
  // A rotation cannot follow the last one in less than the grace period.
  world.limits = { ...world.limits, rekeyAfterUs: 200_000, graceUs: 300_000 };
  const { client, server } = pair(world);
  client.send(up(0));
  world.runFor(SECOND);
  let sent = 0, n = 0;
  world.tap = (_from, _to, bytes) => {
    // One in twenty waits until others have passed it.
    world.channel = world.random.u32() % 20 === 0 ? { ...CLEAN, delayUs: 120_000 } : CLEAN;
    sent++;
    return bytes;
  };
  while (client.metrics.get("epochs_made") < 1001 && n < 60_000) {
    n++;
    client.send(up(n));
    server.send(down(n));
    world.runFor(20_000);
  }
  world.runFor(SECOND);
  assertGreater(client.metrics.get("epochs_made"), 1000);
  assertGreater(sent, 2 * n);
  assertEquals(new Set(numbers(server)).size, n + 1, "up");
  assertEquals(new Set(numbers(client)).size, n, "down");
  assertEquals([server.metrics.dropped("forged"), client.metrics.dropped("forged")], [0, 0]);
  assertEquals(server.metrics.get("handshakes_completed"), 1);
});

Deno.test(`oxtunnel: rotation by count, from either end (seed ${SEED})`, () => {
  const world = oxWorld();
  world.limits = { ...world.limits, rekeyAfterDatagrams: 50, graceUs: 100_000 };
  const { client, server } = pair(world);
  client.send(up(0));
  world.runFor(SECOND);
  for (let i = 0; i < 400; i++) {
    server.send(down(i));
    world.runFor(10_000);
  }
  world.runFor(SECOND);
  assertEquals(numbers(client).length, 400);
  assertGreater(server.metrics.get("epochs_made"), 5);
  assertEquals(server.metrics.get("epochs_made"), client.metrics.get("epochs_made"));
});

Deno.test(`oxtunnel: keys that carry nothing run out after 180 s and are overwritten (seed ${SEED})`, () => {
  const world = oxWorld();
  const { client, server } = pair(world);
  client.send(up(1));
  world.runFor(2 * SECOND);
  assertEquals(server.core.peerSnapshots(world.nowUs)[0].connected, true);
  world.runFor(181 * SECOND);
  for (const host of [server, client]) {
    assertEquals(host.core.sessionSnapshots(world.nowUs), []);
    assertEquals(host.metrics.get("sessions"), 0, "nor are rows of spare ids left");
  }
  client.send(up(2));
  world.runFor(SECOND);
  assertEquals(numbers(server), [1, 2]);
});

Deno.test(`oxtunnel: a client that moves keeps its session, by an answered challenge (seed ${SEED})`, () => {
  const world = oxWorld();
  const { client, server } = pair(world);
  client.send(up(1));
  world.runFor(SECOND);
  client.endpoint = "203.0.113.9:6666";
  const toNew: number[] = [];
  let answered = false;
  world.tap = (from, to, bytes) => {
    if (to === client.endpoint && !answered) toNew.push(bytes.length);
    if (from === client.endpoint && toNew.length > 0) answered = true;
    return bytes;
  };
  client.send(up(2));
  world.runFor(25_000);
  // The challenge is under way; data still goes to the old path, where nobody is any more.
  server.send(down(1));
  world.runFor(SECOND);
  assertEquals(numbers(server), [1, 2]);
  assertEquals(numbers(client), []);
  assertEquals(toNew.length, 1, "a challenge, and nothing else, before the answer");
  assertEquals(server.core.peerSnapshots(world.nowUs)[0].endpoint, client.endpoint);
  assertEquals(server.metrics.get("roamed"), 1);
  server.send(down(2));
  world.runFor(SECOND);
  assertEquals(numbers(client), [2]);
  assertEquals(server.metrics.get("handshakes_completed"), 1);
});

Deno.test(`oxtunnel: on a new path both ends use ids that the old one never saw (seed ${SEED})`, () => {
  const world = oxWorld();
  const seen = new Map<string, Set<number>>();
  const { client, server } = pair(world);
  world.tap = (from, to, bytes) => {
    if ((bytes[0] & 0xc0) !== 0x40) return bytes;
    const path = from === server.endpoint ? to : from;
    if (!seen.has(path)) seen.set(path, new Set());
    seen.get(path)!.add(new DataView(bytes.buffer, bytes.byteOffset).getUint32(1, true));
    return bytes;
  };
  client.send(up(0));
  world.runFor(SECOND);
  for (let move = 1; move <= 20; move++) {
    client.endpoint = `203.0.113.${move}:6666`;
    client.core.moved();
    client.tick();
    client.send(up(move));
    world.runFor(SECOND);
    server.send(down(move));
    world.runFor(5 * SECOND);
  }
  assertEquals(numbers(server).length, 21);
  assertEquals(numbers(client).length, 20);
  assertEquals(server.metrics.get("handshakes_completed"), 1);
  const all = [...seen.values()].flatMap((ids) => [...ids]);
  assertEquals(seen.size, 21);
  assertEquals(new Set(all).size, all.length, "no id on two paths");
  assertGreater(30, server.metrics.get("sessions"), "old ids are given up");
});

Deno.test(`oxtunnel: the endpoint follows nothing forged, replayed or unanswered (seed ${SEED})`, () => {
  const world = oxWorld();
  const { client, server } = pair(world);
  client.send(up(1));
  world.runFor(SECOND);
  let kept: Uint8Array | undefined;
  const toStranger: number[] = [];
  world.tap = (_from, to, bytes) => {
    if (to === server.endpoint) kept = bytes.slice();
    if (to === "203.0.113.66:1") toStranger.push(bytes.length);
    return to === server.endpoint ? undefined : bytes;
  };
  client.send(up(3));
  const stolen = kept!;
  const forged = stolen.slice();
  forged[20] ^= 1;
  server.receive(forged, "203.0.113.66:1");
  assertEquals(toStranger.length, 0, "what is forged gets no answer");
  // Passed on by someone on the way: it is delivered, and its sender is challenged, in bounds, and no more.
  server.receive(stolen, "203.0.113.66:1");
  server.receive(stolen, "203.0.113.66:1");
  server.send(down(9));
  world.runFor(3 * SECOND);
  assertEquals([server.metrics.dropped("forged"), server.metrics.dropped("replayed")], [1, 1]);
  assertEquals(server.core.peerSnapshots(world.nowUs)[0].endpoint, "198.51.100.7:5555");
  assertEquals(numbers(client), [9]);
  assert(toStranger.reduce((sum, bytes) => sum + bytes, 0) <= 3 * stolen.length);
  assertEquals(toStranger.length, 3, "three challenges");
});

Deno.test(`oxtunnel: replay, reorder and corruption storms deliver each packet once (seed ${SEED})`, () => {
  const world = oxWorld();
  const { client, server } = pair(world);
  client.send(up(0));
  world.runFor(SECOND);
  world.channel = { ...CLEAN, duplicate: 0.5, jitterUs: 200_000, corrupt: 0.05 };
  for (let i = 1; i <= 5000; i++) {
    client.send(up(i));
    world.runFor(1000);
  }
  world.runFor(5 * SECOND);
  const got = numbers(server);
  assertEquals(new Set(got).size, got.length);
  assertGreater(got.length, 4750);
  assertGreater(server.metrics.dropped("replayed"), 2000);
  assertGreater(server.metrics.dropped("forged") + server.metrics.dropped("no_session"), 200);
});

Deno.test(`oxtunnel: a path that died is noticed in a second of traffic, and mended by a handshake (seed ${SEED})`, () => {
  const world = oxWorld();
  const { client, server } = pair(world);
  client.send(up(0));
  world.runFor(SECOND);
  let initiations = 0, firstUs = 0;
  world.tap = (_from, _to, bytes) => {
    if (bytes[0] === 0xc1 && initiations++ === 0) firstUs = world.nowUs;
    return undefined;
  };
  const startUs = world.nowUs + 10 * SECOND;
  world.run(startUs);
  for (let i = 0; i < 30; i++) {
    client.send(up(1000 + i));
    world.runFor(50_000);
  }
  assert(initiations > 0 && firstUs - startUs < SECOND, `${firstUs - startUs} us`);
  world.tap = undefined;
  world.runFor(10 * SECOND);
  client.send(up(1));
  world.runFor(SECOND);
  assert(numbers(server).includes(1));
});

Deno.test(`oxtunnel: closing tells the other end, and both forget (seed ${SEED})`, () => {
  const world = oxWorld();
  const { client, server } = pair(world);
  client.send(up(0));
  world.runFor(SECOND);
  let dropped = 0;
  // Two of the three are lost.
  world.tap = (from, _to, bytes) => from === client.endpoint && dropped++ < 2 ? undefined : bytes;
  client.core.disconnect(world.nowUs);
  client.tick();
  world.runFor(SECOND);
  for (const host of [client, server]) {
    assertEquals(host.core.sessionSnapshots(world.nowUs), []);
    assertEquals(host.metrics.get("sessions"), 0);
  }
  assertEquals(dropped, 3);
});

Deno.test(`oxtunnel: max_connections refuses with a reason (seed ${SEED})`, () => {
  const world = oxWorld();
  const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1", maxConnections: 1 });
  const clients = [2, 3].map((n) => {
    const client = world.client(`198.51.100.${n}:5000`, server, { ipv4: `10.66.0.${n}` });
    client.send(udpPacket(`10.66.0.${n}`, "8.8.8.8", payload(n)));
    world.runFor(200_000);
    return client;
  });
  assertEquals(numbers(server), [2]);
  assertEquals(clients[1].metrics.dropped("refused"), 1);
  assertEquals(clients[1].core.sessionSnapshots(world.nowUs), []);
  assertEquals(clients[1].core.refusal, { reason: 1, retryAfterS: 30 });
  assertEquals(clients[0].core.told?.mtu, 1420);
  assertEquals(clients[0].core.told?.lease4, { address: Uint8Array.of(10, 66, 0, 2), prefixBits: 32 });
});

Deno.test(`oxtunnel: a replayed initiation, and one of the other protocol, change nothing (seed ${SEED})`, () => {
  const world = oxWorld();
  let initiation: Uint8Array | undefined;
  world.tap = (_from, _to, bytes) => {
    if (bytes[0] === 0xc1) initiation ??= bytes.slice();
    return bytes;
  };
  const { client, server } = pair(world);
  client.send(up(1));
  world.runFor(SECOND);
  const before = server.core.sessionSnapshots(world.nowUs).length;
  server.receive(initiation!, "203.0.113.66:6666");
  assertEquals(server.metrics.dropped("handshake_replay"), 1);
  // A stranger: sound MACs, but a key that belongs to nobody.
  const stranger = world.client("203.0.113.80:5", server, { ipv4: "10.66.0.9" });
  assert(server.core.removePeer(stranger.publicKey));
  const carried = world.carried;
  world.runFor(200_000);
  assertEquals(server.metrics.dropped("unknown_peer"), 1);
  assertEquals(world.carried, carried, "and gets no answer");
  assertEquals(server.core.sessionSnapshots(world.nowUs).length, before);
});

Deno.test(`oxtunnel: under a flood a proven client still gets in by its cookie (seed ${SEED})`, () => {
  const world = oxWorld();
  world.limits = { ...world.limits, initiationsPerSecond: 50 };
  let initiation: Uint8Array | undefined;
  world.tap = (_from, _to, bytes) => void (initiation ??= bytes.slice());
  const { client, server } = pair(world);
  let asked = 0, answered = 0;
  world.tap = (from, to, bytes) => {
    if (from === server.endpoint && to.startsWith("203.")) answered += bytes.length;
    return bytes;
  };
  client.send(up(1));
  for (let s = 0; s < 30; s++) {
    for (let i = 0; i < 200; i++) {
      asked += initiation!.length;
      server.receive(initiation!, `203.0.113.${i}:${1000 + i}`);
    }
    world.runFor(SECOND);
  }
  assertGreater(server.metrics.get("cookie_replies_sent"), 1000);
  assertGreater(asked, answered);
  assertEquals(numbers(server), [1]);
});

Deno.test(`oxtunnel: both protocols on one relay, a thousand clients, each with its own answers (seed ${SEED})`, () => {
  const world = new World(SEED);
  world.limits = { ...world.limits, initiationsPerSecond: 5000 };
  const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1" });
  const clients: Host[] = [];
  for (let i = 0; i < 1000; i++) {
    const ip = `10.66.${1 + (i >> 8)}.${i & 255}`;
    const client = world.client(`198.51.${i >> 8}.${i & 255}:${1024 + i}`, server, {
      ipv4: ip,
      maxConnections: 4,
      protocol: i % 2 === 0 ? "oxtunnel" : "wireguard",
      // The exchange with ML-KEM takes its time a thousand times over.
      features: 0,
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

Deno.test(`oxtunnel: a peer may change its protocol and lose nothing that follows (seed ${SEED})`, () => {
  const world = oxWorld();
  const { client, server } = pair(world);
  client.send(up(1));
  world.runFor(SECOND);
  const privateKey = new Uint8Array(32).fill(9);
  const phones = (["wireguard", "oxtunnel", "wireguard"] as const).map((protocol, i) => {
    const phone = world.client(`198.51.100.${20 + i}:5555`, server, {
      ipv4: `10.66.0.${20 + i}`,
      protocol,
      privateKey: privateKey.map((byte) => byte + i),
    });
    phone.send(udpPacket(`10.66.0.${20 + i}`, "8.8.8.8", payload(10 + i)));
    world.runFor(SECOND);
    return phone;
  });
  assertEquals(numbers(server), [1, 10, 11, 12]);
  for (const phone of phones) assertEquals(phone.metrics.get("handshakes_completed"), 1);
});

Deno.test(`oxtunnel: reports are rare while a slow flow is well, and prompt when it is not (seed ${SEED})`, () => {
  const world = oxWorld();
  const { client, server } = pair(world);
  const GAP_US = 15_625;
  let answered = 0, bytes = 0;
  world.tap = (from, _to, datagram) => {
    if (from === server.endpoint) answered++;
    bytes += datagram.length;
    return datagram;
  };
  const play = (both: boolean) => {
    client.send(up(1));
    if (both) server.send(down(1));
    world.runFor(GAP_US);
  };
  for (let i = 0; i < 64; i++) play(true); // handshake and key exchange
  [answered, bytes] = [0, 0];
  for (let i = 0; i < 640; i++) play(true);
  assert(answered <= 641, "reports ride along");
  assert(bytes / 1280 < 128 + 22 + 6, `${bytes / 1280} bytes a datagram`);
  answered = 0;
  for (let i = 0; i < 640; i++) play(false);
  assert(answered <= 160, `${answered} reports in 10 s`);
  for (let i = 0; i < 40; i++) {
    world.tap = () => undefined;
    play(false);
    let toldUs = Infinity;
    const seenUs = world.nowUs + CLEAN.delayUs;
    world.tap = (from, _to, datagram) => {
      if (from === server.endpoint && world.nowUs >= seenUs) toldUs = Math.min(toldUs, world.nowUs);
      return datagram;
    };
    for (let n = 0; n < 8 + i % 5; n++) play(false);
    assert(toldUs - seenUs <= 25_000, `a gap was told after ${toldUs - seenUs} µs`);
  }
});
