/**
 * A peer that lies about further paths (PROTOCOL §17): its datagrams authenticate and say what they like. Held: it opens no more
 * than it may, moves nothing but its own packets, gets no packet delivered twice or unjudged, sends nobody more than three times
 * what came from there, and leaves nothing behind. Each failure names its seed.
 */
import { assert, assertEquals, assertGreater, assertLess } from "@std/assert";
import fc from "fast-check";
import { CODE_WINDOW, RepairEncoder } from "../../src/codec/erasure.ts";
import { PortableShardKernel } from "../../src/codec/gf256.ts";
import { repairOptions } from "../../src/repair/options.ts";
import { SYMBOL_MAX_BYTES, windowKey } from "../../src/repair/receiver.ts";
import type { TunnelOptions } from "../../src/tunnel_options.ts";
import { FEATURE_MULTIPATH, FEATURE_SLIDING_WINDOW } from "../../src/wire/parameters.ts";
import { writeRepairHead } from "../../src/wire/repair.ts";
import { udpPacket } from "../kit/packets.ts";
import { sessionOf } from "../kit/inside.ts";
import { RawPeer } from "../kit/raw_peer.ts";
import { World } from "../kit/world.ts";

const SECOND = 1_000_000;
const SEED = Number(Deno.env.get("SIM_SEED") ?? 1);
const HOME = "198.51.100.7:5555", AWAY = "203.0.113.9:7777", IP = "10.66.0.2";
const FUZZ = {
  numRuns: Number(Deno.env.get("FUZZ_RUNS") ?? 200),
  seed: Number(Deno.env.get("FUZZ_SEED") ?? 20260101),
};

const frame = (
  kind: number,
  body: number[],
) => [0x80 | (kind << 3) | (body.length >> 8), body.length & 255, ...body];
const control = (...body: number[]) => frame(2, body);
const u16 = (value: number) => [value & 255, value >> 8];
const u32 = (value: number) => [value & 255, (value >> 8) & 255, (value >> 16) & 255, value >>> 24];

function setting(features = FEATURE_MULTIPATH, options: Partial<TunnelOptions> = {}) {
  const world = new World(SEED);
  world.protocol = "oxtunnel";
  const relay = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1", ...options });
  const peer = new RawPeer(world, relay, HOME, IP);
  peer.connect({ features, aeads: [1], connectionIds: [5, 6, 7] });
  let sequence = 0;
  const good = (n: number) => [...udpPacket(IP, "8.8.8.8", Uint8Array.from(u32(n)))];
  peer.send(Uint8Array.from(good(0)));
  world.runFor(SECOND);
  relay.delivered.length = peer.heard.length = 0;
  const reliable = (kind: number, ...body: number[]) => control(kind, ...u16(sequence++), ...body);
  /** Sends a reliable frame on the first path. */
  const say = (kind: number, ...body: number[]) => peer.send(Uint8Array.from(reliable(kind, ...body)));
  const ids = (path: number, first = 0, count = 2) =>
    say(
      0x24,
      path,
      ...u16(first),
      ...u16(0),
      ...Array.from({ length: count }, (_, i) => u32(100 * path + first + i)).flat(),
    );
  const status = (path: number, status: number) => say(0x25, path, status, 0, 0b110);
  /** The relay's first id for the path, from what it said since `heard` was emptied. */
  const idOf = (path: number): number | undefined => {
    for (const { bytes } of peer.heard) {
      const plaintext = bytes[0] < 0x80 ? peer.open(bytes) : undefined;
      if (plaintext === undefined) continue;
      const view = new DataView(plaintext.buffer, plaintext.byteOffset, plaintext.length);
      for (let at = 0; at + 2 <= plaintext.length && plaintext[at] >= 0x80;) {
        const length = view.getUint16(at) & 2047;
        if (plaintext[at + 2] === 0x24 && plaintext[at + 5] === path && view.getUint16(at + 6, true) === 0) {
          return view.getUint32(at + 10, true);
        }
        at += 2 + length;
      }
    }
    return undefined;
  };
  /** Acknowledges what the relay has under way, so that it says the next. */
  const ack = () => {
    for (let i = 0; i < 8; i++) peer.send(Uint8Array.from(control(0x0a, ...u16(i))));
  };
  /** Opens the path from AWAY, or another address; the relay's challenge is answered. */
  const open = (path: number, from = AWAY) => {
    peer.heard.length = 0;
    ids(path);
    ack();
    world.runFor(SECOND / 2);
    const id = idOf(path);
    if (id === undefined) return false;
    peer.paths.set(path, { id, counter: 0 });
    peer.heard.length = 0;
    peer.send(Uint8Array.from(control(4, 1, 2, 3, 4, 5, 6, 7, 8)), from, path);
    for (const { bytes, to } of peer.heard.splice(0)) {
      const body = to === from ? peer.open(bytes, path) : undefined;
      if (body?.[2] === 4) peer.send(Uint8Array.from(control(5, ...body.slice(3, 11))), from, path);
    }
    return true;
  };
  const theirs = () => sessionOf(relay).pathSet;
  return { world, relay, peer, good, reliable, say, ids, status, idOf, open, ack, theirs };
}

const copy = (path: number, counter: number, source: number[]) =>
  frame(6, [path, ...u16(counter & 0xffff), ...source]);

Deno.test(`paths adversary: three paths at a time and seven numbers are all that it gets, and leave nothing behind (seed ${SEED})`, () => {
  const { relay, open, status, theirs, world } = setting();
  const rows = () => {
    relay.tick();
    return relay.metrics.get("sessions");
  };
  world.runFor(2 * SECOND);
  const before = rows();
  for (let path = 1; path <= 3; path++) assertEquals(open(path, `203.0.113.${path}:7`), true);
  assertEquals(theirs().rows.length, 3);
  assertEquals([open(4), open(5)], [false, false], "no fifth");
  for (let path = 1; path <= 3; path++) status(path, 3);
  world.runFor(2 * SECOND);
  assertEquals(theirs().rows.length, 0);
  assertEquals(rows(), before);
  assertEquals([open(1), open(3)], [false, false], "a number that was used");
  assertEquals([open(6), open(7)], [true, true]);
});

Deno.test(`paths adversary: a path gets its packets once, under its own number alone (seed ${SEED})`, () => {
  const { relay, peer, open, good, world } = setting();
  open(1);
  const onSecond = peer.seal(Uint8Array.from(good(1)), 0, 1);
  relay.receive(onSecond, AWAY);
  assertEquals(relay.delivered.length, 1);
  relay.receive(onSecond, AWAY);
  relay.receive(onSecond, HOME);
  assertEquals(relay.metrics.dropped("replayed"), 2);
  // The second path's id with the first path's nonce, and the other way round.
  const { id } = peer.paths.get(1)!;
  peer.paths.set(1, { id: peer.relayId, counter: 50 });
  peer.send(Uint8Array.from(good(2)), HOME, 1);
  peer.paths.set(2, { id, counter: 50 });
  peer.send(Uint8Array.from(good(3)), AWAY, 2);
  assertEquals(relay.metrics.dropped("forged"), 2);
  assertEquals(relay.delivered.length, 1);
  // The same counter on each path is two datagrams.
  peer.paths.set(1, { id, counter: peer.counter });
  peer.send(Uint8Array.from(good(4)));
  peer.send(Uint8Array.from(good(5)), AWAY, 1);
  assertEquals(relay.delivered.length, 3);
  world.runFor(SECOND);
});

Deno.test(`paths adversary: of a datagram and its copies one is delivered, judged like any, whichever comes first (seed ${SEED})`, () => {
  const { relay, peer, open, good, theirs } = setting();
  open(1);
  peer.counter = 40_000;
  peer.send(Uint8Array.from(good(0)));
  relay.delivered.length = 0;
  const { counter } = peer;
  const source = good(1), datagram = peer.seal(Uint8Array.from(source));
  const send = (bytes: number[]) => peer.send(Uint8Array.from(bytes), AWAY, 1);
  send(copy(0, counter, source));
  assertEquals(relay.delivered.length, 1, "the copy is first");
  send(copy(0, counter, source));
  relay.receive(datagram, HOME);
  assertEquals(relay.delivered.length, 1, "neither another copy nor the datagram");
  assertEquals(relay.metrics.get("packets_late"), 1);
  peer.send(Uint8Array.from(good(2)));
  send(copy(0, counter + 1, good(2)));
  assertEquals(relay.delivered.length, 2, "the datagram is first");
  send(copy(0, counter + 2, [...udpPacket("10.66.0.99", "8.8.8.8", new Uint8Array(4))]));
  send(copy(0, counter + 3, [...udpPacket(IP, "192.168.1.1", new Uint8Array(4))]));
  assertEquals([relay.metrics.dropped("spoofed_inner"), relay.metrics.dropped("denied")], [1, 1]);
  // Of paths that there are not, of its own path, too old, without packets, with reserved bits, and control frames in a copy.
  send(copy(5, 0, good(3)));
  send(copy(1, 0, good(3)));
  send(copy(0, counter - 17_000, good(3)));
  send(copy(0, counter + 4, control(9, 1, 0, 0)));
  send(frame(6, [0, 9, 9]));
  send(frame(6, [8, 9, 9, ...good(3)]));
  assertEquals(relay.delivered.length, 2);
  assertEquals(theirs().rows.length, 1, "the session is not closed by a copy");
  // Nine in one datagram: eight are read.
  send(Array.from({ length: 9 }, (_, i) => copy(0, counter + 10 + i, good(10 + i))).flat());
  assertEquals(relay.delivered.length, 2 + 8);
});

Deno.test(`paths adversary: what repair brought back before the first copy came is not delivered by a copy (seed ${SEED})`, () => {
  const kernel = new PortableShardKernel();
  const repair = repairOptions(kernel, { budgetPercent: 25, gameDeadlineMs: 60, voiceDeadlineMs: 100 });
  const { relay, peer, open, good } = setting(FEATURE_MULTIPATH | FEATURE_SLIDING_WINDOW, { repair });
  open(1);
  // A repair of what came, from which on the relay keeps what it needs for others.
  const encoder = new RepairEncoder(kernel, SYMBOL_MAX_BYTES);
  const repaired = (counter: number, source: number[]) => {
    const at = peer.counter, body = new Uint8Array(100), numbers = Float64Array.of(counter);
    const symbolAt = writeRepairHead(new DataView(body.buffer), 0, false, 0, at, numbers, 1);
    encoder.add(counter, Uint8Array.from(source), 0, source.length);
    const length = encoder.combine(CODE_WINDOW, windowKey(at, 0), numbers, 1);
    encoder.take(length, body, symbolAt);
    peer.send(Uint8Array.from(frame(5, [...body.subarray(0, symbolAt + length)])));
  };
  peer.send(Uint8Array.from(good(1)));
  repaired(peer.counter - 1, good(1));
  const lost = peer.counter++;
  assertEquals(relay.delivered.length, 1);
  repaired(lost, good(2));
  assertEquals(relay.delivered.length, 2, "repair brings it back");
  peer.send(Uint8Array.from(copy(0, lost, good(2))), AWAY, 1);
  assertEquals(relay.delivered.length, 2, "and no copy does again");
  assertEquals(relay.metrics.get("copies_useful"), 0);
});

Deno.test(`paths adversary: an address gets three times what came from it before it answers, on any path (seed ${SEED})`, () => {
  const { relay, peer, ids, idOf, ack, world } = setting();
  const gave = new Map<string, number>();
  ids(1, 0, 4);
  ack();
  world.runFor(SECOND / 2);
  peer.paths.set(1, { id: idOf(1)!, counter: 0 });
  peer.heard.length = 0;
  for (let i = 0; i < 40; i++) {
    const from = `203.0.113.${i % 4}:9`;
    const sealed = peer.seal(
      Uint8Array.from([...control(1, 1, 2, 3, 4), ...control(4, 1, 2, 3, 4, 5, 6, 7, 8)]),
      0,
      1,
    );
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

Deno.test(`paths adversary: what comes behind a path's end in its own datagram is not taken for the first path's (seed ${SEED})`, () => {
  const { relay, peer, open, reliable, world } = setting();
  open(1);
  for (let i = 0; i < 20; i++) relay.send(udpPacket("8.8.8.8", IP, new Uint8Array(100)));
  const { row, host } = sessionOf(relay), { acknowledged } = host.shared.paths;
  const before = acknowledged[row];
  const closed = reliable(0x25, 1, 3, 0, 0), challenge = control(4, 1, 2, 3, 4, 5, 6, 7, 8);
  const report = control(3, 0, 10, 0, 0, 0, 0, 0, 0, 0, ...u32(10), 0);
  peer.heard.length = 0;
  peer.send(Uint8Array.from([...closed, ...report, ...challenge]), AWAY, 1);
  world.runFor(SECOND);
  assertEquals(acknowledged[row], before, "a report about the path that has ended");
  assertEquals(peer.heard.filter(({ to }) => to === AWAY), [], "an answer where no path leads");
});

Deno.test(`paths adversary: statuses that flap and paths that starve move its own packets alone (seed ${SEED})`, () => {
  const { relay, peer, open, status, good, world, theirs } = setting();
  const other = new RawPeer(world, relay, "198.51.100.8:1", "10.66.0.3");
  other.connect();
  other.send(udpPacket("10.66.0.3", "8.8.8.8", new Uint8Array(4)));
  world.runFor(SECOND);
  open(1);
  const packet = udpPacket("8.8.8.8", IP, new Uint8Array(900)),
    elsewhere = udpPacket("8.8.8.8", "10.66.0.3", new Uint8Array(4));
  let heard = 0;
  for (let i = 0; i < 200; i++) {
    status(1, i % 3); // standby, available, preferred
    status(0, (i + 1) % 3);
    if (i % 20 === 0) peer.send(Uint8Array.from(good(i)), AWAY, 1);
    peer.heard.length = 0;
    relay.send(packet);
    relay.send(elsewhere);
    world.runFor(20_000);
    heard += peer.heard.filter(({ bytes }) => bytes.length > 900).length;
    assertEquals(other.heard.filter(({ to }) => to !== other.endpoint && to !== HOME && to !== AWAY), []);
  }
  assertGreater(heard, 190, "it still gets what is for it");
  assertLess(heard, 402, "and at most one copy of each");
  assertEquals(theirs().rows.length, 1);
});

Deno.test(`paths adversary: without the feature its frames mean nothing (seed ${SEED})`, () => {
  const { relay, peer, ids, status, idOf, good, world } = setting(0);
  ids(1);
  status(1, 1);
  peer.send(Uint8Array.from([...copy(0, 77, good(1)), ...good(2)]));
  world.runFor(SECOND);
  assertEquals(relay.delivered.length, 1);
  assertEquals(idOf(1), undefined);
  assertEquals(sessionOf(relay).pathSet, undefined);
});

Deno.test(`paths adversary: whatever such frames say, honest packets arrive once and nothing breaks (seed ${FUZZ.seed})`, () => {
  const byte = fc.nat(255), some = fc.array(byte, { maxLength: 24 });
  const pathFrame = fc.oneof(
    fc.tuple(fc.constant(0x24), fc.nat(9), some).map(([kind, path, rest]) => ({
      kind,
      body: [path, ...rest],
    })),
    fc.tuple(fc.constant(0x25), fc.nat(9), fc.array(byte, { minLength: 2, maxLength: 4 })).map((
      [kind, path, rest],
    ) => ({
      kind,
      body: [path, ...rest],
    })),
    // Of a datagram far ahead, a copy makes what comes before too old: the liar's own loss.
    fc.tuple(fc.constant(6), fc.nat(8), byte, some).map(([kind, path, low, rest]) => ({
      kind,
      body: [path, low, 0, ...rest],
    })),
  );
  fc.assert(
    fc.property(fc.array(fc.tuple(pathFrame, fc.nat(3)), { minLength: 1, maxLength: 12 }), (frames) => {
      const { relay, peer, open, say, good, world } = setting();
      open(1);
      open(2, "203.0.113.10:8");
      for (const [i, [{ kind, body }, where]] of frames.entries()) {
        if (kind === 6) {
          const path = where % 3, from = [HOME, AWAY, "203.0.113.10:8"][path];
          if (body.length > 0) peer.send(Uint8Array.from(frame(6, body)), from, path);
        } else say(kind, ...body);
        relay.delivered.length = 0;
        peer.send(Uint8Array.from(good(1000 + i)));
        assertEquals(relay.delivered.length, 1, `packet ${i}`);
        relay.send(udpPacket("8.8.8.8", IP, new Uint8Array(100)));
        world.runFor(30_000);
      }
      world.runFor(20 * SECOND);
      relay.core.removePeer(peer.publicKey);
      relay.tick();
      assertEquals(relay.metrics.get("sessions"), 0, "rows are given back");
    }),
    FUZZ,
  );
});
