/**
 * The destination policy of a real relay, exit by exit: what a client reaches by default, and what each key of
 * [destinations] opens. Invariant: every address has an answering host behind it, and is shown to answer under
 * some key, so that silence under the others is the policy's work. TCP follows the same verdicts and is not tried.
 */
import { assert, assertEquals, assertGreaterOrEqual } from "@std/assert";
import { requires } from "../kit/requires.ts";
import { ADMIN_TOKEN, type Background, Network, until } from "../kit/namespaces.ts";

const needs = requires({
  root: true,
  programs: ["ip", "nft", "wg", "wg-quick", "wireguard-go", "ping", "sysctl", "bash"],
});

const PUBLIC = ["203.0.113.9", "2001:db8:7::9"];
const PRIVATE = ["10.200.0.2", "172.16.9.9", "192.168.9.9", "100.64.9.9", "fd00:200::2"];
/** The last is the cloud's metadata address by NAT64 (RFC 6052), which the policy must see through. */
const LINK_LOCAL = ["169.254.169.254", "169.254.9.9", "64:ff9b::a9fe:a9fe"];
/** Of the relay's own host, public addresses included. */
const HOST = ["127.0.0.1", "::1", "198.51.100.1", "2001:db8:8::1"];
/** A client's kernel takes no answer from here that comes by a device, so arrivals are counted at the host. */
const MUTE = "::1";
/** Own and private at once: needs both keys. */
const HOST_PRIVATE = ["10.200.0.1", "fd00:200::1"];
/** Without a zone no exit can send there, not even when the policy lets it pass. */
const ZONED = ["fe80::9"];

interface Opening {
  /** Lines of [destinations]. */
  toml: string;
  /** What answers then, besides PUBLIC. */
  opens: string[];
  /** What the policy lets pass and the exit cannot or will not carry. */
  lost?: string[];
}

function openings(exit: string, peers: string[]): Opening[] {
  const table: Opening[] = [
    { toml: "", opens: [] },
    { toml: "allow_private = true", opens: PRIVATE },
    { toml: "allow_link_local = true", opens: LINK_LOCAL, lost: ZONED },
    { toml: "allow_loopback = true", opens: HOST },
    { toml: "allow_loopback = true\nallow_private = true", opens: [...HOST, ...HOST_PRIVATE, ...PRIVATE] },
    { toml: "allow_peers = true", opens: peers },
    {
      toml: `allow = ["10.200.0.0/24", "172.16.9.0/24", "169.254.169.254/32", "fd00:200::2/128"]`,
      opens: ["10.200.0.2", "172.16.9.9", "169.254.169.254", "64:ff9b::a9fe:a9fe", "fd00:200::2"],
    },
  ];
  if (exit === "userspace") return table;
  // No kernel takes a packet to ::1 from a device.
  return table.map(({ toml, opens, lost = [] }) => ({
    toml,
    opens: opens.filter((address) => address !== MUTE),
    lost: [...lost, ...opens.filter((address) => address === MUTE)],
  }));
}

/** A server that sends every datagram to port 7777 of these addresses back. */
function echo(addresses: string[]): string {
  return `
for (const hostname of ${JSON.stringify(addresses)}) {
  const socket = Deno.listenDatagram({ transport: "udp", hostname, port: 7777 });
  (async () => { for await (const [data, from] of socket) await socket.send(data, from).catch(() => {}); })();
}
console.log("ready");`;
}

/** Which of the addresses answer a client's datagrams and pings, as sorted "udp ADDRESS" and "ping ADDRESS". */
async function answers(net: Network, client: string, addresses: string[], waitS: number): Promise<string[]> {
  const datagrams = `
const four = Deno.listenDatagram({ transport: "udp", hostname: "0.0.0.0", port: 0 });
const six = Deno.listenDatagram({ transport: "udp", hostname: "::", port: 0 });
const addresses = ${JSON.stringify(addresses)};
const heard = new Set();
for (const socket of [four, six]) {
  (async () => { for await (const [, from] of socket) heard.add(from.hostname); })();
}
for (const end = Date.now() + ${waitS * 1000}; Date.now() < end && heard.size < addresses.length;) {
  for (const hostname of addresses) {
    if (heard.has(hostname)) continue; // a late answer to a closed port would be refused, through the tunnel
    await (hostname.includes(":") ? six : four).send(new Uint8Array(9), { transport: "udp", hostname, port: 7777 });
  }
  await new Promise((resolve) => setTimeout(resolve, 100));
}
for (const address of heard) console.log("udp " + address);
Deno.exit();`;
  const pings = addresses.map((address) =>
    `{ ping -q -c 1 -i 0.2 -w ${waitS} ${address} >&2 && echo ping ${address}; } &`
  );
  const said = await Promise.all([
    net.script(client, datagrams),
    net.must(client, ["bash", "-c", `${pings.join("\n")}\nwait`]),
  ]);
  return said.flatMap((text) => text.trim().split("\n")).filter((line) => line !== "").sort();
}

const bothWays = (addresses: string[]) =>
  addresses.flatMap((address) => [`udp ${address}`, `ping ${address}`]).sort();

/** Gives every address above its host, and the client a way to send to each through the tunnel. */
async function furnish(net: Network): Promise<void> {
  for (const address of [...PUBLIC, ...PRIVATE.slice(1, 4), ...LINK_LOCAL]) {
    const host = `${address}/${address.includes(":") ? "128" : "32"}`;
    const family = address.includes(":") ? "-6" : "-4";
    const via = address.includes(":") ? "fd00:200::2" : "10.200.0.2";
    await net.ip("server", [family, "addr", "add", host, "dev", "lo"]);
    await net.ip("relay", [family, "route", "add", host, "via", via]);
  }
  await net.ip("server", ["addr", "add", "fe80::9/64", "dev", "eth0", "nodad"]);
  await net.ip("relay", ["addr", "add", "198.51.100.1/32", "dev", "lo"]);
  await net.ip("relay", ["addr", "add", "2001:db8:8::1/128", "dev", "lo"]);
  // The userspace exit may ping only where this says so.
  await net.must("relay", ["sysctl", "-qw", "net.ipv4.ping_group_range=0 0"]);
  await net.must("relay", ["nft", "-f", "-"], {
    input:
      `table inet watch { chain seen { type filter hook input priority 10; ip6 daddr ${MUTE} counter; }; }`,
  });
  await net.server("server", echo([...PUBLIC, ...PRIVATE, ...LINK_LOCAL]));
  await net.server("relay", echo([...HOST, ...HOST_PRIVATE]));
}

/** Loopback and link-local addresses, which a client's kernel would keep to itself, go through the tunnel. */
async function sendAllThroughTunnel(net: Network, client: string, inner: string[]): Promise<void> {
  const device = net.device(client);
  await net.ip(client, ["addr", "flush", "dev", "lo"]);
  await net.ip(client, ["-6", "addr", "flush", "dev", device, "scope", "link"]);
  await net.ip(client, ["-6", "route", "flush", "fe80::/64"]);
  await net.must(client, ["sysctl", "-qw", `net.ipv4.conf.${device}.route_localnet=1`]);
  await net.ip(client, ["route", "add", "127.0.0.0/8", "dev", device, "src", inner[0]]);
  for (const address of ["::1", ...ZONED]) {
    await net.ip(client, ["-6", "route", "add", address, "dev", device, "src", inner[1]]);
  }
}

async function arrivals(net: Network): Promise<number> {
  return Number(
    /packets (\d+)/.exec(await net.must("relay", ["nft", "list", "table", "inet", "watch"]))?.[1],
  );
}

async function reload(net: Network, relay: Background, config: string): Promise<void> {
  const times = () => relay.said.split("reloaded: ").length;
  const before = times();
  await Deno.writeTextFile(`${net.directory}/oxrelay.toml`, config);
  relay.child.kill("SIGHUP");
  await until(() => times() > before, "the relay has reloaded");
}

for (const exit of ["tun", "userspace"]) {
  Deno.test({
    name: `${exit}: clients reach the internet only, and each key of [destinations] opens just what it says`,
    ...needs,
    sanitizeResources: false,
    sanitizeOps: false,
    async fn(t) {
      const net = await Network.open();
      try {
        const clients = [await net.client(2), await net.client(3)];
        await furnish(net);
        const config = (toml: string) =>
          `exit = "${exit}"\nadmin_token = "${ADMIN_TOKEN}"\n[destinations]\n${toml}\n`;
        const relay = await net.relay(config(""));
        const inner: string[][] = [];
        for (const client of clients) {
          const configuration = await net.addPeer(client);
          inner.push([.../^Address = (.*)$/m.exec(configuration)![1].matchAll(/[^\s,]+(?=\/)/g)].map(String));
          await net.wireguard(client, configuration);
          await net.must(client, ["ping", "-c", "1", "-w", "10", "10.66.0.1"]);
        }
        const [first, second] = clients;
        await sendAllThroughTunnel(net, first, inner[0]);
        await net.server(second, echo(inner[1]));
        const all = [...PRIVATE, ...LINK_LOCAL, ...HOST, ...HOST_PRIVATE, ...ZONED, ...inner[1]];

        const table = openings(exit, inner[1]);
        for (const { toml, opens, lost = [] } of table) {
          await t.step(toml === "" ? "by default" : toml.replace("\n", " and "), async () => {
            if (toml !== "") await reload(net, relay, config(toml));
            const closed = all.filter((address) => !opens.includes(address) && !lost.includes(address));
            const before = await net.status();
            assertEquals(await answers(net, first, closed, 1), []);
            const after = await net.status();
            assertEquals(after.counters.packets_to_exit, before.counters.packets_to_exit);
            assertEquals(after.counters.packets_between_peers, before.counters.packets_between_peers);
            assertGreaterOrEqual(after.drops.denied - before.drops.denied, 2 * closed.length);

            assertEquals(await answers(net, first, lost, 1), [], "the exit itself keeps these closed");
            const heard = await arrivals(net);
            const open = [...PUBLIC, ...opens].filter((address) => address !== MUTE);
            assertEquals(await answers(net, first, open, 5), bothWays(open));
            await answers(net, first, [...opens, ...lost].filter((address) => address === MUTE), 0.5);
            assertEquals(await arrivals(net) > heard, opens.includes(MUTE));
            const back = await net.run(second, ["ping", "-c", "1", "-i", "0.2", "-w", "2", inner[0][0]]);
            assertEquals(back.success, toml === "allow_peers = true", back.stdout);
          });
        }
        const shown = table.flatMap(({ opens, lost = [] }) => [...opens, ...lost]);
        assert(
          all.every((address) => shown.includes(address)),
          "an address that no row opens proves nothing",
        );
      } finally {
        await net.close();
      }
    },
  });
}
