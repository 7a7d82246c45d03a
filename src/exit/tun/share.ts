/**
 * A gateway's changes to its host: the LAN interface's address, forwarding, one nftables table (share_rules.ts), the ports of the LAN's
 * hosts. Invariant: the table holds the record of what is to be undone, so that the next start, or `connect --restore`, undoes what
 * a killed gateway left; interfaces and rules of others stay as they were. Moves no packet.
 */
import { libc } from "../../../ffi/mod.ts";
import { run } from "../child.ts";
import { bindReason, EADDRINUSE, isV6, placeOf, type PortForward, type RefusedForward } from "../forward.ts";
import { CLIENT_DEVICE } from "./client_rules.ts";
import { defaultIpv6Devices, readSysctl, writeSysctl } from "./host.ts";
import { listeners, readThrough } from "./listening.ts";
import { forwardElements } from "./rules.ts";
import { type DeviceClass, SHARE_TABLE, shareRules } from "./share_rules.ts";

export interface ShareHostOptions {
  /** The LAN's interface: "eth1". */
  device: string;
  /** This host's address in the LAN with its prefix length, "192.168.77.1/24"; taken where the interface has no IPv4 address. */
  ipv4: string;
  /** The same of IPv6; absent where the tunnel has none. */
  ipv6?: string;
  classes: readonly DeviceClass[];
  log: (message: string) => void;
}

const SIGKILL = 9;
const IPV4_SWITCH = "net/ipv4/ip_forward", IPV6_SWITCH = "net/ipv6/conf/all/forwarding";

interface Link {
  ifname: string;
  addr_info?: { family: string; local: string; prefixlen: number; scope: string }[];
}

export class ShareHost {
  readonly #o: ShareHostOptions;
  #record: string[] = [];
  #forwards: readonly PortForward[] = [];
  #isRouterOfLan = false;
  #upnpPort: number | undefined;
  /** This host's addresses in the LAN with prefix lengths. */
  ipv4 = "";
  ipv6: string | undefined;

  private constructor(options: ShareHostOptions) {
    this.#o = options;
  }

  /** Makes this host the LAN's gateway. Undoes what a killed gateway left first. Throws a sentence, with everything undone. */
  static async open(options: ShareHostOptions): Promise<ShareHost> {
    await undoShare();
    const host = new ShareHost(options);
    try {
      await host.#configure();
    } catch (error) {
      await host.close();
      throw error;
    }
    return host;
  }

  async #configure(): Promise<void> {
    const { device, ipv4, ipv6 } = this.#o;
    const links = await readLinks();
    const link = links.find(({ ifname }) => ifname === device);
    if (link === undefined) {
      const others = links.map(({ ifname }) => ifname).filter((name) =>
        name !== "lo" && name !== CLIENT_DEVICE
      );
      throw new Error(`--share ${device}: there is no such interface; there are ${others.join(", ")}`);
    }
    await refuseWayOut(device);
    const own = addressOf(link);
    this.ipv4 = own ?? ipv4;
    this.#record.push(`programs of ${device}`);
    if (!own) this.#record.push(`address ${ipv4} ${device}`);
    if (ipv6 !== undefined) this.#record.push(`address ${ipv6} ${device}`);
    const settings: Record<string, string> = { [IPV4_SWITCH]: "1" };
    if (ipv6 !== undefined) {
      // A host whose default route came by router advertisement loses that when it forwards, unless accept_ra is 2.
      for (const name of await defaultIpv6Devices()) settings[`net/ipv6/conf/${name}/accept_ra`] = "2";
      settings[IPV6_SWITCH] = "1";
    }
    for (const [path, value] of Object.entries(settings)) {
      const before = readSysctl(path);
      if (before !== undefined && before !== value) this.#record.push(`sysctl ${path}=${before}`);
    }
    this.#isRouterOfLan = this.#record.includes(`sysctl ${IPV4_SWITCH}=0`);
    // Rules and record first: nothing is forwarded without them, and no crash loses the record.
    await this.#apply();
    await run("ip", ["link", "set", "dev", device, "up"]);
    if (!own) await run("ip", ["addr", "add", ipv4, "dev", device]);
    if (ipv6 !== undefined) {
      try {
        await run("ip", ["-6", "addr", "add", ipv6, "dev", device, "nodad"]);
        this.ipv6 = ipv6;
      } catch (error) {
        this.#o.log(`IPv6 stays off in the LAN: ${(error as Error).message}`);
      }
    }
    for (const [path, value] of Object.entries(settings)) {
      if (!writeSysctl(path, value) && path === IPV4_SWITCH) {
        throw new Error(`/proc/sys/${path} cannot be set to ${value}`);
      }
    }
  }

  async #apply(): Promise<void> {
    const { device, classes } = this.#o;
    const { ipv4 } = this, upnpPort = this.#upnpPort, isRouterOfLan = this.#isRouterOfLan;
    const rules = shareRules({ device, ipv4, upnpPort, classes, isRouterOfLan }, this.#record);
    const elements = forwardElements(SHARE_TABLE, this.#forwards);
    await run("nft", ["-f", "-"], `table inet ${SHARE_TABLE}\n${rules}${elements.join("\n")}\n`);
  }

  /**
   * Leads strangers by these ports of this host's tunnel addresses to hosts of the LAN, and by no others; returns those that it
   * refused: a port at which a program of this host listens when a host of the LAN asks for it is not opened.
   */
  async setForwards<F extends PortForward>(wanted: readonly F[]): Promise<RefusedForward<F>[]> {
    const isListening = listeners(), open = new Set(this.#forwards.map(placeOf));
    const isTaken = (forward: F) => !open.has(placeOf(forward)) && isListening(forward);
    const possible = wanted.filter((forward) =>
      !isTaken(forward) && (!isV6(forward.address) || this.ipv6 !== undefined)
    );
    await run("nft", ["-f", "-"], `${forwardElements(SHARE_TABLE, possible).join("\n")}\n`);
    this.#forwards = possible;
    return wanted.filter(isTaken).map((forward) => ({ forward, reason: bindReason(EADDRINUSE) }));
  }

  /** Shuts the TCP port of UPnP's service to all but the LAN. */
  async protect(upnpPort: number): Promise<void> {
    this.#upnpPort = upnpPort;
    await this.#apply();
  }

  /** Restores the rules after another program has flushed them. */
  async guard(): Promise<void> {
    const listed = await run("nft", ["-t", "list", "table", "inet", SHARE_TABLE]).catch(() => undefined);
    if (listed !== undefined) return;
    await this.#apply();
    this.#o.log(`the rules of ${this.#o.device} were gone (nft flush ruleset?) and have been put back`);
  }

  async close(): Promise<void> {
    await undoShare();
  }
}

const readLinks = async () => JSON.parse(await run("ip", ["-j", "addr", "show"])) as Link[];

/** An interface's first IPv4 address that is none of `ours`, with its prefix length. */
export function addressOf(link: Link | undefined, ours: readonly string[] = []): string | undefined {
  return link?.addr_info?.filter(({ family, scope }) => family === "inet" && scope === "global")
    .map(({ local, prefixlen }) => `${local}/${prefixlen}`).find((address) => !ours.includes(address));
}

const readRecord = () => run("nft", ["list", "chain", "inet", SHARE_TABLE, "record"]).catch(() => "");
const ADDRESSES = /comment "address (\S+) ([^"]+)"/g;

/** The IPv4 address that an interface has by itself, with its prefix length: none that a killed gateway gave it. */
export async function lanAddress(device: string): Promise<string | undefined> {
  const ours = [...(await readRecord()).matchAll(ADDRESSES)].map(([, address]) => address);
  return addressOf((await readLinks()).find(({ ifname }) => ifname === device), ours);
}

/** Undoes what a gateway has changed, by the record in its table. */
export async function undoShare(): Promise<void> {
  const listed = await readRecord();
  for (const [, path, value] of listed.matchAll(/comment "sysctl ([^"=]+)=([^"]*)"/g)) {
    writeSysctl(path, value);
  }
  for (const [, address, device] of listed.matchAll(ADDRESSES)) {
    await run("ip", ["addr", "del", address, "dev", device]).catch(() => {}); // it is gone
  }
  for (const [, device] of listed.matchAll(/comment "programs of ([^"]+)"/g)) endLeftover(device);
  if (listed !== "") await run("nft", ["delete", "table", "inet", SHARE_TABLE]).catch(() => {});
}

/** Where a program that serves the LAN of an interface notes its number. */
export const pidFile = (device: string) => `/run/oxconnect-${device}.pid`;

/** Ends the program that a killed gateway left; no other that has its number now. */
function endLeftover(device: string): void {
  const pid = Number(readThrough(pidFile(device))?.trim() || NaN);
  if (!(pid > 1)) return;
  if (readThrough(`/proc/${pid}/cmdline`)?.includes(`--pid-file=${pidFile(device)}`)) {
    libc().kill(pid, SIGKILL);
  }
}

/** Throws when the internet, and so the relay, is reached by this interface. */
async function refuseWayOut(device: string): Promise<void> {
  for (const family of ["-4", "-6"]) {
    const routes = await run("ip", [family, "route", "show", "default"]).catch(() => "");
    if (new RegExp(` dev ${device.replace(/[.+]/g, "\\$&")}( |$)`, "m").test(routes)) {
      throw new Error(
        `--share ${device}: this machine reaches the internet by it; name the interface of the LAN, or of an access point`,
      );
    }
  }
}
