/**
 * The core of both roles: peers, sessions, and the steps from the port to the exit and back, sans-IO. Invariant: time, randomness
 * and packets are arguments, and packets leave as rows of the burst; after every call the caller drains `pollTransmit`. Opens no
 * socket, reads no clock, knows no exit; relay.ts and client.ts decide who its peers are. Long because it makes every part of the
 * core and has every verb that the core is asked by.
 */
import { type Aead, type DatagramAead, type Lz4, MASK_STRIDE } from "./codec/kernels.ts";
import { type ClassRule, ClassRules } from "./control/class_rules.ts";
import type { DelayCounts } from "./control/delays.ts";
import { census } from "./control/explain.ts";
import { FLOW_KEYS, FLOW_WORDS_MAX, FlowTable } from "./control/flows.ts";
import { Rollout, ROLLOUT_DEFAULT, type RolloutPercent } from "./control/rollout.ts";
import { EntropyTest } from "./egress/entropy.ts";
import { Batches, egress, type EgressContext } from "./egress/mod.ts";
import {
  Backlog,
  type DestinationPolicy,
  ingress,
  type IngressContext,
  ingressRest,
  Pings,
  Speedtest,
} from "./ingress/mod.ts";
import { DROP } from "./metrics.ts";
import { LineFigures, type QueueLoss } from "./queue/line_figures.ts";
import { PeerRates } from "./queue/peer_rates.ts";
import { Police } from "./queue/police.ts";
import { Queues } from "./queue/queues.ts";
import { TURN_CODEL, TurnQueue } from "./queue/turn_queue.ts";
import { Rates } from "./rate/pool.ts";
import { SEEN_SCHEMES } from "./repair/figures.ts";
import { Admission } from "./session/admission.ts";
import { Associations } from "./session/associations.ts";
import type { TunnelEvent } from "./session/events.ts";
import type { OxtunnelOptions } from "./session/oxtunnel/mod.ts";
import {
  decodeKey,
  decodePresharedKey,
  type PathSnapshot,
  type PeerKeys,
  type PeerSnapshot,
  type SessionSnapshot,
} from "./session/peer_record.ts";
import { InnerAcks } from "./session/wireguard/inner_acks.ts";
import { type Peer, type PeerIdentity, PeerTable } from "./session/peers.ts";
import { SessionTable } from "./session/table.ts";
import {
  BATCH_WAIT_US,
  BYTES_PER_KBIT,
  featuresOf,
  flowRows,
  furtherPaths,
  HEADER_METHODS_DEFAULT,
  REPAIR_FEATURES,
  sessionRows,
  type TunnelOptions,
  wordsFrom,
} from "./tunnel_options.ts";
import { RolloutMeter } from "./tunnel_rollout.ts";
import { endpointOf, pathSnapshots, peerSnapshots, sessionSnapshots } from "./tunnel_snapshots.ts";
import { NONE } from "./vector/arena.ts";
import { type Burst, BURST_CAPACITY, DONE, FIRST_DROP, TO_EXIT } from "./vector/burst.ts";
import { parseAddress } from "./wire/address.ts";
import { FrameReader } from "./wire/frame.ts";
import { AEAD_CHACHA20_POLY1305, FEATURE_LZ4, type Parameters } from "./wire/parameters.ts";

/** Of a longer packet headers are so small a part that leaving them out costs more processor time than it saves bytes. */
const SHORTENED_BYTES_MAX = 700;
const COMPRESSED_BYTES_MIN = 64;
/** Packets that waited for this thread and are carried before it looks for newer ones, to the tunnel: half of a burst (egress/queue.ts). */
const SERVED_ROWS = 128;
/** What one peer may have waiting for this thread, in terms of the room that is left (queue/turn_queue.ts). */
const PEER_ROOM = 3;
/** Peers whose groups one call finds anew when shares have changed: about a tenth of a millisecond's work. */
const PLACED_EACH = 256;
const LOOK_US = 1_000_000;
/** Figures of waits halve each FADE_US, so that those of the last half minute count. */
const FADE_US = 10_000_000;
/** A flow that had no packet for this time is not shown. */
const LIVE_US = 10_000_000;

export type { TunnelEvent };

export class Tunnel {
  readonly publicKey: Uint8Array;
  protected readonly mtu: number;
  protected readonly peers: PeerTable;
  protected readonly table: SessionTable;
  protected readonly admission: Admission;
  protected readonly associations: Associations;
  protected readonly ingressContext: IngressContext;
  protected readonly peerRates: PeerRates;
  readonly #o: TunnelOptions;
  /** Prefixes of removed peers that `takeReleased` has not returned yet. */
  readonly #released: string[] = [];
  /** A copy, wiped by `close`. */
  readonly #privateKey: Uint8Array;
  readonly #egress: EgressContext;
  readonly #batches: Batches | undefined;
  readonly #queues: Queues | undefined;
  readonly #rates: Rates | undefined;
  readonly #figures: LineFigures;
  readonly #innerAcks: InnerAcks | undefined;
  readonly #rollout: Rollout;
  readonly #rolloutMeter: RolloutMeter;
  readonly #release: (slot: number) => void;
  /** When sessions are next counted by repair scheme, and lines of peers that are gone given back. */
  #lookAtUs = -Infinity;
  /** The id of the next peer whose groups are to be found anew; Infinity without one. */
  #placeFrom = Infinity;
  /** When figures of lines fade next. */
  #fadeAtUs = -Infinity;

  /** @param policy where inner packets may go, or undefined to deliver all of them to this host. */
  constructor(options: TunnelOptions, peerCapacity: number, policy: DestinationPolicy | undefined) {
    this.#o = options;
    this.mtu = options.mtu;
    this.#privateKey = options.privateKey.slice();
    this.publicKey = options.primitives.publicKey(this.#privateKey);
    this.#release = (slot) => options.arena.release(slot);
    const randomWord = wordsFrom(options.random);
    const rows = sessionRows(options.maxConnections, options.makeDatagramAead !== undefined);
    const aead = options.makeAead(rows);
    const datagramAead = options.makeDatagramAead?.(rows);
    this.peers = new PeerTable(peerCapacity, options.workers);
    this.table = new SessionTable(rows, options.worker, aead, randomWord, datagramAead);
    // The owner repeats work that another Worker did for an initiation; both together must not exceed the limit.
    const initiationsPerSecond = options.limits.initiationsPerSecond / this.peers.workers;
    this.admission = new Admission(initiationsPerSecond, options.rateLimitPerIp, randomWord());
    const isRelay = policy !== undefined;
    this.#figures = new LineFigures(peerCapacity, options.metrics);
    this.#rollout = new Rollout(peerCapacity, options.rolloutPercent ?? ROLLOUT_DEFAULT);
    this.#rolloutMeter = new RolloutMeter(peerCapacity, this.#rollout, options.metrics);
    this.#rates = options.queues?.findsRates
      ? new Rates(
        () => randomWord() / 2 ** 32,
        (peer, bytesPerS, nowUs) => this.peerRates.found(peer, bytesPerS, nowUs),
        (peer) => this.#rollout.isOn("rate_control", peer),
        (peer) => this.#rollout.isOn("predicted_pacing", peer),
        (peer) => this.#rollout.isOn("rate_memory", peer),
      )
      : undefined;
    this.#innerAcks = this.#rates &&
      new InnerAcks(peerCapacity, this.#rates, (peer) => this.#rollout.isOn("ack_clocking", peer));
    this.associations = this.#makeAssociations(
      datagramAead && this.#oxtunnelOptions(datagramAead, isRelay),
    );
    const shared = this.#sharedContext(aead, datagramAead, randomWord);
    const { lz4, compressionThreshold: thresholdBytes = COMPRESSED_BYTES_MIN } = options;
    this.ingressContext = {
      ...shared,
      policy,
      toExit: this.#makeTurnQueue(peerCapacity, isRelay, false),
      figures: this.#figures,
      police: isRelay ? new Police({ peers: peerCapacity, ecn: true, ...options.queues }) : undefined,
      masks: new Uint8Array(MASK_STRIDE * BURST_CAPACITY),
      frames: new FrameReader(),
      lz4,
      backlog: new Backlog(),
      speedtest: new Speedtest(),
      pings: new Pings(randomWord),
      exitHairpins: options.exitHairpins === true,
    };
    const { batchWaitUs = BATCH_WAIT_US } = options;
    const isBatching = datagramAead !== undefined && batchWaitUs >= 0;
    this.#batches = isBatching ? new Batches(options.arena, peerCapacity, batchWaitUs) : undefined;
    this.#queues = this.#makeQueues(peerCapacity);
    const { receiveBytesPerS = 0 } = options;
    this.peerRates = new PeerRates(peerCapacity, this.#queues, this.ingressContext.police, receiveBytesPerS);
    this.#egress = {
      ...shared,
      mtu: options.mtu,
      compression: lz4 && { lz4, thresholdBytes, entropy: new EntropyTest() },
      isRelay,
      shortenedBytesMax: options.headersOfBulk ? Infinity : SHORTENED_BYTES_MAX,
      batches: this.#batches,
      queues: this.#queues,
      toTunnel: this.#makeTurnQueue(peerCapacity, isRelay, true),
      figures: this.#figures,
    };
  }

  /** Call once the tables of peers and sessions and the admission control are made. */
  #makeAssociations(oxtunnel: OxtunnelOptions | undefined): Associations {
    const { primitives, random, limits, metrics, maxConnections, arena, unixOffsetUs } = this.#o;
    return new Associations({
      staticPrivate: this.#privateKey,
      staticPublic: this.publicKey,
      primitives,
      random,
      limits,
      peers: this.peers,
      table: this.table,
      admission: this.admission,
      maxConnections,
      connectionsElsewhere: this.#o.connectionsElsewhere ?? (() => 0),
      metrics,
      stagedMax: arena.slotCount >> 2,
      unixOffsetUs,
      oxtunnel,
      wireguardBegun: (peer, nowUs) => this.peerRates.endTold(peer, nowUs),
    });
  }

  /** @param givesTickets whether this end gives tickets for resumption: the relay does. */
  #oxtunnelOptions(datagramAead: DatagramAead, givesTickets: boolean): OxtunnelOptions {
    const options = this.#o;
    return {
      datagramAead,
      aeads: options.aeads ?? [AEAD_CHACHA20_POLY1305],
      trusted: options.trusted ?? [],
      features: featuresOf(options),
      furtherPaths: furtherPaths(options.maxConnections),
      repair: options.repair,
      withheld: (peer) => this.#rollout.isOn("repair", peer) ? 0 : REPAIR_FEATURES,
      headerContexts: options.headerContexts,
      headerMethods: options.headerMethods ?? HEADER_METHODS_DEFAULT,
      say: (peer) => this.say(peer),
      givesTickets,
      receiveKbitS: ({ id }) => Math.round(this.peerRates.receiveBytesPerS(id) / BYTES_PER_KBIT),
      limited: (peer, kbitS, nowUs) => this.peerRates.told(peer, kbitS * BYTES_PER_KBIT, nowUs),
      rates: this.#rates,
      mtu: options.mtu,
    };
  }

  /** What ingress and egress both use: the same objects, so that each direction sees the other's flows. */
  #sharedContext(aead: Aead, datagramAead: DatagramAead | undefined, randomWord: () => number) {
    const { ipv4, ipv6, maxConnections, metrics } = this.#o;
    const ownIpv4 = parseAddress(ipv4);
    if (!ownIpv4) throw new Error(`tunnel: "${ipv4}" is not an IPv4 address`);
    return {
      table: this.table,
      peers: this.peers,
      associations: this.associations,
      aead,
      datagramAead,
      metrics,
      ownIpv4,
      ownIpv6: ipv6 === undefined ? undefined : parseAddress(ipv6),
      innerAcks: this.#innerAcks,
      flows: new FlowTable(flowRows(maxConnections), Uint32Array.from({ length: FLOW_KEYS }, randomWord)),
      words: new Uint32Array(FLOW_WORDS_MAX),
      ends: new Uint32Array(8),
    };
  }

  #makeQueues(peers: number): Queues | undefined {
    const { queues, arena } = this.#o;
    return queues && new Queues(arena, {
      ...queues,
      ...this.#waitingOptions(),
      packets: Math.min(queues.packets, arena.slotCount >> 1),
      peers,
      figures: this.#figures,
    });
  }

  /** What packets for the tunnel, or for the exit, wait in for this thread. A TCP window of 4 MB fits; one peer of several takes
   * three quarters at most and the less the more there are, and what is too much is the largest flow's loss. */
  #makeTurnQueue(peers: number, isRelay: boolean, isToPeers: boolean): TurnQueue | undefined {
    const { queues, arena } = this.#o, figures = this.#figures;
    if (queues === undefined) return undefined;
    return new TurnQueue(arena, {
      ...queues,
      ...TURN_CODEL,
      ...this.#waitingOptions(),
      packets: Math.min(queues.packets, arena.slotCount >> 2),
      peerRoom: isRelay ? PEER_ROOM : Infinity,
      peers,
      look: (peer) => figures.look(isToPeers ? peer : NONE), // what is from a peer is not of the line to it
    });
  }

  #waitingOptions() {
    const { maxConnections, metrics } = this.#o, figures = this.#figures;
    return {
      flows: flowRows(maxConnections),
      waited: (trafficClass: number, waitedUs: number) => figures.waited(trafficClass, waitedUs),
      lost: (reason: QueueLoss) => {
        metrics.drop(DROP[reason]);
        figures.lost(reason);
      },
      marked: () => {
        metrics.add("packets_marked", 1);
        figures.marked();
      },
    };
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

  /** Whether packets wait for this thread: `serveExit` or `serveTunnel` then has something to add. */
  get isBehind(): boolean {
    const { toTunnel } = this.#egress, { toExit } = this.ingressContext;
    return toTunnel !== undefined && toTunnel.packets > 0 || toExit !== undefined && toExit.packets > 0;
  }

  /**
   * Adds to an empty burst the next of the packets for the exit that wait for this thread, as TO_EXIT rows; returns the rows added.
   * Between two calls the caller takes what has come, so that newer packets of sparse flows go first.
   */
  serveExit(burst: Burst, nowUs: number): number {
    const { toExit } = this.ingressContext;
    if (toExit === undefined || toExit.packets === 0) return 0;
    while (burst.count < BURST_CAPACITY && toExit.take(burst, TO_EXIT, nowUs) >= 0);
    return burst.count;
  }

  /** The same for the tunnel, SERVED_ROWS packets at most, as `ingestInner` leaves them. */
  serveTunnel(burst: Burst, nowUs: number): number {
    const { toTunnel } = this.#egress;
    if (toTunnel === undefined || toTunnel.packets === 0) return 0;
    egress(burst, this.#egress, nowUs, false, SERVED_ROWS);
    this.#count(burst);
    return burst.count;
  }

  /** Adds datagrams that are due to the burst as TO_TRANSMIT rows; returns their number. Call until it returns 0. */
  pollTransmit(burst: Burst, nowUs: number): number {
    const before = burst.count;
    const { pings, ownIpv4, ownIpv6 } = this.ingressContext;
    const added = this.associations.outbox.pollTransmit(burst, nowUs) +
      pings.emit(burst, ownIpv4, ownIpv6, nowUs);
    if (added > 0 || this.#heldUntilUs <= nowUs) {
      egress(burst, this.#egress, nowUs);
      this.#countDrops(burst);
    }
    return burst.count - before;
  }

  /** When `handleTimeout` is next due, in microseconds, 0 for at once, or Infinity. */
  pollTimeout(): number {
    if (this.#placeFrom < Infinity) return 0;
    const { timers, oxtunnel } = this.associations;
    return Math.min(timers.nextUs, this.#heldUntilUs, oxtunnel?.tickets?.dueUs ?? Infinity);
  }

  get #heldUntilUs(): number {
    return Math.min(this.#batches?.nextUs ?? Infinity, this.#queues?.nextUs ?? Infinity);
  }

  handleTimeout(nowUs: number): void {
    if (this.#placeFrom < Infinity) this.#placeSome(nowUs);
    this.associations.oxtunnel?.tickets?.rotate(nowUs);
    this.associations.outbox.handleTimeout(nowUs, this.#release);
    const { metrics } = this.#o;
    metrics.set("sessions", this.table.count);
    metrics.set("connections", this.associations.epochs.connections);
    metrics.set("under_load", this.admission.loaded(nowUs) ? 1 : 0);
    const isDue = nowUs >= this.#lookAtUs;
    if (isDue || this.#rolloutMeter.isUnderway) this.#rolloutMeter.take(this.peers, this.associations);
    if (!isDue) return;
    this.#lookAtUs = nowUs + LOOK_US;
    this.#countSchemes(nowUs);
    metrics.set("lines", this.#queues?.lines ?? 0);
    metrics.set("paths_watched", this.#rates?.size ?? 0);
    const budget = this.associations.oxtunnel?.sessions.headerBudget;
    metrics.set("header_contexts", budget === undefined ? 0 : budget.contexts - budget.left);
    const { current, next } = this.peers;
    const isGone = (peer: number) => current[peer] === NONE && next[peer] === NONE;
    this.#queues?.forget((peer) => {
      if (isGone(peer)) this.peerRates.forgetTold(peer);
      return isGone(peer);
    });
    this.#innerAcks?.tend(isGone, nowUs);
    if (nowUs < this.#fadeAtUs) return;
    this.#fadeAtUs = nowUs + FADE_US;
    this.#figures.fade(isGone);
  }

  /** Counts the sessions of each repair scheme into the metrics. */
  #countSchemes(nowUs: number): void {
    const { oxtunnel } = this.associations;
    if (oxtunnel === undefined) return;
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
    const { publicKey, presharedKey, staticSecret } = this.secretsOf(record);
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
    const peer = this.peers.find(record.publicKey)!;
    this.#place(peer, -Infinity);
    this.peerRates.setRecord(peer.id, record, -Infinity);
  }

  /** The peer's keys, and X25519 of both static keys: secrets, which the caller wipes. Throws, with the reason, for keys of no use. */
  protected secretsOf(record: PeerKeys): Pick<PeerIdentity, "publicKey" | "presharedKey" | "staticSecret"> {
    const publicKey = decodeKey(record.publicKey, `peer ${record.name}: public key`);
    if (publicKey.every((byte, i) => byte === this.publicKey[i])) {
      throw new Error(`peer ${record.name}: its public key is this end's own`);
    }
    const presharedKey = decodePresharedKey(record);
    const staticSecret = this.#o.primitives.sharedSecret(this.#privateKey, publicKey);
    if (!staticSecret) throw new Error(`peer ${record.name}: public key is not a usable X25519 key`);
    return { publicKey, presharedKey, staticSecret };
  }

  /**
   * Changes which share of the peers has which part; their sessions continue. Some peers find themselves in their new groups at once,
   * the others with the next calls of `handleTimeout`, so that packets need not wait for all of them.
   */
  protected setRollout(percent: RolloutPercent, nowUs: number): void {
    if (!this.#rollout.change(percent)) return;
    this.#placeFrom = 0;
    this.#placeSome(nowUs);
  }

  #placeSome(nowUs: number): void {
    const end = Math.min(this.peers.ids, this.#placeFrom + PLACED_EACH);
    for (let id = this.#placeFrom; id < end; id++) {
      const peer = this.peers.get(id);
      if (peer !== undefined) this.#place(peer, nowUs);
    }
    this.#placeFrom = end < this.peers.ids ? end : Infinity;
  }

  #place({ id, publicKey }: Peer, nowUs: number): void {
    this.#rollout.place(id, publicKey);
    this.peerRates.setExempt(id, !this.#rollout.isOn("scheduler", id), nowUs);
  }

  /** Ends the peer's sessions and removes the peer; false when no peer has this key. */
  removePeer(publicKeyText: string): boolean {
    const peer = this.peers.find(publicKeyText);
    if (!peer) return false;
    this.associations.outbox.end(peer, this.#release);
    this.#batches?.release(peer.id);
    this.#queues?.release(peer.id);
    this.#egress.toTunnel?.release(peer.id);
    this.ingressContext.toExit?.release(peer.id);
    this.#figures.forget(peer.id);
    this.#innerAcks?.forget(peer.id, -Infinity);
    this.peerRates.forgetTold(peer.id);
    this.#rates?.forgetNetworks(peer.id);
    this.peerRates.setRecord(peer.id, {}, -Infinity);
    this.associations.paths.forget(peer.id);
    this.peers.remove(peer);
    this.#released.push(...peer.allowedIps);
    return true;
  }

  /** Prefixes of peers removed since the last call, for which the exit is to end its flows. */
  takeReleased(): string[] {
    return this.#released.splice(0);
  }

  /** Replaces the class rules, for existing flows too. Throws RangeError at more than 64. */
  setClassRules(rules: readonly ClassRule[]): void {
    this.#egress.flows.setRules(rules.length === 0 ? undefined : new ClassRules(rules));
  }

  /** The number of recognised flows with a packet in the last ten seconds, by application. */
  applications(nowUs: number): Record<string, number> {
    return census(this.#egress.flows, nowUs >>> 0, LIVE_US);
  }

  /**
   * Starts or stops compression for OxTunnel sessions that negotiated compression, and whether later sessions negotiate it. Compressed
   * packets of sessions that negotiated compression are read in either case.
   */
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

  /** The state of each peer, or of `some`; `nowUs` is the monotonic clock's time. */
  peerSnapshots(nowUs: number, some = this.peers.all()): PeerSnapshot[] {
    const lines = {
      queues: this.#queues,
      figures: this.#figures,
      rates: this.#rates,
      peerRates: this.peerRates,
    };
    return peerSnapshots(some, this.peers, this.table, this.associations, lines, nowUs);
  }

  /** The paths of the session whose row this is; empty where there is one, or no session. */
  protected pathsOn(session: number): PathSnapshot[] {
    return pathSnapshots(this.associations, session).paths ?? [];
  }

  /** By class, the waits of all packets in both directions in the last half minute: for their lines, for the thread, or none. */
  queueDelays(): DelayCounts[] {
    return this.#figures.ofAll();
  }

  /** The key epochs of each peer; `nowUs` is the monotonic clock's time. */
  sessionSnapshots(nowUs: number): SessionSnapshot[] {
    return sessionSnapshots(this.peers, this.table, this.associations.paths, nowUs);
  }

  /** Ends every session and erases every key. The tunnel cannot be used afterwards. */
  close(): void {
    for (const peer of this.peers.all()) this.removePeer(peer.publicKeyText);
    this.associations.oxtunnel?.tickets?.wipe();
    this.associations.wireguard.checker.wipe();
    this.associations.oxtunnel?.checker.wipe();
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
