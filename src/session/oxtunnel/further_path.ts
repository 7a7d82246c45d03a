/**
 * One path of a session beside its first (PROTOCOL §17): its addresses, size, round trip, reports and loss repair, each as the
 * session has them for the first path. Invariant: nothing but challenges and their answers is sent on the path before its address
 * has answered; what it shares with the session, the keys above all, is the session's. Path_set.ts decides what goes here.
 */
import { PathSize } from "../../control/path_size.ts";
import type { PathRate } from "../../rate/path_rate.ts";
import type { SessionRepair } from "../../repair/session_repair.ts";
import { NONE } from "../../vector/arena.ts";
import type { Burst } from "../../vector/burst.ts";
import {
  CONTROL_PATH_CHALLENGE,
  CONTROL_PATH_RESPONSE,
  controlKind,
  readPathHigh,
  readPathLow,
} from "../../wire/control.ts";
import type { Report } from "../../wire/report.ts";
import type { CopyWindow } from "./copy_window.ts";
import type { OxHost } from "./host.ts";
import { OxPaths } from "./paths.ts";
import type { OxSessions, PathVerbs } from "./sessions.ts";
import type { AnyPath, PathOwners, SessionOfPaths } from "./session_of_paths.ts";
import type { IdsOfPath } from "./subjects/path_ids.ts";
import { LossRepair } from "./subjects/repair.ts";
import { Reports } from "./subjects/reports.ts";
import { RepairRequests } from "./subjects/requests.ts";
import { ASK_DEAD_US, pingIntervalUs, RoundTrip } from "./subjects/round_trip.ts";
import { SizeProbes, SizeReplies } from "./subjects/size_probes.ts";
import type { SessionContext, Subject } from "./subjects/subject.ts";

/** Time until an address that did not answer is asked again, at first and at most, microseconds: networks with a captive portal. */
const AGAIN_US = 1_000_000, AGAIN_US_MAX = 30_000_000;

export class FurtherPath implements SessionContext, PathVerbs, AnyPath {
  readonly path: number;
  readonly pathNumber: number;
  readonly ids: IdsOfPath;
  readonly paths: OxPaths;
  readonly size: PathSize;
  readonly repair: SessionRepair | undefined;
  readonly roundTrip: RoundTrip;
  /** This end's interface for the path, 0 to let the system choose. */
  readonly door: number;
  isReportDue = false;
  /** Headers are left out on the first path only: contexts need the order of one path's counters. */
  readonly headers = undefined;
  readonly rohc = undefined;
  /** Which of the path's packets have come, by themselves or as copies; undefined before the first copy. */
  copies: CopyWindow | undefined;
  readonly #session: SessionOfPaths;
  readonly #owners: PathOwners<FurtherPath>;
  readonly #sizeProbes: SizeProbes;
  readonly #subjects: readonly Subject[];
  /** This end's own address as a port with several doors reads it (io/multi_port.ts): the door, in the last word. */
  readonly #local: Uint32Array<ArrayBuffer>;
  // While this end asks the other for the address: when next, and after how long again.
  #askAtUs = Infinity;
  #againUs = AGAIN_US;

  constructor(
    session: SessionOfPaths,
    number: number,
    ids: IdsOfPath,
    door: number,
    sizeMax: number,
    owners: PathOwners<FurtherPath>,
  ) {
    this.#session = session;
    this.path = ids.rows[0];
    this.pathNumber = number;
    this.ids = ids;
    this.door = door;
    this.#owners = owners;
    this.#local = Uint32Array.of(0, 0, 0, door);
    this.paths = new OxPaths(session.host, this);
    this.size = new PathSize(sizeMax);
    const lossRepair = new LossRepair(this, session.sessions.repairs);
    this.repair = lossRepair.repair;
    this.#subjects = [
      this.roundTrip = new RoundTrip(this),
      new SizeReplies(this),
      new RepairRequests(this, lossRepair.repair),
      new Reports(this),
      lossRepair,
      this.#sizeProbes = new SizeProbes(this, this.size),
    ];
  }

  get row(): number {
    return this.#session.row;
  }
  get peer(): number {
    return this.#session.peer;
  }
  get isInitiator(): boolean {
    return this.#session.isInitiator;
  }
  get aead(): number {
    return this.#session.aead;
  }
  get features(): number {
    return this.#session.features;
  }
  get reportIntervalUs(): number {
    return this.#session.reportIntervalUs;
  }
  get sessions(): OxSessions {
    return this.#session.sessions;
  }
  get host(): OxHost {
    return this.#session.host;
  }
  get epoch(): number {
    return this.#session.epoch;
  }
  get isEnding(): boolean {
    return this.#session.isEnding;
  }
  set isEnding(isEnding: boolean) {
    this.#session.isEnding = isEnding;
  }
  get pathRate(): PathRate | undefined {
    return this.#session.pathRate;
  }
  set pathRate(rate: PathRate | undefined) {
    this.#session.pathRate = rate;
  }

  get rttUs(): number {
    return this.host.shared.paths.rttUs[this.path];
  }
  set rttUs(rttUs: number) {
    this.host.shared.paths.rttUs[this.path] = rttUs;
  }
  get roundTripUs(): number {
    return this.rttUs >= 0 ? this.rttUs : this.#session.roundTripUs;
  }

  get pingIntervalUs(): number {
    return this.roundTrip.isSilent ? ASK_DEAD_US : pingIntervalUs(this.roundTripUs, true);
  }

  /** Whether the address at the other end has answered. */
  get isValidated(): boolean {
    return this.host.shared.paths.port[this.path] !== 0;
  }

  speak(): void {
    this.#session.speak();
  }
  hasten(dueUs: number): void {
    this.#session.hasten(dueUs);
  }
  ping(): void {
    this.roundTrip.ping();
  }
  takeRemoteId(): number {
    return this.ids.remote.shift() ?? NONE;
  }
  onIdUsed(row: number): void {
    this.#owners.onIdUsed(this, row);
  }
  onNoId(): void {
    this.#owners.close(this.pathNumber);
  }
  onSilence(times: number): void {
    this.roundTrip.onSilence(times);
    this.#owners.changed();
  }
  onDead(): boolean {
    return this.#session.onFurtherDead();
  }
  answered(sentUs: number): void {
    for (const subject of this.#subjects) subject.onAnswer?.(sentUs);
  }
  reported(report: Report, nowUs: number): void {
    for (const subject of this.#subjects) subject.onReport?.(report, nowUs);
    if (this.#session.bulkPath === this.path) this.#session.rate.onReport(report, nowUs);
    this.#owners.changed();
  }
  sizeChanged(): void {
    this.#sizeProbes.sizeChanged();
    this.#owners.changed();
  }
  prependReport(burst: Burst, row: number, mtu: number, nowUs: number): void {
    for (const subject of this.#subjects) {
      if (subject instanceof Reports) subject.prepend(burst, row, mtu, nowUs);
    }
  }

  /** The other end is at another address: what was known of the way there is forgotten. */
  onNewPath(): void {
    for (const subject of this.#subjects) subject.onNewPath?.();
  }

  onMoved(): void {
    this.#askAtUs = Infinity;
    this.#againUs = AGAIN_US;
    this.#owners.changed();
  }

  /** Asks the other end, at the address of the first path, through the path's door, until it answers. */
  ask(nowUs: number): void {
    const { paths } = this.host.shared, at = 4 * this.row;
    this.paths.probe(paths.address.subarray(at, at + 4), paths.port[this.row], nowUs, this.#local);
    this.#askAtUs = nowUs + this.#againUs;
    this.#againUs = Math.min(2 * this.#againUs, AGAIN_US_MAX);
    this.hasten(this.#askAtUs);
  }

  /** The same anew, from another network: what went on there must not go on here before it has answered. */
  askAnew(nowUs: number): void {
    this.host.shared.paths.port[this.path] = 0;
    this.paths.abandon();
    this.#againUs = AGAIN_US;
    this.#owners.changed();
    this.ask(nowUs);
  }

  /** Obeys a control frame that is about the path that it came on; false for one that is about the session. */
  onControl(burst: Burst, row: number, at: number, length: number, nowUs: number): boolean {
    const { view } = burst, kind = controlKind(view, at);
    if (kind === CONTROL_PATH_CHALLENGE) {
      this.paths.onChallenge(burst, row, readPathLow(view, at), readPathHigh(view, at), nowUs);
      return true;
    }
    if (kind === CONTROL_PATH_RESPONSE) {
      this.paths.onResponse(burst, row, readPathLow(view, at), readPathHigh(view, at), nowUs);
      return true;
    }
    for (const subject of this.#subjects) {
      if (subject.takes?.(kind) !== true) continue;
      subject.onControl?.(burst, row, at, length, nowUs);
      return true;
    }
    return false;
  }

  /** When something of the path is due, but for its columns; or Infinity. */
  get dueUs(): number {
    let dueUs = Math.min(this.paths.dueUs, this.#askAtUs);
    for (const subject of this.#subjects) dueUs = Math.min(dueUs, subject.dueUs);
    return dueUs;
  }

  handleTimeout(nowUs: number): void {
    this.paths.handleTimeout(nowUs);
    for (const subject of this.#subjects) if (subject.dueUs <= nowUs) subject.handleTimeout(nowUs);
    if (this.#askAtUs <= nowUs) this.ask(nowUs);
  }

  /** Adds what is to be sent on the path to the burst; false when it was full before. */
  pollTransmit(burst: Burst, nowUs: number): boolean {
    if (!this.paths.pollTransmit(burst)) return false;
    const { sendCounter, sendLimit } = this.host.shared.table;
    if (!this.isValidated || sendCounter[this.path] >= sendLimit[this.path]) return true;
    return this.#session.say(burst, this, this.#subjects, nowUs);
  }

  wipe(): void {
    for (const subject of this.#subjects) subject.wipe?.();
  }
}
