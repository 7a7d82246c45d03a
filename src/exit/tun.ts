/**
 * The TUN exit: the kernel routes and masquerades inner packets through a device of the relay's own. Invariant:
 * everything that it makes bears its device's name and is removed at close, or at the next start after a crash;
 * rules, routes and settings that it did not make are left as they were. Needs CAP_NET_ADMIN, `ip` and `nft`.
 */
import {
  cString,
  libc,
  O_CLOEXEC,
  O_NONBLOCK,
  O_RDWR,
  O_WRONLY,
  POLLERR,
  POLLHUP,
  POLLIN,
  POLLNVAL,
} from "../../ffi/mod.ts";
import { DROP, type Metrics } from "../metrics.ts";
import { type Arena, MAX_PACKET_BYTES, NONE, packetStart } from "../vector/arena.ts";
import { type Burst, BURST_CAPACITY, DONE, TO_EXIT, TO_TUNNEL } from "../vector/burst.ts";
import type { Exit } from "./exit.ts";

// linux/if_tun.h
const TUNSETIFF = 0x400454can;
const IFF_TUN = 1;
const IFF_NO_PI = 0x1000;
const IFREQ_BYTES = 40;
const SIOCGIFFLAGS = 0x8913n;
const IFF_UP = 1;
const AF_INET = 2;
const SOCK_DGRAM_CLOEXEC = 2 | O_CLOEXEC;
const POLL_MS = 200;
const MAX_PACKET = BigInt(MAX_PACKET_BYTES);

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
  metrics: Metrics;
  log: (level: "debug" | "info" | "warning" | "error", message: string) => void;
}

/** What was changed on the host, so that a start after a crash can put it back. */
interface CrashRecord {
  /** Path under /proc/sys to the value that it had. */
  sysctls: Record<string, string>;
}

/** Why a TUN exit cannot be used here, found out by trying; undefined when it can. */
export async function tunUnavailable(): Promise<string | undefined> {
  for (const [program, pack] of [["ip", "iproute2"], ["nft", "nftables"]]) {
    try {
      const { success } = await new Deno.Command(program, { args: ["-V"], stdout: "null", stderr: "null" })
        .output();
      if (!success) return `the program ${program} does not run`;
    } catch {
      return `the program ${program} is missing or not allowed (apt-get install ${pack})`;
    }
  }
  try {
    const fd = libc().open(cString("/dev/net/tun"), O_RDWR | O_CLOEXEC);
    if (fd < 0) return "/dev/net/tun is missing or closed to this user";
    // A name of the kernel's choice; the device is gone with the descriptor.
    const made = libc().ioctl(fd, TUNSETIFF, interfaceRequest("oxprobe%d"));
    libc().close(fd);
    if (made < 0) return "it needs root or CAP_NET_ADMIN";
  } catch (error) {
    return (error as Error).message;
  }
  const listed = await run("nft", ["list", "tables"]).catch((error: Error) => error);
  return listed instanceof Error ? `nftables does not answer (${listed.message})` : undefined;
}

/** Makes the device, its addresses, rules and forwarding. Throws a sentence, with everything undone, on failure. */
export async function openTun(options: TunOptions): Promise<Exit> {
  const host = new TunHost(options);
  const fd = libc().open(cString("/dev/net/tun"), O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) throw new Error("/dev/net/tun cannot be opened");
  if (libc().ioctl(fd, TUNSETIFF, interfaceRequest(options.name)) < 0) {
    libc().close(fd);
    throw new Error(
      `the device ${options.name} cannot be made; if another relay or program has it, set tun_name`,
    );
  }
  try {
    // Only now: while another relay holds the device, its rules and settings are in use, not left behind.
    await host.restoreAfterCrash();
    await host.configure();
  } catch (error) {
    libc().close(fd);
    await host.undo();
    throw error;
  }
  return new TunExit(fd, options, host);
}

/** The host's side: addresses, rules, settings. */
class TunHost {
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
    if (open === this.#o.hostOpen) return;
    this.#o.hostOpen = open;
    const chain = `inet ${this.#table} input`;
    const rules = this.#inputRules(this.#hasIpv6).map((rule) => `add rule ${chain} ${rule}`);
    await run("nft", ["-f", "-"], [`flush chain ${chain}`, ...rules, ""].join("\n"));
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
    // On the disk before the change, so that no crash can lose the old values.
    await Deno.mkdir(this.#o.stateDir, { recursive: true, mode: 0o700 });
    const file = await Deno.open(this.#record, { write: true, create: true, truncate: true, mode: 0o600 });
    await file.write(new TextEncoder().encode(JSON.stringify({ sysctls: before } satisfies CrashRecord)));
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

class TunExit implements Exit {
  readonly name = "tun";
  readonly description: string;
  readonly flowCount = 0;
  readonly descriptor: number;
  readonly #o: TunOptions;
  readonly #host: TunHost;
  /** Any socket: what interfaces are asked about through. */
  readonly #control: number;
  #wake: () => void = () => {};
  #fault: string | undefined;
  #closed = false;
  #watching: Promise<void> | undefined;
  #arena: Arena | undefined;
  #views: Uint8Array<ArrayBuffer>[] = [];
  #blocked = true;
  #resume: () => void = () => {};

  constructor(fd: number, options: TunOptions, host: TunHost) {
    this.descriptor = fd;
    this.#o = options;
    this.#host = host;
    this.#control = libc().socket(AF_INET, SOCK_DGRAM_CLOEXEC, 0);
    this.description = `tun device ${options.name}, masquerading by nftables`;
  }

  onReadable(wake: () => void): void {
    this.#wake = wake;
    this.#watching ??= this.#watch();
  }

  send(burst: Burst): void {
    const { count, next, slot, offset, length, bytes } = burst;
    const views = this.#slotViews(burst.arena);
    const { write } = libc();
    for (let row = 0; row < count; row++) {
      if (next[row] !== TO_EXIT) continue;
      const at = offset[row];
      const own = views[slot[row]];
      const packet = own.byteOffset === at ? own : bytes.subarray(at, at + length[row]);
      next[row] = Number(write(this.descriptor, packet, BigInt(length[row]))) < 0 ? DROP.exit_error : DONE;
    }
  }

  receive(burst: Burst): number {
    if (this.#closed) return 0;
    const views = this.#slotViews(burst.arena);
    const { read } = libc();
    const before = burst.count;
    while (burst.count < BURST_CAPACITY) {
      const slot = burst.arena.take();
      if (slot === NONE) break;
      const length = Number(read(this.descriptor, views[slot], MAX_PACKET));
      if (length <= 0) {
        burst.arena.release(slot);
        if (this.#blocked) {
          this.#blocked = false;
          this.#resume();
        }
        break;
      }
      burst.push(slot, length, TO_TUNNEL);
    }
    return burst.count - before;
  }

  /** A device that was taken down or deleted shows nowhere else than in its flags: writes merely fail. */
  handleTimeout(): void {
    if (this.#closed) return;
    const request = interfaceRequest(this.#o.name);
    const gone = libc().ioctl(this.#control, SIOCGIFFLAGS, request) < 0;
    const down = !gone && (new DataView(request.buffer).getUint16(16, true) & IFF_UP) === 0;
    this.#fault = gone
      ? `the device ${this.#o.name} is gone; restart the relay`
      : down
      ? `the device ${this.#o.name} is down; ip link set ${this.#o.name} up`
      : undefined;
  }

  fault(): string | undefined {
    return this.#fault;
  }

  openHost(open: boolean): Promise<void> {
    return this.#host.openHost(open);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#resume();
    await this.#watching;
    libc().close(this.descriptor);
    libc().close(this.#control);
    await this.#host.undo();
  }

  /** Waits off the event loop for packets, and wakes the driver; pauses until the driver has read all. */
  async #watch(): Promise<void> {
    const entry = new Uint8Array(8);
    const view = new DataView(entry.buffer);
    while (!this.#closed) {
      view.setInt32(0, this.descriptor, true);
      view.setInt16(4, POLLIN, true);
      view.setInt16(6, 0, true);
      const ready = await libc().poll(entry, 1n, POLL_MS);
      if (this.#closed) return;
      const events = view.getInt16(6, true);
      if (ready > 0 && (events & (POLLERR | POLLHUP | POLLNVAL)) !== 0) {
        await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      } else if (ready > 0) {
        this.#blocked = true;
        const read = new Promise<void>((resolve) => this.#resume = resolve);
        this.#wake();
        if (this.#blocked) await read;
      }
    }
  }

  /** One view per slot, made once. */
  #slotViews(arena: Arena): Uint8Array<ArrayBuffer>[] {
    if (this.#arena !== arena) {
      this.#arena = arena;
      this.#views = Array.from({ length: arena.slotCount }, (_, slot) => {
        const start = packetStart(slot);
        return arena.bytes.subarray(start, start + MAX_PACKET_BYTES);
      });
    }
    return this.#views;
  }
}

function interfaceRequest(name: string): Uint8Array<ArrayBuffer> {
  const request = new Uint8Array(IFREQ_BYTES);
  request.set(new TextEncoder().encode(name).subarray(0, 15));
  new DataView(request.buffer).setUint16(16, IFF_TUN | IFF_NO_PI, true);
  return request;
}

/** Runs a program and returns what it printed; throws its own words when it fails. */
async function run(program: string, args: string[], input?: string): Promise<string> {
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
