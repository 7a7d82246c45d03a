/**
 * How the IPv4 identifications of a flow go on, as a compressor sees it: counting in one byte order or the other,
 * constant, or by no rule (RFC 3095 4.5.5, RFC 3843 3.3). A new behaviour is believed after a few packets, so that one
 * odd value costs one larger packet and not two changes of behaviour.
 */
import { type IpHeader, swap16 } from "./headers.ts";

/** How far a counting identification may step from one packet of the flow to the next. */
const STEP_MAX = 64;
/** Packets that have to agree before a behaviour changes. */
const AGREEING = 3;

type Behavior = "counts" | "swapped" | "constant" | "random";

export class IdentificationTracker {
  #last = -1;
  #behavior: Behavior = "counts";
  #candidate: Behavior = "counts";
  #agreeing = 0;

  /** Takes the packet's identification, and sets its `rnd`, `nbo` and `sid`. */
  track(ip: Pick<IpHeader, "version" | "id" | "rnd" | "nbo" | "sid">): void {
    if (ip.version !== 4) return;
    if (this.#last >= 0) this.#observe(this.#classify(ip.id));
    this.#last = ip.id;
    ip.rnd = this.#behavior === "random";
    ip.nbo = this.#behavior !== "swapped";
    ip.sid = this.#behavior === "constant";
  }

  #classify(id: number): Behavior {
    if (id === this.#last) return "constant";
    if (((id - this.#last) & 0xffff) <= STEP_MAX) return "counts";
    if (((swap16(id) - swap16(this.#last)) & 0xffff) <= STEP_MAX) return "swapped";
    return "random";
  }

  #observe(seen: Behavior): void {
    if (seen === this.#behavior) {
      this.#agreeing = 0;
      return;
    }
    // A constant that changes is constant no longer: its value is not sent while it counts as such.
    if (this.#behavior === "constant") {
      this.#behavior = seen === "random" ? "random" : seen;
      this.#agreeing = 0;
      return;
    }
    this.#agreeing = seen === this.#candidate ? this.#agreeing + 1 : 1;
    this.#candidate = seen;
    if (this.#agreeing < AGREEING) return;
    this.#behavior = seen;
    this.#agreeing = 0;
  }
}
