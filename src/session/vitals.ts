/**
 * How an OxTunnel session fares, as figures for people and for choices: round trip, jitter, what each end has received of
 * what the other sent, and repair in each direction. Invariant: the counts only grow while a session lives; readers that
 * want shares take differences. Measures nothing: the figures are those of pings, reports and repair.
 */
import type { SessionFigures } from "../repair/figures.ts";
import type { OxSession } from "./oxtunnel/session.ts";
import type { SessionTable } from "./table.ts";

/** One OxTunnel session at one moment. */
export interface Vitals extends SessionFigures {
  /** The session's own number at this end; another number means that the counts began anew. */
  session: number;
  /** Smoothed round trip in microseconds; undefined before the first pong. */
  rttUs?: number;
  /** Smoothed difference of one round trip from the next (RFC 3550 section 6.4.1), in microseconds. */
  jitterUs: number;
  /** Whether data was sent and nothing was received for the time after which the path counts as dead (PROTOCOL §14). */
  isSilent: boolean;
  /** Datagrams of ours up to the last that the other end reported, and how many of them it received. */
  reported: number;
  reportedReceived: number;
  /** Datagrams of the other end up to the highest that came, and how many of them came. */
  seen: number;
  received: number;
}

const U32 = 2 ** 32;

/** The vitals of a session whose columns and row `table` and `rest` hold. */
export function vitalsOf(rest: OxSession, { replay, receiverIndex }: SessionTable): Vitals {
  const reported = rest.host.shared.paths.acknowledged[rest.path] + 1;
  // The report says it modulo 2^32, and it is no more than there were and seldom much less.
  const missing = (reported % U32 - rest.reports.reportedReceived + U32) % U32;
  return {
    session: receiverIndex[rest.row],
    ...(rest.rttUs < 0 ? {} : { rttUs: rest.rttUs }),
    jitterUs: rest.roundTrip.jitter.us,
    isSilent: rest.isSilent,
    reported,
    reportedReceived: missing > reported ? reported : reported - missing,
    seen: replay.highest[rest.row] + 1,
    received: replay.accepted(rest.row),
    ...rest.repair?.figures,
  };
}
