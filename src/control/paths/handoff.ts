/**
 * Whether a radio is about to change cells, by its signal: weak, or falling fast. A threshold and nothing more, because the
 * models that were tried beside it (bench/docs/paths.md) spare no packet for the same bytes. Invariant: a warning is a function
 * of the levels that were told and of the time; memory is fixed. Reads no signal.
 */

/** At this level a handover is likely, dBm. */
const WEAK_DBM = -72;
/** A fall of so many decibels within about two seconds says so earlier, below the level at which a fall matters. */
export const FALL_DB = 8;
const FALL_FROM_DBM = -64;
/** The level of about two seconds ago is a smoothed one. */
const SMOOTHING_US = 2_000_000;
/** How long a warning holds after its last reason. */
const HOLD_US = 2_000_000;
/** A driver that tells nothing tells zero; weaker than this is no signal. */
const LEAST_DBM = -120;

export class HandoffWatch {
  readonly #fallDb: number;
  #smoothedDbm = NaN;
  #atUs = 0;
  #untilUs = -Infinity;

  /** @param fallDb decibels of a fall that warns. */
  constructor(fallDb = FALL_DB) {
    this.#fallDb = fallDb;
  }

  /** Takes what a driver tells of the signal, dBm. What is no level, 0 and above or below -120, says nothing. */
  level(dbm: number, nowUs: number): void {
    if (!(dbm < 0 && dbm >= LEAST_DBM)) return;
    if (Number.isNaN(this.#smoothedDbm)) this.#smoothedDbm = dbm;
    const kept = Math.exp((this.#atUs - nowUs) / SMOOTHING_US);
    this.#smoothedDbm = dbm + kept * (this.#smoothedDbm - dbm);
    this.#atUs = nowUs;
    const isFalling = dbm <= FALL_FROM_DBM && this.#smoothedDbm - dbm >= this.#fallDb;
    if (dbm <= WEAK_DBM || isFalling) this.#untilUs = nowUs + HOLD_US;
  }

  /** Whether a gap is to be expected. */
  isAhead(nowUs: number): boolean {
    return nowUs < this.#untilUs;
  }
}
