/**
 * The destination policy against a list of the addresses that must not be reached, range by range and by name,
 * and against a scan for the longest rule. Invariant under test: what is closed is closed at its very edges and in
 * every disguise that IPv6 has for IPv4, and each opening opens its own range and no other. FUZZ_SEED and
 * FUZZ_RUNS choose the run.
 */
import { assert, assertEquals, assertGreater, assertThrows } from "@std/assert";
import fc from "fast-check";
import { DestinationPolicy, type DestinationRules } from "../../src/ingress/policy.ts";
import { formatAddress, parsePrefix } from "../../src/wire/address.ts";

const options = {
  numRuns: Number(Deno.env.get("FUZZ_RUNS") ?? 300),
  seed: Number(Deno.env.get("FUZZ_SEED") ?? 20260101),
};

type Key = "allowLoopback" | "allowLinkLocal" | "allowPrivate";
const KEYS: readonly Key[] = ["allowLoopback", "allowLinkLocal", "allowPrivate"];

const CLOSED: DestinationRules = {
  allowLoopback: false,
  allowLinkLocal: false,
  allowPrivate: false,
  allowPeers: false,
  allow: [],
};

/** Every range that is closed by default, and the key that opens it, if one does. */
const FORBIDDEN: readonly [name: string, prefix: string, key?: Key][] = [
  ["this network (RFC 791)", "0.0.0.0/8"],
  ["multicast (RFC 5771)", "224.0.0.0/4"],
  ["reserved (RFC 1112)", "240.0.0.0/4"],
  ["unspecified IPv6 address (RFC 4291)", "::/128"],
  ["IPv6 multicast (RFC 4291)", "ff00::/8"],
  ["loopback (RFC 1122)", "127.0.0.0/8", "allowLoopback"],
  ["IPv6 loopback (RFC 4291)", "::1/128", "allowLoopback"],
  ["link-local (RFC 3927)", "169.254.0.0/16", "allowLinkLocal"],
  ["IPv6 link-local (RFC 4291)", "fe80::/10", "allowLinkLocal"],
  ["private use (RFC 1918)", "10.0.0.0/8", "allowPrivate"],
  ["private use (RFC 1918)", "172.16.0.0/12", "allowPrivate"],
  ["private use (RFC 1918)", "192.168.0.0/16", "allowPrivate"],
  ["shared address space (RFC 6598)", "100.64.0.0/10", "allowPrivate"],
  ["protocol assignments (RFC 6890)", "192.0.0.0/24", "allowPrivate"],
  ["benchmarking (RFC 2544)", "198.18.0.0/15", "allowPrivate"],
  ["unique local (RFC 4193)", "fc00::/7", "allowPrivate"],
  ["site-local (RFC 3879)", "fec0::/10", "allowPrivate"],
  ["local-use translation (RFC 8215)", "64:ff9b:1::/48", "allowPrivate"],
  ["segment identifiers (RFC 9602)", "5f00::/16", "allowPrivate"],
  ["Teredo (RFC 4380)", "2001::/32", "allowPrivate"],
  ["benchmarking (RFC 5180)", "2001:2::/48", "allowPrivate"],
  ["Azure's own services", "168.63.129.16/32", "allowLinkLocal"],
];

/** Services of clouds in ranges that one key opens; these want the other key besides. */
const METADATA = [
  "169.254.169.254/32",
  "100.100.100.200/32",
  "192.0.0.192/32",
  "fd00:ec2::254/128",
  "fd20:ce::254/128",
];

/** Single addresses in those ranges that people ask about, and the key of their range. */
const NOTORIOUS: readonly [name: string, address: string, key?: Key][] = [
  ["unspecified", "0.0.0.0"],
  ["limited broadcast (RFC 919)", "255.255.255.255"],
  ["all hosts", "224.0.0.1"],
  ["all nodes", "ff02::1"],
  ["localhost", "127.0.0.1", "allowLoopback"],
  ["a cloud's metadata", "169.254.169.254", "allowLinkLocal"],
  ["Azure's wire server", "168.63.129.16", "allowLinkLocal"],
];

const ALL_ONES = (1n << 128n) - 1n;
const MAPPED = 0xffff00000000n;
const NAT64 = 0x0064ff9bn << 96n;
const SIX_TO_FOUR = 0x2002n << 112n;

function wordsOf(address: bigint): Uint32Array {
  return Uint32Array.from([96n, 64n, 32n, 0n], (shift) => Number((address >> shift) & 0xffffffffn));
}

function textOf(address: bigint): string {
  return formatAddress(wordsOf(address));
}

interface Range {
  first: bigint;
  last: bigint;
  bits: number;
}

function rangeOf(text: string): Range {
  const { address, bits } = parsePrefix(text)!;
  const first = address.reduce((value, word) => (value << 32n) | BigInt(word), 0n);
  return { first, last: first | (ALL_ONES >> BigInt(bits)), bits };
}

const holds = ({ first, last }: Range, address: bigint) => first <= address && address <= last;
const isMapped = (address: bigint) => address >> 32n === 0xffffn;

/** The edges of a range, its middle, and what lies just outside. */
function pointsOf(prefix: string): bigint[] {
  const { first, last } = rangeOf(prefix);
  const points = [first, (first + last) / 2n, last, (first - 1n) & ALL_ONES, (last + 1n) & ALL_ONES];
  // What lies outside of IPv4 is no IPv4 address.
  return isMapped(first) ? points.map((point) => MAPPED | (point & 0xffffffffn)) : points;
}

/** The IPv6 addresses that carry an IPv4 destination: NAT64 (RFC 6052) and 6to4 (RFC 3056). */
function disguises(mapped: bigint): bigint[] {
  const ipv4 = mapped & 0xffffffffn;
  return [
    NAT64 | ipv4,
    SIX_TO_FOUR | (ipv4 << 80n),
    SIX_TO_FOUR | (ipv4 << 80n) | 0x1234_0000_0000_0000_0001n,
  ];
}

/** What the policy should say of a packet of IP version 4 or 6: the longest rule decides, and `allow` wins a tie. */
function expected(address: bigint, version: 4 | 6, rules: DestinationRules, own: bigint[] = []): boolean {
  if (
    rules.deny?.some((text) => holds(rangeOf(text), address) && (version === 6 || rangeOf(text).bits >= 96))
  ) {
    return false;
  }
  if (version === 6) {
    // IPv4-mapped and IPv4-compatible addresses belong in no packet (RFC 4942 §2.2).
    if ((isMapped(address) || address >> 32n === 0n) && address !== 1n) return false;
    if (address >> 32n === NAT64 >> 32n) return expected(MAPPED | (address & 0xffffffffn), 4, rules, own);
    if (address >> 112n === 0x2002n) {
      return expected(MAPPED | ((address >> 80n) & 0xffffffffn), 4, rules, own);
    }
  }
  // A short IPv6 prefix that happens to hold the mapped range is about no IPv4 address.
  const longest = (ranges: Range[]) =>
    Math.max(
      -1,
      ...ranges.filter((r) => holds(r, address) && (version === 6 || r.bits >= 96)).map((r) => r.bits),
    );
  const closed = FORBIDDEN.filter(([, , key]) => key === undefined || !rules[key]).map(([, text]) =>
    rangeOf(text)
  );
  if (!rules.allowLinkLocal) closed.push(...METADATA.map(rangeOf));
  if (!rules.allowLoopback) { for (const one of own) closed.push({ first: one, last: one, bits: 128 }); }
  return longest(rules.allow.map(rangeOf)) >= longest(closed);
}

/** Compares policy and model on one address, as itself and in every disguise. */
function agree(
  policy: DestinationPolicy,
  address: bigint,
  rules: DestinationRules,
  own: bigint[] = [],
): boolean {
  const version = isMapped(address) ? 4 : 6;
  const may = expected(address, version, rules, own);
  const says = (one: bigint, version: number) =>
    policy.allows(Uint32Array.of(7, ...wordsOf(one), 7), 1, version);
  assertEquals([textOf(address), says(address, version)], [textOf(address), may]);
  if (version === 4) {
    for (const one of disguises(address)) {
      assertEquals([textOf(one), says(one, 6)], [textOf(one), expected(one, 6, rules, own)]);
    }
    for (const one of [address, address & 0xffffffffn]) {
      // ::1 is loopback, and judged as such; 0.0.0.1 is no destination.
      if ((one & 0xffffffffn) !== 1n) {
        assertEquals([`IPv6 ${textOf(one)}`, says(one, 6)], [`IPv6 ${textOf(one)}`, false]);
      }
    }
  }
  return may;
}

const RANGES = FORBIDDEN.map(([, prefix]) => prefix);
const POINTS = [...new Set(RANGES.flatMap(pointsOf))];

Deno.test("policy: every forbidden range and address is closed by default, by name", () => {
  const policy = new DestinationPolicy(CLOSED);
  for (const [name, prefix] of FORBIDDEN) {
    const inside = pointsOf(prefix).slice(0, 3);
    assertEquals([name, ...inside.map((point) => agree(policy, point, CLOSED))], [name, false, false, false]);
  }
  for (const [name, text] of NOTORIOUS) {
    assertEquals([name, agree(policy, rangeOf(text).first, CLOSED)], [name, false]);
  }
  const internet = [
    "1.1.1.1",
    "9.255.255.255",
    "223.255.255.255",
    "2606:4700::1111",
    "64:ff9b::101:101",
    "2002:101:101::1",
  ];
  for (const text of internet) assertEquals([text, agree(policy, rangeOf(text).first, CLOSED)], [text, true]);
});

Deno.test("policy: each key opens its ranges, to their edges, and nothing else", () => {
  for (const opened of KEYS) {
    const rules = { ...CLOSED, [opened]: true };
    const policy = new DestinationPolicy(rules);
    for (const point of POINTS) agree(policy, point, rules);
    for (const [name, text, key] of [...FORBIDDEN, ...NOTORIOUS]) {
      assertEquals([name, agree(policy, rangeOf(text).first, rules)], [name, key === opened]);
    }
  }
});

Deno.test("policy: each range opened by its prefix opens, to its edges, and nothing else does", () => {
  for (const prefix of RANGES) {
    const rules = { ...CLOSED, allow: [prefix] };
    const policy = new DestinationPolicy(rules);
    for (const point of POINTS) agree(policy, point, rules);
    // The unspecified address is no destination for anyone.
    if (prefix !== "::/128") {
      assertEquals([prefix, agree(policy, rangeOf(prefix).first, rules)], [prefix, true]);
    }
  }
  for (const malformed of ["10.0.0.0/33", "nonsense", "::/129", "10.0.0.0/8/8", ""]) {
    assertThrows(() => new DestinationPolicy({ ...CLOSED, allow: [malformed] }), Error, "destinations");
  }
});

Deno.test("policy: a cloud's metadata stays closed where its network is opened, until link-local is opened too", () => {
  for (const one of METADATA) {
    const open = { ...CLOSED, allowPrivate: true };
    const { first } = rangeOf(one);
    assertEquals([one, agree(new DestinationPolicy(open), first, open)], [one, false]);
    const both = { ...open, allowLinkLocal: true };
    assertEquals([one, agree(new DestinationPolicy(both), first, both)], [one, true]);
  }
});

Deno.test("policy: what is denied stays so whatever opens it, in every disguise", () => {
  const rules: DestinationRules = {
    allowLoopback: true,
    allowLinkLocal: true,
    allowPrivate: true,
    allowPeers: true,
    allow: ["10.1.2.3/32", "2001:db8:1::9/128"],
    deny: ["10.1.0.0/16", "9.9.9.9/32", "2001:db8:1::/48"],
  };
  const policy = new DestinationPolicy(rules);
  for (const text of ["10.1.2.3", "9.9.9.9", "2001:db8:1::9"]) {
    const { first } = rangeOf(text);
    assertEquals([text, agree(policy, first, rules)], [text, false]);
    assertEquals([text, policy.denies(wordsOf(first), 0)], [text, true]);
  }
  for (const text of ["10.2.2.3", "9.9.9.8", "2001:db8:2::9"]) {
    const { first } = rangeOf(text);
    assertEquals([text, agree(policy, first, rules)], [text, true]);
    assertEquals([text, policy.denies(wordsOf(first), 0)], [text, false]);
  }
});

/** Anything at all, but mostly in or beside a range that matters. */
const address = fc.oneof(
  fc.constantFrom(...POINTS),
  fc.tuple(fc.constantFrom(...POINTS), fc.bigInt(0n, 0xffffffffn)).map(([point, low]) => point ^ low),
  fc.bigInt(0n, 0xffffffffn).map((low) => MAPPED | low),
  fc.bigInt(0n, ALL_ONES),
);
/** A mapped address has at least 96 bits, or is no prefix. */
const prefix = fc.tuple(address, fc.nat(128)).map(([address, bits]) =>
  `${ipv6Text(address)}/${isMapped(address) ? Math.max(96, bits) : bits}`
);

/** Hexadecimal groups even for IPv4-mapped addresses, so that a prefix length counts all 128 bits. */
function ipv6Text(address: bigint): string {
  return [...new Uint16Array(8).keys()].map((i) => ((address >> BigInt(112 - 16 * i)) & 0xffffn).toString(16))
    .join(":");
}

/** Own addresses as interfaces list them: loopback among them, and some twice. */
const own = fc.array(fc.oneof(address, fc.constant(1n)).filter((one) => !isEmbedding(one)), { maxLength: 5 })
  .map((addresses) => [...addresses, ...addresses.slice(0, 2)]);

function isEmbedding(address: bigint): boolean {
  return address >> 32n === NAT64 >> 32n || address >> 112n === 0x2002n;
}

Deno.test("policy: any rules, own addresses and destination get the longest rule's verdict", () => {
  const verdicts = [0, 0];
  fc.assert(
    fc.property(
      fc.record({
        allowLoopback: fc.boolean(),
        allowLinkLocal: fc.boolean(),
        allowPrivate: fc.boolean(),
        allowPeers: fc.boolean(),
        allow: fc.array(prefix, { maxLength: 8 }),
        deny: fc.array(prefix, { maxLength: 2 }),
      }),
      own,
      own,
      fc.array(address, { minLength: 1, maxLength: 30, size: "max" }),
      (rules, before, now, destinations) => {
        const policy = new DestinationPolicy(rules);
        assertEquals(policy.allowPeers, rules.allowPeers);
        policy.setOwnAddresses(before.map(textOf));
        policy.setOwnAddresses(["not an address", ...now.map(textOf)]);
        for (const one of [...destinations, ...before, ...now]) {
          verdicts[agree(policy, one, rules, now) ? 1 : 0]++;
        }
      },
    ),
    options,
  );
  assertGreater(Math.min(...verdicts), 1000);
});

Deno.test("policy: own addresses are closed, in disguise too, until a lease takes them away", () => {
  const policy = new DestinationPolicy({ ...CLOSED, allow: ["203.0.113.9/32"] });
  const own = ["192.0.2.9", "2001:db8::9", "203.0.113.9"];
  const verdicts = () =>
    own.map((text) => policy.allows(wordsOf(rangeOf(text).first), 0, text.includes(":") ? 6 : 4));
  policy.setOwnAddresses(own);
  assertEquals(verdicts(), [false, false, true]);
  for (const one of disguises(rangeOf("192.0.2.9").first)) {
    assertEquals(policy.allows(wordsOf(one), 0, 6), false);
  }
  // As interfaces list them: loopback among them, one address on two links.
  policy.setOwnAddresses(["127.0.0.1", "::1", "fe80::1%eth0", "fe80::1%eth1", "192.0.2.9", "192.0.2.9"]);
  for (const text of ["127.0.0.1", "::1", "fe80::1", "192.0.2.9"]) {
    assertEquals([text, agree(policy, rangeOf(text).first, CLOSED, [rangeOf("192.0.2.9").first])], [
      text,
      false,
    ]);
  }
  assert(policy.isHost(wordsOf(rangeOf("fe80::1").first), 0), "an address with a zone is the host's too");
  policy.setOwnAddresses(["2001:db8::9"]);
  assertEquals(verdicts(), [true, false, true]);
  policy.setOwnAddresses([]);
  assertEquals(verdicts(), [true, true, true]);
});
