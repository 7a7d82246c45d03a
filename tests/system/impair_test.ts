/**
 * The proxy that makes a bad path: a seed decides what is lost and in which order the rest leaves, however late anybody
 * looks; its queue is bounded; and over real sockets it loses what it says, and lets the rest go on time, which is printed
 * and not asserted.
 */
import { assert, assertEquals, assertGreater, assertNotEquals } from "@std/assert";
import { loadNative } from "../../ffi/native.ts";
import { type ChannelName, CHANNELS } from "../kit/channels.ts";
import { Random } from "../kit/random.ts";
import { ImpairedPath, QUEUE_MAX } from "../kit/impaired_path.ts";
import { proxyCommand, proxyCounts } from "../kit/proxy.ts";
import { Background, pause, until } from "../kit/namespaces.ts";

const SEED = 5;
/** Sends bursts of three datagrams for a minute and looks as often as told; the numbers in the order in which they leave. */
function leaves(channel: ChannelName, seed: number, lookUs: number): number[] {
  const path = new ImpairedPath<number>(CHANNELS[channel](new Random(seed)));
  const order: number[] = [];
  let number = 0;
  for (let nowUs = 0; nowUs < 61_000_000; nowUs += 200) {
    if (nowUs % 15_000 === 0 && nowUs < 60_000_000) {
      for (let i = 0; i < 3; i++) path.offer(number++, 200, nowUs);
    }
    if (nowUs % lookUs !== 0) continue;
    for (let next = path.take(nowUs); next !== undefined; next = path.take(nowUs)) order.push(next);
  }
  const { offered, dropped, passed } = path.counts();
  assertEquals([offered, dropped, passed], [12_000, 12_000 - order.length, order.length], channel);
  return order;
}

for (const channel of Object.keys(CHANNELS) as ChannelName[]) {
  Deno.test(`impair: one seed, one fate, looked at often or seldom: ${channel}`, () => {
    const order = leaves(channel, SEED, 200);
    assertEquals(leaves(channel, SEED, 40_000), order);
    if (channel === "clean") assertEquals(order.length, 12_000);
    else assertNotEquals(leaves(channel, SEED + 1, 200), order);
  });
}

Deno.test("impair: what waits is bounded", () => {
  const path = new ImpairedPath<number>(CHANNELS.clean());
  const taken = Array.from({ length: QUEUE_MAX + 10 }, (_, i) => path.offer(i, 100, 0));
  assertEquals(taken.filter((one) => one).length, QUEUE_MAX);
  assertEquals(path.counts().overflowed, 10);
  assertEquals(path.take(path.nextUs), 0);
  assert(path.offer(1, 100, 1), "a place is free again");
});

/** A socket on loopback, and its port. */
function socket(): { socket: Deno.DatagramConn; port: number } {
  const socket = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
  return { socket, port: (socket.addr as Deno.NetAddr).port };
}

const DATAGRAMS = 600;

/** Sends numbered datagrams through a proxy to an echo; which came there, how many came back, and what the proxy says. */
async function passes(seed: number) {
  const { socket: echo, port } = socket(), { socket: client } = socket(), free = socket();
  free.socket.close();
  const command = proxyCommand({
    listen: `127.0.0.1:${free.port}`,
    upstream: `127.0.0.1:${port}`,
    channel: "random",
    seed,
  });
  const proxy = new Background(
    new Deno.Command(command[0], { args: command.slice(1), stdout: "piped", stderr: "piped" }).spawn(),
  );
  try {
    await proxy.says("ready");
    const came: number[] = [];
    let back = 0;
    const echoing = (async () => {
      for await (const [bytes, from] of echo) {
        came.push(new DataView(bytes.buffer, bytes.byteOffset).getUint32(0));
        await echo.send(bytes, from);
      }
    })();
    const listening = (async () => {
      for await (const _ of client) back++;
    })();
    for (let i = 0; i < DATAGRAMS; i++) {
      const bytes = new Uint8Array(100);
      new DataView(bytes.buffer).setUint32(0, i);
      await client.send(bytes, { transport: "udp", hostname: "127.0.0.1", port: free.port });
      if (i % 4 === 0) await pause(2);
    }
    const done = () => {
      const { up, down } = proxyCounts(proxy);
      return up.dropped + up.passed === DATAGRAMS && down.dropped + down.passed === up.passed;
    };
    await until(done, "all datagrams have met their fate", 5000);
    echo.close();
    client.close();
    await Promise.all([echoing, listening]);
    return { came: came.sort((a, b) => a - b), back, ...proxyCounts(proxy) };
  } finally {
    await proxy.stop("SIGTERM");
  }
}

Deno.test("impair: words that it cannot use are answered with how to use it", async () => {
  const good = proxyCommand({ listen: "127.0.0.1:1", upstream: "127.0.0.1:2", channel: "clean", seed: 1 });
  const words = good.slice(0, -5);
  const wrong = [
    [],
    ["127.0.0.1:1", "127.0.0.1:2", "random"],
    ["127.0.0.1:1", "127.0.0.1:2", "rain", "1"],
    ["127.0.0.1:1", "127.0.0.1:2", "toString", "1"],
    ["127.0.0.1:1", "127.0.0.1:2", "random", "x"],
    ["relay", "127.0.0.1:2", "random", "1"],
  ];
  for (const given of wrong) {
    const args = [...words.slice(1), ...given];
    const { code, stderr } = await new Deno.Command(words[0], { args }).output();
    const said = new TextDecoder().decode(stderr);
    assertEquals([code, said.split("\n")[0]], [
      2,
      "Usage: deno task impair LISTEN UPSTREAM PATH SEED [ORIGIN]",
    ], said);
  }
});

const native = loadNative();
if (typeof native === "string") console.error(`SKIPPED tests/system/impair_test.ts, in part: ${native}`);

Deno.test({
  name: "impair: over real sockets a seed loses the same datagrams again",
  ignore: typeof native === "string",
  sanitizeResources: false,
  sanitizeOps: false,
  async fn() {
    const [first, again, other] = [await passes(SEED), await passes(SEED), await passes(SEED + 7)];
    assertEquals(again.came, first.came);
    assertNotEquals(other.came, first.came);
    for (const { came, back, up, down } of [first, again, other]) {
      assertGreater(up.dropped, DATAGRAMS / 100);
      assertEquals(came.length, up.passed);
      assertEquals(back, down.passed);
      assertEquals(up.bytes, DATAGRAMS * 128);
    }
    const { up: { lateUsP50, lateUsP99, lateUsMax } } = first;
    console.log(`let go late by ${lateUsP50} us (p50), ${lateUsP99} us (p99), ${lateUsMax} us at most`);
  },
});
