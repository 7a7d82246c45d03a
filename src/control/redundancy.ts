/**
 * How much repair a session's protected packets get, and of which kind: a pure function of what the receiver reports, the
 * deadline and the byte budget. Invariant: never more than the budget; on a clean path next to nothing; where loss comes
 * with a growing queue, less instead of more, for repair would feed it.
 */

/** What is known of a path and of the traffic on it. */
export interface RepairSituation {
  /** Share of datagrams lost, 0 to 1, and losses in a row on average. */
  lossRate: number;
  runLength: number;
  /** Time between protected datagrams, microseconds. */
  gapUs: number;
  /** Smoothed round trip and the least seen of late, microseconds. */
  rttUs: number;
  rttUsMin: number;
  /** How late a packet is still of use, microseconds after the original. */
  deadlineUs: number;
  /** Bytes of repair for each byte protected, at most. */
  budget: number;
}

/** What to send; session/ox_repair.ts carries it out. */
export interface RepairChoice {
  /** Sources that a repair combines: the last ones, or those of a block; 1 is a copy. */
  sources: number;
  /** Bytes of repair for each byte of protected datagrams, 0 to 1; 0 sends none. */
  share: number;
  /** How long after its newest source a repair goes at the earliest, microseconds. */
  spacingUs: number;
}

/** On a clean path, so that the first losses find the other end ready. */
const PROBE_SHARE = 0.01;
/** Below this rate a path is clean. */
const CLEAN_RATE = 0.001;
/** Bytes of repair for each lost byte: what brings random losses of a few percent below one. */
const SHARE_PER_LOSS = 6;
/** Runs longer than this on average are bursts, which codes over neighbours do not survive. */
const BURST_RUN = 1.4;
const SOURCES_MAX = 8;
/** A queue of so much above the shortest round trip, and of this share of it, is congestion. */
const QUEUE_US = 30_000, QUEUE_RATIO = 0.5;
const CONGESTED_SHARE = 0.25;

/** Writes the choice for the situation to `choice`. */
export function chooseRepair(situation: RepairSituation, choice: RepairChoice): void {
  const { lossRate, runLength, gapUs, rttUs, rttUsMin, deadlineUs, budget } = situation;
  // Packets that still come within the deadline of one that is lost.
  const inTime = Math.max(1, Math.floor(deadlineUs / Math.max(1, gapUs)));
  choice.sources = Math.min(SOURCES_MAX, inTime + 1);
  choice.spacingUs = 0;
  if (lossRate < CLEAN_RATE) {
    choice.share = Math.min(budget, PROBE_SHARE);
    return;
  }
  const queueUs = rttUs - rttUsMin;
  const isCongested = queueUs > QUEUE_US && queueUs > QUEUE_RATIO * rttUsMin;
  const isBursty = runLength > BURST_RUN;
  choice.share = Math.min(budget, SHARE_PER_LOSS * lossRate * (isBursty ? runLength : 1));
  if (isCongested) choice.share *= CONGESTED_SHARE;
  if (!isBursty) return;
  // Copies, as late as they are still of use: then they outlast the burst.
  choice.sources = 1;
  choice.spacingUs = Math.max(0, (inTime - 1) * gapUs);
}
