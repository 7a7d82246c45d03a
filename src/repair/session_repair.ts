// Hot path.
/**
 * Loss repair of one session, in both directions (PROTOCOL §13, §14): all that sessions, ingress and egress call of this
 * folder. Invariant: a direction takes its memory with its first use and gives it back at the end, and the tunnel's counters
 * say what was written and read. Decides nothing about what is repaired (planner.ts) and delivers no packets.
 */
import type { Burst } from "../vector/burst.ts";
import { FRAME_HEAD_BYTES } from "../wire/frame.ts";
import type { Report } from "../wire/report.ts";
import type { SessionFigures } from "./figures.ts";
import type { RepairPlanner } from "./planner.ts";
import type { Repairs } from "./pool.ts";
import type { RepairReceiver } from "./receiver.ts";
import { fillSections } from "./report_sections.ts";

/** What repair asks of its session. */
export interface RepairHost {
  /** The highest counter that was accepted from the other end, -1 before the first. */
  highestReceived(): number;
  /** Wants `handleTimeout` called at `dueUs` at the latest. */
  hasten(dueUs: number): void;
}

export class SessionRepair {
  /** The sending side, from the first packet of a protected class on; undefined before and where there is no memory. */
  sending: RepairPlanner | undefined;
  /** The receiving side, from the first repair that arrives on. */
  receiving: RepairReceiver | undefined;
  /** When a repair is to be sent alone if no datagram carries it, or Infinity. */
  dueUs = Infinity;
  /** Whether that time has come: `writeAlone` wants a datagram. */
  isDue = false;
  readonly #pool: Repairs;
  readonly #host: RepairHost;
  #hasEnded = false;
  /** How much of the receiving side's totals the tunnel's counters have. */
  #wastedCounted = 0;
  #unrepairedCounted = 0;

  constructor(pool: Repairs, host: RepairHost) {
    this.#pool = pool;
    this.#host = host;
  }

  /** Whether what this end sends is repaired, from its first packet of a protected class on. */
  sends(trafficClass: number): boolean {
    if (this.sending === undefined && !this.#hasEnded && this.#pool.isProtected(trafficClass)) {
      this.sending = this.#pool.takeSender();
    }
    return this.sending !== undefined;
  }

  /** Puts repairs in front of the plaintext in `row`, which will have `counter`, up to `bytesMax` in all. Needs `sends`. */
  ride(burst: Burst, row: number, counter: number, bytesMax: number, nowUs: number): void {
    const before = burst.length[row];
    const repairs = this.sending!.ride(burst, row, counter, bytesMax, nowUs);
    if (repairs === 0) return;
    this.#pool.counters.add("repairs_sent", repairs);
    this.#pool.counters.add("repair_bytes_sent", burst.length[row] - before);
  }

  /** Notes that the datagram in `row`, whose last `bytes` are packets, was numbered. Needs `sends`. */
  packetsSent(burst: Burst, row: number, bytes: number, nowUs: number): void {
    const sending = this.sending!, { counter, trafficClass } = burst;
    const at = burst.offset[row] + burst.length[row] - bytes;
    const isProtected = sending.sent(burst.bytes, at, bytes, counter[row], trafficClass[row], nowUs);
    sending.datagramSent(burst, row, true, isProtected, nowUs);
    if (isProtected) this.#hasten(sending);
  }

  /**
   * Notes that the datagram in `row`, which has no packets, was numbered. @param isReported whether it holds anything that
   * the other end reports.
   */
  controlSent(burst: Burst, row: number, isReported: boolean, nowUs: number): void {
    this.sending?.datagramSent(burst, row, isReported, false, nowUs);
  }

  /** After `dueUs`, has repairs sent alone; true when that time had come. */
  handleTimeout(nowUs: number): boolean {
    if (this.dueUs > nowUs) return false;
    this.dueUs = Infinity;
    this.isDue = true;
    return true;
  }

  /** Writes repairs that are due to the empty `row`; none when they are no longer of use. `isDue` says whether more wait. */
  writeAlone(burst: Burst, row: number, counter: number, bytesMax: number, nowUs: number): void {
    const sending = this.sending!;
    this.ride(burst, row, counter, bytesMax, nowUs);
    this.isDue = sending.sender.dueUs <= nowUs && burst.length[row] > 0;
    if (!this.isDue) this.#hasten(sending);
  }

  #hasten({ sender }: RepairPlanner): void {
    this.dueUs = sender.dueUs;
    if (this.dueUs < Infinity) this.#host.hasten(this.dueUs);
  }

  /** Takes a report of the other end. */
  onReport(report: Report, nowUs: number): void {
    const { sending } = this;
    if (sending === undefined) return;
    const { quality } = sending, { repaired, unrepaired } = quality;
    sending.onReport(report, nowUs);
    this.#pool.counters.add("reported_repaired", quality.repaired - repaired);
    this.#pool.counters.add("reported_unrepaired", quality.unrepaired - unrepaired);
  }

  /** Notes that the datagram in `row` arrived and was accepted. */
  datagramReceived(burst: Burst, row: number, nowUs: number): void {
    this.receiving?.datagramReceived(burst, row, nowUs);
  }

  /** Takes the packets of an arrived datagram; false when they were brought back before and must not be delivered again. */
  packetsReceived(bytes: Uint8Array, at: number, length: number, counter: number): boolean {
    return this.receiving === undefined || this.receiving.received(bytes, at, length, counter);
  }

  /** Takes the body of a repair frame that the datagram with `counter` carries; false when it is malformed. */
  repairReceived(burst: Burst, at: number, length: number, counter: number, nowUs: number): boolean {
    if (this.receiving === undefined && !this.#hasEnded) {
      this.receiving = this.#pool.takeReceiver(this.#host.highestReceived() + 1);
    }
    const { receiving } = this;
    if (receiving === undefined) return true;
    if (!receiving.repair(burst, at, length, counter, nowUs)) return false;
    this.#pool.counters.add("repairs_received", 1);
    this.#pool.counters.add("repair_bytes_received", FRAME_HEAD_BYTES + length);
    return true;
  }

  /** Solves for lost datagrams; returns how many came back. Each is there, by its index, until the next call. */
  solve(nowUs: number): number {
    return this.receiving === undefined ? 0 : this.receiving.solve(nowUs);
  }

  /** The counter of the i-th plaintext that `solve` brought back. */
  recoveredCounter(i: number): number {
    return this.receiving!.decoder.recovered[i];
  }

  /** Bytes of the i-th plaintext that `solve` brought back, zeros behind it perhaps included. */
  recoveredBytes(i: number): number {
    const { decoder } = this.receiving!;
    return decoder.lengthOf(decoder.recovered[i]);
  }

  /** Copies the i-th plaintext that `solve` brought back to `at`. */
  copyRecovered(i: number, bytes: Uint8Array, at: number): void {
    const { decoder } = this.receiving!, { memory } = decoder;
    const number = decoder.recovered[i], from = decoder.placeOf(number), length = decoder.lengthOf(number);
    for (let j = 0; j < length; j++) bytes[at + j] = memory[from + j];
  }

  /** Adds what this end knows of arrivals and repairs to a report; arguments as `fillSections`. */
  fillReport(report: Report, bytesMax: number, reported: number, nowUs: number): void {
    const { receiving } = this;
    if (receiving === undefined) return;
    fillSections(report, receiving.arrivals, bytesMax, reported, nowUs);
    this.#countReceived(receiving);
  }

  /** Adds to the tunnel's counters what has become certain of the repairs that arrived. */
  #countReceived({ wasted, arrivals }: RepairReceiver): void {
    const { unrepaired } = arrivals;
    if (wasted > this.#wastedCounted) {
      this.#pool.counters.add("repairs_wasted", wasted - this.#wastedCounted);
      this.#wastedCounted = wasted;
    }
    this.#pool.counters.add("packets_unrepaired", unrepaired - this.#unrepairedCounted);
    this.#unrepairedCounted = unrepaired;
  }

  /** What repair amounts to, in each direction that has it. */
  get figures(): SessionFigures {
    const { sending, receiving } = this, figures: SessionFigures = {};
    if (sending !== undefined) figures.sending = sending.figures;
    if (receiving !== undefined) figures.receiving = receiving.figures;
    return figures;
  }

  /** Ends both directions for good and gives their memory back. */
  end(): void {
    if (this.receiving !== undefined) this.#countReceived(this.receiving);
    this.#pool.give(this.sending, this.receiving);
    this.sending = this.receiving = undefined;
    this.dueUs = Infinity;
    this.isDue = false;
    this.#hasEnded = true;
  }
}
