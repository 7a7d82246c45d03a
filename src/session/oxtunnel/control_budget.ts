// Hot path.
/**
 * What a peer's control frames may cost: each kind has a price, about the microseconds of one core that obeying and
 * answering the frame takes, and each peer a purse that fills with time. Invariant: however many frames a peer sends, over
 * however many sessions, they cost no more than PRICE_PER_SECOND a second and one purse at once. Obeys nothing itself.
 * Keeps PROTOCOL R99.
 */
import {
  CONTROL_CONFIG,
  CONTROL_CONNECTION_IDS,
  CONTROL_HINT,
  CONTROL_KEY_EXCHANGE,
  CONTROL_PATH_CHALLENGE,
  CONTROL_PATH_IDS,
  CONTROL_PATH_RESPONSE,
  CONTROL_PATH_STATUS,
  CONTROL_REPORT,
  CONTROL_REQUEST,
  CONTROL_ROHC,
  CONTROL_TICKET,
} from "../../wire/control.ts";

/** Microseconds of a core a second: one percent. An honest session spends 0.03 %: 40 reports a second, and some pings. */
export const PRICE_PER_SECOND = 10_000;
/** As much at once: a key exchange besides the frames of some datagrams. */
export const PRICE_AT_ONCE = 5000;
/** One computed key exchange with ML-KEM, in TypeScript. */
export const KEY_EXCHANGE_PRICE = 2000;
const OTHER_PRICE = 1;

/** By kind; measured with 64 hints kept and a repaired session on a 2-core EPYC VM, and rounded up. */
const PRICES = new Float64Array(256).fill(OTHER_PRICE);
PRICES[CONTROL_REPORT] = 6;
PRICES[CONTROL_PATH_CHALLENGE] = PRICES[CONTROL_PATH_RESPONSE] = 4;
PRICES[CONTROL_REQUEST] = 10;
/** A path's tables are made for the first. */
PRICES[CONTROL_PATH_IDS] = 20;
PRICES[CONTROL_KEY_EXCHANGE] = PRICES[CONTROL_ROHC] = 2;
PRICES[CONTROL_HINT] =
  PRICES[CONTROL_CONNECTION_IDS] =
  PRICES[CONTROL_CONFIG] =
  PRICES[CONTROL_PATH_STATUS] =
  PRICES[CONTROL_TICKET] =
    3;

/** The price of a control frame of this kind, 1 or more. */
export function controlPrice(kind: number): number {
  return PRICES[kind];
}

export class ControlBudget {
  readonly #left: Float64Array;
  readonly #sinceUs: Float64Array;

  /** @param peers the peer table's capacity. */
  constructor(peers: number) {
    this.#left = new Float64Array(peers).fill(PRICE_AT_ONCE);
    this.#sinceUs = new Float64Array(peers);
  }

  /** Whether the peer's purse has the price in it. */
  has(id: number, price: number, nowUs: number): boolean {
    const earned = Math.max(0, nowUs - this.#sinceUs[id]) * PRICE_PER_SECOND / 1e6;
    this.#left[id] = Math.min(PRICE_AT_ONCE, this.#left[id] + earned);
    this.#sinceUs[id] = nowUs;
    return this.#left[id] >= price;
  }

  /** Pays the price from the peer's purse; false, and nothing is paid, when less is in it. */
  pay(id: number, price: number, nowUs: number): boolean {
    if (!this.has(id, price, nowUs)) return false;
    this.#left[id] -= price;
    return true;
  }
}
