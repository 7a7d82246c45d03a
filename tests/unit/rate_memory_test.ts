/** Rates that are remembered by network, and rates that fall ahead of predicted losses: when, by how much, and when not. */
import { assertAlmostEquals, assertEquals } from "@std/assert";
import { PathRate } from "../../src/rate/path_rate.ts";
import { Rates } from "../../src/rate/pool.ts";

const PEER = 3, RATE = 1_000_000, MS = 1000, MINUTE = 60_000_000;

/** A pool that remembers, or not, and what it tells of the peer. */
function pool(isRemembered = true) {
  const told: number[] = [];
  const rates = new Rates(
    () => 0.5,
    (_, bytesPerS) => told.push(bytesPerS),
    () => true,
    () => false,
    () => isRemembered,
  );
  /** Finds a rate on the network, and ends. */
  const learn = (network: string, nowUs: number) => {
    const rate = rates.take(PEER, nowUs, network)!;
    rate.bbr.isFullBwReached = true;
    rate.bbr.bw = RATE;
    rates.give(PEER, rate, nowUs, network);
    told.length = 0;
  };
  return { rates, told, learn };
}

Deno.test("rate memory: a transfer begins with the rate that its network had, for ten minutes", () => {
  const { rates, told, learn } = pool();
  learn("home", 0);
  const again = rates.take(PEER, 9 * MINUTE, "home")!;
  assertEquals(told, [again.bytesPerS(9 * MINUTE)], "told at once, before any report");
  assertAlmostEquals(told[0], RATE, 0.1 * RATE);
  rates.give(PEER, again, 9 * MINUTE);
  for (const [network, atUs] of [["elsewhere", 0], ["home", 10 * MINUTE]] as const) {
    const other = rates.take(PEER, atUs, network)!;
    assertEquals(other.bytesPerS(atUs), 0, network);
    rates.give(PEER, other, atUs);
  }
  const neighbour = rates.take(PEER + 1, 1, "home")!;
  assertEquals(neighbour.bytesPerS(1), 0, "another peer's rate there is its own");
  rates.forgetNetworks(PEER + 1);
  const kept = rates.take(PEER, 1, "home")!;
  assertAlmostEquals(kept.bytesPerS(1), RATE, 0.1 * RATE);
  rates.forgetNetworks(PEER);
  assertEquals(rates.take(PEER, 1, "home")!.bytesPerS(1), 0);
});

Deno.test("rate memory: off for who is outside the share, bounded, and nothing is learned before a rate is found", () => {
  const off = pool(false);
  off.learn("home", 0);
  assertEquals(off.rates.take(PEER, 1, "home")!.bytesPerS(1), 0);
  const { rates, learn } = pool();
  for (let i = 0; i <= 1024; i++) learn(`network ${i}`, i);
  for (const [network, bytesPerS] of [["network 0", 0], ["network 1", RATE]] as const) {
    const rate = rates.take(PEER, 2000, network)!;
    assertAlmostEquals(rate.bytesPerS(2000), bytesPerS, 0.1 * bytesPerS);
    rates.give(PEER, rate, 2000);
  }
  rates.give(PEER, rates.take(PEER, 0, "new")!, 0, "new");
  assertEquals(rates.take(PEER, 1, "new")!.bytesPerS(1), 0);
});

/** A path whose datagrams are reported with these round trips, ms, and so many missing in all at each report. */
function reported(rate: PathRate, roundTripsMs: number[], missing: number[]): number {
  let nowUs = MS, counter = 0;
  roundTripsMs.forEach((ms, i) => {
    for (let n = 0; n < 64; n++) rate.sent(counter++, 1200, true, nowUs += 10);
    const report = {
      highest: counter - 1,
      delayUs: 0,
      received: counter - missing[i],
      hasClock: false,
      clock: 0,
    };
    rate.onReport(report, nowUs += ms * MS);
  });
  return nowUs;
}

Deno.test("rate memory: the first losses show that the rate is another", () => {
  const kept = new PathRate(() => 0.5, 0);
  kept.startBytesPerS = RATE;
  reported(kept, [20, 20, 20], [0, 0, 3]);
  assertEquals(kept.startBytesPerS, RATE, "a radio's losses are few");
  const lost = new PathRate(() => 0.5, 0);
  lost.startBytesPerS = RATE;
  reported(lost, [20, 20, 20], [0, 0, 40]);
  assertEquals(lost.startBytesPerS, 0);
});

Deno.test("predicted pacing: the rate falls by half ahead of a certain loss while the queue grows, and only then", () => {
  for (const [roundTrips, share] of [[[20, 20, 20, 30, 40], 0.5], [[20, 20, 40, 40, 30], 1]] as const) {
    const rate = new PathRate(() => 0.5, 0);
    const nowUs = reported(rate, [...roundTrips], [0, 0, 0, 0, 0]);
    rate.bbr.isFullBwReached = true;
    rate.bbr.pacingRate = RATE;
    rate.bbr.pacingGain = 1;
    const without = rate.bytesPerS(nowUs);
    rate.lossAhead = 1;
    assertAlmostEquals(rate.bytesPerS(nowUs) / without, share, 0.01);
  }
});
