/**
 * `deno task bench:shards [--isal PATH] [--rounds N]`: what repair shards cost by each kernel, beside Intel's ISA-L where its
 * library is installed (Debian's libisal2), in turn and in one run. First one call of a kernel with what is ready before it,
 * the call through the FFI included; then whole calls of the codec, a repair made and a loss brought back, whose
 * coefficients are new each time. The least of many rounds, which others on the machine disturb least. Asserts no time.
 */
import { parseArgs } from "@std/cli";
import { openLibrary } from "../ffi/mod.ts";
import { loadNative } from "../ffi/native.ts";
import { CODE_BLOCK, CODE_WINDOW, RepairDecoder, RepairEncoder } from "../src/codec/erasure.ts";
import { PortableShardKernel } from "../src/codec/gf256.ts";
import { MATRIX_AT, type ShardKernel } from "../src/codec/kernels.ts";
import {
  hasShardImplementation,
  NativeShardKernel,
  SHARD_IMPLEMENTATION,
} from "../src/codec/native_shards.ts";

const args = parseArgs(Deno.args, { string: ["isal", "rounds"] });
const path = String(args.isal ?? "/usr/lib/x86_64-linux-gnu/libisal.so.2");
const ROUNDS = Number(args.rounds ?? 60);
const SAMPLE_MS = 0.3;
/** Sources, repairs, bytes of a shard; the first is a call that does next to nothing. */
const BLOCKS = [
  [1, 1, 0],
  [2, 1, 64],
  [4, 1, 64],
  [4, 1, 200],
  [4, 2, 200],
  [8, 1, 200],
  [8, 2, 200],
  [8, 4, 200],
  [4, 2, 640],
  [8, 2, 640],
  [8, 4, 640],
  [8, 2, 1200],
  [16, 4, 1200],
  [32, 8, 1200],
];
const STRIDE = 1280, SHARDS = 48;

/** A kernel under measurement: `prepare` gives one call of a block whose matrix stays, `kernel` serves the codec. */
interface Contender {
  name: string;
  prepare(k: number, m: number, bytes: number): () => void;
  kernel: ShardKernel;
}

const TASK_AT = SHARDS * STRIDE;
const all = new Uint8Array(TASK_AT + MATRIX_AT + SHARDS * SHARDS);
crypto.getRandomValues(all.subarray(0, TASK_AT));
const offsets = new Uint32Array(all.buffer, TASK_AT, SHARDS);
for (let i = 0; i < SHARDS; i++) offsets[i] = i * STRIDE;

const ours = (name: string, kernel: ShardKernel): Contender => ({
  name,
  kernel,
  prepare: (k, m, bytes) => () => kernel.multiply(all, TASK_AT, k, m, bytes),
});

type Encode = "ec_encode_data" | "ec_encode_data_avx2";

/** ISA-L with the best instructions that it knows here, or as it would be on a processor with AVX2 alone. */
class IsaL implements Contender, ShardKernel {
  readonly #library = openLibrary(path, {
    ec_init_tables: { parameters: ["i32", "i32", "buffer", "pointer"], result: "void" },
    ec_encode_data: { parameters: ["i32", "i32", "i32", "pointer", "pointer", "pointer"], result: "void" },
    ec_encode_data_avx2: {
      parameters: ["i32", "i32", "i32", "pointer", "pointer", "pointer"],
      result: "void",
    },
  });
  readonly #tables = new Uint8Array(32 * SHARDS * SHARDS);
  readonly #from = new Uint32Array(2 * 128);
  readonly #to = new Uint32Array(2 * 128);
  readonly #pointers = [this.#tables, this.#from, this.#to].map((array) => Deno.UnsafePointer.of(array));
  readonly #matrix = new Uint8Array(256);
  #memory: Uint8Array<ArrayBuffer> | undefined;
  #start = 0;
  #offsets = new DataView(new ArrayBuffer(0));
  readonly kernel = this;

  constructor(readonly name: string, readonly encode: Encode) {}

  /** Tables and pointers are made once for a matrix, as its users do, and cross as what costs least, pointers. */
  prepare(k: number, m: number, bytes: number): () => void {
    const library = this.#library, [tables, from, to] = this.#pointers;
    library.ec_init_tables(k, m, all.subarray(TASK_AT + MATRIX_AT).slice(0, k * m), tables);
    this.#point(all, TASK_AT, k, m);
    return this.encode === "ec_encode_data"
      ? () => library.ec_encode_data(bytes, k, m, tables, from, to)
      : () => library.ec_encode_data_avx2(bytes, k, m, tables, from, to);
  }

  /** With a matrix that is new, as in a sliding window: tables and pointers are part of the work. */
  multiply(
    memory: Uint8Array<ArrayBuffer>,
    taskAt: number,
    inputs: number,
    outputs: number,
    length: number,
  ): void {
    const [tables, from, to] = this.#pointers;
    for (let i = 0; i < inputs * outputs; i++) this.#matrix[i] = memory[taskAt + MATRIX_AT + i];
    this.#library.ec_init_tables(inputs, outputs, this.#matrix, tables);
    this.#point(memory, taskAt, inputs, outputs);
    if (this.encode === "ec_encode_data") {
      this.#library.ec_encode_data(length, inputs, outputs, tables, from, to);
    } else this.#library.ec_encode_data_avx2(length, inputs, outputs, tables, from, to);
  }

  /** As our fastest kernel does. */
  copy(
    from: Uint8Array,
    at: number,
    to: Uint8Array,
    toAt: number,
    length: number,
  ): void {
    fastest.copy(from, at, to, toAt, length);
  }

  #point(memory: Uint8Array<ArrayBuffer>, taskAt: number, inputs: number, outputs: number): void {
    if (memory !== this.#memory) {
      this.#memory = memory;
      this.#start = Number(Deno.UnsafePointer.value(Deno.UnsafePointer.of(memory)));
      this.#offsets = new DataView(memory.buffer);
    }
    for (let i = 0; i < inputs + outputs; i++) {
      const address = this.#start + this.#offsets.getUint32(taskAt + 4 * i, true);
      const words = i < inputs ? this.#from : this.#to, at = 2 * (i < inputs ? i : i - inputs);
      words[at] = address >>> 0;
      words[at + 1] = Math.floor(address / 2 ** 32);
    }
  }
}

const native = loadNative();
if (typeof native === "string") throw new Error(native);
const fastest = new NativeShardKernel(native);
const contenders: Contender[] = [ours("portable", new PortableShardKernel())];
for (const [name, implementation] of Object.entries(SHARD_IMPLEMENTATION)) {
  if (name === "fastest" || !hasShardImplementation(native, implementation)) continue;
  contenders.push(ours(name.toUpperCase().replace("_", ", "), new NativeShardKernel(native, implementation)));
}
try {
  contenders.push(new IsaL("ISA-L", "ec_encode_data"), new IsaL("ISA-L, AVX2", "ec_encode_data_avx2"));
} catch (error) {
  console.error(`without ISA-L: ${(error as Error).message}`);
}

/** Nanoseconds of each call, in turn, the least of all rounds. */
function measure(calls: (() => void)[]): number[] {
  const repeats = calls.map((call) => {
    let count = 1;
    for (;;) {
      const start = performance.now();
      for (let i = 0; i < count; i++) call();
      const ms = performance.now() - start;
      if (ms > SAMPLE_MS / 2) return Math.ceil(count * SAMPLE_MS / ms);
      count *= 4;
    }
  });
  const least = calls.map(() => Infinity);
  for (let round = 0; round < ROUNDS; round++) {
    for (const [i, call] of calls.entries()) {
      const start = performance.now();
      for (let left = repeats[i]; left > 0; left--) call();
      least[i] = Math.min(least[i], (performance.now() - start) * 1e6 / repeats[i]);
    }
  }
  return least;
}

const head = (what: string, more: string[] = []) => {
  const names = [what, ...contenders.map(({ name }) => name), ...more];
  console.log(`| ${names.join(" | ")} |`);
  console.log(`|${names.map(() => "---|").join("")}`);
};

/** Which contenders are put in relation: the best of each, and each by AVX2. */
const PAIRS = [["GFNI, AVX512", "ISA-L"], ["AVX2", "ISA-L, AVX2"]].map((pair) =>
  pair.map((name) => contenders.findIndex((contender) => contender.name === name))
).filter((pair) => !pair.includes(-1));
const relations = PAIRS.map(([a, b]) => `${contenders[a].name} : ${contenders[b].name}`);

head("sources, repairs, bytes", relations);
let empty: number[] | undefined;
measure(contenders.map((contender) => contender.prepare(1, 1, 0))); // until all is compiled
for (const [k, m, bytes] of BLOCKS) {
  all.set(crypto.getRandomValues(new Uint8Array(k * m)), TASK_AT + MATRIX_AT);
  const times = measure(contenders.map((contender) => contender.prepare(k, m, bytes)));
  const calls = empty ??= times;
  const cells = times.map((ns) =>
    `${ns.toFixed(0)} ns${bytes ? `, ${(k * bytes / ns).toFixed(1)} GB/s` : ""}`
  );
  // How many times as fast, and in brackets the same without what a call takes that does nothing, where that leaves enough.
  for (const [a, b] of bytes ? PAIRS : []) {
    const ns = times[a] - calls[a], theirs = times[b] - calls[b];
    const net = Math.min(ns, theirs) < 5 ? "little" : (theirs / ns).toFixed(1);
    cells.push(`${(times[b] / times[a]).toFixed(1)} (${net})`);
  }
  console.log(`| ${k}, ${m}, ${bytes} | ${cells.join(" | ")} |`);
}

console.log();
head("a whole call, ns");
/** Where packets are read and repairs written, as in an arena. */
const packets = crypto.getRandomValues(new Uint8Array(4096));

/** A packet taken in and, each time, a repair of the last `window` made and written out. */
function making(kernel: ShardKernel, code: number, window: number, bytes: number): () => void {
  const encoder = new RepairEncoder(kernel, 640), numbers = new Float64Array(window);
  let number = 0;
  const step = () => {
    encoder.add(++number, packets, 7, bytes);
    for (let i = 0; i < window; i++) numbers[i] = number - window + 1 + i;
    const index = code === CODE_BLOCK ? window + (number & 1) : number & 0xffff;
    encoder.take(encoder.combine(code, index, numbers, window), packets, 2053);
  };
  for (let i = 0; i < 64; i++) step();
  return step;
}

/** `window` packets of which one is lost, and a repair that brings it back. */
function solving(kernel: ShardKernel, window: number, bytes: number): () => void {
  const decoder = new RepairDecoder(kernel, 640), numbers = new Float64Array(window);
  let number = 0;
  return () => {
    for (let i = 0; i < window; i++) {
      numbers[i] = ++number;
      if (i !== 1) decoder.add(number, packets, 7, bytes);
    }
    decoder.addRepair(CODE_WINDOW, number & 0xffff, numbers, window, packets, 9, bytes);
    if (decoder.solve() !== 1) throw new Error("it was not brought back");
  };
}

for (const bytes of [64, 200, 640]) {
  for (const window of [1, 4, 8]) {
    const times = measure(contenders.map(({ kernel }) => making(kernel, CODE_WINDOW, window, bytes)));
    console.log(`| window of ${window} x ${bytes} B: take one in, make a repair | ${cellsOf(times)} |`);
  }
  const blocks = measure(contenders.map(({ kernel }) => making(kernel, CODE_BLOCK, 8, bytes)));
  console.log(`| block of 8 x ${bytes} B: take one in, make a repair | ${cellsOf(blocks)} |`);
  const times = measure(contenders.map(({ kernel }) => solving(kernel, 8, bytes)));
  console.log(`| window of 8 x ${bytes} B: take seven in, solve for the eighth | ${cellsOf(times)} |`);
}

function cellsOf(times: number[]): string {
  return times.map((ns) => ns.toFixed(0)).join(" | ");
}
