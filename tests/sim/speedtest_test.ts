/**
 * A speedtest through whole relays and clients in the deterministic world, whose channel is known: the figures must be
 * the channel's. And what the relay's end may not do: answer elsewhere, longer than its time, or show what buffers held.
 */
import { assert, assertAlmostEquals, assertEquals, assertGreater, assertMatch } from "@std/assert";
import { renderSpeedtest } from "../../src/cli/speedtest.ts";
import { SpeedtestExit } from "../../src/cli/speedtest_exit.ts";
import type { Client } from "../../src/client.ts";
import { PERIOD_US, RUN_US } from "../../src/ingress/speedtest.ts";
import { Arena } from "../../src/vector/arena.ts";
import { Burst, TO_EXIT } from "../../src/vector/burst.ts";
import {
  SPEEDTEST_ASK,
  SPEEDTEST_BUSY,
  SPEEDTEST_DATA,
  SPEEDTEST_FILLING,
  SPEEDTEST_PACKET_BYTES,
  SPEEDTEST_PULL,
  SPEEDTEST_REPORT,
  speedtestKind,
  writePull,
  writeSpeedtest,
} from "../../src/wire/speedtest.ts";
import { type Channel, CLEAN, CLOSED, type Host, World } from "../kit/world.ts";

const SECOND = 1_000_000;
const SEED = Number(Deno.env.get("SIM_SEED") ?? 1);
const OWN = 0x0a420002, RELAY = 0x0a420001;

function pair(protocol: "oxtunnel" | "wireguard", allowSpeedtest = true) {
  const world = new World(SEED);
  world.protocol = protocol;
  const destinations = { ...CLOSED, allowSpeedtest };
  const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1", destinations });
  const client = world.client("198.51.100.7:5555", server, { ipv4: "10.66.0.2" });
  world.runFor(SECOND);
  return { world, server, client };
}

/** Runs the exit over the client until it is done; the world is not fast, so a window of few packets is enough. */
function measure(world: World, client: Host<Client>, own = OWN, bytes = 1200): SpeedtestExit {
  let runs = 0;
  const exit = new SpeedtestExit({
    own,
    packetBytes: () => Math.min(bytes, client.core.innerMtu),
    idleUs: 2 * SECOND,
    directionUs: 2 * SECOND,
    windowMax: 100,
    random: () => ++runs,
  });
  exit.start(RELAY);
  const burst = new Burst(new Arena(1024));
  let taken = client.delivered.length;
  const endUs = world.nowUs + 20 * SECOND;
  while (["idle", "up", "down"].includes(exit.phase) && world.nowUs < endUs) {
    while (exit.receive(burst, world.nowUs) > 0) {
      for (let row = 0; row < burst.count; row++) {
        client.send(burst.bytes.slice(burst.offset[row], burst.offset[row] + burst.length[row]));
      }
      burst.release();
    }
    world.runFor(2000);
    for (; taken < client.delivered.length; taken++) {
      const row = burst.grow(client.delivered[taken].length, TO_EXIT);
      burst.bytes.set(client.delivered[taken], burst.offset[row]);
      exit.send(burst, world.nowUs);
      burst.release();
    }
  }
  return exit;
}

Deno.test(`speedtest: round trip, loss and jitter are the channel's (seed ${SEED})`, () => {
  const { world, client } = pair("oxtunnel");
  const noisy: Channel = { ...CLEAN, delayUs: 20_000, jitterUs: 6_000, loss: 0.05 };
  world.channel = noisy;
  const { result, phase } = measure(world, client);
  assertEquals(phase, "done");
  const { idle, up, down } = result!;
  // Two delays of 20 to 26 ms, seen at the next turn of 2 ms.
  assertAlmostEquals(idle.rttMs.p50, 47, 2);
  assert(idle.rttMs.p99 > idle.rttMs.p50 && idle.rttMs.p99 <= 54, `${idle.rttMs.p99}`);
  assertAlmostEquals(idle.lossRatio, 0.0975, 0.09);
  // One sum of two uniform values differs from the next by some 2.8 ms.
  assertAlmostEquals(idle.jitterMs, 2.8, 1.3);
  for (const direction of [up, down]) {
    assertGreater(direction.packets, 3000);
    assertAlmostEquals(direction.lossRatio, 0.05, 0.015);
    // Packets that left together come in the order of their delays, so that neighbours differ by little.
    assert(direction.jitterMs > 0 && direction.jitterMs < 2, `${direction.jitterMs}`);
    // The channel has no rate of its own, so the window decides: 100 packets a round trip, less what is lost.
    assertAlmostEquals(direction.bitsPerS / 1e6, 0.95 * 100 * 1200 * 8 / 46e-3 / 1e6, 5);
    assertAlmostEquals(direction.rttMs.p50, 47, 2);
  }
});

Deno.test(`speedtest: of a relay that goes away meanwhile it says what there was (seed ${SEED})`, () => {
  const { world, client } = pair("oxtunnel");
  const goneUs = world.nowUs + 3 * SECOND;
  world.tap = (_from, _to, bytes) => world.nowUs < goneUs ? bytes : undefined;
  const { result, phase } = measure(world, client);
  assertEquals(phase, "done");
  assertEquals([result!.down.packets, result!.down.lossRatio], [0, 1]);
  const [, idle, up, down] = renderSpeedtest("relay", result!).split("\n");
  assertMatch(idle, /p50 4\d\.\d\d ms/);
  assertMatch(up, /bit\/s .* p50 4\d\.\d\d ms/);
  assertMatch(down, / 0 bit\/s .* p50 - {2}p99 - {2}jitter 0\.00 ms {2}loss 100\.00 %$/);
});

Deno.test(`speedtest: its packets are no larger than the path takes, each way (seed ${SEED})`, () => {
  const { world, server } = pair("oxtunnel");
  const takes = (from: string) => from === server.endpoint ? 1250 : 1300;
  world.tap = (from, _to, bytes) => bytes.length <= takes(from) ? bytes : undefined;
  const client = world.client("198.51.100.8:5555", server, { ipv4: "10.66.0.3" });
  world.runFor(SECOND);
  const { result, phase } = measure(world, client, 0x0a420003, 1420);
  assertEquals(phase, "done");
  for (const { lossRatio, packets } of [result!.up, result!.down]) {
    assertEquals(lossRatio, 0);
    assertGreater(packets, 3000);
  }
});

function message(kind: number, sequence: number, from = OWN): Uint8Array {
  const packet = new Uint8Array(SPEEDTEST_PACKET_BYTES);
  const view = new DataView(packet.buffer);
  writeSpeedtest(view, 0, packet.length, from, 5000, RELAY, 4433, kind, 1, sequence, 0, 0);
  if (kind === SPEEDTEST_PULL) writePull(view, 0, 255, 65535);
  return packet;
}

const kindsOf = (host: Host) =>
  host.delivered.map((packet) => speedtestKind(new DataView(packet.buffer), 0, packet.length));

Deno.test(`speedtest: whoever is refused hears that the port is closed, who lies about its address nothing (seed ${SEED})`, () => {
  const off = pair("oxtunnel", false);
  off.client.send(message(SPEEDTEST_ASK, 0));
  off.client.send(message(SPEEDTEST_PULL, 0));
  off.world.runFor(SECOND);
  const icmp = off.client.delivered.map((packet) => [...packet.subarray(9, 10), ...packet.subarray(20, 22)]);
  assertEquals(icmp, [[1, 3, 3], [1, 3, 3]], "port unreachable, and no report or data");
  const { world, server, client } = pair("oxtunnel");
  const victim = world.client("198.51.100.9:1", server, { ipv4: "10.66.0.3" });
  world.runFor(SECOND);
  client.send(message(SPEEDTEST_PULL, 0, 0x0a420003));
  world.runFor(SECOND);
  assertEquals([victim.delivered, client.delivered], [[], []]);
  assertEquals(server.delivered, [], "nothing of it reaches the exit");
  assertEquals(measure(off.world, off.client).phase, "unanswered");
});

Deno.test(`speedtest: over WireGuard, whose sources prove nothing, no answer is longer than its question (seed ${SEED})`, () => {
  const { world, server, client } = pair("wireguard");
  client.send(message(SPEEDTEST_ASK, 0));
  world.runFor(SECOND);
  assertEquals(kindsOf(client), [SPEEDTEST_REPORT]);
  client.endpoint = "203.0.113.66:6"; // or so it says
  let bytesThere = 0;
  world.tap = (_from, to, bytes) => {
    if (to === client.endpoint) bytesThere += bytes.length;
    return bytes;
  };
  client.send(message(SPEEDTEST_PULL, 0));
  world.runFor(SECOND);
  assertEquals([bytesThere, server.metrics.dropped("denied")], [0, 1]);
});

Deno.test(`speedtest: a pull is answered by 32 packets at most, which show nothing of old buffers (seed ${SEED})`, () => {
  const { world, client } = pair("oxtunnel");
  client.send(message(SPEEDTEST_PULL, 0));
  world.runFor(SECOND); // the path's size is found
  client.delivered.length = 0;
  // Too large for the tunnel: they come as large as they may. Then of a size that fits.
  client.send(message(SPEEDTEST_PULL, 0));
  world.runFor(SECOND);
  assertEquals(client.delivered.map(({ length }) => length), new Array(32).fill(1420));
  client.delivered.length = 0;
  const pull = message(SPEEDTEST_PULL, 1);
  writePull(new DataView(pull.buffer), 0, 255, 1400);
  client.send(pull);
  world.runFor(SECOND);
  assertEquals(kindsOf(client), new Array(32).fill(SPEEDTEST_DATA));
  for (const packet of client.delivered) {
    assertEquals(packet.length, 1400);
    assertEquals(packet.slice(SPEEDTEST_PACKET_BYTES), SPEEDTEST_FILLING.slice(SPEEDTEST_PACKET_BYTES, 1400));
  }
});

Deno.test(`speedtest: a peer has half a minute in each, and eight measure at a time (seed ${SEED})`, () => {
  const { world, server, client } = pair("oxtunnel");
  const askedAt = (us: number) => {
    world.run(us);
    client.send(message(SPEEDTEST_ASK, 0));
    world.runFor(SECOND / 2);
    return kindsOf(client).at(-1);
  };
  const startUs = world.nowUs;
  assertEquals(askedAt(startUs), SPEEDTEST_REPORT);
  assertEquals(askedAt(startUs + RUN_US - SECOND), SPEEDTEST_REPORT);
  assertEquals(askedAt(startUs + RUN_US + SECOND), SPEEDTEST_BUSY);
  const before = client.delivered.length;
  client.send(message(SPEEDTEST_PULL, 0));
  world.runFor(SECOND / 2);
  assertEquals(client.delivered.length, before);
  assertEquals(askedAt(startUs + PERIOD_US + SECOND), SPEEDTEST_REPORT);

  const others = Array.from(
    { length: 8 },
    (_, i) => world.client(`198.51.101.${i}:1`, server, { ipv4: `10.66.1.${i}` }),
  );
  world.runFor(SECOND);
  others.forEach((other, i) => other.send(message(SPEEDTEST_ASK, 0, 0x0a420100 + i)));
  world.runFor(SECOND);
  assertEquals(others.flatMap(kindsOf).sort(), [...new Array(7).fill(SPEEDTEST_REPORT), SPEEDTEST_BUSY]);
});
