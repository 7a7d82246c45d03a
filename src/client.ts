/**
 * The core in the client's role: one relay as the only peer, to which every inner packet goes and from which every
 * inner packet is taken, over OxTunnel, or over WireGuard when told to. Sans-IO, as tunnel.ts. Invariant: nothing is
 * sent before `connect` has named the relay's endpoint.
 */
import { OXTUNNEL } from "./session/table.ts";
import { Tunnel, type TunnelOptions } from "./tunnel.ts";
import type { Burst } from "./vector/burst.ts";
import { parseAddress } from "./wire/address.ts";
import { CLOSE_SHUTDOWN } from "./wire/control.ts";
import type { Parameters } from "./wire/parameters.ts";

/** The relay as its client knows it. */
export interface Upstream {
  /** 44 characters of base64. */
  publicKey: string;
  /** 44 characters of base64. Secret. */
  presharedKey?: string;
  /** Inner prefixes that are reached through it; everything by default. */
  allowedIps?: string[];
  /** Seconds between packets that keep a NAT open; 0, the default, for none. */
  persistentKeepaliveS?: number;
  /** What to speak; "oxtunnel" needs `makeDatagramAead`, and is the default where there is one. */
  protocol?: "oxtunnel" | "wireguard";
}

export class Client extends Tunnel {
  readonly #upstream: string;

  /** Throws, with the reason, when a key or prefix of `upstream` is malformed. */
  constructor(options: TunnelOptions, upstream: Upstream) {
    super(options, 1, undefined);
    this.#upstream = upstream.publicKey;
    const { publicKey, presharedKey, allowedIps = ["0.0.0.0/0", "::/0"], persistentKeepaliveS = 0 } =
      upstream;
    const isOxtunnel = options.makeDatagramAead !== undefined;
    const { protocol = isOxtunnel ? "oxtunnel" : "wireguard" } = upstream;
    if (protocol === "oxtunnel" && !isOxtunnel) throw new Error("client: OxTunnel needs its kernel");
    this.addPeer({ name: "relay", publicKey, presharedKey, allowedIps }, persistentKeepaliveS);
    if (protocol === "oxtunnel") this.peers.protocol[this.peers.find(publicKey)!.id] = OXTUNNEL;
  }

  /** As the tunnel's. A client has no outer address of its own to keep: the system chooses one for each path. */
  override ingest(burst: Burst, nowUs: number): void {
    burst.local.fill(0, 0, 4 * burst.count);
    super.ingest(burst, nowUs);
  }

  /** Names the relay's outer endpoint, first or anew, and starts a handshake. Throws when it is no address. */
  connect(address: string, port: number, nowUs: number): void {
    const words = parseAddress(address);
    const peer = this.peers.find(this.#upstream);
    if (!peer) throw new Error("connect: this client was closed");
    if (!words || !Number.isInteger(port) || port < 1 || port > 65535) {
      throw new Error(`connect: "${address}" port ${port} is not an address and a UDP port`);
    }
    this.associations.setEndpoint(peer.id, words, port);
    this.associations.initiate(peer.id);
    this.associations.startKeepalive(peer, nowUs);
  }

  /** What the relay said of itself in the last OxTunnel handshake: leases, MTU, resolvers, its name. */
  get told(): Parameters | undefined {
    return this.peers.find(this.#upstream)?.told;
  }

  /** Why the relay refused the last OxTunnel handshake, if it did; REFUSED_* and seconds until a retry makes sense. */
  get refusal(): Parameters["refused"] {
    return this.peers.find(this.#upstream)?.refused;
  }

  /**
   * What the path to the relay takes (PROTOCOL §17): the inner MTU in bytes, undefined while it is searched for, and
   * whether it is less than every path should take.
   */
  get path(): { innerMtu?: number; isNarrow: boolean } {
    const peer = this.peers.find(this.#upstream);
    const sessions = this.associations.oxtunnel?.sessions;
    const session = peer && sessions?.of[this.peers.current[peer.id]];
    if (!sessions || !session) return { isNarrow: false };
    const { isSettled, isNarrow } = session.size;
    return { innerMtu: isSettled && !isNarrow ? sessions.innerMtu(session.row) : undefined, isNarrow };
  }

  /** Tells an OxTunnel session that this host has another address or network: it goes on there at once. */
  moved(): void {
    const peer = this.peers.find(this.#upstream);
    if (peer) this.associations.moved(peer.id);
  }

  /** Closes an OxTunnel session so that the relay knows; datagrams of the next 200 ms say so. */
  disconnect(nowUs: number): void {
    const peer = this.peers.find(this.#upstream);
    if (peer) this.associations.close(peer.id, CLOSE_SHUTDOWN, 0, nowUs);
  }
}
