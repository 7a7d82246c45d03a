/**
 * How few packets could be lost at all: what is left for someone who knows beforehand what the path will lose and spends a budget
 * on copies of just that. Invariant: no repair scheme that sends its repairs in the datagrams named here loses fewer, for
 * one packet more costs at least its bytes and must come in time. Makes no repairs.
 */

/** What may carry a copy; times in microseconds, arrival Infinity where it would be lost. */
export interface Carrier {
  sentUs: number;
  arrivedUs: number;
}

export interface Original extends Carrier {
  /** What a copy of it costs. */
  bytes: number;
  /** A copy that comes later than this is of no use. */
  limitUs: number;
  /** No copy leaves before; as soon as the original has left where absent. */
  fromUs?: number;
}

/**
 * The least number of packets that stay lost when copies may ride in any number in `carriers`, in the order of their sending, that
 * leave later than the original, and cost `budgetBytes` in all. As each copy saves one packet, the cheapest go first.
 */
export function leastLost(
  originals: readonly Original[],
  carriers: readonly Carrier[],
  budgetBytes: number,
): number {
  // The earliest arrival of all that leave from here on.
  const soonestUs = new Float64Array(carriers.length + 1).fill(Infinity);
  for (let i = carriers.length - 1; i >= 0; i--) {
    soonestUs[i] = Math.min(soonestUs[i + 1], carriers[i].arrivedUs);
  }
  const costs: number[] = [];
  let lost = 0;
  for (const { sentUs, arrivedUs, limitUs, bytes, fromUs = -Infinity } of originals) {
    if (arrivedUs <= limitUs) continue;
    lost++;
    if (soonestUs[firstFrom(carriers, sentUs, fromUs)] <= limitUs) costs.push(bytes);
  }
  let left = budgetBytes;
  for (const cost of costs.sort((a, b) => a - b)) {
    if (cost > left) break;
    left -= cost;
    lost--;
  }
  return lost;
}

/** The first carrier that leaves later than `sentUs` and not before `fromUs`. */
function firstFrom(carriers: readonly Carrier[], sentUs: number, fromUs: number): number {
  let low = 0, high = carriers.length;
  while (low < high) {
    const middle = (low + high) >> 1, us = carriers[middle].sentUs;
    if (us > sentUs && us >= fromUs) high = middle;
    else low = middle + 1;
  }
  return low;
}
