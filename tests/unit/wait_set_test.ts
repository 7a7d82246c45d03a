/**
 * What a thread waits in, by the way that a port names: ports that are looked at, which nothing wakes for, and the choice
 * among the ways. Stand-ins for ports, real bells; the ring's own wait is ring_wait_test.ts's.
 */
import { assert, assertEquals, assertLess, assertLessOrEqual } from "@std/assert";
import type { Core } from "../../src/carry.ts";
import { TunQueue } from "../../src/exit/tun/mod.ts";
import { clearBell, closeBells, openBells, ringBell } from "../../src/io/bell.ts";
import { Driver } from "../../src/io/driver.ts";
import type { Port, PortWait } from "../../src/io/port.ts";
import { PORT_PLACE, waitSetOf } from "../../src/io/wait_set.ts";
import { Metrics } from "../../src/metrics.ts";
import { Arena } from "../../src/vector/arena.ts";
import { type Burst, TO_PARSE } from "../../src/vector/burst.ts";

const SLEEP_MS = 60_000;
const ignore = Deno.build.os !== "linux";

/** A port that is looked at: it has something from look number `after` on. */
function looking(after: number, restUs: number): { wait: PortWait; looks: () => number } {
  let looks = 0;
  return { wait: { by: "looking", hasArrived: () => ++looks >= after, restUs }, looks: () => looks };
}

Deno.test({
  name: "wait set: a port that is looked at is looked at until it has something, and no oftener",
  ignore,
  fn() {
    const { wait, looks } = looking(500, 0);
    const set = waitSetOf(wait, [undefined]);
    assertEquals([set.wait(0), set.isReady(PORT_PLACE), looks()], [0, false, 1]);
    assertEquals([set.wait(SLEEP_MS), set.isReady(PORT_PLACE), looks()], [1, true, 500]);
    assertEquals([set.wait(0), looks()], [1, 501], "it is ready for as long as it has something");
    assert(!set.isReady(1), "a place without a descriptor");
  },
});

Deno.test({
  name: "wait set: others' descriptors are seen beside a port that is looked at, and end its rest",
  ignore,
  fn() {
    const bells = openBells(2);
    const startMs = performance.now();
    // Nothing arrives, and between two looks it would rest for longer than the test may take.
    const set = waitSetOf(looking(Infinity, SLEEP_MS * 1000).wait, [
      { descriptor: bells[0] },
      undefined,
      { descriptor: bells[1] },
    ]);
    for (const place of [1, 3]) {
      ringBell(bells[place === 1 ? 0 : 1]);
      assertEquals(set.wait(SLEEP_MS), 1);
      assertEquals([0, 1, 2, 3].map((at) => set.isReady(at)), [0, 1, 2, 3].map((at) => at === place));
      clearBell(bells[place === 1 ? 0 : 1]);
    }
    assertLess(performance.now() - startMs, SLEEP_MS);
    // And they are seen where the port has something all the time.
    const busy = waitSetOf(looking(0, 0).wait, [{ descriptor: bells[0] }]);
    ringBell(bells[0]);
    assertEquals([busy.wait(SLEEP_MS), busy.isReady(PORT_PLACE), busy.isReady(1)], [2, true, true]);
    closeBells(bells);
  },
});

Deno.test({
  name: "wait set: between two looks it sleeps as long as the port allows, and a wait ends by its time",
  ignore,
  fn() {
    const { wait, looks } = looking(Infinity, 2000);
    assertEquals(waitSetOf(wait, []).wait(40), 0);
    // A slow machine looks less often, never oftener: each rest lasts 2 ms at least. The last look may follow a short one.
    assertLessOrEqual(looks(), 22);
  },
});

Deno.test({
  name: "driver: a port that nothing wakes for is carried as others are",
  ignore,
  async fn() {
    const [queue] = openBells(1);
    const arrived: number[] = [];
    const port: Port = {
      description: "looked at",
      localPort: 0,
      wait: { by: "looking", hasArrived: () => arrived.length > 0, restUs: 100 },
      receive(burst: Burst) {
        for (const bytes of arrived) burst.grow(bytes, TO_PARSE);
        return arrived.splice(0).length;
      },
      transmit: () => {},
      onReadable: () => {},
      close: () => {},
    };
    const seen: number[] = [];
    const core: Core = {
      ingest: ({ count, length }) => {
        for (let row = 0; row < count; row++) seen.push(length[row]);
        if (seen.length < 300) arrived.push(100 + seen.length);
      },
      ingestRest: () => 0,
      isBehind: false,
      serveExit: () => 0,
      serveTunnel: () => 0,
      ingestInner: () => {},
      pollTransmit: () => 0,
      pollTimeout: () => Infinity,
      handleTimeout: () => {},
      setWallClock: () => {},
    };
    const exit = new TunQueue(queue, "a descriptor", "one packet at a time");
    const driver = new Driver(new Arena(64), core, port, exit, new Metrics());
    assert(driver.waits);
    arrived.push(100);
    driver.start();
    const endMs = performance.now() + SLEEP_MS;
    while (seen.length < 300 && performance.now() < endMs) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    await driver.stop();
    assertEquals(seen, Array.from({ length: 300 }, (_, i) => 100 + i));
    await exit.close();
    closeBells([queue]);
  },
});
