/**
 * A costly answer that several ask for at about the same time, such as a snapshot of all peers for metrics and status. Invariant:
 * who asks while a reading is under way waits for that one, at most one answer is kept, and none is given that is older than its
 * asker allows; a failure is told to those who waited and kept for nobody. Knows nothing of what is read.
 */
interface Answer<T> {
  answer: Promise<T>;
  beganMs: number;
  isSettled: boolean;
}

export class Recent<T> {
  readonly #read: () => Promise<T>;
  readonly #nowMs: () => number;
  #last: Answer<T> | undefined;

  /**
   * @param read makes an answer.
   * @param nowMs a monotonic clock, in milliseconds.
   */
  constructor(read: () => Promise<T>, nowMs: () => number = () => performance.now()) {
    this.#read = read;
    this.#nowMs = nowMs;
  }

  /**
   * The answer under way, or a kept one whose reading began less than `maxAgeMs` milliseconds ago, or else a new one. Callers share
   * one object and must not change it. Rejects as `read` does.
   */
  take(maxAgeMs: number): Promise<T> {
    const last = this.#last;
    if (last !== undefined && (!last.isSettled || this.#nowMs() - last.beganMs < maxAgeMs)) {
      return last.answer;
    }
    const begun: Answer<T> = { answer: this.#read(), beganMs: this.#nowMs(), isSettled: false };
    this.#last = begun;
    begun.answer.then(() => begun.isSettled = true, () => this.#drop(begun));
    return begun.answer;
  }

  /** What was read so far is out of date: whoever asks from now on gets a new answer. */
  forget(): void {
    this.#last = undefined;
  }

  #drop(one: Answer<T>): void {
    if (this.#last === one) this.#last = undefined;
  }
}
