// Hot path.
/**
 * The receiving side of one session's repair (PROTOCOL §13): which datagrams arrived, and which of the lost ones can be solved
 * for. Invariant: memory is fixed, whatever the other end sends, and nothing is handed out twice. Requests for what is
 * missing are requests.ts's. Delivers no packets; ingress/recover.ts does.
 * Keeps PROTOCOL R90 and R92.
 */
import { CODE_BLOCK, CODE_WINDOW, RepairDecoder } from "../codec/erasure.ts";
import type { ShardKernel } from "../codec/kernels.ts";
import type { Burst } from "../vector/burst.ts";
import { FRAME_HEAD_BYTES } from "../wire/frame.ts";
import { outerBytes, readMark } from "../wire/oxtunnel.ts";
import { RepairReader } from "../wire/repair.ts";
import { Arrivals } from "./arrivals.ts";
import type { RepairFigures } from "./figures.ts";
import { Requests } from "./requests.ts";
import { RepairTally } from "./tally.ts";

/** The longest plaintext that is protected, bytes: a game's snapshot fits, a transfer's full segment does not. */
export const SYMBOL_MAX_BYTES = 640;
/** The last index of a repair within its datagram, counted from 0. */
export const INDEX_MAX = 7;
/** Counters that are remembered as brought back. */
const BROUGHT_BACK = 64;
/** Attempts to solve that may be made at once, and the time in which one more is allowed. */
const LOOKS = 8, LOOK_US = 1000;
/** An attempt considers this many of the newest repairs, and all of them once in LONG_LOOK_US. */
const SHORT_ROWS = 8, LONG_LOOK_US = 10_000;

export class RepairReceiver {
  readonly decoder: RepairDecoder;
  readonly arrivals: Arrivals;
  readonly tally = new RepairTally();
  readonly #frame = new RepairReader();
  /** Counters of the last datagrams that were brought back, in a ring: the datagrams themselves may still arrive. */
  readonly #broughtBack = new Float64Array(BROUGHT_BACK).fill(-1);
  #broughtBackNext = 0;
  #broughtBackHighest = -1;
  /** Attempts that may be made at once, and when they were counted last. */
  #looks = LOOKS;
  #looksUs = 0;
  #lookedLongUs = -Infinity;
  /** The datagram that carried the last repair, and how many repairs it has carried so far. */
  #carrier = -1;
  #carried = 0;

  /** What is asked for; undefined where the ends have not agreed to it. */
  readonly requests: Requests | undefined;

  /**
   * @param first the first counter of which everything that arrives is shown to this.
   * @param asking how this end asks; undefined where it does not.
   */
  constructor(
    kernel: ShardKernel,
    first: number,
    asking?: { deadlineUs: number; target: number; pathNumber?: number },
  ) {
    this.decoder = new RepairDecoder(kernel, SYMBOL_MAX_BYTES, first);
    this.arrivals = new Arrivals(first, asking !== undefined);
    if (asking) {
      this.requests = new Requests(this.arrivals, asking.deadlineUs, asking.target, asking.pathNumber);
    }
  }

  /** Repairs that arrived and were not needed. */
  get wasted(): number {
    return Math.max(0, this.decoder.notNeeded);
  }

  /** Notes that the datagram in `row` arrived and was accepted, whatever it carries. */
  datagramReceived(burst: Burst, row: number, nowUs: number): void {
    const bytes = outerBytes(burst.headerBytes[row], burst.length[row]);
    this.arrivals.arrived(burst.counter[row], bytes, nowUs);
    this.tally.datagram(bytes, nowUs);
    if (this.requests === undefined) return;
    const mark = readMark(burst.view.getUint8(burst.offset[row] - burst.headerBytes[row]));
    this.requests.arrived(burst.counter[row], mark, bytes, nowUs);
  }

  /** Takes the packets of a datagram; false when they were brought back before and must not be delivered again. */
  received(bytes: Uint8Array, at: number, length: number, counter: number): boolean {
    if (this.#wasBroughtBack(counter)) return false;
    this.decoder.add(counter, bytes, at, length);
    return true;
  }

  #wasBroughtBack(counter: number): boolean {
    return counter <= this.#broughtBackHighest && this.#broughtBack.includes(counter);
  }

  /**
   * Takes the packets of a datagram that did not come yet, of which another path brought a copy: nothing need bring it back. False as
   * `received`.
   */
  copied(bytes: Uint8Array, at: number, length: number, counter: number, nowUs: number): boolean {
    if (this.#wasBroughtBack(counter)) return false;
    if (this.decoder.add(counter, bytes, at, length)) {
      this.arrivals.onCopied(counter);
      this.requests?.recovered(counter, nowUs);
    }
    return true;
  }

  /**
   * Takes the body of a repair frame that the datagram with `counter` carries, and counts it. False when the frame is
   * malformed, or is more than a datagram may carry (PROTOCOL R92).
   */
  repair(burst: Burst, at: number, length: number, counter: number, nowUs: number): boolean {
    const frame = this.#frame;
    if (counter !== this.#carrier) this.#carried = 0;
    this.#carrier = counter;
    if (++this.#carried > INDEX_MAX + 1 || !frame.read(burst.view, at, length, counter)) return false;
    const { isBlock, numbers, count, symbolAt, symbolBytes } = frame;
    if (!isBlock && frame.index > INDEX_MAX) return false;
    const code = isBlock ? CODE_BLOCK : CODE_WINDOW;
    const index = isBlock ? frame.index : windowKey(counter, frame.index);
    this.arrivals.onSources(numbers, count);
    this.decoder.addRepair(code, index, numbers, count, burst.bytes, symbolAt, symbolBytes);
    const newest = numbers[count - 1], sourceUs = this.arrivals.usOf(newest);
    if (frame.isAnswer) {
      this.tally.answer(FRAME_HEAD_BYTES + length, nowUs);
      this.requests?.answerCame(newest, frame.place);
    } else this.tally.repair(isBlock, count, counter - newest, FRAME_HEAD_BYTES + length, sourceUs, nowUs);
    return true;
  }

  /**
   * Solves for what can be solved; returns how many counters there are in `decoder.recovered`. Solving costs far more than a
   * datagram does, so attempts are limited, and what one leaves comes with a later datagram.
   */
  solve(nowUs: number): number {
    if (this.decoder.isDone) return 0;
    this.#looks = Math.min(LOOKS, this.#looks + (nowUs - this.#looksUs) / LOOK_US);
    this.#looksUs = nowUs;
    if (this.#looks < 1) return 0;
    this.#looks--;
    const mayLookLong = nowUs - this.#lookedLongUs >= LONG_LOOK_US;
    const found = this.decoder.solve(mayLookLong ? undefined : SHORT_ROWS);
    if (mayLookLong && this.decoder.waiting > SHORT_ROWS) this.#lookedLongUs = nowUs;
    for (let i = 0; i < found; i++) {
      const counter = this.decoder.recovered[i];
      this.#broughtBack[this.#broughtBackNext++ % BROUGHT_BACK] = counter;
      this.#broughtBackHighest = Math.max(this.#broughtBackHighest, counter);
      this.arrivals.onRepaired(counter);
      this.requests?.recovered(counter, nowUs);
    }
    return found;
  }

  /** What this direction's repair amounts to. */
  get figures(): RepairFigures {
    const { arrivals, tally, wasted } = this;
    return {
      lossRatio: arrivals.runs.lossRate,
      residualRatio: arrivals.residualRate,
      repaired: arrivals.repaired,
      unrecovered: arrivals.unrepaired,
      wasted,
      isSilent: false,
      repairs: tally.repairs,
      extraRatio: tally.extraRatio,
      scheme: tally.description,
      requests: this.requests?.asked ?? 0,
      answered: this.requests?.answered ?? 0,
      late: this.requests?.late ?? 0,
      useless: this.requests?.useless ?? 0,
    };
  }
}

/** The key of a window's coefficients, 0 to 65535: by the datagram that carries the repair, and its index there. */
export function windowKey(counter: number, index: number): number {
  return (counter * (INDEX_MAX + 1) + (index & INDEX_MAX)) % 65536;
}
