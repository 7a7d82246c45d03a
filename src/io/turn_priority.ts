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
/** The share of the time is looked at in windows of this length, microseconds. */
const WINDOW_US = 100_000;
/** Above LIMIT of a window in work the thread is an ordinary one, below RESUME it goes first again. */
const LIMIT = 0.9, RESUME = 0.7;
/** Above GATHER of a window in work, a turn that took more than GATHER_ROWS is followed by the next one GATHER_US after its begin. */
const GATHER = 0.25, GATHER_ROWS = 32, GATHER_US = 250;

/** Makes the calling thread go before ordinary ones, or ordinary again. False where the system does not allow it. */
export type SetRealTime = (isFirst: boolean) => boolean;

/** By sched_setscheduler(2), at the lowest of the real-time priorities. */
export function setRealTime(isFirst: boolean): boolean {
  const parameters = new Int32Array([isFirst ? 1 : 0]);
  const policy = (isFirst ? SCHED_RR : SCHED_OTHER) | SCHED_RESET_ON_FORK;
  return libc().sched_setscheduler(0, policy, new Uint8Array(parameters.buffer)) === 0;
}

export class TurnPriority {
  readonly #set: SetRealTime;
  #isAllowed = true;
  #isFirst = false;
  #windowUs: number;
  #waitedUs = 0;
  /** The share of the last window in which the thread did not wait, 0 to 1. */
  #share = 0;

  /** To be made by the thread that it is for. @param nowUs microseconds of the clock that the other calls use. */
  constructor(nowUs: number, set: SetRealTime = setRealTime) {
    this.#set = set;
    this.#windowUs = nowUs;
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

  /** Notes that the thread has waited, which ended now. */
  noteWait(waitedUs: number): void {
    this.#waitedUs += waitedUs;
  }

  /** To be called in each turn: changes the priority at a window's end. */
  look(nowUs: number): void {
    const elapsedUs = nowUs - this.#windowUs;
    if (elapsedUs < WINDOW_US) return;
    this.#share = Math.max(0, 1 - this.#waitedUs / elapsedUs);
    this.#windowUs = nowUs;
    this.#waitedUs = 0;
    if (this.#isFirst ? this.#share > LIMIT : this.#share < RESUME) this.#change(!this.#isFirst);
  }

  /** How long to rest after a turn that began at `startUs` and took `rows`, microseconds: more packets then share the next one. */
  restUs(rows: number, startUs: number, nowUs: number): number {
    if (!this.#isFirst || rows <= GATHER_ROWS || this.#share < GATHER) return 0;
    return Math.max(0, startUs + GATHER_US - nowUs);
  }
}
