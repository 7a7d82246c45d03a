/**
 * A bell: a descriptor (eventfd) by which one thread wakes another that waits in poll(2). Invariant: it polls readable
 * from the first ring until it is cleared, however often it rang. Says nothing about why.
 */
import { libc, O_CLOEXEC, O_NONBLOCK } from "../../ffi/mod.ts";

/** What an eventfd is written and read by: a 64-bit count. */
const ONE = new Uint8Array(new BigUint64Array([1n]).buffer);
const count = new Uint8Array(8);

/**
 * The descriptors of `count` new bells, which any thread of the process may ring. Throws, with none left open, when the
 * process may have no more descriptors.
 */
export function openBells(count: number): number[] {
  const bells = Array.from({ length: count }, () => libc().eventfd(0, O_CLOEXEC | O_NONBLOCK));
  if (!bells.some((fd) => fd < 0)) return bells;
  closeBells(bells.filter((fd) => fd >= 0));
  throw new Error("no file descriptor is left to wake a Worker by; raise ulimit -n");
}

export function closeBells(bells: readonly number[]): void {
  for (const fd of bells) libc().close(fd);
}

export function ringBell(bell: number): void {
  libc().write(bell, ONE, 8n);
}

/** To be called by who was woken, before it looks for what it was woken for: what comes from here on rings again. */
export function clearBell(bell: number): void {
  libc().read(bell, count, 8n);
}
