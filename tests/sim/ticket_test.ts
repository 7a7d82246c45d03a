/**
 * Resumption and early data between whole relays and clients in the deterministic world (PROTOCOL §16): a client that comes
 * back says its first packets in its initiation. Held: they arrive once and half a round trip after they were sent; no
 * copy, no other peer's, expired, forged or changed initiation has anything opened; and what was not taken comes again,
 * once. Each failure names its seed.
 * Long because every way to come back with a ticket starts from one relay and one return.
 */
import { assert, assertEquals, assertGreater } from "@std/assert";
import { Client, FIRST_PACKET_US, type Upstream } from "../../src/client.ts";
import type { Relay } from "../../src/relay.ts";
import { type Ticket, TICKET_LIFE_US } from "../../src/session/oxtunnel/tickets.ts";
import type { TunnelOptions } from "../../src/tunnel_options.ts";
import { Burst, TO_EXIT, TO_PARSE } from "../../src/vector/burst.ts";
import { FEATURE_HYBRID_KEYS, FEATURE_RESUMPTION } from "../../src/wire/parameters.ts";
import { initiationOf, signed } from "../kit/early_peer.ts";
import { Host, World } from "../kit/world.ts";
import { udpPacket } from "../kit/packets.ts";

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

/** Hands datagrams to the client in one burst; the steps that they leave with. */
function ingest({ arena, core, world }: Host, ...datagrams: Uint8Array[]): number[] {
  const burst = new Burst(arena);
  for (const bytes of datagrams) {
    const row = burst.grow(bytes.length, TO_PARSE);
    burst.bytes.set(bytes, burst.offset[row]);
  }
  core.ingest(burst, world.nowUs);
  const steps = [...burst.next.subarray(0, burst.count)];
  burst.release();
  return steps;
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
  const make = (all: TunnelOptions) => new Client(all, upstream);
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
  server.send(down(2));
  client.send(up(3));
  world.runFor(20_000);
  assertEquals(numbers(client), [2], "one round trip for question and answer");
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
    // The relay has the old session still, which nobody hears any more.
    if (isTold) server.send(down(8));
    world.runFor(SECOND);
    assertEquals(numbers(server).toSorted(), [1, 2]);
    server.send(down(9));
    world.runFor(SECOND);
    assertEquals(numbers(again), isTold ? [8, 9] : [9]);
    assert(again.core.ticket, "it is given the next one");
  }
});

Deno.test(`ticket: a client that has nothing to say waits for its first packet a moment, and not for ever (seed ${SEED})`, () => {
  const { world, server, client, privateKey, seen } = setting();
  const { ticket } = client.core;
  client.core.close();
  world.hosts.splice(world.hosts.indexOf(client), 1);
  world.runFor(SECOND);
  seen.length = 0;
  comeBack(world, server, undefined, privateKey).core.close();
  assertEquals(seen.map(([kind]) => kind), [INITIATION], "without a ticket it does not wait");
  world.hosts.pop();
  world.runFor(SECOND);
  seen.length = 0;
  const again = comeBack(world, server, ticket, privateKey);
  world.runFor(FIRST_PACKET_US - 1);
  assertEquals(seen, [], "nothing was sent yet");
  again.core.connect("192.0.2.1", 4433, world.nowUs, true);
  world.runFor(1);
  assertEquals(
    seen.map((bytes) => [bytes[0], earlyBytes(bytes)]),
    [[INITIATION, 0]],
    "asked again it waits no longer",
  );
  world.runFor(SECOND);
  const [session] = again.core.sessionSnapshots(world.nowUs);
  assert(session);
  again.send(up(1));
  world.runFor(20_000);
  assertEquals(numbers(server), [1]);
  // With a session that carries packets there is nothing to wait for.
  world.runFor(10 * SECOND);
  seen.length = 0;
  again.core.connect("192.0.2.1", 4433, world.nowUs, true);
  again.tick();
  assertEquals(seen.map(([kind]) => kind), [INITIATION]);
});

Deno.test(`ticket: a relay that has moved gets the first packet with the initiation (seed ${SEED})`, () => {
  const { world, server, client, seen } = setting();
  world.runFor(600 * SECOND);
  const { tap } = world;
  world.tap = () => undefined;
  client.send(up(1)); // nobody is there any more
  world.tap = tap;
  seen.length = 0;
  server.endpoint = "192.0.2.1:4434";
  client.core.connect("192.0.2.1", 4434, world.nowUs, true);
  client.send(up(2));
  assertEquals(seen.map((bytes) => bytes[0]), [INITIATION]);
  assertGreater(earlyBytes(seen[0]), 16);
  world.runFor(20_000);
  assertEquals(numbers(server), [2], "half a round trip after it was sent");
});

/** Sends packet 1 early, and gives the initiation that carried it. */
function resume(options: { features?: number } = {}) {
  const all = setting(options);
  all.world.runFor(600 * SECOND);
  all.client.send(up(1));
  return { ...all, initiation: all.seen[0] };
}

Deno.test(`ticket: without resumption at either end the same packet takes a round trip more (seed ${SEED})`, () => {
  const { world, server, client, seen } = setting({ features: FEATURE_HYBRID_KEYS });
  assertEquals(client.core.ticket, undefined);
  world.runFor(600 * SECOND);
  client.send(up(1));
  assertEquals(earlyBytes(seen[0]), 0);
  world.runFor(59_999);
  assertEquals(numbers(server), []);
  world.runFor(1);
  assertEquals(numbers(server), [1]);
});

Deno.test(`ticket: a copy of the initiation opens nothing again, from wherever it comes (seed ${SEED})`, () => {
  const { world, server, initiation } = resume();
  world.runFor(SECOND);
  assertEquals(numbers(server), [1]);
  for (let i = 0; i < 5; i++) {
    server.receive(initiation, i % 2 ? HOME : STRANGER);
    world.runFor(SECOND);
  }
  assertEquals(numbers(server), [1]);
  assertEquals(server.metrics.dropped("handshake_replay"), 5);
});

Deno.test(`ticket: nor at another Worker of the relay (seed ${SEED})`, () => {
  const world = new World(SEED);
  world.protocol = "oxtunnel";
  const relays = world.relayOf(2, RELAY, { ipv4: "10.66.0.1" });
  world.steer = (bytes) => bytes[0] < 0x80 ? bytes[4] >>> 4 : 0;
  const client = world.client(HOME, relays[0], { ipv4: "10.66.0.2" });
  client.send(up(0));
  world.runFor(600 * SECOND);
  let initiation: Uint8Array | undefined;
  world.tap = (_from, _to, bytes) => {
    if (bytes[0] === INITIATION) initiation ??= bytes.slice();
    return bytes;
  };
  client.send(up(1));
  world.runFor(20_000);
  const got = () => relays.flatMap(numbers);
  assertEquals(got(), [0, 1], "whichever Worker it came to, the owner opened it");
  world.runFor(SECOND);
  for (const relay of relays) relay.receive(initiation!, STRANGER);
  world.runFor(SECOND);
  assertEquals(got(), [0, 1]);
  assertEquals(relays.reduce((sum, { metrics }) => sum + metrics.dropped("handshake_replay"), 0), 2);
});

Deno.test(`ticket: nor after the relay was restarted, which then answers without it (seed ${SEED})`, () => {
  const world = new World(SEED);
  world.protocol = "oxtunnel";
  const privateKey = new Uint8Array(32).fill(9);
  const before = world.relay(RELAY, { ipv4: "10.66.0.1", privateKey });
  const client = world.client(HOME, before, { ipv4: "10.66.0.2" });
  client.send(up(0));
  world.runFor(600 * SECOND);
  before.core.close();
  world.hosts.splice(world.hosts.indexOf(before), 1);
  const after = world.relay(RELAY, { ipv4: "10.66.0.1", privateKey });
  after.core.addPeer({ name: "laptop", publicKey: client.publicKey, allowedIps: ["10.66.0.2/32"] });
  const sizes: number[] = [];
  let initiation: Uint8Array | undefined;
  world.tap = (_from, _to, bytes) => {
    if (bytes[0] >= INITIATION) sizes.push(bytes.length);
    if (bytes[0] === INITIATION) initiation ??= bytes.slice();
    return bytes;
  };
  client.send(up(1));
  world.runFor(59_999);
  assertEquals(numbers(after), [], "the ticket is worth nothing here");
  world.runFor(1);
  assertEquals(numbers(after), [1], "so the packet goes again, under epoch 0");
  world.runFor(5 * SECOND);
  after.receive(initiation!, STRANGER);
  world.runFor(5 * SECOND);
  assertEquals(numbers(after), [1], "once");
  assert(sizes[1] <= sizes[0]);
  assertEquals(sizes.length, 2, "one handshake");
});

Deno.test(`ticket: what is not taken goes again once, what was not answered at most once more (seed ${SEED})`, () => {
  for (const [lost, expected] of [[INITIATION, [1]], [RESPONSE, [1, 1]]] as const) {
    const all = setting();
    const { world, server, client, seen } = all;
    world.runFor(600 * SECOND);
    let left = 1;
    const tap = world.tap!;
    world.tap = (from, to, bytes) => bytes[0] === lost && left-- > 0 ? undefined : tap(from, to, bytes);
    client.send(up(1));
    world.runFor(5 * SECOND);
    assertEquals(numbers(server), [...expected]);
    assertEquals(earlyBytes(seen.findLast((bytes) => bytes[0] === INITIATION)!), 0, "in one initiation only");
    client.send(up(2));
    world.runFor(SECOND);
    assertEquals(numbers(server), [...expected, 2]);
  }
});

Deno.test(`ticket: the client of a relay that asks for cookies says its packet once (seed ${SEED})`, () => {
  const { world, server, client, initiation } = (() => {
    const all = setting();
    all.world.runFor(600 * SECOND);
    // Sound but for the timestamp: load, and nothing else.
    const flood = initiationOf(all.world, all.server, new Uint8Array(32).fill(5), {}, undefined);
    for (let i = 0; i < 400; i++) all.server.receive(flood, STRANGER);
    all.client.send(up(1));
    return { ...all, initiation: all.seen.findLast((bytes) => bytes[0] === INITIATION)! };
  })();
  assertGreater(earlyBytes(initiation), 0);
  const cookies = server.metrics.get("cookie_replies_sent");
  world.runFor(20_000);
  assertEquals(server.metrics.get("cookie_replies_sent"), cookies + 1);
  assertEquals(numbers(server), []);
  world.runFor(5 * SECOND);
  assertEquals(numbers(server), [1]);
  client.send(up(2));
  world.runFor(SECOND);
  assertEquals(numbers(server), [1, 2]);
});

Deno.test(`ticket: another peer's is worth nothing (seed ${SEED})`, () => {
  const { world, server, client } = setting();
  const thief = new Uint8Array(32).fill(11);
  const upstream: Upstream = {
    publicKey: server.publicKey,
    protocol: "oxtunnel",
    ticket: client.core.ticket,
  };
  const host = new Host(
    world,
    STRANGER,
    { ipv4: "10.66.0.9", privateKey: thief },
    (all) => new Client(all, upstream),
  );
  world.hosts.push(host);
  server.core.addPeer({ name: "thief", publicKey: host.publicKey, allowedIps: ["10.66.0.9/32"] });
  host.core.connect("192.0.2.1", 4433, world.nowUs, true);
  host.send(up(5, "10.66.0.9"));
  world.runFor(59_999);
  assertEquals(numbers(server), []);
  world.runFor(1);
  assertEquals(numbers(server), [5], "it has come in by its own handshake");
});

Deno.test(`ticket: one that has expired opens nothing, one of the key before the present does (seed ${SEED})`, () => {
  const { world, server, client, privateKey } = setting();
  const { ticket } = client.core;
  client.core.close();
  world.hosts.splice(world.hosts.indexOf(client), 1);
  const early = { plaintext: up(1), ticketSecret: ticket!.secret };
  world.runFor(TICKET_LIFE_US - 5 * SECOND);
  server.receive(initiationOf(world, server, privateKey, { ticket: ticket!.bytes }, early), HOME);
  assertEquals(numbers(server), [1]);
  world.runFor(5 * SECOND);
  server.receive(initiationOf(world, server, privateKey, { ticket: ticket!.bytes }, early), HOME);
  assertEquals(numbers(server), [1]);
  // The client knows, and does not even try.
  const again = comeBack(world, server, ticket, privateKey);
  const seen: number[] = [];
  world.tap = (_from, _to, bytes) => (seen.push(bytes[0] === INITIATION ? earlyBytes(bytes) : -1), bytes);
  again.send(up(2));
  assertEquals(seen, [0]);
  assertEquals(again.core.ticket, undefined, "it is overwritten");
});

Deno.test(`ticket: a removed peer's is worth nothing, also when it is added again (seed ${SEED})`, () => {
  const { world, server, client, initiation } = resume();
  world.runFor(SECOND);
  assertEquals(numbers(server), [1]);
  const record = { name: "laptop", publicKey: client.publicKey, allowedIps: ["10.66.0.2/32"] };
  assert(server.core.removePeer(client.publicKey));
  server.receive(initiation, STRANGER);
  assertEquals(server.metrics.dropped("unknown_peer"), 1);
  server.core.addPeer(record);
  // Its timestamps are forgotten, so the old initiation is answered; but its ticket was the removed one's.
  server.receive(initiation, STRANGER);
  world.runFor(SECOND);
  assertEquals(numbers(server), [1]);
});

Deno.test(`ticket: forged in any byte it opens nothing, and the handshake goes on (seed ${SEED})`, () => {
  const { world, server, client, privateKey } = setting();
  const ticket = client.core.ticket!;
  const early = { plaintext: up(1), ticketSecret: ticket.secret };
  let answers = 0;
  world.tap = (_from, _to, bytes) => {
    if (bytes[0] === RESPONSE) answers++;
    return bytes;
  };
  const say = (bytes: Uint8Array, secret = ticket.secret) => {
    const message = initiationOf(world, server, privateKey, { ticket: bytes }, {
      ...early,
      ticketSecret: secret,
    });
    server.receive(message, HOME);
    world.runFor(SECOND);
  };
  for (let at = 0; at < ticket.bytes.length; at++) {
    say(ticket.bytes.map((byte, i) => i === at ? byte ^ 1 : byte));
  }
  say(ticket.bytes.subarray(1));
  say(Uint8Array.of(...ticket.bytes, 0));
  say(ticket.bytes, new Uint8Array(32));
  assertEquals(numbers(server), []);
  assertEquals(answers, ticket.bytes.length + 3);
  say(ticket.bytes);
  assertEquals(numbers(server), [1]);
});

Deno.test(`ticket: early data that was changed, cut or enlarged on its way opens nothing (seed ${SEED})`, () => {
  const changes: ((initiation: Uint8Array) => Uint8Array)[] = [
    (bytes) => bytes.map((byte, i) => i === bytes.length - 40 ? byte ^ 1 : byte),
    (bytes) => bytes.map((byte, i) => i === bytes.length - 32 - earlyBytes(bytes) ? byte ^ 1 : byte),
    // The field that says how long it is, down, up and to nothing, in a message that stays or shrinks or grows with it.
    (bytes) => bytes.map((byte, i) => i === 2 ? byte - 1 : byte),
    (bytes) => bytes.map((byte, i) => i === 2 ? byte + 1 : byte),
    (bytes) => bytes.map((byte, i) => i === 2 ? 0 : byte),
    (bytes) =>
      Uint8Array.of(...bytes.subarray(0, 2), bytes[2] + 1, ...bytes.subarray(3, -32), ...new Uint8Array(33)),
    (bytes) =>
      Uint8Array.of(...bytes.subarray(0, 2), bytes[2] - 1, ...bytes.subarray(3, -33), ...new Uint8Array(32)),
    (bytes) =>
      Uint8Array.of(
        ...bytes.subarray(0, 2),
        0,
        0,
        ...bytes.subarray(4, -32 - earlyBytes(bytes)),
        ...new Uint8Array(32),
      ),
  ];
  for (const [i, change] of changes.entries()) {
    const { world, server, client } = setting();
    world.runFor(600 * SECOND);
    let left = 1;
    world.tap = (_from, to, bytes) =>
      to === RELAY && bytes[0] === INITIATION && left-- > 0 ? signed(server, change(bytes.slice())) : bytes;
    client.send(up(1));
    world.runFor(100_000);
    assertEquals(numbers(server), [], `change ${i}`);
    world.runFor(5 * SECOND);
    assertEquals(numbers(server), [1], `change ${i}: by the next handshake`);
  }
});

Deno.test(`ticket: packets that come early are judged like any, and nothing else is heard (seed ${SEED})`, () => {
  const { world, server, client, privateKey } = setting();
  const ticket = client.core.ticket!;
  client.core.close();
  const frame = (kind: number, body: Uint8Array) =>
    Uint8Array.of(0x80 | (kind << 3) | (body.length >> 8), body.length, ...body);
  const say = (...plaintext: Uint8Array[]) => {
    server.delivered.length = 0;
    const early = {
      plaintext: Uint8Array.from(plaintext.flatMap((part) => [...part])),
      ticketSecret: ticket.secret,
    };
    server.receive(initiationOf(world, server, privateKey, { ticket: ticket.bytes }, early), HOME);
    world.runFor(SECOND);
    return numbers(server);
  };
  assertEquals(say(frame(0, up(1)), frame(0, up(2)), up(3)).toSorted(), [1, 2, 3]);
  assertEquals(say(up(4, "10.66.0.99")), [], "another's source");
  assertEquals(say(udpPacket("10.66.0.2", "192.168.1.1", Uint8Array.of(5))), [], "a closed destination");
  assertEquals(say(up(6).subarray(0, 20)), [], "cut");
  assertEquals(say(frame(0, up(7)), Uint8Array.of(0x20)), [7], "what came before a malformed frame stands");
  const made = server.metrics.get("epochs_made");
  const ping = frame(2, Uint8Array.of(1, 1, 2, 3, 4)), close = frame(2, Uint8Array.of(9, 1, 0, 0));
  const request = frame(2, Uint8Array.of(8, 0, 1, 0, 0, 0, 32, 0, 0, 0, ...new Uint8Array(32).fill(9)));
  const answers = new Set<number>(), malformed = server.metrics.dropped("malformed_inner");
  world.tap = (from, _to, bytes) => (from === RELAY && answers.add(bytes[0]), bytes);
  assertEquals(say(ping, close, request, frame(9, Uint8Array.of(1)), up(8)), [8]);
  assertEquals(server.metrics.dropped("malformed_inner"), malformed);
  assertEquals(
    answers.has(RESPONSE) && [...answers].every((kind) => kind >= INITIATION),
    true,
    "handshakes only",
  );
  assertEquals(server.metrics.get("epochs_made"), made);
  assertEquals(server.core.sessionSnapshots(world.nowUs).filter(({ epoch }) => epoch === "next").length, 1);
});

Deno.test(`ticket: none is sent before ML-KEM has had its part, where it was accepted (seed ${SEED})`, () => {
  for (
    const [features, expected] of [[FEATURE_HYBRID_KEYS | FEATURE_RESUMPTION, false], [
      FEATURE_RESUMPTION,
      true,
    ]]
  ) {
    const world = new World(SEED);
    world.protocol = "oxtunnel";
    // Parts of a key exchange do not get through.
    world.tap = (_from, _to, bytes) => bytes[0] < 0x80 && bytes.length > 500 ? undefined : bytes;
    const server = world.relay(RELAY, { ipv4: "10.66.0.1" });
    const client = world.client(HOME, server, { ipv4: "10.66.0.2", features: Number(features) });
    client.send(up(0));
    world.runFor(5 * SECOND);
    assertEquals(client.core.ticket !== undefined, expected);
    world.tap = undefined;
    world.runFor(5 * SECOND);
    assert(client.core.ticket, "but then");
  }
});

Deno.test(`ticket: at most what fits is said early, in order, and nothing comes twice (seed ${SEED})`, () => {
  const { world, server, client, privateKey } = setting();
  const { ticket } = client.core;
  client.core.close();
  world.hosts.splice(world.hosts.indexOf(client), 1);
  const big = (n: number, bytes: number) => udpPacket("10.66.0.2", "8.8.8.8", new Uint8Array(bytes).fill(n));
  const again = comeBack(world, server, ticket, privateKey);
  let first = 0;
  world.tap = (_from, _to, bytes) => {
    if (bytes[0] === INITIATION) first ||= bytes.length;
    return bytes;
  };
  again.core.connect("192.0.2.1", 4433, world.nowUs, true);
  again.send(big(1, 1100));
  world.runFor(20_000);
  assertEquals([first, numbers(server)], [512, []], "too long: the initiation goes without");
  world.runFor(SECOND);
  assertEquals(numbers(server), [1]);
});

Deno.test(`ticket: until the client has shown its keys it is sent no more than it sent, at its new address alone (seed ${SEED})`, () => {
  const { world, server, client, privateKey } = setting();
  const { ticket } = client.core;
  client.core.close();
  const again = comeBack(world, server, ticket, privateKey);
  let asked = 0;
  const sent: { to: string; bytes: number }[] = [];
  world.tap = (from, to, bytes) => {
    if (from === again.endpoint) asked += bytes.length;
    else sent.push({ to, bytes: bytes.length });
    return bytes;
  };
  again.send(up(1));
  world.runFor(20_000);
  for (let n = 0; n < 50; n++) server.send(udpPacket("8.8.8.8", "10.66.0.2", new Uint8Array(100).fill(n)));
  assertEquals(sent.filter(({ to }) => to !== again.endpoint), []);
  const early = sent.length - 1;
  assert(sent.reduce((sum, { bytes }) => sum + bytes, 0) <= asked, "with the response");
  assertGreater(early, 4);
  world.runFor(20_000);
  assertEquals(numbers(again), Array.from({ length: early }, (_, i) => i));
  world.runFor(SECOND);
  assertEquals(
    numbers(again).toSorted((a, b) => a - b),
    Array.from({ length: 50 }, (_, i) => i),
    "then the rest",
  );
});

Deno.test(`ticket: without early data nothing is sent before the client has shown its keys (seed ${SEED})`, () => {
  const { world, server, client, privateKey, seen } = setting();
  client.core.close();
  world.hosts.splice(world.hosts.indexOf(client), 1);
  world.runFor(600 * SECOND);
  server.receive(initiationOf(world, server, privateKey, {}, undefined), STRANGER);
  const { carried } = world;
  for (let n = 0; n < 5; n++) server.send(down(n));
  assertEquals(world.carried, carried);
  assertEquals(seen.map(([kind]) => kind), [RESPONSE]);
});

Deno.test(`ticket: an answer that arrives in one burst with the response is opened, a forged one is not (seed ${SEED})`, () => {
  const { world, server, client, privateKey } = setting();
  const { ticket } = client.core;
  client.core.close();
  const again = comeBack(world, server, ticket, privateKey);
  const held: Uint8Array[] = [];
  world.tap = (from, _to, bytes) => {
    if (from === RELAY) held.push(bytes.slice());
    return from === RELAY ? undefined : bytes;
  };
  again.send(up(1));
  world.runFor(20_000);
  server.send(down(2));
  assertEquals(held.length, 2);
  const [response, answer] = held;
  const forged = answer.map((byte, i) => i === 20 ? byte ^ 1 : byte);
  ingest(again, answer);
  assertEquals(again.metrics.dropped("no_session"), 1, "without a response it is nobody's");
  const steps = ingest(again, forged, answer, response, answer);
  assertEquals(steps.filter((step) => step === TO_EXIT).length, 1);
  assertEquals([again.metrics.dropped("forged"), again.metrics.dropped("replayed")], [1, 1]);
});

Deno.test(`ticket: what names a handshake under way disturbs nothing else in its burst (seed ${SEED})`, () => {
  const { world, server, client } = setting();
  world.runFor(10 * SECOND);
  const held: Uint8Array[] = [];
  world.tap = (_from, _to, bytes) => void held.push(bytes.slice());
  client.core.connect("192.0.2.1", 4433, world.nowUs);
  client.tick();
  server.send(down(1));
  server.send(down(2));
  const [initiation, first, second] = held;
  const bogus = Uint8Array.of(0x40, ...initiation.subarray(4, 8), ...new Uint8Array(60));
  const forged = second.map((byte, i) => i === 20 ? byte ^ 1 : byte);
  const steps = ingest(client, bogus, first, forged, second);
  assertEquals(steps.filter((step) => step === TO_EXIT).length, 2);
  // deno-lint-ignore no-explicit-any
  const { associations, peers } = client.core as any;
  assertEquals(associations.oxtunnel.sessions.failures[peers.current[0]], 1, "towards its key's limit");
  const { metrics } = client;
  assertEquals([metrics.dropped("no_session"), metrics.dropped("replayed"), metrics.dropped("forged")], [
    1,
    0,
    1,
  ]);
});

Deno.test(`ticket: a session that lasts gets another before the last one is old, which is then overwritten (seed ${SEED})`, () => {
  const { world, client } = setting();
  // deno-lint-ignore no-explicit-any
  const [peer] = (client.core as any).peers.all();
  const { secret } = peer.ticket as Ticket, first = client.core.ticket!;
  const half = TICKET_LIFE_US / 2;
  for (let us = 0; us < half + 300 * SECOND; us += 50 * SECOND) {
    if (us < half - 200 * SECOND) assertEquals(client.core.ticket, first);
    client.send(up(1));
    world.runFor(50 * SECOND);
  }
  const second = client.core.ticket!;
  assert(second.secret.toHex() !== first.secret.toHex());
  assertGreater(second.expiresUnixUs, first.expiresUnixUs + half - SECOND);
  assertEquals(secret, new Uint8Array(32));
  const last = (peer.ticket as Ticket).secret;
  client.core.close();
  assertEquals(last, new Uint8Array(32));
});
