/**
 * One OxTunnel session but for its columns: what it has to say by itself, and what the other end's control frames do
 * (PROTOCOL §14, §15). Invariant: an answer is never answered, at most one frame of each kind waits to be sent, and a
 * reliable frame is obeyed once and in order. Its datagrams leave through `pollTransmit`.
 * Keeps PROTOCOL R55.
 */
import { PathSize } from "../../control/path_size.ts";
import { type Burst, TO_SEAL_DATAGRAM } from "../../vector/burst.ts";
import {
  CONTROL_PATH_CHALLENGE,
  CONTROL_PATH_RESPONSE,
  controlKind,
  isReliable,
  readPathHigh,
  readPathLow,
  readSequence,
  type Report,
} from "../../wire/control.ts";
import { FRAME_HEAD_BYTES, FRAME_REPAIR, FrameReader } from "../../wire/frame.ts";
import { FEATURE_SLIDING_WINDOW } from "../../wire/parameters.ts";
import { repairFrame, type RepairReceiver } from "../../repair/receiver.ts";
import { datagramBytes } from "../../repair/tally.ts";
import { fillSections } from "../../repair/report_sections.ts";
import type { SessionRepair } from "../../repair/pool.ts";
import type { OxHost } from "./host.ts";
import type { KeyExchange } from "./keys.ts";
import { Closing } from "./subjects/closing.ts";
import { ConnectionIds } from "./subjects/connection_ids.ts";
import { HintExchange } from "./subjects/hints.ts";
import { KeyRenewal } from "./subjects/keys.ts";
import { Reliable } from "./subjects/reliable.ts";
import { Reports } from "./subjects/reports.ts";
import { pingIntervalUs, RoundTrip } from "./subjects/round_trip.ts";
import { SizeProbes, SizeReplies } from "./subjects/size_probes.ts";
import { TicketExchange } from "./subjects/tickets.ts";
import type { SharedSession, Subject } from "./subjects/subject.ts";
import { OxPaths } from "./paths.ts";
import type { OxSessions } from "./sessions.ts";
import type { PathRate } from "../../rate/path_rate.ts";

/** Plaintext of a control datagram: the smallest datagram that every path takes, less header and tag. */
const CONTROL_BYTES_MAX = 1200 - 25;
const frames = new FrameReader();

export interface OxSessionOptions {
  row: number;
  peer: number;
  isInitiator: boolean;
  /** AEAD_*, as both ends agreed. */
  aead: number;
  /** FEATURE_* bits that both ends accepted. */
  features: number;
  reportIntervalUs: number;
  /** The longest datagram that both ends have a use for, bytes of UDP payload. */
  datagramMaxBytes: number;
  keys: KeyExchange;
  /** Session rows of this end's spare ids, numbers 1 and on, and the other end's ids. */
  spareRows: number[];
  remoteIds: number[];
}

export class OxSession implements SharedSession {
  readonly row: number;
  readonly peer: number;
  readonly isInitiator: boolean;
  readonly aead: number;
  readonly features: number;
  readonly reportIntervalUs: number;
  readonly paths: OxPaths;
  /** What the path in use takes from this end. */
  readonly size: PathSize;
  readonly sessions: OxSessions;
  /** How fast the path takes what this end sends; undefined until a transfer asks for it. */
  pathRate: PathRate | undefined;
  readonly around: OxHost;
  /** What brings lost packets back, from the other end's first repair on. */
  receiver: RepairReceiver | undefined;
  /** What of the receiver's totals has been counted for everybody. */
  #wastedCounted = 0;
  #unrepairedCounted = 0;
  #repair: SessionRepair | undefined;
  /** Whether this end may repair what it sends, and take repairs of what comes, once the pool has room. */
  #canRepair: boolean;
  /** When a repair goes alone, or Infinity; and whether it is that time. */
  #repairAtUs = Infinity;
  #isRepairDue = false;
  /** Nothing has opened yet in a session that this end began. */
  isNew: boolean;
  /** The next datagram that goes to the other end by itself, or has room, carries a report. */
  isReportDue = false;
  readonly #closing: Closing;
  readonly #keys: KeyRenewal;
  readonly #reliable: Reliable;
  readonly #sizeProbes: SizeProbes;
  readonly roundTrip: RoundTrip;
  readonly reports: Reports;
  readonly ids: ConnectionIds;
  readonly hints: HintExchange;
  /** Order in a datagram: what is first finds room first. */
  readonly #inOrder: readonly Subject[];
  /** Whether its end is set: nothing puts it off. */
  isEnding = false;

  constructor(around: OxHost, sessions: OxSessions, options: OxSessionOptions) {
    this.around = around;
    this.sessions = sessions;
    this.row = options.row;
    this.peer = options.peer;
    this.isInitiator = options.isInitiator;
    this.isNew = options.isInitiator;
    this.aead = options.aead;
    this.features = options.features;
    this.#canRepair = (options.features & FEATURE_SLIDING_WINDOW) !== 0;
    this.reportIntervalUs = options.reportIntervalUs;
    this.paths = new OxPaths(around, this);
    this.size = new PathSize(options.datagramMaxBytes);
    const { spareRows, remoteIds, keys } = options;
    const reliable = this.#reliable = new Reliable(this);
    this.#inOrder = [
      this.#closing = new Closing(this),
      reliable,
      this.roundTrip = new RoundTrip(this),
      new SizeReplies(this),
      this.reports = new Reports(this),
      this.ids = new ConnectionIds(this, reliable, spareRows, remoteIds),
      this.hints = new HintExchange(this, reliable),
      new TicketExchange(this, reliable),
      this.#keys = new KeyRenewal(this, keys),
      this.#repairs(),
      this.#sizeProbes = new SizeProbes(this, this.size),
    ];
    reliable.setOrder(this.#inOrder);
  }

  #repairs(): Subject {
    return {
      dueUs: Infinity,
      isAlone: true,
      hasWord: () => this.#isRepairDue,
      write: (burst, at, room, nowUs) => {
        const { sender } = this.#repair!, row = burst.count - 1;
        const counter = this.around.options.table.sendCounter[this.row];
        sender.ride(burst, row, counter, room, nowUs);
        this.noteRepairs(burst, at, burst.length[row], counter, nowUs);
        this.#isRepairDue = sender.dueUs <= nowUs && burst.length[row] > 0;
        if (!this.#isRepairDue) this.hastenRepair();
        return burst.length[row];
      },
      handleTimeout: () => {},
    };
  }

  /** The number of the newest epoch that both ends have. */
  get epoch(): number {
    return this.#keys.epoch;
  }

  /** The next deadline that the columns do not know of, or Infinity. */
  get dueUs(): number {
    let dueUs = Math.min(this.paths.dueUs, this.#repairAtUs);
    for (const subject of this.#inOrder) dueUs = Math.min(dueUs, subject.dueUs);
    return dueUs;
  }

  /** What repairs the losses of what this end sends; undefined before and without. */
  get repair(): SessionRepair | undefined {
    return this.#repair;
  }

  /** What repairs the session's losses, from its first packet of a protected class on; undefined before, and without. */
  repairOf(trafficClass: number): SessionRepair | undefined {
    if (this.#repair === undefined && this.#canRepair && this.sessions.repairs!.isProtected(trafficClass)) {
      this.#repair = this.sessions.repairs!.takeSender();
      if (this.#repair !== undefined) this.sessions.sending.add(this.#repair.tally);
    }
    return this.#repair;
  }

  /** Has a repair sent alone if nothing takes it along. */
  hastenRepair(): void {
    this.#repairAtUs = this.#repair!.sender.dueUs;
    if (this.#repairAtUs < Infinity) this.hasten(this.#repairAtUs);
  }

  /** Counts the repair frames that begin at `at` and take `bytes`, in a datagram that will have `counter`. */
  noteRepairs({ view }: Burst, at: number, bytes: number, counter: number, nowUs: number): void {
    const { tally, quality } = this.#repair!, { count } = this.around.options;
    frames.start(at, bytes);
    while (frames.next(view) === FRAME_REPAIR) {
      if (!repairFrame.read(view, frames.at, frames.length, counter)) continue;
      const sourceUs = quality.sentUs(repairFrame.numbers[repairFrame.count - 1]);
      tally.repair(repairFrame, counter, FRAME_HEAD_BYTES + frames.length, sourceUs, nowUs);
      count("repairs_sent");
    }
    count("repair_bytes_sent", bytes);
  }

  /**
   * Notes that the datagram in `row` of a session that repairs was numbered. @param isReported whether it holds anything
   * that the other end reports.
   */
  noteSent(burst: Burst, row: number, isReported: boolean, isGuarded: boolean, nowUs: number): void {
    const { quality, tally } = this.#repair!;
    quality.sent(burst.counter[row], isReported, isGuarded, nowUs);
    tally.datagram(datagramBytes(burst, row), nowUs);
  }

  /** Takes a repair frame's body; false when it is malformed. */
  onRepair(burst: Burst, at: number, length: number, counter: number, nowUs: number): boolean {
    if (this.receiver === undefined && this.#canRepair) {
      this.receiver = this.sessions.repairs?.takeReceiver(
        this.around.options.table.replay.highest[this.row] + 1,
      );
      if (this.receiver !== undefined) this.sessions.receiving.add(this.receiver.tally);
    }
    const { receiver } = this;
    if (receiver === undefined) return true;
    if (!receiver.repair(burst, at, length, counter)) return false;
    const { count } = this.around.options, bytes = FRAME_HEAD_BYTES + length;
    const sourceUs = receiver.arrivals.usOf(repairFrame.numbers[repairFrame.count - 1]);
    receiver.tally.repair(repairFrame, counter, bytes, sourceUs, nowUs);
    count("repairs_received");
    count("repair_bytes_received", bytes);
    return true;
  }

  /** Adds to everybody's counters what has become certain of this session's repairs. */
  #countRepairs({ wasted, arrivals: { unrepaired } }: RepairReceiver): void {
    const { count } = this.around.options;
    if (wasted > this.#wastedCounted) {
      count("repairs_wasted", wasted - this.#wastedCounted);
      this.#wastedCounted = wasted;
    }
    count("packets_unrepaired", unrepaired - this.#unrepairedCounted);
    this.#unrepairedCounted = unrepaired;
  }

  /** Has `pollTransmit` called. */
  speak(): void {
    this.around.wantControl(this.peer);
  }

  /** Has `handleTimeout` called at `dueUs` or before. */
  hasten(dueUs: number): void {
    this.around.timers.hasten(this.peer, dueUs);
  }

  /** The other end has answered something that was sent at `sentUs`, whole microseconds. */
  answered(sentUs: number): void {
    for (const subject of this.#inOrder) subject.onAnswer?.(sentUs);
  }

  /** The other end has reported: the subjects hear of it. */
  reported(report: Report, nowUs: number): void {
    for (const subject of this.#inOrder) subject.onReport?.(report, nowUs);
    this.#onRateReport(report, nowUs);
    this.#onRepairReport(report, nowUs);
  }

  /** The path in use, a row of the table of paths. */
  get path(): number {
    return this.around.options.table.path[this.row];
  }

  /** Smoothed round trip of the path in use, microseconds; -1 before the first pong. */
  get rttUs(): number {
    return this.around.options.paths.rttUs[this.path];
  }
  set rttUs(rttUs: number) {
    this.around.options.paths.rttUs[this.path] = rttUs;
  }

  /** Smoothed round trip, or the handshake's before the first pong; -1 without either. */
  get roundTripUs(): number {
    return this.rttUs >= 0 ? this.rttUs : this.around.options.peers.get(this.peer)?.handshakeRttUs ?? -1;
  }

  /** The responder's session is confirmed: what it sends goes where the response went. */
  takeEndpoint(nowUs: number): void {
    this.paths.takeHandshake();
    for (const subject of this.#inOrder) subject.onOpened?.(nowUs);
    this.onNewPath();
  }

  /** What goes out takes another path from now on: the subjects hear of it. */
  onNewPath(): void {
    for (const subject of this.#inOrder) subject.onNewPath?.();
  }

  /** Tells the columns what the path's size is now, and has a probe sent that is due. */
  sizeChanged(): void {
    this.#sizeProbes.sizeChanged();
  }

  /** The initiator's session is open: the first answer came. The first exchange brings in what both ends accepted. */
  opened(nowUs: number): void {
    this.isNew = false;
    this.onNewPath();
    this.renew(nowUs);
    for (const subject of this.#inOrder) subject.onOpened?.(nowUs);
  }

  /** Asks for the next epoch, or, near the end of the session's life, begins a handshake. */
  renew(nowUs: number): void {
    this.#keys.renew(nowUs);
  }

  /** Something has opened under the epoch that was awaited. */
  confirmEpoch(nowUs: number): void {
    this.#keys.confirm(nowUs);
    for (const subject of this.#inOrder) subject.onEpoch?.(nowUs);
  }

  /** Has a ping sent. */
  ping(): void {
    this.roundTrip.ping();
  }

  /** How long nothing may come after data went out before the next ping does, microseconds. */
  get pingIntervalUs(): number {
    return pingIntervalUs(this.roundTripUs);
  }

  /** Whether the path is dead: data went out, and nothing answered it nor the pings that followed. */
  get isSilent(): boolean {
    return this.roundTrip.isSilent;
  }

  /** Nothing came since data went out, for the `times`-th time. */
  onSilence(times: number): void {
    this.roundTrip.onSilence(times);
  }

  /** Whether it has yet to say that it ends. */
  get isClosing(): boolean {
    return this.#closing.isClosing;
  }

  /** Ends the session at both ends; the close is said three times and then the keys go. */
  close(reason: number, retryAfterS: number, nowUs: number): void {
    if (!this.#closing.close(reason, retryAfterS, nowUs)) return;
    for (const subject of this.#inOrder) subject.onClose?.();
  }

  /** The other end has begun to use the id of `row`. */
  onIdUsed(row: number): void {
    this.ids.onUsed(row);
  }

  /** An id of the other end that no path has seen yet, or NONE. */
  takeRemoteId(): number {
    return this.ids.takeRemoteId();
  }

  /**
   * Obeys the control frame whose body of `length` bytes at `at` has the length of its kind. `row` is its datagram's.
   * Returns whether the other end wants to hear that it came.
   */
  onControl(burst: Burst, row: number, at: number, length: number, nowUs: number): boolean {
    const { view } = burst;
    const kind = controlKind(view, at);
    switch (kind) {
      case CONTROL_PATH_CHALLENGE:
        this.paths.onChallenge(burst, row, readPathLow(view, at), readPathHigh(view, at), nowUs);
        return false;
      case CONTROL_PATH_RESPONSE:
        this.paths.onResponse(burst, row, readPathLow(view, at), readPathHigh(view, at), nowUs);
        return false;
      default:
        if (isReliable(kind) && !this.#reliable.accepts(readSequence(view, at))) return true;
        for (const subject of this.#inOrder) {
          if (subject.takes?.(kind)) subject.onControl?.(burst, row, at, length, nowUs);
        }
        return isReliable(kind);
    }
  }

  handleTimeout(nowUs: number): void {
    this.paths.handleTimeout(nowUs);
    for (const subject of this.#inOrder) if (subject.dueUs <= nowUs) subject.handleTimeout(nowUs);
    if (this.#repairAtUs <= nowUs) {
      this.#repairAtUs = Infinity;
      this.#isRepairDue = true;
      this.speak();
    }
  }

  /** Adds datagrams with all that waits to be said to the burst; false when it was full before. */
  pollTransmit(burst: Burst, nowUs: number): boolean {
    const { table, paths } = this.around.options;
    if (table.sendCounter[this.row] >= table.sendLimit[this.row] || nowUs >= table.endsUs[this.row]) {
      return true;
    }
    if (this.sessions.refuses(this.row, paths.address, 4 * this.path)) return true;
    if (!this.paths.pollTransmit(burst)) return false;
    while (this.#isAnyWord(nowUs)) {
      const row = burst.grow(0, TO_SEAL_DATAGRAM);
      if (row < 0) return false;
      const hasRepair = this.#writeInOrder(burst, row, nowUs);
      if (burst.length[row] === 0) {
        burst.shrink(row);
        continue;
      }
      burst.session[row] = this.row;
      burst.peer[row] = this.peer;
      paths.direct(burst, row, this.path);
      this.sessions.number(burst, row, table.remoteIndex[this.row]);
      if (this.#repair !== undefined) this.noteSent(burst, row, hasRepair, false, nowUs);
    }
    return true;
  }

  /** Writes a report in front of the packet in `row` where the datagram, of `mtu` bytes of plaintext, has room for it. */
  prependReport(burst: Burst, row: number, mtu: number, nowUs: number): void {
    this.reports.prepend(burst, row, mtu, nowUs);
  }

  /** Has the rate of what this end sends found, where there is room for one more. */
  findRate(nowUs: number): void {
    this.pathRate ??= this.sessions.rates?.take(nowUs);
  }

  #onRateReport(report: Report, nowUs: number): void {
    const { pathRate, sessions: { rates } } = this;
    if (pathRate === undefined || rates === undefined) return;
    pathRate.onReport(report, nowUs);
    const isIdle = pathRate.isIdle(nowUs);
    rates.found(this.peer, isIdle ? 0 : pathRate.bytesPerS(nowUs), nowUs);
    if (isIdle) this.#endRate();
  }

  #endRate(): void {
    if (this.pathRate === undefined) return;
    this.sessions.rates!.give();
    this.pathRate = undefined;
  }

  /** Overwrites secrets and gives the rows of spare ids back. */
  wipe(): void {
    this.#endRate();
    if (this.#repair !== undefined) this.sessions.sending.delete(this.#repair.tally);
    if (this.receiver !== undefined) {
      this.#countRepairs(this.receiver);
      this.sessions.receiving.delete(this.receiver.tally);
    }
    this.sessions.repairs?.give(this.#repair, this.receiver);
    this.#repair = this.receiver = undefined;
    this.#repairAtUs = Infinity;
    this.#isRepairDue = false;
    this.#canRepair = false;
    for (const subject of this.#inOrder) subject.wipe?.();
  }

  #isAnyWord(nowUs: number): boolean {
    for (const subject of this.#inOrder) if (subject.hasWord(nowUs)) return true;
    return false;
  }

  /**
   * Writes what waits into the empty `row`, as much as one datagram takes. Returns whether the datagram is a repair's, which
   * the other end reports.
   */
  #writeInOrder(burst: Burst, row: number, nowUs: number): boolean {
    const start = burst.offset[row];
    let at = start;
    for (const subject of this.#inOrder) {
      if (!subject.hasWord(nowUs)) continue;
      if (subject.isAlone) {
        if (at > start) break;
        burst.length[row] = subject.write(burst, at, this.sessions.innerMtu(this.row), nowUs);
        return subject !== this.#sizeProbes;
      }
      at += subject.write(burst, at, CONTROL_BYTES_MAX - (at - start), nowUs);
    }
    burst.length[row] = at - start;
    return false;
  }

  /** Adds what repair says to a report: `fillSections`. */
  fillReport(report: Report, bytesMax: number, reported: number, nowUs: number): void {
    if (this.receiver === undefined) return;
    fillSections(report, this.receiver.arrivals, bytesMax, reported, nowUs);
    this.#countRepairs(this.receiver);
  }

  /** The last report says how this end's repairs fare. */
  #onRepairReport(report: Report, nowUs: number): void {
    if (this.#repair === undefined) return;
    const { quality } = this.#repair, { repaired, unrepaired } = quality;
    this.#repair.onReport(report, nowUs);
    this.around.options.count("reported_repaired", quality.repaired - repaired);
    this.around.options.count("reported_unrepaired", quality.unrepaired - unrepaired);
  }
}
