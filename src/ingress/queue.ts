// Hot path.
/**
 * The last step of ingress: where more packets came at once than one turn carries, those for the exit wait to be sorted
 * (queue/turn_queue.ts), so that a game's packet is not written behind a transfer's burst. Invariant: a burst of few rows, with
 * nothing waiting, passes untouched. Packets for other peers are egress's to sort.
 * Keeps PROTOCOL R79.
 */
import { COUNTER, DROP } from "../metrics.ts";
import { IS_LOST, WAITS } from "../queue/queues.ts";
import { type Burst, HELD, TO_EXIT } from "../vector/burst.ts";
import type { IngressContext } from "./context.ts";

export function queue(burst: Burst, { toExit, metrics }: IngressContext, nowUs: number): void {
  const { count, next } = burst;
  if (toExit === undefined || !toExit.sorts(count)) return;
  for (let row = 0; row < count; row++) {
    if (next[row] !== TO_EXIT) continue;
    const outcome = toExit.offer(burst, row, nowUs);
    if (outcome === WAITS) {
      next[row] = HELD;
      metrics.column[COUNTER.packets_queued]++;
    } else if (outcome === IS_LOST) {
      next[row] = DROP.queue_overflow;
    }
  }
}
