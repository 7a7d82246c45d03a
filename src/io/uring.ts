/**
 * The port over io_uring (ffi/src/port/uring.rs): the kernel fills buffers as datagrams arrive, and the port's ring is what a
 * thread waits in, for others' descriptors too. Invariant and limits are those of native_udp.ts; besides, only the thread that
 * made it may use it.
 */
import { checked, type Native } from "../../ffi/native.ts";
import { NativePort, type NativePortOptions, UNDEFERRED, URING } from "./native_udp.ts";
import type { PortWait, WaitSet, Watched } from "./port.ts";

/** Bit of ox_port_wait. */
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
  override readonly wait: PortWait = { by: "port", join: (others) => this.join(others) };

  constructor({ deferred = true, ...options }: UringPortOptions) {
    super("io_uring", deferred ? URING : URING | UNDEFERRED, options);
    this.#native = options.native;
  }

  /** The wait in its ring, as PortWait has it. Throws an Error with the errno for more than eight others. */
  join(others: readonly (Watched | undefined)[]): RingWait {
    return new RingWait(this.#native, this.handle, others);
  }
}

/**
 * Waits in a port's ring, to the microsecond; a look without waiting is no system call unless there is news. Reads others'
 * TUN devices ahead where the kernel can (Linux 6.7).
 */
export class RingWait implements WaitSet {
  readonly #native: Native;
  readonly #port: number;
  /** By place. */
  readonly #bits: readonly number[];
  readonly #isReadAhead: readonly boolean[];
  #ready = 0;

  constructor(native: Native, port: number, others: readonly (Watched | undefined)[]) {
    this.#native = native;
    this.#port = port;
    const isRead = ({ device }: Watched) => device !== undefined && native.ox_tun_read_by(device, port) === 0;
    this.#isReadAhead = [false, ...others.map((other) => other !== undefined && isRead(other))];
    // What is read ahead is told by the bit of reading.
    const watch = ({ descriptor }: Watched) =>
      checked(native.ox_port_watch(port, descriptor), "ox_port_watch");
    this.#bits = [PORT_READY, ...others.map((other) => other === undefined ? 0 : watch(other))];
  }

  wait(ms: number): number {
    const us = Math.ceil(ms * 1000);
    return this.#ready = checked(this.#native.ox_port_wait(this.#port, us), "ox_port_wait");
  }

  /** What was read ahead since the wait shows in no descriptor, so such a place counts as ready always. */
  isReady(place: number): boolean {
    return this.#isReadAhead[place] || (this.#ready & this.#bits[place]) !== 0;
  }

  /** Whether the ring reads the device at this place. */
  isReadAhead(place: number): boolean {
    return this.#isReadAhead[place];
  }
}

/** Why io_uring does not run here, as a sentence without a full stop; undefined where it does. */
export function uringObstacle(native: Native): string | undefined {
  const result = native.ox_udp_open(LOOPBACK, LOOPBACK.length, 0, URING);
  if (result < 0) return REASONS[-result] ?? `it fails with errno ${-result}`;
  native.ox_port_close(result);
}
