/** Series of single devices: who gets one, that their number is bounded, and that no counter falls whatever happens to a device. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { Registry } from "prom-client";
import { addDevices, DeviceSeries, OTHERS } from "../../src/admin/device_metrics.ts";
import type { PeerSnapshot } from "../../src/session/peer_record.ts";

const peer = (name: string, bytes: number, more: Partial<PeerSnapshot> = {}): PeerSnapshot => ({
  name,
  publicKey: `key of ${name}`,
  allowedIps: [],
  connected: true,
  bytesReceived: bytes,
  bytesSent: 2 * bytes,
  drops: 0,
  ...more,
});

const received = (series: DeviceSeries) =>
  Object.fromEntries([...series.all()].map(([device, { total }]) => [device, total.bytesReceived]));

Deno.test("device metrics: the devices that move most get series, all others share one", () => {
  const series = new DeviceSeries();
  series.take([peer("a", 10), peer("b", 30), peer("c", 20), peer("idle", 0)], 2);
  assertEquals(received(series), { b: 30, c: 20, [OTHERS]: 10 });
  const others = [...series.all()].at(-1)![1];
  assertEquals([others.connected, others.rttS], [2, undefined]);
  // A place is kept: who overtakes later has to wait until one is free.
  series.take([peer("a", 1000), peer("b", 31), peer("c", 20)], 2);
  assertEquals(received(series), { b: 31, c: 20, [OTHERS]: 1000 });
  series.take([peer("a", 1001), peer("c", 20)], 2);
  assertEquals(
    received(series),
    { c: 20, a: 1, [OTHERS]: 1031 },
    "what others had together is not taken away, and what the removed device had is added",
  );
});

Deno.test("device metrics: counters never fall, and the same snapshot counts once", () => {
  const series = new DeviceSeries();
  const snapshot = [peer("a", 100), peer("b", 50)];
  series.take(snapshot, 1);
  series.take(snapshot, 1);
  assertEquals(received(series), { a: 100, [OTHERS]: 50 });
  // Both were counted from zero again.
  series.take([peer("a", 7), peer("b", 5)], 1);
  assertEquals(received(series), { a: 107, [OTHERS]: 55 });
  let last = received(series);
  for (let round = 0; round < 200; round++) {
    const peers = Array.from(
      { length: 5 },
      (_, i) => peer(`p${(round + i) % 9}`, (round * 7919 + i * 104729) % 1000),
    );
    series.take(peers, 3);
    const now = received(series);
    assert(Object.keys(now).length <= 4, "bounded");
    for (const [device, count] of Object.entries(now)) {
      if (device === OTHERS) assert(count >= last[OTHERS], `${round}: the others' counter falls`);
    }
    last = now;
  }
  series.clear();
  assertEquals(received(series), { [OTHERS]: 0 });
});

Deno.test("device metrics: no sum falls when a device is removed or fewer may have series", () => {
  const series = new DeviceSeries();
  series.take([peer("a", 100, { drops: 3 }), peer("b", 50), peer("c", 20)], 3);
  series.take([peer("a", 100, { drops: 3 }), peer("b", 50), peer("c", 21)], 2);
  assertEquals(received(series), { a: 100, b: 50, [OTHERS]: 21 });
  series.take([peer("b", 52), peer("c", 21)], 2);
  // c gets the free place and counts from there on.
  assertEquals(received(series), { b: 52, c: 0, [OTHERS]: 121 });
  const { bytesSent, drops } = [...series.all()].at(-1)![1].total;
  assertEquals([bytesSent, drops], [242, 3]);
});

Deno.test("device metrics: what is only true of a connected device is gone with its session", () => {
  const series = new DeviceSeries();
  series.take([peer("a", 1, { rttMs: 20, lossRatio: 0.5 })], 1);
  const of = () => [...series.all()][0][1];
  assertEquals([of().connected, of().rttS, of().lossRatio], [1, 0.02, 0.5]);
  series.take([peer("a", 1, { rttMs: 20, lossRatio: 0.5, connected: false })], 1);
  assertEquals([of().connected, of().rttS, of().lossRatio], [0, undefined, undefined]);
});

Deno.test("device metrics: all metrics of a scrape share one answer, which is folded once, and a failure is one scrape's", async () => {
  const registry = new Registry();
  let asked = 0, isBroken = false;
  addDevices(registry, () => {
    asked++;
    if (isBroken) return Promise.reject(new Error("no snapshot"));
    return Promise.resolve({ max: 1, peers: [peer("a", 100 * asked)] });
  });
  for (let scrape = 1; scrape <= 3; scrape++) {
    const text = await registry.metrics();
    assertEquals(asked, scrape);
    assert(text.includes(`oxrelay_device_received_bytes_total{device="a"} ${100 * scrape}`), text);
    assert(text.includes(`oxrelay_device_connected{device="a"} 1`), text);
  }
  isBroken = true;
  await assertRejects(() => registry.metrics(), Error, "no snapshot");
  isBroken = false;
  assert((await registry.metrics()).includes('{device="a"} 500'));
});
