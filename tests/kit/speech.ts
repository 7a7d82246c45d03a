/**
 * Ways to send speech, with what the E-model (ITU-T G.107) assumes of each. Encodes nothing.
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
