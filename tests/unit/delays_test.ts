/** Figures of delays: how near they are to the truth, that they fade, and of whom they are kept. */
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { addDelays, delayFigures } from "../../src/control/delay_figures.ts";
import { Delays } from "../../src/control/delays.ts";
import { CLASS_BULK, CLASS_GAME } from "../../src/control/traffic_class.ts";
import { LineFigures } from "../../src/queue/line_figures.ts";

Deno.test("delays: percentiles are within a quarter of the truth, from a microsecond to seconds", () => {
  for (const scaleUs of [2, 90, 1300, 40_000, 3_000_000]) {
    const delays = new Delays(2);
    for (let i = 1; i <= 1000; i++) delays.add(1, scaleUs * i / 500);
    const { p50Ms, p99Ms } = delayFigures(delays.counts(1))!;
    assertAlmostEquals(p50Ms / (scaleUs / 1000), 1, 0.25);
    assertAlmostEquals(p99Ms / (1.98 * scaleUs / 1000), 1, 0.25);
    assertEquals(delayFigures(delays.counts(0)), undefined, "another subject's are its own");
  }
});

Deno.test("delays: what is past fades, and what threads have counted adds up", () => {
  const delays = new Delays(1);
  delays.add(0, 10_000, 100);
  for (let i = 0; i < 10; i++) delays.fade(0);
  delays.add(0, 10, 100);
  assert(delayFigures(delays.counts(0))!.p99Ms < 0.02);
  assert(delayFigures(addDelays([delays.counts(0), [0, 0, 0, 1e6]]))!.p50Ms < 0.004);
  for (const us of [-1, 0, 1e12]) delays.add(0, us);
  assertEquals(delayFigures(delays.counts(0))!.p50Ms < 0.02, true);
});

Deno.test("line figures: each peer's are its own, and a peer that is gone leaves none", () => {
  const figures = new LineFigures(4096, { waited: () => {} });
  for (const peer of [7, 8]) {
    figures.look(peer);
    figures.waited(CLASS_GAME, 100 * peer);
    figures.waited(CLASS_BULK, 0);
    figures.marked();
    for (let i = 0; i < peer; i++) figures.lost("queue_delay");
  }
  const { waits, marked, drops } = figures.of(8)!;
  assertEquals([marked, drops.queue_delay, drops.queue_stale], [1, 8, 0]);
  assertAlmostEquals(delayFigures(waits[CLASS_GAME])!.p50Ms, 0.8, 0.2);
  assertEquals(delayFigures(waits[CLASS_BULK])!.p50Ms < 0.002, true);
  figures.fade((peer) => peer === 8);
  assertEquals(figures.of(8), undefined);
  assertEquals(figures.of(7)!.drops.queue_delay, 7);
  for (let peer = 0; peer < 4096; peer++) {
    figures.look(peer);
    figures.marked(); // one too many is not kept, and takes nobody's place
  }
  assertEquals(figures.of(7)!.marked, 2);
  figures.forget(7);
  figures.look(4095);
  figures.marked();
  assertEquals(figures.of(4095)!.marked, 1);
});

Deno.test("line figures: who has nothing left to tell makes room for others, who lost a packet does not", () => {
  const figures = new LineFigures(4096, { waited: () => {} });
  for (const peer of [7, 8]) {
    figures.look(peer);
    figures.waited(CLASS_GAME, 100);
  }
  figures.lost("queue_stale");
  for (let i = 0; i < 3; i++) figures.fade(() => false);
  assertEquals(figures.of(7), undefined);
  assertEquals(figures.of(8)!.drops.queue_stale, 1);
});
