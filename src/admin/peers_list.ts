/**
 * Search, order and pages of peers. Invariant: what is unknown of a peer comes last in either order, peers that are equal in the wanted
 * column are ordered by name, and a page behind the last is the last. Pure: changes nothing that it is given.
 */
import { type PeerRow, type PeersQuery, PER_PAGE_DEFAULT, type SORTS } from "./shapes.ts";

const KEYS: Record<typeof SORTS[number], (peer: PeerRow) => string | number | undefined> = {
  name: (peer) => peer.name,
  state: (peer) => peer.state,
  endpoint: (peer) => peer.endpoint,
  lastHandshakeAgeS: (peer) => peer.lastHandshakeAgeS,
  receivedBps: (peer) => peer.receivedBps,
  sentBps: (peer) => peer.sentBps,
  received: (peer) => peer.usage.received,
  sent: (peer) => peer.usage.sent,
  month: (peer) => peer.usage.monthReceived + peer.usage.monthSent,
  rttMs: (peer) => peer.rttMs,
  lossRatio: (peer) => peer.lossRatio,
  drops: (peer) => peer.drops,
};

/** Digits within names count as numbers: peer-2 is before peer-10. Made once, as a collator costs more than a comparison. */
const NAMES = new Intl.Collator("en", { numeric: true });

function compare(a: string | number, b: string | number): number {
  return typeof a === "string" ? NAMES.compare(a, b as string) : a - (b as number);
}

/** Whether the peer has every word, in any of what a person knows it by. */
function matches(
  { name, endpoint, allowedIps, publicKey, protocol, state, notes }: PeerRow,
  words: string[],
) {
  const text = [name, endpoint, protocol, state, notes, publicKey, ...allowedIps].join(" ").toLowerCase();
  return words.every((word) => text.includes(word));
}

/** The rows that are asked for: one page where `page` or `perPage` says so, else all; and how many there are on all pages. */
export function selectPeers(
  all: readonly PeerRow[],
  { search = "", sort = "name", order = "asc", page, perPage }: PeersQuery,
): { rows: PeerRow[]; found: number } {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  const found = words.length === 0 ? [...all] : all.filter((peer) => matches(peer, words));
  const key = KEYS[sort], sign = order === "desc" ? -1 : 1;
  found.sort((one, other) => {
    const a = key(one), b = key(other);
    if (a === undefined || b === undefined) {
      return Number(a === undefined) - Number(b === undefined) || NAMES.compare(one.name, other.name);
    }
    return sign * compare(a, b) || NAMES.compare(one.name, other.name);
  });
  if (page === undefined && perPage === undefined) return { rows: found, found: found.length };
  const size = perPage ?? PER_PAGE_DEFAULT;
  const last = Math.max(1, Math.ceil(found.length / size));
  const from = (Math.min(page ?? 1, last) - 1) * size;
  return { rows: found.slice(from, from + size), found: found.length };
}
