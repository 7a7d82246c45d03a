/**
 * The addresses with a special purpose: the one table for the destination policy, the configuration and `peer add`,
 * after IANA's registries (RFC 6890) as of 2025. Invariant: every prefix is listed once, without host bits. Does not decide
 * which kinds are closed.
 */
import { type Address, parsePrefix, type Prefix, prefixContains } from "./address.ts";

/**
 * Where a range leads: "never", to no unicast destination; to the host itself; to its link; to a network that is not the internet;
 * to a cloud's metadata service; or nowhere, because the range is for documentation or discarded.
 */
export type RangeKind = "never" | "loopback" | "link_local" | "private" | "metadata" | "unrouted";

interface SpecialRange {
  readonly prefix: string;
  readonly kind: RangeKind;
}

/** Private use (RFC 1918), from which tunnel_ipv4 is taken. */
export const RFC_1918 = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"] as const;

const of = (kind: RangeKind, ...prefixes: readonly string[]): SpecialRange[] =>
  prefixes.map((prefix) => ({ prefix, kind }));

export const SPECIAL_RANGES: readonly SpecialRange[] = [
  // This network (RFC 791), multicast (RFC 5771), reserved with the limited broadcast (RFC 1112); unspecified, multicast (RFC 4291).
  ...of("never", "0.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4", "::/128", "ff00::/8"),
  ...of("loopback", "127.0.0.0/8", "::1/128"),
  ...of("link_local", "169.254.0.0/16", "fe80::/10"),
  ...of("private", ...RFC_1918),
  // Shared (RFC 6598), protocol assignments (RFC 6890), benchmarking (RFC 2544).
  ...of("private", "100.64.0.0/10", "192.0.0.0/24", "198.18.0.0/15"),
  // Unique local (RFC 4193), site-local (RFC 3879), local-use translation (RFC 8215), segment identifiers (RFC 9602).
  ...of("private", "fc00::/7", "fec0::/10", "64:ff9b:1::/48", "5f00::/16"),
  // Teredo (RFC 4380), whose addresses hide an IPv4 address; benchmarking (RFC 5180).
  ...of("private", "2001::/32", "2001:2::/48"),
  // Azure's, Alibaba's, Oracle's, Amazon's and Google's besides 169.254.169.254; IANA does not list the first as special.
  ...of("metadata", "168.63.129.16/32", "100.100.100.200/32", "192.0.0.192/32", "169.254.169.254/32"),
  ...of("metadata", "fd00:ec2::254/128", "fd20:ce::254/128"),
  // Documentation (RFC 5737, RFC 3849, RFC 9637), discard (RFC 6666), 6to4's relays (RFC 7526), ORCHID (RFC 4843).
  ...of("unrouted", "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "192.88.99.0/24"),
  ...of("unrouted", "2001:db8::/32", "3fff::/20", "100::/64", "100:0:0:1::/64", "2001:10::/28"),
];

/** The ranges of these kinds, as text. */
export function rangeTexts(...kinds: readonly RangeKind[]): string[] {
  return SPECIAL_RANGES.filter(({ kind }) => kinds.includes(kind)).map(({ prefix }) => prefix);
}

/** The ranges of these kinds. */
export function rangesOf(...kinds: readonly RangeKind[]): Prefix[] {
  return rangeTexts(...kinds).map((text) => parsePrefix(text)!);
}

const ALL = SPECIAL_RANGES.map(({ prefix }) => parsePrefix(prefix)!);

/** Whether the address is in none of the ranges; for IPv6 global unicast (RFC 4291 section 2.5.4) besides. */
export function isGlobal(address: Address): boolean {
  const isIpv6Global = address[0] >>> 29 === 1;
  const isIpv4 = address[0] === 0 && address[1] === 0 && address[2] === 0xffff;
  return (isIpv4 || isIpv6Global) && !ALL.some((range) => prefixContains(range, address));
}
