/**
 * How often askers ask for ports: each may REQUESTS_PER_S times a second. Invariant: at most ASKERS_MAX are counted at a time.
 */

const REQUESTS_PER_S = 32;
const ASKERS_MAX = 4096;

export class Asked<Asker> {
  readonly #counts = new Map<Asker, number>();
  readonly #mayUncounted: boolean;
  #second = NaN;

  /** `mayUncounted`: whether who comes when ASKERS_MAX are counted already may ask, as where others count again, or must not. */
  constructor(mayUncounted = false) {
    this.#mayUncounted = mayUncounted;
  }

  /** Counts one request; false where it is one too many in this second, which is of any clock. */
  may(asker: Asker, nowS = performance.now() / 1000): boolean {
    if (Math.floor(nowS) !== this.#second) {
      this.#second = Math.floor(nowS);
      this.#counts.clear();
    }
    const count = this.#counts.get(asker) ?? 0;
    if (count === 0 && this.#counts.size >= ASKERS_MAX) return this.#mayUncounted;
    if (count >= REQUESTS_PER_S) return false;
    this.#counts.set(asker, count + 1);
    return true;
  }
}
