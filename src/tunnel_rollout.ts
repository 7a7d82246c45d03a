/**
 * What peers with a part of the program and peers without it have of it: counted for each part and group once a second, so that an
 * operator can compare the groups in /metrics. Invariant: two groups for each part, whatever the number of peers; only figures that
 * both groups have. Changes nothing but counters.
 */
import { GROUPS, PARTS, type Rollout } from "./control/rollout.ts";
import type { Metrics } from "./metrics.ts";
import type { Associations } from "./session/associations.ts";
import type { PeerTable } from "./session/peers.ts";
import { NONE } from "./vector/arena.ts";

export class RolloutMeter {
  readonly #rollout: Rollout;
  readonly #metrics: Metrics;
  /** By peer: what was counted of it so far. */
  readonly #bytesSent: Float64Array;
  readonly #bytesReceived: Float64Array;

  constructor(peers: number, rollout: Rollout, metrics: Metrics) {
    this.#rollout = rollout;
    this.#metrics = metrics;
    this.#bytesSent = new Float64Array(peers);
    this.#bytesReceived = new Float64Array(peers);
  }

  /** Counts the connected peers, what they sent and got since the last call, and round trips of those that used their sessions. */
  take(peers: PeerTable, { oxtunnel }: Associations): void {
    const { current, bytesSent, bytesReceived } = peers;
    const counts = PARTS.map(() => GROUPS.map(() => 0));
    for (const { id } of peers.all()) {
      const session = current[id];
      const sent = grown(this.#bytesSent, bytesSent, id),
        received = grown(this.#bytesReceived, bytesReceived, id);
      if (session === NONE) continue;
      const rttUs = sent + received === 0 ? -1 : oxtunnel?.sessions.of[session]?.rttUs ?? -1;
      for (let part = 0; part < PARTS.length; part++) {
        const group = this.#rollout.isOn(PARTS[part], id) ? 0 : 1;
        counts[part][group]++;
        this.#metrics.rolledOut(part, group, sent, received, rttUs);
      }
    }
    counts.forEach((groups, part) =>
      groups.forEach((count, group) => this.#metrics.setRollout(part, group, count))
    );
  }
}

/** What the peer's total grew by since it was noted; a total below that is another peer's. */
function grown(noted: Float64Array, totals: Float64Array, peer: number): number {
  const bytes = totals[peer] - noted[peer];
  noted[peer] = totals[peer];
  return bytes < 0 ? totals[peer] : bytes;
}
