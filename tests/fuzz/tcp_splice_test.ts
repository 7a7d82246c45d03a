/**
 * Hostile TCP into the userspace exit's splice: random flags, numbers, options and lengths, with checksums in order so
 * that they get far. Invariant under test: no crash, no more flows than allowed, and a genuine connection is still
 * answered afterwards.
 */
import { assert, assertEquals, assertLessOrEqual } from "@std/assert";
import fc from "fast-check";
import { loadNative } from "../../ffi/native.ts";
import { TcpSplice } from "../../src/exit/userspace/tcp_splice.ts";
import { Arena } from "../../src/vector/arena.ts";
import { Burst, TO_EXIT, TO_TUNNEL } from "../../src/vector/burst.ts";
import { PROTOCOL_TCP, transportChecksum, writeIpv4Header } from "../../src/wire/inner.ts";

const options = {
  numRuns: Number(Deno.env.get("FUZZ_RUNS") ?? 500),
  seed: Number(Deno.env.get("FUZZ_SEED") ?? 20260101),
};
const MAX_FLOWS = 40;
const SYN = 2, ACK = 16, SYN_ACK = SYN | ACK;
const LOOPBACK = 0x7f000001;

interface Segment {
  source: number;
  port: number;
  sequence: number;
  acknowledged: number;
  flags: number;
  /** Data offset in words, as the header claims. */
  words: number;
  body: Uint8Array;
}

function packet(segment: Segment, destinationPort: number): Uint8Array {
  const bytes = new Uint8Array(40 + segment.body.length);
  const view = new DataView(bytes.buffer);
  writeIpv4Header(view, 0, bytes.length, 0, 0, PROTOCOL_TCP, segment.source, LOOPBACK);
  view.setUint16(20, segment.port);
  view.setUint16(22, destinationPort);
  view.setUint32(24, segment.sequence);
  view.setUint32(28, segment.acknowledged);
  view.setUint8(32, segment.words << 4);
  view.setUint8(33, segment.flags);
  view.setUint16(34, 65535);
  bytes.set(segment.body, 40);
  view.setUint16(36, transportChecksum(view, 0, 20, bytes.length - 20, PROTOCOL_TCP));
  return bytes;
}

const GENUINE = {
  source: 0x0a420099,
  port: 50_000,
  sequence: 1000,
  acknowledged: 0,
  flags: SYN,
  words: 5,
  body: new Uint8Array(0),
};
const SEGMENT = fc.record({
  // Three sources hold three quarters of the flows at most, which leaves room for a fourth.
  source: fc.constantFrom(0x0a420002, 0x0a420003, 0x0a420004),
  port: fc.integer({ min: 0, max: 30 }),
  sequence: fc.oneof(fc.integer({ min: 995, max: 1010 }), fc.nat(0xffffffff)),
  acknowledged: fc.oneof(fc.nat(0xffffffff), fc.constant(0)),
  flags: fc.oneof(fc.constantFrom(SYN, ACK, 1 | ACK, 4, 8 | ACK), fc.nat(255)),
  words: fc.integer({ min: 0, max: 15 }),
  body: fc.uint8Array({ maxLength: 300, size: "max" }),
});

/** Sends everything back, until the listener is closed. */
async function echo(listener: Deno.Listener): Promise<void> {
  for (;;) {
    try {
      const connection = await listener.accept();
      connection.readable.pipeTo(connection.writable).catch(() => {});
    } catch (error) {
      if (error instanceof Deno.errors.BadResource) return;
      // The other end may have reset the connection before it could be accepted.
    }
  }
}

Deno.test("fuzz: hostile TCP segments crash nothing and take no more than their share", async () => {
  const native = loadNative();
  assert(typeof native !== "string", String(native));
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr as Deno.NetAddr;
  const accepting = echo(listener);
  const splice = new TcpSplice({ native, mtu: 1420, maxFlows: MAX_FLOWS, onCrowded: () => {} });
  const burst = new Burst(new Arena(1024));
  const send = (bytes: Uint8Array) => {
    const row = burst.grow(bytes.length, TO_EXIT);
    burst.bytes.set(bytes, burst.offset[row]);
    splice.send(burst);
    burst.release();
  };
  const answers: [port: number, flags: number, sequence: number][] = [];
  const drain = () => {
    while (splice.receive(burst) > 0) {
      for (let row = 0; row < burst.count; row++) {
        assertEquals(burst.next[row], TO_TUNNEL);
        const at = burst.offset[row];
        answers.push([
          burst.view.getUint16(at + 22),
          burst.view.getUint8(at + 33),
          burst.view.getUint32(at + 24),
        ]);
      }
      burst.release();
    }
  };
  try {
    let turns = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(SEGMENT, { minLength: 1, maxLength: 20 }), async (segments) => {
        for (const one of segments) {
          // The numbers that the far end is at, half of the time, so that some segments are within the window.
          const last = answers.findLast(([inner]) => inner === one.port);
          const acknowledged = last && (turns & 1) === 0 ? last[2] + 1 : one.acknowledged;
          send(packet({ ...one, acknowledged }, port));
        }
        drain();
        if (++turns % 20 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
        assertLessOrEqual(splice.size, MAX_FLOWS);
        if (answers.length > 10_000) answers.splice(0, 9_000);
      }),
      options,
    );
    assertEquals(burst.arena.free, 1024);
    answers.length = 0;
    const answered = () => answers.some(([inner, flags]) => inner === 50_000 && flags === SYN_ACK);
    for (let i = 0; i < 100 && !answered(); i++) {
      if (i % 20 === 0) send(packet(GENUINE, port));
      await new Promise((resolve) => setTimeout(resolve, 10));
      drain();
    }
    assert(answered());
  } finally {
    splice.close();
    listener.close();
    await accepting;
  }
});
