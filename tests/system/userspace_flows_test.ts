/**
 * The userspace exit in a real relay with a real client: UDP of both families and pings, datagrams of many sizes both
 * ways, many flows at once; and what a relay worker that dies leaves behind. Invariant: every answer reaches the client that asked.
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { requires } from "../kit/requires.ts";
import { Network, SERVER, SERVER_V6, until } from "../kit/namespaces.ts";

const needs = requires({ root: true, programs: ["ip", "wg", "wg-quick", "wireguard-go", "ping", "sysctl"] });

const CONFIG = `exit = "userspace"\n[destinations]\nallow = ["10.200.0.0/24", "fd00:200::/64"]\n`;

const ECHO = `
for (const hostname of ["${SERVER}", "${SERVER_V6}"]) (async () => {
  const socket = Deno.listenDatagram({ transport: "udp", hostname, port: 8005 });
  for await (const [payload, from] of socket) await socket.send(payload, from);
})();
console.log("ready");`;

/** Asks from many sockets at once and again until each has its answer; prints how many came back as they were sent. */
const ASK = `
const sizes = [0, 1, 1200, 1392, 1393, 4000, 8192];
let right = 0;
for (const [hostname, local] of [["${SERVER}", "0.0.0.0"], ["${SERVER_V6}", "::"]]) {
  await Promise.all(Array.from({ length: 70 }, async (_, i) => {
    const socket = Deno.listenDatagram({ transport: "udp", hostname: local, port: 0 });
    const sent = new Uint8Array(sizes[i % sizes.length]).fill(i);
    const ask = () => socket.send(sent, { transport: "udp", hostname, port: 8005 });
    await ask();
    const again = setInterval(ask, 500);
    const [got] = await socket.receive(new Uint8Array(9000));
    clearInterval(again);
    if (got.length === sent.length && got.every((byte, at) => byte === sent[at])) right++;
    socket.close();
  }));
}
console.log(right);
Deno.exit();`;

Deno.test({
  name:
    "userspace: UDP of both families and pings come back, and a relay worker that dies leaves nothing open",
  ...needs,
  sanitizeResources: false,
  sanitizeOps: false,
  async fn(t) {
    const net = await Network.open();
    try {
      await net.must("relay", ["sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647"]);
      const client = await net.client(2);
      const relay = await net.relay(CONFIG, { OXRELAY_TEST_FAIL_AFTER_MS: "12000" });
      assertStringIncludes(relay.said, "open NAT");
      assertStringIncludes(relay.said, "UDP, TCP, ping");
      await net.wireguard(client, await net.addPeer("phone"));
      await net.server("server", ECHO);
      const open = async () =>
        (await net.must("relay", ["ls", `/proc/${relay.child.pid}/fd`])).trim().split("\n").length;
      const before = await open();

      await t.step("140 flows, each with its own datagram back, up to 8 KB", async () => {
        assertEquals((await net.script(client, ASK)).trim(), "140");
        assert(await open() >= before + 140, "a flow has a socket of its own");
      });

      await t.step("pings of both families", async () => {
        for (const to of [SERVER, SERVER_V6]) {
          await net.must(client, ["ping", "-c", "3", "-i", "0.2", "-W", "2", to]);
        }
      });

      await t.step("a relay worker that dies takes its sockets with it", async () => {
        await until(() => relay.said.includes("it runs again"), "the relay worker is started again");
        await until(async () => await open() <= before, `no more than ${before} descriptors are open`, 5000);
      });
    } finally {
      await net.close();
    }
  },
});
