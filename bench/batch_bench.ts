/**
 * `deno task bench:batch`: what batching saves and what it costs in delay, on the virtual clock: a whole client and relay
 * with batching and without, against two models of the same traffic, timers that hold every packet for a time fixed by
 * the rate (500, 1000 and 2000 us below 1000, below 10 000 and from 10 000 packets/s on). Prints tables, and writes the
 * curve of delay and overhead as a picture. No figure in it depends on the machine.
 */
import { ArrivalGaps } from "../src/control/flush.ts";
import { CLASS_BULK, CLASS_GAME, CLASS_VOICE } from "../src/control/traffic_class.ts";
import { BATCH_WAIT_US } from "../src/tunnel_options.ts";
import { CLEAN, World } from "../tests/kit/world.ts";
import { Random } from "../tests/kit/random.ts";
import { udpPacket } from "../tests/kit/packets.ts";
import { curveChart, type Point } from "./chart.ts";
import ACK_GAPS_US from "./results/ack_gaps.json" with { type: "json" };

const PACKETS = 4000;
const PLAINTEXT_BYTES_MAX = 1420;
/** IPv4 and UDP; OxTunnel's header with one byte of counter, and its tag; the head of a packet that is not the last. */
const OUTER = 28, OVERHEAD = 22, HEAD = 2;
const PICTURE = new URL("results/batch.svg", import.meta.url);

interface Traffic {
  name: string;
  bytes: number;
  trafficClass: number;
  /** Microseconds between packets. */
  gapsUs: number[];
}

interface Outcome {
  /** Bytes besides the inner packets, for each of them. */
  overhead: number;
  packetsPerDatagram: number;
  meanUs: number;
  p50Us: number;
  p99Us: number;
}

function poisson(rate: number): Traffic {
  const random = new Random(rate);
  const gapsUs = Array.from({ length: PACKETS }, () => -Math.log(1 - random.real()) * 1e6 / rate);
  return { name: `Poisson, ${rate}/s`, bytes: 52, trafficClass: CLASS_BULK, gapsUs };
}

/** Packets at a steady pace, each up to 2 ms early or late. */
function steady(name: string, rate: number, bytes: number, trafficClass: number): Traffic {
  const random = new Random(rate);
  const atUs = Array.from({ length: PACKETS }, (_, i) => (i + 1) * 1e6 / rate + random.real() * 4000);
  return { name, bytes, trafficClass, gapsUs: atUs.map((us, i) => us - (atUs[i - 1] ?? 0)) };
}

const TRAFFIC: Traffic[] = [
  ...[100, 300, 1000, 3000, 10_000, 30_000, 100_000].map(poisson),
  ...Object.entries(ACK_GAPS_US).map(([name, gapsUs]) => ({
    name: `TCP's acks, ${name}`,
    bytes: 52,
    trafficClass: CLASS_BULK,
    gapsUs: [...gapsUs, ...gapsUs],
  })),
  steady("a game, 64/s", 64, 60, CLASS_GAME),
  steady("a call, 50/s", 50, 100, CLASS_VOICE),
];

function outcome(datagrams: number, bytes: number, traffic: Traffic, delaysUs: number[]): Outcome {
  const sorted = delaysUs.toSorted((a, b) => a - b);
  const packets = traffic.gapsUs.length;
  return {
    overhead: (bytes + OUTER * datagrams) / packets - traffic.bytes,
    packetsPerDatagram: packets / datagrams,
    meanUs: sorted.reduce((sum, us) => sum + us, 0) / packets,
    p50Us: sorted[packets >> 1],
    p99Us: sorted[Math.floor(0.99 * packets)],
  };
}

/** The real thing. @param batchWaitUs as TunnelOptions has it. */
function real(traffic: Traffic, batchWaitUs: number): Outcome {
  const world = new World(1);
  world.protocol = "oxtunnel";
  const server = world.relay("192.0.2.1:4433", { ipv4: "10.66.0.1", features: 0 });
  const client = world.client("198.51.100.7:5555", server, { ipv4: "10.66.0.2", features: 0, batchWaitUs });
  const packet = udpPacket("10.66.0.2", "8.8.8.8", new Uint8Array(traffic.bytes - 28));
  client.send(packet);
  world.runFor(1e6);
  server.delivered.length = 0;
  world.channel = { ...CLEAN, delayUs: 0 };
  let datagrams = 0, bytes = 0;
  world.tap = (from, _to, datagram) => {
    if (from === client.endpoint) {
      datagrams++;
      bytes += datagram.length;
    }
    return datagram;
  };
  const arrivedUs: number[] = [], delaysUs: number[] = [];
  server.delivered.push = (...packets: Uint8Array[]) => {
    for (const _ of packets) delaysUs.push(world.nowUs - arrivedUs[delaysUs.length]);
    return delaysUs.length;
  };
  for (const gapUs of traffic.gapsUs) {
    world.runFor(gapUs);
    arrivedUs.push(world.nowUs);
    client.sendBurst([packet], traffic.trafficClass);
  }
  world.runFor(10_000);
  if (delaysUs.length !== traffic.gapsUs.length) throw new Error(`${traffic.name}: packets are lost`);
  return outcome(datagrams, bytes, traffic, delaysUs);
}

/** A model of a timer: the first packet of a datagram waits `holdUs`, and those that come meanwhile with it. */
function timer(traffic: Traffic, holdUs: number): Outcome {
  const capacity = Math.floor((PLAINTEXT_BYTES_MAX + HEAD) / (traffic.bytes + HEAD));
  let datagrams = 0, bytes = 0, nowUs = 0;
  let held: number[] = [];
  const delaysUs: number[] = [];
  const flush = (us: number) => {
    datagrams++;
    bytes += held.length * (traffic.bytes + HEAD) - HEAD + OVERHEAD;
    for (const arrivedUs of held) delaysUs.push(us - arrivedUs);
    held = [];
  };
  for (const gapUs of traffic.gapsUs) {
    nowUs += gapUs;
    if (held.length > 0 && nowUs > held[0] + holdUs) flush(held[0] + holdUs);
    held.push(nowUs);
    if (held.length === capacity) flush(nowUs);
  }
  if (held.length > 0) flush(held[0] + holdUs);
  return outcome(datagrams, bytes, traffic, delaysUs);
}

function bandUs({ gapsUs }: Traffic): number {
  const rate = 1e6 * gapsUs.length / gapsUs.reduce((sum, us) => sum + us, 0);
  return rate < 1000 ? 500 : rate < 10_000 ? 1000 : 2000;
}

const us = (value: number) => value < 0.05 ? "0" : value.toFixed(0);

console.log(
  "| traffic | none, bytes | bands, bytes / p50 / p99 us | ours, bytes / p50 / p99 us | ours, packets |",
);
console.log("|---|---|---|---|---|");
for (const traffic of TRAFFIC) {
  const none = real(traffic, -1),
    bands = timer(traffic, bandUs(traffic)),
    ours = real(traffic, BATCH_WAIT_US);
  const cell = ({ overhead, p50Us, p99Us }: Outcome) =>
    `${overhead.toFixed(1)} / ${us(p50Us)} / ${us(p99Us)}`;
  console.log(
    `| ${traffic.name} | ${none.overhead.toFixed(1)} | ${cell(bands)} | ${cell(ours)} | ${
      ours.packetsPerDatagram.toFixed(1)
    } |`,
  );
}

/** Mean delay against overhead, over the bound or the timer. */
function curve(run: (holdUs: number) => Outcome): Point[] {
  return HOLDS_US.map(run).map(({ meanUs, overhead }) => ({ x: meanUs, y: overhead }));
}

const HOLDS_US = [0, 50, 100, 200, 350, 500, 700, 1000];
const shown = [poisson(3000), poisson(10_000), TRAFFIC.find(({ name }) => name.includes("paced"))!];
console.log(
  "\n| traffic | bound or timer, us | timer, bytes / mean us | ours, bytes / mean us |\n|---|---|---|---|",
);
const series = shown.flatMap((traffic) => {
  const ours = curve((holdUs) => real(traffic, holdUs));
  const fixed = curve((holdUs) => timer(traffic, holdUs));
  HOLDS_US.forEach((holdUs, i) => {
    const cell = ({ x, y }: Point) => `${y.toFixed(1)} / ${us(x)}`;
    console.log(`| ${traffic.name} | ${holdUs} | ${cell(fixed[i])} | ${cell(ours[i])} |`);
  });
  return [
    { label: `ours, ${traffic.name}`, points: ours, isOurs: true },
    { label: `a timer, ${traffic.name}`, points: fixed, isOurs: false },
  ];
});
const axes: [string, string] = ["mean added delay, us", "overhead, bytes a packet"];
Deno.writeTextFileSync(PICTURE, curveChart("Batching: what a packet waits and what it costs", axes, series));

// The decision alone, for who wants to know what it costs.
const gaps = new ArrivalGaps(1, BATCH_WAIT_US);
let held = 0;
const DECISIONS = 1e6, start = performance.now();
for (let i = 0; i < DECISIONS; i++) {
  gaps.note(0, 100 * i + 7 * (i % 13));
  if (gaps.waitUs(0, 1 + i % 4, 50 * (i % 4)) > 0) held++;
}
const ns = (performance.now() - start) * 1e6 / DECISIONS;
console.error(`a decision takes ${ns.toFixed(0)} ns; ${(100 * held / DECISIONS).toFixed(0)} % were to hold`);
