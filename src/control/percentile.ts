/**
 * Percentiles of a sample by the nearest rank, as RFC 2330 section 11.3 has the empirical distribution. Keeps nothing.
 */

/** The least value that at least the share `rank` (0 to 1) of `values` does not exceed; NaN of none. */
export function percentile(values: readonly number[], rank: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted.length === 0 ? NaN : sorted[Math.max(0, Math.ceil(rank * sorted.length) - 1)];
}
