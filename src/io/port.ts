/**
 * The interface of a port: a door through which outer datagrams come and go, in bursts, and how a thread waits for one.
 * Invariant: a port fills slots of the burst's own arena, so that one whose memory the kernel or a device shares (AF_XDP,
 * DPDK) receives without copying. Ports know addresses and bytes, never sessions; no socket, ring or message is part of what a
 * port is.
 */
import type { Burst } from "../vector/burst.ts";

/** What a thread waits in: places that are each ready as long as there is something to read. */
export interface WaitSet {
  /** Waits `ms` milliseconds at most; 0 looks and does not wait. Returns 0 when no place is ready. */
  wait(ms: number): number;
  /**
   * Whether something may be read at this place: data, or an error that a read will tell. By the last wait, but true also
   * where only a read can tell.
   */
  isReady(place: number): boolean;
}

/** Somebody else's descriptor, for which a thread waits together with a port. Open until the port is closed. */
export interface Watched {
  readonly descriptor: number;
  /** The native handle of the TUN device behind it, which a port may read ahead; absent where there is none. */
  readonly device?: number;
}

/** How a thread that has nothing else to do waits for a port. Made into a WaitSet by `waitSetOf` (wait_set.ts). */
export type PortWait =
  | {
    /** poll(2) waits for a descriptor, which polls readable when `receive` would find something. */
    readonly by: "descriptor";
    readonly descriptor: number;
  }
  | {
    /** The port waits by means of its own, as in a ring, and takes the others in. */
    readonly by: "port";
    /** Makes the set: the port at place 0, the others from place 1 on. To be called once. Throws where it takes fewer. */
    readonly join: (others: readonly (Watched | undefined)[]) => WaitSet;
  }
  | {
    /** Nothing wakes: the thread looks again and again. */
    readonly by: "looking";
    /** Whether `receive` would find something. Called thousands of times a second; makes no system call. */
    readonly hasArrived: () => boolean;
    /** Microseconds between two looks that the thread may sleep when there was nothing; 0 to keep the processor. */
    readonly restUs: number;
  };

export interface Port {
  /** What it listens on, for people: "[::]:4433 (udp)". */
  readonly description: string;
  /** The UDP port number it is bound to. */
  readonly localPort: number;
  /** How a thread of its own waits for it; absent where only the event loop knows that something has arrived. */
  readonly wait?: PortWait;
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
  /** Calls back whenever `receive` would find something after it had found nothing. */
  onReadable(wake: () => void): void;
  close(): void | Promise<void>;
}
