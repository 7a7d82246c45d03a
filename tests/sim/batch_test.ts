/**
 * Batches between a whole client and relay in the deterministic world (PROTOCOL §13): nothing is lost or overtaken,
 * nothing waits past its bound, and what is not bulk does not wait at all. Classes are written by hand, as a
 * classifier would.
 */
import { assert, assertEquals, assertGreater, assertLess } from "@std/assert";
import fc from "fast-check";
import type { Client } from "../../src/client.ts";
import {
  CLASS_BULK,
  CLASS_COUNT,
  CLASS_DEFAULT,
  CLASS_GAME,
  CLASS_INTERACTIVE,
  CLASS_VOICE,
} from "../../src/control/traffic_class.ts";
import type { Relay } from "../../src/relay.ts";
import { BATCH_WAIT_US, type TunnelOptions } from "../../src/tunnel_options.ts";
import { Burst, BURST_CAPACITY, TO_SEAL, TO_TRANSMIT } from "../../src/vector/burst.ts";
import { FRAME_PACKET, writeFrameHead } from "../../src/wire/frame.ts";
import { CLEAN, type Host, World } from "../kit/world.ts";
import { marked, udpPacket } from "../kit/packets.ts";

const SECOND = 1_000_000;
const SEED = Number(Deno.env.get("SIM_SEED") ?? 1);
/** Header, tag and the head of a packet that is not the last. */
const OVERHEAD = 22, HEAD = 2;
/** IPv4 and UDP. */
const OUTER = 28;

interface Pair {
  world: World;
  client: Host<Client>;
  server: Host<Relay>;
  /** UDP payload bytes of each datagram that the client sent. */
  sent: number[];
}

/** A client and a relay with a session, and no exchange of keys to disturb the count. */
function connected(seed = SEED, options: Partial<TunnelOptions> = {}): Pair {
  const world = new World(seed);
  world.protocol = "oxtunnel";
  const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1", features: 0 });
  const client = world.client("198.51.100.7:5555", server, { ipv4: "10.66.0.2", features: 0, ...options });
  client.send(up(0, 60));
  world.runFor(SECOND);
  assertEquals(numbers(server), [0]);
  server.delivered.length = 0;
  const sent: number[] = [];
  world.tap = (from, _to, bytes) => {
    if (from === client.endpoint) sent.push(bytes.length);
    return bytes;
  };
  return { world, client, server, sent };
}

function payload(n: number, bytes: number): Uint8Array {
  const data = new Uint8Array(bytes - 28);
  for (let i = 4; i < data.length; i++) data[i] = n + i;
  new DataView(data.buffer).setUint32(0, n);
  return data;
}

const up = (n: number, bytes: number) => udpPacket("10.66.0.2", "8.8.8.8", payload(n, bytes));
const numbers = (host: Host) => host.delivered.map((packet) => new DataView(packet.buffer).getUint32(28));
const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);

Deno.test(`batch: a hundred game packets in bursts of four cost a third less on the wire, and not when off (seed ${SEED})`, () => {
  const bytesWith = (options: Partial<TunnelOptions>) => {
    const { world, client, server, sent } = connected(SEED, options);
    for (let i = 0; i < 100; i += 4) {
      client.sendBurst([0, 1, 2, 3].map((k) => up(i + k, 60)), CLASS_GAME);
    }
    world.runFor(20_000);
    assertEquals(numbers(server), Array.from({ length: 100 }, (_, i) => i));
    server.delivered.forEach((packet, i) =>
      assertEquals(packet, marked(up(i, 60), CLASS_GAME), "byte for byte")
    );
    return sent;
  };
  const batched = bytesWith({});
  assertEquals(batched.length, 25);
  for (const bytes of batched) assert(bytes <= 4 * 60 + 3 * HEAD + OVERHEAD + 1, `${bytes}`);
  const single = bytesWith({ batchWaitUs: -1 });
  assertEquals(single.length, 100);
  assertLess(sum(batched) + 25 * OUTER, 0.7 * (sum(single) + 100 * OUTER));
});

Deno.test(`batch: full-size packets go alone, and take nothing along that does not fit (seed ${SEED})`, () => {
  const { world, client, server, sent } = connected();
  const sizes = [1420, 60, 1420, 1420, 60, 60, 1398, 60, 1399, 20 + 28];
  client.sendBurst(sizes.map((bytes, n) => up(n, bytes)));
  world.runFor(20_000);
  assertEquals(numbers(server), sizes.map((_, n) => n));
  const grouped = [[1420], [60], [1420], [1420], [60, 60], [1398], [60], [1399], [48]];
  assertEquals(
    sent.map((bytes) => bytes - OVERHEAD),
    grouped.map((group) => sum(group) + HEAD * (group.length - 1)),
  );
  assertEquals(client.metrics.get("datagrams_saved"), 1);
  assertEquals(client.metrics.get("packets_batched"), 2);
});

Deno.test(`batch: what is not bulk never waits, and takes along what does (seed ${SEED})`, () => {
  const { world, client, server, sent } = connected();
  let n = 0;
  const bulk = () => client.sendBurst([up(n++, 52)], CLASS_BULK);
  // Arrivals of 200 us teach the process; then the first of a pair is held.
  for (let i = 0; i < 40; i++) {
    bulk();
    world.runFor(200);
  }
  world.runFor(199);
  const before = sent.length;
  bulk();
  assertEquals(sent.length, before, "held for company");
  assertGreater(client.metrics.get("packets_held"), 0);
  client.sendBurst([up(n++, 60)], CLASS_GAME);
  assertEquals(sent.length, before + 1, "at once");
  world.runFor(BATCH_WAIT_US);
  for (const trafficClass of [CLASS_DEFAULT, CLASS_GAME, CLASS_VOICE, CLASS_INTERACTIVE]) {
    for (let i = 0; i < 40; i++) {
      const at = sent.length;
      client.sendBurst([up(n++, 60)], trafficClass);
      assertEquals(sent.length, at + 1, `class ${trafficClass}`);
      world.runFor(200);
    }
  }
  world.runFor(SECOND);
  assertEquals(numbers(server), Array.from({ length: n }, (_, i) => i), "in order");
});

Deno.test(`batch: after a silence nothing waits, and with gaps beyond the bound nothing ever does (seed ${SEED})`, () => {
  const { world, client, sent } = connected();
  for (let i = 0; i < 200; i++) {
    client.sendBurst([up(i, 52)], CLASS_BULK);
    assertEquals(sent.length, i + 1);
    world.runFor(BATCH_WAIT_US + 1);
  }
  // A train every 50 ms: its first packet leaves at once.
  for (let train = 0; train < 20; train++) {
    const at = sent.length;
    client.sendBurst([up(1, 52)], CLASS_BULK);
    assertEquals(sent.length, at + 1);
    for (let i = 0; i < 20; i++) {
      world.runFor(50);
      client.sendBurst([up(1, 52)], CLASS_BULK);
    }
    world.runFor(50_000);
  }
  assertGreater(client.metrics.get("packets_held"), 100);
});

/**
 * Sizes and classes of packets, each in a burst with those that follow in the same microsecond: mostly small bulk ones in
 * steady succession, so that some are held.
 */
const often = <T>(arbitrary: fc.Arbitrary<T>) => ({ arbitrary, weight: 8 });
const seldom = <T>(arbitrary: fc.Arbitrary<T>) => ({ arbitrary, weight: 1 });
const arrivals = fc.array(
  fc.record({
    gapUs: fc.oneof(
      often(fc.integer({ min: 40, max: 200 })),
      seldom(fc.constant(0)),
      seldom(fc.integer({ min: 1, max: 5000 })),
    ),
    bytes: fc.oneof(often(fc.integer({ min: 40, max: 120 })), seldom(fc.integer({ min: 40, max: 1420 }))),
    trafficClass: fc.oneof(
      often(fc.constant(CLASS_BULK)),
      seldom(fc.integer({ min: 0, max: CLASS_COUNT - 1 })),
    ),
  }),
  { minLength: 50, maxLength: 300 },
);

Deno.test("batch: whatever comes, nothing waits past its bound, is lost, changed or overtaken", () => {
  fc.assert(
    fc.property(arrivals, fc.integer({ min: 0, max: BATCH_WAIT_US }), (packets, boundUs) => {
      const { world, client, server } = connected(SEED, { batchWaitUs: boundUs });
      world.channel = { ...CLEAN, delayUs: 0 };
      const { free } = client.arena;
      const arrivedUs: number[] = [], deliveredUs: number[] = [];
      const push = server.delivered.push.bind(server.delivered);
      server.delivered.push = (...delivered: Uint8Array[]) => {
        delivered.forEach(() => deliveredUs.push(world.nowUs));
        return push(...delivered);
      };
      for (let n = 0; n < packets.length;) {
        world.runFor(packets[n].gapUs);
        const { trafficClass } = packets[n];
        const together: Uint8Array[] = [];
        do {
          together.push(up(n, packets[n].bytes));
          arrivedUs.push(world.nowUs);
          n++;
        } while (n < packets.length && packets[n].gapUs === 0 && packets[n].trafficClass === trafficClass);
        client.sendBurst(together, trafficClass);
      }
      world.runFor(10_000);
      assertEquals(server.delivered.length, packets.length);
      server.delivered.forEach((packet, n) =>
        assertEquals(packet, marked(up(n, packets[n].bytes), packets[n].trafficClass))
      );
      packets.forEach(({ trafficClass }, n) => {
        const waitUs = deliveredUs[n] - arrivedUs[n];
        assert(waitUs <= (trafficClass === CLASS_BULK ? boundUs : 0), `${n}: ${waitUs} us`);
      });
      assertEquals(client.arena.free, free, "slots");
      assertLess(client.metrics.get("held_us_max"), boundUs + 0.5);
    }),
    { seed: SEED, numRuns: 60 },
  );
});

Deno.test(`batch: held packets go out under a new epoch, and go with their peer (seed ${SEED})`, () => {
  const { world, client, server } = connected();
  const { free } = client.arena;
  let n = 1000;
  const bulk = () => client.sendBurst([up(n++, 52)], CLASS_BULK);
  for (let rotation = 0; rotation < 20; rotation++) {
    for (let i = 0; i < 100; i++) {
      // At some moment between two packets.
      // deno-lint-ignore no-explicit-any
      const { associations, peers } = client.core as any;
      if (i === 50) associations.oxtunnel.sessions.of[peers.current[0]].renew(world.nowUs);
      bulk();
      world.runFor(170);
    }
    world.runFor(4 * SECOND);
  }
  assertEquals(client.metrics.get("epochs_made"), 20);
  assertGreater(client.metrics.get("packets_held"), 500);
  assertEquals(numbers(server), Array.from({ length: n - 1000 }, (_, i) => 1000 + i));
  for (let i = 0; i < 40; i++) {
    bulk();
    world.runFor(170);
  }
  while (client.arena.free === free) {
    bulk();
    world.runFor(10);
  }
  assert(client.core.removePeer(server.publicKey));
  assertEquals(client.arena.free, free);
  assertEquals(client.core.pollTimeout(), Infinity);
});

Deno.test(`batch: a burst full of full batches arrives whole and in order (seed ${SEED})`, () => {
  const { world, client, server } = connected();
  const datagrams: Uint8Array[] = [];
  world.tap = (from, _to, bytes) => {
    if (from !== client.endpoint) return bytes;
    datagrams.push(bytes.slice());
    return undefined;
  };
  let n = 0;
  while (datagrams.length < BURST_CAPACITY) {
    // A single packet and one with a report among batches of as many as there may be.
    const packets = n % 7 === 3 ? 1 : 32;
    client.sendBurst(Array.from({ length: packets }, () => up(n++, 40)));
    world.nowUs += 500;
  }
  world.tap = undefined;
  const { free } = server.arena;
  server.receiveBurst(datagrams, client.endpoint);
  assertGreater(n, 20 * BURST_CAPACITY);
  assertEquals(numbers(server), Array.from({ length: n }, (_, i) => i));
  assertEquals(server.metrics.dropped("arena_full"), 0);
  assertEquals(server.arena.free, free);
});

Deno.test(`batch: single packets between batches of one burst are not overtaken (seed ${SEED})`, () => {
  const { world, client, server } = connected();
  const datagrams: Uint8Array[] = [];
  world.tap = (from, _to, bytes) => void (from === client.endpoint && datagrams.push(bytes.slice()));
  let n = 0;
  for (const packets of [1, 3, 1, 1, 2, 1]) {
    client.sendBurst(Array.from({ length: packets }, () => up(n++, 40)));
  }
  world.tap = undefined;
  server.receiveBurst(datagrams, client.endpoint);
  assertEquals(numbers(server), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
});

Deno.test(`batch: both ways under loss, jitter and a moving client, each packet once (seed ${SEED})`, () => {
  const { world, client, server } = connected();
  world.channel = { ...CLEAN, loss: 0.02, duplicate: 0.1, jitterUs: 3000 };
  const total = 4000;
  for (let i = 0; i < total; i += 4) {
    if (i === total / 2) {
      client.endpoint = "203.0.113.9:6666";
      client.core.moved();
    }
    const classes = [CLASS_BULK, CLASS_GAME, CLASS_DEFAULT, CLASS_BULK];
    for (let k = 0; k < 4; k++) {
      client.sendBurst([up(i + k, 60 + (i * 37 + k) % 700)], classes[k]);
      server.sendBurst([udpPacket("8.8.8.8", "10.66.0.2", payload(i + k, 60))], classes[k]);
      world.runFor(150);
    }
  }
  world.runFor(SECOND);
  for (const host of [client, server]) {
    const got = numbers(host);
    assertEquals(new Set(got).size, got.length, "once");
    // What went to the old address until the new one had answered is lost.
    assertGreater(got.length, (host === client ? 0.75 : 0.95) * total);
    assertGreater(host.metrics.get("datagrams_saved"), 100);
    assertEquals(host.metrics.dropped("malformed_inner") + host.metrics.dropped("forged"), 0);
  }
});

Deno.test(`batch: a hundred peers share one relay, each with batches of its own (seed ${SEED})`, () => {
  const world = new World(SEED);
  world.protocol = "oxtunnel";
  world.limits = { ...world.limits, initiationsPerSecond: 5000 };
  const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1", features: 0 });
  const clients = Array.from({ length: 100 }, (_, i) => {
    const ipv4 = `10.66.1.${i}`;
    const client = world.client(`198.51.100.${i}:5555`, server, { ipv4, maxConnections: 4, features: 0 });
    client.send(udpPacket(ipv4, "8.8.8.8", payload(i, 60)));
    return client;
  });
  world.runFor(SECOND);
  assertEquals(server.delivered.length, 100);
  const { free } = server.arena;
  for (let round = 0; round < 60; round++) {
    const packets = Array.from({ length: 200 }, (_, k) => {
      const i = (k * 7 + round) % 100;
      return udpPacket("8.8.8.8", `10.66.1.${i}`, payload(1000 * i + 2 * round + (k < 100 ? 0 : 1), 60));
    });
    server.sendBurst(packets, CLASS_BULK);
    world.runFor(300);
  }
  world.runFor(SECOND);
  clients.forEach((client, i) => {
    assertEquals(numbers(client), Array.from({ length: 120 }, (_, n) => 1000 * i + n));
  });
  assertGreater(server.metrics.get("packets_held"), 4000);
  assertEquals(server.arena.free, free);
});

Deno.test(`batch: what an earlier node has made a frame of is joined as it is (seed ${SEED})`, () => {
  for (const framed of [[true, false, true], [false, true], [true], [false, true, false], [true, true]]) {
    const { world, client, server, sent } = connected();
    // deno-lint-ignore no-explicit-any
    const session = (client.core as any).peers.current[0];
    const burst = new Burst(client.arena);
    framed.forEach((isFramed, n) => {
      const packet = up(n, 60 + n), row = burst.grow(0, TO_SEAL);
      const at = burst.offset[row];
      const body = isFramed ? writeFrameHead(burst.view, at, FRAME_PACKET, packet.length) : at;
      burst.bytes.set(packet, body);
      burst.length[row] = body + packet.length - at;
      burst.session[row] = session;
      burst.peer[row] = 0;
    });
    client.core.ingestInner(burst, world.nowUs);
    for (let row = 0; row < burst.count; row++) {
      if (burst.next[row] !== TO_TRANSMIT) continue;
      const at = burst.offset[row];
      world.carry(client.endpoint, server.endpoint, burst.bytes.slice(at, at + burst.length[row]));
    }
    burst.release();
    world.runFor(SECOND);
    assertEquals(server.delivered, framed.map((_, n) => up(n, 60 + n)));
    const heads = framed.length - (framed.at(-1) ? 0 : 1);
    assertEquals(sent[0], sum(framed.map((_, n) => 60 + n)) + HEAD * heads + OVERHEAD);
  }
});
