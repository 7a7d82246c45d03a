/**
 * The example test cases of draft-ietf-ccwg-bbr-06 (appendix "BBR Example Test Cases"), each under its name there, over a simulated
 * path. What the draft leaves open, rates, round trips and how many rounds are reasonable, is chosen here.
 */
import { assert, assertEquals, assertGreater, assertLess, assertLessOrEqual } from "@std/assert";
import {
  Bbr,
  DRAIN,
  PROBE_CRUISE,
  PROBE_DOWN,
  PROBE_REFILL,
  PROBE_RTT,
  PROBE_UP,
  STARTUP,
} from "../../src/rate/bbr.ts";
import { DeliveryRate } from "../../src/rate/delivery_rate.ts";
import { Flow, MSS } from "./bbr_flow.ts";

const SECOND = 1_000_000;

/** The states that the flow has been in from the index on. */
const statesFrom = (flow: Flow, from: number) => flow.states.slice(from).map(({ state }) => state);

function near(value: number, wanted: number, share: number, what: string): void {
  assert(
    Math.abs(value / wanted - 1) <= share,
    `${what}: ${value} is not within ${100 * share} % of ${wanted}`,
  );
}

Deno.test("bbr: Exiting STARTUP on Bandwidth Plateau", () => {
  for (const [bytesPerS, rttUs] of [[125_000, 200_000], [1_250_000, 40_000], [12_500_000, 10_000]]) {
    const flow = new Flow({ bytesPerS, rttUs, bufferBytes: 4 * bytesPerS * rttUs / 1e6 + 20 * MSS });
    flow.runWhile(() => flow.bbr.state === STARTUP);
    near(flow.bbr.maxBw, bytesPerS, 0.02, "bandwidth");
    assertEquals(flow.bbr.fullBwCount, 3);
    assert(flow.bbr.isFullBwNow && flow.bbr.isFullBwReached);
    assertEquals(flow.bbr.state, DRAIN);
  }
});

Deno.test("bbr: Exiting STARTUP on Loss When Application-Limited", () => {
  const flow = new Flow({ bytesPerS: 12_500_000 });
  flow.appBytesPerS = 1_000_000;
  flow.runFor(SECOND);
  assertEquals(flow.bbr.state, STARTUP);
  flow.link.loss = 0.3;
  flow.runWhile(() => flow.bbr.state === STARTUP, 5);
  assert(flow.bbr.isFullBwNow && flow.bbr.isFullBwReached);
  // With so little on its way there is nothing to drain: the same acknowledgement ends that too.
  assertEquals(flow.bbr.drainStartRound, flow.bbr.roundCount);
  assert(flow.bbr.state === DRAIN || flow.bbr.isInProbeBw);
});

Deno.test("bbr: Exiting DRAIN Based on Inflight", () => {
  const flow = new Flow({});
  flow.runTo(DRAIN);
  assertEquals(flow.bbr.pacingGain, 0.5);
  assertGreater(flow.rate.inflight, flow.bbr.inflight(1));
  flow.runWhile(() => flow.bbr.state === DRAIN);
  assertLessOrEqual(flow.rate.inflight, flow.bbr.inflight(1) + MSS);
  assertLessOrEqual(flow.bbr.roundCount, flow.bbr.drainStartRound + 3);
  assert(flow.bbr.isInProbeBw);
});

Deno.test("bbr: Exiting DRAIN Based on Time", () => {
  const flow = new Flow({ bufferBytes: 10_000_000 });
  flow.runTo(DRAIN);
  const start = flow.bbr.drainStartRound;
  // A tenth less would drain within a round here; what keeps it up is what the model is about.
  flow.link.bytesPerS *= 0.1;
  flow.runWhile(() => flow.bbr.state === DRAIN);
  assertEquals(flow.bbr.roundCount, start + 4, "after three rounds");
  assertGreater(flow.rate.inflight, flow.bbr.inflight(1));
  assertEquals(flow.bbr.state, PROBE_DOWN);
});

Deno.test("bbr: Exiting PROBE_UP on Bandwidth Plateau", () => {
  const flow = new Flow({ bufferBytes: 10_000_000 });
  flow.runTo(PROBE_UP);
  const from = flow.states.length, rounds = flow.bbr.roundCount, lost = flow.lostBytes;
  flow.runWhile(() => flow.bbr.state === PROBE_UP);
  assertEquals(flow.lostBytes, lost);
  assert(flow.bbr.isFullBwNow);
  assertEquals(flow.bbr.fullBwCount, 3);
  assertGreater(flow.bbr.roundCount, rounds + 2);
  assertEquals(statesFrom(flow, from), [PROBE_DOWN]);
});

Deno.test("bbr: Exiting PROBE_UP on Loss When Application-Limited", () => {
  const flow = new Flow({});
  flow.runTo(PROBE_UP);
  flow.appBytesPerS = 600_000;
  flow.runFor(200_000);
  assertEquals(flow.bbr.state, PROBE_UP);
  flow.link.loss = 0.2;
  const from = flow.states.length, longterm = flow.bbr.inflightLongterm;
  flow.runWhile(() => flow.bbr.state === PROBE_UP, 5);
  // What is on its way is less than the model allows, so that the same acknowledgement ends PROBE_DOWN too.
  assertEquals(statesFrom(flow, from), [PROBE_CRUISE]);
  assertEquals(
    flow.bbr.inflightLongterm,
    longterm,
    "a sender without data says nothing of what fits the path",
  );
});

Deno.test("bbr: Never Exiting PROBE_UP (or STARTUP) When Application-Limited With No Loss", () => {
  const starting = new Flow({});
  starting.appBytesPerS = 300_000;
  starting.runFor(30 * SECOND);
  assertEquals(statesFrom(starting, 0).filter((state) => state !== PROBE_RTT && state !== STARTUP), []);
  const probing = new Flow({});
  probing.runTo(PROBE_UP);
  probing.appBytesPerS = 300_000;
  const from = probing.states.length;
  probing.runWhile(() => probing.states.length === from, 20);
  assertEquals(statesFrom(probing, from), [PROBE_RTT], "which comes whatever is probed");
});

Deno.test("bbr: Exiting PROBE_DOWN on Inflight", () => {
  const flow = new Flow({});
  flow.runTo(PROBE_UP);
  flow.runTo(PROBE_DOWN);
  assertEquals(flow.bbr.pacingGain, 0.9);
  flow.runWhile(() => flow.bbr.state === PROBE_DOWN);
  assertLessOrEqual(flow.rate.inflight, flow.bbr.inflightWithHeadroom());
  assertLessOrEqual(flow.rate.inflight, flow.bbr.inflight(1) + MSS);
  assertEquals(flow.bbr.state, PROBE_CRUISE);
});

Deno.test("bbr: Exiting PROBE_DOWN After Max Time", () => {
  const flow = new Flow({ bytesPerS: 12_500_000, bufferBytes: 20_000_000 });
  flow.runTo(PROBE_UP);
  flow.runTo(PROBE_DOWN);
  const beganUs = flow.nowUs, from = flow.states.length;
  flow.link.bytesPerS *= 0.88;
  flow.runWhile(() => flow.bbr.state === PROBE_DOWN);
  assertEquals(statesFrom(flow, from), [PROBE_REFILL], "no cruise between");
  assertLessOrEqual(flow.nowUs, beganUs + flow.bbr.bwProbeWaitUs + SECOND);
});

Deno.test("bbr: Entering and Exiting PROBE_RTT", () => {
  const flow = new Flow({});
  flow.runTo(PROBE_RTT);
  assertEquals(flow.bbr.cwndGain, 0.5);
  assertGreater(flow.nowUs, 5 * SECOND);
  const beganUs = flow.nowUs;
  flow.runWhile(() => flow.bbr.state === PROBE_RTT);
  assertGreater(flow.nowUs - beganUs, 200_000);
  assertEquals(flow.bbr.state, PROBE_CRUISE);
  assertEquals(flow.bbr.minRttUs, flow.link.rttUs + MSS / flow.link.bytesPerS * 1e6);
  const sent = flow.deliveredBytes;
  flow.runFor(SECOND);
  assertGreater(flow.deliveredBytes - sent, 0.8 * flow.link.bytesPerS);
});

Deno.test("bbr: Skipping PROBE_RTT Due to Application-Limited Sending", () => {
  const flow = new Flow({});
  flow.runTo(PROBE_CRUISE);
  flow.appBytesPerS = 0;
  flow.runFor(6 * SECOND);
  assertEquals(flow.rate.inflight, 0);
  flow.appBytesPerS = Infinity;
  const from = flow.states.length;
  flow.step(flow.nowUs + SECOND);
  assert(flow.bbr.isIdleRestart);
  flow.runFor(200_000);
  assert(!statesFrom(flow, from).includes(PROBE_RTT));
  assert(!flow.bbr.isIdleRestart);
});

Deno.test("bbr: Achieving Expected STARTUP Bandwidth on a Link With Aggregation", () => {
  const flow = new Flow({ ackEveryUs: 20_000, bufferBytes: 1_000_000 });
  flow.runWhile(() => flow.bbr.state === STARTUP);
  assertGreater(flow.bbr.extraAcked, 0);
  assertGreater(flow.bbr.cwnd, 2 * flow.bdp);
  near(flow.bbr.maxBw, flow.link.bytesPerS, 0.15, "bandwidth");
});

Deno.test("bbr: Achieving Expected Cruise Bandwidth on a Link With Aggregation", () => {
  const flow = new Flow({ bufferBytes: 1_000_000 });
  flow.runTo(PROBE_CRUISE);
  const without = flow.bbr.extraAcked;
  flow.link.ackEveryUs = 20_000;
  flow.runFor(2 * SECOND);
  assertGreater(flow.bbr.extraAcked, without);
  assertGreater(flow.bbr.maxInflight, 2 * flow.bdp);
  const before = flow.deliveredBytes;
  flow.runFor(4 * SECOND);
  assertGreater(flow.deliveredBytes - before, 0.85 * 4 * flow.link.bytesPerS);
});

Deno.test("bbr: Correctly Managing Sub-Packet BDPs", () => {
  const flow = new Flow({ bytesPerS: 125_000, rttUs: 1000, bufferBytes: 100_000 });
  flow.runTo(PROBE_CRUISE);
  flow.runFor(SECOND);
  assert(flow.bdp < MSS);
  assertEquals(flow.bbr.minPipeCwnd, 4 * MSS);
  assert(flow.bbr.cwnd >= 4 * MSS);
  const before = flow.deliveredBytes;
  flow.runFor(4 * SECOND);
  near(flow.deliveredBytes - before, 4 * flow.link.bytesPerS, 0.15, "goodput");
});

Deno.test("bbr: Increasing Bandwidth 10x and Ensuring Full Bandwidth is Reached", () => {
  const flow = new Flow({ bytesPerS: 1_250_000, bufferBytes: 60_000 });
  flow.runTo(PROBE_CRUISE);
  flow.runFor(SECOND);
  flow.link.bytesPerS *= 10;
  flow.link.bufferBytes *= 10;
  const before = flow.bbr.roundCount;
  flow.runWhile(() => flow.bbr.maxBw < 0.9 * flow.link.bytesPerS, 60);
  // Most of these are spent between probes, some 62 a cycle at most; each probe grows the model as long as that pays.
  assertLess(flow.bbr.roundCount - before, 400);
});

Deno.test("bbr: Decreasing Bandwidth 10x and Ensuring Max Bandwidth Adapts Down", () => {
  const flow = new Flow({ bytesPerS: 12_500_000, bufferBytes: 300_000 });
  flow.runTo(PROBE_CRUISE);
  flow.link.bytesPerS /= 10;
  flow.runFor(2 * SECOND);
  assertLess(flow.bbr.bw, 0.3 * 12_500_000, "the short-term model follows losses");
  flow.runFor(12 * SECOND);
  near(flow.bbr.maxBw, flow.link.bytesPerS, 0.1, "bandwidth");
});

Deno.test("bbr: Handling Token Bucket Policers", () => {
  const flow = new Flow({ bytesPerS: 1_250_000, bucketBytes: 100_000 });
  flow.runFor(10 * SECOND);
  const lost = flow.lostBytes, delivered = flow.deliveredBytes;
  flow.runFor(10 * SECOND);
  const loss = (flow.lostBytes - lost) / (flow.lostBytes - lost + flow.deliveredBytes - delivered);
  assertLess(loss, 0.1, `${loss} is lost`);
  assertGreater(flow.deliveredBytes - delivered, 0.7 * 10 * flow.link.bytesPerS);
});

/** A flow in PROBE_UP whose last packets seemed lost and were only late. */
function spurious(isTimeout: boolean): void {
  const flow = new Flow({});
  flow.runTo(PROBE_UP);
  const { bwShortterm, inflightShortterm, inflightLongterm } = flow.bbr;
  flow.runFor(5000);
  assertEquals(flow.bbr.state, PROBE_UP);
  if (isTimeout) {
    flow.bbr.onTimeout(flow.rate);
    assertEquals(flow.bbr.cwnd, flow.rate.inflight + MSS);
  }
  // From here to the end of what follows packets overtake those before.
  flow.link.lateUs = 30_000;
  flow.runFor(20_000);
  flow.link.lateUs = 0;
  flow.runWhile(() => flow.bbr.state === PROBE_UP, 5);
  assertEquals(flow.bbr.state, PROBE_DOWN, "what is overtaken counts as lost");
  flow.bbr.onSpuriousLoss(flow.rate);
  assertEquals(flow.bbr.state, PROBE_REFILL, "the probe begins anew");
  assert(flow.bbr.bwShortterm >= bwShortterm);
  assert(flow.bbr.inflightShortterm >= inflightShortterm);
  assert(flow.bbr.inflightLongterm >= inflightLongterm);
  flow.runTo(PROBE_UP, 5);
}

Deno.test("bbr: Handling Spurious Fast Recovery", () => spurious(false));
Deno.test("bbr: Handling Spurious RTO Recovery", () => spurious(true));

Deno.test("bbr: Entering and Exiting PROBE_RTT During STARTUP", () => {
  const flow = new Flow({});
  flow.appBytesPerS = 400_000;
  // A round trip that grows leaves the least one behind, and a sender without data stays in start-up.
  flow.runFor(2 * SECOND);
  flow.link.rttUs += 20_000;
  flow.runTo(PROBE_RTT, 20);
  assert(!flow.bbr.isFullBwReached);
  flow.runWhile(() => flow.bbr.state === PROBE_RTT);
  assertEquals(flow.bbr.state, STARTUP);
});

Deno.test("bbr: Handling Loss During PROBE_UP After inflight_longterm is Set", () => {
  const flow = new Flow({ bufferBytes: 30_000 });
  flow.runWhile(() => flow.bbr.inflightLongterm === Infinity);
  flow.link.bufferBytes = 10_000_000;
  flow.runTo(PROBE_DOWN);
  flow.runTo(PROBE_UP);
  flow.runTo(PROBE_DOWN);
  flow.runTo(PROBE_UP);
  const from = flow.states.length;
  flow.link.loss = 0.2;
  flow.runWhile(() => flow.bbr.state === PROBE_UP, 5);
  assertEquals(statesFrom(flow, from), [PROBE_DOWN]);
  assert(!flow.bbr.isFullBwNow, "before a plateau");
  assertLess(flow.bbr.inflightLongterm, 2 * flow.bdp);
});

Deno.test("bbr: Handling Application-Limited Sending During PROBE_REFILL", () => {
  const flow = new Flow({});
  flow.runTo(PROBE_REFILL);
  const { maxBw } = flow.bbr;
  flow.appBytesPerS = 50_000;
  const from = flow.states.length;
  flow.runWhile(() => flow.bbr.state === PROBE_REFILL, 5);
  assertEquals(statesFrom(flow, from), [PROBE_UP]);
  assertEquals(flow.bbr.maxBw, maxBw);
  flow.appBytesPerS = Infinity;
  flow.runTo(PROBE_DOWN);
});

Deno.test("delivery rate: bursts of acknowledgements do not show more than the path gives", () => {
  const rate = new DeliveryRate();
  // A packet each millisecond, acknowledged ten at a time.
  const marks: number[] = [];
  for (let ms = 0; ms < 200; ms++) {
    marks.push(rate.sent(1000, 1000 * ms));
    if (ms % 10 !== 9 || ms < 50) continue;
    rate.begin();
    for (const mark of marks.splice(0, 10)) rate.acked(mark, 1000 * ms);
    rate.finish(0);
    if (ms > 100) assertLess(rate.sample.rate, 1.3e6);
  }
});

Deno.test("delivery rate: what flew too long ago to be remembered counts as lost, and unknown marks change nothing", () => {
  const rate = new DeliveryRate();
  for (let i = 0; i < 3000; i++) rate.sent(100, i);
  assertEquals(rate.inflight, 102_400);
  assertEquals(rate.lost, 300_000 - 102_400);
  rate.begin();
  rate.acked(1, 5000);
  rate.acked(99_999, 5000);
  rate.noteLost(-4);
  rate.finish(0);
  assertEquals([rate.delivered, rate.sample.hasData], [0, false]);
});

Deno.test("bbr: nothing known, nothing divided by", () => {
  const bbr = new Bbr(MSS, () => 0.5, 0);
  assert(bbr.pacingRate > 0 && bbr.cwnd > 0);
  const rate = new DeliveryRate();
  rate.begin();
  rate.finish(bbr.minRttUs);
  bbr.onAck(rate, false, 0, 10);
  assert(Number.isFinite(bbr.pacingRate) && bbr.pacingRate > 0);
});
