/**
 * IP addresses and prefixes as four host-order 32-bit words, IPv4 as ::ffff:a.b.c.d, and their text forms
 * (RFC 4291, RFC 5952): the one parser of the program. Invariant: an address has one normal form, however it was
 * written, so "::ffff:10.0.0.0/104" is 10.0.0.0/8 for every check; no IPv6 prefix holds an IPv4 address. Functions that take
 * text return undefined for a text that is no address or prefix. Resolves no names.
 */

/** Four u32 words, most significant first. */
export type Address = Uint32Array;

export interface Prefix {
  address: Address;
  /** 0..128 over the mapped form: an IPv4 /24 has 120. */
  bits: number;
}

const MAPPED = 0xffff;
const MAPPED_BITS = 96;
const TEXT_MAX = 45;

/** Whether the words at `at` are an IPv4 address in its mapped form. */
export function isIpv4(words: Uint32Array, at = 0): boolean {
  return words[at] === 0 && words[at + 1] === 0 && words[at + 2] === MAPPED;
}

const DOT = 46, ZERO = 48, NINE = 57, COLON = 58, A_SMALL = 97;

/** The dotted IPv4 address that `text` holds from index `from` to its end. */
function parseIpv4(text: string, from: number): number | undefined {
  let value = 0, part = 0, digits = 0, dots = 0;
  for (let at = from; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === DOT) {
      if (digits === 0 || ++dots > 3) return undefined;
      value = value * 256 + part;
      part = digits = 0;
      continue;
    }
    // A leading zero is octal for some parsers and decimal for others, so it is refused.
    if (code < ZERO || code > NINE || (digits > 0 && part === 0)) return undefined;
    part = part * 10 + code - ZERO;
    digits++;
    if (part > 255) return undefined;
  }
  return dots === 3 && digits > 0 ? value * 256 + part : undefined;
}

/** The value of a hexadecimal digit's character, or -1. */
function hexDigit(code: number): number {
  if (code >= ZERO && code <= NINE) return code - ZERO;
  const letter = (code | 32) - A_SMALL;
  return letter >= 0 && letter < 6 ? 10 + letter : -1;
}

/**
 * Parses an IPv4 or IPv6 literal (RFC 4291 section 2.2); an IPv4-mapped one gives the IPv4 address. A zone
 * ("fe80::1%eth0") is refused: it is no part of an address. One pass, because a relay reads thousands at start.
 */
export function parseAddress(text: string): Address | undefined {
  if (text.length > TEXT_MAX) return undefined;
  if (!text.includes(":")) {
    const v4 = parseIpv4(text, 0);
    return v4 === undefined ? undefined : Uint32Array.of(0, 0, MAPPED, v4);
  }
  const groups: number[] = [];
  /** How many groups are before "::". */
  let gap = text.startsWith("::") ? 0 : -1;
  for (let at = gap === 0 ? 2 : 0; at < text.length;) {
    const start = at;
    let value = 0;
    for (let digit; at < text.length && (digit = hexDigit(text.charCodeAt(at))) >= 0; at++) {
      value = value * 16 + digit;
    }
    if (at === start || at - start > 4 || groups.length === 8) return undefined;
    if (text.charCodeAt(at) === DOT) {
      const low = parseIpv4(text, start);
      if (low === undefined) return undefined;
      groups.push(low >>> 16, low & 0xffff);
      break;
    }
    groups.push(value);
    if (at === text.length) break;
    if (text.charCodeAt(at++) !== COLON || at === text.length) return undefined;
    if (text.charCodeAt(at) !== COLON) continue;
    if (gap >= 0) return undefined;
    gap = groups.length;
    at++;
  }
  const missing = 8 - groups.length;
  if (gap < 0 ? missing !== 0 : missing < 1) return undefined;
  const words = new Uint32Array(4);
  for (let i = 0; i < groups.length; i++) {
    const place = gap >= 0 && i >= gap ? i + missing : i;
    words[place >> 1] |= groups[i] << (place & 1 ? 0 : 16);
  }
  return words;
}

/** Text of the words at `at`: dotted for IPv4, RFC 5952 otherwise. */
export function formatAddress(words: Uint32Array, at = 0): string {
  if (isIpv4(words, at)) {
    const v = words[at + 3];
    return `${v >>> 24}.${(v >>> 16) & 255}.${(v >>> 8) & 255}.${v & 255}`;
  }
  const groups: number[] = [];
  for (let i = 0; i < 4; i++) groups.push(words[at + i] >>> 16, words[at + i] & 0xffff);
  let longest = 1, start = -1;
  for (let i = 0; i < 8; i++) {
    let run = 0;
    while (i + run < 8 && groups[i + run] === 0) run++;
    if (run > longest) [longest, start] = [run, i];
  }
  const hex = groups.map((g) => g.toString(16));
  if (start < 0) return hex.join(":");
  return `${hex.slice(0, start).join(":")}::${hex.slice(start + longest).join(":")}`;
}

/** "192.0.2.1:4433" or "[2001:db8::1]:4433". */
export function formatEndpoint(words: Uint32Array, at: number, port: number): string {
  const text = formatAddress(words, at);
  return isIpv4(words, at) ? `${text}:${port}` : `[${text}]:${port}`;
}

/** The address's 16 bytes in network order, IPv4 mapped. */
export function mappedBytes(words: Uint32Array, at = 0): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length: 16 }, (_, i) => words[at + (i >> 2)] >>> (24 - 8 * (i & 3)));
}

/** The address's bytes in network order: 4 of IPv4, 16 of IPv6. */
export function addressBytes(words: Uint32Array, at = 0): Uint8Array<ArrayBuffer> {
  const bytes = mappedBytes(words, at);
  return isIpv4(words, at) ? bytes.slice(12) : bytes;
}

/**
 * Parses "address/bits" with the host's bits kept, as for an interface; a bare address is a host prefix. `bits` is 0..32 for
 * IPv4, 0..128 for IPv6, and 96..128 for a mapped address, which gives the IPv4 prefix.
 */
export function parseInterface(text: string): Prefix | undefined {
  const [literal, length, extra] = text.split("/");
  const address = parseAddress(literal);
  if (!address || extra !== undefined) return undefined;
  if (length !== undefined && !/^(0|[1-9]\d{0,2})$/.test(length)) return undefined;
  const isDotted = !literal.includes(":");
  const bits = length === undefined ? 128 : Number(length) + (isDotted ? MAPPED_BITS : 0);
  // A mapped address with fewer bits is a network of neither family.
  return bits > 128 || (isIpv4(address) && bits < MAPPED_BITS) ? undefined : { address, bits };
}

/** Parses "address/bits"; a bare address is a host prefix. Bits beyond the prefix length are cleared. */
export function parsePrefix(text: string): Prefix | undefined {
  const prefix = parseInterface(text);
  if (prefix) maskAddress(prefix.address, prefix.bits);
  return prefix;
}

/** The prefix's length as its family counts it: 0..32 or 0..128. */
export function prefixLength({ address, bits }: Prefix): number {
  return isIpv4(address) ? bits - MAPPED_BITS : bits;
}

/** The normal text of a prefix: "192.168.1.0/24". */
export function formatPrefix(prefix: Prefix): string {
  return `${formatAddress(prefix.address)}/${prefixLength(prefix)}`;
}

/** Whether the address lies in the prefix. Families never match each other. */
export function prefixContains({ address, bits }: Prefix, other: Address): boolean {
  if (isIpv4(address) !== isIpv4(other)) return false;
  for (let i = 0; i < 4; i++) if (maskedWord(other, i, bits) !== address[i]) return false;
  return true;
}

/** Whether two prefixes, with no bits beyond their lengths, share an address. */
export function prefixesOverlap(a: Prefix, b: Prefix): boolean {
  return a.bits <= b.bits ? prefixContains(a, b.address) : prefixContains(b, a.address);
}

/** The prefixes that no other one contains, in ascending order; IPv4 sorts by its mapped form, amid IPv6. */
export function outermost(prefixes: readonly Prefix[]): Prefix[] {
  const order = (a: Prefix, b: Prefix) => {
    const at = a.address.findIndex((word, i) => word !== b.address[i]);
    return at < 0 ? a.bits - b.bits : a.address[at] - b.address[at];
  };
  const kept: Prefix[] = [];
  // The last one of each family, because IPv4 prefixes lie amid IPv6 ones.
  let last4: Prefix | undefined, last6: Prefix | undefined;
  for (const one of prefixes.toSorted(order)) {
    const isV4 = isIpv4(one.address);
    const last = isV4 ? last4 : last6;
    if (last && prefixContains(last, one.address)) continue;
    if (isV4) last4 = one;
    else last6 = one;
    kept.push(one);
  }
  return kept;
}

/**
 * The relay's own address in a tunnel prefix, host number 1: "10.66.0.128/25" gives 10.66.0.129 and 25. Throws
 * RangeError when the text is no prefix.
 */
export function hostOne(text: string): { address: string; prefix: number } {
  const prefix = text.includes("/") ? parsePrefix(text) : undefined;
  if (prefix === undefined) throw new RangeError(`not a prefix: ${text.slice(0, 60)}`);
  const length = prefixLength(prefix);
  prefix.address[3] = (prefix.address[3] | 1) >>> 0;
  return { address: formatAddress(prefix.address), prefix: length };
}

/** Clears every bit of the address after the first `bits`. */
export function maskAddress(address: Address, bits: number): void {
  for (let i = 0; i < 4; i++) address[i] = maskedWord(address, i, bits);
}

function maskedWord(address: Address, i: number, bits: number): number {
  const keep = Math.min(32, Math.max(0, bits - 32 * i));
  return keep === 0 ? 0 : (address[i] & (keep === 32 ? -1 : ~(0xffffffff >>> keep))) >>> 0;
}
