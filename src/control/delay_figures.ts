/**
 * Counts of delays (delays.ts) as people read them: median and 99th percentile. Invariant: counts of several threads add up. Keeps
 * nothing.
 */
import { BUCKETS, type DelayCounts } from "./delays.ts";

/** Percentiles of some delays, in milliseconds. */
export interface DelayFigures {
  p50Ms: number;
  p99Ms: number;
}

/** The sum of several subjects' counts. */
export function addDelays(some: readonly DelayCounts[]): DelayCounts {
  return Array.from({ length: BUCKETS }, (_, i) => some.reduce((sum, counts) => sum + (counts[i] ?? 0), 0));
}

/** The median and the 99th percentile; undefined where less than one delay was counted. */
export function delayFigures(counts: DelayCounts): DelayFigures | undefined {
  const all = counts.reduce((sum, count) => sum + count, 0);
  return all < 1 ? undefined : { p50Ms: quantile(counts, 0.5 * all), p99Ms: quantile(counts, 0.99 * all) };
}

/** Within a bucket, delays are taken to be spread evenly. */
function quantile(counts: DelayCounts, rank: number): number {
  let below = 0;
  for (let i = 0; i < BUCKETS; i++) {
    if (counts[i] > 0 && below + counts[i] >= rank) {
      const from = boundUs(i), to = boundUs(i + 1);
      return Math.round(10 * (from + (to - from) * (rank - below) / counts[i])) / 1e4;
    }
    below += counts[i];
  }
  return boundUs(BUCKETS) / 1000;
}

/** Where the bucket begins. Delays below a microsecond are in the first one. */
function boundUs(bucket: number): number {
  if (bucket < 2) return bucket === 0 ? 0 : 2;
  return 2 ** (bucket >> 1) * (1 + (bucket & 1) / 2);
}
