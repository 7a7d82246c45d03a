/**
 * Prefetching, which may cost time and nothing else: a relay that does it carries what one that does not carries, its
 * own steps leave tables and bursts as they were whatever the bytes are, and the peers that it finds are those of the table of
 * prefixes. Also who sees the memory of tables. Measures no speed: bench/sessions_bench.ts does.
 */
import { assert, assertEquals, assertLessOrEqual } from "@std/assert";
import { loadNative } from "../../ffi/native.ts";
import { nativeAdviser } from "../../src/codec/native.ts";
import type { EgressContext } from "../../src/egress/mod.ts";
import { prefetch as prefetchEgress } from "../../src/egress/prefetch.ts";
import type { IngressContext } from "../../src/ingress/mod.ts";
import { prefetch as prefetchIngress } from "../../src/ingress/prefetch.ts";
import { PrefixTable } from "../../src/vector/prefix_table.ts";
import { ReplayWindows } from "../../src/session/replay.ts";
import { SESSIONS_CACHED } from "../../src/session/table.ts";
import { NONE } from "../../src/vector/arena.ts";
import { Burst, BURST_CAPACITY, TO_PARSE, TO_SEAL, TO_TUNNEL } from "../../src/vector/burst.ts";
import { adviseTables } from "../../src/vector/memory.ts";
import { type Host, World } from "../kit/world.ts";
import { numbers, payload, udpPacket } from "../kit/packets.ts";
import { Random } from "../kit/random.ts";

const SECOND = 1_000_000;
const SEED = Number(Deno.env.get("SIM_SEED") ?? 1);
const CLIENTS = 6;

/** A relay with clients of both protocols in turn, all in session. */
function relayWithClients(seed: number) {
  const world = new World(seed);
  const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1" });
  const clients = Array.from({ length: CLIENTS }, (_, i) => {
    const protocol = i % 2 === 0 ? "wireguard" : "oxtunnel";
    return world.client(`198.51.100.${i}:5555`, server, { ipv4: `10.66.1.${i}`, protocol });
  });
  clients.forEach((client, i) => client.send(udpPacket(`10.66.1.${i}`, "8.8.8.8", payload(1000 + i))));
  world.runFor(SECOND);
  return { world, server, clients };
}

// deno-lint-ignore no-explicit-any
const insides = (host: Host) => host.core as any;

/** More sessions than the caches hold, as far as the table can tell. */
function crowd(server: Host): void {
  const { table } = insides(server);
  for (let i = 0; i <= SESSIONS_CACHED; i++) table.allocate(NONE);
}

/** The state of a relay and its clients after bursts in both directions that mix all clients. */
function outcome(isCrowded: boolean) {
  const { world, server, clients } = relayWithClients(SEED);
  if (isCrowded) crowd(server);
  const random = new Random(SEED);
  for (let round = 0; round < 50; round++) {
    const burst = Array.from({ length: 40 }, (_, i) => {
      const to = random.u32() % (CLIENTS + 1); // the last is nobody
      return udpPacket("8.8.8.8", `10.66.1.${to}`, payload(100 * round + i));
    });
    server.sendBurst(burst);
    clients.forEach((client, i) => {
      client.send(udpPacket(`10.66.1.${i}`, "8.8.8.8", payload(round)));
      client.send(udpPacket(`10.66.1.${(i + 1) % CLIENTS}`, "8.8.8.8", payload(round))); // another's address
    });
    world.runFor(SECOND / 50);
  }
  world.runFor(SECOND);
  const { metrics } = server;
  metrics.set("sessions", 0);
  return { counts: [...metrics.column], server: numbers(server), clients: clients.map(numbers) };
}

Deno.test(`prefetch: a relay carries the same with it as without (seed ${SEED})`, () => {
  const plain = outcome(false);
  assert(plain.server.length >= 50 * CLIENTS && plain.clients.every((got) => got.length > 200));
  assertEquals(outcome(true), plain);
});

Deno.test(`prefetch: whatever the bytes are, ingress's leaves burst and tables as they were (seed ${SEED})`, () => {
  const { server } = relayWithClients(SEED);
  crowd(server);
  const { table, peers, associations } = insides(server);
  const context = { table, peers, associations } as unknown as IngressContext;
  const columns = () =>
    [table, table.replay, peers, associations.paths].flatMap((all) => Object.values(all)).filter(
      ArrayBuffer.isView,
    );
  const before = columns().map((column) => column.toString());
  assert(before.length > 25);
  const burst = new Burst(server.arena), random = new Random(SEED);
  for (let round = 0; round < 50; round++) {
    for (let i = 0; i < BURST_CAPACITY; i++) {
      const row = burst.grow(random.u32() % 100, i % 8 === 0 ? TO_SEAL : TO_PARSE), at = burst.offset[row];
      for (let j = 0; j < 100; j++) burst.bytes[at + j] = random.u32();
      // Some name a row that there is.
      const known = table.receiverIndex[random.u32() % 40];
      if (i % 3 === 0) burst.view.setUint32(at + (burst.bytes[at] & 0x40 ? 1 : 4), known, true);
    }
    const block = new Uint8Array(burst.block).slice(), bytes = burst.bytes.slice();
    prefetchIngress(burst, context);
    assertEquals(new Uint8Array(burst.block), block);
    assertEquals(burst.bytes.every((byte, i) => byte === bytes[i]), true);
    burst.release();
  }
  assertEquals(columns().map((column) => column.toString()), before);
});

Deno.test(`prefetch: egress's finds the peers that the table of prefixes has (seed ${SEED})`, () => {
  const { server } = relayWithClients(SEED);
  const { table, peers, associations } = insides(server);
  const words = new Uint32Array(4);
  const context = { table, peers, associations, words } as unknown as EgressContext;
  const burst = new Burst(server.arena), random = new Random(SEED);
  const found = (isCrowded: boolean) => {
    if (isCrowded) crowd(server);
    const expected: number[] = [];
    for (let i = 0; i < BURST_CAPACITY; i++) {
      const to = random.u32() % (CLIENTS + 1);
      const packet = udpPacket("8.8.8.8", `10.66.1.${to}`, payload(i));
      const isWhole = i % 5 !== 0, isKnown = i % 7 === 0;
      const row = burst.grow(isWhole ? packet.length : 19, TO_TUNNEL);
      burst.bytes.set(packet, burst.offset[row]);
      if (isKnown) burst.peer[row] = 3;
      expected.push(isKnown ? 3 : isWhole && to < CLIENTS ? to : NONE);
    }
    prefetchEgress(burst, context);
    const got = Array.from(burst.peer);
    burst.release();
    return { expected, got };
  };
  assertEquals(new Set(found(false).got), new Set([3, NONE])); // few sessions: nothing is looked up
  const { expected, got } = found(true);
  // In a run to one destination the first stands for all.
  const wrong = got.filter((peer, row) => peer !== expected[row] && peer !== NONE);
  assertEquals(wrong, []);
  const left = got.filter((peer, row) => peer === NONE && expected[row] !== NONE).length;
  assert(left < BURST_CAPACITY / 3, `${left} of ${BURST_CAPACITY} rows are left to steer`);
});

Deno.test("table memory: who asked sees windows and prefixes, before they are written", () => {
  const seen: number[] = [];
  adviseTables((memory) => {
    assert(memory.every((word) => word === 0));
    seen.push(memory.length);
  });
  try {
    new ReplayWindows(3);
    const table = new PrefixTable(1);
    for (let i = 0; i < 3; i++) table.set(Uint32Array.of(0, 0, 0xffff, i), 128, i);
    assertEquals(seen, [3 * 512, 2 * 8, 4 * 8, 8 * 8]);
    assertEquals([0, 1, 2].map((i) => table.lookup(Uint32Array.of(0, 0, 0xffff, i), 0)), [0, 1, 2]);
  } finally {
    adviseTables(() => {});
  }
});

const native = loadNative();
if (typeof native === "string") console.error(`SKIPPED part of tests/unit/prefetch_test.ts: ${native}`);

Deno.test({
  name: "table memory: the native adviser asks for large pages",
  ignore: typeof native === "string",
  fn() {
    if (typeof native === "string") return;
    const advise = nativeAdviser(native);
    // Kilobytes that are to have large pages. Deno shows nobody its own memory map; a shell may look.
    const advisedKb = () => {
      const script =
        `awk '/^Size:/ { kb = $2 } /^VmFlags:.* hg/ { sum += kb } END { print sum + 0 }' /proc/${Deno.pid}/smaps`;
      return Number(
        new TextDecoder().decode(new Deno.Command("sh", { args: ["-c", script] }).outputSync().stdout),
      );
    };
    // What others had advised may be collected meanwhile, but nothing else adds to it.
    const grownKb = (memory: Uint32Array<ArrayBuffer>) => {
      const before = advisedKb();
      advise(memory);
      memory[memory.length - 1] = 1;
      return advisedKb() - before;
    };
    assertLessOrEqual(grownKb(new Uint32Array(8)), 0, "too small for any: nothing to ask for");
    // Of 16 MB, all but what is less than a large page at either end.
    const isAdvised = () => grownKb(new Uint32Array(4 << 20)) >= 12 * 1024;
    assert(isAdvised() || isAdvised() || isAdvised());
  },
});
