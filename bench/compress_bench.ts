/**
 * `deno task bench:compress`: what compression costs and saves, a packet, through the node of egress and back, by payload,
 * size and kernel, with and without the entropy test and the flows' memory. No socket, no encryption. Prints tables;
 * asserts only that packets come back whole.
 */
import { loadNative } from "../ffi/native.ts";
import type { Lz4 } from "../src/codec/kernels.ts";
import { PortableLz4 } from "../src/codec/lz4.ts";
import { NativeLz4 } from "../src/codec/native.ts";
import { FLOW_KEYS, FlowTable } from "../src/control/flows.ts";
import { compress } from "../src/egress/compress.ts";
import { DISTINCT_MIN, EntropyTest } from "../src/egress/entropy.ts";
import type { EgressContext } from "../src/egress/mod.ts";
import { COUNTER, Metrics } from "../src/metrics.ts";
import { OXTUNNEL } from "../src/session/table.ts";
import { Arena } from "../src/vector/arena.ts";
import { Burst, BURST_CAPACITY, TO_SEAL } from "../src/vector/burst.ts";
import { FRAME_HEAD_BYTES, isFrame, LZ4_BLOCK_AT } from "../src/wire/frame.ts";
import { PROTOCOL_TCP, writeIpv4Header } from "../src/wire/inner.ts";
import { FEATURE_LZ4 } from "../src/wire/parameters.ts";
import { Random } from "../tests/kit/random.ts";

const ROUNDS = 24, BURSTS = 5;
const FLOWS = 16;
const HEADERS_BYTES = 40;
const SIZES = [128, 192, 256, 512, 1360];
/** Size of the table in which tests and memory are switched off one by one. */
const SIZE = 1360;

const random = new Random(11);
const prose = Deno.readTextFileSync(new URL("../src/wire/PROTOCOL.md", import.meta.url));
const encoder = new TextEncoder();

/** Payloads of `bytes` bytes; each call makes another. */
const PAYLOADS: Record<string, (bytes: number) => Uint8Array> = {
  text(bytes) {
    const from = random.u32() % (prose.length - bytes);
    return encoder.encode(prose.slice(from, from + bytes)).subarray(0, bytes);
  },
  JSON(bytes) {
    let text = '{"items":[';
    while (text.length < bytes) {
      const id = random.u32();
      text += `{"id":${id},"name":"player-${id % 9973}","score":${id % 5000},"online":${id % 3 === 0},` +
        `"seen":"2026-0${1 + id % 9}-1${id % 10}T0${id % 10}:${10 + id % 50}:00Z","team":${id % 7}},`;
    }
    return encoder.encode(text).subarray(0, bytes);
  },
  // A snapshot: entities with ids, positions in 1/32 m, angles and flags.
  "game-like"(bytes) {
    const out = new Uint8Array(bytes), view = new DataView(out.buffer);
    view.setUint32(0, random.u32());
    for (let at = 4, id = random.u32() % 20; at + 14 <= bytes; at += 14) {
      view.setUint16(at, id += 1 + random.u32() % 3);
      for (let axis = 0; axis < 3; axis++) view.setInt16(at + 2 + 2 * axis, random.u32() % 8192 - 4096);
      view.setUint16(at + 8, random.u32());
      view.setUint8(at + 10, random.u32() % 4);
      view.setUint8(at + 11, 100);
    }
    return out;
  },
  "TLS-like"(bytes) {
    const out = new Uint8Array(bytes);
    random.fill(out);
    out.set([0x17, 3, 3, bytes - 5 >> 8, bytes - 5 & 255].slice(0, bytes));
    return out;
  },
};

class NoTest extends EntropyTest {
  override looksRandom(): boolean {
    return false;
  }
}

interface Variant {
  name: string;
  hasTest: boolean;
  hasMemory: boolean;
}

const BOTH: Variant = { name: "both", hasTest: true, hasMemory: true };
const VARIANTS: Variant[] = [
  { name: "neither", hasTest: false, hasMemory: false },
  { name: "entropy test", hasTest: true, hasMemory: false },
  { name: "memory", hasTest: false, hasMemory: true },
  BOTH,
];

interface Result {
  compressNs: number;
  decompressNs: number;
  /** Share of the packets' bytes. */
  saved: number;
  skipped: number;
}

/** Of the rounds: others on the machine only add. */
const least = (values: number[]) => Math.min(...values);

/** TCP packets of FLOWS flows in turn, with this payload. */
function packetsWith(payload: string, bytes: number): Uint8Array[] {
  const packets: Uint8Array[] = [];
  for (let i = 0; i < 4 * BURST_CAPACITY; i++) {
    const packet = new Uint8Array(bytes);
    const view = new DataView(packet.buffer);
    writeIpv4Header(view, 0, bytes, random.u32() & 0xffff, 0x4000, PROTOCOL_TCP, 0x08080808, 0x0a420002);
    view.setUint32(20, 443 << 16 | 50000 + i % FLOWS);
    view.setUint32(24, random.u32());
    view.setUint32(28, random.u32());
    view.setUint32(32, 0x50180200);
    packet.set(PAYLOADS[payload](bytes - HEADERS_BYTES), HEADERS_BYTES);
    packets.push(packet);
  }
  return packets;
}

function measure(lz4: Lz4, payload: string, bytes: number, { hasTest, hasMemory }: Variant): Result {
  const burst = new Burst(new Arena(2 * BURST_CAPACITY));
  const metrics = new Metrics();
  const flows = new FlowTable(1024, crypto.getRandomValues(new Uint32Array(FLOW_KEYS)));
  const entropy = hasTest ? new EntropyTest() : new NoTest();
  const context = {
    table: { protocol: [OXTUNNEL] },
    associations: { oxtunnel: { sessions: { of: [{ features: FEATURE_LZ4 }] } } },
    metrics,
    flows,
    compression: { lz4, thresholdBytes: 64, entropy },
  } as unknown as EgressContext;
  const packets = packetsWith(payload, bytes);
  const there: number[] = [], back: number[] = [];
  let next = 0, plain = 0, wire = 0;
  for (let round = -1; round < ROUNDS; round++) {
    let compressMs = 0, decompressMs = 0, frames = 0;
    for (let i = 0; i < BURSTS; i++) {
      burst.release();
      const first = next;
      for (let row = 0; row < BURST_CAPACITY; row++) {
        burst.grow(bytes, TO_SEAL);
        burst.bytes.set(packets[next], burst.offset[row]);
        burst.session[row] = 0;
        // Without memory each packet is its flow's first.
        burst.flow[row] = hasMemory ? next % FLOWS : row;
        next = (next + 1) % packets.length;
      }
      if (!hasMemory) {
        flows.pause.fill(0);
        flows.failures.fill(0);
      }
      const start = performance.now();
      compress(burst, context);
      compressMs += performance.now() - start;
      if (round < 0) continue; // the first round warms the JIT
      plain += bytes * BURST_CAPACITY;
      for (let row = 0; row < BURST_CAPACITY; row++) wire += burst.length[row];
      const to = burst.arena.take(), at = to * 2048;
      const block = FRAME_HEAD_BYTES + LZ4_BLOCK_AT;
      const middle = performance.now();
      for (let row = 0; row < BURST_CAPACITY; row++) {
        if (!isFrame(burst.view, burst.offset[row])) continue;
        frames++;
        lz4.decompress(burst, burst.offset[row] + block, burst.length[row] - block, at, bytes);
      }
      decompressMs += performance.now() - middle;
      burst.arena.release(to);
      check(lz4, burst, packets[first], bytes, at);
    }
    if (round < 0) continue;
    there.push(compressMs * 1e6 / (BURSTS * BURST_CAPACITY));
    if (frames > 0) back.push(decompressMs * 1e6 / frames);
  }
  return {
    compressNs: least(there),
    decompressNs: back.length > 0 ? least(back) : NaN,
    saved: 1 - wire / plain,
    skipped: metrics.column[COUNTER.compressions_skipped] / ((ROUNDS + 1) * BURSTS * BURST_CAPACITY),
  };
}

/** A bench that breaks its packets measures nothing. */
function check(lz4: Lz4, burst: Burst, packet: Uint8Array, bytes: number, to: number): void {
  let from = burst.offset[0];
  if (isFrame(burst.view, from)) {
    const block = FRAME_HEAD_BYTES + LZ4_BLOCK_AT;
    if (!lz4.decompress(burst, from + block, burst.length[0] - block, to, bytes)) {
      throw new Error("no packet");
    }
    from = to;
  }
  for (let i = 0; i < bytes; i++) if (burst.bytes[from + i] !== packet[i]) throw new Error("another packet");
}

const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
const ns = (value: number) => Number.isNaN(value) ? "–" : value.toFixed(0);

const native = loadNative();
if (typeof native === "string") console.error(`without the native kernel: ${native}`);
const kernels: [string, Lz4][] = [
  ...(typeof native === "string" ? [] : [["native", new NativeLz4(native)] as [string, Lz4]]),
  ["portable", new PortableLz4()],
];

console.log(
  `Packets of ${SIZE} bytes: ns a packet to compress (or to find out not to), bytes saved, packets not tried\n`,
);
const columns = kernels.flatMap(([name, lz4]) =>
  (name === "native" ? VARIANTS : [BOTH]).map((variant) => ({
    name: `${name}, ${variant.name}`,
    lz4,
    variant,
  }))
);
console.log(
  `| payload | ${columns.map(({ name }) => name).join(" | ")} |\n|---|${"---|".repeat(columns.length)}`,
);
for (const payload of Object.keys(PAYLOADS)) {
  const cells = columns.map(({ lz4, variant }) => {
    const result = measure(lz4, payload, SIZE, variant);
    return `${ns(result.compressNs)}, ${percent(result.saved)}, ${percent(result.skipped)}`;
  });
  console.log(`| ${payload} | ${cells.join(" | ")} |`);
}

console.log(`\nBy size, with test and memory: ns to compress, ns to decompress, bytes saved\n`);
console.log(`| payload, ${kernels[0][0]} | ${SIZES.join(" | ")} |\n|---|${"---|".repeat(SIZES.length)}`);
for (const payload of Object.keys(PAYLOADS)) {
  const cells = SIZES.map((bytes) => {
    const result = measure(kernels[0][1], payload, bytes, BOTH);
    return `${ns(result.compressNs)}, ${ns(result.decompressNs)}, ${percent(result.saved)}`;
  });
  console.log(`| ${payload} | ${cells.join(" | ")} |`);
}

const entropy = new EntropyTest();
const shares = Object.entries(PAYLOADS).map(([name, make]) => {
  let random = 0;
  for (let i = 0; i < 2000; i++) random += entropy.looksRandom(make(1320), 0, 1320, DISTINCT_MIN) ? 1 : 0;
  return `${name} ${percent(random / 2000)}`;
});
console.log(`\nTaken for random by the entropy test: ${shares.join(", ")}.`);
