// Hot path.
/**
 * The sending end of one OxTunnel session's loss repair (PROTOCOL §13): the packets of the last protected datagrams, class by
 * class, the repairs made of them, which ride in a datagram that has room or are sent alone at their deadline, and the answers
 * to requests (§14), which are sent at once. Invariant: in any span of time the repairs of a class take no more bytes than the
 * plan's share of the datagrams that it protects in that span, and one repair more; what is sent again on request stays, with
 * them, within the budget in each second. Memory is fixed. Chooses no plans (planner.ts), and reads no requests: what they
 * name, kept.ts finds.
 * Keeps PROTOCOL R91, R96, R97, R101 and R102.
 */
import { CODE_BLOCK, CODE_WINDOW, RepairEncoder, SOURCES_MAX } from "../codec/erasure.ts";
import type { ShardKernel } from "../codec/kernels.ts";
import { BLOCK_MAX } from "../codec/reed_solomon.ts";
import { DATAGRAM_BYTES, EARLY, firstChoice, type RepairChoice, USABLE } from "./redundancy.ts";
import type { Burst } from "../vector/burst.ts";
import { FRAME_HEAD_BYTES, FRAME_REPAIR, writeFrameHead } from "../wire/frame.ts";
import { canCarryRepair, repairHeadBytes, writeAnswer, writeRepairHead } from "../wire/repair.ts";
import { KEPT, Kept, LastSecond } from "./kept.ts";
import { INDEX_MAX, SYMBOL_MAX_BYTES, windowKey } from "./receiver.ts";

/** Classes that have a plan of their own. */
export const LANE_GAME = 0, LANE_VOICE = 1, LANE_BULK = 2, LANES = 3;
/** The longest head of a repair frame, whole bitmap included. */
const HEAD_BYTES_MAX = FRAME_HEAD_BYTES + repairHeadBytes(KEPT);
/** Time between packets until it is measured: a game's pace. A gap of PAUSE_US or more is a pause and is not measured. */
const GAP_US_FIRST = 15_625, PAUSE_US = 200_000;
/** A datagram with room for this many bytes counts as one that a repair can ride in. */
const RIDE_BYTES = 200;
/**
 * A source is of use until shortly after the time at which its repair is sent alone, since timers are not exact. The deadline
 * holds: that time is (1 - x) of the deadline, and (1 - x)(1 + x) is below 1.
 */
const TOLERANCE = 1 - USABLE;
const SECOND_US = 1_000_000;
/** Shares of a second's budget: for answers that can be asked for again, once a burst is over, and for those that may be one too many. */
const EARLY_SHARE = 0.5, BLIND_SHARE = 0.6;
const AVERAGE = 1 / 16, FORGET = 1 / 64;

/** One class's sources, by ordinal, and what of them is to be repaired. */
export class Lane {
  plan: RepairChoice = firstChoice();
  /** Time from one source to the next, and bytes of a source, smoothed; and the recent maximum of bytes. */
  gapUs = GAP_US_FIRST;
  bytes = 0;
  bytesMax = 0;
  /** Bytes that repairs may take now (PROTOCOL R96). */
  credit = 0;
  /** Whether its packets are marked, and so may be asked for; and age up to which they are sent again, microseconds. */
  isMarked = false;
  answerableUs = 0;
  /** Whether losses come with a queue: then a packet is sent again once at most. */
  isCautious = false;
  /** Number of sources so far, and the ordinal of the first that no repair covers and that is not given up. */
  ordinal = 0;
  open = 0;
  /** First source of the blocks being filled; end and layout of the blocks filled last, and repairs sent of those. */
  blockFrom = 0;
  blockEnd = 0;
  blockSources = 0;
  blockStride = 0;
  blockSent = 0;
  readonly counters = new Float64Array(KEPT);
  readonly lengths = new Uint16Array(KEPT);
  readonly sentUs = new Float64Array(KEPT);

  /** When a repair is sent alone if no datagram carries it, or Infinity. Repairs of blocks never are. */
  get dueUs(): number {
    const { plan, open } = this;
    if (open >= this.ordinal || plan.isBlock || plan.share <= 0) return Infinity;
    const bytes = FRAME_HEAD_BYTES + repairHeadBytes(0) + this.lengths[open % KEPT];
    return this.credit < bytes + DATAGRAM_BYTES ? Infinity : this.sentUs[open % KEPT] + plan.lateUs;
  }

  note(length: number, nowUs: number): void {
    const gapUs = this.ordinal === 0 ? PAUSE_US : nowUs - this.sentUs[(this.ordinal - 1) % KEPT];
    if (gapUs < PAUSE_US) this.gapUs += (gapUs - this.gapUs) * AVERAGE;
    this.bytes = this.bytes === 0 ? length : this.bytes + (length - this.bytes) * AVERAGE;
    this.bytesMax = Math.max(length, this.bytesMax - (this.bytesMax - length) * FORGET);
  }

  add(counter: number, length: number, nowUs: number): void {
    const place = this.ordinal % KEPT;
    this.counters[place] = counter;
    this.lengths[place] = length;
    this.sentUs[place] = nowUs;
    this.ordinal++;
    this.open = Math.max(this.open, this.ordinal - KEPT);
    while (this.open < this.ordinal && this.isLate(this.open, nowUs)) this.open++;
    // What one repair that goes alone may need is saved up, and this datagram's part on top (PROTOCOL R96).
    const earned = this.plan.share * (DATAGRAM_BYTES + length);
    this.credit = Math.min(this.credit, DATAGRAM_BYTES + HEAD_BYTES_MAX + this.bytesMax) + earned;
    this.#fillBlock();
  }

  isLate(ordinal: number, nowUs: number): boolean {
    return nowUs - this.sentUs[ordinal % KEPT] > this.plan.lateUs * (1 + TOLERANCE);
  }

  #fillBlock(): void {
    const { isBlock, sources, stride } = this.plan;
    if (!isBlock || this.ordinal - this.blockFrom > sources * stride) {
      this.blockFrom = this.ordinal - (isBlock ? 1 : 0);
    }
    if (this.ordinal - this.blockFrom < sources * stride) return;
    this.blockFrom = this.blockEnd = this.ordinal;
    this.blockSources = sources;
    this.blockStride = stride;
    this.blockSent = 0;
  }
}

/** The repairs that the last `ride` wrote, in the order in which it did: columns, one entry a repair. */
class WrittenRepairs {
  count = 0;
  readonly isAnswer = new Uint8Array(INDEX_MAX + 1);
  readonly isBlock = new Uint8Array(INDEX_MAX + 1);
  /** Sources that it combines, the newest one's counter, and when that one was sent. */
  readonly sources = new Uint8Array(INDEX_MAX + 1);
  readonly newest = new Float64Array(INDEX_MAX + 1);
  readonly sourceUs = new Float64Array(INDEX_MAX + 1);
  /** Bytes of the frame, head included. */
  readonly bytes = new Uint16Array(INDEX_MAX + 1);
}

export class RepairSender {
  readonly written = new WrittenRepairs();
  readonly lanes: readonly Lane[] = [new Lane(), new Lane(), new Lane()];
  /** Time between datagrams that a repair could ride in, smoothed. */
  rideGapUs = GAP_US_FIRST;
  #rideUs = -Infinity;
  readonly #encoder: RepairEncoder;
  // The group that was put together last: counters, longest source, when its newest was sent, number in its block, and the
  // first source that it leaves uncovered.
  readonly #numbers = new Float64Array(SOURCES_MAX);
  #longest = 0;
  #newestUs = 0;
  #number = 0;
  #covered = 0;
  /** The marked datagrams that may be asked for. */
  readonly kept = new Kept();
  readonly #second = new LastSecond();
  /** Most bytes of repair for each byte protected, within a second. */
  readonly #budget: number;
  #answeredUs = -Infinity;
  /** Round trip of the path, microseconds; Infinity where it is unknown. */
  roundTripUs = Infinity;

  /** @param budget most bytes of repair for each byte protected, 0 to 1. */
  constructor(kernel: ShardKernel, budget = 1) {
    this.#encoder = new RepairEncoder(kernel, SYMBOL_MAX_BYTES);
    this.#budget = budget;
  }

  /** Takes an entry of a request; arguments as `Kept.want`. */
  onRequest(low: number, first: number, count: number, nowUs: number): void {
    this.kept.want(low, first, count, nowUs);
  }

  /** When a repair is sent alone if no datagram carries it, or Infinity. */
  get dueUs(): number {
    let dueUs = Infinity;
    for (let i = 0; i < LANES; i++) dueUs = Math.min(dueUs, this.lanes[i].dueUs);
    return dueUs;
  }

  /**
   * Puts repairs in front of the plaintext in `row`, which will have `counter`, up to `bytesMax` in all: one of each lane that
   * has one, or, in an empty row, all that are due. `written` lists them.
   */
  ride(burst: Burst, row: number, counter: number, bytesMax: number, nowUs: number): void {
    const isAlone = burst.length[row] === 0;
    if (!isAlone && burst.length[row] + RIDE_BYTES <= bytesMax) {
      const gapUs = nowUs - this.#rideUs;
      if (gapUs < PAUSE_US) this.rideGapUs += (gapUs - this.rideGapUs) * AVERAGE;
      this.#rideUs = nowUs;
    }
    this.written.count = 0;
    let index = 0;
    for (let i = 0; i < LANES; i++) {
      const lane = this.lanes[i];
      for (let more = true; more && index <= INDEX_MAX;) {
        const isDue = isAlone && lane.dueUs <= nowUs;
        if (this.#put(lane, burst, row, counter, index, bytesMax, nowUs)) index++;
        else if (burst.length[row] > 0) break; // another datagram may have room
        else if (isDue) lane.open++; // no datagram has room for this source: it is given up
        more = isAlone && lane.dueUs <= nowUs;
      }
    }
    if (this.kept.waiting > 0) this.#answer(burst, row, counter, index, bytesMax, nowUs);
  }

  /** Puts what was asked for in front of what is in the row, one copy of each at most, and gives up what the budget forbids. */
  #answer(burst: Burst, row: number, counter: number, index: number, bytesMax: number, nowUs: number): void {
    const { kept, lanes } = this, numbers = this.#numbers, { length } = burst;
    for (let n = kept.oldest; n < kept.count && kept.waiting > 0 && index <= INDEX_MAX; n++) {
      const place = kept.placeOf(n);
      if (kept.wanted[place] === 0) continue;
      const lane = lanes[kept.lanes[place]];
      numbers[0] = kept.counters[place];
      const bytes = FRAME_HEAD_BYTES + repairHeadBytes(0) + kept.lengths[place];
      const cost = bytes + (length[row] === 0 ? DATAGRAM_BYTES : 0);
      if (
        !canCarryRepair(counter, numbers[0]) || nowUs - kept.sentUs[place] > lane.answerableUs ||
        (lane.isCautious && kept.answers[place] > 0) ||
        !this.#second.allows(cost, this.#budget * this.#shareFor(place, lane, nowUs), nowUs)
      ) {
        kept.refuse(place);
        continue;
      }
      if (length[row] + bytes > bytesMax) {
        if (length[row] === 0) kept.refuse(place); // no datagram has room for it
        continue;
      }
      this.#longest = kept.lengths[place];
      this.#newestUs = kept.sentUs[place];
      if (!this.#write(burst, row, counter, index, false, index, 1, kept.places[place])) {
        kept.refuse(place); // the encoder keeps it no longer
        continue;
      }
      index++;
      kept.answered(place, nowUs);
      this.#second.spend(cost, nowUs);
      this.#answeredUs = nowUs;
    }
  }

  /**
   * Share of the budget that an answer may use up. In a bad second something is left to last chances: by an answer before the last
   * one has had time to show that it got lost, and by one that can be asked for again, the more the likelier a burst is still on.
   */
  #shareFor(place: number, lane: Lane, nowUs: number): number {
    const { kept, roundTripUs } = this, { burstUs } = lane.plan.asking;
    if (nowUs - kept.answeredUs[place] < roundTripUs) return BLIND_SHARE;
    const ageUs = nowUs - kept.sentUs[place];
    if (burstUs <= lane.gapUs || ageUs + roundTripUs >= lane.answerableUs) return 1;
    return EARLY_SHARE * (1 - Math.exp(-ageUs / burstUs));
  }

  /** Takes a datagram's packets, `length` bytes at `at`, as a source of the lane; false when they are not protected. */
  sent(lane: Lane, bytes: Uint8Array, at: number, length: number, counter: number, nowUs: number): boolean {
    if (length > SYMBOL_MAX_BYTES) return false;
    lane.note(length, nowUs);
    const isRepaired = lane.plan.share > 0;
    if (!(isRepaired || lane.isMarked) || !this.#encoder.add(counter, bytes, at, length)) return false;
    this.#second.protect(DATAGRAM_BYTES + length, nowUs); // nothing else enlarges the budget (PROTOCOL R102)
    if (isRepaired) lane.add(counter, length, nowUs);
    else lane.open = lane.ordinal;
    if (lane.isMarked) this.kept.add(counter, length, this.lanes.indexOf(lane), nowUs);
    return true;
  }

  /** Puts the lane's next repair in front of what is in the row; false when there is none, no credit or no room. */
  #put(
    lane: Lane,
    burst: Burst,
    row: number,
    counter: number,
    index: number,
    bytesMax: number,
    nowUs: number,
  ): boolean {
    const { length } = burst, numbers = this.#numbers;
    const { isBlock } = lane.plan;
    if (lane.plan.share <= 0) return false;
    const count = isBlock
      ? this.#blockGroup(lane, nowUs)
      : lane.plan.sources === 1 && lane.plan.timing !== EARLY
      ? this.#spacedGroup(lane, nowUs)
      : this.#windowGroup(lane, nowUs);
    if (count === 0 || !canCarryRepair(counter, numbers[count - 1])) return false;
    const headBytes = repairHeadBytes(numbers[count - 1] - numbers[0]);
    const bytes = FRAME_HEAD_BYTES + headBytes + this.#longest;
    const cost = bytes + (length[row] === 0 ? DATAGRAM_BYTES : 0);
    if (headBytes === 0 || lane.credit < cost || length[row] + bytes > bytesMax) return false;
    if (nowUs - this.#answeredUs < SECOND_US && !this.#second.allows(cost, this.#budget, nowUs)) return false;
    if (!this.#write(burst, row, counter, index, isBlock, isBlock ? this.#number : index, count, 0)) {
      return false;
    }
    lane.credit -= cost;
    this.#second.spend(cost, nowUs);
    if (isBlock) lane.blockSent++;
    else lane.open = this.#covered;
    return true;
  }

  /**
   * Writes the repair of the group in front of what is in the row; false when the encoder does not have it. @param askedAs the
   * place by which its source was asked for, 0 where it was not.
   */
  #write(
    burst: Burst,
    row: number,
    counter: number,
    index: number,
    isBlock: boolean,
    number: number,
    count: number,
    askedAs: number,
  ): boolean {
    const { offset, length } = burst, numbers = this.#numbers;
    const headBytes = repairHeadBytes(numbers[count - 1] - numbers[0]);
    const bytes = FRAME_HEAD_BYTES + headBytes + this.#longest;
    const symbolBytes = isBlock
      ? this.#encoder.combine(CODE_BLOCK, number, numbers, count)
      : this.#encoder.combine(CODE_WINDOW, windowKey(counter, index), numbers, count);
    // Another lane's source may have taken the encoder's place of one.
    if (symbolBytes !== this.#longest) return false;
    burst.bytes.copyWithin(offset[row] + bytes, offset[row], offset[row] + length[row]);
    const body = writeFrameHead(burst.view, offset[row], FRAME_REPAIR, headBytes + symbolBytes);
    const symbolAt = writeRepairHead(burst.view, body, isBlock, number, counter, numbers, count);
    if (askedAs > 0) writeAnswer(burst.view, body, askedAs);
    this.#encoder.take(symbolBytes, burst.bytes, symbolAt);
    length[row] += bytes;
    this.#note(isBlock, askedAs > 0, numbers[count - 1], count, bytes);
    return true;
  }

  #note(isBlock: boolean, isAnswer: boolean, newest: number, sources: number, bytes: number): void {
    const { written } = this, i = written.count++;
    written.isBlock[i] = isBlock ? 1 : 0;
    written.isAnswer[i] = isAnswer ? 1 : 0;
    written.sources[i] = sources;
    written.newest[i] = newest;
    written.sourceUs[i] = this.#newestUs;
    written.bytes[i] = bytes;
  }

  /** The oldest source that is still of use and old enough. */
  #spacedGroup(lane: Lane, nowUs: number): number {
    const { plan, sentUs, ordinal } = lane;
    let source = lane.open;
    while (source < ordinal && lane.isLate(source, nowUs)) source++;
    if (source === ordinal || nowUs - sentUs[source % KEPT] < plan.spacingUs) return 0;
    this.#covered = source + 1;
    this.#longest = 0;
    return this.#take(lane, source, 0);
  }

  /** The newest source that is old enough, if no repair covers it, and those before it. */
  #windowGroup(lane: Lane, nowUs: number): number {
    const { plan, sentUs } = lane;
    let newest = lane.ordinal - 1;
    while (newest >= lane.open && nowUs - sentUs[newest % KEPT] < plan.spacingUs) newest--;
    if (newest < lane.open) return 0;
    this.#covered = newest + 1;
    const newestCounter = lane.counters[newest % KEPT];
    let count = 0;
    this.#longest = 0;
    for (let back = plan.sources - 1; back >= 0; back--) {
      const source = newest - back * plan.stride;
      if (source < 0 || source < lane.ordinal - KEPT || lane.isLate(source, nowUs)) continue;
      // A frame cannot name what lies too far back.
      if (repairHeadBytes(newestCounter - lane.counters[source % KEPT]) === 0) continue;
      count = this.#take(lane, source, count);
    }
    return count;
  }

  /** The next repair of the blocks that were filled last: of each block in turn, as long as they are of use. */
  #blockGroup(lane: Lane, nowUs: number): number {
    const { blockEnd, blockSources, blockStride, blockSent, ordinal } = lane;
    if (blockEnd === 0 || lane.isLate(blockEnd - 1, nowUs)) return 0;
    const from = blockEnd - blockSources * blockStride + blockSent % blockStride;
    const repair = Math.floor(blockSent / blockStride);
    if (repair >= blockSources || blockSources + repair >= BLOCK_MAX || from < ordinal - KEPT) return 0;
    this.#number = blockSources + repair;
    let count = 0;
    this.#longest = 0;
    for (let i = 0; i < blockSources; i++) count = this.#take(lane, from + i * blockStride, count);
    return count;
  }

  #take(lane: Lane, source: number, count: number): number {
    this.#numbers[count] = lane.counters[source % KEPT];
    this.#newestUs = lane.sentUs[source % KEPT];
    this.#longest = Math.max(this.#longest, lane.lengths[source % KEPT]);
    return count + 1;
  }
}
