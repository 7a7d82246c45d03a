/**
 * Every kind of IPv4 and IPv6 packet that a client may send, through the TUN exit: each one reaches the far host or is answered by
 * ICMP. Invariant under test: nothing is lost in silence. Packets are told apart at the far host by what a router leaves alone,
 * IPv4's identification and IPv6's flow label.
 */
import { assertEquals } from "@std/assert";
import {
  foldSum,
  sumWords,
  transportChecksum,
  writeIpv4Header,
  writeIpv6Header,
} from "../../src/wire/inner.ts";
import { parseAddress } from "../../src/wire/address.ts";
import { requires } from "../kit/requires.ts";
import { networkTest, SERVER, SERVER_V6 } from "../kit/namespaces.ts";

const needs = requires({ root: true, programs: ["ip", "nft", "sysctl"] });
const CHILD = new URL("exit_child.ts", import.meta.url).pathname;
const ROOT = new URL("../..", import.meta.url).pathname;
const MARK = 0x5000;
const bytes = (...values: number[]) => Uint8Array.from(values);

/** A UDP segment of this many bytes. */
function udp(size: number, more: { length?: number; source?: number } = {}): Uint8Array {
  const segment = new Uint8Array(8 + size).fill(0x61, 8);
  const view = new DataView(segment.buffer);
  view.setUint16(0, more.source ?? 40000);
  view.setUint16(2, 7999);
  view.setUint16(4, more.length ?? segment.length);
  return segment;
}

function tcp(flags: number, options = bytes(), data = 0): Uint8Array {
  const segment = new Uint8Array(20 + options.length + data);
  segment.set([
    0x9c,
    0x41,
    0x1f,
    0x3f,
    0,
    0,
    0,
    9,
    0,
    0,
    0,
    0,
    (5 + options.length / 4) << 4,
    flags,
    0xff,
    0xff,
  ]);
  segment.set(options, 20);
  return segment;
}

interface Packet {
  name: string;
  protocol: number;
  segment: Uint8Array;
  /** IPv4 options, or IPv6 extension headers before the transport, of which `protocol` names the first. */
  between?: Uint8Array;
  /** Where the transport's checksum goes, and the transport, when it is behind extension headers. */
  checksum?: number;
  transport?: number;
  hops?: number;
  /** IPv4's flags and offset: a piece of the payload, in units of 8 bytes. */
  pieces?: [from: number, to: number][];
  /** What becomes of it: "arrives", or the ICMP that comes back. */
  becomes: string;
}

const ARRIVES = "arrives";

const V4: Packet[] = [
  { name: "UDP", protocol: 17, segment: udp(40), checksum: 6, becomes: ARRIVES },
  { name: "UDP without a checksum", protocol: 17, segment: udp(40), becomes: ARRIVES },
  { name: "UDP of nothing", protocol: 17, segment: udp(0), checksum: 6, becomes: ARRIVES },
  { name: "UDP with bytes behind its end", protocol: 17, segment: udp(40, { length: 28 }), becomes: ARRIVES },
  { name: "UDP from port 0", protocol: 17, segment: udp(8, { source: 0 }), checksum: 6, becomes: ARRIVES },
  { name: "UDP of 1392 bytes", protocol: 17, segment: udp(1392), checksum: 6, becomes: ARRIVES },
  {
    name: "UDP in two pieces",
    protocol: 17,
    segment: udp(1992),
    checksum: 6,
    pieces: [[0, 1000], [1000, 2000]],
    becomes: ARRIVES,
  },
  {
    name: "UDP in pieces that come last first",
    protocol: 17,
    segment: udp(1992),
    checksum: 6,
    pieces: [[1000, 2000], [0, 1000]],
    becomes: ARRIVES,
  },
  {
    name: "TCP SYN with options and data",
    protocol: 6,
    segment: tcp(2, bytes(2, 4, 5, 0xb4, 1, 3, 3, 7), 12),
    checksum: 16,
    becomes: ARRIVES,
  },
  {
    name: "TCP in the middle of a connection",
    protocol: 6,
    segment: tcp(0x10),
    checksum: 16,
    becomes: ARRIVES,
  },
  {
    name: "record route",
    protocol: 17,
    segment: udp(9),
    checksum: 6,
    between: bytes(7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0),
    becomes: ARRIVES,
  },
  {
    name: "router alert",
    protocol: 17,
    segment: udp(9),
    checksum: 6,
    between: bytes(0x94, 4, 0, 0),
    becomes: ARRIVES,
  },
  {
    name: "no-operation options",
    protocol: 17,
    segment: udp(9),
    checksum: 6,
    between: bytes(1, 1, 1, 0),
    becomes: ARRIVES,
  },
  { name: "SCTP that is none", protocol: 132, segment: udp(40), becomes: "ICMP 3/13" },
  { name: "DCCP", protocol: 33, segment: udp(40), becomes: ARRIVES },
  { name: "UDP-Lite", protocol: 136, segment: udp(40), checksum: 6, becomes: "ICMP 3/13" },
  { name: "GRE", protocol: 47, segment: bytes(0, 0, 8, 0, 1, 2, 3, 4), becomes: ARRIVES },
  { name: "ESP", protocol: 50, segment: udp(40), becomes: ARRIVES },
  { name: "AH", protocol: 51, segment: udp(40), becomes: ARRIVES },
  { name: "IP in IP", protocol: 4, segment: udp(40), becomes: ARRIVES },
  { name: "6in4", protocol: 41, segment: udp(40), becomes: ARRIVES },
  { name: "an experiment's protocol", protocol: 253, segment: udp(40), becomes: ARRIVES },
  {
    name: "ICMP timestamp",
    protocol: 1,
    segment: bytes(13, 0, 0, 0, 1, 2, 0, 1, ...new Array(12).fill(0)),
    checksum: 2,
    becomes: ARRIVES,
  },
  // No error may answer what may be one itself (RFC 1122 §3.2.2); nft counts it.
  {
    name: "ICMP of an unknown type",
    protocol: 1,
    segment: bytes(40, 0, 0, 0, 0, 0, 0, 0),
    checksum: 2,
    becomes: "nothing",
  },
  { name: "TTL 1", protocol: 17, segment: udp(9), checksum: 6, hops: 1, becomes: "ICMP 11/0" },
  { name: "TTL 2", protocol: 17, segment: udp(9), checksum: 6, hops: 2, becomes: ARRIVES },
];

const V6: Packet[] = [
  { name: "UDP6", protocol: 17, segment: udp(40), checksum: 6, becomes: ARRIVES },
  { name: "UDP6 of nothing", protocol: 17, segment: udp(0), checksum: 6, becomes: ARRIVES },
  { name: "TCP6 SYN", protocol: 6, segment: tcp(2), checksum: 16, becomes: ARRIVES },
  {
    name: "hop-by-hop options",
    protocol: 0,
    between: bytes(17, 0, 1, 4, 0, 0, 0, 0),
    segment: udp(9),
    transport: 17,
    checksum: 6,
    becomes: ARRIVES,
  },
  {
    name: "destination options",
    protocol: 60,
    between: bytes(17, 0, 1, 4, 0, 0, 0, 0),
    segment: udp(9),
    transport: 17,
    checksum: 6,
    becomes: ARRIVES,
  },
  {
    name: "a fragment that is all",
    protocol: 44,
    between: bytes(17, 0, 0, 0, 1, 2, 3, 4),
    segment: udp(9),
    transport: 17,
    checksum: 6,
    becomes: ARRIVES,
  },
  // There is nothing in it (RFC 8200 §4.7).
  { name: "nothing behind the header", protocol: 59, segment: bytes(), becomes: "nothing" },
  { name: "SCTP over IPv6 that is none", protocol: 132, segment: udp(40), becomes: "ICMP 1/1" },
  { name: "GRE6", protocol: 47, segment: bytes(0, 0, 8, 0, 1, 2, 3, 4), becomes: ARRIVES },
  { name: "ESP6", protocol: 50, segment: udp(40), becomes: ARRIVES },
  { name: "an experiment's protocol over IPv6", protocol: 253, segment: udp(40), becomes: ARRIVES },
  {
    name: "ICMPv6 of an unknown type",
    protocol: 58,
    segment: bytes(200, 0, 0, 0, 0, 0, 0, 0),
    checksum: 2,
    becomes: "ICMP 1/1",
  },
  { name: "hop limit 1", protocol: 17, segment: udp(9), checksum: 6, hops: 1, becomes: "ICMP 3/0" },
  { name: "hop limit 2", protocol: 17, segment: udp(9), checksum: 6, hops: 2, becomes: ARRIVES },
];

function ipv4(packet: Packet, mark: number): Uint8Array[] {
  const { protocol, segment, between = bytes(), checksum, hops = 64, pieces } = packet;
  const header = 20 + between.length;
  const whole = new Uint8Array(header + segment.length);
  const view = new DataView(whole.buffer);
  const [from, to] = ["10.99.0.2", SERVER].map((text) => parseAddress(text)![3]);
  writeIpv4Header(view, 0, whole.length, mark, 0, protocol, from, to);
  whole.set(between, 20);
  whole.set(segment, header);
  if (checksum !== undefined) {
    view.setUint16(
      header + checksum,
      protocol === 1
        ? foldSum(sumWords(view, header, segment.length, 0))
        : transportChecksum(view, 0, header, segment.length, protocol) || 0xffff,
    );
  }
  const finish = (bytes: Uint8Array, flags: number) => {
    const view = new DataView(bytes.buffer);
    view.setUint8(0, 0x40 | header / 4);
    view.setUint16(2, bytes.length);
    view.setUint16(6, flags);
    view.setUint8(8, hops);
    view.setUint16(10, 0);
    view.setUint16(10, foldSum(sumWords(view, 0, header, 0)));
    return bytes;
  };
  return (pieces ?? [[0, segment.length]]).map(([from, to]) =>
    finish(
      Uint8Array.from([...whole.subarray(0, header), ...whole.subarray(header + from, header + to)]),
      (to < segment.length ? 0x2000 : 0) | from >> 3,
    )
  );
}

function ipv6(packet: Packet, mark: number): Uint8Array[] {
  const { protocol, segment, between = bytes(), checksum, transport = protocol, hops = 64 } = packet;
  const header = 40 + between.length;
  const whole = new Uint8Array(header + segment.length);
  const view = new DataView(whole.buffer);
  const from = parseAddress("fd99::2")!, to = parseAddress(SERVER_V6)!;
  writeIpv6Header(view, 0, whole.length - 40, protocol, from, 0, to, 0);
  view.setUint32(0, 0x60000000 | mark);
  view.setUint8(7, hops);
  whole.set(between, 40);
  whole.set(segment, header);
  if (checksum !== undefined) {
    view.setUint16(
      header + checksum,
      transportChecksum(view, 0, header, segment.length, transport) || 0xffff,
    );
  }
  return [whole];
}

networkTest(
  "tun exit: whatever a client may send arrives or is answered, and nothing is lost in silence",
  needs,
  async (net) => {
    const all = [...V4, ...V6];
    const rules = all.map((_, i) =>
      i < V4.length ? `ip id ${MARK + i} counter` : `ip6 flowlabel ${MARK + i} counter`
    );
    await net.must("server", ["nft", "-f", "-"], {
      input: `table inet watch { chain seen { type filter hook prerouting priority -500;\n${
        rules.join("\n")
      }\n}; }\n`,
    });
    const child = net.spawn("relay", [
      Deno.execPath(),
      "run",
      "--no-prompt",
      "--unstable-net",
      "--allow-net",
      `--allow-read=${ROOT}`,
      "--allow-run=ip,nft",
      "--allow-sys=networkInterfaces",
      `--allow-ffi=/lib/x86_64-linux-gnu/libc.so.6,/lib/aarch64-linux-gnu/libc.so.6,${ROOT}ffi/prebuilt/x86_64-unknown-linux-gnu/liboxrelay.so`,
      CHILD,
      "tun",
      "oxrelay7",
      ...all.map((packet, i) => {
        const packets = (i < V4.length ? ipv4 : ipv6)(packet, MARK + i);
        return `raw=${i}:${packets.map((one) => one.toHex()).join("+")}`;
      }),
    ]);
    await child.says("idle");
    const seen = [
      ...(await net.must("server", ["nft", "list", "table", "inet", "watch"])).matchAll(/packets (\d+)/g),
    ]
      .map(([, packets]) => Number(packets));
    const became = all.map(({ name }, i) => {
      const answer = new RegExp(`^raw ${i}: (nothing|.*?)(?: from .*)?$`, "m").exec(child.said)?.[1];
      return `${name}: ${seen[i] > 0 ? ARRIVES : answer}`;
    });
    assertEquals(became, all.map(({ name, becomes }) => `${name}: ${becomes}`));
  },
);
