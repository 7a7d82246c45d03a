/**
 * Series of single devices for Prometheus, where the operator asks for them. Invariant: at most as many devices as the configuration
 * says have series of their own, those that moved the most bytes when a place was free, and a device keeps its place until it is
 * removed; all others are added up under a name that no device can have, with what devices counted that lost their place. Counters
 * and their sum never fall: a session that is counted from zero again, and a device that gets a place, take nothing away. Serves nobody.
 */
import { Counter, Gauge, type Registry } from "prom-client";
import type { PeerSnapshot } from "../session/peer_record.ts";

/** All devices without series of their own; a peer's name has no parentheses. */
export const OTHERS = "(others)";

const COUNTED = ["bytesReceived", "bytesSent", "drops"] as const;
type Counts = Record<(typeof COUNTED)[number], number>;

const COUNTERS: Record<(typeof COUNTED)[number], [name: string, help: string]> = {
  bytesReceived: ["oxrelay_device_received_bytes_total", "Bytes of outer UDP payloads from the device."],
  bytesSent: ["oxrelay_device_sent_bytes_total", "Bytes of outer UDP payloads to the device."],
  drops: ["oxrelay_device_dropped_packets_total", "Packets dropped after the device was identified."],
};
const ZERO: Counts = { bytesReceived: 0, bytesSent: 0, drops: 0 };

/** One device, or all others together. */
interface Series {
  total: Counts;
  connected: number;
  rttS: number | undefined;
  lossRatio: number | undefined;
}

/** Turns snapshots of all peers into series. */
export class DeviceSeries {
  /** By public key: what its session had counted at the last snapshot. */
  #seen = new Map<string, Counts>();
  /** By public key: the devices with series of their own. */
  #own = new Map<string, Series & { name: string }>();
  #others: Series = emptySeries();
  #last: readonly PeerSnapshot[] | undefined;

  /** Takes a snapshot, once: the same one again changes nothing. `max` is how many devices may have series of their own. */
  take(peers: readonly PeerSnapshot[], max: number): void {
    if (peers === this.#last) return;
    this.#last = peers;
    const present = new Set(peers.map(({ publicKey }) => publicKey));
    for (const key of [...this.#own.keys()]) if (!present.has(key)) this.#end(key);
    for (const key of [...this.#own.keys()].slice(max)) this.#end(key);
    const bytes = (peer: PeerSnapshot) => peer.bytesReceived + peer.bytesSent;
    const waiting = peers.filter((peer) => !this.#own.has(peer.publicKey) && bytes(peer) > 0);
    const free = max - this.#own.size;
    for (
      const { publicKey, name } of free <= 0
        ? []
        : waiting.toSorted((a, b) => bytes(b) - bytes(a)).slice(0, free)
    ) {
      this.#own.set(publicKey, { ...emptySeries(), name });
    }
    Object.assign(this.#others, { connected: 0 });
    const seen = new Map<string, Counts>();
    for (const peer of peers) {
      const series = this.#own.get(peer.publicKey) ?? this.#others;
      const before = this.#seen.get(peer.publicKey) ?? ZERO;
      for (const field of COUNTED) {
        // A count below the last one began anew.
        series.total[field] += peer[field] >= before[field] ? peer[field] - before[field] : peer[field];
      }
      if (bytes(peer) + peer.drops > 0) {
        seen.set(peer.publicKey, {
          bytesReceived: peer.bytesReceived,
          bytesSent: peer.bytesSent,
          drops: peer.drops,
        });
      }
      if (series === this.#others) {
        if (peer.connected) series.connected++;
        continue;
      }
      Object.assign(series, {
        name: peer.name,
        connected: peer.connected ? 1 : 0,
        rttS: peer.rttMs === undefined || !peer.connected ? undefined : peer.rttMs / 1000,
        lossRatio: peer.connected ? peer.lossRatio : undefined,
      });
    }
    this.#seen = seen;
  }

  /** Takes a device's series away; what it counted goes on with the others, so that sums over all series do not fall. */
  #end(key: string): void {
    const { total } = this.#own.get(key)!;
    for (const field of COUNTED) this.#others.total[field] += total[field];
    this.#own.delete(key);
  }

  /** Forgets everything, as when nobody may have series any more. */
  clear(): void {
    this.#seen = new Map();
    this.#own = new Map();
    this.#others = emptySeries();
    this.#last = undefined;
  }

  /** Each series with the name of its device. */
  *all(): Iterable<[device: string, series: Readonly<Series>]> {
    for (const series of this.#own.values()) yield [series.name, series];
    yield [OTHERS, this.#others];
  }
}

/** What the metrics ask for when scraped: how many devices may be named, 0 for none, and all peers. */
export interface DevicesAsked {
  max: number;
  peers: readonly PeerSnapshot[];
}

/** Registers the metrics of devices, which are empty while `ask` says that none may be named. */
export function addDevices(registry: Registry, ask: () => Promise<DevicesAsked>): void {
  const series = new DeviceSeries();
  const registers = [registry], labelNames = ["device"];
  let scrape: Promise<readonly [string, Readonly<Series>][]> | undefined;
  const fold = async () => {
    const { max, peers } = await ask();
    scrape = undefined;
    if (max === 0) {
      series.clear();
      return [];
    }
    series.take(peers, max);
    return [...series.all()];
  };
  /** One answer for all metrics of a scrape, which ask together. */
  const current = () =>
    scrape ??= fold().catch((error) => {
      scrape = undefined;
      throw error;
    });
  for (const field of COUNTED) {
    const [name, help] = COUNTERS[field];
    new Counter({
      name,
      help,
      labelNames,
      registers,
      async collect() {
        const all = await current();
        this.reset();
        for (const [device, { total }] of all) this.inc({ device }, total[field]);
      },
    });
  }
  const gauge = (name: string, help: string, read: (series: Readonly<Series>) => number | undefined) =>
    new Gauge({
      name,
      help,
      labelNames,
      registers,
      async collect() {
        const all = await current();
        this.reset();
        for (const [device, one] of all) {
          const value = read(one);
          if (value !== undefined) this.set({ device }, value);
        }
      },
    });
  gauge(
    "oxrelay_device_connected",
    "Whether the device has a session that can carry data; of the others, how many.",
    (one) => one.connected,
  );
  gauge("oxrelay_device_round_trip_seconds", "Round trip of the device's last handshake.", (one) => one.rttS);
  gauge(
    "oxrelay_device_loss_ratio",
    "Share 0 to 1 of the device's datagrams that did not arrive, of its present keys.",
    (one) => one.lossRatio,
  );
}

function emptySeries(): Series {
  return { total: { ...ZERO }, connected: 0, rttS: undefined, lossRatio: undefined };
}
