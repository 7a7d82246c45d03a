/**
 * Several paths in one session between whole clients and relays in the deterministic world (PROTOCOL §17): a game loses nothing
 * when a network dies or loses, bulk moves without a handshake, and nothing on the wire ties the paths together. What copies and
 * failover achieve fails without them. Each failure names its seed.
 */
import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertGreater,
  assertLess,
  assertNotEquals,
} from "@std/assert";
import { PortableDatagramAead } from "../../src/codec/datagram_portable.ts";
import { PortableShardKernel } from "../../src/codec/gf256.ts";
import { CLASS_BULK, CLASS_GAME } from "../../src/control/traffic_class.ts";
import { DROP } from "../../src/metrics.ts";
import { repairOptions } from "../../src/repair/options.ts";
import { type Burst, TO_SEAL_DATAGRAM } from "../../src/vector/burst.ts";
import { Bottleneck, burstLoss, jitter, Path, type PathModel, randomLoss } from "../kit/channels.ts";
import { sessionOf } from "../kit/inside.ts";
import { udpPacket } from "../kit/packets.ts";
import { queueOptions } from "../kit/queue_options.ts";
import { FIRST, gaps, inTwoNetworks, playPaths, RELAY, residual, SECOND } from "../kit/two_networks.ts";
import type { Random } from "../kit/random.ts";
import { type Host, World } from "../kit/world.ts";

const SEED = Number(Deno.env.get("SIM_SEED") ?? 1);
const SECOND_US = 1_000_000, TICK_US = 15_625, ONE_WAY_US = 20_000;
/** After which a packet is late: a game's deadline, and what the first path takes. */
const LIMIT_US = 60_000 + ONE_WAY_US;

const bursty = (random: Random) =>
  new Path(ONE_WAY_US, jitter(random, 1000), burstLoss(random, 0.05, 30_000));
const lossy = (random: Random) => new Path(ONE_WAY_US, jitter(random, 1000), randomLoss(random, 0.05));
const later = () => new Path(2 * ONE_WAY_US);
const repair = () =>
  repairOptions(new PortableShardKernel(), { budgetPercent: 25, gameDeadlineMs: 60, voiceDeadlineMs: 100 });

/** A clean path that is there only when `isUp`. */
function when(isUp: () => boolean, oneWayUs = ONE_WAY_US): () => PathModel {
  return () => ({ arrivalUs: (nowUs) => isUp() ? nowUs + oneWayUs : Infinity });
}

/** Has no path ever count as silent at the host: failover is off. */
function neverSilent(host: Host): void {
  sessionOf(host).pathSet.isSilent = () => false;
}

const up = (bytes = 100) => udpPacket("10.66.0.2", "8.8.8.8", new Uint8Array(bytes));
const down = (bytes = 100) => udpPacket("8.8.8.8", "10.66.0.2", new Uint8Array(bytes));

Deno.test(`paths: bursts of losses on one are nothing with copies on another, 20 ms longer, and 4 % without (seed ${SEED})`, () => {
  const game = { seed: SEED, seconds: 60 };
  const both = playPaths(bursty, later, game), alone = playPaths(bursty, later, { ...game, copied: 0 });
  for (const way of ["up", "down"] as const) {
    assertLess(residual(both[way], LIMIT_US), 0.0005, way);
    assertGreater(residual(alone[way], LIMIT_US), 0.02, way);
  }
  assertGreater(both.server.metrics.get("copies_useful"), 50);
  // Each end tells how its paths fare.
  const [first, second] = both.client.core.paths;
  assertEquals([first.number, second.number, second.door, second.endpoint], [0, 1, 1, RELAY]);
  assertEquals([first.uses[0], second.uses[0]], ["games", "copies"]);
  assertEquals(first.copiesSent + second.copiesSent, both.client.metrics.get("copies_sent"));
  assertAlmostEquals(first.share, 0.5, 0.05);
  assertAlmostEquals(second.rttMs! - first.rttMs!, 40, 5);
  const [{ paths }] = both.server.core.peerSnapshots(both.world.nowUs);
  assertEquals(paths!.map(({ endpoint }) => endpoint), [FIRST, SECOND]);
  assertEquals(paths![0].copiesUseful, both.server.metrics.get("copies_useful"));
  assertEquals(both.server.metrics.get("packets_copied"), both.server.metrics.get("copies_useful"));
});

Deno.test(`paths: where both lose 5 % at random, copies and repair leave 0.3 % at most, and neither 4 % (seed ${SEED})`, () => {
  const game = { seed: SEED, seconds: 60 };
  const both = playPaths(lossy, lossy, { ...game, options: { repair: repair() } });
  const plain = playPaths(lossy, lossy, game), alone = playPaths(lossy, lossy, { ...game, copied: 0 });
  for (const way of ["up", "down"] as const) {
    assertLess(residual(both[way], LIMIT_US), 0.003, way);
    assertLess(residual(plain[way], LIMIT_US), 0.006, `${way}: twice what both lose by chance`);
    assertGreater(residual(alone[way], LIMIT_US), 0.03, way);
  }
  // What came by copies counts as repaired.
  const { sending } = both.client.core.vitals!;
  assertGreater(sending!.lossRatio, 0.02);
  assertLess(sending!.residualRatio, 0.01);
});

Deno.test(`paths: a network that dies in the middle of a game costs no packet, a hundred times (seed ${SEED})`, () => {
  let isUp = true;
  const died = when(() => isUp), other = when(() => true, ONE_WAY_US + 10_000);
  // Down for 0.8 s of each 2 s, from another moment of the tick each time.
  const onTick = (nowUs: number, n: number) =>
    isUp = (nowUs - 3 * SECOND_US + 137 * n) % (2 * SECOND_US) < 1.2 * SECOND_US;
  const game = { seed: SEED, seconds: 200, onTick };
  const both = playPaths(died, other, game);
  for (const way of ["up", "down"] as const) {
    const { lost, p99Us, longestUs } = gaps(both[way]);
    assertEquals(lost, 0, way);
    assertLess(p99Us, 2 * TICK_US, way);
    assertLess(longestUs, 2 * TICK_US, way);
  }
  assertEquals(both.client.metrics.get("handshakes_completed"), 1);
  assertGreater(both.client.metrics.get("path_failovers"), 0);
  const alone = playPaths(died, other, { ...game, seconds: 20, copied: 0 });
  assertGreater(gaps(alone.up).lost, 10, "without copies what was on its way is lost");
});

Deno.test(`paths: bulk leaves a dead path within a quarter of a second and without a handshake, and not with failover off (seed ${SEED})`, () => {
  for (const oneWayUs of [5_000, 20_000, 40_000]) {
    let isUp = true;
    const died = when(() => isUp, oneWayUs), other = when(() => true, oneWayUs + 20_000);
    const onTick = (_nowUs: number, n: number) => isUp = n < 200;
    const bulk = { seed: SEED, seconds: 10, trafficClass: CLASS_BULK, onTick };
    const both = playPaths(died, other, bulk);
    for (const way of ["up", "down"] as const) {
      const { sentUs, cameUs } = both[way];
      const lost = sentUs.flatMap((_us, n) => cameUs[n] === undefined ? [n] : []);
      assertGreater(lost.length, 0, way);
      assertEquals(lost.at(-1)! - lost[0], lost.length - 1, "in a row");
      assertLess(sentUs[lost.at(-1)! + 1] - sentUs[lost[0]], 250_000, `${way}, ${oneWayUs}`);
    }
    assertEquals(both.client.metrics.get("handshakes_completed"), 1);
    assertEquals(both.client.metrics.get("copies_sent"), 0, "bulk is not copied");
    const off = playPaths(died, other, {
      ...bulk,
      begin: (_world, client, server) => [client, server].forEach(neverSilent),
    });
    assertGreater(gaps(off.up).lost, 300);
  }
});

Deno.test(`paths: a path that comes back is used again, and what is metered gets no bulk while another is there (seed ${SEED})`, () => {
  let isUp = true;
  const onTick = (_nowUs: number, n: number) => isUp = n < 64 || n > 256;
  const both = playPaths(when(() => isUp), later, { seed: SEED, seconds: 12, onTick });
  const { pathSet, row } = sessionOf(both.client);
  assertEquals(pathSet.real, row, "the first is the shorter one");
  assertGreater(both.client.metrics.get("copies_sent"), 500);

  const { world, client, server } = inTwoNetworks(SEED);
  const [long, short] = [new Path(60_000), new Path(5_000)];
  world.pathOf = (from, to) => from === SECOND || to === SECOND ? short : long;
  client.core.addDoor(1, true, world.nowUs);
  client.send(up());
  world.runFor(2 * SECOND_US);
  const sent = new Map([[FIRST, 0], [SECOND, 0]]);
  world.tap = (from, _to, bytes) => {
    if (bytes.length > 600) sent.set(from, (sent.get(from) ?? 0) + 1);
    return bytes;
  };
  for (let i = 0; i < 50; i++) {
    client.sendBurst([up(700)], CLASS_BULK);
    server.sendBurst([down(800)], CLASS_BULK);
    world.runFor(20_000);
  }
  assertEquals([sent.get(FIRST), sent.get(SECOND)], [50, 0], "what is metered is for games");
  client.sendBurst([up(700)], CLASS_GAME);
  world.runFor(100_000);
  assertEquals([sent.get(FIRST), sent.get(SECOND)], [51, 1], "and a game takes both");
  // The longer one costs instead: the good one needs no copies there, unless they are free.
  const games = (count: number) => {
    for (let i = 0; i < count; i++) {
      client.sendBurst([up(700)], CLASS_GAME);
      server.sendBurst([down(800)], CLASS_GAME);
      world.runFor(20_000);
    }
  };
  for (const [isMetered, copies] of [[true, 0], [false, 50], [true, 0]] as const) {
    client.core.setMetered(0, isMetered);
    client.core.setMetered(1, false);
    games(20);
    const before = client.metrics.get("copies_sent"), theirs = server.metrics.get("copies_sent");
    games(50);
    assertEquals(client.metrics.get("copies_sent") - before, copies);
    assertEquals(server.metrics.get("copies_sent") - theirs, copies, "the relay is told");
  }
});

Deno.test(`paths: no id, no nonce and no counter is on two paths, and an id on one address alone (seed ${SEED})`, () => {
  const seen = new Set<string>(), addressOf = new Map<string, string>();
  let kernels = 0;
  /** Notes every nonce that it seals under. */
  class Watching extends PortableDatagramAead {
    readonly #number = kernels++;
    override seal(burst: Burst): void {
      for (let row = 0; row < burst.count; row++) {
        if (burst.next[row] !== TO_SEAL_DATAGRAM) continue;
        const nonce = `${this.#number} ${burst.session[row]} ${burst.phase[row]} ${burst.counter[row]}`;
        assert(!seen.has(nonce), `nonce ${nonce} twice`);
        seen.add(nonce);
      }
      super.seal(burst);
    }
  }
  const options = { makeDatagramAead: (rows: number) => new Watching(rows, DROP.forged), repair: repair() };
  let isUp = true;
  const both = playPaths(when(() => isUp), bursty, {
    seed: SEED,
    seconds: 30,
    options,
    onTick: (_nowUs, n) => isUp = n % 200 < 150,
    begin: (world) =>
      world.tap = (from, to, bytes) => {
        if (bytes[0] >= 0x80) return bytes;
        const id = bytes.slice(1, 5).toHex(), pair = `${from} ${to}`;
        assertEquals(addressOf.get(id) ?? pair, pair, "an id on two pairs of addresses");
        addressOf.set(id, pair);
        return bytes;
      },
  });
  assertLess(gaps(both.up).lost, 20, "what both lose");
  const used = new Set([...seen].map((nonce) => Number(nonce.split(" ")[2]) >> 1));
  assertEquals([...used].toSorted(), [0, 1]);
  assertGreater(addressOf.size, 3);
});

Deno.test(`paths: packets without headers are read in copies too, with repair and without (seed ${SEED})`, () => {
  for (const options of [{ headerContexts: 1024 }, { headerContexts: 1024, repair: repair() }]) {
    let isUp = true;
    const onTick = (_nowUs: number, n: number) => isUp = n < 300 || n > 600;
    const both = playPaths(bursty, later, { seed: SEED, seconds: 20, options });
    assertEquals([gaps(both.up).lost, gaps(both.down).lost], [0, 0]);
    assertGreater(both.client.metrics.get("headers_elided"), 400);
    assertGreater(both.server.metrics.get("copies_useful"), 10);
    assertEquals(both.server.metrics.dropped("unknown_context"), 0);
    // While the first path is dead the others carry whole packets, and then short ones again.
    const died = playPaths(when(() => isUp), later, { seed: SEED, seconds: 15, options, onTick });
    assertEquals([gaps(died.up).lost, gaps(died.down).lost], [0, 0]);
  }
});

Deno.test(`paths: keys are renewed and the session goes on while the first path is dead (seed ${SEED})`, () => {
  let isUp = true;
  const both = playPaths(when(() => isUp), later, {
    seed: SEED,
    seconds: 400,
    gapUs: 100_000,
    onTick: (_nowUs, n) => isUp = n < 50,
  });
  assertEquals([gaps(both.up).lost, gaps(both.down).lost], [0, 0]);
  assertEquals(both.client.metrics.get("handshakes_completed"), 1);
  assertGreater(sessionOf(both.client).epoch, 2);
});

Deno.test(`paths: the limits of a path hold without waiting for the next look at its figures (seed ${SEED})`, () => {
  const { world, client, server } = inTwoNetworks(SEED);
  client.core.addDoor(1, false, world.nowUs);
  client.send(up());
  world.runFor(2 * SECOND_US);
  const { pathSet, host: { shared: { table } } } = sessionOf(client);
  client.sendBurst([up()], CLASS_GAME);
  const { real, second } = pathSet;
  for (const path of [real, second].filter((path) => table.pathNumber[path] > 0)) {
    table.sendLimit[path] = table.sendCounter[path] + 10;
    for (let i = 0; i < 50; i++) client.sendBurst([up()], CLASS_GAME);
    assertEquals(table.sendCounter[path], table.sendLimit[path]);
  }
  world.runFor(SECOND_US);
  assertEquals(server.delivered.length, 1 + 1 + 50);
});

Deno.test(`paths: the rate that bulk finds is of the network that it goes to (seed ${SEED})`, () => {
  const world = new World(SEED);
  world.protocol = "oxtunnel";
  const server = world.relay(RELAY, { ipv4: "10.66.0.1", queues: queueOptions({ findsRates: true }) });
  const client = world.client(FIRST, server, { ipv4: "10.66.0.2" });
  client.doors.set(1, SECOND);
  client.core.addDoor(1, false, world.nowUs);
  client.send(up());
  world.runFor(2 * SECOND_US);
  client.core.setMetered(0, true);
  client.tick();
  world.runFor(SECOND_US);
  const { pathSet, rate, row, sessions: { rates } } = sessionOf(server);
  assertNotEquals(pathSet.bulk, row, "the first path is metered");
  const networks: string[] = [];
  const take = rates.take.bind(rates);
  rates.take = (peer: number, nowUs: number, network: string) => {
    networks.push(network);
    return take(peer, nowUs, network);
  };
  rate.find(world.nowUs);
  assertEquals(networks, [`${(203 << 16) | 113}`]);
});

Deno.test(`paths: a second path that nothing goes on costs 2 kbit/s at most (seed ${SEED})`, () => {
  const { world, client } = inTwoNetworks(SEED);
  client.core.addDoor(1, false, world.nowUs);
  client.send(up());
  world.runFor(3 * SECOND_US);
  let bytes = 0;
  world.tap = (from, to, datagram) => {
    if (from === SECOND || to === SECOND) bytes += datagram.length + 28;
    return datagram;
  };
  const SECONDS = 60;
  for (let i = 0; i < 10 * SECONDS; i++) {
    client.sendBurst([up(1000)], CLASS_BULK); // in use, with nothing for the second path
    world.runFor(SECOND_US / 10);
  }
  assertGreater(bytes, 0, "it is asked");
  assertLess(8 * bytes / SECONDS, 2000);
});

Deno.test(`paths: the rate of the path that bulk takes is found, and anew on another (seed ${SEED})`, () => {
  const { world, client } = inTwoNetworks(SEED, { queues: queueOptions({ findsRates: true }) });
  client.core.addDoor(1, false, world.nowUs);
  client.send(up());
  world.runFor(2 * SECOND_US);
  const [first, second] = [
    new Bottleneck(1_000_000, 100_000, 10_000),
    new Bottleneck(400_000, 100_000, 10_000),
  ];
  const back = new Path(10_000);
  let isUp = true;
  world.pathOf = (from, to) => {
    if (!isUp && (from === FIRST || to === FIRST)) return { arrivalUs: () => Infinity };
    return from === FIRST ? first : from === SECOND ? second : back;
  };
  const { pathSet, row } = sessionOf(client);
  const found = (seconds: number) => {
    for (let i = 0; i < 1000 * seconds; i++) {
      client.sendBurst([up(1200)], CLASS_BULK); // 9.8 Mbit/s
      world.runFor(1000);
    }
    return client.core.peerSnapshots(world.nowUs)[0].line?.path?.bps ?? 0;
  };
  const before = found(6);
  assertEquals(pathSet.bulk, row);
  assertAlmostEquals(before / 8, 1_000_000, 200_000);
  isUp = false;
  const after = found(8);
  assert(pathSet.bulk !== row);
  assertAlmostEquals(after / 8, 400_000, 100_000);
});
