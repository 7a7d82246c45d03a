// Hot path.
/**
 * First node of ingress: names each datagram's message type and, for transport data, finds its session and
 * counter. Invariant: no row leaves with a length that its type does not allow. Authenticates nothing.
 * Keeps PROTOCOL R1 and R2.
 */
import { COUNTER, DROP } from "../metrics.ts";
import { NONE } from "../vector/arena.ts";
import {
  type Burst,
  TO_COOKIE,
  TO_INITIATION,
  TO_INITIATION_ADMITTED,
  TO_OPEN,
  TO_PARSE,
  TO_PARSE_ADMITTED,
  TO_RESPONSE,
} from "../vector/burst.ts";
import {
  COOKIE_REPLY_BYTES,
  INITIATION_BYTES,
  KEEPALIVE_BYTES,
  readCounter,
  readReceiver,
  readType,
  RESPONSE_BYTES,
  TYPE_COOKIE_REPLY,
  TYPE_DATA,
  TYPE_INITIATION,
  TYPE_RESPONSE,
} from "../wire/wireguard.ts";
import type { IngressContext } from "./context.ts";

export function parse(burst: Burst, context: IngressContext, nowUs: number): void {
  const { count, view, offset, length, next, session, peer, counter } = burst;
  const { table, associations, metrics } = context;
  const rejectAfterUs = associations.limits.rejectAfterUs;
  let datagrams = 0, bytes = 0;
  for (let row = 0; row < count; row++) {
    const admitted = next[row] === TO_PARSE_ADMITTED;
    if (next[row] === TO_PARSE) {
      datagrams++;
      bytes += length[row];
    } else if (!admitted) continue;
    if (length[row] < KEEPALIVE_BYTES) {
      next[row] = DROP.too_short;
      continue;
    }
    const type = readType(view, offset[row]);
    if (type === TYPE_DATA) {
      const found = table.find(readReceiver(view, offset[row]));
      if (found === NONE || table.keyed[found] === 0) {
        next[row] = DROP.no_session;
        continue;
      }
      session[row] = found;
      peer[row] = table.peer[found];
      counter[row] = readCounter(view, offset[row]);
      next[row] = counter[row] < 0 || nowUs - table.bornUs[found] >= rejectAfterUs ? DROP.expired : TO_OPEN;
    } else if (type === TYPE_INITIATION) {
      if (length[row] !== INITIATION_BYTES) next[row] = DROP.bad_length;
      else next[row] = admitted ? TO_INITIATION_ADMITTED : TO_INITIATION;
    } else if (type === TYPE_RESPONSE) {
      next[row] = length[row] === RESPONSE_BYTES ? TO_RESPONSE : DROP.bad_length;
    } else if (type === TYPE_COOKIE_REPLY) {
      next[row] = length[row] === COOKIE_REPLY_BYTES ? TO_COOKIE : DROP.bad_length;
    } else {
      next[row] = DROP.bad_type;
    }
  }
  metrics.column[COUNTER.datagrams_received] += datagrams;
  metrics.column[COUNTER.bytes_received] += bytes;
}
