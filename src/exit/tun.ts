/**
 * The TUN exit: the kernel routes and masquerades inner packets through a device of the relay's own. Invariant:
 * everything that it makes bears its device's name and is removed at close, or at the next start after a crash;
 * rules, routes and settings that it did not make are left as they were. Needs CAP_NET_ADMIN, `ip` and `nft`.
 */
import { cString, libc, O_CLOEXEC, O_NONBLOCK, O_RDWR } from "../../ffi/mod.ts";
import { Readable } from "../../ffi/readable.ts";
import { type Burst, BURST_CAPACITY } from "../vector/burst.ts";
import type { Exit, HostAccess } from "./exit.ts";
import { run, TunHost, type TunOptions } from "./tun_host.ts";
import { BulkPackets, type Packets, SinglePackets } from "./tun_packets.ts";

// linux/if_tun.h
const TUNSETIFF = 0x400454can;
const IFF_TUN = 1;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;
/** Make it or fail: a device of that name that somebody else keeps is not ours to take. */
const IFF_TUN_EXCL = 0x8000;
const GUARD_TURNS = 10;
const IFREQ_BYTES = 40;
const SIOCGIFFLAGS = 0x8913n;
const IFF_UP = 1;
const AF_INET = 2;
const SOCK_DGRAM_CLOEXEC = 2 | O_CLOEXEC;

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
  const offloads = typeof options.native === "string" ? 0 : IFF_VNET_HDR;
  if (libc().ioctl(fd, TUNSETIFF, interfaceRequest(options.name, offloads | IFF_TUN_EXCL)) < 0) {
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
  const { native } = options;
  const packets = typeof native === "string" ? new SinglePackets(fd) : new BulkPackets(native, fd);
  return new TunExit(fd, options, host, packets);
}

class TunExit implements Exit {
  readonly name = "tun";
  readonly description: string;
  readonly flowCount = 0;
  readonly descriptor: number;
  readonly processDescriptors: readonly number[];
  readonly #o: TunOptions;
  readonly #host: TunHost;
  /** Any socket: what interfaces are asked about through. */
  readonly #control: number;
  #fault: string | undefined;
  #closed = false;
  #turns = 0;
  #guarding: Promise<void> | undefined;
  #readable: Readable | undefined;
  readonly #packets: Packets;

  constructor(fd: number, options: TunOptions, host: TunHost, packets: Packets) {
    this.descriptor = fd;
    this.processDescriptors = [fd];
    this.#packets = packets;
    this.#o = options;
    this.#host = host;
    this.#control = libc().socket(AF_INET, SOCK_DGRAM_CLOEXEC, 0);
    const offloads = typeof options.native === "string" ? "" : " with offloads";
    this.description = `tun device ${options.name}${offloads}, masquerading by nftables`;
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

  /** A device that was taken down or deleted shows nowhere else than in its flags: writes merely fail. */
  handleTimeout(): void {
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

  fault(): string | undefined {
    return this.#fault;
  }

  openHost(host: HostAccess): Promise<void> {
    return this.#host.openHost(host);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#readable?.close();
    await this.#guarding;
    this.#packets.close();
    libc().close(this.descriptor);
    libc().close(this.#control);
    await this.#host.undo();
  }
}

function interfaceRequest(name: string, more = 0): Uint8Array<ArrayBuffer> {
  const request = new Uint8Array(IFREQ_BYTES);
  request.set(new TextEncoder().encode(name).subarray(0, 15));
  new DataView(request.buffer).setUint16(16, IFF_TUN | IFF_NO_PI | more, true);
  return request;
}
