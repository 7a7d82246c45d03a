// Hot path.
/**
 * The sending half of short packets (PROTOCOL §13) for one session: which flows have a context, when their definitions go,
 * and what a packet becomes. Invariant: a packet is shortened only by a definition that the other end has acknowledged,
 * and a context's number serves another flow only under another generation; memory is fixed. A flow whose headers change
 * gets a second context, and keeps the first until the second is acknowledged.
 * Keeps PROTOCOL R105.
 */
import { PROTOCOL_TCP } from "../../wire/inner.ts";
import { ANCHOR, SentAnchors, TWELVE } from "./anchors.ts";
import { KEPT_CHANGED, KEPT_KIND, KEPT_NEW, KEPT_ROOM, KEPT_UNANSWERED } from "./kept.ts";
import {
  ATTEMPTS_MAX,
  CANDIDATE_PACKETS,
  definePauseUs,
  IDLE_US,
  mayBeRtp,
  REST_US,
  RtpLines,
  tagOf,
  udpPayloadAt,
} from "./flows.ts";
import {
  CHECKSUM_TRAVELS,
  FIELDS_BYTES_MAX,
  HEADERS_BYTES_MAX,
  LINE_BYTES,
  PROFILE_RTP,
  PROFILE_TCP,
  PROFILE_UDP,
  RTP_BYTES,
  Template,
} from "./template.ts";

/** Contexts of a session in one direction. */
export const CONTEXTS_MAX = 64;
/** Numbers that fit a short packet's first octet; others have an octet of their own. */
export const SHORT_NUMBERS = 15;
/** Octets of a definition in front of its packet: kind, number, generation; and at most, with RTP's line. */
export const DEFINITION_BYTES = 3;
export const DEFINITION_BYTES_MAX = DEFINITION_BYTES + LINE_BYTES;
/** First octets: of a short packet, its number in the low four bits; and of a definition, its kind in the low three. */
export const SHORT_PACKET = 0x50, DEFINITION = 0xf0;

/** What becomes of a packet: it stays as it is, it goes behind a definition's octets, or it is shortened. */
export const BARE = 0, DEFINED = 1, SHORT = 2;

const BUCKETS = 256, WAYS = 4;
/** Packets in a row that do not fit a context before the flow gets another. */
const MISSES_MAX = 3;
/** RTP packets in a row that carried their time stamp before the flow gets another line; and octets of such fields. */
const OFF_LINE_MAX = 50, OFF_LINE_BYTES = 6;
/** Packets up to this length have UDP's checksum computed at both ends instead of sent: that costs less than 100 ns. */
const COMPUTED_BYTES_MAX = 320;
/** One short packet in this many is rebuilt and compared. */
const SAMPLED = 1024;

class Context {
  readonly template = new Template();
  readonly anchors = new SentAnchors();
  generation: number;
  bucket = -1;
  isKnown = false;
  usedUs = 0;
  defineUs = 0;
  attempts = 0;
  misses = 0;
  /** Packets in a row whose RTP time stamp was off the line. */
  offLine = 0;

  constructor(generation: number) {
    this.generation = generation;
  }
}

export class Shrinker {
  readonly #contexts: (Context | undefined)[] = new Array(CONTEXTS_MAX);
  /** By bucket: the number that shortens the flow's packets, and the one that is being defined; each plus 1, 0 for none. */
  readonly #known = new Uint8Array(BUCKETS);
  readonly #next = new Uint8Array(BUCKETS);
  /** By bucket: which flow (`tagOf`), and of one without a context how many packets; its line, if it is RTP. */
  readonly #tag = new Uint32Array(BUCKETS);
  readonly #packets = new Uint8Array(BUCKETS);
  readonly #restUntilUs = new Float64Array(BUCKETS);
  readonly #lines = new RtpLines(BUCKETS);
  readonly #fields = new DataView(new ArrayBuffer(FIELDS_BYTES_MAX + 2));
  readonly #check = new DataView(new ArrayBuffer(2048));
  readonly #generation: number;
  #sample = 0;
  /** Rebuilt samples that were not what went in. */
  mismatches = 0;
  /** Why `shrink` gave BARE: KEPT_*. */
  kept = KEPT_KIND;
  /** Where the packet begins now, and how long it is: set by `shrink` unless it gives BARE. */
  at = 0;
  bytes = 0;
  /** Octets in front of the payload of the packet that was shortened last. */
  fieldBytes = 0;

  /**
   * @param generation 0 to 255, the one before each context's first: at random, so that a definition of another session is
   * rarely taken for one of this session.
   */
  constructor(generation = 0) {
    this.#generation = generation;
  }

  /**
   * Shortens the IP packet of `length` octets at `at`, or puts a definition in front, in place: nothing before `at` −
   * DEFINITION_BYTES_MAX is written. `mayDefine` says whether the path takes a definition's octets more.
   */
  shrink(view: DataView, at: number, length: number, mayDefine: boolean, nowUs: number): number {
    const tag = tagOf(view, at, length);
    if (tag === 0) return this.#keep(KEPT_KIND);
    // Most flows are in their first bucket.
    const first = tag >>> 24, bucket = this.#tag[first] === tag ? first : this.#bucketOf(tag, nowUs);
    if (bucket < 0) return this.#keep(KEPT_ROOM);
    const known = this.#known[bucket];
    if (known !== 0) {
      const context = this.#contexts[known - 1]!;
      if (context.template.isFlowOf(view, at)) {
        return this.#byContext(view, at, length, context, known - 1, mayDefine, nowUs);
      }
      if (nowUs - context.usedUs < IDLE_US) return this.#keep(KEPT_ROOM);
    }
    return mayDefine ? this.#define(view, at, length, bucket, nowUs) : this.#keep(KEPT_KIND);
  }

  /** The other end knows the context by this generation. */
  acknowledged(number: number, generation: number): void {
    const context = this.#contexts[number];
    if (context === undefined || context.isKnown || context.generation !== generation || context.bucket < 0) {
      return;
    }
    context.isKnown = true;
    const { template } = context;
    if (template.profile === PROFILE_RTP) context.anchors.reset(template.lineNumber);
    const { bucket } = context, old = this.#known[bucket];
    if (old !== 0 && old !== number + 1) this.#contexts[old - 1]!.bucket = -1;
    this.#known[bucket] = number + 1;
    this.#next[bucket] = 0;
  }

  /** The other end has the context's anchor whose number ends in the octet. */
  anchored(number: number, generation: number, low: number): void {
    const context = this.#contexts[number];
    if (context?.isKnown && context.generation === generation) context.anchors.acknowledged(low);
  }

  /** Contexts that shorten packets now. */
  get known(): number {
    let known = 0;
    for (let i = 0; i < CONTEXTS_MAX; i++) {
      const context = this.#contexts[i];
      if (context?.isKnown && context.bucket >= 0) known++;
    }
    return known;
  }

  /** The flow's bucket, or one that it takes over: free, or of a flow without a context, or of a silent one; -1 for none. */
  #bucketOf(tag: number, nowUs: number): number {
    const first = tag >>> 24;
    let best = -1, bestRank = 0;
    for (let way = 0; way < WAYS; way++) {
      const bucket = (first + way) & (BUCKETS - 1);
      if (this.#tag[bucket] === tag) return bucket;
      const rank = this.#tag[bucket] === 0 ? 3 : this.#isIdle(this.#known[bucket], this.#next[bucket], nowUs);
      if (rank <= bestRank) continue;
      best = bucket;
      bestRank = rank;
    }
    if (best < 0) return -1;
    this.#tag[best] = tag;
    this.#packets[best] = 0;
    this.#lines.stride[best] = 0;
    this.#restUntilUs[best] = 0;
    return best;
  }

  /** 2 for a bucket without contexts, 1 for one whose flow is silent, 0 for others. */
  #isIdle(known: number, next: number, nowUs: number): number {
    if (known === 0 && next === 0) return 2;
    if (known !== 0 && nowUs - this.#contexts[known - 1]!.usedUs < IDLE_US) return 0;
    return next !== 0 && nowUs - this.#contexts[next - 1]!.usedUs < IDLE_US ? 0 : 1;
  }

  #byContext(
    view: DataView,
    at: number,
    length: number,
    context: Context,
    number: number,
    mayDefine: boolean,
    nowUs: number,
  ): number {
    const { template } = context, fields = this.#fields;
    context.usedUs = nowUs;
    const isRtp = template.profile === PROFILE_RTP, { anchors } = context;
    const rtpNumber = isRtp && length >= template.headerBytes
      ? view.getUint16(at + template.headerBytes - RTP_BYTES + 2)
      : 0;
    if (isRtp) template.form = anchors.formOf(rtpNumber);
    const numberBytes = number < SHORT_NUMBERS ? 1 : 2;
    const bytes = template.shorten(view, at, length, fields, numberBytes);
    if (bytes < 0) context.misses++;
    else {
      context.misses = 0;
      if (isRtp) {
        this.#lines.note(view, at + template.headerBytes - RTP_BYTES, at + length, context.bucket);
      }
      context.offLine = isRtp && bytes >= OFF_LINE_BYTES ? context.offLine + 1 : 0;
    }
    const isWorn = context.misses >= MISSES_MAX || context.offLine >= OFF_LINE_MAX ||
      template.isWorn(view, at);
    if (isWorn && mayDefine && this.#define(view, at, length, context.bucket, nowUs) === DEFINED) {
      return DEFINED;
    }
    if (bytes < 0) return this.#keep(KEPT_CHANGED);
    if ((++this.#sample & (SAMPLED - 1)) === 0 && !this.#isRight(view, at, length, context, numberBytes)) {
      return this.#keep(KEPT_CHANGED);
    }
    if (isRtp && template.form === ANCHOR) anchors.add(rtpNumber);
    fields.setUint8(0, SHORT_PACKET | Math.min(number, SHORT_NUMBERS));
    if (numberBytes === 2) fields.setUint8(1, number - SHORT_NUMBERS);
    const total = numberBytes + bytes, to = at + template.headerBytes - total;
    for (let i = 0; i < total; i++) view.setUint8(to + i, fields.getUint8(i));
    this.at = to;
    this.bytes = length - template.headerBytes + total;
    this.fieldBytes = total;
    return SHORT;
  }

  /** Rebuilds the packet from the fields that were just written, and compares. */
  #isRight(
    view: DataView,
    at: number,
    length: number,
    { template, anchors: { known: anchor } }: Context,
    fieldsAt: number,
  ): boolean {
    const check = this.#check, { headerBytes } = template;
    if (length + HEADERS_BYTES_MAX > check.byteLength) return true;
    for (let i = headerBytes; i < length; i++) check.setUint8(i, view.getUint8(at + i));
    template.anchor = anchor;
    template.rebuild(this.#fields, fieldsAt, check, 0, length - headerBytes);
    const isFour = view.getUint8(at) >> 4 === 4, hasDf = isFour && (view.getUint8(at + 6) & 0x40) !== 0;
    for (let i = 0; i < length; i++) {
      // An atomic packet's identification means nothing (RFC 6864 4), and the header's checksum goes with it.
      if (hasDf && (i === 4 || i === 5 || i === 10 || i === 11)) continue;
      if (check.getUint8(i) !== view.getUint8(at + i)) {
        this.mismatches++;
        return false;
      }
    }
    return true;
  }

  /** Puts a definition in front of the packet, if its flow is to have a context and one is to be had. */
  #define(view: DataView, at: number, length: number, bucket: number, nowUs: number): number {
    const number = this.#next[bucket] - 1;
    if (number >= 0) {
      const context = this.#contexts[number]!;
      if (context.template.isFlowOf(view, at)) {
        return this.#defineAgain(view, at, context, number, length, nowUs);
      }
      if (nowUs - context.usedUs < IDLE_US) return this.#keep(KEPT_ROOM);
    }
    if (nowUs < this.#restUntilUs[bucket]) return this.#keep(KEPT_UNANSWERED);
    const known = this.#known[bucket], old = known === 0 ? undefined : this.#contexts[known - 1]!.template;
    // A flow that has a context is no candidate any more; of RTP its last packets have shown the stride.
    if (old?.isFlowOf(view, at)) this.#lines.stride[bucket] ||= old.stride;
    else if (!this.#isCandidate(view, at, length, bucket)) return this.#keep(KEPT_NEW);
    const free = number >= 0 ? number : this.#freeNumber(nowUs);
    if (free < 0) return this.#keep(KEPT_ROOM);
    const context = this.#contexts[free] ??= new Context(this.#generation);
    if (context.bucket >= 0 && this.#known[context.bucket] === free + 1) this.#known[context.bucket] = 0;
    context.template.stride = this.#lines.stride[bucket];
    if (!context.template.define(view, at, length, this.#kindOf(view, at, length, bucket))) {
      context.bucket = -1;
      this.#restUntilUs[bucket] = nowUs + REST_US;
      return this.#keep(KEPT_KIND);
    }
    context.generation = (context.generation + 1) & 0xff;
    context.isKnown = false;
    context.bucket = bucket;
    context.attempts = 0;
    context.defineUs = 0;
    context.misses = 0;
    context.offLine = 0;
    this.#next[bucket] = free + 1;
    this.#packets[bucket] = 0;
    return this.#defineAgain(view, at, context, free, length, nowUs);
  }

  /** Sends the definition of a context once more, with this packet, unless that was done just now or often enough. */
  #defineAgain(
    view: DataView,
    at: number,
    context: Context,
    number: number,
    length: number,
    nowUs: number,
  ): number {
    const { template } = context;
    context.usedUs = nowUs;
    if (nowUs < context.defineUs) return this.#keep(KEPT_NEW);
    // A packet that does not fit would give the other end another template.
    template.form = TWELVE;
    if (template.shorten(view, at, length, this.#fields, 2) < 0) {
      if (++context.misses >= MISSES_MAX) this.#giveUp(context, 0);
      return this.#keep(KEPT_CHANGED);
    }
    if (++context.attempts > ATTEMPTS_MAX) {
      this.#giveUp(context, nowUs + REST_US);
      return this.#keep(KEPT_UNANSWERED);
    }
    context.defineUs = nowUs + definePauseUs(context.attempts);
    const isRtp = template.profile === PROFILE_RTP;
    const bytes = isRtp ? DEFINITION_BYTES_MAX : DEFINITION_BYTES;
    const start = this.at = at - bytes;
    this.bytes = length + bytes;
    view.setUint8(start, DEFINITION | template.profile | (template.checksumTravels ? CHECKSUM_TRAVELS : 0));
    view.setUint8(start + 1, number);
    view.setUint8(start + 2, context.generation);
    if (isRtp) template.writeLine(view, start + DEFINITION_BYTES);
    return DEFINED;
  }

  #keep(why: number): number {
    this.kept = why;
    return BARE;
  }

  #giveUp(context: Context, restUntilUs: number): void {
    this.#next[context.bucket] = 0;
    this.#restUntilUs[context.bucket] = restUntilUs;
    context.bucket = -1;
  }

  #isCandidate(view: DataView, at: number, length: number, bucket: number): boolean {
    this.#lines.note(view, udpPayloadAt(view, at), at + length, bucket);
    return ++this.#packets[bucket] > CANDIDATE_PACKETS;
  }

  #kindOf(view: DataView, at: number, length: number, bucket: number): number {
    const isFour = view.getUint8(at) >> 4 === 4;
    if (view.getUint8(at + (isFour ? 9 : 6)) === PROTOCOL_TCP) return PROFILE_TCP;
    const payload = udpPayloadAt(view, at);
    const isRtp = this.#lines.stride[bucket] !== 0 && mayBeRtp(view, payload, at + length - payload);
    return (isRtp ? PROFILE_RTP : PROFILE_UDP) | (length > COMPUTED_BYTES_MAX ? CHECKSUM_TRAVELS : 0);
  }

  /** The lowest number without a flow, or that of the flow which was silent for longest; -1 if all are in use. */
  #freeNumber(nowUs: number): number {
    let oldest = -1, oldestUs = nowUs - IDLE_US;
    for (let i = 0; i < CONTEXTS_MAX; i++) {
      const context = this.#contexts[i];
      if (context === undefined || context.bucket < 0) return i;
      if (context.usedUs >= oldestUs) continue;
      oldest = i;
      oldestUs = context.usedUs;
    }
    if (oldest >= 0) {
      const { bucket } = this.#contexts[oldest]!;
      if (this.#known[bucket] === oldest + 1) this.#known[bucket] = 0;
      if (this.#next[bucket] === oldest + 1) this.#next[bucket] = 0;
    }
    return oldest;
  }
}
