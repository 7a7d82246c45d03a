/**
 * The queue of packets that wait for their thread by itself: classes, flows, peers, bounds, and that no slot is lost. Packets are
 * counted by the number in their first bytes.
 */
import { assert, assertEquals, assertGreater, assertLess } from "@std/assert";
import { CLASS_BULK, CLASS_DEFAULT, CLASS_GAME } from "../../src/control/traffic_class.ts";
import { IS_LOST, PASSES, WAITS } from "../../src/queue/queues.ts";
import { BACKLOG_ROWS, TURN_CODEL, TurnQueue } from "../../src/queue/turn_queue.ts";
import { Arena, NONE } from "../../src/vector/arena.ts";
import { Burst, HELD, TO_EXIT } from "../../src/vector/burst.ts";

/** One peer may have as much waiting as there is room left: half of all where it is alone. */
const SLOTS = 2048, PACKETS = 1024, PEER_ROOM = 1, PEER_PACKETS = 512, FULL = 1400;

interface Taken {
  peer: number;
  flow: number;
  number: number;
  length: number;
}

class Bench {
  readonly arena = new Arena(SLOTS);
  readonly lost: string[] = [];
  nowUs = 1_000_000;
  #number = 0;
  readonly #burst = new Burst(this.arena);
  readonly queue = new TurnQueue(this.arena, {
    ...TURN_CODEL,
    packets: PACKETS,
    peerRoom: PEER_ROOM,
    flows: 4096,
    peers: 64,
    ecn: true,
    gameDeadlineUs: 60_000,
    voiceDeadlineUs: 100_000,
    look: () => {},
    waited: () => {},
    lost: (reason) => this.lost.push(reason),
    marked: () => {},
  });

  offer(peer: number, flow: number, trafficClass: number, bytes = FULL): number {
    const burst = this.#burst;
    const row = burst.grow(bytes, TO_EXIT);
    assert(row >= 0, "no slot is free");
    burst.view.setUint32(burst.offset[row], this.#number++);
    burst.peer[row] = peer;
    burst.flow[row] = flow;
    burst.trafficClass[row] = trafficClass;
    const outcome = this.queue.offer(burst, row, this.nowUs);
    if (outcome === WAITS) burst.next[row] = HELD;
    burst.release();
    return outcome;
  }

  /** Takes up to `packets`, each of which takes a microsecond. */
  take(packets: number): Taken[] {
    const burst = this.#burst, taken: Taken[] = [];
    while (taken.length < packets) {
      const row = this.queue.take(burst, TO_EXIT, this.nowUs++);
      if (row < 0) break;
      taken.push({
        peer: burst.peer[row],
        flow: burst.flow[row],
        number: burst.view.getUint32(burst.offset[row]),
        length: burst.length[row],
      });
      burst.release();
    }
    return taken;
  }

  isWhole(): boolean {
    return this.arena.free === SLOTS - this.queue.packets;
  }
}

Deno.test("turn queue: a game goes first, then flows of few packets, then transfers; each flow in its order", () => {
  const bench = new Bench();
  for (let i = 0; i < 100; i++) bench.offer(1, 10 + i % 2, CLASS_BULK);
  for (let i = 0; i < 100; i++) bench.offer(1, 20, CLASS_DEFAULT);
  bench.offer(1, 30, CLASS_DEFAULT, 84);
  bench.offer(1, 40, CLASS_GAME, 100);
  assert(bench.queue.holds(40));
  const order = bench.take(Infinity);
  assertEquals(order.length, 202);
  assertEquals(order[0].flow, 40);
  assertLess(order.findIndex(({ flow }) => flow === 30), 8);
  for (const one of [10, 11, 20]) {
    const numbers = order.filter(({ flow }) => flow === one).map(({ number }) => number);
    assertEquals(numbers, numbers.toSorted((a, b) => a - b));
  }
  assert(!bench.queue.holds(40) && bench.isWhole());
});

Deno.test("turn queue: no class starves, whatever the others send", () => {
  const bench = new Bench();
  const sent = { game: 0, bulk: 0 };
  for (let i = 0; i < 3000; i++) {
    bench.offer(1, 1, CLASS_GAME);
    if (i < 400) bench.offer(2, 2, CLASS_BULK);
    for (const { flow } of bench.take(1)) sent[flow === 1 ? "game" : "bulk"]++;
  }
  assertGreater(sent.bulk, 300);
  assertGreater(sent.game, 700);
});

Deno.test("turn queue: served runs are runs, and a peer with many flows gets no more than one with one", () => {
  const bench = new Bench();
  for (let i = 0; i < 300; i++) {
    bench.offer(1, 1, CLASS_BULK);
    bench.offer(2, 2, CLASS_BULK);
  }
  const runs = bench.take(320).reduce(
    (runs, { peer }, i, all) => runs + (i > 0 && all[i - 1].peer === peer ? 0 : 1),
    0,
  );
  assertLess(runs, 320 / 10);
  bench.take(Infinity);
  for (let i = 0; i < 400; i++) {
    bench.offer(1, 100 + i % 16, CLASS_BULK);
    bench.offer(2, 200, CLASS_BULK);
  }
  const served = bench.take(400).filter(({ peer }) => peer === 2).length;
  assertGreater(served, 140);
  assertLess(served, 260);
});

Deno.test("turn queue: bounded for all and for a peer; the largest flow loses, a newcomer finds room", () => {
  const bench = new Bench();
  for (let i = 0; i < 5000; i++) bench.offer(1, i % 3 ? 1 : 2, CLASS_BULK);
  assert(bench.queue.packets <= PEER_PACKETS);
  assertEquals(bench.offer(2, 3, CLASS_GAME, 100), WAITS);
  for (let i = 0; i < 5000; i++) bench.offer(3 + i % 40, 100 + i % 40, CLASS_BULK);
  assert(bench.queue.packets <= PACKETS);
  assertEquals(bench.offer(60, 4, CLASS_GAME, 100), WAITS);
  assertEquals(new Set(bench.lost), new Set(["queue_overflow"]));
  assert(bench.isWhole());
  // Flows of a packet each hold nothing that could be dropped in their favour, and are bounded too.
  const many = new Bench();
  for (let i = 0; i < 3000; i++) many.offer(1, i, CLASS_DEFAULT, 100);
  assert(many.queue.packets <= PEER_PACKETS);
  assertEquals(many.offer(2, 4000, CLASS_GAME, 100), WAITS);
  assertEquals(many.take(1)[0].flow, 4000);
  many.take(Infinity);
  assert(many.isWhole());
});

Deno.test("turn queue: peers that fill up, however many, leave room and flows to one more, and cost it no packet", () => {
  for (const flowsEach of [1, 3000]) {
    const bench = new Bench();
    for (let i = 0; i < 3000; i++) {
      for (let peer = 1; peer <= 6; peer++) bench.offer(peer, 500 * peer + i % flowsEach % 500, CLASS_BULK);
    }
    assert(bench.queue.packets <= PACKETS * 6 / 7 + 6);
    const lost = bench.lost.length;
    for (let flow = 0; flow < 50; flow++) assertEquals(bench.offer(9, flow, CLASS_GAME, 100), WAITS);
    assertEquals(bench.lost.length, lost, "nobody loses a packet for the newcomer");
    bench.take(Infinity);
    assert(bench.isWhole());
  }
});

Deno.test("turn queue: who has too much loses its own, whatever another one was refused at the same moment", () => {
  const bench = new Bench();
  for (let i = 0; i < 600; i++) bench.offer(1, 100 + i, CLASS_DEFAULT, 100);
  for (let i = 0; i < 600; i++) bench.offer(2, 1, CLASS_BULK);
  assertEquals(bench.offer(1, 99, CLASS_DEFAULT, 100), IS_LOST, "only flows of a packet each");
  assertEquals(bench.offer(2, 2, CLASS_GAME, 100), WAITS, "at the cost of its transfer");
  const [first] = bench.take(1);
  assertEquals(first.flow, 2);
});

Deno.test("turn queue: flows that ended a moment ago, one peer's, leave rows to another's", () => {
  const bench = new Bench();
  for (let i = 0; i < 3; i++) bench.offer(1, 4000, CLASS_DEFAULT);
  bench.take(2); // the flow is behind others from now on, and so are those that follow
  let begun = 0;
  while (bench.offer(1, begun, CLASS_DEFAULT) === WAITS && begun < PACKETS) {
    bench.take(1);
    begun++;
  }
  assertGreater(begun, PEER_PACKETS / 2);
  for (let flow = 3000; flow < 3100; flow++) assertEquals(bench.offer(2, flow, CLASS_DEFAULT, 100), WAITS);
});

Deno.test("turn queue: what stands longer than 20 ms loses packets, what passes quickly none", () => {
  const bench = new Bench();
  for (let i = 0; i < 400; i++) bench.offer(1, 1, CLASS_BULK);
  bench.nowUs += 15_000;
  bench.take(200);
  assertEquals(bench.lost, []);
  for (let i = 0; i < 30; i++) {
    bench.nowUs += 2000;
    for (let j = 0; j < 20; j++) bench.offer(1, 1, CLASS_BULK);
    bench.take(20);
  }
  assertGreater(bench.lost.filter((reason) => reason === "queue_delay").length, 1);
  assert(bench.isWhole());
});

Deno.test("turn queue: packets of a removed peer are not sent, and those of a game that are too old neither", () => {
  const bench = new Bench();
  for (let i = 0; i < 10; i++) {
    bench.offer(1, 1, CLASS_BULK);
    bench.offer(2, 2, CLASS_BULK);
  }
  bench.queue.release(1);
  assertEquals(bench.take(Infinity).map(({ peer }) => peer), new Array(10).fill(2));
  assert(bench.isWhole());
  bench.offer(3, 3, CLASS_GAME);
  bench.nowUs += 61_000;
  assertEquals(bench.take(1), []);
  assertEquals(bench.lost.at(-1), "queue_stale");
  assertEquals(bench.offer(3, NONE, CLASS_DEFAULT), PASSES);
  assert(!bench.queue.sorts(BACKLOG_ROWS) && bench.queue.sorts(BACKLOG_ROWS + 1));
  assertEquals([WAITS, IS_LOST].includes(bench.offer(3, 3, CLASS_GAME)), true);
  assert(bench.queue.sorts(1), "what comes behind packets that wait is sorted too");
});
