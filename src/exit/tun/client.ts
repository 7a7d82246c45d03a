/**
 * A client's changes to its host that lead packets into the tunnel: the device's addresses, policy routing, one nftables
 * table, resolvers. Invariant: of the host's own settings only /etc/resolv.conf is changed, which then holds its old text as
 * comments; rules and routes bear this program's protocol number and the table its name, so that the next start finds and undoes
 * what a killed client left; the device and its routes disappear with the process. Moves no packet.
 */
import { cString, libc, O_CLOEXEC, O_RDWR } from "../../../ffi/mod.ts";
import type { Native } from "../../../ffi/native.ts";
import { formatAddress, parseAddress, parsePrefix, prefixContains } from "../../wire/address.ts";
import { run } from "../child.ts";
import { listeningPorts, READ_MAX, readThrough } from "./listening.ts";
import { openQueues } from "./mod.ts";
import { writeSysctl } from "./host.ts";

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

export interface ClientHostOptions {
  /** "10.66.0.2/32", one or more. */
  addresses: readonly string[];
  /** Destinations that the relay carries, as prefixes of which none contains another; all of both families when empty. */
  routes: readonly string[];
  /** Inner MTU, bytes. */
  mtu: number;
  /** Resolvers to ask through the tunnel; empty to keep the system's resolvers. */
  dns: readonly string[];
  /** Search domains. */
  search: readonly string[];
  scope: Scope;
  /** Whether packets in the tunnel's scope are blocked everywhere else, also without a tunnel. */
  killSwitch: boolean;
  native: Native | string;
  log: (level: "info" | "warning", message: string) => void;
}

/** The relay's outer address, as text, and UDP port. */
export interface OuterEndpoint {
  address: string;
  port: number;
  /** UDP when absent. */
  protocol?: "tcp";
}

export const CLIENT_DEVICE = "oxconnect0";
const TABLE = "oxconnect";
/** Routing table, mark and first priority of the client's rules; and the protocol number by which they are recognised. */
const ROUTES = 28536, PROTOCOL = 79;
const PRIORITY = { relay: 28536, exclude: 28537, specific: 28538, tunnel: 28539 };
/** The mark's bit for packets of connections that others opened from outside the tunnel. */
const INBOUND = "0x4000000";
const CGROUP_ROOT = /^\/?(sys\/fs\/cgroup\/)?/;
const RESOLV_CONF = "/etc/resolv.conf";
const RESOLVED_CONF = "/run/systemd/resolve/resolv.conf";
const DNS_PORT = 53;
/** The table's set of ports from which resolvers may be asked past a closed kill switch, and the time for which. */
const OUTSIDE = "outside", OUTSIDE_S = 10;
const KEPT = "#oxrelay: ";
/** By its path: Deno warns at start about an allowed program that is not on PATH. */
const RESOLVECTL = "/usr/bin/resolvectl";
const STUB_RESOLVER = "127.0.0.53";

const IPV6_MTU_MIN = 1280; // RFC 8200 §5

type Family = "-4" | "-6";
const familyOf = (text: string): Family => text.includes(":") ? "-6" : "-4";
const bare = (prefix: string) => prefix.split("/")[0];

export class ClientHost {
  readonly #o: ClientHostOptions;
  #descriptor: number | undefined;
  #usesResolved = false;
  #hasRules = false;
  /** TCP ports on which programs listened at start, as text. */
  readonly #listening = listeningPorts("tcp").map(String);
  /** The addresses that this system accepted, with prefix lengths. */
  #addresses: string[] = [];
  #relays: readonly OuterEndpoint[] | undefined;
  /** Settled when the last requested change is done: changes of rules and routes run one by one. */
  #turn: Promise<void> = Promise.resolve();
  /** The device's. */
  #mtu: number;

  private constructor(options: ClientHostOptions) {
    this.#o = options;
    this.#mtu = options.mtu;
  }

  /**
   * Makes the device, up and with its addresses, without leading packets into it. Undoes what an earlier client left, except
   * a closed kill switch when this client closes one too. Throws a sentence.
   */
  static async open(options: ClientHostOptions): Promise<ClientHost> {
    const host = new ClientHost(options);
    const remedy = "if another connect runs here, stop it; there can be one";
    [host.#descriptor] = openQueues(CLIENT_DEVICE, options.native, 1, remedy);
    try {
      await undo(options.killSwitch);
      await run("ip", ["link", "set", "dev", CLIENT_DEVICE, "mtu", String(options.mtu), "up"]);
      await host.#addAddresses();
      // Answers arrive by the tunnel although the unmarked route back is another.
      writeSysctl(`net/ipv4/conf/${CLIENT_DEVICE}/rp_filter`, "2");
      // A selected program that asks a resolver on loopback gets its answer from the tunnel. No other packet reaches loopback:
      // the rules accept only packets to the device's own addresses.
      if (host.#isSelective) writeSysctl(`net/ipv4/conf/${CLIENT_DEVICE}/route_localnet`, "1");
    } catch (error) {
      await host.close();
      throw error;
    }
    return host;
  }

  /** Without IPv6 (by a setting, or a kernel without it) only the IPv4 addresses are used. */
  async #addAddresses(): Promise<void> {
    let refusal: Error | undefined;
    for (const address of this.#o.addresses) {
      const more = familyOf(address) === "-6" ? ["nodad"] : [];
      try {
        await run("ip", ["addr", "add", address, "dev", CLIENT_DEVICE, ...more]);
        this.#addresses.push(address);
      } catch (error) {
        refusal = error as Error;
        if (familyOf(address) === "-4") throw refusal;
      }
    }
    if (refusal === undefined) return;
    if (this.#addresses.length === 0) throw refusal;
    this.#o.log("warning", `IPv6 is off on this system, so it stays off in the tunnel: ${refusal.message}`);
  }

  /** The device's queue. */
  get descriptor(): number {
    return this.#descriptor!;
  }

  /** Leads the scope's packets into the tunnel, and packets to the relays past it. Call again when a relay has moved. */
  route(relays: readonly OuterEndpoint[]): Promise<void> {
    return this.#inTurn(() => this.#route(relays));
  }

  async #route(relays: readonly OuterEndpoint[]): Promise<void> {
    this.#relays = relays;
    await this.#applyRules(relays);
    await deleteRules();
    for (const family of ["-4", "-6"] as const) {
      const batch = this.#batch(family, relays);
      try {
        await run("ip", [family, "-batch", "-"], batch);
      } catch (error) {
        // A system without IPv6 has no such packets.
        if (family === "-4" || this.#has("-6")) throw error;
      }
    }
    await this.#resolve();
  }

  /** Gives the device the MTU of the path, at most the negotiated one. With IPv6 at least 1280, below which Linux ends IPv6. */
  async setMtu(mtu: number): Promise<void> {
    const least = this.#has("-6") ? IPV6_MTU_MIN : 0;
    const fitting = Math.max(least, Math.min(this.#o.mtu, mtu));
    if (fitting === this.#mtu) return;
    try {
      await run("ip", ["link", "set", "dev", CLIENT_DEVICE, "mtu", String(fitting)]);
      this.#mtu = fitting;
    } catch (error) {
      // Packets that do not fit are then fragmented, or their senders told, one by one.
      this.#o.log("warning", `the MTU stays ${this.#mtu}: ${(error as Error).message}`);
    }
  }

  /** Closes the kill switch before there is a tunnel. */
  shut(relays: readonly OuterEndpoint[]): Promise<void> {
    return this.#inTurn(() => this.#applyRules(relays));
  }

  /**
   * Lets UDP from `port` of this host to these resolvers' port 53 past the tunnel and past the kill switch while the action
   * runs, so that the name of a relay that moved can be resolved.
   */
  async letOut<T>(resolvers: readonly string[], port: number, action: () => Promise<T>): Promise<T> {
    const rules = resolvers.flatMap((resolver) =>
      [`sport ${port} dport ${DNS_PORT}`, `sport ${DNS_PORT} dport ${port}`].map((ports) => ({
        family: familyOf(resolver),
        line:
          `priority ${PRIORITY.relay} to ${resolver} ipproto udp ${ports} lookup main protocol ${PROTOCOL}`,
      }))
    );
    const each = async (verb: "add" | "del") => {
      for (const { family, line } of rules) {
        await run("ip", [family, "rule", verb, ...line.split(" ")]).catch(() => {});
      }
    };
    await this.#inTurn(async () => {
      await each("add");
      // Where no kill switch is closed there is no such set. The element goes by itself.
      const element = `{ ${port} timeout ${OUTSIDE_S}s }`;
      await run("nft", ["add", "element", "inet", TABLE, OUTSIDE, element]).catch(() => {});
    });
    try {
      return await action();
    } finally {
      await this.#inTurn(() => each("del"));
    }
  }

  /** The resolvers that this system uses outside the tunnel, as text. */
  outsideResolvers(): string[] {
    const now = readResolvConf() ?? "";
    const before = originalResolvConf(now) ?? now;
    // The resolvers behind a local stub are listed in another file.
    const text = before.includes(STUB_RESOLVER) ? readThrough(RESOLVED_CONF) ?? before : before;
    return [...text.matchAll(/^nameserver\s+(\S+)/gm)].flatMap(([, server]) => {
      const address = parseAddress(server);
      return address === undefined ? [] : [formatAddress(address)];
    });
  }

  /** Whether the client's rules were flushed, as by a firewall that loads its own ruleset; then restores them. */
  guard(): Promise<void> {
    return this.#inTurn(() => this.#guard());
  }

  async #guard(): Promise<void> {
    if (this.#relays === undefined) return;
    const listed = await run("nft", ["list", "table", "inet", TABLE]).catch(() => undefined);
    if (listed !== undefined) return;
    await this.#applyRules(this.#relays);
    this.#o.log(
      "warning",
      `the rules of ${CLIENT_DEVICE} were gone (nft flush ruleset?) and have been put back`,
    );
  }

  /**
   * Undoes everything. A kill switch that an earlier client left closed stays closed if this client was to close one and ended
   * before. Safe to call twice; call after the last use of the device.
   */
  close(): Promise<void> {
    return this.#inTurn(() => this.#close());
  }

  async #close(): Promise<void> {
    if (this.#usesResolved) await run(RESOLVECTL, ["revert", CLIENT_DEVICE]).catch(() => {});
    await undo(this.#o.killSwitch && !this.#hasRules);
    libc().close(this.descriptor);
    this.#descriptor = undefined;
  }

  /** Runs the change after all earlier ones; does nothing once everything is undone. */
  #inTurn(action: () => Promise<void>): Promise<void> {
    const done = this.#turn.then(() => this.#descriptor === undefined ? undefined : action());
    this.#turn = done.catch(() => {});
    return done;
  }

  #has(family: Family): boolean {
    return this.#addresses.some((address) => familyOf(address) === family);
  }

  /** The family's destinations that go in; a /0 for all. */
  #led(family: Family): string[] {
    const { routes, scope: { include } } = this.#o;
    const all = family === "-6" ? "::/0" : "0.0.0.0/0";
    const said = include.length > 0 ? include : routes.length > 0 ? routes : [all];
    return said.filter((prefix) => familyOf(prefix) === family);
  }

  get #isSelective(): boolean {
    return this.#o.scope.uid !== undefined || this.#o.scope.cgroup !== undefined;
  }

  async #applyRules(relays: readonly OuterEndpoint[]): Promise<void> {
    try {
      await run("nft", ["-f", "-"], this.#rules(relays));
      this.#hasRules = true;
    } catch (error) {
      const { cgroup } = this.#o.scope;
      if (cgroup === undefined) throw error;
      throw new Error(
        `--only-cgroup ${cgroup}: expected an existing cgroup v2 (${(error as Error).message})`,
      );
    }
  }

  /** Routes of the client's own table, to which the rules lead; lines for `ip -batch`. */
  #batch(family: Family, relays: readonly OuterEndpoint[]): string {
    const { scope: { include, exclude, uid } } = this.#o;
    const of = (prefixes: readonly string[]) => prefixes.filter((prefix) => familyOf(prefix) === family);
    // The kernel loses a packet's uid when a rule rewrites the resolver's address in it; a mark stays.
    const selectors = [
      ...(uid === undefined ? [] : [`uidrange ${uid}-${uid} `]),
      ...(this.#isSelective ? [`fwmark ${ROUTES} `] : [""]),
    ];
    const rule = (priority: number, what: string) =>
      `rule add priority ${priority} ${what} protocol ${PROTOCOL}`;
    // Without an address of this family in the tunnel its packets go in too, to be refused instead of leaking.
    const routes = this.#led(family);
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

  /** One transaction. */
  #rules(relays: readonly OuterEndpoint[]): string {
    const { dns, scope: { uid, cgroup } } = this.#o;
    const device = `"${CLIENT_DEVICE}"`;
    const own = (["-4", "-6"] as const).filter((family) => this.#has(family)).map((family) => ({
      ip: family === "-6" ? "ip6" : "ip",
      addresses: setOf(this.#addresses.filter((address) => familyOf(address) === family).map(bare)),
    }));
    const inbound = `meta mark set meta mark or ${INBOUND}`;
    const who = uid !== undefined
      ? `meta skuid ${uid}`
      : cgroup !== undefined
      ? cgroupMatch(cgroup)
      : undefined;
    const resolvers = this.#isSelective
      ? (["-4", "-6"] as const).flatMap((family) => {
        const resolver = dns.find((address) => familyOf(address) === family);
        return resolver === undefined
          ? []
          : [{ ip: family === "-6" ? "ip6" : "ip", nfproto: family === "-6" ? "ipv6" : "ipv4", resolver }];
      })
      : [];
    const lines = (rules: string[]) => rules.map((rule) => `    ${rule}\n`).join("");
    return `table inet ${TABLE}
delete table inet ${TABLE}
table inet ${TABLE} {
  set ${OUTSIDE} {
    type inet_service; flags timeout;
  }
  chain prerouting {
    type filter hook prerouting priority raw; policy accept;
${
      lines([
        // The relay reaches only this device's own addresses, and only the relay reaches them.
        ...own.map(({ ip, addresses }) => `iifname ${device} ${ip} daddr ${addresses} accept`),
        `iifname ${device} drop`,
        ...own.map(({ ip, addresses }) =>
          `iifname != { ${device}, "lo" } ${ip} daddr ${addresses} fib saddr type != local drop`
        ),
      ])
    }  }
  chain inbound {
    type filter hook prerouting priority mangle; policy accept;
${
      lines([
        // Answers of services that others are forwarded to here; and for the source check, where that considers marks.
        `iifname != { ${device}, "lo" } ct direction reply ${inbound}`,
        `iifname != { ${device}, "lo" } fib daddr type local ${inbound}`,
      ])
    }  }
  chain select {
    type route hook output priority mangle; policy accept;
${
      lines([
        ...own.map(({ ip, addresses }) => `${ip} saddr ${addresses} ct direction reply return`),
        `ct direction reply ${inbound} accept`,
        // Connections older than these rules; the end whose packet is seen first counts as the initiator.
        ...(this.#listening.length === 0
          ? []
          : [`tcp sport ${setOf(this.#listening)} tcp flags & syn == 0 ${inbound} accept`]),
        ...(who === undefined ? [] : [`${who} meta mark set ${ROUTES}`]),
      ])
    }  }
  chain resolve {
    type nat hook output priority -100; policy accept;
${
      lines(resolvers.flatMap(({ ip, nfproto, resolver }) =>
        ["udp", "tcp"].map((protocol) =>
          `${who} meta nfproto ${nfproto} ${protocol} dport 53 dnat ${ip} to ${resolver}`
        )
      ))
    }  }
  chain clamp {
    type filter hook postrouting priority mangle; policy accept;
    oifname ${device} tcp flags syn / syn,rst tcp option maxseg size set rt mtu
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
${lines(own.map(({ ip, addresses }) => `oifname ${device} ${ip} saddr != ${addresses} masquerade`))}  }
  chain output {
    type filter hook output priority filter; policy accept;
${
      lines([
        // At once, so that programs take the other family.
        ...(["-4", "-6"] as const).filter((family) => !this.#has(family)).map((family) =>
          `oifname ${device} meta nfproto ${family === "-6" ? "ipv6" : "ipv4"} reject`
        ),
        ...this.#killSwitch(relays, who),
      ])
    }  }
  chain forward {
    type filter hook forward priority filter; policy accept;
${
      lines([
        // Answers to hosts for which this machine is the router.
        `iifname ${device} ct state established,related accept`,
        ...(who === undefined ? this.#killSwitch(relays, who) : []),
      ])
    }  }
}
`;
  }

  /** The packets that may leave outside the tunnel; all others of the scope are dropped. */
  #killSwitch(relays: readonly OuterEndpoint[], who: string | undefined): string[] {
    if (!this.#o.killSwitch) return [];
    const { exclude } = this.#o.scope;
    const to = (prefix: string) => `${familyOf(prefix) === "-6" ? "ip6" : "ip"} daddr ${prefix}`;
    const scope = who === undefined ? "" : `${who} `;
    const end = "counter reject with icmpx admin-prohibited";
    return [
      `oifname { "lo", "${CLIENT_DEVICE}" } accept`,
      ...relays.map(({ address, port, protocol = "udp" }) =>
        `${to(address)} ${protocol} dport ${port} accept`
      ),
      `udp sport @${OUTSIDE} udp dport ${DNS_PORT} accept`,
      // Leases and neighbours.
      "udp sport 68 udp dport 67 accept",
      "udp sport 546 udp dport 547 accept",
      "icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert } accept",
      ...exclude.map((prefix) => `${to(prefix)} accept`),
      ...(["-4", "-6"] as const).flatMap((family) => {
        const led = this.#led(family);
        if (led.length === 0) return [];
        const [ip, version] = family === "-6" ? ["ip6", "ipv6"] : ["ip", "ipv4"];
        return led[0].endsWith("/0")
          ? [`${scope}meta nfproto ${version} ${end}`]
          : [`${scope}${ip} daddr ${setOf(led)} ${end}`];
      }),
    ];
  }

  /** Makes the system resolve through the tunnel, unless only some destinations go in; a user or cgroup has rules instead. */
  async #resolve(): Promise<void> {
    const { search, scope } = this.#o;
    if (this.#o.dns.length === 0 || scope.include.length > 0 || this.#isSelective) return;
    const dns = this.#o.dns.filter((address) =>
      this.#led(familyOf(address)).some((led) => prefixContains(parsePrefix(led)!, parseAddress(address)!))
    );
    if (dns.length === 0) {
      this.#o.log(
        "warning",
        "no resolver of the config is among its AllowedIPs, so names are resolved as before",
      );
      return;
    }
    const now = readResolvConf();
    if (now === undefined) {
      this.#o.log(
        "warning",
        `${RESOLV_CONF} cannot be read, so names are resolved as before, outside of the tunnel`,
      );
      return;
    }
    if (new RegExp(`^nameserver\\s+${STUB_RESOLVER}\\s*$`, "m").test(now)) {
      try {
        await run(RESOLVECTL, ["dns", CLIENT_DEVICE, ...dns]);
        await run(RESOLVECTL, ["domain", CLIENT_DEVICE, "~.", ...search]);
        this.#usesResolved = true;
        return;
      } catch {
        // A configured stub that does not run: the file is used.
      }
    }
    if (now.includes(KEPT)) return; // the relay has moved, the file is ours already
    if (!writeResolvConf(replacedResolvConf(now, dns, search))) {
      this.#o.log(
        "warning",
        `${RESOLV_CONF} cannot be written, so names are resolved as before, outside of the tunnel`,
      );
    }
  }
}

/** Undoes what a killed client left behind, including its closed kill switch unless that is to stay. */
export async function undo(keepKillSwitch: boolean): Promise<void> {
  const now = readResolvConf();
  const before = now === undefined ? undefined : originalResolvConf(now);
  if (before !== undefined) writeResolvConf(before);
  await deleteRules();
  if (!keepKillSwitch) await run("nft", ["delete", "table", "inet", TABLE]).catch(() => {});
}

/** Whether a killed client has left its kill switch closed. */
export async function isShut(): Promise<boolean> {
  const listed = await run("nft", ["list", "chain", "inet", TABLE, "output"]).catch(() => "");
  return listed.includes("admin-prohibited");
}

async function deleteRules(): Promise<void> {
  for (const family of ["-4", "-6"]) {
    await run("ip", [family, "rule", "flush", "protocol", String(PROTOCOL)]).catch(() => {});
    await run("ip", [family, "route", "flush", "table", String(ROUTES)]).catch(() => {});
  }
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

/** The new text of resolv.conf, with the old one in it as comments. */
export function replacedResolvConf(
  before: string,
  dns: readonly string[],
  search: readonly string[] = [],
): string {
  const kept = before.replace(/\n$/, "").split("\n").map((line) => `${KEPT}${line}\n`);
  // glibc reads three.
  const servers = dns.slice(0, 3).map((address) => `nameserver ${address}\n`);
  return [...servers, ...(search.length > 0 ? [`search ${search.join(" ")}\n`] : []), ...kept].join("");
}

/** The text that was replaced, or undefined when this program did not write the file. */
export function originalResolvConf(text: string): string | undefined {
  const kept = text.split("\n").filter((line) => line.startsWith(KEPT));
  return kept.length === 0 ? undefined : kept.map((line) => `${line.slice(KEPT.length)}\n`).join("");
}

// Through the C library and in place: the file is often a link or a mount, which a rename would break, and Deno would need
// the permission for the link's target.
function readResolvConf(): string | undefined {
  const text = readThrough(RESOLV_CONF);
  return text === undefined || text.length >= READ_MAX ? undefined : text;
}

/** One write and then one truncation, so that a crash between them leaves the new text whole. */
function writeResolvConf(text: string): boolean {
  const fd = libc().open(cString(RESOLV_CONF), O_RDWR | O_CLOEXEC);
  if (fd < 0) return false;
  const bytes = new TextEncoder().encode(text);
  const written = Number(libc().write(fd, bytes, BigInt(bytes.length)));
  const cut = libc().ftruncate(fd, BigInt(Math.max(0, written)));
  libc().close(fd);
  return written === bytes.length && cut === 0;
}
