/**
 * The controller of loss repair between whole clients and relays, with reports as they really come: how fast it answers a
 * step of loss, that it stays where it is, and that it comes down again. Each failure names its seed.
 */
import { assert, assertGreater, assertLess } from "@std/assert";
import { PortableShardKernel } from "../../src/codec/gf256.ts";
import { repairOptions } from "../../src/repair/options.ts";
import {
  burstLoss,
  CONGESTION,
  congestion,
  HANDOVER,
  handover,
  type Impairment,
  Path,
  randomLoss,
} from "../kit/channels.ts";
import { type Outcome, play } from "../kit/repair_play.ts";
import type { Random } from "../kit/random.ts";

const SECOND_US = 1_000_000;
const SEED = Number(Deno.env.get("SIM_SEED") ?? 1);
const SEEDS = [SEED, SEED + 1, SEED + 2];
const ONE_WAY_US = 20_000, RTT_US = 2 * ONE_WAY_US;
/** What one packet of the streams below takes with all headers, on average. */
const DATAGRAM_BYTES = 50 + 28 + 80;
const STREAM = { bytesMin: 60, bytesMax: 100 };
const clean = () => new Path(ONE_WAY_US);

function options(own: Partial<Parameters<typeof repairOptions>[1]> = {}) {
  return repairOptions(new PortableShardKernel(), {
    budgetPercent: 25,
    gameDeadlineMs: 60,
    voiceDeadlineMs: 100,
    requests: false,
    ...own,
  });
}

/** Something that happens to a path between two times, and the times of what it took. */
function between(fromUs: number, toUs: number, part: Impairment, lostUs: number[] = []): Impairment {
  return {
    delayUs(nowUs, bytes) {
      const delayUs = part.delayUs(nowUs, bytes);
      if (nowUs < fromUs || nowUs >= toUs) return 0;
      if (delayUs === Infinity) lostUs.push(nowUs);
      return delayUs;
    },
  };
}

/** Bytes of repair for each byte protected between two times of the world's clock. */
function shareOf({ sentUs, repairBytes }: Outcome, fromUs: number, toUs: number): number {
  const first = sentUs.findIndex((us) => us >= fromUs), last = sentUs.findLastIndex((us) => us < toUs);
  return (repairBytes[last] - repairBytes[first]) / ((last - first) * DATAGRAM_BYTES);
}

Deno.test(`repair control: within three round trips of the first loss it sends what losses ask for (seed ${SEED})`, () => {
  for (const seed of SEEDS) {
    const lostUs: number[] = [];
    const path = (random: Random) =>
      new Path(ONE_WAY_US, between(8 * SECOND_US, Infinity, randomLoss(random, 0.1), lostUs));
    const outcome = play(options(), path, { ...STREAM, seconds: 12, seed, back: clean });
    const [firstUs] = lostUs;
    assertLess(shareOf(outcome, firstUs - 4 * SECOND_US, firstUs), 0.02, `seed ${seed}: before`);
    // A repair must be saved up for first: three packets and a half.
    const answeredUs = firstUs + 3 * RTT_US;
    assertGreater(shareOf(outcome, answeredUs, answeredUs + 250_000), 0.12, `seed ${seed}: after`);
  }
});

Deno.test(`repair control: while losses stay as they are so does what it sends, and when they end it ends (seed ${SEED})`, () => {
  for (const seed of SEEDS) {
    const path = (random: Random) =>
      new Path(ONE_WAY_US, between(4 * SECOND_US, 34 * SECOND_US, randomLoss(random, 0.05)));
    const outcome = play(options(), path, { ...STREAM, seconds: 70, seed, back: clean });
    for (let second = 7; second < 34; second++) {
      const share = shareOf(outcome, second * SECOND_US, (second + 1) * SECOND_US);
      assert(share > 0.15 && share < 0.27, `seed ${seed}: second ${second}: ${share}`);
    }
    assertLess(shareOf(outcome, 64 * SECOND_US, 71 * SECOND_US), 0.02, `seed ${seed}: half a minute later`);
  }
});

Deno.test(`repair control: a bottleneck whose queue drops gets none, as many losses without a queue do (seed ${SEED})`, () => {
  const queue = (random: Random) =>
    new Path(ONE_WAY_US, congestion(random, { ...CONGESTION, busyLoad: 1.6 }));
  const stream = { ...STREAM, seconds: 60, seed: SEED, back: clean };
  const congested = play(options({ budgetPercent: 100 }), queue, stream);
  const lost = 1 - Object.keys(congested.cameUs).length / congested.sent;
  assertGreater(lost, 0.004, "the queue drops");
  const radio = play(
    options({ budgetPercent: 100 }),
    (random) => new Path(ONE_WAY_US, randomLoss(random, lost)),
    stream,
  );
  const share = (outcome: Outcome) => shareOf(outcome, 8 * SECOND_US, 62 * SECOND_US);
  assertLess(share(congested), 0.04);
  assertGreater(share(radio), 5 * share(congested));
});

Deno.test(`repair control: 5 % lost in bursts of 30 ms, at most as many bytes again (seed ${SEED})`, () => {
  let residual = 0, lost = 0;
  for (const seed of SEEDS) {
    const path = (random: Random) => new Path(ONE_WAY_US, burstLoss(random, 0.05, 30_000));
    const stream = { ...STREAM, seconds: 60, seed, back: clean };
    const off = play(undefined, path, stream), on = play(options({ budgetPercent: 100 }), path, stream);
    assertLess(on.bytes, 2 * off.bytes, `seed ${seed}`);
    residual += on.residual / SEEDS.length;
    lost += off.residual / SEEDS.length;
  }
  // No repair in time brings back what is lost in bursts that go on for the whole deadline: e^-2 of it, or 0.135.
  assertLess(residual, 0.3 * lost);
});

Deno.test(`repair control: what outages lose comes back as far as it is still in time when they end (seed ${SEED})`, () => {
  let on = 0, off = 0;
  for (const seed of SEEDS) {
    const path = (random: Random) => new Path(ONE_WAY_US, handover(random, HANDOVER));
    const stream = { ...STREAM, seconds: 60, seed, back: clean };
    off += play(undefined, path, stream).residual;
    on += play(options({ budgetPercent: 100 }), path, stream).residual;
  }
  // An outage of 50 to 150 ms, and 25 ms of delay behind it: a third of the packets are young enough.
  assertLess(on, 0.85 * off);
});

Deno.test(`repair control: between outages that growing delays foretell it rests, and not without prediction (seed ${SEED})`, () => {
  let foreseen = 0, blind = 0, left = 0, leftBlind = 0;
  for (const seed of SEEDS) {
    const path = (random: Random) => new Path(ONE_WAY_US, handover(random, HANDOVER));
    const stream = { ...STREAM, seconds: 60, seed, back: clean };
    const share = (outcome: Outcome) => shareOf(outcome, 20 * SECOND_US, 60 * SECOND_US);
    const on = play(options({ budgetPercent: 100 }), path, stream);
    const off = play(options({ budgetPercent: 100, proactive: false }), path, stream);
    foreseen += share(on);
    blind += share(off);
    left += on.residual;
    leftBlind += off.residual;
  }
  assertLess(foreseen, 0.5 * blind);
  assertLess(left, 1.1 * leftBlind);
});

Deno.test(`repair control: where reports have ceased it sends the probe and no more (seed ${SEED})`, () => {
  const path = (random: Random) => new Path(ONE_WAY_US, randomLoss(random, 0.05));
  const back = () =>
    new Path(ONE_WAY_US, between(12 * SECOND_US, 12.65 * SECOND_US, { delayUs: () => Infinity }));
  const outcome = play(options(), path, { ...STREAM, seconds: 20, seed: SEED, back });
  assertGreater(shareOf(outcome, 8 * SECOND_US, 12 * SECOND_US), 0.2, "before");
  assertLess(shareOf(outcome, 12.45 * SECOND_US, 12.65 * SECOND_US), 0.09, "meanwhile");
  assertGreater(shareOf(outcome, 14 * SECOND_US, 18 * SECOND_US), 0.2, "after");
});
