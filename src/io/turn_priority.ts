/**
 * Who goes first on a processor that others want too. Measured (bench/docs/tunnel.md): where a tunnel's ping waits under bulk, it
 * waits for its thread's turn behind the programs that send the bulk. So a thread that carries packets goes before ordinary programs
 * while it is light, and gathers packets a little while transfers run, as network cards do. Invariant: a thread that uses more than
 * LIMIT of a processor is an ordinary one until that has passed, so no flood of packets takes the processor from other programs.
 * Without the privilege (CAP_SYS_NICE) nothing changes. Moves no packet.
 */
import { libc } from "../../ffi/mod.ts";

// linux/sched.h
const SCHED_OTHER = 0, SCHED_RR = 2;
/** Threads that this one starts are ordinary. */
const SCHED_RESET_ON_FORK = 0x4000_0000;
const CLOCK_THREAD_CPUTIME_ID = 3;
/** The thread's share of a processor is looked at in windows of this length, microseconds. */
const WINDOW_US = 100_000;
/** Above LIMIT in a window the thread is an ordinary one for the next, and until its share is below RESUME. */
const LIMIT = 0.9, RESUME = 0.7;
/**
 * After a window with a share above GATHER and more than GATHER_ROWS packets (3000 a second), turns begin GATHER_US apart at least:
 * to be woken for each packet would cost several times what packets cost together.
 */
const GATHER = 0.25, GATHER_ROWS = 300, GATHER_US = 250;

/** Makes the calling thread go before ordinary ones, or ordinary again. False where the system does not allow it. */
export type SetRealTime = (isFirst: boolean) => boolean;

/**
 * Whether each of so many threads may go first: where they are more than processors, they could together take all of those from
 * ordinary programs, each of them below LIMIT.
 */
export function allowsFirst(threads: number, processors = navigator.hardwareConcurrency): boolean {
  return threads <= processors;
}

/** By sched_setscheduler(2), at the lowest of the real-time priorities. */
export function setRealTime(isFirst: boolean): boolean {
  const parameters = new Int32Array([isFirst ? 1 : 0]);
  const policy = (isFirst ? SCHED_RR : SCHED_OTHER) | SCHED_RESET_ON_FORK;
  return libc().sched_setscheduler(0, policy, new Uint8Array(parameters.buffer)) === 0;
}

/** Processor time of the calling thread, microseconds. */
export function threadUs(): number {
  const time = new BigInt64Array(2);
  libc().clock_gettime(CLOCK_THREAD_CPUTIME_ID, new Uint8Array(time.buffer));
  return Number(time[0]) * 1e6 + Number(time[1]) / 1000;
}

export class TurnPriority {
  readonly #set: SetRealTime;
  readonly #usedUs: () => number;
  #isAllowed = true;
  #isFirst = false;
  // Where the window began, by the clock and by the thread's processor time.
  #windowUs: number;
  #windowUsedUs: number;
  /** Packets that the window has brought so far. */
  #rows = 0;
  /** Whether packets are gathered, by the last window. */
  #gathers = false;

  /**
   * To be made by the thread that it is for. @param nowUs microseconds of the clock that the other calls use. @param usedUs says the
   * thread's processor time.
   */
  constructor(nowUs: number, set: SetRealTime = setRealTime, usedUs = threadUs) {
    this.#set = set;
    this.#usedUs = usedUs;
    this.#windowUs = nowUs;
    this.#windowUsedUs = usedUs();
    this.#change(true);
  }

  /** Whether the thread goes before ordinary ones now. */
  get isFirst(): boolean {
    return this.#isFirst;
  }

  #change(isFirst: boolean): void {
    if (!this.#isAllowed) return;
    this.#isAllowed = this.#set(isFirst);
    this.#isFirst = this.#isAllowed && isFirst;
  }

  /** To be called after each turn, which took `rows`: changes the priority at a window's end. */
  look(rows: number, nowUs: number): void {
    this.#rows += rows;
    const elapsedUs = nowUs - this.#windowUs;
    if (elapsedUs < WINDOW_US) return;
    const usedUs = this.#usedUs();
    const share = (usedUs - this.#windowUsedUs) / elapsedUs;
    this.#gathers = share > GATHER && this.#rows * WINDOW_US > GATHER_ROWS * elapsedUs;
    this.#rows = 0;
    this.#windowUs = nowUs;
    this.#windowUsedUs = usedUs;
    if (this.#isFirst ? share > LIMIT : share < RESUME) this.#change(!this.#isFirst);
  }

  /** How long to rest after a turn that began at `startUs` and took `rows`, microseconds: more packets then share the next one. */
  restUs(rows: number, startUs: number, nowUs: number): number {
    if (!this.#isFirst || !this.#gathers || rows === 0) return 0;
    return Math.max(0, startUs + GATHER_US - nowUs);
  }
}
