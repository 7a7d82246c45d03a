// Hot path.
/**
 * How much of what was sent has arrived, and how fast (draft-ietf-ccwg-bbr-06 section 4.1): each transmission leaves a mark with
 * what was delivered before it, and when it arrives the difference is a sample of the path's rate. Invariant: a sample takes the
 * longer of the time to send and the time to arrive, so that bursts of acknowledgements never show more than the path gives;
 * memory is fixed. Reads no clock and decides nothing. Bytes and microseconds.
 */

/** Marks that are kept, a power of two: transmissions on their way. */
export const MARKS = 1024;
/** Acknowledgements over which a rate of few packets is told, and how long ago the first one may be, microseconds. */
const SPANS = 8, SPANS_US = 200_000;

/** What one acknowledgement said. */
export interface RateSample {
  /** Whether anything was delivered. */
  hasData: boolean;
  /** Round trip of the transmission that was sent last, microseconds; -1 without one. */
  rttUs: number;
  /** Bytes a second; 0 where the interval is too short to tell. */
  rate: number;
  /** Bytes delivered over the interval, and newly by this acknowledgement; bytes lost since the marked one was sent. */
  delivered: number;
  newlyAcked: number;
  lost: number;
  /** `delivered` of all when the newest acknowledged was sent, and bytes on their way then. */
  priorDelivered: number;
  txInFlight: number;
  isAppLimited: boolean;
  /** Where the rate is told together with those of acknowledgements before: all that had been delivered before these; Infinity else. */
  since: number;
}

export class DeliveryRate {
  readonly sample: RateSample = {
    hasData: false,
    rttUs: -1,
    rate: 0,
    delivered: 0,
    newlyAcked: 0,
    lost: 0,
    priorDelivered: 0,
    txInFlight: 0,
    isAppLimited: false,
    since: Infinity,
  };
  /** Bytes delivered, lost and on their way. */
  delivered = 0;
  lost = 0;
  inflight = 0;
  /** `delivered` from which on samples tell of the path again and not of a sender without data; 0 when they do. */
  #appLimited = 0;
  #deliveredUs = 0;
  #firstSentUs = 0;
  // By mark.
  readonly bytes = new Float64Array(MARKS);
  readonly #sentUs = new Float64Array(MARKS);
  readonly #markFirstSentUs = new Float64Array(MARKS);
  readonly #markDeliveredUs = new Float64Array(MARKS);
  readonly #markDelivered = new Float64Array(MARKS);
  readonly #markLost = new Float64Array(MARKS);
  readonly #markInFlight = new Float64Array(MARKS);
  readonly #markAppLimited = new Uint8Array(MARKS);
  /** 1 while neither delivered nor lost. */
  readonly #isFlying = new Uint8Array(MARKS);
  #next = 0;
  #sendElapsedUs = 0;
  #ackElapsedUs = 0;
  #newest = -1;
  // By acknowledgement: what had been delivered then and when, when the newest of it was sent, and whether the sender lacked data.
  readonly #spanDelivered = new Float64Array(SPANS);
  readonly #spanDeliveredUs = new Float64Array(SPANS);
  readonly #spanSentUs = new Float64Array(SPANS);
  readonly #spanIsLimited = new Uint8Array(SPANS);
  #spans = 0;

  /** When what was acknowledged last arrived, by the caller's clock. */
  get deliveredUs(): number {
    return this.#deliveredUs;
  }

  get isAppLimited(): boolean {
    return this.#appLimited > 0;
  }

  /** Notes a transmission of `bytes`; returns its mark, a number that grows by one. What flew MARKS marks ago is forgotten as lost. */
  sent(bytes: number, nowUs: number): number {
    const mark = this.#next, at = mark & (MARKS - 1);
    this.noteLost(mark - MARKS);
    this.#next++;
    if (this.inflight <= 0) {
      this.inflight = 0;
      this.#firstSentUs = this.#deliveredUs = nowUs;
    }
    this.inflight += bytes;
    this.bytes[at] = bytes;
    this.#sentUs[at] = nowUs;
    this.#markFirstSentUs[at] = this.#firstSentUs;
    this.#markDeliveredUs[at] = this.#deliveredUs;
    this.#markDelivered[at] = this.delivered;
    this.#markLost[at] = this.lost;
    this.#markInFlight[at] = this.inflight;
    this.#markAppLimited[at] = this.#appLimited > 0 ? 1 : 0;
    this.#isFlying[at] = 1;
    return mark;
  }

  isFlying(mark: number): boolean {
    return mark < this.#next && mark >= this.#next - MARKS && this.#isFlying[mark & (MARKS - 1)] === 1;
  }

  /** Bytes that were on their way when the mark was sent, its own counted. */
  inFlightAt(mark: number): number {
    return this.#markInFlight[mark & (MARKS - 1)];
  }

  /** Begins an acknowledgement: `acked` and `noteLost` for its marks, then `finish`. */
  begin(): void {
    const { sample } = this;
    sample.hasData = false;
    sample.rttUs = -1;
    sample.rate = sample.delivered = sample.newlyAcked = 0;
    this.#newest = -1;
  }

  /** The mark's transmission was delivered, as this acknowledgement says for the first time. */
  acked(mark: number, nowUs: number): void {
    if (!this.isFlying(mark)) return;
    const { sample } = this, at = mark & (MARKS - 1);
    this.#isFlying[at] = 0;
    this.inflight -= this.bytes[at];
    this.delivered += this.bytes[at];
    this.#deliveredUs = nowUs;
    sample.newlyAcked += this.bytes[at];
    if (mark <= this.#newest) return;
    this.#newest = mark;
    sample.hasData = true;
    sample.rttUs = nowUs - this.#sentUs[at];
    sample.priorDelivered = this.#markDelivered[at];
    sample.isAppLimited = this.#markAppLimited[at] === 1;
    sample.txInFlight = this.#markInFlight[at];
    sample.lost = this.lost - this.#markLost[at];
    this.#sendElapsedUs = this.#sentUs[at] - this.#markFirstSentUs[at];
    this.#ackElapsedUs = nowUs - this.#markDeliveredUs[at];
    this.#firstSentUs = this.#sentUs[at];
  }

  /** The mark's transmission is given up. */
  noteLost(mark: number): void {
    if (!this.isFlying(mark)) return;
    const at = mark & (MARKS - 1);
    this.#isFlying[at] = 0;
    this.inflight -= this.bytes[at];
    this.lost += this.bytes[at];
  }

  /** Bytes lost since the mark was sent. */
  lostSince(mark: number): number {
    return this.lost - this.#markLost[mark & (MARKS - 1)];
  }

  /** Whether the sender had no more data when the mark was sent. */
  wasAppLimited(mark: number): boolean {
    return this.#markAppLimited[mark & (MARKS - 1)] === 1;
  }

  /**
   * Ends the acknowledgement: `sample` is whole. @param minRttUs an interval that is shorter tells nothing. @param leastBytes of fewer the
   * rate is told together with those of acknowledgements before, SPANS at most: with few packets one more or less is much.
   */
  finish(minRttUs: number, leastBytes = 0): void {
    if (this.#appLimited > 0 && this.delivered > this.#appLimited) this.#appLimited = 0;
    const { sample } = this;
    if (!sample.hasData) return;
    const intervalUs = Math.max(this.#sendElapsedUs, this.#ackElapsedUs);
    sample.delivered = this.delivered - sample.priorDelivered;
    if (intervalUs > 0 && (minRttUs === Infinity || intervalUs >= minRttUs)) {
      sample.rate = sample.delivered / intervalUs * 1e6;
    }
    if (leastBytes > 0) this.#widen(leastBytes);
  }

  /** Where too little was delivered, takes in what was before, and notes this acknowledgement for later ones. */
  #widen(leastBytes: number): void {
    const { sample } = this, isOwnLimited = sample.isAppLimited;
    let isLimited = isOwnLimited;
    sample.since = Infinity;
    for (let i = 1; i <= SPANS && i <= this.#spans && sample.rate > 0 && sample.delivered < leastBytes; i++) {
      const at = (this.#spans - i) % SPANS, bytes = this.delivered - this.#spanDelivered[at];
      const sendUs = this.#firstSentUs - this.#spanSentUs[at],
        ackUs = this.#deliveredUs - this.#spanDeliveredUs[at];
      if (ackUs > SPANS_US) break;
      if (bytes > sample.delivered && Math.max(sendUs, ackUs) > 0) {
        sample.rate = bytes / Math.max(sendUs, ackUs) * 1e6;
        sample.isAppLimited = isLimited;
        sample.since = this.#spanDelivered[at];
      }
      if (bytes >= leastBytes) break;
      isLimited ||= this.#spanIsLimited[at] === 1;
    }
    const at = this.#spans++ % SPANS;
    this.#spanDelivered[at] = this.delivered;
    this.#spanDeliveredUs[at] = this.#deliveredUs;
    this.#spanSentUs[at] = this.#firstSentUs;
    this.#spanIsLimited[at] = isOwnLimited ? 1 : 0;
  }

  /** The sender has no more data for now: until what flies is delivered, samples tell of it and not of the path. */
  markAppLimited(): void {
    this.#appLimited = Math.max(this.delivered + this.inflight, 1);
  }
}
