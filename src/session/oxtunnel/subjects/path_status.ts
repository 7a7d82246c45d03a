/**
 * What the user of each path of a session says of it (PROTOCOL §14, §17): whether it is to be used, what it costs, and which
 * classes are wanted on a second path too. Invariant: what one end says changes only what the other sends to it; of several
 * changes of one path the last is told. Obeys nothing itself: path_set.ts does.
 * Keeps PROTOCOL R113.
 */
import type { Burst } from "../../../vector/burst.ts";
import {
  CONTROL_PATH_STATUS,
  COST_METERED,
  PATH_CLOSED,
  PATHS_MAX,
  readPathClasses,
  readPathCost,
  readPathNumber,
  readPathStatus,
  writePathStatus,
} from "../../../wire/control.ts";
import { FRAME_HEAD_BYTES } from "../../../wire/frame.ts";
import { type Reliable, ReliableSubject } from "./reliable.ts";
import type { SessionContext } from "./subject.ts";

const FRAME_BYTES_MAX = FRAME_HEAD_BYTES + 7;

/** What the statuses ask of the session's paths. */
export interface PathStatusOwner {
  /** The other end says this of the path with the number. */
  onStatus(number: number, status: number, isMetered: boolean, classes: number, nowUs: number): void;
}

export class PathStatuses extends ReliableSubject {
  readonly #owner: PathStatusOwner;
  // By path: what is to be told, and whether it waits.
  readonly #status = new Uint8Array(PATHS_MAX);
  readonly #cost = new Uint8Array(PATHS_MAX);
  readonly #classes = new Uint8Array(PATHS_MAX);
  readonly #isWaiting = new Uint8Array(PATHS_MAX);
  // The frame that is under way.
  #path = 0;
  readonly #frame = new Uint8Array(3);

  constructor(session: SessionContext, reliable: Reliable, owner: PathStatusOwner) {
    super(session, reliable, CONTROL_PATH_STATUS, FRAME_BYTES_MAX);
    this.#owner = owner;
  }

  /** Has this told. @param status PATH_*. @param classes bit c for CLASS_* c. */
  tell(path: number, status: number, isMetered: boolean, classes: number): void {
    this.#status[path] = status;
    this.#cost[path] = isMetered ? COST_METERED : 0;
    this.#classes[path] = classes;
    this.#isWaiting[path] = 1;
    this.reliable.start();
  }

  /** Whether a path's end waits to be told. */
  get isClosing(): boolean {
    return this.#closed >= 0;
  }

  get #closed(): number {
    return this.#isWaiting.findIndex((isWaiting, path) =>
      isWaiting === 1 && this.#status[path] === PATH_CLOSED
    );
  }

  get isWaiting(): boolean {
    return this.#isWaiting.includes(1);
  }

  override begin(): void {
    // Ends first: what is said of a path means nothing before its ids, which wait for them.
    const path = this.#path = this.isClosing ? this.#closed : this.#isWaiting.indexOf(1);
    this.#isWaiting[path] = 0;
    this.#frame[0] = this.#status[path];
    this.#frame[1] = this.#cost[path];
    this.#frame[2] = this.#classes[path];
  }

  protected writeFrame(view: DataView, at: number, sequence: number): number {
    const [status, cost, classes] = this.#frame;
    return writePathStatus(view, at, sequence, this.#path, status, cost, classes);
  }

  onAcknowledged(): void {}

  onControl({ view }: Burst, _row: number, at: number, _length: number, nowUs: number): void {
    const isMetered = readPathCost(view, at) === COST_METERED;
    this.#owner.onStatus(
      readPathNumber(view, at),
      readPathStatus(view, at),
      isMetered,
      readPathClasses(view, at),
      nowUs,
    );
  }
}
