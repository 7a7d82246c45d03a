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

  /** Changes the shares; the caller then `place`s each peer anew. */
  set percent(percent: RolloutPercent) {
    this.#percent = percent;
  }

  /** Finds the groups of the peer with this public key, 32 bytes. */
  place(peer: number, publicKey: Uint8Array): void {
    let has = 0;
    for (const [i, part] of PARTS.entries()) {
      if (percentile(part, publicKey) < this.#percent[part]) has |= 1 << i;
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

/** The peer's number for the part, 0 to 99: FNV-1a over both, its bits then mixed as MurmurHash3 ends. */
function percentile(part: Part, publicKey: Uint8Array): number {
  let hash = 0x811c9dc5;
  const take = (byte: number) => hash = Math.imul(hash ^ byte, 0x01000193);
  for (let i = 0; i < part.length; i++) take(part.charCodeAt(i));
  publicKey.forEach(take);
  hash = Math.imul(hash ^ hash >>> 16, 0x85ebca6b);
  hash = Math.imul(hash ^ hash >>> 13, 0xc2b2ae35);
  return ((hash ^ hash >>> 16) >>> 0) % 100;
}
