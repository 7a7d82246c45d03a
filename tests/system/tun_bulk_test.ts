/**
 * Bulk traffic between two kernels whose packets pass as super-packets through two TUN devices and, cut, through a
 * burst (tun_bulk_child.ts): what arrives is what was sent, each packet on the way was whole, and the kernels were
 * spared most of the crossings.
 */
import { assertEquals, assertGreater, assertLess } from "@std/assert";
import { loadNative } from "../../ffi/native.ts";
import { requires } from "../kit/requires.ts";
import { type Background, Network, until } from "../kit/namespaces.ts";

const native = loadNative();
if (typeof native === "string") console.error(`SKIPPED tests/system/tun_bulk_test.ts: ${native}`);
const { ignore } = requires({ root: true, programs: ["ip"] });
const NEEDS = { ignore: ignore || typeof native === "string" };
const CHILD = new URL("tun_bulk_child.ts", import.meta.url).pathname;
const ROOT = new URL("../..", import.meta.url).pathname;
const LIBRARY = `${ROOT}ffi/prebuilt/x86_64-unknown-linux-gnu/liboxrelay.so`;
const TCP_BYTES = 24 << 20;
const DATAGRAMS = 4096;

const CASES = [
  ["IPv4", "10.98.0.2", "native"],
  ["IPv6", "fd98::2", "native"],
  ["IPv4", "10.98.0.2", "ring"],
  ["IPv6", "fd98::2", "ring"],
] as const;

interface Seen {
  packets: number;
  bytes: number;
  tooLong: number;
  wrongSums: number;
  refused: number;
  /** Times that packets were there after a wait that had found none. */
  late: number;
}

/** The last line that the child said about itself. */
function seenBy(child: Background): Seen {
  return JSON.parse(child.said.trim().split("\n").at(-1)!);
}

async function withDevices(
  kind: "native" | "ring",
  run: (network: Network, child: Background) => Promise<void>,
): Promise<void> {
  const network = await Network.open();
  try {
    const child = network.spawn("relay", [
      Deno.execPath(),
      "run",
      "--no-prompt",
      `--allow-read=${ROOT}`,
      "--allow-run=ip",
      `--allow-ffi=/lib/x86_64-linux-gnu/libc.so.6,/lib/aarch64-linux-gnu/libc.so.6,${LIBRARY}`,
      CHILD,
      kind,
      network.namespace("server"),
    ]);
    await child.says("ready");
    if (kind === "ring" && !child.said.includes("its ring")) {
      console.error("SKIPPED tests/system/tun_bulk_test.ts, reads by the ring: they need Linux 6.7");
    }
    await run(network, child);
  } finally {
    await network.close();
  }
}

/** Packets as the second kernel counts them: a super-packet is one. */
async function crossings(network: Network, device: "bulk0" | "bulk1", side: "rx" | "tx"): Promise<number> {
  const place = device === "bulk0" ? "relay" : "server";
  const told = JSON.parse(await network.must(place, ["ip", "-j", "-s", "link", "show", "dev", device]));
  return told[0].stats64[side].packets;
}

const receiver = (host: string) => `
import { createHash } from "node:crypto";
const listener = Deno.listen({ hostname: "${host}", port: 7000 });
console.log("ready");
const hash = createHash("sha256");
let bytes = 0;
for await (const chunk of (await listener.accept()).readable) {
  bytes += chunk.length;
  hash.update(chunk);
}
console.log(bytes, hash.digest("hex"), "end");`;

const sender = (host: string) => `
import { createHash } from "node:crypto";
const connection = await Deno.connect({ hostname: "${host}", port: 7000 });
const hash = createHash("sha256");
const writer = connection.writable.getWriter();
for (let left = ${TCP_BYTES}; left > 0; left -= 65536) {
  const chunk = crypto.getRandomValues(new Uint8Array(65536));
  hash.update(chunk);
  await writer.write(chunk);
}
await writer.close();
console.log(hash.digest("hex"));`;

for (const [version, host, kind] of CASES) {
  Deno.test({
    name:
      `tun in bulk: TCP over ${version} arrives by ${kind} as it was sent, in far fewer crossings than packets`,
    ...NEEDS,
    fn: () =>
      withDevices(kind, async (network, child) => {
        const server = await network.server("server", receiver(host));
        const sent = (await network.script("relay", sender(host))).trim();
        await until(() => server.said.includes("end"), "everything has arrived");
        assertEquals(server.said.trim().split("\n").at(-1), `${TCP_BYTES} ${sent} end`);
        await until(() => seenBy(child).bytes > TCP_BYTES, "the child has told of all");
        const { packets, bytes, late, ...wrong } = seenBy(child);
        assertEquals(wrong, { tooLong: 0, wrongSums: 0, refused: 0 });
        assertLess(late, 3);
        assertGreater(packets, TCP_BYTES / 1420);
        assertGreater(bytes, TCP_BYTES);
        assertLess(await crossings(network, "bulk0", "tx"), packets / 4);
        assertLess(await crossings(network, "bulk1", "rx"), packets / 4);
      }),
  });
}

const ports = (body: string) => `
import { loadNative } from "${ROOT}ffi/native.ts";
import { MmsgPort } from "${ROOT}src/io/mmsg.ts";
import { Arena } from "${ROOT}src/vector/arena.ts";
import { Burst, TO_TRANSMIT } from "${ROOT}src/vector/burst.ts";
import { parseAddress } from "${ROOT}src/wire/address.ts";
const native = loadNative();
const open = (host, port) => new MmsgPort({ native, host, port, onRefused: (n) => console.log("refused", n) });
const burst = new Burst(new Arena(512));
${body}`;

const datagramReceiver = (host: string) =>
  ports(`
const port = open("${host}", 7000);
console.log("ready");
let expected = 0, wrong = 0;
const endMs = performance.now() + 15000;
while (expected < ${DATAGRAMS} && performance.now() < endMs) {
  const count = port.receive(burst);
  for (let row = 0; row < count; row++) {
    const at = burst.offset[row], number = burst.view.getUint32(at);
    const whole = burst.length[row] === 1000 + (number % 64 === 63 ? 200 : 300);
    let same = true;
    for (let i = 4; i < burst.length[row]; i++) same &&= burst.bytes[at + i] === ((number + i) & 255);
    if (number !== expected || !whole || !same) wrong++;
    expected++;
  }
  burst.release();
  if (count === 0) await new Promise((resolve) => setTimeout(resolve, 1));
}
console.log(expected, wrong, "end");
await port.close();`);

const datagramSender = (host: string) =>
  ports(`
const port = open("::", 0);
for (let number = 0; number < ${DATAGRAMS};) {
  for (let i = 0; i < 64; i++, number++) {
    const row = burst.grow(i === 63 ? 1200 : 1300, TO_TRANSMIT);
    const at = burst.offset[row];
    burst.view.setUint32(at, number);
    for (let i = 4; i < burst.length[row]; i++) burst.bytes[at + i] = number + i;
    burst.address.set(parseAddress("${host}"), 4 * row);
    burst.port[row] = 7000;
  }
  port.transmit(burst);
  burst.release();
  await new Promise((resolve) => setTimeout(resolve, 2));
}
await port.close();`);

for (const [version, host, kind] of CASES) {
  Deno.test({
    name:
      `tun in bulk: UDP over ${version} arrives by ${kind} whole and in order, in far fewer crossings than packets`,
    ...NEEDS,
    fn: () =>
      withDevices(kind, async (network, child) => {
        const run = [
          "run",
          "--no-prompt",
          "--unstable-net",
          `--allow-read=${ROOT}`,
          `--allow-ffi=${LIBRARY},/lib/x86_64-linux-gnu/libc.so.6`,
        ];
        const file = async (name: string, source: string) => {
          const path = `${network.directory}/${name}.ts`;
          await Deno.writeTextFile(path, source);
          return path;
        };
        const server = network.spawn("server", [
          Deno.execPath(),
          ...run,
          await file("receive", datagramReceiver(host)),
        ]);
        await server.says("ready");
        const said = await network.must("relay", [
          Deno.execPath(),
          ...run,
          await file("send", datagramSender(host)),
        ]);
        assertEquals(said, "");
        await until(() => server.said.includes("end"), "everything has arrived");
        assertEquals(server.said.trim().split("\n").at(-1), `${DATAGRAMS} 0 end`);
        await until(() => seenBy(child).packets >= DATAGRAMS, "the child has told of all");
        const { packets, bytes: _, late, ...wrong } = seenBy(child);
        assertEquals(wrong, { tooLong: 0, wrongSums: 0, refused: 0 });
        assertLess(late, 3);
        assertLess(await crossings(network, "bulk0", "tx"), packets / 4);
        assertLess(await crossings(network, "bulk1", "rx"), packets / 4);
      }),
  });
}
