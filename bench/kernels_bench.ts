/**
 * `deno task bench:kernels`: nanoseconds per packet of the transport kernels over full bursts, every implementation in one
 * run, and microseconds of a handshake's X25519. Nothing else is in the loop; bench/pipeline_bench.ts has the routes.
 * Prints a table of medians; asserts no time.
 */
import { createCipheriv } from "node:crypto";
import { loadNative } from "../ffi/native.ts";
import { PortableAead } from "../src/codec/aead_portable.ts";
import type { Aead, Primitives } from "../src/codec/kernels.ts";
import {
  ALGORITHM,
  IMPLEMENTATION,
  implementationOf,
  NativeAead,
  nativePrimitives,
} from "../src/codec/native.ts";
import { nodeCrypto } from "../src/codec/node_crypto.ts";
import { DROP } from "../src/metrics.ts";
import { Arena } from "../src/vector/arena.ts";
import { Burst, BURST_CAPACITY, OPENED, TO_OPEN, TO_SEAL, TO_TRANSMIT } from "../src/vector/burst.ts";

const SIZES = [64, 512, 1400];
const ROUNDS = 9;
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
