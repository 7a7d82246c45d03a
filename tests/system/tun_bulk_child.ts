/**
 * Stands in for the relay's whole middle: two TUN devices, the second in another namespace, and every packet of either
 * carried to the other through bursts. What the kernels hand over and what passes here is printed every 100 ms. Usage:
 * tun_bulk_child.ts native|ring|portable NAMESPACE_OF_THE_SECOND; with "ring" the ring of an io_uring port reads the first
 * device, and watches the second
 */
import { setImmediate } from "node:timers";
import { cString, libc, O_CLOEXEC, O_NONBLOCK, O_RDWR } from "../../ffi/mod.ts";
import { loadNative } from "../../ffi/native.ts";
import { BulkPackets, type Packets, SinglePackets } from "../../src/exit/tun/packets.ts";
import { PollSet } from "../../src/io/poll.ts";
import type { WaitSet } from "../../src/io/port.ts";
import { UringPort } from "../../src/io/uring.ts";
import { Arena } from "../../src/vector/arena.ts";
import { Burst, DONE, TO_EXIT, TO_TUNNEL } from "../../src/vector/burst.ts";
import { sumWords, transportAt, transportChecksum } from "../../src/wire/inner.ts";

// linux/if_tun.h
const TUNSETIFF = 0x400454can;
const IFF_TUN = 1;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;
const MTU = 1420;
const TELL_MS = 100;

const [kind, namespace] = Deno.args;
const native = loadNative();
if (kind !== "portable" && typeof native === "string") throw new Error(native);

function device(name: string): number {
  const request = new Uint8Array(40);
  request.set(new TextEncoder().encode(name));
  const flags = IFF_TUN | IFF_NO_PI | (kind !== "portable" ? IFF_VNET_HDR : 0);
  new DataView(request.buffer).setUint16(16, flags, true);
  const fd = libc().open(cString("/dev/net/tun"), O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0 || libc().ioctl(fd, TUNSETIFF, request) < 0) throw new Error(`${name} cannot be made`);
  return fd;
}

async function ip(...args: string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command("ip", { args, stderr: "piped" }).output();
  if (!success) throw new Error(new TextDecoder().decode(stderr));
}

const fds = ["bulk0", "bulk1"].map(device);
await ip("link", "set", "bulk1", "netns", namespace);
for (const [n, inside] of [[1, []], [2, ["-n", namespace]]] as const) {
  const name = `bulk${n - 1}`;
  await ip(...inside, "addr", "add", `10.98.0.${n}/24`, "dev", name);
  await ip(...inside, "addr", "add", `fd98::${n}/64`, "dev", name, "nodad");
  await ip(...inside, "link", "set", name, "mtu", String(MTU), "up");
}

const doors: Packets[] = fds.map((fd) =>
  typeof native === "string" || kind === "portable" ? new SinglePackets(fd) : new BulkPackets(native, fd)
);
const burst = new Burst(new Arena(512));
const seen = { packets: 0, bytes: 0, tooLong: 0, wrongSums: 0, refused: 0, late: 0 };

/** What any host on the way could find wrong with the packet. A full check of one in 16 keeps this from being the load. */
function judge(row: number): void {
  const { view, offset, length } = burst;
  const at = offset[row], bytes = length[row];
  if (bytes > MTU) seen.tooLong++;
  const protocol = view.getUint8(at + (view.getUint8(at) >> 4 === 6 ? 6 : 9));
  if (row % 16 !== 0 || (protocol !== 6 && protocol !== 17)) return;
  const transport = transportAt(view, at, bytes);
  const isRight = transportChecksum(view, at, transport, at + bytes - transport, protocol) === 0 &&
    (view.getUint8(at) >> 4 === 6 || (sumWords(view, at, 20, 0) % 65535) === 0);
  if (!isRight) seen.wrongSums++;
}

/** Carries what one device has to the other; whether there was anything. */
function carry(from: number): boolean {
  const { next } = burst;
  const count = doors[from].receive(burst);
  for (let row = 0; row < count; row++) {
    if (next[row] !== TO_TUNNEL) throw new Error(`a row goes to ${next[row]}`);
    judge(row);
    seen.packets++;
    seen.bytes += burst.length[row];
    next[row] = TO_EXIT;
  }
  doors[1 - from].send(burst);
  for (let row = 0; row < count; row++) if (next[row] !== DONE) seen.refused++;
  burst.release();
  return count > 0;
}

let waits: WaitSet = new PollSet(fds);
let reader = "readv(2)";
if (kind === "ring" && typeof native !== "string") {
  const port = new UringPort({ native, host: "0.0.0.0", port: 0, onRefused: () => {} });
  const ring = port.join([{ descriptor: fds[0], device: doors[0].device }, { descriptor: fds[1] }]);
  if (ring.isReadAhead(1)) reader = "its ring";
  waits = ring;
}
console.log(`ready, by ${reader}`);
let hasSlept = false;
let told = "";
while (true) {
  const endMs = performance.now() + TELL_MS;
  while (performance.now() < endMs) {
    const isSome = [carry(0), carry(1)].includes(true);
    // What comes just then apart, it was there and woke nobody.
    if (isSome && hasSlept) seen.late++;
    hasSlept = !isSome && waits.wait(TELL_MS) === 0;
  }
  const said = JSON.stringify(seen);
  if (said !== told) console.log(told = said);
  await new Promise<void>((resolve) => setImmediate(resolve));
}
