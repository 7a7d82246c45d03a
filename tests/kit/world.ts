/**
 * The deterministic world that cores are tested in, by the carrier of the real driver: a virtual clock, seeded randomness and a network with delay,
 * jitter, loss (Gilbert-Elliott), duplication, reordering, corruption and NAT rebinding. Invariant: the same
 * seed gives the same run, to the byte. It opens no socket and reads no clock.
 */
import { Carrier, type Inner, type Outer, type Siblings } from "../../src/carry.ts";
import { PortableAead } from "../../src/codec/aead_portable.ts";
import { PortableDatagramAead } from "../../src/codec/datagram_portable.ts";
import type { Primitives } from "../../src/codec/kernels.ts";
import { nodeCrypto } from "../../src/codec/node_crypto.ts";
import { CLASS_DEFAULT } from "../../src/control/traffic_class.ts";
import type { DestinationRules } from "../../src/ingress/mod.ts";
import { DROP, Metrics } from "../../src/metrics.ts";
import { Client, type Upstream } from "../../src/client.ts";
import { Relay, type RelayOptions } from "../../src/relay.ts";
import { base64 } from "../../src/session/peers.ts";
import { type Limits, WIREGUARD_LIMITS } from "../../src/session/limits.ts";
import { Arena } from "../../src/vector/arena.ts";
import {
  type Burst,
  DONE,
  TO_EXIT,
  TO_PARSE,
  TO_TRANSMIT,
  TO_TUNNEL,
  TO_WORKER,
} from "../../src/vector/burst.ts";
import type { Tunnel } from "../../src/tunnel.ts";
import type { TunnelOptions } from "../../src/tunnel_options.ts";
import { formatEndpoint } from "../../src/wire/address.ts";
import type { PathModel } from "./channels.ts";
import { marked, splitEndpoint } from "./packets.ts";
import { Random } from "./random.ts";

/** UDP and IPv4 of a datagram. */
const OUTER_BYTES = 28;

/** What happens to datagrams on the way. Shares are 0..1, times microseconds. */
export interface Channel {
  delayUs: number;
  jitterUs: number;
  loss: number;
  duplicate: number;
  corrupt: number;
  /** Gilbert-Elliott: chance per datagram to enter and to leave the bad state, in which all is lost. */
  enterBad: number;
  leaveBad: number;
}

export const CLEAN: Channel = {
  delayUs: 20_000,
  jitterUs: 0,
  loss: 0,
  duplicate: 0,
  corrupt: 0,
  enterBad: 0,
  leaveBad: 1,
};

/** Nothing but the public internet. */
export const CLOSED: DestinationRules = {
  allowLoopback: false,
  allowLinkLocal: false,
  allowPrivate: false,
  allowPeers: false,
  allow: [],
};

type ClientSettings = Partial<TunnelOptions> & {
  ipv4: string;
  keepaliveS?: number;
  presharedKey?: string;
  protocol?: Upstream["protocol"];
};

interface Flight {
  atUs: number;
  order: number;
  from: string;
  to: string;
  bytes: Uint8Array;
}

/** Copies the bytes of each row whose next is `step`. */
function forEach(burst: Burst, step: number, use: (row: number, bytes: Uint8Array) => void): void {
  for (let row = 0; row < burst.count; row++) {
    if (burst.next[row] !== step) continue;
    use(row, burst.bytes.slice(burst.offset[row], burst.offset[row] + burst.length[row]));
  }
}

/** A core in the world, with what it delivered to its exit. */
export class Host<Core extends Tunnel = Tunnel> {
  readonly core: Core;
  readonly arena: Arena;
  readonly metrics = new Metrics();
  readonly publicKey: string;
  /** Inner packets that reached this host's exit, copied. */
  readonly delivered: Uint8Array[] = [];
  /** Endpoints of a client's further doors, by their numbers (io/multi_port.ts). */
  readonly doors = new Map<number, string>();
  /** The last word of the address at which datagrams come, for a host without doors; 0 for one that the port does not tell. */
  localWord = 0;
  /** The Workers of one relay, this one among them; alone where there is one. */
  siblings: Host<Core>[] = [this];
  readonly #carrier: Carrier;
  /** Rows for other Workers, which these get when this one has nothing more to carry. */
  readonly #handedOver: [sibling: Host<Core>, bytes: Uint8Array, from: string, step: number][] = [];

  readonly #port: Outer = {
    receive: () => 0,
    transmit: (burst) =>
      forEach(burst, TO_TRANSMIT, (row, bytes) => {
        const door = burst.local[4 * row + 3];
        if (door !== 0 && this.core instanceof Client && !this.doors.has(door)) {
          throw new Error(`no door ${door}`);
        }
        const from = this.doors.get(door) ?? this.endpoint;
        this.world.carry(from, formatEndpoint(burst.address, 4 * row, burst.port[row]), bytes);
        burst.next[row] = DONE;
      }),
  };
  readonly #exit: Inner = {
    receive: () => 0,
    send: (burst) =>
      forEach(burst, TO_EXIT, (row, bytes) => {
        this.delivered.push(bytes);
        burst.next[row] = DONE;
      }),
  };
  readonly #mailbox: Siblings = {
    receive: () => 0,
    send: (burst) =>
      forEach(burst, TO_WORKER, (row, bytes) => {
        const from = formatEndpoint(burst.address, 4 * row, burst.port[row]);
        this.#handedOver.push([this.siblings[burst.session[row]], bytes, from, burst.peer[row]]);
        burst.next[row] = DONE;
      }),
  };

  constructor(
    readonly world: World,
    public endpoint: string,
    options: Partial<TunnelOptions> & { ipv4: string },
    make: (options: TunnelOptions) => Core,
  ) {
    this.arena = options.arena ?? new Arena(1024);
    const privateKey = options.privateKey ?? new Uint8Array(32);
    if (options.privateKey === undefined) world.random.fill(privateKey);
    const primitives: Primitives = options.primitives ?? nodeCrypto;
    this.core = make({
      arena: this.arena,
      metrics: this.metrics,
      primitives,
      makeAead: (rows) => new PortableAead(primitives, rows, DROP.forged),
      makeDatagramAead: (rows) => new PortableDatagramAead(rows, DROP.forged),
      random: (bytes) => world.random.fill(bytes),
      limits: world.limits,
      privateKey,
      ipv6: undefined,
      mtu: 1420,
      maxConnections: 1100,
      rateLimitPerIp: 20,
      worker: 0,
      unixOffsetUs: 1_700_000_000_000_000,
      ...options,
    });
    this.publicKey = base64(this.core.publicKey);
    const { core, arena, metrics } = this;
    this.#carrier = new Carrier(arena, core, this.#port, this.#exit, metrics, this.#mailbox);
  }

  /** Hands a datagram in, as the port would, or a sibling for the step that it names. */
  receive(bytes: Uint8Array, from: string, step = TO_PARSE, door = 0): void {
    this.receiveBurst([bytes], from, step, door);
  }

  /** The same with several datagrams of one sender, in one burst. */
  receiveBurst(datagrams: readonly Uint8Array[], from: string, step = TO_PARSE, door = 0): void {
    const { burst } = this.#carrier;
    const { address, port } = splitEndpoint(from);
    for (const bytes of datagrams) {
      const row = burst.grow(bytes.length, step);
      if (row < 0) throw new Error("the host's arena leaks: no slot is free");
      burst.bytes.set(bytes, burst.offset[row]);
      burst.address.set(address, 4 * row);
      burst.port[row] = port;
      burst.local[4 * row + 3] = this.doors.size > 0 ? door : this.localWord;
    }
    this.#carrier.ingest(this.world.nowUs);
    this.#flush();
  }

  /** Sends an inner packet into the tunnel, as the exit would. */
  send(packet: Uint8Array): void {
    this.sendBurst([packet]);
  }

  /**
   * The same with several that came together. With another class (CLASS_*) than the default they are
   * `marked`.
   */
  sendBurst(packets: readonly Uint8Array[], trafficClass = CLASS_DEFAULT): void {
    const { burst } = this.#carrier;
    for (const packet of packets) {
      const row = burst.grow(packet.length, TO_TUNNEL);
      if (row < 0) throw new Error("the host's arena leaks: no slot is free");
      burst.bytes.set(marked(packet, trafficClass), burst.offset[row]);
    }
    this.#carrier.ingestInner(this.world.nowUs);
    this.#flush();
  }

  /** Lets the core act on the time. */
  tick(): void {
    this.core.handleTimeout(this.world.nowUs);
    this.#flush();
  }

  #flush(): void {
    this.#carrier.flush(this.world.nowUs);
    for (const [sibling, bytes, from, step] of this.#handedOver.splice(0)) sibling.receive(bytes, from, step);
  }
}

export class World {
  nowUs = 1_000_000;
  readonly random: Random;
  readonly hosts: Host[] = [];
  channel: Channel = CLEAN;
  /** A model for the way from one endpoint to another, in place of `channel`. */
  pathOf: ((from: string, to: string) => PathModel | undefined) | undefined;
  limits: Limits = WIREGUARD_LIMITS;
  /** What clients speak unless they are told. */
  protocol: Upstream["protocol"] = "wireguard";
  /** Sees, and may replace or drop, every datagram before the channel does. */
  tap: ((from: string, to: string, bytes: Uint8Array) => Uint8Array | undefined) | undefined;
  /** Which Worker of a relay gets a datagram or a packet from its exit. */
  steer: (bytes: Uint8Array, workers: number) => number = () => 0;
  carried = 0;
  #flights: Flight[] = [];
  #order = 0;
  #bad = false;

  constructor(readonly seed: number) {
    this.random = new Random(seed);
  }

  relay(endpoint: string, options: Partial<RelayOptions> & { ipv4: string }): Host<Relay> {
    const destinations = options.destinations ?? CLOSED;
    const make = (all: TunnelOptions) => new Relay({ ...all, destinations });
    const host = new Host(this, endpoint, options, make);
    this.hosts.push(host);
    return host;
  }

  /** A relay of several Workers that share endpoint and key. */
  relayOf(
    workers: number,
    endpoint: string,
    options: Partial<RelayOptions> & { ipv4: string },
  ): Host<Relay>[] {
    const privateKey = new Uint8Array(32);
    this.random.fill(privateKey);
    const hosts: Host<Relay>[] = [];
    for (let worker = 0; worker < workers; worker++) {
      const connectionsElsewhere = () =>
        hosts.reduce((sum, { metrics }, i) => sum + (i === worker ? 0 : metrics.get("connections")), 0);
      hosts.push(this.relay(endpoint, { ...options, privateKey, worker, workers, connectionsElsewhere }));
    }
    hosts.forEach((host) => host.siblings = hosts);
    return hosts;
  }

  /** A client of `relay`, known to it by `ipv4`, already dialling. It takes every address to be behind the relay. */
  client(
    endpoint: string,
    relay: Host<Relay>,
    { keepaliveS, presharedKey, protocol = this.protocol, ...options }: ClientSettings,
  ): Host<Client> {
    const upstream: Upstream = {
      publicKey: relay.publicKey,
      persistentKeepaliveS: keepaliveS,
      presharedKey,
      protocol,
    };
    const host = new Host(this, endpoint, options, (all) => new Client(all, upstream));
    this.hosts.push(host);
    const allowedIps = [`${options.ipv4}/32`];
    for (const { core } of relay.siblings) {
      core.addPeer({ name: `c-${endpoint}`, publicKey: host.publicKey, allowedIps, presharedKey });
    }
    dial(host, relay);
    return host;
  }

  /** Puts a datagram on its way. */
  carry(from: string, to: string, bytes: Uint8Array): void {
    this.carried++;
    const seen = this.tap ? this.tap(from, to, bytes) : bytes;
    if (!seen) return;
    const path = this.pathOf?.(from, to);
    if (path) {
      const atUs = path.arrivalUs(this.nowUs, seen.length + OUTER_BYTES);
      if (atUs < Infinity) this.#push({ atUs, order: this.#order++, from, to, bytes: seen.slice() });
      return;
    }
    const { channel, random } = this;
    this.#bad = this.#bad ? random.real() >= channel.leaveBad : random.real() < channel.enterBad;
    if (this.#bad || random.real() < channel.loss) return;
    const copies = random.real() < channel.duplicate ? 2 : 1;
    for (let i = 0; i < copies; i++) {
      const copy = seen.slice();
      if (random.real() < channel.corrupt) copy[random.u32() % copy.length] ^= 1 << (random.u32() & 7);
      const atUs = this.nowUs + channel.delayUs + Math.floor(random.real() * channel.jitterUs);
      this.#push({ atUs, order: this.#order++, from, to, bytes: copy });
    }
  }

  /** Runs until `untilUs`, delivering datagrams and firing timers in the order of time. */
  run(untilUs: number): void {
    for (;;) {
      const flightUs = this.#flights.length > 0 ? this.#flights[0].atUs : Infinity;
      let due: Host | undefined, dueUs = Infinity;
      for (const host of this.hosts) {
        const t = host.core.pollTimeout();
        if (t < dueUs) [due, dueUs] = [host, t];
      }
      if (Math.min(flightUs, dueUs) > untilUs) break;
      if (flightUs <= dueUs) {
        const flight = this.#pop();
        this.nowUs = Math.max(this.nowUs, flight.atUs);
        const { host, door } = this.#hostAt(flight.to);
        const siblings = host?.siblings ?? [];
        siblings[siblings.length > 1 ? this.steer(flight.bytes, siblings.length) : 0]
          ?.receive(flight.bytes, flight.from, TO_PARSE, door);
      } else {
        this.nowUs = Math.max(this.nowUs, dueUs);
        due!.tick();
      }
    }
    this.nowUs = Math.max(this.nowUs, untilUs);
  }

  #hostAt(endpoint: string): { host?: Host; door: number } {
    for (const host of this.hosts) {
      if (host.endpoint === endpoint) return { host, door: 0 };
      for (const [door, at] of host.doors) if (at === endpoint) return { host, door };
    }
    return { door: 0 };
  }

  runFor(us: number): void {
    this.run(this.nowUs + us);
  }

  #before(a: Flight, b: Flight): boolean {
    return a.atUs !== b.atUs ? a.atUs < b.atUs : a.order < b.order;
  }

  #push(flight: Flight): void {
    const heap = this.#flights;
    let i = heap.push(flight) - 1;
    while (i > 0 && this.#before(flight, heap[(i - 1) >> 1])) {
      heap[i] = heap[(i - 1) >> 1];
      i = (i - 1) >> 1;
    }
    heap[i] = flight;
  }

  #pop(): Flight {
    const heap = this.#flights;
    const top = heap[0];
    const last = heap.pop()!;
    if (heap.length === 0) return top;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && this.#before(heap[child + 1], heap[child])) child++;
      if (!this.#before(heap[child], last)) break;
      heap[i] = heap[child];
      i = child;
    }
    heap[i] = last;
    return top;
  }
}

/** Points the client at the server's present endpoint. */
export function dial(client: Host<Client>, server: Host): void {
  const { text, port } = splitEndpoint(server.endpoint);
  client.core.connect(text, port, client.world.nowUs);
  client.tick();
}

/** A relay and its first client, dialling. */
export function pair(world: World, keepaliveS = 0): { client: Host<Client>; server: Host<Relay> } {
  const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1" });
  const client = world.client("198.51.100.7:5555", server, { ipv4: "10.66.0.2", keepaliveS });
  return { client, server };
}
