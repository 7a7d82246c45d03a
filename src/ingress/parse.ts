// Hot path.
/**
 * A step of ingress: distinguishes the two protocols, finds each datagram's message type and, for transport data, its
 * session and WireGuard's counter. Invariant: no row leaves with a length that its type does not allow.
 * Authenticates nothing.
 * Keeps PROTOCOL R1, R2, R22 and R77.
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
  TO_UNPROTECT,
} from "../vector/burst.ts";
import { OXTUNNEL, WIREGUARD } from "../session/table.ts";
import {
  isLongForm,
  isOxtunnel,
  KIND_INITIATION,
  KIND_RESPONSE,
  OX_DATA_MIN_BYTES,
  oxtunnelLengthFits,
  readConnectionId,
} from "../wire/oxtunnel.ts";
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

/**
 * Returns whether rows wait (TO_PARSE_ADMITTED) for a handshake that a response in the same burst may finish. They are
 * parsed again after the handshakes, and dropped if theirs did not finish.
 */
export function parse(burst: Burst, context: IngressContext, nowUs: number): boolean {
  const { count, view, offset, length, next, session, peer, counter } = burst;
  const { table, metrics } = context;
  let datagrams = 0, bytes = 0, isAnyWaiting = false;
  // Datagrams of one session come in runs; the session is looked up once for a run.
  let isKnown = false, runIndex = 0, runRow = 0, runPeer = 0, runNext = 0;
  for (let row = 0; row < count; row++) {
    const step = next[row], at = offset[row], datagramBytes = length[row];
    if (step === TO_PARSE) {
      datagrams++;
      bytes += datagramBytes;
    } else if (step !== TO_PARSE_ADMITTED) continue;
    if (datagramBytes < OX_DATA_MIN_BYTES) {
      next[row] = DROP.too_short;
      continue;
    }
    if (isOxtunnel(view.getUint8(at))) {
      parseOxtunnel(burst, row, context, step === TO_PARSE_ADMITTED, nowUs);
      if (next[row] === TO_PARSE_ADMITTED) isAnyWaiting = true;
      continue;
    }
    if (datagramBytes < KEEPALIVE_BYTES) {
      next[row] = DROP.too_short;
      continue;
    }
    const type = readType(view, at);
    if (type === TYPE_DATA) {
      const index = readReceiver(view, at);
      if (!isKnown || index !== runIndex) {
        const found = table.find(index);
        isKnown = found !== NONE && table.keyed[found] === 1 && table.protocol[found] === WIREGUARD;
        if (!isKnown) {
          next[row] = DROP.no_session;
          continue;
        }
        runIndex = index;
        runRow = found;
        runPeer = table.peer[found];
        runNext = nowUs >= table.endsUs[found] ? DROP.expired : TO_OPEN;
      }
      session[row] = runRow;
      peer[row] = runPeer;
      const number = readCounter(view, at);
      counter[row] = number;
      next[row] = number < 0 ? DROP.expired : runNext;
    } else if (type === TYPE_INITIATION) {
      if (datagramBytes !== INITIATION_BYTES) next[row] = DROP.bad_length;
      else next[row] = step === TO_PARSE_ADMITTED ? TO_INITIATION_ADMITTED : TO_INITIATION;
    } else if (type === TYPE_RESPONSE) {
      next[row] = datagramBytes === RESPONSE_BYTES ? TO_RESPONSE : DROP.bad_length;
    } else if (type === TYPE_COOKIE_REPLY) {
      next[row] = datagramBytes === COOKIE_REPLY_BYTES ? TO_COOKIE : DROP.bad_length;
    } else {
      next[row] = DROP.bad_type;
    }
  }
  metrics.column[COUNTER.datagrams_received] += datagrams;
  metrics.column[COUNTER.bytes_received] += bytes;
  return isAnyWaiting;
}

/** The same for a datagram of OxTunnel, whose header stays protected until its session's mask is known. */
function parseOxtunnel(
  burst: Burst,
  row: number,
  context: IngressContext,
  admitted: boolean,
  nowUs: number,
): void {
  const { view, offset, length, next, session, peer, path } = burst;
  const { table, datagramAead, associations } = context;
  const at = offset[row];
  if (datagramAead === undefined) {
    next[row] = DROP.bad_type;
  } else if (!oxtunnelLengthFits(view, at, length[row])) {
    next[row] = DROP.bad_length;
  } else if (!isLongForm(view.getUint8(at))) {
    const found = table.find(readConnectionId(view, at));
    const owner = found === NONE ? NONE : table.session[found];
    if (owner !== NONE && table.protocol[owner] === 0 && !admitted) {
      // An answer to early data follows closely upon the response.
      next[row] = TO_PARSE_ADMITTED;
      return;
    }
    if (owner === NONE || table.keyed[owner] === 0 || table.protocol[owner] !== OXTUNNEL) {
      next[row] = DROP.no_session;
      return;
    }
    session[row] = owner;
    path[row] = table.path[found];
    peer[row] = table.peer[owner];
    if (associations.oxtunnel!.sessions.refuses(owner, burst.address, 4 * row)) next[row] = DROP.untrusted;
    else next[row] = nowUs >= table.endsUs[owner] ? DROP.expired : TO_UNPROTECT;
  } else if (view.getUint8(at) === KIND_INITIATION) {
    next[row] = admitted ? TO_INITIATION_ADMITTED : TO_INITIATION;
  } else if (view.getUint8(at) === KIND_RESPONSE) {
    next[row] = TO_RESPONSE;
  } else {
    next[row] = TO_COOKIE;
  }
}
