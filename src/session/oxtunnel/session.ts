/**
 * One OxTunnel session but for its columns: what it has to say by itself, and what the other end's control frames do
 * (PROTOCOL §14, §15). Invariant: an answer is never answered, at most one frame of each kind waits to be sent, and a
 * reliable frame is obeyed once and in order. Its datagrams leave through `pollTransmit`.
 * Keeps PROTOCOL R53, R54, R55, R57, R58, R59, R78 and R83.
 */
import { Jitter } from "../../control/jitter.ts";
import { PathSize } from "../../control/path_size.ts";
import { NONE } from "../../vector/arena.ts";
import { type Burst, TO_SEAL_DATAGRAM } from "../../vector/burst.ts";
import {
  CONNECTION_IDS_MAX,
  connectionIdCount,
  CONTROL_ACK,
  CONTROL_CLOSE,
  CONTROL_CONNECTION_IDS,
  CONTROL_HINT,
  CONTROL_KEY_EXCHANGE,
  CONTROL_PATH_CHALLENGE,
  CONTROL_PATH_RESPONSE,
  CONTROL_PING,
  CONTROL_PONG,
  CONTROL_PROBE,
  CONTROL_PROBE_REPLY,
  CONTROL_REPORT,
  CONTROL_TICKET,
  controlKind,
  isReliable,
  KEY_ANSWER,
  KEY_PART_AT,
  KEY_PART_BYTES,
  keyPartBytes,
  readCloseReason,
  readFirstIdNumber,
  readHeldUs,
  readKeyRole,
  readNewConnectionId,
  readPathHigh,
  readPathLow,
  readRetireBefore,
  readSequence,
  readSize,
  readTicketLifeS,
  readToken,
  REPORT_BITMAP_MAX_BYTES,
  REPORT_MAX_BYTES,
  TICKET_AT,
  TICKET_SECRET_AT,
  TICKET_SECRET_BYTES,
  writeClose,
  writeConnectionIds,
  writeKeyExchange,
  writePing,
  writePong,
  writeShort,
  writeTicket,
} from "../../wire/control.ts";
import { FRAME_HEAD_BYTES } from "../../wire/frame.ts";
import {
  counterBytes,
  OX_TAG_BYTES,
  SHORT_HEADER_MAX_BYTES,
  SHORT_HEADER_MIN_BYTES,
} from "../../wire/oxtunnel.ts";
import { HEADROOM, SLOT_BYTES, TAILROOM } from "../../vector/arena.ts";
import {
  AEAD_AES_256_GMAC,
  FEATURE_HYBRID_KEYS,
  FEATURE_RESUMPTION,
  FEATURE_SLIDING_WINDOW,
} from "../../wire/parameters.ts";
import { SessionRepair } from "../../repair/session_repair.ts";
import { CLASS_DEFAULT } from "../../control/traffic_class.ts";
import type { Associations } from "../associations.ts";
import { isStreamAddress } from "../../wire/stream.ts";
import { KEY_EXCHANGE_PRICE } from "./control_budget.ts";
import type { HintedFlows } from "./hints.ts";
import type { KeyExchange } from "./keys.ts";
import { OxPaths } from "./paths.ts";
import type { OxSessions } from "./sessions.ts";
import { TICKET_LIFE_US, wipeTicket } from "./tickets.ts";

/** Plaintext of a control datagram: the smallest datagram that every path takes, less header and tag. */
const CONTROL_BYTES_MAX = 1200 - 25;
/** The largest frame that is written whole: a part of a key exchange. */
const FRAME_BYTES_MAX = FRAME_HEAD_BYTES + KEY_PART_AT + KEY_PART_BYTES;
const PINGS_MAX = 8;
/** From ping to ping at least; and the share of the round trip that it takes where that is longer (PROTOCOL §14). */
const PING_US_MIN = 75_000;
const PING_ROUND_TRIPS = 1 / 4;
const KEY_REPEAT_US_MIN = 250_000;
const RELIABLE_REPEAT_US_MIN = 100_000;
const CLOSES = 3;
const CLOSE_US = 100_000;
/** Counters that a report goes over again, in case the last one was lost. */
const REPORT_OVERLAP = 32;
const REPORT_FIXED_BYTES = FRAME_HEAD_BYTES + 15 + 12;
const REPORT_FRAME_MAX_BYTES = FRAME_HEAD_BYTES + REPORT_MAX_BYTES;
/** Spare connection ids that the other end shall have. */
export const SPARE_IDS = 2;
/** Ids of one session that are good at a time, besides its first. */
const IDS_MAX = 8;
/** Ids that a session gives out in all; who has used them up makes a handshake. */
const IDS_EVER = 1024;
const SEQUENCES = 65536;
/** A ticket is kept no longer, whatever the other end says. */
const TICKET_LIFE_MAX_US = 7 * 86_400_000_000;
/** How long the reply to a probe may take: so many round trips, at least so long, and without one to go by. */
const PROBE_ROUND_TRIPS = 3, PROBE_US_MIN = 200_000, PROBE_US_FIRST = 1_000_000;

/** How long a hint holds at the other end, and after how long it is said again. */
const HINT_LIFE_S = 65_535, HINTS_AGAIN_US = 21_600_000_000;
/** Hints that wait to be said: all of this end's own, and as many taken back. */
const HINTS_WAITING_MAX = 128;

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

export class OxSession {
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
  #isNarrow = false;
  /** Loss repair in both directions; undefined where the ends have not agreed to it. */
  readonly repair: SessionRepair | undefined;
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
  readonly #a: Associations;
  readonly #keys: KeyExchange;
  #keysRepeatAtUs = Infinity;
  /** When the last epoch's keys go. */
  #retireAtUs = Infinity;
  #isPingDue = false;
  #isPongDue = false;
  #pongToken = 0;
  #pongSinceUs = 0;
  /** The size of a probe that arrived and waits to be told; 0 when none does. */
  #arrivedSize = 0;
  #ackDue = -1;
  /** The next reliable frame that is obeyed. */
  #expected = 0;
  /** The reliable frame that is under way, its sequence number, and when it goes again. */
  #reliableKind = 0;
  #sequence = 0;
  #reliableAtUs = Infinity;
  #isReliableDue = false;
  #idsUnderWay = 0;
  /** The ticket that the other end does not have yet, and its secret; and when it is given another. */
  #ticket: { bytes: Uint8Array; secret: Uint8Array } | undefined;
  #nextTicketUs = -Infinity;
  #reportedHighest = -1;
  /** Rows of this end's ids by number; number 0 is the session's own. */
  readonly #ownRows: number[];
  /** When a request of the other end may be computed again. */
  #nextRequestUs = -Infinity;
  /** Whether its end is set: nothing puts it off. */
  isEnding = false;
  readonly #remoteIds: number[];
  #remoteIdNumber: number;
  /** Numbers of own ids that the other end knows. */
  #toldIds: number;
  /** Hints to be said, oldest first; without a class they are taken back. */
  readonly #hints: (HintedFlows & { trafficClass?: number })[] = [];
  #hintsAgainUs = Infinity;
  #closesLeft = 0;
  #closeAtUs = Infinity;
  #isCloseDue = false;
  #closeReason = 0;
  #retryAfterS = 0;

  constructor(associations: Associations, sessions: OxSessions, options: OxSessionOptions) {
    this.#a = associations;
    this.sessions = sessions;
    this.row = options.row;
    this.peer = options.peer;
    this.isInitiator = options.isInitiator;
    this.isNew = options.isInitiator;
    this.aead = options.aead;
    this.features = options.features;
    const { repairs } = sessions, canRepair = (options.features & FEATURE_SLIDING_WINDOW) !== 0;
    this.repair = canRepair && repairs !== undefined ? new SessionRepair(repairs, this) : undefined;
    this.reportIntervalUs = options.reportIntervalUs;
    this.#keys = options.keys;
    this.#ownRows = [options.row, ...options.spareRows];
    this.#toldIds = this.#ownRows.length;
    this.#remoteIds = options.remoteIds;
    this.#remoteIdNumber = 1 + options.remoteIds.length;
    this.paths = new OxPaths(associations, this);
    this.size = new PathSize(options.datagramMaxBytes);
  }

  /** The number of the newest epoch that both ends have. */
  get epoch(): number {
    return this.#keys.epoch;
  }

  /** The next deadline that the columns do not know of, or Infinity. */
  get dueUs(): number {
    return Math.min(
      this.#keysRepeatAtUs,
      this.#retireAtUs,
      this.#reliableAtUs,
      this.#closeAtUs,
      this.paths.dueUs,
      this.size.dueUs,
      this.repair?.dueUs ?? Infinity,
    );
  }

  /** The highest counter that was accepted from the other end, -1 before the first. */
  highestReceived(): number {
    return this.#a.options.table.replay.highest[this.row];
  }

  /** Has `handleTimeout` called at `dueUs` at the latest. */
  hasten(dueUs: number): void {
    this.#a.timers.hasten(this.peer, dueUs);
  }

  /** Has `pollTransmit` called. */
  speak(): void {
    this.#a.wantControl(this.peer);
  }

  /** The responder's session is confirmed: what it sends goes where the response went. */
  takeEndpoint(nowUs: number): void {
    this.paths.takeHandshake();
    this.#giveTicket(nowUs);
    this.onNewPath();
  }

  /** What goes out takes another path from now on, whose size is to be found. */
  onNewPath(): void {
    this.size.begin(isStreamAddress(this.#a.options.peers.address, 4 * this.peer));
    this.sizeChanged();
  }

  /** Tells the columns what the path's size is now, and has a probe sent that is due. */
  sizeChanged(): void {
    const { size, sessions, row } = this;
    if (size.isNarrow && !this.#isNarrow) this.#a.noteNarrow(this.peer);
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
    this.#sayHints(nowUs);
    this.renew(nowUs);
    this.#giveTicket(nowUs);
  }

  /** Tells the other end of a hint, or, without a class, takes it back. */
  sayHint(flows: HintedFlows, trafficClass: number | undefined): void {
    if (this.#hints.length === HINTS_WAITING_MAX) return;
    this.#hints.push({ ...flows, trafficClass });
    this.#startReliable();
  }

  #sayHints(nowUs: number): void {
    for (const own of this.sessions.hints.own) this.sayHint(own, own.trafficClass);
    this.#hintsAgainUs = nowUs + HINTS_AGAIN_US;
  }

  /** Asks for the next epoch, or, near the end of the session's life, begins a handshake. */
  renew(nowUs: number): void {
    const { table, limits } = this.#a.options;
    if (nowUs >= table.bornUs[this.row] + limits.sessionUs - limits.rejectAfterUs) {
      this.#a.initiate(this.peer);
    }
    if (this.#keys.isAsking || this.#keys.isUnconfirmed || this.#retireAtUs !== Infinity) return;
    this.#keys.ask();
    this.#repeatKeysLater(nowUs);
  }

  /** Something has opened under the epoch that was awaited: the last one opens for a while longer. */
  confirmEpoch(nowUs: number): void {
    const { limits, count } = this.#a.options;
    this.#keys.confirm();
    const phase = this.#keys.epoch & 1;
    if (this.sessions.sendPhase[this.row] !== phase) this.sessions.enterEpoch(this.row, phase, nowUs);
    this.#retireAtUs = nowUs + limits.graceUs;
    this.#a.timers.hasten(this.peer, this.#retireAtUs);
    if (nowUs >= this.#hintsAgainUs) this.#sayHints(nowUs);
    count("epochs_made");
    this.#giveTicket(nowUs);
  }

  ping(): void {
    this.#isPingDue = true;
    this.speak();
  }

  /** How long nothing may come after data went out before the next ping does. */
  get pingIntervalUs(): number {
    const rttUs = this.rttUs < 0 ? this.#a.options.peers.get(this.peer)?.handshakeRttUs ?? -1 : this.rttUs;
    return Math.max(PING_US_MIN, PING_ROUND_TRIPS * rttUs);
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
    if (this.isInitiator) this.#a.initiate(this.peer);
  }

  /** Whether it has yet to say that it ends. */
  get isClosing(): boolean {
    return this.#closesLeft > 0;
  }

  /** Ends the session at both ends; the close is said three times and then the keys go. */
  close(reason: number, retryAfterS: number, nowUs: number): void {
    if (this.#closeReason !== 0) return;
    this.#closeReason = reason;
    this.#retryAfterS = retryAfterS;
    this.#closesLeft = CLOSES;
    this.#closeAtUs = nowUs;
    this.size.halt();
    this.sizeChanged();
    this.#a.timers.hasten(this.peer, nowUs);
  }

  /** An id of the other end that no path has seen yet, or NONE. */
  takeRemoteId(): number {
    return this.#remoteIds.shift() ?? NONE;
  }

  /** Notes that the other end has begun to use the id of `row`: it gets another in its place. */
  onIdUsed(row: number): void {
    const { table } = this.#a.options;
    const number = this.#ownRows.indexOf(row);
    if (number < 1 || number + SPARE_IDS < this.#ownRows.length || this.#ownRows.length >= IDS_EVER) return;
    const spare = table.allocateSpare(this.row);
    if (spare === NONE) return;
    // Paths that were left long ago keep no ids.
    const old = this.#ownRows.length - IDS_MAX;
    if (old > 0) {
      table.erase(this.#ownRows[old]);
      this.#ownRows[old] = NONE;
    }
    this.#ownRows.push(spare);
    this.#startReliable();
  }

  /**
   * Obeys the control frame whose body of `length` bytes at `at` has the length of its kind. `row` is its datagram's.
   * Returns whether the other end wants to hear that it came.
   */
  onControl(burst: Burst, row: number, at: number, length: number, nowUs: number): boolean {
    const { view } = burst, { report } = this.sessions;
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
        this.repair?.onReport(report, nowUs);
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
      case CONTROL_KEY_EXCHANGE:
        this.#onKeyPart(view, at, nowUs);
        return false;
      case CONTROL_CLOSE:
        this.#a.closed(this, readCloseReason(view, at));
        return false;
      case CONTROL_ACK:
        this.#onAck(readSequence(view, at));
        return false;
      default:
        if (isReliable(kind)) this.#onReliable(burst, at, length, kind, nowUs);
        return isReliable(kind);
    }
  }

  handleTimeout(nowUs: number): void {
    const { table } = this.#a.options;
    this.paths.handleTimeout(nowUs);
    if (this.size.dueUs <= nowUs) {
      this.size.handleTimeout(nowUs);
      this.sizeChanged();
    }
    if (this.#retireAtUs <= nowUs) {
      this.#retireAtUs = Infinity;
      this.sessions.datagramAead.retire(this.row, (this.#keys.epoch & 1) ^ 1);
    }
    if (this.#keysRepeatAtUs <= nowUs) {
      if (this.#keys.isAsking) {
        this.#keys.repeat();
        this.#repeatKeysLater(nowUs);
      } else this.#keysRepeatAtUs = Infinity;
    }
    if (this.#reliableAtUs <= nowUs) {
      this.#reliableAtUs = Infinity;
      this.#isReliableDue = true;
      this.speak();
    }
    if (this.repair?.handleTimeout(nowUs)) this.speak();
    if (this.#closeAtUs <= nowUs) {
      this.#closeAtUs = Infinity;
      this.#isCloseDue = this.#closesLeft > 0;
      if (!this.#isCloseDue) table.endsUs[this.row] = nowUs;
      this.speak();
    }
  }

  /** Adds datagrams with all that waits to be said to the burst; false when it was full before. */
  pollTransmit(burst: Burst, nowUs: number): boolean {
    const { table, peers } = this.#a.options;
    if (table.sendCounter[this.row] >= table.sendLimit[this.row] || nowUs >= table.endsUs[this.row]) {
      return true;
    }
    if (this.sessions.refuses(this.row, peers.address, 4 * this.peer)) return true;
    if (!this.paths.pollTransmit(burst)) return false;
    while (this.#hasWord() || this.size.isDue || this.repair?.isDue) {
      const row = burst.grow(0, TO_SEAL_DATAGRAM);
      if (row < 0) return false;
      let hasRepair = false;
      // A probe that is lost for its size shall take nothing else with it. So it comes last: what is shorter and follows
      // would be of one message with it, which UDP_SEGMENT lets a router take or drop as a whole.
      if (this.#hasWord()) burst.length[row] = this.#write(burst.view, burst.offset[row], nowUs);
      else if (!this.repair?.isDue) burst.length[row] = this.#writeProbe(burst, burst.offset[row], nowUs);
      else {
        const bytesMax = this.sessions.innerMtu(this.row);
        this.repair.writeAlone(burst, row, table.sendCounter[this.row], bytesMax, nowUs);
        hasRepair = true;
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
      this.repair?.controlSent(burst, row, hasRepair, nowUs);
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
    const { report } = this.sessions, { frameBytes } = report;
    if (frameBytes > room) {
      // Sections of a session that repairs need more than the headroom: the rest moves back.
      arena.copyWithin(offset[row] + frameBytes - room, offset[row], offset[row] + length[row]);
      offset[row] += frameBytes - room;
    }
    offset[row] -= frameBytes;
    length[row] += frameBytes;
    report.write(burst.view, offset[row]);
  }

  /** Overwrites secrets and gives the rows of spare ids back. */
  wipe(): void {
    this.repair?.end();
    this.#keys.wipe();
    this.#forgetTicket();
    for (let number = 1; number < this.#ownRows.length; number++) {
      this.#a.options.table.erase(this.#ownRows[number]);
    }
    this.#ownRows.length = 1;
    this.#hints.length = 0;
  }

  #hasWord(): boolean {
    return this.#isPingDue || this.#isPongDue || this.#ackDue >= 0 || this.#keys.partsToSend !== 0 ||
      this.isReportDue || this.#isReliableDue || this.#isCloseDue || this.#arrivedSize !== 0;
  }

  /** Writes what waits, as much as one datagram takes, and returns the bytes. */
  #write(view: DataView, start: number, nowUs: number): number {
    let at = start;
    if (this.#isCloseDue) {
      this.#isCloseDue = false;
      at += writeClose(view, at, this.#closeReason, this.#retryAfterS);
      this.#closesLeft--;
      this.#closeAtUs = nowUs + CLOSE_US;
      this.#a.timers.hasten(this.peer, this.#closeAtUs);
    }
    if (this.#ackDue >= 0) {
      at += writeShort(view, at, CONTROL_ACK, this.#ackDue);
      this.#ackDue = -1;
    }
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
      at += this.sessions.report.write(view, at);
    }
    if (this.#isReliableDue) {
      this.#isReliableDue = false;
      at += this.#writeReliable(view, at);
      this.#reliableAtUs = nowUs + Math.max(RELIABLE_REPEAT_US_MIN, 2 * this.rttUs);
      this.#a.timers.hasten(this.peer, this.#reliableAtUs);
    }
    const keys = this.#keys;
    for (let part = 0; keys.partsToSend !== 0; part++) {
      if (at - start + FRAME_BYTES_MAX > CONTROL_BYTES_MAX) break;
      if ((keys.partsToSend & (1 << part)) === 0) continue;
      at += this.#writeKeyPart(view, at, part * KEY_PART_BYTES);
      keys.partsToSend &= ~(1 << part);
    }
    return at - start;
  }

  /** Writes a probe, padded so that its datagram has the size that is probed, and returns the bytes. */
  #writeProbe({ view, bytes }: Burst, start: number, nowUs: number): number {
    const { size, sessions, row } = this;
    const { table, count } = this.#a.options;
    const counter = counterBytes(table.sendCounter[row], sessions.acknowledged[row]);
    const end = start + size.probed - OX_TAG_BYTES - (SHORT_HEADER_MIN_BYTES - 1 + counter);
    const at = start + writeShort(view, start, CONTROL_PROBE, size.probed);
    bytes.fill(0, at, end);
    size.onSent(table.sendCounter[row], nowUs, this.#probeUs());
    this.#a.timers.hasten(this.peer, size.dueUs);
    count("size_probes_sent");
    return end - start;
  }

  #probeUs(): number {
    const { rttUs } = this;
    const roundTripUs = rttUs >= 0 ? rttUs : this.#a.options.peers.get(this.peer)?.handshakeRttUs ?? -1;
    return roundTripUs < 0 ? PROBE_US_FIRST : Math.max(PROBE_US_MIN, PROBE_ROUND_TRIPS * roundTripUs);
  }

  #writeKeyPart(view: DataView, at: number, offset: number): number {
    const { message, role, epoch } = this.#keys;
    const body = writeKeyExchange(view, at, role, epoch + 1, message.length, offset);
    const bytes = keyPartBytes(message.length, offset);
    for (let i = 0; i < bytes; i++) view.setUint8(body + i, message[offset + i]);
    return body + bytes - at;
  }

  /** @param bytesMax what the frame may take without sections of its own, and @param sectionsMax with them. */
  #fillReport(bytesMax: number, sectionsMax: number, nowUs: number): void {
    const { sessions, row } = this, { report } = sessions;
    const { replay } = this.#a.options.table;
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
    this.repair?.fillReport(report, sectionsMax - report.frameBytes, this.#reportedHighest, nowUs);
    this.#reportedHighest = highest;
    this.isReportDue = false;
    sessions.reported(row, nowUs);
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

  #onKeyPart(view: DataView, at: number, nowUs: number): void {
    const isAnswer = readKeyRole(view, at) === KEY_ANSWER;
    const { budget, exchangesLeft } = this.sessions;
    // One exchange at a time, one computed per grace period whatever comes of it, and few in a burst and for one peer.
    const mayCompute = !this.isEnding && this.#retireAtUs === Infinity && exchangesLeft > 0 &&
      (isAnswer || nowUs >= this.#nextRequestUs) && budget.has(this.peer, KEY_EXCHANGE_PRICE, nowUs);
    const computed = this.#keys.computed;
    const keys = this.#keys.onPart(view, at, mayCompute);
    if (this.#keys.computed !== computed) {
      this.sessions.exchangesLeft--;
      budget.pay(this.peer, KEY_EXCHANGE_PRICE, nowUs);
      if (!isAnswer) this.#nextRequestUs = nowUs + this.#a.limits.graceUs;
    }
    if (this.#keys.partsToSend !== 0) this.speak();
    if (!keys) return;
    const phase = (this.#keys.epoch + 1) & 1;
    this.sessions.datagramAead.install(this.row, phase, keys.sendKey, keys.receiveKey);
    keys.sendKey.fill(0);
    keys.receiveKey.fill(0);
    this.sessions.awaitedPhase[this.row] = phase;
    if (!isAnswer) return;
    this.#keysRepeatAtUs = Infinity;
    this.sessions.enterEpoch(this.row, phase, nowUs);
    this.ping();
  }

  #repeatKeysLater(nowUs: number): void {
    this.#keysRepeatAtUs = nowUs + Math.max(KEY_REPEAT_US_MIN, 2 * this.rttUs);
    this.#a.timers.hasten(this.peer, this.#keysRepeatAtUs);
    this.speak();
  }

  #onReliable({ bytes, view }: Burst, at: number, length: number, kind: number, nowUs: number): void {
    const sequence = readSequence(view, at);
    const ahead = (sequence - this.#expected + SEQUENCES) % SEQUENCES;
    if (ahead !== 0 && ahead < SEQUENCES / 2) return;
    this.#ackDue = (this.#expected + (ahead === 0 ? 0 : SEQUENCES - 1)) % SEQUENCES;
    this.speak();
    if (ahead !== 0) return;
    this.#expected = (this.#expected + 1) % SEQUENCES;
    if (kind === CONTROL_CONNECTION_IDS) this.#onConnectionIds(view, at, length);
    else if (kind === CONTROL_TICKET) this.#onTicket(bytes, view, at, length, nowUs);
    else if (kind === CONTROL_HINT) {
      const { hint, hints } = this.sessions;
      hint.read(view, at, length);
      hints.take(this.row, hint, nowUs);
    }
  }

  /** Whether a ticket's secret may be said here: not readably, and under ML-KEM's keys where there are some. */
  get #mayTellTicket(): boolean {
    return (this.features & FEATURE_RESUMPTION) !== 0 && this.aead !== AEAD_AES_256_GMAC &&
      (this.epoch > 0 || (this.features & FEATURE_HYBRID_KEYS) === 0);
  }

  /** Gives the other end a ticket, unless it has one that is good for long. */
  #giveTicket(nowUs: number): void {
    const { tickets } = this.#a.oxtunnel!;
    if (!tickets || !this.#mayTellTicket || nowUs < this.#nextTicketUs || this.#ticket) return;
    this.#nextTicketUs = nowUs + TICKET_LIFE_US / 2;
    const secret = this.#a.bytes(TICKET_SECRET_BYTES);
    this.#ticket = { bytes: tickets.seal(secret, this.#a.options.peers, this.peer, nowUs), secret };
    this.#startReliable();
  }

  #forgetTicket(): void {
    this.#ticket?.secret.fill(0);
    this.#ticket = undefined;
  }

  /** Keeps the relay's ticket in place of the last one. */
  #onTicket(bytes: Uint8Array, view: DataView, at: number, length: number, nowUs: number): void {
    if (this.#a.oxtunnel!.tickets || !this.#mayTellTicket) return;
    const peer = this.#a.options.peers.get(this.peer)!;
    const lifeUs = Math.min(TICKET_LIFE_MAX_US, 1e6 * readTicketLifeS(view, at));
    wipeTicket(peer.ticket);
    peer.ticket = {
      bytes: bytes.slice(at + TICKET_AT, at + length),
      secret: bytes.slice(at + TICKET_SECRET_AT, at + TICKET_AT),
      expiresUnixUs: nowUs + this.#a.unixOffsetUs + lifeUs,
    };
  }

  #onConnectionIds(view: DataView, at: number, length: number): void {
    const first = readFirstIdNumber(view, at);
    const count = connectionIdCount(length);
    for (let i = 0; i < count && this.#remoteIds.length < CONNECTION_IDS_MAX; i++) {
      if (first + i !== this.#remoteIdNumber) continue;
      this.#remoteIdNumber++;
      this.#remoteIds.push(readNewConnectionId(view, at, i));
    }
    // Ids that the other end gives up are taken from the front, where the oldest are.
    const retired = readRetireBefore(view, at) - (this.#remoteIdNumber - this.#remoteIds.length);
    if (retired > 0) this.#remoteIds.splice(0, retired);
  }

  #onAck(sequence: number): void {
    if (this.#reliableKind === 0 || sequence !== this.#sequence) return;
    this.#sequence = (this.#sequence + 1) % SEQUENCES;
    if (this.#reliableKind === CONTROL_TICKET) this.#forgetTicket();
    else if (this.#reliableKind === CONTROL_HINT) this.#hints.shift();
    else this.#toldIds += this.#idsUnderWay;
    this.#reliableKind = 0;
    this.#isReliableDue = false;
    this.#reliableAtUs = Infinity;
    this.#startReliable();
  }

  /** Puts the next reliable frame under way, if none is and one waits. */
  #startReliable(): void {
    if (this.#reliableKind !== 0) return;
    if (this.#toldIds < this.#ownRows.length) this.#reliableKind = CONTROL_CONNECTION_IDS;
    else if (this.#hints.length > 0) this.#reliableKind = CONTROL_HINT;
    else if (this.#ticket) this.#reliableKind = CONTROL_TICKET;
    else return;
    this.#isReliableDue = true;
    // What is repeated stays the same, whatever is added meanwhile.
    this.#idsUnderWay = Math.min(CONNECTION_IDS_MAX, this.#ownRows.length - this.#toldIds);
    this.speak();
  }

  #writeReliable(view: DataView, at: number): number {
    if (this.#reliableKind === CONTROL_TICKET) return this.#writeTicket(view, at);
    if (this.#reliableKind === CONTROL_HINT) return this.#writeHint(view, at);
    const { receiverIndex } = this.#a.options.table;
    const first = this.#toldIds, count = this.#idsUnderWay;
    const ids = Uint32Array.from({ length: count }, (_, i) => receiverIndex[this.#ownRows[first + i]]);
    return writeConnectionIds(view, at, this.#sequence, first, 0, ids, count);
  }

  #writeTicket(view: DataView, at: number): number {
    const { bytes, secret } = this.#ticket!;
    const to = writeTicket(view, at, this.#sequence, TICKET_LIFE_US / 1e6, secret, bytes.length);
    for (let i = 0; i < bytes.length; i++) view.setUint8(to + i, bytes[i]);
    return to + bytes.length - at;
  }

  #writeHint(view: DataView, at: number): number {
    const [{ protocol, clientPort, remotePort, client, remote, trafficClass }] = this.#hints;
    const { hint } = this.sessions;
    hint.sequence = this.#sequence;
    hint.trafficClass = trafficClass ?? CLASS_DEFAULT;
    hint.protocol = protocol;
    hint.lifetimeS = trafficClass === undefined ? 0 : HINT_LIFE_S;
    hint.clientPort = clientPort;
    hint.remotePort = remotePort;
    hint.client.set(client);
    hint.remote.set(remote);
    return hint.write(view, at);
  }
}
