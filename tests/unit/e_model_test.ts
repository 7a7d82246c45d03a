/**
 * The E-model of the measure of repair: the planning values that G.113 Appendix I gives for codecs under loss, and G.107's
 * formulae worked out by hand.
 */
import { assertAlmostEquals, assertEquals, assertGreater } from "@std/assert";
import {
  burstRatio,
  delayImpairment,
  effectiveImpairment,
  opinionScore,
  rating,
} from "../../bench/feel/e_model.ts";
import { G711, G711_PLAIN, OPUS } from "../kit/speech.ts";

Deno.test("E-model: G.113's impairments of G.729A under random loss", () => {
  const g729a = { name: "G.729A", impairment: 11, robustness: 19, frameMs: 20, lookaheadMs: 5 };
  const planned = [[0, 11], [0.5, 13], [1, 15], [1.5, 17], [2, 19], [3, 23], [4, 26], [8, 36], [16, 49]];
  for (const [percent, ie] of planned) assertAlmostEquals(effectiveImpairment(g729a, percent, 1), ie, 0.6);
});

Deno.test("E-model: G.711 with and without concealment", () => {
  assertEquals(effectiveImpairment(G711, 0, 1), 0);
  // 95 * 1 / (1 + 4.3) and 95 * 5 / (5 + 25.1).
  assertAlmostEquals(effectiveImpairment(G711_PLAIN, 1, 1), 17.9245, 1e-4);
  assertAlmostEquals(effectiveImpairment(G711, 5, 1), 15.7807, 1e-4);
  // Half of what is left is gone at Bpl percent, as for every codec.
  for (const codec of [G711_PLAIN, G711, OPUS]) {
    const { impairment, robustness } = codec;
    assertAlmostEquals(effectiveImpairment(codec, robustness, 1), (impairment + 95) / 2, 1e-9);
  }
  // In bursts of twice the length: 95 * 5 / (2.5 + 25.1).
  assertAlmostEquals(effectiveImpairment(G711, 5, 2), 17.2101, 1e-4);
});

Deno.test("E-model: delay costs nothing up to 100 ms, and then by G.107's formula", () => {
  assertEquals(delayImpairment(0), 0);
  assertEquals(delayImpairment(100), 0);
  // X = 1: 25 (2^(1/6) - 3 (1 + 3^-6)^(1/6) + 2); X = 2 likewise.
  assertAlmostEquals(delayImpairment(200), 3.0444, 1e-3);
  assertAlmostEquals(delayImpairment(400), 24.070, 1e-2);
});

Deno.test("E-model: the rating and what people would say", () => {
  assertAlmostEquals(rating(G711, 50, 0, 1), 93.2, 1e-9);
  assertAlmostEquals(opinionScore(93.2), 4.4093, 1e-4);
  assertEquals([opinionScore(-5), opinionScore(0), opinionScore(100), opinionScore(120)], [1, 1, 4.5, 4.5]);
  assertGreater(rating(G711, 50, 1, 1), rating(G711, 250, 1, 1));
  assertGreater(rating(G711, 50, 1, 1), rating(G711_PLAIN, 50, 1, 1));
});

Deno.test("E-model: the burst ratio is 1 at random and grows with the runs", () => {
  assertAlmostEquals(burstRatio(100, 10, 5), 1.8, 1e-9);
  // At random a run has 1 / (1 - p) losses on average.
  assertAlmostEquals(burstRatio(1000, 100, 90), 1, 1e-9);
  assertEquals([burstRatio(100, 0, 0), burstRatio(100, 100, 1)], [1, 1]);
});
