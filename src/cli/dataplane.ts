/**
 * The data-plane Worker: makes port, exit and core from the configuration that the main thread sends, and lets
 * the driver run them. Invariant: whatever it opened is closed before it says "stopped". Serves nothing and
 * reads no file.
 */
/// <reference lib="deno.worker" />
import { loadNative } from "../../ffi/native.ts";
import { PortableAead } from "../codec/aead_portable.ts";
import type { Aead, Primitives } from "../codec/kernels.ts";
import { ALGORITHM, implementationOf, NativeAead, nativePrimitives } from "../codec/native.ts";
import { nodeCrypto } from "../codec/node_crypto.ts";
import { type Config, formatEndpoint, hostOne } from "../config.ts";
import type { Exit, HostAccess } from "../exit/exit.ts";
import { openTun, tunUnavailable } from "../exit/tun.ts";
import { openUserspace } from "../exit/userspace.ts";
import { Driver, monotonicUs, wallClockOffsetUs } from "../io/driver.ts";
import { MmsgPort } from "../io/mmsg.ts";
import type { Port } from "../io/port.ts";
import { UdpPort } from "../io/udp.ts";
import { DROP, Metrics } from "../metrics.ts";
import { Relay } from "../relay.ts";
import { scaledLimits } from "../session/limits.ts";
import { Arena } from "../vector/arena.ts";
import type { FromWorker, ToWorker } from "./messages.ts";
import { warmUp } from "./warmup.ts";

const ARENA_SLOTS = 8192;
const OWN_ADDRESSES_MS = 5000;
const EVENTS_MS = 500;

const scope = self as unknown as DedicatedWorkerGlobalScope;
const tell = (message: FromWorker) => scope.postMessage(message);
const log = (area: string) => (level: "debug" | "info" | "warning" | "error", message: string) =>
  tell({ type: "log", level, area, message });

interface DataPlane {
  relay: Relay;
  driver: Driver;
  port: Port;
  exit: Exit;
  timers: ReturnType<typeof setInterval>[];
}

let plane: DataPlane | undefined;

/** How much of the host itself the policy may open. */
function opensHost({ destinations }: Config): HostAccess {
  return { all: destinations.allowLoopback, prefixes: destinations.allow };
}

/** Every address that ends on this host: its interfaces' own, and their IPv4 networks' broadcasts. */
function ownAddresses(): string[] {
  return Deno.networkInterfaces().flatMap(({ family, address, netmask }) => {
    if (family !== "IPv4") return [address];
    const mask = netmask.split(".").map(Number);
    return [address, address.split(".").map((byte, i) => Number(byte) | (~mask[i] & 255)).join(".")];
  });
}

async function chooseExit(
  config: Config,
  tunnelIpv6: string | undefined,
  metrics: Metrics,
): Promise<[Exit, string]> {
  const ipv4 = hostOne(config.tunnelIpv4);
  const ipv6 = tunnelIpv6 === undefined ? undefined : hostOne(tunnelIpv6);
  const native = config.io === "portable" ? "the config asks for portable io" : loadNative();
  const base = { ipv4, ipv6, mtu: config.mtu, native, metrics, log: log("exit") };
  const asked = "the config asks for it";
  if (config.exit === "userspace") return [openUserspace(base), asked];
  let obstacle = await tunUnavailable();
  if (obstacle === undefined) {
    try {
      const exit = await openTun({ ...base, name: config.tunName, host: opensHost(config) });
      return [exit, config.exit === "tun" ? asked : "it carries every protocol at the best speed"];
    } catch (error) {
      obstacle = (error as Error).message;
    }
  }
  if (config.exit === "tun") {
    throw new Error(`exit = "tun" cannot be used: ${obstacle}; or set exit = "userspace"`);
  }
  return [openUserspace(base), `tun cannot be used: ${obstacle}`];
}

interface Kernels {
  primitives: Primitives;
  makeAead: (rows: number) => Aead;
}

/** The native kernels where they run and the config allows it; one line of the log says which and why. */
function chooseKernels(config: Config): Kernels {
  const native = config.kernels === "portable" ? "the config asks for it" : loadNative();
  if (typeof native !== "string") {
    const by = implementationOf(native, ALGORITHM.chacha20Poly1305);
    log("kernels")("info", `native, ChaCha20-Poly1305 by ${by}: the fastest that this processor runs`);
    return {
      primitives: nativePrimitives(native),
      makeAead(rows) {
        const aead = new NativeAead(native, rows, DROP.forged);
        if (!aead.isLocked) {
          log("kernels")(
            "warning",
            "session keys may reach swap: raise the limit on locked memory (ulimit -l)",
          );
        }
        return aead;
      },
    };
  }
  if (config.kernels === "native") {
    throw new Error(`kernels = "native" cannot be used: ${native}; or set kernels = "auto"`);
  }
  log("kernels")("info", `portable, ChaCha20-Poly1305 by node:crypto: ${native}`);
  return { primitives: nodeCrypto, makeAead: (rows) => new PortableAead(nodeCrypto, rows, DROP.forged) };
}

/** The mmsg port where it runs and the config allows it; one line of the log says which and why. */
function choosePort(config: Config, arena: Arena, metrics: Metrics): Port {
  const native = config.io === "portable" ? "the config asks for it" : loadNative();
  if (config.io === "mmsg" && typeof native === "string") {
    throw new Error(`io = "mmsg" cannot be used: ${native}; or set io = "auto"`);
  }
  const onDrop = (reason: "port_error" | "arena_full") => metrics.drop(DROP[reason]);
  try {
    if (typeof native === "string") {
      log("io")("info", `portable, one datagram at a time: ${native}`);
      return new UdpPort({ ...config.listen, arena, onDrop });
    }
    const port = new MmsgPort({
      native,
      ...config.listen,
      onRefused: (datagrams) => metrics.drop(DROP.port_error, datagrams),
    });
    log("io")("info", "mmsg, whole bursts at a time");
    return port;
  } catch (error) {
    const where = formatEndpoint(config.listen);
    if (error instanceof Deno.errors.AddrInUse) {
      throw new Error(
        `UDP ${where} is taken: another relay or program listens there; stop it, or set listen to another port`,
      );
    }
    throw new Error(`cannot listen on UDP ${where}: ${(error as Error).message}; check the key "listen"`);
  }
}

async function start(message: Extract<ToWorker, { type: "start" }>): Promise<void> {
  const { config, tunnelIpv6 } = message;
  const metrics = new Metrics(message.counters);
  const arena = new Arena(ARENA_SLOTS);
  const kernels = chooseKernels(config);
  warmUp(kernels);
  const port = choosePort(config, arena, metrics);
  let exit: Exit, exitReason: string;
  try {
    [exit, exitReason] = await chooseExit(config, tunnelIpv6, metrics);
  } catch (error) {
    await port.close();
    throw error;
  }
  const relay = new Relay({
    arena,
    metrics,
    ...kernels,
    random: (bytes) => void crypto.getRandomValues(bytes as Uint8Array<ArrayBuffer>),
    limits: scaledLimits(message.timeScale),
    privateKey: message.privateKey,
    ipv4: hostOne(config.tunnelIpv4).address,
    ipv6: tunnelIpv6 === undefined ? undefined : hostOne(tunnelIpv6).address,
    mtu: config.mtu,
    maxConnections: config.maxConnections,
    rateLimitPerIp: config.rateLimitPerIp,
    destinations: config.destinations,
    worker: 0,
    unixOffsetUs: wallClockOffsetUs(),
  });
  const refreshOwn = () => relay.setOwnAddresses(ownAddresses());
  refreshOwn();
  const { failed } = relay.replacePeers(message.peers);
  const driver = new Driver(arena, relay, port, exit, metrics);
  const tellEvents = () => {
    for (let event = relay.pollEvent(); event; event = relay.pollEvent()) tell({ type: "event", event });
  };
  const timers = [setInterval(refreshOwn, OWN_ADDRESSES_MS), setInterval(tellEvents, EVENTS_MS)];
  plane = { relay, driver, port, exit, timers };
  if (message.failAfterMs !== undefined) {
    setTimeout(() => {
      throw new Error("it was asked to fail, for a test");
    }, message.failAfterMs);
  }
  driver.start();
  // What the native library holds is closed with its thread; what was opened by hand belongs to the process.
  const descriptors = [...exit.processDescriptors ?? []];
  tell({ type: "ready", listen: port.description, exit: exit.description, exitReason, failed, descriptors });
}

async function stop(): Promise<void> {
  if (plane) {
    plane.timers.forEach(clearInterval);
    await plane.driver.stop();
    plane.relay.close();
    await plane.port.close();
    await plane.exit.close();
    plane = undefined;
  }
  tell({ type: "stopped" });
}

async function answer(plane: DataPlane, data: Exclude<ToWorker, { type: "start" | "stop" }>) {
  if (data.type === "peers") return plane.relay.replacePeers(data.peers);
  if (data.type === "fault") return { fault: plane.exit.fault() };
  if (data.type === "tune") {
    plane.relay.tune(data.config);
    await plane.exit.openHost?.(opensHost(data.config));
    return null;
  }
  const nowUs = monotonicUs();
  return { peers: plane.relay.peerSnapshots(nowUs), sessions: plane.relay.sessionSnapshots(nowUs) };
}

scope.onmessage = async ({ data }: MessageEvent<ToWorker>) => {
  if (data.type === "start" || data.type === "stop") {
    try {
      await (data.type === "start" ? start(data) : stop());
    } catch (error) {
      tell({ type: "failed", message: (error as Error).message });
    }
    return;
  }
  const { id } = data;
  try {
    // What runs a program needs many turns of the event loop; a look at the tables needs none.
    if (data.type === "tune") plane?.driver.attend();
    tell({ type: "reply", id, value: plane ? await answer(plane, data) : null });
  } catch (error) {
    tell({ type: "error", id, message: (error as Error).message });
  }
};
