/**
 * The kill switch of `connect` where it is easily forgotten: before the first tunnel, for packets that this machine forwards for
 * others, and when the relay's address moves; and what the next start undoes of a client that was killed. Invariant: leaks are
 * counted behind every other rule, by a probe that is shown to see them.
 */
import { assert, assertEquals, assertGreater } from "@std/assert";
import { requires } from "../kit/requires.ts";
import { type Network, networkTest, RELAY, SERVER, SERVER_V6, until } from "../kit/namespaces.ts";

const needs = requires({ root: true, programs: ["ip", "nft", "ping", "sysctl", "sh"] });
const CONFIG = `dns = []
exit = "tun"
admin_token = "0123456789abcdef"
[destinations]
allow = ["10.200.0.0/24", "fd00:200::/64"]
`;
const OTHER_RELAY = "10.201.0.99";

/** A client with a way out by its wire, and what of its packets to the server leaves by that, counted. */
async function wired(net: Network): Promise<{ client: string; leaks: () => Promise<number> }> {
  const client = await net.client(2);
  await net.ip(client, ["route", "add", "default", "via", RELAY]);
  await net.ip(client, ["-6", "route", "add", "default", "via", "fd00:201::1"]);
  await net.must(client, ["nft", "-f", "-"], {
    input: `table inet probe { chain out { type filter hook postrouting priority 400;
  oifname "eth0" ip daddr 10.200.0.0/24 counter
  oifname "eth0" ip6 daddr fd00:200::/64 counter
}; }
`,
  });
  const leaks = async () => {
    const said = await net.must(client, ["nft", "list", "table", "inet", "probe"]);
    return [...said.matchAll(/packets (\d+)/g)].reduce((sum, [, packets]) => sum + Number(packets), 0);
  };
  return { client, leaks };
}

const ping = async (net: Network, name: string, target: string) =>
  (await net.run(name, ["ping", "-c", "2", "-i", "0.2", "-W", "1", target])).success;

async function invitation(net: Network): Promise<string> {
  const file = `${net.directory}/invitation`;
  await Deno.writeTextFile(file, await net.addPeer("laptop", `${RELAY}:4433`, ["--oxtunnel"]));
  return file;
}

networkTest(
  "connect: the kill switch is shut before the first tunnel is up, for this machine's packets and for those that it forwards",
  needs,
  async (net) => {
    const { client, leaks } = await wired(net);
    const relay = await net.relay(CONFIG);
    const file = await invitation(net);
    await relay.stop("SIGTERM");
    // Somebody behind this machine, for whom it is the router.
    const guest = await net.client(7);
    await net.ip(guest, ["route", "add", "10.200.0.0/24", "via", "10.201.0.2"]);
    await net.must(client, ["sysctl", "-qw", "net.ipv4.ip_forward=1"]);
    // Its packets go out where they came in, and it would tell its guest of the shorter way.
    for (const device of ["all", "eth0"]) {
      await net.must(client, ["sysctl", "-qw", `net.ipv4.conf.${device}.send_redirects=0`]);
    }
    await ping(net, client, SERVER);
    const own = await leaks();
    assertGreater(own, 0, "the probe sees what leaves");
    await ping(net, guest, SERVER);
    const before = await leaks();
    assertGreater(before, own, "and what is forwarded");

    const running = await net.connect(client, ["--config", file, "--kill-switch"], { says: "" });
    await until(
      async () => (await net.must(client, ["nft", "list", "ruleset"])).includes("admin-prohibited"),
      "it is shut while no relay answers",
    );
    const shut = await leaks();
    for (const target of [SERVER, SERVER_V6]) assert(!await ping(net, client, target));
    assert(!await ping(net, guest, SERVER));
    assertEquals(await leaks(), shut, "nothing leaves before the first tunnel");
    assertEquals(running.said.includes("The tunnel is up."), false);

    await net.relay(CONFIG);
    await running.says("The tunnel is up.");
    await until(() => ping(net, client, SERVER), "the tunnel carries");
    // What is forwarded goes into the tunnel, under the tunnel's address.
    await until(() => ping(net, guest, SERVER), "the guest's too");
    assertEquals(await leaks(), shut);
    await running.stop("SIGKILL");
    assert(!await ping(net, guest, SERVER), "nor after a kill");
    assertEquals(await leaks(), shut);
  },
);

networkTest(
  "connect: with the kill switch a relay at another address is reached, and nothing else by the wire",
  needs,
  async (net) => {
    const { client, leaks } = await wired(net);
    await net.ip("relay", ["addr", "add", `${OTHER_RELAY}/24`, "dev", "br0"]);
    await net.relay(CONFIG);
    const file = await invitation(net);
    const servers = `${RELAY}:4433,${OTHER_RELAY}:4433`;
    const running = await net.connect(client, [
      "--config",
      file,
      "--kill-switch",
      "--json",
      "--server",
      servers,
    ], {
      says: '"state":"connected"',
    });
    await until(() => ping(net, client, SERVER), "the tunnel carries");
    const rules = async () => await net.must(client, ["nft", "list", "table", "inet", "oxconnect"]);
    for (const address of [RELAY, OTHER_RELAY]) {
      assert(
        (await rules()).includes(`ip daddr ${address} udp dport 4433 accept`),
        "every relay may be asked",
      );
    }
    // Whichever it took goes away; the other one is all that is left.
    const inUse = () =>
      running.said.split("\n").slice(0, -1).filter((line) => line.startsWith("{")).map((line) =>
        JSON.parse(line)
      )
        .findLast(({ state }) => state === "connected")?.address as string;
    const first = inUse();
    const second = first === RELAY ? OTHER_RELAY : RELAY;
    assert([RELAY, OTHER_RELAY].includes(first), first);
    // An address that is removed takes those of its network with it that were added later.
    await net.ip("relay", ["addr", "del", `${first}/24`, "dev", "br0"]);
    await net.run("relay", ["ip", "addr", "add", `${second}/24`, "dev", "br0"]);
    await until(() => inUse() === second, "the other one is in use", 60_000);
    await until(() => ping(net, client, SERVER), "the tunnel carries by the other one", 60_000);
    assertEquals(await leaks(), 0);
    assertEquals(await running.stop("SIGINT"), 0);
  },
);

networkTest(
  "connect: the next start undoes what a killed one left: rules of other priorities, routes, resolv.conf, the table",
  needs,
  async (net) => {
    const { client } = await wired(net);
    await net.relay(CONFIG.replace("dns = []", `dns = ["${SERVER}"]`));
    const file = await invitation(net);
    const path = `${net.directory}/resolv.conf`;
    const text = "nameserver 192.0.2.53\n";
    await Deno.writeTextFile(path, text);
    const before = `mount --bind ${path} /etc/resolv.conf && exec`;
    const killed = await net.connect(client, ["--config", file], { before });
    await killed.stop("SIGKILL");
    assert((await Deno.readTextFile(path)).startsWith(`nameserver ${SERVER}`), "the kill leaves something");
    const rules = () => net.must(client, ["ip", "rule"]);
    assertGreater((await rules()).split("\n").filter((rule) => /2853\d/.test(rule)).length, 2);
    // Started again for a part of the internet only: that neither resolves through the tunnel nor has the rules of before.
    const next = await net.connect(client, ["--config", file, "--include", "10.200.0.0/24"], { before });
    assertEquals(await Deno.readTextFile(path), text, "resolv.conf is the host's own again");
    const now = await rules();
    assertEquals(now.includes("suppress_prefixlength"), false, now);
    assertEquals(now.split("\n").filter((rule) => rule.startsWith("28539:")).length, 1, now);
    const routes = await net.must(client, ["ip", "route", "show", "table", "28536"]);
    assertEquals(routes.trim().split("\n").map((route) => route.split(" ")[0]), ["10.200.0.0/24"]);
    assertEquals(await next.stop("SIGINT"), 0);
  },
);
