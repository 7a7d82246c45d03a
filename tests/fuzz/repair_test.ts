/**
 * Repair frames of a peer that has the keys and means harm: the frame's reader on hostile bytes, and the decoder on random
 * sequences of sources and repairs that lie. Held: no byte is read outside the frame, sources are ones that there can be, no
 * memory grows, and nothing is ever brought back twice or after it came. FUZZ_SEED and FUZZ_RUNS choose the run.
 */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { loadNative } from "../../ffi/native.ts";
import { CODE_BLOCK, CODE_WINDOW, RepairDecoder, SOURCES_MAX } from "../../src/codec/erasure.ts";
import { PortableShardKernel } from "../../src/codec/gf256.ts";
import { NativeShardKernel } from "../../src/codec/native_shards.ts";
import { canCarryRepair, repairHeadBytes, RepairReader, writeRepairHead } from "../../src/wire/repair.ts";
import { Random } from "../kit/random.ts";

const options = {
  numRuns: Number(Deno.env.get("FUZZ_RUNS") ?? 500),
  seed: Number(Deno.env.get("FUZZ_SEED") ?? 20260301),
};
const native = loadNative();
/** Not aligned, as an offset into an arena may be. */
const AT = 83;

/** A view that knows where its reader may look. */
class GuardedView extends DataView<ArrayBuffer> {
  readonly #end: number;
  constructor(bytes: Uint8Array<ArrayBuffer>, end: number) {
    super(bytes.buffer);
    this.#end = end;
  }
  override getUint8(at: number): number {
    if (at < AT || at >= this.#end) throw new Error(`read at ${at - AT} of ${this.#end - AT}`);
    return super.getUint8(at);
  }
}

/** Counters at the edges of what 4 bytes, 48 bits and doubles hold, small ones, and any. */
const counters = fc.oneof(
  fc.integer({ min: 0, max: 400 }),
  fc.constantFrom(2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 32 + 40, 2 ** 48 - 1, 2 ** 48, 2 ** 53 - 1),
  fc.maxSafeNat(),
);

Deno.test("fuzz: a repair frame names sources that there can be, and a symbol within it (PROTOCOL R90)", () => {
  const reader = new RepairReader();
  let read = 0;
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 60, size: "max" }),
      counters,
      fc.boolean(),
      (body, counter, isLikely) => {
        if (isLikely && body.length > 0) body[0] = (body[0] & 0x80) | (body[0] & 15) % 9;
        const bytes = new Uint8Array(AT + body.length + 32).fill(0xff);
        bytes.set(body, AT);
        const view = new GuardedView(bytes, AT + body.length);
        if (!reader.read(view, AT, body.length, counter)) return;
        read++;
        const numbers = [...reader.numbers.subarray(0, reader.count)];
        assert(numbers.length >= 1 && numbers.length <= SOURCES_MAX);
        assert(
          numbers.every((number, i) => Number.isSafeInteger(number) && (i === 0 || number > numbers[i - 1])),
        );
        assert(numbers[0] >= 0 && numbers.at(-1)! < counter && counter - numbers.at(-1)! <= 255);
        assert(reader.symbolBytes >= 1 && reader.symbolAt + reader.symbolBytes === AT + body.length);
        assert(reader.symbolAt >= AT + 3);
      },
    ),
    options,
  );
  assert(read > options.numRuns / 20, `${read} were read`);
});

Deno.test("fuzz: a repair's head reads as it was written", () => {
  const reader = new RepairReader(), view = new DataView(new ArrayBuffer(AT + 100));
  let written = 0;
  fc.assert(
    fc.property(
      counters,
      fc.integer({ min: 1, max: 255 }),
      fc.uniqueArray(fc.integer({ min: 1, max: 64 }), { maxLength: SOURCES_MAX - 1 }),
      fc.boolean(),
      fc.integer({ min: 0, max: 255 }),
      (counter, distance, back, isBlock, index) => {
        const newest = counter - distance;
        const numbers = [...back.sort((a, b) => b - a).map((one) => newest - one), newest];
        if (numbers[0] < 0 || !Number.isSafeInteger(counter)) return;
        assert(canCarryRepair(counter, newest));
        const list = Float64Array.from(numbers);
        const symbolAt = writeRepairHead(view, AT, isBlock, index, counter, list, numbers.length);
        assertEquals(symbolAt - AT, repairHeadBytes(newest - numbers[0]));
        assert(reader.read(view, AT, symbolAt - AT + 5, counter));
        assertEquals([...reader.numbers.subarray(0, reader.count)], numbers);
        assertEquals([reader.isBlock, reader.index], [isBlock, index]);
        assertEquals([reader.symbolAt, reader.symbolBytes], [symbolAt, 5]);
        assert(!reader.read(view, AT, symbolAt - AT, counter), "no symbol");
        written++;
      },
    ),
    options,
  );
  assert(written > options.numRuns / 4, `${written} were written`);
});

Deno.test("fuzz: whatever sources and repairs say, nothing comes back twice or after it came (PROTOCOL R92)", () => {
  const portable = new PortableShardKernel();
  const fastest = typeof native === "string" ? portable : new NativeShardKernel(native);
  const STRIDE = 48;
  let recovered = 0, refused = 0, runs = 0;
  fc.assert(
    fc.property(fc.nat(), counters, (seed, start) => {
      const random = new Random(seed), bytes = new Uint8Array(STRIDE + 8);
      const decoder = new RepairDecoder(runs++ % 2 ? portable : fastest, STRIDE, start % 5);
      const { length } = decoder.memory, known = new Set<number>();
      let now = Math.min(start, 2 ** 53 - 2 ** 20);
      for (let step = 0; step < 150; step++) {
        random.fill(bytes);
        // Mostly on, now and then far ahead or back.
        const jump = random.u32() % 50;
        now += jump === 0 ? random.u32() % 2000 : jump === 1 ? -(random.u32() % 600) : random.u32() % 3;
        if (random.u32() % 3 !== 0) {
          const bytesOfIt = random.u32() % (STRIDE + 4);
          const isTaken = decoder.add(now, bytes, 0, bytesOfIt);
          assert(!isTaken || (!known.has(now) && now >= 0 && bytesOfIt <= STRIDE));
          if (now >= 0) known.add(now);
        } else {
          const count = random.u32() % 5 === 0 ? random.u32() % (SOURCES_MAX + 2) : 1 + random.u32() % 4;
          const numbers = new Float64Array(SOURCES_MAX + 2);
          for (let i = 0, at = now - random.u32() % 60; i < count; i++) {
            numbers[i] = at;
            at += random.u32() % 16 === 0 ? -1 + random.u32() % 2 : 1 + random.u32() % 3;
          }
          const code = random.u32() % 3 === 0 ? CODE_BLOCK : CODE_WINDOW;
          const isTaken = decoder.addRepair(
            code,
            code === CODE_BLOCK ? random.u32() % 70 : random.u32() & 0xffff,
            numbers,
            count,
            bytes,
            0,
            random.u32() % (STRIDE + 4),
          );
          if (!isTaken) refused++;
        }
        if (random.u32() % 4 !== 0) continue;
        const found = decoder.solve(random.u32() & 1 ? undefined : 8);
        for (const number of decoder.recovered.subarray(0, found)) {
          assert(!known.has(number), `seed ${seed}: ${number} again`);
          assert(number >= start % 5, `seed ${seed}: ${number} is from before it began`);
          assert(decoder.has(number) && decoder.lengthOf(number) <= STRIDE);
          assert(decoder.placeOf(number) + STRIDE <= length);
          known.add(number);
          recovered++;
        }
      }
      assertEquals(decoder.memory.length, length);
    }),
    { ...options, numRuns: Math.ceil(options.numRuns / 4) },
  );
  assert(
    recovered > options.numRuns && refused > options.numRuns,
    `${recovered} recovered, ${refused} refused`,
  );
});

Deno.test("fuzz: the portable and the native decoder bring the same back", () => {
  if (typeof native === "string") {
    return console.error(`SKIPPED tests/fuzz/repair_test.ts, native: ${native}`);
  }
  const kernel = new NativeShardKernel(native);
  fc.assert(
    fc.property(fc.nat(), fc.integer({ min: 1, max: 700 }), (seed, stride) => {
      const random = new Random(seed), bytes = new Uint8Array(stride);
      const decoders = [
        new RepairDecoder(new PortableShardKernel(), stride),
        new RepairDecoder(kernel, stride),
      ];
      for (let number = 100; number < 140; number++) {
        random.fill(bytes);
        const length = 1 + random.u32() % stride,
          isLost = random.u32() % 4 === 0,
          key = random.u32() & 0xffff;
        const numbers = Float64Array.from({ length: 6 }, (_, i) => number - 5 + i);
        const founds = decoders.map((decoder) => {
          if (!isLost) decoder.add(number, bytes, 0, length);
          else decoder.addRepair(CODE_WINDOW, key, numbers, 6, bytes, 0, length);
          return decoder.solve();
        });
        assertEquals(founds[0], founds[1]);
        assertEquals(decoders[0].recovered, decoders[1].recovered);
      }
      assertEquals(decoders[0].memory, decoders[1].memory);
    }),
    { ...options, numRuns: Math.ceil(options.numRuns / 10) },
  );
});
