// Hot path.
/**
 * First node of ingress: tells the two protocols apart, names each datagram's message type and, for transport data,
 * finds its session and WireGuard's counter. Invariant: no row leaves with a length that its type does not allow, nor
 * stays when its receiver index names another Worker. Authenticates nothing.
 * Keeps PROTOCOL R1, R2, R22 and R45.
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
  readResponseReceiver,
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
  const { table, metrics } = context;
  let datagrams = 0, bytes = 0;
  for (let row = 0; row < count; row++) {
    const admitted = next[row] === TO_PARSE_ADMITTED;
    if (next[row] === TO_PARSE) {
      datagrams++;
      bytes += length[row];
    } else if (!admitted) continue;
    if (length[row] < OX_DATA_MIN_BYTES) {
      next[row] = DROP.too_short;
      continue;
    }
    if (isOxtunnel(view.getUint8(offset[row]))) {
      parseOxtunnel(burst, row, context, admitted, nowUs);
      continue;
    }
    if (length[row] < KEEPALIVE_BYTES) {
      next[row] = DROP.too_short;
      continue;
    }
    const type = readType(view, offset[row]);
    if (type === TYPE_DATA) {
      const receiver = readReceiver(view, offset[row]);
      const found = table.find(receiver);
      if (found === NONE || table.keyed[found] === 0 || table.protocol[found] !== WIREGUARD) {
        if (!handOver(burst, row, receiver, context)) next[row] = DROP.no_session;
        continue;
      }
      session[row] = found;
      peer[row] = table.peer[found];
      counter[row] = readCounter(view, offset[row]);
      next[row] = counter[row] < 0 || nowUs >= table.endsUs[found] ? DROP.expired : TO_OPEN;
    } else if (type === TYPE_INITIATION) {
      if (length[row] !== INITIATION_BYTES) next[row] = DROP.bad_length;
      else next[row] = admitted ? TO_INITIATION_ADMITTED : TO_INITIATION;
    } else if (type === TYPE_RESPONSE) {
      if (length[row] !== RESPONSE_BYTES) next[row] = DROP.bad_length;
      else if (!handOver(burst, row, readResponseReceiver(view, offset[row]), context)) {
        next[row] = TO_RESPONSE;
      }
    } else if (type === TYPE_COOKIE_REPLY) {
      if (length[row] !== COOKIE_REPLY_BYTES) next[row] = DROP.bad_length;
      else if (!handOver(burst, row, readReceiver(view, offset[row]), context)) next[row] = TO_COOKIE;
    } else {
      next[row] = DROP.bad_type;
    }
  }
  metrics.column[COUNTER.datagrams_received] += datagrams;
  metrics.column[COUNTER.bytes_received] += bytes;
}

/** The same for a datagram of OxTunnel, whose header stays protected until its session's mask is known. */
function parseOxtunnel(
  burst: Burst,
  row: number,
  context: IngressContext,
  admitted: boolean,
  nowUs: number,
): void {
  const { view, offset, length, next, session, peer } = burst;
  const { table, datagramAead } = context;
  const at = offset[row];
  if (datagramAead === undefined) {
    next[row] = DROP.bad_type;
  } else if (!oxtunnelLengthFits(view, at, length[row])) {
    next[row] = DROP.bad_length;
  } else if (!isLongForm(view.getUint8(at))) {
    const id = readConnectionId(view, at);
    const found = table.find(id);
    const owner = found === NONE ? NONE : table.session[found];
    if (owner === NONE || table.keyed[owner] === 0 || table.protocol[owner] !== OXTUNNEL) {
      if (!handOver(burst, row, id, context)) next[row] = DROP.no_session;
      return;
    }
    session[row] = owner;
    peer[row] = table.peer[owner];
    next[row] = nowUs >= table.endsUs[owner] ? DROP.expired : TO_UNPROTECT;
  } else if (view.getUint8(at) === KIND_INITIATION) {
    next[row] = admitted ? TO_INITIATION_ADMITTED : TO_INITIATION;
  } else if (view.getUint8(at) === KIND_RESPONSE) {
    if (!handOver(burst, row, readResponseReceiver(view, at), context)) next[row] = TO_RESPONSE;
  } else if (!handOver(burst, row, readReceiver(view, at), context)) {
    next[row] = TO_COOKIE;
  }
}

/** Marks a row whose receiver index names another Worker; whether it did. */
function handOver(burst: Burst, row: number, receiver: number, context: IngressContext): boolean {
  const { table, peers, metrics } = context;
  const worker = table.workerOf(receiver);
  if (worker === table.worker || worker >= peers.workers) return false;
  burst.handOver(row, worker, TO_PARSE_ADMITTED);
  metrics.column[COUNTER.packets_handed_over]++;
  return true;
}
