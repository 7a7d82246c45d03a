/**
 * The text of the TUN exit's nftables tables: which packets pass, how many connections a peer may have, and by which ports they
 * leave. Invariant: a new connection from the device bears its peer's mark before it is accepted, and only marked connections
 * are masqueraded. Makes text; runs no program.
 */
import { PORT_CONTROL_PORT } from "../../wire/port_control.ts";
import type { HostAccess } from "../exit.ts";
import { isV6, type PortForward } from "../forward.ts";
import { TAG_MASK } from "./peers.ts";

/** Parts of the rules that an old kernel may lack; without one the others still hold. */
export const FEATURES = ["timeouts", "limits", "open NAT", "forwards"] as const;
export type Feature = typeof FEATURES[number];

/** The interface group of all relays' devices, by which rules distinguish their packets from a neighbour's. */
export const DEVICE_GROUP = 28536;

export interface PortRange {
  low: number;
  high: number;
}

export interface RulesOptions {
  table: string;
  device: string;
  /** The inner networks, "10.66.0.0/16", and the relay's own address in each. */
  v4: string;
  own4: string;
  v6: string | undefined;
  own6: string | undefined;
  host: HostAccess;
  tag: number;
  /** The host's ports by which connections from inside leave. */
  ports: PortRange;
  /** The relay's own UDP port, where it need not be tracked. */
  untracked: number | undefined;
  /** Connections that a peer may have at once; strangers may open a quarter of that number in addition. */
  flowsMax: number;
  features: ReadonlySet<Feature>;
}

/** New connections a second of a peer that has reached its number. */
const NEW_PER_SECOND = 500;
/** Seconds: RFC 4787 REQ-5, RFC 5382 REQ-5. */
const UDP_S = 120, TCP_S = 7440, STRANGERS_S = 30;
const MARKS_MAX = 1048576;
const NAT_PORTS_MIN = 4096;
export const CLAMP = "tcp flags syn / syn,rst tcp option maxseg size set rt mtu";

/**
 * The widest range of ports from 1024 on without the host's ephemeral ones, `low` to `high`, and without `own`, those that the
 * relay listens on; where the ephemeral ones leave too few ports, only without `own`. A client that left by such a port
 * could receive packets for that port (CVE-2021-3773).
 */
export function natPorts(own: readonly number[], low: number, high: number): PortRange {
  const widest = (taken: (port: number) => boolean): PortRange => {
    let best = { low: 0, high: -1 };
    for (let port = 1024, from = 1024; port <= 65536; port++) {
      if (port < 65536 && !taken(port)) continue;
      if (port - 1 - from > best.high - best.low) best = { low: from, high: port - 1 };
      from = port + 1;
    }
    return best;
  };
  const listens = new Set(own);
  const range = widest((port) => listens.has(port) || (port >= low && port <= high));
  return range.high - range.low + 1 >= NAT_PORTS_MIN ? range : widest((port) => listens.has(port));
}

/** What clients reach on the relay's host: pings, and the addresses that the policy opens; the policy has judged before. */
export function inputRules(o: RulesOptions): string[] {
  const { device, own4, own6, host: { all, prefixes, portControl } } = o;
  const from = `iifname "${device}"`;
  const admitted = `${from} ct state new jump from_peer`;
  // Who asks for ports is known by the source address alone, which a neighbour of the host could forge.
  const elsewhere = portControl ? portControlElsewhere(device, own4, own6) : [];
  if (all) return [...elsewhere, admitted, `${from} accept`];
  return [
    ...elsewhere,
    admitted,
    `${from} ip daddr ${own4} icmp type echo-request accept`,
    ...(own6 === undefined ? [] : [`${from} ip6 daddr ${own6} icmpv6 type echo-request accept`]),
    ...(portControl ? [`${from} ip daddr ${own4} udp dport ${PORT_CONTROL_PORT} accept`] : []),
    ...(portControl && own6 !== undefined
      ? [`${from} ip6 daddr ${own6} udp dport ${PORT_CONTROL_PORT} accept`]
      : []),
    ...prefixes.map((prefix) => `${from} ${prefix.includes(":") ? "ip6" : "ip"} daddr ${prefix} accept`),
    `${from} ct state established,related accept`,
    `${from} drop`,
  ];
}

/** Rules that let nobody but the device's hosts and this host ask for ports at these addresses. */
export function portControlElsewhere(device: string, own4: string, own6?: string): string[] {
  const elsewhere = `iifname != { "lo", "${device}" }`, port = `udp dport ${PORT_CONTROL_PORT}`;
  return [
    `${elsewhere} ip daddr ${own4} ${port} drop`,
    ...(own6 === undefined ? [] : [`${elsewhere} ip6 daddr ${own6} ${port} drop`]),
  ];
}

/** The whole table of the device. Chains and maps for peers are empty. */
export function tableRules(o: RulesOptions): string {
  const { device, tag, ports } = o;
  const isOurs = `ct mark & ${TAG_MASK} == ${tag}`;
  const leaves = `${isOurs} oifname != "${device}"`;
  return `table inet ${o.table} {
${sets(o)}  chain wide_from {
  }
  chain wide_to {
  }
${fromPeer(o)}${toPeer(o)}${
    chain("untracked", [
      "type filter hook prerouting priority raw; policy accept;",
      ...(o.untracked === undefined
        ? []
        : [`iifname != "${device}" udp dport ${o.untracked} fib daddr type local notrack`]),
    ])
  }${
    chain("untracked_out", [
      "type filter hook output priority raw; policy accept;",
      ...(o.untracked === undefined ? [] : [`udp sport ${o.untracked} fib saddr type local notrack`]),
    ])
  }${chain("input", ["type filter hook input priority filter; policy accept;", ...inputRules(o)])}${
    forward(o)
  }${
    chain("to_peer_open", [
      "meta l4proto != udp drop",
      "jump to_peer",
      "accept",
    ])
  }${forwards(o)}${openNat(o)}${
    chain("postrouting", [
      "type nat hook postrouting priority srcnat; policy accept;",
      ...forwardedSources(o, leaves),
      // Not "random": games and calls need a port that stays the same for all destinations (RFC 4787 REQ-1). The kernel keeps
      // a client's port where that lies in the range, and draws one at random where it does not.
      `${leaves} meta l4proto { tcp, udp, udplite, sctp, dccp } masquerade to :${ports.low}-${ports.high}`,
      `${leaves} masquerade`,
    ])
  }}
`;
}

/** The first packet of a connection that a peer opens. */
function fromPeer(o: RulesOptions): string {
  return chain("from_peer", [
    "ct status confirmed return",
    "jump wide_from",
    "ct mark set ip saddr map @peers4",
    "ct mark set ip6 saddr map @peers6",
    ...admission(o, "flows", o.flowsMax),
    ...timeouts(o),
  ]);
}

/** The first packet of a connection that a stranger opens to a peer. */
function toPeer(o: RulesOptions): string {
  return chain("to_peer", [
    "ct status confirmed return",
    "jump wide_to",
    "ct mark set ip daddr map @peers4",
    "ct mark set ip6 daddr map @peers6",
    ...admission(o, "strangers", o.flowsMax >> 2),
    ...(o.features.has("timeouts")
      ? [4, 6].map((family) => `meta nfproto ipv${family} ct timeout set "strangers${family}"`)
      : []),
  ]);
}

/** What leads strangers by the ports of forwards to their peers; the maps' elements are `forwardElements`. */
function forwards({ device, features }: RulesOptions): string {
  if (!features.has("forwards")) return "";
  const ports = "meta l4proto { tcp, udp } fib daddr type local dnat";
  return chain("forwarded", [
    // Before a client's mapping, which has the port by chance.
    "type nat hook prerouting priority dstnat - 1; policy accept;",
    `iifname "${device}" return`,
    // A program of this host that listens there: it came later than the forward, which would have been refused.
    "meta l4proto { tcp, udp } socket transparent { 0, 1 } return",
    `${ports} ip to meta l4proto . th dport map @forward4`,
    `${ports} ip6 to meta l4proto . th dport map @forward6`,
  ]) + chain("to_forward", ["jump to_peer", "accept"]);
}

/** A peer's packets from a forward's port leave by the forward's outer port (RFC 4787 REQ-1), before all others. */
function forwardedSources({ features }: RulesOptions, leaves: string): string[] {
  return features.has("forwards") ? sourcesOfForwards(leaves) : [];
}

/** The rules by which packets that match `leaves` leave by their forward's outer port. */
export function sourcesOfForwards(leaves: string): string[] {
  return (["udp", "tcp"] as const).flatMap((protocol) =>
    ([4, 6] as const).map((family) => {
      const address = family === 4 ? "ip saddr" : "ip6 saddr";
      return `${leaves} meta nfproto ipv${family} meta l4proto ${protocol} ` +
        `masquerade to :${address} . ${protocol} sport map @out_${protocol}${family}`;
    })
  );
}

/** Names of the maps and sets of forwards. */
const FORWARD_SETS = [
  ...["forward", "admitted", "out_udp", "out_tcp"].flatMap((name) => [`${name}4`, `${name}6`]),
  "forwarded_tcp",
];

/** The lines for nftables that make these forwards, and no others, the table's. */
export function forwardElements(table: string, forwards: readonly PortForward[]): string[] {
  const elements = new Map<string, string[]>(FORWARD_SETS.map((name) => [name, []]));
  const add = (name: string, element: string) => elements.get(name)!.push(element);
  for (const { protocol, outer, address, port } of forwards) {
    const family = isV6(address) ? 6 : 4;
    add(`forward${family}`, `${protocol} . ${outer} : ${address} . ${port}`);
    add(`admitted${family}`, `${address} . ${protocol} . ${port}`);
    add(`out_${protocol}${family}`, `${address} . ${port} : ${outer}`);
    if (protocol === "tcp") add("forwarded_tcp", `${outer}`);
  }
  return [...elements].flatMap(([name, all]) => [
    `flush ${/^(forward|out)/.test(name) && name !== "forwarded_tcp" ? "map" : "set"} inet ${table} ${name}`,
    ...(all.length > 0 ? [`add element inet ${table} ${name} { ${[...new Set(all)].join(", ")} }`] : []),
  ]);
}

/** What passes between the device and other interfaces. */
function forward({ device, v4, v6, features }: RulesOptions): string {
  const from = `iifname "${device}"`, to = `oifname "${device}"`;
  return chain("forward", [
    "type filter hook forward priority filter; policy accept;",
    `${from} ip saddr != ${v4} drop`,
    v6 === undefined ? `${from} meta nfproto ipv6 drop` : `${from} ip6 saddr != ${v6} drop`,
    `${from} ct state new jump from_peer`,
    // It would leave under an inner address.
    `${from} ct state invalid meta l4proto != tcp counter reject with icmpx admin-prohibited`,
    `${from} ct state invalid counter drop`,
    `${from} ${to} accept`,
    `${from} ip saddr ${v4} ${CLAMP}`,
    `${to} ip daddr ${v4} ${CLAMP}`,
    ...(v6 === undefined ? [] : [`${from} ip6 saddr ${v6} ${CLAMP}`, `${to} ip6 daddr ${v6} ${CLAMP}`]),
    // Connections by a port that is forwarded no longer end at once: TCP has no other way in.
    ...(features.has("forwards")
      ? [
        `${to} ct direction original ct status dnat meta l4proto tcp ct original proto-dst != @forwarded_tcp drop`,
      ]
      : []),
    `${to} ct state established,related accept`,
    ...(features.has("forwards")
      ? ["ip", "ip6"].map((family) =>
        `${to} ct state new ct status dnat ${family} daddr . meta l4proto . th dport ` +
        `@admitted${family === "ip" ? 4 : 6} goto to_forward`
      )
      : []),
    ...(features.has("open NAT") ? [`${to} ct state new ct status dnat goto to_peer_open`] : []),
    `${to} drop`,
  ]);
}

/** The rules for a connection's first packet: its peer's mark, and whether that peer may have one more. */
function admission({ tag, features, flowsMax }: RulesOptions, set: string, most: number): string[] {
  const refuse = set === "flows" ? "reject with icmpx admin-prohibited" : "drop";
  return [
    `ct mark & ${TAG_MASK} != ${tag} drop`,
    ...(features.has("limits")
      ? [
        // Counting iterates over the peer's connections, so its rate is bounded too.
        `add @${set}_new { ct mark limit rate over ${NEW_PER_SECOND}/second burst ${flowsMax} packets } counter ${refuse}`,
        `add @${set} { ct mark ct count over ${most} } counter ${refuse}`,
      ]
      : []),
  ];
}

/** A client's mapping accepts packets from every host (RFC 4787 REQ-8, endpoint-independent), except from this host itself. */
function openNat({ device, features }: RulesOptions): string {
  if (!features.has("open NAT")) return "";
  return chain("opened", [
    "type nat hook prerouting priority dstnat; policy accept;",
    `iifname "${device}" return`,
    // A program of this host that listens there.
    "meta l4proto udp socket transparent { 0, 1 } return",
    "fib daddr type local dnat ip to udp dport map @opened4 : udp dport map @port4",
    "fib daddr type local dnat ip6 to udp dport map @opened6 : udp dport map @port6",
  ]) + learning(`iifname "${device}" oifname != "${device}"`);
}

/** Notes the ports by which packets that match `leaving` have left, for strangers to come back by. */
export function learning(leaving: string): string {
  const learn = (family: 4 | 6, direction: "original" | "reply") => {
    const address = `ct ${direction} ${family === 4 ? "ip" : "ip6"} saddr`;
    return `${leaving} meta nfproto ipv${family} meta l4proto udp ct direction ${direction} ` +
      `update @opened${family} { udp sport : ${address} } update @port${family} { udp sport : ct ${direction} proto-src }`;
  };
  return chain("learn", [
    "type filter hook postrouting priority srcnat + 10; policy accept;",
    learn(4, "original"),
    learn(6, "original"),
    learn(4, "reply"),
    learn(6, "reply"),
  ]);
}

/** Names of the maps of ports that strangers may reach; cleared when a peer is removed. */
export const OPENED_MAPS = ["opened4", "opened6", "port4", "port6"] as const;

const map = (name: string, type: string, more = "") => `  map ${name} {\n    type ${type}\n${more}  }\n`;

/** What `learning` fills. */
export function openedMaps(): string {
  const opened = `    size 65536\n    flags dynamic,timeout\n    timeout ${UDP_S}s\n`;
  return [
    map("opened4", "inet_service : ipv4_addr", opened),
    map("opened6", "inet_service : ipv6_addr", opened),
    map("port4", "inet_service : inet_service", opened),
    map("port6", "inet_service : inet_service", opened),
  ].join("");
}

/** What `forwardElements` fills. */
export function forwardMaps(): string {
  return [
    ...([4, 6] as const).flatMap((family) => [
      map(`forward${family}`, `inet_proto . inet_service : ipv${family}_addr . inet_service`),
      `  set admitted${family} {\n    type ipv${family}_addr . inet_proto . inet_service\n  }\n`,
      map(`out_udp${family}`, `ipv${family}_addr . inet_service : inet_service`),
      map(`out_tcp${family}`, `ipv${family}_addr . inet_service : inet_service`),
    ]),
    "  set forwarded_tcp {\n    type inet_service\n  }\n",
  ].join("");
}

function sets({ features }: RulesOptions): string {
  const set = (name: string) =>
    `  set ${name} {\n    type mark\n    size ${MARKS_MAX}\n    flags dynamic\n  }\n`;
  const timeout = (name: string, protocol: string, family: 4 | 6, policy: string) =>
    `  ct timeout ${name}${family} {\n    protocol ${protocol}\n    l3proto ${
      family === 4 ? "ip" : "ip6"
    }\n    ` +
    `policy = { ${policy} }\n  }\n`;
  return [
    map("peers4", "ipv4_addr : mark"),
    map("peers6", "ipv6_addr : mark"),
    ...(features.has("limits") ? ["flows", "flows_new", "strangers", "strangers_new"].map(set) : []),
    ...(features.has("open NAT") ? [openedMaps()] : []),
    ...(features.has("forwards") ? [forwardMaps()] : []),
    ...(features.has("timeouts")
      ? ([4, 6] as const).flatMap((family) => [
        timeout("udp", "udp", family, `unreplied : ${UDP_S}, replied : ${UDP_S}`),
        timeout("tcp", "tcp", family, `established : ${TCP_S}`),
        timeout("strangers", "udp", family, `unreplied : ${STRANGERS_S}, replied : ${UDP_S}`),
      ])
      : []),
  ].join("");
}

function timeouts({ features }: RulesOptions): string[] {
  if (!features.has("timeouts")) return [];
  return [4, 6].flatMap((family) =>
    ["udp", "tcp"].map((protocol) =>
      `meta nfproto ipv${family} meta l4proto ${protocol} ct timeout set "${protocol}${family}"`
    )
  );
}

/** One chain of a table, with its rules. */
export function chain(name: string, rules: readonly string[]): string {
  return `  chain ${name} {\n${rules.map((rule) => `    ${rule}\n`).join("")}  }\n`;
}

/**
 * The chain, in the table that records the settings, that keeps a host that forwards only because of relays from routing for its
 * neighbours. `families` are those that a relay switched on.
 */
export function neighbourRules(families: readonly (4 | 6)[]): string {
  if (families.length === 0) return "";
  return chain("neighbours", [
    "type filter hook forward priority filter; policy accept;",
    `iifgroup ${DEVICE_GROUP} accept`,
    `oifgroup ${DEVICE_GROUP} accept`,
    // Frames that a bridge passes on come by here as well (br_netfilter), and are not forwarded.
    'meta iifkind "bridge" meta oifkind "bridge" accept',
    ...families.map((family) => `meta nfproto ipv${family} counter drop`),
  ]);
}
