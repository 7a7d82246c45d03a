/**
 * One exit in a process of its own, so that a test can run it inside a namespace and kill it: opens the exit, sends
 * the pings that its arguments name as inner packets, prints what came of each, and stays until SIGTERM. Usage:
 * exit_child.ts tun|userspace DEVICE [allow=PREFIX]... [[SOURCE>]DESTINATION[,BYTES]]... [raw=NAME:HEX[+HEX]...]...
 */
import { loadNative } from "../../ffi/native.ts";
import { openTun, TunQueue, tunUnavailable } from "../../src/exit/tun/mod.ts";
import { openUserspace } from "../../src/exit/userspace/mod.ts";
import { Metrics } from "../../src/metrics.ts";
import { Arena } from "../../src/vector/arena.ts";
import { Burst, TO_EXIT } from "../../src/vector/burst.ts";
import { formatAddress, isIpv4, parseAddress } from "../../src/wire/address.ts";
import {
  foldSum,
  isFragment,
  readDestination,
  readSource,
  sumWords,
  transportAt,
  transportChecksum,
  writeIpv4Header,
  writeIpv6Header,
} from "../../src/wire/inner.ts";

// A second exit on the host has networks of its own.
const NET = Deno.args[1] === "oxrelay8" ? 98 : 99;
const CLIENT = `10.${NET}.0.2`, CLIENT_V6 = `fd${NET}::2`;
const IDENTIFIER = 0xbeef;
const PONG_WAIT_MS = 2000;
/** For packets to which there may be no answer. */
const RAW_WAIT_MS = 150;
const WATCH_MS = 100;

const [kind, name, ...words] = Deno.args;
const pings = words.filter((word) => !/^(allow|raw)=/.test(word));
const raw = words.filter((word) => word.startsWith("raw=")).map((word) =>
  word.slice("raw=".length).split(":")
);
const prefixes = words.filter((word) => word.startsWith("allow=")).map((word) => word.slice("allow=".length));
const common = {
  ipv4: { address: `10.${NET}.0.1`, prefix: 16 },
  ipv6: { address: `fd${NET}::1`, prefix: 64 },
  mtu: 1420,
  native: loadNative(),
  metrics: new Metrics(),
  log: (level: string, message: string) => console.log(`${level}: ${message}`),
};
const nowUs = () => performance.now() * 1000;

if (kind === "tun") console.log(`obstacle: ${await tunUnavailable()}`);
const device = kind === "tun"
  ? await openTun({ ...common, name, host: { all: false, prefixes }, ownPorts: [4433], listenPort: 4433 })
  : undefined;
const peer = { key: "a", prefixes: [`${CLIENT}/32`, `${CLIENT_V6}/128`] };
await device?.setPeers([peer]);
const exit = device
  ? new TunQueue(device.queues[0], device.description, common.native)
  : openUserspace(common);
const burst = new Burst(new Arena(512));
let readable: () => void = () => {};
exit.onReadable(() => readable());

let closing = false;
Deno.addSignalListener("SIGTERM", async () => {
  closing = true;
  await exit.close();
  await device?.close();
  console.log("closed");
  Deno.exit(0);
});

console.log("open");
for (const [place, ping] of pings.entries()) {
  const [route, size = "56"] = ping.split(",");
  const [destination, source] = route.split(">").reverse();
  console.log(`${ping}: ${await send(source, destination, Number(size), place + 1)}`);
}
for (const [name, packets] of raw) {
  const answers = [];
  for (const hex of packets.split("+")) answers.push(await sendWhole(Uint8Array.fromHex(hex), RAW_WAIT_MS));
  console.log(`raw ${name}: ${answers.find((answer) => answer !== "nothing") ?? "nothing"}`);
}
console.log("idle");

let fault: string | undefined;
setInterval(() => {
  if (closing) return;
  exit.handleTimeout(nowUs());
  device?.look();
  if (device?.fault === fault) return;
  fault = device?.fault;
  console.log(`fault: ${fault ?? "none"}`);
}, WATCH_MS);

/** Sends one echo request; what came back, in words. */
async function send(from: string | undefined, to: string, size: number, sequence: number): Promise<string> {
  const destination = parseAddress(to)!;
  const v4 = isIpv4(destination);
  const source = parseAddress(from ?? (v4 ? CLIENT : CLIENT_V6))!;
  const header = v4 ? 20 : 40;
  const packet = new Uint8Array(header + 8 + size).fill(0x5a);
  const view = new DataView(packet.buffer);
  if (v4) writeIpv4Header(view, 0, packet.length, 1, 0, 1, source[3], destination[3]);
  else writeIpv6Header(view, 0, 8 + size, 58, source, 0, destination, 0);
  view.setUint16(header, v4 ? 0x0800 : 0x8000);
  view.setUint16(header + 2, 0);
  view.setUint16(header + 4, IDENTIFIER);
  view.setUint16(header + 6, sequence);
  const sum = v4
    ? foldSum(sumWords(view, header, 8 + size, 0))
    : transportChecksum(view, 0, header, 8 + size, 58);
  view.setUint16(header + 2, sum);
  return await sendWhole(packet, PONG_WAIT_MS);
}

/** Sends an inner packet; the first ICMP that came back, in words. */
async function sendWhole(packet: Uint8Array, waitMs: number): Promise<string> {
  const row = burst.grow(packet.length, TO_EXIT);
  burst.bytes.set(packet, burst.offset[row]);
  exit.send(burst, nowUs());
  // What the exit turned around comes back in the same row.
  const refused = describe();
  burst.release();
  if (refused !== undefined) return refused;
  const end = performance.now() + waitMs;
  while (performance.now() < end) {
    exit.receive(burst, nowUs());
    const answer = describe();
    burst.release();
    if (answer !== undefined) return answer;
    // The wake is what is on trial: polling would hide one that never comes.
    const woken = await new Promise<boolean>((resolve) => {
      const timer = setTimeout(() => resolve(false), end - performance.now());
      readable = () => {
        clearTimeout(timer);
        resolve(true);
      };
    });
    if (!woken) break;
  }
  return "nothing";
}

/** The first ICMP packet of the burst that is for the client, in words; an echo reply must be its own request's. */
function describe(): string | undefined {
  const { view, offset, length } = burst;
  for (let row = 0; row < burst.count; row++) {
    if (burst.next[row] === TO_EXIT || length[row] === 0 || burst.next[row] < 8) continue;
    const at = offset[row];
    const words = new Uint32Array(8);
    readSource(view, at, words, 0);
    readDestination(view, at, words, 4);
    if (![CLIENT, CLIENT_V6].includes(formatAddress(words, 4))) continue;
    const icmp = transportAt(view, at, length[row]);
    const [type, code] = [view.getUint8(icmp), view.getUint8(icmp + 1)];
    const from = formatAddress(words, 0);
    if (type !== 0 && type !== 129) return `ICMP ${type}/${code} from ${from}`;
    if (isFragment(view, at, length[row])) return `a pong in fragments from ${from}`;
    const segment = at + length[row] - icmp;
    const sum = type === 0
      ? foldSum(sumWords(view, icmp, segment, 0))
      : transportChecksum(view, at, icmp, segment, 58);
    if (sum !== 0) return `a pong with a wrong checksum from ${from}`;
    if (view.getUint16(icmp + 4) !== IDENTIFIER) return `a pong with another identifier from ${from}`;
    return `pong ${view.getUint16(icmp + 6)} of ${segment - 8} bytes from ${from}`;
  }
}
