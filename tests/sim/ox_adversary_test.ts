/**
 * A peer that lies, over OxTunnel: its datagrams authenticate and say what they like. Held: it gets nothing that an
 * honest peer would not get, costs no more, moves only itself, and only by an answered challenge; and keys are
 * overwritten when they should be. Each failure names its seed.
 */
import { assert, assertEquals, assertGreater } from "@std/assert";
import fc from "fast-check";
import { PortableDatagramAead } from "../../src/codec/datagram_portable.ts";
import { DROP } from "../../src/metrics.ts";
import { CLEAN, World } from "../kit/world.ts";
import { udpPacket } from "../kit/packets.ts";
import { RawPeer } from "../kit/raw_peer.ts";

const SECOND = 1_000_000;
const SEED = Number(Deno.env.get("SIM_SEED") ?? 1);
const HOME = "198.51.100.7:5555", AWAY = "203.0.113.9:7777", OTHER = "203.0.113.10:8888";
const IP = "10.66.0.2";
const FUZZ = {
  numRuns: Number(Deno.env.get("FUZZ_RUNS") ?? 300),
  seed: Number(Deno.env.get("FUZZ_SEED") ?? 20260101),
};

function setting() {
  const world = new World(SEED);
  world.protocol = "oxtunnel";
  const relay = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1" });
  const peer = new RawPeer(world, relay, HOME, IP);
  peer.connect();
  peer.send(udpPacket(IP, "8.8.8.8", new Uint8Array(4)));
  world.runFor(SECOND);
  assertEquals(relay.delivered.length, 1);
  relay.delivered.length = 0;
  peer.heard.length = 0;
  return { world, relay, peer };
}

const frame = (
  kind: number,
  body: number[],
) => [0x80 | (kind << 3) | (body.length >> 8), body.length & 255, ...body];
const control = (...body: number[]) => frame(2, body);
const endpointOf = ({ world, relay }: ReturnType<typeof setting>) =>
  relay.core.peerSnapshots(world.nowUs)[0].endpoint;

Deno.test(`adversary: a path response counts from the challenged address alone (seed ${SEED})`, () => {
  const all = setting();
  const { world, relay, peer } = all;
  peer.send(udpPacket(IP, "8.8.8.8", new Uint8Array(4)), AWAY);
  const [challenge] = peer.heard.filter(({ to }) => to === AWAY);
  const body = peer.open(challenge.bytes)!;
  assertEquals([...body.slice(0, 3)], [0x90, 9, 4]);
  const answer = (words: Iterable<number>) => Uint8Array.from(control(5, ...words));
  peer.send(answer(body.slice(3)), HOME);
  assertEquals(endpointOf(all), HOME, "from the old address");
  peer.send(answer(body.slice(3)), OTHER);
  assertEquals(endpointOf(all), HOME, "from a third one");
  peer.send(answer(body.slice(3).map((byte) => byte ^ 1)), AWAY);
  assertEquals(endpointOf(all), HOME, "with other bytes");
  // The third address was challenged in its place, with other bytes; so is this one again.
  const again = peer.heard.filter(({ to }) => to === AWAY).at(-1)!;
  const fresh = peer.open(again.bytes)!;
  assert(fresh.slice(3).toHex() !== body.slice(3).toHex(), "challenges are fresh");
  peer.send(answer(fresh.slice(3)), AWAY);
  assertEquals(endpointOf(all), AWAY);
  peer.heard.length = 0;
  relay.send(udpPacket("8.8.8.8", IP, new Uint8Array(4)));
  assertEquals(peer.heard.map(({ to }) => to), [AWAY]);
  world.runFor(5 * SECOND);
});

Deno.test(`adversary: no address gets more than three times what came from it before it answered (seed ${SEED})`, () => {
  const { world, relay, peer } = setting();
  const gave = new Map<string, number>();
  for (let i = 0; i < 60; i++) {
    // Small datagrams that ask for as much as they can, from addresses that never answer.
    const from = `203.0.113.${i % 5}:9`;
    const plaintext = Uint8Array.from([...control(1, 1, 2, 3, 4), ...control(4, 1, 2, 3, 4, 5, 6, 7, 8)]);
    const sealed = peer.seal(plaintext);
    gave.set(from, (gave.get(from) ?? 0) + sealed.length);
    relay.receive(sealed, from);
    relay.send(udpPacket("8.8.8.8", IP, new Uint8Array(1000)));
    world.runFor(i % 10 === 0 ? 2 * SECOND : 5000);
  }
  for (const [from, bytes] of gave) {
    const got = peer.heard.filter(({ to }) => to === from).reduce((sum, { bytes }) => sum + bytes.length, 0);
    assert(got <= 3 * bytes, `${from}: ${got} for ${bytes}`);
  }
  assertEquals(peer.heard.filter(({ bytes, to }) => bytes.length > 1000 && to !== HOME), []);
});

Deno.test(`adversary: one small datagram from a new address buys three times its bytes, and without an id nothing (seed ${SEED})`, () => {
  const { world, relay, peer } = setting();
  const challenge = Uint8Array.from(control(4, 1, 2, 3, 4, 5, 6, 7, 8));
  // The peer gave three spare ids; each new path takes one.
  for (const [i, expected] of [3, 3, 3, 0, 0].entries()) {
    peer.heard.length = 0;
    const sealed = peer.seal(challenge);
    relay.receive(sealed, `203.0.113.${i}:9`);
    world.runFor(2 * SECOND);
    const got = peer.heard.filter(({ to }) => to === `203.0.113.${i}:9`).map(({ bytes }) => bytes.length);
    assertEquals(got.length, expected, `path ${i}`);
    assert(got.reduce((sum, bytes) => sum + bytes, 0) <= 3 * sealed.length);
  }
});

Deno.test(`adversary: what its frames hold is judged like any packet (seed ${SEED})`, () => {
  const { relay, peer } = setting();
  const good = [...udpPacket(IP, "8.8.8.8", new Uint8Array(8))];
  const spoofed = [...udpPacket("10.66.0.99", "8.8.8.8", new Uint8Array(8))];
  const denied = [...udpPacket(IP, "192.168.1.1", new Uint8Array(8))];
  const say = (...bytes: number[]) => {
    relay.delivered.length = 0;
    peer.send(Uint8Array.from(bytes));
    return relay.delivered.length;
  };
  assertEquals(say(...good), 1);
  assertEquals(say(...frame(0, good), ...good), 2, "two in one datagram");
  assertEquals(say(...frame(0, good), ...frame(0, good), ...good), 3);
  assertEquals(say(...frame(0, spoofed), ...spoofed), 0);
  assertEquals(relay.metrics.dropped("spoofed_inner"), 2);
  assertEquals(say(...denied), 0);
  // Too long, too short, cut, and what was never accepted.
  assertEquals(say(...good, 0), 0);
  assertEquals(say(...frame(0, good.slice(0, -1))), 0);
  assertEquals(say(...good.slice(0, 10)), 0);
  assertEquals(say(...frame(1, good), ...frame(3, good), ...frame(6, good), ...frame(9, good)), 0);
  assertEquals(say(...frame(9, [1, 2, 3]), ...good), 1, "unknown kinds are passed over");
  assertEquals(say(...control(0x7f, 1, 2), ...good), 1, "unknown control frames too");
  assertEquals(say(0, ...good), 0, "padding takes the rest");
  relay.receive(peer.seal(Uint8Array.from(good), 0x20), HOME);
  assertEquals(relay.metrics.dropped("bad_type"), 1, "reserved flags");
});

Deno.test(`adversary: reliable frames are obeyed once and in order, unknown ones acknowledged (seed ${SEED})`, () => {
  const { peer } = setting();
  const acks = () => {
    const found = peer.heard.splice(0).map(({ bytes }) => peer.open(bytes)!).filter((text) =>
      text[2] === 0x0a
    );
    return found.map((text) => text[3] | (text[4] << 8));
  };
  peer.send(Uint8Array.from(control(0x2f, 1, 0)));
  assertEquals(acks(), [], "one that is ahead");
  peer.send(Uint8Array.from(control(0x2f, 0, 0)));
  assertEquals(acks(), [0]);
  peer.send(Uint8Array.from(control(0x2f, 0, 0)));
  assertEquals(acks(), [0], "a repeat is acknowledged again");
  peer.send(Uint8Array.from(control(0x2f, 1, 0)));
  assertEquals(acks(), [1]);
  peer.send(Uint8Array.from([...control(0x0a, 9, 0), ...control(2, 1, 2, 3, 4, 0, 0, 0, 0)]));
  assertEquals(peer.heard.length, 0, "answers get no answer");
});

Deno.test(`adversary: any plaintext is survived, answered by one datagram at most, and harms nobody (seed ${SEED})`, () => {
  const { world, relay, peer } = setting();
  const client = world.client("198.51.100.8:5555", relay, { ipv4: "10.66.0.3" });
  client.send(udpPacket("10.66.0.3", "8.8.8.8", new Uint8Array(4)));
  world.runFor(SECOND);
  const free = relay.arena.free;
  const controls = fc.tuple(
    fc.oneof(fc.integer({ min: 1, max: 10 }), fc.integer({ min: 0x20, max: 0x23 }), fc.nat(255)),
    fc.uint8Array({ maxLength: 60 }),
  ).filter(([kind]) => kind !== 9).map(([kind, rest]) => control(kind, ...rest));
  const frames = fc.tuple(fc.nat(15), fc.uint8Array({ minLength: 1, maxLength: 80 })).map(([kind, body]) =>
    frame(kind, [...body])
  );
  const sound = fc.constantFrom(
    control(1, 1, 2, 3, 4),
    control(4, 1, 2, 3, 4, 5, 6, 7, 8),
    control(5, 1, 2, 3, 4, 5, 6, 7, 8),
    control(3, 0, 255, 255, 255, 255, 255, 255, 0, 0, 9, 0, 0, 0, 0),
    control(8, 0, 1, 0, 0, 0, 32, 0, 0, 0, ...new Array(32).fill(9)),
    control(8, 1, 1, 0, 0, 0, 32, 0, 0, 0, ...new Array(32).fill(9)),
    control(0x21, 0, 0, 3, 0, 0, 0, 1, 2, 3, 4),
  );
  const plaintext = fc.oneof(
    fc.array(fc.oneof(controls, frames, sound), { maxLength: 8 }).map((list) => list.flat()),
    fc.uint8Array({ maxLength: 300 }).map((bytes) => [...bytes]),
  );
  fc.assert(
    fc.property(plaintext, fc.constantFrom(HOME, AWAY), (bytes, from) => {
      peer.heard.length = 0;
      peer.send(Uint8Array.from(bytes), from);
      assert(peer.heard.length <= 3, `${peer.heard.length} datagrams`);
      world.runFor(50_000);
    }),
    FUZZ,
  );
  assertEquals(relay.arena.free, free);
  relay.delivered.length = 0;
  peer.send(udpPacket(IP, "8.8.8.8", new Uint8Array(4)));
  assertEquals(relay.delivered.length, 1, "the session itself has survived");
  relay.delivered.length = 0;
  client.send(udpPacket("10.66.0.3", "8.8.8.8", new Uint8Array(4)));
  world.runFor(2 * SECOND);
  assertGreater(relay.delivered.length, 0, "another client goes on");
});

/** Remembers which rows and phases have keys now. */
class Ledger extends PortableDatagramAead {
  readonly epochs = new Set<string>();
  retired = 0;
  override install(row: number, phase: number, sendKey: Uint8Array, receiveKey: Uint8Array): void {
    super.install(row, phase, sendKey, receiveKey);
    this.epochs.add(`${row}:${phase}`);
  }
  override retire(row: number, phase: number): void {
    super.retire(row, phase);
    if (this.epochs.delete(`${row}:${phase}`)) this.retired++;
  }
}

Deno.test(`keys: an epoch's are overwritten 3 s after its successor came into use, all at the session's end (seed ${SEED})`, () => {
  const world = new World(SEED);
  world.protocol = "oxtunnel";
  world.channel = CLEAN;
  const ledgers: Ledger[] = [];
  const makeDatagramAead = (rows: number) => {
    const ledger = new Ledger(rows, DROP.forged);
    ledgers.push(ledger);
    return ledger;
  };
  const relay = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1", makeDatagramAead });
  const client = world.client(HOME, relay, { ipv4: IP, makeDatagramAead });
  client.send(udpPacket(IP, "8.8.8.8", new Uint8Array(4)));
  world.runFor(SECOND);
  for (const { epochs, retired } of ledgers) assertEquals([epochs.size, retired], [2, 0]);
  world.runFor(3 * SECOND);
  for (const { epochs, retired } of ledgers) assertEquals([epochs.size, retired], [1, 1]);
  client.core.close();
  relay.core.close();
  for (const { epochs } of ledgers) assertEquals(epochs.size, 0);
});
