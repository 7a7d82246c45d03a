/**
 * A game and a transfer through one slow line, between whole clients and relays: where the sending end knows the line's rate, the
 * line's own queue stays empty and the game goes first; where it does not, the game waits behind the transfer. Both protocols,
 * both directions.
 */
import { assert, assertAlmostEquals, assertEquals, assertGreater, assertLess } from "@std/assert";
import { Client } from "../../src/client.ts";
import { ROLLOUT_DEFAULT, type RolloutPercent } from "../../src/control/rollout.ts";
import { CLASS_BULK, CLASS_GAME } from "../../src/control/traffic_class.ts";
import { PortableLz4 } from "../../src/codec/lz4.ts";
import type { RecordRates } from "../../src/queue/peer_rates.ts";
import type { Relay } from "../../src/relay.ts";
import type { QueuesOptions } from "../../src/tunnel_options.ts";
import { base64 } from "../../src/session/peers.ts";
import type { LineSnapshot } from "../../src/session/peer_record.ts";
import { queueOptions } from "../kit/queue_options.ts";
import { Bottleneck } from "../kit/channels.ts";
import { Random } from "../kit/random.ts";
import { CLEAN, CLOSED, dial, Host, World } from "../kit/world.ts";
import { splitEndpoint } from "../kit/packets.ts";
import { marked, udpPacket } from "../kit/packets.ts";

const SEED = Number(Deno.env.get("SIM_SEED") ?? 1);
const CLIENT = "10.66.0.2", FAR = "8.8.8.8", RELAY = "192.0.2.1:4433";
const SECOND = 1_000_000, MS = 1000;
/** 20 Mbit/s with 200 ms of queue, as a home line has. */
const RATE = 2_500_000, FIFO_US = 200 * MS, DELAY_US = 10 * MS;
const GAME_US = 15_625, GAME_BYTES = 100, BULK_BYTES = 1200;
/** The transfer offers half more than the line takes. */
const BULK_US = BULK_BYTES / RATE / 1.5 * 1e6;
/** Of the line, so that the queue is not there. */
const SHARE = 0.95;

type Protocol = "oxtunnel" | "wireguard";

function queuesOf(bytesPerS: number, findsRates = false): QueuesOptions {
  return queueOptions({ bytesPerS, findsRates });
}

/** Gives the client's record rates, as a reload does. */
function setRates(client: Host<Client>, server: Host<Relay>, rates: RecordRates): void {
  const { publicKey, endpoint } = client;
  const record = { name: `c-${endpoint}`, publicKey, allowedIps: [`${CLIENT}/32`], created: "", ...rates };
  const { added } = server.core.changePeers([record], [], server.world.nowUs);
  assert(added.length === 0, "rates change beside a peer's sessions");
}

interface Outcome {
  /** Added to the way of each of the game's packets that arrived, ascending. */
  delaysUs: number[];
  gameLost: number;
  /** Of the line's rate. */
  goodput: number;
  /** What the sending end tells of its line. */
  line: LineSnapshot | undefined;
}

function play(
  protocol: Protocol,
  direction: "up" | "down",
  queues: QueuesOptions | undefined,
  warmS = 0,
  rates: RecordRates = {},
  rolloutPercent?: RolloutPercent,
): Outcome {
  const world = new World(SEED);
  world.protocol = protocol;
  const isUp = direction === "up";
  const server = world.relay(RELAY, { ipv4: "10.66.0.1", queues: isUp ? undefined : queues, rolloutPercent });
  const client = world.client("198.51.100.7:5555", server, {
    ipv4: CLIENT,
    queues: isUp ? queues : undefined,
  });
  const line = new Bottleneck(RATE, FIFO_US, DELAY_US);
  world.pathOf = (_, to) => (to === RELAY) === isUp ? line : undefined;
  const [from, to]: Host<Client | Relay>[] = isUp ? [client, server] : [server, client];
  client.send(udpPacket(CLIENT, FAR, new Uint8Array(20)));
  world.runFor(2 * SECOND);
  to.delivered.length = 0;
  setRates(client, server, rates);

  const seconds = 5 + warmS, startUs = world.nowUs, sentUs: number[] = [];
  const packet = (bytes: number, trafficClass: number) => {
    const whole = udpPacket(isUp ? CLIENT : FAR, isUp ? FAR : CLIENT, new Uint8Array(bytes));
    const view = new DataView(whole.buffer);
    view.setUint32(28, sentUs.length);
    view.setUint32(32, trafficClass);
    return marked(whole, trafficClass);
  };
  const delaysUs: number[] = [];
  let gameUs = startUs, bulkUs = startUs, bulkBytes = 0;
  const take = () => {
    for (const got of to.delivered.splice(0)) {
      const view = new DataView(got.buffer);
      if (world.nowUs < startUs + warmS * SECOND) continue;
      if (view.getUint32(32) === CLASS_GAME) {
        delaysUs.push(world.nowUs - sentUs[view.getUint32(28)] - DELAY_US);
      } else bulkBytes += got.length;
    }
  };
  while (world.nowUs < startUs + seconds * SECOND) {
    if (gameUs <= bulkUs) {
      world.run(gameUs);
      take();
      const game = packet(GAME_BYTES, CLASS_GAME);
      sentUs.push(world.nowUs);
      from.sendBurst([game]);
      gameUs += GAME_US;
    } else {
      world.run(bulkUs);
      take();
      from.sendBurst([packet(BULK_BYTES, CLASS_BULK)]);
      bulkUs += BULK_US;
    }
  }
  const goodput = bulkBytes / (seconds - warmS) / RATE;
  const { line: seen } = from.core.peerSnapshots(world.nowUs)[0];
  for (let i = 0; i < 1000; i++) {
    world.runFor(MS);
    take();
  }
  delaysUs.sort((a, b) => a - b);
  const sent = sentUs.filter((us) => us >= startUs + warmS * SECOND).length;
  return { delaysUs, gameLost: 1 - delaysUs.length / sent, goodput, line: seen };
}

const at = (sorted: number[], share: number) => sorted[Math.ceil(share * sorted.length) - 1];

for (const protocol of ["oxtunnel", "wireguard"] as const) {
  for (const direction of ["up", "down"] as const) {
    Deno.test(`queue: a game beside a transfer ${direction} a known line, ${protocol} (seed ${SEED})`, () => {
      const on = play(protocol, direction, queuesOf(SHARE * RATE));
      assertLess(at(on.delaysUs, 0.5), 2 * MS);
      assertLess(at(on.delaysUs, 0.99), 5 * MS);
      assert(on.gameLost < 0.001, `lost ${on.gameLost}`);
      assertGreater(on.goodput, 0.85);
      const off = play(protocol, direction, undefined);
      assertGreater(
        at(off.delaysUs, 0.5),
        100 * MS,
        "the control: without it the game waits behind the transfer",
      );
      assertEquals(off.line, undefined);
      assertEquals(on.line!.rateBy, "config");
      const idle = play(protocol, direction, queuesOf(0));
      assertGreater(at(idle.delaysUs, 0.5), 100 * MS, "and without a rate too");
    });
  }
}

for (const direction of ["up", "down"] as const) {
  Deno.test(`queue: a game beside a transfer ${direction} a line of unknown rate (seed ${SEED})`, () => {
    const on = play("oxtunnel", direction, queuesOf(0, true), 2);
    assertLess(at(on.delaysUs, 0.5), 5 * MS);
    assertLess(at(on.delaysUs, 0.99), 15 * MS);
    assertGreater(on.goodput, 0.8);
    const { path, waits, rateBy, drops } = on.line!;
    assertEquals(rateBy, "found");
    assertAlmostEquals(path!.bps! / 8, RATE, 0.15 * RATE);
    assertAlmostEquals(path!.leastRttMs!, (DELAY_US + CLEAN.delayUs) / MS, 2);
    assertLess(waits.game!.p99Ms, 5);
    assertGreater(waits.bulk!.p50Ms, 5, "the queue stands here, and is seen");
    assertGreater(drops.queue_delay, 0);
    const off = play("oxtunnel", direction, queuesOf(0), 2);
    assertGreater(at(off.delaysUs, 0.5), 100 * MS, "the control: nobody finds the rate");
  });
}

Deno.test(`queue: the rate that is found stays the line's where packets are compressed (seed ${SEED})`, () => {
  const world = new World(SEED);
  world.protocol = "oxtunnel";
  const server = world.relay(RELAY, { ipv4: "10.66.0.1", lz4: new PortableLz4() });
  const lz4 = new PortableLz4(), queues = queuesOf(0, true);
  const host = world.client("198.51.100.7:5555", server, { ipv4: CLIENT, lz4, queues });
  const rate = RATE / 4, line = new Bottleneck(rate, FIFO_US, DELAY_US), random = new Random(SEED);
  world.pathOf = (_, to) => to === RELAY ? line : undefined;
  /** Half of it is random. */
  const packet = () => {
    const payload = new Uint8Array(BULK_BYTES);
    for (let i = BULK_BYTES / 2; i < BULK_BYTES; i++) payload[i] = random.u32();
    return marked(udpPacket(CLIENT, FAR, payload), CLASS_BULK);
  };
  host.send(packet());
  world.runFor(2 * SECOND);
  for (let ms = 0; ms < 15_000; ms++) {
    host.sendBurst([packet(), packet()]);
    world.runFor(MS);
  }
  const { path, shapedBps } = host.core.peerSnapshots(world.nowUs)[0].line!;
  assertAlmostEquals(path!.bps! / 8, rate, 0.25 * rate);
  assertGreater(shapedBps! / 8, 0.7 * rate);
});

Deno.test(`queue: a client that says what its line takes is sent no more (seed ${SEED})`, () => {
  const world = new World(SEED);
  world.protocol = "oxtunnel";
  const server = world.relay(RELAY, { ipv4: "10.66.0.1", queues: queuesOf(0) });
  const client = world.client("198.51.100.7:5555", server, { ipv4: CLIENT, receiveBytesPerS: RATE / 2 });
  client.send(udpPacket(CLIENT, FAR, new Uint8Array(20)));
  world.runFor(2 * SECOND);
  const before = client.delivered.length;
  for (let i = 0; i < 2000; i++) {
    server.sendBurst([marked(udpPacket(FAR, CLIENT, new Uint8Array(BULK_BYTES)), CLASS_BULK)]);
    world.runFor(500);
  }
  const bytes = (client.delivered.length - before) * (BULK_BYTES + 28);
  assertLess(bytes, RATE / 2);
  assertGreater(bytes, 0.8 * RATE / 2);
});

Deno.test(`queue: what a client said of its line holds again after the scheduler was off (seed ${SEED})`, () => {
  const world = new World(SEED);
  world.protocol = "oxtunnel";
  const server = world.relay(RELAY, { ipv4: "10.66.0.1", queues: queuesOf(0) });
  const client = world.client("198.51.100.7:5555", server, { ipv4: CLIENT, receiveBytesPerS: RATE / 2 });
  client.send(udpPacket(CLIENT, FAR, new Uint8Array(20)));
  world.runFor(2 * SECOND);
  const tuning = {
    maxConnections: 10,
    rateLimitPerIp: 10,
    destinations: CLOSED,
    classes: { rules: [] },
    compression: undefined,
  };
  const shaped = () => server.core.peerSnapshots(world.nowUs)[0].line?.shapedBps;
  for (const [scheduler, bps] of [[100, 4 * RATE], [0, undefined], [100, 4 * RATE]] as const) {
    server.core.tune({ ...tuning, rolloutPercent: { ...ROLLOUT_DEFAULT, scheduler } }, world.nowUs);
    assertEquals(shaped(), bps);
  }
});

for (const protocol of ["oxtunnel", "wireguard"] as const) {
  Deno.test(`queue: a transfer over a long path may wait longer than one that is near (${protocol}, seed ${SEED})`, () => {
    const dropped = (delayUs: number) => {
      const world = new World(SEED);
      world.protocol = protocol;
      const server = world.relay(RELAY, { ipv4: "10.66.0.1", queues: queuesOf(RATE) });
      world.pathOf = () => new Bottleneck(100 * RATE, FIFO_US, delayUs);
      const client = world.client("198.51.100.7:5555", server, { ipv4: CLIENT });
      client.send(udpPacket(CLIENT, FAR, new Uint8Array(20)));
      world.runFor(2 * SECOND);
      const packet = marked(udpPacket(FAR, CLIENT, new Uint8Array(BULK_BYTES)), CLASS_BULK);
      const untilUs = world.nowUs + SECOND;
      // 35 ms of queue, which stay.
      for (let i = 0; i < 0.035 * RATE / (BULK_BYTES + 81); i++) server.sendBurst([packet]);
      for (let us = world.nowUs; us < untilUs; us += (BULK_BYTES + 81) / RATE * SECOND) {
        world.run(us);
        server.sendBurst([packet]);
      }
      return server.metrics.dropped("queue_delay");
    };
    assertGreater(dropped(MS), 0);
    assertEquals(dropped(50 * MS), 0);
  });
}

Deno.test("queue: shares that change find many peers' groups in steps, and the same shares cost nothing", () => {
  const peers = 1000, world = new World(SEED);
  const server = world.relay(RELAY, { ipv4: "10.66.0.1", queues: queuesOf(RATE), maxConnections: peers });
  for (let i = 0; i < peers; i++) {
    const key = new Uint8Array(32).fill(1);
    new DataView(key.buffer).setUint32(0, i);
    const allowedIps = [`10.66.${1 + (i >> 8)}.${i & 255}/32`];
    server.core.addPeer({ name: `p${i}`, publicKey: base64(key), allowedIps });
  }
  const tuning = {
    maxConnections: peers,
    rateLimitPerIp: 10,
    destinations: CLOSED,
    classes: { rules: [] },
    compression: undefined,
  };
  const exempt = () => server.core.peerSnapshots(world.nowUs).filter(({ line }) => line === undefined).length;
  assertEquals(exempt(), 0);
  const before = server.core.pollTimeout();
  server.core.tune({ ...tuning, rolloutPercent: ROLLOUT_DEFAULT }, world.nowUs);
  assertEquals(server.core.pollTimeout(), before, "nothing has changed");
  server.core.tune({ ...tuning, rolloutPercent: { ...ROLLOUT_DEFAULT, scheduler: 0 } }, world.nowUs);
  const found: number[] = [];
  for (; server.core.pollTimeout() === 0; server.tick()) found.push(exempt());
  assertEquals([...found, exempt()], [256, 512, 768, peers]);
});

Deno.test(`queue: what a client said of its line ends when its device goes on with WireGuard (seed ${SEED})`, () => {
  const world = new World(SEED);
  const privateKey = new Uint8Array(32);
  world.random.fill(privateKey);
  const server = world.relay(RELAY, { ipv4: "10.66.0.1", queues: queuesOf(0) });
  const own = { ipv4: CLIENT, privateKey };
  const client = world.client("198.51.100.7:5555", server, {
    ...own,
    receiveBytesPerS: RATE / 2,
    protocol: "oxtunnel",
  });
  client.send(udpPacket(CLIENT, FAR, new Uint8Array(20)));
  world.runFor(2 * SECOND);
  const shaped = () => server.core.peerSnapshots(world.nowUs)[0].line?.shapedBps;
  assertEquals(shaped(), 4 * RATE);
  world.hosts.splice(world.hosts.indexOf(client), 1);
  const upstream = { publicKey: server.publicKey, protocol: "wireguard" as const };
  const app = new Host<Client>(world, "198.51.100.7:6666", own, (all) => new Client(all, upstream));
  world.hosts.push(app);
  dial(app, server);
  world.runFor(50 * MS);
  app.send(udpPacket(CLIENT, FAR, new Uint8Array(20)));
  world.runFor(2 * SECOND);
  assertEquals(server.core.peerSnapshots(world.nowUs)[0].protocol, "wireguard");
  assertEquals(shaped(), undefined);
});

Deno.test(`queue: what waits for a client outlives its session's end, when the client resumes (seed ${SEED})`, () => {
  const world = new World(SEED);
  world.protocol = "oxtunnel";
  const queues = { ...queuesOf(0), targetUs: 1e9 };
  const server = world.relay(RELAY, { ipv4: "10.66.0.1", queues });
  const client = world.client("198.51.100.7:5555", server, { ipv4: CLIENT, receiveBytesPerS: 200_000 });
  const up = () => client.send(udpPacket(CLIENT, FAR, new Uint8Array(20)));
  for (let i = 0; i < 20; i++) {
    up();
    world.runFor(SECOND / 2);
  }
  for (let i = 0; i < 60; i++) {
    server.sendBurst([marked(udpPacket(FAR, CLIENT, new Uint8Array(1100)), CLASS_BULK)]);
  }
  client.delivered.length = 0;
  const { text, port } = splitEndpoint(RELAY);
  client.core.connect(text, port + 1, world.nowUs);
  client.core.connect(text, port, world.nowUs, true);
  up();
  world.runFor(3 * SECOND);
  assertGreater(client.delivered.length, 50);
});

for (const protocol of ["oxtunnel", "wireguard"] as const) {
  Deno.test(`queue: a game beside a transfer down a line whose rate is in the peer's record, ${protocol} (seed ${SEED})`, () => {
    const on = play(protocol, "down", queuesOf(0), 0, { rateDownBps: 8 * SHARE * RATE });
    assertLess(at(on.delaysUs, 0.99), 5 * MS);
    assertGreater(on.goodput, 0.85);
  });

  Deno.test(`queue: a peer gets no more through than its record allows it to send, ${protocol} (seed ${SEED})`, () => {
    const world = new World(SEED);
    world.protocol = protocol;
    const server = world.relay(RELAY, { ipv4: "10.66.0.1", queues: queuesOf(0) });
    const client = world.client("198.51.100.7:5555", server, { ipv4: CLIENT });
    client.send(udpPacket(CLIENT, FAR, new Uint8Array(20)));
    world.runFor(2 * SECOND);
    setRates(client, server, { rateUpBps: 8 * RATE });
    const games: Uint8Array[] = [];
    let bulkBytes = 0;
    for (let ms = 0; ms < 4000; ms++) {
      const burst = Array.from(
        { length: 4 },
        () => marked(udpPacket(CLIENT, FAR, new Uint8Array(BULK_BYTES)), CLASS_BULK),
      );
      if (ms % 16 === 0) burst.push(marked(udpPacket(CLIENT, FAR, new Uint8Array(GAME_BYTES)), CLASS_GAME));
      client.sendBurst(burst);
      world.runFor(MS);
      for (const packet of server.delivered.splice(0)) {
        if (packet.length < BULK_BYTES) games.push(packet);
        else bulkBytes += packet.length;
      }
    }
    assertLess(bulkBytes / 4, 1.03 * RATE);
    assertGreater(bulkBytes / 4, 0.85 * RATE);
    assertGreater(server.metrics.dropped("over_rate"), 1000);
    assertGreater(games.length, 180, "a game's packets are lost last");
    setRates(client, server, {});
    client.sendBurst(
      Array.from({ length: 200 }, () => marked(udpPacket(CLIENT, FAR, new Uint8Array(1000)), CLASS_BULK)),
    );
    world.runFor(SECOND);
    assertGreater(server.delivered.length, 190, "and without a rate nothing is");
  });
}

Deno.test(`queue: a client whose record has a rate up is told, and holds its packets back itself (seed ${SEED})`, () => {
  const world = new World(SEED);
  world.protocol = "oxtunnel";
  const server = world.relay(RELAY, { ipv4: "10.66.0.1", queues: queuesOf(0) });
  const client = world.client("198.51.100.7:5555", server, { ipv4: CLIENT, queues: queuesOf(0) });
  setRates(client, server, { rateUpBps: 8 * RATE / 2 });
  client.send(udpPacket(CLIENT, FAR, new Uint8Array(20)));
  world.runFor(2 * SECOND);
  server.delivered.length = 0;
  for (let ms = 0; ms < 2000; ms++) {
    client.sendBurst([
      marked(udpPacket(CLIENT, FAR, new Uint8Array(BULK_BYTES)), CLASS_BULK),
      marked(udpPacket(CLIENT, FAR, new Uint8Array(BULK_BYTES)), CLASS_BULK),
    ]);
    world.runFor(MS);
  }
  const bytesPerS = server.delivered.length * (BULK_BYTES + 28) / 2;
  assertLess(bytesPerS, RATE / 2);
  assertGreater(bytesPerS, 0.85 * RATE / 2);
  assertLess(server.metrics.dropped("over_rate"), server.delivered.length / 50);
});

Deno.test(`queue: a peer outside a part's share goes without it, and a reload takes it in (seed ${SEED})`, () => {
  const all = ROLLOUT_DEFAULT;
  const world = new World(SEED);
  world.protocol = "oxtunnel";
  const server = world.relay(RELAY, {
    ipv4: "10.66.0.1",
    queues: queuesOf(RATE / 2),
    rolloutPercent: { ...all, scheduler: 0 },
  });
  const client = world.client("198.51.100.7:5555", server, { ipv4: CLIENT });
  client.send(udpPacket(CLIENT, FAR, new Uint8Array(20)));
  world.runFor(2 * SECOND);
  const arrives = () => {
    client.delivered.length = 0;
    for (let ms = 0; ms < 1000; ms++) {
      server.sendBurst([marked(udpPacket(FAR, CLIENT, new Uint8Array(BULK_BYTES)), CLASS_BULK)]);
      world.runFor(MS);
    }
    const { length } = client.delivered;
    world.runFor(SECOND);
    server.tick(); // as the driver does each second
    return length;
  };
  assertEquals(server.core.peerSnapshots(world.nowUs)[0].line, undefined);
  assertGreater(arrives(), 970);
  const tuning = {
    maxConnections: 10,
    rateLimitPerIp: 10,
    destinations: CLOSED,
    classes: { rules: [] },
    compression: undefined,
  };
  server.core.tune({ ...tuning, rolloutPercent: all }, world.nowUs);
  const held = arrives();
  assertAlmostEquals(held * (BULK_BYTES + 81) / (RATE / 2), 1, 0.15);
  server.core.tune({ ...tuning, rolloutPercent: { ...all, scheduler: 0 } }, world.nowUs);
  world.runFor(SECOND);
  assertGreater(arrives(), 970);
  const of = (group: number) => server.metrics.rollout(0, group);
  assertGreater(of(0).bytesSent, 400 * BULK_BYTES, "both groups are counted");
  assertGreater(of(1).bytesSent, 1900 * BULK_BYTES);
  assertEquals([of(0).peers, of(1).peers], [0, 1]);
});

Deno.test(`queue: without rate control for a peer no rate is found for it (seed ${SEED})`, () => {
  const rolloutPercent = { ...ROLLOUT_DEFAULT, rate_control: 0 };
  const off = play("oxtunnel", "down", queuesOf(0, true), 2, {}, rolloutPercent);
  assertGreater(at(off.delaysUs, 0.5), 100 * MS);
  assertEquals(off.line, undefined);
});

Deno.test(`queue: packets that became too large for the path while they waited are cut, not lost (seed ${SEED})`, () => {
  const world = new World(SEED);
  world.protocol = "oxtunnel";
  const server = world.relay(RELAY, { ipv4: "10.66.0.1", queues: { ...queuesOf(0), targetUs: 1e9 } });
  const client = world.client("198.51.100.7:5555", server, { ipv4: CLIENT, receiveBytesPerS: 50_000 });
  for (let i = 0; i < 8; i++) {
    client.send(udpPacket(CLIENT, FAR, new Uint8Array(20)));
    world.runFor(SECOND / 2);
  }
  for (let i = 0; i < 100; i++) {
    server.sendBurst([marked(udpPacket(FAR, CLIENT, new Uint8Array(1350)), CLASS_BULK)]);
  }
  client.delivered.length = 0;
  world.tap = (_, __, bytes) => bytes.length > 1300 ? undefined : bytes;
  world.runFor(4 * SECOND);
  // Of a fragment, "more fragments" or the offset is set.
  const cut = client.delivered.filter((packet) => (packet[6] & 0x3f) !== 0 || packet[7] !== 0);
  assertGreater(cut.length, 20);
  assert(server.metrics.dropped("too_big") === 0);
});
