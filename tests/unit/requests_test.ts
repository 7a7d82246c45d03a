/**
 * What a receiver asks for, and when, by marks, counters and pace (PROTOCOL §12, §14), and what a sender keeps for requests:
 * the parts alone, without a tunnel.
 */
import { assertEquals, assertGreater, assertLess, assertLessOrEqual } from "@std/assert";
import { PortableShardKernel } from "../../src/codec/gf256.ts";
import { CLASS_BULK, CLASS_DEFAULT, CLASS_GAME, CLASS_VOICE } from "../../src/control/traffic_class.ts";
import { Arrivals } from "../../src/repair/arrivals.ts";
import { type AskingPath, expectAsked, nextAskAge } from "../../src/repair/asking.ts";
import { ANSWERS_MAX, Kept } from "../../src/repair/kept.ts";
import { repairOptions } from "../../src/repair/options.ts";
import { Repairs } from "../../src/repair/pool.ts";
import { SYMBOL_MAX_BYTES } from "../../src/repair/receiver.ts";
import { Requests } from "../../src/repair/requests.ts";
import { SessionRepair } from "../../src/repair/session_repair.ts";
import { Arena } from "../../src/vector/arena.ts";
import { Burst, DONE } from "../../src/vector/burst.ts";
import {
  CONTROL_DEADLINE,
  controlFits,
  controlKind,
  readDeadlineMs,
  readRequestCount,
  readRequestCounter,
  readRequestFirst,
} from "../../src/wire/control.ts";
import { FRAME_CONTROL, FRAME_HEAD_BYTES, FrameReader } from "../../src/wire/frame.ts";
import { MARKS, writeMark } from "../../src/wire/oxtunnel.ts";

const GAP_US = 15_625, RTT_US = 20_000, DEADLINE_US = 60_000, BYTES = 200;

/** A receiver that is shown datagrams; `ask` says what it asks for: [counter, first, count] each. */
class Receiver {
  readonly arrivals = new Arrivals(0, true);
  readonly requests = new Requests(this.arrivals, DEADLINE_US, 0.001);
  readonly #view = new DataView(new ArrayBuffer(64));

  arrive(counter: number, mark: number, nowUs: number, rttUs = RTT_US): void {
    this.arrivals.arrived(counter, BYTES, nowUs);
    this.requests.arrived(counter, mark, BYTES, nowUs);
    this.requests.setPath(rttUs, 0);
  }

  ask(nowUs: number): number[][] {
    const asked: number[][] = [];
    while (this.requests.hasWord(nowUs)) {
      const bytes = this.requests.write(this.#view, 0, 64, true, nowUs);
      if (bytes === 0) continue;
      const at = FRAME_HEAD_BYTES, length = bytes - at;
      assertEquals(controlFits(this.#view, at, length), true);
      for (let i = 0; i < (length - 2) / 4; i++) {
        asked.push([
          readRequestCounter(this.#view, at, i),
          readRequestFirst(this.#view, at, i),
          readRequestCount(this.#view, at, i),
        ]);
      }
    }
    return asked;
  }
}

/** Marked datagrams 0 to `count` - 1, each a gap after the one before. */
function steady(count: number): Receiver {
  const receiver = new Receiver();
  for (let n = 0; n < count; n++) receiver.arrive(n, n % 3 + 1, n * GAP_US);
  return receiver;
}

Deno.test("requests: what marks show to be missing is asked for, and what was not marked is not", () => {
  const receiver = steady(20), nowUs = 20 * GAP_US;
  receiver.arrive(21, 20 % 3 + 1, nowUs);
  assertEquals(receiver.ask(nowUs), [], "one datagram is missing, and it was not marked");
  // Counters 22 and 23 are missing, and marks say that two are.
  receiver.arrive(24, (20 % 3 + 1 + 2) % 3 + 1, nowUs + 3 * GAP_US);
  assertEquals(receiver.ask(nowUs + 3 * GAP_US), [[21, 1, 2]]);
});

Deno.test("requests: an answer ends them; without one they are repeated while there is time", () => {
  const receiver = steady(20);
  receiver.arrive(21, 21 % 3 + 1, 21 * GAP_US, RTT_US / 2);
  assertEquals(receiver.ask(21 * GAP_US), [[19, 1, 1]]);
  const againUs = receiver.requests.dueUs;
  assertEquals(receiver.ask(againUs - 1), []);
  assertEquals(receiver.ask(againUs), [[19, 1, 1]]);
  receiver.requests.answerCame(20, 1);
  receiver.requests.recovered(20, againUs + 1_000);
  assertEquals(receiver.ask(22 * GAP_US), []);
  assertEquals([receiver.requests.answered, receiver.requests.missing], [1, 0]);
  // Nothing is asked for whose answer is too late.
  receiver.arrive(23, 23 % 3 + 1, 23 * GAP_US, DEADLINE_US);
  receiver.arrive(25, 25 % 3 + 1, 25 * GAP_US, DEADLINE_US);
  assertEquals(receiver.ask(25 * GAP_US), []);
});

Deno.test("requests: once something was lost, what is overdue is asked for before anything shows that it is missing", () => {
  const receiver = steady(20), quietUs = 19 * GAP_US;
  assertEquals(receiver.requests.dueUs, Infinity, "on a path that loses nothing nothing is waited for");
  receiver.arrive(21, 21 % 3 + 1, 21 * GAP_US);
  receiver.ask(21 * GAP_US);
  receiver.requests.answerCame(20, 1);
  receiver.requests.recovered(20, 21 * GAP_US + 1);
  receiver.arrive(22, 22 % 3 + 1, 22 * GAP_US);
  const { dueUs } = receiver.requests;
  assertLess(dueUs, 23 * GAP_US + 5_000);
  assertEquals(receiver.ask(dueUs), [[22, 1, 1]]);
  assertLess(quietUs, dueUs);
});

Deno.test("requests: a request for which there is no second chance goes twice, also where the first one rides", () => {
  const RTT_LONG_US = 48_000, LOSS = 0.3;
  for (const [rides, copyRides] of [[false, false], [true, false], [true, true]]) {
    const { arrivals, requests } = new Receiver(), view = new DataView(new ArrayBuffer(64));
    const arrive = (n: number, nowUs: number) => {
      // Half of what is sent gets lost, and was not marked.
      arrivals.arrived(2 * n, BYTES, nowUs);
      requests.arrived(2 * n, n % 3 + 1, BYTES, nowUs);
      requests.setPath(RTT_LONG_US, LOSS);
    };
    for (let n = 0; n < 20; n++) arrive(n, n * GAP_US);
    const nowUs = 20 * GAP_US + 3_000;
    arrive(21, nowUs);
    assertEquals([requests.canRide(nowUs), requests.hasWord(nowUs)], [true, true]);
    const bytes = requests.write(view, 0, 64, !rides, nowUs), first = view.buffer.slice(0, bytes);
    assertEquals([bytes, requests.dueUs], [8, nowUs], "the copy is due at once");
    assertEquals([requests.canRide(nowUs), requests.hasWord(nowUs)], [true, true]);
    assertEquals(requests.write(view, 0, bytes - 1, !copyRides, nowUs), 0, "there is no room");
    assertEquals(requests.hasWord(nowUs), true);
    assertEquals(requests.write(view, 0, 64, !copyRides, nowUs), bytes);
    assertEquals(view.buffer.slice(0, bytes), first);
    assertEquals([requests.canRide(nowUs), requests.hasWord(nowUs), requests.asked], [false, false, 1]);
    assertLess(nowUs, requests.dueUs);
  }
});

Deno.test("requests: where the first of two rides, its session is called for the copy at once", () => {
  const options = { budgetPercent: 25, gameDeadlineMs: 60, voiceDeadlineMs: 100 };
  const pool = new Repairs(repairOptions(new PortableShardKernel(), options), { add() {} });
  const wanted: number[] = [];
  const host = {
    highestReceived: () => 0,
    roundTripUs: () => 48_000,
    hasten: (dueUs: number) => wanted.push(dueUs),
    speak() {},
  };
  const repair = new SessionRepair(pool, host, true), burst = new Burst(new Arena(1)), headerBytes = 6;
  const row = () => {
    burst.release();
    const row = burst.grow(BYTES, DONE);
    burst.headerBytes[row] = headerBytes;
    return row;
  };
  const arrive = (n: number, nowUs: number) => {
    const at = row();
    burst.counter[at] = 2 * n; // half of what is sent gets lost, and was not marked
    burst.view.setUint8(burst.offset[at] - headerBytes, 0);
    writeMark(burst.view, burst.offset[at] - headerBytes, n % MARKS + 1);
    repair.datagramReceived(burst, at, nowUs);
  };
  for (let n = 0; n < 20; n++) arrive(n, n * GAP_US);
  const nowUs = 20 * GAP_US + 3_000;
  arrive(21, nowUs);
  assertEquals(repair.hasRequest(nowUs), true);
  assertEquals(repair.sends(CLASS_GAME), true);
  wanted.length = 0;
  const at = row();
  burst.trafficClass[at] = CLASS_BULK;
  repair.ride(burst, at, 0, 1400, nowUs);
  assertGreater(burst.length[at], BYTES, "the request rides");
  assertEquals([repair.hasRequest(nowUs), wanted], [true, [nowUs]], "the copy is due");
});

Deno.test("arrivals: totals are told at once, and every half a second where the other end is asked", () => {
  for (const isFrugal of [false, true]) {
    const arrivals = new Arrivals(0, isFrugal);
    let told = 0;
    // One in five is lost; a report after every five.
    for (let n = 0; n < 640; n++) {
      const nowUs = n * GAP_US;
      if (n % 5 !== 0) arrivals.arrived(n, BYTES, nowUs);
      if (n % 5 !== 4) continue;
      arrivals.judge(nowUs);
      if (!arrivals.isQualityDue(nowUs)) continue;
      arrivals.saidQuality(nowUs);
      told++;
    }
    assertEquals(told, isFrugal ? 19 : 128);
  }
});

Deno.test("requests: a datagram that comes late costs a bounded search, however much is missing", () => {
  const receiver = new Receiver(), { runs } = receiver.arrivals, hasArrived = runs.hasArrived.bind(runs);
  let steps = 0;
  runs.hasArrived = (counter) => {
    steps++;
    return hasArrived(counter);
  };
  // Each marked datagram but the first shows that two before it are missing: 32 places to count from.
  let counter = 0;
  receiver.arrive(counter, 1, 0);
  for (let i = 0; i < 32; i++) receiver.arrive(counter += 3, 1, 0);
  assertEquals(receiver.requests.missing, 64);
  receiver.arrive(counter += 150, 1, 0);
  for (let late = counter - 149; late < counter; late++) {
    steps = 0;
    receiver.arrive(late, 3, 0);
    assertLessOrEqual(steps, 256);
  }
  assertEquals(receiver.requests.missing < 64, true, "those that came late are missing no more");
});

Deno.test("requests: the deadline is told in front of the first marked packet, and after 2, 4, 8 … of them, whatever else is sent", () => {
  const options = { budgetPercent: 25, gameDeadlineMs: 60, voiceDeadlineMs: 100 };
  const pool = new Repairs(repairOptions(new PortableShardKernel(), options), { add() {} });
  const host = { highestReceived: () => -1, roundTripUs: () => -1, hasten() {}, speak() {} };
  const repair = new SessionRepair(pool, host, true);
  const burst = new Burst(new Arena(1)), frames = new FrameReader();
  const told: [marked: number, ms: number][] = [];
  let counter = 0, marked = 0;
  const send = (trafficClass: number, length: number, bytesMax = 1400) => {
    if (!repair.sends(trafficClass)) return;
    burst.release();
    const row = burst.grow(length, DONE), nowUs = counter * 1_000;
    burst.view.setUint8(burst.offset[row], 0x45);
    burst.trafficClass[row] = trafficClass;
    repair.ride(burst, row, counter, bytesMax, nowUs);
    burst.counter[row] = counter++;
    burst.headerBytes[row] = 6;
    const { count } = repair.sending!.sender.kept;
    repair.packetsSent(burst, row, length, nowUs);
    const isMarked = repair.sending!.sender.kept.count > count;
    if (isMarked) marked++;
    frames.start(burst.offset[row], burst.length[row] - length);
    for (let kind = frames.next(burst.view); kind >= 0; kind = frames.next(burst.view)) {
      if (kind !== FRAME_CONTROL || controlKind(burst.view, frames.at) !== CONTROL_DEADLINE) continue;
      assertEquals(isMarked, true);
      told.push([marked, readDeadlineMs(burst.view, frames.at)]);
    }
  };
  const sendOthers = () => {
    send(CLASS_BULK, 100);
    send(CLASS_DEFAULT, 100);
    send(CLASS_GAME, SYMBOL_MAX_BYTES + 1);
  };
  sendOthers();
  send(CLASS_GAME, SYMBOL_MAX_BYTES, SYMBOL_MAX_BYTES);
  assertEquals([marked, told], [1, []], "there is no room");
  for (let n = 0; n < 16; n++) {
    send(CLASS_GAME, 100);
    sendOthers();
  }
  assertEquals(told, [[2, 60], [4, 60], [8, 60], [16, 60]]);
  told.length = marked = 0;
  for (const trafficClass of [CLASS_VOICE, CLASS_GAME, CLASS_GAME]) send(trafficClass, 100);
  assertEquals(told, [[1, 100], [3, 100]], "the longest deadline counts");
});

Deno.test("asking: the times follow round trip, deadline and losses", () => {
  const path: AskingPath = {
    rttUs: 20_000,
    usableUs: 58_000,
    loss: 0.05,
    backLoss: 0.05,
    burstUs: 0,
    target: 0.001,
  };
  const out = { hopeless: 0, fails: 1, answers: 0 };
  assertEquals(nextAskAge(2_000, 1, path), 24_000);
  assertEquals(nextAskAge(24_000, 2, path), Infinity, "two are enough");
  assertEquals(nextAskAge(2_000, 1, { ...path, rttUs: 40_000 }), 18_000, "the last moment");
  assertEquals(nextAskAge(2_000, 1, { ...path, rttUs: 40_000, loss: 0.005 }), Infinity);
  expectAsked(path, 2_000, out);
  assertLess(out.fails, 0.01);
  expectAsked({ ...path, rttUs: 80_000 }, 2_000, out);
  assertEquals([out.fails, out.answers], [1, 0], "too far to ask");
  expectAsked({ ...path, burstUs: 30_000 }, 2_000, out);
  assertEquals(Math.abs(out.hopeless - Math.exp(-58 / 30)) < 0.01, true);
});

Deno.test("kept: a request names what was marked, a few times each, and copies of a request are one (PROTOCOL R101)", () => {
  const kept = new Kept();
  // Every second counter is marked.
  for (let n = 0; n < 100; n++) kept.add(2 * n, BYTES, 0, n * GAP_US);
  const wanted = () => [...kept.wanted].reduce((sum, copies) => sum + copies, 0);
  kept.want(180, 1, 2, 2e6);
  assertEquals([wanted(), kept.waiting], [2, 2]);
  assertEquals([kept.wanted[kept.placeOf(91)], kept.wanted[kept.placeOf(92)]], [1, 1]);
  for (let i = 0; i < ANSWERS_MAX; i++) {
    kept.want(180, 1, 1, 2e6 + 10_000 * i);
    kept.answered(kept.placeOf(91), 2e6 + 10_000 * i);
    kept.want(180, 1, 1, 2e6 + 10_000 * i + 3_000);
    assertEquals(kept.wanted[kept.placeOf(91)], 0);
  }
  kept.want(180, 1, 1, 3e6);
  assertEquals([kept.wanted[kept.placeOf(91)], kept.refused], [0, 1]);
  kept.want(10, 1, 32, 3e6);
  assertEquals(kept.waiting, 1, "what is forgotten is not counted on from");
});
