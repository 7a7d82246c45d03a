/**
 * The native kernel for linear combinations of shards: GFNI with AVX-512 or AVX2, AVX2 alone, or SSSE3, the best that the
 * processor has unless told. Invariant: the same bytes as the portable kernel's.
 */
import type { Native } from "../../ffi/native.ts";
import { checkShards } from "./gf256.ts";
import type { ShardKernel } from "./kernels.ts";

/** The ways to compute it; `fastest` takes the best here. */
export const SHARD_IMPLEMENTATION = { fastest: 0, ssse3: 1, avx2: 2, gfni_avx2: 3, gfni_avx512: 4 } as const;
type Implementation = (typeof SHARD_IMPLEMENTATION)[keyof typeof SHARD_IMPLEMENTATION];

/** Whether the processor can run it. */
export function hasShardImplementation(native: Native, implementation: Implementation): boolean {
  return native.ox_gf256_implementation(implementation) > 0;
}

export class NativeShardKernel implements ShardKernel {
  readonly #native: Native;
  readonly #implementation: number;

  /** Throws when the processor cannot run the implementation. */
  constructor(native: Native, implementation: Implementation = SHARD_IMPLEMENTATION.fastest) {
    if (!hasShardImplementation(native, implementation)) {
      throw new Error("shards: this processor lacks the instructions that were asked for");
    }
    this.#native = native;
    this.#implementation = native.ox_gf256_implementation(implementation);
  }

  multiply(
    memory: Uint8Array<ArrayBuffer>,
    offsetsAt: number,
    matrixAt: number,
    inputs: number,
    outputs: number,
    length: number,
  ): void {
    const result = this.#native.ox_gf256_multiply(
      memory,
      memory.length,
      offsetsAt,
      matrixAt,
      inputs,
      outputs,
      length,
      this.#implementation,
    );
    if (result < 0) {
      checkShards(memory, offsetsAt, matrixAt, inputs, outputs, length);
      throw new Error("shards: the native kernel refused them");
    }
  }
}
