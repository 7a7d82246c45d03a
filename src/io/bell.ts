/**
 * A bell: a descriptor (eventfd) by which one thread wakes another that waits in poll(2). Invariant: it polls readable
 * from the first ring until it is cleared, however often it rang. Says nothing about why.
 */
import { libc, O_CLOEXEC, O_NONBLOCK } from "../../ffi/mod.ts";

/** What an eventfd is written and read by: a 64-bit count. */
const ONE = new Uint8Array(new BigUint64Array([1n]).buffer);
const count = new Uint8Array(8);

/** A new bell's descriptor, which any thread of the process may ring; `close` it like any other. Throws when there is none left. */
export function openBell(): number {
  const fd = libc().eventfd(0, O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) throw new Error("no descriptor is left to wake a Worker by");
  return fd;
}

export function ringBell(bell: number): void {
  libc().write(bell, ONE, 8n);
}

/** To be called by who was woken, before it looks for what it was woken for: what comes from here on rings again. */
export function clearBell(bell: number): void {
  libc().read(bell, count, 8n);
}
