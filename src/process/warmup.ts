/**
 * Teaches the compiler the two routes before the first packet comes: synthetic bursts between a relay and a client in
 * memory, with the kernels that will serve. Invariant: it has arenas, keys and counters of its own and leaves
 * nothing behind; bursts of one row, as of a game, and of several by turns. Opens no socket.
 */
import { Carrier } from "../carry.ts";
import { Client, type Upstream } from "../client.ts";
import { Metrics } from "../metrics.ts";
import { Relay } from "../relay.ts";
import { base64 } from "../session/peers.ts";
import { WIREGUARD_LIMITS } from "../session/limits.ts";
import type { Tunnel } from "../tunnel.ts";
import type { TunnelOptions } from "../tunnel_options.ts";
import { Arena } from "../vector/arena.ts";
import { type Burst, DONE, TO_EXIT, TO_PARSE, TO_TRANSMIT, TO_TUNNEL } from "../vector/burst.ts";
import { PROTOCOL_UDP, writeIpv4Header } from "../wire/inner.ts";

/** Bursts after which the optimising compiler has compiled the steps; fewer handshakes do, which cost more. */
const BURSTS = 1000;
const HANDSHAKES = 40;
const HANDSHAKE_US = 1_000_000;
const ROWS = 16;
const PACKET_BYTES = 200;
const BURST_US = 100;
const RELAY = [0, 0, 0xffff, 0xc0000201], CLIENT = [0, 0, 0xffff, 0xc6336401];
const PORT = 4433;
const INNER_CLIENT = "10.66.0.2", INNER_CLIENT_WORD = 0x0a420002, INNER_FAR_WORD = 0x08080808;

type Kernels = Pick<
  TunnelOptions,
  "primitives" | "makeAead" | "makeDatagramAead" | "aeads" | "lz4" | "repair"
>;

/** One end: port and exit of its own carrier. What it sends lands in the other end's burst. */
class End {
  readonly carrier: Carrier;
  other: End | undefined;
  /** Packets that came out of the tunnel here. */
  arrived = 0;

  /** @param address of this end, as the other sees it. */
  constructor(core: Tunnel, { arena, metrics }: TunnelOptions, readonly address: number[]) {
    this.carrier = new Carrier(arena, core, this, this, metrics);
  }

  /** Carries what has landed, and what the core has of its own. */
  turn(nowUs: number): void {
    if (this.carrier.burst.count > 0) this.carrier.ingest(nowUs);
    this.carrier.flush(nowUs);
  }

  receive(): number {
    return 0;
  }

  transmit(from: Burst): void {
    const to = this.other!.carrier.burst;
    for (let row = 0; row < from.count; row++) {
      if (from.next[row] !== TO_TRANSMIT) continue;
      const at = from.offset[row], length = from.length[row];
      const landed = to.grow(length, TO_PARSE);
      if (landed < 0) break;
      to.bytes.set(from.bytes.subarray(at, at + length), to.offset[landed]);
      to.address.set(this.address, 4 * landed);
      to.port[landed] = PORT;
      from.next[row] = DONE;
    }
  }

  send(burst: Burst): void {
    for (let row = 0; row < burst.count; row++) {
      if (burst.next[row] !== TO_EXIT) continue;
      this.arrived++;
      burst.next[row] = DONE;
    }
  }
}

/**
 * Carries bursts both ways, in each protocol that there are kernels for, and forgets them. Returns the packets that
 * came through, of BURSTS * (ROWS + 1) for each protocol.
 */
export function warmUp(kernels: Kernels): number {
  const arrived = warmUpIn("wireguard", kernels, Infinity);
  return kernels.makeDatagramAead === undefined ? arrived : arrived + warmUpIn("oxtunnel", kernels, Infinity);
}

/**
 * The same in one protocol, with one handshake and as many bursts behind it as `ms` milliseconds allow. What the first handshake of a
 * process costs, this one or the real one, is mostly the compiler's.
 */
export function warmUpFor(ms: number, protocol: Upstream["protocol"], kernels: Kernels): number {
  return warmUpIn(protocol, kernels, ms);
}

function warmUpIn(protocol: Upstream["protocol"], kernels: Kernels, ms: number): number {
  const random = (bytes: Uint8Array) => void crypto.getRandomValues(bytes as Uint8Array<ArrayBuffer>);
  const options = (ipv4: string): TunnelOptions => ({
    arena: new Arena(4 * ROWS),
    metrics: new Metrics(),
    ...kernels,
    random,
    limits: WIREGUARD_LIMITS,
    privateKey: crypto.getRandomValues(new Uint8Array(32)),
    ipv4,
    ipv6: undefined,
    mtu: 1420,
    maxConnections: 1,
    rateLimitPerIp: 1,
    worker: 0,
    unixOffsetUs: 0,
  });
  const destinations = {
    allowLoopback: false,
    allowLinkLocal: false,
    allowPrivate: false,
    allowPeers: false,
    allow: [],
  };
  const ofRelay = options("10.66.0.1"), ofClient = options(INNER_CLIENT);
  const relay = new Relay({ ...ofRelay, destinations });
  const client = new Client(ofClient, { publicKey: base64(relay.publicKey), protocol });
  relay.addPeer({ name: "warm-up", publicKey: base64(client.publicKey), allowedIps: [`${INNER_CLIENT}/32`] });
  const near = new End(client, ofClient, CLIENT), far = new End(relay, ofRelay, RELAY);
  near.other = far;
  far.other = near;

  let nowUs = BURST_US;
  const handshakes = ms === Infinity ? HANDSHAKES : 1;
  for (let i = 0; i < handshakes; i++) {
    nowUs += HANDSHAKE_US;
    client.connect("192.0.2.1", PORT, nowUs);
    // Initiation, response, first data, and OxTunnel's first exchange of keys.
    for (let turn = 0; turn < 8; turn++) (turn % 2 === 0 ? near : far).turn(nowUs);
  }
  const untilMs = performance.now() + ms;
  for (let i = 0; i < BURSTS && performance.now() < untilMs; i++) {
    nowUs += BURST_US;
    for (const [from, to] of [[near, far], [far, near]]) {
      from.turn(nowUs);
      for (let row = i % 2 === 0 ? 1 : ROWS; row > 0; row--) writePacket(from.carrier.burst, from === near);
      from.carrier.ingestInner(nowUs);
      to.turn(nowUs);
    }
  }
  relay.close();
  client.close();
  return near.arrived + far.arrived;
}

function writePacket(burst: Burst, outward: boolean): void {
  const row = burst.grow(PACKET_BYTES, TO_TUNNEL);
  if (row < 0) return;
  const [from, to] = outward ? [INNER_CLIENT_WORD, INNER_FAR_WORD] : [INNER_FAR_WORD, INNER_CLIENT_WORD];
  writeIpv4Header(burst.view, burst.offset[row], PACKET_BYTES, 0, 0, PROTOCOL_UDP, from, to);
}
