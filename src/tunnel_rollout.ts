/**
 * What peers with a part of the program and peers without it have of it: counted for each part and group, about once a second, so that
 * an operator can compare the groups in /metrics. Invariant: two groups for each part, whatever the number of peers; only figures that
 * both groups have; a call's work is bounded, and a round over many peers takes several calls. Changes nothing but counters.
 */
import { PARTS, type Rollout } from "./control/rollout.ts";
import type { Metrics } from "./metrics.ts";
import type { Associations } from "./session/associations.ts";
import type { PeerTable } from "./session/peers.ts";
import { NONE } from "./vector/arena.ts";

/** The most connected peers, and ids, that one call looks at, so that packets need not wait for it. */
export const PEERS_EACH = 1024, IDS_EACH = 16_384;
/** Peers are added up by which parts they have, and each sum then goes to its groups. */
const SETS = 1 << PARTS.length;

/** The columns of peers that are read. */
type PeerColumns = Pick<PeerTable, "ids" | "current" | "bytesSent" | "bytesReceived">;

export class RolloutMeter {
  readonly #rollout: Rollout;
  readonly #metrics: Metrics;
  /** By peer: what was counted of it so far. */
  readonly #bytesSent: Float64Array;
  readonly #bytesReceived: Float64Array;
  /** The id that is next in this round, 0 between two rounds; and by set of parts, the connected peers that the round has met. */
  #next = 0;
  readonly #connected = new Float64Array(SETS);
  /** By set of parts: bytes of this call. */
  readonly #sent = new Float64Array(SETS);
  readonly #received = new Float64Array(SETS);

  constructor(peers: number, rollout: Rollout, metrics: Metrics) {
    this.#rollout = rollout;
    this.#metrics = metrics;
    this.#bytesSent = new Float64Array(peers);
    this.#bytesReceived = new Float64Array(peers);
  }

  /** Whether a round has begun that is not at its end: `take` again soon. */
  get isUnderway(): boolean {
    return this.#next > 0;
  }

  /**
   * Begins a round or continues it: counts connected peers, what they sent and got since they were last counted, and round trips of
   * those that used their sessions. The number of connected peers is told at the round's end.
   */
  take(peers: PeerColumns, { oxtunnel }: Pick<Associations, "oxtunnel">): void {
    const { current, bytesSent, bytesReceived } = peers;
    const end = Math.min(peers.ids, this.#next + IDS_EACH);
    let id = this.#next;
    for (let left = PEERS_EACH; id < end && left > 0; id++) {
      const session = current[id];
      if (session === NONE) continue;
      left--;
      const set = this.#rollout.partsOf(id);
      this.#connected[set]++;
      const sent = grown(this.#bytesSent, bytesSent, id),
        received = grown(this.#bytesReceived, bytesReceived, id);
      if (sent + received === 0) continue;
      this.#sent[set] += sent;
      this.#received[set] += received;
      const rttUs = oxtunnel?.sessions.of[session]?.rttUs ?? -1;
      if (rttUs >= 0) this.#add(set, 0, 0, rttUs);
    }
    for (let set = 0; set < SETS; set++) {
      if (this.#sent[set] + this.#received[set] > 0) this.#add(set, this.#sent[set], this.#received[set], -1);
    }
    this.#sent.fill(0);
    this.#received.fill(0);
    if (id < peers.ids) this.#next = id;
    else this.#finish();
  }

  #add(set: number, sent: number, received: number, rttUs: number): void {
    for (let part = 0; part < PARTS.length; part++) {
      this.#metrics.rolledOut(part, groupOf(set, part), sent, received, rttUs);
    }
  }

  #finish(): void {
    this.#next = 0;
    for (let part = 0; part < PARTS.length; part++) {
      const counts = [0, 0];
      this.#connected.forEach((peers, set) => counts[groupOf(set, part)] += peers);
      counts.forEach((count, group) => this.#metrics.setRollout(part, group, count));
    }
    this.#connected.fill(0);
  }
}

/** The index in GROUPS of peers with the set of parts. */
function groupOf(set: number, part: number): number {
  return 1 - (set >> part & 1);
}

/** What the peer's total grew by since it was noted; a total below that is another peer's. */
function grown(noted: Float64Array, totals: Float64Array, peer: number): number {
  const bytes = totals[peer] - noted[peer];
  noted[peer] = totals[peer];
  return bytes < 0 ? totals[peer] : bytes;
}
