/**
 * The port over io_uring (ffi/src/uring.rs): the kernel fills buffers as datagrams arrive, and its ring is what a thread
 * waits in, for others' descriptors too. Invariant and limits are those of native_udp.ts; besides, only the thread that
 * made it may use it.
 */
import { checked, type Native } from "../../ffi/native.ts";
import { NativePort, type NativePortOptions, UNDEFERRED, URING } from "./native_udp.ts";
import type { WaitSet } from "./poll.ts";

/** Bit of ox_udp_wait. */
const PORT_READY = 1;
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
  readonly #native: Native;

  constructor({ deferred = true, ...options }: UringPortOptions) {
    super("io_uring", deferred ? URING : URING | UNDEFERRED, options);
    this.#native = options.native;
  }

  get ring(): number {
    return this.handle;
  }

  /** Throws an Error with the errno when there are more than eight. */
  waitWith(others: readonly (number | undefined)[]): WaitSet {
    return new RingWait(this.#native, this.handle, others);
  }
}

/** Waits in a port's ring, to the microsecond; a look without waiting is no system call unless there is news. */
class RingWait implements WaitSet {
  readonly #native: Native;
  readonly #port: number;
  /** By place. */
  readonly #bits: readonly number[];
  #ready = 0;

  constructor(native: Native, port: number, others: readonly (number | undefined)[]) {
    this.#native = native;
    this.#port = port;
    const watch = (fd: number) => checked(native.ox_udp_watch(port, fd), "ox_udp_watch");
    this.#bits = [PORT_READY, ...others.map((fd) => fd === undefined ? 0 : watch(fd))];
  }

  wait(ms: number): number {
    return this.#ready = checked(this.#native.ox_udp_wait(this.#port, Math.ceil(ms * 1000)), "ox_udp_wait");
  }

  isReady(place: number): boolean {
    return (this.#ready & this.#bits[place]) !== 0;
  }
}

/** Why io_uring does not run here, as a sentence without a full stop; undefined where it does. */
export function uringObstacle(native: Native): string | undefined {
  const result = native.ox_udp_open(LOOPBACK, LOOPBACK.length, 0, URING);
  if (result < 0) return REASONS[-result] ?? `it fails with errno ${-result}`;
  native.ox_udp_close(result);
}
