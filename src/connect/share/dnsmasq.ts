/**
 * DHCP, router advertisements and DNS for the LAN by Debian's dnsmasq, a program of its own. Invariant: it serves the LAN's interface
 * alone, asks the tunnel's resolvers alone, and is ended with this process; one that a killed process left is ended by
 * `undoShare`, which knows it by its pid file and command line. Absent: the caller says how to do without.
 */
import { libc } from "../../../ffi/mod.ts";
import { pidFile } from "../../exit/tun/share.ts";
import { formatAddress, parseInterface } from "../../wire/address.ts";

/** By its path: Deno warns at start about an allowed program that is not on PATH. */
const DNSMASQ = "/usr/sbin/dnsmasq";
const SIGTERM = 15, SIGKILL = 9;
const SAID_MAX = 400;

export interface DnsmasqOptions {
  device: string;
  /** This host's addresses in the LAN with prefix lengths. */
  ipv4: string;
  ipv6: string | undefined;
  /** Resolvers, asked through the tunnel; at least one. */
  dns: readonly string[];
  log: (message: string) => void;
}

/** The first and last address of a LAN that DHCP gives out: all but a few in front. Throws for a LAN that is too small. */
export function leaseRange(ipv4: string): { low: string; high: string } {
  const { address, bits } = parseInterface(ipv4)!;
  const size = 2 ** (128 - bits);
  if (size < 8 || size > 65536) throw new Error(`the LAN ${ipv4} must be from /16 to /29`);
  const network = address[3] - address[3] % size;
  const at = (host: number) => formatAddress(Uint32Array.of(0, 0, 0xffff, network + host));
  const high = size - 2, own = address[3] - network;
  const low = Math.min(50, size >> 2);
  // This host's own address is no lease.
  return own === high
    ? { low: at(low), high: at(high - 1) }
    : { low: at(Math.max(low, own < size >> 1 && own >= low ? own + 1 : low)), high: at(high) };
}

/** The command line for the LAN. */
export function dnsmasqArgs({ device, ipv4, ipv6, dns }: DnsmasqOptions): string[] {
  const { low, high } = leaseRange(ipv4);
  return [
    "--keep-in-foreground",
    "--conf-file=/dev/null",
    `--pid-file=${pidFile(device)}`,
    `--dhcp-leasefile=/run/oxconnect-${device}.leases`,
    `--interface=${device}`,
    "--except-interface=lo",
    "--bind-interfaces",
    "--no-resolv",
    "--no-hosts",
    "--domain-needed",
    "--bogus-priv",
    ...dns.map((address) => `--server=${address}`),
    "--dhcp-authoritative",
    `--dhcp-range=${low},${high},12h`,
    ...(ipv6 === undefined ? [] : ["--enable-ra", `--dhcp-range=::,constructor:${device},ra-stateless`]),
  ];
}

export class Dnsmasq {
  readonly #child: Deno.ChildProcess;
  #isEnding = false;

  private constructor(child: Deno.ChildProcess) {
    this.#child = child;
  }

  /** Starts it; undefined where it is not installed. */
  static start(options: DnsmasqOptions): Dnsmasq | undefined {
    try {
      const child = new Deno.Command(DNSMASQ, {
        args: dnsmasqArgs(options),
        clearEnv: true,
        stdin: "null",
        stdout: "null",
        stderr: "piped",
      }).spawn();
      const started = new Dnsmasq(child);
      started.#watch(options.log);
      return started;
    } catch (error) {
      if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotCapable) return undefined;
      throw error;
    }
  }

  async #watch(log: (message: string) => void): Promise<void> {
    let said = "";
    const text = new TextDecoder();
    for await (const part of this.#child.stderr) {
      said = (said + text.decode(part, { stream: true })).slice(-SAID_MAX);
    }
    const { code } = await this.#child.status;
    if (!this.#isEnding) {
      const why = said.trim().split("\n").at(-1) ?? "";
      log(`dnsmasq has ended with code ${code}, so the LAN gets no addresses and no DNS from here: ${why}`);
    }
  }

  async close(): Promise<void> {
    this.#isEnding = true;
    libc().kill(this.#child.pid, SIGTERM);
    const timer = setTimeout(() => libc().kill(this.#child.pid, SIGKILL), 1000);
    await this.#child.status;
    clearTimeout(timer);
  }
}
