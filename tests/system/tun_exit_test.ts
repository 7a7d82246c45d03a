/**
 * Both exits where they live: in a namespace, joined to a server in another one. What the TUN exit makes on the host,
 * what it leaves alone, and what is left of it at its end, after a kill and beside a second one; and the pings of the
 * userspace exit. Nothing here touches the machine's own network.
 */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { requires } from "../kit/requires.ts";
import { type Background, Network, SERVER, SERVER_V6, until } from "../kit/namespaces.ts";

const NEEDS = requires({ root: true, programs: ["ip", "nft", "ping", "sysctl"] });
const CHILD = new URL("exit_child.ts", import.meta.url).pathname;
const ROOT = new URL("../..", import.meta.url).pathname;
const DEVICE = "oxrelay7";
const TABLE = "table inet oxrelay_oxrelay7";
const FORWARDING = ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"];
/** What the kernel changes along with those. */
const TOUCHED = [
  "net.ipv4.conf.all.accept_redirects",
  "net.ipv4.conf.default.accept_redirects",
  "net.ipv4.conf.srv.forwarding",
  "net.ipv6.conf.srv.forwarding",
  "net.ipv4.conf.bare.forwarding",
  "net.ipv6.conf.bare.forwarding",
];
const FOREIGN = `table inet someone_else {
  chain forward {
    type filter hook forward priority 10; policy accept;
    tcp dport 9999 drop
  }
}
`;

async function inNetwork(test: (network: Network) => Promise<void>): Promise<void> {
  const network = await Network.open();
  try {
    for (const key of FORWARDING) await network.must("relay", ["sysctl", "-w", `${key}=0`]);
    await test(network);
  } finally {
    await network.close();
  }
}

/** Starts an exit with the permissions that the relay has for it, and waits until it has sent its pings. */
async function exit(
  network: Network,
  kind: "tun" | "userspace",
  words: string[] = [],
  device = DEVICE,
): Promise<Background> {
  const child = network.spawn("relay", [
    Deno.execPath(),
    "run",
    "--no-prompt",
    "--unstable-net",
    "--allow-net",
    `--allow-read=${ROOT}`,
    "--allow-run=ip,nft",
    "--allow-sys=networkInterfaces",
    "--allow-ffi=/lib/x86_64-linux-gnu/libc.so.6,/lib/aarch64-linux-gnu/libc.so.6",
    CHILD,
    kind,
    device,
    ...words,
  ]);
  await child.says("idle");
  return child;
}

async function forwarding(network: Network): Promise<string> {
  return (await network.must("relay", ["sysctl", "-n", ...FORWARDING])).trim().replace("\n", " ");
}

const rules = (network: Network) => network.must("relay", ["nft", "list", "ruleset"]);

Deno.test({
  name: "tun exit: carries pings out under the host's address, and leaves nothing behind",
  ...NEEDS,
  fn: () =>
    inNetwork(async (network) => {
      await network.must("relay", ["nft", "-f", "-"], { input: FOREIGN });
      // Bridge ports and the like have no address.
      await network.ip("relay", ["link", "add", "bare", "type", "bridge"]);
      const before = await rules(network);
      const settings = () => network.must("relay", ["sysctl", ...TOUCHED]);
      await network.must("relay", ["sysctl", "-w", "net.ipv4.conf.all.accept_redirects=0"]);
      for (const key of TOUCHED.slice(2)) await network.must("relay", ["sysctl", "-w", `${key}=1`]);
      const untouched = await settings();
      const tun = await exit(network, "tun", [SERVER, SERVER_V6, `${SERVER},1392`]);
      assertStringIncludes(tun.said, "obstacle: undefined");
      assertStringIncludes(tun.said, `${SERVER}: pong 1 of 56 bytes from ${SERVER}`);
      assertStringIncludes(tun.said, `${SERVER_V6}: pong 2 of 56 bytes from ${SERVER_V6}`);
      assertStringIncludes(tun.said, `${SERVER},1392: pong 3 of 1392 bytes from ${SERVER}`);

      const device = await network.must("relay", ["ip", "addr", "show", "dev", DEVICE]);
      assertStringIncludes(device, "inet 10.99.0.1/16");
      assertStringIncludes(device, "inet6 fd99::1/64");
      assertMatch(device, /mtu 1420/);
      const during = await rules(network);
      assertStringIncludes(during, TABLE);
      assertStringIncludes(during, "masquerade");
      assertStringIncludes(during, before.trim());
      assertEquals(await forwarding(network), "1 1");

      assertEquals(await tun.stop("SIGTERM"), 0);
      assertEquals(await rules(network), before);
      assertEquals(await forwarding(network), "0 0");
      assertEquals(await settings(), untouched);
      assertEquals((await network.run("relay", ["ip", "link", "show", DEVICE])).success, false);
    }),
});

Deno.test({
  name: "tun exit: the relay's host answers pings to the tunnel address and nothing else from inside",
  ...NEEDS,
  fn: () =>
    inNetwork(async (network) => {
      // The kernel answers for both addresses where no rule forbids it.
      const tun = await exit(network, "tun", ["10.99.0.1", "fd99::1", "10.200.0.1", "127.0.0.1"]);
      assertStringIncludes(tun.said, "10.99.0.1: pong 1 of 56 bytes");
      assertStringIncludes(tun.said, "fd99::1: pong 2 of 56 bytes");
      assertStringIncludes(tun.said, "10.200.0.1: nothing");
      assertStringIncludes(tun.said, "127.0.0.1: nothing");
    }),
});

Deno.test({
  name: "tun exit: what is allowed of the relay's host is open from inside, and nothing else of it",
  ...NEEDS,
  fn: () =>
    inNetwork(async (network) => {
      // Overlapping on purpose: nftables takes no such set.
      const allowed = ["10.200.0.0/24", "10.200.0.1/32", "fd00:200::1/128"].map((prefix) =>
        `allow=${prefix}`
      );
      const tun = await exit(network, "tun", [
        ...allowed,
        "10.200.0.1",
        "fd00:200::1",
        "10.201.0.1",
        "fd00:201::1",
        "127.0.0.1",
        SERVER,
      ]);
      assertStringIncludes(tun.said, "10.200.0.1: pong 1");
      assertStringIncludes(tun.said, "fd00:200::1: pong 2");
      assertStringIncludes(tun.said, "10.201.0.1: nothing");
      assertStringIncludes(tun.said, "fd00:201::1: nothing");
      assertStringIncludes(tun.said, "127.0.0.1: nothing");
      assertStringIncludes(tun.said, `${SERVER}: pong 6`);
    }),
});

Deno.test({
  name: "tun exit: only tunnel addresses leave by it, and nobody outside may begin a conversation",
  ...NEEDS,
  fn: () =>
    inNetwork(async (network) => {
      const counting = (place: string, rules: string[]) =>
        network.must(place, ["nft", "-f", "-"], {
          input: `table inet watch { chain seen { type filter hook ${
            place === "server" ? "input" : "postrouting"
          } priority 200; ${rules.map((rule) => `${rule} counter;`).join(" ")} }; }`,
        });
      const counted = async (place: string) =>
        [...(await network.must(place, ["nft", "list", "table", "inet", "watch"])).matchAll(/packets (\d+)/g)]
          .map(([, packets]) => Number(packets));
      await counting("server", ["icmp type echo-request", "icmpv6 type echo-request"]);
      const forged = [`10.98.0.2>${SERVER}`, `fd98::2>${SERVER_V6}`];
      await exit(network, "tun", [...forged, SERVER, SERVER_V6]);
      assertEquals(await counted("server"), [1, 1], "the two genuine pings, and neither forged one");

      await counting("relay", [`oifname "${DEVICE}" icmp type echo-request`]);
      await network.ip("server", ["route", "add", "10.99.0.0/16", "via", "10.200.0.1"]);
      await network.run("server", ["ping", "-c", "1", "-W", "1", "10.99.0.2"]);
      assertEquals(await counted("relay"), [0]);
    }),
});

Deno.test({
  name: "tun exit: what a kill left behind is cleared away at the next start",
  ...NEEDS,
  fn: () =>
    inNetwork(async (network) => {
      await network.must("relay", ["nft", "-f", "-"], { input: FOREIGN });
      const before = await rules(network);
      const killed = await exit(network, "tun");
      await killed.stop("SIGKILL");
      assertStringIncludes(
        await rules(network),
        TABLE,
        "the kill must leave something, or this proves nothing",
      );
      assertEquals(await forwarding(network), "1 1");

      const next = await exit(network, "tun", [SERVER]);
      assertStringIncludes(next.said, "restored the forwarding settings");
      assertStringIncludes(next.said, "pong 1 of 56 bytes");
      const tables = (await rules(network)).split("\n").filter((line) => line === `${TABLE} {`);
      assertEquals(tables.length, 1);
      assertEquals(await next.stop("SIGTERM"), 0);
      assertEquals(await rules(network), before);
      assertEquals(
        await forwarding(network),
        "0 0",
        "the values before the first start, not those in between",
      );
    }),
});

Deno.test({
  name: "tun exit: a second one on the device is refused and harms the first in nothing",
  ...NEEDS,
  fn: () =>
    inNetwork(async (network) => {
      const first = await exit(network, "tun");
      const before = await rules(network);
      await exit(network, "tun").then(
        () => assert(false, "two exits on one device"),
        (error: Error) => assertStringIncludes(error.message, `the device ${DEVICE} cannot be made`),
      );
      assertEquals(await rules(network), before);
      assertEquals(await forwarding(network), "1 1");
      assertEquals(await first.stop("SIGTERM"), 0);
      assertEquals(await forwarding(network), "0 0");
    }),
});

Deno.test({
  name: "tun exit: two relays on one host, and forwarding lasts as long as the last that needs it",
  ...NEEDS,
  fn: () =>
    inNetwork(async (network) => {
      const first = await exit(network, "tun");
      const second = await exit(network, "tun", [], "oxrelay8");
      assertEquals(await first.stop("SIGTERM"), 0);
      assertStringIncludes(first.said, "forwarding stays on");
      assertEquals(await forwarding(network), "1 1");
      const killed = await exit(network, "tun");
      await killed.stop("SIGKILL");
      const again = await exit(network, "tun");
      assertEquals(again.said.includes("put back"), false, "what the second still needs");
      await again.stop("SIGKILL");
      assertEquals(await second.stop("SIGTERM"), 0);
      assertEquals(await forwarding(network), "0 0", "by the record of the first, past a dead relay's rules");
      assertStringIncludes(await rules(network), TABLE);
      await (await exit(network, "tun")).stop("SIGTERM");
      assertEquals(await rules(network), "");
    }),
});

Deno.test({
  name: "tun exit: neither a network nor a device of the host is taken over",
  ...NEEDS,
  fn: () =>
    inNetwork(async (network) => {
      await network.ip("relay", ["addr", "add", "10.99.7.1/24", "dev", "srv"]);
      await exit(network, "tun").then(
        () => assert(false, "it took 10.99.0.0/16 from srv"),
        (error: Error) => assertMatch(error.message, /overlaps 10\.99\.7\.1\/24 of srv.*set tunnel_ipv4/),
      );
      assertEquals(await forwarding(network), "0 0");
      await network.ip("relay", ["addr", "del", "10.99.7.1/24", "dev", "srv"]);
      const route = ["default", "via", "fd99::9", "dev", "srv", "onlink"];
      await network.ip("relay", ["-6", "route", "add", ...route]);
      await exit(network, "tun").then(
        () => assert(false, "it took the host's router"),
        (error: Error) => assertMatch(error.message, /contains fd99::9, the router of srv.*set tunnel_ipv6/),
      );
      await network.ip("relay", ["-6", "route", "del", ...route]);
      await network.ip("relay", ["tuntap", "add", DEVICE, "mode", "tun"]);
      await exit(network, "tun").then(
        () => assert(false, "it took somebody's device"),
        (error: Error) => assertStringIncludes(error.message, `the device ${DEVICE} cannot be made`),
      );
      assertEquals(
        (await network.must("relay", ["ip", "addr", "show", "dev", DEVICE])).includes("10.99"),
        false,
      );
    }),
});

Deno.test({
  name: "tun exit: rules that somebody flushed are put back",
  ...NEEDS,
  fn: () =>
    inNetwork(async (network) => {
      const tun = await exit(network, "tun");
      await network.must("relay", ["nft", "flush", "ruleset"]);
      await until(() => tun.said.includes("have been put back"), "the exit sees it", 20_000);
      assertStringIncludes(await rules(network), "masquerade");
      assertEquals(await tun.stop("SIGTERM"), 0);
      assertEquals(await forwarding(network), "0 0", "the record was put back as well");
      assertEquals(await rules(network), "");
    }),
});

Deno.test({
  name: "tun exit: a firewall that drops what is forwarded is named, with the rules that open it",
  ...NEEDS,
  fn: () =>
    inNetwork(async (network) => {
      await network.must("relay", ["nft", "-f", "-"], {
        input: "table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }",
      });
      const tun = await exit(network, "tun", [SERVER]);
      assertStringIncludes(tun.said, `${SERVER}: nothing`);
      const remedy = /policy drop\).*pass: (nft insert [^;]+); (nft insert .*accept)/.exec(tun.said);
      assert(remedy, tun.said);
      for (const line of remedy.slice(1)) await network.must("relay", line.split(" "));
      await tun.stop("SIGTERM");
      assertStringIncludes((await exit(network, "tun", [SERVER])).said, "pong 1");
    }),
});

Deno.test({
  name: "tun exit: a device that goes down or away is reported, and its return too",
  ...NEEDS,
  fn: () =>
    inNetwork(async (network) => {
      const tun = await exit(network, "tun");
      const told = (text: string) => until(() => tun.said.includes(text), `it says ${text}`, 5000);
      await network.ip("relay", ["link", "set", DEVICE, "down"]);
      await told(`fault: the device ${DEVICE} is down`);
      await network.ip("relay", ["link", "set", DEVICE, "up"]);
      await told("fault: none");
      await network.ip("relay", ["link", "del", DEVICE]);
      await told(`fault: the device ${DEVICE} is gone`);
      assertEquals(await tun.stop("SIGTERM"), 0);
      assertEquals(await forwarding(network), "0 0");
    }),
});

Deno.test({
  name: "tun exit: a host without IPv6 gets IPv4, and is told",
  ...NEEDS,
  fn: () =>
    inNetwork(async (network) => {
      await network.must("relay", ["sysctl", "-w", "net.ipv6.conf.default.disable_ipv6=1"]);
      const tun = await exit(network, "tun", [SERVER]);
      assertStringIncludes(tun.said, "pong 1 of 56 bytes");
      assertStringIncludes(tun.said, "warning: IPv6 stays off in the tunnel");
      assertEquals(await forwarding(network), "1 0");
    }),
});

Deno.test({
  name: "userspace exit: pings go through ping sockets where the system allows them",
  ...NEEDS,
  fn: () =>
    inNetwork(async (network) => {
      await network.must("relay", ["sysctl", "-w", "net.ipv4.ping_group_range=0 0"]);
      const pings = [SERVER, SERVER_V6, `${SERVER},1392`, `${SERVER},1800`];
      const { said } = await exit(network, "userspace", pings);
      assertStringIncludes(said, `${SERVER}: pong 1 of 56 bytes from ${SERVER}`);
      assertStringIncludes(said, `${SERVER_V6}: pong 2 of 56 bytes from ${SERVER_V6}`);
      assertStringIncludes(said, `${SERVER},1392: pong 3 of 1392 bytes from ${SERVER}`);
      assertStringIncludes(said, `${SERVER},1800: a pong in fragments from ${SERVER}`);
    }),
});

Deno.test({
  name: "userspace exit: where pings are not allowed they are refused at once, with the remedy in the log",
  ...NEEDS,
  fn: () =>
    inNetwork(async (network) => {
      await network.must("relay", ["sysctl", "-w", "net.ipv4.ping_group_range=1 0"]);
      const { said } = await exit(network, "userspace", [SERVER]);
      assertStringIncludes(said, "ICMP 3/13 from 10.99.0.1");
      assertEquals(said.split("ping_group_range").length - 1, 1);
    }),
});
