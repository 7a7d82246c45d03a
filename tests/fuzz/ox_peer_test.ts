/**
 * A peer of OxTunnel that has the keys and means harm: whole worlds in which a client's datagrams carry random frames,
 * jumping counters, other ids of its session and moving addresses, between rotations, handshakes and both protocols. Held:
 * nothing is thrown, no slot and no session row is lost, and the relay still serves another client.
 */
import { assert, assertEquals } from "@std/assert";
import { loadNative } from "../../ffi/native.ts";
import { PortableShardKernel } from "../../src/codec/gf256.ts";
import { PortableLz4 } from "../../src/codec/lz4.ts";
import { DEFAULTS } from "../../src/config.ts";
import { repairOptions } from "../../src/repair/options.ts";
import { NativeLz4 } from "../../src/codec/native.ts";
import { NONE } from "../../src/vector/arena.ts";
import { Burst, TO_SEAL } from "../../src/vector/burst.ts";
import {
  CONTROL_ACK,
  Hint,
  keyPartBytes,
  writeClose,
  writeConnectionIds,
  writeKeyExchange,
  writePath,
  writePing,
  writePong,
  writeShort,
} from "../../src/wire/control.ts";
import { Report } from "../../src/wire/report.ts";
import { FRAME_REPAIR, writeFrameHead, writeLz4Head } from "../../src/wire/frame.ts";
import { WIREGUARD_LIMITS } from "../../src/session/limits.ts";
import type { Tunnel } from "../../src/tunnel.ts";
import { type Host, World } from "../kit/world.ts";
import { Random } from "../kit/random.ts";
import { udpPacket } from "../kit/packets.ts";

const SEED = Number(Deno.env.get("FUZZ_SEED") ?? 20260101);
const WORLDS = Math.max(6, Math.ceil(Number(Deno.env.get("FUZZ_RUNS") ?? 0) / 100));
const DATAGRAMS = 300;
const SECOND = 1_000_000;
const native = loadNative();
const PARTS_BYTES = 512;

/** What the tests reach into: the peer's own tables, to break its own rules. */
// deno-lint-ignore no-explicit-any
const inside = (host: Host<Tunnel>): any => host.core;

/** A report of anything, its arrivals no more than its bitmap marks. */
function writeReport(random: Random, view: DataView, at: number): number {
  const report = new Report();
  report.highest = random.u32() % 3 ? random.u32() % 100 : random.u32() * 65535;
  report.bitmapBytes = random.u32() % 33;
  random.fill(report.bitmap);
  report.delayUs = random.u32() % 2 ? random.u32() : random.u32() % 200_000;
  report.hasEcn = report.hasQuality = random.u32() % 2 > 0;
  report.congestionExperienced = random.u32();
  report.hasClock = random.u32() % 2 > 0;
  report.clock = random.u32() & 0xffff;
  report.repaired = random.u32();
  report.unrepaired = random.u32();
  report.reorderDepth = random.u32() & 0xffff;
  report.lossRuns.forEach((_, i) => report.lossRuns[i] = random.u32());
  report.arrivals.forEach((_, i) => report.arrivals[i] = random.u32());
  let marked = 0;
  for (let i = 0; i < report.bitmapBytes; i++) {
    for (let rest = report.bitmap[i]; rest > 0; rest &= rest - 1) marked++;
  }
  report.arrivalCount = random.u32() % (1 + Math.min(64, marked));
  return report.write(view, at);
}

/** LZ4 that comes out: a packet's header as literals, and a match of zeros behind it. */
function writeZeros(random: Random, view: DataView, at: number): number {
  const original = 150 + random.u32() % 250, match = original - 30 - 5 - 4 - 15;
  if (match < 0 || match >= 255) return 0;
  const body = writeLz4Head(view, at, 2 + 30 + 2 + 1 + 6, original);
  view.setUint16(body, 0xff00 | 15);
  udpPacket("10.66.0.2", "8.8.8.8", new Uint8Array(original - 28)).slice(0, 30)
    .forEach((byte, i) => view.setUint8(body + 2 + i, byte));
  view.setUint16(body + 32, 1, true);
  view.setUint8(body + 34, match);
  view.setUint8(body + 35, 0x50);
  return body + 41 - at;
}

/** A hint for nearly anything. */
function writeHint(random: Random, view: DataView, at: number): number {
  const hint = new Hint();
  hint.sequence = random.u32() % 6;
  hint.trafficClass = random.u32() & 255;
  hint.protocol = random.u32() % 3 === 0 ? 0 : random.u32() & 255;
  hint.lifetimeS = random.u32() % 4;
  hint.clientPort = random.u32() % 3;
  hint.remotePort = random.u32() % 3;
  hint.client.set(random.u32() & 1 ? [0, 0, 0xffff, random.u32() & 1 && 0x0a420002] : [0, 0, 0, 0]);
  hint.remote.set(random.u32() & 1 ? [0, 0, 0xffff, 0x08080808] : [random.u32(), 0, 0, 1]);
  return hint.write(view, at);
}

/** Connection ids, of which some are none or given before. */
function writeIds(random: Random, view: DataView, at: number): number {
  const ids = Uint32Array.of(random.u32(), NONE, 3, 4);
  const retired = random.u32() % 4 ? 0 : random.u32() & 0xffff;
  return writeConnectionIds(
    view,
    at,
    random.u32() % 6,
    random.u32() % 8,
    retired,
    ids,
    1 + random.u32() % 4,
  );
}

/** Writes one random frame; returns its bytes. */
function writeFrame(random: Random, view: DataView, at: number): number {
  const fill = (from: number, bytes: number) => {
    for (let i = 0; i < bytes; i++) view.setUint8(from + i, random.u32());
    return from + bytes - at;
  };
  switch (random.u32() % 14) {
    case 0:
      return writePing(view, at, random.u32());
    case 1:
      return writePong(view, at, random.u32(), random.u32());
    case 2:
      return writeReport(random, view, at);
    case 3:
      return writePath(view, at, 4 + (random.u32() & 1), random.u32(), random.u32());
    case 4:
      return writeShort(view, at, CONTROL_ACK, random.u32() % 5);
    case 5: {
      const role = random.u32() & 1, total = random.u32() & 1 ? 32 : role ? 1120 : 1216;
      const offset = total === 32 ? 0 : PARTS_BYTES * (random.u32() % 3);
      const body = writeKeyExchange(view, at, role, random.u32() % 6, total, offset);
      return fill(body, keyPartBytes(total, offset));
    }
    case 6:
      return random.u32() % 20 ? 0 : writeClose(view, at, random.u32() % 7, 1);
    case 7:
      return writeIds(random, view, at);
    case 8: {
      const bytes = 1 + random.u32() % 60;
      return fill(writeFrameHead(view, at, random.u32() % 16, bytes), bytes);
    }
    case 13: {
      // Repair: sources near and far, a bitmap of any length, any code and number.
      const bytes = 1 + random.u32() % 60;
      const body = writeFrameHead(view, at, FRAME_REPAIR, bytes);
      const end = fill(body, bytes);
      if (random.u32() % 4) view.setUint8(body, (random.u32() & 0x80) | random.u32() % 9);
      if (random.u32() % 4 && bytes > 1) view.setUint8(body + 1, 1 + random.u32() % 12);
      return end;
    }
    case 9: {
      // LZ4: noise, or something like a block; any length said.
      const bytes = 1 + random.u32() % 80;
      const body = writeLz4Head(
        view,
        at,
        bytes,
        random.u32() % 3 ? 20 + random.u32() % 1300 : random.u32() & 0xffff,
      );
      const end = fill(body, bytes);
      if (random.u32() & 1) { for (let i = 0; i < bytes; i += 4) view.setUint8(body + i, 0x1f); }
      return end;
    }
    case 10:
      return writeZeros(random, view, at);
    case 11:
      return writeHint(random, view, at);
    default:
      return 0;
  }
}

/** Seals a plaintext of the peer's own making, under the id and counter that it likes, and hands it to the relay. */
function send(random: Random, client: Host<Tunnel>, server: Host<Tunnel>, session: number): void {
  const { table, associations } = inside(client);
  const { paths, oxtunnel: { sessions } } = associations;
  const burst = new Burst(client.arena), row = burst.grow(0, TO_SEAL);
  let at = burst.offset[row];
  for (let left = random.u32() % 8; left > 0 && at - burst.offset[row] < 600; left--) {
    at += writeFrame(random, burst.view, at);
  }
  if (random.u32() & 1) {
    const target = ["8.8.8.8", "10.66.0.3", "10.0.0.1"][random.u32() % 3];
    udpPacket("10.66.0.2", target, new Uint8Array(random.u32() % 500)).forEach((byte) =>
      burst.view.setUint8(at++, byte)
    );
  }
  burst.length[row] = at - burst.offset[row];
  burst.session[row] = session;
  burst.peer[row] = 0;
  if (random.u32() % 40 === 0) table.sendCounter[session] += random.u32() & 1 ? 2 ** 31 - 5 : random.u32();
  // As if the relay had never reported: the longest counter on the wire.
  const acknowledged = paths.acknowledged[session];
  paths.acknowledged[session] = table.sendCounter[session] - 2 ** 28;
  burst.path[row] = session;
  sessions.number(burst, row, session, table.remoteIndex[session]);
  paths.acknowledged[session] = acknowledged;
  sessions.datagramAead.seal(burst);
  const datagram = burst.bytes.slice(burst.offset[row], burst.offset[row] + burst.length[row]);
  burst.release();
  if (random.u32() % 10 === 0) client.endpoint = `203.0.113.${random.u32() % 4}:${1 + random.u32() % 3}`;
  server.receive(datagram, client.endpoint);
}

Deno.test("fuzz: a peer of OxTunnel with the keys harms nobody, whatever it says", () => {
  for (let run = 0; run < WORLDS; run++) {
    const seed = SEED + run;
    const world = new World(seed);
    const random = new Random(seed);
    const kernel = typeof native === "string" || run % 2 === 0 ? new PortableLz4() : new NativeLz4(native);
    world.protocol = "oxtunnel";
    world.limits = {
      ...WIREGUARD_LIMITS,
      graceUs: 200_000,
      rekeyAfterUs: 2 * SECOND,
      rejectAfterUs: 5 * SECOND,
      sessionUs: 30 * SECOND,
    };
    const repair = repairOptions(new PortableShardKernel(), DEFAULTS.repair);
    const server = world.relay("192.0.2.1:4433", {
      ipv4: "10.66.0.1",
      maxConnections: 4,
      lz4: kernel,
      repair,
    });
    const client = world.client("198.51.100.7:5555", server, {
      ipv4: "10.66.0.2",
      lz4: new PortableLz4(),
      repair,
    });
    const other = world.client("198.51.100.8:5555", server, { ipv4: "10.66.0.3" });
    for (const [host, address] of [[client, "10.66.0.2"], [other, "10.66.0.3"]] as const) {
      host.send(udpPacket(address, "8.8.8.8", new Uint8Array(10)));
    }
    world.runFor(SECOND);
    const { free } = server.arena;
    const { peers, associations } = inside(client);
    for (let i = 0; i < DATAGRAMS; i++) {
      const session = random.u32() % 8 ? peers.current[0] : peers.previous[0];
      if (session === NONE || inside(client).table.protocol[session] !== 2) {
        peers.protocol[0] = 2;
        client.send(udpPacket("10.66.0.2", "8.8.8.8", new Uint8Array(4)));
        world.runFor(300_000);
        continue;
      }
      send(random, client, server, session);
      if (random.u32() % 4 === 0) {
        server.send(udpPacket("8.8.8.8", "10.66.0.2", new Uint8Array(random.u32() % 1300)));
      }
      if (random.u32() % 60 === 0) peers.protocol[0] = 1 + random.u32() % 2;
      if (random.u32() % 60 === 0) {
        associations.outbox.initiate(0);
        client.tick();
      }
      world.runFor(random.u32() % 40_000);
    }
    const before = server.delivered.length;
    other.send(udpPacket("10.66.0.3", "8.8.4.4", new Uint8Array(10)));
    world.runFor(10 * SECOND);
    assert(server.delivered.length > before, `seed ${seed}: the other client is served`);
    world.runFor(120 * SECOND);
    assertEquals(server.arena.free, free, `seed ${seed}: slots`);
    assert(inside(server).table.count < 40, `seed ${seed}: ${inside(server).table.count} rows are left`);
  }
});

Deno.test("fuzz: a counter that jumps by 2^31 makes no report that cannot be written", () => {
  for (const pauseUs of [39_000, SECOND]) {
    const world = new World(SEED);
    world.protocol = "oxtunnel";
    const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1" });
    const client = world.client("198.51.100.7:5555", server, { ipv4: "10.66.0.2" });
    const packet = udpPacket("10.66.0.2", "8.8.8.8", new Uint8Array(100));
    client.send(packet);
    world.runFor(2 * SECOND);
    const { table, peers, associations } = inside(client);
    const session = peers.current[0];
    table.sendCounter[session] = 2 ** 31 + 60;
    table.sendLimit[session] = Infinity;
    associations.paths.acknowledged[session] = 2 ** 31 - 2 ** 28;
    client.send(packet);
    world.runFor(pauseUs);
    const before = client.delivered.length;
    server.send(udpPacket("8.8.8.8", "10.66.0.2", new Uint8Array(100)));
    world.runFor(SECOND);
    assertEquals(client.delivered.length, before + 1);
    assertEquals(server.metrics.dropped("forged"), 0);
  }
});
