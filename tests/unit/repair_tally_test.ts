/**
 * What is counted of repair in one direction: shares that mean something from the first datagram on, the scheme by what was
 * sent, and the same at the sending end, which counts what it writes, as whoever reads the frames counts.
 */
import { assert, assertAlmostEquals, assertEquals, assertGreater } from "@std/assert";
import fc from "fast-check";
import { PortableShardKernel } from "../../src/codec/gf256.ts";
import { CLASS_BULK, CLASS_DEFAULT, CLASS_GAME, CLASS_VOICE } from "../../src/control/traffic_class.ts";
import { repairOptions } from "../../src/repair/options.ts";
import { Repairs } from "../../src/repair/pool.ts";
import { REPAIR_SCHEMES } from "../../src/repair/redundancy.ts";
import { SessionRepair } from "../../src/repair/session_repair.ts";
import { RepairTally } from "../../src/repair/tally.ts";
import { Arena } from "../../src/vector/arena.ts";
import { Burst, DONE } from "../../src/vector/burst.ts";
import { Report } from "../../src/wire/report.ts";
import { FRAME_HEAD_BYTES, FRAME_REPAIR, FrameReader } from "../../src/wire/frame.ts";
import { outerBytes } from "../../src/wire/oxtunnel.ts";
import { RepairReader } from "../../src/wire/repair.ts";

const SECOND = 1_000_000;

Deno.test("repair tally: the share is that of the last second, and none before there was one", () => {
  const tally = new RepairTally();
  tally.repair(false, 1, 1, 150, SECOND, 10 * SECOND);
  tally.datagram(400, 10 * SECOND);
  assertEquals(tally.share, 0);
  for (let i = 1; i <= 64; i++) {
    tally.repair(false, 1, 1, 50, NaN, 10 * SECOND + i * 15_625);
    tally.datagram(250, 10 * SECOND + i * 15_625);
  }
  assertAlmostEquals(tally.share, 0.25, 0.05);
});

Deno.test("repair tally: a copy that comes at once is no spaced one, and five seconds without any are no scheme", () => {
  const tally = new RepairTally();
  tally.repair(false, 1, 1, 50, NaN, 10 * SECOND);
  assertEquals(tally.scheme, "copy");
  for (let i = 0; i < 40; i++) tally.repair(false, 1, 3, 50, NaN, 10 * SECOND);
  assertEquals(tally.scheme, "spaced");
  tally.datagram(250, 16 * SECOND);
  assertEquals(tally.scheme, "none");
});

/** A session that sends, and beside it a tally that knows nothing but the datagrams: when each went out, and its bytes. */
class Sending {
  nowUs = 0;
  counter = 0;
  readonly counted: Record<string, number> = {};
  readonly read = new RepairTally();
  readonly repair: SessionRepair;
  /** Most repairs that one datagram carried. */
  mostAtOnce = 0;
  readonly #sentUs: number[] = [];
  readonly #burst = new Burst(new Arena(1));
  readonly #frames = new FrameReader();
  readonly #frame = new RepairReader();

  constructor(config: Omit<Parameters<typeof repairOptions>[1], "gameDeadlineMs" | "voiceDeadlineMs">) {
    const options = repairOptions(new PortableShardKernel(), {
      gameDeadlineMs: 60,
      voiceDeadlineMs: 100,
      ...config,
    });
    const add = (name: string, amount = 1) => this.counted[name] = (this.counted[name] ?? 0) + amount;
    const pool = new Repairs(options, { add });
    this.repair = new SessionRepair(pool, {
      highestReceived: () => -1,
      roundTripUs: () => -1,
      hasten: () => {},
      speak: () => {},
    });
  }

  /** Lets time pass; repairs go alone when they are due. */
  wait(us: number): void {
    const untilUs = this.nowUs + us, { repair } = this;
    while (repair.dueUs <= untilUs) {
      this.nowUs = Math.max(this.nowUs, repair.dueUs);
      repair.handleTimeout(this.nowUs);
      while (repair.isDue) this.#datagram(0, CLASS_DEFAULT);
    }
    this.nowUs = untilUs;
  }

  send(length: number, trafficClass: number): void {
    if (this.repair.sends(trafficClass)) this.#datagram(length, trafficClass);
  }

  #datagram(length: number, trafficClass: number): void {
    const burst = this.#burst, { repair, counter, nowUs } = this;
    burst.release();
    const row = burst.grow(length, DONE);
    if (length > 0) burst.view.setUint8(burst.offset[row], 0x45);
    burst.trafficClass[row] = trafficClass;
    if (length > 0) repair.ride(burst, row, counter, 1400, nowUs);
    else repair.writeAlone(burst, row, counter, 1400, nowUs);
    if (burst.length[row] === 0) return;
    this.#readFrames(burst, row, burst.length[row] - length);
    this.counter++;
    this.#sentUs[counter] = nowUs;
    burst.counter[row] = counter;
    burst.headerBytes[row] = 6;
    if (length > 0) repair.packetsSent(burst, row, length, nowUs);
    else repair.controlSent(burst, row, true, nowUs);
    this.read.datagram(outerBytes(burst.headerBytes[row], burst.length[row]), nowUs);
  }

  #readFrames({ view, offset }: Burst, row: number, bytes: number): void {
    const { counter } = this, frames = this.#frames, frame = this.#frame;
    const before = this.read.repairs;
    frames.start(offset[row], bytes);
    while (frames.next(view) === FRAME_REPAIR) {
      assert(frame.read(view, frames.at, frames.length, counter));
      const newest = frame.numbers[frame.count - 1];
      const frameBytes = FRAME_HEAD_BYTES + frames.length;
      const sourceUs = this.#sentUs[newest];
      this.read.repair(frame.isBlock, frame.count, counter - newest, frameBytes, sourceUs, this.nowUs);
    }
    this.mostAtOnce = Math.max(this.mostAtOnce, this.read.repairs - before);
  }

  check(): void {
    const { tally } = this.repair.sending!, { read } = this;
    const said = (one: RepairTally) => [
      ...[one.repairs, one.repairBytes, one.bytes, one.sources, one.laterUs, one.share, one.extraRatio],
      ...[one.scheme, one.description, one.schemeAt(this.nowUs + 6 * SECOND)],
    ];
    assertEquals(said(tally), said(read));
    assertEquals(this.counted.repairs_sent ?? 0, read.repairs);
    assertEquals(this.counted.repair_bytes_sent ?? 0, read.repairBytes);
  }
}

Deno.test("repair tally: what the sender counts of what it writes is what its datagrams say", () => {
  const packet = fc.record({
    gapUs: fc.constantFrom(0, 0, 300, 5_000, 15_625, 15_625, 80_000, 400_000),
    length: fc.constantFrom(60, 100, 160, 640, 1_100),
    trafficClass: fc.constantFrom(CLASS_GAME, CLASS_GAME, CLASS_VOICE, CLASS_BULK, CLASS_DEFAULT),
    isReported: fc.boolean(),
    lostEvery: fc.constantFrom(3, 8, 20, 1000),
  });
  const run = fc.record({
    packets: fc.array(packet, { minLength: 120, maxLength: 240 }),
    scheme: fc.constantFrom(...REPAIR_SCHEMES),
    budgetPercent: fc.constantFrom(25, 100),
    trafficAware: fc.boolean(),
  });
  const schemes = new Set<string>();
  let repairs = 0, mostAtOnce = 0;
  const property = fc.property(run, ({ packets, ...config }) => {
    const sending = new Sending(config), report = new Report();
    for (const { gapUs, length, trafficClass, isReported, lostEvery } of packets) {
      sending.wait(gapUs);
      sending.send(length, trafficClass);
      const { sending: side } = sending.repair;
      if (side === undefined) continue;
      sending.check();
      schemes.add(side.tally.scheme);
      if (!isReported || sending.counter === 0) continue;
      report.highest = sending.counter - 1;
      report.bitmapBytes = Math.min(4, report.highest >> 3);
      for (let i = 0; i < report.bitmapBytes; i++) report.bitmap[i] = 0;
      for (let i = 0; i < 8 * report.bitmapBytes; i++) {
        if ((report.highest - 1 - i) % lostEvery !== 0) report.bitmap[i >> 3] |= 1 << (i & 7);
      }
      sending.repair.onReport(report, sending.nowUs);
    }
    repairs += sending.read.repairs;
    mostAtOnce = Math.max(mostAtOnce, sending.mostAtOnce);
  });
  fc.assert(property, { numRuns: 60, seed: 1 });
  assertGreater(repairs, 2_000);
  assertGreater(mostAtOnce, 1);
  for (const scheme of ["none", "copy", "spaced", "window", "block"]) assert(schemes.has(scheme), scheme);
});
