/**
 * The connection ids of a session (PROTOCOL §14, §17): spare ones that this end gives out, and the other end's that no path
 * has seen yet. Invariant: an id is one row of the session table, the numbers of ids rise by one, and an end that
 * uses an id gets another, 1024 in all. Does not decide when a path needs another id.
 */
import { NONE } from "../../../vector/arena.ts";
import type { Burst } from "../../../vector/burst.ts";
import {
  CONNECTION_IDS_MAX,
  connectionIdCount,
  CONTROL_CONNECTION_IDS,
  readFirstIdNumber,
  readNewConnectionId,
  readRetireBefore,
  writeConnectionIds,
} from "../../../wire/control.ts";
import { FRAME_HEAD_BYTES } from "../../../wire/frame.ts";
import { type Reliable, ReliableSubject } from "./reliable.ts";
import type { SessionContext } from "./subject.ts";

/** Spare connection ids that the other end shall have. */
export const SPARE_IDS = 2;
/** Ids of one session that are good at a time, besides its first. */
const IDS_MAX = 8;
/** Ids that a session gives out in all; an end that has used all makes a handshake. */
const IDS_EVER = 1024;
const FRAME_BYTES_MAX = FRAME_HEAD_BYTES + 7 + 4 * CONNECTION_IDS_MAX;

export class ConnectionIds extends ReliableSubject {
  /** Rows of this end's ids by number; number 0 is the session's own. */
  readonly #ownRows: number[];
  /** Numbers of own ids that the other end knows. */
  #told: number;
  /** Ids in the frame that is under way. */
  #underWay = 0;
  /** The other end's ids that no path has seen, oldest first, and the number of the next. */
  readonly #remoteIds: number[];
  #remoteNumber: number;

  /** @param spareRows session rows of this end's ids 1 and on. @param remoteIds the other end's, taken over. */
  constructor(
    session: SessionContext,
    reliable: Reliable,
    spareRows: readonly number[],
    remoteIds: number[],
  ) {
    super(session, reliable, CONTROL_CONNECTION_IDS, FRAME_BYTES_MAX);
    this.#ownRows = [session.row, ...spareRows];
    this.#told = this.#ownRows.length;
    this.#remoteIds = remoteIds;
    this.#remoteNumber = 1 + remoteIds.length;
  }

  /** An id of the other end that no path has seen yet, or NONE. */
  takeRemoteId(): number {
    return this.#remoteIds.shift() ?? NONE;
  }

  /** The other end has begun to use the id of `row`, and gets another spare id. */
  onUsed(row: number): void {
    const { table } = this.session.host.shared;
    const number = this.#ownRows.indexOf(row);
    if (number < 1 || number + SPARE_IDS < this.#ownRows.length || this.#ownRows.length >= IDS_EVER) return;
    const spare = table.allocateSpare(this.session.row);
    if (spare === NONE) return;
    // Paths that were left long ago keep no ids.
    const old = this.#ownRows.length - IDS_MAX;
    if (old > 0) {
      table.erase(this.#ownRows[old]);
      this.#ownRows[old] = NONE;
    }
    this.#ownRows.push(spare);
    this.reliable.start();
  }

  get isWaiting(): boolean {
    return this.#told < this.#ownRows.length;
  }

  override begin(): void {
    this.#underWay = Math.min(CONNECTION_IDS_MAX, this.#ownRows.length - this.#told);
  }

  protected writeFrame(view: DataView, at: number, sequence: number): number {
    const { receiverIndex } = this.session.host.shared.table;
    const first = this.#told, count = this.#underWay;
    const ids = Uint32Array.from({ length: count }, (_, i) => receiverIndex[this.#ownRows[first + i]]);
    return writeConnectionIds(view, at, sequence, first, 0, ids, count);
  }

  onAcknowledged(): void {
    this.#told += this.#underWay;
  }

  onControl({ view }: Burst, _row: number, at: number, length: number): void {
    const first = readFirstIdNumber(view, at);
    const count = connectionIdCount(length);
    for (let i = 0; i < count && this.#remoteIds.length < CONNECTION_IDS_MAX; i++) {
      if (first + i !== this.#remoteNumber) continue;
      this.#remoteNumber++;
      this.#remoteIds.push(readNewConnectionId(view, at, i));
    }
    // Ids that the other end gives up are taken from the front, where the oldest are.
    const retired = readRetireBefore(view, at) - (this.#remoteNumber - this.#remoteIds.length);
    if (retired > 0) this.#remoteIds.splice(0, retired);
  }

  /** Gives the rows of the spare ids back. */
  wipe(): void {
    const { table } = this.session.host.shared;
    for (let number = 1; number < this.#ownRows.length; number++) table.erase(this.#ownRows[number]);
    this.#ownRows.length = 1;
  }
}
