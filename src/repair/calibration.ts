// Hot path.
/**
 * What a predictor's words are worth on one path: the share of datagrams that got lost, by the prediction that held when they
 * were sent. Where losses come as predicted, as beside a handover, repair can rest in between; where a prediction says nothing,
 * all ranges have the path's own rate. Invariant: every share is between 0 and 1, whatever is predicted and reported, and memory
 * is fixed. Predicts nothing (prediction/predictor.ts).
 */

/** Ranges of predictions: below RANGE_MIN, and then each up to twice the one before. */
const RANGES = 8, RANGE_MIN = 1 / 256;
/** Datagrams whose range is remembered, a power of two. */
const KEPT = 1024;
/** Half-lives of what is counted in a range, in its own datagrams: one that lasts, and one for what begins. */
const LASTING = 256, SOON = 64;
/** Datagrams that what is known beside counts for. */
const PRIOR = 8;

/** What became of datagrams that were sent under a prediction like the present one. */
export interface Foreseen {
  /** With forgetting: datagrams judged, and lost. */
  judged: number;
  lost: number;
  /** The share lost of the last few. */
  soon: number;
}

/** Nothing is known yet, or nothing is predicted. */
export function nothingForeseen(): Foreseen {
  return { judged: 0, lost: 0, soon: 0 };
}

/** The share of what is sent now that is likely to get lost, 0 to 1, where `prior` is what is known beside. */
export function likelyLost({ judged, lost, soon }: Foreseen, prior: number): number {
  return Math.min(1, Math.max((lost + PRIOR * prior) / (judged + PRIOR), soon));
}

export class Calibration {
  // Of each range, with forgetting: datagrams judged, and lost.
  readonly #lasting = new Float64Array(2 * RANGES);
  readonly #soon = new Float64Array(2 * RANGES);
  readonly #rangeOf = new Uint8Array(KEPT);
  #range = 0;

  /** Notes the prediction that holds for what is sent from now on, 0 to 1. */
  predict(lossAhead: number): void {
    const range = Math.floor(Math.log2(lossAhead / RANGE_MIN)) + 1;
    this.#range = Math.max(0, Math.min(RANGES - 1, range));
  }

  /** Notes that the datagram with `counter` was sent. */
  sent(counter: number): void {
    this.#rangeOf[counter % KEPT] = this.#range;
  }

  /** Notes that of `judged` datagrams from the counter `first` on `lost` were lost: neighbours share a prediction. */
  judged(first: number, judged: number, lost: number): void {
    const at = 2 * this.#rangeOf[first % KEPT];
    count(this.#lasting, at, judged, lost, LASTING);
    count(this.#soon, at, judged, lost, SOON);
  }

  /** Forgets all losses: they had a cause that counts no more. */
  forgive(): void {
    for (let at = 1; at < 2 * RANGES; at += 2) this.#lasting[at] = this.#soon[at] = 0;
  }

  /** Writes what became of datagrams under a prediction like the present one. */
  read(out: Foreseen): void {
    const at = 2 * this.#range;
    out.judged = this.#lasting[at];
    out.lost = this.#lasting[at + 1];
    out.soon = this.#soon[at + 1] / (this.#soon[at] + PRIOR);
  }
}

function count(counts: Float64Array, at: number, judged: number, lost: number, halfLife: number): void {
  const kept = 2 ** (-judged / halfLife);
  counts[at] = counts[at] * kept + judged;
  counts[at + 1] = counts[at + 1] * kept + lost;
}
