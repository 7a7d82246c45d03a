// Hot path.
/**
 * Loss repair of one OxTunnel session (PROTOCOL §13): at the sending end the packets of the last protected datagrams and
 * the repairs that are due of them, at the receiving end what came and what can be solved. Invariant: repairs cost no more
 * bytes than the plan's share of what they protect, and each end's memory is fixed. Does not choose the plan.
 * Keeps PROTOCOL R90, R91 and R92.
 */
import { CODE_BLOCK, CODE_WINDOW, RepairDecoder, RepairEncoder, SOURCES_MAX } from "../codec/erasure.ts";
import type { ShardKernel } from "../codec/kernels.ts";
import { BLOCK_MAX } from "../codec/reed_solomon.ts";
import { Arrivals } from "../control/arrivals.ts";
import type { RepairChoice } from "../control/redundancy.ts";
import type { Burst } from "../vector/burst.ts";
import { FRAME_HEAD_BYTES, FRAME_REPAIR, writeFrameHead } from "../wire/frame.ts";
import { canCarryRepair, repairHeadBytes, RepairReader, writeRepairHead } from "../wire/repair.ts";
import { RepairTally } from "./repair_tally.ts";

/** The longest plaintext that is protected, bytes: a game's snapshot, not a transfer's segment. */
export const SYMBOL_MAX_BYTES = 640;
/** What a datagram costs beside its packets: header, tag, UDP and IPv4. */
const DATAGRAM_BYTES = 6 + 16 + 28;
/** A repair that no datagram took along goes alone after this long, a little more than a call's pace. */
const PATIENCE_US = 25_000;
const PENDING_MAX = 16;
/** Repairs' worth of bytes that may be saved up. */
const CREDIT_REPAIRS = 2;
const INDEX_MAX = 7;
const BROUGHT_BACK = 64;
/** A receiver solves so often in a row, and then once a millisecond; more than so many repairs at once, every 10 ms. */
const LOOKS = 8, LOOK_US = 1000;
const SHORT_ROWS = 8, LONG_LOOK_US = 10_000;
/** A game's pace, until the real one is known; and what counts as a pause instead. */
const GAP_US_FIRST = 15_625, PAUSE_US = 200_000;

/** What is sent to repair losses; all of it may change from one datagram to the next. */
export interface RepairPlan extends RepairChoice {
  /** CODE_WINDOW, which with one source is a copy, or CODE_BLOCK. */
  code: number;
}

export const NO_REPAIR: RepairPlan = { code: CODE_WINDOW, sources: 1, share: 0, spacingUs: 0 };

/** The repair frame that was read last. */
export const repairFrame = new RepairReader();

export class RepairSender {
  plan: RepairPlan = NO_REPAIR;
  /** Time from one protected datagram to the next, smoothed. */
  gapUs = GAP_US_FIRST;
  #sentUs = -Infinity;
  readonly #encoder: RepairEncoder;
  /** Counters and bytes of the last sources, by ordinal. */
  readonly #counters = new Float64Array(2 * SOURCES_MAX);
  readonly #lengths = new Uint16Array(2 * SOURCES_MAX);
  #ordinal = 0;
  /** Sources of the block that is being filled. */
  #inBlock = 0;
  #credit = 0;
  // Repairs that are due, oldest first, in a ring: when, the ordinal behind the newest source, how many, and the number in a block.
  readonly #readyUs = new Float64Array(PENDING_MAX);
  readonly #behind = new Float64Array(PENDING_MAX);
  readonly #sources = new Uint8Array(PENDING_MAX);
  readonly #number = new Uint8Array(PENDING_MAX);
  #first = 0;
  #pending = 0;
  readonly #numbers = new Float64Array(SOURCES_MAX);

  constructor(kernel: ShardKernel) {
    this.#encoder = new RepairEncoder(kernel, SYMBOL_MAX_BYTES);
  }

  /** When a repair goes alone because nothing took it along, or Infinity. */
  get dueUs(): number {
    return this.#pending === 0 ? Infinity : this.#readyUs[this.#first] + PATIENCE_US;
  }

  /** Puts repairs that are due in front of the plaintext in `row`, which will have `counter`, up to `bytesMax` in all. */
  ride(burst: Burst, row: number, counter: number, bytesMax: number, nowUs: number): void {
    for (let index = 0; index <= INDEX_MAX && this.#pending > 0; index++) {
      if (this.#readyUs[this.#first] > nowUs) return;
      const { offset, length } = burst;
      const bytes = this.#prepare(counter, index);
      if (bytes > 0) {
        if (length[row] + bytes > bytesMax) return;
        burst.bytes.copyWithin(offset[row] + bytes, offset[row], offset[row] + length[row]);
        this.#write(burst, offset[row], counter, index);
        length[row] += bytes;
      }
      this.#drop();
    }
  }

  /** The plaintext's packets of a protected datagram went out: they are a source now. */
  sent(bytes: Uint8Array, at: number, length: number, counter: number, nowUs: number): void {
    const { plan } = this;
    const gapUs = nowUs - this.#sentUs;
    if (gapUs < PAUSE_US) this.gapUs += (gapUs - this.gapUs) / 16;
    this.#sentUs = nowUs;
    if (plan.share <= 0 || length > SYMBOL_MAX_BYTES) return;
    if (!this.#encoder.add(counter, bytes, at, length)) return;
    this.#counters[this.#ordinal % this.#counters.length] = counter;
    this.#lengths[this.#ordinal % this.#lengths.length] = length;
    this.#ordinal++;
    const cost = FRAME_HEAD_BYTES + repairHeadBytes(plan.sources - 1) + this.#longest(plan.sources);
    this.#credit = Math.min(
      this.#credit + plan.share * (DATAGRAM_BYTES + length),
      CREDIT_REPAIRS * Math.max(cost, plan.sources * plan.share * cost),
    );
    if (plan.code === CODE_BLOCK) {
      if (++this.#inBlock < plan.sources) return;
      for (let number = this.#inBlock; this.#credit >= cost && number < BLOCK_MAX; number++) {
        this.#credit -= cost;
        this.#schedule(nowUs + plan.spacingUs, this.#inBlock, number);
      }
      this.#inBlock = 0;
    } else {
      for (let more = 0; this.#credit >= cost && more < INDEX_MAX; more++) {
        this.#credit -= cost;
        this.#schedule(nowUs + plan.spacingUs, plan.sources, 0);
      }
    }
  }

  /** Bytes of the longest of the last `sources` sources. */
  #longest(sources: number): number {
    let longest = 0;
    for (let back = 1; back <= sources && back <= this.#ordinal; back++) {
      longest = Math.max(longest, this.#lengths[(this.#ordinal - back) % this.#lengths.length]);
    }
    return longest;
  }

  #schedule(readyUs: number, sources: number, number: number): void {
    if (this.#pending === PENDING_MAX) return;
    const place = (this.#first + this.#pending++) % PENDING_MAX;
    this.#readyUs[place] = readyUs;
    this.#behind[place] = this.#ordinal;
    this.#sources[place] = sources;
    this.#number[place] = number;
  }

  #drop(): void {
    this.#first = (this.#first + 1) % PENDING_MAX;
    this.#pending--;
  }

  /** Makes the symbol of the first repair that is due, for a datagram with `counter`; returns the frame's bytes, 0 for none. */
  #prepare(counter: number, index: number): number {
    const place = this.#first, behind = this.#behind[place];
    let count = Math.min(this.#sources[place], behind, SOURCES_MAX);
    const isBlock = this.#number[place] > 0;
    for (let i = 0; i < count; i++) {
      this.#numbers[i] = this.#counters[(behind - count + i) % this.#counters.length];
    }
    // What lies too far back cannot be named: a window goes without it, a block is lost.
    let skipped = 0;
    while (skipped < count && repairHeadBytes(this.#numbers[count - 1] - this.#numbers[skipped]) === 0) {
      skipped++;
    }
    if (isBlock && skipped > 0) return 0;
    for (let i = skipped; i < count; i++) this.#numbers[i - skipped] = this.#numbers[i];
    count -= skipped;
    if (count === 0 || !canCarryRepair(counter, this.#numbers[count - 1])) return 0;
    this.#sources[place] = count;
    const code = isBlock ? CODE_BLOCK : CODE_WINDOW;
    const symbolBytes = this.#encoder.combine(
      code,
      isBlock ? this.#number[place] : windowKey(counter, index),
      this.#numbers,
      count,
    );
    if (symbolBytes === 0) return 0;
    this.#symbolBytes = symbolBytes;
    return FRAME_HEAD_BYTES + repairHeadBytes(this.#numbers[count - 1] - this.#numbers[0]) + symbolBytes;
  }

  #symbolBytes = 0;

  #write(burst: Burst, at: number, counter: number, index: number): void {
    const { view, bytes } = burst, place = this.#first, number = this.#number[place];
    const count = this.#sources[place];
    const headBytes = repairHeadBytes(this.#numbers[count - 1] - this.#numbers[0]);
    const body = writeFrameHead(view, at, FRAME_REPAIR, headBytes + this.#symbolBytes);
    const symbolAt = writeRepairHead(
      view,
      body,
      number > 0,
      number > 0 ? number : index,
      counter,
      this.#numbers,
      count,
    );
    this.#encoder.take(this.#symbolBytes, bytes, symbolAt);
  }
}

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
  #hasNews = false;

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
    if (this.decoder.add(counter, bytes, at, length)) this.#hasNews = true;
    return true;
  }

  /** Takes a repair frame's body of a datagram with `counter`; false when it is malformed. */
  repair(burst: Burst, at: number, length: number, counter: number): boolean {
    if (!repairFrame.read(burst.view, at, length, counter)) return false;
    const { isBlock, numbers, count, symbolAt, symbolBytes } = repairFrame;
    const code = isBlock ? CODE_BLOCK : CODE_WINDOW;
    const index = isBlock ? repairFrame.index : windowKey(counter, repairFrame.index);
    this.arrivals.onSources(numbers, count);
    if (this.decoder.addRepair(code, index, numbers, count, burst.bytes, symbolAt, symbolBytes)) {
      this.#hasNews = true;
    }
    return true;
  }

  /**
   * Solves for what can be solved; returns how many counters there are in `decoder.recovered`. Solving costs far more than a
   * datagram does, so a peer that asks for it all the time gets it so often: what is left comes with a later datagram.
   */
  solve(nowUs: number): number {
    if (!this.#hasNews) return 0;
    this.#looks = Math.min(LOOKS, this.#looks + (nowUs - this.#looksUs) / LOOK_US);
    this.#looksUs = nowUs;
    if (this.#looks < 1) return 0;
    this.#looks--;
    const mayLookLong = nowUs - this.#lookedLongUs >= LONG_LOOK_US;
    const found = this.decoder.solve(mayLookLong ? undefined : SHORT_ROWS);
    if (mayLookLong && this.decoder.waiting > SHORT_ROWS) this.#lookedLongUs = nowUs;
    this.#hasNews = !this.decoder.isDone;
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
function windowKey(counter: number, index: number): number {
  return (counter * (INDEX_MAX + 1) + (index & INDEX_MAX)) % 65536;
}
