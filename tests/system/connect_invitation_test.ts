/**
 * The first minute of a new user: `peer add --oxtunnel laptop` on one machine, the line that it prints pasted into
 * `connect` on another, and a page of a web server behind the relay, as root and without any privilege.
 */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { requires } from "../kit/requires.ts";
import { networkTest, RELAY, SERVER, until } from "../kit/namespaces.ts";

const needs = requires({ root: true, programs: ["ip", "nft", "sh", "setpriv"] });

const WEB = `
Deno.serve({ hostname: "${SERVER}", port: 80, onListen: () => console.log("ready") }, () => new Response("a page"));`;
const BROWSE = (proxy: string) => `
const client = Deno.createHttpClient(${proxy});
console.log(await (await fetch("http://${SERVER}/", { client })).text());
Deno.exit();`;

for (const isRoot of [true, false]) {
  networkTest(
    `connect: from one pasted line to browsing, ${isRoot ? "as root" : "without root"}`,
    needs,
    async (net) => {
      const client = await net.client(2);
      await net.relay(`dns = []\nexit = "tun"\n[destinations]\nallow = ["10.200.0.0/24"]\n`);
      await net.server("server", WEB);
      const line = (await net.addPeer("laptop", `${RELAY}:4433`, ["--oxtunnel"])).trim();
      assertMatch(line, /^oxrelay:\/\/10\.201\.0\.1:4433\?\S+$/);
      const command = net.command("connect", []);
      const bare = isRoot ? [] : ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"];
      const pasted = `${net.directory}/pasted`;
      await Deno.writeTextFile(pasted, `${line}\n`);
      // The shell makes way for the program, so that the test ends the program itself.
      const running = net.spawn(client, ["sh", "-c", `exec "$@" < "$0"`, pasted, ...bare, ...command]);
      await running.says("The tunnel is up.");
      const proxy = isRoot ? "{}" : `{ proxy: { url: "socks5://127.0.0.1:1080" } }`;
      assertEquals((await net.script(client, BROWSE(proxy))).trim(), "a page", running.said);
      const sessions = JSON.parse((await net.ask("/v1/sessions")).text);
      assertEquals(sessions[0].protocol, "oxtunnel");
      if (!isRoot) assertStringIncludes(running.said, "so a SOCKS proxy stands in for it");
    },
  );
}

networkTest("connect: of the relays in an invitation the nearest is used", needs, async (net) => {
  const client = await net.client(2);
  await net.relay(`dns = []\nexit = "tun"\n[destinations]\nallow = ["10.200.0.0/24"]\n`);
  // The first one that it names is not there, so that a client which knew no others would get no answer.
  const line = (await net.addPeer("laptop", `10.201.0.99:4433,${RELAY}:4433`, ["--oxtunnel"])).trim();
  assertMatch(line, /^oxrelay:\/\/10\.201\.0\.99:4433\?.*&also=10\.201\.0\.1:4433&/);
  await Deno.writeTextFile(`${net.directory}/invitation`, line);
  const running = await net.connect(client, ["--config", `${net.directory}/invitation`, "--json"]);
  await until(() => running.said.includes('{"server"'), "it says how it is");
  const said = running.said.split("\n").find((one) => one.startsWith("{"))!;
  const { server, servers } = JSON.parse(said);
  assertEquals(server, `${RELAY}:4433`, running.said);
  assertEquals(servers.map((one: { rttMs?: number }) => one.rttMs !== undefined), [false, true]);
});
