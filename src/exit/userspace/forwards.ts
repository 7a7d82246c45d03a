/**
 * Port forwards of the userspace exit: a socket that listens for each, whose datagrams and connections become the peer's. Invariant:
 * the open ports are those of the last `set` without those that it refused, and what belongs to a forgotten address is closed.
 */
import { parseAddress, type Prefix, prefixContains } from "../../wire/address.ts";
import { bindReason, placeOf, type PortForward, type RefusedForward } from "../forward.ts";

/** Opens and closes ports of one protocol. */
export interface ForwardDoor {
  /** In place of the forward that had the port here, and of nobody's connection. Returns 0 or an errno. */
  open(forward: PortForward): number;
  close(forward: PortForward): void;
}

/** What a system without the family says. */
const NO_FAMILY = [97, 99];

export class UserspaceForwards {
  readonly #doors: Record<PortForward["protocol"], ForwardDoor | undefined>;
  #open: PortForward[] = [];

  /** @param doors the exit's way for each protocol; undefined for one that it does not carry. */
  constructor(doors: Record<PortForward["protocol"], ForwardDoor | undefined>) {
    this.#doors = doors;
  }

  /** Opens these ports and closes all others; returns those that it could not open. */
  set(wanted: readonly PortForward[]): RefusedForward[] {
    const places = new Map(wanted.map((forward) => [placeOf(forward), forward]));
    const isWanted = (forward: PortForward) => {
      const now = places.get(placeOf(forward));
      return now?.address === forward.address && now.port === forward.port;
    };
    const kept = new Map(this.#open.filter(isWanted).map((forward) => [placeOf(forward), forward]));
    for (const forward of this.#open) {
      if (!places.has(placeOf(forward))) this.#doors[forward.protocol]?.close(forward);
    }
    this.#open = [...kept.values()];
    const refused: RefusedForward[] = [];
    for (const [place, forward] of places) {
      if (kept.has(place)) continue;
      const door = this.#doors[forward.protocol];
      if (door === undefined) {
        const reason = "needs the native library, without which this exit carries no TCP";
        refused.push({ forward, reason });
        continue;
      }
      const errno = door.open(forward);
      if (errno === 0) this.#open.push(forward);
      // The peer has an address of each family, the host perhaps not.
      else if (!NO_FAMILY.includes(errno)) refused.push({ forward, reason: bindReason(errno) });
    }
    return refused;
  }

  /** Closes the ports of addresses in the prefix. */
  forget(prefix: Prefix): void {
    const isIts = ({ address }: PortForward) => prefixContains(prefix, parseAddress(address)!);
    for (const forward of this.#open) if (isIts(forward)) this.#doors[forward.protocol]?.close(forward);
    this.#open = this.#open.filter((forward) => !isIts(forward));
  }
}
