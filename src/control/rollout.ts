/**
 * Which peers have a part of the program and which go without, by shares that the operator sets, so that both groups can be compared.
 * Invariant: a peer's group depends on its public key and the share alone, so it is the same after a restart and in every Worker; a
 * larger share keeps the peers that a smaller one had; groups of different parts are independent. Measures nothing.
 */

/** The parts, by their names in the configuration and in labels. */
export const PARTS = [
  "scheduler",
  "rate_control",
  "repair",
  "ack_clocking",
  "predicted_pacing",
  "rate_memory",
] as const;
export type Part = (typeof PARTS)[number];
/** By part: the share of peers that have it, 0 to 100. */
export type RolloutPercent = Readonly<Record<Part, number>>;

/** Who does not say otherwise has all that proved itself. */
export const ROLLOUT_DEFAULT: RolloutPercent = {
  scheduler: 100,
  rate_control: 100,
  repair: 100,
  ack_clocking: 0,
  predicted_pacing: 0,
  rate_memory: 0,
};

export const GROUPS = ["on", "off"] as const;

export class Rollout {
  /** By peer: a bit for each part that it has. */
  readonly #has: Uint8Array;
  #percent: RolloutPercent;

  constructor(peers: number, percent: RolloutPercent) {
    this.#has = new Uint8Array(peers);
    this.#percent = percent;
  }

  /** Changes the shares; false where they are the same. Else the caller then `place`s each peer anew. */
  change(percent: RolloutPercent): boolean {
    const isSame = PARTS.every((part) => percent[part] === this.#percent[part]);
    this.#percent = percent;
    return !isSame;
  }

  /** Finds the groups of the peer with this public key, 32 bytes. */
  place(peer: number, publicKey: Uint8Array): void {
    let has = 0;
    for (let i = 0; i < PARTS.length; i++) {
      if (percentile(STARTS[i], publicKey) < this.#percent[PARTS[i]]) has |= 1 << i;
    }
    this.#has[peer] = has;
  }

  /** The peer's parts, the bit of each at its place in PARTS. */
  partsOf(peer: number): number {
    return this.#has[peer];
  }

  isOn(part: Part, peer: number): boolean {
    return (this.#has[peer] >> PARTS.indexOf(part) & 1) === 1;
  }
}

const FNV_PRIME = 0x01000193;
/** By part: FNV-1a of its name. */
const STARTS = PARTS.map((part) => fnv(0x811c9dc5, new TextEncoder().encode(part)));

function fnv(start: number, bytes: Uint8Array): number {
  let hash = start;
  for (let i = 0; i < bytes.length; i++) hash = Math.imul(hash ^ bytes[i], FNV_PRIME);
  return hash;
}

/** The peer's number for a part, 0 to 99: FNV-1a over the part's name and the key, its bits then mixed as MurmurHash3 ends. */
function percentile(start: number, publicKey: Uint8Array): number {
  let hash = fnv(start, publicKey);
  hash = Math.imul(hash ^ hash >>> 16, 0x85ebca6b);
  hash = Math.imul(hash ^ hash >>> 13, 0xc2b2ae35);
  return ((hash ^ hash >>> 16) >>> 0) % 100;
}
