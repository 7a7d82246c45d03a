/**
 * The driver and what the core turns around: errors for senders behind the exit, and packets of another Worker's peers, get
 * where they go, also where nothing else is to be carried. Port, exit and core are stand-ins; the clock is real.
 */
import { assertEquals } from "@std/assert";
import type { Core } from "../../src/carry.ts";
import type { Exit } from "../../src/exit/exit.ts";
import { Driver } from "../../src/io/driver.ts";
import type { Mailbox } from "../../src/io/mailbox.ts";
import type { Port } from "../../src/io/port.ts";
import { Metrics } from "../../src/metrics.ts";
import { Arena } from "../../src/vector/arena.ts";
import {
  type Burst,
  DONE,
  TO_EXIT,
  TO_PARSE,
  TO_TRANSMIT,
  TO_TUNNEL,
  TO_WORKER,
} from "../../src/vector/burst.ts";
import { IDLE_CORE, IDLE_EXIT, IDLE_PORT } from "../kit/fakes.ts";

/** Lengths of what went where. */
interface Carried {
  exit: number[];
  port: number[];
  worker: number[];
}

/** Runs one turn of a driver whose core is `core`; the port brings `fromPort` packets, the exit `fromExit`. */
async function carried(core: Partial<Core>, { fromPort = 0, fromExit = 0 }): Promise<Carried> {
  const found: Carried = { exit: [], port: [], worker: [] };
  const take = (burst: Burst, step: number, into: number[]) => {
    for (let row = 0; row < burst.count; row++) {
      if (burst.next[row] !== step) continue;
      into.push(burst.length[row]);
      burst.next[row] = DONE;
    }
  };
  const bring = (burst: Burst, packets: number, step: number) => {
    for (let i = 0; i < packets; i++) burst.grow(100 + i, step);
    return packets;
  };
  const port: Port = {
    ...IDLE_PORT,
    receive: (burst) => bring(burst, fromPort, TO_PARSE) - (fromPort = 0),
    transmit: (burst) => take(burst, TO_TRANSMIT, found.port),
  };
  const exit: Exit = {
    ...IDLE_EXIT,
    send: (burst) => take(burst, TO_EXIT, found.exit),
    receive: (burst) => bring(burst, fromExit, TO_TUNNEL) - (fromExit = 0),
  };
  const mailbox = {
    receive: () => 0,
    send: (burst: Burst) => take(burst, TO_WORKER, found.worker),
    onReadable() {},
  } as unknown as Mailbox;
  const arena = new Arena(64);
  const metrics = new Metrics(), packets = fromPort + fromExit;
  const driver = new Driver(arena, { ...IDLE_CORE, ...core }, port, exit, metrics, mailbox);
  driver.start();
  await driver.stop();
  assertEquals(arena.free, arena.slotCount);
  const sum = (counts: number[]) => counts.reduce((total, count) => total + count, 0);
  assertEquals(sum(metrics.processing().packets), packets, "each packet's time here is counted");
  assertEquals(sum(driver.processing.counts(0)), packets);
  return found;
}

/** Turns every second packet around, or all of them. */
const turning = (every: number) => (burst: Burst) => {
  for (let row = 0; row < burst.count; row++) {
    if (burst.next[row] === TO_TUNNEL) burst.next[row] = row % every === 0 ? TO_EXIT : TO_TRANSMIT;
  }
};

Deno.test("driver: what is turned around goes back to the exit, alone or beside datagrams", async () => {
  const none = { exit: [], port: [], worker: [] };
  assertEquals(await carried({ ingestInner: turning(1) }, { fromExit: 1 }), { ...none, exit: [100] });
  assertEquals(await carried({ ingestInner: turning(2) }, { fromExit: 3 }), {
    ...none,
    exit: [100, 102],
    port: [101],
  });
});

Deno.test("driver: the same of what the exit itself has refused, and of what waited for a handshake", async () => {
  let sends = 0;
  const ingest = (burst: Burst) => burst.next.fill(TO_EXIT, 0, burst.count);
  // The exit takes the first look; what the core makes of it afterwards is for the exit again.
  const ingestInner = (burst: Burst) => void (sends++ === 0 && (burst.next[0] = TO_EXIT));
  const none = { exit: [], port: [], worker: [] };
  assertEquals(await carried({ ingest, ingestInner }, { fromPort: 1 }), { ...none, exit: [100, 100] });
  const steps = [TO_EXIT, TO_WORKER, TO_TRANSMIT];
  const pollTransmit = (burst: Burst) => {
    for (const step of steps.splice(0, 1)) burst.grow(60 + step, step);
    return burst.count;
  };
  assertEquals(await carried({ pollTransmit }, {}), {
    exit: [60 + TO_EXIT],
    port: [60 + TO_TRANSMIT],
    worker: [60 + TO_WORKER],
  });
});
