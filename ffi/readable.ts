/**
 * Waits off the event loop until a descriptor polls readable, and says so. Invariant: after it has called back it waits
 * for `taken` before it polls again, so that what nobody reads does not spin. Reads nothing itself.
 */
import { libc, POLLERR, POLLHUP, POLLIN, POLLNVAL } from "./mod.ts";

/** A wait ends after this long, so that `close` is not held up. */
const POLL_MS = 200;

export class Readable {
  readonly #watching: Promise<void>;
  #resume: (() => void) | undefined;
  #closed = false;

  /** Begins to wait at once. The descriptor stays the caller's, and open until `close` has resolved. */
  constructor(descriptor: number, wake: () => void) {
    this.#watching = this.#watch(descriptor, wake);
  }

  /** What the last call back announced has been read. */
  taken(): void {
    this.#resume?.();
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#resume?.();
    await this.#watching;
  }

  async #watch(descriptor: number, wake: () => void): Promise<void> {
    const entry = new Uint8Array(8);
    const view = new DataView(entry.buffer);
    while (!this.#closed) {
      view.setInt32(0, descriptor, true);
      view.setInt16(4, POLLIN, true);
      view.setInt16(6, 0, true);
      const ready = await libc().poll(entry, 1n, POLL_MS);
      if (ready <= 0 || this.#closed) continue;
      if ((view.getInt16(6, true) & (POLLERR | POLLHUP | POLLNVAL)) !== 0) {
        // Broken: ready for ever.
        await new Promise((resolve) => setTimeout(resolve, POLL_MS));
        continue;
      }
      const taken = new Promise<void>((resolve) => this.#resume = resolve);
      wake();
      await taken;
      this.#resume = undefined;
    }
  }
}
