/**
 * The interfaces of this host through which the relay can be reached: by the routing tables, as /proc has them, with what kind of
 * link each is. Invariant: reads only, a bounded amount, and an interface that goes away meanwhile reads as absent. Opens no
 * socket and chooses nothing.
 */
import { readThrough } from "../../exit/tun/listening.ts";
import { type Address, isIpv4, parseAddress } from "../../wire/address.ts";

/** An interface that leads to the relay. */
export interface LinkInterface {
  name: string;
  /** The system's number for it: an interface that was removed and made again has another. */
  index: number;
  /** Of its route to the relay; the system takes the least. */
  metric: number;
  isWifi: boolean;
  /** A modem or a tethered phone, by its name. */
  isMetered: boolean;
  /** Made by a program, as another tunnel is. */
  isTunnel: boolean;
}

/** One line of a routing table: a destination by its words, and how many of their 128 bits count. */
export interface Route {
  device: string;
  network: Address;
  bits: number;
  metric: number;
}

/** Modems (wwan0, rmnet_data0, ppp0) and tethered phones (usb0, and what udev makes of it: enx…, bnep0). */
const METERED = /^(wwan|wwp|wwx|rmnet|ccmni|ppp|usb|bnep)/;
/** ARPHRD_NONE of linux/if_arp.h: no link layer, as TUN devices and WireGuard have it. */
const NO_LINK_LAYER = 65534;
/** Flags of linux/route.h: RTF_UP, RTF_REJECT. */
const UP = 1, REJECT = 0x200;
/** Names as Linux takes them, without what would lead out of a directory. */
const NAME = /^(?!\.{1,2}$)[^\s/:]{1,15}$/;
const ROUTES_MAX = 4096;

/** The lines of /proc/net/route, whose words are in the host's order, little-endian here. */
export function readIpv4Routes(text: string): Route[] {
  return text.split("\n").slice(1, ROUTES_MAX).flatMap((line) => {
    const [device, network, , flags, , , metric, mask] = line.trim().split(/\s+/);
    if (mask === undefined || !isTaken(flags)) return [];
    const swapped = (hex: string) => parseInt(hex.match(/../g)!.reverse().join(""), 16) >>> 0;
    const ones = Math.clz32(~swapped(mask));
    return [{
      device,
      network: Uint32Array.of(0, 0, 0xffff, swapped(network)),
      bits: 96 + ones,
      metric: Number(metric),
    }];
  });
}

/** The lines of /proc/net/ipv6_route. */
export function readIpv6Routes(text: string): Route[] {
  return text.split("\n").slice(0, ROUTES_MAX).flatMap((line) => {
    const [network, bits, , , , metric, , , flags, device] = line.trim().split(/\s+/);
    if (device === undefined || !isTaken(flags)) return [];
    const words = network.match(/.{8}/g)!.map((word) => parseInt(word, 16));
    return [{
      device,
      network: Uint32Array.from(words),
      bits: parseInt(bits, 16),
      metric: parseInt(metric, 16),
    }];
  });
}

function isTaken(flags: string): boolean {
  const value = parseInt(flags, 16);
  return (value & UP) !== 0 && (value & REJECT) === 0;
}

/** The interfaces with a route to `relay`, of each its best, in the order in which the system takes them. */
export function leading(routes: readonly Route[], relay: Address): { name: string; metric: number }[] {
  const best = new Map<string, { bits: number; metric: number }>();
  for (const { device, network, bits, metric } of routes) {
    if (!isWithin(relay, network, bits)) continue;
    // An IPv6 default has 0 bits, and IPv4 addresses lie within no IPv6 network.
    if (isIpv4(relay) && bits < 96) continue;
    const known = best.get(device);
    if (known !== undefined && (known.bits > bits || known.bits === bits && known.metric <= metric)) continue;
    best.set(device, { bits, metric });
  }
  return [...best].sort(([, a], [, b]) => b.bits - a.bits || a.metric - b.metric)
    .map(([name, { metric }]) => ({ name, metric }));
}

function isWithin(address: Address, network: Address, bits: number): boolean {
  for (let word = 0; word < 4; word++) {
    const counting = Math.max(0, Math.min(32, bits - 32 * word));
    const mask = counting === 0 ? 0 : -1 << (32 - counting);
    if (((address[word] ^ network[word]) & mask) !== 0) return false;
  }
  return true;
}

/** Those that lead to the relay now but `ownDevice` and loopback, as the system takes them; none where /proc tells nothing. */
export function interfacesTo(relay: string, ownDevice: string): LinkInterface[] {
  const address = parseAddress(relay);
  if (address === undefined || Deno.build.os !== "linux") return [];
  const routes = isIpv4(address)
    ? readIpv4Routes(readThrough("/proc/net/route") ?? "")
    : readIpv6Routes(readThrough("/proc/net/ipv6_route") ?? "");
  return leading(routes, address).filter(({ name }) => NAME.test(name) && name !== ownDevice && name !== "lo")
    .flatMap(({ name, metric }) => {
      const of = (file: string) => readThrough(`/sys/class/net/${name}/${file}`)?.trim();
      const index = Number(of("ifindex"));
      if (!(index > 0) || of("operstate") === "down" || of("carrier") === "0") return [];
      return [{
        name,
        index,
        metric,
        // The directory is there for drivers with wireless extensions; the other says what udev and rfkill know.
        isWifi: of("wireless/status") !== undefined || of("phy80211/index") !== undefined,
        isMetered: METERED.test(name),
        isTunnel: of("type") === String(NO_LINK_LAYER),
      }];
    });
}

/** The addresses of an interface that may leave this host. */
export function addressesOf(name: string): string[] {
  return Deno.networkInterfaces().filter((one) => one.name === name && !one.address.startsWith("fe80:"))
    .map(({ address }) => address);
}

/**
 * Why packets through this interface may not come back, as a sentence with its remedy; undefined where nothing speaks against it.
 * `isNamed` for one that a person named and that leads nowhere.
 */
export function obstacleOf(name: string, isLeading: boolean): string | undefined {
  const rest = `/proc/sys/net/ipv4/conf`;
  if (readThrough(`/sys/class/net/${name}/ifindex`) === undefined) return undefined;
  if (!isLeading) {
    return `${name} has no route to the relay, so no path leads through it; with its gateway: ` +
      `ip route add default via GATEWAY dev ${name} metric 600`;
  }
  const mode = (of: string) => Number(readThrough(`${rest}/${of}/rp_filter`) ?? 0);
  // The larger of the two counts; 1 is strict: what arrives where answers would not leave is dropped.
  if (Math.max(mode("all"), mode(name)) !== 1) return undefined;
  return `rp_filter is strict on ${name}, so Linux may drop what arrives there; loosen it: ` +
    `sysctl -w net.ipv4.conf.${name.replaceAll(".", "/")}.rp_filter=2`;
}

/** The level of each radio's signal, dBm, by /proc/net/wireless; empty where no driver tells. */
export function signalLevels(text = readThrough("/proc/net/wireless") ?? ""): Map<string, number> {
  const levels = new Map<string, number>();
  for (const line of text.split("\n").slice(2)) {
    // " wlan0: 0000   54.  -56.  -256        0      0      0      0     12        0"
    const [, name, level] = /^\s*([^\s:]+):\s+\S+\s+\S+\s+(-?\d+)\.?\s/.exec(line) ?? [];
    if (name !== undefined) levels.set(name, Number(level));
  }
  return levels;
}

/** An interface's name as Linux takes it. */
export function isInterfaceName(text: string): boolean {
  return NAME.test(text);
}

/** For people: "wlan0 (Wi-Fi)". */
export function describeInterface({ name, isWifi, isMetered }: LinkInterface): string {
  return `${name}${isMetered ? " (metered)" : isWifi ? " (Wi-Fi)" : ""}`;
}
