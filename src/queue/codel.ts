// Hot path.
/**
 * CoDel (RFC 8289) for many queues at once: a row of columns for each. Invariant: a queue whose packets waited less than
 * the target at any time in the last interval loses none. Holds no packets and reads no clock.
 */

/** From RFC 8289 §4.2 and §4.3: 5 ms of standing queue, over the longest round trip that is usual, 100 ms. */
export const CODEL = { targetUs: 5000, intervalUs: 100_000 };
/** A queue that begins to drop again within this many intervals goes on at the rate of before (RFC 8289 §5.6). */
const RESUME_INTERVALS = 16;

export class Codel {
  /** When the wait will have been above the target for an interval; 0 while it is below. */
  readonly #aboveUs: Float64Array;
  readonly #dropNextUs: Float64Array;
  readonly #count: Uint32Array;
  readonly #lastCount: Uint32Array;
  readonly #isDropping: Uint8Array;
  readonly #targetUs: number;
  readonly #intervalUs: number;

  /**
   * @param rows queues are 0 to rows - 1.
   * @param targetUs the wait in microseconds that may last. @param intervalUs for how long a longer one may.
   */
  constructor(rows: number, targetUs = CODEL.targetUs, intervalUs = CODEL.intervalUs) {
    this.#aboveUs = new Float64Array(rows);
    this.#dropNextUs = new Float64Array(rows);
    this.#count = new Uint32Array(rows);
    this.#lastCount = new Uint32Array(rows);
    this.#isDropping = new Uint8Array(rows);
    this.#targetUs = targetUs;
    this.#intervalUs = intervalUs;
  }

  /** Clears the state of the row: its queue is empty or another one. */
  reset(row: number): void {
    this.#aboveUs[row] = this.#dropNextUs[row] = 0;
    this.#count[row] = this.#lastCount[row] = this.#isDropping[row] = 0;
  }

  /**
   * Whether the packet that leaves the queue is to be dropped, or marked (RFC 8289 §5.5). Call once for each, in order.
   * @param waitedUs how long it was in the queue. @param isShort whether no full packet's bytes are left behind it.
   * @param targetUs and @param intervalUs of this queue, where they are not those of all.
   */
  drops(
    row: number,
    waitedUs: number,
    isShort: boolean,
    nowUs: number,
    targetUs = this.#targetUs,
    intervalUs = this.#intervalUs,
  ): boolean {
    const isAbove = this.#isAbove(row, waitedUs < targetUs || isShort, nowUs, intervalUs);
    if (this.#isDropping[row] === 1) {
      if (!isAbove) {
        this.#isDropping[row] = 0;
        return false;
      }
      if (nowUs < this.#dropNextUs[row]) return false;
      this.#count[row]++;
      this.#dropNextUs[row] += intervalUs / Math.sqrt(this.#count[row]);
      return true;
    }
    if (!isAbove) return false;
    this.#isDropping[row] = 1;
    const sinceLast = this.#count[row] - this.#lastCount[row];
    const isSoon = nowUs - this.#dropNextUs[row] < RESUME_INTERVALS * intervalUs;
    this.#count[row] = isSoon && sinceLast > 1 ? sinceLast : 1;
    this.#lastCount[row] = this.#count[row];
    this.#dropNextUs[row] = nowUs + intervalUs / Math.sqrt(this.#count[row]);
    return true;
  }

  /** Whether the wait has been above the target for an interval. */
  #isAbove(row: number, isBelow: boolean, nowUs: number, intervalUs: number): boolean {
    if (isBelow) {
      this.#aboveUs[row] = 0;
      return false;
    }
    if (this.#aboveUs[row] === 0) {
      this.#aboveUs[row] = nowUs + intervalUs;
      return false;
    }
    return nowUs >= this.#aboveUs[row];
  }
}
