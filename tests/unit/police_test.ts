/** The police of peers' rates by itself: how much passes, what is marked and what is lost. */
import { assert, assertEquals, assertGreater, assertLess } from "@std/assert";
import { CLASS_BULK, CLASS_GAME } from "../../src/control/traffic_class.ts";
import { Police } from "../../src/queue/police.ts";

const PEER = 7, RATE = 1_250_000, BYTES = 1250, SECOND = 1_000_000;

/** Sends `share` of the rate for four seconds, ECN-capable or not, and counts. */
function play(share: number, tos: number, trafficClass = CLASS_BULK) {
  const police = new Police({ peers: 16, ecn: true });
  police.setRate(PEER, RATE);
  let passed = 0, marked = 0, sent = 0;
  for (let us = 0; us < 4 * SECOND; us += BYTES / RATE / share * SECOND) {
    const view = new DataView(new ArrayBuffer(40));
    view.setUint8(0, 0x45);
    view.setUint8(1, tos);
    sent++;
    if (!police.passes(PEER, BYTES, trafficClass, view, 0, SECOND + us)) continue;
    passed++;
    if (view.getUint8(1) === 3) marked++;
  }
  return { sent, passed, marked, share: passed * BYTES / 4 / RATE };
}

Deno.test("police: below the rate all passes; above, the rate and no more, whoever ignores losses and marks", () => {
  const below = play(0.9, 0);
  assertEquals(below.passed, below.sent);
  for (const [tos, trafficClass] of [[0, CLASS_BULK], [1, CLASS_BULK], [0, CLASS_GAME]]) {
    const { share } = play(2, tos, trafficClass);
    assertLess(share, 1.03);
    assertGreater(share, 0.97);
  }
});

Deno.test("police: a little above the rate, ECN-capable packets are marked before any is lost", () => {
  const marking = play(1.01, 2);
  assertGreater(marking.marked, 10);
  assertEquals(marking.passed, marking.sent);
  const losing = play(1.01, 0);
  assertGreater(losing.sent, losing.passed);
});

Deno.test("police: a burst passes, a peer without a rate is not asked, and a rate can be taken back", () => {
  const police = new Police({ peers: 16, ecn: true });
  const view = new DataView(new ArrayBuffer(40));
  const burst = () => {
    let passed = 0;
    while (passed < 1000 && police.passes(PEER, BYTES, CLASS_BULK, view, 0, SECOND)) passed++;
    return passed;
  };
  assert(police.isIdle);
  assertEquals(burst(), 1000);
  police.setRate(PEER, RATE);
  assert(!police.isIdle);
  assertEquals(burst(), 51, "50 ms of the rate, and the packet that is being sent");
  assert(police.passes(PEER + 1, BYTES, CLASS_BULK, view, 0, SECOND));
  police.setRate(PEER, 0);
  assert(police.isIdle);
  assertEquals(burst(), 1000);
});
