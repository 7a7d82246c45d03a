/**
 * The client's data plane: core, port and driver over one exit, in the thread that makes it. Invariant: the socket is
 * bound to no address, so that the system chooses one for each path and a session outlives a change of network; whatever
 * was opened is closed by `close`. Decides nothing: to whom and when is the link's matter.
 */
import type { Native } from "../../ffi/native.ts";
import { Client } from "../client.ts";
import { PortableAead } from "../codec/aead_portable.ts";
import { PortableDatagramAead } from "../codec/datagram_portable.ts";
import { useBlake2s } from "../codec/hash.ts";
import {
  NativeAead,
  nativeBlake2s,
  NativeDatagramAead,
  nativePrimitives,
  preferredAeads,
} from "../codec/native.ts";
import { nodeCrypto } from "../codec/node_crypto.ts";
import type { Exit } from "../exit/exit.ts";
import { Driver, monotonicUs, wallClockOffsetUs } from "../io/driver.ts";
import { MmsgPort } from "../io/mmsg.ts";
import type { Port } from "../io/port.ts";
import { UdpPort } from "../io/udp.ts";
import { DROP, Metrics } from "../metrics.ts";
import type { PeerSnapshot } from "../session/peer_record.ts";
import { WIREGUARD_LIMITS } from "../session/limits.ts";
import { Arena } from "../vector/arena.ts";
import type { Invitation } from "./invitation.ts";
import { keyFromText } from "./keys_text.ts";

const ARENA_SLOTS = 4096;
/** How long the relay is told of the end of a session (PROTOCOL R57). */
const FAREWELL_MS = 250;

/** How the relay is seen from here. */
export interface PlaneState {
  relay: PeerSnapshot;
  /** Packets for the relay and handshakes begun, which it ought to answer. */
  asked: number;
  /** The largest inner packet that the path takes, bytes; absent while that is searched for. */
  innerMtu?: number;
  /** Whether the path takes not even datagrams of 1200 bytes. */
  isNarrow: boolean;
}

/** A data plane in this thread or another. */
export interface LinkPlane {
  /** Names the relay's address, first or anew, and starts a handshake. */
  connect(address: string, port: number): void;
  look(): Promise<PlaneState>;
  close(): Promise<void>;
}

export class LocalPlane implements LinkPlane {
  readonly #client: Client;
  readonly #driver: Driver;
  readonly #port: Port;
  readonly #exit: Exit;
  readonly #metrics = new Metrics();

  /** Starts at once. Where port and exit have descriptors, this thread serves nothing else from here on. */
  constructor(invitation: Invitation, exit: Exit, native: Native | string) {
    const metrics = this.#metrics;
    const arena = new Arena(ARENA_SLOTS);
    const isNative = typeof native !== "string";
    const privateKey = keyFromText(invitation.privateKey)!;
    const isOxtunnel = invitation.protocol === "oxtunnel";
    if (isNative) useBlake2s(nativeBlake2s(native));
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
      ...(isOxtunnel
        ? {
          makeDatagramAead: (rows: number) =>
            isNative
              ? new NativeDatagramAead(native, rows, DROP.forged)
              : new PortableDatagramAead(rows, DROP.forged),
          ...(isNative ? { aeads: preferredAeads(native) } : {}),
        }
        : {}),
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
      ...(invitation.routes.length === 0 ? {} : { allowedIps: invitation.routes }),
      persistentKeepaliveS: invitation.keepaliveS,
      protocol: invitation.protocol,
    });
    privateKey.fill(0);
    this.#exit = exit;
    this.#port = openPort(native, arena, metrics);
    this.#driver = new Driver(arena, this.#client, this.#port, exit, metrics);
    this.#driver.start();
  }

  connect(address: string, port: number): void {
    this.#client.connect(address, port, monotonicUs());
    this.#driver.turn();
  }

  look(): Promise<PlaneState> {
    while (this.#client.pollEvent()); // the snapshot says it all
    const [relay] = this.#client.peerSnapshots(monotonicUs());
    const asked = this.#metrics.get("packets_to_tunnel") + this.#metrics.get("handshake_initiations");
    return Promise.resolve({ relay, asked, ...this.#client.path });
  }

  async close(): Promise<void> {
    this.#client.disconnect(monotonicUs());
    this.#driver.turn();
    await new Promise((resolve) => setTimeout(resolve, FAREWELL_MS));
    await this.#driver.stop();
    this.#client.close();
    await this.#port.close();
    await this.#exit.close();
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
