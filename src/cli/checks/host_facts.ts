/**
 * Facts about a relay's host, for `doctor` and `bugreport`. Invariant: reading them changes nothing on the host, makes no key and
 * opens no port; what cannot be read is undefined. Judges nothing.
 */
import { X509Certificate } from "node:crypto";
import { join } from "node:path";
import { cString, libc, O_CLOEXEC, O_RDWR } from "../../../ffi/mod.ts";
import { loadNative } from "../../../ffi/native.ts";
import type { Config } from "../../config.ts";
import { run } from "../../exit/child.ts";
import { listeningPorts } from "../../exit/tun/listening.ts";
import { eachLine, firstLine } from "../../process/proc.ts";
import { descriptorLimit } from "../../serve/descriptors.ts";
import { parsePeers } from "../../serve/peers_file.ts";
import { askRelay, NoRelayError } from "../admin_client.ts";
import type { Status } from "../status.ts";
import type { HostFacts } from "./findings.ts";

const SYSCTLS = [
  "net.ipv4.ip_forward",
  "net.ipv6.conf.all.forwarding",
  "net.core.rmem_max",
  "net.core.wmem_max",
  "net.netfilter.nf_conntrack_max",
  "net.netfilter.nf_conntrack_count",
  "net.ipv4.ping_group_range",
];
const CAP_NET_ADMIN = 12n;
const STATUS_BYTES = 8192;

export async function gatherFacts(config: Config): Promise<HostFacts> {
  const programs = { ip: await runs("ip"), nft: await runs("nft") };
  return {
    isAdmin: orUndefined(hasNetAdmin),
    sysctls: Object.fromEntries(SYSCTLS.map((name) => [name, orUndefined(() => sysctl(name))])),
    programs,
    hasTunDevice: orUndefined(opensTun) ?? false,
    ruleset: programs.nft ? await run("nft", ["list", "ruleset"]).catch(() => undefined) : undefined,
    udpPorts: orUndefined(() => listeningPorts("udp")) ?? [],
    tcpPorts: orUndefined(() => listeningPorts("tcp")) ?? [],
    addresses: Deno.networkInterfaces().map(({ address }) => address),
    descriptors: descriptorLimit(),
    nativeObstacle: nativeObstacle(),
    availableBytes: orUndefined(() => Deno.systemMemoryInfo().available),
    keyMode: await modeOf(join(config.stateDir, "private.key")),
    peersMistake: await peersMistake(config),
    certificateEndMs: config.fallback && await certificateEnd(config.fallback.certificate),
    ...await relayOf(config),
  };
}

function orUndefined<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}

function sysctl(name: string): string | undefined {
  return firstLine(`/proc/sys/${name.replaceAll(".", "/")}`)?.trim();
}

/** Whether CapEff of this process has the privilege (proc(5)). */
function hasNetAdmin(): boolean | undefined {
  let mask: bigint | undefined;
  eachLine("/proc/self/status", STATUS_BYTES, (bytes, start, end) => {
    const text = new TextDecoder().decode(bytes.subarray(start, end));
    const hex = /^CapEff:\s*([0-9a-f]+)/.exec(text)?.[1];
    if (hex !== undefined) mask = BigInt(`0x${hex}`);
  });
  return mask === undefined ? undefined : (mask >> CAP_NET_ADMIN & 1n) === 1n;
}

/** Opens the device's file, which makes no device. */
function opensTun(): boolean {
  const fd = libc().open(cString("/dev/net/tun"), O_RDWR | O_CLOEXEC);
  if (fd >= 0) libc().close(fd);
  return fd >= 0;
}

async function runs(program: string): Promise<boolean> {
  return await run(program, ["-V"]).then(() => true, () => false);
}

function nativeObstacle(): string | undefined {
  const native = loadNative();
  return typeof native === "string" ? native : undefined;
}

async function modeOf(path: string): Promise<number | undefined> {
  return (await Deno.stat(path).catch(() => undefined))?.mode ?? undefined;
}

async function peersMistake({ stateDir }: Config): Promise<string | undefined> {
  const path = join(stateDir, "peers.json");
  const text = await Deno.readTextFile(path).catch((error: Error) => error);
  if (text instanceof Deno.errors.NotFound) return undefined;
  if (text instanceof Error) return `${path} cannot be read: ${text.message}`;
  const parsed = parsePeers(text);
  return "mistake" in parsed ? `${path} cannot be used: ${parsed.mistake}` : undefined;
}

async function certificateEnd(path: string): Promise<number | string> {
  try {
    return new X509Certificate(await Deno.readTextFile(path)).validToDate.getTime();
  } catch (error) {
    return `${path} cannot be read: ${(error as Error).message}`;
  }
}

async function relayOf(config: Config): Promise<Pick<HostFacts, "relay" | "relayMistake">> {
  try {
    const { exit } = await askRelay(config, "GET", "/v1/status") as Status;
    const { reasons } = await askRelay(config, "GET", "/healthz") as { reasons: string[] };
    return { relay: { exit, reasons }, relayMistake: undefined };
  } catch (error) {
    return {
      relay: undefined,
      relayMistake: error instanceof NoRelayError ? undefined : (error as Error).message,
    };
  }
}
