/**
 * A relay and its clients through handshakes by the thousand, over real ports and native kernels in virtual time: keys
 * that are replaced, expire, are never confirmed or never answered, peers that go and come back, packets that are
 * forged. From time to time everything is left to expire, and what is still held is printed as a line of JSON; after
 * that, nothing may be. Usage: leak_child.ts HANDSHAKES PACKETS
 */
import { setImmediate } from "node:timers";
import { libc, POLLNVAL } from "../../ffi/mod.ts";
import { loadNative } from "../../ffi/native.ts";
import { Client } from "../../src/client.ts";
import { nativeSuite } from "../../src/codec/suite.ts";
import { MmsgPort } from "../../src/io/mmsg.ts";
import { DROP, DROP_REASONS, Metrics } from "../../src/metrics.ts";
import { Relay } from "../../src/relay.ts";
import { base64 } from "../../src/session/peers.ts";
import { WIREGUARD_LIMITS } from "../../src/session/limits.ts";
import type { PeerRecord } from "../../src/session/peer_record.ts";
import type { Tunnel } from "../../src/tunnel.ts";
import type { TunnelOptions } from "../../src/tunnel_options.ts";
import { Arena } from "../../src/vector/arena.ts";
import { Burst, BURST_CAPACITY, DONE, TO_EXIT, TO_TUNNEL } from "../../src/vector/burst.ts";
import { udpPacket } from "../kit/packets.ts";

const HOST = "127.0.0.1";
const CLIENTS = 16;
const CHECKPOINTS = 4;
const SECOND_US = 1_000_000;
/** Longer than any key, attempt or timer lasts. */
const FOREVER_US = 600 * SECOND_US;
const DESCRIPTORS = 1024;
/** How often the event loop gets a turn, as the driver gives it: tasks that V8 leaves for it are freed when they have run. */
const TURN_MS = 500;

declare const gc: () => void;

const [handshakes, packets] = Deno.args.map(Number);
const native = loadNative();
if (typeof native === "string") throw new Error(native);
const library = native;
const { primitives, makeAead } = nativeSuite(library, { forged: DROP.forged }).crypto;
let nowUs = SECOND_US;

/** What the relay holds, which its users need not know. */
class OpenRelay extends Relay {
  held() {
    return {
      rows: this.table.count,
      timers: this.associations.timers.size,
      staged: this.associations.staging.count,
    };
  }
}

function options(arena: Arena, ipv4: string): TunnelOptions {
  return {
    arena,
    metrics: new Metrics(),
    primitives,
    makeAead,
    random: (bytes) => void crypto.getRandomValues(bytes as Uint8Array<ArrayBuffer>),
    limits: { ...WIREGUARD_LIMITS, initiationsPerSecond: Infinity },
    privateKey: crypto.getRandomValues(new Uint8Array(32)),
    ipv4,
    ipv6: undefined,
    mtu: 1420,
    maxConnections: 2 * CLIENTS,
    rateLimitPerIp: 20,
    worker: 0,
    unixOffsetUs: 0,
  };
}

/** A core, its port and what it delivered. */
class End<Core extends Tunnel = Tunnel> {
  readonly port: MmsgPort;
  readonly burst: Burst;
  delivered = 0;

  constructor(readonly core: Core, readonly arena: Arena) {
    const onRefused = () => {
      throw new Error("a port refused a datagram");
    };
    this.port = new MmsgPort({ native: library, host: HOST, port: 0, onRefused });
    this.burst = new Burst(arena);
  }

  /** Takes in what has arrived and sends out what is due; whether there was anything of either. */
  turn(): boolean {
    let moved = false;
    while (this.port.receive(this.burst) > 0) {
      moved = true;
      this.core.ingest(this.burst, nowUs);
      this.#finish();
    }
    this.core.handleTimeout(nowUs);
    return this.flush() || moved;
  }

  send(packet: Uint8Array, count: number): void {
    const { burst } = this;
    for (let i = 0; i < count; i++) {
      burst.bytes.set(packet, burst.offset[burst.grow(packet.length, TO_TUNNEL)]);
    }
    this.core.ingestInner(burst, nowUs);
    this.#finish();
  }

  /** Whether anything was due. */
  flush(): boolean {
    let moved = false;
    while (this.core.pollTransmit(this.burst, nowUs) > 0) {
      moved = true;
      this.#finish();
    }
    return moved;
  }

  #finish(): void {
    const { burst } = this;
    for (let row = 0; row < burst.count; row++) {
      if (burst.next[row] !== TO_EXIT) continue;
      this.delivered++;
      burst.next[row] = DONE;
    }
    this.port.transmit(burst);
    burst.release();
  }
}

const innerOf = (i: number) => `10.66.0.${2 + i}`;
const arena = new Arena(8 * BURST_CAPACITY);
const common = options(arena, "10.66.0.1");
const destinations = {
  allowLoopback: false,
  allowLinkLocal: false,
  allowPrivate: false,
  allowPeers: true,
  allow: [],
};
const relay = new End(new OpenRelay({ ...common, destinations }), arena);
const clients = Array.from({ length: CLIENTS }, (_, i) => {
  const arena = new Arena(2 * BURST_CAPACITY);
  return new End(new Client(options(arena, innerOf(i)), { publicKey: base64(relay.core.publicKey) }), arena);
});
const records: PeerRecord[] = clients.map(({ core }, i) => ({
  name: `client-${i}`,
  publicKey: base64(core.publicKey),
  allowedIps: [`${innerOf(i)}/32`],
  created: "",
}));
relay.core.replacePeers(records);

const up = clients.map((_, i) => udpPacket(innerOf(i), "8.8.8.8", new Uint8Array(100)));
const down = clients.map((_, i) => udpPacket("8.8.8.8", innerOf(i), new Uint8Array(100)));
const across = clients.map((_, i) => udpPacket(innerOf(i), innerOf((i + 1) % CLIENTS), new Uint8Array(100)));

/** Everyone's datagrams come and go until nothing moves any more; on loopback a datagram sent has arrived. */
function settle(): void {
  for (let moved = true; moved;) {
    moved = relay.turn();
    for (const client of clients) if (client.turn()) moved = true;
  }
}

/** A handshake of every client and its packets, and in turn what can go wrong. */
function round(n: number, packetsEach: number): void {
  nowUs += 6 * SECOND_US;
  for (const client of clients) {
    client.core.connect(HOST, relay.port.localPort, nowUs);
    client.flush();
  }
  if (n % 8 === 1) {
    relay.turn(); // the answers come too late: the next round's handshake takes their place
    return;
  }
  settle();
  for (let left = packetsEach; left > 0; left -= 48) {
    for (let i = 0; i < CLIENTS; i++) {
      clients[i].send(up[i], 16);
      clients[i].send(across[i], 16);
      relay.send(down[i], 16);
    }
    settle();
  }
  if (n % 16 === 2) nowUs += 200 * SECOND_US; // every key expires
  if (n % 16 === 6) {
    // Keys expire, and packets wait for clients that do not answer until they are given up.
    nowUs += 200 * SECOND_US;
    relay.turn();
    for (let i = 0; i < CLIENTS; i++) relay.send(down[i], 4);
    for (let second = 0; second < 100; second += 5) {
      relay.turn();
      for (const client of clients) while (client.port.receive(client.burst) > 0) client.burst.release();
      nowUs += 5 * SECOND_US;
    }
  }
  if (n % 16 === 10) {
    relay.core.replacePeers(records.slice(CLIENTS / 2));
    relay.core.replacePeers(records);
  }
}

/** Open descriptors, of the first 1024: the others poll as invalid. */
function descriptors(): number {
  const entries = new Uint8Array(8 * DESCRIPTORS), view = new DataView(entries.buffer);
  for (let fd = 0; fd < DESCRIPTORS; fd++) view.setInt32(8 * fd, fd, true);
  libc().pollBlocking(entries, BigInt(DESCRIPTORS), 0);
  let open = 0;
  for (let fd = 0; fd < DESCRIPTORS; fd++) if ((view.getUint16(8 * fd + 6, true) & POLLNVAL) === 0) open++;
  return open;
}

function checkpoint(): void {
  nowUs += FOREVER_US;
  for (let i = 0; i < 30; i++) {
    settle();
    nowUs += 10 * SECOND_US;
  }
  while (relay.core.pollEvent());
  for (let i = 0; i < 3; i++) gc();
  const { rss, heapUsed } = Deno.memoryUsage();
  const drops = Object.fromEntries(
    DROP_REASONS.map(([label]) => [label, common.metrics.dropped(label)]).filter(([, count]) => count !== 0),
  );
  console.log(JSON.stringify({
    ...relay.core.held(),
    slots: arena.slotCount - arena.free,
    descriptors: descriptors(),
    rss,
    heapUsed,
    handshakes: common.metrics.get("handshakes_completed"),
    packets: relay.delivered + clients.reduce((sum, { delivered }) => sum + delivered, 0),
    drops,
  }));
}

let turnDueMs = 0;
const rounds = Math.ceil(handshakes / CLIENTS);
const packetsEach = packets / handshakes;
for (let n = 0; n < rounds; n++) {
  if (n % Math.ceil(rounds / CHECKPOINTS) === 0) checkpoint();
  round(n, packetsEach);
  if (performance.now() < turnDueMs) continue;
  await new Promise<void>((resolve) => setImmediate(resolve));
  turnDueMs = performance.now() + TURN_MS;
}
checkpoint();
