// Hot path.
/**
 * The table of paths: for each an outer endpoint of the other end, this host's address towards it, and what is known of
 * the way, as columns. Rows: the first path of an OxTunnel session has the session's row; behind these each peer has a row
 * of its own, its home, which is the path of all its WireGuard sessions. `SessionTable.path` names a session's path; `of`
 * names the path that leads to a peer, with or without a session. A session's further paths have the rows of their first
 * connection ids (`SessionTable.allocatePath`). Counters sent are a key's, and so in the session table.
 * Invariant: only an authentic packet, a validated path (session/oxtunnel/paths.ts) or the client by hand moves an
 * endpoint, and a peer whose session ends keeps the endpoint at home. Sends nothing.
 * Keeps PROTOCOL R16.
 */
import { BASE_BYTES } from "../control/path_size.ts";
import { COUNTER, type Metrics } from "../metrics.ts";
import type { Burst } from "../vector/burst.ts";
import { Columns } from "../vector/columns.ts";
import type { EventRing } from "./events.ts";
import type { PeerTable } from "./peers.ts";

const ECN_MARKS = 4;

export class Paths {
  /** Where packets go, four words a path: IPv6, or IPv4 in its mapped form. */
  readonly address: Uint32Array;
  /** UDP port there, host order; 0 while the endpoint is unknown. */
  readonly port: Uint16Array;
  /** This host's address at which packets of the path arrive, four words a path; zeros while unknown, or to let the system choose. */
  readonly local: Uint32Array;
  /** What a datagram may have now, bytes of UDP payload (PROTOCOL §17). */
  readonly datagramBytes: Uint16Array;
  /** From when on sending begins a search for a larger size, microseconds, or Infinity. */
  readonly searchAtUs: Float64Array;
  /** Smoothed round trip, microseconds (RFC 6298's gain); -1 before the first pong. */
  readonly rttUs: Float64Array;
  /** Highest counter that the other end has reported; -1 before the first report. */
  readonly acknowledged: Float64Array;
  /** Datagrams that came, by their ECN mark, four counts a path. */
  readonly ecn: Uint32Array;
  /** Columns by path that every packet reads; those that only OxTunnel's packets read; and columns by peer. */
  readonly endpoints: Columns;
  readonly measures: Columns;
  readonly presence: Columns;
  /** One more than the row of the path that leads to a peer; 0 for the peer's home path, as in memory never written. */
  readonly #present: Uint32Array;
  readonly #sessionRows: number;
  readonly #peers: PeerTable;
  readonly #metrics: Metrics;
  readonly #events: EventRing;

  /** @param sessionRows rows of the session table. */
  constructor(sessionRows: number, peers: PeerTable, metrics: Metrics, events: EventRing) {
    this.#sessionRows = sessionRows;
    this.#peers = peers;
    this.#metrics = metrics;
    this.#events = events;
    const rows = sessionRows + peers.capacity;
    this.address = new Uint32Array(4 * rows);
    this.port = new Uint16Array(rows);
    this.local = new Uint32Array(4 * rows);
    // WireGuard measures nothing, so homes need no more columns.
    this.datagramBytes = new Uint16Array(sessionRows);
    this.searchAtUs = new Float64Array(sessionRows);
    this.rttUs = new Float64Array(sessionRows);
    this.acknowledged = new Float64Array(sessionRows);
    this.ecn = new Uint32Array(ECN_MARKS * sessionRows);
    this.#present = new Uint32Array(peers.capacity);
    this.endpoints = new Columns().add(this.address, 4).add(this.local, 4).add(this.port);
    this.measures = new Columns().add(this.datagramBytes).add(this.ecn, ECN_MARKS).add(this.acknowledged)
      .add(this.searchAtUs);
    this.presence = new Columns().add(this.#present);
  }

  /** The peer's own row. */
  homeOf(id: number): number {
    return this.#sessionRows + id;
  }

  /** The path that leads to the peer now: its current session's, or where it was heard last. Handshakes take it. */
  of(id: number): number {
    const present = this.#present[id];
    return present === 0 ? this.#sessionRows + id : present - 1;
  }

  /** From now on `path` leads to the peer. */
  use(id: number, path: number): void {
    this.#present[id] = path === this.homeOf(id) ? 0 : path + 1;
  }

  /** The session's path ends with the session; a peer to whom it led is at home now, at the same endpoint. */
  release(id: number, path: number): void {
    if (this.#present[id] !== path + 1) return;
    this.copy(path, this.homeOf(id));
    this.#present[id] = 0;
  }

  /** The peer is removed: whoever has its id next is nowhere. */
  forget(id: number): void {
    this.port[this.homeOf(id)] = 0;
    this.#present[id] = 0;
  }

  /** Begins the path of an OxTunnel session at the peer's present endpoint; nothing is known of the way. */
  begin(path: number, id: number): void {
    this.#forgetWay(path);
    this.copy(this.of(id), path);
  }

  /** Begins a further path of a session, whose endpoint is yet to be found; nothing is known of the way. */
  beginAnew(path: number): void {
    this.#forgetWay(path);
    this.port[path] = 0;
    for (let i = 0; i < 4; i++) this.address[4 * path + i] = this.local[4 * path + i] = 0;
  }

  #forgetWay(path: number): void {
    this.datagramBytes[path] = BASE_BYTES;
    this.searchAtUs[path] = Infinity;
    this.rttUs[path] = -1;
    this.acknowledged[path] = -1;
    for (let i = 0; i < ECN_MARKS; i++) this.ecn[ECN_MARKS * path + i] = 0;
  }

  /** Sets the endpoint of a path. Both addresses begin at `at`. */
  set(path: number, address: Uint32Array, local: Uint32Array, at: number, port: number): void {
    const to = 4 * path;
    for (let i = 0; i < 4; i++) {
      this.address[to + i] = address[at + i];
      this.local[to + i] = local[at + i];
    }
    this.port[path] = port;
  }

  /** Sets the endpoint of the path to a peer by hand, as a client does for its relay; the system chooses the local address. */
  setOf(id: number, words: Uint32Array, port: number): void {
    const path = this.of(id), to = 4 * path;
    for (let i = 0; i < 4; i++) this.address[to + i] = words[i];
    this.port[path] = port;
    this.clearLocal(path);
  }

  /** Lets the system choose the address from which packets leave on the path. */
  clearLocal(path: number): void {
    for (let i = 0; i < 4; i++) this.local[4 * path + i] = 0;
  }

  /** Gives path `to` the endpoint of path `from`. */
  copy(from: number, to: number): void {
    this.set(to, this.address, this.local, 4 * from, this.port[from]);
  }

  /** Whether the path's endpoint is this address, whose words begin at `at`, and port. */
  is(path: number, words: Uint32Array, at: number, port: number): boolean {
    const { address } = this, from = 4 * path;
    return this.port[path] === port && address[from + 3] === words[at + 3] &&
      address[from + 2] === words[at + 2] && address[from + 1] === words[at + 1] &&
      address[from] === words[at];
  }

  /**
   * Moves a WireGuard peer to the source of an authentic packet, `words` and `port`; packets to the peer are sent from the
   * address at which that packet arrived, `local`. Both addresses begin at `at`.
   */
  roam(id: number, words: Uint32Array, at: number, port: number, local: Uint32Array): void {
    const home = this.homeOf(id);
    if (this.#present[id] !== 0) this.release(id, this.#present[id] - 1);
    const to = 4 * home;
    for (let i = 0; i < 4; i++) this.local[to + i] = local[at + i];
    if (this.is(home, words, at, port)) return;
    if (this.port[home] !== 0) this.noteRoaming(id);
    for (let i = 0; i < 4; i++) this.address[to + i] = words[at + i];
    this.port[home] = port;
  }

  /** Addresses the datagram in a burst's `row` to the path's endpoint. */
  direct(burst: Burst, row: number, path: number): void {
    const from = 4 * path, to = 4 * row;
    for (let i = 0; i < 4; i++) {
      burst.address[to + i] = this.address[from + i];
      burst.local[to + i] = this.local[from + i];
    }
    burst.port[row] = this.port[path];
  }

  /** Counts and tells that a peer's endpoint moves. */
  noteRoaming(id: number): void {
    this.#metrics.column[COUNTER.roamed]++;
    this.#events.push("roamed", id, this.#peers.generation[id]);
  }
}
