// Hot path.
/**
 * Each peer's sessions: the next, which waits for its first packet, the current, under which this end sends, and the
 * previous, which only opens (PROTOCOL §5, §10). Invariant: a session is at one of a peer's three places or at none, and
 * leaves them with its keys overwritten; a peer counts as a connection while it has a next or a current one. Sends
 * nothing and begins no handshake.
 * Keeps PROTOCOL R7 and R13.
 */
import { NONE } from "../vector/arena.ts";
import type { EventKind } from "./events.ts";
import type { Peer } from "./peers.ts";
import type { Shared } from "./shared.ts";
import { OXTUNNEL } from "./table.ts";

export class Epochs {
  /** Peers with a session that can carry data, or one about to. */
  connections = 0;
  readonly #s: Shared;

  constructor(shared: Shared) {
    this.#s = shared;
  }

  /** The session on which a packet to the peer may go now, or NONE. */
  sendable(id: number, nowUs: number): number {
    const session = this.#s.peers.current[id];
    return session !== NONE && this.#isOpen(session, nowUs) ? session : NONE;
  }

  /** Whether the session is the one before the peer's present one, and the other end still opens what is sent under it. */
  isStillOpen(id: number, session: number, nowUs: number): boolean {
    return session === this.#s.peers.previous[id] && this.#isOpen(session, nowUs);
  }

  #isOpen(session: number, nowUs: number): boolean {
    const { table } = this.#s;
    return nowUs < table.endsUs[session] && table.sendCounter[session] < table.sendLimit[session];
  }

  /**
   * Whether the peer's present session is of OxTunnel, which follows validated paths only, and `session`, of WireGuard, is
   * not about to take its place.
   */
  isOnOxtunnel(id: number, session: number): boolean {
    const { peers, table } = this.#s;
    const current = peers.current[id];
    return current !== NONE && table.protocol[current] === OXTUNNEL && session !== peers.next[id];
  }

  /** `session`, which has got its keys as the answer to the peer's initiation, waits for its first packet. */
  addNext(peer: Peer, session: number): void {
    const { peers, table } = this.#s;
    this.#erase(peers.next[peer.id]);
    peers.next[peer.id] = session;
    peers.protocol[peer.id] = table.protocol[session];
    this.noteConnection(peer);
  }

  /** The responder's side of completion: the next session is current, its first packet has opened. */
  confirm(id: number, nowUs: number): void {
    const { peers } = this.#s;
    this.#supersede(id, peers.current[id], nowUs);
    this.#setCurrent(id, peers.next[id]);
    peers.next[id] = NONE;
  }

  /** The initiator's side of completion: `session` is current. */
  begin(id: number, session: number, nowUs: number): void {
    const { peers } = this.#s;
    // A waiting `next` was made later than `current` and is the better key to fall back on.
    const successor = peers.next[id] === NONE ? peers.current[id] : peers.next[id];
    if (peers.next[id] !== NONE) this.#erase(peers.current[id]);
    peers.next[id] = NONE;
    this.#supersede(id, successor, nowUs);
    this.#setCurrent(id, session);
  }

  /** What goes to the peer takes the session's path from now on. */
  #setCurrent(id: number, session: number): void {
    const { peers, table, paths } = this.#s;
    peers.current[id] = session;
    paths.use(id, table.path[session]);
  }

  /** Makes the peer's current session the previous one: packets to the peer wait for the session that the peer has asked for. */
  forsake(id: number, nowUs: number): void {
    const { peers } = this.#s;
    this.#supersede(id, peers.current[id], nowUs);
    peers.current[id] = NONE;
  }

  /** Makes the current session the previous one without a successor, and returns it; NONE when there is none. */
  retire(id: number): number {
    const { peers } = this.#s;
    const session = peers.current[id];
    if (session === NONE) return NONE;
    this.#erase(peers.previous[id]);
    peers.previous[id] = session;
    peers.current[id] = NONE;
    this.noteConnection(peers.get(id)!);
    return session;
  }

  /** Has the protocols do what is due in the peer's sessions, and erases those whose end has come. */
  handleTimeout(peer: Peer, nowUs: number): void {
    const { next, current, previous } = this.#s.peers;
    this.#expire(next, peer.id, nowUs);
    this.#expire(current, peer.id, nowUs);
    this.#expire(previous, peer.id, nowUs);
    this.noteConnection(peer);
  }

  #expire(epoch: Uint32Array, id: number, nowUs: number): void {
    const { table, protocols } = this.#s;
    const session = epoch[id];
    if (session === NONE) return;
    protocols[table.protocol[session]]!.handleTimeout(session, nowUs);
    if (table.endsUs[session] > nowUs) return;
    this.#erase(session);
    epoch[id] = NONE;
  }

  /** When `handleTimeout` is next due for the peer, microseconds, or Infinity. */
  dueUs(id: number): number {
    const { next, current, previous } = this.#s.peers;
    return Math.min(this.#dueUs(next[id]), this.#dueUs(current[id]), this.#dueUs(previous[id]));
  }

  #dueUs(session: number): number {
    if (session === NONE) return Infinity;
    const { table, protocols } = this.#s;
    return Math.min(table.endsUs[session], protocols[table.protocol[session]]!.dueUs(session));
  }

  /** Erases all sessions of the peer. */
  end(peer: Peer): void {
    const { next, current, previous } = this.#s.peers;
    this.#erase(next[peer.id]);
    this.#erase(current[peer.id]);
    this.#erase(previous[peer.id]);
    next[peer.id] = current[peer.id] = previous[peer.id] = NONE;
    this.noteConnection(peer);
  }

  /** Counts the peer among the connections, or no longer, and tells when an established one has ended. */
  noteConnection(peer: Peer): void {
    const { peers } = this.#s;
    const connected = peers.current[peer.id] !== NONE || peers.next[peer.id] !== NONE;
    if (connected === peer.connected) return;
    peer.connected = connected;
    this.connections += connected ? 1 : -1;
    if (!connected && peer.established) {
      peer.established = false;
      this.note("disconnected", peer.id);
    }
  }

  /** Notes an event of the peer. */
  note(kind: EventKind, id: number): void {
    this.#s.events.push(kind, id, this.#s.peers.generation[id]);
  }

  /** Makes `session` the peer's previous one; an OxTunnel session then ends soon (PROTOCOL §10). */
  #supersede(id: number, session: number, nowUs: number): void {
    const { peers, table, protocols } = this.#s;
    this.#erase(peers.previous[id]);
    peers.previous[id] = session;
    if (session !== NONE) protocols[table.protocol[session]]!.superseded(session, nowUs);
  }

  /** Overwrites a session's keys and gives its rows back. Does nothing for NONE. */
  #erase(session: number): void {
    const { table, protocols, paths } = this.#s;
    if (session === NONE) return;
    protocols[table.protocol[session]]!.end(session);
    paths.release(table.peer[session], table.path[session]);
    table.erase(session);
  }
}
