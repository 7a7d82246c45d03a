// Hot path.
/**
 * The one way in which bursts go between port, core and exit: the steps of a round, each of which takes what is there and leaves
 * nothing behind. The driver, the simulator, warm-up and the benches carry by it and differ only in when they call which step.
 * Invariant: after each step the burst is empty and every slot was released or handed over. Has no clock of its own and waits for nothing.
 */
import type { Metrics } from "./metrics.ts";
import type { Arena } from "./vector/arena.ts";
import { Burst, BURST_CAPACITY, TO_EXIT, TO_TRANSMIT } from "./vector/burst.ts";

/** Bursts taken from the port, and from the exit, before packets that wait for this thread are carried. */
const DRAIN_BURSTS = 4;
/**
 * One packet goes on for each four taken at least. More would leave what comes in the kernel's queues, whose drops spare no game
 * (tests/sim/turn_queue_test.ts); fewer would take packets mostly to drop them.
 */
const SERVED_OF = 4;

/** The core's verbs, as relay and client have them. */
export interface Core {
  ingest(burst: Burst, nowUs: number): void;
  ingestRest(burst: Burst, nowUs: number): number;
  ingestInner(burst: Burst, nowUs: number): void;
  readonly isBehind: boolean;
  serveExit(burst: Burst, nowUs: number): number;
  serveTunnel(burst: Burst, nowUs: number): number;
  pollTransmit(burst: Burst, nowUs: number): number;
  pollTimeout(): number;
  handleTimeout(nowUs: number): void;
  setWallClock(unixOffsetUs: number): void;
}

/** What a round needs of a port (io/port.ts). */
export interface Outer {
  receive(burst: Burst): number;
  transmit(burst: Burst): void;
}

/** What a round needs of an exit (exit/exit.ts). */
export interface Inner {
  receive(burst: Burst, nowUs: number): number;
  send(burst: Burst, nowUs: number): void;
}

/** What a round needs of the mailbox that joins Workers (io/mailbox.ts). */
export interface Siblings {
  receive(burst: Burst): number;
  send(burst: Burst): void;
}

/** All times are microseconds of the caller's clock and never decrease. */
export class Carrier {
  /** Empty between the steps; whoever has datagrams or packets in memory fills it and calls `ingest` or `ingestInner`. */
  readonly burst: Burst;
  /** Rows that the steps have taken so far, which is a number for the caller to clear. */
  taken = 0;
  /** Whether a step since the caller last cleared this may have left something behind that no descriptor shows. */
  isMore = false;
  /** The time of the last step of a round, microseconds. */
  nowUs = 0;
  /** Whether the last step that took rows left none behind, as far as it knows. */
  #isShort = true;

  constructor(
    arena: Arena,
    readonly core: Core,
    readonly port: Outer,
    readonly exit: Inner,
    readonly metrics: Metrics,
    readonly mailbox?: Siblings,
  ) {
    this.burst = new Burst(arena);
  }

  /**
   * A round in each direction; whether anything was there. Where more came than one round carries, takes what else there is, up to
   * DRAIN_BURSTS from each side, before any of it goes on: it is sorted here instead of waiting unsorted in the kernel. Then a burst
   * each way of what waits goes on, and at least one in SERVED_OF of what was taken. Sends nothing that the core has of its own
   * (`sendDue`).
   * @param startUs the time now. @param clock reads it again.
   */
  round(startUs: number, clock: () => number, isPortReady: boolean, isExitReady: boolean): boolean {
    this.nowUs = startUs;
    const before = this.taken;
    let busy = isPortReady && this.takeOuter(startUs);
    if (this.takeHandedOver(startUs)) busy = true;
    if (busy && isExitReady) this.nowUs = clock(); // a full burst takes a while
    if (isExitReady && this.takeInner(this.nowUs)) busy = true;
    if (!this.core.isBehind) return busy;
    this.nowUs = clock();
    for (let bursts = 1; isPortReady && bursts < DRAIN_BURSTS; bursts++) {
      if (!this.takeOuter(this.nowUs) || this.#isShort) break;
    }
    this.nowUs = clock();
    for (let bursts = 1; isExitReady && bursts < DRAIN_BURSTS; bursts++) {
      if (!this.takeInner(this.nowUs) || this.#isShort) break;
    }
    for (let left = (this.taken - before) / SERVED_OF;;) {
      this.nowUs = clock();
      const served = this.serve(this.nowUs);
      left -= served;
      if (served === 0 || left <= 0) return true;
    }
  }

  /** Carries what the port has; whether there was anything. */
  takeOuter(nowUs: number): boolean {
    if (this.port.receive(this.burst) === 0) return false;
    this.#noteMore();
    this.ingest(nowUs);
    return true;
  }

  /** Carries what other Workers have handed over; whether there was anything. */
  takeHandedOver(nowUs: number): boolean {
    if (this.mailbox === undefined || this.mailbox.receive(this.burst) === 0) return false;
    this.#noteMore();
    this.ingest(nowUs);
    return true;
  }

  /** Carries what the exit has; whether there was anything. */
  takeInner(nowUs: number): boolean {
    if (this.exit.receive(this.burst, nowUs) === 0) return false;
    this.#noteMore();
    this.ingestInner(nowUs);
    return true;
  }

  /** Carries the burst's outer datagrams (TO_PARSE, or the step at which another Worker handed a row over). */
  ingest(nowUs: number): void {
    const { core, exit, burst } = this;
    core.ingest(burst, nowUs);
    do {
      exit.send(burst, nowUs);
      core.ingestInner(burst, nowUs); // what the exit refused and turned around
      this.#transmit(nowUs);
      burst.release();
    } while (core.ingestRest(burst, nowUs) > 0);
  }

  /** Carries the burst's inner packets (TO_TUNNEL). */
  ingestInner(nowUs: number): void {
    this.core.ingestInner(this.burst, nowUs);
    this.#transmit(nowUs);
    this.burst.release();
  }

  /**
   * Carries the next of the packets that wait for this thread, a burst each way at most; returns how many rows left. For a driver that
   * takes in between what has come: another caller leaves it to `flush`.
   */
  serve(nowUs: number): number {
    const { core, exit, burst } = this;
    if (!core.isBehind) return 0;
    const forExit = core.serveExit(burst, nowUs);
    if (forExit > 0) {
      exit.send(burst, nowUs);
      core.ingestInner(burst, nowUs); // what the exit refused and turned around
      this.#transmit(nowUs);
      burst.release();
    }
    const forTunnel = core.serveTunnel(burst, nowUs);
    if (forTunnel > 0) {
      this.#transmit(nowUs);
      burst.release();
    }
    if (core.isBehind) this.isMore = true;
    return forExit + forTunnel;
  }

  /** Carries all that waits for this thread, and sends what the core has of its own. To be called after any other step. */
  flush(nowUs: number): void {
    do {
      while (this.serve(nowUs) > 0);
      this.sendDue(nowUs);
    } while (this.core.isBehind);
  }

  /** Sends what the core has of its own: handshakes, control frames, packets that waited for their line. */
  sendDue(nowUs: number): void {
    const { core, burst } = this;
    while (core.pollTransmit(burst, nowUs) > 0) {
      this.#transmit(nowUs);
      burst.release();
    }
    if (core.isBehind) this.isMore = true; // what was due came in more rows than one turn carries
  }

  /** A burst that was short, with slots left, had everything. */
  #noteMore(): void {
    const { count, arena } = this.burst;
    this.taken += count;
    this.#isShort = count < BURST_CAPACITY;
    if (count === BURST_CAPACITY || arena.free === 0) this.isMore = true;
  }

  /** Datagrams to the port; what was turned around, being too big, back to the exit; and what is other Workers' to them. */
  #transmit(nowUs: number): void {
    const { burst } = this;
    const { count, next, length } = burst;
    let datagrams = 0, bytes = 0, isTurned = false;
    for (let row = 0; row < count; row++) {
      if (next[row] === TO_EXIT) isTurned = true;
      if (next[row] !== TO_TRANSMIT) continue;
      datagrams++;
      bytes += length[row];
    }
    if (datagrams > 0) {
      this.metrics.add("datagrams_sent", datagrams);
      this.metrics.add("bytes_sent", bytes);
      this.port.transmit(burst);
    }
    if (isTurned) this.exit.send(burst, nowUs);
    this.mailbox?.send(burst);
  }
}
