/**
 * Mutations of what turns bytes into bytes: src/codec, and its kernels in ffi/src.
 */
import type { Mutation } from "./mutation.ts";

export const CODEC_ROWS: readonly Mutation[] = [
  {
    file: "src/codec/sliding_window.ts",
    from: "this.#generator.seed(key);",
    to: "this.#generator.seed(key + 1);",
    tests: ["tests/unit/erasure_test.ts"],
    note: "the window code draws from another seed (wire format)",
  },
  {
    file: "src/codec/sliding_window.ts",
    from: "if (coefficient !== 0) out[at + done++] = coefficient;",
    to: "out[at + done++] = coefficient;",
    tests: ["tests/unit/erasure_test.ts"],
    note: "a source that a repair leaves out",
  },
  {
    file: "src/codec/tinymt32.ts",
    from: "const WARM_UP = 8;",
    to: "const WARM_UP = 7;",
    tests: ["tests/unit/erasure_test.ts"],
    note: "another generator than RFC 8682's",
  },
  {
    file: "ffi/build.rs",
    from: 'println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");',
    to: "",
    tests: ["tests/system/library_test.ts"],
    note: "the library is unmapped under threads that end",
  },
];
