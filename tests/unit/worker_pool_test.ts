/**
 * Relay workers as the main thread has them: one snapshot for all who ask at about the same time, and an end that no Worker
 * holds up.
 */
import { assert, assertEquals, assertLessOrEqual, assertRejects, assertStrictEquals } from "@std/assert";
import { createAdmin } from "../../src/admin/mod.ts";
import { GRACE_MS } from "../../src/admin/server.ts";
import { parseConfig } from "../../src/config.ts";
import type { Doors } from "../../src/serve/doors.ts";
import type { PeerForward } from "../../src/serve/forwards.ts";
import { Recent } from "../../src/serve/recent.ts";
import { STOP_MS, WorkerHandle, type WorkerLike } from "../../src/serve/worker_handle.ts";
import { WorkerPool } from "../../src/serve/worker_pool.ts";
import { relay, rowOf, TOKEN } from "../kit/admin_relay.ts";
import type { AdmittedPeer, RelaySnapshot } from "../../src/session/peer_record.ts";

const WORKERS = 2, ASKERS = 20, HOUR_MS = 3_600_000;
const KEY = "w7mYSzvpyVRzRXBL7wUgT8YWQBVQAySOhwJlQ8rFgUU=";
const PEER = { name: "phone", publicKey: KEY, allowedIps: ["10.66.0.2/32"], created: "2026" };

/** Three packets that took 4 to 6 us in each Worker, and none that waited. */
const DELAYS = { queue: [[], [], [], [], []], processing: [0, 0, 0, 0, 3] };

/** A pool whose Workers count the snapshots that they are asked for, and answer when they are let. */
function countingPool() {
  let asked = 0;
  let allowed = Promise.withResolvers<void>();
  const doors = {
    fallback: undefined,
    steer: () => {},
    setPeers: () => Promise.resolve({ forget: () => Promise.resolve() }),
    setForwards: () => Promise.resolve([]),
  } as unknown as Doors;
  const pool = new WorkerPool(WORKERS, doors, () => ({
    fatal: undefined,
    start: () => Promise.reject(new Error("not asked for")),
    changePeers: () => Promise.resolve({ added: ["phone"], removed: [], failed: [] }),
    setForwards: () => Promise.resolve([]),
    onPortControl: () => {},
    answerPortControl: () => {},
    tune: () => Promise.resolve(),
    stop: () => Promise.resolve(),
    seenPeers: () => Promise.resolve(undefined),
    onEvent: () => {},
    onTraffic: () => {},
    ping: () => Promise.resolve(null),
    snapshot: async (): Promise<RelaySnapshot> => {
      asked++;
      await allowed.promise;
      return { peers: [], sessions: [], applications: { zoom: 3 }, delays: DELAYS };
    },
  }));
  return {
    pool,
    asked: () => asked,
    answer: () => allowed.resolve(),
    hold: () => void (allowed = Promise.withResolvers<void>()),
  };
}

function adminOf(pool: WorkerPool) {
  return createAdmin({
    ...relay(),
    metrics: pool.metrics,
    snapshot: (maxAgeMs) => pool.snapshot(maxAgeMs),
    applicationsInMetrics: () => true,
    peers: async (maxAgeMs) => (await pool.snapshot(maxAgeMs)).peers.map(() => rowOf(PEER)),
    adminToken: () => TOKEN,
  });
}

Deno.test("pool: scrapes and status at one time share one snapshot of each Worker", async () => {
  const { pool, asked, answer } = countingPool();
  const app = adminOf(pool);
  const headers = { authorization: `Bearer ${TOKEN}` };
  const paths = ["/metrics", "/v1/status", "/v1/peers", "/v1/sessions"];
  const replies = Array.from(
    { length: ASKERS },
    (_, i) => app.request(`http://127.0.0.1/${paths[i % paths.length].slice(1)}`, { headers }),
  );
  answer();
  for (const [i, reply] of (await Promise.all(replies)).entries()) {
    assertEquals(reply.status, 200);
    const text = await reply.text();
    if (i % paths.length === 0) assert(text.includes('oxrelay_recognised_flows{application="zoom"} 6'), text);
    if (i % paths.length !== 1) continue;
    const { applications, latency } = JSON.parse(text);
    assertEquals(applications, { zoom: 6 });
    assertEquals(latency, { queueByClass: {}, processing: { p50Ms: 0.005, p99Ms: 0.005 } });
  }
  assertEquals(asked(), WORKERS);
  // What the operator asks for is of the moment.
  const ask = (path: string) => app.request(`http://127.0.0.1${path}`, { headers });
  await ask("/v1/status");
  assertEquals(asked(), 2 * WORKERS, "one for peers and applications together");
});

Deno.test("pool: the page's peers come in parts from each Worker, applications in one, once for all who ask", async () => {
  const asked: number[] = [];
  const doors = { fallback: undefined } as unknown as Doors;
  const rowsOf = (from: number) =>
    Array.from({ length: 64 }, (_, i) => ({ ...rowOf(PEER), name: `peer-${from + i}` }));
  const pool = new WorkerPool(WORKERS, doors, () => ({
    seenPeers(from: number) {
      asked.push(from);
      const applications = from === 0 ? { applications: { zoom: 3 } } : {};
      return Promise.resolve({
        peers: rowsOf(from),
        ...(from < 128 ? { next: from + 64 } : {}),
        ...applications,
      });
    },
  } as unknown as ReturnType<NonNullable<ConstructorParameters<typeof WorkerPool>[2]>>));
  const [one, other] = await Promise.all([pool.seenPeers(900), pool.seenPeers(900)]);
  assertStrictEquals(one, other);
  assertEquals(asked.sort((a, b) => a - b), [0, 0, 64, 64, 128, 128]);
  assertEquals(one.peers.length, WORKERS * 3 * 64);
  asked.length = 0;
  const [some, same] = await Promise.all([pool.applications(900), pool.applications(900)]);
  assertStrictEquals(some, same);
  assertEquals(some, { zoom: 6 });
  assertEquals(asked, [0, 0], "one question to each Worker, however many peers there are");
});

Deno.test("pool: a change that failed is told again by the next one, and one that was carried out is not", async () => {
  const told: unknown[] = [];
  let isFailing = true;
  const doors = {
    steer: () => {},
    setPeers: () => Promise.resolve({ forget: () => Promise.resolve() }),
    setForwards: () => Promise.resolve([]),
  } as unknown as Doors;
  const pool = new WorkerPool(1, doors, () => ({
    changePeers(changed: AdmittedPeer[], gone: string[]) {
      told.push([changed.map(({ barred }) => barred), gone]);
      if (isFailing) return Promise.reject(new Error("out of order"));
      return Promise.resolve({ added: [], removed: [], failed: [] });
    },
  } as unknown as ReturnType<NonNullable<ConstructorParameters<typeof WorkerPool>[2]>>));
  const barred = { ...PEER, barred: "expired" as const };
  await assertRejects(() => pool.setPeers([barred]), Error, "out of order");
  isFailing = false;
  told.length = 0;
  await pool.setPeers([barred]);
  assertEquals(told[0], [["expired"], []]);
  told.length = 0;
  await pool.setPeers([barred]);
  assertEquals(told, [[[], []]]);
  isFailing = true;
  await assertRejects(() => pool.setPeers([]), Error, "out of order");
  isFailing = false;
  told.length = 0;
  await pool.setPeers([]);
  assertEquals(told[0], [[], [KEY]]);
});

Deno.test("pool: after a change of peers nobody gets the snapshot from before", async () => {
  const { pool, asked, answer, hold } = countingPool();
  answer();
  await pool.snapshot(HOUR_MS);
  await pool.snapshot(HOUR_MS);
  assertEquals(asked(), WORKERS);
  await pool.setPeers([PEER]);
  await pool.snapshot(HOUR_MS);
  assertEquals(asked(), 2 * WORKERS);
  // Nor one that was under way meanwhile.
  await pool.setPeers([]);
  hold();
  const before = pool.snapshot(HOUR_MS);
  await pool.setPeers([PEER]);
  const after = pool.snapshot(HOUR_MS);
  answer();
  assert(await after !== await before);
  assertEquals(asked(), 4 * WORKERS);
});

Deno.test("recent: an answer is good for as long as its asker allows, from when it was begun, and a failure for nobody later", async () => {
  let nowMs = 0, read = 0;
  let failing = false;
  const recent = new Recent(
    () => failing ? Promise.reject(new Error("out of order")) : Promise.resolve({ read: ++read }),
    () => nowMs,
  );
  const first = await recent.take(900);
  nowMs = 899;
  assertStrictEquals(await recent.take(900), first);
  nowMs = 900;
  assertEquals(await recent.take(900), { read: 2 });
  assertEquals(await recent.take(0), { read: 3 }, "who wants it of the moment gets it so");
  assertEquals(await recent.take(1), { read: 3 }, "and others have it too");
  recent.forget();
  assertEquals(await recent.take(900), { read: 4 });
  failing = true;
  recent.forget();
  const both = [recent.take(900), recent.take(900)];
  for (const one of both) await assertRejects(() => one, Error, "out of order");
  failing = false;
  assertEquals(await recent.take(900), { read: 5 });
});

/** A Worker that starts, and never answers anything else. */
class StuckWorker implements WorkerLike {
  onmessage: Worker["onmessage"] = null;
  onerror: Worker["onerror"] = null;
  readonly #steps: string[];

  constructor(steps: string[]) {
    this.#steps = steps;
  }

  postMessage(message: { control: MessagePort }): void {
    const { control } = message;
    control.onmessage = ({ data }) => {
      this.#steps.push(data.type);
      control.close();
    };
    const data = { type: "ready", listen: "here", exit: "nowhere", failed: [], refused: [], descriptors: [] };
    queueMicrotask(() =>
      this.onmessage?.call(this as unknown as Worker, new MessageEvent("message", { data }))
    );
  }

  terminate(): void {
    this.#steps.push("terminated");
  }
}

Deno.test("pool: a Worker that does not answer is ended, and the doors are closed behind it", async () => {
  const steps: string[] = [];
  const doors = {
    port: "no port",
    sockets: [],
    bells: [],
    steer: () => {},
    setPeers: () => Promise.resolve({ forget: () => Promise.resolve() }),
    setForwards: () => Promise.resolve([]),
    close: () => Promise.resolve(void steps.push("doors closed")),
  } as unknown as Doors;
  const pool = new WorkerPool(
    1,
    doors,
    (name, metrics) => new WorkerHandle(name, metrics, () => new StuckWorker(steps)),
  );
  await pool.start({
    config: parseConfig("", "a test's", {}),
    privateKey: new Uint8Array(32),
    tunnelIpv6: undefined,
    peers: [],
    timeScale: 1,
  });
  await pool.stop();
  assertEquals(steps, ["stop", "terminated", "doors closed"]);
});

Deno.test("pool: Workers and HTTP clients together have less than the two seconds that SIGTERM may take", () => {
  // One after the other, and what is left is for the host's rules.
  assertLessOrEqual(STOP_MS + GRACE_MS, 1500);
});

Deno.test("pool: a lent port that meets a record keeps no other forward closed, and is told as refused to who lent it", async () => {
  const opened: string[][] = [];
  const doors = {
    steer: () => {},
    setPeers: () => Promise.resolve({ forget: () => Promise.resolve() }),
    setForwards: (all: readonly PeerForward[]) => {
      opened.push(all.map(({ protocol, outer, port }) => `${protocol} ${outer} ${port}`));
      return Promise.resolve([]);
    },
  } as unknown as Doors;
  const pool = new WorkerPool(WORKERS, doors, () => ({
    changePeers: () => Promise.resolve({ added: [], removed: [], failed: [] }),
  } as unknown as ReturnType<NonNullable<ConstructorParameters<typeof WorkerPool>[2]>>));
  const lent = (outer: number, port: number): PeerForward => ({
    protocol: "udp",
    outer,
    address: "10.66.0.2",
    port,
    peer: "phone",
    publicKey: KEY,
  });
  await pool.setPeers([PEER]);
  const leased = [lent(4000, 5000), lent(4001, 80), lent(4002, 5002)];
  assertEquals(await pool.setForwards(leased), []);
  const record = { ...PEER, forwards: ["udp:4000:81", "udp:9000:80"] };
  assertEquals((await pool.setPeers([record])).refused, []);
  assertEquals(opened.at(-1), ["udp 4000 81", "udp 9000 80", "udp 4002 5002"]);
  assertEquals((await pool.setForwards(leased)).map(({ forward }) => forward.outer), [4000, 4001]);
});

Deno.test("pool: ports that Workers' exits could not open are known from the start, of every Worker", async () => {
  const doors = {
    sockets: [],
    bells: [],
    steer: () => {},
    setPeers: () => Promise.resolve({ forget: () => Promise.resolve() }),
    // The userspace exit's forwards are its Workers'.
    setForwards: () => Promise.resolve(undefined),
  } as unknown as Doors;
  const refusedBy = (worker: number) => ({
    forward: {
      protocol: "udp" as const,
      outer: 7000 + worker,
      address: "10.66.0.2",
      port: 80,
      peer: "phone",
      publicKey: KEY,
    },
    reason: "is in use",
  });
  const pool = new WorkerPool(WORKERS, doors, () => ({
    start: ({ worker }: { worker: number }) =>
      Promise.resolve({
        type: "ready",
        listen: "here",
        exit: "userspace",
        failed: [],
        refused: [refusedBy(worker)],
      }),
  } as unknown as ReturnType<NonNullable<ConstructorParameters<typeof WorkerPool>[2]>>));
  const { failed } = await pool.start({ peers: [PEER] } as unknown as Parameters<typeof pool.start>[0]);
  assertEquals(pool.refused.map(({ forward }) => forward.outer), [7000, 7001]);
  assertEquals(
    failed,
    [7000, 7001].map((port) => `udp:${port} of peer "phone" is not forwarded: UDP port ${port} is in use`),
  );
});
