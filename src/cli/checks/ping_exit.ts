/**
 * The exit of a tunnel that only pings: its packets are echo requests, and of what arrives it takes the replies. Invariant: what is
 * no reply to one of its requests is dropped. Reads no clock.
 */
import type { Exit } from "../../exit/exit.ts";
import { Pings } from "../../ingress/mod.ts";
import { type Burst, DONE, TO_EXIT } from "../../vector/burst.ts";
import { type Address, isIpv4 } from "../../wire/address.ts";

/** The relay, which is the one peer of a client. */
const RELAY = 0;

export class PingExit implements Exit {
  readonly name = "ping";
  readonly description = "ping: echo requests of its own";
  readonly flowCount = 0;
  readonly #pings: Pings;
  readonly #own4: Address | undefined;
  readonly #own6: Address | undefined;
  #wake: () => void = () => {};

  /** @param own this device's inner addresses; @param randomWord gives a fresh u32. */
  constructor(own: readonly Address[], randomWord: () => number) {
    this.#own4 = own.find((address) => isIpv4(address));
    this.#own6 = own.find((address) => !isIpv4(address));
    this.#pings = new Pings(randomWord);
  }

  /** Whether this device has an address of the target's family to ask from. */
  reaches(target: Address): boolean {
    return (isIpv4(target) ? this.#own4 : this.#own6) !== undefined;
  }

  /** Asks for an echo; returns the request's name for `roundTripUs`. */
  ask(target: Address): number {
    const request = this.#pings.ask(RELAY, target, !isIpv4(target));
    this.#wake();
    return request;
  }

  /** Microseconds until the reply; -1 while there is none. */
  roundTripUs(request: number): number {
    return this.#pings.roundTripUs(request);
  }

  receive(burst: Burst, nowUs: number): number {
    return this.#pings.emit(burst, this.#own4 ?? new Uint32Array(4), this.#own6, nowUs);
  }

  send({ count, next, view, offset, length }: Burst, nowUs: number): void {
    for (let row = 0; row < count; row++) {
      if (next[row] !== TO_EXIT) continue;
      next[row] = DONE;
      this.#pings.take(view, offset[row], length[row], RELAY, nowUs);
    }
  }

  onReadable(wake: () => void): void {
    this.#wake = wake;
  }

  handleTimeout(): void {}

  close(): Promise<void> {
    return Promise.resolve();
  }
}
