/**
 * A game and a call through a home's line beside a transfer: one-way delays of each packet, what the transfer got, and a rate that
 * steps meanwhile. Invariant: delays are told beyond an idle line's median in the same direction; a rate is counted by its
 * receiver. Starts no tunnel.
 */
import { type Arrivals, runFlow, startFarEnd } from "../../tests/kit/flow.ts";
import { type Background, type Network, pause, SERVER } from "../../tests/kit/namespaces.ts";
import { type WorkloadName, WORKLOADS } from "../../tests/kit/workloads.ts";
import { iperf } from "../measures.ts";
import { child, type Direction, type Home } from "./home.ts";

const PORTS: Partial<Record<WorkloadName, number>> = { game64: 7777, opus: 16_384 };
const QUIC_PORT = 443;
/** The transfer begins before the game and ends behind it. */
const LEAD_S = 3;
/** A delay that a player notices. */
export const LONG_MS = 20;

/** What runs beside: its row's words, and iperf3's; without these the UDP flow of quic_like.ts. */
export const LOADS: Record<string, { label: string; iperf?: string[] }> = {
  cubic1: { label: "1 CUBIC", iperf: ["-C", "cubic"] },
  cubic8: { label: "8 CUBIC", iperf: ["-C", "cubic", "-P", "8"] },
  bbr1: { label: "1 BBR (Linux)", iperf: ["-C", "bbr"] },
  bbr4: { label: "4 BBR (Linux)", iperf: ["-C", "bbr", "-P", "4"] },
  quic: { label: "QUIC-like, UDP" },
};

/** Milliseconds, null where a packet never came; a packet each `everyMs`. */
export interface Series {
  everyMs: number;
  delaysMs: (number | null)[];
}

export interface Busy {
  game: Series;
  call: Series;
  /** Mbit/s that the transfer's user got. */
  mbit: number;
}

export function at(series: Series, share: number): number {
  const came = series.delaysMs.filter((ms): ms is number => ms !== null).sort((a, b) => a - b);
  return came[Math.min(came.length - 1, Math.ceil(share * came.length) - 1)] ?? NaN;
}

export function lostShare({ delaysMs }: Series): number {
  return delaysMs.filter((ms) => ms === null).length / delaysMs.length;
}

/** Milliseconds of the span during which packets were late by LONG_MS or lost. */
export function longMs({ everyMs, delaysMs }: Series, fromMs: number, untilMs: number): number {
  const span = delaysMs.slice(Math.floor(fromMs / everyMs), Math.floor(untilMs / everyMs));
  return everyMs * span.filter((ms) => ms === null || ms > LONG_MS).length;
}

async function flow(
  net: Network,
  device: string,
  name: WorkloadName,
  seconds: number,
): Promise<Record<Direction, Series>> {
  const workload = WORKLOADS[name], port = PORTS[name]!;
  const plan = (side: string, host: string) => ({
    workload,
    seconds,
    way: { transport: "udp" as const, host, port },
    file: `${net.directory}/${name}-${device}-${side}-${crypto.randomUUID()}.json`,
  });
  const far = plan("far", "0.0.0.0");
  const server = await startFarEnd(net, "server", far);
  const { up, down } = await runFlow(net, device, plan("near", SERVER), { server, file: far.file });
  const series = ({ latencyUs }: Arrivals, packetsPerSecond: number): Series => ({
    everyMs: 1000 / packetsPerSecond,
    delaysMs: latencyUs.map((us) => us === null ? null : us / 1000),
  });
  return { up: series(up, workload.up.packetsPerSecond), down: series(down, workload.down.packetsPerSecond) };
}

/** Each direction's median delays while nothing else is sent. */
export async function idleMs(
  net: Network,
  device: string,
  seconds: number,
): Promise<Record<Direction, number>> {
  const { up, down } = await flow(net, device, "game64", seconds);
  return { up: at(up, 0.5), down: at(down, 0.5) };
}

function beyond({ everyMs, delaysMs }: Series, baseMs: number): Series {
  return { everyMs, delaysMs: delaysMs.map((ms) => ms === null ? null : ms - baseMs) };
}

/** One transfer's rate, Mbit/s; `lead` is not counted. @param port iperf3's. */
export async function transfer(
  net: Network,
  device: string,
  load: string,
  direction: Direction,
  seconds: number,
  port = 5201,
): Promise<number> {
  const words = LOADS[load].iperf;
  if (words !== undefined) {
    const back = direction === "down" ? ["-R"] : [];
    const all = ["-p", String(port), "-O", String(LEAD_S), ...words, ...back];
    const { sum_received } = await iperf(net, device, seconds, all);
    return sum_received.bits_per_second / 1e6;
  }
  const far: Background = net.spawn("server", child("quic_like.ts", ["far", String(QUIC_PORT)]));
  await far.says("ready");
  const near = ["near", SERVER, String(QUIC_PORT), direction, String(seconds + LEAD_S), String(LEAD_S)];
  const said = await net.must(device, child("quic_like.ts", near), { timeoutS: seconds + 20 });
  await far.child.status;
  const { bytesPerS } = JSON.parse(/\{.*\}/.exec(direction === "down" ? said : far.said)![0]);
  return 8 * bytesPerS / 1e6;
}

/** What is done to the line while the game plays, after `atS` seconds of the game. */
export interface Step {
  atS: number;
  mbit: number;
}

/** A game and a call beside a transfer in one direction, told of that direction. */
export async function busy(
  net: Network,
  home: Home,
  device: string,
  load: string,
  direction: Direction,
  seconds: number,
  idle: Record<Direction, number>,
  steps: Step[] = [],
): Promise<Busy> {
  const bulk = transfer(net, device, load, direction, seconds + 1);
  await pause(1000 * LEAD_S);
  const playing = Promise.all([flow(net, device, "game64", seconds), flow(net, device, "opus", seconds)]);
  let passedS = 0;
  for (const { atS, mbit } of steps) {
    await pause(1000 * (atS - passedS));
    passedS = atS;
    await home.step(direction, mbit);
  }
  const [game, call] = await playing;
  return {
    game: beyond(game[direction], idle[direction]),
    call: beyond(call[direction], idle[direction]),
    mbit: await bulk,
  };
}
