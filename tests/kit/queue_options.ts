/** Queues as tests and benches make them: a relay's defaults, with few packets. Invariant: the same words give the same queues. */
import { CODEL } from "../../src/queue/codel.ts";
import type { QueuesOptions } from "../../src/tunnel_options.ts";

/** @param said what differs; without, no rate is told or found. */
export function queueOptions(said: Partial<QueuesOptions> = {}): QueuesOptions {
  return {
    ...CODEL,
    bytesPerS: 0,
    findsRates: false,
    packets: 512,
    ecn: true,
    gameDeadlineUs: 60_000,
    voiceDeadlineUs: 100_000,
    ...said,
  };
}
