/** For which rules of others the relay's own datagrams stay in conntrack, by rulesets as `nft list ruleset` prints them. */
import { assertEquals } from "@std/assert";
import { trackingNeed } from "../../src/exit/tun/tracking.ts";

const inChain = (base: string, ...rules: string[]) =>
  `table inet filter {\n\tset open {\n\t\ttype inet_service\n\t}\n\n\tchain c {\n` +
  [...(base === "" ? [] : [base]), ...rules].map((line) => `\t\t${line}\n`).join("") + "\t}\n}\n";
const INPUT = "type filter hook input priority filter; policy accept;";
const OUTPUT = "type filter hook output priority filter; policy accept;";

Deno.test("tracking: rules by state, by sets and ranges, and chains that drop keep the relay's datagrams tracked", () => {
  for (
    const [base, rule] of [
      [INPUT, "ct state established,related accept"],
      [OUTPUT, "ct state established accept"],
      ["", "ct state vmap { established : accept, related : accept, invalid : drop }"],
      [INPUT, "udp dport @open ct state new accept"],
      [INPUT, "udp dport 4000-5000 ct state new accept"],
      [INPUT, "udp dport { 53, 4433 } ct state new accept"],
      [INPUT, "meta l4proto udp ct mark 0x1 accept"],
      [INPUT, 'xt match "conntrack" counter packets 0 bytes 0 accept'],
      ["type nat hook prerouting priority dstnat; policy accept;", "udp dport 400-500 redirect to :4433"],
      ["type nat hook prerouting priority dstnat; policy accept;", "udp dport 443 redirect to :4433"],
      ["type nat hook postrouting priority srcnat; policy accept;", "udp sport 4433 snat to 192.0.2.1"],
      ["type nat hook prerouting priority dstnat; policy accept;", "ip daddr 192.0.2.1 dnat to 10.0.0.1"],
    ]
  ) {
    assertEquals(trackingNeed(inChain(base, rule), 4433, "oxrelay"), rule);
  }
  for (const base of [INPUT, OUTPUT]) {
    const drops = base.replace("accept", "drop");
    assertEquals(trackingNeed(inChain(drops, "udp dport 4433 accept"), 4433, "oxrelay"), drops);
  }
});

Deno.test("tracking: what is of other protocols, other ports, forwarding or the relays' own needs none", () => {
  const forward = "type filter hook forward priority filter; policy drop;";
  for (
    const listed of [
      "",
      inChain(INPUT, "udp dport 4433 accept", "tcp dport 22 ct state new accept", "counter"),
      inChain(INPUT, "udp dport 53 ct state new accept", "meta l4proto tcp ct state established accept"),
      inChain(forward, "ct state established,related accept"),
      inChain("type nat hook postrouting priority srcnat; policy accept;", 'oifname "eth0" masquerade'),
      inChain("type nat hook prerouting priority dstnat; policy accept;", "tcp dport 80 dnat to 10.0.0.1"),
      inChain(INPUT, "ct state established accept").replace("inet filter", "inet oxrelay_oxrelay1"),
    ]
  ) assertEquals(trackingNeed(listed, 4433, "oxrelay"), undefined, listed);
});
