// Hot path.
/**
 * The session table: one row per WireGuard key epoch, OxTunnel session, spare connection id or pending handshake, as
 * columns. Invariant: a receiver index (OxTunnel: connection id) names at most one live row, and a freed row's keys
 * are overwritten and its index is given out again only after 255 others of that row. Of a peer it knows the id, of time
 * when a session's keys were made and when they end.
 * Keeps PROTOCOL R45.
 */
import type { Aead, DatagramAead } from "../codec/kernels.ts";
import { NONE } from "../vector/arena.ts";
import { Columns } from "../vector/columns.ts";
import { ReplayWindows } from "./replay.ts";
import { Scrambler } from "./scramble.ts";

// Protocols, as the column `protocol` names them; 0 is a handshake that is not finished.
export const WIREGUARD = 1;
export const OXTUNNEL = 2;

/** Rows in use that, with what their packets need of all tables, stay in a core's own cache of about 1 MB. */
export const SESSIONS_CACHED = 512;

const ROW_BITS = 20;
/** What the receiver index has room for: four bits name the Worker, eight count the row's uses, and the row is scrambled with them. */
export const SESSION_ROWS_MAX = 1 << ROW_BITS;
const ROW_MASK = (1 << ROW_BITS) - 1;
const WORKER_SHIFT = 28;
const BELOW_WORKER = (1 << WORKER_SHIFT) - 1;

/** Keys of an OxTunnel session's first epoch and of header protection, 32 bytes each, for both directions. Secret. */
export interface DatagramKeys {
  readonly sendKey: Uint8Array;
  readonly receiveKey: Uint8Array;
  readonly sendProtect: Uint8Array;
  readonly receiveProtect: Uint8Array;
}

export class SessionTable {
  readonly capacity: number;
  /** The index that the other end must name, by row; NONE for a row that was given back. */
  readonly receiverIndex: Uint32Array;
  /** The index that this end must name when sending. */
  readonly remoteIndex: Uint32Array;
  /** Owner in the peer table. */
  readonly peer: Uint32Array;
  /** WIREGUARD, OXTUNNEL, or 0 before the row has keys. */
  readonly protocol: Uint8Array;
  /** The row with the session that an id leads to: itself, but for OxTunnel's spare connection ids. */
  readonly session: Uint32Array;
  /**
   * A row of paths.ts: of a session its first path, which has the session's own row with OxTunnel and its peer's home with
   * WireGuard; of a spare id the path that the id was given out for. A further path of a session has the row of its first id.
   */
  readonly path: Uint32Array;
  /** The number of the path whose row this is, 0 to 7 (PROTOCOL §17). */
  readonly pathNumber: Uint8Array;
  /** 1 for sessions with more than one path. */
  readonly isMultipath: Uint8Array;
  /** When the keys were made, in microseconds. */
  readonly bornUs: Float64Array;
  /** From when on the keys seal and open nothing, in microseconds. */
  readonly endsUs: Float64Array;
  /** The counter of the next packet to send. */
  readonly sendCounter: Float64Array;
  /** Counters from here on are not sent. */
  readonly sendLimit: Float64Array;
  /** 1 when this end started the handshake. */
  readonly initiator: Uint8Array;
  /** 1 while the row has transport keys. */
  readonly keyed: Uint8Array;
  readonly replay: ReplayWindows;
  /** What a datagram reads of its session's row on the way in, and a packet on the way out. */
  readonly received: Columns;
  readonly sent: Columns;
  /** The top four bits of every receiver index here. */
  readonly worker: number;
  /** Rows in use. */
  count = 0;

  readonly #aead: Aead;
  readonly #datagramAead: DatagramAead | undefined;
  // Spare ids have rows at the far end, so that those with keys and windows lie close together. At each end the rows
  // from `#fresh` or `#freshSpares` on were never taken, so that their memory is not committed yet; those that were given
  // back are a stack, which begins at the same end of `#free`.
  readonly #free: Uint32Array;
  #freeCount = 0;
  #fresh = 0;
  #freeSpares = 0;
  #freshSpares = 0;
  /** How often each row was taken, modulo 256. */
  readonly #uses: Uint8Array;
  readonly #scrambler: Scrambler;

  /**
   * @param capacity rows, 1 to SESSION_ROWS_MAX.
   * @param worker 0 to 15, the top four bits of every receiver index: what steering reads.
   * @param random a fresh uniform u32 per call.
   * @param datagramAead the keys of OxTunnel's sessions; absent where it is not spoken.
   */
  constructor(
    capacity: number,
    worker: number,
    aead: Aead,
    random: () => number,
    datagramAead?: DatagramAead,
  ) {
    if (capacity < 1 || capacity > SESSION_ROWS_MAX) throw new RangeError(`sessions: capacity ${capacity}`);
    this.capacity = capacity;
    this.receiverIndex = new Uint32Array(capacity);
    this.remoteIndex = new Uint32Array(capacity);
    this.peer = new Uint32Array(capacity);
    this.protocol = new Uint8Array(capacity);
    this.session = new Uint32Array(capacity);
    this.path = new Uint32Array(capacity);
    this.pathNumber = new Uint8Array(capacity);
    this.isMultipath = new Uint8Array(capacity);
    this.bornUs = new Float64Array(capacity);
    this.endsUs = new Float64Array(capacity);
    this.sendCounter = new Float64Array(capacity);
    this.sendLimit = new Float64Array(capacity);
    this.initiator = new Uint8Array(capacity);
    this.keyed = new Uint8Array(capacity);
    this.replay = new ReplayWindows(capacity);
    this.received = new Columns().add(this.receiverIndex).add(this.keyed).add(this.protocol)
      .add(this.peer).add(this.path).add(this.endsUs).add(this.initiator).add(this.replay.highest);
    this.sent = new Columns().add(this.endsUs).add(this.sendCounter).add(this.sendLimit).add(this.protocol)
      .add(this.path).add(this.remoteIndex).add(this.initiator);
    this.#aead = aead;
    this.#datagramAead = datagramAead;
    this.#uses = new Uint8Array(capacity);
    this.#scrambler = new Scrambler(random);
    this.worker = worker & 15;
    this.#free = new Uint32Array(capacity);
  }

  /** Takes a row for a handshake of `peer`, or NONE when the table is full. */
  allocate(peer: number): number {
    return this.#take(peer, false);
  }

  #take(peer: number, isSpare: boolean): number {
    if (this.count === this.capacity) return NONE;
    this.count++;
    const row = this.#unusedRow(isSpare);
    let index = NONE;
    // The all-ones index is the sentinel of a free row, and zero what memory never written holds.
    while (index === NONE || index === 0) {
      const below = this.#scrambler.scramble((this.#uses[row]++ << ROW_BITS) | row);
      index = ((this.worker << WORKER_SHIFT) | below) >>> 0;
    }
    this.receiverIndex[row] = index;
    this.peer[row] = peer;
    this.protocol[row] = 0;
    this.session[row] = this.path[row] = row;
    this.pathNumber[row] = this.isMultipath[row] = 0;
    this.keyed[row] = 0;
    return row;
  }

  /** From its own end, given back before fresh, or else one that was given back at the other. There is one. */
  #unusedRow(isSpare: boolean): number {
    if ((isSpare ? this.#freeSpares : this.#freeCount) === 0) {
      if (this.#fresh + this.#freshSpares < this.capacity) {
        return isSpare ? this.capacity - ++this.#freshSpares : this.#fresh++;
      }
      isSpare = !isSpare;
    }
    return isSpare ? this.#free[this.capacity - this.#freeSpares--] : this.#free[--this.#freeCount];
  }

  /** Takes a row for one more connection id of a path of an OxTunnel session, or NONE when the table is full. */
  allocateSpare(session: number, path = session): number {
    const row = this.#take(this.peer[session], true);
    if (row === NONE) return NONE;
    this.protocol[row] = OXTUNNEL;
    this.session[row] = session;
    this.path[row] = path;
    return row;
  }

  /** Takes a row for a further path of an OxTunnel session, of the number 1 to 7, and its first id; NONE when the table is full. */
  allocatePath(session: number, number: number): number {
    const row = this.allocateSpare(session);
    if (row === NONE) return NONE;
    this.path[row] = row;
    this.pathNumber[row] = number;
    this.sendCounter[row] = 0;
    this.sendLimit[row] = 0;
    this.remoteIndex[row] = NONE;
    this.replay.reset(row);
    return row;
  }

  /** Gives a row WireGuard's transport keys; its counters start at zero. */
  key(
    row: number,
    remoteIndex: number,
    initiator: boolean,
    nowUs: number,
    send: Uint8Array,
    receive: Uint8Array,
  ): void {
    this.#aead.install(row, send, receive);
    this.#start(row, WIREGUARD, remoteIndex, initiator, nowUs);
  }

  /** Gives a row OxTunnel's header-protection keys and those of epoch 0; the one of `aead` is used. */
  begin(
    row: number,
    remoteIndex: number,
    initiator: boolean,
    nowUs: number,
    aead: number,
    secrets: DatagramKeys,
  ): void {
    this.#datagramAead!.begin(row, aead, secrets.sendProtect, secrets.receiveProtect);
    this.#datagramAead!.install(row, 0, secrets.sendKey, secrets.receiveKey);
    this.#start(row, OXTUNNEL, remoteIndex, initiator, nowUs);
  }

  #start(row: number, protocol: number, remoteIndex: number, initiator: boolean, nowUs: number): void {
    this.protocol[row] = protocol;
    this.path[row] = protocol === OXTUNNEL ? row : this.capacity + this.peer[row];
    this.endsUs[row] = Infinity;
    this.sendLimit[row] = Infinity;
    this.remoteIndex[row] = remoteIndex;
    this.initiator[row] = initiator ? 1 : 0;
    this.bornUs[row] = nowUs;
    this.sendCounter[row] = 0;
    this.keyed[row] = 1;
    this.replay.reset(row);
  }

  /** Overwrites the row's keys and frees it. Does nothing for NONE. */
  erase(row: number): void {
    if (row === NONE) return;
    if (this.keyed[row] === 1) {
      if (this.protocol[row] === OXTUNNEL) this.#datagramAead!.erase(row);
      else this.#aead.erase(row);
    }
    this.keyed[row] = 0;
    this.receiverIndex[row] = NONE;
    this.peer[row] = NONE;
    if (row < this.#fresh) this.#free[this.#freeCount++] = row;
    else this.#free[this.capacity - ++this.#freeSpares] = row;
    this.count--;
  }

  /** Writes the paths of the sessions rows[0..count-1] to `out`. */
  pathsOf(rows: Uint32Array, count: number, out: Uint32Array): void {
    for (let i = 0; i < count; i++) out[i] = this.path[rows[i]];
  }

  /** Writes those of rows[0..count-1] that speak OxTunnel to `out`; returns how many there are. */
  oxtunnelOf(rows: Uint32Array, count: number, out: Uint32Array): number {
    let found = 0;
    for (let i = 0; i < count; i++) if (this.protocol[rows[i]] === OXTUNNEL) out[found++] = rows[i];
    return found;
  }

  /** The row that a receiver index would name, 0 to SESSION_ROWS_MAX - 1, whether or not there is one. */
  rowOf(receiverIndex: number): number {
    return this.#scrambler.unscramble(receiverIndex & BELOW_WORKER) & ROW_MASK;
  }

  /** The row that a receiver index names, or NONE. */
  find(receiverIndex: number): number {
    const row = this.rowOf(receiverIndex);
    return row < this.capacity && this.receiverIndex[row] === receiverIndex && receiverIndex !== 0 &&
        receiverIndex !== NONE
      ? row
      : NONE;
  }
}
