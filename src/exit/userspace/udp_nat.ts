/**
 * UDP without privilege: one socket per inner address and port, so that mapping and filtering are
 * endpoint-independent (RFC 4787 REQ-1, REQ-8: what consoles call an open NAT). Invariant: a socket belongs to
 * one inner endpoint and family, flows are bounded in all and per peer, and only outbound packets keep
 * a flow alive (REQ-6).
 */
import { DROP } from "../../metrics.ts";
import { DONE } from "../../vector/burst.ts";
import { formatAddress, isIpv4, parseAddress, type Prefix, prefixContains } from "../../wire/address.ts";
import {
  innerLength,
  ipVersion,
  readDestination,
  readSource,
  transportAt,
  UDP_HEADER_BYTES,
} from "../../wire/inner.ts";
import { isV6, type PortForward } from "../forward.ts";
import { ownerOf } from "./owner.ts";
import { buildUdp } from "./udp_packet.ts";

export interface UdpNatOptions {
  maxFlows: number;
  timeoutUs: number;
  /** Receives a whole inner packet for the tunnel, of up to 8 KB and headers. */
  emit: (packet: Uint8Array) => void;
  /** Counts datagrams from outside that were too long. */
  onLost: (datagrams: number) => void;
  log: (level: "debug" | "info" | "warning" | "error", message: string) => void;
}

/** The largest answer, bytes; EDNS asks for 4096, larger answers are rare. */
const ANSWER_MAX = 8192;
/** Datagrams of one flow that may wait for the system to send them. */
const UNSENT_MAX = 64;
/** What `pin` says. */
const EADDRINUSE = 98, EACCES = 13, EADDRNOTAVAIL = 99, EMFILE = 24;

interface Flow {
  key: string;
  owner: string;
  socket: Deno.DatagramConn;
  inner: Uint32Array;
  port: number;
  lastSentUs: number;
  /** Datagrams that the system has not sent yet. */
  unsent: number;
  /** Whether the client has sent to this host's loopback, which the policy must have opened. */
  usedLoopback: boolean;
  closed: boolean;
  /** A forward's port outside, which neither idle time nor want of room takes away. */
  pinned: number | undefined;
}

export class UdpNat {
  readonly #o: UdpNatOptions;
  /** In the order of last use: the first has been idle for longest. */
  readonly #flows = new Map<string, Flow>();
  readonly #perOwner = new Map<string, number>();
  readonly #words = new Uint32Array(8);
  #warned = false;

  constructor(options: UdpNatOptions) {
    this.#o = options;
  }

  get size(): number {
    return this.#flows.size;
  }

  /** Sends the payload of a whole inner UDP packet of a peer's row; returns DONE or a drop code. */
  send(packet: Uint8Array, peer: number, nowUs: number): number {
    const view = new DataView(packet.buffer, packet.byteOffset, packet.length);
    const length = innerLength(view, 0, packet.length);
    const segment = transportAt(view, 0, length);
    if (segment === 0 || segment + UDP_HEADER_BYTES > length) return DROP.malformed_inner;
    const size = view.getUint16(segment + 4);
    if (size < UDP_HEADER_BYTES || segment + size > length) return DROP.malformed_inner;
    readSource(view, 0, this.#words, 0);
    readDestination(view, 0, this.#words, 4);
    const port = view.getUint16(segment);
    const flow = this.#flow(ipVersion(view, 0), port, peer, nowUs);
    if (!flow || flow.unsent >= UNSENT_MAX) return DROP.exit_full;
    const target = {
      transport: "udp" as const,
      hostname: formatAddress(this.#words, 4),
      port: view.getUint16(segment + 2),
    };
    flow.usedLoopback ||= isLoopback(this.#words, 4);
    // A copy: the slot goes back to the arena before the system has taken the bytes.
    flow.unsent++;
    flow.socket.send(packet.slice(segment + UDP_HEADER_BYTES, segment + size), target).catch(() => {
      // An unreachable host or a similar error: UDP is unreliable, and the next packet may arrive.
    }).finally(() => flow.unsent--);
    return DONE;
  }

  expire(nowUs: number): void {
    for (const flow of this.#flows.values()) {
      if (flow.pinned !== undefined) continue;
      if (nowUs - flow.lastSentUs < this.#o.timeoutUs) break;
      this.#end(flow);
    }
  }

  /** Ends the flows of every inner address in the prefix. */
  forget(prefix: Prefix): void {
    for (const flow of [...this.#flows.values()]) if (prefixContains(prefix, flow.inner)) this.#end(flow);
  }

  close(): void {
    for (const flow of [...this.#flows.values()]) this.#end(flow);
  }

  #flow(version: number, port: number, peer: number, nowUs: number): Flow | undefined {
    const address = formatAddress(this.#words, 0);
    const key = `${address} ${port}`;
    let flow = this.#flows.get(key);
    if (!flow) {
      flow = this.#open(key, ownerOf(peer, address), version, port, nowUs);
      if (!flow) return undefined;
    }
    flow.lastSentUs = nowUs;
    this.#flows.delete(key);
    this.#flows.set(key, flow);
    return flow;
  }

  #open(key: string, owner: string, version: number, port: number, nowUs: number): Flow | undefined {
    const { maxFlows, log } = this.#o;
    const share = Math.max(1, maxFlows >> 2);
    if ((this.#perOwner.get(owner) ?? 0) >= share) this.#endIdlest((flow) => flow.owner === owner);
    if (this.#flows.size >= maxFlows) this.#makeRoom();
    let socket: Deno.DatagramConn;
    try {
      socket = bind(anyAddress(version), port);
    } catch (error) {
      if (!this.#warned) {
        log("warning", `no socket for a UDP flow: ${(error as Error).message}; raise ulimit -n`);
      }
      this.#warned = true;
      this.#makeRoom();
      return undefined;
    }
    this.#perOwner.set(owner, (this.#perOwner.get(owner) ?? 0) + 1);
    return this.#insert({ key, owner, socket, inner: this.#words.slice(0, 4), port, lastSentUs: nowUs });
  }

  #insert(
    about: Pick<Flow, "key" | "owner" | "socket" | "inner" | "port" | "lastSentUs">,
    pinned?: number,
  ): Flow {
    const flow: Flow = { ...about, unsent: 0, usedLoopback: false, closed: false, pinned };
    this.#flows.set(flow.key, flow);
    this.#listen(flow);
    return flow;
  }

  /**
   * Has strangers reach an inner address and port by a port of the host. Returns 0 or an errno: EADDRINUSE for a port that is a
   * program's or, by chance, another address's flow's; the flows are as before then.
   */
  pin({ address, port, outer }: PortForward): number {
    const key = `${address} ${port}`;
    const present = this.#flows.get(key);
    if (present?.pinned === outer) return 0;
    const inner = parseAddress(address)!;
    const hasPort = ({ socket, inner }: Flow) =>
      (socket.addr as Deno.NetAddr).port === outer && isIpv4(inner) !== isV6(address);
    const holder = this.#flows.values().find(hasPort);
    if (holder) {
      // Strangers know who is behind it, and whoever asks for a port must not become them.
      const isOwn = holder.inner.every((word, i) => word === inner[i]);
      if (holder.pinned === undefined && !isOwn) return EADDRINUSE;
      if (present && present !== holder) this.#end(present);
      // Its socket changes hands: one that is closed keeps its port for a moment.
      this.#disown(holder);
      Object.assign(holder, { key, owner: "", inner, port, pinned: outer, usedLoopback: false });
      this.#flows.set(key, holder);
      return 0;
    }
    try {
      const hostname = anyAddress(isV6(address) ? 6 : 4);
      const socket = Deno.listenDatagram({ transport: "udp", hostname, port: outer });
      if (present) this.#end(present);
      this.#insert({ key, owner: "", socket, inner, port, lastSentUs: 0 }, outer);
      return 0;
    } catch (error) {
      if (error instanceof Deno.errors.AddrInUse) return EADDRINUSE;
      if (error instanceof Deno.errors.PermissionDenied) return EACCES;
      return isV6(address) ? EADDRNOTAVAIL : EMFILE;
    }
  }

  unpin({ address, port }: PortForward): void {
    const flow = this.#flows.get(`${address} ${port}`);
    if (flow?.pinned !== undefined) this.#end(flow);
  }

  /** Ends the idlest flow of the owner with most flows, so that one client cannot displace another's few. */
  #makeRoom(): void {
    let greediest = "", most = 0;
    for (const [owner, flows] of this.#perOwner) if (flows > most) [greediest, most] = [owner, flows];
    this.#endIdlest((flow) => flow.owner === greediest);
  }

  #endIdlest(matches: (flow: Flow) => boolean): void {
    for (const flow of this.#flows.values()) {
      if (flow.pinned !== undefined || !matches(flow)) continue;
      this.#end(flow);
      return;
    }
  }

  #end(flow: Flow): void {
    if (flow.closed) return;
    flow.closed = true;
    flow.socket.close();
    this.#disown(flow);
  }

  #disown(flow: Flow): void {
    this.#flows.delete(flow.key);
    if (flow.pinned !== undefined) return;
    const left = (this.#perOwner.get(flow.owner) ?? 1) - 1;
    if (left > 0) this.#perOwner.set(flow.owner, left);
    else this.#perOwner.delete(flow.owner);
  }

  async #listen(flow: Flow): Promise<void> {
    // The system cuts what does not fit; one byte more tells a cut datagram from one of the greatest size.
    const buffer = new Uint8Array(ANSWER_MAX + 1);
    let streak = 0;
    while (!flow.closed) {
      try {
        const [payload, from] = await flow.socket.receive(buffer);
        const { hostname, port } = from as Deno.NetAddr;
        const remote = parseAddress(hostname);
        const sameFamily = remote !== undefined && isIpv4(remote) === isIpv4(flow.inner);
        // Every outside host may answer (endpoint-independent filtering); programs of this host only when addressed before.
        const isMeant = sameFamily && (flow.usedLoopback || !isLoopback(remote, 0));
        if (isMeant && payload.length > ANSWER_MAX) this.#o.onLost(1);
        else if (isMeant) this.#answer(flow, remote, port, payload);
        // One busy sender must not keep the event loop from its other work.
        if (++streak % 64 === 0) await new Promise((resolve) => setTimeout(resolve, 0));
      } catch {
        if (!flow.closed) await new Promise((resolve) => setTimeout(resolve, 10));
      }
    }
  }

  /** Hands on a datagram that came from outside. */
  #answer(flow: Flow, remote: Uint32Array, port: number, payload: Uint8Array): void {
    this.#o.emit(buildUdp(remote, port, flow.inner, flow.port, payload));
  }
}

/** 127.0.0.0/8 or ::1, at words[at..at+3]. */
function isLoopback(words: Uint32Array, at: number): boolean {
  if (words[at] !== 0 || words[at + 1] !== 0) return false;
  return words[at + 2] === 0xffff ? words[at + 3] >>> 24 === 127 : words[at + 2] === 0 && words[at + 3] === 1;
}

const anyAddress = (version: number) => version === 4 ? "0.0.0.0" : "::";

/** A socket on the same port as inside where that is free (RFC 4787 §4.2.1), else on any. */
function bind(hostname: string, port: number): Deno.DatagramConn {
  if (port >= 1024) {
    try {
      return Deno.listenDatagram({ transport: "udp", hostname, port });
    } catch (error) {
      if (!(error instanceof Deno.errors.AddrInUse)) throw error;
    }
  }
  return Deno.listenDatagram({ transport: "udp", hostname, port: 0 });
}
