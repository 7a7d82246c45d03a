/**
 * What a relay counts of a datagram that it drops: once, under the one reason, and what it counts of all: datagrams, bytes,
 * packets to the exit. Each datagram is handed in alone, and every counter is compared.
 */
import { assert, assertEquals } from "@std/assert";
import { type CounterName, DROP_REASONS, type DropLabel } from "../../src/metrics.ts";
import type { Client } from "../../src/client.ts";
import type { Relay } from "../../src/relay.ts";
import { CLOSED, type Host, pair, World } from "../kit/world.ts";
import { ipv6Packet, payload, udpPacket } from "../kit/packets.ts";

const SECOND = 1_000_000;
const STRANGER = "203.0.113.66:1";
const SEED = Number(Deno.env.get("SIM_SEED") ?? 1);

type Counts = Record<string, number>;

function drops(host: Host): Counts {
  const counts: Counts = {};
  for (const [label] of DROP_REASONS) {
    const dropped = host.metrics.dropped(label);
    if (dropped > 0) counts[label] = dropped;
  }
  return counts;
}

function difference(after: Counts, before: Counts): Counts {
  const more: Counts = {};
  for (const [label, count] of Object.entries(after)) {
    if (count !== (before[label] ?? 0)) more[label] = count - (before[label] ?? 0);
  }
  return more;
}

const COUNTED: CounterName[] = ["datagrams_received", "bytes_received", "packets_to_exit"];

/** Hands one datagram in; what it added to the drops, and to datagrams, bytes and packets to the exit. */
function handIn(
  server: Host<Relay>,
  bytes: Uint8Array,
  from: string,
): { dropped: Counts; counted: number[] } {
  const before = drops(server), counts = COUNTED.map((name) => server.metrics.get(name));
  server.receive(bytes, from);
  return {
    dropped: difference(drops(server), before),
    counted: COUNTED.map((name, i) => server.metrics.get(name) - counts[i]),
  };
}

/** The datagram that the client makes of a packet, kept from the relay. */
function sealed(world: World, client: Host<Client>, packet: Uint8Array): Uint8Array {
  let kept: Uint8Array | undefined;
  const others = world.tap;
  world.tap = (_from, _to, bytes) => (kept ??= bytes.slice(), undefined);
  client.send(packet);
  world.tap = others;
  assert(kept, "the client sent it");
  return kept;
}

function bytesOf(length: number, ...first: number[]): Uint8Array {
  const bytes = new Uint8Array(length).fill(7);
  bytes.set(first);
  return bytes;
}

for (const protocol of ["wireguard", "oxtunnel"] as const) {
  const connect = () => {
    const world = new World(SEED);
    world.protocol = protocol;
    const { client, server } = pair(world);
    client.send(udpPacket("10.66.0.2", "8.8.8.8", payload(1)));
    world.runFor(2 * SECOND);
    assertEquals(server.delivered.length, 1);
    return { world, client, server };
  };

  Deno.test(`sim: ${protocol}: each datagram that is dropped counts once, under its own reason (seed ${SEED})`, () => {
    const { world, client, server } = connect();
    const genuine = () => sealed(world, client, udpPacket("10.66.0.2", "8.8.8.8", payload(2)));
    const sent = genuine(), forged = genuine(), strange = genuine();
    forged[forged.length - 1] ^= 1;
    strange[protocol === "wireguard" ? 4 : 1] ^= 0x55; // the receiver's number
    const cases: [DropLabel, Uint8Array][] = [
      ["too_short", bytesOf(0)],
      ["too_short", bytesOf(5, 4, 0, 0, 0)],
      ["too_short", bytesOf(31, 4, 0, 0, 0)],
      ["bad_type", bytesOf(64, 9, 0, 0, 0)],
      ["bad_length", bytesOf(147, 1, 0, 0, 0)],
      ["bad_length", bytesOf(149, 1, 0, 0, 0)],
      ["bad_length", bytesOf(91, 2, 0, 0, 0)],
      ["bad_length", bytesOf(65, 3, 0, 0, 0)],
      ["bad_length", bytesOf(60, 0xc1, 1)],
      ["bad_length", bytesOf(60, 0xc2, 1)],
      ["bad_length", bytesOf(65, 0xc3, 1)],
      ["bad_mac1", bytesOf(148, 1, 0, 0, 0)],
      ["no_session", bytesOf(64, 4, 0, 0, 0)],
      ["no_session", strange],
      ["forged", forged],
      ["spoofed_inner", sealed(world, client, udpPacket("10.66.0.9", "8.8.8.8", payload(3)))],
      ["spoofed_inner", sealed(world, client, ipv6Packet("fd66::9", "2001:db8::1", new Uint8Array(8)))],
      ["denied", sealed(world, client, udpPacket("10.66.0.2", "127.0.0.1", payload(4)))],
    ];
    if (protocol === "wireguard") {
      const beyond = genuine();
      beyond.fill(0xff, 8, 16); // a counter that no key may reach
      cases.push(["expired", beyond]);
    }
    for (const [i, [reason, bytes]] of cases.entries()) {
      const { dropped, counted } = handIn(server, bytes, i % 2 === 0 ? client.endpoint : STRANGER);
      assertEquals(dropped, { [reason]: 1 }, `${reason}, ${bytes.length} bytes of ${bytes[0]}`);
      assertEquals(counted, [1, bytes.length, 0], reason);
    }
    const passed = handIn(server, sent, client.endpoint);
    assertEquals(passed, { dropped: {}, counted: [1, sent.length, 1] });
    assertEquals(handIn(server, sent, client.endpoint), {
      dropped: { replayed: 1 },
      counted: [1, sent.length, 0],
    });
  });

  Deno.test(`sim: ${protocol}: what comes under keys that are too old is dropped as expired (seed ${SEED})`, () => {
    const { world, client, server } = connect();
    const late = sealed(world, client, udpPacket("10.66.0.2", "8.8.8.8", payload(5)));
    // The relay's own clock has not had its turn, so the session is there still.
    world.nowUs += 24 * 3600 * SECOND;
    assertEquals(handIn(server, late, client.endpoint), {
      dropped: { expired: 1 },
      counted: [1, late.length, 0],
    });
    assertEquals(server.delivered.length, 1);
  });
}

Deno.test(`sim: clients reach each other where the config lets them, and nowhere that it denies (seed ${SEED})`, () => {
  const cases: [allowPeers: boolean, deny: string[], isLed: boolean][] = [
    [true, [], true],
    [false, [], false],
    [true, ["10.66.0.3/32"], false],
  ];
  for (const [allowPeers, deny, isLed] of cases) {
    const world = new World(SEED);
    const server = world.relay("192.0.2.1:4433", {
      ipv4: "10.66.0.1",
      destinations: { ...CLOSED, allowPeers, deny },
    });
    const [client, other] = [2, 3].map((host) =>
      world.client(`198.51.100.${host}:5555`, server, { ipv4: `10.66.0.${host}` })
    );
    for (const one of [client, other]) {
      one.send(udpPacket(one === client ? "10.66.0.2" : "10.66.0.3", "8.8.8.8", payload(1)));
    }
    world.runFor(2 * SECOND);
    const { dropped } = handIn(
      server,
      sealed(world, client, udpPacket("10.66.0.2", "10.66.0.3", payload(2))),
      client.endpoint,
    );
    assertEquals(dropped, isLed ? {} : { denied: 1 }, `${[allowPeers, deny]}`);
    world.runFor(SECOND);
    // What is denied is answered with an ICMP error, to its sender alone.
    assertEquals(other.delivered.length, isLed ? 1 : 0);
  }
});

Deno.test(`sim: the host's own address leads to the exit only by UDP, where clients may reach each other and the exit knows their ports (seed ${SEED})`, () => {
  const HOST = "203.0.113.80";
  const cases: [exitHairpins: boolean, allowPeers: boolean, deny: string[], isLed: boolean][] = [
    [true, true, [], true],
    [true, false, [], false],
    [false, true, [], false],
    [true, true, [`${HOST}/32`], false],
  ];
  for (const [exitHairpins, allowPeers, deny, isLed] of cases) {
    const world = new World(SEED);
    const destinations = { ...CLOSED, allowPeers, deny };
    const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1", exitHairpins, destinations });
    const client = world.client("198.51.100.7:5555", server, { ipv4: "10.66.0.2" });
    client.send(udpPacket("10.66.0.2", "8.8.8.8", payload(1)));
    world.runFor(2 * SECOND);
    server.core.setOwnAddresses([HOST]);
    const led = handIn(
      server,
      sealed(world, client, udpPacket("10.66.0.2", HOST, payload(2))),
      client.endpoint,
    );
    assertEquals(led.dropped, isLed ? {} : { denied: 1 }, `${[exitHairpins, allowPeers, deny]}`);
    assertEquals(led.counted[2], 0, "the exit has not judged yet");
    const tcp = udpPacket("10.66.0.2", HOST, payload(3));
    tcp[9] = 6;
    const denied = handIn(server, sealed(world, client, tcp), client.endpoint);
    assertEquals([denied.dropped, denied.counted[2]], [{ denied: 1 }, 0], "no other protocol");
    assertEquals(server.delivered.length, 1, "and nothing by the ordinary way");
  }
});
