/**
 * A port with a door for each of two interfaces, over veth pairs to one other end: what leaves by which, what an answer's row
 * says, what an interface that goes away costs the others, and that a thread which waits is woken by each.
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { loadNative } from "../../ffi/native.ts";
import { MmsgPort } from "../../src/io/mmsg.ts";
import { DOOR_WORD, DOORS_MAX, MultiPort } from "../../src/io/multi_port.ts";
import { PollSet } from "../../src/io/poll.ts";
import type { Port } from "../../src/io/port.ts";
import { Arena } from "../../src/vector/arena.ts";
import { Burst, BURST_CAPACITY, DONE, TO_TRANSMIT } from "../../src/vector/burst.ts";
import { formatAddress, parseAddress } from "../../src/wire/address.ts";
import { inNamespace } from "../kit/in_namespace.ts";
import { Network, pause } from "../kit/namespaces.ts";
import { requires } from "../kit/requires.ts";

const NEEDS = requires({ root: true, programs: ["ip"] });
/** The other end has this address behind both interfaces. */
const FAR = "10.203.0.1";
const PATIENCE_MS = 3000;
const native = loadNative();

interface Got {
  text: string;
  from: string;
  port: number;
  local: number[];
}

/** What has arrived at a port once there are `count` datagrams, or none has come for a while, by their text. */
async function receive(port: Port, count: number, patienceMs = PATIENCE_MS): Promise<Got[]> {
  const burst = new Burst(new Arena(2 * BURST_CAPACITY)), got: Got[] = [];
  for (const endMs = performance.now() + patienceMs; got.length < count && performance.now() < endMs;) {
    port.receive(burst);
    for (let row = 0; row < burst.count; row++) {
      const bytes = burst.bytes.subarray(burst.offset[row], burst.offset[row] + burst.length[row]);
      got.push({
        text: new TextDecoder().decode(bytes),
        from: formatAddress(burst.address, 4 * row),
        port: burst.port[row],
        local: [...burst.local.subarray(4 * row, 4 * row + 4)],
      });
    }
    burst.release();
    await pause(2);
  }
  return got.sort((a, b) => a.text < b.text ? -1 : 1);
}

/** Sends texts, each through its door, in one burst; all rows are done with then. */
function send(port: Port, to: string, toPort: number, texts: [door: number, text: string][]): void {
  const burst = new Burst(new Arena(2 * BURST_CAPACITY)), address = parseAddress(to)!;
  for (const [door, text] of texts) {
    const row = burst.grow(text.length, TO_TRANSMIT);
    burst.bytes.set(new TextEncoder().encode(text), burst.offset[row]);
    burst.address.set(address, 4 * row);
    burst.port[row] = toPort;
    burst.local[4 * row + DOOR_WORD] = door;
  }
  port.transmit(burst);
  for (let row = 0; row < burst.count; row++) assertEquals(burst.next[row], DONE);
  burst.release();
}

interface Ends {
  network: Network;
  client: string;
  near: MultiPort;
  far: MmsgPort;
  /** Doors that began (true) or ceased to fail, in order. */
  told: [door: number, isFailing: boolean][];
  refused: () => number;
}

/** A client whose eth0 has the default route and door 1, and whose eth1 has door 2. */
function doorsTest(name: string, run: (ends: Ends) => Promise<void>): void {
  Deno.test({
    name: `doors: ${name}`,
    ...NEEDS,
    ignore: NEEDS.ignore || typeof native === "string",
    fn: async () => {
      if (typeof native === "string") return;
      const network = await Network.open();
      let near: MultiPort | undefined, far: MmsgPort | undefined;
      try {
        const client = await network.client(2);
        await network.ip("relay", `addr add ${FAR}/32 dev br0`.split(" "));
        const peer = network.namespace(client);
        await network.ip("relay", `link add net2 type veth peer name eth1 netns ${peer}`.split(" "));
        await network.ip("relay", "addr add 10.202.0.1/24 dev net2".split(" "));
        await network.ip("relay", "link set net2 up".split(" "));
        await network.ip(client, "addr add 10.202.0.2/24 dev eth1".split(" "));
        await network.ip(client, "link set eth1 up".split(" "));
        await network.ip(client, "route add default via 10.201.0.1 metric 10".split(" "));
        await network.ip(client, "route add default via 10.202.0.1 metric 20".split(" "));
        const told: [number, boolean][] = [];
        let refused = 0;
        const onRefused = (datagrams: number) => refused += datagrams;
        far = inNamespace(
          network.namespace("relay"),
          () => new MmsgPort({ native, host: "::", port: 0, onRefused: () => {} }),
        );
        near = inNamespace(peer, () => {
          const onFailing = (door: number, isFailing: boolean) => told.push([door, isFailing]);
          const port = new MultiPort({ native, host: "::", onRefused, onFailing });
          port.open(1, "eth0", ["10.201.0.2"]);
          port.open(2, "eth1", ["10.202.0.2"]);
          return port;
        });
        await run({ network, client, near, far, told, refused: () => refused });
      } finally {
        await near?.close();
        await far?.close();
        await network.close();
      }
    },
  });
}

doorsTest(
  "a row leaves by its door, and its answer says the same door",
  async ({ near, far, told, refused }) => {
    const texts: [number, string][] = Array.from({ length: 90 }, (_, i) => [i % 3, `${i % 3} ${i}`]);
    send(near, FAR, far.localPort, texts);
    const got = await receive(far, texts.length);
    assertEquals(got.map(({ text }) => text), texts.map(([, text]) => text).sort());
    const sources = ["10.201.0.2", "10.201.0.2", "10.202.0.2"];
    for (const { text, from } of got) assertEquals(from, sources[Number(text[0])], text);
    const ports = new Set(got.map(({ text, port }) => `${text[0]} ${port}`));
    assertEquals(ports.size, 3, "each door has one port of its own");
    for (const { text, from, port } of got) send(far, from, port, [[0, text]]);
    const answers = await receive(near, texts.length);
    assertEquals(answers.map(({ text }) => text), texts.map(([, text]) => text).sort());
    for (const { text, local } of answers) assertEquals(local, [0, 0, 0, Number(text[0])], text);
    assertEquals([told, refused()], [[], 0]);
  },
);

doorsTest("an interface that goes away concerns its door alone, and is told once", async (ends) => {
  const { network, client, near, far, told, refused } = ends;
  await network.ip(client, "link set eth1 down".split(" "));
  for (let i = 0; i < 3; i++) send(near, FAR, far.localPort, [[1, `a${i}`], [2, `b${i}`], [0, `c${i}`]]);
  const got = (await receive(far, 6)).map(({ text }) => text);
  assertEquals(got, ["a0", "a1", "a2", "c0", "c1", "c2"]);
  assertEquals([told, refused()], [[[2, true]], 3]);
  await network.ip(client, "link set eth1 up".split(" "));
  await network.ip(client, "route add default via 10.202.0.1 metric 20".split(" "));
  for (const endMs = performance.now() + PATIENCE_MS; told.length < 2 && performance.now() < endMs;) {
    send(near, FAR, far.localPort, [[2, "back"]]);
    await pause(20);
  }
  assertEquals(told, [[2, true], [2, false]]);
  assert((await receive(far, 1)).some(({ text }) => text === "back"));
});

doorsTest("rows of a door that is closed, or cannot be, are refused and hold up nobody", async (ends) => {
  const { near, far, told, refused } = ends;
  near.shut(2);
  near.shut(2);
  near.shut(0);
  const rows: [number, string][] = [[2, "shut"], [1, "open"], [DOORS_MAX, "never"], [0xffff_ffff, "huge"]];
  send(near, FAR, far.localPort, [...rows, [0, "none"]]);
  assertEquals((await receive(far, 2)).map(({ text }) => text), ["none", "open"]);
  assertEquals(refused(), 3);
  assertEquals(told, []);
  const open = (door: number, device: string) => () => near.open(door, device, []);
  assertThrows(open(2, "eth7"), Error, "no socket can be bound to eth7");
  assertThrows(open(DOORS_MAX, "eth0"), Error, "door 8: 0 to 7 there are");
});

doorsTest(
  "the first door is the system's choice, or an interface's while one is opened for it",
  async (ends) => {
    const { network, client, near, far, told } = ends;
    const sourceOf = async (text: string) => {
      send(near, FAR, far.localPort, [[0, text]]);
      const [{ from, port }] = await receive(far, 1);
      send(far, from, port, [[0, "answer"]]);
      assertEquals((await receive(near, 1)).map(({ local }) => local), [[0, 0, 0, 0]]);
      return from;
    };
    assertEquals(await sourceOf("free"), "10.201.0.2");
    inNamespace(network.namespace(client), () => near.open(0, "eth1", []));
    assertEquals(await sourceOf("bound"), "10.202.0.2");
    await network.ip(client, "link set eth1 down".split(" "));
    send(near, FAR, far.localPort, [[0, "lost"], [1, "through"]]);
    assertEquals((await receive(far, 1)).map(({ text }) => text), ["through"]);
    assertEquals(told, [[0, true]]);
    near.shut(0);
    assertEquals(await sourceOf("free again"), "10.201.0.2");
  },
);

doorsTest("where no device can be bound to, an address of the interface stands in for it", async (ends) => {
  const { network, client, near, far } = ends;
  const about = inNamespace(
    network.namespace(client),
    () => near.open(2, "eth7", ["fe80::1", "10.99.0.1", "10.202.0.2"]),
  );
  assert(about.endsWith("bound to the address"), about);
  send(near, FAR, far.localPort, [[2, "by address"]]);
  assertEquals((await receive(far, 1)).map(({ from }) => from), ["10.202.0.2"]);
});

doorsTest("a thread that waits is woken by every door, one that was opened meanwhile too", async (ends) => {
  const { network, client, near, far } = ends;
  inNamespace(network.namespace(client), () => {
    near.shut(2);
    near.open(3, "eth1", []);
  });
  const places = new PollSet([near.descriptor]);
  for (const door of [0, 1, 3]) {
    send(near, FAR, far.localPort, [[door, "ask"]]);
    const [{ from, port }] = await receive(far, 1);
    assertEquals(places.wait(0), 0, "nothing has come yet");
    send(far, from, port, [[0, "answer"]]);
    assertEquals([places.wait(PATIENCE_MS), places.isReady(0)], [1, true], `door ${door}`);
    assertEquals((await receive(near, 1)).map(({ local }) => local[DOOR_WORD]), [door]);
    assertEquals(places.wait(0), 0, "all of it was taken");
  }
  // And so is the event loop.
  let wakes = 0;
  near.onReadable(() => wakes++);
  send(near, FAR, far.localPort, [[3, "ask"]]);
  const [{ from, port }] = await receive(far, 1);
  send(far, from, port, [[0, "answer"]]);
  for (const endMs = performance.now() + PATIENCE_MS; wakes === 0 && performance.now() < endMs;) {
    await pause(5);
  }
  assertEquals(wakes, 1);
  assertEquals((await receive(near, 1)).length, 1);
});
