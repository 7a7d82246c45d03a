/**
 * One OxTunnel session and its first path: what its subjects share, and the order in which they write control frames (PROTOCOL
 * §14). The subjects are in subjects/, a file each; what every data datagram touches is in columns (sessions.ts); further
 * paths are in further_path.ts, and all of them in path_set.ts. Invariant: a
 * subject has at most one frame of each kind waiting, and what waits leaves by `pollTransmit`, in the order of the one list, on
 * the first path, or on another while that one is silent. Has no rules about frames of its own.
 * Keeps PROTOCOL R55.
 */
import { HeaderTally } from "../../codec/headers/kept.ts";
import { PathSize } from "../../control/path_size.ts";
import type { PathRate } from "../../rate/path_rate.ts";
import type { SessionRepair } from "../../repair/session_repair.ts";
import { type Burst, TO_SEAL_DATAGRAM } from "../../vector/burst.ts";
import {
  CONTROL_PATH_CHALLENGE,
  CONTROL_PATH_RESPONSE,
  CONTROL_PONG,
  controlKind,
  isReliable,
  readPathHigh,
  readPathLow,
  readSequence,
} from "../../wire/control.ts";
import { AEAD_AES_256_GMAC, FEATURE_MULTIPATH } from "../../wire/parameters.ts";
import type { Report } from "../../wire/report.ts";
import type { CopyWindow } from "./copy_window.ts";
import type { OxHost } from "./host.ts";
import type { KeyExchange } from "./keys.ts";
import type { FurtherPath } from "./further_path.ts";
import { PathSet } from "./path_set.ts";
import { OxPaths } from "./paths.ts";
import type { OxSessions } from "./sessions.ts";
import type { AnyPath, SessionOfPaths } from "./session_of_paths.ts";
import { Closing } from "./subjects/closing.ts";
import { ConnectionIds } from "./subjects/connection_ids.ts";
import { HintExchange } from "./subjects/hints.ts";
import { KeyRenewal } from "./subjects/keys.ts";
import { HeaderContexts, type Headers } from "./subjects/headers.ts";
import { type Rohc, RohcChannel } from "./subjects/rohc.ts";
import { RateFinder } from "./subjects/rate.ts";
import { Reliable } from "./subjects/reliable.ts";
import { LossRepair } from "./subjects/repair.ts";
import { Reports } from "./subjects/reports.ts";
import { RepairRequests } from "./subjects/requests.ts";
import { ASK_DEAD_US, pingIntervalUs, RoundTrip } from "./subjects/round_trip.ts";
import { SizeProbes, SizeReplies } from "./subjects/size_probes.ts";
import type { Subject } from "./subjects/subject.ts";
import { TicketExchange } from "./subjects/tickets.ts";

const NO_ROWS: readonly number[] = [];
/** The columns of sessions and their paths. */
export type Sessions = OxSessions<OxSession, FurtherPath>;

/** Plaintext of a control datagram: the smallest datagram that every path takes, less header and tag. */
const CONTROL_BYTES_MAX = 1200 - 25;

export interface OxSessionOptions {
  /** Row of the session table, and id of the other end in the peer table. */
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

function hasWord(subjects: readonly Subject[], nowUs: number): boolean {
  for (const subject of subjects) if (subject.hasWord(nowUs)) return true;
  return false;
}

export class OxSession implements SessionOfPaths {
  // What data datagrams and packets read, each of them: plain fields of this object.
  readonly row: number;
  readonly peer: number;
  readonly isInitiator: boolean;
  readonly aead: number;
  readonly features: number;
  readonly reportIntervalUs: number;
  readonly sessions: Sessions;
  readonly host: OxHost;
  readonly pathNumber = 0;
  /** The addresses of the first path; and all paths, undefined where there can be no other. */
  readonly paths: OxPaths;
  readonly pathSet: PathSet | undefined;
  /** What the first path takes from this end. */
  readonly size: PathSize;
  readonly repair: SessionRepair | undefined;
  /** Short packets of both directions; undefined where the ends have not agreed to them. */
  readonly headers: Headers | undefined;
  /** ROHC in their place; undefined likewise. */
  readonly rohc: Rohc | undefined;
  readonly headerTally = new HeaderTally();
  /** How fast the path takes what this end sends; undefined until a transfer asks for it. */
  pathRate: PathRate | undefined;
  /** Which of the first path's packets have come, by themselves or as copies; undefined before the first copy. */
  copies: CopyWindow | undefined;
  /** Nothing has opened yet in a session that this end began. */
  isNew: boolean;
  isReportDue = false;
  isEnding = false;

  // Subjects that others call by name.
  readonly roundTrip: RoundTrip;
  readonly reports: Reports;
  readonly ids: ConnectionIds;
  readonly hints: HintExchange;
  readonly rate: RateFinder;
  readonly #contexts: HeaderContexts;
  readonly #closing: Closing;
  readonly #reliable: Reliable;
  readonly #keys: KeyRenewal;
  readonly #sizeProbes: SizeProbes;
  /** All subjects. What is first in the list is first in a datagram, and finds room first. */
  readonly #subjects: readonly Subject[];
  /** Of these, those that are about the first path, and the others. */
  readonly #ofPath: readonly Subject[];
  readonly #ofSession: readonly Subject[];

  constructor(host: OxHost, sessions: Sessions, options: OxSessionOptions) {
    this.host = host;
    this.sessions = sessions;
    this.row = options.row;
    this.peer = options.peer;
    this.isInitiator = options.isInitiator;
    this.isNew = options.isInitiator;
    this.aead = options.aead;
    this.features = options.features;
    this.reportIntervalUs = options.reportIntervalUs;
    this.paths = new OxPaths(host, this);
    this.size = new PathSize(options.datagramMaxBytes);
    const { spareRows, remoteIds, keys } = options;
    const reliable = this.#reliable = new Reliable(this), lossRepair = new LossRepair(this, sessions.repairs);
    this.repair = lossRepair.repair;
    const headers = this.#contexts = new HeaderContexts(this, sessions.headerBudget);
    this.headers = headers.headers;
    // Where a packet can be read on the way, other networks are not trusted.
    const mayBeSeveral = (options.features & FEATURE_MULTIPATH) !== 0 && options.aead !== AEAD_AES_256_GMAC;
    this.pathSet = mayBeSeveral ? new PathSet(this, reliable, options.datagramMaxBytes) : undefined;
    const channel = new RohcChannel(this, sessions.headerBudget);
    this.rohc = channel.rohc;
    this.#subjects = [
      this.#closing = new Closing(this),
      reliable,
      this.roundTrip = new RoundTrip(this),
      // In front of reports: what waits for one finds it still due.
      headers,
      new SizeReplies(this),
      new RepairRequests(this, lossRepair.repair),
      this.reports = new Reports(this),
      this.ids = new ConnectionIds(this, reliable, spareRows, remoteIds),
      ...this.pathSet?.subjects ?? [],
      this.hints = new HintExchange(this, reliable),
      new TicketExchange(this, reliable),
      this.#keys = new KeyRenewal(this, keys),
      lossRepair,
      channel,
      this.#sizeProbes = new SizeProbes(this, this.size),
      this.rate = new RateFinder(this),
    ];
    const isOfPath = (subject: Subject) =>
      subject === this.roundTrip || subject === this.reports || subject instanceof SizeReplies ||
      subject instanceof RepairRequests || subject === lossRepair ||
      subject === this.#sizeProbes;
    this.#ofPath = this.#subjects.filter(isOfPath);
    this.#ofSession = this.#subjects.filter((subject) => !isOfPath(subject));
    reliable.setOrder(this.#subjects);
  }

  /** The next deadline that the columns do not know of, or Infinity. */
  get dueUs(): number {
    let dueUs = this.paths.dueUs;
    for (const subject of this.#subjects) dueUs = Math.min(dueUs, subject.dueUs);
    return this.pathSet === undefined ? dueUs : Math.min(dueUs, this.pathSet.dueUs);
  }

  get epoch(): number {
    return this.#keys.epoch;
  }

  get path(): number {
    return this.host.shared.table.path[this.row];
  }

  get rttUs(): number {
    return this.host.shared.paths.rttUs[this.path];
  }
  set rttUs(rttUs: number) {
    this.host.shared.paths.rttUs[this.path] = rttUs;
  }

  get roundTripUs(): number {
    return this.rttUs >= 0 ? this.rttUs : this.host.shared.peers.get(this.peer)?.handshakeRttUs ?? -1;
  }

  /** How long nothing may come after data went out before the next ping does, microseconds. */
  get pingIntervalUs(): number {
    const areSeveral = this.host.shared.table.isMultipath[this.row] === 1;
    return areSeveral && this.roundTrip.isSilent ? ASK_DEAD_US : pingIntervalUs(this.roundTripUs, areSeveral);
  }

  /** Whether all paths are dead: data went out, and nothing answered the data nor the pings that followed. */
  get isSilent(): boolean {
    return this.roundTrip.isSilent && this.pathSet?.isAnyAlive !== true;
  }

  /** A client whose paths are all dead begins a handshake; while one lives it goes on asking on the others. */
  onDead(): boolean {
    if (this.pathSet?.isAnyAlive === true) return this.isInitiator;
    if (this.isInitiator) this.host.initiate(this.peer);
    return false;
  }

  /** The same for a further path. */
  onFurtherDead(): boolean {
    if (!this.roundTrip.isSilent || this.pathSet?.isAnyAlive === true) return this.isInitiator;
    if (this.isInitiator) this.host.initiate(this.peer);
    return false;
  }

  get furtherPaths(): readonly number[] {
    return this.pathSet?.rows ?? NO_ROWS;
  }

  onIdUsed(row: number): void {
    this.ids.onUsed(row);
  }

  onNoId(): void {
    this.host.initiate(this.peer);
  }

  onMoved(): void {
    this.host.noteRoaming(this.peer);
  }

  /** Whether a close has still to be sent. */
  get isClosing(): boolean {
    return this.#closing.isClosing;
  }

  speak(): void {
    this.host.wantControl(this.peer);
  }

  hasten(dueUs: number): void {
    this.host.timers.hasten(this.peer, dueUs);
  }

  ping(): void {
    this.roundTrip.ping();
  }

  answered(sentUs: number): void {
    for (const subject of this.#subjects) subject.onAnswer?.(sentUs);
  }

  reported(report: Report, nowUs: number): void {
    for (const subject of this.#subjects) {
      if (subject !== this.rate || this.bulkPath === this.row) subject.onReport?.(report, nowUs);
    }
    this.pathSet?.look(nowUs);
  }

  /** The path that bulk takes. */
  get bulkPath(): number {
    return this.pathSet?.bulk ?? this.row;
  }

  /** The responder's session is confirmed: this end sends to the address to which the response was sent. */
  takeEndpoint(nowUs: number): void {
    this.paths.takeHandshake();
    for (const subject of this.#subjects) subject.onOpened?.(nowUs);
    this.onNewPath();
  }

  /** The initiator's session is open: the first answer came. The first exchange brings in what both ends accepted. */
  opened(nowUs: number): void {
    this.isNew = false;
    this.onNewPath();
    this.renew(nowUs);
    for (const subject of this.#subjects) subject.onOpened?.(nowUs);
    this.pathSet?.openAll(nowUs);
  }

  /** Call when this end sends over another path from now on. */
  onNewPath(): void {
    for (const subject of this.#subjects) subject.onNewPath?.();
  }

  /** Call when `size` has changed: updates the columns, and sends a probe that is due. */
  sizeChanged(): void {
    this.#sizeProbes.sizeChanged();
  }

  /** Asks for the next epoch, or, near the end of the session's life, begins a handshake. */
  renew(nowUs: number): void {
    this.#keys.renew(nowUs);
  }

  /** Something has opened under the epoch that was awaited. */
  confirmEpoch(nowUs: number): void {
    this.#keys.confirm(nowUs);
    for (const subject of this.#subjects) subject.onEpoch?.(nowUs);
  }

  /** Nothing came since data went out, for the `times`-th time. */
  onSilence(times: number): void {
    this.roundTrip.onSilence(times);
  }

  /**
   * Ends the session at both ends: the close is sent three times, and then the keys are overwritten.
   * @param reason CLOSE_*. @param retryAfterS seconds, 0 to 65535; 0 is never.
   */
  close(reason: number, retryAfterS: number, nowUs: number): void {
    if (!this.#closing.close(reason, retryAfterS, nowUs)) return;
    for (const subject of this.#subjects) subject.onClose?.();
  }

  /** An id of the other end that no path has seen yet, or NONE. */
  takeRemoteId(): number {
    return this.ids.takeRemoteId();
  }

  /**
   * Obeys the control frame whose body of `length` bytes at `at` has the length of its kind (`controlFits`). `row` is its
   * datagram's. Returns whether the datagram is to be reported to the other end.
   */
  onControl(burst: Burst, row: number, at: number, length: number, nowUs: number): boolean {
    const { view } = burst;
    const kind = controlKind(view, at);
    if (burst.path[row] !== this.row) {
      const way = this.pathSet?.on(burst.path[row]);
      // A frame in front of this one may have ended the path; what is repeated comes again on another.
      if (way === undefined || way.onControl(burst, row, at, length, nowUs)) return false;
    }
    switch (kind) {
      case CONTROL_PATH_CHALLENGE:
        this.paths.onChallenge(burst, row, readPathLow(view, at), readPathHigh(view, at), nowUs);
        return false;
      case CONTROL_PATH_RESPONSE:
        this.paths.onResponse(burst, row, readPathLow(view, at), readPathHigh(view, at), nowUs);
        return false;
      default:
        if (isReliable(kind) && !this.#reliable.accepts(readSequence(view, at))) return true;
        for (const subject of this.#subjects) {
          if (subject.takes?.(kind)) subject.onControl?.(burst, row, at, length, nowUs);
        }
        if (kind === CONTROL_PONG) this.pathSet?.look(nowUs);
        return isReliable(kind);
    }
  }

  /** Runs the timers that are due at `nowUs`. */
  handleTimeout(nowUs: number): void {
    this.paths.handleTimeout(nowUs);
    for (const subject of this.#subjects) if (subject.dueUs <= nowUs) subject.handleTimeout(nowUs);
    this.pathSet?.handleTimeout(nowUs);
  }

  /** Adds datagrams with all that waits to be sent to the burst; false when the burst was full before. */
  pollTransmit(burst: Burst, nowUs: number): boolean {
    const { table, paths } = this.host.shared;
    if (table.sendCounter[this.row] >= table.sendLimit[this.row] || nowUs >= table.endsUs[this.row]) {
      return true;
    }
    if (this.sessions.refuses(this.row, paths.address, 4 * this.path)) return true;
    if (!this.paths.pollTransmit(burst)) return false;
    const main = this.pathSet?.main ?? this.row;
    if (main === this.row) {
      return this.say(burst, this, this.#subjects, nowUs) &&
        this.pathSet?.pollTransmit(burst, nowUs) !== false;
    }
    return this.say(burst, this.pathSet!.on(main)!, this.#ofSession, nowUs) &&
      this.say(burst, this, this.#ofPath, nowUs) &&
      this.pathSet!.pollTransmit(burst, nowUs);
  }

  /** Adds datagrams with what the subjects have to send to the burst, on the path `way`; false when the burst was full before. */
  say(burst: Burst, way: AnyPath, subjects: readonly Subject[], nowUs: number): boolean {
    const { table, paths } = this.host.shared;
    while (hasWord(subjects, nowUs)) {
      const row = burst.grow(0, TO_SEAL_DATAGRAM);
      if (row < 0) return false;
      const isReported = this.#write(burst, row, way, subjects, nowUs);
      if (burst.length[row] === 0) {
        burst.shrink(row);
        continue;
      }
      burst.session[row] = this.row;
      burst.path[row] = way.path;
      burst.peer[row] = this.peer;
      paths.direct(burst, row, way.path);
      this.sessions.number(burst, row, way.path, table.remoteIndex[way.path]);
      way.repair?.controlSent(burst, row, isReported, nowUs);
    }
    return true;
  }

  /** Writes a report, and what waits for one, in front of the packet in `row` where the datagram, of `mtu` bytes of plaintext, has room. */
  prependReport(burst: Burst, row: number, mtu: number, nowUs: number): void {
    this.reports.prepend(burst, row, mtu, nowUs);
    this.#contexts.prepend(burst, row, mtu);
  }

  /** Overwrites secrets and gives the rows of spare ids back. */
  wipe(): void {
    for (const subject of this.#subjects) subject.wipe?.();
    this.pathSet?.wipe();
  }

  /**
   * Writes what waits into the empty `row`, as much as one datagram of the path takes. Returns whether the other end reports the
   * datagram.
   */
  #write(burst: Burst, row: number, way: AnyPath, subjects: readonly Subject[], nowUs: number): boolean {
    const start = burst.offset[row];
    let at = start;
    for (const subject of subjects) {
      if (!subject.hasWord(nowUs)) continue;
      if (subject.isAlone) {
        if (at > start) break;
        burst.length[row] = subject.write(burst, at, this.sessions.innerMtu(way.path), nowUs);
        return subject.isReported === true;
      }
      at += subject.write(burst, at, CONTROL_BYTES_MAX - (at - start), nowUs);
    }
    burst.length[row] = at - start;
    return false;
  }
}
