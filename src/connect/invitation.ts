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

/** The invitation as one line. It holds the private key. */
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

function check(fields: Fields, source: string): Omit<Invitation, "protocol"> {
  const refuse = ({ name }: Field, what: string) => {
    throw new CommandError(`${source}: ${name}: ${what}`);
  };
  const needed = (field: Field): string =>
    field.text || refuse(field, "is missing; copy everything that `peer add` printed")!;
  const key = (field: Field): string => {
    const text = needed(field);
    if (keyFromText(text) === undefined) {
      refuse(field, "is not a whole key of 32 bytes; copy everything that `peer add` printed");
    }
    return text;
  };
  const list = (text: string) => text.split(",").map((one) => one.trim()).filter((one) => one !== "");
  const number = (field: Field, otherwise: number, min: number, max: number): number => {
    if (!field.text) return otherwise;
    const value = /^\d{1,5}$/.test(field.text) ? Number(field.text) : field.text === "off" ? 0 : NaN;
    if (!(value >= min && value <= max)) {
      refuse(field, `expected ${min} to ${max}, found "${show(field.text)}"`);
    }
    return value;
  };

  const privateKey = key(fields.privateKey);
  const own = keyFromText(privateKey)!;
  if (isZeroKey(own)) refuse(fields.privateKey, "is all zero, which is nobody's key");
  const relayPublicKey = key(fields.relayPublicKey);
  const mistake = unusableKey(relayPublicKey);
  if (mistake !== undefined) refuse(fields.relayPublicKey, mistake);
  if (keyToText(publicKeyOf(own)) === relayPublicKey) {
    refuse(fields.relayPublicKey, "is this device's own key; the relay prints its own when it starts");
  }
  own.fill(0);
  const presharedKey = fields.presharedKey.text ? key(fields.presharedKey) : undefined;
  const readEndpoint = (field: Field, text: string): Endpoint => {
    const endpoint = parseEndpoint(text);
    if (!endpoint) {
      refuse(field, `expected "host:port" such as "relay.example.com:4433", found "${show(text)}"`);
    }
    return endpoint!;
  };
  const endpoint = readEndpoint(fields.endpoint, needed(fields.endpoint));
  const otherEndpoints = list(fields.otherEndpoints.text ?? "")
    .slice(0, ENDPOINTS_MAX - 1)
    .map((text) => readEndpoint(fields.otherEndpoints, text));
  const addresses = list(needed(fields.addresses)).map((text) => {
    const own = parseInterface(text);
    if (own === undefined) refuse(fields.addresses, `"${show(text)}" is no address such as "10.66.0.2/32"`);
    return `${formatAddress(own!.address)}/${prefixLength(own!)}`;
  });
  if (addresses.length > ADDRESSES_MAX) refuse(fields.addresses, `more than ${ADDRESSES_MAX} addresses`);
  const routes = list(fields.routes.text ?? "").map((text) => {
    const prefix = parsePrefix(text);
    if (prefix === undefined) refuse(fields.routes, `"${show(text)}" is no prefix such as "203.0.113.0/24"`);
    return prefix!;
  });
  const servers = list(fields.dns.text ?? "");
  const dns = servers.flatMap((text) => parseAddress(text) ?? []).slice(0, DNS_MAX).map((one) =>
    formatAddress(one)
  );
  // As wg-quick(8) has it: what is no address is a domain.
  const search = servers.filter((text) => parseAddress(text) === undefined).slice(0, SEARCH_MAX);
  for (const text of search) {
    if (parseEndpoint(`${text}:1`) === undefined) {
      refuse(fields.dns, `"${show(text)}" is neither a resolver's address nor a search domain`);
    }
  }
  const fallback = fields.fallback.text === undefined ? undefined : parseEndpoint(fields.fallback.text);
  if (fields.fallback.text !== undefined && !fallback) {
    refuse(
      fields.fallback,
      `expected "host:port" such as "relay.example.com:443", found "${show(fields.fallback.text)}"`,
    );
  }
  const pin = fields.pin.text;
  if (pin !== undefined && !/^[0-9a-f]{64}$/.test(pin)) {
    refuse(
      fields.pin,
      "is not a whole SHA-256, 64 hexadecimal digits; copy everything that `peer add` printed",
    );
  }
  return {
    privateKey,
    relayPublicKey,
    presharedKey,
    // A certificate names its host without the dot of a name that is whole.
    ...(fallback &&
      { fallback: { ...fallback, host: fallback.host.replace(/\.$/, ""), ...(pin && { pin }) } }),
    endpoint,
    ...(otherEndpoints.length > 0 && { otherEndpoints }),
    addresses,
    routes: routesOf(routes),
    dns,
    ...(search.length > 0 && { search }),
    mtu: number(fields.mtu, MTU_DEFAULT, MTU_MIN, MTU_MAX),
    keepaliveS: number(fields.keepalive, KEEPALIVE_DEFAULT_S, 0, 65535),
  };
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
