/**
 * TCP through the userspace exit of a real relay, with a real client and real servers: data both ways and whole, half
 * closes, refusals and resets as the far end gave them, many connections at once. Invariant: what one end does to its
 * connection, the other end sees.
 */
import { assert, assertEquals, assertGreater, assertStringIncludes } from "@std/assert";
import { requires } from "../kit/requires.ts";
import { Network, SERVER, SERVER_V6, until } from "../kit/namespaces.ts";

const needs = requires({ root: true, programs: ["ip", "wg", "wg-quick", "wireguard-go", "iperf3", "ping"] });

const CONFIG = `exit = "userspace"\n[destinations]\nallow = ["10.200.0.0/24", "fd00:200::/64"]\n`;

/** 8001 sends back what it got once the sender has finished; 8002 resets after the first bytes; 8003 counts. */
const SERVICES = `
for (const hostname of ["${SERVER}", "${SERVER_V6}"]) {
  (async () => {
    for await (const c of Deno.listen({ hostname, port: 8001 })) (async () => {
      const all = new Uint8Array(await new Response(c.readable).arrayBuffer().catch(() => new ArrayBuffer(0)));
      console.log("got", all.length);
    })().catch(() => {});
  })();
}
const { createServer } = await import("node:net");
createServer({ allowHalfOpen: true }, (socket) => {
  const pieces = [];
  socket.on("data", (piece) => pieces.push(piece));
  socket.on("end", () => socket.end(Buffer.concat(pieces)));
  socket.on("error", () => {});
}).listen(8004, "${SERVER}");
createServer((socket) => {
  socket.on("error", () => {});
  socket.once("data", () => socket.resetAndDestroy());
}).listen(8002, "${SERVER}");
let open = 0, most = 0;
createServer((socket) => {
  socket.on("error", () => console.log("reset by client"));
  most = Math.max(most, ++open);
  socket.on("close", () => (open--, console.log("open", open, "most", most)));
  socket.on("data", (data) => socket.write(data));
}).listen(8003, "${SERVER}");
console.log("ready");`;

/** Sends a megabyte, closes its half, and compares what comes back. */
const MEGABYTE = `
const sent = new Uint8Array(1 << 20);
for (let i = 0; i < sent.length; i += 65536) crypto.getRandomValues(sent.subarray(i, i + 65536));
const { connect } = await import("node:net");
const digest = async (b) => new Uint8Array(await crypto.subtle.digest("SHA-256", b)).join();
const pieces = [];
const c = connect({ host: "${SERVER}", port: 8004, allowHalfOpen: true });
c.on("data", (piece) => pieces.push(piece));
c.end(sent);
await new Promise((resolve, reject) => (c.on("end", resolve), c.on("error", reject)));
const got = Buffer.concat(pieces);
console.log(got.length, await digest(got) === await digest(sent));
Deno.exit();`;

/** Sends a thousand bytes over IPv6. */
const IPV6 = `
const c = await Deno.connect({ hostname: "${SERVER_V6}", port: 8001 });
await c.write(new Uint8Array(1000));
c.close();`;

/** Is reset by one server, and resets its connection to the other. */
const RESETS = `
const { connect } = await import("node:net");
const c = connect({ host: "${SERVER}", port: 8002 });
c.write("x");
const seen = await new Promise((resolve) => (c.on("error", (e) => resolve(e.code)), c.on("end", () => resolve("end"))));
const d = connect({ host: "${SERVER}", port: 8003 });
d.write("x");
await new Promise((resolve) => d.once("data", resolve));
d.resetAndDestroy();
await new Promise((resolve) => setTimeout(resolve, 300));
console.log(seen);
Deno.exit();`;

/** A thousand connections, each of which must get back its own number. */
const THOUSAND = `
let right = 0;
const all = await Promise.all(Array.from({ length: 1000 }, async (_, i) => {
  const c = await Deno.connect({ hostname: "${SERVER}", port: 8003 });
  await c.write(Uint8Array.of(i >> 8, i & 255));
  const got = new Uint8Array(2);
  await c.read(got);
  if (got[0] === i >> 8 && got[1] === (i & 255)) right++;
  return c;
}));
console.log(right);
all.forEach((c) => c.close());
await new Promise((resolve) => setTimeout(resolve, 500));`;

Deno.test({
  name: "userspace: TCP of both families arrives whole, and each end sees what the other does",
  ...needs,
  sanitizeResources: false,
  sanitizeOps: false,
  async fn(t) {
    const net = await Network.open();
    try {
      const client = await net.client(2);
      const relay = await net.relay(CONFIG);
      assertStringIncludes(relay.said, "UDP, TCP");
      await net.wireguard(client, await net.addPeer("phone"));
      const server = await net.server("server", SERVICES);

      await t.step("a megabyte after a half close comes back whole", async () => {
        const said = await net.script(client, MEGABYTE);
        assertEquals(said.trim(), `${1 << 20} true`);
      });

      await t.step("IPv6", async () => {
        await net.script(client, IPV6);
        await until(() => server.said.includes("got 1000"), "the server has it", 5000);
      });

      await t.step("a closed port refuses at once, a reset is a reset, on both sides", async () => {
        const { success, stderr } = await net.run(client, ["bash", "-c", `exec 3<>/dev/tcp/${SERVER}/9`]);
        assert(!success);
        assertStringIncludes(stderr, "refused");
        const said = await net.script(client, RESETS);
        assertEquals(said.trim(), "ECONNRESET");
        await until(
          () => server.said.includes("reset by client"),
          "the server sees the client's reset",
          5000,
        );
      });

      await t.step("iperf3 both ways, also with eight streams", async () => {
        await net.iperf("server");
        for (const mode of [[], ["-R"], ["-P", "8"]]) {
          const text = await net.must(client, ["iperf3", "-J", "-c", SERVER, "-t", "2", ...mode]);
          const { sum_received } = JSON.parse(text).end;
          if (Deno.env.get("CI") === undefined) {
            console.log(mode.join(" "), Math.round(sum_received.bits_per_second / 1e6), "Mbit/s");
          }
          assertGreater(sum_received.bytes, 1_000_000, mode.join(" "));
        }
      });

      await t.step("a thousand connections at once, each with its own answer", async () => {
        const said = await net.script(client, THOUSAND);
        assertEquals(said.trim(), "1000");
        await until(
          () => server.said.includes("open 0 most 1000"),
          "every connection ends at the server",
          10_000,
        );
        await until(async () => (await net.status()).counters.exit_flows < 20, "the flows are gone", 20_000);
      });
    } finally {
      await net.close();
    }
  },
});
