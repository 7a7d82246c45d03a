/**
 * The NAT of the TUN exit with real clients: what one of them may take of conntrack, which ports they leave by, who may answer
 * them, for how long, and what is left when one is removed. Invariant: whatever is counted is counted at the far end or in the
 * kernel's own table.
 */
import { assert, assertEquals, assertGreater, assertGreaterOrEqual, assertLessOrEqual } from "@std/assert";
import { requires } from "../kit/requires.ts";
import {
  type Background,
  type Network,
  networkTest,
  RELAY,
  SERVER,
  SERVER_V6,
  until,
} from "../kit/namespaces.ts";

const needs = requires({
  root: true,
  programs: ["ip", "nft", "wg", "wg-quick", "wireguard-go", "ping", "sysctl", "sh"],
});
const CONFIG = `exit = "tun"
listen = "0.0.0.0:4433"
metrics_listen = "127.0.0.1:9090"
admin_token = "0123456789abcdef"
[destinations]
allow = ["10.200.0.2/32", "fd00:200::2/128"]
`;
const PEER_FLOWS = 4096;

interface Connection {
  protocol: string;
  /** Seconds until the kernel forgets it. */
  left: number;
  source: string;
  port: number;
}

/** The kernel's connections on the relay that clients began, by their inner source. */
async function connections(net: Network): Promise<Connection[]> {
  const table = await net.must("relay", ["cat", "/proc/net/nf_conntrack"]);
  return table.split("\n").flatMap((line) => {
    const found = /^ipv[46] +\d+ (\w+) +\d+ (\d+) .*?src=(\S+) dst=\S+ (?:sport=(\d+))?/.exec(line);
    if (found === null) return [];
    return [{ protocol: found[1], left: Number(found[2]), source: plain(found[3]), port: Number(found[4]) }];
  });
}

/** An IPv6 address in the short form in which peers have it. */
const plain = (address: string) =>
  address.includes(":") ? new URL(`http://[${address}]`).hostname.slice(1, -1) : address;

/** A client with WireGuard up; its inner addresses. */
async function client(net: Network, host: number, peer: string): Promise<{ name: string; own: string[] }> {
  const name = await net.client(host);
  const config = await net.addPeer(peer);
  await net.wireguard(name, config);
  const own = /^Address = (.*)$/m.exec(config)![1].split(", ").map((prefix) => prefix.split("/")[0]);
  await net.must(name, ["ping", "-c", "1", "-w", "40", SERVER], { timeoutS: 60 });
  return { name, own };
}

/** Says from where each datagram to these UDP ports came, and sends it back. */
const ECHO = (ports: number[]) => `
for (const [hostname, port] of ${
  JSON.stringify(ports.flatMap((port) => [[SERVER, port], [SERVER_V6, port]]))
}) {
  const socket = Deno.listenDatagram({ transport: "udp", hostname, port });
  (async () => { for await (const [data, from] of socket) {
    console.log("[" + new TextDecoder().decode(data) + "] " + port + " from " + from.port);
    await socket.send(data, from).catch(() => {});
  } })();
}
console.log("ready");`;

/** A client's socket on a port: sends each line of text to an address, and prints what comes from whom. */
const TALK = (port: number, to: [string, number, string][], hostname = "0.0.0.0") => `
const socket = Deno.listenDatagram({ transport: "udp", hostname: "${hostname}", port: ${port} });
(async () => { for await (const [data, from] of socket) {
  console.log("heard [" + new TextDecoder().decode(data) + "] from " + from.hostname + " " + from.port);
} })();
for (const [hostname, port, text] of ${JSON.stringify(to)}) {
  await socket.send(new TextEncoder().encode(text), { transport: "udp", hostname, port });
}
console.log("ready");`;

async function sourcePort(server: Background, text: string): Promise<number> {
  const seen = () => new RegExp(`\\[${text}\\] \\d+ from (\\d+)`).exec(server.said);
  await until(() => seen() !== null, `the server hears "${text}"`);
  return Number(seen()![1]);
}

networkTest(
  "tun exit: one peer's connections are bounded over both families, another peer and the host go on, and they end with the peer and with the relay",
  needs,
  async (net) => {
    const relay = await net.relay(CONFIG);
    const greedy = await client(net, 2, "greedy"), other = await client(net, 3, "other");
    // A closed port is as good as any: what is counted is the way there.
    const flood = `
for (const [any, hostname] of [["0.0.0.0", "${SERVER}"], ["::", "${SERVER_V6}"]]) {
  for (const port of [0, 0]) {
    const socket = Deno.listenDatagram({ transport: "udp", hostname: any, port });
    for (let port = 10000; port < 14000; port++) {
      try { await socket.send(new Uint8Array(1), { transport: "udp", hostname, port }); } catch { /* refused */ }
      if (port % 100 === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }
}`;
    /** Whether one of some pings is answered: a busy machine may lose any of them, a full table all. */
    const reaches = async (name: string, address: string) =>
      (await net.run(name, ["ping", "-q", "-c", "1", "-w", "20", address])).success;
    const flooding = net.script(greedy.name, flood, 60);
    for (let i = 0; i < 5; i++) {
      await until(() => reaches(other.name, SERVER), "another peer goes on", 60_000);
    }
    await flooding;
    const of = async (own: string[]) => (await connections(net)).filter(({ source }) => own.includes(source));
    const taken = await of(greedy.own);
    assertGreater(taken.length, PEER_FLOWS / 2, "the flood must have got somewhere, or this proves nothing");
    assertLessOrEqual(taken.length, PEER_FLOWS);
    assert(taken.some(({ source }) => source.includes(":")) || taken.length > PEER_FLOWS - 200);
    for (const [name, address] of [[other.name, SERVER], [other.name, SERVER_V6], ["relay", SERVER]]) {
      await until(() => reaches(name, address), `${name} goes on`, 60_000);
    }
    const table = await net.must("relay", ["cat", "/proc/net/nf_conntrack"]);
    assertEquals(/ dport=4433 /.test(table), false, "what anybody may send to the relay costs no entry");

    // A peer can be cut off whatever somebody has done to the rules.
    await net.must("relay", ["nft", "flush", "table", "inet", "oxrelay_oxrelay0"]);
    await net.must("relay", ["nft", "delete", "map", "inet", "oxrelay_oxrelay0", "peers4"]);
    await net.changePeer(["remove", "greedy"]);
    await until(
      async () => (await of(greedy.own)).length === 0,
      "a removed peer's connections are forgotten",
    );
    assertGreater((await of(other.own)).length, 0, "and nobody else's");
    assertEquals(await relay.stop("SIGTERM"), 0);
    assertEquals(await of(other.own), []);
  },
);

networkTest(
  "tun exit: no client leaves by the relay's port, one that another program listens on or an ephemeral one of the host, and two on one port are told apart",
  needs,
  async (net) => {
    const LISTENERS = `
Deno.listenDatagram({ transport: "udp", hostname: "0.0.0.0", port: 12000 });
Deno.listen({ hostname: "0.0.0.0", port: 12001 });
setInterval(() => {}, 1e6); // a listener alone keeps no program running
console.log("ready");`;
    await net.server("relay", LISTENERS);
    await net.relay(CONFIG);
    const one = await client(net, 2, "one"), two = await client(net, 3, "two");
    const server = await net.server("server", ECHO([7777, 7778]));
    await net.server(one.name, TALK(4433, [[SERVER, 7777, "shadow"]]));
    const talks = [
      await net.server(one.name, TALK(20000, [[SERVER, 7777, "one"], [SERVER, 7778, "one again"]])),
      await net.server(two.name, TALK(20000, [[SERVER, 7777, "two"], [SERVER, 7778, "two again"]])),
    ];
    const ports: Record<string, number> = {};
    for (const text of ["shadow", "one", "two", "one again", "two again"]) {
      ports[text] = await sourcePort(server, text);
      assertGreaterOrEqual(ports[text], 12002, text);
      assertLessOrEqual(ports[text], 32767, text);
    }
    assert(ports.one !== ports.two, "one port of the host is one client's");
    assertEquals(ports["one again"], ports.one, "one mapping for all destinations (RFC 4787 REQ-1)");
    assertEquals(ports["two again"], ports.two);
    for (const [i, text] of ["one", "two"].entries()) {
      await until(() => talks[i].said.includes(`heard [${text} again]`), "both answers come back");
      const heard = [...talks[i].said.matchAll(/heard \[(.*?)\]/g)].map(([, said]) => said).sort();
      assertEquals(heard, [text, `${text} again`], "each client hears what is its own");
    }
  },
);

networkTest("tun exit: no client leaves by a port on which a program has UDP alone", needs, async (net) => {
  const port = 13_000;
  await net.server(
    "relay",
    `Deno.listenDatagram({ transport: "udp", hostname: "0.0.0.0", port: ${port} });
setInterval(() => {}, 1e6); // a socket alone keeps no program running
console.log("ready");`,
  );
  await net.relay(CONFIG);
  const one = await client(net, 2, "one");
  const server = await net.server("server", ECHO([7777]));
  await net.server(one.name, TALK(port, [[SERVER, 7777, "shadow"]]));
  assertGreaterOrEqual(await sourcePort(server, "shadow"), port + 1);
});

networkTest(
  "tun exit: whoever knows a client's mapping reaches it (open NAT, both families), no other client and no program of the host",
  needs,
  async (net) => {
    const relay = await net.relay(CONFIG);
    assert(relay.said.includes("open NAT"), relay.said);
    const one = await client(net, 2, "one"), two = await client(net, 3, "two");
    const server = await net.server("server", ECHO([7777]));
    const others = await net.server(two.name, TALK(20000, [[SERVER, 7777, "two"]]));
    for (
      const [port, any, far, here] of [[21000, "0.0.0.0", SERVER, "10.200.0.1"], [
        21001,
        "::",
        SERVER_V6,
        "fd00:200::1",
      ]] as const
    ) {
      const text = `one over ${far}`;
      const talk = await net.server(one.name, TALK(port, [[far, 7777, text]], any));
      const mapped = await sourcePort(server, text.replaceAll(".", "\\."));
      // Another port of the server's: the client never sent there.
      const stranger = await net.server("server", TALK(9999, [[here, mapped, "stranger"]], far));
      await until(() => talk.said.includes(`heard [stranger] from ${far} 9999`), "the stranger is heard");
      assertEquals(others.said.includes("stranger"), false);
      assertEquals(stranger.said.includes("heard"), false);
    }
    // Once the host has a program on a port, strangers reach that and not a client who left by it before.
    await net.server(one.name, TALK(22000, [[SERVER, 7777, "before"]]));
    const mapped = await sourcePort(server, "before");
    const program = await net.server("relay", TALK(mapped, []));
    await net.server("server", TALK(9998, [["10.200.0.1", mapped, "to the host"]]));
    await until(() => program.said.includes("heard [to the host]"), "the host's program hears it");
  },
);

networkTest(
  "tun exit: a client's UDP mapping lives for two minutes, TCP for two hours and four, in both families",
  needs,
  async (net) => {
    await net.relay(CONFIG);
    const { name, own } = await client(net, 2, "one");
    const server = await net.server("server", ECHO([7777]));
    await net.server(
      "server",
      `for (const hostname of ["${SERVER}", "${SERVER_V6}"]) {
  const listener = Deno.listen({ hostname, port: 8888 });
  (async () => { for await (const connection of listener) void connection; })();
}
console.log("ready");`,
    );
    for (const [port, any, far] of [[23000, "0.0.0.0", SERVER], [23001, "::", SERVER_V6]] as const) {
      await net.server(name, TALK(port, [[far, 7777, `answered ${far}`], [far, 7999, "alone"]], any));
      await sourcePort(server, `answered ${far}`.replaceAll(".", "\\."));
      await net.server(
        name,
        `globalThis.kept = await Deno.connect({ hostname: "${far}", port: 8888 });
setInterval(() => {}, 1000);
console.log("ready");`,
      );
    }
    const all = (await connections(net)).filter(({ source }) => own.includes(source));
    for (const address of own) {
      const of = (protocol: string) =>
        all.filter((one) => one.source === address && one.protocol === protocol);
      assertEquals(of("udp").length >= 1, true, `${address} has UDP`);
      for (const { left } of of("udp")) {
        assertGreater(left, 45, "RFC 4787 REQ-5: 120 s and not the kernel's 30");
        assertLessOrEqual(left, 120);
      }
      assertEquals(of("tcp").length, 1);
      assertGreater(of("tcp")[0].left, 7000, "RFC 5382 REQ-5: 2 h 4 min and not five days");
      assertLessOrEqual(of("tcp")[0].left, 7440);
    }
  },
);

networkTest(
  "tun exit: a host that forwards only because of the relay forwards nothing for its neighbours, one that did before goes on",
  needs,
  async (net) => {
    const neighbour = await net.client(9);
    await net.ip(neighbour, ["route", "add", "10.200.0.0/24", "via", RELAY]);
    await net.ip(neighbour, ["-6", "route", "add", "fd00:200::/64", "via", "fd00:201::1"]);
    await net.ip("server", ["route", "add", "10.201.0.0/24", "via", "10.200.0.1"]);
    await net.ip("server", ["-6", "route", "add", "fd00:201::/64", "via", "fd00:200::1"]);
    const switches = ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"];
    const arrived = async () =>
      [...(await net.must("server", ["nft", "list", "table", "inet", "watch"])).matchAll(/packets (\d+)/g)]
        .map(([, packets]) => Number(packets));
    const ping = (address: string, ...more: string[]) =>
      net.run(neighbour, ["ping", "-q", "-c", "2", "-i", "0.2", "-w", "2", ...more, address]);
    for (const before of [0, 1]) {
      for (const key of switches) await net.must("relay", ["sysctl", "-w", `${key}=${before}`]);
      await net.must("server", ["nft", "-f", "-"], {
        input: `table inet watch
delete table inet watch
table inet watch { chain seen { type filter hook prerouting priority 0;
  ip saddr 10.201.0.9 icmp type echo-request counter
  ip6 saddr fd00:201::9 icmpv6 type echo-request counter
  ip saddr 10.200.0.1 icmp type echo-request counter
  ip6 saddr fd00:200::1 icmpv6 type echo-request counter
}; }
`,
      });
      const relay = await net.relay(CONFIG);
      await ping(SERVER);
      await ping(SERVER_V6);
      // In the name of a client, which the relay's own rules would masquerade.
      await net.ip(neighbour, ["addr", "replace", "10.66.0.99/32", "dev", "eth0"]);
      await ping(SERVER, "-I", "10.66.0.99");
      const seen = await arrived();
      if (before === 0) assertEquals(seen, [0, 0, 0, 0], "no neighbour gets through");
      else {
        assertGreater(seen[0], 0, "the host was a router, and still is");
        assertGreater(seen[1], 0);
        assertEquals(seen.slice(2), [0, 0], "under the neighbour's own address");
      }
      // Frames that a bridge passes on are not the host's to forward, even where they come by its rules.
      if (before === 0) {
        const behind = await net.client(8);
        await net.must(behind, ["ping", "-q", "-c", "2", "-i", "0.2", "-w", "10", "10.201.0.9"]);
      }
      // Its own client goes through either way.
      if (before === 0) await client(net, 2, "one");
      assertEquals(await relay.stop("SIGTERM"), 0);
      for (const key of switches) {
        assertEquals((await net.must("relay", ["sysctl", "-n", key])).trim(), String(before));
      }
    }
  },
);
