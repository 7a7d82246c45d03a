/**
 * The least loss that perfect knowledge of a path allows for a run's packets at a share of extra bytes, by oracle.ts over a replay of
 * the run's paths. Three bounds: for copies that only ride in the game's own later datagrams; for copies that may leave at any
 * millisecond in datagrams of their own, whose headers cost nothing; and for the same ones where each waits for a request, which
 * leaves when its packet should have come, or at any later millisecond, and costs nothing. Invariant: the second is the least.
 * Runs no tunnel.
 */
import { type Carrier, leastLost, type Original } from "./oracle.ts";
import { packetsOfRun, pathsOfRun, type Run } from "./play.ts";
import type { Workload } from "../../tests/kit/workloads.ts";

const INNER_HEADER_BYTES = 28, OUTER_BYTES = 6 + 16 + 28;
const PROBE_US = 1000;

export interface Bound {
  /** Shares of packets lost for ever, 0 to 1. */
  riding: number;
  alone: number;
  asking: number;
}

interface Moments {
  originals: Original[];
  /** Every millisecond, and the originals, in the order of their sending. */
  moments: Carrier[];
  budgetBytes: number;
}

/** One direction of the run: what its path does with the packets and at every millisecond. */
function momentsOf(run: Run, direction: "up" | "down", share: number): Moments {
  const { sentUs, bytes } = packetsOfRun(run)[direction], path = pathsOfRun(run)[direction];
  const originals: Original[] = [], moments: Carrier[] = [];
  let probeUs = sentUs[0], budgetBytes = 0, transitUs = 0;
  for (let n = 0; n < sentUs.length; n++) {
    for (; probeUs < sentUs[n]; probeUs += PROBE_US) {
      moments.push({ sentUs: probeUs, arrivedUs: path.arrivalUs(probeUs, 0) });
    }
    const outerBytes = bytes[n] + INNER_HEADER_BYTES + OUTER_BYTES;
    const arrivedUs = path.arrivalUs(sentUs[n], outerBytes);
    if (arrivedUs < Infinity) transitUs = arrivedUs - sentUs[n];
    budgetBytes += share * outerBytes;
    const original = {
      sentUs: sentUs[n],
      arrivedUs,
      bytes: bytes[n] + INNER_HEADER_BYTES,
      limitUs: sentUs[n] + transitUs + run.workload.deadlineUs,
    };
    originals.push(original);
    moments.push(original);
  }
  return { originals, moments, budgetBytes };
}

/** The originals with the time from which on a request for each can have reached its sender, over the path of `back`. */
function asked(originals: readonly Original[], back: readonly Carrier[], deadlineUs: number): Original[] {
  const soonestUs = new Float64Array(back.length + 1).fill(Infinity);
  for (let i = back.length - 1; i >= 0; i--) soonestUs[i] = Math.min(soonestUs[i + 1], back[i].arrivedUs);
  let first = 0;
  return originals.map((original) => {
    const expectedUs = original.limitUs - deadlineUs;
    while (first < back.length && back[first].sentUs < expectedUs) first++;
    return { ...original, fromUs: soonestUs[first] };
  });
}

/** The bounds for a budget of `share` times the run's bytes without repair, each direction by itself. */
export function boundOf(run: Run, share: number): Bound {
  const both = { up: momentsOf(run, "up", share), down: momentsOf(run, "down", share) };
  let count = 0, riding = 0, alone = 0, asking = 0;
  for (const direction of ["up", "down"] as const) {
    const { originals, moments, budgetBytes } = both[direction];
    const back = both[direction === "up" ? "down" : "up"].moments;
    count += originals.length;
    riding += leastLost(originals, originals, budgetBytes);
    alone += leastLost(originals, moments, budgetBytes);
    asking += leastLost(asked(originals, back, run.workload.deadlineUs), moments, budgetBytes);
  }
  return { riding: riding / count, alone: alone / count, asking: asking / count };
}

/**
 * The least share of bytes that stay lost where each datagram is lost by itself with the chance `lossRate`, and the sender learns of it too
 * late: a byte of repair brings back a byte at most, and none unless a datagram that it may still repair in time was lost and it
 * came itself. For repairs that ride in later datagrams of a steady stream.
 */
export function blindBound({ up, down, deadlineUs }: Workload, share: number, lossRate: number): number {
  let packets = 0, lost = 0;
  for (const { packetsPerSecond, bytesMin, bytesMax } of [up, down]) {
    const innerBytes = (bytesMin + bytesMax) / 2 + INNER_HEADER_BYTES;
    const within = Math.floor(deadlineUs * packetsPerSecond / 1e6);
    const useful = (1 - lossRate) * (1 - (1 - lossRate) ** within);
    packets += packetsPerSecond;
    lost += packetsPerSecond *
      Math.max(0, lossRate - share * (innerBytes + OUTER_BYTES) / innerBytes * useful);
  }
  return lost / packets;
}
