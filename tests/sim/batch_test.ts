/**
 * Batches between a whole client and relay in the deterministic world (PROTOCOL §13): nothing is lost or overtaken,
 * nothing waits past its bound, and what is not bulk does not wait at all. Classes are written by hand, as a
 * classifier would.
 */
import { assert, assertEquals, assertGreater, assertLess } from "@std/assert";
import type { Client } from "../../src/client.ts";
import { CLASS_BULK, CLASS_GAME, CLASS_VOICE } from "../../src/control/traffic_class.ts";
import type { Relay } from "../../src/relay.ts";
import { BATCH_WAIT_US, type TunnelOptions } from "../../src/tunnel.ts";
import { CLEAN, type Host, udpPacket, World } from "./world.ts";

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

Deno.test(`batch: a hundred game packets in bursts of four cost a fifth less, and nothing when off (seed ${SEED})`, () => {
  const bytesWith = (options: Partial<TunnelOptions>) => {
    const { world, client, server, sent } = connected(SEED, options);
    for (let i = 0; i < 100; i += 4) {
      client.sendBurst([0, 1, 2, 3].map((k) => up(i + k, 60)), CLASS_GAME);
    }
    world.runFor(20_000);
    assertEquals(numbers(server), Array.from({ length: 100 }, (_, i) => i));
    server.delivered.forEach((packet, i) => assertEquals(packet, up(i, 60), "byte for byte"));
    return sent;
  };
  const batched = bytesWith({});
  assertEquals(batched.length, 25);
  for (const bytes of batched) assert(bytes <= 4 * 60 + 3 * HEAD + OVERHEAD + 1, `${bytes}`);
  const single = bytesWith({ batchWaitUs: -1 });
  assertEquals(single.length, 100);
  assertLess(sum(batched) + 25 * OUTER, 0.7 * (sum(single) + 100 * OUTER));
});
