/**
 * How paths of a session begin and end between whole clients and relays in the deterministic world (PROTOCOL §17): doors that open, close
 * and lead elsewhere, numbers and ids that are used once, and what is taken and given back. Each failure names its seed.
 */
import { assert, assertEquals, assertGreater, assertNotEquals } from "@std/assert";
import { CLASS_GAME } from "../../src/control/traffic_class.ts";
import { furtherPaths, sessionRows } from "../../src/tunnel_options.ts";
import { Path } from "../kit/channels.ts";
import { sessionOf } from "../kit/inside.ts";
import { udpPacket } from "../kit/packets.ts";
import { FIRST, inTwoNetworks, RELAY, SECOND } from "../kit/two_networks.ts";
import { World } from "../kit/world.ts";

const SEED = Number(Deno.env.get("SIM_SEED") ?? 1);
const SECOND_US = 1_000_000;

const up = (bytes = 100) => udpPacket("10.66.0.2", "8.8.8.8", new Uint8Array(bytes));
const down = (bytes = 100) => udpPacket("8.8.8.8", "10.66.0.2", new Uint8Array(bytes));

Deno.test(`paths: with an end of before, or switched off, there is one path, and all goes on it (seed ${SEED})`, () => {
  for (const [ours, theirs] of [[true, false], [false, true], [false, false]]) {
    const world = new World(SEED);
    world.protocol = "oxtunnel";
    const server = world.relay(RELAY, { ipv4: "10.66.0.1", hasSeveralPaths: theirs });
    const client = world.client(FIRST, server, { ipv4: "10.66.0.2", hasSeveralPaths: ours });
    client.doors.set(1, SECOND);
    const from = new Set<string>();
    world.tap = (sender, _to, bytes) => {
      from.add(sender);
      return bytes;
    };
    client.core.addDoor(1, false, world.nowUs);
    for (let i = 0; i < 20; i++) {
      client.sendBurst([up()], CLASS_GAME);
      server.sendBurst([down()], CLASS_GAME);
      world.runFor(100_000);
    }
    client.core.dropDoor(1);
    assertEquals([server.delivered.length, client.delivered.length], [20, 19]);
    assertEquals([...from].toSorted(), [RELAY, FIRST]);
  }
});

Deno.test(`paths: doors that open and close leave nothing behind, and numbers are used once (seed ${SEED})`, () => {
  const { world, client, server } = inTwoNetworks(SEED);
  client.send(up());
  world.runFor(SECOND_US);
  const rows = () =>
    [client, server].map((host) => {
      host.tick();
      return host.metrics.get("sessions");
    });
  world.runFor(2 * SECOND_US);
  const before = rows();
  for (let i = 1; i <= 9; i++) {
    client.core.addDoor(1, false, world.nowUs);
    client.tick();
    world.runFor(SECOND_US);
    const { pathSet } = sessionOf(client), theirs = sessionOf(server).pathSet;
    // Numbers 1 to 7 are all that a session has, and the next one has them again.
    const [way] = [...pathSet.ways()];
    assertEquals(way?.pathNumber, i <= 7 ? i : i - 7, `opened ${i} times`);
    assertEquals(client.metrics.get("handshakes_completed"), i <= 7 ? 1 : 2);
    assertEquals(theirs.rows.length, pathSet.rows.length);
    client.sendBurst([up()], CLASS_GAME);
    world.runFor(SECOND_US);
    assertEquals(server.delivered.length, 1 + i);
    client.core.dropDoor(1);
    client.tick();
    world.runFor(2 * SECOND_US);
    assertEquals(theirs.rows.length, 0);
  }
  assertEquals(rows(), before);
  assertEquals(sessionOf(client).host.furtherPathsLeft, sessionOf(server).host.furtherPathsLeft);
  assertEquals(sessionOf(server).host.furtherPathsLeft, 1024);
});

Deno.test("paths: what a small relay's sessions take for paths leaves the rows of handshakes alone", () => {
  assertEquals(furtherPaths(1), 6);
  assertEquals(sessionRows(1, true), 12 + 256 + 4 * 6);
  assertEquals(furtherPaths(1000), 1024);
  assertEquals(sessionRows(1000, true), 12_000 + 256 + 4 * 1024);
  assertEquals(sessionRows(1000, false), 4000 + 256);
});

Deno.test(`paths: doors that take the places of others have paths of their own (seed ${SEED})`, () => {
  const { world, client, server } = inTwoNetworks(SEED);
  for (let door = 1; door <= 6; door++) client.doors.set(door, `203.0.113.${door}:7777`);
  for (let door = 1; door <= 3; door++) client.core.addDoor(door, false, world.nowUs);
  client.send(up());
  world.runFor(3 * SECOND_US);
  for (let door = 1; door <= 3; door++) client.core.dropDoor(door);
  for (let door = 4; door <= 6; door++) client.core.addDoor(door, false, world.nowUs);
  client.tick();
  world.runFor(3 * SECOND_US);
  for (const host of [client, server]) {
    const ways = [...sessionOf(host).pathSet.ways()];
    assertEquals(
      ways.map(({ pathNumber, isValidated }) => [pathNumber, isValidated]),
      [4, 5, 6].map((n) => [n, true]),
    );
  }
});

Deno.test(`paths: a door that leads to another network is asked under other ids, and used when it has answered (seed ${SEED})`, () => {
  const { world, client, server } = inTwoNetworks(SEED);
  const addressOf = new Map<string, string>();
  let isAnswering = true;
  world.tap = (from, to, bytes) => {
    if (bytes[0] >= 0x80) return bytes;
    const id = bytes.slice(1, 5).toHex(), pair = `${from} ${to}`;
    assertEquals(addressOf.get(id) ?? pair, pair, "an id on two networks");
    addressOf.set(id, pair);
    return isAnswering || to === FIRST || from === FIRST ? bytes : undefined;
  };
  client.send(up());
  world.runFor(SECOND_US);
  for (let i = 0; i < 12; i++) {
    client.doors.set(1, `203.0.113.${i}:7777`);
    isAnswering = i % 3 !== 2;
    client.core.addDoor(1, false, world.nowUs);
    client.tick();
    for (let j = 0; j < 20; j++) {
      client.sendBurst([up()], CLASS_GAME);
      server.sendBurst([down()], CLASS_GAME);
      world.runFor(50_000);
    }
    const copies = client.metrics.get("copies_sent");
    client.sendBurst([up()], CLASS_GAME);
    assertEquals(client.metrics.get("copies_sent") - copies, isAnswering ? 1 : 0, `network ${i}`);
  }
  world.runFor(SECOND_US);
  assertEquals(server.delivered.length, 1 + 12 * 21);
  assertEquals(client.delivered.length, 12 * 20);
});

Deno.test(`paths: nothing is said on a path whose door leads to a network that has not answered (seed ${SEED})`, () => {
  const { world, client } = inTwoNetworks(SEED);
  client.core.addDoor(1, false, world.nowUs);
  client.send(up());
  world.runFor(2 * SECOND_US);
  const isDead = (at: string) => at !== RELAY && at !== SECOND;
  world.tap = (from, to, bytes) => {
    assert(!to.endsWith(":0"), "a datagram to nowhere");
    return isDead(from) || isDead(to) || from === FIRST || to === FIRST ? undefined : bytes;
  };
  const play = () => {
    for (let i = 0; i < 50; i++) {
      client.sendBurst([up()], CLASS_GAME);
      world.runFor(20_000);
    }
  };
  play();
  const { pathSet, row } = sessionOf(client);
  assertNotEquals(pathSet.real, row, "the first path is silent");
  client.doors.set(1, "203.0.113.77:7777");
  client.core.addDoor(1, true, world.nowUs);
  client.tick();
  play();
  assertEquals(pathSet.real, row);
});

Deno.test(`paths: a path stays at its door, whichever one a datagram came through (seed ${SEED})`, () => {
  const { world, client, server } = inTwoNetworks(SEED);
  client.core.addDoor(1, false, world.nowUs);
  client.send(up());
  world.runFor(2 * SECOND_US);
  const idsOf = new Map([[FIRST, new Set<string>()], [SECOND, new Set<string>()]]);
  // Somebody on the way leads what is for the first network to the second one.
  world.tap = (from, to, bytes) => {
    if (to === FIRST) client.receive(bytes, RELAY, undefined, 1);
    idsOf.get(from)?.add(bytes.slice(1, 5).toHex());
    return to === FIRST ? undefined : bytes;
  };
  for (let i = 0; i < 20; i++) {
    server.sendBurst([down()], CLASS_GAME);
    client.sendBurst([up()], CLASS_GAME);
    world.runFor(20_000);
  }
  assertEquals(client.delivered.length, 20);
  assertGreater(idsOf.get(FIRST)!.size, 0);
  assert(idsOf.get(FIRST)!.isDisjointFrom(idsOf.get(SECOND)!), "an id on two networks");
});

Deno.test(`paths: what was asked for in vain from one network is not asked under that id from the next (seed ${SEED})`, () => {
  const { world, client } = inTwoNetworks(SEED);
  const networkOf = new Map<string, string>();
  world.tap = (from, _to, bytes) => {
    if (bytes[0] >= 0x80 || from === FIRST || from === RELAY) return bytes;
    const id = bytes.slice(1, 5).toHex();
    assertEquals(networkOf.get(id) ?? from, from, "an id from two networks");
    networkOf.set(id, from);
    return from.startsWith("203.0.113.2:") ? bytes : undefined; // the others are portals that pass nothing on
  };
  client.send(up());
  world.runFor(SECOND_US);
  for (let i = 0; i < 3; i++) {
    client.doors.set(1, `203.0.113.${i}:7777`);
    client.core.addDoor(1, false, world.nowUs);
    client.tick();
    world.runFor(300_000); // before the three challenges are over
  }
  world.runFor(SECOND_US);
  assert(networkOf.size >= 3, `${networkOf.size} ids`);
  client.sendBurst([up()], CLASS_GAME);
  assertEquals(client.metrics.get("copies_sent"), 1, "the last one answers");
});

Deno.test(`paths: four at a time, each with its own sizes and round trips (seed ${SEED})`, () => {
  const { world, client, server } = inTwoNetworks(SEED);
  const ways = new Map<string, Path>([[FIRST, new Path(10_000)]]);
  for (let door = 1; door <= 5; door++) {
    const at = `203.0.113.${door}:7777`;
    client.doors.set(door, at);
    ways.set(at, new Path(10_000 * (door + 1)));
    client.core.addDoor(door, false, world.nowUs);
  }
  world.pathOf = (from, to) => ways.get(from) ?? ways.get(to);
  client.send(up());
  world.runFor(5 * SECOND_US);
  for (let i = 0; i < 50; i++) {
    client.sendBurst([up()], CLASS_GAME);
    server.sendBurst([down()], CLASS_GAME);
    world.runFor(100_000);
  }
  assertEquals([server.delivered.length, client.delivered.length], [51, 50]);
  for (const host of [client, server]) {
    assertEquals(sessionOf(host).pathSet.rows.length, 3, "three beside the first");
  }
  const { pathSet, rttUs } = sessionOf(client);
  const trips = [...pathSet.ways()].map((way: { rttUs: number; size: { bytes: number } }) => way.rttUs);
  assertEquals([rttUs, ...trips].map((us) => Math.round(us / 1000)), [20, 40, 60, 80]);
  for (const way of pathSet.ways()) assertEquals(way.size.bytes, 1445);
});
