// Hot path.
/**
 * A step of egress: the path that each packet takes. Invariant: a session with one path takes it, at the cost of one look at a
 * column; where there are several, the packet's class and what is known of the paths decide (session/oxtunnel/path_set.ts).
 * Before anything that depends on the path: sizes, contexts, batches, numbers.
 */
import { type Burst, TO_SEAL } from "../vector/burst.ts";
import type { EgressContext } from "./context.ts";

export function choose(burst: Burst, { table, associations }: EgressContext, nowUs: number): void {
  const { count, next, session, path, trafficClass } = burst;
  // Packets of one session come in runs.
  let of = -1, only = 0, isOnly = true;
  for (let row = 0; row < count; row++) {
    if (next[row] !== TO_SEAL) continue;
    if (session[row] !== of) {
      of = session[row];
      only = table.path[of];
      isOnly = table.isMultipath[of] === 0;
    }
    path[row] = isOnly
      ? only
      : associations.oxtunnel!.sessions.of[of]!.pathSet!.pathFor(trafficClass[row], nowUs);
  }
}
