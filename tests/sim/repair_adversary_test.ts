/**
 * A peer that has the keys and lies in its repair frames, against a whole relay. Held: what repair brings back is judged like
 * what came by itself, comes once, and gets the peer nothing that it would not get without; floods cost nobody else.
 * Each failure names its seed.
 */
import { assert, assertEquals } from "@std/assert";
import { multiply, PortableShardKernel } from "../../src/codec/gf256.ts";
import { PortableLz4 } from "../../src/codec/lz4.ts";
import { WindowCode } from "../../src/codec/sliding_window.ts";
import { DEFAULTS } from "../../src/config.ts";
import { CLASS_GAME } from "../../src/control/traffic_class.ts";
import { repairOptions } from "../../src/repair/options.ts";
import { Repairs } from "../../src/repair/pool.ts";
import { BURST_CAPACITY } from "../../src/vector/burst.ts";
import { FRAME_REPAIR, writeFrameHead, writeLz4Head } from "../../src/wire/frame.ts";
import { FEATURE_LZ4, FEATURE_REQUESTS, FEATURE_SLIDING_WINDOW } from "../../src/wire/parameters.ts";
import { RawPeer } from "../kit/raw_peer.ts";
import { udpPacket } from "../kit/packets.ts";
import { World } from "../kit/world.ts";

const SECOND = 1_000_000;
const SEED = Number(Deno.env.get("SIM_SEED") ?? 1);
const IP = "10.66.0.2";

function setting(features = FEATURE_SLIDING_WINDOW) {
  const world = new World(SEED);
  world.protocol = "oxtunnel";
  const relay = world.relay("192.0.2.1:4433", {
    ipv4: "10.66.0.1",
    lz4: new PortableLz4(),
    repair: repairOptions(new PortableShardKernel(), DEFAULTS.repair),
  });
  const peer = new RawPeer(world, relay, "198.51.100.7:5555", IP);
  peer.connect({ features, aeads: [1], connectionIds: [5, 6, 7] });
  assertEquals(peer.told.features, features);
  // The first repair has the relay begin to keep sources.
  peer.send(packet(0));
  peer.send(repairOf(peer, packet(0)));
  world.runFor(SECOND);
  relay.delivered.length = 0;
  return { world, relay, peer };
}

const packet = (n: number, from = IP) => udpPacket(from, "8.8.8.8", new Uint8Array(20).fill(n));

/** A repair frame for the peer's next datagram, of one source, whose counter lies `back` before. */
function repairOf(peer: RawPeer, source: Uint8Array, back = 1, index = 0): Uint8Array {
  const coefficient = new Uint8Array(1);
  new WindowCode().coefficients((8 * peer.counter + index) % 65536, 1, coefficient, 0);
  const frame = new Uint8Array(5 + source.length);
  const body = writeFrameHead(new DataView(frame.buffer), 0, FRAME_REPAIR, 3 + source.length);
  frame.set([0, back, index, ...source.map((byte) => multiply(coefficient[0], byte))], body);
  return frame;
}

const joined = (...parts: Uint8Array[]) => Uint8Array.from(parts.flatMap((part) => [...part]));

Deno.test(`repair: what is lost comes back once, whichever is first (seed ${SEED}, PROTOCOL R92)`, () => {
  const { relay, peer } = setting();
  const late = peer.seal(packet(1));
  peer.send(joined(repairOf(peer, packet(1)), packet(2)));
  assertEquals(relay.delivered, [packet(2), packet(1)]);
  relay.receive(late, peer.endpoint);
  peer.send(repairOf(peer, packet(1), 2));
  assertEquals(relay.delivered.length, 2, "neither its own datagram nor another repair delivers it again");
  assertEquals(relay.metrics.get("packets_repaired"), 1);
  assertEquals(relay.metrics.get("packets_late"), 1);
});

Deno.test(`repair: a packet that is brought back is judged like any other (seed ${SEED}, PROTOCOL R92)`, () => {
  const { relay, peer } = setting();
  for (const bad of [packet(1, "10.66.0.9"), packet(1).with(0, 0x35), packet(1).subarray(0, 30)]) {
    peer.counter++;
    peer.send(repairOf(peer, bad));
  }
  // Nor is anything but packets heard of it: a close of the session would be.
  peer.counter++;
  peer.send(repairOf(peer, Uint8Array.of(0x90, 2, 7, 0)));
  assertEquals(relay.delivered, []);
  peer.send(packet(3));
  assertEquals(relay.delivered, [packet(3)]);
});

Deno.test(`repair: compressed packets come out where LZ4 was negotiated (seed ${SEED}, PROTOCOL R48)`, () => {
  const whole = udpPacket(IP, "8.8.8.8", new Uint8Array(172));
  // 30 literals, 165 times the byte before, 5 literals.
  const block = [0xff, 15, ...whole.subarray(0, 30), 1, 0, 146, 0x50, 0, 0, 0, 0, 0];
  const frame = new Uint8Array(4 + block.length);
  frame.set(block, writeLz4Head(new DataView(frame.buffer), 0, block.length, whole.length));
  for (const features of [FEATURE_SLIDING_WINDOW, FEATURE_SLIDING_WINDOW | FEATURE_LZ4]) {
    const { relay, peer } = setting(features);
    peer.counter++;
    peer.send(repairOf(peer, frame));
    assertEquals(relay.delivered, (features & FEATURE_LZ4) !== 0 ? [whole] : []);
  }
});

Deno.test(`repair: a flood of repairs is dropped beyond eight a datagram, and harms nobody (seed ${SEED})`, () => {
  const { world, relay, peer } = setting();
  const other = world.client("198.51.100.8:5555", relay, { ipv4: "10.66.0.3" });
  other.send(packet(9, "10.66.0.3"));
  world.runFor(SECOND);
  const { free } = relay.arena;
  relay.delivered.length = 0;
  for (let i = 0; i < 300; i++) {
    peer.counter += 40;
    const frames = Array.from({ length: 60 }, (_, n) => repairOf(peer, Uint8Array.of(n), 1 + n % 40, n & 7));
    peer.send(joined(...frames));
    if (i % 10 === 0) world.runFor(1000);
  }
  assert(relay.metrics.dropped("malformed_inner") >= 300 * 52);
  assertEquals(relay.delivered, [], "a byte is no packet");
  other.send(packet(8, "10.66.0.3"));
  world.runFor(SECOND);
  assertEquals(relay.delivered, [packet(8, "10.66.0.3")]);
  assertEquals(relay.arena.free, free);
  // The peer's own repairs work too, once it behaves.
  peer.counter++;
  peer.send(repairOf(peer, packet(4)));
  world.runFor(SECOND);
  assert(relay.delivered.some((one) => one.toHex() === packet(4).toHex()));
});

Deno.test(`repair: a session that found the pool empty repairs once there is room (seed ${SEED}, PROTOCOL R92)`, () => {
  let receivers = 0;
  const { takeReceiver } = Repairs.prototype;
  Repairs.prototype.takeReceiver = function (first) {
    return receivers++ === 0 ? undefined : takeReceiver.call(this, first);
  };
  try {
    const { relay, peer } = setting();
    assertEquals(receivers, 1);
    peer.send(repairOf(peer, packet(0)));
    const late = peer.seal(packet(1));
    peer.send(joined(repairOf(peer, packet(1)), packet(2)));
    assertEquals(relay.delivered, [packet(2), packet(1)]);
    relay.receive(late, peer.endpoint);
    assertEquals(relay.metrics.get("packets_late"), 1);
  } finally {
    Repairs.prototype.takeReceiver = takeReceiver;
  }
});

Deno.test(`repair: what is lost comes back in a full burst too (seed ${SEED}, PROTOCOL R92)`, () => {
  const { relay, peer } = setting();
  peer.counter++;
  const datagrams = [peer.seal(joined(repairOf(peer, packet(1)), packet(2)))];
  while (datagrams.length < BURST_CAPACITY) datagrams.push(peer.seal(packet(3)));
  relay.receiveBurst(datagrams, peer.endpoint);
  assertEquals(relay.delivered.length, BURST_CAPACITY + 1);
  assertEquals(relay.delivered.filter((one) => one.toHex() === packet(1).toHex()).length, 1);
});

Deno.test(`repair: requests get a peer what was sent to it, a few times, within budget and deadline (seed ${SEED}, PROTOCOL R101, R102)`, () => {
  const { world, relay, peer } = setting(FEATURE_SLIDING_WINDOW | FEATURE_REQUESTS);
  const PACKETS = 640, GAP_US = 15_625, PACKET_BYTES = 228;
  const game = (n: number) => udpPacket("8.8.8.8", IP, new Uint8Array(PACKET_BYTES - 28).fill(n));
  let answers = 0, answerBytes = 0, others = 0;
  const times = new Map<number, number>();
  const listen = () => {
    for (const { bytes } of peer.heard.splice(0)) {
      const plaintext = peer.open(bytes)!;
      // A repair's head, and its flag of an answer.
      if ((plaintext[0] & 0xf8) !== 0xa8 || (plaintext[2] & 0x10) === 0) {
        others++;
        continue;
      }
      answers++;
      answerBytes += bytes.length + 28;
      const source = plaintext[3];
      times.set(source, (times.get(source) ?? 0) + 1);
    }
  };
  const request = (counter: number, first: number, count: number) =>
    Uint8Array.from([0x90, 6, 0x0b, 0, counter & 255, counter >> 8 & 255, first, count]);
  for (let n = 0; n < PACKETS; n++) {
    relay.sendBurst([game(n)], CLASS_GAME);
    for (let i = 0; i < 3; i++) {
      // All that there is, the newest, what never was, and another path's.
      for (const counter of [0, n, n - 20, 60_000]) {
        for (const [first, count] of [[1, 32], [33, 32], [255, 1]]) peer.send(request(counter, first, count));
      }
      peer.send(Uint8Array.from([0x90, 6, 0x0b, 1, n & 255, n >> 8, 1, 32]));
      world.runFor(GAP_US / 3);
      listen();
    }
  }
  assert(answers > 40 && others >= PACKETS, `${answers} answers, ${others} other datagrams`);
  assert(answerBytes < 0.26 * (PACKETS + 1) * (PACKET_BYTES + 50), `${answerBytes} bytes`);
  assert(relay.metrics.get("answers_refused") > 1_000);
  // An old packet is not sent again, whoever asks.
  for (let n = 0; n < 20; n++) {
    relay.sendBurst([game(n)], CLASS_GAME);
    world.runFor(GAP_US);
  }
  world.runFor(SECOND / 10);
  listen();
  const before = answers;
  for (let counter = 0; counter < 2 * PACKETS; counter += 8) peer.send(request(counter, 1, 32));
  world.runFor(SECOND);
  listen();
  assertEquals(answers, before);
});

Deno.test(`repair: marks and requests mean nothing where they were not agreed on (seed ${SEED}, PROTOCOL R40)`, () => {
  const { world, relay, peer } = setting();
  relay.delivered.length = 0;
  relay.receive(peer.seal(packet(1), 0x08), peer.endpoint);
  assertEquals([relay.delivered.length, relay.metrics.dropped("bad_type")], [0, 1]);
  for (let n = 0; n < 20; n++) relay.sendBurst([udpPacket("8.8.8.8", IP, new Uint8Array(50))], CLASS_GAME);
  peer.heard.length = 0;
  peer.send(Uint8Array.from([0x90, 6, 0x0b, 0, 0, 0, 1, 20]));
  world.runFor(SECOND / 100);
  assertEquals(relay.metrics.get("answers_sent"), 0);
  assertEquals(relay.metrics.get("requests_received"), 0);
});
