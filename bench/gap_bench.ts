/**
 * `deno task bench:gaps [SECONDS]`: how long a loaded relay lets a burst wait. One burst after the other is made, carried
 * and counted in one thread as fast as it goes, and the time from each to the next is kept: whatever stalls the thread
 * (the collector, the compiler, the machine) is in it. The same loop in Rust (ffi/examples/hop.rs) shows what the machine
 * alone does. Prints a table; asserts no time.
 */
import { loadNative } from "../ffi/native.ts";
import { ALGORITHM } from "../src/codec/native.ts";
import { type Engine, HopRig } from "./hop.ts";

const SECONDS = 60;
const BYTES = 1200;
/** More than any machine makes; reserved, so that keeping the gaps costs no collection. */
const BURSTS_PER_SECOND_MAX = 20_000;
const ALLOCATION_BURSTS = 500;
const LIBRARY = "ffi/prebuilt/x86_64-unknown-linux-gnu/liboxrelay.so";
const RUST = "ffi/target/hop";
const ENGINE: Engine = { kernels: "native", algorithm: "chacha20Poly1305", offload: true };

declare const gc: () => void;

const native = loadNative();
if (typeof native === "string") throw new Error(native);
const seconds = Number(Deno.args[0] ?? SECONDS);
const gapUs = new Float64Array(seconds * BURSTS_PER_SECOND_MAX);

const rig = new HopRig(native, ENGINE, BYTES, 1);
await rig.connect();

function carryOne(): void {
  rig.load();
  rig.carry();
  rig.count();
}

/** Carries bursts until the time is over; returns how many gaps were kept. `litter` is done once a burst. */
function run(litter: () => void): number {
  const endMs = performance.now() + seconds * 1000;
  let count = 0;
  for (let lastMs = performance.now(); lastMs < endMs && count < gapUs.length;) {
    carryOne();
    litter();
    const nowMs = performance.now();
    gapUs[count++] = (nowMs - lastMs) * 1000;
    lastMs = nowMs;
  }
  return count;
}

function rowOf(what: string, count: number, [p50, p99, p999, longest]: number[]): string {
  const cells = [p50, p99, p999, longest, p999 - p50].map((us) => (us / 1000).toFixed(2));
  return `| ${what} | ${count} | ${cells.join(" | ")} |`;
}

function quantiles(count: number): number[] {
  const sorted = gapUs.subarray(0, count).sort();
  return [0.5, 0.99, 0.999, 1].map((share) => sorted[Math.floor((count - 1) * share)]);
}

for (let i = 0; i < 4000; i++) carryOne(); // compiles the route
gc();
const before = Deno.memoryUsage().heapUsed;
for (let i = 0; i < ALLOCATION_BURSTS; i++) carryOne();
const allocated = (Deno.memoryUsage().heapUsed - before) / ALLOCATION_BURSTS;

console.log("| from one burst to the next | bursts | p50 ms | p99 | p99.9 | longest | p99.9 - p50 |");
console.log("|---|---|---|---|---|---|---|");
const count = run(() => {});
console.log(rowOf("TypeScript", count, quantiles(count)));
// What it would be if every packet left an object behind.
let litter: unknown[] = [];
const littered = run(() => {
  litter = Array.from({ length: 256 }, (_, row) => ({ row, bytes: new Float64Array(8) }));
});
console.log(rowOf(`with ${litter.length} objects a burst`, littered, quantiles(littered)));
await rig.close();

try {
  const args = [LIBRARY, ALGORITHM[ENGINE.algorithm], BYTES, 1, seconds * 1000, "gaps"].map(String);
  const { success, stdout } = new Deno.Command(RUST, { args, stderr: "inherit" }).outputSync();
  if (!success) throw new Error(`${RUST} failed`);
  const [bursts, ...gaps] = new TextDecoder().decode(stdout).split(" ").map(Number);
  console.log(rowOf("the same loop in Rust", bursts, gaps));
} catch (error) {
  if (!(error instanceof Deno.errors.NotFound)) throw error;
  console.error(`NO RUST ROW: ${RUST} is missing; install rustc (it comes with cargo) and run again`);
}
console.log(`\nThe relay and its two clients allocate ${allocated.toFixed(0)} bytes a burst of 256 packets.`);
