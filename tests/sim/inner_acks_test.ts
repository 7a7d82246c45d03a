/**
 * A WireGuard client, which sends no reports, behind a slow line: the relay finds its rate by the acknowledgements of the TCP inside,
 * so that a game beside a download is not delayed, and without them nothing is held back. Whole client and relay; the download is
 * CUBIC's (tests/kit/cubic.ts) with segments and acknowledgements as TCP has them.
 */
import { assert, assertAlmostEquals, assertEquals, assertGreater, assertLess } from "@std/assert";
import { ROLLOUT_DEFAULT } from "../../src/control/rollout.ts";
import { CLASS_GAME } from "../../src/control/traffic_class.ts";
import { queueOptions } from "../kit/queue_options.ts";
import { Bottleneck } from "../kit/channels.ts";
import { CubicSender } from "../kit/cubic.ts";
import { marked, tcpSegment, udpPacket } from "../kit/packets.ts";
import { World } from "../kit/world.ts";

const SEED = Number(Deno.env.get("SIM_SEED") ?? 1);
const CLIENT = "10.66.0.2", FAR = "8.8.8.8", RELAY = "192.0.2.1:4433";
const SECOND = 1_000_000, MS = 1000;
/** 10 Mbit/s with 200 ms of queue. */
const RATE = 1_250_000, FIFO_US = 200 * MS, DELAY_US = 10 * MS;
const GAME_US = 15_625, DATA_BYTES = 1200, WARM_US = 6 * SECOND, PLAY_US = 8 * SECOND;

const QUEUES = queueOptions({ findsRates: true, ecn: false });

/** How the client answers data that came. */
type Answer = "acks" | "nothing" | "lies";

function play(share: number, answer: Answer = "acks") {
  const world = new World(SEED);
  world.protocol = "wireguard";
  const rolloutPercent = { ...ROLLOUT_DEFAULT, ack_clocking: share };
  const server = world.relay(RELAY, { ipv4: "10.66.0.1", queues: QUEUES, rolloutPercent });
  const client = world.client("198.51.100.7:5555", server, { ipv4: CLIENT });
  const line = new Bottleneck(RATE, FIFO_US, DELAY_US);
  world.pathOf = (_, to) => to === RELAY ? undefined : line;
  client.send(udpPacket(CLIENT, FAR, new Uint8Array(20)));
  world.runFor(2 * SECOND);
  const sender = new CubicSender(world.nowUs), startUs = world.nowUs;
  const games: { sentUs: number; delayUs: number }[] = [];
  let gameUs = startUs, expected = 0, farthest = -1, largest = -1, bytes = 0;
  const came = new Set<number>();
  const take = () => {
    for (const packet of client.delivered.splice(0)) {
      const view = new DataView(packet.buffer, packet.byteOffset);
      if (packet[9] === 17) {
        const game = games[view.getUint32(28)];
        game.delayUs = world.nowUs - game.sentUs - DELAY_US;
        continue;
      }
      const number = view.getUint32(24) / DATA_BYTES;
      if (world.nowUs > startUs + WARM_US) bytes += packet.length;
      came.add(number);
      farthest = Math.max(farthest, number);
      while (came.delete(expected)) expected++;
      if (answer === "nothing") sender.acked(number, number, world.nowUs);
      const ack = answer === "lies" ? (farthest + 5000) * DATA_BYTES : expected * DATA_BYTES;
      const end = (farthest + 1) * DATA_BYTES;
      const sack: [number, number] | undefined = farthest >= expected ? [end - DATA_BYTES, end] : undefined;
      if (answer !== "nothing") {
        client.send(tcpSegment({ from: CLIENT, to: FAR, ports: [5000, 443], ack, sack }));
      }
    }
    for (const packet of server.delivered.splice(0)) {
      if (packet[9] !== 6) continue;
      const view = new DataView(packet.buffer, packet.byteOffset);
      const to = (packet.length > 40 ? view.getUint32(48) : view.getUint32(28)) / DATA_BYTES - 1;
      if (to < sender.next) sender.acked(to, to, world.nowUs);
      largest = Math.max(largest, Math.min(to, sender.next - 1));
      sender.settle(largest, world.nowUs);
    }
  };
  while (world.nowUs < startUs + WARM_US + PLAY_US) {
    world.runFor(MS);
    take();
    for (; gameUs <= world.nowUs; gameUs += GAME_US) {
      const game = udpPacket(FAR, CLIENT, new Uint8Array(100));
      new DataView(game.buffer).setUint32(28, games.length);
      games.push({ sentUs: world.nowUs, delayUs: Infinity });
      server.sendBurst([marked(game, CLASS_GAME)], CLASS_GAME);
    }
    for (let number = sender.next; sender.take(world.nowUs); number = sender.next) {
      const sequence = number * DATA_BYTES;
      server.sendBurst([
        tcpSegment({ from: FAR, to: CLIENT, ports: [443, 5000], sequence, bytes: DATA_BYTES }),
      ]);
    }
  }
  const { line: seen } = server.core.peerSnapshots(world.nowUs)[0];
  const delays = games.filter(({ sentUs }) => sentUs > startUs + WARM_US && sentUs < world.nowUs - SECOND)
    .map(({ delayUs }) => delayUs).sort((a, b) => a - b);
  const at = (rank: number) => delays[Math.ceil(rank * delays.length) - 1];
  return { p50: at(0.5), p99: at(0.99), goodput: bytes / (PLAY_US / SECOND) / RATE, seen };
}

Deno.test(`inner acks: a game beside a download to a WireGuard client of unknown rate (seed ${SEED})`, () => {
  const on = play(100);
  const off = play(0);
  assertLess(on.p50, 5 * MS);
  assertLess(on.p99, 25 * MS);
  assertGreater(on.goodput, 0.75);
  assertEquals(on.seen!.rateBy, "found");
  assertAlmostEquals(on.seen!.path!.bps! / 8, RATE, 0.2 * RATE);
  assertGreater(off.p50, 50 * MS, "the control: nobody watches");
  assertEquals(off.seen, undefined);
});

Deno.test(`inner acks: without acknowledgements, and with false ones, nothing is held back (seed ${SEED})`, () => {
  for (const answer of ["nothing", "lies"] as const) {
    const { seen } = play(100, answer);
    assert(seen?.shapedBps === undefined);
  }
});
