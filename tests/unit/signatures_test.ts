/**
 * Byte patterns: how they are written and refused, where they may look, and that those of the project fit the packets that
 * public specifications describe, written out here byte by byte.
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { APPLICATIONS, SIGNATURES } from "../../src/control/applications.ts";
import { FLOW_KEYS, FlowTable } from "../../src/control/flows.ts";
import { applicationName } from "../../src/control/explain.ts";
import { applicationOf, recognise } from "../../src/control/recognise.ts";
import { LOOK_BYTES, readNibbles, Signatures } from "../../src/control/signatures.ts";
import { Random } from "../kit/random.ts";

function hex(text: string): Uint8Array {
  const digits = text.replace(/\s/g, "");
  return Uint8Array.from(
    { length: digits.length / 2 },
    (_, i) => parseInt(digits.slice(2 * i, 2 * i + 2), 16),
  );
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

/** A payload of `bytes` that begins with the digits. */
function payload(text: string, bytes = text.replace(/\s/g, "").length / 2): Uint8Array {
  const all = new Uint8Array(bytes);
  all.set(hex(text));
  return all;
}

/** What a flow is recognised as by these payloads. */
function recognised(payloads: Uint8Array[], near = 40_000, far = 40_001): string {
  const flows = new FlowTable(8, new Uint32Array(FLOW_KEYS));
  for (const one of payloads) recognise(flows, 0, viewOf(one), 0, one.length, near << 16 | far);
  return applicationName(flows, 0);
}

Deno.test("signatures: digits, free ones and sets; what is none is refused with its text", () => {
  assertEquals(readNibbles("4"), [1 << 4, 0xffff]);
  assertEquals(readNibbles("a. [02-4]"), [1 << 10, 0xffff, 0b11101, 0xffff]);
  for (const wrong of ["xy", "[", "[]", "[4-]", "0-1", "12 3g"]) {
    assertThrows(() => readNibbles(wrong), SyntaxError, wrong);
  }
  const long = "00".repeat(LOOK_BYTES);
  new Signatures([{ app: 1, points: 4, bytes: long }]);
  assertThrows(() => new Signatures([{ app: 1, points: 4, bytes: long, at: 1 }]), SyntaxError, "beyond");
});

Deno.test("signatures: bytes, bounds, ports and the length field all count, and the first that fits is found", () => {
  const signatures = new Signatures([
    { app: 1, points: 4, bytes: "0102", ports: [100, 200] },
    { app: 2, points: 3, bytes: "..02", min: 8, max: 9 },
    { app: 3, points: 2, bytes: "01", length: { at: 2, plus: 4, mask: 0x7ff } },
    { app: 4, points: 1, bytes: "01", length: { at: 2, plus: 4, isLittle: true } },
  ]);
  const find = (text: string, bytes: number, port = 5) =>
    signatures.find(viewOf(payload(text, bytes)), 0, bytes, 9, port);
  assertEquals([find("0102", 5, 100), find("0102", 5, 200), find("0102", 5, 201)], [0, 0, -1]);
  assertEquals([find("0102", 8), find("0102", 9), find("0102", 10), find("0002", 8)], [1, 1, -1, 1]);
  assertEquals([find("0103f806", 10), find("01030008", 10)], [2, -1]);
  assertEquals(find("01030600", 10), 3);
  assertEquals(find("01", 1), -1, "what is not there fits nothing");
});

Deno.test("signatures: a look reads no more than the payload, whatever it is", () => {
  const signatures = new Signatures(SIGNATURES.map((one) => ({ ...one, app: applicationOf(one.app) })));
  const random = new Random(4);
  const guard = new Uint8Array(LOOK_BYTES);
  for (let round = 0; round < 20_000; round++) {
    const bytes = 1 + random.u32() % LOOK_BYTES;
    random.fill(guard);
    const { bytes: pattern, at = 0 } = SIGNATURES[random.u32() % SIGNATURES.length];
    if (round & 1) {
      readNibbles(pattern).forEach((set, i) => {
        const place = at + (i >> 1);
        if (set === 0xffff || place >= LOOK_BYTES) return;
        const digit = 31 - Math.clz32(set);
        guard[place] = i & 1 ? guard[place] & 0xf0 | digit : guard[place] & 0x0f | digit << 4;
      });
    }
    // The view ends where the payload does: one byte more and it throws.
    const view = new DataView(guard.buffer, 0, bytes);
    signatures.find(view, 0, bytes, random.u32() & 0xffff, random.u32() & 0xffff);
  }
});

Deno.test("signatures: every application of the table has a pattern, or comes of two, and every pattern an application", () => {
  const named = new Set(SIGNATURES.map(({ app }) => app));
  for (const [name] of APPLICATIONS.slice(1)) {
    assert(named.has(name) || ["webrtc", "rtp"].includes(name), `${name} is never found`);
  }
  for (const { app, points } of SIGNATURES) {
    applicationOf(app);
    assert(points >= 1 && points <= 4);
  }
  assertThrows(() => applicationOf("nothing of this name"), RangeError);
});

const COOKIE = "2112a442", ID = "000102030405060708090a0b";

Deno.test("signatures: public protocols are known by the packets that their specifications describe", () => {
  const stun = payload(`0001 0008 ${COOKIE} ${ID} 8022 0004 61626364`);
  const cases: [string, Uint8Array[], [number, number]?][] = [
    ["stun", [stun]],
    ["turn", [payload(`0003 0008 ${COOKIE} ${ID} 0019 0004 11000000`)]],
    ["webrtc", [stun, payload("16 fefd 0000 000000000000 0010", 29)]],
    ["dtls", [payload("16 fefd 0000 000000000000 0010", 29)]],
    ["quic", [payload("c3 00000001 08 0102030405060708 00", 1200)]],
    ["quic", [payload("d3 6b3343cf 08 0102030405060708 00", 1200)]],
    ["raknet", [payload("05 00ffff00fefefefefdfdfdfd12345678 0a", 1400)]],
    ["raknet", [payload("01 0000000000001234 00ffff00fefefefefdfdfdfd12345678 0102030405060708")]],
    ["source", [payload("ffffffff 54 536f7572636520456e67696e6520517565727900")]],
    ["steam", [payload("ffffffff 214c5fa0 16000000", 40)]],
    ["enet", [payload("8fff 0001 82ff0001 0000ffff", 52)]],
    ["kcp", [payload("01000000 51 00 8000 14000000 00000000 00000000 10000000", 40)]],
    ["netcode", [payload("00 4e4554434f444520312e303200", 1078)]],
    ["discord", [payload("0001 0046 00000005", 74)]],
    ["teamspeak", [payload("545333494e495431 00650000 88", 34)]],
    ["mumble", [payload("00000000 0102030405060708"), payload("00010304 0102030405060708", 24)], [
      50_000,
      64_738,
    ]],
    ["bittorrent", [payload("64313a61 6432 3a6964 3230 3a", 104)]],
    ["bittorrent", [
      payload("4100 0001 00000001 00000000 00100000 0001 0000"),
      payload("2100 0001 00000001 00000001 00100000 0001 0001"),
    ]],
    ["wireguard", [payload("01000000 01020304", 148)]],
    ["openvpn", [payload("38 0102030405060708 00 00000000")]],
    ["dns", [payload("1234 0100 0001 0000 0000 0000", 30)], [50_000, 53]],
    ["ntp", [payload("23", 48)], [123, 123]],
    ["ssdp", [payload("4d2d534541524348202a")]],
    ["dhcp", [payload("01010600", 300)], [68, 67]],
    ["sip", [payload("494e5649544520736970 3a")]],
    ["rpc", [payload("00000001 00000000 00000002 000186a3 00000003")], [1000, 2049]],
    ["tftp", [payload("0003 0001", 516), payload("0004 0001")]],
    ["", [payload("0003 0001", 516)]],
    ["", [payload("deadbeef", 100)]],
  ];
  for (const [name, payloads, ports] of cases) assertEquals(recognised(payloads, ...ports ?? []), name, name);
});

Deno.test("signatures: what says more stays: a program over its transport, and points only of one application add up", () => {
  const stun = `0001 0008 ${COOKIE} ${ID}`;
  const plain = payload(`${stun} 8022 0004 61626364`), whatsapp = payload(`${stun} 4000 0004 61626364`);
  assertEquals(recognised([plain, whatsapp]), "whatsapp");
  assertEquals(recognised([whatsapp, plain, payload("16 fefd 0000 000000000000 0010", 29)]), "whatsapp");
  // Two halves of different protocols are nothing.
  assertEquals(recognised([payload("0004 0001"), payload("c000 0101 000000"), payload("0004 0001")]), "");
});
