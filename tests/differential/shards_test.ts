/**
 * Linear combinations of shards: every implementation that runs here against the portable one, against slow arithmetic of
 * the test's own, against bytes that Intel's ISA-L made, and against the library itself where it is installed.
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { createHash } from "node:crypto";
import { openLibrary } from "../../ffi/mod.ts";
import { loadNative } from "../../ffi/native.ts";
import { invert, PortableShardKernel } from "../../src/codec/gf256.ts";
import { MATRIX_AT, type ShardKernel } from "../../src/codec/kernels.ts";
import {
  hasShardImplementation,
  NativeShardKernel,
  SHARD_IMPLEMENTATION,
} from "../../src/codec/native_shards.ts";
import { blockCoefficients } from "../../src/codec/reed_solomon.ts";
import { Random } from "../kit/random.ts";

const native = loadNative();
const portable = new PortableShardKernel();
const kernels: [name: string, kernel: ShardKernel][] = [["portable", portable]];
if (typeof native === "string") console.error(`SKIPPED tests/differential/shards_test.ts, native: ${native}`);
else {
  for (const [name, implementation] of Object.entries(SHARD_IMPLEMENTATION)) {
    if (hasShardImplementation(native, implementation)) {
      kernels.push([name, new NativeShardKernel(native, implementation)]);
    } else console.error(`SKIPPED tests/differential/shards_test.ts, ${name}: not on this processor`);
  }
}

const ISA_L = "/usr/lib/x86_64-linux-gnu/libisal.so.2";

/** The functions of ISA-L that take buffers alone. */
function loadIsaL() {
  return openLibrary(ISA_L, {
    ec_init_tables: { parameters: ["i32", "i32", "buffer", "buffer"], result: "void" },
    /** (bytes, sources, number of the source, tables, source, destination): adds the source, times its coefficient. */
    gf_vect_mad: { parameters: ["i32", "i32", "i32", "buffer", "buffer", "buffer"], result: "void" },
    gf_invert_matrix: { parameters: ["buffer", "buffer", "i32"], result: "i32" },
    gf_mul: { parameters: ["u8", "u8"], result: "u8" },
  });
}

let isaL: ReturnType<typeof loadIsaL> | undefined;
try {
  isaL = loadIsaL();
} catch (error) {
  console.error(
    `SKIPPED tests/differential/shards_test.ts, ISA-L: ${
      (error as Error).message
    }; \`apt-get install libisal2\``,
  );
}

/** Multiplication as in school, with shifts. */
function slowly(a: number, b: number): number {
  let product = 0;
  for (let bit = 0; bit < 8; bit++) {
    if ((b >> bit) & 1) product ^= a;
    a <<= 1;
    if (a & 0x100) a ^= 0x11d;
  }
  return product;
}

/** `shards` with what describes the task behind them. */
function task(shards: Uint8Array, offsets: ArrayLike<number>, matrix: ArrayLike<number>) {
  const taskAt = (shards.length + 3) & ~3;
  const memory = new Uint8Array(taskAt + MATRIX_AT + matrix.length);
  memory.set(shards);
  const view = new DataView(memory.buffer);
  Array.from(offsets).forEach((offset, i) => view.setUint32(taskAt + 4 * i, offset, true));
  memory.set(Array.from(matrix), taskAt + MATRIX_AT);
  return { memory, taskAt };
}

/** The shards after the kernel has been at them. */
function multiplied(
  kernel: ShardKernel,
  shards: Uint8Array,
  offsets: ArrayLike<number>,
  matrix: ArrayLike<number>,
  outputs: number,
  length: number,
): Uint8Array {
  const { memory, taskAt } = task(shards, offsets, matrix);
  const description = memory.slice(taskAt);
  kernel.multiply(memory, taskAt, offsets.length - outputs, outputs, length);
  assert(equal(memory.slice(taskAt), description), "the task is only read");
  return memory.slice(0, shards.length);
}

Deno.test("shards: products are those of GF(2^8) with 0x11d, whatever the kernel", () => {
  const shards = Uint8Array.from({ length: 512 }, (_, i) => i & 255);
  for (let a = 0; a < 256; a++) {
    const expected = shards.map((byte, i) => i < 256 ? byte : slowly(a, byte));
    for (const [name, kernel] of kernels) {
      assertEquals(multiplied(kernel, shards, [0, 256], [a], 1, 256), expected, `${name}: ${a}`);
    }
    if (a > 0) assertEquals(slowly(a, invert(a)), 1);
    if (isaL) assertEquals(isaL.gf_mul(a, 0x53), slowly(a, 0x53));
  }
});

Deno.test("shards: every kernel gives the same bytes and writes nowhere else", () => {
  const random = new Random(1);
  for (let round = 0; round < 1200; round++) {
    const inputs = 1 + random.u32() % (round % 8 === 0 ? 64 : 12), outputs = 1 + random.u32() % 9;
    // Every length around the ends of vectors, then any.
    const length = round < 700 ? round : random.u32() % 2000;
    // Anywhere in the memory, in any order, never overlapping.
    const stride = length + random.u32() % 40;
    const order = Array.from({ length: inputs + outputs }, (_, i) => i);
    for (let i = order.length - 1; i > 0; i--) {
      const j = random.u32() % (i + 1);
      [order[i], order[j]] = [order[j], order[i]];
    }
    const offsets = order.map((place) => 7 + place * stride);
    const shards = new Uint8Array(7 + stride * (inputs + outputs) + random.u32() % 11);
    const matrix = new Uint8Array(inputs * outputs);
    random.fill(shards);
    random.fill(matrix);
    const expected = multiplied(portable, shards, offsets, matrix, outputs, length);
    for (const [name, kernel] of kernels.slice(1)) {
      const mine = multiplied(kernel, shards, offsets, matrix, outputs, length);
      assert(equal(mine, expected), `${name}: ${inputs} to ${outputs}, ${length} bytes, round ${round}`);
    }
  }
});

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

Deno.test("shards: what ISA-L 2.30 made of 10 shards with its Cauchy matrix", () => {
  const [k, m, bytes] = [10, 14, 97];
  const offsets = Array.from({ length: m }, (_, i) => i * bytes);
  const matrix = Uint8Array.from(
    { length: k * (m - k) },
    (_, i) => invert((k + Math.floor(i / k)) ^ (i % k)),
  );
  for (const [name, kernel] of kernels) {
    const shards = Uint8Array.from(
      { length: m * bytes },
      (_, i) => i < k * bytes ? (i * i + 31 * i) >> 3 : 0,
    );
    const made = multiplied(kernel, shards, offsets, matrix, m - k, bytes);
    assertEquals(
      createHash("sha256").update(made.slice(k * bytes)).digest("hex"),
      "fbc1c34e0346a5daa55335ec93326d0929fd8079630833fc4d895d5220720057",
      name,
    );
  }
});

Deno.test({
  name: "shards: the same bytes as ISA-L's, for any coefficients and lengths",
  ignore: isaL === undefined,
  fn() {
    const random = new Random(2), tables = new Uint8Array(32 * 32);
    for (let round = 0; round < 200; round++) {
      // ISA-L takes no shards below 64 bytes here.
      const inputs = 1 + random.u32() % 32, length = 64 + random.u32() % 600;
      const shards = new Uint8Array((inputs + 1) * length), matrix = new Uint8Array(inputs);
      random.fill(shards.subarray(0, inputs * length));
      random.fill(matrix);
      const sum = new Uint8Array(length);
      isaL!.ec_init_tables(inputs, 1, matrix, tables);
      for (let i = 0; i < inputs; i++) {
        isaL!.gf_vect_mad(length, inputs, i, tables, shards.slice(i * length, (i + 1) * length), sum);
      }
      const offsets = Array.from({ length: inputs + 1 }, (_, i) => i * length);
      for (const [name, kernel] of kernels) {
        const mine = multiplied(kernel, shards, offsets, matrix, 1, length).slice(inputs * length);
        assert(equal(mine, sum), `${name}: ${inputs} of ${length} bytes, round ${round}`);
      }
    }
  },
});

Deno.test({
  name: "shards: ISA-L's inverse of any k rows of the block code brings the sources back",
  ignore: isaL === undefined,
  fn() {
    const random = new Random(3), bytes = 70;
    for (let round = 0; round < 150; round++) {
      const k = 1 + random.u32() % 32, m = 1 + random.u32() % (64 - k);
      const rows = Array.from({ length: k + m }, (_, number) => {
        const row = new Uint8Array(k);
        if (number < k) row[number] = 1;
        else assert(blockCoefficients(number, k, row, 0));
        return row;
      });
      const sources = new Uint8Array(k * bytes);
      random.fill(sources);
      // All shards by the kernel, k of them by chance.
      const all = multiplied(
        kernels.at(-1)![1],
        Uint8Array.from([...sources, ...new Uint8Array(m * bytes)]),
        rows.map((_, i) => i * bytes),
        rows.slice(k).flatMap((row) => [...row]),
        m,
        bytes,
      );
      const chosen = rows.map((_, i) => i);
      for (let i = chosen.length - 1; i > 0; i--) {
        const j = random.u32() % (i + 1);
        [chosen[i], chosen[j]] = [chosen[j], chosen[i]];
      }
      chosen.length = k;
      const inverse = new Uint8Array(k * k);
      const matrix = Uint8Array.from(chosen.flatMap((number) => [...rows[number]]));
      assertEquals(isaL!.gf_invert_matrix(matrix, inverse, k), 0, `${k} of ${k + m}: ${chosen}`);
      const survivors = chosen.flatMap((number) => [...all.slice(number * bytes, (number + 1) * bytes)]);
      const solved = multiplied(
        kernels.at(-1)![1],
        Uint8Array.from([...survivors, ...new Uint8Array(k * bytes)]),
        Array.from({ length: 2 * k }, (_, i) => i * bytes),
        inverse,
        k,
        bytes,
      );
      assert(equal(solved.slice(k * bytes), sources), `${k} of ${k + m}: ${chosen}`);
    }
  },
});

Deno.test("shards: what does not fit is refused and touches nothing", () => {
  const bytes = 100 + MATRIX_AT + 8;
  for (const [name, kernel] of kernels) {
    for (
      const [offsets, inputs, outputs, length, taskAt] of [
        [[0, bytes - 40], 1, 1, 41, 100],
        [[bytes - 40, 0], 1, 1, 41, 100],
        [[0, 0xffffffff], 1, 1, 2, 100],
        [[0, 0xfffffff0], 1, 1, 40, 100],
        [[0, 50], 0, 1, 10, 100],
        [[0, 50], 1, 0, 10, 100],
        [[0, 50], 3, 1, 10, 100],
        [[0, 50], 256, 1, 0, 0],
        [[0, 50], 257, 1, 0, 0],
        [[0, 50], 1, 256, 0, 0],
        [[0, 50], 1, 1, 65536, 100],
        [[0, 50], 1, 1, 10, 108],
        [[0, 50], 3, 3, 0, 100],
        [[0, 50], 1, 1, 10, 98],
        [[0, 95], 1, 1, 6, 100],
        [[0, 100], 1, 1, 6, 100],
        [[0, 100 + MATRIX_AT], 1, 1, 1, 100],
        [[0, 50], 1, 1, 10, 0xfffffff8],
      ] as [number[], number, number, number, number][]
    ) {
      const memory = new Uint8Array(bytes).fill(9);
      offsets.forEach((offset, i) => new DataView(memory.buffer).setUint32(100 + 4 * i, offset, true));
      const before = memory.slice();
      assertThrows(() => kernel.multiply(memory, taskAt, inputs, outputs, length), RangeError);
      assertEquals(memory, before, `${name}: ${[offsets, inputs, outputs, length, taskAt]}`);
    }
  }
});

Deno.test("shards: copies of any length, and nowhere else", () => {
  const random = new Random(4), from = new Uint8Array(900), to = new Uint8Array(900);
  random.fill(from);
  for (let length = 0; length < 700; length++) {
    const at = random.u32() % 200, toAt = random.u32() % 200;
    random.fill(to);
    for (const [name, kernel] of kernels) {
      const mine = to.slice(), expected = to.slice();
      expected.set(from.subarray(at, at + length), toAt);
      kernel.copy(from, at, mine, toAt, length);
      assert(equal(mine, expected), `${name}: ${length} bytes`);
      assertThrows(() => kernel.copy(from, 901 - length, mine, 0, length), RangeError);
      assertThrows(() => kernel.copy(from, 0, mine, 901 - length, length), RangeError);
      assert(equal(mine, expected), `${name}: ${length} bytes`);
    }
  }
});
