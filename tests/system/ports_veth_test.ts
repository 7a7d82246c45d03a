/**
 * The native ports over a veth pair: this process opens sockets in two network namespaces, so that what one sends
 * crosses devices to reach the other. Held here is what loopback cannot show: runs cross devices whole, and a send queue
 * that is full costs datagrams, which are counted, and never stalls or stops whoever sends.
 */
import { assertEquals, assertGreater } from "@std/assert";
import { openLibrary } from "../../ffi/mod.ts";
import { loadNative } from "../../ffi/native.ts";
import { MmsgPort } from "../../src/io/mmsg.ts";
import type { NativePort, NativePortOptions } from "../../src/io/native_udp.ts";
import { uringObstacle, UringPort } from "../../src/io/uring.ts";
import { Arena } from "../../src/vector/arena.ts";
import { Burst, BURST_CAPACITY, TO_TRANSMIT } from "../../src/vector/burst.ts";
import { formatAddress, parseAddress } from "../../src/wire/address.ts";
import { inNamespace } from "../kit/in_namespace.ts";
import { requires } from "../kit/requires.ts";
import { Network, pause, SERVER, SERVER_V6 } from "../kit/namespaces.ts";

const NEEDS = requires({ root: true, programs: ["ip", "tc"] });
const PATIENCE_MS = 3000;
// asm-generic/socket.h
const SOL_SOCKET = 1;
const SO_SNDBUFFORCE = 32;

const native = loadNative();
const obstacle = typeof native === "string" ? native : uringObstacle(native);
if (obstacle) console.error(`SKIPPED tests/system/ports_veth_test.ts, in part: ${obstacle}`);

const C = openLibrary("/lib/x86_64-linux-gnu/libc.so.6", {
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
});

type Kind = [name: string, open: (options: Omit<NativePortOptions, "native">) => NativePort];
const KINDS: Kind[] = [];
if (typeof native !== "string") {
  for (const offload of [true, false]) {
    const suffix = offload ? "" : " without offloads";
    KINDS.push([`mmsg${suffix}`, (options) => new MmsgPort({ ...options, native, offload })]);
    if (!obstacle) {
      KINDS.push([`io_uring${suffix}`, (options) => new UringPort({ ...options, native, offload })]);
    }
  }
}

/** A port in a namespace, and what it has refused. */
class End {
  readonly burst = new Burst(new Arena(2 * BURST_CAPACITY));
  readonly port: NativePort;
  refused = 0;

  constructor(network: Network, namespace: string, [, open]: Kind, host: string) {
    const onRefused = (datagrams: number) => this.refused += datagrams;
    this.port = inNamespace(network.namespace(namespace), () => open({ host, port: 0, onRefused }));
  }

  /** Sends numbered datagrams, in their first four bytes. */
  send(host: string, port: number, first: number, lengths: number[]): void {
    const { burst } = this;
    const address = parseAddress(host)!;
    lengths.forEach((length, i) => {
      const row = burst.grow(length, TO_TRANSMIT);
      burst.view.setUint32(burst.offset[row], first + i);
      burst.address.set(address, 4 * row);
      burst.port[row] = port;
    });
    this.port.transmit(burst);
    burst.release();
  }

  /** The numbers and lengths that arrive until there are `count`, or none has come for a while. */
  async receive(count: number, from: string, patienceMs = PATIENCE_MS): Promise<[number, number][]> {
    const { burst, port } = this;
    const seen: [number, number][] = [];
    for (let endMs = performance.now() + patienceMs; seen.length < count && performance.now() < endMs;) {
      if (port.receive(burst) > 0) endMs = performance.now() + patienceMs;
      for (let row = 0; row < burst.count; row++) {
        assertEquals(formatAddress(burst.address, 4 * row), from);
        seen.push([burst.view.getUint32(burst.offset[row]), burst.length[row]]);
      }
      burst.release();
      await pause(1);
    }
    return seen;
  }
}

function vethTest(name: string, run: (network: Network) => Promise<void>): void {
  Deno.test({
    name: `ports over veth: ${name}`,
    ...NEEDS,
    fn: async () => {
      const network = await Network.open();
      try {
        await run(network);
      } finally {
        await network.close();
      }
    },
  });
}

vethTest("every kind's bursts arrive at every kind, whole and in order", async (network) => {
  for (const from of KINDS) {
    for (const to of KINDS) {
      for (const [here, there] of [["10.200.0.1", SERVER], ["fd00:200::1", SERVER_V6]]) {
        const sender = new End(network, "relay", from, here),
          receiver = new End(network, "server", to, there);
        try {
          let number = 0;
          // Runs of one size with a shorter end, and sizes that rise, so that each is a message by itself.
          for (const rows of [1, 64, 65, 256, 256]) {
            for (
              const length of [() => 1300, (i: number) => i % 50 === 49 ? 700 : 1400, (i: number) => 8 + i]
            ) {
              const lengths = Array.from({ length: rows }, (_, i) => length(i));
              sender.send(there, receiver.port.localPort, number, lengths);
              const expected = lengths.map((length, i) => [number + i, length]);
              const where = `${from[0]} to ${to[0]}, ${here}, ${rows} rows`;
              assertEquals(await receiver.receive(rows, here), expected, where);
              number += rows;
            }
          }
          assertEquals([sender.refused, receiver.refused], [0, 0]);
        } finally {
          for (const { port } of [sender, receiver]) await port.close();
        }
      }
    }
  }
});

vethTest("a full send queue loses datagrams, counted and in order, and holds nobody up", async (network) => {
  // What is sent stays charged to the socket until the device has let it go.
  await network.must("relay", "tc qdisc add dev srv root tbf rate 100mbit burst 32k latency 10s".split(" "));
  for (const kind of KINDS) {
    const sender = new End(network, "relay", kind, "10.200.0.1");
    const receiver = new End(network, "server", kind, SERVER);
    try {
      const bytes = new Uint8Array(new Uint32Array([65_536]).buffer);
      assertEquals(C.setsockopt(sender.port.descriptor, SOL_SOCKET, SO_SNDBUFFORCE, bytes, 4), 0);
      const sent = 20 * BURST_CAPACITY;
      for (let first = 0; first < sent; first += BURST_CAPACITY) {
        sender.send(SERVER, receiver.port.localPort, first, new Array(BURST_CAPACITY).fill(1000));
      }
      const seen = (await receiver.receive(sent, "10.200.0.1", 500)).map(([number]) => number);
      assertEquals(seen.length + sender.refused, sent, kind[0]);
      assertGreater(sender.refused, 0, `${kind[0]} was never refused: the queue is not small enough`);
      assertGreater(seen.length, 100, kind[0]);
      assertEquals(seen, seen.toSorted((a, b) => a - b), kind[0]);
      // And it recovers.
      sender.send(SERVER, receiver.port.localPort, sent, [100]);
      assertEquals(await receiver.receive(1, "10.200.0.1"), [[sent, 100]], kind[0]);
    } finally {
      for (const { port } of [sender, receiver]) await port.close();
    }
  }
});
