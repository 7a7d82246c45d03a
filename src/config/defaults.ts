/**
 * The value of every key that a file and the environment leave out. Invariant: deep-frozen, and valid by the schema's own bounds.
 */
import { ROLLOUT_DEFAULT } from "../control/rollout.ts";
import type { Config } from "./shape.ts";

/** The configuration of an empty file and an empty environment. */
export const DEFAULTS: Config = deepFreeze<Config>({
  listen: { host: "::", port: 4433 },
  maxConnections: 1000,
  rateLimitPerIp: 20,
  exit: "auto",
  kernels: "auto",
  io: "auto",
  tunName: "oxrelay0",
  tunnelIpv4: "10.66.0.0/16",
  tunnelIpv6: "auto",
  enableCompression: true,
  enableRohc: false,
  compressionThreshold: 256,
  mtu: 1420,
  enableBatching: true,
  enableMultipath: true,
  goFirst: true,
  batchWaitUs: 1000,
  repair: {
    enabled: true,
    budgetPercent: 25,
    gameDeadlineMs: 60,
    voiceDeadlineMs: 100,
    scheme: "auto",
    trafficAware: true,
    proactive: true,
    predictor: "default",
    requests: true,
    targetPercent: 0.1,
  },
  enablePriorityScheduler: true,
  congestionAlgorithm: "bbr_v3",
  rolloutPercent: ROLLOUT_DEFAULT,
  headers: { enabled: true, methods: ["elided"], bulk: false, contexts: 4096 },
  queues: { targetMs: 5, intervalMs: 100, ecn: true, packets: 4096 },
  dns: ["1.1.1.1", "2606:4700:4700::1111"],
  classes: { rules: [], applicationsInMetrics: false },
  destinations: {
    allowLoopback: false,
    allowLinkLocal: false,
    allowPrivate: false,
    allowPeers: false,
    allowSpeedtest: true,
    portMappings: 0,
    allow: [],
    deny: [],
  },
  trusted: [],
  metricsListen: { host: "127.0.0.1", port: 9090 },
  devicesInMetrics: 0,
  workers: 1,
  cpus: [],
  logLevel: "info",
  logFormat: "text",
  stateDir: "state",
});

/**
 * Fly.io: UDP must use the address of this host name, health checks come from outside the machine, and about
 * 1300 bytes of each datagram are usable: 1240 after WireGuard, UDP and IPv4 headers. IPv6 needs 1280.
 */
export const FLY_DEFAULTS: Config = deepFreeze<Config>({
  ...DEFAULTS,
  listen: { host: "fly-global-services", port: 4433 },
  metricsListen: { host: "::", port: 9090 },
  tunnelIpv6: "off",
  mtu: 1240,
});

/** Freezes the value and everything in it; returns it. */
export function deepFreeze<T>(value: T): T {
  if (typeof value === "object" && value !== null) {
    Object.values(value).forEach(deepFreeze);
    Object.freeze(value);
  }
  return value;
}
