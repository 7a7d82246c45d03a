// Hot path.
/**
 * A step of ingress: passes handshake messages to the associations, which answer in place. Invariant: a row leaves as an
 * answer to transmit, for the Worker that owns the peer, as done, or as a drop; rows are added only for early data; one burst
 * causes at most a bounded number of handshakes. Reads no transport data.
 * Keeps PROTOCOL R21.
 */
import { DROP } from "../metrics.ts";
import {
  type Burst,
  DONE,
  TO_COOKIE,
  TO_INITIATION,
  TO_INITIATION_ADMITTED,
  TO_RESPONSE,
} from "../vector/burst.ts";
import { isOxtunnel } from "../wire/oxtunnel.ts";
import type { IngressContext } from "./context.ts";

/** About 2 ms of work at worst, so that a flood cannot delay the data of all peers. */
const HANDSHAKES_PER_BURST = 64;

export function admit(burst: Burst, context: IngressContext, nowUs: number): void {
  const { count, next, view, offset } = burst;
  const { associations } = context;
  let taken = 0;
  for (let row = 0; row < count; row++) {
    const admitted = next[row] === TO_INITIATION_ADMITTED;
    if (!admitted && (next[row] < TO_INITIATION || next[row] > TO_COOKIE)) continue;
    if (taken === HANDSHAKES_PER_BURST) {
      next[row] = DROP.handshake_flood;
      continue;
    }
    const isOx = isOxtunnel(view.getUint8(offset[row]));
    // OxTunnel's messages reach this step only where OxTunnel is enabled.
    const protocol = isOx ? associations.oxtunnel! : associations.wireguard;
    if (admitted || next[row] === TO_INITIATION) {
      protocol.onInitiation(burst, row, nowUs);
    } else if (next[row] === TO_RESPONSE) {
      next[row] = DONE;
      protocol.onResponse(burst, row, nowUs);
    } else {
      next[row] = DONE;
      associations.gate.onCookie(burst, row, protocol, nowUs);
    }
    // A message for another key has cost one hash, and does not count towards the bound.
    if (next[row] !== DROP.bad_mac1) taken++;
  }
}
