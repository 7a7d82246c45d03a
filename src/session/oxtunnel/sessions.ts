// Hot path.
/**
 * OxTunnel's sessions and their paths as columns beside the session table: what a data datagram reads and changes (PROTOCOL §12
 * to §17). A path's row is that of its first id, and so the first path's the session's own. Long because it has every column that
 * data touches, and what each datagram does to them. Invariant: only an authentic, fresh datagram changes anything, and a counter is used once. Control frames are
 * session/oxtunnel/session.ts's, one object a session.
 * Keeps PROTOCOL R25, R39, R43, R44, R61, R74, R77 and R109.
 */
import type { ContextBudget } from "../../codec/headers/expander.ts";
import type { Rates } from "../../rate/pool.ts";
import type { DatagramAead } from "../../codec/kernels.ts";
import { BASE_BYTES, type PathSize } from "../../control/path_size.ts";
import { NONE } from "../../vector/arena.ts";
import { Columns } from "../../vector/columns.ts";
import { type Burst, TO_SEAL_DATAGRAM } from "../../vector/burst.ts";
import {
  COUNTER_LIMIT,
  counterBytes,
  DATAGRAM_OVERHEAD_BYTES,
  DISTANCE_LIMIT,
  PATH_SHIFT,
  readConnectionId,
  RESERVED_FLAGS_MARKED,
  RESERVED_FLAGS_PLAIN,
  SHORT_HEADER_MIN_BYTES,
  writeShortHeader,
} from "../../wire/oxtunnel.ts";
import { Report } from "../../wire/report.ts";
import { AEAD_AES_256_GMAC, AEAD_CHACHA20_POLY1305, FEATURE_MULTIPATH } from "../../wire/parameters.ts";
import { DROP } from "../../metrics.ts";
import type { SessionRepair } from "../../repair/session_repair.ts";
import type { Outbox } from "../outbox.ts";
import type { Shared } from "../shared.ts";
import { ControlBudget } from "./control_budget.ts";
import { Hints } from "./hints.ts";
import type { Repairs } from "../../repair/pool.ts";
import { OXTUNNEL } from "../table.ts";
import type { TrustedLinks } from "./trusted_links.ts";

/** In the column `phase`, below the path's number. */
const KEY_PHASE = 1;
/** No epoch waits to be seen. */
const NO_PHASE = 2;
/** Datagrams after which a report is due at once (PROTOCOL §14). */
const REPORT_DATAGRAMS = 4096;
/** A report of this many datagrams, of a gap or of a mark is due after one interval, others after several. */
const REPORT_SOON_DATAGRAMS = 8;
const REPORT_PATIENCE = 3;
const CONGESTION_EXPERIENCED = 3;
/** More rows than can be on their way between the look at a limit and the counting: a few bursts. */
const LIMIT_MARGIN = 1024;
// Per epoch: datagrams that are sealed at most, and failed openings after which its keys are overwritten (PROTOCOL §15).
const SEALED_MAX_AES = 2 ** 28;
/** Of each path where there may be several; and after how many the next epoch is asked for there. */
const SEALED_MAX_AES_EACH = 2 ** 25, REKEY_EACH = 2 ** 24;
/** Some 10 ms of work at worst, as ML-KEM is in TypeScript. */
const EXCHANGES_PER_BURST = 8;
const FAILED_MAX_AES = 2 ** 57, FAILED_MAX_CHACHA = 2 ** 36;
const ECN_MARKS = 4;

/** What the columns' verbs ask of the rest of a path: of the session's first, the session itself. */
export interface PathVerbs {
  readonly paths: {
    onNewAddress(burst: Burst, row: number, nowUs: number): void;
    moved(): void;
    probe(address: Uint32Array, port: number, nowUs: number, local?: Uint32Array): boolean;
  };
  readonly size: PathSize;
  readonly repair: SessionRepair | undefined;
  readonly reportIntervalUs: number;
  readonly pingIntervalUs: number;
  isReportDue: boolean;
  speak(): void;
  /** The other end has begun to use the id whose row this is. */
  onIdUsed(row: number): void;
  onSilence(times: number): void;
  sizeChanged(): void;
  prependReport(burst: Burst, row: number, mtu: number, nowUs: number): void;
}

/** What the columns' verbs ask of the rest of a session, one object each. */
export interface SessionVerbs extends PathVerbs {
  readonly row: number;
  readonly aead: number;
  readonly features: number;
  readonly paths: PathVerbs["paths"] & {
    mayAnswerEarly(bytes: number): boolean;
    answerEarly(burst: Burst, row: number): void;
  };
  readonly dueUs: number;
  readonly isNew: boolean;
  readonly isClosing: boolean;
  readonly isSilent: boolean;
  /** Rows of the session's further paths. */
  readonly furtherPaths: readonly number[];
  isEnding: boolean;
  ping(): void;
  opened(nowUs: number): void;
  takeEndpoint(nowUs: number): void;
  confirmEpoch(nowUs: number): void;
  renew(nowUs: number): void;
  close(reason: number, retryAfterS: number, nowUs: number): void;
  pollTransmit(burst: Burst, nowUs: number): boolean;
  handleTimeout(nowUs: number): void;
  wipe(): void;
}

export class OxSessions<Session extends SessionVerbs = SessionVerbs, Way extends PathVerbs = PathVerbs> {
  readonly datagramAead: DatagramAead;
  /** Phase of the epoch that this end sends under. */
  readonly sendPhase: Uint8Array;
  /** Phase of the epoch that this end has keys of and under which nothing has opened yet, or NO_PHASE. */
  readonly awaitedPhase: Uint8Array;
  /** When the datagram with the highest counter arrived. */
  readonly arrivedUs: Float64Array;
  /** When the next report is due, or Infinity; and when the last one was made. */
  readonly reportAtUs: Float64Array;
  readonly reportedUs: Float64Array;
  /** 1 when there is something to report that the other end should know soon. */
  readonly isPressing: Uint8Array;
  /** Datagrams since the last report. */
  readonly unreported: Uint32Array;
  /** When the next ping is due, or Infinity; and pings that nothing followed. */
  readonly pingAtUs: Float64Array;
  readonly unanswered: Uint8Array;
  /** From when on, and from which counter on, sending asks for the next epoch. */
  readonly rekeyAtUs: Float64Array;
  readonly rekeyCounter: Float64Array;
  /** Openings that failed under the present keys. */
  readonly failures: Float64Array;
  /** The id that the other end's newest datagram named. */
  readonly usedId: Uint32Array;
  /** RESERVED_FLAGS_* of each session. */
  readonly reservedFlags: Uint8Array;
  /** The rest of each session, by its row; and of each path, by its own. */
  readonly of: (Session | undefined)[] = [];
  readonly onPath: (Session | Way | undefined)[] = [];
  /** 1 for sessions whose plaintexts can be read on the way. */
  readonly isPlain: Uint8Array;
  /** What datagrams read of their session's row here. */
  readonly columns: Columns;
  readonly #trusted: TrustedLinks;
  readonly hints: Hints;
  /** The report that is being read or written: one at a time, whichever session's it is. */
  readonly report = new Report();
  /** What is done for each peer's control frames. */
  readonly budget: ControlBudget;
  /** Undefined where losses are not repaired. */
  readonly repairs: Repairs | undefined;
  /** Undefined where no rate is to be found. */
  readonly rates: Rates | undefined;
  /** Contexts of short packets that all sessions may have; undefined where there are none. */
  readonly headerBudget: ContextBudget | undefined;
  readonly #s: Shared;
  // Columns of the tables of sessions and paths that each packet reads.
  readonly #datagramBytes: Uint16Array;
  readonly #acknowledged: Float64Array;
  readonly #searchAtUs: Float64Array;
  readonly #outbox: Outbox;
  /** The first counter of the present epoch. */
  readonly #epochCounter: Float64Array;
  /** The highest counter before the newest datagram came. */
  readonly #lastCounter: Float64Array;

  constructor(
    shared: Shared,
    outbox: Outbox,
    datagramAead: DatagramAead,
    trusted: TrustedLinks,
    repairs: Repairs | undefined,
    rates: Rates | undefined,
    headerBudget: ContextBudget | undefined,
  ) {
    this.#s = shared;
    this.#datagramBytes = shared.paths.datagramBytes;
    this.#acknowledged = shared.paths.acknowledged;
    this.#searchAtUs = shared.paths.searchAtUs;
    this.#outbox = outbox;
    this.repairs = repairs;
    this.rates = rates;
    this.headerBudget = headerBudget;
    this.#trusted = trusted;
    this.datagramAead = datagramAead;
    const rows = shared.table.capacity;
    this.hints = new Hints(rows);
    this.budget = new ControlBudget(shared.peers.capacity);
    this.sendPhase = new Uint8Array(rows);
    this.awaitedPhase = new Uint8Array(rows);
    this.arrivedUs = new Float64Array(rows);
    this.reportAtUs = new Float64Array(rows);
    this.reportedUs = new Float64Array(rows);
    this.isPressing = new Uint8Array(rows);
    this.unreported = new Uint32Array(rows);
    this.pingAtUs = new Float64Array(rows);
    this.unanswered = new Uint8Array(rows);
    this.rekeyAtUs = new Float64Array(rows);
    this.rekeyCounter = new Float64Array(rows);
    this.failures = new Float64Array(rows);
    this.usedId = new Uint32Array(rows);
    this.isPlain = new Uint8Array(rows);
    this.reservedFlags = new Uint8Array(rows);
    this.#epochCounter = new Float64Array(rows);
    this.#lastCounter = new Float64Array(rows);
    this.columns = new Columns().add(this.isPlain).add(this.reservedFlags).add(this.awaitedPhase).add(
      this.sendPhase,
    )
      .add(this.unanswered).add(this.unreported).add(this.isPressing).add(this.usedId).add(this.hints.version)
      .add(this.arrivedUs).add(this.#lastCounter).add(this.pingAtUs).add(this.reportAtUs).add(this.reportedUs)
      .add(this.rekeyAtUs).add(this.rekeyCounter);
  }

  /** Key exchanges that may still be computed in this burst; the other end repeats what had no room. */
  exchangesLeft = EXCHANGES_PER_BURST;

  beginBurst(): void {
    this.exchangesLeft = EXCHANGES_PER_BURST;
  }

  /** Sets up the columns of a session whose row has just begun. */
  begin(session: number, rest: Session, nowUs: number): void {
    this.of[session] = rest;
    this.#s.paths.begin(session, this.#s.table.peer[session]);
    this.isPlain[session] = rest.aead === AEAD_AES_256_GMAC ? 1 : 0;
    this.reservedFlags[session] = rest.repair?.isAsking ? RESERVED_FLAGS_MARKED : RESERVED_FLAGS_PLAIN;
    this.hints.begin(session);
    this.awaitedPhase[session] = NO_PHASE;
    this.#beginColumns(session, rest, nowUs);
    this.enterEpoch(session, 0, nowUs);
  }

  /** Sets up the columns of a further path of a session, whose row has just begun: its address is not known yet. */
  beginPath(path: number, way: Way, nowUs: number): void {
    const { paths } = this.#s;
    paths.beginAnew(path);
    this.#beginColumns(path, way, nowUs);
    this.#enterEpochOn(path);
  }

  #beginColumns(path: number, way: Session | Way, nowUs: number): void {
    this.onPath[path] = way;
    this.arrivedUs[path] = nowUs;
    this.reportAtUs[path] = Infinity;
    this.reportedUs[path] = nowUs;
    this.isPressing[path] = 0;
    this.#lastCounter[path] = -1;
    this.unreported[path] = 0;
    this.pingAtUs[path] = Infinity;
    this.unanswered[path] = 0;
    this.usedId[path] = this.#s.table.receiverIndex[path];
  }

  /** The path of the session `rest` whose row this is: of the first, which has the session's row, nothing more is read. */
  wayOf(rest: Session, path: number): Session | Way {
    return path === rest.row ? rest : this.onPath[path]!;
  }

  /** Whether the session, being unencrypted, may not use the outer address at `at`, which is in no trusted network. */
  refuses(session: number, words: Uint32Array, at: number): boolean {
    return this.isPlain[session] === 1 && !this.#trusted.has(words, at);
  }

  /** From now on this end sends under the keys of `phase`, whose limits begin to run. */
  enterEpoch(session: number, phase: number, nowUs: number): void {
    const { table, limits } = this.#s;
    this.sendPhase[session] = phase;
    this.failures[session] = 0;
    this.rekeyAtUs[session] = nowUs + limits.rekeyAfterUs;
    if (!this.of[session]!.isEnding) {
      table.endsUs[session] = Math.min(
        nowUs + limits.rejectAfterUs,
        table.bornUs[session] + limits.sessionUs,
      );
    }
    this.#enterEpochOn(session);
    const { furtherPaths } = this.of[session]!;
    for (let i = 0; i < furtherPaths.length; i++) this.#enterEpochOn(furtherPaths[i]);
  }

  /** The limits of the session's epoch begin to run on one of its paths. */
  #enterEpochOn(path: number): void {
    const { table, limits: { rekeyAfterDatagrams } } = this.#s;
    const mayBeSeveral = (this.of[table.session[path]]!.features & FEATURE_MULTIPATH) !== 0;
    this.#epochCounter[path] = table.sendCounter[path];
    this.rekeyCounter[path] = table.sendCounter[path] +
      (mayBeSeveral ? Math.min(REKEY_EACH, rekeyAfterDatagrams) : rekeyAfterDatagrams);
    this.#limitSending(path);
  }

  /** The largest inner packet that the path's datagrams take now, bytes. Only this function knows the overhead. */
  innerMtu(path: number): number {
    return this.#datagramBytes[path] - DATAGRAM_OVERHEAD_BYTES;
  }

  /** After a datagram whose plaintext has `plaintextBytes` was numbered: large datagrams show what the path takes. */
  noteSize(path: number, plaintextBytes: number, nowUs: number): void {
    if (plaintextBytes <= BASE_BYTES - DATAGRAM_OVERHEAD_BYTES) return;
    const way = this.onPath[path]!;
    way.size.onLarge(this.#s.table.sendCounter[path] - 1, nowUs);
    if (way.size.isDue) way.sizeChanged();
  }

  /** Notes that the other end has seen the counter `highest` of the path. */
  acknowledge(path: number, highest: number): void {
    const { table, paths } = this.#s;
    if (highest <= paths.acknowledged[path] || highest >= table.sendCounter[path]) return;
    paths.acknowledged[path] = highest;
    this.#limitSending(path);
  }

  /** The nearest of the limits that forbid a counter of the path (PROTOCOL R41, R42, R61). */
  #limitSending(path: number): void {
    const { table, paths } = this.#s, { aead, features } = this.of[table.session[path]]!;
    const sealed = aead === AEAD_CHACHA20_POLY1305
      ? COUNTER_LIMIT
      : (features & FEATURE_MULTIPATH) !== 0
      ? SEALED_MAX_AES_EACH
      : SEALED_MAX_AES;
    table.sendLimit[path] = Math.min(
      COUNTER_LIMIT,
      paths.acknowledged[path] + DISTANCE_LIMIT,
      this.#epochCounter[path] + sealed,
    ) - LIMIT_MARGIN;
  }

  /** After the datagram in `row` was authentic and fresh. */
  received(burst: Burst, row: number, nowUs: number): void {
    const { peers, table, paths } = this.#s;
    const session = burst.session[row], path = burst.path[row], id = burst.peer[row];
    if (session === peers.next[id]) {
      this.of[session]!.takeEndpoint(nowUs);
      this.#outbox.confirm(id, nowUs);
    }
    if ((burst.phase[row] & KEY_PHASE) === this.awaitedPhase[session]) {
      this.awaitedPhase[session] = NO_PHASE;
      this.of[session]!.confirmEpoch(nowUs);
    }
    const rest = this.of[session]!;
    if (rest.isNew) rest.opened(nowUs);
    this.wayOf(rest, path).repair?.datagramReceived(burst, row, nowUs);
    this.pingAtUs[path] = Infinity;
    this.unanswered[path] = 0;
    this.unreported[path]++;
    const mark = burst.ecn[row] & 3;
    paths.ecn[ECN_MARKS * path + mark]++;
    if (mark === CONGESTION_EXPERIENCED || this.unreported[path] >= REPORT_SOON_DATAGRAMS) {
      this.isPressing[path] = 1;
    }
    if (burst.counter[row] === table.replay.highest[path]) {
      this.arrivedUs[path] = nowUs;
      if (burst.counter[row] > this.#lastCounter[path] + 1) this.isPressing[path] = 1;
      this.#lastCounter[path] = burst.counter[row];
      const named = readConnectionId(burst.view, burst.offset[row] - burst.headerBytes[row]);
      if (named !== this.usedId[path]) {
        this.usedId[path] = named;
        this.onPath[path]!.onIdUsed(table.find(named));
      }
      if (session === peers.current[id]) this.#follow(burst, row, path, nowUs);
    }
    this.#outbox.traversed(id, nowUs);
  }

  /** Compares where the path's newest datagram came from with the address in use. */
  #follow(burst: Burst, row: number, path: number, nowUs: number): void {
    const { address, port, local } = this.#s.paths;
    const from = 4 * row, to = 4 * path;
    if (
      burst.port[row] === port[path] && burst.address[from + 3] === address[to + 3] &&
      burst.address[from + 2] === address[to + 2] && burst.address[from + 1] === address[to + 1] &&
      burst.address[from] === address[to]
    ) {
      // A client's path stays at its door: its ids are for one network (PROTOCOL R73).
      if (this.#s.table.initiator[burst.session[row]] === 1) return;
      for (let i = 0; i < 4; i++) local[to + i] = burst.local[from + i];
    } else {
      this.onPath[path]!.paths.onNewAddress(burst, row, nowUs);
    }
  }

  /** Notes that something arrived that is to be reported to the other end, sooner after a loss or a congestion mark. */
  elicited(path: number, id: number, nowUs: number): void {
    const { reportAtUs, isPressing } = this, way = this.onPath[path]!;
    if (way.isReportDue) return;
    const intervalUs = way.reportIntervalUs;
    const dueUs = isPressing[path] === 1
      ? Math.max(nowUs, this.reportedUs[path] + intervalUs)
      : nowUs + REPORT_PATIENCE * intervalUs;
    if (this.unreported[path] >= REPORT_DATAGRAMS) {
      this.#reportNow(path);
    } else if (dueUs < reportAtUs[path]) {
      reportAtUs[path] = dueUs;
      this.#s.timers.hasten(id, dueUs);
    }
  }

  /** After a report about the path was written: nothing waits to be reported. */
  reported(path: number, nowUs: number): void {
    this.reportAtUs[path] = Infinity;
    this.reportedUs[path] = nowUs;
    this.isPressing[path] = 0;
    this.unreported[path] = 0;
  }

  #reportNow(path: number): void {
    this.reportAtUs[path] = Infinity;
    this.onPath[path]!.isReportDue = true;
    this.onPath[path]!.speak();
  }

  /** After a datagram did not open. */
  failed(session: number): void {
    const { table } = this.#s;
    const failedMax = this.of[session]!.aead !== AEAD_CHACHA20_POLY1305 ? FAILED_MAX_AES : FAILED_MAX_CHACHA;
    if (++this.failures[session] < failedMax) return;
    this.of[session]!.isEnding = true;
    table.endsUs[session] = -Infinity;
    this.#s.timers.hasten(table.peer[session], -Infinity);
  }

  /**
   * Gives the plaintext of `row` the path's next counter and writes the data header in front of it, to the id `connectionId`.
   * The caller has asked `sendable`, or is sure of the path's limit.
   */
  number(burst: Burst, row: number, path: number, connectionId: number): void {
    const { table } = this.#s;
    const { view, offset, next, counter, headerBytes, phase } = burst;
    const keyPhase = this.sendPhase[burst.session[row]];
    counter[row] = table.sendCounter[path];
    const bytes = counterBytes(counter[row], this.#acknowledged[path]);
    if (bytes === 0) {
      next[row] = DROP.no_session;
      return;
    }
    table.sendCounter[path]++;
    phase[row] = path === burst.session[row] ? keyPhase : keyPhase | table.pathNumber[path] << PATH_SHIFT;
    headerBytes[row] = SHORT_HEADER_MIN_BYTES - 1 + bytes;
    const headerAt = offset[row] - headerBytes[row];
    writeShortHeader(view, headerAt, keyPhase, connectionId, counter[row], bytes);
    next[row] = TO_SEAL_DATAGRAM;
  }

  /** After a packet for the peer was numbered on a path of its current session. */
  sent(id: number, session: number, path: number, nowUs: number): void {
    if (this.pingAtUs[path] === Infinity) this.#awaitAnswer(id, path, nowUs);
    this.#outbox.traversed(id, nowUs);
    if (nowUs >= this.#searchAtUs[path]) {
      this.onPath[path]!.size.onUse(nowUs);
      this.onPath[path]!.sizeChanged();
    }
    if (nowUs >= this.rekeyAtUs[session] || this.#s.table.sendCounter[path] > this.rekeyCounter[path]) {
      this.of[session]!.renew(nowUs);
    }
  }

  #awaitAnswer(id: number, path: number, nowUs: number): void {
    this.pingAtUs[path] = nowUs + this.onPath[path]!.pingIntervalUs;
    this.#s.timers.hasten(id, this.pingAtUs[path]);
  }

  /** Has silence counted on a path that is asked for its own sake. */
  expectAnswer(path: number, nowUs: number): void {
    if (this.pingAtUs[path] === Infinity) this.#awaitAnswer(this.#s.table.peer[path], path, nowUs);
  }

  /** Writes a report about the path that is due soon in front of the packet in `row`, which takes it (PROTOCOL §14). */
  carryReport(burst: Burst, row: number, way: Session | Way, path: number, mtu: number, nowUs: number): void {
    const earlyUs = this.isPressing[path] === 1 ? way.reportIntervalUs / 2 : way.reportIntervalUs;
    if (!way.isReportDue && nowUs < this.reportAtUs[path] - earlyUs) return;
    way.prependReport(burst, row, mtu, nowUs);
  }

  /** Has a ping sent to the other end. */
  ping(session: number): void {
    this.of[session]!.ping();
  }

  /** Adds the control datagrams of the peer's sessions to the burst; false when the burst was full before all were added. */
  pollTransmit(burst: Burst, id: number, nowUs: number): boolean {
    const { current, previous } = this.#s.peers;
    // A session that was replaced sends nothing: the path may be another now, where the old ids must not be seen.
    return this.#say(current[id], burst, nowUs) &&
      (!this.#isClosing(previous[id]) || this.#say(previous[id], burst, nowUs));
  }

  #isClosing(session: number): boolean {
    return session !== NONE && this.of[session]?.isClosing === true;
  }

  #say(session: number, burst: Burst, nowUs: number): boolean {
    if (session === NONE || this.#s.table.protocol[session] !== OXTUNNEL) return true;
    return this.of[session]!.pollTransmit(burst, nowUs);
  }

  /** The session's next deadline, or Infinity. */
  dueUs(session: number): number {
    return Math.min(this.pathDueUs(session), this.of[session]!.dueUs);
  }

  /** When the columns of a path have something due, or Infinity. */
  pathDueUs(path: number): number {
    return Math.min(this.reportAtUs[path], this.pingAtUs[path]);
  }

  handleTimeout(session: number, nowUs: number): void {
    this.handlePathTimeout(session, nowUs);
    this.of[session]!.handleTimeout(nowUs);
  }

  handlePathTimeout(path: number, nowUs: number): void {
    const way = this.onPath[path]!;
    if (this.pingAtUs[path] <= nowUs) {
      this.pingAtUs[path] = nowUs + way.pingIntervalUs;
      if (this.unanswered[path] < 255) this.unanswered[path]++;
      way.onSilence(this.unanswered[path]);
    }
    if (this.reportAtUs[path] <= nowUs) this.#reportNow(path);
  }

  /** The session is replaced: it opens for a grace period more, and then its keys are overwritten (PROTOCOL §10). */
  superseded(session: number, nowUs: number): void {
    const { table, limits } = this.#s;
    table.endsUs[session] = Math.min(table.endsUs[session], nowUs + limits.graceUs);
    const rest = this.of[session];
    if (rest !== undefined) rest.isEnding = true;
  }

  /** The peer's present session, or undefined when the peer has none, or one of WireGuard. */
  currentOf(id: number): Session | undefined {
    const session = this.#s.peers.current[id];
    return session === NONE ? undefined : this.of[session];
  }

  /** A further path of a session has ended. */
  endPath(path: number): void {
    this.onPath[path] = undefined;
  }

  /** Wipes the session's secrets and memory outside of its row, and frees the rows of its spare ids. */
  end(session: number): void {
    this.of[session]!.wipe();
    this.hints.end(session);
    this.of[session] = this.onPath[session] = undefined;
  }
}
