/** What the TUN exit tells nftables: ports that clients leave by, marks of peers, and the commands for a change of peers. */
import { assert, assertEquals, assertGreaterOrEqual, assertLessOrEqual, assertNotEquals } from "@std/assert";
import { TAG_MASK, tagOf, TunPeers } from "../../src/exit/tun/peers.ts";
import { inputRules, natPorts, type RulesOptions } from "../../src/exit/tun/rules.ts";

Deno.test("ports of the NAT: none that the relay listens on, and none of the host's ephemeral ones", () => {
  for (
    const [own, low, high] of [
      [[4433, 9090, 443], 32768, 60999],
      [[20000, 20001], 32768, 60999],
      [[], 1024, 60999],
      [[51820], 10000, 65535],
    ] as [number[], number, number][]
  ) {
    const range = natPorts(own, low, high);
    assertGreaterOrEqual(range.low, 1024);
    assertLessOrEqual(range.high, 65535);
    assertGreaterOrEqual(range.high - range.low, 4095);
    for (const port of own) assert(port < range.low || port > range.high, `${port} is the relay's`);
    assert(range.high < low || range.low > high, "the host's own connections leave by other ports");
  }
  assertEquals(natPorts([4433, 9090, 443], 32768, 60999), { low: 9091, high: 32767 });
  assertEquals(natPorts([4433], 1024, 65535), { low: 4434, high: 65535 }, "where the host takes all");
});

Deno.test("marks of peers: one for both families, kept while the peer stays, and a new one when it comes back", () => {
  const peers = new TunPeers("oxrelay0");
  const one = { key: "one", prefixes: ["10.66.0.2/32", "fd00::2/128"] };
  const two = { key: "two", prefixes: ["10.66.0.3/32", "10.66.8.0/24"] };
  const markIn = (line: string) => Number(/(?::|set) (\d+)/.exec(line)![1]);
  const first = peers.change([one], "t");
  assertEquals(first.gone, []);
  assertEquals(first.lines.length, 2);
  const mark = markIn(first.lines[0]);
  assertEquals(markIn(first.lines[1]), mark, "both families bear one mark");
  assertEquals((mark & TAG_MASK) >>> 0, tagOf("oxrelay0"));
  assertNotEquals(tagOf("oxrelay0"), tagOf("oxrelay1"));

  const second = peers.change([one, two], "t");
  assertEquals(second.gone, [], "who stays loses nothing");
  assertEquals(second.lines.some((line) => line.includes("10.66.0.2")), false);
  assertEquals(second.lines.filter((line) => line.includes("wide_from ip saddr 10.66.8.0/24")).length, 1);
  assertEquals(second.lines.filter((line) => line.includes("wide_to ip daddr 10.66.8.0/24")).length, 1);

  const heir = { key: "heir", prefixes: ["10.66.0.2/32"] };
  const third = peers.change([two, heir], "t");
  assertEquals(third.gone, [mark]);
  assertEquals(third.lines[0], `delete element inet t peers4 { 10.66.0.2 comment "one" : ${mark} }`);
  const heirs = third.lines.find((line) => line.startsWith("add element inet t peers4"))!;
  assertNotEquals(markIn(heirs), mark, "connections of the one before are not the heir's");
  assertEquals(peers.change([two, heir], "t"), { lines: [], gone: [] });
});

Deno.test("marks of peers: of prefixes within one another the longest has the last word", () => {
  const peers = new TunPeers("oxrelay0");
  peers.change([
    { key: "inner", prefixes: ["10.66.8.128/25"] },
    { key: "outer", prefixes: ["10.66.8.0/24"] },
  ], "t");
  const rules = peers.wide("t").filter((line) => line.includes("wide_from ip"));
  assertEquals(rules.map((line) => / saddr (\S+)/.exec(line)![1]), ["10.66.8.0/24", "10.66.8.128/25"]);
});

Deno.test("marks of peers: after a relay was killed who is still there keeps its mark, and who is not is forgotten", () => {
  const mark = (number: number) => tagOf("oxrelay0") + number;
  // As `nft list table` prints it.
  const listed = `table inet oxrelay_oxrelay0 {
	map peers4 {
		elements = { 10.66.0.2 comment "stays=" : 0x${mark(7).toString(16)},
			     10.66.0.3 comment "gone=" : 0x${mark(8).toString(16)},
			     10.66.0.9 comment "foreign=" : 0x00000009,
			     10.66.0.4 comment "moved=" : 0x${mark(9).toString(16)} }
	}
	map peers6 {
		elements = { fd00::2 comment "stays=" : 0x${mark(7).toString(16)} }
	}
	chain wide_from {
		ip saddr 10.66.8.0/24 ct mark set 0x${mark(10).toString(16)} comment "wide="
	}
	chain wide_to {
		ip daddr 10.66.8.0/24 ct mark set 0x${mark(10).toString(16)} comment "wide="
	}
}`;
  const peers = new TunPeers("oxrelay0");
  assertEquals(peers.adopt(listed), 4);
  const { lines, gone } = peers.change([
    { key: "new=", prefixes: ["10.66.0.3/32"] },
    { key: "stays=", prefixes: ["10.66.0.2/32", "fd00::2/128"] },
    { key: "moved=", prefixes: ["10.66.0.5/32"] },
    { key: "wide=", prefixes: ["10.66.8.0/24"] },
  ], "t");
  assertEquals(gone.toSorted(), [mark(8), mark(9)]);
  const text = lines.join("\n");
  assert(text.includes(`10.66.0.2 comment "stays=" : ${mark(7)}`), text);
  assert(text.includes(`fd00::2 comment "stays=" : ${mark(7)}`), text);
  assert(text.includes(`ip saddr 10.66.8.0/24 ct mark set ${mark(10)} `), text);
  for (const number of [8, 9]) {
    assert(!text.includes(String(mark(number))), "a mark that connections may bear is nobody's");
  }
  assertEquals(new TunPeers("oxrelay0").adopt(""), 0);
});

Deno.test("rules of the host: nobody but peers and the host asks for ports, as nobody else's source address is checked", () => {
  const rules = (portControl: boolean, all = false) =>
    inputRules({
      device: "oxrelay0",
      own4: "10.66.0.1",
      own6: "fd00::1",
      host: { all, prefixes: [], portControl },
    } as unknown as RulesOptions);
  const drops = [
    'iifname != { "lo", "oxrelay0" } ip daddr 10.66.0.1 udp dport 5351 drop',
    'iifname != { "lo", "oxrelay0" } ip6 daddr fd00::1 udp dport 5351 drop',
  ];
  assertEquals(rules(true).slice(0, 2), drops, "before anything is accepted");
  assertEquals(rules(true, true).slice(0, 2), drops);
  assertEquals(rules(false).filter((rule) => rule.includes("5351")), []);
});
