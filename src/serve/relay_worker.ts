/**
 * The relay worker: makes port, exit and core from the configuration that the main thread sends and over what that
 * thread has opened, and lets the driver run them. Invariant: whatever it opened itself is closed before it says
 * "stopped". Serves nothing and reads no file.
 */
/// <reference lib="deno.worker" />
import { type MessagePort as NodePort, receiveMessageOnPort } from "node:worker_threads";
import { libc } from "../../ffi/mod.ts";
import { loadNative } from "../../ffi/native.ts";
import { useBlake2s } from "../codec/hash.ts";
import type { Lz4 } from "../codec/kernels.ts";
import { type CryptoKernels, type Suite, suiteOf } from "../codec/suite.ts";
import type { Config } from "../config.ts";
import { readClassRule } from "../control/rule_text.ts";
import { hostOne, parsePrefix } from "../wire/address.ts";
import type { Exit } from "../exit/exit.ts";
import { TunQueue } from "../exit/tun/mod.ts";
import { openUserspace } from "../exit/userspace/mod.ts";
import { allowsFirst } from "../io/turn_priority.ts";
import { openNative } from "../io/choose.ts";
import { Driver, monotonicUs, wallClockOffsetUs } from "../io/driver.ts";
import { every } from "../io/every.ts";
import { Mailbox } from "../io/mailbox.ts";
import type { Port } from "../io/port.ts";
import { StreamSide } from "../io/stream_side.ts";
import { UdpPort } from "../io/udp.ts";
import { DROP, Metrics } from "../metrics.ts";
import { Relay, type RelayOptions } from "../relay.ts";
import { repairOptions } from "../repair/options.ts";
import { scaledLimits } from "../session/limits.ts";
import { queuesOptions } from "../tunnel_options.ts";
import { Arena } from "../vector/arena.ts";
import { adviseTables } from "../vector/memory.ts";
import { cannotListen, nativeIo } from "./doors.ts";
import type { PeerForward, RefusedPeerForward } from "./forwards.ts";
import type { FromWorker, ToWorker } from "./messages.ts";
import type { HeaderMethod } from "../wire/parameters.ts";
import { warmUp } from "../process/warmup.ts";

const ARENA_SLOTS = 16_384;
const OWN_ADDRESSES_MS = 5000;
const EVENTS_MS = 500;
/** How often the main thread is told what peers have received and sent, which their volume is measured by. */
const TRAFFIC_MS = 250;

const scope = self as unknown as DedicatedWorkerGlobalScope;
const tell = (message: FromWorker) => scope.postMessage(message);
const log = (area: string) => (level: "debug" | "info" | "warning" | "error", message: string) =>
  tell({ type: "log", level, area, message });

interface RunningRelay {
  relay: Relay;
  lz4: Lz4;
  driver: Driver;
  port: Port;
  exit: Exit;
  mailbox: Mailbox | undefined;
  stopTimers: (() => void)[];
}

let running: RunningRelay | undefined;

type StartMessage = Extract<ToWorker, { type: "start" }>;

/** Every address that ends on this host: its interfaces' own, and their IPv4 networks' broadcasts. */
function ownAddresses(): string[] {
  return Deno.networkInterfaces().flatMap(({ family, address, netmask }) => {
    if (family !== "IPv4") return [address];
    const mask = netmask.split(".").map(Number);
    return [address, address.split(".").map((byte, i) => Number(byte) | (~mask[i] & 255)).join(".")];
  });
}

function openExit({ config, tunnelIpv6, queue, device, maxFlows }: StartMessage, metrics: Metrics): Exit {
  const native = nativeIo(config);
  if (queue !== undefined) return new TunQueue(queue, device ?? "tun", native);
  return openUserspace({
    ipv4: hostOne(config.tunnelIpv4),
    ipv6: tunnelIpv6 === undefined ? undefined : hostOne(tunnelIpv6),
    mtu: config.mtu,
    native,
    metrics,
    maxFlows,
    log: log("exit"),
  });
}

/**
 * How long packets may be held, as TunnelOptions has it: only where the driver waits in the kernel, since the event loop's
 * timers would keep them a millisecond and more.
 */
function batchWaitUs({ enableBatching, batchWaitUs }: Config, port: Port, exit: Exit): number {
  if (!enableBatching) return -1;
  return port.wait === undefined || exit.descriptor === undefined ? 0 : batchWaitUs;
}

/** Keeps this thread to one processor, from whose memory its packets then come: nothing was touched yet. */
function pinTo(cpu: number): void {
  const mask = new Uint8Array(128);
  mask[cpu >> 3] = 1 << (cpu & 7);
  if (libc().sched_setaffinity(0, BigInt(mask.length), mask) !== 0) {
    throw new Error(
      `cpus: this machine, or its cgroup, has no processor ${cpu} for the relay; set cpus = []`,
    );
  }
}

/** The native kernels where they run and the config allows it; one line of the log says which and why. Throws a sentence. */
function chooseSuite({ kernels }: Config): Suite {
  const native = kernels === "portable" ? "the config asks for it" : loadNative();
  if (typeof native === "string" && kernels === "native") {
    throw new Error(`kernels = "native" cannot be used: ${native}; or set kernels = "auto"`);
  }
  const suite = suiteOf(native, {
    forged: DROP.forged,
    onSwappable: () =>
      log("kernels")(
        "warning",
        "session keys may reach swap: raise the limit on locked memory (ulimit -l)",
      ),
  });
  const why = typeof native === "string" ? native : "the fastest that this processor runs";
  log("kernels")("info", `${suite.kind}, ChaCha20-Poly1305 by ${suite.by}: ${why}`);
  useBlake2s(suite.blake2s);
  adviseTables(suite.adviser);
  return suite;
}

/** The port that was chosen; one line of the log says which and why. */
function openPort({ config, port, socket }: StartMessage, arena: Arena, metrics: Metrics): Port {
  const { listen } = config;
  const native = nativeIo(config);
  try {
    if (typeof port === "string" || typeof native === "string") {
      log("io")("info", `portable, one datagram at a time: ${port}`);
      const open = (host: string) =>
        new UdpPort({ host, port: listen.port, arena, onDrop: (reason) => metrics.drop(DROP[reason]) });
      try {
        return open(listen.host);
      } catch (error) {
        // A system without IPv6.
        if (listen.host !== "::" || error instanceof Deno.errors.AddrInUse) throw error;
        return open("0.0.0.0");
      }
    }
    log("io")("info", `${port.io}, whole bursts at a time: ${port.reason}`);
    const onRefused = (datagrams: number) => metrics.drop(DROP.port_error, datagrams);
    return openNative(port, { native, ...listen, socket, onRefused });
  } catch (error) {
    const taken = error instanceof Deno.errors.AddrInUse;
    throw new Error(cannotListen(config, taken ? undefined : (error as Error).message));
  }
}

/** What the worker moves packets with, besides its sockets. */
type Kernels = CryptoKernels & Pick<RelayOptions, "repair"> & {
  /** Also where nothing is compressed now: a reload may change that. */
  lz4: Lz4;
};

function makeKernels(config: Config): Kernels {
  const suite = chooseSuite(config);
  const { enabled } = config.repair;
  return {
    ...suite.crypto,
    lz4: suite.makeLz4(),
    ...(enabled ? { repair: repairOptions(suite.makeShards(), config.repair) } : {}),
  };
}

async function start(message: StartMessage): Promise<void> {
  const { config, worker, mailboxes } = message;
  if (config.cpus.length > 0) pinTo(config.cpus[worker]);
  const columns = message.counters.map((shared) => new Metrics(shared));
  const metrics = columns[worker];
  const arena = new Arena(ARENA_SLOTS);
  const kernels = makeKernels(config);
  log("kernels")("debug", `${warmUp(kernels)} packets have taught the compiler the routes`);
  const mailbox = mailboxes && new Mailbox(worker, mailboxes, (code) => metrics.drop(code));
  const socket = openPort(message, arena, metrics);
  // Behind the Workers' mailboxes comes the fallback's.
  const port = mailbox && config.fallback ? new StreamSide(socket, mailbox, columns.length) : socket;
  let exit: Exit;
  try {
    exit = openExit(message, metrics);
  } catch (error) {
    await port.close();
    throw error;
  }
  const relay = makeRelay(message, { arena, columns, kernels, port, exit });
  const { failed } = relay.replacePeers(message.peers, monotonicUs());
  const refused = setForwards(exit, message.forwards ?? []);
  const driver = makeDriver(message, { arena, relay, port, exit, metrics, mailbox });
  running = { relay, lz4: kernels.lz4, driver, port, exit, mailbox, stopTimers: startTimers(relay) };
  if (message.failAfterMs !== undefined) {
    setTimeout(() => {
      throw new Error("it was asked to fail, for a test");
    }, message.failAfterMs);
  }
  exit.onPortControl?.((request) => tell({ type: "portControl", request }));
  driver.start();
  // What the native library holds is closed with its thread; what was opened by hand belongs to the process.
  const descriptors = [...exit.processDescriptors ?? []];
  tell({ type: "ready", listen: port.description, exit: exit.description, failed, refused, descriptors });
}

/** How headers are made small, best first. */
function headerMethods({ enableRohc, headers: { methods } }: Config): readonly HeaderMethod[] {
  return enableRohc ? ["rohc", ...methods.filter((method) => method !== "rohc")] : methods;
}

/** The core, without peers yet. */
function makeRelay(
  { config, tunnelIpv6, worker, timeScale, privateKey }: StartMessage,
  { arena, columns, kernels, port, exit }: {
    arena: Arena;
    columns: Metrics[];
    kernels: Kernels;
    port: Port;
    exit: Exit;
  },
): Relay {
  const relay = new Relay({
    arena,
    metrics: columns[worker],
    ...kernels,
    lz4: config.enableCompression ? kernels.lz4 : undefined,
    compressionThreshold: config.compressionThreshold,
    headersOfBulk: config.headers.bulk,
    headerMethods: headerMethods(config),
    hasSeveralPaths: config.enableMultipath,
    headerContexts: config.headers.enabled ? config.headers.contexts : undefined,
    random: (bytes) => void crypto.getRandomValues(bytes as Uint8Array<ArrayBuffer>),
    limits: scaledLimits(timeScale),
    privateKey,
    ipv4: hostOne(config.tunnelIpv4).address,
    ipv6: tunnelIpv6 === undefined ? undefined : hostOne(tunnelIpv6).address,
    mtu: config.mtu,
    exitHairpins: exit.hairpins === true,
    exitIsSource: exit.name === "userspace",
    batchWaitUs: batchWaitUs(config, port, exit),
    queues: queuesOptions(config),
    rolloutPercent: config.rolloutPercent,
    maxConnections: config.maxConnections,
    rateLimitPerIp: config.rateLimitPerIp,
    destinations: config.destinations,
    trusted: config.trusted,
    worker,
    workers: columns.length,
    connectionsElsewhere: () => {
      let connections = 0;
      for (let i = 0; i < columns.length; i++) {
        if (i !== worker) connections += columns[i].get("connections");
      }
      return connections;
    },
    unixOffsetUs: wallClockOffsetUs(),
  });
  relay.setClassRules(config.classes.rules.map((text) => readClassRule(text, parsePrefix)));
  relay.setOwnAddresses(ownAddresses());
  return relay;
}

/** The loop over core, port and exit, which also takes the main thread's messages. */
function makeDriver(
  { control, bell, config }: StartMessage,
  { arena, relay, port, exit, metrics, mailbox }: {
    arena: Arena;
    relay: Relay;
    port: Port;
    exit: Exit;
    metrics: Metrics;
    mailbox: Mailbox | undefined;
  },
): Driver {
  const takeMessages = () => {
    const port = control as unknown as NodePort;
    for (let taken = receiveMessageOnPort(port); taken; taken = receiveMessageOnPort(port)) {
      hear(taken.message);
    }
  };
  const messages = bell === undefined ? undefined : { bell, takeMessages };
  const goesFirst = config.goFirst && allowsFirst(config.workers);
  const driver = new Driver(arena, relay, port, exit, metrics, mailbox, messages, goesFirst);
  if (!driver.waits) control.onmessage = ({ data }) => hear(data);
  return driver;
}

/** Looks at the host's addresses and at what happened to peers from time to time; returns what ends that. */
function startTimers(relay: Relay): (() => void)[] {
  const tellEvents = () => {
    for (let event = relay.pollEvent(); event; event = relay.pollEvent()) tell({ type: "event", event });
  };
  return [
    every(
      OWN_ADDRESSES_MS,
      () => relay.setOwnAddresses(ownAddresses()),
      ({ message }) =>
        log("exit")("warning", `the addresses known as this host's own stay as they were: ${message}`),
    ),
    every(EVENTS_MS, tellEvents, ({ message }) => log("peers")("warning", message)),
    every(TRAFFIC_MS, () => tellTraffic(relay), ({ message }) => log("peers")("warning", message)),
  ];
}

function tellTraffic(relay: Relay): void {
  const traffic = relay.takeTraffic();
  if (traffic.publicKeys.length > 0) tell({ type: "traffic", traffic });
}

async function stop(): Promise<void> {
  if (running) {
    running.stopTimers.forEach((stop) => stop());
    await running.driver.stop();
    running.relay.close();
    tellTraffic(running.relay);
    await running.port.close();
    await running.exit.close();
    await running.mailbox?.close();
    running = undefined;
  }
  tell({ type: "stopped" });
}

/** Opens the ports of peers that this Worker owns; returns those that it could not open. */
function setForwards(exit: Exit, forwards: readonly PeerForward[]): RefusedPeerForward[] {
  const refused = exit.setForwards?.(forwards) ?? [];
  return refused.map(({ forward, reason }) => ({ forward: forward as PeerForward, reason }));
}

function answer(running: RunningRelay, data: Exclude<ToWorker, { type: "start" | "stop" | "portControl" }>) {
  if (data.type === "peers") {
    const report = running.relay.changePeers(data.changed, data.gone, monotonicUs());
    const released = running.relay.takeReleased();
    if (released.length > 0) running.exit.forget?.(released);
    return report;
  }
  if (data.type === "forwards") return setForwards(running.exit, data.forwards);
  if (data.type === "tune") {
    const { config } = data;
    const { compressionThreshold: thresholdBytes } = config;
    const compression = config.enableCompression ? { lz4: running.lz4, thresholdBytes } : undefined;
    running.relay.tune({ ...config, compression }, monotonicUs());
    return null;
  }
  const nowUs = monotonicUs();
  const { relay, driver } = running;
  if (data.type === "seenPeers") return relay.seenPeers(data.from, nowUs);
  if (data.type === "ping") {
    if (data.request !== undefined) return relay.roundTripUs(data.request);
    const request = relay.ping(data.publicKey);
    driver.turn();
    return request ?? null;
  }
  return {
    peers: relay.peerSnapshots(nowUs),
    sessions: relay.sessionSnapshots(nowUs),
    applications: relay.applications(nowUs),
    delays: { queue: relay.queueDelays(), processing: driver.processing.counts(0) },
  };
}

/** Answers one message after the start. */
function hear(message: Exclude<ToWorker, { type: "start" }>): void {
  if (message.type === "stop") {
    whileTelling(stop);
    return;
  }
  if (message.type === "portControl") {
    running?.exit.answerPortControl?.(message.answer);
    return;
  }
  const { id } = message;
  try {
    tell({ type: "reply", id, value: running ? answer(running, message) : null });
  } catch (error) {
    tell({ type: "error", id, message: (error as Error).message });
  }
}

async function whileTelling(act: () => Promise<void>): Promise<void> {
  try {
    await act();
  } catch (error) {
    tell({ type: "failed", message: (error as Error).message });
  }
}

scope.onmessage = ({ data }: MessageEvent<StartMessage>) => whileTelling(() => start(data));
