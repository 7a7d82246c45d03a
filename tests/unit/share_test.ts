/** `connect --share` without a host: its options, the text of its rules, and what dnsmasq is told. */
import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { dnsmasqArgs, leaseRange } from "../../src/connect/share/dnsmasq.ts";
import { HOST_PORTS_MAX, readShare } from "../../src/connect/share/mod.ts";
import { listeners } from "../../src/exit/tun/listening.ts";
import { addressOf } from "../../src/exit/tun/share.ts";
import { shareRules } from "../../src/exit/tun/share_rules.ts";
import { UsageError } from "../../src/process/help.ts";

Deno.test("share: options are read, and a mistake is named with an example", () => {
  assertEquals(readShare(undefined, undefined, []), undefined);
  assertEquals(readShare("eth1", undefined, ["game=AA:bb:cc:dd:ee:0f", "bulk=fd00::0:9"]), {
    device: "eth1",
    ipv4: "192.168.77.1/24",
    classes: [
      { device: "aa:bb:cc:dd:ee:0f", trafficClass: "game" },
      { device: "fd00::9", trafficClass: "bulk" },
    ],
  });
  for (
    const [device, net, devices, message] of [
      [undefined, "10.0.0.1/24", [], /--share-net is of a gateway/],
      [undefined, undefined, ["game=10.0.0.2"], /--device is of a gateway/],
      ['eth1" accept', undefined, [], /--share: expected an interface/],
      ["eth1", "10.0.0.1", [], /--share-net: expected/],
      ["eth1", "10.0.0.1/30", [], /from \/16 to \/29/],
      ["eth1", undefined, ["games=10.0.0.2"], /--device: expected CLASS=ADDRESS/],
      ["eth1", undefined, ["game=10.0.0.2; drop"], /--device: expected CLASS=ADDRESS/],
    ] as const
  ) {
    assertMatch(assertThrows(() => readShare(device, net, devices), UsageError).message, message);
  }
});

Deno.test("share: leases are addresses of the LAN without the gateway's own and the broadcast", () => {
  assertEquals(leaseRange("192.168.77.1/24"), { low: "192.168.77.50", high: "192.168.77.254" });
  assertEquals(leaseRange("192.168.77.254/24"), { low: "192.168.77.50", high: "192.168.77.253" });
  assertEquals(leaseRange("192.168.77.100/24"), { low: "192.168.77.101", high: "192.168.77.254" });
  assertEquals(leaseRange("10.9.8.1/29"), { low: "10.9.8.2", high: "10.9.8.6" });
  const args = dnsmasqArgs({
    device: "eth1",
    ipv4: "192.168.77.1/24",
    ipv6: "fd00::1/64",
    dns: ["9.9.9.9"],
    log: () => {},
  });
  for (const one of ["--no-resolv", "--server=9.9.9.9", "--except-interface=lo", "--enable-ra"]) {
    assert(args.includes(one));
  }
});

Deno.test("share: the rules let the LAN into the tunnel alone, and mark devices by address or MAC", () => {
  const text = shareRules({
    device: "eth1",
    ipv4: "192.168.77.1/24",
    upnpPort: 40000,
    classes: [
      { device: "192.168.77.9", trafficClass: "game" },
      { device: "aa:bb:cc:dd:ee:ff", trafficClass: "bulk" },
    ],
    isRouterOfLan: true,
  }, ["sysctl net/ipv4/ip_forward=0"]);
  assertMatch(text, /iifname "eth1" oifname != "oxconnect0" counter reject/);
  assertMatch(text, /iifname "eth1" ip saddr 192\.168\.77\.9 ip dscp set 32/);
  assertMatch(text, /iifname "eth1" ether saddr aa:bb:cc:dd:ee:ff ip6 dscp set 8/);
  assertMatch(text, /continue comment "sysctl net\/ipv4\/ip_forward=0"/);
  assertMatch(text, /iifname != \{ "eth1", "oxconnect0" \} counter drop/);
  // Requests for ports that come by another interface have forged their source.
  const input = /chain input \{\n(.*?)\n {2}\}/s.exec(text)![1];
  const elsewhere = 'iifname != { "lo", "eth1" }';
  for (
    const rule of [
      `${elsewhere} ip daddr 192.168.77.1 udp dport 5351 drop`,
      `${elsewhere} ip saddr 192.168.77.1/24 udp dport 1900 drop`,
      `${elsewhere} ip daddr 192.168.77.1 tcp dport 40000 drop`,
    ]
  ) assert(input.includes(rule), rule);
});

Deno.test("share: a forward goes to the LAN also where a program of the host listens, and such a port is known", () => {
  const text = shareRules({ device: "eth1", ipv4: "192.168.77.1/24", classes: [], isRouterOfLan: false }, []);
  const forwarded = /chain forwarded \{\n(.*?)\n {2}\}/s.exec(text)![1];
  assertMatch(forwarded, /dnat ip to .* map @forward4/);
  assert(!/\bsocket\b/.test(forwarded), forwarded);
  const udp = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
  try {
    const isTaken = listeners();
    assert(isTaken({ protocol: "udp", outer: (udp.addr as Deno.NetAddr).port }));
    assert(!isTaken({ protocol: "udp", outer: 0 }));
  } finally {
    udp.close();
  }
});

Deno.test("share: the interface's own address counts, and none that a killed gateway left", () => {
  const address = (local: string, scope = "global", family = "inet") => ({
    family,
    local,
    prefixlen: 24,
    scope,
  });
  const link = {
    ifname: "eth1",
    addr_info: [
      address("fd00::1", "global", "inet6"),
      address("169.254.0.9", "link"),
      address("192.168.77.1"),
      address("10.5.0.1"),
    ],
  };
  assertEquals(addressOf(link), "192.168.77.1/24");
  assertEquals(addressOf(link, ["192.168.77.1/24"]), "10.5.0.1/24");
  assertEquals(addressOf({ ifname: "eth1" }), undefined);
  assertEquals(addressOf(undefined), undefined);
});

Deno.test("share: no host of the LAN has all ports that the relay lets the box have", async () => {
  const guide = await Deno.readTextFile("docs/gateway.md");
  assertMatch(guide, new RegExp(`to itself alone, ${HOST_PORTS_MAX} at most`));
  const advised = Number(/port_mappings = (\d+)/.exec(guide)![1]);
  assert(2 * HOST_PORTS_MAX <= advised, `${HOST_PORTS_MAX} of ${advised}`);
});
