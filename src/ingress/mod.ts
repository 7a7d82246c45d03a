/**
 * Ingress: the route of a datagram from the tunnel to the inner internet, in order. Each step is a function
 * over the whole burst; a row's `next` names its step. Rows leave as TO_EXIT (for the exit), TO_TUNNEL
 * (turned around, for egress) or TO_TRANSMIT (a handshake answer, for the port).
 * Keeps PROTOCOL R21.
 */
import type { Burst } from "../vector/burst.ts";
import { acks } from "./acks.ts";
import { admit } from "./admit.ts";
import { classify } from "./classify.ts";
import type { IngressContext } from "./context.ts";
import { deliver } from "./deliver.ts";
import { early } from "./early.ts";
import { open } from "./open.ts";
import { parse } from "./parse.ts";
import { police } from "./police.ts";
import { prefetch } from "./prefetch.ts";
import { queue } from "./queue.ts";
import { unframe, unframeRest } from "./unframe.ts";
import { unprotect } from "./unprotect.ts";

export { Backlog } from "./backlog.ts";
export type { IngressContext } from "./context.ts";
export { DestinationPolicy, type DestinationRules } from "./policy.ts";
export { Pings } from "./pings.ts";
export { Speedtest } from "./speedtest.ts";

export function ingress(burst: Burst, context: IngressContext, nowUs: number): void {
  prefetch(burst, context); // receiver indices -> lines of the tables, in the cache
  // Before handshakes, which may end a session that was already found for a packet of this burst.
  const isAnyWaiting = receive(burst, context, nowUs);
  const { count } = burst;
  admit(burst, context, nowUs); // handshakes -> answers, early data
  early(burst, context, count); // early data -> one packet a row
  deliver(burst, context, nowUs); // plaintext -> exit, peer, or back
  if (isAnyWaiting) {
    // Data that came together with the end of its handshake. No row is left OPENED, so none is judged twice.
    receive(burst, context, nowUs);
    deliver(burst, context, nowUs);
  }
  classify(burst, context, nowUs); // packet -> flow, class, counted
  police(burst, context, nowUs); // what exceeds its peer's rate -> dropped
  acks(burst, context, nowUs); // WireGuard's packets -> what they acknowledge, noted
  queue(burst, context, nowUs); // what one turn does not carry -> waits, to be sorted
}

/** Returns whether rows wait for a handshake. */
function receive(burst: Burst, context: IngressContext, nowUs: number): boolean {
  const isAnyWaiting = parse(burst, context, nowUs); // bytes -> message type, session, counter
  unprotect(burst, context); // OxTunnel's header -> counter, key phase
  open(burst, context, nowUs); // ciphertext -> authentic, fresh plaintext
  unframe(burst, context, nowUs); // OxTunnel's plaintext -> control frames obeyed, one packet a row
  return isAnyWaiting;
}

/** The same for packets that found no row in the last burst, in a burst of their own. */
export function ingressRest(burst: Burst, context: IngressContext, nowUs: number): void {
  unframeRest(burst, context, nowUs);
  deliver(burst, context, nowUs);
  classify(burst, context, nowUs);
  police(burst, context, nowUs);
  acks(burst, context, nowUs);
  queue(burst, context, nowUs);
}
