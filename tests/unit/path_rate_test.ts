/**
 * The rate of a path by reports alone: when it begins to hold back, how it follows the path, when it lets go, and what reports that
 * lie, or come late, cannot do. A simulated line with a deep buffer; a report each 25 ms, as receivers send them.
 */
import { assert, assertEquals, assertGreater, assertLess } from "@std/assert";
import { PathRate } from "../../src/rate/path_rate.ts";
import { Random } from "../kit/random.ts";

const RTT_US = 20_000, REPORT_US = 25_000, MS = 1000, SECOND = 1_000_000;
/** What the line holds; more is lost. */
const BUFFER_US = 1_000_000;
/** 20 Mbit/s. */
const RATE = 2_500_000;

class Line {
  readonly rate = new PathRate(() => this.#random.real(), 0);
  nowUs = 0;
  bytesPerS = RATE;
  /** What somebody else puts in front of the line, microseconds. */
  othersUs = 0;
  /** What stands in the way of reports, microseconds. */
  backUs = 0;
  /** Whether reports have the receiver's clock, which runs by this much faster and is this far ahead, microseconds. */
  hasClock = false;
  drift = 0;
  aheadUs = 123_456_789;
  /** Bytes a second that the sender has, in datagrams of this size. */
  offered = 2 * RATE;
  bytes = 1500;
  sent = 0;
  readonly #random = new Random(1);
  #freeUs = 0;
  #sendAtUs = 0;
  #reportAtUs = 0;
  /** What is on its way, and when it arrives. */
  readonly #arrivals: { counter: number; atUs: number }[] = [];
  #received = 0;
  #highest = -1;
  #highestUs = 0;

  runFor(us: number): void {
    const untilUs = this.nowUs + us;
    while (this.nowUs < untilUs) {
      this.nowUs += MS / 4;
      const limit = this.rate.bytesPerS(this.nowUs);
      const pace = limit > 0 ? Math.min(limit, this.offered) : this.offered;
      while (this.#sendAtUs <= this.nowUs) {
        this.#sendAtUs = Math.max(this.#sendAtUs, this.nowUs - MS) + this.bytes / pace * 1e6;
        this.rate.sent(this.sent++, this.bytes, limit > 0 && limit < this.offered, this.nowUs);
        if (this.queueUs > BUFFER_US) continue;
        this.#freeUs = Math.max(this.#freeUs, this.nowUs) + this.bytes / this.bytesPerS * 1e6;
        this.#arrivals.push({ counter: this.sent - 1, atUs: this.#freeUs + this.othersUs + RTT_US / 2 });
      }
      while (this.#arrivals.length > 0 && this.#arrivals[0].atUs <= this.nowUs - this.backUs) {
        const { counter, atUs } = this.#arrivals.shift()!;
        this.#highest = counter;
        this.#highestUs = atUs;
        this.#received++;
      }
      // The report's own way takes half a round trip: it tells of what arrived before.
      if (this.#reportAtUs > this.nowUs || this.#highest < 0) continue;
      this.#reportAtUs = this.nowUs + REPORT_US;
      const clockUs = this.#highestUs * (1 + this.drift) + this.aheadUs;
      this.rate.onReport(
        {
          highest: this.#highest,
          delayUs: this.nowUs - this.#highestUs - RTT_US / 2 - this.backUs,
          received: this.#received,
          hasClock: this.hasClock,
          clock: Math.floor(clockUs / 64) & 0xffff,
        },
        this.nowUs,
      );
    }
  }

  get queueUs(): number {
    return Math.max(0, this.#freeUs - this.nowUs);
  }
}

Deno.test("path rate: nothing is held back before the path shows a queue", () => {
  const line = new Line();
  line.offered = 0.8 * RATE;
  line.runFor(5 * SECOND);
  assertEquals(line.rate.bytesPerS(line.nowUs), 0);
  assertEquals(line.rate.state, "startup");
});

Deno.test("path rate: the first milliseconds of queue end start-up, and the queue goes", () => {
  const line = new Line();
  let heldUs = 0;
  while (heldUs === 0) {
    line.runFor(MS);
    assertLess(line.nowUs, SECOND);
    if (line.rate.bytesPerS(line.nowUs) > 0) heldUs = line.nowUs;
  }
  assertLess(line.queueUs, 160 * MS);
  line.runFor(SECOND);
  let most = 0;
  const sent = line.sent, sinceUs = line.nowUs;
  while (line.nowUs < sinceUs + 5 * SECOND) {
    line.runFor(MS);
    most = Math.max(most, line.queueUs);
  }
  assertLess(most, 25 * MS);
  assertGreater((line.sent - sent) * line.bytes / 5, 0.85 * RATE);
});

Deno.test("path rate: a path that becomes ten times slower has no standing queue after a second or two", () => {
  const line = new Line();
  line.runFor(3 * SECOND);
  line.bytesPerS /= 10;
  line.runFor(2 * SECOND);
  let high = 0, looks = 0;
  for (let ms = 0; ms < 3000; ms++, looks++) {
    line.runFor(MS);
    if (line.queueUs > 40 * MS) high++;
  }
  assertLess(high / looks, 0.2);
});

Deno.test("path rate: a path that becomes faster is found", () => {
  const line = new Line();
  line.offered = 8 * RATE;
  line.runFor(3 * SECOND);
  line.bytesPerS *= 5;
  line.runFor(20 * SECOND);
  assertGreater(line.rate.bytesPerS(line.nowUs), 0.7 * 5 * RATE);
});

Deno.test("path rate: a path that becomes ten times faster is found by one probe, whose steps grow", () => {
  const line = new Line();
  line.bytesPerS = RATE / 2;
  line.offered = 10 * RATE;
  line.runFor(3 * SECOND);
  line.bytesPerS *= 10;
  line.runFor(2.5 * SECOND);
  assertGreater(line.rate.bytesPerS(line.nowUs), 0.7 * 5 * RATE);
});

Deno.test("path rate: a queue that comes and does not go is somebody else's, and is left alone", () => {
  const line = new Line();
  line.runFor(3 * SECOND);
  assertGreater(line.rate.bytesPerS(line.nowUs), 0);
  // A transfer that is not ours fills the modem, loses packets and fills it again.
  for (let s = 0; line.rate.bytesPerS(line.nowUs) > 0; s++) {
    assertLess(s, 10);
    line.othersUs = (60 + 40 * (s % 4)) * MS;
    line.runFor(SECOND);
  }
});

Deno.test("path rate: a sender without more to send for ten seconds is idle", () => {
  const line = new Line();
  line.runFor(3 * SECOND);
  assert(!line.rate.isIdle(line.nowUs));
  line.offered = RATE / 10;
  line.runFor(12 * SECOND);
  assert(line.rate.isIdle(line.nowUs));
});

Deno.test("path rate: reports that lie change nothing, or nothing that matters", () => {
  const line = new Line();
  line.runFor(3 * SECOND);
  const before = line.rate.bytesPerS(line.nowUs), { delivered } = line.rate.rate;
  for (const highest of [-1, 0, line.sent + 1, 2 ** 47, NaN]) {
    line.rate.onReport({ highest, delayUs: 0, received: 0, hasClock: false, clock: 0 }, line.nowUs);
    assertEquals(line.rate.bytesPerS(line.nowUs), before, `${highest}`);
    assertEquals(line.rate.rate.delivered, delivered, `${highest}`);
  }
  const random = new Random(2);
  for (let i = 0; i < 2000; i++) {
    line.runFor(MS);
    line.rate.onReport({
      highest: Math.floor(random.real() * 1.1 * line.sent),
      delayUs: Math.floor(random.real() * 2e6),
      received: random.u32(),
      hasClock: random.u32() % 2 === 0,
      clock: random.u32() & 0xffff,
    }, line.nowUs);
    const now = line.rate.bytesPerS(line.nowUs);
    assert(Number.isFinite(now) && now >= 0 && (now === 0 || now >= 8000), `${now}`);
  }
});

Deno.test("path rate: a probe of the round trip ends, and what becomes faster afterwards is found", () => {
  const line = new Line();
  line.offered = 8 * RATE;
  line.runFor(20 * SECOND);
  line.bytesPerS *= 3;
  line.runFor(20 * SECOND);
  assertGreater(line.rate.bytesPerS(line.nowUs), 0.7 * 3 * RATE);
});

Deno.test("path rate: a sender that is slower than its path is never held back, whatever is probed", () => {
  const line = new Line();
  line.offered = 0.7 * RATE;
  for (let s = 0; s < 20; s++) {
    line.runFor(SECOND);
    assertEquals(line.rate.bytesPerS(line.nowUs), 0, `${s}`);
  }
});

Deno.test("path rate: a path that becomes longer is not taken for a queue for ever", () => {
  const line = new Line();
  line.runFor(3 * SECOND);
  line.othersUs = 40 * MS;
  line.runFor(20 * SECOND);
  const { delivered } = line.rate.rate;
  line.runFor(5 * SECOND);
  assertGreater((line.rate.rate.delivered - delivered) / 5, 0.7 * RATE);
});

for (
  const [what, drift, jumpUs] of [
    ["agrees", 0, 0],
    ["runs fast by 500 ppm", 5e-4, 0],
    ["runs slow by 500 ppm", -5e-4, 0],
    ["is set forward", 0, 700 * MS],
    ["is set back", 0, -700 * MS],
  ] as const
) {
  Deno.test(`path rate: a queue on the way back is none of ours, where the receiver's clock ${what}`, () => {
    const play = (hasClock: boolean) => {
      const line = new Line();
      Object.assign(line, { hasClock, drift });
      line.runFor(20 * SECOND);
      line.aheadUs += jumpUs;
      line.runFor(SECOND);
      line.backUs = 60 * MS;
      line.runFor(SECOND / 2);
      const { sent } = line;
      line.runFor(2 * SECOND);
      return (line.sent - sent) * line.bytes / 2;
    };
    assertGreater(play(true), 0.85 * RATE);
    assertLess(play(false), 0.8 * RATE, "the control: the round trip alone cannot tell");
  });

  Deno.test(`path rate: a queue of ours is found, where the receiver's clock ${what}`, () => {
    const line = new Line();
    Object.assign(line, { hasClock: true, drift });
    line.runFor(20 * SECOND);
    line.aheadUs += jumpUs;
    line.runFor(SECOND);
    line.bytesPerS /= 2;
    line.runFor(2 * SECOND);
    let most = 0;
    for (let ms = 0; ms < 2000; ms++) {
      line.runFor(MS);
      most = Math.max(most, line.queueUs);
    }
    assertLess(most, 25 * MS);
  });
}

Deno.test("path rate: a full path waits for a report of something new, half a second at most", () => {
  for (const [highest, isFull] of [[63, true], [15, false], [3, false], [1000, false]] as const) {
    const rate = new PathRate(() => 0.5, 0);
    for (let counter = 0; counter < 256; counter++) rate.sent(counter, 1500, true, 10 * counter);
    const report = (highest: number, nowUs: number) =>
      rate.onReport({ highest, delayUs: 0, received: highest + 1, hasClock: false, clock: 0 }, nowUs);
    report(15, RTT_US);
    const hold = () => {
      rate.bbr.isFullBwReached = true;
      rate.bbr.pacingRate = RATE;
      rate.bbr.cwnd = 10 * 1500;
    };
    hold();
    assert(rate.isFull(RTT_US + 500 * MS));
    assert(!rate.isFull(RTT_US + 501 * MS), "lost reports stop nothing");
    report(highest, RTT_US + 400 * MS);
    hold();
    assertEquals(rate.isFull(RTT_US + 501 * MS), isFull, `a report of ${highest}`);
  }
});

Deno.test("path rate: a trickle whose packets are delayed by others does not become the path's rate", () => {
  const line = new Line(), random = new Random(3);
  line.runFor(3 * SECOND);
  const before = line.rate.bytesPerS(line.nowUs);
  assertGreater(before, 0.8 * RATE);
  // Acknowledgements of a transfer that stalls: 100 a second, each late by what other programs take of the processor.
  line.offered = 6000;
  line.bytes = 60;
  for (let ms = 0; ms < 2000; ms += 25) {
    line.othersUs = random.real() * 30 * MS;
    line.runFor(25 * MS);
  }
  line.othersUs = 0;
  assertGreater(line.rate.bytesPerS(line.nowUs), 0.2 * RATE);
});

Deno.test("path rate: from the lowest rate, too, a path that becomes faster is found within seconds", () => {
  const line = new Line();
  line.bytes = 100;
  line.runFor(3 * SECOND);
  line.bytesPerS = 5000;
  while (line.rate.bytesPerS(line.nowUs) !== 8000) {
    line.runFor(25 * MS);
    assertLess(line.nowUs, 20 * SECOND);
  }
  line.bytesPerS = RATE;
  line.runFor(4 * SECOND);
  assertGreater(line.rate.bytesPerS(line.nowUs), 0.5 * RATE);
});
