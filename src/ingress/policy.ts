/**
 * The destination policy: which inner destinations may leave through the exit. Invariant: a destination that
 * wire/special_ranges.ts assigns to a host or a private network is denied unless a rule opens it, IPv4 inside IPv6 included;
 * the relay's own addresses are denied unless loopback is opened; `deny` overrides every rule, for addresses of peers too. The
 * caller decides which peers may be reached.
 * Keeps PROTOCOL R20.
 */
import { NONE } from "../vector/arena.ts";
import { parseAddress, parsePrefix } from "../wire/address.ts";
import { rangeTexts } from "../wire/special_ranges.ts";
import { PrefixTable } from "../vector/prefix_table.ts";

const ALLOW = 1;
const DENY = 0;

// A recent answer: the address, then the verdict plus one; 0 for an empty entry.
const RECENT_WORDS = 8, KNOWN = 4, RECENT_LOG2 = 8;

export interface DestinationRules {
  allowLoopback: boolean;
  allowLinkLocal: boolean;
  allowPrivate: boolean;
  allowPeers: boolean;
  /** Whether the relay's own inner address answers speedtests; it does when absent. */
  allowSpeedtest?: boolean;
  /** How many ports a client may open by PCP or NAT-PMP; none when absent. */
  portMappings?: number;
  /** Prefixes opened one by one: "192.168.1.0/24". */
  allow: readonly string[];
  /** Prefixes closed whatever rule opens them; none when absent. */
  deny?: readonly string[];
}

export class DestinationPolicy {
  readonly allowPeers: boolean;
  readonly allowSpeedtest: boolean;
  /** Whether packets for port control (RFC 6887) at the relay's own inner address go to the exit. */
  readonly allowPortControl: boolean;
  readonly #table = new PrefixTable();
  readonly #denied = new PrefixTable();
  readonly #own: string[] = [];
  /** All of the host's addresses, four words each. */
  #host = new Uint32Array(0);
  /** Addresses with their verdicts, each at the index of its hash. */
  readonly #recent = new Uint32Array(RECENT_WORDS << RECENT_LOG2);
  readonly #allowLoopback: boolean;

  /** Throws when a prefix is malformed. */
  constructor(rules: DestinationRules) {
    this.allowPeers = rules.allowPeers;
    this.allowSpeedtest = rules.allowSpeedtest ?? true;
    this.allowPortControl = (rules.portMappings ?? 0) > 0;
    this.#allowLoopback = rules.allowLoopback;
    this.#add(this.#table, ["0.0.0.0/0", "::/0"], ALLOW);
    this.#add(this.#table, rangeTexts("never"), DENY);
    if (!rules.allowLoopback) this.#add(this.#table, rangeTexts("loopback"), DENY);
    if (!rules.allowLinkLocal) this.#add(this.#table, rangeTexts("link_local", "metadata"), DENY);
    if (!rules.allowPrivate) this.#add(this.#table, rangeTexts("private"), DENY);
    this.#add(this.#table, rules.allow, ALLOW);
    this.#add(this.#denied, rules.deny ?? [], DENY);
  }

  /**
   * Denies the host's own addresses, as text, in place of those given before; they change when a lease does.
   * A prefix in `allow` that is longer or equal wins, so an address opened on purpose stays open.
   */
  setOwnAddresses(addresses: readonly string[]): void {
    // Interfaces are listed with their zones: "fe80::1%eth0".
    const texts = addresses.map((text) => text.split("%")[0]);
    this.#host = Uint32Array.from(texts.flatMap((text) => [...parseAddress(text) ?? []]));
    if (this.#allowLoopback) return;
    this.#recent.fill(0);
    for (const text of this.#own.splice(0)) this.#remove(text);
    for (const text of texts) {
      const address = parseAddress(text);
      if (!address) continue;
      const before = this.#table.set(address, 128, DENY);
      if (before === NONE) this.#own.push(text);
      else this.#table.set(address, 128, before);
    }
  }

  /** Whether `deny` names the address at words[at..at+3]; it holds for peers as for the internet. */
  denies(words: Uint32Array, at: number): boolean {
    return this.#denied.size > 0 && this.#denied.lookup(words, at) !== NONE;
  }

  /** Whether a packet of IP version 4 or 6 may go to the address at words[at..at+3]. Hot: allocates nothing. */
  allows(words: Uint32Array, at: number, version: number): boolean {
    const a = words[at], b = words[at + 1], c = words[at + 2];
    if (version === 6) {
      // An IPv6 packet to a mapped IPv4 address would be judged, and sent, as that IPv4 address.
      if (a === 0 && b === 0 && (c === 0xffff || (c === 0 && words[at + 3] !== 1))) return false;
      // Addresses that carry an IPv4 destination are judged by it: NAT64 (RFC 6052) and 6to4 (RFC 3056).
      const own = this.#verdict(words, at) === ALLOW;
      if (a === 0x0064ff9b && b === 0 && c === 0) return own && this.#allowsIpv4(words[at + 3]);
      if (a >>> 16 === 0x2002) return own && this.#allowsIpv4(((a << 16) | (b >>> 16)) >>> 0);
    }
    return this.#verdict(words, at) === ALLOW;
  }

  /** Whether words[at..at+3] is an address of the host itself. Allocates nothing. */
  isHost(words: Uint32Array, at: number): boolean {
    const host = this.#host;
    for (let i = 0; i < host.length; i += 4) {
      if (
        host[i + 3] === words[at + 3] && host[i + 2] === words[at + 2] && host[i + 1] === words[at + 1] &&
        host[i] === words[at]
      ) return true;
    }
    return false;
  }

  /** The table's verdict on an address. A public address needs ten look-ups, so recent answers are kept. */
  #verdict(words: Uint32Array, at: number): number {
    const recent = this.#recent;
    const a = words[at], b = words[at + 1], c = words[at + 2], d = words[at + 3];
    const hash = Math.imul(a ^ b ^ c ^ d, 0x9e3779b1);
    const place = RECENT_WORDS * (hash >>> (32 - RECENT_LOG2));
    if (
      recent[place + 3] === d && recent[place + 2] === c && recent[place + 1] === b && recent[place] === a &&
      recent[place + KNOWN] !== 0
    ) return recent[place + KNOWN] - 1;
    const verdict = this.#denied.lookup(words, at) === NONE ? this.#table.lookup(words, at) : DENY;
    recent[place] = a;
    recent[place + 1] = b;
    recent[place + 2] = c;
    recent[place + 3] = d;
    recent[place + KNOWN] = verdict + 1;
    return verdict;
  }

  readonly #embedded = Uint32Array.of(0, 0, 0xffff, 0);

  #allowsIpv4(value: number): boolean {
    this.#embedded[3] = value;
    return this.#verdict(this.#embedded, 0) === ALLOW;
  }

  #add(table: PrefixTable, prefixes: readonly string[], verdict: number): void {
    for (const text of prefixes) {
      const prefix = parsePrefix(text);
      if (!prefix) throw new Error(`destinations: "${text}" is not an IP prefix such as "192.168.1.0/24"`);
      table.set(prefix.address, prefix.bits, verdict);
    }
  }

  #remove(text: string): void {
    const prefix = parsePrefix(text.split("%")[0]);
    if (prefix) this.#table.delete(prefix.address, prefix.bits);
  }
}
