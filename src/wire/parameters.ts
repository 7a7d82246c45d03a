/**
 * The parameters of OxTunnel's handshake and config frames (PROTOCOL §11): a list of type, length, value. Invariant:
 * every length is bounded by its type's own limits before anything is copied, and a list with any
 * invalid parameter gives no result. Negotiates nothing.
 */

const END = 0;
/** A type with this bit must be understood, or the whole list is refused. */
export const CRITICAL_BIT = 0x80;

export const FEATURE_LZ4 = 1 << 0;
export const FEATURE_HEADER_COMPRESSION = 1 << 1;
export const FEATURE_REED_SOLOMON = 1 << 2;
export const FEATURE_SLIDING_WINDOW = 1 << 3;
export const FEATURE_COPIES = 1 << 4;
export const FEATURE_MULTIPATH = 1 << 5;
export const FEATURE_HYBRID_KEYS = 1 << 6;
export const FEATURE_RESUMPTION = 1 << 7;
export const FEATURE_EARLY_DATA_TAKEN = 1 << 8;
/** Repair on request: marks in data headers, requests and answers. */
export const FEATURE_REQUESTS = 1 << 9;
/** Packets' headers by ROHC v1 in place of short packets. */
export const FEATURE_ROHC = 1 << 10;

/** How headers are made small (PROTOCOL §13): at most one way in a session. */
export const HEADER_METHODS = ["elided", "rohc"] as const;
export type HeaderMethod = (typeof HEADER_METHODS)[number];

/** The feature of each method. */
export const FEATURE_OF_METHOD: Readonly<Record<HeaderMethod, number>> = {
  elided: FEATURE_HEADER_COMPRESSION,
  rohc: FEATURE_ROHC,
};

/** The features with those of the first of the methods alone that is among them; without the other methods'. */
export function withOneMethod(features: number, methods: readonly HeaderMethod[]): number {
  const chosen = methods.find((method) => (features & FEATURE_OF_METHOD[method]) !== 0);
  return features & ~(FEATURE_HEADER_COMPRESSION | FEATURE_ROHC) |
    (chosen === undefined ? 0 : FEATURE_OF_METHOD[chosen]);
}

export const AEAD_CHACHA20_POLY1305 = 1;
export const AEAD_AES_256_GCM = 2;
/** Authentication without secrecy, for trusted links only. */
export const AEAD_AES_256_GMAC = 3;

/** Indexed by AEAD_*. */
export const AEAD_NAMES: Readonly<Record<number, AeadName>> = {
  [AEAD_CHACHA20_POLY1305]: "ChaCha20-Poly1305",
  [AEAD_AES_256_GCM]: "AES-256-GCM",
  [AEAD_AES_256_GMAC]: "AES-256-GMAC",
};
export type AeadName = "ChaCha20-Poly1305" | "AES-256-GCM" | "AES-256-GMAC";

export const REFUSED_FULL = 1;
export const REFUSED_CRITICAL = 2;
export const REFUSED_AEAD = 3;
export const REFUSED_DRAINING = 4;
/** The initiation asked for an answer and no session. */
export const REFUSED_PROBE = 5;
/** The relay keeps the device out: by its operator, since its date has come, or since the volume of this month is used up. */
export const REFUSED_DISABLED = 6, REFUSED_EXPIRED = 7, REFUSED_VOLUME = 8;

/** Whether a REFUSED_* is of a device that the relay keeps out. */
export const isBar = (reason: number) => reason >= REFUSED_DISABLED && reason <= REFUSED_VOLUME;

const AEADS_MAX = 4;
const DNS_MAX = 4;
const IDS_MAX = 4;
const NAME_MAX_BYTES = 63;
const REGION_MAX_BYTES = 15;
const TICKET_MAX_BYTES = 192;

/** An inner address lease: 4 or 16 bytes in network order, with the length of the network's prefix. */
export interface Lease {
  address: Uint8Array;
  /** 0 to 32 or 128. */
  prefixBits: number;
}

/** The parameters of one end. An absent field was not sent. */
export interface Parameters {
  /** FEATURE_* bits: offered by the initiator, of these accepted by the responder. Unknown bits stay. */
  features?: number;
  /** AEAD_*, 1 to 4, best first; a responder names exactly the one it chose. */
  aeads?: number[];
  lease4?: Lease;
  lease6?: Lease;
  /** Inner MTU in bytes, 1280 to 1900. */
  mtu?: number;
  /** Up to 4 resolvers, 4 or 16 bytes each. */
  dns?: Uint8Array[];
  /** The relay's name, up to 63 bytes of UTF-8 without control characters. */
  name?: string;
  /** Its region, up to 15 such bytes. */
  region?: string;
  /** Bounds of the end that sends them. */
  limits?: {
    /** The longest datagram that the end opens, 1200 to 1936 bytes. */
    datagramMaxBytes: number;
    /** The interval of its reports while data flows, 1 to 65 535 ms. */
    reportIntervalMs: number;
    /** The rate that the other end may send at, in kbit/s; 0 is no limit. */
    rateKbitS: number;
  };
  /** Connection ids besides the message's sender id, 1 to 4: numbers 1, 2, … of the session. */
  connectionIds?: number[];
  /** The relay's own inner IPv4 address, 4 bytes, which answers pings and speedtests. */
  relay4?: Uint8Array;
  /** Where a probe came from, as the relay sees it: 16 bytes of address, IPv4 mapped, and the port. */
  seen?: { address: Uint8Array; port: number };
  /** The ticket to resume with, 1 to 192 bytes. */
  ticket?: Uint8Array;
  /** The initiator measures the round trip and wants no session; the relay refuses. */
  probe?: true;
  /** The responder makes no session. */
  refused?: { reason: number; retryAfterS: number };
  /** Set by the reader only: the last unknown critical type. The caller must refuse the list (PROTOCOL R34). */
  unknownCritical?: number;
}

// Types of parameters. Critical are those that an end must understand.
const FEATURES = 0x01;
const LEASE4 = 0x02;
const LEASE6 = 0x03;
const MTU = 0x04;
const DNS = 0x05;
const NAME = 0x06;
const REGION = 0x07;
const LIMITS = 0x08;
const TICKET = 0x09;
const CONNECTION_IDS = 0x0a;
const RELAY4 = 0x0b;
const SEEN = 0x0c;
const AEADS = 0x81;
const REFUSED = 0x83;
const PROBE = 0x84;

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const encoder = new TextEncoder();
// deno-lint-ignore no-control-regex
const CONTROL_CHARACTER = /[\u0000-\u001f\u007f-\u009f]/;

/**
 * Reads `length` bytes at `at`. Returns undefined when a parameter is cut off, has a length or value out of its range,
 * or comes twice (PROTOCOL R33). The result shares no memory with `bytes`.
 */
export function readParameters(bytes: Uint8Array, at: number, length: number): Parameters | undefined {
  const result: Parameters = {};
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const end = at + length;
  for (let here = at; here < end;) {
    const type = bytes[here];
    // Padding takes the rest.
    if (type === END) break;
    if (end - here < 2 || end - here - 2 < bytes[here + 1]) return undefined;
    const size = bytes[here + 1];
    const start = here + 2;
    if (!readOne(result, type, bytes, view, start, size)) return undefined;
    here = start + size;
  }
  return result;
}

/** Reads one parameter into `into`; false when the parameter is invalid. */
function readOne(
  into: Parameters,
  type: number,
  bytes: Uint8Array,
  view: DataView,
  at: number,
  size: number,
): boolean {
  switch (type) {
    case FEATURES:
      if (size !== 4 || into.features !== undefined) return false;
      into.features = view.getUint32(at, true);
      return true;
    case AEADS:
      if (size < 1 || size > AEADS_MAX || into.aeads) return false;
      into.aeads = Array.from(bytes.subarray(at, at + size));
      return true;
    case LEASE4:
      if (size !== 5 || bytes[at + 4] > 32 || into.lease4) return false;
      into.lease4 = { address: bytes.slice(at, at + 4), prefixBits: bytes[at + 4] };
      return true;
    case LEASE6:
      if (size !== 17 || bytes[at + 16] > 128 || into.lease6) return false;
      into.lease6 = { address: bytes.slice(at, at + 16), prefixBits: bytes[at + 16] };
      return true;
    case MTU: {
      if (size !== 2 || into.mtu !== undefined) return false;
      into.mtu = view.getUint16(at, true);
      return into.mtu >= 1280 && into.mtu <= 1900;
    }
    case DNS:
      into.dns ??= [];
      if ((size !== 4 && size !== 16) || into.dns.length === DNS_MAX) return false;
      into.dns.push(bytes.slice(at, at + size));
      return true;
    case NAME:
      if (into.name !== undefined) return false;
      into.name = readText(bytes, at, size, NAME_MAX_BYTES);
      return into.name !== undefined;
    case REGION:
      if (into.region !== undefined) return false;
      into.region = readText(bytes, at, size, REGION_MAX_BYTES);
      return into.region !== undefined;
    case LIMITS:
      return size === 8 && !into.limits && readLimits(into, view, at);
    case CONNECTION_IDS:
      return !into.connectionIds && readConnectionIds(into, view, at, size);
    case RELAY4:
      if (size !== 4 || into.relay4) return false;
      into.relay4 = bytes.slice(at, at + 4);
      return true;
    case SEEN:
      return size === 18 && !into.seen && readSeen(into, bytes, view, at);
    case TICKET:
      if (size < 1 || size > TICKET_MAX_BYTES || into.ticket) return false;
      into.ticket = bytes.slice(at, at + size);
      return true;
    case PROBE:
      if (size !== 1 || bytes[at] !== 1 || into.probe) return false;
      into.probe = true;
      return true;
    case REFUSED:
      if (size !== 3 || into.refused) return false;
      into.refused = { reason: bytes[at], retryAfterS: view.getUint16(at + 1, true) };
      return true;
    default:
      if ((type & CRITICAL_BIT) !== 0) into.unknownCritical = type;
      return true;
  }
}

function readLimits(into: Parameters, view: DataView, at: number): boolean {
  const datagramMaxBytes = view.getUint16(at, true);
  const reportIntervalMs = view.getUint16(at + 2, true);
  into.limits = { datagramMaxBytes, reportIntervalMs, rateKbitS: view.getUint32(at + 4, true) };
  return datagramMaxBytes >= 1200 && datagramMaxBytes <= 1936 && reportIntervalMs > 0;
}

function readSeen(into: Parameters, bytes: Uint8Array, view: DataView, at: number): boolean {
  into.seen = { address: bytes.slice(at, at + 16), port: view.getUint16(at + 16, true) };
  return true;
}

function readConnectionIds(into: Parameters, view: DataView, at: number, size: number): boolean {
  if (size < 4 || size > 4 * IDS_MAX || size % 4 !== 0) return false;
  into.connectionIds = Array.from({ length: size / 4 }, (_, i) => view.getUint32(at + 4 * i, true));
  return true;
}

function readText(bytes: Uint8Array, at: number, size: number, maxBytes: number): string | undefined {
  if (size < 1 || size > maxBytes) return undefined;
  let text: string;
  try {
    text = decoder.decode(bytes.subarray(at, at + size));
  } catch {
    return undefined;
  }
  return CONTROL_CHARACTER.test(text) ? undefined : text;
}

/**
 * Writes the parameters to `bytes` from `at` on and returns the index after them. Throws RangeError when they do not
 * fit or `readParameters` would refuse them; both are defects of the caller.
 */
export function writeParameters(bytes: Uint8Array, at: number, parameters: Parameters): number {
  const { features, aeads, lease4, lease6, mtu, dns, name, region, limits, connectionIds, ticket } =
    parameters;
  const { relay4, seen, probe, refused } = parameters;
  let here = at;
  const put = (type: number, value: ArrayLike<number> | undefined) => {
    if (value === undefined) return;
    if (value.length > 255) throw new RangeError(`parameters: type ${type} has ${value.length} bytes`);
    if (here + 2 + value.length > bytes.length) {
      throw new RangeError("parameters: they do not fit the message");
    }
    bytes[here] = type;
    bytes[here + 1] = value.length;
    bytes.set(value, here + 2);
    here += 2 + value.length;
  };
  put(FEATURES, features === undefined ? undefined : littleEndian(features, 4));
  put(AEADS, aeads);
  for (const [type, lease] of [[LEASE4, lease4], [LEASE6, lease6]] as const) {
    put(type, lease && [...lease.address, lease.prefixBits]);
  }
  put(MTU, mtu === undefined ? undefined : littleEndian(mtu, 2));
  for (const resolver of dns ?? []) put(DNS, resolver);
  put(NAME, name === undefined ? undefined : encoder.encode(name));
  put(REGION, region === undefined ? undefined : encoder.encode(region));
  put(
    LIMITS,
    limits && [
      ...littleEndian(limits.datagramMaxBytes, 2),
      ...littleEndian(limits.reportIntervalMs, 2),
      ...littleEndian(limits.rateKbitS, 4),
    ],
  );
  put(CONNECTION_IDS, connectionIds?.flatMap((id) => littleEndian(id, 4)));
  put(TICKET, ticket);
  put(RELAY4, relay4);
  put(SEEN, seen && [...seen.address, ...littleEndian(seen.port, 2)]);
  put(PROBE, probe && [1]);
  put(REFUSED, refused && [refused.reason, ...littleEndian(refused.retryAfterS, 2)]);
  if (!readParameters(bytes, at, here - at)) throw new RangeError("parameters: a value is out of its range");
  return here;
}

function littleEndian(value: number, bytes: number): number[] {
  return Array.from({ length: bytes }, (_, i) => (value >>> (8 * i)) & 255);
}
