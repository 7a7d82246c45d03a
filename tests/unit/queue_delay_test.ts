/**
 * The queue of one direction by round trips and the receiver's clock, report by report. How a rate uses it: path_rate_test.ts.
 */
import { assert, assertAlmostEquals, assertEquals, assertLess } from "@std/assert";
import { QueueDelay } from "../../src/rate/queue_delay.ts";

const MS = 1000, THERE_US = 20 * MS, BACK_US = 15 * MS;

class Reports {
  readonly delay = new QueueDelay();
  nowUs = 5_000_000;
  aheadUs = 987_654_321;
  hasClock = true;

  /** A report of a datagram that met these queues, 25 ms after the one before. */
  report(queueUs: number, backUs: number): void {
    this.nowUs += 25 * MS;
    const sentUs = this.nowUs, arrivedUs = sentUs + THERE_US + queueUs;
    const clock = this.hasClock ? Math.floor((arrivedUs + this.aheadUs) / 64) & 0xffff : -1;
    this.delay.note(THERE_US + queueUs + BACK_US + backUs, clock, sentUs, arrivedUs + BACK_US + backUs);
  }

  several(count: number, queueUs: number, backUs: number): void {
    for (let i = 0; i < count; i++) this.report(queueUs, backUs);
  }
}

Deno.test("queue delay: each direction's queue is its own", () => {
  const reports = new Reports();
  reports.several(10, 0, 0);
  for (const [queueUs, backUs] of [[30 * MS, 0], [0, 30 * MS], [30 * MS, 50 * MS], [200 * MS, 0]]) {
    reports.several(3, queueUs, backUs);
    assertAlmostEquals(reports.delay.queueUs, queueUs, 130);
    assertAlmostEquals(reports.delay.backUs, backUs, 130);
  }
});

Deno.test("queue delay: without a clock the round trip's growth counts as this direction's", () => {
  const reports = new Reports();
  reports.hasClock = false;
  reports.several(10, 0, 0);
  reports.several(3, 10 * MS, 20 * MS);
  assertEquals(reports.delay.queueUs, 30 * MS);
});

Deno.test("queue delay: the clock's 16 bits wrap around", () => {
  const reports = new Reports();
  for (let i = 0; i < 1000; i++) {
    reports.report(i % 50 === 49 ? 5 * MS : 0, 0);
    assertAlmostEquals(reports.delay.queueUs, i % 50 === 49 ? 5 * MS : 0, 130);
  }
});

Deno.test("queue delay: a clock that is set shows no queue, and what comes behind is seen", () => {
  for (const jumpUs of [3 * MS, 200 * MS, 1_500_000, -3 * MS, -200 * MS, -1_500_000]) {
    const reports = new Reports();
    reports.several(10, 0, 0);
    reports.aheadUs += jumpUs;
    reports.several(3, 0, 0);
    assertLess(reports.delay.queueUs, 130, `${jumpUs}`);
    reports.several(3, 20 * MS, 0);
    assertAlmostEquals(reports.delay.queueUs, 20 * MS, 130);
    reports.several(3, 0, 40 * MS);
    assertLess(reports.delay.queueUs, 130, `${jumpUs}`);
  }
});

Deno.test("queue delay: one datagram that looks early is no new least", () => {
  const reports = new Reports();
  reports.several(10, 0, 0);
  reports.report(-5 * MS, 0);
  reports.several(3, 0, 0);
  assertLess(reports.delay.queueUs, 130);
  assert(reports.delay.backUs < 130);
});

Deno.test("queue delay: a path that has become longer has no queue after twenty seconds, or when it is told", () => {
  const reports = new Reports();
  reports.several(10, 0, 0);
  reports.several(900, 40 * MS, 0);
  assertLess(reports.delay.queueUs, 130);
  reports.several(3, 80 * MS, 0);
  assertAlmostEquals(reports.delay.queueUs, 40 * MS, 130);
  reports.delay.forget();
  reports.several(3, 80 * MS, 0);
  assertLess(reports.delay.queueUs, 130);
});
