/**
 * `connect` to a relay that is known by name, with a real resolver behind the default route: every address of the name is
 * tried, a relay that moves is found although the tunnel is dead, a killed client starts again, and what leaves past a closed
 * kill switch for it is the one question. And networks without IPv6.
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { requires } from "../requires.ts";
import { type Background, type Network, networkTest, RELAY, SERVER, until } from "./namespaces.ts";

const OPEN =
  `dns = ["${SERVER}"]\nexit = "tun"\n[destinations]\nallow = ["10.200.0.0/24", "fd00:200::/64"]\n`;
const needs = requires({ root: true, programs: ["dnsmasq", "ip", "nft", "ping", "sh", "sysctl"] });
const withoutDns = requires({ root: true, programs: ["ip", "nft", "ping", "sh", "sysctl"] });
/** Reached by the client's default route only, as a provider's resolver is. */
const RESOLVER = "192.0.2.53";
const NOBODY = "10.201.0.99";

/** The relay's names as a hosts file, which may be written anew. */
class Names {
  #server: Background | undefined;

  constructor(readonly net: Network) {}

  async say(...lines: string[]): Promise<void> {
    await Deno.writeTextFile(`${this.net.directory}/names`, `${lines.join("\n")}\n`);
    await this.#server?.stop("SIGTERM");
    const words =
      "--keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --bind-interfaces --user=root " +
      `--log-queries --log-facility=- --pid-file= --listen-address=${RESOLVER} --except-interface=lo`;
    const command = ["dnsmasq", ...words.split(" "), `--addn-hosts=${this.net.directory}/names`];
    this.#server = this.net.spawn("relay", command);
    await this.#server.says("read ");
  }
}

/** A client whose resolver is RESOLVER, with the words that `connect` is to be started behind. */
async function prepare(
  net: Network,
): Promise<{ client: string; names: Names; before: string; resolvConf: string }> {
  const client = await net.client(2);
  await net.ip("relay", ["addr", "add", `${RESOLVER}/32`, "dev", "br0"]);
  await net.ip(client, ["route", "add", "default", "via", RELAY]);
  await net.ip(client, ["-6", "route", "add", "default", "via", "fd00:201::1"]);
  await net.relay(OPEN);
  const resolvConf = `${net.directory}/resolv.conf`;
  await Deno.writeTextFile(resolvConf, `nameserver ${RESOLVER}\n`);
  const before = `mount --bind ${resolvConf} /etc/resolv.conf && exec`;
  return { client, names: new Names(net), before, resolvConf };
}

async function invitation(net: Network, flags = ["--oxtunnel"]): Promise<string> {
  const file = `${net.directory}/laptop.conf`;
  await Deno.writeTextFile(file, await net.addPeer("laptop", "relay.test:4433", flags));
  return file;
}

const pings = async (net: Network, client: string) =>
  (await net.run(client, ["ping", "-c", "1", "-W", "1", SERVER])).success;

/** Counts what leaves by the wire for anybody but the relay's addresses and the resolver's port 53. */
async function watchLeaks(net: Network, client: string): Promise<() => Promise<number>> {
  await net.must(client, ["nft", "-f", "-"], {
    input: `table inet probe {
  chain out {
    type filter hook postrouting priority 400;
    oifname "eth0" ip daddr ${RESOLVER} udp dport 53 accept
    oifname "eth0" ip daddr != 10.201.0.0/24 counter
    oifname "eth0" ip6 daddr 2000::/3 counter
  }
}`,
  });
  return async () => {
    const said = await net.must(client, ["nft", "list", "table", "inet", "probe"]);
    return [...said.matchAll(/packets (\d+)/g)].reduce((sum, [, packets]) => sum + Number(packets), 0);
  };
}

for (const flags of [[], ["--kill-switch"]]) {
  const name = flags.length > 0 ? ", past a closed kill switch" : "";
  networkTest(
    `connect: a relay that moves is found by its name outside the dead tunnel${name}`,
    needs,
    async (net) => {
      const { client, names, before } = await prepare(net);
      await net.ip("relay", "addr add 10.201.0.8/24 dev br0".split(" "));
      await names.say("10.201.0.8 relay.test");
      const running = await net.connect(client, ["--config", await invitation(net), ...flags], { before });
      assert(await pings(net, client), running.said);
      const leaks = flags.length > 0 ? await watchLeaks(net, client) : undefined;
      await net.ip("relay", "addr del 10.201.0.8/24 dev br0".split(" "));
      await net.ip("relay", "addr add 10.201.0.7/24 dev br0".split(" "));
      await names.say("10.201.0.7 relay.test");
      await until(() => pings(net, client), `the tunnel leads to the new address: ${running.said}`, 60_000);
      assertEquals(await leaks?.() ?? 0, 0);
      const rules = await net.must(client, ["ip", "-4", "rule"]);
      assert(!rules.includes(RESOLVER), `no way out is left open: ${rules}`);
      assertEquals(await running.stop("SIGINT"), 0, running.said);
    },
  );

  networkTest(`connect: a killed client starts again by the relay's name${name}`, needs, async (net) => {
    const { client, names, before, resolvConf } = await prepare(net);
    await names.say(`${RELAY} relay.test`);
    const file = await invitation(net);
    const killed = await net.connect(client, ["--config", file, ...flags], { before });
    await killed.stop("SIGKILL");
    // The tunnel's resolver, which nobody reaches now.
    assertStringIncludes(await Deno.readTextFile(resolvConf), `nameserver ${SERVER}\n`);
    const leaks = flags.length > 0 ? await watchLeaks(net, client) : undefined;
    const next = await net.connect(client, ["--config", file, ...flags], { before });
    assert(await pings(net, client), next.said);
    assertEquals(await leaks?.() ?? 0, 0);
    assertEquals(await next.stop("SIGINT"), 0, next.said);
    assertEquals(await Deno.readTextFile(resolvConf), `nameserver ${RESOLVER}\n`);
  });
}

networkTest("connect: a start that fails leaves a closed kill switch closed", needs, async (net) => {
  const { client, names, before } = await prepare(net);
  await names.say(`${RELAY} relay.test`);
  const file = await invitation(net);
  const killed = await net.connect(client, ["--config", file, "--kill-switch"], { before });
  await killed.stop("SIGKILL");
  await names.say(`${RELAY} another.test`);
  await net.connect(client, ["--config", file, "--kill-switch"], { before, says: "cannot be resolved" });
  assert(
    (await net.run(client, ["nft", "list", "chain", "inet", "oxconnect", "output"])).stdout.includes(
      "reject",
    ),
  );
  assert(!await pings(net, client));
});

for (const protocol of ["oxtunnel", "wireguard"]) {
  networkTest(`connect: every address of the relay's name is tried, ${protocol}`, needs, async (net) => {
    const { client, names, before } = await prepare(net);
    const file = await invitation(net, []);
    // Whichever family the resolver's order puts first, one of the two has nobody there.
    for (
      const lines of [[`${NOBODY} relay.test`, "fd00:201::1 relay.test"], [
        `${RELAY} relay.test`,
        "fd00:201::99 relay.test",
      ]]
    ) {
      await names.say(...lines);
      const running = await net.connect(client, ["--config", file, "--protocol", protocol], { before });
      assert(await pings(net, client), running.said);
      assertEquals(await running.stop("SIGINT"), 0, running.said);
    }
  });
}

networkTest("connect: without IPv6 on client and relay the tunnel carries IPv4", withoutDns, async (net) => {
  for (const key of ["all", "default"]) {
    await net.must("relay", ["sysctl", "-w", `net.ipv6.conf.${key}.disable_ipv6=1`]);
  }
  const client = await net.client(2).catch(() => "c1");
  for (const key of ["all", "default"]) {
    await net.must(client, ["sysctl", "-w", `net.ipv6.conf.${key}.disable_ipv6=1`]);
  }
  const relay = await net.relay(OPEN);
  assertStringIncludes(relay.said, "IPv6 stays off in the tunnel");
  const file = `${net.directory}/laptop.conf`;
  await Deno.writeTextFile(file, await net.addPeer("laptop"));
  const running = await net.connect(client, ["--config", file]);
  assertStringIncludes(running.said, "IPv6 is off on this system");
  assert(await pings(net, client), running.said);
  assertEquals(await running.stop("SIGINT"), 0, running.said);
});
