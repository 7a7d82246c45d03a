/**
 * A call's quality from its delay and its losses by the E-model (ITU-T G.107), on its narrowband scale: R = 93.2 - Id - Ie,eff, all
 * that has to do with the line and the room at its defaults, echo taken as cancelled. An estimate for comparisons, not a
 * listening test. Invariant: pure. Knows no network.
 */
import type { SpeechCodec } from "../../tests/kit/speech.ts";

/** Ro - Is with every parameter at its default (G.107, the remark on its default values). */
const RATING_DEFAULT = 93.2;
/** Delay below which nobody minds, milliseconds: mT of G.107 §7.4. */
const DELAY_MS = 100;

/**
 * BurstR: the mean length of the losses in a row, over what it would be if as many were lost at random (G.107 §7.5).
 * @param runs how many times a loss follows a packet that came.
 */
export function burstRatio(packets: number, lost: number, runs: number): number {
  return lost === 0 || lost === packets ? 1 : lost / runs * (1 - lost / packets);
}

/** Ie,eff (G.107 §7.5). @param lossPercent 0 to 100. @param burst a `burstRatio`. */
export function effectiveImpairment(
  { impairment, robustness }: SpeechCodec,
  lossPercent: number,
  burst: number,
): number {
  return impairment + (95 - impairment) * lossPercent / (lossPercent / burst + robustness);
}

/** Idd (G.107 §7.4) of an absolute one-way delay from mouth to ear, milliseconds. */
export function delayImpairment(delayMs: number): number {
  if (delayMs <= DELAY_MS) return 0;
  const x = Math.log2(delayMs / DELAY_MS);
  return 25 * ((1 + x ** 6) ** (1 / 6) - 3 * (1 + (x / 3) ** 6) ** (1 / 6) + 2);
}

/** R, 0 and below for the worst to 93.2. */
export function rating(codec: SpeechCodec, delayMs: number, lossPercent: number, burst: number): number {
  return RATING_DEFAULT - delayImpairment(delayMs) - effectiveImpairment(codec, lossPercent, burst);
}

/** The mean opinion score that people would give, 1 to 4.5 (G.107 Annex B). */
export function opinionScore(r: number): number {
  if (r <= 0) return 1;
  return r >= 100 ? 4.5 : 1 + 0.035 * r + 7e-6 * r * (r - 60) * (100 - r);
}
