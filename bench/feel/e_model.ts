/**
 * A call's quality from its delay and its losses by the E-model (ITU-T G.107), on its narrowband scale: R = 93.2 - Id - Ie,eff, all
 * that has to do with the line and the room at its defaults, echo taken as cancelled. An estimate for comparisons, not a
 * listening test. Invariant: pure. Knows no network.
 */

/** A way to send speech, and what the E-model calls its impairment and its robustness. */
export interface SpeechCodec {
  name: string;
  /** Ie: what it costs without losses, 0 to 95. */
  impairment: number;
  /** Bpl: how well it bears losses; the percentage of random loss that costs half of what is left. */
  robustness: number;
  /** One packet's speech, and what else the encoder looks ahead, milliseconds. */
  frameMs: number;
  lookaheadMs: number;
}

/** Without concealment of losses (G.113 Appendix I). */
export const G711_PLAIN: SpeechCodec = {
  name: "G.711 without concealment",
  impairment: 0,
  robustness: 4.3,
  frameMs: 20,
  lookaheadMs: 0,
};

/** With the concealment of G.711 Appendix I, as everybody has it (G.113 Appendix I). */
export const G711: SpeechCodec = { ...G711_PLAIN, name: "G.711", robustness: 25.1, lookaheadMs: 3.75 };

/**
 * ITU-T plans with no figures for Opus on this scale. These are those that the open estimator rtcscore assumes for about 45 kbit/s without
 * Opus's own redundancy; its delay is 26.5 ms as encoders are set by default.
 */
export const OPUS: SpeechCodec = {
  name: "Opus",
  impairment: 6,
  robustness: 10,
  frameMs: 20,
  lookaheadMs: 6.5,
};

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
