/**
 * A relay without peers, if nobody adds one, for tests of the loop around it. Opens no port.
 */
import { portableSuite } from "../../src/codec/suite.ts";
import { wallClockOffsetUs } from "../../src/io/driver.ts";
import { DROP, type Metrics } from "../../src/metrics.ts";
import { Relay, type RelayOptions } from "../../src/relay.ts";
import { WIREGUARD_LIMITS } from "../../src/session/limits.ts";
import type { Arena } from "../../src/vector/arena.ts";
import { CLOSED } from "../kit/world.ts";

const { primitives, makeAead } = portableSuite({ forged: DROP.forged }).crypto;

export function idleRelay(arena: Arena, metrics: Metrics, options: Partial<RelayOptions> = {}): Relay {
  return new Relay({
    arena,
    metrics,
    primitives,
    makeAead,
    random: (bytes) => void crypto.getRandomValues(bytes as Uint8Array<ArrayBuffer>),
    limits: WIREGUARD_LIMITS,
    privateKey: crypto.getRandomValues(new Uint8Array(32)),
    ipv4: "10.66.0.1",
    ipv6: undefined,
    mtu: 1420,
    maxConnections: 1,
    rateLimitPerIp: 20,
    destinations: CLOSED,
    worker: 0,
    unixOffsetUs: wallClockOffsetUs(),
    ...options,
  });
}
