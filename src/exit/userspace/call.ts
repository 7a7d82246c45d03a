/**
 * One TCP connection of a dialler: waits for TCP's state of a call and moves data. Invariant: every waiter is
 * woken when the state changes or this end closes the call, and a call that is closed stays closed. Moves no packet.
 */
import type { DialKernel } from "./dial_kernel.ts";
import type { IcmpReason } from "../../wire/icmp_error.ts";

/** One end of a connection through the tunnel. */
export interface TunnelConnection {
  /** Its local port in the tunnel. */
  readonly port: number;
  /** Waits for data and reads it; null at the end. Throws when the connection broke. */
  read(into: Uint8Array<ArrayBuffer>): Promise<number | null>;
  /** Writes all of the data, waiting for room. Throws when the connection broke. */
  write(data: Uint8Array<ArrayBuffer>): Promise<void>;
  /** Ends the sending direction. */
  finish(): void;
  /** Ends both directions. Safe to call twice. */
  close(): void;
}

// The flags that ox_dial_state returns.
const OPEN = 1, READABLE = 2, WRITABLE = 4, ENDED = 8, OVER = 16;

/** Why a connection was not made or did not last. */
export type DialReason = Exclude<IcmpReason, "too_big"> | "timeout" | "full" | "broken";

export class DialError extends Error {
  override readonly name = "DialError";
  constructor(readonly reason: DialReason, message: string) {
    super(message);
  }
}

const ICMP_SAYS: Record<Exclude<IcmpReason, "too_big">, string> = {
  unreachable: "there is no way to its network",
  no_host: "no such host can be reached",
  refused: "it refuses",
  forbidden: "the relay, or a firewall on the way, forbids it",
  expired: "the way there is a loop, or too long",
};

/** A call, by its port. */
export class Call implements TunnelConnection {
  readonly #tcp: DialKernel;
  /** TCP knows a call by its port. */
  readonly #id: number;
  readonly #far: Uint32Array;
  readonly #farPort: number;
  readonly #stir: () => void;
  readonly #forget: () => void;
  #waiting: (() => void)[] = [];
  #hasEnded = false;
  #closed = false;
  #failure: keyof typeof ICMP_SAYS | undefined;

  constructor(
    tcp: DialKernel,
    id: number,
    far: Uint32Array,
    farPort: number,
    stir: () => void,
    forget: () => void,
  ) {
    this.#tcp = tcp;
    this.#id = id;
    this.#far = far;
    this.#farPort = farPort;
    this.#stir = stir;
    this.#forget = forget;
  }

  get port(): number {
    return this.#id;
  }

  /** Called when the call's state has changed. */
  news(): void {
    for (const wake of this.#waiting.splice(0)) wake();
  }

  /** Whether the call is to this address and port. */
  isTo(address: Uint32Array, port: number): boolean {
    return port === this.#farPort && this.#far.every((word, i) => word === address[i]);
  }

  /** ICMP reported an undelivered packet of the call: only a call that is not open yet fails (RFC 5461). */
  fail(reason: keyof typeof ICMP_SAYS): void {
    this.#failure ??= reason;
    this.news();
  }

  /** Waits until the call is open, at most `withinMs` milliseconds; `what` names the far end. Throws DialError. */
  async opened(withinMs: number, what: string): Promise<void> {
    const endMs = performance.now() + withinMs;
    const timer = setTimeout(() => this.news(), withinMs);
    try {
      for (;;) {
        const state = this.#state();
        if ((state & OPEN) !== 0) return;
        const failure = this.#failure;
        if (failure !== undefined) throw new DialError(failure, `${what}: ${ICMP_SAYS[failure]}`);
        if (this.#closed) throw new DialError("broken", `${what}: the connection attempt was cancelled`);
        if ((state & OVER) !== 0) throw new DialError("refused", `${what} refuses connections`);
        if (performance.now() >= endMs) throw new DialError("timeout", `${what} does not answer`);
        await this.#next();
      }
    } finally {
      clearTimeout(timer);
    }
  }

  async read(into: Uint8Array<ArrayBuffer>): Promise<number | null> {
    for (;;) {
      const state = this.#state();
      if ((state & READABLE) !== 0) {
        const count = this.#tcp.read(this.#id, into);
        this.#stir(); // the window may have opened
        if (count > 0) return count;
      }
      if ((state & ENDED) !== 0) this.#hasEnded = true;
      if (this.#hasEnded) return null;
      if ((state & OVER) !== 0) throw new DialError("broken", "the connection broke");
      await this.#next();
    }
  }

  async write(data: Uint8Array<ArrayBuffer>): Promise<void> {
    for (let written = 0; written < data.length;) {
      const state = this.#state();
      if ((state & OVER) !== 0) throw new DialError("broken", "the connection broke");
      if ((state & WRITABLE) !== 0) {
        const rest = data.subarray(written);
        const count = this.#tcp.write(this.#id, rest);
        if (count < 0) throw new DialError("broken", "the connection broke");
        written += count;
        this.#stir();
        if (count > 0) continue;
      }
      await this.#next();
    }
  }

  finish(): void {
    if (this.#closed) return;
    this.#tcp.finish(this.#id);
    this.#stir();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#tcp.release(this.#id);
    this.#forget();
    this.news();
    this.#stir();
  }

  /** The state flags; over for a call that was closed at this end or is unknown to the library. */
  #state(): number {
    if (this.#closed) return OVER;
    const state = this.#tcp.state(this.#id);
    return state < 0 ? OVER : state;
  }

  #next(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }
}
