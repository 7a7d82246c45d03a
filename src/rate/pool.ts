/**
 * The paths of a Worker whose rate is being found: how many at a time, whose rate counts for a peer, and who is told. Invariant: their
 * memory is bounded, some 90 KB each, and a rate goes with the path that it was found for. Finds nothing itself: path_rate.ts does.
 */
import { PathRate } from "./path_rate.ts";

const RATES_MAX = 512;
/** Networks of peers whose last rate is remembered, and for how long, microseconds. */
const NETWORKS_MAX = 1024, REMEMBERED_US = 600_000_000;

/** Told what a peer may be sent, bytes a second with IP and UDP headers; 0 for as much as comes. */
export type RateFound = (peer: number, bytesPerS: number, nowUs: number) => void;

export class Rates {
  /** By peer: the path whose rate counts, the last that was taken. */
  readonly #counts = new Map<number, PathRate>();
  #taken = 0;
  readonly #random: () => number;
  readonly #found: RateFound;
  readonly #isWanted: (peer: number) => boolean;

  /** @param random uniform in [0, 1). @param isWanted whether a peer's rates are to be looked for. @param isForesighted below. */
  constructor(
    random: () => number,
    found: RateFound,
    isWanted: (peer: number) => boolean = () => true,
    isForesighted: (peer: number) => boolean = () => false,
    isRemembered: (peer: number) => boolean = () => false,
  ) {
    this.#isRemembered = isRemembered;
    this.#random = random;
    this.#found = found;
    this.#isWanted = isWanted;
    this.isForesighted = isForesighted;
  }

  /** A path's rate for the peer from now on; undefined when there are too many, or it is not wanted. @param network as for `give`. */
  take(peer: number, nowUs: number, network = ""): PathRate | undefined {
    if (this.#taken === RATES_MAX || !this.#isWanted(peer)) return undefined;
    this.#taken++;
    const rate = new PathRate(this.#random, nowUs);
    const known = this.#networks.get(`${peer} ${network}`);
    if (known !== undefined && nowUs - known.atUs < REMEMBERED_US && this.#isRemembered(peer)) {
      rate.startBytesPerS = known.bytesPerS;
    }
    this.#counts.set(peer, rate);
    this.reported(peer, rate, nowUs);
    return rate;
  }

  /** By peer and network: the rate that was found last, bytes a second, and when. The oldest is first. */
  readonly #networks = new Map<string, { bytesPerS: number; atUs: number }>();
  readonly #isRemembered: (peer: number) => boolean;
  /** Whether predicted losses lower the peer's rate ahead. */
  readonly isForesighted: (peer: number) => boolean;

  /** Paths whose rate is looked for. */
  get size(): number {
    return this.#taken;
  }

  /** The path whose rate counts for the peer; undefined while none is looked for. */
  of(peer: number): PathRate | undefined {
    return this.#counts.get(peer);
  }

  /** A report has come for the path. */
  reported(peer: number, rate: PathRate, nowUs: number): void {
    if (this.#counts.get(peer) !== rate) return;
    this.#found(peer, this.#isWanted(peer) ? rate.bytesPerS(nowUs) : 0, nowUs);
  }

  /** Forgets what is remembered of the peer's networks. Looks at all that is remembered. */
  forgetNetworks(peer: number): void {
    for (const key of this.#networks.keys()) {
      if (key.startsWith(`${peer} `)) this.#networks.delete(key);
    }
  }

  /**
   * The path's rate is no longer looked for, and what it was counts no more. @param network the text by which the network that the
   * rate belongs to is known again, the one that `take` had; the rate is remembered for the peer there. "" for none.
   */
  give(peer: number, rate: PathRate, nowUs: number, network = ""): void {
    this.#taken--;
    if (network !== "" && rate.foundBytesPerS > 0) {
      const key = `${peer} ${network}`;
      this.#networks.delete(key); // so that it becomes the newest
      this.#networks.set(key, { bytesPerS: rate.foundBytesPerS, atUs: nowUs });
      if (this.#networks.size > NETWORKS_MAX) this.#networks.delete(this.#networks.keys().next().value!);
    }
    if (this.#counts.get(peer) !== rate) return;
    this.#counts.delete(peer);
    this.#found(peer, 0, nowUs);
  }
}
