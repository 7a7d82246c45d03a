/**
 * `ping` and `netcheck` in network namespaces: both ends of a ping over both protocols and with workers, and networks that differ
 * in NAT, packet size and what they do to UDP.
 */
import { assert, assertEquals, assertGreater, assertMatch } from "@std/assert";
import { requires } from "../kit/requires.ts";
import { makeCertificate } from "../kit/certificate.ts";
import { ADMIN_TOKEN, type Network, networkTest, RELAY, SERVER, until } from "../kit/namespaces.ts";
import type { Netcheck } from "../../src/cli/checks/netcheck.ts";

const needs = requires({
  root: true,
  programs: ["ip", "nft", "ping", "wg", "wg-quick", "wireguard-go", "openssl", "sysctl"],
});
const OPEN = `exit = "tun"\nworkers = 2\n[destinations]\nallow = ["10.200.0.0/24"]\n`;

/** Runs a subcommand beside the relay, with its token. */
async function atRelay(net: Network, task: "ping", args: string[]) {
  const env = [`OXRELAY_STATE_DIR=${net.directory}/state`, `OXRELAY_ADMIN_TOKEN=${ADMIN_TOKEN}`];
  return await net.run("relay", [
    "env",
    ...env,
    ...net.command(task, [...args, "--config", `${net.directory}/oxrelay.toml`]),
  ]);
}

/** Replaces the rules of a client's own network. */
async function rules(net: Network, client: string, chains: string): Promise<void> {
  await net.run(client, ["nft", "flush", "ruleset"]);
  await net.must(client, ["nft", "-f", "-"], { input: `table ip its_network {\n${chains}\n}\n` });
}

networkTest(
  "ping: from the relay to devices, from a device to the relay and beyond; the connections of a tun exit are counted",
  needs,
  async (net) => {
    await net.relay(OPEN);
    const client = await net.client(2);
    await net.wireguard(client, await net.addPeer("phone"));
    assert((await net.run(client, ["ping", "-c", "1", "-W", "5", SERVER])).success);
    const laptop = `${net.directory}/laptop.conf`;
    await Deno.writeTextFile(laptop, await net.addPeer("laptop", undefined, ["--oxtunnel"]));
    const other = await net.client(3);

    const phone = await atRelay(net, "ping", ["phone", "--count", "2", "--json"]);
    const figures = JSON.parse(phone.stdout);
    assertEquals([phone.success, figures.sent, figures.received], [true, 2, 2], phone.stderr);
    assertGreater(figures.minMs, 0);
    assertGreater(figures.maxMs, 0);
    // The device is there, and its tunnel is down: nobody answers.
    const off = await atRelay(net, "ping", ["laptop", "--count", "1"]);
    assertEquals([off.success, off.stdout], [false, "laptop: no answer\n1 sent, 0 answered\n"], off.stderr);
    const nobody = await atRelay(net, "ping", ["nobody", "--count", "1"]);
    assertMatch(nobody.stderr, /there is no peer nobody/);

    const to = (words: string[]) =>
      net.run(other, net.command("ping", ["--from", laptop, "--count", "1", ...words]));
    const relay = await to([]);
    assertMatch(
      relay.stdout,
      /^the relay \(10\.66\.0\.1\): [\d.]+ ms\n1 sent, 1 answered; least/,
      relay.stderr,
    );
    assertMatch((await to([SERVER])).stdout, /^10\.200\.0\.2: [\d.]+ ms\n/);

    const metrics = async () => (await net.ask("/metrics")).text;
    await until(
      async () => Number(/^oxrelay_exit_flows (\d+)$/m.exec(await metrics())?.[1]) > 0,
      "flows are counted",
    );
  },
);

networkTest(
  "netcheck: NAT, sizes, families, relays, and UDP that is slowed down or blocked",
  needs,
  async (net) => {
    const { certificate, privateKey } = await makeCertificate(net.directory, "relay.test");
    const fallback =
      `[fallback]\nlisten = "0.0.0.0:443"\ncertificate = "${certificate}"\nprivate_key = "${privateKey}"\n`;
    await net.relay(`exit = "userspace"\n${fallback}`);
    const client = await net.client(2);
    await net.ip(client, ["route", "add", "default", "via", RELAY]);
    const file = `${net.directory}/laptop.conf`;
    await Deno.writeTextFile(file, await net.addPeer("laptop", undefined, ["--oxtunnel"]));
    const check = async (servers: string[], flags = ["--quick", "--json"], from = client) => {
      const words = servers.flatMap((server) => ["--server", server]);
      return await net.run(from, net.command("netcheck", ["--config", file, ...words, ...flags]));
    };
    const found = async (servers: string[], from = client) => {
      const { stdout, stderr } = await check(servers, undefined, from);
      assert(stdout !== "", stderr);
      return JSON.parse(stdout) as Netcheck;
    };
    const TWO = [`${RELAY}:4433`, "10.200.0.1:4433"];

    const plain = await found([...TWO, "[fd00:201::1]:4433"]);
    assertEquals([plain.ipv4, plain.ipv6, plain.nat.map(({ kind }) => kind)], [true, true, ["none", "none"]]);
    assertEquals(plain.relays.map(({ answered }) => answered), [3, 3, 3]);
    assert(plain.nearest !== undefined);
    // 1500 less 20 of IPv4 or 40 of IPv6 and 8 of UDP, and what a datagram adds.
    assert(
      typeof plain.innerMtu === "number" && plain.innerMtu > 1400 && plain.innerMtu < 1472,
      `${plain.innerMtu}`,
    );

    // A home's router in front of another device: it keeps a device's port, or gives each destination another.
    const home = await net.client(3);
    await net.ip(client, ["addr", "add", "192.168.7.1/24", "dev", "eth0"]);
    await net.must(client, [
      "sysctl",
      "-qw",
      "net.ipv4.ip_forward=1",
      "net.ipv4.conf.all.send_redirects=0",
      "net.ipv4.conf.eth0.send_redirects=0",
    ]);
    await net.ip(home, ["addr", "flush", "dev", "eth0"]);
    await net.ip(home, ["addr", "add", "192.168.7.2/24", "dev", "eth0"]);
    await net.ip(home, ["route", "add", "default", "via", "192.168.7.1"]);
    const chain = (nat: string) =>
      `chain out { type nat hook postrouting priority srcnat; ip saddr 192.168.7.2 ${nat}; }`;
    await rules(net, client, chain("masquerade"));
    const open = (await found(TWO, home)).nat[0];
    assertEquals([open.kind, open.seen.length], ["endpoint-independent", 1]);
    assertMatch(open.seen[0], /^10\.201\.0\.2:\d+$/);
    await rules(net, client, chain("masquerade random"));
    const strict = (await found(TWO, home)).nat[0];
    assertEquals([strict.kind, strict.seen.length], ["address-dependent", 2]);

    const out = "type filter hook output priority 0; udp dport 4433";
    await rules(net, client, `chain out { ${out} limit rate over 100 kbytes/second drop; }`);
    const slowed = await check([], []);
    assert(slowed.success, slowed.stderr);
    assertMatch(slowed.stdout, /^TLS +can be reached$/m);
    assertMatch(
      slowed.stdout,
      /^throttling UDP is slowed down: up [\d.]+ k?bit\/s over UDP and [\d.]+ [MG]bit\/s over TLS/m,
    );

    await rules(net, client, `chain out { ${out} drop; }`);
    const blocked = await check([TWO[0]], ["--quick"]);
    assertEquals(blocked.success, false);
    assertMatch(blocked.stdout, /^UDP +no relay answers: blocked on the way, or the relay is off/);
  },
);
