/**
 * Hostile datagrams and inner packets into a whole relay: random, truncated, oversized and bit-flipped. Invariant
 * under test: no exception, no slot lost, no peer changed by what did not authenticate. FUZZ_SEED and FUZZ_RUNS
 * choose the run; a failure prints its seed.
 */
import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { Burst, TO_PARSE, TO_TUNNEL } from "../../src/vector/burst.ts";
import { parseAddress, parsePrefix } from "../../src/wire/address.ts";
import { emitEchoReply, emitIcmpError, ICMP_ADMIN_PROHIBITED } from "../../src/wire/icmp.ts";
import {
  emitTcpReset,
  innerLength,
  isFragment,
  PROTOCOL_UDP,
  protocolOf,
  transportAt,
  writeIpv4Header,
  writeIpv6Header,
} from "../../src/wire/inner.ts";
import { fragment } from "../../src/exit/userspace/fragmentation.ts";
import { Reassembly } from "../../src/exit/userspace/reassembly.ts";
import type { Relay } from "../../src/relay.ts";
import { type Host, World } from "../kit/world.ts";
import { udpPacket } from "../kit/packets.ts";

const options = {
  numRuns: Number(Deno.env.get("FUZZ_RUNS") ?? 500),
  seed: Number(Deno.env.get("FUZZ_SEED") ?? 20260101),
};

/** A relay with one connected client, and genuine datagrams of every kind that passed between them. */
function setting(): { world: World; server: Host<Relay>; genuine: Uint8Array[] } {
  const world = new World(7);
  const genuine: Uint8Array[] = [];
  world.tap = (_from, _to, bytes) => (genuine.push(bytes.slice()), bytes);
  const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1", ipv6: "fd66::1" });
  const client = world.client("198.51.100.7:5555", server, { ipv4: "10.66.0.2" });
  client.send(udpPacket("10.66.0.2", "8.8.8.8", new Uint8Array(200)));
  world.runFor(1_000_000);
  return { world, server, genuine };
}

/** A genuine datagram, cut, extended or with bits flipped, or plain noise with a plausible type. */
function hostile(genuine: Uint8Array[]): fc.Arbitrary<Uint8Array> {
  const mutated = fc.tuple(
    fc.constantFrom(...genuine),
    fc.array(fc.nat(8 * 200), { minLength: 1, maxLength: 8 }),
    fc.integer({ min: -160, max: 300 }),
  ).map(([bytes, flips, resize]) => {
    const copy = new Uint8Array(Math.max(0, bytes.length + (resize % 2 === 0 ? 0 : resize)));
    copy.set(bytes.subarray(0, copy.length));
    for (const flip of flips) if (flip >> 3 < copy.length) copy[flip >> 3] ^= 1 << (flip & 7);
    return copy;
  });
  const noise = fc.tuple(fc.uint8Array({ maxLength: 1900, size: "max" }), fc.nat(5)).map(([bytes, type]) => {
    if (bytes.length >= 4) bytes.set([type, 0, 0, 0]);
    return bytes;
  });
  return fc.oneof(mutated, noise);
}

Deno.test("fuzz: hostile datagrams change nothing and cost nothing", () => {
  const { world, server, genuine } = setting();
  const free = server.arena.free;
  const peers = JSON.stringify(server.core.peerSnapshots(world.nowUs));
  const sessions = JSON.stringify(server.core.sessionSnapshots(world.nowUs));
  fc.assert(
    fc.property(hostile(genuine), (bytes) => {
      if (genuine.some((one) => one.length === bytes.length && one.every((byte, i) => byte === bytes[i]))) {
        return;
      }
      server.receive(bytes, "203.0.113.5:1234");
      assertEquals(server.arena.free, free);
      assertEquals(JSON.stringify(server.core.peerSnapshots(world.nowUs)), peers);
      assertEquals(JSON.stringify(server.core.sessionSnapshots(world.nowUs)), sessions);
    }),
    options,
  );
});

Deno.test("fuzz: hostile inner packets from a genuine peer, and from the exit, leak no slot", () => {
  const { world, server } = setting();
  const client = world.hosts[1];
  world.channel = { ...world.channel, delayUs: 0 };
  const template = udpPacket("10.66.0.2", "10.66.0.1", new Uint8Array(60));
  const packet = fc.tuple(
    fc.uint8Array({ minLength: 1, maxLength: 1400, size: "max" }),
    fc.nat(3),
    fc.array(fc.nat(40 * 8)),
  )
    .map(([bytes, shape, flips]) => {
      if (shape < 2) bytes.set(template.subarray(0, Math.min(bytes.length, template.length)));
      if (shape === 2) bytes[0] = 0x60 | (bytes[0] & 15);
      if (shape === 1) {
        for (const flip of flips) if (flip >> 3 < bytes.length) bytes[flip >> 3] ^= 1 << (flip & 7);
      }
      return bytes;
    });
  fc.assert(
    fc.property(packet, (bytes) => {
      client.send(bytes);
      server.send(bytes);
      world.runFor(1000);
      assertEquals([server.arena.free, client.arena.free], [1024, 1024]);
    }),
    options,
  );
});

Deno.test("fuzz: inner readers and answers stay inside the packet and its slot", () => {
  const GUARD = 64, ROOM = 1400;
  const words = parseAddress("10.66.0.1")!;
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 20, maxLength: 1500, size: "max" }),
      fc.constantFrom(0x45, 0x4f, 0x60),
      (bytes, first) => {
        bytes[0] = first;
        if (first >> 4 === 4) [bytes[2], bytes[3]] = [bytes.length >> 8, bytes.length & 255];
        else [bytes[4], bytes[5]] = [(bytes.length - 40) >> 8 & 255, (bytes.length - 40) & 255];
        for (const act of [0, 1, 2]) {
          const arena = new Uint8Array(GUARD + bytes.length + ROOM + GUARD).fill(0xa5);
          arena.set(bytes, GUARD);
          const view = new DataView(arena.buffer);
          const length = innerLength(view, GUARD, bytes.length);
          if (length === 0) return;
          protocolOf(view, GUARD, length);
          transportAt(view, GUARD, length);
          isFragment(view, GUARD, length);
          const made = act === 0
            ? emitEchoReply(view, GUARD, length)
            : act === 1
            ? emitTcpReset(view, GUARD, length)
            : emitIcmpError(arena, view, GUARD, length, words, ICMP_ADMIN_PROHIBITED);
          if (made > 0) assertEquals(innerLength(view, GUARD, made), made);
          const end = GUARD + Math.max(bytes.length, Math.min(1280, bytes.length + 48));
          assertEquals(arena.subarray(0, GUARD).every((byte) => byte === 0xa5), true);
          assertEquals(arena.subarray(end).every((byte) => byte === 0xa5), true);
        }
      },
    ),
    options,
  );
});

Deno.test("fuzz: fragments of any shape come together to what was cut or to nothing", () => {
  const cut = fc.record({
    isIpv6: fc.boolean(),
    body: fc.uint8Array({ minLength: 24, maxLength: 3000, size: "max" }),
    mtu: fc.integer({ min: 80, max: 600 }),
    order: fc.array(fc.nat(), { minLength: 50, maxLength: 50 }),
    /** Single bytes of the pieces that are overwritten. */
    edits: fc.array(fc.tuple(fc.nat(40), fc.nat(60), fc.nat(255)), { maxLength: 3 }),
  });
  fc.assert(
    fc.property(cut, ({ isIpv6, body, mtu, order, edits }) => {
      const whole = new Uint8Array((isIpv6 ? 40 : 20) + body.length);
      const view = new DataView(whole.buffer);
      const words = Uint32Array.of(0xfd660000, 0, 0, 2);
      if (isIpv6) writeIpv6Header(view, 0, body.length, PROTOCOL_UDP, words, 0, words, 0);
      else writeIpv4Header(view, 0, whole.length, 0, 0, PROTOCOL_UDP, 0x0a420002, 0x08080808);
      whole.set(body, whole.length - body.length);
      const pieces = fragment(whole, mtu, 77).map((piece, i) => ({ piece, at: order[i % 50] }));
      pieces.sort((a, b) => a.at - b.at);
      for (const [which, at, value] of edits) {
        const { piece } = pieces[which % pieces.length];
        if (at > 0 && at < piece.length) piece[at] = value; // the version stays
      }
      const isTouched = edits.some(([which, at]) =>
        at > 0 && at < pieces[which % pieces.length].piece.length
      );
      let lost = 0;
      const reassembly = new Reassembly(() => lost++);
      const made = [];
      for (const { piece } of pieces) {
        const fragmentView = new DataView(piece.buffer, piece.byteOffset, piece.length);
        if (!isFragment(fragmentView, 0, piece.length)) continue;
        const joined = reassembly.add(piece, 0);
        if (joined) made.push(joined);
      }
      reassembly.expire(15e6);
      for (const one of made) {
        assertEquals(innerLength(new DataView(one.buffer), 0, one.length), one.length, "a whole packet");
      }
      if (pieces.length === 1 || isTouched) return;
      assertEquals(lost, 0);
      assertEquals(made.length, 1);
      assertEquals(made[0].subarray(made[0].length - body.length), body, "byte for byte");
    }),
    options,
  );
});

Deno.test("fuzz: addresses of any text parse to words or to nothing", () => {
  fc.assert(
    fc.property(fc.string(), (text) => {
      const words = parseAddress(text);
      assertEquals(words === undefined || words.length === 4, true);
      parsePrefix(text);
    }),
    options,
  );
  fc.assert(fc.property(fc.ipV6(), (text) => assertEquals(parseAddress(text)?.length, 4)), options);
  fc.assert(fc.property(fc.ipV4(), (text) => assertEquals(parseAddress(text)?.length, 4)), options);
});

Deno.test("fuzz: a full burst of noise is refused row by row", () => {
  const { world, server } = setting();
  const burst = new Burst(server.arena);
  for (const next of [TO_PARSE, TO_TUNNEL]) {
    while (burst.grow(world.random.u32() % 1900, next) >= 0);
    for (let row = 0; row < burst.count; row++) {
      world.random.fill(burst.bytes.subarray(burst.offset[row], burst.offset[row] + burst.length[row]));
    }
    if (next === TO_PARSE) server.core.ingest(burst, world.nowUs);
    else server.core.ingestInner(burst, world.nowUs);
    burst.release();
    assertEquals(server.arena.free, 1024);
  }
});
