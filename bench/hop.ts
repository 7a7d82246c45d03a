/**
 * The rig of the hop and gap benches: a relay with its real driver, port and kernels between two clients, all in one
 * thread over loopback. Invariant: making the datagrams and counting those that came through lie outside `carry`, and a
 * rig that loses a packet throws. Measures nothing itself.
 */
import { createCipheriv, createDecipheriv } from "node:crypto";
import { setImmediate } from "node:timers";
import type { Native } from "../ffi/native.ts";
import { Carrier } from "../src/carry.ts";
import { Client } from "../src/client.ts";
import { PortableAead } from "../src/codec/aead_portable.ts";
import type { Aead, Primitives } from "../src/codec/kernels.ts";
import { ALGORITHM, NativeAead, nativePrimitives } from "../src/codec/native.ts";
import { nodeCrypto } from "../src/codec/node_crypto.ts";
import type { Exit } from "../src/exit/exit.ts";
import { Driver, monotonicUs, wallClockOffsetUs } from "../src/io/driver.ts";
import { MmsgPort } from "../src/io/mmsg.ts";
import type { Port } from "../src/io/port.ts";
import { UdpPort } from "../src/io/udp.ts";
import { DROP, Metrics } from "../src/metrics.ts";
import { Relay } from "../src/relay.ts";
import { base64 } from "../src/session/peers.ts";
import { WIREGUARD_LIMITS } from "../src/session/limits.ts";
import type { TunnelOptions } from "../src/tunnel_options.ts";
import { Arena } from "../src/vector/arena.ts";
import { BURST_CAPACITY, TO_EXIT, TO_TUNNEL } from "../src/vector/burst.ts";
import { IDLE_EXIT } from "../tests/kit/fakes.ts";
import { udpPacket } from "../tests/kit/packets.ts";

const HOST = "127.0.0.1";
/** Bursts that wait in the socket when the clock starts: a loaded relay finds its bursts full. */
const BURSTS_WAITING = 4;
/** What fits a receive buffer of the default size, which the portable port cannot change. */
const PORTABLE_ROWS = 64;
/** What UDP and IPv4 leave of the packet for its payload. */
const HEADER_BYTES = 28;

/** No timer falls due: the far client never answers, and a keepalive would be counted as a packet. */
const HOUR_US = 3600e6;
const PATIENT = {
  ...WIREGUARD_LIMITS,
  keepaliveUs: HOUR_US,
  rekeyAfterUs: HOUR_US,
  rejectAfterUs: 2 * HOUR_US,
};

export type AlgorithmName = keyof typeof ALGORITHM;

/** What carries the packets in the middle. */
export interface Engine {
  kernels: "native" | "portable";
  algorithm: AlgorithmName;
  /** GSO and GRO, on all three ports. */
  offload: boolean;
}

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

const nonce = new Uint8Array(12), nonceView = new DataView(nonce.buffer);

function setNonce(counter: number): void {
  nonceView.setUint32(4, counter >>> 0, true);
  nonceView.setUint32(8, Math.floor(counter / 4294967296), true);
}

/** AES-256-GCM by node:crypto, as the portable kernel would have it. */
const aesByNode: Primitives = {
  ...nodeCrypto,
  seal(key, counter, plaintext) {
    setNonce(counter);
    const cipher = createCipheriv("aes-256-gcm", key, nonce);
    const sealed = new Uint8Array(plaintext.length + 16);
    sealed.set(cipher.update(plaintext));
    cipher.final();
    sealed.set(cipher.getAuthTag(), plaintext.length);
    return sealed;
  },
  open(key, counter, sealed) {
    setNonce(counter);
    const decipher = createDecipheriv("aes-256-gcm", key, nonce);
    decipher.setAuthTag(sealed.subarray(-16));
    const plaintext = decipher.update(sealed.subarray(0, -16));
    decipher.final();
    return plaintext;
  },
};

/** No packet of these benches leaves by it. */
const NO_EXIT: Exit = {
  ...IDLE_EXIT,
  send(burst) {
    for (let row = 0; row < burst.count; row++) {
      if (burst.next[row] === TO_EXIT) throw new Error("a packet went to the exit");
    }
  },
};

const refuse = () => {
  throw new Error("a port refused a datagram");
};

interface End {
  core: Client;
  port: MmsgPort;
  carrier: Carrier;
}

export class HopRig {
  /** Packets that `load` makes, and `carry` carries. */
  readonly packets: number;
  readonly #isNative: boolean;
  readonly #driver: Driver;
  readonly #metrics = new Metrics();
  readonly #relay: Relay;
  readonly #port: Port;
  readonly #from: End;
  readonly #to: End;
  readonly #packet: Uint8Array;
  #arrived = 0;
  #isOpening = false;

  /**
   * @param bytes of the inner packets, 28 to 1420.
   * @param bursts that each load consists of.
   */
  constructor(
    native: Native,
    { kernels, algorithm, offload }: Engine,
    bytes: number,
    bursts: number = BURSTS_WAITING,
  ) {
    this.#isNative = kernels === "native";
    this.packets = this.#isNative ? bursts * BURST_CAPACITY : PORTABLE_ROWS;
    this.#packet = udpPacket("10.66.0.2", "10.66.0.3", new Uint8Array(bytes - HEADER_BYTES));
    const nativeAead = (rows: number): Aead =>
      new NativeAead(native, rows, DROP.forged, ALGORITHM[algorithm]);
    const twin = algorithm === "aes256Gcm" ? aesByNode : nodeCrypto;
    const portableAead = (rows: number): Aead => new PortableAead(twin, rows, DROP.forged);
    const options = (arena: Arena, ipv4: string): TunnelOptions => ({
      arena,
      metrics: new Metrics(),
      primitives: nativePrimitives(native),
      makeAead: nativeAead,
      random: (random) => void crypto.getRandomValues(random as Uint8Array<ArrayBuffer>),
      limits: PATIENT,
      privateKey: crypto.getRandomValues(new Uint8Array(32)),
      ipv4,
      ipv6: undefined,
      mtu: 1420,
      maxConnections: 1000,
      rateLimitPerIp: 20,
      worker: 0,
      unixOffsetUs: wallClockOffsetUs(),
    });
    const arena = new Arena(16 * BURST_CAPACITY);
    const nobody = { allowLoopback: false, allowLinkLocal: false, allowPrivate: false, allow: [] };
    this.#relay = new Relay({
      ...options(arena, "10.66.0.1"),
      metrics: this.#metrics,
      makeAead: this.#isNative ? nativeAead : portableAead,
      destinations: { ...nobody, allowPeers: true },
    });
    this.#port = this.#isNative
      ? new MmsgPort({ native, host: HOST, port: 0, offload, onRefused: refuse })
      : new UdpPort({ host: HOST, port: 0, arena, onDrop: refuse });
    this.#driver = new Driver(arena, this.#relay, this.#port, NO_EXIT, this.#metrics);
    // What the event loop alone knows of, it must also wake for.
    if (!this.#isNative) this.#driver.start();
    [this.#from, this.#to] = ["10.66.0.2", "10.66.0.3"].map((ipv4) => {
      const arena = new Arena(2 * BURST_CAPACITY);
      const core = new Client(options(arena, ipv4), { publicKey: base64(this.#relay.publicKey) });
      this.#relay.addPeer({ name: ipv4, publicKey: base64(core.publicKey), allowedIps: [`${ipv4}/32`] });
      const port = new MmsgPort({ native, host: HOST, port: 0, offload, onRefused: refuse });
      return { core, port, carrier: new Carrier(arena, core, port, IDLE_EXIT, new Metrics()) };
    });
  }

  /** Handshakes of both clients, and one load that is opened at the far end and compared. */
  async connect(): Promise<void> {
    for (const { core } of [this.#from, this.#to]) core.connect(HOST, this.#port.localPort, monotonicUs());
    for (let tries = 0; this.#metrics.get("handshakes_completed") < 2; tries++) {
      if (tries === 1000) throw new Error("the handshakes do not complete");
      const nowUs = monotonicUs();
      for (const { carrier } of [this.#from, this.#to]) {
        carrier.takeOuter(nowUs);
        carrier.flush(nowUs);
      }
      await this.#turn();
    }
    // What the far client opens of the handshake's own (its confirmation) is not counted.
    while (this.#take() > 0);
    this.#arrived = 0;
    this.#isOpening = true;
    this.load();
    await this.carry();
    this.count();
    this.#isOpening = false;
  }

  /** Seals `packets` packets at the near client and puts them into the relay's socket. */
  load(): void {
    const { carrier } = this.#from;
    for (let left = this.packets; left > 0; left -= BURST_CAPACITY) {
      for (let i = Math.min(left, BURST_CAPACITY); i > 0; i--) {
        const row = carrier.burst.grow(this.#packet.length, TO_TUNNEL);
        carrier.burst.bytes.set(this.#packet, carrier.burst.offset[row]);
      }
      carrier.ingestInner(monotonicUs());
    }
  }

  /** What is measured: the relay's driver takes in what `load` has put there and sends it on. */
  carry(): void | Promise<void> {
    if (this.#isNative) this.#driver.turn();
    else return this.#carryByEventLoop();
  }

  /** Empties the far client's socket; throws when a packet is missing. */
  count(): void {
    while (this.#take() > 0);
    if (this.#arrived !== this.packets) {
      throw new Error(
        `${this.packets - this.#arrived} of ${this.packets} packets are lost; is net.core.rmem_max small?`,
      );
    }
    this.#arrived = 0;
  }

  async close(): Promise<void> {
    await this.#driver.stop();
    this.#relay.close();
    for (const { core, port } of [this.#from, this.#to]) {
      core.close();
      await port.close();
    }
    await this.#port.close();
  }

  async #carryByEventLoop(): Promise<void> {
    while (this.#arrived < this.packets) {
      await turn();
      this.#take();
    }
  }

  #take(): number {
    const { core, port, carrier: { burst } } = this.#to;
    const taken = port.receive(burst);
    if (this.#isOpening) {
      core.ingest(burst, monotonicUs());
      for (let row = 0; row < taken; row++) {
        if (burst.next[row] !== TO_EXIT || burst.length[row] !== this.#packet.length) {
          throw new Error("a packet came out wrong");
        }
      }
    }
    burst.release();
    this.#arrived += taken;
    return taken;
  }

  async #turn(): Promise<void> {
    if (this.#isNative) this.#driver.turn();
    await turn();
  }
}
