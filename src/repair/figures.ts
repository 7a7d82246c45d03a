/**
 * What repair of one direction of a session amounts to, as plain data for people, /v1 and metrics. Invariant: counts only
 * grow while the session lives, and nothing here is secret. Computes nothing; repair/session_repair.ts fills it.
 */

/** How losses are repaired. A spaced copy leaves datagrams between itself and its original. */
export const SEEN_SCHEMES = ["none", "copy", "spaced", "window", "block", "request"] as const;
export type SeenScheme = (typeof SEEN_SCHEMES)[number];

/** One direction of a session; counts since it began. */
export interface RepairFigures {
  /** Recent shares, 0 to 1: datagrams lost (reordering excluded), and protected datagrams lost in spite of repair. */
  lossRatio: number;
  residualRatio: number;
  /** Datagrams that were brought back, and protected ones that were not. */
  repaired: number;
  unrecovered: number;
  /** Repair symbols, and those that were not needed (receiver's view) or brought nothing back (sender's view). */
  repairs: number;
  wasted: number;
  /**
   * Repair on request. Sending: datagrams sent again, and ones that the other end asked for in vain (too old, or beyond the
   * budget). Receiving: requests for one datagram each, those whose datagram came in time, too late, and without an answer.
   */
  requests: number;
  answered: number;
  late: number;
  useless: number;
  /** Bytes of repair for each other byte on the wire. */
  extraRatio: number;
  /** The scheme in use, with its bytes for each other byte: "none", "window 8, 24 %", "spaced, 30 ms later". */
  scheme: string;
  /** Whether data is sent and the other end's reports have stopped, so that these figures are old. */
  isSilent: boolean;
}

/** Both directions, each where it exists. */
export interface SessionFigures {
  sending?: RepairFigures;
  receiving?: RepairFigures;
}
