/**
 * The driver: the only loop and the only clock of a Worker or plane. It has bursts carried between port, core and exit (carry.ts)
 * whenever one of them has something, and runs the core's timers. Invariant: it never waits to fill a burst, and
 * every slot that it is given is released or handed over in the same turn.
 */
import { setImmediate } from "node:timers";
import { Carrier, type Core } from "../carry.ts";
import type { Exit } from "../exit/exit.ts";
import type { Metrics } from "../metrics.ts";
import type { Arena } from "../vector/arena.ts";
import { clearBell } from "./bell.ts";
import type { Mailbox } from "./mailbox.ts";
import { nap, PollSet, type WaitSet } from "./poll.ts";
import type { Port } from "./port.ts";

/** Bursts carried before the event loop gets a turn. */
const ROUNDS_MAX = 8;
/**
 * In a thread of its own the driver waits in the kernel; the event loop, and with it its timers, gets a turn this often.
 * So do the tasks that V8 leaves for it after collections: never run, they would pile up, 40 bytes for each handshake.
 */
const TURN_US = 500_000;
/** Places among the descriptors that are waited for. */
const PORT = 0, MAILBOX = 1, BELL = 2, EXIT = 3;
/** Wakes in a row that bring nothing to carry, as a far end's news of room to send, before the driver pauses after each. */
const EMPTY_WAKES_MAX = 64;
/**
 * Where the next packet follows so soon after all were carried, on the average of late, the driver looks for it again
 * and again for up to twice that time: to sleep and be woken costs more. What comes more slowly never makes it spin.
 */
const SPIN_GAP_US = 40;
/** The longest gap that the average takes in, so that one pause does not outweigh many short gaps. */
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

/** Messages for a thread that waits in the kernel: its event loop needs dozens of turns to bring one. */
export interface Messages {
  /** A bell that is rung after each (bell.ts). */
  bell: number;
  /** Takes and answers all that are there. */
  takeMessages: () => void;
}

export class Driver {
  readonly #carrier: Carrier;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #timerDueUs = Infinity;
  #beat: ReturnType<typeof setInterval> | undefined;
  #lastHousekeepingUs = -Infinity;
  #running = false;
  #again = false;
  /** How long a wait lasts, on the average of late. */
  #gapUs = GAP_US_MAX;
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
    readonly messages?: Messages,
  ) {
    this.#carrier = new Carrier(arena, core, port, exit, metrics, mailbox);
  }

  /** Whether its thread will wait in the kernel and not in the event loop. */
  get waits(): boolean {
    return this.port.descriptor !== undefined && this.exit.descriptor !== undefined;
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

  /** Blocks this thread in ppoll(2) whenever there is nothing to carry: no thread is woken to wake another. */
  async #waitAndCarry(outer: number, inner: number): Promise<void> {
    const { core, exit, mailbox, messages } = this, carrier = this.#carrier;
    const { ring } = this.port;
    // Or in the port's ring. In the order of PORT, MAILBOX, BELL and EXIT.
    if (ring !== undefined) exit.readBy?.(ring);
    const others = [mailbox?.descriptor, messages?.bell, inner];
    const descriptors = this.port.waitWith?.(others) ?? new PollSet([outer, ...others]);
    // The clock is read where a turn begins and where it ends, no oftener: reading it costs as much as a packet's decisions.
    let nowUs = monotonicUs(), turnDueUs = -Infinity, emptyWakes = 0, isPortReady = true, isExitReady = true;
    while (!this.#stopped) {
      if (nowUs >= turnDueUs) {
        turnDueUs = nowUs + TURN_US;
        await new Promise<void>((resolve) => setImmediate(resolve));
        nowUs = monotonicUs();
        if (carrier.isMore) messages?.takeMessages(); // nobody looks at the bell
      }
      this.metrics.add("loop_beats", 1);
      if (this.#carry(nowUs, isPortReady, isExitReady)) emptyWakes = 0;
      isPortReady = isExitReady = true;
      nowUs = monotonicUs();
      if (carrier.isMore) continue;

      // What the mailbox holds for want of a slot shows nowhere else.
      const lookDueUs = mailbox?.isWaiting ? nowUs + 1000 : turnDueUs;
      const startUs = nowUs;
      const ready = this.#wait(descriptors, startUs, Math.min(core.pollTimeout(), lookDueUs));
      nowUs = monotonicUs();
      this.#gapUs += (Math.min(GAP_US_MAX, nowUs - startUs) - this.#gapUs) / 8;
      if (ready === 0) continue;
      isPortReady = descriptors.isReady(PORT);
      // What a ring has read shows nowhere else.
      isExitReady = ring !== undefined || !exit.sleeps || descriptors.isReady(EXIT);
      if (descriptors.isReady(MAILBOX)) mailbox?.clear();
      if (messages !== undefined && descriptors.isReady(BELL)) {
        clearBell(messages.bell);
        messages.takeMessages();
      }
      // A device that is gone, or an arena without a free slot: ready for ever, and nothing to carry.
      if (++emptyWakes > EMPTY_WAKES_MAX) nap();
    }
  }

  /** Waits from `startUs`, which is now, until `dueUs` at most; returns how many descriptors are ready. */
  #wait(descriptors: WaitSet, startUs: number, dueUs: number): number {
    let nowUs = startUs;
    if (this.#gapUs < SPIN_GAP_US) {
      const untilUs = Math.min(startUs + 2 * this.#gapUs, dueUs);
      do {
        const ready = descriptors.wait(0);
        if (ready > 0) return ready;
        nowUs = monotonicUs();
      } while (nowUs < untilUs);
    }
    return descriptors.wait(Math.max(0, dueUs - nowUs) / 1000);
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
      if (this.#carry(monotonicUs())) this.#again = true;
    } while (this.#again && ++rounds < ROUNDS_MAX);
    this.#running = false;
    this.metrics.add("loop_beats", 1);
    if (this.#again) setTimeout(() => this.turn(), 0);
    this.#armTimer();
  }

  /** One round in each direction; whether anything was there. */
  #carry(nowUs: number, isPortReady = true, isExitReady = true): boolean {
    const { core, exit } = this;
    const carrier = this.#carrier;
    carrier.isMore = false;
    let busy = isPortReady && carrier.takeOuter(nowUs);
    if (carrier.takeHandedOver(nowUs)) busy = true;
    if (busy && isExitReady) nowUs = monotonicUs(); // a full burst takes a while
    if (isExitReady && carrier.takeInner(nowUs)) busy = true;

    if (nowUs - this.#lastHousekeepingUs >= HOUSEKEEPING_US) {
      this.#lastHousekeepingUs = nowUs;
      core.setWallClock(wallClockOffsetUs());
      core.handleTimeout(nowUs);
      exit.handleTimeout(nowUs);
      this.metrics.set("exit_flows", exit.flowCount);
    } else if (core.pollTimeout() <= nowUs) {
      core.handleTimeout(nowUs);
    }
    carrier.flush(nowUs);
    return busy;
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
