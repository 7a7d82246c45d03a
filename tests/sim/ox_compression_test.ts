/**
 * LZ4 on the live path between whole relays and clients: what it saves on the wire, that it is negotiated, that what does
 * not shrink goes as it is, and what a peer that lies about its frames gets. With every kernel that runs here.
 */
import { assert, assertEquals, assertGreater, assertLess } from "@std/assert";
import { loadNative } from "../../ffi/native.ts";
import type { Client } from "../../src/client.ts";
import type { Lz4 } from "../../src/codec/kernels.ts";
import { PortableLz4 } from "../../src/codec/lz4.ts";
import { NativeLz4 } from "../../src/codec/native.ts";
import { type Counts, innerTotals, shares } from "../../src/connect/link/counts.ts";
import type { Relay } from "../../src/relay.ts";
import { writeLz4Head } from "../../src/wire/frame.ts";
import { FEATURE_LZ4 } from "../../src/wire/parameters.ts";
import { RawPeer } from "../kit/raw_peer.ts";
import { CLOSED, dial, type Host, World } from "../kit/world.ts";
import { Random } from "../kit/random.ts";
import { udpPacket } from "../kit/packets.ts";

const SECOND = 1_000_000;
const SEED = Number(Deno.env.get("SIM_SEED") ?? 1);
const native = loadNative();
const KERNELS: Record<string, () => Lz4> = {
  portable: () => new PortableLz4(),
  ...(typeof native === "string" ? {} : { native: () => new NativeLz4(native) }),
};

/** Prose that repeats itself as prose does, not more. */
function text(bytes: number, seed: number): Uint8Array {
  const random = new Random(seed);
  const words =
    "the relay keeps queues short and hides loss where it can so that a packet which is late is not lost"
      .split(" ");
  let out = "";
  while (out.length < bytes) out += `${words[random.u32() % words.length]} `;
  return new TextEncoder().encode(out.slice(0, bytes));
}

function noise(bytes: number, seed: number): Uint8Array {
  const out = new Uint8Array(bytes);
  new Random(seed).fill(out);
  return out;
}

const NOTHING: Counts = {
  atMs: 0,
  session: 1,
  reported: 0,
  reportedReceived: 0,
  seen: 0,
  received: 0,
  packets: 0,
  bytesSent: 0,
  bytesReceived: 0,
  datagrams: 0,
  datagramBytes: 0,
  classesUp: [],
  classesDown: [],
  cpuUs: 0,
};

interface Pair {
  world: World;
  client: Host<Client>;
  server: Host<Relay>;
  /** Bytes of the datagrams so far, both ways. */
  bytes: () => number;
}

function pair(ofClient: Lz4 | undefined, ofRelay: Lz4 | undefined): Pair {
  const world = new World(SEED);
  world.protocol = "oxtunnel";
  const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1", lz4: ofRelay });
  const client = world.client("198.51.100.7:5555", server, { ipv4: "10.66.0.2", lz4: ofClient });
  let sum = 0;
  world.tap = (_from, _to, bytes) => (sum += bytes.length, bytes);
  client.send(udpPacket("10.66.0.2", "8.8.8.8", new Uint8Array(10)));
  world.runFor(SECOND);
  return { world, client, server, bytes: () => sum };
}

/** Sends the payloads both ways; returns the bytes that this cost on the wire and what arrived. */
function carry({ world, client, server, bytes }: Pair, payloads: Uint8Array[]): number {
  const before = bytes();
  const [up, down] = [server.delivered.length, client.delivered.length];
  for (const payload of payloads) {
    client.send(udpPacket("10.66.0.2", "8.8.8.8", payload));
    server.send(udpPacket("8.8.8.8", "10.66.0.2", payload));
    world.runFor(5000);
  }
  world.runFor(SECOND);
  const sent = payloads.map((payload) => udpPacket("10.66.0.2", "8.8.8.8", payload));
  assertEquals(server.delivered.slice(up), sent);
  assertEquals(client.delivered.slice(down), payloads.map((one) => udpPacket("8.8.8.8", "10.66.0.2", one)));
  return bytes() - before;
}

for (const [name, make] of Object.entries(KERNELS)) {
  Deno.test(`compression: a client's totals are of the packets as they came, so that what it saves is seen (${name}, seed ${SEED})`, () => {
    const payloads = Array.from({ length: 40 }, (_, i) => text(i % 3 === 0 ? 100 : 1200, i));
    const savedBy = (kernel: () => Lz4 | undefined) => {
      const { world, client, server } = pair(kernel(), kernel());
      let datagrams = 0, datagramBytes = 0;
      world.tap = (from, _to, bytes) => {
        if (from === client.endpoint) {
          datagrams++;
          datagramBytes += bytes.length;
        }
        return bytes;
      };
      const totals = () => innerTotals(client.metrics, client.core.peerSnapshots(world.nowUs)[0], true);
      const countsAt = (atMs: number): Counts => ({
        ...NOTHING,
        ...totals(),
        atMs,
        datagrams,
        datagramBytes,
      });
      const before = totals(), first = countsAt(0);
      // Some come alone, others together and so share datagrams.
      const send = (from: Host, source: string, to: string) => {
        const packets = payloads.map((payload) => udpPacket(source, to, payload));
        for (const packet of packets.slice(0, 20)) from.send(packet);
        from.sendBurst(packets.slice(20));
        world.runFor(SECOND);
        return packets.reduce((sum, { length }) => sum + length, 0);
      };
      const up = send(client, "10.66.0.2", "8.8.8.8"), down = send(server, "8.8.8.8", "10.66.0.2");
      const after = totals();
      assertEquals(after.packets - before.packets, payloads.length);
      assertEquals(after.bytesSent - before.bytesSent, up);
      assertEquals(after.bytesReceived - before.bytesReceived, down);
      return shares([first, countsAt(1000)]).savedBytes - shares([first]).savedBytes;
    };
    const off = savedBy(() => undefined), on = savedBy(make);
    assertGreater(on, off + 0.25 * 26 * 1200, "what the text lost on its way");
  });

  Deno.test(`compression: text takes less on the wire, and the same without it (${name}, seed ${SEED})`, () => {
    const payloads = Array.from({ length: 50 }, (_, i) => text(1200, i));
    const off = carry(pair(undefined, undefined), payloads);
    const on = pair(make(), make());
    const compressed = carry(on, payloads);
    assertLess(compressed, 0.75 * off, `${compressed} of ${off} bytes`);
    for (const host of [on.client, on.server]) {
      assertGreater(host.metrics.get("packets_compressed"), 45);
      assertGreater(host.metrics.get("bytes_saved"), 0.25 * 45 * 1200);
    }
    // One end that does not want it is enough.
    for (const one of [pair(make(), undefined), pair(undefined, make())]) {
      assertEquals(carry(one, payloads), off);
      assertEquals(one.server.metrics.get("packets_compressed"), 0);
    }
  });

  Deno.test(`compression: what is encrypted already is hardly tried and never grows (${name}, seed ${SEED})`, () => {
    const payloads = Array.from({ length: 300 }, (_, i) => noise(1200, i));
    const off = carry(pair(undefined, undefined), payloads);
    const on = pair(make(), make());
    assertEquals(carry(on, payloads), off);
    assertEquals(on.server.metrics.get("packets_compressed"), 0);
    assertGreater(on.server.metrics.get("compressions_skipped"), 295);
  });
}

Deno.test(`compression: a relay that runs may be told to begin, to spare short packets, and to stop (seed ${SEED})`, () => {
  const lz4 = new PortableLz4();
  const both = pair(lz4, undefined), { client, server, world } = both;
  const tune = (thresholdBytes: number | undefined) =>
    server.core.tune({
      maxConnections: 10,
      rateLimitPerIp: 20,
      classes: { rules: [] },
      destinations: CLOSED,
      compression: thresholdBytes === undefined ? undefined : { lz4, thresholdBytes },
    });
  const payloads = Array.from({ length: 50 }, (_, i) => text(600, i));
  const compressed = () => [client, server].map(({ metrics }) => metrics.get("packets_compressed"));
  carry(both, payloads);
  assertEquals(compressed(), [0, 0]);
  // A session that did not agree stays as it is; the next one does.
  tune(64);
  carry(both, payloads);
  assertEquals(compressed(), [0, 0]);
  client.core.disconnect(world.nowUs);
  client.tick();
  world.runFor(2 * SECOND);
  dial(client, server);
  world.runFor(2 * SECOND);
  carry(both, payloads);
  const [up, down] = compressed();
  assert(up > 45 && down > 45, `${up} ${down}`);
  tune(1000);
  carry(both, payloads);
  assertEquals(compressed()[1], down, "they are too short now");
  tune(undefined);
  const long = Array.from({ length: 50 }, (_, i) => text(1200, i));
  carry(both, long);
  assertEquals(compressed()[1], down);
  assertGreater(compressed()[0], up + 80, "what the client compresses is read still");
});

/** The kernel with a count of what it is asked. */
class Counted extends PortableLz4 {
  tries = 0;

  override compress(...args: Parameters<Lz4["compress"]>): number {
    this.tries++;
    return super.compress(...args);
  }
}

Deno.test(`compression: a flow that did not shrink is tried less and less, others are not (seed ${SEED})`, () => {
  const kernel = new Counted(), on = pair(new PortableLz4(), kernel);
  // Neither text nor noise: the bytes pass the test, and nothing in them comes twice.
  const letters = (i: number) => noise(1200, i).map((byte) => 48 + byte % 30);
  for (let i = 0; i < 1000; i++) {
    on.server.send(udpPacket("8.8.8.8", "10.66.0.2", letters(i)));
    on.world.runFor(1000);
  }
  assert(kernel.tries >= 8 && kernel.tries <= 12, `${kernel.tries} tries in 1000 packets`);
  assertEquals(on.server.metrics.get("packets_compressed"), 0);
  const before = kernel.tries;
  for (let i = 0; i < 20; i++) on.server.send(udpPacket("8.8.4.4", "10.66.0.2", text(1200, i)));
  assertEquals(kernel.tries, before + 20);
  assertEquals(on.server.metrics.get("packets_compressed"), 20);
});

Deno.test(`compression: packets that would shrink to less than a sixteenth go as they are (seed ${SEED})`, () => {
  const payloads = Array.from({ length: 10 }, () => new Uint8Array(1300));
  for (const make of Object.values(KERNELS)) {
    const on = pair(make(), make());
    carry(on, payloads);
    assertEquals(
      on.server.metrics.get("packets_compressed"),
      0,
      "a packet of 16 times its frame is not sent so",
    );
  }
});

/** A relay with LZ4 and a peer that says what it likes. */
function rawPair(features: number, make: () => Lz4): { server: Host<Relay>; peer: RawPeer } {
  const world = new World(SEED);
  const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1", lz4: make() });
  const peer = new RawPeer(world, server, "198.51.100.9:9", "10.66.0.9");
  peer.connect({ features, aeads: [1], connectionIds: [5, 6, 7] });
  return { server, peer };
}

/** One frame of literals only: the block is the packet behind its length. */
function literalFrame(packet: Uint8Array, original = packet.length): Uint8Array {
  const head = packet.length < 15 ? [packet.length << 4] : [0xf0, packet.length - 15];
  const frame = new Uint8Array(4 + head.length + packet.length);
  writeLz4Head(new DataView(frame.buffer), 0, head.length + packet.length, original);
  frame.set(head, 4);
  frame.set(packet, 4 + head.length);
  return frame;
}

/** A frame whose block is one literal run and one match of `bytes` at `distance`, then the last five bytes. */
function matchFrame(start: Uint8Array, distance: number, bytes: number, original: number): Uint8Array {
  const extra = bytes - 4 - 15;
  const block = [0xf0 | 15, start.length - 15, ...start, distance & 255, distance >> 8];
  for (let left = extra; left >= 0; left -= 255) block.push(Math.min(255, left));
  block.push(0x50, 1, 2, 3, 4, 5);
  const frame = new Uint8Array(4 + block.length);
  writeLz4Head(new DataView(frame.buffer), 0, block.length, original);
  frame.set(block, 4);
  return frame;
}

Deno.test(`compression: a peer's LZ4 frames that lie are dropped, each alone (seed ${SEED})`, () => {
  for (const make of Object.values(KERNELS)) {
    const { server, peer } = rawPair(FEATURE_LZ4, make);
    const { free } = server.arena;
    const whole = udpPacket("10.66.0.9", "8.8.8.8", new Uint8Array(600));
    const headOf = (bytes: number, length = 60) =>
      udpPacket("10.66.0.9", "8.8.8.8", new Uint8Array(Math.max(92, bytes - 28))).slice(0, length);
    const head = headOf(whole.length);
    const good = matchFrame(head, 1, whole.length - 60 - 5, whole.length);
    const last = whole.slice();
    last.set([1, 2, 3, 4, 5], whole.length - 5);
    peer.send(good);
    assertEquals(server.delivered.pop(), last, "what is honest comes through");
    const lies: Record<string, Uint8Array> = {
      "longer than it said": matchFrame(head, 1, whole.length - 60 - 5, whole.length - 1),
      "shorter than it said": matchFrame(head, 1, whole.length - 60 - 6, whole.length),
      "from before its start": matchFrame(head, 61, whole.length - 60 - 5, whole.length),
      "from nowhere": matchFrame(head, 0, whole.length - 60 - 5, whole.length),
      "longer than a bare one may be": matchFrame(headOf(1912, 120), 1, 1912 - 120 - 5, 1912),
      "more than 16 times its body": matchFrame(headOf(1400, 30), 1, 1400 - 30 - 5, 1400),
      "not smaller": literalFrame(headOf(120, 120)),
      "longer than its packet": matchFrame(headOf(500), 1, whole.length - 60 - 5, whole.length),
      "no packet": matchFrame(new Uint8Array(60), 1, whole.length - 60 - 5, whole.length),
      "a frame in a frame": matchFrame(good.slice(0, 60), 1, whole.length - 60 - 5, whole.length),
    };
    for (const [name, lie] of Object.entries(lies)) {
      const dropped = server.metrics.dropped("malformed_inner");
      peer.send(lie);
      assertEquals(server.delivered.length, 0, name);
      assertEquals(server.metrics.dropped("malformed_inner"), dropped + 1, name);
      // What rides along arrives.
      peer.send(Uint8Array.of(...lie, ...good, ...lie, ...whole));
      assertEquals(server.delivered.splice(0), [last, whole], name);
      assertEquals(server.metrics.dropped("malformed_inner"), dropped + 3, name);
    }
    assertEquals(server.arena.free, free, "no slot is lost");
  }
});

Deno.test(`compression: frames of a feature that was not accepted are skipped (seed ${SEED})`, () => {
  const { server, peer } = rawPair(0, KERNELS.portable);
  const whole = udpPacket("10.66.0.9", "8.8.8.8", new Uint8Array(600));
  const frame = matchFrame(whole.slice(0, 60), 1, whole.length - 60 - 5, whole.length);
  peer.send(Uint8Array.of(...frame, ...whole));
  assertEquals(server.delivered, [whole]);
  assertEquals(server.metrics.dropped("malformed_inner"), 0);
  assert((peer.told.features! & FEATURE_LZ4) === 0);
});

Deno.test(`compression: a client with a smaller MTU than the relay's gets whatever it would get uncompressed (seed ${SEED})`, () => {
  for (const mtu of [1280, 1100]) {
    const world = new World(SEED);
    world.protocol = "oxtunnel";
    const lz4 = new PortableLz4();
    const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1", lz4 });
    const client = world.client("198.51.100.7:5555", server, { ipv4: "10.66.0.2", lz4, mtu });
    client.send(udpPacket("10.66.0.2", "8.8.8.8", new Uint8Array(10)));
    world.runFor(5 * SECOND);
    for (const bytes of [mtu, 1175, 1400]) {
      const before = server.metrics.get("packets_compressed");
      client.delivered.length = 0;
      server.send(udpPacket("8.8.8.8", "10.66.0.2", text(bytes - 28, 1)));
      world.runFor(SECOND);
      const arrived = client.delivered.reduce((sum, packet) => sum + packet.length - 20, 0);
      assertEquals(arrived, bytes - 20, `${bytes} of ${mtu}, in pieces or whole`);
      assertGreater(server.metrics.get("packets_compressed"), before);
    }
  }
});
