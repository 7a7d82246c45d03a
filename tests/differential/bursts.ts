/**
 * What the tests of kernels against each other share: bursts copied and compared to the last byte, with their columns
 * and the whole of their arenas. Knows no kernel.
 */
import { assertEquals } from "@std/assert";
import { Arena, SLOT_BYTES } from "../../src/vector/arena.ts";
import { Burst } from "../../src/vector/burst.ts";

/** A burst of its own with the same columns, over an arena of its own with the same bytes. */
export function copyOf(burst: Burst): Burst {
  const arena = new Arena(burst.arena.slotCount);
  arena.bytes.set(burst.arena.bytes);
  const copy = new Burst(arena);
  new Uint8Array(copy.block).set(new Uint8Array(burst.block));
  copy.count = burst.count;
  return copy;
}

/** Asserts that all columns and the whole arena are the same. */
export function assertSameBursts(actual: Burst, expected: Burst, what: string): void {
  assertEquals(new Uint8Array(actual.block), new Uint8Array(expected.block), `${what}: columns`);
  assertSameBytes(actual.bytes, expected.bytes, what);
}

/** As assertEquals, but quick for half a megabyte. */
export function assertSameBytes(actual: Uint8Array, expected: Uint8Array, what: string): void {
  assertEquals(actual.length, expected.length);
  const at = actual.findIndex((byte, i) => byte !== expected[i]);
  assertEquals(at, -1, `${what}: byte ${at % SLOT_BYTES} of slot ${Math.floor(at / SLOT_BYTES)}`);
}
