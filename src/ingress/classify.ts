// Hot path.
/**
 * A step of ingress, for OxTunnel, and for WireGuard where a peer has a rate to keep to: counts each packet by its class, and
 * records for the flow's other direction what the packet shows (PROTOCOL §14, hint). Invariant: reads only packets that passed
 * every check and are forwarded, and changes none. The mirror of egress/classify.ts.
 */
import { classOfFlow, observe } from "../control/direction.ts";
import { OUTWARD, STATE_BYTES, STATE_DECIDED, STATE_MARKS } from "../control/flows.ts";
import { CLASS_DEFAULT } from "../control/traffic_class.ts";
import { CLASS_FROM_TUNNEL_AT } from "../metrics.ts";
import { NO_HINT } from "../session/oxtunnel/hints.ts";
import { OXTUNNEL } from "../session/table.ts";
import { NONE } from "../vector/arena.ts";
import { type Burst, TO_EXIT, TO_TUNNEL } from "../vector/burst.ts";
import { FlowReader } from "../wire/flow.ts";
import { readDestination, readSource } from "../wire/inner.ts";
import type { IngressContext } from "./context.ts";

const reader = new FlowReader();

export function classify(burst: Burst, context: IngressContext, nowUs: number): void {
  const { count, next, session, peer, length, view, offset, flow, trafficClass } = burst;
  const { table, flows, words, associations, metrics, police, toExit } = context;
  const isSorted = toExit !== undefined && toExit.sorts(count);
  const isRead = isSorted || police !== undefined && !police.isIdle;
  const hints = associations.oxtunnel?.sessions.hints;
  if (hints === undefined && !isRead) return;
  if (hints !== undefined && nowUs >= hints.dueUs) hints.expire(nowUs);
  const us = nowUs >>> 0;
  const { hint, hintVersion, seenUs, state } = flows;
  const { column } = metrics;
  // Packets come in runs.
  reader.begin();
  let id = NONE, decided = CLASS_DEFAULT, counter = CLASS_FROM_TUNNEL_AT, runPackets = 0, runBytes = 0;
  for (let row = 0; row < count; row++) {
    const step = next[row], owner = session[row];
    // A packet that returns to its own sender was made by the relay, not by the peer.
    if (step !== TO_EXIT && (step !== TO_TUNNEL || peer[row] === table.peer[owner])) continue;
    const isOxtunnel = table.protocol[owner] === OXTUNNEL;
    if (!isOxtunnel && !isRead) continue;
    const bytes = length[row];
    if (!reader.read(view, offset[row], bytes, words, true)) continue;
    if (!reader.isSame) {
      id = flows.find(words, reader.wordCount, us);
      const place = 2 * id + OUTWARD;
      // What comes at one moment shows as much as its first packet does: a tick of a game, a part of a transfer.
      if (seenUs[place] !== us || state[STATE_BYTES * place + STATE_MARKS] === 0) {
        reader.look(view, offset[row]);
        observe(flows, place, reader, view, bytes, us);
        state[STATE_BYTES * place + STATE_DECIDED] = classOfFlow(flows, place, us);
      }
      const version = isOxtunnel ? hints!.version[owner] : 0;
      if (hintVersion[id] !== version) {
        hintVersion[id] = version;
        hint[id] = hintFor(context, burst, row);
      }
      decided = version !== 0 && hint[id] !== NO_HINT ? hint[id] : state[STATE_BYTES * place + STATE_DECIDED];
      if (counter !== CLASS_FROM_TUNNEL_AT + 2 * decided) {
        column[counter] += runPackets;
        column[counter + 1] += runBytes;
        counter = CLASS_FROM_TUNNEL_AT + 2 * decided;
        runPackets = runBytes = 0;
      }
    }
    trafficClass[row] = decided;
    if (isSorted) flow[row] = id;
    runPackets++;
    runBytes += bytes;
  }
  column[counter] += runPackets;
  column[counter + 1] += runBytes;
}

/** The class that a hint requests for the packet's flow. */
function hintFor({ associations, ends }: IngressContext, burst: Burst, row: number): number {
  const { view, offset, session } = burst;
  readDestination(view, offset[row], ends, 0);
  readSource(view, offset[row], ends, 4);
  return associations.oxtunnel!.sessions.hints.classOf(session[row], reader.protocol, reader.ports, ends);
}
