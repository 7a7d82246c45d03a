/**
 * The interface of an exit: where inner packets leave for the internet and come back. An exit sees inner IP
 * packets that the relay's policy has already allowed, never keys or outer addresses.
 */
import type { Burst } from "../vector/burst.ts";

/** What of its host an exit lets packets reach, the policy having judged before. */
export interface HostAccess {
  all: boolean;
  /** Where not all: "192.168.1.0/24", of this host's addresses or others. */
  prefixes: readonly string[];
}

export interface Exit {
  /** "tun" or "userspace". */
  readonly name: string;
  /** Whether it takes TO_HAIRPIN rows. */
  readonly hairpins?: boolean;
  /** One line for people: what it is and why it was chosen is the caller's part. */
  readonly description: string;
  /** Takes the rows whose next is TO_EXIT: sends the packet and marks the row DONE (or HELD, or a drop reason). */
  send(burst: Burst, nowUs: number): void;
  /**
   * Adds inner packets that came from outside, without waiting, until the burst or the supply ends: slot, offset
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
  /** Descriptors that outlive a thread that ends without `close`: the thread that ended it closes them. */
  readonly processDescriptors?: readonly number[];
  /** Calls back whenever `receive` would find something after it had found nothing. */
  onReadable(wake: () => void): void;
  /** Drops idle flows. Called about once a second. */
  handleTimeout(nowUs: number): void;
  /**
   * Ends everything that began inside at these prefixes, whose owner is gone: what comes back for it must not reach the next
   * one. Absent where somebody else does so.
   */
  forget?(prefixes: readonly string[]): void;
  /** Live flows, for metrics. */
  readonly flowCount: number;
  /** Removes everything that it made. Safe to call twice. */
  close(): Promise<void>;
}
