/**
 * A TUN exit's changes to its host: addresses, one nftables table (rules.ts), forwarding, the peers' marks. Invariant:
 * every change bears the device's name or its tag and is undone at close, or at the next start after a crash, connections of
 * clients in conntrack included; rules and settings of others are left as they were. Forwarding is shared by all relays of a
 * network namespace: its former values are recorded in a second table, which exists as long as the namespace, like the
 * settings, and meanwhile drops packets that neighbours would have forwarded; the last relay to stop restores them. Moves
 * no packet.
 */
import { cString, libc, O_CLOEXEC, O_WRONLY } from "../../../ffi/mod.ts";
import type { Native } from "../../../ffi/native.ts";
import { parsePrefix, prefixesOverlap } from "../../wire/address.ts";
import { run } from "../child.ts";
import { forgetMarked } from "./conntrack.ts";
import type { HostAccess, InnerAddress } from "../exit.ts";
import { bindReason, EADDRINUSE, isV6, type PortForward, type RefusedForward } from "../forward.ts";
import { listeners } from "./listening.ts";
import { TAG_MASK, tagOf, type TunPeer, TunPeers } from "./peers.ts";
import { trackingNeed } from "./tracking.ts";
import {
  DEVICE_GROUP,
  type Feature,
  FEATURES,
  forwardElements,
  inputRules,
  natPorts,
  neighbourRules,
  OPENED_MAPS,
  type RulesOptions,
  tableRules,
} from "./rules.ts";

export interface TunOptions {
  /** Device name, up to 15 characters. */
  name: string;
  ipv4: InnerAddress;
  ipv6?: InnerAddress;
  mtu: number;
  /** See `TunDevice.openHost`. */
  host: HostAccess;
  /** The relay's UDP port, and every port of either protocol on which a program listens; no client leaves by these. */
  listenPort?: number;
  ownPorts: readonly number[];
  /** The library that moves packets in bulk, with the kernel's offloads, or the reason to move them one by one. */
  native: Native | string;
  log: (level: "debug" | "info" | "warning" | "error", message: string) => void;
}

/** Paths under /proc/sys, with their values before the first relay started. */
type Settings = Record<string, string>;

const IPV4_SWITCH = "net/ipv4/ip_forward";
const IPV6_SWITCH = "net/ipv6/conf/all/forwarding";
/** The table that holds the record. Never a device's own table: the names of those have an underscore. */
const RECORD = "oxrelay";

const CONNTRACK_MAX = "net/netfilter/nf_conntrack_max";
/** A peer's share of the host's connections, and the bounds of the share. */
const PEER_SHARE = 32, FLOWS_MIN = 512, FLOWS_MAX = 4096;
const EPHEMERAL = "net/ipv4/ip_local_port_range";

/** The host's side: addresses, rules, settings. */
export class TunHost {
  readonly #o: TunOptions;
  readonly #table: string;
  readonly #tag: number;
  readonly #peers: TunPeers;
  #hasIpv6 = false;
  #features: ReadonlySet<Feature> = new Set(FEATURES);
  #untracked: number | undefined;
  /** Those that the table has, without the refused ones. */
  #forwards: readonly PortForward[] = [];
  /** This relay's copy of the record, in case another program flushes the table. */
  #before: Settings = {};

  constructor(options: TunOptions) {
    this.#o = { ...options };
    this.#table = `${RECORD}_${options.name}`;
    this.#tag = tagOf(options.name);
    this.#peers = new TunPeers(options.name);
  }

  /** Whether strangers reach the mappings of clients' UDP ports; known after configuration. */
  get hasOpenNat(): boolean {
    return this.#features.has("open NAT");
  }

  /** Restores what a killed relay had changed. */
  async restoreAfterCrash(): Promise<void> {
    // The rules stay until those of this relay replace them, so that open connections of clients stay translated.
    const left = await run("nft", ["list", "table", "inet", this.#table]).catch(() => "");
    if (this.#peers.adopt(left) === 0) this.#forget(this.#tag, TAG_MASK);
    if (await this.#restoreSettings() === "restored") {
      this.#o.log("info", "restored the forwarding settings that a crash had left changed");
    }
  }

  async configure(): Promise<void> {
    const { name, ipv4, ipv6, mtu } = this.#o;
    await refuseOverlap(name, ipv4, "tunnel_ipv4");
    if (ipv6) await refuseOverlap(name, ipv6, "tunnel_ipv6");
    await run("ip", ["link", "set", "dev", name, "group", String(DEVICE_GROUP), "mtu", String(mtu), "up"]);
    await run("ip", ["addr", "add", `${ipv4.address}/${ipv4.prefix}`, "dev", name]);
    let hasIpv6 = ipv6 !== undefined;
    if (ipv6) {
      try {
        await run("ip", ["-6", "addr", "add", `${ipv6.address}/${ipv6.prefix}`, "dev", name, "nodad"]);
      } catch (error) {
        hasIpv6 = false;
        this.#o.log("warning", `IPv6 stays off in the tunnel: ${(error as Error).message}`);
      }
    }
    this.#hasIpv6 = hasIpv6;
    const wanted: Settings = { [IPV4_SWITCH]: "1" };
    if (hasIpv6) {
      // A host with a default route from router advertisements drops the route when it starts to forward, unless accept_ra
      // was set to 2 before.
      for (const device of await defaultIpv6Devices()) wanted[`net/ipv6/conf/${device}/accept_ra`] = "2";
      wanted[IPV6_SWITCH] = "1";
    }
    const changed = Object.keys(wanted).filter((path) =>
      ![undefined, wanted[path]].includes(readSysctl(path))
    );
    this.#before = { ...await this.#valuesBefore(changed), ...await recorded() };
    this.#untracked = await this.#untrackedPort();
    // The rules come first, so that no packet is forwarded without them, and the record, so that no crash loses it.
    await this.#applyWhatWorks();
    for (const path of changed) {
      if (!writeSysctl(path, wanted[path])) {
        throw new Error(`/proc/sys/${path} cannot be set to ${wanted[path]}`);
      }
    }
    this.#setDeviceOptions();
    for (const { family, table, chain } of await foreignForwardDrops()) {
      this.#o.log(
        "warning",
        `another firewall drops forwarded packets (chain ${family} ${table} ${chain}, policy drop): clients reach ` +
          `nothing until it lets ${name} pass: nft insert rule ${family} ${table} ${chain} iifname ${name} accept; ` +
          `nft insert rule ${family} ${table} ${chain} oifname ${name} ct state established,related accept`,
      );
    }
  }

  /** Opens the host to packets from inside, or closes it. One transaction; nothing changes when it throws. */
  async openHost(host: HostAccess): Promise<void> {
    const chain = `inet ${this.#table} input`;
    const rules = inputRules({ ...this.#rulesOptions(), host }).map((rule) => `add rule ${chain} ${rule}`);
    await run("nft", ["-f", "-"], [`flush chain ${chain}`, ...rules, ""].join("\n"));
    this.#o.host = host;
    this.#setDeviceOptions();
  }

  /** Settings of the device, which disappear with it. */
  #setDeviceOptions(): void {
    const { name, host: { all, prefixes } } = this.#o;
    const loopback = parsePrefix("127.0.0.0/8")!;
    const opensLoopback = all || prefixes.some((prefix) => prefixesOverlap(parsePrefix(prefix)!, loopback));
    // Without this setting 127.0.0.0/8 is closed to every device but lo.
    writeSysctl(`net/ipv4/conf/${name}/route_localnet`, opensLoopback ? "1" : "0");
    // A device that was taken down and up again would have lost its address.
    if (this.#hasIpv6) writeSysctl(`net/ipv6/conf/${name}/keep_addr_on_down`, "1");
  }

  /** Restores the rules after another program has flushed them, as a firewall that loads its own ruleset may. */
  async guard(): Promise<void> {
    // Without the elements of the sets, of which there may be thousands.
    const listed = await run("nft", ["-t", "list", "table", "inet", this.#table]).catch(() => undefined);
    if (listed !== undefined) return;
    this.#before = { ...this.#before, ...await recorded() };
    await run("nft", ["-f", "-"], this.#rulesAnew());
    this.#o.log(
      "warning",
      `the rules of ${this.#o.name} were gone (nft flush ruleset?) and have been put back`,
    );
  }

  /** Restores settings and removes rules; the device disappears with its descriptor. */
  async undo(): Promise<void> {
    // The rules are removed last, because they were made first.
    if (await this.#restoreSettings() === "needed") {
      this.#o.log("info", "forwarding stays on: another relay on this host needs it");
    }
    await deleteTable(this.#table);
    this.#forget(this.#tag, TAG_MASK);
  }

  /**
   * Lets these peers out and no others. A removed peer can open no connection from here on; its open connections end with
   * `forget`, to be called once no Worker takes its packets. A refusal of nftables is logged and blocks no peer.
   */
  async setPeers(peers: readonly TunPeer[]): Promise<{ forget: () => Promise<void> }> {
    const { lines, gone } = this.#peers.change(peers, this.#table);
    if (lines.length > 0) {
      const all = () => run("nft", ["-f", "-"], this.#rulesAnew());
      await run("nft", ["-f", "-"], `${lines.join("\n")}\n`).catch(all).catch((error: Error) =>
        this.#o.log("error", `the rules of ${this.#o.name} do not know the present peers: ${error.message}`)
      );
    }
    return { forget: () => this.#forgetPeers(gone) };
  }

  /**
   * Lets strangers reach peers by these ports of the host and by no others; returns those that it refused: a port on which a
   * program of the host listens stays that program's.
   */
  async setForwards<F extends PortForward>(wanted: readonly F[]): Promise<RefusedForward<F>[]> {
    if (wanted.length === 0 && this.#forwards.length === 0) return [];
    if (!this.#features.has("forwards")) {
      return wanted.map((forward) => ({ forward, reason: "cannot be forwarded: nftables here is too old" }));
    }
    const isTaken = listeners();
    const possible = wanted.filter((forward) =>
      !isTaken(forward) && (this.#hasIpv6 || !isV6(forward.address))
    );
    const before = this.#forwards;
    this.#forwards = possible;
    try {
      await run("nft", ["-f", "-"], `${forwardElements(this.#table, possible).join("\n")}\n`);
    } catch (error) {
      this.#forwards = before;
      throw error;
    }
    return wanted.filter(isTaken).map((forward) => ({ forward, reason: bindReason(EADDRINUSE) }));
  }

  async #forgetPeers(marks: readonly number[]): Promise<void> {
    if (marks.length === 0) return;
    // All elements: an element has an address and no owner; remaining clients open theirs again with the next packet.
    const flush = OPENED_MAPS.map((map) => `flush map inet ${this.#table} ${map}\n`).join("");
    if (this.hasOpenNat) {
      await run("nft", ["-f", "-"], flush).catch((error: Error) => this.#o.log("warning", error.message));
    }
    for (const mark of marks) this.#forget(mark, 0xffffffff);
  }

  /** Ends connections with these marks at once; where the kernel refuses, they end when they are idle. */
  #forget(mark: number, mask: number): void {
    try {
      forgetMarked(mark, mask);
    } catch (error) {
      this.#o.log(
        "warning",
        `connections of removed clients stay until they are idle: ${(error as Error).message}`,
      );
    }
  }

  /** The rules with all parts that this kernel supports; missing ones are logged. Throws when the kernel takes none. */
  async #applyWhatWorks(): Promise<void> {
    try {
      await run("nft", ["-f", "-"], this.#rulesAnew());
      return;
    } catch (error) {
      const works = new Set<Feature>();
      for (const feature of FEATURES) {
        this.#features = new Set([feature]);
        const checked = run("nft", ["-c", "-f", "-"], this.#rules());
        if (await checked.then(() => true, () => false)) works.add(feature);
      }
      this.#features = works;
      await run("nft", ["-f", "-"], this.#rulesAnew());
      const missing = FEATURES.filter((feature) => !works.has(feature)).join(", ");
      this.#o.log("warning", `nftables here has no ${missing}: ${(error as Error).message}`);
    }
  }

  /**
   * The relay's port if its datagrams, which any host may send, need not be tracked; undefined where rules of others, as they are
   * at start, may need tracking. The fallback's TCP stays tracked: firewalls accept answers by their state.
   */
  async #untrackedPort(): Promise<number | undefined> {
    const { listenPort } = this.#o;
    if (listenPort === undefined) return undefined;
    const rules = await run("nft", ["-t", "list", "ruleset"]).catch(() => "");
    const needs = trackingNeed(rules, listenPort, RECORD);
    if (needs === undefined) return listenPort;
    this.#o.log(
      "info",
      `conntrack keeps track of UDP ${listenPort}, since a rule of this host needs it: ${needs}`,
    );
    return undefined;
  }

  /** The present values of these settings, and of those that the two switches change too (Linux, inet_forward_change). */
  async #valuesBefore(changed: string[]): Promise<Settings> {
    const names = ["default", ...(await devices()).filter((name) => name !== this.#o.name)];
    const paths = [...changed];
    if (changed.includes(IPV4_SWITCH)) {
      paths.push("net/ipv4/conf/all/accept_redirects", "net/ipv4/conf/default/accept_redirects");
      paths.push(...names.map((name) => `net/ipv4/conf/${name}/forwarding`));
    }
    if (changed.includes(IPV6_SWITCH)) paths.push(...names.map((name) => `net/ipv6/conf/${name}/forwarding`));
    const values: Settings = {};
    for (const path of paths) {
      const value = readSysctl(path);
      if (value !== undefined) values[path] = value;
    }
    return values;
  }

  /** Restores the recorded settings, unless another relay still needs forwarding. */
  async #restoreSettings(): Promise<"unchanged" | "needed" | "restored"> {
    const settings = await recorded();
    if (Object.keys(settings).length === 0) return "unchanged";
    const tables = await run("nft", ["list", "tables", "inet"]).catch(() => "");
    // A killed relay leaves its table, but no device.
    const rivals = (await devices()).filter((name) =>
      name !== this.#o.name && tables.includes(`table inet ${RECORD}_${name}\n`)
    );
    if (rivals.length > 0) return "needed";
    // The two switches first, because they change the others.
    for (const path of new Set([IPV4_SWITCH, IPV6_SWITCH, ...Object.keys(settings)])) {
      if (path in settings) writeSysctl(path, settings[path]);
    }
    await deleteTable(RECORD);
    return "restored";
  }

  /** The same for tables that may be absent: another program may have flushed or changed them. */
  #rulesAnew(): string {
    return `table inet ${this.#table}\ndelete table inet ${this.#table}\n${this.#rules()}`;
  }

  /** One transaction. */
  #rules(): string {
    return [
      recordTable(this.#before),
      tableRules(this.#rulesOptions()),
      ...this.#peers.all(this.#table),
      ...(this.#features.has("forwards") ? forwardElements(this.#table, this.#forwards) : []),
      "",
    ].join("\n");
  }

  #rulesOptions(): RulesOptions {
    const { name, ipv4, ipv6, host, ownPorts } = this.#o;
    const [low, high] = (readSysctl(EPHEMERAL) ?? "32768 60999").split(/\s+/).map(Number);
    const tracked = Number(readSysctl(CONNTRACK_MAX) ?? 0);
    const v6 = this.#hasIpv6 ? ipv6 : undefined;
    return {
      table: this.#table,
      device: name,
      v4: `${ipv4.address}/${ipv4.prefix}`,
      own4: ipv4.address,
      v6: v6 && `${v6.address}/${v6.prefix}`,
      own6: v6?.address,
      host,
      tag: this.#tag,
      ports: natPorts(ownPorts, low, high),
      untracked: this.#untracked,
      flowsMax: Math.min(FLOWS_MAX, Math.max(FLOWS_MIN, Math.floor(tracked / PEER_SHARE))),
      features: this.#features,
    };
  }
}

/**
 * The record: a chain without traffic, each rule with one setting as a comment, and the chain that bounds forwarding; empty
 * when nothing was changed.
 */
function recordTable(settings: Settings): string {
  const rules = Object.entries(settings).map(([path, value]) => `    continue comment "${path}=${value}"\n`);
  if (rules.length === 0) return "";
  const switchedOn = ([4, 6] as const).filter((family) =>
    settings[family === 4 ? IPV4_SWITCH : IPV6_SWITCH] === "0"
  );
  return `table inet ${RECORD}
delete table inet ${RECORD}
table inet ${RECORD} {
  chain before {
${rules.join("")}  }
${neighbourRules(switchedOn)}}
`;
}

async function recorded(): Promise<Settings> {
  const listed = await run("nft", ["list", "table", "inet", RECORD]).catch(() => "");
  return Object.fromEntries(
    [...listed.matchAll(/comment "([^"=]+)=([^"]*)"/g)].map(([, path, value]) => [path, value]),
  );
}

async function deleteTable(name: string): Promise<void> {
  await run("nft", ["delete", "table", "inet", name]).catch(() => {});
}

/** Names of all network devices, also of those without an address. */
async function devices(): Promise<string[]> {
  const links = JSON.parse(await run("ip", ["-j", "link", "show"])) as { ifname: string }[];
  return links.map(({ ifname }) => ifname);
}

/** Throws when the device's route would cover a network of this host, or the route to its default router. */
async function refuseOverlap(own: string, { address, prefix }: InnerAddress, key: string): Promise<void> {
  const tunnel = parsePrefix(`${address}/${prefix}`)!;
  const refuse = (what: string) => {
    throw new Error(`${address}/${prefix} ${what}, which would be cut off; set ${key} to another network`);
  };
  for (const { name, cidr } of Deno.networkInterfaces()) {
    const network = name === own ? undefined : parsePrefix(cidr ?? "");
    if (network && prefixesOverlap(tunnel, network)) refuse(`overlaps ${cidr} of ${name}`);
  }
  const family = address.includes(":") ? "-6" : "-4";
  const routes = await run("ip", [family, "route", "show", "default", "table", "all"]);
  for (const [, router, name] of routes.matchAll(/ via (?:inet6 )?(\S+) dev (\S+)/g)) {
    const network = parsePrefix(router);
    if (network && prefixesOverlap(tunnel, network)) refuse(`contains ${router}, the router of ${name}`);
  }
}

/** Chains of others with policy drop; an accept in the relay's own table does not override them. */
async function foreignForwardDrops(): Promise<{ family: string; table: string; chain: string }[]> {
  const listed = await run("nft", ["-j", "list", "chains"]).catch(() => "{}");
  const { nftables = [] } = JSON.parse(listed) as { nftables?: { chain?: Record<string, unknown> }[] };
  return nftables.flatMap(({ chain }) =>
    chain?.hook === "forward" && chain.policy === "drop"
      ? [{ family: String(chain.family), table: String(chain.table), chain: String(chain.name) }]
      : []
  );
}

export async function defaultIpv6Devices(): Promise<string[]> {
  const routes = await run("ip", ["-6", "route", "show", "default", "proto", "ra"]).catch(() => "");
  return [...new Set([...routes.matchAll(/ dev (\S+)/g)].map(([, device]) => device))];
}

// Deno opens /proc only with --allow-all, so these use the C library.
export function readSysctl(path: string): string | undefined {
  const fd = libc().open(cString(`/proc/sys/${path}`), O_CLOEXEC);
  if (fd < 0) return undefined;
  const buffer = new Uint8Array(64);
  const length = Number(libc().read(fd, buffer, 64n));
  libc().close(fd);
  return length > 0 ? new TextDecoder().decode(buffer.subarray(0, length)).trim() : undefined;
}

export function writeSysctl(path: string, value: string): boolean {
  if (!/^net\/ipv[46]\/[A-Za-z0-9_./-]+$/.test(path) || path.includes("..")) return false;
  const fd = libc().open(cString(`/proc/sys/${path}`), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const bytes = new TextEncoder().encode(value);
  const written = Number(libc().write(fd, bytes, BigInt(bytes.length)));
  libc().close(fd);
  return written === bytes.length;
}
