/**
 * What both ends make of one direction: a sender's datagrams over a line with a known fate for each, the receiver's log, its
 * reports through their bytes on the wire, and the sender's figures, against what the line did. And reports that lie.
 */
import { assert, assertAlmostEquals, assertEquals, assertGreater, assertLess } from "@std/assert";
import { Arrivals } from "../../src/repair/arrivals.ts";
import { FATES_KEPT } from "../../src/repair/loss_runs.ts";
import { PathMeter, type PathReport, type PathStep } from "../../src/repair/path_quality.ts";
import { fillSections } from "../../src/repair/report_sections.ts";
import { REPORT_MAX_BYTES } from "../../src/wire/control.ts";
import { Report } from "../../src/wire/report.ts";
import { FRAME_HEAD_BYTES } from "../../src/wire/frame.ts";
import { Random } from "../kit/random.ts";

const SECOND = 1_000_000;
const GAP_US = 15_625;
const REPORT_US = 75_000;
const DATAGRAM_BYTES = 150;

/** Things that happen, each at its time. */
class Agenda {
  readonly #events: { us: number; act: (us: number) => void }[] = [];

  /** Behind what happens at the same time. */
  at(us: number, act: (us: number) => void): void {
    let place = this.#events.length;
    while (place > 0 && this.#events[place - 1].us <= us) place--;
    this.#events.splice(place, 0, { us, act });
  }

  run(): void {
    for (let event = this.#events.pop(); event; event = this.#events.pop()) event.act(event.us);
  }
}

interface LineOptions {
  /** Microseconds from sending to arrival of the n-th datagram, sent at `us`; Infinity when it is lost. */
  transit: (n: number, us: number) => number;
  /** The same for reports. */
  back?: (us: number) => number;
  /** The receiver's clock at the sender's `us`. */
  clock?: (us: number) => number;
  datagrams?: number;
  gapUs?: number;
  /** After each step at the sender. */
  onStep?: (step: PathStep, us: number, meter: PathMeter) => void;
  onSent?: (meter: PathMeter, us: number) => void;
}

/** Sends the datagrams, reports as a session does, and returns what both ends know then. */
function run(options: LineOptions) {
  const { transit, back = () => 20_000, clock = (us) => us, datagrams = 2000, gapUs = GAP_US } = options;
  const agenda = new Agenda();
  const meter = new PathMeter(), arrivals = new Arrivals(0), report = new Report(), said = new Report();
  const came = new Set<number>();
  let highest = -1, highestUs = 0, reported = -1, isNews = false, sectionBytes = 0;

  const tell = (us: number) => {
    if (!isNews) return;
    isNews = false;
    report.highest = highest;
    report.delayUs = Math.max(0, clock(us) - highestUs);
    report.received = came.size;
    report.bitmapBytes = Math.min(32, (Math.min(highest, highest - reported + 32) + 7) >> 3);
    report.bitmap.fill(0);
    for (let bit = 0; bit < 8 * report.bitmapBytes; bit++) {
      if (came.has(highest - 1 - bit)) report.bitmap[bit >> 3] |= 1 << (bit & 7);
    }
    report.hasQuality = report.hasClock = false;
    report.arrivalCount = 0;
    const plainBytes = report.frameBytes;
    fillSections(report, arrivals, 1000, reported, clock(us));
    sectionBytes += report.frameBytes - plainBytes;
    reported = highest;
    const view = new DataView(new ArrayBuffer(FRAME_HEAD_BYTES + REPORT_MAX_BYTES));
    report.write(view, 0);
    const backUs = back(us);
    if (backUs === Infinity) return;
    agenda.at(us + backUs, (us) => {
      said.read(view, FRAME_HEAD_BYTES);
      if (meter.observe(said, us)) options.onStep?.(meter.step, us, meter);
    });
  };
  const arrive = (n: number) => (us: number) => {
    came.add(n);
    isNews = true;
    arrivals.arrived(n, DATAGRAM_BYTES, clock(us));
    if (n < highest) return;
    highest = n;
    highestUs = clock(us);
  };
  const send = (n: number) => (us: number) => {
    meter.sent(n, true, true, us);
    options.onSent?.(meter, us);
    const transitUs = transit(n, us);
    if (transitUs < Infinity) agenda.at(us + transitUs, arrive(n));
    if (n + 1 < datagrams) agenda.at(us + gapUs, send(n + 1));
  };
  agenda.at(SECOND, send(0));
  const endUs = SECOND + datagrams * gapUs + SECOND;
  const tellAgain = (us: number) => {
    tell(us);
    if (us < endUs) agenda.at(us + REPORT_US, tellAgain);
  };
  agenda.at(SECOND, tellAgain);
  agenda.run();
  return { meter, arrivals, came, sectionBytes, datagrams };
}

/** Lengths of the runs of losses, counted directly; and loss figures whose weights halve every 256 datagrams. */
function truth(came: Set<number>, datagrams: number) {
  const lengths: number[] = [];
  let run = 0, weight = 0, lost = 0, runs = 0;
  for (let n = 0; n < datagrams; n++) {
    const recency = 2 ** ((n - datagrams) / 256);
    weight += recency;
    if (!came.has(n)) {
      lost += recency;
      if (run++ === 0) runs += recency;
      continue;
    }
    if (run > 0) lengths.push(run);
    run = 0;
  }
  const classes = [0, 0, 0, 0, 0];
  for (const length of lengths) classes[length <= 2 ? length - 1 : length <= 4 ? 2 : length <= 8 ? 3 : 4]++;
  const smoothed = lengths.reduce((mean, length, i) => mean + (length - mean) / (i === 0 ? 1 : 8), 0);
  return { classes, lossRate: lost / weight, runLength: lost / runs, runUs: smoothed * GAP_US };
}

Deno.test("path quality: losses alone and in runs are counted as they were, at both ends", () => {
  for (const [seed, enter, leave] of [[1, 0.05, 0.95], [2, 0.02, 0.4], [3, 0.004, 0.1]]) {
    const random = new Random(seed);
    let isBad = false;
    const lost = (n: number) => {
      isBad = isBad ? random.real() >= leave : random.real() < enter;
      return isBad && n < 3990;
    };
    const transit = (n: number) => lost(n) ? Infinity : 20_000;
    const { meter, arrivals, came, datagrams } = run({ transit, datagrams: 4000 });
    const { classes, lossRate, runLength, runUs } = truth(came, datagrams);
    assertEquals([...arrivals.runs.runs], classes, `seed ${seed}`);
    assertEquals(arrivals.runs.lost, datagrams - came.size);
    assertEquals(meter.lost, datagrams - came.size);
    assertGreater(lossRate, 0.005);
    for (const figures of [arrivals.runs, meter]) {
      assertAlmostEquals(figures.lossRate, lossRate, 0.02 * lossRate);
      assertAlmostEquals(figures.runLength, runLength, 0.02 * runLength);
    }
    assertAlmostEquals(meter.runUs, runUs, 1);
  }
});

Deno.test("path quality: reordering is not taken for loss", () => {
  // Few and far behind in time, many and far behind in counters.
  for (const [gapUs, jitterUs] of [[GAP_US, 60_000], [1000, 9000]]) {
    const random = new Random(4);
    let worst = 0, mistaken = 0;
    const { meter, arrivals, came, datagrams } = run({
      transit: () => 20_000 + Math.floor(jitterUs * random.real()),
      datagrams: 10_000,
      gapUs,
      onStep: ({ lost }, us, { lossRate }) => {
        if (us < 2 * SECOND) return;
        worst = Math.max(worst, lossRate);
        mistaken += lost;
      },
    });
    assertEquals(came.size, datagrams);
    assertEquals([arrivals.runs.lost, meter.lost], [0, 0]);
    assertEquals([...arrivals.runs.runs], [0, 0, 0, 0, 0]);
    assertLess(worst, 0.01, "nor for long");
    assertLess(mistaken, 200, "nor often");
    assertAlmostEquals(meter.reorderDepth, jitterUs / gapUs, 2);
  }
});

Deno.test("path quality: what comes after it was given up takes its loss back, and splits its run", () => {
  const late = new Map([[101, 400_000], [300, 400_000]]), lost = [100, 102];
  let most = 0;
  const { meter, arrivals } = run({
    transit: (n) => lost.includes(n) ? Infinity : late.get(n) ?? 20_000,
    datagrams: 400,
    onStep: (_step, _us, { lost }) => most = Math.max(most, lost),
  });
  assertEquals(most, 3);
  assertEquals([meter.lost, arrivals.runs.lost], [2, 2]);
  assertEquals([...arrivals.runs.runs], [2, 0, 0, 0, 0]);
});

Deno.test("path quality: lost reports lose no losses", () => {
  const random = new Random(5);
  const { meter, came, datagrams } = run({
    transit: (n) => random.real() < 0.05 && n < 3990 ? Infinity : 20_000,
    back: () => random.real() < 0.3 ? Infinity : 20_000,
    datagrams: 4000,
  });
  assertEquals(meter.lost, datagrams - came.size);
});

Deno.test("path quality: what no bitmap covers is known by its runs", () => {
  const random = new Random(6);
  const { meter, came, datagrams } = run({
    transit: (n) => random.real() < 0.05 && n < 39_000 ? Infinity : 20_000,
    // 750 datagrams a report, and a bitmap says 256.
    gapUs: 100,
    datagrams: 40_000,
  });
  const lost = datagrams - came.size;
  assertAlmostEquals(meter.judged, datagrams, 2000);
  assertAlmostEquals(meter.lost, lost, 0.1 * lost);
});

Deno.test("path quality: a queue that grows is seen, and when it is gone too", () => {
  const random = new Random(7);
  const queueUs = (us: number) => us < 10 * SECOND || us > 14 * SECOND ? 0 : 20_000 * (us / SECOND - 10);
  const seen: [us: number, queueUs: number, slope: number][] = [];
  run({
    transit: (_n, us) => random.real() < 0.03 ? Infinity : 20_000 + queueUs(us),
    onStep: ({ queueUs }, us, { queueSlope }) => seen.push([us, queueUs, queueSlope]),
  });
  for (const [us, found, slope] of seen) {
    // A report tells of the last 75 ms, and took 20 ms.
    if (us > 10.5 * SECOND && us < 13.9 * SECOND) {
      assertAlmostEquals(found, queueUs(us - 80_000), 2500);
      if (us > 11 * SECOND) assertAlmostEquals(slope, 20_000, 9000);
    } else if (us < 10 * SECOND || us > 14.3 * SECOND) assertLess(found, 1000, `${us}`);
  }
  assertGreater(seen.length, 300);
});

Deno.test("path quality: what varies on the way back is no queue on the way out", () => {
  const random = new Random(8);
  for (const lossRate of [0, 0.05]) {
    let worst = 0;
    run({
      transit: () => random.real() < lossRate ? Infinity : 20_000 + Math.floor(1000 * random.real()),
      back: () => random.real() < lossRate ? Infinity : 20_000 + Math.floor(40_000 * random.real()),
      onStep: ({ queueUsMax }) => worst = Math.max(worst, queueUsMax),
    });
    assertLess(worst, 1200, `losses ${lossRate}`);
  }
});

Deno.test("path quality: clocks that drift or jump make no queue", () => {
  const transit = (n: number) => n % 20 === 0 ? Infinity : 20_000;
  for (const drift of [-1e-4, 1e-4]) {
    let worst = 0;
    run({
      transit,
      datagrams: 4000,
      clock: (us) => 5e9 + us * (1 + drift),
      onStep: ({ queueUs }) => worst = Math.max(worst, queueUs),
    });
    assertLess(worst, 2500, `drift ${drift}`);
  }
  for (const jumpUs of [-30 * SECOND, 30 * SECOND, 200_000]) {
    let worst = 0;
    run({
      transit,
      datagrams: 4000,
      clock: (us) => 60 * SECOND + us + (us > 15 * SECOND ? jumpUs : 0),
      // A jump that could be a queue counts as one until the recent minimum includes the jump.
      onStep: ({ queueUs }, us) => {
        if (us < 15 * SECOND || us > (Math.abs(jumpUs) > SECOND ? 16 : 36) * SECOND) {
          worst = Math.max(worst, queueUs);
        }
      },
    });
    assertLess(worst, 1000, `jump ${jumpUs}`);
  }
});

Deno.test("path quality: reports that stop are noticed, slow ones are not taken for that", () => {
  for (const backUs of [20_000, 400_000]) {
    let silentUs = Infinity;
    const { meter } = run({
      transit: () => 20_000,
      back: (us) => us < 10 * SECOND ? backUs : Infinity,
      onSent: ({ isSilent }, us) => silentUs = isSilent ? Math.min(silentUs, us) : silentUs,
    });
    assertGreater(silentUs, 10 * SECOND);
    assertLess(silentUs, 10.5 * SECOND + 5 * backUs, `${backUs}`);
    assert(meter.isSilent);
  }
});

Deno.test("path quality: a clean line costs its reports next to nothing", () => {
  const calm = run({ transit: () => 20_000 });
  assertLess(calm.sectionBytes, 0.003 * DATAGRAM_BYTES * calm.datagrams, "its clock is all that it says");
  const random = new Random(9);
  const trembling = run({ transit: () => 20_000 + Math.floor(8000 * random.real()) });
  assertGreater(trembling.sectionBytes, 2 * calm.sectionBytes);
  assertLess(trembling.sectionBytes, 0.011 * DATAGRAM_BYTES * trembling.datagrams);
  const lossy = run({ transit: (n) => n % 20 === 0 ? Infinity : 20_000 });
  assertGreater(lossy.sectionBytes, 1.5 * lossy.datagrams, "when each came, in two bytes");
});

Deno.test("path quality: residual loss is what repair has not brought back", () => {
  const meter = new PathMeter(), report = new Report();
  const say = (highest: number, lost: number[], repaired: number, us: number) => {
    report.highest = highest;
    report.bitmapBytes = 4;
    for (let bit = 0; bit < 32; bit++) {
      const place = bit >> 3, mask = 1 << (bit & 7);
      if (lost.includes(highest - 1 - bit)) report.bitmap[place] &= ~mask;
      else report.bitmap[place] |= mask;
    }
    report.hasQuality = true;
    report.repaired = repaired;
    return meter.observe(report, us);
  };
  for (let n = 0; n <= 60; n++) meter.sent(n, true, n % 2 === 0, n * GAP_US);
  // Protected ones are even: of these 10 and 20 are lost, 21 is not protected.
  assert(say(30, [10, 20, 21], 0, 60 * GAP_US));
  assertAlmostEquals(meter.residualRate, 2 / 14, 0.02);
  assert(say(60, [], 1, 61 * GAP_US));
  assertAlmostEquals(meter.residualRate, 1 / 28, 0.01);
  assertEquals(meter.repaired, 1);
});

Deno.test("path quality: reports that lie change figures, and not beyond what can be", () => {
  for (let seed = 10; seed < 40; seed++) {
    const random = new Random(seed), meter = new PathMeter(), report = new Report();
    let counter = random.u32() % 2 ? 0 : 2 ** 47, us = SECOND;
    for (let i = 0; i < 400; i++) {
      meter.sent(counter, random.u32() % 3 > 0, random.u32() % 2 > 0, us);
      counter += random.u32() % 50 ? 1 : random.u32();
      us += random.u32() % 50_000;
      if (random.u32() % 3) continue;
      random.fill(report.bitmap);
      report.bitmapBytes = random.u32() % 33;
      report.highest = counter - random.u32() % 4 * (random.u32() % 1000) + (random.u32() % 8 ? 0 : 1e6);
      if (random.u32() % 9 === 0) report.highest = random.u32();
      report.delayUs = random.u32() % 2 ? random.u32() % 1_048_560 : 1_048_560;
      report.hasEcn = report.hasQuality = random.u32() % 2 > 0;
      report.congestionExperienced = random.u32();
      for (let j = 0; j < 5; j++) report.lossRuns[j] = random.u32();
      report.reorderDepth = random.u32() & 0xffff;
      report.repaired = random.u32();
      report.unrepaired = random.u32();
      report.arrivalCount = random.u32() % 65;
      report.hasClock = random.u32() % 2 > 0;
      report.clock = random.u32() & 0xffff;
      for (let j = 0; j < 64; j++) report.arrivals[j] = random.u32();
      const before = JSON.stringify([meter.judged, meter.lossRate, meter.queueUs, meter.rttUs]);
      const isTaken = meter.observe(report satisfies PathReport, us);
      if (report.highest >= counter) {
        assertEquals(isTaken, false);
        assertEquals(JSON.stringify([meter.judged, meter.lossRate, meter.queueUs, meter.rttUs]), before);
      }
      const { lossRate, runLength, runUs, reorderDepth, queueUs, residualRate, judged, lost, rttUs } = meter;
      for (const share of [lossRate, residualRate]) {
        assert(share >= 0 && share <= 1, `seed ${seed}: ${share}`);
      }
      assert(runLength >= 1 && Number.isFinite(runLength), `seed ${seed}: ${runLength}`);
      for (const figure of [runUs, reorderDepth, queueUs, judged, lost, rttUs + 1, meter.repaired]) {
        assert(figure >= 0 && Number.isFinite(figure), `seed ${seed}: ${figure}`);
      }
      assert(Number.isFinite(meter.queueSlope));
      assert(judged <= counter && reorderDepth <= 65_536);
      assert(meter.repaired + meter.unrepaired <= 1024 * (i + 1), `seed ${seed}: ${meter.repaired}`);
      for (const [name, value] of Object.entries(meter.step)) {
        assert(value >= 0 && Number.isFinite(value), `seed ${seed}: ${name} ${value}`);
      }
    }
  }
});

Deno.test("arrivals: protected losses that repair leaves are counted once they are beyond it", () => {
  const arrivals = new Arrivals(10);
  const lost = [30, 40, 50];
  for (let n = 10; n < 60; n++) if (!lost.includes(n)) arrivals.arrived(n, DATAGRAM_BYTES, n * GAP_US);
  arrivals.onRepaired(30);
  arrivals.onSources(Float64Array.of(48, 49, 51), 3);
  assertEquals([arrivals.repaired, arrivals.unrepaired], [1, 0]);
  for (let n = 60; n < 400; n++) arrivals.arrived(n, DATAGRAM_BYTES, n * GAP_US);
  assertEquals(arrivals.unrepaired, 1, "30 came back, and 50 was not protected");
  assertAlmostEquals(arrivals.residualRate, 1 / 130, 0.002);
  // A counter that jumps costs no more than memory has places.
  arrivals.arrived(2 ** 40, DATAGRAM_BYTES, 400 * GAP_US);
  arrivals.judge(401 * GAP_US);
  assertLess(arrivals.unrepaired, 600);
  assert(arrivals.residualRate <= 1);
});

Deno.test("arrivals: one that comes after it is forgotten changes no other's time", () => {
  const arrivals = new Arrivals(0);
  for (let counter = 0; counter <= 600; counter++) {
    if (counter !== 50) arrivals.arrived(counter, 100, 1000 * counter);
  }
  arrivals.arrived(50, 100, 700_000);
  assertEquals(arrivals.usOf(50 + FATES_KEPT), 562_000);
});
