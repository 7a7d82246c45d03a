/**
 * The peer table: who may talk to this end. Columns hold what packets touch (endpoint, epochs, deadlines,
 * counts); a Peer object holds what handshakes and admin touch. Invariant: an id is stable while its peer lives
 * and every allowed prefix belongs to exactly one peer. Decides nothing about time or cryptography.
 */
import { NONE } from "../vector/arena.ts";
import { parsePrefix, type Prefix } from "../wire/address.ts";
import type { CookieJar } from "./cookie.ts";
import type { HandshakeState } from "./handshake.ts";
import { PrefixTable } from "./prefix_table.ts";

/** A handshake that this end has started and that has not been answered. */
export interface PendingHandshake {
  state: HandshakeState;
  /** The session row that holds its receiver index. */
  row: number;
  sentUs: number;
}

/** A packet that waits for a session: who owns its slot is the queue. */
export interface StagedPacket {
  slot: number;
  offset: number;
  length: number;
}

export interface Peer {
  readonly id: number;
  readonly name: string;
  /** base64, as in the store. */
  readonly publicKeyText: string;
  readonly publicKey: Uint8Array;
  /** 32 bytes; all zero when there is none. Secret. */
  readonly presharedKey: Uint8Array;
  /** X25519 of both static keys. Secret. */
  readonly staticSecret: Uint8Array;
  readonly allowedIps: readonly string[];
  readonly prefixes: readonly Prefix[];
  readonly jar: CookieJar;
  /** Seconds become microseconds; 0 for none. */
  readonly persistentKeepaliveUs: number;

  /** Greatest TAI64N accepted from this peer. Outlives sessions. */
  lastTimestamp: Uint8Array;
  lastInitiationTakenUs: number;
  lastInitiationSentUs: number;
  /** When the present series of attempts began; Infinity when there is none. */
  attemptsSinceUs: number;
  retryAtUs: number;
  pending: PendingHandshake | undefined;
  lastHandshakeUs: number;
  handshakeRttUs: number;
  /** Whether the present epoch already asked for its successor on receipt. */
  askedForSuccessor: boolean;
  /** Whether it holds a session, confirmed or not: what `max_connections` counts. */
  connected: boolean;
  /** Whether both ends proved that they hold the keys since it connected. */
  established: boolean;
  staged: StagedPacket[];
}

/** What `add` needs to know. */
export interface PeerIdentity {
  name: string;
  publicKeyText: string;
  publicKey: Uint8Array;
  presharedKey: Uint8Array;
  staticSecret: Uint8Array;
  allowedIps: readonly string[];
  jar: CookieJar;
  persistentKeepaliveUs: number;
  /** Greatest TAI64N that was ever accepted from this key; none when absent. */
  lastTimestamp?: Uint8Array;
}

/** The one of `workers` Workers that keeps a peer's sessions: all of them agree on it without a word. */
export function ownerOf(publicKey: Uint8Array, workers: number): number {
  return (publicKey[0] | (publicKey[1] << 8)) % workers;
}

export class PeerTable {
  readonly capacity: number;
  /** Outer address of the last authentic packet, four words a peer. */
  readonly address: Uint32Array;
  /** Outer port; 0 while the peer's endpoint is unknown. */
  readonly port: Uint16Array;
  /** Session rows of the three epochs, or NONE. */
  readonly current: Uint32Array;
  readonly previous: Uint32Array;
  readonly next: Uint32Array;
  /** Deadlines in microseconds, Infinity when unset. */
  readonly keepaliveAtUs: Float64Array;
  readonly silenceAtUs: Float64Array;
  readonly persistentAtUs: Float64Array;
  /** The random part of this session's timers. */
  readonly jitterUs: Float64Array;
  /** The Worker that keeps the peer's sessions. */
  readonly owner: Uint8Array;
  /** Changes when an id passes from one peer to another. */
  readonly generation: Uint32Array;
  readonly bytesReceived: Float64Array;
  readonly bytesSent: Float64Array;
  readonly drops: Float64Array;
  /** Inner address to peer. */
  readonly routes = new PrefixTable();
  readonly #peers: (Peer | undefined)[];
  readonly #byKey = new Map<string, Peer>();
  readonly #free: number[] = [];

  /**
   * @param capacity most peers at once.
   * @param workers Workers among which peers are divided.
   */
  constructor(capacity: number, readonly workers = 1) {
    this.capacity = capacity;
    this.address = new Uint32Array(4 * capacity);
    this.port = new Uint16Array(capacity);
    this.current = new Uint32Array(capacity).fill(NONE);
    this.previous = new Uint32Array(capacity).fill(NONE);
    this.next = new Uint32Array(capacity).fill(NONE);
    this.keepaliveAtUs = new Float64Array(capacity).fill(Infinity);
    this.silenceAtUs = new Float64Array(capacity).fill(Infinity);
    this.persistentAtUs = new Float64Array(capacity).fill(Infinity);
    this.jitterUs = new Float64Array(capacity);
    this.owner = new Uint8Array(capacity);
    this.generation = new Uint32Array(capacity);
    this.bytesReceived = new Float64Array(capacity);
    this.bytesSent = new Float64Array(capacity);
    this.drops = new Float64Array(capacity);
    this.#peers = [];
  }

  get size(): number {
    return this.#byKey.size;
  }

  get(id: number): Peer | undefined {
    return this.#peers[id];
  }

  /** By public key in base64. */
  find(publicKeyText: string): Peer | undefined {
    return this.#byKey.get(publicKeyText);
  }

  all(): Peer[] {
    return [...this.#byKey.values()];
  }

  /**
   * Adds a peer. Throws when the table is full, the key is already there, or a prefix is malformed or belongs to
   * another peer.
   */
  add(identity: PeerIdentity): Peer {
    if (this.#byKey.has(identity.publicKeyText)) {
      throw new Error(`peer ${identity.name}: its public key already belongs to a peer`);
    }
    if (this.size >= this.capacity) {
      throw new Error(`peer ${identity.name}: ${this.capacity} peers are the limit`);
    }
    const prefixes = identity.allowedIps.map((text) => {
      const prefix = parsePrefix(text);
      if (!prefix) throw new Error(`peer ${identity.name}: "${text}" is not an IP prefix`);
      return prefix;
    });
    const id = this.#free.pop() ?? this.#peers.length;
    for (let i = 0; i < prefixes.length; i++) {
      const { address, bits } = prefixes[i];
      const owner = this.routes.set(address, bits, id);
      if (owner === NONE || owner === id) continue;
      this.routes.set(address, bits, owner);
      for (let j = 0; j < i; j++) this.routes.delete(prefixes[j].address, prefixes[j].bits);
      this.#free.push(id);
      const other = this.#peers[owner]?.name;
      throw new Error(`peer ${identity.name}: ${identity.allowedIps[i]} already belongs to ${other}`);
    }
    const peer: Peer = {
      ...identity,
      id,
      prefixes,
      lastTimestamp: identity.lastTimestamp ?? new Uint8Array(12),
      lastInitiationTakenUs: -Infinity,
      lastInitiationSentUs: -Infinity,
      attemptsSinceUs: Infinity,
      retryAtUs: Infinity,
      pending: undefined,
      lastHandshakeUs: -Infinity,
      handshakeRttUs: -1,
      askedForSuccessor: false,
      connected: false,
      established: false,
      staged: [],
    };
    this.#peers[id] = peer;
    this.owner[id] = ownerOf(peer.publicKey, this.workers);
    this.#byKey.set(peer.publicKeyText, peer);
    return peer;
  }

  /** Forgets a peer, wipes its secrets and resets its columns. Its sessions and queue are the caller's to end. */
  remove(peer: Peer): void {
    const { id } = peer;
    for (const { address, bits } of peer.prefixes) this.routes.delete(address, bits);
    this.#byKey.delete(peer.publicKeyText);
    this.#peers[id] = undefined;
    this.#free.push(id);
    peer.presharedKey.fill(0);
    peer.staticSecret.fill(0);
    this.port[id] = 0;
    this.keepaliveAtUs[id] = this.silenceAtUs[id] = this.persistentAtUs[id] = Infinity;
    this.generation[id]++;
    this.bytesReceived[id] = this.bytesSent[id] = this.drops[id] = 0;
  }
}
