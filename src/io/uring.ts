/**
 * The port over io_uring (ffi/src/uring.rs): the kernel fills buffers as datagrams arrive. Invariant and limits are
 * those of native_udp.ts; besides, only the thread that made it may use it.
 */
import type { Native } from "../../ffi/native.ts";
import { NativePort, type NativePortOptions, UNDEFERRED, URING } from "./native_udp.ts";

const LOOPBACK = new TextEncoder().encode("127.0.0.1");
const REASONS: Record<number, string> = {
  1: "it is forbidden here, by kernel.io_uring_disabled or a seccomp filter (errno 1)",
  12: "the kernel has no memory for it (errno 12)",
  22: "the kernel is older than 6.0 (errno 22)",
  38: "the kernel has no io_uring (errno 38)",
};

export interface UringPortOptions extends NativePortOptions {
  /** Whether the kernel does its part only when asked, where it can (Linux 6.1). */
  deferred?: boolean;
}

export class UringPort extends NativePort {
  constructor({ deferred = true, ...options }: UringPortOptions) {
    super("io_uring", deferred ? URING : URING | UNDEFERRED, options);
  }
}

/** Why io_uring does not run here, as a sentence without a full stop; undefined where it does. */
export function uringObstacle(native: Native): string | undefined {
  const result = native.ox_udp_open(LOOPBACK, LOOPBACK.length, 0, URING);
  if (result < 0) return REASONS[-result] ?? `it fails with errno ${-result}`;
  native.ox_udp_close(result);
}
