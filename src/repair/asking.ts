/**
 * When a receiver asks for a lost packet, and what that leaves lost: pure functions of round trip, deadline and losses, which
 * the receiver follows (requests.ts) and the sender expects of it (redundancy.ts). Invariant: nothing is asked for whose
 * answer would come too late. Sends nothing.
 */

/** From an overdue packet to the request for it where the pace is known, microseconds: jitter and timers. */
export const NOTICE_US = 2_000;
/** Beside the round trip, from a request to the next one for the same packet. */
export const PATIENCE_US = 2_000;
/** Two requests closer together than this are one. */
export const APART_US = 3_000;
/** A request into a burst of losses is repeated after this share of the burst's time constant at the earliest. */
const BURST_SHARE = 0.75;
/** Share of the deadline within which an answer is sent; timers, the other end and jitter take the rest. */
export const ANSWERABLE = 0.97;
/** An answer may be this much later: the ends' clocks and their estimates are not exact. The deadline itself holds. */
export const LATE_TOLERANCE = 0.03;

export interface AskingPath {
  /** Round trip, and age at which an answer leaves in time, microseconds. */
  rttUs: number;
  usableUs: number;
  /** Shares of datagrams lost: of the packets' direction, and of the requests'. */
  loss: number;
  backLoss: number;
  /** Time constant of bursts of losses, microseconds; 0 for losses by themselves. */
  burstUs: number;
  /** Share of losses that may remain. */
  target: number;
}

/** Whether the chance that `asked` requests or their answers get lost leaves more than the target. In bursts no number is enough. */
export function areTooFew({ loss, backLoss, burstUs, target }: AskingPath, asked: number): boolean {
  const fails = burstUs > 0 ? 1 : 1 - (1 - loss) * (1 - backLoss);
  return loss * fails ** asked > target;
}

/**
 * When to ask next for a packet that was asked for at `age` (of the packet, as the receiver sees it), for the `asked`-th time: a
 * round trip later, or, where that would be too late and the requests so far are too few, at the last moment. Infinity for never.
 */
export function nextAskAge(age: number, asked: number, path: AskingPath): number {
  const { rttUs, usableUs, burstUs } = path;
  const regular = age + Math.max(rttUs + PATIENCE_US, BURST_SHARE * burstUs), last = usableUs - rttUs;
  if (regular <= last - 2 * APART_US) return regular;
  return last >= age + APART_US && areTooFew(path, asked) ? last : Infinity;
}

/** What asking achieves for a lost packet. */
export interface Asked {
  /** Chance that no answer can come, whatever is sent: losses last to the deadline. */
  hopeless: number;
  /** Chance that requests or answers get lost by themselves. */
  fails: number;
  /** Answers for each lost packet, on average. */
  answers: number;
}

/** Writes what asking achieves, first at `noticeUs`; a path on which nothing can be asked for in time leaves `fails` at 1. */
export function expectAsked(path: AskingPath, noticeUs: number, out: Asked): void {
  const { rttUs, usableUs, loss, backLoss, burstUs } = path;
  out.hopeless = 0;
  out.fails = 1;
  out.answers = 0;
  /** Chance that the packet is still missing when it is asked for. */
  let missing = 1;
  for (let age = noticeUs, asked = 1; age + rttUs <= usableUs; asked++) {
    out.answers += missing * (1 - backLoss);
    // In bursts an answer's loss is counted by `hopeless`.
    out.fails *= 1 - (burstUs > 0 ? 1 : 1 - loss) * (1 - backLoss);
    out.hopeless = burstUs > 0 ? Math.exp(-(age + rttUs) / burstUs) : 0;
    const next = nextAskAge(age, asked, path);
    if (next >= age + rttUs) missing = out.hopeless + (1 - out.hopeless) * out.fails;
    age = next;
  }
}
