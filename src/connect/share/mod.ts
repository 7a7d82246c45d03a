/**
 * `connect --share`: this machine as the gateway of a LAN into the tunnel. Invariant: hosts of the LAN reach the tunnel and nothing
 * beside it; a port that one of them asks for (UPnP, NAT-PMP, PCP) is told as open only when the relay has opened it, too; everything is
 * undone at the end. Moves no packet: the kernel does, by the rules of exit/tun/share.ts.
 */
import { createHash } from "node:crypto";
import { Leases } from "../../exit/mapping/leases.ts";
import { PortControlServer } from "../../exit/mapping/server.ts";
import { lanAddress, ShareHost, undoShare } from "../../exit/tun/share.ts";
import { DEVICE_CLASSES, type DeviceClass, MAC } from "../../exit/tun/share_rules.ts";
import { every } from "../../io/every.ts";
import { UsageError } from "../../process/help.ts";
import {
  formatAddress,
  parseAddress,
  parseInterface,
  parsePrefix,
  prefixContains,
} from "../../wire/address.ts";
import { PCP, PORT_CONTROL_PORT } from "../../wire/port_control.ts";
import type { Invitation } from "../invitation.ts";
import type { LinkPlane } from "../link/plane.ts";
import { Dnsmasq, leaseRange } from "./dnsmasq.ts";
import { Upnp } from "./upnp.ts";
import { Upstream } from "./upstream.ts";

/** Ports that one host of the LAN may have: half of those that the relay is advised to let the box have. */
export const HOST_PORTS_MAX = 8;
const BOX_PORTS = 16;
const TEND_MS = 1000, REFRESH_TURNS = 60;
/** How long the end waits for the relay to close the LAN's ports. */
const RELEASE_MS = 1000;
const DEVICES_MAX = 64;
const NET_DEFAULT = "192.168.77.1/24";

/** What --share, --share-net and --device say. */
export interface ShareWishes {
  device: string;
  ipv4: string;
  classes: DeviceClass[];
}

/** Reads them; undefined without --share. Throws UsageError. */
export function readShare(
  device: string | undefined,
  net: string | undefined,
  devices: readonly string[],
): ShareWishes | undefined {
  if (device === undefined) {
    const other = net !== undefined ? "share-net" : devices.length > 0 ? "device" : undefined;
    if (other === undefined) return undefined;
    throw new UsageError(`--${other} is of a gateway; name the LAN's interface: --share eth1`);
  }
  if (!/^[A-Za-z0-9_.-]{1,15}$/.test(device)) {
    throw new UsageError('--share: expected an interface such as "eth1"');
  }
  const ipv4 = net ?? NET_DEFAULT;
  const read = parseInterface(ipv4);
  if (!read || ipv4.includes(":") || !ipv4.includes("/")) {
    throw new UsageError(`--share-net: expected this machine's address in the LAN such as "${NET_DEFAULT}"`);
  }
  try {
    leaseRange(ipv4);
  } catch (error) {
    throw new UsageError(`--share-net: ${(error as Error).message}`);
  }
  if (devices.length > DEVICES_MAX) throw new UsageError(`--device: ${DEVICES_MAX} are the limit`);
  return { device, ipv4, classes: devices.map(readDevice) };
}

function readDevice(text: string): DeviceClass {
  const [, trafficClass = "", device = ""] = /^([a-z]{1,20})=([0-9a-fA-F.:]{2,45})$/.exec(text) ?? [];
  const address = parseAddress(device);
  const normal = address ? formatAddress(address) : device.toLowerCase();
  if (!DEVICE_CLASSES.includes(trafficClass) || !address && !MAC.test(normal)) {
    throw new UsageError(
      `--device: expected CLASS=ADDRESS or CLASS=MAC such as game=192.168.77.50 or game=aa:bb:cc:dd:ee:ff, with a class of ` +
        `${DEVICE_CLASSES.join(", ")}; found "${text.slice(0, 60)}"`,
    );
  }
  return { device: normal, trafficClass };
}

/** The LAN's IPv6 address of this host: a unique local network (RFC 4193) by the hash of the device's own key. */
function lanIpv6({ addresses }: Invitation, secret: string): string | undefined {
  if (!addresses.some((address) => address.includes(":"))) return undefined;
  const [a, b, c, d, e] = createHash("sha256").update(`LAN of ${secret}`).digest();
  const hex = (high: number, low: number) => (high << 8 | low).toString(16);
  return `fd${a.toString(16).padStart(2, "0")}:${hex(b, c)}:${hex(d, e)}:77::1/64`;
}

interface ShareOptions {
  wishes: ShareWishes;
  invitation: Invitation;
  /** What only this device knows, from which what must be the same in every run is derived. */
  secret: string;
  say: (message: string) => void;
}

/** The network of an address with its prefix length. */
function networkOfLan(ipv4: string): string {
  const { address, bits } = parseInterface(ipv4)!;
  return `${formatAddress(Uint32Array.of(0, 0, 0xffff, address[3] - address[3] % 2 ** (128 - bits)))}/${
    bits - 96
  }`;
}

/** Destinations that the client's rules and kill switch must leave to the LAN. */
function lanDestinations({ ipv4 }: ShareWishes, invitation: Invitation, secret: string): string[] {
  const ipv6 = lanIpv6(invitation, secret);
  return [
    networkOfLan(ipv4),
    "255.255.255.255/32",
    "239.255.255.250/32",
    ...(ipv6 === undefined ? [] : [ipv6.replace("::1/64", "::/64"), "fe80::/10", "ff02::/16"]),
  ];
}

/** The host's side, before there is a tunnel. */
function openShareHost({ wishes, invitation, secret, say }: ShareOptions): Promise<ShareHost> {
  const { device, ipv4, classes } = wishes;
  return ShareHost.open({ device, ipv4, ipv6: lanIpv6(invitation, secret), classes, log: say });
}

/** The services for the LAN, once there is a tunnel. */
class Share {
  readonly #o: ShareOptions;
  readonly #host: ShareHost;
  readonly #upstream: Upstream;
  readonly #leases: Leases;
  readonly #server: PortControlServer;
  readonly #sockets: Deno.DatagramConn[] = [];
  #upnp: Upnp | undefined;
  #dnsmasq: Dnsmasq | undefined;
  #stop = () => {};
  #turns = 0;

  private constructor(options: ShareOptions, host: ShareHost, relay: string) {
    this.#o = options;
    this.#host = host;
    const own = options.invitation.addresses.find((one) => !one.includes(":"))!.split("/")[0];
    const nonce = createHash("sha256").update(`PCP of ${options.secret}`).digest().subarray(0, 12);
    const upstream = this.#upstream = new Upstream(own, relay, Uint8Array.from(nonce));
    const startedMs = performance.now();
    this.#leases = new Leases({
      most: () => HOST_PORTS_MAX,
      isTaken: () => false,
      apply: (leases) => host.setForwards(leases),
      upstream: (lease, wanted, lifetimeS) =>
        lease.address.includes(":")
          ? Promise.resolve({ result: PCP.cannotProvide, outer: 0, lifetimeS: 30, address: upstream.outside })
          : upstream.map(lease.protocol, lease.outer, wanted, lifetimeS),
      outside: () => upstream.outside,
      nowS: () => (performance.now() - startedMs) / 1000,
    });
    this.#server = new PortControlServer(this.#leases, () => upstream.outside);
  }

  /** Starts what works here; what does not is said with what to do instead. `relay` is the relay's inner IPv4 address. */
  static async open(options: ShareOptions, host: ShareHost, relay: string): Promise<Share> {
    const share = new Share(options, host, relay);
    const { say, invitation: { dns }, wishes: { device } } = options;
    const address = host.ipv4.split("/")[0];
    share.#dnsmasq = dns.length === 0
      ? undefined
      : Dnsmasq.start({ device, ipv4: host.ipv4, ipv6: host.ipv6, dns, log: say });
    if (share.#dnsmasq === undefined) {
      const { low, high } = leaseRange(host.ipv4);
      say(
        `No DHCP and DNS here (${
          dns.length === 0 ? "the config names no DNS" : "apt-get install dnsmasq-base"
        }); give the ` +
          `devices addresses by hand: ${low} to ${high}, mask /${
            host.ipv4.split("/")[1]
          }, router ${address}, DNS ${dns.find((one) => !one.includes(":")) ?? "1.1.1.1"}`,
      );
    }
    await share.#openPortControl(address);
    share.#stop = every(TEND_MS, () => share.#tend(), ({ message }) => say(message));
    // Not waited for: a relay that lets nobody ask does not answer.
    share.#upstream.probe().then((isOpen) => {
      if (isOpen) return;
      say(
        `The relay opens no ports for this LAN: to let it, set port_mappings = ${BOX_PORTS} under [destinations] of the relay's configuration. ` +
          "Games work without, as far as their consoles send first",
      );
    });
    say(`${device} is shared: ${host.ipv4}${host.ipv6 === undefined ? "" : `, ${host.ipv6}`}`);
    return share;
  }

  /** PCP, NAT-PMP and UPnP at the LAN's address. */
  async #openPortControl(address: string): Promise<void> {
    const { say, secret } = this.#o;
    const lan = parsePrefix(networkOfLan(this.#host.ipv4))!;
    const isOfLan = (text: string) => {
      const from = parseAddress(text);
      return from !== undefined && prefixContains(lan, from) && text !== address;
    };
    try {
      const socket = Deno.listenDatagram({ transport: "udp", hostname: address, port: PORT_CONTROL_PORT });
      this.#sockets.push(socket);
      this.#serve(socket, isOfLan);
      const uuid = createHash("sha256").update(`UPnP of ${secret}`).digest("hex");
      this.#upnp = new Upnp({
        address,
        isOfLan,
        leases: this.#leases,
        uuid: `uuid:${uuid.slice(0, 8)}-${uuid.slice(8, 12)}-4${uuid.slice(13, 16)}-8${uuid.slice(17, 20)}-${
          uuid.slice(20, 31)
        }0`,
        outside: () => this.#upstream.outsideText,
        nowS: () => performance.now() / 1000,
      });
      await this.#host.protect(this.#upnp.port);
    } catch (error) {
      say(`Consoles cannot ask for ports: ${(error as Error).message}; does another gateway run here?`);
    }
  }

  async #serve(socket: Deno.DatagramConn, isOfLan: (address: string) => boolean): Promise<void> {
    for await (const [payload, from] of socket) {
      const { hostname: address } = from as Deno.NetAddr;
      if (!isOfLan(address)) continue;
      this.#server.answer({ id: address, address }, payload.slice()).then((answer) =>
        answer && socket.send(answer, from)
      ).catch(() => {});
    }
  }

  #tend(): void {
    this.#leases.expire();
    this.#upnp?.tend();
    // A relay that has restarted knows of no lease any more.
    if (++this.#turns % REFRESH_TURNS === 0) this.#leases.refresh();
  }

  /** Takes no more wishes for ports and has the relay close those that are open, while the tunnel still carries. */
  async release(): Promise<void> {
    this.#stop();
    for (const socket of this.#sockets.splice(0)) socket.close();
    await this.#leases.release(RELEASE_MS);
  }

  /** Closes the services; the host's side is its owner's to close. */
  async close(): Promise<void> {
    this.#stop();
    for (const socket of this.#sockets.splice(0)) socket.close();
    await this.#upnp?.close();
    await this.#dnsmasq?.close();
    this.#upstream.close();
  }
}

/** What is the same in every run of this device and nobody else knows, without being the key. */
function secretOf(privateKey: string): string {
  return createHash("sha256").update("gateway").update(privateKey).digest("hex");
}

/** Where a relay of the default tunnel_ipv4 has its own address; over WireGuard it cannot tell. */
function firstHost({ addresses }: Invitation): string {
  const own = addresses.find((one) => !one.includes(":")) ?? "10.66.0.2/32";
  return `${own.split(".").slice(0, 2).join(".")}.0.1`;
}

/** A gateway from before the tunnel to its end; without wishes it only undoes what a killed one has left. */
export class Gateway {
  /** Destinations that the client's rules and kill switch must leave to the LAN. */
  readonly lan: readonly string[];
  readonly #o: ShareOptions | undefined;
  #host: ShareHost | undefined;
  #share: Share | undefined;

  /** Reads what the interface has by itself, which the rules of both the client and the gateway must agree on. Throws a sentence. */
  static async prepare(
    wishes: ShareWishes | undefined,
    invitation: Invitation,
    say: (message: string) => void,
  ): Promise<Gateway> {
    const own = wishes && await lanAddress(wishes.device);
    return new Gateway(wishes && { ...wishes, ipv4: own ?? wishes.ipv4 }, invitation, say);
  }

  private constructor(
    wishes: ShareWishes | undefined,
    invitation: Invitation,
    say: (message: string) => void,
  ) {
    this.#o = wishes && { wishes, invitation, secret: secretOf(invitation.privateKey), say };
    this.lan = this.#o ? lanDestinations(this.#o.wishes, invitation, this.#o.secret) : [];
  }

  /** Makes this host the LAN's gateway, with nothing behind it yet. Throws a sentence. */
  async shut(): Promise<void> {
    if (this.#o) this.#host = await openShareHost(this.#o);
    else await undoShare();
  }

  /** Starts the services for the LAN, once there is a tunnel. */
  async start(plane: Pick<LinkPlane, "look">): Promise<void> {
    if (this.#o === undefined || this.#host === undefined || this.#share) return;
    const { relay4 } = await plane.look(false);
    this.#share = await Share.open(this.#o, this.#host, relay4 ?? firstHost(this.#o.invitation));
  }

  async guard(): Promise<void> {
    await this.#host?.guard();
  }

  /** Gives the LAN's ports back, before the tunnel ends. */
  async release(): Promise<void> {
    await this.#share?.release();
  }

  async close(): Promise<void> {
    try {
      await this.#share?.close();
    } finally {
      await this.#host?.close();
    }
  }
}
