/**
 * The process's file descriptors (RLIMIT_NOFILE), divided before anybody takes one: what the relay cannot do without is set
 * aside, connections to the admin interface get a few, and the flows of the userspace exits get the rest. Invariant: the
 * descriptors that outsiders can make the relay open never add up to more than there are. Opens nothing.
 */
import { libc } from "../../ffi/mod.ts";
import { numbersIn } from "../process/proc.ts";

const RLIMIT_NOFILE = 7;
/** Beyond what any flow limit needs; some systems say "unlimited". */
const DESCRIPTORS_MAX = 1 << 20;
/** What a Worker opens for itself (its event loop, rings, timers, ping sockets), with some to spare. */
const OF_A_WORKER = 14;
/** Files read at a reload, and a child program with its pipes. */
const FOR_A_MOMENT = 10;
/** Connections of the fallback, of those that there are: a quarter. */
const FALLBACK_SHARE = 1 / 4, ADMIN_SHARE = 1 / 16;
const ADMIN_MIN = 4, ADMIN_MAX = 64;
const FLOWS_MIN = 4;

/** Connections of the fallback, proven or not, that a process with `limit` descriptors may have. */
export function fallbackShare(limit: number): number {
  return Math.floor(limit * FALLBACK_SHARE);
}

export interface DescriptorShares {
  /** Connections to the admin interface at once. */
  readonly adminConnections: number;
  /** Flows of UDP, and as many of TCP, that each Worker's userspace exit may have. */
  readonly flowsOfWorker: number;
}

/**
 * How many the process may have, which Deno raises at start to what the system allows; undefined where the C library
 * cannot be asked, which leaves everybody's own limits.
 */
export function descriptorLimit(): number | undefined {
  try {
    const limit = new BigUint64Array(2); // rlim_cur, rlim_max
    if (libc().getrlimit(RLIMIT_NOFILE, new Uint8Array(limit.buffer)) !== 0) return undefined;
    return Number(limit[0] < BigInt(DESCRIPTORS_MAX) ? limit[0] : DESCRIPTORS_MAX);
  } catch {
    return undefined; // another C library, or no FFI
  }
}

/** How many descriptors the process has open now. */
export function openDescriptors(): number {
  return numbersIn("/proc/self/fd", DESCRIPTORS_MAX).length;
}

/**
 * Divides the descriptors that a process may have: `limit` in all, of which `open` are taken. Each share has at least the number
 * that makes its use possible; `isTight` says that some share has no more than that.
 */
export function shareDescriptors(
  { limit, open, workers, hasFallback }: {
    limit: number;
    open: number;
    workers: number;
    hasFallback: boolean;
  },
): DescriptorShares & { isTight: boolean } {
  const adminConnections = Math.min(ADMIN_MAX, Math.max(ADMIN_MIN, Math.floor(limit * ADMIN_SHARE)));
  const reserved = open + workers * OF_A_WORKER + FOR_A_MOMENT + adminConnections +
    (hasFallback ? fallbackShare(limit) : 0);
  const flows = Math.floor((limit - reserved) / (2 * workers));
  return { adminConnections, flowsOfWorker: Math.max(FLOWS_MIN, flows), isTight: flows < FLOWS_MIN };
}
