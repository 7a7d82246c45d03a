/**
 * What came of the packets of a game or a call: the share that was lost or too late, how much later the rest was, losses in a
 * row, and what a call would sound like. Invariant: judges only when packets were sent, came, and would have come; how they
 * were repaired is not its business.
 */
import { percentile } from "../../src/control/percentile.ts";
import { burstRatio, rating } from "./e_model.ts";
import type { SpeechCodec } from "../../tests/kit/speech.ts";

/** One direction's packets in the order of sending; times in microseconds. */
export interface Received {
  sentUs: ArrayLike<number>;
  /** When each would have come had the path lost nothing. */
  expectedUs: ArrayLike<number>;
  /** When it came, Infinity for never. */
  arrivedUs: ArrayLike<number>;
}

export interface Score {
  packets: number;
  /** Lost, or later than the deadline. */
  lost: number;
  /** The share of these, 0 to 1. */
  residual: number;
  /** The same share with 5 ms more: at a steady pace one packet more may then be in time to bring a repair. */
  residualRelaxed: number;
  /** How much later than expected those came that came at all, milliseconds. */
  addedMsP50: number;
  addedMsP99: number;
  addedMsP999: number;
  /** Runs of three lost packets or more, in a minute of one direction. */
  longRunsPerMinute: number;
}

const LONG_RUN = 3;
const RELAXED_US = 5_000;
/** Playout delays that are tried, evenly up to the deadline. */
const PLAYOUTS = 20;

/** Calls back for each run of packets that are lost or come more than `deadlineUs` late. */
function eachRun(
  { expectedUs, arrivedUs }: Received,
  deadlineUs: number,
  found: (length: number) => void,
): void {
  let length = 0;
  for (let n = 0; n <= arrivedUs.length; n++) {
    if (n < arrivedUs.length && arrivedUs[n] - expectedUs[n] > deadlineUs) length++;
    else if (length > 0) {
      found(length);
      length = 0;
    }
  }
}

/** The score of all directions together. */
export function score(directions: readonly Received[], deadlineUs: number): Score {
  const addedMs: number[] = [];
  let packets = 0, lost = 0, lostRelaxed = 0, longRuns = 0, minutes = 0;
  for (const received of directions) {
    const { sentUs, expectedUs, arrivedUs } = received;
    packets += arrivedUs.length;
    minutes += (sentUs[sentUs.length - 1] - sentUs[0]) / 60e6;
    eachRun(received, deadlineUs, (length) => {
      lost += length;
      if (length >= LONG_RUN) longRuns++;
    });
    eachRun(received, deadlineUs + RELAXED_US, (length) => lostRelaxed += length);
    for (let n = 0; n < arrivedUs.length; n++) {
      if (arrivedUs[n] < Infinity) addedMs.push(Math.max(0, arrivedUs[n] - expectedUs[n]) / 1000);
    }
  }
  return {
    packets,
    lost,
    residual: lost / packets,
    residualRelaxed: lostRelaxed / packets,
    addedMsP50: percentile(addedMs, 0.5),
    addedMsP99: percentile(addedMs, 0.99),
    addedMsP999: percentile(addedMs, 0.999),
    longRunsPerMinute: longRuns / minutes,
  };
}

/**
 * R of the E-model for one direction of a call, whose receiver plays each packet a fixed time after it is expected: the best such
 * time up to the deadline, as a good jitter buffer finds it. What comes later is lost.
 */
export function speechRating(received: Received, deadlineUs: number, codec: SpeechCodec): number {
  const { sentUs, expectedUs } = received;
  const packets = expectedUs.length;
  let pathUs = 0;
  for (let n = 0; n < packets; n++) pathUs += (expectedUs[n] - sentUs[n]) / packets;
  let best = -Infinity;
  for (let i = 0; i <= PLAYOUTS; i++) {
    const playoutUs = deadlineUs * i / PLAYOUTS;
    let lost = 0, runs = 0;
    eachRun(received, playoutUs, (length) => {
      lost += length;
      runs++;
    });
    const delayMs = codec.frameMs + codec.lookaheadMs + (pathUs + playoutUs) / 1000;
    best = Math.max(best, rating(codec, delayMs, 100 * lost / packets, burstRatio(packets, lost, runs)));
  }
  return best;
}
