/**
 * What both roles share: peers, sessions and the two routes over bursts, sans-IO. Invariant: time, randomness and
 * packets come in as arguments and go out as rows; after every call the caller drains `pollTransmit`. Opens no
 * socket, reads no clock, knows no exit; relay.ts and client.ts decide who its peers are.
 */
import { type Aead, type DatagramAead, type Lz4, MASK_STRIDE, type Primitives } from "./codec/kernels.ts";
import { type ClassRule, ClassRules } from "./control/class_rules.ts";
import { census } from "./control/explain.ts";
import { FLOW_KEYS, FLOW_WORDS_MAX, FlowTable } from "./control/flows.ts";
import { EntropyTest } from "./egress/entropy.ts";
import { Batches, egress, type EgressContext } from "./egress/mod.ts";
import {
  Backlog,
  type DestinationPolicy,
  ingress,
  type IngressContext,
  ingressRest,
  Speedtest,
} from "./ingress/mod.ts";
import { DROP, type Metrics } from "./metrics.ts";
import { Admission } from "./session/admission.ts";
import { Associations } from "./session/associations.ts";
import type { EventKind } from "./session/events.ts";
import { Rates } from "./rate/pool.ts";
import { Queues } from "./queue/queues.ts";
import type { Limits } from "./session/limits.ts";
import type { Paths } from "./session/paths.ts";
import type { RepairOptions } from "./repair/options.ts";
import { SEEN_SCHEMES, type SessionFigures } from "./repair/figures.ts";
import type { PeerRecord, PeerSnapshot, SessionSnapshot } from "./session/peer_record.ts";
import { type Peer, PeerTable } from "./session/peers.ts";
import { OXTUNNEL, SESSION_ROWS_MAX, SessionTable } from "./session/table.ts";
import { type Arena, NONE } from "./vector/arena.ts";
import { type Burst, BURST_CAPACITY, DONE, FIRST_DROP } from "./vector/burst.ts";
import { formatEndpoint, parseAddress } from "./wire/address.ts";
import { FrameReader } from "./wire/frame.ts";
import {
  AEAD_CHACHA20_POLY1305,
  AEAD_NAMES,
  FEATURE_COPIES,
  FEATURE_HYBRID_KEYS,
  FEATURE_LZ4,
  FEATURE_REED_SOLOMON,
  FEATURE_RESUMPTION,
  FEATURE_SLIDING_WINDOW,
  type Parameters,
} from "./wire/parameters.ts";

export interface QueuesOptions {
  /**
   * The most bytes a second, IP and UDP headers included, that are sent to each peer without a rate of its own; 0 for no
   * limit.
   */
  bytesPerS: number;
  /** Whether the rates of OxTunnel's paths are found by what they report. */
  findsRates: boolean;
  /** Most packets that wait, at most half of the arena. */
  packets: number;
  /** CoDel's target and interval, microseconds (RFC 8289). */
  targetUs: number;
  intervalUs: number;
  /** Whether packets of flows with ECN are marked instead of dropped. */
  ecn: boolean;
  /** How long a game's and a call's packet may wait, microseconds. */
  gameDeadlineUs: number;
  voiceDeadlineUs: number;
}

/** The options for a config's [queues] and the deadlines of its [repair]. Undefined where no packet waits. */
export function queuesOptions(
  { enablePriorityScheduler, congestionAlgorithm, queues, repair }: {
    enablePriorityScheduler: boolean;
    congestionAlgorithm: "bbr_v3" | "none";
    queues: { ratePerPeerMbit?: number; targetMs: number; intervalMs: number; ecn: boolean; packets: number };
    repair: { gameDeadlineMs: number; voiceDeadlineMs: number };
  },
): QueuesOptions | undefined {
  if (!enablePriorityScheduler) return undefined;
  return {
    bytesPerS: 1000 * BYTES_PER_KBIT * (queues.ratePerPeerMbit ?? 0),
    findsRates: congestionAlgorithm === "bbr_v3",
    packets: queues.packets,
    targetUs: 1000 * queues.targetMs,
    intervalUs: 1000 * queues.intervalMs,
    ecn: queues.ecn,
    gameDeadlineUs: 1000 * repair.gameDeadlineMs,
    voiceDeadlineUs: 1000 * repair.voiceDeadlineMs,
  };
}

export interface TunnelOptions {
  arena: Arena;
  metrics: Metrics;
  primitives: Primitives;
  /** Makes the transport kernel for a number of session rows. */
  makeAead: (rows: number) => Aead;
  /** The same for OxTunnel's data; absent for a tunnel without OxTunnel. */
  makeDatagramAead?: (rows: number) => DatagramAead;
  /** AEAD_* of OxTunnel for which this processor has instructions, best first; ChaCha20-Poly1305 when absent. */
  aeads?: readonly number[];
  /** Outer networks, as prefixes, in which OxTunnel goes without encryption where the other end agrees; none when absent. */
  trusted?: readonly string[];
  /** FEATURE_* of OxTunnel that this end offers and accepts; all implemented ones when absent. */
  features?: number;
  /** Compression in OxTunnel; absent to neither offer nor accept compression. */
  lz4?: Lz4;
  /** Packets of fewer bytes are not compressed; 64 or more, and 64 when absent. */
  compressionThreshold?: number;
  random: (bytes: Uint8Array) => void;
  limits: Limits;
  /** 32 bytes; copied. Secret. */
  privateKey: Uint8Array;
  /** This end's own inner addresses, as text. */
  ipv4: string;
  ipv6: string | undefined;
  /** Largest inner packet, bytes. */
  mtu: number;
  /** Whether the exit makes its packets from its own sockets instead of forwarding another host's; false when absent. */
  exitIsSource?: boolean;
  /** Whether the exit forwards packets for the host's own address to other clients' mappings there (hairpinning). */
  exitHairpins?: boolean;
  /**
   * How long OxTunnel's bulk packets may wait to share a datagram, in microseconds: 0 batches only packets of one turn,
   * -1 none; BATCH_WAIT_US when absent.
   */
  batchWaitUs?: number;
  /** Loss repair in OxTunnel; absent to neither offer nor accept repair. */
  repair?: RepairOptions;
  /** The rate that this end asks the others not to exceed, in bytes a second with IP and UDP headers; no limit when absent. */
  receiveBytesPerS?: number;
  /** Queues for peers whose line has a rate; when absent no packet waits. */
  queues?: QueuesOptions;
  maxConnections: number;
  /** Handshakes a second that one proven source may start. */
  rateLimitPerIp: number;
  /** 0 to 15, below `workers`: the top bits of receiver indices. */
  worker: number;
  /** Workers that share the port, each with such a core; peers are divided among them. 1 to 16; 1 when absent. */
  workers?: number;
  /** Connections that the other Workers have now; none when absent. */
  connectionsElsewhere?: () => number;
  /** Wall clock minus monotonic clock, microseconds. */
  unixOffsetUs: number;
}

const KEY_BYTES = 32;
const BYTES_PER_KBIT = 125;
/** The longest wait of a bulk packet to share a datagram (PROTOCOL R80). */
export const BATCH_WAIT_US = 1000;
const COMPRESSED_BYTES_MIN = 64;
const SCHEMES_US = 1_000_000;
/** A flow that had no packet for this time is not shown. */
const LIVE_US = 10_000_000;
const FLOWS_PER_CONNECTION = 16, FLOWS_MIN = 4096, FLOWS_MAX = 1 << 18;

/** Flows that are kept: a power of two. */
function flowRows(maxConnections: number): number {
  const wanted = Math.min(FLOWS_MAX, Math.max(FLOWS_MIN, FLOWS_PER_CONNECTION * maxConnections));
  return 1 << Math.ceil(Math.log2(wanted));
}

/** What a tunnel needs of a peer; a subset of a stored record. */
export type PeerKeys = Pick<PeerRecord, "name" | "publicKey" | "presharedKey" | "allowedIps">;

/** An event for the log. */
export interface TunnelEvent {
  kind: EventKind;
  /** The peer's name. */
  peer: string;
  /** The source of the peer's last authentic packet. A client's address: redact before logging. */
  endpoint: string;
}

export class Tunnel {
  readonly publicKey: Uint8Array;
  protected readonly mtu: number;
  protected readonly peers: PeerTable;
  protected readonly table: SessionTable;
  protected readonly admission: Admission;
  protected readonly associations: Associations;
  protected readonly ingressContext: IngressContext;
  readonly #o: TunnelOptions;
  /** A copy, wiped by `close`. */
  readonly #released: string[] = [];
  readonly #privateKey: Uint8Array;
  readonly #egress: EgressContext;
  readonly #batches: Batches | undefined;
  readonly #queues: Queues | undefined;
  /** By peer: what it says that its line takes, bytes a second; 0 where it says nothing. */
  readonly #told: Float64Array;
  readonly #release: (slot: number) => void;
  /** When sessions are next counted by repair scheme. */
  #schemesAtUs = -Infinity;

  /** @param policy where inner packets may go, or undefined to deliver all of them to this host. */
  constructor(options: TunnelOptions, peerCapacity: number, policy: DestinationPolicy | undefined) {
    this.#o = options;
    const { primitives, metrics, random, limits } = options;
    this.mtu = options.mtu;
    this.#privateKey = options.privateKey.slice();
    this.publicKey = primitives.publicKey(this.#privateKey);
    const word = new Uint32Array(1);
    const wordBytes = new Uint8Array(word.buffer);
    const randomWord = () => {
      random(wordBytes);
      return word[0];
    };
    // Three epochs and a pending handshake for each connection, each with spare ids where OxTunnel is spoken, and room
    // for refusals in flight.
    const rowsEach = options.makeDatagramAead === undefined ? 4 : 12;
    const rows = Math.min(SESSION_ROWS_MAX, rowsEach * options.maxConnections + 256);
    const aead = options.makeAead(rows);
    const datagramAead = options.makeDatagramAead?.(rows);
    this.peers = new PeerTable(peerCapacity, options.workers);
    this.table = new SessionTable(rows, options.worker, aead, randomWord, datagramAead);
    // The owner repeats work that another Worker did for an initiation; both together must not exceed the limit.
    const initiationsPerSecond = limits.initiationsPerSecond / this.peers.workers;
    this.admission = new Admission(initiationsPerSecond, options.rateLimitPerIp, randomWord());
    this.associations = new Associations({
      staticPrivate: this.#privateKey,
      staticPublic: this.publicKey,
      primitives,
      random,
      limits,
      peers: this.peers,
      table: this.table,
      admission: this.admission,
      maxConnections: options.maxConnections,
      connectionsElsewhere: options.connectionsElsewhere ?? (() => 0),
      metrics,
      stagedMax: options.arena.slotCount >> 2,
      unixOffsetUs: options.unixOffsetUs,
      oxtunnel: datagramAead && {
        datagramAead,
        aeads: options.aeads ?? [AEAD_CHACHA20_POLY1305],
        trusted: options.trusted ?? [],
        features: (options.features ?? (FEATURE_HYBRID_KEYS | FEATURE_RESUMPTION)) |
          (options.lz4 === undefined ? 0 : FEATURE_LZ4) |
          (options.repair === undefined ? 0 : FEATURE_REED_SOLOMON | FEATURE_SLIDING_WINDOW | FEATURE_COPIES),
        repair: options.repair,
        say: (peer) => this.say(peer),
        givesTickets: policy !== undefined,
        receiveKbitS: Math.round((options.receiveBytesPerS ?? 0) / BYTES_PER_KBIT),
        limited: (peer, kbitS, nowUs) => {
          if (this.#queues === undefined) return;
          this.#told[peer] = kbitS * BYTES_PER_KBIT;
          this.#limit(peer, 0, nowUs);
        },
        rates: options.queues?.findsRates
          ? new Rates(
            () => randomWord() / 2 ** 32,
            (peer, bytesPerS, nowUs) => this.#limit(peer, bytesPerS, nowUs),
          )
          : undefined,
        mtu: options.mtu,
      },
    });
    const ownIpv4 = parseAddress(options.ipv4);
    if (!ownIpv4) throw new Error(`tunnel: "${options.ipv4}" is not an IPv4 address`);
    const flows = new FlowTable(
      flowRows(options.maxConnections),
      Uint32Array.from({ length: FLOW_KEYS }, randomWord),
    );
    const shared = {
      table: this.table,
      peers: this.peers,
      associations: this.associations,
      aead,
      datagramAead,
      metrics,
      ownIpv4,
      ownIpv6: options.ipv6 === undefined ? undefined : parseAddress(options.ipv6),
      flows,
      words: new Uint32Array(FLOW_WORDS_MAX),
      ends: new Uint32Array(8),
    };
    const masks = new Uint8Array(MASK_STRIDE * BURST_CAPACITY);
    const [backlog, speedtest] = [new Backlog(), new Speedtest()];
    const { mtu, lz4, compressionThreshold: thresholdBytes = COMPRESSED_BYTES_MIN } = options;
    const frames = new FrameReader();
    const exitHairpins = options.exitHairpins === true;
    this.ingressContext = { ...shared, policy, masks, frames, lz4, backlog, speedtest, exitHairpins };
    const compression = lz4 && { lz4, thresholdBytes, entropy: new EntropyTest() };
    const { batchWaitUs = BATCH_WAIT_US } = options;
    const isBatching = datagramAead !== undefined && batchWaitUs >= 0;
    this.#batches = isBatching ? new Batches(options.arena, peerCapacity, batchWaitUs) : undefined;
    this.#told = new Float64Array(options.queues === undefined ? 0 : peerCapacity);
    this.#queues = this.#makeQueues(peerCapacity, flowRows(options.maxConnections));
    this.#egress = {
      ...shared,
      mtu,
      compression,
      isRelay: policy !== undefined,
      batches: this.#batches,
      queues: this.#queues,
    };
    this.#release = (slot) => options.arena.release(slot);
  }

  #makeQueues(peers: number, flows: number): Queues | undefined {
    const { queues, arena, metrics } = this.#o;
    return queues && new Queues(arena, {
      ...queues,
      packets: Math.min(queues.packets, arena.slotCount >> 1),
      flows,
      peers,
      waited: (trafficClass, waitedUs) => metrics.waited(trafficClass, waitedUs),
      lost: (reason) => metrics.drop(DROP[reason]),
      marked: () => metrics.add("packets_marked", 1),
    });
  }

  /**
   * Sends the peer no more than it says that its line takes, or else than was found, and never more than every peer is sent; 0 says
   * nothing.
   */
  #limit(peer: number, foundBytesPerS: number, nowUs: number): void {
    const own = this.#told[peer] > 0 ? this.#told[peer] : foundBytesPerS;
    const all = this.#o.queues!.bytesPerS;
    if (own > 0) this.#queues!.setRate(peer, all > 0 ? Math.min(own, all) : own, nowUs);
    else this.#queues!.useDefault(peer, nowUs);
  }

  /** This end's parameters for the peer in OxTunnel's handshakes. */
  protected say(_peer: Peer): Parameters {
    return {};
  }

  /**
   * Takes datagrams from the port. Rows leave as TO_EXIT, TO_TRANSMIT, TO_WORKER, or ended. The caller takes each row
   * to its destination, and then calls `ingestRest` until it returns 0.
   */
  ingest(burst: Burst, nowUs: number): void {
    ingress(burst, this.ingressContext, nowUs);
    egress(burst, this.#egress, nowUs);
    this.#count(burst);
  }

  /**
   * Adds to an empty burst those packets of the last datagrams for which there was no row, as `ingest` leaves them; returns
   * the number of rows added.
   */
  ingestRest(burst: Burst, nowUs: number): number {
    if (this.ingressContext.backlog.isEmpty) return 0;
    ingressRest(burst, this.ingressContext, nowUs);
    egress(burst, this.#egress, nowUs);
    this.#count(burst);
    return burst.count;
  }

  /**
   * Takes the inner packets (TO_TUNNEL rows) of a burst from the exit. Those rows leave as TO_TRANSMIT, TO_WORKER, or ended;
   * one that is too big leaves as TO_EXIT, an ICMP error for its sender.
   */
  ingestInner(burst: Burst, nowUs: number): void {
    egress(burst, this.#egress, nowUs, this.#o.exitIsSource);
    this.#count(burst);
  }

  /** Adds datagrams that are due to the burst as TO_TRANSMIT rows; returns their number. Call until it returns 0. */
  pollTransmit(burst: Burst, nowUs: number): number {
    const before = burst.count;
    const added = this.associations.outbox.pollTransmit(burst, nowUs);
    if (added > 0 || this.#heldUntilUs <= nowUs) {
      egress(burst, this.#egress, nowUs);
      this.#countDrops(burst);
    }
    return burst.count - before;
  }

  /** When `handleTimeout` is next due, in microseconds, or Infinity. */
  pollTimeout(): number {
    const { timers, oxtunnel } = this.associations;
    return Math.min(timers.nextUs, this.#heldUntilUs, oxtunnel?.tickets?.dueUs ?? Infinity);
  }

  get #heldUntilUs(): number {
    return Math.min(this.#batches?.nextUs ?? Infinity, this.#queues?.nextUs ?? Infinity);
  }

  handleTimeout(nowUs: number): void {
    this.associations.oxtunnel?.tickets?.rotate(nowUs);
    this.associations.outbox.handleTimeout(nowUs, this.#release);
    const { metrics } = this.#o;
    metrics.set("sessions", this.table.count);
    metrics.set("connections", this.associations.epochs.connections);
    metrics.set("under_load", this.admission.loaded(nowUs) ? 1 : 0);
    this.#countSchemes(nowUs);
  }

  /** Counts the sessions of each repair scheme into the metrics, about once a second. */
  #countSchemes(nowUs: number): void {
    const { oxtunnel } = this.associations;
    if (oxtunnel === undefined || nowUs < this.#schemesAtUs) return;
    this.#schemesAtUs = nowUs + SCHEMES_US;
    for (const direction of ["sending", "receiving"] as const) {
      const counts = oxtunnel.sessions.repairs?.sessionsByScheme(direction, nowUs);
      SEEN_SCHEMES.forEach((scheme, i) => this.#o.metrics.set(`${direction}_${scheme}`, counts?.[i] ?? 0));
    }
  }

  /**
   * Adds a peer. Throws, with the reason, when its key or prefixes are malformed, taken, or the relay's own.
   * @param persistentKeepaliveS 0 for none; a client keeps its NAT open with 25.
   */
  addPeer(record: PeerKeys, persistentKeepaliveS = 0, lastTimestamp?: Uint8Array): void {
    const publicKey = decodeKey(record.publicKey, `peer ${record.name}: public key`);
    if (publicKey.every((byte, i) => byte === this.publicKey[i])) {
      throw new Error(`peer ${record.name}: its public key is this end's own`);
    }
    const presharedKey = decodePresharedKey(record);
    const staticSecret = this.#o.primitives.sharedSecret(this.#privateKey, publicKey);
    if (!staticSecret) throw new Error(`peer ${record.name}: public key is not a usable X25519 key`);
    try {
      this.peers.add({
        name: record.name,
        publicKeyText: record.publicKey,
        publicKey,
        presharedKey,
        staticSecret,
        allowedIps: record.allowedIps,
        cookieLifeUs: this.#o.limits.cookieUs,
        persistentKeepaliveUs: persistentKeepaliveS * 1_000_000,
        lastTimestamp,
      });
    } finally {
      presharedKey.fill(0);
      staticSecret.fill(0);
    }
  }

  /** Ends the peer's sessions and removes the peer; false when no peer has this key. */
  removePeer(publicKeyText: string): boolean {
    const peer = this.peers.find(publicKeyText);
    if (!peer) return false;
    this.associations.outbox.end(peer, this.#release);
    this.#batches?.release(peer.id);
    this.#queues?.release(peer.id);
    this.#told[peer.id] = 0;
    this.associations.paths.forget(peer.id);
    this.peers.remove(peer);
    this.#released.push(...peer.allowedIps);
    return true;
  }

  /** Prefixes of peers removed since the last call, for which the exit is to end its flows. */
  takeReleased(): string[] {
    return this.#released.splice(0);
  }

  /**
   * Starts or stops compression for OxTunnel sessions that negotiated it, and its negotiation by later ones. Compressed
   * packets of sessions that negotiated compression are read in either case.
   */
  /** Replaces the class rules, for existing flows too. Throws RangeError at more than 64. */
  setClassRules(rules: readonly ClassRule[]): void {
    this.#egress.flows.setRules(rules.length === 0 ? undefined : new ClassRules(rules));
  }

  /** The number of recognised flows with a packet in the last ten seconds, by application. */
  applications(nowUs: number): Record<string, number> {
    return census(this.#egress.flows, nowUs >>> 0, LIVE_US);
  }

  protected setCompression(compression: { lz4: Lz4; thresholdBytes: number } | undefined): void {
    const entropy = this.#egress.compression?.entropy ?? new EntropyTest();
    this.#egress.compression = compression && { ...compression, entropy };
    this.ingressContext.lz4 ??= compression?.lz4;
    this.associations.oxtunnel?.offer(FEATURE_LZ4, compression !== undefined);
  }

  /** Ends the peer's sessions and handshakes without telling the peer; its waiting packets are dropped. */
  protected leave(peer: Peer): void {
    this.associations.outbox.end(peer, this.#release);
    peer.lastInitiationSentUs = -Infinity;
    peer.attempts = 0;
    peer.attemptsSinceUs = peer.retryAtUs = Infinity;
  }

  /** Follows a jump of the wall clock. Sessions use the monotonic clock and are not affected. */
  setWallClock(unixOffsetUs: number): void {
    this.associations.shared.unixOffsetUs = unixOffsetUs;
  }

  /** The oldest unread event, or undefined. Events of a removed peer are skipped. */
  pollEvent(): TunnelEvent | undefined {
    const { paths } = this.associations;
    for (let event = this.associations.events.take(); event; event = this.associations.events.take()) {
      const peer = this.peers.get(event.id);
      if (!peer || this.peers.generation[event.id] !== event.generation) continue;
      return {
        kind: event.kind,
        peer: peer.name,
        endpoint: endpointOf(paths, event.id),
      };
    }
    return undefined;
  }

  peerSnapshots(nowUs: number): PeerSnapshot[] {
    const { bytesReceived, bytesSent, drops, current } = this.peers;
    const { paths } = this.associations;
    const { replay } = this.table;
    return this.peers.all().map((peer) => {
      const { id } = peer;
      const epoch = current[id];
      const seen = epoch === NONE ? 0 : replay.highest[epoch] + 1;
      return {
        name: peer.name,
        publicKey: peer.publicKeyText,
        allowedIps: [...peer.allowedIps],
        endpoint: paths.port[paths.of(id)] === 0 ? undefined : endpointOf(paths, id),
        lastHandshakeAgeS: peer.lastHandshakeUs === -Infinity
          ? undefined
          : (nowUs - peer.lastHandshakeUs) / 1e6,
        connected: peer.connected,
        ...this.#speech(epoch),
        bytesReceived: bytesReceived[id],
        bytesSent: bytesSent[id],
        drops: drops[id],
        lossRatio: seen > 0 ? 1 - replay.accepted(epoch) / seen : undefined,
        rttMs: this.#rttMs(peer.handshakeRttUs, epoch),
        ...this.#repairFigures(epoch),
      };
    });
  }

  /** The round trip from an OxTunnel session's pings, else from the last handshake; undefined without either. */
  #rttMs(handshakeUs: number, session: number): number | undefined {
    const pingUs = session === NONE ? undefined : this.associations.oxtunnel?.sessions.of[session]?.rttUs;
    const rttUs = pingUs !== undefined && pingUs >= 0 ? pingUs : handshakeUs;
    return rttUs < 0 ? undefined : rttUs / 1000;
  }

  #repairFigures(session: number): SessionFigures | undefined {
    return session === NONE ? undefined : this.associations.oxtunnel?.sessions.of[session]?.repair?.figures;
  }

  /** The protocol and AEAD of a session. */
  #speech(session: number): Pick<PeerSnapshot, "protocol" | "aead"> {
    if (session === NONE) return {};
    const isOxtunnel = this.table.protocol[session] === OXTUNNEL;
    const aead = isOxtunnel ? this.associations.oxtunnel!.sessions.of[session]!.aead : AEAD_CHACHA20_POLY1305;
    return { protocol: isOxtunnel ? "oxtunnel" : "wireguard", aead: AEAD_NAMES[aead] };
  }

  sessionSnapshots(nowUs: number): SessionSnapshot[] {
    const table = this.table;
    const rows: SessionSnapshot[] = [];
    for (const peer of this.peers.all()) {
      for (const epoch of ["next", "current", "previous"] as const) {
        const row = this.peers[epoch][peer.id];
        if (row === NONE) continue;
        rows.push({
          peer: peer.name,
          epoch,
          receiverIndex: table.receiverIndex[row],
          protocol: table.protocol[row] === OXTUNNEL ? "oxtunnel" : "wireguard",
          ageS: (nowUs - table.bornUs[row]) / 1e6,
          initiator: table.initiator[row] === 1,
          packetsSent: table.sendCounter[row],
          ...(table.protocol[row] === OXTUNNEL
            ? { datagramBytes: this.associations.paths.datagramBytes[table.path[row]] }
            : {}),
          highestCounterReceived: table.replay.highest[row],
        });
      }
    }
    return rows;
  }

  /** Ends every session and erases every key. The tunnel cannot be used afterwards. */
  close(): void {
    for (const peer of this.peers.all()) this.removePeer(peer.publicKeyText);
    this.associations.oxtunnel?.tickets?.wipe();
    this.#privateKey.fill(0);
  }

  #count(burst: Burst): void {
    const { metrics } = this.#o;
    this.#countDrops(burst);
    metrics.add("bursts", 1);
    metrics.set("connections", this.associations.epochs.connections);
  }

  #countDrops({ count, next }: Burst): void {
    const { metrics } = this.#o;
    for (let row = 0; row < count; row++) {
      if (next[row] < FIRST_DROP) continue;
      metrics.drop(next[row]);
      next[row] = DONE; // counted once, whatever route the burst takes next
    }
  }
}

/** Where packets to the peer go, as text. */
function endpointOf(paths: Paths, id: number): string {
  const path = paths.of(id);
  return formatEndpoint(paths.address, 4 * path, paths.port[path]);
}

/** The record's preshared key, 32 bytes, all zero when it has none (whitepaper §5.2). Throws as `addPeer`. */
export function decodePresharedKey({ name, presharedKey }: PeerKeys): Uint8Array {
  return presharedKey === undefined
    ? new Uint8Array(KEY_BYTES)
    : decodeKey(presharedKey, `peer ${name}: preshared key`);
}

function decodeKey(text: string, what: string): Uint8Array {
  if (!/^[A-Za-z0-9+/]{43}=$/.test(text)) {
    throw new Error(`${what} is not 32 bytes of base64 (44 characters)`);
  }
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}
