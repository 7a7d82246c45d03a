/**
 * `deno task bench:shards [--isal PATH]`: what one block's repair shards cost by each kernel, beside Intel's ISA-L where its
 * library is installed (Debian's libisal2), in turn and in one run. Nanoseconds a call, the call included, and GB of sources
 * a second; medians. Asserts no time.
 */
import { parseArgs } from "@std/cli";
import { openLibrary } from "../ffi/mod.ts";
import { loadNative } from "../ffi/native.ts";
import { PortableShardKernel } from "../src/codec/gf256.ts";
import type { ShardKernel } from "../src/codec/kernels.ts";
import {
  hasShardImplementation,
  NativeShardKernel,
  SHARD_IMPLEMENTATION,
} from "../src/codec/native_shards.ts";

const path = String(
  parseArgs(Deno.args, { string: ["isal"] }).isal ?? "/usr/lib/x86_64-linux-gnu/libisal.so.2",
);
const ROUNDS = 15;
const BLOCKS = [
  { k: 4, m: 1, bytes: 200 },
  { k: 4, m: 2, bytes: 200 },
  { k: 8, m: 2, bytes: 200 },
  { k: 8, m: 2, bytes: 1200 },
  { k: 16, m: 4, bytes: 1200 },
  { k: 32, m: 8, bytes: 1200 },
];
const STRIDE = 1280;

class IsaL implements ShardKernel {
  readonly #library = openLibrary(path, {
    ec_init_tables: { parameters: ["i32", "i32", "buffer", "buffer"], result: "void" },
    ec_encode_data: { parameters: ["i32", "i32", "i32", "buffer", "buffer", "buffer"], result: "void" },
    ec_encode_data_avx2: { parameters: ["i32", "i32", "i32", "buffer", "buffer", "buffer"], result: "void" },
  });
  readonly #encode: "ec_encode_data" | "ec_encode_data_avx2";
  #prepared: Uint8Array | undefined;
  readonly #tables = new Uint8Array(32 * 64 * 64);
  readonly #from = new BigUint64Array(64);
  readonly #to = new BigUint64Array(64);

  /** With the best instructions that it knows here, or as it would be on a processor with AVX2 alone. */
  constructor(encode: "ec_encode_data" | "ec_encode_data_avx2") {
    this.#encode = encode;
  }

  /** Its tables and pointers are made once for a matrix, as its users do. */
  multiply(
    memory: Uint8Array<ArrayBuffer>,
    offsets: Uint32Array<ArrayBuffer>,
    matrix: Uint8Array<ArrayBuffer>,
    inputs: number,
    outputs: number,
    length: number,
  ): void {
    const { ec_init_tables } = this.#library;
    if (this.#prepared !== matrix) {
      this.#prepared = matrix;
      ec_init_tables(inputs, outputs, matrix, this.#tables);
      const start = BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(memory)));
      for (let i = 0; i < inputs; i++) this.#from[i] = start + BigInt(offsets[i]);
      for (let i = 0; i < outputs; i++) this.#to[i] = start + BigInt(offsets[inputs + i]);
    }
    this.#library[this.#encode](length, inputs, outputs, this.#tables, this.#from, this.#to);
  }
}

const native = loadNative();
if (typeof native === "string") throw new Error(native);
const contenders: [name: string, kernel: ShardKernel][] = [["portable", new PortableShardKernel()]];
for (const [name, implementation] of Object.entries(SHARD_IMPLEMENTATION)) {
  if (name === "fastest" || !hasShardImplementation(native, implementation)) continue;
  contenders.push([name.toUpperCase(), new NativeShardKernel(native, implementation)]);
}
try {
  contenders.push(["ISA-L", new IsaL("ec_encode_data")], ["ISA-L, AVX2", new IsaL("ec_encode_data_avx2")]);
} catch (error) {
  console.error(`without ISA-L: ${(error as Error).message}`);
}

const memory = crypto.getRandomValues(new Uint8Array(48 * STRIDE));
const offsets = Uint32Array.from({ length: 48 }, (_, i) => i * STRIDE);
console.log(`| sources, repairs, bytes | ${contenders.map(([name]) => name).join(" | ")} |`);
console.log(`|---|${contenders.map(() => "---|").join("")}`);
for (const { k, m, bytes } of BLOCKS) {
  const matrix = crypto.getRandomValues(new Uint8Array(k * m));
  const times = contenders.map((): number[] => []);
  for (let round = 0; round < ROUNDS; round++) {
    for (const [i, [name, kernel]] of contenders.entries()) {
      const calls = Math.ceil((name === "portable" ? 2e6 : 4e8) / (k * m * bytes) / 10);
      const start = performance.now();
      for (let call = 0; call < calls; call++) kernel.multiply(memory, offsets, matrix, k, m, bytes);
      times[i].push((performance.now() - start) * 1e6 / calls);
    }
  }
  const cells = times.map((all) => {
    const ns = all.sort((a, b) => a - b)[all.length >> 1];
    return `${ns.toFixed(0)} ns, ${(k * bytes / ns).toFixed(1)} GB/s`;
  });
  console.log(`| ${k}, ${m}, ${bytes} | ${cells.join(" | ")} |`);
}
