/**
 * The owner of each connection: each peer has a number, and connections from its addresses bear that number as conntrack mark,
 * so that both families of a peer are counted and deleted together. Invariant: marks of one device share its tag, and the
 * lines for nftables that `change` returns turn the former set of peers into the present one. Runs no program.
 */
import { formatPrefix, parsePrefix } from "../../wire/address.ts";

/** One peer as the exit knows it. */
export interface TunPeer {
  /** The peer's identity: its public key as text. */
  readonly key: string;
  /** Its allowed IPs: "10.66.0.2/32". */
  readonly prefixes: readonly string[];
}

const NUMBER_BITS = 20;
export const NUMBERS_MAX = (1 << NUMBER_BITS) - 1;
/** The bits of a mark that hold the device's tag. */
export const TAG_MASK = 0xfff00000;

/** The tag of a device in the bits of TAG_MASK, computed from its name (FNV-1a); never 0. */
export function tagOf(device: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < device.length; i++) hash = Math.imul(hash ^ device.charCodeAt(i), 0x01000193);
  return ((0x800 | (hash & 0x7ff)) << NUMBER_BITS) >>> 0;
}

interface Numbered {
  key: string;
  mark: number;
  prefixes: readonly string[];
}

/** A map of nftables for single addresses, and rules for prefixes of more than one. */
type Place = { map: string; element: string } | { rule: string; bits: number };

export class TunPeers {
  readonly #tag: number;
  #known = new Map<string, Numbered>();
  /** The peers of a killed relay, until the first change; connections still bear their marks. */
  #left = new Map<string, Numbered>();
  #next = 1;

  constructor(device: string) {
    this.#tag = tagOf(device);
  }

  /**
   * Reads the marks of a killed relay from nft's listing of its table: a peer that the first change contains with the same
   * prefixes keeps its mark, and so its connections. Returns the number of peers.
   */
  adopt(listed: string): number {
    const address = /(\S+) comment "([^"]+)" : (0x[0-9a-f]+|\d+)/g;
    const wide = /ip6? saddr (\S+) ct mark set (0x[0-9a-f]+|\d+) comment "([^"]+)"/g;
    const found = [
      ...[...listed.matchAll(address)].map(([, text, key, mark]) => [key, text, mark]),
      ...[...listed.matchAll(wide)].map(([, text, mark, key]) => [key, text, mark]),
    ];
    for (const [key, text, markText] of found) {
      const prefix = parsePrefix(text), mark = Number(markText);
      if (prefix === undefined || (mark & TAG_MASK) >>> 0 !== this.#tag) continue;
      const prefixes = [...this.#left.get(key)?.prefixes ?? [], formatPrefix(prefix)];
      this.#left.set(key, { key, mark, prefixes });
    }
    return this.#left.size;
  }

  /**
   * Replaces the peers. `lines` are for `nft -f`, and empty when nothing changes; `gone` are marks whose connections have no
   * owner any more. Throws when there are more peers than numbers.
   */
  change(peers: readonly TunPeer[], table: string): { lines: string[]; gone: number[] } {
    const before = this.#known, left = this.#left, now = new Map<string, Numbered>();
    const used = new Set([...before.values(), ...left.values()].map(({ mark }) => mark));
    const gone = new Map(before), unclaimed = new Map(left);
    for (const { key, prefixes } of peers) {
      const same = before.get(key);
      if (same !== undefined && `${same.prefixes}` === `${prefixes}`) {
        now.set(key, same);
        gone.delete(key);
      } else {
        const again = left.get(key);
        const keeps = again !== undefined && hasSamePrefixes(again.prefixes, prefixes);
        if (keeps) unclaimed.delete(key);
        now.set(key, { key, mark: keeps ? again.mark : this.#number(used), prefixes });
      }
    }
    this.#known = now;
    this.#left = new Map();
    const added = [...now].filter(([key, peer]) => before.get(key) !== peer).map(([, peer]) => peer);
    const lines = [
      ...elements("delete", table, [...gone.values()]),
      ...elements("add", table, added),
      ...([...gone.values(), ...added].some(isWide) ? this.wide(table) : []),
    ];
    return { lines, gone: [...gone.values(), ...unclaimed.values()].map(({ mark }) => mark) };
  }

  /** The lines for all peers, for a table that was just made. */
  all(table: string): string[] {
    return [...elements("add", table, [...this.#known.values()]), ...this.wide(table)];
  }

  /** Rules for prefixes of more than one address: the longest comes last, and so decides. */
  wide(table: string): string[] {
    const rules = [...this.#known.values()].flatMap((peer) => placesOf(peer, "saddr"))
      .filter((place) => "rule" in place)
      .sort((a, b) => a.bits - b.bits);
    return [
      `flush chain inet ${table} wide_from`,
      `flush chain inet ${table} wide_to`,
      ...rules.flatMap(({ rule }) => [
        `add rule inet ${table} wide_from ${rule}`,
        `add rule inet ${table} wide_to ${rule.replace("saddr", "daddr")}`,
      ]),
    ];
  }

  /** A number that no connection bears: freed numbers are reused last. */
  #number(used: Set<number>): number {
    for (let tried = 0; tried < NUMBERS_MAX; tried++) {
      const mark = (this.#tag | this.#next) >>> 0;
      this.#next = this.#next % NUMBERS_MAX + 1;
      if (used.has(mark)) continue;
      used.add(mark);
      return mark;
    }
    throw new Error(`the TUN exit supports at most ${NUMBERS_MAX} peers; set exit = "userspace"`);
  }
}

function hasSamePrefixes(some: readonly string[], others: readonly string[]): boolean {
  const normal = others.map((text) => formatPrefix(parsePrefix(text)!));
  return `${some.toSorted()}` === `${normal.toSorted()}`;
}

function isWide(peer: Numbered): boolean {
  return placesOf(peer, "saddr").some((place) => "rule" in place);
}

function placesOf({ key, mark, prefixes }: Numbered, side: string): Place[] {
  return prefixes.flatMap((text): Place[] => {
    const prefix = parsePrefix(text);
    if (prefix === undefined) return []; // whoever adds the peer says so
    const isV6 = text.includes(":");
    if (prefix.bits < 128) {
      const rule = `${isV6 ? "ip6" : "ip"} ${side} ${text} ct mark set ${mark} comment "${key}"`;
      return [{ rule, bits: prefix.bits }];
    }
    return [{
      map: isV6 ? "peers6" : "peers4",
      element: `${text.split("/")[0]} comment "${key}" : ${mark}`,
    }];
  });
}

/** One command for each map, because a command may hold many elements. */
function elements(verb: "add" | "delete", table: string, peers: readonly Numbered[]): string[] {
  const places = peers.flatMap((peer) => placesOf(peer, "saddr"));
  return ["peers4", "peers6"].flatMap((map) => {
    const own = places.flatMap((place) => "map" in place && place.map === map ? [place.element] : []);
    if (own.length === 0) return [];
    return [`${verb} element inet ${table} ${map} { ${own.join(", ")} }`];
  });
}
