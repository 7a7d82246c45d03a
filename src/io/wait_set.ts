/**
 * What a thread waits in for a port and, together with it, for others' descriptors: by poll(2), in the port itself, or by
 * looking, as the port says. Invariant: the port has place 0 and the others keep their places behind it; a wait ends early
 * for news and never late by more than the port's rest. Reads nothing.
 */
import { PollSet } from "./poll.ts";
import type { PortWait, WaitSet, Watched } from "./port.ts";

/** The place of the port itself. */
export const PORT_PLACE = 0;

/**
 * The set of a port, at place 0, and of others, from place 1 on; a place without a descriptor is never ready. To be asked
 * once for a port. Throws what the port's own way throws.
 */
export function waitSetOf(wait: PortWait, others: readonly (Watched | undefined)[]): WaitSet {
  const descriptors = others.map((other) => other?.descriptor);
  if (wait.by === "descriptor") return new PollSet([wait.descriptor, ...descriptors]);
  if (wait.by === "looking") return new LookSet(wait, descriptors);
  return wait.join(others);
}

/** Looks at the port, and by poll(2) at the others, until either has something. */
class LookSet implements WaitSet {
  readonly #hasArrived: () => boolean;
  readonly #restMs: number;
  /** The port's place has no descriptor. */
  readonly #others: PollSet;
  #isPortReady = false;

  constructor(
    { hasArrived, restUs }: PortWait & { by: "looking" },
    others: readonly (number | undefined)[],
  ) {
    this.#hasArrived = hasArrived;
    this.#restMs = restUs / 1000;
    this.#others = new PollSet([undefined, ...others]);
  }

  wait(ms: number): number {
    const endMs = performance.now() + ms;
    for (let leftMs = ms;;) {
      this.#isPortReady = this.#hasArrived();
      // The others' news ends a rest early; the port's waits for its end.
      const restMs = this.#isPortReady ? 0 : Math.min(this.#restMs, leftMs);
      const ready = this.#others.wait(restMs) + (this.#isPortReady ? 1 : 0);
      if (ready > 0 || leftMs <= 0) return ready;
      leftMs = endMs - performance.now();
    }
  }

  isReady(place: number): boolean {
    return place === PORT_PLACE ? this.#isPortReady : this.#others.isReady(place);
  }
}
