/**
 * One sender under BBR over a simulated bottleneck, for its example test cases: packets are paced, bounded by the window, queued at
 * the link and acknowledged one by one; what three later ones have overtaken is lost. Invariant: the same seed and calls give the
 * same run. Sends no data again: who sends has more, or has a rate of its own.
 */
import { Bbr, CONFORMANCE, type Tuning } from "../../src/rate/bbr.ts";
import { DeliveryRate } from "../../src/rate/delivery_rate.ts";
import { Random } from "../kit/random.ts";

export const MSS = 1500;
const OVERTAKEN = 3;

export interface Link {
  bytesPerS: number;
  /** Two ways. */
  rttUs: number;
  /** Bytes in front of the link at most. */
  bufferBytes: number;
  /** Share lost besides. */
  loss: number;
  /** The interval at which acknowledgements are delivered together, microseconds; 0 to deliver each by itself. */
  ackEveryUs: number;
  /** A token bucket of this size, bytes, in place of a buffer, filled at `bytesPerS`; a packet without tokens is lost. */
  bucketBytes?: number;
  /** Packets from now on are held up by this, microseconds; overtaken by later ones. */
  lateUs: number;
}

export class Flow {
  readonly rate = new DeliveryRate();
  readonly bbr: Bbr;
  readonly link: Link;
  nowUs = 1_000_000;
  /** Bytes a second that the sender has; Infinity for as many as go. */
  appBytesPerS = Infinity;
  /** The state and when it began, each time that it changed. */
  readonly states: { state: number; atUs: number }[] = [];
  deliveredBytes = 0;
  lostBytes = 0;
  readonly #random: Random;
  readonly #acks: { atUs: number; mark: number }[] = [];
  readonly #flying: number[] = [];
  #sendAtUs = 0;
  #appReadyUs = 0;
  #freeUs = 0;
  #tokens = 0;
  #tokensUs = 0;
  #isCwndLimited = false;

  constructor(link: Partial<Link>, seed = 1, tuning: Tuning = CONFORMANCE) {
    this.link = {
      bytesPerS: 1_250_000,
      rttUs: 40_000,
      bufferBytes: 400_000,
      loss: 0,
      ackEveryUs: 0,
      lateUs: 0,
      ...link,
    };
    this.#random = new Random(seed);
    this.bbr = new Bbr(MSS, () => this.#random.real(), this.nowUs, Infinity, tuning);
    this.#tokens = this.link.bucketBytes ?? 0;
    this.#note();
  }

  get bdp(): number {
    return this.link.bytesPerS * this.link.rttUs / 1e6;
  }

  /** Runs until the state is entered; throws after `seconds` of simulated time. */
  runTo(state: number, seconds = 60): void {
    const untilUs = this.nowUs + seconds * 1e6;
    while (this.bbr.state !== state) {
      if (this.nowUs > untilUs) throw new Error(`state ${state} was not entered in ${seconds} s`);
      this.step(untilUs + 1);
    }
  }

  runWhile(condition: () => boolean, seconds = 60): void {
    const untilUs = this.nowUs + seconds * 1e6;
    while (condition()) {
      if (this.nowUs > untilUs) throw new Error(`it lasted longer than ${seconds} s`);
      this.step(untilUs + 1);
    }
  }

  runFor(us: number): void {
    const untilUs = this.nowUs + us;
    while (this.nowUs < untilUs) this.step(untilUs);
  }

  /** The next thing that happens, at `untilUs` at the latest. */
  step(untilUs: number): void {
    const ackUs = this.#acks.length > 0 ? this.#acks[0].atUs : Infinity;
    const isBlocked = this.rate.inflight + MSS > this.bbr.cwnd;
    const hasData = this.appBytesPerS > 0;
    const sendUs = !hasData || isBlocked
      ? Infinity
      : Math.max(this.nowUs, this.#sendAtUs, this.appBytesPerS === Infinity ? 0 : this.#appReadyUs);
    if (hasData && isBlocked && (this.appBytesPerS === Infinity || this.#appReadyUs <= this.nowUs)) {
      this.#isCwndLimited = true;
    }
    const nextUs = Math.min(ackUs, sendUs, untilUs);
    // Less than the link takes is what the sender has, not what the path gives.
    const waitsForData = !hasData || sendUs > Math.max(this.nowUs, this.#sendAtUs) && sendUs !== Infinity;
    if (waitsForData && !isBlocked) this.rate.markAppLimited();
    this.nowUs = Math.max(this.nowUs, nextUs);
    if (nextUs === ackUs) this.#ack();
    else if (nextUs === sendUs) this.#send();
    this.#note();
  }

  #note(): void {
    if (this.states.at(-1)?.state !== this.bbr.state) {
      this.states.push({ state: this.bbr.state, atUs: this.nowUs });
    }
  }

  #send(): void {
    const { bbr, rate, link, nowUs } = this;
    bbr.onTransmit(rate, nowUs);
    const mark = rate.sent(MSS, nowUs);
    this.#flying.push(mark);
    this.#sendAtUs = Math.max(nowUs, this.#sendAtUs) + MSS / bbr.pacingRate * 1e6;
    if (this.appBytesPerS < Infinity) {
      this.#appReadyUs = Math.max(nowUs, this.#appReadyUs) + MSS / this.appBytesPerS * 1e6;
    }
    if (this.#random.real() < link.loss || !this.#isTaken()) return;
    const serviceUs = link.bucketBytes === undefined ? MSS / link.bytesPerS * 1e6 : 0;
    this.#freeUs = Math.max(nowUs, this.#freeUs) + serviceUs;
    let atUs = this.#freeUs + link.rttUs + link.lateUs;
    if (link.ackEveryUs > 0) atUs = Math.ceil(atUs / link.ackEveryUs) * link.ackEveryUs;
    let at = this.#acks.length;
    while (at > 0 && this.#acks[at - 1].atUs > atUs) at--;
    this.#acks.splice(at, 0, { atUs, mark });
  }

  #isTaken(): boolean {
    const { link, nowUs } = this;
    if (link.bucketBytes === undefined) {
      return Math.max(0, this.#freeUs - nowUs) * link.bytesPerS / 1e6 <= link.bufferBytes;
    }
    this.#tokens = Math.min(link.bucketBytes, this.#tokens + (nowUs - this.#tokensUs) * link.bytesPerS / 1e6);
    this.#tokensUs = nowUs;
    if (this.#tokens < MSS) return false;
    this.#tokens -= MSS;
    return true;
  }

  #ack(): void {
    const { bbr, rate, nowUs } = this;
    rate.begin();
    let highest = -1;
    while (this.#acks.length > 0 && this.#acks[0].atUs <= nowUs) {
      const { mark } = this.#acks.shift()!;
      if (rate.isFlying(mark)) this.deliveredBytes += MSS;
      rate.acked(mark, nowUs);
      highest = Math.max(highest, mark);
    }
    while (this.#flying.length > 0 && this.#flying[0] <= highest - OVERTAKEN) {
      const mark = this.#flying.shift()!;
      if (!rate.isFlying(mark)) continue;
      rate.noteLost(mark);
      this.lostBytes += MSS;
      bbr.onLost(rate, mark, MSS, nowUs);
    }
    rate.finish(bbr.minRttUs);
    bbr.onAck(rate, this.#isCwndLimited, 0, nowUs);
    this.#isCwndLimited = false;
  }
}
