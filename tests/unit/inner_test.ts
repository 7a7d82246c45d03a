/**
 * Inner packets: readers against packets written out byte by byte, checksums against RFC 1071's own example and a
 * naive twin, and each answer (echo reply, reset, ICMP error) with what must never be answered. Every packet stands
 * between canary bytes, so that a write beyond its bounds shows.
 */
import { assertEquals } from "@std/assert";
import { formatAddress, parseAddress } from "../../src/wire/address.ts";
import {
  emitEchoReply,
  emitIcmpError,
  ICMP_ADMIN_PROHIBITED,
  ICMP_PACKET_TOO_BIG,
} from "../../src/wire/icmp.ts";
import {
  emitTcpReset,
  foldSum,
  innerLength,
  ipVersion,
  isFragment,
  isLaterFragment,
  protocolOf,
  readDestination,
  readSource,
  sumWords,
  transportAt,
  transportChecksum,
} from "../../src/wire/inner.ts";

const CANARY = 0xa5;
/** Not aligned and not zero, as an offset into an arena may be. */
const AT = 83;
/** Headroom, the longest packet, tailroom: what a slot has (vector/arena.ts). */
const ROOM = 2048;

function hex(text: string): Uint8Array {
  return Uint8Array.from(text.replace(/\s/g, "").match(/../g) ?? [], (byte) => parseInt(byte, 16));
}

/** A packet at AT in a field of canaries. */
function place(packet: Uint8Array) {
  const bytes = new Uint8Array(AT + ROOM).fill(CANARY);
  bytes.set(packet, AT);
  return { bytes, view: new DataView(bytes.buffer), length: packet.length };
}

/** The packet of `length` bytes at AT; all else must still be canaries, up to `reach` bytes that were the old packet. */
function lift(bytes: Uint8Array, length: number, reach: number): Uint8Array {
  assertEquals(bytes.slice(0, AT).every((byte) => byte === CANARY), true, "bytes in front were written");
  const behind = AT + Math.max(length, reach);
  assertEquals(bytes.slice(behind).every((byte) => byte === CANARY), true, "bytes behind were written");
  return bytes.slice(AT, AT + length);
}

/** 10.66.0.2 to 192.0.2.1. */
function v4(protocol: number, payload: string, flags = "0000", addresses = "0a420002 c0000201"): Uint8Array {
  const body = hex(payload);
  const total = (20 + body.length).toString(16).padStart(4, "0");
  const packet = new Uint8Array(20 + body.length);
  packet.set(
    hex(`4500 ${total} 0001 ${flags} 40 ${protocol.toString(16).padStart(2, "0")} 0000 ${addresses}`),
  );
  packet.set(body, 20);
  const view = new DataView(packet.buffer);
  view.setUint16(10, naiveChecksum(packet.slice(0, 20)));
  return packet;
}

const V6_SOURCE = "fd66000000000000 0000000000000002", V6_DESTINATION = "20010db800000000 0000000000000001";

/** fd66::2 to 2001:db8::1. */
function v6(next: number, payload: string, addresses = V6_SOURCE + V6_DESTINATION): Uint8Array {
  const body = hex(payload);
  const size = body.length.toString(16).padStart(4, "0");
  const packet = new Uint8Array(40 + body.length);
  packet.set(hex(`60000000 ${size} ${next.toString(16).padStart(2, "0")} 40 ${addresses}`));
  packet.set(body, 40);
  return packet;
}

/** RFC 1071 §1 word for word: one's complement addition with the carry brought around at each step. */
function naiveChecksum(bytes: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) {
    sum += bytes[i] * 256 + (bytes[i + 1] ?? 0);
    if (sum > 0xffff) sum -= 0xffff;
  }
  return 0xffff - sum;
}

/** Checksum over the pseudo-header (RFC 9293 §3.1, RFC 8200 §8.1) and the segment; zero for a sound packet. */
function naiveTransportChecksum(packet: Uint8Array, protocol: number): number {
  const old = packet[0] >> 4 === 4;
  const segment = packet.slice(old ? 20 : 40);
  const addresses = old ? packet.slice(12, 20) : packet.slice(8, 40);
  const size = segment.length;
  return naiveChecksum(
    Uint8Array.of(...addresses, 0, 0, size >> 8, size & 255, 0, 0, 0, protocol, ...segment),
  );
}

Deno.test("inner: the length is the header's own, and nothing else passes", () => {
  const cases: [name: string, packet: Uint8Array, given: number, expected: number][] = [
    ["IPv4 whole", v4(17, "0001000200080000"), 28, 28],
    ["IPv4 padded by the tunnel", v4(17, "0001000200080000"), 32, 28],
    ["IPv4 cut", v4(17, "0001000200080000"), 27, 0],
    ["IPv4 header only", v4(17, ""), 20, 20],
    ["shorter than any header", v4(17, ""), 19, 0],
    ["IPv4 header length below 5", Uint8Array.of(0x44, ...v4(17, "").slice(1)), 20, 0],
    ["IPv4 options beyond the total", Uint8Array.of(0x46, ...v4(17, "").slice(1)), 24, 0],
    ["IPv6 whole", v6(17, "0001000200080000"), 48, 48],
    ["IPv6 padded by the tunnel", v6(17, "0001000200080000"), 64, 48],
    ["IPv6 cut", v6(17, "0001000200080000"), 47, 0],
    ["IPv6 header cut", v6(17, ""), 39, 0],
    ["version 5", Uint8Array.of(0x55, ...v4(17, "").slice(1)), 40, 0],
    ["zeros, as a keepalive decrypts to", new Uint8Array(64), 64, 0],
    ["nothing", new Uint8Array(0), 0, 0],
  ];
  for (const [name, packet, given, expected] of cases) {
    const { view } = place(packet);
    assertEquals(innerLength(view, AT, given), expected, name);
  }
});

Deno.test("inner: addresses and version", () => {
  const words = new Uint32Array(10);
  for (
    const [packet, version, source, destination] of [
      [v4(17, ""), 4, "10.66.0.2", "192.0.2.1"],
      [v6(17, ""), 6, "fd66::2", "2001:db8::1"],
    ] as const
  ) {
    const { view } = place(packet);
    readSource(view, AT, words, 1);
    readDestination(view, AT, words, 5);
    assertEquals(ipVersion(view, AT), version);
    assertEquals([formatAddress(words, 1), formatAddress(words, 5)], [source, destination]);
    assertEquals([words[0], words[9]], [0, 0]);
  }
});

Deno.test("inner: the transport is found behind IPv4 options and IPv6 extension headers", () => {
  const options = v4(17, "01010101 0001000200080000");
  options[0] = 0x46;
  const hop = (next: string) => `${next}00 000000000000`;
  const cases: [name: string, packet: Uint8Array, transport: number, protocol: number][] = [
    ["IPv4", v4(6, "00"), 20, 6],
    ["IPv4 with options", options, 24, 17],
    ["IPv6", v6(58, "80000000"), 40, 58],
    ["hop-by-hop, then UDP", v6(0, hop("11") + "0001000200080000"), 48, 17],
    ["hop-by-hop, routing, destination options, TCP", v6(0, hop("2b") + hop("3c") + hop("06") + "00"), 64, 6],
    ["a long extension", v6(60, "1101" + "00".repeat(14) + "0001000200080000"), 56, 17],
    ["a fragment header, whose second byte is no length", v6(44, "11ff000000000001" + "0001"), 48, 17],
    ["no next header", v6(59, ""), 40, 59],
    ["an extension that is cut", v6(0, "1100000000"), 0, 255],
    ["an extension that claims more than there is", v6(0, "11ff000000000000"), 0, 17],
    ["more extensions than anyone needs", v6(0, hop("00").repeat(12) + hop("11") + "00"), 0, 255],
  ];
  for (const [name, packet, transport, protocol] of cases) {
    const { view, length } = place(packet);
    assertEquals(transportAt(view, AT, length), transport === 0 ? 0 : AT + transport, name);
    assertEquals(protocolOf(view, AT, length), protocol, name);
  }
});

Deno.test("inner: fragments, the first and the later ones", () => {
  const cases: [name: string, packet: Uint8Array, any: boolean, later: boolean][] = [
    ["IPv4 whole", v4(17, "00"), false, false],
    ["IPv4 whole, not to be fragmented", v4(17, "00", "4000"), false, false],
    ["IPv4 first", v4(17, "00", "2000"), true, false],
    ["IPv4 later", v4(17, "00", "2001"), true, true],
    ["IPv4 last", v4(17, "00", "1fff"), true, true],
    ["IPv6 whole", v6(17, "00"), false, false],
    ["IPv6 atomic (RFC 6946)", v6(44, "1100 0000 00000001 00"), false, false],
    ["IPv6 first", v6(44, "1100 0001 00000001 00"), true, false],
    ["IPv6 later", v6(44, "1100 0009 00000001 00"), true, true],
    ["IPv6 last, behind destination options", v6(60, "2c00000000000000 1100 0008 00000001 00"), true, true],
  ];
  for (const [name, packet, any, later] of cases) {
    const { view, length } = place(packet);
    assertEquals([isFragment(view, AT, length), isLaterFragment(view, AT, length)], [any, later], name);
  }
});

Deno.test("inner: checksums are RFC 1071's", () => {
  // RFC 1071 §3: the sum of these words is ddf2, so the checksum is its complement.
  const example = place(hex("0001 f203 f4f5 f6f7"));
  assertEquals(foldSum(sumWords(example.view, AT, 8, 0)), 0xffff - 0xddf2);
  let state = 1;
  const random = () => (state = Math.imul(state, 1664525) + 1013904223 >>> 0) >>> 24;
  for (let length = 0; length < 300; length++) {
    const body = Uint8Array.from({ length }, length % 7 === 0 ? () => 0xff : random);
    const { view } = place(body);
    assertEquals(foldSum(sumWords(view, AT, length, 0)), naiveChecksum(body), `${length} bytes`);
    const text = [...body].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    for (const packet of [v4(17, text), v6(17, text)]) {
      const placed = place(packet);
      const segment = packet.length - length;
      assertEquals(
        transportChecksum(placed.view, AT, AT + segment, length, 17),
        naiveTransportChecksum(packet, 17),
        `${length} bytes in IPv${packet[0] >> 4}`,
      );
    }
  }
});

Deno.test("inner: an echo request becomes its reply", () => {
  const request = v4(1, "0800 0000 1234 0007 68656c6c6f");
  const old = place(request);
  assertEquals(emitEchoReply(old.view, AT, old.length), old.length);
  const reply = lift(old.bytes, old.length, 0);
  assertEquals(reply.slice(12, 20), hex("c0000201 0a420002"));
  assertEquals(reply.slice(20, 22), hex("0000"));
  assertEquals(reply.slice(24), request.slice(24));
  assertEquals([naiveChecksum(reply.slice(0, 20)), naiveChecksum(reply.slice(20))], [0, 0]);

  const asked = v6(58, "8000 0000 1234 0007 68656c6c6f");
  const next = place(asked);
  assertEquals(emitEchoReply(next.view, AT, next.length), next.length);
  const answer = lift(next.bytes, next.length, 0);
  assertEquals(answer.slice(8, 40), hex(V6_DESTINATION + V6_SOURCE));
  assertEquals(answer.slice(40, 42), hex("8100"));
  assertEquals(answer.slice(44), asked.slice(44));
  assertEquals(naiveTransportChecksum(answer, 58), 0);
});

Deno.test("inner: what is no whole echo request gets no reply and stays as it was", () => {
  for (
    const packet of [
      v4(1, "0000 0000 1234 0007"), // a reply
      v4(1, "0800 0000 1234"), // cut
      v4(17, "0800 0000 1234 0007"),
      v4(1, "0800 0000 1234 0007", "2000"),
      v6(58, "8100 0000 1234 0007"),
      v6(58, "8000 0000 1234"),
      v6(17, "8000 0000 1234 0007"),
    ]
  ) {
    const { bytes, view, length } = place(packet);
    assertEquals(emitEchoReply(view, AT, length), 0);
    assertEquals(lift(bytes, length, 0), packet);
  }
});

const TCP = (flags: string, data = "") => `c350 01bb fffffff0 01020304 50${flags} ffff 0000 0000${data}`;

Deno.test("inner: a reset has the numbers of RFC 9293 §3.10.7.1", () => {
  const cases: [name: string, flags: string, data: string, sequence: string, ack: string, reset: string][] = [
    ["SYN", "02", "", "00000000", "fffffff1", "5014"],
    ["SYN with data, beyond the wrap", "02", "00".repeat(20), "00000000", "00000005", "5014"],
    ["FIN", "01", "", "00000000", "fffffff1", "5014"],
    ["ACK", "10", "", "01020304", "00000000", "5004"],
    ["SYN and ACK", "12", "", "01020304", "00000000", "5004"],
    ["data with ACK", "18", "aabbcc", "01020304", "00000000", "5004"],
  ];
  for (const [name, flags, data, sequence, ack, reset] of cases) {
    for (const packet of [v4(6, TCP(flags, data)), v6(6, TCP(flags, data))]) {
      const { bytes, view, length } = place(packet);
      const header = packet.length - 20 - data.length / 2;
      assertEquals(emitTcpReset(view, AT, length), header + 20, name);
      const answer = lift(bytes, header + 20, length);
      assertEquals(innerLength(view, AT, answer.length), answer.length);
      const fields = hex(`01bb c350 ${sequence} ${ack} ${reset} 0000`);
      assertEquals(answer.slice(header, header + 16), fields, name);
      assertEquals(naiveTransportChecksum(answer, 6), 0, name);
      if (header === 20) {
        assertEquals(naiveChecksum(answer.slice(0, 20)), 0);
        assertEquals(answer.slice(12, 20), hex("c0000201 0a420002"));
      } else assertEquals(answer.slice(8, 40), hex(V6_DESTINATION + V6_SOURCE));
    }
  }
});

Deno.test("inner: a reset behind options and extension headers loses them", () => {
  const options = v4(6, `01010101 ${TCP("02")}`);
  options[0] = 0x46;
  for (const [packet, expected] of [[options, 40], [v6(60, `06000000 00000000 ${TCP("02")}`), 60]] as const) {
    const { bytes, view, length } = place(packet);
    assertEquals(emitTcpReset(view, AT, length), expected);
    const answer = lift(bytes, expected, length);
    assertEquals(innerLength(view, AT, expected), expected);
    assertEquals(protocolOf(view, AT, expected), 6);
    assertEquals(naiveTransportChecksum(answer, 6), 0);
  }
});

Deno.test("inner: no reset for a reset, a fragment, a cut header or another protocol", () => {
  for (
    const packet of [
      v4(6, TCP("04")),
      v4(6, TCP("14")),
      v4(6, TCP("02"), "2000"),
      v4(6, TCP("02").slice(0, -4)),
      v4(6, TCP("02").replace("5002", "4002")), // a header length below the least
      v4(6, TCP("02").replace("5002", "6002")), // and one beyond the packet
      v4(17, TCP("02")),
      v6(6, TCP("04")),
      v6(44, `0600 0001 00000001 ${TCP("02")}`),
    ]
  ) {
    const { bytes, view, length } = place(packet);
    assertEquals(emitTcpReset(view, AT, length), 0);
    assertEquals(lift(bytes, length, 0), packet);
  }
});

Deno.test("inner: an ICMP error quotes what the RFCs allow, at every length", () => {
  const gateway = parseAddress("10.66.0.1")!, gatewayV6 = parseAddress("fd66::1")!;
  for (const size of [0, 1, 8, 527, 528, 529, 1191, 1192, 1193, 1400, 1896]) {
    const old = v4(132, "5a".repeat(size));
    const placed = place(old);
    const total = Math.min(28 + old.length, 576);
    assertEquals(
      emitIcmpError(placed.bytes, placed.view, AT, old.length, gateway, ICMP_ADMIN_PROHIBITED),
      total,
    );
    const error = lift(placed.bytes, total, old.length);
    assertEquals(innerLength(placed.view, AT, total), total);
    assertEquals(error.slice(12, 20), hex("0a420001 0a420002"));
    assertEquals([error[9], error[20], error[21]], [1, 3, 13]);
    assertEquals([naiveChecksum(error.slice(0, 20)), naiveChecksum(error.slice(20))], [0, 0]);
    assertEquals(error.slice(28), old.slice(0, total - 28));

    const next = v6(132, "5a".repeat(size));
    const field = place(next);
    const whole = Math.min(48 + next.length, 1280);
    assertEquals(
      emitIcmpError(field.bytes, field.view, AT, next.length, gatewayV6, ICMP_ADMIN_PROHIBITED),
      whole,
    );
    const refusal = lift(field.bytes, whole, next.length);
    assertEquals(innerLength(field.view, AT, whole), whole);
    assertEquals(refusal.slice(8, 24), hex("fd66000000000000 0000000000000001"));
    assertEquals(refusal.slice(24, 40), hex(V6_SOURCE));
    assertEquals([refusal[6], refusal[40], refusal[41]], [58, 1, 1]);
    assertEquals(naiveTransportChecksum(refusal, 58), 0);
    assertEquals(refusal.slice(48), next.slice(0, whole - 48));
  }
});

Deno.test("inner: packet too big names the MTU where each version has it", () => {
  const gateway = parseAddress("10.66.0.1")!, gatewayV6 = parseAddress("fd66::1")!;
  const old = v4(132, "5a".repeat(1400)), next = v6(132, "5a".repeat(1400));
  const four = place(old), six = place(next);
  const total = emitIcmpError(four.bytes, four.view, AT, old.length, gateway, ICMP_PACKET_TOO_BIG, 1280);
  const error = lift(four.bytes, total, old.length);
  assertEquals(error.slice(20, 22), hex("0304"));
  assertEquals(error.slice(24, 28), hex("00000500"));
  assertEquals([naiveChecksum(error.slice(0, 20)), naiveChecksum(error.slice(20))], [0, 0]);

  const whole = emitIcmpError(six.bytes, six.view, AT, next.length, gatewayV6, ICMP_PACKET_TOO_BIG, 1280);
  const refusal = lift(six.bytes, whole, next.length);
  assertEquals(refusal.slice(40, 42), hex("0200"));
  assertEquals(refusal.slice(44, 48), hex("00000500"));
  assertEquals(naiveTransportChecksum(refusal, 58), 0);
});

Deno.test("inner: ICMP errors answer neither errors, later fragments, nor what is not one host's", () => {
  const from = parseAddress("10.66.0.1")!;
  const udp = "0001000200080000";
  const cases: [name: string, packet: Uint8Array, answered: boolean][] = [
    ["UDP", v4(17, udp), true],
    ["a first fragment", v4(17, udp, "2000"), true],
    ["an echo request", v4(1, "0800000000000000"), true],
    ["a timestamp request", v4(1, "0d00000000000000"), true],
    ["a later fragment", v4(17, udp, "0001"), false],
    ["destination unreachable", v4(1, "0300000000000000"), false],
    ["source quench", v4(1, "0400000000000000"), false],
    ["redirect", v4(1, "0500000000000000"), false],
    ["time exceeded", v4(1, "0b00000000000000"), false],
    ["parameter problem", v4(1, "0c00000000000000"), false],
    ["ICMP without its type", v4(1, ""), false],
    ["to multicast", v4(17, udp, "0000", "0a420002 e00000fb"), false],
    ["to broadcast", v4(17, udp, "0000", "0a420002 ffffffff"), false],
    ["from nowhere", v4(17, udp, "0000", "00000000 c0000201"), false],
    ["from multicast", v4(17, udp, "0000", "e00000fb c0000201"), false],
    ["from loopback", v4(17, udp, "0000", "7f000001 c0000201"), false],
    ["UDP over IPv6", v6(17, udp), true],
    ["an ICMPv6 echo request", v6(58, "8000000000000000"), true],
    ["an ICMPv6 error", v6(58, "0100000000000000"), false],
    ["an ICMPv6 error of a kind yet to come", v6(58, "7f00000000000000"), false],
    ["an ICMPv6 redirect", v6(58, "8900000000000000"), false],
    ["an ICMPv6 error behind an extension header", v6(60, "3a00000000000000 0200000000000000"), false],
    ["a later fragment of IPv6", v6(44, `1100 0008 00000001 ${udp}`), false],
    ["to IPv6 multicast", v6(17, udp, V6_SOURCE + "ff020000000000000000000000000001"), false],
    ["from IPv6 multicast", v6(17, udp, "ff020000000000000000000000000001" + V6_DESTINATION), false],
    ["from the unspecified IPv6 address", v6(17, udp, "00".repeat(16) + V6_DESTINATION), false],
  ];
  for (const [name, packet, answered] of cases) {
    const { bytes, view, length } = place(packet);
    assertEquals(emitIcmpError(bytes, view, AT, length, from, ICMP_ADMIN_PROHIBITED) > 0, answered, name);
    if (!answered) assertEquals(lift(bytes, length, 0), packet, name);
  }
});
