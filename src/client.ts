/**
 * The core in the client's role: one relay as the only peer, to which every inner packet goes and from which every
 * inner packet is taken, over OxTunnel, or over WireGuard when told to. Sans-IO, as tunnel.ts. Invariant: nothing is
 * sent before `connect` has named the relay's endpoint.
 */
import { copyTicket, type Ticket } from "./session/oxtunnel/tickets.ts";
import type { OxSession } from "./session/oxtunnel/session.ts";
import type { HintedFlows } from "./session/oxtunnel/hints.ts";
import { OXTUNNEL } from "./session/table.ts";
import { type Vitals, vitalsOf } from "./session/vitals.ts";
import { Tunnel, type TunnelOptions } from "./tunnel.ts";
import { NONE } from "./vector/arena.ts";
import type { Burst } from "./vector/burst.ts";
import { parseAddress } from "./wire/address.ts";
import { CLOSE_SHUTDOWN } from "./wire/control.ts";
import { type Parameters, REFUSED_FULL } from "./wire/parameters.ts";

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
  /** Ask how far the relay is, and for no session (PROTOCOL §11). */
  isProbe?: boolean;
  /** What to speak; "oxtunnel" needs `makeDatagramAead`, and is the default where there is one. */
  protocol?: "oxtunnel" | "wireguard";
  /** What `Client.ticket` gave when this device was last connected to the same relay; copied. Secret. */
  ticket?: Ticket;
}

/** How long a handshake waits for a packet to carry, at most: less than a person notices where nobody sends anything. */
export const FIRST_PACKET_US = 250_000;

export class Client extends Tunnel {
  readonly #upstream: string;
  readonly #isProbe: boolean;

  /** Throws, with the reason, when a key or prefix of `upstream` is malformed. */
  constructor(options: TunnelOptions, upstream: Upstream) {
    super(options, 1, undefined);
    this.#upstream = upstream.publicKey;
    this.#isProbe = upstream.isProbe ?? false;
    const { publicKey, presharedKey, allowedIps = ["0.0.0.0/0", "::/0"], persistentKeepaliveS = 0 } =
      upstream;
    const isOxtunnel = options.makeDatagramAead !== undefined;
    const { protocol = isOxtunnel ? "oxtunnel" : "wireguard" } = upstream;
    if (protocol === "oxtunnel" && !isOxtunnel) throw new Error("client: OxTunnel needs its kernel");
    this.addPeer({ name: "relay", publicKey, presharedKey, allowedIps }, persistentKeepaliveS);
    this.associations.oxtunnel?.stayPut();
    if (protocol !== "oxtunnel") return;
    const peer = this.peers.find(publicKey)!;
    this.peers.protocol[peer.id] = OXTUNNEL;
    peer.ticket = copyTicket(upstream.ticket);
  }

  protected override say(): Parameters {
    return this.#isProbe ? { probe: true } : {};
  }

  /** As the tunnel's. A client has no outer address of its own to keep: the system chooses one for each path. */
  override ingest(burst: Burst, nowUs: number): void {
    burst.local.fill(0, 0, 4 * burst.count);
    super.ingest(burst, nowUs);
  }

  /**
   * Names the relay's outer endpoint, first or anew, and starts a handshake. At another endpoint is another relay, or the
   * same one that was moved: sessions end, and packets wait for the next. Throws when it is no address.
   * @param isPatient whether the handshake may wait FIRST_PACKET_US for the first packet that is to be sent: with a ticket it
   * carries that packet (PROTOCOL §16). Without a ticket, or while a session can carry packets, it begins now.
   */
  connect(address: string, port: number, nowUs: number, isPatient = false): void {
    const words = parseAddress(address);
    const peer = this.peers.find(this.#upstream);
    if (!peer) throw new Error("connect: this client was closed");
    if (!words || !Number.isInteger(port) || port < 1 || port > 65535) {
      throw new Error(`connect: "${address}" port ${port} is not an address and a UDP port`);
    }
    const { paths } = this.associations;
    const present = paths.of(peer.id);
    if (paths.port[present] !== 0 && !paths.is(present, words, 0, port)) this.leave(peer);
    paths.setOf(peer.id, words, port);
    this.associations.oxtunnel?.onEndpointSet(peer.id);
    if (isPatient && peer.ticket && this.associations.epochs.sendable(peer.id, nowUs) === NONE) {
      this.associations.outbox.initiateWithPacket(peer, nowUs + FIRST_PACKET_US);
      return;
    }
    this.associations.outbox.initiate(peer.id);
    this.associations.outbox.startKeepalive(peer, nowUs);
  }

  /**
   * Takes the session to another endpoint of the relay: it goes on at the old one until the new one has answered.
   * Without a session that could it is `connect`. Throws when it is no address.
   */
  reach(address: string, port: number, nowUs: number): void {
    const words = parseAddress(address);
    const peer = this.peers.find(this.#upstream);
    if (words && peer && this.associations.oxtunnel?.probe(peer.id, words, port, nowUs)) return;
    this.connect(address, port, nowUs);
  }

  /** What the relay said of itself in the last OxTunnel handshake: leases, MTU, resolvers, its name. */
  get told(): Parameters | undefined {
    return this.peers.find(this.#upstream)?.told;
  }

  /**
   * The relay's last ticket, copied; secret, and good for hours. With it a client, this one or one that is made later,
   * sends its first packets together with its initiation.
   */
  get ticket(): Ticket | undefined {
    return copyTicket(this.peers.find(this.#upstream)?.ticket);
  }

  /** Why the relay refused the last OxTunnel handshake, if it did; REFUSED_* and seconds until a retry makes sense. */
  get refusal(): Parameters["refused"] {
    return this.peers.find(this.#upstream)?.refused;
  }

  /** How the present OxTunnel session fares; undefined where there is none. */
  get vitals(): Vitals | undefined {
    const session = this.#session;
    return session && vitalsOf(session, this.table);
  }

  /** Has a ping sent, so that `vitals` is fresh; nothing without an OxTunnel session. */
  ping(): void {
    this.#session?.ping();
  }

  /** The answer to a probe, once: its round trip in microseconds, and whether a session would have been refused too. */
  takeProbeAnswer(): { rttUs: number; isFull: boolean } | undefined {
    const peer = this.peers.find(this.#upstream);
    if (!peer?.refused) return undefined;
    const answer = { rttUs: peer.handshakeRttUs, isFull: peer.refused.reason === REFUSED_FULL };
    peer.refused = undefined;
    this.leave(peer);
    return answer;
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

  /** The largest inner packet that goes to the relay in one piece now, bytes; also while the path's size is searched for. */
  get innerMtu(): number {
    const session = this.#session;
    return session ? this.associations.oxtunnel!.sessions.innerMtu(session.row) : this.mtu;
  }

  /** Tells an OxTunnel session that this host has another address or network: it goes on there at once. */
  moved(): void {
    const peer = this.peers.find(this.#upstream);
    if (peer) this.associations.oxtunnel?.moved(peer.id);
  }

  /**
   * Wishes a class (CLASS_*) for flows, here and, in OxTunnel, at the relay; `undefined` takes the wish back. What was wished
   * first comes first. False when there are 64 others.
   */
  hint(flows: HintedFlows, trafficClass: number | undefined): boolean {
    const { oxtunnel } = this.associations;
    const peer = this.peers.find(this.#upstream);
    if (!oxtunnel || !peer || !oxtunnel.sessions.hints.setOwn(flows, trafficClass)) return false;
    const session = this.peers.current[peer.id];
    if (session !== NONE) oxtunnel.sessions.of[session]?.hints.tell(flows, trafficClass);
    return true;
  }

  /** Closes an OxTunnel session so that the relay knows; datagrams of the next 200 ms say so. */
  disconnect(nowUs: number): void {
    const peer = this.peers.find(this.#upstream);
    if (peer) this.associations.oxtunnel?.close(peer.id, CLOSE_SHUTDOWN, 0, nowUs);
  }

  get #session(): OxSession | undefined {
    const peer = this.peers.find(this.#upstream);
    const row = peer === undefined ? NONE : this.peers.current[peer.id];
    return row === NONE ? undefined : this.associations.oxtunnel?.sessions.of[row];
  }
}
