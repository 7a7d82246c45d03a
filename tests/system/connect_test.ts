/**
 * `connect` as a person would use it, in network namespaces against a real relay or Debian's wireguard-go: what goes into
 * the tunnel and what does not, and that everything is put back, after a kill -9 too. Each test makes and removes its
 * own network.
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import project from "../../deno.json" with { type: "json" };
import { requires } from "../requires.ts";
import { type Background, Network, RELAY, SERVER, SERVER_V6 } from "./namespaces.ts";

const MAIN = new URL("../../main.ts", import.meta.url).pathname;
const OPEN = `exit = "tun"\n[destinations]\nallow = ["10.200.0.0/24", "fd00:200::/64"]\n`;
const needs = requires({ root: true, programs: ["ip", "nft", "ping", "wg", "wg-quick", "wireguard-go"] });

/** One relay with its client's namespace; the test connects as it likes. */
function scenario(
  name: string,
  body: (net: Network, client: string, file: string) => Promise<void>,
): void {
  Deno.test({
    name: `connect: ${name}`,
    ...needs,
    sanitizeResources: false,
    sanitizeOps: false,
    async fn() {
      const net = await Network.open();
      try {
        const client = await net.client(2);
        await net.relay(OPEN);
        const file = `${net.directory}/laptop.conf`;
        await Deno.writeTextFile(file, await net.addPeer("laptop"));
        await body(net, client, file);
      } finally {
        await net.close();
      }
    },
  });
}

/** Starts `connect` with the task's own permissions, after the shell words of `before`; resolves when the tunnel is up. */
async function connect(
  net: Network,
  client: string,
  args: string[],
  { before = "", says = "The tunnel is up." } = {},
): Promise<Background> {
  const words = project.tasks.connect.split(" ");
  const flags = words.slice(1, words.indexOf("main.ts"));
  const script = `${before} exec "$0" "$@"`;
  const running = net.spawn(client, [
    "sh",
    "-c",
    script,
    Deno.execPath(),
    ...flags,
    MAIN,
    "connect",
    ...args,
  ]);
  await running.says(says);
  return running;
}

async function reaches(net: Network, client: string, target: string, as: string[] = []): Promise<boolean> {
  return (await net.run(client, [...as, "ping", "-c", "2", "-i", "0.2", "-W", "1", target])).success;
}

/** What `connect` may change in a namespace, as text. */
async function hostState(net: Network, client: string): Promise<string> {
  const said = [];
  for (
    const words of [
      "ip -4 rule",
      "ip -6 rule",
      "ip -4 route show table all",
      "ip -6 route show table all",
      "ip link",
    ]
  ) said.push(await net.must(client, words.split(" ")));
  said.push(await net.must(client, ["nft", "list", "ruleset"]));
  return said.join("---\n");
}

scenario("everything goes through the tunnel, and nothing is left behind", async (net, client, file) => {
  const before = await hostState(net, client);
  assert(!await reaches(net, client, SERVER));
  const running = await connect(net, client, ["--config", file]);
  assert(await reaches(net, client, SERVER), running.said);
  assert(await reaches(net, client, SERVER_V6), running.said);
  assert(await reaches(net, client, RELAY), "networks that the host is in stay reachable");
  assertEquals(await running.stop("SIGINT"), 0, running.said);
  assert(!await reaches(net, client, SERVER));
  assertEquals(await hostState(net, client), before);
});
void assertStringIncludes;
