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
  {
    file: "src/codec/headers/shrinker.ts",
    from: "context.generation !== generation ||",
    to: "",
    tests: ["tests/unit/headers_test.ts"],
    note: "an acknowledgment of another generation counts",
  },
  {
    file: "src/codec/headers/shrinker.ts",
    from: "    if (bytes < 0) return BARE;\n    if ((++this.#sample",
    to: "    if ((++this.#sample",
    tests: ["tests/unit/headers_test.ts"],
    note: "a packet that cannot come back is shortened",
  },
  {
    file: "src/codec/headers/template.ts",
    from: "view.getUint16(at + 10) !== 0xffff && foldSum(sumWords(view, at, IPV4_HEADER_BYTES, 0)) === 0;",
    to: "true;",
    tests: ["tests/unit/headers_test.ts"],
    note: "a wrong header checksum is mended on the way",
  },
  {
    file: "src/codec/headers/template.ts",
    from: "if ((flags & 0x10) === 0 || length < this.headerBytes) return CHANGED;",
    to: "",
    tests: ["tests/unit/headers_test.ts"],
    note: "a segment without ACK is shortened",
  },
  {
    file: "src/codec/headers/expander.ts",
    from: "const definition = context.current.counter < counter ? context.current : context.previous;",
    to: "const definition = context.current;",
    tests: ["tests/unit/headers_test.ts"],
    note: "a late short packet is rebuilt by a later definition",
  },
  {
    file: "src/codec/headers/expander.ts",
    from: "if (this.#budget.left === 0) return undefined;",
    to: "",
    tests: ["tests/unit/headers_test.ts"],
    note: "contexts without end",
  },
  {
    file: "src/egress/shrink.ts",
    from: "if (repair === undefined || !repair.sends(trafficClass[row])) return;",
    to: "return;",
    tests: ["tests/sim/ox_headers_test.ts"],
    note: "a protected short packet has no head, so that a recovered one is as long as the symbol",
  },
  {
    file: "src/codec/rohc/flow_decompressor.ts",
    from: "if (headersCrc(headers, writer.bytes, this.#layout, compressed.crcBits) !== compressed.crc) {",
    to: "if (false as boolean) {",
    tests: ["tests/fuzz/rohc_test.ts"],
    note: "ROHC: a packet is believed without its checksum",
  },
  {
    file: "src/codec/rohc/flow_compressor.ts",
    from: "if (extension) this.#extensionLeft = this.repeats;",
    to: "if (extension) this.#extensionLeft = 1;",
    tests: ["tests/fuzz/rohc_test.ts"],
    note: "ROHC: a change is told once",
  },
  {
    file: "src/codec/rohc/tcp/compressor.ts",
    from: "window.fits(value, 0, 0, width)",
    to: "true",
    tests: ["tests/fuzz/rohc_test.ts"],
    note: "ROHC: a number that changed is left out",
  },
  {
    file: "src/codec/rohc/feedback.ts",
    from: "if (crc !== expected) return undefined;",
    to: "",
    tests: ["tests/fuzz/rohc_test.ts"],
    note: "ROHC: feedback with a wrong checksum is believed",
  },
];
