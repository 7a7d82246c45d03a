// Hot path.
/**
 * Egress: the route of an inner packet into the tunnel, in order. Each step is a function over the whole burst;
 * a row's `next` names its step. Rows leave as TO_TRANSMIT, for the port, or TO_EXIT: an ICMP error for the sender.
 */
import { type Burst, TO_SEAL, TO_SEAL_DATAGRAM, TO_TUNNEL, TO_TUNNEL_HANDED } from "../vector/burst.ts";
import { batch } from "./batch.ts";
import { choose } from "./choose.ts";
import { classify } from "./classify.ts";
import { compress } from "./compress.ts";
import type { EgressContext } from "./context.ts";
import { fit } from "./fit.ts";
import { prefetch } from "./prefetch.ts";
import { queue } from "./queue.ts";
import { seal } from "./seal.ts";
import { shrink } from "./shrink.ts";
import { steer } from "./steer.ts";

export { Batches } from "./batches.ts";
export type { EgressContext } from "./context.ts";

/**
 * @param isSource whether this host is the source of the packets, as for packets of its own sockets. @param served how many of the
 * packets that wait for this thread are added to the burst.
 */
export function egress(
  burst: Burst,
  context: EgressContext,
  nowUs: number,
  isSource = false,
  served = 0,
): void {
  if (served === 0 && !hasWork(burst, context, nowUs)) return;
  if (isSource) burst.isOwn.fill(1, 0, burst.count);
  prefetch(burst, context); // destination -> peer, lines of the tables in the cache
  steer(burst, context, nowUs); // destination -> peer, session
  classify(burst, context, nowUs); // packet -> flow, class
  queue(burst, context, nowUs, served); // what its line or this turn has no room for -> waits
  choose(burst, context, nowUs); // packet -> path
  fit(burst, context, nowUs); // no larger than its path takes
  shrink(burst, context, nowUs); // headers that the other end knows -> left out
  compress(burst, context); // OxTunnel's packets that shrink -> LZ4 frames
  batch(burst, context, nowUs); // small packets of one session -> one plaintext
  seal(burst, context, nowUs); // plaintext -> addressed datagram
}

/** Whether any row goes into the tunnel; most bursts from the tunnel have none. */
function hasWork({ count, next }: Burst, { batches, queues }: EgressContext, nowUs: number): boolean {
  for (let row = 0; row < count; row++) {
    const step = next[row];
    if (step === TO_TUNNEL || step === TO_TUNNEL_HANDED || step === TO_SEAL || step === TO_SEAL_DATAGRAM) {
      return true;
    }
  }
  return batches !== undefined && batches.nextUs <= nowUs || queues !== undefined && queues.nextUs <= nowUs;
}
