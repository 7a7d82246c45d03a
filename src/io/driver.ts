/**
 * The driver: the only loop and the only clock of a Worker or plane. It has bursts carried between port, core and exit (carry.ts)
 * whenever one of them has something, and runs the core's timers. Invariant: it never waits to fill a burst, and
 * every slot that it is given is released or handed over in the same turn.
 */
import { setImmediate } from "node:timers";
import { Carrier, type Core } from "../carry.ts";
import { Delays } from "../control/delays.ts";
import type { Exit } from "../exit/exit.ts";
import type { Metrics } from "../metrics.ts";
import type { Arena } from "../vector/arena.ts";
import { clearBell } from "./bell.ts";
import type { Mailbox } from "./mailbox.ts";
import { nap, PollSet } from "./poll.ts";
import type { Port, PortWait, WaitSet } from "./port.ts";
import { TurnPriority } from "./turn_priority.ts";
import { PORT_PLACE, waitSetOf } from "./wait_set.ts";

/** Bursts carried before the event loop gets a turn. */
const ROUNDS_MAX = 8;
/**
 * In a thread of its own the driver waits in the kernel; the event loop, and with it its timers, gets a turn this often.
 * So do the tasks that V8 leaves for it after collections: never run, they would pile up, 40 bytes for each handshake.
 */
const TURN_US = 500_000;
/** Places among what is waited for, behind the port's. */
const MAILBOX = 1, BELL = 2, EXIT = 3;
/** Wakes in a row that bring nothing to carry, as a far end's news of room to send, before the driver pauses after each. */
const EMPTY_WAKES_MAX = 64;
/**
 * Where the moving average of the waits is shorter than this, the driver looks again and again for up to twice the average
 * before it sleeps: to sleep and be woken costs more. Packets that come more slowly never make it spin.
 */
const SPIN_GAP_US = 40;
/** The longest gap that the average takes in, so that one pause does not outweigh many short gaps. */
const GAP_US_MAX = 1000;
/** The loop turns at least this often, so that a reader of `loop_beats` can tell idle from stalled. */
const BEAT_MS = 250;
const HOUSEKEEPING_US = 1_000_000;
/** The processing times halve each FADE_US, so that those of the last half minute count. */
const FADE_US = 10_000_000;

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
  /** How long packets took from the beginning of the turn that took them to its end. */
  readonly processing = new Delays(1);
  #fadeAtUs = -Infinity;
  #running = false;
  #again = false;
  /** The moving average of how long a wait lasts. */
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
    /** Whether a thread that waits in the kernel goes before ordinary programs, where the system allows it. */
    readonly goesFirst = false,
  ) {
    this.#carrier = new Carrier(arena, core, port, exit, metrics, mailbox);
  }

  /** Whether its thread will wait in the kernel and not in the event loop. */
  get waits(): boolean {
    return this.port.wait !== undefined && this.exit.descriptor !== undefined;
  }

  /** Starts carrying. Returns at once. Where both port and exit can be waited for, this thread waits for nothing else. */
  start(): void {
    const { wait } = this.port, { descriptor } = this.exit;
    if (wait !== undefined && descriptor !== undefined) {
      this.#running = true; // a wake by the event loop has nothing to do here
      this.#loop = this.#waitAndCarry(wait, descriptor);
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

  /** Blocks this thread as the port says whenever there is nothing to carry: no thread is woken to wake another. */
  async #waitAndCarry(wait: PortWait, descriptor: number): Promise<void> {
    const { core, exit, mailbox, messages } = this, carrier = this.#carrier;
    const bell = messages && { descriptor: messages.bell };
    // In the order of MAILBOX, BELL and EXIT.
    const places = waitSetOf(wait, [mailbox, bell, { descriptor, device: exit.device }]);
    // The clock is read where a turn begins and where it ends, no oftener: reading it costs as much as a packet's decisions.
    const priority = this.goesFirst ? new TurnPriority(monotonicUs()) : undefined;
    const rest = new PollSet([]);
    let nowUs = monotonicUs(),
      startUs = nowUs,
      turnDueUs = -Infinity,
      emptyWakes = 0,
      isPortReady = true,
      isExitReady = true;
    while (!this.#stopped) {
      if (nowUs >= turnDueUs) {
        turnDueUs = nowUs + TURN_US;
        await new Promise<void>((resolve) => setImmediate(resolve));
        nowUs = monotonicUs();
        if (carrier.isMore) messages?.takeMessages(); // nobody looks at the bell
      }
      this.metrics.add("loop_beats", 1);
      startUs = nowUs;
      if (this.#carry(nowUs, isPortReady, isExitReady)) emptyWakes = 0;
      isPortReady = isExitReady = true;
      nowUs = monotonicUs();
      const rows = carrier.taken;
      this.#noteTurn(nowUs - startUs);
      priority?.look(rows, nowUs);
      if (carrier.isMore) continue;
      // What the mailbox holds for want of a slot shows nowhere else.
      const lookDueUs = mailbox?.isWaiting ? nowUs + 1000 : turnDueUs;
      const restUs = priority?.restUs(rows, startUs, nowUs) ?? 0;
      startUs = nowUs;
      if (restUs > 0) rest.wait(restUs / 1000);
      const dueUs = restUs > 0 ? 0 : Math.min(core.pollTimeout(), lookDueUs);
      const ready = this.#wait(places, startUs, dueUs, priority?.isFirst === true);
      nowUs = monotonicUs();
      this.#gapUs += (Math.min(GAP_US_MAX, nowUs - startUs) - this.#gapUs) / 8;
      if (ready === 0) continue;
      isPortReady = places.isReady(PORT_PLACE);
      isExitReady = !exit.sleeps || places.isReady(EXIT);
      if (places.isReady(MAILBOX)) mailbox?.clear();
      if (messages !== undefined && places.isReady(BELL)) {
        clearBell(messages.bell);
        messages.takeMessages();
      }
      // A device that is gone, or an arena without a free slot: ready for ever, and nothing to carry.
      if (++emptyWakes > EMPTY_WAKES_MAX) nap();
    }
  }

  /** Waits from `startUs`, which is now, until `dueUs` at most; returns 0 when no place is ready. */
  #wait(places: WaitSet, startUs: number, dueUs: number, isFirst: boolean): number {
    let nowUs = startUs;
    // Who goes first is woken soon, and others would not get to what it waits for.
    if (!isFirst && this.#gapUs < SPIN_GAP_US) {
      const untilUs = Math.min(startUs + 2 * this.#gapUs, dueUs);
      do {
        const ready = places.wait(0);
        if (ready > 0) return ready;
        nowUs = monotonicUs();
      } while (nowUs < untilUs);
    }
    return places.wait(Math.max(0, dueUs - nowUs) / 1000);
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
      const beganUs = monotonicUs();
      if (this.#carry(beganUs)) {
        this.#again = true;
        this.#noteTurn(monotonicUs() - beganUs);
      }
    } while (this.#again && ++rounds < ROUNDS_MAX);
    this.#running = false;
    this.metrics.add("loop_beats", 1);
    if (this.#again) setTimeout(() => this.turn(), 0);
    this.#armTimer();
  }

  /** One round in each direction; whether anything was there. */
  #carry(startUs: number, isPortReady = true, isExitReady = true): boolean {
    const { core, exit } = this;
    const carrier = this.#carrier;
    carrier.isMore = false;
    const busy = carrier.round(startUs, monotonicUs, isPortReady, isExitReady);
    const { nowUs } = carrier;
    if (nowUs - this.#lastHousekeepingUs >= HOUSEKEEPING_US) {
      this.#lastHousekeepingUs = nowUs;
      core.setWallClock(wallClockOffsetUs());
      core.handleTimeout(nowUs);
      exit.handleTimeout(nowUs);
      this.metrics.set("exit_flows", exit.flowCount);
      if (nowUs >= this.#fadeAtUs) {
        this.#fadeAtUs = nowUs + FADE_US;
        this.processing.fade(0);
      }
    } else if (core.pollTimeout() <= nowUs) {
      core.handleTimeout(nowUs);
    }
    carrier.sendDue(nowUs);
    return busy;
  }

  /** Counts what each packet of the turn took from here to where all of them were handed on. */
  #noteTurn(us: number): void {
    const carrier = this.#carrier;
    if (carrier.taken === 0) return;
    this.metrics.processed(us, carrier.taken);
    this.processing.add(0, us, carrier.taken);
    carrier.taken = 0;
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
