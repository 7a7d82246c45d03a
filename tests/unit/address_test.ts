/**
 * The one parser of addresses and prefixes: what it takes and refuses, that text and words go round, and that an IPv4
 * address is the same to every reader whichever way it is written, plain, mapped or inside NAT64. FUZZ_SEED and FUZZ_RUNS
 * choose the run.
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { DestinationPolicy } from "../../src/ingress/policy.ts";
import { TrustedLinks } from "../../src/session/oxtunnel/trusted_links.ts";
import {
  addressBytes,
  formatAddress,
  formatPrefix,
  hostOne,
  isIpv4,
  outermost,
  parseAddress,
  parseInterface,
  parsePrefix,
  type Prefix,
  prefixContains,
  prefixesOverlap,
} from "../../src/wire/address.ts";
import { isGlobal, SPECIAL_RANGES } from "../../src/wire/special_ranges.ts";

const options = {
  numRuns: Number(Deno.env.get("FUZZ_RUNS") ?? 500),
  seed: Number(Deno.env.get("FUZZ_SEED") ?? 20260101),
};

const word = fc.integer({ min: 0, max: 0xffffffff });
const ipv4 = fc.oneof(word, fc.constantFrom(0, 0x7f000001, 0x0a000001, 0xa9fea9fe, 0xe0000001, 0x01010101));
/** Many zero words, so that runs of zeros are shortened in every place. */
const sparse = fc.oneof(word, fc.constantFrom(0, 0, 1, 0xffff, 0x10000));
const words = fc.oneof(
  fc.tuple(sparse, sparse, sparse, sparse).map((parts) => Uint32Array.from(parts)),
  ipv4.map((low) => Uint32Array.of(0, 0, 0xffff, low)),
);
const dotted = (value: number) => [24, 16, 8, 0].map((shift) => value >>> shift & 255).join(".");
const groups = (value: number) => `${(value >>> 16).toString(16)}:${(value & 0xffff).toString(16)}`;

Deno.test("address: text and words go round, prefixes too, and a text has one form", () => {
  fc.assert(
    fc.property(words, fc.nat(128), (address, bits) => {
      const text = formatAddress(address);
      assertEquals(parseAddress(text), address);
      assertEquals(formatAddress(parseAddress(text.toUpperCase())!), text);
      assertEquals(addressBytes(address).length, isIpv4(address) ? 4 : 16);
      const written = isIpv4(address) ? `${text}/${bits % 33}` : `${text}/${bits}`;
      const prefix = parsePrefix(written)!;
      assertEquals(parsePrefix(formatPrefix(prefix)), prefix);
      assertEquals(parseInterface(written)!.address, address);
      assert(prefixContains(prefix, address));
      assert(prefixesOverlap(prefix, parsePrefix(text)!) && prefixesOverlap(parsePrefix(text)!, prefix));
    }),
    options,
  );
});

Deno.test("address: an IPv4 address and its mapped forms are one address, and so are their prefixes", () => {
  fc.assert(
    fc.property(ipv4, fc.nat(32), (value, bits) => {
      const plain = dotted(value);
      const mapped = [`::ffff:${plain}`, `::FFFF:${groups(value)}`, `0:0:0:0:0:ffff:${groups(value)}`];
      for (const text of mapped) {
        assertEquals(formatAddress(parseAddress(text)!), plain);
        assertEquals(parsePrefix(`${text}/${96 + bits}`), parsePrefix(`${plain}/${bits}`));
        // Neither family's network: it would be one to some readers and the other to others.
        assertEquals(parsePrefix(`${text}/${95 - bits}`), undefined);
      }
    }),
    options,
  );
});

Deno.test("address: policy and trusted networks judge plain, mapped and NAT64 forms alike", () => {
  fc.assert(
    fc.property(ipv4, fc.integer({ min: 8, max: 32 }), ipv4, (value, bits, one) => {
      const [plain, mapped] = [`${dotted(value)}/${bits}`, `::ffff:${dotted(value)}/${96 + bits}`];
      const rules = {
        allowLoopback: false,
        allowLinkLocal: false,
        allowPrivate: false,
        allowPeers: false,
        allow: [],
      };
      const says = (rules: ConstructorParameters<typeof DestinationPolicy>[0], address: Uint32Array) =>
        new DestinationPolicy(rules).allows(address, 0, isIpv4(address) ? 4 : 6);
      const four = Uint32Array.of(0, 0, 0xffff, one), nat64 = Uint32Array.of(0x64ff9b, 0, 0, one);
      for (const key of ["allow", "deny"]) {
        const verdict = says({ ...rules, [key]: [plain] }, four);
        assertEquals(says({ ...rules, [key]: [mapped] }, four), verdict);
        // NAT64 carries an IPv4 destination and is judged by it (RFC 6052).
        assertEquals(says({ ...rules, [key]: [mapped] }, nat64), verdict);
      }
      assertEquals(new TrustedLinks([plain]).has(four, 0), new TrustedLinks([mapped]).has(four, 0));
    }),
    options,
  );
});

Deno.test("address: the outermost of prefixes hold the rest and do not hold each other", () => {
  const prefix = fc.tuple(words, fc.nat(128)).map(([address, bits]) => {
    const text = formatAddress(address);
    return parsePrefix(`${text}/${isIpv4(address) ? bits % 33 : bits}`)!;
  });
  fc.assert(
    fc.property(fc.array(prefix, { maxLength: 30 }), (prefixes) => {
      const kept = outermost(prefixes);
      const holds = (a: Prefix, b: Prefix) => a.bits <= b.bits && prefixContains(a, b.address);
      for (const one of prefixes) assertEquals(kept.filter((outer) => holds(outer, one)).length, 1);
      for (const one of kept) assert(prefixes.includes(one));
    }),
    options,
  );
});

Deno.test("address: what is no address or prefix, and the relay's own host 1", () => {
  assertEquals(formatAddress(parseAddress("2001:DB8:0:0:0:0:0:0")!), "2001:db8::");
  assertEquals(formatAddress(parseAddress("1:0:0:2:0:0:0:10")!), "1:0:0:2::10");
  assertEquals(formatAddress(parseAddress("1:0:2:3:4:5:6:10")!), "1:0:2:3:4:5:6:10");
  for (
    const text of [
      "",
      "1.2.3",
      "01.2.3.4",
      "256.1.1.1",
      "1.2.3.4.5",
      ":",
      ":::",
      "1:::2",
      "::1::",
      "1:2:3:4:5:6:7:8:9",
      "1:2:3:4:5:6:7::8",
      "g::",
      "::1.2.3",
      "::01.2.3.4",
      "1.2.3.4::",
      "fe80::1%eth0",
      "::" + "0".repeat(100),
    ]
  ) assertEquals(parseAddress(text)?.join(), undefined, text);
  assertEquals(formatPrefix(parsePrefix("192.168.129.7/17")!), "192.168.128.0/17");
  assertEquals(formatPrefix(parsePrefix("fd00:1:2:3:ffff::/64")!), "fd00:1:2:3::/64");
  assertEquals(formatPrefix(parsePrefix("1.2.3.4")!), "1.2.3.4/32");
  for (const text of ["1.2.3.4/33", "::/129", "1.2.3.4/-1", "1.2.3.4/08", "1.2.3.4/", "/8", "::/1/1"]) {
    assertEquals(parsePrefix(text), undefined, text);
  }
  const contains = (prefix: string, address: string) =>
    prefixContains(parsePrefix(prefix)!, parseAddress(address)!);
  assert(contains("172.16.0.0/12", "172.31.255.255"));
  assert(!contains("172.16.0.0/12", "172.32.0.0"));
  assert(!contains("0.0.0.0/0", "::") && !contains("::/0", "1.2.3.4") && contains("::/0", "::"));
  assert(!prefixesOverlap(parsePrefix("::/0")!, parsePrefix("10.0.0.0/8")!));
  assertEquals(hostOne("10.66.0.0/16"), { address: "10.66.0.1", prefix: 16 });
  assertEquals(hostOne("10.66.0.128/25"), { address: "10.66.0.129", prefix: 25 });
  assertEquals(hostOne("10.66.0.130/25"), { address: "10.66.0.129", prefix: 25 });
  assertEquals(hostOne("fd12:3456:789a:0:0::/64"), { address: "fd12:3456:789a::1", prefix: 64 });
  assertEquals(hostOne("fd12:0:0:1::/64"), { address: "fd12:0:0:1::1", prefix: 64 });
  assertThrows(() => hostOne("10.66.0.0"), RangeError);
});

Deno.test("special ranges: each stands once, as a network, and only the internet is global", () => {
  const texts = SPECIAL_RANGES.map(({ prefix }) => prefix);
  assertEquals(new Set(texts).size, texts.length);
  for (const text of texts) {
    assertEquals(formatPrefix(parsePrefix(text)!), text);
    assertEquals(isGlobal(parsePrefix(text)!.address), false, text);
  }
  for (const text of ["1.1.1.1", "168.63.129.15", "2606:4700::1111"]) {
    assert(isGlobal(parseAddress(text)!), text);
  }
  for (const text of ["168.63.129.16", "fe80::1", "4000::1", "203.0.113.9"]) {
    assert(!isGlobal(parseAddress(text)!), text);
  }
});
