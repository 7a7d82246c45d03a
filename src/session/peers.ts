/**
 * The peer table: who may talk to this end. Columns hold what packets touch (epochs, deadlines, counts) and every peer's
 * keys; a Peer object holds the rest, which handshakes and admin touch. Invariant: an id is stable while its peer lives,
 * every allowed prefix belongs to exactly one peer, and a column's memory is committed only up to the highest id ever
 * used. Where peers are is in paths.ts. Decides nothing about time or cryptography.
 */
import { NONE } from "../vector/arena.ts";
import { Columns } from "../vector/columns.ts";
import { isIpv4, parsePrefix, type Prefix } from "../wire/address.ts";
import type { Parameters } from "../wire/parameters.ts";
import { TIMESTAMP_BYTES } from "../wire/timestamp.ts";
import { type CookieChecker, CookieJar, JAR_BYTES, OXTUNNEL_COOKIES } from "./cookie.ts";
import type { HandshakeState } from "./noise.ts";
import type { BarReason, PeerTraffic } from "./peer_record.ts";
import { type Ticket, wipeTicket } from "./oxtunnel/tickets.ts";
import { PrefixTable } from "../vector/prefix_table.ts";
import { WIREGUARD } from "./table.ts";

/** A handshake that this end has started and that has not been answered. */
export interface PendingHandshake {
  state: HandshakeState;
  /** The session row that holds its receiver index. */
  row: number;
  sentUs: number;
  /** Checks the MACs of the answer: the one of the protocol that the handshake is in. */
  checker: CookieChecker;
  /** Those of the waiting packets that the initiation carries, if it does. */
  early?: readonly StagedPacket[];
}

/** A packet that waits for a session: who owns its slot is the queue. */
export interface StagedPacket {
  slot: number;
  offset: number;
  length: number;
  /** Whether an initiation has carried it, which is no other's to do again (PROTOCOL R67). */
  wasEarly?: boolean;
}

// A peer's block of bytes: 32-byte keys, its timestamp, its cookie jar. A Uint8Array of its own for each would cost ten
// times the bytes that it holds, and leave copies of secrets wherever the collector moved it.
const KEY_BYTES = 32;
const PUBLIC_KEY_AT = 0;
const PRESHARED_KEY_AT = KEY_BYTES;
const STATIC_SECRET_AT = 2 * KEY_BYTES;
const TIMESTAMP_AT = 3 * KEY_BYTES;
const JAR_AT = TIMESTAMP_AT + 16;
const OX_JAR_AT = JAR_AT + JAR_BYTES;
const BLOCK_BYTES = OX_JAR_AT + JAR_BYTES;

export class Peer {
  readonly id: number;
  /** A new name changes nothing but what people read. */
  name: string;
  /** base64, as in the store. */
  readonly publicKeyText: string;
  readonly allowedIps: readonly string[];
  /** Signs WireGuard's handshake messages; `oxJar` signs OxTunnel's. */
  readonly jar: CookieJar;
  readonly oxJar: CookieJar;

  lastInitiationTakenUs = -Infinity;
  /** When an event last said that an initiation's timestamp was older than one before it. */
  staleSaidUs = -Infinity;
  lastInitiationSentUs = -Infinity;
  /** Attempts in the present series, which began at `attemptsSinceUs`; Infinity when there is none. */
  attempts = 0;
  attemptsSinceUs = Infinity;
  retryAtUs = Infinity;
  pending: PendingHandshake | undefined;
  /** What the peer's last response to an OxTunnel initiation said of itself, or why it refused. */
  told: Parameters | undefined;
  refused: Parameters["refused"];
  /** Where the relay saw this end's last probe come from. */
  seen: Parameters["seen"];
  /** The last ticket that the peer gave. Secret. */
  ticket: Ticket | undefined;
  lastHandshakeUs = -Infinity;
  handshakeRttUs = -1;
  /** Whether the present epoch already asked for its successor on receipt. */
  askedForSuccessor = false;
  /** Whether it holds a session, confirmed or not: what `max_connections` counts. */
  connected = false;
  /** Whether both ends proved that they hold the keys since it connected. */
  established = false;
  readonly staged: StagedPacket[] = [];
  readonly #blocks: Uint8Array;

  /** @param blocks the table's blocks, of which the id-th is this peer's. */
  constructor(id: number, identity: PeerIdentity, blocks: Uint8Array) {
    this.id = id;
    this.name = identity.name;
    this.publicKeyText = identity.publicKeyText;
    this.allowedIps = identity.allowedIps;
    this.#blocks = blocks;
    this.publicKey.set(identity.publicKey);
    this.presharedKey.set(identity.presharedKey);
    this.staticSecret.set(identity.staticSecret);
    if (identity.lastTimestamp) this.lastTimestamp = identity.lastTimestamp;
    const { publicKey, cookieLifeUs } = identity;
    this.jar = new CookieJar(publicKey, cookieLifeUs, blocks, BLOCK_BYTES * id + JAR_AT);
    const oxAt = BLOCK_BYTES * id + OX_JAR_AT;
    this.oxJar = new CookieJar(publicKey, cookieLifeUs, blocks, oxAt, OXTUNNEL_COOKIES);
  }

  // Views, good while the peer is in the table.
  get publicKey(): Uint8Array {
    return this.#bytes(PUBLIC_KEY_AT, KEY_BYTES);
  }
  /** 32 bytes; all zero when there is none. Secret. */
  get presharedKey(): Uint8Array {
    return this.#bytes(PRESHARED_KEY_AT, KEY_BYTES);
  }
  /** X25519 of both static keys. Secret. */
  get staticSecret(): Uint8Array {
    return this.#bytes(STATIC_SECRET_AT, KEY_BYTES);
  }
  /** Greatest TAI64N accepted from this peer. Outlives sessions. */
  get lastTimestamp(): Uint8Array {
    return this.#bytes(TIMESTAMP_AT, TIMESTAMP_BYTES);
  }
  /** Copies it. */
  set lastTimestamp(timestamp: Uint8Array) {
    this.lastTimestamp.set(timestamp);
  }

  /** Overwrites its keys. */
  wipe(): void {
    wipeTicket(this.ticket);
    this.ticket = undefined;
    this.#bytes(0, BLOCK_BYTES).fill(0);
  }

  #bytes(at: number, length: number): Uint8Array {
    const from = BLOCK_BYTES * this.id + at;
    return this.#blocks.subarray(from, from + length);
  }
}

/** How many ids `seen` looks at in one call. */
const SEEN_LOOKS = 8192;

/** What `add` needs to know. The table copies the keys; the caller wipes its own. */
export interface PeerIdentity {
  name: string;
  publicKeyText: string;
  publicKey: Uint8Array;
  presharedKey: Uint8Array;
  staticSecret: Uint8Array;
  allowedIps: readonly string[];
  /** How long a cookie from this peer is good. */
  cookieLifeUs: number;
  /** Microseconds between keepalives to keep a NAT open; 0 for none. */
  persistentKeepaliveUs: number;
  /** Greatest TAI64N that was ever accepted from this key; none when absent. */
  lastTimestamp?: Uint8Array;
}

/** Standard base64 with padding (RFC 4648 §4), as WireGuard's tools write keys. */
export function base64(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes));
}

/** The one of `workers` Workers that keeps a peer's sessions: each computes the same from the public key. */
export function ownerOf(publicKey: Uint8Array, workers: number): number {
  return (publicKey[0] | (publicKey[1] << 8)) % workers;
}

/** A peer that is kept out: what it takes to tell it so. Its preshared and static secrets are secret. */
export interface BarredPeer {
  reason: BarReason;
  readonly publicKey: Uint8Array;
  /** All zero where there is none. */
  readonly presharedKey: Uint8Array;
  /** X25519 of both static keys. */
  readonly staticSecret: Uint8Array;
  /** Greatest TAI64N accepted, so that earlier handshakes stay replays, also once it is let in again; and when it was. */
  readonly lastTimestamp: Uint8Array;
  lastInitiationTakenUs: number;
  /** The Worker that answers it. */
  readonly owner: number;
}

export class PeerTable {
  readonly capacity: number;
  /** Session rows of the three epochs, or NONE. */
  readonly current: Uint32Array;
  readonly previous: Uint32Array;
  readonly next: Uint32Array;
  /** Deadlines in microseconds, Infinity when unset. */
  readonly keepaliveAtUs: Float64Array;
  readonly silenceAtUs: Float64Array;
  readonly persistentAtUs: Float64Array;
  /** The interval of persistent keepalives, 0 for none; and whether any peer ever had one, which a relay's have not. */
  readonly persistentKeepaliveUs: Float64Array;
  isAnyKeptAlive = false;
  /** The protocol that this end begins a handshake with: what the peer spoke last. WIREGUARD or OXTUNNEL. */
  readonly protocol: Uint8Array;
  /** The random part of this session's timers. */
  readonly jitterUs: Float64Array;
  /** The first IPv4 address that is the peer's alone, host order; 0 where there is none. */
  readonly ipv4: Uint32Array;
  /** The Worker that keeps the peer's sessions. */
  readonly owner: Uint8Array;
  /** Changes when an id passes from one peer to another. */
  readonly generation: Uint32Array;
  readonly bytesReceived: Float64Array;
  readonly bytesSent: Float64Array;
  readonly drops: Float64Array;
  /** What a datagram reads of its peer on the way in, and a packet on the way out. */
  readonly received: Columns;
  readonly sent: Columns;
  /** Peers that are known and kept out, by public key in base64. */
  readonly barred = new Map<string, BarredPeer>();
  /** Inner address to peer. */
  readonly routes = new PrefixTable();
  readonly #peers: (Peer | undefined)[] = [];
  readonly #blocks: Uint8Array;
  readonly #byKey = new Map<string, Peer>();
  readonly #free: number[] = [];
  /** What `takeTraffic` has told of each peer, and what it has still to tell of peers that are gone. */
  readonly #toldReceived: Float64Array;
  readonly #toldSent: Float64Array;
  readonly #untold = new Map<string, { received: number; sent: number }>();

  /**
   * @param capacity most peers at once.
   * @param workers Workers among which peers are divided.
   */
  constructor(capacity: number, readonly workers = 1) {
    this.capacity = capacity;
    // All zero, and filled in by `add`: what is never written is never committed.
    this.current = new Uint32Array(capacity);
    this.previous = new Uint32Array(capacity);
    this.next = new Uint32Array(capacity);
    this.keepaliveAtUs = new Float64Array(capacity);
    this.silenceAtUs = new Float64Array(capacity);
    this.persistentAtUs = new Float64Array(capacity);
    this.persistentKeepaliveUs = new Float64Array(capacity);
    this.jitterUs = new Float64Array(capacity);
    this.protocol = new Uint8Array(capacity);
    this.ipv4 = new Uint32Array(capacity);
    this.owner = new Uint8Array(capacity);
    this.generation = new Uint32Array(capacity);
    this.bytesReceived = new Float64Array(capacity);
    this.bytesSent = new Float64Array(capacity);
    this.drops = new Float64Array(capacity);
    this.#toldReceived = new Float64Array(capacity);
    this.#toldSent = new Float64Array(capacity);
    const both = () => new Columns().add(this.current).add(this.keepaliveAtUs).add(this.silenceAtUs);
    this.received = both().add(this.next).add(this.ipv4).add(this.bytesReceived);
    this.sent = both().add(this.owner).add(this.jitterUs).add(this.bytesSent);
    this.#blocks = new Uint8Array(BLOCK_BYTES * capacity);
  }

  get size(): number {
    return this.#byKey.size;
  }

  /** Ids are below this; that of a peer that is gone has NONE for its sessions. */
  get ids(): number {
    return this.#peers.length;
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
    const prefixes = prefixesOf(identity);
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
    const peer = new Peer(id, identity, this.#blocks);
    this.current[id] = this.previous[id] = this.next[id] = NONE;
    this.keepaliveAtUs[id] = this.silenceAtUs[id] = this.persistentAtUs[id] = Infinity;
    this.persistentKeepaliveUs[id] = identity.persistentKeepaliveUs;
    this.isAnyKeptAlive ||= identity.persistentKeepaliveUs > 0;
    const leased = prefixes.find(({ address, bits }) => bits === 128 && isIpv4(address));
    this.ipv4[id] = leased === undefined ? 0 : leased.address[3];
    this.protocol[id] = WIREGUARD;
    this.#peers[id] = peer;
    this.owner[id] = ownerOf(peer.publicKey, this.workers);
    this.#byKey.set(peer.publicKeyText, peer);
    return peer;
  }

  /** Forgets a peer, wipes its secrets and resets its columns. Its sessions, queue and path are the caller's to end. */
  remove(peer: Peer): void {
    const { id } = peer;
    this.#collect(peer);
    for (const { address, bits } of prefixesOf(peer)) this.routes.delete(address, bits);
    this.#byKey.delete(peer.publicKeyText);
    this.#peers[id] = undefined;
    this.#free.push(id);
    peer.wipe();
    this.generation[id]++;
    this.bytesReceived[id] = this.bytesSent[id] = this.drops[id] = 0;
    this.#toldReceived[id] = this.#toldSent[id] = 0;
  }

  /**
   * At most `most` of the peers of `worker` that are connected or ever were, from the id `from` on, and the id to go on from, undefined at the
   * end. Looks at no more than SEEN_LOOKS ids.
   */
  seen(worker: number, from: number, most: number): { peers: Peer[]; next: number | undefined } {
    const peers: Peer[] = [];
    const end = Math.min(this.#peers.length, from + SEEN_LOOKS);
    let id = from;
    for (; id < end && peers.length < most; id++) {
      const peer = this.owner[id] === worker ? this.#peers[id] : undefined;
      if (peer && (peer.connected || peer.lastHandshakeUs !== -Infinity)) peers.push(peer);
    }
    return { peers, next: id < this.#peers.length ? id : undefined };
  }

  /** The traffic of each peer that had any since the last call, also of peers removed since. */
  takeTraffic(): PeerTraffic {
    for (let id = 0; id < this.#peers.length; id++) {
      const isTold = this.bytesReceived[id] === this.#toldReceived[id] &&
        this.bytesSent[id] === this.#toldSent[id];
      const peer = isTold ? undefined : this.#peers[id];
      if (peer !== undefined) this.#collect(peer);
    }
    const each = [...this.#untold.values()];
    const traffic = {
      publicKeys: [...this.#untold.keys()],
      received: each.map(({ received }) => received),
      sent: each.map(({ sent }) => sent),
    };
    this.#untold.clear();
    return traffic;
  }

  #collect({ id, publicKeyText }: Peer): void {
    const received = this.bytesReceived[id] - this.#toldReceived[id];
    const sent = this.bytesSent[id] - this.#toldSent[id];
    if (received === 0 && sent === 0) return;
    const before = this.#untold.get(publicKeyText);
    this.#untold.set(publicKeyText, {
      received: (before?.received ?? 0) + received,
      sent: (before?.sent ?? 0) + sent,
    });
    this.#toldReceived[id] += received;
    this.#toldSent[id] += sent;
  }
}

/** The allowed prefixes, parsed; throws when one is malformed. */
function prefixesOf({ name, allowedIps }: Pick<PeerIdentity, "name" | "allowedIps">): Prefix[] {
  return allowedIps.map((text) => {
    const prefix = parsePrefix(text);
    if (!prefix) throw new Error(`peer ${name}: "${text}" is not an IP prefix`);
    return prefix;
  });
}
