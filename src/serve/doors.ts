/**
 * What the main thread opens for its Workers and keeps while they come and go: the bound sockets, the TUN device and the
 * mailboxes between Workers. Invariant: a Worker that dies takes none of them along, and `close` leaves nothing behind.
 * Moves no packet.
 */
import { libc } from "../../ffi/mod.ts";
import { loadNative, type Native } from "../../ffi/native.ts";
import { type Config, formatEndpoint } from "../config.ts";
import { hostOne } from "../wire/address.ts";
import type { HostAccess } from "../exit/exit.ts";
import { listeningPorts } from "../exit/tun/listening.ts";
import { openTun, type TunDevice, tunUnavailable } from "../exit/tun/mod.ts";
import type { TunPeer } from "../exit/tun/peers.ts";
import { type Choice, chooseNative } from "../io/choose.ts";
import { closeBells, openBells } from "../io/bell.ts";
import { every } from "../io/every.ts";
import { closeMailboxes, type Mailboxes, openMailboxes } from "../io/mailbox.ts";
import type { PeerRecord } from "../session/peer_record.ts";
import { ownerOf } from "../session/peers.ts";
import type { PeerForward, RefusedPeerForward } from "./forwards.ts";
import { FallbackDoor } from "./fallback_door.ts";
import { CommandError } from "../process/help.ts";
import { keyFromText } from "../process/keys_text.ts";
import { Metrics } from "../metrics.ts";
import { logger } from "../process/logging.ts";

const EADDRINUSE = 98, ENOPROTOOPT = 92;
/** What a kernel without IPv6 says to its sockets, and one whose IPv6 is off to its addresses. */
const EAFNOSUPPORT = 97, EADDRNOTAVAIL = 99;
const LOOK_MS = 1000;
/** How often the connections of a device are counted: a listing of 100 000 takes the kernel some tens of milliseconds. */
const COUNT_MS = 5000;

/** The library where the config lets it move packets, or why not. */
export function nativeIo(config: Config): Native | string {
  return config.io === "portable" ? "the config asks for portable io" : loadNative();
}

/** How much of the host itself the policy may open. */
function opensHost({ destinations }: Config): HostAccess {
  return {
    all: destinations.allowLoopback,
    prefixes: destinations.allow,
    portControl: destinations.portMappings > 0,
  };
}

export class Doors {
  /** How native ports move datagrams, measured once for all Workers; or why there is none. */
  readonly port: Choice | string;
  /** One bound socket for each Worker; none where Workers bind for themselves, which only a single one can. */
  readonly sockets: readonly number[];
  /** Absent for the userspace exit, which each Worker has for itself. */
  readonly device: TunDevice | undefined;
  /** Why there is a device, or none. */
  readonly exitReason: string;
  /** One for each Worker, and one more for the fallback; absent where there is one Worker and no fallback. */
  readonly mailboxes: Mailboxes | undefined;
  /** Absent where it is off. */
  readonly fallback: FallbackDoor | undefined;
  /** What tells each Worker that a message waits; none where Workers wait in their event loops. */
  readonly bells: readonly number[];
  /** What is counted here and in no Worker. */
  readonly metrics = new Metrics();
  readonly #workers: number;
  readonly #stopLooking: () => void;
  readonly #stopCounting: () => void;

  /**
   * Opens what the configuration asks for. `fallbackShare` is how many connections the fallback may have where descriptors
   * bound them. Throws a sentence, with nothing left open, when it cannot.
   */
  static async open(config: Config, tunnelIpv6: string | undefined, fallbackShare?: number): Promise<Doors> {
    const native = nativeIo(config);
    const { io, workers } = config;
    if (typeof native === "string" && (workers > 1 || io !== "portable" && io !== "auto")) {
      const [key, value] = workers > 1 ? ["workers", workers] : ["io", `"${io}"`];
      throw new CommandError(`${key} = ${value} cannot be used: ${native}; remove the key`);
    }
    const sockets = typeof native === "string" ? [] : bindSockets(native, config);
    let mailboxes: Mailboxes | undefined;
    let bells: number[] = [];
    let fallback: FallbackDoor | undefined;
    try {
      bells = openBells(sockets.length);
      const readers = workers + (config.fallback ? 1 : 0);
      mailboxes = readers > 1 ? openMailboxes(readers) : undefined;
      fallback = config.fallback && mailboxes &&
        await FallbackDoor.open(config, config.fallback, mailboxes, fallbackShare);
      const port = typeof native === "string" || io === "portable"
        ? String(native)
        : await chooseNative(native, io);
      const [device, exitReason] = await chooseExit(config, tunnelIpv6);
      return new Doors(workers, port, sockets, bells, mailboxes, fallback, device, exitReason);
    } catch (error) {
      await fallback?.close();
      for (const fd of sockets) libc().close(fd);
      closeBells(bells);
      if (mailboxes) closeMailboxes(mailboxes);
      throw error instanceof CommandError ? error : new CommandError((error as Error).message);
    }
  }

  private constructor(
    workers: number,
    port: Choice | string,
    sockets: readonly number[],
    bells: readonly number[],
    mailboxes: Mailboxes | undefined,
    fallback: FallbackDoor | undefined,
    device: TunDevice | undefined,
    exitReason: string,
  ) {
    this.#workers = workers;
    this.port = port;
    this.sockets = sockets;
    this.device = device;
    this.exitReason = exitReason;
    this.mailboxes = mailboxes;
    this.fallback = fallback;
    this.bells = bells;
    this.#stopLooking = every(
      LOOK_MS,
      () => device?.look(),
      ({ message }) => logger("exit").warn("the device could not be looked at: {message}", { message }),
    );
    this.#stopCounting = every(COUNT_MS, () => this.#count(), () => {});
  }

  async #count(): Promise<void> {
    this.metrics.set("exit_flows", await this.device?.flows() ?? 0);
  }

  /** Brings what the kernel has for each peer to the Worker that owns it. */
  steer(peers: readonly PeerRecord[]): void {
    const owners = new Map<string, number>();
    for (const { publicKey, allowedIps } of peers) {
      const key = keyFromText(publicKey);
      if (key === undefined) continue; // whoever adds the peer says so
      for (const prefix of allowedIps) owners.set(prefix, ownerOf(key, this.#workers));
    }
    this.device?.steer(owners);
  }

  /** See `TunDevice.setPeers`; the userspace exit learns from its Worker who is gone. */
  async setPeers(peers: readonly PeerRecord[]): Promise<{ forget: () => Promise<void> }> {
    return await this.device?.setPeers(peers.map(tunPeer)) ?? { forget: () => Promise.resolve() };
  }

  /** See `TunDevice.setForwards`; undefined where the Workers' exits have the ports. */
  async setForwards(forwards: readonly PeerForward[]): Promise<RefusedPeerForward[] | undefined> {
    return await this.device?.setForwards(forwards);
  }

  /** Takes over what a reload may change. A certificate of no use is said, and keeps back nothing else of the reload. */
  async tune(config: Config): Promise<void> {
    await this.device?.openHost(opensHost(config));
    await this.fallback?.tune(config).catch(({ message }) =>
      logger("fallback").error("the certificate in use stays: {message}", { message })
    );
  }

  /** Closes everything; the Workers must have ended. */
  async close(): Promise<void> {
    this.#stopLooking();
    this.#stopCounting();
    await this.fallback?.close();
    for (const fd of this.sockets) libc().close(fd);
    closeBells(this.bells);
    if (this.mailboxes) closeMailboxes(this.mailboxes);
    await this.device?.close();
  }
}

/** Binds the port once for each Worker, with the program that steers among them. */
function bindSockets(native: Native, config: Config): readonly number[] {
  const { listen, workers } = config;
  const sockets = new Int32Array(workers);
  const bind = (text: string) => {
    const host = new TextEncoder().encode(text);
    return native.ox_udp_bind(host, host.length, listen.port, workers, sockets);
  };
  let result = bind(listen.host);
  if (listen.host === "::" && (result === -EAFNOSUPPORT || result === -EADDRNOTAVAIL)) {
    logger("io").warn("IPv6 is off on this system, so {port} is open for IPv4 only", { port: listen.port });
    result = bind("0.0.0.0");
  }
  if (result < 0) {
    if (result === -ENOPROTOOPT && workers > 1) {
      throw new CommandError(
        `workers = ${workers} cannot be used: this kernel cannot steer sockets; set workers = 1`,
      );
    }
    throw new CommandError(cannotListen(config, result === -EADDRINUSE ? undefined : `errno ${-result}`));
  }
  return [...sockets];
}

/** The sentence for a port that cannot be had; without a reason it is taken. */
export function cannotListen({ listen }: Config, reason: string | undefined): string {
  const where = `UDP ${formatEndpoint(listen)}`;
  return reason === undefined
    ? `${where} is taken: another relay or program listens there; stop it, or set listen to another port`
    : `cannot listen on ${where}: ${reason}; check the key "listen"`;
}

const tunPeer = ({ publicKey, allowedIps }: PeerRecord): TunPeer => ({
  key: publicKey,
  prefixes: allowedIps,
});

async function chooseExit(
  config: Config,
  tunnelIpv6: string | undefined,
): Promise<[TunDevice | undefined, string]> {
  const asked = "the config asks for it";
  if (config.exit === "userspace") return [undefined, asked];
  let obstacle = await tunUnavailable();
  if (obstacle === undefined) {
    try {
      const device = await openTun({
        name: config.tunName,
        ipv4: hostOne(config.tunnelIpv4),
        ipv6: tunnelIpv6 === undefined ? undefined : hostOne(tunnelIpv6),
        mtu: config.mtu,
        host: opensHost(config),
        listenPort: config.listen.port,
        ownPorts: [
          ...[config.listen, config.metricsListen, ...(config.fallback ? [config.fallback.listen] : [])]
            .map(({ port }) => port),
          ...listeningPorts("tcp"),
          ...listeningPorts("udp"),
        ],
        native: nativeIo(config),
        log: (level, message) => logger("exit")[level]("{message}", { message }),
      }, config.workers);
      return [device, config.exit === "tun" ? asked : "it carries every protocol at the best speed"];
    } catch (error) {
      obstacle = (error as Error).message;
    }
  }
  if (config.exit === "tun") {
    throw new CommandError(`exit = "tun" cannot be used: ${obstacle}; or set exit = "userspace"`);
  }
  return [undefined, `tun cannot be used: ${obstacle}`];
}
