/**
 * A made-up relay behind the real admin interface, over a real listener on loopback, for tests of the interface.
 */
import { getLogger } from "@logtape/logtape";
import { type AdminDeps, createAdmin, type PeerRow, Refusal } from "../../src/admin/mod.ts";
import { serveAdmin } from "../../src/admin/server.ts";
import { Metrics } from "../../src/metrics.ts";
import type { PeerRecord } from "../../src/session/peer_record.ts";

/** A peer that never connected, as /v1/peers lists it. */
export function rowOf({ presharedKey, ...record }: PeerRecord): PeerRow {
  return {
    ...record,
    hasPresharedKey: presharedKey !== undefined,
    disabled: record.disabled === true,
    state: record.disabled ? "disabled" : "offline",
    connected: false,
    bytesReceived: 0,
    bytesSent: 0,
    drops: 0,
    usage: { received: 0, sent: 0, monthReceived: 0, monthSent: 0 },
    receivedBps: 0,
    sentBps: 0,
  };
}

export const TOKEN = "a-token-of-the-operator";
export const KEY = "GtL7fZc/bLnqZldpVofMCD6hDjrK28SsdLxevJ+qtKU=";

/** What is asked seldom: nothing is there, and all is well. */
const QUIET = {
  applicationsInMetrics: () => false,
  devicesInMetrics: () => 0,
  applications: () => Promise.resolve({ zoom: 1, quic: 12 }),
  health: () => ({ ok: true, reasons: [] }),
  ready: () => ({ ok: true, reasons: [] }),
  keptOut: () => [],
  links: () => [],
  makeLink: () => Promise.reject(new Refusal("name", "not here")),
  revokeLink: () => Promise.resolve(false),
  redeemLink: () => Promise.resolve(undefined),
  events: () => [],
  noteEvent: () => {},
  history: () => ({ stepS: 1, samples: [] }),
} satisfies Partial<AdminDeps>;

/** A small relay behind the interface: two workers' counters and a list of peers. */
export function relay(overrides: Partial<AdminDeps> = {}): AdminDeps & { records: PeerRecord[] } {
  const records: PeerRecord[] = [];
  return {
    records,
    metrics: [new Metrics(), new Metrics()],
    status: () => ({
      name: "oxrelay",
      version: "1.2.3",
      startedAt: new Date(Date.now() - 5000),
      exit: "userspace",
      listen: "[::]:4433",
    }),
    snapshot: () =>
      Promise.resolve({
        peers: records.map(({ name, publicKey, allowedIps }) => ({
          name,
          publicKey,
          allowedIps,
          connected: false,
          bytesReceived: 0,
          bytesSent: 0,
          drops: 0,
        })),
        sessions: [],
        applications: { zoom: 1, quic: 12 },
        delays: { queue: [[], [0, 0, 4], [], [], []], processing: [] },
      }),
    config: () => ({ mtu: 1420, admin_token: "(set)" }),
    adminToken: () => TOKEN,
    url: () => "http://127.0.0.1:9090",
    network: () => "this relay's",
    reload: () =>
      Promise.resolve({
        peers: { added: ["phone"], removed: [], total: 3 },
        config: { applied: ["mtu"], needsRestart: ["listen"] },
      }),
    publicKey: () => KEY,
    peers: () => Promise.resolve(records.map(rowOf)),
    peerCount: () => records.length,
    addPeer({ name, publicKey = KEY, presharedKey, ...limits }) {
      if (records.some((record) => record.name === name)) {
        return Promise.reject(new Refusal("name", `peer ${name} exists already`));
      }
      const record = { name, publicKey, allowedIps: ["10.66.0.2/32"], created: "2026-01-01T00:00:00.000Z" };
      records.push({ ...record, ...limits, ...(presharedKey === undefined ? {} : { presharedKey }) });
      return Promise.resolve(record);
    },
    removePeer(name) {
      const at = records.findIndex((record) => record.name === name);
      if (at >= 0) records.splice(at, 1);
      return Promise.resolve(at >= 0);
    },
    changePeer: (name) => Promise.resolve(records.some((record) => record.name === name)),
    ping: (name) => Promise.resolve(name === "phone" ? 12.5 : name === "asleep" ? null : false),
    addForwards(name, forwards) {
      if (forwards.includes("udp:22")) {
        return Promise.reject(new Refusal("forwards", "UDP port 22 is in use"));
      }
      const { presharedKey: _, ...record } = records.find((record) => record.name === name) ??
        {} as PeerRecord;
      return Promise.resolve(record.name === undefined ? undefined : { ...record, forwards });
    },
    removeForward: (name, forward) =>
      Promise.resolve(records.some((record) => record.name === name) && forward === "udp:1"),
    restorePeer: () => Promise.resolve(false),
    ...QUIET,
    ...overrides,
  };
}

export interface Answer {
  status: number;
  headers: Headers;
  text: string;
  // deno-lint-ignore no-explicit-any
  json: any;
}

export type Ask = (
  path: string,
  init?: RequestInit & { headers?: Record<string, string> },
) => Promise<Answer>;

/** Serves `deps` on a free loopback port while `action` runs; what is asked bears the token unless it says otherwise. */
export async function withAdmin(
  deps: AdminDeps,
  action: (ask: Ask, port: number) => Promise<void>,
): Promise<void> {
  const server = serveAdmin(
    createAdmin(deps),
    { host: "127.0.0.1", port: 0 },
    getLogger(["oxrelay", "test"]),
  );
  const { port } = server.addr;
  try {
    await action(async (path, init) => {
      const headers = { authorization: `Bearer ${TOKEN}`, ...init?.headers };
      const response = await fetch(`http://127.0.0.1:${port}${path}`, { ...init, headers });
      const text = await response.text();
      const isJson = response.headers.get("content-type")?.startsWith("application/json");
      return {
        status: response.status,
        headers: response.headers,
        text,
        json: isJson ? JSON.parse(text) : undefined,
      };
    }, port);
  } finally {
    await server.shutdown();
  }
}
