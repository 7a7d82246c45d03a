/**
 * The TUN exit: the kernel routes and masquerades inner packets through a device of the relay's own. The device is made
 * once and has a queue for every Worker, so that it outlives them; the exit of a Worker is its queue. Invariant:
 * everything made for the device bears its name and is removed at close, or at the next start after a crash; rules,
 * routes and settings of others are left as they were. Needs CAP_NET_ADMIN, `ip` and `nft`.
 */
import { cString, libc, O_CLOEXEC, O_NONBLOCK, O_RDWR } from "../../../ffi/mod.ts";
import type { Native } from "../../../ffi/native.ts";
import { Readable } from "../../../ffi/readable.ts";
import { type Burst, BURST_CAPACITY } from "../../vector/burst.ts";
import type { Exit, HostAccess } from "../exit.ts";
import type { PortForward, RefusedForward } from "../forward.ts";
import { run } from "../child.ts";
import { TunHost, type TunOptions } from "./host.ts";
import { countMarked } from "./conntrack.ts";
import { TAG_MASK, tagOf, type TunPeer } from "./peers.ts";
import { TunSteering } from "./steering.ts";
import { BulkPackets, type Packets, SinglePackets } from "./packets.ts";

// linux/if_tun.h
const TUNSETIFF = 0x400454can;
const IFF_TUN = 1;
const IFF_NO_PI = 0x1000;
const IFF_MULTI_QUEUE = 0x0100;
const IFF_VNET_HDR = 0x4000;
/** Create or fail: a device of that name belongs to another program. */
const IFF_TUN_EXCL = 0x8000;
const GUARD_TURNS = 10;
const IFREQ_BYTES = 40;
const SIOCGIFFLAGS = 0x8913n;
const IFF_UP = 1;
const AF_INET = 2;
const SOCK_DGRAM_CLOEXEC = 2 | O_CLOEXEC;

/** Why a TUN exit cannot be used here, found by trying to open a device; undefined when it can. */
export async function tunUnavailable(): Promise<string | undefined> {
  for (const [program, pack] of [["ip", "iproute2"], ["nft", "nftables"]]) {
    try {
      await run(program, ["-V"]);
    } catch (error) {
      return `the program ${program} does not run or is missing (apt-get install ${pack}): ${
        (error as Error).message
      }`;
    }
  }
  try {
    const fd = libc().open(cString("/dev/net/tun"), O_RDWR | O_CLOEXEC);
    if (fd < 0) return "/dev/net/tun is missing or closed to this user";
    // A name of the kernel's choice; the device disappears with the descriptor.
    const made = libc().ioctl(fd, TUNSETIFF, interfaceRequest("oxprobe%d"));
    libc().close(fd);
    if (made < 0) return "it needs root or CAP_NET_ADMIN";
  } catch (error) {
    return (error as Error).message;
  }
  const listed = await run("nft", ["list", "tables"]).catch((error: Error) => error);
  return listed instanceof Error ? `nftables does not answer (${listed.message})` : undefined;
}

/**
 * Makes the device with the given number of queues, its addresses, rules and forwarding. On failure undoes everything and
 * throws a sentence.
 */
export async function openTun(options: TunOptions, queues = 1): Promise<TunDevice> {
  const host = new TunHost(options);
  const descriptors = openQueues(
    options.name,
    options.native,
    queues,
    "if another relay or program has it, set tun_name",
  );
  try {
    // Only now: before, the rules and settings may be those of a running relay that holds the device.
    await host.restoreAfterCrash();
    await host.configure();
  } catch (error) {
    descriptors.forEach((fd) => libc().close(fd));
    await host.undo();
    throw error;
  }
  return new TunDevice(options, host, descriptors);
}

/**
 * Makes a device with the given number of queues, which disappears with its last descriptor. Throws a sentence that ends in
 * `remedy` on failure, as when a device of that name exists.
 */
export function openQueues(name: string, native: Native | string, queues: number, remedy: string): number[] {
  const offloads = typeof native === "string" ? 0 : IFF_VNET_HDR;
  const several = queues > 1 ? IFF_MULTI_QUEUE : 0;
  const descriptors: number[] = [];
  try {
    // Exclusively the first; the others join it.
    for (const exclusive of [IFF_TUN_EXCL, ...new Array<number>(queues - 1).fill(0)]) {
      const fd = libc().open(cString("/dev/net/tun"), O_RDWR | O_NONBLOCK | O_CLOEXEC);
      if (fd < 0) throw new Error("/dev/net/tun cannot be opened");
      descriptors.push(fd);
      const request = interfaceRequest(name, offloads | several | exclusive);
      if (libc().ioctl(fd, TUNSETIFF, request) < 0) {
        throw new Error(`the device ${name} cannot be made; ${remedy}`);
      }
    }
  } catch (error) {
    descriptors.forEach((fd) => libc().close(fd));
    throw error;
  }
  return descriptors;
}

/** The device and its changes to the host. */
export class TunDevice {
  readonly description: string;
  /** One descriptor for each Worker, in their order. The device owns them: a user does not close them. */
  readonly queues: readonly number[];
  readonly #o: TunOptions;
  readonly #host: TunHost;
  /** A socket for ioctls about interfaces. */
  readonly #control: number;
  readonly #steering: TunSteering | undefined;
  #fault: string | undefined;
  #closed = false;
  #turns = 0;
  #guarding: Promise<void> | undefined;

  constructor(options: TunOptions, host: TunHost, queues: readonly number[]) {
    this.queues = queues;
    this.#o = options;
    this.#host = host;
    this.#control = libc().socket(AF_INET, SOCK_DGRAM_CLOEXEC, 0);
    if (queues.length > 1 && typeof options.native !== "string") {
      this.#steering = TunSteering.open(options.native, queues[0], options.log);
    }
    const offloads = typeof options.native === "string" ? "" : " with offloads";
    const nat = host.hasOpenNat ? "open NAT" : "moderate NAT";
    this.description = `tun device ${options.name}${offloads}, masquerading by nftables (${nat})`;
  }

  /** Steers packets to each prefix to the queue of its Worker; replaces earlier settings. */
  steer(owners: ReadonlyMap<string, number>): void {
    this.#steering?.follow(owners);
  }

  /** See `TunHost.setPeers`. */
  setPeers(peers: readonly TunPeer[]): Promise<{ forget: () => Promise<void> }> {
    return this.#host.setPeers(peers);
  }

  /** See `TunHost.setForwards`. */
  setForwards<F extends PortForward>(wanted: readonly F[]): Promise<RefusedForward<F>[]> {
    return this.#host.setForwards(wanted);
  }

  /** The device's fault when `look` was last called, as a sentence. */
  get fault(): string | undefined {
    return this.#fault;
  }

  /**
   * Checks the device; call about once a second. Only its flags show that a device was taken down or deleted; writes merely
   * fail.
   */
  look(): void {
    if (this.#closed) return;
    if (++this.#turns % GUARD_TURNS === 0) {
      this.#guarding = this.#host.guard().catch((error: Error) => this.#o.log("warning", error.message));
    }
    const request = interfaceRequest(this.#o.name);
    const gone = libc().ioctl(this.#control, SIOCGIFFLAGS, request) < 0;
    const down = !gone && (new DataView(request.buffer).getUint16(16, true) & IFF_UP) === 0;
    this.#fault = gone
      ? `the device ${this.#o.name} is gone; restart the relay`
      : down
      ? `the device ${this.#o.name} is down; ip link set ${this.#o.name} up`
      : undefined;
  }

  /** The connections of all peers in the host's conntrack, of both families; undefined when the kernel does not tell. */
  async flows(): Promise<number | undefined> {
    return this.#closed ? undefined : await countMarked(tagOf(this.#o.name), TAG_MASK);
  }

  /** Opens to packets from inside those of the host's addresses that `host` names, and no others. */
  openHost(host: HostAccess): Promise<void> {
    return this.#host.openHost(host);
  }

  /** Removes everything that the device made. Safe to call twice; call after the last use of its queues. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#guarding;
    this.#steering?.close();
    for (const fd of this.queues) libc().close(fd);
    libc().close(this.#control);
    await this.#host.undo();
  }
}

/** A Worker's exit: one queue of a device that the main thread owns. */
export class TunQueue implements Exit {
  readonly name = "tun";
  /** The kernel has them, for all queues together: `TunDevice.flows`. */
  readonly flowCount = 0;
  readonly sleeps = true;
  #closed = false;
  #readable: Readable | undefined;
  readonly #packets: Packets;

  /** @param native moves packets in bulk; the same as the device was opened with. */
  constructor(readonly descriptor: number, readonly description: string, native: Native | string) {
    this.#packets = typeof native === "string"
      ? new SinglePackets(descriptor)
      : new BulkPackets(native, descriptor);
  }

  get device(): number | undefined {
    return this.#packets.device;
  }

  onReadable(wake: () => void): void {
    this.#readable ??= new Readable(this.descriptor, wake);
  }

  send(burst: Burst): void {
    this.#packets.send(burst);
  }

  receive(burst: Burst): number {
    if (this.#closed) return 0;
    const received = this.#packets.receive(burst);
    if (burst.count < BURST_CAPACITY) this.#readable?.taken();
    return received;
  }

  handleTimeout(): void {}

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#readable?.close();
    this.#packets.close();
  }
}

function interfaceRequest(name: string, more = 0): Uint8Array<ArrayBuffer> {
  const request = new Uint8Array(IFREQ_BYTES);
  request.set(new TextEncoder().encode(name).subarray(0, 15));
  new DataView(request.buffer).setUint16(16, IFF_TUN | IFF_NO_PI | more, true);
  return request;
}
