/**
 * What it costs the driver's thread to wait, in poll(2) and in the port's own ring: each time for the port, two bells and
 * another socket, as a relay's Worker does. Prints a table of medians; asserts no time. Linux only. Run:
 * `deno task bench:waits`
 */
import { cString, libc, O_CLOEXEC } from "../ffi/mod.ts";
import { loadNative } from "../ffi/native.ts";
import { clearBell, closeBells, openBells, ringBell } from "../src/io/bell.ts";
import { MmsgPort } from "../src/io/mmsg.ts";
import type { NativePort } from "../src/io/native_udp.ts";
import type { PortWait, WaitSet } from "../src/io/port.ts";
import { uringObstacle, UringPort } from "../src/io/uring.ts";
import { waitSetOf } from "../src/io/wait_set.ts";
import { Arena } from "../src/vector/arena.ts";
import { Burst } from "../src/vector/burst.ts";
import { Sender, type Waking } from "./waker.ts";

const ROUNDS = 7;
const TURNS = 3000;
const SLEEPS = 300;
const BELL = 1;

const median = (values: number[]) => values.sort((a, b) => a - b)[values.length >> 1];
const native = loadNative();
if (typeof native === "string") throw new Error(native);
const options = { native, host: "127.0.0.1", port: 0, onRefused: () => {} };
const obstacle = uringObstacle(native);
if (obstacle) throw new Error(`io_uring does not run here: ${obstacle}`);

/** A port and what its thread waits in. */
class Way {
  readonly waits: WaitSet;

  constructor(
    readonly name: string,
    readonly port: NativePort,
    others: readonly number[],
    wait: PortWait = port.wait,
  ) {
    this.waits = waitSetOf(wait, others.map((descriptor) => ({ descriptor })));
  }
}

const bells = openBells(2);
const other = new MmsgPort(options);
const others = [...bells, other.descriptor];
const sender = new Sender();
const polled = new UringPort(options);
const ways = [
  new Way("mmsg, poll(2)", new MmsgPort(options), others),
  new Way("io_uring, poll(2)", polled, others, { by: "descriptor", descriptor: polled.descriptor }),
  new Way("io_uring, its ring", new UringPort(options), others),
];
const burst = new Burst(new Arena(256));

/** Processor time of this thread so far, in ns. Deno itself may not read there, nor does it tell one thread's. */
function processorNs(): number {
  const fd = libc().open(cString("/proc/thread-self/schedstat"), O_CLOEXEC);
  const text = new Uint8Array(64);
  libc().read(fd, text, BigInt(text.length));
  libc().close(fd);
  return parseInt(new TextDecoder().decode(text));
}

function receive({ port }: Way): number {
  const received = port.receive(burst);
  burst.release();
  return received;
}

/** ns from before the wait until all is read that made it end at once. */
function untilRead(way: Way, datagrams: number): number {
  const spentMs: number[] = [];
  for (let turn = 0; turn < TURNS; turn++) {
    sender.send(way.port.localPort, datagrams);
    const startMs = performance.now();
    way.waits.wait(1000);
    const received = receive(way);
    spentMs.push(performance.now() - startMs);
    if (received !== datagrams) throw new Error(`${received} of ${datagrams} datagrams were there`);
  }
  return median(spentMs) * 1e6;
}

/** The same for a bell. */
function untilCleared({ waits }: Way): number {
  const spentMs: number[] = [];
  for (let turn = 0; turn < TURNS; turn++) {
    ringBell(bells[0]);
    const startMs = performance.now();
    waits.wait(1000);
    if (!waits.isReady(BELL)) throw new Error("the bell is not heard");
    clearBell(bells[0]);
    spentMs.push(performance.now() - startMs);
  }
  return median(spentMs) * 1e6;
}

/** ns of a look that finds nothing, as the spinning driver has many of. */
function look({ waits }: Way): number {
  const startMs = performance.now();
  for (let turn = 0; turn < TURNS; turn++) if (waits.wait(0) !== 0) throw new Error("something is ready");
  return (performance.now() - startMs) / TURNS * 1e6;
}

/** ns of processor time for a sleep that ends by its time. */
function sleep({ waits }: Way): number {
  const startNs = processorNs();
  for (let turn = 0; turn < SLEEPS; turn++) waits.wait(1);
  return (processorNs() - startNs) / SLEEPS;
}

/** ns of processor time for a sleep, the datagram that ends it, and its reading. */
async function sleepUntilWoken(way: Way): Promise<number> {
  const worker = new Worker(new URL("./waker.ts", import.meta.url), { type: "module" });
  const ended = new Int32Array(new SharedArrayBuffer(4));
  worker.postMessage({ to: way.port.localPort, ended } satisfies Waking);
  while (receive(way) === 0) way.waits.wait(1000);
  const startNs = processorNs();
  for (let left = TURNS; left > 0;) {
    way.waits.wait(1000);
    left -= receive(way);
  }
  const spentNs = processorNs() - startNs;
  Atomics.store(ended, 0, 1);
  await new Promise((resolve) => worker.onmessage = resolve);
  worker.terminate();
  while (receive(way) > 0);
  return spentNs / TURNS;
}

const columns: [name: string, measure: (way: Way) => number | Promise<number>][] = [
  ["a datagram is there, read", (way) => untilRead(way, 1)],
  ["16 are", (way) => untilRead(way, 16)],
  ["a bell has rung, cleared", untilCleared],
  ["a look at nothing", look],
  ["a sleep of 1 ms", sleep],
  ["a sleep that a datagram ends, read", sleepUntilWoken],
];
console.log(`| ns | ${columns.map(([name]) => name).join(" | ")} |`);
console.log(`|---${"|---".repeat(columns.length)}|`);
const cells: string[][] = ways.map(() => []);
for (const [, measure] of columns) {
  const rounds: number[][] = ways.map(() => []);
  for (let round = 0; round <= ROUNDS; round++) {
    for (const [i, way] of ways.entries()) {
      const ns = await measure(way);
      if (round > 0) rounds[i].push(ns); // the first warms the JIT
    }
  }
  rounds.forEach((values, i) => cells[i].push(median(values).toFixed(0)));
}
ways.forEach(({ name }, i) => console.log(`| ${name} | ${cells[i].join(" | ")} |`));
for (const { port } of ways) await port.close();
await other.close();
await sender.close();
closeBells(bells);
