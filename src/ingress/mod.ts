/**
 * Ingress: the route of a datagram from the tunnel to the inner internet, in order. Each step is a function
 * over the whole burst; a row's `next` says which step is its. What leaves is TO_EXIT (for the exit), TO_TUNNEL
 * (turned around, for egress) or TO_TRANSMIT (a handshake answer, for the port).
 * Keeps PROTOCOL R21.
 */
import type { Burst } from "../vector/burst.ts";
import { admit } from "./admit.ts";
import type { IngressContext } from "./context.ts";
import { deliver } from "./deliver.ts";
import { open } from "./open.ts";
import { parse } from "./parse.ts";
import { unframe } from "./unframe.ts";
import { unprotect } from "./unprotect.ts";

export type { IngressContext } from "./context.ts";
export { DestinationPolicy, type DestinationRules } from "./policy.ts";
export { Speedtest } from "./speedtest.ts";

export function ingress(burst: Burst, context: IngressContext, nowUs: number): void {
  parse(burst, context, nowUs); // bytes -> message type, session, counter
  unprotect(burst, context); // OxTunnel's header -> counter, key phase
  // Before handshakes, which may end the very session that a packet of this burst was found to belong to.
  open(burst, context, nowUs); // ciphertext -> authentic, fresh plaintext
  unframe(burst, context, nowUs); // OxTunnel's plaintext -> control frames obeyed, one packet a row
  admit(burst, context, nowUs); // handshakes -> answers
  deliver(burst, context, nowUs); // plaintext -> exit, peer, or back
}
