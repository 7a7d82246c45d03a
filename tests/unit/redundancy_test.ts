/** The choice of repair: what it sends for which losses, that it keeps its bounds, backs off, and stays put. */
import { assert, assertEquals, assertGreater, assertLess, assertLessOrEqual } from "@std/assert";
import fc from "fast-check";
import { Calibration, likelyLost, nothingForeseen } from "../../src/repair/calibration.ts";
import { LossRuns } from "../../src/repair/loss_runs.ts";
import {
  ALONE,
  chooseRepair,
  EARLY,
  firstChoice,
  LATE,
  REPAIR_SCHEMES,
  type RepairChoice,
  type RepairSituation,
} from "../../src/repair/redundancy.ts";
import { CLASS_BULK, CLASS_GAME, CLASS_VOICE } from "../../src/control/traffic_class.ts";
import { Random } from "../kit/random.ts";

const REPORT_US = 25_000;
const PROBE = 0.01;

/** A game at 64 Hz on a clean path of 40 ms. */
const CLEAN: RepairSituation = {
  nowUs: 0,
  lossRate: 0,
  runLength: 1,
  runUs: 0,
  queueUs: 0,
  queueSlope: 0,
  delayUs: 0,
  rttUs: 40_000,
  judged: 0,
  isSilent: false,
  lossAhead: 0,
  foreseen: nothingForeseen(),
  trafficClass: CLASS_GAME,
  gapUs: 15_625,
  rideGapUs: 15_625,
  packetBytes: 110,
  packetBytesMax: 128,
  deadlineUs: 60_000,
  budget: 0.25,
  scheme: "auto",
  share: undefined,
  isAsked: false,
  backLoss: 0,
  target: 0.001,
};
const RANDOM = { ...CLEAN, lossRate: 0.05, runLength: 1.05, runUs: 16_400 };
/** Runs of 30 ms. */
const BURSTS = { ...CLEAN, lossRate: 0.05, runLength: 2.45, runUs: 2.45 * 15_625 };

/** What is chosen in the situation once it has lasted a second. */
function chosen(situation: RepairSituation, choice = firstChoice()): RepairChoice {
  for (let nowUs = 0; nowUs <= 1_000_000; nowUs += REPORT_US) {
    chooseRepair({ ...situation, nowUs: situation.nowUs + nowUs }, choice);
  }
  return choice;
}

Deno.test("redundancy: a clean path gets a probe, whatever the budget", () => {
  for (const budget of [0.05, 0.25, 1]) assertEquals(chosen({ ...CLEAN, budget }).share, PROBE);
  assertEquals(chosen({ ...CLEAN, budget: 0.005 }).share, 0.005);
  assertEquals(chosen({ ...CLEAN, lossRate: 0.0005 }).share, PROBE);
});

Deno.test("redundancy: losses that come alone get windows as long as the deadline allows", () => {
  const { sources, timing, share, lateUs } = chosen(RANDOM);
  // The third later datagram is the last in time.
  assertEquals([sources, timing], [3, EARLY]);
  assertGreater(share, 0.2);
  assertLess(lateUs, 60_000);
  const voice = chosen({
    ...RANDOM,
    trafficClass: CLASS_VOICE,
    gapUs: 20_000,
    rideGapUs: 20_000,
    deadlineUs: 100_000,
  });
  assertEquals([voice.sources, voice.timing], [4, EARLY]);
  const fast = chosen({ ...RANDOM, gapUs: 7_812, rideGapUs: 7_812 });
  assertGreater(fast.sources, 4);
  assertLessOrEqual(fast.sources, 7);
});

Deno.test("redundancy: more losses get more, up to the budget, and few get little", () => {
  let last = 0;
  for (const lossRate of [0.002, 0.004, 0.01, 0.03]) {
    const { share } = chosen({ ...RANDOM, lossRate, budget: 1 });
    assertGreater(share, last, `${lossRate}`);
    last = share;
  }
  assertLess(last, 0.7);
  assertEquals(chosen({ ...RANDOM, lossRate: 0.2 }).share, 0.25);
});

Deno.test("redundancy: bursts get copies as late as they are of use, alone where the budget has it", () => {
  const rich = chosen({ ...BURSTS, budget: 1 });
  assertEquals([rich.sources, rich.timing, rich.share], [1, ALONE, 1]);
  assertGreater(rich.spacingUs, 47_000);
  const poor = chosen(BURSTS);
  assertEquals(poor.timing, LATE);
  // The third later datagram, and not the second.
  const newestUs = poor.spacingUs + (poor.sources - 1) * poor.stride * 15_625;
  assert(newestUs > 32_000 && newestUs < 46_800, `${newestUs}`);
});

Deno.test("redundancy: a scheme that is asked for is kept, and only its", () => {
  for (const situation of [CLEAN, RANDOM, { ...BURSTS, budget: 1 }]) {
    const copy = chosen({ ...situation, scheme: "copy" });
    assertEquals([copy.sources, copy.timing, copy.isBlock], [1, EARLY, false]);
    const spaced = chosen({ ...situation, scheme: "spaced" });
    assertEquals([spaced.sources, spaced.timing === EARLY, spaced.isBlock], [1, false, false]);
    const window = chosen({ ...situation, scheme: "window" });
    assert(window.sources > 1 && window.timing === EARLY && !window.isBlock);
    const block = chosen({ ...situation, scheme: "block" });
    assert(block.sources > 1 && block.isBlock);
  }
  // One packet in the deadline: nothing rides in time.
  const slow = chosen({ ...RANDOM, scheme: "window", gapUs: 100_000, rideGapUs: 100_000 });
  assertEquals([slow.sources, slow.timing], [1, ALONE]);
});

Deno.test("redundancy: a fixed share is sent on any path, and the budget is above it", () => {
  for (
    const situation of [CLEAN, RANDOM, { ...RANDOM, queueUs: 80_000, rttUs: 120_000 }, {
      ...RANDOM,
      isSilent: true,
    }]
  ) {
    assertEquals(chosen({ ...situation, share: 0.2 }).share, 0.2);
    assertEquals(chosen({ ...situation, share: 0.4 }).share, 0.25);
  }
});

Deno.test("redundancy: losses with a queue are congestion: it backs off at once and comes back later than it went", () => {
  const choice = chosen(RANDOM),
    at = (nowUs: number, own: Partial<RepairSituation> = {}) => {
      // A second of reports is 64 datagrams more.
      chooseRepair({ ...RANDOM, nowUs, judged: nowUs / 15_625, ...own }, choice);
      return choice.share;
    };
  assertGreater(choice.share, 0.2);
  assertEquals(at(2e6, { queueUs: 60_000, rttUs: 100_000 }), PROBE);
  // Between the two thresholds it stays down, however long.
  for (let nowUs = 2e6; nowUs < 6e6; nowUs += REPORT_US) {
    assertEquals(at(nowUs, { queueUs: 30_000, rttUs: 70_000 }), PROBE, `${nowUs}`);
  }
  assertEquals(at(6.5e6), PROBE, "a moment's calm");
  // What the queue has lost is no reason to repair; what is lost behind it is.
  assertEquals(at(7.1e6, { lossRate: 0.04 }), PROBE);
  assertGreater(at(12e6), 0.2);
  // One that had not backed off is not moved by the same queue, but by one that grows fast enough.
  assertGreater(at(12.1e6, { queueUs: 30_000, rttUs: 70_000 }), 0.2);
  assertEquals(at(12.2e6, { queueUs: 40_000, rttUs: 80_000, queueSlope: 200_000 }), PROBE);
  // A queue without losses loses nothing that repair could feed on.
  assertEquals(chosen({ ...CLEAN, queueUs: 60_000, rttUs: 100_000 }).share, PROBE);
});

Deno.test("redundancy: without reports it falls back to the probe, since nothing says what more would do", () => {
  const choice = chosen({ ...RANDOM });
  chooseRepair({ ...RANDOM, nowUs: 2e6, isSilent: true }, choice);
  assertEquals(choice.share, PROBE);
});

Deno.test("redundancy: losses that are predicted raise it before they come, noise does not", () => {
  assertEquals(chosen({ ...CLEAN, lossAhead: 0.02 }).share, PROBE);
  const ahead = chosen({ ...CLEAN, lossAhead: 0.3, budget: 1 });
  assertGreater(ahead.share, 0.9);
  // What is coming is worse than what was there: copies that outlast it.
  assertEquals([ahead.sources, ahead.timing], [1, ALONE]);
});

Deno.test("redundancy: where losses came only as predicted, it rests while none is predicted", () => {
  const calm = { judged: 370, lost: 0, soon: 0 }, alarming = { judged: 60, lost: 15, soon: 0.25 };
  const situation = { ...BURSTS, lossRate: 0.01, isAsked: true, rttUs: 80_000, budget: 1 };
  const blind = chosen(situation).share;
  assert(blind > 0.1 && blind < 0.9, `${blind}`);
  assertLess(chosen({ ...situation, foreseen: calm }).share, 0.1 * blind);
  assertGreater(chosen({ ...situation, foreseen: alarming }).share, blind);
  // A prediction that never came true raises nothing.
  const warned = { ...CLEAN, lossAhead: 0.1 };
  assertLess(chosen({ ...warned, foreseen: calm }).share, 0.5 * chosen(warned).share);
});

Deno.test("calibration: each range of predictions has the losses of what was sent under it", () => {
  const calibration = new Calibration(), seen = nothingForeseen(), rates: number[] = [];
  const under = (prediction: number, prior: number) => {
    calibration.predict(prediction);
    calibration.read(seen);
    return likelyLost(seen, prior);
  };
  assertEquals(under(0.1, 0.03), 0.03, "nothing is known");
  // Ten in a hundred are sent under a warning, and half of these are lost.
  for (let counter = 0; counter < 4000; counter += 5) {
    calibration.predict(counter % 100 < 10 ? 0.1 : 0.01);
    for (let i = 0; i < 5; i++) calibration.sent(counter + i);
    if (counter < 1000) continue;
    // Reports come 500 datagrams later.
    const judged = counter - 500;
    calibration.judged(judged, 5, judged % 100 < 10 ? (judged / 5) % 2 + 2 : 0);
  }
  rates.push(under(0.1, 0.05), under(0.01, 0.05), under(0.9, 0.05), under(0, 0.05));
  assert(rates[0] > 0.4 && rates[0] < 0.6, `${rates}`);
  assertLess(rates[1], 0.002);
  assertEquals(rates.slice(2), [0.05, 0.05]);
  // What begins to be lost without a warning is known at once.
  for (let counter = 4000; counter < 4040; counter += 5) {
    calibration.predict(0.01);
    calibration.sent(counter);
    calibration.judged(counter, 5, 1);
  }
  assertGreater(under(0.01, 0.05), 0.05);
  calibration.forgive();
  assertLess(under(0.1, 0), 1e-9);
});

Deno.test("redundancy: bulk gets little, and only where losses are many and come without a queue", () => {
  const bulk = { ...RANDOM, trafficClass: CLASS_BULK, gapUs: 1000, rideGapUs: 1000, deadlineUs: 250_000 };
  const real = chosen(bulk);
  assertEquals([real.isBlock, real.sources], [true, 8]);
  assertGreater(real.stride, 1);
  assert(real.share > 0 && real.share <= 0.1, `${real.share}`);
  assertEquals(chosen({ ...bulk, lossRate: 0.005 }).share, 0);
  assertEquals(chosen({ ...bulk, queueUs: 15_000, rttUs: 55_000 }).share, 0);
  assertEquals(chosen({ ...bulk, isSilent: true }).share, 0);
});

Deno.test("redundancy: whatever is reported, it keeps to the budget and sends what can be sent", () => {
  const real = (max: number) => fc.double({ min: 0, max, noNaN: true });
  const situation = fc.record({
    lossRate: real(1),
    runLength: fc.double({ min: 1, max: 1e4, noNaN: true }),
    runUs: real(1e7),
    queueUs: real(1e7),
    queueSlope: fc.double({ min: -1e7, max: 1e7, noNaN: true }),
    rttUs: fc.constantFrom(-1, 0, 40_000, 6e7),
    judged: fc.integer({ min: 0, max: 1e6 }),
    delayUs: real(1e7),
    isSilent: fc.boolean(),
    lossAhead: real(1),
    foreseen: fc.record({ judged: real(400), lost: real(400), soon: real(1) }),
    trafficClass: fc.constantFrom(CLASS_GAME, CLASS_VOICE, CLASS_BULK),
    gapUs: fc.double({ min: 0, max: 200_000, noNaN: true }),
    rideGapUs: fc.double({ min: 0, max: 200_000, noNaN: true }),
    packetBytes: fc.integer({ min: 1, max: 640 }),
    packetBytesMax: fc.constant(640),
    deadlineUs: fc.constantFrom(10_000, 60_000, 1_000_000),
    budget: fc.double({ min: 0.01, max: 1, noNaN: true }),
    scheme: fc.constantFrom(...REPAIR_SCHEMES),
    share: fc.option(real(1), { nil: undefined }),
    backLoss: real(1),
    target: fc.constantFrom(0.0001, 0.001, 0.1),
  });
  const run = fc.array(situation, { minLength: 1, maxLength: 20 });
  fc.assert(fc.property(run, fc.boolean(), (situations, isAsked) => {
    const choice = firstChoice();
    situations.forEach((one, i) => {
      chooseRepair({ ...one, isAsked, nowUs: i * 50_000 }, choice);
      assert(choice.share >= 0 && choice.share <= one.budget, `share ${choice.share}`);
      assert(
        Number.isInteger(choice.sources) && choice.sources >= 1 && choice.sources <= 8,
        `${choice.sources}`,
      );
      assert(choice.stride >= 1 && choice.stride <= 4, `${choice.stride}`);
      assert(choice.spacingUs >= 0 && choice.spacingUs <= one.deadlineUs, `${choice.spacingUs}`);
      assert(choice.lateUs > 0 && choice.lateUs <= one.deadlineUs, `${choice.lateUs}`);
    });
  }));
});

Deno.test("redundancy: on a path that stays as it is the choice does too, by what reports make of it", () => {
  const stationary: [string, number, number][] = [["alone", 0.05, 0], ["few", 0.01, 0], [
    "in bursts",
    0.05,
    30_000,
  ]];
  for (const [name, rate, burstUs] of stationary) {
    for (const budget of [0.25, 1]) {
      const dice = new Random(7), runs = new LossRuns(0), choice = firstChoice();
      const leave = burstUs > 0 ? 1 - Math.exp(-15_625 / (burstUs * (1 - rate))) : 1;
      let isBad = false, groups = 0, shares = 0, before = { ...choice };
      for (let n = 0; n < 64 * 130; n++) {
        isBad = dice.real() < (isBad ? 1 - leave * (1 - rate) : leave * rate);
        if (!isBad) runs.arrived(n);
        while (runs.next < runs.highest) runs.judgeNext();
        const { lossRate, runLength } = runs;
        chooseRepair(
          { ...CLEAN, budget, lossRate, runLength, runUs: runLength * 15_625, judged: n, nowUs: n * 15_625 },
          choice,
        );
        // Until it has seen something it may look for what fits.
        if (n > 64 * 10) {
          const { sources, stride, timing } = before;
          if (choice.sources !== sources || choice.stride !== stride || choice.timing !== timing) groups++;
          if (choice.share !== before.share) shares++;
        }
        before = { ...choice };
      }
      // In two minutes.
      assertLessOrEqual(groups, 12, `${name}, budget ${budget}: group`);
      assertLessOrEqual(shares, 40, `${name}, budget ${budget}: share`);
    }
  }
});
