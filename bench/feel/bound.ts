/**
 * The least loss that perfect knowledge of a path allows for a run's packets at a share of extra bytes, by oracle.ts over a replay of
 * the run's paths. Two bounds: for copies that only ride in the game's own later datagrams, and for copies that may leave at any
 * millisecond in datagrams of their own, whose headers cost nothing. Invariant: the second is no larger. Runs no tunnel.
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
}

/** The bounds for a budget of `share` times the run's bytes without repair, each direction by itself. */
export function boundOf(run: Run, share: number): Bound {
  const packets = packetsOfRun(run), paths = pathsOfRun(run);
  let count = 0, riding = 0, alone = 0;
  for (const direction of ["up", "down"] as const) {
    const { sentUs, bytes } = packets[direction], path = paths[direction];
    const originals: Original[] = [], moments: Carrier[] = [];
    let probeUs = sentUs[0], budget = 0, transitUs = 0;
    for (let n = 0; n < sentUs.length; n++) {
      for (; probeUs < sentUs[n]; probeUs += PROBE_US) {
        moments.push({ sentUs: probeUs, arrivedUs: path.arrivalUs(probeUs, 0) });
      }
      const outerBytes = bytes[n] + INNER_HEADER_BYTES + OUTER_BYTES;
      const arrivedUs = path.arrivalUs(sentUs[n], outerBytes);
      if (arrivedUs < Infinity) transitUs = arrivedUs - sentUs[n];
      budget += share * outerBytes;
      const original = {
        sentUs: sentUs[n],
        arrivedUs,
        bytes: bytes[n] + INNER_HEADER_BYTES,
        limitUs: sentUs[n] + transitUs + run.workload.deadlineUs,
      };
      originals.push(original);
      moments.push(original);
    }
    count += originals.length;
    riding += leastLost(originals, originals, budget);
    alone += leastLost(originals, moments, budget);
  }
  return { riding: riding / count, alone: alone / count };
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
