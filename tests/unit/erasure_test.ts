/**
 * Erasure codes: the generator and its coefficients against the RFCs' values, Reed-Solomon against the polynomial and in all
 * subsets of small blocks, the decoder against a solver of the test's own on random losses, over gaps, reordering and
 * counters of years, and against symbols that lie.
 * Long because the test's own solver and field stand beside all the cases that are held against them.
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
import { WindowCode } from "../../src/codec/sliding_window.ts";
import { BLOCK_MAX, BLOCK_SOURCES_MAX, blockCoefficients } from "../../src/codec/reed_solomon.ts";
import { RepairReceiver, SYMBOL_MAX_BYTES } from "../../src/repair/receiver.ts";
import { Arena } from "../../src/vector/arena.ts";
import { Burst, DONE } from "../../src/vector/burst.ts";
import { writeRepairHead } from "../../src/wire/repair.ts";
import { windowKey } from "../../src/repair/receiver.ts";
import { Tinymt32 } from "../../src/codec/tinymt32.ts";
import { Random } from "../kit/random.ts";

const kernel = new PortableShardKernel();
const windowCode = new WindowCode();
const STRIDE = 80;

Deno.test("TinyMT32: the first 50 values of seed 1 (RFC 8682 §2.1)", () => {
  const generator = new Tinymt32();
  generator.seed(1);
  const expected = `
    2545341989 981918433 3715302833 2387538352 3591001365 3820442102 2114400566 2196103051 2783359912 764534509
    643179475 1822416315 881558334 4207026366 3690273640 3240535687 2921447122 3984931427 4092394160 44209675
    2188315343 2908663843 1834519336 3774670961 3019990707 4065554902 1239765502 4035716197 3412127188 552822483
    161364450 353727785 140085994 149132008 2547770827 4064042525 4078297538 2057335507 622384752 2041665899
    2193913817 1080849512 33160901 662956935 642999063 3384709977 1723175122 3866752252 521822317 2292524454`;
  const drawn = new Uint32Array(50), rest = drawn.subarray(20);
  generator.draw(20, drawn);
  generator.draw(30, rest);
  assertEquals([...drawn], expected.trim().split(/\s+/).map(Number));
});

Deno.test("sliding window: coefficients are the generator's bytes, but none is zero (RFC 8681 §3.6 and appendix A)", () => {
  const row = new Uint8Array(50), generator = new Tinymt32();
  windowCode.coefficients(1, 50, row, 0);
  const expected = `
    37 225 177 176 21 246 54 139 168 237 211 187 62 190 104 135 210 99 176 11 207 35 40 113 179
    214 254 101 212 211 226 41 234 232 203 29 194 211 112 107 217 104 197 135 23 89 210 252 109 166`;
  assertEquals([...row], expected.trim().split(/\s+/).map(Number));
  let skipped = 0;
  for (let key = 0; key < 65536; key += 97) {
    windowCode.coefficients(key, SOURCES_MAX, row, 3);
    generator.seed(key);
    const drawn = new Uint32Array(2 * SOURCES_MAX);
    generator.draw(drawn.length, drawn);
    const bytes = [...drawn].map((word) => word & 255);
    const expected = bytes.filter((byte) => byte !== 0).slice(0, SOURCES_MAX);
    if (bytes.slice(0, SOURCES_MAX).includes(0)) skipped++;
    assertEquals([...row.subarray(3, 3 + SOURCES_MAX)], expected);
  }
  assert(skipped > 10, "there were zeros to leave out");
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

Deno.test("sliding window: the seed is 8 times the datagram's counter plus the repair's place in it, modulo 2^16", () => {
  const seeds = [[0, 0, 0], [0, 7, 7], [1, 0, 8], [5, 3, 43], [8191, 7, 65535], [8192, 0, 0], [
    2 ** 40 + 2,
    1,
    17,
  ]];
  for (const [counter, index, seed] of seeds) {
    assertEquals(windowKey(counter, index), seed, `${counter}, ${index}`);
  }
});

Deno.test("sliding window: brings back what its repairs determine, byte for byte, and nothing else", () => {
  let recoveredInAll = 0;
  fc.assert(
    fc.property(
      fc.nat(),
      fc.integer({ min: 1, max: SOURCES_MAX }),
      fc.integer({ min: 1, max: 4 }),
      fc.double({ min: 0.02, max: 0.7, noNaN: true }),
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
          const isTaken = decoder.addRepair(CODE_WINDOW, key, numbers, covered.length, out, 0, length);
          assertEquals(isTaken, covered.some((one) => !known.has(one)), "it says something new, or not");
          if (isTaken) repairs.push({ numbers: covered, key });
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
          // The test's own solver, over the repairs that the decoder has room for.
          const rows = repairs.slice(-32).filter(({ numbers: [first] }) => first > number - 60).map(
            (repair) => {
              const coefficients = new Uint8Array(SOURCES_MAX);
              windowCode.coefficients(repair.key, repair.numbers.length, coefficients, 0);
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
  // A flood of repairs of things that never come: memory stays.
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

/** Sends the chosen shards of a block of k packets of unequal lengths, in this order, and looks at what comes out. */
function bringBack(random: Random, k: number, chosen: number[]): void {
  const out = new Uint8Array(STRIDE);
  const encoder = new RepairEncoder(kernel, STRIDE), decoder = new RepairDecoder(kernel, STRIDE);
  const numbers = Float64Array.from({ length: k }, (_, i) => 1000 + 2 * i);
  const symbols = [...numbers].map(() => {
    const symbol = new Uint8Array(1 + random.u32() % STRIDE);
    random.fill(symbol);
    return symbol;
  });
  symbols.forEach((symbol, i) => encoder.add(numbers[i], symbol, 0, symbol.length));
  for (const shard of chosen) {
    if (shard < k) decoder.add(numbers[shard], symbols[shard], 0, symbols[shard].length);
    else {
      const length = encoder.combine(CODE_BLOCK, shard, numbers, k);
      encoder.take(length, out, 0);
      decoder.addRepair(CODE_BLOCK, shard, numbers, k, out, 0, length);
    }
  }
  const found = solveAll(decoder);
  const missing = [...numbers].filter((_, i) => !chosen.includes(i));
  if (chosen.length < k) return assertEquals(found, [], `${chosen} of ${k}`);
  assertEquals(found.sort((a, b) => a - b), missing, `${chosen} of ${k}`);
  symbols.forEach((symbol, i) => {
    const place = decoder.placeOf(numbers[i]), length = decoder.lengthOf(numbers[i]);
    assert(length >= symbol.length);
    const padded = new Uint8Array(STRIDE);
    padded.set(symbol);
    assertEquals(decoder.memory.slice(place, place + STRIDE), padded, `source ${i} of ${k} by ${chosen}`);
  });
}

function shuffled(random: Random, count: number): number[] {
  const order = Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = random.u32() % (i + 1);
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

Deno.test("Reed-Solomon: any k of k + m shards give all sources back, byte for byte: every subset of small blocks", () => {
  const random = new Random(1);
  let subsets = 0;
  for (let k = 1; k <= 5; k++) {
    for (let m = 1; m <= 4; m++) {
      for (let set = 0; set < 1 << (k + m); set++) {
        const chosen = shuffled(random, k + m).filter((shard) => (set >> shard) & 1);
        // With one too few of them, all that are sources, nothing comes back that did not come.
        if (chosen.length !== k && !(chosen.length === k - 1 && chosen.every((shard) => shard < k))) continue;
        bringBack(random, k, chosen);
        subsets++;
      }
    }
  }
  assert(subsets > 500, `${subsets}`);
});

Deno.test("Reed-Solomon: any k shards of a block give all sources back, byte for byte: blocks up to the largest", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: BLOCK_SOURCES_MAX }),
      fc.integer({ min: 1, max: BLOCK_MAX }),
      fc.nat(),
      (k, m, seed) => {
        const random = new Random(seed);
        bringBack(random, k, shuffled(random, Math.min(k + m, BLOCK_MAX)).slice(0, k));
      },
    ),
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
    assert(receiver.repair(burst, at, symbolAt + length - at, counter, 0));
  };
  // Repairs of what never comes have it look eight times.
  for (let i = 0; i < 8; i++) {
    const symbolAt = writeRepairHead(
      burst.view,
      at,
      false,
      0,
      120 + i,
      Float64Array.of(61 + 2 * i, 62 + 2 * i),
      2,
    );
    assert(receiver.repair(burst, at, symbolAt + 9 - at, 120 + i, 0));
    assertEquals(receiver.solve(0), 0);
  }
  repair(130);
  assertEquals(receiver.solve(0), 0, "not now");
  assertEquals(receiver.solve(500), 0, "nor soon");
  assertEquals([receiver.solve(1500), receiver.decoder.recovered[0]], [1, 1], "but then");
  assertEquals(receiver.received(symbol, 0, 4, 1), false, "its own datagram comes too late");
});

/** Both ends over sources that the test names, as a session would have them. */
class Ends {
  encoder = new RepairEncoder(kernel, STRIDE);
  readonly decoder: RepairDecoder;
  readonly #out = new Uint8Array(STRIDE);
  #key = 1;

  constructor(first = 0) {
    this.decoder = new RepairDecoder(kernel, STRIDE, first);
  }

  symbol(number: number): Uint8Array {
    const symbol = new Uint8Array(1 + number % STRIDE);
    new Random(number % 2 ** 32).fill(symbol);
    return symbol;
  }

  /** The other end sent it. */
  send(...numbers: number[]): void {
    for (const number of numbers) {
      const symbol = this.symbol(number);
      assert(this.encoder.add(number, symbol, 0, symbol.length));
    }
  }

  /** Only these are what the other end has sent. */
  restart(...numbers: number[]): void {
    this.encoder = new RepairEncoder(kernel, STRIDE);
    this.send(...numbers);
  }

  /** It came. */
  receive(...numbers: number[]): boolean[] {
    return numbers.map((number) => {
      const symbol = this.symbol(number);
      return this.decoder.add(number, symbol, 0, symbol.length);
    });
  }

  /** A repair of the sources came; false when the decoder had no use for it. */
  repair(...numbers: number[]): boolean {
    const list = Float64Array.from(numbers), key = this.#key = (this.#key + 8) % 65536;
    const length = this.encoder.combine(CODE_WINDOW, key, list, list.length);
    assert(length > 0, `the encoder has ${numbers}`);
    this.encoder.take(length, this.#out, 0);
    return this.decoder.addRepair(CODE_WINDOW, key, list, list.length, this.#out, 0, length);
  }

  /** What one look brings back, each as it was sent. */
  solve(): number[] {
    const found = [...this.decoder.recovered.slice(0, this.decoder.solve())];
    for (const number of found) {
      const symbol = this.symbol(number), place = this.decoder.placeOf(number);
      assertEquals(this.decoder.memory.slice(place, place + symbol.length), symbol, `${number}`);
    }
    return found.sort((a, b) => a - b);
  }
}

const range = (from: number, count: number) => Array.from({ length: count }, (_, i) => from + i);

Deno.test("decoder: what is determined comes at once, though other sources are not", () => {
  const ends = new Ends();
  ends.send(...range(1, 50));
  ends.repair(1, 2);
  ends.repair(3);
  ends.repair(4, 5);
  ends.repair(5, 6, 7);
  ends.repair(4, 5);
  assertEquals(ends.solve(), [3, 4, 5], "6 and 7 are left open, as 1 and 2 are");
  ends.repair(1, 2);
  assertEquals(ends.solve(), [1, 2]);
  // More unknown sources than repairs may wait: those that are alone are solved nevertheless.
  ends.repair(...range(8, 32));
  ends.repair(...range(10, 31));
  ends.repair(...range(41, 8));
  ends.repair(50);
  assertEquals(ends.solve(), [50]);
});

Deno.test("decoder: one look brings a whole burst of losses back", () => {
  const ends = new Ends();
  ends.send(...range(100, 60));
  ends.receive(...range(100, 28));
  for (let i = 0; i < 32; i++) assert(ends.repair(...range(128, 32)));
  assertEquals(ends.solve(), range(128, 32));
  assert(ends.decoder.isDone);
  assertEquals(
    ends.receive(...range(128, 32)).filter((isNew) => isNew),
    [],
    "their own datagrams are too late",
  );
});

Deno.test("decoder: a short look takes the last repairs, and says that there are more", () => {
  const ends = new Ends();
  ends.send(...range(1, 6));
  for (const numbers of [[1, 2], [1, 2], [3, 4], [5, 6]]) ends.repair(...numbers);
  assertEquals(ends.decoder.recovered.slice(0, ends.decoder.solve(2)).length, 0);
  assertEquals([ends.decoder.waiting, ends.decoder.isDone], [2, false]);
  assertEquals(ends.solve(), [1, 2]);
  assert(ends.decoder.isDone);
});

Deno.test("decoder: what is brought back takes no place from what others are made of", () => {
  const ends = new Ends();
  // All places are taken, and the sources that are next to be forgotten are in repairs.
  ends.send(...range(1, 63));
  ends.receive(...range(1, 63));
  for (let i = 0; i < 4; i++) {
    ends.restart(1 + i, 100 + i);
    ends.repair(1 + i, 100 + i);
  }
  assertEquals(ends.solve(), [102, 103], "two of them have pushed out what the others need");
  assert(ends.decoder.isDone);
  assertEquals(ends.decoder.waiting, 0);
});

Deno.test("decoder: a repair that comes before its sources serves as soon as one is missing", () => {
  const ends = new Ends();
  ends.send(...range(10, 8));
  assert(ends.repair(...range(10, 8)), "nothing of it has come yet");
  assert(ends.repair(11, 13, 17));
  assertEquals(ends.solve(), []);
  ends.receive(17, 12, 10, 16, 14);
  assertEquals(ends.solve(), []);
  ends.receive(15);
  assertEquals(ends.solve(), [11, 13]);
  assertEquals(ends.receive(13, 11), [false, false]);
  assert(!ends.repair(10, 11, 12, 13), "all are known");
});

Deno.test("decoder: counters may have gaps, as other datagrams of the session take theirs", () => {
  const ends = new Ends();
  // A game's packets beside a transfer that fills 61 datagrams between two of them.
  for (let number = 62; number < 62 * 40; number += 62) {
    ends.send(number);
    if (number % 4 !== 0) {
      ends.receive(number);
      continue;
    }
    // Too long for a source, but it came.
    ends.decoder.add(number + 40, new Uint8Array(STRIDE + 1), 0, STRIDE + 1);
    assert(ends.repair(number), `${number}`);
    assertEquals(ends.solve(), [number]);
  }
  // Repairs of several, and ones that come much later.
  const base = 62 * 40;
  ends.send(base, base + 62, base + 124, base + 186);
  ends.receive(base, base + 186);
  ends.decoder.add(base + 400, new Uint8Array(3), 0, 3);
  assert(ends.repair(base, base + 62, base + 124, base + 186));
  assert(ends.repair(base + 62, base + 124));
  assertEquals(ends.solve(), [base + 62, base + 124]);
  // After an outage longer than everything that is kept, the first repair counts.
  ends.send(base + 900, base + 901, base + 902);
  assert(ends.repair(base + 900, base + 901));
  assert(ends.repair(base + 901));
  assertEquals(ends.solve(), [base + 900, base + 901]);
});

Deno.test("decoder: what came is never brought back again, though its bytes are forgotten", () => {
  const ends = new Ends();
  ends.send(...range(0, 60));
  ends.receive(...range(0, 58));
  assert(ends.repair(57, 58, 59));
  // Others push 57 out before 58 comes; the repair cannot be used any more, and nothing is made up.
  for (let number = 100; number < 170; number++) ends.decoder.add(number, new Uint8Array(5), 0, 5);
  ends.receive(58);
  assertEquals(ends.solve(), []);
  assertEquals(ends.decoder.waiting, 0);
  assert(!ends.repair(57, 59), "57 came, and is forgotten");
  assert(ends.repair(59));
  assertEquals(ends.solve(), [59]);
});

Deno.test("decoder: numbers that share a place in its tables are not taken for each other", () => {
  const far = 512;
  // Both arrived while repairs of them waited, and then enough packets that the decoder forgot both.
  const ends = new Ends();
  ends.send(10, 11);
  ends.repair(10, 11);
  ends.repair(10, 11);
  ends.receive(10, 11);
  for (const number of [10, 11, 12]) ends.decoder.add(number + far, new Uint8Array(3), 0, 3);
  assertEquals(ends.solve(), []);
  assertEquals(ends.decoder.waiting, 0);
  // What one look brings back moves what is out of reach for the rest of it.
  const other = new Ends();
  other.restart(10);
  other.repair(10);
  other.restart(50 + far);
  other.repair(50 + far);
  assertEquals(other.solve(), [50 + far]);
  other.restart(50 + far);
  assert(!other.repair(50 + far), "it is known");
  // Unknown ones in one system.
  const third = new Ends();
  third.restart(10);
  third.repair(10);
  third.restart(10 + far, 11 + far);
  third.repair(10 + far, 11 + far);
  third.restart(10);
  third.repair(10);
  assertEquals(third.solve(), [10]);
  third.restart(11 + far);
  third.repair(11 + far);
  assertEquals(third.solve(), [10 + far, 11 + far]);
});

Deno.test("decoder: sources from before it began are not asked for", () => {
  const ends = new Ends(20);
  ends.send(...range(10, 20));
  assert(!ends.repair(18, 21), "18 may have been delivered");
  assert(ends.repair(20, 21));
});

Deno.test("decoder: one that lives for years takes no more memory and goes on solving", () => {
  for (const base of [2 ** 31 - 300, 2 ** 32 - 300, 2 ** 48 - 300, 2 ** 53 - 2000]) {
    const ends = new Ends(), random = new Random(base % 2 ** 32);
    ends.receive(1, 2, 3); // long ago
    const bytes = ends.decoder.memory.length;
    let found = 0, lost = 0;
    for (let number = base; number < base + 900; number++) {
      ends.send(number);
      if (random.u32() % 8 === 0) lost++;
      else assertEquals(ends.receive(number), [true], `${number}`);
      if (number < base + 8 || number % 2 === 0) continue;
      ends.repair(...range(number - 7, 8));
      found += ends.solve().length;
    }
    assert(lost > 60 && found > 0.98 * lost, `${found} of ${lost} from ${base}`);
    assertEquals(ends.decoder.memory.length, bytes);
  }
});

Deno.test("decoder: a peer that contradicts itself gets one answer, once", () => {
  const decoder = new RepairDecoder(kernel, STRIDE), lie = new Uint8Array(STRIDE).fill(7);
  decoder.add(1, lie, 0, 3);
  const numbers = Float64Array.of(1, 2);
  for (let key = 0; key < 40; key++) {
    lie[0] = key;
    assert(decoder.addRepair(CODE_WINDOW, key, numbers, 2, lie, 0, 1 + key));
  }
  assertEquals([...decoder.recovered.slice(0, decoder.solve())], [2]);
  assertEquals(decoder.solve(), 0);
  assertEquals(decoder.waiting, 0);
  // The same repair again and again is one.
  const twice = Float64Array.of(3, 4);
  for (let i = 0; i < 40; i++) assert(decoder.addRepair(CODE_WINDOW, 5, twice, 2, lie, 0, 9));
  assertEquals(decoder.solve(), 0);
});

/** A receiver, and repairs in datagrams to it. */
function receiving() {
  const receiver = new RepairReceiver(kernel, 0);
  const arena = new Arena(1), burst = new Burst(arena);
  const row = burst.grow(0, DONE), at = burst.offset[row];
  const repair = (counter: number, numbers: number[], index = 0) => {
    const symbolAt = writeRepairHead(
      burst.view,
      at,
      false,
      index,
      counter,
      Float64Array.from(numbers),
      numbers.length,
    );
    for (let i = 0; i < 9; i++) burst.bytes[symbolAt + i] = counter * 31 + i;
    return receiver.repair(burst, at, symbolAt + 9 - at, counter, 0);
  };
  return { receiver, repair };
}

Deno.test("repair: a datagram has at most eight, numbered 0 to 7 (PROTOCOL R90)", () => {
  const { receiver, repair } = receiving();
  for (let index = 0; index < 8; index++) assert(repair(100, [90 + index], index), `${index}`);
  assert(!repair(100, [99], 7), "the ninth");
  assert(repair(101, [99], 7), "the next datagram's first");
  assert(!repair(102, [80], 8), "there is no such number");
  assertEquals(receiver.solve(0), 9);
});

Deno.test("repair: what comes while nothing waits is no reason to look, so that a repair finds the time", () => {
  const { receiver, repair } = receiving();
  for (let counter = 0; counter < 100; counter++) {
    receiver.received(Uint8Array.of(0x45), 0, 1, counter);
    assertEquals(receiver.solve(0), 0);
  }
  assert(repair(101, [100]));
  assertEquals(receiver.solve(0), 1);
});

Deno.test("repair: what waits for something else delays no repair, and is looked at when that comes", () => {
  const { receiver, repair } = receiving();
  const { decoder } = receiver, solve = decoder.solve;
  let looks = 0;
  decoder.solve = (rowsMax?: number) => {
    looks++;
    return solve.call(decoder, rowsMax);
  };
  const receive = (counter: number) => receiver.received(Uint8Array.of(0x45), 0, 1, counter);
  // Twenty of two sources each that both are lost.
  for (let i = 0; i < 20; i++) repair(100 + i, [51 + 2 * i, 52 + 2 * i]);
  assertEquals(receiver.solve(0), 0);
  assert(repair(200, [150]));
  assertEquals(receiver.solve(1000), 1, "long before all may be looked at again");
  assertEquals(receiver.solve(20_000), 0);
  looks = 0;
  for (let counter = 201; counter < 210; counter++) {
    receive(counter);
    receiver.solve(1000 * counter);
  }
  assertEquals(looks, 0, "nothing waits for these");
  receive(52);
  assertEquals([receiver.solve(300_000), decoder.recovered[0]], [1, 51]);
});

Deno.test("repair: whatever a peer sends, solving is looked at so often (PROTOCOL R90)", () => {
  const { receiver, repair } = receiving();
  const { decoder } = receiver, solve = decoder.solve;
  let short = 0, long = 0;
  decoder.solve = (rowsMax?: number) => {
    if (rowsMax === undefined) long++;
    else short++;
    return solve.call(decoder, rowsMax);
  };
  // A second of datagrams, one each ten microseconds, with repairs of what never comes.
  for (let i = 0; i < 100_000; i++) {
    const counter = 1000 + i;
    if (i % 3 === 0) receiver.received(Uint8Array.of(0x45), 0, 1, counter);
    else repair(counter, [counter - 60, counter - 41, counter - 3, counter - 2, counter - 1]);
    receiver.solve(10 * i);
  }
  assert(short + long <= 1010, `${short + long} looks`);
  assert(long <= 110, `${long} looks at many`);
  assert(short > 500, `${short} looks at few`);
});
