/**
 * IP addresses and prefixes as four host-order 32-bit words, IPv4 as ::ffff:a.b.c.d, and their text forms
 * (RFC 4291, RFC 5952). Every function that takes text returns undefined on what is not an address; nothing
 * here resolves names.
 */

/** Four u32 words, most significant first. */
export type Address = Uint32Array;

export interface Prefix {
  address: Address;
  /** 0..128 over the mapped form: an IPv4 /24 has 120. */
  bits: number;
}

const MAPPED = 0xffff;

/** Whether the words at `at` are an IPv4 address in its mapped form. */
export function isIpv4(words: Uint32Array, at = 0): boolean {
  return words[at] === 0 && words[at + 1] === 0 && words[at + 2] === MAPPED;
}

function parseIpv4(text: string): number | undefined {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text);
  if (!match) return undefined;
  let value = 0;
  for (let i = 1; i <= 4; i++) {
    const octet = Number(match[i]);
    if (octet > 255) return undefined;
    value = value * 256 + octet;
  }
  return value;
}

/** Parses an IPv4 or IPv6 literal; a zone (fe80::1%eth0) is dropped. */
export function parseAddress(text: string): Address | undefined {
  const v4 = parseIpv4(text);
  if (v4 !== undefined) return Uint32Array.of(0, 0, MAPPED, v4);
  let body = text.split("%")[0];
  const tail = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(body);
  if (tail) {
    const low = parseIpv4(tail[2]);
    if (low === undefined) return undefined;
    body = `${tail[1]}${(low >>> 16).toString(16)}:${(low & 0xffff).toString(16)}`;
  }
  const halves = body.split("::");
  if (halves.length > 2 || body === "") return undefined;
  const head = halves[0] === "" ? [] : halves[0].split(":");
  const rest = halves.length === 1 || halves[1] === "" ? [] : halves[1].split(":");
  const missing = 8 - head.length - rest.length;
  if (halves.length === 1 ? missing !== 0 : missing < 1) return undefined;
  const groups = [...head, ...new Array(missing).fill("0"), ...rest];
  const words = new Uint32Array(4);
  for (let i = 0; i < 8; i++) {
    if (!/^[0-9a-fA-F]{1,4}$/.test(groups[i])) return undefined;
    words[i >> 1] = ((words[i >> 1] << 16) | parseInt(groups[i], 16)) >>> 0;
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

/** Parses "address/bits"; a bare address is a host prefix. Bits beyond the prefix length are cleared. */
export function parsePrefix(text: string): Prefix | undefined {
  const [literal, length, extra] = text.split("/");
  const address = parseAddress(literal);
  if (!address || extra !== undefined) return undefined;
  const v4 = !literal.includes(":");
  const width = v4 ? 32 : 128;
  if (length !== undefined && !/^\d{1,3}$/.test(length)) return undefined;
  const own = length === undefined ? width : Number(length);
  if (own > width) return undefined;
  const bits = v4 ? own + 96 : own;
  maskAddress(address, bits);
  return { address, bits };
}

/** Clears every bit of the address behind the first `bits`. */
export function maskAddress(address: Address, bits: number): void {
  for (let i = 0; i < 4; i++) {
    const keep = Math.min(32, Math.max(0, bits - 32 * i));
    address[i] = keep === 0 ? 0 : (address[i] & (keep === 32 ? -1 : ~(0xffffffff >>> keep))) >>> 0;
  }
}
