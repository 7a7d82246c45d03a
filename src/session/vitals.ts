/**
 * How a session fares, as figures for people and for choices: round trip, jitter, what each end has received of what
 * the other sent, and what repair comes to in each direction. Invariant: the counts only grow while a session lives; whoever wants shares takes differences.
 * Measures nothing itself: a session without pings and reports has nothing to say.
 */
import type { RepairReceiver } from "../repair/receiver.ts";
import type { OxSession } from "./oxtunnel/session.ts";
import type { RepairFigures } from "./peer_record.ts";
import type { RepairTally } from "../repair/tally.ts";
import type { SessionRepair } from "../repair/pool.ts";
import type { SessionTable } from "./table.ts";

/** One OxTunnel session at one moment. */
export interface Vitals {
  /** The session's own number at this end; another number means that the counts began anew. */
  session: number;
  /** Smoothed round trip in microseconds; undefined before the first pong. */
  rttUs?: number;
  /** Smoothed difference of one round trip from the next (RFC 3550 section 6.4.1), in microseconds. */
  jitterUs: number;
  /** Whether data went out and nothing came back for so long that the path counts as dead (PROTOCOL §14). */
  isSilent: boolean;
  /** Datagrams of ours up to the last that the other end reported, and how many of them it received. */
  reported: number;
  reportedReceived: number;
  /** Datagrams of the other end up to the highest that came, and how many of them came. */
  seen: number;
  received: number;
  /** Repair of what this end sends, and of what it receives, where there is any. */
  sending?: RepairFigures;
  receiving?: RepairFigures;
}

const U32 = 2 ** 32;

/** The vitals of a session whose columns and row `table` and `rest` hold. */
export function vitalsOf(rest: OxSession, { replay, receiverIndex }: SessionTable): Vitals {
  const reported = rest.around.options.paths.acknowledged[rest.path] + 1;
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
    ...repairFiguresOf(rest),
  };
}

/** What repair comes to in a session, in each direction that has it. */
export function repairFiguresOf({ repair, receiver }: OxSession): Pick<Vitals, "sending" | "receiving"> {
  return {
    ...(repair && { sending: sendingOf(repair) }),
    ...(receiver && { receiving: receivingOf(receiver) }),
  };
}

function sendingOf({ quality, tally }: SessionRepair): RepairFigures {
  return {
    lossRatio: quality.lossRate,
    residualRatio: quality.residualRate,
    repaired: quality.repaired,
    unrecovered: quality.unrepaired,
    // Each repair that was of use brought one datagram back.
    wasted: Math.max(0, tally.repairs - quality.repaired),
    isSilent: quality.isSilent,
    ...tallied(tally),
  };
}

function receivingOf({ arrivals, tally, wasted }: RepairReceiver): RepairFigures {
  return {
    lossRatio: arrivals.runs.lossRate,
    residualRatio: arrivals.residualRate,
    repaired: arrivals.repaired,
    unrecovered: arrivals.unrepaired,
    wasted,
    isSilent: false,
    ...tallied(tally),
  };
}

function tallied(tally: RepairTally): Pick<RepairFigures, "repairs" | "extraRatio" | "scheme"> {
  const { repairs, repairBytes, bytes } = tally;
  const extraRatio = bytes > repairBytes ? repairBytes / (bytes - repairBytes) : 0;
  return { repairs, extraRatio, scheme: described(tally) };
}

/** "none", "window 8, 24 %", "copy, 10 %", "spaced, 30 ms later". */
function described({ scheme, sources, laterUs, share }: RepairTally): string {
  if (scheme === "none") return scheme;
  if (scheme === "spaced") return `spaced, ${Math.round(laterUs / 1000)} ms later`;
  return `${scheme === "copy" ? scheme : `${scheme} ${sources}`}, ${Math.round(100 * share)} %`;
}
