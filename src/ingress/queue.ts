// Hot path.
/**
 * The last step of ingress: where more packets came at once than one turn carries, those for the exit wait to be sorted
 * (queue/turn_queue.ts), so that a game's packet is not written behind a transfer's burst. Invariant: a burst of few rows, with
 * nothing waiting, passes untouched; each packet's wait is counted, 0 too. Packets for other peers are egress's to sort.
 * Keeps PROTOCOL R79.
 */
import { COUNTER, DROP, type Metrics } from "../metrics.ts";
import { IS_LOST, WAITS } from "../queue/queues.ts";
import type { TurnQueue } from "../queue/turn_queue.ts";
import { type Burst, HELD, TO_EXIT } from "../vector/burst.ts";
import type { IngressContext } from "./context.ts";

export function queue(burst: Burst, { toExit, figures, metrics }: IngressContext, nowUs: number): void {
  if (toExit === undefined) return;
  if (toExit.sorts(burst.count)) waitForTurn(burst, toExit, metrics, nowUs);
  figures.passed(burst, TO_EXIT, false);
}

function waitForTurn(burst: Burst, toExit: TurnQueue, metrics: Metrics, nowUs: number): void {
  const { count, next } = burst;
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
