/**
 * The connection ids of a session's further paths (PROTOCOL §14, §17): those that this end gives out for each, and the other
 * end's that no address has seen yet. Invariant: an id is a row of the session table that leads to one path; an end that uses an
 * id gets another, 64 a path in all. The first ids of a path open it. Does not decide which paths there are: path_set.ts does.
 * Keeps PROTOCOL R111.
 */
import { NONE } from "../../../vector/arena.ts";
import type { Burst } from "../../../vector/burst.ts";
import {
  CONNECTION_IDS_MAX,
  CONTROL_PATH_IDS,
  pathIdCount,
  readFirstPathIdNumber,
  readNewPathId,
  readPathNumber,
  readRetirePathIdsBefore,
  writePathIds,
} from "../../../wire/control.ts";
import { FRAME_HEAD_BYTES } from "../../../wire/frame.ts";
import { type Reliable, ReliableSubject } from "./reliable.ts";
import type { SessionContext } from "./subject.ts";

/** Ids of a path that the other end has not used yet, at first its only ones. */
const SPARES = 2;
/** Ids of a path that are good at a time; and that it has in all: after these its address changes no more. */
export const GOOD_MAX = 4;
const EVER = 64;
const FRAME_BYTES_MAX = FRAME_HEAD_BYTES + 8 + 4 * CONNECTION_IDS_MAX;

/** Both ends' ids of one path. */
export class IdsOfPath {
  /** Rows of this end's ids by number; the first is the path's own. */
  readonly rows: number[];
  /** Numbers of own ids that the other end knows. */
  told = 0;
  /** The other end's ids that no address has seen, oldest first, and the number of the next. */
  readonly remote: number[] = [];
  remoteNumber = 0;

  constructor(path: number) {
    this.rows = [path];
  }
}

/** What the ids ask of the session's paths. */
export interface PathIdsOwner {
  /** The ids of the path with the number, which is opened if the other end may open one more; undefined where it may not. */
  idsOf(number: number, nowUs: number): IdsOfPath | undefined;
  /** The other end has given ids for the path. */
  onIds(number: number, nowUs: number): void;
  /** Whether the other end has still to hear that a path is closed: before that it may have no room for one more. */
  readonly isClosing: boolean;
  /** All paths that are open, by their numbers. */
  open(): Iterable<[number: number, ids: IdsOfPath]>;
}

export class PathIds extends ReliableSubject {
  readonly #owner: PathIdsOwner;
  // The frame that is under way: whose ids, from which number on, how many.
  #number = 0;
  #ids: IdsOfPath | undefined;
  #first = 0;
  #count = 0;

  constructor(session: SessionContext, reliable: Reliable, owner: PathIdsOwner) {
    super(session, reliable, CONTROL_PATH_IDS, FRAME_BYTES_MAX);
    this.#owner = owner;
  }

  /** Gives the path its first spare ids, and has all told. */
  introduce(ids: IdsOfPath): void {
    while (ids.rows.length < SPARES && this.#add(ids));
    this.reliable.start();
  }

  #add(ids: IdsOfPath): boolean {
    const spare = this.session.host.shared.table.allocateSpare(this.session.row, ids.rows[0]);
    if (spare !== NONE) ids.rows.push(spare);
    return spare !== NONE;
  }

  /** The other end has begun to use the id of `row`, and gets another spare one. */
  onUsed(ids: IdsOfPath, row: number): void {
    const number = ids.rows.indexOf(row), { table } = this.session.host.shared;
    if (number < 1 || number + SPARES < ids.rows.length || ids.rows.length >= EVER || !this.#add(ids)) return;
    // The first stays, because the path has its row.
    const old = ids.rows.length - GOOD_MAX;
    if (old > 0) {
      table.erase(ids.rows[old]);
      ids.rows[old] = NONE;
    }
    this.reliable.start();
  }

  /** Gives the rows of the path's ids back. */
  forget(ids: IdsOfPath): void {
    for (const row of ids.rows) this.session.host.shared.table.erase(row);
    ids.rows.length = 0;
    if (this.#ids === ids) this.#ids = undefined;
  }

  get isWaiting(): boolean {
    if (this.#owner.isClosing) return false;
    for (const [, { rows, told }] of this.#owner.open()) if (told < rows.length) return true;
    return false;
  }

  override begin(): void {
    for (const [number, ids] of this.#owner.open()) {
      if (ids.told === ids.rows.length) continue;
      this.#number = number;
      this.#ids = ids;
      this.#first = ids.told;
      this.#count = Math.min(CONNECTION_IDS_MAX, ids.rows.length - ids.told);
      return;
    }
  }

  protected writeFrame(view: DataView, at: number, sequence: number): number {
    const { receiverIndex } = this.session.host.shared.table, rows = this.#ids?.rows;
    // Of a path that is closed by now the ids lead nowhere.
    const indexOf = (row: number | undefined) =>
      row === undefined || row === NONE ? NONE : receiverIndex[row];
    const ids = Uint32Array.from({ length: this.#count }, (_, i) => indexOf(rows?.[this.#first + i]));
    return writePathIds(view, at, sequence, this.#number, this.#first, 0, ids, this.#count);
  }

  onAcknowledged(): void {
    if (this.#ids !== undefined) this.#ids.told = this.#first + this.#count;
  }

  onControl({ view }: Burst, _row: number, at: number, length: number, nowUs: number): void {
    const path = readPathNumber(view, at), ids = this.#owner.idsOf(path, nowUs);
    if (ids === undefined) return;
    const first = readFirstPathIdNumber(view, at), count = pathIdCount(length);
    for (let i = 0; i < count && ids.remote.length < CONNECTION_IDS_MAX; i++) {
      if (first + i !== ids.remoteNumber) continue;
      ids.remoteNumber++;
      ids.remote.push(readNewPathId(view, at, i));
    }
    const retired = readRetirePathIdsBefore(view, at) - (ids.remoteNumber - ids.remote.length);
    if (retired > 0) ids.remote.splice(0, retired);
    this.#owner.onIds(path, nowUs);
  }
}
