/**
 * The wait in a port's ring against poll(2) over the same descriptors: both must find the same readable, whatever was
 * read, left unread or cleared before, and a sleep must end by news or by its time. Sockets and bells of its own.
 */
import { assert, assertEquals, assertGreaterOrEqual, assertLess, assertThrows } from "@std/assert";
import { loadNative, type Native } from "../../ffi/native.ts";
import { clearBell, closeBells, openBells, ringBell } from "../../src/io/bell.ts";
import { MmsgPort } from "../../src/io/mmsg.ts";
import type { NativePort } from "../../src/io/native_udp.ts";
import { PollSet } from "../../src/io/poll.ts";
import type { WaitSet } from "../../src/io/port.ts";
import { uringObstacle, UringPort } from "../../src/io/uring.ts";
import { waitSetOf } from "../../src/io/wait_set.ts";
import { Arena } from "../../src/vector/arena.ts";
import { Burst, BURST_CAPACITY, TO_TRANSMIT } from "../../src/vector/burst.ts";
import { parseAddress } from "../../src/wire/address.ts";

const HOST = "127.0.0.1";
const STEPS = 4000;
const SLEEP_MS = 60_000;
const PORT = 0, BELL = 1, ABSENT = 2, SOCKET = 3;

const native = loadNative() as Native;
const obstacle = typeof native === "string" ? native : uringObstacle(native);
if (obstacle) console.error(`SKIPPED tests/unit/ring_wait_test.ts: ${obstacle}`);
const ignore = obstacle !== undefined;

const options = { native, host: HOST, port: 0, onRefused: () => {} };

/** The wait in the port's ring, for these descriptors too. */
function join(port: UringPort, descriptors: readonly (number | undefined)[]): WaitSet {
  const others = descriptors.map((descriptor) => descriptor === undefined ? undefined : { descriptor });
  return waitSetOf(port.wait, others);
}

/** The same numbers for the same seed (xorshift32). */
function numbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

function send(from: NativePort, to: NativePort, count: number): void {
  const burst = new Burst(new Arena(BURST_CAPACITY));
  for (let i = 0; i < count; i++) {
    const row = burst.grow(100, TO_TRANSMIT);
    burst.port[row] = to.localPort;
    burst.address.set(parseAddress(HOST)!, 4 * row);
  }
  from.transmit(burst);
  burst.release();
}

/** Takes as many datagrams as there are, or as the arena has slots. */
function take(port: NativePort, slots: number): number {
  const burst = new Burst(new Arena(slots));
  const received = port.receive(burst);
  burst.release();
  return received;
}

for (const deferred of [true, false]) {
  const way = deferred ? "" : ", as before Linux 6.1";

  Deno.test({
    name:
      `ring wait${way}: it finds what poll(2) finds after any sequence of news, reads and reads of a part`,
    ignore,
    async fn() {
      const port = new UringPort({ ...options, deferred });
      const socket = new MmsgPort(options), sender = new MmsgPort(options);
      const bells = openBells(1);
      const random = numbers(0x5eed);
      const ring = join(port, [bells[0], undefined, socket.descriptor]);
      const polled = new PollSet([undefined, bells[0], undefined, socket.descriptor]);
      let unread = 0, found = 0;
      for (let step = 0; step < STEPS; step++) {
        const action = random(8);
        if (action === 0) ringBell(bells[0]);
        if (action === 1) clearBell(bells[0]);
        if (action === 2) send(sender, socket, 1 + random(40));
        // What the library has read and no row has taken is no longer the descriptor's.
        if (action === 3) take(socket, BURST_CAPACITY);
        if (action === 4 && unread < 1000) {
          const count = 1 + random(40);
          send(sender, port, count);
          unread += count;
        }
        if (action === 5) unread -= take(port, 1 + random(20));
        if (action === 6) unread -= take(port, BURST_CAPACITY);
        // A wait that must not sleep may have time to: it would show.
        const isNews = polled.wait(0) > 0 || unread > 0;
        const startMs = performance.now();
        const ready = ring.wait(isNews && random(2) === 0 ? SLEEP_MS : 0);
        assertLess(performance.now() - startMs, SLEEP_MS, `it slept in step ${step}`);
        const seen = [PORT, BELL, ABSENT, SOCKET].map((place) => ring.isReady(place));
        assertEquals(seen[BELL], polled.isReady(BELL), `bell in step ${step}`);
        assertEquals(seen[SOCKET], polled.isReady(SOCKET), `socket in step ${step}`);
        assertEquals(seen[PORT], unread > 0, `port in step ${step}`);
        assert(!seen[ABSENT]);
        assertEquals(ready !== 0, seen.includes(true));
        if (ready !== 0) found++;
      }
      assertGreaterOrEqual(found, STEPS / 4);
      await port.close();
      await socket.close();
      await sender.close();
      closeBells(bells);
    },
  });
}

Deno.test({
  name: "ring wait: a sleep ends by its time, to a fraction of a millisecond, and sleeps",
  ignore,
  async fn() {
    const port = new UringPort(options);
    const [bell] = openBells(1);
    const ring = join(port, [bell]);
    const lastedOf = (ms: number) => {
      const startMs = performance.now();
      assertEquals(ring.wait(ms), 0);
      const lasted = performance.now() - startMs;
      assertGreaterOrEqual(lasted, ms - 0.01);
      return lasted;
    };
    lastedOf(30);
    // The machine may be busy: one of them shows that it can.
    let shortestMs = Infinity;
    for (let i = 0; i < 5000 && shortestMs >= 1; i++) shortestMs = Math.min(shortestMs, lastedOf(0.2));
    assertLess(shortestMs, 1);
    await port.close();
    closeBells([bell]);
  },
});

Deno.test({
  name: "ring wait: what it watched is let go with the port, at once",
  ignore,
  async fn() {
    for (let round = 0; round < 50; round++) {
      const port = new UringPort(options), socket = new MmsgPort(options);
      const { localPort } = socket;
      join(port, [socket.descriptor]).wait(0);
      await socket.close();
      await port.close();
      // Whoever still had the socket would still get a share of what comes for its port.
      const again = new MmsgPort({ ...options, port: localPort }), sender = new MmsgPort(options);
      assertEquals(again.localPort, localPort);
      send(sender, again, 4);
      let taken = 0;
      for (let turn = 0; turn < 100 && taken < 4; turn++) {
        taken += take(again, BURST_CAPACITY);
        if (taken < 4) await new Promise((resolve) => setTimeout(resolve, 1));
      }
      assertEquals(taken, 4, `round ${round}`);
      await again.close();
      await sender.close();
    }
  },
});

Deno.test({
  name: "ring wait: it watches eight and refuses the ninth",
  ignore,
  async fn() {
    const port = new UringPort(options), bells = openBells(9);
    assertThrows(() => join(port, bells), Error, "ox_port_watch failed: errno 28");
    await port.close();
    const other = new UringPort(options);
    const ring = join(other, bells.slice(0, 8));
    assertEquals(ring.wait(0), 0);
    for (const [i, bell] of bells.slice(0, 8).entries()) {
      ringBell(bell);
      assertGreaterOrEqual(ring.wait(1000), 1);
      assert(ring.isReady(1 + i));
    }
    await other.close();
    closeBells(bells);
  },
});
