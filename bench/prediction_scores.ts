/**
 * What a predictor is worth on given streams: how well it ranks what is ahead, and what remains lost when the copies that a
 * byte budget allows go to the datagrams that it thinks most endangered. Invariant: each predictor spends the same
 * bytes, and a copy shares the fate of the datagram it rides in. A model of repair by copies, not the relay's own.
 */
import type { Predictor } from "../src/repair/prediction/predictor.ts";
import { Random } from "../tests/kit/random.ts";
import { HELD_OUT, makeStreams, type Stream } from "./predict_data.ts";
import { precisionRecallArea, receiverOperatingArea } from "./ranking.ts";

/** A copy is sent in the first datagram at least this much later, microseconds: past short bursts, in time for a deadline of 60 ms. */
const SPACING_US = 30_000;

/** One wrong certainty must not count for ever. */
const CHANCE_MIN = 1e-4;

export interface Scores {
  /** Share of steps with a loss 50 to 100 ms ahead: what no skill reaches in `prArea`. */
  prevalence: number;
  prArea: number;
  rocArea: number;
  /** Mean cross entropy of the chance to the share that was lost: small when chances are true. */
  crossEntropy: number;
  /** Shares of all datagrams: lost, and still lost after the copies. */
  lossRate: number;
  residualRate: number;
}

/** Runs a new predictor over each stream; `budget` is the share of datagrams that get a copy. */
export function score(streams: readonly Stream[], make: () => Predictor, budget: number): Scores {
  const steps = streams.reduce((sum, stream) => sum + stream.steps.length, 0);
  const datagrams = streams.reduce((sum, stream) => sum + stream.sentUs.length, 0);
  const chances = new Float64Array(steps), happened = new Uint8Array(steps);
  const inForce = new Float64Array(datagrams), gains = new Uint8Array(datagrams);
  let count = 0, datagram = 0, lost = 0, entropy = 0;
  for (const stream of streams) {
    const predictor = make(), { sentUs, isLost } = stream;
    let next = 0;
    for (let step = 0; step < stream.steps.length; step++) {
      for (; next < sentUs.length && sentUs[next] < stream.atUs[step]; next++) {
        inForce[datagram + next] = predictor.lossAhead;
      }
      predictor.observe(stream.steps[step]);
      if (Number.isNaN(stream.lostAhead[step])) continue;
      const chance = chances[count] = predictor.lossAhead, share = stream.lostAhead[step];
      entropy -= share * Math.log(Math.max(CHANCE_MIN, chance)) +
        (1 - share) * Math.log(Math.max(CHANCE_MIN, 1 - chance));
      happened[count++] = share > 0 ? 1 : 0;
    }
    inForce.fill(predictor.lossAhead, datagram + next, datagram + sentUs.length);
    for (let n = 0, rides = 0; n < sentUs.length; n++) {
      while (rides < sentUs.length && sentUs[rides] < sentUs[n] + SPACING_US) rides++;
      lost += isLost[n];
      if (isLost[n] && rides < sentUs.length && !isLost[rides]) gains[datagram + n] = 1;
    }
    datagram += sentUs.length;
  }
  const judged = chances.subarray(0, count), came = happened.subarray(0, count);
  return {
    prevalence: came.reduce((sum, is) => sum + is, 0) / count,
    prArea: precisionRecallArea(judged, came),
    rocArea: receiverOperatingArea(judged, came),
    crossEntropy: entropy / count,
    lossRate: lost / datagrams,
    residualRate: (lost - gained(inForce, gains, budget * datagrams)) / datagrams,
  };
}

/** Losses that `copies` copies undo when they go to the highest chances; of equal ones to an even share. */
function gained(chances: Float64Array, gains: Uint8Array, copies: number): number {
  const order = Array.from(chances.keys()).sort((a, b) => chances[b] - chances[a]);
  let sum = 0, left = copies;
  for (let first = 0; first < order.length && left > 0;) {
    let end = first, gain = 0;
    while (end < order.length && chances[order[end]] === chances[order[first]]) gain += gains[order[end++]];
    sum += gain * Math.min(1, left / (end - first));
    left -= end - first;
    first = end;
  }
  return sum;
}

/** A small fixed set on which weights can be told from others: a stream of each held-out kind. */
export function checkStreams(): Stream[] {
  return makeStreams(HELD_OUT, 400_000, 1, 20).flatMap(({ streams }) => streams);
}

/** The mean of what a predictor says to steps drawn by chance: the same to the last digits for the same weights alone. */
export function fingerprint(predictor: Predictor): number {
  const random = new Random(3), count = 200;
  let sum = 0;
  for (let i = 0; i < count; i++) {
    const judged = random.u32() % 6, lost = random.u32() % (judged + 1), queueUs = 100_000 * random.real();
    predictor.observe({
      elapsedUs: 100_000 * random.real(),
      judged,
      lost,
      runs: Math.min(1, lost),
      longestRun: lost,
      queueUs,
      queueUsMax: 1.2 * queueUs,
      jitterUs: 5_000 * random.real(),
      reorderDepth: 0,
      ce: 0,
    });
    sum += predictor.lossAhead;
  }
  return sum / count;
}

/** The share of datagrams that get a copy, where nobody says otherwise: the relay's default budget. */
export const CHECK_BUDGET = 0.25;
