// Hot path.
/**
 * Loss repair of one session, in both directions (PROTOCOL §13, §14): all that sessions, ingress and egress call of this
 * folder. Invariant: a direction takes its memory with its first use and gives it back at the end, and the tunnel's counters
 * say what was written and read. Decides nothing about what is repaired (planner.ts) and delivers no packets.
 */
import type { Burst } from "../vector/burst.ts";
import {
  CONTROL_DEADLINE,
  readRequestCount,
  readRequestCounter,
  readRequestFirst,
  readRequestPath,
  REQUEST_MAX_BYTES,
  requestEntries,
  writeShort,
} from "../wire/control.ts";
import { FRAME_HEAD_BYTES } from "../wire/frame.ts";
import { readMark, writeMark } from "../wire/oxtunnel.ts";
import type { Report } from "../wire/report.ts";
import type { SessionFigures } from "./figures.ts";
import type { RepairPlanner } from "./planner.ts";
import type { Repairs } from "./pool.ts";
import type { RepairReceiver } from "./receiver.ts";
import { fillSections } from "./report_sections.ts";

/** Bytes of a deadline's frame; marked datagrams after which it is told again, at first 2, 4, 8; and the longest believed. */
const DEADLINE_BYTES = FRAME_HEAD_BYTES + 3, TOLD_EVERY_MAX = 256, DEADLINE_MS_MAX = 1000;

/** What repair asks of its session. */
export interface RepairHost {
  /** The highest counter that was accepted from the other end, -1 before the first. */
  highestReceived(): number;
  /** Round trip of the path, microseconds; -1 for unknown. */
  roundTripUs(): number;
  /** Wants `handleTimeout` called at `dueUs` at the latest. */
  hasten(dueUs: number): void;
  /** Wants what is to be sent fetched. */
  speak(): void;
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
  readonly #requestsCounted = { asked: 0, answered: 0, late: 0, useless: 0 };

  readonly #pathNumber: number;
  /** Whether this end marks what may be asked for, asks, and answers: both ends agreed. */
  readonly isAsking: boolean;
  /** Marked datagrams until the deadline is told again. */
  #untilTold = 0;
  #toldMs = 0;
  #toldTimes = 0;
  readonly #scratch = new DataView(new ArrayBuffer(FRAME_HEAD_BYTES + REQUEST_MAX_BYTES));

  /** @param isAsking whether both ends agreed to repair on request. @param pathNumber of the path whose losses are repaired. */
  constructor(pool: Repairs, host: RepairHost, isAsking = false, pathNumber = 0) {
    this.#pool = pool;
    this.#host = host;
    this.isAsking = isAsking;
    this.#pathNumber = pathNumber;
  }

  /** Whether what this end sends is repaired, from its first packet of a protected class on. */
  sends(trafficClass: number): boolean {
    if (this.sending === undefined && !this.#hasEnded && this.#pool.isProtected(trafficClass)) {
      this.sending = this.#pool.takeSender(this.isAsking);
    }
    return this.sending !== undefined;
  }

  /** Puts repairs in front of the plaintext in `row`, which will have `counter`, up to `bytesMax` in all. Needs `sends`. */
  ride(burst: Burst, row: number, counter: number, bytesMax: number, nowUs: number): void {
    const sending = this.sending!,
      { tally, sender: { kept } } = sending,
      { answers } = tally,
      { refused } = kept;
    const before = burst.length[row];
    const repairs = sending.ride(burst, row, counter, bytesMax, nowUs);
    if (kept.refused > refused) this.#pool.counters.add("answers_refused", kept.refused - refused);
    if (repairs > 0) {
      this.#pool.counters.add("repairs_sent", repairs);
      this.#pool.counters.add("repair_bytes_sent", burst.length[row] - before);
      if (tally.answers > answers) this.#pool.counters.add("answers_sent", tally.answers - answers);
    }
    if (this.isAsking && before > 0) this.#rideControl(burst, row, before, bytesMax, nowUs);
  }

  /** Puts a request that is due, and the deadline now and then, in front of what is in the row, whose last `bytes` are packets. */
  #rideControl(burst: Burst, row: number, bytes: number, bytesMax: number, nowUs: number): void {
    const requests = this.receiving?.requests;
    if (requests !== undefined) requests.nextRideUs = nowUs + this.sending!.sender.rideGapUs;
    if (requests?.canRide(nowUs) === true) {
      const room = Math.min(bytesMax - burst.length[row], this.#scratch.byteLength);
      this.#prepend(burst, row, requests.write(this.#scratch, 0, room, false, nowUs));
      // A copy of it may be due at once, in another datagram.
      if (requests.dueUs < Infinity) this.#host.hasten(requests.dueUs);
    }
    const deadlineMs = this.sending!.deadlineMs(burst.trafficClass[row], bytes);
    if (deadlineMs === 0) return; // the datagram is not marked
    if (deadlineMs !== this.#toldMs) this.#toldTimes = this.#untilTold = 0;
    if (--this.#untilTold > 0 || burst.length[row] + DEADLINE_BYTES > bytesMax) return;
    this.#toldMs = deadlineMs;
    this.#untilTold = Math.min(TOLD_EVERY_MAX, 2 ** ++this.#toldTimes);
    this.#prepend(burst, row, writeShort(this.#scratch, 0, CONTROL_DEADLINE, deadlineMs));
  }

  #prepend({ bytes, view, offset, length }: Burst, row: number, added: number): void {
    if (added === 0) return;
    const at = offset[row];
    bytes.copyWithin(at + added, at, at + length[row]);
    for (let i = 0; i < added; i++) view.setUint8(at + i, this.#scratch.getUint8(i));
    length[row] += added;
  }

  /** Notes that the datagram in `row`, whose last `bytes` are packets, was numbered. Needs `sends`. */
  packetsSent(burst: Burst, row: number, bytes: number, nowUs: number): void {
    const sending = this.sending!, { counter, trafficClass } = burst;
    const at = burst.offset[row] + burst.length[row] - bytes;
    const { kept } = sending.sender, marked = kept.count;
    const isProtected = sending.sent(burst.bytes, at, bytes, counter[row], trafficClass[row], nowUs);
    if (kept.count > marked) writeMark(burst.view, burst.offset[row] - burst.headerBytes[row], kept.mark);
    sending.datagramSent(burst, row, true, isProtected, nowUs);
    if (isProtected) this.#hasten(sending);
  }

  /** Whether an answer or a repair is to be sent in a datagram of its own now. */
  get hasWord(): boolean {
    return this.isDue || (this.sending?.sender.kept.waiting ?? 0) > 0;
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
    if (this.receiving === undefined) {
      if (!this.isAsking || this.#hasEnded) return;
      if (readMark(burst.view.getUint8(burst.offset[row] - burst.headerBytes[row])) === 0) return;
      // Nothing of this burst has been unframed: this datagram and those behind it are all shown.
      const highest = this.#host.highestReceived();
      const first = burst.counter[row] === highest ? highest : highest + 1;
      this.receiving = this.#pool.takeReceiver(first, true, this.#pathNumber);
      if (this.receiving === undefined) return;
    }
    const { receiving, sending } = this;
    receiving.datagramReceived(burst, row, nowUs);
    const { requests } = receiving;
    if (requests === undefined) return;
    const rttUs = sending?.quality.rttUs ?? -1, { lossRate } = receiving.arrivals.runs;
    requests.setPath(rttUs >= 0 ? rttUs : this.#host.roundTripUs(), sending?.quality.lossRate ?? lossRate);
    if (sending !== undefined) sending.backLoss = lossRate;
    if (requests.dueUs <= nowUs) this.#host.speak();
    else if (requests.dueUs < Infinity) this.#host.hasten(requests.dueUs);
  }

  /** When something is to be asked for, or may turn out to be missing; or Infinity. */
  get requestDueUs(): number {
    return this.receiving?.requests?.dueUs ?? Infinity;
  }

  /** Whether a request is to be sent now. */
  hasRequest(nowUs: number): boolean {
    return this.receiving?.requests?.hasWord(nowUs) ?? false;
  }

  /** Writes the request that is due, frame head included, in at most `room` bytes; returns the bytes. Needs `hasRequest`. */
  writeRequest(view: DataView, at: number, room: number, nowUs: number): number {
    const requests = this.receiving!.requests!;
    const bytes = requests.write(view, at, room, true, nowUs);
    if (requests.dueUs > nowUs && requests.dueUs < Infinity) this.#host.hasten(requests.dueUs);
    return bytes;
  }

  /** Takes a request of the other end, whose body of `length` bytes is at `at`. What is sent again, `hasWord` tells. */
  onRequest(view: DataView, at: number, length: number, nowUs: number): void {
    const { sending } = this;
    if (sending === undefined || readRequestPath(view, at) !== this.#pathNumber) return;
    const { kept } = sending.sender, { refused } = kept;
    this.#pool.counters.add("requests_received", 1);
    for (let i = 0; i < requestEntries(length); i++) {
      const count = readRequestCount(view, at, i);
      sending.onRequest(readRequestCounter(view, at, i), readRequestFirst(view, at, i), count, nowUs);
    }
    if (kept.refused > refused) this.#pool.counters.add("answers_refused", kept.refused - refused);
    if (kept.waiting > 0) this.#host.speak();
  }

  /** Takes the deadline of the other end's marked packets, milliseconds. */
  onDeadline(ms: number): void {
    const requests = this.receiving?.requests;
    if (requests !== undefined) requests.deadlineUs = Math.min(DEADLINE_MS_MAX, ms) * 1000;
  }

  /** Takes the packets of an arrived datagram; false when they were brought back before and must not be delivered again. */
  packetsReceived(bytes: Uint8Array, at: number, length: number, counter: number): boolean {
    return this.receiving === undefined || this.receiving.received(bytes, at, length, counter);
  }

  /** Takes the body of a repair frame that the datagram with `counter` carries; false when it is malformed. */
  repairReceived(burst: Burst, at: number, length: number, counter: number, nowUs: number): boolean {
    if (this.receiving === undefined && !this.#hasEnded) {
      this.receiving = this.#pool.takeReceiver(
        this.#host.highestReceived() + 1,
        this.isAsking,
        this.#pathNumber,
      );
    }
    const { receiving } = this;
    if (receiving === undefined) return true;
    if (!receiving.repair(burst, at, length, counter, nowUs)) return false;
    this.#pool.counters.add("repairs_received", 1);
    this.#pool.counters.add("repair_bytes_received", FRAME_HEAD_BYTES + length);
    return true;
  }

  /** Takes the packets of a datagram that did not come, of which a copy came on another path; false as `packetsReceived`. */
  copyReceived(bytes: Uint8Array, at: number, length: number, counter: number, nowUs: number): boolean {
    return this.receiving === undefined || this.receiving.copied(bytes, at, length, counter, nowUs);
  }

  /** Notes that the datagram in `row`, which holds a copy of another path's packets and is reported, was numbered. */
  copySent(burst: Burst, row: number, nowUs: number): void {
    if (this.sends(burst.trafficClass[row])) this.sending!.datagramSent(burst, row, true, false, nowUs);
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
  #countReceived({ wasted, arrivals, requests }: RepairReceiver): void {
    const { unrepaired } = arrivals;
    if (wasted > this.#wastedCounted) {
      this.#pool.counters.add("repairs_wasted", wasted - this.#wastedCounted);
      this.#wastedCounted = wasted;
    }
    this.#pool.counters.add("packets_unrepaired", unrepaired - this.#unrepairedCounted);
    this.#unrepairedCounted = unrepaired;
    if (requests === undefined) return;
    const { counters } = this.#pool, told = this.#requestsCounted;
    counters.add("requests_sent", requests.asked - told.asked);
    counters.add("requests_answered", requests.answered - told.answered);
    counters.add("requests_late", requests.late - told.late);
    counters.add("requests_useless", requests.useless - told.useless);
    told.asked = requests.asked;
    told.answered = requests.answered;
    told.late = requests.late;
    told.useless = requests.useless;
  }

  /** The share of the next datagrams that the predictor takes for lost, 0 to 1; 0 where nothing is sent with repair. */
  get lossAhead(): number {
    return this.sending?.predictor?.lossAhead ?? 0;
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
