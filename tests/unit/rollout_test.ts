/** Shares of peers: whose group is which, and what /metrics is told of both. */
import { assert, assertAlmostEquals, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { createRegistry } from "../../src/admin/prometheus.ts";
import { ConfigError, DEFAULTS, parseConfig } from "../../src/config.ts";
import { PARTS, Rollout, ROLLOUT_DEFAULT } from "../../src/control/rollout.ts";
import { Metrics } from "../../src/metrics.ts";
import { IDS_EACH, PEERS_EACH, RolloutMeter } from "../../src/tunnel_rollout.ts";
import { NONE } from "../../src/vector/arena.ts";

const PEERS = 4000;

/** By peer, whether each has the parts at this share. */
function grouped(percent: number) {
  const rollout = new Rollout(PEERS, {
    ...ROLLOUT_DEFAULT,
    scheduler: percent,
    rate_control: percent,
    repair: percent,
    ack_clocking: percent,
    predicted_pacing: percent,
    rate_memory: percent,
  });
  const key = new Uint8Array(32);
  return Array.from({ length: PEERS }, (_, peer) => {
    new DataView(key.buffer).setUint32(8, peer);
    rollout.place(peer, key);
    return PARTS.map((part) => rollout.isOn(part, peer));
  });
}

Deno.test("rollout: the share is kept, stable for a key, growing with the percentage, and independent by part", () => {
  const [none, ten, half, all] = [0, 10, 50, 100].map(grouped);
  const share = (groups: boolean[][], test: (has: boolean[]) => boolean) =>
    groups.filter(test).length / PEERS;
  assertEquals(share(none, ([one]) => one), 0);
  assertEquals(share(all, ([one]) => one), 1);
  assertAlmostEquals(share(ten, ([one]) => one), 0.1, 0.03);
  assertAlmostEquals(share(half, ([one, other]) => one && other), 0.25, 0.03);
  assertEquals(half, grouped(50));
  ten.forEach((has, peer) => has.forEach((is, part) => assert(!is || half[peer][part])));
});

Deno.test("rollout: the configuration has a share for each part, and refuses others", () => {
  const { rolloutPercent } = parseConfig("[rollout_percent]\nrate_control = 25\n", "f", {});
  assertEquals(rolloutPercent, { ...DEFAULTS.rolloutPercent, rate_control: 25 });
  for (const wrong of ["scheduler = 101", "scheduler = -1", "sheduler = 5"]) {
    assertThrows(() => parseConfig(`[rollout_percent]\n${wrong}\n`, "f", {}), ConfigError, "scheduler");
  }
});

Deno.test("rollout: metrics tell both groups of each part apart, and no peer", async () => {
  const metrics = [new Metrics(), new Metrics()];
  for (const each of metrics) {
    each.setRollout(1, 0, 3);
    each.rolledOut(1, 1, 1000, 10, 30_000);
    each.rolledOut(1, 1, 500, 10, -1);
  }
  const about = { name: "oxrelay" as const, version: "1", startedAt: new Date(), exit: "tun", listen: "" };
  const text = await createRegistry(
    metrics,
    () => about,
    () => Promise.resolve({}),
    () => Promise.resolve({ max: 0, peers: [] }),
  ).metrics();
  assertMatch(text, /^oxrelay_rollout_peers\{part="rate_control",group="on"\} 6$/m);
  assertMatch(text, /^oxrelay_rollout_sent_bytes_total\{part="rate_control",group="off"\} 3000$/m);
  assertMatch(text, /^oxrelay_rollout_received_bytes_total\{part="rate_control",group="off"\} 40$/m);
  assertMatch(
    text,
    /^oxrelay_rollout_round_trip_seconds_bucket\{part="rate_control",group="off",le="0\.016"\} 0$/m,
  );
  assertMatch(
    text,
    /^oxrelay_rollout_round_trip_seconds_bucket\{part="rate_control",group="off",le="0\.032"\} 2$/m,
  );
  assertEquals(text.match(/^oxrelay_rollout_peers\{/gm)!.length, 2 * PARTS.length);
});

Deno.test("rollout: a round over many peers takes several calls, and then every peer and byte is counted once", () => {
  const count = 2 * IDS_EACH, metrics = new Metrics();
  const rollout = new Rollout(count, { ...ROLLOUT_DEFAULT, scheduler: 50 });
  const meter = new RolloutMeter(count, rollout, metrics);
  const peers = {
    ids: count,
    current: new Uint32Array(count).fill(NONE),
    bytesSent: new Float64Array(count),
    bytesReceived: new Float64Array(count),
  };
  const key = new Uint8Array(32), connected = 2 * PEERS_EACH + 7, expected = [0, 0];
  for (let peer = 0; peer < count; peer++) {
    new DataView(key.buffer).setUint32(8, peer);
    rollout.place(peer, key);
    if (peer >= connected) continue;
    peers.current[peer] = peer;
    expected[rollout.isOn("scheduler", peer) ? 0 : 1]++;
  }
  const round = () => {
    let calls = 0;
    do {
      const before = metrics.rollout(1, 0).bytesSent;
      meter.take(peers, { oxtunnel: undefined });
      calls++;
      assert(metrics.rollout(1, 0).bytesSent - before <= 10 * PEERS_EACH, "a call's work is bounded");
    } while (meter.isUnderway);
    return calls;
  };
  for (let n = 1; n <= 2; n++) {
    peers.bytesSent.fill(10 * n);
    peers.bytesReceived.fill(3 * n);
    assertEquals(round(), 4);
    for (const group of [0, 1]) {
      const { peers: seen, bytesSent, bytesReceived } = metrics.rollout(0, group);
      const all = expected[group];
      assertEquals([seen, bytesSent, bytesReceived], [all, 10 * n * all, 3 * n * all]);
    }
    assertEquals([metrics.rollout(1, 0).peers, metrics.rollout(1, 1).peers], [connected, 0]);
  }
  peers.current.fill(NONE);
  assertEquals(round(), 2, "ids without a session cost little");
  assertEquals(metrics.rollout(1, 0).peers, 0);
});
