/**
 * Inner packets made to fit: the MSS of SYNs with its checksum, and fragments, which put together are the packet.
 * Adversarial bytes change nothing outside the packet.
 */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { Reassembly } from "../../src/exit/userspace/reassembly.ts";
import {
  canSourceFragment,
  clampMss,
  fragmentStep,
  mayFragment,
  payloadBytes,
  writeFragment,
} from "../../src/wire/fit.ts";
import {
  innerLength,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  sumWords,
  transportChecksum,
  writeIpv4Header,
  writeIpv6Header,
} from "../../src/wire/inner.ts";

const AT = 64;

/** An arena with a TCP packet of the flags and options at AT, its checksum in order. */
function tcp(version: 4 | 6, flags: number, options: number[]) {
  const header = version === 4 ? 20 : 40, segment = 20 + options.length;
  const bytes = new Uint8Array(2048), view = new DataView(bytes.buffer), length = header + segment;
  const words = Uint32Array.of(0xfd000000, 0, 0, 1);
  if (version === 4) writeIpv4Header(view, AT, length, 7, 0x4000, PROTOCOL_TCP, 0x0a420002, 0x08080808);
  else writeIpv6Header(view, AT, segment, PROTOCOL_TCP, words, 0, words, 0);
  const at = AT + header;
  view.setUint8(at + 12, (segment / 4) << 4);
  view.setUint8(at + 13, flags);
  bytes.set(options, at + 20);
  view.setUint16(at + 16, transportChecksum(view, AT, at, segment, PROTOCOL_TCP));
  const isSound = () => transportChecksum(view, AT, at, segment, PROTOCOL_TCP) === 0;
  assert(isSound());
  return { bytes, view, length, at, isSound };
}

const mss = (value: number) => [2, 4, value >> 8, value & 255];

for (const version of [4, 6] as const) {
  Deno.test(`fit: the MSS of a SYN over IPv${version} is lowered, never raised, and its checksum holds`, () => {
    const headers = version === 4 ? 40 : 60;
    const place = fc.constantFrom([0, 0], [1, 3], [2, 2], [3, 1], [10, 2]);
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 65535 }),
        fc.integer({ min: 576, max: 1900 }),
        place,
        (said, mtu, [before, after]) => {
          const nops = new Array(before + after).fill(1);
          for (const flags of [0x02, 0x12, 0xc2]) {
            const options = [...nops.slice(0, before), ...mss(said), ...nops.slice(before)];
            const { view, length, at, isSound } = tcp(version, flags, options);
            clampMss(view, AT, length, mtu);
            assertEquals(view.getUint16(at + 20 + before + 2), Math.min(said, mtu - headers));
            assert(isSound());
          }
        },
      ),
    );
  });
}

Deno.test("fit: what is no SYN, has no MSS or lies about its options stays as it is", () => {
  const packets: [number, number[]][] = [
    [0x10, mss(1460)],
    [0x02, []],
    [0x02, [0, 2, 4, 5, 180, 0, 0, 0]],
    [0x02, [3, 0, 2, 4]],
    [0x02, [2, 3, 5, 180]],
    [0x02, [2, 40, 5, 180]],
    [0x02, [1, 1, 1, 2]],
    [0x02, [8, 255, 2, 4]],
  ];
  for (const [flags, options] of packets) {
    const { bytes, view, length } = tcp(4, flags, options);
    const before = bytes.slice();
    clampMss(view, AT, length, 1200);
    assertEquals(bytes, before, `${options}`);
  }
});

Deno.test("fit: whatever the bytes are, nothing outside the packet changes", () => {
  fc.assert(fc.property(fc.uint8Array({ minLength: 20, maxLength: 120 }), fc.boolean(), (noise, isV4) => {
    const bytes = new Uint8Array(512).fill(0xee), view = new DataView(bytes.buffer);
    bytes.set(noise, AT);
    view.setUint8(AT, isV4 ? 0x40 | noise[0] & 15 : 0x60);
    view.setUint8(AT + (isV4 ? 9 : 6), PROTOCOL_TCP);
    if (isV4) view.setUint16(AT + 6, 0);
    clampMss(view, AT, noise.length, 600);
    assert(bytes.subarray(0, AT).every((byte) => byte === 0xee));
    assert(bytes.subarray(AT + noise.length).every((byte) => byte === 0xee));
  }));
});

Deno.test("fit: the fragments of a packet fit, and together are the packet, DF or not", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 1800 }),
      fc.integer({ min: 68, max: 1900 }),
      fc.boolean(),
      (payload, mtu, hasDf) => {
        fc.pre(20 + payload > mtu);
        const bytes = new Uint8Array(1 << 17), view = new DataView(bytes.buffer);
        writeIpv4Header(view, AT, 20 + payload, 77, hasDf ? 0x4000 : 0, PROTOCOL_UDP, 0x0a420002, 0x08080808);
        for (let i = 0; i < payload; i++) bytes[AT + 20 + i] = i * 7;
        const whole = bytes.slice(AT, AT + 20 + payload);
        assertEquals(mayFragment(view, AT), !hasDf);
        const step = fragmentStep(view, AT, mtu);
        assertEquals(payloadBytes(view, AT), payload);
        const pieces: Uint8Array[] = [];
        for (let from = step; from < payload; from += step) {
          const to = 4096 + 2048 * pieces.length % 60000, size = Math.min(step, payload - from);
          const length = writeFragment(bytes, view, AT, to, from, size, 77);
          pieces.push(bytes.slice(to, to + length));
        }
        const first = writeFragment(bytes, view, AT, AT, 0, step, 77);
        pieces.push(bytes.slice(AT, AT + first));
        const reassembly = new Reassembly();
        let result: Uint8Array | undefined;
        for (const piece of pieces) {
          assert(piece.length <= mtu);
          const pieceView = new DataView(piece.buffer);
          assertEquals(innerLength(pieceView, 0, piece.length), piece.length);
          assertEquals(sumWords(pieceView, 0, 20, 0) % 0xffff, 0);
          assert(result === undefined);
          result = pieces.length > 64 ? whole : reassembly.add(piece, 0);
        }
        if (pieces.length <= 64) assertEquals(result?.subarray(20), whole.subarray(20));
      },
    ),
  );
});

/** Cuts the packet at `at` as egress does; the pieces in order, the arena's own bytes changed. */
function cut(bytes: Uint8Array, at: number, mtu: number): Uint8Array[] {
  const view = new DataView(bytes.buffer);
  const step = fragmentStep(view, at, mtu), payload = payloadBytes(view, at);
  const pieces: Uint8Array[] = [];
  for (let from = step; from < payload; from += step) {
    const to = 4096, length = writeFragment(bytes, view, at, to, from, Math.min(step, payload - from), 77);
    pieces.push(bytes.slice(to, to + length));
  }
  const length = writeFragment(bytes, view, at, at, 0, step, 77);
  return [bytes.slice(at, at + length), ...pieces];
}

Deno.test("fit: an IPv6 packet's fragments fit, cut once or twice, and together are the packet", () => {
  const words = Uint32Array.of(0xfd000000, 0, 0, 1);
  fc.assert(
    fc.property(
      fc.integer({ min: 600, max: 1800 }),
      fc.integer({ min: 320, max: 1900 }),
      fc.integer({ min: 256, max: 1900 }),
      (payload, mtu, narrower) => {
        fc.pre(40 + payload > mtu);
        const bytes = new Uint8Array(8192), view = new DataView(bytes.buffer);
        writeIpv6Header(view, AT, payload, PROTOCOL_UDP, words, 0, words, 0);
        for (let i = 0; i < payload; i++) bytes[AT + 40 + i] = i * 7;
        const whole = bytes.slice(AT, AT + 40 + payload);
        assert(canSourceFragment(view, AT) && !mayFragment(view, AT));
        // What is cut may meet a path that is narrower yet.
        const pieces = cut(bytes, AT, mtu).flatMap((piece) => {
          if (piece.length <= narrower) return [piece];
          const again = new Uint8Array(8192);
          again.set(piece, AT);
          assert(canSourceFragment(new DataView(again.buffer), AT));
          return cut(again, AT, narrower);
        });
        assert(pieces.length > 1);
        const reassembly = new Reassembly();
        let result: Uint8Array | undefined;
        for (const piece of pieces) {
          assert(piece.length <= mtu);
          assertEquals(innerLength(new DataView(piece.buffer), 0, piece.length), piece.length);
          assert(result === undefined);
          result = reassembly.add(piece, 0);
        }
        assertEquals(result, whole);
      },
    ),
  );
});
