/**
 * The text of a client's rules: one nftables table, and lines for `ip -batch`, which lead the scope's packets into the tunnel
 * and the relay's past the tunnel. Invariant: rules and routes bear this program's protocol number and the table its name.
 * Makes text; runs no program.
 */
import { chain } from "./rules.ts";

/** Which packets of this host go into the tunnel; all by default. */
export interface Scope {
  /** Destinations that go in, as prefixes; all that the relay carries when empty. */
  include: readonly string[];
  /** Destinations that stay out. */
  exclude: readonly string[];
  /** Only packets of this user's programs. */
  uid?: number;
  /** Only packets of programs in this cgroup: a path of the cgroup v2 hierarchy, such as "games.slice". */
  cgroup?: string;
}

/** The relay's outer address, as text, and UDP port. */
export interface OuterEndpoint {
  address: string;
  port: number;
  /** UDP when absent. */
  protocol?: "tcp";
}

export interface ClientRulesOptions {
  /** The device's addresses that this system accepted, with prefix lengths. */
  addresses: readonly string[];
  /** Destinations that the relay carries, as prefixes of which none contains another; all of both families when empty. */
  routes: readonly string[];
  /** Resolvers to ask through the tunnel. */
  dns: readonly string[];
  scope: Scope;
  killSwitch: boolean;
  /** TCP ports on which programs listened before there were rules, as text. */
  listening: readonly string[];
}

export const CLIENT_DEVICE = "oxconnect0";
/** The device in nftables' rules. */
const DEVICE = `"${CLIENT_DEVICE}"`;
export const TABLE = "oxconnect";
/** Routing table, mark and first priority of the client's rules; and the protocol number by which they are recognised. */
export const ROUTES = 28536, PROTOCOL = 79;
export const PRIORITY = { relay: 28536, exclude: 28537, specific: 28538, tunnel: 28539 };
/** The mark's bit for packets of connections that others opened from outside the tunnel. */
const INBOUND = "0x4000000";
/** All bits of a mark but that one. */
export const NOT_INBOUND = "0xfbffffff";
const MARK_INBOUND = `meta mark set meta mark or ${INBOUND}`;
const CGROUP_ROOT = /^\/?(sys\/fs\/cgroup\/)?/;
export const DNS_PORT = 53;
/** The table's set of ports from which resolvers may be asked past a closed kill switch, and the time for which. */
export const OUTSIDE = "outside", OUTSIDE_S = 10;

/** The option by which `ip` takes a family. */
export type Family = "-4" | "-6";
const FAMILIES = ["-4", "-6"] as const;
/** The family of an address or a prefix. */
export const familyOf = (text: string): Family => text.includes(":") ? "-6" : "-4";
const bare = (prefix: string) => prefix.split("/")[0];

/** Whether the device has an address of the family. */
export function hasFamily(o: Pick<ClientRulesOptions, "addresses">, family: Family): boolean {
  return o.addresses.some((address) => familyOf(address) === family);
}

/** The family's destinations that go in; a /0 for all. */
export function led(o: Pick<ClientRulesOptions, "routes" | "scope">, family: Family): string[] {
  const { routes, scope: { include } } = o;
  const all = family === "-6" ? "::/0" : "0.0.0.0/0";
  const said = include.length > 0 ? include : routes.length > 0 ? routes : [all];
  return said.filter((prefix) => familyOf(prefix) === family);
}

/** Whether only some programs' packets go in. */
export function isSelective({ uid, cgroup }: Scope): boolean {
  return uid !== undefined || cgroup !== undefined;
}

/** Routes of the client's own table, to which the rules lead; lines for `ip -batch`, none when no destination goes in. */
export function routeBatch(o: ClientRulesOptions, family: Family, relays: readonly OuterEndpoint[]): string {
  const { scope: { include, exclude, uid } } = o;
  const of = (prefixes: readonly string[]) => prefixes.filter((prefix) => familyOf(prefix) === family);
  // The kernel loses a packet's uid when a rule rewrites the resolver's address in it; a mark stays.
  const selectors = [
    ...(uid === undefined ? [] : [`uidrange ${uid}-${uid} `]),
    ...(isSelective(o.scope) ? [`fwmark ${ROUTES} `] : [""]),
  ];
  const rule = (priority: number, what: string) =>
    `rule add priority ${priority} ${what} protocol ${PROTOCOL}`;
  // Without an address of this family in the tunnel its packets go in too, to be refused instead of leaking.
  const routes = led(o, family);
  if (routes.length === 0) return "";
  return [
    ...routes.map((prefix) =>
      `route replace ${prefix} dev ${CLIENT_DEVICE} table ${ROUTES} proto ${PROTOCOL}`
    ),
    // By destination and port, independent of the default route. The second is for the check of answers' sources.
    ...relays.filter(({ address }) => familyOf(address) === family).flatMap((
      { address, port, protocol = "udp" },
    ) =>
      ["dport", "sport"].map((side) =>
        rule(PRIORITY.relay, `to ${address} ipproto ${protocol} ${side} ${port} lookup main`)
      )
    ),
    ...of(exclude).map((prefix) => rule(PRIORITY.exclude, `to ${prefix} lookup main`)),
    // Connections from outside, as for administration, are answered on the way that they came.
    rule(PRIORITY.exclude, `fwmark ${INBOUND}/${INBOUND} lookup main`),
    // Directly connected networks stay reachable; explicitly included destinations go in nevertheless.
    ...(include.length > 0
      ? []
      : selectors.map((who) => rule(PRIORITY.specific, `${who}lookup main suppress_prefixlength 0`))),
    ...selectors.map((who) => rule(PRIORITY.tunnel, `${who}lookup ${ROUTES}`)),
    "",
  ].join("\n");
}

/** The table, replaced in one transaction. */
export function clientRules(o: ClientRulesOptions, relays: readonly OuterEndpoint[]): string {
  const own = FAMILIES.filter((family) => hasFamily(o, family)).map((family) => ({
    ip: family === "-6" ? "ip6" : "ip",
    addresses: setOf(o.addresses.filter((address) => familyOf(address) === family).map(bare)),
  }));
  const who = selector(o.scope);
  return `table inet ${TABLE}
delete table inet ${TABLE}
table inet ${TABLE} {
  set ${OUTSIDE} {
    type inet_service; flags timeout;
  }
${arriving(own)}${selection(o, own, who)}${resolution(o, who)}${rewriting(own)}${leaving(o, relays, who)}}
`;
}

/** The device's addresses of one family, as a set, and nftables' word for that family. */
interface OwnAddresses {
  ip: string;
  addresses: string;
}

/** The match for the packets of the scope's programs; undefined for all programs. */
function selector({ uid, cgroup }: Scope): string | undefined {
  if (uid !== undefined) return `meta skuid ${uid}`;
  return cgroup === undefined ? undefined : cgroupMatch(cgroup);
}

/** What may arrive, and the mark of connections that others open from outside the tunnel. */
function arriving(own: readonly OwnAddresses[]): string {
  return chain("prerouting", [
    "type filter hook prerouting priority raw; policy accept;",
    // The relay reaches only this device's own addresses, and only the relay reaches them.
    ...own.map(({ ip, addresses }) => `iifname ${DEVICE} ${ip} daddr ${addresses} accept`),
    `iifname ${DEVICE} drop`,
    ...own.map(({ ip, addresses }) =>
      `iifname != { ${DEVICE}, "lo" } ${ip} daddr ${addresses} fib saddr type != local drop`
    ),
  ]) + chain("inbound", [
    "type filter hook prerouting priority mangle; policy accept;",
    // Answers of services that others are forwarded to here; and for the source check, where that considers marks.
    `iifname != { ${DEVICE}, "lo" } ct direction reply ${MARK_INBOUND}`,
    `iifname != { ${DEVICE}, "lo" } fib daddr type local ${MARK_INBOUND}`,
  ]);
}

/** Which of this host's packets get a mark that decides their routing table. */
function selection(
  { listening }: ClientRulesOptions,
  own: readonly OwnAddresses[],
  who: string | undefined,
): string {
  return chain("select", [
    "type route hook output priority mangle; policy accept;",
    ...own.map(({ ip, addresses }) => `${ip} saddr ${addresses} ct direction reply return`),
    `ct direction reply ${MARK_INBOUND} accept`,
    // Connections older than these rules; the end whose packet is seen first counts as the initiator.
    ...(listening.length === 0
      ? []
      : [`tcp sport ${setOf(listening)} tcp flags & syn == 0 ${MARK_INBOUND} accept`]),
    ...(who === undefined ? [] : [`${who} meta mark set ${ROUTES}`]),
  ]);
}

/** The tunnel's resolvers for the selected programs; the others keep the system's. */
function resolution({ dns }: ClientRulesOptions, who: string | undefined): string {
  const resolvers = who === undefined ? [] : FAMILIES.flatMap((family) => {
    const resolver = dns.find((address) => familyOf(address) === family);
    return resolver === undefined
      ? []
      : [{ ip: family === "-6" ? "ip6" : "ip", nfproto: family === "-6" ? "ipv6" : "ipv4", resolver }];
  });
  return chain("resolve", [
    "type nat hook output priority -100; policy accept;",
    ...resolvers.flatMap(({ ip, nfproto, resolver }) =>
      ["udp", "tcp"].map((protocol) =>
        `${who} meta nfproto ${nfproto} ${protocol} dport 53 dnat ${ip} to ${resolver}`
      )
    ),
  ]);
}

/** What is changed in packets on their way into the tunnel. */
function rewriting(own: readonly OwnAddresses[]): string {
  return chain("clamp", [
    "type filter hook postrouting priority mangle; policy accept;",
    `oifname ${DEVICE} tcp flags syn / syn,rst tcp option maxseg size set rt mtu`,
  ]) + chain("postrouting", [
    "type nat hook postrouting priority srcnat; policy accept;",
    ...own.map(({ ip, addresses }) => `oifname ${DEVICE} ${ip} saddr != ${addresses} masquerade`),
  ]);
}

/** What may leave, from this host and from those for which it is the router. */
function leaving(o: ClientRulesOptions, relays: readonly OuterEndpoint[], who: string | undefined): string {
  return chain("output", [
    "type filter hook output priority filter; policy accept;",
    // At once, so that programs take the other family.
    ...FAMILIES.filter((family) => !hasFamily(o, family)).map((family) =>
      `oifname ${DEVICE} meta nfproto ${family === "-6" ? "ipv6" : "ipv4"} reject`
    ),
    ...killSwitch(o, relays, who),
  ]) + chain("forward", [
    "type filter hook forward priority filter; policy accept;",
    // Answers to hosts for which this machine is the router.
    `iifname ${DEVICE} ct state established,related accept`,
    ...(who === undefined ? killSwitch(o, relays, who) : []),
  ]);
}

/** The packets that may leave outside the tunnel; all others of the scope are dropped. */
function killSwitch(
  o: ClientRulesOptions,
  relays: readonly OuterEndpoint[],
  who: string | undefined,
): string[] {
  if (!o.killSwitch) return [];
  const { exclude } = o.scope;
  const to = (prefix: string) => `${familyOf(prefix) === "-6" ? "ip6" : "ip"} daddr ${prefix}`;
  const scope = who === undefined ? "" : `${who} `;
  const end = "counter reject with icmpx admin-prohibited";
  return [
    `oifname { "lo", "${CLIENT_DEVICE}" } accept`,
    ...relays.map(({ address, port, protocol = "udp" }) => `${to(address)} ${protocol} dport ${port} accept`),
    `udp sport @${OUTSIDE} udp dport ${DNS_PORT} accept`,
    // Leases and neighbours.
    "udp sport 68 udp dport 67 accept",
    "udp sport 546 udp dport 547 accept",
    "icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert } accept",
    ...exclude.map((prefix) => `${to(prefix)} accept`),
    ...FAMILIES.flatMap((family) => {
      const inside = led(o, family);
      if (inside.length === 0) return [];
      const [ip, version] = family === "-6" ? ["ip6", "ipv6"] : ["ip", "ipv4"];
      return inside[0].endsWith("/0")
        ? [`${scope}meta nfproto ${version} ${end}`]
        : [`${scope}${ip} daddr ${setOf(inside)} ${end}`];
    }),
  ];
}

/** An anonymous set of nftables. */
function setOf(elements: readonly string[]): string {
  return `{ ${elements.join(", ")} }`;
}

/** The nftables match for programs in a cgroup; nftables needs the cgroup's depth. */
function cgroupMatch(path: string): string {
  const relative = path.replace(CGROUP_ROOT, "").replace(/\/+$/, "");
  // Where both versions are in use, version 2 lies one folder deeper than its own root.
  const depth = relative.replace(/^unified\//, "").split("/").length;
  return `socket cgroupv2 level ${depth} "${relative}"`;
}
