/**
 * The interface of an exit: where inner packets leave for the internet and come back. An exit sees inner IP
 * packets that the relay's policy has already allowed, never keys or outer addresses.
 */
import type { Burst } from "../vector/burst.ts";
import type { PortForward, RefusedForward } from "./forward.ts";

/** The relay's address in the inner network of one family, as text. */
export interface InnerAddress {
  address: string;
  /** Prefix length, bits. */
  prefix: number;
}

/** Addresses of its own host that an exit lets packets reach; the policy has judged before. */
export interface HostAccess {
  all: boolean;
  /** Prefixes, where not all are open: "192.168.1.0/24", of this host's addresses or others. */
  prefixes: readonly string[];
  /** Whether port control (RFC 6887) at the relay's own inner address is open. */
  portControl?: boolean;
}

/** One datagram of port control, and the inner address and port at the other end. */
export interface ControlDatagram {
  address: string;
  port: number;
  payload: Uint8Array<ArrayBuffer>;
}

export interface Exit {
  /** "tun" or "userspace". */
  readonly name: string;
  /** Whether the exit takes TO_HAIRPIN rows. */
  readonly hairpins?: boolean;
  /** One line for people that describes the exit; the caller adds why it was chosen. */
  readonly description: string;
  /** Takes the rows whose next is TO_EXIT: sends the packet and marks the row DONE (or HELD, or a drop reason). */
  send(burst: Burst, nowUs: number): void;
  /**
   * Adds inner packets that came from outside, without waiting, until the burst is full or no more have come: slot, offset
   * and length set, next = TO_TUNNEL. Returns the rows added.
   */
  receive(burst: Burst, nowUs: number): number;
  /** A descriptor that polls readable when `receive` would find something; absent where only the event loop knows. */
  readonly descriptor?: number;
  /**
   * The native handle of the TUN device behind `descriptor` (ox_tun_open), for a port that reads it ahead of `receive`;
   * absent where there is none.
   */
  readonly device?: number;
  /** Whether `receive` has nothing to do for as long as `descriptor` is not readable. */
  readonly sleeps?: boolean;
  /** Descriptors that stay open when a thread ends without `close`; the code that ended the thread closes them. */
  readonly processDescriptors?: readonly number[];
  /** Calls back whenever `receive` would find something after it had found nothing. */
  onReadable(wake: () => void): void;
  /** Drops idle flows. Called about once a second. */
  handleTimeout(nowUs: number): void;
  /**
   * Ends every flow from these prefixes, whose owner was removed: answers must not reach the next owner. Absent where other
   * code does so.
   */
  forget?(prefixes: readonly string[]): void;
  /**
   * Lets strangers reach inner addresses by these ports of the host, and by no others from before; returns those that it cannot
   * open. Absent where other code does so.
   */
  setForwards?(wanted: readonly PortForward[]): RefusedForward[];
  /**
   * Gives what comes to the relay's own inner address for port control (RFC 6887) to `take`, with the asker's address and port.
   * Absent where the host's kernel takes such packets.
   */
  onPortControl?(take: (datagram: ControlDatagram) => void): void;
  /** Sends an answer to an asker. */
  answerPortControl?(answer: ControlDatagram): void;
  /** Live flows, for metrics. */
  readonly flowCount: number;
  /** Removes everything that the exit made. Safe to call twice. */
  close(): Promise<void>;
}
