/**
 * What a device needs to reach its relay, in its two written forms: the WireGuard config that `peer add` prints, and an
 * invitation, the same as one line `oxrelay://…` to paste. Invariant: what is read is whole and sound or is refused with
 * the name of what is wrong, and no message ever repeats a key. Opens nothing and resolves no name.
 */
import { type Endpoint, formatEndpoint, nearest, parseEndpoint } from "../config.ts";
import {
  formatAddress,
  formatPrefix,
  outermost,
  parseAddress,
  parseInterface,
  parsePrefix,
  type Prefix,
  prefixLength,
} from "../wire/address.ts";
import type { FallbackEndpoint } from "./fallback_dial.ts";
import { CommandError } from "../process/help.ts";
import { isZeroKey, keyFromText, keyToText, publicKeyOf, unusableKey } from "../process/keys_text.ts";

export interface Invitation {
  /** 44 characters of base64. Secret. */
  privateKey: string;
  /** 44 characters of base64. */
  relayPublicKey: string;
  /** 44 characters of base64. Secret. */
  presharedKey?: string;
  endpoint: Endpoint;
  /** Where other relays of the same key and peers are, up to 15; absent for none. A config has no place for them. */
  otherEndpoints?: Endpoint[];
  /** This device's inner addresses with their prefix lengths, 1 to 16; the first of each family is the one it sends from. */
  addresses: string[];
  /** Destinations that the relay is meant for, as prefixes of which none holds another; all of both families when empty. */
  routes: string[];
  /** Resolvers, as addresses. */
  dns: string[];
  /** Domains that are tried behind names; absent for none. */
  search?: string[];
  /** Inner MTU in bytes, 576 to 1900. */
  mtu: number;
  /** Seconds between packets that keep a NAT open, 0 to 65535; 0 for none. */
  keepaliveS: number;
  /** What to speak: an invitation comes from a relay of ours, a config may be for any WireGuard server. */
  protocol: "oxtunnel" | "wireguard";
  /**
   * Outer networks in which the relay may be spoken to without encryption; none when absent. In neither written form:
   * who passes an invitation on must not be able to switch encryption off.
   */
  trusted?: readonly string[];
  /** Where the relay speaks OxTunnel over TLS, if it does. */
  fallback?: FallbackEndpoint;
  /** What a config asks for and nobody here does, a sentence for each key; absent for nothing. */
  unused?: string[];
}

export const INVITATION_SCHEME = "oxrelay://";
/** Bytes of a config: room for some tens of thousands of routes. */
export const TEXT_MAX = 1 << 20;
const MTU_DEFAULT = 1420, MTU_MIN = 576, MTU_MAX = 1900;
const KEEPALIVE_DEFAULT_S = 25;
const DNS_MAX = 8, SEARCH_MAX = 16, ADDRESSES_MAX = 16;
/** As many relays as `connect --server` takes. */
export const ENDPOINTS_MAX = 16;

/** Reads either form. `source` names it in errors. Throws CommandError. */
export function parseInvitation(text: string, source: string): Invitation {
  if (text.length > TEXT_MAX) throw tooLong(source);
  const lines = text.split(/\r?\n/).map((line) => line.trim());
  const line = lines.find((line) => line.startsWith(INVITATION_SCHEME));
  if (line !== undefined) return { ...check(lineFields(line, source), source), protocol: "oxtunnel" };
  const { fields, unused } = configFields(lines, source);
  return { ...check(fields, source), protocol: "wireguard", ...(unused.length > 0 && { unused }) };
}

/** The refusal of a text of more than TEXT_MAX bytes. */
export function tooLong(source: string): CommandError {
  return new CommandError(`${source}: longer than ${TEXT_MAX} bytes, so it is no config and no invitation`);
}

/** The invitation as one line, which holds the private key. */
export function formatInvitation(invitation: Omit<Invitation, "protocol">): string {
  const {
    privateKey,
    relayPublicKey,
    presharedKey,
    endpoint,
    otherEndpoints = [],
    addresses,
    routes,
    dns,
    search = [],
    mtu,
    keepaliveS,
    fallback,
  } = invitation;
  const fields = [
    ["key", base64url(privateKey)],
    ["relay", base64url(relayPublicKey)],
    ...(presharedKey === undefined ? [] : [["psk", base64url(presharedKey)]]),
    ...(otherEndpoints.length === 0 ? [] : [["also", otherEndpoints.map(formatEndpoint).join(",")]]),
    ["address", addresses.join(",")],
    ...(routes.length === 0 ? [] : [["routes", routes.join(",")]]),
    ...(dns.length + search.length === 0 ? [] : [["dns", [...dns, ...search].join(",")]]),
    ["mtu", String(mtu)],
    ["keepalive", String(keepaliveS)],
    ...(fallback === undefined ? [] : [["fallback", formatEndpoint(fallback)]]),
    ...(fallback?.pin === undefined ? [] : [["pin", fallback.pin]]),
  ];
  const query = fields.map(([name, value]) => `${name}=${value}`).join("&");
  return `${INVITATION_SCHEME}${formatEndpoint(endpoint)}?${query}`;
}

/** What both forms say, unchecked: lists by the name that an error shows. */
interface Fields {
  privateKey: Field;
  relayPublicKey: Field;
  presharedKey: Field;
  endpoint: Field;
  otherEndpoints: Field;
  addresses: Field;
  routes: Field;
  dns: Field;
  mtu: Field;
  keepalive: Field;
  fallback: Field;
  pin: Field;
}

interface Field {
  name: string;
  /** Undefined where it is not said. */
  text: string | undefined;
}

const KNOWN: Record<string, readonly string[]> = {
  interface: ["PrivateKey", "Address", "DNS", "MTU"],
  peer: ["PublicKey", "PresharedKey", "AllowedIPs", "Endpoint", "PersistentKeepalive"],
};

const NOT_DONE: [pattern: RegExp, why: string][] = [
  [/^(pre|post)(up|down)$/, "connect runs no commands of a config"],
  [/^table$/, "connect leads packets by rules and a routing table of its own"],
  [/^fwmark$/, "connect tells the tunnel's own packets by the relay's address and port"],
  [/^saveconfig$/, "connect writes no config"],
  [/^listenport$/, "the system chooses the port"],
  [
    /^(jc|jmin|jmax|[sh][1-4]|[ij][1-5]|itime)$/,
    "connect does not speak AmneziaWG, and a server that insists on it will not answer",
  ],
];

/** What to say of a key that is passed over, in its section in lower case. */
function notDone(section: string, key: string): string {
  const [, why] = NOT_DONE.find(([pattern]) => pattern.test(key.toLowerCase())) ?? [];
  if (why !== undefined) return `${show(key)} is not carried out: ${why}`;
  const near = nearest(key, KNOWN[section] ?? []);
  return `${show(key)} is unknown and passed over${near === undefined ? "" : `; did you mean ${near}?`}`;
}

/** Throws unless there is one interface and one peer; keys that it does not carry out are named in `unused`. */
function configFields(lines: string[], source: string): { fields: Fields; unused: string[] } {
  const said = new Map<string, string>();
  const unused = new Map<string, string>();
  let section = "";
  for (const [i, line] of lines.entries()) {
    const body = line.replace(/#.*/, "").trim();
    if (body === "") continue;
    const header = /^\[(\w+)\]$/.exec(body);
    if (header) {
      section = header[1].toLowerCase();
      if (said.has(section)) {
        throw new CommandError(
          `${source}: line ${i + 1}: a second [${
            header[1]
          }]; a client has one relay, so keep the one that is meant`,
        );
      }
      said.set(section, "");
      continue;
    }
    const entry = /^(\w+)\s*=\s*(.*)$/.exec(body);
    if (!entry || section === "") {
      throw new CommandError(
        `${source}: line ${
          i + 1
        } is neither "[Section]" nor "Key = value"; expected the config that \`peer add\` prints, ` +
          `or an invitation ${INVITATION_SCHEME}…`,
      );
    }
    const key = `${section}.${entry[1].toLowerCase()}`;
    if (!KNOWN[section]?.some((known) => known.toLowerCase() === entry[1].toLowerCase())) {
      if (!unused.has(key)) unused.set(key, `${source}: line ${i + 1}: ${notDone(section, entry[1])}`);
      continue;
    }
    const before = said.get(key);
    // Addresses may stand in several lines.
    said.set(key, before === undefined ? entry[2] : `${before},${entry[2]}`);
  }
  const field = (key: string, name: string): Field => ({ name, text: said.get(key) });
  const fields: Fields = {
    privateKey: field("interface.privatekey", "PrivateKey"),
    relayPublicKey: field("peer.publickey", "PublicKey"),
    presharedKey: field("peer.presharedkey", "PresharedKey"),
    endpoint: field("peer.endpoint", "Endpoint"),
    otherEndpoints: { name: "also", text: undefined },
    addresses: field("interface.address", "Address"),
    routes: field("peer.allowedips", "AllowedIPs"),
    dns: field("interface.dns", "DNS"),
    mtu: field("interface.mtu", "MTU"),
    keepalive: field("peer.persistentkeepalive", "PersistentKeepalive"),
    fallback: { name: "fallback", text: undefined },
    pin: { name: "pin", text: undefined },
  };
  return { fields, unused: [...unused.values()] };
}

/** Names that it does not know are passed over, so that later relays may say more. */
function lineFields(line: string, source: string): Fields {
  const [endpoint, query, more] = line.slice(INVITATION_SCHEME.length).split("?");
  if (query === undefined || more !== undefined) {
    throw new CommandError(`${source}: the invitation is cut off or doubled; copy the whole line again`);
  }
  const said = new Map(
    query.split("&").map((pair) => {
      const at = pair.indexOf("=");
      return at < 0 ? [pair, ""] : [pair.slice(0, at), pair.slice(at + 1)];
    }),
  );
  const field = (name: string): Field => ({ name, text: said.get(name) });
  const key = (name: string): Field => {
    const text = said.get(name);
    return {
      name,
      text: text === undefined ? undefined : `${text.replaceAll("-", "+").replaceAll("_", "/")}=`,
    };
  };
  return {
    privateKey: key("key"),
    relayPublicKey: key("relay"),
    presharedKey: key("psk"),
    endpoint: { name: "endpoint", text: endpoint },
    otherEndpoints: field("also"),
    addresses: field("address"),
    routes: field("routes"),
    dns: field("dns"),
    mtu: field("mtu"),
    keepalive: field("keepalive"),
    fallback: field("fallback"),
    pin: field("pin"),
  };
}

/** Reads the fields, each by its kind, and refuses with the source's and the field's name. */
class FieldReader {
  readonly #source: string;

  constructor(source: string) {
    this.#source = source;
  }

  refuse({ name }: Field, what: string): never {
    throw new CommandError(`${this.#source}: ${name}: ${what}`);
  }

  needed(field: Field): string {
    return field.text || this.refuse(field, "is missing; copy everything that `peer add` printed");
  }

  key(field: Field): string {
    const text = this.needed(field);
    if (keyFromText(text) === undefined) {
      this.refuse(field, "is not a whole key of 32 bytes; copy everything that `peer add` printed");
    }
    return text;
  }

  number(field: Field, otherwise: number, min: number, max: number): number {
    if (!field.text) return otherwise;
    const value = /^\d{1,5}$/.test(field.text) ? Number(field.text) : field.text === "off" ? 0 : NaN;
    if (!(value >= min && value <= max)) {
      this.refuse(field, `expected ${min} to ${max}, found "${show(field.text)}"`);
    }
    return value;
  }

  endpoint(field: Field, text: string, example = "relay.example.com:4433"): Endpoint {
    return parseEndpoint(text) ??
      this.refuse(field, `expected "host:port" such as "${example}", found "${show(text)}"`);
  }
}

function list(text: string | undefined): string[] {
  return (text ?? "").split(",").map((one) => one.trim()).filter((one) => one !== "");
}

function check(fields: Fields, source: string): Omit<Invitation, "protocol"> {
  const read = new FieldReader(source);
  const keys = checkKeys(fields, read);
  const endpoint = read.endpoint(fields.endpoint, read.needed(fields.endpoint));
  const otherEndpoints = list(fields.otherEndpoints.text).slice(0, ENDPOINTS_MAX - 1)
    .map((text) => read.endpoint(fields.otherEndpoints, text));
  const addresses = list(read.needed(fields.addresses)).map((text) => {
    const own = parseInterface(text) ??
      read.refuse(fields.addresses, `"${show(text)}" is no address such as "10.66.0.2/32"`);
    return `${formatAddress(own.address)}/${prefixLength(own)}`;
  });
  if (addresses.length > ADDRESSES_MAX) {
    read.refuse(fields.addresses, `more than ${ADDRESSES_MAX} addresses`);
  }
  const routes = list(fields.routes.text).map((text) =>
    parsePrefix(text) ??
      read.refuse(fields.routes, `"${show(text)}" is no prefix such as "203.0.113.0/24"`)
  );
  return {
    ...keys,
    endpoint,
    ...(otherEndpoints.length > 0 && { otherEndpoints }),
    addresses,
    routes: routesOf(routes),
    ...checkResolvers(fields, read),
    ...checkFallback(fields, read),
    mtu: read.number(fields.mtu, MTU_DEFAULT, MTU_MIN, MTU_MAX),
    keepaliveS: read.number(fields.keepalive, KEEPALIVE_DEFAULT_S, 0, 65535),
  };
}

/** Both ends' keys, which are usable and not one. */
function checkKeys(fields: Fields, read: FieldReader) {
  const privateKey = read.key(fields.privateKey);
  const own = keyFromText(privateKey)!;
  if (isZeroKey(own)) read.refuse(fields.privateKey, "is all zero, which is nobody's key");
  const relayPublicKey = read.key(fields.relayPublicKey);
  const mistake = unusableKey(relayPublicKey);
  if (mistake !== undefined) read.refuse(fields.relayPublicKey, mistake);
  if (keyToText(publicKeyOf(own)) === relayPublicKey) {
    read.refuse(fields.relayPublicKey, "is this device's own key; the relay prints its own when it starts");
  }
  own.fill(0);
  const presharedKey = fields.presharedKey.text ? read.key(fields.presharedKey) : undefined;
  return { privateKey, relayPublicKey, presharedKey };
}

/** Resolvers and search domains: as wg-quick(8) has it, what is no address is a domain. */
function checkResolvers(fields: Fields, read: FieldReader) {
  const servers = list(fields.dns.text);
  const dns = servers.flatMap((text) => parseAddress(text) ?? []).slice(0, DNS_MAX).map((one) =>
    formatAddress(one)
  );
  const search = servers.filter((text) => parseAddress(text) === undefined).slice(0, SEARCH_MAX);
  for (const text of search) {
    if (parseEndpoint(`${text}:1`) === undefined) {
      read.refuse(fields.dns, `"${show(text)}" is neither a resolver's address nor a search domain`);
    }
  }
  return { dns, ...(search.length > 0 && { search }) };
}

/** The way over TLS, if there is one, and the certificate that it is pinned to. */
function checkFallback({ fallback: field, pin: pinField }: Fields, read: FieldReader) {
  const pin = pinField.text;
  const fallback = field.text === undefined
    ? undefined
    : read.endpoint(field, field.text, "relay.example.com:443");
  if (pin !== undefined && !/^[0-9a-f]{64}$/.test(pin)) {
    read.refuse(
      pinField,
      "is not a whole SHA-256, 64 hexadecimal digits; copy everything that `peer add` printed",
    );
  }
  if (fallback === undefined) return {};
  // A certificate names its host without the dot of a name that is whole.
  return { fallback: { ...fallback, host: fallback.host.replace(/\.$/, ""), ...(pin && { pin }) } };
}

/** As `Invitation.routes`: a way to everything is what no routes mean too, one to all of a family is that family's only. */
function routesOf(prefixes: readonly Prefix[]): string[] {
  const texts = outermost(prefixes).map(formatPrefix);
  return texts.length === 2 && texts.every((text) => text.endsWith("/0")) ? [] : texts;
}

/** A value for a message: short, not able to steer the terminal, and no key that stands in the wrong place. */
function show(text: string): string {
  // deno-lint-ignore no-control-regex
  return text.slice(0, 64).replace(/[\x00-\x1f\x7f-\x9f]/g, "?").replace(/[A-Za-z0-9+/_-]{32,}/g, "…");
}

/** 44 characters of base64 as 43 of base64url (RFC 4648 section 5). */
function base64url(key: string): string {
  return key.replaceAll("+", "-").replaceAll("/", "_").replace("=", "");
}
