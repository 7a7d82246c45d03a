/**
 * The native kernel for linear combinations of shards: GFNI with AVX-512 or AVX2, AVX2 alone, or SSSE3 on x86-64, NEON
 * on arm64, the best that the processor has unless told. Invariant: the same bytes as the portable kernel's.
 */
import type { Native } from "../../ffi/native.ts";
import { checkCopy, checkShards } from "./gf256.ts";
import { type ShardKernel, SHARDS_MAX } from "./kernels.ts";

/** The ways to compute it; `fastest` takes the best here. */
export const SHARD_IMPLEMENTATION = {
  fastest: 0,
  ssse3: 1,
  avx2: 2,
  gfni_avx2: 3,
  gfni_avx512: 4,
  neon: 5,
} as const;
type Implementation = (typeof SHARD_IMPLEMENTATION)[keyof typeof SHARD_IMPLEMENTATION];

/** Whether the processor can run it. */
export function hasShardImplementation(native: Native, implementation: Implementation): boolean {
  return native.ox_gf256_implementation(implementation) > 0;
}

/** Shards below this length, bytes, are copied in TypeScript: a native call takes longer than the copy. */
const COPY_BYTES_MIN = 48;

export class NativeShardKernel implements ShardKernel {
  readonly #multiply: Native["ox_gf256_multiply"];
  readonly #copy: Native["ox_gf256_copy"];
  /** The implementation's number where `ox_gf256_multiply` wants it. */
  readonly #shape: number;

  /** Throws when the processor cannot run the implementation. */
  constructor(native: Native, implementation: Implementation = SHARD_IMPLEMENTATION.fastest) {
    if (!hasShardImplementation(native, implementation)) {
      throw new Error("shards: this processor lacks the instructions that were asked for");
    }
    this.#multiply = native.ox_gf256_multiply;
    this.#copy = native.ox_gf256_copy;
    this.#shape = native.ox_gf256_implementation(implementation) << 16;
  }

  multiply(
    memory: Uint8Array<ArrayBuffer>,
    taskAt: number,
    inputs: number,
    outputs: number,
    length: number,
  ): void {
    const isShape = inputs <= SHARDS_MAX && outputs <= SHARDS_MAX;
    const shape = this.#shape | outputs << 8 | inputs;
    if (!isShape || this.#multiply(memory, memory.length, taskAt, shape, length) < 0) {
      checkShards(memory, taskAt, inputs, outputs, length);
      throw new Error("shards: the native kernel refused them");
    }
  }

  copy(
    from: Uint8Array,
    at: number,
    to: Uint8Array,
    toAt: number,
    length: number,
  ): void {
    if (length < COPY_BYTES_MIN) {
      checkCopy(from, at, to, toAt, length);
      for (let i = 0; i < length; i++) to[toAt + i] = from[at + i];
      return;
    }
    // What crosses may be shared memory too; only its type says otherwise.
    const source = from as Uint8Array<ArrayBuffer>, target = to as Uint8Array<ArrayBuffer>;
    if (this.#copy(source, from.length, at, target, to.length, toAt, length) < 0) {
      checkCopy(from, at, to, toAt, length);
      throw new Error("shards: the native kernel refused them");
    }
  }
}
