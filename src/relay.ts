/**
 * The core in the relay's role: many peers, each with its own inner addresses, and a policy for the destinations of their
 * packets. Sans-IO, as tunnel.ts. Invariant: a peer whose record did not change keeps its sessions. Sends nothing to a
 * client before that client has sent something.
 * Keeps PROTOCOL R5.
 */
import { readClassRule } from "./control/rule_text.ts";
import type { RolloutPercent } from "./control/rollout.ts";
import type { Lz4 } from "./codec/kernels.ts";
import { DestinationPolicy, type DestinationRules } from "./ingress/mod.ts";
import {
  type AdmittedPeer,
  type BarReason,
  decodePresharedKey,
  type PeerTraffic,
  type SeenPeers,
} from "./session/peer_record.ts";
import { ownerOf, type Peer } from "./session/peers.ts";
import { Tunnel } from "./tunnel.ts";
import type { TunnelOptions } from "./tunnel_options.ts";
import { isIpv4, parsePrefix } from "./wire/address.ts";
import type { Parameters } from "./wire/parameters.ts";
import { TIMESTAMP_BYTES } from "./wire/timestamp.ts";

export interface RelayOptions extends TunnelOptions {
  destinations: DestinationRules;
}

/** Settings that a running relay can change. */
export interface RelayTuning {
  maxConnections: number;
  rateLimitPerIp: number;
  destinations: DestinationRules;
  classes: { readonly rules: readonly string[] };
  /** As in TunnelOptions; undefined for none. */
  compression: { lz4: Lz4; thresholdBytes: number } | undefined;
  /** As in TunnelOptions; absent to leave it as it is. */
  rolloutPercent?: RolloutPercent;
}

// The inner MTUs that OxTunnel's parameters can hold (PROTOCOL §11).
const MTU_MIN = 1280, MTU_MAX = 1900;
/** The most peers, of which most are offline at any time. Unused columns cost address space only. */
const PEERS_MIN = 32768, PEERS_MAX = 1 << 20, PEERS_PER_CONNECTION = 4;

/** Peers that `seenPeers` tells at once, so that the Worker moves packets between the parts. */
const SEEN_PEERS = 64;

export class Relay extends Tunnel {
  #ownAddresses: readonly string[] = [];
  readonly #relay4: Uint8Array;

  constructor(options: RelayOptions) {
    const peers = Math.max(PEERS_MIN, PEERS_PER_CONNECTION * options.maxConnections);
    super(options, Math.min(PEERS_MAX, peers), new DestinationPolicy(options.destinations));
    this.#relay4 = Uint8Array.from(options.ipv4.split("."), Number);
  }

  /** The leases of the peer's record, the MTU, and the relay's own inner address. */
  protected override say({ allowedIps }: Peer): Parameters {
    const said: Parameters = this.mtu >= MTU_MIN && this.mtu <= MTU_MAX ? { mtu: this.mtu } : {};
    said.relay4 = this.#relay4;
    for (const text of allowedIps) {
      const prefix = parsePrefix(text);
      if (prefix?.bits !== 128) continue;
      const bytes = Uint8Array.from({ length: 16 }, (_, i) => prefix.address[i >> 2] >>> (24 - 8 * (i & 3)));
      if (isIpv4(prefix.address)) said.lease4 ??= { address: bytes.slice(12), prefixBits: 32 };
      else said.lease6 ??= { address: bytes, prefixBits: 128 };
    }
    return said;
  }

  /** Makes the peers equal to `records`; unchanged ones keep their sessions. Returns the names. */
  replacePeers(records: readonly AdmittedPeer[], nowUs = 0): PeersReport {
    const wanted = new Set(records.map(({ publicKey }) => publicKey));
    const known = [
      ...this.peers.all().map(({ publicKeyText }) => publicKeyText),
      ...this.peers.barred.keys(),
    ];
    const gone = known.filter((key) => !wanted.has(key));
    return this.changePeers(records, gone, nowUs);
  }

  /**
   * Adds or renews the peers of `records`, of which unchanged ones keep their sessions, and removes those with the public
   * keys of `gone`. All removals come before all additions, which may have the same prefixes. A barred peer loses its sessions and
   * is kept out; a peer that only has another name keeps its sessions. Returns the names.
   */
  changePeers(records: readonly AdmittedPeer[], gone: readonly string[], nowUs = 0): PeersReport {
    const removed: string[] = [], added: string[] = [], failed: string[] = [];
    for (const publicKey of gone) {
      this.#unbar(publicKey);
      const peer = this.peers.find(publicKey);
      if (!peer) continue;
      removed.push(peer.name);
      this.removePeer(publicKey);
    }
    const changed: AdmittedPeer[] = [];
    // The key is the same although its record changed: its earlier handshakes stay replays.
    const lastTimestamps = new Map<string, Uint8Array>();
    for (const record of records) {
      const { publicKey, barred } = record;
      const peer = this.peers.find(publicKey);
      if (barred) {
        try {
          this.#bar(record, barred, peer);
        } catch (error) {
          failed.push((error as Error).message);
        }
        continue;
      }
      if (peer && sameRecord(peer, record)) {
        peer.name = record.name;
        this.peerRates.setRecord(peer.id, record, nowUs);
        continue;
      }
      changed.push(record);
      const lastTimestamp = peer?.lastTimestamp.slice() ?? this.peers.barred.get(publicKey)?.lastTimestamp;
      if (lastTimestamp) lastTimestamps.set(publicKey, lastTimestamp);
      this.removePeer(publicKey);
      this.#unbar(publicKey);
    }
    for (const record of changed) {
      try {
        this.addPeer(record, 0, lastTimestamps.get(record.publicKey));
        added.push(record.name);
      } catch (error) {
        failed.push((error as Error).message);
      }
    }
    return { added, removed, failed };
  }

  /** Ends the sessions of a peer and keeps it out until it is a changed peer again or gone. */
  #bar(record: AdmittedPeer, reason: BarReason, peer: Peer | undefined): void {
    const { barred, workers } = this.peers;
    const known = barred.get(record.publicKey);
    const lastTimestamp = peer?.lastTimestamp.slice() ?? known?.lastTimestamp ??
      new Uint8Array(TIMESTAMP_BYTES);
    this.removePeer(record.publicKey);
    this.#unbar(record.publicKey);
    const secrets = this.secretsOf(record);
    barred.set(record.publicKey, {
      reason,
      ...secrets,
      lastTimestamp,
      lastInitiationTakenUs: known?.lastInitiationTakenUs ?? -Infinity,
      owner: ownerOf(secrets.publicKey, workers),
    });
  }

  override close(): void {
    super.close();
    for (const publicKey of this.peers.barred.keys()) this.#unbar(publicKey);
  }

  #unbar(publicKey: string): void {
    const barred = this.peers.barred.get(publicKey);
    barred?.presharedKey.fill(0);
    barred?.staticSecret.fill(0);
    this.peers.barred.delete(publicKey);
  }

  /** Some of this Worker's peers that were ever connected, from a peer's number on; `nowUs` is the monotonic clock's time. */
  seenPeers(from: number, nowUs: number): SeenPeers {
    const { peers, next } = this.peers.seen(this.table.worker, from, SEEN_PEERS);
    const applications = from === 0 ? { applications: this.applications(nowUs) } : {};
    return {
      peers: this.peerSnapshots(nowUs, peers),
      ...(next === undefined ? {} : { next }),
      ...applications,
    };
  }

  /** Traffic by peer since the last call: see `PeerTable.takeTraffic`. */
  takeTraffic(): PeerTraffic {
    return this.peers.takeTraffic();
  }

  /** Applies new limits and rules at once; existing sessions continue. */
  tune(tuning: RelayTuning, nowUs = 0): void {
    this.associations.gate.maxConnections = tuning.maxConnections;
    this.admission.ratePerSecond = tuning.rateLimitPerIp;
    this.ingressContext.policy = new DestinationPolicy(tuning.destinations);
    this.ingressContext.policy.setOwnAddresses(this.#ownAddresses);
    this.setCompression(tuning.compression);
    if (tuning.rolloutPercent !== undefined) this.setRollout(tuning.rolloutPercent, nowUs);
    this.setClassRules(tuning.classes.rules.map((text) => readClassRule(text, parsePrefix)));
  }

  /**
   * Asks a peer of this Worker for an echo at its first inner address of one host, IPv4 before IPv6. Returns the request's name
   * for `roundTripUs`; undefined when there is no such peer here, or no such address.
   */
  ping(publicKey: string): number | undefined {
    const peer = this.peers.find(publicKey);
    const [prefix] = peer?.allowedIps.map((text) => parsePrefix(text)!).filter(({ bits }) => bits === 128)
      .toSorted((one, other) => Number(isIpv4(other.address)) - Number(isIpv4(one.address))) ?? [];
    if (peer === undefined || prefix === undefined) return undefined;
    return this.ingressContext.pings.ask(peer.id, prefix.address, !isIpv4(prefix.address));
  }

  /** Microseconds that the peer's reply took; -1 while there is none. */
  roundTripUs(request: number): number {
    return this.ingressContext.pings.roundTripUs(request);
  }

  /** The host's own addresses, which the policy denies like loopback. */
  setOwnAddresses(addresses: readonly string[]): void {
    this.#ownAddresses = addresses;
    this.ingressContext.policy?.setOwnAddresses(addresses);
  }
}

/** The names of the peers that a change affected, and the reasons why some could not be added. */
export interface PeersReport {
  added: string[];
  removed: string[];
  failed: string[];
}

/** Whether the peer may keep its sessions: its name and its rates can change beside them. */
function sameRecord(peer: Peer, record: AdmittedPeer): boolean {
  if (peer.allowedIps.join() !== record.allowedIps.join()) return false;
  try {
    const presharedKey = decodePresharedKey(record);
    return peer.presharedKey.every((byte, i) => byte === presharedKey[i]);
  } catch {
    return false; // malformed: adding it will say so
  }
}
