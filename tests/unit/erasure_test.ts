/**
 * Erasure codes: the generator against RFC 8682's values, Reed-Solomon against the polynomial, the decoder against a solver
 * of the test's own on random losses, and against symbols that lie.
 */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { PortableShardKernel } from "../../src/codec/gf256.ts";
import {
  CODE_BLOCK,
  CODE_WINDOW,
  RepairDecoder,
  RepairEncoder,
  SOURCES_MAX,
} from "../../src/codec/erasure.ts";
import { windowCoefficients } from "../../src/codec/sliding_window.ts";
import { BLOCK_MAX, BLOCK_SOURCES_MAX, blockCoefficients } from "../../src/codec/reed_solomon.ts";
import { RepairReceiver, SYMBOL_MAX_BYTES } from "../../src/session/ox_repair.ts";
import { Arena } from "../../src/vector/arena.ts";
import { Burst, DONE } from "../../src/vector/burst.ts";
import { writeRepairHead } from "../../src/wire/repair.ts";
import { nextTinymt32, seedTinymt32 } from "../../src/codec/tinymt32.ts";
import { Random } from "../sim/world.ts";

const kernel = new PortableShardKernel();
const STRIDE = 80;

Deno.test("TinyMT32: the first values of seed 1 (RFC 8682 §2.1)", () => {
  seedTinymt32(1);
  assertEquals(Array.from({ length: 10 }, nextTinymt32), [
    2545341989,
    981918433,
    3715302833,
    2387538352,
    3591001365,
    3820442102,
    2114400566,
    2196103051,
    2783359912,
    764534509,
  ]);
});

/** Everything that can be brought back. */
function solveAll(decoder: RepairDecoder): number[] {
  const all: number[] = [];
  do all.push(...decoder.recovered.slice(0, decoder.solve())); while (!decoder.isDone);
  return all;
}

function slowly(a: number, b: number): number {
  let product = 0;
  for (let bit = 0; bit < 8; bit++) {
    if ((b >> bit) & 1) product ^= a;
    a <<= 1;
    if (a & 0x100) a ^= 0x11d;
  }
  return product;
}

/** Which of the unknown columns a system of rows determines, by the plainest elimination. */
function determined(rows: Map<number, number>[]): Set<number> {
  const system = rows.map((row) => new Map(row));
  const columns = [...new Set(system.flatMap((row) => [...row.keys()]))];
  const inverse = (a: number) => Array.from({ length: 256 }, (_, b) => b).find((b) => slowly(a, b) === 1)!;
  const used = new Set<Map<number, number>>();
  for (const column of columns) {
    const pivot = system.find((row) => !used.has(row) && row.has(column));
    if (!pivot) continue;
    used.add(pivot);
    const by = inverse(pivot.get(column)!);
    for (const [key, value] of pivot) pivot.set(key, slowly(value, by));
    for (const row of system) {
      const factor = row.get(column);
      if (row === pivot || factor === undefined) continue;
      for (const [key, value] of pivot) {
        const sum = (row.get(key) ?? 0) ^ slowly(value, factor);
        if (sum === 0) row.delete(key);
        else row.set(key, sum);
      }
    }
  }
  return new Set(system.filter((row) => row.size === 1).map((row) => [...row.keys()][0]));
}

Deno.test("sliding window: brings back what its repairs determine, byte for byte, and nothing else", () => {
  let recoveredInAll = 0;
  fc.assert(
    fc.property(
      fc.nat(),
      fc.integer({ min: 1, max: SOURCES_MAX }),
      fc.integer({ min: 1, max: 4 }),
      fc.double({ min: 0.02, max: 0.5, noNaN: true }),
      (seed, window, every, loss) => {
        const random = new Random(seed);
        const encoder = new RepairEncoder(kernel, STRIDE), decoder = new RepairDecoder(kernel, STRIDE);
        const sent = new Map<number, Uint8Array>();
        const known = new Set<number>(), repairs: { numbers: number[]; key: number }[] = [];
        const numbers = new Float64Array(SOURCES_MAX), out = new Uint8Array(STRIDE);
        let number = 0;
        for (let step = 0; step < 200; step++) {
          number += 1 + (random.u32() % 8 === 0 ? random.u32() % 3 : 0);
          const symbol = new Uint8Array(1 + random.u32() % STRIDE);
          random.fill(symbol);
          sent.set(number, symbol);
          assert(encoder.add(number, symbol, 0, symbol.length));
          if (random.real() >= loss) {
            decoder.add(number, symbol, 0, symbol.length);
            known.add(number);
          }
          if (step % every !== 0) continue;
          // Only what both are sure to keep, whatever gaps the numbers have.
          const covered = [...sent.keys()].slice(-window).filter((one) => one > number - 40);
          numbers.set(covered);
          const key = random.u32() & 0xffff;
          const length = encoder.combine(CODE_WINDOW, key, numbers, covered.length);
          encoder.take(length, out, 0);
          assertEquals(length, Math.max(...covered.map((one) => sent.get(one)!.length)));
          if (random.real() < loss) continue;
          repairs.push({ numbers: covered, key });
          decoder.addRepair(CODE_WINDOW, key, numbers, covered.length, out, 0, length);
          const before = new Set(known);
          for (const one of solveAll(decoder)) {
            assert(!before.has(one), "it was missing");
            known.add(one);
            const place = decoder.placeOf(one), symbol = sent.get(one)!;
            const got = decoder.memory.subarray(place, place + decoder.lengthOf(one));
            assertEquals(got.slice(0, symbol.length), symbol);
            assert(got.slice(symbol.length).every((byte) => byte === 0));
            recoveredInAll++;
          }
          // The test's own solver, over the repairs that cannot have been crowded out.
          const rows = repairs.slice(-8).filter(({ numbers: [first] }) => first > number - 60).map(
            (repair) => {
              const coefficients = new Uint8Array(SOURCES_MAX);
              windowCoefficients(repair.key, repair.numbers.length, coefficients, 0);
              return new Map(
                repair.numbers.map((one, i) => [one, coefficients[i]] as const).filter(([one]) =>
                  !known.has(one)
                ),
              );
            },
          ).filter((row) => row.size > 0);
          assertEquals([...determined(rows)], [], `seed ${seed}: step ${step}`);
        }
      },
    ),
    { numRuns: 40 },
  );
  assert(recoveredInAll > 50, `${recoveredInAll}`);
});

Deno.test("sliding window: a repair from a window of one is the source itself, times its coefficient", () => {
  const encoder = new RepairEncoder(kernel, STRIDE), decoder = new RepairDecoder(kernel, STRIDE);
  const numbers = Float64Array.of(7), out = new Uint8Array(STRIDE);
  encoder.add(7, Uint8Array.of(1, 2, 3), 0, 3);
  decoder.add(6, Uint8Array.of(9), 0, 1);
  assertEquals(encoder.combine(CODE_WINDOW, 99, numbers, 1), 3);
  encoder.take(3, out, 0);
  assert(decoder.addRepair(CODE_WINDOW, 99, numbers, 1, out, 0, 3));
  assertEquals([decoder.solve(), decoder.recovered[0], decoder.lengthOf(7)], [1, 7, 3]);
  assertEquals([...decoder.memory.subarray(decoder.placeOf(7), decoder.placeOf(7) + 3)], [1, 2, 3]);
  assertEquals(decoder.add(7, Uint8Array.of(1), 0, 1), false, "known");
  assertEquals(decoder.addRepair(CODE_WINDOW, 98, numbers, 1, out, 0, 3), false, "nothing new");
});

Deno.test("sliding window: symbols that lie are refused or harm nothing but themselves", () => {
  const decoder = new RepairDecoder(kernel, STRIDE);
  const bytes = new Uint8Array(STRIDE + 1);
  for (let number = 0; number < 100; number++) decoder.add(number, bytes, 0, 10);
  const refused: [number[], number, number][] = [
    [[], 0, 10],
    [[98, 101], 2, 0],
    [[98, 101], 2, STRIDE + 1],
    [[101, 98], 2, 10],
    [[101, 101], 2, 10],
    [[20, 101], 2, 10],
    [[101, 9000], 2, 10],
    [[-1, 101], 2, 10],
    [[NaN, 101], 2, 10],
    [Array.from({ length: SOURCES_MAX + 1 }, (_, i) => 80 + i), SOURCES_MAX + 1, 10],
  ];
  for (const [numbers, count, length] of refused) {
    assertEquals(
      decoder.addRepair(CODE_WINDOW, 1, Float64Array.from(numbers), count, bytes, 0, length),
      false,
      `${numbers}`,
    );
  }
  assertEquals(decoder.add(30, bytes, 0, 10), false, "too old");
  assertEquals(decoder.add(200, bytes, 0, STRIDE + 1), false, "too long");
  // A flood of repairs of things that never come: memory stays, and work is bounded.
  const random = new Random(5), size = decoder.memory.length;
  for (let i = 0; i < 2000; i++) {
    const numbers = Float64Array.from({ length: 16 }, (_, j) => 90 + 2 * j + (random.u32() & 1));
    random.fill(bytes);
    decoder.addRepair(CODE_WINDOW, random.u32() & 0xffff, numbers, 16, bytes, 0, 1 + random.u32() % STRIDE);
    decoder.solve();
  }
  assertEquals(decoder.memory.length, size);
  // It goes on working for who does not lie.
  const encoder = new RepairEncoder(kernel, STRIDE), out = new Uint8Array(STRIDE);
  for (let number = 300; number < 310; number++) {
    const symbol = Uint8Array.of(number & 255, 5);
    encoder.add(number, symbol, 0, 2);
    if (number !== 305) decoder.add(number, symbol, 0, 2);
  }
  const numbers = Float64Array.from({ length: 8 }, (_, i) => 302 + i);
  const length = encoder.combine(CODE_WINDOW, 77, numbers, 8);
  encoder.take(length, out, 0);
  assert(decoder.addRepair(CODE_WINDOW, 77, numbers, 8, out, 0, length));
  assertEquals([decoder.solve(), decoder.recovered[0]], [1, 305]);
  assertEquals(decoder.memory[decoder.placeOf(305)], 305 & 255);
});

Deno.test("Reed-Solomon: any k shards of a block give all sources back, byte for byte", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 16 }), fc.nat(), (k, seed) => {
      const random = new Random(seed), out = new Uint8Array(STRIDE);
      const encoder = new RepairEncoder(kernel, STRIDE), decoder = new RepairDecoder(kernel, STRIDE);
      const numbers = Float64Array.from({ length: k }, (_, i) => 1000 + 2 * i);
      const symbols = [...numbers].map(() => {
        const symbol = new Uint8Array(1 + random.u32() % STRIDE);
        random.fill(symbol);
        return symbol;
      });
      const shards = Array.from({ length: 2 * k }, (_, i) => i);
      for (let i = shards.length - 1; i > 0; i--) {
        const j = random.u32() % (i + 1);
        [shards[i], shards[j]] = [shards[j], shards[i]];
      }
      decoder.add(999, out, 0, 1); // the session has begun
      symbols.forEach((symbol, i) => encoder.add(numbers[i], symbol, 0, symbol.length));
      for (const shard of shards.slice(0, k)) {
        if (shard < k) decoder.add(numbers[shard], symbols[shard], 0, symbols[shard].length);
        else {
          const length = encoder.combine(CODE_BLOCK, shard, numbers, k);
          encoder.take(length, out, 0);
          decoder.addRepair(CODE_BLOCK, shard, numbers, k, out, 0, length);
        }
      }
      solveAll(decoder);
      symbols.forEach((symbol, i) => {
        assert(decoder.has(numbers[i]), `source ${i} of ${k}`);
        const place = decoder.placeOf(numbers[i]);
        assertEquals(decoder.memory.slice(place, place + symbol.length), symbol);
      });
    }),
    { numRuns: 100 },
  );
});

Deno.test("Reed-Solomon: repairs are the values of the polynomial through the sources (RFC 5510 §8)", () => {
  // P = 5 + 7 x + 200 x^2, sources at 1, 2 and 4, repairs at 8, 16 …
  const power = (n: number) => Array.from({ length: n }).reduce<number>((p) => slowly(p, 2), 1);
  const value = (x: number) => 5 ^ slowly(7, x) ^ slowly(200, slowly(x, x));
  const row = new Uint8Array(3);
  for (let number = 3; number < BLOCK_MAX; number++) {
    assert(blockCoefficients(number, 3, row, 0));
    const sum = [0, 1, 2].reduce((sum, i) => sum ^ slowly(row[i], value(power(i))), 0);
    assertEquals(sum, value(power(number)), `number ${number}`);
  }
  const wide = new Uint8Array(256);
  for (const [number, k] of [[2, 3], [BLOCK_MAX, 3], [40, BLOCK_SOURCES_MAX + 1], [0, 0], [NaN, 3]]) {
    assertEquals(blockCoefficients(number, k, wide, 0), false, `${number} of ${k}`);
  }
});

Deno.test("repair: what was not needed is counted, and what was is not", () => {
  const encoder = new RepairEncoder(kernel, STRIDE), decoder = new RepairDecoder(kernel, STRIDE);
  const out = new Uint8Array(STRIDE), numbers = new Float64Array(SOURCES_MAX);
  const symbol = (n: number) => Uint8Array.of(n, 1, 2, 3);
  for (let n = 0; n < 8; n++) encoder.add(n, symbol(n), 0, 4);
  const repair = (key: number, ...covered: number[]) => {
    numbers.set(covered);
    const length = encoder.combine(CODE_WINDOW, key, numbers, covered.length);
    encoder.take(length, out, 0);
    decoder.addRepair(CODE_WINDOW, key, numbers, covered.length, out, 0, length);
    solveAll(decoder);
  };
  const arrive = (...arrived: number[]) => {
    for (const n of arrived) decoder.add(n, symbol(n), 0, 4);
    solveAll(decoder);
  };
  arrive(0, 1, 2);
  repair(1, 0, 1, 2);
  assertEquals(decoder.notNeeded, 1, "all were known");
  repair(2, 1, 2, 3);
  solveAll(decoder);
  assert(decoder.has(3));
  repair(3, 4, 5);
  assertEquals(decoder.notNeeded, 1, "one brought 3 back, another waits");
  arrive(4, 5);
  assertEquals(decoder.notNeeded, 2, "what it waited for came by itself");
  repair(4, 6, 7);
  repair(5, 6, 7);
  solveAll(decoder);
  assert(decoder.has(6) && decoder.has(7));
  arrive(8);
  assertEquals(decoder.notNeeded, 2, "two brought two back");
});

Deno.test("repair: a peer that has the relay solve all the time gets it so often, and loses nothing by it", () => {
  const receiver = new RepairReceiver(kernel, 0), encoder = new RepairEncoder(kernel, SYMBOL_MAX_BYTES);
  const arena = new Arena(1), burst = new Burst(arena);
  const row = burst.grow(0, DONE), at = burst.offset[row];
  const symbol = Uint8Array.of(0x45, 1, 2, 3);
  for (const counter of [0, 1]) {
    encoder.add(counter, symbol, 0, 4);
    if (counter === 0) receiver.received(symbol, 0, 4, counter);
  }
  const numbers = Float64Array.of(0, 1);
  const repair = (counter: number) => {
    const key = counter * 8 % 65536;
    const length = encoder.combine(CODE_WINDOW, key, numbers, 2);
    const symbolAt = writeRepairHead(burst.view, at, false, 0, counter, numbers, 2);
    encoder.take(length, burst.bytes, symbolAt);
    assert(receiver.repair(burst, at, symbolAt + length - at, counter));
  };
  // Something else has it look eight times.
  for (let i = 0; i < 8; i++) {
    receiver.received(symbol, 0, 4, 10 + i);
    assertEquals(receiver.solve(0), 0);
  }
  repair(20);
  assertEquals(receiver.solve(0), 0, "not now");
  assertEquals(receiver.solve(500), 0, "nor soon");
  assertEquals([receiver.solve(1500), receiver.decoder.recovered[0]], [1, 1], "but then");
  assertEquals(receiver.received(symbol, 0, 4, 1), false, "its own datagram comes too late");
});
