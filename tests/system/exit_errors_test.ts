/**
 * What the network beyond the userspace exit says of a client's packets, as the client hears it: refusals, unreachable
 * networks and hosts, hops that run out, paths that are too small; and clients that reach each other at their ports outside.
 * The server is a router too, with dead ends behind it.
 */
import { assert, assertEquals, assertGreater, assertStringIncludes } from "@std/assert";
import { requires } from "../kit/requires.ts";
import { Network, SERVER, SERVER_V6, until } from "../kit/namespaces.ts";

const needs = requires({
  root: true,
  programs: ["ip", "nft", "wg", "wg-quick", "wireguard-go", "ping", "bash", "sysctl", "timeout"],
});
/** The relay's address on the servers' side: its own, and reached through the tunnel only. */
const OUTSIDE = "10.200.0.1";
const UNROUTED = "10.210.0.1", DEAD_END = "10.211.0.1", FAR = "10.212.0.1", NARROW = "10.213.0.1";

const CONFIG = `exit = "userspace"
[destinations]
allow_peers = true
allow = ["10.200.0.0/24", "fd00:200::/64", "10.208.0.0/13", "fd00:210::/32"]
`;

/** The server forwards; what is behind it is a dead end, one hop more, or narrow. */
async function makeRoutes(net: Network): Promise<void> {
  await net.must("server", ["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.icmp_ratelimit=0"]);
  await net.ip("server", `route add unreachable 10.211.0.0/16`.split(" "));
  for (const [device, prefix, mtu] of [["far0", "10.212.0.0/16", 1500], ["thin0", "10.213.0.0/16", 600]]) {
    await net.ip("server", `link add ${device} mtu ${mtu} type bridge`.split(" "));
    await net.ip("server", `link set ${device} up`.split(" "));
    await net.ip("server", `route add ${prefix} dev ${device}`.split(" "));
  }
  for (const host of [DEAD_END, FAR, NARROW]) {
    await net.ip("relay", `route add ${host} via ${SERVER}`.split(" "));
  }
}

/** Counts ICMP that reaches the client, and sets the hops of what it sends to two ports. */
const CLIENT_RULES = `table inet probe {
  counter too_big { }
  counter expired { }
  counter unreachable { }
  counter no_network { }
  chain in {
    type filter hook input priority 0;
    icmp type destination-unreachable icmp code 4 counter name too_big
    icmp type time-exceeded ip saddr ${SERVER} counter name expired
    icmp type destination-unreachable icmp code 1 ip saddr ${SERVER} counter name unreachable
    icmp type destination-unreachable icmp code 0 counter name no_network
  }
  chain out {
    type route hook output priority 0;
    udp dport 33434 ip ttl set 2
    udp dport 8005 ip ttl set 10
    udp dport 8006 ip6 hoplimit set 10
  }
}`;
const SERVER_RULES = `table inet probe {
  counter nine4 { }
  counter nine6 { }
  counter ping4 { }
  chain in {
    type filter hook input priority 0;
    udp dport 8005 ip ttl 9 counter name nine4
    udp dport 8006 ip6 hoplimit 9 counter name nine6
    icmp type echo-request ip ttl 11 counter name ping4
  }
}`;

async function counted(net: Network, name: string, counter: string): Promise<number> {
  const said = await net.must(name, ["nft", "list", "counter", "inet", "probe", counter]);
  return Number(/packets (\d+)/.exec(said)![1]);
}

/** What the shell says when it sends a line there and waits for another; the last of up to three tries. */
async function talk(net: Network, client: string, path: string, bytes = 2): Promise<string> {
  const script = `exec 3<>/dev/${path} || exit 1; for i in 1 2 3; do head -c ${bytes} /dev/zero >&3; ` +
    `read -t 2 -u 3 line; done`;
  const { stderr } = await net.run(client, ["timeout", "20", "bash", "-c", script]);
  return stderr;
}

/** Keeps a port open outside and answers the first who knocks there. */
const WAITS = `
const socket = Deno.listenDatagram({ transport: "udp", hostname: "0.0.0.0", port: 45000 });
const open = () => socket.send(Uint8Array.of(0), { transport: "udp", hostname: "${SERVER}", port: 9 }).catch(() => {});
await open();
const again = setInterval(open, 300);
const [data, from] = await socket.receive(new Uint8Array(100));
await socket.send(Uint8Array.of(data[0] + 1), from);
console.log(from.hostname, data[0]);
Deno.exit();`;

/** Knocks at the other client's port outside until the answer comes. */
const KNOCKS = `
const socket = Deno.listenDatagram({ transport: "udp", hostname: "0.0.0.0", port: 45001 });
const knock = () => socket.send(Uint8Array.of(7), { transport: "udp", hostname: "${OUTSIDE}", port: 45000 }).catch(() => {});
await knock();
const again = setInterval(knock, 300);
const [data, from] = await socket.receive(new Uint8Array(100));
console.log(from.hostname, from.port, data[0]);
Deno.exit();`;

/** Packets whose hops end at the relay, at the router behind its exit, and not at all. */
async function spendHops(net: Network, client: string): Promise<void> {
  for (const to of [SERVER, SERVER_V6]) {
    const { stdout } = await net.run(client, ["ping", "-c", "1", "-t", "1", "-W", "3", to]);
    assert(/time to live exceeded|Hop limit/i.test(stdout), stdout);
  }
  assertGreater((await net.status()).drops.hop_limit, 1);
  await talk(net, client, `udp/${FAR}/33434`);
  assertGreater(await counted(net, client, "expired"), 0, "the router behind the exit has said so");
  await net.must(client, ["ping", "-c", "1", "-t", "12", "-W", "3", SERVER]);
  assertGreater(await counted(net, "server", "ping4"), 0, "a ping's hops too");
  await talk(net, client, `udp/${SERVER}/8005`);
  await talk(net, client, `udp/${SERVER_V6}/8006`);
  assertGreater(await counted(net, "server", "nine4"), 0, "ten hops are nine behind the exit");
  assertGreater(await counted(net, "server", "nine6"), 0);
}

Deno.test({
  name:
    "userspace exit: ICMP errors, hops and small paths reach the client, and clients reach each other outside",
  ...needs,
  sanitizeResources: false,
  sanitizeOps: false,
  async fn(t) {
    const net = await Network.open();
    try {
      await makeRoutes(net);
      await net.must("relay", ["sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647"]);
      const client = await net.client(2), other = await net.client(3);
      await net.relay(CONFIG);
      await net.wireguard(client, await net.addPeer("phone"));
      await net.wireguard(other, await net.addPeer("laptop"));
      await net.must(client, ["nft", "-f", "-"], { input: CLIENT_RULES });
      await net.must("server", ["nft", "-f", "-"], { input: SERVER_RULES });

      await t.step(
        "TCP: a closed port refuses, no network and no host are unreachable, each at once",
        async () => {
          assertStringIncludes(await talk(net, client, `tcp/${SERVER}/9`), "Connection refused");
          assertStringIncludes(await talk(net, client, `tcp/${SERVER_V6}/9`), "Connection refused");
          assertStringIncludes(await talk(net, client, `tcp/${UNROUTED}/80`), "Network is unreachable");
          assertStringIncludes(await talk(net, client, `tcp/${DEAD_END}/80`), "No route to host");
          assertGreater(
            await counted(net, client, "unreachable"),
            0,
            "in the words of the router that said so",
          );
        },
      );

      await t.step("UDP: a closed port, no network and no host are told to the sender", async () => {
        assertStringIncludes(await talk(net, client, `udp/${SERVER}/9`), "Connection refused");
        assertStringIncludes(await talk(net, client, `udp/${SERVER_V6}/9`), "Connection refused");
        // The client's system keeps these from a program that does not ask for them.
        for (const [counter, host] of [["no_network", UNROUTED], ["unreachable", DEAD_END]]) {
          const before = await counted(net, client, counter);
          await talk(net, client, `udp/${host}/9`);
          assertGreater(await counted(net, client, counter), before, counter);
        }
      });

      await t.step(
        "hops: the last one is answered by the relay, the others go on and are answered beyond",
        async () => {
          await spendHops(net, client);
        },
      );

      await t.step("a path that is too small is told to the sender", async () => {
        await talk(net, client, `udp/${NARROW}/9`, 1000);
        assertGreater(await counted(net, client, "too_big"), 0);
      });

      await t.step(
        "two clients reach each other at their ports outside, and nothing else there",
        async () => {
          const waiting = net.script(client, WAITS);
          const said = await net.script(other, KNOCKS);
          assertEquals(said.trim(), `${OUTSIDE} 45000 8`);
          assertEquals((await waiting).trim(), `${OUTSIDE} 7`, "the other one's address outside, not inside");
          const before = (await net.status()).drops.denied ?? 0;
          for (const port of [4433, 45999]) await talk(net, other, `udp/${OUTSIDE}/${port}`);
          await until(
            async () => (await net.status()).drops.denied >= before + 2,
            "both are denied and counted",
            5000,
          );
        },
      );
    } finally {
      await net.close();
    }
  },
});
