// Hot path.
/**
 * The relay's end of a speedtest (PROTOCOL §7): counts a peer's packets to the relay's own inner address, and sends those
 * that the peer asks for. Invariant: answers go only to the inner address that asked, for RUNS_MAX peers at a time and for
 * each at most RUN_US in PERIOD_US; memory is fixed, and packet buffers of other peers are not used.
 */
import { Jitter } from "../control/jitter.ts";
import { NONE } from "../vector/arena.ts";
import { type Burst, DONE, TO_TUNNEL } from "../vector/burst.ts";
import {
  PULL_MAX,
  readCount,
  readRun,
  readSequenceOf,
  readSize,
  readTime,
  SPEEDTEST_ASK,
  SPEEDTEST_BUSY,
  SPEEDTEST_DATA,
  SPEEDTEST_FILLING,
  SPEEDTEST_PACKET_BYTES,
  SPEEDTEST_PACKET_BYTES_MAX,
  SPEEDTEST_PORT,
  SPEEDTEST_PULL,
  SPEEDTEST_REPORT,
  turnAround,
  writeReceived,
  writeSpeedtest,
} from "../wire/speedtest.ts";

export const RUNS_MAX = 8;
export const RUN_US = 30_000_000;
export const PERIOD_US = 60_000_000;

/** One peer's measurement. */
class Run {
  peer = NONE;
  id = 0;
  /** When the peer's present period began. */
  periodUs = -Infinity;
  received = 0;
  bytes = 0;
  highest = 0;
  lastUs = 0;
  sent = 0;
  readonly jitter = new Jitter();

  /** Resets the counts. */
  start(id: number): void {
    this.id = id;
    this.received =
      this.bytes =
      this.highest =
      this.lastUs =
      this.sent =
        0;
    this.jitter.reset();
  }
}

export class Speedtest {
  readonly #runs: Run[] = [];

  constructor() {
    while (this.#runs.length < RUNS_MAX) this.#runs.push(new Run());
  }

  /**
   * Takes the message of `kind` in `row` from the peer `id`: counts it, turns it into its answer, or sends the
   * packets that it asks for, of at most `bytesMax` bytes.
   */
  take(burst: Burst, row: number, id: number, kind: number, bytesMax: number, nowUs: number): void {
    const { view, offset, length, next } = burst;
    const at = offset[row];
    const run = this.#runOf(id, nowUs);
    if (run === undefined) {
      if (kind !== SPEEDTEST_ASK) next[row] = DONE;
      else this.#turn(burst, row, SPEEDTEST_BUSY);
      return;
    }
    if (readRun(view, at) !== run.id) run.start(readRun(view, at));
    if (kind === SPEEDTEST_DATA) {
      run.received++;
      run.bytes += length[row];
      run.highest = Math.max(run.highest, readSequenceOf(view, at));
      run.lastUs = nowUs;
      run.jitter.add((nowUs - readTime(view, at)) >>> 0);
      next[row] = DONE;
    } else if (kind === SPEEDTEST_ASK) {
      this.#turn(burst, row, SPEEDTEST_REPORT);
      writeReceived(view, at, run.received, run.bytes, run.highest, run.lastUs >>> 0, run.jitter.us);
    } else if (kind === SPEEDTEST_PULL) {
      this.#send(burst, row, run, bytesMax, nowUs);
    } else {
      next[row] = DONE;
    }
  }

  #turn(burst: Burst, row: number, kind: number): void {
    turnAround(burst.view, burst.offset[row], kind);
    burst.next[row] = TO_TUNNEL;
  }

  /** Answers the pull in `row` with the packets that it asks for, as far as burst and arena have room. */
  #send(burst: Burst, row: number, run: Run, bytesMax: number, nowUs: number): void {
    const { view, offset, next, arena } = burst;
    const at = offset[row];
    const own = view.getUint32(at + 16), to = view.getUint32(at + 12), port = view.getUint16(at + 20);
    const pull = readSequenceOf(view, at);
    const count = Math.min(PULL_MAX, readCount(view, at));
    const size = Math.max(
      SPEEDTEST_PACKET_BYTES,
      Math.min(SPEEDTEST_PACKET_BYTES_MAX, bytesMax, readSize(view, at)),
    );
    next[row] = DONE;
    for (let i = 0; i < count && arena.free > arena.slotCount >> 2; i++) {
      const added = burst.grow(size, TO_TUNNEL);
      if (added < 0) return;
      burst.bytes.set(SPEEDTEST_FILLING, offset[added]);
      const from = SPEEDTEST_PORT, timeUs = nowUs >>> 0;
      writeSpeedtest(
        view,
        offset[added],
        size,
        own,
        from,
        to,
        port,
        SPEEDTEST_DATA,
        run.id,
        run.sent++,
        timeUs,
        pull,
      );
    }
  }

  /** The peer's run, or a free one; undefined when none is free or the peer's time is used up. */
  #runOf(id: number, nowUs: number): Run | undefined {
    let free: Run | undefined;
    for (let i = 0; i < RUNS_MAX; i++) {
      const run = this.#runs[i];
      const isOver = nowUs - run.periodUs >= PERIOD_US;
      if (run.peer === id) {
        if (isOver) run.periodUs = nowUs;
        return nowUs - run.periodUs < RUN_US ? run : undefined;
      }
      if (isOver) free = run;
    }
    if (free === undefined) return undefined;
    free.peer = id;
    free.periodUs = nowUs;
    free.start(0);
    return free;
  }
}
