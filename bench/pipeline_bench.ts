/**
 * `deno task bench`: nanoseconds per packet of the in-memory path, layer by layer: parse, the AEAD kernels, whole
 * ingress and egress of a relay over full bursts. No socket, no exit. Prints a table; asserts no time.
 */
import { loadNative } from "../ffi/native.ts";
import { PortableAead } from "../src/codec/aead_portable.ts";
import type { Aead, DatagramAead, Primitives } from "../src/codec/kernels.ts";
import { FLOW_KEYS, FLOW_WORDS_MAX, FlowTable } from "../src/control/flows.ts";
import { classify } from "../src/egress/classify.ts";
import { classify as classifyOut } from "../src/ingress/classify.ts";
import type { IngressContext } from "../src/ingress/mod.ts";
import type { EgressContext } from "../src/egress/mod.ts";
import { noble } from "../src/codec/noble.ts";
import { nodeCrypto } from "../src/codec/node_crypto.ts";
import { nativeSuite, portableSuite } from "../src/codec/suite.ts";
import { CLASS_DIRECTIONS, CLASS_LABELS, DROP, Metrics } from "../src/metrics.ts";
import { Arena, packetStart } from "../src/vector/arena.ts";
import {
  Burst,
  BURST_CAPACITY,
  TO_EXIT,
  TO_OPEN,
  TO_PARSE,
  TO_SEAL,
  TO_TUNNEL,
} from "../src/vector/burst.ts";
import { innerLength, PROTOCOL_UDP, readDestination, writeIpv6Header } from "../src/wire/inner.ts";
import { parseAddress } from "../src/wire/address.ts";
import { PrefixTable } from "../src/vector/prefix_table.ts";
import { ReplayWindows } from "../src/session/replay.ts";
import { BATCH_WAIT_US } from "../src/tunnel_options.ts";
import { type Host, World } from "../tests/kit/world.ts";
import { udpPacket } from "../tests/kit/packets.ts";

const SIZES = [64, 512, 1200];
const ROUNDS = 7;

interface Result {
  what: string;
  bytes: number;
  ns: number;
}

/** Median over rounds of the time per packet; `prepare` is outside the clock. */
function measure(what: string, bytes: number, bursts: number, prepare: () => void, run: () => void): Result {
  const times: number[] = [];
  for (let round = 0; round <= ROUNDS; round++) {
    let total = 0;
    for (let i = 0; i < bursts; i++) {
      prepare();
      const start = performance.now();
      run();
      total += performance.now() - start;
    }
    if (round > 0) times.push(total * 1e6 / (bursts * BURST_CAPACITY)); // the first round warms the JIT
  }
  const ns = times.sort((a, b) => a - b)[ROUNDS >> 1];
  console.error(`${what}, ${bytes} B: ${ns.toFixed(0)} ns`);
  return { what, bytes, ns };
}

function fill(burst: Burst, packet: Uint8Array, next: number): void {
  burst.count = 0;
  for (let row = 0; row < BURST_CAPACITY; row++) {
    burst.push(row, packet.length, next);
    burst.bytes.set(packet, packetStart(row));
    burst.address.set([0, 0, 0xffff, 0xc6336407], 4 * row);
    burst.port[row] = 5555;
  }
}

function aeadResults(primitives: Primitives, bytes: number): Result[] {
  const arena = new Arena(BURST_CAPACITY);
  const burst = new Burst(arena);
  const aead = new PortableAead(primitives, 1, DROP.forged);
  const key = new Uint8Array(32).fill(3);
  aead.install(0, key, key);
  const prepare = () => {
    fill(burst, new Uint8Array(bytes), TO_SEAL);
    for (let row = 0; row < BURST_CAPACITY; row++) [burst.session[row], burst.counter[row]] = [0, row];
  };
  const bursts = primitives === noble ? 5 : 20;
  const seal = measure(`seal, ${primitives.name}`, bytes, bursts, prepare, () => aead.seal(burst));
  const open = measure(`open, ${primitives.name}`, bytes, bursts, () => {
    prepare();
    aead.seal(burst);
    burst.next.fill(TO_OPEN);
  }, () => aead.open(burst));
  return [seal, open];
}

interface Engine {
  name: string;
  primitives: Primitives;
  makeAead: (rows: number) => Aead;
  makeDatagramAead?: (rows: number) => DatagramAead;
  aeads?: readonly number[];
}

/** Ingress and egress of a connected relay, with real kernels in them. */
function relayResults(bytes: number, { name, ...kernels }: Engine): Result[] {
  const world = new World(1);
  const allOpen = {
    allowLoopback: true,
    allowLinkLocal: true,
    allowPrivate: true,
    allowPeers: true,
    allow: [],
  };
  const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1", destinations: allOpen, ...kernels });
  const client = world.client("198.51.100.7:5555", server, { ipv4: "10.66.0.2", ...kernels });
  const packet = udpPacket("10.66.0.2", "8.8.8.8", new Uint8Array(bytes - 28));
  client.send(packet);
  world.runFor(1_000_000);
  const sealedOf = new Burst(client.arena);
  const received = new Burst(server.arena);
  const ingest = measure(`ingress, whole, ${name}`, bytes, 20, () => {
    grow(sealedOf, packet, TO_TUNNEL);
    client.core.ingestInner(sealedOf, world.nowUs);
    received.release();
    for (let row = 0; row < sealedOf.count; row++) {
      const at = sealedOf.offset[row];
      const to = received.grow(sealedOf.length[row], TO_PARSE);
      received.bytes.set(sealedOf.bytes.subarray(at, at + sealedOf.length[row]), received.offset[to]);
      received.address.set([0, 0, 0xffff, 0xc6336407], 4 * to);
      received.port[to] = 5555;
    }
    sealedOf.release();
  }, () => server.core.ingest(received, world.nowUs));
  received.release();
  const back = udpPacket("8.8.8.8", "10.66.0.2", new Uint8Array(bytes - 28));
  const egress = measure(`egress, whole, ${name}`, bytes, 20, () => {
    received.release();
    grow(received, back, TO_TUNNEL);
  }, () => server.core.ingestInner(received, world.nowUs));
  received.release();
  check(server);
  return [ingest, egress];
}

/**
 * Egress of OxTunnel with batching and without, to one peer and to one for each packet, where there is nothing to batch.
 * The clock of the world goes on by 5 us for each burst.
 */
function oxtunnelResults(bytes: number, { name, ...kernels }: Engine): Result[] {
  return [1, BURST_CAPACITY].flatMap((peers) =>
    [-1, BATCH_WAIT_US].map((batchWaitUs) => {
      const world = new World(1);
      world.protocol = "oxtunnel";
      world.limits = { ...world.limits, initiationsPerSecond: 1e6 };
      const server = world.relay("192.0.2.1:4433", {
        ipv4: "10.66.0.1",
        features: 0,
        batchWaitUs,
        ...kernels,
      });
      const packets = Array.from({ length: peers }, (_, i) => {
        const ipv4 = `10.66.1.${i}`;
        const client = world.client(`198.51.100.${i}:5555`, server, {
          ipv4,
          features: 0,
          maxConnections: 1,
          ...kernels,
        });
        client.send(udpPacket(ipv4, "8.8.8.8", new Uint8Array(bytes - 28)));
        return udpPacket("8.8.8.8", ipv4, new Uint8Array(bytes - 28));
      });
      world.runFor(1_000_000);
      const burst = new Burst(server.arena);
      const what = `egress, OxTunnel, ${name}, ${peers === 1 ? "one peer" : "a peer for each packet"}, ${
        batchWaitUs < 0 ? "no batches" : "batches"
      }`;
      const result = measure(what, bytes, 40, () => {
        burst.release();
        for (let i = 0; i < BURST_CAPACITY; i++) {
          const row = burst.grow(bytes, TO_TUNNEL);
          burst.bytes.set(packets[i % peers], burst.offset[row]);
        }
        world.nowUs += 5;
      }, () => server.core.ingestInner(burst, world.nowUs));
      burst.release();
      check(server);
      return result;
    })
  );
}

/** A bench that drops its packets measures nothing. */
function check(host: Host): void {
  for (const reason of ["forged", "replayed", "no_session", "no_route", "denied"] as const) {
    if (host.metrics.dropped(reason) > 0) throw new Error(`the bench drops packets: ${reason}`);
  }
}

function grow(burst: Burst, packet: Uint8Array, next: number): void {
  for (let i = 0; i < BURST_CAPACITY; i++) {
    const row = burst.grow(packet.length, next);
    burst.bytes.set(packet, burst.offset[row]);
  }
}

/** The parts that TypeScript adds to a packet besides the kernels. */
function lookupResults(): Result[] {
  const arena = new Arena(BURST_CAPACITY);
  const burst = new Burst(arena);
  const packet = udpPacket("10.66.0.2", "10.66.3.9", new Uint8Array(36));
  fill(burst, packet, TO_PARSE);
  const words = new Uint32Array(4);
  const table = new PrefixTable();
  for (let i = 2; i < 1002; i++) table.set(parseAddress(`10.66.${i >> 8}.${i & 255}`)!, 128, i);
  const windows = new ReplayWindows(1);
  let counter = 0, found = 0;
  const each = (what: string, run: (row: number) => void) =>
    measure(what, packet.length, 200, () => {}, () => {
      for (let row = 0; row < BURST_CAPACITY; row++) run(row);
    });
  const results = [
    each("inner length and destination", (row) => {
      found += innerLength(burst.view, burst.offset[row], burst.length[row]);
      readDestination(burst.view, burst.offset[row], words, 0);
    }),
    each("longest prefix, 1000 peers", () => void (found += table.lookup(words, 0))),
    each("replay window", () => void (found += windows.accept(0, counter++) ? 1 : 0)),
  ];
  if (found === 0) throw new Error("the bench found nothing");
  return results;
}

/**
 * What the classifier adds to a packet of OxTunnel's on its way in and out: in runs of one flow, interleaved, and from flows
 * never seen.
 */
function classifyResults(): Result[] {
  const world = new World(1);
  world.protocol = "oxtunnel";
  const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1" });
  const client = world.client("198.51.100.7:5555", server, { ipv4: "10.66.0.2" });
  client.send(udpPacket("10.66.0.2", "8.8.8.8", new Uint8Array(8)));
  world.runFor(1_000_000);
  // deno-lint-ignore no-explicit-any
  const { table, associations, peers } = server.core as any;
  const metrics = new Metrics();
  const context = {
    table,
    associations,
    flows: new FlowTable(1 << 14, crypto.getRandomValues(new Uint32Array(FLOW_KEYS))),
    metrics,
    words: new Uint32Array(FLOW_WORDS_MAX),
    ends: new Uint32Array(8),
  } as unknown as EgressContext;
  const ingressContext = context as unknown as IngressContext;
  const v4 = udpPacket("8.8.8.8", "10.66.0.2", new Uint8Array(60));
  const v6 = new Uint8Array(88);
  writeIpv6Header(
    new DataView(v6.buffer),
    0,
    48,
    PROTOCOL_UDP,
    Uint32Array.of(0xfd000000, 0, 0, 1),
    0,
    Uint32Array.of(0xfd000000, 0, 0, 2),
    0,
  );
  const burst = new Burst(new Arena(BURST_CAPACITY));
  let nowUs = 1e6, port = 0;
  const each = (what: string, packet: Uint8Array, transport: number, flows: number, isOut = false) =>
    measure(`classify, ${what}`, packet.length, 200, () => {
      fill(burst, packet, isOut ? TO_EXIT : TO_SEAL);
      burst.session.fill(peers.current[0]);
      for (let row = 0; row < BURST_CAPACITY; row++) {
        burst.view.setUint16(burst.offset[row] + transport, flows === 0 ? port++ : row % flows);
      }
      nowUs += 300;
    }, () => isOut ? classifyOut(burst, ingressContext, nowUs) : classify(burst, context, nowUs));
  const results = [
    each("one flow", v4, 20, 1),
    each("16 flows in turn", v4, 20, 16),
    each("16 flows in turn, IPv6", v6, 40, 16),
    each("each packet a new flow", v4, 20, 0),
    each("a transfer", new Uint8Array([...v4, ...new Uint8Array(1300)]), 20, 1),
    each("out of the tunnel, one flow", v4, 20, 1, true),
    each("out of the tunnel, 16 flows in turn", v4, 20, 16, true),
  ];
  for (const direction of CLASS_DIRECTIONS) {
    if (CLASS_LABELS.every((label) => metrics.ofClass(direction, label).packets === 0)) {
      throw new Error(`the bench classifies nothing ${direction}`);
    }
  }
  return results;
}

const native = loadNative();
if (typeof native === "string") console.error(`without the native kernels: ${native}`);
const ENGINES: Engine[] = [
  // OxTunnel is measured by the native kernels alone.
  { name: "portable", ...portableSuite({ forged: DROP.forged }).crypto, makeDatagramAead: undefined },
  ...(typeof native === "string"
    ? []
    : [{ name: "native", ...nativeSuite(native, { forged: DROP.forged }).crypto }]),
];

const results = [
  ...lookupResults(),
  ...classifyResults(),
  ...SIZES.flatMap((bytes) => [...aeadResults(nodeCrypto, bytes), ...aeadResults(noble, bytes)]),
  ...ENGINES.flatMap((engine) => SIZES.flatMap((bytes) => relayResults(bytes, engine))),
  ...ENGINES.filter(({ makeDatagramAead }) => makeDatagramAead !== undefined)
    .flatMap((engine) => [64, 1200].flatMap((bytes) => oxtunnelResults(bytes, engine))),
];
console.log("\n| step | bytes | ns a packet |\n|---|---|---|");
for (const { what, bytes, ns } of results) console.log(`| ${what} | ${bytes} | ${ns.toFixed(0)} |`);
