/**
 * Linear combinations of shards: every implementation that runs here against the portable one, against slow arithmetic of
 * the test's own, and against bytes that Intel's ISA-L made.
 */
import { assertEquals, assertThrows } from "@std/assert";
import { createHash } from "node:crypto";
import { loadNative } from "../../ffi/native.ts";
import { invert, PortableShardKernel } from "../../src/codec/gf256.ts";
import type { ShardKernel } from "../../src/codec/kernels.ts";
import {
  hasShardImplementation,
  NativeShardKernel,
  SHARD_IMPLEMENTATION,
} from "../../src/codec/native_shards.ts";
import { Random } from "../sim/world.ts";

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

Deno.test("shards: products are those of GF(2^8) with 0x11d, whatever the kernel", () => {
  const memory = new Uint8Array(512), offsets = Uint32Array.of(0, 256);
  for (let a = 0; a < 256; a++) {
    for (const [name, kernel] of kernels) {
      for (let b = 0; b < 256; b++) memory[b] = b;
      kernel.multiply(memory, offsets, Uint8Array.of(a), 1, 1, 256);
      for (let b = 0; b < 256; b++) {
        if (memory[256 + b] !== slowly(a, b)) throw new Error(`${name}: ${a} x ${b} = ${memory[256 + b]}`);
      }
    }
    if (a > 0) assertEquals(slowly(a, invert(a)), 1);
  }
});

Deno.test("shards: every kernel gives the same bytes and writes nowhere else", () => {
  const random = new Random(1);
  for (let round = 0; round < 400; round++) {
    const inputs = 1 + random.u32() % (round % 8 === 0 ? 64 : 12), outputs = 1 + random.u32() % 9;
    const length = round < 200 ? round : random.u32() % 2000;
    // Anywhere in the memory, in any order, never overlapping.
    const stride = length + random.u32() % 40;
    const order = Uint32Array.from({ length: inputs + outputs }, (_, i) => i);
    for (let i = order.length - 1; i > 0; i--) {
      const j = random.u32() % (i + 1);
      [order[i], order[j]] = [order[j], order[i]];
    }
    const offsets = order.map((place) => 7 + place * stride);
    const memory = new Uint8Array(7 + stride * (inputs + outputs) + 11),
      matrix = new Uint8Array(inputs * outputs);
    random.fill(memory);
    random.fill(matrix);
    const before = memory.slice();
    portable.multiply(memory, offsets, matrix, inputs, outputs, length);
    for (const [name, kernel] of kernels.slice(1)) {
      const mine = before.slice();
      kernel.multiply(mine, offsets, matrix, inputs, outputs, length);
      assertEquals(mine, memory, `${name}: ${inputs} to ${outputs}, ${length} bytes`);
    }
  }
});

Deno.test("shards: what ISA-L 2.30 made of 10 shards with its Cauchy matrix", () => {
  const [k, m, bytes] = [10, 14, 97];
  const offsets = Uint32Array.from({ length: m }, (_, i) => i * bytes);
  const matrix = Uint8Array.from(
    { length: k * (m - k) },
    (_, i) => invert((k + Math.floor(i / k)) ^ (i % k)),
  );
  for (const [name, kernel] of kernels) {
    const memory = Uint8Array.from(
      { length: m * bytes },
      (_, i) => i < k * bytes ? (i * i + 31 * i) >> 3 : 0,
    );
    kernel.multiply(memory, offsets, matrix, k, m - k, bytes);
    assertEquals(
      createHash("sha256").update(memory.slice(k * bytes)).digest("hex"),
      "fbc1c34e0346a5daa55335ec93326d0929fd8079630833fc4d895d5220720057",
      name,
    );
  }
});

Deno.test("shards: what does not fit is refused and touches nothing", () => {
  const memory = new Uint8Array(100).fill(9);
  for (const [, kernel] of kernels) {
    for (
      const [offsets, inputs, outputs, length] of [
        [[0, 51], 1, 1, 50],
        [[51, 0], 1, 1, 50],
        [[0, 0xffffffff], 1, 1, 2],
        [[0, 50], 0, 1, 10],
        [[0, 50], 1, 0, 10],
        [[0, 50], 2, 1, 10],
        [[0, 50], 1, 1, 65536],
      ] as [number[], number, number, number][]
    ) {
      assertThrows(
        () => kernel.multiply(memory, Uint32Array.from(offsets), new Uint8Array(1), inputs, outputs, length),
        RangeError,
      );
    }
    assertEquals(memory, new Uint8Array(100).fill(9));
  }
});
