/**
 * The sending end of loss repair, read frame by frame: what each plan and each switch sends, when, and that no second has
 * more of it than the budget.
 */
import { assert, assertEquals, assertGreater, assertLess, assertLessOrEqual } from "@std/assert";
import fc from "fast-check";
import { CODE_WINDOW, RepairEncoder } from "../../src/codec/erasure.ts";
import { nothingForeseen } from "../../src/repair/calibration.ts";
import { PortableShardKernel } from "../../src/codec/gf256.ts";
import { chooseRepair, firstChoice, REPAIR_SCHEMES, type RepairChoice } from "../../src/repair/redundancy.ts";
import { CLASS_BULK, CLASS_DEFAULT, CLASS_GAME, CLASS_VOICE } from "../../src/control/traffic_class.ts";
import { KEPT } from "../../src/repair/kept.ts";
import { RepairReceiver, SYMBOL_MAX_BYTES } from "../../src/repair/receiver.ts";
import { LANES, RepairSender } from "../../src/repair/sender.ts";
import { RepairTally } from "../../src/repair/tally.ts";
import { type RepairOptions, repairOptions } from "../../src/repair/options.ts";
import { Repairs } from "../../src/repair/pool.ts";
import { Arena } from "../../src/vector/arena.ts";
import { Burst, DONE } from "../../src/vector/burst.ts";
import { Report } from "../../src/wire/report.ts";
import { FRAME_HEAD_BYTES, FRAME_REPAIR, FrameReader } from "../../src/wire/frame.ts";
import { RepairReader } from "../../src/wire/repair.ts";

const kernel = new PortableShardKernel();
const DATAGRAM_BYTES = 50, BYTES_MAX = 1400;
const GAP_US = 15_625;

interface Sent {
  atUs: number;
  counter: number;
  isAlone: boolean;
  isBlock: boolean;
  /** Counters of the sources. */
  numbers: number[];
  /** What it cost, the datagram included where it is alone. */
  bytes: number;
}

/** A sender between a clock and a wire: its repairs are read as they go out. */
class Wire {
  nowUs = 0;
  counter = 0;
  readonly sentUs: number[] = [];
  readonly repairs: Sent[] = [];
  /** Each datagram's plaintext, or undefined when it is lost. */
  onDatagram: ((bytes: Uint8Array, counter: number) => void) | undefined;
  readonly #burst = new Burst(new Arena(1));
  readonly #frames = new FrameReader();
  readonly #reader = new RepairReader();

  constructor(readonly sender: RepairSender) {}

  /** Lets repairs go alone until `untilUs`. */
  run(untilUs: number): void {
    for (;;) {
      const dueUs = this.sender.dueUs;
      if (dueUs > untilUs) break;
      this.nowUs = Math.max(this.nowUs, dueUs);
      const { counter } = this;
      this.#datagram(0);
      assert(this.counter > counter || this.sender.dueUs > dueUs, "what could not go is not given up");
    }
    this.nowUs = Math.max(this.nowUs, untilUs);
  }

  /** Sends a datagram with a packet of `length` bytes; returns the datagram's counter and where its plaintext is. */
  send(length: number): { counter: number; bytes: Uint8Array; at: number } {
    return this.#datagram(length);
  }

  #datagram(length: number): { counter: number; bytes: Uint8Array; at: number } {
    const burst = this.#burst;
    burst.release();
    const row = burst.grow(length, DONE), counter = this.counter;
    const packet = new Uint8Array(length).fill(counter);
    if (length > 0) packet[0] = 0x45;
    burst.bytes.set(packet, burst.offset[row]);
    this.sender.ride(burst, row, counter, BYTES_MAX, this.nowUs);
    const at = burst.offset[row], ridden = burst.length[row] - length;
    assertEquals(burst.bytes.slice(at + ridden, at + ridden + length), packet, "the packet is as it was");
    if (burst.length[row] > 0) {
      this.counter++;
      this.sentUs[counter] = this.nowUs;
      this.#read(burst, at, ridden, counter, length === 0);
      this.onDatagram?.(burst.bytes.slice(at, at + burst.length[row]), counter);
    }
    return { counter, bytes: burst.bytes, at: at + ridden };
  }

  #read(burst: Burst, at: number, ridden: number, counter: number, isAlone: boolean): void {
    this.#frames.start(at, ridden);
    for (let kind = this.#frames.next(burst.view); kind >= 0; kind = this.#frames.next(burst.view)) {
      assertEquals(kind, FRAME_REPAIR);
      const { at: body, length } = this.#frames, reader = this.#reader;
      assert(reader.read(burst.view, body, length, counter));
      const numbers = [...reader.numbers.subarray(0, reader.count)];
      const bytes = FRAME_HEAD_BYTES + length;
      this.repairs.push({ atUs: this.nowUs, counter, isAlone, isBlock: reader.isBlock, numbers, bytes });
    }
    // Each was put in front of those before it.
    if (isAlone) this.repairs[this.repairs.length - 1].bytes += DATAGRAM_BYTES;
  }
}

const plan = (own: Partial<RepairChoice>): RepairChoice => ({
  ...firstChoice(),
  lateUs: 58_000,
  share: 1,
  ...own,
});

/** A game of `packets` packets of 100 bytes, sent by the plan with `own` changes. */
function played(own: Partial<RepairChoice>, packets = 640): Wire {
  const wire = new Wire(new RepairSender(kernel)), lane = wire.sender.lanes[0];
  lane.plan = plan(own);
  for (let n = 0; n < packets; n++) {
    wire.run(n * GAP_US);
    const { counter, bytes, at } = wire.send(100);
    wire.sender.sent(lane, bytes, at, 100, counter, wire.nowUs);
  }
  wire.run(packets * GAP_US);
  return wire;
}

const ageUs = (wire: Wire, { atUs, numbers }: Sent, of: "newest" | "oldest") =>
  atUs - wire.sentUs[of === "newest" ? numbers[numbers.length - 1] : numbers[0]];

Deno.test("repair sender: a copy rides in the next datagram, a spaced one in the last that is in time", () => {
  const copies = played({}), spaced = played({ timing: 1, spacingUs: 2.5 * GAP_US });
  for (const [wire, gaps] of [[copies, 1], [spaced, 3]] as const) {
    assertGreater(wire.repairs.length, 600);
    for (const repair of wire.repairs) {
      assertEquals([repair.numbers.length, repair.isAlone], [1, false]);
      assertEquals(ageUs(wire, repair, "newest"), gaps * GAP_US);
    }
  }
});

Deno.test("repair sender: what shall go alone goes just in time, and costs its datagram", () => {
  const wire = played({ timing: 2, spacingUs: 52_000 });
  // A datagram's bytes of 150 against 155 for a copy's.
  assert(wire.repairs.length > 600 && wire.repairs.length <= 640 * 150 / 155 + 1, `${wire.repairs.length}`);
  for (const repair of wire.repairs) {
    assert(repair.isAlone);
    assertEquals([ageUs(wire, repair, "newest"), repair.bytes], [58_000, 155]);
  }
});

Deno.test("repair sender: when the traffic stops, what is open goes alone while it is of use", () => {
  const wire = new Wire(new RepairSender(kernel)), lane = wire.sender.lanes[0];
  lane.plan = plan({ sources: 3 });
  for (let n = 0; n < 4; n++) {
    wire.run(n * GAP_US);
    const { counter, bytes, at } = wire.send(100);
    wire.sender.sent(lane, bytes, at, 100, counter, wire.nowUs);
  }
  const ridden = wire.repairs.length;
  wire.run(1e6);
  assertEquals(wire.repairs.length, ridden + 1);
  const last = wire.repairs[ridden];
  assertEquals([last.isAlone, last.numbers[last.numbers.length - 1]], [true, 3]);
  assertLessOrEqual(ageUs(wire, last, "oldest"), 60_000);
  assertEquals(wire.sender.dueUs, Infinity);
});

Deno.test("repair sender: what is due and has no room in one datagram goes in the next", () => {
  const wire = new Wire(new RepairSender(kernel)), lane = wire.sender.lanes[0];
  lane.plan = plan({ timing: 2, spacingUs: 52_000 });
  // A server's snapshot in three pieces.
  for (let i = 0; i < 3; i++) {
    const { counter, bytes, at } = wire.send(600);
    wire.sender.sent(lane, bytes, at, 600, counter, 0);
  }
  lane.credit = 4000;
  wire.run(1e6);
  assertEquals(wire.repairs.map(({ numbers }) => numbers[0]).sort(), [0, 1, 2]);
  assertEquals(new Set(wire.repairs.map(({ counter }) => counter)).size, 2);
});

Deno.test("repair sender: windows and blocks combine what they should, by the code that they should", () => {
  const windows = played({ sources: 3, share: 0.5 });
  for (const { isBlock, numbers, counter } of windows.repairs.slice(2)) {
    assertEquals([isBlock, numbers], [false, [counter - 3, counter - 2, counter - 1]]);
  }
  const strided = played({ sources: 2, stride: 2, share: 0.5 });
  for (const { numbers, counter } of strided.repairs.slice(2)) {
    assertEquals(numbers, [counter - 3, counter - 1]);
  }
  const blocks = played({ isBlock: true, sources: 3, share: 0.4 });
  for (const { isBlock, numbers } of blocks.repairs) {
    assert(isBlock);
    assertEquals(numbers, [numbers[0], numbers[0] + 1, numbers[0] + 2]);
    assertEquals(numbers[0] % 3, 0);
  }
  assertGreater(blocks.repairs.length, 200);
});

Deno.test("repair sender: interleaved blocks bring back a burst that is longer than the repairs of any one", () => {
  const wire = new Wire(new RepairSender(kernel)), lane = wire.sender.lanes[2];
  lane.plan = plan({ isBlock: true, sources: 8, stride: 4, lateUs: 250_000, share: 0.2 });
  const receiver = new RepairReceiver(kernel, 0), burst = new Burst(new Arena(1)), frames = new FrameReader();
  const row = burst.grow(0, DONE), back = new Set<number>();
  wire.onDatagram = (plaintext, counter) => {
    // Four of the first 32 in a row, one of each block.
    if (counter >= 10 && counter < 14) return;
    const at = burst.offset[row];
    burst.bytes.set(plaintext, at);
    frames.start(at, plaintext.length);
    for (let kind = frames.next(burst.view); kind >= 0; kind = frames.next(burst.view)) {
      if (kind === FRAME_REPAIR) {
        assert(receiver.repair(burst, frames.at, frames.length, counter, wire.nowUs));
      } else receiver.received(burst.bytes, frames.headAt, frames.length, counter);
    }
    const found = receiver.solve(wire.nowUs);
    for (let i = 0; i < found; i++) back.add(receiver.decoder.recovered[i]);
  };
  for (let n = 0; n < 64; n++) {
    wire.run(n * 1000);
    const { counter, bytes, at } = wire.send(100);
    wire.sender.sent(lane, bytes, at, 100, counter, wire.nowUs);
  }
  assertEquals([...back].sort(), [10, 11, 12, 13]);
});

/** A packet, and what is reported and planned before it. */
const PACKET = fc.record({
  gapUs: fc.oneof(fc.constant(0), fc.constant(GAP_US), fc.integer({ min: 0, max: 400_000 })),
  length: fc.oneof(fc.constant(100), fc.integer({ min: 20, max: SYMBOL_MAX_BYTES })),
  lane: fc.constantFrom(0, 0, 0, 1, 2),
  lossRate: fc.double({ min: 0, max: 0.6, noNaN: true }),
  runLength: fc.double({ min: 1, max: 6, noNaN: true }),
  queueUs: fc.constantFrom(0, 0, 50_000),
  isReported: fc.boolean(),
});
const RUN = fc.record({
  packets: fc.array(PACKET, { minLength: 100, maxLength: 200 }),
  budget: fc.constantFrom(0.05, 0.25, 1),
  scheme: fc.constantFrom(...REPAIR_SCHEMES),
  share: fc.constantFrom(undefined, undefined, 1),
});

/** PROTOCOL R96: windows that begin with a repair hold most. */
function keepsBudget(repairs: Spent[], sources: Spent[], budget: number): void {
  for (const { atUs } of repairs) {
    const within = (one: Spent) => one.atUs >= atUs && one.atUs < atUs + 1e6;
    const spent = repairs.filter(within).reduce((sum, { bytes }) => sum + bytes, 0);
    const before = sources.findLast((one) => one.atUs < atUs);
    const earned = sources.filter((one) => one === before || within(one)).reduce(
      (sum, { bytes }) => sum + bytes,
      0,
    );
    const largest = sources.reduce((most, { bytes }) => Math.max(most, bytes), 0) + FRAME_HEAD_BYTES + 11;
    assertLessOrEqual(spent, budget * earned + largest + 1e-6);
  }
}

interface Spent {
  atUs: number;
  bytes: number;
}

Deno.test("repair sender: no second has more repair than the budget and one repair, whatever is sent, planned and reported", () => {
  let repairs = 0;
  const property = fc.property(RUN, ({ packets, budget, scheme, share }) => {
    const wire = new Wire(new RepairSender(kernel)), { sender } = wire;
    const deadlinesUs = [60_000, 100_000, 250_000], classes = [CLASS_GAME, CLASS_VOICE, CLASS_BULK];
    const sources: { atUs: number; bytes: number; lane: number }[] = [],
      laneOf = new Map<number, number>();
    let nowUs = 0;
    for (const { gapUs, length, lane, lossRate, runLength, queueUs, isReported } of packets) {
      wire.run(nowUs += gapUs);
      for (let i = 0; isReported && i < LANES; i++) {
        const { gapUs, bytes, bytesMax, plan } = sender.lanes[i];
        chooseRepair({
          nowUs,
          lossRate,
          runLength,
          runUs: runLength * gapUs,
          queueUs,
          queueSlope: 0,
          delayUs: 0,
          rttUs: -1,
          judged: wire.counter,
          isSilent: false,
          lossAhead: 0,
          foreseen: nothingForeseen(),
          trafficClass: classes[i],
          gapUs,
          rideGapUs: sender.rideGapUs,
          packetBytes: bytes,
          packetBytesMax: bytesMax,
          deadlineUs: deadlinesUs[i],
          budget,
          scheme,
          share,
          isAsked: false,
          backLoss: 0,
          target: 0.001,
        }, plan);
      }
      const { counter, bytes, at } = wire.send(length);
      sources.push({ atUs: nowUs, bytes: DATAGRAM_BYTES + length, lane });
      laneOf.set(counter, lane);
      sender.sent(sender.lanes[lane], bytes, at, length, counter, nowUs);
    }
    wire.run(nowUs + 1e6);
    repairs += wire.repairs.length;
    for (const repair of wire.repairs) {
      const lane = laneOf.get(repair.numbers[0])!;
      assert(repair.numbers.every((number) => laneOf.get(number) === lane), "of one class");
      // PROTOCOL R97
      assertLessOrEqual(ageUs(wire, repair, "newest"), deadlinesUs[lane]);
      if (!repair.isBlock) assertLessOrEqual(ageUs(wire, repair, "oldest"), deadlinesUs[lane]);
    }
    for (let lane = 0; lane < LANES; lane++) {
      const own = wire.repairs.filter(({ numbers }) => laneOf.get(numbers[0]) === lane);
      keepsBudget(own, sources.filter((one) => one.lane === lane), budget);
    }
  });
  fc.assert(property, { numRuns: 40 });
  assertGreater(repairs, 300);
  // Ages of 60 001 and 60 005 µs, where a game's packets are too late after 60 000.
  for (const seed of [778202089, -1471094602]) fc.assert(property, { numRuns: 40, seed });
});

Deno.test("repair sender: what is neither marked nor repaired does not enlarge the budget for answers (PROTOCOL R102)", () => {
  const budget = 0.1, lengthOfBulk = 40, length = 100;
  const sender = new RepairSender(kernel, budget), burst = new Burst(new Arena(1));
  const [game, , bulk] = sender.lanes, packet = new Uint8Array(length).fill(7);
  game.isMarked = true;
  game.answerableUs = 60_000;
  game.plan = plan({ share: 0 });
  bulk.plan = plan({ share: 0 });
  let protectedBytes = 0, answers = 0, answerBytes = 0;
  for (let nowUs = 0, counter = 0; nowUs < 1e6; nowUs += GAP_US) {
    for (let i = 0; i < 50; i++) {
      assert(!sender.sent(bulk, packet, 0, lengthOfBulk, counter++, nowUs));
    }
    const before = counter - 51;
    assert(sender.sent(game, packet, 0, length, counter++, nowUs));
    protectedBytes += DATAGRAM_BYTES + length;
    // The other end asks for each packet once.
    if (before > 0) sender.onRequest(before & 0xffff, 1, 1, nowUs);
    burst.release();
    const row = burst.grow(0, DONE);
    sender.ride(burst, row, counter, BYTES_MAX, nowUs);
    if (sender.written.count === 0) continue;
    answers += sender.written.count;
    answerBytes += DATAGRAM_BYTES + burst.length[row];
    counter++;
  }
  assertGreater(answers, 2);
  assertLessOrEqual(answerBytes, budget * protectedBytes);
});

Deno.test("repair sender: of a bad second's budget something is left to last chances", () => {
  const length = 100, rttUs = 20_000, packet = new Uint8Array(length).fill(7);
  /** Of the last 50 of a second's packets, those that are sent again when all are asked for, `ageUs` old, twenty of them `before` too. */
  const answered = (ageUs: number, burstUs: number, before = false) => {
    const sender = new RepairSender(kernel, 0.5), burst = new Burst(new Arena(1)), [game] = sender.lanes;
    game.isMarked = true;
    game.answerableUs = 60_000;
    game.plan = plan({ share: 0 });
    game.plan.asking.burstUs = burstUs;
    sender.roundTripUs = rttUs;
    for (let n = 0; n < 64; n++) assert(sender.sent(game, packet, 0, length, n, n < 14 ? 0 : 900_000));
    let counter = 64;
    const ask = (first: number, count: number, nowUs: number) => {
      for (let n = first; n < first + count; n++) sender.onRequest(n - 1, 1, 1, nowUs);
      do {
        burst.release();
        const row = burst.grow(0, DONE);
        sender.ride(burst, row, counter++, BYTES_MAX, nowUs);
        for (let i = 0; i < sender.written.count; i++) answered.add(sender.written.newest[i]);
      } while (sender.written.count > 0);
    };
    const nowUs = 900_000 + ageUs, answered = new Set<number>();
    if (before) ask(14, 20, nowUs - 5_000);
    ask(14, 50, nowUs);
    return answered.size;
  };
  const last = answered(45_000, 30_000), early = answered(10_000, 30_000);
  assertGreater(last, 20);
  assert(early > 1 && early < 0.3 * last, `${early} of ${last}`);
  assertEquals(answered(10_000, 0), last, "no burst: the first answer is as good as any");
  // Twenty went once already; a second time they go only while there is plenty.
  const again = answered(45_000, 30_000, true);
  assertGreater(again, 0.75 * last, `${again} of ${last}`);
});

Deno.test("repair sender: as many packets are remembered as the encoder has places, of which one is free", () => {
  const encoder = new RepairEncoder(kernel, SYMBOL_MAX_BYTES), numbers = new Float64Array(1);
  for (let n = 0; n < 2 * KEPT; n++) assert(encoder.add(n, new Uint8Array(10), 0, 10));
  const has = (number: number) => {
    numbers[0] = number;
    return encoder.combine(CODE_WINDOW, 0, numbers, 1) > 0;
  };
  assertEquals([has(KEPT), has(KEPT + 1), has(2 * KEPT - 1)], [false, true, true]);
});

/** A game and a call, and some bulk, for four seconds at 5 % loss; returns what was sent in the last two. */
function session(
  own: Partial<Parameters<typeof repairOptions>[1]>,
  lossAhead?: number,
  lossRate = 0.05,
): Wire {
  const options: RepairOptions = repairOptions(kernel, {
    budgetPercent: 25,
    gameDeadlineMs: 60,
    voiceDeadlineMs: 100,
    ...own,
  });
  const repair = new Repairs(options, { add() {} }).takeSender()!,
    wire = new Wire(repair.sender),
    report = new Report();
  if (lossAhead !== undefined) repair.predictor = { lossAhead, observe() {} };
  for (let n = 0; n < 256; n++) {
    for (const [trafficClass, length] of [[CLASS_GAME, 100], [CLASS_VOICE, 160], [CLASS_DEFAULT, 80]]) {
      wire.run(n * GAP_US);
      const { counter, bytes, at } = wire.send(length);
      repair.quality.sent(counter, true, true, wire.nowUs);
      repair.sent(bytes, at, length, counter, trafficClass, wire.nowUs);
    }
    if (n % 2 === 0) continue;
    report.highest = wire.counter - 1;
    report.bitmapBytes = Math.min(4, report.highest >> 3);
    report.bitmap.fill(0);
    for (let i = 0; i < 8 * report.bitmapBytes; i++) {
      const counter = report.highest - 1 - i;
      if (lossRate === 0 || counter % Math.round(1 / lossRate) !== 0) report.bitmap[i >> 3] |= 1 << (i & 7);
    }
    repair.onReport(report, wire.nowUs);
    if (n < 128) wire.repairs.length = 0;
  }
  return wire;
}

const bytesOf = ({ repairs }: Wire) => repairs.reduce((sum, { bytes }) => sum + bytes, 0);
/** Of the three packets of a turn. */
const sourcesOf = ({ repairs }: Wire, place: number) =>
  repairs.filter(({ numbers }) => numbers[0] % 3 === place);

Deno.test("repair switches: the scheme", () => {
  const sent = new Map(REPAIR_SCHEMES.map((scheme) => [scheme, session({ scheme }).repairs]));
  const all = (scheme: (typeof REPAIR_SCHEMES)[number], holds: (one: Sent) => boolean) =>
    assert(sent.get(scheme)!.length > 20 && sent.get(scheme)!.every(holds), scheme);
  all(
    "copy",
    ({ numbers, isBlock, atUs, counter }) => numbers.length === 1 && !isBlock && atUs >= 0 && counter > 0,
  );
  all("spaced", ({ numbers, isBlock }) => numbers.length === 1 && !isBlock);
  all("window", ({ numbers, isBlock }) => numbers.length > 1 && !isBlock);
  all("block", ({ numbers, isBlock }) => numbers.length > 1 && isBlock);
  const newest = (one: Sent) => one.counter - one.numbers[one.numbers.length - 1];
  assertLess(Math.max(...sent.get("copy")!.map(newest)), Math.min(...sent.get("spaced")!.map(newest)));
});

Deno.test("repair switches: a fixed share", () => {
  const fixed = bytesOf(session({ sharePercent: 20 }, undefined, 0)),
    adaptive = bytesOf(session({}, undefined, 0));
  assertLess(adaptive, 0.2 * fixed);
  const sourceBytes = 128 * (100 + 160 + 2 * DATAGRAM_BYTES);
  assert(fixed > 0.15 * sourceBytes && fixed <= 0.2 * sourceBytes + 2 * 250, `${fixed / sourceBytes}`);
});

Deno.test("repair switches: without regard to traffic all classes are protected alike", () => {
  const aware = session({}), alike = session({ trafficAware: false });
  assertEquals(sourcesOf(aware, 2).length, 0, "what is neither game nor call");
  assertGreater(sourcesOf(aware, 1).length, 10);
  assert(alike.repairs.some(({ numbers }) => numbers.some((number) => number % 3 === 2)));
});

Deno.test("repair switches: a prediction raises repair where that is switched on", () => {
  const reactive = bytesOf(session({ proactive: false }, 0.4, 0)), proactive = bytesOf(session({}, 0.4, 0));
  assertGreater(proactive, 5 * reactive);
});

Deno.test("repair switches: reports that come all at once are judged a few times", () => {
  const options = repairOptions(kernel, { budgetPercent: 25, gameDeadlineMs: 60, voiceDeadlineMs: 100 });
  const repair = new Repairs(options, { add() {} }).takeSender()!;
  let steps = 0;
  repair.predictor = { lossAhead: 0, observe: () => steps++ };
  const report = new Report();
  for (let counter = 0; counter < 100; counter++) repair.quality.sent(counter, true, false, 1000 * counter);
  for (const nowUs of [200_000, 300_000]) {
    for (let i = 0; i < 50; i++) {
      report.highest++;
      repair.onReport(report, nowUs);
    }
  }
  assertEquals(steps, 8);
});

Deno.test("repair tally: a session that has fallen silent repairs by no scheme", () => {
  const tally = new RepairTally();
  tally.datagram(150, 1e6);
  tally.repair(false, 1, 1, 105, NaN, 1e6);
  assertEquals([tally.scheme, tally.schemeAt(5e6), tally.schemeAt(7e6)], ["copy", "copy", "none"]);
});
