/** Rates that people give and ends tell each other. Invariant: constants only. */

/** Bits a second: below 64 kbit/s a full packet takes longer than 0.2 s, and sessions time out; no line is above 100 Gbit/s. */
export const RATE_MIN_BPS = 64_000, RATE_MAX_BPS = 100e9;
