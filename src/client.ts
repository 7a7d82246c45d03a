/**
 * The core in the client's role: one relay as the only peer, to which every inner packet goes and from which every
 * inner packet comes, over OxTunnel, or over WireGuard on request. Sans-IO, as tunnel.ts. Invariant: nothing is
 * sent before `connect` has named the relay's endpoint.
 */
import { copyTicket, type Ticket } from "./session/oxtunnel/tickets.ts";
import type { OxSession } from "./session/oxtunnel/session.ts";
import type { HintedFlows } from "./session/oxtunnel/hints.ts";
import { OXTUNNEL } from "./session/table.ts";
import { type Vitals, vitalsOf } from "./session/vitals.ts";
import type { PathSnapshot } from "./session/peer_record.ts";
import { Tunnel } from "./tunnel.ts";
import type { TunnelOptions } from "./tunnel_options.ts";
import { NONE } from "./vector/arena.ts";
import type { Burst } from "./vector/burst.ts";
import { parseAddress } from "./wire/address.ts";
import { CLOSE_SHUTDOWN } from "./wire/control.ts";
import { isBar, type Parameters, REFUSED_FULL } from "./wire/parameters.ts";

/** What a client knows of its relay. */
export interface Upstream {
  /** 44 characters of base64. */
  publicKey: string;
  /** 44 characters of base64. Secret. */
  presharedKey?: string;
  /** Inner prefixes behind the relay; everything by default. */
  allowedIps?: string[];
  /** Seconds between packets that keep a NAT open; 0, the default, for none. */
  persistentKeepaliveS?: number;
  /** Probe the relay's round trip without asking for a session (PROTOCOL §11). */
  isProbe?: boolean;
  /** The protocol; "oxtunnel" needs `makeDatagramAead`, and is the default where that is given. */
  protocol?: "oxtunnel" | "wireguard";
  /** The value of `Client.ticket` from this device's last connection to the same relay; copied. Secret. */
  ticket?: Ticket;
}

/** The highest number of a door, as there are numbers for paths. */
const DOOR_MAX = 7;

/** The longest wait of a handshake for a packet to carry: shorter than a person notices where no packet is sent. */
export const FIRST_PACKET_US = 250_000;

export class Client extends Tunnel {
  readonly #upstream: string;
  readonly #isProbe: boolean;
  /** The open doors beside the first: bit d for door d. */
  #doors = 0;

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

  /**
   * As the tunnel's. A client keeps no outer address of its own: the system chooses one for each path, but for the door
   * (io/multi_port.ts) through which a datagram came, in the last word. Without doors that word is of an address, such as fd00::2.
   */
  override ingest(burst: Burst, nowUs: number): void {
    const { local, count } = burst;
    for (let at = 0; at < 4 * count; at += 4) {
      local[at] = local[at + 1] = local[at + 2] = 0;
      const door = local[at + 3];
      if (door > DOOR_MAX || (this.#doors >> door & 1) === 0) local[at + 3] = 0;
    }
    super.ingest(burst, nowUs);
  }

  /**
   * Sets the relay's outer endpoint and starts a handshake. Another endpoint than before means another relay, or a relay
   * that moved: sessions end, and packets wait for the next session. Throws when `endpoint` is no address.
   * @param isPatient whether the handshake may wait FIRST_PACKET_US for the first packet to send: with a ticket the
   * handshake carries that packet (PROTOCOL §16). Without a ticket, or while a session can carry packets, the handshake begins now.
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
   * Moves the session to another endpoint of the relay: packets go to the old endpoint until the new one has answered.
   * Without a session that can move this is `connect`. Throws when `endpoint` is no address.
   */
  reach(address: string, port: number, nowUs: number): void {
    const words = parseAddress(address);
    const peer = this.peers.find(this.#upstream);
    if (words && peer && this.associations.oxtunnel?.probe(peer.id, words, port, nowUs)) return;
    this.connect(address, port, nowUs);
  }

  /** The relay's parameters in the last OxTunnel handshake: leases, MTU, resolvers, its name. */
  get told(): Parameters | undefined {
    return this.peers.find(this.#upstream)?.told;
  }

  /**
   * The relay's last ticket, copied. Secret; valid for up to 12 hours. With the ticket this client, or one that is made later,
   * sends its first packets together with its initiation.
   */
  get ticket(): Ticket | undefined {
    return copyTicket(this.peers.find(this.#upstream)?.ticket);
  }

  /** The relay's refusal of the last OxTunnel handshake, if any: REFUSED_* and seconds until a retry makes sense. */
  get refusal(): Parameters["refused"] {
    return this.peers.find(this.#upstream)?.refused;
  }

  /** Round trip, losses and repair of the present OxTunnel session; undefined without one. */
  get vitals(): Vitals | undefined {
    const session = this.#session;
    return session && vitalsOf(session, this.table);
  }

  /** The paths of the present session; empty where it has one. */
  get paths(): PathSnapshot[] {
    return this.pathsOn(this.#session?.row ?? NONE);
  }

  /** Sends a ping, which refreshes `vitals`; without an OxTunnel session does nothing. */
  ping(): void {
    this.#session?.ping();
  }

  /**
   * The answer to a probe, given once: its round trip in microseconds, whether a session would have been refused too, and where
   * the relay saw the probe come from, which older relays do not tell.
   */
  takeProbeAnswer(): { rttUs: number; isRefused: boolean; seen?: Parameters["seen"] } | undefined {
    const peer = this.peers.find(this.#upstream);
    if (!peer?.refused) return undefined;
    const { refused, seen, handshakeRttUs: rttUs } = peer;
    const answer = {
      rttUs,
      isRefused: refused.reason === REFUSED_FULL || isBar(refused.reason),
      ...(seen && { seen }),
    };
    peer.refused = peer.seen = undefined;
    this.leave(peer);
    return answer;
  }

  /**
   * The size that the path to the relay takes (PROTOCOL §17): the inner MTU in bytes, undefined during a search, and
   * whether that is less than every path should take.
   */
  get path(): { innerMtu?: number; isNarrow: boolean } {
    const peer = this.peers.find(this.#upstream);
    const sessions = this.associations.oxtunnel?.sessions;
    const session = peer && sessions?.of[this.peers.current[peer.id]];
    if (!sessions || !session) return { isNarrow: false };
    const { isSettled, isNarrow } = session.size;
    return { innerMtu: isSettled && !isNarrow ? sessions.innerMtu(session.row) : undefined, isNarrow };
  }

  /** The largest inner packet, in bytes, that now goes to the relay unfragmented; valid during a search too. */
  get innerMtu(): number {
    const session = this.#session;
    return session ? this.associations.oxtunnel!.sessions.innerMtu(session.row) : this.mtu;
  }

  /** Tells an OxTunnel session that this host has another address or network: the session continues there at once. */
  moved(): void {
    const peer = this.peers.find(this.#upstream);
    if (peer) this.associations.oxtunnel?.moved(peer.id);
  }

  /**
   * Opens a path of the session through a further door of this host, 1 to DOOR_MAX: an interface beside the one that the system
   * chooses. Call it again when the door leads to another network. The path is used once the relay has answered there.
   * @param isMetered whether what goes there costs.
   */
  addDoor(door: number, isMetered: boolean, nowUs: number): void {
    const peer = this.peers.find(this.#upstream);
    if (!(door >= 1 && door <= DOOR_MAX)) throw new RangeError(`addDoor: no door ${door}`);
    this.#doors |= 1 << door;
    if (peer) this.associations.oxtunnel?.addDoor(peer.id, door, isMetered, nowUs);
  }

  /** Closes the path through the door. */
  dropDoor(door: number): void {
    this.#doors &= ~(1 << door);
    const peer = this.peers.find(this.#upstream);
    if (peer) this.associations.oxtunnel?.dropDoor(peer.id, door);
  }

  /** Says whether what goes through the door costs, from now on; 0 is the door of the first path. The relay is told. */
  setMetered(door: number, isMetered: boolean): void {
    const peer = this.peers.find(this.#upstream);
    if (peer) this.associations.oxtunnel?.price(peer.id, door, isMetered);
  }

  /** Says which classes (bit c for CLASS_* c) go on a second path too, to the relay and from it; later paths tell it. */
  setCopied(classes: number): void {
    this.associations.oxtunnel?.copy(classes);
  }

  /**
   * Requests a class (CLASS_*) for flows, here and, in OxTunnel, at the relay; `undefined` withdraws the request. Earlier
   * requests take precedence. False when there are 64 others.
   */
  hint(flows: HintedFlows, trafficClass: number | undefined): boolean {
    const { oxtunnel } = this.associations;
    const peer = this.peers.find(this.#upstream);
    if (!oxtunnel || !peer || !oxtunnel.sessions.hints.setOwn(flows, trafficClass)) return false;
    const session = this.peers.current[peer.id];
    if (session !== NONE) oxtunnel.sessions.of[session]?.hints.tell(flows, trafficClass);
    return true;
  }

  /** Closes an OxTunnel session; datagrams of the next 200 ms tell the relay. */
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
