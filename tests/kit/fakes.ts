/**
 * Stand-ins for what a driver carries between. The idle ones have nothing and expect nothing: a test spreads one and replaces what
 * it is about. PacketExit is an exit over packets in memory. Opens no socket.
 */
import type { Core } from "../../src/carry.ts";
import type { Exit } from "../../src/exit/exit.ts";
import type { Port } from "../../src/io/port.ts";
import { type Burst, DONE, TO_EXIT, TO_TUNNEL } from "../../src/vector/burst.ts";

export const IDLE_CORE: Core = {
  ingest: () => {},
  ingestRest: () => 0,
  isBehind: false,
  serveExit: () => 0,
  serveTunnel: () => 0,
  ingestInner: () => {},
  pollTransmit: () => 0,
  pollTimeout: () => Infinity,
  handleTimeout: () => {},
  setWallClock: () => {},
};

export const IDLE_PORT: Port = {
  description: "none",
  localPort: 1,
  receive: () => 0,
  transmit: () => {},
  onReadable: () => {},
  close: () => {},
};

/** An exit that brings nothing, and leaves packets for it where they are. */
export const IDLE_EXIT: Exit = {
  name: "none",
  description: "none",
  send: () => {},
  receive: () => 0,
  onReadable: () => {},
  handleTimeout: () => {},
  flowCount: 0,
  close: () => Promise.resolve(),
};

/** Brings the packets that a test puts in, in order, and shows it each that leaves. */
export class PacketExit implements Exit {
  readonly name = "packets";
  readonly description = "packets in memory";
  readonly flowCount = 0;
  readonly #waiting: Uint8Array[] = [];
  #wake = () => {};

  /** @param onLeave is shown each packet that leaves, in its row; the row ends with the call. */
  constructor(readonly onLeave: (burst: Burst, row: number) => void = () => {}) {}

  /** Has the packet carried into the tunnel, when the driver asks for it or at once where it waits for a wake. */
  put(packet: Uint8Array): void {
    this.#waiting.push(packet);
    this.#wake();
  }

  send(burst: Burst): void {
    for (let row = 0; row < burst.count; row++) {
      if (burst.next[row] !== TO_EXIT) continue;
      this.onLeave(burst, row);
      burst.next[row] = DONE;
    }
  }

  receive(burst: Burst): number {
    let rows = 0;
    for (; this.#waiting.length > 0; rows++) {
      const row = burst.grow(this.#waiting[0].length, TO_TUNNEL);
      if (row < 0) break;
      burst.bytes.set(this.#waiting.shift()!, burst.offset[row]);
    }
    return rows;
  }

  onReadable(wake: () => void): void {
    this.#wake = wake;
  }
  handleTimeout(): void {}
  close(): Promise<void> {
    return Promise.resolve();
  }
}
