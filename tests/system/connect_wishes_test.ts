/**
 * What a person wishes of `connect` on its command line, observed at the far end: `--priority` gives the relay the class of
 * a flow, and packets that shrink are compressed both ways unless `--no-compression` says no.
 */
import { assertEquals, assertGreater, assertLess } from "@std/assert";
import { requires } from "../kit/requires.ts";
import { type Network, networkTest, SERVER } from "../kit/namespaces.ts";

const needs = requires({ root: true, programs: ["ip", "nft", "sh"] });
const PACKETS = 120, BYTES = 1000;

/** Sends every datagram back. */
const ECHO = `
const socket = Deno.listenDatagram({ transport: "udp", hostname: "${SERVER}", port: 7777 });
console.log("ready");
for (;;) {
  const [data, from] = await socket.receive(new Uint8Array(65536));
  await socket.send(data, from);
}`;

/** Sends datagrams of words, 50 a second, and prints how many came back. */
const TALK = `
const socket = Deno.listenDatagram({ transport: "udp", hostname: "0.0.0.0", port: 0 });
// Text that shrinks to a half or so; what shrinks to next to nothing is refused as a bomb.
const words = (i) => {
  let text = "";
  for (let k = 0; text.length < ${BYTES}; k++) text += "player" + (i * 7919 + k * 104729) % 9973 + " moves to ";
  return new TextEncoder().encode(text.slice(0, ${BYTES}));
};
let answers = 0;
(async () => { for await (const _ of socket) answers++; })();
for (let i = 0; i < ${PACKETS}; i++) {
  await socket.send(words(i), { transport: "udp", hostname: "${SERVER}", port: 7777 });
  await new Promise((resolve) => setTimeout(resolve, 20));
}
await new Promise((resolve) => setTimeout(resolve, 500));
console.log(answers);
Deno.exit();`;

/** Talks through a `connect` with these arguments; says what the relay and the client counted of it. */
async function talk(net: Network, args: string[]) {
  const client = await net.client(2);
  await net.relay(`dns = []\nexit = "tun"\n[destinations]\nallow = ["10.200.0.0/24"]\n`);
  await net.server("server", ECHO);
  const file = `${net.directory}/invitation`;
  await Deno.writeTextFile(file, await net.addPeer("laptop", undefined, ["--oxtunnel"]));
  const running = await net.connect(client, ["--config", file, ...args]);
  assertGreater(Number(await net.script(client, TALK)), PACKETS / 2, running.said);
  const { text } = await net.ask("/metrics");
  const count = (name: string) =>
    Number(text.split("\n").find((line) => line.startsWith(`${name} `))!.split(" ")[1]);
  return {
    classUp: count(`oxrelay_class_packets_total{class="interactive",direction="from_tunnel"}`),
    classDown: count(`oxrelay_class_packets_total{class="interactive",direction="to_tunnel"}`),
    compressedDown: count("oxrelay_compressed_packets_total"),
    bytesUp: count("oxrelay_received_bytes_total"),
  };
}

networkTest(
  "connect: --priority is the class at both ends, and what shrinks is compressed both ways",
  needs,
  async (net) => {
    const { classUp, classDown, compressedDown, bytesUp } = await talk(net, [
      "--priority",
      "interactive=udp:7777",
    ]);
    assertGreater(classUp, PACKETS / 2);
    assertGreater(classDown, PACKETS / 2);
    assertGreater(compressedDown, PACKETS / 4);
    assertLess(bytesUp, 0.8 * BYTES * PACKETS);
  },
);

networkTest(
  "connect: without --priority its class is another, and --no-compression compresses nothing",
  needs,
  async (net) => {
    const { classUp, classDown, compressedDown, bytesUp } = await talk(net, ["--no-compression"]);
    assertEquals([classUp, classDown, compressedDown], [0, 0, 0]);
    assertGreater(bytesUp, BYTES * PACKETS / 2);
  },
);
