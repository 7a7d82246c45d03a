/**
 * Waits for any of several descriptors in ppoll(2), holding up its thread. Invariant: a set keeps the places of the list
 * that it was made with, and a place without a descriptor is never ready. Reads nothing.
 */
import { libc, POLLIN } from "../../ffi/mod.ts";
import type { WaitSet } from "./port.ts";

// struct pollfd: descriptor, events asked for, events that came
const ENTRY_BYTES = 8, EVENTS_AT = 4, REVENTS_AT = 6;
/** What poll(2) passes over. */
const NOTHING = -1;

/** A WaitSet over descriptors alone, by their places in the list. */
export class PollSet implements WaitSet {
  readonly #entries: Uint8Array<ArrayBuffer>;
  readonly #view: DataView<ArrayBuffer>;
  readonly #count: bigint;
  readonly #timespec = new BigInt64Array(2);
  readonly #timespecBytes = new Uint8Array(this.#timespec.buffer);

  constructor(descriptors: readonly (number | undefined)[]) {
    this.#entries = new Uint8Array(ENTRY_BYTES * descriptors.length);
    this.#view = new DataView(this.#entries.buffer);
    this.#count = BigInt(descriptors.length);
    descriptors.forEach((descriptor, place) => {
      this.#view.setInt32(ENTRY_BYTES * place, descriptor ?? NOTHING, true);
      this.#view.setInt16(ENTRY_BYTES * place + EVENTS_AT, POLLIN, true);
    });
  }

  /**
   * Waits `ms` milliseconds at most, rounded up to microseconds; 0 looks and does not wait. Returns how many places are
   * ready.
   */
  wait(ms: number): number {
    const us = Math.ceil(ms * 1000);
    this.#timespec[0] = BigInt(Math.floor(us / 1e6));
    this.#timespec[1] = BigInt(us % 1e6 * 1000);
    return Math.max(0, libc().ppollBlocking(this.#entries, this.#count, this.#timespecBytes, null));
  }

  /** Whether the last wait found something at this place: data, or an error that a read will tell. */
  isReady(place: number): boolean {
    return this.#view.getInt16(ENTRY_BYTES * place + REVENTS_AT, true) !== 0;
  }
}

/** Gives the processor away for a millisecond. */
export function nap(): void {
  new PollSet([]).wait(1);
}
