// Hot path.
/**
 * The largest datagram that one direction of a path takes, found by probing (RFC 8899; PROTOCOL §17). Sizes are bytes of
 * UDP payload. Invariant: the size rises only by the reply to the probe under way, at most one probe is under way, and three
 * losses of one size count once something smaller got through beside two of them, since an outage says nothing of sizes. Pure:
 * sends nothing, and time is an argument.
 * Keeps PROTOCOL R76 and R83.
 */

/** What every path is taken to carry (RFC 8899 §5.1.2, BASE_PLPMTU). */
export const BASE_BYTES = 1200;
/** Probes of one size that are lost before it counts as too big (RFC 8899 §5.1.2). */
export const MAX_PROBES = 3;
/**
 * Of these losses, how many need something that got through beside them. Not all: an idle session sends nothing but repeats.
 * One would be too few: the end of an outage may coincide with the last probe that was lost in it.
 */
const MIN_HEARD = 2;
/** Losses in a row beside which nothing got through, after which the search waits for the path to come back. */
export const MAX_OUTAGES = 3;
/** How long it waits, and then until the path is used; it ends when anything arrives. */
export const OUTAGE_US = 1_000_000;
/** The search ends when it knows the size this closely. */
export const GRANULARITY_BYTES = 4;
/** A size below the largest is probed upwards again after this time (RFC 8899 §5.1.1). */
export const RAISE_US = 600_000_000;
/** A path that does not even take the base is probed again after this time. */
export const NARROW_RETRY_US = 30_000_000;
/** Large datagrams lost in a row after which the size is doubted; as many are followed. */
export const FOLLOWED = 4;
/** Two losses are enough where they are LOST_APART_US apart: that sender waits for each loss before it sends again. */
const LOST_APART = 2, LOST_APART_US = 250_000;
/** A doubt is not repeated sooner. */
const DOUBT_US = 1_000_000;

export class PathSize {
  /** The largest size that is known to arrive, or the base. */
  bytes = BASE_BYTES;
  /** Whether a probe of `probed` bytes waits to be sent. */
  isDue = false;
  /** The size that is probed; 0 when none is. */
  probed = 0;
  /** When the probe under way counts as lost, or Infinity. */
  dueUs = Infinity;
  /** From when on use of the path begins another search, or Infinity. */
  searchAtUs = Infinity;
  /** Whether a search has ended and no other is running. */
  isSettled = false;
  /** Whether the path has been found not to take the base. */
  isNarrow = false;
  readonly max: number;
  /** Of the size that is probed: losses, those beside which something got through, and the others since the last of these. */
  #losses = 0;
  #heardLosses = 0;
  #outages = 0;
  /** The size whose search waits for the end of an outage; 0 when none does. */
  #waiting = 0;
  /** Counter and time of the last probe, in whole microseconds, and whether something that was sent since has arrived. */
  #probeCounter = 0;
  #probeUs = 0;
  #isHeard = false;
  /** Whether a datagram of the base size or more is known to have arrived. */
  #isBaseKnown = false;
  /** The smallest size that is known to be too big; beyond the largest while that was not tried. */
  #tooBig: number;
  /** The size of the path before, which is tried first. */
  #hint = 0;
  /** Counters of large datagrams that no report has mentioned, since when, and how many were lost in a row. */
  readonly #followed = new Float64Array(FOLLOWED);
  #followedCount = 0;
  #followedSinceUs = 0;
  #lostInRow = 0;
  #lostSinceUs = 0;
  #doubtedUs = -Infinity;
  /** How long a reply may take. */
  #timerUs = DOUBT_US;
  #isStream = false;

  /** @param maxBytes what both ends and their interfaces allow; less than the base counts as the base. */
  constructor(maxBytes: number) {
    this.max = Math.max(BASE_BYTES, maxBytes);
    this.#tooBig = this.max + 1;
  }

  /**
   * Begins a search on a new path, from the size of the path before. @param isStream whether the path is a connection, which
   * takes every size and is not probed.
   */
  begin(isStream = false): void {
    this.#isStream = isStream;
    if (isStream) {
      this.bytes = this.max;
      this.#isBaseKnown = true;
      this.isNarrow = false;
      this.#forget();
      this.#rest(Infinity);
      return;
    }
    this.#hint = this.#isBaseKnown ? this.bytes : 0;
    this.bytes = BASE_BYTES;
    this.#isBaseKnown = this.isNarrow = false;
    this.#tooBig = this.max + 1;
    this.#forget();
    this.#next(0);
  }

  /** Ends all searches: nothing is sent on the path any more. */
  halt(): void {
    this.#rest(Infinity);
  }

  /** Notes that the path is used: a search that waited for this begins. */
  onUse(nowUs: number): void {
    if (nowUs < this.searchAtUs) return;
    if (this.#waiting !== 0) return this.#probe(this.#waiting);
    this.#tooBig = this.max + 1;
    this.#hint = 0;
    if (this.isNarrow) this.#probe(BASE_BYTES);
    else this.#next(nowUs);
  }

  /** Whether the probe that is due is a repeat: something small that is answered is to be sent just before it. */
  get isRepeat(): boolean {
    return this.#losses > 0;
  }

  /** Notes that the probe that was due was sent with this counter. `timerUs`: how long its reply may take. */
  onSent(counter: number, nowUs: number, timerUs: number): void {
    this.#probeCounter = counter;
    this.#probeUs = Math.floor(nowUs);
    this.#isHeard = false;
    this.isDue = false;
    this.dueUs = nowUs + timerUs;
    this.#timerUs = timerUs;
  }

  /** Takes the other end's reply: a probe of `bytes` arrived. */
  onReply(bytes: number, nowUs: number): void {
    // A probe that is to be repeated has been sent before.
    if (bytes === 0 || bytes !== this.probed || (this.isDue && !this.isRepeat)) return;
    this.bytes = bytes;
    this.#isBaseKnown = true;
    this.isNarrow = false;
    this.#forget();
    this.#next(nowUs);
  }

  /** The other end has answered something that was sent at that time, in whole microseconds: a pong tells no more. */
  onAnswer(sentUs: number): void {
    if (sentUs >= this.#probeUs) this.#hear();
  }

  /** Something that was sent with the last probe or after it has arrived: if there was an outage, it is over. */
  #hear(): void {
    this.#isHeard = true;
    if (this.#waiting !== 0) this.#probe(this.#waiting);
  }

  /** Counts the probe under way as lost, when that is due. */
  handleTimeout(nowUs: number): void {
    if (nowUs < this.dueUs) return;
    this.dueUs = Infinity;
    this.#losses++;
    if (this.#isHeard) {
      this.#heardLosses++;
      this.#outages = 0;
    } else this.#outages++;
    const lost = this.probed;
    if (this.#losses < MAX_PROBES || this.#heardLosses < MIN_HEARD) {
      if (this.#outages < MAX_OUTAGES) this.isDue = true;
      else {
        this.#rest(nowUs + OUTAGE_US);
        this.isSettled = this.#isBaseKnown;
        this.#waiting = lost;
      }
      return;
    }
    if (lost > this.bytes) {
      this.#tooBig = lost;
    } else if (lost > BASE_BYTES) {
      // The path no longer takes a size that it took: a black hole.
      this.#tooBig = lost;
      this.bytes = BASE_BYTES;
      this.#isBaseKnown = false;
    } else {
      this.#isBaseKnown = false;
      this.isNarrow = true;
      this.#rest(nowUs + NARROW_RETRY_US);
      return;
    }
    this.#next(nowUs);
  }

  /** Follows a datagram larger than the base that was sent with this counter. */
  onLarge(counter: number, nowUs: number): void {
    const waitedUs = this.#followedCount === 0 ? 0 : nowUs - this.#followedSinceUs;
    if (this.#followedCount === FOLLOWED ? waitedUs >= this.#timerUs : waitedUs >= DOUBT_US) {
      // No reports arrive: perhaps every datagram is large, and lost.
      this.#doubt(nowUs);
    } else if (this.#followedCount < FOLLOWED) {
      if (this.#followedCount === 0) this.#followedSinceUs = nowUs;
      this.#followed[this.#followedCount++] = counter;
    }
  }

  /** The other end says which of the last counters up to `highest` arrived: bit i of `bitmap` is highest - 1 - i. */
  onReport(highest: number, bitmap: Uint8Array, bitmapBytes: number, nowUs: number): void {
    if (highest > this.#probeCounter) this.#hear();
    let kept = 0;
    for (let i = 0; i < this.#followedCount; i++) {
      const counter = this.#followed[i], behind = highest - 1 - counter;
      if (counter > highest) this.#followed[kept++] = counter;
      else if (behind < 0 || behind < 8 * bitmapBytes && (bitmap[behind >> 3] >> (behind & 7) & 1) === 1) {
        this.#lostInRow = 0;
      } else if (behind < 8 * bitmapBytes && this.#lostInRow++ === 0) this.#lostSinceUs = nowUs;
    }
    if (kept < this.#followedCount) this.#followedSinceUs = nowUs;
    this.#followedCount = kept;
    const isApart = this.#lostInRow >= LOST_APART && nowUs - this.#lostSinceUs >= LOST_APART_US;
    if (isApart || this.#lostInRow >= FOLLOWED) this.#doubt(nowUs);
  }

  /** Large datagrams seem to be lost where others are not: probes whether the size still arrives. */
  #doubt(nowUs: number): void {
    this.#forget();
    if (this.#isStream || nowUs - this.#doubtedUs < DOUBT_US) return;
    this.#doubtedUs = nowUs;
    // A size that is not known yet needs no probe of this kind. A search upwards continues afterwards.
    if (!this.#isBaseKnown || this.probed === this.bytes) return;
    this.#probe(this.bytes);
  }

  #forget(): void {
    this.#followedCount = this.#lostInRow = 0;
  }

  /** The size that is tried before anything is known to be too big. */
  #first(): number {
    return this.#hint > this.bytes ? this.#hint : this.max;
  }

  /** Continues the search, or ends it. */
  #next(nowUs: number): void {
    const { bytes, max } = this;
    if (this.#tooBig > max && (bytes < max || !this.#isBaseKnown)) this.#probe(this.#first());
    else if (!this.#isBaseKnown) this.#probe(BASE_BYTES);
    else if (this.#tooBig - bytes > GRANULARITY_BYTES) this.#probe((bytes + this.#tooBig) >> 1);
    else this.#rest(bytes < max ? nowUs + RAISE_US : Infinity);
  }

  #probe(bytes: number): void {
    this.probed = bytes;
    this.#losses = this.#heardLosses = this.#outages = 0;
    this.#waiting = 0;
    this.isDue = true;
    this.isSettled = false;
    this.dueUs = this.searchAtUs = Infinity;
  }

  #rest(searchAtUs: number): void {
    this.probed = this.#waiting = 0;
    this.isDue = false;
    this.isSettled = true;
    this.dueUs = Infinity;
    this.searchAtUs = searchAtUs;
  }
}
