// Hot path.
/**
 * OxTunnel's sessions as columns beside the session table: what a data datagram reads and changes (PROTOCOL §12 to
 * §17). Invariant: only an authentic, fresh datagram changes anything, and a counter is used once. Control frames are
 * session/oxtunnel/session.ts's, one object a session.
 * Keeps PROTOCOL R25, R39, R43, R44, R61, R74 and R77.
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
  readConnectionId,
  RESERVED_FLAGS_MARKED,
  RESERVED_FLAGS_PLAIN,
  SHORT_HEADER_MIN_BYTES,
  writeShortHeader,
} from "../../wire/oxtunnel.ts";
import { Report } from "../../wire/report.ts";
import { AEAD_AES_256_GMAC, AEAD_CHACHA20_POLY1305 } from "../../wire/parameters.ts";
import { DROP } from "../../metrics.ts";
import type { SessionRepair } from "../../repair/session_repair.ts";
import type { Outbox } from "../outbox.ts";
import type { Shared } from "../shared.ts";
import { ControlBudget } from "./control_budget.ts";
import { Hints } from "./hints.ts";
import type { Repairs } from "../../repair/pool.ts";
import { OXTUNNEL } from "../table.ts";
import type { TrustedLinks } from "./trusted_links.ts";

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
/** Some 10 ms of work at worst, as ML-KEM is in TypeScript. */
const EXCHANGES_PER_BURST = 8;
const FAILED_MAX_AES = 2 ** 57, FAILED_MAX_CHACHA = 2 ** 36;
const ECN_MARKS = 4;

/** What the columns' verbs ask of the rest of a session, one object each. */
export interface SessionVerbs {
  readonly aead: number;
  readonly paths: {
    onNewAddress(burst: Burst, row: number, nowUs: number): void;
    moved(): void;
    probe(address: Uint32Array, port: number, nowUs: number): boolean;
    mayAnswerEarly(bytes: number): boolean;
    answerEarly(burst: Burst, row: number): void;
  };
  readonly size: PathSize;
  readonly repair: Pick<SessionRepair, "datagramReceived" | "isAsking"> | undefined;
  readonly reportIntervalUs: number;
  readonly pingIntervalUs: number;
  readonly dueUs: number;
  readonly isNew: boolean;
  readonly isClosing: boolean;
  readonly isSilent: boolean;
  isReportDue: boolean;
  isEnding: boolean;
  speak(): void;
  ping(): void;
  opened(nowUs: number): void;
  takeEndpoint(nowUs: number): void;
  confirmEpoch(nowUs: number): void;
  renew(nowUs: number): void;
  readonly ids: { onUsed(row: number): void };
  onSilence(times: number): void;
  sizeChanged(): void;
  prependReport(burst: Burst, row: number, mtu: number, nowUs: number): void;
  close(reason: number, retryAfterS: number, nowUs: number): void;
  pollTransmit(burst: Burst, nowUs: number): boolean;
  handleTimeout(nowUs: number): void;
  wipe(): void;
}

export class OxSessions<Session extends SessionVerbs = SessionVerbs> {
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
  /** The rest of each session, by its row. */
  readonly of: (Session | undefined)[] = [];
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
  readonly #pathOf: Uint32Array;
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
    this.#pathOf = shared.table.path;
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
    this.#s.paths.begin(this.#s.table.path[session], this.#s.table.peer[session]);
    this.isPlain[session] = rest.aead === AEAD_AES_256_GMAC ? 1 : 0;
    this.reservedFlags[session] = rest.repair?.isAsking ? RESERVED_FLAGS_MARKED : RESERVED_FLAGS_PLAIN;
    this.hints.begin(session);
    this.awaitedPhase[session] = NO_PHASE;
    this.arrivedUs[session] = nowUs;
    this.reportAtUs[session] = Infinity;
    this.reportedUs[session] = nowUs;
    this.isPressing[session] = 0;
    this.#lastCounter[session] = -1;
    this.unreported[session] = 0;
    this.pingAtUs[session] = Infinity;
    this.unanswered[session] = 0;
    this.usedId[session] = this.#s.table.receiverIndex[session];
    this.enterEpoch(session, 0, nowUs);
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
    this.#epochCounter[session] = table.sendCounter[session];
    this.rekeyAtUs[session] = nowUs + limits.rekeyAfterUs;
    this.rekeyCounter[session] = table.sendCounter[session] + limits.rekeyAfterDatagrams;
    if (!this.of[session]!.isEnding) {
      table.endsUs[session] = Math.min(
        nowUs + limits.rejectAfterUs,
        table.bornUs[session] + limits.sessionUs,
      );
    }
    this.#limitSending(session);
  }

  /** The largest inner packet that the session's datagrams take now, bytes. Only this function knows the overhead. */
  innerMtu(session: number): number {
    return this.#datagramBytes[this.#pathOf[session]] - DATAGRAM_OVERHEAD_BYTES;
  }

  /** After a datagram whose plaintext has `plaintextBytes` was numbered: large datagrams show what the path takes. */
  noteSize(session: number, plaintextBytes: number, nowUs: number): void {
    if (plaintextBytes <= BASE_BYTES - DATAGRAM_OVERHEAD_BYTES) return;
    const rest = this.of[session]!;
    rest.size.onLarge(this.#s.table.sendCounter[session] - 1, nowUs);
    if (rest.size.isDue) rest.sizeChanged();
  }

  /** Notes that the other end has seen the counter `highest`. */
  acknowledge(session: number, highest: number): void {
    const { table, paths } = this.#s, path = table.path[session];
    if (highest <= paths.acknowledged[path] || highest >= table.sendCounter[session]) return;
    paths.acknowledged[path] = highest;
    this.#limitSending(session);
  }

  /** The nearest of the limits that forbid a counter (PROTOCOL R41, R42, R61). */
  #limitSending(session: number): void {
    const sealed = this.of[session]!.aead !== AEAD_CHACHA20_POLY1305 ? SEALED_MAX_AES : COUNTER_LIMIT;
    const { table, paths } = this.#s;
    table.sendLimit[session] = Math.min(
      COUNTER_LIMIT,
      paths.acknowledged[table.path[session]] + DISTANCE_LIMIT,
      this.#epochCounter[session] + sealed,
    ) - LIMIT_MARGIN;
  }

  /** After the datagram in `row` was authentic and fresh. */
  received(burst: Burst, row: number, nowUs: number): void {
    const { peers, table, paths } = this.#s;
    const session = burst.session[row], id = burst.peer[row];
    if (session === peers.next[id]) {
      this.of[session]!.takeEndpoint(nowUs);
      this.#outbox.confirm(id, nowUs);
    }
    if (burst.phase[row] === this.awaitedPhase[session]) {
      this.awaitedPhase[session] = NO_PHASE;
      this.of[session]!.confirmEpoch(nowUs);
    }
    if (this.of[session]!.isNew) this.of[session]!.opened(nowUs);
    this.of[session]!.repair?.datagramReceived(burst, row, nowUs);
    this.pingAtUs[session] = Infinity;
    this.unanswered[session] = 0;
    this.unreported[session]++;
    const mark = burst.ecn[row] & 3;
    paths.ecn[ECN_MARKS * table.path[session] + mark]++;
    if (mark === CONGESTION_EXPERIENCED || this.unreported[session] >= REPORT_SOON_DATAGRAMS) {
      this.isPressing[session] = 1;
    }
    if (burst.counter[row] === table.replay.highest[session]) {
      this.arrivedUs[session] = nowUs;
      if (burst.counter[row] > this.#lastCounter[session] + 1) this.isPressing[session] = 1;
      this.#lastCounter[session] = burst.counter[row];
      const named = readConnectionId(burst.view, burst.offset[row] - burst.headerBytes[row]);
      if (named !== this.usedId[session]) {
        this.usedId[session] = named;
        this.of[session]!.ids.onUsed(table.find(named));
      }
      if (session === peers.current[id]) this.#follow(burst, row, session, nowUs);
    }
    this.#outbox.traversed(id, nowUs);
  }

  /** Compares where the newest datagram came from with the path in use. */
  #follow(burst: Burst, row: number, session: number, nowUs: number): void {
    const { address, port, local } = this.#s.paths;
    const path = this.#s.table.path[session];
    const from = 4 * row, to = 4 * path;
    if (
      burst.port[row] === port[path] && burst.address[from + 3] === address[to + 3] &&
      burst.address[from + 2] === address[to + 2] && burst.address[from + 1] === address[to + 1] &&
      burst.address[from] === address[to]
    ) {
      for (let i = 0; i < 4; i++) local[to + i] = burst.local[from + i];
    } else {
      this.of[session]!.paths.onNewAddress(burst, row, nowUs);
    }
  }

  /** Notes that something arrived that is to be reported to the other end, sooner after a loss or a congestion mark. */
  elicited(session: number, id: number, nowUs: number): void {
    const { reportAtUs, isPressing, of } = this;
    if (of[session]!.isReportDue) return;
    const intervalUs = of[session]!.reportIntervalUs;
    const dueUs = isPressing[session] === 1
      ? Math.max(nowUs, this.reportedUs[session] + intervalUs)
      : nowUs + REPORT_PATIENCE * intervalUs;
    if (this.unreported[session] >= REPORT_DATAGRAMS) {
      this.#reportNow(session);
    } else if (dueUs < reportAtUs[session]) {
      reportAtUs[session] = dueUs;
      this.#s.timers.hasten(id, dueUs);
    }
  }

  /** After a report was written: nothing waits to be reported. */
  reported(session: number, nowUs: number): void {
    this.reportAtUs[session] = Infinity;
    this.reportedUs[session] = nowUs;
    this.isPressing[session] = 0;
    this.unreported[session] = 0;
  }

  #reportNow(session: number): void {
    this.reportAtUs[session] = Infinity;
    this.of[session]!.isReportDue = true;
    this.of[session]!.speak();
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
   * Gives the plaintext of `row` its counter and writes the data header in front of it, to the id `connectionId`.
   * The caller has asked `sendable`.
   */
  number(burst: Burst, row: number, connectionId: number): void {
    const { table } = this.#s;
    const { view, offset, next, counter, headerBytes, phase } = burst;
    const session = burst.session[row];
    counter[row] = table.sendCounter[session];
    const bytes = counterBytes(counter[row], this.#acknowledged[this.#pathOf[session]]);
    if (bytes === 0) {
      next[row] = DROP.no_session;
      return;
    }
    table.sendCounter[session]++;
    phase[row] = this.sendPhase[session];
    headerBytes[row] = SHORT_HEADER_MIN_BYTES - 1 + bytes;
    const headerAt = offset[row] - headerBytes[row];
    writeShortHeader(view, headerAt, phase[row], connectionId, counter[row], bytes);
    next[row] = TO_SEAL_DATAGRAM;
  }

  /** After a packet for the peer was numbered on its current session. */
  sent(id: number, session: number, nowUs: number): void {
    if (this.pingAtUs[session] === Infinity) {
      this.pingAtUs[session] = nowUs + this.of[session]!.pingIntervalUs;
      this.#s.timers.hasten(id, this.pingAtUs[session]);
    }
    this.#outbox.traversed(id, nowUs);
    if (nowUs >= this.#searchAtUs[this.#pathOf[session]]) {
      this.of[session]!.size.onUse(nowUs);
      this.of[session]!.sizeChanged();
    }
    if (
      nowUs >= this.rekeyAtUs[session] ||
      this.#s.table.sendCounter[session] > this.rekeyCounter[session]
    ) this.of[session]!.renew(nowUs);
  }

  /** Writes a report that is due soon in front of the packet in `row` (PROTOCOL §14). */
  carryReport(burst: Burst, row: number, mtu: number, nowUs: number): void {
    const session = burst.session[row];
    const rest = this.of[session]!;
    const earlyUs = this.isPressing[session] === 1 ? rest.reportIntervalUs / 2 : rest.reportIntervalUs;
    if (!rest.isReportDue && nowUs < this.reportAtUs[session] - earlyUs) return;
    rest.prependReport(burst, row, mtu, nowUs);
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
    return Math.min(this.reportAtUs[session], this.pingAtUs[session], this.of[session]!.dueUs);
  }

  handleTimeout(session: number, nowUs: number): void {
    if (this.pingAtUs[session] <= nowUs) {
      this.pingAtUs[session] = nowUs + this.of[session]!.pingIntervalUs;
      if (this.unanswered[session] < 255) this.unanswered[session]++;
      this.of[session]!.onSilence(this.unanswered[session]);
    }
    if (this.reportAtUs[session] <= nowUs) this.#reportNow(session);
    this.of[session]!.handleTimeout(nowUs);
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

  /** Wipes the session's secrets and memory outside of its row, and frees the rows of its spare ids. */
  end(session: number): void {
    this.of[session]!.wipe();
    this.hints.end(session);
    this.of[session] = undefined;
  }
}
