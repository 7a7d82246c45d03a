/**
 * The queues in front of peers' lines by themselves: whose turn it is, what waits how long, and what is lost. Packets are
 * counted by the number in their first bytes.
 */
import { assert, assertEquals, assertGreater, assertLess, assertLessOrEqual } from "@std/assert";
import { CLASS_BULK, CLASS_DEFAULT, CLASS_GAME, CLASS_INTERACTIVE } from "../../src/control/traffic_class.ts";
import { IS_LOST, LINES_MAX, PASSES, Queues, WAITS } from "../../src/queue/queues.ts";
import { Arena, NONE } from "../../src/vector/arena.ts";
import { Burst, HELD, TO_SEAL } from "../../src/vector/burst.ts";

const PEERS = 1024, FLOWS = 4096, SLOTS = 2048, PACKETS = 1024;
/** 10 Mbit/s: 1250 bytes take a millisecond. */
const RATE = 1_250_000, FULL = 1250;
const DEADLINE_US = 60_000;

interface Sent {
  peer: number;
  flow: number;
  trafficClass: number;
  number: number;
  atUs: number;
}

class Bench {
  readonly arena = new Arena(SLOTS);
  readonly lost: string[] = [];
  readonly waits: [number, number][] = [];
  marked = 0;
  readonly sent: Sent[] = [];
  readonly queues: Queues;
  nowUs = 1_000_000;
  /** Of the path. */
  rttUs = 0;
  /** Bytes on the wire for each that is taken. */
  wireShare = 1;
  #number = 0;
  readonly #burst = new Burst(this.arena);

  constructor(bytesPerS = 0, packets = PACKETS) {
    this.queues = new Queues(this.arena, {
      bytesPerS,
      findsRates: false,
      packets,
      flows: FLOWS,
      peers: PEERS,
      ecn: true,
      gameDeadlineUs: DEADLINE_US,
      voiceDeadlineUs: 2 * DEADLINE_US,
      waited: (trafficClass, us) => this.waits.push([trafficClass, us]),
      lost: (reason) => this.lost.push(reason),
      marked: () => this.marked++,
    });
  }

  /** Offers one packet and says what became of it. */
  offer(peer: number, flow: number, trafficClass: number, bytes = FULL, ecn = 0): number {
    const burst = this.#burst;
    const row = burst.grow(bytes, TO_SEAL);
    assert(row >= 0, "no slot is free");
    const at = burst.offset[row];
    burst.bytes.fill(0, at, at + 24);
    burst.view.setUint8(at, 0x45);
    burst.view.setUint8(at + 1, ecn);
    burst.view.setUint32(at + 20, this.#number++);
    burst.peer[row] = peer;
    burst.flow[row] = flow;
    burst.trafficClass[row] = trafficClass;
    const outcome = this.queues.offer(burst, row, 0, this.nowUs);
    if (outcome === WAITS) burst.next[row] = HELD;
    else if (outcome === PASSES) {
      this.#note(row);
      this.queues.settle(peer, this.wireShare * bytes, this.nowUs);
    }
    burst.release();
    return outcome;
  }

  #note(row: number) {
    const { peer, flow, trafficClass, view, offset } = this.#burst;
    this.sent.push({
      peer: peer[row],
      flow: flow[row],
      trafficClass: trafficClass[row],
      number: view.getUint32(offset[row] + 20),
      atUs: this.nowUs,
    });
  }

  /** Lets `us` microseconds pass and takes packets when they are due, or `stepUs` later than the last time at the earliest. */
  runFor(us: number, stepUs = 0) {
    const untilUs = this.nowUs + us;
    while (this.queues.nextUs <= untilUs) {
      this.nowUs = Math.max(this.nowUs + stepUs, this.queues.nextUs);
      for (let peer = this.queues.ready(this.nowUs); peer !== NONE; peer = this.queues.ready(this.nowUs)) {
        while (this.queues.take(this.#burst, peer, TO_SEAL, 0, this.nowUs, false, this.rttUs) >= 0) {
          this.#note(0);
          this.queues.settle(peer, this.wireShare * this.#burst.length[0], this.nowUs);
          this.#burst.release();
        }
      }
    }
    this.nowUs = Math.max(this.nowUs, untilUs);
  }
}

Deno.test("queues: without a rate nothing waits, and nobody is looked up", () => {
  const bench = new Bench();
  assert(bench.queues.isIdle);
  for (let i = 0; i < 50; i++) assertEquals(bench.offer(1, 1, CLASS_BULK), PASSES);
  assertEquals(bench.queues.nextUs, Infinity);
});

Deno.test("queues: a line sends at its rate, and a flow's packets in their order", () => {
  const bench = new Bench();
  assert(bench.queues.setRate(1, RATE, bench.nowUs));
  const startUs = bench.nowUs;
  for (let i = 0; i < 100; i++) bench.offer(1, 7, CLASS_INTERACTIVE);
  bench.runFor(200_000);
  assertEquals(bench.sent.map(({ number }) => number), [...bench.sent.keys()], "in order");
  assertEquals(bench.sent.length + bench.lost.length, 100);
  const lastUs = bench.sent.at(-1)!.atUs - startUs;
  assertLess(Math.abs(lastUs - 1000 * bench.sent.length), 5000, "a millisecond each");
  assertEquals(bench.queues.packets, 0);
  assertEquals(bench.arena.free, SLOTS, "no slot is kept");
});

Deno.test("queues: what takes less of the wire than its packets, or more, is charged as such", () => {
  for (const wireShare of [0.25, 1, 2]) {
    const bench = new Bench();
    bench.wireShare = wireShare;
    bench.queues.setRate(1, RATE, bench.nowUs);
    const startUs = bench.nowUs;
    for (let i = 0; i < 60; i++) bench.offer(1, 7, CLASS_BULK);
    bench.runFor(200_000);
    const { length } = bench.sent, lastUs = bench.sent[length - 1].atUs - startUs;
    assertLess(Math.abs(lastUs - 1000 * wireShare * length), 5000 + 500 * wireShare, `${wireShare}`);
  }
});

Deno.test("queues: a game goes before a transfer's backlog, and charges the line", () => {
  const bench = new Bench();
  bench.queues.setRate(1, RATE, bench.nowUs);
  for (let i = 0; i < 60; i++) bench.offer(1, 1, CLASS_BULK);
  let late = 0;
  for (let i = 0; i < 20; i++) {
    const before = bench.sent.length;
    if (bench.offer(1, 2, CLASS_GAME, 100) !== PASSES) late++;
    else assertEquals(bench.sent.length, before + 1);
    bench.runFor(5000);
  }
  assertEquals(late, 0);
  const games = bench.sent.filter(({ trafficClass }) => trafficClass === CLASS_GAME).length;
  assertEquals(games, 20);
  // 100 ms at 1250 bytes a millisecond.
  const bytes = bench.sent.reduce(
    (sum, { trafficClass }) => sum + (trafficClass === CLASS_GAME ? 100 : FULL),
    0,
  );
  assertLess(bytes, 105 * FULL);
});

Deno.test("queues: where a game has to wait too, it waits for nobody but games", () => {
  const bench = new Bench();
  // One packet takes 50 ms, longer than a game's may go ahead.
  bench.queues.setRate(1, RATE / 50, bench.nowUs);
  for (let i = 0; i < 5; i++) {
    bench.offer(1, 1, CLASS_INTERACTIVE);
    bench.offer(1, 2, CLASS_BULK);
  }
  assertEquals(bench.offer(1, 3, CLASS_GAME, 100), WAITS);
  const at = bench.sent.length;
  bench.runFor(60_000);
  assertEquals(bench.sent[at].trafficClass, CLASS_GAME);
});

Deno.test("queues: flows share a tin by bytes, and one that sends little goes first", () => {
  const bench = new Bench();
  bench.queues.setRate(1, RATE, bench.nowUs);
  for (let i = 0; i < 40; i++) {
    bench.offer(1, 1, CLASS_BULK, FULL);
    bench.offer(1, 2, CLASS_BULK, FULL / 2);
    bench.offer(1, 2, CLASS_BULK, FULL / 2);
  }
  bench.runFor(20_000);
  bench.offer(1, 3, CLASS_BULK, FULL);
  const at = bench.sent.length;
  bench.runFor(5000);
  assertLessOrEqual(bench.sent.slice(at).findIndex(({ flow }) => flow === 3), 1, "the sparse flow is next");
  bench.runFor(20_000);
  const bytesOf = (of: number) =>
    bench.sent.filter(({ flow }) => flow === of).length * (of === 1 ? FULL : FULL / 2);
  assertLess(Math.abs(bytesOf(1) - bytesOf(2)), 3 * FULL);
});

Deno.test("queues: what somebody waits for goes before a transfer, which keeps a share", () => {
  const bench = new Bench(0, 2048);
  bench.queues.setRate(1, RATE, bench.nowUs);
  for (let ms = 0; ms < 200; ms++) {
    bench.offer(1, 1, CLASS_BULK);
    bench.offer(1, 2, CLASS_INTERACTIVE);
    bench.runFor(1000);
  }
  const bulk = bench.sent.filter(({ trafficClass }) => trafficClass === CLASS_BULK).length;
  const share = bulk / bench.sent.length;
  assert(share > 0.3 && share < 0.55, `bulk has ${share}, and half is beyond the other tin's share`);
});

Deno.test("queues: peers' lines are apart", () => {
  const bench = new Bench();
  for (const peer of [1, 2]) bench.queues.setRate(peer, RATE, bench.nowUs);
  for (let i = 0; i < 50; i++) bench.offer(1, 1, CLASS_BULK);
  assertEquals(bench.offer(2, 2, CLASS_BULK), PASSES);
  assertEquals(bench.offer(3, 3, CLASS_BULK), PASSES, "a peer without a rate");
  assertGreater(bench.queues.waitingOf(1), 40);
  assertEquals(bench.queues.waitingOf(2), 0);
});

Deno.test("queues: a row of the table of flows that becomes another peer's does not lead to the first one's line", () => {
  const bench = new Bench();
  for (const peer of [1, 2]) bench.queues.setRate(peer, RATE, bench.nowUs);
  for (const peer of [1, 2]) for (let i = 0; i < 10; i++) bench.offer(peer, 5, CLASS_BULK);
  bench.runFor(50_000);
  for (const peer of [1, 2]) {
    const numbers = bench.sent.filter((sent) => sent.peer === peer).map(({ number }) => number);
    const from = peer === 1 ? 0 : 10;
    assertEquals(numbers, Array.from({ length: 10 }, (_, i) => from + i), `peer ${peer}`);
  }
});

Deno.test("queues: a standing queue loses packets, or marks those whose ends understand it", () => {
  for (const ecn of [0, 1, 2]) {
    const bench = new Bench();
    bench.queues.setRate(1, RATE, bench.nowUs);
    for (let ms = 0; ms < 1000; ms++) {
      bench.offer(1, 1, CLASS_BULK, FULL, ecn);
      if (ms % 10 === 0) bench.offer(1, 1, CLASS_BULK, FULL, ecn);
      bench.runFor(1000);
    }
    const dropped = bench.lost.filter((reason) => reason === "queue_delay").length;
    if (ecn === 0) assertGreater(dropped, 5);
    else assertEquals(dropped, 0);
    assertEquals(bench.marked > 5, ecn !== 0);
  }
});

Deno.test("queues: a transfer may wait four times as long as what somebody waits for", () => {
  const lost = (trafficClass: number) => {
    const bench = new Bench();
    bench.queues.setRate(1, RATE, bench.nowUs);
    // 12 ms of standing queue: twice the target of 5 ms, and not four times.
    for (let i = 0; i < 12; i++) bench.offer(1, 1, trafficClass);
    for (let ms = 0; ms < 500; ms++) {
      bench.offer(1, 1, trafficClass);
      bench.runFor(1000);
    }
    return bench.lost.length;
  };
  assertEquals(lost(CLASS_BULK), 0);
  assertGreater(lost(CLASS_INTERACTIVE), 0);
});

Deno.test("queues: over a long path a transfer may wait for what CUBIC gives up at a loss, and until its sender has answered one", () => {
  const lost = (packets: number, rttUs: number, forMs: number, trafficClass = CLASS_BULK) => {
    const bench = new Bench();
    bench.rttUs = rttUs;
    bench.queues.setRate(1, RATE, bench.nowUs);
    for (let i = 0; i < packets; i++) bench.offer(1, 1, trafficClass);
    for (let ms = 0; ms < forMs; ms++) {
      bench.offer(1, 1, trafficClass);
      bench.runFor(1000);
    }
    return bench.lost.length;
  };
  // A millisecond each: 35 ms of standing queue are less than three sevenths of 100 ms, 60 ms more, which may last for twice as long.
  assertEquals(lost(35, 100_000, 1000), 0);
  assertGreater(lost(35, 0, 1000), 0);
  assertGreater(lost(35, 100_000, 1000, CLASS_INTERACTIVE), 0);
  assertEquals(lost(60, 100_000, 190), 0);
  assertGreater(lost(60, 0, 190), 0);
  assertGreater(lost(60, 100_000, 300), 0);
  assertGreater(lost(120, 10_000_000, 1000), 0, "a round trip that no path has is no reason to wait");
});

Deno.test("queues: a game's packet that is too late is lost, a transfer's is not", () => {
  const bench = new Bench();
  bench.queues.setRate(1, RATE / 10, bench.nowUs);
  for (let i = 0; i < 30; i++) bench.offer(1, 1, CLASS_GAME);
  for (let i = 0; i < 3; i++) bench.offer(1, 2, CLASS_BULK);
  bench.runFor(1_000_000);
  assertGreater(bench.lost.filter((reason) => reason === "queue_stale").length, 10);
  for (const [trafficClass, us] of bench.waits) {
    if (trafficClass === CLASS_GAME) assertLessOrEqual(us, DEADLINE_US);
  }
  assertEquals(bench.sent.filter(({ trafficClass }) => trafficClass === CLASS_BULK).length, 3);
});

Deno.test("queues: what waits is bounded by flow, by line and in all, and the fattest flow loses", () => {
  const bench = new Bench();
  for (const peer of [1, 2, 3, 4, 5, 6]) bench.queues.setRate(peer, 1000, bench.nowUs);
  for (let i = 0; i < 2000; i++) bench.offer(1, 1, CLASS_BULK);
  assertLessOrEqual(bench.queues.waitingOf(1), PACKETS / 4);
  for (const peer of [2, 3, 4, 5]) for (let i = 0; i < 400; i++) bench.offer(peer, peer, CLASS_BULK);
  assertLessOrEqual(bench.queues.packets, PACKETS);
  assertEquals(bench.offer(6, 6, CLASS_INTERACTIVE), PASSES, "its line is free");
  assertEquals(bench.offer(6, 6, CLASS_INTERACTIVE), WAITS, "and the others have left room for it");
  assert(bench.lost.every((reason) => reason === "queue_overflow"));
  for (const peer of [1, 2, 3, 4, 5, 6]) bench.queues.release(peer);
  assertEquals(bench.arena.free, SLOTS);
  assert(bench.queues.isIdle);
});

Deno.test("queues: lines that fill up with flows of one packet soon leave as much to one more", () => {
  const bench = new Bench();
  const FILLERS = [1, 2, 3, 4, 5, 6];
  for (const peer of [...FILLERS, 9]) bench.queues.setRate(peer, 1000, bench.nowUs);
  const flood = (packets: number) => {
    for (const peer of FILLERS) {
      for (let i = 0; i < packets; i++) bench.offer(peer, 400 * peer + i, CLASS_BULK);
    }
  };
  flood(400);
  // Whoever holds more than there is room left for loses a packet a millisecond, once more of its own come.
  for (let ms = 0; ms < 200; ms++) {
    bench.nowUs += 1000;
    flood(20);
  }
  assertEquals(bench.offer(9, 9, CLASS_BULK), PASSES, "its line is free");
  for (let i = 0; i < PACKETS / 16; i++) assertEquals(bench.offer(9, 10 + i, CLASS_BULK), WAITS);
});

Deno.test("queues: a rate that goes lets out what waits, and a rate for all takes lines from idle peers", () => {
  const bench = new Bench();
  bench.queues.setRate(1, RATE, bench.nowUs);
  for (let i = 0; i < 20; i++) bench.offer(1, 1, CLASS_BULK);
  bench.queues.setRate(1, 0, bench.nowUs);
  bench.runFor(1000);
  assertEquals(bench.sent.length, 20);
  assert(bench.queues.isIdle);

  const all = new Bench(RATE);
  for (let peer = 0; peer < LINES_MAX; peer++) all.offer(peer, peer, CLASS_BULK);
  all.offer(LINES_MAX, LINES_MAX, CLASS_BULK);
  assertEquals(all.offer(LINES_MAX, LINES_MAX, CLASS_BULK), PASSES, "no line is left for it");
  all.runFor(2_000_000);
  all.offer(LINES_MAX + 1, LINES_MAX + 1, CLASS_BULK);
  assertEquals(all.offer(LINES_MAX + 1, LINES_MAX + 1, CLASS_BULK), WAITS, "an idle peer's line");
});

Deno.test("queues: a line whose rate is told again and again keeps to it, however slow", () => {
  for (const rate of [8000, 30_000, 100_000, RATE]) {
    const bench = new Bench();
    bench.queues.setRate(1, rate, bench.nowUs);
    for (let ms = 0; ms < 4000; ms += 25) {
      for (let i = 0; i < 40; i++) bench.offer(1, 1, CLASS_INTERACTIVE);
      bench.queues.setRate(1, rate, bench.nowUs);
      bench.runFor(25_000);
    }
    assertLess(bench.sent.length * FULL, 4 * rate + 4 * FULL, `${rate}`);
  }
});

Deno.test("queues: a line that is woken late keeps its rate", () => {
  const bench = new Bench();
  bench.queues.setRate(1, RATE, bench.nowUs);
  for (let ms = 0; ms < 1000; ms += 4) {
    for (let i = 0; i < 6; i++) bench.offer(1, 1, CLASS_INTERACTIVE);
    bench.runFor(4000, 4000);
  }
  assertGreater(bench.sent.length * FULL, 0.9 * RATE);
});

Deno.test("queues: flows that have gone leave no room taken, and one peer's leave others theirs", () => {
  const bench = new Bench();
  for (let peer = 1; peer <= 20; peer++) {
    bench.queues.setRate(peer, RATE, bench.nowUs);
    for (let flow = 0; flow < 100; flow++) bench.offer(peer, 100 * peer + flow, CLASS_BULK);
    bench.runFor(200_000);
  }
  for (let flow = 0; flow < 200; flow++) {
    assert(bench.offer(21, 3000 + flow, CLASS_BULK) === PASSES, "it has no line");
  }
  bench.queues.setRate(21, RATE, bench.nowUs);
  for (let flow = 0; flow < 200; flow++) assert(bench.offer(21, 3000 + flow, CLASS_BULK) !== IS_LOST);
  // A peer of one packet a flow, which asks for next to nothing, and one beside it.
  bench.queues.setRate(22, 1000, bench.nowUs);
  for (let flow = 0; flow < 2000; flow++) bench.offer(22, flow, CLASS_BULK, 60);
  bench.queues.setRate(23, RATE, bench.nowUs);
  for (let flow = 0; flow < 100; flow++) {
    assert(bench.offer(23, 2500 + flow, CLASS_BULK) !== IS_LOST, `${flow}`);
  }
});

Deno.test("queues: a flow that turns out to be a transfer goes behind what somebody waits for", () => {
  const bench = new Bench();
  bench.queues.setRate(1, RATE, bench.nowUs);
  for (let i = 0; i < 60; i++) bench.offer(1, 1, i < 10 ? CLASS_INTERACTIVE : CLASS_BULK);
  for (let i = 0; i < 20; i++) {
    bench.offer(1, 2, CLASS_DEFAULT, FULL / 4);
    bench.runFor(1000);
  }
  bench.runFor(100_000);
  const waited = bench.waits.filter(([trafficClass]) => trafficClass === CLASS_DEFAULT).map(([, us]) => us);
  assertLess(Math.max(...waited), 5000);
  const numbers = bench.sent.filter(({ flow }) => flow === 1).map(({ number }) => number);
  assertEquals(numbers, numbers.toSorted((a, b) => a - b), "and its packets stay in order");
});
