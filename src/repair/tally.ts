// Hot path.
/**
 * What repair of one direction of a session comes to, read off the repair frames that go or come: how many and how many
 * bytes, and by what scheme now. Invariant: what it says follows from the bytes on the wire alone, so that it is true
 * at both ends whoever chose the scheme. Counts; decides nothing.
 */
import type { Burst } from "../vector/burst.ts";
import { OX_TAG_BYTES } from "../wire/oxtunnel.ts";
import type { RepairReader } from "../wire/repair.ts";
import type { SeenScheme } from "../session/peer_record.ts";

/** UDP and IPv4 around a datagram. */
const OUTER_BYTES = 28;

/** Bytes of the OxTunnel datagram whose plaintext is in `row`, UDP and IPv4 counted. */
export function datagramBytes({ headerBytes, length }: Burst, row: number): number {
  return headerBytes[row] + length[row] + OX_TAG_BYTES + OUTER_BYTES;
}

/** Shares are those of the last whole period. */
const PERIOD_US = 1_000_000;
/** Without a repair for so long there is no scheme. */
const SCHEME_US = 5_000_000;
/** A copy that rides this many datagrams behind its original, on average, was held back. */
const SPACED_DISTANCE = 1.5;

export class RepairTally {
  /** Repair frames, their bytes with heads, and the bytes of all datagrams, UDP and IPv4 counted. */
  repairs = 0;
  repairBytes = 0;
  bytes = 0;
  /** Of the last repair: how many sources it combined. */
  sources = 0;
  /** How long after its newest source a repair goes, smoothed, microseconds. */
  laterUs = 0;
  #isBlock = false;
  #distance = 1;
  #repairedUs = -Infinity;
  #nowUs = 0;
  #periodUs = -Infinity;
  #periodBytes = 0;
  #periodRepairBytes = 0;
  #share = 0;

  /** A datagram of so many bytes, UDP and IPv4 counted. */
  datagram(bytes: number, nowUs: number): void {
    this.#nowUs = nowUs;
    if (nowUs - this.#periodUs >= PERIOD_US) {
      const repairBytes = this.repairBytes - this.#periodRepairBytes, all = this.bytes - this.#periodBytes;
      // A repair is counted before the datagram that it rides in: before the first one there is nothing to compare with.
      if (all > repairBytes) this.#share = repairBytes / (all - repairBytes);
      this.#periodUs = nowUs;
      this.#periodBytes = this.bytes;
      this.#periodRepairBytes = this.repairBytes;
    }
    this.bytes += bytes;
  }

  /** A repair frame of so many bytes in a datagram with `counter`; `sourceUs` is when its newest source went or came, or NaN. */
  repair(frame: RepairReader, counter: number, bytes: number, sourceUs: number, nowUs: number): void {
    this.#nowUs = nowUs;
    this.repairs++;
    this.repairBytes += bytes;
    this.sources = frame.count;
    this.#isBlock = frame.isBlock;
    const isFirst = nowUs - this.#repairedUs > SCHEME_US, gain = isFirst ? 1 : 1 / 8;
    this.#repairedUs = nowUs;
    this.#distance += gain * (counter - frame.numbers[frame.count - 1] - this.#distance);
    if (!Number.isNaN(sourceUs)) this.laterUs += gain * (nowUs - sourceUs - this.laterUs);
  }

  /** What goes or comes, as of the last datagram. */
  get scheme(): SeenScheme {
    return this.schemeAt(this.#nowUs);
  }

  /** What goes or comes now: nothing when nothing has been sent for a while. */
  schemeAt(nowUs: number): SeenScheme {
    if (nowUs - this.#repairedUs > SCHEME_US) return "none";
    if (this.#isBlock) return "block";
    if (this.sources > 1) return "window";
    return this.#distance < SPACED_DISTANCE ? "copy" : "spaced";
  }

  /** Bytes of repair for each other byte of late. */
  get share(): number {
    return this.#share;
  }
}
