/**
 * Path MTU discovery where it matters: a client behind a router whose link is narrower than both ends' own and that
 * says nothing of it. What is transferred is whole, nothing is ever cut on the way, and the device gets the MTU that
 * fits. Each test makes and removes its own network.
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { addressBytes, parseAddress } from "../../src/wire/address.ts";
import { requires } from "../kit/requires.ts";
import {
  type Background,
  type Network,
  networkTest,
  pause,
  SERVER,
  SERVER_V6,
  until,
} from "../kit/namespaces.ts";

const HOME = "10.202.0.2", GATEWAY = "10.202.0.1", ROUTER_HOST = 9;
const OUTER_HEADERS = 28, OVERHEAD = 25, GRANULARITY = 4;
const MEGABYTE = 1 << 20;
const needs = requires({ root: true, programs: ["ip", "nft", "ping", "sysctl", "tc"] });

const ALLOWED = `["10.200.0.0/24", "10.202.0.0/24", "fd00:200::/64", "fd00:202::/64"]`;
const config = (mtu: number) => `exit = "tun"\nmtu = ${mtu}\n[destinations]\nallow = ${ALLOWED}\n`;

/** TCP: the first line says how many bytes to send back, and then everything that comes is counted. */
const SERVICE = `
const serve = async (connection) => {
  const first = new Uint8Array(64), block = new Uint8Array(65536);
  const text = new TextDecoder().decode(first.subarray(0, await connection.read(first) ?? 0));
  const [back, forth] = text.split(" ").map(Number);
  for (let left = back; left > 0;) left -= await connection.write(block.subarray(0, Math.min(left, block.length)));
  for (let got = 0; got < forth;) got += await connection.read(block) ?? Infinity;
  await connection.write(new TextEncoder().encode("done"));
  connection.close();
};
for (const hostname of ["${SERVER}", "${SERVER_V6}"]) {
  const listener = Deno.listen({ hostname, port: 8888 });
  (async () => { for await (const connection of listener) serve(connection).catch(() => {}); })();
}
console.log("ready");`;

/** An address as SOCKS5 has it: its type and its bytes. */
function socksAddress(address: string): string {
  return [address.includes(":") ? 4 : 1, ...addressBytes(parseAddress(address)!)].join(", ");
}

/** Downloads `bytes` and then uploads `upBytes`, the same number unless given, over one connection. */
const transfer = (bytes: number, socksPort?: number, server = SERVER, upBytes = bytes) => `
const c = await Deno.connect(${
  socksPort === undefined ? `{ hostname: "${SERVER}", port: 8888 }` : `{ port: ${socksPort} }`
});
const answer = new Uint8Array(64);
if (${socksPort !== undefined}) {
  await c.write(Uint8Array.of(5, 1, 0));
  await c.read(answer);
  await c.write(Uint8Array.of(5, 1, 0, ${socksAddress(server)}, 8888 >> 8, 8888 & 255));
  await c.read(answer);
}
await c.write(new TextEncoder().encode("${bytes} ${upBytes} "));
const block = new Uint8Array(65536);
let got = 0;
while (got < ${bytes}) got += await c.read(block) ?? Infinity;
for (let left = ${upBytes}; left > 0;) left -= await c.write(block.subarray(0, Math.min(left, block.length)));
// Without an upload the last word may have come along.
const n = got > ${bytes} ? 0 : await c.read(block);
console.log(got, n === 0 ? "done" : new TextDecoder().decode(block.subarray(0, n ?? 0)));`;

/** The client's namespace behind a router of its own, and that router's. */
interface Site {
  net: Network;
  home: string;
  router: string;
}

/** A home whose router reaches the relay, and that tells nobody what its link does not take if it `isSilent`. */
async function site(net: Network, isSilent = true): Promise<Site> {
  const router = await net.client(ROUTER_HOST), home = await net.client(2);
  await net.ip(home, ["link", "set", "eth0", "down"]);
  await net.ip(home, ["link", "add", "far", "type", "veth", "peer", "near", "netns", net.namespace(router)]);
  for (const [name, device, address] of [[home, "far", HOME], [router, "near", GATEWAY]]) {
    await net.ip(name, ["addr", "add", `${address}/24`, "dev", device]);
    await net.ip(name, ["link", "set", device, "up"]);
  }
  await net.ip(home, ["route", "add", "default", "via", GATEWAY]);
  await net.ip("relay", ["route", "add", "10.202.0.0/24", "via", `10.201.0.${ROUTER_HOST}`]);
  await net.must(router, ["sysctl", "-qw", "net.ipv4.ip_forward=1"]);
  const silence = `table ip silence {
    chain output {
      type filter hook output priority 0;
      icmp type destination-unreachable counter drop
    }
  }`;
  if (isSilent) await net.must(router, ["nft", "-f", "-"], { input: silence });
  // Before the kernel puts them together again.
  const fragments = `table ip fragments {
    chain arriving {
      type filter hook prerouting priority -450;
      iifname { "far", "br0", "near", "eth0" } ip frag-off & 0x3fff != 0 counter
    }
  }`;
  for (const name of [home, router, "relay"]) {
    await net.must(name, ["nft", "-f", "-"], { input: fragments });
  }
  return { net, home, router };
}

/** Sets the path MTU over the router to `mtu` bytes, in both directions. */
async function narrow({ net, router }: Site, mtu: number): Promise<void> {
  for (const [prefix, device] of [["10.201.0.0/24", "eth0"], ["10.202.0.0/24", "near"]]) {
    await net.ip(router, ["route", "replace", prefix, "dev", device, "mtu", "lock", String(mtu)]);
  }
}

/** A transfer by this script on whose way the link becomes narrower before it is half done. */
async function transferOverShrinking(here: Site, mtu: number, script: string): Promise<void> {
  const { net, home, router } = here;
  for (const device of ["eth0", "near"]) {
    const shape = "root tbf rate 100mbit burst 64k latency 30ms".split(" ");
    await net.must(router, ["tc", "qdisc", "add", "dev", device, ...shape]);
  }
  let isDone = false;
  const transferring = net.script(home, script, 60).finally(() => isDone = true);
  await pause(2000);
  assert(!isDone);
  await narrow(here, mtu);
  assertStringIncludes(await transferring, "done");
}

/** Packets that a rule of the table has counted. */
async function counted(net: Network, name: string, table: string): Promise<number> {
  const listed = await net.must(name, ["nft", "list", "table", "ip", table]);
  return Number(/packets (\d+)/.exec(listed)![1]);
}

async function connect({ net, home }: Site, protocol: string, more: string[] = []): Promise<Background> {
  const file = `${net.directory}/laptop.conf`;
  await Deno.writeTextFile(file, await net.addPeer("laptop"));
  return await net.connect(home, ["--config", file, "--protocol", protocol, ...more]);
}

async function deviceMtu({ net, home }: Site): Promise<number> {
  return JSON.parse(await net.must(home, ["ip", "-j", "link", "show", "oxconnect0"]))[0].mtu;
}

/** The inner MTU that follows from the link's. */
function isFitting(mtu: number, link: number): boolean {
  const most = link - OUTER_HEADERS - OVERHEAD;
  return mtu <= most && mtu > most - GRANULARITY;
}

async function pings({ net, home }: Site, bytes: number): Promise<boolean> {
  const ping = ["ping", "-M", "do", "-c", "3", "-i", "0.2", "-W", "1", "-s", String(bytes - 28), SERVER];
  return (await net.run(home, ping)).success;
}

networkTest(
  "path MTU: over a link of 1400 bytes that says nothing, full-size TCP flows and nothing is cut",
  needs,
  async (net) => {
    const here = await site(net);
    await narrow(here, 1400);
    await net.relay(config(1420));
    await net.server("server", SERVICE);
    await connect(here, "oxtunnel");
    // At once, whatever has been found by then.
    assertStringIncludes(await net.script(here.home, transfer(MEGABYTE / 4)), "done");
    await until(async () => isFitting(await deviceMtu(here), 1400), "the device gets the MTU that fits");
    assertStringIncludes(await net.script(here.home, transfer(8 * MEGABYTE)), "done");
    assert(await pings(here, await deviceMtu(here)), "packets of the whole MTU arrive, both ways");

    await transferOverShrinking(here, 1340, transfer(40 * MEGABYTE));
    await until(async () => isFitting(await deviceMtu(here), 1340), "the device follows the path");
    assert(await pings(here, await deviceMtu(here)));
    assert(await counted(net, here.router, "silence") > 0, "the router had something to keep silent about");
    for (const name of [here.home, here.router, "relay"]) {
      assertEquals(
        await counted(net, name, "fragments"),
        0,
        name,
      );
    }
  },
);

networkTest("path MTU: where the router says what it takes, nothing is cut either", needs, async (net) => {
  const here = await site(net, false);
  await narrow(here, 1400);
  await net.relay(config(1420));
  await net.server("server", SERVICE);
  await connect(here, "oxtunnel");
  await until(async () => isFitting(await deviceMtu(here), 1400), "the device gets the MTU that fits");
  assertStringIncludes(await net.script(here.home, transfer(MEGABYTE)), "done");
  for (const name of [here.home, here.router, "relay"]) {
    assertEquals(await counted(net, name, "fragments"), 0, name);
  }
});

for (const server of [SERVER, SERVER_V6]) {
  const version = server.includes(":") ? "IPv6" : "IPv4";
  networkTest(
    `path MTU: ${version} connections that begin and end in userspace outlive a path that shrinks`,
    needs,
    async (net) => {
      const here = await site(net);
      await narrow(here, 1400);
      await net.relay(config(1420).replace('"tun"', '"userspace"'));
      await net.server("server", SERVICE);
      const running = await connect(here, "oxtunnel", ["--socks", "1080", "--json"]);
      // Segments as long as the path takes them before it shrinks.
      const found = () => /.*"mtu":(\d+)/s.exec(running.said)?.[1];
      await until(() => isFitting(Number(found()), 1400), "the size is found");
      await transferOverShrinking(here, 1300, transfer(40 * MEGABYTE, 1080, server, 0));
      for (const name of [here.home, here.router, "relay"]) {
        assertEquals(await counted(net, name, "fragments"), 0, name);
      }
    },
  );
}

const FAR = "10.202.0.2", FAR_V6 = "fd00:202::2";

/** Sends datagrams of 1380 bytes to the far server through the proxy, one each 50 ms, and says how many came back whole. */
const datagrams = (server: string) => `
const take = async (c, count) => {
  const bytes = new Uint8Array(count);
  for (let at = 0; at < count;) at += await c.read(bytes.subarray(at)) ?? Infinity;
  return bytes;
};
const c = await Deno.connect({ hostname: "127.0.0.1", port: 1080 });
await c.write(Uint8Array.of(5, 1, 0));
await take(c, 2);
await c.write(Uint8Array.of(5, 3, 0, 1, 0, 0, 0, 0, 0, 0));
const where = await take(c, 10);
const socket = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
const to = { transport: "udp", hostname: "127.0.0.1", port: where[8] << 8 | where[9] };
let whole = 0;
const head = Uint8Array.of(0, 0, 0, ${socksAddress(server)}, 7777 >> 8, 7777 & 255);
(async () => {
  for await (const [data] of socket) {
    if (data.length === head.length + 1380 && data.subarray(head.length).every((byte, i) => byte === i % 251)) whole++;
  }
})();
const payload = Uint8Array.from({ length: 1380 }, (_, i) => i % 251);
for (let i = 0; i < 40; i++) {
  await socket.send(new Uint8Array([...head, ...payload]), to);
  await new Promise((resolve) => setTimeout(resolve, 50));
}
await new Promise((resolve) => setTimeout(resolve, 500));
console.log(whole);
Deno.exit();`;

networkTest(
  "path MTU: the userspace exit heeds a router beyond it that takes less, over IPv6 as over IPv4",
  needs,
  async (net) => {
    const client = await net.client(2), router = await net.client(ROUTER_HOST), far = await net.client(10);
    await net.ip(far, ["link", "set", "eth0", "down"]);
    await net.ip(far, ["link", "add", "far", "type", "veth", "peer", "near", "netns", net.namespace(router)]);
    for (const [name, device, end] of [[far, "far", 2], [router, "near", 1]] as const) {
      await net.ip(name, ["addr", "add", `10.202.0.${end}/24`, "dev", device]);
      await net.ip(name, ["addr", "add", `fd00:202::${end}/64`, "dev", device, "nodad"]);
      await net.ip(name, ["link", "set", device, "mtu", "1300", "up"]);
    }
    await net.ip(far, ["route", "add", "default", "via", "10.202.0.1"]);
    await net.ip(far, ["-6", "route", "add", "default", "via", "fd00:202::1"]);
    await net.ip("relay", ["route", "add", "10.202.0.0/24", "via", `10.201.0.${ROUTER_HOST}`]);
    await net.ip("relay", ["-6", "route", "add", "fd00:202::/64", "via", `fd00:201::${ROUTER_HOST}`]);
    await net.must(router, ["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"]);
    await net.server(
      far,
      `for (const hostname of ["${FAR}", "${FAR_V6}"]) {
        const socket = Deno.listenDatagram({ transport: "udp", hostname, port: 7777 });
        (async () => { for await (const [data, from] of socket) await socket.send(data, from); })();
      }
      console.log("ready");`,
    );
    await net.relay(config(1420).replace('"tun"', '"userspace"'));
    const file = `${net.directory}/laptop.conf`;
    await Deno.writeTextFile(file, await net.addPeer("laptop"));
    const running = await net.connect(client, [
      "--config",
      file,
      "--protocol",
      "oxtunnel",
      "--socks",
      "1080",
    ]);
    for (const server of [FAR, FAR_V6]) {
      const whole = Number(await net.script(client, datagrams(server), 30));
      // The first is lost to the router's word, and perhaps what was under way with it.
      assert(whole >= 35 && whole <= 39, `${server}: ${whole} of 40; ${running.said}`);
    }
  },
);

networkTest(
  "path MTU: over a link of 1500 bytes the inner MTU is 1447, or what the relay offers",
  needs,
  async (net) => {
    const here = await site(net);
    for (const [offered, expected] of [[1500, 1447], [1420, 1420]]) {
      const relay = await net.relay(config(offered));
      await net.server("server", SERVICE);
      const running = await connect(here, "oxtunnel");
      await until(
        async () => (await deviceMtu(here)) === expected || isFitting(await deviceMtu(here), 1500),
        "it is found",
      );
      const mtu = await deviceMtu(here);
      assert(mtu === expected || offered === 1500 && isFitting(mtu, 1500), `${mtu}`);
      assert(await pings(here, mtu));
      await running.stop("SIGINT");
      await net.changePeer(["remove", "laptop"]);
      await relay.stop("SIGTERM");
    }
  },
);

networkTest("path MTU: WireGuard, which does not probe, may still be cut on the way", needs, async (net) => {
  const here = await site(net);
  await net.ip(here.home, ["route", "change", "default", "via", GATEWAY, "mtu", "1400"]);
  await net.ip("relay", [
    "route",
    "change",
    "10.202.0.0/24",
    "via",
    `10.201.0.${ROUTER_HOST}`,
    "mtu",
    "1400",
  ]);
  await net.relay(config(1420));
  await net.server("server", SERVICE);
  await connect(here, "wireguard");
  assert(await pings(here, 1420), "as its users are used to");
  assert(await counted(net, "relay", "fragments") + await counted(net, here.router, "fragments") > 0);
});
