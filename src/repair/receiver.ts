// Hot path.
/**
 * The receiving end of one OxTunnel session's loss repair (PROTOCOL §13): what came, and what can be solved of the rest.
 * Invariant: memory is fixed, whatever the other end sends, and nothing is handed out twice. repair/sender.ts is the
 * sending end.
 * Keeps PROTOCOL R90 and R92.
 */
import { CODE_BLOCK, CODE_WINDOW, RepairDecoder } from "../codec/erasure.ts";
import type { ShardKernel } from "../codec/kernels.ts";
import { Arrivals } from "./arrivals.ts";
import type { Burst } from "../vector/burst.ts";
import { RepairReader } from "../wire/repair.ts";
import { RepairTally } from "./tally.ts";

/** The longest plaintext that is protected, bytes: a game's snapshot, not a transfer's segment. */
export const SYMBOL_MAX_BYTES = 640;
/** The last of the repairs of one datagram, which are numbered from 0. */
export const INDEX_MAX = 7;
const BROUGHT_BACK = 64;
/** A receiver solves so often in a row, and then once a millisecond; by more than the last so many repairs, every 10 ms. */
const LOOKS = 8, LOOK_US = 1000;
const SHORT_ROWS = 8, LONG_LOOK_US = 10_000;

/** The repair frame that was read last. */
export const repairFrame = new RepairReader();

export class RepairReceiver {
  readonly decoder: RepairDecoder;
  readonly arrivals: Arrivals;
  readonly tally = new RepairTally();
  /** Counters of the last datagrams that were brought back, in a ring: their own datagrams may still come. */
  readonly #broughtBack = new Float64Array(BROUGHT_BACK).fill(-1);
  #broughtBackNext = 0;
  #broughtBackHighest = -1;
  /** Looks that may be taken at once, and since when they have been counted. */
  #looks = LOOKS;
  #looksUs = 0;
  #lookedLongUs = -Infinity;
  /** The datagram that the last repair rode in, and how many did. */
  #carrier = -1;
  #carried = 0;

  /** @param first the first counter of which it is shown everything that comes. */
  constructor(kernel: ShardKernel, first: number) {
    this.decoder = new RepairDecoder(kernel, SYMBOL_MAX_BYTES, first);
    this.arrivals = new Arrivals(first);
  }

  /** Repairs that came and were not needed. */
  get wasted(): number {
    return Math.max(0, this.decoder.notNeeded);
  }

  /** Takes the packets of a datagram; false when they were brought back before and must not be delivered again. */
  received(bytes: Uint8Array, at: number, length: number, counter: number): boolean {
    if (counter <= this.#broughtBackHighest) {
      for (let i = 0; i < BROUGHT_BACK; i++) if (this.#broughtBack[i] === counter) return false;
    }
    this.decoder.add(counter, bytes, at, length);
    return true;
  }

  /** Takes a repair frame's body of a datagram with `counter`; false when it is malformed, or one more than may ride along. */
  repair(burst: Burst, at: number, length: number, counter: number): boolean {
    if (counter !== this.#carrier) this.#carried = 0;
    this.#carrier = counter;
    if (++this.#carried > INDEX_MAX + 1 || !repairFrame.read(burst.view, at, length, counter)) return false;
    const { isBlock, numbers, count, symbolAt, symbolBytes } = repairFrame;
    if (!isBlock && repairFrame.index > INDEX_MAX) return false;
    const code = isBlock ? CODE_BLOCK : CODE_WINDOW;
    const index = isBlock ? repairFrame.index : windowKey(counter, repairFrame.index);
    this.arrivals.onSources(numbers, count);
    this.decoder.addRepair(code, index, numbers, count, burst.bytes, symbolAt, symbolBytes);
    return true;
  }

  /**
   * Solves for what can be solved; returns how many counters there are in `decoder.recovered`. Solving costs far more than a
   * datagram does, so a peer that asks for it all the time gets it so often: what is left comes with a later datagram.
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
    }
    return found;
  }
}

/** The seed of a window's coefficients: which datagram the repair rides in, and its place there. */
export function windowKey(counter: number, index: number): number {
  return (counter * (INDEX_MAX + 1) + (index & INDEX_MAX)) % 65536;
}
