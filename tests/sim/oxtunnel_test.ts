/**
 * OxTunnel between whole relays and clients in the deterministic world: what relay_test.ts holds of WireGuard, and
 * what only OxTunnel has: epochs inside the session, reports, pings, paths. Each failure names its seed.
 */
import { assert, assertEquals, assertGreater } from "@std/assert";
import type { Client } from "../../src/client.ts";
import type { Relay } from "../../src/relay.ts";
import { CLEAN, type Host, udpPacket, World } from "./world.ts";

const SECOND = 1_000_000;
const SEED = Number(Deno.env.get("SIM_SEED") ?? 1);

function oxWorld(seed = SEED): World {
  const world = new World(seed);
  world.protocol = "oxtunnel";
  return world;
}

function pair(world: World, keepaliveS = 0): { client: Host<Client>; server: Host<Relay> } {
  const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1" });
  const client = world.client("198.51.100.7:5555", server, { ipv4: "10.66.0.2", keepaliveS });
  return { client, server };
}

function payload(n: number): Uint8Array {
  const bytes = new Uint8Array(100);
  new DataView(bytes.buffer).setUint32(0, n);
  return bytes;
}

function numbers(host: Host): number[] {
  return host.delivered.map((packet) => new DataView(packet.buffer).getUint32(28));
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
