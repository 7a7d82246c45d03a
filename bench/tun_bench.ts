/**
 * What it costs to wait for a TUN device's packets and to get them into bursts: by poll(2) and readv(2), by a poll in the
 * port's ring and readv(2), and read by the ring. Prints a table of medians; asserts no time. Makes a device and gives it
 * addresses, so it wants root and a network namespace of its own. Run: `deno task bench:tun`
 */
import { libc } from "../ffi/mod.ts";
import { loadNative } from "../ffi/native.ts";
import { openQueues } from "../src/exit/tun/mod.ts";
import { BulkPackets } from "../src/exit/tun/packets.ts";
import { MmsgPort } from "../src/io/mmsg.ts";
import { PollSet } from "../src/io/poll.ts";
import type { WaitSet } from "../src/io/port.ts";
import { UringPort } from "../src/io/uring.ts";
import { Arena } from "../src/vector/arena.ts";
import { Burst, BURST_CAPACITY, TO_TRANSMIT } from "../src/vector/burst.ts";
import { parseAddress } from "../src/wire/address.ts";

const DEVICE = "oxbench0";
const FAR = parseAddress("10.99.0.2")!;
const ROUNDS = 7;
const TURNS = 300;

interface Load {
  name: string;
  packets: number;
  bytes: number;
  /** Packets that the sender makes one super-packet of. */
  run: number;
}

const LOADS: Load[] = [
  { name: "1 of 100 B", packets: 1, bytes: 100, run: 1 },
  { name: "32 of 100 B", packets: 32, bytes: 100, run: 1 },
  { name: "4 super-packets of 13 KB", packets: 40, bytes: 1360, run: 10 },
  { name: "1 of 63 KB", packets: 46, bytes: 1360, run: 46 },
  { name: "16 of 63 KB", packets: 736, bytes: 1360, run: 46 },
];

const median = (values: number[]) => values.sort((a, b) => a - b)[values.length >> 1];
const native = loadNative();
if (typeof native === "string") throw new Error(native);
const options = { native, host: "0.0.0.0", port: 0, onRefused: () => {} };

async function ip(...args: string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command("ip", { args, stderr: "piped" }).output();
  if (!success) throw new Error(`ip ${args.join(" ")}: ${new TextDecoder().decode(stderr)}`);
}

const [fd] = openQueues(DEVICE, native, 1, "it is there already");
await ip("addr", "add", "10.99.0.1/24", "dev", DEVICE);
await ip("link", "set", DEVICE, "mtu", "1420", "up");

const burst = new Burst(new Arena(2 * BURST_CAPACITY));
const whole = new MmsgPort(options), single = new MmsgPort({ ...options, offload: false });

function send({ packets, bytes, run }: Load): void {
  const port = run > 1 ? whole : single;
  for (let sent = 0; sent < packets; sent += run) {
    for (let i = 0; i < run; i++) {
      const row = burst.grow(bytes, TO_TRANSMIT);
      burst.address.set(FAR, 4 * row);
      burst.port[row] = 9;
    }
    port.transmit(burst);
    burst.release();
  }
}

/** ns from before the wait until all is in bursts that made it end at once. */
function measure(packets: BulkPackets, waits: WaitSet, load: Load): number {
  const spentMs: number[] = [];
  for (let turn = 0; turn < TURNS; turn++) {
    send(load);
    const startMs = performance.now();
    for (let left = load.packets; left > 0;) {
      if (waits.wait(1000) === 0) throw new Error(`${left} of ${load.packets} packets are lost`);
      for (let received = BURST_CAPACITY; received === BURST_CAPACITY;) {
        received = packets.receive(burst);
        left -= received;
        burst.release();
      }
    }
    spentMs.push(performance.now() - startMs);
  }
  return median(spentMs) * 1e6;
}

/** One way after the other, since a device that a ring reads is read by nothing else. */
const WAYS: [name: string, open: (packets: BulkPackets, port: UringPort) => WaitSet][] = [
  ["poll(2), readv(2)", (_, port) => new PollSet([port.descriptor, fd])],
  ["the ring polls, readv(2)", (_, port) => port.join([{ descriptor: fd }])],
  ["the ring reads", (packets, port) => {
    const ring = port.join([{ descriptor: fd, device: packets.device }]);
    if (!ring.isReadAhead(1)) throw new Error("the ring cannot read the device: that needs Linux 6.7");
    return ring;
  }],
];

console.log(`| ns | ${LOADS.map(({ name }) => name).join(" | ")} |`);
console.log(`|---${"|---".repeat(LOADS.length)}|`);
const rounds = WAYS.map(() => LOADS.map((): number[] => []));
for (let round = 0; round <= ROUNDS; round++) {
  for (const [way, [, open]] of WAYS.entries()) {
    const packets = new BulkPackets(native, fd), port = new UringPort(options);
    const waits = open(packets, port);
    for (const [column, load] of LOADS.entries()) {
      const ns = measure(packets, waits, load);
      if (round > 0) rounds[way][column].push(ns); // the first warms the JIT
    }
    await port.close();
    packets.close();
  }
}
WAYS.forEach(([name], way) => {
  const cells = rounds[way].map((values) => median(values).toFixed(0));
  console.log(`| ${name} | ${cells.join(" | ")} |`);
});
await whole.close();
await single.close();
libc().close(fd);
