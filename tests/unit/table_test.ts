/**
 * The session table at its size: indices name the Worker and the row, a row that was given back or never taken is not
 * found, and every row up to the capacity can be had.
 */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import type { Aead } from "../../src/codec/kernels.ts";
import { Scrambler } from "../../src/session/scramble.ts";
import { SESSION_ROWS_MAX, SessionTable } from "../../src/session/table.ts";
import { NONE } from "../../src/vector/arena.ts";
import { Random } from "../kit/random.ts";

const KEY = new Uint8Array(32);

/** Remembers which rows have keys; the table's own bookkeeping is what is under test. */
class Keyring implements Aead {
  readonly rows = new Set<number>();
  install = (row: number) => void this.rows.add(row);
  erase = (row: number) => void this.rows.delete(row);
  open = () => {};
  seal = () => {};
}

function tableOf(capacity: number, worker = 0, random = new Random(7)) {
  const keys = new Keyring();
  return { keys, table: new SessionTable(capacity, worker, keys, () => random.u32()) };
}

Deno.test("session table: the top four bits of an index name the Worker, and the index its row", () => {
  for (const worker of [0, 9, 15]) {
    const { table } = tableOf(SESSION_ROWS_MAX, worker);
    for (let i = 0; i < 300_000; i++) {
      const row = table.allocate(i), index = table.receiverIndex[row];
      assertEquals([index >>> 28, table.find(index)], [worker, row]);
    }
  }
});

Deno.test("session table: indices of neighbouring rows look like any others", () => {
  const { table } = tableOf(4096);
  const indices = Array.from({ length: 4096 }, () => table.receiverIndex[table.allocate(0)]);
  // Every bit below the Worker's differs between neighbours in half of the pairs, give or take 6 deviations.
  for (let bit = 0; bit < 28; bit++) {
    const differ = indices.slice(1).filter((index, i) => ((index ^ indices[i]) >>> bit) & 1).length;
    assert(Math.abs(differ - 2047.5) < 6 * 32, `bit ${bit}: ${differ}`);
  }
  const scrambler = new Scrambler(() => 5), other = new Scrambler(() => 6);
  const seen = new Set<number>();
  for (let bits = 0; bits < 1 << 28; bits += 4099) {
    const scrambled = scrambler.scramble(bits);
    assertEquals([scrambler.unscramble(scrambled), scrambled >>> 28], [bits, 0]);
    assertNotEquals(other.scramble(bits), scrambled);
    seen.add(scrambled);
  }
  assertEquals(seen.size, Math.ceil(2 ** 28 / 4099));
});

Deno.test("session table: a row's next 255 uses have other indices", () => {
  const { table } = tableOf(4);
  const indices = new Set<number>();
  for (let use = 0; use < 256; use++) {
    const row = table.allocate(0);
    indices.add(table.receiverIndex[row]);
    table.erase(row);
  }
  assertEquals(indices.size, 256);
});

Deno.test("session table: what was given back or never taken is not found", () => {
  const { table, keys } = tableOf(8);
  assertEquals(table.find(0), NONE); // the index that memory never written would match
  const row = table.allocate(1), index = table.receiverIndex[row];
  table.key(row, 2, true, 0, KEY, KEY);
  assertEquals([...keys.rows], [row]);
  table.erase(row);
  assertEquals([table.find(index), table.find(NONE), keys.rows.size, table.count], [NONE, NONE, 0, 0]);
});

Deno.test("session table: every row can be had, once, and again after it was given back", () => {
  const { table } = tableOf(100);
  for (let times = 0; times < 3; times++) {
    const rows = new Set(Array.from({ length: 100 }, (_, i) => table.allocate(i)));
    assertEquals([rows.size, Math.max(...rows), table.count, table.allocate(0)], [100, 99, 100, NONE]);
    for (const row of rows) table.erase(row);
    assertEquals(table.count, 0);
  }
});

Deno.test("session table: spare ids have rows at the far end, and either kind the other's when its own are gone", () => {
  const random = new Random(11);
  const { table } = tableOf(64);
  const first = table.allocate(1), spare = table.allocateSpare(first);
  assertEquals([first, spare, table.find(table.receiverIndex[spare]), table.session[spare]], [0, 63, 63, 0]);
  const rows = [first, spare];
  for (let step = 0; step < 20_000; step++) {
    // Long stretches of taking and of giving back, so that the table is full and empty by turns.
    if (random.u32() % 8 < (step >> 8 & 1 ? 6 : 2)) {
      const row = random.u32() % 3 === 0 ? table.allocate(1) : table.allocateSpare(first);
      assertEquals(row === NONE, rows.length === 64);
      if (row === NONE) continue;
      assert(!rows.includes(row), `row ${row} is taken twice`);
      rows.push(row);
    } else if (rows.length > 1) {
      table.erase(rows.splice(1 + random.u32() % (rows.length - 1), 1)[0]);
    }
    assertEquals(table.count, rows.length);
  }
  for (const row of rows) assertEquals(table.find(table.receiverIndex[row]), row);
});
