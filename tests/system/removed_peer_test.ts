/**
 * What is left of a removed peer, in both exits: the next peer has the same address, in a tunnel with no room for more, and gets
 * neither datagrams nor TCP nor pongs of the one before. And the sources that a real client may send from.
 */
import { assert, assertEquals } from "@std/assert";
import { requires } from "../kit/requires.ts";
import { networkTest, SERVER, SERVER_V6, until } from "../kit/namespaces.ts";

const needs = requires({
  root: true,
  programs: ["ip", "nft", "wg", "wg-quick", "wireguard-go", "ping", "sysctl", "sh"],
});
const CONFIG = `tunnel_ipv4 = "10.66.0.0/29"
admin_token = "0123456789abcdef"
[destinations]
allow = ["10.200.0.2/32", "fd00:200::2/128"]
`;

/** Answers each datagram now and every tenth of a second from then on; and whoever connects, the same. */
const PERSISTENT = `
for (const hostname of ["${SERVER}", "${SERVER_V6}"]) {
  const socket = Deno.listenDatagram({ transport: "udp", hostname, port: 7777 });
  (async () => { for await (const [data, from] of socket) {
    setInterval(() => socket.send(data, from).catch(() => {}), 100);
    console.log("udp from " + from.port);
  } })();
  const listener = Deno.listen({ hostname, port: 8888 });
  (async () => { for await (const connection of listener) {
    console.log("tcp accepted");
    const timer = setInterval(() => connection.write(new Uint8Array(100)).catch(() => {
      clearInterval(timer);
      console.log("tcp ended");
    }), 100);
  } })();
}
console.log("ready");`;

const ASK = `
for (const [hostname, any] of [["${SERVER}", "0.0.0.0"], ["${SERVER_V6}", "::"]]) {
  const socket = Deno.listenDatagram({ transport: "udp", hostname: any, port: 0 });
  await socket.send(new Uint8Array(9), { transport: "udp", hostname, port: 7777 });
  (async () => { for await (const _ of socket) globalThis.heard = (globalThis.heard ?? 0) + 1; })();
  const connection = await Deno.connect({ hostname, port: 8888 });
  (async () => { for await (const _ of connection.readable) globalThis.read = (globalThis.read ?? 0) + 1; })().catch(() => {});
}
setInterval(() => { if (heard > 3 && read > 3) console.log("ready"); }, 100);`;

for (const exit of ["tun", "userspace"]) {
  networkTest(
    `${exit} exit: a removed peer's address is given to the next one without what the internet still sends to it`,
    needs,
    async (net) => {
      await net.relay(`exit = "${exit}"\n${CONFIG}`);
      const before = await net.client(2), heir = await net.client(3);
      const first = await net.addPeer("before");
      // The network has room for five, and the address of one who is gone is given last.
      for (const peer of ["b", "c", "d", "e"]) await net.addPeer(peer);
      await net.wireguard(before, first);
      await net.must(before, ["ping", "-c", "1", "-w", "10", SERVER]).catch(() => {});
      const server = await net.server("server", PERSISTENT);
      await net.server(before, ASK);
      await net.changePeer(["remove", "before"]);
      const second = await net.addPeer("heir");
      const addressOf = (config: string) => /^Address = (.*)$/m.exec(config)![1];
      assertEquals(addressOf(second), addressOf(first), "there is one address, or this proves nothing");
      // Counted in front of everything that its kernel does.
      await net.must(heir, ["nft", "-f", "-"], {
        input: `table inet watch { chain seen { type filter hook prerouting priority -400;
  iifname "${net.device(heir)}" udp sport 7777 counter
  iifname "${net.device(heir)}" tcp sport 8888 counter
  iifname "${net.device(heir)}" counter
}; }
`,
      });
      await net.wireguard(heir, second);
      // Its own pings, over both families, show that it is up; then it only listens.
      const dialled = await net.server(
        heir,
        `
const socket = Deno.listenDatagram({ transport: "udp", hostname: "0.0.0.0", port: 0 });
await socket.send(new Uint8Array(3), { transport: "udp", hostname: "${SERVER}", port: 7000 });
console.log("ready");`,
      );
      await until(
        async () => (await net.status()).peers.some(({ connected }) => connected),
        "the heir is up",
      );
      await new Promise((resolve) => setTimeout(resolve, 1500));
      const [udp, tcp] = [...(await net.must(heir, ["nft", "list", "table", "inet", "watch"]))
        .matchAll(/packets (\d+)/g)].map(([, packets]) => Number(packets));
      assertEquals([udp, tcp], [0, 0], "datagrams and segments of the one before");
      assert(!dialled.said.includes("error"), dialled.said);
      if (exit === "userspace") {
        await until(() => server.said.includes("tcp ended"), "the far ends of its TCP are told");
      }
    },
  );

  networkTest(
    `${exit} exit: a client's IPv6 packets leave from its own address and from no other`,
    needs,
    async (net) => {
      await net.relay(`exit = "${exit}"\n${CONFIG}`);
      const name = await net.client(2);
      await net.wireguard(name, await net.addPeer("one"));
      const other = /^Address = .*, (\S+)\/128$/m.exec(await net.addPeer("other"))![1];
      const server = await net.server(
        "server",
        `
const socket = Deno.listenDatagram({ transport: "udp", hostname: "${SERVER_V6}", port: 7777 });
(async () => { for await (const [data] of socket) console.log("[" + new TextDecoder().decode(data) + "]"); })();
console.log("ready");`,
      );
      const send = (from: string, text: string) =>
        net.script(
          name,
          `
const socket = Deno.listenDatagram({ transport: "udp", hostname: "${from}", port: 0 });
await socket.send(new TextEncoder().encode("${text}"), { transport: "udp", hostname: "${SERVER_V6}", port: 7777 });
Deno.exit();`,
        );
      const spoofed = async () => (await net.status()).drops.spoofed_inner;
      await send("::", "first");
      await until(() => server.said.includes("[first]"), "its own address is good");
      const before = await spoofed();
      for (const address of [other, "fd00:dead::7"]) {
        await net.ip(name, ["-6", "addr", "add", `${address}/128`, "dev", net.device(name), "nodad"]);
        await send(address, "forged");
        await net.ip(name, ["-6", "addr", "del", `${address}/128`, "dev", net.device(name)]);
      }
      await until(async () => await spoofed() >= before + 2, "the forged ones are counted");
      await send("::", "last");
      await until(() => server.said.includes("[last]"), "its own address is still good");
      assertEquals(server.said.includes("forged"), false);
    },
  );
}
