/**
 * The outer endpoint of each peer: where packets to the peer go, and from which of this host's addresses. Invariant: only
 * an authentic packet, or the client by hand, moves an endpoint. OxTunnel's paths, which are validated first, are
 * session/oxtunnel/paths.ts's.
 * Keeps PROTOCOL R16.
 */
import type { Shared } from "./shared.ts";

export class Paths {
  readonly #s: Shared;

  constructor(shared: Shared) {
    this.#s = shared;
  }

  /** Sets the endpoint by hand, as a client does for its relay: four address words and a UDP port. */
  set(id: number, words: Uint32Array, port: number): void {
    const { peers } = this.#s;
    peers.address.set(words, 4 * id);
    peers.port[id] = port;
    peers.local.fill(0, 4 * id, 4 * id + 4);
  }

  /**
   * Moves the peer's endpoint to where an authentic packet came from, `words` and `port`; what goes there leaves from
   * where that came to, `local`. Both addresses begin at `at`. Hot: no allocation.
   */
  roam(id: number, words: Uint32Array, at: number, port: number, local: Uint32Array): void {
    const { address, port: ports, local: locals } = this.#s.peers;
    const to = 4 * id;
    for (let i = 0; i < 4; i++) locals[to + i] = local[at + i];
    if (
      ports[id] === port && address[to + 3] === words[at + 3] && address[to + 2] === words[at + 2] &&
      address[to + 1] === words[at + 1] && address[to] === words[at]
    ) return;
    if (ports[id] !== 0) this.noteRoaming(id);
    for (let i = 0; i < 4; i++) address[to + i] = words[at + i];
    ports[id] = port;
  }

  /** Counts and tells that the peer's endpoint moves. */
  noteRoaming(id: number): void {
    this.#s.metrics.add("roamed", 1);
    this.#s.events.push("roamed", id, this.#s.peers.generation[id]);
  }
}
