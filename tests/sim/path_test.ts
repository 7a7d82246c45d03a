/**
 * A client's path in the deterministic world: how soon its death is noticed and what follows, that a long way is no
 * death, that another relay is another session, what a probe costs, and that the figures of `vitals` are those of the channel. Each failure
 * names its seed.
 */
import { assert, assertAlmostEquals, assertEquals, assertGreater, assertLess } from "@std/assert";
import { Client } from "../../src/client.ts";
import type { Relay } from "../../src/relay.ts";
import { CLEAN, dial, Host, World } from "../kit/world.ts";
import { udpPacket } from "../kit/packets.ts";

const SECOND = 1_000_000;
const SEED = Number(Deno.env.get("SIM_SEED") ?? 1);

function pair(delayUs: number, seed = SEED): { world: World; client: Host<Client>; server: Host<Relay> } {
  const world = new World(seed);
  world.protocol = "oxtunnel";
  world.channel = { ...CLEAN, delayUs };
  const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1" });
  const client = world.client("198.51.100.7:5555", server, { ipv4: "10.66.0.2" });
  client.send(up());
  world.runFor(10 * SECOND);
  return { world, client, server };
}

const up = () => udpPacket("10.66.0.2", "8.8.8.8", new Uint8Array(100));
const down = () => udpPacket("8.8.8.8", "10.66.0.2", new Uint8Array(100));

/** When initiations go out from now on, after the first packet that is lost, in microseconds. */
function cut(world: World): number[] {
  const startUs = world.nowUs;
  const atUs: number[] = [];
  world.tap = (_from, _to, bytes) => {
    if (bytes[0] === 0xc1) atUs.push(world.nowUs - startUs);
    return undefined;
  };
  return atUs;
}

for (const protocol of ["oxtunnel", "wireguard"] as const) {
  Deno.test(`path: an address of this host that looks like a door's number is none, ${protocol} (seed ${SEED})`, () => {
    const world = new World(SEED);
    world.protocol = protocol;
    const server = world.relay("[fd00::1]:4433", { ipv4: "10.66.0.1" });
    const client = world.client("[fd00::2]:5555", server, { ipv4: "10.66.0.2" });
    client.localWord = 2;
    for (let i = 0; i < 3; i++) {
      client.send(up());
      world.runFor(SECOND);
    }
    assertEquals(server.delivered.length, 3);
  });
}

Deno.test(`path: its death is acted on within a second of the first lost packet, up to 400 ms of round trip (seed ${SEED})`, () => {
  for (const delayUs of [500, 10_000, 50_000, 100_000, 150_000, 200_000]) {
    const { world, client } = pair(delayUs);
    const atUs = cut(world);
    client.send(up());
    world.runFor(SECOND);
    assertGreater(atUs.length, 0, `one packet and nothing after it, delay ${delayUs}`);
    assertLess(atUs[0], SECOND);
    assert(client.core.vitals!.isSilent);
    world.runFor(5 * SECOND);
    const gaps = atUs.slice(1).map((us, i) => us - atUs[i]);
    assert(gaps[0] < 0.6 * SECOND && gaps[1] < 1.4 * SECOND && gaps[2] < 2.4 * SECOND, gaps.join());
    world.tap = undefined;
    world.runFor(2.5 * SECOND);
    assertEquals(client.core.vitals!.isSilent, false, "the next attempt mends it");
  }
});

Deno.test(`path: a long way is no death, and neither is a burst of loss of 300 ms (seed ${SEED})`, () => {
  for (const delayUs of [5_000, 300_000, 600_000]) {
    const { world, client } = pair(delayUs);
    let initiations = 0;
    const from = world.nowUs;
    world.tap = (_from, _to, bytes) => {
      if (bytes[0] === 0xc1) initiations++;
      return (world.nowUs - from) % (10 * SECOND) < 300_000 ? undefined : bytes;
    };
    for (let i = 0; i < 200; i++) {
      client.send(up());
      world.runFor(100_000);
    }
    assertEquals(initiations, 0, `delay ${delayUs}`);
  }
});

Deno.test(`path: at another relay of the same key the client starts anew at once (seed ${SEED})`, () => {
  const world = new World(SEED);
  world.protocol = "oxtunnel";
  const privateKey = new Uint8Array(32).fill(7);
  const [one, two] = ["192.0.2.1:4433", "192.0.2.2:4433"].map((endpoint) =>
    world.relay(endpoint, { ipv4: "10.66.0.1", privateKey })
  );
  const client = world.client("198.51.100.7:5555", one, { ipv4: "10.66.0.2" });
  two.core.addPeer({ name: "c", publicKey: client.publicKey, allowedIps: ["10.66.0.2/32"] });
  client.send(up());
  world.runFor(SECOND);
  assertEquals([one.delivered.length, two.delivered.length], [1, 0]);
  dial(client, two); // a second after the last handshake
  client.send(up());
  world.runFor(SECOND);
  assertEquals([one.delivered.length, two.delivered.length], [1, 1], "the packet waited for the handshake");
  dial(client, two);
  client.send(up());
  world.runFor(SECOND);
  assertEquals(two.delivered.length, 2, "to name the same relay again costs nothing");
  assertEquals(client.metrics.get("handshakes_completed"), 2);
});

Deno.test(`path: vitals show the channel's round trip, jitter and loss (seed ${SEED})`, () => {
  const { world, client, server } = pair(20_000);
  const before = client.core.vitals!;
  world.channel = { ...CLEAN, delayUs: 20_000, jitterUs: 8_000, loss: 0.1 };
  for (let i = 0; i < 4000; i++) {
    client.send(up());
    server.send(down());
    if (i % 50 === 0) client.core.ping();
    world.runFor(5_000);
  }
  const now = client.core.vitals!;
  assertEquals(now.session, before.session);
  const lostUp = 1 - (now.reportedReceived - before.reportedReceived) / (now.reported - before.reported);
  const lostDown = 1 - (now.received - before.received) / (now.seen - before.seen);
  assertGreater(now.reported - before.reported, 3900);
  assertAlmostEquals(lostUp, 0.1, 0.02);
  assertAlmostEquals(lostDown, 0.1, 0.02);
  // Two uniform delays of 0 to 8 ms each way: 48 ms on the average. What one differs from the next by is some 3.7 ms.
  assertAlmostEquals(now.rttUs!, 48_000, 4_000);
  assertAlmostEquals(now.jitterUs, 3_700, 1_500);
});

Deno.test(`path: a probe measures the way, leaves no session, and disturbs none of the same key (seed ${SEED})`, () => {
  const world = new World(SEED);
  world.protocol = "oxtunnel";
  world.channel = { ...CLEAN, delayUs: 12_000 };
  const privateKey = new Uint8Array(32).fill(9);
  const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1", maxConnections: 1 });
  const client = world.client("198.51.100.7:5555", server, { ipv4: "10.66.0.2", privateKey });
  client.send(up());
  world.runFor(2 * SECOND);
  const before = server.core.sessionSnapshots(world.nowUs);
  const rows = server.metrics.get("sessions");
  const upstream = { publicKey: server.publicKey, isProbe: true };
  const options = { ipv4: "10.66.0.2", privateKey };
  const prober = new Host(world, "198.51.100.7:6666", options, (all) => new Client(all, upstream));
  world.hosts.push(prober);
  for (let i = 0; i < 3; i++) {
    dial(prober, server);
    assertEquals(prober.core.takeProbeAnswer(), undefined);
    world.runFor(50_000);
    // The relay tells where the probe came from: 198.51.100.7:6666.
    const seen = {
      address: Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 198, 51, 100, 7),
      port: 6666,
    };
    assertEquals(prober.core.takeProbeAnswer(), { rttUs: 24_000, isRefused: false, seen });
    assertEquals(prober.core.takeProbeAnswer(), undefined);
    client.send(up());
    server.send(down());
    world.runFor(SECOND);
  }
  assertEquals([server.delivered.length, client.delivered.length], [4, 3]);
  const after = server.core.sessionSnapshots(world.nowUs);
  assertEquals(
    after.map(({ receiverIndex }) => receiverIndex),
    before.map(({ receiverIndex }) => receiverIndex),
  );
  assertEquals(server.metrics.get("sessions"), rows, "no row stays behind");
  assertEquals(server.metrics.get("handshakes_completed"), 1);
  assertEquals(prober.core.pollTimeout(), Infinity, "nor does the prober go on");

  const stranger = new Host(
    world,
    "198.51.100.8:1",
    { ipv4: "10.66.0.3" },
    (all) => new Client(all, upstream),
  );
  world.hosts.push(stranger);
  server.core.addPeer({ name: "full", publicKey: stranger.publicKey, allowedIps: ["10.66.0.3/32"] });
  dial(stranger, server);
  world.runFor(50_000);
  assertEquals(stranger.core.takeProbeAnswer()?.isRefused, true, "max_connections is 1");
});

Deno.test(`path: a probe that nobody answers ends at its time, whatever the clock's fractions (seed ${SEED})`, () => {
  const { world, client, server } = pair(20_000);
  // In floating point, a second after this less this is less than a second.
  const sinceUs = 16 * SECOND + 2 ** -29;
  assertLess(sinceUs + SECOND - sinceUs, SECOND);
  // deno-lint-ignore no-explicit-any
  const { paths } = (server.core as any).associations.oxtunnel.sessions.of.find(Boolean);
  const { handleTimeout } = paths;
  let turns = 0;
  paths.handleTimeout = (nowUs: number) => {
    if (++turns > 100) throw new Error("it is due for ever");
    handleTimeout.call(paths, nowUs);
  };
  let probe: Uint8Array | undefined;
  world.tap = (from, _to, bytes) => {
    if (from === client.endpoint) probe = bytes.slice();
    return undefined;
  };
  world.run(sinceUs);
  client.core.ping();
  client.tick();
  server.receive(probe!, "203.0.113.9:9");
  assertEquals(paths.dueUs, sinceUs + SECOND / 3);
  world.run(sinceUs + 3 * SECOND);
  assertEquals(paths.dueUs, Infinity);
});
