/**
 * What whole clients and relays know of their path and of their repairs, against what the world did to it: each direction by
 * itself, a queue, a way back that is dead, and what it all costs where nothing is wrong. Each failure names its seed.
 */
import { assert, assertAlmostEquals, assertEquals, assertGreater, assertLess } from "@std/assert";
import type { Client } from "../../src/client.ts";
import { PortableShardKernel } from "../../src/codec/gf256.ts";
import { CLASS_GAME } from "../../src/control/traffic_class.ts";
import type { CounterName } from "../../src/metrics.ts";
import type { Relay } from "../../src/relay.ts";
import { repairOptions } from "../../src/repair/options.ts";
import { CONGESTION, congestion, jitter, Path, type PathModel, randomLoss } from "../kit/channels.ts";
import { sessionOf } from "../kit/inside.ts";
import { SLOT_BYTES, TAILROOM } from "../../src/vector/arena.ts";
import { Burst, TO_TRANSMIT, TO_TUNNEL } from "../../src/vector/burst.ts";
import { type Host, World } from "../kit/world.ts";
import { marked, udpPacket } from "../kit/packets.ts";

const SECOND = 1_000_000;
const SEED = Number(Deno.env.get("SIM_SEED") ?? 1);
const GAP_US = 15_625;
const OUTER_BYTES = 28;

interface Game {
  world: World;
  client: Host<Client>;
  server: Host<Relay>;
  /** Bytes on the wire so far, both ways. */
  bytes: () => number;
}

/**
 * Plays a game for `seconds` over these paths, in both directions unless `isOneWay`, a packet each `gapUs`; with `copies` each is
 * sent twice.
 */
function play(
  up: PathModel,
  down: PathModel,
  {
    seconds = 60,
    gapUs = GAP_US,
    isRepairing = true,
    isOneWay = false,
    copies = false,
    onTurn = (_game: Game, _us: number) => {},
  } = {},
): Game {
  const world = new World(SEED);
  world.protocol = "oxtunnel";
  const repair = isRepairing
    ? repairOptions(new PortableShardKernel(), {
      budgetPercent: copies ? 100 : 25,
      ...(copies ? { scheme: "copy", sharePercent: 100 } : {}),
      gameDeadlineMs: 60,
      voiceDeadlineMs: 100,
      requests: false,
    })
    : undefined;
  const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1", repair });
  const client = world.client("198.51.100.7:5555", server, { ipv4: "10.66.0.2", repair });
  client.send(udpPacket("10.66.0.2", "8.8.8.8", new Uint8Array(4)));
  world.runFor(2 * SECOND);
  let bytes = 0;
  world.tap = (_from, _to, datagram) => {
    bytes += datagram.length + OUTER_BYTES;
    return datagram;
  };
  world.pathOf = (from) => from === client.endpoint ? up : down;
  const game = { world, client, server, bytes: () => bytes };
  const startUs = world.nowUs;
  for (let n = 0; n * gapUs < seconds * SECOND; n++) {
    client.sendBurst([udpPacket("10.66.0.2", "8.8.8.8", new Uint8Array(60 + n % 140))], CLASS_GAME);
    if (!isOneWay) {
      server.sendBurst([udpPacket("8.8.8.8", "10.66.0.2", new Uint8Array(200 + n % 400))], CLASS_GAME);
    }
    world.runFor(gapUs);
    onTurn(game, world.nowUs - startUs);
  }
  world.pathOf = undefined;
  world.runFor(SECOND);
  return game;
}

const clean = () => new Path(20_000);

Deno.test(`feedback: losses on the way up are known at both ends, and only of that way (seed ${SEED})`, () => {
  let sent = 0, lost = 0;
  const world = new World(SEED + 100);
  const model = new Path(20_000, jitter(world.random, 1000), randomLoss(world.random, 0.05));
  const up: PathModel = {
    arrivalUs(nowUs, bytes) {
      const us = model.arrivalUs(nowUs, bytes);
      sent++;
      if (us === Infinity) lost++;
      return us;
    },
  };
  const { client, server } = play(up, clean(), { seconds: 120 });
  const { sending, receiving } = client.core.vitals!;
  const [{ sending: back, receiving: there }] = server.core.peerSnapshots(0);
  assert(sending && receiving && back && there);
  const rate = lost / sent;
  for (const figures of [sending, there]) {
    // The figures cover the last thousand datagrams or fewer.
    assertAlmostEquals(figures.lossRatio, rate, 0.025);
    assertLess(figures.residualRatio, 0.03);
    assertGreater(figures.repaired, 0.6 * lost);
    assertGreater(figures.wasted, 0);
    assertGreater(figures.extraRatio, 0.05);
    assertLess(figures.extraRatio, 0.25);
    assert(/^window \d, \d+ %$/.test(figures.scheme), figures.scheme);
  }
  // What is reported is what was seen, but for the last report's while.
  assertAlmostEquals(sending.repaired, there.repaired, 3);
  assertAlmostEquals(sending.unrecovered, there.unrecovered, 3);
  assertAlmostEquals(there.repaired + there.unrecovered, lost, 0.1 * lost);
  for (const figures of [receiving, back]) {
    assertEquals([figures.lossRatio, figures.residualRatio, figures.unrecovered], [0, 0, 0]);
    assertLess(figures.extraRatio, 0.015);
  }
  assert(!sending.isSilent && !back.isSilent);
  const count = (host: Host, name: CounterName) => host.metrics.get(name);
  // Counted with each report.
  assertAlmostEquals(count(server, "packets_unrepaired"), there.unrecovered, 2);
  assertAlmostEquals(count(server, "repairs_wasted"), there.wasted, 2);
  assertEquals(count(client, "repairs_sent"), sending.repairs);
  assertEquals(count(server, "repairs_received"), there.repairs);
  assertEquals(count(client, "reported_repaired"), sending.repaired);
  const share = count(server, "repairs_received") / count(client, "repairs_sent");
  assertAlmostEquals(share, 0.95, 0.04);
  for (const host of [client, server]) {
    for (const direction of ["sending", "receiving"] as const) {
      const schemes = ["none", "copy", "spaced", "window", "block"] as const;
      assertEquals(schemes.map((scheme) => count(host, `${direction}_${scheme}`)), [0, 0, 0, 1, 0]);
    }
  }
});

Deno.test(`feedback: repairs that go alone are counted as those that ride (seed ${SEED})`, () => {
  const world = new World(SEED + 200);
  const lossy = new Path(20_000, randomLoss(world.random, 0.1));
  // So slow that nothing else leaves in time.
  const { client, server } = play(lossy, clean(), { seconds: 120, isOneWay: true, gapUs: 120_000 });
  const { repairs, scheme } = client.core.vitals!.sending!;
  assertEquals(client.metrics.get("repairs_sent"), repairs);
  assertGreater(repairs, 20);
  assertGreater(client.metrics.get("repair_bytes_sent"), 100 * repairs);
  assertAlmostEquals(server.metrics.get("repairs_received"), 0.9 * repairs, 0.2 * repairs);
  assert(scheme !== "none");
});

Deno.test(`feedback: a queue on the way up is seen at the sender, and not the other way (seed ${SEED})`, () => {
  const world = new World(SEED + 300);
  const queue = congestion(world.random, { ...CONGESTION, busyLoad: 1.05 });
  /** The queueing delays of the last packets: a report may be 150 ms old. */
  const recent: { us: number; queueUs: number }[] = [];
  let sumTrue = 0, sumError = 0, sumBack = 0, turns = 0;
  const up: PathModel = {
    arrivalUs(nowUs, bytes) {
      const queueUs = queue.delayUs(nowUs, bytes);
      if (queueUs < Infinity) recent.push({ us: nowUs, queueUs });
      return nowUs + 20_000 + queueUs;
    },
  };
  play(up, clean(), {
    onTurn: ({ client, server, world }, us) => {
      if (us < 12 * SECOND) return;
      while (recent[0].us < world.nowUs - 250_000) recent.shift();
      const truths = recent.map(({ queueUs }) => queueUs);
      const { queueUs } = sessionOf(client).repair!.sending!.quality.step;
      turns++;
      sumTrue += truths.at(-1)!;
      sumError += Math.max(0, queueUs - Math.max(...truths), Math.min(...truths) - queueUs);
      sumBack += sessionOf(server).repair!.sending!.quality.step.queueUs;
    },
  });
  assertGreater(sumTrue / turns, 2000);
  assertLess(sumError / turns, 0.1 * sumTrue / turns);
  assertLess(sumBack / turns, 100);
});

Deno.test(`feedback: a way back that is dead is noticed while data goes out (seed ${SEED})`, () => {
  let cutUs = Infinity, seenUs = Infinity;
  const down: PathModel = { arrivalUs: (nowUs) => nowUs < cutUs ? nowUs + 20_000 : Infinity };
  play(clean(), down, {
    seconds: 12,
    isOneWay: true,
    onTurn: ({ client, world }, us) => {
      if (us > 10 * SECOND && cutUs === Infinity) cutUs = world.nowUs;
      const isSilent = client.core.vitals?.sending?.isSilent ?? false;
      if (isSilent && seenUs === Infinity) seenUs = world.nowUs;
      assert(!isSilent || world.nowUs > cutUs, "too early");
    },
  });
  assertLess(seenUs - cutUs, 500_000);
});

Deno.test(`feedback: what reports say beside packets makes no datagram too long (seed ${SEED})`, () => {
  const world = new World(SEED + 500);
  let most = 0, reports = 0;
  const { server } = play(new Path(20_000, randomLoss(world.random, 0.1)), clean(), {
    seconds: 20,
    isOneWay: true,
    onTurn: ({ client, server, world }, us) => {
      const { host, path } = sessionOf(server), max = host.shared.paths.datagramBytes[path];
      const carried = world.carried;
      world.tap = (from, _to, datagram) => {
        if (from === server.endpoint) {
          most = Math.max(most, datagram.length);
          assert(datagram.length <= max, `${datagram.length}`);
        }
        return datagram;
      };
      // From what leaves no room to what leaves some.
      const bytes = max - 25 - 28 - Math.floor(us / GAP_US) % 240;
      const before = client.delivered.length;
      server.send(udpPacket("8.8.8.8", "10.66.0.2", new Uint8Array(bytes).fill(us & 255)));
      world.runFor(21_000);
      assertEquals(client.delivered.at(-1)?.length, bytes + 28);
      assert(client.delivered.at(-1)!.subarray(28).every((byte) => byte === (us & 255)));
      if (world.carried > carried) reports += client.delivered.length - before;
    },
  });
  assertGreater(most, 1400);
  assertGreater(reports, 1000);
  assertGreater(server.metrics.get("packets_repaired"), 20);
});

Deno.test(`feedback: neither repairs nor reports leave the slot of a packet that lies far back in it (seed ${SEED})`, () => {
  const world = new World(SEED + 600);
  let most = 0;
  play(new Path(20_000, randomLoss(world.random, 0.1)), new Path(20_000, randomLoss(world.random, 0.2)), {
    seconds: 20,
    copies: true,
    onTurn: ({ server, world }) => {
      // As one that came from another peer behind frames of its own.
      const packet = udpPacket("8.8.8.8", "10.66.0.2", new Uint8Array(600));
      const burst = new Burst(server.arena), row = burst.grow(packet.length, TO_TUNNEL);
      burst.offset[row] = (burst.slot[row] + 1) * SLOT_BYTES - TAILROOM - packet.length - 100;
      burst.bytes.set(marked(packet, CLASS_GAME), burst.offset[row]);
      server.core.ingestInner(burst, world.nowUs);
      assertEquals(burst.next[row], TO_TRANSMIT);
      const end = burst.offset[row] + burst.length[row] - burst.slot[row] * SLOT_BYTES;
      assert(end <= SLOT_BYTES, `${end}`);
      most = Math.max(most, burst.length[row] - packet.length);
      burst.release();
    },
  });
  assertGreater(most, 40, "something rode");
});

Deno.test(`feedback: on a clean path everything together costs less than 2 % (seed ${SEED})`, () => {
  for (const isOneWay of [false, true]) {
    const off = play(clean(), clean(), { isRepairing: false, isOneWay });
    const on = play(clean(), clean(), { isOneWay });
    assertLess(on.bytes(), 1.02 * off.bytes());
    // As where delays vary a little.
    const { random } = new World(SEED + 400);
    const trembling = play(
      new Path(20_000, jitter(random, 2000)),
      new Path(20_000, jitter(random, 2000)),
      { isOneWay },
    );
    assertLess(trembling.bytes(), 1.02 * off.bytes());
    assertGreater(sessionOf(trembling.client).repair!.sending!.quality.step.jitterUs, 0);
  }
});
