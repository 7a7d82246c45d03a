/**
 * What a TUN exit does to its host: addresses, one nftables table, forwarding. Invariant: everything bears the
 * device's name and is undone at close, or at the next start after a crash; rules and settings of others are left as
 * they were. Moves no packet.
 */
import { cString, libc, O_CLOEXEC, O_WRONLY } from "../../ffi/mod.ts";
import type { Native } from "../../ffi/native.ts";
import type { Metrics } from "../metrics.ts";
import { parsePrefix } from "../wire/address.ts";

export interface InnerAddress {
  address: string;
  /** Prefix length. */
  prefix: number;
}

export interface TunOptions {
  /** Device name, up to 15 characters. */
  name: string;
  ipv4: InnerAddress;
  ipv6?: InnerAddress;
  mtu: number;
  /** Whether the policy lets some packets through to the host itself; see `Exit.openHost`. */
  hostOpen: boolean;
  /** Where the crash record is kept. */
  stateDir: string;
  /** What moves packets in bulk, with the kernel's offloads, or the reason to move them one by one. */
  native: Native | string;
  metrics: Metrics;
  log: (level: "debug" | "info" | "warning" | "error", message: string) => void;
}

/** What was changed on the host, so that a start after a crash can put it back. */
interface CrashRecord {
  /** Path under /proc/sys to the value that it had. */
  sysctls: Record<string, string>;
}

/** The host's side: addresses, rules, settings. */
export class TunHost {
  readonly #o: TunOptions;
  readonly #table: string;
  readonly #record: string;
  #hasIpv6 = false;

  constructor(options: TunOptions) {
    this.#o = { ...options };
    this.#table = `oxrelay_${options.name.replaceAll("-", "_")}`;
    this.#record = `${options.stateDir}/tun-${options.name}.json`;
  }

  /** Puts back what a relay that was killed had changed. */
  async restoreAfterCrash(): Promise<void> {
    await run("nft", ["delete", "table", "inet", this.#table]).catch(() => {});
    let text: string;
    try {
      text = await Deno.readTextFile(this.#record);
    } catch {
      return;
    }
    try {
      const { sysctls } = JSON.parse(text) as CrashRecord;
      restoreSysctls(sysctls);
      this.#o.log("info", "put back the forwarding settings that a crash had left changed");
    } catch {
      this.#o.log("warning", `${this.#record} is damaged and was ignored; check net.ipv4.ip_forward by hand`);
    }
    await Deno.remove(this.#record).catch(() => {});
  }

  async configure(): Promise<void> {
    const { name, ipv4, ipv6, mtu } = this.#o;
    refuseOverlap(name, ipv4, "tunnel_ipv4");
    if (ipv6) refuseOverlap(name, ipv6, "tunnel_ipv6");
    await run("ip", ["link", "set", "dev", name, "mtu", String(mtu), "up"]);
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
    // The rules come first, so that nothing is forwarded unguarded.
    await run("nft", ["-f", "-"], this.#rules(hasIpv6));
    const wanted: Record<string, string> = { "net/ipv4/ip_forward": "1" };
    if (hasIpv6) {
      // A host that learns its default route by router advertisements forgets it the moment it starts to forward,
      // unless it was told before to listen on.
      for (const device of await defaultIpv6Devices()) wanted[`net/ipv6/conf/${device}/accept_ra`] = "2";
      wanted["net/ipv6/conf/all/forwarding"] = "1";
    }
    await this.#setSysctls(wanted);
    this.#setDeviceOptions(hasIpv6);
    for (const { family, table, chain } of await foreignForwardDrops()) {
      this.#o.log(
        "warning",
        `another firewall drops what is forwarded (chain ${family} ${table} ${chain}, policy drop): clients reach ` +
          `nothing until it lets ${name} pass: nft insert rule ${family} ${table} ${chain} iifname ${name} accept; ` +
          `nft insert rule ${family} ${table} ${chain} oifname ${name} ct state established,related accept`,
      );
    }
  }

  /** Lets packets from inside reach the host, or none but pings to the tunnel address. One transaction. */
  async openHost(open: boolean): Promise<void> {
    const before = this.#o.hostOpen;
    if (open === before) return;
    this.#o.hostOpen = open;
    const chain = `inet ${this.#table} input`;
    const rules = this.#inputRules(this.#hasIpv6).map((rule) => `add rule ${chain} ${rule}`);
    try {
      await run("nft", ["-f", "-"], [`flush chain ${chain}`, ...rules, ""].join("\n"));
    } catch (error) {
      this.#o.hostOpen = before;
      throw error;
    }
    this.#setDeviceOptions(this.#hasIpv6);
  }

  /** Settings of the device, which go with it. */
  #setDeviceOptions(hasIpv6: boolean): void {
    const { name, hostOpen } = this.#o;
    // Without this 127.0.0.0/8 stays closed to every device but lo.
    writeSysctl(`net/ipv4/conf/${name}/route_localnet`, hostOpen ? "1" : "0");
    // A device that was taken down and up again would have lost its address.
    if (hasIpv6) writeSysctl(`net/ipv6/conf/${name}/keep_addr_on_down`, "1");
  }

  /** Puts the rules back when somebody has flushed them, as a firewall that loads its own ruleset may. */
  async guard(): Promise<void> {
    const listed = await run("nft", ["list", "table", "inet", this.#table]).catch(() => undefined);
    if (listed !== undefined) return;
    await run("nft", ["-f", "-"], this.#rules(this.#hasIpv6));
    this.#o.log(
      "warning",
      `the rules of ${this.#o.name} were gone (nft flush ruleset?) and have been put back`,
    );
  }

  /** Restores settings and removes rules; the device goes with its descriptor. */
  async undo(): Promise<void> {
    // The rules go last, as they came first.
    await this.#restoreSysctls();
    await run("nft", ["delete", "table", "inet", this.#table]).catch(() => {});
  }

  async #setSysctls(wanted: Record<string, string>): Promise<void> {
    const before: Record<string, string> = {};
    for (const [path, value] of Object.entries(wanted)) {
      const now = readSysctl(path);
      if (now !== undefined && now !== value) before[path] = now;
    }
    const paths = Object.keys(before);
    if (paths.length === 0) return;
    // The two switches change these as well, on every interface, and back to what nobody had set.
    const touched: Record<string, string> = {};
    for (const path of sideEffects(this.#o.name)) {
      const now = readSysctl(path);
      if (now !== undefined) touched[path] = now;
    }
    // On the disk before the change, so that no crash can lose the old values.
    await Deno.mkdir(this.#o.stateDir, { recursive: true, mode: 0o700 });
    const file = await Deno.open(this.#record, { write: true, create: true, truncate: true, mode: 0o600 });
    await file.write(
      new TextEncoder().encode(JSON.stringify({ sysctls: { ...touched, ...before } } satisfies CrashRecord)),
    );
    await file.sync();
    file.close();
    for (const path of paths) {
      if (!writeSysctl(path, wanted[path])) {
        throw new Error(`/proc/sys/${path} cannot be set to ${wanted[path]}`);
      }
    }
  }

  async #restoreSysctls(): Promise<void> {
    if (await this.#isRivalForwarding()) {
      this.#o.log("info", "forwarding stays on: another relay on this host needs it");
      return;
    }
    try {
      const { sysctls } = JSON.parse(await Deno.readTextFile(this.#record)) as CrashRecord;
      restoreSysctls(sysctls);
      await Deno.remove(this.#record);
    } catch {
      // No record: nothing was changed.
    }
  }

  async #isRivalForwarding(): Promise<boolean> {
    const tables = await run("nft", ["list", "tables", "inet"]).catch(() => "");
    return [...tables.matchAll(/^table inet (oxrelay_\S+)$/gm)].some(([, table]) => table !== this.#table);
  }

  /** Clients ping the relay and reach nothing else on it, unless the policy, which has judged before, opens more. */
  #inputRules(hasIpv6: boolean): string[] {
    const { name, ipv4, ipv6, hostOpen } = this.#o;
    if (hostOpen) return [`iifname "${name}" accept`];
    return [
      `iifname "${name}" ip daddr ${ipv4.address} icmp type echo-request accept`,
      ...(hasIpv6 ? [`iifname "${name}" ip6 daddr ${ipv6!.address} icmpv6 type echo-request accept`] : []),
      `iifname "${name}" ct state established,related accept`,
      `iifname "${name}" drop`,
    ];
  }

  /** One transaction. */
  #rules(hasIpv6: boolean): string {
    const { name, ipv4, ipv6 } = this.#o;
    const v4 = `${ipv4.address}/${ipv4.prefix}`;
    const v6 = hasIpv6 && ipv6 ? `${ipv6.address}/${ipv6.prefix}` : undefined;
    return `table inet ${this.#table} {
  chain input {
    type filter hook input priority filter; policy accept;
    ${this.#inputRules(hasIpv6).join("\n    ")}
  }
  chain forward {
    type filter hook forward priority filter; policy accept;
    iifname "${name}" ip saddr != ${v4} drop
    ${v6 ? `iifname "${name}" ip6 saddr != ${v6} drop` : `iifname "${name}" meta nfproto ipv6 drop`}
    iifname "${name}" oifname "${name}" accept
    iifname "${name}" ip saddr ${v4} tcp flags syn / syn,rst tcp option maxseg size set rt mtu
    oifname "${name}" ip daddr ${v4} tcp flags syn / syn,rst tcp option maxseg size set rt mtu
    ${v6 ? `iifname "${name}" ip6 saddr ${v6} tcp flags syn / syn,rst tcp option maxseg size set rt mtu` : ""}
    ${v6 ? `oifname "${name}" ip6 daddr ${v6} tcp flags syn / syn,rst tcp option maxseg size set rt mtu` : ""}
    oifname "${name}" ct state new drop
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr ${v4} oifname != "${name}" masquerade
    ${v6 ? `ip6 saddr ${v6} oifname != "${name}" masquerade` : ""}
  }
}
`;
  }
}

/** What writing ip_forward and all.forwarding changes besides (Linux, ip-sysctl), but for our own device. */
function sideEffects(own: string): string[] {
  const names = new Set(Deno.networkInterfaces().map(({ name }) => name).filter((name) => name !== own));
  return [
    "net/ipv4/conf/all/accept_redirects",
    "net/ipv4/conf/default/accept_redirects",
    ...["default", ...names].flatMap((name) => [
      `net/ipv4/conf/${name}/forwarding`,
      `net/ipv6/conf/${name}/forwarding`,
    ]),
  ];
}

/** Throws when a network of this host and the tunnel's share addresses: the device's route would take them all. */
function refuseOverlap(own: string, { address, prefix }: InnerAddress, key: string): void {
  const tunnel = parsePrefix(`${address}/${prefix}`);
  for (const { name, cidr } of Deno.networkInterfaces()) {
    const network = name === own ? undefined : parsePrefix(cidr ?? "");
    if (!tunnel || !network) continue;
    const bits = Math.min(tunnel.bits, network.bits);
    const shares = tunnel.address.every((word, i) => {
      const kept = Math.max(0, Math.min(32, bits - 32 * i));
      return kept === 0 || ((word ^ network.address[i]) >>> (32 - kept)) === 0;
    });
    if (shares) {
      throw new Error(
        `${address}/${prefix} overlaps ${cidr} of ${name}, which would be cut off; set ${key} to another network`,
      );
    }
  }
}

/** Runs a program and returns what it printed; throws its own words when it fails. */
export async function run(program: string, args: string[], input?: string): Promise<string> {
  const child = new Deno.Command(program, {
    args,
    stdin: input === undefined ? "null" : "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  if (input !== undefined) {
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode(input));
    await writer.close();
  }
  const { success, stdout, stderr } = await child.output();
  const text = new TextDecoder();
  if (success) return text.decode(stdout);
  throw new Error(`${program} ${args.join(" ")}: ${text.decode(stderr).trim().split("\n")[0]}`);
}

/** Chains of others that drop what no rule of theirs accepts; an accept in our own table cannot overrule them. */
async function foreignForwardDrops(): Promise<{ family: string; table: string; chain: string }[]> {
  const listed = await run("nft", ["-j", "list", "chains"]).catch(() => "{}");
  const { nftables = [] } = JSON.parse(listed) as { nftables?: { chain?: Record<string, unknown> }[] };
  return nftables.flatMap(({ chain }) =>
    chain?.hook === "forward" && chain.policy === "drop"
      ? [{ family: String(chain.family), table: String(chain.table), chain: String(chain.name) }]
      : []
  );
}

async function defaultIpv6Devices(): Promise<string[]> {
  const routes = await run("ip", ["-6", "route", "show", "default", "proto", "ra"]).catch(() => "");
  return [...new Set([...routes.matchAll(/ dev (\S+)/g)].map(([, device]) => device))];
}

// Deno refuses /proc to everything but --allow-all, so these go through the C library.
function readSysctl(path: string): string | undefined {
  const fd = libc().open(cString(`/proc/sys/${path}`), O_CLOEXEC);
  if (fd < 0) return undefined;
  const buffer = new Uint8Array(64);
  const length = Number(libc().read(fd, buffer, 64n));
  libc().close(fd);
  return length > 0 ? new TextDecoder().decode(buffer.subarray(0, length)).trim() : undefined;
}

/** Last set, first restored. */
function restoreSysctls(values: Record<string, string>): void {
  for (const [path, value] of Object.entries(values).reverse()) writeSysctl(path, value);
}

function writeSysctl(path: string, value: string): boolean {
  if (!/^net\/ipv[46]\/[A-Za-z0-9_./-]+$/.test(path) || path.includes("..")) return false;
  const fd = libc().open(cString(`/proc/sys/${path}`), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const bytes = new TextEncoder().encode(value);
  const written = Number(libc().write(fd, bytes, BigInt(bytes.length)));
  libc().close(fd);
  return written === bytes.length;
}
