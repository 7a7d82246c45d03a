/**
 * The native kernel for linear combinations of shards: GFNI with AVX-512, AVX2 or SSSE3, the best that the processor has
 * unless told. Invariant: the same bytes as the portable kernel's.
 */
import type { Native } from "../../ffi/native.ts";
import { checkShards } from "./gf256.ts";
import type { ShardKernel } from "./kernels.ts";

/** The ways to compute it; `fastest` takes the best here. */
export const SHARD_IMPLEMENTATION = { fastest: 0, ssse3: 1, avx2: 2, gfni: 3 } as const;
type Implementation = (typeof SHARD_IMPLEMENTATION)[keyof typeof SHARD_IMPLEMENTATION];

/** Whether the processor can run it. */
export function hasShardImplementation(native: Native, implementation: Implementation): boolean {
  return native.ox_gf256_implementation(implementation) > 0;
}

export class NativeShardKernel implements ShardKernel {
  readonly #native: Native;
  readonly #implementation: Implementation;

  /** Throws when the processor cannot run the implementation. */
  constructor(native: Native, implementation: Implementation = SHARD_IMPLEMENTATION.fastest) {
    if (!hasShardImplementation(native, implementation)) {
      throw new Error("shards: this processor lacks the instructions that were asked for");
    }
    this.#native = native;
    this.#implementation = implementation;
  }

  multiply(
    memory: Uint8Array<ArrayBuffer>,
    offsets: Uint32Array<ArrayBuffer>,
    matrix: Uint8Array<ArrayBuffer>,
    inputs: number,
    outputs: number,
    length: number,
  ): void {
    const result = offsets.length < inputs + outputs || matrix.length < inputs * outputs
      ? -1
      : this.#native.ox_gf256_multiply(
        memory,
        memory.length,
        offsets,
        matrix,
        inputs,
        outputs,
        length,
        this.#implementation,
      );
    if (result < 0) {
      checkShards(memory, offsets, matrix, inputs, outputs, length);
      throw new Error("shards: the native kernel refused them");
    }
  }
}
