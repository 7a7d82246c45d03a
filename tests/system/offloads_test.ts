/**
 * What the kernel is spared, seen from the kernel's side: a burst to one destination leaves as a few messages and arrives as a few
 * (UDP_SEGMENT, UDP_GRO), and with io_uring a relay worker waits in its ring, which also reads the TUN device. Both work without,
 * only dearer, so no packet that arrives would tell.
 */
import { assert, assertEquals, assertGreater, assertLess } from "@std/assert";
import { loadNative } from "../../ffi/native.ts";
import { uringObstacle } from "../../src/io/uring.ts";
import { requires } from "../kit/requires.ts";
import { type Network, networkTest, SERVER, until } from "../kit/namespaces.ts";

const native = loadNative();
const obstacle = typeof native === "string" ? native : uringObstacle(native);
if (obstacle) console.error(`SKIPPED tests/system/offloads_test.ts, io_uring: ${obstacle}`);
const needs = requires({ root: true, programs: ["ip", "wg", "wg-quick", "wireguard-go", "ping", "strace"] });
const ROWS = 64, BYTES = 1200;
const PINGS = 20;

/** Sends bursts of datagrams of one size from one namespace to the port of another, which says how many have come. */
const port = (io: string, host: string) => `
import { loadNative } from "${new URL("../../ffi/native.ts", import.meta.url)}";
import { openNative } from "${new URL("../../src/io/choose.ts", import.meta.url)}";
import { Arena } from "${new URL("../../src/vector/arena.ts", import.meta.url)}";
import { Burst, TO_TRANSMIT } from "${new URL("../../src/vector/burst.ts", import.meta.url)}";
import { parseAddress } from "${new URL("../../src/wire/address.ts", import.meta.url)}";
const native = loadNative();
const port = openNative({ io: "${io}", reason: "" }, {
  native, host: "${host}", port: 4500, onRefused(count) { throw new Error(count + " refused"); },
});
const burst = new Burst(new Arena(512));
`;

const SENDER = `
for (let i = 0; i < ${ROWS}; i++) {
  const row = burst.grow(${BYTES}, TO_TRANSMIT);
  burst.address.set(parseAddress("${SERVER}"), 4 * row);
  burst.port[row] = 4500;
}
port.transmit(burst);
burst.release();
await port.close();
`;

const RECEIVER = `
console.log("ready");
let received = 0;
while (received < ${ROWS}) {
  received += port.receive(burst);
  burst.release();
  await new Promise((resolve) => setTimeout(resolve, 5));
}
console.log("received " + received);
await port.close();
`;

/** Messages of UDP that sockets of the namespace have sent and taken. */
async function messages(net: Network, name: string): Promise<{ sent: number; taken: number }> {
  const [head, values] = (await net.must(name, ["cat", "/proc/net/snmp"])).split("\n")
    .filter((line) => line.startsWith("Udp: ")).map((line) => line.split(" "));
  const value = (field: string) => Number(values[head.indexOf(field)]);
  return { sent: value("OutDatagrams"), taken: value("InDatagrams") };
}

for (const io of ["mmsg", ...(obstacle ? [] : ["io_uring"])]) {
  networkTest(
    `offloads: with ${io} a burst to one destination is a few messages for the kernel, out and in`,
    { ignore: needs.ignore || typeof native === "string" },
    async (net) => {
      const run = async (name: string, host: string, what: string) => {
        const file = `${net.directory}/${name}.ts`;
        await Deno.writeTextFile(file, port(io, host) + what);
        return net.spawn(name, [Deno.execPath(), "run", "--no-check", "--allow-all", file]);
      };
      const receiver = await run("server", SERVER, RECEIVER);
      await receiver.says("ready");
      const before = [await messages(net, "relay"), await messages(net, "server")];
      const sender = await run("relay", "10.200.0.1", SENDER);
      await receiver.says(`received ${ROWS}`);
      assertEquals([await sender.child.status, await receiver.child.status].map(({ code }) => code), [0, 0]);
      const after = [await messages(net, "relay"), await messages(net, "server")];
      const sent = after[0].sent - before[0].sent, taken = after[1].taken - before[1].taken;
      assertGreater(sent, 0);
      assertLess(sent, ROWS / 8, "UDP_SEGMENT is not used");
      assertGreater(taken, 0);
      assertLess(taken, ROWS / 8, "UDP_GRO is not used");
    },
  );
}

interface Calls {
  /** Reads of the device that brought a packet. */
  reads: number;
  /** Waits outside the ring, by threads that move packets. */
  polls: number;
  ringEnters: number;
}

/** What system calls a relay worker makes while a client pings through it. */
async function callsWhilePinging(net: Network, io: string): Promise<Calls> {
  const client = await net.client(2);
  const relay = await net.relay(
    `io = "${io}"\nexit = "tun"\n[destinations]\nallow = ["10.200.0.0/24"]\n`,
  );
  await net.wireguard(client, await net.addPeer("phone"));
  await until(
    async () => (await net.run(client, ["ping", "-q", "-c", "1", "-w", "5", SERVER])).success,
    "the client is in",
  );
  const trace = `${net.directory}/trace`;
  const events = "trace=read,readv,recvmmsg,poll,ppoll,io_uring_enter";
  const tracer = net.spawn("relay", [
    "strace",
    "-f",
    "-y",
    "-e",
    events,
    "-o",
    trace,
    "-p",
    String(relay.child.pid),
  ]);
  await tracer.says("attached");
  const { stdout } = await net.run(client, [
    "ping",
    "-q",
    "-i",
    "0.1",
    "-c",
    String(PINGS),
    "-w",
    "60",
    SERVER,
  ], {
    timeoutS: 90,
  });
  assert(stdout.includes(` ${PINGS} received`), stdout);
  await tracer.stop("SIGINT");
  const lines = (await Deno.readTextFile(trace)).split("\n");
  const thread = (line: string) => line.split(" ")[0];
  // Threads that move packets; others, as the event loop's, poll as they like.
  const workers = new Set(
    lines.filter((line) => /io_uring_enter\(|recvmmsg\(|\/net\/tun>/.test(line)).map(thread),
  );
  const count = (pattern: RegExp) =>
    lines.filter((line) => workers.has(thread(line)) && pattern.test(line)).length;
  return {
    reads: count(/ readv?\(\d+<\/dev\/net\/tun>.* = [1-9]\d*$/),
    polls: count(/ p?poll\(/),
    ringEnters: count(/ io_uring_enter\(/),
  };
}

networkTest(
  "offloads: with mmsg a relay worker polls and reads the device by itself, as the trace shows",
  needs,
  async (net) => {
    const { reads, polls, ringEnters } = await callsWhilePinging(net, "mmsg");
    // Of calls that others interrupt the trace has two lines, which do not count here.
    assertGreater(reads, 0);
    assertGreater(polls, 0);
    assertEquals(ringEnters, 0);
  },
);

networkTest(
  "offloads: with io_uring a relay worker waits in its ring only, and the ring reads the device",
  { ignore: needs.ignore || obstacle !== undefined },
  async (net) => {
    const { reads, polls, ringEnters } = await callsWhilePinging(net, "io_uring");
    assertGreater(ringEnters, 0);
    assertEquals({ reads, polls }, { reads: 0, polls: 0 });
  },
);
