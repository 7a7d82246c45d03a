/** PCP and NAT-PMP: bytes against RFC 6887 and RFC 6886, hostile datagrams, and what leases bound. */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import fc from "fast-check";
import { type Lease, Leases } from "../../src/exit/mapping/leases.ts";
import { PortControlServer } from "../../src/exit/mapping/server.ts";
import type { PeerRecord } from "../../src/session/peer_record.ts";
import { PortControl } from "../../src/serve/port_control.ts";
import type { RefusedPeerForward } from "../../src/serve/forwards.ts";
import type { ControlDatagram } from "../../src/exit/exit.ts";
import { parseAddress } from "../../src/wire/address.ts";
import {
  type MapOutcome,
  type MapRequest,
  PCP,
  PCP_BYTES_MAX,
  readMapAnswer,
  readPortRequest,
  writeMapAnswer,
  writeMapRequest,
} from "../../src/wire/port_control.ts";

const OWN = parseAddress("10.66.0.2")!, OUTSIDE = parseAddress("203.0.113.9")!;
const NONCE = Uint8Array.from({ length: 12 }, (_, i) => i + 1);
const ANY = new Uint32Array(4);

const wish = (more: Partial<MapRequest> = {}): MapRequest => ({
  kind: "map",
  version: 2,
  protocol: "udp",
  port: 3074,
  wanted: 3075,
  lifetimeS: 600,
  nonce: NONCE,
  isStrict: false,
  ...more,
});
/** A MAP request as RFC 6887 §7.1 and §11.1 lay it out. */
const MAP_BYTES = Uint8Array.fromHex(
  "02010000" + "00000258" + "00000000000000000000ffff0a420002" + // version, opcode; lifetime; own address
    "0102030405060708090a0b0c" + "11000000" + "0c02" + "0c03" + "00000000000000000000000000000000",
);

Deno.test("port control: a MAP request and its answer are RFC 6887's bytes", () => {
  assertEquals(writeMapRequest(wish(), OWN, ANY), MAP_BYTES);
  assertEquals(readPortRequest(MAP_BYTES, OWN, 7), wish());
  const answer = writeMapAnswer(wish(), {
    result: PCP.success,
    outer: 4000,
    lifetimeS: 300,
    address: OUTSIDE,
  }, 7);
  assertEquals(
    answer.toHex(),
    "02810000" + "0000012c" + "00000007" + "000000000000000000000000" + "0102030405060708090a0b0c" +
      "11000000" +
      "0c02" + "0fa0" + "00000000000000000000ffffcb007109",
  );
  assertEquals(readMapAnswer(answer, wish()), {
    result: 0,
    outer: 4000,
    lifetimeS: 300,
    epochS: 7,
    address: OUTSIDE,
  });
  assertEquals(readMapAnswer(answer, wish({ port: 3076 })), undefined, "an answer to another");
});

Deno.test("port control: NAT-PMP's three requests are RFC 6886's bytes", () => {
  const pmp = readPortRequest(Uint8Array.fromHex("00010000" + "0c020c03" + "00000e10"), OWN, 7);
  assertEquals(pmp, wish({ version: 0, lifetimeS: 3600, nonce: new Uint8Array(0) }));
  const answer = writeMapAnswer(pmp as MapRequest, {
    result: 0,
    outer: 4000,
    lifetimeS: 300,
    address: OUTSIDE,
  }, 7);
  assertEquals(answer.toHex(), "00810000" + "00000007" + "0c020fa0" + "0000012c");
  assertEquals(readPortRequest(Uint8Array.of(0, 0), OWN, 7), { kind: "address" });
  // Port 0 asks for the end of all, and for nothing else (§3.4).
  const all = readPortRequest(Uint8Array.fromHex("00020000" + "00000000" + "00000000"), OWN, 7);
  assertEquals(all.kind === "map" && [all.protocol, all.port, all.lifetimeS], ["tcp", 0, 0]);
  const none = readPortRequest(Uint8Array.fromHex("00020000" + "00000c03" + "00000e10"), OWN, 7);
  assertEquals(
    none.kind === "refused" && none.answer?.toHex(),
    "00820002" + "00000007" + "00000000" + "00000000",
  );
  const refused = readPortRequest(Uint8Array.of(0, 9), OWN, 7);
  assertEquals(refused.kind === "refused" && refused.answer?.toHex(), "0089000500000007");
});

Deno.test("port control: what cannot be granted is answered with its reason", () => {
  const result = (change: (bytes: Uint8Array) => void, length = MAP_BYTES.length) => {
    const bytes = new Uint8Array(length);
    bytes.set(MAP_BYTES.subarray(0, length));
    change(bytes);
    const request = readPortRequest(bytes, OWN, 7);
    return request.kind === "refused" ? request.answer?.[3] : request.kind;
  };
  assertEquals(result((b) => b[0] = 3), PCP.unsupportedVersion);
  assertEquals(result((b) => b[23] = 3), PCP.addressMismatch);
  assertEquals(result((b) => b[1] = 2), PCP.unsupportedOpcode);
  assertEquals(result((b) => b[36] = 132), PCP.unsupportedProtocol);
  assertEquals(result((b) => b[60] = 5, 64), PCP.unsupportedOption);
  assertEquals(result((b) => b[63] = 200, 64), PCP.malformed);
  assertEquals(result((b) => b[60] = 2, 64), "map");
  assertEquals(result(() => {}, 40), PCP.malformed);
  assertEquals(result(() => {}, PCP_BYTES_MAX + 4), PCP.malformed);
  assertEquals(result((b) => b[1] = 0x81), undefined, "an answer gets no answer");
});

Deno.test("port control: any datagram gets one bounded answer or none", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 1400 }), fc.constantFrom(0, 2, 7), (bytes, version) => {
    if (bytes.length > 0) bytes[0] = version;
    const request = readPortRequest(bytes, OWN, 7);
    if (request.kind === "refused" && request.answer) {
      assert(request.answer.length <= PCP_BYTES_MAX);
      assert((request.answer[1] & 0x80) !== 0);
    }
  }));
});

function leases(most = 2) {
  const state = { nowS: 0, open: [] as readonly Lease[], taken: new Set([3075]), isBroken: false };
  const all = new Leases({
    most: () => most,
    isTaken: (_, outer) => outer === 2000,
    apply: (leases) => {
      if (state.isBroken) return Promise.reject(new Error("the host carries nothing out"));
      state.open = leases;
      return Promise.resolve(
        leases.filter(({ outer }) => state.taken.has(outer)).map((forward) => ({
          forward,
          reason: "is in use",
        })),
      );
    },
    outside: () => OUTSIDE,
    nowS: () => state.nowS,
  });
  return { all, state, owner: { id: "a", address: "10.66.0.2" } };
}

Deno.test("leases: a wanted port that the host or another has is replaced, and never one of the host's own", async () => {
  const { all, state, owner } = leases();
  const granted = await all.map(owner, wish());
  assertEquals([granted.result, granted.outer], [0, 3074], "3075 is a program's, 3074 is the asker's own");
  const other = await all.map({ id: "b", address: "10.66.0.3" }, wish({ port: 80, wanted: 3074 }));
  assertEquals(other.result, 0);
  assertNotEquals(other.outer, 3074);
  assert(other.outer >= 1024 && other.outer !== 2000 && other.outer !== 3075);
  assertEquals(state.open.map(({ outer }) => outer), [3074, other.outer]);
  const strict = await all.map({ id: "c", address: "10.66.0.4" }, wish({ wanted: 2000, isStrict: true }));
  assertEquals(strict.result, PCP.cannotProvide);
});

Deno.test("leases: bounded for each owner, changed by who made them alone, over with their time and their owner", async () => {
  const { all, state, owner } = leases();
  const results = [];
  for (const port of [1, 2, 3]) {
    results.push((await all.map(owner, wish({ port, wanted: 5000 + port }))).result);
  }
  assertEquals(results, [0, 0, PCP.userExceeded]);
  const stranger = wish({ port: 1, wanted: 5001, nonce: new Uint8Array(12), lifetimeS: 0 });
  assertEquals((await all.map(owner, stranger)).result, PCP.notAuthorized);
  assertEquals((await all.map(owner, wish({ port: 1, lifetimeS: 1e9 }))).lifetimeS, 7200);
  state.nowS = 601;
  await all.expire();
  assertEquals(state.open.map(({ port }) => port), [1], "the other one was not renewed");
  await all.expire((lease) => lease.owner === "a");
  assertEquals(state.open.length, 0);
  await all.map(owner, wish({ port: 1 }));
  await all.map(owner, wish({ port: 1, lifetimeS: 0 }));
  assertEquals(state.open.length, 0);
});

Deno.test("leases: nobody gets one where they are off, and an asker has a bounded number of answers a second", async () => {
  const off = leases(0);
  assertEquals((await off.all.map(off.owner, wish())).result, PCP.notAuthorized);
  const { all, owner } = leases();
  const server = new PortControlServer(all, () => OUTSIDE);
  let answered = 0;
  for (let i = 0; i < 200; i++) if (await server.answer(owner, Uint8Array.of(0, 0))) answered++;
  assert(answered <= 96, `${answered} of 200 within a moment`);
  assert(
    await server.answer({ id: "b", address: "10.66.0.3" }, Uint8Array.of(0, 0)),
    "another still has its own",
  );
});

/** Leases behind another NAT, which grants everything until its `answer` is changed. */
function behind() {
  const state = {
    nowS: 0,
    asked: [] as number[][],
    answer: (outer: number, lifetimeS: number): Promise<MapOutcome> =>
      Promise.resolve({ result: PCP.success, outer, lifetimeS, address: OUTSIDE }),
  };
  const all = new Leases({
    most: () => 8,
    isTaken: () => false,
    apply: () => Promise.resolve([]),
    upstream: ({ outer }, wanted, lifetimeS) => {
      state.asked.push([outer, wanted, lifetimeS]);
      return state.answer(outer, lifetimeS);
    },
    outside: () => OUTSIDE,
    nowS: () => state.nowS,
  });
  return { all, state };
}

Deno.test("leases: at the end the NAT in front is asked to close every port, and its silence is waited for no longer than is said", async () => {
  const { all, state } = behind();
  const owner = { id: "a", address: "10.66.0.2" };
  for (const port of [3001, 3002]) await all.map(owner, wish({ port, wanted: 0 }));
  state.asked.length = 0;
  await all.release(60_000);
  assertEquals(state.asked, [[3001, 0, 0], [3002, 0, 0]]);
  state.answer = () => new Promise(() => {});
  await all.release(1);
});

Deno.test("leases: a mapping that the host did not carry out is told as open neither then nor when it is asked for again", async () => {
  const { all, state, owner } = leases();
  state.isBroken = true;
  assertEquals((await all.map(owner, wish())).result, PCP.networkFailure);
  assertEquals((await all.map(owner, wish())).result, PCP.networkFailure, "asked for again");
  assertEquals(all.all, []);
  state.isBroken = false;
  assertEquals((await all.map(owner, wish())).result, PCP.success);
  state.isBroken = true;
  assertEquals((await all.map(owner, wish({ lifetimeS: 0 }))).result, PCP.networkFailure);
  assertEquals(all.all.length, 1, "what could not be closed is known as open");
});

Deno.test("leases: few wishes of an owner wait, and the others are refused at once", async () => {
  const { all, state } = behind();
  const held = Promise.withResolvers<void>();
  const { answer } = state;
  state.answer = (outer, lifetimeS) => held.promise.then(() => answer(outer, lifetimeS));
  const ask = (id: string, port: number) => all.map({ id, address: "10.66.0.2" }, wish({ port, wanted: 0 }));
  const waiting = [1, 2, 3, 4].map((port) => ask("a", 3000 + port));
  assertEquals((await ask("a", 3005)).result, PCP.noResources, "while the others wait");
  const others = Array.from({ length: 60 }, (_, i) => ask(`b${i}`, 4000 + i));
  assertEquals((await ask("c", 5000)).result, PCP.noResources);
  const refreshes = [all.refresh(), all.refresh(), all.refresh()];
  held.resolve();
  for (const { result } of await Promise.all([...waiting, ...others])) assertEquals(result, PCP.success);
  await Promise.all(refreshes);
  assertEquals(state.asked.length, 64 + 64, "each lease was asked for again once");
  assertEquals((await ask("a", 3005)).result, PCP.success);
});

Deno.test("leases: a NAT in front that is silent is not asked about what it never granted, nor again at once", async () => {
  const { all, state } = behind();
  const owner = { id: "a", address: "10.66.0.2" };
  const { answer } = state;
  state.answer = () =>
    Promise.resolve({ result: PCP.networkFailure, outer: 0, lifetimeS: 30, address: OUTSIDE });
  const ask = async (port: number) => (await all.map(owner, wish({ port, wanted: 0 }))).result;
  assertEquals([await ask(3001), await ask(3002)], [PCP.networkFailure, PCP.networkFailure]);
  assertEquals(state.asked, [[3001, 3001, 600]]);
  assertEquals(all.all, []);
  state.answer = answer;
  state.nowS = 60;
  assertEquals(await ask(3002), PCP.success);
});

/** Port control over a pool that opens whatever it is told, asked as a Worker asks. */
function atRelay(peers: PeerRecord[]) {
  const state = { peers, read: 0, opened: 0, refused: [] as RefusedPeerForward[] };
  let answer: (request: ControlDatagram) => Promise<Uint8Array | undefined> = () => Promise.reject();
  const control = new PortControl({
    pool: {
      get peers() {
        state.read++;
        return state.peers;
      },
      setForwards: () => {
        state.opened++;
        return Promise.resolve([]);
      },
      get refused() {
        return state.refused;
      },
      onPortControl: (to) => answer = to,
    },
    most: () => 4,
    listen: [],
    outside: () => [],
  });
  return {
    state,
    ask: (address: string, payload: Uint8Array<ArrayBuffer>) => answer({ address, port: 40000, payload }),
    [Symbol.dispose]: () => control.close(),
  };
}

const peerOf = (name: string, allowedIps: string[], forwards?: string[]) =>
  ({ name, publicKey: `key of ${name}`, allowedIps, forwards, created: "2026" }) as PeerRecord;

Deno.test("port control: an address that asks too often costs no look-up of its peer, and others are answered", async () => {
  using relay = atRelay([peerOf("a", ["10.66.0.0/24"]), peerOf("b", ["10.66.0.3/32"])]);
  const question = Uint8Array.of(0, 0);
  for (let i = 0; i < 1000; i++) await relay.ask("10.66.9.9", question);
  assert(relay.state.read < 1000, `${relay.state.read} look-ups for 1000 requests within a moment`);
  assert(await relay.ask("10.66.0.3", question));
  let answered = 0;
  // A network's addresses are one peer's.
  for (let i = 0; i < 1000; i++) if (await relay.ask(`10.66.0.${4 + i % 250}`, question)) answered++;
  assert(answered < 1000, `${answered} of 1000 within a moment`);
  assert(await relay.ask("10.66.0.3", question), "who has the address has its own count");
});

Deno.test("leases: NAT-PMP ends all of an asker's own of one protocol (RFC 6886 §3.4)", async () => {
  const { all, state, owner } = leases(8);
  const pmp = { version: 0, nonce: new Uint8Array(0), wanted: 0 } as const;
  await all.map(owner, wish({ ...pmp, port: 3001 }));
  await all.map(owner, wish({ ...pmp, port: 3002 }));
  await all.map(owner, wish({ ...pmp, port: 3001, protocol: "tcp" }));
  await all.map(owner, wish({ port: 3003, wanted: 0 }));
  await all.map({ id: "b", address: "10.66.0.3" }, wish({ ...pmp, port: 3004 }));
  const { result, outer } = await all.map(owner, wish({ ...pmp, port: 0, lifetimeS: 0 }));
  assertEquals([result, outer], [0, 0]);
  assertEquals(state.open.map(({ protocol, port }) => `${protocol} ${port}`), [
    "tcp 3001",
    "udp 3003",
    "udp 3004",
  ]);
});

Deno.test("port control: a record's port is told as open where it is, and to the address that it leads to alone", async () => {
  using relay = atRelay([peerOf("a", ["10.66.0.2/32", "10.66.8.0/24"], ["udp:4000:3074"])]);
  const ask = async (address: string) => {
    const pmp = Uint8Array.fromHex("00010000" + "0c020000" + "00000e10");
    const bytes = (await relay.ask(address, pmp))!;
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    return [view.getUint16(2), view.getUint16(10)];
  };
  assertEquals(await ask("10.66.0.2"), [0, 4000]);
  assertEquals(await ask("10.66.8.7"), [0, 3074], "a lease of its own");
  const forward = { protocol: "udp", outer: 4000, address: "10.66.0.2", port: 3074, peer: "a" } as const;
  relay.state.refused = [{ forward: { ...forward, publicKey: "key of a" }, reason: "is in use" }];
  assertEquals(await ask("10.66.0.2"), [4, 0], "out of resources");
});
