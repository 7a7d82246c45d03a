/** Which rate counts for a peer, and whose it is said to be. */
import { assertEquals } from "@std/assert";
import { CODEL } from "../../src/queue/codel.ts";
import { PeerRates } from "../../src/queue/peer_rates.ts";
import { Queues } from "../../src/queue/queues.ts";
import { Arena } from "../../src/vector/arena.ts";

const PEER = 3, MBIT = 1_000_000, NOW = 1000;

/** Rates of peers in front of queues with this configured rate, bits a second. */
function made(configBps = 0) {
  const queues = new Queues(new Arena(64), {
    ...CODEL,
    bytesPerS: configBps / 8,
    findsRates: true,
    packets: 64,
    flows: 64,
    peers: 8,
    ecn: true,
    gameDeadlineUs: 60_000,
    voiceDeadlineUs: 100_000,
    waited: () => {},
    lost: () => {},
    marked: () => {},
  });
  return { queues, rates: new PeerRates(8, queues, undefined, 0) };
}

Deno.test("peer rates: a found rate above the record's is the record's, whatever the rate, in whole bits", () => {
  for (let mbit = 1; mbit <= 1000; mbit++) {
    const { rates } = made();
    rates.setRecord(PEER, { rateDownBps: mbit * MBIT }, NOW);
    rates.found(PEER, 2 * mbit * MBIT, NOW);
    assertEquals(rates.shaping(PEER), { bps: mbit * MBIT, by: "record" });
  }
});

Deno.test("peer rates: each rate is said to be of who set it, and none after it was taken back", () => {
  const { rates } = made(50 * MBIT);
  assertEquals(rates.shaping(PEER), { bps: 50 * MBIT, by: "config" });
  rates.found(PEER, 1_000_000.3, NOW);
  assertEquals(rates.shaping(PEER), { bps: 8_000_002, by: "found" });
  rates.told(PEER, 10 * MBIT / 8, NOW);
  assertEquals(rates.shaping(PEER), { bps: 10 * MBIT, by: "peer" });
  rates.told(PEER, 0, NOW);
  assertEquals(rates.shaping(PEER), { bps: 50 * MBIT, by: "config" });
  const none = made();
  none.rates.told(PEER, 10 * MBIT / 8, NOW);
  none.rates.told(PEER, 0, NOW);
  assertEquals(none.rates.shaping(PEER), undefined);
});

Deno.test("peer rates: a peer that asks for next to nothing is still sent 64 kbit/s, and none is no wish", () => {
  const { rates } = made();
  for (const bps of [1, 1000, 63_999]) {
    rates.told(PEER, bps / 8, NOW);
    assertEquals(rates.shaping(PEER), { bps: 64_000, by: "peer" });
  }
  rates.told(PEER, 65_000 / 8, NOW);
  assertEquals(rates.shaping(PEER), { bps: 65_000, by: "peer" });
  rates.told(PEER, 0, NOW);
  assertEquals(rates.shaping(PEER), undefined);
});

Deno.test("peer rates: who had no line for a while has the rate again that it asked for, before or meanwhile", () => {
  for (const isBefore of [true, false]) {
    const { rates, queues } = made();
    const tell = () => rates.told(PEER, 10 * MBIT / 8, NOW);
    if (isBefore) tell();
    rates.setExempt(PEER, true, NOW);
    assertEquals([queues.bounds(PEER), rates.shaping(PEER)], [false, undefined]);
    if (!isBefore) tell();
    assertEquals(queues.bounds(PEER), false);
    rates.setExempt(PEER, false, NOW);
    assertEquals(rates.shaping(PEER), { bps: 10 * MBIT, by: "peer" });
  }
});

Deno.test("peer rates: what a peer asked for ends with its protocol, a found rate does not", () => {
  const { rates } = made();
  rates.told(PEER, 10 * MBIT / 8, NOW);
  rates.endTold(PEER, NOW);
  assertEquals(rates.shaping(PEER), undefined);
  rates.found(PEER, MBIT, NOW);
  rates.endTold(PEER, NOW);
  assertEquals(rates.shaping(PEER), { bps: 8 * MBIT, by: "found" });
});
