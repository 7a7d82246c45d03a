/**
 * The driver where its thread waits in the port's ring: what driver_test.ts asks of poll(2), in short. A real port and a
 * real relay without peers; the exit's queue is any descriptor.
 */
import { assert, assertEquals, assertGreater, assertLess } from "@std/assert";
import { cString, libc, O_RDWR } from "../../ffi/mod.ts";
import { loadNative, type Native } from "../../ffi/native.ts";
import { TunQueue } from "../../src/exit/tun/mod.ts";
import { closeBells, openBells, ringBell } from "../../src/io/bell.ts";
import { Driver, monotonicUs } from "../../src/io/driver.ts";
import { MmsgPort } from "../../src/io/mmsg.ts";
import type { Mailbox } from "../../src/io/mailbox.ts";
import type { Port } from "../../src/io/port.ts";
import { StreamSide } from "../../src/io/stream_side.ts";
import { uringObstacle, UringPort } from "../../src/io/uring.ts";
import { Metrics } from "../../src/metrics.ts";
import { Arena } from "../../src/vector/arena.ts";
import { Burst, TO_TRANSMIT } from "../../src/vector/burst.ts";
import { parseAddress } from "../../src/wire/address.ts";
import { idleRelay } from "./idle_relay.ts";

const HOST = "127.0.0.1";
const native = loadNative() as Native;
const obstacle = typeof native === "string" ? native : uringObstacle(native);
if (obstacle) console.error(`SKIPPED tests/unit/driver_ring_test.ts: ${obstacle}`);
const ignore = obstacle !== undefined;

/** Runs a driver over this queue until the event loop's first turn after `ms` milliseconds; returns the driver's counters. */
async function run(
  queue: number,
  ms: number,
  { bell, before, wrap = (port) => port }: {
    bell?: number;
    before?: (port: UringPort) => void;
    wrap?: (port: Port) => Port;
  } = {},
) {
  const metrics = new Metrics();
  const arena = new Arena(1024);
  const relay = idleRelay(arena, metrics);
  const port = new UringPort({ native, host: HOST, port: 0, onRefused: () => {} });
  // Of the kind that is read one packet at a time: the ring only watches it.
  const exit = new TunQueue(queue, "a descriptor", "one packet at a time");
  const takenAfter: number[] = [];
  const takeMessages = () => void takenAfter.push(metrics.get("loop_beats"));
  const messages = bell === undefined ? undefined : { bell, takeMessages };
  const driver = new Driver(arena, relay, wrap(port), exit, metrics, undefined, messages);
  before?.(port);
  assert(driver.waits);
  const startUs = monotonicUs();
  driver.start();
  await new Promise((resolve) => setTimeout(resolve, ms));
  const beats = metrics.get("loop_beats"), received = metrics.get("datagrams_received");
  const beatsPerS = beats / (monotonicUs() - startUs) * 1e6;
  await driver.stop();
  await port.close();
  return { beats, beatsPerS, received, takenAfter };
}

Deno.test({
  name: "driver in the ring: without traffic it goes round a few times a second, and timers have their turn",
  ignore,
  async fn() {
    const bells = openBells(1);
    const { beats, beatsPerS } = await run(bells[0], 600);
    assertLess(beatsPerS, 20);
    assertGreater(beats, 1);
    closeBells(bells);
  },
});

Deno.test({
  name: "driver in the ring: a queue that is always ready and never has anything does not make it spin",
  ignore,
  async fn() {
    const fd = libc().open(cString("/dev/null"), O_RDWR);
    assertLess((await run(fd, 600)).beatsPerS, 2000);
    libc().close(fd);
  },
});

Deno.test({
  name: "driver in the ring: a message is taken when the bell rings, and once for each ring",
  ignore,
  async fn() {
    const [queue, bell] = openBells(2);
    ringBell(bell);
    assertEquals((await run(queue, 1, { bell })).takenAfter, [1]);
    closeBells([queue, bell]);
  },
});

Deno.test({
  name: "driver in the ring: what the port has beyond a burst is carried at once",
  ignore,
  async fn() {
    const bells = openBells(1);
    const sender = new MmsgPort({ native, host: HOST, port: 0, onRefused: () => {} });
    const burst = new Burst(new Arena(64));
    const SENT = 1024;
    const before = ({ localPort }: UringPort) => {
      for (let sent = 0; sent < SENT; sent += burst.arena.slotCount) {
        while (burst.arena.free > 0) {
          const row = burst.grow(100, TO_TRANSMIT);
          burst.port[row] = localPort;
          burst.address.set(parseAddress(HOST)!, 4 * row);
        }
        sender.transmit(burst);
        burst.release();
      }
    };
    // All of it before the event loop's second turn; where streams are served too, also.
    for (const wrap of [undefined, (port: Port) => new StreamSide(port, {} as Mailbox, 1)]) {
      assertEquals((await run(bells[0], 1, { before, wrap })).received, SENT);
    }
    await sender.close();
    closeBells(bells);
  },
});
