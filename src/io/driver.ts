/**
 * The driver: the only loop and the only clock of a data plane. It carries bursts between port, core and exit
 * whenever one of them has something, and runs the core's timers. Invariant: it never waits to fill a burst, and
 * every slot that it is given is released or handed over in the same turn.
 */
import { setImmediate } from "node:timers";
import { libc, POLLIN } from "../../ffi/mod.ts";
import type { Exit } from "../exit/exit.ts";
import type { Metrics } from "../metrics.ts";
import type { Arena } from "../vector/arena.ts";
import { Burst, TO_TRANSMIT } from "../vector/burst.ts";
import type { Mailbox } from "./mailbox.ts";
import type { Port } from "./port.ts";

/** The core's verbs, as relay and client have them. */
export interface Core {
  ingest(burst: Burst, nowUs: number): void;
  ingestInner(burst: Burst, nowUs: number): void;
  pollTransmit(burst: Burst, nowUs: number): number;
  pollTimeout(): number;
  handleTimeout(nowUs: number): void;
  setWallClock(unixOffsetUs: number): void;
}

/** Bursts carried before the event loop gets a turn. */
const ROUNDS_MAX = 8;
/** In a thread of its own the driver waits in the kernel, and the event loop gets a turn this often for its timers. */
const WAIT_MS = 500;
/** Without a bell messages wait for this. */
const BELLLESS_WAIT_MS = 50;
const EMPTY_WAKES_MAX = 2;
/**
 * Where something follows within so many microseconds after nothing was there, as a rule, the driver looks again for up
 * to twice that time before it sleeps: a wake costs more. What comes more slowly never makes it spin.
 */
const SPIN_US = 40;
const GAP_US_MAX = 1000;
/** The loop turns at least this often, so that a reader of `loop_beats` can tell idle from stalled. */
const BEAT_MS = 250;
const HOUSEKEEPING_US = 1_000_000;

/** Microseconds of the monotonic clock. */
export function monotonicUs(): number {
  return performance.now() * 1000;
}

/** What to add to the monotonic clock to get microseconds since 1970. */
export function wallClockOffsetUs(): number {
  return Date.now() * 1000 - monotonicUs();
}

export class Driver {
  readonly #burst: Burst;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #timerDueUs = Infinity;
  #beat: ReturnType<typeof setInterval> | undefined;
  #lastHousekeepingUs = -Infinity;
  #running = false;
  #again = false;
  #stopped = false;
  #loop: Promise<void> | undefined;

  constructor(
    arena: Arena,
    readonly core: Core,
    readonly port: Port,
    readonly exit: Exit,
    readonly metrics: Metrics,
    /** What other Workers hand over; absent where there are none. */
    readonly mailbox?: Mailbox,
  ) {
    this.#burst = new Burst(arena);
  }

  /** Starts carrying. Returns at once. Where port and exit both have descriptors, this thread waits for nothing else. */
  start(): void {
    const { descriptor: outer } = this.port, { descriptor: inner } = this.exit;
    if (outer !== undefined && inner !== undefined) {
      this.#running = true; // a wake by the event loop has nothing to do here
      this.#loop = this.#waitAndCarry(outer, inner);
      return;
    }
    const wake = () => this.turn();
    this.port.onReadable(wake);
    this.exit.onReadable(wake);
    this.mailbox?.onReadable(wake);
    this.#beat = setInterval(wake, BEAT_MS);
    this.turn();
  }

  /** Carries no more once the returned promise has resolved. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearInterval(this.#beat);
    clearTimeout(this.#timer);
    await this.#loop;
  }

  /** Blocks this thread in poll(2) whenever there is nothing to carry: no thread is woken to wake another. */
  async #waitAndCarry(outer: number, inner: number): Promise<void> {
    const descriptors = [outer, inner, ...(this.mailbox ? [this.mailbox.descriptor] : [])];
    const entries = new Uint8Array(8 * descriptors.length);
    const view = new DataView(entries.buffer);
    descriptors.forEach((descriptor, i) => {
      view.setInt32(8 * i, descriptor, true);
      view.setInt16(8 * i + 4, POLLIN, true);
    });
    const waiting = BigInt(descriptors.length);
    const { pollBlocking } = libc();
    const waitMs = this.mailbox ? WAIT_MS : BELLLESS_WAIT_MS;
    let emptyWakes = 0;
    /** When nothing was left, and how long that lasts on the average of late. */
    let idleSinceUs = -1, gapUs = GAP_US_MAX;
    while (!this.#stopped) {
      const endMs = performance.now() + waitMs;
      let called = false;
      for (let nowMs = 0; nowMs < endMs && !this.#stopped; nowMs = performance.now()) {
        called = this.mailbox?.takeBell() ?? false;
        if (called) break;
        this.metrics.add("loop_beats", 1);
        if (this.#carry()) {
          emptyWakes = 0;
          if (idleSinceUs >= 0) gapUs += (Math.min(GAP_US_MAX, monotonicUs() - idleSinceUs) - gapUs) / 8;
          idleSinceUs = -1;
          continue;
        }
        if (idleSinceUs < 0) idleSinceUs = monotonicUs();
        if (gapUs < SPIN_US && monotonicUs() - idleSinceUs < 2 * gapUs) continue;
        const dueMs = Math.min(this.core.pollTimeout() / 1000, endMs) - performance.now();
        if (dueMs <= 0 || pollBlocking(entries, waiting, Math.ceil(dueMs)) <= 0) continue;
        if (view.getInt16(8 * descriptors.length - 2, true) !== 0) this.mailbox?.clear();
        // A device that is gone, or an arena without a free slot: ready for ever, and nothing to carry.
        if (++emptyWakes > EMPTY_WAKES_MAX) pollBlocking(entries, 0n, 1);
      }
      // A message arrives with a turn that lets the runtime wait; one for timers alone costs a tenth of that.
      await new Promise<void>((resolve) => called ? setTimeout(resolve, 0) : setImmediate(resolve));
    }
  }

  /** Carries what is there. A wake from inside a turn makes another round instead of a nested one. */
  turn(): void {
    if (this.#stopped) return;
    if (this.#running) {
      this.#again = true;
      return;
    }
    this.#running = true;
    let rounds = 0;
    do {
      this.#again = false;
      if (this.#carry()) this.#again = true;
    } while (this.#again && ++rounds < ROUNDS_MAX);
    this.#running = false;
    this.metrics.add("loop_beats", 1);
    if (this.#again) setTimeout(() => this.turn(), 0);
    this.#armTimer();
  }

  /** One round in each direction; whether there may be more at once. */
  #carry(): boolean {
    const { core, port, exit } = this;
    const burst = this.#burst;
    let busy = false;

    let nowUs = monotonicUs();
    if (port.receive(burst) > 0) {
      busy = true;
      this.#ingest(nowUs);
    }
    if (this.mailbox !== undefined && this.mailbox.receive(burst) > 0) {
      busy = true;
      this.#ingest(nowUs);
    }

    nowUs = monotonicUs();
    if (exit.receive(burst, nowUs) > 0) {
      busy = true;
      core.ingestInner(burst, nowUs);
      this.#transmit(burst);
      this.mailbox?.send(burst);
      burst.release();
    }

    if (nowUs - this.#lastHousekeepingUs >= HOUSEKEEPING_US) {
      this.#lastHousekeepingUs = nowUs;
      core.setWallClock(wallClockOffsetUs());
      core.handleTimeout(nowUs);
      exit.handleTimeout(nowUs);
      this.metrics.set("exit_flows", exit.flowCount);
    } else if (core.pollTimeout() <= nowUs) {
      core.handleTimeout(nowUs);
    }
    while (core.pollTransmit(burst, nowUs) > 0) {
      this.#transmit(burst);
      burst.release();
    }
    return busy;
  }

  /** What came from the port or from another Worker, to where it goes. */
  #ingest(nowUs: number): void {
    const { core, exit } = this;
    const burst = this.#burst;
    core.ingest(burst, nowUs);
    exit.send(burst, nowUs);
    core.ingestInner(burst, nowUs); // what the exit refused and turned around
    this.#transmit(burst);
    this.mailbox?.send(burst);
    burst.release();
  }

  #transmit(burst: Burst): void {
    const { count, next, length } = burst;
    let datagrams = 0, bytes = 0;
    for (let row = 0; row < count; row++) {
      if (next[row] !== TO_TRANSMIT) continue;
      datagrams++;
      bytes += length[row];
    }
    this.metrics.add("datagrams_sent", datagrams);
    this.metrics.add("bytes_sent", bytes);
    this.port.transmit(burst);
  }

  #armTimer(): void {
    const dueUs = this.core.pollTimeout();
    if (dueUs === this.#timerDueUs) return;
    clearTimeout(this.#timer);
    this.#timerDueUs = dueUs;
    const delayMs = Math.ceil((dueUs - monotonicUs()) / 1000);
    // The beat covers what lies beyond it.
    if (delayMs > BEAT_MS) {
      this.#timerDueUs = Infinity;
      return;
    }
    this.#timer = setTimeout(() => {
      this.#timerDueUs = Infinity;
      this.turn();
    }, Math.max(0, delayMs));
  }
}
