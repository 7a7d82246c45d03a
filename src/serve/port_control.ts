/**
 * Port control at the relay (RFC 6887, RFC 6886): peers open ports of the host to themselves, at the relay's own inner address.
 * Invariant: a peer has at most `port_mappings` ports, only to addresses of its own, and none that a record has; leases end with
 * their time and their peer, outlive a relay worker, and are gone after a restart of the relay, which the epoch tells. The tun exit's
 * requests come by sockets of this thread, the userspace exit's by the Workers.
 */
import type { PortForward } from "../exit/forward.ts";
import type { ControlDatagram } from "../exit/exit.ts";
import { Asked } from "../exit/mapping/asked.ts";
import { type Lease, Leases } from "../exit/mapping/leases.ts";
import { PortControlServer } from "../exit/mapping/server.ts";
import { every } from "../io/every.ts";
import { type Forward, parseForward } from "../process/forward_text.ts";
import { logger } from "../process/logging.ts";
import type { PeerRecord } from "../session/peer_record.ts";
import {
  formatAddress,
  isIpv4,
  parseAddress,
  parsePrefix,
  type Prefix,
  prefixContains,
} from "../wire/address.ts";
import { PORT_CONTROL_PORT } from "../wire/port_control.ts";
import { soleAddresses } from "./forwards.ts";
import type { WorkerPool } from "./worker_pool.ts";

const EXPIRE_MS = 1000;

export interface PortControlOptions {
  pool: Pick<WorkerPool, "peers" | "setForwards" | "refused" | "onPortControl">;
  /** Ports that a peer may have; asked at every request. */
  most(): number;
  /** The relay's inner addresses, where the host's kernel has them. */
  listen: readonly string[];
  /** The host's addresses as the internet has them, the best first. */
  outside(): readonly string[];
}

/** Peers by what they are looked up by at every request, read once for each list of peers. */
class KnownPeers {
  readonly #single = new Map<string, PeerRecord>();
  readonly #networks: { prefix: Prefix; peer: PeerRecord }[] = [];
  readonly #forwards: Record<PortForward["protocol"], Forward[]> = { udp: [], tcp: [] };

  constructor(readonly peers: readonly PeerRecord[]) {
    for (const peer of peers) {
      for (const text of peer.allowedIps) {
        const prefix = parsePrefix(text)!;
        if (prefix.bits === 128) this.#single.set(formatAddress(prefix.address), peer);
        else this.#networks.push({ prefix, peer });
      }
      for (const text of peer.forwards ?? []) {
        const forward = parseForward(text)!;
        this.#forwards[forward.protocol].push(forward);
      }
    }
    this.#networks.sort((one, other) => other.prefix.bits - one.prefix.bits);
  }

  /** The peer whose address it is, by the longest prefix. */
  of(text: string): PeerRecord | undefined {
    const address = parseAddress(text);
    return address && (this.#single.get(formatAddress(address)) ??
      this.#networks.find(({ prefix }) => prefixContains(prefix, address))?.peer);
  }

  /** Whether a record has the port. */
  hasPort(protocol: PortForward["protocol"], outer: number): boolean {
    return this.#forwards[protocol].some(({ low, high }) => low <= outer && outer <= high);
  }
}

export class PortControl {
  readonly #o: PortControlOptions;
  readonly #leases: Leases;
  readonly #server: PortControlServer;
  readonly #sockets = new Map<string, Deno.DatagramConn>();
  /** Addresses that cannot be bound, as without IPv6. */
  readonly #failed = new Set<string>();
  readonly #stop: () => void;
  readonly #asked = new Asked<string>(true);
  #knownPeers = new KnownPeers([]);

  constructor(options: PortControlOptions) {
    this.#o = options;
    const startedMs = performance.now();
    const outside = (address: string) => this.#outside(address);
    this.#leases = new Leases({
      most: options.most,
      isTaken: (protocol, outer) => this.#known.hasPort(protocol, outer),
      fixed: (address, protocol, port) => this.#fixed(address, protocol, port),
      apply: (leases) => this.#apply(leases),
      outside,
      nowS: () => (performance.now() - startedMs) / 1000,
    });
    this.#server = new PortControlServer(this.#leases, outside);
    options.pool.onPortControl((request) => this.#answer(request));
    const keys = () => new Set(options.pool.peers.map(({ publicKey }) => publicKey));
    this.#stop = every(
      EXPIRE_MS,
      () => {
        this.#listen();
        if (this.#leases.all.length === 0) return;
        const present = keys();
        this.#leases.expire((lease) =>
          !present.has(lease.owner) || options.most() === 0 || this.#isOfRecord(lease)
        );
      },
      ({ message }) => logger("ports").warn("{message}", { message }),
    );
    this.#listen();
  }

  close(): void {
    this.#stop();
    for (const socket of this.#sockets.values()) socket.close();
    this.#sockets.clear();
  }

  /** Binds at the relay's inner addresses while peers may ask. */
  #listen(): void {
    for (const hostname of this.#o.listen) {
      const socket = this.#sockets.get(hostname);
      if (this.#o.most() === 0) {
        this.#sockets.delete(hostname);
        socket?.close();
      } else if (!socket && !this.#failed.has(hostname)) this.#open(hostname);
    }
  }

  #open(hostname: string): void {
    try {
      const socket = Deno.listenDatagram({ transport: "udp", hostname, port: PORT_CONTROL_PORT });
      this.#sockets.set(hostname, socket);
      this.#serve(socket);
    } catch (error) {
      this.#failed.add(hostname);
      const message = (error as Error).message;
      logger("ports").warn("port control does not answer at {hostname}: {message}", { hostname, message });
    }
  }

  async #serve(socket: Deno.DatagramConn): Promise<void> {
    for await (const [payload, from] of socket) {
      const { hostname: address, port } = from as Deno.NetAddr;
      // Not waited for: one peer's wish does not keep another's.
      this.#answer({ address, port, payload: payload.slice() }).then((answer) =>
        answer && socket.send(answer, from)
      ).catch(() => {});
    }
  }

  async #answer({ address, payload }: ControlDatagram): Promise<Uint8Array<ArrayBuffer> | undefined> {
    if (!this.#asked.may(address)) return undefined;
    const peer = this.#o.most() > 0 ? this.#known.of(address) : undefined;
    if (peer === undefined) return undefined;
    const answer = await this.#server.answer({ id: peer.publicKey, address }, payload);
    return answer as Uint8Array<ArrayBuffer> | undefined;
  }

  get #known(): KnownPeers {
    const { peers } = this.#o.pool;
    if (this.#knownPeers.peers !== peers) this.#knownPeers = new KnownPeers(peers);
    return this.#knownPeers;
  }

  /** Whether a record has the lease's port or its place by now. */
  #isOfRecord({ protocol, outer, address, port }: Lease): boolean {
    return this.#known.hasPort(protocol, outer) || this.#fixed(address, protocol, port) !== undefined;
  }

  /** The port of a peer's record that leads to its own port; 0 where the host could not open that. */
  #fixed(address: string, protocol: PortForward["protocol"], port: number): number | undefined {
    const peer = this.#known.of(address);
    // A record's forwards lead to single addresses alone.
    if (peer?.forwards === undefined || !soleAddresses(peer).includes(address)) return undefined;
    const found = peer.forwards.map((text) => parseForward(text)!).find((forward) =>
      forward.protocol === protocol && forward.inner <= port &&
      port <= forward.inner + forward.high - forward.low
    );
    if (found === undefined) return undefined;
    const outer = found.low + port - found.inner;
    const isRefused = this.#o.pool.refused.some(({ forward }) =>
      forward.protocol === protocol && forward.outer === outer && forward.address === address
    );
    return isRefused ? 0 : outer;
  }

  async #apply(leases: readonly Lease[]) {
    const names = new Map(this.#o.pool.peers.map(({ publicKey, name }) => [publicKey, name]));
    const wanted = leases.map((lease) => ({
      lease,
      forward: {
        protocol: lease.protocol,
        outer: lease.outer,
        address: lease.address,
        port: lease.port,
        peer: names.get(lease.owner) ?? "",
        publicKey: lease.owner,
      },
    }));
    const refused = await this.#o.pool.setForwards(wanted.map(({ forward }) => forward));
    const isIt = (one: PortForward, other: PortForward) =>
      one.protocol === other.protocol && one.outer === other.outer && one.address === other.address;
    return refused.flatMap(({ forward, reason }) =>
      wanted.filter((one) => isIt(one.forward, forward)).map(({ lease }) => ({ forward: lease, reason }))
    );
  }

  /** The address by which the internet reaches the host, of the family of `inner`. */
  #outside(inner: string): Uint32Array {
    const v4 = isIpv4(parseAddress(inner) ?? new Uint32Array(4));
    const all = this.#o.outside().flatMap((text) => parseAddress(text) ?? []);
    return all.find((address) => isIpv4(address) === v4) ?? new Uint32Array(4);
  }
}
