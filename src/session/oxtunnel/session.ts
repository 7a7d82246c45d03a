/**
 * One OxTunnel session but for its columns: what it has to say by itself, and what the other end's control frames do
 * (PROTOCOL §14, §15). Invariant: an answer is never answered, at most one frame of each kind waits to be sent, and a
 * reliable frame is obeyed once and in order. Its datagrams leave through `pollTransmit`.
 * Keeps PROTOCOL R55 and R83.
 */
import { Jitter } from "../../control/jitter.ts";
import { PathSize } from "../../control/path_size.ts";
import { type Burst, TO_SEAL_DATAGRAM } from "../../vector/burst.ts";
import {
  CONTROL_PATH_CHALLENGE,
  CONTROL_PATH_RESPONSE,
  CONTROL_PING,
  CONTROL_PONG,
  CONTROL_PROBE,
  CONTROL_PROBE_REPLY,
  CONTROL_REPORT,
  controlKind,
  isReliable,
  readHeldUs,
  readPathHigh,
  readPathLow,
  readSequence,
  readSize,
  readToken,
  Report,
  REPORT_BITMAP_MAX_BYTES,
  REPORT_MAX_BYTES,
  writePing,
  writePong,
  writeShort,
} from "../../wire/control.ts";
import { FRAME_HEAD_BYTES, FRAME_REPAIR, FrameReader } from "../../wire/frame.ts";
import {
  counterBytes,
  OX_TAG_BYTES,
  SHORT_HEADER_MAX_BYTES,
  SHORT_HEADER_MIN_BYTES,
} from "../../wire/oxtunnel.ts";
import { HEADROOM, SLOT_BYTES, TAILROOM } from "../../vector/arena.ts";
import { FEATURE_SLIDING_WINDOW } from "../../wire/parameters.ts";
import { repairFrame, type RepairReceiver } from "../../repair/receiver.ts";
import { datagramBytes } from "../../repair/tally.ts";
import { fillSections } from "../../repair/report_sections.ts";
import type { SessionRepair } from "../../repair/pool.ts";
import type { Associations } from "../associations.ts";
import { isStreamAddress } from "../../wire/stream.ts";
import type { KeyExchange } from "./keys.ts";
import { Closing } from "./subjects/closing.ts";
import { ConnectionIds } from "./subjects/connection_ids.ts";
import { HintExchange } from "./subjects/hints.ts";
import { KeyRenewal } from "./subjects/keys.ts";
import { Reliable } from "./subjects/reliable.ts";
import { TicketExchange } from "./subjects/tickets.ts";
import type { SharedSession, Subject } from "./subjects/subject.ts";
import { OxPaths } from "./paths.ts";
import type { OxSessions } from "./sessions.ts";
import type { PathRate } from "../../rate/path_rate.ts";

/** Plaintext of a control datagram: the smallest datagram that every path takes, less header and tag. */
const CONTROL_BYTES_MAX = 1200 - 25;
const PINGS_MAX = 8;
/** From ping to ping at least; and the share of the round trip that it takes where that is longer (PROTOCOL §14). */
const PING_US_MIN = 75_000;
const PING_ROUND_TRIPS = 1 / 4;
/** Counters that a report goes over again, in case the last one was lost. */
const REPORT_OVERLAP = 32;
const REPORT_FIXED_BYTES = FRAME_HEAD_BYTES + 15 + 12;
const REPORT_FRAME_MAX_BYTES = FRAME_HEAD_BYTES + REPORT_MAX_BYTES;
/** How long the reply to a probe may take: so many round trips, at least so long, and without one to go by. */
const PROBE_ROUND_TRIPS = 3, PROBE_US_MIN = 200_000, PROBE_US_FIRST = 1_000_000;

/** One is filled and written at a time, by whoever's turn it is. */
const report = new Report();
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
  readonly around: Associations;
  #isNarrow = false;
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
  /** Smoothed round trip; -1 before the first pong. */
  rttUs = -1;
  /** How much one round trip differs from the next. */
  readonly jitter = new Jitter();
  /** Datagrams that the other end has accepted of those up to `acknowledged`, modulo 2^32, as its last report says. */
  reportedReceived = 0;
  readonly #closing: Closing;
  readonly #keys: KeyRenewal;
  readonly #reliable: Reliable;
  readonly ids: ConnectionIds;
  readonly hints: HintExchange;
  /** Order in a datagram: what is first finds room first. */
  readonly #inOrder: readonly Subject[];
  #isPingDue = false;
  #isPongDue = false;
  #pongToken = 0;
  #pongSinceUs = 0;
  /** The size of a probe that arrived and waits to be told; 0 when none does. */
  #arrivedSize = 0;
  #reportedHighest = -1;
  /** Whether its end is set: nothing puts it off. */
  isEnding = false;
  constructor(associations: Associations, sessions: OxSessions, options: OxSessionOptions) {
    this.around = associations;
    this.sessions = sessions;
    this.row = options.row;
    this.peer = options.peer;
    this.isInitiator = options.isInitiator;
    this.isNew = options.isInitiator;
    this.aead = options.aead;
    this.features = options.features;
    this.#canRepair = (options.features & FEATURE_SLIDING_WINDOW) !== 0;
    this.reportIntervalUs = options.reportIntervalUs;
    this.paths = new OxPaths(associations, this);
    this.size = new PathSize(options.datagramMaxBytes);
    const { spareRows, remoteIds, keys } = options;
    const reliable = this.#reliable = new Reliable(this);
    this.#inOrder = [
      this.#closing = new Closing(this),
      reliable,
      this.#others(),
      this.ids = new ConnectionIds(this, reliable, spareRows, remoteIds),
      this.hints = new HintExchange(this, reliable),
      new TicketExchange(this, reliable),
      this.#keys = new KeyRenewal(this, keys),
    ];
    reliable.setOrder(this.#inOrder);
  }

  /** The subjects that have no file of their own yet. */
  #others(): Subject {
    return {
      dueUs: Infinity,
      hasWord: () => this.#hasWord(),
      write: ({ view }, at, _room, nowUs) => this.#write(view, at, nowUs),
      handleTimeout: () => {},
    };
  }

  /** The number of the newest epoch that both ends have. */
  get epoch(): number {
    return this.#keys.epoch;
  }

  /** The next deadline that the columns do not know of, or Infinity. */
  get dueUs(): number {
    let dueUs = Math.min(this.paths.dueUs, this.size.dueUs, this.#repairAtUs);
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
    this.size.onAnswer(sentUs);
    this.sizeChanged();
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

  /** What goes out takes another path from now on, whose size is to be found. */
  onNewPath(): void {
    this.size.begin(isStreamAddress(this.around.options.peers.address, 4 * this.peer));
    this.sizeChanged();
  }

  /** Tells the columns what the path's size is now, and has a probe sent that is due. */
  sizeChanged(): void {
    const { size, sessions, row } = this;
    if (size.isNarrow && !this.#isNarrow) this.around.noteNarrow(this.peer);
    this.#isNarrow = size.isNarrow;
    sessions.datagramBytes[row] = size.bytes;
    sessions.searchAtUs[row] = size.searchAtUs;
    if (!size.isDue) return;
    if (size.isRepeat) this.#isPingDue = true; // what is small shows whether it is the size
    this.speak();
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

  ping(): void {
    this.#isPingDue = true;
    this.speak();
  }

  /** How long nothing may come after data went out before the next ping does. */
  get pingIntervalUs(): number {
    return Math.max(PING_US_MIN, PING_ROUND_TRIPS * this.roundTripUs);
  }

  /** Whether the path is dead: data went out, and nothing answered it nor the pings that followed. */
  get isSilent(): boolean {
    return this.sessions.unanswered[this.row] > PINGS_MAX;
  }

  /** Nothing came since data went out, for the `times`-th time. */
  onSilence(times: number): void {
    if (times <= PINGS_MAX) {
      this.ping();
      return;
    }
    this.sessions.pingAtUs[this.row] = Infinity;
    if (this.isInitiator) this.around.initiate(this.peer);
  }

  /** Whether it has yet to say that it ends. */
  get isClosing(): boolean {
    return this.#closing.isClosing;
  }

  /** Ends the session at both ends; the close is said three times and then the keys go. */
  close(reason: number, retryAfterS: number, nowUs: number): void {
    if (!this.#closing.close(reason, retryAfterS, nowUs)) return;
    this.size.halt();
    this.sizeChanged();
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
      case CONTROL_PING:
        this.#isPongDue = true;
        this.#pongToken = readToken(view, at);
        this.#pongSinceUs = nowUs;
        this.speak();
        return false;
      case CONTROL_PONG:
        this.#onPong(readToken(view, at), readHeldUs(view, at), nowUs);
        return false;
      case CONTROL_REPORT:
        report.read(view, at);
        if (report.highest >= this.sessions.acknowledged[this.row]) this.reportedReceived = report.received;
        this.sessions.acknowledge(this.row, report.highest);
        this.size.onReport(report.highest, report.bitmap, report.bitmapBytes, nowUs);
        this.sizeChanged();
        this.#onRateReport(nowUs);
        this.#onRepairReport(nowUs);
        return false;
      case CONTROL_PROBE:
        // What arrived is what counts, whatever the frame says.
        this.#arrivedSize = burst.headerBytes[row] + burst.length[row] + OX_TAG_BYTES;
        this.speak();
        return false;
      case CONTROL_PROBE_REPLY:
        this.size.onReply(readSize(view, at), nowUs);
        this.sizeChanged();
        return false;
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
    if (this.size.dueUs <= nowUs) {
      this.size.handleTimeout(nowUs);
      this.sizeChanged();
    }
    if (this.#repairAtUs <= nowUs) {
      this.#repairAtUs = Infinity;
      this.#isRepairDue = true;
      this.speak();
    }
  }

  /** Adds datagrams with all that waits to be said to the burst; false when it was full before. */
  pollTransmit(burst: Burst, nowUs: number): boolean {
    const { table, peers } = this.around.options;
    if (table.sendCounter[this.row] >= table.sendLimit[this.row] || nowUs >= table.endsUs[this.row]) {
      return true;
    }
    if (this.sessions.refuses(this.row, peers.address, 4 * this.peer)) return true;
    if (!this.paths.pollTransmit(burst)) return false;
    while (this.#isAnyWord(nowUs) || this.size.isDue || this.#isRepairDue) {
      const row = burst.grow(0, TO_SEAL_DATAGRAM);
      if (row < 0) return false;
      let hasRepair = false;
      // A probe that is lost for its size shall take nothing else with it. So it comes last: what is shorter and follows
      // would be of one message with it, which UDP_SEGMENT lets a router take or drop as a whole.
      if (this.#isAnyWord(nowUs)) burst.length[row] = this.#writeInOrder(burst, burst.offset[row], nowUs);
      else if (!this.#isRepairDue) burst.length[row] = this.#writeProbe(burst, burst.offset[row], nowUs);
      else {
        const { sender } = this.#repair!, counter = table.sendCounter[this.row];
        sender.ride(burst, row, counter, this.sessions.innerMtu(this.row), nowUs);
        this.noteRepairs(burst, burst.offset[row], burst.length[row], counter, nowUs);
        hasRepair = true;
        this.#isRepairDue = sender.dueUs <= nowUs && burst.length[row] > 0;
        if (!this.#isRepairDue) this.hastenRepair();
        if (burst.length[row] === 0) {
          burst.shrink(row);
          continue;
        }
      }
      burst.session[row] = this.row;
      burst.peer[row] = this.peer;
      for (let i = 0; i < 4; i++) {
        burst.address[4 * row + i] = peers.address[4 * this.peer + i];
        burst.local[4 * row + i] = peers.local[4 * this.peer + i];
      }
      burst.port[row] = peers.port[this.peer];
      this.sessions.number(burst, row, table.remoteIndex[this.row]);
      if (this.#repair !== undefined) this.noteSent(burst, row, hasRepair, false, nowUs);
    }
    return true;
  }

  /** Writes a report in front of the packet in `row` where the datagram has room for it. */
  prependReport(burst: Burst, row: number, mtu: number, nowUs: number): void {
    const { offset, length, slot, bytes: arena } = burst;
    // A batch has taken some of the headroom.
    const room = offset[row] - slot[row] * SLOT_BYTES - SHORT_HEADER_MAX_BYTES;
    const budget = Math.min(HEADROOM - SHORT_HEADER_MAX_BYTES, room, mtu - length[row]);
    if (budget < REPORT_FIXED_BYTES + 1) return;
    const behind = (slot[row] + 1) * SLOT_BYTES - TAILROOM - offset[row] - length[row];
    this.#fillReport(budget, Math.min(mtu - length[row], room + behind), nowUs);
    const { frameBytes } = report;
    if (frameBytes > room) {
      // Sections of a session that repairs need more than the headroom: the rest moves back.
      arena.copyWithin(offset[row] + frameBytes - room, offset[row], offset[row] + length[row]);
      offset[row] += frameBytes - room;
    }
    offset[row] -= frameBytes;
    length[row] += frameBytes;
    report.write(burst.view, offset[row]);
  }

  /** Has the rate of what this end sends found, where there is room for one more. */
  findRate(nowUs: number): void {
    this.pathRate ??= this.sessions.rates?.take(nowUs);
  }

  #onRateReport(nowUs: number): void {
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

  /** Writes what waits, as much as one datagram takes, and returns the bytes. */
  #writeInOrder(burst: Burst, start: number, nowUs: number): number {
    let at = start;
    for (const subject of this.#inOrder) {
      if (subject.hasWord(nowUs)) at += subject.write(burst, at, CONTROL_BYTES_MAX - (at - start), nowUs);
    }
    return at - start;
  }

  #hasWord(): boolean {
    return this.#isPingDue || this.#isPongDue || this.isReportDue || this.#arrivedSize !== 0;
  }

  #write(view: DataView, start: number, nowUs: number): number {
    let at = start;
    if (this.#isPongDue) {
      at += writePong(view, at, this.#pongToken, nowUs - this.#pongSinceUs);
      this.#isPongDue = false;
    }
    if (this.#isPingDue) {
      at += writePing(view, at, nowUs >>> 0);
      this.#isPingDue = false;
    }
    if (this.#arrivedSize !== 0) {
      at += writeShort(view, at, CONTROL_PROBE_REPLY, this.#arrivedSize);
      this.#arrivedSize = 0;
    }
    if (this.isReportDue) {
      this.#fillReport(REPORT_FIXED_BYTES + REPORT_BITMAP_MAX_BYTES, REPORT_FRAME_MAX_BYTES, nowUs);
      at += report.write(view, at);
    }
    return at - start;
  }

  /** Writes a probe, padded so that its datagram has the size that is probed, and returns the bytes. */
  #writeProbe({ view, bytes }: Burst, start: number, nowUs: number): number {
    const { size, sessions, row } = this;
    const { table, count } = this.around.options;
    const counter = counterBytes(table.sendCounter[row], sessions.acknowledged[row]);
    const end = start + size.probed - OX_TAG_BYTES - (SHORT_HEADER_MIN_BYTES - 1 + counter);
    const at = start + writeShort(view, start, CONTROL_PROBE, size.probed);
    bytes.fill(0, at, end);
    size.onSent(table.sendCounter[row], nowUs, this.#probeUs());
    this.hasten(size.dueUs);
    count("size_probes_sent");
    return end - start;
  }

  #probeUs(): number {
    const { roundTripUs } = this;
    return roundTripUs < 0 ? PROBE_US_FIRST : Math.max(PROBE_US_MIN, PROBE_ROUND_TRIPS * roundTripUs);
  }

  /** @param bytesMax what the frame may take without sections of its own, and @param sectionsMax with them. */
  #fillReport(bytesMax: number, sectionsMax: number, nowUs: number): void {
    const { sessions, row } = this;
    const { replay } = this.around.options.table;
    const highest = replay.highest[row];
    report.highest = highest;
    report.delayUs = nowUs - sessions.arrivedUs[row];
    report.received = replay.accepted(row) >>> 0;
    const heard = Math.min(highest, highest - this.#reportedHighest + REPORT_OVERLAP);
    const counters = Math.min(heard, 8 * REPORT_BITMAP_MAX_BYTES); // before the shift: a peer may jump by 2^31
    report.bitmapBytes = Math.min(
      REPORT_BITMAP_MAX_BYTES,
      bytesMax - REPORT_FIXED_BYTES,
      (counters + 7) >> 3,
    );
    replay.bitmap(row, report.bitmap, report.bitmapBytes);
    const marks = 4 * row;
    report.ect1 = sessions.ecn[marks + 1];
    report.ect0 = sessions.ecn[marks + 2];
    report.congestionExperienced = sessions.ecn[marks + 3];
    report.hasEcn = (report.ect0 | report.ect1 | report.congestionExperienced) !== 0;
    report.hasQuality = report.hasClock = false;
    report.arrivalCount = 0;
    if (this.receiver !== undefined) {
      const { arrivals } = this.receiver;
      fillSections(report, arrivals, sectionsMax - report.frameBytes, this.#reportedHighest, nowUs);
      this.#countRepairs(this.receiver);
    }
    this.#reportedHighest = highest;
    this.isReportDue = false;
    sessions.reported(row, nowUs);
  }

  /** The last report says how this end's repairs fare. */
  #onRepairReport(nowUs: number): void {
    if (this.#repair === undefined) return;
    const { quality } = this.#repair, { repaired, unrepaired } = quality;
    this.#repair.onReport(report, nowUs);
    this.around.options.count("reported_repaired", quality.repaired - repaired);
    this.around.options.count("reported_unrepaired", quality.unrepaired - unrepaired);
  }

  #onPong(token: number, heldUs: number, nowUs: number): void {
    const sampleUs = ((nowUs >>> 0) - token >>> 0) - heldUs;
    if (sampleUs < 0 || sampleUs > 60e6) return;
    this.size.onAnswer(Math.floor(nowUs) - sampleUs - heldUs);
    this.sizeChanged();
    this.jitter.add(sampleUs);
    // RFC 6298's gain.
    this.rttUs = this.rttUs < 0 ? sampleUs : this.rttUs + (sampleUs - this.rttUs) / 8;
  }
}
