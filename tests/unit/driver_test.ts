/**
 * The driver where its thread waits in the kernel: what wakes it, what it leaves for the event loop, and how seldom it
 * looks when there is nothing. A real port and a real relay without peers; the exit's queue is any descriptor.
 */
import { assert, assertEquals, assertGreater, assertLess } from "@std/assert";
import { cString, libc, O_RDWR } from "../../ffi/mod.ts";
import { loadNative } from "../../ffi/native.ts";
import { TunQueue } from "../../src/exit/tun/mod.ts";
import { closeBells, openBells, ringBell } from "../../src/io/bell.ts";
import { Driver, type Messages, monotonicUs } from "../../src/io/driver.ts";
import { MmsgPort } from "../../src/io/mmsg.ts";
import type { Port } from "../../src/io/port.ts";
import { Metrics } from "../../src/metrics.ts";
import { Arena } from "../../src/vector/arena.ts";
import { Burst, BURST_CAPACITY, TO_PARSE, TO_TRANSMIT } from "../../src/vector/burst.ts";
import { parseAddress } from "../../src/wire/address.ts";
import { IDLE_CORE, IDLE_PORT } from "../kit/fakes.ts";
import { idleRelay } from "./idle_relay.ts";

const HOST = "127.0.0.1";
const native = loadNative();
const ignore = typeof native === "string";
if (ignore) console.error(`SKIPPED tests/unit/driver_test.ts: ${native}`);

interface Waiting {
  driver: Driver;
  metrics: Metrics;
  port: MmsgPort;
  exit: AskedQueue;
}

/** Counts how often it is asked. */
class AskedQueue extends TunQueue {
  asked = 0;
  override receive(burst: Burst): number {
    this.asked++;
    return super.receive(burst);
  }
}

/** A driver over a port on loopback and a queue with this descriptor. */
function waiting(queue: number, messages?: Messages): Waiting {
  if (typeof native === "string") throw new Error(native);
  const metrics = new Metrics();
  const arena = new Arena(1024);
  const relay = idleRelay(arena, metrics);
  const port = new MmsgPort({ native, host: HOST, port: 0, onRefused: () => {} });
  const exit = new AskedQueue(queue, "a descriptor", "one packet at a time");
  return { driver: new Driver(arena, relay, port, exit, metrics, undefined, messages), metrics, port, exit };
}

/**
 * Runs the driver for `ms` milliseconds, and for the same time again until `isDone`, 30 s at most; returns how many rounds the
 * driver's loop made.
 */
async function run({ driver, metrics, port }: Waiting, ms: number, isDone = () => true): Promise<number> {
  assert(driver.waits);
  driver.start();
  const endMs = performance.now() + 30_000;
  do await new Promise((resolve) => setTimeout(resolve, ms)); while (!isDone() && performance.now() < endMs);
  const beats = metrics.get("loop_beats");
  await driver.stop();
  await port.close();
  return beats;
}

Deno.test({
  name: "driver: without traffic it goes round a few times a second, and timers have their turn",
  ignore,
  async fn() {
    const bells = openBells(1);
    const startUs = monotonicUs();
    const beats = await run(waiting(bells[0]), 600);
    assertLess(beats / (monotonicUs() - startUs) * 1e6, 20);
    assertGreater(beats, 1);
    closeBells(bells);
  },
});

Deno.test({
  name: "driver: a queue that is always ready and never has anything does not make it spin",
  ignore,
  async fn() {
    const fd = libc().open(cString("/dev/null"), O_RDWR);
    const startUs = monotonicUs();
    const beats = await run(waiting(fd), 600);
    assertLess(beats / (monotonicUs() - startUs) * 1e6, 2000);
    libc().close(fd);
  },
});

Deno.test({
  name:
    "driver: a message is taken when the bell rings, without a turn of the event loop, and once for each ring",
  ignore,
  async fn() {
    const [queue, bell] = openBells(2);
    const takenAfter: number[] = [];
    const self: Waiting = waiting(queue, {
      bell,
      takeMessages: () => void takenAfter.push(self.metrics.get("loop_beats")),
    });
    ringBell(bell);
    await run(self, 1);
    assertEquals(takenAfter, [1]);
    closeBells([queue, bell]);
  },
});

Deno.test({
  name: "driver: what a port has beyond a burst is carried at once, though no descriptor shows it",
  ignore,
  async fn() {
    if (typeof native === "string") return;
    const bells = openBells(1);
    const self = waiting(bells[0]);
    const sender = new MmsgPort({ native, host: HOST, port: 0, onRefused: () => {} });
    const burst = new Burst(new Arena(64));
    const SENT = 1024;
    for (let sent = 0; sent < SENT; sent += burst.arena.slotCount) {
      while (burst.arena.free > 0) {
        const row = burst.grow(100, TO_TRANSMIT);
        burst.port[row] = self.port.localPort;
        burst.address.set(parseAddress(HOST)!, 4 * row);
      }
      sender.transmit(burst);
      burst.release();
    }
    await run(self, 100);
    // All of it before the half second that the loop would wait for a descriptor.
    assertEquals(self.metrics.get("datagrams_received"), SENT);
    await sender.close();
    closeBells(bells);
  },
});

Deno.test({
  name: "driver: a queue that has nothing is not asked because the port has something",
  ignore,
  async fn() {
    if (typeof native === "string") return;
    const DATAGRAMS = 50;
    const bells = openBells(1);
    const self = waiting(bells[0]);
    // Each datagram finds the driver asleep, and wakes it.
    const source = `const socket = Deno.listenDatagram({ transport: "udp", hostname: "${HOST}", port: 0 });
      for (let i = 0; i < ${DATAGRAMS}; i++) {
        await new Promise((resolve) => setTimeout(resolve, 5));
        await socket.send(new Uint8Array(100), { transport: "udp", hostname: "${HOST}", port: ${self.port.localPort} });
      }
      socket.close();
      close();`;
    const sender = new Worker(`data:text/javascript,${encodeURIComponent(source)}`, { type: "module" });
    await run(self, 1200, () => self.metrics.get("datagrams_received") === DATAGRAMS);
    sender.terminate();
    assertEquals(self.metrics.get("datagrams_received"), DATAGRAMS);
    assertLess(self.exit.asked, DATAGRAMS / 2);
    closeBells(bells);
  },
});

Deno.test({
  name: "driver: messages are taken though more arrives all the time than can be carried",
  ignore,
  async fn() {
    const [queue, outer, bell] = openBells(3);
    const port: Port = {
      ...IDLE_PORT,
      wait: { by: "descriptor", descriptor: outer },
      receive: (burst) => {
        burst.growTo(BURST_CAPACITY, TO_PARSE);
        return burst.count;
      },
    };
    let taken = 0;
    const exit = new TunQueue(queue, "a descriptor", "one packet at a time");
    const messages = { bell, takeMessages: () => void taken++ };
    const driver = new Driver(new Arena(512), IDLE_CORE, port, exit, new Metrics(), undefined, messages);
    ringBell(bell);
    driver.start();
    for (let waits = 0; taken === 0 && waits < 30; waits++) {
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
    await driver.stop();
    assertGreater(taken, 0);
    closeBells([queue, outer, bell]);
  },
});
