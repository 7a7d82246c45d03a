/**
 * Says why a flow's direction has its class, in words for people, from the scores that decideClass (classifier.ts) uses.
 * Invariant: changes nothing, and no text contains an address. Not for the packet path.
 */
import { APPLICATIONS } from "./applications.ts";
import { CLASS_MASK, FIRM } from "./classifier.ts";
import { classOfFlow } from "./direction.ts";
import {
  type FlowTable,
  STATE_BULK,
  STATE_BYTES,
  STATE_CLASS,
  STATE_HEAVY,
  STATE_MARKS,
  STATE_MEDIA,
  STATE_STEADY,
  STATE_TOS,
} from "./flows.ts";
import { POINTS_TAKEN } from "./recognise.ts";
import { CLASS_BULK, CLASS_DEFAULT, CLASS_GAME, CLASS_VOICE } from "./traffic_class.ts";

/** The name of the application that a flow is recognised as, "" while that is not sure. */
export function applicationName({ application, points }: FlowTable, row: number): string {
  return points[row] >= POINTS_TAKEN ? APPLICATIONS[application[row]][0] : "";
}

/** Why the direction at `place` has the class that it has. @param nowUs time of its last packet, modulo 2^32. */
export function explainClass(flows: FlowTable, place: number, nowUs: number): string {
  const { state } = flows, at = STATE_BYTES * place;
  const own = state[at + STATE_CLASS], decided = classOfFlow(flows, place, nowUs);
  const name = applicationName(flows, place >> 1);
  const marks = state[at + STATE_MARKS];
  if (flows.ruled[place >> 1] !== 0) return "a rule of yours";
  if (decided !== own) return "as the other direction";
  if (own === CLASS_VOICE && state[at + STATE_MEDIA] > 0) {
    return name === "" ? "RTP: packets of one source follow one another" : `bytes of ${name}, and RTP`;
  }
  if ((marks & FIRM) !== 0 && own === (marks & CLASS_MASK)) return `DSCP ${state[at + STATE_TOS] >> 2}`;
  if (own === CLASS_BULK && state[at + STATE_BULK] > 0) {
    return `full packets in runs${name === "" ? "" : `, ${name} by its bytes`}`;
  }
  if (name !== "") return `bytes of ${name}`;
  if (own === CLASS_GAME && own !== (marks & CLASS_MASK)) {
    const other = state[STATE_BYTES * (place ^ 1) + STATE_STEADY];
    return `small packets at a pace: ${state[at + STATE_STEADY]} here and ${other} the other way`;
  }
  if (own !== CLASS_DEFAULT) return "its port";
  const points = flows.points[place >> 1];
  const near = points === 0
    ? ""
    : `, ${points} of ${POINTS_TAKEN} points for ${APPLICATIONS[flows.application[place >> 1]][0]}`;
  return `no pattern, no pace: ${state[at + STATE_STEADY]}, full packets: ${state[at + STATE_HEAVY]}${near}`;
}

/** How many flows had a packet in the last `withinUs` and are recognised, by name; the most first. */
export function census(flows: FlowTable, nowUs: number, withinUs: number): Record<string, number> {
  const { application, points, seenUs, state } = flows;
  const counts = new Map<string, number>();
  for (let row = 0; row < application.length; row++) {
    if (points[row] < POINTS_TAKEN) continue;
    const isLive = [2 * row, 2 * row + 1].some((place) =>
      state[STATE_BYTES * place + STATE_MARKS] !== 0 && nowUs - seenUs[place] >>> 0 <= withinUs
    );
    const name = APPLICATIONS[application[row]][0];
    if (isLive) counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  return Object.fromEntries([...counts].sort(([, a], [, b]) => b - a));
}
