/**
 * Hostile bytes into OxTunnel's parsers: random, truncated, oversized and bit-flipped. Invariant under test: no
 * exception, no byte read outside [offset, offset + length), nothing handed out beyond it, and no more than a
 * bounded number of frames. FUZZ_SEED and FUZZ_RUNS choose the run; a failure prints its seed.
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import * as control from "../../src/wire/control.ts";
import * as frame from "../../src/wire/frame.ts";
import * as ox from "../../src/wire/oxtunnel.ts";
import { protectHeader } from "../kit/header_protection.ts";
import { Report } from "../../src/wire/report.ts";
import { readParameters, writeParameters } from "../../src/wire/parameters.ts";

const options = {
  numRuns: Number(Deno.env.get("FUZZ_RUNS") ?? 500),
  seed: Number(Deno.env.get("FUZZ_SEED") ?? 20260201),
};
/** Not aligned, as an offset into an arena may be. */
const AT = 83;

/** A view that knows where its reader may look. */
class GuardedView extends DataView<ArrayBuffer> {
  #at: number;
  #end: number;
  constructor(bytes: Uint8Array, at: number, length: number) {
    super(bytes.buffer as ArrayBuffer, bytes.byteOffset, bytes.length);
    this.#at = at;
    this.#end = at + length;
  }
  #guard(at: number, bytes: number): void {
    if (at < this.#at || at + bytes > this.#end) throw new Error(`${bytes} bytes read at ${at - this.#at}`);
  }
  override getUint8(at: number): number {
    this.#guard(at, 1);
    return super.getUint8(at);
  }
  override getUint16(at: number, little?: boolean): number {
    this.#guard(at, 2);
    return super.getUint16(at, little);
  }
  override getInt16(at: number, little?: boolean): number {
    this.#guard(at, 2);
    return super.getInt16(at, little);
  }
  override getUint32(at: number, little?: boolean): number {
    this.#guard(at, 4);
    return super.getUint32(at, little);
  }
  override setUint8(at: number, value: number): void {
    this.#guard(at, 1);
    super.setUint8(at, value);
  }
}

/** The bytes at AT of a larger field that is full of plausible values, and a view that guards them. */
function place(hostile: Uint8Array) {
  const bytes = new Uint8Array(AT + hostile.length + 2048).fill(0x90);
  bytes.set(hostile, AT);
  return { bytes, view: new GuardedView(bytes, AT, hostile.length), length: hostile.length };
}

/** One of `genuine`, cut, extended or with bits flipped, or noise. */
function hostile(genuine: Uint8Array[], firstBytes: number[]): fc.Arbitrary<Uint8Array> {
  const mutated = fc.tuple(
    fc.constantFrom(...genuine),
    fc.array(fc.nat(8 * 600), { maxLength: 8, size: "max" }),
    fc.oneof(fc.constant(0), fc.integer({ min: -300, max: 900 })),
  ).map(([bytes, flips, resize]) => {
    const copy = new Uint8Array(Math.max(0, bytes.length + resize));
    copy.set(bytes.subarray(0, copy.length));
    for (const flip of flips) if (flip >> 3 < copy.length) copy[flip >> 3] ^= 1 << (flip & 7);
    return copy;
  });
  const noise = fc.tuple(fc.uint8Array({ maxLength: 2000, size: "max" }), fc.constantFrom(...firstBytes)).map(
    ([bytes, first]) => {
      if (bytes.length > 0) bytes[0] = first;
      return bytes;
    },
  );
  return fc.oneof(mutated, noise);
}

function emitted(write: (view: DataView, bytes: Uint8Array) => number): Uint8Array {
  const bytes = new Uint8Array(2048);
  return bytes.slice(0, write(new DataView(bytes.buffer), bytes));
}

Deno.test("fuzz: hostile datagrams have the fields that their length allows (PROTOCOL R23, R38)", () => {
  const genuine = [
    emitted((view) => ox.writeShortHeader(view, 0, 1, 7, 300, 2) + 60 + ox.OX_TAG_BYTES),
    emitted((view) => ox.writeShortHeader(view, 0, 0, 7, 300, 4) + ox.OX_TAG_BYTES),
    emitted((view) => (ox.writeLongHeader(view, 0, ox.KIND_INITIATION, 100), 1200)),
    emitted((view) => (ox.writeLongHeader(view, 0, ox.KIND_RESPONSE, 0), 300)),
    emitted((view) => (ox.writeLongHeader(view, 0, ox.KIND_COOKIE_REPLY, 0), 64)),
  ];
  let opened = 0;
  let handshakes = 0;
  fc.assert(
    fc.property(
      hostile(genuine, [0x40, 0x7f, 0xc1, 0xc2, 0xc3, 0x01]),
      fc.uint8Array({ minLength: 5, maxLength: 5, size: "max" }),
      (datagram, mask) => {
        const { bytes, view, length } = place(datagram);
        const before = bytes.slice();
        if (!ox.oxtunnelLengthFits(view, AT, length)) return;
        assert(length <= ox.OX_DATAGRAM_MAX_BYTES);
        if (ox.isLongForm(datagram[0])) {
          handshakes++;
          const mac1 = ox.oxMac1At(length);
          if (datagram[0] !== ox.KIND_INITIATION) return;
          const sealed = ox.initiationPayloadBytes(view, AT, length) + ox.OX_TIMESTAMP_BYTES +
            ox.OX_TAG_BYTES;
          assert(sealed >= ox.OX_TIMESTAMP_BYTES + ox.OX_TAG_BYTES);
          assertEquals(ox.OX_INITIATION_PAYLOAD_AT + sealed + ox.readEarlyBytes(view, AT), mac1);
          return;
        }
        opened++;
        ox.readConnectionId(view, AT);
        assertEquals(ox.sampleAt(AT, length) + 16, AT + length);
        const flags = ox.unprotectHeader(view, AT, mask, 0);
        const plaintext = ox.plaintextBytes(flags, length);
        assertEquals(ox.shortHeaderBytes(flags) + plaintext + ox.OX_TAG_BYTES, length);
        const counter = ox.recoverCounter(ox.readTruncatedCounter(view, AT), 1 + (flags & 3), 1e9);
        assert(Number.isInteger(counter) && counter >= -1 && counter < ox.COUNTER_LIMIT);
        protectHeader(view, AT, mask, 0);
        assertEquals(bytes, before, "protection is its own inverse");
      },
    ),
    options,
  );
  assert(opened > options.numRuns / 20 && handshakes > 0, "the fuzz reaches what it is for");
});

/** One well-formed frame of every control kind, and some that are no control frames. */
function genuineFrames(): Uint8Array[] {
  const report = new Report();
  report.bitmap.fill(0xff);
  report.bitmapBytes = 32;
  report.hasEcn = report.hasQuality = true;
  report.arrivalCount = 64;
  const hint = new control.Hint();
  const ids = Uint32Array.of(1, 2, 3, 4);
  return [
    emitted((view) => control.writePing(view, 0, 1)),
    emitted((view) => control.writePong(view, 0, 1, 2)),
    emitted((view) => report.write(view, 0)),
    emitted((view) => control.writePath(view, 0, control.CONTROL_PATH_RESPONSE, 1, 2)),
    emitted((view) => control.writeShort(view, 0, control.CONTROL_PROBE_REPLY, 1400)),
    emitted((view) => control.writeShort(view, 0, control.CONTROL_DEADLINE, 60)),
    emitted((view) =>
      control.writeRequestEntry(
        view,
        control.writeRequestEntry(view, control.writeRequest(view, 0, 0, 2), 9, 1, 2),
        7,
        3,
        32,
      )
    ),
    emitted((view) => control.writeKeyExchange(view, 0, control.KEY_ANSWER, 1, 1120, 512) + 512),
    emitted((view) => control.writeClose(view, 0, 1, 2)),
    emitted((view) => hint.write(view, 0)),
    emitted((view) => control.writeConnectionIds(view, 0, 1, 2, 3, ids, 4)),
    emitted((view) => control.writeReliable(view, 0, control.CONTROL_CONFIG, 1, 20) + 20),
    emitted((view) => control.writeTicket(view, 0, 1, 2, new Uint8Array(32), 100) + 100),
    emitted((view) => frame.writeLz4Head(view, 0, 100, 1400) + 100),
    emitted((view, bytes) => (bytes[frame.writeFrameHead(view, 0, frame.FRAME_PACKET, 60)] = 0x45, 62)),
  ];
}

/** Reads everything that a control frame says. */
function readAll(view: DataView, at: number, length: number, report: Report, hint: control.Hint) {
  switch (control.controlKind(view, at)) {
    case control.CONTROL_PING:
      return control.readToken(view, at);
    case control.CONTROL_PONG:
      return control.readToken(view, at) + control.readHeldUs(view, at);
    case control.CONTROL_REPORT:
      report.read(view, at);
      assert(report.bitmapBytes <= control.REPORT_BITMAP_MAX_BYTES);
      assert(report.arrivalCount <= control.REPORT_ARRIVALS_MAX);
      assert(report.highest < ox.COUNTER_LIMIT);
      return;
    case control.CONTROL_PATH_CHALLENGE:
    case control.CONTROL_PATH_RESPONSE:
      return control.readPathLow(view, at) + control.readPathHigh(view, at);
    case control.CONTROL_PROBE:
    case control.CONTROL_PROBE_REPLY:
      return control.readSize(view, at);
    case control.CONTROL_DEADLINE:
      assert(control.readDeadlineMs(view, at) > 0);
      return;
    case control.CONTROL_REQUEST: {
      const entries = control.requestEntries(length);
      assert(
        entries >= 1 && entries <= control.REQUEST_ENTRIES_MAX && control.readRequestPath(view, at) <= 255,
      );
      for (let i = 0; i < entries; i++) {
        assert(
          control.readRequestCounter(view, at, i) <= 0xffff && control.readRequestFirst(view, at, i) > 0,
        );
        const count = control.readRequestCount(view, at, i);
        assert(count > 0 && count <= control.REQUEST_RUN_MAX);
      }
      return;
    }
    case control.CONTROL_ACK:
      return control.readSequence(view, at);
    case control.CONTROL_CLOSE:
      return control.readCloseReason(view, at) + control.readRetryAfterS(view, at);
    case control.CONTROL_KEY_EXCHANGE: {
      const total = control.readKeyTotalBytes(view, at);
      const part = control.keyPartBytes(total, control.readKeyOffset(view, at));
      assert(total <= control.KEY_REQUEST_HYBRID_BYTES && part > 0);
      assertEquals(control.KEY_PART_AT + part, length);
      return;
    }
    case control.CONTROL_HINT:
      return hint.read(view, at, length);
    case control.CONTROL_CONNECTION_IDS: {
      const count = control.connectionIdCount(length);
      assert(Number.isInteger(count) && count >= 1 && count <= control.CONNECTION_IDS_MAX);
      for (let i = 0; i < count; i++) control.readNewConnectionId(view, at, i);
      return control.readFirstIdNumber(view, at) + control.readRetireBefore(view, at);
    }
    case control.CONTROL_TICKET:
      assert(length - control.TICKET_AT <= control.TICKET_MAX_BYTES);
      return control.readTicketLifeS(view, at) + view.getUint8(at + control.TICKET_AT);
  }
  if (control.isReliable(control.controlKind(view, at))) control.readSequence(view, at);
}

Deno.test("fuzz: hostile plaintexts yield bounded frames within them (PROTOCOL R47, R49, R52)", () => {
  const frames = genuineFrames();
  const all = emitted((_view, bytes) => {
    let at = 0;
    for (const one of frames) {
      bytes.set(one.subarray(0, 200), at);
      at += one.length;
    }
    return at;
  });
  const reader = new frame.FrameReader();
  const report = new Report();
  const hint = new control.Hint();
  const seen = new Set<number>();
  fc.assert(
    fc.property(hostile([...frames, all], [0x00, 0x45, 0x60, 0x80, 0x88, 0x90, 0x50, 0xff]), (plaintext) => {
      const { view, length } = place(plaintext);
      reader.start(AT, length);
      let from = AT;
      for (let count = 0;; count++) {
        const kind = reader.next(view);
        if (kind < 0) break;
        assert(count < frame.FRAMES_MAX);
        assert(reader.length > 0 && reader.at >= from && reader.at + reader.length <= AT + length);
        from = reader.at + reader.length;
        if (kind === frame.FRAME_LZ4) {
          const original = frame.lz4OriginalBytes(view, reader.at, reader.length, 1400);
          assert(original === 0 || original > reader.length && original <= 1400);
        }
        if (kind !== frame.FRAME_CONTROL || !control.controlFits(view, reader.at, reader.length)) continue;
        // A reader of this frame may look at this frame alone.
        const own = new GuardedView(new Uint8Array(view.buffer), reader.at, reader.length);
        readAll(own, reader.at, reader.length, report, hint);
        seen.add(control.controlKind(own, reader.at));
      }
    }),
    options,
  );
  for (const one of frames) if (one[0] >> 3 === 0x12) assert(seen.has(one[2]), `kind ${one[2]} was reached`);
});

Deno.test("fuzz: hostile parameters are read within bounds or not at all (PROTOCOL R33)", () => {
  const genuine = emitted((_view, bytes) =>
    writeParameters(bytes, 0, {
      features: 7,
      aeads: [1, 2],
      lease4: { address: new Uint8Array(4), prefixBits: 16 },
      lease6: { address: new Uint8Array(16), prefixBits: 64 },
      mtu: 1400,
      dns: [new Uint8Array(4), new Uint8Array(16)],
      name: "relay",
      region: "fra",
      limits: { datagramMaxBytes: 1400, reportIntervalMs: 25, rateKbitS: 0 },
      connectionIds: [1, 2],
      ticket: new Uint8Array(100),
      refused: { reason: 1, retryAfterS: 2 },
    })
  );
  let sound = 0;
  fc.assert(
    fc.property(hostile([genuine], [0x00, 0x01, 0x05, 0x81, 0xff]), (list) => {
      const { bytes, length } = place(list);
      const read = readParameters(bytes, AT, length);
      // What stands behind the list does not matter.
      bytes.fill(0x0a, AT + length);
      assertEquals(readParameters(bytes, AT, length), read);
      if (!read) return;
      sound++;
      assert((read.aeads?.length ?? 0) <= 4 && (read.dns?.length ?? 0) <= 4);
      assert((read.connectionIds?.length ?? 0) <= 4 && (read.ticket?.length ?? 0) <= 192);
      // What was read can be said again: the reader accepts nothing that the writer would not.
      const { unknownCritical: _, ...said } = read;
      const again = new Uint8Array(2048);
      assertEquals(readParameters(again, 0, writeParameters(again, 0, said)), said);
    }),
    options,
  );
  assert(sound > 0);
});

Deno.test("fuzz: the guard sees a read outside", () => {
  const { view } = place(new Uint8Array(4));
  assertThrows(() => view.getUint32(AT + 1, true));
  assertThrows(() => view.getUint8(AT - 1));
});
