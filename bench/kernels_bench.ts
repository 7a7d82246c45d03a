/**
 * `deno task bench:kernels`: nanoseconds per packet of the transport kernels over full bursts, WireGuard's and OxTunnel's,
 * every implementation in one run, the memory of an OxTunnel session's keys, and microseconds of a handshake's X25519.
 * Nothing else is in the loop; bench/pipeline_bench.ts has the routes.
 * Prints a table of medians; asserts no time.
 */
import { createCipheriv } from "node:crypto";
import { loadNative } from "../ffi/native.ts";
import { PortableAead } from "../src/codec/aead_portable.ts";
import { PortableDatagramAead } from "../src/codec/datagram_portable.ts";
import { type Aead, type DatagramAead, MASK_STRIDE, type Primitives } from "../src/codec/kernels.ts";
import {
  ALGORITHM,
  IMPLEMENTATION,
  implementationOf,
  NativeAead,
  NativeDatagramAead,
  nativePrimitives,
} from "../src/codec/native.ts";
import { nodeCrypto } from "../src/codec/node_crypto.ts";
import { DROP } from "../src/metrics.ts";
import { Arena } from "../src/vector/arena.ts";
import {
  Burst,
  BURST_CAPACITY,
  OPENED,
  TO_OPEN,
  TO_OPEN_DATAGRAM,
  TO_SEAL,
  TO_SEAL_DATAGRAM,
  TO_TRANSMIT,
  TO_UNPROTECT,
} from "../src/vector/burst.ts";
import { AEAD_AES_256_GCM, AEAD_AES_256_GMAC, AEAD_CHACHA20_POLY1305 } from "../src/wire/parameters.ts";
import { unprotectHeader, writeShortHeader } from "../src/wire/oxtunnel.ts";

const SIZES = [64, 512, 1400];
const ROUNDS = 9;
/** Enough for their keys to stand out from the process's own memory. */
const MANY_SESSIONS = 16_384;
const KEY = new Uint8Array(32).fill(3);

const median = (times: number[]) => times.sort((a, b) => a - b)[times.length >> 1];

/** Median nanoseconds a packet to seal and to open bursts of one size. */
function measure(aead: Aead, bytes: number, bursts: number): [seal: number, open: number] {
  const arena = new Arena(BURST_CAPACITY), burst = new Burst(arena);
  aead.install(0, KEY, KEY);
  const sealing: number[] = [], opening: number[] = [];
  for (let round = 0; round <= ROUNDS; round++) {
    let sealMs = 0, openMs = 0;
    for (let i = 0; i < bursts; i++) {
      while (burst.grow(bytes, TO_SEAL) >= 0) { /* to the last row */ }
      burst.session.fill(0);
      burst.counter.forEach((_, row) => burst.counter[row] = i * BURST_CAPACITY + row);
      let start = performance.now();
      aead.seal(burst);
      sealMs += performance.now() - start;
      if (burst.next.some((step) => step !== TO_TRANSMIT)) throw new Error("the bench drops packets");
      burst.next.fill(TO_OPEN);
      start = performance.now();
      aead.open(burst);
      openMs += performance.now() - start;
      if (burst.next.some((step) => step !== OPENED)) throw new Error("the bench drops packets");
      burst.release();
    }
    if (round === 0) continue; // warms the JIT
    sealing.push(sealMs * 1e6 / (bursts * BURST_CAPACITY));
    opening.push(openMs * 1e6 / (bursts * BURST_CAPACITY));
  }
  return [median(sealing), median(opening)];
}

const nonce = new Uint8Array(12), nonceView = new DataView(nonce.buffer);

/** AES-256-GCM by node:crypto, sealing only: the portable relay has no use for it. */
function sealByNode(key: Uint8Array, counter: number, plaintext: Uint8Array): Uint8Array {
  nonceView.setBigUint64(4, BigInt(counter), true);
  const cipher = createCipheriv("aes-256-gcm", key, nonce);
  const sealed = new Uint8Array(plaintext.length + 16);
  sealed.set(cipher.update(plaintext));
  cipher.final();
  sealed.set(cipher.getAuthTag(), plaintext.length);
  return sealed;
}
/** The same keystream takes the text back; the tag is not judged, which flatters node:crypto a little. */
const gcmByNode: Primitives = {
  ...nodeCrypto,
  seal: sealByNode,
  open: (key, counter, sealed) => sealByNode(key, counter, sealed.subarray(0, -16)).subarray(0, -16),
};

const native = loadNative();
if (typeof native === "string") throw new Error(native);

console.log("| kernel | 64 B seal/open | 512 B | 1400 B |");
console.log("|---|---|---|---|");
const { awsLc, ipsecMb } = IMPLEMENTATION;
for (
  const [name, algorithm, portable] of [
    ["ChaCha20-Poly1305", ALGORITHM.chacha20Poly1305, nodeCrypto],
    ["AES-256-GCM", ALGORITHM.aes256Gcm, gcmByNode],
  ] as const
) {
  const kernels: [string, Aead, number][] = [["node:crypto", new PortableAead(portable, 1, DROP.forged), 20]];
  for (const implementation of [awsLc, ipsecMb]) {
    const by = implementationOf(native, algorithm, implementation);
    if (by === undefined) continue;
    kernels.push([`native, ${by}`, new NativeAead(native, 1, DROP.forged, algorithm, implementation), 200]);
  }
  for (const [by, aead, bursts] of kernels) {
    const cells = SIZES.map((bytes) => measure(aead, bytes, bursts).map((ns) => ns.toFixed(0)).join(" / "));
    console.log(`| ${name}, ${by} | ${cells.join(" | ")} ns |`);
  }
}

/** Sessions whose datagrams take turns in a burst. */
const SESSIONS = 16;
/** As a session has that fills a gigabit (PROTOCOL §12). */
const COUNTER_BYTES = 3, HEADER_BYTES = 8;

/** Median nanoseconds a datagram to seal with its protection, to make the masks of what came, and to open. */
function measureDatagrams(kernel: DatagramAead, aead: number, bytes: number, bursts: number): number[] {
  const burst = new Burst(new Arena(BURST_CAPACITY)), masks = new Uint8Array(MASK_STRIDE * BURST_CAPACITY);
  for (let session = 0; session < SESSIONS; session++) {
    kernel.begin(session, aead, KEY, KEY);
    kernel.install(session, 0, KEY, KEY);
  }
  burst.phase.fill(0);
  burst.headerBytes.fill(HEADER_BYTES);
  const steps = [
    { from: TO_SEAL_DATAGRAM, to: TO_TRANSMIT, run: () => kernel.seal(burst) },
    { from: TO_UNPROTECT, to: TO_UNPROTECT, run: () => kernel.masks(burst, masks) },
    { from: TO_OPEN_DATAGRAM, to: OPENED, run: () => kernel.open(burst) },
  ];
  const times: number[][] = steps.map(() => []);
  for (let round = 0; round <= ROUNDS; round++) {
    const sumsMs = steps.map(() => 0);
    for (let i = 0; i < bursts; i++) {
      while (burst.grow(bytes, TO_SEAL_DATAGRAM) >= 0) { /* to the last row */ }
      for (let row = 0; row < BURST_CAPACITY; row++) {
        burst.session[row] = row % SESSIONS;
        burst.counter[row] = i * BURST_CAPACITY + row;
        const at = burst.offset[row] - HEADER_BYTES;
        writeShortHeader(burst.view, at, 0, row, burst.counter[row], COUNTER_BYTES);
      }
      steps.forEach(({ from, to, run }, step) => {
        burst.next.fill(from);
        if (from === TO_OPEN_DATAGRAM) {
          for (let row = 0; row < BURST_CAPACITY; row++) {
            unprotectHeader(burst.view, burst.offset[row], masks, MASK_STRIDE * row);
          }
        }
        const start = performance.now();
        run();
        sumsMs[step] += performance.now() - start;
        if (burst.next.some((next) => next !== to)) throw new Error("the bench drops datagrams");
      });
      burst.release();
    }
    if (round === 0) continue; // warms the JIT
    sumsMs.forEach((ms, step) => times[step].push(ms * 1e6 / (bursts * BURST_CAPACITY)));
  }
  return times.map(median);
}

console.log(
  `\n| OxTunnel's data, ${SESSIONS} sessions | 64 B seal/mask/open | 512 B | 1400 B | memory a session |`,
);
console.log("|---|---|---|---|---|");
for (
  const [name, aead, algorithm] of [
    ["ChaCha20-Poly1305", AEAD_CHACHA20_POLY1305, ALGORITHM.chacha20Poly1305],
    ["AES-256-GCM", AEAD_AES_256_GCM, ALGORITHM.aes256Gcm],
    ["AES-256-GMAC", AEAD_AES_256_GMAC, ALGORITHM.aes256Gcm],
  ] as const
) {
  const kernels: [string, (rows: number) => DatagramAead, number][] = [
    ["node:crypto", (rows) => new PortableDatagramAead(rows, DROP.forged), 20],
  ];
  for (const implementation of [awsLc, ipsecMb]) {
    const by = implementationOf(native, algorithm, implementation);
    if (by === undefined) continue;
    const make = (rows: number) => new NativeDatagramAead(native, rows, DROP.forged, implementation);
    kernels.push([`native, ${by}`, make, 200]);
  }
  for (const [by, make, bursts] of kernels) {
    const cells = SIZES.map((bytes) =>
      measureDatagrams(make(SESSIONS), aead, bytes, bursts).map((ns) => ns.toFixed(0)).join(" / ")
    );
    const before = Deno.memoryUsage().rss;
    const full = make(MANY_SESSIONS);
    for (let row = 0; row < MANY_SESSIONS; row++) {
      full.begin(row, aead, KEY, KEY);
      full.install(row, 0, KEY, KEY);
      full.install(row, 1, KEY, KEY);
    }
    const each = (Deno.memoryUsage().rss - before) / MANY_SESSIONS;
    console.log(`| ${name}, ${by} | ${cells.join(" | ")} ns | ${each.toFixed(0)} B |`);
  }
}

console.log("\n| X25519 | public key | shared secret |\n|---|---|---|");
for (const primitives of [nodeCrypto, nativePrimitives(native)]) {
  const point = primitives.publicKey(KEY);
  const timeUs = (run: () => void) =>
    median(Array.from({ length: 400 }, () => {
      const start = performance.now();
      run();
      return (performance.now() - start) * 1000;
    }));
  const publicUs = timeUs(() => primitives.publicKey(KEY));
  const sharedUs = timeUs(() => primitives.sharedSecret(KEY, point));
  console.log(`| ${primitives.name} | ${publicUs.toFixed(0)} µs | ${sharedUs.toFixed(0)} µs |`);
}
