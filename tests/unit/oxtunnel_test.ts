/**
 * OxTunnel's bytes: every example of PROTOCOL §21 against the emitters, the comparison of §20 computed from the
 * code of both protocols, and each writer against its reader over seeded random values. Sealed examples are made
 * with node:crypto, so that an implementation of the crypto has vectors to meet.
 * Long because every example of the protocol is written out once.
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { Buffer } from "node:buffer";
import { createCipheriv } from "node:crypto";
import fc from "fast-check";
import {
  COPY_HEAD_BYTES,
  copyFits,
  readCopyCounter,
  readCopyPath,
  writeCopyHead,
} from "../../src/wire/repair.ts";
import * as control from "../../src/wire/control.ts";
import * as frame from "../../src/wire/frame.ts";
import * as ox from "../../src/wire/oxtunnel.ts";
import { arrivalSteps, clockSteps, Report } from "../../src/wire/report.ts";
import * as parameters from "../../src/wire/parameters.ts";
import { protectHeader } from "../kit/header_protection.ts";
import { DATA_HEADER_BYTES, paddedLength, TAG_BYTES } from "../../src/wire/wireguard.ts";

const PROTOCOL = Deno.readTextFileSync(new URL("../../src/wire/PROTOCOL.md", import.meta.url));
const options = { numRuns: 500 };
/** Not aligned, as an offset into an arena may be. */
const AT = 83;
const CANARY = 0xa5;

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
const range = (from: number, count: number) => Uint8Array.from({ length: count }, (_, i) => from + i);

/** What `write` put at AT, of as many bytes as it says; nothing else was touched. */
function written(write: (view: DataView, at: number) => number, body = new Uint8Array(0)): Uint8Array {
  const bytes = new Uint8Array(AT + 2048).fill(CANARY);
  const length = write(new DataView(bytes.buffer), AT);
  assert(bytes.subarray(0, AT).every((byte) => byte === CANARY), "bytes in front were written");
  assert(bytes.subarray(AT + length).every((byte) => byte === CANARY), "bytes behind were written");
  bytes.set(body, AT + length);
  return bytes.slice(AT, AT + length + body.length);
}

/** The rows of the first table that follows `after`, cells trimmed, without its two head lines. */
function table(after: string): string[][] {
  const lines = PROTOCOL.slice(PROTOCOL.indexOf(after)).split("\n");
  const first = lines.findIndex((line) => line.startsWith("|"));
  const rows: string[][] = [];
  for (let i = first + 2; lines[i]?.startsWith("|"); i++) {
    rows.push(lines[i].split("|").slice(1, -1).map((cell) => cell.trim()));
  }
  assert(rows.length > 0, after);
  return rows;
}

type Aead = "AES-256-GCM" | "ChaCha20-Poly1305" | "AES-256-GMAC";

/** Sixteen bytes of mask, of which five are used. */
function maskOf(aead: Aead, key: Uint8Array, sample: Uint8Array): Uint8Array {
  return aead !== "ChaCha20-Poly1305"
    ? createCipheriv("aes-256-ecb", key, null).update(sample)
    : createCipheriv("chacha20", key, sample).update(new Uint8Array(16));
}

/** A whole data datagram as §12 says. */
function sealed(
  aead: Aead,
  id: number,
  counter: number,
  counterBytes: number,
  plaintext: Uint8Array,
  path = 0,
) {
  const [key, protectKey] = [range(0, 32), range(32, 32)];
  const datagram = new Uint8Array(ox.SHORT_HEADER_MAX_BYTES + plaintext.length + ox.OX_TAG_BYTES);
  const view = new DataView(datagram.buffer);
  const header = ox.writeShortHeader(view, 0, 0, id, counter, counterBytes);
  const nonce = new Uint8Array(12);
  new DataView(nonce.buffer).setUint32(0, path, true);
  new DataView(nonce.buffer).setBigUint64(4, BigInt(counter), true);
  const cipher = createCipheriv(
    aead !== "ChaCha20-Poly1305" ? "aes-256-gcm" : "chacha20-poly1305",
    key,
    nonce,
    // The types know no authTagLength for either name as a union.
    { authTagLength: 16 } as never,
  ) as ReturnType<typeof createCipheriv> & { setAAD(data: Uint8Array): void; getAuthTag(): Uint8Array };
  datagram.set(plaintext, header);
  if (aead === "AES-256-GMAC") {
    cipher.setAAD(datagram.slice(0, header + plaintext.length));
  } else {
    cipher.setAAD(datagram.slice(0, header));
    datagram.set(cipher.update(plaintext), header);
  }
  cipher.final();
  datagram.set(cipher.getAuthTag(), header + plaintext.length);
  const length = header + plaintext.length + ox.OX_TAG_BYTES;
  const from = ox.sampleAt(0, length);
  const sample = datagram.slice(from, from + 16);
  const mask = maskOf(aead, protectKey, sample);
  protectHeader(view, 0, mask, 0);
  return { datagram: datagram.slice(0, length), mask };
}

function report(change: Partial<Report>, bitmap: number[]): Report {
  const result = Object.assign(new Report(), change);
  result.bitmap.set(bitmap);
  result.bitmapBytes = bitmap.length;
  return result;
}

function fullReport(): Report {
  const result = report({
    highest: 10,
    received: 11,
    hasEcn: true,
    ect0: 1,
    ect1: 2,
    congestionExperienced: 3,
    hasQuality: true,
    reorderDepth: 7,
    repaired: 8,
    unrepaired: 9,
    arrivalCount: 2,
    hasClock: true,
    clock: 0x1234,
  }, [3]);
  result.lossRuns.set([1, 2, 3, 4, 5]);
  result.arrivals.set([arrivalSteps(1000), arrivalSteps(48)]);
  return result;
}

function gameHint(): control.Hint {
  const hint = Object.assign(new control.Hint(), {
    sequence: 1,
    trafficClass: control.CLASS_GAME,
    protocol: 17,
    lifetimeS: 600,
    clientPort: 5000,
    remotePort: 27015,
  });
  hint.client.set([0, 0, 0xffff, 0x0a420002]);
  hint.remote.set([0, 0, 0xffff, 0xc0000201]);
  return hint;
}

/** What each example of §21 is made by. */
const EXAMPLES: Record<string, () => Uint8Array> = {
  "data header: phase 1, id 0x12345678, counter 0x1122334455, 3 bytes": () =>
    written((view, at) => ox.writeShortHeader(view, at, 1, 0x12345678, 0x1122334455, 3)),
  "the same under mask ff 01 02 03 04": () =>
    written((view, at) => {
      const length = ox.writeShortHeader(view, at, 1, 0x12345678, 0x1122334455, 3);
      protectHeader(view, at, Uint8Array.of(9, 0xff, 1, 2, 3, 4), 1);
      return length;
    }),
  "long header: initiation, 40 bytes of early data": () =>
    written((view, at) => (ox.writeLongHeader(view, at, ox.KIND_INITIATION, 40), 4)),
  "head: packet of 60 bytes": () =>
    written((view, at) => frame.writeFrameHead(view, at, frame.FRAME_PACKET, 60) - at),
  "head: LZ4, 100 bytes that become 1400": () =>
    written((view, at) => frame.writeLz4Head(view, at, 100, 1400) - at),
  "ping, token 0x01020304": () => written((view, at) => control.writePing(view, at, 0x01020304)),
  "pong, held 1000 µs": () => written((view, at) => control.writePong(view, at, 0x01020304, 1000)),
  "report: highest 0x10000000a, 160 µs ago, 9 datagrams, bitmap ff 01": () =>
    written((view, at) =>
      report({ highest: 0x10000000a, delayUs: 160, received: 9 }, [0xff, 1]).write(view, at)
    ),
  "report with all sections": () => written((view, at) => fullReport().write(view, at)),
  "path challenge": () =>
    written((view, at) =>
      control.writePath(view, at, control.CONTROL_PATH_CHALLENGE, 0x04030201, 0x08070605)
    ),
  "probe of 1400 bytes": () =>
    written((view, at) => control.writeShort(view, at, control.CONTROL_PROBE, 1400)),
  "request: the 1st and 2nd behind counter 0x1234, the 3rd behind 0x1230": () =>
    written((view, at) => {
      const first = control.writeRequest(view, at, 0, 2);
      const second = control.writeRequestEntry(view, first, 0x7_1234, 1, 2);
      return control.writeRequestEntry(view, second, 0x1230, 3, 1) - at;
    }),
  "deadline of 60 ms": () =>
    written((view, at) => control.writeShort(view, at, control.CONTROL_DEADLINE, 60)),
  "contexts: the anchor 0x1234 of 3 by generation 7": () =>
    written((view, at) => control.writeContexts(view, at, Uint8Array.of(0x83, 7, 0x34), 3)),
  "ack of 7": () => written((view, at) => control.writeShort(view, at, control.CONTROL_ACK, 7)),
  "close, draining, retry in 5 s": () =>
    written((view, at) => control.writeClose(view, at, control.CLOSE_DRAINING, 5)),
  "key exchange: request for epoch 1, last part of a hybrid one, without its 192 bytes": () =>
    written((view, at) =>
      control.writeKeyExchange(view, at, control.KEY_REQUEST, 1, control.KEY_REQUEST_HYBRID_BYTES, 1024) - at
    ),
  "hint: game, UDP, 600 s, 10.66.0.2:5000 to 192.0.2.1:27015": () =>
    written((view, at) => gameHint().write(view, at)),
  "connection ids 2 and 3, ids below 1 retired": () =>
    written((view, at) =>
      control.writeConnectionIds(view, at, 2, 2, 1, Uint32Array.of(0xdddddddd, 0xeeeeeeee), 2)
    ),
  "path ids of path 1: numbers 0 and 1, none retired": () =>
    written((view, at) =>
      control.writePathIds(view, at, 5, 1, 0, 0, Uint32Array.of(0xdddddddd, 0xeeeeeeee), 2)
    ),
  "path status: path 2 is available, metered, for games and calls twice": () =>
    written((view, at) =>
      control.writePathStatus(view, at, 6, 2, control.PATH_AVAILABLE, control.COST_METERED, 0b110)
    ),
  "copy of counter 0x12345 of path 3, a packet of 4 bytes": () =>
    written((view, at) => {
      const body = frame.writeFrameHead(view, at, frame.FRAME_COPY, COPY_HEAD_BYTES + 4);
      return writeCopyHead(view, body, 3, 0x12345) - at;
    }, Uint8Array.of(0x45, 0, 0, 4)),
  "config: MTU 1380": () => {
    const body = new Uint8Array(8);
    const length = parameters.writeParameters(body, 0, { mtu: 1380 });
    return written(
      (view, at) => control.writeReliable(view, at, control.CONTROL_CONFIG, 3, length) - at,
      body.subarray(0, length),
    );
  },
  "ticket of 2 bytes, one day, secret 32 × 07": () =>
    written(
      (view, at) => control.writeTicket(view, at, 4, 86400, new Uint8Array(32).fill(7), 2) - at,
      Uint8Array.of(0xab, 0xcd),
    ),
  "parameters: features 0x41, AEADs 2 and 1, 10.66.0.2/16, region fra": () => {
    const bytes = new Uint8Array(64);
    const end = parameters.writeParameters(bytes, 0, {
      features: parameters.FEATURE_LZ4 | parameters.FEATURE_HYBRID_KEYS,
      aeads: [parameters.AEAD_AES_256_GCM, parameters.AEAD_CHACHA20_POLY1305],
      lease4: { address: Uint8Array.of(10, 66, 0, 2), prefixBits: 16 },
      region: "fra",
    });
    return bytes.slice(0, end);
  },
};

Deno.test("oxtunnel: the document's examples are what the emitters write (PROTOCOL §21)", () => {
  const documented = table("## §21");
  assertEquals(documented.map(([name]) => name), Object.keys(EXAMPLES));
  for (const [name, bytes] of documented) {
    assertEquals(hex(EXAMPLES[name]()), bytes.replace(/\s/g, ""), name);
  }
});

Deno.test("oxtunnel: the document's sealed datagrams are reproduced (PROTOCOL §12, §21)", () => {
  const rows = table("Whole data datagrams");
  assertEquals(rows.length, 3);
  for (const [aead, bytes] of rows) {
    const { datagram, mask } = sealed(aead as Aead, 0x0badcafe, 300, 2, Uint8Array.of(0x45, 0, 0, 4));
    assertEquals(hex(datagram), bytes.replace(/\s/g, ""), aead);
    // And back: length, id, flags, counter as a receiver finds them.
    const view = new DataView(datagram.buffer);
    assert(ox.oxtunnelLengthFits(view, 0, datagram.length));
    assertEquals(ox.readConnectionId(view, 0), 0x0badcafe);
    const flags = ox.unprotectHeader(view, 0, mask, 0);
    assertEquals([ox.keyPhase(flags), ox.hasReservedFlags(flags, ox.RESERVED_FLAGS_PLAIN)], [0, false]);
    assertEquals(ox.plaintextBytes(flags, datagram.length), 4);
    assertEquals(ox.recoverCounter(ox.readTruncatedCounter(view, 0), 2, 290), 300);
  }
});

Deno.test("oxtunnel: and those of another path (PROTOCOL §12, §21)", () => {
  const rows = table("The same on path 1");
  assertEquals(rows.length, 3);
  for (const [aead, bytes] of rows) {
    const { datagram } = sealed(aead as Aead, 0x0badcafe, 300, 2, Uint8Array.of(0x45, 0, 0, 4), 1);
    assertEquals(hex(datagram), bytes.replace(/\s/g, ""), aead);
  }
});

Deno.test("oxtunnel: a copy means the counter nearest to what is expected, and has packets", () => {
  const view = new DataView(new ArrayBuffer(16));
  for (const highest of [-1, 0, 5, 1000, 65_535, 65_536, 1_000_000, 2 ** 40]) {
    for (const ahead of [-32_000, -100, 0, 1, 2, 100, 32_000]) {
      const counter = highest + ahead;
      if (counter < 0) continue;
      writeCopyHead(view, 0, 7, counter);
      assertEquals([readCopyPath(view, 0), readCopyCounter(view, 0, highest)], [7, counter]);
    }
  }
  writeCopyHead(view, 0, 1, 2 ** 48 - 1);
  assertEquals(readCopyCounter(view, 0, 2 ** 48 - 10), 2 ** 48 - 1);
  writeCopyHead(view, 0, 1, 2 ** 48 + 1);
  assertEquals(readCopyCounter(view, 0, 2 ** 48 - 10), -1, "no datagram has it");
  writeCopyHead(view, 0, 7, 1);
  assertEquals([copyFits(view, 0, COPY_HEAD_BYTES), copyFits(view, 0, COPY_HEAD_BYTES + 1)], [false, true]);
  writeCopyHead(view, 0, 8, 1);
  assertEquals(copyFits(view, 0, 10), false, "a reserved bit");
});

Deno.test("oxtunnel: the mask is RFC 9001's for its appendix A.5", () => {
  const key = "25a282b9e82f06f21f488917a4fc8f1b73573685608597d0efcb076b0ab7a7a4";
  const sample = Buffer.from("5e5cd55c41f69080575d7999c25a5bfb", "hex");
  assertEquals(hex(maskOf("ChaCha20-Poly1305", Buffer.from(key, "hex"), sample)).slice(0, 10), "aefefe7d03");
});

Deno.test("oxtunnel: the comparison with WireGuard is computed from both codes (PROTOCOL §20)", () => {
  const wireguard = (...lengths: number[]) =>
    lengths.reduce((sum, length) => sum + DATA_HEADER_BYTES + paddedLength(length, 1420) + TAG_BYTES, 0);
  /** Counters that are under way until a report names them. */
  const underWay = (packetsPerS: number) => Math.ceil(packetsPerS * 0.125);
  const oxtunnel = (packetsPerS: number, control: number, ...lengths: number[]) => {
    const distance = underWay(packetsPerS);
    const bytes = written((view, at) => {
      const header = ox.writeShortHeader(view, at, 0, 1, distance, ox.counterBytes(distance, 0));
      let here = at + header + control;
      lengths.forEach((length, i) => {
        // The last one is bare.
        if (i < lengths.length - 1) here = frame.writeFrameHead(view, here, frame.FRAME_PACKET, length);
        here += length;
      });
      return here + ox.OX_TAG_BYTES - at;
    });
    return bytes.length;
  };
  const small = report({ highest: 8, received: 8 }, [0xff, 0xff, 0xff, 0xff]);
  const reportBytes = written((view, at) => small.write(view, at)).length;
  const expected = [
    [60, wireguard(60), oxtunnel(64, 0, 60)],
    [100, wireguard(100), oxtunnel(50, 0, 100)],
    [1420, wireguard(1420), oxtunnel(100_000, 0, 1420)],
    [120, wireguard(60, 60), oxtunnel(128, 0, 60, 60)],
    [60, wireguard(60), oxtunnel(64, reportBytes, 60)],
  ].map(([inner, theirs, ours]) => [inner, theirs, ours, (ours / theirs).toFixed(3)].map(String));
  assertEquals(table("## §20").map((row) => row.slice(1)), expected);
  assertEquals(ox.SHORT_HEADER_MIN_BYTES, 6);
  assert(6 + ox.counterBytes(underWay(100_000), 0) - 1 <= 8, "a long session's header has at most 8 bytes");
});

Deno.test("oxtunnel: the first byte tells the protocols apart (PROTOCOL R22)", () => {
  for (let first = 0; first < 256; first++) assertEquals(ox.isOxtunnel(first), (first & 0x40) !== 0);
  for (let type = 1; type <= 4; type++) assertEquals(ox.isOxtunnel(type), false);
});

Deno.test("oxtunnel: lengths and versions that the forms do not have are refused (PROTOCOL R23, R24, R27)", () => {
  const fits = (head: number[], length: number) => {
    const bytes = new Uint8Array(Math.max(length, 8));
    bytes.set(head);
    return ox.oxtunnelLengthFits(new DataView(bytes.buffer), 0, length);
  };
  const cases: [head: number[], length: number, fits: boolean][] = [
    [[0x40], 0, false],
    [[0x40], 21, false],
    [[0x40], 22, true],
    [[0x7f], 1936, true],
    [[0x7f], 1937, false],
    [[0x01], 148, false],
    [[0x80, 1], 148, false],
    [[0xc1, 1], 511, false],
    [[0xc1, 1], 512, true],
    [[0xc1, 1], 1200, true],
    [[0xc1, 1], 1201, false],
    [[0xc1, 2], 512, false],
    [[0xc1, 0], 512, false],
    // Early data of no byte, of one, of all the room, of one more than that.
    [[0xc1, 1, 16], 512, false],
    [[0xc1, 1, 17], 512, true],
    [[0xc1, 1, 0x6c, 1], 512, true],
    [[0xc1, 1, 0x6d, 1], 512, false],
    [[0xc1, 1, 0xff, 0xff], 1200, false],
    [[0xc2, 1], 91, false],
    [[0xc2, 1], 92, true],
    [[0xc2, 1], 512, true],
    [[0xc2, 1], 513, false],
    [[0xc2, 1, 17], 200, false],
    [[0xc3, 1], 63, false],
    [[0xc3, 1], 64, true],
    [[0xc3, 1], 65, false],
    [[0xc0, 1], 512, false],
    [[0xc4, 1], 64, false],
  ];
  for (const [head, length, expected] of cases) {
    assertEquals(fits(head, length), expected, `${head} ${length}`);
  }
  assert(ox.OX_RESPONSE_MAX_BYTES <= ox.OX_INITIATION_MIN_BYTES);
  assert(ox.OX_COOKIE_REPLY_BYTES <= ox.OX_INITIATION_MIN_BYTES);
});

Deno.test("oxtunnel: header and tag must fit, reserved flags show (PROTOCOL R38, R40)", () => {
  for (let bytes = 1; bytes <= 4; bytes++) {
    assertEquals(ox.plaintextBytes(0x40 | (bytes - 1), 22), 1 - bytes);
    assertEquals(ox.plaintextBytes(0x44 | (bytes - 1), 26), 5 - bytes);
  }
  for (let flags = 0x40; flags < 0x80; flags++) {
    assertEquals(ox.hasReservedFlags(flags, ox.RESERVED_FLAGS_PLAIN), (flags & 0b111000) !== 0);
    assertEquals(ox.hasReservedFlags(flags, ox.RESERVED_FLAGS_MARKED), (flags & 0b100000) !== 0);
    assertEquals(ox.readMark(flags), (flags >> 3) & 3);
    assertEquals(ox.keyPhase(flags), (flags >> 2) & 1);
  }
});

Deno.test("oxtunnel: a data header comes back from under any mask", () => {
  const counter = fc.oneof(fc.nat(2 ** 20), fc.maxSafeInteger().map((n) => Math.abs(n) % ox.COUNTER_LIMIT));
  const mask = fc.uint8Array({ minLength: 5, maxLength: 5 });
  const id = fc.integer({ min: 0, max: 0xffffffff });
  fc.assert(
    fc.property(
      counter,
      id,
      fc.nat(1),
      fc.integer({ min: 1, max: 4 }),
      mask,
      (counter, id, phase, n, mask) => {
        const bytes = new Uint8Array(AT + 40).fill(CANARY);
        const view = new DataView(bytes.buffer);
        assertEquals(ox.writeShortHeader(view, AT, phase, id, counter, n), 5 + n);
        const plain = bytes.slice();
        protectHeader(view, AT, mask, 0);
        assertEquals(bytes[AT] >> 6, 1);
        assertEquals(ox.readConnectionId(view, AT), id);
        const covered = bytes[AT] !== plain[AT] || (mask[0] & 0x3f) === 0;
        assert(covered, "flags under a mask differ");
        const flags = ox.unprotectHeader(view, AT, mask, 0);
        assertEquals(bytes, plain);
        assertEquals([ox.keyPhase(flags), ox.shortHeaderBytes(flags)], [phase, 5 + n]);
        assertEquals(ox.readTruncatedCounter(view, AT), counter % 2 ** (8 * n));
      },
    ),
    options,
  );
});

Deno.test("oxtunnel: RFC 9000 appendix A.3's example of a truncated counter", () => {
  assertEquals(ox.recoverCounter(0x9b32, 2, 0xa82f30ea), 0xa82f9b32);
});

Deno.test("oxtunnel: a counter is recovered as RFC 9000 appendix A.3 writes it, in doubles", () => {
  const naive = (truncated: number, bytes: number, highest: number) => {
    const window = 2 ** (8 * bytes);
    const expected = highest + 1;
    const candidate = expected - (expected % window) + truncated;
    if (candidate <= expected - window / 2) return candidate + window;
    return candidate > expected + window / 2 && candidate >= window ? candidate - window : candidate;
  };
  const highest = fc.tuple(fc.nat(46), fc.maxSafeInteger()).map(([bits, n]) => Math.abs(n) % 2 ** bits - 1);
  fc.assert(
    fc.property(
      highest,
      fc.integer({ min: 1, max: 4 }),
      fc.integer({ min: 0, max: 0xffffffff }),
      (highest, n, low) => {
        const truncated = low % 2 ** (8 * n);
        assertEquals(ox.recoverCounter(truncated, n, highest), naive(truncated, n, highest));
      },
    ),
    { ...options, numRuns: 5000 },
  );
});

Deno.test("oxtunnel: counters come back from what is sent, lost and late ones too (PROTOCOL R41, R42)", () => {
  const distances = fc.oneof(
    fc.nat(2 ** 6),
    fc.nat(2 ** 14),
    fc.nat(2 ** 22),
    fc.integer({ min: 1, max: ox.DISTANCE_LIMIT - 1 }),
  );
  fc.assert(
    fc.property(
      fc.maxSafeInteger().map((n) => Math.abs(n) % 2 ** 47),
      distances,
      fc.double({ min: 0, max: 1, noNaN: true }),
      fc.double({ min: 0, max: 1, noNaN: true }),
      (acknowledged, distance, progress, lateness) => {
        const counter = acknowledged + Math.max(1, distance);
        const n = ox.counterBytes(counter, acknowledged);
        assert(n > 0);
        const truncated = counter % 2 ** (8 * n);
        // The receiver is anywhere between what it reported and just before this counter …
        const highest = acknowledged + Math.floor((counter - 1 - acknowledged) * progress);
        assertEquals(ox.recoverCounter(truncated, n, highest), counter);
        // … or so far ahead as three quarters of half a window.
        const ahead = counter + Math.floor(0.75 * 2 ** (8 * n - 1) * lateness);
        assertEquals(ox.recoverCounter(truncated, n, ahead), counter);
      },
    ),
    options,
  );
  assertEquals(
    [1, 31, 32, 8191, 8192, 2 ** 21 - 1, 2 ** 21, 2 ** 29 - 1, 2 ** 29].map((d) => ox.counterBytes(d, 0)),
    [1, 1, 2, 2, 3, 3, 4, 4, 0],
  );
  assertEquals(ox.counterBytes(0, -1), 1);
  assertEquals(ox.recoverCounter(0xffff, 2, ox.COUNTER_LIMIT - 2), ox.COUNTER_LIMIT - 1);
  assertEquals(ox.recoverCounter(0, 2, ox.COUNTER_LIMIT - 1), -1);
  assertEquals(ox.recoverCounter(0, 1, -1), 0);
  assertEquals(ox.recoverCounter(255, 1, -1), 255);
  // Half a window away on either side, the higher counter is meant.
  assertEquals([ox.recoverCounter(0, 1, 127), ox.recoverCounter(128, 1, 255)], [256, 384]);
});

/** Every frame that the reader hands out of a plaintext, and how it ends. */
function framesOf(bytes: Uint8Array): { frames: [kind: number, body: string][]; end: number } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const reader = new frame.FrameReader();
  reader.start(0, bytes.length);
  const frames: [number, string][] = [];
  for (;;) {
    const kind = reader.next(view);
    if (kind < 0) {
      assertEquals(reader.next(view), kind, "the end stays the end");
      return { frames, end: kind };
    }
    frames.push([kind, hex(bytes.subarray(reader.at, reader.at + reader.length))]);
  }
}

Deno.test("frames: what was written in a row comes back, the last packet bare", () => {
  const body = fc.uint8Array({ minLength: 1, maxLength: 40, size: "max" });
  const head = fc.tuple(fc.nat(15), body);
  fc.assert(
    fc.property(
      fc.array(head, { maxLength: 20, size: "max" }),
      fc.option(body),
      fc.nat(4),
      (heads, bare, padding) => {
        const bytes = new Uint8Array(1000);
        const view = new DataView(bytes.buffer);
        let at = 0;
        const expected: [number, string][] = [];
        for (const [kind, body] of heads) {
          at = frame.writeFrameHead(view, at, kind, body.length);
          bytes.set(body, at);
          at += body.length;
          expected.push([kind, hex(body)]);
        }
        if (bare) {
          bare[0] = (bare[0] & 0x0f) | (bare[0] < 128 ? 0x40 : 0x60);
          bytes.set(bare, at);
          at += bare.length;
          expected.push([frame.FRAME_PACKET, hex(bare)]);
        } else at += padding;
        assertEquals(framesOf(bytes.subarray(0, at)), { frames: expected, end: frame.FRAMES_END });
      },
    ),
    options,
  );
});

Deno.test("frames: reading ends at what is no frame and keeps what came before (PROTOCOL R47)", () => {
  const good = [0x80, 2, 0x45, 0];
  const cases: number[][] = [
    [0x80], // half a head
    [0x80, 0], // an empty body
    [0x80, 2, 0x45], // a body that is cut
    [0x87, 0xff, 0x45],
    [0x10],
    [0x3f, 1],
  ];
  for (const bad of cases) {
    assertEquals(framesOf(Uint8Array.from([...good, ...bad])), {
      frames: [[frame.FRAME_PACKET, "4500"]],
      end: frame.FRAMES_MALFORMED,
    }, bad.join());
  }
  assertEquals(framesOf(Uint8Array.from([...good, 0x50, 1, 2])), {
    frames: [[frame.FRAME_PACKET, "4500"], [frame.FRAME_HEADER_COMPRESSED, "500102"]],
    end: frame.FRAMES_END,
  });
  const many = (count: number) =>
    framesOf(Uint8Array.from({ length: count * 3 }, (_, i) => [0x90, 1, 0][i % 3]));
  assertEquals([many(64).frames.length, many(64).end], [64, frame.FRAMES_END]);
  assertEquals([many(65).frames.length, many(65).end], [64, frame.FRAMES_MALFORMED]);
});

Deno.test("frames: LZ4 lengths that do not shrink or exceed what is allowed are refused (PROTOCOL R49)", () => {
  const original = (length: number, original: number, mtu: number) => {
    const view = new DataView(new ArrayBuffer(4));
    view.setUint16(0, original, true);
    return frame.lz4OriginalBytes(view, 0, length, mtu);
  };
  assertEquals(original(102, 1400, 1400), 1400);
  assertEquals(original(102, 1401, 1400), 0);
  assertEquals(original(66, 1056, 1400), 1056, "16 times its body");
  assertEquals(original(66, 1057, 1400), 0, "more than 16 times");
  assertEquals(original(102, 103, 1400), 103);
  assertEquals(original(102, 102, 1400), 0);
  assertEquals(original(2, 100, 1400), 0);
  assertEquals(original(1, 0xffff, 0xffff), 0);
});

Deno.test("control: each example fits its kind at its own length and at no other (PROTOCOL R52)", () => {
  const open = new Set(["report", "config", "ticket"]);
  for (const [name, make] of Object.entries(EXAMPLES)) {
    let bytes = make();
    if (bytes[0] >> 3 !== 0x12) continue;
    if (name.startsWith("key exchange")) bytes = Uint8Array.from([...bytes, ...new Uint8Array(192)]);
    const view = new DataView(Uint8Array.from([...bytes, ...new Uint8Array(2048)]).buffer);
    const length = bytes.length - 2;
    assertEquals(view.getUint16(0) & 2047, length, name);
    assert(control.controlFits(view, 2, length), name);
    // A cut config and a cut ticket are still one; the list inside and the seal tell.
    if (!/^(config|ticket)/.test(name)) assert(!control.controlFits(view, 2, length - 1), name);
    if (!open.has(name.split(/[ :,]/)[0])) assert(!control.controlFits(view, 2, length + 1), name);
    assert(!control.controlFits(view, 2, 0));
  }
});

Deno.test("control: bodies that their kinds do not have are refused (PROTOCOL R52)", () => {
  const fits = (head: number[], length: number) => {
    const bytes = new Uint8Array(2048).fill(0xff);
    bytes.set(head);
    return control.controlFits(new DataView(bytes.buffer), 0, length);
  };
  const reportHead = (
    sections: number,
    bitmapBytes: number,
  ) => [3, sections, ...new Array(12).fill(0), bitmapBytes];
  const marked = new Array(32).fill(0xff);
  const cases: [name: string, head: number[], length: number, fits: boolean][] = [
    ["path ids of path 7", [0x24, 0, 0, 7], 12, true],
    ["path ids of the first path", [0x24, 0, 0, 0], 12, false],
    ["path ids of path 8", [0x24, 0, 0, 8], 12, false],
    ["path ids without any", [0x24, 0, 0, 1], 8, false],
    ["five path ids", [0x24, 0, 0, 1], 28, false],
    ["a closed path", [0x25, 0, 0, 7, 3], 7, true],
    ["a status of path 8", [0x25, 0, 0, 8, 3], 7, false],
    ["a status that there is not", [0x25, 0, 0, 1, 4], 7, false],
    ["a bitmap of 32 bytes", reportHead(0, 32), 47, true],
    ["a bitmap of 33 bytes", reportHead(0, 33), 48, false],
    ["a later section", reportHead(16, 0), 30, true],
    ["a clock", reportHead(8, 0), 17, true],
    ["half a clock", reportHead(8, 0), 16, false],
    ["a clock behind 64 arrivals", [...reportHead(12, 32), ...marked, 64], 47 + 1 + 128 + 2, true],
    ["arrivals and no clock", [...reportHead(12, 32), ...marked, 64], 47 + 1 + 128, false],
    ["64 arrivals", [...reportHead(4, 32), ...marked, 64], 47 + 1 + 128, true],
    ["65 arrivals", [...reportHead(4, 32), ...marked, 65], 47 + 1 + 130, false],
    ["no arrivals", [...reportHead(4, 32), ...marked, 0], 48, false],
    ["arrivals without their number", [...reportHead(4, 32), ...marked], 47, false],
    ["one connection id", [0x21], 11, true],
    ["no connection id", [0x21], 7, false],
    ["five connection ids", [0x21], 27, false],
    ["a ticket of a byte", [0x23], 40, true],
    ["a ticket of none", [0x23], 39, false],
    ["a ticket of 193", [0x23], 39 + 193, false],
    ["parameters of 512", [0x22], 515, true],
    ["parameters of 513", [0x22], 516, false],
    ["a key exchange of role 2", [8, 2, 1, 0, 0, 0, 32, 0, 0, 0], 42, false],
    ["an answer as long as a request", [8, 1, 1, 0, 0, 0, 0xc0, 4, 0, 0], 522, false],
    ["a part behind the end", [8, 0, 1, 0, 0, 0, 32, 0, 0, 2], 42, false],
    ["an unknown kind", [0x1f], 1, true],
    ["an unknown reliable kind", [0x3f], 3, true],
    ["an unknown reliable kind without its number", [0x3f], 2, false],
    ["an unknown kind beyond the reliable ones", [0x40], 1, true],
  ];
  for (const [name, head, length, expected] of cases) assertEquals(fits(head, length), expected, name);
});

const U32 = fc.integer({ min: 0, max: 0xffffffff });
/** A report's fields, and which datagrams it marks. */
const REPORT_FIELDS = fc.record({
  highest: fc.maxSafeInteger().map((n) => Math.abs(n) % ox.COUNTER_LIMIT),
  delayUs: fc.nat(65535).map((n) => 16 * n),
  received: U32,
  hasEcn: fc.boolean(),
  ect0: U32,
  ect1: U32,
  congestionExperienced: U32,
  hasQuality: fc.boolean(),
  reorderDepth: fc.nat(65535),
  repaired: U32,
  unrepaired: U32,
  hasClock: fc.boolean(),
  clock: fc.nat(65535),
});
const REPORT_BITMAP = fc.array(fc.nat(255), {
  maxLength: control.REPORT_BITMAP_MAX_BYTES,
  size: "max",
});

Deno.test("control: a report comes back as it was said", () => {
  const into = new Report();
  let longest = 0;
  fc.assert(
    fc.property(REPORT_FIELDS, REPORT_BITMAP, fc.nat(64), fc.int16Array({ minLength: 64, maxLength: 64 }), (
      fields,
      bitmap,
      wanted,
      arrivals,
    ) => {
      const said = report(fields, bitmap);
      const set = bitmap.reduce((sum, byte) => sum + byte.toString(2).replace(/0/g, "").length, 0);
      said.arrivalCount = Math.min(wanted, set);
      said.arrivals.set(arrivals);
      said.lossRuns.set([1, 20, 300, 4000, 50000]);
      const bytes = written((view, at) => said.write(view, at));
      longest = Math.max(longest, bytes.length - 2);
      const view = new DataView(bytes.buffer);
      assert(control.controlFits(view, 2, bytes.length - 2));
      into.read(view, 2);
      assertEquals(into.bitmap.subarray(0, into.bitmapBytes), said.bitmap.subarray(0, said.bitmapBytes));
      assertEquals(
        into.arrivals.subarray(0, into.arrivalCount),
        said.arrivals.subarray(0, said.arrivalCount),
      );
      const plain = [
        "highest",
        "delayUs",
        "received",
        "hasEcn",
        "hasQuality",
        "hasClock",
        "arrivalCount",
      ] as const;
      for (const name of plain) assertEquals(into[name], said[name], name);
      for (const name of ["ect0", "ect1", "congestionExperienced"] as const) {
        if (said.hasEcn) assertEquals(into[name], said[name], name);
      }
      for (const name of ["reorderDepth", "repaired", "unrepaired", "lossRuns"] as const) {
        if (said.hasQuality) assertEquals(into[name], said[name], name);
      }
      if (said.hasClock) assertEquals(into.clock, said.clock);
      // One more arrival than the bitmap marks is a lie.
      if (said.arrivalCount === set && set < control.REPORT_ARRIVALS_MAX && set > 0) {
        said.arrivalCount++;
        const lie = written((view, at) => said.write(view, at));
        assert(!control.controlFits(new DataView(lie.buffer), 2, lie.length - 2));
      }
    }),
    options,
  );
  assert(longest <= control.REPORT_MAX_BYTES);
  assertEquals([1e9, -1e9, 12, -4].map(arrivalSteps), [32767, -32768, 2, -0]);
  assertEquals([0, 63, 64, 2 ** 22 + 128, 1e15].map(clockSteps), [0, 0, 1, 2, 0x1a00]);
});

Deno.test("control: hints, ids, tickets, key parts and small frames come back as they were said", () => {
  const at = 2;
  const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const hint = gameHint();
  const into = new control.Hint();
  for (const client of [[0, 0, 0xffff, 0x0a420002], [0xfd660000, 0, 0, 2]]) {
    hint.client.set(client);
    if (client[0] !== 0) hint.remote.set([0x20010db8, 1, 2, 3]);
    const bytes = written((view, at) => hint.write(view, at));
    into.read(viewOf(bytes), at, bytes.length - 2);
    assertEquals(into, hint);
  }
  const ids = written((view, at) =>
    control.writeConnectionIds(view, at, 9, 4, 3, Uint32Array.of(5, 0xfffffffe, 7, 8), 4)
  );
  const view = viewOf(ids);
  assertEquals(control.connectionIdCount(ids.length - 2), 4);
  assertEquals([0, 1, 2, 3].map((i) => control.readNewConnectionId(view, at, i)), [5, 0xfffffffe, 7, 8]);
  assertEquals(
    [
      control.readSequence(view, at),
      control.readFirstIdNumber(view, at),
      control.readRetireBefore(view, at),
      control.controlKind(view, at),
    ],
    [9, 4, 3, control.CONTROL_CONNECTION_IDS],
  );
  const ticket = viewOf(EXAMPLES["ticket of 2 bytes, one day, secret 32 × 07"]());
  assertEquals(control.readTicketLifeS(ticket, at), 86400);
  assertEquals(ticket.getUint8(at + control.TICKET_SECRET_AT), 7);
  assertEquals(ticket.getUint8(at + control.TICKET_AT), 0xab);
  const pong = viewOf(written((view, at) => control.writePong(view, at, 0xfedcba98, 1e12)));
  assertEquals([control.readToken(pong, at), control.readHeldUs(pong, at)], [0xfedcba98, 0xffffffff]);
  const path = viewOf(EXAMPLES["path challenge"]());
  assertEquals([control.readPathLow(path, at), control.readPathHigh(path, at)], [0x04030201, 0x08070605]);
  assertEquals(control.readSize(viewOf(EXAMPLES["probe of 1400 bytes"]()), at), 1400);
  const close = viewOf(EXAMPLES["close, draining, retry in 5 s"]());
  assertEquals([control.readCloseReason(close, at), control.readRetryAfterS(close, at)], [2, 5]);
  for (const total of [32, control.KEY_REQUEST_HYBRID_BYTES]) {
    let covered = 0;
    for (let offset = 0; offset < total; offset += control.KEY_PART_BYTES) {
      const part = new Uint8Array(control.keyPartBytes(total, offset));
      const bytes = written(
        (view, at) => control.writeKeyExchange(view, at, control.KEY_REQUEST, 0xfffffff0, total, offset) - at,
        part,
      );
      const view = viewOf(bytes);
      assert(control.controlFits(view, at, bytes.length - 2));
      // Every part fits the smallest datagram beside its own overhead.
      assert(bytes.length + ox.SHORT_HEADER_MAX_BYTES + ox.OX_TAG_BYTES <= 1200);
      assertEquals(
        [
          control.readKeyRole(view, at),
          control.readKeyEpoch(view, at),
          control.readKeyTotalBytes(view, at),
          control.readKeyOffset(view, at),
        ],
        [control.KEY_REQUEST, 0xfffffff0, total, offset],
      );
      covered += part.length;
      view.setUint16(at + 8, offset + 1, true);
      assert(!control.controlFits(view, at, bytes.length - 2), "off the grid");
      view.setUint16(at + 8, offset, true);
      view.setUint16(at + 6, total + 1, true);
      assert(!control.controlFits(view, at, bytes.length - 2), "a total that no exchange has");
    }
    assertEquals(covered, total);
  }
});

const text = (maxBytes: number) =>
  fc.string({ unit: "grapheme", minLength: 1, maxLength: maxBytes, size: "max" }).filter((value) =>
    // deno-lint-ignore no-control-regex
    new TextEncoder().encode(value).length <= maxBytes && !/[\u0000-\u001f\u007f-\u009f]/.test(value) &&
    value.isWellFormed()
  );
const lease = (bytes: number) =>
  fc.record({
    address: fc.uint8Array({ minLength: bytes, maxLength: bytes }),
    prefixBits: fc.nat(8 * bytes),
  });
const anyParameters: fc.Arbitrary<parameters.Parameters> = fc.record({
  features: fc.integer({ min: 0, max: 0xffffffff }),
  aeads: fc.array(fc.nat(255), { minLength: 1, maxLength: 4 }),
  lease4: lease(4),
  lease6: lease(16),
  mtu: fc.integer({ min: 1280, max: 1900 }),
  dns: fc.array(
    fc.oneof(fc.uint8Array({ minLength: 4, maxLength: 4 }), fc.uint8Array({ minLength: 16, maxLength: 16 })),
    { minLength: 1, maxLength: 4 },
  ),
  name: text(63),
  region: text(15),
  limits: fc.record({
    datagramMaxBytes: fc.integer({ min: 1200, max: 1936 }),
    reportIntervalMs: fc.integer({ min: 1, max: 65535 }),
    rateKbitS: fc.integer({ min: 0, max: 0xffffffff }),
  }),
  connectionIds: fc.array(fc.integer({ min: 0, max: 0xffffffff }), { minLength: 1, maxLength: 4 }),
  ticket: fc.uint8Array({ minLength: 1, maxLength: 192, size: "max" }),
  relay4: fc.uint8Array({ minLength: 4, maxLength: 4 }),
  seen: fc.record({
    address: fc.uint8Array({ minLength: 16, maxLength: 16 }),
    port: fc.nat(65535),
  }),
  probe: fc.constant(true as const),
  refused: fc.record({ reason: fc.nat(255), retryAfterS: fc.nat(65535) }),
}, { requiredKeys: [] });

Deno.test("parameters: what was written comes back, padding or not", () => {
  fc.assert(
    fc.property(anyParameters, fc.nat(64), (said, padding) => {
      const bytes = new Uint8Array(1000).fill(CANARY);
      const end = parameters.writeParameters(bytes, AT, said);
      bytes.fill(0, end, end + padding);
      assertEquals(parameters.readParameters(bytes, AT, end + padding - AT), said);
    }),
    options,
  );
});

Deno.test("parameters: all that a relay says fits a response", () => {
  const bytes = new Uint8Array(ox.OX_RESPONSE_MAX_BYTES - ox.OX_RESPONSE_MIN_BYTES);
  const end = parameters.writeParameters(bytes, 0, {
    features: 0xffffffff,
    aeads: [1],
    lease4: { address: new Uint8Array(4), prefixBits: 16 },
    lease6: { address: new Uint8Array(16), prefixBits: 64 },
    mtu: 1900,
    dns: [new Uint8Array(16), new Uint8Array(16), new Uint8Array(16), new Uint8Array(16)],
    name: "n".repeat(63),
    region: "r".repeat(15),
    limits: { datagramMaxBytes: 1936, reportIntervalMs: 25, rateKbitS: 0 },
    connectionIds: [1, 2, 3, 4],
  });
  assert(end <= bytes.length);
});

Deno.test("parameters: cut, doubled and impossible ones make the list unreadable (PROTOCOL R33)", () => {
  const bad: Record<string, number[]> = {
    "type alone": [0x04],
    "value cut": [0x04, 2, 100],
    "MTU of three bytes": [0x04, 3, 0, 5, 0],
    "MTU of 1279": [0x04, 2, 0xff, 4],
    "MTU twice": [0x04, 2, 0, 5, 0x04, 2, 0, 5],
    "no AEAD": [0x81, 0],
    "five AEADs": [0x81, 5, 1, 2, 3, 4, 5],
    "prefix of 33": [0x02, 5, 10, 0, 0, 1, 33],
    "prefix of 129": [0x03, 17, ...new Array(16).fill(0), 129],
    "five resolvers": new Array(5).fill([0x05, 4, 1, 1, 1, 1]).flat(),
    "resolver of five bytes": [0x05, 5, 1, 1, 1, 1, 1],
    "name that is no UTF-8": [0x06, 2, 0xc3, 0x28],
    "name with an escape": [0x06, 3, 0x1b, 0x5b, 0x41],
    "empty name": [0x06, 0],
    "region of 16": [0x07, 16, ...new Array(16).fill(0x61)],
    "datagrams of 1199": [0x08, 8, 0xaf, 4, 25, 0, 0, 0, 0, 0],
    "reports every 0 ms": [0x08, 8, 0xb0, 4, 0, 0, 0, 0, 0, 0],
    "five ids": [0x0a, 20, ...new Array(20).fill(1)],
    "half an id": [0x0a, 6, 1, 2, 3, 4, 5, 6],
    "ticket of 193": [0x09, 193, ...new Array(193).fill(1)],
    "empty ticket": [0x09, 0],
    "refusal of two bytes": [0x83, 2, 1, 0],
    "relay4 of 5": [0x0b, 5, 10, 66, 0, 1, 0],
    "seen of 17": [0x0c, 17, ...new Array(17).fill(0)],
    "probe that is none": [0x84, 1, 0],
    "probe of two bytes": [0x84, 2, 1, 1],
  };
  for (const [name, bytes] of Object.entries(bad)) {
    assertEquals(parameters.readParameters(Uint8Array.from(bytes), 0, bytes.length), undefined, name);
  }
  assertEquals(parameters.readParameters(new Uint8Array(0), 0, 0), {});
  const bytes = new Uint8Array(8);
  assertThrows(() => parameters.writeParameters(bytes, 0, { mtu: 1 }), RangeError);
  assertThrows(() => parameters.writeParameters(bytes, 0, { name: "too long for 8" }), RangeError);
});

Deno.test("parameters: unknown ones are skipped, unknown critical ones named (PROTOCOL R34)", () => {
  const read = (...bytes: number[]) => parameters.readParameters(Uint8Array.from(bytes), 0, bytes.length);
  assertEquals(read(0x7f, 1, 9, 0x04, 2, 0, 5), { mtu: 1280 });
  assertEquals(read(0xff, 1, 9, 0x04, 2, 0, 5), { mtu: 1280, unknownCritical: 0xff });
});
