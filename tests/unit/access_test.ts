/** Limits of peers and what is kept for the page: bars, traffic over restarts, one-time links, events, history. */
import { assert, assertEquals, assertGreater, assertMatch, assertRejects } from "@std/assert";
import { Refusal } from "../../src/admin/mod.ts";
import { keyToText } from "../../src/process/keys_text.ts";
import { AGAIN_MS, barOf, BarredPool } from "../../src/serve/access/bars.ts";
import { EventLog, EVENTS_MAX } from "../../src/serve/access/event_log.ts";
import { History } from "../../src/serve/access/history.ts";
import { TrafficLedger, WRITE_MS } from "../../src/serve/access/ledger.ts";
import { Links, LINKS_MAX } from "../../src/serve/access/links.ts";
import type { AdmittedPeer, PeerRecord } from "../../src/session/peer_record.ts";

const NOVEMBER = Date.parse("2026-11-30T23:59:59Z"), DECEMBER = Date.parse("2026-12-01T00:00:01Z");
const keyOf = (number: number) => keyToText(new Uint8Array(32).fill(number));
const KEY = keyOf(9);
const recordOf = (number: number, more: Partial<PeerRecord> = {}): PeerRecord => ({
  name: `peer-${number}`,
  publicKey: keyOf(number),
  allowedIps: [`10.66.0.${number + 2}/32`],
  created: "2026-01-01T00:00:00.000Z",
  ...more,
});
const traffic = (received: number, sent: number, publicKey = KEY) => ({
  publicKeys: [publicKey],
  received: [received],
  sent: [sent],
});

async function withDirectory(act: (directory: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "oxrelay-access-" });
  try {
    await act(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

const silent = () => {};

Deno.test("ledger: counts survive a restart, and a month begins with the calendar's, never with a clock set back", () =>
  withDirectory(async (directory) => {
    const first = await TrafficLedger.open(directory, NOVEMBER, silent);
    first.add(traffic(100, 20), 0);
    first.add(traffic(1, 2), 10);
    await first.flush(new Set([KEY]));
    assertEquals((await Deno.stat(first.path)).mode! & 0o777, 0o600);
    const second = await TrafficLedger.open(directory, NOVEMBER, silent);
    assertEquals(second.of(KEY), { received: 101, sent: 22, monthReceived: 101, monthSent: 22 });
    assertEquals(second.turnMonth(NOVEMBER), false);
    assertEquals(second.turnMonth(DECEMBER), true);
    second.add(traffic(5, 5), 20);
    assertEquals(second.turnMonth(NOVEMBER), false, "the clock went back");
    assertEquals(second.of(KEY), { received: 106, sent: 27, monthReceived: 5, monthSent: 5 });
    await second.flush(new Set());
    const third = await TrafficLedger.open(directory, NOVEMBER, silent);
    assertEquals(third.of(KEY).monthReceived, 5, "nor does a restart under such a clock begin one");
    assertEquals(third.of(keyOf(1)), { received: 0, sent: 0, monthReceived: 0, monthSent: 0 });
  }));

Deno.test("ledger: a clock that was years ahead and is set right holds up no month, nor does one that begins in 1970 end one", () =>
  withDirectory(async (directory) => {
    const open = (wallMs: number) => TrafficLedger.open(directory, wallMs, silent);
    const first = await open(NOVEMBER);
    first.add(traffic(7, 0), 0);
    assertEquals(first.turnMonth(Date.parse("2036-01-01T00:00:00Z")), true);
    first.add(traffic(5, 0), 10);
    assertEquals(first.turnMonth(NOVEMBER), false, "set right");
    assertEquals(first.of(KEY).monthReceived, 5);
    await first.flush(new Set([KEY]));
    const second = await open(DECEMBER); // it was down when the month turned
    assertEquals(second.of(KEY), { received: 12, sent: 0, monthReceived: 0, monthSent: 0 });
    second.add(traffic(3, 0), 20);
    await second.flush(new Set([KEY]));
    const third = await open(0); // a machine without a clock of its own has just started
    third.add(traffic(1, 0), 0);
    await third.flush(new Set([KEY]));
    for (const ledger of [third, await open(0)]) {
      assertEquals(ledger.turnMonth(DECEMBER), false, "its time is known");
      assertEquals(ledger.of(KEY).monthReceived, 4);
      assertEquals(ledger.turnMonth(Date.parse("2027-01-01T00:00:00Z")), true);
    }
  }));

Deno.test("ledger: the file is written at most once in WRITE_MS, so that kill -9 loses no more than that", () =>
  withDirectory(async (directory) => {
    const ledger = await TrafficLedger.open(directory, NOVEMBER, silent);
    let written = 0, text = "";
    for (let nowMs = 0; nowMs <= 3 * WRITE_MS; nowMs += 250) {
      ledger.add(traffic(1, 0), nowMs);
      await ledger.save(nowMs, new Set([KEY]));
      const now = await Deno.readTextFile(ledger.path);
      if (now !== text) written++;
      text = now;
      const stored = await TrafficLedger.open(directory, NOVEMBER, silent);
      assertGreater(stored.of(KEY).received * 250 + WRITE_MS, nowMs, "as if it were killed now");
    }
    assertEquals(written, 4);
  }));

Deno.test("ledger: a damaged file is kept aside, one that cannot be read is not written over, a refusing disk is said once", () =>
  withDirectory(async (directory) => {
    const said: string[] = [];
    const path = `${directory}/traffic.json`;
    for (const damaged of ["{", '{"version":1,"month":"2026-11","peers":{"x":[1,2,3,4]}}', '{"version":2}']) {
      await Deno.writeTextFile(path, damaged);
      const ledger = await TrafficLedger.open(directory, NOVEMBER, (message) => said.push(message));
      assertEquals(await Deno.readTextFile(`${path}.damaged`), damaged);
      assertMatch(said.pop()!, /traffic\.json was damaged and is now .*\.damaged/);
      ledger.add(traffic(1, 1), 0);
      await ledger.flush(new Set());
    }
    await Deno.remove(path);
    await Deno.mkdir(path); // as good as a disk that fails
    const ledger = await TrafficLedger.open(directory, NOVEMBER, (message) => said.push(message));
    assertEquals(said.splice(0).length, 1);
    ledger.add(traffic(1, 1), 0);
    await ledger.flush(new Set());
    assert((await Deno.stat(path)).isDirectory);
    assertEquals(ledger.of(KEY).received, 1, "the counts go on in memory");
    const full = await TrafficLedger.open(`${directory}/other`, NOVEMBER, (message) => said.push(message));
    await Deno.writeTextFile(`${directory}/other`, ""); // no directory can be made there
    for (let i = 0; i < 3; i++) {
      full.add(traffic(1, 1), i);
      await full.flush(new Set());
    }
    assertEquals(said.length, 1);
  }));

Deno.test("ledger: a rate is that of the last seconds, and of silence none", async () => {
  const ledger = await TrafficLedger.open("/tmp/oxrelay-no-such-directory", NOVEMBER, silent);
  for (let nowMs = 0; nowMs < 10_000; nowMs += 250) ledger.add(traffic(250, 500), nowMs);
  const { receivedBps, sentBps } = ledger.rates(KEY, 10_000);
  assertEquals([Math.round(receivedBps), Math.round(sentBps)], [8000, 16_000]);
  assertEquals(ledger.rates(KEY, 20_000), { receivedBps: 0, sentBps: 0 });
  assertEquals(ledger.rates(keyOf(1), 0), { receivedBps: 0, sentBps: 0 });
});

Deno.test("bars: disabled before expired before used up, each from its moment on", () => {
  const record = recordOf(1, { expires: "2026-12-01T00:00:00.000Z", monthlyBytes: 100 });
  assertEquals(barOf(record, 99, NOVEMBER), undefined);
  assertEquals(barOf(record, 100, NOVEMBER), "volume");
  assertEquals(barOf(record, 100, DECEMBER), "expired");
  assertEquals(barOf({ ...record, disabled: true }, 100, DECEMBER), "disabled");
  assertEquals(barOf(recordOf(1), 1e15, DECEMBER), undefined);
});

/** A pool that keeps what it was told, over a ledger in memory, with a clock to set. */
async function pool(records: PeerRecord[]) {
  const told: AdmittedPeer[][] = [];
  const changes: string[] = [], faults: string[] = [];
  let wallMs = NOVEMBER, nowMs = 0, isFailing = false;
  const ledger = await TrafficLedger.open("/tmp/oxrelay-no-such-directory", NOVEMBER, silent);
  const barred = new BarredPool(
    {
      setPeers(peers) {
        told.push([...peers]);
        if (isFailing) return Promise.reject(new Error("the host refuses"));
        return Promise.resolve({ added: [], removed: [], failed: [] });
      },
    },
    records,
    {
      ledger,
      wallMs: () => wallMs,
      nowMs: () => nowMs,
      onChange: ({ name }, why) => changes.push(`${name} ${why}`),
      onFault: ({ message }) => faults.push(message),
    },
  );
  const settle = () => new Promise((resolve) => setTimeout(resolve));
  return {
    ...{ barred, told, changes, faults, settle },
    at: (ms: number) => wallMs = ms,
    pass: (ms: number) => nowMs += ms,
    fail: (wanted: boolean) => isFailing = wanted,
  };
}

Deno.test("bars: what could not be carried out is told again each second until it is, and said once", async () => {
  const soon = recordOf(1, { expires: "2026-12-01T00:00:00.000Z" });
  const { barred, told, changes, faults, settle, at, pass, fail } = await pool([soon]);
  const look = async (times: number) => {
    for (let i = 0; i < times; i++) barred.look();
    await settle();
  };
  fail(true);
  at(DECEMBER);
  await look(3);
  assertEquals(told.length, 1);
  pass(AGAIN_MS - 1);
  await look(3);
  assertEquals(told.length, 1, "not before its time");
  for (let again = 2; again <= 4; again++) {
    pass(AGAIN_MS);
    fail(again < 4);
    await look(3);
    assertEquals(told.length, again);
    assertEquals(told[again - 1][0].barred, "expired");
  }
  pass(AGAIN_MS);
  await look(3);
  assertEquals(told.length, 4, "what is carried out is told no more");
  assertEquals([changes, faults], [["peer-1 expired"], ["the host refuses"]]);
  fail(true);
  await assertRejects(() => barred.setPeers([]), Error, "the host refuses");
  fail(false);
  pass(AGAIN_MS);
  await look(1);
  assertEquals(told.slice(4), [[], []], "so is what a person wanted");
});

Deno.test("bars: traffic that uses up a volume bars at once, and the next month lets in again", async () => {
  const { barred, told, changes, settle, at } = await pool([
    recordOf(9, { monthlyBytes: 1000 }),
    recordOf(1),
  ]);
  assertEquals(barred.admitted, barred.peers);
  barred.addTraffic(traffic(400, 599), 0);
  await settle();
  assertEquals(told, []);
  barred.addTraffic(traffic(0, 1), 250);
  await settle();
  assertEquals(told.length, 1);
  assertEquals(told[0].map((peer) => peer.barred), ["volume", undefined]);
  assertEquals(barred.barOf(KEY), "volume");
  for (let i = 0; i < 3; i++) barred.look();
  await settle();
  assertEquals(told.length, 1, "what is known is not told again");
  at(DECEMBER);
  barred.look();
  await settle();
  assertEquals(told[1].map((peer) => peer.barred), [undefined, undefined]);
  assertEquals(changes, ["peer-9 volume", "peer-9 undefined"]);
});

Deno.test("bars: a date bars without traffic, and what is set is told with the bars of the moment", async () => {
  const soon = recordOf(1, { expires: "2026-12-01T00:00:00.000Z" });
  const { barred, told, changes, settle, at } = await pool([soon]);
  at(DECEMBER);
  barred.look();
  await settle();
  assertEquals(told.map((peers) => peers[0].barred), ["expired"]);
  await barred.setPeers([soon, recordOf(2, { disabled: true })]);
  assertEquals(told[1].map((peer) => peer.barred), ["expired", "disabled"]);
  await barred.setPeers([{ ...soon, expires: "2027-01-01T00:00:00.000Z" }]);
  assertEquals(told[2].map((peer) => peer.barred), [undefined]);
  assertEquals(changes, ["peer-1 expired"], "what a person did is not told as if it came by itself");
});

const added: string[] = [];
const add = ({ name }: { name: string }) => {
  added.push(name);
  return Promise.resolve(name);
};
const LATER = new Date(DECEMBER).toISOString();

Deno.test("links: one works once, until its time, unless it is revoked; the disk knows no token", () =>
  withDirectory(async (directory) => {
    let wallMs = NOVEMBER;
    const open = () => Links.open(directory, () => wallMs, silent);
    const links = await open();
    const { token, id, state } = await links.make({ name: "friend", monthlyBytes: 7 }, LATER);
    assertEquals(state, "open");
    const stored = await Deno.readTextFile(links.path);
    assert(!stored.includes(token) && !JSON.stringify(links.list()).includes(token));
    assertEquals((await Deno.stat(links.path)).mode! & 0o777, 0o600);
    assert(links.reserves("friend") && !links.reserves("other"));
    await assertRejects(() => links.make({ name: "friend" }, LATER), Refusal, "waits already");

    assertEquals(await links.redeem("x".repeat(43), add), undefined);
    await assertRejects(
      () => links.redeem(token, () => Promise.reject(new Refusal("name", "taken"))),
      Refusal,
    );
    const again = await open(); // over a restart
    const both = await Promise.all([again.redeem(token, add), again.redeem(token, add)]);
    assertEquals(both, ["friend", undefined]);
    assertEquals(added, ["friend"]);
    assertEquals(await (await open()).redeem(token, add), undefined);
    assertEquals(again.list().map(({ id, state }) => [id, state]), [[id, "used"]]);

    const revoked = await again.make({ name: "revoked" }, LATER);
    assertEquals((await again.revoke(revoked.id))?.name, "revoked");
    assertEquals(await again.revoke(revoked.id), undefined);
    assertEquals(await again.redeem(revoked.token, add), undefined);
    const late = await again.make({ name: "late" }, LATER);
    wallMs = Date.parse(LATER);
    assertEquals(await again.redeem(late.token, add), undefined);
    assertEquals(again.list()[0].state, "expired");
    wallMs += 2 * 86_400_000;
    assertEquals(again.list(), []);
  }));

Deno.test("links: a link is spent on the disk before its device is added, and a disk that refuses spends nothing", () =>
  withDirectory(async (directory) => {
    const links = await Links.open(directory, () => NOVEMBER, silent);
    const { token } = await links.make({ name: "friend" }, LATER);
    await links.redeem(token, async () => {
      const afterKill = await Links.open(directory, () => NOVEMBER, silent);
      assertEquals(await afterKill.redeem(token, add), undefined);
    });
    const other = await links.make({ name: "other" }, LATER);
    const said: string[] = [];
    await Deno.remove(links.path);
    await Deno.mkdir(links.path);
    const { field } = await assertRejects(() => links.redeem(other.token, add), Refusal);
    assertEquals(field, "store");
    const broken = await Links.open(directory, () => NOVEMBER, (message) => said.push(message));
    assertEquals(said.length, 1);
    await assertRejects(() => broken.make({ name: "x" }, LATER), Refusal);
    assertGreater(LINKS_MAX, 0);
  }));

Deno.test("events: bounded, the network in place of an address, and one of many alike", () => {
  let nowMs = 0;
  const log = new EventLog(() => NOVEMBER, () => nowMs);
  log.noteTunnel({ kind: "connected", peer: "phone", endpoint: "203.0.113.7:5555" });
  log.noteTunnel({ kind: "connected", peer: "phone", endpoint: "203.0.113.9:6666" });
  assertEquals(log.after(0).map(({ kind, detail }) => [kind, detail]), [["connected", "203.0.113.x"]]);
  nowMs += 60_000;
  log.noteTunnel({ kind: "connected", peer: "phone", endpoint: "203.0.113.9:6666" });
  assertEquals(log.after(1).length, 1);
  for (let i = 0; i < 2 * EVENTS_MAX; i++) log.note("added", `peer-${i}`);
  assertEquals(log.after(0).length, EVENTS_MAX);
});

Deno.test("events: what a person does and undoes is all there, whatever the wall clock does, and a device's own are bounded", () => {
  let wallMs = NOVEMBER, nowMs = 0;
  const log = new EventLog(() => wallMs, () => nowMs);
  const kinds = () => log.after(0).map(({ kind }) => kind);
  const done = ["disabled", "admitted", "disabled"] as const;
  for (const kind of done) log.note(kind, "phone");
  log.note("disabled", "phone");
  assertEquals(kinds(), [...done]);
  wallMs -= 3_600_000; // the clock is set back
  nowMs += 10_000;
  log.note("disabled", "phone");
  assertEquals(kinds().length, 4, "ten seconds have passed all the same");
  wallMs += 7_200_000;
  log.note("disabled", "phone");
  assertEquals(kinds().length, 4, "nor have they because the clock was set");

  const roam = (i: number) =>
    log.noteTunnel({ kind: "roamed", peer: "car", endpoint: `203.0.${i % 250}.7:5555` });
  for (let i = 0; i < EVENTS_MAX; i++) roam(i);
  assertEquals(kinds().filter((kind) => kind === "roamed").length, 1, "from wherever its packets come");
  for (let i = 0; i < EVENTS_MAX; i++) {
    log.noteTunnel({ kind: i % 2 ? "connected" : "disconnected", peer: "car", endpoint: "203.0.113.7:5555" });
    roam(i);
  }
  log.note("changed", "car");
  assertEquals(kinds().length, 4 + 6 + 1);
});

Deno.test("history: means over seconds and minutes, bounded, with a gap where the machine slept", () => {
  const history = new History();
  const totals = (bytes: number) => ({
    bytesReceived: bytes,
    bytesSent: 2 * bytes,
    drops: bytes / 100,
    connections: 3,
  });
  let nowMs = 0;
  for (; nowMs <= 700_000; nowMs += 250) history.take(totals(nowMs), nowMs, NOVEMBER + nowMs);
  const { samples, stepS } = history.of("minutes");
  assertEquals([samples.length, stepS], [600, 1]);
  assertEquals(samples[0], {
    ...samples[0],
    receivedBps: 8000,
    sentBps: 16_000,
    dropsPerS: 10,
    connections: 3,
  });
  assertEquals(history.of("day").samples.map(({ receivedBps }) => receivedBps), Array(11).fill(8000));
  nowMs += 60_000;
  history.take(totals(nowMs), nowMs, NOVEMBER + nowMs);
  assertEquals(history.of("minutes").samples.at(-1), samples.at(-1));
  assert(history.of("minutes").samples.at(-1)!.at < (NOVEMBER + nowMs) / 1000 - 50);
});
