/**
 * The live view of `connect`: that its figures follow from the totals, by examples whose answers are known, and that the
 * picture says them within 80 columns.
 */
import { assert, assertAlmostEquals, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { type LinkStatus, renderLink } from "../../src/connect/view.ts";
import { type Counts, shares } from "../../src/connect/link/counts.ts";
import { CLASS_LABELS, type ClassCount, type ClassLabel } from "../../src/metrics.ts";
import type { LineSnapshot } from "../../src/session/peer_record.ts";
import type { RepairFigures } from "../../src/repair/figures.ts";

/** Totals by class; none of those that are not named. */
function classes(given: Partial<Record<ClassLabel, [packets: number, bytes: number]>> = {}): ClassCount[] {
  return CLASS_LABELS.map((label) => {
    const [packets, bytes] = given[label] ?? [0, 0];
    return { packets, bytes };
  });
}

const ZERO: Counts = {
  atMs: 0,
  session: 1,
  reported: 0,
  reportedReceived: 0,
  seen: 0,
  received: 0,
  bytesReceived: 0,
  bytesSent: 0,
  packets: 0,
  datagrams: 0,
  datagramBytes: 0,
  classesUp: classes(),
  classesDown: classes(),
  cpuUs: 0,
};

Deno.test("view: rates, losses and costs are differences of totals", () => {
  const later: Counts = {
    atMs: 2000,
    session: 1,
    reported: 1000,
    reportedReceived: 990,
    seen: 500,
    received: 400,
    bytesReceived: 2_000_000,
    bytesSent: 100_000,
    packets: 1000,
    // As many datagrams, each with 22 bytes around its packet.
    datagrams: 1000,
    datagramBytes: 122_000,
    classesUp: classes(),
    classesDown: classes(),
    cpuUs: 500_000,
  };
  const found = shares([ZERO, later]);
  assertAlmostEquals(found.lossUp!, 0.01, 1e-9);
  assertAlmostEquals(found.lossDown!, 0.2, 1e-9);
  assertEquals([found.rateReceived, found.rateSent], [1_000_000, 50_000]);
  assertEquals(found.overheadBytes, 22 + 28);
  assertEquals(found.savedBytes, 10_000, "32 - 22 for each packet");
  assertEquals(found.cpuShare, 0.25);
  // Two packets a datagram save an IP and a UDP header too.
  const batched = shares([ZERO, { ...later, datagrams: 500, datagramBytes: 113_000 }]);
  assertEquals([batched.overheadBytes, batched.savedBytes], [27, 33_000]);
});

Deno.test("view: a new session begins its own count, and late packets are no gain", () => {
  const old = { ...ZERO, reported: 5000, reportedReceived: 10, seen: 5000, received: 10 };
  const fresh = { ...ZERO, atMs: 1000, session: 2 };
  assertEquals(shares([old, fresh]).lossUp, undefined, "nothing was sent in it yet");
  const next = { ...fresh, atMs: 2000, reported: 10, reportedReceived: 9, seen: 10, received: 12 };
  const { lossUp, lossDown } = shares([old, fresh, next]);
  assertAlmostEquals(lossUp!, 0.1, 1e-9);
  assertEquals(lossDown, 0);
  assertEquals(shares([old]).rateSent, 0);
});

Deno.test("view: the mix is of the last moments, each direction by itself, and adds up", () => {
  const before = { ...ZERO, classesUp: classes({ game: [1000, 50_000], bulk: [10, 10_000] }) };
  const now = {
    ...ZERO,
    atMs: 1000,
    classesUp: classes({ game: [1060, 53_000], bulk: [50, 67_000] }),
    classesDown: classes({ voice: [3, 300] }),
  };
  const { mixUp, mixDown } = shares([before, now]);
  assertEquals(mixUp, { game: { packets: 0.6, bytes: 0.05 }, bulk: { packets: 0.4, bytes: 0.95 } });
  assertEquals(mixDown, { voice: { packets: 1, bytes: 1 } });
  assertEquals(shares([now, now]).mixUp, undefined, "nothing went");
  // A plane that was started again counts from zero.
  const anew = { ...now, classesUp: classes({ game: [5, 500] }) };
  assertEquals(shares([now, anew]).mixUp, { game: { packets: 1, bytes: 1 } });
});

const STATUS: LinkStatus = {
  server: "relay.example.com:4433",
  address: "192.0.2.1",
  state: "connected",
  handshakeAgeS: 65,
  rttMs: 12.34,
  jitterMs: 0.42,
  lossUp: 0.0123,
  lossDown: 0,
  repaired: 12,
  bytesReceived: 2048,
  bytesSent: 1024,
  rateReceived: 125_000,
  rateSent: 0,
  overheadBytes: 50.25,
  savedBytes: 1 << 20,
  applications: { "call of duty": 1, quic: 3 },
  mixUp: { bulk: { packets: 0.25, bytes: 0.9 }, game: { packets: 0.75, bytes: 0.1 } },
  cpuShare: 0.031,
  servers: [],
  uptimeS: 3600,
};

Deno.test("view: the picture says what it is given", () => {
  const lines = renderLink(STATUS, [{ ...STATUS, rateReceived: 0 }, STATUS], "everything");
  assertEquals(lines.length, 10);
  assertEquals(lines[0], "● connected to relay.example.com:4433 (192.0.2.1)  up 1h 0m");
  assertMatch(lines[1], /^ {2}round trip +12\.3 ms +██ {2}jitter 0\.4 ms$/);
  assertMatch(lines[2], /down +1\.0 Mbit\/s +▁█ +2\.0 KiB$/);
  assertEquals(lines[4], "  loss       0.00 % down, 1.23 % up  handshake 1m 5s ago");
  assertEquals(lines[5], "  costs      50.3 B a packet, CPU 3.10 %, 1.0 MiB less than WireGuard");
  assertEquals(lines[6], "  mix down   -");
  assertEquals(lines[7], "  mix up     game 75 % (10 %), bulk 25 % (90 %)");
  assertEquals(lines[8], "  flows      call of duty 1, quic 3");
  const servers = [{ server: STATUS.server, rttMs: 12 }, { server: "b.example.com:4433" }];
  const several = renderLink({ ...STATUS, servers }, [], "");
  assertEquals(several[9], "  relays     *relay.example.com:4433 12.0 ms   b.example.com:4433 -");
  const silent = renderLink({ ...STATUS, state: "silent", rttMs: undefined }, [], "")[0];
  assertStringIncludes(silent, "no answer from relay.example.com:4433");
});

const REPAIR: RepairFigures = {
  requests: 0,
  answered: 0,
  late: 0,
  useless: 0,
  lossRatio: 0.0512,
  residualRatio: 0.0034,
  repaired: 120,
  unrecovered: 3,
  repairs: 512,
  wasted: 392,
  extraRatio: 0.2411,
  scheme: "window 8, 24 %",
  isSilent: false,
};

Deno.test("view: each of several paths has a line", () => {
  const path = {
    number: 0,
    endpoint: "192.0.2.1:4433",
    door: 0,
    device: "wlan0",
    uses: ["games" as const, "bulk" as const],
    isSilent: false,
    isMetered: false,
    rttMs: 12.34,
    lossRatio: 0.0123,
    queueMs: 1,
    datagramBytes: 1452,
    bytesSent: 1000,
    share: 0.9,
    copiesSent: 0,
    copiesUseful: 3,
    failovers: 2,
  };
  const { endpoint: _, ...asked } = path;
  const more = { device: undefined, isMetered: true, uses: [], share: 0.1, failovers: 0 };
  const paths = [path, { ...path, ...more, number: 1 }, { ...asked, ...more, number: 2 }, {
    ...path,
    isSilent: true,
  }];
  const lines = renderLink({ ...STATUS, paths }, [], "");
  assertEquals(lines.slice(5, 9), [
    "  wlan0      games, bulk: 90 % of bytes, 12.3 ms, 1.23 % lost, left 2 times",
    "  path 1     idle, metered: 10 % of bytes, 12.3 ms, 1.23 % lost",
    "  path 2     not there yet, metered: 10 % of bytes, 12.3 ms, 1.23 % lost",
    "  wlan0      SILENT: 90 % of bytes, 12.3 ms, 1.23 % lost, left 2 times",
  ]);
});

Deno.test("view: repair is shown for each direction that has it", () => {
  const up = { ...REPAIR, scheme: "spaced, 30 ms later" };
  const both = renderLink({ ...STATUS, repairUp: up, repairDown: REPAIR }, [], "x").slice(5, 8);
  assertEquals(both, [
    "  repair     lost residual repaired   not wasted    extra  scheme",
    "    down   5.12 %   0.34 %      120     3    392  24.11 %  window 8, 24 %",
    "    up     5.12 %   0.34 %      120     3    392  24.11 %  spaced, 30 ms later",
  ]);
  const silent = renderLink({ ...STATUS, repairUp: { ...up, isSilent: true } }, [], "x").slice(6, 8);
  assertMatch(silent[0], /up .* no reports$/);
  assertMatch(silent[1], /costs/);
  const down = { ...REPAIR, requests: 46, answered: 43, late: 2, useless: 1, scheme: "on request, 5 %" };
  const asked = renderLink({ ...STATUS, repairDown: down }, [], "x").slice(6, 8);
  assertMatch(asked[0], /on request, 5 %$/);
  assertEquals(asked[1], "  asked  46 times: 43 in time, 2 late, 1 useless");
});

const LINE: LineSnapshot = {
  shapedBps: 9.5e6,
  rateBy: "found",
  path: { state: "cruise", bps: 10e6, leastRttMs: 41.2, queueMs: 1.5 },
  waiting: 3,
  marked: 4,
  drops: { queue_delay: 2, queue_stale: 1 },
  waits: { game: { p50Ms: 0.012, p99Ms: 1.25 }, bulk: { p50Ms: 20, p99Ms: 41 } },
  serializationMs: 1.2,
};

Deno.test("view: the line up is shown where anything is known of it, and what packets take here", () => {
  const latency = { queue: { p50Ms: 0.1, p99Ms: 0.49 }, processing: { p50Ms: 0.02, p99Ms: 0.2 } };
  assertEquals(renderLink({ ...STATUS, line: LINE, latency }, [], "x").slice(5, 8), [
    "  line up    9.5 Mbit/s (found), 1.2 ms a packet, cruise 10.0 Mbit/s +1.5 ms",
    "  waits      real-time 0.01/1.3 ms, other 20.0/41.0 ms, marked 4, lost 3",
    "  latency    queue 0.10/0.49 ms (under 0.5), processing 0.02/0.20 ms (over 0.1)",
  ]);
});

Deno.test("view: a full picture fits 80 columns", () => {
  const share = { packets: 0.34, bytes: 0.34 };
  const mixUp = {
    default: share,
    game: share,
    voice: share,
    interactive: { ...share, bytes: 1 },
    bulk: share,
  };
  const full: LinkStatus = {
    ...STATUS,
    line: LINE,
    latency: { queue: { p50Ms: 100, p99Ms: 999.9 }, processing: { p50Ms: 0.02, p99Ms: 0.2 } },
    mixUp,
    rateReceived: 124_987_654_321,
    bytesReceived: 1e15,
    rttMs: 1234.5,
  };
  const repairUp = { ...REPAIR, scheme: "spaced, 150 ms later", lossRatio: 1, repaired: 1e7, extraRatio: 1 };
  const worst = renderLink(
    { ...full, jitterMs: 999.9, repairUp },
    Array.from({ length: 30 }, () => full),
    "x",
  );
  for (const line of worst) assert([...line].length <= 80, `${[...line].length}: ${line}`);
});
