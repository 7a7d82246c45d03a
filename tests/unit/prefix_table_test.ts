/**
 * Longest-prefix match against a linear scan over a list of prefixes held as big integers. Invariant under test:
 * whatever the order of sets and deletes, each lookup and each return value is the list's. FUZZ_SEED and FUZZ_RUNS
 * choose the run. Measures no speed.
 */
import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { PrefixTable } from "../../src/vector/prefix_table.ts";
import { NONE } from "../../src/vector/arena.ts";
import { parsePrefix } from "../../src/wire/address.ts";

const options = {
  numRuns: Number(Deno.env.get("FUZZ_RUNS") ?? 500),
  seed: Number(Deno.env.get("FUZZ_SEED") ?? 20260101),
};

const ALL_ONES = (1n << 128n) - 1n;
const MAPPED = 0xffff00000000n;

/** The first `bits` of an address, the rest zero. */
function masked(address: bigint, bits: number): bigint {
  return address & (ALL_ONES << BigInt(128 - bits)) & ALL_ONES;
}

function wordsOf(address: bigint): Uint32Array {
  return Uint32Array.from([96n, 64n, 32n, 0n], (shift) => Number((address >> shift) & 0xffffffffn));
}

/** What the table should be: a list, searched from one end to the other. */
class LinearScan {
  readonly entries: { address: bigint; bits: number; value: number }[] = [];

  set(address: bigint, bits: number, value: number): number {
    const before = this.delete(address, bits);
    this.entries.push({ address, bits, value });
    return before;
  }

  delete(address: bigint, bits: number): number {
    const at = this.entries.findIndex((entry) => entry.address === address && entry.bits === bits);
    return at < 0 ? NONE : this.entries.splice(at, 1)[0].value;
  }

  lookup(address: bigint): number {
    const shortest = address >> 32n === 0xffffn ? 96 : 0;
    let best = { bits: -1, value: NONE };
    for (const entry of this.entries) {
      if (entry.bits < shortest || entry.bits <= best.bits) continue;
      if (masked(address, entry.bits) === entry.address) best = entry;
    }
    return best.value;
  }
}

/** Addresses near one another, so that prefixes overlap: a base with a few bits flipped. */
const address = fc.tuple(
  fc.constantFrom(
    0n,
    ALL_ONES,
    MAPPED,
    MAPPED | 0x0a420000n,
    MAPPED | 0xffffffffn,
    0x20010db8n << 96n,
    0xfd66n << 112n,
  ),
  fc.array(fc.nat(127), { maxLength: 3 }),
).map(([base, flips]) => flips.reduce((value, bit) => value ^ (1n << BigInt(bit)), base));

const command = fc.record({
  isSet: fc.boolean(),
  address,
  // Where words begin and end, IPv4's /0, /24 and /32, and anything else.
  bits: fc.oneof(fc.constantFrom(0, 1, 31, 32, 33, 64, 95, 96, 97, 120, 127, 128), fc.nat(128)),
  value: fc.nat(0xfffffffe),
});

Deno.test("prefix table: every lookup is the linear scan's", () => {
  fc.assert(
    fc.property(
      fc.array(command, { minLength: 1, maxLength: 60, size: "max" }),
      fc.array(address),
      (commands, others) => {
        const table = new PrefixTable(1), model = new LinearScan();
        const words = new Uint32Array(12).fill(0xffffffff);
        const agree = (probe: bigint) => {
          words.set(wordsOf(probe), 4);
          assertEquals(table.lookup(words, 4), model.lookup(probe), probe.toString(16));
        };
        for (const { isSet, address, bits, value } of commands) {
          const prefix = masked(address, bits);
          if (isSet) assertEquals(table.set(wordsOf(prefix), bits, value), model.set(prefix, bits, value));
          else assertEquals(table.delete(wordsOf(prefix), bits), model.delete(prefix, bits));
          assertEquals(table.size, model.entries.length);
          agree(address);
        }
        for (const { address, bits } of commands) {
          const prefix = masked(address, bits);
          const last = prefix | (ALL_ONES >> BigInt(bits));
          for (const probe of [prefix, last, (prefix - 1n) & ALL_ONES, (last + 1n) & ALL_ONES]) agree(probe);
        }
        others.forEach(agree);
        // Empty it in the order in which it was filled: every probe run must survive every hole.
        for (const { address, bits } of commands) {
          const prefix = masked(address, bits);
          assertEquals(table.delete(wordsOf(prefix), bits), model.delete(prefix, bits));
          others.forEach(agree);
        }
        assertEquals(table.size, 0);
      },
    ),
    options,
  );
});

Deno.test("prefix table: a thousand leases come, move and go in a table that grows", () => {
  const table = new PrefixTable();
  const lease = (n: number) => Uint32Array.of(0, 0, 0xffff, 0x0a420000 + n);
  for (let n = 0; n < 1000; n++) assertEquals(table.set(lease(n), 128, n), NONE);
  for (let n = 0; n < 1000; n += 2) assertEquals(table.set(lease(n), 128, n + 5000), n);
  for (let n = 0; n < 1000; n += 3) assertEquals(table.delete(lease(n), 128), n % 2 === 0 ? n + 5000 : n);
  for (let n = 0; n < 1000; n++) {
    assertEquals(table.lookup(lease(n), 0), n % 3 === 0 ? NONE : n % 2 === 0 ? n + 5000 : n);
  }
  assertEquals(table.size, 666);
});

Deno.test("prefix table: the default routes of IPv4 and IPv6 keep to their own family", () => {
  const table = new PrefixTable();
  const texts = ["0.0.0.0/0", "::/0", "10.0.0.0/8", "10.66.0.2/32", "fd66::/64", "fd66::2/128"];
  texts.forEach((text, value) => {
    const { address, bits } = parsePrefix(text)!;
    assertEquals(table.set(address, bits, value), NONE);
  });
  const find = (text: string) => table.lookup(parsePrefix(text)!.address, 0);
  const probes = ["8.8.8.8", "2001:db8::1", "10.0.0.1", "10.66.0.2", "fd66::1", "fd66::2"];
  assertEquals(probes.map(find), [0, 1, 2, 3, 4, 5]);
  table.delete(parsePrefix("0.0.0.0/0")!.address, 96);
  assertEquals([find("8.8.8.8"), find("2001:db8::1")], [NONE, 1]);
});
