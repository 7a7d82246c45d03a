/**
 * The interface of a port: a door through which outer datagrams come and go, in bursts. A port fills slots of
 * the burst's own arena, so that io_uring, AF_XDP and DPDK ports can receive without copying. Ports know
 * addresses and bytes, never sessions.
 */
import type { Burst } from "../vector/burst.ts";
import type { WaitSet } from "./poll.ts";

export interface Port {
  /** What it listens on, for people: "[::]:4433 (udp)". */
  readonly description: string;
  /** The UDP port number it is bound to. */
  readonly localPort: number;
  /**
   * Adds every datagram that has arrived to the burst, without waiting, until either is full: slot, offset,
   * length, address, port and ecn are set and next = TO_PARSE. Returns the rows added.
   */
  receive(burst: Burst): number;
  /**
   * Sends the rows whose next is TO_TRANSMIT and marks them DONE. Must not keep a reference to the bytes after
   * it returns unless it takes the slot over (next = HELD). A datagram that the kernel refuses is counted and lost.
   */
  transmit(burst: Burst): void;
  /** A descriptor that polls readable when `receive` would find something; absent where only the event loop knows. */
  readonly descriptor?: number;
  /** The native handle of a port whose ring may read for others too; absent where it has none. */
  readonly ring?: number;
  /**
   * Waits for the port, at place 0, and for others' descriptors, from place 1 on, by means of its own; absent where
   * poll(2) is to wait for `descriptor`. To be asked once; the others stay open until the port is closed.
   */
  waitWith?(others: readonly (number | undefined)[]): WaitSet;
  /** Calls back whenever `receive` would find something after it had found nothing. */
  onReadable(wake: () => void): void;
  close(): void | Promise<void>;
}
