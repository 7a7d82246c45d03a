/**
 * The sending half of ROHC in one session (PROTOCOL §13): which flows have a context, and what a packet becomes. Invariant:
 * a compressed packet can be read from any of the flow's packets that was sent since the newest one whose datagram the other
 * end has reported, that one included; what changed is told until a packet that told it is reported. So loss damages nothing,
 * and no packet waits. Contexts are 16; memory is fixed. What a packet becomes in octets is codec/rohc's.
 * Keeps PROTOCOL R115.
 */
import { FRAME_ROHC, FrameReader } from "../../wire/frame.ts";
import { PROTOCOL_TCP } from "../../wire/inner.ts";
import { ByteReader, ByteWriter } from "../rohc/bytes.ts";
import { readFeedback } from "../rohc/feedback.ts";
import { FlowCompressor } from "../rohc/flow_compressor.ts";
import { IR, IR_DYN } from "../rohc/flow_decompressor.ts";
import { MAX_SMALL_CID, skipFeedback } from "../rohc/framing.ts";
import { Headers, Layout, PROFILE } from "../rohc/headers.ts";
import { parsePacket } from "../rohc/parse.ts";
import { TcpCompressor } from "../rohc/tcp/compressor.ts";
import { parseTcp } from "../rohc/tcp/parse.ts";
import { TcpState } from "../rohc/tcp/state.ts";
import {
  ATTEMPTS_MAX,
  CANDIDATE_PACKETS,
  definePauseUs,
  FLOW_BYTES,
  IDLE_US,
  isSameFlow,
  mayBeRtp,
  REST_US,
  RtpLines,
  tagOf,
  udpPayloadAt,
} from "./flows.ts";
import { KEPT_CHANGED, KEPT_KIND, KEPT_NEW, KEPT_ROOM, KEPT_UNANSWERED } from "./kept.ts";
import { BARE, DEFINED, SHORT } from "./shrinker.ts";

const CONTEXTS = MAX_SMALL_CID + 1;
/** A packet's first octet: its context in the low four bits. Stands for ROHC's Add-CID octet, of context 0 for padding. */
export const ROHC_PACKET = 0x70;
const ADD_CID = 0xe0;
const CANDIDATES = 64;
/** Packets of a flow that may be without a report; while there are more, packets go whole. */
const WINDOW = 128;
/** Without any report for this long, something that needs no reference goes, microseconds. */
const SILENT_US = 500_000;
/** Packets that may lie between this step and the number of their datagram: of a burst, and of a batch that waits. */
const UNSEALED_MAX = 512;
/** The longest headers, with a definition of all their parts. */
const HEADERS_BYTES_MAX = 256;
const MISSES_MAX = 8;

/** What the flow's packets are sent as, and which of them went in which datagram. */
class Context {
  readonly flow: FlowCompressor | TcpCompressor;
  /** Tells contexts of one number apart. */
  readonly incarnation: number;
  readonly name = new DataView(new ArrayBuffer(FLOW_BYTES));
  readonly counters = new Float64Array(WINDOW);
  readonly packets = new Float64Array(WINDOW);
  sent = 0;
  source = 0;
  isKnown = false;
  attempts = 0;
  defineUs = 0;
  usedUs = 0;
  reportedUs = 0;
  restUntilUs = 0;
  /** Packets in a row that the profile does not take. */
  misses = 0;

  constructor(profile: number, incarnation: number) {
    this.flow = profile === PROFILE.TCP
      ? new TcpCompressor(Infinity, WINDOW)
      : new FlowCompressor(profile, Infinity, WINDOW);
    this.incarnation = incarnation;
  }
}

export class RohcSender {
  readonly #contexts: (Context | undefined)[] = new Array(CONTEXTS);
  /** By context: the number of its flow (`tagOf`), 0 for none. */
  readonly #tags = new Uint32Array(CONTEXTS);
  /** Flows without a context: their number, packets so far, and their line, if they are RTP. */
  readonly #candidates = new Uint32Array(CANDIDATES);
  readonly #seen = new Uint8Array(CANDIDATES);
  readonly #lines = new RtpLines(CANDIDATES);
  /** Packets whose datagrams have no number yet, oldest first: how they look, context, incarnation and packet. */
  readonly #looks = new Float64Array(UNSEALED_MAX);
  readonly #numbers = new Uint8Array(UNSEALED_MAX);
  readonly #incarnations = new Float64Array(UNSEALED_MAX);
  readonly #packets = new Float64Array(UNSEALED_MAX);
  #head = 0;
  #unsealed = 0;
  #incarnation = 0;
  readonly #headers = new Headers(false);
  readonly #layout = new Layout();
  readonly #tcp = new TcpState();
  readonly #scratch = new Uint8Array(HEADERS_BYTES_MAX);
  readonly #writer = new ByteWriter();
  readonly #reader = new ByteReader();
  readonly #frames = new FrameReader();
  #isRtp = false;
  readonly #asRtp = () => this.#isRtp;
  readonly #isTcp = (cid: number) => this.#contexts[cid]?.flow instanceof TcpCompressor;
  /** Why `shrink` gave BARE: KEPT_*. */
  kept = KEPT_KIND;
  /** Where the packet begins now, and how long it is: set by `shrink` unless it gives BARE. */
  at = 0;
  bytes = 0;
  /** Octets in front of the payload of the packet that was shortened last. */
  fieldBytes = 0;

  /**
   * Compresses the IP packet of `length` octets at `at`, in place: gives SHORT, DEFINED where its headers are told whole
   * (IR, IR-DYN), or BARE where it stays as it is. `mayGrow` says whether the packet may become longer by a few octets.
   */
  shrink(
    arena: Uint8Array,
    view: DataView,
    at: number,
    length: number,
    mayGrow: boolean,
    nowUs: number,
  ): number {
    const tag = tagOf(view, at, length);
    if (tag === 0) return this.#keep(KEPT_KIND);
    let number = this.#tags.indexOf(tag);
    if (number < 0) number = this.#admit(view, at, length, tag, nowUs);
    if (number < 0) return BARE;
    const context = this.#contexts[number]!;
    if (!isSameFlow(view, at, context.name)) return this.#keep(KEPT_ROOM);
    context.usedUs = nowUs;
    if (nowUs < context.restUntilUs) return this.#keep(KEPT_UNANSWERED);
    if (!this.#isDue(context, nowUs)) return this.#keep(context.isKnown ? KEPT_UNANSWERED : KEPT_NEW);
    const headerBytes = this.#compress(arena.subarray(at, at + length), view, at, context, number);
    if (headerBytes === 0) {
      if (++context.misses >= MISSES_MAX) this.#giveUp(context, number, view, at, length, nowUs);
      return this.#keep(KEPT_CHANGED);
    }
    context.misses = 0;
    const writer = this.#writer, scratch = this.#scratch;
    const from = number === 0 ? 0 : 1;
    scratch[from] = ROHC_PACKET | number;
    const total = writer.position - from;
    // A packet that stays as it is after all is one that got lost.
    if (total > headerBytes && !mayGrow) return this.#keep(KEPT_KIND);
    const to = at + headerBytes - total;
    for (let i = 0; i < total; i++) arena[to + i] = scratch[from + i];
    this.at = to;
    this.bytes = length - headerBytes + total;
    this.fieldBytes = total;
    this.#noteUnsealed(lookOf(view, to, this.bytes), number, context);
    const type = scratch[from + 1], isDefinition = type === IR_DYN || type >= IR;
    if (isDefinition && !context.isKnown) context.attempts++;
    return isDefinition ? DEFINED : SHORT;
  }

  /** Notes that the plaintext of `length` octets at `at` goes in the datagram with `counter`. */
  sealed(view: DataView, at: number, length: number, counter: number): void {
    if (this.#unsealed === 0) return;
    const frames = this.#frames;
    frames.start(at, length);
    for (let kind = frames.next(view); kind >= 0; kind = frames.next(view)) {
      if (kind === FRAME_ROHC) this.#noteSealed(lookOf(view, frames.at, frames.length), counter);
    }
  }

  /** Takes a report: `isReported` says which counters came. */
  reported(isReported: (counter: number) => boolean, nowUs: number): void {
    for (let i = 0; i < CONTEXTS; i++) {
      const context = this.#contexts[i];
      if (context === undefined) continue;
      const oldest = Math.max(0, context.sent - WINDOW);
      for (let n = context.sent - 1; n >= oldest; n--) {
        const place = n % WINDOW;
        if (context.packets[place] === 0) break; // this one and those before are reported
        if (!isReported(context.counters[place])) continue;
        context.flow.acknowledgePacket(context.packets[place]);
        context.packets[place] = 0;
        context.isKnown = true;
        context.attempts = 0;
        context.reportedUs = nowUs;
        break;
      }
    }
  }

  /** Takes the other end's ROHC feedback, `length` octets at `at`. */
  takeFeedback(arena: Uint8Array, at: number, length: number, nowUs: number): void {
    skipFeedback(this.#reader.over(arena, at, at + length), (from, to) => {
      const item = readFeedback(new ByteReader().over(arena, from, to), false, this.#isTcp);
      const context = item && this.#contexts[item.cid];
      if (context === undefined) return;
      if (item!.isRejected) {
        context.restUntilUs = nowUs + REST_US;
        context.isKnown = false;
        context.flow.refreshStatic(); // there is nothing to refer to when it asks again
      } else if (item!.kind === "nack") context.flow.refreshDynamic();
      else if (item!.kind === "static-nack") context.flow.refreshStatic();
    });
  }

  /** Contexts that compress packets now. */
  get known(): number {
    return this.#contexts.reduce((sum, context) => sum + (context?.isKnown ? 1 : 0), 0);
  }

  /** Whether a packet may go by the context now: definitions keep their pace, and what is not reported is bounded. */
  #isDue(context: Context, nowUs: number): boolean {
    const isFull = context.flow.unacknowledged >= WINDOW;
    if (context.isKnown && !isFull) return true;
    if (nowUs < context.defineUs) return false;
    if (isFull && context.isKnown) {
      if (nowUs - context.reportedUs < SILENT_US) return false;
      context.flow.refreshDynamic();
    }
    context.defineUs = nowUs + definePauseUs(context.attempts);
    if (context.attempts < ATTEMPTS_MAX) return true;
    context.attempts = 0;
    context.restUntilUs = nowUs + REST_US;
    return false;
  }

  /** Writes what stands for the packet's headers, from scratch's second octet on; gives the headers' length, 0 for none. */
  #compress(packet: Uint8Array, view: DataView, at: number, context: Context, number: number): number {
    const { flow } = context, writer = this.#writer.over(this.#scratch, 1);
    if (flow instanceof TcpCompressor) {
      const payloadAt = parseTcp(packet, this.#tcp);
      if (payloadAt === 0) return 0;
      flow.compressHeaders(packet, this.#tcp, payloadAt, number, false, writer);
      return writer.failed ? 0 : payloadAt;
    }
    const payload = udpPayloadAt(view, at);
    this.#isRtp = flow.profile === PROFILE.RTP;
    if (this.#isRtp) {
      if (!mayBeRtp(view, payload, at + packet.length - payload)) return 0;
      if (view.getUint32(payload + 8) !== context.source) return 0;
    }
    const headers = this.#headers, layout = this.#layout;
    parsePacket(packet, headers, layout, this.#asRtp);
    if (headers.profile !== flow.profile) return 0;
    flow.compressHeaders(packet, headers, layout, number, false, writer);
    return writer.failed ? 0 : layout.end;
  }

  #keep(why: number): number {
    this.kept = why;
    return BARE;
  }

  /** The number of a new context for a flow that has shown enough packets; -1 for none. */
  #admit(view: DataView, at: number, length: number, tag: number, nowUs: number): number {
    const candidate = tag >>> 26, payload = udpPayloadAt(view, at);
    if (this.#candidates[candidate] !== tag) {
      this.#candidates[candidate] = tag;
      this.#seen[candidate] = 0;
    }
    this.#lines.note(view, payload, at + length, candidate);
    this.kept = KEPT_NEW;
    if (++this.#seen[candidate] <= CANDIDATE_PACKETS) return -1;
    const number = this.#freeNumber(nowUs);
    if (number < 0) {
      this.#seen[candidate] = CANDIDATE_PACKETS;
      this.kept = KEPT_ROOM;
      return -1;
    }
    this.#candidates[candidate] = 0;
    const isFour = view.getUint8(at) >> 4 === 4;
    const isRtp = this.#lines.stride[candidate] !== 0 && mayBeRtp(view, payload, at + length - payload);
    const profile = view.getUint8(at + (isFour ? 9 : 6)) === PROTOCOL_TCP
      ? PROFILE.TCP
      : isRtp
      ? PROFILE.RTP
      : PROFILE.UDP;
    const context = this.#contexts[number] = new Context(profile, ++this.#incarnation);
    for (let i = 0; i < FLOW_BYTES && i < length; i++) context.name.setUint8(i, view.getUint8(at + i));
    if (profile === PROFILE.RTP) context.source = view.getUint32(payload + 8);
    this.#tags[number] = tag;
    return number;
  }

  /** The flow's packets no longer suit its profile: an RTP flow with another source begins anew, others rest. */
  #giveUp(context: Context, number: number, view: DataView, at: number, length: number, nowUs: number): void {
    context.misses = 0;
    const payload = udpPayloadAt(view, at);
    const isOther = context.flow.profile === PROFILE.RTP && mayBeRtp(view, payload, at + length - payload) &&
      view.getUint32(payload + 8) !== context.source;
    if (!isOther) context.restUntilUs = nowUs + REST_US;
    else {
      this.#contexts[number] = undefined;
      this.#tags[number] = 0;
    }
  }

  /** The lowest number without a flow, or that of the flow which was silent for longest; -1 if all are in use. */
  #freeNumber(nowUs: number): number {
    let oldest = -1, oldestUs = nowUs - IDLE_US;
    for (let i = 0; i < CONTEXTS; i++) {
      const context = this.#contexts[i];
      if (context === undefined) return i;
      if (context.usedUs >= oldestUs) continue;
      oldest = i;
      oldestUs = context.usedUs;
    }
    return oldest;
  }

  #noteUnsealed(look: number, number: number, context: Context): void {
    const place = (this.#head + this.#unsealed) % UNSEALED_MAX;
    this.#looks[place] = look;
    this.#numbers[place] = number;
    this.#incarnations[place] = context.incarnation;
    this.#packets[place] = context.flow.packet;
    if (this.#unsealed < UNSEALED_MAX) this.#unsealed++;
    else this.#head = (this.#head + 1) % UNSEALED_MAX;
  }

  /** The packet that looks so has a datagram; those before it, if any, never got one. */
  #noteSealed(look: number, counter: number): void {
    for (let age = 0; age < this.#unsealed; age++) {
      const place = (this.#head + age) % UNSEALED_MAX;
      if (this.#looks[place] !== look) continue;
      this.#head = (place + 1) % UNSEALED_MAX;
      this.#unsealed -= age + 1;
      const context = this.#contexts[this.#numbers[place]];
      if (context?.incarnation !== this.#incarnations[place]) return;
      const to = context.sent++ % WINDOW;
      context.counters[to] = counter;
      context.packets[to] = this.#packets[place];
      return;
    }
  }
}

/** First octet that stands for ROHC's own, as a packet's octets are read and their checksum is reckoned. */
export function asRohc(first: number): number {
  return ADD_CID | (first & 0x0f);
}

/** What tells one packet from its neighbours: its length and its first two octets. */
function lookOf(view: DataView, at: number, length: number): number {
  return length * 65536 + (length < 2 ? 0 : view.getUint16(at));
}
