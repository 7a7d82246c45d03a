/**
 * The client's data plane: core, port and driver over one exit, and the care that keeps it connected while networks come
 * and go. Invariant: the socket is bound to no address, so that the system chooses one for each path and a session
 * outlives a change of network; whatever was opened is closed by `close`. Touches nothing of the host.
 */
import { lookup } from "node:dns/promises";
import { loadNative, type Native } from "../../ffi/native.ts";
import { Client } from "../client.ts";
import { PortableAead } from "../codec/aead_portable.ts";
import { NativeAead, nativePrimitives } from "../codec/native.ts";
import { nodeCrypto } from "../codec/node_crypto.ts";
import { formatEndpoint, parseIp } from "../config.ts";
import type { Exit } from "../exit/exit.ts";
import { Driver, monotonicUs, wallClockOffsetUs } from "../io/driver.ts";
import { MmsgPort } from "../io/mmsg.ts";
import type { Port } from "../io/port.ts";
import { UdpPort } from "../io/udp.ts";
import { DROP, type Metrics } from "../metrics.ts";
import { WIREGUARD_LIMITS } from "../session/limits.ts";
import { Arena } from "../vector/arena.ts";
import type { LinkStatus } from "./connect_view.ts";
import { CommandError } from "./help.ts";
import type { Invitation } from "./invitation.ts";
import { keyFromText } from "./keys_text.ts";

const ARENA_SLOTS = 4096;
/** A relay that has not answered for this long though packets were sent is silent. */
const SILENT_MS = 15_000;
const RETRY_MIN_MS = 2000, RETRY_MAX_MS = 30_000;

export interface LinkOptions {
  invitation: Invitation;
  exit: Exit;
  metrics: Metrics;
  native: Native | string;
  /** Whether this thread has nothing else to do. */
  mayBlock: boolean;
  /** The interface that is not to be taken for a network: the tunnel's own. */
  ownDevice: string;
  say: (message: string) => void;
  /** The relay's name leads to another address now; the link follows when this has resolved. */
  onMoved: (address: string) => Promise<void>;
}

/** The kernels and ports of the native library, or the reason for the portable ones. */
export function nativeOrReason(): Native | string {
  return loadNative();
}

export class Link {
  readonly #o: LinkOptions;
  readonly #client: Client;
  readonly #driver: Driver;
  readonly #port: Port;
  readonly #startedMs = performance.now();
  #address: string;
  #networks = "";
  #retryMs = RETRY_MIN_MS;
  #triedMs = 0;
  #resolving = false;
  #received = 0;
  #asked = 0;
  #heardMs = performance.now();
  #before: { atMs: number; received: number; sent: number };

  /** @param address the relay's, as text. */
  constructor(options: LinkOptions, address: string) {
    this.#o = options;
    this.#address = address;
    const { invitation, native, metrics, exit } = options;
    const arena = new Arena(ARENA_SLOTS);
    const isNative = typeof native !== "string";
    const privateKey = keyFromText(invitation.privateKey)!;
    const inner = (isIpv6: boolean) =>
      invitation.addresses.find((one) => one.includes(":") === isIpv6)?.split("/")[0];
    this.#client = new Client({
      arena,
      metrics,
      primitives: isNative ? nativePrimitives(native) : nodeCrypto,
      makeAead: (rows) =>
        isNative
          ? new NativeAead(native, rows, DROP.forged)
          : new PortableAead(nodeCrypto, rows, DROP.forged),
      random: (bytes) => void crypto.getRandomValues(bytes as Uint8Array<ArrayBuffer>),
      limits: WIREGUARD_LIMITS,
      privateKey,
      ipv4: inner(false) ?? "0.0.0.0",
      ipv6: inner(true),
      mtu: invitation.mtu,
      maxConnections: 1,
      rateLimitPerIp: 1,
      worker: 0,
      unixOffsetUs: wallClockOffsetUs(),
    }, {
      publicKey: invitation.relayPublicKey,
      presharedKey: invitation.presharedKey,
      persistentKeepaliveS: invitation.keepaliveS,
    });
    privateKey.fill(0);
    this.#port = openPort(native, arena, metrics);
    this.#driver = new Driver(arena, this.#client, this.#port, exit, metrics, undefined, options.mayBlock);
    this.#before = { atMs: performance.now(), received: 0, sent: 0 };
  }

  /** The relay's address that is in use. */
  get address(): string {
    return this.#address;
  }

  start(): void {
    this.#networks = this.#networksNow();
    this.#connect();
    this.#driver.start();
  }

  /** Looks after the link and says how it is; to be called about once a second. */
  look(): LinkStatus {
    const { invitation, metrics, say } = this.#o;
    const nowMs = performance.now();
    while (this.#client.pollEvent()); // the snapshot says it all
    const [peer] = this.#client.peerSnapshots(monotonicUs());
    const asked = metrics.get("packets_to_tunnel") + metrics.get("handshake_initiations");
    if (peer.bytesReceived !== this.#received || !peer.connected) this.#asked = asked;
    if (peer.bytesReceived !== this.#received) this.#heardMs = nowMs;
    this.#received = peer.bytesReceived;
    if (asked === this.#asked) this.#heardMs = Math.max(this.#heardMs, nowMs - SILENT_MS / 2);
    const isSilent = nowMs - this.#heardMs > SILENT_MS;

    const networks = this.#networksNow();
    if (networks !== this.#networks) {
      this.#networks = networks;
      say("The network changed; the session goes on from the new address.");
      this.#retryMs = RETRY_MIN_MS;
      this.#connect();
    } else if (peer.connected && !isSilent) {
      this.#retryMs = RETRY_MIN_MS;
      this.#triedMs = nowMs;
    } else if (nowMs - this.#triedMs > this.#retryMs) {
      this.#retryMs = Math.min(RETRY_MAX_MS, 2 * this.#retryMs);
      this.#reconnect();
    }

    const elapsedS = Math.max(1e-3, (nowMs - this.#before.atMs) / 1000);
    const { bytesReceived, bytesSent } = peer;
    const status: LinkStatus = {
      server: formatEndpoint(invitation.endpoint),
      address: this.#address,
      state: !peer.connected ? "connecting" : isSilent ? "silent" : "connected",
      handshakeAgeS: peer.lastHandshakeAgeS,
      rttMs: peer.rttMs,
      lossRatio: peer.lossRatio,
      bytesReceived,
      bytesSent,
      rateReceived: Math.max(0, bytesReceived - this.#before.received) / elapsedS,
      rateSent: Math.max(0, bytesSent - this.#before.sent) / elapsedS,
      uptimeS: (nowMs - this.#startedMs) / 1000,
    };
    this.#before = { atMs: nowMs, received: bytesReceived, sent: bytesSent };
    return status;
  }

  /** Whether a session is up. */
  get isConnected(): boolean {
    return this.#client.peerSnapshots(monotonicUs())[0].connected;
  }

  async close(): Promise<void> {
    await this.#driver.stop();
    this.#client.close();
    await this.#port.close();
    await this.#o.exit.close();
  }

  #connect(): void {
    this.#triedMs = performance.now();
    this.#client.connect(this.#address, this.#o.invitation.endpoint.port, monotonicUs());
    this.#driver.turn();
  }

  /** Asks the resolver again, as the relay may have moved, and then the relay. */
  async #reconnect(): Promise<void> {
    if (this.#resolving) return;
    this.#resolving = true;
    this.#connect();
    try {
      const address = await resolveHost(this.#o.invitation.endpoint.host);
      if (address !== this.#address) {
        await this.#o.onMoved(address);
        this.#address = address;
        this.#connect();
      }
    } catch {
      // Without a network there is no resolver either; the last address stays.
    } finally {
      this.#resolving = false;
    }
  }

  /** This host's addresses as one text, which changes when one comes or goes. */
  #networksNow(): string {
    return Deno.networkInterfaces()
      .filter(({ name, address }) => name !== this.#o.ownDevice && !address.startsWith("fe80:"))
      .map(({ name, address }) => `${name} ${address}`).sort().join();
  }
}

/** One address of a host name, as text; IPv4 before IPv6. Throws CommandError. */
export async function resolveHost(host: string): Promise<string> {
  if (parseIp(host) !== undefined) return host;
  try {
    const found = await lookup(host, { all: true });
    const [best] = found.toSorted((a, b) => a.family - b.family);
    return best.address;
  } catch {
    throw new CommandError(
      `${host}: this name cannot be resolved; check its spelling and this machine's network, or name an address with --server`,
    );
  }
}

/** Bound to no address and a port of the system's choice. */
function openPort(native: Native | string, arena: Arena, metrics: Metrics): Port {
  const open = (host: string): Port =>
    typeof native === "string"
      ? new UdpPort({ host, port: 0, arena, onDrop: (reason) => metrics.drop(DROP[reason]) })
      : new MmsgPort({
        native,
        host,
        port: 0,
        onRefused: (datagrams) => metrics.drop(DROP.port_error, datagrams),
      });
  try {
    return open("::");
  } catch {
    return open("0.0.0.0"); // a system without IPv6
  }
}
