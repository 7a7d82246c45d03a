/**
 * `deno task bench:hop [RUNS]`: what one core carries from peer to peer over loopback UDP: our relay and driver over
 * the native kernels, the same loop in Rust over the same library (ffi/examples/hop.rs), and our relay on its portable
 * twins. Runs alternate; prints medians and their ratios. Asserts no time; fails when a packet is lost.
 */
import { loadNative, type Native } from "../ffi/native.ts";
import { ALGORITHM } from "../src/codec/native.ts";
import { type AlgorithmName, type Engine, HopRig } from "./hop.ts";

const RUNS = 5;
const RUN_MS = 250, WARM_MS = 500;
const SIZES = [64, 512, 1200];
const ALGORITHMS: [AlgorithmName, string][] = [
  ["chacha20Poly1305", "ChaCha20-Poly1305"],
  ["aes256Gcm", "AES-256-GCM"],
];
const LIBRARY = "ffi/prebuilt/x86_64-unknown-linux-gnu/liboxrelay.so";
const RUST = "ffi/target/hop";

declare const gc: () => void;

const median = (values: number[]) => values.sort((a, b) => a - b)[values.length >> 1];

/** A rig that has run until its code was compiled; the last one's memory, and code that was made for it, are gone. */
async function warm(native: Native, engine: Engine, bytes: number): Promise<HopRig> {
  gc();
  const rig = new HopRig(native, engine, bytes);
  await rig.connect();
  await ours(rig, WARM_MS);
  return rig;
}

/** Packets a second of one run. */
async function ours(rig: HopRig, runMs: number): Promise<number> {
  let timedMs = 0, packets = 0;
  while (timedMs < runMs) {
    rig.load();
    const startMs = performance.now();
    const carried = rig.carry();
    if (carried) await carried;
    timedMs += performance.now() - startMs;
    rig.count();
    packets += rig.packets;
  }
  return packets / timedMs * 1000;
}

/** The same of the Rust loop, or undefined where it was not built. */
function rust({ algorithm, offload }: Engine, bytes: number): number | undefined {
  if (!hasRust) return undefined;
  const args = [LIBRARY, ALGORITHM[algorithm], bytes, offload ? 1 : 0, RUN_MS].map(String);
  const { success, stdout } = new Deno.Command(RUST, { args, stderr: "inherit" }).outputSync();
  if (!success) throw new Error(`${RUST} failed`);
  const [packets, nanoseconds] = new TextDecoder().decode(stdout).split(" ").map(Number);
  return packets / nanoseconds * 1e9;
}

function exists(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

const native = loadNative();
if (typeof native === "string") throw new Error(native);
const runs = Number(Deno.args[0] ?? RUNS);
const hasRust = exists(RUST);
if (!hasRust) {
  console.error(`NO RUST ROWS: ${RUST} is missing; install rustc (it comes with cargo) and run again`);
}

console.log(
  "| kernel, bytes | GSO, GRO | TypeScript k/s | Gbit/s | ns | Rust k/s | ns | TypeScript / Rust |",
);
console.log("|---|---|---|---|---|---|---|---|");
const best = new Map<string, number>();
for (const [algorithm, name] of ALGORITHMS) {
  for (const bytes of SIZES) {
    for (const offload of [true, false]) {
      const engine: Engine = { kernels: "native", algorithm, offload };
      const typescript: number[] = [], others: number[] = [];
      const rig = await warm(native, engine, bytes);
      for (let run = 0; run < runs; run++) {
        typescript.push(await ours(rig, RUN_MS));
        const other = rust(engine, bytes);
        if (other !== undefined) others.push(other);
      }
      await rig.close();
      const a = median(typescript), b = others.length > 0 ? median(others) : NaN;
      if (offload) best.set(`${name}, ${bytes}`, a);
      const cells = [
        `${name}, ${bytes}`,
        offload ? "yes" : "no",
        (a / 1000).toFixed(0),
        (a * bytes * 8 / 1e9).toFixed(2),
        (1e9 / a).toFixed(0),
        ...(hasRust ? [(b / 1000).toFixed(0), (1e9 / b).toFixed(0), (a / b).toFixed(2)] : ["", "", ""]),
      ];
      console.log(`| ${cells.join(" | ")} |`);
    }
  }
}

console.log("\n| kernel, bytes | portable k/s | native / portable |\n|---|---|---|");
for (const [algorithm, name] of ALGORITHMS) {
  for (const bytes of SIZES) {
    const rates: number[] = [];
    const rig = await warm(native, { kernels: "portable", algorithm, offload: false }, bytes);
    for (let run = 0; run < runs; run++) rates.push(await ours(rig, RUN_MS));
    await rig.close();
    const rate = median(rates);
    const row = `${name}, ${bytes}`;
    console.log(`| ${row} | ${(rate / 1000).toFixed(1)} | ${(best.get(row)! / rate).toFixed(1)} |`);
  }
}
