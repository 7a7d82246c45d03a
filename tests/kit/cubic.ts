/**
 * The sender of a transfer that CUBIC controls (RFC 9438), as TCP and QUIC stacks have it: a window in packets of one size, slow start
 * that ends with the round trip's growth (RFC 9406), losses by packets overtaken and by time (RFC 9002 section 6.1), and a pace
 * over the round trip. Invariant: the same calls give the same packets; what is lost is not sent again, for it stands for any data. Owns no socket and reads no clock.
 */

const INITIAL_PACKETS = 10, PACKETS_MIN = 2;
// RFC 9438 sections 4.6 and 5.
const CUBIC_BETA = 0.7, CUBIC_C = 0.4;
// RFC 9002 section 6.1 and 7.7.
const OVERTAKEN = 3, TIME_SHARE = 9 / 8, PACING_GAIN = 1.25;
/** Packets on their way at most, a power of two. */
const KEPT = 1 << 16;
// RFC 9406 section 4.2: by how much the least round trip of a round is above that of the round before where slow start ends, and
// of how many samples.
const GROWTH_US_MIN = 4000, GROWTH_US_MAX = 16_000, ROUND_SAMPLES = 8;
/** How much a pace may be made up for at once, and what without an acknowledgement is a timeout, microseconds. */
const LATE_US = 2000, TIMEOUT_US = 500_000;

export class CubicSender {
  /** The number of the next packet. */
  next = 0;
  readonly #sentUs = new Float64Array(KEPT);
  readonly #isFlying = new Uint8Array(KEPT);
  #oldest = 0;
  #flying = 0;
  /** In packets, as are the others. */
  #window = INITIAL_PACKETS;
  #threshold = Infinity;
  #maxWindow = 0;
  #epochUs = 0;
  /** Losses of packets before this one belong to the same event. */
  #recovery = -1;
  #srttUs = 100_000;
  #rttUs = 0;
  // Of the round that lasts until this packet: samples and the least of them; and the least of the round before.
  #roundEnd = 0;
  #roundSamples = 0;
  #roundUs = Infinity;
  #roundBeforeUs = Infinity;
  #sendAtUs = 0;
  #heardUs: number;
  #losses = 0;

  constructor(nowUs: number) {
    this.#heardUs = nowUs;
  }

  /** Packets that were lost. */
  get losses(): number {
    return this.#losses;
  }

  /** When `take` may say yes next, if nothing is acknowledged before. */
  dueUs(nowUs: number): number {
    return this.#flying < this.#window ? Math.max(nowUs, this.#sendAtUs) : nowUs + TIMEOUT_US;
  }

  /** Whether one more packet may go now; its number is the `next` of before. */
  take(nowUs: number): boolean {
    if (nowUs - this.#heardUs > Math.max(TIMEOUT_US, 3 * this.#srttUs)) this.#giveUp(nowUs);
    if (this.#flying + 1 > this.#window || this.#flying >= KEPT || this.#sendAtUs > nowUs) return false;
    const at = this.next++ % KEPT;
    this.#sentUs[at] = nowUs;
    this.#isFlying[at] = 1;
    if (this.#flying++ === 0) this.#heardUs = nowUs;
    this.#sendAtUs = Math.max(this.#sendAtUs, nowUs - LATE_US) + this.#srttUs / (PACING_GAIN * this.#window);
    return true;
  }

  /** Nothing was heard for long: all that flies is lost. */
  #giveUp(nowUs: number): void {
    for (; this.#oldest < this.next; this.#oldest++) this.#isFlying[this.#oldest % KEPT] = 0;
    this.#flying = 0;
    this.#threshold = Math.max(PACKETS_MIN, this.#window * CUBIC_BETA);
    this.#window = PACKETS_MIN;
    this.#heardUs = nowUs;
  }

  /** An acknowledgement: packets from `from` to `to` have come. After the last of one datagram, `settle`. */
  acked(from: number, to: number, nowUs: number): void {
    this.#heardUs = nowUs;
    let acked = 0;
    for (let number = Math.max(from, this.#oldest); number <= to && number < this.next; number++) {
      if (this.#isFlying[number % KEPT] === 0) continue;
      this.#isFlying[number % KEPT] = 0;
      this.#flying--;
      acked++;
      if (number === to) this.#roundTrip(number, nowUs - this.#sentUs[number % KEPT]);
    }
    if (to > this.#recovery && acked > 0) this.#grow(acked, nowUs);
  }

  /** Judges what is lost, the newest packet that has come being `largest`. */
  settle(largest: number, nowUs: number): void {
    const lateUs = nowUs - TIME_SHARE * Math.max(this.#srttUs, this.#rttUs);
    for (; this.#oldest < this.next; this.#oldest++) {
      const at = this.#oldest % KEPT;
      if (this.#isFlying[at] === 0) continue;
      const isLate = this.#oldest < largest && this.#sentUs[at] < lateUs;
      if (this.#oldest > largest - OVERTAKEN && !isLate) return;
      this.#isFlying[at] = 0;
      this.#flying--;
      this.#lost(this.#oldest, nowUs);
    }
  }

  #roundTrip(number: number, us: number): void {
    this.#rttUs = us;
    this.#srttUs += (us - this.#srttUs) / 8;
    if (number >= this.#roundEnd) {
      this.#roundEnd = this.next;
      this.#roundBeforeUs = this.#roundUs;
      this.#roundUs = Infinity;
      this.#roundSamples = 0;
    }
    this.#roundUs = Math.min(this.#roundUs, us);
    const growthUs = Math.min(GROWTH_US_MAX, Math.max(GROWTH_US_MIN, this.#roundBeforeUs / 8));
    const hasGrown = ++this.#roundSamples >= ROUND_SAMPLES && this.#roundUs > this.#roundBeforeUs + growthUs;
    if (hasGrown && this.#window < this.#threshold) this.#threshold = this.#window;
  }

  #lost(number: number, nowUs: number): void {
    this.#losses++;
    if (number <= this.#recovery) return;
    this.#recovery = this.next - 1;
    const window = this.#window;
    // Fast convergence (RFC 9438 section 4.7).
    this.#maxWindow = window < this.#maxWindow ? window * (1 + CUBIC_BETA) / 2 : window;
    this.#window = this.#threshold = Math.max(PACKETS_MIN, window * CUBIC_BETA);
    this.#epochUs = nowUs;
  }

  #grow(packets: number, nowUs: number): void {
    const window = this.#window;
    if (window < this.#threshold) {
      this.#window += packets;
      return;
    }
    if (this.#epochUs === 0) [this.#epochUs, this.#maxWindow] = [nowUs, window];
    const k = Math.cbrt(this.#maxWindow * (1 - CUBIC_BETA) / CUBIC_C);
    const seconds = (nowUs - this.#epochUs + this.#srttUs) / 1e6;
    const target = CUBIC_C * (seconds - k) ** 3 + this.#maxWindow;
    // As much as Reno would take (section 4.3), or towards the cubic.
    const reno = 3 * (1 - CUBIC_BETA) / (1 + CUBIC_BETA) * packets / window;
    this.#window += Math.max(reno, Math.min(packets / 2, (target - window) * packets / window));
  }
}
