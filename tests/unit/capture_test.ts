/**
 * Captures as programs write them: pcap in both byte orders and both clocks, pcapng with its blocks, the links that the reader
 * knows, and files that lie about their lengths. The files are made here, byte by byte.
 */
import { assertEquals, assertThrows } from "@std/assert";
import { CaptureError, readCapture } from "../../src/cli/capture.ts";
import { Random } from "../kit/random.ts";
import { udpPacket } from "../kit/packets.ts";

const PACKET = udpPacket("198.18.0.1", "198.18.0.2", new Uint8Array(40));
const ETHERNET = new Uint8Array([...new Array(12).fill(1), 0x08, 0]);
const TAGGED = new Uint8Array([...new Array(12).fill(1), 0x81, 0, 0, 5, 0x08, 0]);
const COOKED = new Uint8Array([...new Array(14).fill(0), 0x08, 0]);
const COOKED_2 = new Uint8Array([0x08, 0, ...new Array(18).fill(0)]);

function join(...parts: Uint8Array[]): Uint8Array {
  return new Uint8Array(parts.flatMap((part) => [...part]));
}

function words(isLittle: boolean, ...values: number[]): Uint8Array {
  const view = new DataView(new ArrayBuffer(4 * values.length));
  values.forEach((value, i) => view.setUint32(4 * i, value, isLittle));
  return new Uint8Array(view.buffer);
}

/** A pcap of one frame a time, with the seconds and fractions given. */
function pcap(
  link: number,
  frames: Uint8Array[],
  { isLittle = true, magic = 0xa1b2c3d4, fraction = 1000 } = {},
) {
  return join(
    words(isLittle, magic, 2, 0, 0, 65_535, link),
    ...frames.map((frame, i) => join(words(isLittle, 7 + i, fraction, frame.length, 1500), frame)),
  );
}

function block(type: number, body: Uint8Array): Uint8Array {
  const padded = new Uint8Array(body.length + 3 & ~3);
  padded.set(body);
  const length = padded.length + 12;
  return join(words(true, type, length), padded, words(true, length));
}

Deno.test("capture: pcap in both byte orders and of both clocks", () => {
  for (const isLittle of [true, false]) {
    for (const magic of [0xa1b2c3d4, 0xa1b23c4d]) {
      const packets = [...readCapture(pcap(101, [PACKET, PACKET], { isLittle, magic }))];
      assertEquals(packets.map(({ timeUs }) => timeUs), [0, 1e6]);
      assertEquals(packets[1].bytes, PACKET);
      assertEquals(packets[1].length, PACKET.length);
    }
  }
});

Deno.test("capture: the packet is found behind every link's header, and what is none is passed over", () => {
  for (
    const [link, header] of [[1, ETHERNET], [1, TAGGED], [113, COOKED], [276, COOKED_2], [
      228,
      new Uint8Array(),
    ]] as const
  ) {
    const arp = new Uint8Array(60).fill(6);
    const packets = [...readCapture(pcap(link, [arp, join(header, PACKET, new Uint8Array(6))]))];
    assertEquals(
      packets.map(({ bytes }) => bytes),
      [PACKET],
      `link ${link}: padding behind it is not the packet`,
    );
  }
  assertEquals([...readCapture(pcap(105, [PACKET]))], [], "a link that nobody knows");
});

Deno.test("capture: a packet that was cut keeps the length that its header says", () => {
  const [packet] = readCapture(pcap(101, [PACKET.subarray(0, 36)]));
  assertEquals([packet.bytes.length, packet.length], [36, PACKET.length]);
});

Deno.test("capture: pcapng, with an interface's own clock and a second section", () => {
  const section = block(0x0a0d0d0a, words(true, 0x1a2b3c4d, 1, 0xffffffff, 0xffffffff));
  const nanoseconds = block(1, join(words(true, 1, 0), new Uint8Array([9, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0])));
  const raw = block(1, words(true, 101, 0));
  const enhanced = (time: number, face: number, frame: Uint8Array) =>
    block(6, join(words(true, face, 0, time, frame.length, frame.length), frame));
  const file = join(
    section,
    nanoseconds,
    enhanced(5000, 0, join(ETHERNET, PACKET)),
    block(0x0bad, words(true, 1)),
    section,
    raw,
    enhanced(1005, 0, PACKET),
  );
  const packets = [...readCapture(file)];
  assertEquals(packets.map(({ timeUs }) => timeUs), [0, 1000]);
  assertEquals(packets.map(({ bytes }) => bytes), [PACKET, PACKET]);
});

Deno.test("capture: files that are none are refused, and those that end early or lie are read as far as they go", () => {
  assertThrows(() => [...readCapture(new Uint8Array(10))], CaptureError);
  assertThrows(() => [...readCapture(new Uint8Array(100).fill(0x42))], CaptureError);
  const whole = pcap(101, [PACKET, PACKET]);
  for (let bytes = 24; bytes < whole.length; bytes++) {
    assertEquals([...readCapture(whole.subarray(0, bytes))].length, bytes < 24 + 16 + PACKET.length ? 0 : 1);
  }
  const random = new Random(5);
  for (let round = 0; round < 2000; round++) {
    const file = (round & 1) === 0
      ? whole.slice()
      : join(block(0x0a0d0d0a, words(true, 0x1a2b3c4d, 1)), whole);
    for (let i = 0; i < 8; i++) file[4 + random.u32() % (file.length - 4)] = random.u32();
    for (const { bytes, length } of readCapture(file)) {
      assertEquals(bytes.length <= length && length <= 65_575, true);
    }
  }
});
