/** Peers of a running relay: changes by difference, thousands of them, and removals of which a part fails. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import process from "node:process";
import { Refusal } from "../../src/admin/mod.ts";
import { generatePrivateKey, keyToText, publicKeyOf } from "../../src/process/keys_text.ts";
import { CommandError } from "../../src/process/help.ts";
import { LivePeers, UNDO_MS } from "../../src/serve/live_peers.ts";
import { carryOut, differenceOf } from "../../src/serve/worker_pool.ts";
import { PeerStore } from "../../src/serve/store.ts";
import { Metrics } from "../../src/metrics.ts";
import type { PeerRecord } from "../../src/session/peer_record.ts";
import { Arena } from "../../src/vector/arena.ts";
import { idleRelay } from "./idle_relay.ts";

const MANY = 2000;

/** Any text of a key: made by counting, since thousands of real ones take a while. */
function keyOf(number: number): string {
  const key = new Uint8Array(32).fill(9);
  new DataView(key.buffer).setUint32(0, number);
  return keyToText(key);
}

function recordOf(number: number): PeerRecord {
  const host = number + 2;
  return {
    name: `peer-${number}`,
    publicKey: keyOf(number),
    allowedIps: [`10.66.${host >> 8}.${host & 255}/32`, `fd00:1:2::${host.toString(16)}/128`],
    created: "2026-01-01T00:00:00.000Z",
  };
}

const RECORDS = Array.from({ length: MANY }, (_, i) => recordOf(i));

Deno.test("peers: of 2000 only what differs is told, one that is added, changed or removed", () => {
  assertEquals(differenceOf(RECORDS, RECORDS.map((record) => structuredClone(record))), {
    changed: [],
    gone: [],
  });
  const added = recordOf(MANY);
  assertEquals(differenceOf(RECORDS, [...RECORDS, added]), { changed: [added], gone: [] });
  assertEquals(differenceOf(RECORDS, RECORDS.slice(1)), { changed: [], gone: [RECORDS[0].publicKey] });
  for (
    const other of [
      { name: "another" },
      { allowedIps: ["10.66.99.1/32"] },
      { presharedKey: keyOf(7) },
      { rateDownBps: 1e6 },
      { rateUpBps: 1e6 },
    ]
  ) {
    const changed = { ...RECORDS[5], ...other };
    assertEquals(differenceOf(RECORDS, RECORDS.with(5, changed)), { changed: [changed], gone: [] });
  }
});

Deno.test("peers: a difference leaves the others as they are, and prefixes may change hands within it", () => {
  const relay = idleRelay(new Arena(8), new Metrics());
  const peer = () => ({ publicKey: keyToText(publicKeyOf(generatePrivateKey())), created: "2026" });
  const a = { ...peer(), name: "a", allowedIps: ["10.66.0.2/32"] };
  const b = { ...peer(), name: "b", allowedIps: ["10.66.0.3/32"] };
  const c = { ...peer(), name: "c", allowedIps: ["10.66.0.4/32"] };
  const prefixes = () =>
    Object.fromEntries(relay.peerSnapshots(0).map(({ name, allowedIps }) => [name, allowedIps[0]]));
  assertEquals(relay.changePeers([a, b], []), { added: ["a", "b"], removed: [], failed: [] });
  assertEquals(relay.changePeers([a, c], [b.publicKey]), { added: ["c"], removed: ["b"], failed: [] });
  assertEquals(prefixes(), { a: "10.66.0.2/32", c: "10.66.0.4/32" });
  const swapped = [{ ...a, allowedIps: c.allowedIps }, { ...c, allowedIps: a.allowedIps }];
  assertEquals(relay.changePeers(swapped, []), { added: ["a", "c"], removed: [], failed: [] });
  assertEquals(prefixes(), { a: "10.66.0.4/32", c: "10.66.0.2/32" });
  assertEquals(relay.changePeers([], [keyOf(1)]), { added: [], removed: [], failed: [] });
  relay.close();
});

Deno.test("peers: adding to 2000 of them is quick, by the processor's time", async () => {
  const stateDir = await Deno.makeTempDir({ prefix: "oxrelay-many-" });
  try {
    await Deno.writeTextFile(`${stateDir}/peers.json`, JSON.stringify({ version: 1, peers: RECORDS }));
    const store = new PeerStore({ stateDir, tunnelIpv4: "10.66.0.0/16", tunnelIpv6: "fd00:1:2::/64" });
    let leastMs = Infinity;
    for (let i = 0; i < 10; i++) {
      const before = process.cpuUsage();
      const { allowedIps } = await store.add({
        name: `new-${i}`,
        publicKey: keyOf(MANY + i),
        created: "2026",
      });
      const { user, system } = process.cpuUsage(before);
      leastMs = Math.min(leastMs, (user + system) / 1000);
      assertEquals(allowedIps, recordOf(MANY + i).allowedIps);
    }
    // 28 ms were the least on two busy cores, where the same work counts for more than on idle ones.
    assert(leastMs < 100, `${leastMs} ms`);
    assertEquals((await store.load()).length, MANY + 10);
  } finally {
    await Deno.remove(stateDir, { recursive: true });
  }
});

/** LivePeers over a store and a pool of workers of which each may refuse. */
function shaky({ store: refusesStore = false, pool: refusesPool = false }, nowMs = () => 0) {
  let stored: PeerRecord[] = [recordOf(0), recordOf(1)];
  let served: readonly PeerRecord[] = [...stored];
  const steps: string[] = [];
  const live = new LivePeers({
    others: [],
    load: () => Promise.resolve([...stored]),
    add: () => Promise.reject(new Error("not asked for")),
    edit(name, edit) {
      const record = edit(stored.find((peer) => peer.name === name)!);
      steps.push(`store has ${name} with ${record.forwards ?? "none"}`);
      if (refusesStore) return Promise.reject(new CommandError("the disk is full", { cause: new Error() }));
      stored = stored.map((peer) => peer.name === name ? record : peer);
      return Promise.resolve(record);
    },
    restore(record) {
      steps.push(`store restores ${record.name}`);
      stored = [...stored, record];
      return Promise.resolve(record);
    },
    remove(name) {
      steps.push(`store removes ${name}`);
      if (refusesStore) return Promise.reject(new Error("the disk is full"));
      const record = stored.find((peer) => peer.name === name)!;
      stored = stored.filter((peer) => peer !== record);
      return Promise.resolve(record);
    },
  }, {
    get peers() {
      return served;
    },
    setPeers(peers) {
      steps.push(`pool serves ${peers.length}`);
      served = peers;
      if (refusesPool) return Promise.reject(new Error("the relay worker does not answer"));
      const refused = peers.flatMap(({ name, publicKey, forwards = [] }) =>
        forwards.filter((text) => text === "udp:22").map(() => ({
          forward: {
            protocol: "udp" as const,
            outer: 22,
            address: "10.66.0.2",
            port: 22,
            peer: name,
            publicKey,
          },
          reason: "is in use",
        }))
      );
      return Promise.resolve({ added: [], removed: [], failed: [], refused });
    },
  }, nowMs);
  const load = () => Promise.resolve([...stored]);
  return { live, steps, load, mend: () => refusesStore = false, served: () => served };
}

Deno.test("peers: a removal cuts first and stores then, does the one though the other fails, and says which", async () => {
  const whole = shaky({});
  assertEquals(await whole.live.remove("peer-0"), true);
  assertEquals(whole.steps, ["pool serves 1", "store removes peer-0"]);
  assertEquals(await whole.live.remove("peer-0"), false);

  const cutOnly = shaky({ store: true });
  const { field, message } = await assertRejects(() => cutOnly.live.remove("peer-0"), Refusal);
  assertEquals(field, "store");
  assertEquals(
    message,
    'peer "peer-0" is cut off until the relay restarts; it could not be removed from the store: the disk is full',
  );
  assertEquals(cutOnly.steps, ["pool serves 1", "store removes peer-0"]);
  assertEquals((await cutOnly.live.reload(cutOnly.load)).total, 1, "what is read again stays cut off");
  cutOnly.mend();
  assertEquals((await cutOnly.live.reload(cutOnly.load)).total, 1);
  assertEquals(
    (await cutOnly.load()).map(({ name }) => name),
    ["peer-1"],
    "and is stored at the next occasion",
  );

  const storedOnly = shaky({ pool: true });
  const refusal = await assertRejects(() => storedOnly.live.remove("peer-0"), Refusal);
  assertEquals(refusal.field, "relay");
  assertEquals(
    refusal.message,
    'peer "peer-0" may be connected still, as the relay did not carry it out (the relay worker does not answer): ' +
      "restart it; the store does not have it any more",
  );
  assertEquals((await storedOnly.load()).map(({ name }) => name), ["peer-1"]);
});

/** LivePeers over a real store, and workers that take a peer or do not. */
async function stored(
  body: (
    relay: {
      live: LivePeers;
      store: PeerStore;
      served: () => string[];
      refuse: (how: "failed" | "throw") => void;
    },
  ) => Promise<void>,
): Promise<void> {
  const stateDir = await Deno.makeTempDir({ prefix: "oxrelay-live-" });
  try {
    const store = new PeerStore({ stateDir, tunnelIpv4: "10.66.0.0/16" });
    let served: readonly PeerRecord[] = [];
    let refusal: "failed" | "throw" | undefined;
    const live = new LivePeers(store, {
      get peers() {
        return served;
      },
      setPeers(peers) {
        const more = peers.length > served.length;
        served = peers;
        if (more && refusal === "throw") return Promise.reject(new Error("nft is missing"));
        return Promise.resolve({ added: [], removed: [], failed: more && refusal ? ["no room for it"] : [] });
      },
    });
    await body({
      live,
      store,
      served: () => served.map(({ name }) => name),
      refuse: (how) => refusal = how,
    });
  } finally {
    await Deno.remove(stateDir, { recursive: true });
  }
}

const fresh = (name: string, number: number) => ({ name, publicKey: keyOf(number), created: "2026" });

Deno.test("peers: a removal during an addition leaves nothing, neither stored nor served", () =>
  stored(async ({ live, store, served }) => {
    for (let i = 0; i < 20; i++) {
      const adding = live.add(fresh("phone", i));
      const removing = live.remove("phone");
      assertEquals([(await adding).name, await removing], ["phone", true]);
      assertEquals([(await store.load()).length, served()], [0, []]);
    }
  }));

Deno.test("peers: what the relay cannot serve is not kept, neither stored nor served", () =>
  stored(async ({ live, store, served, refuse }) => {
    await live.add(fresh("laptop", 1));
    for (
      const [how, field, said] of [["failed", "publicKey", "no room"], [
        "throw",
        "relay",
        "nft is missing",
      ]] as const
    ) {
      refuse(how);
      const refusal = await assertRejects(() => live.add(fresh("phone", 2)), Refusal);
      assertEquals(refusal.field, field);
      assert(refusal.message.includes(said), refusal.message);
      assertEquals(served(), ["laptop"]);
      assertEquals((await store.load()).map(({ name }) => name), ["laptop"]);
    }
  }));

Deno.test("peers: a removal of what the store has lost meanwhile succeeds, and blames no other place", () =>
  stored(async ({ live, store, served }) => {
    await live.add(fresh("phone", 1));
    await store.remove("phone");
    assertEquals(await live.remove("phone"), true);
    assertEquals(served(), []);
    await live.add(fresh("phone", 1));
    assertEquals(await Promise.all([live.remove("phone"), live.remove("phone")]), [true, false]);
  }));

Deno.test("peers: who is gone is cut off before the host is asked, and who is new is served after it", async () => {
  const steps: string[] = [];
  const handle = {
    changePeers(changed: PeerRecord[], gone: string[]) {
      steps.push(`${changed.length} changed, ${gone.length} gone`);
      return Promise.resolve({
        added: changed.map(({ name }) => name),
        removed: gone.map(() => "peer-0"),
        failed: [],
      });
    },
  };
  const host = (error?: Error) => ({
    setPeers() {
      steps.push("host");
      return error ? Promise.reject(error) : Promise.resolve({
        forget() {
          steps.push("forget");
          return Promise.resolve();
        },
      });
    },
  });
  const difference = { changed: [recordOf(1)], gone: [keyOf(0)], all: [recordOf(1)] };
  assertEquals(await carryOut([handle], host(), difference), {
    added: ["peer-1"],
    removed: ["peer-0"],
    failed: [],
  });
  const expected = ["0 changed, 1 gone", "host", "1 changed, 0 gone"];
  assertEquals(steps.splice(0), [...expected, "forget"]);
  await assertRejects(() => carryOut([handle], host(new Error("nft hangs")), difference), Error, "nft hangs");
  assertEquals(steps, expected, "the workers do theirs all the same");
});

Deno.test("peers: a disabled one is cut off before it is stored, and stays so while the disk refuses", async () => {
  const whole = shaky({});
  assertEquals((await whole.live.change("peer-0", { disabled: true }))?.disabled, true);
  assertEquals(whole.steps, ["pool serves 2", "store has peer-0 with none", "pool serves 2"]);
  assertEquals((await whole.load())[0].disabled, true);
  const enabled = await whole.live.change("peer-0", { disabled: false, notes: "again", monthlyBytes: null });
  assertEquals(enabled, { ...recordOf(0), notes: "again" });
  assertEquals(await whole.live.change("nobody", { disabled: true }), undefined);

  const refused = shaky({ store: true });
  const { field, message } = await assertRejects(
    () => refused.live.change("peer-0", { disabled: true }),
    Refusal,
  );
  assertEquals(field, "store");
  assertEquals(
    message,
    'peer "peer-0" is kept out until the relay restarts; that could not be stored: the disk is full',
  );
  const disabled = () => refused.served().map((peer) => [peer.name, peer.disabled]);
  assertEquals(disabled().sort(), [["peer-0", true], ["peer-1", undefined]]);
  await refused.live.reload(refused.load);
  assertEquals(disabled(), [["peer-0", true], ["peer-1", undefined]], "what is read again is kept out");
  refused.mend();
  await refused.live.change("peer-0", { disabled: false });
  await refused.live.reload(refused.load);
  assertEquals(disabled(), [["peer-0", undefined], ["peer-1", undefined]]);
});

Deno.test("peers: a removed one can be restored as it was for a while", async () => {
  let nowMs = 0;
  const { live, load, served } = shaky({}, () => nowMs);
  await live.remove("peer-0");
  assertEquals(await live.restore("peer-1"), undefined);
  nowMs = UNDO_MS;
  assertEquals(await live.restore("peer-0"), recordOf(0));
  assertEquals((await load()).length, 2);
  assertEquals(served().length, 2);
  assertEquals(await live.restore("peer-0"), undefined, "once");
  await live.remove("peer-0");
  nowMs += UNDO_MS + 1;
  assertEquals(await live.restore("peer-0"), undefined);
});

Deno.test("peers: a forward that the host refuses is in nobody's record, and another peer's refusal is no reason", async () => {
  const { live, load } = shaky({});
  const forwards = async () => (await load()).map((peer) => peer.forwards?.join());
  const edit = (name: string, forwards: string[]) =>
    live.edit(name, "forwards", (peer) => ({ ...peer, forwards }));
  assertEquals((await edit("peer-0", ["udp:7"]))?.forwards, ["udp:7"]);
  const refusal = await assertRejects(() => edit("peer-1", ["udp:22"]), Refusal, "UDP port 22 is in use");
  assertEquals(refusal.field, "forwards");
  assertEquals(await forwards(), ["udp:7", undefined]);
  assertEquals(await edit("peer-9", ["udp:8"]), undefined);
});
