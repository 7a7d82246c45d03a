/**
 * All paths of one session that has, or may have, several (PROTOCOL §17): which there are, what each end says of them, and where
 * packets of which kind go. Invariant: only the initiator opens a path; a number is used once; packets go only on a path whose
 * address has answered, and on a silent one only where there is no other. What the choice is made of, control/paths/ says.
 * Keeps PROTOCOL R109, R111, R113 and R114.
 */
import { bulkPath } from "../../control/paths/bulk.ts";
import { copyOf, LeastLate, NO_PATH, pathOf } from "../../control/paths/choice.ts";
import { PathFigures } from "../../control/paths/figures.ts";
import { isRealTime } from "../../control/traffic_class.ts";
import { NONE } from "../../vector/arena.ts";
import type { Burst } from "../../vector/burst.ts";
import { PATH_AVAILABLE, PATH_CLOSED, PATH_PREFERRED, PATH_STANDBY, PATHS_MAX } from "../../wire/control.ts";
import { FurtherPath } from "./further_path.ts";
import type { AnyPath, PathOwners, SessionOfPaths } from "./session_of_paths.ts";
import { IdsOfPath, PathIds, type PathIdsOwner } from "./subjects/path_ids.ts";
import { PathStatuses, type PathStatusOwner } from "./subjects/path_status.ts";
import type { Reliable, ReliableSubject } from "./subjects/reliable.ts";

/** Paths of a session at a time, the first included. */
export const LIVE_MAX = 4;
/** Silence: so many pings without an answer, and no less than a round trip. */
const SILENT_PINGS = 3;
/** How often figures are looked at while packets go, and each path is asked while the session is used and while it is not. */
const LOOK_US = 10_000, ASK_USED_US = 1_000_000, ASK_IDLE_US = 15_000_000;
/** Copies for each hundred packets of games and calls at most. */
const COPIES_PERCENT = 100;

/** What this end knows of one path, and what is said of it. */
export interface PathState {
  status: number;
  isMetered: boolean;
  bytesSent: number;
  copiesSent: number;
  /** Times that packets left it because it was silent. */
  failovers: number;
}

function newState(): PathState {
  return { status: PATH_AVAILABLE, isMetered: false, bytesSent: 0, copiesSent: 0, failovers: 0 };
}

export class PathSet implements PathIdsOwner, PathStatusOwner, PathOwners<FurtherPath> {
  /** Rows of the further paths that are open. */
  readonly rows: number[] = [];
  readonly subjects: readonly ReliableSubject[];
  /** Rows of the paths for packets of games and calls; for their copies, or NONE; for bulk; for frames of the session. */
  real: number;
  second = NONE;
  bulk: number;
  readonly #session: SessionOfPaths;
  readonly #ids: PathIds;
  readonly #statuses: PathStatuses;
  readonly #sizeMax: number;
  /** By number; the first is the session's own. */
  readonly #ways: (FurtherPath | undefined)[] = new Array(PATHS_MAX).fill(undefined);
  readonly #states: PathState[] = Array.from({ length: PATHS_MAX }, newState);
  /** By number, of those that can be used. */
  readonly #figures: (PathFigures | undefined)[] = new Array(PATHS_MAX).fill(undefined);
  /** Datagrams that were judged by the last look, by number. */
  readonly #judged = new Float64Array(PATHS_MAX);
  readonly #scheduler = new LeastLate(COPIES_PERCENT, "free or in doubt");
  /** Numbers that were used, by bit. */
  #used = 1;
  /** Classes whose packets the other end wants on a second path too, by bit; -1 where it has said nothing. */
  #theirClasses = -1;
  #lookUs = -Infinity;
  #askUs = Infinity;
  #sentUs = -Infinity;

  constructor(session: SessionOfPaths, reliable: Reliable, sizeMax: number) {
    this.#session = session;
    this.#sizeMax = sizeMax;
    this.real = this.bulk = session.row;
    this.subjects = [
      this.#ids = new PathIds(session, reliable, this),
      this.#statuses = new PathStatuses(session, reliable, this),
    ];
  }

  /** The path for frames of the session: the first, unless it is silent. */
  get main(): number {
    const { row } = this.#session;
    return this.isSilent(row) && this.#isUsable(this.real) ? this.real : row;
  }

  /** The further path whose row this is. */
  on(row: number): FurtherPath | undefined {
    return this.#ways[this.#session.host.shared.table.pathNumber[row]];
  }

  #way(row: number): AnyPath {
    return this.on(row) ?? this.#session;
  }

  /** What is known of the path with the number, which may have ended. */
  stateOf(number: number): PathState {
    return this.#states[number];
  }

  /** The further paths that are open. */
  *ways(): Iterable<FurtherPath> {
    for (const row of this.rows) yield this.on(row)!;
  }

  get isClosing(): boolean {
    return this.#statuses.isClosing;
  }

  *open(): Iterable<[number: number, ids: IdsOfPath]> {
    for (const way of this.ways()) yield [way.pathNumber, way.ids];
  }

  /** Opens a path through each of this host's doors. */
  openAll(nowUs: number): void {
    if (!this.#session.isInitiator) return;
    for (const [door, isMetered] of this.#session.host.doors) this.openThrough(door, isMetered, nowUs);
  }

  /** Opens a path through the door, or goes on with the one that is there, from another network perhaps. */
  openThrough(door: number, isMetered: boolean, nowUs: number): void {
    if (!this.#session.isInitiator || this.#session.isNew) return;
    for (const way of this.ways()) {
      if (way.door !== door) continue;
      if (way.ids.remote.length > 0) {
        this.#say(way.pathNumber, isMetered);
        way.askAnew(nowUs);
        return;
      }
      this.close(way.pathNumber);
      break;
    }
    let number = 1;
    while (number < PATHS_MAX && (this.#used >> number & 1) !== 0) number++;
    if (number === PATHS_MAX) {
      // Only a new session has numbers, and opens paths through all doors.
      if (this.rows.length + 1 < LIVE_MAX) this.#session.host.initiate(this.#session.peer);
      return;
    }
    if (!this.#begin(number, door, nowUs)) return;
    this.#say(number, isMetered);
  }

  /** Closes the path through the door. */
  closeThrough(door: number): void {
    for (const way of [...this.ways()]) if (way.door === door) this.close(way.pathNumber);
  }

  /** What goes through the door costs, or does not, from now on. */
  price(door: number, isMetered: boolean): void {
    if (!this.#session.isInitiator || this.rows.length === 0) return;
    if (door === 0) this.#say(0, isMetered);
    for (const way of this.ways()) if (way.door === door) this.#say(way.pathNumber, isMetered);
    this.changed();
  }

  #say(number: number, isMetered: boolean): void {
    this.#states[number].isMetered = isMetered;
    this.#statuses.tell(number, PATH_AVAILABLE, isMetered, this.#session.host.copiedClasses);
  }

  #begin(number: number, door: number, nowUs: number): boolean {
    const { host, row, sessions } = this.#session, { table } = host.shared;
    if (this.rows.length + 1 >= LIVE_MAX || host.furtherPathsLeft === 0) return false;
    const path = table.allocatePath(row, number);
    if (path === NONE) return false;
    host.furtherPathsLeft--;
    this.#used |= 1 << number;
    const ids = new IdsOfPath(path);
    const way = new FurtherPath(
      this.#session,
      number,
      ids,
      door,
      this.#sizeMax,
      this,
    );
    this.#ways[number] = way;
    this.rows.push(path);
    this.#states[number] = newState();
    sessions.beginPath(path, way, nowUs);
    this.#ids.introduce(ids);
    this.#askUs = Math.min(this.#askUs, nowUs + ASK_USED_US);
    return true;
  }

  /** Closes a path at both ends. */
  close(number: number): void {
    if (this.#ways[number] === undefined) return;
    this.#statuses.tell(number, PATH_CLOSED, false, 0);
    this.#end(number);
  }

  #end(number: number): void {
    const way = this.#ways[number];
    if (way === undefined) return;
    const { row, host, sessions } = this.#session;
    way.wipe();
    this.#ways[number] = this.#figures[number] = undefined;
    this.#judged[number] = 0;
    this.rows.splice(this.rows.indexOf(way.path), 1);
    if (this.real === way.path) this.real = row;
    if (this.second === way.path) this.second = NONE;
    if (this.bulk === way.path) this.#moveBulk(row);
    sessions.endPath(way.path);
    host.furtherPathsLeft++;
    this.#ids.forget(way.ids);
    host.shared.table.isMultipath[row] = this.#isAnyValidated ? 1 : 0;
    this.#lookUs = -Infinity;
  }

  get #isAnyValidated(): boolean {
    for (const way of this.ways()) if (way.isValidated) return true;
    return false;
  }

  /** Whether a further path is not dead. */
  get isAnyAlive(): boolean {
    for (const way of this.ways()) if (way.isValidated && !way.roundTrip.isSilent) return true;
    return false;
  }

  idsOf(number: number, nowUs: number): IdsOfPath | undefined {
    if (this.#ways[number] === undefined) {
      // A number that was used is not used again, and this end's paths are for this end to open.
      if (this.#session.isInitiator || (this.#used >> number & 1) !== 0) return undefined;
      this.#begin(number, 0, nowUs);
    }
    return this.#ways[number]?.ids;
  }

  onIds(number: number, nowUs: number): void {
    const way = this.#ways[number]!;
    if (this.#session.isInitiator && !way.isValidated) way.ask(nowUs);
  }

  /** Figures have changed: they are looked at before the next packet. */
  changed(): void {
    this.#lookUs = -Infinity;
  }

  onIdUsed(way: FurtherPath, row: number): void {
    this.#ids.onUsed(way.ids, row);
  }

  onStatus(number: number, status: number, isMetered: boolean, classes: number, nowUs: number): void {
    if (status === PATH_CLOSED) {
      this.#end(number);
      return;
    }
    if (number > 0 && this.#ways[number] === undefined) return;
    this.#states[number].status = status;
    this.#states[number].isMetered = isMetered;
    this.#theirClasses = classes;
    this.look(nowUs);
  }

  /** Whether data went out on the path and nothing came, for long enough to take what can go elsewhere there. */
  isSilent(path: number): boolean {
    const way = this.#way(path), times = this.#session.sessions.unanswered[path];
    if (times < SILENT_PINGS) return false;
    return times * way.pingIntervalUs >= way.roundTripUs;
  }

  #isUsable(path: number): boolean {
    const { paths, table } = this.#session.host.shared;
    return paths.port[path] !== 0 && table.sendCounter[path] < table.sendLimit[path];
  }

  /** The path for a packet of the class. */
  pathFor(trafficClass: number, nowUs: number): number {
    this.#sentUs = nowUs;
    if (nowUs >= this.#lookUs) this.look(nowUs);
    const path = isRealTime(trafficClass) ? this.real : this.bulk;
    if (this.#isUsable(path)) return path;
    // A limit that was reached does not wait for the next look.
    this.look(nowUs);
    return isRealTime(trafficClass) ? this.real : this.bulk;
  }

  /** The path for a copy of a packet of the class that goes on `path`; NONE for no copy. */
  copyPathFor(trafficClass: number, path: number): number {
    if (this.second === NONE || path !== this.real || !this.#isUsable(this.second)) return NONE;
    const classes = this.#theirClasses < 0 ? this.#session.host.copiedClasses : this.#theirClasses;
    return (classes >> trafficClass & 1) !== 0 ? this.second : NONE;
  }

  /** What is known of the path for the choice, brought up to date; undefined where it cannot be used. */
  #figuresOf(path: number, nowUs: number): PathFigures | undefined {
    const number = this.#session.host.shared.table.pathNumber[path];
    if (!this.#isUsable(path)) return this.#figures[number] = undefined;
    const figures = this.#figures[number] ??= new PathFigures(nowUs);
    const way = this.#way(path),
      quality = way.repair?.sending?.quality,
      { status, isMetered } = this.#states[number];
    // Of the path itself: what is unknown is not taken for another one's.
    const pingedUs = this.#session.host.shared.paths.rttUs[path];
    const rttUs = quality !== undefined && quality.rttUs >= 0 ? quality.rttUs : pingedUs;
    if (rttUs >= 0) figures.delay(rttUs / 2, nowUs);
    figures.deviationUs = way.roundTrip.jitter.us / 2;
    if (quality !== undefined) {
      const judged = quality.judged - this.#judged[number];
      figures.outcome(judged, judged * quality.lossRate, nowUs);
      figures.lossRate = quality.lossRate;
      this.#judged[number] = quality.judged;
    }
    figures.isSilent = this.isSilent(path);
    figures.isMetered = isMetered;
    figures.handicap = status === PATH_STANDBY ? 1 : status === PATH_PREFERRED ? -0.5 : 0;
    return figures;
  }

  /** Looks at the figures of all paths, and chooses for the packets to come. */
  look(nowUs: number): void {
    const { host, row } = this.#session, { table } = host.shared, { isMultipath } = table;
    this.#lookUs = nowUs + LOOK_US;
    // Used again.
    if (this.#askUs > nowUs + 2 * ASK_USED_US && nowUs - this.#sentUs < ASK_USED_US) this.#askAll(nowUs);
    isMultipath[row] = this.#isAnyValidated ? 1 : 0;
    if (isMultipath[row] === 0) {
      this.real = row;
      this.second = NONE;
      if (this.bulk !== row) this.#moveBulk(row);
      return;
    }
    for (let i = -1; i < this.rows.length; i++) this.#figuresOf(this.#rowAt(i), nowUs);
    const before = this.real, choice = this.#scheduler.choose(this.#figures, nowUs);
    const [real, second] = choice === NO_PATH ? [NO_PATH, NO_PATH] : [pathOf(choice), copyOf(choice)];
    this.real = this.rowOf(real) ?? row;
    if (this.real !== before && this.isSilent(before)) this.#noteFailover(before);
    const copies = this.rowOf(second) ?? NONE;
    this.second = copies !== NONE && this.isSilent(copies) ? NONE : copies;
    const bulk = this.rowOf(bulkPath(this.#figures, table.pathNumber[this.bulk])) ?? row;
    if (bulk !== this.bulk) this.#moveBulk(bulk);
  }

  /** The row of the first path for -1, and of the further ones from 0 on. */
  #rowAt(i: number): number {
    return i < 0 ? this.#session.row : this.rows[i];
  }

  #moveBulk(path: number): void {
    this.bulk = path;
    this.#session.rate.onMoved();
  }

  #noteFailover(path: number): void {
    const { table, metrics } = this.#session.host.shared;
    this.#states[table.pathNumber[path]].failovers++;
    metrics.add("path_failovers", 1);
  }

  /** Counts what was sent on a path, and whether it was a copy. */
  count(path: number, bytes: number, isCopy: boolean): void {
    const state = this.#states[this.#session.host.shared.table.pathNumber[path]];
    state.bytesSent += bytes;
    if (isCopy) state.copiesSent++;
  }

  /** The path with the number; undefined where there is none. */
  rowOf(number: number): number | undefined {
    return number === 0 ? this.#session.row : this.#ways[number]?.path;
  }

  get dueUs(): number {
    const { sessions } = this.#session;
    if (this.rows.length === 0) return Infinity;
    let dueUs = this.#askUs;
    for (const way of this.ways()) dueUs = Math.min(dueUs, way.dueUs, sessions.pathDueUs(way.path));
    return dueUs;
  }

  handleTimeout(nowUs: number): void {
    const { sessions } = this.#session;
    if (this.rows.length === 0) return;
    for (const way of [...this.ways()]) {
      sessions.handlePathTimeout(way.path, nowUs);
      way.handleTimeout(nowUs);
    }
    if (this.#askUs <= nowUs) this.#askAll(nowUs);
    this.look(nowUs);
  }

  /**
   * Asks on every path, so that figures are fresh and silence is noticed; the initiator also while the session is not used, so that
   * NATs stay open, and the other end half as often.
   */
  #askAll(nowUs: number): void {
    const { isInitiator, sessions, row } = this.#session;
    const isUsed = nowUs - this.#sentUs < 2 * ASK_USED_US;
    this.#askUs = Infinity;
    if (!isInitiator && !isUsed) return;
    this.#askUs = nowUs + (isInitiator ? isUsed ? ASK_USED_US : ASK_IDLE_US : 2 * ASK_USED_US);
    this.#session.hasten(this.#askUs);
    for (let i = -1; i < this.rows.length; i++) {
      const path = i < 0 ? row : this.rows[i];
      if (!this.#isUsable(path)) continue;
      this.#way(path).ping();
      sessions.expectAnswer(path, nowUs);
    }
  }

  pollTransmit(burst: Burst, nowUs: number): boolean {
    for (const way of this.ways()) if (!way.pollTransmit(burst, nowUs)) return false;
    return true;
  }

  wipe(): void {
    for (const way of [...this.ways()]) this.#end(way.pathNumber);
  }
}
