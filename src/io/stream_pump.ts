/**
 * Carries rows between a stream port and the Workers, in the thread that serves the connections. Invariant: a
 * datagram goes to the Worker that its connection id names (PROTOCOL R45), and all handshakes of one connection begin at
 * the same Worker, as a cookie is known to who gave it. Looks at no more than that.
 */
import { Arena } from "../vector/arena.ts";
import { Burst, BURST_CAPACITY, FIRST_DROP, TO_PARSE } from "../vector/burst.ts";
import {
  isLongForm,
  KIND_INITIATION,
  KIND_RESPONSE,
  OX_COOKIE_RECEIVER_AT,
  OX_RESPONSE_RECEIVER_AT,
} from "../wire/oxtunnel.ts";
import { streamNumber } from "../wire/stream.ts";
import type { Mailbox } from "./mailbox.ts";
import type { StreamPort } from "./stream_port.ts";

/** The place of the byte with a connection id's top bits in data, and from a long form's receiver on. */
const DATA_ID_TOP_AT = 4, ID_TOP_AT = 3;
/** How soon a look for room, or for what is still in the mailbox, is repeated: no bell will ring for it. */
const AGAIN_MS = 1;

/** Begins to carry; call what it returns to end. `workers` Workers have the mailboxes 0 to workers − 1. */
export function pumpStreams(port: StreamPort, mailbox: Mailbox, workers: number): () => Promise<void> {
  const burst = new Burst(new Arena(BURST_CAPACITY));
  let isClosed = false;
  let again: ReturnType<typeof setTimeout> | undefined;
  const room = () => {
    let least = BURST_CAPACITY;
    for (let worker = 0; worker < workers; worker++) least = Math.min(least, mailbox.room(worker));
    return least;
  };
  const carryIn = () => {
    clearTimeout(again);
    for (;;) {
      const rowsMax = room();
      if (rowsMax === 0) {
        // A stream waits where a socket would lose: the other end is slowed down by TCP.
        if (!isClosed) again = setTimeout(carryIn, AGAIN_MS);
        return;
      }
      if (port.receive(burst, rowsMax) === 0) return;
      for (let row = 0; row < burst.count; row++) {
        if (burst.next[row] < FIRST_DROP) burst.handOver(row, workerOf(burst, row, workers), TO_PARSE);
      }
      mailbox.send(burst);
      burst.release();
    }
  };
  const carryOut = () => {
    if (isClosed) return;
    while (mailbox.receive(burst) > 0) {
      port.transmit(burst);
      burst.release();
    }
    if (mailbox.isWaiting) setTimeout(carryOut, AGAIN_MS);
  };
  port.onReadable(carryIn);
  mailbox.onReadable(carryOut);
  return async () => {
    isClosed = true;
    await mailbox.close();
  };
}

function workerOf({ view, offset, address }: Burst, row: number, workers: number): number {
  const at = offset[row];
  const first = view.getUint8(at);
  if (first === KIND_INITIATION) return streamNumber(address, 4 * row) % workers;
  const top = isLongForm(first)
    ? ID_TOP_AT + (first === KIND_RESPONSE ? OX_RESPONSE_RECEIVER_AT : OX_COOKIE_RECEIVER_AT)
    : DATA_ID_TOP_AT;
  // An id that names no Worker belongs to no session, which any of them will find.
  const worker = view.getUint8(at + top) >> 4;
  return worker < workers ? worker : 0;
}
