/**
 * How well scores put what happens before what does not. Equal scores are one group, in no order. Pure functions of what
 * they are given.
 */

/** Groups of equal scores, highest first: how many in each happened and did not. */
function groups(
  scores: ArrayLike<number>,
  happened: ArrayLike<number>,
): [positives: number, negatives: number][] {
  const order = Array.from({ length: scores.length }, (_, i) => i).sort((a, b) => scores[b] - scores[a]);
  const found: [number, number][] = [];
  let last = NaN;
  for (const i of order) {
    if (scores[i] !== last) found.push([0, 0]);
    last = scores[i];
    found[found.length - 1][happened[i] > 0 ? 0 : 1]++;
  }
  return found;
}

/**
 * Area under the curve of precision over recall, as average precision: 1 for the perfect order, the share that happened for
 * none; NaN where nothing happened.
 */
export function precisionRecallArea(scores: ArrayLike<number>, happened: ArrayLike<number>): number {
  let taken = 0, hits = 0, area = 0;
  for (const [positives, negatives] of groups(scores, happened)) {
    taken += positives + negatives;
    hits += positives;
    area += positives * hits / taken;
  }
  return area / hits;
}

/** Chance that what happened has the higher score than what did not, halves for equals; NaN without one of the two. */
export function receiverOperatingArea(scores: ArrayLike<number>, happened: ArrayLike<number>): number {
  let above = 0, negativesAbove = 0, hits = 0;
  for (const [positives, negatives] of groups(scores, happened)) {
    above += positives * (negativesAbove + negatives / 2);
    negativesAbove += negatives;
    hits += positives;
  }
  return 1 - above / (hits * negativesAbove);
}
