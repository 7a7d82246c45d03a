// Hot path.
/**
 * A step of egress: finds each packet's flow and its class, by hint, DSCP, ports or behaviour, and counts it. Invariant: changes
 * no packet and drops none; a skipped row keeps NONE and CLASS_DEFAULT. WireGuard's packets are read only where a queue sorts
 * them. Only reads packets: control/direction.ts decides.
 */
import { classOfFlow, isNews, observe } from "../control/direction.ts";
import { INWARD, STATE_BYTES, STATE_DECIDED } from "../control/flows.ts";
import { CLASS_TO_TUNNEL_AT } from "../metrics.ts";
import { NO_HINT } from "../session/oxtunnel/hints.ts";
import { OXTUNNEL } from "../session/table.ts";
import { NONE } from "../vector/arena.ts";
import { type Burst, TO_SEAL } from "../vector/burst.ts";
import { FlowReader } from "../wire/flow.ts";
import { readDestination, readSource } from "../wire/inner.ts";
import type { EgressContext } from "./context.ts";

const reader = new FlowReader();

export function classify(burst: Burst, context: EgressContext, nowUs: number): void {
  const { count, next, session, length, view, offset, flow, trafficClass } = burst;
  const { table, flows, words, associations, metrics, queues, toTunnel } = context;
  const hints = associations.oxtunnel?.sessions.hints;
  const isSorted = queues !== undefined && !queues.isIdle || toTunnel !== undefined && toTunnel.sorts(count);
  if (hints === undefined && !isSorted) return;
  if (hints !== undefined && nowUs >= hints.dueUs) hints.expire(nowUs);
  const us = nowUs >>> 0;
  const { hint, hintVersion, state } = flows;
  const { column } = metrics;
  // Packets come in runs.
  reader.begin();
  let id = NONE, counter = CLASS_TO_TUNNEL_AT, runPackets = 0, runBytes = 0;
  for (let row = 0; row < count; row++) {
    if (next[row] !== TO_SEAL) continue;
    const isOxtunnel = table.protocol[session[row]] === OXTUNNEL;
    if (!isOxtunnel && !isSorted) continue;
    const bytes = length[row];
    if (!reader.read(view, offset[row], bytes, words, false)) continue;
    if (!reader.isSame) id = flows.find(words, reader.wordCount, us);
    const place = 2 * id + INWARD;
    if (isNews(flows, place, bytes, us)) {
      reader.look(view, offset[row]);
      observe(flows, place, reader, view, bytes, us);
      state[STATE_BYTES * place + STATE_DECIDED] = classOfFlow(flows, place, us);
    }
    const version = isOxtunnel ? hints!.version[session[row]] : 0;
    if (hintVersion[id] !== version) {
      hintVersion[id] = version;
      hint[id] = hintFor(context, burst, row);
    }
    const decided = version !== 0 && hint[id] !== NO_HINT
      ? hint[id]
      : state[STATE_BYTES * place + STATE_DECIDED];
    flow[row] = id;
    trafficClass[row] = decided;
    if (counter !== CLASS_TO_TUNNEL_AT + 2 * decided) {
      column[counter] += runPackets;
      column[counter + 1] += runBytes;
      counter = CLASS_TO_TUNNEL_AT + 2 * decided;
      runPackets = runBytes = 0;
    }
    runPackets++;
    runBytes += bytes;
  }
  column[counter] += runPackets;
  column[counter + 1] += runBytes;
}

/** The class that a hint requests for the packet. Called for new flows and when hints have changed. */
function hintFor({ associations, ends }: EgressContext, burst: Burst, row: number): number {
  const { view, offset, session } = burst;
  readSource(view, offset[row], ends, 0);
  readDestination(view, offset[row], ends, 4);
  return associations.oxtunnel!.sessions.hints.classOf(session[row], reader.protocol, reader.ports, ends);
}
