// Hot path.
/**
 * Counts the repair of one direction of a session: frames, bytes, and the scheme in use. Invariant: the counts of the sending
 * end follow from what the sender wrote, those of the receiving end from what its reader read, so both ends say the same of
 * the same datagrams. Counts; decides nothing.
 */
import type { SeenScheme } from "./figures.ts";

/** `share` is that of the last whole period. */
const PERIOD_US = 1_000_000;
/** After this time without a repair the scheme is "none". */
const SCHEME_US = 5_000_000;
/** A copy whose distance from its original, in datagrams and on average, reaches this was held back. */
const SPACED_DISTANCE = 1.5;

export class RepairTally {
  /** Repair frames, their bytes with heads, and the bytes of all datagrams, UDP and IPv4 headers included. */
  repairs = 0;
  repairBytes = 0;
  /** Of the frames, those that answered requests. */
  answers = 0;
  bytes = 0;
  /** Sources that the last repair combined. */
  sources = 0;
  /** Age of a repair's newest source when the repair is sent or arrives, smoothed, microseconds. */
  laterUs = 0;
  #isBlock = false;
  #distance = 1;
  #repairedUs = -Infinity;
  #answeredUs = -Infinity;
  #nowUs = 0;
  #periodUs = -Infinity;
  #periodBytes = 0;
  #periodRepairBytes = 0;
  #share = 0;

  /** Counts a datagram of `bytes`, UDP and IPv4 headers included. */
  datagram(bytes: number, nowUs: number): void {
    this.#nowUs = nowUs;
    if (nowUs - this.#periodUs >= PERIOD_US) {
      const repairBytes = this.repairBytes - this.#periodRepairBytes, all = this.bytes - this.#periodBytes;
      // A repair is counted before the datagram that carries it: before the first datagram there is no ratio.
      if (all > repairBytes) this.#share = repairBytes / (all - repairBytes);
      this.#periodUs = nowUs;
      this.#periodBytes = this.bytes;
      this.#periodRepairBytes = this.repairBytes;
    }
    this.bytes += bytes;
  }

  /**
   * Counts a repair frame of `bytes`, head included, that combines `sources` datagrams, the newest of them `distance` counters
   * before the datagram that carries it. `sourceUs` is when that newest source was sent or arrived, NaN where unknown.
   */
  repair(
    isBlock: boolean,
    sources: number,
    distance: number,
    bytes: number,
    sourceUs: number,
    nowUs: number,
  ): void {
    this.#nowUs = nowUs;
    this.repairs++;
    this.repairBytes += bytes;
    this.sources = sources;
    this.#isBlock = isBlock;
    const isFirst = nowUs - this.#repairedUs > SCHEME_US, gain = isFirst ? 1 : 1 / 8;
    this.#repairedUs = nowUs;
    this.#distance += gain * (distance - this.#distance);
    if (!Number.isNaN(sourceUs)) this.laterUs += gain * (nowUs - sourceUs - this.laterUs);
  }

  /** Counts a repair frame of `bytes`, head included, that answers a request. */
  answer(bytes: number, nowUs: number): void {
    this.#nowUs = nowUs;
    this.repairs++;
    this.answers++;
    this.repairBytes += bytes;
    this.#answeredUs = nowUs;
  }

  /** The scheme in use at the last datagram. */
  get scheme(): SeenScheme {
    return this.schemeAt(this.#nowUs);
  }

  /** The scheme in use at `nowUs`, "request" without any in advance; "none" when nothing was repaired for some seconds. */
  schemeAt(nowUs: number): SeenScheme {
    if (nowUs - this.#repairedUs > SCHEME_US) return this.#isAnswering(nowUs) ? "request" : "none";
    if (this.#isBlock) return "block";
    if (this.sources > 1) return "window";
    return this.#distance < SPACED_DISTANCE ? "copy" : "spaced";
  }

  #isAnswering(nowUs: number): boolean {
    return nowUs - this.#answeredUs <= SCHEME_US;
  }

  /** Bytes of repair for each other byte, in the last whole second. */
  get share(): number {
    return this.#share;
  }

  /** Bytes of repair for each other byte, since the session began. */
  get extraRatio(): number {
    const { repairBytes, bytes } = this;
    return bytes > repairBytes ? repairBytes / (bytes - repairBytes) : 0;
  }

  /** The scheme and its bytes: "none", "on request, 5 %", "window 8, 24 %", "copy and on request, 10 %", "spaced, 30 ms later". */
  get description(): string {
    const { scheme, sources, laterUs, share } = this;
    if (scheme === "none") return scheme;
    const percent = `${Math.round(100 * share)} %`;
    if (scheme === "request") return `on request, ${percent}`;
    const also = this.#isAnswering(this.#nowUs) ? " and on request" : "";
    if (scheme === "spaced") return `spaced${also}, ${Math.round(laterUs / 1000)} ms later`;
    return `${scheme === "copy" ? scheme : `${scheme} ${sources}`}${also}, ${percent}`;
  }
}
