/**
 * The choice among several paths: for packets that must not be late (src/control/paths/choice.ts), for bulk (bulk.ts), and the order
 * that a receiver restores (reorder.ts). By examples, and by properties over simulated pairs of paths.
 */
import { assert, assertEquals, assertGreater, assertLess, assertLessOrEqual } from "@std/assert";
import fc from "fast-check";
import { RoundRobin, Ucb1 } from "../../bench/paths/rivals.ts";
import { bulkPath, earliestArrival, FlowPins, isFit, spreadUs } from "../../src/control/paths/bulk.ts";
import {
  choiceOf,
  copyOf,
  LeastLate,
  NO_PATH,
  pathOf,
  type PathScheduler,
} from "../../src/control/paths/choice.ts";
import { PathFigures } from "../../src/control/paths/figures.ts";
import { HandoffWatch } from "../../src/control/paths/handoff.ts";
import { Reorder, REORDER_SLOTS, TO_GO, WAITS } from "../../src/control/paths/reorder.ts";
import { Bottleneck, type ChannelName, CHANNELS, channelsAt, Path, randomLoss } from "../kit/channels.ts";
import { Cut, OnePath, play, type PlayedPath } from "../kit/paths_play.ts";
import { Random } from "../kit/random.ts";

const SECOND = 1_000_000, NONE = 0xffff_ffff;
const ALWAYS = () => new LeastLate(100, "always"), IN_DOUBT = () => new LeastLate(100, "in doubt");
const SINGLE = () => new LeastLate(0, "in doubt");

interface Known {
  delayUs?: number;
  deviationUs?: number;
  lossRate?: number;
  bytesPerS?: number;
  isSilent?: boolean;
  isMetered?: boolean;
}

/** A path that has been there for a while, with these figures. */
function path({ delayUs = 20_000, deviationUs = 500, lossRate = 0, ...rest }: Known = {}): PathFigures {
  const figures = new PathFigures(0);
  figures.delay(delayUs, 0);
  return Object.assign(figures, { deviationUs, lossRate, ...rest });
}

Deno.test("path figures: smoothed, windowed, and finite whatever they are told", () => {
  const figures = new PathFigures(0);
  assertEquals([figures.isKnown, figures.leastUs, figures.queueUs, figures.lossRateMax], [false, 0, 0, 0]);
  figures.delay(20_000, 0);
  for (let i = 1; i <= 50; i++) figures.delay(30_000, i * 10_000);
  assert(Math.abs(figures.delayUs - 30_000) < 50 && Math.abs(figures.queueUs - 10_000) < 50);
  figures.outcome(100, 10, SECOND);
  assertEquals(figures.lossRateMax, 0.1);
  for (let i = 0; i < 20; i++) figures.outcome(100, 0, 2 * SECOND);
  assertLess(figures.lossRate, 1e-6);
  assertGreater(figures.lossRateMax, 0.004, "what was lost within the window is remembered");
  for (const atS of [15, 30]) figures.delay(25_000, atS * SECOND);
  for (let i = 0; i < 3; i++) figures.outcome(100, 0, 30 * SECOND);
  assertEquals([figures.leastUs, figures.lossRateMax < 1e-6], [25_000, true], "and then forgotten");
  const idle = new PathFigures(0);
  idle.outcome(100, 10, 0);
  idle.outcome(100, 0, 30 * SECOND);
  assertLess(idle.lossRateMax, 0.02, "a window that nobody looked at is over too");
  for (const us of [NaN, -5, Infinity, 1e300]) figures.delay(us, 31 * SECOND);
  for (const lost of [NaN, -1, 1e9]) figures.outcome(10, lost, 31 * SECOND);
  figures.outcome(NaN, 1, 31 * SECOND);
  for (const value of [figures.delayUs, figures.deviationUs, figures.lossRate, figures.lossRateMax]) {
    assert(Number.isFinite(value) && value >= 0);
  }
  assertLessOrEqual(figures.lossRate, 1);
});

Deno.test("path choice: the least late goes first, and a copy where it may help", () => {
  const first = path(), far = path({ delayUs: 40_000 });
  const chosen = (scheduler: PathScheduler, paths: (PathFigures | undefined)[]) => {
    const choice = scheduler.choose(paths, 10 * SECOND);
    return choice === NO_PATH ? [] : [pathOf(choice), copyOf(choice)];
  };
  assertEquals(chosen(SINGLE(), [far, first]), [1, NO_PATH]);
  assertEquals(chosen(IN_DOUBT(), [first, far]), [0, NO_PATH], "a good path needs no copy");
  assertEquals(chosen(ALWAYS(), [first, far]), [0, 1]);
  assertEquals(chosen(ALWAYS(), [undefined, first]), [1, NO_PATH]);
  assertEquals(chosen(ALWAYS(), [undefined, undefined]), []);
  for (const scheduler of [new RoundRobin(), new Ucb1()]) assertEquals(chosen(scheduler, [undefined]), []);
  // Doubts: losses, a queue, what is predicted, silence, youth, and delays that overlap.
  const lossy = path();
  lossy.outcome(1000, 10, 0);
  const queued = path();
  for (let i = 0; i < 100; i++) queued.delay(60_000, 0);
  const ahead = path();
  ahead.isHandoffAhead = true;
  assertEquals(chosen(IN_DOUBT(), [lossy, far]), [0, 1]);
  assertEquals(chosen(IN_DOUBT(), [queued, path({ delayUs: 100_000 })]), [0, 1]);
  assertEquals(chosen(IN_DOUBT(), [ahead, far]), [0, 1]);
  assertEquals(chosen(IN_DOUBT(), [path({ isSilent: true }), far]), [1, 0], "silence goes last");
  const young = Object.assign(new PathFigures(9 * SECOND), { delayUs: 10_000 });
  assertEquals(chosen(IN_DOUBT(), [young, far]), [0, 1]);
  const near = path({ delayUs: 21_000 });
  assertEquals(chosen(IN_DOUBT(), [first, near]), [0, 1]);
  near.isMetered = true;
  assertEquals(chosen(IN_DOUBT(), [first, near]), [0, NO_PATH], "what costs money is not for that");
  // Who pays for the second path alone has copies there in doubt alone.
  const sparing = () => new LeastLate(100, "free or in doubt");
  assertEquals(chosen(sparing(), [first, far]), [0, 1]);
  assertEquals(chosen(sparing(), [first, path({ delayUs: 40_000, isMetered: true })]), [0, NO_PATH]);
  assertEquals(chosen(sparing(), [lossy, path({ delayUs: 40_000, isMetered: true })]), [0, 1]);
  assertEquals(
    chosen(sparing(), [path({ isMetered: true }), path({ delayUs: 30_000 })]),
    [1, NO_PATH],
    "10 ms are not worth it",
  );
  assertEquals(chosen(sparing(), [path({ isMetered: true }), path({ delayUs: 60_000 })]), [0, 1]);
  const resort = path({ delayUs: 15_000 });
  resort.handicap = 1;
  assertEquals(chosen(ALWAYS(), [resort, far]), [1, NO_PATH], "a last resort is one");
  // Near equals change nothing.
  const steady = ALWAYS(), rival = path({ delayUs: 19_000 });
  assertEquals(chosen(steady, [first, far]), [0, 1]);
  assertEquals(chosen(steady, [first, rival]), [0, 1]);
  assertEquals(chosen(steady, [far, rival]), [1, 0]);
  // No copy where it cannot help.
  assertEquals(chosen(ALWAYS(), [lossy, path({ delayUs: 220_000 })]), [0, NO_PATH]);
  assertEquals(chosen(ALWAYS(), [lossy, path({ isSilent: true })]), [0, 1], "it may be back any time");
});

Deno.test("path choice: copies stay within their share", () => {
  const paths = [path(), path({ delayUs: 40_000 })];
  for (const percent of [0, 25, 50, 100]) {
    const scheduler = new LeastLate(percent, "always");
    let copies = 0;
    for (let i = 0; i < 1000; i++) if (copyOf(scheduler.choose(paths, i)) !== NO_PATH) copies++;
    assert(Math.abs(copies - 10 * percent) <= 1, `${copies} at ${percent} %`);
  }
});

Deno.test("path choice: UCB1 learns which path is in time, and learns anew", () => {
  const paths = [path(), path()], scheduler = new Ucb1();
  const share = (good: number, fromUs: number) => {
    let chosen = 0;
    for (let i = 0; i < 1000; i++) {
      const nowUs = fromUs + i * 15_625, number = pathOf(scheduler.choose(paths, nowUs));
      if (number === good) chosen++;
      scheduler.judge(number, number === good ? 1 : 0, number === good ? 0 : 1, nowUs);
    }
    return chosen / 1000;
  };
  assertGreater(share(0, 0), 0.8);
  assertGreater(share(1, 1000 * 15_625), 0.7);
});

/** What is missed over a pair: with a scheduler, and over the better path alone. */
function compare(make: () => PathScheduler, pair: () => PlayedPath[], usefulUs = 80_000) {
  const seconds = 20;
  const missed = (scheduler: PathScheduler) => play(scheduler, { paths: pair(), seconds, usefulUs });
  const alone = [0, 1].map((number) => missed(new OnePath(choiceOf(number, NO_PATH))).missed);
  return { played: missed(make()), better: Math.min(...alone) };
}

Deno.test("path choice: a path of 50 % loss or 200 ms more never makes the whole worse", () => {
  const names = Object.keys(CHANNELS) as ChannelName[];
  const near = channelsAt(20_000);
  fc.assert(
    fc.property(
      fc.constantFrom(...names),
      fc.boolean(),
      fc.boolean(),
      fc.nat(),
      (name, isLossy, isFirst, seed) => {
        const pair = (): PlayedPath[] => {
          const random = new Random(seed);
          const good = { model: near[name](random.fork()), backUs: 20_000 };
          const model = isLossy ? new Path(20_000, randomLoss(random.fork(), 0.5)) : new Path(220_000);
          const bad = { model, backUs: isLossy ? 20_000 : 220_000 };
          return isFirst ? [bad, good] : [good, bad];
        };
        for (const make of [ALWAYS, IN_DOUBT]) {
          const { played, better } = compare(make, pair);
          assertLessOrEqual(played.missed, better, `${name}, seed ${seed}`);
        }
        // Who sends no copies pays for finding out what the other is like, and weighs a queue against losses.
        if (!["clean", "random", "bursts"].includes(name)) return;
        const { played, better } = compare(SINGLE, pair);
        assertLessOrEqual(
          played.missed,
          better + 2 + 0.01 * played.packets,
          `${name}, seed ${seed}, no copies`,
        );
      },
    ),
    { numRuns: 60 },
  );
});

Deno.test("path choice: with copies a path that is cut costs nothing, without them until it is known to be silent", () => {
  const pair = () => [
    { model: new Cut(new Path(20_000), 10 * SECOND), backUs: 20_000 },
    { model: new Path(40_000), backUs: 40_000 },
  ];
  assertEquals(compare(ALWAYS, pair).played.missed, 0);
  const { missed, longestRun } = compare(SINGLE, pair).played;
  assert(missed > 5 && longestRun <= 30, `${missed} missed, ${longestRun} in a row`);
});

Deno.test("path choice: two paths that lose 5 % at random lose 0.3 % together with copies", () => {
  const pair = () => {
    const random = new Random(7);
    const one = () => ({ model: new Path(20_000, randomLoss(random.fork(), 0.05)), backUs: 20_000 });
    return [one(), one()];
  };
  const { missed, packets } = play(ALWAYS(), { paths: pair(), seconds: 300, usefulUs: 80_000 });
  assertLess(missed / packets, 0.0035);
});

Deno.test("bulk: a flow keeps its path until a pause, and none goes where losses or queues are", () => {
  const fast = path({ bytesPerS: 2_500_000 }), slow = path({ bytesPerS: 1_250_000, delayUs: 50_000 });
  const paths = [fast, slow], pins = new FlowPins(16);
  const counts = [0, 0];
  for (let flow = 0; flow < 9; flow++) counts[pins.choose(flow, paths, 0)]++;
  assertEquals(counts, [6, 3], "as many flows as the rates say");
  for (let i = 1; i < 100; i++) {
    for (let flow = 0; flow < 9; flow++) {
      assertEquals(pins.choose(flow, paths, 500 * i), pins.choose(flow, paths, 500 * i));
    }
  }
  // Flows end on the fast path: after a pause, one of the slow path's moves there, as far as it helps.
  const slowOnes = Array.from({ length: 9 }, (_, flow) => flow).filter((flow) =>
    pins.choose(flow, paths, 60_000) === 1
  );
  for (let flow = 0, gone = 0; gone < 4; flow++) {
    if (slowOnes.includes(flow)) continue;
    pins.forget(flow);
    gone++;
  }
  assertEquals(pins.choose(slowOnes[0], paths, 65_000), 1, "not without a pause as long as the paths differ");
  assertEquals(pins.choose(slowOnes[0], paths, 200_000), 0, "with one it does");
  // What is lossy, queued or silent takes none, and its flows leave at once.
  const bad = [{ lossRate: 0.06 }, { isSilent: true }].map((known) => path({ bytesPerS: 1e9, ...known }));
  const queued = path({ bytesPerS: 1e9 });
  for (let i = 0; i < 200; i++) queued.delay(140_000, 0);
  for (const unfit of [...bad, queued]) {
    assert(!isFit(unfit));
    const own = new FlowPins(4);
    for (let flow = 0; flow < 4; flow++) assertEquals(own.choose(flow, [unfit, slow], 0), 1);
    assertEquals(earliestArrival([unfit, slow], 1400, 0), 1);
    assertEquals(own.choose(0, [unfit, undefined], 10), 0, "where nothing is fit, what there is");
  }
  const metered = [path({ isMetered: true, bytesPerS: 1e9 }), slow];
  for (let flow = 0; flow < 4; flow++) assertEquals(new FlowPins(4).choose(flow, metered, 0), 1);
  assertEquals(new FlowPins(1).choose(0, [], 0), NO_PATH);
});

/** A flow of 30 Mbit/s over 20 + 10 Mbit/s, 20 and 50 ms away, with and without the buffer; Mbit/s and how much was out of order. */
function aggregate(hasBuffer: boolean) {
  const lines = [new Bottleneck(2_500_000, 100_000, 20_000), new Bottleneck(1_250_000, 100_000, 50_000)];
  const paths = [path({ bytesPerS: 2_500_000 }), path({ bytesPerS: 1_250_000, delayUs: 50_000 })];
  const count = 20_000, bytes = 1400, gapUs = 1e6 * bytes / 3_500_000;
  const arrivals: { atUs: number; sequence: number }[] = [], random = new Random(3);
  for (let i = 0; i < count; i++) {
    const nowUs = i * gapUs, number = earliestArrival(paths, bytes, nowUs);
    paths[number].sent(bytes, nowUs);
    // Nobody knows delays to the last millisecond.
    const atUs = lines[number].arrivalUs(nowUs, bytes) + 4000 * number * random.real();
    if (atUs < Infinity) arrivals.push({ atUs, sequence: i });
  }
  arrivals.sort((a, b) => a.atUs - b.atUs);
  const buffer = new Reorder(), out: number[] = [];
  buffer.setSpread(spreadUs(paths));
  for (const { atUs, sequence } of arrivals) {
    const drain = () => {
      for (let slot = buffer.pop(atUs); slot !== NONE; slot = buffer.pop(atUs)) out.push(slot);
    };
    drain();
    while (hasBuffer && buffer.isFar(sequence % 65_536)) {
      const slot = buffer.flush();
      if (slot !== NONE) out.push(slot);
    }
    if (!hasBuffer || buffer.push(sequence % 65_536, sequence, bytes, atUs) === TO_GO) out.push(sequence);
    drain();
  }
  for (let slot = buffer.flush(); slot !== NONE; slot = buffer.flush()) out.push(slot);
  let most = -1, behind = 0;
  for (const sequence of out) {
    if (sequence < most) behind++;
    most = Math.max(most, sequence);
  }
  assertEquals(new Set(out).size, out.length, "nothing twice");
  assertEquals(out.length, arrivals.length, "nothing lost by the buffer");
  return { mbit: 8 * bytes * out.length / (arrivals.at(-1)!.atUs - 20_000), disorder: behind / out.length };
}

Deno.test("bulk: one flow over two lines has nearly both rates, in order with the buffer alone", () => {
  const ordered = aggregate(true), plain = aggregate(false);
  assertGreater(ordered.mbit, 26);
  assertEquals(ordered.disorder, 0);
  assertGreater(plain.disorder, 0.1, "the buffer has something to do");
});

Deno.test("bulk: where all of it takes one path, it stays while that is fit and free", () => {
  const near = path(), far = path({ delayUs: 60_000 });
  assertEquals(bulkPath([near, path({ delayUs: 28_000 })], 1), 1, "not for 8 ms");
  assertEquals(bulkPath([near, far], 1), 0);
  const queued = path();
  for (let i = 0; i < 50; i++) queued.delay(80_000, i);
  assertEquals(bulkPath([queued, path({ delayUs: 60_000 })], 0), 0, "nor for the queue that it makes itself");
  assertEquals(bulkPath([path({ lossRate: 0.06 }), far], 0), 1);
  assertEquals(bulkPath([path({ isMetered: true }), far], 0), 1);
  assertEquals(
    bulkPath([path({ isMetered: true }), path({ lossRate: 0.06 })], 1),
    1,
    "a price weighs more than losses",
  );
  assertEquals(bulkPath([path({ isMetered: true }), path({ isSilent: true })], 1), 0);
  assertEquals([bulkPath([undefined, far], 0), bulkPath([undefined], 0)], [1, NO_PATH]);
});

Deno.test("bulk: a line that is too far away for one flow takes none of it", () => {
  const paths = [path({ bytesPerS: 1_250_000 }), path({ bytesPerS: 1e9, delayUs: 220_000 })];
  for (let i = 0; i < 100; i++) assertEquals(earliestArrival(paths, 1400, i), 0);
  assertEquals(earliestArrival([undefined], 1400, 0), NO_PATH);
});

Deno.test("reorder: whatever comes leaves once, in bounded time and number, in order where nothing was given up", () => {
  const arrival = fc.record({ sequence: fc.nat(3 * REORDER_SLOTS), afterUs: fc.nat(20_000) });
  fc.assert(fc.property(fc.array(arrival, { maxLength: 300 }), fc.nat(0xffff), (arrivals, first) => {
    const buffer = new Reorder(), out: number[] = [];
    buffer.setSpread(30_000);
    const cameUs: number[] = [];
    let nowUs = 0;
    arrivals.forEach(({ sequence, afterUs }, i) => {
      nowUs += afterUs;
      const number = (first + sequence) % 65_536;
      const drain = () => {
        for (let slot = buffer.pop(nowUs); slot !== NONE; slot = buffer.pop(nowUs)) out.push(slot);
      };
      drain();
      for (const slot of out) assert(cameUs[slot] !== undefined);
      while (buffer.isFar(number)) {
        const slot = buffer.flush();
        if (slot !== NONE) out.push(slot);
      }
      cameUs[i] = nowUs;
      if (buffer.push(number, i, 100, nowUs) === TO_GO) out.push(i);
      drain();
      assertLess(buffer.waiting, REORDER_SLOTS);
      assert(buffer.dueUs > nowUs, "what is due has left");
      assertEquals(out.length + buffer.waiting, i + 1);
    });
    for (let slot = buffer.flush(); slot !== NONE; slot = buffer.flush()) out.push(slot);
    assertEquals(out.toSorted((a, b) => a - b), arrivals.map((_, i) => i));
  }));
});

Deno.test("reorder: waits for what is missing, no longer than the paths differ, and never longer than 40 ms", () => {
  const buffer = new Reorder();
  buffer.setSpread(20_000);
  assertEquals(buffer.push(65_534, 1, 10, 0), TO_GO);
  assertEquals(buffer.push(0, 3, 30, 0), WAITS);
  assertEquals([buffer.pop(24_999), buffer.dueUs], [NONE, 25_000]);
  assertEquals(buffer.push(65_535, 2, 20, 24_999), TO_GO);
  assertEquals([buffer.pop(24_999), buffer.length], [3, 30]);
  assertEquals(buffer.push(5, 8, 10, 30_000), WAITS);
  assertEquals([buffer.pop(54_999), buffer.pop(55_000)], [NONE, 8], "given up");
  assertEquals(buffer.push(3, 6, 10, 55_001), TO_GO, "late and not lost");
  buffer.setSpread(10 * SECOND);
  assertEquals(buffer.push(8, 11, 10, 60_000), WAITS);
  assertEquals(buffer.dueUs, 100_000);
});

Deno.test("handoff: a weak signal warns, and one that falls fast, not one that wanders or is not told", () => {
  const watch = (levels: number[]) => {
    const own = new HandoffWatch();
    levels.forEach((dbm, i) => own.level(dbm, i * 100_000));
    return own.isAhead(levels.length * 100_000);
  };
  const steady = Array.from({ length: 50 }, (_, i) => -58 - (i % 4));
  assert(!watch(steady));
  assert(!watch([...steady, 0, NaN, -200, 5]), "what is no level says nothing");
  assert(!watch([0, 0, 0]));
  assert(watch([...steady, -73]));
  assert(watch([...steady, -62, -65, -68, -70]), "falling, though not weak yet");
  assert(!watch([...steady.map((dbm) => dbm + 20), -45, -50, -52]), "falling where there is much of it");
  assert(watch([...steady, -75, ...steady.slice(0, 15)]), "a warning holds for two seconds");
  assert(!watch([...steady, -75, ...steady.slice(0, 25)]));
});
