/**
 * Resumption and early data between whole relays and clients in the deterministic world (PROTOCOL §16): a client that comes
 * back says its first packets in its initiation. Held: they arrive once and half a round trip after they were sent; no
 * copy, no other peer's, expired, forged or changed initiation has anything opened; and what was not taken comes again,
 * once. Each failure names its seed.
 */
import { assert, assertEquals, assertGreater } from "@std/assert";
import type { Client, Upstream } from "../../src/client.ts";
import { Client as Core } from "../../src/client.ts";
import type { Relay } from "../../src/relay.ts";
import { type Ticket, TICKET_LIFE_US } from "../../src/session/ox_tickets.ts";
import type { TunnelOptions } from "../../src/tunnel.ts";
import { FEATURE_HYBRID_KEYS, FEATURE_RESUMPTION } from "../../src/wire/parameters.ts";
import { dial, Host, udpPacket, World } from "./world.ts";

const SECOND = 1_000_000;
const SEED = Number(Deno.env.get("SIM_SEED") ?? 1);
const RELAY = "192.0.2.1:4433", HOME = "198.51.100.7:5555", STRANGER = "203.0.113.66:6666";
const INITIATION = 0xc1, RESPONSE = 0xc2;

const up = (n: number, ipv4 = "10.66.0.2") => udpPacket(ipv4, "8.8.8.8", Uint8Array.of(n));
const down = (n: number) => udpPacket("8.8.8.8", "10.66.0.2", Uint8Array.of(n));
const numbers = ({ delivered }: Host) => delivered.map((packet) => packet[28]);
const earlyBytes = (initiation: Uint8Array) => initiation[2] | (initiation[3] << 8);

/** A client that has been connected for a while, and so has a ticket. */
function setting(options: { features?: number } = {}) {
  const world = new World(SEED);
  world.protocol = "oxtunnel";
  const privateKey = new Uint8Array(32).fill(7);
  const server = world.relay(RELAY, { ipv4: "10.66.0.1", ...options });
  const client = world.client(HOME, server, { ipv4: "10.66.0.2", privateKey, ...options });
  client.send(up(0));
  world.runFor(2 * SECOND);
  assertEquals(numbers(server), [0]);
  server.delivered.length = 0;
  /** Initiations and responses from here on, in their order. */
  const seen: Uint8Array[] = [];
  world.tap = (_from, _to, bytes) => {
    if (bytes[0] === INITIATION || bytes[0] === RESPONSE) seen.push(bytes.slice());
    return bytes;
  };
  return { world, server, client, privateKey, seen };
}

/** The device of `setting` begins anew, with nothing but its keys and perhaps a ticket. */
function comeBack(
  world: World,
  relay: Host<Relay>,
  ticket: Ticket | undefined,
  privateKey: Uint8Array,
  endpoint = "198.51.100.8:1234",
): Host<Client> {
  const upstream: Upstream = { publicKey: relay.publicKey, protocol: "oxtunnel", ticket };
  const make = (all: TunnelOptions) => new Core(all, upstream);
  const host = new Host(world, endpoint, { ipv4: "10.66.0.2", privateKey }, make);
  world.hosts.push(host);
  host.core.connect("192.0.2.1", 4433, world.nowUs, true);
  host.tick();
  return host;
}

Deno.test(`ticket: a client that slept says its first packets with its initiation, half a round trip away (seed ${SEED})`, () => {
  const { world, server, client, seen } = setting();
  world.runFor(600 * SECOND);
  assertEquals(client.core.sessionSnapshots(world.nowUs), [], "the keys have run out");
  client.send(up(1));
  assertEquals(seen.length, 1);
  assertGreater(earlyBytes(seen[0]), 16);
  world.runFor(19_999);
  assertEquals(numbers(server), []);
  world.runFor(1);
  assertEquals(numbers(server), [1], "with the initiation, after 20 ms of 40");
  // The answer waits until the client has shown its keys, and goes nowhere else meanwhile.
  server.send(down(2));
  client.send(up(3));
  world.runFor(SECOND);
  assertEquals(numbers(server), [1, 3], "once");
  assertEquals(numbers(client), [2]);
  assertEquals(seen.length, 2, "one handshake, begun by the client");
  assert(seen[1].length <= seen[0].length, "no answer is longer than its question");
});

Deno.test(`ticket: a new client with the last one's ticket needs no round trip either, and without needs one (seed ${SEED})`, () => {
  for (const isTold of [true, false]) {
    const { world, server, client, privateKey } = setting();
    const { ticket } = client.core;
    assert(ticket);
    client.core.close();
    world.runFor(SECOND);
    const again = comeBack(world, server, isTold ? ticket : undefined, privateKey);
    again.send(up(1));
    again.send(up(2));
    world.runFor(20_000);
    assertEquals(numbers(server), isTold ? [1] : []);
    world.runFor(SECOND);
    assertEquals(numbers(server).toSorted(), [1, 2]);
    // The relay had the old session still, which nobody hears any more.
    server.send(down(9));
    world.runFor(SECOND);
    assertEquals(numbers(again), [9]);
    assert(again.core.ticket, "it is given the next one");
  }
});
