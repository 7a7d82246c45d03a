/**
 * The arena and the burst against a set of owned slots. Invariant under test: a slot has one owner, exhaustion is
 * an answer and no error, held rows keep their slots, and the columns tile their block. FUZZ_SEED and FUZZ_RUNS
 * choose the run.
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { cString, libc } from "../../ffi/mod.ts";
import { arenaHandle, loadNative } from "../../ffi/native.ts";
import {
  Arena,
  HEADROOM,
  MAX_PACKET_BYTES,
  NONE,
  packetStart,
  SLOT_BYTES,
  TAILROOM,
} from "../../src/vector/arena.ts";
import {
  Burst,
  BURST_CAPACITY,
  BURST_LAYOUT,
  DONE,
  HELD,
  TO_PARSE,
  TO_SEAL,
} from "../../src/vector/burst.ts";

const native = loadNative();

const options = {
  numRuns: Number(Deno.env.get("FUZZ_RUNS") ?? 500),
  seed: Number(Deno.env.get("FUZZ_SEED") ?? 20260101),
};

Deno.test("arena: takes and releases in any order give each slot one owner", () => {
  const verb = fc.oneof(fc.constant(-1), fc.nat(1000));
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 20 }),
      fc.array(verb, { maxLength: 200, size: "max" }),
      (slotCount, verbs) => {
        const arena = new Arena(slotCount);
        const owned: number[] = [];
        for (const verb of verbs) {
          if (verb < 0) {
            const slot = arena.take();
            if (owned.length === slotCount) assertEquals(slot, NONE);
            else {
              assert(slot < slotCount && !owned.includes(slot), `slot ${slot} of ${slotCount} taken twice`);
              owned.push(slot);
            }
          } else if (owned.length > 0) arena.release(owned.splice(verb % owned.length, 1)[0]);
          assertEquals(arena.free, slotCount - owned.length);
        }
      },
    ),
    options,
  );
});

Deno.test("arena: slots lie side by side, with room around the longest packet", () => {
  const arena = new Arena(3);
  assertEquals([arena.bytes.length, arena.view.byteLength], [3 * SLOT_BYTES, 3 * SLOT_BYTES]);
  for (let slot = 0; slot < 3; slot++) {
    assertEquals(packetStart(slot), slot * SLOT_BYTES + HEADROOM);
    assertEquals(packetStart(slot) + MAX_PACKET_BYTES + TAILROOM, (slot + 1) * SLOT_BYTES);
  }
  // A data header fits in front, up to 15 bytes of padding and a tag of 16 behind.
  assert(HEADROOM >= 16 && TAILROOM >= 15 + 16);
  for (const bad of [0, -1, 1.5, NaN, (1 << 20) + 1]) assertThrows(() => new Arena(bad), RangeError);
});

Deno.test("burst: rows own their slots until release, held ones beyond it", () => {
  const rows = fc.array(fc.constantFrom(DONE, TO_PARSE, TO_SEAL, HELD, 32, 255), {
    maxLength: 300,
    size: "max",
  });
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 300 }), fc.array(rows, { maxLength: 4 }), (slotCount, bursts) => {
      const arena = new Arena(slotCount);
      const burst = new Burst(arena);
      const held = new Set<number>();
      for (const nexts of bursts) {
        for (const next of nexts) {
          const full = burst.count === BURST_CAPACITY || arena.free === 0;
          const { count } = burst;
          const row = burst.grow(77, next);
          assertEquals(row, full ? -1 : count);
          if (full) continue;
          assert(!held.has(burst.slot[row]), "a held slot was given to another row");
          assertEquals(
            [
              burst.offset[row],
              burst.length[row],
              burst.next[row],
              burst.session[row],
              burst.peer[row],
              burst.ecn[row],
            ],
            [packetStart(burst.slot[row]), 77, next, NONE, NONE, 0],
          );
        }
        const live = [...burst.slot.subarray(0, burst.count)];
        assertEquals(new Set(live).size, live.length);
        assertEquals(arena.free, slotCount - held.size - live.length);
        live.forEach((slot, row) => burst.next[row] === HELD && held.add(slot));
        burst.ecn.fill(3); // what a later row must not inherit
        burst.session.fill(9);
        burst.peer.fill(9);
        burst.release();
        assertEquals([burst.count, arena.free], [0, slotCount - held.size]);
      }
      for (const slot of held) arena.release(slot);
      assertEquals(arena.free, slotCount);
    }),
    options,
  );
});

Deno.test("burst: the columns lie where the layout says, and tile the block", () => {
  const burst = new Burst(new Arena(1));
  const { bytes, ...places } = BURST_LAYOUT;
  const names = Object.keys(places) as (keyof typeof places)[];
  let end = 0;
  for (const name of names.toSorted((a, b) => places[a] - places[b])) {
    const column = burst[name];
    assert(column.buffer === burst.block, `${name} is elsewhere`);
    assertEquals([name, column.byteOffset, places[name]], [name, end, end]);
    assertEquals(column.length, (name === "address" || name === "local" ? 4 : 1) * BURST_CAPACITY);
    end += column.byteLength;
  }
  assertEquals([end, burst.block.byteLength], [bytes, bytes]);
  // Every typed array over the block is one of the layout's columns.
  const columns = Object.entries(burst).filter(([, value]) =>
    ArrayBuffer.isView(value) && value.buffer === burst.block
  );
  assertEquals(columns.map(([name]) => name).sort(), [...names].sort());
});

Deno.test({
  name: "arena: once native code knows it, the system may back it by huge pages",
  ignore: typeof native === "string",
  fn() {
    if (typeof native === "string") return;
    const advised = () => readByLibc("/proc/self/smaps").match(/^VmFlags:.* hg/gm)?.length ?? 0;
    const before = advised();
    const arena = new Arena(8192);
    assertEquals(advised(), before);
    arenaHandle(native, arena);
    assertEquals(advised(), before + 1);
  },
});

/** A file that Deno itself opens for nobody without all permissions. */
function readByLibc(path: string): string {
  const fd = libc().open(cString(path), 0);
  assert(fd >= 0);
  const chunk = new Uint8Array(65536);
  const decoder = new TextDecoder();
  let text = "";
  for (let length = 1; length > 0;) {
    length = Number(libc().read(fd, chunk, BigInt(chunk.length)));
    text += decoder.decode(chunk.subarray(0, Math.max(0, length)), { stream: true });
  }
  libc().close(fd);
  return text;
}
