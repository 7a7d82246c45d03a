/**
 * `deno task bench:headers`: what leaving headers out costs and saves, a packet, by kind of packet: nanoseconds to shorten
 * and to rebuild, in bursts of 256 packets of 16 flows, by OxTunnel's own way and by ROHC, and bytes on the cable beside WireGuard's. No socket, no encryption.
 * Prints a table; asserts only that packets come back whole.
 */
import { ContextBudget, Expander } from "../src/codec/headers/expander.ts";
import { BARE, DEFINED, SHORT, Shrinker } from "../src/codec/headers/shrinker.ts";
import { RohcReceiver } from "../src/codec/headers/rohc_receiver.ts";
import { RohcSender } from "../src/codec/headers/rohc_sender.ts";
import { packetStart } from "../src/vector/arena.ts";
import { Arena } from "../src/vector/arena.ts";
import { foldSum, sumWords, transportChecksum } from "../src/wire/inner.ts";

const PACKETS = 256, FLOWS = 16, ROUNDS = 400, WARM = 100;
/** UDP and IPv4 of a datagram; OxTunnel's header and tag; WireGuard's, with padding to 16. */
const OUTER = 28, OXTUNNEL = 22, WIREGUARD = 32;

interface Kind {
  name: string;
  version: 4 | 6;
  protocol: "udp" | "rtp" | "tcp";
  payload: number;
}

const KINDS: Kind[] = [
  { name: "game, 32 bytes, IPv4", version: 4, protocol: "udp", payload: 32 },
  { name: "game, 100 bytes, IPv4", version: 4, protocol: "udp", payload: 100 },
  { name: "game, 32 bytes, IPv6", version: 6, protocol: "udp", payload: 32 },
  { name: "game, 100 bytes, IPv6", version: 6, protocol: "udp", payload: 100 },
  { name: "call, 60 bytes in RTP, IPv4", version: 4, protocol: "rtp", payload: 60 },
  { name: "UDP, 1200 bytes, IPv4", version: 4, protocol: "udp", payload: 1200 },
  { name: "TCP acknowledgment, IPv4", version: 4, protocol: "tcp", payload: 0 },
  { name: "TCP segment, 1368 bytes, IPv4", version: 4, protocol: "tcp", payload: 1368 },
];

function packetOf({ version, protocol, payload }: Kind, flow: number, n: number): Uint8Array {
  const ip = version === 4 ? 20 : 40, upper = protocol === "tcp" ? 32 : protocol === "rtp" ? 20 : 8;
  const packet = new Uint8Array(ip + upper + payload), view = new DataView(packet.buffer);
  const number = protocol === "tcp" ? 6 : 17;
  if (version === 4) {
    view.setUint32(0, 0x45000000 | packet.length);
    view.setUint32(4, 0x4000);
    view.setUint16(8, 0x4000 | number);
    packet.set([10, 66, 0, 2, 192, 0, 2, 9], 12);
    view.setUint16(10, foldSum(sumWords(view, 0, 20, 0)));
  } else {
    view.setUint32(0, 0x60000000);
    view.setUint16(4, packet.length - 40);
    view.setUint16(6, number << 8 | 64);
    packet.fill(0x20, 8, 40);
  }
  view.setUint32(ip, (40_000 + flow) << 16 | 27_015);
  packet.fill(n, ip + upper);
  if (protocol === "tcp") {
    view.setUint32(ip + 4, 1448 * n);
    view.setUint32(ip + 8, n);
    view.setUint32(ip + 12, 0x801001f5);
    view.setUint32(ip + 20, 0x0101080a);
    view.setUint32(ip + 24, n);
    view.setUint32(ip + 28, n);
    return packet;
  }
  view.setUint16(ip + 4, upper + payload);
  if (protocol === "rtp") {
    view.setUint32(ip + 8, 0x806f0000 | (n & 0xffff));
    view.setUint32(ip + 12, 960 * n);
    view.setUint32(ip + 16, flow);
  }
  view.setUint16(ip + 6, transportChecksum(view, 0, ip, upper + payload, 17));
  return packet;
}

const arena = new Arena(PACKETS);
const { bytes, view } = arena;

/** Median and least of the times, nanoseconds a packet. */
function summary(times: number[]): string {
  const sorted = times.toSorted((a, b) => a - b).map((ms) => 1e6 * ms / PACKETS);
  return `${sorted[sorted.length >> 1].toFixed(0)} (${sorted[0].toFixed(0)})`;
}

function measure(kind: Kind): string {
  const shrinker = new Shrinker(), expander = new Expander(new ContextBudget(64), () => {});
  const ats = new Uint32Array(PACKETS), lengths = new Uint32Array(PACKETS), was = new Uint8Array(PACKETS);
  const shrinkMs: number[] = [], expandMs: number[] = [];
  const whole = packetOf(kind, 0, 0).length;
  const anchors = new Uint8Array(192);
  let counter = 0, short = 0, octets = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const packets = Array.from(
      { length: PACKETS },
      (_, i) => packetOf(kind, i % FLOWS, round * (PACKETS / FLOWS) + Math.floor(i / FLOWS)),
    );
    packets.forEach((packet, i) => bytes.set(packet, packetStart(i)));
    const nowUs = 100_000 * round;
    const start = performance.now();
    for (let i = 0; i < PACKETS; i++) {
      was[i] = shrinker.shrink(view, packetStart(i), whole, true, nowUs);
      ats[i] = was[i] === BARE ? packetStart(i) : shrinker.at;
      lengths[i] = was[i] === BARE ? whole : shrinker.bytes;
    }
    const between = performance.now();
    for (let i = 0; i < PACKETS; i++) {
      counter++;
      if (was[i] === DEFINED) {
        const front = Expander.definitionBytes(view, ats[i], lengths[i]);
        expander.define(view, ats[i], ats[i] + front, lengths[i] - front, counter);
        shrinker.acknowledged(expander.acknowledgments[0], expander.acknowledgments[1]);
        expander.acknowledged(expander.acknowledgmentBytes);
      } else if (was[i] === SHORT) {
        if (!expander.find(view, ats[i], lengths[i], counter)) throw new Error(`${kind.name}: no context`);
        const { template, fieldsAt, payloadAt } = expander;
        const payloadBytes = ats[i] + lengths[i] - payloadAt;
        template.rebuild(view, fieldsAt, view, payloadAt - template.headerBytes, payloadBytes);
      }
    }
    const end = performance.now();
    const anchored = expander.writeAnchors(anchors, 0, anchors.length);
    for (let i = 0; i < anchored; i += 3) {
      shrinker.anchored(anchors[i] & 0x7f, anchors[i + 1], anchors[i + 2]);
    }
    if (round < WARM) continue;
    shrinkMs.push(between - start);
    expandMs.push(end - between);
    octets += lengths.reduce((sum, one) => sum + one, 0);
    short += was.reduce((sum, one) => sum + (one === SHORT ? 1 : 0), 0);
    packets.forEach((packet, i) => {
      for (let j = 0; j < whole; j++) {
        if (bytes[packetStart(i) + j] !== packet[j]) {
          throw new Error(`${kind.name}: octet ${j} of packet ${i}`);
        }
      }
    });
  }
  // A call's line is defined anew now and then.
  if (short < 0.999 * PACKETS * (ROUNDS - WARM)) throw new Error(`${kind.name}: ${short} packets were short`);
  const cable = Math.round(octets / (PACKETS * (ROUNDS - WARM))) + OXTUNNEL + OUTER;
  const wireguard = Math.min(Math.ceil(whole / 16) * 16, 1420) + WIREGUARD + OUTER;
  const cells = [
    kind.name,
    summary(shrinkMs),
    summary(expandMs),
    `${whole + OXTUNNEL + OUTER}`,
    `${cable}`,
    `${wireguard}`,
    (cable / wireguard).toFixed(2),
  ];
  return `| ${cells.join(" | ")} |`;
}

/** The same by ROHC, each packet's datagram reported before the next burst. */
function measureRohc(kind: Kind): string {
  const sender = new RohcSender(), receiver = new RohcReceiver(new ContextBudget(1 << 16), () => {});
  const ats = new Uint32Array(PACKETS), lengths = new Uint32Array(PACKETS), was = new Uint8Array(PACKETS);
  const shrinkMs: number[] = [], expandMs: number[] = [];
  const whole = packetOf(kind, 0, 0).length;
  let counter = 0, octets = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const packets = Array.from(
      { length: PACKETS },
      (_, i) => packetOf(kind, i % FLOWS, round * (PACKETS / FLOWS) + Math.floor(i / FLOWS)),
    );
    packets.forEach((packet, i) => bytes.set(packet, packetStart(i)));
    const nowUs = 100_000 * round, first = counter;
    const start = performance.now();
    for (let i = 0; i < PACKETS; i++) {
      was[i] = sender.shrink(bytes, view, packetStart(i), whole, true, nowUs);
      ats[i] = was[i] === BARE ? packetStart(i) : sender.at;
      lengths[i] = was[i] === BARE ? whole : sender.bytes;
      if (was[i] !== BARE) sender.sealed(view, ats[i], lengths[i], first + i);
    }
    const between = performance.now();
    counter += PACKETS;
    for (let i = 0; i < PACKETS; i++) {
      if (was[i] === BARE) continue;
      if (!receiver.decompress(bytes, ats[i], lengths[i], first + i)) {
        throw new Error(`${kind.name}: not read`);
      }
      if (receiver.length !== whole) throw new Error(`${kind.name}: ${receiver.length} octets`);
    }
    const end = performance.now();
    sender.reported((one) => one < counter, nowUs);
    if (round < WARM) continue;
    shrinkMs.push(between - start);
    expandMs.push(end - between);
    octets += lengths.reduce((sum, one) => sum + one, 0);
  }
  const cable = Math.round(octets / (PACKETS * (ROUNDS - WARM))) + OXTUNNEL + OUTER;
  return `| ${[kind.name, summary(shrinkMs), summary(expandMs), `${cable}`].join(" | ")} |`;
}

console.log(
  "| packet | shorten, ns: median (least) | rebuild, ns | with headers | without | WireGuard | ratio |",
);
console.log("|---|---|---|---|---|---|---|");
for (const kind of KINDS) console.log(measure(kind));
console.log("\n| by ROHC | compress, ns: median (least) | restore, ns | bytes on the cable |");
console.log("|---|---|---|---|");
for (const kind of KINDS) if (kind.payload <= 100) console.log(measureRohc(kind));
