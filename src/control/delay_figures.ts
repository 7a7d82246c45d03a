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

/** Milliseconds. A delay is taken for the middle of its bucket, which is off by a quarter at most. */
function quantile(counts: DelayCounts, rank: number): number {
  let below = 0, bucket = 0;
  for (; bucket < BUCKETS - 1; bucket++) {
    below += counts[bucket];
    if (counts[bucket] > 0 && below >= rank) break;
  }
  return Math.round(5 * (boundUs(bucket) + boundUs(bucket + 1))) / 1e4;
}

/** Where the bucket begins. Delays below a microsecond are in the first one. */
function boundUs(bucket: number): number {
  if (bucket < 2) return bucket === 0 ? 0 : 2;
  return 2 ** (bucket >> 1) * (1 + (bucket & 1) / 2);
}
