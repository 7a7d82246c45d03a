/**
 * The native kernels against the portable ones, on random and adversarial bursts; published vectors run in
 * tests/vectors. Where the library cannot be loaded the tests are skipped aloud, and with CI=true on the platform that
 * it is built for that is a failure.
 * Long because every kernel is held against its twin on the same bursts.
 */
import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import lz4js from "lz4js";
import { createCipheriv, createHash } from "node:crypto";
import { loadNative, type Native } from "../../ffi/native.ts";
import { warmUp } from "../../src/process/warmup.ts";
import { PortableAead } from "../../src/codec/aead_portable.ts";
import type { Aead } from "../../src/codec/kernels.ts";
import {
  ALGORITHM,
  compressLz4,
  decompressLz4,
  IMPLEMENTATION,
  implementationOf,
  NativeAead,
  NativeLz4,
  nativePrimitives,
} from "../../src/codec/native.ts";
import { PortableLz4 } from "../../src/codec/lz4.ts";
import { nodeCrypto } from "../../src/codec/node_crypto.ts";
import { nativeSuite } from "../../src/codec/suite.ts";
import { DROP } from "../../src/metrics.ts";
import { Arena, packetStart, SLOT_BYTES } from "../../src/vector/arena.ts";
import {
  Burst,
  BURST_CAPACITY,
  BURST_LAYOUT,
  HELD,
  OPENED,
  TO_EXIT,
  TO_OPEN,
  TO_PARSE,
  TO_SEAL,
  TO_TRANSMIT,
} from "../../src/vector/burst.ts";
import { DATA_HEADER_BYTES, TAG_BYTES } from "../../src/wire/wireguard.ts";
import { Random } from "../kit/random.ts";
import { isEmulated } from "../kit/requires.ts";
import { assertSameBursts, assertSameBytes, copyOf } from "./bursts.ts";

const ROOT = new URL("../../", import.meta.url);
const ROWS = 64;
/** The longest plaintext that fits behind the headroom with its tag. */
const MAX_BYTES = 1952;

const found = loadNative();
const available = typeof found !== "string";
const native = found as Native;
if (!available) console.error(`SKIPPED tests/differential/kernels_test.ts: ${found}`);

/** Registers a test that calls the library. */
function nativeTest(name: string, run: () => void, ignore = false): void {
  Deno.test({ name: `native: ${name}`, ignore: !available || ignore, fn: run });
}

if (!available && Deno.env.get("CI") === "true" && Deno.build.target === "x86_64-unknown-linux-gnu") {
  Deno.test("native: the library loads", () => {
    throw new Error(found as string);
  });
}

/** SHA-256 over the library's sources, as ffi/build.rs computes it. */
function hashSources(): string {
  const paths: string[] = ["Cargo.lock", "Cargo.toml", "build.rs"];
  const collect = (directory: string) => {
    for (const { name, isDirectory } of Deno.readDirSync(new URL(`ffi/${directory}`, ROOT))) {
      if (isDirectory) collect(`${directory}/${name}`);
      else paths.push(`${directory}/${name}`);
    }
  };
  collect("src");
  // By code unit, which is byte order for ASCII.
  paths.sort((a, b) => a < b ? -1 : 1);
  const hash = createHash("sha256");
  for (const path of paths) {
    const content = Deno.readFileSync(new URL(`ffi/${path}`, ROOT));
    const length = new Uint8Array(8);
    new DataView(length.buffer).setUint32(0, content.length, true);
    hash.update(path).update(new Uint8Array(1)).update(length).update(content);
  }
  return hash.digest("hex");
}

nativeTest("the committed library was built from this tree's sources", () => {
  const out = new Uint8Array(32);
  assertEquals(native.ox_source_hash(out), 0);
  assertEquals(out.toHex(), hashSources(), "run `deno task build:native` and commit ffi/prebuilt");
});

const NO_PERMISSION = "native: without the permission there is a reason, not an exception";
Deno.test({ name: NO_PERMISSION, ignore: isEmulated }, async () => {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", "--no-lock", "-"],
    cwd: ROOT,
    stdin: "piped",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  const writer = child.stdin.getWriter();
  const program = `import { loadNative } from "${new URL(
    "ffi/native.ts",
    ROOT,
  )}"; console.log(loadNative());`;
  await writer.write(new TextEncoder().encode(program));
  await writer.close();
  const { code, stdout } = await child.output();
  assertEquals(code, 0);
  assertMatch(new TextDecoder().decode(stdout), /^--allow-ffi does not name .*liboxrelay\.so\n$/);
});

nativeTest("a relay and a client carry every packet on the native kernels", () => {
  const { primitives, makeAead } = nativeSuite(native, { forged: DROP.forged }).crypto;
  assertEquals(warmUp({ primitives, makeAead }), 1000 * 17);
});

nativeTest("wrong handles and sizes are refused", () => {
  const arena = new Arena(2), burst = new Burst(arena);
  for (const handle of [0, 1, 4095, 0x7fffffff, 0xffffffff]) {
    assert(native.ox_arena_release(handle) < 0);
    assert(native.ox_burst_release(handle) < 0);
    assert(native.ox_keys_release(handle) < 0);
    assert(native.ox_keys_locked(handle) < 0);
    assert(native.ox_keys_erase(handle, 0) < 0);
    assert(native.ox_open(handle, handle, BURST_CAPACITY, DROP.forged) < 0);
    assert(native.ox_burst_register(burst.block, BURST_LAYOUT.bytes, handle) < 0);
  }
  assert(native.ox_layout(new Uint32Array(3), 3) < 0);
  assert(native.ox_arena_register(arena.bytes, SLOT_BYTES + 1) < 0);
  assert(native.ox_arena_register(arena.bytes, 0) < 0);
  const held = native.ox_arena_register(arena.bytes, arena.bytes.length);
  assert(held > 0);
  assert(native.ox_burst_register(burst.block, BURST_LAYOUT.bytes - 1, held) < 0);
  const misaligned = new Uint8Array(new ArrayBuffer(BURST_LAYOUT.bytes + 1), 1);
  assert(native.ox_burst_register(misaligned, BURST_LAYOUT.bytes, held) < 0);
  const handle = native.ox_burst_register(burst.block, BURST_LAYOUT.bytes, held);
  const keys = native.ox_keys_new(ALGORITHM.chacha20Poly1305, IMPLEMENTATION.fastest, 1);
  assertEquals(native.ox_open(keys, handle, 0, DROP.forged), 0);
  assertEquals(native.ox_arena_release(held), 0);
  assert(native.ox_open(keys, handle, 0, DROP.forged) < 0, "the arena is gone, and with it the burst");
  assertEquals(native.ox_burst_release(handle), 0);
  assert(native.ox_burst_release(handle) < 0, "released twice");
  assertEquals(native.ox_keys_release(keys), 0);
  assert(native.ox_open(keys, handle, 0, DROP.forged) < 0);
  const { chacha20Poly1305 } = ALGORITHM;
  for (const [algorithm, choice, rows] of [[0, 0, 1], [3, 0, 1], [1, 3, 1], [1, 0, 0], [1, 0, 2 ** 20 + 1]]) {
    assert(native.ox_keys_new(algorithm, choice, rows) < 0, `${algorithm} ${choice} ${rows}`);
  }
  assertThrows(() => new NativeAead(native, 0, DROP.forged));
  const aead = new NativeAead(native, 4, DROP.forged, chacha20Poly1305);
  assertThrows(() => aead.install(4, new Uint8Array(32), new Uint8Array(32)), Error, "ox_keys_install");
  assertThrows(() => aead.install(0, new Uint8Array(31), new Uint8Array(32)), RangeError);
  assertThrows(() => aead.erase(4));
  aead.close();
});

Deno.test({
  name: "native: a Worker's handles are its own, and its end leaves the others' alone",
  ignore: !available,
  async fn() {
    const ours = native.ox_keys_new(ALGORITHM.chacha20Poly1305, IMPLEMENTATION.fastest, 1);
    const program = `
      import { loadNative } from "${new URL("ffi/native.ts", ROOT)}";
      const native = loadNative();
      const theirs = native.ox_keys_new(1, 0, 1);
      const other = native.ox_keys_locked(${ours});
      self.onmessage = () => self.close();
      self.postMessage({ theirs, other });`;
    const worker = new Worker(`data:text/javascript,${encodeURIComponent(program)}`, {
      type: "module",
    });
    const { theirs, other } = await new Promise<Record<string, number>>((resolve) => {
      worker.onmessage = ({ data }) => resolve(data);
    });
    assert(theirs > 0 && theirs !== ours);
    assert(other < 0, "the Worker reached our table");
    assert(native.ox_keys_locked(theirs) < 0, "we reached the Worker's table");
    worker.postMessage("end");
    worker.terminate();
    assert(native.ox_keys_locked(ours) >= 0);
    assertEquals(native.ox_keys_release(ours), 0);
  },
});

nativeTest("released handles make room for others", () => {
  for (let i = 0; i < 5000; i++) {
    const arena = new Arena(1);
    const held = native.ox_arena_register(arena.bytes, arena.bytes.length);
    assert(held > 0, `registration ${i}`);
    assertEquals(native.ox_arena_release(held), 0);
  }
});

/** AES-256-GCM row by row through node:crypto: the reference for the algorithm that has no portable kernel. */
class ReferenceGcm implements Aead {
  readonly #inner: PortableAead;

  constructor(rows: number, forged: number) {
    const nonceOf = (counter: number) => {
      const nonce = new Uint8Array(12);
      new DataView(nonce.buffer).setBigUint64(4, BigInt(counter), true);
      return nonce;
    };
    const seal = (key: Uint8Array, counter: number, text: Uint8Array) => {
      const cipher = createCipheriv("aes-256-gcm", key, nonceOf(counter));
      const sealed = new Uint8Array(text.length + TAG_BYTES);
      if (text.length > 0) sealed.set(cipher.update(text));
      cipher.final();
      sealed.set(cipher.getAuthTag(), text.length);
      return sealed;
    };
    const open = (key: Uint8Array, counter: number, sealed: Uint8Array) => {
      if (sealed.length < TAG_BYTES) return undefined;
      // A stream cipher undoes itself, and what it seals again must be what came.
      const text = seal(key, counter, sealed.subarray(0, -TAG_BYTES)).subarray(0, -TAG_BYTES);
      return seal(key, counter, text).toHex() === sealed.toHex() ? text : undefined;
    };
    this.#inner = new PortableAead({ ...nodeCrypto, seal, open }, rows, forged);
  }

  install(row: number, sendKey: Uint8Array, receiveKey: Uint8Array): void {
    this.#inner.install(row, sendKey, receiveKey);
  }
  erase(row: number): void {
    this.#inner.erase(row);
  }
  open(burst: Burst): void {
    this.#inner.open(burst);
  }
  seal(burst: Burst): void {
    this.#inner.seal(burst);
  }
}

type Make = (rows: number, forged: number) => Aead;
const SUITES: [name: string, algorithm: 1 | 2, implementation: 1 | 2, reference: Make][] = [
  ["ChaCha20-Poly1305 by AWS-LC", 1, 1, (rows, forged) => new PortableAead(nodeCrypto, rows, forged)],
  ["ChaCha20-Poly1305 by libipsec-mb", 1, 2, (rows, forged) => new PortableAead(nodeCrypto, rows, forged)],
  ["AES-256-GCM by AWS-LC", 2, 1, (rows, forged) => new ReferenceGcm(rows, forged)],
  ["AES-256-GCM by libipsec-mb", 2, 2, (rows, forged) => new ReferenceGcm(rows, forged)],
];

function installPairs(random: Random, first: Aead, second: Aead): void {
  const send = new Uint8Array(32), receive = new Uint8Array(32);
  for (let row = 0; row < ROWS; row++) {
    random.fill(send);
    random.fill(receive);
    first.install(row, send, receive);
    second.install(row, send, receive);
  }
}

const COUNTERS = [0, 1, 255, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 48 + 3, 2 ** 53 - 1];

/** A burst over the whole of its arena, every byte random, rows of several steps. */
function randomBurst(random: Random, arena: Arena, step: number): Burst {
  const burst = new Burst(arena);
  random.fill(arena.bytes);
  const others = [TO_PARSE, TO_EXIT, HELD, OPENED, TO_TRANSMIT, DROP.forged];
  const count = 1 + random.u32() % BURST_CAPACITY;
  for (let row = 0; row < count; row++) {
    const length = [0, 1, 15, 16, 17, 63, 64, 65, 1420, MAX_BYTES][random.u32() % 20] ??
      random.u32() % (MAX_BYTES + 1);
    burst.push(row, length, random.u32() % 8 === 0 ? others[random.u32() % others.length] : step);
    burst.session[row] = random.u32() % ROWS;
    burst.counter[row] = COUNTERS[random.u32() % 16] ?? random.u32() * 2 ** 21 + random.u32() % 2 ** 21;
  }
  return burst;
}

for (const [name, algorithm, implementation, makeReference] of SUITES) {
  const runs = available && implementationOf(native, algorithm, implementation) !== undefined;
  if (available && !runs) {
    // Nothing that can be installed would mend that, so with CI=true it is no failure.
    console.error(`SKIPPED ${name}: this processor lacks the instructions`);
    continue;
  }
  const test = (what: string, run: () => void) =>
    Deno.test({ name: `${name}: ${what}`, ignore: !runs, fn: run });
  const makeBoth = (random: Random): [NativeAead, Aead] => {
    const ours = new NativeAead(native, ROWS, DROP.forged, algorithm, implementation);
    const reference = makeReference(ROWS, DROP.forged);
    installPairs(random, ours, reference);
    return [ours, reference];
  };

  test("seals and opens random bursts byte for byte as the portable kernel", () => {
    const random = new Random(11);
    const [ours, reference] = makeBoth(random);
    // The other end of every session: its sending key is our receiving key.
    const swapped = makeReference(ROWS, DROP.forged), keys = new Random(11);
    const send = new Uint8Array(32), receive = new Uint8Array(32);
    for (let row = 0; row < ROWS; row++) {
      keys.fill(send);
      keys.fill(receive);
      swapped.install(row, receive, send);
    }
    for (let round = 0; round < (isEmulated ? 1 : 6); round++) {
      const burst = randomBurst(random, new Arena(BURST_CAPACITY), TO_SEAL);
      const plain = copyOf(burst), twin = copyOf(burst), theirs = copyOf(burst);
      ours.seal(burst);
      reference.seal(twin);
      assertSameBursts(burst, twin, `sealing, round ${round}`);
      assert(burst.next.subarray(0, burst.count).includes(TO_TRANSMIT));

      // What portable sealed for us, we open; what we sealed, portable opens.
      swapped.seal(theirs);
      for (const [sealed, opener] of [[theirs, ours], [burst, swapped]] as [Burst, Aead][]) {
        const wasSealed = plain.next.map((step) => step === TO_SEAL ? 1 : 0);
        for (let row = 0; row < sealed.count; row++) if (wasSealed[row]) sealed.next[row] = TO_OPEN;
        opener.open(sealed);
        for (let row = 0; row < sealed.count; row++) {
          if (!wasSealed[row]) continue;
          assertEquals([sealed.next[row], sealed.offset[row], sealed.length[row]], [
            OPENED,
            plain.offset[row],
            plain.length[row],
          ]);
          const start = plain.offset[row], end = start + plain.length[row];
          assertSameBytes(sealed.bytes.subarray(start, end), plain.bytes.subarray(start, end), `row ${row}`);
        }
      }
    }
    ours.close();
  });

  test("forged, truncated and misdirected rows are refused, the rest of the burst opens", () => {
    const random = new Random(12);
    const [ours, reference] = makeBoth(random);
    const loop = makeReference(ROWS, DROP.forged), keys = new Random(12);
    const send = new Uint8Array(32), receive = new Uint8Array(32);
    for (let row = 0; row < ROWS; row++) {
      keys.fill(send);
      keys.fill(receive);
      loop.install(row, receive, receive);
    }
    for (let round = 0; round < (isEmulated ? 1 : 6); round++) {
      const burst = randomBurst(random, new Arena(BURST_CAPACITY), TO_SEAL);
      loop.seal(burst);
      for (let row = 0; row < burst.count; row++) {
        if (burst.next[row] !== TO_TRANSMIT) continue;
        burst.next[row] = TO_OPEN;
        const start = burst.offset[row] + DATA_HEADER_BYTES, sealed = burst.length[row] - DATA_HEADER_BYTES;
        const damage = random.u32() % 8;
        if (damage === 0) burst.bytes[start + random.u32() % sealed] ^= 1 << (random.u32() & 7);
        if (damage === 1) burst.bytes[start + sealed - 1 - random.u32() % TAG_BYTES] ^= 0x80;
        if (damage === 2) burst.length[row] -= 1 + random.u32() % (burst.length[row] - DATA_HEADER_BYTES);
        if (damage === 3) burst.session[row] = (burst.session[row] + 1) % ROWS;
        if (damage === 4) burst.counter[row] = burst.counter[row] === 0 ? 1 : burst.counter[row] - 1;
      }
      const twin = copyOf(burst);
      ours.open(burst);
      reference.open(twin);
      assertEquals(new Uint8Array(burst.block), new Uint8Array(twin.block), `round ${round}`);
      for (let row = 0; row < burst.count; row++) {
        const start = burst.offset[row], end = start + burst.length[row];
        if (burst.next[row] !== DROP.forged) {
          assertSameBytes(burst.bytes.subarray(start, end), twin.bytes.subarray(start, end), `row ${row}`);
        }
      }
    }
    ours.close();
  });

  test("no key, no such row, no such place, no such counter: refused, never a crash", () => {
    const random = new Random(13);
    const [ours] = makeBoth(random);
    ours.erase(5);
    const arena = new Arena(4), bytes = arena.bytes.length;
    const cases: [what: string, set: (burst: Burst) => void][] = [
      ["an erased row", (burst) => burst.session[0] = 5],
      ["row 64 of 64", (burst) => burst.session[0] = ROWS],
      ["no session", (burst) => burst.session[0] = 0xffffffff],
      ["an offset past the arena", (burst) => burst.offset[0] = bytes],
      ["the highest offset", (burst) => burst.offset[0] = 0xffffffff],
      ["a row over the arena's end", (burst) => burst.offset[0] = bytes - 100],
      ["a huge length", (burst) => burst.length[0] = 0xffffffff],
      ["a length that wraps", (burst) => burst.length[0] = 0xffffffff - packetStart(0) + 1],
      ["a negative counter", (burst) => burst.counter[0] = -1],
      ["a broken counter", (burst) => burst.counter[0] = 0.5],
      ["2^53", (burst) => burst.counter[0] = 2 ** 53],
      ["infinity", (burst) => burst.counter[0] = Infinity],
      ["not a number", (burst) => burst.counter[0] = NaN],
    ];
    for (const step of [TO_SEAL, TO_OPEN]) {
      for (const [what, set] of cases) {
        const burst = new Burst(arena);
        burst.push(0, 200, step);
        burst.session[0] = 1;
        burst.counter[0] = 1;
        set(burst);
        const before = copyOf(burst);
        before.next[0] = DROP.forged;
        if (step === TO_SEAL) ours.seal(burst);
        else ours.open(burst);
        assertSameBursts(burst, before, what);
      }
    }
    const burst = new Burst(arena);
    burst.push(0, 0, TO_SEAL);
    burst.offset[0] = DATA_HEADER_BYTES - 1;
    burst.session[0] = 1;
    ours.seal(burst);
    assertEquals(burst.next[0], DROP.forged, "no room for the header");
    burst.count = 0xffffffff;
    ours.open(burst); // Rows past the capacity are not looked at.
    ours.close();
  });

  test("what does not authenticate leaves no plaintext behind", () => {
    const arena = new Arena(1), burst = new Burst(arena);
    const aead = new NativeAead(native, 1, DROP.forged, algorithm, implementation);
    const key = new Uint8Array(32).fill(9);
    aead.install(0, key, key);
    const secret = new TextEncoder().encode("attack at dawn ".repeat(20));
    burst.push(0, secret.length, TO_SEAL);
    burst.session[0] = 0;
    burst.bytes.set(secret, burst.offset[0]);
    aead.seal(burst);
    burst.bytes[burst.offset[0] + burst.length[0] - 1] ^= 1;
    burst.next[0] = TO_OPEN;
    aead.open(burst);
    assertEquals(burst.next[0], DROP.forged);
    const left = burst.bytes.subarray(packetStart(0), packetStart(0) + secret.length);
    assertEquals(left, new Uint8Array(secret.length));
    aead.close();
  });
}

nativeTest("keys of one table are not those of another, and a new table has none", () => {
  const arena = new Arena(1), burst = new Burst(arena);
  const first = new NativeAead(native, 1, DROP.forged), second = new NativeAead(native, 1, DROP.forged);
  first.install(0, new Uint8Array(32).fill(1), new Uint8Array(32).fill(1));
  burst.push(0, 64, TO_SEAL);
  burst.session[0] = 0;
  second.seal(burst);
  assertEquals(burst.next[0], DROP.forged);
  burst.next[0] = TO_SEAL;
  first.seal(burst);
  assertEquals(burst.next[0], TO_TRANSMIT);
  second.install(0, new Uint8Array(32).fill(2), new Uint8Array(32).fill(2));
  burst.next[0] = TO_OPEN;
  second.open(burst);
  assertEquals(burst.next[0], DROP.forged);
  assert(first.isLocked, "one page can always be locked");
  first.close();
  second.close();
}, isEmulated); // qemu-user has no mlock2

nativeTest("the primitives of a handshake agree with node:crypto's", () => {
  const random = new Random(21), ours = nativePrimitives(native);
  const fresh = (length: number) => {
    const bytes = new Uint8Array(length);
    random.fill(bytes);
    return bytes;
  };
  for (let round = 0; round < (isEmulated ? 4 : 60); round++) {
    const a = fresh(32), b = fresh(32), key = fresh(32);
    assertEquals(ours.publicKey(a), nodeCrypto.publicKey(a));
    const point = round % 2 === 0 ? ours.publicKey(b) : b;
    assertEquals(ours.sharedSecret(a, point), nodeCrypto.sharedSecret(a, point));
    const text = fresh(random.u32() % 200), associated = fresh(random.u32() % 40);
    const counter = COUNTERS[round % COUNTERS.length];
    const sealed = ours.seal(key, counter, text, associated);
    assertEquals(sealed, nodeCrypto.seal(key, counter, text, associated));
    assertEquals(ours.open(key, counter, sealed, associated), text);
    sealed[random.u32() % sealed.length] ^= 1 << (random.u32() & 7);
    const damaged = sealed.slice();
    assertEquals(ours.open(key, counter, sealed, associated), undefined);
    assertEquals(sealed, damaged, "inputs are left as they were");
  }
  assertEquals(ours.open(new Uint8Array(32), 0, new Uint8Array(15), new Uint8Array(0)), undefined);
  assertThrows(() => ours.publicKey(new Uint8Array(31)), RangeError);
  assertThrows(() => ours.sharedSecret(new Uint8Array(32), new Uint8Array(33)), RangeError);
});

/** Bytes in which a compressor finds something, and sometimes nothing. */
function compressible(random: Random, length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  random.fill(bytes);
  const alphabet = [1, 2, 16, 256][random.u32() % 4];
  return bytes.map((byte) => byte % alphabet);
}

const worstCase = (length: number) => Math.floor(length * 1.1) + 20;

nativeTest("LZ4 and lz4js undo each other, and neither leaves its room", () => {
  const random = new Random(22);
  for (let round = 0; round < 200; round++) {
    const length = [0, 1, 12, 13, 64, 1400, 65535 / 2 | 0][round] ?? random.u32() % 2000;
    const plain = compressible(random, length);
    const block = new Uint8Array(worstCase(length));
    const written = compressLz4(native, plain, block);
    const back = new Uint8Array(length + 8).fill(0xaa);
    assertEquals(decompressLz4(native, block.subarray(0, written), back.subarray(0, length)), length);
    assertEquals(back.subarray(0, length), plain);
    assertEquals(back.subarray(length), new Uint8Array(8).fill(0xaa));
    if (length > 0) {
      const room = back.subarray(0, length - 1);
      assertEquals(decompressLz4(native, block.subarray(0, written), room), undefined, "one byte short");
      const theirs = new Uint8Array(length);
      assertEquals(lz4js.decompressBlock(block, theirs, 0, written, 0), length);
      assertEquals(theirs, plain);
    }
    const table = new Uint32Array(1 << 16), compressed = new Uint8Array(worstCase(length));
    const theirLength = lz4js.compressBlock(plain, compressed, 0, length, table);
    if (theirLength > 0) {
      const again = new Uint8Array(length);
      assertEquals(decompressLz4(native, compressed.subarray(0, theirLength), again), length);
      assertEquals(again, plain);
    }
    assertThrows(() => compressLz4(native, plain, new Uint8Array(worstCase(length) - 1)), Error, "lz4");
  }
});

nativeTest("LZ4 survives hostile blocks", () => {
  const random = new Random(23), arena = new Uint8Array(4096);
  for (let round = 0; round < (isEmulated ? 100 : 3000); round++) {
    const block = new Uint8Array(1 + random.u32() % 300);
    random.fill(block);
    if (round % 3 === 0) block.fill(0xff, 0, block.length >> 1); // lengths that run on
    arena.fill(0xaa);
    const capacity = random.u32() % 1500;
    const written = decompressLz4(native, block, arena.subarray(0, capacity));
    assert(written === undefined || written <= capacity);
    assert(arena.subarray(capacity).every((byte) => byte === 0xaa), "written past its room");
  }
  assert(native.ox_lz4_decompress(arena, 100, arena.subarray(50), 100) < 0, "overlap");
  assert(native.ox_lz4_compress(arena, 65536, new Uint8Array(99999), 99999) < 0, "too long");
});

nativeTest(
  "LZ4 within an arena: native and portable refuse the same and undo each other, and lz4js both",
  () => {
    const random = new Random(24), arena = new Arena(2), burst = new Burst(arena);
    const kernels = [new NativeLz4(native), new PortableLz4()];
    const from = packetStart(0), to = packetStart(1);
    for (let round = 0; round < (isEmulated ? 20 : 400); round++) {
      const plain = compressible(random, 1 + random.u32() % MAX_BYTES);
      for (const one of kernels) {
        // In place, as on the way out: behind a head of four bytes.
        arena.bytes.fill(0xaa);
        arena.bytes.set(plain, from);
        const block = one.compress(burst, from, plain.length, from + 4, 0, plain.length);
        if (block === 0) {
          assertEquals(arena.bytes.subarray(from, from + plain.length), plain, "as it was");
          continue;
        }
        const packed = arena.bytes.slice(from + 4, from + 4 + block);
        const theirs = new Uint8Array(plain.length);
        assertEquals(lz4js.decompressBlock(packed, theirs, 0, block, 0), plain.length);
        assertEquals(theirs, plain);
        for (const other of kernels) {
          arena.bytes.set(packed, from);
          assert(other.decompress(burst, from, block, to, plain.length));
          assertEquals(arena.bytes.subarray(to, to + plain.length), plain);
          arena.bytes.fill(0xaa, to);
          for (const wrong of [plain.length - 1, plain.length + 1]) {
            if (wrong <= SLOT_BYTES) assert(!other.decompress(burst, from, block, to, wrong), `${wrong}`);
          }
          assert(arena.bytes.subarray(to).every((byte) => byte === 0xaa), "as it was");
        }
        arena.bytes.set(plain, from);
        assertEquals(one.compress(burst, from, plain.length, from, 0, block - 1), 0, "no room");
        assertEquals(one.compress(burst, from, plain.length, from, block + 1, 9999), 0, "too little");
      }
    }
  },
);

nativeTest(
  "LZ4 within an arena: hostile blocks get the same verdict from both, and change nothing else",
  () => {
    const random = new Random(25), arena = new Arena(2), burst = new Burst(arena);
    const [ours, portable] = [new NativeLz4(native), new PortableLz4()];
    const from = packetStart(0), to = packetStart(1);
    let taken = 0;
    const room = arena.bytes.subarray(to, to + 1000);
    for (let round = 0; round < (isEmulated ? 50 : 2000); round++) {
      // A sound block with up to three bytes of it changed, or cut short; the rest of the arena is 0xaa.
      const plain = compressible(random, 20 + random.u32() % 300);
      arena.bytes.fill(0xaa);
      arena.bytes.set(plain, to);
      const length = ours.compress(burst, to, plain.length, from, 0, 9999) - (random.u32() % 4 === 0 ? 1 : 0);
      arena.bytes.fill(0xaa, to);
      for (let left = random.u32() % 4; left > 0; left--) {
        const at = from + random.u32() % length;
        arena.bytes[at] = random.u32() & 1 ? random.u32() : arena.bytes[at] ^ 1 << (random.u32() & 7);
      }
      const before = arena.bytes.slice(0, to);
      for (let original = Math.max(1, plain.length - 20); original < plain.length + 20; original++) {
        const verdict = portable.decompress(burst, from, length, to, original);
        const theirs = room.slice();
        room.fill(0xaa);
        assertEquals(
          ours.decompress(burst, from, length, to, original),
          verdict,
          `round ${round}, ${original}`,
        );
        assertSameBytes(room, theirs, `round ${round}`);
        room.fill(0xaa);
        taken += verdict ? 1 : 0;
      }
      assertSameBytes(arena.bytes.subarray(0, to), before, "what is read");
      assert(arena.bytes.subarray(to).every((byte) => byte === 0xaa), "written past its room");
    }
    assert(taken > 500 && taken < 1900, `${taken} blocks came out: the test is blind`);
    for (const wrong of [arena.bytes.length, arena.bytes.length - 10]) {
      assertThrows(() => ours.compress(burst, wrong, 100, from, 0, 100), Error, "lz4");
      assertThrows(() => ours.decompress(burst, wrong, 100, from, 100), Error, "lz4");
    }
  },
);
