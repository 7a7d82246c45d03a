/**
 * Rates ahead of predicted losses, and remembered rates, in whole clients and relays: each is there for peers in its share and for no
 * others. What they are worth is measured by bench/pacing_bench.ts.
 */
import { assertEquals, assertGreater, assertLess } from "@std/assert";
import { PortableShardKernel } from "../../src/codec/gf256.ts";
import { DEFAULTS } from "../../src/config.ts";
import { ROLLOUT_DEFAULT } from "../../src/control/rollout.ts";
import { CLASS_BULK, CLASS_GAME } from "../../src/control/traffic_class.ts";
import { repairOptions } from "../../src/repair/options.ts";
import { queueOptions } from "../kit/queue_options.ts";
import { Bottleneck } from "../kit/channels.ts";
import { sessionOf } from "../kit/inside.ts";
import { marked, udpPacket } from "../kit/packets.ts";
import { World } from "../kit/world.ts";

const SEED = Number(Deno.env.get("SIM_SEED") ?? 1);
const CLIENT = "10.66.0.2", FAR = "8.8.8.8", RELAY = "192.0.2.1:4433";
const SECOND = 1_000_000, MS = 1000, RATE = 625_000, FIFO_US = 150 * MS, DELAY_US = 10 * MS;
const QUEUES = queueOptions({ findsRates: true });

/** A client behind a line of 5 Mbit/s that sends packets of a class at a rate for a time. */
function client(percent: Partial<typeof ROLLOUT_DEFAULT>) {
  const world = new World(SEED);
  world.protocol = "oxtunnel";
  const repair = repairOptions(new PortableShardKernel(), { ...DEFAULTS.repair, predictor: "delay" });
  const server = world.relay(RELAY, { ipv4: "10.66.0.1", repair });
  const rolloutPercent = { ...ROLLOUT_DEFAULT, ...percent };
  const host = world.client("198.51.100.7:5555", server, {
    ipv4: CLIENT,
    queues: QUEUES,
    repair,
    rolloutPercent,
  });
  const line = new Bottleneck(RATE, FIFO_US, DELAY_US);
  world.pathOf = (_, to) => to === RELAY ? line : undefined;
  host.send(udpPacket(CLIENT, FAR, new Uint8Array(20)));
  world.runFor(2 * SECOND);
  const packet = (bytes: number, trafficClass: number) =>
    marked(udpPacket(CLIENT, FAR, new Uint8Array(bytes)), trafficClass);
  return (seconds: number, bulkEachMs: number, look: () => void) => {
    for (let ms = 0; ms < 1000 * seconds; ms++) {
      if (ms % 16 === 0) host.sendBurst([packet(100, CLASS_GAME)]);
      for (let i = 0; i < bulkEachMs; i++) host.sendBurst([packet(1200, CLASS_BULK)]);
      world.runFor(MS);
      look();
    }
    return { host, line: host.core.peerSnapshots(world.nowUs)[0].line };
  };
}

Deno.test(`pacing: predicted losses reach the rate of a peer in the share, and of no other (seed ${SEED})`, () => {
  for (const share of [0, 100]) {
    const play = client({ predicted_pacing: share });
    let most = 0;
    const { host } = play(1, 1, () => {});
    play(3, 1, () => most = Math.max(most, sessionOf(host).pathRate?.lossAhead ?? 0));
    if (share === 0) assertEquals(most, 0);
    else assertGreater(most, 0);
  }
});

Deno.test(`pacing: the second transfer begins with the first one's rate where it is remembered (seed ${SEED})`, () => {
  for (const share of [0, 100]) {
    const play = client({ rate_memory: share });
    play(5, 1, () => {});
    play(13, 0, () => {});
    let shaped: number | undefined;
    const { host } = play(1, 0, () => {});
    play(0.02, 2, () => shaped ??= host.core.peerSnapshots(0)[0].line?.shapedBps);
    if (share === 0) assertEquals(shaped, undefined);
    else {
      assertGreater(shaped!, 0.7 * 8 * RATE);
      assertLess(shaped!, 1.1 * 8 * RATE);
    }
  }
});

Deno.test(`pacing: a rate is remembered for the network that it was found in, not for the one the client went to (seed ${SEED})`, () => {
  const world = new World(SEED);
  world.protocol = "oxtunnel";
  const rolloutPercent = { ...ROLLOUT_DEFAULT, rate_memory: 100 };
  const server = world.relay(RELAY, { ipv4: "10.66.0.1", queues: QUEUES, rolloutPercent });
  const home = "198.51.100.7:5555";
  const host = world.client(home, server, { ipv4: CLIENT });
  const line = new Bottleneck(RATE, FIFO_US, DELAY_US);
  world.pathOf = (_, to) => to === RELAY ? undefined : line;
  const shaped = () => server.core.peerSnapshots(world.nowUs)[0].line?.shapedBps;
  /** The first rate that packets down were held to, bits a second. */
  const download = (ms: number) => {
    let first: number | undefined;
    for (let i = 0; i < ms; i++) {
      server.sendBurst([marked(udpPacket(FAR, CLIENT, new Uint8Array(1200)), CLASS_BULK)]);
      world.runFor(MS);
      first ??= shaped();
    }
    return first;
  };
  const move = (endpoint: string) => {
    host.endpoint = endpoint;
    host.core.moved();
    host.tick();
    for (let s = 0; s < 13; s++) {
      host.send(udpPacket(CLIENT, FAR, new Uint8Array(20)));
      world.runFor(SECOND);
    }
  };
  host.send(udpPacket(CLIENT, FAR, new Uint8Array(20)));
  world.runFor(2 * SECOND);
  download(5000);
  move("203.0.113.9:5555");
  assertEquals(shaped(), undefined);
  assertEquals(download(20), undefined, "nothing is known of this network");
  move(home);
  const bps = download(20);
  assertGreater(bps!, 0.7 * 8 * RATE);
  assertLess(bps!, 1.1 * 8 * RATE);
});
