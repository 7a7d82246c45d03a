/**
 * Packets that wait for a peer's session. Invariant: a peer has at most `limits.stagedPackets` of them and all peers
 * together at most `capacity`; for a packet beyond that its own peer loses the oldest one, and no other peer does. Does
 * not decide when a packet is sent: outbox.ts does.
 */
import { DROP } from "../metrics.ts";
import { type Burst, HELD } from "../vector/burst.ts";
import type { Peer, StagedPacket } from "./peers.ts";
import type { Shared } from "./shared.ts";

export class Staging {
  /** Packets that wait in all queues together. */
  count = 0;
  readonly #s: Shared;
  readonly #capacity: number;

  /** @param capacity most packets that wait, over all peers. */
  constructor(shared: Shared, capacity: number) {
    this.#s = shared;
    this.#capacity = capacity;
  }

  /**
   * Keeps the packet of `row` (HELD). When the peer's queue, or all queues together, are full, the peer loses its own
   * oldest packet, whose slot then leaves with this row.
   */
  add(burst: Burst, row: number, peer: Peer): void {
    const { limits, peers } = this.#s;
    const { slot, offset, length, next } = burst;
    peer.staged.push({ slot: slot[row], offset: offset[row], length: length[row] });
    this.count++;
    next[row] = HELD;
    if (peer.staged.length > limits.stagedPackets || this.count > this.#capacity) {
      slot[row] = this.take(peer).slot;
      next[row] = DROP.queue_full;
      peers.drops[peer.id]++;
    }
  }

  /** Takes the oldest packet of a peer that has one; its slot is the caller's. */
  take(peer: Peer): StagedPacket {
    this.count--;
    return peer.staged.shift()!;
  }

  /** The peer has received these of its waiting packets; their slots go to `release`. */
  remove(peer: Peer, packets: readonly StagedPacket[], release: (slot: number) => void): void {
    for (const packet of packets) {
      const at = peer.staged.indexOf(packet);
      if (at < 0) continue; // it made room for others meanwhile
      peer.staged.splice(at, 1);
      this.count--;
      release(packet.slot);
    }
  }

  /** Drops what waits for the peer; the slots go to `release`. */
  giveUp(peer: Peer, release: (slot: number) => void): void {
    const { metrics, peers } = this.#s;
    for (const packet of peer.staged) release(packet.slot);
    metrics.drop(DROP.unanswered, peer.staged.length);
    peers.drops[peer.id] += peer.staged.length;
    this.count -= peer.staged.length;
    peer.staged.length = 0;
  }
}
