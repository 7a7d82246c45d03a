/**
 * `deno task bench:sessions [SESSIONS]`: one relay core with 100 000 live sessions. What a session costs in memory, how
 * many handshakes a second one core answers and where their time goes, and what packets cost when they come from all
 * sessions against all from one. Real messages through `Relay.ingest` in memory, no socket; the clients' side is outside
 * the clock and its memory is reserved before the first reading. Virtual time: no session ages. Asserts no time.
 */
import { libc } from "../ffi/mod.ts";
import { loadNative } from "../ffi/native.ts";
import { deriveKeys, hash, mac, useBlake2s } from "../src/codec/hash.ts";
import type { Primitives } from "../src/codec/kernels.ts";
import { NativeAead } from "../src/codec/native.ts";
import { nativeSuite } from "../src/codec/suite.ts";
import { DROP, Metrics } from "../src/metrics.ts";
import { Relay } from "../src/relay.ts";
import { base64 } from "../src/session/peers.ts";
import { CookieJar } from "../src/session/cookie.ts";
import {
  consumeResponse,
  createInitiation,
  type HandshakeState,
} from "../src/session/wireguard/handshake.ts";
import { WIREGUARD_LIMITS } from "../src/session/limits.ts";
import { Arena } from "../src/vector/arena.ts";
import { tai64n } from "../src/wire/timestamp.ts";
import {
  Burst,
  BURST_CAPACITY,
  TO_EXIT,
  TO_PARSE,
  TO_SEAL,
  TO_TRANSMIT,
  TO_TUNNEL,
} from "../src/vector/burst.ts";
import { adviseTables } from "../src/vector/memory.ts";
import { formatAddress } from "../src/wire/address.ts";
import { PROTOCOL_UDP, writeIpv4Header } from "../src/wire/inner.ts";
import {
  INITIATION_BYTES,
  INITIATION_MAC1_AT,
  readReceiver,
  readSender,
  RESPONSE_BYTES,
  writeDataHeader,
} from "../src/wire/wireguard.ts";
import { CLOSED } from "../tests/kit/world.ts";

const SESSIONS = 100_000;
const KEY_BYTES = 32;
/** Initiations of one burst: as many as ingress looks at in one turn. */
const HANDSHAKES = 64;
/** Handshakes made ready before the clock starts. */
const WAVE = 4096;
const BURST_US = 100;
const SIZES = [64, 1200];
const BURSTS = 2500;
/** Bursts after which the compiler has seen enough. */
const WARM_BURSTS = 500;
/** What goes out is for clients that come this many packets later, whom nobody has touched for long. */
const AHEAD = 51_200;
const SETTLE_MS = 200;
const INNER_BASE = 0x0a000002, OUTER_BASE = 0xc6120000, FAR = 0x08080808;

declare const gc: () => void;

const median = (values: number[]) => values.sort((a, b) => a - b)[values.length >> 1];
const random = (bytes: Uint8Array) => void crypto.getRandomValues(bytes as Uint8Array<ArrayBuffer>);

interface Memory {
  rss: number;
  heap: number;
  external: number;
}

/** Bytes that malloc kept of what handshakes had freed, at most. */
let keptFree = 0;

/**
 * Bytes resident and in V8's heap, when nothing is left to collect and the freed pages have been given back, malloc's too:
 * it keeps them for the garbage of further handshakes.
 */
async function memory(): Promise<Memory> {
  for (let i = 0; i < 3; i++) {
    gc();
    await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
  }
  const untrimmed = Deno.memoryUsage().rss;
  libc().malloc_trim(0n);
  const { rss, heapUsed, external } = Deno.memoryUsage();
  keptFree = Math.max(keptFree, untrimmed - rss);
  return { rss, heap: heapUsed, external };
}

const loaded = loadNative();
if (typeof loaded === "string") throw new Error(loaded);
const native = loaded;
const { crypto: { primitives, makeAead }, blake2s, adviser } = nativeSuite(native, { forged: DROP.forged });
useBlake2s(blake2s);
adviseTables(adviser);
const sessions = Number(Deno.args[0] ?? SESSIONS);

const spent = { x25519Ms: 0, aeadMs: 0 };
/** The native primitives with a clock at each door. */
const clocked: Primitives = {
  name: "clocked",
  publicKey: (key) => timed("x25519Ms", () => primitives.publicKey(key)),
  sharedSecret: (key, point) => timed("x25519Ms", () => primitives.sharedSecret(key, point)),
  seal: (...all) => timed("aeadMs", () => primitives.seal(...all)),
  open: (...all) => timed("aeadMs", () => primitives.open(...all)),
};

function timed<T>(what: keyof typeof spent, run: () => T): T {
  const startMs = performance.now();
  const result = run();
  spent[what] += performance.now() - startMs;
  return result;
}

// The clients: columns that are written once before the first reading, so that all growth after it is the relay's.
const privateKeys = new Uint8Array(KEY_BYTES * sessions), publicKeys = new Uint8Array(KEY_BYTES * sessions);
const relayIndex = new Uint32Array(sessions).fill(1), sendCounter = new Float64Array(sessions).fill(0.5);
const order = new Uint32Array(sessions);
const clientAead = new NativeAead(native, sessions, DROP.forged);
for (let i = 0; i < sessions; i++) {
  const key = privateKeys.subarray(KEY_BYTES * i, KEY_BYTES * (i + 1));
  random(key);
  publicKeys.set(primitives.publicKey(key), KEY_BYTES * i);
  clientAead.install(i, key, key);
  order[i] = i;
}
for (let i = sessions - 1; i > 0; i--) {
  const j = Math.floor(Math.random() * (i + 1));
  [order[i], order[j]] = [order[j], order[i]];
}
const arena = new Arena(4 * BURST_CAPACITY), burst = new Burst(arena);
arena.bytes.fill(1);
const metrics = new Metrics();

let nowUs = 1_000_000;

const makeRelay = (peers: number) =>
  new Relay({
    arena,
    metrics,
    primitives: clocked,
    makeAead,
    random,
    limits: { ...WIREGUARD_LIMITS, initiationsPerSecond: Infinity },
    privateKey: crypto.getRandomValues(new Uint8Array(KEY_BYTES)),
    ipv4: "10.0.0.1",
    ipv6: undefined,
    mtu: 1420,
    maxConnections: peers,
    rateLimitPerIp: 20,
    worker: 0,
    unixOffsetUs: 0,
    destinations: CLOSED,
  });

const publicKeyOf = (i: number) => publicKeys.subarray(KEY_BYTES * i, KEY_BYTES * (i + 1));

function addPeers(count: number): void {
  for (let i = 0; i < count; i++) {
    const inner = formatAddress(Uint32Array.of(0, 0, 0xffff, INNER_BASE + i), 0);
    relay.addPeer({ name: `peer-${i}`, publicKey: base64(publicKeyOf(i)), allowedIps: [`${inner}/32`] });
  }
}

const noPresharedKey = new Uint8Array(KEY_BYTES);

/** Where the client's datagrams come from. */
function address(row: number, i: number): void {
  burst.address.set([0, 0, 0xffff, OUTER_BASE + i], 4 * row);
  burst.port[row] = 51820;
}

interface Pending {
  client: number;
  message: Uint8Array;
  state: HandshakeState;
}

function initiate(client: number): Pending {
  const message = new Uint8Array(INITIATION_BYTES);
  const privateKey = privateKeys.subarray(KEY_BYTES * client, KEY_BYTES * (client + 1));
  const ephemeral = crypto.getRandomValues(new Uint8Array(KEY_BYTES));
  const secret = primitives.sharedSecret(privateKey, relay.publicKey)!;
  const timestamp = tai64n(nowUs);
  const state = createInitiation(
    primitives,
    message,
    publicKeyOf(client),
    relay.publicKey,
    secret,
    ephemeral,
    timestamp,
  )!;
  new DataView(message.buffer).setUint32(4, client, true);
  jar.sign(message, INITIATION_MAC1_AT, nowUs);
  return { client, message, state };
}

/** The relay's answers become the clients' keys. */
function consume(pending: Pending[]): void {
  for (let row = 0; row < burst.count; row++) {
    const { client, state } = pending[row];
    const at = burst.offset[row];
    if (burst.next[row] !== TO_TRANSMIT || burst.length[row] !== RESPONSE_BYTES) {
      throw new Error(`handshake ${client} ends with ${burst.next[row]}`);
    }
    const response = burst.bytes.slice(at, at + RESPONSE_BYTES);
    const privateKey = privateKeys.subarray(KEY_BYTES * client, KEY_BYTES * (client + 1));
    const keys = consumeResponse(primitives, response, state, privateKey, noPresharedKey);
    if (!keys || readReceiver(burst.view, at + 4) !== client) {
      throw new Error("a response does not authenticate");
    }
    relayIndex[client] = readSender(burst.view, at);
    sendCounter[client] = 0;
    clientAead.install(client, keys.sendKey, keys.receiveKey);
  }
}

/** Handshakes of clients `from` to `to` - 1 and a first packet of each; milliseconds that the relay spent answering. */
function handshakes(from: number, to: number): number {
  let relayMs = 0;
  nowUs += WIREGUARD_LIMITS.initiationIntervalUs; // a client may ask no sooner again
  for (let start = from; start < to; start += WAVE) {
    const wave = Array.from({ length: Math.min(WAVE, to - start) }, (_, i) => initiate(start + i));
    for (let at = 0; at < wave.length; at += HANDSHAKES) {
      const pending = wave.slice(at, at + HANDSHAKES);
      for (const { client, message } of pending) {
        const row = burst.grow(message.length, TO_PARSE);
        burst.bytes.set(message, burst.offset[row]);
        address(row, client);
      }
      nowUs += BURST_US;
      const startMs = performance.now();
      relay.ingest(burst, nowUs);
      relayMs += performance.now() - startMs;
      consume(pending);
      burst.release();
    }
    for (let at = 0; at < wave.length; at += BURST_CAPACITY) {
      const count = Math.min(BURST_CAPACITY, wave.length - at);
      sealPackets(64, count, (i) => start + at + i);
      nowUs += BURST_US;
      relay.ingest(burst, nowUs);
      expect(TO_EXIT, count);
      burst.release();
      while (relay.pollTransmit(burst, nowUs) > 0) burst.release();
    }
  }
  return relayMs;
}

/** Fills the burst with datagrams of the clients that `clientOf` names. */
function sealPackets(bytes: number, count: number, clientOf: (i: number) => number): void {
  const padded = (bytes + 15) & -16;
  for (let i = 0; i < count; i++) {
    const client = clientOf(i);
    const row = burst.grow(padded, TO_SEAL), at = burst.offset[row];
    writeIpv4Header(burst.view, at, bytes, 0, 0, PROTOCOL_UDP, INNER_BASE + client, FAR);
    burst.session[row] = client;
    burst.counter[row] = sendCounter[client]++;
    writeDataHeader(burst.view, at - 16, relayIndex[client], burst.counter[row]);
  }
  clientAead.seal(burst);
  for (let row = 0; row < count; row++) {
    burst.next[row] = TO_PARSE;
    address(row, clientOf(row));
  }
}

function expect(step: number, count: number): void {
  for (let row = 0; row < count; row++) {
    if (burst.next[row] !== step) throw new Error(`a packet ends with ${burst.next[row]}`);
  }
}

/** Median nanoseconds, over bursts, of a packet from tunnel to exit and from exit to tunnel; the n-th packet belongs to client `clientOf(n)`. */
function traffic(bytes: number, clientOf: (n: number) => number): [ingress: number, egress: number] {
  const ingress: number[] = [], egress: number[] = [];
  for (let i = 0, n = 0; i < BURSTS; i++, n += BURST_CAPACITY) {
    nowUs += BURST_US;
    sealPackets(bytes, BURST_CAPACITY, (row) => clientOf(n + row));
    let startMs = performance.now();
    relay.ingest(burst, nowUs);
    ingress.push(performance.now() - startMs);
    expect(TO_EXIT, BURST_CAPACITY);
    burst.release();

    for (let row = 0; row < BURST_CAPACITY; row++) {
      const at = burst.offset[burst.grow(bytes, TO_TUNNEL)];
      const client = clientOf(n + AHEAD + row);
      writeIpv4Header(burst.view, at, bytes, 0, 0, PROTOCOL_UDP, FAR, INNER_BASE + client);
    }
    startMs = performance.now();
    relay.ingestInner(burst, nowUs);
    egress.push(performance.now() - startMs);
    expect(TO_TRANSMIT, BURST_CAPACITY);
    burst.release();
  }
  const each = (timesMs: number[]) => median(timesMs.slice(WARM_BURSTS)) * 1e6 / BURST_CAPACITY;
  return [each(ingress), each(egress)];
}

/** Microseconds of BLAKE2s in one answered initiation: its hashes, key derivations and MACs (handshake.ts), alone. */
function blakeUs(): number {
  const key = new Uint8Array(KEY_BYTES).fill(7), message = new Uint8Array(INITIATION_MAC1_AT);
  const one = () => {
    for (let i = 0; i < 6; i++) hash(key, key);
    for (let i = 0; i < 4; i++) deriveKeys(key, key, 1);
    for (let i = 0; i < 3; i++) deriveKeys(key, key, 2);
    deriveKeys(key, key, 3);
    mac(key, message);
    mac(key, message.subarray(0, 60));
  };
  return median(Array.from({ length: 2000 }, () => {
    const startMs = performance.now();
    one();
    return (performance.now() - startMs) * 1000;
  }));
}

// A first relay, thrown away, compiles the route and lets the heap grow to what the clients' garbage needs.
const warmUp = Math.min(WAVE, sessions);
let relay = makeRelay(warmUp);
let jar = new CookieJar(relay.publicKey, WIREGUARD_LIMITS.cookieUs);
addPeers(warmUp);
for (let i = 0; i < 2; i++) handshakes(0, warmUp);
relay.close();
spent.x25519Ms = spent.aeadMs = 0;
metrics.column.fill(0);

const before = await memory();
relay = makeRelay(sessions);
jar = new CookieJar(relay.publicKey, WIREGUARD_LIMITS.cookieUs);
const empty = await memory();
addPeers(sessions);
const known = await memory();
const handshakeMs = handshakes(0, sessions);
const handshakeUs = handshakeMs * 1000 / sessions;
const split = { x25519: spent.x25519Ms, aead: spent.aeadMs };
const live = await memory();
relay.handleTimeout(nowUs);
if (metrics.get("sessions") !== sessions || metrics.get("connections") !== sessions) {
  throw new Error(`${metrics.get("sessions")} sessions instead of ${sessions}`);
}

const spread: [number, number][] = [], single: [number, number][] = [];
for (const bytes of SIZES) {
  single.push(traffic(bytes, () => 0));
  spread.push(traffic(bytes, (n) => order[n % sessions]));
}
const used = await memory();
const renewed = Math.floor(sessions / 10);
handshakes(0, renewed);
const twice = await memory();

console.log(
  `\n| ${sessions} sessions, bytes each | resident | in V8's heap | outside V8's heap |\n|---|---|---|---|`,
);
const rows: [string, Memory, Memory, number][] = [
  ["relay without peers", before, empty, sessions],
  ["peer", empty, known, sessions],
  ["session", known, live, sessions],
  ["after traffic over all", live, used, sessions],
  ["all told", before, used, sessions],
  ["second epoch, while it lasts", used, twice, renewed],
];
for (const [what, from, to, by] of rows) {
  const cell = (key: keyof Memory) => ((to[key] - from[key]) / by).toFixed(0);
  console.log(`| ${what} | ${cell("rss")} | ${cell("heap")} | ${cell("external")} |`);
}

console.log(
  `\nFreed memory that malloc kept, before it was told to return it: ${
    (keptFree / 1e6).toFixed(0)
  } MB at most`,
);
console.log(
  "\n| packets, bytes | all on one session, ns | spread over all, ns | rate spread / one |\n|---|---|---|---|",
);
SIZES.forEach((bytes, s) => {
  ["ingress", "egress"].forEach((route, r) => {
    const [one, all] = [single[s][r], spread[s][r]];
    console.log(`| ${route}, ${bytes} | ${one.toFixed(0)} | ${all.toFixed(0)} | ${(one / all).toFixed(2)} |`);
  });
  const [one, all] = [single[s][0] + single[s][1], spread[s][0] + spread[s][1]];
  console.log(`| both, ${bytes} | ${one.toFixed(0)} | ${all.toFixed(0)} | ${(one / all).toFixed(2)} |`);
});

const perHandshake = (ms: number) => ms * 1000 / sessions;
const parts: [string, number][] = [
  ["X25519", perHandshake(split.x25519)],
  ["AEAD", perHandshake(split.aead)],
  ["BLAKE2s", blakeUs()],
];
const rest = handshakeUs - parts.reduce((sum, [, us]) => sum + us, 0);
console.log(`\n| answering one initiation | µs |\n|---|---|`);
for (const [what, us] of [...parts, ["the rest", rest], ["whole", handshakeUs]] as [string, number][]) {
  console.log(`| ${what} | ${us.toFixed(1)} |`);
}
console.log(`\nHandshakes a second: ${(1e6 / handshakeUs).toFixed(0)}`);
relay.close();
clientAead.close();
