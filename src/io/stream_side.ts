/**
 * A Worker's side of streams that another thread serves: a port around its own, which hands rows for a
 * connection to that thread by mailbox; rows from connections come in by mailbox too. Invariant: what a socket brings
 * never bears a connection's address, whatever source it was sent under. Holds no connection.
 * Keeps PROTOCOL R89.
 */
import { DROP } from "../metrics.ts";
import { type Burst, TO_TRANSMIT } from "../vector/burst.ts";
import { isStreamAddress } from "../wire/stream.ts";
import type { Mailbox } from "./mailbox.ts";
import type { Port } from "./port.ts";

export class StreamSide implements Port {
  readonly description: string;
  readonly localPort: number;
  readonly wait: Port["wait"];

  /** @param streams whose mailbox takes rows for connections. */
  constructor(readonly port: Port, readonly mailbox: Mailbox, readonly streams: number) {
    this.description = port.description;
    this.localPort = port.localPort;
    this.wait = port.wait;
  }

  receive(burst: Burst): number {
    const before = burst.count;
    const received = this.port.receive(burst);
    for (let row = before; row < burst.count; row++) {
      if (isStreamAddress(burst.address, 4 * row)) burst.next[row] = DROP.port_error;
    }
    return received;
  }

  transmit(burst: Burst): void {
    const { count, next, address } = burst;
    let some = false;
    for (let row = 0; row < count; row++) {
      if (next[row] !== TO_TRANSMIT || !isStreamAddress(address, 4 * row)) continue;
      burst.handOver(row, this.streams, TO_TRANSMIT);
      some = true;
    }
    this.port.transmit(burst);
    if (some) this.mailbox.send(burst);
  }

  onReadable(wake: () => void): void {
    this.port.onReadable(wake);
  }

  close(): void | Promise<void> {
    return this.port.close();
  }
}
