/**
 * Repair on request between whole clients and relays in the deterministic world: what comes back in time where forward repair
 * alone could not, what it costs, and what requests may not do: ask for what was only overtaken, for bulk or in vain, repeat
 * without end, or have more sent than the budget. With requests off the same run fails. Each failure names its seed.
 */
import { assertEquals, assertGreater, assertLess } from "@std/assert";
import { PortableShardKernel } from "../../src/codec/gf256.ts";
import { CLASS_BULK, CLASS_GAME } from "../../src/control/traffic_class.ts";
import { repairOptions } from "../../src/repair/options.ts";
import { burstLoss, type Impairment, jitter, late, Path, randomLoss } from "../kit/channels.ts";
import type { Random } from "../kit/random.ts";
import { play } from "../kit/repair_play.ts";

const SEED = Number(Deno.env.get("SIM_SEED") ?? 1);
const SECOND_US = 1_000_000, ONE_WAY_US = 10_000, DEADLINE_US = 60_000;
/** UDP and IPv4, header and tag, and the inner headers. */
const PROTECTED_BYTES = 28 + 22 + 28;

function options(own: Partial<Parameters<typeof repairOptions>[1]> = {}) {
  return repairOptions(new PortableShardKernel(), {
    budgetPercent: 25,
    gameDeadlineMs: DEADLINE_US / 1000,
    voiceDeadlineMs: 100,
    ...own,
  });
}

const OFF = options({ requests: false });
const lossy = (rate: number) => (random: Random) =>
  new Path(ONE_WAY_US, jitter(random, 1000), randomLoss(random, rate));
const bursty = (random: Random) =>
  new Path(ONE_WAY_US, jitter(random, 1000), burstLoss(random, 0.05, 30_000));
const clean = () => new Path(ONE_WAY_US);
// `play` counts from a path of 20 ms.
const STREAM = { seed: SEED, seconds: 40, deadlineUs: DEADLINE_US - 20_000 + ONE_WAY_US };

Deno.test(`request: with a near relay lost packets come back for a tenth of the bytes, and not with requests off (seed ${SEED})`, () => {
  const none = play(undefined, lossy(0.05), STREAM);
  const on = play(options(), lossy(0.05), STREAM), off = play(OFF, lossy(0.05), STREAM);
  assertGreater(none.residual, 0.035);
  assertLess(on.residual, 0.004);
  assertLess(on.bytes, 1.1 * none.bytes);
  assertGreater(off.residual, 4 * on.residual + 0.004);
  assertGreater(off.bytes, 1.15 * none.bytes);
  const { server, client } = on;
  assertGreater(server.metrics.get("requests_answered"), 50);
  assertGreater(client.metrics.get("answers_sent"), 50);
  assertLess(server.metrics.get("requests_useless"), 5);
  assertEquals(client.core.vitals!.sending!.scheme.slice(0, 10), "on request");
});

Deno.test(`request: bursts are asked for until they end, and every answer comes before the deadline (seed ${SEED})`, () => {
  const none = play(undefined, bursty, STREAM), on = play(options({ budgetPercent: 100 }), bursty, STREAM);
  assertLess(on.residual, 0.35 * none.residual);
  let lateCount = 0;
  for (const [n, us] of on.sentUs.entries()) {
    const tookUs = (on.cameUs[n] ?? Infinity) - us;
    if (tookUs < Infinity && tookUs > ONE_WAY_US + DEADLINE_US + 2_000) lateCount++;
  }
  assertEquals(lateCount, 0);
});

Deno.test(`request: requests that get lost are repeated while there is time (seed ${SEED})`, () => {
  const stream = { ...STREAM, back: lossy(0.3) };
  const on = play(options(), lossy(0.05), stream), none = play(undefined, lossy(0.05), stream);
  assertLess(on.residual, 0.2 * none.residual);
  assertGreater(on.server.metrics.get("requests_sent"), on.server.metrics.get("requests_answered"));
});

Deno.test(`request: what was only overtaken is hardly asked for (seed ${SEED})`, () => {
  const overtaken = (random: Random) => new Path(ONE_WAY_US, late(random, 0.05, 20_000));
  const { server, client, residual } = play(options(), overtaken, STREAM);
  assertEquals(residual, 0);
  // The first are, until it is known how long a datagram may be overtaken.
  assertLess(server.metrics.get("requests_sent"), 15);
  assertLess(client.metrics.get("answers_sent"), 15);
});

Deno.test(`request: nothing is asked for on a clean path, for bulk, or where no answer is in time (seed ${SEED})`, () => {
  const still = play(options(), clean, STREAM);
  const bulk = play(options(), lossy(0.05), { ...STREAM, trafficClass: CLASS_BULK });
  const far = (random: Random) => new Path(40_000, randomLoss(random, 0.05));
  const distant = play(options(), far, { ...STREAM, deadlineUs: DEADLINE_US + 20_000 });
  for (const { server, client } of [still, bulk]) {
    assertEquals(server.metrics.get("requests_sent"), 0);
    assertEquals(client.metrics.get("answers_sent"), 0);
  }
  // The handshake went by a shorter path: some are asked for until it is clear that nothing comes in time.
  assertLess(distant.server.metrics.get("requests_sent"), 110);
  assertEquals(distant.client.metrics.get("answers_sent"), 0);
  assertGreater(distant.client.metrics.get("repairs_sent"), 100);
  assertEquals(still.client.metrics.get("repairs_sent"), 0);
});

Deno.test(`request: in no second are more bytes repair than the budget (seed ${SEED})`, () => {
  const outages: Impairment = {
    delayUs: (nowUs) => nowUs % (2 * SECOND_US) < 150_000 ? Infinity : 0,
  };
  const path = (random: Random) => new Path(ONE_WAY_US, outages, randomLoss(random, 0.15));
  for (const budgetPercent of [10, 25]) {
    const { sentUs, repairBytes, client } = play(options({ budgetPercent }), path, {
      ...STREAM,
      bytesMin: 100,
      bytesMax: 100,
    });
    let most = 0;
    for (let first = 0, last = 0; last < sentUs.length; last++) {
      while (sentUs[last] - sentUs[first] > SECOND_US) first++;
      if (sentUs[last] - sentUs[first] < 0.9 * SECOND_US) continue;
      most = Math.max(
        most,
        (repairBytes[last] - repairBytes[first]) / ((last - first) * (PROTECTED_BYTES + 100)),
      );
    }
    // Of the window's edges one datagram is counted and its repair is not, or the other way round.
    assertLess(most, budgetPercent / 100 + 0.03);
    assertGreater(client.metrics.get("answers_refused"), 10);
  }
});

Deno.test(`request: a stream that pauses is not asked for without end (seed ${SEED})`, () => {
  // A talker: pauses after every packet in eight, by a path that loses a little.
  const { server, sentUs } = play(options(), lossy(0.02), {
    ...STREAM,
    gapUs: 150_000,
    trafficClass: CLASS_GAME,
  });
  assertLess(server.metrics.get("requests_sent"), 0.3 * sentUs.length);
});
