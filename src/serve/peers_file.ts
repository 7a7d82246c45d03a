/**
 * What `peers.json` and OXRELAY_PEERS hold, as text and as records. Invariant: a record that leaves this module has every field
 * in its one normal form and no two records share a name, a key, a prefix or a forwarded port; a mistake names peer and field and never a value,
 * since a preshared key is a secret. Each field is checked by hand: a schema library takes several times as long for thousands of
 * peers, and every `peer add` reads them all. Opens no file.
 */
import { isKeyText, unusableKey } from "../process/keys_text.ts";
import {
  MONTHLY_BYTES_MAX,
  NOTES_CHARACTERS_MAX,
  PEER_RATE_MAX_BPS,
  PEER_RATE_MIN_BPS,
  type PeerRecord,
} from "../session/peer_record.ts";
import {
  countPorts,
  formatForward,
  FORWARD_FORM,
  forwardsInConflict,
  forwardsMeet,
  forwardsMeetInside,
  parseForward,
  PEER_PORTS_MAX,
} from "../process/forward_text.ts";
import { formatPrefix, parseInterface, prefixContains } from "../wire/address.ts";

/** What is stored: the peers, oldest first, and prefixes of removed peers, the longest ago first. */
export interface Stored {
  peers: PeerRecord[];
  released: string[];
}

/** A field that cannot be used: its place, such as "allowedIps.0", and what a right one is. */
export interface Mistake {
  place: string;
  message: string;
}

/** The most released prefixes that are kept; more are forgotten, the oldest first. */
export const RELEASED_MAX = 65_536;
const NAME = /^[A-Za-z0-9._-]{1,63}$/;
const PREFIXES_MAX = 64;
const CREATED_CHARACTERS_MAX = 40;
const VERSION = 1;

/** Reads the text of a file of peers; `mistake` is the part of a sentence that says why it cannot be used. */
export function parsePeers(text: string): Stored | { mistake: string } {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return { mistake: "it is not JSON" };
  }
  const mistake = fileMistake(json);
  if (mistake !== undefined) return { mistake };
  const { peers, released = [] } = json as { peers: PeerRecord[]; released?: string[] };
  const twice = firstDuplicate(peers);
  return twice === undefined ? { peers, released } : { mistake: twice };
}

/** The text of a file of peers, which `parsePeers` reads. */
export function formatPeers({ peers, released }: Stored): string {
  const file = { version: VERSION, peers, ...(released.length > 0 ? { released } : {}) };
  return `${JSON.stringify(file, null, 2)}\n`;
}

/** Which two peers share a name, a public key, a prefix or a forwarded port, as a sentence; undefined when none do. */
export function firstDuplicate(peers: readonly PeerRecord[]): string | undefined {
  const seen = new Map<string, string>();
  for (const { name, publicKey, allowedIps } of peers) {
    for (const value of [name, publicKey, ...allowedIps]) {
      const other = seen.get(value);
      if (other !== undefined) return `peers "${other}" and "${name}" both have ${value}`;
      seen.set(value, name);
    }
  }
  return forwardsInConflict(peers);
}

/** Checks one peer's record and brings its prefixes into their normal form. The first mistake, or undefined. */
export function recordMistake(value: unknown): Mistake | undefined {
  if (!isObject(value)) return { place: "", message: "not an object" };
  const { name, publicKey, presharedKey, allowedIps, created } = value;
  if (!isName(name)) return { place: "name", message: "not 1 to 63 of A-Z a-z 0-9 . _ -" };
  if (typeof publicKey !== "string" || !isKeyText(publicKey)) {
    return { place: "publicKey", message: "not a 32-byte key" };
  }
  if (unusableKey(publicKey) !== undefined) {
    return { place: "publicKey", message: "a key that nobody can have" };
  }
  if ("presharedKey" in value && (typeof presharedKey !== "string" || !isKeyText(presharedKey))) {
    return { place: "presharedKey", message: "not a 32-byte key" };
  }
  if (!Array.isArray(allowedIps) || allowedIps.length < 1 || allowedIps.length > PREFIXES_MAX) {
    return { place: "allowedIps", message: `not a list of 1 to ${PREFIXES_MAX} networks` };
  }
  for (const [i, prefix] of allowedIps.entries()) {
    const normal = typeof prefix === "string" ? networkText(prefix) : undefined;
    if (normal === undefined) {
      return { place: `allowedIps.${i}`, message: "not a network without host bits" };
    }
    // One prefix has one text from here on, so that two of them can be compared.
    if (normal !== prefix) allowedIps[i] = normal;
  }
  if (typeof created !== "string" || created.length > CREATED_CHARACTERS_MAX) {
    return { place: "created", message: `not a time of at most ${CREATED_CHARACTERS_MAX} characters` };
  }
  return limitMistake(value) ?? forwardsMistake(value) ?? unknownKey(value, RECORD_KEYS);
}

/** The first mistake among the fields that say whether, how long and how much a peer may use the relay. */
function limitMistake(value: Record<string, unknown>): Mistake | undefined {
  const { disabled, expires, monthlyBytes, notes } = value;
  if (disabled !== undefined && disabled !== true) {
    return { place: "disabled", message: "not true, or absent" };
  }
  if (expires !== undefined && !isTime(expires)) {
    return { place: "expires", message: 'not a time such as "2026-12-31T23:59:59.000Z"' };
  }
  if (
    monthlyBytes !== undefined &&
    !(Number.isInteger(monthlyBytes) && monthlyBytes as number >= 1 &&
      monthlyBytes as number <= MONTHLY_BYTES_MAX)
  ) {
    return { place: "monthlyBytes", message: `not whole bytes from 1 to ${MONTHLY_BYTES_MAX}` };
  }
  if (notes !== undefined && (typeof notes !== "string" || notes.length > NOTES_CHARACTERS_MAX)) {
    return { place: "notes", message: `not a text of at most ${NOTES_CHARACTERS_MAX} characters` };
  }
  for (const key of ["rateDownBps", "rateUpBps"]) {
    if (!(key in value) || isRate(value[key])) continue;
    return { place: key, message: `not bits a second from ${PEER_RATE_MIN_BPS} to ${PEER_RATE_MAX_BPS}` };
  }
  return undefined;
}

/** Whether it is a time in the one form that `Date.toISOString` writes. */
function isTime(value: unknown): boolean {
  if (typeof value !== "string" || value.length > CREATED_CHARACTERS_MAX) return false;
  const ms = Date.parse(value);
  return !Number.isNaN(ms) && new Date(ms).toISOString() === value;
}

/** Checks a record's forwards and brings them into their normal form. */
function forwardsMistake(record: Record<string, unknown>): Mistake | undefined {
  const { forwards } = record;
  if (forwards === undefined) return undefined;
  if (!Array.isArray(forwards) || forwards.length < 1 || forwards.length > PEER_PORTS_MAX) {
    return { place: "forwards", message: `not a list of 1 to ${PEER_PORTS_MAX} forwards` };
  }
  const read = forwards.map((text) => typeof text === "string" ? parseForward(text) : undefined);
  for (const [i, forward] of read.entries()) {
    if (forward === undefined) return { place: `forwards.${i}`, message: `not like ${FORWARD_FORM}` };
    forwards[i] = formatForward(forward);
    if (read.slice(0, i).some((other) => other !== undefined && forwardsMeet(other, forward))) {
      return { place: `forwards.${i}`, message: "a port that the peer's forwards have already" };
    }
    if (read.slice(0, i).some((other) => other !== undefined && forwardsMeetInside(other, forward))) {
      return {
        place: `forwards.${i}`,
        message: "a port of the peer's that another forward leads to already",
      };
    }
  }
  const ports = countPorts(read.flatMap((forward) => forward ?? []));
  return ports > PEER_PORTS_MAX
    ? { place: "forwards", message: `${ports} ports together, of ${PEER_PORTS_MAX} at most` }
    : undefined;
}

const RECORD_KEYS = new Set([
  "name",
  "publicKey",
  "presharedKey",
  "allowedIps",
  "created",
  "rateDownBps",
  "rateUpBps",
  "disabled",
  "expires",
  "monthlyBytes",
  "notes",
  "forwards",
]);
const FILE_KEYS = new Set(["version", "peers", "released"]);

/** Why the file cannot be used, by its first mistake; undefined when it can. */
function fileMistake(json: unknown): string | undefined {
  if (!isObject(json)) return "the whole is not as it should be: not an object";
  if (json.version !== VERSION) return `version is not as it should be: not ${VERSION}`;
  if (!Array.isArray(json.peers)) return "peers is not as it should be: not a list";
  for (const [i, peer] of json.peers.entries()) {
    const mistake = recordMistake(peer);
    if (mistake === undefined) continue;
    const place = ["peers", i, ...(mistake.place === "" ? [] : [mistake.place])].join(".");
    const whose = isObject(peer) && isName(peer.name) ? ` (peer "${peer.name}")` : "";
    return `${place} is not as it should be${whose}: ${mistake.message}`;
  }
  const { released = [] } = json;
  if (!Array.isArray(released)) return "released is not as it should be: not a list";
  const at = released.findIndex((prefix) => typeof prefix !== "string");
  if (at >= 0) return `released.${at} is not as it should be: not text`;
  const unknown = unknownKey(json, FILE_KEYS);
  return unknown && `${unknown.place} is not as it should be: ${unknown.message}`;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isRate(value: unknown): boolean {
  return Number.isInteger(value) && (value as number) >= PEER_RATE_MIN_BPS &&
    (value as number) <= PEER_RATE_MAX_BPS;
}

function isName(value: unknown): value is string {
  return typeof value === "string" && NAME.test(value);
}

function unknownKey(value: Record<string, unknown>, known: ReadonlySet<string>): Mistake | undefined {
  for (const key in value) if (!known.has(key)) return { place: key, message: "an unknown key" };
  return undefined;
}

/** A network's normal text; undefined when it is none, or has bits of a host set. */
function networkText(text: string): string | undefined {
  const prefix = text.includes("/") ? parseInterface(text) : undefined;
  if (prefix === undefined || !prefixContains(prefix, prefix.address)) return undefined;
  // Dotted text that is parsed has no leading zeros, so it is normal.
  return text.includes(":") ? formatPrefix(prefix) : text;
}
