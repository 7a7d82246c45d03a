/**
 * An authenticated peer that sends control frames as fast as it can, against a whole relay, in counted work: whatever the
 * kind, and over however many sessions, no more is done for it than its share, what is reliable and was not done is not
 * acknowledged and comes again, and another peer notices nothing. Each failure names its seed.
 */
import { assert, assertEquals, assertLess } from "@std/assert";
import { PortableShardKernel } from "../../src/codec/gf256.ts";
import { DEFAULTS } from "../../src/config.ts";
import {
  controlPrice,
  KEY_EXCHANGE_PRICE,
  PRICE_AT_ONCE,
  PRICE_PER_SECOND,
} from "../../src/session/oxtunnel/control_budget.ts";
import { repairOptions } from "../../src/repair/options.ts";
import { FEATURE_REQUESTS, FEATURE_SLIDING_WINDOW } from "../../src/wire/parameters.ts";
import { RawPeer } from "../kit/raw_peer.ts";
import { udpPacket } from "../kit/packets.ts";
import { World } from "../kit/world.ts";

const SECOND = 1_000_000;
const SEED = Number(Deno.env.get("SIM_SEED") ?? 1);
const IP = "10.66.0.2";
const DATAGRAMS = 2000, EVERY_US = 1000, BYTES = 1350;

function setting() {
  const world = new World(SEED);
  world.protocol = "oxtunnel";
  const repair = repairOptions(new PortableShardKernel(), DEFAULTS.repair);
  const relay = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1", repair });
  const peer = new RawPeer(world, relay, "198.51.100.7:5555", IP);
  peer.connect({ features: FEATURE_SLIDING_WINDOW | FEATURE_REQUESTS, aeads: [1], connectionIds: [5, 6, 7] });
  peer.send(packet(IP));
  world.runFor(SECOND);
  const other = world.client("198.51.100.8:5555", relay, { ipv4: "10.66.0.3" });
  other.send(packet("10.66.0.3"));
  world.runFor(SECOND);
  relay.delivered.length = 0;
  peer.heard.length = 0;
  return { world, relay, peer, other };
}

const packet = (from: string) => udpPacket(from, "8.8.8.8", new Uint8Array(20));
const control = (body: number[]) => [0x90 | (body.length >> 8), body.length & 255, ...body];
const u16 = (n: number) => [n & 255, (n >> 8) & 255];

/** A body of each kind of control frame, the n-th of a flood. */
const BODIES: Record<string, (n: number) => number[]> = {
  ping: (n) => [1, n & 255, 2, 3, 4],
  pong: (n) => [2, n & 255, 2, 3, 4, 0, 0, 0, 0],
  report: (n) => [3, 0, 1, 0, 0, 0, 0, 0, 0, 0, n & 255, 0, 0, 0, 0],
  "path challenge": (n) => [4, n & 255, 2, 3, 4, 5, 6, 7, 8],
  "path response": (n) => [5, n & 255, 2, 3, 4, 5, 6, 7, 8],
  probe: () => [6, 0xb0, 4],
  "probe reply": () => [7, 0xb0, 4],
  "key exchange": (n) => [8, 1, 9, 0, 0, 0, 32, 0, 0, 0, ...new Array(32).fill(n & 255)],
  ack: (n) => [10, ...u16(n)],
  request: (n) => [11, 0, ...u16(n), 1 + n % 255, 1 + n % 32, ...u16(n >> 1), 1, 32],
  deadline: (n) => [12, 1 + n % 255, 0],
  hint: (n) => [0x20, ...u16(n), 1, 17, 88, 2, 1, 2, 3, 4, 10, 66, 0, 2, 1, 2, n % 65, n % 65],
  "connection ids": (n) => [0x21, ...u16(n), ...u16(n), 0, 0, 1, 2, 3, 4],
  config: (n) => [0x22, ...u16(n), 4, 2, 0x64, 5],
  ticket: (n) => [0x23, ...u16(n), 88, 2, 0, 0, ...new Array(32).fill(7), 1],
  "unknown reliable": (n) => [0x3f, ...u16(n)],
  unknown: () => [0x1f, 1],
};

for (const [name, body] of Object.entries(BODIES)) {
  Deno.test(`control flood: frames of kind ${name} get a peer its share of work and no more (seed ${SEED}, PROTOCOL R99)`, () => {
    const { world, relay, peer, other } = setting();
    const { metrics } = relay;
    let frames = 0, pings = 0;
    for (let i = 0; i < DATAGRAMS; i++) {
      const plaintext: number[] = [];
      for (let n = 0; n < 64; n++, frames++) {
        const frame = control(body(frames));
        if (plaintext.length + frame.length > BYTES) break;
        plaintext.push(...frame);
      }
      peer.send(Uint8Array.from(plaintext));
      if (i % 10 === 0) {
        other.send(packet("10.66.0.3"));
        pings++;
      }
      world.runFor(EVERY_US);
    }
    world.runFor(SECOND);
    const price = controlPrice(body(0)[0]);
    const obeyed = frames - metrics.dropped("control_flood");
    const share = PRICE_AT_ONCE + PRICE_PER_SECOND * (DATAGRAMS * EVERY_US) / SECOND;
    assertLess(obeyed * price, share + price);
    assert(obeyed * price > 0.9 * share || obeyed === frames, `${obeyed} of ${frames}`);
    assertEquals(metrics.dropped("malformed_inner"), 0);
    assertEquals(relay.delivered.length, pings, "another peer's packets");
    if (body(0)[0] < 0x20) return;
    // What was not obeyed is not acknowledged, and is obeyed when it comes again.
    const last = lastAck(peer);
    assert(last > 0 && last < obeyed, `${last} of ${obeyed}`);
    peer.send(Uint8Array.from(control(body(last + 1))));
    world.runFor(SECOND);
    assertEquals(lastAck(peer), last + 1);
  });
}

/** The sequence number that the relay acknowledged last. */
function lastAck(peer: RawPeer): number {
  return controlFrames(peer).findLast(([kind]) => kind === 10)!.slice(1).reduceRight(
    (sum, byte) => 256 * sum + byte,
    0,
  );
}

/** Bodies of the control frames that the relay has sent since it was last asked. */
function controlFrames(peer: RawPeer): number[][] {
  const bodies: number[][] = [];
  for (const { bytes } of peer.heard.splice(0)) {
    const plaintext = [...peer.open(bytes) ?? []];
    for (let at = 0; (plaintext[at] & 0xf8) === 0x90;) {
      const end = at + 2 + ((plaintext[at] & 7) << 8 | plaintext[at + 1]);
      bodies.push(plaintext.slice(at + 2, end));
      at = end;
    }
  }
  return bodies;
}

Deno.test(`control flood: one session after the other gets a peer no more key exchanges (seed ${SEED}, PROTOCOL R99)`, () => {
  const { world, relay, peer } = setting();
  const sessions = 80, everyUs = 25_000;
  const before = relay.metrics.get("epochs_made");
  let answers = 0;
  for (let i = 0; i < sessions; i++) {
    peer.counter = 0;
    peer.connect();
    const request = control([8, 0, 1, 0, 0, 0, 32, 0, 0, 0, ...new Array(32).fill(9)]);
    peer.send(Uint8Array.from(request));
    world.runFor(everyUs);
    answers += controlFrames(peer).filter(([kind, role]) => kind === 8 && role === 1).length;
  }
  assertEquals(relay.metrics.get("epochs_made"), before);
  assertLess(answers * KEY_EXCHANGE_PRICE, PRICE_AT_ONCE + PRICE_PER_SECOND * sessions * everyUs / SECOND);
  assert(answers > 5);
});
