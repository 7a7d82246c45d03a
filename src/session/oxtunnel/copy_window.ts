// Hot path.
/**
 * Which packets of one path have been delivered, by the counters of their datagrams, whether these came themselves or a copy
 * came on another path (PROTOCOL §13). Invariant: of a datagram and its copies the packets are delivered once, whichever is first,
 * and what is older than the window can tell is not. Memory is fixed.
 * Keeps PROTOCOL R112.
 */
import { ReplayWindows } from "../replay.ts";

export class CopyWindow {
  /** Copies that came before, or in place of, what they copy. */
  useful = 0;
  readonly #delivered = new ReplayWindows(1);

  /** Whether the packets of the datagram with `counter`, or of its copy, are the first. */
  isFirst(counter: number): boolean {
    return this.#delivered.accept(0, counter);
  }
}
